/* Expert-parallel steps beside those of one rank; what ranks send. */
#include "test.h"

#include "parallel/ranks.h"

/* Sums in another order, as for other layouts: test_context_parallel. */
static const double loss_bound = 1e-6, weight_bound = 2e-3;

static struct ranks_options options_of(const char *layout, enum tiny_experts experts)
{
    struct ranks_options o = { .layout = layout };
    o.tiny = (struct tiny_options){ .threads = 1, .micro_batches = 2, .B = 4, .experts = experts,
                                    .backend = backend_best() };
    return o;
}

TEST(ranks_that_share_experts_train_like_one)
{
    static const struct { const char *layout; enum tiny_experts experts; } cases[] = {
        { "dp=2", TINY_MIXTRAL },
        { "dp=2,ep=2", TINY_MIXTRAL },
        { "dp=4,ep=4", TINY_DEEPSEEK },
        { "dp=8,ep=8", TINY_MIXTRAL },
        { "dp=4,ep=2", TINY_DEEPSEEK },
        { "dp=4,ep=2", TINY_CAPACITY },
        { "dp=8,ep=4", TINY_MIXTRAL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options_of(cases[i].layout, cases[i].experts);
        expect_as_one(&o, loss_bound, weight_bound);
    }
}

TEST(experts_are_shared_together_with_everything_else)
{
    static const struct {
        const char *layout;
        enum tiny_experts experts;
        enum recompute recompute;
    } cases[] = {
        { "dp=2,ep=2,zero=1", TINY_MIXTRAL, RECOMPUTE_SELECTIVE },
        { "dp=4,ep=2,zero=1", TINY_DEEPSEEK, RECOMPUTE_NONE },
        { "dp=4,ep=4,zero=1", TINY_MIXTRAL, RECOMPUTE_FULL },
        { "dp=4,ep=2", TINY_CAPACITY, RECOMPUTE_FULL },
        { "pp=2,dp=2,ep=2", TINY_DEEPSEEK, RECOMPUTE_SELECTIVE },
        { "pp=3,dp=2,ep=2", TINY_DEEPSEEK, RECOMPUTE_NONE },
        { "pp=2,dp=4,ep=2,zero=1", TINY_MIXTRAL, RECOMPUTE_FULL },
        { "dp=2,ep=2,zero=2", TINY_MIXTRAL, RECOMPUTE_NONE },
        { "dp=4,ep=2,zero=2", TINY_DEEPSEEK, RECOMPUTE_SELECTIVE },
        { "dp=4,ep=4,zero=3", TINY_CAPACITY, RECOMPUTE_NONE },
        { "dp=8,ep=2,zero=3", TINY_MIXTRAL, RECOMPUTE_FULL },
        { "pp=2,dp=4,ep=2,zero=3", TINY_DEEPSEEK, RECOMPUTE_NONE },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options_of(cases[i].layout, cases[i].experts);
        o.tiny.recompute = cases[i].recompute;
        o.tiny.micro_batches = 4;
        expect_as_one(&o, loss_bound, weight_bound);
    }
}

TEST(experts_are_cut_by_tp_too)
{
    static const struct { const char *layout; enum tiny_experts experts; } cases[] = {
        { "tp=2", TINY_MIXTRAL },
        { "tp=2", TINY_DEEPSEEK },
        { "dp=2,ep=2,tp=2", TINY_MIXTRAL },
        { "dp=4,ep=2,tp=2,zero=1", TINY_DEEPSEEK },
        { "dp=2,tp=2,zero=3", TINY_CAPACITY },
        { "pp=2,dp=2,ep=2,tp=2,zero=2", TINY_DEEPSEEK },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options_of(cases[i].layout, cases[i].experts);
        o.tiny.recompute = (enum recompute)(i % 3);
        expect_as_one(&o, loss_bound, weight_bound);
        o.tiny.bf16 = true;
        expect_as_one(&o, 1e-2, 2e-2);
    }
}

/* Tokens of a rank are its part of each row; what a router is judged by is of whole rows. */
TEST(experts_see_the_tokens_of_rows_that_are_cut)
{
    static const struct { const char *layout; enum tiny_experts experts; } cases[] = {
        { "cp=2", TINY_MIXTRAL },
        { "cp=4,cp_kind=ulysses", TINY_DEEPSEEK },
        { "cp=4", TINY_CAPACITY },
        { "cp=2,ep=2", TINY_MIXTRAL },
        { "cp=4,ep=2", TINY_DEEPSEEK },
        { "dp=2,cp=2,ep=4", TINY_DEEPSEEK },
        { "dp=2,cp=4,ep=8,zero=1", TINY_CAPACITY },
        { "dp=4,cp=2,ep=2,zero=2", TINY_MIXTRAL },
        { "dp=2,cp=2,ep=2,tp=2,zero=3", TINY_DEEPSEEK },
        { "pp=2,dp=2,cp=2,ep=4,cp_kind=ulysses,zero=1", TINY_CAPACITY },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options_of(cases[i].layout, cases[i].experts);
        o.tiny.recompute = (enum recompute)(i % 3);
        o.heads = strstr(cases[i].layout, "ulysses") ? 4 : 0;
        expect_as_one(&o, loss_bound, weight_bound);
    }
}

/* Of an expert's load, the first sums of a row and the pairs without room. */
TEST(load_is_that_of_whole_rows)
{
    static const char *const layouts[] = { "cp=2", "dp=2,cp=4,ep=4", "cp=4,tp=2,ep=2" };
    struct ranks one, many;
    struct ranks_options o = options_of("dp=1", TINY_CAPACITY);
    ranks_open(&one, &o);
    ranks_step(&one, 0);
    const struct tensor *load = one.rank[0].io.load;
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        o.layout = layouts[i];
        ranks_open(&many, &o);
        ranks_step(&many, 0);
        for (i64 k = 0; k < load->dim[1]; k++) { /* of the first layer: later ones see rounding */
            double sum = 0, alone = tensor_get(load, k);
            for (int r = 0; r < many.n; r++)
                if (mesh_coordinate(&many.rank[r].mesh, LANE_TP) == 0)
                    sum += tensor_get(many.rank[r].io.load, k);
            CHECK_NEAR(sum, alone, 1e-5 * fabs(alone));
            CHECK(k < load->dim[1] - 1 || alone > 0); /* some were dropped */
        }
        ranks_close(&many);
    }
    ranks_close(&one);
}

