#include "plan/virtual_run.h"

#include "base/json.h"
#include "base/sys.h"
#include "base/text.h"
#include "ops/ops.h"
#include "parallel/preflight.h"
#include "train/inject_settings.h"
#include "train/record_json.h"
#include "train/schedule.h"
#include "trace/record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- rates -------------------------------------------------------------------------- */

#define FIELD(field) OPTION_FIELD(FLOAT, struct virtual_rates, field)

/* What `headway layout show` takes, and a disk. */
static const struct option rate_options[] = {
    { "flops", FIELD(price.flops_per_s), "5e10", .unit = "FLOP/s", .min = 1, .max = 1e30,
      .help = "What a rank computes." },
    { "memory", FIELD(price.memory_bytes_per_s), "1e10", .unit = "bytes/s", .min = 1, .max = 1e30,
      .help = "How fast its memory is." },
    { "link", FIELD(price.link_bytes_per_s), "2e9", .unit = "bytes/s", .min = 1, .max = 1e30,
      .help = "What it sends." },
    { "latency", FIELD(price.latency_s), "2e-5", .unit = "seconds", .max = 1e6,
      .help = "From the begin of a message to its first byte." },
    { "disk", FIELD(disk_bytes_per_s), "1e9", .unit = "bytes/s", .min = 1, .max = 1e30,
      .help = "How fast it saves." },
    { 0 },
};

int virtual_rates_parse(struct virtual_rates *out, const char *text, const char *where,
                        struct arena *a)
{
    *out = (struct virtual_rates){ 0 };
    option_set_defaults(rate_options, out, a);
    while (text && *text) {
        const size_t length = strcspn(text, ",");
        const char *equals = memchr(text, '=', length);
        if (!equals)
            return err_set(ERR_USAGE, "%s: '%.*s' is not rate=value, such as flops=1e12", where,
                           (int)length, text);
        TRY(option_parse_one(rate_options, out, arena_strndup(a, text, equals - text),
                             arena_strndup(a, equals + 1, text + length - equals - 1), where, a));
        text += length + (text[length] == ',');
    }
    return OK;
}

/* --- a rank ------------------------------------------------------------------------- */

/* Rows that loader threads make ahead: when those of step s are ready. */
struct loading {
    double *ready, *began; /* [steps + ahead + 1] */
    double *worker_free;   /* [threads] */
    i64 known, told;       /* steps whose time is known; whose span was told */
    double busy, cpu;      /* so far */
};

struct spans {
    struct span *at;
    i64 n, capacity;
};

struct rank {
    const struct rank_view *view; /* of its stage */
    struct loading loading;
    struct spans spans; /* of this step, in the step's arena */
    double attended;    /* pairs that attention looks at, over those of whole rows */
    double take, begin; /* when this step's data were there; when its tasks began */
};

struct virtual_loop {
    const struct virtual_request *q;
    struct arena arena, step_arena;
    const struct rank_view **views; /* [pp] */
    struct rank *ranks;
    struct inject *inject;  /* [ranks] */
    double *begin, *share;  /* [ranks]: for plan_step */
    i64 n, steps, ahead, threads;
    struct run_folder folder;
    struct text chunk;
    double now;        /* when all ranks have agreed that the last step is done */
    double done_chunk; /* until when spans are recorded */
};

static void add_span(struct virtual_loop *l, i64 rank, const struct span *s)
{
    struct spans *list = &l->ranks[rank].spans;
    if (list->n == list->capacity) {
        i64 capacity = i64_max(256, 2 * list->capacity);
        struct span *at = arena_alloc(&l->step_arena, capacity * (i64)sizeof *at);
        if (list->n > 0)
            memcpy(at, list->at, (size_t)list->n * sizeof *at);
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->n++] = *s;
}

static void hear(void *context, i64 rank, const struct span *s)
{
    add_span(context, rank, s);
}

static u64 ns(double seconds)
{
    return (u64)(1e9 * seconds + 0.5);
}

static void add_host(struct virtual_loop *l, i64 rank, i64 step, enum span_kind kind, double begin,
                     double end)
{
    struct span s = { .begin_ns = ns(begin), .end_ns = ns(end), .step = (u32)step,
                      .lane = kind == SPAN_LOAD ? TRACE_LOADER : TRACE_HOST, .kind = (u8)kind };
    add_span(l, rank, &s);
}

/* --- data --------------------------------------------------------------------------- */

static const struct step_shape *shape_of(const struct rank *r)
{
    return &r->view->step.shape;
}

