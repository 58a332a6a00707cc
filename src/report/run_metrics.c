#include "report/run_metrics.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "report/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_EVENT = 64 };

void run_metrics_init(struct run_metrics *m)
{
    *m = (struct run_metrics){ .first_t = NAN, .last_t = NAN, .n_slots = 4 * METRICS_SERIES };
    m->slots = sys_alloc(m->n_slots * (i64)sizeof *m->slots, 16);
    m->series = sys_alloc(METRICS_SERIES * (i64)sizeof *m->series, 16);
    if (!m->slots || !m->series)
        err_panic("out of memory for the list of curves");
    memset(m->slots, 0, (size_t)m->n_slots * sizeof *m->slots);
}

void run_metrics_fini(struct run_metrics *m)
{
    for (i64 i = 0; i < m->n_series; i++)
        series_fini(&m->series[i]);
    for (i64 i = 0; i < METRICS_NOTES; i++)
        sys_free(m->notes[i].text);
    sys_free(m->slots);
    sys_free(m->series);
    text_fini(&m->partial);
    *m = (struct run_metrics){ 0 };
}

/* --- curves by name ----------------------------------------------------------------- */

static i32 *slot_of(const struct run_metrics *m, const char *name)
{
    u64 at = hash64(name, (i64)strlen(name), 0);
    for (;; at++) {
        i32 *slot = &m->slots[at % (u64)m->n_slots];
        if (*slot == 0 || strcmp(m->series[*slot - 1].name, name) == 0)
            return slot;
    }
}

static void add_number(struct run_metrics *m, const char *name, double x, double value)
{
    i32 *slot = slot_of(m, name);
    if (*slot == 0) {
        if (m->n_series == METRICS_SERIES) {
            m->left_out++;
            return;
        }
        bool many = strncmp(name, "health/parameters/", 18) == 0;
        series_init(&m->series[m->n_series], name, many ? METRICS_FEW_POINTS : METRICS_POINTS);
        *slot = (i32)++m->n_series;
    }
    series_add(&m->series[*slot - 1], x, value);
}

double run_metrics_newest(const struct run_metrics *m, const char *name, double *x)
{
    const i32 slot = *slot_of(m, name);
    const struct series *s = slot > 0 ? &m->series[slot - 1] : NULL;
    if (x)
        *x = s && s->n > 0 ? s->points[s->n - 1].x_last : NAN;
    return s && s->n > 0 ? s->newest : NAN;
}

/* --- lines -------------------------------------------------------------------------- */

static void add_value(struct run_metrics *m, const char *path, double x, json_t *value, int depth);

/* NUL in a key ends its name here: json_object_foreach gives C strings. */
static void add_member(struct run_metrics *m, const char *path, const char *key, double x,
                       json_t *value, int depth)
{
    char name[512];
    if (snprintf(name, sizeof name, "%s/%s", path, key) < (int)sizeof name &&
        depth < METRICS_DEPTH)
        add_value(m, name, x, value, depth + 1);
    else
        m->left_out++;
}

/* Keys that say when, not what. */
static bool is_place(const char *key)
{
    return strcmp(key, "step") == 0 || strcmp(key, "t") == 0;
}

static void add_value(struct run_metrics *m, const char *path, double x, json_t *value, int depth)
{
    const char *key;
    json_t *item;
    char index[24];
    if (json_is_number(value))
        add_number(m, path, x, json_number_value(value));
    json_object_foreach(value, key, item)
        if (depth > 0 || !is_place(key))
            add_member(m, path, key, x, item, depth);
    for (size_t i = 0; i < json_array_size(value); i++) {
        snprintf(index, sizeof index, "%zu", i);
        add_member(m, path, index, x, json_array_get(value, i), depth);
    }
}

static bool is_regular(const char *event)
{
    static const char *const regular[] = { "schema", "step", "eval", "eval_ema",
                                           "health", "outer" };
    for (i64 i = 0; i < COUNT_OF(regular); i++)
        if (strcmp(event, regular[i]) == 0)
            return true;
    return false;
}

