#include "tune/timing.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "base/sys_share.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_ARGUMENTS = 200, METRICS_BYTES = 1 << 28, SAID_BYTES = 4096 };

/* --- starting ------------------------------------------------------------------------ */

struct arguments {
    const char *at[MOST_ARGUMENTS];
    int n;
};

static void add(struct arguments *x, const char *word)
{
    if (x->n < MOST_ARGUMENTS - 1)
        x->at[x->n++] = word;
}

static void add_set(struct arguments *x, const char *assignment)
{
    add(x, "--set");
    add(x, assignment);
}

static void command_line(struct arguments *x, const struct timing_base *b,
                         const struct tune_change *c, const char *name, i64 steps,
                         struct arena *a)
{
    const char *backend = c && c->backend ? c->backend : b->backend;
    add(x, "train");
    add(x, b->recipe);
    for (int i = 0; i < b->n_sets; i++)
        add_set(x, b->sets[i]);
    for (int i = 0; c && i < c->n_sets; i++)
        add_set(x, c->sets[i]);
    add_set(x, arena_printf(a, "train.steps=%lld", (long long)steps));
    add_set(x, "train.tokens=0");
    add_set(x, arena_printf(a, "train.max_time=%.3f", b->most_s));
    add_set(x, "log.every=1");
    add_set(x, "log.tensorboard=no");
    add_set(x, arena_printf(a, "run.dir=%s", b->folder));
    add_set(x, arena_printf(a, "run.name=%s", name));
    if (backend) {
        add(x, "--backend");
        add(x, backend);
    }
    if (b->ranks > 0) {
        add(x, "--ranks");
        add(x, arena_printf(a, "%lld", (long long)b->ranks));
    }
    add(x, "--measure");
    add(x, "--quiet");
}

/* The last line that a process said: its error. */
static void last_line(const char *path, char *line, size_t size)
{
    char said[SAID_BYTES + 1];
    i64 bytes = sys_file_bytes(path), n = 0;
    int fd = sys_open(path, O_RDONLY, 0);
    snprintf(line, size, "it said nothing");
    if (fd < 0)
        return;
    ssize_t got = sys_pread(fd, said, SAID_BYTES, i64_max(0, bytes - SAID_BYTES));
    sys_close(fd);
    for (n = got; n > 0 && (said[n - 1] == '\n' || said[n - 1] == ' '); n--)
        ;
    if (n <= 0)
        return;
    said[n] = '\0';
    const char *begin = strrchr(said, '\n');
    begin = begin ? begin + 1 : said;
    if (strncmp(begin, "headway: ", 9) == 0)
        begin += 9;
    snprintf(line, size, "%.500s", begin);
}

static bool is_stopped(const struct timing_base *b)
{
    return b->stop && b->stop(b->context);
}

/* Looks up now and then: a signal may have come to this process alone. */
static int wait_for_trial(int pid, const struct timing_base *b, const char *said)
{
    enum { SLICE_NS = 50000000 };
    const u64 end = sys_now_ns() + (u64)(1e9 * b->patience_s);
    char line[512];
    int code = 0;
    bool done = false;
    if (pid < 0)
        return err_set(ERR_SYS, "cannot start a trial: %s", strerror(errno));
    while (!is_stopped(b) && sys_now_ns() < end && !done)
        done = sys_wait_for(pid, SLICE_NS, &code);
    if (!done) {
        sys_kill(pid);
        sys_wait_for(pid, UINT64_MAX, &code);
    }
    if (is_stopped(b))
        return err_set(ERR_STOPPED, "stopped by a signal; nothing was changed");
    if (!done)
        return err_set(ERR_LIMIT, "not done after %.0f s", b->patience_s);
    if (code == 0)
        return OK;
    last_line(said, line, sizeof line);
    return err_set(ERR_CONFIG, "%s", line);
}

/* --- reading ------------------------------------------------------------------------- */

struct metrics {
    double *step_s, *loss;
    double *joules; /* since the run began, its start with them; NaN: not known */
    i64 n, cap;
    i64 tokens; /* after the last step */
};

