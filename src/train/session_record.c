/* Recording a run's spans while it goes on (see session.h and trace/record.h). */
#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "comm/flight.h"
#include "machine/machine.h"
#include "parallel/clock.h"
#include "trace/record_writer.h"
#include "train/record_json.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A trigger keeps its step, those before it as far as the rings have them, and those behind it. */
enum { AROUND = 2, STAGED = 4096, TIMED = 64, TIMED_LEAST = 16 };

/* Clocks of nodes drift apart by some ten microseconds per second: how far they are is asked this
 * often, and between two answers it changes in a straight line. */
static const double clock_every_s = 30;

/* What of the rings one call of session_record_step has taken. */
struct taken {
    struct record_spans head;
    u64 from[TRACE_LANES], to[TRACE_LANES];
    bool kept;
};

struct session_record {
    struct record_writer *writer;
    struct span *staged; /* [STAGED] */
    struct taken last[AROUND + 1]; /* the newest is [0] */
    i64 step;      /* of the last call */
    i64 keep_until; /* steps up to this one are kept */
    const struct program *tables[SESSION_SHAPES + 1];
    int n_tables;
    double seconds[TIMED]; /* of the last steps, in a ring */
    i64 timed;
    double clock_asked; /* of the run's seconds */
    bool told; /* that the disk refused */
    double peak_flops; /* of a rank, in the run's precision; 0: not known */
};

/* --- what every file begins with ---------------------------------------------------- */

static void add_preamble(struct session_record *r, enum record_kind kind, struct json *j)
{
    record_writer_preamble(r->writer, kind, j->out.data, j->out.length);
    json_writer_clear(j);
}

struct names {
    char processor[128], host[64];
};

static void describe(const struct session *s, i64 part, struct names *names,
                     struct record_about *out)
{
    struct machine m, widest;
    machine_processor_name(names->processor, sizeof names->processor);
    sys_host_name(names->host, sizeof names->host);
    machine_detect(&m, s->engine.backend.name, pool_threads(s->engine.pool));
    bool known = machine_load(&m) == OK;
    machine_detect(&widest, backend_best(), pool_threads(s->engine.pool));
    bool compared = machine_load(&widest) == OK && !s->request.sleep;
    double memory = known ? m.level[MACHINE_LEVELS - 1].read_all : 0;
    if (!(memory > 0) && compared) /* which the backend does not change */
        memory = widest.level[MACHINE_LEVELS - 1].read_all;
    bool narrow = s->config->train.precision == PRECISION_BF16;
    const struct sleep_rates *sleep = s->request.sleep;
    double peak = sleep ? sleep->flops_per_s : s->record->peak_flops;
    *out = (struct record_about){
        .mesh = &s->mesh, .part = part, .layout = s->layout_text, .host = names->host,
        .backend = s->engine.backend.name, .processor = names->processor,
        .precision = narrow ? "bf16" : "fp32", .pid = sys_process_id(),
        .threads = pool_threads(s->engine.pool), .cores = sys_cpu_count(),
        .sharers = s->core_sharers,
        .flops_f32 = narrow ? (known ? m.f32_all : 0) : peak,
        .flops_bf16 = narrow ? peak : known ? m.bf16_all : 0,
        .widest = compared ? backend_best() : NULL,
        .widest_f32 = widest.f32_all, .widest_bf16 = widest.bf16_all,
        .memory_bytes_per_s = sleep ? sleep->memory_bytes_per_s : memory,
        .launch_s = known && !sleep ? 1e-9 * m.launch_ns : 0,
        .begin_ns = s->opened_ns, .wall_begin = s->opened_wall,
    };
}

static void add_table(struct session *s, const struct step_program *p, const char *name,
                      struct json *j)
{
    struct session_record *r = s->record;
    record_put_table(j, name, p->program, p->shape.B, p->shape.T);
    r->tables[r->n_tables++] = p->program;
    add_preamble(r, RECORD_TABLE, j);
}

static void write_preamble(struct session *s, i64 part)
{
    struct record_about about;
    struct names names;
    struct json j;
    json_writer_init(&j);
    describe(s, part, &names, &about);
    record_put_head(&j, &about);
    add_preamble(s->record, RECORD_HEAD, &j);
    for (int i = 0; i < s->n_steps; i++)
        add_table(s, &s->steps[i], "step", &j);
    if (s->outer.program)
        add_table(s, &s->outer, "outer step", &j);
    json_writer_fini(&j);
}

