/* backend/cpu/gemm_pack.h - the copying half of a kernel set, once per instruction set
 * (multi/gemm_pack.c). Contracts are in gemm.h. */
#ifndef HEADWAY_GEMM_PACK_H
#define HEADWAY_GEMM_PACK_H

#include "backend/cpu/gemm.h"

#define GEMM_PACK_DECLARE(isa)                                                           \
    void gemm_pack_words_##isa(u32 *panels, const struct gemm_slab *s, i64 width);       \
    void gemm_pack_pairs_##isa(u32 *panels, const struct gemm_slab *s, i64 width);       \
    void gemm_start_##isa(float *dst, i64 dst_stride, const struct gemm_start *s,        \
                          const float *sums, i64 sums_stride, i64 rows, i64 cols);       \
    void gemm_finish_##isa(void *dst, enum dtype type, i64 dst_stride, const float *src, \
                           i64 src_stride, i64 rows, i64 cols, bool add);         \
    void gemm_sum_rows_##isa(float *sums, const struct gemm_slab *s)

GEMM_PACK_DECLARE(generic);
GEMM_PACK_DECLARE(avx2);
GEMM_PACK_DECLARE(avx512);

#endif
