#include "test.h"

#include "base/json.h"
#include "trace/export.h"

#include <stdio.h>

static void name(void *context, const struct span *s, char *out, i64 size)
{
    (void)context;
    snprintf(out, (size_t)size, "op \"%u\"\n", s->task); /* must be escaped */
}

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
    struct trace_names names = { NULL, name, 3 };
    json_t *o;
    record(&t, 100);
    trace_export_chrome(&t, 2, &names, &out);
    CHECK(strstr(out.data, "\"rank\": 3") != NULL);
    CHECK_OK(json_parse(out.data, out.length, "trace", &o));
    const json_t *events = json_object_get(o, "traceEvents");
    CHECK_EQ(json_array_size(events), TRACE_LANES + 20);
    const json_t *last = json_array_get(events, TRACE_LANES + 19);
    CHECK_STR(json_string_value(json_object_get(last, "name")), "op \"9\"\n");
    CHECK_NEAR(json_number_value(json_object_get(last, "ts")), 9.9, 1e-9);
    CHECK_NEAR(json_number_value(json_object_get(last, "dur")), 0.06, 1e-9);
    json_decref(o);
    text_fini(&out);
    trace_fini(&t);
}

/* Walks the top level of the protocol buffer: every packet must end where it says. */
TEST(perfetto_packets_tile_the_file)
{
    struct trace t;
    struct text out = { 0 };
    struct trace_names names = { NULL, name, 0 };
    int packets = 0;
    record(&t, 100);
    trace_export_perfetto(&t, 1, &names, &out);
    i64 at = 0;
    while (at < out.length) {
        CHECK_EQ(out.data[at], 1 << 3 | 2);
        u64 length = 0;
        int shift = 0;
        do
            length |= (u64)(out.data[++at] & 127) << shift;
        while ((shift += 7, out.data[at] & 128));
        at += 1 + (i64)length;
        packets++;
    }
    CHECK_EQ(at, out.length);
    CHECK_EQ(packets, 1 + TRACE_LANES + 2 * 10);
    text_fini(&out);
    trace_fini(&t);
}

TEST_MAIN(ONE(the_ring_keeps_the_newest_spans), ONE(chrome_json_parses_and_holds_the_last_steps),
          ONE(perfetto_packets_tile_the_file))
