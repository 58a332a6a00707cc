/* Lists of tasks with faults of a layout are refused when they are built, by name. */
#include "test.h"

#include "parallel/ranks.h"
#include "parallel/spread.h"

#include <stdio.h>

#define CP_EXACT "cp=2,dp=2,exact=true,exact_context=true"

struct fault {
    const char *name, *layout;
    bool gpt2;
    void (*spoil)(struct graph *g, i64 at);
    const struct op_info *op;
    enum lane lane;
    int nth;            /* which of the tasks with this op and lane; -1: the last */
    const char *text[3]; /* what the message says: the task, the axis, the tensor */
};

/* --- ways to spoil ------------------------------------------------------------------ */

/* Later readers of x read y. */
static void read_instead(struct graph *g, i64 from, const struct tensor *x, struct tensor *y)
{
    for (i64 i = from; i < g->n_tasks; i++) {
        struct task *t = ARENA_NEW(g->arena, struct task);
        *t = *g->tasks[i];
        for (int k = 0; k < TASK_INS; k++)
            if (t->in[k] == x)
                t->in[k] = y;
        g->tasks[i] = t;
    }
}

static void leave_out(struct graph *g, i64 at)
{
    struct task *t = g->tasks[at];
    memmove(g->tasks + at, g->tasks + at + 1, sizeof *g->tasks * (size_t)(g->n_tasks - at - 1));
    g->n_tasks--;
    if (t->out[0] && t->in[0])
        read_instead(g, at, t->out[0], t->in[0]);
}

static void do_twice(struct graph *g, i64 at)
{
    struct task *again = ARENA_NEW(g->arena, struct task);
    *again = *g->tasks[at];
    again->in[0] = again->out[0];
    graph_insert(g, at + 1, again);
}

static void on_other_axis(struct graph *g, i64 at)
{
    struct task *t = ARENA_NEW(g->arena, struct task);
    *t = *g->tasks[at];
    t->lane = t->lane == LANE_DP ? LANE_TP : LANE_DP;
    g->tasks[at] = t;
}

/* Not only those who share a head. */
static void among_all(struct graph *g, i64 at)
{
    struct task *t = ARENA_NEW(g->arena, struct task);
    *t = *g->tasks[at];
    t->attr[COLLECTIVE_FEW] = 0;
    g->tasks[at] = t;
}

static void on_all(struct graph *g, i64 at)
{
    struct task *t = ARENA_NEW(g->arena, struct task);
    *t = *g->tasks[at];
    t->lane = LANE_DP;
    g->tasks[at] = t;
}

/* Before the task that writes last into what is reduced. */
static void too_early(struct graph *g, i64 at)
{
    struct task *t = g->tasks[at];
    const struct tensor *root = t->out[0]->owner ? t->out[0]->owner : t->out[0];
    i64 writer = at - 1;
    for (; writer >= 0; writer--) {
        const struct tensor *out = g->tasks[writer]->out[0];
        if (out && (out->owner ? out->owner : out) == root)
            break;
    }
    memmove(g->tasks + writer + 1, g->tasks + writer, sizeof *g->tasks * (size_t)(at - writer));
    g->tasks[writer] = t;
}

/* The bias that finish_sum adds later. */
static void add_bias(struct graph *g, i64 at)
{
    struct task *t = ARENA_NEW(g->arena, struct task);
    *t = *g->tasks[at];
    for (i64 i = at; !t->in[2] && i < g->n_tasks; i++)
        if (g->tasks[i]->op == &op_finish_sum)
            t->in[2] = g->tasks[i]->in[1];
    g->tasks[at] = t;
}

/* The first sum among those of a row who have the same experts. */
static i64 first_of_twins(const struct graph *g)
{
    i64 i = 0;
    while (!collective_of_twins(g->tasks[i]))
        i++;
    return i;
}

static void no_twins(struct graph *g, i64 at)
{
    (void)at;
    leave_out(g, first_of_twins(g));
}

/* The gradient of the keys here is that of the neighbour's, not yet handed back. */
static void keep_others_keys(struct graph *g, i64 at)
{
    const struct task *shift = g->tasks[at];
    for (i64 i = at + 1; i < g->n_tasks; i++)
        if (g->tasks[i]->op == &op_add && g->tasks[i]->in[1] == shift->out[0])
            read_instead(g, i + 1, g->tasks[i]->out[0], shift->in[0]);
}

static void all_of_the_row(struct graph *g, i64 at)
{
    (void)at;
    among_all(g, first_of_twins(g));
}

