/* The search beside a plain walk over everything, and its bound beside every step. */
#include "test.h"

#include "parallel/layout.h"
#include "plan/ops_scale.h"
#include "plan/search.h"
#include "plan_job.h"

#include <math.h>
#include <stdio.h>

static const char cluster[] = "h100-sxm node:8 fabric:4096x50GB/s~8us";

/* Small enough to walk over, of all kinds: few and many devices, with and without experts, memory
 * that binds and memory that does not. */
static const struct { const char *model; i64 devices, rows, sequence; } jobs[] = {
    { "llama3.2-1b", 4, 8, 2048 },   { "llama3-8b", 8, 16, 4096 },  { "llama3-8b", 16, 12, 8192 },
    { "qwen3-30b-a3b", 8, 8, 1024 }, { "mixtral-8x7b", 16, 16, 1024 }, { "gpt2-355m", 6, 36, 1024 },
    { "llama3-8b", 12, 24, 1536 },   { "llama3-70b", 32, 32, 2048 },
};

enum { KEEP = 20 };

static void search(struct planned *p, const struct plan_search *s, struct plan_search_result *r)
{
    CHECK_OK(plan_search(s, r, &p->arena));
}

static void check_same(const struct plan_search_result *a, const struct plan_search_result *b)
{
    CHECK_EQ(a->n, b->n);
    CHECK_EQ(a->layouts, b->layouts);
    for (i64 i = 0; i < a->n; i++) {
        CHECK(a->best[i].objective == b->best[i].objective);
        CHECK(memcmp(&a->best[i].layout, &b->best[i].layout, sizeof a->best[i].layout) == 0);
    }
}

TEST(pruning_never_drops_one_of_the_best)
{
    for (int i = 0; i < COUNT_OF(jobs); i++)
        for (int objective = 0; objective < PLAN_OBJECTIVES; objective++)
            for (int most = 1; most <= KEEP; most += KEEP - 1) {
                struct planned p;
                struct plan_search_result pruned, whole;
                open_planned(&p, jobs[i].model, cluster, jobs[i].devices, jobs[i].rows,
                             jobs[i].sequence);
                struct plan_search s = { .job = &p.job, .pick = plan_pick_open(),
                                         .objective = objective, .keep = most, .prune = true };
                search(&p, &s, &pruned);
                s.prune = false;
                search(&p, &s, &whole);
                CHECK_EQ(whole.priced, whole.layouts);
                CHECK(pruned.priced <= whole.priced);
                check_same(&pruned, &whole);
                arena_fini(&p.arena);
            }
}

/* --- a walk that knows nothing ------------------------------------------------------ */

struct brute {
    const struct plan_job *job;
    struct plan_shelf *shelf;
    i64 layouts;
    double best; /* seconds of those that fit */
};

static void try_one(struct brute *b, const struct plan_layout *l)
{
    const struct plan_table *t;
    struct plan_step step;
    if (plan_layout_refused(b->job, l) || plan_runs_refused(b->job, l))
        return;
    if (plan_shelf_table(b->shelf, l, &t) != OK)
        return;
    plan_step_of(b->job, l, t, &step);
    b->layouts++;
    if (step.fits)
        b->best = fmin(b->best, step.seconds);
}

static bool order_exists(const struct plan_layout *l)
{
    enum schedule_kind kind = (enum schedule_kind)l->schedule;
    i64 most = schedule_most_chunks(kind);
    if (l->pp == 1)
        return kind == SCHEDULE_1F1B && l->virtual_stages == 1;
    return l->virtual_stages >= schedule_least_chunks(kind) &&
           (most == 0 || l->virtual_stages <= most);
}

static void try_orders(struct brute *b, struct plan_layout l)
{
    for (l.schedule = 0; l.schedule < SCHEDULE_KINDS; l.schedule++)
        for (l.virtual_stages = 1; l.virtual_stages <= 8; l.virtual_stages++)
            for (l.recompute = 0; order_exists(&l) && l.recompute <= RECOMPUTE_FULL; l.recompute++)
                for (l.zero = 0; l.zero <= (l.dp * l.cp > 1 ? ZERO_WEIGHTS : 0); l.zero++) {
                    l.zero_group = 0;
                    try_one(b, &l);
                    l.zero_group = i64_max(1, b->job->machine->node_ranks / l.tp);
                    if (l.zero > 0 && l.ep == 1 && l.zero_group > 1 &&
                        l.zero_group < l.dp * l.cp)
                        try_one(b, &l);
                }
}

