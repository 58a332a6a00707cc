#include "report/serve.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "train/openmetrics.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_DIGITS = 32 };

int serve_init(struct serve *s, struct run_page *const *runs, i64 n, const char *title)
{
    u8 random[TOKEN_DIGITS / 2];
    *s = (struct serve){ .runs = runs, .n_runs = n, .data.made = -1, .record.made = -1,
                         .metrics.made = -1, .openmetrics.made = -1,
                         .allowance = SERVE_BURST };
    if (sys_random(random, sizeof random) != 0)
        return err_set(ERR_SYS, "the system gives no random numbers for the page's address");
    for (i64 i = 0; i < (i64)sizeof random; i++)
        snprintf(s->token + 2 * i, 3, "%02x", random[i]);
    run_page_html(NULL, title, &s->page);
    run_page_policy(true, &s->policy);
    text_add(&s->policy, "; frame-ancestors 'none'");
    return OK;
}

void serve_fini(struct serve *s)
{
    text_fini(&s->page);
    text_fini(&s->policy);
    text_fini(&s->data.text);
    text_fini(&s->record.text);
    text_fini(&s->metrics.text);
    text_fini(&s->openmetrics.text);
}

/* --- who may ask -------------------------------------------------------------------- */

static bool may_ask_now(struct serve *s, double now)
{
    s->allowance = fmin(SERVE_BURST, s->allowance + SERVE_PER_S * fmax(0, now - s->last));
    s->last = now;
    if (s->allowance < 1)
        return false;
    s->allowance--;
    return true;
}

/* "127.0.0.1:8080" or "localhost:8080", behind `before`. */
static bool is_here(const struct serve *s, const char *text, const char *before)
{
    char here[64];
    static const char *const names[] = { "127.0.0.1", "localhost" };
    for (i64 i = 0; text && i < COUNT_OF(names); i++) {
        snprintf(here, sizeof here, "%s%s:%d", before, names[i], s->port);
        if (strcmp(text, here) == 0)
            return true;
    }
    return false;
}

/* What follows "/TOKEN/"; NULL: another token, or none. */
static const char *behind_token(const struct serve *s, const char *path)
{
    unsigned differs = 0;
    if (strlen(path) < TOKEN_DIGITS + 2 || path[0] != '/' || path[TOKEN_DIGITS + 1] != '/')
        return NULL;
    for (int i = 0; i < TOKEN_DIGITS; i++)
        differs |= (unsigned)(u8)path[1 + i] ^ (unsigned)(u8)s->token[i];
    return differs ? NULL : path + TOKEN_DIGITS + 2;
}

/* A control character, as it is or as "%00". */
static bool is_control(const char *at)
{
    const bool escaped = at[0] == '%' && isxdigit((u8)at[1]) && isxdigit((u8)at[2]);
    const char digits[] = { escaped ? at[1] : '2', escaped ? at[2] : '0', '\0' };
    const long value = escaped ? strtol(digits, NULL, 16) : (u8)at[0];
    return value < ' ' || value == 0x7f;
}

static bool is_printable(const char *path)
{
    for (; *path; path++)
        if (is_control(path))
            return false;
    return true;
}

static void refuse(struct http_answer *a, int status, const char *why)
{
    *a = (struct http_answer){ .status = status, .body = why, .bytes = (long long)strlen(why) };
}

/* False: the answer says why not. */
static bool admit(struct serve *s, const struct http_request *q, struct http_answer *a)
{
    bool foreign = q->site && strcmp(q->site, "same-origin") != 0 && strcmp(q->site, "none") != 0;
    if (!may_ask_now(s, q->now))
        refuse(a, 429, "too many requests\n");
    else if (q->fields > HTTP_FIELDS || q->head_bytes > HTTP_HEAD_BYTES)
        refuse(a, 431, "too many fields, or too long\n");
    else if (strcmp(q->method, "GET") != 0 && strcmp(q->method, "HEAD") != 0)
        refuse(a, 405, "nothing can be changed here\n");
    else if (q->has_body)
        refuse(a, 413, "a request here has no body\n");
    else if (q->unsound || !is_printable(q->path))
        refuse(a, 400, "there are control characters in it\n");
    else if (q->repeated)
        refuse(a, 400, "a field came twice\n");
    else if (!is_here(s, q->host, ""))
        refuse(a, 403, "this server has another name\n");
    else if ((q->origin && !is_here(s, q->origin, "http://")) || foreign)
        refuse(a, 403, "another site may not ask\n");
    else
        return true;
    return false;
}

/* --- what is answered --------------------------------------------------------------- */

/* Named by all but its last member, the time when it was made. */
static void wrap(struct serve_part *p, const struct text *data)
{
    const char *made = memrchr(data->data, ',', (size_t)data->length);
    p->hash = hash64(data->data, made ? made - data->data : data->length, 0);
    text_clear(&p->text);
    text_printf(&p->text, "{\"seen\":\"%016llx\",\"data\":", (unsigned long long)p->hash);
    text_add_bytes(&p->text, data->data, data->length);
    text_add(&p->text, "}");
}

static bool is_fresh(const struct serve_part *p, double every, double now)
{
    return p->made >= 0 && now - p->made < fmax(every, SERVE_SHARE * p->took);
}

static void read_all(struct serve *s)
{
    bool changed;
    for (i64 i = 0; i < s->n_runs; i++)
        if (run_page_read(s->runs[i], &changed) < 0)
            log_line(LOG_WARN, "%s", err_message());
}

