/* Muon's matrices, split and cut: one rank does each matrix's steps, and all have its bits. */
#include "test.h"

#include "parallel/exact.h"
#include "parallel/spread.h"

static struct ranks_options options(const char *layout, bool gpt2, i64 B, int micro_batches)
{
    return (struct ranks_options){ .tiny = { .threads = 1, .B = B, .micro_batches = micro_batches,
                                             .gpt2 = gpt2, .optimizer = OPTIMIZER_MUON,
                                             .backend = backend_best() }, .layout = layout };
}

TEST(matrices_split_by_zero_or_cut_by_tp_have_the_bits_of_one_rank)
{
    static const char *const layouts[] = {
        "dp=2", "dp=4,zero=1", "dp=2,zero=2", "dp=4,zero=3", "tp=2", "tp=4", "dp=2,tp=2",
        "dp=2,tp=2,zero=1", "dp=4,tp=2,zero=2", "dp=2,tp=4,zero=3",
        "pp=2,dp=2,tp=2,zero=1,schedule=zb-v",
    };
    for (i64 i = 0; i < COUNT_OF(layouts); i++)
        for (int gpt2 = 0; gpt2 < 2; gpt2++) {
            bool pipeline = strstr(layouts[i], "pp") != NULL;
            struct ranks_options o = options(layouts[i], gpt2, pipeline ? 2 : 4, pipeline ? 4 : 1);
            o.layers = pipeline ? 4 : 0;
            o.heads = 4;
            o.tiny.bf16 = i % 2;
            expect_exact_options(&o);
        }
}

TEST(without_exact_mode_muon_trains_like_one_rank)
{
    struct ranks_options o = options("dp=2,tp=2,zero=3", false, 4, 2);
    expect_as_one(&o, 1e-6, 2e-3);
    o.layout = "dp=2,cp=2,zero=2";
    expect_as_one(&o, 1e-6, 2e-3);
    o.layout = "dp=4,zero=1";
    o.tiny.bf16 = true;
    expect_as_one(&o, 1e-2, 2e-2);
}

/* By kind of task over all ranks: how many matrices, and how often the steps are done. */
TEST(each_matrix_is_orthogonalised_once)
{
    static const char *const layouts[] = { "dp=4,zero=1", "tp=2", "dp=2,tp=2,zero=3" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct ranks all;
        struct ranks_options o = options(layouts[i], false, 4, 1);
        i64 matrices = 0, done = 0, busiest = 0;
        ranks_open(&all, &o);
        for (i64 k = 0; k < all.rank[0].model->n_params; k++)
            matrices += model_uses_muon(all.rank[0].model, &all.rank[0].model->params[k].desc);
        for (int r = 0; r < all.n; r++) {
            const struct program *p = all.rank[r].step.program;
            i64 here = 0;
            for (i64 id = 0; id < p->n_tasks; id++)
                here += p->by_id[id]->op == &op_muon_orthogonal &&
                        p->by_id[id]->attr[MUON_ELSEWHERE] == 0;
            done += here;
            busiest = i64_max(busiest, here);
        }
        CHECK_EQ(done, matrices);
        CHECK(busiest <= ceil_div(matrices, all.n) + 2);
        ranks_close(&all);
    }
}

/* --- faults ------------------------------------------------------------------------- */

static const struct fault {
    const char *name, *layout;
    const struct op_info *op;
    enum lane lane;
    int attr;          /* of all such tasks on rank 1 set to value; -1: they are not run */
    double value;
    const char *text; /* of the check of the list, without the first one; NULL: it cannot know */
} faults[] = {
    { "momentum is not gathered over dp", "dp=2,zero=1", &op_all_gather, LANE_DP, -1, 0,
      "the whole matrix is needed" },
    { "momentum is not gathered over tp", "tp=2", &op_all_gather, LANE_TP, -1, 0,
      "the whole matrix is needed" },
    { "results are not scattered over dp", "dp=2,zero=2", &op_reduce_scatter, LANE_DP, -1, 0,
      "it must be reduced first" },
    { "results are not scattered over tp", "tp=2", &op_reduce_scatter, LANE_TP, -1, 0,
      "it must be reduced first" },
    { "nobody does a matrix", "dp=2,zero=1", &op_muon_orthogonal, LANE_COMPUTE, MUON_ELSEWHERE,
      1, NULL },
    { "two ranks do a matrix", "tp=2", &op_muon_orthogonal, LANE_COMPUTE, MUON_ELSEWHERE, 0,
      NULL },
    { "columns are taken as rows", "tp=2", &op_muon_orthogonal, LANE_COMPUTE, MUON_COLUMNS, 0,
      NULL },
    { "fused blocks are taken as one", "tp=2", &op_muon_orthogonal, LANE_COMPUTE, MUON_ROWS0, 0,
      NULL },
    { "the average of the momentum is not kept", "dp=2,zero=3", &op_muon_momentum, LANE_COMPUTE,
      MUON_MU, 0, NULL },
};