static void try_all(struct brute *b)
{
    struct plan_layout l = { 0 };
    i64 N = b->job->devices, E = i64_max(1, b->job->spec->experts);
    for (l.tp = 1; l.tp <= N; l.tp++)
        for (l.cp = 1; l.cp <= N; l.cp++)
            for (l.pp = 1; l.pp <= N; l.pp++)
                for (l.dp = 1; l.dp <= N; l.dp++)
                    for (l.ep = 1; l.tp * l.cp * l.pp * l.dp == N && l.ep <= E; l.ep++)
                        for (l.micro_batch = 1; l.micro_batch <= b->job->global_batch;
                             l.micro_batch++) {
                            l.micro_batches = b->job->global_batch / l.dp / l.micro_batch;
                            l.sequence_parallel = l.tp > 1;
                            if (l.cp <= i64_max(1, b->job->sequence / PLAN_LEAST_ROWS))
                                try_orders(b, l);
                        }
}

static void check_everything(int i, const char *stack)
{
    struct planned p;
    struct plan_search_result r;
    open_planned(&p, jobs[i].model, cluster, jobs[i].devices, jobs[i].rows, jobs[i].sequence);
    if (stack)
        CHECK_OK(plan_stack_load(&p.stack, stack, &p.arena));
    p.job.any = !stack;
    struct brute b = { &p.job, plan_shelf_new(&p.job, &p.arena), 0, INFINITY };
    struct plan_search s = { .job = &p.job, .pick = plan_pick_open(), .keep = 1, .prune = true,
                             .all = true };
    try_all(&b);
    search(&p, &s, &r);
    CHECK_EQ(r.layouts, b.layouts);
    s.all = false;
    if (b.best < INFINITY) {
        search(&p, &s, &r);
        CHECK(r.best[0].step.seconds == b.best);
    }
    arena_fini(&p.arena);
}

TEST(everything_that_exists_is_looked_at)
{
    for (int i = 0; i < COUNT_OF(jobs); i++)
        check_everything(i, NULL);
}

TEST(everything_that_a_stack_runs_is_looked_at)
{
    static const char *const stacks[] = { "megatron-core", "megatron-deepspeed", "nanotron",
                                          "llm-foundry", "torchtitan", "hai-llm" };
    for (int i = 0; i < COUNT_OF(jobs); i++)
        check_everything(i, stacks[i % COUNT_OF(stacks)]);
}

TEST(what_a_stack_does_not_run_is_refused_with_its_reason)
{
    static const struct { const char *layout, *why; } asked[] = {
        { "tp=16", "key-value heads" },
        { "pp=3", "as many layers" },
        { "pp=4,schedule=zb-h1", "no such schedule" },
        { "pp=1,zero=3", "split this" },
        { "pp=4,schedule=interleaved,chunks=3", "as many layers" },
    };
    struct planned p;
    open_planned(&p, "llama3-8b", cluster, 48, 96, 4096);
    CHECK_OK(plan_stack_load(&p.stack, "megatron-core", &p.arena));
    p.stack.runs.spare_layers = 0;
    for (int i = 0; i < COUNT_OF(asked); i++) {
        struct plan_search s = { .job = &p.job, .keep = 1, .prune = true, .all = true };
        struct plan_search_result r;
        CHECK_OK(plan_pick_parse(&s.pick, asked[i].layout, "test", &p.arena));
        p.job.any = true;
        search(&p, &s, &r);
        p.job.any = false;
        CHECK_FAILS(plan_search(&s, &r, &p.arena), ERR_CONFIG, asked[i].why);
        CHECK_FAILS(plan_search(&s, &r, &p.arena), ERR_CONFIG, "--any");
    }
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 16, .dp = 3, .ep = 1, .micro_batch = 1,
                             .micro_batches = 32, .virtual_stages = 1 };
    struct model_spec odd = p.spec; /* 30 layers: with embedding and head 32 */
    odd.layers = 30;
    p.job.spec = &odd;
    CHECK(plan_runs_degrees(&p.job, &l));
    p.stack.runs.spare_layers = 2;
    CHECK(!plan_runs_degrees(&p.job, &l));
    arena_fini(&p.arena);
}

