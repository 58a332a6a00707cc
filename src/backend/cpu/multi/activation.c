/* Activation functions and sums: one pass over the elements.
 *
 * GELU, tanh form: x/2 (1 + tanh u) = x s with s = sigmoid(2u), u = k (x + 0.044715 x^3),
 * k = sqrt(2 / pi) (Hendrycks & Gimpel 2016); its derivative is s + x s (1 - s) 2 u'.
 * Exact form: x Phi(x), derivative Phi(x) + x phi(x). */
#include "backend/cpu/kernels.h"

static const float GELU_2K = 1.5957691216f;   /* 2 sqrt(2 / pi) */
static const float GELU_CUBE = 0.044715f;
static const float NORMAL_DENSITY = 0.39894228f; /* 1 / sqrt(2 pi) */

INLINE vec gelu_one(bool exact, vec x)
{
    if (exact)
        return x * vec_normal(x);
    return x * vec_sigmoid(GELU_2K * (x + GELU_CUBE * x * x * x));
}

INLINE vec gelu_slope(bool exact, vec x)
{
    if (exact)
        return vec_normal(x) + x * NORMAL_DENSITY * vec_exp(-0.5f * x * x);
    vec s = vec_sigmoid(GELU_2K * (x + GELU_CUBE * x * x * x));
    return s + x * s * (1.0f - s) * GELU_2K * (1.0f + 3.0f * GELU_CUBE * x * x);
}

INLINE void gelu_at(bool half, bool exact, void *y, const void *x, i64 i, i64 n)
{
    vec_put_n(half, y, i, gelu_one(exact, vec_get_n(half, x, i, n)), n);
}

INLINE void gelu_range(bool half, bool exact, const struct task *t, struct range r)
{
    const void *x = t->in[0]->data;
    void *y = t->out[0]->data;
    i64 i = r.begin;
#pragma GCC unroll 2
    for (; i + VL <= r.end; i += VL) {
        fetch_ahead(half, x, i);
        gelu_at(half, exact, y, x, i, VL);
    }
    if (i < r.end)
        gelu_at(half, exact, y, x, i, r.end - i);
}

INLINE void gelu_grad_at(bool half, bool exact, void *dx, const void *dy, const void *x, i64 i,
                         i64 n)
{
    vec slope = gelu_slope(exact, vec_get_n(half, x, i, n));
    vec_put_n(half, dx, i, vec_get_n(half, dy, i, n) * slope, n);
}

INLINE void gelu_grad_range(bool half, bool exact, const struct task *t, struct range r)
{
    const void *dy = t->in[0]->data, *x = t->in[1]->data;
    void *dx = t->out[0]->data;
    i64 i = r.begin;
#pragma GCC unroll 2
    for (; i + VL <= r.end; i += VL) {
        fetch_ahead(half, dy, i);
        fetch_ahead(half, x, i);
        gelu_grad_at(half, exact, dx, dy, x, i, VL);
    }
    if (i < r.end)
        gelu_grad_at(half, exact, dx, dy, x, i, r.end - i);
}

static void gelu_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const bool half = is_half(w->t->in[0]->dtype), exact = w->t->attr[GELU_EXACT] != 0;
    struct range r = work_range(w, part);
    (void)thread;
    if (half && exact)
        gelu_range(true, true, w->t, r);
    else if (half)
        gelu_range(true, false, w->t, r);
    else if (exact)
        gelu_range(false, true, w->t, r);
    else
        gelu_range(false, false, w->t, r);
}

static void gelu_grad_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const bool half = is_half(w->t->in[0]->dtype), exact = w->t->attr[GELU_EXACT] != 0;
    struct range r = work_range(w, part);
    (void)thread;
    if (half && exact)
        gelu_grad_range(true, true, w->t, r);
    else if (half)
        gelu_grad_range(true, false, w->t, r);
    else if (exact)
        gelu_grad_range(false, true, w->t, r);
    else
        gelu_grad_range(false, false, w->t, r);
}

void NAMED(gelu)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, gelu_part);
}

void NAMED(gelu_grad)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, gelu_grad_part);
}

/* --- SwiGLU: y = silu(a) b, x = [a | b] row by row ---------------------------------- */

