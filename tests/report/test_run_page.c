#include "test.h"

#include "base/json.h"
#include "base/sys.h"
#include "report/pack.h"
#include "report/run_page.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>

#define FOLDER "run-page-test"

static void write_file(const char *name, const char *text, i64 bytes)
{
    char path[256];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && sys_write_full(fd, text, bytes) == 0);
    sys_close(fd);
}

static void begin(const char *metrics)
{
    sys_remove_tree(FOLDER);
    CHECK_EQ(sys_mkdirs(FOLDER), 0);
    write_file("metrics.jsonl", metrics, (i64)strlen(metrics));
}

static const struct series *find(const struct run_metrics *m, const char *name)
{
    for (i64 i = 0; i < m->n_series; i++)
        if (!strcmp(m->series[i].name, name))
            return &m->series[i];
    return NULL;
}

static double value(const struct run_metrics *m, const char *name, i64 point)
{
    const struct series *s = find(m, name);
    return s && point < s->n ? series_mean(&s->points[point]) : NAN;
}

static const char two_steps[] =
    "{\"event\":\"schema\",\"t\":100,\"version\":1}\n"
    "{\"event\":\"step\",\"t\":101,\"step\":1,\"loss\":7.5,\"sources\":{\"a\":3}}\n"
    "{\"event\":\"step\",\"t\":102.5,\"step\":2,\"loss\":7,\"list\":[5,6]}\n"
    "{\"event\":\"eval\",\"t\":103,\"step\":2,\"loss\":8}\n";

TEST(every_number_of_a_line_becomes_a_point_of_a_curve)
{
    struct run_metrics m;
    run_metrics_init(&m);
    run_metrics_feed(&m, two_steps, (i64)strlen(two_steps));
    CHECK_NEAR(value(&m, "step/loss", 1), 7, 0);
    CHECK_NEAR(value(&m, "step/sources/a", 0), 3, 0);
    CHECK_NEAR(value(&m, "step/list/1", 0), 6, 0);
    CHECK_NEAR(value(&m, "step/since", 1), 2.5, 0);
    CHECK_NEAR(value(&m, "eval/loss", 0), 8, 0);
    CHECK(!find(&m, "step/step") && !find(&m, "step/t"));
    CHECK_EQ(m.bad_lines, 0);
    run_metrics_fini(&m);
}

/* However the text is cut into parts. */
TEST(a_line_may_come_in_parts)
{
    for (i64 cut = 1; cut < 40; cut++) {
        struct run_metrics m;
        run_metrics_init(&m);
        for (i64 at = 0; at < (i64)strlen(two_steps); at += cut)
            run_metrics_feed(&m, two_steps + at, i64_min(cut, (i64)strlen(two_steps) - at));
        CHECK_EQ(m.lines, 4);
        CHECK_NEAR(value(&m, "eval/loss", 0), 8, 0);
        run_metrics_fini(&m);
    }
}

TEST(lines_that_are_damaged_are_counted_and_the_rest_is_shown)
{
    static const char text[] =
        "{\"event\":\"step\",\"step\":1,\"loss\":1}\nrubbish\n[1]\n{\"a\":1}\n"
        "{\"event\":\"spike\",\"step\":3,\"loss\":9}\n"
        "{\"event\":\"step\",\"step\":4,\"loss\":{\"a\":{\"b\":{\"c\":{\"d\":1}}}}}\n";
    struct run_metrics m;
    run_metrics_init(&m);
    run_metrics_feed(&m, text, (i64)strlen(text));
    CHECK_EQ(m.bad_lines, 3);
    CHECK_EQ(m.left_out, 1); /* too deep */
    CHECK_EQ(m.n_notes, 1);
    CHECK_NEAR(m.notes[0].step, 3, 0);
    CHECK_NEAR(value(&m, "step/loss", 0), 1, 0);
    run_metrics_fini(&m);
}

TEST(more_curves_than_there_may_be_are_left_out_and_counted)
{
    struct run_metrics m;
    struct text line = { 0 };
    run_metrics_init(&m);
    text_add(&line, "{\"event\":\"step\",\"step\":1");
    for (int i = 0; i < METRICS_SERIES + 10; i++)
        text_printf(&line, ",\"k%d\":%d", i, i);
    text_add(&line, "}\n");
    run_metrics_feed(&m, line.data, line.length);
    CHECK_EQ(m.n_series, METRICS_SERIES);
    CHECK_EQ(m.left_out, 10);
    text_fini(&line);
    run_metrics_fini(&m);
}

TEST(what_is_appended_is_read_and_a_new_file_is_read_anew)
{
    struct run_page p;
    bool changed;
    begin("{\"event\":\"step\",\"step\":1,\"loss\":1}\n{\"event\":\"st");
    CHECK_OK(run_page_open(&p, FOLDER "/"));
    CHECK_STR(p.name, FOLDER);
    CHECK_OK(run_page_read(&p, &changed));
    CHECK(changed && p.metrics.lines == 1);
    CHECK_OK(run_page_read(&p, &changed));
    CHECK(!changed);
    int fd = sys_open(FOLDER "/metrics.jsonl", O_WRONLY | O_APPEND, 0);
    static const char rest[] = "ep\",\"step\":2,\"loss\":2}\n";
    CHECK_EQ(sys_write_full(fd, rest, (i64)strlen(rest)), 0);
    sys_close(fd);
    CHECK_OK(run_page_read(&p, &changed));
    CHECK(changed && p.metrics.lines == 2);
    CHECK_NEAR(value(&p.metrics, "step/loss", 1), 2, 0);
    write_file("metrics.jsonl", "{\"event\":\"step\",\"step\":1,\"loss\":5}\n", 35);
    CHECK_OK(run_page_read(&p, &changed));
    CHECK(changed && p.metrics.lines == 1);
    CHECK_NEAR(value(&p.metrics, "step/loss", 0), 5, 0);
    run_page_close(&p);
}