/* What a router's bias goes by: the first sum of it. */
static void no_counts(struct graph *g, i64 at)
{
    for (at = 0; at < g->n_tasks; at++)
        if (g->tasks[at]->op == &op_all_reduce && strstr(g->tasks[at]->in[0]->name, "router.bias"))
            break;
    CHECK(at < g->n_tasks);
    leave_out(g, at);
}

/* The sum over the rows of a group of experts, the last of all. */
static void own_row_only(struct graph *g, i64 at)
{
    struct task *t = ARENA_NEW(g->arena, struct task);
    *t = *g->tasks[at];
    t->lane = LANE_CP;
    g->tasks[at] = t;
}

#define ROW_EXACT "exact=true,exact_context=true"

static const struct fault faults[] = {
    { "a bucket is not summed", "dp=2", true, leave_out, &op_all_reduce, LANE_DP, 1,
      { "sum_squares", "along dp", "the gradient of blocks.2.attn.qkv.weight is a partial sum" } },
    { "a bucket is summed twice", "dp=2", true, do_twice, &op_all_reduce, LANE_DP, 1,
      { "all_reduce", "along dp", "the same on all ranks: it must not be reduced (again)" } },
    { "a bucket is summed too early", "dp=2", true, too_early, &op_all_reduce, LANE_DP, 1,
      { "linear_dw in layer 2", "along dp", "to the gradient of blocks.2.attn.qkv.weight" } },
    { "a bucket is summed on another axis", "dp=2,tp=2", false, on_other_axis, &op_all_reduce,
      LANE_DP, 1, { "all_reduce", "along tp", "it must not be reduced (again)" } },
    { "vectors are not summed over tp", "tp=2", true, leave_out, &op_all_reduce, LANE_TP, 5,
      { "sum_squares", "along tp", "the gradient of blocks.0.norm1.gain is a partial sum" } },
    { "a product's parts are not summed", "tp=2", true, leave_out, &op_reduce_scatter, LANE_TP, 1,
      { "finish_sum in layer 0", "along tp", "a partial sum of each rank" } },
    { "looked-up rows are not summed", "tp=2", false, leave_out, &op_reduce_scatter, LANE_TP, 0,
      { "rmsnorm in layer 0", "along tp", "embed is a partial sum of each rank" } },
    { "rows are not gathered", "tp=2", false, leave_out, &op_all_gather, LANE_TP, 0,
      { "linear in layer 0", "along tp", "rmsnorm is cut by rows" } },
    { "the largest logit is each rank's own", "tp=2", false, leave_out, &op_all_reduce, LANE_TP, 0,
      { "xent_sum", "along tp", "xent.peak is the largest of each rank" } },
    { "exponentials are each rank's own", "tp=2", false, leave_out, &op_all_reduce, LANE_TP, 1,
      { "xent_finish", "along tp", "xent.sums is a partial sum of each rank" } },
    { "new weights are not gathered", "dp=2,zero=1", false, leave_out, &op_all_gather, LANE_DP, 0,
      { "along dp", "wte.weight is", "at the end of the step" } },
    { "slices are not summed", "dp=2,zero=1", false, leave_out, &op_reduce_scatter, LANE_DP, 1,
      { "sum_squares", "along dp", "it must be reduced first" } },
    { "the norm is of a slice", "dp=2,zero=1", false, leave_out, &op_all_reduce, LANE_DP, -1,
      { "add_norms", "along dp", "a partial sum of each rank" } },
    { "every rank adds the bias", "tp=2", true, add_bias, &op_linear, LANE_COMPUTE, 1,
      { "linear in layer 0", "along tp", "every rank would add it to its part of the sum" } },
    { "rows stay where they are", "dp=2,ep=2", false, leave_out, &op_expert_exchange, LANE_EP, 0,
      { "expert_gather in layer 0", "along ep", "is cut by experts: its inputs before are not" } },
    { "rows do not come back", "dp=2,ep=2", false, leave_out, &op_expert_exchange, LANE_EP, 1,
      { "expert_combine in layer 0", "along ep", "its inputs before are not" } },
    { "experts are summed over ranks with others", "dp=4,ep=2", false, on_all, &op_all_reduce,
      LANE_EDP, 0, { "all_reduce", "along ep", "it must not be reduced (again)" } },
    { "experts are not summed", "dp=4,ep=2", false, leave_out, &op_all_reduce, LANE_EDP, 0,
      { "sum_squares", "along edp", "mlp.experts.up.weight is a partial sum" } },
    { "the norm is of the experts here", "dp=2,ep=2", false, leave_out, &op_all_reduce, LANE_EP,
      -1, { "add_norms", "along ep", "a partial sum of each rank" } },
    { "what shares of experts make is not summed", "dp=2,ep=2,tp=2", false, leave_out,
      &op_all_reduce, LANE_TP, 0,
      { "expert_combine in layer 0", "along tp", "it must be reduced first" } },
    { "what shares of experts give back is not summed", "dp=2,ep=2,tp=2", false, leave_out,
      &op_all_reduce, LANE_TP, 6,
      { "expert_combine in layer 2", "along tp", "it must be reduced first" } },
    { "a rank takes a part of its own part", "dp=2,ep=2,tp=2", false, do_twice,
      &op_take_part, LANE_COMPUTE, 0,
      { "take_part", "along tp", "each rank takes a part of what all must have" } },
    { "leaf sums are not gathered", "tp=2,exact=true", true, leave_out, &op_all_gather, LANE_TP,
      8, { "exact_squares", "along tp", "is a partial sum of each rank" } },
    { "a gradient is not summed over cp", CP_EXACT, false, leave_out, &op_all_reduce, LANE_CP, 0,
      { "exact_squares", "along cp", "it must be reduced first" } },
    { "a gradient is summed over cp twice", CP_EXACT, true, do_twice, &op_all_reduce, LANE_CP, 1,
      { "all_reduce", "along cp", "it must not be reduced (again)" } },
    { "gradients of keys are not summed over cp", CP_EXACT, false, leave_out, &op_reduce_scatter,
      LANE_CP, 0, { "along cp", "partial sum of each rank", "it must be reduced first" } },
    { "parts of heads are not gathered", "tp=4", false, leave_out, &op_all_gather, LANE_TP, 1,
      { "share_heads in layer 0", "along tp", "the parts of a head must be gathered first" } },
    { "parts of heads are gathered from all", "tp=4", false, among_all, &op_all_gather, LANE_TP, 1,
      { "all_gather in layer 0", "along tp", "only what is cut by rows can be gathered" } },
    { "a head's gradient is not summed", "tp=4", false, leave_out, &op_reduce_scatter, LANE_TP, 9,
      { "in layer 2", "along tp", "for a head that it shares: it must be reduced first" } },
    { "a head's gradient is summed twice", "tp=4", false, do_twice, &op_reduce_scatter, LANE_TP, 9,
      { "reduce_scatter in layer 2", "along tp", "it must not be reduced (again)" } },
    { "a head's gradient is summed over all", "tp=4", false, among_all, &op_reduce_scatter, LANE_TP,
      9, { "reduce_scatter in layer 2", "along tp", "it must not be reduced (again)" } },
    { "an expert's row is not summed", "cp=4,ep=2," ROW_EXACT, false, no_twins,
      &op_all_reduce, LANE_CP, 0,
      { "exact_squares", "along cp", "mlp.experts.up.weight is a partial sum" } },
    { "other experts are summed", "cp=4,ep=2," ROW_EXACT, false, all_of_the_row,
      &op_all_reduce, LANE_CP, 0,
      { "all_reduce", "along ep", "cut by experts: it must not be reduced (again)" } },
    { "rows of a group of experts are not summed", "dp=2,cp=2,ep=4," ROW_EXACT, false, own_row_only,
      &op_all_reduce, LANE_EP, 0, { "exact_squares", "along ep", "is a partial sum" } },
    { "experts of a row count alone", "dp=2,cp=2,ep=4,zero=1," ROW_EXACT, false,
      leave_out, &op_all_reduce, LANE_CP, -1,
      { "exact_squares", "along cp", "a partial sum of each rank" } },
    { "the table's gradient is a stage's own", "pp=2", true, leave_out, &op_all_reduce, LANE_TIE, 0,
      { "sum_squares", "along tie", "the gradient of wte.weight is a partial sum of each rank" } },
    { "the table's gradient is summed twice", "pp=2", true, do_twice, &op_all_reduce, LANE_TIE, 0,
      { "all_reduce", "along tie", "it must not be reduced (again)" } },
    { "the norm is of a stage", "pp=2", true, leave_out, &op_all_reduce, LANE_PP, -1,
      { "clip", "along pp", "is a partial sum of each rank" } },
    { "the exact norm is of a stage", "pp=2,exact=true", false, leave_out, &op_all_reduce,
      LANE_PP, -1, { "exact_total", "along pp", "is a partial sum of each rank" } },
    { "rows do not go up", "pp=2", false, leave_out, &op_send, LANE_PP, 0,
      { "send", "along pp", "activations between stages 0 and 1" } },
    { "gradients do not come down", "pp=2", false, leave_out, &op_recv, LANE_PP, 0,
      { "recv", "along pp", "gradients of activations between stages 0 and 1" } },
    { "a turn of the keys is missing", "cp=4", true, leave_out, &op_ring_shift, LANE_CP, 0,
      { "attention_block", "along cp",
        "its keys (kv) have come 0 turns of the ring, those of part 3 are 1" } },
    { "gradients of keys miss a turn", "cp=2", true, leave_out, &op_ring_shift, LANE_CP, -1,
      { "add", "along cp", "of such that came 1" } },
    { "a part of the keys is not seen", "cp=2", true, leave_out, &op_attention_block,
      LANE_COMPUTE, 0, { "attention_block", "along cp", "have seen 1 of 2 parts" } },
    { "gradients of keys stay with others", "cp=2", true, keep_others_keys,
      &op_ring_shift, LANE_CP, -1,
      { "along cp", "came 1 turns", "goes back to nobody" } },
    { "routers tell of their own tokens", "cp=2,ep=2", false, leave_out, &op_all_reduce, LANE_CP, 0,
      { "expert_load", "along ep", "router.stats is a partial sum of each rank" } },
    { "routers of a long row tell of their own tokens", "cp=4,ep=2", false, leave_out,
      &op_all_reduce, LANE_CP, 0,
      { "expert_load", "along cp", "router.stats is a partial sum of each rank" } },
    { "routers of more rows tell of their own tokens", "cp=2,dp=2,ep=4", false, leave_out,
      &op_all_reduce, LANE_CP, 0,
      { "expert_load", "along cp", "router.stats is a partial sum of each rank" } },
    { "a bias goes by a rank's tokens", "dp=2,ep=2,exact=true", false, no_counts, &op_all_reduce,
      LANE_EP, 0, { "balance_bias", "along", "router.bias is a partial sum of each rank" } },
    { "the norm is of shares", "tp=2,exact=true", true, leave_out, &op_all_reduce, LANE_TP, -1,
      { "exact_squares", "along tp", "a partial sum of each rank" } },
};

