/* Does the comparison with one rank see faults of a layout? Each row spoils the programs of some
 * ranks; loss, gradients or weights must then differ in some bit, or a rank must fail. */
#include "test.h"

#include "parallel/exact.h"

struct mutation {
    const char *name, *layout;
    bool gpt2;
    int micro_batches;
    i64 B; /* rows of a step: micro_batches x B */
    void (*spoil)(struct rank *k, const struct mutation *m);
    const struct op_info *op;
    enum lane lane;
    int attr;
    double value;
    int only; /* this rank, counted from 1; 0: all */
    enum tiny_experts experts;
};

/* --- tools -------------------------------------------------------------------------- */

/* Nothing runs when this is not set. */
static i32 never_data = 0;
static struct tensor never = { .name = "never", .dtype = DTYPE_I32, .role = ROLE_RESULT, .rank = 1,
                               .dim = { 1 }, .index = -1, .data = &never_data };

static struct task *task_at(struct rank *k, i64 id)
{
    return k->step.program->by_id[id];
}

static bool is_of(const struct task *t, const struct mutation *m)
{
    return t->op == m->op && t->lane == m->lane;
}

/* The next such task from *id on; NULL: none. */
static struct task *next_of(struct rank *k, const struct mutation *m, i64 *id)
{
    while (*id < k->step.program->n_tasks) {
        struct task *t = task_at(k, (*id)++);
        if (is_of(t, m))
            return t;
    }
    return NULL;
}

/* --- ways to spoil ------------------------------------------------------------------ */

static void skip_first(struct rank *k, const struct mutation *m)
{
    i64 id = 0;
    struct task *t = next_of(k, m, &id);
    if (t)
        t->when = &never;
}

/* Those of the update. */
static void skip_in_update(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (t->phase == PHASE_UPDATE)
            t->when = &never;
}

/* Those of the backward pass. */
static void skip_gradients(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (t->phase == PHASE_INPUT_GRAD)
            t->when = &never;
}

static void skip_all(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        t->when = &never;
}

/* That of the tied embedding by itself. */
static void skip_apart(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (strcmp(t->in[0]->name, "embedding_gradient") == 0)
            t->when = &never;
}

static void set_all(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        t->attr[m->attr] = m->value;
}

static void add_to_all(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        t->attr[m->attr] += m->value;
}

/* Only where there are leaves; all terms become one. */
static void one_leaf(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (t->attr[LINEAR_LEAVES] > 1) {
            t->attr[LINEAR_LEAVES] = 1;
            for (int p = 0; p < 3; p++)
                t->attr[LINEAR_SHARES + p] = t->attr[LINEAR_PIECES + p];
        }
}

/* Fused pieces are cut as if they were one. */
static void one_piece(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));) {
        double terms = 0;
        for (int p = 0; p < 3; p++) {
            terms += t->attr[LINEAR_PIECES + p];
            t->attr[LINEAR_PIECES + p] = t->attr[LINEAR_SHARES + p] = 0;
        }
        t->attr[LINEAR_PIECES] = terms;
        t->attr[LINEAR_SHARES] = ceil(terms / fmax(1, t->attr[LINEAR_LEAVES]));
    }
}

static void move_to_tp(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        t->lane = LANE_TP;
}

static void move_to_dp(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        t->lane = LANE_DP;
}

/* The second such task does again what the first did. */
static void do_twice(struct rank *k, const struct mutation *m)
{
    i64 id = 0;
    struct task *a = next_of(k, m, &id), *b = next_of(k, m, &id);
    b->in[0] = a->in[0];
    b->out[0] = a->out[0];
}

/* A running sum instead of a counter. */
static void add_up(struct rank *k, const struct mutation *m)
{
    skip_all(k, m);
    for (i64 id = 0; id < k->step.program->n_tasks; id++) {
        struct task *t = task_at(k, id);
        if (t->fresh && t->out[0] && t->out[0]->role == ROLE_GRAD)
            t->accumulate = ACCUMULATE_STEP;
    }
}

