#include "plan/microbench.h"

#include "backend/cpu/linear.h"
#include "backend/engine.h"
#include "base/err.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/bench.h"
#include "comm/world.h"
#include "ops/ops.h"
#include "train/step.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TASKS = 512, SAMPLES = 4096, TIMINGS = 64, REPS = 9, LEAST_REPS = 3, VOCAB = 4096,
       OVERLAP_BYTES = 4 << 20, MOST_BYTES = 16 << 20 };
static const double patience_s = 1.2; /* for the repetitions of one shape */
static const double deadline_s = 60;

/* Products from a thin layer's to those of a laptop's model, few rows and many, short and long
 * sequences: each op meets sizes that differ by a hundred and more. */
static const struct { i64 width, heads, hidden, B, T; } shapes[] = {
    { 64, 1, 176, 4, 128 },   { 128, 2, 352, 8, 256 },   { 256, 4, 704, 1, 64 },
    { 256, 4, 704, 8, 256 },  { 320, 5, 896, 4, 512 },   { 512, 8, 1408, 2, 128 },
    { 512, 8, 1408, 4, 256 }, { 768, 12, 2048, 1, 512 }, { 1024, 16, 2816, 1, 128 },
};

struct shared { /* by one rank for the process that asked */
    struct plan_sample samples[SAMPLES];
    i64 n;
    struct plan_timed products[RATES_PRODUCTS];
    i64 n_products;
    struct comm_timing timings[TIMINGS];
    i64 n_timings;
    struct comm_overlap overlap;
    char backend[32];
};

struct rank {
    const struct microbench *m;
    struct shared *out; /* NULL: another rank writes it */
    struct comm_group *group;
};

/* --- one shape ------------------------------------------------------------------------ */

struct bench {
    struct arena arena;
    struct engine engine;
    struct model_spec spec;
    struct train_config config;
    struct model *model;
    struct step_io io;
    struct step_program step;
    u64 before;                   /* when the task before ended */
    double (*seconds)[REPS];      /* [tasks] */
    int rep;                      /* -1: warms up */
};

static void fill_batch(const struct task *t, struct run *x)
{
    const struct bench *b = x->context;
    i64 n = tensor_count(t->out[BATCH_TOKENS]);
    for (i64 i = 0; i < n; i++) {
        ((i32 *)t->out[BATCH_TOKENS]->data)[i] = (i32)(7919 * i % VOCAB);
        ((i32 *)t->out[BATCH_TARGETS]->data)[i] = (i32)(6101 * i % VOCAB);
        ((i32 *)t->out[BATCH_POSITIONS]->data)[i] = (i32)(i % b->step.shape.T);
        ((i32 *)t->out[BATCH_BEGIN]->data)[i] = 0;
        ((i32 *)t->out[BATCH_SOURCES]->data)[i] = 0;
        ((float *)t->out[BATCH_WEIGHTS]->data)[i] = 1;
    }
    *(float *)t->out[BATCH_INV_WEIGHT]->data = 1.0f / (float)n;
}

static void time_task(void *context, const struct task *t)
{
    struct bench *b = context;
    u64 now = sys_now_ns();
    if (b->rep >= 0)
        b->seconds[t->id][b->rep] = 1e-9 * (double)(now - b->before);
    b->before = sys_now_ns();
}

static int open_bench(struct bench *b, const struct rank *r, int shape)
{
    i64 T = shapes[shape].T, B = shapes[shape].B;
    option_set_defaults(train_options, &b->config, &b->arena);
    option_set_defaults(model_spec_options, &b->spec, &b->arena);
    b->spec.name = "microbenchmark";
    b->spec.family = FAMILY_LLAMA;
    b->spec.norm = NORM_RMS;
    b->spec.act = ACT_SWIGLU;
    b->spec.position = POSITION_ROPE;
    b->spec.vocab = VOCAB;
    b->spec.positions = T;
    b->spec.layers = 1;
    b->spec.width = shapes[shape].width;
    b->spec.heads = shapes[shape].heads;
    b->spec.hidden = shapes[shape].hidden;
    TRY(spec_check(&b->spec, "microbenchmark"));
    TRY(engine_init(&b->engine, r->m->backend, r->m->threads, 64));
    backend_set(&b->engine.backend, &op_load_batch,
                (struct kernel){ .run = fill_batch, .context = b });
    TRY(model_new(&b->model, &b->spec, r->m->dtype, step_needs(&b->config), T, &b->arena));
    step_io_new(&b->io, &b->spec, 1, &b->arena);
    struct step_shape rows = { B, T, 1, 1 };
    struct mesh mesh = mesh_single();
    TRY(step_program_new(&b->step, b->model, &b->config, &rows, &b->io, &mesh, &b->arena));
    TRY(engine_add(&b->engine, b->step.program));
    TRY(engine_commit(&b->engine));
    model_init(b->model, 1, b->engine.pool);
    float *hyper = b->io.hyper->data;
    hyper[HYPER_LR] = hyper[HYPER_MUON_LR] = 1e-4f;
    hyper[HYPER_CORRECT1] = hyper[HYPER_CORRECT2] = 1;
    b->seconds = arena_alloc(&b->arena, b->step.program->n_tasks * (i64)sizeof *b->seconds);
    return OK;
}

