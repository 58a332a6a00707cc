/* The end of sums that were taken over ranks, column sums, and changes of dtype. */
#include "backend/cpu/kernels.h"

INLINE void finish_one_row(bool half, const struct task *t, i64 r)
{
    const i64 N = t->in[0]->dim[1];
    const float *x = (const float *)t->in[0]->data + r * N;
    const float *bias = t->in[1] ? t->in[1]->data : NULL;
    const void *residual = vec_at(half, t->in[2]->data, r * N);
    void *y = vec_at(half, t->out[0]->data, r * N);
    for (i64 n = 0; n < N; n += VL) {
        vec v = vec_get_n(half, residual, n, N - n);
        if (bias)
            v += vec_get_n(false, bias, n, N - n);
        vec_put_n(half, y, n, v + vec_get_n(false, x, n, N - n), N - n);
    }
}

static void finish_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        if (is_half(w->t->out[0]->dtype))
            finish_one_row(true, w->t, r);
        else
            finish_one_row(false, w->t, r);
    }
}

void NAMED(finish_sum)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], rows_per_part(t->in[0]->dim[1]), finish_rows);
}

/* --- column sums: parts are columns, so that every part adds its rows in ascending r --- */

enum { COLUMNS_PER_PART = 64 };

INLINE void sum_columns(bool half, const struct task *t, struct range columns, bool add)
{
    const bool grouped = t->out[0]->rank == 2;
    const i64 N = t->in[0]->dim[1], groups = grouped ? t->out[0]->dim[0] : 1;
    const i64 rows = t->in[0]->dim[0] / groups;
    float *sums = t->out[0]->data;
    const void *x = t->in[0]->data;
    for (i64 g = 0; g < groups; g++, sums += N, x = vec_at(half, x, rows * N)) {
        for (i64 n = columns.begin; n < columns.end; n += VL) {
            const i64 count = i64_min(VL, columns.end - n);
            vec sum = { 0 };
            for (i64 r = 0; r < rows; r++)
                sum += vec_get_n(half, vec_at(half, x, r * N), n, count);
            if (add)
                sum += vec_get_n(false, sums, n, count);
            vec_put_n(false, sums, n, sum, count);
        }
    }
}

static void sum_columns_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const bool add = run_accumulates(w->t, w->x);
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        sum_columns(true, w->t, work_range(w, part), add);
    else
        sum_columns(false, w->t, work_range(w, part), add);
}

void NAMED(column_sums)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[1], COLUMNS_PER_PART, sum_columns_part);
}

/* --- cast --------------------------------------------------------------------------- */

INLINE void cast_range(bool from_half, bool to_half, const struct task *t, struct range r)
{
    for (i64 i = r.begin; i < r.end; i += VL)
        vec_put_n(to_half, t->out[0]->data, i,
                  vec_get_n(from_half, t->in[0]->data, i, r.end - i), r.end - i);
}

static void cast_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const bool from = is_half(w->t->in[0]->dtype), to = is_half(w->t->out[0]->dtype);
    (void)thread;
    if (from && to)
        cast_range(true, true, w->t, work_range(w, part));
    else if (from)
        cast_range(true, false, w->t, work_range(w, part));
    else if (to)
        cast_range(false, true, w->t, work_range(w, part));
    else
        cast_range(false, false, w->t, work_range(w, part));
}

void NAMED(cast)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, cast_part);
}
