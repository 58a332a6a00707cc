/* Pipelines beside one rank, and faults that this must see. */
#include "test.h"

#include "parallel/ranks.h"

#include <stdio.h>

static struct ranks_options options(const char *layout, bool gpt2, i64 layers, int micro_batches)
{
    return (struct ranks_options){
        .tiny = { .backend = backend_best(), .gpt2 = gpt2, .threads = 1,
                  .micro_batches = micro_batches, .B = 2 },
        .layout = layout, .layers = layers,
    };
}

static void expect(const char *layout, bool gpt2, i64 layers, int micro_batches)
{
    struct ranks_options o = options(layout, gpt2, layers, micro_batches);
    expect_as_one(&o, 1e-6, 2e-3);
}

TEST(two_stages_train_like_one_rank_in_every_order)
{
    for (int gpt2 = 0; gpt2 < 2; gpt2++) { /* tied, untied */
        expect("pp=2,schedule=gpipe", gpt2, 3, 4);
        expect("pp=2", gpt2, 3, 4);
        expect("pp=2,schedule=interleaved", gpt2, 5, 4);
        expect("pp=2,schedule=zb-h1", gpt2, 3, 4);
        expect("pp=2,schedule=zb-v", gpt2, 5, 4);
    }
}

TEST(four_stages_train_like_one_rank_in_every_order)
{
    for (int gpt2 = 0; gpt2 < 2; gpt2++) {
        expect("pp=4,schedule=gpipe", gpt2, 4, 8);
        expect("pp=4,schedule=1f1b", gpt2, 6, 6);
        expect("pp=4,schedule=interleaved", gpt2, 8, 8);
        expect("pp=4,schedule=zb-h1", gpt2, 5, 7);
        expect("pp=4,schedule=zb-v", gpt2, 9, 8);
    }
}

TEST(pipelines_combine_with_rows_and_cut_matrices)
{
    for (int gpt2 = 0; gpt2 < 2; gpt2++) {
        expect("pp=2,dp=2,schedule=zb-h1", gpt2, 3, 4);
        expect("pp=2,dp=2,zero=1", gpt2, 4, 4);
        expect("pp=2,tp=2,schedule=zb-v", gpt2, 4, 2);
        expect("pp=2,tp=2,dp=2,zero=1,schedule=interleaved", gpt2, 4, 4);
        expect("pp=4,tp=2,dp=2,schedule=zb-h1", gpt2, 4, 8);
    }
}

TEST(stages_may_be_uneven)
{
    expect("pp=2,stages=1+4", true, 5, 3);
    expect("pp=4,stages=2+1+3+1,schedule=zb-h1", false, 7, 4);
    expect("pp=2,stages=1+1+2+3,schedule=zb-v", true, 7, 4);
}

TEST(fewer_micro_batches_than_stages_work_too)
{
    expect("pp=4,schedule=zb-h1", true, 4, 1);
    expect("pp=4", false, 4, 2);
    expect("pp=2,schedule=zb-v", true, 4, 1);
}

TEST(recompute_and_half_precision_go_with_a_pipeline)
{
    struct ranks_options o = options("pp=2,schedule=zb-h1", false, 4, 4);
    o.tiny.recompute = RECOMPUTE_FULL;
    expect_as_one(&o, 1e-6, 2e-3);
    o.tiny.recompute = RECOMPUTE_SELECTIVE;
    o.layout = "pp=2,schedule=zb-v";
    expect_as_one(&o, 1e-6, 2e-3);
    o.tiny.bf16 = true;
    expect_as_one(&o, 1e-2, 2e-2);
    o.tiny.optimizer = OPTIMIZER_MUON;
    o.tiny.bf16 = false;
    o.layout = "pp=2,dp=2";
    expect_as_one(&o, 1e-6, 2e-3);
}

