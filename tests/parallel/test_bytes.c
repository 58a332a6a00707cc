/* Three counts of what each rank sends in a step along each axis, which must agree to the byte: the
 * tasks of its program, what the transport moved, and formulas that know neither
 * (support/byte_formulas.h). */
#include "parallel/ranks.h"
#include "support/byte_formulas.h"
#include "test.h"

#include <stdio.h>

static const char *const axis_of[LANE_COUNT] = {
    [LANE_TP] = "tp", [LANE_CP] = "cp", [LANE_DP] = "dp", [LANE_PP] = "pp", [LANE_TIE] = "tie",
    [LANE_SHARD] = "shard", [LANE_COPIES] = "copies", [LANE_EP] = "ep", [LANE_EDP] = "edp",
    [LANE_ISLAND] = "islands",
};

/* --- counts ------------------------------------------------------------------------- */

static struct lane_bytes of_tasks(const struct program *p)
{
    struct lane_bytes c = { { 0 } };
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        for (i64 i = 0; i < s->n_tasks; i++)
            if (!s->tasks[i].last_turn || p->actions[a].micro_batch == p->micro_batches - 1)
                c.sent[s->tasks[i].lane] += (i64)s->tasks[i].cost.message_bytes;
    }
    return c;
}

static struct lane_bytes of_transport(const struct rank *k)
{
    struct lane_bytes c = { { 0 } };
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (axis_of[lane])
            c.sent[lane] = comm_axis_count(k->mesh.comm, axis_of[lane]).sent_bytes;
    return c;
}

static struct byte_case case_of(const struct rank *k, const struct ranks_options *o)
{
    return (struct byte_case){ .m = k->model, .mesh = &k->mesh, .B = k->rows.B, .T = RANK_T,
                               .micro_batches = k->rows.micro_batches,
                               .recompute = o->tiny.recompute };
}

/* --- comparing ---------------------------------------------------------------------- */

/* What the transport moved between two counts, what the program has, what the formulas say; of a
 * rank. */
static void expect_three(const char *layout, const struct rank *k, const struct lane_bytes *before,
                         const struct lane_bytes *after, const struct lane_bytes *tasks,
                         const struct lane_bytes *formula)
{
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        const i64 moved = after->sent[lane] - before->sent[lane];
        if (!axis_of[lane] || (moved == tasks->sent[lane] && moved == formula->sent[lane]))
            continue;
        fail_msg("%s, %s, rank %lld: the transport sends %lld bytes, the program has %lld, the "
                 "formula %lld", layout, axis_of[lane], (long long)k->mesh.rank, (long long)moved,
                 (long long)tasks->sent[lane], (long long)formula->sent[lane]);
    }
}

/* --- what routers chose ------------------------------------------------------------- */

/* Rows that go to other ranks and come from them, of all layers and micro-batches, and the rank. */
struct routed {
    i64 index, leave, come;
};

static struct kernel arrival;

static void count_arrivals(const struct task *t, struct run *x)
{
    struct routed *c = x->context;
    const i64 n = (i64)t->attr[ARRIVAL_RANKS];
    struct run plain = *x;
    plain.context = arrival.context;
    arrival.run(t, &plain);
    const i32 *traffic = t->out[3]->data;
    for (i64 i = 0; i < n; i++)
        if (i != c->index && !t->recompute) {
            c->leave += traffic[i];
            c->come += traffic[n + i];
        }
}

static struct routed *watch_routers(struct ranks *all)
{
    struct routed *routed = ARENA_ARRAY(&all->rank[0].arena, struct routed, all->n);
    for (int r = 0; r < all->n; r++) {
        struct backend *b = &all->rank[r].engine.backend;
        struct kernel counting = arrival = *backend_kernel(b, &op_expert_arrival);
        counting.run = count_arrivals;
        counting.context = &routed[r];
        routed[r].index = mesh_coordinate(&all->rank[r].mesh, LANE_EP);
        backend_set(b, &op_expert_arrival, counting);
    }
    return routed;
}

