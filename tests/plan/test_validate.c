/* Published measurements beside predictions: whoever makes these worse must say so here. */
#include "test.h"

#include "plan/fit.h"
#include "plan/ops_scale.h"
#include "plan/stack.h"
#include "plan/table.h"

#include <math.h>

struct bound { /* percent; 0: not asked */
    const char *set;
    i64 compared; /* rows with a price at least */
    double mean, median, largest;
    double rank;  /* at least */
    double coverage;           /* of the 80 % interval, at least */
    double width;              /* of it, at most: in the middle */
    double near_best, regret;  /* at least, at most */
};

/* What was reached when it was written down, and a little. */
static const struct bound bounds[] = {
    { "korthikanti2022", 8, 2.5, 2.4, 5.5, 0.99, 99, 22.5, 99, 0.1 },
    { "megatron_sc21_table1", 10, 3.2, 2.8, 6.8, 0, 99, 31, 0, 0 },
    { "vtrain_single", 699, 5.6, 3.3, 0, 0.93, 78, 20.5, 88, 2.8 },
    { "vtrain_multi", 40, 8.4, 3.7, 0, 0.78, 77, 25.5, 99, 5.2 },
    { "bigscience_bloom_a100", 77, 7, 5.5, 0, 0.73, 77, 25, 90, 1.2 },
    { "llm_foundry_mpt", 124, 6.2, 5.8, 0, 0, 77, 17.5, 0, 0 },
    { "ultrascale_nanotron_h100", 985, 20.6, 9.1, 0, 0.87, 75, 30.5, 89, 19.5 },
    { "megatron_bridge", 142, 12.8, 10.6, 0, -0.25, 90, 81, 75, 6.5 },
    { "torchtitan", 11, 10.7, 10.5, 0, 0, 80, 40, 99, 3.6 },
};

static void validate(struct validated_set *out, const char *set, struct plan_world *w,
                     struct arena *a)
{
    struct plan_rows *rows = ARENA_NEW(a, struct plan_rows);
    const char *path;
    CHECK_OK(plan_set_path(set, &path, a));
    CHECK_OK(plan_rows_load(rows, path, a));
    CHECK_OK(plan_validate(out, rows, w, a));
}

static bool order_holds(const struct bound *b, const struct validated_set *s)
{
    return s->rank >= b->rank && 100 * s->near_best >= b->near_best &&
           (b->regret == 0 || 100 * s->regret <= b->regret);
}

static void check_bound(const struct bound *b, const struct validated_set *s)
{
    bool good = s->compared >= b->compared && (b->mean == 0 || 100 * s->mape <= b->mean) &&
                100 * s->median <= b->median && order_holds(b, s) &&
                100 * s->coverage >= b->coverage && 100 * s->width <= b->width &&
                (b->largest == 0 || 100 * s->worst <= b->largest);
    if (!good)
        fail_msg("%s: %lld rows, mean %.2f %%, median %.2f %%, largest %.2f %%, rank %.3f, inside "
                 "%.1f %%, width %.1f %%, within 10 %% of the best %.1f %%, regret %.1f %%", b->set,
                 (long long)s->compared, 100 * s->mape, 100 * s->median, 100 * s->worst, s->rank,
                 100 * s->coverage, 100 * s->width, 100 * s->near_best, 100 * s->regret);
}

/* A row's price is of what it ran, not of what the row is called. */
TEST(names_of_rows_change_no_price)
{
    static const char *const names[] = { "korthikanti2022", "bigscience_bloom_a100" };
    struct arena a;
    struct plan_world *w;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        struct plan_rows rows;
        struct validated_set before, after;
        const char *path;
        CHECK_OK(plan_set_path(names[i], &path, &a));
        CHECK_OK(plan_rows_load(&rows, path, &a));
        CHECK_OK(plan_validate(&before, &rows, w, &a));
        for (i64 k = 0; k < rows.n; k++)
            rows.rows[k].id = "somebody's";
        CHECK_OK(plan_validate(&after, &rows, w, &a));
        CHECK_EQ(after.compared, before.compared);
        CHECK_NEAR(after.mape, before.mape, 0);
    }
    arena_fini(&a);
}

