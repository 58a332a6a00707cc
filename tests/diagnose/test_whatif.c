/* Edits of a recorded run's steps: what they shorten, where, and by how much at most. */
#define JOB_DIR "whatif-test"
#include "diagnose/runs.h"

#include "diagnose/measure_record.h"
#include "diagnose/whatif.h"
#include "diagnose/whatif_stages.h"
#include "plan/virtual_run.h"
#include "train/tiny_spec.h"

#include <math.h>

struct lab {
    struct arena arena;
    struct record record;
    struct measure *measure;
    struct whatif *whatif;
    struct finding_replay replay;
    double before;
};

static void open_lab(struct lab *l, const char *name)
{
    const struct measure_range all = { 0, -1, 0 };
    arena_init(&l->arena);
    open_run(&l->record, name);
    CHECK_OK(measure_record(&l->measure, &l->record, JOB_DIR "/runs", &all, &l->arena));
    CHECK_OK(whatif_new(&l->whatif, &l->record, l->measure, 1 << 22));
    l->replay = whatif_replay(l->whatif);
    l->before = l->replay.length(l->replay.context, NULL, 1);
}

static void close_lab(struct lab *l)
{
    whatif_free(l->whatif);
    record_close(&l->record);
    arena_fini(&l->arena);
}

static double gain(const struct lab *l, const struct finding_edit *e, double factor)
{
    return l->before - l->replay.length(l->replay.context, e, factor);
}

static struct finding_edit everywhere(enum finding_edit_kind kind)
{
    return (struct finding_edit){ .kind = kind, .rank = -1, .peer = -1, .stage = -1, .lane = -1,
                                  .phase = -1, .host = -1 };
}

/* Each piece is begun by the rank's own thread, and taken up by its lane's. */
static void check_pieces(const struct lab *l)
{
    struct finding_edit e = everywhere(EDIT_TRANSFER), other;
    const double slack = 1e-9 * l->before;
    e.lane = LANE_DP;
    CHECK_NEAR(gain(l, &e, 1), 0, slack); /* nothing is changed */
    e.starts = 0.5;
    const double half = gain(l, &e, 1);
    e.starts = 1;
    const double all = gain(l, &e, 1);
    CHECK(half > 0 && all > half && all < l->before);
    other = e;
    other.lane = LANE_PP;
    CHECK_NEAR(gain(l, &other, 1), 0, slack); /* a lane that the run does not have */
    e.rank = 0;
    const double one = gain(l, &e, 1);
    CHECK(one >= -slack && one <= all + slack);
    e.last_rank = 1; /* both */
    CHECK_NEAR(gain(l, &e, 1), all, slack);
}

/* The pause is on rank 1 alone: neither rank 0's gaps nor computing give it back. */
static void check_pause(const struct lab *l)
{
    struct finding_edit e = everywhere(EDIT_HOST);
    e.host = HOST_GAP;
    const double all = gain(l, &e, 0);
    e.rank = 0;
    const double other = gain(l, &e, 0);
    e.rank = 1;
    const double own = gain(l, &e, 0);
    CHECK(own > 0.02 && other < 0.1 * own && own <= all + 1e-9);
    const double half = gain(l, &e, 0.5);
    CHECK(half > 0 && half < own);
}

/* Rank 1's tasks take six times as long: were they as rank 0's, it would wait no more. */
static void check_slow_rank(const struct lab *l)
{
    struct finding_edit e = everywhere(EDIT_EVEN_RANK);
    e.rank = 1;
    const double own = gain(l, &e, 1);
    e.rank = 0;
    CHECK(own > 0 && own > gain(l, &e, 1));
}

/* Twelve steps of two ranks, with this fault, on a clock that is computed: nothing else disturbs
 * them. */
static void run_virtual(const char *name, const char *fault)
{
    struct arena a;
    struct train_config config;
    struct layout layout;
    struct option_group groups[] = { { train_options, &config }, { layout_options, &layout } };
    struct recipe recipe;
    struct model_spec spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = true });
    struct virtual_request request = { .config = &config, .layout = &layout, .spec = &spec,
                                       .recipe = &recipe, .recipe_path = "test.yaml" };
    char folder[2048];
    arena_init(&a);
    recipe_init(&recipe, &a, groups, 2);
    config.train.batch = 4;
    config.train.seq = 32;
    config.train.steps = 12;
    config.log.every = 1;
    config.eval.every = 0;
    config.run.dir = JOB_DIR "/runs";
    config.run.name = name;
    CHECK_OK(recipe_override(&recipe, fault));
    CHECK_OK(layout_parse(&layout, "dp=2", "test", &a));
    CHECK_OK(virtual_rates_parse(&request.rates, "flops=1e9,memory=4e9,link=1e8,latency=1e-5",
                                 "test", &a));
    CHECK_OK(virtual_run(&request, folder));
    arena_fini(&a);
}

/* What a run recorded, and what edits of it must give back. */
static void check(const char *name, void (*check_edits)(const struct lab *l))
{
    struct lab l = { .before = 0 };
    open_lab(&l, name);
    CHECK_NEAR(whatif_fidelity(l.whatif), 1, 0.1);
    check_edits(&l);
    close_lab(&l);
}

/* A head as long as a layer and a half: its stage cannot give its only layer away. */
TEST(every_stage_keeps_a_layer)
{
    struct arena a;
    arena_init(&a);
    struct shares *s = ARENA_NEW(&a, struct shares);
    double target[STAGES], sum = 0, most = 0;
    *s = (struct shares){ .fixed = { [3] = 1.5 }, .stages = 4, .layers = 6 };
    for (int l = 0; l < s->layers; l++)
        s->layer[l] = 1;
    whatif_partition(s, target, &a);
    for (int p = 0; p < s->stages; p++) {
        CHECK(target[p] >= 1);
        sum += target[p];
        most = fmax(most, target[p]);
    }
    CHECK_NEAR(sum, 7.5, 1e-12);
    CHECK_NEAR(most, 2.5, 1e-12);
    arena_fini(&a);
}

TEST(edits_shorten_what_they_are_about)
{
    const char *sets[] = { "train.batch=4", "train.steps=12", NULL };
    make_corpus();
    run_layout("pieces", "dp=2,bucket=4KiB", sets);
    check("pieces", check_pieces);
    run_virtual("pause", "run.inject=pause=50ms/1@1");
    check("pause", check_pause);
    run_virtual("slow", "run.inject=slow_compute=6@1");
    check("slow", check_slow_rank);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(every_stage_keeps_a_layer), ONE(edits_shorten_what_they_are_about))
