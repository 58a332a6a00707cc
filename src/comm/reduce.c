#include "comm/reduce.h"

#include <string.h>

/* Elements that are reduced together: a few levels of them stay in the first cache. */
enum { BLOCK = 512, LEVELS = 17 };

typedef void (*combine_fn)(void *restrict out, const void *restrict a, const void *restrict b,
                           i64 n);

static void sum_f32(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const float *x = a, *y = b;
    float *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] + y[i];
}

static void max_f32(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const float *x = a, *y = b;
    float *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
}

static void sum_f64(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const double *x = a, *y = b;
    double *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] + y[i];
}

static void max_f64(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const double *x = a, *y = b;
    double *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
}

/* Unsigned, so that overflow wraps instead of being undefined. */
static void sum_i32(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const u32 *x = a, *y = b;
    u32 *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] + y[i];
}

static void max_i32(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const i32 *x = a, *y = b;
    i32 *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] > y[i] ? x[i] : y[i];
}

static void sum_i64(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const u64 *x = a, *y = b;
    u64 *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] + y[i];
}

static void max_i64(void *restrict out, const void *restrict a, const void *restrict b, i64 n)
{
    const i64 *x = a, *y = b;
    i64 *z = out;
    for (i64 i = 0; i < n; i++)
        z[i] = x[i] > y[i] ? x[i] : y[i];
}

/* What a dtype is reduced in, and with. */
static const struct arithmetic {
    enum dtype work;
    combine_fn combine[2]; /* by enum comm_reduce; NULL: cannot be reduced */
} arithmetic[DTYPES] = {
    [DTYPE_F32] = { DTYPE_F32, { sum_f32, max_f32 } },
    [DTYPE_BF16] = { DTYPE_F32, { sum_f32, max_f32 } },
    [DTYPE_F64] = { DTYPE_F64, { sum_f64, max_f64 } },
    [DTYPE_I32] = { DTYPE_I32, { sum_i32, max_i32 } },
    [DTYPE_I64] = { DTYPE_I64, { sum_i64, max_i64 } },
};

bool comm_can_reduce(enum dtype d)
{
    return arithmetic[d].combine[COMM_SUM] != NULL;
}

static void widen(float *restrict out, const bf16 *restrict in, i64 n)
{
    for (i64 i = 0; i < n; i++)
        out[i] = bf16_to_f32(in[i]);
}

static void narrow(bf16 *restrict out, const float *restrict in, i64 n)
{
    for (i64 i = 0; i < n; i++)
        out[i] = bf16_from_f32(in[i]);
}

/* Two places per level: one value waits for its partner, which arrives in the other. */
struct tree {
    const void *waiting[LEVELS];
    double place[LEVELS][2][BLOCK];
};

static void *free_place(struct tree *t, int level)
{
    return t->place[level][t->waiting[level] == t->place[level][0]];
}

static void add_leaf(struct tree *t, combine_fn combine, const void *value, i64 n)
{
    int level = 0;
    for (; t->waiting[level]; level++) {
        void *sum = free_place(t, level + 1);
        combine(sum, t->waiting[level], value, n);
        t->waiting[level] = NULL;
        value = sum;
    }
    t->waiting[level] = value;
}

/* The rests of all levels, the latest first. */
static const void *root(struct tree *t, combine_fn combine, i64 n)
{
    const void *value = NULL;
    for (int level = 0; level < LEVELS; level++) {
        if (!t->waiting[level])
            continue;
        if (!value) {
            value = t->waiting[level];
            continue;
        }
        assert(level + 1 < LEVELS); /* more than 65536 inputs */
        void *sum = free_place(t, level + 1);
        combine(sum, t->waiting[level], value, n);
        value = sum;
    }
    return value;
}

static void reduce_block(struct tree *t, enum dtype d, enum comm_reduce op, int n,
                         const void *const *in, void *out, i64 first, i64 count)
{
    combine_fn combine = arithmetic[d].combine[op];
    i64 offset = first * dtype_bytes(d);
    memset(t->waiting, 0, sizeof t->waiting);
    for (int m = 0; m < n; m++) {
        const void *value = (const char *)in[m] + offset;
        if (d == DTYPE_BF16) {
            float *wide = free_place(t, 0);
            widen(wide, value, count);
            value = wide;
        }
        add_leaf(t, combine, value, count);
    }
    const void *result = root(t, combine, count);
    void *to = (char *)out + offset;
    if (d == DTYPE_BF16)
        narrow(to, result, count);
    else
        memmove(to, result, (size_t)(count * dtype_bytes(d)));
}

void comm_reduce_tree(enum dtype d, enum comm_reduce op, int n, const void *const *in,
                      void *out, i64 count)
{
    struct tree t;
    for (i64 first = 0; first < count; first += BLOCK)
        reduce_block(&t, d, op, n, in, out, first, i64_min(BLOCK, count - first));
}