static void count_own_rows(struct rank *k, const struct mutation *m)
{
    (void)m;
    k->all_rows = k->rows.B * k->rows.micro_batches;
}

/* Ranks 1 and 2 read each other's rows. */
static void exchange_rows(struct rank *k, const struct mutation *m)
{
    i64 rows = k->rows.B * k->rows.micro_batches;
    (void)m;
    if (k->mesh.dp_rank == 1 || k->mesh.dp_rank == 2)
        k->rows.first += k->mesh.dp_rank == 1 ? rows : -rows;
}

/* Where ranks take turns, each reads rows that follow each other. */
static void own_rows_together(struct rank *k, const struct mutation *m)
{
    (void)m;
    k->rows.first = k->mesh.dp_rank * k->rows.B * k->rows.micro_batches;
    k->rows.stride = k->rows.B;
}

/* Behind the last micro-batch only, as where ranks do not take turns. */
static void at_the_end(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        t->last_turn = true;
}

static void other_seed(struct rank *k, const struct mutation *m)
{
    (void)m;
    model_init(k->model, 4, k->engine.pool);
}

/* Two updates of the same size exchange what they read. */
static void exchange_gradients(struct rank *k, const struct mutation *m)
{
    struct task *t, *before = NULL;
    for (i64 id = 0; (t = next_of(k, m, &id)); before = t) {
        if (!before || tensor_count(before->in[0]) != tensor_count(t->in[0]))
            continue;
        struct tensor *grad = t->in[0];
        t->in[0] = before->in[0];
        before->in[0] = grad;
        return;
    }
}

/* The first two such tasks in the other order. */
static void exchange_order(struct rank *k, const struct mutation *m)
{
    i64 id = 0;
    struct task *a = next_of(k, m, &id), *b = a ? next_of(k, m, &id) : NULL;
    if (b) {
        struct task kept = *a;
        *a = *b;
        *b = kept;
    }
}

/* Every rank adds the bias to its part of the sum. */
static void add_bias_early(struct rank *k, const struct mutation *m)
{
    struct task *t, *last = NULL;
    for (i64 id = 0; id < k->step.program->n_tasks; id++) {
        t = task_at(k, id);
        if (is_of(t, m) && t->attr[LINEAR_LEAVES] > 0)
            last = t;
        if (t->op == &op_finish_sum && last && t->in[1]) {
            last->in[2] = t->in[1];
            last = NULL;
        }
    }
}

/* Whoever asks is told that its data have come. */
static int no_wait(void *context, enum lane lane, u64 ticket, bool block)
{
    (void)context;
    (void)lane;
    (void)ticket;
    (void)block;
    return 1;
}

static void drop_waits(struct rank *k, const struct mutation *m)
{
    struct lane_driver *lying = ARENA_NEW(&k->arena, struct lane_driver);
    (void)m;
    *lying = *k->engine.lanes;
    lying->wait = no_wait;
    k->engine.lanes = lying;
}

/* The real product, where an expert's leaves are one. */
static struct kernel product_of_experts;

static void in_one_chain(const struct task *t, struct run *x)
{
    enum { MOST_EXPERTS = 16 };
    i64 leaves = (i64)t->attr[EXPERT_LEAVES], experts = (t->in[2]->dim[0] - 1) / leaves;
    i32 begin[MOST_EXPERTS + 1];
    struct tensor begins = *t->in[2];
    struct task chain = *t;
    CHECK(experts <= MOST_EXPERTS && leaves > 1);
    for (i64 e = 0; e <= experts; e++)
        begin[e] = ((const i32 *)t->in[2]->data)[e * leaves];
    begins.dim[0] = experts + 1;
    begins.data = begin;
    chain.in[2] = &begins;
    chain.attr[EXPERT_LEAVES] = 1;
    product_of_experts.run(&chain, x);
}

static void experts_in_one_chain(struct rank *k, const struct mutation *m)
{
    struct kernel spoiled = product_of_experts = *backend_kernel(&k->engine.backend, m->op);
    spoiled.run = in_one_chain;
    backend_set(&k->engine.backend, m->op, spoiled);
}

