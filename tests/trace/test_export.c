#include "test.h"
#include "trace/proto.h"

#include "base/json.h"
#include "trace/export.h"

#include <stdio.h>

static void name(void *context, const struct span *s, struct trace_label *out)
{
    (void)context;
    snprintf(out->name, sizeof out->name, "op \"%u\"\n", s->task); /* must be escaped */
    out->bytes = 100;
}

static void whole_file(const struct trace_format *f, const struct trace *t, u32 steps,
                       const struct trace_names *names, struct text *out)
{
    f->head(names->rank, 4, out);
    f->part(t, steps, names, out);
    text_add(out, f->foot);
}

static void add(struct trace *t, int lane, int kind, u64 begin, u64 end, u32 detail)
{
    trace_add(t, &(struct span){ .begin_ns = begin, .end_ns = end, .step = 5, .lane = (u8)lane,
                                 .kind = (u8)kind, .detail = detail });
}

enum { DP = TRACE_CALLS + 2, HOST_TRACKS = TRACE_CALLS, PROCESS = 1 };

static void record(struct trace *t, int spans)
{
    CHECK_OK(trace_init(t, 64));
    for (int i = 0; i < spans; i++) {
        struct span s = { .begin_ns = (u64)i * 100, .end_ns = (u64)i * 100 + 60,
                          .step = (u32)i / 10, .task = (u32)i % 10, .lane = TRACE_COMPUTE,
                          .kind = SPAN_TASK };
        trace_add(t, &s);
    }
}

TEST(the_ring_keeps_the_newest_spans)
{
    struct trace t;
    record(&t, 100);
    CHECK_EQ(t.lanes[TRACE_COMPUTE].written, 100);
    CHECK_EQ(t.lanes[TRACE_COMPUTE].spans[99 % 64].begin_ns, 9900);
    trace_fini(&t);
}

TEST(chrome_json_parses_and_holds_the_last_steps)
{
    struct trace t;
    struct text out = { 0 };
    struct trace_names names = { NULL, name, 3, 0 };
    json_t *o;
    record(&t, 100);
    whole_file(&trace_formats[0], &t, 2, &names, &out);
    CHECK(strstr(out.data, "\"rank\": 3") != NULL);
    CHECK_OK(json_parse(out.data, out.length, "trace", &o));
    const json_t *events = json_object_get(o, "traceEvents");
    CHECK_EQ(json_array_size(events), PROCESS + HOST_TRACKS + 20);
    const json_t *last = json_array_get(events, PROCESS + HOST_TRACKS + 19);
    CHECK_STR(json_string_value(json_object_get(last, "name")), "op \"9\"\n");
    CHECK_NEAR(json_number_value(json_object_get(last, "ts")), 9.9, 1e-9);
    CHECK_NEAR(json_number_value(json_object_get(last, "dur")), 0.06, 1e-9);
    json_decref(o);
    text_fini(&out);
    trace_fini(&t);
}

/* Field by field, as Perfetto's definitions number them. */
TEST(perfetto_packets_are_those_of_its_definitions)
{
    static struct seen_trace seen;
    struct trace t;
    struct text out = { 0 };
    struct trace_names names = { NULL, name, 0, 0 };
    record(&t, 100);
    whole_file(&trace_formats[1], &t, 1, &names, &out);
    seen = (struct seen_trace){ .name = "op \"9\"\n" };
    see_trace(&seen, out.data, out.length);
    CHECK_EQ(seen.packets, PROCESS + HOST_TRACKS + 2 * 10);
    CHECK_EQ(seen.n_tracks, PROCESS + HOST_TRACKS);
    CHECK_EQ(seen.slices, 10);
    CHECK_EQ(seen.named, 1);
    CHECK(seen.tracks[0].process);
    CHECK_STR(seen.tracks[0].name, "rank 0");
    text_fini(&out);
    trace_fini(&t);
}

