#include "train/run_folder.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { METRICS_SCHEMA = 1 };

static void write_log_line(void *context, enum log_level level, const char *line)
{
    struct run_folder *f = context;
    char text[2200];
    time_t now = (time_t)sys_wall_seconds();
    struct tm utc;
    gmtime_r(&now, &utc);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ ", &utc);
    n += (size_t)snprintf(text + n, sizeof text - n, "%-5s %s\n", log_level_name(level), line);
    sys_write_full(f->log_fd, text, (i64)n); /* a lost log line must not end a run */
}

void run_folder_note(struct run_folder *f, enum log_level level, const char *line)
{
    if (f->log_fd >= 0)
        write_log_line(f, level, line);
}

static void default_name(char *out, size_t size, const char *stem)
{
    time_t now = (time_t)sys_wall_seconds();
    struct tm utc;
    char stamp[32];
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &utc);
    snprintf(out, size, "%s-%s", stem, stamp);
}

/* manifest.json is what a run has. */
static bool holds_run(const struct run_folder *f)
{
    char manifest[2100];
    snprintf(manifest, sizeof manifest, "%s/manifest.json", f->path);
    return sys_exists(manifest);
}

bool run_folder_waits(const char *runs_dir, const char *name)
{
    struct run_folder f;
    char data[2100];
    if (!name || snprintf(f.path, sizeof f.path, "%s/%s", runs_dir, name) >= (int)sizeof f.path)
        return false;
    snprintf(data, sizeof data, "%s/data", f.path);
    return sys_exists(data) && !holds_run(&f);
}

int run_folder_look(struct run_folder *f, const char *runs_dir, const char *name,
                    const char *stem, bool resume)
{
    char made[512];
    *f = (struct run_folder){ .metrics_fd = -1, .log_fd = -1, .lock_fd = -1, .events.fd = -1 };
    if (!name || !*name) {
        default_name(made, sizeof made, stem);
        name = made;
    }
    if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(ERR_CONFIG, "run.name '%s' is a path: let run.dir say where runs are, and "
                       "run.name how this one is called", name);
    if (snprintf(f->path, sizeof f->path, "%s/%s", runs_dir, name) >= (int)sizeof f->path)
        return err_set(ERR_CONFIG, "run.dir and run.name are too long");
    if (resume && !holds_run(f))
        return err_set(ERR_CONFIG, "nothing to resume: %s holds no run", f->path);
    return OK;
}

/* The first thing done in a folder: a second process would replace files that the first one
 * still writes to. */
