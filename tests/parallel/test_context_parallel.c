/* Context-parallel steps beside those of one rank; what ranks compute and send. */
#include "test.h"

#include "parallel/ranks.h"
#include "support/byte_formulas.h"

#include <stdlib.h>

/* Sums in another order: of the loss by less than 1e-6 in f32, of weights after three steps of
 * Adam (which divides by small second moments) by less than 2e-3, as for other layouts. */
static const double loss_bound = 1e-6, weight_bound = 2e-3;

static struct ranks_options options_of(const char *layout, bool gpt2)
{
    struct ranks_options o = { .layout = layout };
    o.tiny = (struct tiny_options){ .threads = 1, .micro_batches = 2, .B = 4, .gpt2 = gpt2,
                                    .backend = backend_best() };
    return o;
}

static void expect_like_one(const struct ranks_options *o)
{
    expect_as_one(o, loss_bound, weight_bound);
}

TEST(ranks_that_share_rows_train_like_one)
{
    static const struct { const char *layout; bool gpt2; i64 heads, window; } cases[] = {
        { "cp=2", true, 0, 0 },
        { "cp=4", false, 0, 0 },
        { "cp=8", true, 0, 0 },
        { "cp=2", false, 0, 5 },
        { "cp=4", false, 0, 13 },
        { "cp=2,cp_kind=ulysses", false, 0, 0 },
        { "cp=4,cp_kind=ulysses", true, 0, 0 },
        { "cp=8,cp_kind=ulysses", true, 8, 0 },
        { "cp=2,cp_kind=ulysses", false, 0, 7 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options_of(cases[i].layout, cases[i].gpt2);
        o.heads = cases[i].heads;
        o.window = cases[i].window;
        expect_like_one(&o);
    }
}

TEST(rows_are_shared_together_with_everything_else)
{
    static const struct { const char *layout; bool gpt2; enum recompute recompute; } cases[] = {
        { "cp=2,dp=2", true, RECOMPUTE_NONE },
        { "cp=2,dp=2,zero=1", false, RECOMPUTE_SELECTIVE },
        { "cp=4,zero=1", true, RECOMPUTE_FULL },
        { "cp=2,tp=2", true, RECOMPUTE_NONE },
        { "cp=4,tp=2", false, RECOMPUTE_SELECTIVE },
        { "cp=2,dp=2,zero=3", true, RECOMPUTE_SELECTIVE },
        { "cp=4,zero=2", false, RECOMPUTE_NONE },
        { "cp=2,tp=2,dp=2,zero=1", false, RECOMPUTE_FULL },
        { "cp=2,cp_kind=ulysses,dp=2,zero=1", false, RECOMPUTE_FULL },
        { "cp=2,cp_kind=ulysses,tp=2", true, RECOMPUTE_SELECTIVE },
        { "pp=2,cp=2", true, RECOMPUTE_NONE },
        { "pp=2,cp=2,dp=2,zero=1", false, RECOMPUTE_SELECTIVE },
        { "pp=2,cp=2,cp_kind=ulysses", true, RECOMPUTE_FULL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options_of(cases[i].layout, cases[i].gpt2);
        o.tiny.recompute = cases[i].recompute;
        expect_like_one(&o);
    }
}

TEST(half_precision_ranks_stay_near_one)
{
    expect_close("cp=4", false, true, 1e-2, 2e-2);
    expect_close("cp=2,cp_kind=ulysses,dp=2", false, true, 1e-2, 2e-2);
}

/* --- faults ------------------------------------------------------------------------- */

static void each_of(struct program *p, const struct op_info *op, void (*alter)(struct task *t))
{
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->op == op)
            alter(p->by_id[id]);
}

static void take_lower_part(struct task *t)
{
    t->attr[BLOCK_KEYS] = i64_max(0, (i64)t->attr[BLOCK_KEYS] - 1);
}

static void wrong_part(struct program *p)
{
    each_of(p, &op_attention_block, take_lower_part);
}

static void wrong_part_in_gradient(struct program *p)
{
    each_of(p, &op_attention_block_grad, take_lower_part);
}

static void forget_seen(struct task *t)
{
    t->in[3] = t->in[4] = NULL;
}

static void no_merge(struct program *p)
{
    each_of(p, &op_attention_block, forget_seen);
}

static void forget_sum(struct task *t)
{
    t->in[6] = NULL;
}

static void no_sum_of_dq(struct program *p)
{
    each_of(p, &op_attention_block_grad, forget_sum);
}

static struct tensor *own_keys; /* of the ring that is being altered */

static void keep_own_keys(struct task *t)
{
    if (t->attr[BLOCK_KEYS] == t->attr[BLOCK_QUERIES])
        own_keys = t->in[1];
    t->in[1] = own_keys;
}

static void no_shift(struct program *p)
{
    each_of(p, &op_attention_block, keep_own_keys);
}

static void turn_around(struct task *t)
{
    t->attr[RING_STEP] = -t->attr[RING_STEP];
}

static void other_direction(struct program *p)
{
    each_of(p, &op_ring_shift, turn_around);
}

/* What arrives is not added to the own gradient of the keys. */
static void forget_arrived(struct program *p)
{
    for (i64 id = 1; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        for (i64 by = 0; t->op == &op_add && by < id; by++)
            if (p->by_id[by]->op == &op_ring_shift && p->by_id[by]->out[0] == t->in[1])
                t->in[1] = t->in[0];
    }
}

static void begin_at_row(struct task *t)
{
    struct tensor *copy = malloc(sizeof *copy);
    *copy = *t->in[2];
    copy->data = calloc((size_t)tensor_count(copy), sizeof(i32)); /* kept to the process's end */
    copy->index = -1;
    t->in[2] = copy;
}

static void documents_run_together(struct program *p)
{
    each_of(p, &op_attention_block, begin_at_row);
}

static void ignore_window(struct task *t)
{
    t->attr[ATTENTION_WINDOW] = 0;
}

static void no_window(struct program *p)
{
    each_of(p, &op_attention_block_grad, ignore_window);
}

static void keep_parts(struct task *t)
{
    t->attr[ORDER_PARTS] = 1;
}

static void parts_are_rows(struct program *p)
{
    each_of(p, &op_order_rows, keep_parts);
}

static void no_order_of_heads(struct program *p)
{
    i64 nth = 0;
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->op == &op_spread_heads && nth++ == 0) {
            p->by_id[id]->attr[SPREAD_H] += 2 * p->by_id[id]->attr[SPREAD_G];
            p->by_id[id]->attr[SPREAD_G] = 0;
        }
}

