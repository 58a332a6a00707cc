/* Sampling: the cache changes nothing, and draws follow the distribution that was asked. */
#include "small_model.h"

#include "base/rng.h"
#include "train/sample.h"
#include "train/score.h"

#include <math.h>
#include <stdlib.h>

enum { V = 61, LONGEST = 150 };

static void random_ids(i32 *ids, i64 n, u64 seed)
{
    for (i64 i = 0; i < n; i++)
        ids[i] = (i32)(rng_u64(&(struct rng){ seed, 1 }, (u64)i) % V);
}

/* --- the cache ---------------------------------------------------------------------- */

/* Logits after every token, in one go without a cache, beside those of a sampler that is
 * fed the same in pieces: whole chunks, single tokens, and both. */
static void expect_same_logits(struct small_model *m)
{
    static const i64 pieces[] = { 1, 64, 3, 65, 1, 1, 15 }; /* 150 in all */
    struct scorer whole;
    struct sampler s;
    i32 ids[LONGEST];
    random_ids(ids, LONGEST, 5);
    CHECK_OK(scorer_init(&whole, m->model, &m->engine, 1, LONGEST, true, &m->arena));
    CHECK_OK(sampler_init(&s, m->model, &m->engine, LONGEST, &m->arena));
    CHECK_OK(engine_commit(&m->engine));
    scorer_row(&whole, 0, ids, LONGEST, 0);
    scorer_run(&whole);
    float *want = malloc(sizeof *want * LONGEST * V);
    memcpy(want, whole.logits->data, sizeof *want * LONGEST * V);
    for (int again = 0; again < 2; again++) {
        i64 at = 0;
        for (i64 i = 0; i < COUNT_OF(pieces); i++) {
            CHECK_OK(sampler_feed(&s, ids + at, pieces[i]));
            at += pieces[i];
            for (i64 v = 0; v < V; v++) /* logits of a few units, some 30 roundings */
                CHECK_NEAR(sampler_logits(&s)[v], want[(at - 1) * V + v], 2e-5);
        }
        CHECK_FAILS(sampler_feed(&s, ids, 1), ERR_LIMIT, "full");
        sampler_reset(&s); /* what the last text left behind does not matter */
    }
    free(want);
    sampler_fini(&s);
    small_model_close(m);
}

static void expect_equal_logits(bool gpt2, i64 window, i64 experts)
{
    struct small_model m;
    small_model_open_experts(&m, gpt2, V, LONGEST, window, experts);
    expect_same_logits(&m);
}

TEST(a_cache_gives_the_logits_of_the_whole_text)
{
    expect_equal_logits(true, 0, 0);
    expect_equal_logits(false, 0, 0);
    expect_equal_logits(false, 20, 0);
    expect_equal_logits(false, 0, 6);
}

TEST(so_does_a_cache_of_heads_made_of_latents)
{
    static const i64 q_ranks[] = { 24, 0 };
    for (i64 i = 0; i < COUNT_OF(q_ranks); i++) {
        struct small_model m;
        small_model_open_latent(&m, V, LONGEST, q_ranks[i]);
        expect_same_logits(&m);
    }
}

TEST(what_a_sampler_cannot_do_is_said)
{
    struct small_model m;
    struct sampler s;
    i32 outside = V;
    small_model_open(&m, false, V, 40, 0);
    CHECK_FAILS(sampler_init(&s, m.model, &m.engine, 41, &m.arena), ERR_MODEL, "40 positions");
    CHECK_OK(sampler_init(&s, m.model, &m.engine, 40, &m.arena));
    CHECK_OK(engine_commit(&m.engine));
    CHECK_FAILS(sampler_feed(&s, &outside, 1), ERR_MODEL, "token 61");
    float *gain = model_param(m.model, P_NORM_F, -1)->master->data;
    gain[3] = INFINITY;
    CHECK_FAILS(sampler_feed(&s, &(i32){ 5 }, 1), ERR_MODEL, "logit");
    sampler_fini(&s);
    small_model_close(&m);
}

/* --- drawing ------------------------------------------------------------------------ */

/* A sampler of nothing but logits. */
struct drawer {
    struct sampler s;
    struct tensor logits;
    float value[V], weight[V];
    i32 order[V];
};

static void drawer_init(struct drawer *d)
{
    for (i64 v = 0; v < V; v++) /* the likeliest are far apart, in no order */
        d->value[v] = (float)(2 * rng_normal(&(struct rng){ 9, 9 }, (u64)v));
    d->logits = (struct tensor){ .data = d->value };
    d->s = (struct sampler){ .vocab = V, .one.logits = &d->logits, .order = d->order,
                             .weight = d->weight };
}

