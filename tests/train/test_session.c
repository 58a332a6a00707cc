/* Whole runs on a small corpus: what an interruption, a resume, and bad input do. */
#define JOB_DIR "session-test"
#include "train/job.h"

#include "ops/ops.h"

#include <math.h>
#include <pthread.h>

static atomic_ullong stop_now;

static void stop_after_five(void *context, const struct train_status *s)
{
    (void)context;
    atomic_store(&stop_now, s->step >= 5 ? sys_now_ns() : 0);
}

/* Stopped by a signal after step 5, resumed to step 8: equal, to the last bit, to a run
 * that was never stopped. Threads differ too. */
TEST(a_stopped_and_resumed_run_equals_one_that_never_stopped)
{
    static const char *const two[] = { "train.threads=2", NULL };
    struct job j;
    make_corpus();
    CHECK_OK(train("whole", NULL, false, NULL));
    open_job(&j, "parts", two);
    atomic_store(&stop_now, 0);
    j.request.hooks.stop_ns = &stop_now;
    j.request.hooks.progress = stop_after_five;
    CHECK_EQ(run_job(&j), ERR_STOPPED);
    arena_fini(&j.arena);
    CHECK_OK(train("parts", NULL, true, NULL));
    expect_same_shard("whole", "parts", 8, "param");
    expect_same_shard("whole", "parts", 8, "m");
    expect_same_shard("whole", "parts", 8, "v");
    expect_same_shard("whole", "parts", 8, "ema");
}

/* Loads as the loader does, and in the tenth micro-batch a signal comes. */
struct interrupter {
    struct kernel real;
    int calls;
};

static void load_and_stop(const struct task *t, struct run *x)
{
    struct interrupter *i = x->context;
    x->context = i->real.context;
    i->real.run(t, x);
    if (++i->calls == 10)
        atomic_store(&stop_now, sys_now_ns());
}

static i64 step_when_interrupted(const char *name, double grace)
{
    static const char *const sets[] = { "train.accumulate=4", NULL };
    struct interrupter i = { 0 };
    struct session s;
    struct job j;
    open_job(&j, name, sets);
    atomic_store(&stop_now, 0);
    j.request.hooks.stop_ns = &stop_now;
    j.request.hooks.grace = grace;
    CHECK_OK(session_open(&s, &j.request));
    i.real = *backend_kernel(&s.engine.backend, &op_load_batch);
    backend_set(&s.engine.backend, &op_load_batch,
                (struct kernel){ .run = load_and_stop, .context = &i });
    CHECK_EQ(session_train(&s), ERR_STOPPED);
    i64 step = s.state.step;
    session_close(&s);
    arena_fini(&j.arena);
    return step;
}

/* Four micro-batches a step: the tenth is in the middle of the third. */
TEST(a_signal_within_a_step_ends_it_or_leaves_it_as_time_allows)
{
    static const char *const sets[] = { "train.accumulate=4", NULL };
    CHECK_EQ(step_when_interrupted("left", 0), 2);
    CHECK_EQ(step_when_interrupted("ended", 1000), 3);
    CHECK_OK(train("left", sets, true, NULL));
    CHECK_OK(train("ended", sets, true, NULL));
    CHECK_OK(train("never", sets, false, NULL));
    expect_same_shard("never", "left", 8, "param");
    expect_same_shard("never", "left", 8, "v");
    expect_same_shard("never", "ended", 8, "param");
}

static volatile float subnormal = 0x1p-130f, product;

static void multiply(void *context, const struct train_status *s)
{
    (void)s;
    product = subnormal * 1;
    *(int *)context += product == 0;
}

static void *multiply_in_thread(void *context)
{
    multiply(context, NULL);
    return NULL;
}

/* For which some processors take twenty times as long. */
TEST(a_run_has_no_subnormal_numbers_in_any_thread_and_leaves_the_caller_its_own)
{
    struct session s;
    struct job j;
    pthread_t thread;
    int flushed = 0, in_thread = 0;
    open_job(&j, "flushed", NULL);
    j.request.hooks.context = &flushed;
    j.request.hooks.progress = multiply;
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    CHECK_EQ(pthread_create(&thread, NULL, multiply_in_thread, &in_thread), 0);
    pthread_join(thread, NULL);
    session_close(&s);
    arena_fini(&j.arena);
    CHECK(flushed > 0 && in_thread == 1);
    multiply(&flushed, NULL);
    CHECK(product == subnormal && product > 0);
}

