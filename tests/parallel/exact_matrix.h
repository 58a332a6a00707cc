/* tests/parallel/exact_matrix.h - cases in which every two, or three, choices of a layout meet.
 *
 * A case is one value for each factor. From all cases that make sense, the one that shows most
 * tuples of values not yet seen is taken, until all were. */
#ifndef HEADWAY_TEST_EXACT_MATRIX_H
#define HEADWAY_TEST_EXACT_MATRIX_H

#include "parallel/exact.h"

enum factor {
    DP, TP, PP, CP, ZERO, MICRO_BATCHES, RECOMPUTE, MODEL, PRECISION, THREADS, ROWS, MUON, FACTORS
};

/* Ways to be a pipeline: what the layout says. */
static const char *const pipelines[] = {
    "", ",pp=2", ",pp=2,schedule=zb-h1", ",pp=2,schedule=zb-v",
};

/* Ways to cut rows. */
static const char *const contexts[] = {
    "", ",cp=2", ",cp=4,cp_kind=ulysses", ",cp=8",
};
static const int context_ranks[] = { 1, 2, 4, 8 };

static const struct {
    const char *name;
    int n, values[4];
} factors[FACTORS] = {
    { "dp", 4, { 1, 2, 4, 8 } },
    { "tp", 4, { 1, 2, 4, 8 } },
    { "pp", 4, { 0, 1, 2, 3 } }, /* of pipelines */
    { "cp", 4, { 0, 1, 2, 3 } }, /* of contexts */
    { "zero", 4, { 0, 1, 2, 3 } },
    { "micro-batches", 3, { 1, 2, 4 } },
    { "recompute", 3, { RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL } },
    { "model", 2, { 0, 1 } },     /* 1: gpt2, tied, learned positions, biases */
    { "precision", 2, { 0, 1 } }, /* 1: bf16 */
    { "threads", 2, { 1, 2 } },
    { "rows", 2, { 8, 24 } }, /* of a step: 24 has an odd part */
    { "optimizer", 2, { 0, 1 } }, /* 1: muon */
};

struct matrix_case {
    u8 at[FACTORS]; /* which value */
};

enum { MATRIX_CASES = 4 * 4 * 4 * 4 * 4 * 3 * 3 * 2 * 2 * 2 * 2 * 2, TUPLES = 1 << 20 };

struct matrix {
    struct matrix_case *all;
    int n;
    u8 *seen; /* by tuple_number */
    int strength;
};

static int value_of(const struct matrix_case *c, enum factor f)
{
    return factors[f].values[c->at[f]];
}

/* Optimizer state is split among dp ranks only; many ranks with pools of threads take long. */
static bool makes_sense(const struct matrix_case *c)
{
    int cp = context_ranks[value_of(c, CP)];
    int ranks = value_of(c, DP) * value_of(c, TP) * cp * (value_of(c, PP) ? 2 : 1);
    if (cp > 1 && (value_of(c, ROWS) != 8 || ranks > 16)) /* a power of two */
        return false;
    if (strstr(contexts[value_of(c, CP)], "ulysses") && cp * value_of(c, TP) > 8) /* heads */
        return false;
    return (value_of(c, ZERO) == 0 || value_of(c, DP) > 1) && ranks <= MOST_RANKS &&
           (value_of(c, THREADS) == 1 || ranks <= (cp > 1 ? 2 : 8));
}

static void matrix_init(struct matrix *m, int strength, struct arena *a)
{
    *m = (struct matrix){ .all = ARENA_ARRAY(a, struct matrix_case, MATRIX_CASES),
                          .seen = ARENA_ARRAY(a, u8, TUPLES), .strength = strength };
    for (int number = 0; number < MATRIX_CASES; number++) {
        struct matrix_case c;
        int rest = number;
        for (int f = 0; f < FACTORS; f++) {
            c.at[f] = (u8)(rest % factors[f].n);
            rest /= factors[f].n;
        }
        if (makes_sense(&c))
            m->all[m->n++] = c;
    }
}

/* Tuples of the case that are new; noted as seen when take is set. */
static int new_tuples(struct matrix *m, const struct matrix_case *c, bool take)
{
    int found = 0;
    for (int x = 0; x < FACTORS; x++)
        for (int y = x + 1; y < FACTORS; y++)
            for (int z = y + 1; z < (m->strength == 3 ? FACTORS : y + 2); z++) {
                int tuple = ((x * FACTORS + y) * 4 + c->at[x]) * 4 + c->at[y];
                if (m->strength == 3)
                    tuple = (tuple * FACTORS + z) * 4 + c->at[z];
                found += !m->seen[tuple];
                m->seen[tuple] |= take;
            }
    return found;
}

/* The next case; false when every tuple was seen. */
static bool matrix_next(struct matrix *m, struct matrix_case *out)
{
    int best = 0;
    for (int i = 0; i < m->n; i++) {
        int found = new_tuples(m, &m->all[i], false);
        if (found > best) {
            best = found;
            *out = m->all[i];
        }
    }
    if (best > 0)
        new_tuples(m, out, true);
    return best > 0;
}

/* "dp=2,tp=4,zero=1" and the rest in words; exact_run's answer. */
static const char *matrix_run(const struct matrix_case *m, char *name, size_t bytes)
{
    static char text[400];
    struct ranks *one = calloc(2, sizeof *one), *many = one + 1;
    char layout[160];
    const char *context = contexts[value_of(m, CP)];
    struct exact_case c = { .gpt2 = value_of(m, MODEL), .half = value_of(m, PRECISION),
                            .micro_batches = value_of(m, MICRO_BATCHES),
                            .B = value_of(m, ROWS) / value_of(m, MICRO_BATCHES),
                            .recompute = (enum recompute)value_of(m, RECOMPUTE),
                            .threads = value_of(m, THREADS) };
    snprintf(layout, sizeof layout, "dp=%d,tp=%d,zero=%d%s%s,%s", value_of(m, DP),
             value_of(m, TP), value_of(m, ZERO), context, pipelines[value_of(m, PP)],
             exact_alone(context));
    snprintf(name, bytes, "| dp=%d,tp=%d,zero=%d%s%s | %d x %d | %s %s %s | %s | %d |",
             value_of(m, DP), value_of(m, TP), value_of(m, ZERO), context,
             pipelines[value_of(m, PP)],
             c.micro_batches, (int)c.B,
             c.gpt2 ? "gpt2" : "llama", c.half ? "bf16" : "fp32",
             value_of(m, MUON) ? "muon" : "adamw",
             (const char *[]){ "none", "selective", "full" }[c.recompute], c.threads);
    struct ranks_options o = exact_options(&c, exact_alone(context));
    o.tiny.threads = 1;
    o.tiny.optimizer = value_of(m, MUON) ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
    o.heads = 8;
    o.layers = 4;
    ranks_open(one, &o);
    o = exact_options(&c, layout);
    o.tiny.recompute = c.recompute;
    o.tiny.optimizer = value_of(m, MUON) ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
    o.heads = 8;
    o.layers = 4;
    ranks_open(many, &o);
    const char *difference = exact_run(one, many);
    if (difference)
        snprintf(text, sizeof text, "%s", difference);
    ranks_close(one);
    ranks_close(many);
    free(one);
    return difference ? text : NULL;
}

#endif