static double rank_tokens(const struct rank *r)
{
    const struct step_shape *s = shape_of(r);
    return (double)(s->B * s->T * s->micro_batches);
}

/* Whoever of the loader's threads is free first makes the step's rows, once they may be made. */
static void load(struct virtual_loop *l, i64 rank, i64 step, double may)
{
    struct loading *d = &l->ranks[rank].loading;
    double spin, *first = &d->worker_free[0];
    for (i64 i = 1; i < l->threads; i++)
        first = d->worker_free[i] < *first ? &d->worker_free[i] : first;
    double bytes = 4 * rank_tokens(&l->ranks[rank]);
    double takes = inject_load(&l->inject[rank], (u64)step, bytes, &spin);
    d->began[step] = fmax(*first, may);
    d->ready[step] = *first = d->began[step] + takes;
    d->busy += takes;
    d->cpu += spin;
    d->known = step + 1;
}

/* The step asks for its rows; those behind it may then be made. */
static void take_rows(struct virtual_loop *l, i64 rank, i64 step)
{
    struct rank *r = &l->ranks[rank];
    struct loading *d = &r->loading;
    if (d->known == 0)
        load(l, rank, 0, l->now);
    r->take = fmax(l->now, d->ready[step]);
    while (d->known <= step + l->ahead)
        load(l, rank, d->known, r->take);
    add_host(l, rank, step, SPAN_LOAD_WAIT, l->now, r->take);
}

static void tell_loads(struct virtual_loop *l, i64 rank, double until)
{
    struct loading *d = &l->ranks[rank].loading;
    for (; d->told < d->known && d->ready[d->told] <= until; d->told++)
        add_host(l, rank, d->told, SPAN_LOAD, d->began[d->told], d->ready[d->told]);
}

/* Pairs of tokens that attend to each other in the rank's rows. */
static double attended(const struct virtual_loop *l, i64 rank, i64 step, i64 *documents)
{
    const struct step_shape *s = shape_of(&l->ranks[rank]);
    double pairs = 0;
    *documents = 0;
    for (i64 row = 0; row < s->B * s->micro_batches; row++) {
        i64 length = inject_length(&l->inject[rank], (u64)step, row, s->T);
        pairs += (double)s->T * (double)(length + 1) / 2;
        *documents += s->T / length;
    }
    return pairs;
}

/* Over those of whole rows. */
static double attended_share(const struct virtual_loop *l, i64 rank, i64 step)
{
    i64 documents;
    double pairs = attended(l, rank, step, &documents);
    return pairs / (rank_tokens(&l->ranks[rank]) * (double)(shape_of(&l->ranks[rank])->T + 1) / 2);
}

/* --- recording ---------------------------------------------------------------------- */

static void put_chunk(struct text *out, enum record_kind kind, const void *head, i64 head_bytes,
                      const void *body, i64 body_bytes)
{
    static const char zeros[8];
    struct record_chunk chunk = { .kind = kind, .bytes = (u64)(head_bytes + body_bytes) };
    i64 at = out->length;
    text_add_bytes(out, (const char *)&chunk, (i64)sizeof chunk);
    text_add_bytes(out, head, head_bytes);
    text_add_bytes(out, body, body_bytes);
    chunk.checksum = record_checksum(kind, out->data + at + sizeof chunk, (i64)chunk.bytes);
    memcpy(out->data + at, &chunk, sizeof chunk);
    text_add_bytes(out, zeros, round_up((i64)chunk.bytes, 8) - (i64)chunk.bytes);
}

/* Opened anew each time: there may be more ranks than a process may have open files. */
static int append(struct virtual_loop *l, i64 rank)
{
    char path[2200];
    snprintf(path, sizeof path, "%s/trace/rank-%lld.spans", l->folder.path, (long long)rank);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    int rc = sys_write_full(fd, l->chunk.data, l->chunk.length);
    int saved = errno;
    if (sys_close(fd) != 0 || rc != 0)
        return err_set(ERR_SYS, "write %s: %s", path, strerror(rc != 0 ? saved : errno));
    return OK;
}

static void put_json(struct virtual_loop *l, enum record_kind kind, struct json *j)
{
    put_chunk(&l->chunk, kind, j->out.data, j->out.length, NULL, 0);
    json_writer_clear(j);
}