TEST(published_sets_are_as_near_as_they_were)
{
    struct arena a;
    struct plan_world *w;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    for (i64 i = 0; i < COUNT_OF(bounds); i++) {
        struct validated_set s;
        validate(&s, bounds[i].set, w, &a);
        check_bound(&bounds[i], &s);
    }
    arena_fini(&a);
}

/* Of all rows that were not fitted: the sentence about intervals is about them together. */
TEST(intervals_hold_over_all_sets_together)
{
    static const char *const names[] = {
        "korthikanti2022", "megatron_sc21_table1", "vtrain_single", "vtrain_multi",
        "bigscience_bloom_a100", "llm_foundry_mpt", "ultrascale_nanotron_h100",
        "megatron_bridge", "torchtitan", "misc_models",
    };
    struct validated_set sets[COUNT_OF(names)], pool, part;
    const struct validated_set *all[COUNT_OF(names)];
    const char *families[4];
    i64 rows = 0, of_families = 0;
    struct arena a;
    struct plan_world *w;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        validate(&sets[i], names[i], w, &a);
        all[i] = &sets[i];
        rows += sets[i].compared;
    }
    plan_validate_pool(&pool, "all", NULL, all, COUNT_OF(names), &a);
    CHECK_EQ(pool.compared, rows);
    CHECK(pool.coverage >= 0.75 && pool.coverage <= 0.85);
    CHECK(pool.width <= 4 * pool.median);
    CHECK_EQ(plan_validate_families(families, 4, all, COUNT_OF(names)), 3);
    CHECK_STR(families[0], "a100");
    for (i64 i = 0; i < 3; i++) {
        plan_validate_pool(&part, families[i], families[i], all, COUNT_OF(names), &a);
        of_families += part.compared;
        if (strcmp(families[i], "b200")) /* of whose rows none was fitted */
            CHECK(part.coverage >= 0.75 && part.coverage <= 0.85);
    }
    CHECK_EQ(of_families, rows);
    arena_fini(&a);
}

/* Rows without a micro-batch ran: layouts that do not fit say nothing of them. */
TEST(a_range_is_of_layouts_that_fit)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "megatron_h100_readme", w, &a);
    CHECK_EQ(s.n_ranges, 5);
    CHECK_EQ(s.near_range, 4);
    for (i64 i = 0; i < s.n_ranges; i++) {
        const struct validated_range *r = &s.ranges[i];
        CHECK(r->layouts > 0 && r->hi - r->lo < 16);
        if (!strcmp(r->row->id, "megatron_h100-ss1")) /* of 48 only the smallest micro-batch does */
            CHECK_EQ(r->layouts, 8);
    }
    arena_fini(&a);
}

TEST(what_ran_is_said_to_fit)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "ultrascale_nanotron_h100", w, &a);
    CHECK((double)s.fit_right >= 0.95 * (double)s.memory_rows);
    CHECK((double)s.failures_no_fit >= 0.89 * (double)s.failures);
    CHECK((double)(s.fit_right + s.failures_no_fit) >= 0.95 * (double)(s.memory_rows + s.failures));
    CHECK(s.memory_error <= 0.095);
    arena_fini(&a);
}

/* Rows whose recompute nobody stated remake as many layers as it takes to fit, not all of them: most
 * that need any end less than an eighth of the memory below its end. */
TEST(what_nobody_stated_is_remade_until_it_fits)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    i64 some = 0, close = 0;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "megatron_bridge", w, &a);
    for (i64 i = 0; i < s.n; i++) {
        const struct validated_row *v = &s.rows[i];
        const struct plan_step *step = &v->step;
        double sum = 0, end = 0;
        struct plan_job job;
        if (!v->priced || !v->row->any_recompute || !step->fits || step->terms[PLAN_RECOMPUTE] == 0)
            continue;
        CHECK(!plan_world_job(w, v->row, &job));
        end = job.machine->device.memory_bytes * job.stack->usable;
        CHECK(step->memory_bytes <= end);
        for (int k = 0; k < PLAN_TERMS; k++)
            sum += step->terms[k];
        CHECK_NEAR(sum, step->seconds, 1e-9 * sum);
        CHECK(step->band.lo < step->seconds && step->seconds < step->band.hi);
        some++;
        close += step->memory_bytes > 7 * end / 8;
    }
    CHECK(some > 20 && 2 * close > some);
    arena_fini(&a);
}