/* Written by hand: rank 1 does W of the first micro-batches late, all else at once. */
TEST(an_order_from_a_file_trains_like_one_rank)
{
    static const char order[] = "0F0,0F1,0B0,0F2,0B1,0B2\n"
                                "1F0,1I0,1F1,1I1,1W0,1F2,1B2,1W1\n";
    const char *path = "test_pipeline_order.csv";
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(order, f) >= 0 && fclose(f) == 0);
    struct ranks_options o = options("pp=2,schedule=test_pipeline_order.csv", true, 3, 3);
    struct arena a;
    struct layout l = layout_single();
    struct model_spec s = tiny_spec(true);
    arena_init(&a);
    CHECK_OK(layout_parse(&l, o.layout, "test", &a));
    CHECK_FAILS(layout_check(&l, &s, 2, 4, 32, 3), ERR_CONFIG, "ascending");
    f = fopen(path, "w");
    CHECK(f && fputs("0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1I0,1F1,1I1,1W0,1F2,1W1,1B2\n", f) >= 0 &&
          fclose(f) == 0);
    CHECK_OK(layout_check(&l, &s, 2, 4, 32, 3));
    CHECK_FAILS(layout_check(&l, &s, 2, 4, 32, 4), ERR_CONFIG, "has 3 micro-batches");
    expect_as_one(&o, 1e-6, 2e-3);
    arena_fini(&a);
    CHECK(remove(path) == 0);
}

/* --- memory ------------------------------------------------------------------------- */

static i64 slots_of(const struct program *p, const char *name)
{
    i64 most = 0;
    for (i64 i = 0; i < p->n_tensors; i++)
        if (!p->tensors[i]->owner && strcmp(p->tensors[i]->name, name) == 0)
            most = i64_max(most, p->tensors[i]->slots ? p->tensors[i]->slots->n : 1);
    return most;
}

TEST(activations_are_kept_for_the_micro_batches_in_flight_and_no_more)
{
    struct ranks all;
    struct ranks_options o = options("pp=4", false, 4, 8);
    ranks_open(&all, &o);
    for (int r = 0; r < 4; r++) /* 1F1B: p - r of them */
        CHECK_EQ(slots_of(all.rank[r].step.program, "attention"), 4 - r);
    ranks_close(&all);
    o.layout = "pp=4,schedule=gpipe";
    ranks_open(&all, &o);
    for (int r = 0; r < 4; r++)
        CHECK_EQ(slots_of(all.rank[r].step.program, "attention"), 8);
    ranks_close(&all);
    o.layout = "dp=1";
    ranks_open(&all, &o);
    for (i64 i = 0; i < all.rank[0].step.program->n_tensors; i++)
        CHECK(!all.rank[0].step.program->tensors[i]->slots);
    ranks_close(&all);
}

/* --- faults ------------------------------------------------------------------------- */

static struct task *find_task(struct program *p, const struct op_info *op, enum lane lane)
{
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->op == op && p->by_id[id]->lane == lane)
            return p->by_id[id];
    fail_msg("there is no %s", op->name);
    return NULL;
}

static void leave_out(struct rank *k, struct task *t)
{
    struct tensor *never = ARENA_NEW(&k->arena, struct tensor);
    never->data = ARENA_NEW(&k->arena, i32);
    t->when = never;
}

static i64 find_action(const struct program *p, enum segment_kind kind, int micro_batch)
{
    for (i64 a = 0; a < p->n_actions; a++)
        if (p->segments[p->actions[a].segment].kind == kind &&
            p->actions[a].micro_batch == micro_batch)
            return a;
    fail_msg("there is no such action");
    return -1;
}

static void swap_actions(struct rank *k, enum segment_kind a, int i, enum segment_kind b, int j)
{
    struct program *p = k->step.program;
    struct action *x = &p->actions[find_action(p, a, i)], *y = &p->actions[find_action(p, b, j)];
    struct action t = *x;
    *x = *y;
    *y = t;
}

static void wrong_peer(struct ranks *all)
{
    struct task *t = find_task(all->rank[1].step.program, &op_recv, LANE_PP);
    t->attr[MOVE_UP] = !t->attr[MOVE_UP];
}

