/* Which kernels a set has that are not compiled per instruction set (multi/register.c). */
#include "backend/cpu/attention.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/expert_linear.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/linear.h"
#include "ops/ops.h"

#if defined(__x86_64__)
/* By the maker, and not by a trial at the start: two ranks, or a run and its resumption, must
 * come to the same answer however busy the machine is. AMD Zen 4 and 5 begin a vdpbf16ps
 * wherever they begin a multiply-add, so that it does twice the work; Intel's Sapphire and
 * Emerald Rapids begin one every second cycle, and do half. */
bool cpu_avx512bf16_pays(void)
{
    return __builtin_cpu_is("amd");
}

/* Kernels of tasks whose first operand is bf16, and of others. */
struct by_operand {
    struct kernel pairs, words;
};

static const struct kernel *kernel_of(const struct by_operand *k, const struct task *t)
{
    return t->in[0]->dtype == DTYPE_BF16 ? &k->pairs : &k->words;
}

static void by_operand_run(const struct task *t, struct run *x)
{
    kernel_of(x->context, t)->run(t, x);
}

static i64 by_operand_workspace(const struct task *t, int threads, const void *context)
{
    const struct kernel *k = kernel_of(context, t);
    return k->workspace(t, threads, NULL);
}

#define BY_OPERAND(op, set)                          \
    { &op_##op, { { op##_##set, op##_workspace_##set, NULL }, \
                  { op##_avx512, op##_workspace_avx512, NULL } } }
#define ATTENTION_BY_OPERAND(set)                                             \
    {                                                                         \
        BY_OPERAND(attention, set), BY_OPERAND(attention_grad, set),          \
        BY_OPERAND(attention_block, set), BY_OPERAND(attention_block_grad, set), \
        BY_OPERAND(attention_cached, set),                                    \
    }

struct attention_row {
    const struct op_info *op;
    struct by_operand kernels;
};

enum { ATTENTION_OPS = 5 };

static void register_attention(struct backend *b, const struct attention_row *rows)
{
    b->rounds_within = true; /* P and dS become pairs */
    for (i64 i = 0; i < ATTENTION_OPS; i++)
        backend_set(b, rows[i].op, (struct kernel){ by_operand_run, by_operand_workspace,
                                                    (void *)&rows[i].kernels });
}

static void register_products(struct backend *b, const struct gemm_kernels *set)
{
    void *g = (void *)set; /* a kernel's context; never written */
    backend_set(b, &op_linear, (struct kernel){ linear_run, linear_workspace, g });
    backend_set(b, &op_linear_dx, (struct kernel){ linear_dx_run, linear_dx_workspace, g });
    backend_set(b, &op_linear_dw, (struct kernel){ linear_dw_run, linear_dw_workspace, g });
    backend_set(b, &op_expert_linear,
                (struct kernel){ expert_linear_run, expert_linear_workspace, g });
    backend_set(b, &op_expert_linear_dx,
                (struct kernel){ expert_linear_dx_run, expert_linear_dx_workspace, g });
    backend_set(b, &op_expert_linear_dw,
                (struct kernel){ expert_linear_dw_run, expert_linear_dw_workspace, g });
    struct kernel orthogonal = *backend_kernel(b, &op_muon_orthogonal);
    orthogonal.context = g;
    backend_set(b, &op_muon_orthogonal, orthogonal);
}

void cpu_register_avx512bf16(struct backend *b)
{
    static const struct attention_row rows[ATTENTION_OPS] = ATTENTION_BY_OPERAND(avx512bf16);
    register_products(b, &gemm_kernels_avx512bf16);
    register_attention(b, rows);
}

void cpu_register_amx(struct backend *b)
{
    static const struct attention_row rows[ATTENTION_OPS] = ATTENTION_BY_OPERAND(amx);
    register_products(b, &gemm_kernels_amx);
    register_attention(b, rows);
}
#endif