TEST(rows_are_cut_between_matrices_unless_told_otherwise)
{
    struct planned p;
    struct plan_search_result r;
    open_planned(&p, "llama3-8b", cluster, 16, 32, 4096);
    struct plan_search s = { .job = &p.job, .keep = 1, .prune = true };
    CHECK_OK(plan_pick_parse(&s.pick, "tp=8", "test", &p.arena));
    search(&p, &s, &r);
    CHECK(r.best[0].layout.sequence_parallel);
    CHECK_OK(plan_pick_parse(&s.pick, "tp=8,sp=0", "test", &p.arena));
    search(&p, &s, &r);
    CHECK(!r.best[0].layout.sequence_parallel);
    CHECK(strstr(plan_layout_text(&r.best[0].layout, &p.arena), "sp=0"));
    arena_fini(&p.arena);
}

TEST(a_layout_may_have_spaces)
{
    struct planned p;
    struct plan_pick one, other;
    open_planned(&p, "llama3-8b", cluster, 16, 32, 4096);
    CHECK_OK(plan_pick_parse(&one, "tp=8,pp=2,recompute=none", "test", &p.arena));
    CHECK_OK(plan_pick_parse(&other, " tp = 8, pp =2 , recompute= none ", "test", &p.arena));
    CHECK_EQ(memcmp(&one, &other, sizeof one), 0);
    CHECK_FAILS(plan_pick_parse(&one, "tp = 8, tp =4", "test", &p.arena), ERR_USAGE, "given twice");
    CHECK_FAILS(plan_pick_parse(&one, "t p=8", "test", &p.arena), ERR_CONFIG, "no 't p'");
    arena_fini(&p.arena);
}

TEST(experts_go_with_every_other_axis)
{
    static const char *const layouts[] = { "cp=2", "tp=2,ep=2", "cp=2,ep=4", "tp=2,cp=2,ep=2",
                                           "tp=2,cp=2,pp=2,ep=2" };
    struct planned p;
    open_planned(&p, "mixtral-8x7b", cluster, 32, 32, 2048);
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        struct plan_search s = { .job = &p.job, .keep = 1, .prune = true };
        struct plan_search_result r;
        CHECK_OK(plan_pick_parse(&s.pick, layouts[i], "test", &p.arena));
        search(&p, &s, &r);
        CHECK_EQ(r.n, 1);
        CHECK_EQ(r.left_out, 0);
        CHECK_EQ(r.best[0].step.terms[PLAN_CP] > 0, r.best[0].layout.cp > 1);
        CHECK_EQ(r.best[0].step.terms[PLAN_EP] > 0, r.best[0].layout.ep > 1);
    }
    arena_fini(&p.arena);
}

/* --- tables ------------------------------------------------------------------------- */

static void check_near_pieces(const struct plan_piece *a, const struct plan_piece *b, double within)
{
    const double *x = (const double *)a, *y = (const double *)b;
    for (i64 i = 0; i < (i64)(sizeof *a / sizeof *x); i++)
        CHECK_NEAR(x[i], y[i], within * fabs(y[i]) + 1e-12);
}

TEST(tables_from_two_programs_are_those_of_the_program_itself)
{
    static const struct { const char *model; i64 tp, cp, ep, sequence; } kinds[] = {
        { "llama3-8b", 1, 1, 1, 2048 }, { "llama3-8b", 4, 2, 1, 2048 },
        { "gpt2-355m", 2, 1, 1, 512 },  { "mixtral-8x7b", 1, 1, 4, 1024 },
        { "llama3-8b", 2, 4, 1, 1024 }, { "llama3-8b", 1, 1, 1, 2047 },
        { "mixtral-8x7b", 2, 2, 4, 1024 },
    };
    for (int i = 0; i < COUNT_OF(kinds); i++)
        for (i64 rows = 1; rows <= 12; rows += 1 + rows / 4) {
            struct planned p;
            struct plan_table direct;
            const struct plan_table *scaled;
            open_planned(&p, kinds[i].model, cluster, 64, 512, kinds[i].sequence);
            struct plan_layout l = { .tp = kinds[i].tp, .cp = kinds[i].cp, .ep = kinds[i].ep,
                                     .pp = 1, .dp = 64 / kinds[i].tp / kinds[i].cp,
                                     .micro_batch = rows, .micro_batches = 1, .virtual_stages = 1,
                                     .sequence_parallel = kinds[i].tp > 1 };
            CHECK_OK(plan_shelf_table(plan_shelf_new(&p.job, &p.arena), &l, &scaled));
            CHECK_OK(plan_table_new(&direct, &p.job, &l, &p.arena));
            for (int part = 0; part < PLAN_PARTS; part++)
                check_near_pieces(&scaled->pieces[part], &direct.pieces[part],
                                  l.cp > 1 ? 5e-2 : kinds[i].sequence % 512 ? 5e-3 : 1e-9);
            CHECK_NEAR(scaled->boundary_bytes, direct.boundary_bytes, 1e-6);
            arena_fini(&p.arena);
        }
}