/* Position of the nth such task. */
static i64 find(const struct graph *g, const struct fault *f)
{
    i64 n = 0, last = -1;
    for (i64 i = 0; i < g->n_tasks && (f->nth < 0 || n <= f->nth); i++)
        if (g->tasks[i]->op == f->op && g->tasks[i]->lane == f->lane) {
            last = i;
            n++;
        }
    if (last < 0 || n <= f->nth)
        fail_msg("%s: there is no such task", f->name);
    return last;
}

static void must_be_refused(const struct fault *f)
{
    struct ranks all;
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 1, .B = 4, .gpt2 = f->gpt2,
                                         .backend = "generic" }, .layout = f->layout };
    o.tiny.experts = f->spoil == no_counts ? TINY_DEEPSEEK
                     : strstr(f->layout, "ep=") ? TINY_MIXTRAL : TINY_DENSE;
    ranks_open(&all, &o);
    struct rank *k = &all.rank[0];
    struct graph *g = &k->step.graph;
    CHECK_OK(spread_check(g, k->model, &k->mesh));
    f->spoil(g, find(g, f));
    int rc = spread_check(g, k->model, &k->mesh);
    for (int i = 0; i < 3; i++)
        if (rc != ERR_INTERNAL || !strstr(err_message(), f->text[i]))
            fail_msg("%s: gave %d, \"%s\"; expected \"%s\"", f->name, rc,
                     rc < 0 ? err_message() : "", f->text[i]);
    ranks_close(&all);
}

