#include "train/trial.h"

#include "base/rng.h"
#include "ops/ops.h"
#include "ops/zigzag.h"
#include "train/schedule.h"
#include "train/trial_watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- rows --------------------------------------------------------------------------- */

enum { ROW_TENSORS = BATCH_INV_WEIGHT + 1 };

/* Of a whole step, on all ranks, in the order of rows. */
struct trial_rows {
    i64 rows, T;
    struct tensor *of[ROW_TENSORS];
};

static void new_rows(struct trial *t, i64 rows, i64 T)
{
    t->rows = ARENA_NEW(&t->arena, struct trial_rows);
    *t->rows = (struct trial_rows){ .rows = rows, .T = T };
    for (int i = 0; i < ROW_TENSORS; i++) {
        struct tensor *x = t->rows->of[i] = ARENA_NEW(&t->arena, struct tensor);
        bool number = i == BATCH_INV_WEIGHT || i == BATCH_WEIGHTS;
        *x = (struct tensor){ .dtype = number ? DTYPE_F32 : DTYPE_I32, .rank = 1,
                              .dim = { i == BATCH_INV_WEIGHT ? 1 : rows * T } };
        x->data = ARENA_ARRAY(&t->arena, i32, x->dim[0]);
    }
}

/* Row r of a step is a function of (step, r). */
static void make_up(const struct trial_rows *x, i64 step, i64 vocab)
{
    i32 *tokens = x->of[BATCH_TOKENS]->data, *targets = x->of[BATCH_TARGETS]->data;
    i32 *positions = x->of[BATCH_POSITIONS]->data, *begin = x->of[BATCH_BEGIN]->data;
    const i64 T = x->T, border = T / 3; /* of two documents */
    for (i64 i = 0; i < x->rows * T; i++) {
        const i64 place = i % T;
        struct rng key = { 7, (u64)(step * x->rows + i / T) };
        tokens[i] = (i32)(rng_u64(&key, (u64)place) % (u64)vocab);
        targets[i] = (i32)(rng_u64(&key, (u64)place + 1) % (u64)vocab);
        begin[i] = (i32)(place < border ? 0 : border);
        positions[i] = (i32)(place - begin[i]);
        ((float *)x->of[BATCH_WEIGHTS]->data)[i] = place % 5 ? 1.0f : 0.0f;
    }
    *(float *)x->of[BATCH_INV_WEIGHT]->data = 1.0f / (float)((T - ceil_div(T, 5)) * x->rows);
}

static int next_rows(const struct trial *t, i64 step)
{
    const struct trial_rows *x = t->rows;
    struct loader_step whole = { .step = (u64)step, .micro_batches = 1, .B = x->rows, .T = x->T };
    struct task task = { .op = &op_load_batch };
    if (!t->loader) {
        make_up(x, step, t->rank[0].vocab);
        return OK;
    }
    TRY(loader_seek_position(t->loader, step * x->rows * x->T));
    TRY(loader_start_step(t->loader, &whole));
    for (int i = 0; i < ROW_TENSORS; i++)
        task.out[i] = x->of[i];
    struct kernel kernel = loader_kernel(t->loader);
    struct run run = { .context = kernel.context };
    kernel.run(&task, &run);
    return OK;
}

/* This rank's part of them. All count as of one source. */
static void fill_batch(const struct task *t, struct run *x)
{
    const struct trial_rank *k = x->context;
    i64 cp = k->mesh.layout.cp, here = k->T / cp, n = k->rows.B * here;
    i64 first = k->rows.first + x->micro_batch * k->rows.stride;
    i64 pairs = layout_pairs(&k->mesh.layout);
    for (int o = 0; o < ROW_TENSORS; o++) {
        const i32 *from = k->step_rows->of[o]->data;
        i32 *to = t->out[o]->data;
        for (i64 i = 0; i < n && o != BATCH_INV_WEIGHT; i++) {
            i64 place = zigzag_pair_place(cp, k->mesh.cp_rank, pairs, here, i % here);
            to[i] = o == BATCH_SOURCES ? 0 : from[(first + i / here) * k->T + place];
        }
    }
    *(float *)t->out[BATCH_INV_WEIGHT]->data =
        *(const float *)k->step_rows->of[BATCH_INV_WEIGHT]->data;
}