TEST(half_precision_ranks_stay_near_one)
{
    struct ranks_options o = options_of("dp=4,ep=2", TINY_MIXTRAL);
    o.tiny.bf16 = true;
    expect_as_one(&o, 1e-2, 2e-2);
}

/* AdamW does not mind the size of gradients, so a wrong norm would not show in the weights. */
TEST(the_norm_counts_every_expert_once)
{
    static const char *const layouts[] = { "dp=2,ep=2", "dp=4,ep=2", "dp=4,ep=2,zero=1",
                                           "pp=2,dp=2,ep=2", "pp=2,dp=2,ep=2,zero=1",
                                           "dp=4,ep=2,zero=2", "dp=4,ep=4,zero=3",
                                           "tp=2", "dp=2,ep=2,tp=2,zero=1" };
    struct ranks_options o = options_of("dp=1", TINY_DEEPSEEK);
    expect_norm_of_one(&o, layouts, COUNT_OF(layouts));
}

/* --- faults ------------------------------------------------------------------------- */

static const struct task *writer_of(const struct program *p, const struct tensor *x)
{
    i64 id = 0;
    while (id < p->n_tasks && p->by_id[id]->out[0] != x)
        id++;
    return id < p->n_tasks ? p->by_id[id] : NULL;
}

/* Products meet rows in the order in which they arrived. */
static void no_sorting(struct program *p)
{
    for (i64 id = 0; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        const struct task *by = t->op == &op_expert_linear ? writer_of(p, t->in[0]) : NULL;
        if (by && by->op == &op_expert_gather)
            t->in[0] = by->in[0];
    }
}

/* Their sum, or something else, of the lane's reductions; of the other lane's instead. */
static void reduce_otherwise(struct program *p, enum lane lane)
{
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->lane == lane && p->by_id[id]->op == &op_all_reduce)
            p->by_id[id]->attr[COLLECTIVE_KIND] = COLLECTIVE_MAX;
}

static void no_sum_of_twins(struct program *p)
{
    reduce_otherwise(p, LANE_EDP);
}

/* Gradients of what came back are sent on as if they had just arrived. */
static void wrong_way(struct program *p)
{
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->op == &op_expert_exchange && p->by_id[id]->phase == PHASE_INPUT_GRAD)
            p->by_id[id]->attr[EXCHANGE_BACK] = p->by_id[id]->attr[EXCHANGE_BACK] == 0;
}

/* The combination of what came back reads what was sent. */
/* A router's balance is that of its own part of the rows. */
static void own_balance(struct program *p)
{
    for (i64 id = 0; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        const struct task *by = t->op == &op_router_grad ? writer_of(p, t->in[3]) : NULL;
        if (by && by->op == &op_all_reduce)
            t->in[3] = by->in[0];
    }
}

/* A rank's tokens come first in their row. */
static void own_room(struct program *p)
{
    for (i64 id = 0; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        if (t->op == &op_expert_order) {
            t->in[1] = NULL;
            t->attr[ORDER_ROW_PARTS] = t->attr[ORDER_ROW_PART] = 0;
        }
    }
}

static void nothing_back(struct program *p)
{
    for (i64 id = 0; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        const struct task *by = t->op == &op_expert_combine ? writer_of(p, t->in[0]) : NULL;
        if (by && by->op == &op_expert_exchange && t->phase == PHASE_FORWARD)
            t->in[0] = by->in[0];
    }
}

