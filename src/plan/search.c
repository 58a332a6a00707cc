#include "plan/search.h"

#include "base/err.h"
#include "model/decoder.h"
#include "model/model.h"
#include "parallel/layout.h"
#include "plan/bill.h"
#include "plan/ops_scale.h"
#include "plan/search_none.h"
#include "plan/stack.h"

#include <math.h>
#include <stdlib.h>

const char *const plan_objective_names[PLAN_OBJECTIVES] = { "time", "cost", "energy", "carbon" };

/* --- what is walked ------------------------------------------------------------------- */

/* Layouts with the same degrees and micro-batch. */
struct node {
    struct plan_layout layout; /* without schedule, recompute, zero */
    const struct plan_table *table;
    double bound; /* objective of the least step; grows with recompute from there */
};

struct walk {
    const struct plan_search *s;
    struct plan_search_result *out;
    struct arena *arena;
    struct node *nodes;
    i64 n, capacity;
    double per_second, per_busy_second; /* of the objective */
};

/* --- what is to be small -------------------------------------------------------------- */

double plan_busy_seconds(const struct plan_step *s)
{
    static const int busy[] = { PLAN_IDEAL, PLAN_SHAPE, PLAN_MEMORY_BOUND, PLAN_RECOMPUTE,
                                PLAN_OPTIMIZER };
    double sum = 0;
    for (i64 i = 0; i < COUNT_OF(busy); i++)
        sum += s->terms[busy[i]];
    return sum;
}

/* Grows with both. */
static double objective(const struct walk *w, double seconds, double busy_seconds)
{
    return w->per_second * seconds + w->per_busy_second * busy_seconds;
}

/* Joules of everything, by what the bill says of devices that wait and that compute. */
static int set_objective(struct walk *w)
{
    const struct plan_job *job = w->s->job;
    struct plan_use use = { .devices = (double)job->devices, .seconds = 3600, .location = "world" };
    struct plan_bill waiting, busy;
    w->per_second = 1;
    if (w->s->objective != PLAN_ENERGY && w->s->objective != PLAN_CARBON)
        return OK;
    if (job->machine->device.peak_w <= 0)
        return err_set(ERR_CONFIG, "the power of %s is not known; choose --objective time",
                       job->machine->device.name);
    TRY(plan_bill_of(job->machine, &use, &waiting));
    use.busy = (struct plan_band){ 1, 1, 1 };
    TRY(plan_bill_of(job->machine, &use, &busy));
    w->per_second = 1e6 * waiting.mwh.mid; /* MWh in an hour are MW */
    w->per_busy_second = 1e6 * (busy.mwh.mid - waiting.mwh.mid);
    return OK;
}

/* --- order ---------------------------------------------------------------------------- */

enum { FIELDS = 12 };

static void fields(const struct plan_layout *l, i64 out[FIELDS])
{
    const i64 all[FIELDS] = { l->recompute, l->zero, l->schedule, l->virtual_stages, l->tp, l->cp,
                              l->ep, l->pp, l->dp, l->micro_batch, l->micro_batches,
                              l->zero_group };
    for (int i = 0; i < FIELDS; i++)
        out[i] = all[i];
}

