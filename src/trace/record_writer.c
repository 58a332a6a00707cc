#include "trace/record_writer.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"
#include "trace/record_toc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BUFFER_BYTES = 4 << 20, LEAST_FILE_BYTES = 64 << 10, ENTRIES = 1024,
       KEPT_PART = 8, /* of the disk, one in so many is for either file of kept steps */
       FEW_ENTRIES = 64 /* what a reader goes through itself is written with what comes next */ };
/* Waking a thread takes some 100 us of a virtual processor's time, which short steps cannot spare:
 * within so long of the last writing it is left to wake by itself. */
static const u64 pause_ns = 100 * 1000 * 1000;

struct file {
    char path[2200], old[2200];
    int fd; /* -1: nothing was written to it yet */
    i64 bytes, most_bytes;
    /* Its table of contents. */
    char toc[2210], old_toc[2210];
    int toc_fd; /* -1: there is none */
    i64 toc_bytes;
    struct record_entry *entries; /* [ENTRIES]; n_entries of them are not written yet */
    i64 n_entries;
};

struct buffer {
    char *data;
    i64 used;
};

/* In a buffer, before each chunk. */
struct entry {
    u32 where;
    u32 bytes; /* of the chunk with its head, a multiple of 8 */
};

struct record_writer {
    struct file files[2]; /* newest, kept */
    struct text preamble;
    struct buffer front, back; /* put into; written by the thread */
    pthread_t thread;
    pthread_mutex_t lock; /* of front, go and stop */
    pthread_cond_t wake;
    bool go, stop;
    bool idle; /* the thread wakes only when it is told to */
    atomic_llong dropped;
    atomic_bool failed;
    char error[512]; /* set before `failed` */
};

/* --- files -------------------------------------------------------------------------- */

static int fail_at(const struct file *f, const char *what)
{
    return err_set(ERR_SYS, "%s %s: %s", what, f->path, strerror(errno));
}

/* The table only saves time: where it cannot be written there is none. */
static void drop_toc(struct file *f)
{
    if (f->toc_fd >= 0)
        sys_close(f->toc_fd);
    sys_unlink(f->toc);
    f->toc_fd = -1;
    f->toc_bytes = 0;
}

static void write_toc(struct file *f)
{
    const i64 bytes = f->n_entries * (i64)sizeof *f->entries;
    if (f->toc_fd >= 0 && bytes > 0) {
        f->toc_bytes += bytes;
        if (sys_write_full(f->toc_fd, f->entries, bytes) != 0)
            drop_toc(f);
    }
    f->n_entries = 0;
}