TEST(a_missing_or_doubled_reduction_is_refused_by_name)
{
    for (i64 i = 0; i < COUNT_OF(faults); i++)
        must_be_refused(&faults[i]);
}

static const struct tensor *owner_of(const struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

static bool overlap(const struct tensor *a, const struct tensor *b)
{
    return a && owner_of(a) == owner_of(b) && a->owner_offset < b->owner_offset + tensor_bytes(b) &&
           b->owner_offset < a->owner_offset + tensor_bytes(a);
}

/* Else another rank needs it, and says so there. */
static bool is_read_here(const struct graph *g, i64 at)
{
    const struct tensor *out = g->tasks[at]->out[0];
    for (i64 i = at + 1; out && i < g->n_tasks; i++)
        for (int k = 0; k < TASK_INS; k++)
            if (overlap(g->tasks[i]->in[k], out))
                return true;
    return !out;
}

/* What a bucket is rounded up with. */
static bool is_padding(const struct model *m, const struct tensor *x)
{
    for (i64 b = 0; x && x->owner && b < m->n_buckets; b++) {
        i64 end = 0;
        if (m->buckets[b].grad != x->owner)
            continue;
        for (i64 i = 0; i < m->n_params; i++)
            if (m->params[i].bucket == &m->buckets[b])
                end = i64_max(end, m->params[i].at + param_here(&m->params[i]));
        return x->owner_offset >= end * (i64)sizeof(float);
    }
    return false;
}

static bool may_be_left_out(const struct rank *k, i64 at)
{
    const struct graph *g = &k->step.graph;
    const struct task *t = g->tasks[at];
    return t->lane == LANE_COMPUTE || is_padding(k->model, t->in[0]) ||
           !is_read_here(g, at);
}

static void none_may_be_missing(const struct rank *k, const char *layout)
{
    const struct graph *g = &k->step.graph;
    i64 left_out = 0;
    CHECK_OK(spread_check(g, k->model, &k->mesh));
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct task *t = g->tasks[i];
        struct graph spoiled = *g;
        if (may_be_left_out(k, i))
            continue;
        spoiled.tasks = ARENA_ARRAY(g->arena, struct task *, g->n_tasks);
        memcpy(spoiled.tasks, g->tasks, sizeof *g->tasks * (size_t)g->n_tasks);
        leave_out(&spoiled, i);
        left_out++;
        if (spread_check(&spoiled, k->model, &k->mesh) != ERR_INTERNAL ||
            !strstr(err_message(), "along "))
            fail_msg("%s, rank %d: nobody misses the %s of %s in layer %d", layout,
                     (int)k->mesh.rank, t->op->name,
                     t->in[0] ? t->in[0]->name : t->out[0]->name, t->layer);
    }
    CHECK(left_out > 0);
}

