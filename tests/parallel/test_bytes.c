/* Three counts of what ranks send in a step, which must agree to the byte: the tasks of the program and
 * what the transport moved, of each rank and axis, and formulas, of all ranks along an axis together.
 * (tests/parallel/test_context_parallel.c has those of cp.)
 *
 * The formulas are those of a ring (a reduction or gathering of X bytes among n ranks sends
 * (n-1) X over all of them; an all-reduce twice that) put together by hand for what a layout
 * does, from the shapes alone: Korthikanti et al. 2022, section 4.2 (tensor and sequence
 * parallel: per layer four gatherings and four reduce-scatters of rows x width), Rajbhandari et
 * al. 2020, section 7 (data parallel: gradients; split state: gradients and weights), parallel/orthogonal.h (Muon). */
#include "parallel/ranks.h"
#include "test.h"

#include <stdio.h>

/* By lane, of a rank or of all. */
struct counts {
    double bytes[LANE_COUNT];
};

static const char *const axis_of[LANE_COUNT] = {
    [LANE_TP] = "tp", [LANE_DP] = "dp", [LANE_PP] = "pp", [LANE_TIE] = "tie",
    [LANE_SHARD] = "shard", [LANE_COPIES] = "copies", [LANE_EP] = "ep", [LANE_EDP] = "edp",
    [LANE_ISLAND] = "islands",
};

/* Of an all-reduce each rank sums an equal part, the first ones one more where they do not divide, and sends
 * it to all others; of what it does not sum it sends its own. */
static double sent_by(const struct task *t)
{
    const i64 n = (i64)t->attr[COLLECTIVE_SIZE], messages = (i64)t->attr[COLLECTIVE_OUTER];
    if (t->op != &op_all_reduce)
        return t->cost.message_bytes;
    const i64 count = tensor_count(t->in[0]) / messages;
    const i64 part = count / n + ((i64)t->attr[COLLECTIVE_RANK] < count % n);
    return (double)(messages * (count + (n - 2) * part) * dtype_bytes(t->in[0]->dtype));
}

static struct counts of_tasks(const struct rank *k, bool outer)
{
    struct counts c = { { 0 } };
    const struct program *p = outer ? k->outer.program : k->step.program;
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        for (i64 i = 0; i < s->n_tasks; i++)
            if (!s->tasks[i].last_turn || p->actions[a].micro_batch == p->micro_batches - 1)
                c.bytes[s->tasks[i].lane] += sent_by(&s->tasks[i]);
    }
    return c;
}

static struct counts of_transport(const struct rank *k)
{
    struct counts c = { { 0 } };
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (axis_of[lane])
            c.bytes[lane] += (double)comm_axis_count(k->mesh.comm, axis_of[lane]).sent_bytes;
    return c;
}

static struct counts all_tasks(const struct ranks *all, bool outer)
{
    struct counts sum = { { 0 } };
    for (int r = 0; r < all->n; r++) {
        const struct counts c = of_tasks(&all->rank[r], outer);
        for (int lane = 0; lane < LANE_COUNT; lane++)
            sum.bytes[lane] += c.bytes[lane];
    }
    return sum;
}

static struct counts all_transport(const struct ranks *all)
{
    struct counts sum = { { 0 } };
    for (int r = 0; r < all->n; r++) {
        const struct counts c = of_transport(&all->rank[r]);
        for (int lane = 0; lane < LANE_COUNT; lane++)
            sum.bytes[lane] += c.bytes[lane];
    }
    return sum;
}

/* --- formulas ----------------------------------------------------------------------- */

/* Ranks that split what zero splits, and groups of them. */
static double group_of(const struct layout *l)
{
    return (double)(l->zero_group ? l->zero_group : l->dp);
}

static enum lane split_lane(const struct layout *l)
{
    return group_of(l) < (double)l->dp ? LANE_SHARD : LANE_DP;
}

/* How often a micro-batch gathers a bucket's weights: in the passes that read them. An embedding
 * is read in the forward pass, a head where its loss is formed. */
