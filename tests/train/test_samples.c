/* What the host counted beside a run's steps, as its record has it. */
#define JOB_DIR "samples-test"
#include "train/job.h"

#include "diagnose/record.h"

/* The sample of the first step: later ones are left out where steps are short. */
static struct sample sample_with(const char *name, const char *const *sets)
{
    char folder[128];
    struct record r;
    struct record_step step = { 0 };
    snprintf(folder, sizeof folder, JOB_DIR "/runs/%s", name);
    CHECK_OK(train(name, sets, false, NULL));
    CHECK_OK(record_open(&r, folder));
    CHECK_OK(record_step(&r, 0, &step));
    CHECK(step.ranks[0].sample != NULL);
    struct sample s = *step.ranks[0].sample;
    record_step_free(&step);
    record_close(&r);
    return s;
}

#define SHORT_RUN \
    "eval.every=0", "checkpoint.every=0", "train.steps=3", "train.threads=2", "data.val_fraction=0"

static struct sample sample_of(const char *name, const char *inject, const char *batch)
{
    char set[128];
    const char *const sets[] = { set, batch, SHORT_RUN, "data.cache=" JOB_DIR "/all", NULL };
    snprintf(set, sizeof set, "run.inject=%s", inject);
    return sample_with(name, sets);
}

static struct sample first_sample(const char *name, const char *inject)
{
    return sample_of(name, inject, "train.batch=2");
}

TEST(a_sample_says_what_the_host_and_the_loader_did)
{
    make_corpus();
    struct sample s = first_sample("plain", "");
    CHECK_EQ(s.step, 0);
    CHECK_EQ(s.has & (SAMPLE_USAGE | SAMPLE_CLOCK | SAMPLE_LOADER | SAMPLE_ROWS),
             SAMPLE_USAGE | SAMPLE_CLOCK | SAMPLE_LOADER | SAMPLE_ROWS);
    CHECK_EQ(s.threads, 2);
    CHECK(s.processors >= 1 && s.covers_ns > 0 && s.peak_rss_bytes > 1 << 20);
    CHECK(s.phi > 0.2 && s.phi < 5);
    CHECK_EQ(s.tokens, 64); /* two rows of 32 */
    CHECK_EQ(s.tokens_idle, 0);
    CHECK(s.documents >= 2 && s.attended <= 2 * 32 * 33 / 2);
    CHECK_EQ(s.loader_used_bytes, 128);
    CHECK(s.loader_read_bytes >= 128 && s.loader_ahead == 4 && s.loader_threads == 1);
}

/* A loader that computes is on a processor as long as it is busy; one that waits is not. */
TEST(a_loader_that_computes_is_told_from_one_that_waits)
{
    struct sample spin = first_sample("spin", "loader_spin=20ms");
    CHECK(spin.loader_busy_ns >= 20 * 1000 * 1000);
    /* Being pushed aside takes from what a spinning loop computes; a tenth of it is left. */
    CHECK(spin.loader_cpu_ns >= 2 * 1000 * 1000);
    struct sample wait = first_sample("wait", "loader_bw=0.01");
    CHECK(wait.loader_busy_ns >= 25 * 1000 * 1000);
    CHECK(wait.loader_cpu_ns < wait.loader_busy_ns / 5);
}

TEST(churned_memory_is_page_faults)
{
    struct sample s = first_sample("churn", "malloc_churn=64");
    CHECK(s.minor_faults >= 32); /* of 2 MiB at the largest */
}

TEST(a_clock_may_be_said_to_be_slow)
{
    struct sample s = first_sample("phi", "phi_override=0.1");
    CHECK(s.phi < 0.5);
}

TEST(short_documents_and_padding_are_counted)
{
    struct sample s = first_sample("padding", "padding=25");
    CHECK_EQ(s.tokens_idle, 16);
    /* Rows of 32 in 1 to 32 parts, nearly as often each: all 16 whole is 1 in 10^13. */
    s = sample_of("zipf", "seqlen_zipf=0.01,padding=50", "train.batch=16");
    CHECK_EQ(s.tokens_idle, 16 * 16);
    CHECK(s.documents > 16 && s.attended < 16 * 32 * 33 / 2);
}

/* Question and answer by turns: what stands in front of an answer serves it, and the end of a row
 * behind its last answer nothing. */
TEST(questions_serve_their_answers)
{
    const char *sets[] = { SHORT_RUN, "data.sources=" JOB_DIR "/qa.jsonl",
                           "data.cache=" JOB_DIR "/qa", "data.loss_on=all", NULL };
    char line[200], jsonl[8000] = "";
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof line,
                 "{\"prompt\": \"how old is bridge %d?\", \"answer\": \"%d\"}\n", i, i);
        strcat(jsonl, line);
    }
    write_file(JOB_DIR "/qa.jsonl", jsonl);
    const struct sample all = sample_with("all", sets);
    sets[COUNT_OF(sets) - 2] = "data.loss_on=answers";
    const struct sample answers = sample_with("answers", sets);
    CHECK_EQ(all.tokens_idle, 0);
    CHECK_EQ(answers.tokens, all.tokens);
    CHECK(answers.tokens_idle > 0 && answers.tokens_idle < answers.tokens / 2);
}

TEST_MAIN(ONE(a_sample_says_what_the_host_and_the_loader_did),
          ONE(a_loader_that_computes_is_told_from_one_that_waits),
          ONE(questions_serve_their_answers),
          ONE(churned_memory_is_page_faults), ONE(a_clock_may_be_said_to_be_slow),
          ONE(short_documents_and_padding_are_counted))
