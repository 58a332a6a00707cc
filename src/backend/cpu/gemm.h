/* backend/cpu/gemm.h - matrix products, exact in the order of their sums.
 *
 * Both operands are first copied into *panels*: mr rows of A, or nr columns of B, side
 * by side for kc values of k; rows of A that a kernel can read as they lie are left
 * there. A *micro kernel* then multiplies one panel of A with one panel of B with all mr
 * x nr sums in registers. Everything else is about which panel to touch when (gemm.c)
 * and how to copy quickly (multi/gemm_pack.c).
 *
 * The promise: an element of C is start + block 0 + block 1 + ..., added in this order,
 * where block i is the chain of fused multiply-adds over k in [i kc, (i + 1) kc), ascending,
 * from zero. So its bits are a function of its row of A, its column of B and K: never of
 * M, N, its neighbours, the edges, the tiling or the number of threads. Kernel sets with
 * the same kc and fused multiply-add (avx2, avx512) give the same bits too.
 *
 * With *leaves* the sum over k has another order, one that ranks can share: K is cut into leaves,
 * each is a chain of blocks from zero, and the leaves are added in a tree by their number,
 *     tree(n) = tree(first half) + tree(second half), n even;  an ascending sum, n odd;
 * the start is added last. So a product whose K is spread over 2, 4 or 8 ranks, each with
 * its leaves, has the bits of one rank once the ranks' sums are added in a tree.
 *
 * Not promised: the same bits as generic (it multiplies, rounds and adds), or as avx512bf16 and
 * amx on bf16 operands. vdpbf16ps adds two products per step with round-to-nearest-even,
 * takes subnormal inputs as zero, flushes subnormal results to zero, and pays no heed to
 * MXCSR; so a sum of only subnormal products is 0 there. tdpbf16ps does the same with 32 values
 * of k at a time, which are a step of the chain (gemm_kernel_amx.c), and goes on with the chain
 * from block to block, where others add blocks: start is added behind the first. Where amx has tile
 * registers f32 is multiplied in three pieces of bf16 each, to the exactness of multiply-adds
 * and not to their bits (gemm_kernel_split_amx.c); numbers below 2^-126 count as zero in it.
 *
 * NaN and Inf travel as in plain arithmetic: padding multiplies padding only. */
#ifndef HEADWAY_GEMM_H
#define HEADWAY_GEMM_H

#include "base/base.h"
#include "base/dtype.h"

struct pool;

/* Element (r, c) is at data + (r row_stride + c col_stride) elements; one stride is 1.
 * A transpose is the same matrix with its strides exchanged. */
struct gemm_matrix {
    void *data;
    enum dtype type; /* DTYPE_F32 or DTYPE_BF16 */
    i64 row_stride, col_stride;
};

/* C = start + A B, start = (C if accumulate) + (residual if any) + (bias if any).
 * A (M,K)  B (K,N)  C, residual (M,N)  bias (N)  row_sum (M). Sums are in fp32; a bf16 C is
 * rounded once, to nearest even. C and residual have col_stride 1 (for a C stored by
 * columns ask for its transpose, B' A'), and K and N up to 2^31. */
enum { GEMM_PIECES = 3 };

/* K in leaves: leaf j is the j-th share of each piece, one piece after the other. Pieces lie one
 * behind the other and make up K; shares that begin behind their piece's end are empty. */
struct gemm_leaves {
    i64 count; /* 0: no leaves */
    struct {
        i64 k, share; /* values of k in the piece, and in each leaf's share of it */
    } pieces[GEMM_PIECES]; /* k = 0 ends */
};

struct gemm {
    i64 M, N, K;
    struct gemm_leaves leaves;
    struct gemm_matrix A, B, C;
    bool accumulate;
    /* data NULL: none; C's type; may be C itself; not with accumulate. */
    struct gemm_matrix residual;
    const float *bias;           /* NULL: none */
    float *row_sum;              /* NULL: none; else (+)= sum over k of A, + if accumulate.
                                  * With A = dY' this is the gradient of a bias. */
};

struct gemm_kernels;

/* workspace: at least gemm_workspace_bytes for the pool's threads, aligned to 64; huge pages
 * help (sys_map_pages). Nothing else is written but C and row_sum, nothing is allocated. */
