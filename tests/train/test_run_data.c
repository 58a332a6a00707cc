/* Whole runs whose data vanish, and whose batches change their shape. */
#define JOB_DIR "run-data-test"
#include "train/job.h"

#include "base/json.h"
#include "support/cut_short.h"

#include <math.h>

#define TWO_SOURCES                                                                      \
    "data.sources=[{path: " JOB_DIR "/text, name: a}, {path: " JOB_DIR "/text, name: b}]"
#define SECOND JOB_DIR "/cache/source-1"

static void damage_after_three(void *context, const struct train_status *s)
{
    (void)context;
    if (s->step == 3)
        cut_short(SECOND);
}

static int run_with_damage(const char *name, const char *const *sets)
{
    struct job j;
    make_corpus();
    open_job(&j, name, sets);
    j.request.hooks.progress = damage_after_three;
    int rc = run_job(&j);
    arena_fini(&j.arena);
    return rc;
}

TEST(data_that_vanish_stop_the_run_with_its_state_saved)
{
    static const char *const sets[] = { TWO_SOURCES, "train.steps=60", "eval.every=0", NULL };
    i64 step;
    CHECK_FAILS(run_with_damage("stop", sets), ERR_FORMAT, "whose state is saved");
    CHECK_OK(checkpoint_latest(JOB_DIR "/runs/stop/checkpoints", &step));
    CHECK(step >= 3 && step < 60);
}

static void damage_held_out(void *context, const struct train_status *s)
{
    (void)context;
    int fd = s->step == 3 ? sys_open(JOB_DIR "/held/source-0/val-00000.shard", O_RDWR, 0) : -1;
    if (fd >= 0) {
        CHECK(sys_truncate(fd, 64) == 0);
        sys_close(fd);
    }
}

/* What was trained is saved; that it was is said. */
TEST(held_out_data_that_vanish_are_missed_when_training_is_done)
{
    static const char *const sets[] = { "data.sources=" JOB_DIR "/text", "train.steps=20",
                                        "data.cache=" JOB_DIR "/held", "eval.every=0", NULL };
    struct job j;
    make_corpus();
    open_job(&j, "held", sets);
    j.request.hooks.progress = damage_held_out;
    CHECK_FAILS(run_job(&j), ERR_FORMAT,
                "training ended at step 20, which is saved, but what is held out could not be "
                "evaluated");
    arena_fini(&j.arena);
    CHECK(sys_exists(JOB_DIR "/runs/held/checkpoints/step-20/manifest.json"));
}

TEST(data_that_vanish_are_left_behind_when_the_recipe_says_so)
{
    static const char *const sets[] = { TWO_SOURCES, "train.steps=60", "eval.every=20",
                                        "data.on_missing=skip", NULL };
    i64 bytes;
    CHECK_OK(run_with_damage("skip", sets));
    char *log = sys_map_file(JOB_DIR "/runs/skip/log.txt", &bytes);
    CHECK(log && memmem(log, (size_t)bytes, "source b is skipped from here on", 32));
    sys_unmap(log, bytes);
    CHECK(log_has("skip", "held-out text of source b is left out from here on: "));
    CHECK(log_has("skip", "step 40: held-out loss") && !log_has("skip", "not evaluated"));
    CHECK(last_metric("skip", "eval", "tokens") > 0);
    CHECK(sys_exists(JOB_DIR "/runs/skip/checkpoints/step-60/manifest.json"));
}

#define CAPPED_AT(epochs)                                                                \
    "data.sources=[{path: " JOB_DIR "/text, max_epochs: " epochs "}]", "train.batch=32", \
        "eval.every=0", "lr.schedule=linear", "lr.min_ratio=0"

/* A run that has used up its data is a run that ends: evaluated, saved, with the learning
 * rate at the end of its schedule. Resumed, it is still at its end. */
TEST(a_run_out_of_data_ends_like_any_other)
{
    static const char *const sets[] = { CAPPED_AT("1"), "train.steps=100000", NULL };
    i64 step, again;
    make_corpus();
    CHECK_OK(train("capped", sets, false, NULL));
    CHECK_OK(checkpoint_latest(JOB_DIR "/runs/capped/checkpoints", &step));
    CHECK(step > 2);
    CHECK(log_has("capped", "have no more to give") && log_has("capped", "held-out loss"));
    char beforehand[64];
    snprintf(beforehand, sizeof beforehand, "have enough for %lld of 100000 steps",
             (long long)step);
    CHECK(log_has("capped", beforehand));
    CHECK(last_metric("capped", "step", "lr") < 1e-2 / 3);
    CHECK_EQ(run_folder_finished(JOB_DIR "/runs/capped"), step);
    const i64 lines = sys_file_bytes(JOB_DIR "/runs/capped/metrics.jsonl");
    CHECK_OK(train("capped", sets, true, NULL)); /* with nothing left to do */
    CHECK_OK(checkpoint_latest(JOB_DIR "/runs/capped/checkpoints", &again));
    CHECK_EQ(again, step);
    CHECK_EQ(sys_file_bytes(JOB_DIR "/runs/capped/metrics.jsonl"), lines);
}