static int begin_record(struct virtual_loop *l, i64 rank, struct json *j)
{
    const struct train_config *c = l->q->config;
    const struct rank_view *v = l->ranks[rank].view;
    const struct record_clock clock = { 0 };
    struct mesh mesh = mesh_at(l->q->layout, rank);
    mesh.stages = l->views[0]->mesh.stages;
    const struct plan_price *price = &l->q->rates.price;
    bool narrow = c->train.precision == PRECISION_BF16;
    struct record_about about = {
        .mesh = &mesh, .part = 1, .layout = layout_text(l->q->layout, &l->step_arena),
        .host = "virtual", .backend = "virtual", .processor = "virtual",
        .precision = narrow ? "bf16" : "fp32", .threads = 1, .cores = 1, .sharers = 1,
        .flops_f32 = price->flops_per_s, .flops_bf16 = price->flops_per_s,
        .memory_bytes_per_s = price->memory_bytes_per_s,
    };
    text_clear(&l->chunk);
    record_put_head(j, &about);
    put_json(l, RECORD_HEAD, j);
    record_put_table(j, "step", v->step.program, v->step.shape.B, v->step.shape.T);
    put_json(l, RECORD_TABLE, j);
    put_chunk(&l->chunk, RECORD_CLOCK, &clock, (i64)sizeof clock, NULL, 0);
    return append(l, rank);
}

/* By lane, as rings are. */
static struct span *by_lane(struct virtual_loop *l, const struct spans *list)
{
    struct span *out = arena_alloc(&l->step_arena, i64_max(1, list->n) * (i64)sizeof *out);
    i64 n = 0;
    for (int lane = 0; lane < TRACE_LANES; lane++)
        for (i64 i = 0; i < list->n; i++)
            if (list->at[i].lane == lane)
                out[n++] = list->at[i];
    return out;
}

static struct sample sample_of(const struct virtual_loop *l, i64 rank, i64 step, double until)
{
    const struct rank *r = &l->ranks[rank];
    const struct loading *d = &r->loading;
    const struct inject *x = &l->inject[rank];
    const struct inject_fault *phi = inject_at(x, INJECT_PHI, (u64)step);
    const struct inject_fault *padding = inject_at(x, INJECT_PADDING, (u64)step);
    const double covers = until - l->done_chunk;
    double spin;
    i64 documents;
    struct sample s = {
        .at_ns = ns(until), .covers_ns = ns(until) - ns(l->done_chunk), .step = (u32)step,
        .has = SAMPLE_SCHED | SAMPLE_USAGE | SAMPLE_CLOCK | SAMPLE_LOADER | SAMPLE_ROWS,
        .run_ns = ns(covers), .user_ns = ns(covers), .phi = phi ? phi->value : 1,
        .threads = 1, .processors = 1, .loader_ahead = (u32)l->ahead,
        .loader_threads = (u32)l->threads, .tokens = (u64)rank_tokens(r),
        .loader_used_bytes = (u64)(4 * rank_tokens(r)),
    };
    s.attended = attended(l, rank, step, &documents);
    s.documents = (u32)documents;
    s.tokens_idle = padding ? (u64)(padding->value * rank_tokens(r)) : 0;
    s.loader_busy_ns = ns(inject_load(x, (u64)step, 4 * rank_tokens(r), &spin));
    s.loader_cpu_ns = ns(spin);
    s.loader_read_bytes = s.loader_used_bytes;
    for (i64 k = step; k < d->known && k < step + l->ahead; k++)
        s.loader_ready += d->ready[k] <= l->now && d->began[k] < l->now;
    return s;
}

static int record_step(struct virtual_loop *l, i64 step, double until)
{
    for (i64 i = 0; i < l->n; i++) {
        tell_loads(l, i, until);
        const struct spans *list = &l->ranks[i].spans;
        struct record_spans head = { .step = (u32)step, .n = (u32)list->n, .flags = RECORD_FIRST,
                                     .begin_ns = ns(l->done_chunk), .end_ns = ns(until) };
        struct sample sample = sample_of(l, i, step, until);
        text_clear(&l->chunk);
        put_chunk(&l->chunk, RECORD_SPANS, &head, (i64)sizeof head, by_lane(l, list),
                  list->n * (i64)sizeof(struct span));
        put_chunk(&l->chunk, RECORD_SAMPLE, &sample, (i64)sizeof sample, NULL, 0);
        TRY(append(l, i));
    }
    return OK;
}

/* --- a step ------------------------------------------------------------------------- */