/* Files that are too small for what each begins with become larger than was asked. */
static void warn_of_room(const struct session *s)
{
    const i64 asked = s->config->trace.disk;
    const i64 tasks = s->n_steps > 0 ? s->steps[0].program->n_tasks : 0;
    const i64 chunk = i64_min(STAGED, 2 * tasks) * (i64)sizeof(struct span);
    const i64 least = record_writer_least_bytes(s->record->writer, chunk);
    if (asked < least)
        log_line(LOG_WARN, "trace.disk=%lld is less than this run's record needs and may be "
                 "exceeded; give %lldKiB or more, or 0 to record nothing",
                 (long long)asked, (long long)ceil_div(least, 1024));
}

static int open_writer(struct session *s, i64 part)
{
    struct session_record *r = s->record;
    char folder[2200];
    snprintf(folder, sizeof folder, "%s/trace", s->folder.path);
    if (sys_mkdirs(folder) != 0)
        return err_set(ERR_SYS, "cannot make %s; trace.disk=0 records nothing", folder);
    TRY(record_writer_new(&r->writer, folder, (int)s->mesh.rank, s->config->trace.disk));
    write_preamble(s, part);
    struct record_clock clock = { .at_ns = sys_now_ns() };
    TRY(clock_shift(&s->mesh, &clock.shift_ns));
    record_writer_preamble(r->writer, RECORD_CLOCK, &clock, (i64)sizeof clock);
    record_writer_go(r->writer);
    warn_of_room(s);
    return OK;
}

static const char *end_path(struct session *s)
{
    return arena_printf(&s->arena, "%s/trace/rank-%d.end", s->folder.path, (int)s->mesh.rank);
}

void session_record_end(struct session *s, int rc, const char *why)
{
    struct json j;
    bool told = rc == ERR_HANG || rc == ERR_PEER || (s->mesh.world && rc == ERR_INTERNAL);
    if (!s->record || !told)
        return;
    json_writer_init(&j);
    json_begin_object(&j);
    json_put_int(&j, "exit", err_exit_code(rc));
    json_put_int(&j, "step", s->state.step);
    json_put_int(&j, "absent", comm_absent_in(why));
    json_put_str(&j, "why", why);
    json_end(&j);
    if (file_replace(end_path(s), j.out.data, j.out.length) < 0)
        log_line(LOG_WARN, "why the run ends cannot be kept in its folder: %s", err_message());
    json_writer_fini(&j);
}

int session_open_record(struct session *s)
{
    struct {
        i64 part;
        double peak; /* as the leading rank has measured it */
    } told = { (i64)(1e9 * sys_wall_seconds()), s->request.hooks.peak_flops };
    if (s->config->trace.level == TRACE_OFF || s->config->trace.disk == 0)
        return OK;
    TRY(mesh_tell(&s->mesh, &told, sizeof told));
    s->record = ARENA_NEW(&s->arena, struct session_record);
    s->record->staged = ARENA_ARRAY(&s->arena, struct span, STAGED);
    s->record->step = s->record->keep_until = -1;
    TRY(session_open_sampler(s));
    s->record->peak_flops = told.peak;
    TRY(open_writer(s, told.part));
    sys_unlink(end_path(s)); /* of an earlier start */
    s->record->last[0].head.end_ns = sys_now_ns(); /* before it is the start */
    s->record->clock_asked = s->clock;
    return OK;
}

/* --- a step ------------------------------------------------------------------------- */

static void put_staged(struct session_record *r, const struct record_spans *head, u32 n, bool more,
                       int where)
{
    struct record_spans h = *head;
    h.n = n;
    if (more)
        h.flags &= ~(u32)RECORD_FIRST;
    record_writer_put(r->writer, where, RECORD_SPANS, &h, (i64)sizeof h, r->staged,
                      (i64)n * (i64)sizeof *r->staged);
}

static void put_spans(struct session *s, struct taken *t, int where)
{
    struct session_record *r = s->record;
    u32 n = 0;
    bool more = false;
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        const struct trace_ring *ring = &s->engine.trace.lanes[lane];
        u64 from = t->from[lane];
        if (t->to[lane] > from + ring->capacity || trace_written(ring) > from + ring->capacity)
            t->head.flags |= RECORD_LOST;
        while (from < t->to[lane] && trace_written(ring) > from + ring->capacity)
            from++;
        for (; from < t->to[lane]; from++) {
            if (n == STAGED) {
                put_staged(r, &t->head, n, more, where);
                more = true;
                n = 0;
            }
            r->staged[n++] = ring->spans[from & (ring->capacity - 1)];
        }
    }
    put_staged(r, &t->head, n, more, where);
}

static int table_of(const struct session_record *r, const struct program *p)
{
    int i = 0;
    while (i + 1 < r->n_tables && r->tables[i] != p)
        i++;
    return i;
}