static int take_lock(struct run_folder *f)
{
    char path[2200], owner[32] = "";
    snprintf(path, sizeof path, "%s/lock", f->path);
    f->lock_fd = sys_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (f->lock_fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    if (sys_lock(f->lock_fd) != 0) {
        int cause = errno;
        sys_read_full(f->lock_fd, owner, sizeof owner - 1);
        owner[strcspn(owner, "\n")] = '\0';
        return cause != EWOULDBLOCK
                   ? err_set(ERR_SYS, "lock %s: %s", path, strerror(cause))
                   : err_set(ERR_CONFIG, "%s is being trained by process %s: stop that one "
                             "first, or give another run.name", f->path, owner);
    }
    int n = snprintf(owner, sizeof owner, "%lld\n", (long long)sys_process_id());
    if (sys_truncate(f->lock_fd, 0) != 0 || sys_write_full(f->lock_fd, owner, n) != 0)
        return err_set(ERR_SYS, "write %s: %s", path, strerror(errno));
    return OK;
}

static int open_append(const struct run_folder *f, const char *name, int *fd)
{
    char path[2200];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    *fd = sys_open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    return *fd < 0 ? err_set(ERR_SYS, "open %s: %s", path, strerror(errno)) : OK;
}

void run_folder_follow(struct run_folder *f)
{
    f->metrics_fd = f->log_fd = f->lock_fd = f->events.fd = -1;
    json_writer_init(&f->line);
}

void run_folder_note_for(struct run_folder *f, enum log_level level, const char *line)
{
    struct run_folder other = { .log_fd = -1 };
    snprintf(other.path, sizeof other.path, "%s", f->path);
    if (holds_run(f) && open_append(&other, "log.txt", &other.log_fd) == OK) {
        write_log_line(&other, level, line);
        sys_close(other.log_fd);
    }
}

int run_folder_open(struct run_folder *f, const char *runs_dir, const char *name,
                    const char *stem, bool resume, bool tensorboard)
{
    TRY(run_folder_look(f, runs_dir, name, stem, resume));
    if (!resume && holds_run(f))
        return err_set(ERR_CONFIG, "%s holds a run already; give --resume to go on with it, "
                       "or another run.name", f->path);
    f->made = !sys_exists(f->path);
    if (sys_mkdirs(f->path) != 0)
        return err_set(ERR_SYS, "make the run folder %s: %s", f->path, strerror(errno));
    TRY(take_lock(f));
    json_writer_init(&f->line);
    TRY(open_append(f, "log.txt", &f->log_fd));
    log_add_sink(write_log_line, f, LOG_INFO);
    TRY(open_append(f, "metrics.jsonl", &f->metrics_fd));
    if (!resume) {
        json_put_int(run_folder_begin_line(f, "schema"), "version", METRICS_SCHEMA);
        run_folder_end_line(f);
    }
    return tensorboard ? events_open(&f->events, f->path) : OK;
}

void run_folder_close(struct run_folder *f)
{
    events_close(&f->events);
    if (f->metrics_fd >= 0)
        sys_close(f->metrics_fd);
    if (f->log_fd >= 0) {
        log_remove_sink(write_log_line, f);
        sys_close(f->log_fd);
    }
    if (f->lock_fd >= 0)
        sys_close(f->lock_fd);
    json_writer_fini(&f->line);
    f->metrics_fd = f->log_fd = f->lock_fd = -1;
    if (f->made && !holds_run(f))
        sys_remove_tree(f->path);
    f->made = false;
}

int file_replace(const char *path, const char *data, i64 bytes)
{
    char temporary[4200];
    if (sys_is_channel(path))
        return sys_write_channel(path, data, bytes) == 0
                   ? OK : err_set(ERR_SYS, "write %s: %s", path, strerror(errno));
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return err_set(ERR_CONFIG, "write %.100s...: the path is too long", path);
    int fd = sys_open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return err_set(ERR_SYS, "cannot write %s: %s", path, strerror(errno));
    int failed = sys_write_full(fd, data, bytes) != 0 ? errno : 0;
    failed = sys_close(fd) != 0 && !failed ? errno : failed;
    if (!failed && sys_rename(temporary, path) != 0)
        failed = errno;
    if (failed) {
        sys_unlink(temporary);
        return err_set(ERR_SYS, "cannot write %s: %s", path, strerror(failed));
    }
    return OK;
}

int run_folder_write(const struct run_folder *f, const char *name, const char *data, i64 bytes)
{
    char path[2200];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    return file_replace(path, data, bytes);
}

struct json *run_folder_begin_line(struct run_folder *f, const char *event)
{
    json_writer_clear(&f->line);
    json_begin_object(&f->line);
    json_put_str(&f->line, "event", event);
    json_put_double(&f->line, "t", sys_wall_seconds());
    return &f->line;
}

void run_folder_end_line(struct run_folder *f)
{
    json_end(&f->line);
    text_add(&f->line.out, "\n");
    if (f->metrics_fd < 0 ||
        sys_write_full(f->metrics_fd, f->line.out.data, f->line.out.length) == 0)
        return;
    if (!f->metrics_failed)
        log_line(LOG_WARN, "writing metrics.jsonl: %s; lines are being lost",
                 strerror(errno));
    f->metrics_failed = true;
}

/* Appends the lines of text that stay: those without a step, or up to `step`. */
static void keep_lines(const char *text, i64 bytes, i64 step, struct text *out)
{
    for (i64 begin = 0; begin < bytes;) {
        const char *newline = memchr(text + begin, '\n', (size_t)(bytes - begin));
        if (!newline)
            return; /* torn: the process died while writing it */
        i64 length = newline - (text + begin);
        json_t *line;
        if (json_parse(text + begin, length, "metrics.jsonl", &line) == OK) {
            json_t *at = json_object_get(line, "step");
            if (!json_is_integer(at) || json_integer_value(at) <= step)
                text_add_bytes(out, text + begin, length + 1);
            json_decref(line);
        }
        begin += length + 1;
    }
}

int run_folder_rewind(struct run_folder *f, i64 step)
{
    char path[2200];
    i64 bytes;
    struct text kept = { 0 };
    if (f->metrics_fd < 0)
        return OK;
    snprintf(path, sizeof path, "%s/metrics.jsonl", f->path);
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "read %s: %s", path, strerror(errno));
    text_add(&kept, "");
    keep_lines(text, bytes, step, &kept);
    sys_unmap(text, bytes);
    int rc = run_folder_write(f, "metrics.jsonl", kept.data, kept.length);
    text_fini(&kept);
    TRY(rc);
    sys_close(f->metrics_fd);
    return open_append(f, "metrics.jsonl", &f->metrics_fd);
}

static json_t *start(double started, i64 from_step)
{
    json_t *one = json_object();
    json_object_set_new(one, "started", json_real(started));
    json_object_set_new(one, "from_step", json_integer(from_step));
    return one;
}

int run_folder_starts(const char *folder, json_t **out)
{
    enum { MANIFEST_BYTES = 16 << 20 };
    char path[4200];
    json_t *manifest, *row;
    size_t i;
    *out = json_array();
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    if (!sys_exists(path))
        return OK;
    TRY(json_load(path, MANIFEST_BYTES, &manifest));
    const json_t *segments = json_object_get(manifest, "segments");
    const json_t *first = json_object_get(manifest, "started");
    json_array_foreach(segments, i, row)
        json_array_append_new(*out, start(json_number_value(json_object_get(row, "started")),
                                          json_integer_value(json_object_get(row, "from_step"))));
    const json_t *from = json_object_get(manifest, "from_step");
    if (!segments && first) /* by a version that told of one start only */
        json_array_append_new(*out, start(json_number_value(first), json_integer_value(from)));
    json_decref(manifest);
    return OK;
}

static i64 finished_in(const char *line, i64 bytes)
{
    json_t *o;
    if (json_parse(line, bytes, "metrics.jsonl", &o) < 0)
        return -1;
    const char *event = json_string_value(json_object_get(o, "event"));
    i64 step = event && strcmp(event, "finished") == 0
                   ? json_integer_value(json_object_get(o, "step")) : -1;
    json_decref(o);
    return step;
}

i64 run_folder_finished(const char *folder)
{
    char path[4200];
    i64 bytes, begin;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return -1;
    for (begin = bytes - 1; begin > 0 && text[begin - 1] != '\n'; begin--)
        ;
    i64 step = bytes > 1 ? finished_in(text + begin, bytes - 1 - begin) : -1;
    sys_unmap(text, bytes);
    return step;
}