static double gathers_of(const struct bucket *b, const struct model *m)
{
    return b->layer >= 0 && b->layer < m->spec.layers ? 2
           : m->spec.tied ? (b->layer < 0 ? 2 : 0) : 1;
}

/* Without what lies between parameters. */
static double elements_of(const struct bucket *b, const struct model *m)
{
    double n = 0;
    for (i64 i = 0; i < m->n_params; i++)
        n += m->params[i].bucket == b ? (double)param_here(&m->params[i]) : 0;
    return n;
}

/* What one bucket of one group of ranks along dp costs. The gradient of a table that
 * two stages share is summed between them first and last, so it is never cut. */
static void add_bucket(struct counts *c, const struct rank *k, const struct bucket *b,
                       const struct layout *l, double weight)
{
    double d = (double)l->dp, n = group_of(l), groups = d / n, times = (double)k->rows.micro_batches;
    double matrices = (double)(b->count - b->copied), whole = (double)b->count;
    bool shared = k->model->spec.tied && l->pp > 1 && b->layer < 0;
    double slices = groups * (n - 1) * matrices; /* a gathering or a scattering of one byte each */
    if (l->zero == 0) {
        c->bytes[LANE_DP] += 2 * (d - 1) * 4 * whole;
        return;
    }
    if (layout_turn_takers(l) > 1) { /* whole too: over those who split first, then their copies */
        double kept = shared ? elements_of(b, k->model) : (double)b->copied;
        c->bytes[split_lane(l)] += times * 2 * groups * (n - 1) * 4 * kept;
        c->bytes[LANE_COPIES] += 2 * n * (groups - 1) * 4 * kept;
    } else {
        c->bytes[LANE_DP] += 2 * (d - 1) * 4 * (shared ? whole : (double)b->copied);
    }
    if (!shared) {
        c->bytes[split_lane(l)] += (l->zero >= 2 ? times : 1) * slices * 4;
        c->bytes[LANE_COPIES] += 2 * (groups - 1) * 4 * matrices;
    }
    c->bytes[split_lane(l)] +=
        (l->zero == 3 && !shared ? times * gathers_of(b, k->model) : 1) * slices * weight;
}

/* Layers, embedding and head of one micro-batch and one group along tp. A sparse layer's rows are
 * gathered for its router and experts alike; what shares of experts make of each chosen row is summed
 * everywhere in f32, and so is the gradient of these rows; the gradient of what was combined is gathered.
 * A shared part sends what a dense one does, and with ep the rows have room for those of all ranks. */
static double rows_over_tensor(const struct ranks *all, double a)
{
    const struct rank *k = &all->rank[0];
    const struct model_spec *s = &k->model->spec;
    double others = (double)all->layout.tp - 1, rows = (double)(k->rows.B * RANK_T);
    double narrow = others * rows * (double)s->width * a, wide = others * rows * (double)s->width * 4;
    double half = 3 * narrow + wide; /* all in a but the forward pass's sums, in f32 */
    double shared = fmax(1, (double)(all->layout.tp / s->kv_heads)) - 1; /* a head's parts: */
    double heads = shared * rows * (double)(s->kv_heads * 2 * s->head_size) * 2 * a; /* there and back */
    double embedding = 2 * narrow, head = 2 * narrow;
    double loss = 2 * others * rows * 4 * (1 + 2); /* a maximum, and two sums */
    double sparse = (double)spec_sparse_layers(s), ep = (double)all->layout.ep, chosen = 0, experts = 0;
    if (sparse > 0) {
        chosen = ep * (double)i64_min(s->experts_per_token, s->experts / all->layout.ep);
        experts = 2 * narrow + 2 * chosen * (wide + narrow) + (s->shared_hidden > 0 ? half : 0);
    }
    return (double)s->layers * (half + heads) + ((double)s->layers - sparse) * half + sparse * experts +
           embedding + head + loss;
}

/* Experts over ranks, where every token chooses all of them: each row and its gradient go to each
 * expert and back, those of a rank's own experts stay, and each layer counts them first. */