TEST(a_folder_that_is_no_run_is_refused)
{
    struct run_page p;
    sys_remove_tree(FOLDER);
    CHECK_EQ(sys_mkdirs(FOLDER), 0);
    CHECK_FAILS(run_page_open(&p, FOLDER), ERR_CONFIG, "is no run folder");
    CHECK_EQ(sys_fault_arm("stat:1:EACCES:repeat"), 0); /* nobody knows what it holds */
    CHECK_FAILS(run_page_open(&p, FOLDER), ERR_CONFIG, "open " FOLDER ": Permission denied");
    sys_fault_arm(NULL);
    CHECK_FAILS(run_page_open(&p, FOLDER "/not"), ERR_CONFIG, "open " FOLDER "/not: No such file");
}

/* Names, messages and settings of a hostile folder. */
TEST(nothing_that_a_folder_holds_ends_the_block_of_data)
{
    struct run_page p, *list = &p;
    struct text data = { 0 }, page = { 0 };
    bool changed;
    static const char nasty[] = "</script><script>alert(1)</script><!--\x01\x1b[2J\xff\xe2\x80\xa8";
    begin("{\"event\":\"step\",\"step\":1,\"</script><script>\":1}\n"
          "{\"event\":\"</script>\",\"step\":1}\n");
    write_file("log.txt", nasty, sizeof nasty); /* with its NUL */
    write_file("manifest.json", "{\"model\":{\"name\":\"</script>\"}}", 30);
    write_file("energy.json", "{\"J\":", 5);
    CHECK_OK(run_page_open(&p, FOLDER));
    CHECK_OK(run_page_read(&p, &changed));
    run_page_data(&list, 1, RUN_PAGE_ALL, &data);
    CHECK(memchr(data.data, '<', (size_t)data.length) == NULL);
    CHECK(memchr(data.data, 0, (size_t)data.length) == NULL);
    json_t *o;
    CHECK_OK(json_parse_text(data.data, data.length, "data", 1, &o));
    const json_t *run = json_array_get(json_object_get(o, "runs"), 0);
    CHECK(strstr(json_string_value(json_object_get(run, "log")), "</script><script>alert(1)"));
    const json_t *missing = json_object_get(run, "missing"); /* energy.json is torn; no record */
    CHECK_EQ(json_array_size(missing), 2);
    CHECK(strstr(json_string_value(json_array_get(missing, 0)), "energy.json"));
    json_decref(o);
    run_page_html(&data, "</title><script>alert(2)</script>\"&", &page);
    CHECK(strstr(page.data, "<title>&#60;/title&#62;&#60;script&#62;alert(2)"));
    const char *block = strstr(page.data, "type=\"application/json\"");
    CHECK(block && strstr(strstr(block, "</script>"), "<script>\"use strict\""));
    text_fini(&data);
    text_fini(&page);
    run_page_close(&p);
}

TEST(a_page_asks_for_nothing)
{
    struct text policy = { 0 }, page = { 0 };
    run_page_policy(false, &policy);
    CHECK(strstr(policy.data, "default-src 'none'") && strstr(policy.data, "connect-src 'none'"));
    run_page_html(NULL, "live", &page);
    CHECK(strstr(page.data, "connect-src 'self'"));
    CHECK(!strstr(page.data, "https:") && !strstr(page.data, "@@"));
    text_fini(&policy);
    text_fini(&page);
}

TEST(packed_arrays_are_base64_of_little_endian_numbers)
{
    struct json j;
    json_writer_init(&j);
    json_begin_array(&j);
    pack_bytes(&j, "Hello", 5);
    pack_f32(&j, (const float[]){ 1.0f }, 1);
    pack_deltas(&j, (const i64[]){ 1, 2, -1, 300 }, 4); /* +1 +1 -3 +301: 2, 2, 5, 602 */
    pack_bytes(&j, "", 0);
    json_end(&j);
    CHECK_STR(j.out.data, "[\"SGVsbG8=\",\"AACAPw==\",\"AgIF2gQ=\",\"\"]");
    json_writer_fini(&j);
}

TEST_MAIN(ONE(every_number_of_a_line_becomes_a_point_of_a_curve), ONE(a_line_may_come_in_parts),
          ONE(lines_that_are_damaged_are_counted_and_the_rest_is_shown),
          ONE(more_curves_than_there_may_be_are_left_out_and_counted),
          ONE(what_is_appended_is_read_and_a_new_file_is_read_anew),
          ONE(a_folder_that_is_no_run_is_refused),
          ONE(nothing_that_a_folder_holds_ends_the_block_of_data), ONE(a_page_asks_for_nothing),
          ONE(packed_arrays_are_base64_of_little_endian_numbers))