/* --- ranks -------------------------------------------------------------------------- */

/* Ranks take turns, and none has to wait for another one's copies: they end by themselves. */
static int wait_here(void *context, enum lane lane, u64 ticket, bool block)
{
    const struct trial_rank *k = context;
    const struct lane_driver *all = away_lane_driver(k->away);
    return all->wait(all->context, lane, ticket, block || lane == LANE_AWAY);
}

static int start_here(void *context, const struct task *t, struct run *x, u64 *ticket)
{
    const struct trial_rank *k = context;
    const struct lane_driver *all = away_lane_driver(k->away);
    return all->start(all->context, t, x, ticket);
}

static const char *away_folder(const struct train_config *c)
{
    return c->offload.folder ? c->offload.folder : "."; /* files without a name */
}

static int open_lanes(struct trial_rank *k, const struct train_config *c)
{
    TRY(driver_new(&k->driver, &k->mesh, driver_calls(k->step.program), false));
    k->engine.lanes = driver_lanes(k->driver);
    if (!c->offload.optimizer && !c->offload.activations)
        return OK;
    TRY(away_lane_new(&k->away, k->engine.lanes));
    k->lanes = (struct lane_driver){ k, start_here, wait_here };
    k->engine.lanes = &k->lanes;
    return OK;
}

static int open_rank(struct trial *t, struct trial_rank *k, const struct model_spec *s,
                     struct comm *comm, const char *backend)
{
    const struct train_config *c = t->config;
    int micro_batches = (int)schedule_full_micro_batches(c);
    enum dtype compute = c->train.precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    TRY(mesh_new(&k->mesh, &t->layout, s, comm));
    k->rows = layout_rows(&t->layout, c->train.batch, micro_batches, k->mesh.row_rank);
    k->T = c->train.seq;
    k->vocab = s->vocab;
    k->step_rows = t->rows;
    k->all_rows = c->train.batch * micro_batches;
    struct step_shape shape = { k->rows.B, k->T, k->rows.micro_batches, 1 };
    struct model_part part = mesh_part(&k->mesh, s);
    if (c->offload.optimizer)
        part.state_folder = away_folder(c);
    TRY(engine_init(&k->engine, backend, 1, 64));
    k->engine.away_folder = away_folder(c);
    TRY(model_new_part(&k->model, s, compute, step_needs(c), k->T, &part, &k->arena));
    backend_set(&k->engine.backend, &op_load_batch,
                (struct kernel){ .run = fill_batch, .context = k });
    step_io_new(&k->io, s, 1, &k->arena);
    TRY(step_program_new(&k->step, k->model, c, &shape, &k->io, &k->mesh, &k->arena));
    TRY(engine_add(&k->engine, k->step.program));
    TRY(engine_commit(&k->engine));
    TRY(open_lanes(k, c));
    model_init(k->model, (u64)c->train.seed, k->engine.pool);
    return OK;
}

int trial_open(struct trial *t, const struct train_config *c, const struct model_spec *s,
               const struct layout *l, const char *backend)
{
    *t = (struct trial){ .config = c, .layout = *l, .n = (int)layout_ranks(l) };
    arena_init(&t->arena);
    t->rank = ARENA_ARRAY(&t->arena, struct trial_rank, t->n);
    new_rows(t, c->train.batch * schedule_full_micro_batches(c), c->train.seq);
    int rc = comm_sim_new(&t->sim, t->n);
    for (int r = 0; r < t->n && rc >= 0; r++) {
        arena_init(&t->rank[r].arena);
        t->opened++;
        rc = open_rank(t, &t->rank[r], s, comm_sim_rank(t->sim, r), backend);
    }
    if (rc < 0)
        trial_close(t);
    return rc;
}

void trial_close(struct trial *t)
{
    for (int r = 0; r < t->opened; r++) {
        away_lane_free(t->rank[r].away);
        model_free(t->rank[r].model);
        engine_fini(&t->rank[r].engine);
        arena_fini(&t->rank[r].arena);
    }
    if (t->sim)
        comm_sim_free(t->sim);
    arena_fini(&t->arena);
    *t = (struct trial){ 0 };
}