/* What a router's bias goes by. */
static void skip_counts(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (strstr(t->in[0]->name, "router.bias"))
            t->when = &never;
}

/* What those do who share a key-value head. */
static void skip_heads(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (collective_of_heads(t))
            t->when = &never;
}

/* What those do who have the same experts for other tokens of a row. */
static void skip_twins(struct rank *k, const struct mutation *m)
{
    struct task *t;
    for (i64 id = 0; (t = next_of(k, m, &id));)
        if (collective_of_twins(t))
            t->when = &never;
}

/* Those with the same experts are taken for neighbours. */
static void twins_with_others(struct rank *k, const struct mutation *m)
{
    const i64 first = k->mesh.rank / 2 * 2;
    const int members[] = { (int)first, (int)first + 1 };
    (void)m;
    CHECK(k->mesh.layout.cp == 4 && k->mesh.row_twins->n == 2);
    CHECK_OK(comm_group_new(&k->mesh.row_twins, k->mesh.comm, "others", members, 2));
}

/* Every second rank instead of neighbours. */
static void share_with_others(struct rank *k, const struct mutation *m)
{
    const i64 tp = k->mesh.layout.tp, first = k->mesh.rank - k->mesh.tp_rank + k->mesh.tp_rank % 2;
    const int members[] = { (int)first, (int)first + 2 };
    (void)m;
    CHECK(tp == 4 && k->mesh.heads->n == 2);
    CHECK_OK(comm_group_new(&k->mesh.heads, k->mesh.comm, "others", members, 2));
}

static void among_all(struct rank *k, const struct mutation *m)
{
    (void)m;
    k->mesh.heads = k->mesh.groups[LANE_TP];
}

/* The real sum over copies, times a number. */
static struct kernel sum_of_copies;
static double wrong_scale;

static void scaled_sum(const struct task *t, struct run *x)
{
    float *dkv = t->out[1]->data;
    sum_of_copies.run(t, x);
    for (i64 i = 0; i < tensor_count(t->out[1]); i++)
        dkv[i] *= (float)wrong_scale;
}

static void scale_shared(struct rank *k, const struct mutation *m)
{
    struct kernel spoiled = sum_of_copies = *backend_kernel(&k->engine.backend, m->op);
    wrong_scale = m->value;
    spoiled.run = scaled_sum;
    backend_set(&k->engine.backend, m->op, spoiled);
}

static void nothing(struct rank *k, const struct mutation *m)
{
    (void)k;
    (void)m;
}

/* --- the table ---------------------------------------------------------------------- */

