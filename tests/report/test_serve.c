#include "test.h"

#include "base/json.h"
#include "base/sys.h"
#include "report/serve.h"

#include <fcntl.h>
#include <stdio.h>

#define FOLDER "serve-test"

static struct run_page page, *pages[] = { &page };
static struct serve server;
static char path[128];

static void append(const char *line)
{
    int fd = sys_open(FOLDER "/metrics.jsonl", O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(fd >= 0 && sys_write_full(fd, line, (i64)strlen(line)) == 0);
    sys_close(fd);
}

static int begin(void **state)
{
    (void)state;
    sys_remove_tree(FOLDER);
    sys_mkdirs(FOLDER);
    append("{\"event\":\"step\",\"step\":1,\"loss\":3}\n");
    CHECK_OK(run_page_open(&page, FOLDER));
    CHECK_OK(serve_init(&server, pages, 1, "a run"));
    server.port = 8080;
    return 0;
}

static int end(void **state)
{
    (void)state;
    serve_fini(&server);
    run_page_close(&page);
    return 0;
}

/* What is asked by our own page, of this path behind the token. */
static struct http_request good(const char *what, double now)
{
    snprintf(path, sizeof path, "/%s/%s", server.token, what);
    return (struct http_request){ .method = "GET", .path = path, .host = "127.0.0.1:8080",
                                  .fields = 5, .now = now };
}

static int status(const struct http_request *q)
{
    struct http_answer a = { 0 };
    serve_answer(&server, q, &a);
    CHECK(a.bytes == 0 || a.body);
    return a.status;
}

TEST(who_knows_the_address_gets_the_page)
{
    struct http_answer a = { 0 };
    struct http_request q = good("", 0);
    serve_answer(&server, &q, &a);
    CHECK_EQ(a.status, 200);
    CHECK(strncmp(a.body, "<!doctype html>", 15) == 0 && strstr(a.policy, "default-src 'none'"));
    q.host = "localhost:8080";
    q.origin = "http://localhost:8080";
    q.site = "same-origin";
    q.method = "HEAD";
    CHECK_EQ(status(&q), 200);
}

/* Each in one way only. */
TEST(everybody_else_gets_nothing)
{
    struct http_request q = good("", 1000);
    const struct { const char *what; struct http_request q; int status; } cases[] = {
        { "another name", { .host = "evil.example:8080" }, 403 },
        { "no name", { .host = "" }, 403 },
        { "another port", { .host = "127.0.0.1:80" }, 403 },
        { "more than the name", { .host = "127.0.0.1:8080.evil.example" }, 403 },
        { "another origin", { .origin = "http://evil.example" }, 403 },
        { "no origin at all", { .origin = "null" }, 403 },
        { "another site", { .site = "cross-site" }, 403 },
        { "another method", { .method = "POST" }, 405 },
        { "a method of its own", { .method = "GETS" }, 405 },
        { "a body", { .has_body = 1 }, 413 },
        { "two names", { .repeated = 1 }, 400 },
        { "too many fields", { .fields = 65 }, 431 },
        { "fields too long", { .head_bytes = 8193 }, 431 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct http_request bad = q;
        const struct http_request *c = &cases[i].q;
        bad.host = c->host ? c->host : bad.host;
        bad.origin = c->origin;
        bad.site = c->site;
        bad.method = c->method ? c->method : bad.method;
        bad.has_body = c->has_body;
        bad.repeated = c->repeated;
        bad.head_bytes = c->head_bytes;
        bad.fields = c->fields ? c->fields : bad.fields;
        if (status(&bad) != cases[i].status)
            fail_msg("%s is answered %d", cases[i].what, status(&bad));
    }
    q.host = NULL;
    CHECK_EQ(status(&q), 403);
}

TEST(control_characters_are_no_part_of_a_path)
{
    static const char *const bad[] = { "%00", "data%00", "%0A", "\x01", "\x7f", "%7f", "a\tb" };
    static const char *const unknown[] = { "%", "%0", "%2", "%41", "%zz", "\xc3\xa4", "data%20" };
    for (i64 i = 0; i < COUNT_OF(bad); i++) {
        struct http_request q = good(bad[i], 1200 + (double)i);
        CHECK_EQ(status(&q), 400);
    }
    for (i64 i = 0; i < COUNT_OF(unknown); i++) {
        struct http_request q = good(unknown[i], 1300 + (double)i);
        CHECK_EQ(status(&q), 404);
    }
    struct http_request q = good("", 1400);
    q.unsound = 1;
    CHECK_EQ(status(&q), 400);
}

TEST(a_token_must_be_right_in_every_digit)
{
    for (int i = 0; i < 34; i++) {
        struct http_request q = good("", 2000 + i);
        path[i] ^= 1;
        CHECK_EQ(status(&q), 404);
    }
    static const char *const paths[] = { "", "/", "//", "/data", "/../../etc/passwd", "*" };
    for (i64 i = 0; i < COUNT_OF(paths); i++) {
        struct http_request q = good("", 2100);
        q.path = paths[i];
        CHECK_EQ(status(&q), 404);
    }
    static const char *const names[] = { "..", "../etc/passwd", "data/", "Data", "page.js" };
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        struct http_request q = good(names[i], 2200);
        CHECK_EQ(status(&q), 404);
    }
    struct run_page *const *none = pages;
    struct serve other;
    CHECK_OK(serve_init(&other, none, 1, "again"));
    CHECK(strcmp(other.token, server.token) != 0 && strlen(other.token) == 32);
    serve_fini(&other);
}

TEST(data_are_given_once_and_again_when_there_are_new_ones)
{
    struct http_answer a = { 0 };
    struct http_request q = good("data", 3000);
    char seen[17];
    json_t *o;
    serve_answer(&server, &q, &a);
    CHECK_EQ(a.status, 200);
    CHECK_OK(json_parse(a.body, a.bytes, "answer", &o));
    snprintf(seen, sizeof seen, "%s", json_string_value(json_object_get(o, "seen")));
    json_decref(o);
    q.seen = seen;
    CHECK_EQ(status(&q), 204);
    q.now += 5;
    CHECK_EQ(status(&q), 204);
    append("{\"event\":\"step\",\"step\":2,\"loss\":2}\n");
    CHECK_EQ(status(&q), 204); /* it was looked at within a second */
    q.now += 5;
    CHECK_EQ(status(&q), 200);
    CHECK_EQ(page.metrics.lines, 2);
    q = good("record", 3020);
    CHECK_EQ(status(&q), 200);
}

TEST(monitoring_gets_what_the_run_said_last)
{
    struct http_answer a = { 0 };
    struct http_request q = good("metrics", 3500);
    append("{\"event\":\"step\",\"t\":90,\"step\":3,\"loss\":1.5,\"tokens\":300}\n"
           "{\"event\":\"eval\",\"t\":91,\"step\":3,\"loss\":1.75}\n");
    serve_answer(&server, &q, &a);
    CHECK_EQ(a.status, 200);
    CHECK(strncmp(a.type, "text/plain; version=0.0.4", 25) == 0);
    CHECK(strstr(a.body, "\nheadway_steps_total{run=\"" FOLDER "\",rank=\"0\"} 3\n"));
    CHECK(strstr(a.body, "\nheadway_trained_tokens_total{run=\"" FOLDER "\",rank=\"0\"} 300\n"));
    CHECK(strstr(a.body, "\nheadway_loss_nats{run=\"" FOLDER "\",rank=\"0\"} 1.5\n"));
    CHECK(strstr(a.body, "\nheadway_heldout_loss_nats{run=\"" FOLDER "\",rank=\"0\"} 1.75\n"));
    CHECK(strstr(a.body, "\nheadway_updated_timestamp_seconds{run=\"" FOLDER
                 "\",rank=\"0\"} 91\n"));
    CHECK(!strstr(a.body, "headway_mfu_ratio") && !strstr(a.body, "# EOF"));
    append("{\"event\":\"step\",\"step\":4,\"loss\":1.25,\"tokens\":400}\n");
    q.now += 5;
    serve_answer(&server, &q, &a);
    CHECK(strstr(a.body, "\nheadway_loss_nats{run=\"" FOLDER "\",rank=\"0\"} 1.25\n"));
}

TEST(who_accepts_openmetrics_gets_it)
{
    struct http_answer a = { 0 };
    struct http_request q = good("metrics", 3600);
    q.accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3";
    serve_answer(&server, &q, &a);
    CHECK_EQ(a.status, 200);
    CHECK(strncmp(a.type, "application/openmetrics-text; version=1.0.0", 43) == 0);
    CHECK(strstr(a.body, "# TYPE headway_steps counter\n"));
    CHECK(strcmp(a.body + a.bytes - 6, "# EOF\n") == 0);
    q.accept = "*/*";
    serve_answer(&server, &q, &a);
    CHECK(strncmp(a.type, "text/plain; version=0.0.4", 25) == 0 && !strstr(a.body, "# EOF"));
}

TEST(who_asks_too_often_waits)
{
    int answered = 0, more = 0;
    for (int i = 0; i < 1000; i++) {
        struct http_request q = good("", 4000);
        answered += status(&q) == 200;
    }
    CHECK_EQ(answered, SERVE_BURST);
    for (int i = 0; i < 1000; i++) {
        struct http_request q = good("", 4001);
        more += status(&q) == 200;
    }
    CHECK_EQ(more, SERVE_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(who_knows_the_address_gets_the_page), ONE(everybody_else_gets_nothing),
        ONE(a_token_must_be_right_in_every_digit), ONE(control_characters_are_no_part_of_a_path),
        ONE(data_are_given_once_and_again_when_there_are_new_ones),
        ONE(monitoring_gets_what_the_run_said_last), ONE(who_accepts_openmetrics_gets_it),
        ONE(who_asks_too_often_waits),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
