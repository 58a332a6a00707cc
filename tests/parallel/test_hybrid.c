/* layout.zero_group: slices of what zero splits within groups, and copies of them across groups. */
#include "test.h"

#include "parallel/exact.h"
#include "parallel/spread.h"

static struct ranks_options options(const char *layout, bool gpt2, i64 B, int micro_batches)
{
    return (struct ranks_options){ .tiny = { .threads = 1, .B = B, .micro_batches = micro_batches,
                                             .gpt2 = gpt2, .backend = backend_best() },
                                   .layout = layout };
}

TEST(groups_that_are_copies_train_like_one_rank)
{
    static const char *const layouts[] = {
        "dp=4,zero=1,zero_group=2", "dp=4,zero=2,zero_group=2", "dp=8,zero=3,zero_group=4",
        "dp=6,zero=3,zero_group=3", "dp=4,tp=2,zero=3,zero_group=2",
        "dp=2,cp=2,zero=3,zero_group=2", "dp=4,zero=2,zero_group=1", "dp=4,zero=2,zero_group=4",
    };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        bool six = strstr(layouts[i], "dp=6") != NULL;
        struct ranks_options o = options(layouts[i], i % 2, six ? 6 : 4, 2);
        expect_as_one(&o, 1e-6, 2e-3);
    }
    struct ranks_options half = options("dp=4,zero=3,zero_group=2", false, 2, 8);
    half.tiny.bf16 = true;
    expect_as_one(&half, 1e-2, 2e-2);
}

