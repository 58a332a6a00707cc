/* What a run folder and its checkpoints allow: dry runs, second processes, resuming. */
#define JOB_DIR "resume-test"
#include "train/job.h"

#include "train/checkpoint_folder.h"
#include "train/restore.h"

#include <math.h>
#include <unistd.h>

static atomic_ullong stop_now;

static void stop_after_five(void *context, const struct train_status *s)
{
    (void)context;
    if (s->step >= 5)
        atomic_store(&stop_now, 1);
}

static void stop_early(const char *name, const char *const *sets)
{
    struct job j;
    open_job(&j, name, sets);
    atomic_store(&stop_now, 0);
    j.request.hooks.stop_ns = &stop_now;
    j.request.hooks.grace = 1e6;
    j.request.hooks.progress = stop_after_five;
    CHECK_EQ(run_job(&j), ERR_STOPPED);
    arena_fini(&j.arena);
}

static void stop_and_resume(const char *name, const char *const *sets,
                            const char *const *resumed_with)
{
    stop_early(name, sets);
    CHECK_OK(train(name, resumed_with, true, NULL));
}

#define EVERYTHING                                                                       \
    "optim.name=muon", "optim.muon_lr=1e-2", "train.precision=bf16", "train.accumulate=4", \
    "ramp.batch_from=1", "ramp.batch_steps=7", "ramp.seq_from=8", "ramp.seq_steps=7",    \
    "data.packing=documents", "train.z_loss=1e-4", "guard.spike=skip"

/* Ramps, Muon, bf16, packed documents, averages: stopped in the middle of both ramps, and
 * gone on with other threads and recompute. */
TEST(a_run_with_everything_on_resumes_to_the_bit)
{
    static const char *const sets[] = { EVERYTHING, NULL };
    static const char *const again[] = { EVERYTHING, "train.threads=1", "train.recompute=full",
                                         NULL };
    static const char *const shards[] = { "param", "m", "v", "ema" };
    make_corpus();
    CHECK_OK(train("whole", sets, false, NULL));
    stop_and_resume("parts", sets, again);
    for (i64 i = 0; i < COUNT_OF(shards); i++)
        expect_same_shard("whole", "parts", 8, shards[i]);
    expect_steps_once("parts", 8);
}

#define TWO_SOURCES                                              \
    "data.sources=[{path: " JOB_DIR "/text, name: a}, "          \
    "{path: " JOB_DIR "/text, name: b}]", "data.cache=" JOB_DIR "/two"

/* As after rewinds, bad steps, spikes and a source that vanished. The clock goes on, and the recipe
 * is another. */
TEST(all_that_a_checkpoint_holds_of_a_run_comes_back)
{
    static const char *const two[] = { TWO_SOURCES, "guard.sigma=4", "guard.max_bad=7",
                                       "guard.bad_window=31", NULL };
    static const char *const longer[] = { TWO_SOURCES, "guard.sigma=5", "train.steps=9", NULL };
    struct job j;
    struct session s;
    open_job(&j, "state", two);
    CHECK_OK(session_open(&s, &j.request));
    CHECK(s.state.guard.sigma == 4 && s.state.guard.max_bad == 7 &&
          s.state.guard.bad_window == 31);
    loader_leave_out(s.loader, 1);
    s.state.elapsed = 1000;
    s.state.rewinds = 2;
    s.state.rewound_from = 70;
    s.state.rewound_to = 60;
    s.state.guard.spikes = GUARD_LASTING - 1; /* of which each step takes one off */
    for (i64 i = 0; i < s.state.guard.spikes; i++)
        s.state.guard.spike[i] = 9 + (double)i;
    s.state.guard.bad_count = 2;
    s.state.guard.bad_step[0] = -5;
    s.state.guard.bad_step[1] = -3;
    CHECK_OK(session_train(&s));
    CHECK(s.state.guard.spikes > 0 && s.state.guard.seen == 8 && s.state.guard.mix != 0);
    json_t *before = session_state_json(&s);
    session_close(&s);
    arena_fini(&j.arena);

    open_job(&j, "state", longer);
    j.request.resume = true;
    CHECK_OK(session_open(&s, &j.request));
    json_t *after = session_state_json(&s);
    CHECK(s.state.step == 8 && s.state.elapsed > 1000 && s.state.guard.sigma == 5);
    json_object_update_new(after, json_pack("{s:O,s:O}", "elapsed",
                                            json_object_get(before, "elapsed"), "recipe",
                                            json_object_get(before, "recipe")));
    CHECK(json_object_size(before) > 10 && json_equal(before, after));
    json_decref(before);
    json_decref(after);
    session_close(&s);
    arena_fini(&j.arena);
}