/* One "step" line per step, in order, whatever was interrupted. */
TEST(metrics_tell_each_step_once)
{
    expect_steps_once("parts", 8);
}

struct seen {
    char text[256]; /* "step 3, eval 2, ..." */
    i64 part, whole; /* tokens of the first and of the last evaluation */
};

static void note_event(void *context, json_t *line)
{
    struct seen *s = context;
    const char *event = json_string_value(json_object_get(line, "event"));
    const i64 tokens = json_integer_value(json_object_get(line, "tokens"));
    size_t n = strlen(s->text);
    if (strcmp(event, "step") != 0 && strcmp(event, "eval") != 0)
        return;
    snprintf(s->text + n, sizeof s->text - n, "%s%s %lld", n ? ", " : "", event,
             (long long)json_integer_value(json_object_get(line, "step")));
    if (strcmp(event, "eval") == 0) {
        s->part = s->part ? s->part : tokens;
        s->whole = tokens;
    }
}

TEST(steps_are_logged_and_evaluated_as_often_as_the_recipe_says)
{
    static const char *const sets[] = { "log.every=4", "eval.every=3", "eval.tokens=64", NULL };
    struct seen seen = { 0 };
    CHECK_OK(train("often", sets, false, NULL));
    each_metric("often", note_event, &seen);
    CHECK_STR(seen.text, "eval 3, step 4, eval 6, step 8, eval 8");
    CHECK(seen.part > 32 && seen.part <= 64); /* two rows of 32 */
    CHECK(seen.whole > 10 * seen.part);
}

TEST(a_model_with_experts_trains_resumes_to_the_bit_and_tells_their_load)
{
    static const char *const sets[] = { JOB_EXPERTS, NULL };
    struct job j;
    CHECK_OK(train("experts", sets, false, NULL));
    open_job(&j, "experts-halved", sets);
    atomic_store(&stop_now, 0);
    j.request.hooks.stop_ns = &stop_now;
    j.request.hooks.progress = stop_after_five;
    CHECK_EQ(run_job(&j), ERR_STOPPED);
    arena_fini(&j.arena);
    CHECK_OK(train("experts-halved", sets, true, NULL));
    expect_same_shard("experts", "experts-halved", 8, "param");
    expect_same_shard("experts", "experts-halved", 8, "v");
    double imbalance = last_metric("experts", "step", "expert_imbalance");
    CHECK(imbalance >= 1 && imbalance <= 4); /* of 4 experts */
    CHECK(last_metric("experts", "step", "expert_imbalance_worst") >= imbalance);
    CHECK(last_metric("experts", "step", "aux_loss") > 1.5);
    CHECK(last_metric("experts", "step", "router_z") > 0);
}

TEST(a_run_is_not_overwritten_and_nothing_is_not_resumed)
{
    CHECK_FAILS(train("whole", NULL, false, NULL), ERR_CONFIG, "holds a run already");
    CHECK_FAILS(train("nothing", NULL, true, NULL), ERR_CONFIG, "nothing to resume");
}

/* The file that was there before is not the run's to remove; text that took long to
 * prepare stays. */
TEST(a_start_that_fails_leaves_only_what_is_worth_keeping)
{
    static const char *const heads[] = { "model.override={heads: 7}", NULL };
    static const char *const vocab[] = { "data.cache=", "model.override={vocab: 300}", NULL };
    CHECK_EQ(sys_mkdirs("session-test/runs/mine"), 0);
    write_file("session-test/runs/mine/notes.txt", "mine");
    CHECK(train("mine", heads, false, NULL) < 0);
    CHECK(sys_exists("session-test/runs/mine/notes.txt"));
    CHECK_FAILS(train("prepared", vocab, false, NULL), ERR_CONFIG, "has a vocabulary of 300");
    CHECK(sys_exists("session-test/runs/prepared/data/source-0/ledger.json"));
    CHECK(log_has("prepared", "error")); /* and why */
}

TEST(the_log_ends_with_why_the_run_did)
{
    CHECK(log_has("parts", "info  stopped by a signal after step 5; the state is saved, --resume"));
}