TEST(groups_that_are_copies_have_the_bits_of_one_rank)
{
    static const struct { const char *layout; i64 B; int micro_batches, optimizer; } cases[] = {
        { "dp=4,zero=1,zero_group=2", 4, 2, OPTIMIZER_ADAMW },
        { "dp=8,zero=2,zero_group=2", 8, 1, OPTIMIZER_ADAMW },
        { "dp=8,zero=3,zero_group=4", 8, 1, OPTIMIZER_MUON },
        { "dp=4,tp=2,zero=1,zero_group=2", 2, 8, OPTIMIZER_MUON },
        { "pp=2,dp=4,zero=1,zero_group=2", 4, 4, OPTIMIZER_ADAMW },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        for (int gpt2 = 0; gpt2 < 2; gpt2++) {
            struct ranks_options o =
                options(cases[i].layout, gpt2, cases[i].B, cases[i].micro_batches);
            o.tiny.optimizer = cases[i].optimizer;
            o.tiny.bf16 = i % 2;
            expect_exact_options(&o);
        }
}

static struct ranks_options with_experts(const char *layout, enum tiny_experts experts, i64 B,
                                         int n)
{
    struct ranks_options o = options(layout, false, B, n);
    o.tiny.experts = experts;
    return o;
}

TEST(groups_that_share_experts_train_like_one_rank)
{
    static const struct { const char *layout; enum tiny_experts experts; } cases[] = {
        { "dp=4,ep=2,zero=1,zero_group=2", TINY_MIXTRAL },
        { "dp=8,ep=2,zero=1,zero_group=4", TINY_DEEPSEEK },
        { "dp=8,ep=2,zero=2,zero_group=4", TINY_MIXTRAL },
        { "dp=4,ep=2,zero=3,zero_group=2", TINY_CAPACITY },
        { "dp=8,ep=4,zero=3,zero_group=4", TINY_DEEPSEEK },
        { "dp=4,cp=2,ep=2,zero=3,zero_group=4", TINY_DEEPSEEK },
        { "pp=2,dp=4,ep=2,tp=2,zero=2,zero_group=2", TINY_MIXTRAL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = with_experts(cases[i].layout, cases[i].experts, 8, 2);
        o.tiny.optimizer = i % 2 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
        expect_as_one(&o, 1e-6, 2e-3);
    }
}

TEST(groups_that_share_experts_have_the_bits_of_one_rank)
{
    static const struct {
        const char *layout;
        enum tiny_experts experts;
        int optimizer;
    } cases[] = {
        { "dp=4,ep=2,zero=1,zero_group=2", TINY_DEEPSEEK, OPTIMIZER_ADAMW },
        { "dp=8,ep=2,zero=1,zero_group=4", TINY_MIXTRAL, OPTIMIZER_MUON },
        { "dp=8,ep=2,zero=2,zero_group=4", TINY_DEEPSEEK, OPTIMIZER_MUON },
        { "dp=8,ep=2,zero=3,zero_group=2", TINY_CAPACITY, OPTIMIZER_ADAMW },
        { "dp=4,ep=2,tp=2,zero=3,zero_group=2", TINY_MIXTRAL, OPTIMIZER_ADAMW },
        { "pp=2,dp=4,ep=2,zero=2,zero_group=2", TINY_DEEPSEEK, OPTIMIZER_ADAMW },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = with_experts(cases[i].layout, cases[i].experts, 2, 8);
        o.tiny.optimizer = cases[i].optimizer;
        o.tiny.bf16 = i % 2;
        expect_exact_options(&o);
    }
}

/* AdamW does not mind the size of gradients: the norm of groups with experts is that of
 * one rank. */
TEST(a_group_counts_every_expert_once)
{
    static const char *const layouts[] = { "dp=4,ep=2,zero=1,zero_group=2",
                                           "dp=8,ep=2,zero=2,zero_group=4",
                                           "dp=8,ep=4,zero=3,zero_group=4" };
    struct ranks_options o = with_experts("dp=1", TINY_DEEPSEEK, 8, 1);
    expect_norm_of_one(&o, layouts, COUNT_OF(layouts));
}

/* A rank keeps an n-th of the matrices, n the group's, and its copies the same. */
TEST(slices_are_those_of_a_group)
{
    struct ranks all;
    struct ranks_options o = options("dp=8,zero=3,zero_group=2", false, 8, 1);
    ranks_open(&all, &o);
    for (int r = 0; r < all.n; r++)
        for (i64 i = 0; i < all.rank[r].model->n_buckets; i++) {
            const struct bucket *b = &all.rank[r].model->buckets[i];
            const struct bucket *first = &all.rank[r % 2].model->buckets[i];
            CHECK_EQ(2 * b->own_count, b->count - b->copied);
            CHECK_EQ(b->own_begin, first->own_begin);
        }
    for (int step = 0; step < 2; step++)
        ranks_step(&all, (u64)step);
    for (int r = 2; r < all.n; r++)
        CHECK(memcmp(all.rank[r].model->region, all.rank[r % 2].model->region,
                     (size_t)all.rank[r].model->region_bytes) == 0);
    ranks_close(&all);
}

/* --- faults ------------------------------------------------------------------------- */

static const struct fault {
    const char *name, *layout;
    const struct op_info *op;
    enum lane lane;
    const char *text;
} faults[] = {
    { "slices are not summed across groups", "dp=4,zero=1,zero_group=2", &op_all_reduce,
      LANE_COPIES, "along dp across zero_groups, the gradient of" },
    { "slices that are kept are not summed across groups", "dp=4,zero=2,zero_group=2",
      &op_all_reduce, LANE_COPIES, "along dp across zero_groups, the gradient of" },
    { "slices are not summed within a group", "dp=4,zero=3,zero_group=2", &op_reduce_scatter,
      LANE_SHARD, "along dp within a zero_group" },
    { "the norm is of a slice", "dp=4,zero=1,zero_group=2", &op_all_reduce, LANE_SHARD,
      "a partial sum of each rank" },
    { "new weights are not gathered", "dp=4,zero=1,zero_group=2", &op_all_gather, LANE_SHARD,
      "along dp within a zero_group" },
};

static bool is_of(const struct task *t, const struct fault *f)
{
    return t->op == f->op && t->lane == f->lane;
}

/* Whoever reads what the first such task would write reads what it reads. */
static void leave_out(struct graph *g, const struct fault *f)
{
    i64 at = 0;
    while (!is_of(g->tasks[at], f))
        at++;
    const struct task *gone = g->tasks[at];
    g->n_tasks--;
    memmove(g->tasks + at, g->tasks + at + 1, sizeof *g->tasks * (size_t)(g->n_tasks - at));
    for (i64 i = at; i < g->n_tasks; i++) {
        struct task *t = ARENA_NEW(g->arena, struct task);
        *t = *g->tasks[i];
        for (int k = 0; k < TASK_INS; k++)
            if (t->in[k] == gone->out[0])
                t->in[k] = gone->in[0];
        g->tasks[i] = t;
    }
}

TEST(a_sum_over_one_of_the_two_axes_alone_is_refused_by_name)
{
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct ranks all;
        struct ranks_options o = options(faults[i].layout, true, 4, 1);
        ranks_open(&all, &o);
        struct rank *k = &all.rank[0];
        CHECK_OK(spread_check(&k->step.graph, k->model, &k->mesh));
        leave_out(&k->step.graph, &faults[i]);
        CHECK_FAILS(spread_check(&k->step.graph, k->model, &k->mesh), ERR_INTERNAL,
                    faults[i].text);
        ranks_close(&all);
    }
}

static i32 never_data = 0;
static struct tensor never = { .name = "never", .dtype = DTYPE_I32, .role = ROLE_RESULT, .rank = 1,
                               .dim = { 1 }, .index = -1, .data = &never_data };

TEST(every_exchange_changes_some_bit)
{
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct ranks one, many;
        char layout[64];
        struct ranks_options o = options("exact=true", true, 4, 1);
        snprintf(layout, sizeof layout, "%s,exact=true", faults[i].layout);
        ranks_open(&one, &o);
        o.layout = layout;
        ranks_open(&many, &o);
        for (int r = 0; r < many.n; r++)
            for (i64 id = 0; id < many.rank[r].step.program->n_tasks; id++) {
                struct task *t = many.rank[r].step.program->by_id[id];
                if (is_of(t, &faults[i]))
                    t->when = &never;
            }
        if (!exact_run(&one, &many))
            fail_msg("nobody sees that %s", faults[i].name);
        ranks_close(&one);
        ranks_close(&many);
    }
}