/* --- a step ------------------------------------------------------------------------- */

/* uneven: loads are as routers chose, not those of tokens that choose every expert. */
static void expect_step(const struct ranks_options *o, bool uneven)
{
    struct ranks all;
    bool sends = false, differ = false;
    ranks_open(&all, o);
    struct lane_bytes *before = ARENA_ARRAY(&all.rank[0].arena, struct lane_bytes, all.n);
    struct routed *routed = uneven ? watch_routers(&all) : NULL;
    for (int r = 0; r < all.n; r++)
        before[r] = of_transport(&all.rank[r]);
    ranks_step(&all, 0);
    for (int r = 0; r < all.n; r++) {
        const struct rank *k = &all.rank[r];
        struct byte_case x = case_of(k, o);
        if (uneven) {
            x.routed = true;
            x.leave = routed[r].leave;
            x.come = routed[r].come;
            differ = differ || x.leave != x.come;
        }
        const struct lane_bytes after = of_transport(k), formula = bytes_of_step(&x);
        struct lane_bytes tasks = of_tasks(k->step.program);
        if (uneven) /* which only the routers know */
            tasks.sent[LANE_EP] = formula.sent[LANE_EP];
        expect_three(o->layout, k, &before[r], &after, &tasks, &formula);
        for (int lane = 0; lane < LANE_COUNT; lane++)
            sends = sends || formula.sent[lane] > 0;
    }
    CHECK(sends && differ == uneven);
    ranks_close(&all);
}

/* Micro-batches: two, or in a pipeline several for each rank, and a power of two of rows where sums
 * have an order. With experts over ranks tokens choose all of them, so that loads are even. */
static struct ranks_options options_of(const char *layout, bool gpt2, bool half)
{
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 2, .B = 4, .gpt2 = gpt2,
                                         .bf16 = half, .backend = backend_best() },
                               .layout = layout };
    if ((strstr(layout, "pp=") && !strstr(layout, "zero=1")) || strstr(layout, "exact"))
        o.tiny.micro_batches = 8;
    if (strstr(layout, "dp=3") || strstr(layout, "dp=6"))
        o.tiny.B = 6;
    if (strstr(layout, "schedule="))
        o.layers = 8; /* several stages a rank */
    if (strstr(layout, "ep=")) {
        o.tiny.experts = TINY_MIXTRAL;
        o.choices = 8;
    }
    return o;
}

static void expect_counts(const char *layout, bool gpt2, bool half)
{
    const struct ranks_options o = options_of(layout, gpt2, half);
    expect_step(&o, false);
}

static void expect_counts_of(const char *layout, bool gpt2, bool half, int optimizer)
{
    struct ranks_options o = options_of(layout, gpt2, half);
    o.tiny.optimizer = optimizer;
    expect_step(&o, false);
}

static void expect_counts_with(const char *layout, bool half, enum tiny_experts experts)
{
    struct ranks_options o = options_of(layout, false, half);
    o.tiny.experts = experts;
    expect_step(&o, false);
}

static void expect_counts_again(const char *layout, bool half, enum tiny_experts experts,
                                enum recompute recompute)
{
    struct ranks_options o = options_of(layout, experts == TINY_DENSE && half, half);
    o.tiny.experts = experts;
    o.tiny.recompute = recompute;
    expect_step(&o, false);
}

/* --- layouts ------------------------------------------------------------------------ */

TEST(data_parallel_ranks_send_what_the_formula_says)
{
    expect_counts("dp=2", true, false);
    expect_counts("dp=4", false, true);
    expect_counts("dp=2,zero=1", true, true);
    expect_counts("dp=4,zero=1", false, false);
    expect_counts("dp=4,zero=2", true, false);
    expect_counts("dp=2,zero=3", false, true);
    expect_counts("dp=4,zero=3", true, false);
    expect_counts("dp=2,zero=2,exact=true", false, false);
    expect_counts("dp=4,zero=3,exact=true", false, true);
}

