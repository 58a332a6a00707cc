/* What happens once per step: the norm of the gradient, clipping, AdamW, the average. */
#include "backend/cpu/kernels.h"

/* --- sum of squares: blocks in double, then a tree over blocks ---------------------- */

enum { SQUARES_BLOCK = 65536, SQUARES_LANES = 16 };

/* Squares of singles are exact in double, so every instruction set gives the same bits. */
static void squares_block(void *context, i64 block, int thread)
{
    const struct work *w = context;
    const float *g = w->t->in[0]->data;
    double *partial = w->x->workspace, lane[SQUARES_LANES] = { 0 }, sum = 0;
    struct range r = work_range(w, block);
    i64 i = r.begin;
    (void)thread;
    for (; i + SQUARES_LANES <= r.end; i += SQUARES_LANES) {
        fetch_ahead(false, g, i);
        for (int k = 0; k < SQUARES_LANES; k++)
            lane[k] += (double)g[i + k] * (double)g[i + k];
    }
    for (int k = 0; i < r.end; i++, k++)
        lane[k] += (double)g[i] * (double)g[i];
    for (int k = 0; k < SQUARES_LANES; k++)
        sum += lane[k];
    partial[block] = sum;
}

/* Blocks [first, last), halved until one is left. */
static double squares_tree(const double *partial, i64 first, i64 last)
{
    if (last - first <= 1)
        return last > first ? partial[first] : 0;
    i64 middle = first + (last - first) / 2;
    return squares_tree(partial, first, middle) + squares_tree(partial, middle, last);
}

void NAMED(sum_squares)(const struct task *t, struct run *x)
{
    const i64 n = tensor_count(t->in[0]);
    work_run(t, x, n, SQUARES_BLOCK, squares_block);
    *(double *)t->out[0]->data = squares_tree(x->workspace, 0, ceil_div(n, SQUARES_BLOCK));
}

i64 NAMED(sum_squares_workspace)(const struct task *t, int threads, const void *context)
{
    (void)threads;
    (void)context;
    return ceil_div(tensor_count(t->in[0]), SQUARES_BLOCK) * (i64)sizeof(double);
}

/* --- a step that is watched (ops/watch.c) ------------------------------------------- */

static void changes_block(void *context, i64 block, int thread)
{
    const struct work *w = context;
    const float *g = w->t->in[0]->data, *before = w->t->in[1]->data;
    double *partial = w->x->workspace, lane[SQUARES_LANES] = { 0 }, sum = 0;
    struct range r = work_range(w, block);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i += SQUARES_LANES)
        for (int k = 0; k < SQUARES_LANES && i + k < r.end; k++) {
            double change = (double)g[i + k] - (double)before[i + k];
            lane[k] += change * change;
        }
    for (int k = 0; k < SQUARES_LANES; k++)
        sum += lane[k];
    partial[block] = sum;
}

void NAMED(sum_changes)(const struct task *t, struct run *x)
{
    const i64 n = tensor_count(t->in[0]);
    work_run(t, x, n, SQUARES_BLOCK, t->in[1] ? changes_block : squares_block);
    *(double *)t->out[0]->data = squares_tree(x->workspace, 0, ceil_div(n, SQUARES_BLOCK));
}

i64 NAMED(sum_changes_workspace)(const struct task *t, int threads, const void *context)
{
    return NAMED(sum_squares_workspace)(t, threads, context);
}

void NAMED(raise)(const struct task *t, struct run *x)
{
    const float *values = t->in[0]->data;
    float most = -INFINITY;
    double *largest = t->out[0]->data;
    (void)x;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        most = values[i] > most ? values[i] : most;
    *largest = most > *largest ? most : *largest;
}

void NAMED(add_norms)(const struct task *t, struct run *x)
{
    double sum = 0;
    (void)x;
    for (int i = 0; i < TASK_INS && t->in[i]; i++)
        sum += *(const double *)t->in[i]->data;
    *(double *)t->out[0]->data = sum;
}

void NAMED(clip)(const struct task *t, struct run *x)
{
    const double norm = sqrt(*(const double *)t->in[0]->data), limit = t->attr[CLIP_LIMIT];
    (void)x;
    *(double *)t->out[0]->data = norm;
    const bool apply = isfinite(norm);
    const double scale = limit > 0 && norm > limit ? limit / norm : 1;
    *(float *)t->out[1]->data = apply ? (float)scale : 0.0f;
    *(i32 *)t->out[2]->data = apply;
}

/* --- AdamW -------------------------------------------------------------------------- */

struct adamw_constants {
    float scale, beta1, beta2, rest1, rest2, inv_correct1, inv_correct2, eps, lr, decay;
};

