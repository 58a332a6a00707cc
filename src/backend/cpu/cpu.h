/* backend/cpu/cpu.h - the CPU's kernel tables, one per instruction set.
 *
 * Each function overrides the rows of b with the kernels compiled for its set; a better
 * set is registered over a plainer one, so that every op keeps the best that exists. */
#ifndef HEADWAY_CPU_H
#define HEADWAY_CPU_H

#include "backend/backend.h"

void cpu_register_generic(struct backend *b);
void cpu_register_avx2(struct backend *b);
void cpu_register_avx512(struct backend *b);
void cpu_register_avx512bf16(struct backend *b);

/* Does vdpbf16ps multiply faster than f32's units do after widening? Measured, in 0.3 ms, on
 * a processor that has avx512bf16; the answer is the same every time. */
bool cpu_avx512bf16_pays(void);

#endif
