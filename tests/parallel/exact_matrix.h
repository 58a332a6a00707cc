/* tests/parallel/exact_matrix.h - cases in which every two, or three, choices of a layout meet.
 *
 * A case is one value for each factor. Cases are made for a tuple of values that none has
 * shown yet: the rest is drawn at random, a few times, and the draw that shows most
 * tuples not yet seen is taken (as in Cohen et al. 1997, AETG). A tuple for which no draw
 * fits together is counted as impossible: layout_check refuses it, or it would have more
 * ranks than are simulated here. */
#ifndef HEADWAY_TEST_EXACT_MATRIX_H
#define HEADWAY_TEST_EXACT_MATRIX_H

#include "parallel/exact.h"
#include "parallel/reshard.h"

enum factor {
    DP, TP, PP, CP, EP, ZERO, MICRO_BATCHES, RECOMPUTE, MODEL, PRECISION, THREADS, ROWS, MUON,
    RESUMED, DEPTH, FACTORS
};

enum { MATRIX_VALUES = 6, MATRIX_DRAWS = 30, MATRIX_TRIES = 4000, MATRIX_CONTEXT_RANKS = 32 };

/* Schedules of pipelines, ways to cut rows, to split state, to share experts: what the
 * layout says. */
static const char *const pipelines[] = {
    "", ",schedule=1f1b", ",schedule=gpipe", ",schedule=interleaved", ",schedule=zb-h1",
    ",schedule=zb-v",
};
enum { NO_PIPELINE = 0, INTERLEAVED = 3, ZB_V = 5 }; /* of pipelines */
static const char *const contexts[] = { "", ",cp=2", ",cp=4,cp_kind=ulysses", ",cp=8" };
static const char *const zeros[] = {
    "", ",zero=1", ",zero=2", ",zero=3", ",zero=1,zero_group=2", ",zero=3,zero_group=2",
};
static const char *const sharings[] = { "", ",ep=2", ",ep=4", ",ep=8" };

/* Who took the first step of a run that another layout resumes; the first that fits, from the
 * n-th on. */
static const char *const earlier[] = {
    "dp=2,zero=3", "tp=2,pp=2", "dp=4,ep=2,zero=1", "dp=1", "dp=4,zero=2", "pp=2,schedule=zb-v",
    "tp=4", "dp=2,cp=2", "cp=4,ep=2", "dp=2,cp=2,ep=4",
};

/* One rank's: dense with fused and gated layers, dense and tied, two kinds of experts, and fewer
 * key-value heads than some tp. */
enum shape { LLAMA, GPT2, MIXTRAL, DEEPSEEK, QWEN };
static const char *const shapes[] = { "llama", "gpt2", "mixtral", "deepseek", "qwen" };

static const struct {
    const char *name;
    int n, values[MATRIX_VALUES];
} factors[FACTORS] = {
    { "dp", 4, { 1, 2, 4, 8 } },
    { "tp", 4, { 1, 2, 4, 8 } },
    { "schedule", 6, { 0, 1, 2, 3, 4, 5 } }, /* of pipelines */
    { "cp", 4, { 0, 1, 2, 3 } },       /* of contexts */
    { "ep", 4, { 0, 1, 2, 3 } },       /* of sharings */
    { "zero", 6, { 0, 1, 2, 3, 4, 5 } }, /* of zeros */
    { "micro-batches", 4, { 1, 2, 4, 8 } },
    { "recompute", 3, { RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL } },
    { "model", 5, { LLAMA, GPT2, MIXTRAL, DEEPSEEK, QWEN } },
    { "precision", 2, { 0, 1 } },      /* 1: bf16 */
    { "threads", 2, { 1, 2 } },
    { "rows", 2, { 8, 24 } },          /* of a step: 24 has an odd part */
    { "optimizer", 2, { 0, 1 } },      /* 1: muon */
    { "resumed", 2, { 0, 1 } },        /* 1: after the first step, from another layout's state */
    { "pp", 3, { 2, 4, 8 } },          /* ranks of a pipeline, where there is one */
};

struct matrix_case {
    u8 at[FACTORS]; /* which value */
};

struct matrix {
    u8 *seen; /* by tuple_number: 1 shown, 2 impossible */
    i64 tuples, next, impossible;
    int strength;
    struct rng key;
    u64 drawn;
};

static int value_of(const struct matrix_case *c, enum factor f)
{
    return factors[f].values[c->at[f]];
}

static int depth_of(const struct matrix_case *c)
{
    return value_of(c, PP) == NO_PIPELINE ? 1 : value_of(c, DEPTH);
}

static void matrix_layout(const struct matrix_case *c, char *text, size_t bytes)
{
    char pp[16] = "";
    if (value_of(c, PP) != NO_PIPELINE)
        snprintf(pp, sizeof pp, ",pp=%d", depth_of(c));
    snprintf(text, bytes, "dp=%d,tp=%d%s%s%s%s%s", value_of(c, DP), value_of(c, TP),
             zeros[value_of(c, ZERO)], sharings[value_of(c, EP)], contexts[value_of(c, CP)], pp,
             pipelines[value_of(c, PP)]);
}