static double rows_over_experts(const struct ranks *all, double a)
{
    const struct rank *k = &all->rank[0];
    const struct model_spec *s = &k->model->spec;
    double n = (double)all->layout.ep, E = (double)s->experts;
    double row = (double)s->width * a, rows = (double)(k->rows.B * RANK_T);
    return (double)spec_sparse_layers(s) * (n - 1) * (4 * E + 4 * E * rows * row);
}

/* Expert parallel: along edp experts' gradients, and their weights where these are split; what zero_group
 * splits is summed over its copies too; along ep rows and a share of the norm. */
static void add_experts(struct counts *c, const struct ranks *all, const struct rank *k, double a)
{
    const struct layout *l = &all->layout;
    const double groups = (double)l->dp / group_of(l), times = k->rows.micro_batches;
    const double same = group_of(l) / (double)l->ep, scatters = l->zero >= 2 ? times : 1;
    const double weights = l->zero == 3 ? times * 2 * a : a; /* gathered for both passes, or once */
    for (i64 i = 0; i < k->model->n_buckets; i++) {
        const struct bucket *b = &k->model->buckets[i];
        if (!b->experts || mesh_coordinate(&k->mesh, LANE_EDP) > 0)
            continue;
        c->bytes[LANE_EDP] += (same - 1) * (double)b->count * (l->zero ? scatters * 4 + weights : 8);
        if (mesh_coordinate(&k->mesh, LANE_COPIES) == 0)
            c->bytes[LANE_COPIES] += 2 * (groups - 1) * 4 * (double)b->count;
    }
    if (mesh_coordinate(&k->mesh, LANE_EP) > 0)
        return;
    c->bytes[LANE_EP] += k->rows.micro_batches * rows_over_experts(all, a);
    if (l->zero == 0)
        c->bytes[LANE_EP] += 2 * (double)(l->ep - 1) * 8;
}

/* Muon: what is orthogonalised is gathered and scattered back in f32, by all that split the state
 * and, for each matrix, by one group along tp of those that do. */
static void add_muon(struct counts *c, const struct rank *k, const struct layout *l)
{
    const struct model *m = k->model;
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        bool any = m->needs & MODEL_MUON && b->adam == b->copied && b->count > b->copied;
        if (any && l->zero > 0 && k->mesh.dp_rank == 0)
            c->bytes[split_lane(l)] += 2 * (group_of(l) - 1) * (double)l->dp / group_of(l) * 4 *
                                       (double)(b->count - b->copied);
    }
    for (i64 i = 0; i < m->n_params; i++)
        if (model_uses_muon(m, &m->params[i].desc) && k->mesh.tp_rank == 0 &&
            (l->zero == 0 || mesh_coordinate(&k->mesh, LANE_SHARD) == 0))
            c->bytes[LANE_TP] += 2 * (double)(l->tp - 1) * 4 *
                                 (double)param_count(&m->params[i].desc);
}

/* A number, or its digits where its sum has no order. */
static double norm_bytes(const struct layout *l)
{
    return l->exact ? 4 * SQUARES_DIGITS : 8;
}

/* Stages that follow each other on other ranks: v pp - 1, one less where a V turns. */
static i64 boundaries_of(const struct stages *s)
{
    i64 n = 0;
    for (int t = 1; t < s->n; t++)
        n += s->rank_of[t] != s->rank_of[t - 1];
    return n;
}

/* A table that two ranks have: an all-reduce of its gradient, of what is here of it. */
static double tie_bytes(const struct rank *k)
{
    const struct param *table = model_shares_table(k->model) ? model_param(k->model, P_WTE, -1) : NULL;
    return table ? 4 * (double)param_here(table) : 0;
}