TEST(another_optimizer_cannot_go_on_with_the_state_of_this_one)
{
    static const char *const muon[] = { "optim.name=muon", "train.steps=9", NULL };
    static const char *const two[] = {
        "data.sources=[session-test/cache/source-0, session-test/cache/source-0]", NULL
    };
    static const char *const plain[] = { "train.ema=0", NULL };
    static const char *const average[] = { "train.ema=0.5", "train.steps=9", NULL };
    CHECK_FAILS(train("whole", muon, true, NULL), ERR_CONFIG,
                "optim.name was adamw, is muon; go on with optim.name=adamw, or give another "
                "run.name");
    CHECK_FAILS(train("whole", two, true, NULL), ERR_CONFIG,
                "--set: session-test/runs/whole had 1 data sources, and now there are 2; go on "
                "with");
    CHECK_OK(train("plain", plain, false, NULL));
    CHECK_FAILS(train("plain", average, true, NULL), ERR_CONFIG, "train.ema was 0, is 0.5; go on");
}

/* In the last step: after the warm-up, both follow one schedule. */
TEST(muon_has_a_rate_of_its_own_where_one_is_given)
{
    static const char *const own[] = { "optim.name=muon", "optim.muon_lr=3e-2", NULL };
    static const char *const same[] = { "optim.name=muon", NULL };
    for (int i = 0; i < 2; i++) {
        struct job j;
        struct session s;
        open_job(&j, i ? "rate" : "rates", i ? same : own);
        CHECK_OK(session_open(&s, &j.request));
        CHECK_OK(session_train(&s));
        const float *hyper = s.io.hyper->data;
        CHECK(hyper[HYPER_LR] > 0);
        CHECK_NEAR(hyper[HYPER_MUON_LR] / hyper[HYPER_LR], i ? 1 : 3, 1e-6);
        session_close(&s);
        arena_fini(&j.arena);
    }
}

/* After the first step, which has the same gradients whatever these are: they reach the weights by
 * the correction too, so that these differ in any case. */
TEST(the_moments_decay_as_the_recipe_says)
{
    static const char *const slow[] = { "train.steps=1", NULL };
    static const char *const fast[] = { "train.steps=1", "optim.beta1=0.5", "optim.beta2=0.5",
                                        NULL };
    struct session s[2];
    struct job j[2];
    for (int i = 0; i < 2; i++) {
        open_job(&j[i], i ? "fast" : "slow", i ? fast : slow);
        CHECK_OK(session_open(&s[i], &j[i].request));
        CHECK_OK(session_train(&s[i]));
    }
    for (i64 i = 0; i < s[0].model->n_params; i++) {
        const struct param *p = &s[0].model->params[i], *q = &s[1].model->params[i];
        for (i64 k = 0; k < tensor_count(p->m); k++) {
            double m = tensor_get(p->m, k), v = tensor_get(p->v, k);
            CHECK_NEAR(tensor_get(q->m, k), 5 * m, 1e-5 * fabs(5 * m)); /* 0.5 of 0.1 */
            CHECK_NEAR(tensor_get(q->v, k), 10 * v, 1e-5 * fabs(10 * v)); /* 0.5 of 0.05 */
        }
    }
    for (int i = 0; i < 2; i++) {
        session_close(&s[i]);
        arena_fini(&j[i].arena);
    }
}

/* A step takes longer than the interval, so that one is due after each. */
TEST(checkpoints_are_saved_at_intervals_of_time_and_so_many_are_kept)
{
    static const char *const sets[] = { "checkpoint.every=0", "checkpoint.interval=0.000001",
                                        "checkpoint.async=no", "checkpoint.keep=3", NULL };
    struct checkpoint_entry *entries;
    CHECK_OK(train("intervals", sets, false, NULL));
    CHECK_EQ(checkpoint_list(JOB_DIR "/runs/intervals/checkpoints", &entries), 3);
    for (int i = 0; i < 3; i++)
        CHECK(entries[i].valid && entries[i].step == 6 + i);
    sys_free(entries);
}

TEST(a_warm_up_longer_than_the_run_is_named)
{
    static const char *const sets[] = { "lr.warmup=9", NULL };
    static const char *const fits[] = { "lr.warmup=8", NULL };
    CHECK_OK(train("short", sets, false, NULL));
    CHECK(log_has("short", "--set: the learning rate never reaches its peak: lr.warmup is 9 "
                           "steps, and the run takes 8"));
    CHECK_OK(train("fits", fits, false, NULL));
    CHECK(!log_has("fits", "never reaches"));
}