/* Where scores are what does not fit, attention alone runs again, which takes less than layers do. */
TEST(attention_is_remade_before_whole_layers)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    i64 some = 0;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "megatron_bridge", w, &a);
    for (i64 i = 0; i < s.n; i++) {
        const struct validated_row *v = &s.rows[i];
        struct plan_layout l = v->row->layout;
        struct plan_job job;
        struct plan_table table;
        struct plan_step attention;
        if (!v->priced || v->stack->attention != STACK_SCORES || !v->row->any_recompute)
            continue;
        CHECK(!plan_world_job(w, v->row, &job));
        l.recompute = RECOMPUTE_SELECTIVE;
        CHECK_OK(plan_table_new(&table, &job, &l, &a));
        plan_step_of(&job, &l, &table, &attention);
        CHECK(v->step.fits);
        CHECK(!attention.fits || v->step.seconds <= attention.seconds * (1 + 1e-12));
        some += attention.fits;
    }
    CHECK(some >= 5);
    arena_fini(&a);
}

/* Where only adapters learn, there are no gradients of weights, whose products are a third of a
 * layer's, nothing to update and no state. */
TEST(weights_that_do_not_learn_have_no_gradients)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    i64 n = 0;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "megatron_bridge", w, &a);
    for (i64 i = 0; i < s.n; i++) {
        const struct validated_row *v = &s.rows[i];
        const struct plan_table *t;
        struct plan_job job;
        struct plan_step all;
        if (!v->priced || !v->row->frozen)
            continue;
        CHECK(!plan_world_job(w, v->row, &job));
        CHECK(job.frozen && v->step.fits);
        CHECK_NEAR(v->step.memory[PLAN_GRADIENTS] + v->step.memory[PLAN_OPTIMIZER_STATE], 0, 0);
        CHECK_NEAR(v->step.terms[PLAN_DP], 0, 0);
        job.frozen = false;
        CHECK_OK(plan_shelf_table(plan_shelf_new(&job, &a), &v->row->layout, &t));
        plan_step_of(&job, &v->row->layout, t, &all);
        CHECK_NEAR(v->step.memory[PLAN_WEIGHTS] / all.memory[PLAN_WEIGHTS], 1, 1e-12);
        CHECK(v->step.terms[PLAN_IDEAL] < 0.7 * all.terms[PLAN_IDEAL]);
        CHECK(v->step.terms[PLAN_IDEAL] > 0.65 * all.terms[PLAN_IDEAL]);
        CHECK(fabs(v->error) < 0.3);
        n++;
    }
    CHECK_EQ(n, 4);
    arena_fini(&a);
}

TEST(torchtitans_memory_is_near_what_it_reported)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "torchtitan", w, &a);
    CHECK_EQ(s.memory_rows, 4);
    CHECK_EQ(s.fit_right, 4);
    CHECK(s.memory_error <= 0.08);
    arena_fini(&a);
}

/* Terms sum to the step and to its memory, whatever the row. */
TEST(terms_are_all_of_a_step)
{
    struct arena a;
    struct plan_world *w;
    struct validated_set s;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    validate(&s, "ultrascale_nanotron_h100", w, &a);
    for (i64 i = 0; i < s.n; i++) {
        const struct plan_step *step = &s.rows[i].step;
        double terms = 0, memory = 0;
        for (int k = 0; k < PLAN_TERMS; k++) {
            CHECK(step->terms[k] >= -1e-9 * step->seconds);
            terms += step->terms[k];
        }
        for (int k = 0; k < PLAN_MEMORIES; k++)
            memory += step->memory[k];
        CHECK_NEAR(terms, step->seconds, 1e-9 * step->seconds);
        CHECK_NEAR(memory, step->memory_bytes, 1e-9 * step->memory_bytes);
    }
    arena_fini(&a);
}

/* What the only row of a table lacks; NULL: nothing. */
static const char *missing_of(const char *head, const char *row, struct arena *a)
{
    struct csv t;
    struct plan_rows read;
    const char *text = arena_printf(a, "%s%s", head, row);
    CHECK_OK(csv_parse(text, (i64)strlen(text), "rows.csv", a, &t));
    CHECK_OK(plan_rows_of(&read, &t, a));
    return read.rows[0].missing;
}

