#include "train/checkpoint.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_parts.h"
#include "train/checkpoint_write.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    COPY_BELOW = 256 << 20, /* auto: a copy costs less memory than a step's activations */
    PROBE_BYTES = 8 << 20,  /* more than a disk's cache hides in one write, still quick */
    COPY_PART = 4 << 20,    /* what one thread copies at a time: enough to stream */
    DEFAULT_KEEP = 2,
    DEFAULT_PATIENCE_S = 60,
    OTHERS_TIMES = 4, /* the other ranks may take so much longer than this one */
    ATTEMPTS = 2,
};

struct checkpoint_writer {
    char dir[CHECKPOINT_PATH];
    struct checkpoint_options options;
    struct checkpoint_image image;
    int lock_fd;
    u8 *snapshot; /* with snapshot "copy": the tensors in the order of the image */
    const void **live; /* then: where each tensor of the image is copied from */
    struct text state; /* of the checkpoint under way, as JSON */
    i64 step;          /* of the checkpoint under way */
    u64 ticket;        /* of it; 0 for a rank that saves alone */
    u64 begun_ns, written_ns; /* written: this rank's files of it */
    double probe_seconds; /* for one checkpoint at the speed of the probe */
    bool has_thread;
    pthread_t thread;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    bool busy;    /* the io thread has a checkpoint to write */
    bool reading; /* it still needs the tensors (live) as they were at begin */
    bool held;    /* training has not yet asked to change them */
    bool given_up, quit;
    struct checkpoint_result result;
};

/* The one rank, or the first of those that save together. */
static bool leads(const struct checkpoint_writer *w)
{
    return w->options.rank == 0;
}

/* --- waiting --------------------------------------------------------------------- */

static void lock(struct checkpoint_writer *w)
{
    pthread_mutex_lock(&w->mutex);
}

static void unlock(struct checkpoint_writer *w)
{
    pthread_mutex_unlock(&w->mutex);
}

/* Waits, locked, while *flag; false when that took longer than so many seconds. */
static bool wait_while(struct checkpoint_writer *w, const bool *flag, double seconds)
{
    u64 until_ns = sys_now_ns() + (u64)(1e9 * seconds);
    struct timespec until = { (time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000) };
    while (*flag)
        if (pthread_cond_timedwait(&w->changed, &w->mutex, &until) == ETIMEDOUT)
            return !*flag;
    return true;
}

/* --- writing one ----------------------------------------------------------------- */

static void copy_and_forget(const struct checkpoint_writer *w, void *to, const void *from,
                            i64 bytes)
{
    enum { AROUND = 64 << 10 }; /* the system brings pages around those that are read */
    const i64 at = (i64)((uintptr_t)from - (uintptr_t)w->options.away);
    memcpy(to, from, (size_t)bytes);
    if (!w->options.away || at < 0 || at >= w->options.away_bytes)
        return;
    const i64 begin = i64_max(0, at - AROUND);
    const i64 end = i64_min(w->options.away_bytes, at + bytes + AROUND);
    sys_forget_pages((u8 *)(uintptr_t)w->options.away + begin, end - begin);
}

static int copy_bytes(void *context, void *to, const void *from, i64 bytes)
{
    struct checkpoint_writer *w = context;
    int rc = OK;
    lock(w); /* training may change the tensors as soon as the checkpoint is given up */
    if (w->given_up)
        rc = err_set(ERR_SYS, "the disk took longer than %.0f s, and training went on",
                     w->options.patience_s);
    else
        copy_and_forget(w, to, from, bytes);
    unlock(w);
    return rc;
}

static void end_reading(void *context)
{
    struct checkpoint_writer *w = context;
    lock(w);
    w->reading = false;
    pthread_cond_broadcast(&w->changed);
    unlock(w);
}

/* A new try makes sense where the same could succeed, and only with unchanged tensors. */
static bool may_try_again(struct checkpoint_writer *w, int cause)
{
    bool hopeless = cause == 0 || cause == ENOSPC || cause == EDQUOT || cause == EROFS ||
                    cause == EACCES || cause == EPERM;
    lock(w);
    bool again = !hopeless && !w->given_up && (w->snapshot || w->held);
    w->reading = again;
    pthread_cond_broadcast(&w->changed);
    unlock(w);
    return again;
}

/* Keeps the newest valid ones up to the step just saved; the rest goes. A failure costs
 * disk space, no safety. */