/* What ranks do together between steps, as long as it takes all of them. */
static double between_steps(struct virtual_loop *l, i64 step, double now)
{
    const struct train_config *c = l->q->config;
    const struct virtual_rates *rates = &l->q->rates;
    bool last = step + 1 == l->steps;
    double end = now;
    if (c->eval.every > 0 && (step + 1) % c->eval.every == 0 && !last) {
        double flops = l->views[0]->step.program->cost.model_flops / rank_tokens(&l->ranks[0]) / 3;
        end += flops * (double)c->eval.tokens / (double)l->n / rates->price.flops_per_s;
        for (i64 i = 0; i < l->n; i++)
            add_host(l, i, step, SPAN_EVAL, now, end);
        now = end;
    }
    if (c->checkpoint.every > 0 && (step + 1) % c->checkpoint.every == 0 && !last) {
        double bytes = (double)l->views[0]->model_bytes;
        end += bytes / (c->checkpoint.async ? rates->price.memory_bytes_per_s
                                            : rates->disk_bytes_per_s);
        for (i64 i = 0; i < l->n; i++)
            add_host(l, i, step, SPAN_CHECKPOINT, now, end);
    }
    return end;
}

static void log_step(struct virtual_loop *l, i64 step, double end)
{
    const struct train_config *c = l->q->config;
    const struct plan_price *price = &l->q->rates.price;
    double flops = 0, seconds = end - l->now;
    i64 columns = l->n / l->q->layout->pp;
    i64 tokens = c->train.batch * c->train.seq * schedule_full_micro_batches(c) *
                 l->q->layout->islands;
    for (i64 i = 0; i < l->q->layout->pp; i++)
        flops += (double)columns * l->views[i]->step.program->cost.model_flops;
    if ((step + 1) % c->log.every != 0)
        return;
    struct json *j = run_folder_begin_line(&l->folder, "step");
    json_put_int(j, "step", step + 1);
    json_put_int(j, "tokens", (step + 1) * tokens);
    json_put_double(j, "step_s", seconds);
    json_put_double(j, "load_wait_s", l->ranks[0].take - l->now);
    json_put_double(j, "tokens_per_s", (double)tokens / seconds);
    json_put_double(j, "mfu", flops / (seconds * price->flops_per_s * (double)l->n));
    run_folder_end_line(&l->folder);
}

static double last_of(const struct virtual_loop *l, double (*time)(const struct rank *r))
{
    double last = 0;
    for (i64 i = 0; i < l->n; i++)
        last = fmax(last, time(&l->ranks[i]));
    return last;
}

static double take_time(const struct rank *r)
{
    return r->take;
}

static void begin_step(struct virtual_loop *l, i64 step)
{
    for (i64 i = 0; i < l->n; i++)
        take_rows(l, i, step);
    double met = last_of(l, take_time);
    for (i64 i = 0; i < l->n; i++) {
        if (l->n > 1)
            add_host(l, i, step, SPAN_MEET, l->ranks[i].take, met);
        l->begin[i] = met + inject_pause(&l->inject[i], (u64)step);
        l->share[i] = attended_share(l, i, step);
    }
}

static int take_step(struct virtual_loop *l, i64 step)
{
    struct plan_time t;
    for (i64 i = 0; i < l->n; i++)
        l->ranks[i].spans = (struct spans){ 0 };
    begin_step(l, step);
    struct plan_step at = { .step = (u64)step, .inject = l->inject, .begin = l->begin,
                            .attended = l->share, .span = hear, .context = l };
    const i64 watched = l->q->config->log.health;
    if (watched > 0 && (step + 1) % watched != 0)
        at.off = HEALTH_DUE;
    TRY(plan_simulate_step(l->views, &l->q->rates.price, &at, &t, &l->step_arena));
    for (i64 i = 0; i < l->n; i++) {
        add_host(l, i, step, SPAN_STEP, l->now, t.ranks[i].end);
        if (l->n > 1)
            add_host(l, i, step, SPAN_MEET, t.ranks[i].end, t.length);
    }
    log_step(l, step, t.length);
    double until = between_steps(l, step, t.length);
    TRY(record_step(l, step, until));
    l->now = l->done_chunk = until;
    return OK;
}

/* --- the run ------------------------------------------------------------------------ */

/* When the loader's rows were ready, 16 bytes of each step and rank: a gigabyte. */
enum { MOST_RANK_STEPS = 1 << 26 };

