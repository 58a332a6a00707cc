/* Sums whose bits do not depend on who sums which part (parallel/exact.h says which are where):
 *
 *   fold           sum over the rows of x, as a tree
 *   carry          sums over micro-batches, as a tree: a binary counter
 *   exact_squares  sum of squares as a whole number, so that order does not matter at all
 *   exact_total    that number as an f64
 *
 * A normal single is m 2^(e-150), m < 2^24, 1 <= e <= 254: its square is m^2 2^(2e-2) units of
 * 2^-298. So all squares are whole numbers of these units below 2^554; 2^46 of them fit into
 * 600 of the 640 bits of the digits. Between ranks digits of 16 bits are added as i32: up to
 * 2^15 ranks. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

/* --- fold --------------------------------------------------------------------------- */

static int fold_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "x", x, kit_wide(x)));
    if (t->attr[FOLD_LEAVES] < 1 || x->dim[0] % (i64)t->attr[FOLD_LEAVES])
        return graph_fail(g, t, "%lld rows are no sequences of %g leaves", (long long)x->dim[0],
                          t->attr[FOLD_LEAVES]);
    if (!t->out[0])
        t->out[0] = graph_vector(g, x->dtype, x->dim[1], "fold");
    return kit_wide_vector(g, t, "sum", t->out[0], x->dim[1], x);
}

static void fold_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void fold_ref(const struct task *t, struct run *run)
{
    i64 rows = t->in[0]->dim[0], C = t->in[0]->dim[1];
    for (i64 c = 0; c < C; c++) {
        double sum = 0;
        for (i64 r = 0; r < rows; r++)
            sum += tensor_get(t->in[0], r * C + c);
        kit_sum(t->out[0], c, sum, run_accumulates(t, run));
    }
}

static bool fold_example(struct op_example *e, int n)
{
    static const i64 shapes[][3] = { { 1, 1, 5 }, { 3, 8, 129 }, { 4, 2, 7 }, { 5, 1, 64 } };
    if (n >= COUNT_OF(shapes))
        return false;
    struct task proto = {
        .op = &op_fold,
        .in = { example_normal(e, ROLE_ACTIVATION, DTYPE_F32, shapes[n][0] * shapes[n][1],
                               shapes[n][2], 1) },
        .out = { example_vector(e, ROLE_GRAD, shapes[n][2], 0, 1) },
        .attr = { [FOLD_LEAVES] = (double)shapes[n][1] },
    };
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_fold = {
    .name = "fold", .n_in = 1, .n_out = 1, .accumulates = true, .infer = fold_infer,
    .cost = fold_cost, .run_ref = fold_ref, .example = fold_example,
};

/* --- carry -------------------------------------------------------------------------- */

i64 carry_levels(i64 total)
{
    i64 levels = 0;
    for (; total > 1; total /= 2)
        levels++;
    return levels;
}

i64 carry_number(const struct task *t, int micro_batch)
{
    i64 part = micro_batch * (i64)t->attr[CARRY_COUNT] + (i64)t->attr[CARRY_INDEX];
    return part % (i64)t->attr[CARRY_TOTAL];
}

static int carry_infer(struct graph *g, struct task *t)
{
    const struct tensor *x = t->out[0], *levels = t->out[1];
    i64 total = (i64)t->attr[CARRY_TOTAL];
    if (!x || !levels)
        return graph_fail(g, t, "x or levels is missing");
    if (total < 1 || (total & (total - 1)))
        return graph_fail(g, t, "%lld parts are no power of two", (long long)total);
    if (t->attr[CARRY_INDEX] < 0 || t->attr[CARRY_INDEX] >= t->attr[CARRY_COUNT])
        return graph_fail(g, t, "there is no part %g of %g", t->attr[CARRY_INDEX],
                          t->attr[CARRY_COUNT]);
    TRY(kit_dtype(g, t, "x", x, DTYPE_F32));
    TRY(kit_matrix(g, t, "levels", levels, carry_levels(total), tensor_count(x)));
    return kit_dtype(g, t, "levels", levels, DTYPE_F32);
}

/* Half of the parts are put by at once, a quarter after one addition, and so on. */
static void carry_cost(const struct task *t, struct cost *c)
{
    double bytes = (double)tensor_bytes(t->out[0]);
    c->read_bytes = 2 * bytes;
    c->written_bytes = bytes;
    c->flops = (double)tensor_count(t->out[0]);
}

static void carry_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->out[0], *levels = t->out[1];
    i64 n = tensor_count(x), level = 0;
    i64 part = carry_number(t, run->micro_batch);
    for (; part >> level & 1; level++)
        for (i64 i = 0; i < n; i++)
            tensor_set(x, i, tensor_get(x, i) + tensor_get(levels, level * n + i));
    for (i64 i = 0; i < n && level < levels->dim[0]; i++)
        tensor_set(levels, level * n + i, tensor_get(x, i));
}