static void prune(struct checkpoint_writer *w)
{
    i64 *steps, bytes, n = checkpoint_steps(w->dir, &steps);
    double saved_at;
    int kept = 0;
    for (i64 i = n - 1; i >= 0; i--) {
        if (steps[i] > w->step)
            continue;
        if (kept < w->options.keep) {
            kept += checkpoint_peek(w->dir, steps[i], &bytes, &saved_at) == OK;
            continue;
        }
        if (checkpoint_delete(w->dir, steps[i]) != OK)
            log_line(LOG_WARN, "an old checkpoint stays: %s", err_message());
    }
    if (n < 0)
        log_line(LOG_WARN, "old checkpoints stay: %s", err_message());
    sys_free(steps);
}

static void note_result(struct checkpoint_writer *w, int rc)
{
    lock(w);
    struct checkpoint_result *r = &w->result;
    if (rc == OK) {
        r->step = w->step;
        r->missed = 0;
        r->bytes = w->image.file_bytes;
        r->write_seconds = 1e-9 * (double)(sys_now_ns() - w->begun_ns);
        r->error[0] = '\0';
    } else {
        r->missed++;
        snprintf(r->error, sizeof r->error, "checkpoint of step %lld failed: %s",
                 (long long)w->step, err_message());
    }
    unlock(w);
    if (rc != OK && leads(w))
        log_line(LOG_WARN, "%s (%d in a row; the run stops after more than %d)", r->error,
                 r->missed, w->options.max_missed);
}

/* Whether the leading rank goes on waiting for the others: not when the run ends, and not
 * when they take much longer than it took itself. */
static bool waits_for_others(void *context)
{
    struct checkpoint_writer *w = context;
    lock(w);
    double own = 1e-9 * (double)(w->written_ns - w->begun_ns);
    double waited = 1e-9 * (double)(sys_now_ns() - w->written_ns);
    bool goes_on = !w->quit && waited < w->options.patience_s + OTHERS_TIMES * own;
    unlock(w);
    return goes_on;
}

/* One attempt of a rank that saves alone. */
static int try_alone(struct checkpoint_writer *w, const struct checkpoint_gate *gate, int *cause)
{
    return checkpoint_write(&w->image, w->dir, w->step, w->state.data, gate, cause);
}

/* One attempt at this rank's files of a checkpoint that several write. */
static int try_part(struct checkpoint_writer *w, const struct checkpoint_gate *gate, int *cause)
{
    return checkpoint_files(&w->image, w->dir, w->step, w->ticket, gate, cause);
}

static int attempt(struct checkpoint_writer *w,
                   int (*try)(struct checkpoint_writer *, const struct checkpoint_gate *, int *))
{
    const struct checkpoint_gate gate = { copy_bytes, end_reading, w };
    int rc = OK, cause;
    for (int i = 1; i <= ATTEMPTS; i++) {
        rc = try(w, &gate, &cause);
        if (rc == OK || i == ATTEMPTS || !may_try_again(w, cause))
            break;
        log_line(LOG_WARN, "checkpoint of step %lld: %s; trying once more with new files",
                 (long long)w->step, err_message());
    }
    return rc;
}

/* This rank's part; the leading one sees to the whole. */
static int write_part(struct checkpoint_writer *w)
{
    const struct checkpoint_patience patience = { waits_for_others, w };
    char temporary[CHECKPOINT_PATH];
    int cause, rc = attempt(w, try_part);
    w->written_ns = sys_now_ns();
    if (!leads(w)) {
        if (rc == OK)
            rc = checkpoint_part_done(&w->image, w->dir, w->step, w->ticket, &cause);
        if (rc < 0)
            checkpoint_part_failed(&w->image, w->dir, w->step, w->ticket, err_message());
        return rc;
    }
    if (rc == OK)
        rc = checkpoint_parts_commit(&w->image, w->dir, w->step, w->ticket, w->state.data,
                                     &patience, &cause);
    if (rc < 0 && checkpoint_temporary(temporary, w->dir, w->step, w->ticket, "") == OK)
        sys_remove_tree(temporary); /* if not now, the next save cleans up */
    return rc;
}

static void write_one(struct checkpoint_writer *w)
{
    int rc = w->image.ranks > 1 ? write_part(w) : attempt(w, try_alone);
    note_result(w, rc);
    if (rc == OK && leads(w))
        prune(w);
}

