#include "train/trial_watch.h"

#include "ops/ops.h"
#include "ops/zigzag.h"

#include <math.h>

enum { INPUT, OUTPUT, MOST_KEPT = 1 << 20 /* elements of a tensor: 4 MB */ };

static const char *const kinds[] = { [INPUT] = "input", [OUTPUT] = "output's gradient" };

/* Of an expert's rows, which no two layouts have in the same order: over all of the step. */
struct moments {
    double sum, squares;
};

/* One parameter's two tensors: of rows of `columns` the tokens whose number `every` divides, or of
 * experts by rank the moments of every column, [experts][columns]. */
struct watched {
    i64 columns, every, n;
    float *kept;             /* of one rank; NULL where ranks are compared to it */
    struct trial_sums *sums; /* by rank */
    struct moments **moments; /* by rank; NULL where a rank has none; NULL: no experts' matrix */
};

struct trial_watch {
    const struct trial *one, *disturbed;
    struct watched *of; /* [parameters of one rank][TRIAL_WATCHED] */
};

void trial_watch(struct trial *t, const struct trial *one, const struct trial *disturbed)
{
    const struct model *m = one ? one->rank[0].model : t->rank[0].model;
    const i64 tokens = t->rank[0].all_rows * t->rank[0].T;
    struct trial_watch *w = ARENA_NEW(&t->arena, struct trial_watch);
    const i64 n = m->n_params * TRIAL_WATCHED;
    *w = (struct trial_watch){ one, disturbed, ARENA_ARRAY(&t->arena, struct watched, n) };
    for (i64 i = 0; i < n; i++) {
        const struct param_desc *d = &m->params[i / TRIAL_WATCHED].desc;
        struct watched *x = &w->of[i];
        x->columns = i % TRIAL_WATCHED == INPUT ? d->dim[1] : d->dim[0];
        if (d->rank == 2 && param_is_expert(d)) {
            x->columns = i % TRIAL_WATCHED == INPUT ? d->dim[1] : d->dim[0] / d->experts;
            x->moments = ARENA_ARRAY(&t->arena, struct moments *, t->n);
            continue;
        }
        if (d->rank != 2)
            continue;
        x->every = ceil_div(tokens * x->columns, MOST_KEPT);
        x->n = ceil_div(tokens, x->every) * x->columns;
        if (one)
            x->sums = ARENA_ARRAY(&t->arena, struct trial_sums, t->n);
        else
            x->kept = ARENA_ARRAY(&t->arena, float, x->n);
    }
    t->watch = w;
}

/* --- a task ------------------------------------------------------------------------- */

static const struct param *param_with(const struct model *m, const struct tensor *grad)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (m->params[i].grad == grad && m->params[i].desc.rank == 2)
            return &m->params[i];
    return NULL;
}

/* Which row of this micro-batch's the r-th of a product is: a matrix that tp does not cut sees
 * the rank's cut of each sequence, but for a router's. */
static i64 row_of(const struct trial_rank *k, const struct param *p, i64 r)
{
    const i64 tp = k->mesh.layout.tp, here = k->T / k->mesh.layout.cp, cut = here / tp;
    if (p->desc.split != SPLIT_NONE || p->desc.kind != PARAM_MATRIX)
        return r;
    return r / cut * here + k->mesh.tp_rank * cut + r % cut;
}

/* Which token of the step the r-th of this micro-batch is. */
static i64 token_of(const struct trial_rank *k, i64 r, int micro_batch)
{
    const i64 cp = k->mesh.layout.cp, here = k->T / cp, pairs = layout_pairs(&k->mesh.layout);
    i64 row = k->rows.first + micro_batch * k->rows.stride + r / here;
    return row * k->T + zigzag_pair_place(cp, k->mesh.cp_rank, pairs, here, r % here);
}

/* Which column of the whole product the c-th here is. */
static i64 column_of(const struct param *p, int kind, i64 c)
{
    int piece = 0;
    if (kind == INPUT)
        return p->desc.split == SPLIT_COLUMNS ? p->shard.columns.begin + c : c;
    if (p->desc.split != SPLIT_ROWS)
        return c;
    while (c >= p->shard.rows[piece].count)
        c -= p->shard.rows[piece++].count;
    return p->shard.rows[piece].begin + c;
}

