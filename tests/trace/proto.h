/* tests/trace/proto.h - a reader of protocol buffers that knows the wire format alone, and of
 * Perfetto's trace as its definitions number its fields: protos/perfetto/trace/trace_packet.proto,
 * track_event/track_descriptor.proto and track_event.proto. It shares nothing with the writer. */
#ifndef HEADWAY_TEST_PROTO_H
#define HEADWAY_TEST_PROTO_H

#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIRE_NUMBER = 0, WIRE_EIGHT = 1, WIRE_BYTES = 2, WIRE_FOUR = 5 };

struct proto_field {
    u64 number, value; /* value: of numbers, and of four or eight bytes */
    int wire;
    const u8 *bytes;
    i64 n;
};

static inline u64 proto_varint(const u8 **at, const u8 *end)
{
    u64 value = 0;
    for (int shift = 0;; shift += 7, ++*at) {
        CHECK(*at < end && shift < 64);
        value |= (u64)(**at & 127) << shift;
        if (**at < 128)
            break;
    }
    ++*at;
    return value;
}

/* False at the end of the message, which must be the end of a field. */
static inline bool proto_next(const u8 **at, const u8 *end, struct proto_field *f)
{
    if (*at == end)
        return false;
    const u64 key = proto_varint(at, end);
    *f = (struct proto_field){ .number = key >> 3, .wire = (int)(key & 7) };
    CHECK(f->number > 0);
    if (f->wire == WIRE_NUMBER) {
        f->value = proto_varint(at, end);
        return true;
    }
    CHECK(f->wire == WIRE_EIGHT || f->wire == WIRE_BYTES || f->wire == WIRE_FOUR);
    f->n = f->wire == WIRE_BYTES ? (i64)proto_varint(at, end) : f->wire == WIRE_EIGHT ? 8 : 4;
    CHECK(f->n >= 0 && f->n <= end - *at);
    f->bytes = *at;
    if (f->wire != WIRE_BYTES)
        memcpy(&f->value, f->bytes, (size_t)f->n);
    *at += f->n;
    return true;
}

/* --- Perfetto ----------------------------------------------------------------------- */

enum { SEEN_TRACKS = 512, SEEN_FLOWS = 1 << 16, SEEN_EDGES = 1 << 16 };

/* Perfetto sorts them by time, and leaves those of one time in the order of the file. */
struct seen_edge {
    u64 ns;
    int track, order;
    bool begins;
};

struct seen_track {
    u64 uuid, parent;
    i64 depth;
    bool process;
    char name[64];
};

struct seen_trace {
    struct seen_track tracks[SEEN_TRACKS];
    int n_tracks;
    struct seen_edge edges[SEEN_EDGES];
    int n_edges;
    i64 packets, slices, flows, named; /* named: slices with this name */
    const char *name;
    u64 *flow; /* NULL: not wanted; else of SEEN_FLOWS */
};

static inline struct seen_track *seen_track(struct seen_trace *s, u64 uuid)
{
    for (int i = 0; i < s->n_tracks; i++)
        if (s->tracks[i].uuid == uuid)
            return &s->tracks[i];
    return NULL;
}

static inline void see_process(const struct proto_field *of, struct seen_track *t)
{
    const u8 *at = of->bytes, *end = at + of->n;
    struct proto_field f;
    bool pid = false;
    while (proto_next(&at, end, &f)) { /* ProcessDescriptor: 1 pid, 6 process_name */
        CHECK((f.number == 1 && f.wire == WIRE_NUMBER) || (f.number == 6 && f.wire == WIRE_BYTES));
        pid |= f.number == 1 && f.value > 0;
        if (f.number == 6)
            snprintf(t->name, sizeof t->name, "%.*s", (int)f.n, (const char *)f.bytes);
    }
    CHECK(pid && t->name[0]);
    t->process = true;
}