static const struct mutation mutations[] = {
    { "a bucket is not summed over dp", "dp=2", true, 1, 4, skip_first, &op_all_reduce, LANE_DP,
      0, 0, 0, 0 },
    { "one rank does not take part in a sum", "dp=2", false, 1, 4, skip_first, &op_all_reduce,
      LANE_DP, 0, 0, 2, 0 },
    { "sums over dp go over tp", "dp=2,tp=2", true, 1, 4, move_to_tp, &op_all_reduce, LANE_DP, 0,
      0, 0, 0 },
    { "the mean is of a rank's own rows", "dp=2", true, 1, 4, count_own_rows, NULL, 0, 0, 0, 0, 0 },
    { "waits are dropped", "dp=2", false, 1, 4, drop_waits, NULL, 0, 0, 0, 0, 0 },
    { "waits are dropped, tp", "tp=2", false, 1, 4, drop_waits, NULL, 0, 0, 0, 0, 0 },
    { "sums of two in another order on one rank", "dp=2", true, 1, 4, exchange_order,
      &op_all_reduce, LANE_DP, 0, 0, 1, 0 },
    { "ranks read each other's rows", "dp=4", true, 1, 8, exchange_rows, NULL, 0, 0, 0, 0, 0 },
    { "one bucket is summed twice, another never", "dp=2", true, 4, 4, do_twice, &op_all_reduce,
      LANE_DP, 0, 0, 0, 0 },
    { "slices of the weights are not gathered", "dp=2,zero=1", false, 1, 4, skip_first,
      &op_all_gather, LANE_DP, 0, 0, 0, 0 },
    { "a slice of the gradient is not summed", "dp=2,zero=1", false, 1, 4, skip_first,
      &op_reduce_scatter, LANE_DP, 0, 0, 0, 0 },
    { "the norm is of the own slice", "dp=4,zero=1", true, 1, 4, skip_in_update, &op_all_reduce,
      LANE_DP, 0, 0, 0, 0 },
    { "the norm is of the own shares", "tp=2", true, 1, 4, skip_in_update, &op_all_reduce,
      LANE_TP, 0, 0, 0, 0 },
    { "an update reads another gradient", "dp=2,zero=1", true, 1, 4, exchange_gradients,
      &op_adamw, LANE_COMPUTE, 0, 0, 0, 0 },
    { "one rank begins with other weights", "dp=2", true, 1, 4, other_seed, NULL, 0, 0, 0, 2, 0 },
    { "the embedding's gradient is left out", "dp=2", true, 1, 4, skip_in_update, &op_add,
      LANE_COMPUTE, 0, 0, 0, 0 },
    { "the embedding's gradient is not summed over dp", "dp=2", true, 1, 4, skip_apart,
      &op_all_reduce, LANE_DP, 0, 0, 0, 0 },
    { "sequences in one chain", "dp=2", true, 1, 8, one_leaf, &op_linear_dw, LANE_COMPUTE, 0, 0,
      0, 0 },
    { "embeddings in one chain", "dp=2", false, 1, 8, set_all, &op_embed_grad, LANE_COMPUTE,
      EMBED_GRAIN, 0, 0, 0 },
    { "leaves of three sequences in one tree", "dp=2", true, 1, 6, set_all, &op_fold,
      LANE_COMPUTE, FOLD_LEAVES, 1, 0, 0 },
    { "micro-batches are not counted in", "dp=2", false, 4, 2, skip_all, &op_carry, LANE_COMPUTE,
      0, 0, 0, 0 },
    { "micro-batches have another number", "dp=2", false, 4, 2, set_all, &op_carry, LANE_COMPUTE,
      CARRY_INDEX, 1, 0, 0 },
    { "micro-batches are added in a row", "dp=2", false, 8, 1, add_up, &op_carry, LANE_COMPUTE, 0,
      0, 0, 0 },
    { "products in one chain", "tp=2", false, 1, 4, one_leaf, &op_linear, LANE_COMPUTE, 0,
      0, 0, 0 },
    { "dx in one chain", "tp=2", true, 1, 4, one_leaf, &op_linear_dx, LANE_COMPUTE, 0, 0, 0, 0 },
    { "fused pieces are cut as one", "tp=2", false, 1, 4, one_piece, &op_linear_dx, LANE_COMPUTE,
      0, 0, 0, 0 },
    { "the vocabulary in one leaf", "tp=2", false, 1, 4, set_all, &op_xent_sum, LANE_COMPUTE,
      XENT_LEAVES, 0, 0, 0 },
    { "the largest logit is a sum", "tp=2", true, 1, 4, set_all, &op_all_reduce, LANE_TP,
      COLLECTIVE_KIND, COLLECTIVE_SUM, 0, 0 },
    { "the vocabulary begins a row later", "tp=2", true, 1, 4, add_to_all, &op_embed,
      LANE_COMPUTE, EMBED_FIRST, 1, 2, 0 },
    { "positions begin a row later", "tp=2", true, 1, 4, add_to_all, &op_embed_grad, LANE_COMPUTE,
      EMBED_FIRST, 1, 1, 0 },
    { "labels are looked up a column later", "tp=2", true, 1, 4, add_to_all, &op_xent_finish,
      LANE_COMPUTE, XENT_FIRST, 1, 2, 0 },
    { "leaf sums are gathered batch by batch", "tp=2", true, 1, 4, set_all, &op_all_gather,
      LANE_TP, COLLECTIVE_OUTER, 1, 0, 0 },
    { "rows are scattered through the batch", "tp=2", true, 1, 4, set_all, &op_reduce_scatter,
      LANE_TP, COLLECTIVE_OUTER, 1, 0, 0 },
    { "a partial product is not summed", "tp=2", false, 1, 4, skip_first, &op_reduce_scatter,
      LANE_TP, 0, 0, 0, 0 },
    { "stages do not sum a table that they share", "pp=2", true, 2, 4, skip_in_update,
      &op_all_reduce, LANE_TIE, 0, 0, 0, 0 },
    { "a gradient is not sent back", "pp=2", false, 2, 4, skip_first, &op_send, LANE_PP,
      0, 0, 2, 0 },
    { "rows do not take turns", "dp=2,zero=2", false, 8, 1, own_rows_together, NULL, 0, 0,
      0, 0, 0 },
    { "slices are not counted in", "dp=2,zero=3", true, 8, 1, skip_all, &op_carry, LANE_COMPUTE, 0,
      0, 0, 0 },
    { "slices have another number", "dp=2,zero=2", false, 8, 1, set_all, &op_carry, LANE_COMPUTE,
      CARRY_TOTAL, 2, 0, 0 },
    { "vectors are summed over ranks at the end", "dp=2,zero=2", true, 8, 1, at_the_end,
      &op_all_reduce, LANE_DP, 0, 0, 0, 0 },
    { "a row's gradient is not summed over cp", "cp=2", false, 2, 4, skip_first, &op_all_reduce,
      LANE_CP, 0, 0, 0, 0 },
    { "sums over cp go over dp", "cp=2,dp=2", true, 1, 4, move_to_dp, &op_all_reduce, LANE_CP, 0, 0,
      0, 0 },
    { "one rank does not take part in a sum over cp", "cp=4", true, 1, 1, skip_first,
      &op_all_reduce, LANE_CP, 0, 0, 3, 0 },
    { "gradients of keys are not summed over cp", "cp=2", false, 1, 1, skip_first,
      &op_reduce_scatter, LANE_CP, 0, 0, 0, 0 },
    { "keys are not gathered", "cp=2", true, 1, 2, skip_first, &op_all_gather, LANE_CP, 0,
      0, 2, 0 },
    { "queries in one chain", "cp=2", false, 1, 1, set_all, &op_attention_block_grad, LANE_COMPUTE,
      ATTENTION_PAIRS, 0, 0, 0 },
    { "queries of whole rows in one chain", "cp=2,cp_kind=ulysses", false, 1, 1, set_all,
      &op_attention_grad, LANE_COMPUTE, ATTENTION_PAIRS, 0, 0, 0 },
    { "keys come in the order of ranks", "cp=4", false, 1, 1, skip_all, &op_order_rows,
      LANE_COMPUTE, 0, 0, 0, 0 },
    { "tokens of a rank in one pair", "cp=2,cp_kind=ulysses", true, 1, 2, set_all, &op_order_rows,
      LANE_COMPUTE, ORDER_PAIRS, 1, 0, 0 },
    { "queries are those of the other part", "cp=2", false, 1, 1, set_all, &op_attention_block,
      LANE_COMPUTE, BLOCK_QUERIES, 0, 2, 0 },
    { "pairs of chunks in one chain", "cp=2", true, 1, 2, one_leaf, &op_linear_dw,
      LANE_COMPUTE, 0, 0, 0, 0 },
    { "heads are not exchanged for tokens", "cp=2,cp_kind=ulysses", false, 1, 1, skip_first,
      &op_all_to_all, LANE_CP, 0, 0, 0, 0 },
    { "an expert's sequences in one chain", "dp=2,ep=2", false, 1, 8, experts_in_one_chain,
      &op_expert_linear_dw, LANE_COMPUTE, 0, 0, 0, TINY_MIXTRAL },
    { "an expert's micro-batches are not counted in", "dp=2,ep=2", false, 4, 2, skip_all, &op_carry,
      LANE_COMPUTE, 0, 0, 0, TINY_MIXTRAL },
    { "ranks with the same experts do not sum", "dp=4,ep=2", false, 2, 4, skip_all, &op_all_reduce,
      LANE_EDP, 0, 0, 0, TINY_DEEPSEEK },
    { "ranks that share experts do not take turns", "dp=2,ep=2", false, 8, 1,
      own_rows_together, NULL, 0, 0, 0, 0, TINY_MIXTRAL },
    { "ranks that share experts sum at the end", "dp=2,ep=2", false, 8, 1, at_the_end,
      &op_all_reduce, LANE_EP, 0, 0, 0, TINY_MIXTRAL },
    { "an expert's slices are not scattered", "dp=4,ep=2,zero=3", false, 4, 2, skip_all,
      &op_reduce_scatter, LANE_EDP, 0, 0, 0, TINY_MIXTRAL },
    { "an expert's weights are not gathered", "dp=4,ep=2,zero=3", false, 4, 2, skip_all,
      &op_all_gather, LANE_EDP, 0, 0, 0, TINY_DEEPSEEK },
    { "tokens of experts are counted on each rank", "dp=4,ep=2", false, 2, 4, skip_counts,
      &op_all_reduce, LANE_EP, 0, 0, 0, TINY_DEEPSEEK },
    { "what routers did is not rounded", "dp=4", false, 2, 4, set_all, &op_expert_load,
      LANE_COMPUTE, ROUTER_GRAIN, 0, 0, TINY_DEEPSEEK },
    { "what shares of experts make is not summed", "tp=2", false, 1, 4, skip_first, &op_all_reduce,
      LANE_TP, 0, 0, 0, TINY_MIXTRAL },
    { "what shares of experts give back is not summed", "tp=2", false, 1, 4, skip_gradients,
      &op_all_reduce, LANE_TP, 0, 0, 0, TINY_DEEPSEEK },
    { "hidden units of experts in one chain", "tp=2", false, 1, 4, set_all, &op_expert_linear,
      LANE_COMPUTE, EXPERT_SPLIT, 1, 0, TINY_MIXTRAL },
    { "fused pieces of experts are cut as one", "tp=2", false, 1, 4, set_all, &op_expert_linear_dx,
      LANE_COMPUTE, EXPERT_PIECES, 1, 0, TINY_MIXTRAL },
    { "a rank takes another's rows", "tp=2", false, 1, 4, set_all, &op_take_part, LANE_COMPUTE,
      COLLECTIVE_RANK, 0, 2, TINY_DEEPSEEK },
    { "rows are taken through the batch", "tp=2", false, 1, 4, set_all, &op_take_part, LANE_COMPUTE,
      COLLECTIVE_OUTER, 1, 0, TINY_DEEPSEEK },
    { "a rank combines another's rows", "tp=2", false, 1, 4, set_all, &op_expert_combine,
      LANE_COMPUTE, COMBINE_PART, 0, 2, TINY_MIXTRAL },
    { "rows of experts are not sent back", "dp=2,ep=2", false, 1, 4, skip_first,
      &op_expert_exchange, LANE_EP, 0, 0, 2, TINY_MIXTRAL },
    { "a shared head's gradient is not summed", "tp=4", false, 1, 4, skip_heads, &op_reduce_scatter,
      LANE_TP, 0, 0, 0, 0 },
    { "one rank does not sum the head that it shares", "tp=4", false, 1, 4, skip_heads,
      &op_reduce_scatter, LANE_TP, 0, 0, 3, 0 },
    { "parts of a head are not gathered", "dp=2,tp=4", false, 1, 4, skip_heads, &op_all_gather,
      LANE_TP, 0, 0, 0, 0 },
    { "every second rank shares a head", "tp=4", false, 1, 4, share_with_others, NULL, 0,
      0, 0, 0, 0 },
    { "all ranks share a head", "tp=4", false, 1, 4, among_all, NULL, 0, 0, 0, 0, 0 },
    { "sharers' gradients count twice", "tp=4", false, 1, 4, scale_shared, &op_share_heads_grad,
      LANE_COMPUTE, 0, 2, 0, 0 },
    { "the mean of sharers is their sum", "tp=4", false, 1, 4, scale_shared, &op_share_heads_grad,
      LANE_COMPUTE, 0, 0.5, 0, 0 },
    { "an expert's copies in other groups are not summed",
      "dp=4,ep=2,zero=1,zero_group=2", false, 2, 4, skip_all, &op_all_reduce, LANE_COPIES,
      0, 0, 0, TINY_MIXTRAL },
    { "experts of a group are not scattered", "dp=8,ep=2,zero=3,zero_group=4", false, 2,
      8, skip_all, &op_reduce_scatter, LANE_EDP, 0, 0, 0, TINY_DEEPSEEK },
    { "a router's row in one chain", "cp=2", false, 1, 2, set_all, &op_router,
      LANE_COMPUTE, ROUTER_LEAF, 0, 0, TINY_MIXTRAL },
    { "an expert's pairs of chunks in one chain", "cp=2", false, 1, 2, experts_in_one_chain,
      &op_expert_linear_dw, LANE_COMPUTE, 0, 0, 0, TINY_MIXTRAL },
    { "an expert's sum over a row is that of some tokens", "cp=4,ep=2", false, 2, 2, skip_twins,
      &op_all_reduce, LANE_CP, 0, 0, 0, TINY_MIXTRAL },
    { "one rank leaves its tokens' sum out", "cp=4,ep=2,tp=2", false, 1, 2, skip_twins,
      &op_all_reduce, LANE_CP, 0, 0, 3, TINY_DEEPSEEK },
    { "neighbours sum what other experts got", "cp=4,ep=2", false, 1, 2,
      twins_with_others, NULL, 0, 0, 0, 0, TINY_MIXTRAL },
    { "rows of a group of experts are summed at the end", "dp=2,cp=2,ep=4", false, 4, 2, at_the_end,
      &op_all_reduce, LANE_EP, 0, 0, 0, TINY_MIXTRAL },
    { "rows of groups of experts do not take turns", "dp=2,cp=2,ep=4", false, 4, 2,
      own_rows_together, NULL, 0, 0, 0, 0, TINY_MIXTRAL },
    { "whole rows with the same experts are not summed", "dp=4,cp=2,ep=4", false, 2, 4, skip_all,
      &op_all_reduce, LANE_EDP, 0, 0, 0, TINY_DEEPSEEK },
    { "rows with the same experts are not summed", "dp=2,cp=2,ep=2", false, 2, 4, skip_all,
      &op_all_reduce, LANE_EDP, 0, 0, 0, TINY_MIXTRAL },
    { "tokens of a group's rows are counted on each rank", "dp=2,cp=2,ep=4", false, 2, 4,
      skip_counts, &op_all_reduce, LANE_EP, 0, 0, 0, TINY_DEEPSEEK },
    { "the norm leaves out experts of other parts of a row", "dp=2,cp=2,ep=4,zero=1", false, 2, 4,
      skip_in_update, &op_all_reduce, LANE_CP, 0, 0, 0, TINY_MIXTRAL },
    { "every rank adds the bias", "tp=2", true, 1, 4, add_bias_early, &op_linear, LANE_COMPUTE, 0,
      0, 0, 0 },
};