TEST(a_row_that_lacks_something_says_what)
{
    static const char head[] =
        "id,model,layers,hidden,ffn,heads,kv_heads,vocab,seq,gpu,n_gpus,gpus_per_node,precision,"
        "tp,pp,dp,mbs,gbs,recompute,framework,step_time_s,tokens_per_s_per_gpu,status\n";
    static const struct { const char *row, *missing; } rows[] = {
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,fp16,2,2,2,1,8,full,Megatron-LM,1,,ok\n", NULL },
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,fp16,2,2,2,,8,full,Megatron-LM,1,,ok\n", "mbs" },
        { "a,GPT,,64,256,4,4,100,32,A100,8,8,fp16,2,2,2,1,8,full,Megatron-LM,1,,ok\n", "layers" },
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,fp16,2,2,2,1,8,full,Megatron-LM,,,ok\n",
          "a step time" },
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,fp16,2,2,3,1,9,full,Megatron-LM,1,,ok\n",
          "degrees whose product is the number of devices" },
    };
    for (i64 i = 0; i < COUNT_OF(rows); i++) {
        struct arena a;
        arena_init(&a);
        const char *missing = missing_of(head, rows[i].row, &a);
        if (rows[i].missing)
            CHECK_STR(missing, rows[i].missing);
        else
            CHECK(!missing);
        arena_fini(&a);
    }
}

TEST(columns_and_numbers_that_lack_are_refused)
{
    struct arena a;
    struct csv t;
    struct plan_rows read;
    arena_init(&a);
    CHECK_OK(csv_parse("id,model\na,b\n", 13, "rows.csv", &a, &t));
    CHECK_FAILS(plan_rows_of(&read, &t, &a), ERR_FORMAT, "no column 'layers'");
    arena_fini(&a);
}

/* "done" is no crash, and "zero4" not the same as nothing split. */
TEST(words_that_a_column_does_not_have_are_said)
{
    static const char head[] =
        "id,model,layers,hidden,ffn,heads,kv_heads,vocab,seq,gpu,n_gpus,gpus_per_node,precision,"
        "tp,pp,dp,mbs,gbs,recompute,framework,step_time_s,tokens_per_s_per_gpu,status,shard\n";
    static const struct { const char *row, *said; } rows[] = {
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,fp7,2,2,2,1,8,full,M,1,,ok,\n", "a known precision: 'fp7'" },
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,bf16,2,2,2,1,8,some,M,1,,ok,\n", "a known recompute: 'some'" },
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,bf16,2,2,2,1,8,full,M,1,,done,\n", "a known status: 'done'" },
        { "a,GPT,2,64,256,4,4,100,32,A100,8,8,bf16,2,2,2,1,8,full,M,1,,ok,zero4\n", "a known shard: 'zero4'" },
    };
    for (i64 i = 0; i < COUNT_OF(rows); i++) {
        struct arena a;
        arena_init(&a);
        const char *missing = missing_of(head, rows[i].row, &a);
        CHECK(missing && strstr(missing, rows[i].said));
        arena_fini(&a);
    }
}

static const char wide_head[] =
    "id,model,layers,hidden,ffn,heads,kv_heads,vocab,seq,gpu,n_gpus,gpus_per_node,intra_gbs_per_gpu,"
    "precision,tp,pp,vpp,dp,mbs,gbs,recompute,schedule,framework,step_time_s,tokens_per_s_per_gpu,"
    "status\n";

/* A row of sixteen devices in two stages; schedule and stages per rank as given. */
static void row_in_order(struct plan_row *out, const char *schedule, const char *stages,
                         struct arena *a)
{
    struct csv t;
    struct plan_rows read;
    const char *text = arena_printf(a, "%sa,GPT,4,64,256,4,4,100,32,A100,16,8,,fp16,2,2,%s,4,1,16,full,"
                                    "%s,Megatron-LM,1,,ok\n", wide_head, stages, schedule);
    CHECK_OK(csv_parse(text, (i64)strlen(text), "rows.csv", a, &t));
    CHECK_OK(plan_rows_of(&read, &t, a));
    *out = read.rows[0];
}

