#include "test.h"

#include "train/train_config.h"
#include "train/train_spec.h"

static struct arena arena;
static struct train_config c;
static struct recipe recipe;

static int start(void **state)
{
    (void)state;
    arena_init(&arena);
    memset(&c, 0, sizeof c);
    recipe_init(&recipe, &arena, &(struct option_group){ train_options, &c }, 1);
    CHECK_OK(recipe_override(&recipe, "model.spec=gpt2-124m"));
    CHECK_OK(recipe_override(&recipe, "data.sources=corpus.txt"));
    CHECK_OK(recipe_override(&recipe, "train.steps=10"));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static int check_with(const char *a, const char *b)
{
    TRY(recipe_override(&recipe, a));
    if (b)
        TRY(recipe_override(&recipe, b));
    return train_config_check(&c, &recipe);
}

TEST(a_model_data_and_an_end_are_enough)
{
    CHECK_OK(train_config_check(&c, &recipe));
    CHECK_FAILS(check_with("train.steps=0", NULL), ERR_CONFIG, "no end: give train.steps");
    CHECK_OK(check_with("train.max_time=2m", NULL));
    CHECK(c.train.max_time == 120);
    CHECK_OK(check_with("train.max_time=0", "train.tokens=10M"));
    c.data.sources = NULL;
    CHECK_FAILS(train_config_check(&c, &recipe), ERR_CONFIG, "no data: give data.sources");
    c.model.spec = NULL;
    CHECK_FAILS(train_config_check(&c, &recipe), ERR_CONFIG, "no model: give model.spec");
}

TEST(settings_that_contradict_each_other_are_named)
{
    CHECK_FAILS(check_with("train.global_batch=1000", NULL), ERR_CONFIG,
                "--set: train.global_batch of 1000 tokens is not a multiple of the 2048 tokens "
                "of a micro-batch (train.batch 8 x train.seq 256)");
    CHECK_OK(check_with("train.global_batch=4096", NULL));
    CHECK_FAILS(check_with("train.accumulate=2", NULL), ERR_CONFIG,
                "--set: give train.global_batch or train.accumulate, not both");
}

/* A second token is for plans: without its module training begins, not with it. */
TEST(modules_that_training_does_not_build_are_refused)
{
    struct restore from;
    struct model_spec spec;
    CHECK_OK(recipe_override(&recipe, "model.spec=deepseek-v3"));
    CHECK_FAILS(train_spec(&spec, &from, &c, &recipe, &arena), ERR_CONFIG,
                "deepseek-v3 has mtp.depth 1");
    CHECK_OK(recipe_override(&recipe, "model.override={mtp.depth: 0}"));
    CHECK_FAILS(train_spec(&spec, &from, &c, &recipe, &arena), ERR_CONFIG,
                "has router.groups 8");
    CHECK_OK(recipe_override(&recipe, "model.override={mtp.depth: 0, router.groups: 0, "
                                      "router.group_limit: 0}"));
    CHECK_OK(train_spec(&spec, &from, &c, &recipe, &arena));
    CHECK_EQ(spec.mtp_depth, 0);
}

TEST(a_model_that_is_not_there_is_named_with_its_place)
{
    struct restore from;
    struct model_spec spec;
    CHECK_OK(recipe_override(&recipe, "model.spec=gpt2-125m"));
    CHECK_FAILS(train_spec(&spec, &from, &c, &recipe, &arena), ERR_CONFIG,
                "--set: no model 'gpt2-125m'");
    CHECK_FAILS(train_spec(&spec, &from, &c, NULL, &arena), ERR_CONFIG, "no model 'gpt2-125m'");
    CHECK_OK(recipe_override(&recipe, "model.from=nowhere"));
    CHECK_FAILS(train_spec(&spec, &from, &c, &recipe, &arena), ERR_CONFIG,
                "--set: nowhere is neither a Hugging Face folder");
}

/* As a specification's own file writes them; what an override leaves out stays. */
TEST(an_override_nests_its_keys_as_a_specification_does)
{
    struct restore from;
    struct model_spec spec;
    CHECK_OK(recipe_override(&recipe, "model.spec=llama3.2-1b"));
    CHECK_OK(recipe_override(&recipe, "model.override={rope: {theta: 5000}, bias.qkv: true}"));
    CHECK_OK(train_spec(&spec, &from, &c, &recipe, &arena));
    CHECK_NEAR(spec.rope_theta, 5000, 0);
    CHECK_NEAR(spec.rope_factor, 32, 0);
    CHECK(spec.bias_qkv && spec.layers == 16);
    CHECK_OK(recipe_override(&recipe, "model.override={rope: {thetta: 5}}"));
    CHECK_FAILS(train_spec(&spec, &from, &c, &recipe, &arena), ERR_CONFIG,
                "--set:1:9: unknown key 'rope.thetta'; did you mean 'rope.theta'?");
}

TEST(ramps_need_both_of_their_keys)
{
    CHECK_FAILS(check_with("ramp.batch_from=1", NULL), ERR_CONFIG,
                "--set: ramp.batch_from and ramp.batch_steps go together");
    CHECK_OK(check_with("ramp.batch_steps=5", NULL));
    CHECK_FAILS(check_with("ramp.batch_from=2", NULL), ERR_CONFIG,
                "--set: ramp.batch_from 2 is more than the 1 micro-batches of a full step");
    CHECK_OK(check_with("train.accumulate=2", NULL));
    CHECK_FAILS(check_with("ramp.seq_steps=5", NULL), ERR_CONFIG,
                "--set: ramp.seq_from and ramp.seq_steps go together");
    CHECK_FAILS(check_with("ramp.seq_from=512", NULL), ERR_CONFIG,
                "--set: ramp.seq_from 512 is longer than train.seq 256");
}

TEST(a_row_that_doubles_must_come_to_its_full_length)
{
    CHECK_OK(recipe_override(&recipe, "train.seq=96"));
    CHECK_OK(check_with("ramp.seq_steps=20", "ramp.seq_from=48"));
    CHECK_OK(check_with("ramp.seq_from=24", NULL));
    CHECK_OK(check_with("ramp.seq_from=96", NULL));
    CHECK_FAILS(check_with("ramp.seq_from=32", NULL), ERR_CONFIG,
                "--set: rows that double from ramp.seq_from 32 come to 64 tokens, which do not "
                "divide train.seq 96");
}

TEST(the_bad_step_limit_fits_its_window)
{
    CHECK_FAILS(check_with("guard.bad_window=5", NULL), ERR_CONFIG,
                "--set: guard.max_bad 5 must be less than guard.bad_window 5");
}

static int choice(const char *key, const char *text, const int *field)
{
    CHECK_OK(option_parse_one(train_options, &c, key, text, NULL, &arena));
    return *field;
}

TEST(choices_stand_in_the_order_of_their_enums)
{
    CHECK_EQ(choice("data.packing", "documents", &c.data.packing), PACK_DOCUMENTS);
    CHECK_EQ(choice("data.border", "cross", &c.data.border), BORDER_CROSS);
    CHECK_EQ(choice("data.loss_on", "answers", &c.data.loss_on), LOSS_ON_ANSWERS);
    CHECK_EQ(choice("train.precision", "bf16", &c.train.precision), PRECISION_BF16);
    CHECK_EQ(choice("train.recompute", "selective", &c.train.recompute), RECOMPUTE_SELECTIVE);
    CHECK_EQ(choice("train.recompute", "full", &c.train.recompute), RECOMPUTE_FULL);
    CHECK_EQ(choice("guard.spike", "skip", &c.guard.spike), SPIKE_SKIP);
    CHECK_EQ(choice("guard.spike", "rewind", &c.guard.spike), SPIKE_REWIND);
    CHECK_EQ(choice("optim.name", "muon", &c.optim.name), OPTIMIZER_MUON);
    CHECK_EQ(choice("lr.schedule", "wsd", &c.lr.schedule), SCHEDULE_WSD);
    CHECK_EQ(choice("lr.schedule", "linear", &c.lr.schedule), SCHEDULE_LINEAR);
    CHECK_EQ(choice("lr.schedule", "constant", &c.lr.schedule), SCHEDULE_CONSTANT);
    CHECK_EQ(choice("trace.level", "steps", &c.trace.level), TRACE_STEPS);
    CHECK_EQ(choice("trace.level", "tasks", &c.trace.level), TRACE_TASKS);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)
TEST_MAIN(CASE(a_model_data_and_an_end_are_enough),
          CASE(settings_that_contradict_each_other_are_named),
          CASE(modules_that_training_does_not_build_are_refused),
          CASE(a_model_that_is_not_there_is_named_with_its_place),
          CASE(an_override_nests_its_keys_as_a_specification_does),
          CASE(ramps_need_both_of_their_keys),
          CASE(a_row_that_doubles_must_come_to_its_full_length),
          CASE(the_bad_step_limit_fits_its_window),
          CASE(choices_stand_in_the_order_of_their_enums))
