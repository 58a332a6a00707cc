#include "report/run_page.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "diagnose/diagnosis.h"
#include "report/page_files.h"
#include "report/pack.h"
#include "report/run_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { SMALL_FILE = 1 << 24, LOG_BYTES = 1 << 16, DATA_SCHEMA = 1 };

/* --- a folder ----------------------------------------------------------------------- */

static const char *last_part(const char *folder, struct arena *a)
{
    i64 end = (i64)strlen(folder);
    while (end > 1 && folder[end - 1] == '/')
        end--;
    i64 begin = end;
    while (begin > 0 && folder[begin - 1] != '/')
        begin--;
    return arena_strndup(a, folder + begin, end - begin);
}

static const char *path_in(struct run_page *p, const char *file)
{
    return arena_printf(&p->arena, "%s/%s", p->folder, file);
}

int run_page_open(struct run_page *p, const char *folder)
{
    *p = (struct run_page){ .newest = -1 };
    arena_init(&p->arena);
    run_metrics_init(&p->metrics);
    p->folder = arena_strdup(&p->arena, folder);
    p->name = last_part(folder, &p->arena);
    struct stat st;
    const bool there = sys_stat(path_in(p, "manifest.json"), &st) == 0 ||
                       sys_stat(path_in(p, "metrics.jsonl"), &st) == 0;
    const int cause = errno;
    if (there)
        return OK;
    run_page_close(p);
    if (cause != ENOENT && cause != ENOTDIR)
        return err_set(ERR_CONFIG, "open %s: %s", folder, strerror(cause));
    if (!sys_exists(folder))
        return err_set(ERR_CONFIG, "open %s: %s", folder, strerror(ENOENT));
    return err_set(ERR_CONFIG, "%s is no run folder: it has neither manifest.json nor "
                   "metrics.jsonl", folder);
}

void run_page_close(struct run_page *p)
{
    run_metrics_fini(&p->metrics);
    arena_fini(&p->arena);
}

static void say_missing(struct run_page *p, const char *sentence)
{
    if (p->n_missing < COUNT_OF(p->missing))
        p->missing[p->n_missing++] = arena_strdup(&p->arena, sentence);
}

int run_page_read(struct run_page *p, bool *changed)
{
    int rc = run_metrics_read(&p->metrics, path_in(p, "metrics.jsonl"), changed);
    snprintf(p->unread, sizeof p->unread, "%s", rc < 0 ? err_message() : "");
    return rc;
}

/* --- its JSON ----------------------------------------------------------------------- */

/* Up to `most` last bytes of a file; ERR_SYS. */
static int read_tail(const char *path, i64 most, struct text *out)
{
    i64 bytes = sys_file_bytes(path);
    int fd = bytes < 0 ? -1 : sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    i64 from = i64_max(0, bytes - most), want = bytes - from;
    text_repeat(out, ' ', want);
    i64 got = sys_seek(fd, from, SEEK_SET) < 0 ? -1 : sys_read_full(fd, out->data, want);
    int cause = errno;
    sys_close(fd);
    out->length = i64_max(0, got);
    return got < 0 ? err_set(ERR_SYS, "read %s: %s", path, strerror(cause)) : OK;
}

/* A file of JSON as it stands, once it proved to be JSON. */
static int put_json(const char *path, struct json *j)
{
    struct text text = { 0 };
    json_t *value;
    int rc = read_tail(path, SMALL_FILE + 1, &text);
    if (rc == OK && text.length > SMALL_FILE)
        rc = err_set(ERR_LIMIT, "%s has more than %d MB", path, SMALL_FILE >> 20);
    if (rc == OK)
        rc = json_parse(text.data, text.length, path, &value);
    if (rc == OK) {
        text.data[text.length] = '\0';
        json_literal(j, text.data);
        json_decref(value);
    } else {
        json_nothing(j);
    }
    text_fini(&text);
    return rc;
}

static void put_file(struct run_page *p, const char *key, const char *file, struct json *j)
{
    json_key(j, key);
    if (put_json(path_in(p, file), j) < 0)
        say_missing(p, err_message());
}

/* Counted when a process of the run ends. */
static void put_energy(struct run_page *p, struct json *j)
{
    if (sys_exists(path_in(p, "energy.json"))) {
        put_file(p, "energy", "energy.json", j);
        return;
    }
    say_missing(p, "energy is not known: it is counted when a run ends, and a simulated one takes "
                   "none (energy.json)");
    json_key(j, "energy");
    json_nothing(j);
}

/* The end of the log, whole lines of it. */
static void put_log(struct run_page *p, struct json *j)
{
    struct text text = { 0 };
    json_key(j, "log");
    if (read_tail(path_in(p, "log.txt"), LOG_BYTES, &text) < 0) {
        say_missing(p, err_message());
        json_nothing(j);
    } else {
        const char *log = text.data ? text.data : ""; /* an empty file's */
        const char *newline = memchr(log, '\n', (size_t)text.length);
        i64 cut = text.length == LOG_BYTES && newline ? newline + 1 - log : 0;
        json_str_bytes(j, log + cut, text.length - cut);
    }
    text_fini(&text);
}

