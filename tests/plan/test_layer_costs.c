/* Operators of a layer beside the sums over the tasks of whole steps. */
#include "test.h"

#include "plan/layer_costs.h"
#include "plan/cost.h"
#include "plan_job.h"
#include "train/rank_view.h"
#include "train/tiny_spec.h"

#include <stdio.h>

struct sums {
    double model_flops, flops, bytes, tp_bytes, cp_bytes, parameters;
};

/* One micro-batch of a rank of the real program; layers of the spec as they are. */
static struct sums sums_of_program(const struct model_spec *spec, const char *layout, i64 rows,
                                   i64 T)
{
    struct arena a;
    struct layout l = layout_single();
    struct train_config c;
    struct rank_view v;
    struct sums s = { 0 };
    arena_init(&a);
    option_set_defaults(train_options, &c, &a);
    c.train.batch = rows;
    c.train.seq = T;
    c.train.accumulate = 2;
    c.train.global_batch = 0;
    CHECK_OK(layout_parse(&l, layout, "test", &a));
    CHECK_OK(layout_check(&l, spec, layout_ranks(&l), rows, T, 2));
    CHECK_OK(rank_view_new(&v, &l, spec, &c, 0, &a));
    s.parameters = (double)v.parameters;
    for (i64 id = 0; id < v.step.program->n_tasks; id++) {
        const struct task *t = v.step.program->by_id[id];
        if (t->phase == PHASE_UPDATE || t->first_turn || t->last_turn)
            continue;
        if (t->lane == LANE_TP)
            s.tp_bytes += t->cost.message_bytes;
        if (t->lane == LANE_CP)
            s.cp_bytes += t->cost.message_bytes;
        if (t->lane != LANE_COMPUTE || t->op->waits)
            continue;
        s.model_flops += t->cost.model_flops;
        s.flops += t->cost.flops;
        s.bytes += t->cost.read_bytes + t->cost.written_bytes;
    }
    arena_fini(&a);
    return s;
}

static struct sums sums_of_pieces(const struct model_spec *spec, const struct plan_shape *shape)
{
    static struct plan_ops ops;
    struct sums s = { 0 };
    i64 sparse = spec_sparse_layers(spec);
    const i64 times[PLAN_PARTS] = { spec->layers - sparse, sparse, 1, 1 };
    CHECK_OK(plan_ops_new(&ops, spec, shape));
    for (int part = 0; part < PLAN_PARTS; part++) {
        const struct plan_piece_ops *p = &ops.pieces[part];
        double n = (double)times[part];
        for (int i = 0; i < p->n; i++) {
            s.model_flops += n * p->ops[i].model_flops;
            s.flops += n * p->ops[i].flops;
            s.bytes += n * p->ops[i].bytes;
        }
        s.tp_bytes += n * (p->tp[0].bytes + p->tp[1].bytes + p->heads[0].bytes + p->heads[1].bytes);
        s.cp_bytes += n * (p->cp[0].bytes + p->cp[1].bytes);
        s.parameters += n * (p->parameters + p->expert_parameters);
    }
    return s;
}

static void compare(const struct model_spec *spec, i64 tp, i64 cp, i64 rows, i64 T)
{
    char layout[64];
    struct plan_shape shape = { tp, cp, 1, rows, T, DTYPE_F32 };
    snprintf(layout, sizeof layout, "tp=%lld,cp=%lld", (long long)tp, (long long)cp);
    struct sums program = sums_of_program(spec, layout, rows, T);
    struct sums pieces = sums_of_pieces(spec, &shape);
    CHECK_NEAR(pieces.model_flops, program.model_flops, 0);
    CHECK_NEAR(pieces.flops, program.flops, 0);
    CHECK_NEAR(pieces.bytes, program.bytes, 0);
    CHECK_NEAR(pieces.tp_bytes, program.tp_bytes, 0);
    CHECK_NEAR(pieces.cp_bytes, program.cp_bytes, 0);
    CHECK_NEAR(pieces.parameters, program.parameters, 0);
}

static struct model_spec spec_of(bool gpt2, enum tiny_experts experts)
{
    struct model_spec spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = gpt2, .experts = experts });
    spec.heads = spec.kv_heads = 4;
    spec.layers = 5;
    spec.tied = false;
    spec.positions = 64;
    return spec;
}