/* Four, or as many as there are stages. */
static int layers_of(const struct matrix_case *c)
{
    const bool chunks = value_of(c, PP) == INTERLEAVED || value_of(c, PP) == ZB_V;
    return (int)i64_max(4, depth_of(c) * (chunks ? 2 : 1));
}

static struct ranks_options matrix_options(const struct matrix_case *c, const char *layout)
{
    struct exact_case e = { .gpt2 = value_of(c, MODEL) == GPT2, .half = value_of(c, PRECISION),
                            .micro_batches = value_of(c, MICRO_BATCHES), .heads = 8,
                            .B = value_of(c, ROWS) / value_of(c, MICRO_BATCHES),
                            .threads = value_of(c, THREADS) };
    struct ranks_options o = exact_options(&e, layout);
    o.layers = layers_of(c);
    o.tiny.recompute = (enum recompute)value_of(c, RECOMPUTE);
    o.tiny.optimizer = value_of(c, MUON) ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
    o.tiny.experts = value_of(c, MODEL) == MIXTRAL ? TINY_MIXTRAL
                     : value_of(c, MODEL) == DEEPSEEK ? TINY_DEEPSEEK : TINY_DENSE;
    o.kv_heads = value_of(c, MODEL) == QWEN ? 2 : 0;
    o.bias_qkv = value_of(c, MODEL) == QWEN;
    return o;
}

/* The order of sums of the one rank is that of the layout, which the earlier one has too. */
static bool fits(const struct matrix_case *c, const char *layout, const char *order)
{
    struct ranks_options o = matrix_options(c, layout);
    const struct model_spec spec = rank_spec(&o);
    struct layout l = layout_single();
    struct arena a;
    arena_init(&a);
    bool ok = layout_parse(&l, layout, "test", &a) == OK &&
              layout_parse(&l, order, "test", &a) == OK && layout_ranks(&l) <= MOST_RANKS &&
              layout_check(&l, &spec, layout_ranks(&l), o.tiny.B, RANK_T,
                           o.tiny.micro_batches) == OK;
    arena_fini(&a);
    return ok;
}

/* Many ranks with pools of threads take long, and many along cp. */
static bool makes_sense(const struct matrix_case *c)
{
    static const int context_ranks[] = { 1, 2, 4, 8 };
    char layout[160];
    int cp = context_ranks[value_of(c, CP)];
    int ranks = value_of(c, DP) * value_of(c, TP) * cp * depth_of(c);
    if (value_of(c, PP) == NO_PIPELINE && c->at[DEPTH] > 0)
        return false; /* says nothing */
    if ((value_of(c, ZERO) > 0 && value_of(c, DP) == 1) ||
        (cp > 1 && ranks > MATRIX_CONTEXT_RANKS) ||
        (value_of(c, THREADS) > 1 && ranks > (cp > 1 ? 2 : 8)))
        return false;
    matrix_layout(c, layout, sizeof layout);
    return fits(c, layout, exact_alone(layout));
}

/* --- tuples ------------------------------------------------------------------------- */

/* Which factors and values, with strength 2 z and its value are 0. */
struct tuple {
    int f[3], at[3];
};

static i64 tuple_number(const struct tuple *t)
{
    i64 number = 0;
    for (int k = 0; k < 3; k++)
        number = (number * FACTORS + t->f[k]) * MATRIX_VALUES + t->at[k];
    return number;
}

static struct tuple tuple_of(i64 number)
{
    struct tuple t;
    for (int k = 2; k >= 0; k--) {
        t.at[k] = (int)(number % MATRIX_VALUES);
        t.f[k] = (int)(number / MATRIX_VALUES % FACTORS);
        number /= FACTORS * MATRIX_VALUES;
    }
    return t;
}

static bool is_tuple(const struct matrix *m, const struct tuple *t)
{
    for (int k = 0; k < m->strength; k++)
        if (t->at[k] >= factors[t->f[k]].n || (k > 0 && t->f[k] <= t->f[k - 1]))
            return false;
    return m->strength == 3 || (t->f[2] == 0 && t->at[2] == 0);
}

static void matrix_init(struct matrix *m, int strength, struct arena *a)
{
    const i64 each = FACTORS * MATRIX_VALUES;
    *m = (struct matrix){ .tuples = each * each * each, .strength = strength, .key = { 11, 0 } };
    m->seen = ARENA_ARRAY(a, u8, m->tuples);
}

