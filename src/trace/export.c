#include "trace/export.h"

#include "base/json.h"
#include "trace/perfetto.h"

#include <stdio.h>
#include <string.h>

/* The first step to export: `steps` before the newest that was computed. The loader's lane
 * does not count: it is some steps ahead. */
static u32 first_step(const struct trace *t, u32 steps)
{
    static const enum trace_lane lanes[] = { TRACE_COMPUTE, TRACE_HOST };
    u32 newest = 0;
    for (i64 lane = 0; lane < COUNT_OF(lanes); lane++) {
        const struct trace_ring *r = &t->lanes[lanes[lane]];
        for (u64 i = 0; i < r->written && i < r->capacity; i++)
            newest = r->spans[i].step > newest ? r->spans[i].step : newest;
    }
    return newest + 1 > steps ? newest + 1 - steps : 0;
}

static void label_of(const struct span *s, const struct trace_names *names,
                     struct trace_label *out)
{
    struct trace_label task = { .name = "" };
    if (span_has_task(s->kind))
        names->task(names->context, s, &task);
    *out = task;
    if (s->kind == SPAN_STEP)
        snprintf(out->name, sizeof out->name, "ProfilerStep#%u", s->step); /* what HTA looks for */
    else if (s->kind == SPAN_WAIT)
        snprintf(out->name, sizeof out->name, "wait for %s: %.120s",
                 trace_lane_name((int)s->detail), task.name);
    else if (!span_has_task(s->kind))
        snprintf(out->name, sizeof out->name, "%s", trace_kind_name(s->kind));
}

/* --- tracks ------------------------------------------------------------------------- */

enum { MOST_TRACKS = 64 };

/* Of one lane: until when each of its tracks is taken. */
struct tracks {
    u64 until[MOST_TRACKS];
    int n;
};

static int track_of(struct tracks *t, const struct span *s)
{
    int k = 0;
    if (s->lane < TRACE_CALLS) /* these nest as they are */
        return 0;
    while (k < MOST_TRACKS - 1 && t->until[k] > s->begin_ns)
        k++;
    t->until[k] = s->end_ns;
    t->n = k + 1 > t->n ? k + 1 : t->n;
    return k;
}

/* The same for a span's own lane on every rank. */
static int track_id(int lane, int track)
{
    return lane + TRACE_LANES * track;
}

typedef void (*span_fn)(void *context, const struct span *s, int track);

/* Calls fn for the spans to export, lane by lane, oldest first, each with its track of the lane's;
 * NULL: none. Tells how many tracks each lane has. */
static void each_span(const struct trace *t, u32 steps, span_fn fn, void *context,
                      int tracks_of[TRACE_LANES])
{
    u32 from = first_step(t, steps);
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        const struct trace_ring *r = &t->lanes[lane];
        struct tracks tracks = { .n = lane < TRACE_CALLS };
        u64 begin = r->written > r->capacity ? r->written - r->capacity : 0;
        for (u64 i = begin; i < r->written; i++) {
            const struct span *s = &r->spans[i & (r->capacity - 1)];
            if (s->step < from)
                continue;
            int track = track_of(&tracks, s);
            if (fn)
                fn(context, s, track);
        }
        tracks_of[lane] = tracks.n;
    }
}

static void track_name(int lane, int track, char out[32])
{
    if (track == 0)
        snprintf(out, 32, "%s", trace_lane_name(lane));
    else
        snprintf(out, 32, "%s %d", trace_lane_name(lane), track + 1);
}

static u64 common_ns(const struct trace_names *names, u64 ns)
{
    return (u64)((i64)ns + names->shift_ns);
}

/* --- Chrome ------------------------------------------------------------------------- */

struct chrome {
    struct json json;
    const struct trace_names *names;
};

static const char *category(const struct span *s)
{
    return s->kind == SPAN_TASK ? "kernel"
           : s->kind == SPAN_CALL ? "communication"
           : s->kind == SPAN_WAIT ? "wait" : "user_annotation";
}

static void chrome_begin(struct chrome *c, const char *ph, const char *name, int track)
{
    struct json *j = &c->json;
    text_add(&j->out, "\n");
    json_begin_object(j);
    json_put_str(j, "ph", ph);
    json_put_str(j, "name", name);
    json_put_int(j, "pid", c->names->rank);
    json_put_int(j, "tid", track);
}