static int check(const struct virtual_request *q, const struct inject *x)
{
    static const enum inject_kind real[] = { INJECT_MALLOC_CHURN, INJECT_NEIGHBOUR, INJECT_HANG,
                                             INJECT_ROUTER_ZIPF, INJECT_SERIAL,
                                             INJECT_KILL };
    for (i64 i = 0; i < COUNT_OF(real); i++)
        for (int k = 0; k < x->n; k++)
            if (x->faults[k].kind == real[i])
                return err_set(ERR_CONFIG, "%s acts on processes, of which a virtual run has none",
                               inject_rows[real[i]].name);
    const i64 steps = schedule_steps(q->config), ranks = layout_ranks(q->layout);
    if (steps <= 0)
        return err_set(ERR_CONFIG, "a virtual run ends by its steps: set train.steps or "
                       "train.tokens");
    if (steps > MOST_RANK_STEPS / ranks)
        return err_set(ERR_CONFIG, "a virtual run walks each step: %lld of %lld ranks are more than "
                       "the %lld that it keeps in mind; set train.steps to fewer",
                       (long long)steps, (long long)ranks, (long long)(MOST_RANK_STEPS / ranks));
    return inject_check_ops(x);
}

/* The first rank of each coordinate along pp. */
static int open_views(struct virtual_loop *l)
{
    const struct virtual_request *q = l->q;
    l->views = ARENA_ARRAY(&l->arena, const struct rank_view *, q->layout->pp);
    for (i64 i = 0; i < l->n; i++) {
        i64 at = mesh_at(q->layout, i).pp_rank;
        if (l->views[at])
            continue;
        struct rank_view *v = ARENA_NEW(&l->arena, struct rank_view);
        TRY(rank_view_new(v, q->layout, q->spec, q->config, i, &l->arena));
        l->views[at] = v;
    }
    return OK;
}

static int open_ranks(struct virtual_loop *l)
{
    const struct train_config *c = l->q->config;
    const struct layout *layout = l->q->layout;
    struct inject all;
    TRY(inject_read(&all, c->run.inject.at, c->run.inject.count, NULL));
    TRY(check(l->q, &all));
    TRY(inject_check_ranks(&all, layout_ranks(layout)));
    l->steps = schedule_steps(c);
    l->ahead = c->data.prefetch;
    l->threads = c->data.threads;
    TRY(open_views(l));
    TRY(inject_check_program(&all, layout, l->views));
    l->ranks = ARENA_ARRAY(&l->arena, struct rank, l->n);
    l->inject = ARENA_ARRAY(&l->arena, struct inject, l->n);
    l->begin = ARENA_ARRAY(&l->arena, double, l->n);
    l->share = ARENA_ARRAY(&l->arena, double, l->n);
    for (i64 i = 0; i < l->n; i++) {
        struct rank *r = &l->ranks[i];
        r->view = l->views[mesh_at(layout, i).pp_rank];
        r->loading.ready = ARENA_ARRAY(&l->arena, double, l->steps + l->ahead + 1);
        r->loading.began = ARENA_ARRAY(&l->arena, double, l->steps + l->ahead + 1);
        r->loading.worker_free = ARENA_ARRAY(&l->arena, double, l->threads);
        l->inject[i] = all;
        inject_begin(&l->inject[i], i, (u64)c->train.seed);
    }
    return OK;
}

static int write_manifest(struct virtual_loop *l)
{
    const struct virtual_request *q = l->q;
    struct text yaml = { 0 };
    struct json j;
    json_writer_init(&j);
    json_begin_object(&j);
    json_put_int(&j, "schema", 1);
    json_put_str(&j, "headway", HEADWAY_VERSION);
    json_put_bool(&j, "virtual", true);
    json_put_str(&j, "layout", layout_text(q->layout, &l->arena));
    json_put_int(&j, "ranks", l->n);
    json_key(&j, "machine");
    json_begin_object(&j);
    json_put_str(&j, "processor", "virtual");
    json_put_str(&j, "backend", "virtual");
    json_put_int(&j, "cores", 1);
    json_put_int(&j, "threads", 1);
    json_put_double(&j, "peak_flops", q->rates.price.flops_per_s);
    json_put_double(&j, "memory_bytes_per_s", q->rates.price.memory_bytes_per_s);
    json_put_double(&j, "link_bytes_per_s", q->rates.price.link_bytes_per_s);
    json_put_double(&j, "latency_s", q->rates.price.latency_s);
    json_end(&j);
    json_key(&j, "model");
    json_begin_object(&j);
    json_put_str(&j, "name", q->spec->name);
    json_put_int(&j, "parameters", params_total(q->spec));
    json_end(&j);
    json_key(&j, "config");
    recipe_write_json(q->recipe, &j);
    json_end(&j);
    text_add(&j.out, "\n");
    int rc = run_folder_write(&l->folder, "manifest.json", j.out.data, j.out.length);
    json_writer_fini(&j);
    recipe_write_yaml(q->recipe, &yaml);
    if (rc == OK)
        rc = run_folder_write(&l->folder, "recipe.yaml", yaml.data, yaml.length);
    text_fini(&yaml);
    return rc;
}