TEST(averaged_weights_are_evaluated_as_if_they_were_the_weights)
{
    struct job j;
    struct session s;
    struct eval_result plain, averaged, again;
    open_job(&j, "ema", NULL);
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    CHECK_OK(session_evaluate(&s, true, true, &averaged));
    CHECK_OK(session_evaluate(&s, true, false, &plain));
    CHECK(averaged.loss != plain.loss);
    for (i64 i = 0; i < s.model->n_params; i++) {
        const struct param *p = &s.model->params[i];
        memcpy(p->master->data, p->ema->data, (size_t)tensor_bytes(p->ema));
    }
    model_refresh_compute(s.model, s.engine.pool);
    CHECK_OK(session_evaluate(&s, true, false, &again));
    CHECK(again.loss == averaged.loss);
    session_close(&s);
    arena_fini(&j.arena);
}

static char kept_line[512];

static void keep_line(void *context, enum log_level level, const char *line)
{
    (void)context;
    (void)level;
    snprintf(kept_line, sizeof kept_line, "%s", line);
}

static int dry_run(const char *name, const char *const *sets, bool resume)
{
    struct job j;
    struct session s;
    open_job(&j, name, sets);
    j.request.dry_run = true;
    j.request.resume = resume;
    int rc = session_open(&s, &j.request);
    if (rc == OK) {
        CHECK(s.predicted_bytes > 0);
        session_close(&s);
    }
    arena_fini(&j.arena);
    return rc;
}

TEST(a_dry_run_notices_where_nothing_can_be_written)
{
    static const char *const run[] = { "run.dir=" JOB_DIR "/job.yaml/runs", NULL };
    static const char *const saved[] = { "checkpoint.dir=" JOB_DIR "/job.yaml", NULL };
    static const char *const cache[] = { "data.cache=" JOB_DIR "/job.yaml/cache", NULL };
    CHECK_FAILS(dry_run("dry", run, false), ERR_SYS,
                "--set: run.dir: no files can be made in " JOB_DIR "/job.yaml/runs/dry: ");
    CHECK_FAILS(dry_run("dry", saved, false), ERR_SYS, "checkpoint.dir: no files can be made in ");
    CHECK_FAILS(dry_run("dry", cache, false), ERR_SYS, "data.cache: no files can be made in ");
}

/* Neither a new folder nor a byte in an old one. */
TEST(a_dry_run_writes_nothing)
{
    static const char *const unprepared[] = { "data.cache=" JOB_DIR "/none", NULL };
    static const char *const gone[] = { "data.sources=" JOB_DIR "/gone",
                                        "data.cache=" JOB_DIR "/none", NULL };
    static const char *const gone_but_known[] = {
        "data.sources=" JOB_DIR "/gone",
        "model.override={layers: 2, width: 32, heads: 2, vocab: 512}", NULL
    };
    i64 before = sys_file_bytes(JOB_DIR "/runs/ema/log.txt");
    CHECK_OK(dry_run("dry", NULL, false));
    CHECK_OK(dry_run("dry", unprepared, false));
    CHECK_FAILS(dry_run("dry", gone, false), ERR_SYS, "gone");
    log_add_sink(keep_line, NULL, LOG_INFO); /* memory comes first, where the vocabulary is known */
    CHECK_FAILS(dry_run("dry", gone_but_known, false), ERR_SYS, "gone");
    log_remove_sink(keep_line, NULL);
    CHECK(strncmp(kept_line, "memory: ", 8) == 0);
    CHECK_OK(dry_run("ema", NULL, false));
    CHECK_OK(dry_run("ema", NULL, true));
    CHECK_FAILS(dry_run("dry", NULL, true), ERR_CONFIG, "holds no run");
    CHECK(!sys_exists(JOB_DIR "/runs/dry") && !sys_exists(JOB_DIR "/none"));
    CHECK_EQ(sys_file_bytes(JOB_DIR "/runs/ema/log.txt"), before);
}

/* Refused before anything is touched: the first process' metrics go where they went. */
TEST(a_second_process_is_refused_and_disturbs_nothing)
{
    struct job j;
    struct session s;
    char number[64];
    open_job(&j, "live", NULL);
    CHECK_OK(session_open(&s, &j.request));
    snprintf(number, sizeof number, "is being trained by process %lld",
             (long long)sys_process_id());
    CHECK_FAILS(train("live", NULL, true, NULL), ERR_CONFIG, number);
    CHECK_OK(session_train(&s));
    session_close(&s);
    arena_fini(&j.arena);
    expect_steps_once("live", 8);
}