TEST(planted_faults_are_seen)
{
    static const struct { const char *name, *layout; void (*plant)(struct program *); } faults[] = {
        { "keys are taken for another part's", "cp=2", wrong_part },
        { "in the gradient, too", "cp=4", wrong_part_in_gradient },
        { "a block forgets what was seen", "cp=4", no_merge },
        { "dq is of the last block only", "cp=2", no_sum_of_dq },
        { "keys do not go around", "cp=2", no_shift },
        { "the ring turns the other way", "cp=4", other_direction },
        { "arriving gradients are dropped", "cp=4", forget_arrived },
        { "documents see each other", "cp=2", documents_run_together },
        { "the gradient ignores the window", "cp=2", no_window },
        { "parts are taken for rows", "cp=2,cp_kind=ulysses", parts_are_rows },
        { "keys are dealt out as queries", "cp=2,cp_kind=ulysses", no_order_of_heads },
    };
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct ranks_options o = options_of(faults[i].layout, false);
        o.window = faults[i].plant == no_window ? 7 : 0;
        expect_like_one(&o);
        o.plant = faults[i].plant;
        if (!ranks_difference(&o, loss_bound, weight_bound))
            fail_msg("%s: nothing differs when %s", faults[i].layout, faults[i].name);
    }
}

/* --- what is computed and sent ------------------------------------------------------ */

/* One rank's tasks of one micro-batch. */
static struct cost sum_costs(const struct rank *k, enum phase phase, bool attention, bool again)
{
    struct cost sum = { 0 };
    const struct program *p = k->step.program;
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *t = p->by_id[id];
        bool block = t->op == &op_attention || t->op == &op_attention_grad ||
                     t->op == &op_attention_block || t->op == &op_attention_block_grad;
        if (t->phase != phase || t->recompute != again || (attention ? !block : t->lane != LANE_CP))
            continue;
        if (!attention && t->op == &op_all_gather)
            continue; /* begin, counted apart */
        sum.model_flops += t->cost.model_flops;
        sum.message_bytes += t->cost.message_bytes;
    }
    return sum;
}

