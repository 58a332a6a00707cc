/* Any bytes as a recorded rank: refused, or read as steps whose spans lie within what they name; as
 * they are, and with the checksums of what looks like chunks put right, so that what is behind them
 * is reached. */
#include "base/err.h"
#include "base/sys.h"
#include "diagnose/critical.h"
#include "diagnose/ladder.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 16, MOST_STEPS = 64 };

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void see_step(struct record *r, struct record_step *s, struct ladder *l, struct critical *c)
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
    ladder_add(l, r, s, g);
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
    for (i64 i = 0; i < r.n_steps && i < MOST_STEPS; i++)
        if (record_step(&r, r.steps[i], &s) == OK && s.n_ranks < 64)
            see_step(&r, &s, &l, &c);
    critical_sort(&c);
    arena_fini(&a);
    record_step_free(&s);
    record_close(&r);
}

static void see_bytes(const u8 *data, i64 bytes)
{
    char folder[64], path[80];
    snprintf(folder, sizeof folder, "/dev/shm/headway-fuzz-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/rank-0.spans", folder);
    sys_mkdirs(folder);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || sys_write_full(fd, data, bytes) != 0)
        return; /* no such folder here */
    sys_close(fd);
    see_folder(folder);
    sys_unlink(path);
    sys_rmdir(folder);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    static u8 copy[MOST_BYTES];
    if (bytes > MOST_BYTES)
        return 0;
    see_bytes(data, (i64)bytes);
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
    see_bytes(copy, (i64)bytes);
    return 0;
}
