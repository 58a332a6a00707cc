/* Any bytes as a recorded rank: refused, or read as steps whose spans lie within what they name; as
 * they are, and with the checksums of what looks like chunks put right, so that what is behind them
 * is reached. */
#include "base/err.h"
#include "base/sys.h"
#include "diagnose/critical.h"
#include "diagnose/ladder.h"
#include "trace/record_toc.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 16, MOST_STEPS = 64 };

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void see_step(struct record *r, struct record_step *s, const struct usual *u,
                     struct ladder *l, struct critical *c)
{
    struct dag *g;
    for (int i = 0; i < s->n_ranks; i++) {
        const struct record_rank *k = &s->ranks[i];
        for (i64 n = 0; n < k->n_spans; n++) {
            const struct record_span *p = &k->spans[n];
            if (p->lane >= TRACE_LANES || p->kind >= SPAN_KINDS || p->end_ns < p->begin_ns ||
                (p->task && p->task != &k->table->tasks[p->task_id]))
                err_panic("a span is impossible");
        }
    }
    if (dag_new(&g, s) < 0)
        return;
    ladder_add(l, r, s, g, u);
    critical_add(c, s, g);
}

static void see_folder(const char *folder)
{
    struct record r;
    struct record_step s = { 0 };
    struct ladder l = { 0 };
    struct arena a;
    if (record_open(&r, folder) < 0)
        return;
    arena_init(&a);
    struct critical c = { .arena = &a };
    struct usual u = { .arena = &a };
    if (usual_of_steps(&u, &r, r.steps, i64_min(r.n_steps, MOST_STEPS)) < 0)
        u.n = 0;
    for (i64 i = 0; i < r.n_steps && i < MOST_STEPS; i++)
        if (record_step(&r, r.steps[i], &s) == OK && s.n_ranks < 64)
            see_step(&r, &s, &u, &l, &c);
    critical_sort(&c);
    arena_fini(&a);
    record_step_free(&s);
    record_close(&r);
}

static bool write_file(const char *path, const void *data, i64 bytes)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool whole = fd >= 0 && sys_write_full(fd, data, bytes) == 0;
    if (fd >= 0)
        sys_close(fd);
    return whole;
}

/* With such a table of contents, if any. */
static void see_bytes(const u8 *data, i64 bytes, const u8 *toc, i64 toc_bytes)
{
    char folder[64], path[80], toc_path[90];
    snprintf(folder, sizeof folder, "/dev/shm/headway-fuzz-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/rank-0.spans", folder);
    snprintf(toc_path, sizeof toc_path, "%s" RECORD_TOC_SUFFIX, path);
    sys_mkdirs(folder);
    if (!write_file(path, data, bytes) || (toc && !write_file(toc_path, toc, toc_bytes)))
        return; /* no such folder here */
    see_folder(folder);
    sys_unlink(path);
    sys_unlink(toc_path);
    sys_rmdir(folder);
}

/* The same bytes as entries, with their checksums put right; each begins where the one before it
 * ended, and the chunks that they say are there. */
static void see_as_toc(const u8 *data, i64 bytes)
{
    enum { ENTRIES = 256 };
    static struct record_entry toc[ENTRIES];
    static u8 file[MOST_BYTES];
    const i64 n = i64_min(ENTRIES, bytes / (i64)sizeof toc[0]);
    i64 at = 0, entries = 0;
    memcpy(file, data, (size_t)bytes);
    for (; entries < n; entries++) {
        struct record_entry e;
        memcpy(&e, data + entries * (i64)sizeof e, sizeof e);
        e.chunk.bytes %= 4096;
        struct record_place place = { e.chunk, at + RECORD_CHUNK_BYTES };
        if (record_chunk_end(&e.chunk, at) > bytes)
            break;
        record_toc_enter(&toc[entries], &place, e.begin);
        memcpy(file + at, &e.chunk, sizeof e.chunk);
        at = record_chunk_end(&e.chunk, at);
    }
    see_bytes(file, bytes, (const u8 *)toc, entries * (i64)sizeof toc[0]);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    static u8 copy[MOST_BYTES];
    if (bytes > MOST_BYTES)
        return 0;
    see_bytes(data, (i64)bytes, NULL, 0);
    memcpy(copy, data, bytes);
    for (i64 at = 0; at + RECORD_CHUNK_BYTES <= (i64)bytes;) {
        struct record_chunk c;
        memcpy(&c, copy + at, sizeof c);
        if (c.bytes > bytes || at + RECORD_CHUNK_BYTES + (i64)c.bytes > (i64)bytes)
            break;
        c.checksum = record_checksum(c.kind, copy + at + RECORD_CHUNK_BYTES, (i64)c.bytes);
        memcpy(copy + at, &c, sizeof c);
        at += RECORD_CHUNK_BYTES + round_up((i64)c.bytes, 8);
    }
    see_bytes(copy, (i64)bytes, NULL, 0);
    see_as_toc(copy, (i64)bytes);
    return 0;
}