/* "gpipe" keeps all micro-batches, and nobody knows how many stages "interleaved" means. */
TEST(orders_of_work_are_those_that_rows_say)
{
    static const struct { const char *schedule, *stages; int kind; i64 chunks; const char *missing; } rows[] = {
        { "", "", SCHEDULE_1F1B, 1, NULL },
        { "", "2", SCHEDULE_INTERLEAVED, 2, NULL },
        { "1f1b", "1", SCHEDULE_1F1B, 1, NULL },
        { "interleaved-1f1b", "2", SCHEDULE_INTERLEAVED, 2, NULL },
        { "interleaved-1f1b", "", SCHEDULE_1F1B, 1, "vpp" },
        { "gpipe", "", SCHEDULE_GPIPE, 1, NULL },
        { "gpipe", "2", SCHEDULE_GPIPE, 2, "as many stages per rank" },
        { "zb-h1", "1", SCHEDULE_ZB_H1, 1, NULL },
        { "zb-v", "", SCHEDULE_ZB_V, 2, NULL },
        { "dualpipe", "", SCHEDULE_1F1B, 1, "a known schedule: 'dualpipe'" },
    };
    for (i64 i = 0; i < COUNT_OF(rows); i++) {
        struct arena a;
        struct plan_row row;
        arena_init(&a);
        row_in_order(&row, rows[i].schedule, rows[i].stages, &a);
        CHECK_EQ(row.layout.schedule, rows[i].kind);
        CHECK_EQ(row.layout.virtual_stages, rows[i].chunks);
        CHECK_EQ(row.missing != NULL, rows[i].missing != NULL);
        if (rows[i].missing && row.missing)
            CHECK(strstr(row.missing, rows[i].missing));
        arena_fini(&a);
    }
}

static void price_rows(struct validated_set *out, const char *text, struct arena *a)
{
    struct csv t;
    struct plan_world *w;
    struct plan_rows *read = ARENA_NEW(a, struct plan_rows);
    CHECK_OK(plan_world_new(&w, a));
    CHECK_OK(csv_parse(text, (i64)strlen(text), "rows.csv", a, &t));
    CHECK_OK(plan_rows_of(read, &t, a));
    CHECK_OK(plan_validate(out, read, w, a));
}

/* Every row with links of its own is a machine of its own; faster links, no longer steps. */
TEST(a_table_may_have_any_number_of_machines)
{
    struct arena a;
    struct validated_set s;
    arena_init(&a);
    const char *text = wide_head;
    for (int i = 1; i <= 200; i++)
        text = arena_printf(&a, "%sr%d,GPT,4,1024,4096,16,16,1000,512,A100,16,8,%d,fp16,2,2,1,4,1,16,"
                            "full,1f1b,Megatron-LM,1,,ok\n", text, i, i);
    price_rows(&s, text, &a);
    CHECK_EQ(s.priced, 200);
    for (i64 i = 1; i < s.n; i++)
        CHECK(s.rows[i].step.seconds <= s.rows[i - 1].step.seconds);
    arena_fini(&a);
}

static void refused_or_priced(const char *gpu, const char *precision, const char *nodes,
                              struct validated_set *out, struct arena *a)
{
    price_rows(out, arena_printf(a, "%sr,Llama,4,1024,4096,16,16,1000,512,%s,16,%s,,%s,2,2,1,4,1,16,none,"
                                 "1f1b,Megatron-Core,1,,ok\n", wide_head, gpu, nodes, precision), a);
}

/* An H100 computes nothing in fp4, its PCIe board is no SXM board, and devices of which nobody
 * says how many a node has are not each a node. */
TEST(links_both_ways_are_refused)
{
    struct arena a;
    struct plan_world *w;
    struct csv t;
    struct plan_rows read;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    for (int i = 0; i < 2; i++) {
        struct plan_job job;
        const char *text = arena_printf(&a, "%sa,GPT,4,64,256,4,4,100,32,A100,16,8,%d,fp16,2,2,,4,1,16,full,,"
                                        "Megatron-LM,1,,ok\n", wide_head, i ? 600 : 300);
        CHECK_OK(csv_parse(text, (i64)strlen(text), "rows.csv", &a, &t));
        CHECK_OK(plan_rows_of(&read, &t, &a));
        const char *why = plan_world_job(w, &read.rows[0], &job);
        CHECK(i ? why && strstr(why, "both directions") : !why);
    }
    arena_fini(&a);
}

