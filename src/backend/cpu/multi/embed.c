/* Embedding rows: gathered forward, scattered and added backward. */
#include "backend/cpu/kernels.h"

INLINE void gather_row(bool half, void *y, const void *token, const void *position, i64 C)
{
    for (i64 c = 0; c < C; c += VL) {
        vec v = { 0 };
        if (token)
            v = vec_get_n(half, token, c, C - c);
        if (position)
            v += vec_get_n(half, position, c, C - c);
        vec_put_n(half, y, c, v, C - c);
    }
}

/* Row `at` of this share of a table; NULL when it is another rank's. */
static const void *entry(const struct tensor *table, i64 at)
{
    const i64 C = table->dim[1];
    bool here = at >= 0 && at < table->dim[0];
    return here ? vec_at(is_half(table->dtype), table->data, at * C) : NULL;
}

static void embed_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const struct tensor *wte = t->in[1], *wpe = t->in[3], *y = t->out[0];
    const i32 *tokens = t->in[0]->data, *positions = wpe ? t->in[2]->data : NULL;
    const i64 C = wte->dim[1];
    const bool half = is_half(y->dtype);
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        void *row = vec_at(half, y->data, r * C);
        const void *token = entry(wte, tokens[r] - (i64)t->attr[EMBED_FIRST]);
        const void *position = NULL;
        if (wpe)
            position = entry(wpe, positions[r] - (i64)t->attr[EMBED_FIRST_POSITION]);
        if (half)
            gather_row(true, row, token, position, C);
        else
            gather_row(false, row, token, position, C);
    }
}

void NAMED(embed)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), rows_per_part(t->in[1]->dim[1]), embed_rows);
}

/* --- gradient: parts are columns, so that every part adds its rows in ascending r ------- */

enum { COLUMNS_PER_PART = 64, ZERO_PER_PART = 1 << 18 };

INLINE void scatter(bool half, const struct task *t, struct range columns)
{
    const struct tensor *dy = t->in[0];
    const i64 R = dy->dim[0], C = dy->dim[1], first = (i64)t->attr[EMBED_FIRST];
    const i32 *index = t->in[1]->data;
    for (i64 r = 0; r < R; r++) {
        if (index[r] < first || index[r] - first >= t->out[0]->dim[0])
            continue;
        float *to = (float *)t->out[0]->data + (index[r] - first) * C;
        const void *from = vec_at(half, dy->data, r * C);
        for (i64 c = columns.begin; c < columns.end; c += VL) {
            const i64 n = columns.end - c;
            vec_put_n(false, to, c, vec_get_n(false, to, c, n) + vec_get_n(half, from, c, n), n);
        }
    }
}

static void scatter_columns(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        scatter(true, w->t, work_range(w, part));
    else
        scatter(false, w->t, work_range(w, part));
}

static void zero_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    struct range r = work_range(w, part);
    (void)thread;
    memset((float *)w->t->out[0]->data + r.begin, 0,
           (size_t)(r.end - r.begin) * sizeof(float));
}

void NAMED(embed_grad)(const struct task *t, struct run *x)
{
    if (!run_accumulates(t, x))
        work_run(t, x, tensor_count(t->out[0]), ZERO_PER_PART, zero_part);
    work_run(t, x, t->in[0]->dim[1], COLUMNS_PER_PART, scatter_columns);
}