/* The event of that category whose begin is `ts`; its rank must be the name's. */
static const json_t *event_at(const json_t *o, const char *cat, double ts)
{
    const json_t *e, *found = NULL;
    size_t i;
    json_array_foreach(json_object_get(o, "traceEvents"), i, e) {
        const char *c = json_string_value(json_object_get(e, "cat"));
        if (c && strcmp(c, cat) == 0 && json_number_value(json_object_get(e, "ts")) == ts)
            found = e;
    }
    CHECK(found != NULL);
    return found;
}

static i64 number(const json_t *e, const char *key)
{
    return json_integer_value(json_object_get(e, key));
}

/* Two ranks in one file: calls that overlap on tracks of their own, times on one clock. */
TEST(ranks_are_joined_on_one_clock_and_no_track_overlaps)
{
    struct trace t;
    struct text out = { 0 };
    json_t *o;
    CHECK_OK(trace_init(&t, 64));
    CHECK_OK(trace_open(&t, DP));
    add(&t, DP, SPAN_CALL, 1000, 5000, 0);
    add(&t, DP, SPAN_CALL, 3000, 6000, 0);
    add(&t, DP, SPAN_CALL, 5000, 7000, 0);
    add(&t, TRACE_COMPUTE, SPAN_WAIT, 4000, 6000, DP);
    const struct trace_format *f = &trace_formats[0];
    f->head(0, 2, &out);
    f->part(&t, 1, &(struct trace_names){ NULL, name, 0, 0 }, &out);
    text_add(&out, f->between);
    f->part(&t, 1, &(struct trace_names){ NULL, name, 1, 2000000 }, &out);
    text_add(&out, f->foot);
    CHECK_OK(json_parse(out.data, out.length, "trace", &o));
    CHECK_EQ(number(json_object_get(o, "distributedInfo"), "world_size"), 2);
    const json_t *first = event_at(o, "communication", 1), *second = event_at(o, "communication", 3);
    CHECK_EQ(number(first, "tid"), DP);
    CHECK_EQ(number(second, "tid"), DP + TRACE_LANES);
    CHECK_EQ(number(event_at(o, "communication", 5), "tid"), DP);
    CHECK_EQ(number(json_object_get(first, "args"), "bytes"), 100);
    CHECK_STR(json_string_value(json_object_get(json_object_get(first, "args"), "axis")), "dp");
    CHECK_STR(json_string_value(json_object_get(event_at(o, "wait", 4), "name")),
              "wait for dp: op \"0\"\n");
    CHECK_EQ(number(event_at(o, "communication", 2001), "pid"), 1);
    json_decref(o);
    text_fini(&out);
    trace_fini(&t);
}

/* Busy is the union of calls, whatever their order; exposed is what was waited for them. */
TEST(overlap_counts_time_under_way_once)
{
    struct trace t;
    CHECK_OK(trace_init(&t, 64));
    CHECK_OK(trace_open(&t, DP));
    add(&t, DP, SPAN_CALL, 500, 700, 0);
    add(&t, DP, SPAN_CALL, 100, 300, 0);
    add(&t, DP, SPAN_CALL, 200, 400, 0);
    add(&t, TRACE_COMPUTE, SPAN_WAIT, 350, 400, DP);
    add(&t, TRACE_COMPUTE, SPAN_WAIT, 400, 440, DP + 1);
    add(&t, TRACE_COMPUTE, SPAN_TASK, 440, 500, 0);
    struct trace_overlap o = trace_overlap(&t, DP, 5);
    CHECK_EQ(o.busy_ns, 500);
    CHECK_EQ(o.exposed_ns, 50);
    CHECK_EQ(trace_overlap(&t, DP, 4).busy_ns, 0);
    trace_fini(&t);
}

TEST_MAIN(ONE(the_ring_keeps_the_newest_spans), ONE(chrome_json_parses_and_holds_the_last_steps),
          ONE(perfetto_packets_are_those_of_its_definitions),
          ONE(ranks_are_joined_on_one_clock_and_no_track_overlaps),
          ONE(overlap_counts_time_under_way_once))