/* Tuples of the case that are new; noted as seen when take is set. */
static int new_tuples(struct matrix *m, const struct matrix_case *c, bool take)
{
    int found = 0;
    for (int x = 0; x < FACTORS; x++)
        for (int y = x + 1; y < FACTORS; y++)
            for (int z = m->strength == 3 ? y + 1 : 0; z < (m->strength == 3 ? FACTORS : 1); z++) {
                const struct tuple t = { { x, y, z },
                                         { c->at[x], c->at[y], m->strength == 3 ? c->at[z] : 0 } };
                u8 *seen = &m->seen[tuple_number(&t)];
                found += *seen == 0;
                if (take && *seen == 0)
                    *seen = 1;
            }
    return found;
}

/* Values at random, but for the tuple's. */
static struct matrix_case draw(struct matrix *m, const struct tuple *t)
{
    struct matrix_case c;
    for (int f = 0; f < FACTORS; f++)
        c.at[f] = (u8)(rng_u64(&m->key, m->drawn++) % (u64)factors[f].n);
    for (int k = 0; t && k < m->strength; k++)
        c.at[t->f[k]] = (u8)t->at[k];
    return c;
}

/* The best of some cases that show the tuple; false: none was found. */
static bool find_case(struct matrix *m, const struct tuple *t, struct matrix_case *out)
{
    int best = 0, drawn = 0;
    for (int i = 0; i < MATRIX_TRIES && drawn < MATRIX_DRAWS; i++) {
        struct matrix_case c = draw(m, t);
        if (!makes_sense(&c))
            continue;
        drawn++;
        int found = new_tuples(m, &c, false);
        if (found > best) {
            best = found;
            *out = c;
        }
    }
    return best > 0;
}

/* The next case; false when every tuple was seen. */
static bool matrix_next(struct matrix *m, struct matrix_case *out)
{
    for (; m->next < m->tuples; m->next++) {
        const struct tuple t = tuple_of(m->next);
        if (!is_tuple(m, &t) || m->seen[m->next])
            continue;
        if (find_case(m, &t, out)) {
            new_tuples(m, out, true);
            return true;
        }
        m->seen[m->next] = 2;
        m->impossible++;
    }
    return false;
}

/* --- running a case ----------------------------------------------------------------- */

/* Layout text with the order of sums. */
static struct ranks_options options_with(const struct matrix_case *c, const char *layout,
                                         const char *order, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s,%s", layout, order);
    return matrix_options(c, text);
}

/* Whose state a resumed run begins with; NULL: it is not resumed. */
static const char *matrix_earlier(const struct matrix_case *c, const char *order)
{
    int n = 0;
    for (int f = 0; f < FACTORS; f++)
        n += c->at[f];
    for (int i = 0; i < COUNT_OF(earlier) && value_of(c, RESUMED); i++) {
        const char *layout = earlier[(n + i) % COUNT_OF(earlier)];
        if (fits(c, layout, order))
            return layout;
    }
    return NULL;
}

/* "| dp=2,tp=4,zero=1 | ...": the case in words. */
static void matrix_name(const struct matrix_case *c, char *name, size_t bytes)
{
    char layout[160];
    matrix_layout(c, layout, sizeof layout);
    const char *before = matrix_earlier(c, exact_alone(layout));
    snprintf(name, bytes, "| %s | %s | %d x %d | %s %s %s | %s | %d |", layout,
             before ? before : "", value_of(c, MICRO_BATCHES),
             value_of(c, ROWS) / value_of(c, MICRO_BATCHES), shapes[value_of(c, MODEL)],
             value_of(c, PRECISION) ? "bf16" : "fp32", value_of(c, MUON) ? "muon" : "adamw",
             (const char *[]){ "none", "selective", "full" }[value_of(c, RECOMPUTE)],
             value_of(c, THREADS));
}

/* One step on the earlier layout, whose state the others take over. */
static const char *step_before(const struct matrix_case *c, const char *before, const char *order,
                               struct ranks *one, struct ranks *many)
{
    struct ranks *first = calloc(1, sizeof *first);
    char text[256];
    struct ranks_options o = options_with(c, before, order, text, sizeof text);
    o.tiny.threads = 1;
    ranks_open(first, &o);
    const char *difference = exact_steps(one, first, 0, 1);
    reshard(many, first);
    ranks_close(first);
    free(first);
    return difference;
}

/* What differs, as exact_run says it. */
static const char *matrix_run(const struct matrix_case *c)
{
    struct ranks *one = calloc(2, sizeof *one), *many = one + 1;
    char layout[160], text[256];
    matrix_layout(c, layout, sizeof layout);
    const char *order = exact_alone(layout), *before = matrix_earlier(c, order), *difference = NULL;
    struct ranks_options o = matrix_options(c, order);
    o.tiny.threads = 1;
    o.tiny.recompute = RECOMPUTE_NONE;
    ranks_open(one, &o);
    o = options_with(c, layout, order, text, sizeof text);
    ranks_open(many, &o);
    if (before)
        difference = step_before(c, before, order, one, many);
    if (!difference)
        difference = exact_steps(one, many, before ? 1 : 0, EXACT_STEPS);
    ranks_close(one);
    ranks_close(many);
    free(one);
    return difference;
}

#endif