TEST(a_run_without_a_checkpoint_yet_begins_again)
{
    CHECK_OK(train("early", NULL, false, NULL));
    CHECK_EQ(sys_remove_tree(JOB_DIR "/runs/early/checkpoints"), 0);
    CHECK_OK(train("early", NULL, true, NULL));
    CHECK(log_has("early", "has no checkpoint in " JOB_DIR "/runs/early/checkpoints: "
                           "training starts at step 0"));
    expect_same_shard("live", "early", 8, "param");
    expect_steps_once("early", 8);
}

/* One bit of the last byte but two. The size stays, and the manifest is valid. */
static void flip_bit(const char *path)
{
    i64 bytes = sys_file_bytes(path);
    int fd = sys_open(path, O_RDWR, 0);
    u8 byte = 0;
    CHECK(fd >= 0 && pread(fd, &byte, 1, bytes - 3) == 1);
    byte ^= 16;
    CHECK(pwrite(fd, &byte, 1, bytes - 3) == 1);
    sys_close(fd);
}

static void resume_after_damage(const char *name, const char *shard)
{
    static const char *const shards[] = { "param", "m", "v", "ema" };
    char dir[256], path[512];
    i64 step, bytes;
    double saved_at;
    stop_early(name, NULL);
    snprintf(dir, sizeof dir, JOB_DIR "/runs/%s/checkpoints", name);
    CHECK_OK(checkpoint_latest(dir, &step));
    CHECK(step > 3);
    snprintf(path, sizeof path, "%s/step-%lld/%s.safetensors", dir, (long long)step, shard);
    flip_bit(path);
    CHECK_OK(train(name, NULL, true, NULL));
    CHECK(log_has(name, "at step 3\n"));
    snprintf(path, sizeof path, "set aside as step-%lld.damaged", (long long)step);
    CHECK(log_has(name, path));
    snprintf(path, sizeof path, "%s/step-%lld.damaged/%s.safetensors", dir, (long long)step, shard);
    CHECK(sys_file_bytes(path) > 0);
    for (i64 i = 0; i < COUNT_OF(shards); i++)
        expect_same_shard("live", name, 8, shards[i]);
    expect_steps_once(name, 8);
    CHECK_OK(checkpoint_latest(dir, &step));
    CHECK_EQ(step, 8);
    CHECK_OK(checkpoint_peek(dir, 3, &bytes, &saved_at)); /* what was sound is where it was */
}

TEST(a_run_whose_newest_checkpoint_is_damaged_resumes_to_the_bit)
{
    resume_after_damage("damaged-param", "param");
    resume_after_damage("damaged-m", "m");
    resume_after_damage("damaged-v", "v");
    resume_after_damage("damaged-ema", "ema");
}

static i64 entries_of(const char *folder)
{
    char **names;
    int n = sys_list(folder, &names);
    CHECK(n > 0);
    sys_free(names);
    return n;
}

TEST(a_finished_run_says_so_when_it_is_resumed)
{
    const char *file[] = { "log.txt", "metrics.jsonl", "energy.json", "manifest.json" };
    char path[256];
    i64 before[COUNT_OF(file)], n = 0;
    for (; n < COUNT_OF(file); n++) {
        snprintf(path, sizeof path, JOB_DIR "/runs/early/%s", file[n]);
        before[n] = sys_file_bytes(path);
    }
    const i64 entries = entries_of(JOB_DIR "/runs/early");
    CHECK_EQ(run_folder_finished(JOB_DIR "/runs/early"), 8);
    log_add_sink(keep_line, NULL, LOG_INFO);
    CHECK_OK(train("early", NULL, true, NULL));
    log_remove_sink(keep_line, NULL);
    CHECK(strstr(kept_line, "ended at step 8 and has nothing left to do") != NULL);
    CHECK(strstr(kept_line, "train.steps is raised") != NULL);
    while (n-- > 0) {
        snprintf(path, sizeof path, JOB_DIR "/runs/early/%s", file[n]);
        CHECK_EQ(sys_file_bytes(path), before[n]);
    }
    CHECK_EQ(entries_of(JOB_DIR "/runs/early"), entries);
    expect_steps_once("early", 8);
}

