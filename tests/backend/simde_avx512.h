/* Included in front of the AVX-512 matrix kernels to run them on machines without AVX-512:
 * SIMDe spells each 512-bit intrinsic in instructions that are there. Public names get a
 * suffix, because the real kernels are in the library under test. */
#ifndef HEADWAY_SIMDE_AVX512_H
#define HEADWAY_SIMDE_AVX512_H

#include <immintrin.h> /* first: SIMDe's names must win */

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define gemm_kernels_avx512 gemm_kernels_avx512_simde
#define gemm_kernels_avx512bf16 gemm_kernels_avx512bf16_simde
#define gemm_kernels_amx gemm_kernels_amx_simde
#define gemm_kernels_split gemm_kernels_split_simde
#define gemm_pack_words_avx512 gemm_pack_words_simde
#define gemm_pack_pairs_avx512 gemm_pack_pairs_simde
#define gemm_start_avx512 gemm_start_simde
#define gemm_finish_avx512 gemm_finish_simde
#define gemm_sum_rows_avx512 gemm_sum_rows_simde

/* SIMDe has none: a store like others. */
#define _mm512_stream_si512(line, v) (*(simde__m512i *)(line) = (v))

#include "emulated_amx.h"

#endif