static void close_bench(struct bench *b)
{
    model_free(b->model);
    engine_fini(&b->engine);
    arena_fini(&b->arena);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median; *off: half the distance of the quartiles, as a share of it. */
static double middle_of(double *x, int n, double *off)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    *off = 0.5 * (x[3 * n / 4] - x[n / 4]) / x[n / 2];
    return x[n / 2];
}

static void note_product(struct shared *out, const struct task *t, double seconds, double off, int n)
{
    bool dw = t->op == &op_linear_dw;
    if (t->op != &op_linear && t->op != &op_linear_dx && !dw)
        return;
    struct plan_timed p = { .op = t->op->name, .M = t->in[0]->dim[0], .K = t->in[0]->dim[1],
                              .N = t->out[0]->dim[1], .seconds = seconds, .spread = off, .n = n };
    if (dw) {
        p.M = t->in[0]->dim[1];
        p.K = t->in[0]->dim[0];
    }
    for (i64 i = 0; i < out->n_products; i++)
        if (!strcmp(out->products[i].op, p.op) && out->products[i].M == p.M &&
            out->products[i].N == p.N && out->products[i].K == p.K)
            return;
    if (out->n_products < RATES_PRODUCTS)
        out->products[out->n_products++] = p;
}

static void take_samples(struct shared *out, const struct bench *b, int reps)
{
    const struct program *p = b->step.program;
    i64 columns = linear_tile_columns(b->engine.backend.name);
    i64 cut = linear_cut_columns(b->engine.backend.name);
    for (i64 id = 0; id < p->n_tasks && out->n < SAMPLES; id++) {
        const struct task *t = p->by_id[id];
        double off, seconds = middle_of(b->seconds[id], reps, &off);
        if (t->op == &op_load_batch || seconds <= 0)
            continue;
        out->samples[out->n++] = (struct plan_sample){
            .name = t->op->name, .seconds = seconds, .weight = 1,
            .flops = plan_tile_flops(t->cost.flops, plan_product_columns(t), columns, cut),
            .bytes = t->cost.read_bytes + t->cost.written_bytes,
        };
        note_product(out, t, seconds, off, reps);
    }
}

static int meet(const struct rank *r)
{
    struct comm_call barrier = { .op = COMM_BARRIER, .group = r->group };
    return r->m->ranks > 1 ? comm_run(&barrier) : OK;
}

static int run_bench(struct bench *b, const struct rank *r)
{
    u64 begin = 0;
    int done = 0;
    TRY(meet(r));
    for (b->rep = -1; b->rep < REPS; b->rep++) {
        struct run x = engine_context(&b->engine, (u64)(b->rep + 1));
        x.trace = NULL;
        x.after_task = time_task;
        x.after_context = b;
        begin = b->rep == 0 ? sys_now_ns() : begin;
        b->before = sys_now_ns();
        TRY(exec_program(b->step.program, &x));
        done = b->rep + 1;
        if (done >= LEAST_REPS && 1e-9 * (double)(sys_now_ns() - begin) > patience_s)
            break;
    }
    if (r->out)
        take_samples(r->out, b, i64_min(done, REPS));
    return OK;
}

static int bench_shape(const struct rank *r, int shape)
{
    struct bench *b;
    struct arena own;
    arena_init(&own);
    b = ARENA_NEW(&own, struct bench);
    *b = (struct bench){ .rep = -1 };
    arena_init(&b->arena);
    int rc = open_bench(b, r, shape);
    if (rc >= 0)
        rc = run_bench(b, r);
    close_bench(b);
    arena_fini(&own);
    return rc;
}

/* --- exchanges ------------------------------------------------------------------------ */

static int bench_exchanges(const struct rank *r)
{
    static const enum comm_op ops[] = { COMM_ALLREDUCE, COMM_REDUCE_SCATTER, COMM_ALL_GATHER,
                                        COMM_ALL_TO_ALL, COMM_SEND };
    struct comm_timing t;
    struct comm_overlap o;
    for (i64 i = 0; i < COUNT_OF(ops); i++)
        for (i64 bytes = 1 << 10; bytes <= MOST_BYTES; bytes *= 8) {
            TRY(comm_bench(r->group, ops[i], bytes, false, &t));
            if (r->out && r->out->n_timings < TIMINGS)
                r->out->timings[r->out->n_timings++] = t;
        }
    TRY(comm_bench_overlap(r->group, OVERLAP_BYTES, &o));
    if (r->out)
        r->out->overlap = o;
    return OK;
}