/* One that was killed while it evaluated at the end has that left to do. */
TEST(a_run_without_its_last_evaluation_is_not_finished)
{
    static const char *const more[] = { "train.steps=9", NULL };
    static const char *const path = JOB_DIR "/runs/late/metrics.jsonl";
    CHECK_OK(train("late", NULL, false, NULL));
    i64 bytes;
    char *text = sys_map_file(path, &bytes);
    const char *last = memmem(text, (size_t)bytes, "{\"event\":\"finished\"", 19);
    CHECK(last != NULL);
    const i64 kept = last - text;
    sys_unmap(text, bytes);
    CHECK_EQ(truncate(path, kept), 0);
    CHECK_OK(train("late", NULL, true, NULL));
    CHECK(log_has("late", "is finished at step 8: raise train.steps"));
    CHECK_EQ(run_folder_finished(JOB_DIR "/runs/late"), 8);
    CHECK_OK(train("late", more, true, NULL));
    CHECK_EQ(run_folder_finished(JOB_DIR "/runs/late"), 9);
    expect_steps_once("late", 9);
}

static double first_fraction = -1;

static void keep_first(void *context, const struct train_status *s)
{
    (void)context;
    if (first_fraction < 0)
        first_fraction = s->fraction;
}

/* A machine may have to be measured before, or text be made into tokens. */
TEST(a_run_against_the_clock_begins_with_its_first_step)
{
    static const char *const sets[] = { "train.max_time=100s", NULL };
    struct session s;
    struct job j;
    open_job(&j, "clock", sets);
    j.request.hooks.progress = keep_first;
    CHECK_OK(session_open(&s, &j.request));
    usleep(20000);
    CHECK_OK(session_train(&s));
    CHECK(first_fraction == 0);
    session_close(&s);
    arena_fini(&j.arena);
}

static json_t *manifest_of(const char *run)
{
    char path[256];
    json_t *o;
    snprintf(path, sizeof path, JOB_DIR "/runs/%s/manifest.json", run);
    CHECK_OK(json_load(path, 1 << 20, &o));
    return o;
}

static void expect_segment(const json_t *manifest, size_t i, i64 from_step, double after)
{
    const json_t *one = json_array_get(json_object_get(manifest, "segments"), i);
    CHECK_EQ(json_integer_value(json_object_get(one, "from_step")), from_step);
    CHECK(json_number_value(json_object_get(one, "started")) >= after);
}

/* The second start takes no step, the third goes on, and so does the fourth after a version
 * that told of one start. */
TEST(the_manifest_keeps_when_the_run_began_and_went_on)
{
    static const char *const four[] = { "train.steps=4", NULL };
    static const char *const ten[] = { "train.steps=10", NULL };
    double begin = sys_wall_seconds();
    CHECK_OK(train("starts", four, false, NULL));
    json_t *first = manifest_of("starts");
    expect_segment(first, 0, 0, begin);
    CHECK_OK(train("starts", four, true, NULL));
    json_t *same = manifest_of("starts");
    CHECK(json_equal(first, same));
    CHECK_OK(train("starts", NULL, true, NULL));
    json_t *second = manifest_of("starts");
    const json_t *started = json_object_get(first, "started");
    CHECK(json_equal(started, json_object_get(second, "started")));
    CHECK_EQ(json_integer_value(json_object_get(second, "from_step")), 0);
    CHECK_EQ(json_array_size(json_object_get(second, "segments")), 2);
    expect_segment(second, 0, 0, begin);
    expect_segment(second, 1, 4, json_number_value(started));
    write_file(JOB_DIR "/runs/starts/manifest.json", "{\"started\": 7.5, \"from_step\": 2}");
    CHECK_OK(train("starts", ten, true, NULL));
    json_t *third = manifest_of("starts");
    CHECK_EQ(json_array_size(json_object_get(third, "segments")), 2);
    CHECK(json_number_value(json_object_get(third, "started")) == 7.5);
    expect_segment(third, 0, 2, 7.5);
    expect_segment(third, 1, 8, begin);
    json_decref(first);
    json_decref(same);
    json_decref(second);
    json_decref(third);
}

#define SMALL "layers: 2, width: 32, hidden: 48"

