/* What is said of a layout's ranks before they run, beside what they then do. */
#include "test.h"

#include "parallel/ranks.h"
#include "support/byte_formulas.h"
#include "train/rank_links.h"
#include "train/train_layout.h"

#include <math.h>

/* A recipe for the tiny model's step. */
static void view_of(struct rank_view *v, const struct ranks *all, const struct ranks_options *o,
                    i64 rank, struct arena *a)
{
    struct train_config c = all->config;
    struct model_spec spec = rank_spec(o);
    c.train.batch = o->tiny.B;
    c.train.seq = RANK_T;
    c.train.accumulate = o->tiny.micro_batches;
    c.train.global_batch = 0;
    CHECK_OK(rank_view_new(v, &all->layout, &spec, &c, rank, a));
}

static bool is_member(const struct mesh *m, enum lane lane, i64 rank)
{
    const struct comm_group *g = m->groups[lane];
    for (int i = 0; g && i < g->n; i++)
        if (g->members[i] == rank && rank != m->rank)
            return true;
    return false;
}

/* All that is sent goes to somebody with whom the rank has calls; along a ring to the neighbour. */
static void expect_links(const char *layout, const struct rank_view *v, const struct rank *k,
                         struct arena *a)
{
    struct rank_links l;
    double sum[LANE_COUNT] = { 0 };
    rank_links_of(&l, v, a);
    for (i64 i = 0; i < l.n; i++) {
        sum[l.list[i].lane] += l.list[i].bytes;
        if (!is_member(&k->mesh, l.list[i].lane, l.list[i].to))
            fail_msg("%s, rank %lld: it has nothing to do with rank %lld", layout,
                     (long long)v->mesh.rank, (long long)l.list[i].to);
    }
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (fabs(sum[lane] - v->message_bytes[lane]) > 1e-6)
            fail_msg("%s, rank %lld, lane %d: links have %.6f bytes, the rank %.6f", layout,
                     (long long)v->mesh.rank, lane, sum[lane], v->message_bytes[lane]);
}

/* Of each rank and axis, what is said of it, what the transport counted and what the
 * formulas say. */
static void expect_bytes(const char *layout, bool gpt2, i64 layers, int micro_batches)
{
    static const struct { const char *axis; enum lane lane; } axes[] = {
        { "pp", LANE_PP }, { "tie", LANE_TIE }, { "dp", LANE_DP }, { "tp", LANE_TP },
        { "shard", LANE_SHARD }, { "copies", LANE_COPIES }, { "cp", LANE_CP },
    };
    struct ranks all;
    struct arena a;
    struct ranks_options o = { .tiny = { .backend = backend_best(), .gpt2 = gpt2, .threads = 1,
                                         .micro_batches = micro_batches, .B = 2 },
                               .layout = layout, .layers = layers };
    arena_init(&a);
    ranks_open(&all, &o);
    ranks_step(&all, 0);
    for (int r = 0; r < all.n; r++) {
        struct rank_view v;
        view_of(&v, &all, &o, r, &a);
        const struct step_shape *shape = &v.step.shape;
        const struct byte_case x = { .m = v.model, .mesh = &v.mesh, .B = shape->B, .T = shape->T,
                                     .micro_batches = shape->micro_batches };
        const struct lane_bytes formula = bytes_of_step(&x);
        for (int k = 0; k < COUNT_OF(axes); k++) {
            const struct comm_count count = comm_axis_count(all.rank[r].mesh.comm, axes[k].axis);
            const i64 want = formula.sent[axes[k].lane];
            if (count.sent_bytes != want || v.message_bytes[axes[k].lane] != (double)want)
                fail_msg("%s, %s, rank %d: %.6f bytes are said, %lld moved, the formula has %lld",
                         layout, axes[k].axis, r, v.message_bytes[axes[k].lane],
                         (long long)count.sent_bytes, (long long)want);
        }
        expect_links(layout, &v, &all.rank[r], &a);
        CHECK_EQ(v.step.program->memory.bytes, all.rank[r].step.program->memory.bytes);
        CHECK_EQ(v.model_bytes, all.rank[r].model->region_bytes);
    }
    ranks_close(&all);
    arena_fini(&a);
}

TEST(bytes_that_tasks_say_are_those_that_move)
{
    expect_bytes("pp=2", true, 4, 4);
    expect_bytes("pp=2,dp=2,schedule=zb-h1", true, 4, 4);
    expect_bytes("pp=2,tp=2,schedule=zb-v", true, 4, 2);
    expect_bytes("pp=2,schedule=interleaved,dp=2,tp=2", false, 4, 4);
    expect_bytes("pp=4,schedule=gpipe,zero=1,dp=2", false, 4, 4);
    expect_bytes("pp=2,dp=4,zero=3,zero_group=2,schedule=zb-h1", false, 4, 8);
    expect_bytes("dp=2,zero=3", true, 4, 4);
    expect_bytes("dp=4,bucket=1000", true, 3, 8); /* parts of messages differ */
    expect_bytes("cp=2,tp=2,dp=2,zero=1", false, 3, 4);
}

static double bytes_to(const struct rank_links *l, i64 to, enum lane lane)
{
    for (i64 i = 0; i < l->n; i++)
        if (l->list[i].to == to && l->list[i].lane == lane)
            return l->list[i].bytes;
    return 0;
}

/* Rank 1 of pp=2, dp=2, tp=2: its neighbour along tp is 0, along dp 3, and the other
 * stage's is 5. */
