/* Runs that start from another run's weights. */
#define JOB_DIR "start-from-test"
#include "train/job.h"

#define BASE JOB_DIR "/runs/base"

/* One step that changes nothing, from the weights that `from` names. */
static int start_from(const char *name, const char *from, const char *spec, const char *extra)
{
    const char *sets[] = { "train.steps=1", "optim.lr=0", "lr.warmup=0", extra, NULL };
    struct job j;
    open_job(&j, name, sets);
    j.config.model.from = from;
    j.config.model.spec = spec;
    if (!extra)
        j.config.model.override = NULL;
    int rc = run_job(&j);
    arena_fini(&j.arena);
    return rc;
}

static void *map_weights(const char *run, i64 step, i64 *bytes)
{
    char path[256];
    snprintf(path, sizeof path, JOB_DIR "/runs/%s/checkpoints/step-%lld/param.safetensors", run,
             (long long)step);
    void *data = sys_map_file(path, bytes);
    CHECK(data != NULL);
    return data;
}

static void expect_weights_of_base(const char *run, i64 step)
{
    i64 n, m;
    void *x = map_weights("base", step, &n), *y = map_weights(run, 1, &m);
    CHECK_EQ(n, m);
    CHECK(memcmp(x, y, (size_t)n) == 0);
    sys_unmap(x, n);
    sys_unmap(y, m);
}

TEST(weights_come_from_a_run_its_checkpoints_or_one_step)
{
    make_corpus();
    CHECK_OK(train("base", NULL, false, NULL));
    CHECK_OK(start_from("a", BASE, NULL, NULL));
    expect_weights_of_base("a", 8);
    CHECK_OK(start_from("b", BASE "/checkpoints", NULL, NULL));
    expect_weights_of_base("b", 8);
    CHECK_OK(start_from("c", BASE "/checkpoints/step-3", NULL, NULL));
    expect_weights_of_base("c", 3);
    CHECK_OK(start_from("c2", BASE "/checkpoints/step-3//", NULL, NULL));
    expect_weights_of_base("c2", 3);
}

/* Its counts begin anew, and with them Adam's corrections and the position in the data. */
TEST(the_optimizer_starts_afresh)
{
    json_t *o;
    CHECK_OK(checkpoint_state(JOB_DIR "/runs/a/checkpoints", 1, &o));
    CHECK_EQ(json_integer_value(json_object_get(o, "updates")), 1);
    CHECK_EQ(json_integer_value(json_object_get(o, "tokens")), 64);
    json_decref(o);
}

TEST(what_does_not_fit_is_refused_by_name)
{
    CHECK_FAILS(start_from("d", BASE, NULL, "model.override={hidden: 64}"), ERR_MODEL,
                "tensor \"blocks.0.mlp.down.weight\" has another type or shape");
    CHECK_FAILS(start_from("e", BASE, "laptop-2m", NULL), ERR_CONFIG,
                "is not the model in model.from " BASE ": its ");
    CHECK_FAILS(start_from("f", JOB_DIR "/nowhere", NULL, NULL), ERR_CONFIG,
                "neither a Hugging Face folder");
    CHECK(start_from("g", BASE "/checkpoints/step-4", NULL, NULL) < 0);
    CHECK(strstr(err_message(), "step-4") != NULL);
}

TEST(a_run_goes_on_without_the_model_that_it_started_from)
{
    const char *sets[] = { "train.steps=2", "model.from=" JOB_DIR "/gone", "model.spec=",
                           "model.override=", NULL };
    i64 step;
    CHECK_EQ(sys_rename(BASE, JOB_DIR "/gone"), 0);
    CHECK_OK(train("late", sets, false, NULL));
    CHECK_EQ(sys_rename(JOB_DIR "/gone", BASE), 0);
    sets[0] = "train.steps=4";
    CHECK_OK(train("late", sets, true, NULL));
    CHECK_OK(checkpoint_latest(JOB_DIR "/runs/late/checkpoints", &step));
    CHECK_EQ(step, 4);
    CHECK_FAILS(train("later", sets, false, NULL), ERR_CONFIG, "neither a Hugging Face folder");
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(weights_come_from_a_run_its_checkpoints_or_one_step),
          ONE(the_optimizer_starts_afresh), ONE(what_does_not_fit_is_refused_by_name),
          ONE(a_run_goes_on_without_the_model_that_it_started_from))