/* Negative: a is the better one. No two layouts are equal. */
static int compare(const struct plan_found *a, const struct plan_found *b)
{
    i64 x[FIELDS], y[FIELDS];
    if (a->objective != b->objective)
        return a->objective < b->objective ? -1 : 1;
    if (a->step.memory_bytes != b->step.memory_bytes)
        return a->step.memory_bytes < b->step.memory_bytes ? -1 : 1;
    fields(&a->layout, x);
    fields(&b->layout, y);
    for (int i = 0; i < FIELDS; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

/* --- groups of layouts ---------------------------------------------------------------- */

static bool wanted(i64 pick, i64 value)
{
    return pick == PICK_ANY || pick == value;
}

static void add_node(struct walk *w, const struct plan_layout *l)
{
    const struct plan_pick *p = &w->s->pick;
    if (!wanted(p->micro_batch, l->micro_batch) || !wanted(p->micro_batches, l->micro_batches) ||
        plan_layout_refused(w->s->job, l) || plan_runs_degrees(w->s->job, l))
        return;
    if (w->n == w->capacity) {
        i64 capacity = i64_max(1024, 2 * w->capacity);
        struct node *more = ARENA_ARRAY(w->arena, struct node, capacity);
        for (i64 i = 0; i < w->n; i++)
            more[i] = w->nodes[i];
        w->nodes = more;
        w->capacity = capacity;
    }
    w->nodes[w->n++] = (struct node){ .layout = *l };
}

static void add_micro_batches(struct walk *w, struct plan_layout l)
{
    i64 rows = w->s->job->global_batch / l.dp;
    for (i64 k = 1; k <= rows / k; k++) {
        if (rows % k)
            continue;
        l.micro_batch = k;
        l.micro_batches = rows / k;
        add_node(w, &l);
        if (k == rows / k)
            break;
        l.micro_batch = rows / k;
        l.micro_batches = k;
        add_node(w, &l);
    }
}

static void add_experts(struct walk *w, struct plan_layout l)
{
    i64 most = i64_max(1, w->s->job->spec->experts);
    for (l.ep = 1; l.ep <= most; l.ep++)
        if (most % l.ep == 0 && plan_expert_sharers(w->s->job->stack, &l) % l.ep == 0 &&
            wanted(w->s->pick.ep, l.ep))
            add_micro_batches(w, l);
}

/* All (tp, cp, pp, dp) whose product is the devices. */
static void add_nodes(struct walk *w)
{
    const struct plan_job *job = w->s->job;
    const struct plan_pick *p = &w->s->pick;
    struct plan_layout l = { .virtual_stages = 1, .schedule = SCHEDULE_1F1B };
    i64 N = job->devices, most_cp = i64_max(1, job->sequence / PLAN_LEAST_ROWS);
    for (l.tp = 1; l.tp <= i64_min(N, job->spec->heads); l.tp++) {
        l.sequence_parallel = l.tp > 1 && p->sequence_parallel != 0;
        for (l.pp = 1; N % l.tp == 0 && l.pp <= i64_min(N / l.tp, job->spec->layers); l.pp++)
            for (l.cp = 1; N / l.tp % l.pp == 0 && l.cp <= most_cp; l.cp++) {
                i64 rest = N / l.tp / l.pp;
                l.dp = rest / l.cp;
                if (rest % l.cp || job->global_batch % l.dp || !wanted(p->tp, l.tp) ||
                    !wanted(p->pp, l.pp) || !wanted(p->cp, l.cp) || !wanted(p->dp, l.dp))
                    continue;
                add_experts(w, l);
            }
    }
}

static int by_table(const void *a, const void *b)
{
    const struct plan_layout *x = &((const struct node *)a)->layout;
    const struct plan_layout *y = &((const struct node *)b)->layout;
    i64 by[] = { x->tp - y->tp, x->cp - y->cp, x->ep - y->ep, x->micro_batch - y->micro_batch,
                 x->pp - y->pp };
    for (i64 i = 0; i < COUNT_OF(by); i++)
        if (by[i])
            return by[i] < 0 ? -1 : 1;
    return 0;
}

/* Groups whose operators no program has yet (tokens that tp does not divide, say) are left out,
 * and counted. */
static int price_tables(struct walk *w)
{
    struct plan_shelf *shelf = plan_shelf_new(w->s->job, w->arena);
    i64 n = 0;
    if (w->n > 0)
        qsort(w->nodes, (size_t)w->n, sizeof *w->nodes, by_table);
    for (i64 i = 0; i < w->n; i++) {
        struct node node = w->nodes[i];
        int rc = plan_shelf_table(shelf, &node.layout, &node.table);
        if (rc == OK)
            w->nodes[n++] = node;
        else if (rc != ERR_CONFIG && rc != ERR_MODEL)
            return rc;
        else if (!w->out->why_left_out)
            w->out->why_left_out = arena_strdup(w->arena, err_message());
    }
    w->out->left_out = w->n - n;
    w->out->tables = plan_shelf_tables(shelf);
    w->n = n;
    return OK;
}

/* --- bounds --------------------------------------------------------------------------- */

static void add_piece(const struct plan_piece *p, double n, int recompute, double *busy,
                      double *seconds)
{
    double compute = p->forward.ideal + p->forward.shape + p->forward.memory + p->backward.ideal +
                     p->backward.shape + p->backward.memory +
                     plan_seconds_sum(&p->again[recompute]);
    *busy += n * compute;
    *seconds += n * (compute + p->tp_forward + p->tp_backward + p->tp_again[recompute] +
                     p->cp_forward + p->cp_backward + p->ep_forward + p->ep_backward);
}

/* No step of these degrees takes less (search.h). Rounding is forgiven. */
static double bound(const struct walk *w, const struct node *node, int recompute)
{
    const struct plan_table *t = node->table;
    double busy = 0, seconds = 0;
    add_piece(&t->pieces[PLAN_DENSE], (double)t->dense_layers, recompute, &busy, &seconds);
    add_piece(&t->pieces[PLAN_SPARSE], (double)t->sparse_layers, recompute, &busy, &seconds);
    add_piece(&t->pieces[PLAN_EMBEDDING], 1, RECOMPUTE_NONE, &busy, &seconds);
    add_piece(&t->pieces[PLAN_HEAD], 1, RECOMPUTE_NONE, &busy, &seconds);
    double share = (double)node->layout.micro_batches / (double)node->layout.pp * (1 - 1e-9);
    return objective(w, share * seconds, share * busy);
}

static int by_bound(const void *a, const void *b)
{
    double x = ((const struct node *)a)->bound, y = ((const struct node *)b)->bound;
    return x < y ? -1 : x > y ? 1 : by_table(a, b);
}

static bool cannot_win(const struct walk *w, double least)
{
    const struct plan_search_result *r = w->out;
    return w->s->prune && r->n == w->s->keep && least > r->best[r->n - 1].objective;
}

/* --- layouts -------------------------------------------------------------------------- */

struct order { /* of work in a pipeline */
    int schedule;
    i64 stages; /* per rank */
};

static i64 orders_of(const struct walk *w, struct plan_layout l, struct order *out)
{
    const struct plan_pick *p = &w->s->pick;
    i64 n = 0;
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++) {
        i64 least = schedule_least_chunks((enum schedule_kind)kind);
        i64 most = schedule_most_chunks((enum schedule_kind)kind);
        if ((p->schedule && p->schedule != kind + 1) || (l.pp == 1 && kind != SCHEDULE_1F1B))
            continue;
        l.schedule = kind;
        most = most ? most : i64_min(MODEL_CHUNKS, w->s->job->spec->layers / l.pp);
        for (l.virtual_stages = least; l.virtual_stages <= most; l.virtual_stages++)
            if (wanted(p->virtual_stages, l.virtual_stages) &&
                !plan_layout_refused(w->s->job, &l) && !plan_runs_order(w->s->job, &l))
                out[n++] = (struct order){ kind, l.virtual_stages };
    }
    return n;
}

struct split { /* of what data ranks share */
    i64 zero, group;
};

enum { MOST_SPLITS = 7, MOST_ORDERS = MODEL_CHUNKS + SCHEDULE_KINDS + 2 };

static void add_split(const struct walk *w, const struct plan_layout *l, i64 zero, i64 group,
                      struct split *out, i64 *n)
{
    struct plan_layout split = *l;
    split.zero = zero;
    split.zero_group = group;
    if (!plan_runs_split(w->s->job, &split))
        out[(*n)++] = (struct split){ zero, group };
}

/* All data ranks split it, or those of a node. */
static i64 splits_of(const struct walk *w, const struct plan_layout *l, struct split *out)
{
    const struct plan_pick *p = &w->s->pick;
    i64 sharers = l->dp * l->cp, n = 0;
    i64 near = i64_max(1, w->s->job->machine->node_ranks / l->tp);
    bool groups = near > 1 && near < sharers && sharers % near == 0 && l->ep == 1;
    for (i64 zero = ZERO_NONE; zero <= ZERO_WEIGHTS; zero++) {
        if (!wanted(p->zero, zero) || (sharers == 1 && zero != ZERO_NONE))
            continue;
        if (wanted(p->zero_group, 0))
            add_split(w, l, zero, 0, out, &n);
        if (groups && zero != ZERO_NONE && wanted(p->zero_group, near))
            add_split(w, l, zero, near, out, &n);
    }
    return n;
}

static void keep(struct walk *w, const struct plan_found *f)
{
    struct plan_search_result *r = w->out;
    i64 i;
    if (r->n == w->s->keep && compare(f, &r->best[r->n - 1]) >= 0)
        return;
    r->n += r->n < w->s->keep;
    for (i = r->n - 1; i > 0 && compare(f, &r->best[i - 1]) < 0; i--)
        r->best[i] = r->best[i - 1];
    r->best[i] = *f;
}

static void try_layout(struct walk *w, const struct plan_layout *l, const struct plan_table *t)
{
    struct plan_search_result *r = w->out;
    struct plan_found f = { .layout = *l };
    plan_step_of(w->s->job, l, t, &f.step);
    f.objective = objective(w, f.step.seconds, plan_busy_seconds(&f.step));
    if (r->priced++ == 0 || f.step.memory_bytes < r->least.step.memory_bytes)
        r->least = f;
    r->unfit += !f.step.fits;
    if (f.step.fits || w->s->all)
        keep(w, &f);
}

static void try_node(struct walk *w, const struct node *node, const struct order *orders,
                     i64 n_orders, const struct split *splits, i64 n_splits)
{
    struct plan_layout l = node->layout;
    for (l.recompute = RECOMPUTE_NONE; l.recompute <= RECOMPUTE_FULL; l.recompute++) {
        if (w->s->pick.recompute && w->s->pick.recompute != l.recompute + 1)
            continue;
        if (cannot_win(w, bound(w, node, l.recompute)))
            continue;
        for (i64 k = 0; k < n_splits; k++)
            for (i64 i = 0; i < n_orders; i++) {
                l.zero = splits[k].zero;
                l.zero_group = splits[k].group;
                l.schedule = orders[i].schedule;
                l.virtual_stages = orders[i].stages;
                try_layout(w, &l, node->table);
            }
    }
}

static void walk_nodes(struct walk *w)
{
    struct order orders[MOST_ORDERS];
    struct split splits[2 * (ZERO_WEIGHTS + 1)];
    i64 recomputes = w->s->pick.recompute ? 1 : RECOMPUTE_FULL + 1;
    for (i64 i = 0; i < w->n; i++)
        w->nodes[i].bound = bound(w, &w->nodes[i], RECOMPUTE_NONE);
    if (w->n > 0)
        qsort(w->nodes, (size_t)w->n, sizeof *w->nodes, by_bound);
    for (i64 i = 0; i < w->n; i++) {
        const struct node *node = &w->nodes[i];
        i64 n_orders = orders_of(w, node->layout, orders);
        i64 n_splits = splits_of(w, &node->layout, splits);
        w->out->layouts += recomputes * n_orders * n_splits;
        if (!cannot_win(w, node->bound))
            try_node(w, node, orders, n_orders, splits, n_splits);
    }
}

/* --- the whole ------------------------------------------------------------------------ */

int plan_search(const struct plan_search *s, struct plan_search_result *out, struct arena *a)
{
    struct walk w = { .s = s, .out = out, .arena = a };
    *out = (struct plan_search_result){ .best = ARENA_ARRAY(a, struct plan_found, s->keep) };
    TRY(set_objective(&w));
    add_nodes(&w);
    TRY(price_tables(&w));
    walk_nodes(&w);
    return out->n > 0 ? OK : plan_search_none(s, out, a);
}