static void take_line(struct metrics *m, const char *line, i64 bytes, struct arena *a)
{
    json_t *o;
    if (json_parse(line, bytes, "metrics.jsonl", &o) < 0)
        return; /* the line being written */
    const char *event = json_string_value(json_object_get(o, "event"));
    if (event && strcmp(event, "step") == 0) {
        if (m->n == m->cap) {
            i64 cap = i64_max(64, 2 * m->cap);
            double *step_s = ARENA_ARRAY(a, double, cap), *loss = ARENA_ARRAY(a, double, cap);
            double *joules = ARENA_ARRAY(a, double, cap);
            for (i64 i = 0; i < m->n; i++) {
                step_s[i] = m->step_s[i];
                loss[i] = m->loss[i];
                joules[i] = m->joules[i];
            }
            *m = (struct metrics){ step_s, loss, joules, m->n, cap, m->tokens };
        }
        const json_t *l = json_object_get(o, "loss");
        const json_t *joules = json_object_get(json_object_get(o, "energy"), "J");
        m->joules[m->n] = json_is_number(joules) ? json_number_value(joules) : NAN;
        m->step_s[m->n] = json_number_value(json_object_get(o, "step_s"));
        m->loss[m->n++] = json_is_number(l) ? json_number_value(l) : NAN;
        m->tokens = (i64)json_integer_value(json_object_get(o, "tokens"));
    }
    json_decref(o);
}

static int read_metrics(struct metrics *m, const char *run, struct arena *a)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    i64 bytes = sys_file_bytes(path);
    if (bytes < 0)
        return err_set(ERR_SYS, "cannot read %s: %s", path, strerror(errno));
    if (bytes > METRICS_BYTES)
        return err_set(ERR_LIMIT, "%s: %lld bytes are more than a trial writes", path,
                       (long long)bytes);
    char *text = arena_alloc(a, bytes + 1);
    int fd = sys_open(path, O_RDONLY, 0);
    bytes = fd < 0 ? -1 : sys_read_full(fd, text, bytes);
    if (bytes < 0)
        return err_set(ERR_SYS, "cannot read %s: %s", path, strerror(errno));
    sys_close(fd);
    text[bytes] = '\0';
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        take_line(m, line, end - line, a);
    return OK;
}

/* Of the steps that count: a trial's start takes as much as many steps, and is none of theirs. */
static double joules_per_token(const struct metrics *m, double tokens)
{
    const double joules = m->joules[m->n - 1] - m->joules[TIMING_WARM_UP - 1];
    const bool known = joules > 0 && tokens > 0;
    return known ? joules / (tokens * (double)(m->n - TIMING_WARM_UP)) : 0;
}

int timing_read(struct timing_result *out, const char *run, struct arena *a)
{
    struct metrics m = { 0 };
    TRY(read_metrics(&m, run, a));
    if (m.n <= TIMING_WARM_UP)
        return err_set(ERR_FORMAT, "%s: %lld steps are too few to judge by", run, (long long)m.n);
    out->steps = m.n - TIMING_WARM_UP;
    out->step_s = m.step_s + TIMING_WARM_UP;
    out->tokens = (double)m.tokens / (double)m.n;
    out->joules_per_token = joules_per_token(&m, out->tokens);
    out->loss = m.loss + TIMING_WARM_UP;
    return OK;
}

int timing_run(struct timing_result *out, const struct timing_base *base,
              const struct tune_change *change, i64 steps, struct arena *a)
{
    struct arguments x = { .n = 0 };
    char said[1400];
    const char *name;
    int number = 0;
    *out = (struct timing_result){ .steps = 0 };
    do {
        name = arena_printf(a, "trial-%d", ++number);
        snprintf(out->run, sizeof out->run, "%s/%s", base->folder, name);
    } while (sys_exists(out->run));
    snprintf(said, sizeof said, "%s.said", out->run);
    command_line(&x, base, change, name, steps + TIMING_WARM_UP, a);
    int fd = sys_open(said, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return err_set(ERR_SYS, "cannot write %s: %s", said, strerror(errno));
    u64 begin = sys_now_ns();
    int rc = wait_for_trial(sys_spawn_self(x.at, fd), base, said);
    sys_close(fd);
    sys_unlink(said);
    TRY(rc);
    out->seconds = 1e-9 * (double)(sys_now_ns() - begin);
    return timing_read(out, out->run, a);
}