/* The distribution as its definition says it, in double: scaled, sorted, cut after k and
 * then after the first that reaches p, and divided by what is left. */
static void plain_distribution(const float *logits, const struct sample_config *c,
                               double share[V])
{
    int order[V];
    double sum = 0, kept = 0, left = 0;
    for (int i = 0; i < V; i++) {
        order[i] = i;
        for (int j = i; j > 0 && logits[order[j]] > logits[order[j - 1]]; j--) {
            int other = order[j];
            order[j] = order[j - 1];
            order[j - 1] = other;
        }
    }
    int n = c->top_k > 0 && c->top_k < V ? (int)c->top_k : V;
    for (int i = 0; i < V; i++)
        share[order[i]] = i < n ? exp((double)logits[order[i]] / c->temperature) : 0;
    for (int i = 0; i < V; i++)
        sum += share[i];
    for (int i = 0; i < V; i++) {
        if (i > 0 && kept >= c->top_p * sum)
            share[order[i]] = 0;
        kept += share[order[i]];
        left += share[order[i]];
    }
    for (int i = 0; i < V; i++)
        share[i] /= left;
}

/* 40,000 draws: a count of mean n p strays by at most 5 sqrt(n p) + 5. */
static void expect_distribution(struct sample_config c)
{
    enum { DRAWS = 40000 };
    struct drawer d;
    double share[V];
    int count[V] = { 0 };
    drawer_init(&d);
    plain_distribution(d.value, &c, share);
    for (int i = 0; i < DRAWS; i++)
        count[sampler_pick(&d.s, &c)]++;
    for (int v = 0; v < V; v++) {
        double mean = DRAWS * share[v];
        if (share[v] == 0)
            CHECK_EQ(count[v], 0);
        CHECK_NEAR(count[v], mean, 5 * sqrt(mean) + 5);
    }
}

TEST(draws_follow_temperature_top_k_and_top_p)
{
    static const struct sample_config configs[] = {
        { 1, 0, 1, 3, 0 },        { 0.5, 0, 1, 3, 0 },   { 2, 7, 1, 3, 0 },
        { 1, 1, 1, 3, 0 },        { 1, 0, 0.9, 3, 0 },   { 1.5, 0, 0.3, 3, 0 },
        { 1, 20, 0.8, 3, 0 },     { 0.7, 5, 0.95, 4, 0 }, { 1, V + 9, 0.5, 5, 0 },
        { 1, 0, 0, 6, 0 },
    };
    for (i64 i = 0; i < COUNT_OF(configs); i++)
        expect_distribution(configs[i]);
}

/* Embeddings are often padded to a round number, and the rest has no text. */
TEST(tokens_that_the_tokenizer_lacks_are_never_drawn)
{
    enum { KNOWN = 9 };
    struct drawer d;
    struct sample_config configs[] = { { 0, 0, 1, 1, KNOWN }, { 5, 0, 1, 1, KNOWN },
                                       { 5, 30, 0.99, 1, KNOWN } };
    drawer_init(&d);
    d.value[V - 1] = 100;
    for (i64 i = 0; i < COUNT_OF(configs); i++)
        for (int k = 0; k < 1000; k++)
            CHECK(sampler_pick(&d.s, &configs[i]) < KNOWN);
    CHECK_EQ(sampler_pick(&d.s, &(struct sample_config){ 0, 0, 1, 1, 0 }), V - 1);
}

TEST(no_temperature_takes_the_likeliest_and_seeds_repeat)
{
    struct drawer d, e;
    struct sample_config greedy = { 0, 0, 1, 1, 0 }, c = { 1, 0, 0.95, 11, 0 };
    drawer_init(&d);
    drawer_init(&e);
    i32 best = sampler_pick(&d.s, &greedy);
    for (int v = 0; v < V; v++)
        CHECK(d.value[v] <= d.value[best]);
    int same = 0, other = 0;
    for (int i = 0; i < 200; i++) {
        i32 id = sampler_pick(&d.s, &c);
        same += id == sampler_pick(&e.s, &c);
        e.s.picks--;
        other += id == sampler_pick(&e.s, &(struct sample_config){ 1, 0, 0.95, 12, 0 });
    }
    CHECK_EQ(same, 200);
    CHECK(other < 150);
}

TEST_MAIN(ONE(a_cache_gives_the_logits_of_the_whole_text),
          ONE(so_does_a_cache_of_heads_made_of_latents),
          ONE(what_a_sampler_cannot_do_is_said),
          ONE(draws_follow_temperature_top_k_and_top_p),
          ONE(tokens_that_the_tokenizer_lacks_are_never_drawn),
          ONE(no_temperature_takes_the_likeliest_and_seeds_repeat))