TEST(groups_that_are_copies_send_what_the_formula_says)
{
    expect_counts("dp=4,zero=1,zero_group=2", true, true);
    expect_counts("dp=8,zero=2,zero_group=2", false, false);
    expect_counts("dp=4,zero=3,zero_group=2", false, true);
    expect_counts("pp=2,dp=4,zero=3,zero_group=2,exact=true", true, false);
    expect_counts("pp=2,dp=4,tp=2,zero=1,zero_group=2", true, false);
    expect_counts_of("dp=4,tp=2,zero=2,zero_group=2", true, false, OPTIMIZER_MUON);
}

TEST(tensor_parallel_ranks_send_what_the_formula_says)
{
    expect_counts("tp=2", true, false);
    expect_counts("tp=2", false, true);
    expect_counts("tp=4", true, true);
    expect_counts("dp=2,tp=2,zero=1", true, false);
    expect_counts("tp=4", false, false); /* two ranks share a key-value head */
    expect_counts("dp=2,tp=4,zero=1", false, true);
    expect_counts("pp=2,tp=4", false, false);
}

TEST(stages_send_what_the_formula_says)
{
    expect_counts("pp=2", true, false);
    expect_counts("pp=3", false, true);
    expect_counts("pp=2,dp=2", true, false);
    expect_counts("pp=2,tp=2", false, false);
    expect_counts("pp=2,dp=2,tp=2,zero=1", true, true);
    expect_counts("pp=2,dp=2,zero=2", false, true);
    expect_counts("pp=2,dp=2,zero=3", false, false);
    expect_counts("pp=3,dp=2,zero=3", true, true);
    expect_counts("pp=2,dp=4,zero=3,zero_group=2", true, false);
    expect_counts("pp=2,schedule=gpipe", true, true);
    expect_counts("pp=4,schedule=interleaved", true, false);
    expect_counts("pp=2,dp=2,schedule=interleaved,chunks=3", false, true);
    expect_counts("pp=2,tp=2,schedule=zb-h1", true, false);
    expect_counts("pp=3,schedule=zb-v", true, false);
    expect_counts("pp=2,dp=2,tp=2,schedule=zb-v", true, true);
    expect_counts("pp=2,dp=2,zero=2,schedule=zb-v", true, false);
    expect_counts("pp=4,dp=2,zero=1,schedule=zb-v", false, false);
    expect_counts("pp=4,tp=4,schedule=interleaved", false, false);
}

TEST(muon_sends_what_the_formula_says)
{
    expect_counts_of("dp=4", true, true, OPTIMIZER_MUON);
    expect_counts_of("dp=4,zero=1", true, false, OPTIMIZER_MUON);
    expect_counts_of("dp=2,tp=2", false, true, OPTIMIZER_MUON);
    expect_counts_of("dp=2,tp=2,zero=1", true, false, OPTIMIZER_MUON);
    expect_counts_of("pp=2,dp=2,tp=2,zero=1", true, true, OPTIMIZER_MUON);
    expect_counts_of("dp=3,tp=2,zero=1", true, false, OPTIMIZER_MUON);
    expect_counts_of("dp=2,tp=4,zero=3", false, true, OPTIMIZER_MUON);
    expect_counts_of("dp=4,ep=2,tp=2,zero=1", false, false, OPTIMIZER_MUON);
    expect_counts_of("dp=4,ep=4,tp=2,zero=2", false, true, OPTIMIZER_MUON);
}

TEST(ranks_with_other_experts_send_what_the_formula_says)
{
    expect_counts("dp=2,ep=2", false, false);
    expect_counts("dp=4,ep=4", false, true);
    expect_counts("dp=4,ep=2", false, false);
    expect_counts("dp=8,ep=2,zero=1", false, true);
    expect_counts("dp=4,ep=4,zero=1", false, false);
    expect_counts("dp=4,ep=2,zero=2", false, false);
    expect_counts("dp=4,ep=2,zero=3", false, true);
}

