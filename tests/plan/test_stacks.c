/* Which software a row is priced as, and what that software is said to do. */
#include "test.h"

#include "parallel/layout.h"
#include "plan/efficiency.h"
#include "plan/fit.h"
#include "plan/stack.h"
#include "plan/table.h"
#include "plan_job.h"

#include <math.h>
#include <string.h>

static const char head[] =
    "id,model,layers,hidden,ffn,heads,kv_heads,vocab,seq,gpu,n_gpus,gpus_per_node,precision,"
    "tp,pp,dp,mbs,gbs,recompute,framework,step_time_s,tokens_per_s_per_gpu,status,source\n";

struct bed {
    struct arena arena;
    struct plan_world *world;
    struct plan_rows rows;
    bool at_once; /* collectives begin at once: what they take is that of their bytes */
};

static void bed_open(struct bed *b, const char *row)
{
    struct csv t;
    arena_init(&b->arena);
    b->at_once = false;
    CHECK_OK(plan_world_new(&b->world, &b->arena));
    const char *text = arena_printf(&b->arena, "%s%s", head, row);
    CHECK_OK(csv_parse(text, (i64)strlen(text), "rows.csv", &b->arena, &t));
    CHECK_OK(plan_rows_of(&b->rows, &t, &b->arena));
    CHECK(!b->rows.rows[0].missing);
}

static void bed_close(struct bed *b)
{
    arena_fini(&b->arena);
}

#define ROW(gpu, layout, recompute, framework, source) \
    "a,GPT,4,1024,4096,16,16,50257,1024," gpu ",32,8,fp16," layout "," recompute "," framework \
    ",1,,ok," source "\n"