/* Whose data may be read more often has more to do, and so has one that was ended by its steps. */
TEST(a_run_whose_data_ended_goes_on_with_more)
{
    static const char *const more[] = { CAPPED_AT("2"), "train.steps=100000", NULL };
    static const char *const few[] = { CAPPED_AT("1"), "train.steps=3", NULL };
    static const char *const all[] = { CAPPED_AT("1"), "train.steps=100000", NULL };
    const i64 ended = run_folder_finished(JOB_DIR "/runs/capped");
    CHECK_OK(train("capped", more, true, NULL));
    CHECK(run_folder_finished(JOB_DIR "/runs/capped") > ended);
    CHECK_OK(train("short", few, false, NULL));
    CHECK(!log_has("short", "have enough for"));
    CHECK_OK(train("short", all, true, NULL));
    CHECK_EQ(run_folder_finished(JOB_DIR "/runs/short"), ended);
}

static void count_marks(void *context, enum log_level level, const char *line)
{
    *(i64 *)context += level == LOG_WARN && strstr(line, "marks no answers") != NULL;
}

TEST(text_without_marks_beside_marked_text_is_told_once)
{
    static const char *const sets[] = {
        "data.sources=[{path: " JOB_DIR "/text, name: plain}, "
        "{path: " JOB_DIR "/qa.jsonl, name: qa}]",
        "data.loss_on=answers", "data.cache=" JOB_DIR "/marks", NULL
    };
    char line[200], jsonl[8000] = "";
    i64 told = 0;
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof line, "{\"prompt\": \"how old is bridge %d?\", \"answer\": "
                 "\"as old as river %d, nobody knows\"}\n", i, i * i);
        strcat(jsonl, line);
    }
    write_file(JOB_DIR "/qa.jsonl", jsonl);
    log_add_sink(count_marks, &told, LOG_WARN);
    CHECK_OK(train("marks", sets, false, NULL));
    log_remove_sink(count_marks, &told);
    CHECK_EQ(told, 1);
}

/* Whoever answers is called otherwise in many data sets, and then nothing would be learned. */
TEST(answers_by_nobody_called_assistant_are_refused)
{
    static const char *const sets[] = {
        "data.sources=" JOB_DIR "/bot.jsonl", "data.loss_on=answers",
        "data.cache=" JOB_DIR "/bots", NULL,
    };
    char line[200], jsonl[8000] = "";
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof line, "{\"messages\": [{\"role\": \"user\", \"content\": \"%d?\"}, "
                 "{\"role\": \"bot\", \"content\": \"%d\"}]}\n", i, i * i);
        strcat(jsonl, line);
    }
    write_file(JOB_DIR "/bot.jsonl", jsonl);
    CHECK_FAILS(train("bots", sets, false, NULL), ERR_CONFIG,
                "--set: data.loss_on is answers, but no token of the data is part of one");
}

/* Questions that are about as long as a row; one of so many has an answer. */
static void write_questions(const char *path, int answered)
{
    enum { QUESTIONS = 120, LONGEST = 300 };
    static char jsonl[QUESTIONS * LONGEST];
    static const char question[] = "the river runs below an old stone bridge and nobody crosses it";
    i64 n = 0;
    for (int i = 0; i < QUESTIONS; i++)
        n += snprintf(jsonl + n, LONGEST, "{\"messages\": [{\"role\": \"user\", \"content\": "
                      "\"%s %s %d\"}%s]}\n", question, question, i, i % answered ? ""
                      : ", {\"role\": \"assistant\", \"content\": \"now\"}");
    write_file(path, jsonl);
}

static void count_nulls(void *context, json_t *line)
{
    *(i64 *)context += strcmp(json_string_value(json_object_get(line, "event")), "step") == 0 &&
                       json_is_null(json_object_get(line, "loss"));
}

/* Or their zeros would be the normal loss, and each answer's a spike whose update is skipped. */
TEST(rows_without_answers_say_nothing_of_the_loss)
{
    static const char *const sets[] = {
        "data.sources=" JOB_DIR "/seldom.jsonl", "data.loss_on=answers", "train.steps=100",
        "data.cache=" JOB_DIR "/seldom", "eval.every=0", "guard.spike=skip", NULL
    };
    i64 nulls = 0;
    make_corpus();
    write_questions(JOB_DIR "/seldom.jsonl", 8);
    CHECK_OK(train("seldom", sets, false, NULL));
    CHECK(!log_has("seldom", "is a spike"));
    each_metric("seldom", count_nulls, &nulls);
    CHECK(nulls >= 50 && nulls < 100);
    CHECK(last_metric("seldom", "eval", "loss") > 0);
}