static void look_at(const struct trial_look *look, const struct param *p, i64 number, int kind,
                    const struct tensor *x, i64 first)
{
    const struct trial_watch *w = look->trial->watch;
    const i64 at = number * TRIAL_WATCHED + kind, n = x->dim[1];
    struct watched *own = &w->of[at];
    const float *one = w->one ? w->one->watch->of[at].kept : NULL;
    const float *disturbed = w->disturbed ? w->disturbed->watch->of[at].kept : NULL;
    for (i64 r = 0; r < x->dim[0] && own->every > 0; r++) {
        const struct trial_rank *k = &look->trial->rank[look->rank];
        i64 token = token_of(k, row_of(k, p, first + r), look->run->micro_batch);
        i64 row = token / own->every * own->columns;
        for (i64 c = 0; c < n && token % own->every == 0; c++) {
            i64 to = row + column_of(p, kind, c);
            double value = tensor_get(x, r * n + c);
            assert(to < own->n);
            if (own->kept)
                own->kept[to] = (float)value;
            else
                trial_sums_add(&own->sums[look->rank], value, (double)one[to],
                               (double)disturbed[to]);
        }
    }
}

/* The experts that are here, one after the other; behind the last one's rows nothing counts. */
static void look_at_experts(const struct trial_look *look, const struct param *p, i64 number,
                            int kind, const struct tensor *x, const struct task *t)
{
    struct watched *own = &look->trial->watch->of[number * TRIAL_WATCHED + kind];
    const i32 *begin = t->in[2]->data;
    const i64 leaves = i64_max(1, (i64)t->attr[EXPERT_LEAVES]), n = x->dim[1];
    struct moments **here = &own->moments[look->rank];
    if (!*here)
        *here = ARENA_ARRAY(&look->trial->arena, struct moments, p->desc.experts * own->columns);
    for (i64 e = 0; e < p->shard.experts.count; e++) {
        struct moments *of = *here + (p->shard.experts.begin + e) * own->columns;
        for (i64 r = begin[e * leaves]; r < begin[(e + 1) * leaves]; r++)
            for (i64 c = 0; c < n; c++) {
                double value = tensor_get(x, r * n + c);
                struct moments *m = &of[column_of(p, kind, c)];
                m->sum += value;
                m->squares += value * value;
            }
    }
}

/* Of the head's chunks, its rows say where they begin. */
void trial_watch_task(void *context, const struct task *t)
{
    const struct trial_look *look = context;
    const struct trial *of = look->trial->watch->one ? look->trial->watch->one : look->trial;
    const struct model *m = look->trial->rank[look->rank].model, *whole = of->rank[0].model;
    if (t->op != &op_linear_dw && t->op != &op_expert_linear_dw)
        return;
    const struct param *p = param_with(m, t->out[0]);
    if (!p)
        return;
    const struct tensor *rows = t->in[1];
    i64 first = t->head && rows->owner
                    ? rows->owner_offset / (tensor_bytes(rows) / rows->dim[0]) : 0;
    i64 number = model_param(whole, p->desc.id, p->desc.layer) - whole->params;
    if (t->op == &op_expert_linear_dw) {
        look_at_experts(look, p, number, INPUT, rows, t);
        look_at_experts(look, p, number, OUTPUT, t->in[0], t);
        return;
    }
    look_at(look, p, number, INPUT, rows, first);
    look_at(look, p, number, OUTPUT, t->in[0], first);
}

/* --- lines -------------------------------------------------------------------------- */

/* In one rank's program: where the product is, or where its weight's gradient is made. */
static i64 order_of(const struct trial_rank *k, const struct param *p, int kind)
{
    const struct program *program = k->step.program;
    for (i64 id = 0; id < program->n_tasks; id++) {
        const struct task *t = program->by_id[id];
        bool product = t->op == &op_linear || t->op == &op_expert_linear;
        bool weight = t->op == &op_linear_dw || t->op == &op_expert_linear_dw;
        if (kind == INPUT ? product && t->in[1] == p->compute : weight && t->out[0] == p->grad)
            return id;
    }
    return -1;
}

