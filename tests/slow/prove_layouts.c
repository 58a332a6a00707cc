/* Every layout beside one rank, to the last bit: prints the table of bench/LAYOUTS.md.
 *
 *     prove_layouts [STRENGTH]    3: all triples of choices meet (the default); 2: all pairs */
#include <stdio.h>
#include <stdlib.h>

#include "parallel/exact_matrix.h"

static int run_case(const struct matrix_case *c, int *failed)
{
    char name[256];
    const char *difference = matrix_run(c);
    matrix_name(c, name, sizeof name);
    printf("%s %s |\n", name, difference ? difference : "equal");
    fflush(stdout);
    *failed += difference != NULL;
    return 1;
}

static void print_head(int strength)
{
    printf("# Layouts beside one rank\n\n"
           "Made by `./run prove-layouts`, with the %s kernels. A tiny model of 4 layers "
           "(or of as many as a pipeline has stages) and 8 heads (mixtral: 8 experts of "
           "which 2 are chosen; deepseek: a dense layer, a shared part and a bias too; "
           "qwen: 2 key-value heads, which neighbours along tp share), %d steps of T = "
           "%d: \"equal\" means that after each step the loss, every gradient, moment, "
           "average and weight on every rank have the very bits of one rank without "
           "recompute (with `layout.exact`). Where another layout stands in the second "
           "column, it took the first step, and the layout of the first column went on "
           "from its state. Any %s choices meet in some row, where a layout can have "
           "them.\n\n"
           "| layout | resumed from | micro-batches x rows | model | recompute | threads | bits |\n"
           "|---|---|---|---|---|---|---|\n",
           backend_best(), EXACT_STEPS, RANK_T, strength == 3 ? "three" : "two");
}

/* A choice in words. */
static const char *choice_name(enum factor f, int at, char *text, size_t bytes)
{
    const char *const *const words[FACTORS] = { [PP] = pipelines, [CP] = contexts, [ZERO] = zeros,
                                                [EP] = sharings, [MODEL] = shapes };
    const char *word = words[f] ? words[f][at] : "";
    if (*word)
        snprintf(text, bytes, "`%s`", word + (*word == ','));
    else
        snprintf(text, bytes, "%s %d", factors[f].name, factors[f].values[at]);
    return text;
}

/* Which choices exclude each other. */
static void print_impossible(struct matrix *pairs)
{
    struct matrix_case c;
    char one[64], other[64];
    while (matrix_next(pairs, &c))
        ;
    printf("\nChoices that no layout here has together, since it would be refused or "
           "have more than %d ranks (%d with cp; tests/parallel/test_exact_pipeline.c "
           "has dp 8, tp 8 and pp 8 with cp=8 and dp 8 with interleaved):\n\n",
           (int)MOST_RANKS, (int)MATRIX_CONTEXT_RANKS);
    for (i64 i = 0; i < pairs->tuples; i++) {
        const struct tuple t = tuple_of(i);
        const bool idle = t.f[1] == DEPTH && t.f[0] == PP && t.at[0] == NO_PIPELINE;
        if (pairs->seen[i] == 2 && !idle)
            printf("- %s with %s\n", choice_name((enum factor)t.f[0], t.at[0], one, sizeof one),
                   choice_name((enum factor)t.f[1], t.at[1], other, sizeof other));
    }
}

int main(int argc, char **argv)
{
    int strength = argc > 1 ? atoi(argv[1]) : 3, cases = 0, failed = 0;
    struct arena a;
    struct matrix m, pairs;
    struct matrix_case c;
    arena_init(&a);
    matrix_init(&m, strength == 2 ? 2 : 3, &a);
    matrix_init(&pairs, 2, &a);
    print_head(m.strength);
    while (matrix_next(&m, &c))
        cases += run_case(&c, &failed);
    print_impossible(&pairs);
    printf("\n%d cases, %d with different bits.\n", cases, failed);
    arena_fini(&a);
    return failed != 0;
}