/* --- ranks ---------------------------------------------------------------------------- */

static void tell(const struct rank *r, double share, const char *what)
{
    const struct microbench *m = r->m;
    if (r->out && m->progress)
        m->progress(m->context, (m->part + share) / m->parts, what);
}

static int bench_rank(struct comm *c, struct rank *r)
{
    int n = COUNT_OF(shapes);
    TRY(comm_world_group(&r->group, c, "world"));
    for (int i = 0; i < n; i++) {
        if (r->m->widest && shapes[i].width > r->m->widest)
            continue;
        tell(r, (double)i / (n + 3), "matrix products and other ops");
        TRY(bench_shape(r, i));
    }
    tell(r, (double)n / (n + 3), "collectives");
    return r->m->ranks > 1 ? bench_exchanges(r) : OK;
}

struct job {
    const struct microbench *m;
    struct shared *shared;
};

static int body(struct comm *c, void *context)
{
    struct job *job = context;
    struct rank r = { .m = job->m, .out = c->rank == 0 ? job->shared : NULL };
    return bench_rank(c, &r);
}

/* --- what comes out ------------------------------------------------------------------- */

/* Bytes that a ring sends per rank: what tasks of the lanes count as their message. */
static double ring_bytes(const struct comm_timing *t, int ranks)
{
    double rho = (double)(ranks - 1) / ranks, bytes = (double)t->bytes;
    if (t->op == COMM_SEND)
        return bytes;
    return (t->op == COMM_ALLREDUCE ? 2 : 1) * rho * bytes;
}

static i64 exchange_samples(const struct shared *s, int ranks, struct plan_sample *out,
                            struct arena *a)
{
    i64 n = 0;
    for (i64 i = 0; i < s->n_timings; i++) {
        const struct comm_timing *t = &s->timings[i];
        struct plan_sample x = { .bytes = ring_bytes(t, ranks), .seconds = 1e-6 * t->median_us,
                                 .weight = 1 };
        x.name = arena_printf(a, "exchange.%s", comm_op_name(t->op));
        out[n++] = x;
        x.name = RATES_ANY_LANE;
        out[n++] = x;
    }
    return n;
}

static int make_rates(struct plan_rates *out, const struct microbench *m, const struct shared *s,
                      struct arena *a)
{
    struct plan_sample *all = ARENA_ARRAY(a, struct plan_sample, s->n + 2 * s->n_timings + 1);
    for (i64 i = 0; i < s->n; i++)
        all[i] = s->samples[i];
    i64 n = s->n + exchange_samples(s, m->ranks, all + s->n, a);
    *out = (struct plan_rates){
        .processor = arena_strdup(a, m->machine->processor),
        .backend = arena_strdup(a, s->backend),
        .precision = m->dtype == DTYPE_BF16 ? "bf16" : "fp32", .threads = m->threads,
        .ranks = m->ranks, .columns = linear_tile_columns(s->backend),
        .cut = linear_cut_columns(s->backend), .launch_s = 1e-9 * m->machine->launch_ns,
    };
    TRY(plan_rates_fit(out, all, n, a));
    for (i64 i = 0; i < s->n_products; i++)
        out->products[out->n_products++] = s->products[i];
    for (int i = 0; i < MACHINE_LEVELS; i++) {
        const struct machine_level *l = &m->machine->level[i];
        if (l->bytes > 0 && l->read_all > 0)
            out->memory[out->n_memory++] = (struct plan_level){
                (double)l->bytes, l->read_all / m->ranks, l->copy_all / m->ranks,
            };
    }
    if (m->ranks > 1)
        out->overlap_tax = fmin(1, fmax(0, 1 - s->overlap.hidden));
    return OK;
}

static int run_ranks(const struct microbench *m, struct shared *shared)
{
    struct job job = { m, shared };
    struct comm_local l = { .ranks = m->ranks, .deadline_s = deadline_s };
    struct backend b;
    TRY(backend_init(&b, m->backend));
    snprintf(shared->backend, sizeof shared->backend, "%s", b.name);
    return comm_local_run(&l, body, &job);
}

int microbench_run(struct plan_rates *out, const struct microbench *m, struct arena *a)
{
    i64 bytes = round_up((i64)sizeof(struct shared), 4096);
    int memory = sys_memory_new("headway-microbench", bytes);
    struct shared *shared = memory < 0 ? NULL : sys_map_shared(memory, bytes);
    int rc = shared ? run_ranks(m, shared)
                    : err_set(ERR_SYS, "no memory to measure in: %s", strerror(errno));
    if (rc >= 0)
        rc = make_rates(out, m, shared, a);
    if (shared)
        sys_unmap(shared, bytes);
    if (memory >= 0)
        sys_close(memory);
    return rc;
}
