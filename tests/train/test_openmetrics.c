/* What monitoring reads: the format, by a strict reader, and the file of a run. */
#define JOB_DIR "openmetrics-test"
#include "train/job.h"

#include "train/openmetrics.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

/* --- a reader that forgives nothing (for families of one sample) ---------------------- */

struct sample {
    char name[96], run[64], rank[16];
    double value;
};

struct reading {
    struct sample samples[32];
    int n;
};

static bool begins(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

/* The word up to a blank or the end; what follows the blank. */
static const char *word(const char *at, char *out, size_t size)
{
    size_t n = strcspn(at, " {");
    CHECK(n > 0 && n < size);
    for (size_t i = 0; i < n; i++)
        CHECK(at[i] == '_' || isalpha((unsigned char)at[i]) ||
              (i > 0 && isdigit((unsigned char)at[i])));
    memcpy(out, at, n);
    out[n] = '\0';
    return at[n] == ' ' ? at + n + 1 : at + n;
}

/* name="value", with its escapes undone. */
static const char *label(const char *at, const char *name, char *out, size_t size)
{
    size_t n = 0;
    CHECK(begins(at, name) && begins(at + strlen(name), "=\""));
    for (at += strlen(name) + 2; *at != '"'; at++) {
        CHECK(*at != '\0' && n + 1 < size);
        if (*at == '\\') {
            at++;
            CHECK(*at == '\\' || *at == '"' || *at == 'n');
            out[n++] = *at == 'n' ? '\n' : *at;
        } else {
            out[n++] = *at;
        }
    }
    out[n] = '\0';
    return at + 1;
}

static double number(const char *text)
{
    char *end;
    if (strcmp(text, "NaN") == 0 || strcmp(text, "+Inf") == 0 || strcmp(text, "-Inf") == 0)
        return *text == 'N' ? NAN : *text == '+' ? INFINITY : -INFINITY;
    CHECK(*text == '-' || isdigit((unsigned char)*text));
    double value = strtod(text, &end);
    CHECK(end > text && *end == '\0');
    return value;
}

static bool ends(const char *text, const char *with)
{
    size_t n = strlen(text), k = strlen(with);
    return n > k && strcmp(text + n - k, with) == 0;
}

static char *help(char *line, const char *name)
{
    char other[96];
    CHECK(begins(line, "# HELP "));
    const char *rest = word(line + 7, other, sizeof other);
    CHECK_STR(other, name);
    CHECK(strlen(rest) > 5);
    return line;
}

/* A family's lines of metadata, of OpenMetrics 1.0: a counter's sample has "_total" behind the
 * family's name, and a unit is the end of that name. */
static char **open_metadata(char **line, char wanted[112])
{
    char name[96], type[16], other[96], unit[64];
    CHECK(begins(*line, "# TYPE "));
    const char *rest = word(*line++ + 7, name, sizeof name);
    word(rest, type, sizeof type);
    CHECK(strcmp(type, "gauge") == 0 || strcmp(type, "counter") == 0);
    if (begins(*line, "# UNIT ")) {
        rest = word(*line++ + 7, other, sizeof other);
        CHECK_STR(other, name);
        snprintf(unit, sizeof unit, "_%s", rest);
        CHECK(ends(name, unit));
    }
    help(*line++, name);
    snprintf(wanted, 112, "%s%s", name, strcmp(type, "counter") == 0 ? "_total" : "");
    return line;
}

/* Of Prometheus' format 0.0.4: help, then type, of the very name that the sample has; a counter's
 * ends in "_total". No other line of metadata is known. */
static char **old_metadata(char **line, char wanted[112])
{
    char name[96], type[16];
    const char *rest = word(*line + 7, name, sizeof name);
    help(*line++, name);
    CHECK(begins(*line, "# TYPE "));
    rest = word(*line++ + 7, wanted, 96);
    CHECK_STR(wanted, name);
    word(rest, type, sizeof type);
    CHECK(strcmp(type, ends(name, "_total") ? "counter" : "gauge") == 0);
    return line;
}

static char **family(char **line, struct reading *r, enum openmetrics_dialect dialect)
{
    char wanted[112];
    const char *rest;
    line = dialect == OPENMETRICS_1 ? open_metadata(line, wanted) : old_metadata(line, wanted);
    struct sample *s = &r->samples[r->n++];
    rest = word(*line++, s->name, sizeof s->name);
    CHECK_STR(s->name, wanted);
    CHECK_EQ(*rest, '{');
    rest = label(rest + 1, "run", s->run, sizeof s->run);
    CHECK_EQ(*rest, ',');
    rest = label(rest + 1, "rank", s->rank, sizeof s->rank);
    CHECK(begins(rest, "} "));
    s->value = number(rest + 2);
    for (int i = 0; i + 1 < r->n; i++)
        CHECK(strcmp(r->samples[i].name, s->name) != 0);
    return line;
}

/* Cuts text into lines in place. */
static struct reading read_metrics(char *text, enum openmetrics_dialect dialect)
{
    char *lines[128], **line = lines;
    struct reading r = { .n = 0 };
    int n = 0;
    CHECK(ends(text, "\n"));
    CHECK_EQ(ends(text, "\n# EOF\n"), dialect == OPENMETRICS_1);
    for (char *at = text; *at; at++) {
        CHECK(n < 127);
        lines[n++] = at;
        at += strcspn(at, "\n");
        CHECK_EQ(*at, '\n');
        *at = '\0';
    }
    n -= dialect == OPENMETRICS_1;
    while (line < lines + n)
        line = family(line, &r, dialect);
    CHECK(line == &lines[n]);
    return r;
}

static const struct sample *find(const struct reading *r, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->samples[i].name, name) == 0)
            return &r->samples[i];
    return NULL;
}