static void swapped_micro_batches(struct ranks *all)
{
    swap_actions(&all->rank[2], SEGMENT_RECV_F, 1, SEGMENT_RECV_F, 2);
}

static void missing_table_sum(struct ranks *all)
{
    for (int r = 0; r < all->n; r++) {
        struct rank *k = &all->rank[r];
        if (model_shares_table(k->model))
            leave_out(k, find_task(k->step.program, &op_all_reduce, LANE_TIE));
    }
}

static void missing_norm_sum(struct ranks *all)
{
    for (int r = 0; r < all->n; r++) {
        struct rank *k = &all->rank[r];
        leave_out(k, find_task(k->step.program, &op_all_reduce, LANE_PP));
    }
}

static void table_counted_twice(struct ranks *all)
{
    struct program *p = all->rank[all->n - 1].step.program;
    struct task *t = find_task(p, &op_sum_squares, LANE_COMPUTE);
    t->in[0] = model_param(all->rank[all->n - 1].model, P_WTE, -1)->grad;
}

static void too_few_slots(struct ranks *all)
{
    struct program *p = all->rank[0].step.program;
    for (i64 i = 0; i < p->n_tensors; i++)
        if (p->tensors[i]->slots && strcmp(p->tensors[i]->name, "attention") == 0)
            p->tensors[i]->slots->n = 1;
}

static void weight_gradient_too_early(struct ranks *all)
{
    swap_actions(&all->rank[2], SEGMENT_BACKWARD, 2, SEGMENT_WEIGHT, 2);
}

static void lost_weight_gradient(struct ranks *all)
{
    struct program *p = all->rank[0].step.program;
    i64 a = find_action(p, SEGMENT_WEIGHT, 1);
    memmove(p->actions + a, p->actions + a + 1,
            sizeof *p->actions * (size_t)(--p->n_actions - a));
}

static void second_writer_overwrites(struct ranks *all)
{
    struct program *p = all->rank[0].step.program;
    find_task(p, &op_linear_dw, LANE_COMPUTE)->accumulate = ACCUMULATE_NONE;
}

static void early_reduction(struct ranks *all)
{
    for (int r = 0; r < all->n; r++)
        find_task(all->rank[r].step.program, &op_all_reduce, LANE_DP)->last_turn = false;
}

static void other_batch(const struct task *t, struct run *x)
{
    x->micro_batch ^= 1;
    ranks_batch(t, x);
    x->micro_batch ^= 1;
}

static void targets_of_another_micro_batch(struct ranks *all)
{
    struct rank *k = &all->rank[all->n - 1];
    backend_set(&k->engine.backend, &op_load_batch,
                (struct kernel){ .run = other_batch, .context = k });
}

static const struct lane_driver *true_lanes;

static int wait_for_nobody(void *context, enum lane lane, u64 ticket, bool block)
{
    return lane == LANE_PP ? 1 : true_lanes->wait(context, lane, ticket, block);
}

static void dropped_wait(struct ranks *all)
{
    static struct lane_driver lanes;
    true_lanes = all->rank[2].engine.lanes;
    lanes = *true_lanes;
    lanes.wait = wait_for_nobody;
    all->rank[2].engine.lanes = &lanes;
}

/* Whether three steps differ from those of one rank, or cannot be made. */
static bool is_seen(void (*spoil)(struct ranks *), const char *layout)
{
    struct ranks one, many;
    struct ranks_options o = options("dp=1", true, 4, 8);
    bool seen = false;
    ranks_open(&one, &o);
    o.layout = layout;
    ranks_open(&many, &o);
    if (spoil)
        spoil(&many);
    for (u64 step = 0; step < 3 && !seen; step++) {
        double a = ranks_step(&one, step), b = 0;
        seen = ranks_try_step(&many, step, &b) < 0 || !(fabs(a - b) <= 1e-6 * a);
    }
    for (int r = 0; r < many.n && !seen; r++)
        seen = !(distance(&one, &many.rank[r]) <= 2e-3);
    ranks_close(&one);
    ranks_close(&many);
    return seen;
}

