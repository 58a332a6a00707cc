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
void cpu_register_amx(struct backend *b);

/* Does vdpbf16ps multiply faster than f32's units do after widening, on a processor that has it?
 * The same answer on all processors of a maker. */
bool cpu_avx512bf16_pays(void);

#endif