TEST(pieces_sum_to_the_program_in_every_layout)
{
    const i64 degrees[][2] = { { 1, 1 }, { 2, 1 }, { 4, 1 }, { 1, 2 }, { 2, 2 }, { 1, 4 } };
    for (int gpt2 = 0; gpt2 < 2; gpt2++)
        for (i64 i = 0; i < COUNT_OF(degrees); i++)
            for (i64 rows = 1; rows <= 3; rows += 2) {
                struct model_spec spec = spec_of(gpt2, TINY_DENSE);
                compare(&spec, degrees[i][0], degrees[i][1], rows, 64);
            }
}

/* More ranks along tp than key-value heads: each projects a part of one, and neighbours put theirs
 * together. */
TEST(shared_heads_sum_too)
{
    const i64 cases[][3] = { { 2, 1, 1 }, { 4, 1, 1 }, { 4, 2, 1 }, { 4, 1, 2 }, { 4, 2, 2 }, { 2, 2, 1 } };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct model_spec spec = spec_of(false, TINY_DENSE);
        spec.kv_heads = cases[i][1];
        compare(&spec, cases[i][0], cases[i][2], 3, 64);
    }
}

TEST(a_rank_with_a_part_of_a_head_holds_and_sends_less_than_one_with_a_whole)
{
    static struct plan_ops whole, part;
    struct model_spec spec = spec_of(false, TINY_DENSE);
    struct plan_shape shape = { 4, 1, 1, 2, 64, DTYPE_F32 };
    const double rows = 2 * 64;
    CHECK_OK(plan_ops_new(&whole, &spec, &shape)); /* 4 key-value heads: one each */
    spec.kv_heads = 2;
    CHECK_OK(plan_ops_new(&part, &spec, &shape));
    const struct plan_piece_ops *w = &whole.pieces[PLAN_DENSE], *p = &part.pieces[PLAN_DENSE];
    double D = (double)spec.head_size;
    CHECK_NEAR(w->parameters - p->parameters, D * (double)spec.width, 0); /* keys and values, half of each */
    for (int i = 0; i < 2; i++) { /* each sends its D columns, there and back, to the other */
        CHECK_NEAR(p->tp[i].bytes, w->tp[i].bytes, 0);
        CHECK_NEAR(p->tp[i].calls, w->tp[i].calls, 0);
        CHECK_NEAR(p->heads[i].bytes, rows * D * 4, 0);
        CHECK(p->heads[i].calls > 0 && w->heads[i].calls == 0);
    }
}

/* Two of four ranks along tp have one key-value head: theirs are calls among two. */
TEST(what_neighbours_exchange_is_priced_among_them)
{
    static struct plan_ops ops;
    struct planned p;
    struct plan_table whole, part;
    const struct plan_layout l = { .tp = 4, .cp = 1, .pp = 1, .dp = 1, .ep = 1, .micro_batch = 1,
                                   .micro_batches = 4, .virtual_stages = 1,
                                   .sequence_parallel = true };
    open_planned(&p, "qwen2.5-1.5b", "h100-sxm-roce", 4, 4, 1024);
    p.spec.kv_heads = 4;
    CHECK_OK(plan_table_new(&whole, &p.job, &l, &p.arena));
    p.spec.kv_heads = 2;
    CHECK_OK(plan_table_new(&part, &p.job, &l, &p.arena));
    struct plan_shape shape = { 4, 1, 1, 1, 1024, DTYPE_BF16 };
    CHECK_OK(plan_ops_new(&ops, &p.spec, &shape));
    const struct plan_messages *m = ops.pieces[PLAN_DENSE].heads;
    double seen = 1 - p.stack.tp_overlap;
    const double start = p.family.collective_s;
    double there = m[0].calls * start +
                   plan_exchange_seconds(&p.job, 2, 1, m[0].half_bytes, m[0].calls);
    double back = m[1].calls * start +
                  plan_exchange_seconds(&p.job, 2, 1, m[1].half_bytes, m[1].calls);
    const struct plan_piece *x = &whole.pieces[PLAN_DENSE], *y = &part.pieces[PLAN_DENSE];
    CHECK(there > 0);
    CHECK_NEAR(y->tp_forward - x->tp_forward, seen * there, 1e-9 * there);
    CHECK_NEAR(y->tp_backward - x->tp_backward, seen * back, 1e-9 * back);
    arena_fini(&p.arena);
}