/* Behind so many entries. */
static void open_toc(struct file *f, i64 entries)
{
    f->toc_bytes = entries * (i64)sizeof(struct record_entry);
    f->toc_fd = sys_open(f->toc, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (f->toc_fd >= 0 && (sys_truncate(f->toc_fd, f->toc_bytes) != 0 ||
                           sys_seek(f->toc_fd, f->toc_bytes, SEEK_SET) < 0))
        drop_toc(f);
}

static void enter(struct file *f, const struct record_place *place, const void *payload)
{
    if (f->n_entries == ENTRIES)
        write_toc(f);
    record_toc_enter(&f->entries[f->n_entries++], place, payload);
}

/* Whole chunks, to be written at the file's end. */
static void enter_chunks(struct file *f, const char *chunks, i64 bytes)
{
    for (i64 at = 0; at < bytes;) {
        struct record_place place = { .at = f->bytes + at + RECORD_CHUNK_BYTES };
        memcpy(&place.chunk, chunks + at, sizeof place.chunk);
        enter(f, &place, chunks + at + RECORD_CHUNK_BYTES);
        at = record_chunk_end(&place.chunk, at);
    }
}

static int write_chunks(struct file *f, const char *chunks, i64 bytes)
{
    if (sys_write_full(f->fd, chunks, bytes) != 0)
        return fail_at(f, "write");
    enter_chunks(f, chunks, bytes);
    f->bytes += bytes;
    return OK;
}

static int write_preamble(struct record_writer *w, struct file *f)
{
    f->most_bytes = i64_max(f->most_bytes, 2 * w->preamble.length);
    return write_chunks(f, w->preamble.data, w->preamble.length);
}

/* Where the last whole chunk ends, 0 where there is none; the table of contents goes on behind the
 * chunks that it has, with those that it lacks. */
static i64 sound_bytes(struct file *f)
{
    struct record_reader r;
    struct record_place place;
    u8 begin[RECORD_BEGIN_BYTES];
    i64 end = 0, entered = 0;
    bool lacks = false;
    if (!sys_exists(f->path) || record_reader_open(&r, f->path) < 0) {
        open_toc(f, 0);
        return 0;
    }
    while (record_reader_next(&r, &place) == 1) {
        end = r.at;
        const i64 n = i64_min((i64)sizeof begin, (i64)place.chunk.bytes);
        if (r.toc) {
            entered++;
            continue;
        }
        if (!lacks)
            open_toc(f, entered); /* the reader is done with it */
        lacks = true;
        if (record_reader_peek(&r, &place, begin, n) == OK)
            enter(f, &place, begin);
    }
    record_reader_close(&r);
    if (!lacks)
        open_toc(f, entered);
    write_toc(f);
    return end;
}

static int open_file(struct record_writer *w, struct file *f)
{
    const i64 end = sound_bytes(f);
    f->fd = sys_open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (f->fd < 0)
        return fail_at(f, "open");
    if (sys_truncate(f->fd, end) != 0 || sys_seek(f->fd, end, SEEK_SET) < 0)
        return fail_at(f, "cut");
    f->bytes = end;
    return write_preamble(w, f);
}

static int turn_file(struct record_writer *w, struct file *f)
{
    write_toc(f);
    sys_unlink(f->old_toc); /* at no moment a table beside another file */
    if (sys_close(f->fd) != 0 || sys_rename(f->path, f->old) != 0)
        return fail_at(f, "rename");
    if (f->toc_fd >= 0 && (sys_close(f->toc_fd) != 0 || sys_rename(f->toc, f->old_toc) != 0))
        sys_unlink(f->toc);
    open_toc(f, 0);
    f->bytes = 0;
    f->fd = sys_open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return f->fd < 0 ? fail_at(f, "open") : write_preamble(w, f);
}

static int write_chunk(struct record_writer *w, struct file *f, const char *chunk, i64 bytes)
{
    if (f->fd < 0)
        TRY(open_file(w, f));
    const i64 toc_bytes = f->toc_bytes + (f->n_entries + 1) * (i64)sizeof *f->entries;
    if (f->bytes + toc_bytes + bytes > f->most_bytes && f->bytes > w->preamble.length)
        TRY(turn_file(w, f));
    return write_chunks(f, chunk, bytes);
}

/* --- the thread --------------------------------------------------------------------- */

static void seal(char *chunk)
{
    struct record_chunk c;
    memcpy(&c, chunk, sizeof c);
    c.checksum = record_checksum(c.kind, chunk + sizeof c, (i64)c.bytes);
    memcpy(chunk, &c, sizeof c);
}

static int write_back(struct record_writer *w)
{
    if (w->files[0].fd < 0)
        TRY(open_file(w, &w->files[0]));
    for (i64 at = 0; at < w->back.used;) {
        struct entry e;
        char *chunk = w->back.data + at + sizeof e;
        memcpy(&e, w->back.data + at, sizeof e);
        seal(chunk);
        for (int i = 0; i < 2; i++)
            if (e.where & 1u << i)
                TRY(write_chunk(w, &w->files[i], chunk, e.bytes));
        at += (i64)sizeof e + e.bytes;
    }
    for (int i = 0; i < 2; i++)
        if (w->files[i].n_entries >= FEW_ENTRIES)
            write_toc(&w->files[i]);
    return OK;
}

/* With the lock. Behind a pause of which only a full buffer is a reason to end it. */
static void wait_for_go(struct record_writer *w, u64 until_ns)
{
    const struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000),
                                    .tv_nsec = (long)(until_ns % 1000000000) };
    int rc = 0;
    while (rc == 0 && !w->stop && w->front.used < BUFFER_BYTES / 2)
        rc = pthread_cond_timedwait(&w->wake, &w->lock, &until);
    w->idle = true;
    while (!w->go && !w->stop)
        pthread_cond_wait(&w->wake, &w->lock);
    w->idle = false;
}