/* Shifts the history by one. */
static struct taken *take(struct session *s, i64 step, const struct program *p)
{
    struct session_record *r = s->record;
    memmove(&r->last[1], &r->last[0], AROUND * sizeof r->last[0]);
    const struct taken *before = &r->last[1];
    struct taken *t = &r->last[0];
    *t = (struct taken){ .head = { .step = (u32)step, .table = (u32)table_of(r, p),
                                   .flags = step != r->step ? RECORD_FIRST : 0,
                                   .begin_ns = before->head.end_ns, .end_ns = sys_now_ns() } };
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        u64 written = trace_written(&s->engine.trace.lanes[lane]);
        t->from[lane] = written < before->to[lane] ? 0 : before->to[lane]; /* it was forgotten */
        t->to[lane] = written;
    }
    r->step = step;
    return t;
}

static int by_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *v, i64 n)
{
    qsort(v, (size_t)n, sizeof *v, by_seconds);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Beyond so many robust deviations of the steps before; 1.4826 MAD is a normal's deviation. */
static bool is_slow(struct session_record *r, double seconds, double deviations)
{
    double sorted[TIMED];
    i64 n = i64_min(r->timed, TIMED);
    memcpy(sorted, r->seconds, (size_t)n * sizeof *sorted);
    r->seconds[r->timed++ % TIMED] = seconds;
    if (n < TIMED_LEAST || deviations == 0)
        return false;
    double median = median_of(sorted, n);
    for (i64 i = 0; i < n; i++)
        sorted[i] = fabs(sorted[i] - median);
    double deviation = 1.4826 * median_of(sorted, n);
    return seconds > median + deviations * deviation && seconds > 1.25 * median;
}

static void tell_trigger(struct session *s, i64 step, const char *why)
{
    char text[256];
    if (!session_leads(s))
        return;
    int n = snprintf(text, sizeof text, "{\"step\":%lld,\"rank\":%lld,\"kind\":\"%s\",\"text\":"
                     "\"%s; it took %.3f s\"}", (long long)step, (long long)s->mesh.rank, why, why,
                     s->step_s);
    record_writer_put(s->record->writer, RECORD_IN_NEWEST | RECORD_IN_KEPT, RECORD_EVENT, text, n,
                      NULL, 0);
}

/* The steps before that are not kept yet, oldest first. */
static void keep_before(struct session *s)
{
    struct session_record *r = s->record;
    for (int i = AROUND; i > 0; i--) {
        struct taken *t = &r->last[i];
        if (!t->kept && t->head.end_ns > t->head.begin_ns && t->to[0] > t->from[0])
            put_spans(s, t, RECORD_IN_KEPT);
        t->kept = true;
    }
}

/* All ranks together: they agree on the run's seconds. */
static void put_clock(struct session *s)
{
    struct session_record *r = s->record;
    struct record_clock clock = { 0 };
    if (s->clock < r->clock_asked + clock_every_s)
        return;
    r->clock_asked = s->clock;
    if (clock_shift(&s->mesh, &clock.shift_ns) < 0)
        return; /* a rank is gone: the next step says so */
    clock.at_ns = sys_now_ns();
    record_writer_put(r->writer, RECORD_IN_NEWEST, RECORD_CLOCK, &clock, (i64)sizeof clock, NULL,
                      0);
}

void session_record_step(struct session *s, i64 step, const struct program *p,
                         const char *trigger)
{
    struct session_record *r = s->record;
    if (!r)
        return;
    bool again = step == r->step;
    if (!again)
        put_clock(s);
    struct taken *t = take(s, step, p);
    if (!again && !trigger && is_slow(r, s->step_s, s->config->trace.slow))
        trigger = "a slow step";
    if (trigger) {
        keep_before(s);
        tell_trigger(s, step, trigger);
        r->keep_until = step + AROUND;
    }
    t->kept = step <= r->keep_until;
    int where = RECORD_IN_NEWEST | (t->kept ? RECORD_IN_KEPT : 0);
    struct sample sample;
    put_spans(s, t, where);
    if (!again && session_sample(s, step, &sample))
        record_writer_put(r->writer, where, RECORD_SAMPLE, &sample, (i64)sizeof sample, NULL, 0);
    record_writer_go(r->writer);
    const char *error = record_writer_error(r->writer);
    if (error && !r->told)
        log_line(LOG_WARN, "%s: no more spans are recorded; the run goes on", error);
    r->told = error != NULL;
}

void session_close_record(struct session *s)
{
    struct session_record *r = s->record;
    if (!r)
        return;
    if (r->writer && r->step >= 0)
        session_record_step(s, r->step, r->tables[r->last[0].head.table], NULL);
    if (r->writer && record_writer_dropped(r->writer) > 0)
        log_line(LOG_WARN, "the disk was too slow for %lld chunks of spans, which are not recorded",
                 (long long)record_writer_dropped(r->writer));
    record_writer_free(r->writer);
    session_close_sampler(s);
    s->record = NULL;
}