/* A layer has two sums each way; cut rows make a scatter and a gather of each. */
TEST(each_collective_takes_its_start)
{
    struct planned p;
    open_planned(&p, "qwen2.5-1.5b", "h100-sxm-roce", 2, 4, 1024);
    for (int cut = 0; cut < 2; cut++) {
        const struct plan_layout l = { .tp = 2, .cp = 1, .pp = 1, .dp = 1, .ep = 1,
                                       .micro_batch = 1, .micro_batches = 4,
                                       .virtual_stages = 1, .sequence_parallel = cut };
        struct plan_table slow, quick;
        p.family.collective_s = 3e-5;
        CHECK_OK(plan_table_new(&slow, &p.job, &l, &p.arena));
        p.family.collective_s = 1e-5;
        CHECK_OK(plan_table_new(&quick, &p.job, &l, &p.arena));
        const struct plan_piece *x = &slow.pieces[PLAN_DENSE], *y = &quick.pieces[PLAN_DENSE];
        double sums = cut ? 4 : 2;
        CHECK_NEAR(x->tp_forward - y->tp_forward, sums * 2e-5, 1e-12);
    }
    arena_fini(&p.arena);
}

/* The share of the peak that a family's products reach is not that of each of its devices. */
TEST(no_product_is_faster_than_the_best_that_was_measured)
{
    const struct plan_product large = { 16384, 16384, 16384, 1, 16384, 1.6e9, 2 };
    const double flops = 2 * 16384.0 * 16384 * 16384;
    struct planned p;
    open_planned(&p, "llama3-8b", "mi300x node:8", 8, 8, 1024);
    struct plan_device measured = p.machine.device, unknown = measured;
    unknown.reached[PLAN_BF16] = 0;
    double rate = flops / plan_product_seconds(&p.family, &measured, PLAN_BF16, &large);
    double hoped = flops / plan_product_seconds(&p.family, &unknown, PLAN_BF16, &large);
    CHECK(rate <= measured.reached[PLAN_BF16] && rate > 0.9 * measured.reached[PLAN_BF16]);
    p.family.seen_devices = 0; /* nothing was fitted */
    double unseen = flops / plan_product_seconds(&p.family, &measured, PLAN_BF16, &large);
    CHECK(unseen < 0.96 * rate && unseen > 0.94 * rate);
    p.family.seen_devices = 512;
    CHECK(hoped > 1.2 * measured.reached[PLAN_BF16]);
    arena_fini(&p.arena);
}

/* Ranks that links join share out all of their ports, however few of them a host has. */
TEST(hosts_within_a_domain_of_links_change_no_exchange)
{
    double seconds[2], sums[2];
    const char *const machines[] = { "gb200 node:72x900GB/s fabric:*x50GB/s",
                                     "gb200 node:72x900GB/s fabric:*x50GB/s host:4" };
    for (int i = 0; i < 2; i++) {
        struct planned p;
        open_planned(&p, "llama3-8b", machines[i], 576, 576, 1024);
        CHECK_EQ(p.machine.node_ranks, i ? 4 : 72);
        seconds[i] = plan_exchange_seconds(&p.job, 64, 2, 1e9, 63);
        sums[i] = plan_sum_seconds(&p.job, 288, 2, 1e9);
        arena_fini(&p.arena);
    }
    CHECK_NEAR(seconds[1], seconds[0], 1e-12);
    CHECK_NEAR(sums[1], sums[0], 1e-12);
}

/* What tp exchanges of a latent's gradients it does once a step, as of gains. */
TEST(latents_sum_too)
{
    const i64 q_ranks[] = { 24, 0 };
    for (i64 i = 0; i < COUNT_OF(q_ranks); i++)
        for (i64 tp = 1; tp <= 4; tp *= 2) {
            struct model_spec spec = tiny_spec_of(&(struct tiny_options){ .latent = true });
            spec.layers = 5;
            spec.positions = 64;
            spec.latent_q = q_ranks[i];
            compare(&spec, tp, 1, 3, 64);
            compare(&spec, tp, 2, 3, 64);
        }
}

TEST(sparse_layers_sum_too)
{
    for (int kind = TINY_MIXTRAL; kind <= TINY_CAPACITY; kind++) {
        struct model_spec spec = spec_of(false, (enum tiny_experts)kind);
        compare(&spec, 1, 1, 2, 64);
    }
}