/* --- what changed, and who sees it --------------------------------------------------- */

static u64 mixed(u64 hash, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const u8 *)bytes)[i]) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

/* Of all that a mutation may spoil: tasks, rows, groups, kernels, waits, weights. */
static u64 fingerprint(struct rank *k, const struct mutation *m)
{
    const struct kernel *kernel = m->op ? backend_kernel(&k->engine.backend, m->op) : NULL;
    u64 hash = 0xcbf29ce484222325u;
    for (i64 id = 0; id < k->step.program->n_tasks; id++)
        hash = mixed(hash, task_at(k, id), sizeof(struct task));
    hash = mixed(hash, &k->rows, sizeof k->rows);
    hash = mixed(hash, &k->all_rows, sizeof k->all_rows);
    hash = mixed(hash, &k->mesh.heads, sizeof k->mesh.heads);
    hash = mixed(hash, &k->mesh.row_twins, sizeof k->mesh.row_twins);
    hash = mixed(hash, &k->engine.lanes->wait, sizeof k->engine.lanes->wait);
    if (kernel)
        hash = mixed(hash, &kernel->run, sizeof kernel->run);
    for (i64 i = 0; i < k->model->n_buckets; i++) {
        const struct tensor *master = k->model->buckets[i].master;
        if (master && master->data)
            hash = mixed(hash, master->data, (size_t)tensor_bytes(master));
    }
    return hash;
}

