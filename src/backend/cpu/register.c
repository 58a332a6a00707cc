/* Which kernels a set has that are not compiled per instruction set (multi/register.c). */
#include "backend/cpu/cpu.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/linear.h"
#include "ops/ops.h"

#if defined(__x86_64__)
void cpu_register_avx512bf16(struct backend *b)
{
    void *g = (void *)&gemm_kernels_avx512bf16; /* a kernel's context; never written */
    backend_set(b, &op_linear, (struct kernel){ linear_run, linear_workspace, g });
    backend_set(b, &op_linear_dx, (struct kernel){ linear_dx_run, linear_dx_workspace, g });
    backend_set(b, &op_linear_dw, (struct kernel){ linear_dw_run, linear_dw_workspace, g });
}
#endif