/* --- what does not fit -------------------------------------------------------------- */

TEST(a_group_that_does_not_fit_is_refused_with_those_that_would)
{
    static const struct { const char *layout, *text; } cases[] = {
        { "dp=8,zero=2,zero_group=3", "does not divide the 8 ranks of dp; 2 and 4 do" },
        { "dp=4,zero=1,zero_group=6", "is more than the 4 ranks of dp; 4 fits" },
        { "dp=4,zero_group=2", "has nothing to split; choose zero=1, 2 or 3" },
        { "dp=8,ep=4,zero=1,zero_group=2", "on groups of ep=4 ranks; zero_group=4 works" },
    };
    const struct tiny_options tiny = { .experts = TINY_MIXTRAL };
    struct model_spec s = tiny_spec_of(&tiny);
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct layout l = layout_single();
        arena_init(&a);
        CHECK_OK(layout_parse(&l, cases[i].layout, "test", &a));
        CHECK_FAILS(layout_check(&l, &s, layout_ranks(&l), 8, 32, 1), ERR_CONFIG, cases[i].text);
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(groups_that_are_copies_train_like_one_rank),
          ONE(groups_that_are_copies_have_the_bits_of_one_rank),
          ONE(groups_that_share_experts_train_like_one_rank),
          ONE(groups_that_share_experts_have_the_bits_of_one_rank),
          ONE(a_group_counts_every_expert_once),
          ONE(slices_are_those_of_a_group),
          ONE(a_sum_over_one_of_the_two_axes_alone_is_refused_by_name),
          ONE(every_exchange_changes_some_bit),
          ONE(a_group_that_does_not_fit_is_refused_with_those_that_would))