/* Number of ranks in which the mutation changed something. */
static int spoil(struct ranks *many, const struct mutation *m)
{
    int changed = 0;
    for (int r = 0; r < many->n; r++) {
        const u64 before = fingerprint(&many->rank[r], m);
        if (m->only == 0 || m->only == r + 1)
            m->spoil(&many->rank[r], m);
        changed += fingerprint(&many->rank[r], m) != before;
    }
    return changed;
}

/* What differs, or what a rank says; NULL: nothing. */
static const char *run_mutated(const struct mutation *m, int *changed)
{
    static char text[512];
    struct ranks one, many;
    struct exact_case c = { .gpt2 = m->gpt2, .B = m->B, .micro_batches = m->micro_batches };
    char layout[96];
    snprintf(layout, sizeof layout, "%s,%s", m->layout, exact_alone(m->layout));
    struct ranks_options o = exact_options(&c, exact_alone(m->layout));
    o.tiny.experts = m->experts;
    ranks_open(&one, &o);
    o.layout = layout;
    ranks_open(&many, &o);
    *changed = spoil(&many, m);
    const char *difference = exact_run(&one, &many);
    if (difference)
        snprintf(text, sizeof text, "%s", difference);
    ranks_close(&one);
    ranks_close(&many);
    return difference ? text : NULL;
}