TEST(held_out_text_without_answers_is_said_to_have_none)
{
    static const char *const sets[] = {
        "data.sources=" JOB_DIR "/once.jsonl", "data.loss_on=answers",
        "data.cache=" JOB_DIR "/once", NULL
    };
    make_corpus();
    write_questions(JOB_DIR "/once.jsonl", 1000);
    CHECK_OK(train("once", sets, false, NULL));
    CHECK(log_has("once", "not evaluated: no token that is held out counts in the loss"));
    CHECK(!log_has("once", "held-out loss"));
}

/* So that bits per byte are known and samples can be written without naming it. */
TEST(prepared_shards_bring_their_tokenizer)
{
    static const char *const sets[] = { "data.sources=" JOB_DIR "/cache/source-0",
                                        "data.tokenizer=", NULL };
    make_corpus();
    CHECK_OK(train("first", NULL, false, NULL));
    CHECK_OK(train("second", sets, false, NULL));
    CHECK(last_metric("second", "eval", "bits_per_byte") > 0);
    CHECK(sys_exists(JOB_DIR "/runs/second/tokenizer.json"));
    expect_same_shard("first", "second", 8, "param");
}

/* Training without evaluating is what whoever held text out did not ask for. */
TEST(held_out_text_that_is_damaged_is_said_before_the_first_step)
{
    static const char *const sets[] = { "data.sources=" JOB_DIR "/cache/source-0", NULL };
    make_corpus();
    CHECK_OK(train("first", NULL, false, NULL));
    write_file(JOB_DIR "/cache/source-0/val-00000.shard", "");
    CHECK_FAILS(train("second", sets, false, NULL), ERR_FORMAT,
                "source-0/val-00000.shard is not a usable shard: it has no header");
    CHECK(!sys_exists(JOB_DIR "/runs/second/checkpoints/step-8"));
}

/* Names of the spans of one step on the compute lane, as trace.json has them. */
static i64 count_spans(json_t *trace, i64 step, const char *name)
{
    json_t *span, *list = json_object_get(trace, "traceEvents");
    size_t i;
    i64 n = 0;
    json_array_foreach(list, i, span) {
        const json_t *at = json_object_get(json_object_get(span, "args"), "step");
        const char *is = json_string_value(json_object_get(span, "name"));
        n += json_is_integer(at) && json_integer_value(at) == step && strstr(is, name) == is;
    }
    return n;
}

/* Rows of 1024 tokens (at B 2, two chunks in the head) after rows of 512 (one): the tasks
 * of the two programs have different numbers, and each step is named by its own. */
/* Special tokens, such as those between documents, stand for no text. */
TEST(held_out_bytes_are_those_of_the_text)
{
    json_t *ledger;
    make_corpus();
    CHECK_OK(train("bytes", NULL, false, NULL));
    CHECK_OK(json_load(JOB_DIR "/cache/source-0/ledger.json", 1 << 20, &ledger));
    const json_t *val = json_object_get(ledger, "val");
    double bytes = json_number_value(json_object_get(val, "text_bytes"));
    CHECK(bytes > 0 && last_metric("bytes", "eval", "bytes") == bytes);
    CHECK_NEAR(last_metric("bytes", "eval", "bits_per_byte"),
               last_metric("bytes", "eval", "loss") / log(2) *
                   json_number_value(json_object_get(val, "tokens")) / bytes, 1e-9);
    json_decref(ledger);
}

TEST(a_trace_across_a_ramp_names_each_step_by_its_own_program)
{
    static const char *const sets[] = {
        "model.override={layers: 2, width: 32, heads: 2, hidden: 48, positions: 1024}",
        "train.seq=1024", "ramp.seq_from=512", "ramp.seq_steps=2", "train.steps=3",
        "eval.every=0", "data.val_fraction=0", NULL
    };
    json_t *trace;
    make_corpus();
    CHECK_OK(train("ramp", sets, false, NULL));
    CHECK_OK(json_load(JOB_DIR "/runs/ramp/trace.json", 1 << 24, &trace));
    for (i64 step = 0; step < 3; step++) {
        CHECK_EQ(count_spans(trace, step, "xent"), step < 2 ? 1 : 2);
        CHECK_EQ(count_spans(trace, step, "load_batch"), 1);
        CHECK_EQ(count_spans(trace, step, "task "), 0);
    }
    json_decref(trace);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(held_out_bytes_are_those_of_the_text),
          ONE(data_that_vanish_stop_the_run_with_its_state_saved),
          ONE(held_out_data_that_vanish_are_missed_when_training_is_done),
          ONE(data_that_vanish_are_left_behind_when_the_recipe_says_so),
          ONE(a_run_out_of_data_ends_like_any_other),
          ONE(a_run_whose_data_ended_goes_on_with_more),
          ONE(answers_by_nobody_called_assistant_are_refused),
          ONE(prepared_shards_bring_their_tokenizer),
          ONE(held_out_text_that_is_damaged_is_said_before_the_first_step),
          ONE(rows_without_answers_say_nothing_of_the_loss),
          ONE(held_out_text_without_answers_is_said_to_have_none),
          ONE(text_without_marks_beside_marked_text_is_told_once),
          ONE(a_trace_across_a_ramp_names_each_step_by_its_own_program))