TEST(ranks_have_equally_much_to_compute)
{
    static const char *const layouts[] = { "cp=2", "cp=8", "cp=4,cp_kind=ulysses" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct ranks one, many;
        struct ranks_options o = options_of("dp=1", true);
        ranks_open(&one, &o);
        o.layout = layouts[i];
        ranks_open(&many, &o);
        for (int r = 0; r < many.n; r++)
            for (int phase = PHASE_FORWARD; phase <= PHASE_INPUT_GRAD; phase++) {
                enum phase f = (enum phase)phase;
                double whole = sum_costs(&one.rank[0], f, true, false).model_flops;
                double part = sum_costs(&many.rank[r], f, true, false).model_flops;
                CHECK(whole > 0 && part * many.n == whole);
            }
        ranks_close(&one);
        ranks_close(&many);
    }
}

/* A rank's tasks against the formula, pass by pass; whole steps are test_bytes.c's. */
TEST(each_pass_sends_what_the_formula_says)
{
    static const struct { const char *layout; bool half; enum recompute recompute; } cases[] = {
        { "cp=2", false, RECOMPUTE_NONE },
        { "cp=8", true, RECOMPUTE_NONE },
        { "cp=4,dp=2", true, RECOMPUTE_SELECTIVE },
        { "cp=4,tp=2", false, RECOMPUTE_FULL },
        { "cp=4,cp_kind=ulysses", false, RECOMPUTE_NONE },
        { "cp=2,cp_kind=ulysses,tp=2", true, RECOMPUTE_FULL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks all;
        struct ranks_options o = options_of(cases[i].layout, true);
        o.tiny.bf16 = cases[i].half;
        o.tiny.recompute = cases[i].recompute;
        ranks_open(&all, &o);
        for (int r = 0; r < all.n; r++) {
            const struct rank *k = &all.rank[r];
            const struct byte_case x = { .m = k->model, .mesh = &k->mesh, .B = k->rows.B,
                                         .T = RANK_T, .micro_batches = k->rows.micro_batches,
                                         .recompute = o.tiny.recompute };
            const struct context_bytes want = bytes_of_attention(&x);
            CHECK(sum_costs(k, PHASE_FORWARD, false, false).message_bytes == (double)want.forward);
            CHECK(sum_costs(k, PHASE_INPUT_GRAD, false, true).message_bytes == (double)want.again);
            CHECK(sum_costs(k, PHASE_INPUT_GRAD, false, false).message_bytes ==
                  (double)want.backward);
        }
        ranks_close(&all);
    }
}

/* --- what does not fit -------------------------------------------------------------- */

TEST(layouts_that_do_not_fit_are_refused_with_one_that_does)
{
    static const struct { const char *layout, *says; i64 T; } cases[] = {
        { "cp=3", "cp=2 and cp=4 do, or choose train.seq 36", 32 },
        { "cp=8,tp=4", "cp=4 does, or choose train.seq 32", 16 },
        { "cp=4,cp_kind=ulysses", "cp=2 does, or choose cp_kind=ring", 32 },
        { "cp=3,tp=2,cp_kind=ulysses", "; cp=2 does, or choose cp_kind=ring", 32 },
        { "cp=2,exact=on", "cp=2 is exact only where", 32 },
    };
    struct model_spec spec = tiny_spec(false);
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct layout l = layout_single();
        arena_init(&a);
        CHECK_OK(layout_parse(&l, cases[i].layout, "test", &a));
        i64 heads = spec.kv_heads;
        spec.kv_heads = l.tp > 1 ? spec.heads : heads;
        CHECK_FAILS(layout_check(&l, &spec, layout_ranks(&l), 4, cases[i].T, 1), ERR_CONFIG,
                    cases[i].says);
        spec.kv_heads = heads;
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(ranks_that_share_rows_train_like_one),
          ONE(rows_are_shared_together_with_everything_else),
          ONE(half_precision_ranks_stay_near_one), ONE(planted_faults_are_seen),
          ONE(ranks_have_equally_much_to_compute), ONE(each_pass_sends_what_the_formula_says),
          ONE(layouts_that_do_not_fit_are_refused_with_one_that_does))