/* Whose words they are, as exact_steps has them: "step 0: loss ...". The last one: a rank's own. */
static const char *const detectors[] = { "loss", "gradient", "first moment", "second moment",
                                         "master weight", "weight", "average", "load", "error" };

static int detector_of(const char *difference)
{
    const char *words = strstr(difference, ": ");
    int i = 0;
    while (i < COUNT_OF(detectors) - 1 &&
           (!words || strncmp(words + 2, detectors[i], strlen(detectors[i])) != 0))
        i++;
    return i;
}

TEST(every_fault_of_a_layout_changes_some_bit)
{
    int seen[COUNT_OF(detectors)] = { 0 }, changed;
    CHECK(COUNT_OF(mutations) >= 25);
    for (i64 i = 0; i < COUNT_OF(mutations); i++) {
        const char *difference = run_mutated(&mutations[i], &changed);
        if (changed == 0)
            fail_msg("nothing is spoiled where %s (%s)", mutations[i].name, mutations[i].layout);
        if (!difference)
            fail_msg("nobody sees that %s (%s)", mutations[i].name, mutations[i].layout);
        seen[detector_of(difference)]++;
    }
    for (int i = 0; i < COUNT_OF(detectors); i++)
        if (seen[i])
            printf("%d faults seen first in: %s\n", seen[i], detectors[i]);
}

/* Nor is anything spoiled where no such task exists, whatever a rank says. */
TEST(without_a_fault_the_same_machinery_is_green)
{
    int changed;
    for (i64 i = 0; i < COUNT_OF(mutations); i++) {
        struct mutation m = mutations[i];
        m.spoil = nothing;
        const char *difference = run_mutated(&m, &changed);
        if (difference || changed)
            fail_msg("%s: %s", m.layout, difference ? difference : "something changed");
    }
    struct mutation absent = { "no such sum", "dp=2", true, 1, 4, skip_all, &op_all_reduce, LANE_TP,
                               0, 0, 0, 0 };
    CHECK(!run_mutated(&absent, &changed) && changed == 0);
}

TEST_MAIN(ONE(every_fault_of_a_layout_changes_some_bit),
          ONE(without_a_fault_the_same_machinery_is_green))
