/* A source that vanishes under ranks that share a run, on every kind of layout. */
#define JOB_DIR "data-ranks-test"
#include "train/job.h"

#include "comm/local.h"
#include "support/cut_short.h"

#include <stdlib.h>

#define TWO_SOURCES                                                                      \
    "data.sources=[{path: " JOB_DIR "/text, name: a}, {path: " JOB_DIR "/text, name: b}]"

struct shared_run {
    const char *layout, *model, *policy;
    int lost; /* how many sources are, from the last */
    int rc;   /* of every rank */
};

static void cut_sources_short(int lost)
{
    char folder[256];
    for (int source = 2 - lost; source < 2; source++) {
        snprintf(folder, sizeof folder, JOB_DIR "/cache/source-%d", source);
        cut_short(folder);
    }
}

static void damage_after_three(void *context, const struct train_status *s)
{
    const struct shared_run *r = context;
    if (s->step == 3)
        cut_sources_short(r->lost);
}

static int same_order_everywhere(const struct session *s)
{
    struct loader_cursor here;
    loader_get_cursor(s->loader, &here);
    double most[2] = { (double)here.limit[1], -(double)here.limit[1] };
    TRY(mesh_max(&s->mesh, most, 2));
    if (most[0] != -most[1] || here.limit[1] == INT64_MAX || here.limit[0] != INT64_MAX)
        return err_set(ERR_INTERNAL, "rank %lld left source b at %lld, others between "
                       "%.0f and %.0f", (long long)s->mesh.rank, (long long)here.limit[1],
                       -most[1], most[0]);
    return OK;
}

static int run_rank(struct comm *c, void *context)
{
    const struct shared_run *r = context;
    const char *sets[] = { TWO_SOURCES, "train.steps=24", "eval.every=8", "train.batch=4",
                           "checkpoint.every=0", r->policy, r->model, NULL };
    struct layout layout = layout_single();
    struct job j;
    struct session s;
    open_job(&j, r->layout, sets);
    CHECK_OK(layout_parse(&layout, r->layout, "test", &j.arena));
    j.request.comm = c;
    j.request.layout = &layout;
    j.request.hooks.progress = damage_after_three;
    j.request.hooks.context = (void *)r;
    TRY(session_open(&s, &j.request));
    int rc = session_train(&s);
    if (rc != r->rc || (rc < 0 && !strstr(err_message(), "whose state is saved")))
        rc = err_set(ERR_INTERNAL, "rank %d ended with %d: %s", c->rank, rc, err_message());
    else
        rc = rc == OK ? same_order_everywhere(&s) : OK;
    session_close(&s);
    arena_fini(&j.arena);
    return rc;
}

static int run_ranks(struct shared_run *r)
{
    struct layout layout = layout_single();
    struct arena a;
    arena_init(&a);
    CHECK_OK(layout_parse(&layout, r->layout, "test", &a));
    arena_fini(&a);
    make_corpus();
    const struct comm_local l = { .ranks = (int)layout_ranks(&layout), .deadline_s = 60 };
    return comm_local_run(&l, run_rank, r);
}

TEST(a_source_that_vanishes_is_left_behind_by_all_ranks_at_once)
{
    static const char *const layouts[] = { "dp=2", "tp=2", "pp=2", "cp=2", "dp=2,zero=3",
                                           "dp=2,ep=2" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct shared_run r = { .layout = layouts[i], .policy = "data.on_missing=skip", .lost = 1 };
        r.model = strstr(layouts[i], "ep=") ? JOB_EXPERTS : NULL;
        CHECK_OK(run_ranks(&r));
        CHECK(log_has(layouts[i], "source b is skipped from here on: "));
        CHECK(log_has(layouts[i], "held-out text of source b is left out from here on: "));
        CHECK(log_has(layouts[i], "step 16: held-out loss"));
        CHECK(!log_has(layouts[i], "not evaluated"));
        expect_steps_once(layouts[i], 24);
    }
}

TEST(ranks_whose_last_source_vanishes_stop_with_their_state_saved)
{
    static const char *const layouts[] = { "dp=2", "tp=2" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct shared_run r = { .layout = layouts[i], .policy = "data.on_missing=skip", .lost = 2,
                                .rc = ERR_FORMAT };
        i64 step;
        CHECK_OK(run_ranks(&r));
        CHECK(!log_has(layouts[i], "have no more to give"));
        char path[128];
        snprintf(path, sizeof path, JOB_DIR "/runs/%s/checkpoints", layouts[i]);
        CHECK_OK(checkpoint_latest(path, &step));
        CHECK(step > 3 && step < 24);
    }
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(a_source_that_vanishes_is_left_behind_by_all_ranks_at_once),
          ONE(ranks_whose_last_source_vanishes_stop_with_their_state_saved))