/* TrackDescriptor: 1 uuid, 2 name, 3 process, 5 parent_uuid. */
static inline void see_descriptor(struct seen_trace *s, const struct proto_field *of)
{
    const u8 *at = of->bytes, *end = at + of->n;
    struct proto_field f;
    struct seen_track *t = &s->tracks[s->n_tracks++];
    CHECK(s->n_tracks < SEEN_TRACKS);
    while (proto_next(&at, end, &f)) {
        if (f.number == 1 && f.wire == WIRE_NUMBER)
            t->uuid = f.value;
        else if (f.number == 2 && f.wire == WIRE_BYTES)
            snprintf(t->name, sizeof t->name, "%.*s", (int)f.n, (const char *)f.bytes);
        else if (f.number == 3 && f.wire == WIRE_BYTES)
            see_process(&f, t);
        else if (f.number == 5 && f.wire == WIRE_NUMBER)
            t->parent = f.value;
        else
            fail_msg("field %d of a track descriptor", (int)f.number);
    }
    CHECK(t->uuid != 0 && t->name[0]);
    if (!t->process) { /* of a process that was described before it */
        const struct seen_track *parent = seen_track(s, t->parent);
        CHECK(parent && parent->process);
    }
}

/* TrackEvent: 9 type (1 slice begins, 2 ends), 11 track_uuid, 22 categories, 23 name, 47 flow_ids
 * (fixed64). */
static inline void see_event(struct seen_trace *s, const struct proto_field *of, u64 ns)
{
    const u8 *at = of->bytes, *end = at + of->n;
    struct proto_field f;
    struct seen_track *t = NULL;
    u64 type = 0, flow = 0;
    bool name = false;
    while (proto_next(&at, end, &f)) {
        if (f.number == 9 && f.wire == WIRE_NUMBER)
            type = f.value;
        else if (f.number == 11 && f.wire == WIRE_NUMBER)
            t = seen_track(s, f.value);
        else if (f.number == 23 && f.wire == WIRE_BYTES) {
            name = f.n > 0;
            s->named += s->name && (i64)strlen(s->name) == f.n &&
                        memcmp(s->name, f.bytes, (size_t)f.n) == 0;
        } else if (f.number == 47 && f.wire == WIRE_EIGHT)
            flow = f.value;
        else
            CHECK(f.number == 22 && f.wire == WIRE_BYTES);
    }
    CHECK(t && !t->process && (type == 1 || type == 2));
    CHECK_EQ(name, type == 1);
    CHECK(s->n_edges < SEEN_EDGES);
    s->edges[s->n_edges] = (struct seen_edge){ ns, (int)(t - s->tracks), s->n_edges, type == 1 };
    s->n_edges++;
    s->slices += type == 1;
    CHECK(!flow || type == 1);
    if (flow && s->flow && s->flows < SEEN_FLOWS)
        s->flow[s->flows++] = flow;
}

static inline int seen_by_time(const void *a, const void *b)
{
    const struct seen_edge *x = a, *y = b;
    return x->ns != y->ns ? (x->ns > y->ns) - (x->ns < y->ns)
                          : (x->order > y->order) - (x->order < y->order);
}

/* Slices of a track nest, and each ends. */
static inline void see_nesting(struct seen_trace *s)
{
    qsort(s->edges, (size_t)s->n_edges, sizeof *s->edges, seen_by_time);
    for (int i = 0; i < s->n_edges; i++) {
        struct seen_track *t = &s->tracks[s->edges[i].track];
        t->depth += s->edges[i].begins ? 1 : -1;
        CHECK(t->depth >= 0);
    }
    for (int i = 0; i < s->n_tracks; i++)
        CHECK_EQ(s->tracks[i].depth, 0);
}

/* A whole file: Trace{1 TracePacket}, and of a packet 8 timestamp, 10 trusted_packet_sequence_id, 11
 * track_event, 60 track_descriptor. */
static inline void see_trace(struct seen_trace *s, const void *data, i64 bytes)
{
    const u8 *at = data, *end = at + bytes;
    struct proto_field packet, f, body;
    while (proto_next(&at, end, &packet)) {
        CHECK(packet.number == 1 && packet.wire == WIRE_BYTES);
        const u8 *in = packet.bytes, *until = in + packet.n;
        u64 ns = 0, sequence = 0;
        bool timed = false;
        body = (struct proto_field){ 0 };
        while (proto_next(&in, until, &f)) {
            if (f.number == 8 && f.wire == WIRE_NUMBER) {
                ns = f.value;
                timed = true;
            } else if (f.number == 10 && f.wire == WIRE_NUMBER)
                sequence = f.value;
            else {
                CHECK((f.number == 11 || f.number == 60) && f.wire == WIRE_BYTES && !body.number);
                body = f;
            }
        }
        CHECK(sequence != 0 && body.number != 0 && timed == (body.number == 11));
        if (body.number == 60)
            see_descriptor(s, &body);
        else
            see_event(s, &body, ns);
        s->packets++;
    }
    see_nesting(s);
}

#endif