void gemm_run(const struct gemm *g, const struct gemm_kernels *k, struct pool *pool,
              void *workspace);
i64 gemm_workspace_bytes(const struct gemm *g, const struct gemm_kernels *k, int threads);
/* The most of that for any K from 0 to g->K: when it is known only when the product runs. */
i64 gemm_workspace_bytes_up_to(const struct gemm *g, const struct gemm_kernels *k, int threads);

/* --- one level down: for kernels that multiply small tiles themselves (attention) --- */

/* What pack copies: `rows` rows by k columns of a matrix, seen so that k runs along the
 * sum: for A rows are rows, for B rows are B's columns. */
struct gemm_slab {
    const void *data;
    enum dtype type;
    i64 row_stride, k_stride; /* in elements, one is 1 */
    i64 rows, k;
};

/* Writes ceil(rows / width) panels, one after the other, each `steps` x width words of 4
 * bytes, steps = gemm_steps(kernels, k). A word is an f32, or a pair of bf16 (k, k + 1).
 * Missing rows, the second half of an odd last pair, and steps that only fill up are zero.
 * width: mr or nr. How words lie within a panel is the kernel set's own affair. */
typedef void (*gemm_pack_fn)(u32 *panels, const struct gemm_slab *s, i64 width);

/* Around a thread's calls of micro: what the processor must be told. */
typedef void (*gemm_mode_fn)(void);

/* c (mr x nr, f32, rows ldc apart) = (add ? c : 0) + panel a * panel b. steps may be 0.
 * a aligned to 4, b to 64 bytes (panels laid by pack from an aligned start are).
 * Meanwhile the words from `ahead` on are fetched into the cache, a line per
 * ahead_steps steps: a piece of the next panel of B, one after the other. Any address will
 * do, b itself where there is nothing to fetch. */
typedef void (*gemm_micro_fn)(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc,
                              bool add, const u32 *ahead);

/* The same with mr rows of A as they lie, words side by side, rows row_stride words apart. */
typedef void (*gemm_micro_rows_fn)(i64 steps, const u32 *a, i64 row_stride, const u32 *b,
                                   float *c, i64 ldc, bool add, const u32 *ahead);

/* dst (f32, rows x cols) = start + sums, which may be dst;
 * start = from (f32 or bf16; NULL is 0; may be dst) + bias (NULL is 0). */
struct gemm_start {
    const void *from;
    enum dtype from_type;
    i64 from_stride;
    const float *bias;
};
typedef void (*gemm_start_fn)(float *dst, i64 dst_stride, const struct gemm_start *s,
                              const float *sums, i64 sums_stride, i64 rows, i64 cols);
/* dst (f32 or bf16) = (add ? dst : 0) + src, rounded to dst's type; add for f32 only. */
typedef void (*gemm_finish_fn)(void *dst, enum dtype type, i64 dst_stride, const float *src,
                               i64 src_stride, i64 rows, i64 cols, bool add);
/* sums[r] = sum over the slab's k of row r: a chain of additions, k ascending, from zero. */
typedef void (*gemm_sum_fn)(float *sums, const struct gemm_slab *s);

/* Where a micro tile of sums belongs: dst (mr x nr, f32 or bf16) = start + sums, as gemm_start and
 * gemm_finish have it; where start has neither `from` nor `bias`, sums alone. */
struct gemm_tail {
    struct gemm_start start;
    void *dst; /* may be start.from */
    enum dtype type;
    i64 dst_stride;
    bool past_caches;   /* dst's lines are whole, aligned, and not read soon */
    const u32 *a, *b;   /* the panels whose product the sums are, and their steps */
    i64 steps;
};

/* sums (mr x nr, rows nr apart) = panel a * panel b, or where `on` is not NULL the chain of sums
 * that lies there (rows on_stride apart) gone on with. Meanwhile the micro tile that was
 * multiplied before is brought to its place, so that tile registers need not wait for memory;
 * before NULL: there is none. */
typedef void (*gemm_micro_tail_fn)(i64 steps, const u32 *a, const u32 *b, const float *on,
                                   i64 on_stride, float *sums, const u32 *ahead,
                                   float *before_sums, const struct gemm_tail *before);