TEST(faults_of_a_pipeline_are_seen)
{
    static const struct {
        const char *name;
        void (*spoil)(struct ranks *);
    } faults[] = {
        { "wrong peer", wrong_peer },
        { "swapped micro-batches", swapped_micro_batches },
        { "missing sum of the shared table", missing_table_sum },
        { "missing sum of the norm", missing_norm_sum },
        { "shared table counted twice", table_counted_twice },
        { "too few slots", too_few_slots },
        { "weight gradient too early", weight_gradient_too_early },
        { "lost weight gradient", lost_weight_gradient },
        { "later micro-batches overwrite", second_writer_overwrites },
        { "reduction before the last micro-batch", early_reduction },
        { "targets of another micro-batch", targets_of_another_micro_batch },
        { "dropped wait", dropped_wait },
    };
    CHECK(!is_seen(NULL, "pp=2,dp=2,schedule=zb-h1"));
    for (int i = 0; i < COUNT_OF(faults); i++)
        if (!is_seen(faults[i].spoil, "pp=2,dp=2,schedule=zb-h1"))
            fail_msg("not seen: %s", faults[i].name);
}

/* --- layouts ------------------------------------------------------------------------ */

static void refuse(const char *text, i64 ranks, int micro_batches, const char *why)
{
    struct arena a;
    struct layout l = layout_single();
    struct model_spec s = tiny_spec(true);
    arena_init(&a);
    s.layers = 6;
    CHECK_OK(layout_parse(&l, text, "test", &a));
    CHECK_FAILS(layout_check(&l, &s, ranks, 4, 32, micro_batches), ERR_CONFIG, why);
    arena_fini(&a);
}

TEST(pipelines_that_do_not_fit_are_refused)
{
    refuse("pp=8", 8, 8, "more than the model's 6 layers; pp=6 has 6");
    refuse("pp=4,chunks=8,schedule=interleaved", 4, 8, "choose another layout.schedule or fewer");
    refuse("pp=4,schedule=interleaved", 4, 8, "layers; pp=3 has 6");
    refuse("pp=2,schedule=interleaved", 2, 3, "4 would do");
    refuse("pp=2,schedule=dualpipe", 2, 4, "neither gpipe");
    refuse("pp=2,schedule=/nowhere/x.csv", 2, 4, "/nowhere/x.csv");
    refuse("pp=2,stages=1+4", 2, 4, "5 layers together");
    refuse("pp=2,stages=1+x", 2, 4, "like 3+5+4");
    refuse("pp=2,chunks=2", 2, 4, "needs 1 stage on each rank, not 2; leave layout.chunks "
                                  "out, or choose layout.schedule=interleaved");
    refuse("pp=2,chunks=3,schedule=zb-v", 2, 4,
           "needs 2 stages on each rank, not 3; set layout.chunks=2");
    refuse("dp=2,schedule=zz", 2, 4, "neither gpipe");
    refuse("dp=2,stages=4+4", 2, 4, "layout.stages is about a pipeline");
    refuse("dp=2,schedule=zb-h1", 2, 4, "layout.schedule is about a pipeline, and pp=1 has none");
    refuse("dp=2,schedule=x.csv", 2, 4, "layout.schedule is about a pipeline, and pp=1 has none");
    refuse("dp=2,chunks=2", 2, 4, "layout.chunks is about a pipeline");
    refuse("pp=2,dp=2", 6, 4, "start 4, or change its degrees"); /* 3 do not share 4 rows */
}