static const struct serve_part *make(struct serve *s, struct serve_part *p,
                                     enum run_page_part part, double every, double now)
{
    struct text data = { 0 };
    if (is_fresh(p, every, now))
        return p;
    u64 began = sys_now_ns();
    if (part == RUN_PAGE_CURVES)
        read_all(s);
    run_page_data(s->runs, s->n_runs, part, &data);
    wrap(p, &data);
    text_fini(&data);
    p->made = now;
    p->took = 1e-9 * (double)(sys_now_ns() - began);
    return p;
}

/* A run's name, or its folder where another one before has that name. */
static const char *label_of(const struct serve *s, i64 run)
{
    for (i64 i = 0; i < run; i++)
        if (strcmp(s->runs[i]->name, s->runs[run]->name) == 0)
            return s->runs[run]->folder;
    return s->runs[run]->name;
}

static struct openmetrics newest_of(const struct run_metrics *m, const char *label)
{
    double step, tokens = run_metrics_newest(m, "step/tokens", &step);
    return (struct openmetrics){
        .run = label, .step = isfinite(step) ? (i64)step : 0,
        .tokens = isfinite(tokens) ? (i64)tokens : 0,
        .loss = run_metrics_newest(m, "step/loss", NULL),
        .grad_norm = run_metrics_newest(m, "step/grad_norm", NULL),
        .learning_rate = run_metrics_newest(m, "step/lr", NULL),
        .step_seconds = run_metrics_newest(m, "step/step_s", NULL),
        .tokens_per_s = run_metrics_newest(m, "step/tokens_per_s", NULL),
        .mfu = run_metrics_newest(m, "step/mfu", NULL),
        .heldout_loss = run_metrics_newest(m, "eval/loss", NULL), .wall_seconds = m->last_t,
    };
}

static void give_metrics(struct serve *s, const struct http_request *q, struct http_answer *a)
{
    static const char format[] = "application/openmetrics-text";
    const bool open = q->accept && strstr(q->accept, format);
    struct serve_part *p = open ? &s->openmetrics : &s->metrics;
    const double now = q->now;
    if (!is_fresh(p, SERVE_DATA_S, now)) {
        struct arena scratch;
        u64 began = sys_now_ns();
        arena_init(&scratch);
        struct openmetrics *m = ARENA_ARRAY(&scratch, struct openmetrics, s->n_runs);
        read_all(s);
        for (i64 i = 0; i < s->n_runs; i++)
            m[i] = newest_of(&s->runs[i]->metrics, label_of(s, i));
        text_clear(&p->text);
        openmetrics_format(&p->text, m, s->n_runs, open ? OPENMETRICS_1 : PROMETHEUS_TEXT);
        arena_fini(&scratch);
        p->made = now;
        p->took = 1e-9 * (double)(sys_now_ns() - began);
    }
    *a = (struct http_answer){ .status = 200,
                               .type = open ? "application/openmetrics-text; version=1.0.0; "
                                              "charset=utf-8"
                                            : "text/plain; version=0.0.4; charset=utf-8",
                               .body = p->text.data, .bytes = p->text.length };
}

static void give(const struct serve_part *p, const struct http_request *q, struct http_answer *a)
{
    if (q->seen && strtoull(q->seen, NULL, 16) == p->hash)
        *a = (struct http_answer){ .status = 204, .body = "" };
    else
        *a = (struct http_answer){ .status = 200, .type = "application/json",
                                   .body = p->text.data, .bytes = p->text.length };
}

void serve_answer(void *context, const struct http_request *q, struct http_answer *a)
{
    struct serve *s = context;
    if (!admit(s, q, a))
        return;
    const char *what = behind_token(s, q->path);
    if (!what)
        refuse(a, 404, "there is nothing here; use the whole address that was printed\n");
    else if (strcmp(what, "") == 0)
        *a = (struct http_answer){ .status = 200, .type = "text/html; charset=utf-8",
                                   .policy = s->policy.data, .body = s->page.data,
                                   .bytes = s->page.length };
    else if (strcmp(what, "data") == 0)
        give(make(s, &s->data, RUN_PAGE_CURVES, SERVE_DATA_S, q->now), q, a);
    else if (strcmp(what, "record") == 0)
        give(make(s, &s->record, RUN_PAGE_RECORD, SERVE_RECORD_S, q->now), q, a);
    else if (strcmp(what, "metrics") == 0)
        give_metrics(s, q, a);
    else
        refuse(a, 404, "there is no such page\n");
}

/* --- the module --------------------------------------------------------------------- */

int serve_load_http(const struct http_table **table)
{
    char folder[3000], path[4096];
    const char *why;
    sys_program_folder(folder, sizeof folder);
    /* beside the program, or above it: tests lie in a folder of their own */
    snprintf(path, sizeof path, "%s/headway-http.so", folder);
    if (!sys_exists(path))
        snprintf(path, sizeof path, "%s/../headway-http.so", folder);
    if (!sys_exists(path))
        return err_set(ERR_CONFIG, "this build has no module for HTTP (headway-http.so "
                       "beside the program); install libmicrohttpd-dev and build again, "
                       "or use headway report");
    http_table_fn fn = (http_table_fn)sys_load(path, HTTP_TABLE_SYMBOL, &why);
    if (!fn)
        return err_set(ERR_SYS, "cannot load %s: %s", path, why);
    *table = fn();
    if ((*table)->version != HTTP_TABLE_VERSION)
        return err_set(ERR_CONFIG, "%s belongs to another version of headway; build both again",
                       path);
    return OK;
}