static void *io_main(void *context)
{
    struct checkpoint_writer *w = context;
    lock(w);
    for (;;) {
        while (!w->busy && !w->quit)
            pthread_cond_wait(&w->changed, &w->mutex);
        if (!w->busy)
            break;
        unlock(w);
        write_one(w);
        lock(w);
        w->busy = w->reading = w->held = false;
        pthread_cond_broadcast(&w->changed);
    }
    unlock(w);
    return NULL;
}

/* --- the snapshot ---------------------------------------------------------------- */

/* Bytes [part * COPY_PART, ...) of the snapshot, which is the image's tensors end to end. */
static void copy_part(void *context, i64 part, int thread)
{
    struct checkpoint_writer *w = context;
    i64 begin = part * COPY_PART, end = i64_min(begin + COPY_PART, w->image.tensor_bytes);
    i64 at = 0, index = 0;
    (void)thread;
    for (i64 f = 0; f < w->image.n; f++) {
        for (i64 i = 0; i < w->image.file[f].n; i++, index++) {
            i64 bytes = w->image.file[f].piece[i].bytes;
            i64 from = i64_max(begin, at), to = i64_min(end, at + bytes);
            if (from < to)
                copy_and_forget(w, w->snapshot + from, (const u8 *)w->live[index] + (from - at),
                                to - from);
            at += bytes;
        }
    }
}

static void take_snapshot(struct checkpoint_writer *w)
{
    i64 parts = ceil_div(w->image.tensor_bytes, COPY_PART);
    if (w->options.pool)
        pool_run(w->options.pool, parts, copy_part, w);
    else
        for (i64 part = 0; part < parts; part++)
            copy_part(w, part, 0);
}

/* From now on the image's tensors lie in the snapshot. */
static int use_snapshot(struct checkpoint_writer *w)
{
    i64 at = 0, index = 0, tensors = 0;
    w->snapshot = sys_map_pages(w->image.tensor_bytes);
    if (!w->snapshot)
        return err_set(ERR_LIMIT, "no memory for a copy of %lld bytes: set checkpoint.snapshot "
                       "to live", (long long)w->image.tensor_bytes);
    for (i64 f = 0; f < w->image.n; f++)
        tensors += w->image.file[f].n;
    w->live = ARENA_ARRAY(&w->image.arena, const void *, tensors);
    for (i64 f = 0; f < w->image.n; f++) {
        for (i64 i = 0; i < w->image.file[f].n; i++) {
            struct checkpoint_piece *p = &w->image.file[f].piece[i];
            w->live[index++] = p->data;
            p->data = w->snapshot + at;
            at += p->bytes;
        }
    }
    take_snapshot(w); /* touches the pages, so that no later checkpoint waits for them */
    return OK;
}

/* --- before the first ------------------------------------------------------------ */

/* The first bytes of the largest tensor. */
static i64 probe_data(const struct checkpoint_writer *w, const void **data)
{
    i64 bytes = 0;
    for (i64 f = 0; f < w->image.n; f++) {
        for (i64 i = 0; i < w->image.file[f].n; i++) {
            const struct checkpoint_piece *p = &w->image.file[f].piece[i];
            if (p->bytes > bytes) {
                *data = p->data;
                bytes = p->bytes;
            }
        }
    }
    return i64_min(bytes, PROBE_BYTES);
}

/* A file and a rename: what fails here would fail at the first checkpoint. */
static int probe(struct checkpoint_writer *w)
{
    const char *dir = w->dir;
    const void *data = "";
    i64 bytes = probe_data(w, &data);
    u64 begin = sys_now_ns();
    char path[CHECKPOINT_PATH + 32], renamed[CHECKPOINT_PATH + 32];
    snprintf(path, sizeof path, "%s/step-probe.tmp", dir);
    snprintf(renamed, sizeof renamed, "%s/step-probe.del", dir);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set(ERR_SYS, "create a file: %s", strerror(errno));
    bool bad = sys_write_full(fd, data, bytes) != 0 || sys_fsync(fd) != 0;
    int saved = errno;
    double seconds = 1e-9 * (double)(sys_now_ns() - begin);
    w->probe_seconds = seconds * (double)w->image.file_bytes / (double)i64_max(bytes, 1);
    if (sys_close(fd) != 0 || bad)
        return err_set(ERR_SYS, "write and fsync a file: %s", strerror(bad ? saved : errno));
    if (sys_rename(path, renamed) != 0)
        return err_set(ERR_SYS, "rename a file: %s", strerror(errno));
    if (sys_fsync_dir(dir) != 0)
        return err_set(ERR_SYS, "fsync the folder: %s", strerror(errno));
    if (sys_unlink(renamed) != 0)
        return err_set(ERR_SYS, "delete a file: %s", strerror(errno));
    return OK;
}