/* Each suggestion of a refusal, given as it is written, is accepted on as many ranks. */
static void follow(const char *text, i64 ranks, const char *const suggestions[3])
{
    const char *all = suggestions[0];
    struct arena a;
    struct model_spec s = tiny_spec(true);
    arena_init(&a);
    s.layers = 6;
    for (int i = 0; i < 3 && suggestions[i]; i++) {
        bool last = i == 2 || !suggestions[i + 1];
        struct layout l = layout_single();
        CHECK_OK(layout_parse(&l, suggestions[i], "test", &a));
        CHECK_OK(layout_check(&l, &s, ranks, 4, 32, 4));
        if (i > 0)
            all = arena_printf(&a, "%s%s%s", all, last ? " or " : ", ", suggestions[i]);
    }
    refuse(text, ranks, 4, arena_printf(&a, "started; %s would fit", all));
    arena_fini(&a);
}

TEST(suggestions_work_as_they_are_written)
{
    follow("pp=2,dp=2", 8, (const char *[3]){ "pp=2,dp=4", "dp=8" });
    follow("dp=2,tp=2", 8, (const char *[3]){ "dp=4,tp=2", "dp=8" });
    follow("pp=2,dp=2,tp=2", 4, (const char *[3]){ "pp=2,tp=2", "pp=2,dp=2", "dp=2,tp=2" });
    follow("dp=2,zero=1", 4, (const char *[3]){ "dp=4,zero=1" });
    follow("dp=2", 1, (const char *[3]){ "dp=1" });
}

TEST(an_even_split_counts_the_head)
{
    struct layout l = layout_single();
    struct model_spec s = tiny_spec(false);
    struct layer_range out[4];
    const struct stages four = { 4, (int[]){ 0, 1, 2, 3 } };
    s.layers = 14;
    CHECK_OK(stages_layers(&l, &four, &s, out));
    /* A layer costs 8320 multiply-adds a token, the head 61 x 32 = 1952: less than a layer. */
    CHECK_EQ(out[0].count, 3);
    CHECK_EQ(out[3].count, 3);
    s.vocab = 600; /* 2.3 layers */
    CHECK_OK(stages_layers(&l, &four, &s, out));
    CHECK_EQ(out[0].count, 4);
    CHECK_EQ(out[3].first, 12);
    CHECK_EQ(out[3].count, 2);
}

/* Ranks with several stages: what counts is what a rank has in all of them. */
TEST(an_even_split_is_even_over_ranks)
{
    struct layout l = layout_single();
    struct model_spec s = tiny_spec(false);
    struct layer_range out[4];
    const struct stages v = { 4, (int[]){ 0, 1, 1, 0 } }, in_turn = { 4, (int[]){ 0, 1, 0, 1 } };
    static const i64 six[] = { 2, 2, 1, 1 }, turns[] = { 1, 2, 2, 1 }, heavy[] = { 1, 3, 2, 1 };
    s.layers = 6;
    CHECK_OK(stages_layers(&l, &v, &s, out));
    for (int t = 0; t < 4; t++)
        CHECK_EQ(out[t].count, six[t]);
    CHECK_OK(stages_layers(&l, &in_turn, &s, out));
    for (int t = 0; t < 4; t++)
        CHECK_EQ(out[t].count, turns[t]); /* the first stage has the embedding, too */
    s.layers = 7;
    s.vocab = 600; /* the first rank of the V has the head: 2.3 layers */
    CHECK_OK(stages_layers(&l, &v, &s, out));
    for (int t = 0; t < 4; t++)
        CHECK_EQ(out[t].count, heavy[t]);
}

TEST_MAIN(ONE(two_stages_train_like_one_rank_in_every_order),
          ONE(four_stages_train_like_one_rank_in_every_order),
          ONE(pipelines_combine_with_rows_and_cut_matrices), ONE(stages_may_be_uneven),
          ONE(an_order_from_a_file_trains_like_one_rank),
          ONE(fewer_micro_batches_than_stages_work_too),
          ONE(recompute_and_half_precision_go_with_a_pipeline),
          ONE(activations_are_kept_for_the_micro_batches_in_flight_and_no_more),
          ONE(faults_of_a_pipeline_are_seen), ONE(pipelines_that_do_not_fit_are_refused),
          ONE(an_even_split_is_even_over_ranks), ONE(suggestions_work_as_they_are_written),
          ONE(an_even_split_counts_the_head))