static void add_note(struct run_metrics *m, double step, const char *line, i64 bytes)
{
    struct metrics_note *n = &m->notes[m->n_notes++ % METRICS_NOTES];
    sys_free(n->text);
    n->step = step;
    n->text = sys_alloc(bytes + 1, 16);
    if (!n->text)
        err_panic("out of memory for an event of %lld bytes", (long long)bytes);
    memcpy(n->text, line, (size_t)bytes);
    n->text[bytes] = '\0';
}

/* The time since the first line fits a float, the time since the epoch does not. */
static void add_measured(struct run_metrics *m, const char *event, double step, json_t *o)
{
    char name[MOST_EVENT + 8];
    snprintf(name, sizeof name, "%s/since", event);
    if (json_is_number(json_object_get(o, "t")))
        add_number(m, name, step, m->last_t - m->first_t);
    add_value(m, event, step, o, 0);
}

static void add_line(struct run_metrics *m, const char *line, i64 bytes)
{
    json_t *o;
    m->lines++;
    if (bytes > METRICS_LINE || json_parse(line, bytes, "metrics.jsonl", &o) < 0) {
        m->bad_lines++;
        return;
    }
    const char *event = json_string_value(json_object_get(o, "event"));
    const json_t *step = json_object_get(o, "step"), *t = json_object_get(o, "t");
    if (json_is_number(t)) {
        m->last_t = json_number_value(t);
        m->first_t = isnan(m->first_t) ? m->last_t : m->first_t;
    }
    if (!event)
        m->bad_lines++;
    else if (!is_regular(event))
        add_note(m, step ? json_number_value(step) : NAN, line, bytes);
    else if (json_is_number(step) && strlen(event) < MOST_EVENT)
        add_measured(m, event, json_number_value(step), o);
    json_decref(o);
}

/* Of a line that is too long only its newline is waited for. */
static void keep_partial(struct run_metrics *m, const char *text, i64 bytes)
{
    if (m->partial.length <= METRICS_LINE)
        text_add_bytes(&m->partial, text, bytes);
}

void run_metrics_feed(struct run_metrics *m, const char *text, i64 bytes)
{
    const char *end = text + bytes, *newline;
    for (; (newline = memchr(text, '\n', (size_t)(end - text))); text = newline + 1) {
        if (m->partial.length == 0) {
            add_line(m, text, newline - text);
            continue;
        }
        keep_partial(m, text, newline - text);
        add_line(m, m->partial.data, m->partial.length);
        text_clear(&m->partial);
    }
    if (end > text)
        keep_partial(m, text, end - text);
}

/* --- the file ----------------------------------------------------------------------- */