static int take_lock(struct checkpoint_writer *w)
{
    w->lock_fd = sys_open(w->dir, O_RDONLY | O_DIRECTORY, 0);
    if (w->lock_fd < 0)
        return err_set(ERR_SYS, "open %s: %s", w->dir, strerror(errno));
    if (sys_lock(w->lock_fd) == 0)
        return OK;
    if (errno == EWOULDBLOCK)
        return err_set(ERR_USAGE, "another run saves its checkpoints into %s: choose another "
                       "folder, or stop that run", w->dir);
    return err_set(ERR_SYS, "lock %s: %s", w->dir, strerror(errno));
}

/* What loading passed over would be taken for the newest by who does not read every byte. */
static int set_aside_damaged(const struct checkpoint_writer *w)
{
    const struct checkpoint_options *o = &w->options;
    if (o->resumed_step < 0)
        return OK;
    i64 *steps, n = checkpoint_steps(w->dir, &steps);
    int rc = n < 0 ? (int)n : OK;
    for (i64 i = 0; i < n && rc == OK; i++)
        if (steps[i] > o->resumed_step && steps[i] <= o->seen_step)
            rc = checkpoint_set_aside(w->dir, steps[i]);
    sys_free(steps);
    return rc;
}

/* The others' shares are as large as this one's, more or less. */
static int preflight(struct checkpoint_writer *w)
{
    i64 newest, *steps, available;
    if (!leads(w))
        return sys_exists(w->dir) ? OK
                                  : err_set(ERR_SYS, "rank %d does not see %s: checkpoint.dir "
                                            "must lie on a file system that all ranks share",
                                            w->options.rank, w->dir);
    TRY(checkpoint_make_folder(w->dir));
    TRY(take_lock(w));
    TRY(checkpoint_clean(w->dir));
    TRY(checkpoint_latest(w->dir, &newest));
    if (newest > i64_max(w->options.resumed_step, w->options.seen_step))
        return err_set(ERR_USAGE, "%s holds a checkpoint of step %lld, newer than where this "
                       "run starts: resume from it, discard it, or choose another folder",
                       w->dir, (long long)newest);
    TRY(set_aside_damaged(w));
    const i64 kept = checkpoint_steps(w->dir, &steps);
    if (kept < 0)
        return (int)kept;
    sys_free(steps);
    /* The one before goes when the next is written. */
    const i64 needed = (kept > 0 ? 1 : 2) * w->image.file_bytes * w->image.ranks;
    available = sys_free_bytes(w->dir);
    if (available >= 0 && available < needed)
        return err_set(ERR_LIMIT, "%s has %.3g MB free; %s %.3g MB: make "
                       "room, or set checkpoint.dir to a folder on another disk", w->dir,
                       1e-6 * (double)available,
                       kept > 0 ? "one more checkpoint needs" : "two checkpoints need",
                       1e-6 * (double)needed);
    int rc = probe(w);
    return rc < 0 ? err_context(rc, "checkpoints cannot be saved in %s", w->dir) : OK;
}

/* --- entry points ---------------------------------------------------------------- */

static void init_locks(struct checkpoint_writer *w)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->mutex, NULL);
}

static void set_options(struct checkpoint_writer *w, const struct checkpoint_options *options)
{
    w->options = *options;
    if (w->options.keep < 1)
        w->options.keep = DEFAULT_KEEP;
    w->options.ranks = w->options.ranks < 1 ? 1 : w->options.ranks;
    if (w->options.patience_s <= 0)
        w->options.patience_s = DEFAULT_PATIENCE_S;
    w->result.step = w->options.resumed_step;
}

i64 checkpoint_copy_bytes(const struct checkpoint_options *options, i64 bytes)
{
    bool copies = options->snapshot == CHECKPOINT_COPY ||
                  (options->snapshot == CHECKPOINT_AUTO && bytes < COPY_BELOW);
    return options->async && copies ? bytes : 0;
}

