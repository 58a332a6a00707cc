/* Gradients and weights that are split over dp (ZeRO 2, 3), in pipelines. */
#include "test.h"

#include "parallel/exact.h"

static struct ranks_options options(const char *layout, bool gpt2, i64 B, int micro_batches)
{
    return (struct ranks_options){ .tiny = { .threads = 1, .B = B, .micro_batches = micro_batches,
                                             .gpt2 = gpt2, .backend = backend_best() },
                                   .layout = layout, .layers = 4 };
}

TEST(every_schedule_trains_like_one_rank)
{
    static const char *const layouts[] = {
        "pp=2,dp=2,zero=2,schedule=gpipe", "pp=2,dp=2,zero=3,schedule=gpipe",
        "pp=2,dp=2,zero=2", "pp=2,dp=2,zero=3", "pp=4,dp=2,zero=3",
        "pp=2,dp=2,zero=3,schedule=interleaved", "pp=2,dp=2,zero=2,schedule=zb-h1",
        "pp=2,dp=2,zero=3,schedule=zb-h1", "pp=2,dp=2,zero=2,schedule=zb-v",
        "pp=2,dp=2,zero=3,schedule=zb-v", "pp=2,dp=2,tp=2,zero=3",
        "pp=2,dp=4,zero=3,zero_group=2",
    };
    for (int gpt2 = 0; gpt2 < 2; gpt2++)
        for (i64 i = 0; i < COUNT_OF(layouts); i++) {
            struct ranks_options o = options(layouts[i], gpt2, 2, 8);
            o.tiny.recompute = i % 3 == 1 ? RECOMPUTE_SELECTIVE : RECOMPUTE_NONE;
            expect_as_one(&o, 1e-6, 2e-3);
        }
}

/* Micro-batches are summed last: rows take turns (parallel/exact.h). */
TEST(slices_of_several_micro_batches_have_the_bits_of_one_rank)
{
    static const char *const layouts[] = {
        "dp=2,zero=2", "dp=4,zero=3", "dp=2,tp=2,zero=3", "dp=4,zero=2,zero_group=2",
        "pp=2,dp=2,zero=2,schedule=gpipe", "pp=2,dp=2,zero=3",
        "pp=2,dp=2,zero=3,schedule=interleaved", "pp=2,dp=2,zero=2,schedule=zb-h1",
        "pp=2,dp=2,zero=3,schedule=zb-v", "pp=2,dp=4,zero=3,zero_group=2,schedule=zb-h1",
        "pp=2,dp=2,tp=2,zero=2,schedule=zb-v",
    };
    for (int gpt2 = 0; gpt2 < 2; gpt2++)
        for (i64 i = 0; i < COUNT_OF(layouts); i++) {
            struct ranks_options o = options(layouts[i], gpt2, 3, 8);
            o.tiny.recompute = i % 3 == 1 ? RECOMPUTE_FULL : RECOMPUTE_NONE;
            o.tiny.bf16 = i % 2;
            o.tiny.optimizer = i % 4 == 3 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
            expect_exact_options(&o);
        }
}

/* Bytes of a rank's buckets, whole and in slices. */
static i64 largest_bucket(const struct model *m)
{
    i64 most = 0;
    for (i64 i = 0; i < m->n_buckets; i++)
        most = i64_max(most, 4 * (m->buckets[i].count - m->buckets[i].copied));
    return most;
}

TEST(a_stage_keeps_slices_and_two_buckets_at_a_time)
{
    static const char *const schedules[] = { "1f1b", "zb-h1" };
    for (i64 i = 0; i < COUNT_OF(schedules); i++) {
        i64 region[4], activations[4];
        for (int zero = 1; zero <= 3; zero++) {
            struct ranks all;
            char layout[64];
            snprintf(layout, sizeof layout, "pp=2,dp=4,zero=%d,schedule=%s", zero, schedules[i]);
            struct ranks_options o = options(layout, false, 2, 16);
            ranks_open(&all, &o);
            const struct model *m = all.rank[0].model;
            const struct program *p = all.rank[0].step.program;
            i64 matrices = 0;
            for (i64 b = 0; b < m->n_buckets; b++) {
                const struct bucket *x = &m->buckets[b];
                const struct tensor *whole[] = { zero > 1 ? x->grad : NULL, x->gathered };
                matrices += 4 * (x->count - x->copied);
                for (int k = 0; k < 2; k++)
                    if (whole[k] && whole[k]->slots)
                        fail_msg("%s: %s is there for several micro-batches", layout,
                                 whole[k]->name);
            }
            region[zero] = m->region_bytes;
            activations[zero] = p->memory.bytes;
            if (zero > 1)
                CHECK_EQ(region[zero], region[zero - 1] - matrices * 3 / 4);
            if (zero > 1)
                CHECK(activations[zero] <= activations[zero - 1] + 3 * largest_bucket(m));
            ranks_close(&all);
        }
    }
}

/* --- faults ------------------------------------------------------------------------- */

static i32 never_data = 0;
static struct tensor never = { .name = "never", .dtype = DTYPE_I32, .role = ROLE_RESULT, .rank = 1,
                               .dim = { 1 }, .index = -1, .data = &never_data };

/* Tasks of one op and lane of the first stage are not run. */
static const struct fault {
    const char *name;
    const struct op_info *op;
    enum lane lane;
} faults[] = {
    { "gradients are not scattered", &op_reduce_scatter, LANE_DP },
    { "weights are not gathered", &op_all_gather, LANE_DP },
    { "slices are not added up", &op_fold, LANE_COMPUTE },
};

static const struct fault *planted;

static void plant(struct program *p)
{
    for (i64 id = 0; planted && id < p->n_tasks; id++)
        if (p->by_id[id]->op == planted->op && p->by_id[id]->lane == planted->lane)
            p->by_id[id]->when = &never;
}

TEST(a_fault_is_seen)
{
    for (i64 i = -1; i < COUNT_OF(faults); i++) {
        struct ranks_options o = options("pp=2,dp=2,zero=3,schedule=zb-h1", true, 2, 8);
        o.plant = plant;
        planted = i < 0 ? NULL : &faults[i];
        const char *difference = ranks_difference(&o, 1e-6, 2e-3);
        if (i < 0 ? difference != NULL : difference == NULL)
            fail_msg("%s: %s", i < 0 ? "no fault" : planted->name,
                     difference ? difference : "nobody sees it");
    }
}

TEST_MAIN(ONE(every_schedule_trains_like_one_rank),
          ONE(slices_of_several_micro_batches_have_the_bits_of_one_rank),
          ONE(a_stage_keeps_slices_and_two_buckets_at_a_time), ONE(a_fault_is_seen))