TEST(software_is_that_of_the_year_that_a_row_says)
{
    static const struct { const char *row, *stack; } cases[] = {
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-LM", "a paper of 2021"), "Megatron-LM" },
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-LM", "a paper of 2022"), "Megatron-LM 2022" },
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-LM", "nobody@2024abc 2104.04473"), "Megatron-LM" },
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-LM 2021", "seen again in 2024"), "Megatron-LM" },
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-DeepSpeed", "2023"), "Megatron-DeepSpeed" },
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-DeepSpeed", "x"), "Megatron-DeepSpeed" },
        { ROW("A100", "8,2,2,1,8", "full", "Megatron-DeepSpeed", "2022"), "Megatron-DeepSpeed 2022" },
        { "a,GPT,4,1024,4096,16,16,50257,1024,A100,32,8,bf16,8,2,2,1,8,full,Megatron-DeepSpeed,1,,ok,2022\n",
          "Megatron-DeepSpeed 2022 bf16" },
        { ROW("H100", "8,2,2,1,8", "full", "torchtitan 2024-12", "x"), "torchtitan" },
        { "a,GPT,4,1024,4096,16,16,50257,1024,H100,32,8,fp8,8,2,2,1,8,full,torchtitan 2024-12,1,,ok,x\n",
          "torchtitan compiled" },
        { "a,GPT-OSS,4,1024,4096,16,16,50257,1024,H100,32,8,bf16,8,2,2,1,8,full,Megatron-Bridge,1,,ok,x\n",
          "Megatron-Bridge with sinks" },
        { "a,GPT-OSS,4,1024,4096,16,16,50257,1024,H100,32,8,fp8,8,2,2,1,8,full,Megatron-Bridge,1,,ok,x\n",
          "Megatron-Bridge" },
        { "a,GPT,4,1024,4096,16,16,50257,1024,H100,32,8,bf16,8,2,2,1,8,full,Megatron-Bridge,1,,ok,x\n",
          "Megatron-Bridge" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct bed b;
        struct plan_job job;
        bed_open(&b, cases[i].row);
        CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
        CHECK_STR(job.stack->name, cases[i].stack);
        bed_close(&b);
    }
}

TEST(boards_have_the_memory_that_their_name_says)
{
    struct bed b;
    struct plan_job job;
    bed_open(&b, ROW("H100-96GB-HBM2e-500W", "8,2,2,1,8", "full", "nanotron", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
    CHECK_NEAR(job.machine->device.memory_bytes, 96e9, 1);
    bed_close(&b);
}

/* A board of less power has a slower clock, by the cube root; its neighbour of 700 W, seen
 * later, has not. */
TEST(boards_of_less_power_and_slower_memory_are_slower)
{
    struct bed b;
    struct plan_job slow, quick;
    bed_open(&b, ROW("H100-96GB-HBM2e-500W", "8,2,2,1,8", "full", "nanotron", "x")
                 ROW("H100", "8,2,2,1,8", "full", "nanotron", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &slow));
    CHECK(!plan_world_job(b.world, &b.rows.rows[1], &quick));
    const struct plan_device *d = &slow.machine->device, *q = &quick.machine->device;
    CHECK_NEAR(d->peak[PLAN_BF16] / q->peak[PLAN_BF16], cbrt(5.0 / 7), 1e-9);
    CHECK_NEAR(d->memory_bytes_per_s, 2.4e12, 1);
    CHECK_NEAR(q->memory_bytes, 80e9, 1);
    bed_close(&b);
}

TEST(words_are_padded_as_software_does)
{
    struct plan_stack s = { .vocab_multiple = 128, .vocab_alone = true };
    CHECK_EQ(plan_stack_vocab(&s, 50257, 1), 50304);
    CHECK_EQ(plan_stack_vocab(&s, 50257, 8), 51200);
    s.vocab_alone = false;
    CHECK_EQ(plan_stack_vocab(&s, 50257, 1), 50257);
    CHECK_EQ(plan_stack_vocab(&s, 50257, 8), 51200);
}

static void price_with(const struct bed *b, const struct plan_stack *stack, i64 dp,
                       struct plan_step *step)
{
    struct plan_job job;
    struct plan_table table;
    struct plan_layout l = b->rows.rows[0].layout;
    struct arena a;
    arena_init(&a);
    CHECK(!plan_world_job(b->world, &b->rows.rows[0], &job));
    struct plan_family family = *job.family;
    if (b->at_once)
        family.collective_s = 0;
    job.family = &family;
    if (stack)
        job.stack = stack;
    job.devices = job.devices / l.dp * dp;
    job.global_batch = job.global_batch / l.dp * dp;
    l.dp = dp;
    CHECK_OK(plan_table_new(&table, &job, &l, &a));
    plan_step_of(&job, &l, &table, step);
    arena_fini(&a);
}

static struct plan_stack stack_named(const char *name, struct arena *a)
{
    struct plan_stack s = { 0 };
    CHECK_OK(plan_stack_load(&s, name, a));
    return s;
}

/* Only where a pipeline leaves its node does the host of nanotron take more. */
TEST(pipelines_over_several_nodes_keep_the_host_busy)
{
    struct bed b;
    struct plan_step plain, more;
    bed_open(&b, ROW("H100", "2,2,8,1,64", "", "nanotron", "x"));
    struct plan_stack with = stack_named("nanotron", &b.arena), without = with;
    with.kernels_pipeline = 400;
    without.kernels_pipeline = 0;
    with.stall_s = without.stall_s = 0;
    price_with(&b, &with, 8, &more);
    price_with(&b, &without, 8, &plain);
    CHECK(more.terms[PLAN_LAUNCH] > 2 * plain.terms[PLAN_LAUNCH]);
    price_with(&b, &with, 2, &more); /* eight devices */
    price_with(&b, &without, 2, &plain);
    CHECK_NEAR(more.seconds, plain.seconds, 1e-12);
    bed_close(&b);
}

/* Eight devices are one node, where nothing else stalls. */
TEST(pipelines_of_wide_stages_stall_on_any_number_of_nodes)
{
    struct bed b;
    struct plan_step calm, stalled;
    bed_open(&b, ROW("H100", "2,2,8,1,64", "", "nanotron", "x"));
    struct plan_stack s = stack_named("nanotron", &b.arena);
    CHECK_NEAR(s.stall_tp, 32, 0);
    price_with(&b, &s, 2, &calm);
    CHECK_NEAR(calm.terms[PLAN_STRAGGLER], 0, 0);
    s.stall_tp = 2;
    price_with(&b, &s, 2, &stalled);
    CHECK(stalled.terms[PLAN_STRAGGLER] > s.stall_s);
    CHECK_NEAR(stalled.seconds - stalled.terms[PLAN_STRAGGLER], calm.seconds, 1e-9 * stalled.seconds);
    bed_close(&b);
}

/* The head is as four of the layers: balanced, the first of two stages has all of them. */
TEST(balanced_stages_count_the_head)
{
    struct bed b;
    struct plan_step even, balanced;
    bed_open(&b, ROW("H100", "2,2,8,1,64", "", "nanotron", "x"));
    struct plan_stack s = stack_named("nanotron", &b.arena);
    CHECK(s.balanced);
    s.stall_s = s.kernels_pipeline = 0;
    s.kernels_forward = s.kernels_backward = s.kernels_batch = s.kernels_exchange = 0;
    s.kernels_step = 0;
    price_with(&b, &s, 2, &balanced);
    s.balanced = false;
    price_with(&b, &s, 2, &even);
    CHECK(balanced.seconds < 0.9 * even.seconds);
    CHECK(balanced.terms[PLAN_IMBALANCE] < 0.5 * even.terms[PLAN_IMBALANCE]);
    CHECK_NEAR(balanced.terms[PLAN_IDEAL], even.terms[PLAN_IDEAL], 1e-9 * even.terms[PLAN_IDEAL]);
    bed_close(&b);
}

/* What gathers took on AWS's network is what they take here: many short steps, then the bytes. */
TEST(a_measured_network_takes_the_time_of_its_gathers)
{
    static const struct { i64 ranks; double took; } facts[] = {
        { 16, 240e6 / 184.61e9 }, { 64, 252e6 / 68.99e9 }, { 256, 255e6 / 27.97e9 },
    };
    struct bed b;
    struct plan_job job;
    bed_open(&b, ROW("H100-SXM-80GB (AWS p5)", "2,2,8,1,64", "", "nanotron", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
    for (i64 i = 0; i < COUNT_OF(facts); i++) {
        double n = (double)facts[i].ranks;
        double seconds = plan_exchange_seconds(&job, facts[i].ranks, 1, 256e6 * (n - 1) / n, n - 1);
        CHECK_NEAR(seconds / facts[i].took, 1, 0.25); /* links within nodes reach less than their sheet */
    }
    struct plan_family f = *job.family; /* what was measured knows no share of ports */
    f.net = 0.1;
    double before = plan_exchange_seconds(&job, 32, 8, 1e9, 0);
    job.family = &f;
    CHECK_NEAR(plan_exchange_seconds(&job, 32, 8, 1e9, 0), before, 1e-9);
    bed_close(&b);
}

/* Trees make sums shorter than gathers of as many bytes through the ring: both take what was
 * measured, and twice as much goes in two pieces. */
TEST(sums_on_a_measured_network_take_the_time_of_its_sums)
{
    static const struct { i64 ranks; double took; } facts[] = {
        { 32, 2 * 248e6 / 160.14e9 }, { 64, 2 * 252e6 / 99.56e9 }, { 256, 2 * 255e6 / 64.93e9 },
    };
    struct bed b;
    struct plan_job job;
    bed_open(&b, ROW("H100-SXM-80GB (AWS p5)", "2,2,8,1,64", "", "nanotron", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
    for (i64 i = 0; i < COUNT_OF(facts); i++) {
        double n = (double)facts[i].ranks, one = plan_sum_seconds(&job, facts[i].ranks, 1, 256e6);
        CHECK_NEAR(one / facts[i].took, 1, 0.25); /* links within nodes reach less than their sheet */
        CHECK_NEAR(plan_sum_seconds(&job, facts[i].ranks, 1, 512e6) / one, 2, 1e-9);
        double gather = plan_exchange_seconds(&job, facts[i].ranks, 1, 256e6 * (n - 1) / n, n - 1);
        CHECK(2 * gather > one);
        CHECK_NEAR(plan_exchange_seconds(&job, facts[i].ranks, 1, 512e6 * (n - 1) / n, n - 1) / gather, 2, 1e-9);
    }
    bed_close(&b);
}

/* Weights that are gathered before the next step hide behind nothing, sums of gradients still
 * do. */
TEST(weights_that_come_late_are_waited_for)
{
    struct bed b;
    struct plan_step early, late;
    bed_open(&b, ROW("H100-SXM-80GB (AWS p5)", "1,1,32,1,256", "", "nanotron", "x"));
    struct plan_stack s = stack_named("nanotron", &b.arena);
    CHECK(s.waits_for_weights);
    s.dp_overlap = 1;
    b.rows.rows[0].layout.zero = ZERO_OPTIMIZER;
    price_with(&b, &s, 32, &late);
    s.waits_for_weights = false;
    price_with(&b, &s, 32, &early);
    CHECK(late.terms[PLAN_DP] > 2 * early.terms[PLAN_DP]);
    b.rows.rows[0].layout.zero = ZERO_NONE;
    price_with(&b, &s, 32, &early);
    s.waits_for_weights = true;
    price_with(&b, &s, 32, &late);
    CHECK_NEAR(late.terms[PLAN_DP], early.terms[PLAN_DP], 0);
    bed_close(&b);
}

/* Gradients that are split reach less of the network, whole ones all of it. */
TEST(what_is_split_goes_at_the_rate_that_software_reaches)
{
    struct bed b;
    struct plan_step whole, split;
    bed_open(&b, ROW("H100-SXM-80GB (AWS p5)", "1,1,32,1,64", "", "nanotron", "x"));
    struct plan_stack s = stack_named("nanotron", &b.arena);
    s.split_rate = 1;
    price_with(&b, &s, 32, &whole);
    s.split_rate = 0.25;
    price_with(&b, &s, 32, &split);
    CHECK_NEAR(split.terms[PLAN_DP], whole.terms[PLAN_DP], 0); /* zero 0 */
    b.rows.rows[0].layout.zero = ZERO_OPTIMIZER;
    price_with(&b, &s, 32, &split);
    s.split_rate = 1;
    price_with(&b, &s, 32, &whole);
    CHECK(split.terms[PLAN_DP] > 1.5 * whole.terms[PLAN_DP]);
    bed_close(&b);
}

TEST(stalls_begin_at_so_many_nodes)
{
    struct bed b;
    struct plan_step calm, stalled;
    bed_open(&b, ROW("H100", "8,2,2,1,16", "", "nanotron", "x")); /* on four nodes */
    struct plan_stack s = stack_named("nanotron", &b.arena);
    s.stall_s = 0.5;
    s.stall_sum_s = 0;
    s.stall_nodes = 5;
    price_with(&b, &s, 2, &calm);
    s.stall_nodes = 4;
    price_with(&b, &s, 2, &stalled);
    CHECK_NEAR(calm.terms[PLAN_STRAGGLER], 0, 0);
    CHECK_NEAR(stalled.seconds - calm.seconds, 0.5 * (8 + 0.5), 1e-9); /* one neighbour */
    bed_close(&b);
}

/* Of whole gradients, that is: what zero 1 splits is gathered and scattered. */
TEST(sums_of_whole_gradients_stall_at_so_many_nodes)
{
    struct bed b;
    struct plan_step calm, stalled;
    bed_open(&b, ROW("H100", "8,1,4,1,32", "", "nanotron", "x")); /* on four nodes */
    struct plan_stack s = stack_named("nanotron", &b.arena);
    s.stall_sum_s = 0.25;
    for (i64 zero = 0; zero < 2; zero++) {
        b.rows.rows[0].layout.zero = zero;
        s.stall_nodes = 5;
        price_with(&b, &s, 4, &calm);
        s.stall_nodes = 4;
        price_with(&b, &s, 4, &stalled);
        CHECK_NEAR(stalled.seconds - calm.seconds, zero ? 0 : 0.25, 1e-9);
    }
    bed_close(&b);
}

/* All steps of a ring wait for the hops between nodes, however many of its ranks share one. */
TEST(each_step_of_a_ring_across_nodes_takes_their_latency)
{
    struct bed b;
    struct plan_job job;
    bed_open(&b, ROW("A100", "8,2,2,1,8", "full", "Megatron-LM", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
    struct plan_family f = *job.family;
    f.net_latency_s = 1e-3;
    job.family = &f;
    CHECK_NEAR(plan_exchange_seconds(&job, 16, 1, 0, 15), 15e-3, 1e-12);
    CHECK(plan_exchange_seconds(&job, 8, 1, 0, 7) < 1e-3);
    bed_close(&b);
}

TEST(half_of_the_products_stay_with_torchtitans_recompute)
{
    struct bed b;
    struct plan_step all, half;
    bed_open(&b, ROW("H100-96GB", "1,1,32,1,32", "selective", "torchtitan", "x"));
    struct plan_stack s = stack_named("torchtitan", &b.arena);
    price_with(&b, &s, 32, &half);
    s.selective = SELECTIVE_ATTENTION;
    price_with(&b, &s, 32, &all);
    CHECK(half.memory[PLAN_ACTIVATIONS] < 0.6 * all.memory[PLAN_ACTIVATIONS]);
    CHECK(half.memory[PLAN_ACTIVATIONS] > 0.2 * all.memory[PLAN_ACTIVATIONS]);
    CHECK(half.terms[PLAN_RECOMPUTE] > 0);
    bed_close(&b);
}

static double tp_of(const struct bed *b, const struct plan_stack *s)
{
    struct plan_step step;
    price_with(b, s, 1, &step);
    return step.terms[PLAN_TP];
}

/* A layer of tp sends four equal parts forward and four back. Cut rows that nobody kept whole
 * are gathered again for two products; whole rows have nothing to gather. */
TEST(rows_that_are_cut_are_gathered_again_for_gradients)
{
    struct bed b;
    bed_open(&b, ROW("A100", "8,1,4,8,32", "", "Megatron-LM", "2022"));
    b.at_once = true;
    struct plan_stack s = stack_named("megatron-lm-2022", &b.arena);
    s.overlaps_gradients = false;
    b.rows.rows[0].layout.sequence_parallel = true;
    double again = tp_of(&b, &s);
    s.keeps_gathered = true;
    double kept = tp_of(&b, &s);
    CHECK(again > 1.15 * kept);
    CHECK(again < 1.3 * kept);
    b.rows.rows[0].layout.sequence_parallel = false;
    CHECK_NEAR(tp_of(&b, &s), kept, 0.01 * kept);
    s.keeps_gathered = false;
    CHECK_NEAR(tp_of(&b, &s), kept, 0.01 * kept);
    bed_close(&b);
}

/* Sums go beside gradients of weights and gathers beside those of inputs, and tax them. */
TEST(exchanges_beside_gradients_of_products_show_as_a_tax_alone)
{
    struct bed b;
    bed_open(&b, ROW("A100", "8,1,4,8,32", "", "Megatron-LM", "2022"));
    b.at_once = true;
    struct plan_stack s = stack_named("megatron-lm-2022", &b.arena);
    CHECK(s.overlaps_gradients);
    b.rows.rows[0].layout.sequence_parallel = false;
    double beside = tp_of(&b, &s);
    b.rows.rows[0].layout.sequence_parallel = true;
    double cut = tp_of(&b, &s);
    s.overlaps_gradients = false;
    double all_cut = tp_of(&b, &s);
    b.rows.rows[0].layout.sequence_parallel = false;
    double all = tp_of(&b, &s);
    CHECK(beside > 0.5 * all); /* forward, nothing hides anything */
    CHECK(beside < 0.8 * all);
    CHECK(cut > beside); /* gradients of what was cut are gathered in plain sight */
    CHECK(cut < 0.8 * all_cut);
    bed_close(&b);
}

static double memory_of(const struct bed *b, const struct plan_stack *s)
{
    struct plan_step step;
    price_with(b, s, 1, &step);
    return step.terms[PLAN_MEMORY_BOUND];
}

/* Passes over heads are a tp-th whatever happens to the rows between; others are where rows are
 * cut. */
TEST(passes_over_what_tp_cuts_are_a_share)
{
    struct bed b;
    bed_open(&b, ROW("A100", "8,1,4,8,32", "", "Megatron-LM", "2022"));
    struct plan_stack s = stack_named("megatron-lm-2022", &b.arena);
    b.rows.rows[0].layout.sequence_parallel = false;
    s.passes_forward = s.passes_backward = s.cut_forward = s.cut_backward = 0;
    double none = memory_of(&b, &s);
    s.passes_forward = 96;
    double whole = memory_of(&b, &s) - none;
    s.passes_forward = 0;
    s.cut_forward = 96;
    double cut = memory_of(&b, &s) - none;
    CHECK(cut < 0.3 * whole); /* beside the kernels' own time an eighth */
    b.rows.rows[0].layout.sequence_parallel = true;
    s.cut_forward = 0;
    none = memory_of(&b, &s);
    s.passes_forward = 96;
    CHECK_NEAR(memory_of(&b, &s) - none, cut, 1e-3 * cut);
    bed_close(&b);
}

/* Whole rows are summed by one kernel, where cut ones take a scatter and a gather. */
TEST(a_sum_of_whole_rows_is_one_kernel_of_the_host)
{
    struct bed b;
    struct plan_step two, one;
    bed_open(&b, ROW("A100", "8,1,4,1,8", "", "Megatron-LM", "2022"));
    struct plan_stack s = stack_named("megatron-lm-2022", &b.arena);
    s.keeps_gathered = true;
    s.passes_forward = s.passes_backward = 0;
    b.rows.rows[0].layout.sequence_parallel = false;
    price_with(&b, &s, 1, &one);
    b.rows.rows[0].layout.sequence_parallel = true;
    price_with(&b, &s, 1, &two);
    CHECK(two.terms[PLAN_LAUNCH] > 1.02 * one.terms[PLAN_LAUNCH]);
    bed_close(&b);
}

/* The host is ahead on the whole, and the device waits for it nevertheless, a little. */
TEST(host_and_device_both_count_where_they_are_alike)
{
    struct bed b;
    struct plan_job job;
    struct plan_step sharp, soft;
    bed_open(&b, ROW("A100", "8,2,2,1,8", "full", "Megatron-LM", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
    struct plan_family f = *job.family;
    struct plan_stack k = *job.stack;
    struct plan_layout l = b.rows.rows[0].layout;
    struct plan_table table;
    job.family = &f;
    job.stack = &k;
    k.kernels_batch = 0; /* four layers do not get the host far enough ahead for these */
    f.pace = 1000;
    CHECK_OK(plan_table_new(&table, &job, &l, &b.arena));
    plan_step_of(&job, &l, &table, &sharp);
    f.pace = 2;
    CHECK_OK(plan_table_new(&table, &job, &l, &b.arena));
    plan_step_of(&job, &l, &table, &soft);
    CHECK(soft.seconds > sharp.seconds);
    CHECK(soft.seconds < 1.4143 * sharp.seconds);
    bed_close(&b);
}

static double attention_of(const struct plan_job *job, i64 generation, i64 tokens, bool backward)
{
    struct plan_fused f = { 1e15, generation, tokens, 128, backward };
    return plan_attention_seconds(job->family, &job->machine->device, &f);
}

/* Each generation of kernels is quicker where there is one, and nearer to its best in longer
 * rows. */
TEST(kernels_of_attention_have_generations)
{
    struct bed b;
    struct plan_job h100, a100;
    bed_open(&b, ROW("H100", "8,2,2,1,8", "full", "nanotron", "x")
                 ROW("A100", "8,2,2,1,8", "full", "nanotron", "x"));
    CHECK(!plan_world_job(b.world, &b.rows.rows[0], &h100));
    CHECK(!plan_world_job(b.world, &b.rows.rows[1], &a100));
    for (int way = 0; way < 2; way++) {
        double second = attention_of(&h100, 2, 1 << 17, way), third = attention_of(&h100, 3, 1 << 17, way);
        CHECK(third < second);
        CHECK(attention_of(&h100, 2, 1024, way) > 1.4 * second);
        CHECK(attention_of(&a100, 3, 1 << 17, way) == attention_of(&a100, 2, 1 << 17, way));
    }
    CHECK(attention_of(&h100, 2, 1 << 17, true) < 0.6 * attention_of(&h100, 1, 1 << 17, true));
    bed_close(&b);
}

/* Where the host waits for each kernel its time is added, and ranks along tp take that of the
 * slowest: the most of eight random times is 1 + 1/2 ... + 1/8 of the mean. */
TEST(blocking_hosts_add_their_time)
{
    struct bed b;
    struct plan_step step;
    double one, eight;
    bed_open(&b, ROW("A100", "8,1,4,8,32", "", "Megatron-DeepSpeed", "2022"));
    struct plan_stack s = stack_named("megatron-deepspeed-2022", &b.arena);
    s.kernels_batch = s.kernels_step = 0;
    price_with(&b, &s, 1, &step);
    eight = step.terms[PLAN_LAUNCH];
    s.kernels_forward += 1000;
    price_with(&b, &s, 1, &step);
    eight = step.terms[PLAN_LAUNCH] - eight;
    b.rows.rows[0].devices = 4;
    b.rows.rows[0].layout.tp = 1;
    price_with(&b, &s, 1, &step);
    one = step.terms[PLAN_LAUNCH];
    s.kernels_forward += 1000;
    price_with(&b, &s, 1, &step);
    one = step.terms[PLAN_LAUNCH] - one;
    CHECK_NEAR(eight / one, 761.0 / 280, 1e-9);
    s.blocking = false; /* else the device waits where it has less to do, and no longer */
    price_with(&b, &s, 1, &step);
    CHECK(step.terms[PLAN_LAUNCH] < 2 * one);
    bed_close(&b);
}

/* Four moves hold up a stage that has two neighbours; a stage at the end has two. */
TEST(blocking_moves_hold_up_both_stages)
{
    struct bed b;
    struct plan_step free, held;
    bed_open(&b, ROW("A100", "1,4,8,1,512", "", "Megatron-DeepSpeed", "2022"));
    struct plan_stack s = stack_named("megatron-deepspeed-2022", &b.arena);
    b.rows.rows[0].spec.vocab = 128; /* stages alike */
    s.blocking_moves = false;
    price_with(&b, &s, 8, &free);
    s.blocking_moves = true;
    price_with(&b, &s, 8, &held);
    double moves = free.terms[PLAN_PP] / (64 + 3); /* there and back */
    CHECK(held.seconds - free.seconds > 0.7 * 64 * moves); /* the head makes the last stage a little slower */
    CHECK(held.seconds - free.seconds < 67 * moves);
    bed_close(&b);
}

/* Rows that were cut to be sent are put together by those that compute with them. */
TEST(moves_that_were_cut_are_gathered)
{
    struct bed b;
    struct plan_step without, with;
    bed_open(&b, ROW("A100", "8,4,1,8,512", "", "Megatron-DeepSpeed", "2022"));
    struct plan_stack s = stack_named("megatron-deepspeed-2022", &b.arena);
    s.move_passes = 0;
    price_with(&b, &s, 1, &without);
    s.move_passes = 5;
    price_with(&b, &s, 1, &with);
    CHECK(with.terms[PLAN_PP] > 1.2 * without.terms[PLAN_PP]);
    b.rows.rows[0].layout.tp = 1; /* nothing was cut */
    b.rows.rows[0].devices = 4;
    price_with(&b, &s, 1, &with);
    s.move_passes = 0;
    price_with(&b, &s, 1, &without);
    CHECK_NEAR(with.seconds, without.seconds, 1e-12);
    bed_close(&b);
}

/* Per rank: a scatter sends 7/8 of them, eight reductions pass all of them on, a sum everywhere
 * is 14/8. */
TEST(split_gradients_are_summed_as_software_does)
{
    struct bed b;
    struct plan_step step;
    double seconds[3];
    bed_open(&b, ROW("A100", "8,1,4,1,32", "", "Megatron-DeepSpeed", "2022"));
    struct plan_stack s = stack_named("megatron-deepspeed-2022", &b.arena);
    b.rows.rows[0].layout.zero = ZERO_OPTIMIZER;
    b.rows.rows[0].spec.layers = 40;
    s.weight_bytes = 1e-9; /* gathers none */
    for (int i = 0; i < 3; i++) {
        s.sums = i;
        price_with(&b, &s, 8, &step);
        seconds[i] = step.terms[PLAN_DP];
    }
    CHECK_NEAR(seconds[SUMS_REDUCED] / seconds[SUMS_SCATTERED], 8.0 / 7, 0.01);
    CHECK_NEAR(seconds[SUMS_EVERYWHERE] / seconds[SUMS_SCATTERED], 2, 0.02);
    bed_close(&b);
}

TEST(sets_give_as_many_rows_as_they_are_asked_for)
{
    struct arena a;
    struct plan_world *w;
    struct plan_family family;
    struct plan_fit fit;
    struct plan_rows rows[2];
    const struct plan_rows *sets[2] = { &rows[0], &rows[1] };
    const char *path, *name = "pace";
    const i64 shares[2] = { 3, 2 };
    arena_init(&a);
    struct plan_fit_choice choice = { sets, 2, FIT_MOST_ROWS, shares, 0, { &name, 1 }, false };
    CHECK_OK(plan_world_new(&w, &a));
    CHECK_OK(plan_set_path("vtrain_single", &path, &a));
    CHECK_OK(plan_rows_load(&rows[0], path, &a));
    CHECK_OK(plan_set_path("vtrain_multi", &path, &a));
    CHECK_OK(plan_rows_load(&rows[1], path, &a));
    CHECK_OK(plan_family_load(&family, "a100", &a));
    CHECK_OK(plan_fit_family(&family, &fit, &choice, w, &a));
    CHECK_EQ(fit.n, 5);
    CHECK(strstr(fit.ids[2], "vtrain_single") && strstr(fit.ids[3], "vtrain_multi"));
    arena_fini(&a);
}

/* A stage that takes nearly all of the device's memory stalls on few nodes, too; without stages
 * nothing does. */
TEST(stalls_come_with_full_memory)
{
    struct bed b;
    struct plan_step roomy, tight;
    bed_open(&b, ROW("H100", "2,2,8,1,64", "", "nanotron", "x"));
    struct plan_stack s = stack_named("nanotron", &b.arena);
    s.stall_s = 0.5;
    s.stall_nodes = s.stall_from = 1e6;
    s.stall_memory = 1;
    price_with(&b, &s, 2, &roomy);
    s.stall_memory = 0.9 * roomy.memory_bytes / 80e9;
    price_with(&b, &s, 2, &tight);
    CHECK_NEAR(tight.seconds - roomy.seconds, 0.5 * (8 + 0.5), 1e-9); /* one neighbour */
    s.stall_memory = 1.1 * roomy.memory_bytes / 80e9;
    price_with(&b, &s, 2, &tight);
    CHECK_NEAR(tight.seconds, roomy.seconds, 1e-9);
    bed_close(&b);
    bed_open(&b, ROW("H100", "2,1,16,1,64", "", "nanotron", "x"));
    price_with(&b, &s, 8, &roomy);
    s.stall_memory = 0.01;
    price_with(&b, &s, 8, &tight);
    CHECK_NEAR(tight.seconds, roomy.seconds, 1e-9);
    bed_close(&b);
}

/* What the host does for an exchange shows where it is the slower: with tp, not without. */
TEST(exchanges_take_the_host_time)
{
    static const char *const rows[] = { ROW("H100", "4,1,8,1,64", "", "nanotron", "x"),
                                        ROW("H100", "1,1,32,1,64", "", "nanotron", "x") };
    for (int alone = 0; alone < 2; alone++) {
        struct bed b;
        struct plan_step few, many;
        bed_open(&b, rows[alone]);
        struct plan_stack s = stack_named("nanotron", &b.arena);
        s.kernels_exchange = 2;
        price_with(&b, &s, b.rows.rows[0].layout.dp, &few);
        s.kernels_exchange = 10;
        price_with(&b, &s, b.rows.rows[0].layout.dp, &many);
        if (alone)
            CHECK_NEAR(many.seconds, few.seconds, 1e-12);
        else
            CHECK(many.terms[PLAN_LAUNCH] > 1.3 * few.terms[PLAN_LAUNCH]);
        bed_close(&b);
    }
}

/* 16 layers and a head as four of them: over 16 stages two have nothing to do, over 8 all have
 * something. */
TEST(balanced_stages_without_work_are_refused)
{
#define SIXTEEN(layout) \
    "a,Llama,16,2048,8192,32,32,131072,4096,H100,32,8,bf16," layout ",,nanotron,1,,ok,x\n"
    static const struct { const char *row; bool refused; } cases[] = {
        { SIXTEEN("1,16,2,1,64"), true }, { SIXTEEN("1,8,4,1,64"), false },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct bed b;
        struct plan_job job;
        bed_open(&b, cases[i].row);
        CHECK(!plan_world_job(b.world, &b.rows.rows[0], &job));
        const char *why = plan_layout_refused(&job, &b.rows.rows[0].layout);
        CHECK(cases[i].refused == (why != NULL));
        if (why)
            CHECK(strstr(why, "nothing to do") != NULL);
        bed_close(&b);
    }
}

/* 20 of 132 multiprocessors move rows of experts where they go elsewhere, and compute nothing
 * meanwhile. */
TEST(units_that_move_experts_rows_do_not_compute)
{
    static struct planned p;
    open_planned(&p, "mixtral-8x7b", "h100-sxm-ib", 64, 512, 4096);
    CHECK_OK(plan_stack_load(&p.stack, "hai-llm", &p.arena));
    for (i64 ep = 1; ep <= 8; ep *= 8) {
        struct plan_layout l = { .tp = 1, .cp = 1, .pp = 1, .dp = 64, .ep = ep, .micro_batch = 1,
                                 .micro_batches = 8, .virtual_stages = 1 };
        struct plan_step all, less;
        struct plan_table t;
        p.stack.expert_units = 0;
        CHECK_OK(plan_table_new(&t, &p.job, &l, &p.arena));
        plan_step_of(&p.job, &l, &t, &all);
        double layers = plan_seconds_sum(&t.pieces[PLAN_SPARSE].forward);
        p.stack.expert_units = 20;
        CHECK_OK(plan_table_new(&t, &p.job, &l, &p.arena));
        plan_step_of(&p.job, &l, &t, &less);
        CHECK(ep > 1 ? less.seconds > 1.1 * all.seconds : less.seconds == all.seconds);
        if (ep > 1)
            CHECK(plan_seconds_sum(&t.pieces[PLAN_SPARSE].forward) / layers > 1.15);
    }
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(software_is_that_of_the_year_that_a_row_says),
          ONE(boards_have_the_memory_that_their_name_says),
          ONE(boards_of_less_power_and_slower_memory_are_slower), ONE(kernels_of_attention_have_generations),
          ONE(words_are_padded_as_software_does),
          ONE(pipelines_over_several_nodes_keep_the_host_busy),
          ONE(pipelines_of_wide_stages_stall_on_any_number_of_nodes), ONE(balanced_stages_count_the_head),
          ONE(a_measured_network_takes_the_time_of_its_gathers),
          ONE(sums_on_a_measured_network_take_the_time_of_its_sums), ONE(weights_that_come_late_are_waited_for),
          ONE(what_is_split_goes_at_the_rate_that_software_reaches),
          ONE(stalls_begin_at_so_many_nodes),
          ONE(sums_of_whole_gradients_stall_at_so_many_nodes),
          ONE(each_step_of_a_ring_across_nodes_takes_their_latency),
          ONE(half_of_the_products_stay_with_torchtitans_recompute),
          ONE(rows_that_are_cut_are_gathered_again_for_gradients),
          ONE(exchanges_beside_gradients_of_products_show_as_a_tax_alone),
          ONE(passes_over_what_tp_cuts_are_a_share), ONE(a_sum_of_whole_rows_is_one_kernel_of_the_host),
          ONE(host_and_device_both_count_where_they_are_alike),
          ONE(blocking_hosts_add_their_time), ONE(blocking_moves_hold_up_both_stages),
          ONE(moves_that_were_cut_are_gathered), ONE(split_gradients_are_summed_as_software_does),
          ONE(sets_give_as_many_rows_as_they_are_asked_for),
          ONE(stalls_come_with_full_memory), ONE(exchanges_take_the_host_time),
          ONE(balanced_stages_without_work_are_refused), ONE(units_that_move_experts_rows_do_not_compute))