/* Products of experts on one rank. */
static struct sums experts_of(const struct plan_ops *ops, i64 *experts)
{
    const struct plan_piece_ops *p = &ops->pieces[PLAN_SPARSE];
    struct sums s = { .parameters = p->expert_parameters };
    for (int i = 0; i < p->n; i++) {
        const struct plan_op *op = &p->ops[i];
        if (op->expert_bytes == 0)
            continue;
        *experts = op->batch;
        s.flops += op->flops;
        s.bytes += op->bytes;
        CHECK_NEAR(2.0 * (double)(op->batch * op->M * op->N * op->K), op->flops, 0);
        CHECK_NEAR(op->expert_bytes,
                   4.0 * (double)(op->batch * op->N * (op->phase == PHASE_WEIGHT_GRAD ? op->M : op->K)),
                   0);
    }
    return s;
}

TEST(ranks_that_share_experts_have_fewer_of_them_and_more_rows_of_each)
{
    static struct plan_ops one, shared;
    struct model_spec spec = spec_of(false, TINY_MIXTRAL);
    i64 all, here;
    struct plan_shape shape = { 1, 1, 1, 4, 64, DTYPE_F32 };
    CHECK_OK(plan_ops_new(&one, &spec, &shape));
    struct sums whole = experts_of(&one, &all);
    shape.ep = 2;
    CHECK_OK(plan_ops_new(&shared, &spec, &shape));
    struct sums half = experts_of(&shared, &here);
    CHECK_EQ(all, spec.experts);
    CHECK_EQ(2 * here, all);
    CHECK_NEAR(half.flops, whole.flops, 0);
    CHECK_NEAR(2 * half.parameters, whole.parameters, 0);
    /* Three matrices, read forward and for the input's gradient, and their gradients written. */
    CHECK_NEAR(whole.bytes - half.bytes, 4 * 3 * whole.parameters / 2, 0);
}

/* Two ranks along tp with whole experts of their own, of eight that share them out, compute what two
 * with halves of experts do, and nobody gathers rows for experts. */
TEST(ranks_along_tp_may_have_experts_of_their_own)
{
    static struct plan_ops cut, own, one;
    struct model_spec spec = spec_of(false, TINY_MIXTRAL);
    i64 here, mine, all;
    struct plan_shape shape = { 2, 1, 1, 4, 64, DTYPE_F32 };
    CHECK_OK(plan_ops_new(&cut, &spec, &shape));
    CHECK_OK(plan_ops_new(&own, &spec, &shape));
    shape.tp = 1;
    CHECK_OK(plan_ops_new(&one, &spec, &shape));
    struct sums whole = experts_of(&one, &all);
    plan_ops_share(&cut, 2, false);
    plan_ops_share(&own, 2, true);
    struct sums half = experts_of(&cut, &here), few = experts_of(&own, &mine);
    CHECK_EQ(here, all / 2);
    CHECK_EQ(mine, all / 2);
    CHECK_NEAR(few.flops, half.flops, 0);
    CHECK_NEAR(half.parameters, whole.parameters / 4, 0);
    CHECK_NEAR(few.parameters, whole.parameters / 2, 0);
    for (int i = 0; i < 2; i++)
        CHECK_NEAR(2 * own.pieces[PLAN_SPARSE].tp[i].bytes, cut.pieces[PLAN_SPARSE].tp[i].bytes, 0);
    for (int i = 0; i < own.pieces[PLAN_SPARSE].n; i++) { /* products have the sizes of whole experts */
        const struct plan_op *x = &own.pieces[PLAN_SPARSE].ops[i];
        if (x->expert_bytes > 0)
            CHECK_NEAR(2.0 * (double)x->batch * (double)x->M * (double)x->N * (double)x->K, x->flops,
                       0.02 * x->flops);
    }
}

TEST(ranks_that_share_rows_share_what_experts_compute)
{
    static struct plan_ops one, cut;
    struct model_spec spec = spec_of(false, TINY_MIXTRAL);
    i64 all, here;
    struct plan_shape shape = { 1, 1, 1, 2, 64, DTYPE_F32 };
    CHECK_OK(plan_ops_new(&one, &spec, &shape));
    shape.cp = 2;
    CHECK_OK(plan_ops_new(&cut, &spec, &shape));
    CHECK_NEAR(2 * experts_of(&cut, &here).flops, experts_of(&one, &all).flops, 0);
    CHECK_EQ(here, all);
    CHECK(cut.pieces[PLAN_SPARSE].cp[0].bytes > 0);
}

