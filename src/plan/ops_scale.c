#include "plan/ops_scale.h"

#include "base/err.h"
#include "model/decoder.h"
#include "plan/stack.h"

#include <math.h>
#include <string.h>

/* --- lines ---------------------------------------------------------------------------- */

/* On the line through (x, 1) and (y, 2), at `at`. */
static double on(double x, double y, double at)
{
    return x + (y - x) * (at - 1);
}

static i64 on_whole(i64 x, i64 y, double at)
{
    return x + llround((double)(y - x) * (at - 1));
}

static void scale_messages(struct plan_messages *out, const struct plan_messages *x,
                           const struct plan_messages *y, double at)
{
    out->bytes = on(x->bytes, y->bytes, at);
    out->calls = on(x->calls, y->calls, at);
    out->half_bytes = on(x->half_bytes, y->half_bytes, at);
}

static bool scale_op(struct plan_op *out, const struct plan_op *x, const struct plan_op *y, double at)
{
    *out = *x;
    out->M = on_whole(x->M, y->M, at);
    out->N = on_whole(x->N, y->N, at);
    out->K = on_whole(x->K, y->K, at);
    out->batch = on_whole(x->batch, y->batch, at);
    out->tasks = on(x->tasks, y->tasks, at);
    out->model_flops = on(x->model_flops, y->model_flops, at);
    out->flops = on(x->flops, y->flops, at);
    out->bytes = on(x->bytes, y->bytes, at);
    return strcmp(x->name, y->name) == 0 && x->phase == y->phase && x->kind == y->kind;
}

static bool scale_piece(struct plan_piece_ops *out, const struct plan_piece_ops *x,
                        const struct plan_piece_ops *y, double at)
{
    bool same = x->n == y->n;
    *out = *x;
    for (int i = 0; same && i < x->n; i++)
        same = scale_op(&out->ops[i], &x->ops[i], &y->ops[i], at);
    for (int i = 0; i < 2; i++) {
        scale_messages(&out->tp[i], &x->tp[i], &y->tp[i], at);
        scale_messages(&out->heads[i], &x->heads[i], &y->heads[i], at);
        scale_messages(&out->cp[i], &x->cp[i], &y->cp[i], at);
    }
    scale_messages(&out->gathered, &x->gathered, &y->gathered, at);
    scale_messages(&out->summed, &x->summed, &y->summed, at);
    out->kept_bytes = on(x->kept_bytes, y->kept_bytes, at);
    out->gathered_bytes = on(x->gathered_bytes, y->gathered_bytes, at);
    for (int i = 0; i < 2; i++)
        out->kept_as_rows[i] = on(x->kept_as_rows[i], y->kept_as_rows[i], at);
    out->kept_for_experts = on(x->kept_for_experts, y->kept_for_experts, at);
    out->kept_cut_bytes = on(x->kept_cut_bytes, y->kept_cut_bytes, at);
    return same;
}

/* x: of `step` sequences; y: of twice as many. False: their lists differ. */
static bool scale_ops(struct plan_ops *out, const struct plan_ops *x, const struct plan_ops *y,
                      i64 step, i64 micro_batch)
{
    bool same = true;
    *out = *x;
    out->shape.micro_batch = micro_batch;
    out->rows = x->rows / step * micro_batch;
    for (int part = 0; part < PLAN_PARTS; part++)
        same &= scale_piece(&out->pieces[part], &x->pieces[part], &y->pieces[part],
                            (double)micro_batch / (double)step);
    return same;
}

/* --- shelf ---------------------------------------------------------------------------- */

struct shelved {
    struct plan_table table;
    struct shelved *next;
};

struct pair { /* operators of `step` and twice as many sequences, with ep = 1 */
    i64 tp, cp, step;
    struct plan_ops *ops[2];
    int rc; /* of making them */
    struct shelved *tables;
    struct pair *next;
};

struct plan_shelf {
    const struct plan_job *job;
    struct arena *arena;
    struct pair *pairs;
    struct plan_ops *scratch;
    i64 tables;
};

struct plan_shelf *plan_shelf_new(const struct plan_job *job, struct arena *a)
{
    struct plan_shelf *s = ARENA_NEW(a, struct plan_shelf);
    *s = (struct plan_shelf){ .job = job, .arena = a, .scratch = ARENA_NEW(a, struct plan_ops) };
    return s;
}

i64 plan_shelf_tables(const struct plan_shelf *s)
{
    return s->tables;
}

enum { MANY_CHUNKS = 8 }; /* of the loss head: one that is not whole hardly counts */

/* Sequences whose tokens on a rank are whole chunks, or many. */
static i64 whole_chunks(const struct plan_job *job, i64 cp)
{
    i64 step = 1, rows = job->sequence / cp;
    while (step * rows % HEAD_ROWS && step * rows < MANY_CHUNKS * HEAD_ROWS)
        step *= 2;
    return step;
}

static struct pair *pair_of(struct plan_shelf *s, const struct plan_layout *l)
{
    struct pair *p = s->pairs;
    while (p && (p->tp != l->tp || p->cp != l->cp))
        p = p->next;
    if (p)
        return p;
    p = ARENA_NEW(s->arena, struct pair);
    *p = (struct pair){ .tp = l->tp, .cp = l->cp, .next = s->pairs,
                         .step = whole_chunks(s->job, l->cp) };
    s->pairs = p;
    return p;
}

static int ops_at(struct plan_shelf *s, struct pair *p, const struct plan_layout *l, int which)
{
    struct plan_layout small = *l;
    small.micro_batch = p->step * (which + 1);
    small.ep = 1;
    if (p->ops[which] || p->rc < 0)
        return p->rc;
    struct plan_ops *ops = ARENA_NEW(s->arena, struct plan_ops);
    p->rc = p->rc < 0 ? p->rc : plan_table_ops(ops, s->job, &small);
    p->ops[which] = ops;
    return p->rc;
}

/* Into s->scratch. */
static int ops_of(struct plan_shelf *s, struct pair *p, const struct plan_layout *l)
{
    bool many = l->micro_batch * s->job->sequence / l->cp >= MANY_CHUNKS * HEAD_ROWS;
    if (l->micro_batch % p->step == 0 || many) {
        TRY(ops_at(s, p, l, 0));
        TRY(ops_at(s, p, l, 1));
        if (scale_ops(s->scratch, p->ops[0], p->ops[1], p->step, l->micro_batch)) {
            plan_ops_share(s->scratch, l->ep, s->job->stack->experts.folds);
            return OK;
        }
    }
    return plan_table_ops(s->scratch, s->job, l);
}

int plan_shelf_table(struct plan_shelf *s, const struct plan_layout *l,
                     const struct plan_table **out)
{
    struct pair *p = pair_of(s, l);
    for (struct shelved *t = p->tables; t; t = t->next)
        if (t->table.micro_batch == l->micro_batch && t->table.ep == l->ep &&
            t->table.sequence_parallel == l->sequence_parallel) {
            *out = &t->table;
            return OK;
        }
    TRY(ops_of(s, p, l));
    struct shelved *t = ARENA_NEW(s->arena, struct shelved);
    plan_table_price(&t->table, s->job, l, s->scratch);
    t->next = p->tables;
    p->tables = t;
    s->tables++;
    *out = &t->table;
    return OK;
}