static struct counts of_formulas(const struct ranks *all, bool half)
{
    const struct layout *l = &all->layout;
    const struct model_spec *s = &all->rank[0].model->spec;
    double a = half ? 2 : 4, micro_batches = all->rank[0].rows.micro_batches;
    double rows = (double)(all->rank[0].rows.B * RANK_T);
    struct counts c = { { 0 } };
    for (int r = 0; r < all->n; r++) {
        const struct rank *k = &all->rank[r];
        for (i64 i = 0; i < k->model->n_buckets; i++) {
            const struct bucket *b = &k->model->buckets[i];
            if (k->mesh.dp_rank == 0 && l->dp > 1 && !(b->experts && l->ep > 1))
                add_bucket(&c, k, b, l, a);
            if (k->mesh.tp_rank == 0 && l->tp > 1)
                c.bytes[LANE_TP] += 2 * (double)(l->tp - 1) * 4 * (double)b->alike;
        }
        c.bytes[LANE_TIE] += tie_bytes(k);
        add_muon(&c, k, l);
        if (l->ep > 1)
            add_experts(&c, all, k, a);
        if (k->mesh.dp_rank == 0 && l->dp > 1 && l->zero > 0) /* a share of the norm */
            c.bytes[split_lane(l)] +=
                2 * (group_of(l) - 1) * (double)l->dp / group_of(l) * norm_bytes(l);
        if (k->mesh.tp_rank == 0 && l->tp > 1)
            c.bytes[LANE_TP] += 2 * (double)(l->tp - 1) * 8;
        if (k->mesh.pp_rank == 0 && l->pp > 1)
            c.bytes[LANE_PP] += 2 * (double)(l->pp - 1) * norm_bytes(l);
    }
    if (l->tp > 1)
        c.bytes[LANE_TP] += (double)l->dp * micro_batches * rows_over_tensor(all, a);
    if (l->pp > 1) /* up and down each boundary; with tp each rank its cut of the rows */
        c.bytes[LANE_PP] += (double)(l->dp * boundaries_of(&all->rank[0].mesh.stages)) * micro_batches *
                            2 * rows * (double)s->width * a;
    return c;
}

/* --- comparing ---------------------------------------------------------------------- */

static void expect_equal(const char *layout, const char *lane, const char *which, double a,
                         double formula)
{
    if (a != formula)
        fail_msg("%s, %s: %s sends %.6f bytes, the formula has %.6f", layout, lane, which, a,
                 formula);
}

/* Of each rank by itself. */
static void expect_ranks_alike(const struct ranks *all, const struct counts *before, const char *layout)
{
    for (int r = 0; r < all->n; r++) {
        const struct counts tasks = of_tasks(&all->rank[r], false), now = of_transport(&all->rank[r]);
        for (int lane = 0; lane < LANE_COUNT; lane++)
            if (axis_of[lane] && now.bytes[lane] - before[r].bytes[lane] != tasks.bytes[lane])
                fail_msg("%s, %s, rank %d: the transport sends %.6f bytes, the program has %.6f", layout,
                         axis_of[lane], r, now.bytes[lane] - before[r].bytes[lane], tasks.bytes[lane]);
    }
}

static void expect_counts_with(const char *layout, bool gpt2, bool half, int optimizer,
                               enum tiny_experts experts)
{
    struct ranks all;
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 2, .B = 4 },
                               .layout = layout };
    if ((strstr(layout, "pp=") && !strstr(layout, "zero=1")) || strstr(layout, "exact"))
        o.tiny.micro_batches = 8; /* several for each rank */
    if (strstr(layout, "schedule="))
        o.layers = 8; /* several stages a rank */
    o.tiny.gpt2 = gpt2;
    o.tiny.bf16 = half;
    o.tiny.backend = backend_best();
    o.tiny.optimizer = optimizer;
    o.tiny.experts = experts;
    o.choices = strstr(layout, "ep=") ? 8 : 0; /* all, so that loads are even */
    ranks_open(&all, &o);
    struct counts before = all_transport(&all), tasks = all_tasks(&all, false);
    struct counts *each = ARENA_ARRAY(&all.rank[0].arena, struct counts, all.n);
    for (int r = 0; r < all.n; r++)
        each[r] = of_transport(&all.rank[r]);
    ranks_step(&all, 0);
    struct counts after = all_transport(&all), formula = of_formulas(&all, half);
    expect_ranks_alike(&all, each, layout);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (!axis_of[lane])
            continue;
        expect_equal(layout, axis_of[lane], "the program", tasks.bytes[lane], formula.bytes[lane]);
        expect_equal(layout, axis_of[lane], "the transport",
                     after.bytes[lane] - before.bytes[lane], formula.bytes[lane]);
    }
    CHECK((formula.bytes[LANE_TIE] > 0) == (gpt2 && all.layout.pp > 1 &&
                                            all.rank[0].mesh.stages.rank_of[all.rank[0].mesh.stages.n - 1] > 0));
    ranks_close(&all);
}

