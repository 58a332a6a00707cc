/* Which kernels each instruction set brings. */
#include "backend/cpu/cpu.h"

void cpu_register_generic(struct backend *b)
{
    (void)b;
}

void cpu_register_avx2(struct backend *b)
{
    (void)b;
}

void cpu_register_avx512(struct backend *b)
{
    (void)b;
}

void cpu_register_avx512bf16(struct backend *b)
{
    (void)b;
}