TEST(groups_that_share_experts_send_what_the_formula_says)
{
    expect_counts("dp=8,ep=2,zero=1,zero_group=4", false, false);
    expect_counts("dp=4,ep=2,zero=1,zero_group=2", false, true);
    expect_counts("dp=8,ep=2,zero=2,zero_group=4", false, true);
    expect_counts("dp=8,ep=2,zero=3,zero_group=4", false, false);
    expect_counts("dp=8,ep=4,zero=3,zero_group=4", false, true); /* experts are whole in a group */
}

TEST(experts_that_tp_cuts_send_what_the_formula_says)
{
    expect_counts_with("tp=2", false, TINY_MIXTRAL);
    expect_counts_with("tp=2", true, TINY_DEEPSEEK);
    expect_counts_with("dp=2,ep=2,tp=2", true, TINY_MIXTRAL);
    expect_counts_with("dp=4,ep=2,tp=2,zero=1", false, TINY_DEEPSEEK);
    expect_counts_with("tp=2", true, TINY_CAPACITY);
    expect_counts_with("pp=2,tp=2", false, TINY_DEEPSEEK);
}

/* What a router chose: each row goes there and back, and so do the gradients of both ways. */
static void expect_routed_counts(const char *layout, bool half, enum tiny_experts experts)
{
    struct ranks_options o = options_of(layout, false, half);
    o.tiny.experts = experts;
    o.choices = 0;
    expect_step(&o, true);
}

TEST(uneven_loads_send_what_was_routed)
{
    expect_routed_counts("dp=2,ep=2", false, TINY_MIXTRAL);
    expect_routed_counts("dp=4,ep=4,zero=1", true, TINY_DEEPSEEK);
    expect_routed_counts("dp=4,ep=2,zero=3", false, TINY_MIXTRAL);
    expect_routed_counts("dp=2,ep=2,tp=2", true, TINY_DEEPSEEK);
    expect_routed_counts("cp=2,dp=2,ep=4", false, TINY_MIXTRAL);
    expect_routed_counts("pp=2,dp=2,ep=2", false, TINY_MIXTRAL);
    expect_routed_counts("pp=2,dp=2,ep=2,exact=true", false, TINY_DEEPSEEK);
    expect_routed_counts("dp=2,cp=2,ep=4,exact=true,exact_context=true", false, TINY_CAPACITY);
}

TEST(parts_of_rows_send_what_the_formula_says)
{
    expect_counts("cp=2", true, false);
    expect_counts("cp=8", true, true);
    expect_counts("cp=4,dp=2", true, true);
    expect_counts("cp=4,tp=2", false, false);
    expect_counts("cp=2,tp=4", false, false);
    expect_counts("cp=2,dp=3,zero=1", true, false);
    expect_counts("cp=2,dp=2,zero=3", false, true);
    expect_counts("cp=2,dp=2,zero=2,zero_group=2", true, false);
    expect_counts("pp=2,cp=2", true, false);
    expect_counts("cp=4,cp_kind=ulysses", true, false);
    expect_counts("cp=2,cp_kind=ulysses,tp=2", true, true);
    expect_counts("pp=2,cp=2,cp_kind=ulysses", true, false);
    expect_counts("pp=2,cp=2,cp_kind=ulysses,schedule=zb-v", true, true);
}

/* Routers sum what they did over a row's parts, or with a capacity know all that its tokens chose.
 */
TEST(routers_of_parts_of_rows_send_what_the_formula_says)
{
    expect_counts_with("cp=2", false, TINY_MIXTRAL);
    expect_counts_with("cp=4,dp=2", true, TINY_DEEPSEEK);
    expect_counts_with("cp=2", false, TINY_CAPACITY);
    expect_counts_with("cp=8", true, TINY_CAPACITY);
    expect_counts_with("cp=2,tp=2", false, TINY_DEEPSEEK);
    expect_counts_with("pp=2,cp=2", false, TINY_DEEPSEEK);
    expect_counts_with("cp=2,tp=2", false, TINY_CAPACITY);
}