TEST(a_setting_that_nothing_uses_is_named)
{
    static const char *const unused[] = { "optim.muon_lr=1e-3", "lr.decay_fraction=0.5", NULL };
    static const char *const used[] = { "optim.muon_lr=1e-3", "lr.decay_fraction=0.5",
                                        "optim.name=muon", "lr.schedule=wsd", NULL };
    CHECK_OK(train("unused", unused, false, NULL));
    CHECK(log_has("unused", "--set: optim.muon_lr has no effect without optim.name=muon"));
    CHECK(log_has("unused", "--set: lr.decay_fraction has no effect without lr.schedule=wsd"));
    CHECK(!log_has("unused", "muon_momentum"));
    CHECK_OK(train("used", used, false, NULL));
    CHECK(!log_has("used", "has no effect"));
}

/* One byte more would be another file: what was cut off is noticed by what is missing. */
TEST(a_ledger_that_was_cut_off_is_refused)
{
    static const char path[] = "session-test/cache/source-0/ledger.json";
    static const char *const sets[] = { "data.sources=session-test/cache/source-0", NULL };
    CHECK_OK(train("with", sets, false, NULL));
    int fd = sys_open(path, O_RDWR, 0);
    CHECK(sys_truncate(fd, sys_file_bytes(path) / 2) == 0);
    sys_close(fd);
    CHECK(train("without", sets, false, NULL) == ERR_FORMAT);
    CHECK(strstr(err_message(), path) && strstr(err_message(), "; prepare the data again"));
    CHECK(!sys_exists("session-test/runs/without"));
    CHECK_EQ(sys_remove_tree("session-test/cache"), 0);
}

TEST(what_cannot_work_is_said_before_work_starts)
{
    static const char *const seq[] = { "train.seq=4096", NULL };
    static const char *const vocab[] = { "model.override={vocab: 300}", NULL };
    static const char *const heads[] = { "model.override={heads: 7}", NULL };
    static const char *const headz[] = { "model.override={headz: 2}", NULL };
    static const char *const plain[] = { "data.loss_on=answers", NULL };
    static const char *const ramp[] = { "train.accumulate=100", "ramp.batch_from=1",
                                        "ramp.batch_steps=200", NULL };
    static const char *const alike[] = {
        "data.sources=[{path: a, name: x}, b, {path: c, name: x}]", NULL
    };
    static const char *const no_map[] = { "model.override=5", NULL };
    static const char *const no_weight[] = {
        "data.sources=[{path: session-test/text, weight: 0}]", NULL
    };
    static const char *const some_weight[] = {
        "data.sources=[{path: session-test/text, weight: 0.5}, session-test/text]", NULL
    };
    static const char *const no_tokenizer[] = { "data.tokenizer=session-test/none.json", NULL };
    static const char *const gone[] = { "data.sources=session-test/nowhere", NULL };
    static const char *const large[] = {
        "model.override={width: 8192, hidden: 65536, heads: 64, layers: 30}", NULL
    };
    static const char *const batch[] = {
        "train.batch=1000000", "model.override={layers: 24, width: 1024, heads: 8, hidden: 48}",
        NULL
    };
    CHECK_FAILS(train("bad", seq, false, NULL), ERR_CONFIG,
                "--set: train.seq 4096 is longer than the 256 positions");
    CHECK_FAILS(train("bad", vocab, false, NULL), ERR_CONFIG, "has a vocabulary of 300");
    CHECK_FAILS(train("bad", plain, false, NULL), ERR_CONFIG,
                "--set: data.loss_on is answers, but no source marks any");
    CHECK_FAILS(train("bad", ramp, false, NULL), ERR_CONFIG,
                "--set: the ramps pass through more than 32 batch shapes");
    CHECK_FAILS(train("bad", alike, false, NULL), ERR_CONFIG,
                "--set:1:41: source 1 is named \"x\" already; give each another name");
    CHECK_FAILS(train("bad2", heads, false, NULL), ERR_CONFIG, "multiple of heads (7)");
    CHECK_FAILS(train("bad", no_weight, false, NULL), ERR_CONFIG,
                "--set:1:36: a source of weight 0 is never read");
    CHECK_FAILS(train("bad", some_weight, false, NULL), ERR_CONFIG,
                "--set:1:42: this source has no weight, and the first has one");
    CHECK_FAILS(train("bad", no_tokenizer, false, NULL), ERR_SYS,
                "--set: open session-test/none.json");
    CHECK(!sys_exists("session-test/runs/bad"));
    CHECK_FAILS(train("bad", no_map, false, NULL), ERR_CONFIG,
                "--set:1:1: model.override takes a map");
    CHECK_FAILS(train("bad/ly", NULL, false, NULL), ERR_CONFIG, "run.name 'bad/ly' is a path");
    CHECK_FAILS(train("..", NULL, false, NULL), ERR_CONFIG, "run.name '..' is a path");
    CHECK_FAILS(train("bad2", headz, false, NULL), ERR_CONFIG, "did you mean 'heads'?");
    CHECK_FAILS(train("bad3", gone, false, NULL), ERR_SYS,
                "--set:1:1: data source session-test/nowhere: No such file");
    CHECK_FAILS(train("bad4", large, false, NULL), ERR_LIMIT, "the run needs more than");
    CHECK(!sys_exists("session-test/runs/bad3") && !sys_exists("session-test/runs/bad4"));
    u64 begin = sys_now_ns();
    CHECK_FAILS(train("bad5", batch, false, NULL), ERR_LIMIT, "32000000 tokens at once");
    CHECK(sys_now_ns() - begin < 2000u * 1000 * 1000); /* building the program would take more */
}