static struct adamw_constants adamw_constants(const struct task *t)
{
    const float *hyper = t->in[2]->data;
    return (struct adamw_constants){
        .scale = *(const float *)t->in[1]->data,
        .beta1 = (float)t->attr[ADAMW_B1], .rest1 = (float)(1 - t->attr[ADAMW_B1]),
        .beta2 = (float)t->attr[ADAMW_B2], .rest2 = (float)(1 - t->attr[ADAMW_B2]),
        .inv_correct1 = 1 / hyper[HYPER_CORRECT1], .inv_correct2 = 1 / hyper[HYPER_CORRECT2],
        .eps = (float)t->attr[ADAMW_EPS], .lr = hyper[HYPER_LR],
        .decay = (float)t->attr[ADAMW_DECAY],
    };
}

INLINE void adamw_at(const struct adamw_constants *c, const float *grad, float *p, float *m,
                     float *v, bf16 *copy, i64 i, i64 n)
{
    vec g = vec_get_n(false, grad, i, n) * c->scale, w = vec_get_n(false, p, i, n);
    vec m1 = vec_fma(vec_get_n(false, m, i, n), vec_all(c->beta1), g * c->rest1);
    vec v1 = vec_fma(vec_get_n(false, v, i, n), vec_all(c->beta2), g * g * c->rest2);
    vec step = m1 * c->inv_correct1 / (vec_sqrt(v1 * c->inv_correct2) + c->eps);
    w -= c->lr * (step + c->decay * w);
    vec_put_n(false, m, i, m1, n);
    vec_put_n(false, v, i, v1, n);
    vec_put_n(false, p, i, w, n);
    if (copy)
        vec_put_n(true, copy, i, w, n);
}

INLINE void adamw_range(const struct task *t, struct range r, bf16 *copy)
{
    const struct adamw_constants c = adamw_constants(t);
    const float *grad = t->in[0]->data;
    float *p = t->out[0]->data, *m = t->out[1]->data, *v = t->out[2]->data;
    i64 i = r.begin;
    for (; i + VL <= r.end; i += VL) {
        fetch_ahead(false, grad, i);
        fetch_ahead(false, p, i);
        fetch_ahead(false, m, i);
        fetch_ahead(false, v, i);
        adamw_at(&c, grad, p, m, v, copy, i, VL);
    }
    if (i < r.end)
        adamw_at(&c, grad, p, m, v, copy, i, r.end - i);
}

static void adamw_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (w->t->out[3])
        adamw_range(w->t, work_range(w, part), w->t->out[3]->data);
    else
        adamw_range(w->t, work_range(w, part), NULL);
}

void NAMED(adamw)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, adamw_part);
}

/* --- average ------------------------------------------------------------------------ */

static void ema_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const float rest = (float)(1 - w->t->attr[EMA_DECAY]);
    float *average = w->t->out[0]->data;
    struct range r = work_range(w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i += VL) {
        vec a = vec_get_n(false, average, i, r.end - i);
        a += rest * (vec_get_n(false, w->t->in[0]->data, i, r.end - i) - a);
        vec_put_n(false, average, i, a, r.end - i);
    }
}

void NAMED(ema)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, ema_part);
}

/* --- outer step --------------------------------------------------------------------- */

static void outer_gradient_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const float *anchor = w->t->in[0]->data, *p = w->t->in[1]->data;
    struct range r = work_range(w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i += VL)
        vec_put_n(false, w->t->out[0]->data, i,
                  vec_get_n(false, anchor, i, r.end - i) - vec_get_n(false, p, i, r.end - i),
                  r.end - i);
}

void NAMED(outer_gradient)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, outer_gradient_part);
}

static void outer_update_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const float lr = (float)t->attr[OUTER_LR], mu = (float)t->attr[OUTER_MU];
    const float share = (float)t->attr[OUTER_SHARE];
    float *p = t->out[0]->data, *anchor = t->out[1]->data, *momentum = t->out[2]->data;
    struct range r = work_range(w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i += VL) {
        i64 n = r.end - i;
        const vec sum = vec_get_n(false, t->in[0]->data, i, n);
        vec v = vec_fma(vec_all(share), sum, mu * vec_get_n(false, momentum, i, n));
        vec ahead = vec_fma(vec_all(share), sum, mu * v);
        vec next = vec_fma(vec_all(-lr), ahead, vec_get_n(false, anchor, i, n));
        vec_put_n(false, momentum, i, v, n);
        vec_put_n(false, anchor, i, next, n);
        vec_put_n(false, p, i, next, n);
        if (t->out[3])
            vec_put_n(true, t->out[3]->data, i, next, n);
    }
}

void NAMED(outer_update)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, outer_update_part);
}