/* Keys and values of whole rows are gathered, and each row's gradient is summed over cp. */
TEST(exact_ranks_send_what_the_formula_says)
{
    expect_counts("dp=2,zero=1,exact=true", true, false);
    expect_counts("dp=2,zero=2,exact=true", true, false);
    expect_counts("tp=2,exact=true", true, false);
    expect_counts("tp=4,exact=true", false, true);
    expect_counts("pp=2,dp=2,tp=2,zero=1,exact=true", true, true);
    expect_counts("cp=2,exact=true,exact_context=true", true, false);
    expect_counts("cp=2,exact=true,exact_context=true", false, true);
    expect_counts("cp=4,dp=2,zero=1,exact=true,exact_context=true", false, false);
    expect_counts("cp=2,dp=2,zero=2,exact=true,exact_context=true", true, false);
    expect_counts("cp=2,dp=2,zero=3,exact=true,exact_context=true", false, false);
    expect_counts("cp=2,tp=2,exact=true,exact_context=true", false, true);
    expect_counts("cp=2,pp=2,exact=true,exact_context=true", true, false);
    expect_counts("cp=4,cp_kind=ulysses,exact=true,exact_context=true", true, false);
    expect_counts_with("cp=2,exact=true,exact_context=true", false, TINY_DEEPSEEK);
}

TEST(exact_experts_send_what_the_formula_says)
{
    expect_counts("dp=2,ep=2,exact=true", false, false);
    expect_counts_with("dp=4,ep=2,zero=1,exact=true", true, TINY_DEEPSEEK);
    expect_counts("dp=4,ep=2,zero=2,exact=true", false, false);
    expect_counts("dp=4,ep=2,tp=2,zero=3,exact=true", false, true);
    expect_counts("dp=8,ep=2,zero=1,zero_group=4,exact=true", false, false);
    expect_counts("dp=8,ep=4,zero=3,zero_group=4,exact=true", false, false);
    expect_counts("cp=4,ep=2,exact=true,exact_context=true", false, false);
    expect_counts("cp=2,ep=2,exact=true,exact_context=true", false, false);
    expect_counts_with("dp=2,cp=2,ep=4,exact=true,exact_context=true", false, TINY_DEEPSEEK);
    expect_counts("dp=2,cp=2,ep=4,zero=1,exact=true,exact_context=true", false, false);
    expect_counts("dp=2,cp=4,ep=2,zero=1,exact=true,exact_context=true", false, false);
    expect_counts("dp=4,cp=2,ep=4,zero=2,exact=true,exact_context=true", false, true);
}

/* What backward reads of a layer is made again, exchanges included. */
TEST(recomputed_layers_send_what_the_formula_says)
{
    expect_counts_again("cp=2", false, TINY_DENSE, RECOMPUTE_SELECTIVE);
    expect_counts_again("cp=4,tp=2", true, TINY_DENSE, RECOMPUTE_FULL);
    expect_counts_again("cp=2,cp_kind=ulysses,tp=2", true, TINY_DENSE, RECOMPUTE_FULL);
    expect_counts_again("cp=2,cp_kind=ulysses,dp=2", false, TINY_DENSE, RECOMPUTE_SELECTIVE);
    expect_counts_again("tp=4", false, TINY_DENSE, RECOMPUTE_FULL);
    expect_counts_again("tp=2", true, TINY_DENSE, RECOMPUTE_SELECTIVE);
    expect_counts_again("tp=2", false, TINY_DEEPSEEK, RECOMPUTE_FULL);
    expect_counts_again("dp=2,zero=3", false, TINY_DENSE, RECOMPUTE_FULL);
    expect_counts_again("dp=2,ep=2", false, TINY_MIXTRAL, RECOMPUTE_FULL);
    expect_counts_again("pp=2,cp=2,tp=2", true, TINY_DENSE, RECOMPUTE_FULL);
    expect_counts_again("cp=2,exact=true,exact_context=true", true, TINY_DENSE,
                        RECOMPUTE_SELECTIVE);
    expect_counts_again("cp=2,tp=2,exact=true,exact_context=true", false, TINY_MIXTRAL,
                        RECOMPUTE_FULL);
}