/* Warm-up and decay are left out: a step that is too small would hide what it is made of. */
static void write_hyper(struct trial_rank *k, const struct train_config *c, i64 step)
{
    float *hyper = k->io.hyper->data;
    hyper[HYPER_LR] = (float)c->optim.lr;
    hyper[HYPER_MUON_LR] = (float)(c->optim.muon_lr > 0 ? c->optim.muon_lr : c->optim.lr);
    hyper[HYPER_CORRECT1] = (float)(1 - pow(c->optim.beta1, (double)step + 1));
    hyper[HYPER_CORRECT2] = (float)(1 - pow(c->optim.beta2, (double)step + 1));
}

void trial_read(struct trial *t, struct loader *loader)
{
    t->loader = loader;
}

int trial_step(struct trial *t, i64 step)
{
    int done = 0, idle = 0;
    TRY(next_rows(t, step));
    bool *over = ARENA_ARRAY(&t->arena, bool, t->n);
    for (int r = 0; r < t->n; r++) {
        write_hyper(&t->rank[r], t->config, step);
        t->rank[r].at = (struct exec_cursor){ 0 };
    }
    for (int r = 0; done < t->n; r = (r + 1) % t->n) {
        struct trial_rank *k = &t->rank[r];
        struct run x = engine_context(&k->engine, (u64)step);
        struct exec_cursor before = k->at;
        struct trial_look look = { t, r, &x };
        x.yields = true;
        x.after_task = t->watch ? trial_watch_task : NULL;
        x.after_context = &look;
        int rc = over[r] ? EXEC_BLOCKED : exec_resume(k->step.program, &k->at, &x);
        TRY(rc);
        bool moved = rc == OK || k->at.action != before.action || k->at.task != before.task;
        idle = moved ? 0 : idle + 1;
        if (idle > 2 * t->n)
            return err_set(ERR_INTERNAL, "the ranks of the layout wait for each other");
        over[r] = over[r] || rc == OK;
        done += rc == OK;
    }
    return OK;
}

/* --- rounding ----------------------------------------------------------------------- */

double trial_rounding(const struct train_config *c, const struct model_spec *s)
{
    const double u = 0x1p-24, half = 0x1p-9, lambda = 3;
    i64 rows = c->train.batch * c->train.seq * schedule_full_micro_batches(c);
    i64 longest = i64_max(i64_max(s->width, s->hidden), i64_max(s->vocab, rows));
    double share = 2 * lambda * sqrt((double)longest) * u; /* of both that are compared */
    return c->train.precision == PRECISION_BF16 ? share + 2 * half : share;
}

void trial_disturb(struct trial *t, double share)
{
    const struct model *m = t->rank[0].model;
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        struct rng key = { 11, rng_stream(p->desc.name) };
        for (i64 k = 0; k < param_here(p); k++) {
            double by = 2 * (double)(rng_u64(&key, (u64)k) >> 11) * 0x1p-53 - 1;
            float *w = param_weight(p, k);
            *w = (float)((double)*w * (1 + share * by));
        }
    }
    model_refresh_compute(t->rank[0].model, t->rank[0].engine.pool);
}

/* --- comparing ---------------------------------------------------------------------- */

/* Element `at` of a bucket that this rank is to have right; NULL: it has none there. */
static const float *flat_at(const struct tensor *t, i64 at)
{
    return t && at >= 0 && at < tensor_count(t) ? (const float *)t->data + at : NULL;
}

static const float *grad_at(const struct bucket *b, i64 at)
{
    return flat_at(b->own_grad, bucket_grad_at(b, at));
}

static const float *m_at(const struct bucket *b, i64 at)
{
    return flat_at(b->m, bucket_state_at(b, at));
}

static const float *v_at(const struct bucket *b, i64 at)
{
    return at < b->adam ? flat_at(b->v, bucket_state_at(b, at)) : NULL;
}

static const float *weight_at(const struct bucket *b, i64 at)
{
    return flat_at(b->master, bucket_weight_at(b, at));
}

static const struct kind {
    const char *name;
    const float *(*at)(const struct bucket *b, i64 at);
} kinds[] = {
    { "gradient", grad_at }, { "first moment", m_at }, { "second moment", v_at },
    { "weight", weight_at },
};

