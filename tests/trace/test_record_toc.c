/* The table of contents of a record: it says what going through the file says, whatever became of
 * either of them, and it is what is read where it is right. */
#include "test.h"

#include "base/sys.h"
#include "trace/record_toc.h"
#include "trace/record_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define FOLDER "record-toc-test"
#define FILE_PATH FOLDER "/rank-0.spans"
#define TOC_PATH FILE_PATH RECORD_TOC_SUFFIX

enum { MOST = 4096, ENTRY = sizeof(struct record_entry) };

struct seen {
    struct record_place places[MOST];
    u8 begins[MOST][8];
    i64 n, damaged, at;
};

static void see(struct seen *s)
{
    struct record_reader r;
    memset(s, 0, sizeof *s);
    CHECK_OK(record_reader_open(&r, FILE_PATH));
    for (; record_reader_next(&r, &s->places[s->n]) == 1; s->n++) {
        i64 bytes = i64_min(8, (i64)s->places[s->n].chunk.bytes);
        CHECK_OK(record_reader_peek(&r, &s->places[s->n], s->begins[s->n], bytes));
    }
    s->damaged = r.damaged;
    s->at = r.at;
    record_reader_close(&r);
}

/* As many steps, of 3 spans and an event each, behind a head. wakes: the thread, at each step;
 * else all is written at once, when the writer ends. */
static void write_how(u32 from, u32 to, i64 disk, bool wakes)
{
    static const struct span spans[3];
    struct record_writer *w;
    CHECK_EQ(sys_mkdirs(FOLDER), 0);
    CHECK_OK(record_writer_new(&w, FOLDER, 0, disk));
    record_writer_preamble(w, RECORD_HEAD, "{}", 2);
    for (u32 step = from; step < to; step++) {
        const struct record_spans head = { .step = step, .n = 3, .flags = RECORD_FIRST };
        record_writer_put(w, RECORD_IN_NEWEST, RECORD_SPANS, &head, (i64)sizeof head, spans,
                          (i64)sizeof spans);
        record_writer_put(w, RECORD_IN_NEWEST, RECORD_EVENT, &step, (i64)sizeof step, NULL, 0);
        if (wakes)
            record_writer_go(w);
    }
    record_writer_free(w);
}

static void write_steps(u32 from, u32 to, i64 disk)
{
    write_how(from, to, disk, true);
}

static void begin(u32 steps)
{
    sys_remove_tree(FOLDER);
    write_steps(0, steps, 1 << 24);
}

static void overwrite(const char *path, i64 at, const void *bytes, i64 n)
{
    int fd = sys_open(path, O_WRONLY, 0);
    CHECK(fd >= 0 && sys_seek(fd, at, SEEK_SET) == at);
    CHECK_EQ(sys_write_full(fd, bytes, n), 0);
    sys_close(fd);
}

static void cut(const char *path, i64 bytes)
{
    int fd = sys_open(path, O_WRONLY, 0);
    CHECK(fd >= 0 && sys_truncate(fd, bytes) == 0);
    sys_close(fd);
}

/* With the table and without. */
static void check_same(i64 chunks)
{
    static struct seen with, without;
    see(&with);
    CHECK_EQ(sys_rename(TOC_PATH, FOLDER "/aside"), 0);
    see(&without);
    CHECK_EQ(sys_rename(FOLDER "/aside", TOC_PATH), 0);
    CHECK_EQ(without.n, chunks);
    CHECK_EQ(with.n, without.n);
    CHECK_EQ(with.damaged, without.damaged);
    CHECK_EQ(with.at, without.at);
    CHECK(memcmp(with.places, without.places, sizeof with.places) == 0);
    CHECK(memcmp(with.begins, without.begins, sizeof with.begins) == 0);
}

TEST(it_has_every_chunk)
{
    begin(50);
    check_same(101);
    CHECK_EQ(sys_file_bytes(TOC_PATH), 101 * ENTRY);
}