/* A pass that makes a task from another one must not keep what that one cost. */
TEST(a_cut_product_moves_its_operands_once)
{
    static struct plan_ops ops;
    struct model_spec spec = spec_of(false, TINY_DENSE);
    struct plan_shape shape = { 2, 1, 1, 2, 64, DTYPE_F32 };
    CHECK_OK(plan_ops_new(&ops, &spec, &shape));
    const struct plan_piece_ops *p = &ops.pieces[PLAN_DENSE];
    for (int i = 0; i < p->n; i++) {
        const struct plan_op *op = &p->ops[i];
        if (op->kind == PLAN_PRODUCT && op->phase == PHASE_FORWARD)
            CHECK_NEAR(op->bytes, 4 * (op->M * op->K + op->K * op->N + op->M * op->N), 0);
    }
}

/* tp gathers rows for the first product of attention and of the feed-forward part; their gradients'
 * sums are half of what goes back. */
TEST(gradients_of_products_of_gathered_rows_are_known)
{
    static struct plan_ops ops;
    struct model_spec spec = spec_of(true, TINY_DENSE);
    struct plan_shape shape = { 2, 1, 1, 2, 64, DTYPE_F32 };
    i64 weights = 0, inputs = 0;
    CHECK_OK(plan_ops_new(&ops, &spec, &shape));
    const struct plan_piece_ops *p = &ops.pieces[PLAN_DENSE];
    CHECK_NEAR(p->gathered.calls, 2, 0);
    CHECK_NEAR(p->summed.calls, 2, 0);
    CHECK_NEAR(2 * p->gathered.bytes, p->tp[0].bytes, 0);
    CHECK_NEAR(2 * p->summed.bytes, p->tp[1].bytes, 0);
    for (int i = 0; i < p->n; i++) {
        const struct plan_op *op = &p->ops[i];
        weights += op->of_gathered && op->phase == PHASE_WEIGHT_GRAD;
        inputs += op->of_gathered && op->phase == PHASE_INPUT_GRAD;
        if (op->of_gathered) /* gathered rows are whole, what products make of them is cut */
            CHECK_EQ(op->N, spec.width);
    }
    CHECK_EQ(weights, 2);
    CHECK_EQ(inputs, 2);
    shape.tp = 1;
    CHECK_OK(plan_ops_new(&ops, &spec, &shape));
    for (int i = 0; i < p->n; i++)
        CHECK(!p->ops[i].of_gathered);
}

/* How often the loss head is cut is our own trainer's affair: other software exchanges once. */
TEST(chunks_of_the_head_are_one_exchange)
{
    static struct plan_ops few, many;
    struct model_spec spec = spec_of(true, TINY_DENSE);
    spec.positions = 4096;
    struct plan_shape shape = { 2, 1, 1, 1, 1024, DTYPE_F32 };
    CHECK_OK(plan_ops_new(&few, &spec, &shape));
    shape.sequence = 4096;
    CHECK_OK(plan_ops_new(&many, &spec, &shape));
    for (int i = 0; i < 2; i++)
        CHECK_NEAR(many.pieces[PLAN_HEAD].tp[i].calls, few.pieces[PLAN_HEAD].tp[i].calls, 0);
    CHECK_NEAR(many.pieces[PLAN_HEAD].tp[1].bytes, 4 * few.pieces[PLAN_HEAD].tp[1].bytes, 1);
}

TEST_MAIN(ONE(a_cut_product_moves_its_operands_once),
          ONE(gradients_of_products_of_gathered_rows_are_known), ONE(chunks_of_the_head_are_one_exchange),
          ONE(pieces_sum_to_the_program_in_every_layout), ONE(shared_heads_sum_too),
          ONE(a_rank_with_a_part_of_a_head_holds_and_sends_less_than_one_with_a_whole),
          ONE(what_neighbours_exchange_is_priced_among_them),
          ONE(each_collective_takes_its_start),
          ONE(no_product_is_faster_than_the_best_that_was_measured),
          ONE(hosts_within_a_domain_of_links_change_no_exchange), ONE(latents_sum_too), ONE(sparse_layers_sum_too),
          ONE(ranks_that_share_experts_have_fewer_of_them_and_more_rows_of_each),
          ONE(ranks_along_tp_may_have_experts_of_their_own),
          ONE(ranks_that_share_rows_share_what_experts_compute))