static int run_on_refusing_disk(const char *name, const char *max_missed)
{
    const char *const sets[] = { "checkpoint.async=false", max_missed, NULL };
    struct job j;
    struct session s;
    open_job(&j, name, sets);
    CHECK_OK(session_open(&s, &j.request));
    CHECK_EQ(sys_fault_arm("fsync:1:ENOSPC"), 0); /* the first checkpoint's first fsync */
    int rc = session_train(&s);
    sys_fault_arm(NULL);
    session_close(&s);
    arena_fini(&j.arena);
    return rc;
}

TEST(a_disk_that_refuses_checkpoints_does_not_end_the_run)
{
    CHECK_OK(run_on_refusing_disk("full", "checkpoint.max_missed=3"));
    CHECK(sys_exists("session-test/runs/full/checkpoints/step-8/manifest.json"));
}

TEST(a_disk_that_refuses_more_checkpoints_than_may_fail_does)
{
    CHECK_FAILS(run_on_refusing_disk("fuller", "checkpoint.max_missed=0"), ERR_SYS,
                "checkpoint of step 3 failed");
    CHECK(!sys_exists("session-test/runs/fuller/checkpoints/step-6/manifest.json"));
    sys_remove_tree("session-test");
}

TEST_MAIN(ONE(a_stopped_and_resumed_run_equals_one_that_never_stopped),
          ONE(a_model_with_experts_trains_resumes_to_the_bit_and_tells_their_load),
          ONE(a_run_has_no_subnormal_numbers_in_any_thread_and_leaves_the_caller_its_own),
          ONE(metrics_tell_each_step_once),
          ONE(a_signal_within_a_step_ends_it_or_leaves_it_as_time_allows),
          ONE(a_run_is_not_overwritten_and_nothing_is_not_resumed),
          ONE(what_cannot_work_is_said_before_work_starts),
          ONE(a_start_that_fails_leaves_only_what_is_worth_keeping),
          ONE(the_log_ends_with_why_the_run_did),
          ONE(another_optimizer_cannot_go_on_with_the_state_of_this_one),
          ONE(muon_has_a_rate_of_its_own_where_one_is_given),
          ONE(the_moments_decay_as_the_recipe_says),
          ONE(steps_are_logged_and_evaluated_as_often_as_the_recipe_says),
          ONE(checkpoints_are_saved_at_intervals_of_time_and_so_many_are_kept),
          ONE(a_warm_up_longer_than_the_run_is_named),
          ONE(a_setting_that_nothing_uses_is_named), ONE(a_ledger_that_was_cut_off_is_refused),
          ONE(a_disk_that_refuses_checkpoints_does_not_end_the_run),
          ONE(a_disk_that_refuses_more_checkpoints_than_may_fail_does))