static int read_on(struct run_metrics *m, int fd, const char *path)
{
    enum { PIECE = 1 << 20 };
    int rc = OK;
    char *piece = sys_alloc(PIECE, 64);
    if (!piece)
        err_panic("out of memory for reading %s", path);
    for (;;) {
        i64 n = sys_pread(fd, piece, PIECE, m->offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_set(ERR_SYS, "read %s: %s", path, strerror(errno));
        if (n <= 0)
            break;
        run_metrics_feed(m, piece, n);
        m->offset += n;
    }
    sys_free(piece);
    return rc;
}

int run_metrics_read(struct run_metrics *m, const char *path, bool *changed)
{
    struct stat st;
    *changed = false;
    if (sys_stat(path, &st) != 0)
        return errno == ENOENT ? OK : err_set(ERR_SYS, "read %s: %s", path, strerror(errno));
    if (m->offset > 0 && ((i64)st.st_ino != m->inode || st.st_size < m->offset)) {
        run_metrics_fini(m);
        run_metrics_init(m);
    }
    m->inode = (i64)st.st_ino;
    if (st.st_size == m->offset)
        return OK;
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    *changed = true;
    int rc = read_on(m, fd, path);
    sys_close(fd);
    return rc;
}

/* --- for the page ------------------------------------------------------------------- */

/* Lists of steps that were written already, by their hash: most curves have the same. */
struct steps_written {
    u64 *hashes;
    i64 n;
};

static u64 hash_steps(const struct series *s)
{
    u64 hash = (u64)s->n;
    for (i64 i = 0; i < s->n; i++)
        hash = hash64(&s->points[i].x_last, sizeof s->points[i].x_last, hash);
    return hash;
}

static i64 find_steps(const struct steps_written *w, u64 hash)
{
    for (i64 i = 0; i < w->n; i++)
        if (w->hashes[i] == hash)
            return i;
    return -1;
}

static i64 whole(double x)
{
    return (i64)fmax(-9e15, fmin(9e15, x));
}

static void put_steps(const struct run_metrics *m, struct steps_written *w, struct json *j)
{
    i64 *steps = sys_alloc(METRICS_POINTS * (i64)sizeof *steps, 64);
    w->hashes = sys_alloc(i64_max(1, m->n_series) * (i64)sizeof *w->hashes, 64);
    if (!steps || !w->hashes)
        err_panic("out of memory for the steps of the curves");
    json_key(j, "x");
    json_begin_array(j);
    for (i64 i = 0; i < m->n_series; i++) {
        const struct series *s = &m->series[i];
        u64 hash = hash_steps(s);
        if (find_steps(w, hash) >= 0)
            continue;
        w->hashes[w->n++] = hash;
        for (i64 k = 0; k < s->n; k++)
            steps[k] = whole(s->points[k].x_last);
        pack_deltas(j, steps, s->n);
    }
    json_end(j);
    sys_free(steps);
}

enum part { MEAN, LEAST, MOST };

static void put_part(const struct series *s, const char *key, enum part part, struct json *j)
{
    float values[METRICS_POINTS];
    for (i64 i = 0; i < s->n; i++) {
        const struct series_point *p = &s->points[i];
        double v = part == MEAN ? series_mean(p) : part == LEAST ? p->least : p->most;
        values[i] = (float)v;
    }
    json_key(j, key);
    pack_f32(j, values, s->n);
}

static void put_series(const struct series *s, i64 steps, struct json *j)
{
    json_begin_object(j);
    json_put_str(j, "name", s->name);
    json_put_int(j, "x", steps);
    put_part(s, "mean", MEAN, j);
    if (s->per_point > 1) {
        json_put_int(j, "per_point", s->per_point);
        put_part(s, "least", LEAST, j);
        put_part(s, "most", MOST, j);
    }
    json_end(j);
}

static void put_notes(const struct run_metrics *m, struct json *j)
{
    json_key(j, "notes");
    json_begin_array(j);
    for (i64 i = i64_max(0, m->n_notes - METRICS_NOTES); i < m->n_notes; i++) {
        const struct metrics_note *n = &m->notes[i % METRICS_NOTES];
        json_begin_object(j);
        json_put_double(j, "step", n->step);
        json_put_str(j, "text", n->text);
        json_end(j);
    }
    json_end(j);
}

void run_metrics_put(const struct run_metrics *m, struct json *j)
{
    struct steps_written w = { 0 };
    json_begin_object(j);
    put_steps(m, &w, j);
    json_key(j, "series");
    json_begin_array(j);
    for (i64 i = 0; i < m->n_series; i++)
        put_series(&m->series[i], find_steps(&w, hash_steps(&m->series[i])), j);
    json_end(j);
    put_notes(m, j);
    json_put_int(j, "all_notes", m->n_notes);
    json_put_int(j, "lines", m->lines);
    json_put_int(j, "bad_lines", m->bad_lines);
    json_put_int(j, "left_out", m->left_out);
    json_put_double(j, "first_t", m->first_t);
    json_put_double(j, "last_t", m->last_t);
    json_end(j);
    sys_free(w.hashes);
}