/* Of the links that are slow on purpose the slowest with no end at these two ranks. */
static struct preflight_link slowest_without(const struct virtual_loop *l, i64 one, i64 other)
{
    const double bytes = 1 << 20, usual = l->q->rates.price.link_bytes_per_s;
    struct preflight_link slowest = { 0, 1, usual, usual, usual };
    for (int r = 0; r < (int)l->n; r++)
        for (int peer = r + 1; peer < (int)l->n; peer++) {
            const double rate = bytes / inject_pair(&l->inject[r], r, peer, bytes);
            if (rate < slowest.bytes_per_s && r != one && r != other && peer != one && peer != other)
                slowest = (struct preflight_link){ r, peer, rate, usual, usual };
        }
    return slowest;
}

/* What passes between any two, as far as it is kept. */
static void put_domains(const struct virtual_loop *l, struct json *j)
{
    const double bytes = 1 << 20, usual = l->q->rates.price.link_bytes_per_s;
    struct preflight_domains d;
    struct arena a;
    if (l->n > PREFLIGHT_PAIRS)
        return;
    arena_init(&a);
    double *pairs = ARENA_ARRAY(&a, double, l->n * l->n);
    for (int r = 0; r < (int)l->n; r++)
        for (int peer = 0; peer < (int)l->n; peer++)
            pairs[r * l->n + peer] =
                fmin(usual, bytes / inject_pair(&l->inject[r], r, peer, bytes));
    if (preflight_find_domains(pairs, l->n, &d))
        preflight_put_domains(&d, j);
    arena_fini(&a);
}

/* What real ranks would find before the run. */
static void log_preflight(struct virtual_loop *l)
{
    const struct plan_price *price = &l->q->rates.price;
    struct preflight_link slowest = slowest_without(l, -1, -1);
    slowest.next_bytes_per_s = slowest_without(l, slowest.rank, slowest.peer).bytes_per_s;
    struct json *j = run_folder_begin_line(&l->folder, "preflight");
    json_put_double(j, "latency_s", price->latency_s);
    json_put_double(j, "bytes_per_s", price->link_bytes_per_s);
    if (l->n > 2)
        preflight_put_link(&slowest, j);
    put_domains(l, j);
    run_folder_end_line(&l->folder);
}

static int begin_run(struct virtual_loop *l)
{
    char path[2200];
    struct json j;
    int rc = OK;
    TRY(write_manifest(l));
    snprintf(path, sizeof path, "%s/trace", l->folder.path);
    if (sys_mkdirs(path) != 0)
        return err_set(ERR_SYS, "make the folder %s: %s", path, strerror(errno));
    json_writer_init(&j);
    for (i64 i = 0; i < l->n && rc == OK; i++)
        rc = begin_record(l, i, &j);
    json_writer_fini(&j);
    if (rc == OK && l->n > 1)
        log_preflight(l);
    return rc;
}

static int run(struct virtual_loop *l)
{
    TRY(open_ranks(l));
    TRY(begin_run(l));
    for (i64 step = 0; step < l->steps; step++) {
        arena_fini(&l->step_arena);
        TRY(take_step(l, step));
    }
    return OK;
}

/* "recipes/tiny.yaml" -> "tiny". */
static const char *stem_of(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return arena_strndup(a, name, dot && dot > name ? dot - name : (i64)strlen(name));
}

int virtual_run(const struct virtual_request *q, char *folder)
{
    struct virtual_loop l = { .q = q, .n = layout_ranks(q->layout) };
    arena_init(&l.arena);
    arena_init(&l.step_arena);
    const struct train_config *c = q->config;
    int rc = run_folder_open(&l.folder, c->run.dir, c->run.name,
                             stem_of(q->recipe_path, &l.arena), false, false);
    if (rc == OK) {
        snprintf(folder, sizeof l.folder.path, "%s", l.folder.path);
        rc = run(&l);
        run_folder_close(&l.folder);
    }
    text_fini(&l.chunk);
    arena_fini(&l.step_arena);
    arena_fini(&l.arena);
    return rc;
}