TEST(boards_are_told_apart)
{
    struct arena a;
    struct validated_set s, other;
    arena_init(&a);
    refused_or_priced("H100-SXM-80GB", "nvfp4", "8", &s, &a);
    CHECK(s.rows[0].refused && strstr(s.rows[0].refused, "no peak for this dtype"));
    refused_or_priced("GB300", "nvfp4", "4", &s, &a);
    CHECK(s.rows[0].priced);
    refused_or_priced("H100-SXM-80GB", "bf16", "8", &s, &a);
    refused_or_priced("H100-PCIe-80GB", "bf16", "8", &other, &a);
    CHECK(s.rows[0].priced && other.rows[0].priced);
    CHECK(other.rows[0].step.terms[PLAN_TP] > 1.1 * s.rows[0].step.terms[PLAN_TP]);
    CHECK(other.rows[0].step.terms[PLAN_IDEAL] > 1.2 * s.rows[0].step.terms[PLAN_IDEAL]);
    refused_or_priced("H100-SXM-80GB", "bf16", "", &s, &a);
    CHECK(s.rows[0].row->missing && !strcmp(s.rows[0].row->missing, "gpus_per_node"));
    arena_fini(&a);
}

/* The constants that are kept are those that the fit gives. */
TEST(a_fit_gives_the_constants_that_are_kept)
{
    struct arena a;
    struct plan_world *w;
    struct plan_family kept, fitted;
    struct plan_fit fit;
    struct plan_rows rows[2];
    const struct plan_rows *sets[2] = { &rows[0], &rows[1] };
    const i64 shares[2] = { 18, 12 };
    struct plan_fit_choice choice = { sets, 2, FIT_MOST_ROWS, shares, 0, { NULL, 0 }, false };
    const char *path;
    arena_init(&a);
    CHECK_OK(plan_world_new(&w, &a));
    CHECK_OK(plan_set_path("vtrain_single", &path, &a));
    CHECK_OK(plan_rows_load(&rows[0], path, &a));
    CHECK_OK(plan_set_path("vtrain_multi", &path, &a));
    CHECK_OK(plan_rows_load(&rows[1], path, &a));
    CHECK_OK(plan_family_load(&kept, "a100", &a));
    fitted = kept;
    choice.most = 29;
    CHECK_FAILS(plan_fit_family(&fitted, &fit, &choice, w, &a), ERR_USAGE, "30 rows are asked for");
    choice.most = FIT_MOST_ROWS;
    CHECK_OK(plan_fit_family(&fitted, &fit, &choice, w, &a));
    CHECK_EQ(fit.n, FIT_MOST_ROWS);
    CHECK_NEAR(fitted.product / kept.product, 1, 0.01); /* a last bit of exp may differ */
    CHECK_NEAR(fitted.launch_s / kept.launch_s, 1, 0.02);
    arena_fini(&a);
}

TEST_MAIN(ONE(published_sets_are_as_near_as_they_were), ONE(names_of_rows_change_no_price),
          ONE(intervals_hold_over_all_sets_together),
          ONE(a_range_is_of_layouts_that_fit), ONE(what_ran_is_said_to_fit),
          ONE(what_nobody_stated_is_remade_until_it_fits),
          ONE(attention_is_remade_before_whole_layers),
          ONE(weights_that_do_not_learn_have_no_gradients),
          ONE(torchtitans_memory_is_near_what_it_reported), ONE(terms_are_all_of_a_step),
          ONE(a_row_that_lacks_something_says_what),
          ONE(columns_and_numbers_that_lack_are_refused),
          ONE(words_that_a_column_does_not_have_are_said),
          ONE(orders_of_work_are_those_that_rows_say),
          ONE(a_table_may_have_any_number_of_machines), ONE(boards_are_told_apart),
          ONE(links_both_ways_are_refused),
          ONE(a_fit_gives_the_constants_that_are_kept))