TEST(planted_faults_are_seen)
{
    static const struct {
        const char *name, *layout;
        void (*plant)(struct program *p);
        enum tiny_experts experts;
    } faults[] = {
        { "rows are not sorted by expert again", "dp=2,ep=2", no_sorting, TINY_MIXTRAL },
        { "twins do not sum their gradients", "dp=4,ep=2", no_sum_of_twins, TINY_MIXTRAL },
        { "gradients go the wrong way", "dp=4,ep=2", wrong_way, TINY_MIXTRAL },
        { "rows do not come back", "dp=2,ep=2", nothing_back, TINY_MIXTRAL },
        { "balance is that of a part", "cp=2,ep=2", own_balance, TINY_MIXTRAL },
        { "room is that of a part", "cp=4", own_room, TINY_CAPACITY },
    };
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct ranks_options o = options_of(faults[i].layout, faults[i].experts);
        o.plant = faults[i].plant;
        if (!ranks_difference(&o, loss_bound, weight_bound))
            fail_msg("%s: nothing differs when %s", faults[i].layout, faults[i].name);
    }
}

/* --- what is computed and sent ------------------------------------------------------ */

/* Rows that a rank's tokens gave to the experts of one rank, over the step and all layers. */
static double rows_between(const struct rank *from, const struct rank *to)
{
    const struct tensor *load = from->io.load;
    i64 ep = from->mesh.layout.ep, columns = load->dim[1], each = (columns - 3) / ep;
    double rows = 0;
    for (i64 l = 0; l < load->dim[0]; l++)
        for (i64 e = 0; e < each; e++)
            rows += tensor_get(load, l * columns + mesh_coordinate(&to->mesh, LANE_EP) * each + e);
    return rows;
}

/* Whatever the routers choose: a row goes and its value comes back, and so do their gradients. */
TEST(bytes_sent_are_those_of_the_rows_that_were_routed)
{
    struct ranks all;
    struct ranks_options o = options_of("dp=4,ep=4,zero=1", TINY_MIXTRAL);
    ranks_open(&all, &o);
    ranks_step(&all, 0);
    double row = 4 * (double)all.rank[0].model->spec.width;
    double counts = all.rank[0].rows.micro_batches * 3.0 /* layers */ * 4 * 8 * 3 / 4;
    for (int r = 0; r < all.n; r++) {
        double moved = 0;
        for (int other = 0; other < all.n; other++)
            if (other != r)
                moved += 2 * (rows_between(&all.rank[r], &all.rank[other]) +
                              rows_between(&all.rank[other], &all.rank[r]));
        CHECK_NEAR((double)comm_axis_count(all.rank[r].mesh.comm, "ep").sent_bytes,
                   moved * row + counts, 0);
    }
    ranks_close(&all);
}

static double flops_of(const struct ranks *all)
{
    double flops = 0;
    for (int r = 0; r < all->n; r++)
        for (i64 id = 0; id < all->rank[r].step.program->n_tasks; id++)
            flops += all->rank[r].step.program->by_id[id]->cost.model_flops;
    return flops;
}

TEST(work_is_that_of_one_rank_shared_out)
{
    struct ranks one, many;
    struct ranks_options o = options_of("dp=1", TINY_DEEPSEEK);
    o.tiny.micro_batches = 1;
    ranks_open(&one, &o);
    o.layout = "dp=4,ep=2";
    ranks_open(&many, &o);
    CHECK_NEAR(flops_of(&many), flops_of(&one), 0);
    ranks_close(&one);
    ranks_close(&many);
}

/* --- what does not fit -------------------------------------------------------------- */

TEST(layouts_that_do_not_fit_are_refused_with_one_that_does)
{
    static const struct { const char *layout, *says; enum tiny_experts experts; } cases[] = {
        { "dp=4,ep=3", "experts; ep=2 and ep=4 do", TINY_MIXTRAL },
        { "dp=2,ep=4", "the 2 ranks that share the batch and the model's 8 experts; ep=2 does",
          TINY_MIXTRAL },
        { "dp=2,ep=2", "tiny has no experts; use ep=1", TINY_DENSE },
        { "tp=16", "tp=16 does not divide", TINY_MIXTRAL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct layout l = layout_single();
        const struct tiny_options tiny = { .experts = cases[i].experts };
        struct model_spec spec = tiny_spec_of(&tiny);
        arena_init(&a);
        CHECK_OK(layout_parse(&l, cases[i].layout, "test", &a));
        CHECK_FAILS(layout_check(&l, &spec, layout_ranks(&l), 4, 32, 1), ERR_CONFIG,
                    cases[i].says);
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(ranks_that_share_experts_train_like_one),
          ONE(experts_are_shared_together_with_everything_else),
          ONE(experts_are_cut_by_tp_too), ONE(experts_see_the_tokens_of_rows_that_are_cut),
          ONE(load_is_that_of_whole_rows),
          ONE(half_precision_ranks_stay_near_one), ONE(the_norm_counts_every_expert_once),
          ONE(planted_faults_are_seen), ONE(bytes_sent_are_those_of_the_rows_that_were_routed),
          ONE(work_is_that_of_one_rank_shared_out),
          ONE(layouts_that_do_not_fit_are_refused_with_one_that_does))
