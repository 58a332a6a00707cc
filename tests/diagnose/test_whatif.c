/* Edits of a recorded run's steps: what they shorten, where, and by how much at most. */
#define JOB_DIR "whatif-test"
#include "diagnose/runs.h"

#include "diagnose/measure_record.h"
#include "diagnose/whatif.h"

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
    CHECK(own > 0.02 && own > other && own <= all + 1e-9); /* others may disturb rank 0 */
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

TEST(edits_shorten_what_they_are_about)
{
    static const struct {
        const char *name, *layout;
        const char *sets[6];
        void (*check)(const struct lab *l);
    } runs[] = {
        { "pieces", "dp=2,bucket=4KiB", { "train.batch=4", "train.steps=12", NULL },
          check_pieces },
        { "pause", "dp=2", { "train.batch=4", "train.steps=12", "run.inject=pause=50ms/1@1", NULL },
          check_pause },
        { "slow", "dp=2", { "train.batch=4", "train.steps=12", "run.inject=slow_compute=6@1", NULL },
          check_slow_rank },
    };
    make_corpus();
    for (i64 i = 0; i < COUNT_OF(runs); i++) {
        struct lab l = { .before = 0 };
        run_layout(runs[i].name, runs[i].layout, (const char **)(uintptr_t)runs[i].sets);
        open_lab(&l, runs[i].name);
        CHECK_NEAR(whatif_fidelity(l.whatif), 1, 0.1);
        runs[i].check(&l);
        close_lab(&l);
    }
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(edits_shorten_what_they_are_about))