static int start(struct checkpoint_writer *w)
{
    TRY(preflight(w));
    if (!w->options.async)
        return OK; /* nothing changes before begin returns: no copy, no thread */
    if (checkpoint_copy_bytes(&w->options, w->image.tensor_bytes) > 0)
        TRY(use_snapshot(w));
    int rc = pthread_create(&w->thread, NULL, io_main, w);
    if (rc != 0)
        return err_set(ERR_SYS, "start the checkpoint thread: %s", strerror(rc));
    w->has_thread = true;
    return OK;
}

int checkpoint_writer_new(struct checkpoint_writer **out, const char *dir,
                          const struct checkpoint_tensor *tensors, i64 n,
                          const struct checkpoint_options *options)
{
    if (strlen(dir) + 100 > CHECKPOINT_PATH)
        return err_set(ERR_USAGE, "path too long: %.200s...", dir);
    struct checkpoint_writer *w = sys_alloc((i64)sizeof *w, 64);
    if (!w)
        return err_set(ERR_LIMIT, "no memory for checkpoints");
    memset(w, 0, sizeof *w);
    memcpy(w->dir, dir, strlen(dir) + 1);
    w->lock_fd = -1;
    init_locks(w);
    set_options(w, options);
    int rc = checkpoint_image_init(&w->image, tensors, n, w->options.rank, w->options.ranks);
    if (rc == OK)
        rc = start(w);
    if (rc == OK)
        *out = w;
    else
        checkpoint_writer_free(w);
    return rc;
}

void checkpoint_writer_free(struct checkpoint_writer *w)
{
    if (!w)
        return;
    if (w->has_thread) {
        lock(w);
        w->quit = true;
        pthread_cond_broadcast(&w->changed);
        unlock(w);
        pthread_join(w->thread, NULL);
    }
    if (w->lock_fd >= 0)
        sys_close(w->lock_fd);
    sys_unmap(w->snapshot, w->image.tensor_bytes);
    checkpoint_image_fini(&w->image);
    text_fini(&w->state);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    sys_free(w);
}

/* Whether the run may go on, after so many misses: for the leading rank to say. */
static int verdict(struct checkpoint_writer *w)
{
    lock(w);
    int rc = leads(w) && w->result.missed > w->options.max_missed
                 ? err_set(ERR_SYS, "%d checkpoints in a row failed; the last: %s",
                           w->result.missed, w->result.error)
                 : OK;
    unlock(w);
    return rc;
}

/* The one before must be through; if it is not within patience, this one is missed. */
static bool wait_for_turn(struct checkpoint_writer *w, i64 step)
{
    lock(w);
    bool idle = wait_while(w, &w->busy, w->options.patience_s);
    i64 before = w->step;
    if (!idle) {
        w->result.missed++;
        snprintf(w->result.error, sizeof w->result.error,
                 "checkpoint of step %lld failed: that of step %lld is still being written",
                 (long long)step, (long long)before);
    }
    unlock(w);
    if (!idle)
        log_line(LOG_WARN, "%s", w->result.error);
    return idle;
}

static int put_state(struct checkpoint_writer *w, const json_t *state)
{
    size_t flags = JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII;
    size_t bytes = json_dumpb(state, NULL, 0, flags);
    if (!json_is_object(state) || bytes == 0)
        return err_set(ERR_INTERNAL, "the training state is not a JSON object");
    text_clear(&w->state);
    text_repeat(&w->state, ' ', (i64)bytes);
    json_dumpb(state, w->state.data, bytes, flags);
    return OK;
}

static void hand_over(struct checkpoint_writer *w)
{
    if (w->snapshot)
        take_snapshot(w);
    lock(w);
    w->given_up = false;
    w->held = w->reading = !w->snapshot;
    w->busy = true;
    pthread_cond_broadcast(&w->changed);
    unlock(w);
}

/* The writer is idle, and the step not yet saved. */
static int begin(struct checkpoint_writer *w, i64 step, u64 ticket, const json_t *state,
                 u64 start_ns)
{
    if (leads(w))
        TRY(put_state(w, state));
    w->step = step;
    w->ticket = ticket;
    w->begun_ns = start_ns;
    if (w->has_thread) {
        hand_over(w);
    } else {
        w->held = true; /* until this function returns */
        write_one(w);
    }
    lock(w);
    w->result.stall_ns += sys_now_ns() - start_ns;
    unlock(w);
    return verdict(w);
}

