#include "trace/export.h"

#include "base/json.h"

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

static void name_of(const struct span *s, const struct trace_names *names, char *out, i64 size)
{
    if (s->kind == SPAN_TASK)
        names->task(names->context, s, out, size);
    else if (s->kind == SPAN_STEP)
        snprintf(out, (size_t)size, "ProfilerStep#%u", s->step); /* what HTA looks for */
    else
        snprintf(out, (size_t)size, "%s", trace_kind_name(s->kind));
}

typedef void (*span_fn)(void *context, const struct span *s);

/* Calls fn for the spans to export, lane by lane, oldest first. */
static void each_span(const struct trace *t, u32 steps, span_fn fn, void *context)
{
    u32 from = first_step(t, steps);
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        const struct trace_ring *r = &t->lanes[lane];
        u64 begin = r->written > r->capacity ? r->written - r->capacity : 0;
        for (u64 i = begin; i < r->written; i++) {
            const struct span *s = &r->spans[i & (r->capacity - 1)];
            if (s->step >= from)
                fn(context, s);
        }
    }
}

/* --- Chrome ------------------------------------------------------------------------------ */

struct chrome {
    struct json json;
    const struct trace_names *names;
};

static void chrome_span(void *context, const struct span *s)
{
    struct chrome *c = context;
    struct json *j = &c->json;
    char name[160];
    name_of(s, c->names, name, sizeof name);
    text_add(&j->out, "\n");
    json_begin_object(j);
    json_put_str(j, "ph", "X");
    json_put_str(j, "cat", s->kind == SPAN_TASK ? "kernel" : "user_annotation");
    json_put_str(j, "name", name);
    json_put_int(j, "pid", c->names->rank);
    json_put_int(j, "tid", s->lane);
    json_put_double(j, "ts", 1e-3 * (double)s->begin_ns);
    json_put_double(j, "dur", 1e-3 * (double)(s->end_ns - s->begin_ns));
    json_key(j, "args");
    json_begin_object(j);
    json_put_int(j, "step", s->step);
    if (s->kind == SPAN_TASK) {
        json_put_int(j, "action", s->action);
        json_put_int(j, "task", s->task);
        json_put_int(j, "stream", s->lane);
    }
    json_end(j);
    json_end(j);
}

static void chrome_lanes(struct chrome *c)
{
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        struct json *j = &c->json;
        json_begin_object(j);
        json_put_str(j, "ph", "M");
        json_put_str(j, "name", "thread_name");
        json_put_int(j, "pid", c->names->rank);
        json_put_int(j, "tid", lane);
        json_key(j, "args");
        json_begin_object(j);
        json_put_str(j, "name", trace_lane_name(lane));
        json_end(j);
        json_end(j);
    }
}

void trace_export_chrome(const struct trace *t, u32 steps, const struct trace_names *names,
                         struct text *out)
{
    struct chrome c = { .names = names };
    json_writer_init(&c.json);
    json_begin_array(&c.json);
    chrome_lanes(&c);
    each_span(t, steps, chrome_span, &c);
    json_end(&c.json);
    /* HTA finds the rank by the expression "rank":\s+(\d+) on an early line. */
    text_printf(out, "{\"schemaVersion\": 1,\n\"distributedInfo\": {\"backend\": \"headway\", "
                "\"rank\": %d, \"world_size\": 1},\n\"displayTimeUnit\": \"ms\",\n"
                "\"traceEvents\": ", names->rank);
    text_add_bytes(out, c.json.out.data, c.json.out.length);
    text_add(out, "}\n");
    json_writer_fini(&c.json);
}

/* --- Perfetto ---------------------------------------------------------------------------- */

/* Field numbers of perfetto_trace.proto. */
enum { TRACE_PACKET = 1, PACKET_TIMESTAMP = 8, PACKET_SEQUENCE = 10, PACKET_EVENT = 11,
       PACKET_TRACK = 60, TRACK_UUID = 1, TRACK_NAME = 2, TRACK_PARENT = 5, TRACK_PROCESS = 3,
       PROCESS_PID = 1, PROCESS_NAME = 6, EVENT_TYPE = 9, EVENT_TRACK = 11, EVENT_NAME = 23,
       TYPE_BEGIN = 1, TYPE_END = 2 };

static void put_number(struct text *t, u64 field, u64 value)
{
    text_add_varint(t, field << 3);
    text_add_varint(t, value);
}

static void put_bytes(struct text *t, u64 field, const void *bytes, i64 n)
{
    text_add_varint(t, field << 3 | 2);
    text_add_varint(t, (u64)n);
    text_add_bytes(t, bytes, n);
}

struct perfetto {
    const struct trace_names *names;
    struct text *out, packet, inner, innermost;
};

static void end_packet(struct perfetto *p)
{
    put_number(&p->packet, PACKET_SEQUENCE, 1);
    put_bytes(p->out, TRACE_PACKET, p->packet.data, p->packet.length);
    text_clear(&p->packet);
}

static void put_edge(struct perfetto *p, u64 ns, u64 type, u64 track, const char *name)
{
    text_clear(&p->inner);
    put_number(&p->inner, EVENT_TYPE, type);
    put_number(&p->inner, EVENT_TRACK, track);
    if (name)
        put_bytes(&p->inner, EVENT_NAME, name, (i64)strlen(name));
    put_number(&p->packet, PACKET_TIMESTAMP, ns);
    put_bytes(&p->packet, PACKET_EVENT, p->inner.data, p->inner.length);
    end_packet(p);
}

static u64 process_track(const struct perfetto *p)
{
    return (u64)(p->names->rank + 1) * 1000;
}

static void perfetto_span(void *context, const struct span *s)
{
    struct perfetto *p = context;
    char name[160];
    u64 track = process_track(p) + 1 + s->lane;
    name_of(s, p->names, name, sizeof name);
    put_edge(p, s->begin_ns, TYPE_BEGIN, track, name);
    put_edge(p, s->end_ns, TYPE_END, track, NULL);
}

static void put_track(struct perfetto *p, u64 uuid, const char *name, bool process)
{
    text_clear(&p->inner);
    put_number(&p->inner, TRACK_UUID, uuid);
    if (process) {
        text_clear(&p->innermost);
        put_number(&p->innermost, PROCESS_PID, (u64)p->names->rank + 1);
        put_bytes(&p->innermost, PROCESS_NAME, name, (i64)strlen(name));
        put_bytes(&p->inner, TRACK_PROCESS, p->innermost.data, p->innermost.length);
    } else {
        put_bytes(&p->inner, TRACK_NAME, name, (i64)strlen(name));
        put_number(&p->inner, TRACK_PARENT, process_track(p));
    }
    put_bytes(&p->packet, PACKET_TRACK, p->inner.data, p->inner.length);
    end_packet(p);
}

void trace_export_perfetto(const struct trace *t, u32 steps, const struct trace_names *names,
                           struct text *out)
{
    struct perfetto p = { .names = names, .out = out };
    char rank[32];
    snprintf(rank, sizeof rank, "rank %d", names->rank);
    put_track(&p, process_track(&p), rank, true);
    for (int lane = 0; lane < TRACE_LANES; lane++)
        put_track(&p, process_track(&p) + 1 + (u64)lane, trace_lane_name(lane), false);
    each_span(t, steps, perfetto_span, &p);
    text_fini(&p.packet);
    text_fini(&p.inner);
    text_fini(&p.innermost);
}
