/* Sums that ranks can share: the same bits whoever adds what (ops/exact_sums.c). */
#include "backend/cpu/kernels.h"

/* --- fold: parts are columns -------------------------------------------------------- */

enum { COLUMNS_PER_PART = 64 };

/* x (rows, C) of one column part, added up in a tree into sum: tree(n) of gemm.h. */
static void tree_of_rows(float *restrict sum, const float *x, i64 C, i64 n, i64 columns)
{
    if (n == 1) {
        memcpy(sum, x, (size_t)columns * sizeof *sum);
        return;
    }
    const i64 parts = n % 2 ? n : 2;
    float more[COLUMNS_PER_PART];
    tree_of_rows(sum, x, C, n / parts, columns);
    for (i64 i = 1; i < parts; i++) {
        tree_of_rows(more, x + i * (n / parts) * C, C, n / parts, columns);
        for (i64 c = 0; c < columns; c++)
            sum[c] += more[c];
    }
}

/* The same of sequences, each of which is a tree of `leaves` rows. */
static void tree_of_sequences(float *restrict sum, const float *x, i64 C, i64 n, i64 leaves,
                              i64 columns)
{
    if (n == 1) {
        tree_of_rows(sum, x, C, leaves, columns);
        return;
    }
    const i64 parts = n % 2 ? n : 2;
    float more[COLUMNS_PER_PART];
    tree_of_sequences(sum, x, C, n / parts, leaves, columns);
    for (i64 i = 1; i < parts; i++) {
        tree_of_sequences(more, x + i * (n / parts) * leaves * C, C, n / parts, leaves, columns);
        for (i64 c = 0; c < columns; c++)
            sum[c] += more[c];
    }
}

static void fold_columns(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *x = w->t->in[0];
    const i64 C = x->dim[1], leaves = (i64)w->t->attr[FOLD_LEAVES];
    const bool keep = run_accumulates(w->t, w->x);
    struct range c = work_range(w, part);
    float tree[COLUMNS_PER_PART], *sum = (float *)w->t->out[0]->data + c.begin;
    (void)thread;
    tree_of_sequences(tree, (const float *)x->data + c.begin, C, x->dim[0] / leaves, leaves,
                      c.end - c.begin);
    for (i64 i = 0; i < c.end - c.begin; i++)
        sum[i] = tree[i] + (keep ? sum[i] : 0);
}

void NAMED(fold)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[1], COLUMNS_PER_PART, fold_columns);
}

/* --- carry -------------------------------------------------------------------------- */

static void carry_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const i64 n = w->items, levels = t->out[1]->dim[0];
    const i64 number = carry_number(t, w->x->micro_batch);
    struct range r = work_range(w, part);
    float *x = t->out[0]->data, *level = t->out[1]->data;
    i64 l = 0;
    (void)thread;
    for (; number >> l & 1; l++)
        for (i64 i = r.begin; i < r.end; i++)
            x[i] += level[l * n + i];
    if (l < levels)
        memcpy(level + l * n + r.begin, x + r.begin, (size_t)(r.end - r.begin) * sizeof *x);
}

void NAMED(carry)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->out[0]), ELEMENTS_PER_PART, carry_part);
}

/* --- squares as whole numbers ------------------------------------------------------- */

/* Squares of equal exponent add up in one of 256 bins without overflow: a block's 65,536
 * squares are below 2^48 each. SETS of bins take turns, so that one addition need not wait for
 * the one before. */
enum { SQUARES_BLOCK = 65536, SETS = 4, EXPONENTS = 256, DIGIT_BITS = 16 };
enum { NOT_FINITE = SQUARES_DIGITS - 1 };

INLINE void bin_square(u64 *bins, float x)
{
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    const u32 exponent = bits >> 23 & 255, normal = exponent != 0;
    const u64 mantissa = (bits & 0x7fffffu) | normal << 23;
    bins[exponent + 1 - normal] += mantissa * mantissa;
}

static void add_at(i64 *digits, u64 value, i64 shift)
{
    unsigned __int128 placed = (unsigned __int128)value << shift % DIGIT_BITS;
    for (i64 d = shift / DIGIT_BITS; placed > 0; d++, placed >>= DIGIT_BITS)
        digits[d] += (i64)(placed & 0xffff);
}

/* Workspace: digits of each thread; whole numbers may be added in any order. */
static void squares_block(void *context, i64 block, int thread)
{
    const struct work *w = context;
    const float *x = w->t->in[0]->data;
    i64 *digits = (i64 *)w->x->workspace + (i64)thread * SQUARES_DIGITS;
    struct range r = work_range(w, block);
    u64 bins[SETS][EXPONENTS] = { { 0 } };
    i64 i = r.begin;
    for (; i + SETS <= r.end; i += SETS)
        for (int k = 0; k < SETS; k++)
            bin_square(bins[k], x[i + k]);
    for (; i < r.end; i++)
        bin_square(bins[0], x[i]);
    for (i64 e = 1; e < EXPONENTS; e++) {
        u64 sum = bins[0][e] + bins[1][e] + bins[2][e] + bins[3][e];
        if (e == EXPONENTS - 1 && sum > 0)
            digits[NOT_FINITE] = 1;
        else if (sum > 0)
            add_at(digits, sum, 2 * e - 2);
    }
}

void NAMED(exact_squares)(const struct task *t, struct run *x)
{
    const int threads = pool_threads(x->pool);
    i64 *digits = x->workspace, carry = 0;
    i32 *out = t->out[0]->data;
    memset(digits, 0, (size_t)(threads * SQUARES_DIGITS) * sizeof *digits);
    work_run(t, x, tensor_count(t->in[0]), SQUARES_BLOCK, squares_block);
    for (int d = 0; d < SQUARES_DIGITS; d++) {
        i64 digit = t->in[1] ? ((const i32 *)t->in[1]->data)[d] : 0;
        for (int thread = 0; thread < threads; thread++)
            digit += digits[thread * SQUARES_DIGITS + d];
        if (d == NOT_FINITE) {
            out[d] = digit != 0;
            continue;
        }
        carry += digit;
        out[d] = (i32)(carry & 0xffff);
        carry >>= DIGIT_BITS;
    }
}

i64 NAMED(exact_squares_workspace)(const struct task *t, int threads, const void *context)
{
    (void)t;
    (void)context;
    return threads * SQUARES_DIGITS * (i64)sizeof(i64);
}

void NAMED(exact_total)(const struct task *t, struct run *x)
{
    const i32 *digits = t->in[0]->data;
    double total = 0;
    i64 carry = 0;
    (void)x;
    for (int d = 0; d < NOT_FINITE; d++) {
        carry += digits[d];
        total += ldexp((double)(carry & 0xffff), DIGIT_BITS * d + SQUARES_LEAST);
        carry >>= DIGIT_BITS;
    }
    *(double *)t->out[0]->data = digits[NOT_FINITE] != 0 ? (double)NAN : total;
}
