/* State and activations in slower memory: the same bits in less memory. */
#include "test.h"
#include "train/tiny.h"

#include <stdlib.h>
#include <string.h>

static struct tiny_options options(bool gpt2, bool offload)
{
    return (struct tiny_options){ .backend = backend_best(), .gpt2 = gpt2, .threads = 2, .B = 2,
                                  .T = 32, .micro_batches = 2, .layers = 6, .offload = offload };
}

static void expect_same(struct tiny_options o)
{
    struct tiny here, away;
    o.offload = false;
    tiny_open(&here, &o);
    o.offload = true;
    tiny_open(&away, &o);
    for (u64 step = 0; step < 3; step++)
        CHECK(tiny_step(&here, step) == tiny_step(&away, step));
    const char *differs = tiny_difference(&here, &away);
    if (differs)
        fail_msg("%s differs", differs);
    CHECK(away.model->region_bytes < here.model->region_bytes);
    CHECK(away.step.program->memory.bytes < here.step.program->memory.bytes);
    CHECK(away_lane_bytes(away.away) > 3 * away.model->away_bytes); /* both ways, each step */
    tiny_close(&here);
    tiny_close(&away);
}

TEST(slower_memory_changes_no_bit_and_takes_less_memory)
{
    for (int recompute = RECOMPUTE_NONE; recompute <= RECOMPUTE_SELECTIVE; recompute++) {
        for (int gpt2 = 0; gpt2 < 2; gpt2++) {
            struct tiny_options o = options(gpt2, true);
            o.recompute = (enum recompute)recompute;
            o.bf16 = gpt2 != recompute;
            expect_same(o);
        }
    }
}

TEST(muons_momentum_may_be_away)
{
    struct tiny_options o = options(false, true);
    o.optimizer = OPTIMIZER_MUON;
    expect_same(o);
}

static bool missed(const struct tiny *here, const struct tiny_options *o, i64 id)
{
    static i32 zero;
    struct tensor never = { .name = "never", .dtype = DTYPE_I32, .role = ROLE_CONST, .rank = 1,
                            .dim = { 1 }, .index = -1, .data = &zero };
    struct tiny away;
    tiny_open(&away, o);
    away.step.program->by_id[id]->when = &never;
    for (u64 step = 0; step < 2; step++)
        tiny_step(&away, step);
    bool differs = tiny_difference(here, &away);
    tiny_close(&away);
    return differs;
}

/* One copy after another (every fifth) is left out: some weight or moment must differ. */
TEST(every_copy_matters)
{
    struct tiny_options o = options(true, false);
    struct tiny here, away;
    i64 copies = 0;
    tiny_open(&here, &o);
    for (u64 step = 0; step < 2; step++)
        tiny_step(&here, step);
    o.offload = true;
    tiny_open(&away, &o);
    const struct program *p = away.step.program;
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->op == &op_copy && copies++ % 5 == 0 && !missed(&here, &o, id))
            fail_msg("nothing misses copy %lld of %s", (long long)copies,
                     p->by_id[id]->in[0]->name);
    CHECK(copies > 50);
    tiny_close(&away);
    tiny_close(&here);
}

TEST(a_folder_that_cannot_be_used_is_named)
{
    struct model *m;
    struct arena a;
    arena_init(&a);
    struct model_spec spec = tiny_spec(true);
    struct model_part part = model_whole();
    part.state_folder = "/proc/nowhere";
    CHECK_FAILS(model_new_part(&m, &spec, DTYPE_F32, MODEL_ADAM, 32, &part, &a), ERR_SYS,
                "for the optimizer's state in /proc/nowhere: No such file");
    arena_fini(&a);
}

TEST_MAIN(ONE(slower_memory_changes_no_bit_and_takes_less_memory),
          ONE(muons_momentum_may_be_away), ONE(every_copy_matters),
          ONE(a_folder_that_cannot_be_used_is_named))