TEST(links_lead_to_neighbours_along_each_axis)
{
    struct ranks all;
    struct arena a;
    struct rank_view v;
    struct rank_links l;
    struct ranks_options o = {
        .tiny = { .backend = "generic", .threads = 1, .micro_batches = 4, .B = 2 },
        .layout = "pp=2,dp=2,tp=2", .layers = 4,
    };
    arena_init(&a);
    ranks_open(&all, &o);
    view_of(&v, &all, &o, 1, &a);
    rank_links_of(&l, &v, &a);
    CHECK_EQ(l.n, 3);
    CHECK(bytes_to(&l, 0, LANE_TP) == v.message_bytes[LANE_TP] && bytes_to(&l, 0, LANE_TP) > 0);
    CHECK(bytes_to(&l, 3, LANE_DP) == v.message_bytes[LANE_DP] && bytes_to(&l, 3, LANE_DP) > 0);
    CHECK(bytes_to(&l, 5, LANE_PP) == v.message_bytes[LANE_PP] && bytes_to(&l, 5, LANE_PP) > 0);
    ranks_close(&all);
    o.layout = "cp=4"; /* keys go to the next rank, their gradients back to the one before */
    ranks_open(&all, &o);
    view_of(&v, &all, &o, 1, &a);
    rank_links_of(&l, &v, &a);
    CHECK(bytes_to(&l, 2, LANE_CP) > 0 && bytes_to(&l, 0, LANE_CP) > 0);
    CHECK(bytes_to(&l, 3, LANE_CP) == 0);
    ranks_close(&all);
    arena_fini(&a);
}

/* PARALLELISM's formula: each boundary is crossed by a b (s/c) h elements both ways, once per
 * micro-batch, cut over tp; the norm adds 2(p-1) doubles for each pipeline. */
TEST(bytes_between_stages_follow_the_formula)
{
    struct ranks all;
    struct arena a;
    struct ranks_options o = { .tiny = { .backend = backend_best(), .threads = 1,
                                         .micro_batches = 8, .B = 2 },
                               .layout = "pp=4,tp=2,schedule=zb-h1", .layers = 4 };
    double bytes = 0, elements = 8.0 * 2 * RANK_T * 32;
    arena_init(&a);
    ranks_open(&all, &o);
    for (int r = 0; r < all.n; r++) {
        struct rank_view v;
        view_of(&v, &all, &o, r, &a);
        bytes += v.message_bytes[LANE_PP];
    }
    CHECK_NEAR(bytes, 3 * 2 * 4 * elements + 2 * (2 * 3 * 8), 0);
    ranks_close(&all);
    arena_fini(&a);
}

TEST(work_is_that_of_one_rank_shared_out)
{
    struct ranks all;
    struct arena a;
    struct ranks_options o = { .tiny = { .backend = backend_best(), .threads = 1,
                                         .micro_batches = 4, .B = 2 },
                               .layout = "dp=1", .layers = 4 };
    struct stage_time whole = { 0 }, parts = { 0 };
    arena_init(&a);
    for (int pass = 0; pass < 2; pass++) {
        struct stage_time *sum = pass ? &parts : &whole;
        o.layout = pass ? "pp=2,schedule=zb-v" : "dp=1";
        ranks_open(&all, &o);
        for (int r = 0; r < all.n; r++) {
            struct rank_view v;
            view_of(&v, &all, &o, r, &a);
            for (int k = 0; k < MODEL_CHUNKS; k++) {
                sum->F += v.flops[k].F;
                sum->I += v.flops[k].I;
                sum->W += v.flops[k].W;
            }
        }
        ranks_close(&all);
    }
    CHECK_NEAR(parts.F, whole.F, 0);
    CHECK_NEAR(parts.I, whole.I, 0);
    CHECK_NEAR(parts.W, whole.W, 0);
    arena_fini(&a);
}

/* With less memory more is split, until nothing fits. */
TEST(a_layout_that_is_chosen_splits_as_much_as_memory_demands)
{
    struct arena a;
    struct train_config c;
    struct layout base = layout_single(), l;
    struct model_spec s = tiny_spec(false);
    struct layout_budget budget = { .ranks = 4, .memory_bytes = 1 << 23, .flops_per_s = 1e9,
                                    .bytes_per_s = 1e9 };
    bool seen[ZERO_WEIGHTS + 1] = { false };
    int rc = OK;
    arena_init(&a);
    option_set_defaults(train_options, &c, &a);
    c.train.batch = 4;
    c.train.seq = RANK_T;
    for (; rc >= 0; budget.memory_bytes -= budget.memory_bytes / 50) {
        struct text why = { 0 };
        rc = train_layout_choose(&l, &base, &s, &c, &budget, &why);
        text_fini(&why);
        if (rc >= 0)
            seen[l.zero] = true;
    }
    CHECK(seen[ZERO_NONE] && seen[ZERO_WEIGHTS]);
    CHECK(budget.memory_bytes < 1 << 20);
    arena_fini(&a);
}

TEST_MAIN(ONE(bytes_that_tasks_say_are_those_that_move),
          ONE(links_lead_to_neighbours_along_each_axis),
          ONE(bytes_between_stages_follow_the_formula), ONE(work_is_that_of_one_rank_shared_out),
          ONE(a_layout_that_is_chosen_splits_as_much_as_memory_demands))
