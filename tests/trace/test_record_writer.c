/* Chunks through the writer and back: files stay bounded, what is kept outlives what is newest, a
 * torn end is cut off before more is written, and a full buffer or a full disk costs chunks, not
 * the run. */
#include "test.h"

#include "base/sys.h"
#include "trace/record_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define FOLDER "record-writer-test"

static struct record_writer *open_writer(i64 disk)
{
    struct record_writer *w;
    CHECK_EQ(sys_mkdirs(FOLDER), 0);
    CHECK_OK(record_writer_new(&w, FOLDER, 0, disk));
    record_writer_preamble(w, RECORD_HEAD, "{}", 2);
    return w;
}

/* So many spans of one step, each with its step and place. */
static bool put(struct record_writer *w, int where, u32 step, u32 n)
{
    static struct span spans[8192];
    const struct record_spans head = { .step = step, .n = n, .flags = RECORD_FIRST,
                                       .begin_ns = step, .end_ns = step + 1 };
    for (u32 i = 0; i < n; i++)
        spans[i] = (struct span){ .step = step, .task = i };
    return record_writer_put(w, where, RECORD_SPANS, &head, (i64)sizeof head, spans,
                             (i64)n * (i64)sizeof *spans);
}

struct seen {
    i64 heads, steps, first, last, damaged;
};

static struct seen read_file(const char *name)
{
    static char payload[1 << 20];
    struct seen s = { .first = -1, .last = -1 };
    struct record_reader r;
    struct record_place p;
    char path[128];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (record_reader_open(&r, path) < 0)
        return s;
    while (record_reader_next(&r, &p) == 1) {
        CHECK_OK(record_reader_payload(&r, &p, payload));
        s.heads += p.chunk.kind == RECORD_HEAD;
        if (p.chunk.kind != RECORD_SPANS)
            continue;
        const struct record_spans *h = (const struct record_spans *)payload;
        const struct span *spans = (const struct span *)(h + 1);
        CHECK(spans[h->n - 1].step == h->step && spans[h->n - 1].task == h->n - 1);
        s.first = s.steps++ == 0 ? h->step : s.first;
        s.last = h->step;
    }
    s.damaged = r.damaged;
    record_reader_close(&r);
    return s;
}

/* A step at a time; all of them fit into the buffer, however slow the thread is. */
static void write_steps(struct record_writer *w, u32 from, u32 to, u32 n, u32 kept)
{
    for (u32 step = from; step < to; step++) {
        CHECK(put(w, RECORD_IN_NEWEST | (step == kept ? RECORD_IN_KEPT : 0), step, n));
        record_writer_go(w);
    }
}

TEST(both_generations_stay_below_the_limit_and_have_heads)
{
    enum { DISK = 1 << 20 };
    sys_remove_tree(FOLDER);
    struct record_writer *w = open_writer(DISK);
    write_steps(w, 0, 400, 200, 7);
    CHECK_EQ(record_writer_dropped(w), 0);
    CHECK(record_writer_error(w) == NULL);
    record_writer_free(w);
    i64 newest = sys_file_bytes(FOLDER "/rank-0.spans");
    i64 old = sys_file_bytes(FOLDER "/rank-0.old.spans");
    CHECK(newest > 0 && old > 0 && newest + old <= DISK / 4 * 3);
    struct seen a = read_file("rank-0.old.spans"), b = read_file("rank-0.spans");
    CHECK(a.heads == 1 && b.heads == 1);
    CHECK_EQ(b.last, 399);
    CHECK_EQ(a.last + 1, b.first); /* nothing between them is lost */
    CHECK(a.first > 7);
}

TEST(what_is_kept_outlives_the_newest)
{
    struct seen kept = read_file("rank-0.kept.spans");
    CHECK(kept.heads == 1 && kept.steps == 1 && kept.first == 7);
}

TEST(a_torn_end_is_cut_off_and_the_rest_goes_on)
{
    i64 bytes = sys_file_bytes(FOLDER "/rank-0.spans");
    int fd = sys_open(FOLDER "/rank-0.spans", O_WRONLY, 0);
    CHECK(fd >= 0 && sys_truncate(fd, bytes - 100) == 0);
    sys_close(fd);
    struct record_writer *w = open_writer(1 << 24); /* as a resumed run does */
    write_steps(w, 500, 503, 10, 0);
    record_writer_free(w);
    struct seen s = read_file("rank-0.spans");
    CHECK_EQ(s.heads, 2);
    CHECK_EQ(s.last, 502);
    CHECK_EQ(s.damaged, 0);
}

/* Chunks with these bytes of payload, each of which begins with its number; the largest are jumped
 * over. The file grows by pieces that end anywhere. */