static double value_of(const struct reading *r, const char *name)
{
    const struct sample *s = find(r, name);
    CHECK(s != NULL);
    return s->value;
}

/* --- tests -------------------------------------------------------------------------- */

TEST(names_are_escaped_and_numbers_that_are_none_have_the_format_s_words)
{
    struct openmetrics m = { .run = "a \"b\"\\\nc", .rank = 3, .step = 7, .tokens = 1 << 30,
                             .loss = NAN, .grad_norm = INFINITY, .learning_rate = 1e-7,
                             .step_seconds = 0.5, .tokens_per_s = -INFINITY,
                             .heldout_loss = NAN, .wall_seconds = 1.5e9 };
    for (int dialect = OPENMETRICS_1; dialect <= PROMETHEUS_TEXT; dialect++) {
        struct text out = { 0 };
        openmetrics_format(&out, &m, 1, dialect);
        struct reading r = read_metrics(out.data, dialect);
        for (int i = 0; i < r.n; i++) {
            CHECK_STR(r.samples[i].run, m.run);
            CHECK_STR(r.samples[i].rank, "3");
        }
        CHECK_EQ((i64)value_of(&r, "headway_steps_total"), 7);
        CHECK_EQ((i64)value_of(&r, "headway_trained_tokens_total"), 1 << 30);
        CHECK(isnan(value_of(&r, "headway_loss_nats")));
        CHECK(value_of(&r, "headway_gradient_norm") == INFINITY);
        CHECK(value_of(&r, "headway_throughput_tokens_per_second") == -INFINITY);
        CHECK(value_of(&r, "headway_learning_rate") == 1e-7);
        CHECK(!find(&r, "headway_heldout_loss_nats") && !find(&r, "headway_mfu_ratio"));
        text_fini(&out);
    }
}

