/* What is exchanged and what the host is ahead, term by term. */
#include "test.h"

#include "parallel/layout.h"
#include "plan/table.h"
#include "plan_job.h"

static const char cluster[] = "h100-sxm node:8 fabric:4096x50GB/s~8us";

static void price(struct planned *p, const struct plan_layout *l, struct plan_step *step)
{
    struct plan_table table;
    CHECK(plan_layout_refused(&p->job, l) == NULL);
    CHECK_OK(plan_table_new(&table, &p->job, l, &p->arena));
    plan_step_of(&p->job, l, &table, step);
}

/* Links so fast that bytes take no time: what is left are steps and starts, each layer's and those of
 * what is in no layer. A micro-batch gathers twice and scatters once. */
TEST(weights_that_are_split_go_layer_by_layer)
{
    struct planned p;
    struct plan_step step;
    const struct plan_layout l = { .tp = 1, .cp = 1, .pp = 1, .dp = 32, .ep = 1, .micro_batch = 1,
                                   .micro_batches = 2, .virtual_stages = 1, .zero = ZERO_WEIGHTS };
    open_planned(&p, "llama3-8b", cluster, 32, 64, 2048);
    for (int t = 0; t < p.machine.n_tiers; t++)
        p.machine.tiers[t].bytes_per_s.mid = 1e30;
    p.machine.device.link_bytes_per_s = 1e30;
    p.machine.tiers[1].latency_s.mid = p.family.net_latency_s = 1e-5;
    p.family.collective_s = 4e-5;
    p.stack.dp_overlap = 0;
    price(&p, &l, &step);
    CHECK_NEAR(step.terms[PLAN_DP], 2 * 3 * (32 + 1) * (31 * 1e-5 + 4e-5), 1e-9);
    arena_fini(&p.arena);
}

/* Keys that went round for a layer go round again where all of it is computed again, and so do rows
 * of experts. */
TEST(what_runs_again_exchanges_again)
{
    struct planned p;
    struct plan_step once, again;
    struct plan_layout l = { .tp = 1, .cp = 4, .pp = 1, .dp = 2, .ep = 8, .micro_batch = 1,
                             .micro_batches = 2, .virtual_stages = 1 };
    open_planned(&p, "mixtral-8x7b", cluster, 8, 4, 4096);
    price(&p, &l, &once);
    l.recompute = RECOMPUTE_FULL;
    price(&p, &l, &again);
    CHECK_NEAR(again.terms[PLAN_EP], 1.5 * once.terms[PLAN_EP], 1e-12);
    CHECK(again.terms[PLAN_CP] > 1.2 * once.terms[PLAN_CP]);
    CHECK(again.terms[PLAN_CP] < 1.6 * once.terms[PLAN_CP]);
    arena_fini(&p.arena);
}

/* While a layer is computed again the host gets further ahead. */
TEST(the_host_is_ahead_of_what_runs_again_too)
{
    struct planned p;
    struct plan_table table;
    const struct plan_layout l = { .tp = 1, .cp = 1, .pp = 1, .dp = 1, .ep = 1, .micro_batch = 4,
                                   .micro_batches = 1, .virtual_stages = 1 };
    open_planned(&p, "llama3-8b", cluster, 1, 4, 2048);
    CHECK_OK(plan_table_new(&table, &p.job, &l, &p.arena));
    const double *slack = table.pieces[PLAN_DENSE].slack;
    CHECK(slack[RECOMPUTE_NONE] > 0 && slack[RECOMPUTE_SELECTIVE] == slack[RECOMPUTE_NONE]);
    CHECK(slack[RECOMPUTE_FULL] > 1.2 * slack[RECOMPUTE_NONE]);
    arena_fini(&p.arena);
}

static double compute_of(struct planned *p, const struct plan_layout *l, bool backward)
{
    struct plan_table table;
    CHECK_OK(plan_table_new(&table, &p->job, l, &p->arena));
    const struct plan_piece *layer = &table.pieces[PLAN_DENSE];
    const struct plan_seconds *s = backward ? &layer->backward : &layer->forward;
    return s->ideal + s->shape;
}

/* With half of the device for exchanges, products beside them take twice as long: forward those of
 * attention's result and of what goes back to the width, backward gradients of the others. */
TEST(exchanges_beside_products_keep_some_of_the_device)
{
    for (int cut = 0; cut < 2; cut++)
        for (i64 tp = 1; tp <= 2; tp++) {
            struct planned p;
            const struct plan_layout l = { .tp = tp, .cp = 1, .pp = 1, .dp = 1, .ep = 1,
                                           .micro_batch = 4, .micro_batches = 1,
                                           .virtual_stages = 1, .sequence_parallel = cut };
            open_planned(&p, "gpt3-175b", cluster, tp, 4, 2048);
            p.stack.attention = STACK_FUSED;
            double forward = compute_of(&p, &l, false), backward = compute_of(&p, &l, true);
            p.stack.sum_units = p.stack.gradient_units = p.family.units / 2;
            double slower = compute_of(&p, &l, false) / forward;
            double slower_back = compute_of(&p, &l, true) / backward;
            if (tp == 1 || !cut) {
                CHECK(slower == 1 && slower_back == 1);
            } else { /* 5 of 12 widths squared, and 7 of 12 but for attention */
                CHECK(slower > 1.35 && slower < 1.43);
                CHECK(slower_back > 1.5 && slower_back < 1.6);
            }
            arena_fini(&p.arena);
        }
}

/* With one part to a rank a stage has nothing to do while rows come; with several it has, but on the
 * first micro-batch's way there and the last one's way back. */
TEST(moves_are_hidden_by_other_parts_alone)
{
    struct planned p;
    struct plan_step plain, parts;
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 4, .dp = 8, .ep = 1, .micro_batch = 1,
                             .micro_batches = 8, .virtual_stages = 1, .schedule = SCHEDULE_1F1B };
    open_planned(&p, "llama3-8b", cluster, 32, 64, 2048);
    for (int i = 0; i < 2; i++) {
        p.stack.pp_overlap = i ? 0.8 : 0;
        l.virtual_stages = 1;
        l.schedule = SCHEDULE_1F1B;
        price(&p, &l, &plain);
        l.virtual_stages = 2;
        l.schedule = SCHEDULE_INTERLEAVED;
        price(&p, &l, &parts);
        double once = plain.terms[PLAN_PP] / (8 + 3), all = 2 * 8 + 3, way = 2 * 4 - 1;
        CHECK(once > 0);
        CHECK_NEAR(parts.terms[PLAN_PP], (i ? 0.2 * all + 0.8 * way : all) * once, 1e-12);
    }
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(moves_are_hidden_by_other_parts_alone),
          ONE(exchanges_beside_products_keep_some_of_the_device),
          ONE(weights_that_are_split_go_layer_by_layer), ONE(what_runs_again_exchanges_again),
          ONE(the_host_is_ahead_of_what_runs_again_too))