static bool is_of(const struct task *t, const struct fault *f)
{
    return t->phase == PHASE_UPDATE && t->op == f->op && t->lane == f->lane;
}

static i32 never_data = 0;
static struct tensor never = { .name = "never", .dtype = DTYPE_I32, .role = ROLE_RESULT, .rank = 1,
                               .dim = { 1 }, .index = -1, .data = &never_data };

static void spoil(const struct program *p, const struct fault *f)
{
    for (i64 id = 0; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        if (!is_of(t, f))
            continue;
        if (f->attr < 0)
            t->when = &never;
        else if (f->attr == MUON_ROWS0)
            t->attr[MUON_ROWS0] = t->attr[MUON_ROWS1] = t->attr[MUON_ROWS2] = 0;
        else
            t->attr[f->attr] = f->value;
    }
}

TEST(every_fault_of_muons_exchanges_changes_some_bit)
{
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        const struct fault *f = &faults[i];
        struct ranks one, many;
        char layout[64];
        snprintf(layout, sizeof layout, "%s,exact=true", f->layout);
        struct ranks_options o = options("exact=true", false, 4, 1);
        ranks_open(&one, &o);
        o.layout = layout;
        ranks_open(&many, &o);
        for (int r = f->attr < 0 ? 0 : 1; r < many.n; r++)
            spoil(many.rank[r].step.program, f);
        if (!exact_run(&one, &many))
            fail_msg("nobody sees that %s (%s)", f->name, f->layout);
        ranks_close(&one);
        ranks_close(&many);
    }
}

/* Whoever reads what the task would write reads what it reads. */
static void leave_out(struct graph *g, const struct fault *f)
{
    i64 at = 0;
    while (!is_of(g->tasks[at], f))
        at++;
    const struct task *gone = g->tasks[at];
    g->n_tasks--;
    memmove(g->tasks + at, g->tasks + at + 1, sizeof *g->tasks * (size_t)(g->n_tasks - at));
    for (i64 i = at; i < g->n_tasks; i++) {
        struct task *t = ARENA_NEW(g->arena, struct task);
        *t = *g->tasks[i];
        for (int k = 0; k < TASK_INS; k++)
            if (t->in[k] && (t->in[k] == gone->out[0] || t->in[k]->owner == gone->out[0]))
                t->in[k] = gone->in[0];
        g->tasks[i] = t;
    }
}

TEST(an_exchange_that_is_missing_is_refused_by_name)
{
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct ranks all;
        struct ranks_options o = options(faults[i].layout, false, 4, 1);
        if (!faults[i].text)
            continue;
        ranks_open(&all, &o);
        struct rank *k = &all.rank[0];
        CHECK_OK(spread_check(&k->step.graph, k->model, &k->mesh));
        leave_out(&k->step.graph, &faults[i]);
        CHECK_FAILS(spread_check(&k->step.graph, k->model, &k->mesh), ERR_INTERNAL,
                    faults[i].text);
        ranks_close(&all);
    }
}

TEST_MAIN(ONE(matrices_split_by_zero_or_cut_by_tp_have_the_bits_of_one_rank),
          ONE(without_exact_mode_muon_trains_like_one_rank),
          ONE(each_matrix_is_orthogonalised_once),
          ONE(every_fault_of_muons_exchanges_changes_some_bit),
          ONE(an_exchange_that_is_missing_is_refused_by_name))