static bool carry_example(struct op_example *e, int n)
{
    static const struct { i64 n, index, total; } shapes[] = {
        { 5, 0, 2 }, { 4099, 1, 2 }, { 131, 5, 8 }, { 33, 2, 4 }, { 64, 7, 8 },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    struct tensor *levels = example_normal(e, ROLE_STATE, DTYPE_F32,
                                           carry_levels(shapes[n].total), shapes[n].n, 1);
    graph_add(e->g, &(struct task){ .op = &op_carry, .phase = PHASE_WEIGHT_GRAD,
                                    .out = { example_vector(e, ROLE_STATE, shapes[n].n, 0, 1),
                                             levels },
                                    .attr = { [CARRY_INDEX] = (double)shapes[n].index,
                                              [CARRY_COUNT] = (double)shapes[n].total,
                                              [CARRY_TOTAL] = (double)shapes[n].total } });
    return true;
}

const struct op_info op_carry = {
    .name = "carry", .n_in = 0, .n_out = 2, .infer = carry_infer, .cost = carry_cost,
    .run_ref = carry_ref, .example = carry_example,
};

/* --- squares ------------------------------------------------------------------------ */

enum { DIGIT_BITS = 16, NOT_FINITE = SQUARES_DIGITS - 1 };

static int check_digits(struct graph *g, const struct task *t, const struct tensor *digits)
{
    TRY(kit_vector(g, t, "digits", digits, SQUARES_DIGITS));
    return kit_dtype(g, t, "digits", digits, DTYPE_I32);
}

static int squares_infer(struct graph *g, struct task *t)
{
    if (!t->in[0])
        return graph_fail(g, t, "grad is missing");
    TRY(kit_dtype(g, t, "grad", t->in[0], DTYPE_F32));
    if (t->in[1])
        TRY(check_digits(g, t, t->in[1]));
    if (!t->out[0])
        t->out[0] = graph_vector(g, DTYPE_I32, SQUARES_DIGITS, "exact_squares");
    return check_digits(g, t, t->out[0]);
}

static void squares_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 2);
}

/* Adds value, placed `shift` bits up, digit by digit. */
static void add_at(i64 *digits, u64 value, i64 shift)
{
    unsigned __int128 placed = (unsigned __int128)value << shift % DIGIT_BITS;
    for (i64 d = shift / DIGIT_BITS; placed > 0; d++, placed >>= DIGIT_BITS)
        digits[d] += (i64)(placed & 0xffff);
}

/* The square of m 2^e, e = SQUARES_LEAST / 2 or more, as a whole number of units. */
static void add_square(i64 *digits, double x)
{
    int exponent;
    double mantissa = frexp(fabs(x), &exponent);
    if (!isfinite(x))
        digits[NOT_FINITE] = 1;
    if (x == 0 || !isfinite(x))
        return;
    int least = i64_max(exponent - 24, SQUARES_LEAST / 2);
    u64 m = (u64)ldexp(mantissa, exponent - least);
    add_at(digits, m * m, 2 * (i64)least - SQUARES_LEAST);
}