static void *writer_main(void *argument)
{
    struct record_writer *w = argument;
    u64 until_ns = 0;
    pthread_mutex_lock(&w->lock);
    while (!w->stop || w->front.used > 0) {
        if (!w->stop)
            wait_for_go(w, until_ns);
        struct buffer taken = w->front;
        w->front = (struct buffer){ w->back.data, 0 };
        w->back = taken;
        w->go = false;
        pthread_mutex_unlock(&w->lock);
        if (!atomic_load(&w->failed) && write_back(w) < 0) {
            snprintf(w->error, sizeof w->error, "%s", err_message());
            atomic_store(&w->failed, true);
        }
        until_ns = sys_now_ns() + pause_ns;
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- what others call --------------------------------------------------------------- */

static void name_file(struct file *f, const char *folder, int rank, const char *what, i64 most)
{
    snprintf(f->path, sizeof f->path, "%s/rank-%d%s.spans", folder, rank, what);
    snprintf(f->old, sizeof f->old, "%s/rank-%d%s.old.spans", folder, rank, what);
    snprintf(f->toc, sizeof f->toc, "%s" RECORD_TOC_SUFFIX, f->path);
    snprintf(f->old_toc, sizeof f->old_toc, "%s" RECORD_TOC_SUFFIX, f->old);
    f->fd = f->toc_fd = -1;
    f->most_bytes = i64_max(most, LEAST_FILE_BYTES);
}

int record_writer_new(struct record_writer **out, const char *folder, int rank, i64 disk_bytes)
{
    struct record_writer *w = sys_alloc((i64)sizeof *w, 64);
    if (!w)
        return err_set(ERR_LIMIT, "no memory for recording spans");
    memset(w, 0, sizeof *w);
    pthread_condattr_t monotonic;
    const i64 kept = disk_bytes / KEPT_PART; /* and as much for its older generation */
    name_file(&w->files[0], folder, rank, "", (KEPT_PART - 2) / 2 * kept);
    name_file(&w->files[1], folder, rank, ".kept", kept);
    w->front.data = sys_alloc(BUFFER_BYTES, 64);
    w->back.data = sys_alloc(BUFFER_BYTES, 64);
    bool room = w->front.data && w->back.data;
    for (int i = 0; i < 2; i++) {
        w->files[i].entries = sys_alloc(ENTRIES * (i64)sizeof(struct record_entry), 64);
        room = room && w->files[i].entries;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int rc = room ? pthread_create(&w->thread, NULL, writer_main, w) : ENOMEM;
    if (rc != 0) {
        for (int i = 0; i < 2; i++)
            sys_free(w->files[i].entries);
        sys_free(w->front.data);
        sys_free(w->back.data);
        sys_free(w);
        return err_set(ERR_SYS, "cannot start the thread that records spans: %s", strerror(rc));
    }
    *out = w;
    return OK;
}

void record_writer_free(struct record_writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    for (int i = 0; i < 2; i++) {
        write_toc(&w->files[i]);
        if (w->files[i].fd >= 0)
            sys_close(w->files[i].fd);
        if (w->files[i].toc_fd >= 0)
            sys_close(w->files[i].toc_fd);
        sys_free(w->files[i].entries);
    }
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    sys_free(w->front.data);
    sys_free(w->back.data);
    text_fini(&w->preamble);
    sys_free(w);
}

void record_writer_preamble(struct record_writer *w, enum record_kind kind, const void *payload,
                            i64 bytes)
{
    const struct record_chunk chunk = { kind, record_checksum(kind, payload, bytes), (u64)bytes };
    text_add_bytes(&w->preamble, (const char *)&chunk, (i64)sizeof chunk);
    text_add_bytes(&w->preamble, payload, bytes);
    text_repeat(&w->preamble, '\0', round_up(bytes, 8) - bytes);
}

i64 record_writer_least_bytes(const struct record_writer *w, i64 chunk_bytes)
{
    const i64 begin = w->preamble.length;
    return KEPT_PART * i64_max(LEAST_FILE_BYTES, begin + i64_max(begin, chunk_bytes));
}

bool record_writer_put(struct record_writer *w, int where, enum record_kind kind, const void *head,
                       i64 head_bytes, const void *body, i64 body_bytes)
{
    const struct record_chunk chunk = { kind, 0, (u64)(head_bytes + body_bytes) };
    const i64 padded = round_up(head_bytes + body_bytes, 8);
    const struct entry e = { (u32)where, (u32)((i64)sizeof chunk + padded) };
    pthread_mutex_lock(&w->lock);
    struct buffer *b = &w->front;
    bool fits = b->used + (i64)sizeof e + e.bytes <= BUFFER_BYTES;
    if (fits) {
        char *p = b->data + b->used;
        memcpy(p, &e, sizeof e);
        memcpy(p += sizeof e, &chunk, sizeof chunk);
        memcpy(p += sizeof chunk, head, (size_t)head_bytes);
        if (body_bytes > 0)
            memcpy(p + head_bytes, body, (size_t)body_bytes);
        memset(p + head_bytes + body_bytes, 0, (size_t)(padded - head_bytes - body_bytes));
        b->used += (i64)sizeof e + e.bytes;
    }
    pthread_mutex_unlock(&w->lock);
    if (!fits)
        atomic_fetch_add(&w->dropped, 1);
    return fits;
}

void record_writer_go(struct record_writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->go = true;
    if (w->idle || w->front.used >= BUFFER_BYTES / 2)
        pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

i64 record_writer_dropped(const struct record_writer *w)
{
    return atomic_load(&w->dropped);
}

const char *record_writer_error(const struct record_writer *w)
{
    return atomic_load(&w->failed) ? w->error : NULL;
}