/* c (mr x nr, rows ldc apart), the chain of sums so far, goes on through panel a * panel b. */
typedef void (*gemm_micro_on_fn)(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc,
                                 const u32 *ahead);
/* The last one, behind which nothing is multiplied. */
typedef void (*gemm_tail_fn)(float *sums, const struct gemm_tail *t);

/* Multiply-adds on registers alone, the ceiling of micro: returns how many flops it did.
 * data: 1 KiB of ordinary numbers, changed. */
typedef i64 (*gemm_peak_fn)(i64 rounds, float *data);

/* The largest mr x nr of any set, for scratch on the stack. */
enum { GEMM_MICRO_MAX = 32 * 32 };

struct gemm_kernels {
    const char *name;
    i64 mr, nr; /* the micro kernel's tile of C */
    i64 cut;    /* columns that a tile costs more where N ends in it: it goes by way of another
                 * place in memory. For predictions alone; 0: little */
    i64 kc;     /* k per block: part of the result's definition */
    i64 mc, nc; /* tile of C that a thread works on: multiples of mr, nr; speed only */
    i64 per_step;                     /* values of k per step of the micro kernel: 1 or 2 */
    i64 pieces;                       /* words that a value is split into, each a step; 0 is 1 */
    i64 steps_at_once;                /* a block's steps are filled up to a multiple; 0 is 1 */
    i64 near_steps;                   /* steps of a panel of B that stay in L1 beside A's; with
                                       * micro_on; 0: all of a block's; speed only */
    i64 ahead_steps;                  /* steps per line that micro fetches, 0: none; speed only */
    bool fetches_c; /* lines of C are asked for in front of micro; speed only */
    const struct gemm_kernels *mixed; /* for operands that are not both bf16; NULL: this */
    const struct gemm_kernels *unsplit; /* where this splits f32: the set that does not */
    gemm_mode_fn begin, end; /* NULL: nothing to do */
    gemm_pack_fn pack_a, pack_b;
    gemm_micro_fn micro;
    gemm_micro_rows_fn micro_rows; /* NULL: A is always packed */
    gemm_micro_tail_fn micro_tail; /* NULL: micro, then start and finish */
    gemm_tail_fn tail;             /* where there is micro_tail */
    gemm_micro_on_fn micro_on;     /* NULL: blocks of k are added to each other */
    gemm_start_fn start;
    gemm_finish_fn finish;
    gemm_sum_fn sum_rows;
    gemm_peak_fn peak;
};

extern const struct gemm_kernels gemm_kernels_generic;
#if defined(__x86_64__)
extern const struct gemm_kernels gemm_kernels_avx2;       /* avx2, fma */
extern const struct gemm_kernels gemm_kernels_avx512;     /* avx512 f, bw, dq, vl */
extern const struct gemm_kernels gemm_kernels_avx512bf16; /* and avx512_bf16 */
extern const struct gemm_kernels gemm_kernels_amx;        /* avx512, amx_tile, amx_bf16 */
extern const struct gemm_kernels gemm_kernels_split;      /* the same, of f32 in three bf16 */
#endif

/* How many words one call of micro fetches. */
static inline i64 gemm_ahead_words(const struct gemm_kernels *k, i64 steps)
{
    return k->ahead_steps ? steps / k->ahead_steps * 16 : 0;
}

static inline i64 gemm_steps(const struct gemm_kernels *k, i64 depth)
{
    return round_up(ceil_div(depth, k->per_step), i64_max(1, k->steps_at_once)) *
           i64_max(1, k->pieces);
}

/* The set that multiplies these operand types. */
static inline const struct gemm_kernels *gemm_kernels_for(const struct gemm_kernels *k,
                                                          enum dtype a, enum dtype b)
{
    return k->mixed && (a != DTYPE_BF16 || b != DTYPE_BF16) ? k->mixed : k;
}

/* The one that multiplies f32 by multiply-adds on f32. */
static inline const struct gemm_kernels *gemm_kernels_unsplit(const struct gemm_kernels *k)
{
    const struct gemm_kernels *f32 = gemm_kernels_for(k, DTYPE_F32, DTYPE_F32);
    return f32->unsplit ? f32->unsplit : f32;
}

#endif
