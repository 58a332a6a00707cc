#include "report/trace_export.h"

#include "base/json.h"
#include "base/sys.h"
#include "trace/perfetto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TRACKS = 64, FLUSH_BYTES = 1 << 20 };

/* --- a file ------------------------------------------------------------------------- */

struct sink {
    int fd;
    const char *path;
    char temporary[4200]; /* what is written until all is; "" where path is a device or a pipe */
    struct text out;
    struct json json; /* of one event, reused */
    struct perfetto perfetto; /* into out */
    bool any;         /* an event was written: the next stands behind a comma */
    i64 bytes;
    i64 correlation;  /* of the last kernel, for HTA */
};

static int sink_open(struct sink *s, const char *path)
{
    *s = (struct sink){ .path = path };
    s->perfetto.out = &s->out;
    json_writer_init(&s->json);
    if (!sys_is_channel(path) && snprintf(s->temporary, sizeof s->temporary, "%s.tmp", path) >=
                                     (int)sizeof s->temporary) {
        s->fd = -1;
        return err_set(ERR_CONFIG, "write %.100s...: the path is too long", path);
    }
    if (s->temporary[0])
        sys_discard_on_signal(s->temporary);
    s->fd = sys_open(s->temporary[0] ? s->temporary : path,
                     O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return s->fd < 0 ? err_set(ERR_SYS, "open %s: %s", path, strerror(errno)) : OK;
}

static int sink_flush(struct sink *s, i64 least)
{
    if (s->out.length < least)
        return OK;
    if (sys_write_full(s->fd, s->out.data, s->out.length) != 0)
        return err_set(ERR_SYS, "write %s: %s", s->path, strerror(errno));
    s->bytes += s->out.length;
    text_clear(&s->out);
    return OK;
}

static int sink_close(struct sink *s, int rc)
{
    if (s->fd >= 0 && sys_close(s->fd) != 0 && rc == OK)
        rc = err_set(ERR_SYS, "close %s: %s", s->path, strerror(errno));
    if (s->fd >= 0 && s->temporary[0] && rc == OK && sys_rename(s->temporary, s->path) != 0)
        rc = err_set(ERR_SYS, "write %s: %s", s->path, strerror(errno));
    if (s->fd >= 0 && s->temporary[0] && rc < 0)
        sys_unlink(s->temporary);
    sys_discard_on_signal(NULL);
    json_writer_fini(&s->json);
    text_fini(&s->out);
    perfetto_fini(&s->perfetto);
    return rc;
}

/* --- names -------------------------------------------------------------------------- */

static bool sends(const struct record_span *s)
{
    return s->kind == SPAN_CALL && s->task && s->task->lane != LANE_AWAY;
}

static void name_span(const struct record_span *s, bool hta, char out[160])
{
    const struct record_task *t = s->task;
    char layer[32] = "";
    if (t && t->layer >= 0)
        snprintf(layer, sizeof layer, ", layer %d", t->layer);
    if (s->kind == SPAN_STEP)
        snprintf(out, 160, "ProfilerStep#%u", s->step); /* what HTA looks for */
    else if (!t)
        snprintf(out, 160, "%s", trace_kind_name(s->kind));
    else if (s->kind == SPAN_WAIT)
        snprintf(out, 160, "wait for %s: %s%s", trace_lane_name((int)s->detail), t->op, layer);
    else
        snprintf(out, 160, "%s%s%s%s", hta && sends(s) ? "ncclKernel_" : "", t->op,
                 t->flags & RECORD_RECOMPUTE ? " (again)" : "", layer);
}

/* --- tracks ------------------------------------------------------------------------- */

/* Of one rank: until when each track of each lane is taken, over all steps. */
struct tracks {
    i64 until[TRACE_LANES][MOST_TRACKS];
    int told[TRACE_LANES]; /* tracks whose names were written */
};

/* The first that is free. Spans of the first lanes nest, so those need one; loads overlap. */
static int track_of(struct tracks *t, const struct record_span *s)
{
    int k = 0;
    if (s->lane < TRACE_CALLS && s->lane != TRACE_LOADER)
        return 0;
    while (k < MOST_TRACKS - 1 && t->until[s->lane][k] > s->begin_ns)
        k++;
    t->until[s->lane][k] = i64_max(t->until[s->lane][k], s->end_ns);
    return k;
}

static i64 track_id(int lane, int track)
{
    return lane + TRACE_LANES * track;
}

static void track_name(int lane, int track, char out[32])
{
    if (track == 0)
        snprintf(out, 32, "%s", trace_lane_name(lane));
    else
        snprintf(out, 32, "%s %d", trace_lane_name(lane), track + 1);
}

/* --- Chrome ------------------------------------------------------------------------- */

static void begin_event(struct sink *s, const char *ph, const char *name, int rank, i64 tid)
{
    struct json *j = &s->json;
    json_writer_clear(j);
    json_begin_object(j);
    json_put_str(j, "ph", ph);
    json_put_str(j, "name", name);
    json_put_int(j, "pid", rank);
    json_put_int(j, "tid", tid);
}

static void end_event(struct sink *s)
{
    json_end(&s->json);
    text_add(&s->out, s->any ? ",\n" : "\n");
    text_add_bytes(&s->out, s->json.out.data, s->json.out.length);
    s->any = true;
}

/* HTA cuts each end to whole microseconds, inwards, and tasks of some microseconds lose a tenth:
 * rounded here, one task ends where the next one begins. */
static i64 rounded_us(i64 ns)
{
    return (ns + 500) / 1000;
}

static void put_times(struct json *j, i64 begin_ns, i64 end_ns, bool hta)
{
    char text[40];
    const i64 times[] = { begin_ns, end_ns - begin_ns };
    static const char *const keys[] = { "ts", "dur" };
    if (hta) {
        json_put_int(j, keys[0], rounded_us(begin_ns));
        json_put_int(j, keys[1], rounded_us(end_ns) - rounded_us(begin_ns));
        return;
    }
    for (int i = 0; i < 2; i++) { /* in microseconds, to the nanosecond */
        i64 ns = llabs(times[i]);
        snprintf(text, sizeof text, "%s%lld.%03lld", times[i] < 0 ? "-" : "",
                 (long long)(ns / 1000), (long long)(ns % 1000));
        json_key(j, keys[i]);
        json_literal(j, text);
    }
}

static void chrome_name(struct sink *s, const char *what, int rank, i64 tid, const char *name)
{
    struct json *j = &s->json;
    begin_event(s, "M", what, rank, tid);
    json_key(j, "args");
    json_begin_object(j);
    json_put_str(j, "name", name);
    json_end(j);
    end_event(s);
}

static void put_call(struct json *j, const struct record_rank *k, const struct record_span *s)
{
    const struct record_task *t = s->task;
    const struct record_group *g = &k->head->groups[t->lane];
    json_put_str(j, "axis", trace_lane_name(s->lane));
    if (t->moved >= 0)
        json_put_str(j, "tensor", k->table->tensors[t->moved].name);
    json_put_int(j, "bytes", (i64)t->message_bytes);
    json_put_str(j, "Collective name", t->op);
    json_put_str(j, "dtype", dtype_name((enum dtype)t->dtype));
    json_put_int(j, "Group size", t->boundary >= 0 ? 2 : g->n);
}

/* HTA keeps numbers of events where these were, in as few bytes as these had: two would not do. */
enum { FIRST_CORRELATION = 1 << 24 };

/* A kernel needs its launch on the host for HTA to know which step it is of. */
static void hta_launch(struct sink *s, int rank, const struct record_span *span)
{
    struct json *j = &s->json;
    begin_event(s, "X", "cudaLaunchKernel", rank, 1);
    json_put_str(j, "cat", "cuda_runtime");
    put_times(j, span->begin_ns, span->begin_ns, true);
    json_key(j, "args");
    json_begin_object(j);
    json_put_int(j, "correlation", FIRST_CORRELATION + ++s->correlation);
    json_end(j);
    end_event(s);
}

static void chrome_span(struct sink *s, const struct record_rank *k, const struct record_span *span,
                        int track, bool hta)
{
    struct json *j = &s->json;
    char name[160];
    const bool kernel = span->kind == SPAN_TASK || span->kind == SPAN_CALL;
    const int rank = k->head->rank;
    i64 tid = hta && !kernel ? 1 : track_id(span->lane, track);
    static const char *const categories[] = { "kernel", "communication", "wait" };
    name_span(span, hta, name);
    if (hta && kernel)
        hta_launch(s, rank, span);
    begin_event(s, "X", name, rank, hta && kernel ? 100 + tid : tid);
    json_put_str(j, "cat", hta && kernel ? "kernel" : span_has_task(span->kind)
                               ? categories[span->kind] : "user_annotation");
    put_times(j, span->begin_ns, span->end_ns, hta);
    json_key(j, "args");
    json_begin_object(j);
    if (!hta)
        json_put_int(j, "step", span->step);
    if (hta && kernel) {
        json_put_int(j, "stream", 100 + tid);
        json_put_int(j, "correlation", FIRST_CORRELATION + s->correlation);
    }
    if (span->task && !hta) {
        json_put_int(j, "action", span->action);
        json_put_int(j, "task", span->task_id);
    }
    if (span->kind == SPAN_TASK)
        json_put_double(j, "flops", span->task->flops);
    if (sends(span))
        put_call(j, k, span);
    if (span->kind == SPAN_WAIT)
        json_put_str(j, "for", trace_lane_name((int)span->detail));
    json_end(j);
    end_event(s);
}

/* HTA finds the rank by the expression "rank":\s+(\d+) on an early line. */
static void chrome_head(struct sink *s, const struct record_head *h, int rank)
{
    text_printf(&s->out, "{\"schemaVersion\": 1,\n\"distributedInfo\": {\"backend\": \"headway\", "
                "\"rank\": %d, \"world_size\": %d},\n\"displayTimeUnit\": \"ms\",\n"
                "\"baseTimeNanoseconds\": %lld,\n\"traceEvents\": [", rank, h->ranks,
                (long long)(1e9 * h->wall_begin));
}

/* --- steps -------------------------------------------------------------------------- */

struct export {
    struct trace_export *how;
    struct sink *sinks;     /* one, or one per rank */
    int n_sinks;
    struct tracks **tracks; /* [ranks] */
    int ranks;
    i64 zero_ns;            /* of the run's clock: times are not negative */
};

static struct sink *sink_of(struct export *x, int rank)
{
    return &x->sinks[x->n_sinks > 1 || x->how->to == TRACE_TO_HTA ? rank % x->n_sinks : 0];
}

static int by_begin(const void *a, const void *b)
{
    const struct record_span *x = a, *y = b;
    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    if (x->begin_ns != y->begin_ns)
        return x->begin_ns < y->begin_ns ? -1 : 1;
    return (x->end_ns < y->end_ns) - (x->end_ns > y->end_ns);
}

static void name_track(struct export *x, struct sink *s, int rank, int lane, int track)
{
    struct tracks *t = x->tracks[rank];
    char name[32];
    for (; t->told[lane] <= track; t->told[lane]++) {
        i64 id = track_id(lane, t->told[lane]);
        track_name(lane, t->told[lane], name);
        if (x->how->to == TRACE_TO_PERFETTO)
            perfetto_name_track(&s->perfetto, rank, id, name);
        else
            chrome_name(s, "thread_name", rank, x->how->to == TRACE_TO_HTA ? 100 + id : id, name);
    }
}

static void name_rank(struct export *x, struct sink *s, int rank)
{
    char name[32];
    snprintf(name, sizeof name, "rank %d", rank);
    if (x->how->to == TRACE_TO_PERFETTO)
        perfetto_name_rank(&s->perfetto, rank, name);
    else
        chrome_name(s, "process_name", rank, 0, name);
}

/* The same for every member of a group's k-th call of a step. */
static u64 flow_of(const struct record_rank *k, const struct record_span *s, i64 step, i64 number)
{
    const struct record_task *t = s->task;
    const struct record_group *g = t->boundary >= 0 && t->boundary < k->head->n_boundaries
                                       ? &k->head->boundaries[t->boundary]
                                       : &k->head->groups[t->lane];
    if (g->n < 2)
        return 0;
    u64 way = t->boundary >= 0 ? 2 * (u64)t->boundary + ((t->flags & RECORD_UP) != 0) + 1 : 0;
    u64 parts[] = { (u64)step, (u64)t->lane, (u64)g->ranks[0], way, (u64)number };
    u64 h = 0;
    for (i64 i = 0; i < COUNT_OF(parts); i++)
        h = (h ^ parts[i]) * 0x9e3779b97f4a7c15u + (h >> 29); /* Fibonacci hashing */
    return h | 1;
}

enum { MOST_WAYS = 256 };

static void put_span(struct export *x, struct sink *s, const struct record_rank *k,
                     const struct record_span *span, i64 step, i64 numbers[MOST_WAYS])
{
    int rank = k->head->rank, track = track_of(x->tracks[rank], span);
    char name[160];
    struct record_span moved = *span;
    moved.begin_ns = i64_max(0, moved.begin_ns - x->zero_ns);
    moved.end_ns = i64_max(moved.begin_ns, moved.end_ns - x->zero_ns);
    name_track(x, s, rank, span->lane, track);
    if (x->how->to != TRACE_TO_PERFETTO) {
        chrome_span(s, k, &moved, track, x->how->to == TRACE_TO_HTA);
        return;
    }
    static const char *const categories[] = { "compute", "communication", "wait" };
    u64 flow = 0;
    if (sends(span)) {
        i64 way = span->task->boundary >= 0
                      ? LANE_COUNT + 2 * (i64)span->task->boundary +
                            ((span->task->flags & RECORD_UP) != 0)
                      : span->task->lane;
        flow = flow_of(k, span, step, numbers[way % MOST_WAYS]++);
    }
    name_span(span, false, name);
    i64 id = track_id(span->lane, track);
    perfetto_begin(&s->perfetto, rank, id, (u64)moved.begin_ns, name,
                   span->task ? categories[span->kind] : "host", flow);
    perfetto_end(&s->perfetto, rank, id, (u64)moved.end_ns);
}

static int put_rank(struct export *x, const struct record_step *step, int rank)
{
    const struct record_rank *k = &step->ranks[rank];
    struct sink *s = sink_of(x, rank);
    i64 numbers[MOST_WAYS] = { 0 }, n = k->n_spans + k->n_outer;
    struct record_span *spans = ARENA_ARRAY(step->arena, struct record_span, n);
    if (k->n_spans > 0)
        memcpy(spans, k->spans, (size_t)k->n_spans * sizeof *spans);
    if (k->n_outer > 0)
        memcpy(spans + k->n_spans, k->outer, (size_t)k->n_outer * sizeof *spans);
    qsort(spans, (size_t)n, sizeof *spans, by_begin);
    if (!x->tracks[rank]) {
        x->tracks[rank] = sys_alloc((i64)sizeof **x->tracks, 16);
        if (!x->tracks[rank])
            return err_set(ERR_LIMIT, "no memory for the tracks of rank %d", rank);
        memset(x->tracks[rank], 0, sizeof **x->tracks);
        name_rank(x, s, rank);
    }
    for (i64 i = 0; i < n; i++)
        put_span(x, s, k, &spans[i], step->step, numbers);
    return sink_flush(s, FLUSH_BYTES);
}

static int put_steps(struct export *x, struct record *r)
{
    struct record_step step = { 0 };
    struct trace_export *e = x->how;
    int rc = OK;
    for (i64 i = 0; i < r->n_steps && rc >= 0; i++) {
        if (r->steps[i] < e->first || r->steps[i] > e->last)
            continue;
        if (record_step(r, r->steps[i], &step) < 0) {
            e->damaged++;
            continue;
        }
        if (e->steps++ == 0 && step.begin_ns < 0)
            x->zero_ns = step.begin_ns;
        for (int k = 0; k < step.n_ranks && k < x->ranks && rc >= 0; k++)
            if (step.ranks[k].head)
                rc = put_rank(x, &step, k);
    }
    record_step_free(&step);
    return rc;
}

static int open_sinks(struct export *x, const struct record *r, struct arena *a)
{
    const struct trace_export *e = x->how;
    const bool hta = e->to == TRACE_TO_HTA;
    x->n_sinks = hta ? x->ranks : 1;
    x->sinks = ARENA_ARRAY(a, struct sink, x->n_sinks);
    for (int i = 0; i < x->n_sinks; i++)
        x->sinks[i].fd = -1;
    if (hta && sys_mkdirs(e->path) != 0)
        return err_set(ERR_SYS, "make %s: %s", e->path, strerror(errno));
    for (int i = 0; i < x->n_sinks; i++) {
        const struct record_head *h = NULL;
        for (int p = r->n_parts - 1; p >= 0 && !h; p--)
            for (int k = 0; k < r->parts[p].ranks && !h; k++)
                h = r->parts[p].heads[k];
        TRY(sink_open(&x->sinks[i],
                      hta ? arena_printf(a, "%s/rank-%d.json", e->path, i) : e->path));
        if (e->to != TRACE_TO_PERFETTO)
            chrome_head(&x->sinks[i], h, i);
    }
    return OK;
}

static int close_sinks(struct export *x, int rc)
{
    for (int i = 0; i < x->n_sinks; i++) {
        struct sink *s = &x->sinks[i];
        if (rc == OK && x->how->to != TRACE_TO_PERFETTO)
            text_add(&s->out, "]}\n");
        if (rc == OK)
            rc = sink_flush(s, 1);
        x->how->bytes += s->bytes;
        rc = sink_close(s, rc);
    }
    for (int i = 0; i < x->ranks; i++)
        sys_free(x->tracks[i]);
    return rc;
}

/* OK where some step is sound: before anything is written. */
static int check_steps(struct record *r, const struct trace_export *e)
{
    struct record_step step = { 0 };
    i64 n = 0;
    int rc = ERR_FORMAT;
    for (i64 i = 0; i < r->n_steps && rc < 0; i++) {
        if (r->steps[i] < e->first || r->steps[i] > e->last)
            continue;
        rc = record_step(r, r->steps[i], &step);
        n++;
    }
    record_step_free(&step);
    if (n == 0)
        return err_set(ERR_CONFIG, "none of these steps is recorded; %s",
                       r->n_steps > 0 ? "`headway trace info` says which are" : "there are none");
    return rc < 0 ? err_context(rc, "none of these %lld steps can be read", (long long)n) : OK;
}

int trace_export(struct record *r, struct trace_export *e)
{
    struct export x = { .how = e };
    struct arena a;
    e->steps = e->damaged = e->bytes = 0;
    TRY(check_steps(r, e));
    arena_init(&a);
    for (int p = 0; p < r->n_parts; p++)
        x.ranks = r->parts[p].ranks > x.ranks ? r->parts[p].ranks : x.ranks;
    x.tracks = ARENA_ARRAY(&a, struct tracks *, x.ranks);
    int rc = open_sinks(&x, r, &a);
    if (rc == OK)
        rc = put_steps(&x, r);
    rc = close_sinks(&x, rc);
    arena_fini(&a);
    return rc;
}