/* Gradients that their number of ranks does not divide: parts differ. */
TEST(parts_that_differ_are_counted)
{
    expect_counts("dp=3", true, false);
    expect_counts("dp=6", false, true);
    expect_counts("dp=3,zero=1", true, true);
    expect_counts("dp=6,zero=2,zero_group=2", false, false);
    expect_counts("dp=3,bucket=1000", true, false);
    expect_counts("dp=4,bucket=5000", false, false);
    expect_counts("dp=2,tp=2,zero=1,bucket=128", true, false);
}

/* --- outer steps -------------------------------------------------------------------- */

/* Islands exchange nothing in a step, and in an outer step what each has of the state. */
static void expect_island_counts(const char *layout, bool gpt2)
{
    struct ranks all;
    struct ranks_options o = options_of(layout, gpt2, false);
    o.outer_lr = 0.7;
    o.outer_momentum = 0.9;
    ranks_open(&all, &o);
    struct lane_bytes *before = ARENA_ARRAY(&all.rank[0].arena, struct lane_bytes, all.n);
    for (int r = 0; r < all.n; r++) {
        before[r] = of_transport(&all.rank[r]);
        CHECK(of_tasks(all.rank[r].step.program).sent[LANE_ISLAND] == 0);
    }
    ranks_step(&all, 0);
    for (int r = 0; r < all.n; r++) {
        const struct rank *k = &all.rank[r];
        const struct byte_case x = case_of(k, &o);
        const struct lane_bytes after = of_transport(k), tasks = of_tasks(k->step.program);
        const struct lane_bytes formula = bytes_of_step(&x);
        expect_three(layout, k, &before[r], &after, &tasks, &formula);
        before[r] = after;
    }
    CHECK_OK(ranks_run(&all, 0, true));
    for (int r = 0; r < all.n; r++) {
        const struct rank *k = &all.rank[r];
        const struct byte_case x = case_of(k, &o);
        const struct lane_bytes after = of_transport(k), tasks = of_tasks(k->outer.program);
        const struct lane_bytes formula = bytes_of_outer_step(&x);
        expect_three(layout, k, &before[r], &after, &tasks, &formula);
        CHECK(formula.sent[LANE_ISLAND] > 0);
    }
    ranks_close(&all);
}

TEST(islands_send_what_the_formula_says)
{
    expect_island_counts("islands=2", true);
    expect_island_counts("islands=4", false);
    expect_island_counts("islands=2,dp=2,tp=2,zero=1", true);
    expect_island_counts("islands=2,dp=2,zero=3", false);
    expect_island_counts("islands=2,dp=4,zero=2,zero_group=2", true);
    expect_island_counts("islands=2,pp=2", false);
    expect_island_counts("islands=2,pp=2,dp=2,zero=3", true);
}

TEST_MAIN(ONE(data_parallel_ranks_send_what_the_formula_says),
          ONE(groups_that_are_copies_send_what_the_formula_says),
          ONE(tensor_parallel_ranks_send_what_the_formula_says),
          ONE(stages_send_what_the_formula_says), ONE(muon_sends_what_the_formula_says),
          ONE(ranks_with_other_experts_send_what_the_formula_says),
          ONE(groups_that_share_experts_send_what_the_formula_says),
          ONE(experts_that_tp_cuts_send_what_the_formula_says),
          ONE(uneven_loads_send_what_was_routed), ONE(parts_of_rows_send_what_the_formula_says),
          ONE(routers_of_parts_of_rows_send_what_the_formula_says),
          ONE(exact_ranks_send_what_the_formula_says),
          ONE(exact_experts_send_what_the_formula_says),
          ONE(recomputed_layers_send_what_the_formula_says),
          ONE(parts_that_differ_are_counted), ONE(islands_send_what_the_formula_says))
