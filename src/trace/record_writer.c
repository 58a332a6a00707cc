#include "trace/record_writer.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER_BYTES = 4 << 20, LEAST_FILE_BYTES = 64 << 10 };

struct file {
    char path[2200], old[2200];
    int fd; /* -1: nothing was written to it yet */
    i64 bytes, most_bytes;
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
    atomic_llong dropped;
    atomic_bool failed;
    char error[512]; /* set before `failed` */
};

/* --- files -------------------------------------------------------------------------- */

static int fail_at(const struct file *f, const char *what)
{
    return err_set(ERR_SYS, "%s %s: %s", what, f->path, strerror(errno));
}

static int write_preamble(struct record_writer *w, struct file *f)
{
    f->most_bytes = i64_max(f->most_bytes, 2 * w->preamble.length);
    if (sys_write_full(f->fd, w->preamble.data, w->preamble.length) != 0)
        return fail_at(f, "write");
    f->bytes += w->preamble.length;
    return OK;
}

/* Where the last whole chunk ends. */
static i64 sound_bytes(const char *path)
{
    struct record_reader r;
    struct record_place place;
    i64 end = 0;
    if (record_reader_open(&r, path) < 0)
        return 0;
    while (record_reader_next(&r, &place) == 1)
        end = r.at;
    record_reader_close(&r);
    return end;
}

static int open_file(struct record_writer *w, struct file *f)
{
    i64 end = sys_exists(f->path) ? sound_bytes(f->path) : 0;
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
    if (sys_close(f->fd) != 0 || sys_rename(f->path, f->old) != 0)
        return fail_at(f, "rename");
    f->bytes = 0;
    f->fd = sys_open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return f->fd < 0 ? fail_at(f, "open") : write_preamble(w, f);
}

static int write_chunk(struct record_writer *w, struct file *f, const char *chunk, i64 bytes)
{
    if (f->fd < 0)
        TRY(open_file(w, f));
    if (f->bytes + bytes > f->most_bytes && f->bytes > w->preamble.length)
        TRY(turn_file(w, f));
    if (sys_write_full(f->fd, chunk, bytes) != 0)
        return fail_at(f, "write");
    f->bytes += bytes;
    return OK;
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
    return OK;
}

static void *writer_main(void *argument)
{
    struct record_writer *w = argument;
    pthread_mutex_lock(&w->lock);
    while (!w->stop || w->front.used > 0) {
        if (!w->go && !w->stop) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        struct buffer taken = w->front;
        w->front = (struct buffer){ w->back.data, 0 };
        w->back = taken;
        w->go = false;
        pthread_mutex_unlock(&w->lock);
        if (!atomic_load(&w->failed) && write_back(w) < 0) {
            snprintf(w->error, sizeof w->error, "%s", err_message());
            atomic_store(&w->failed, true);
        }
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
    f->fd = -1;
    f->most_bytes = i64_max(most, LEAST_FILE_BYTES);
}

int record_writer_new(struct record_writer **out, const char *folder, int rank, i64 disk_bytes)
{
    struct record_writer *w = sys_alloc((i64)sizeof *w, 64);
    if (!w)
        return err_set(ERR_LIMIT, "no memory for recording spans");
    memset(w, 0, sizeof *w);
    name_file(&w->files[0], folder, rank, "", disk_bytes / 8 * 3);
    name_file(&w->files[1], folder, rank, ".kept", disk_bytes / 8);
    w->front.data = sys_alloc(BUFFER_BYTES, 64);
    w->back.data = sys_alloc(BUFFER_BYTES, 64);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    int rc = w->front.data && w->back.data ? pthread_create(&w->thread, NULL, writer_main, w)
                                           : ENOMEM;
    if (rc != 0) {
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
    for (int i = 0; i < 2; i++)
        if (w->files[i].fd >= 0)
            sys_close(w->files[i].fd);
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
