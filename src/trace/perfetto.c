#include "trace/perfetto.h"

#include <string.h>

enum { TRACE_PACKET = 1, PACKET_TIMESTAMP = 8, PACKET_SEQUENCE = 10, PACKET_EVENT = 11,
       PACKET_TRACK = 60, TRACK_UUID = 1, TRACK_NAME = 2, TRACK_PARENT = 5, TRACK_PROCESS = 3,
       PROCESS_PID = 1, PROCESS_NAME = 6, EVENT_TYPE = 9, EVENT_TRACK = 11, EVENT_NAME = 23,
       EVENT_CATEGORY = 22, EVENT_FLOW = 47, TYPE_BEGIN = 1, TYPE_END = 2 };

void perfetto_fini(struct perfetto *p)
{
    text_fini(&p->packet);
    text_fini(&p->inner);
    text_fini(&p->innermost);
}

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

static void put_text(struct text *t, u64 field, const char *text)
{
    put_bytes(t, field, text, (i64)strlen(text));
}

static void put_part(struct text *t, u64 field, const struct text *part)
{
    put_bytes(t, field, part->data, part->length);
}

static void end_packet(struct perfetto *p, int rank)
{
    put_number(&p->packet, PACKET_SEQUENCE, (u64)rank + 1);
    put_part(p->out, TRACE_PACKET, &p->packet);
    text_clear(&p->packet);
}

static u64 rank_track(int rank)
{
    return (u64)(rank + 1) << 12; /* more than a rank has tracks */
}

static u64 track_of(int rank, i64 track)
{
    return rank_track(rank) + (u64)track + 1;
}

void perfetto_name_rank(struct perfetto *p, int rank, const char *name)
{
    text_clear(&p->innermost);
    put_number(&p->innermost, PROCESS_PID, (u64)rank + 1);
    put_text(&p->innermost, PROCESS_NAME, name);
    text_clear(&p->inner);
    put_number(&p->inner, TRACK_UUID, rank_track(rank));
    put_part(&p->inner, TRACK_PROCESS, &p->innermost);
    put_part(&p->packet, PACKET_TRACK, &p->inner);
    end_packet(p, rank);
}

void perfetto_name_track(struct perfetto *p, int rank, i64 track, const char *name)
{
    text_clear(&p->inner);
    put_number(&p->inner, TRACK_UUID, track_of(rank, track));
    put_text(&p->inner, TRACK_NAME, name);
    put_number(&p->inner, TRACK_PARENT, rank_track(rank));
    put_part(&p->packet, PACKET_TRACK, &p->inner);
    end_packet(p, rank);
}

static void begin_edge(struct perfetto *p, int rank, i64 track, u64 type)
{
    text_clear(&p->inner);
    put_number(&p->inner, EVENT_TYPE, type);
    put_number(&p->inner, EVENT_TRACK, track_of(rank, track));
}

static void end_edge(struct perfetto *p, int rank, u64 ns)
{
    put_number(&p->packet, PACKET_TIMESTAMP, ns);
    put_part(&p->packet, PACKET_EVENT, &p->inner);
    end_packet(p, rank);
}

void perfetto_begin(struct perfetto *p, int rank, i64 track, u64 ns, const char *name,
                    const char *category, u64 flow)
{
    begin_edge(p, rank, track, TYPE_BEGIN);
    put_text(&p->inner, EVENT_NAME, name);
    if (category)
        put_text(&p->inner, EVENT_CATEGORY, category);
    if (flow) {
        text_add_varint(&p->inner, EVENT_FLOW << 3 | 1); /* fixed64 */
        text_add_bytes(&p->inner, (const char *)&flow, (i64)sizeof flow);
    }
    end_edge(p, rank, ns);
}

void perfetto_end(struct perfetto *p, int rank, i64 track, u64 ns)
{
    begin_edge(p, rank, track, TYPE_END);
    end_edge(p, rank, ns);
}