/* --- picks and failures ------------------------------------------------------------- */

TEST(a_layout_reads_back_to_itself_alone)
{
    struct planned p;
    struct plan_search_result r, one;
    open_planned(&p, "llama3-8b", cluster, 16, 32, 4096);
    struct plan_search s = { .job = &p.job, .pick = plan_pick_open(), .keep = KEEP,
                             .prune = true };
    search(&p, &s, &r);
    for (i64 i = 0; i < r.n; i++) {
        const char *text = plan_layout_text(&r.best[i].layout, &p.arena);
        CHECK_OK(plan_pick_parse(&s.pick, text, "test", &p.arena));
        s.keep = 2;
        search(&p, &s, &one);
        CHECK_STR(plan_layout_text(&one.best[0].layout, &p.arena), text);
        CHECK(one.best[0].objective == r.best[i].objective);
    }
    arena_fini(&p.arena);
}

TEST(what_was_asked_for_is_kept_to)
{
    struct planned p;
    struct plan_search_result r;
    open_planned(&p, "llama3-8b", cluster, 16, 32, 4096);
    struct plan_search s = { .job = &p.job, .keep = 50, .prune = true };
    CHECK_OK(plan_pick_parse(&s.pick, "tp=4,recompute=full,schedule=zb-h1", "test", &p.arena));
    search(&p, &s, &r);
    for (i64 i = 0; i < r.n; i++) {
        const struct plan_layout *l = &r.best[i].layout;
        CHECK(l->tp == 4 && l->recompute == RECOMPUTE_FULL && l->schedule == SCHEDULE_ZB_H1);
    }
    CHECK_FAILS(plan_pick_parse(&s.pick, "tq=4", "--layout", &p.arena), ERR_CONFIG, "tp");
    CHECK_FAILS(plan_pick_parse(&s.pick, "tp", "--layout", &p.arena), ERR_USAGE, "key=value");
    CHECK_FAILS(plan_pick_parse(&s.pick, "tp=0", "--layout", &p.arena), ERR_USAGE, "tp=0 is no");
    CHECK_FAILS(plan_pick_parse(&s.pick, "tp=8,pp=2,tp=4", "--layout", &p.arena), ERR_USAGE,
                "tp is given twice");
    CHECK_OK(plan_pick_parse(&s.pick, "zero_group=0,zero=0,cp=1,tp=2", "--layout", &p.arena));
    p.stack.runs.axes = (struct option_strings){ (const char *[]){ "tp", "dp2" }, 2 };
    CHECK_FAILS(plan_runs_check(&p.stack.runs, "x"), ERR_CONFIG, "'dp2'");
    p.stack.runs.axes.count = 1;
    p.stack.runs.schedules = (struct option_strings){ (const char *[]){ "zb-v", "foo" }, 2 };
    CHECK_FAILS(plan_runs_check(&p.stack.runs, "x"), ERR_CONFIG, "'foo'");
    arena_fini(&p.arena);
}

TEST(what_does_not_fit_says_what_would_be_needed)
{
    struct planned p;
    struct plan_search_result r;
    open_planned(&p, "llama3-405b", cluster, 8, 8, 8192);
    struct plan_search s = { .job = &p.job, .pick = plan_pick_open(), .keep = 5, .prune = true };
    CHECK_FAILS(plan_search(&s, &r, &p.arena), ERR_LIMIT, "the least needs");
    CHECK(r.least.step.memory_bytes > p.machine.device.memory_bytes);
    CHECK_OK(plan_pick_parse(&s.pick, "tp=3", "test", &p.arena));
    CHECK_FAILS(plan_search(&s, &r, &p.arena), ERR_CONFIG, "tp 3 does not divide");
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(pruning_never_drops_one_of_the_best), ONE(everything_that_exists_is_looked_at),
          ONE(everything_that_a_stack_runs_is_looked_at),
          ONE(what_a_stack_does_not_run_is_refused_with_its_reason),
          ONE(rows_are_cut_between_matrices_unless_told_otherwise), ONE(a_layout_may_have_spaces),
          ONE(experts_go_with_every_other_axis),
          ONE(tables_from_two_programs_are_those_of_the_program_itself),
          ONE(a_layout_reads_back_to_itself_alone), ONE(what_was_asked_for_is_kept_to),
          ONE(what_does_not_fit_says_what_would_be_needed))
