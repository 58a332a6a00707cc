/* TensorBoard's event files, read by what its sources say of them and not by our own code:
 * tensorboard's record_writer.py (frames), event.proto and summary.proto (fields). */
#include "base/sys.h"
#include "test.h"
#include "trace/proto.h"
#include "train/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "events-test"

/* Castagnoli's polynomial, reflected, bit by bit. */
static u32 crc(const void *data, i64 bytes)
{
    u32 c = ~0u;
    for (i64 i = 0; i < bytes; i++) {
        c ^= ((const u8 *)data)[i];
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
    }
    return ~c;
}

static u32 masked(const void *data, i64 bytes)
{
    const u32 c = crc(data, bytes);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* The check value of CRC-32C, and the heads of records of 24 and 45 bytes in a file that
 * TensorBoard reads. */
TEST(this_reader_sums_as_others_do)
{
    const u64 lengths[] = { 24, 45 };
    static const u8 sums[][4] = { { 0xa3, 0x7f, 0x4b, 0x22 }, { 0x3c, 0x41, 0x8a, 0xfb } };
    CHECK(crc("123456789", 9) == 0xe3069283u);
    for (int i = 0; i < 2; i++) {
        const u32 sum = masked(&lengths[i], 8);
        CHECK(memcmp(&sum, sums[i], 4) == 0);
    }
}

struct event {
    double wall;
    i64 step;
    char version[32], tag[104];
    float value;
};

/* Summary{1 Value{1 tag, 2 simple_value}}: one value. */
static void read_summary(struct event *e, const struct proto_field *of)
{
    const u8 *at = of->bytes, *end = at + of->n;
    struct proto_field f, value;
    CHECK(proto_next(&at, end, &value) && at == end);
    CHECK(value.number == 1 && value.wire == WIRE_BYTES);
    at = value.bytes;
    while (proto_next(&at, value.bytes + value.n, &f)) {
        if (f.number == 1 && f.wire == WIRE_BYTES && f.n < (i64)sizeof e->tag)
            memcpy(e->tag, f.bytes, (size_t)f.n);
        else if (f.number == 2 && f.wire == WIRE_FOUR)
            memcpy(&e->value, f.bytes, 4);
        else
            CHECK(f.number == 9 && f.wire == WIRE_BYTES); /* metadata: the plugin's name */
    }
}

/* Event{1 double wall_time, 2 int64 step, 3 string file_version or 5 Summary}. */
static struct event read_event(const u8 *data, i64 bytes)
{
    struct event e = { .step = 0 };
    const u8 *at = data;
    struct proto_field f;
    while (proto_next(&at, data + bytes, &f)) {
        if (f.number == 1 && f.wire == WIRE_EIGHT)
            memcpy(&e.wall, f.bytes, 8);
        else if (f.number == 2 && f.wire == WIRE_NUMBER)
            e.step = (i64)f.value;
        else if (f.number == 3 && f.wire == WIRE_BYTES && f.n < (i64)sizeof e.version)
            memcpy(e.version, f.bytes, (size_t)f.n);
        else if (f.number == 5 && f.wire == WIRE_BYTES)
            read_summary(&e, &f);
        else
            fail_msg("field %d of an event", (int)f.number);
    }
    return e;
}

/* Frames: u64 length, its masked sum, data, their masked sum. */
static int read_file(const char *path, struct event *out, int most)
{
    static u8 bytes[1 << 16];
    FILE *f = fopen(path, "rb");
    CHECK(f);
    const i64 n = (i64)fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    int events = 0;
    for (i64 at = 0; at < n; events++) {
        u64 length;
        u32 sum;
        CHECK(n - at >= 16 && events < most);
        memcpy(&length, bytes + at, 8);
        memcpy(&sum, bytes + at + 8, 4);
        CHECK(sum == masked(&length, 8));
        CHECK((i64)length <= n - at - 16);
        memcpy(&sum, bytes + at + 12 + length, 4);
        CHECK(sum == masked(bytes + at + 12, (i64)length));
        out[events] = read_event(bytes + at + 12, (i64)length);
        at += 16 + (i64)length;
    }
    return events;
}

/* events.out.tfevents.SECONDS.HOST.PID.N, which TensorBoard looks for. */
static const char *find_file(void)
{
    static char path[512];
    char **names, host[128];
    long long seconds;
    int pid, n = sys_list(FOLDER, &names);
    CHECK_EQ(n, 1);
    CHECK(sscanf(names[0], "events.out.tfevents.%lld.%127[^.].%d.0", &seconds, host, &pid) == 3 ||
          strstr(names[0], "events.out.tfevents.") == names[0]); /* a host's name may have dots */
    snprintf(path, sizeof path, FOLDER "/%s", names[0]);
    sys_free(names);
    return path;
}

TEST(every_record_is_framed_and_summed_and_has_the_fields_of_its_definition)
{
    struct events e;
    struct event read[8];
    sys_remove_tree(FOLDER);
    sys_mkdirs(FOLDER);
    CHECK_OK(events_open(&e, FOLDER));
    events_scalar(&e, 1, 1.7e9, "train/loss", 3.25);
    events_scalar(&e, (i64)1 << 40, 1.7e9 + 0.5, "health/update_ratio/blocks.0.attn.qkv.weight",
                  -1e-300);
    events_scalar(&e, 3, 1.7e9, "train/loss", 1e300);
    events_close(&e);
    CHECK_EQ(read_file(find_file(), read, 8), 4);
    CHECK_STR(read[0].version, "brain.Event:2");
    CHECK(read[0].wall > 1.5e9 && !read[0].tag[0]);
    CHECK_STR(read[1].tag, "train/loss");
    CHECK(read[1].step == 1 && read[1].value == 3.25f && read[1].wall == 1.7e9);
    CHECK_STR(read[2].tag, "health/update_ratio/blocks.0.attn.qkv.weight");
    CHECK(read[2].step == (i64)1 << 40 && read[2].value == 0 && read[2].wall == 1.7e9 + 0.5);
    CHECK(read[3].step == 3 && read[3].value > 3e38f); /* what a float cannot hold is Inf */
    sys_remove_tree(FOLDER);
}

TEST_MAIN(ONE(this_reader_sums_as_others_do),
          ONE(every_record_is_framed_and_summed_and_has_the_fields_of_its_definition))