INLINE void swiglu_at(bool half, void *y, const void *x, i64 F, i64 i, i64 n)
{
    vec a = vec_get_n(half, x, i, n), b = vec_get_n(half, x, F + i, n);
    vec_put_n(half, y, i, a * vec_sigmoid(a) * b, n);
}

INLINE void swiglu_rows(bool half, const struct task *t, struct range rows)
{
    const i64 F = tensor_columns(t->out[0]);
    for (i64 r = rows.begin; r < rows.end; r++) {
        const void *x = vec_at(half, t->in[0]->data, r * 2 * F);
        void *y = vec_at(half, t->out[0]->data, r * F);
        i64 i = 0;
#pragma GCC unroll 2
        for (; i + VL <= F; i += VL) {
            fetch_ahead(half, x, i);
            fetch_ahead(half, x, F + i);
            swiglu_at(half, y, x, F, i, VL);
        }
        if (i < F)
            swiglu_at(half, y, x, F, i, F - i);
    }
}

/* da = dy b s (1 + a (1 - s)), db = dy a s, s = sigmoid(a) */
INLINE void swiglu_grad_at(bool half, void *dx, const void *dy, const void *x, i64 F, i64 i, i64 n)
{
    vec a = vec_get_n(half, x, i, n), b = vec_get_n(half, x, F + i, n);
    vec s = vec_sigmoid(a), ds = vec_get_n(half, dy, i, n) * s;
    vec_put_n(half, dx, i, ds * b * (1.0f + a * (1.0f - s)), n);
    vec_put_n(half, dx, F + i, ds * a, n);
}

INLINE void swiglu_grad_rows(bool half, const struct task *t, struct range rows)
{
    const i64 F = tensor_columns(t->in[0]);
    for (i64 r = rows.begin; r < rows.end; r++) {
        const void *dy = vec_at(half, t->in[0]->data, r * F);
        const void *x = vec_at(half, t->in[1]->data, r * 2 * F);
        void *dx = vec_at(half, t->out[0]->data, r * 2 * F);
        i64 i = 0;
#pragma GCC unroll 2
        for (; i + VL <= F; i += VL) {
            if (half) { /* f32, twice as long, is slower with it on avx2 */
                fetch_ahead(true, dy, i);
                fetch_ahead(true, x, i);
                fetch_ahead(true, x, F + i);
            }
            swiglu_grad_at(half, dx, dy, x, F, i, VL);
        }
        if (i < F)
            swiglu_grad_at(half, dx, dy, x, F, i, F - i);
    }
}

static void swiglu_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        swiglu_rows(true, w->t, work_range(w, part));
    else
        swiglu_rows(false, w->t, work_range(w, part));
}

static void swiglu_grad_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        swiglu_grad_rows(true, w->t, work_range(w, part));
    else
        swiglu_grad_rows(false, w->t, work_range(w, part));
}

void NAMED(swiglu)(const struct task *t, struct run *x)
{
    const i64 F = tensor_columns(t->out[0]);
    work_run(t, x, tensor_rows(t->out[0]), rows_per_part(F), swiglu_part);
}

void NAMED(swiglu_grad)(const struct task *t, struct run *x)
{
    const i64 F = tensor_columns(t->in[0]);
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(F), swiglu_grad_part);
}

/* --- y = a + b ---------------------------------------------------------------------- */

INLINE void add_at(bool half, void *y, const void *a, const void *b, i64 i, i64 n)
{
    vec_put_n(half, y, i, vec_get_n(half, a, i, n) + vec_get_n(half, b, i, n), n);
}

INLINE void add_range(bool half, const struct task *t, struct range r)
{
    const void *a = t->in[0]->data, *b = t->in[1]->data;
    void *y = t->out[0]->data;
    i64 i = r.begin;
#pragma GCC unroll 2
    for (; i + VL <= r.end; i += VL)
        add_at(half, y, a, b, i, VL);
    if (i < r.end)
        add_at(half, y, a, b, i, r.end - i);
}

static void add_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        add_range(true, w->t, work_range(w, part));
    else
        add_range(false, w->t, work_range(w, part));
}

void NAMED(add)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, add_part);
}