static void put_missing(const struct run_page *p, struct json *j)
{
    json_key(j, "missing");
    json_begin_array(j);
    for (i64 i = 0; i < p->n_missing; i++)
        json_str(j, p->missing[i]);
    json_end(j);
}

static void put_curves(struct run_page *p, struct json *j)
{
    put_file(p, "manifest", "manifest.json", j);
    put_energy(p, j);
    put_log(p, j);
    json_key(j, "metrics");
    run_metrics_put(&p->metrics, j);
    if (*p->unread)
        say_missing(p, p->unread);
    else if (p->metrics.lines == p->metrics.bad_lines)
        say_missing(p, "no line of metrics.jsonl can be read: there are no curves");
}

/* told: why it cannot be judged, since its record cannot be read. */
static void put_diagnosis(struct run_page *p, bool told, struct json *j)
{
    struct diagnosis d;
    struct measure_range range = { .last = -1 };
    json_key(j, "diagnosis");
    if (diagnosis_open(&d, p->folder, &range) < 0) {
        json_nothing(j);
        if (!told)
            say_missing(p, err_message());
        return;
    }
    diagnosis_json(&d, j);
    diagnosis_close(&d);
}

static void put_run(struct run_page *p, enum run_page_part part, struct json *j)
{
    p->n_missing = 0;
    json_begin_object(j);
    json_put_str(j, "name", p->name);
    json_put_str(j, "folder", p->folder);
    if (part != RUN_PAGE_RECORD)
        put_curves(p, j);
    if (part != RUN_PAGE_CURVES) {
        json_key(j, "record");
        const bool bad = run_record_put(p->folder, p->newest, j) < 0;
        if (bad)
            say_missing(p, err_message());
        put_diagnosis(p, bad, j);
    }
    put_missing(p, j);
    json_end(j);
}

/* "<" in JSON stands within strings only; no "</script>" and no "<!--" remains. */
static void add_safe(struct text *out, const char *data, i64 bytes)
{
    for (const char *end = data + bytes, *at; data < end; data = at) {
        at = memchr(data, '<', (size_t)(end - data));
        at = at ? at : end;
        text_add_bytes(out, data, at - data);
        if (at < end) {
            text_add(out, "\\u003c");
            at++;
        }
    }
}

void run_page_data(struct run_page *const *runs, i64 n, enum run_page_part part, struct text *out)
{
    struct json j;
    json_writer_init(&j);
    json_begin_object(&j);
    json_put_int(&j, "schema", DATA_SCHEMA);
    json_put_str(&j, "headway", HEADWAY_VERSION);
    json_key(&j, "runs");
    json_begin_array(&j);
    for (i64 i = 0; i < n; i++)
        put_run(runs[i], part, &j);
    json_end(&j);
    json_put_double(&j, "made", sys_wall_seconds());
    json_end(&j);
    add_safe(out, j.out.data, j.out.length);
    json_writer_fini(&j);
}

/* --- the page ----------------------------------------------------------------------- */

static void add_html(struct text *out, const char *plain)
{
    for (; *plain; plain++) {
        u8 c = (u8)*plain;
        if (c == '<' || c == '>' || c == '&' || c == '"' || c < 0x20 || c == 0x7f)
            text_printf(out, "&#%d;", c < 0x20 || c == 0x7f ? '?' : c);
        else
            text_add_bytes(out, plain, 1);
    }
}

/* What allows one script or style: 'sha256-...' in base64. */
static void add_allowed(struct text *out, const char *source)
{
    char hex[65];
    u8 raw[32];
    struct json j;
    sha256_of(source, (i64)strlen(source), hex);
    for (int i = 0; i < 32; i++) {
        unsigned byte;
        sscanf(hex + 2 * i, "%2x", &byte);
        raw[i] = (u8)byte;
    }
    json_writer_init(&j);
    pack_bytes(&j, raw, sizeof raw);
    text_printf(out, "'sha256-%.*s'", (int)j.out.length - 2, j.out.data + 1);
    json_writer_fini(&j);
}

void run_page_policy(bool live, struct text *out)
{
    text_add(out, "default-src 'none'; script-src ");
    add_allowed(out, page_script);
    text_add(out, "; style-src ");
    add_allowed(out, page_style);
    text_printf(out, "; img-src data:; connect-src %s; base-uri 'none'; form-action 'none'",
                live ? "'self'" : "'none'");
}

void run_page_html(const struct text *data, const char *title, struct text *out)
{
    const char *at = page_template, *mark;
    for (; (mark = strstr(at, "@@")); at = mark) {
        text_add_bytes(out, at, mark - at);
        mark += 2;
        if (strncmp(mark, "TITLE", 5) == 0)
            add_html(out, title);
        else if (strncmp(mark, "POLICY", 6) == 0)
            run_page_policy(!data, out);
        else if (strncmp(mark, "STYLE", 5) == 0)
            text_add(out, page_style);
        else if (strncmp(mark, "SCRIPT", 6) == 0)
            text_add(out, page_script);
        else if (strncmp(mark, "DATA", 4) == 0 && data)
            text_add_bytes(out, data->data, data->length);
        mark = strstr(mark, "@@") + 2;
    }
    text_add(out, at);
}