/* All of these have the shapes of what was saved. */
TEST(another_model_is_not_resumed)
{
    static const char *const heads[] = { "model.override={" SMALL ", heads: 4}", NULL };
    static const char *const window[] = { "model.window=8", NULL };
    static const char *const base[] = { "model.override={" SMALL ", heads: 2, rope.theta: 500}",
                                        NULL };
    CHECK_FAILS(train("early", heads, true, NULL), ERR_CONFIG, "heads was 2, is 4");
    CHECK_FAILS(train("early", window, true, NULL), ERR_CONFIG, "window was 0, is 8");
    CHECK_FAILS(train("early", base, true, NULL), ERR_CONFIG, "rope.theta was 10000, is 500");
}

TEST(other_settings_and_other_data_are_told)
{
    static const char *const sets[] = { "data.seed=5", "train.batch=4", "train.steps=10",
                                        "train.threads=1", "eval.every=3", NULL };
    CHECK_OK(train("early", sets, true, NULL));
    CHECK(log_has("early", "not quite the run that it was: data.seed was 1, is 5; train.steps "
                           "was 8, is 10; train.batch was 2, is 4\n"));
    make_text(JOB_DIR "/other", 9);
    static const char *const other[] = { "data.sources=" JOB_DIR "/other", "train.steps=12",
                                         "data.seed=5", "train.batch=4",
                                         "data.cache=" JOB_DIR "/cache2", NULL };
    CHECK_OK(train("early", other, true, NULL));
    CHECK(log_has("early", "source other holds other text") ||
          log_has("early", "source source-0 holds other text"));
}

static struct session *poisoned;

static void poison_at_the_end(void *context, const struct train_status *s)
{
    (void)context;
    if (s->step == 8)
        ((float *)poisoned->model->params[0].master->data)[5] = NAN;
}

TEST(a_saved_weight_that_is_not_finite_is_named_by_who_reads_it)
{
    struct job j;
    struct session s;
    struct restore r;
    struct model *m;
    struct arena a;
    open_job(&j, "poison", NULL);
    j.request.hooks.progress = poison_at_the_end;
    poisoned = &s;
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    session_close(&s);
    arena_fini(&j.arena);
    arena_init(&a);
    CHECK_OK(restore_find(&r, JOB_DIR "/runs/poison", &a));
    CHECK_FAILS(restore_model(&m, &r, DTYPE_F32, 0, false, NULL, &a), ERR_NUMERIC,
                "is not finite");
    arena_fini(&a);
}

/* No disk takes anything from some step on: the message tells what there is. */
static void fill_the_disk(void *context, const struct train_status *s)
{
    if (s->step == *(const i64 *)context)
        CHECK_EQ(sys_fault_arm("fsync:1:ENOSPC:repeat"), 0);
}

static int run_on_full_disk(const char *name, i64 full_from)
{
    static const char *const sets[] = { "checkpoint.every=2", "checkpoint.max_missed=1",
                                        "checkpoint.async=false", "train.steps=20", NULL };
    struct job j;
    open_job(&j, name, sets);
    j.request.hooks.progress = fill_the_disk;
    j.request.hooks.context = &full_from;
    int rc = run_job(&j);
    sys_fault_arm(NULL);
    arena_fini(&j.arena);
    return rc;
}

TEST(what_could_not_be_saved_is_not_said_to_be)
{
    CHECK_FAILS(run_on_full_disk("full0", 1), ERR_SYS, "no checkpoint could be saved");
    CHECK(!strstr(err_message(), "is saved"));
    CHECK_FAILS(run_on_full_disk("full4", 5), ERR_SYS,
                "nothing newer than step 4 could be saved");
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(a_run_with_everything_on_resumes_to_the_bit),
          ONE(all_that_a_checkpoint_holds_of_a_run_comes_back),
          ONE(averaged_weights_are_evaluated_as_if_they_were_the_weights),
          ONE(a_dry_run_notices_where_nothing_can_be_written),
          ONE(a_dry_run_writes_nothing), ONE(a_second_process_is_refused_and_disturbs_nothing),
          ONE(a_run_without_a_checkpoint_yet_begins_again),
          ONE(a_run_whose_newest_checkpoint_is_damaged_resumes_to_the_bit),
          ONE(a_run_against_the_clock_begins_with_its_first_step),
          ONE(a_finished_run_says_so_when_it_is_resumed),
          ONE(a_run_without_its_last_evaluation_is_not_finished),
          ONE(the_manifest_keeps_when_the_run_began_and_went_on), ONE(another_model_is_not_resumed),
          ONE(other_settings_and_other_data_are_told),
          ONE(a_saved_weight_that_is_not_finite_is_named_by_who_reads_it),
          ONE(what_could_not_be_saved_is_not_said_to_be))