/* Each name has its metadata once, before the samples of both. */
TEST(two_runs_share_the_lines_about_a_name)
{
    const struct openmetrics m[] = { { .run = "a", .step = 1, .heldout_loss = NAN },
                                     { .run = "b", .step = 2, .heldout_loss = 3 } };
    struct text out = { 0 };
    openmetrics_format(&out, m, 2, PROMETHEUS_TEXT);
    CHECK(begins(out.data, "# HELP headway_steps_total Optimizer steps taken.\n"
                           "# TYPE headway_steps_total counter\n"
                           "headway_steps_total{run=\"a\",rank=\"0\"} 1\n"
                           "headway_steps_total{run=\"b\",rank=\"0\"} 2\n"
                           "# HELP headway_trained_tokens_total "));
    CHECK(strstr(out.data, "# TYPE headway_heldout_loss_nats gauge\n"
                           "headway_heldout_loss_nats{run=\"b\",rank=\"0\"} 3\n"));
    text_fini(&out);
}

static struct reading read_file(const char *path)
{
    static char text[8192];
    int fd = sys_open(path, O_RDONLY, 0);
    CHECK(fd >= 0);
    i64 n = sys_read_full(fd, text, sizeof text - 1);
    sys_close(fd);
    CHECK(n > 0 && n < (i64)sizeof text - 1);
    text[n] = '\0';
    return read_metrics(text, openmetrics_dialect_of(path));
}

/* The same numbers as the run's own record, at the last step and its evaluation. */
static void expect_run(const char *path)
{
    struct reading r = read_file(path);
    CHECK_STR(find(&r, "headway_loss_nats")->run, "watched");
    CHECK_STR(find(&r, "headway_loss_nats")->rank, "0");
    CHECK_EQ((i64)value_of(&r, "headway_steps_total"), 8);
    CHECK_EQ((i64)value_of(&r, "headway_trained_tokens_total"), 8 * 2 * 32);
    CHECK(value_of(&r, "headway_loss_nats") == last_metric("watched", "step", "loss"));
    CHECK(value_of(&r, "headway_gradient_norm") == last_metric("watched", "step", "grad_norm"));
    CHECK(value_of(&r, "headway_learning_rate") == last_metric("watched", "step", "lr"));
    CHECK(value_of(&r, "headway_step_seconds") == last_metric("watched", "step", "step_s"));
    CHECK(value_of(&r, "headway_heldout_loss_nats") == last_metric("watched", "eval", "loss"));
    CHECK(value_of(&r, "headway_throughput_tokens_per_second") > 0);
}

TEST(a_run_leaves_what_its_metrics_say)
{
    static const char *const prom[] = { "log.openmetrics=" JOB_DIR "/run.prom", NULL };
    static const char *const plain[] = { "log.openmetrics=" JOB_DIR "/run.txt", NULL };
    make_corpus();
    CHECK_OK(train("watched", plain, false, NULL));
    expect_run(JOB_DIR "/run.txt");
    sys_remove_tree(JOB_DIR "/runs/watched");
    CHECK_OK(train("watched", prom, false, NULL));
    expect_run(JOB_DIR "/run.prom");
    CHECK(!sys_exists(JOB_DIR "/run.prom.tmp"));
}

TEST(a_folder_that_is_missing_is_said_at_once_and_one_that_fails_later_costs_no_run)
{
    static const char *const missing[] = { "log.openmetrics=" JOB_DIR "/no/run.prom", NULL };
    static const char *const blocked[] = { "log.openmetrics=" JOB_DIR "/blocked", NULL };
    CHECK_FAILS(train("unwatched", missing, false, NULL), ERR_CONFIG,
                "there is no folder " JOB_DIR "/no/");
    CHECK_EQ(sys_mkdirs(JOB_DIR "/blocked/full"), 0); /* nothing can be renamed to it */
    CHECK_OK(train("unwatched", blocked, false, NULL));
    CHECK(log_has("unwatched", "log.openmetrics: cannot write " JOB_DIR "/blocked"));
    CHECK(!sys_exists(JOB_DIR "/blocked.tmp"));
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(names_are_escaped_and_numbers_that_are_none_have_the_format_s_words),
          ONE(two_runs_share_the_lines_about_a_name),
          ONE(a_run_leaves_what_its_metrics_say),
          ONE(a_folder_that_is_missing_is_said_at_once_and_one_that_fails_later_costs_no_run))