/* What ranks with this coordinate along tp have seen of expert e in column c, together: they have
 * other rows each, and those along tp other columns of the same. */
static struct moments moments_of(const struct trial *t, const struct watched *x, i64 tp, i64 at,
                                 int *rank)
{
    struct moments all = { 0 };
    for (int r = t->n - 1; r >= 0; r--)
        if (t->rank[r].mesh.tp_rank == tp && x->moments[r]) {
            all.sum += x->moments[r][at].sum;
            all.squares += x->moments[r][at].squares;
            *rank = x->moments[r][at].squares > 0 || *rank < 0 ? r : *rank;
        }
    return all;
}

static void add_moments(struct trial_sums *s, struct moments x, struct moments y, struct moments z)
{
    trial_sums_add(s, x.sum, y.sum, z.sum);
    trial_sums_add(s, sqrt(x.squares), sqrt(y.squares), sqrt(z.squares)); /* of the same order */
}

/* Expert by expert, so that the rank of the one that is furthest off is named. */
static void see_experts(const struct trial *t, i64 number, const struct param *p, int kind,
                        i64 tp, struct trial_line *line)
{
    const struct trial_watch *w = t->watch;
    const i64 at = number * TRIAL_WATCHED + kind, columns = w->of[at].columns;
    const struct moments *one = w->one->watch->of[at].moments[0];
    const struct moments *moved = w->disturbed->watch->of[at].moments[0];
    const i64 here = kind == INPUT ? p->shard.dim[1] : p->shard.dim[0] / p->shard.experts.count;
    struct trial_sums all = { 0 };
    for (i64 i = 0; i < p->desc.experts * columns; i++)
        add_moments(&all, one[i], one[i], moved[i]);
    for (i64 e = 0; e < p->desc.experts; e++) {
        struct trial_sums s = { .all = all.rounding, .n_all = all.n };
        int rank = -1;
        for (i64 c = 0; c < here; c++) {
            const i64 k = e * columns + column_of(p, kind, c);
            add_moments(&s, moments_of(t, &w->of[at], tp, k, &rank), one[k], moved[k]);
        }
        trial_see(&s, rank, line);
    }
}

static void see_all_experts(const struct trial *t, i64 number, int kind, struct trial_line *line)
{
    const struct param *q = &t->watch->one->rank[0].model->params[number];
    for (int r = 0; r < t->n; r++) {
        const struct trial_rank *k = &t->rank[r];
        const struct param *p = model_param(k->model, q->desc.id, q->desc.layer);
        /* Of each tp, where it is at all. */
        bool first = k->mesh.dp_rank == 0 && k->mesh.cp_rank == 0;
        if (p && first)
            see_experts(t, number, p, kind, k->mesh.tp_rank, line);
    }
}

i64 trial_watch_lines(const struct trial *t, struct trial_line *out)
{
    const struct trial_watch *w = t->watch;
    i64 n = 0;
    if (!w)
        return 0;
    const struct model *m = w->one->rank[0].model;
    for (i64 i = 0; i < m->n_params * TRIAL_WATCHED; i++) {
        const struct param *p = &m->params[i / TRIAL_WATCHED];
        const int kind = (int)(i % TRIAL_WATCHED);
        const struct watched *one = &w->one->watch->of[i], *moved = &w->disturbed->watch->of[i];
        struct trial_line line = { kinds[kind], p->desc.name, -1, 0, 0, 0 };
        double all = 0;
        if (w->of[i].moments)
            see_all_experts(t, i / TRIAL_WATCHED, kind, &line);
        for (i64 k = 0; k < one->n; k++)
            all += pow((double)moved->kept[k] - (double)one->kept[k], 2);
        for (int r = 0; r < t->n && w->of[i].sums; r++) {
            struct trial_sums s = w->of[i].sums[r];
            s.all = all;
            s.n_all = one->n;
            trial_see(&s, r, &line);
        }
        if (line.rank < 0)
            continue;
        line.order = 2 * order_of(&w->one->rank[0], p, kind);
        out[n++] = line;
    }
    return n;
}
