/* Which kernels a set has that are not compiled per instruction set (multi/register.c). */
#include "backend/cpu/cpu.h"
#include "backend/cpu/expert_linear.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/linear.h"
#include "base/sys.h"
#include "ops/ops.h"

#include <math.h>

#if defined(__x86_64__)
/* FLOP/s, in GFLOP/s, of one short run of a set's multiply-adds. */
static double rate(const struct gemm_kernels *k, float *data)
{
    u64 begin = sys_now_ns();
    i64 flops = k->peak(1000, data); /* 2 to 10 us: most runs see no interrupt */
    return (double)flops / (double)i64_max(1, (i64)(sys_now_ns() - begin));
}

/* The best of many short runs in turn: whatever disturbs them can only lower one. What is
 * known lies far from the threshold on either side: 2 (AMD Zen 4 and 5) and 0.5 (Intel
 * Sapphire and Emerald Rapids: an instruction starts every second cycle). */
bool cpu_avx512bf16_pays(void)
{
    enum { RUNS = 24 };
    const double threshold = 1.5;
    _Alignas(64) float data[256];
    double f32 = 0, pairs = 0;
    for (int i = 0; i < 256; i++)
        data[i] = 1 + (float)i / 256;
    for (int i = 0; i < RUNS; i++) {
        f32 = fmax(f32, rate(&gemm_kernels_avx512, data));
        pairs = fmax(pairs, rate(&gemm_kernels_avx512bf16, data));
    }
    return pairs > threshold * f32;
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
