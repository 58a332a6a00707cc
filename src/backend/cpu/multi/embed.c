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

/* --- gradient: parts are columns, so that every part adds its rows in ascending r --- */

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

/* --- the same with a grain: each row of the table is a tree over runs of rows of dy --- */

/* Workspace: where the rows of each table row begin in `order`, one more at the end; then those
 * rows of dy, sorted by table row, ascending. */
struct sorted {
    i32 *begin, *order;
};

static struct sorted sorted_in(const struct task *t, void *workspace)
{
    return (struct sorted){ workspace, (i32 *)workspace + t->out[0]->dim[0] + 1 };
}

static void sort_rows(const struct task *t, const struct sorted *s)
{
    const i64 R = t->in[0]->dim[0], V = t->out[0]->dim[0], first = (i64)t->attr[EMBED_FIRST];
    const i32 *index = t->in[1]->data;
    memset(s->begin, 0, (size_t)(V + 1) * sizeof *s->begin);
    for (i64 r = 0; r < R; r++)
        if (index[r] >= first && index[r] - first < V)
            s->begin[index[r] - first]++;
    for (i64 v = 1; v <= V; v++)
        s->begin[v] += s->begin[v - 1];
    for (i64 r = R - 1; r >= 0; r--)
        if (index[r] >= first && index[r] - first < V)
            s->order[--s->begin[index[r] - first]] = (i32)r;
}

/* Rows [at, end) of the order that lie in `runs` runs from run `first` on. */
struct branch {
    const i32 *at, *end;
    i64 first, runs;
};

/* The sum of one run, ascending from +0. */
INLINE void sum_run(bool half, const struct task *t, const struct branch *b, i64 column,
                    i64 columns, float *sum)
{
    const struct tensor *dy = t->in[0];
    const i64 C = dy->dim[1];
    memset(sum, 0, COLUMNS_PER_PART * sizeof *sum);
    for (const i32 *at = b->at; at < b->end; at++) {
        const void *row = vec_at(half, vec_at(half, dy->data, *at * C), column);
        for (i64 c = 0; c < columns; c += VL)
            vec_put_n(false, sum, c,
                      vec_get_n(false, sum, c, columns - c) + vec_get_n(half, row, c, columns - c),
                      columns - c);
    }
}

/* tree(runs) of gemm.h; false when there is no row. A sum from +0 is never -0, so branches
 * without rows may be left out. */
static bool tree_of_runs(const struct task *t, const struct branch *b, i64 column, i64 columns,
                         float *sum)
{
    const i64 grain = (i64)t->attr[EMBED_GRAIN], parts = b->runs % 2 ? b->runs : 2;
    float more[COLUMNS_PER_PART];
    bool any = false;
    if (b->at == b->end)
        return false;
    if (b->runs == 1) {
        if (is_half(t->in[0]->dtype))
            sum_run(true, t, b, column, columns, sum);
        else
            sum_run(false, t, b, column, columns, sum);
        return true;
    }
    struct branch part = { b->at, b->at, b->first, b->runs / parts };
    for (i64 i = 0; i < parts; i++, part.first += part.runs, part.at = part.end) {
        while (part.end < b->end && *part.end < (part.first + part.runs) * grain)
            part.end++;
        if (!tree_of_runs(t, &part, column, columns, any ? more : sum))
            continue;
        for (i64 c = 0; any && c < columns; c++)
            sum[c] += more[c];
        any = true;
    }
    return any;
}

static void sum_trees(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const struct sorted s = sorted_in(t, w->x->workspace);
    const i64 C = t->in[0]->dim[1], runs = t->in[0]->dim[0] / (i64)t->attr[EMBED_GRAIN];
    struct range c = work_range(w, part);
    (void)thread;
    for (i64 v = 0; v < t->out[0]->dim[0]; v++) {
        float sum[COLUMNS_PER_PART], *to = (float *)t->out[0]->data + v * C + c.begin;
        struct branch all = { s.order + s.begin[v], s.order + s.begin[v + 1], 0, runs };
        if (!tree_of_runs(t, &all, c.begin, c.end - c.begin, sum))
            continue;
        for (i64 i = 0; i < c.end - c.begin; i++)
            to[i] += sum[i];
    }
}

void NAMED(embed_grad)(const struct task *t, struct run *x)
{
    const bool grain = t->attr[EMBED_GRAIN] > 0;
    if (!run_accumulates(t, x))
        work_run(t, x, tensor_count(t->out[0]), ZERO_PER_PART, zero_part);
    if (grain) {
        const struct sorted s = sorted_in(t, x->workspace);
        sort_rows(t, &s);
    }
    work_run(t, x, t->in[0]->dim[1], COLUMNS_PER_PART, grain ? sum_trees : scatter_columns);
}

i64 NAMED(embed_grad_workspace)(const struct task *t, int threads, const void *context)
{
    (void)threads;
    (void)context;
    if (t->attr[EMBED_GRAIN] == 0)
        return 0;
    return (t->out[0]->dim[0] + 1 + t->in[0]->dim[0]) * (i64)sizeof(i32);
}