/* Where element k of a rank's share lies in the whole parameter. */
static i64 place_in_whole(const struct param *p, i64 k)
{
    i64 whole = p->desc.rank == 2 ? p->desc.dim[1] : 1, piece = 0;
    i64 columns = p->desc.rank == 2 ? p->shard.columns.count : 1;
    i64 each = p->shard.dim[0] / p->shard.experts.count; /* rows of an expert, here */
    i64 row = k / columns % each, expert = p->shard.experts.begin + k / columns / each;
    while (row >= p->shard.rows[piece].count)
        row -= p->shard.rows[piece++].count;
    row += p->shard.rows[piece].begin + expert * (p->desc.dim[0] / p->desc.experts);
    return row * whole + p->shard.columns.begin + k % columns;
}

void trial_sums_add(struct trial_sums *s, double x, double y, double z)
{
    s->norm += y * y;
    s->difference += isfinite(x) ? pow(x - y, 2) : INFINITY;
    s->rounding += pow(z - y, 2);
    s->n++;
}

/* Of a weight that Adam moves, the element that is furthest off is left out: a whole step, where
 * rounding decides the sign of a gradient near 0. In a small tensor one sample of rounding may
 * meet none of these where the layout meets one; in a large one both meet as many. */
static struct trial_sums sum_up(const struct kind *kind, const struct param *p,
                                const struct param *q, const struct param *d)
{
    struct trial_sums s = { .n_all = param_here(q) };
    double furthest = 0;
    const struct shard_range here = param_state_here(p);
    for (i64 k = 0; k < s.n_all; k++) {
        const float *y = kind->at(q->bucket, q->at + k), *z = kind->at(d->bucket, d->at + k);
        s.all += y ? pow((double)*z - *y, 2) : 0;
    }
    for (i64 k = here.begin; k < here.begin + here.count; k++) {
        i64 place = place_in_whole(p, k);
        const float *x = kind->at(p->bucket, p->at + k), *y = kind->at(q->bucket, q->at + place);
        const float *z = kind->at(d->bucket, d->at + place);
        if (!x || !y)
            continue;
        trial_sums_add(&s, (double)*x, (double)*y, (double)*z);
        furthest = fmax(furthest, fabs((double)*x - *y));
    }
    if (kind->at == weight_at && v_at(q->bucket, q->at) && s.n > 1 && isfinite(s.difference))
        s.difference = fmax(0, s.difference - furthest * furthest);
    return s;
}

void trial_see(const struct trial_sums *s, int rank, struct trial_line *line)
{
    double share = s->all * (double)s->n / (double)s->n_all;
    double bound = TRIAL_MARGIN * sqrt(s->rounding > share ? s->rounding : share);
    double ratio = s->difference == 0 ? 0 : sqrt(s->difference) / bound;
    if (s->n == 0 || (line->rank >= 0 && ratio <= line->ratio))
        return;
    line->rank = rank;
    line->ratio = ratio;
    line->difference = s->norm > 0 ? sqrt(s->difference / s->norm) : sqrt(s->difference);
}

static bool touches(const struct tensor *out, const float *x)
{
    if (!out || !out->data)
        return false;
    const char *begin = out->data;
    return (const char *)x >= begin && (const char *)x < begin + tensor_bytes(out);
}

/* The last task that writes it, but for those that sum whole buckets. */
static i64 order_of(const struct program *p, const float *x)
{
    for (i64 id = p->n_tasks - 1; id >= 0; id--)
        for (int k = 0; k < TASK_OUTS; k++)
            if (p->by_id[id]->op != &op_carry && touches(p->by_id[id]->out[k], x))
                return id;
    return -1;
}