static void expect_counts_of(const char *layout, bool gpt2, bool half, int optimizer)
{
    expect_counts_with(layout, gpt2, half, optimizer,
                       strstr(layout, "ep=") ? TINY_MIXTRAL : TINY_DENSE);
}

static void expect_counts(const char *layout, bool gpt2, bool half)
{
    expect_counts_of(layout, gpt2, half, OPTIMIZER_ADAMW);
}

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
}

TEST(muon_sends_what_the_formula_says)
{
    expect_counts_of("dp=4", true, true, OPTIMIZER_MUON);
    expect_counts_of("dp=4,zero=1", true, false, OPTIMIZER_MUON);
    expect_counts_of("dp=2,tp=2", false, true, OPTIMIZER_MUON);
    expect_counts_of("dp=2,tp=2,zero=1", true, false, OPTIMIZER_MUON);
    expect_counts_of("pp=2,dp=2,tp=2,zero=1", true, true, OPTIMIZER_MUON);
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
    expect_counts_with("tp=2", false, false, OPTIMIZER_ADAMW, TINY_MIXTRAL);
    expect_counts_with("tp=2", false, true, OPTIMIZER_ADAMW, TINY_DEEPSEEK);
    expect_counts_with("dp=2,ep=2,tp=2", false, true, OPTIMIZER_ADAMW, TINY_MIXTRAL);
    expect_counts_with("dp=4,ep=2,tp=2,zero=1", false, false, OPTIMIZER_ADAMW, TINY_DEEPSEEK);
}

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
        if (i != c->index) {
            c->leave += traffic[i];
            c->come += traffic[n + i];
        }
}

/* What a router chose: each row goes there and back, and so do the gradients of both ways. The rest of
 * what goes along ep does not depend on it. */
static double ep_bytes(const struct rank *k, const struct routed *c, double a)
{
    struct program *p = k->step.program;
    double sum = 2 * (double)(c->leave + c->come) * (double)k->model->spec.width * a;
    for (i64 n = 0; n < p->n_actions; n++) {
        const struct segment *s = &p->segments[p->actions[n].segment];
        for (i64 i = 0; i < s->n_tasks; i++)
            if (s->tasks[i].lane == LANE_EP && s->tasks[i].op != &op_expert_exchange &&
                (!s->tasks[i].last_turn || p->actions[n].micro_batch == p->micro_batches - 1))
                sum += sent_by(&s->tasks[i]);
    }
    return sum;
}

static void expect_routed_counts(const char *layout, bool half, enum tiny_experts experts)
{
    struct ranks all;
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 2, .B = 4, .bf16 = half,
                                         .backend = backend_best(), .experts = experts },
                               .layout = layout };
    ranks_open(&all, &o);
    struct routed *routed = ARENA_ARRAY(&all.rank[0].arena, struct routed, all.n);
    bool uneven = false;
    for (int r = 0; r < all.n; r++) {
        struct backend *b = &all.rank[r].engine.backend;
        struct kernel counting = arrival = *backend_kernel(b, &op_expert_arrival);
        counting.run = count_arrivals;
        counting.context = &routed[r];
        routed[r].index = mesh_coordinate(&all.rank[r].mesh, LANE_EP);
        backend_set(b, &op_expert_arrival, counting);
    }
    double *before = ARENA_ARRAY(&all.rank[0].arena, double, all.n);
    for (int r = 0; r < all.n; r++)
        before[r] = of_transport(&all.rank[r]).bytes[LANE_EP];
    ranks_step(&all, 0);
    for (int r = 0; r < all.n; r++) {
        expect_equal(layout, "ep", "the transport",
                     of_transport(&all.rank[r]).bytes[LANE_EP] - before[r],
                     ep_bytes(&all.rank[r], &routed[r], half ? 2 : 4));
        uneven = uneven || routed[r].leave != routed[r].come;
    }
    CHECK(uneven);
    ranks_close(&all);
}