static void chrome_span(void *context, const struct span *s, int track)
{
    struct chrome *c = context;
    struct json *j = &c->json;
    struct trace_label label;
    label_of(s, c->names, &label);
    chrome_begin(c, "X", label.name, track_id(s->lane, track));
    json_put_str(j, "cat", category(s));
    json_put_double(j, "ts", 1e-3 * (double)common_ns(c->names, s->begin_ns));
    json_put_double(j, "dur", 1e-3 * (double)(s->end_ns - s->begin_ns));
    json_key(j, "args");
    json_begin_object(j);
    json_put_int(j, "step", s->step);
    if (span_has_task(s->kind)) {
        json_put_int(j, "action", s->action);
        json_put_int(j, "task", s->task);
        json_put_int(j, "stream", track_id(s->lane, track));
    }
    if (s->kind == SPAN_CALL) {
        json_put_str(j, "axis", trace_lane_name(s->lane));
        json_put_str(j, "tensor", label.tensor ? label.tensor : "");
        json_put_int(j, "bytes", (i64)label.bytes);
    }
    if (s->kind == SPAN_WAIT)
        json_put_str(j, "for", trace_lane_name((int)s->detail));
    json_end(j);
    json_end(j);
}

static void chrome_name(struct chrome *c, const char *what, int track, const char *name)
{
    struct json *j = &c->json;
    chrome_begin(c, "M", what, track);
    json_key(j, "args");
    json_begin_object(j);
    json_put_str(j, "name", name);
    json_end(j);
    json_end(j);
}

static void chrome_part(const struct trace *t, u32 steps, const struct trace_names *names,
                        struct text *out)
{
    struct chrome c = { .names = names };
    int tracks[TRACE_LANES];
    char name[32];
    json_writer_init(&c.json);
    json_begin_array(&c.json);
    snprintf(name, sizeof name, "rank %d", names->rank);
    chrome_name(&c, "process_name", 0, name);
    each_span(t, steps, NULL, NULL, tracks);
    for (int lane = 0; lane < TRACE_LANES; lane++)
        for (int k = 0; k < tracks[lane]; k++) {
            track_name(lane, k, name);
            chrome_name(&c, "thread_name", track_id(lane, k), name);
        }
    each_span(t, steps, chrome_span, &c, tracks);
    json_end(&c.json);
    text_add_bytes(out, c.json.out.data + 1, c.json.out.length - 2); /* without the brackets */
    json_writer_fini(&c.json);
}

/* HTA finds the rank by the expression "rank":\s+(\d+) on an early line. */
static void chrome_head(int rank, int ranks, struct text *out)
{
    text_printf(out, "{\"schemaVersion\": 1,\n\"distributedInfo\": {\"backend\": \"headway\", "
                "\"rank\": %d, \"world_size\": %d},\n\"displayTimeUnit\": \"ms\",\n"
                "\"traceEvents\": [", rank, ranks);
}

/* --- Perfetto ----------------------------------------------------------------------- */

struct perfetto_rank {
    const struct trace_names *names;
    struct perfetto out;
};

static void perfetto_span(void *context, const struct span *s, int k)
{
    struct perfetto_rank *p = context;
    struct trace_label label;
    const int rank = p->names->rank, track = track_id(s->lane, k);
    label_of(s, p->names, &label);
    perfetto_begin(&p->out, rank, track, common_ns(p->names, s->begin_ns), label.name, NULL, 0);
    perfetto_end(&p->out, rank, track, common_ns(p->names, s->end_ns));
}

static void perfetto_part(const struct trace *t, u32 steps, const struct trace_names *names,
                          struct text *out)
{
    struct perfetto_rank p = { .names = names, .out.out = out };
    int tracks[TRACE_LANES];
    char name[32];
    snprintf(name, sizeof name, "rank %d", names->rank);
    perfetto_name_rank(&p.out, names->rank, name);
    each_span(t, steps, NULL, NULL, tracks);
    for (int lane = 0; lane < TRACE_LANES; lane++)
        for (int k = 0; k < tracks[lane]; k++) {
            track_name(lane, k, name);
            perfetto_name_track(&p.out, names->rank, track_id(lane, k), name);
        }
    each_span(t, steps, perfetto_span, &p, tracks);
    perfetto_fini(&p.out);
}

static void perfetto_head(int rank, int ranks, struct text *out)
{
    (void)rank, (void)ranks, (void)out; /* packets follow each other, without a frame */
}

const struct trace_format trace_formats[] = {
    { "trace.json", chrome_head, chrome_part, ",", "]}\n" },
    { "trace.pftrace", perfetto_head, perfetto_part, "", "" },
};