/* On the first and on the last rank. */
static void every_exchange_is_needed(const char *layout, bool gpt2, enum tiny_experts experts)
{
    struct ranks all;
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 1, .B = 8, .gpt2 = gpt2,
                                         .backend = "generic", .experts = experts },
                               .layout = layout, .layers = 4 };
    ranks_open(&all, &o);
    none_may_be_missing(&all.rank[0], layout);
    none_may_be_missing(&all.rank[all.n - 1], layout);
    ranks_close(&all);
}

TEST(every_exchange_of_a_step_is_needed)
{
    static const struct needed {
        const char *layout;
        bool gpt2;
        enum tiny_experts experts;
    } all[] = {
        { "dp=2", true, TINY_DENSE },
        { "dp=4,zero=1,zero_group=2", true, TINY_DENSE },
        { "dp=2,zero=2", false, TINY_DENSE },
        { "dp=4,zero=3,zero_group=2", false, TINY_DENSE },
        { "tp=2", true, TINY_DENSE },
        { "tp=4", false, TINY_DENSE },
        { "tp=2,exact=true", false, TINY_DENSE },
        { "dp=2,zero=1,exact=true", false, TINY_DENSE },
        { "dp=2,zero=3,exact=true", true, TINY_DENSE },
        { "pp=2,dp=2,tp=2", true, TINY_DENSE },
        { "pp=2,dp=2,zero=2,exact=true", true, TINY_DENSE },
        { "pp=2,schedule=zb-v,dp=2,zero=1", true, TINY_DENSE },
        { "cp=2,dp=2", false, TINY_DENSE },
        { "cp=4", true, TINY_DENSE },
        { "cp=2,cp_kind=ulysses,zero=2", false, TINY_DENSE },
        { "cp=2,dp=2," ROW_EXACT, false, TINY_DENSE },
        { "cp=2,cp_kind=ulysses,zero=1," ROW_EXACT, true, TINY_DENSE },
        { "dp=2,ep=2", false, TINY_DEEPSEEK },
        { "dp=4,ep=2,zero=3", false, TINY_DEEPSEEK },
        { "cp=2,ep=2", false, TINY_DEEPSEEK },
        { "cp=4,ep=2", false, TINY_CAPACITY },
        { "cp=2,dp=2,ep=4,tp=2", false, TINY_DEEPSEEK },
        { "dp=2,ep=2,exact=true", false, TINY_DEEPSEEK },
        { "cp=2,dp=2,ep=4," ROW_EXACT, false, TINY_DEEPSEEK },
        { "cp=4,ep=2," ROW_EXACT, false, TINY_DEEPSEEK },
        { "dp=2,cp=2,ep=2,zero=2," ROW_EXACT, false, TINY_MIXTRAL },
    };
    for (i64 i = 0; i < COUNT_OF(all); i++)
        every_exchange_is_needed(all[i].layout, all[i].gpt2, all[i].experts);
}

TEST_MAIN(ONE(every_exchange_of_a_step_is_needed),
          ONE(a_missing_or_doubled_reduction_is_refused_by_name))