int checkpoint_begin(struct checkpoint_writer *w, i64 step, const json_t *state)
{
    if (!w)
        return OK;
    assert(w->image.ranks == 1);
    u64 start_ns = sys_now_ns();
    if (w->has_thread && !wait_for_turn(w, step))
        return verdict(w);
    if (step == w->result.step)
        return OK;
    TRY(verdict(w));
    return begin(w, step, 0, state, start_ns);
}

/* No two attempts have the same, on whichever machine. */
static u64 new_ticket(const struct checkpoint_writer *w)
{
    i64 facts[] = { (i64)sys_now_ns(), sys_process_id(), w->step };
    double now = sys_wall_seconds();
    return hash64(&now, sizeof now, hash64(facts, sizeof facts, 0)) | 1;
}

int checkpoint_open_step(struct checkpoint_writer *w, i64 step, u64 *ticket)
{
    int cause;
    *ticket = 0;
    if (w->has_thread && !wait_for_turn(w, step))
        return verdict(w);
    if (step == w->result.step)
        return OK;
    TRY(verdict(w));
    u64 next = new_ticket(w);
    w->step = step;
    int rc = checkpoint_prepare(w->dir, step, next, &cause);
    if (rc < 0) {
        note_result(w, rc);
        return verdict(w);
    }
    *ticket = next;
    return OK;
}

int checkpoint_begin_part(struct checkpoint_writer *w, i64 step, u64 ticket, const json_t *state)
{
    u64 start_ns = sys_now_ns();
    if (w->has_thread && !wait_for_turn(w, step)) { /* the leading rank has already waited */
        checkpoint_part_failed(&w->image, w->dir, step, ticket, w->result.error);
        return verdict(w);
    }
    return begin(w, step, ticket, state, start_ns);
}

void checkpoint_guard(struct checkpoint_writer *w)
{
    if (!w)
        return;
    u64 start_ns = sys_now_ns();
    lock(w);
    if (w->held) {
        if (!wait_while(w, &w->reading, w->options.patience_s)) {
            w->given_up = true;
            w->reading = false;
        }
        w->held = false;
        w->result.stall_ns += sys_now_ns() - start_ns;
    }
    unlock(w);
}

int checkpoint_poll(struct checkpoint_writer *w, struct checkpoint_result *result)
{
    *result = (struct checkpoint_result){ .step = -1 };
    if (!w)
        return OK;
    lock(w);
    *result = w->result;
    unlock(w);
    return verdict(w);
}

double checkpoint_predict_seconds(struct checkpoint_writer *w)
{
    if (!w)
        return 0;
    lock(w);
    double seconds = w->result.bytes > 0 ? w->result.write_seconds : w->probe_seconds;
    unlock(w);
    return seconds;
}

int checkpoint_wait(struct checkpoint_writer *w, double seconds,
                    struct checkpoint_result *result)
{
    enum { FOREVER_S = 1000000000 };
    *result = (struct checkpoint_result){ .step = -1 };
    if (!w)
        return OK;
    lock(w);
    bool idle = wait_while(w, &w->busy, seconds > 0 ? seconds : FOREVER_S);
    *result = w->result;
    int rc = !idle ? err_set(ERR_SYS, "checkpoint of step %lld is still being written after "
                             "%.0f s", (long long)w->step, seconds)
             : w->result.missed > 0 ? err_set(ERR_SYS, "%s", w->result.error)
                                    : OK;
    unlock(w);
    return rc;
}

bool checkpoint_busy(struct checkpoint_writer *w)
{
    lock(w);
    bool busy = w->busy;
    unlock(w);
    return busy;
}

int checkpoint_discard_after(const char *dir, i64 step)
{
    i64 *steps, n = checkpoint_steps(dir, &steps);
    int rc = n < 0 ? (int)n : OK;
    for (i64 i = n - 1; i >= 0 && steps[i] > step && rc == OK; i--)
        rc = checkpoint_delete(dir, steps[i]);
    sys_free(steps);
    return rc;
}

int checkpoint_rewind(struct checkpoint_writer *w, i64 step)
{
    if (!w)
        return OK;
    lock(w);
    bool idle = wait_while(w, &w->busy, w->options.patience_s);
    if (idle)
        w->result.step = step;
    unlock(w);
    if (!idle)
        return err_set(ERR_SYS, "checkpoint of step %lld is still being written",
                       (long long)w->step);
    return leads(w) ? checkpoint_discard_after(w->dir, step) : OK;
}