static void squares_ref(const struct task *t, struct run *run)
{
    i64 digits[SQUARES_DIGITS] = { 0 };
    i32 *out = t->out[0]->data;
    (void)run;
    for (int d = 0; t->in[1] && d < SQUARES_DIGITS; d++)
        digits[d] = ((const i32 *)t->in[1]->data)[d];
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        add_square(digits, tensor_get(t->in[0], i));
    for (int d = 0; d < NOT_FINITE; d++) {
        if (d + 1 < NOT_FINITE)
            digits[d + 1] += digits[d] >> DIGIT_BITS;
        out[d] = (i32)(digits[d] & 0xffff);
    }
    out[NOT_FINITE] = digits[NOT_FINITE] != 0;
}

static struct tensor *example_digits(struct op_example *e)
{
    struct tensor *digits = example_integers(e, SQUARES_DIGITS, 1 << 19); /* carries are due */
    tensor_set(digits, NOT_FINITE, 0);
    return digits;
}

static bool squares_example(struct op_example *e, int n)
{
    static const i64 counts[] = { 5, 70001, 140000, 37 };
    if (n >= COUNT_OF(counts))
        return false;
    struct tensor *grad = example_vector(e, ROLE_GRAD, counts[n], 0, n == 1 ? 1e-18 : 1);
    if (n == 2) { /* the range's ends */
        tensor_set(grad, 3, 3.4e38);
        tensor_set(grad, 4, -1.5e-45);
        tensor_set(grad, 5, 0);
    }
    if (n == 3)
        tensor_set(grad, 7, INFINITY);
    exact_squares(e->g, grad, n == 2 ? example_digits(e) : NULL);
    return true;
}

const struct op_info op_exact_squares = {
    .name = "exact_squares", .n_in = 2, .n_out = 1, .infer = squares_infer,
    .cost = squares_cost, .run_ref = squares_ref, .example = squares_example,
};

struct tensor *exact_squares(struct graph *g, struct tensor *grad, struct tensor *before)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_exact_squares,
                                                  .in = { grad, before } });
    return t ? t->out[0] : NULL;
}

/* --- total -------------------------------------------------------------------------- */

static int total_infer(struct graph *g, struct task *t)
{
    TRY(check_digits(g, t, t->in[0]));
    if (!t->out[0])
        t->out[0] = graph_vector(g, DTYPE_F64, 1, "exact_total");
    TRY(kit_vector(g, t, "total", t->out[0], 1));
    return kit_dtype(g, t, "total", t->out[0], DTYPE_F64);
}

static void total_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 2);
}

/* Carries first, so that the number alone decides; then from the lowest digit up. */
static void total_ref(const struct task *t, struct run *run)
{
    const i32 *digits = t->in[0]->data;
    double total = 0;
    i64 carry = 0;
    (void)run;
    for (int d = 0; d < NOT_FINITE; d++) {
        carry += digits[d];
        total += ldexp((double)(carry & 0xffff), DIGIT_BITS * d + SQUARES_LEAST);
        carry >>= DIGIT_BITS;
    }
    tensor_set(t->out[0], 0, digits[NOT_FINITE] != 0 ? NAN : total);
}

static bool total_example(struct op_example *e, int n)
{
    if (n > 0)
        return false;
    exact_total(e->g, example_digits(e));
    return true;
}

const struct op_info op_exact_total = {
    .name = "exact_total", .n_in = 1, .n_out = 1, .infer = total_infer, .cost = total_cost,
    .run_ref = total_ref, .example = total_example,
};

struct tensor *exact_total(struct graph *g, struct tensor *digits)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_exact_total, .in = { digits } });
    return t ? t->out[0] : NULL;
}