TEST(uneven_loads_send_what_was_routed)
{
    expect_routed_counts("dp=2,ep=2", false, TINY_MIXTRAL);
    expect_routed_counts("dp=4,ep=4,zero=1", true, TINY_DEEPSEEK);
    expect_routed_counts("dp=4,ep=2,zero=3", false, TINY_MIXTRAL);
    expect_routed_counts("dp=2,ep=2,tp=2", true, TINY_DEEPSEEK);
    expect_routed_counts("cp=2,dp=2,ep=4", false, TINY_MIXTRAL);
    expect_routed_counts("pp=2,dp=2,ep=2", false, TINY_MIXTRAL);
}

/* Islands exchange nothing in a step; in an outer step, what each has of the state is summed: from
 * every rank 2 (n - 1) / n x 4 bytes an element, and one number for the metrics. */
static void expect_island_counts(const char *layout, bool gpt2)
{
    struct ranks all;
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 4, .B = 4 },
                               .layout = layout, .outer_lr = 0.7, .outer_momentum = 0.9 };
    o.tiny.gpt2 = gpt2;
    o.tiny.backend = backend_best();
    ranks_open(&all, &o);
    double islands = (double)all.layout.islands, formula = 0;
    for (int r = 0; r < all.n; r++) {
        const struct model *m = all.rank[r].model;
        for (i64 i = 0; i < m->n_buckets; i++)
            formula += 4 * (double)(m->buckets[i].copied + m->buckets[i].own_count);
        formula += 8;
    }
    formula *= 2 * (islands - 1) / islands;
    struct counts before = all_transport(&all), tasks = all_tasks(&all, true);
    ranks_step(&all, 0);
    struct counts step = all_transport(&all);
    CHECK_OK(ranks_run(&all, 0, true));
    struct counts after = all_transport(&all);
    CHECK(step.bytes[LANE_ISLAND] == before.bytes[LANE_ISLAND]);
    CHECK(all_tasks(&all, false).bytes[LANE_ISLAND] == 0);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (axis_of[lane])
            expect_equal(layout, axis_of[lane], "the transport", after.bytes[lane] - step.bytes[lane],
                         tasks.bytes[lane]);
    expect_equal(layout, "islands", "the outer program", tasks.bytes[LANE_ISLAND], formula);
    ranks_close(&all);
}

TEST(islands_send_what_the_formula_says)
{
    expect_island_counts("islands=2", true);
    expect_island_counts("islands=4", false);
    expect_island_counts("islands=2,dp=2,tp=2,zero=1", true);
    expect_island_counts("islands=2,dp=2,zero=3", false);
    expect_island_counts("islands=2,pp=2", false);
}

TEST_MAIN(ONE(islands_send_what_the_formula_says),
          ONE(data_parallel_ranks_send_what_the_formula_says),
          ONE(groups_that_are_copies_send_what_the_formula_says),
          ONE(tensor_parallel_ranks_send_what_the_formula_says),
          ONE(stages_send_what_the_formula_says), ONE(muon_sends_what_the_formula_says),
          ONE(ranks_with_other_experts_send_what_the_formula_says),
          ONE(groups_that_share_experts_send_what_the_formula_says),
          ONE(experts_that_tp_cuts_send_what_the_formula_says), ONE(uneven_loads_send_what_was_routed))