static int by_order(const void *a, const void *b)
{
    const struct trial_line *x = a, *y = b;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* What the loss is made of, summed over all tokens: 0: their losses, 1: their weights.
 * Those who have the last stage count them, along tp each. */
static double loss_of(const struct trial *t, int which)
{
    double sum = 0;
    for (int r = 0; r < t->n; r++) {
        const struct trial_rank *k = &t->rank[r];
        bool counts = k->mesh.tp_rank == 0 &&
                      model_has_layer(&k->model->spec, &k->model->part, k->model->spec.layers - 1);
        sum += counts ? ((const double *)k->io.sums->data)[which] : 0;
    }
    return sum;
}

static double norm_of(const struct trial *t, int rank)
{
    return *(const double *)t->rank[rank].io.norm->data;
}

/* How far the gradient of the whole model moves. */
static double gradient_moves(const struct trial *one, const struct trial *disturbed)
{
    const struct model *m = one->rank[0].model, *n = disturbed->rank[0].model;
    double squares = 0;
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i], *q = &n->params[i];
        for (i64 k = 0; k < param_here(p) && p->desc.kind != PARAM_BALANCE; k++) {
            const float *y = grad_at(p->bucket, p->at + k), *z = grad_at(q->bucket, q->at + k);
            squares += y && z ? pow((double)*z - *y, 2) : 0;
        }
    }
    return sqrt(squares);
}

/* A single number of the step, on a rank. */
static void see_number(double x, double y, double rounding, int rank, struct trial_line *line)
{
    const double difference = isfinite(x) ? fabs(x - y) : INFINITY;
    const double ratio = difference == 0 ? 0 : difference / (TRIAL_MARGIN * rounding);
    if (line->rank >= 0 && ratio <= line->ratio)
        return;
    line->rank = rank;
    line->ratio = ratio;
    line->difference = y != 0 ? difference / fabs(y) : difference;
}

/* The loss behind all tensors, which say more where they differ too. */
static i64 compare_numbers(const struct trial *t, const struct trial *one,
                           const struct trial *disturbed, struct trial_line *out)
{
    const struct program *p = one->rank[0].step.program;
    const double share = trial_rounding(one->config, &one->rank[0].model->spec);
    const double norm = norm_of(one, 0);
    const double moves = gradient_moves(one, disturbed) + share * norm;
    out[0] = (struct trial_line){ "loss", "the step", -1, 0, 0, INT64_MAX };
    out[1] = (struct trial_line){ "norm", "the gradient", -1, 0, 0,
                                  2 * order_of(p, one->rank[0].io.norm->data) + 1 };
    for (int k = 0; k < 2; k++) {
        const double sum = loss_of(one, k), moved = fabs(loss_of(disturbed, k) - sum);
        see_number(loss_of(t, k), sum, fmax(moved, share * sum), 0, &out[0]);
    }
    for (int r = 0; r < t->n; r++)
        see_number(norm_of(t, r), norm, moves, r, &out[1]);
    return TRIAL_NUMBERS;
}

i64 trial_compare(const struct trial *t, const struct trial *one, const struct trial *disturbed,
                  struct trial_line **out, struct arena *a)
{
    const struct model *whole = one->rank[0].model, *moved = disturbed->rank[0].model;
    const i64 each = COUNT_OF(kinds) + TRIAL_WATCHED;
    i64 n = 0;
    *out = ARENA_ARRAY(a, struct trial_line, whole->n_params * each + TRIAL_NUMBERS);
    for (i64 i = 0; i < whole->n_params; i++)
        for (i64 kind = 0; kind < COUNT_OF(kinds); kind++) {
            const struct param *q = &whole->params[i];
            const float *first = kinds[kind].at(q->bucket, q->at);
            struct trial_line line = { kinds[kind].name, q->desc.name, -1, 0, 0, 0 };
            for (int r = 0; r < t->n && first; r++) {
                const struct param *p = model_param(t->rank[r].model, q->desc.id, q->desc.layer);
                struct trial_sums s = { 0 };
                if (p)
                    s = sum_up(&kinds[kind], p, q, &moved->params[i]);
                trial_see(&s, r, &line);
            }
            if (line.rank < 0)
                continue;
            /* Behind what it reads. */
            line.order = 2 * order_of(one->rank[0].step.program, first) + 1;
            (*out)[n++] = line;
        }
    n += trial_watch_lines(t, *out + n);
    n += compare_numbers(t, one, disturbed, *out + n);
    qsort(*out, (size_t)n, sizeof **out, by_order);
    return n;
}

const struct trial_line *trial_first(const struct trial_line *lines, i64 n)
{
    for (i64 i = 0; i < n; i++)
        if (!(lines[i].ratio <= 1))
            return &lines[i];
    return NULL;
}