TEST(a_file_that_grows_is_read_on_from_where_it_ended)
{
    static const i64 sizes[] = { 100, 200000, 5000, 16, 300000, 60, 8, 70000, 133000, 133000, 24 };
    enum { PIECE = 6871, PAYLOAD = 300000 };
    static u8 file[1 << 20], payload[PAYLOAD];
    i64 bytes = 0, seen = 0, number;
    struct record_reader r;
    struct record_place p;
    for (i64 i = 0; i < COUNT_OF(sizes); i++) {
        memset(payload, (int)i, (size_t)sizes[i]);
        memcpy(payload, &i, sizeof i);
        const u32 checksum = record_checksum(RECORD_EVENT, payload, sizes[i]);
        const struct record_chunk c = { RECORD_EVENT, checksum, (u64)sizes[i] };
        memcpy(file + bytes, &c, sizeof c);
        memcpy(file + bytes + sizeof c, payload, (size_t)sizes[i]);
        bytes += (i64)sizeof c + round_up(sizes[i], 8);
    }
    int fd = sys_open(FOLDER "/grows.spans", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK_OK(record_reader_open(&r, FOLDER "/grows.spans"));
    for (i64 at = 0; at < bytes; at += PIECE) {
        CHECK_EQ(sys_write_full(fd, file + at, i64_min(PIECE, bytes - at)), 0);
        while (record_reader_next(&r, &p) == 1) {
            CHECK_OK(record_reader_peek(&r, &p, &number, (i64)sizeof number));
            CHECK_EQ(number, seen);
            CHECK_EQ((i64)p.chunk.bytes, sizes[seen++]);
            CHECK_OK(record_reader_payload(&r, &p, payload));
        }
    }
    CHECK_EQ(seen, COUNT_OF(sizes));
    CHECK_EQ(r.damaged, 0);
    record_reader_close(&r);
    sys_close(fd);
}

TEST(a_full_buffer_drops_and_counts)
{
    sys_remove_tree(FOLDER);
    struct record_writer *w = open_writer(1 << 24);
    i64 put_chunks = 0, refused = 0;
    for (u32 step = 0; step < 40; step++) { /* nobody wakes the thread */
        bool fits = put(w, RECORD_IN_NEWEST, step, 8192);
        put_chunks += fits;
        refused += !fits;
    }
    CHECK(put_chunks > 5 && refused > 5);
    CHECK_EQ(record_writer_dropped(w), refused);
    record_writer_free(w); /* writes what was put */
    CHECK_EQ(read_file("rank-0.spans").steps, put_chunks);
}

/* Ten seconds at most. */
static i64 steps_written(i64 wanted)
{
    i64 steps = 0;
    for (int i = 0; i < 10000 && (steps = read_file("rank-0.spans").steps) < wanted; i++)
        sys_sleep_ns(1000000);
    return steps;
}

/* Waking the thread is dear: what is put soon behind a writing, it writes by itself. */
TEST(what_follows_soon_is_written_without_anything_more)
{
    sys_remove_tree(FOLDER);
    struct record_writer *w = open_writer(1 << 24);
    write_steps(w, 0, 1, 10, 99);
    CHECK_EQ(steps_written(1), 1);
    write_steps(w, 1, 4, 10, 99);
    CHECK_EQ(steps_written(4), 4);
    record_writer_free(w);
    CHECK_EQ(read_file("rank-0.spans").steps, 4);
}

TEST(a_disk_that_refuses_ends_the_recording)
{
    sys_remove_tree(FOLDER);
    struct record_writer *w = open_writer(1 << 24);
    CHECK_EQ(sys_fault_arm("write:2:ENOSPC:repeat"), 0);
    for (u32 step = 0; step < 100 && !record_writer_error(w); step++) {
        put(w, RECORD_IN_NEWEST, step, 10);
        record_writer_go(w);
        sys_sleep_ns(1000000);
    }
    sys_fault_arm(NULL);
    CHECK(strstr(record_writer_error(w), "rank-0.spans"));
    put(w, RECORD_IN_NEWEST, 200, 10);
    record_writer_free(w);
    CHECK_EQ(read_file("rank-0.spans").steps, 0);
    sys_remove_tree(FOLDER);
}

TEST_MAIN(ONE(both_generations_stay_below_the_limit_and_have_heads),
          ONE(what_is_kept_outlives_the_newest),
          ONE(a_torn_end_is_cut_off_and_the_rest_goes_on),
          ONE(a_file_that_grows_is_read_on_from_where_it_ended), ONE(a_full_buffer_drops_and_counts),
          ONE(what_follows_soon_is_written_without_anything_more),
          ONE(a_disk_that_refuses_ends_the_recording))
