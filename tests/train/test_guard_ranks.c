/* What ranks that share a run do together when it goes wrong. */
#define JOB_DIR "guard-ranks-test"
#include "train/trap.h"

#include "comm/local.h"

/* One run, as each of its ranks sees it. */
struct shared_run {
    const char *name, *layout;
    const char *const *sets;
    struct trap trap;
    int (*check)(const struct session *s, int rc); /* what a rank has to find at the end */
    i64 broken_rank; /* has a weight that is not finite; -1: none */
};

static int run_rank(struct comm *c, void *context)
{
    const struct shared_run *r = context;
    struct layout layout = layout_single();
    struct job j;
    struct session s;
    open_job(&j, r->name, r->sets);
    CHECK_OK(layout_parse(&layout, r->layout, "test", &j.arena));
    j.request.comm = c;
    j.request.layout = &layout;
    TRY(session_open(&s, &j.request));
    trap = r->trap;
    if (s.mesh.dp_rank == 0) /* poison only reaches the other rows */
        trap.nan_from = trap.nan_until = 0;
    set_trap(&s);
    if (c->rank == r->broken_rank)
        ((float *)s.model->params[3].master->data)[1] = NAN;
    int rc = r->check(&s, session_train(&s));
    session_close(&s);
    arena_fini(&j.arena);
    return rc;
}

static int run_ranks(const struct shared_run *r)
{
    struct layout layout = layout_single();
    struct arena a;
    arena_init(&a);
    CHECK_OK(layout_parse(&layout, r->layout, "test", &a));
    arena_fini(&a);
    const struct comm_local l = { .ranks = (int)layout_ranks(&layout), .deadline_s = 60 };
    return comm_local_run(&l, run_rank, (void *)r);
}

#define MUST(condition)                                                                  \
    do {                                                                                 \
        if (!(condition))                                                                \
            return err_set(ERR_INTERNAL, "rank %lld: %s (%s)", (long long)s->mesh.rank,  \
                           #condition, err_message());                                   \
    } while (0)

static int has_rewound(const struct session *s, int rc)
{
    struct loader_cursor here;
    loader_get_cursor(s->loader, &here);
    MUST(rc == OK && s->state.step == 100 && s->state.updates == 100);
    MUST(s->state.rewinds == 1 && s->state.rewound_from == 66 && s->state.rewound_to == 50);
    MUST(here.position == (66 + 2 + 50) * 128);
    return OK;
}

TEST(ranks_rewind_together)
{
    static const char *const sets[] = { LONG_RUN, "guard.spike=rewind", "train.accumulate=2",
                                        NULL };
    static const char *const layouts[] = { "dp=2", "tp=2", "dp=2,tp=2,zero=1" };
    make_corpus();
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct shared_run r = { .name = layouts[i], .layout = layouts[i], .sets = sets,
                                .trap = { .hard_from = 65, .hard_until = 66, .hard_left = 1 },
                                .check = has_rewound, .broken_rank = -1 };
        CHECK_OK(run_ranks(&r));
        expect_steps_once(layouts[i], 100);
    }
}

static int has_skipped(const struct session *s, int rc)
{
    MUST(rc == OK && s->state.step == 8 && s->state.updates == 7);
    return OK;
}

/* Row 1 of the second rank's step 5, so row 3 of the step: sample 23 of the run. */
TEST(the_first_bad_tensor_is_named_on_whichever_rank_it_is)
{
    static const char *const sets[] = { "eval.every=0", "train.batch=4", NULL };
    struct shared_run r = { .name = "nan", .layout = "dp=2,tp=2,zero=1", .sets = sets,
                            .trap = { .nan_from = 5, .nan_until = 6 },
                            .check = has_skipped, .broken_rank = -1 };
    CHECK_OK(run_ranks(&r));
    CHECK(log_has("nan", "step 6 is not finite: "));
    CHECK(log_has("nan", " of load_batch outside the layers of rank 2 is the first (element 40, "
                         "micro-batch 0, sample 23 of the run: window "));
}

static int has_given_up(const struct session *s, int rc)
{
    MUST(rc == ERR_NUMERIC && strstr(err_message(), "stopped after step 7, whose state is saved"));
    return OK;
}

TEST(too_many_bad_steps_end_a_shared_run_with_its_state_saved)
{
    static const char *const sets[] = { "eval.every=0", "guard.max_bad=2", "train.batch=4",
                                        NULL };
    struct shared_run r = { .name = "bad", .layout = "dp=2,tp=2,zero=1", .sets = sets,
                            .trap = { .nan_from = 4, .nan_until = 100 },
                            .check = has_given_up, .broken_rank = -1 };
    CHECK_OK(run_ranks(&r));
    CHECK(sys_exists(JOB_DIR "/runs/bad/checkpoints/step-7/manifest.json"));
    CHECK_EQ(checkpoint_verify(JOB_DIR "/runs/bad/checkpoints", -1, NULL, NULL), 0);
}

static int has_named_weight(const struct session *s, int rc)
{
    MUST(rc == ERR_NUMERIC && strstr(err_message(), "is itself not finite"));
    MUST(strstr(err_message(), s->model->params[3].desc.name));
    return OK;
}

TEST(a_weight_that_is_not_finite_on_one_rank_is_named_on_all_and_not_saved)
{
    static const char *const sets[] = { "eval.every=0", NULL };
    struct shared_run r = { .name = "broken", .layout = "tp=2", .sets = sets,
                            .check = has_named_weight, .broken_rank = 1 };
    CHECK_OK(run_ranks(&r));
    CHECK(!sys_exists(JOB_DIR "/runs/broken/checkpoints/step-1/manifest.json"));
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(ranks_rewind_together),
          ONE(the_first_bad_tensor_is_named_on_whichever_rank_it_is),
          ONE(too_many_bad_steps_end_a_shared_run_with_its_state_saved),
          ONE(a_weight_that_is_not_finite_on_one_rank_is_named_on_all_and_not_saved))