TEST(what_it_says_is_not_looked_for_in_the_file)
{
    static struct seen s;
    begin(50);
    see(&s);
    i64 middle = s.places[51].at - RECORD_CHUNK_BYTES;
    overwrite(FILE_PATH, middle, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", RECORD_CHUNK_BYTES);
    see(&s);
    CHECK(s.n == 101 && s.damaged == 0);
    CHECK_EQ(sys_unlink(TOC_PATH), 0);
    see(&s);
    CHECK(s.n == 100 && s.damaged > 0);
}

TEST(a_damaged_entry_ends_what_it_is_asked_for)
{
    for (i64 byte = 0; byte < ENTRY - 4; byte += 5) {
        begin(20);
        overwrite(TOC_PATH, 17 * ENTRY + byte, "\xa5", 1);
        check_same(41);
    }
}

TEST(places_that_no_file_has_are_not_believed)
{
    static const i64 places[] = { INT64_MAX - 8, INT64_MIN + 16, -16 };
    for (i64 i = 0; i < COUNT_OF(places); i++) {
        const struct record_place place = { { RECORD_EVENT, 0, 4 }, places[i] };
        struct record_entry e, impossible = { .at = places[i] };
        begin(20);
        record_toc_enter(&e, &place, "abcd");
        CHECK(!record_toc_counts(&e, e.at, 1 << 20) && !record_toc_counts(&impossible, 0, 1 << 20));
        overwrite(TOC_PATH, 40 * ENTRY, &e, (i64)sizeof e);
        check_same(41);
    }
}

TEST(a_file_that_was_cut_ends_where_it_was_cut)
{
    begin(20);
    i64 bytes = sys_file_bytes(FILE_PATH);
    for (i64 gone = 8; gone < 400; gone += 56) {
        cut(FILE_PATH, bytes - gone);
        static struct seen s;
        see(&s);
        check_same(s.n);
    }
}

TEST(a_table_that_was_cut_is_gone_on_with_in_the_file)
{
    begin(20);
    cut(TOC_PATH, 10 * ENTRY + 11);
    check_same(41);
}

TEST(the_table_of_another_file_is_not_believed)
{
    begin(20);
    CHECK_EQ(sys_rename(TOC_PATH, FOLDER "/other"), 0);
    sys_unlink(FILE_PATH);
    write_steps(100, 130, 1 << 24);
    CHECK_EQ(sys_rename(FOLDER "/other", TOC_PATH), 0);
    check_same(61);
}

TEST(a_resumed_run_goes_on_in_it)
{
    begin(20);
    cut(FILE_PATH, sys_file_bytes(FILE_PATH) - 4); /* the last event is torn */
    cut(TOC_PATH, 30 * ENTRY);                     /* and what was entered last is lost */
    write_steps(20, 25, 1 << 24);
    check_same(40 + 1 + 10);
    CHECK_EQ(sys_file_bytes(TOC_PATH), 51 * ENTRY);
    sys_unlink(TOC_PATH); /* a run that had none gets one */
    write_steps(25, 26, 1 << 24);
    check_same(51 + 1 + 2);
    CHECK_EQ(sys_file_bytes(TOC_PATH), 54 * ENTRY);
}

TEST(a_long_record_without_a_table_gets_one)
{
    begin(1300); /* more chunks than are entered at a time */
    sys_unlink(TOC_PATH);
    write_steps(1300, 1301, 1 << 24);
    check_same(1 + 2600 + 1 + 2);
    CHECK_EQ(sys_file_bytes(TOC_PATH), 2604 * ENTRY);
}

TEST(it_goes_where_its_file_goes)
{
    enum { DISK = 64 << 13 };
    sys_remove_tree(FOLDER);
    write_steps(0, 1500, DISK);
    check_same(1 + (sys_file_bytes(TOC_PATH) / ENTRY - 1));
    i64 all = sys_file_bytes(FILE_PATH) + sys_file_bytes(TOC_PATH) +
              sys_file_bytes(FOLDER "/rank-0.old.spans") +
              sys_file_bytes(FOLDER "/rank-0.old.spans" RECORD_TOC_SUFFIX);
    CHECK(all > DISK / 4 && all <= DISK / 4 * 3);
    CHECK_EQ(sys_rename(FOLDER "/rank-0.old.spans", FILE_PATH), 0);
    CHECK_EQ(sys_rename(FOLDER "/rank-0.old.spans" RECORD_TOC_SUFFIX, TOC_PATH), 0);
    check_same(sys_file_bytes(TOC_PATH) / ENTRY);
}

TEST(a_disk_that_refuses_it_costs_the_table_alone)
{
    static struct seen s;
    sys_remove_tree(FOLDER);
    CHECK_EQ(sys_fault_arm("write:42:ENOSPC"), 0); /* behind a head and 40 chunks */
    write_how(0, 20, 1 << 24, false);
    sys_fault_arm(NULL);
    see(&s);
    CHECK_EQ(s.n, 41);
    CHECK(!sys_exists(TOC_PATH));
    sys_remove_tree(FOLDER);
}

TEST_MAIN(ONE(it_has_every_chunk), ONE(what_it_says_is_not_looked_for_in_the_file),
          ONE(a_damaged_entry_ends_what_it_is_asked_for),
          ONE(places_that_no_file_has_are_not_believed),
          ONE(a_file_that_was_cut_ends_where_it_was_cut),
          ONE(a_table_that_was_cut_is_gone_on_with_in_the_file),
          ONE(the_table_of_another_file_is_not_believed), ONE(a_resumed_run_goes_on_in_it),
          ONE(a_long_record_without_a_table_gets_one),
          ONE(it_goes_where_its_file_goes), ONE(a_disk_that_refuses_it_costs_the_table_alone))
