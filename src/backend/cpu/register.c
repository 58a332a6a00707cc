/* Which kernels a set has that are not compiled per instruction set (multi/register.c). */
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

void cpu_register_avx512bf16(struct backend *b)
{
    void *g = (void *)&gemm_kernels_avx512bf16; /* a kernel's context; never written */
    backend_set(b, &op_linear, (struct kernel){ linear_run, linear_workspace, g });
    backend_set(b, &op_linear_dx, (struct kernel){ linear_dx_run, linear_dx_workspace, g });
    backend_set(b, &op_linear_dw, (struct kernel){ linear_dw_run, linear_dw_workspace, g });
    backend_set(b, &op_expert_linear,
                (struct kernel){ expert_linear_run, expert_linear_workspace, g });
    backend_set(b, &op_expert_linear_dx,
                (struct kernel){ expert_linear_dx_run, expert_linear_dx_workspace, g });
    backend_set(b, &op_expert_linear_dw,
                (struct kernel){ expert_linear_dw_run, expert_linear_dw_workspace, g });
}
#endif
