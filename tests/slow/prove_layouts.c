/* Every layout beside one rank, to the last bit: prints the table of bench/LAYOUTS.md.
 *
 *     prove_layouts [STRENGTH]    3: all triples of choices meet (the default); 4: all cases */
#include <stdio.h>
#include <stdlib.h>

#include "parallel/exact_matrix.h"

static int run_case(const struct matrix_case *c, int *failed)
{
    char name[160];
    const char *difference = matrix_run(c, name, sizeof name);
    printf("%s %s |\n", name, difference ? difference : "equal");
    fflush(stdout);
    *failed += difference != NULL;
    return 1;
}

int main(int argc, char **argv)
{
    int strength = argc > 1 ? atoi(argv[1]) : 3, cases = 0, failed = 0;
    struct arena a;
    struct matrix m;
    struct matrix_case c;
    arena_init(&a);
    matrix_init(&m, strength, &a);
    printf("# Layouts beside one rank\n\n"
           "Made by `./run prove-layouts`, with the %s kernels. A tiny model of 3 layers and 8 "
           "heads, %d steps of T = %d: \"equal\" means that after each step the loss, every "
           "gradient, moment, average and weight on every rank have the very bits of one rank "
           "(with `layout.exact`). %s\n\n"
           "| layout | micro-batches x rows | model | recompute | threads | bits |\n"
           "|---|---|---|---|---|---|\n",
           backend_best(), EXACT_STEPS, RANK_T,
           strength >= 4 ? "All cases." : strength == 3 ? "Any three choices meet in some row."
                                                        : "Any two choices meet in some row.");
    if (strength >= 4)
        for (int i = 0; i < m.n; i++)
            cases += run_case(&m.all[i], &failed);
    else
        while (matrix_next(&m, &c))
            cases += run_case(&c, &failed);
    printf("\n%d cases, %d with different bits.\n", cases, failed);
    arena_fini(&a);
    return failed != 0;
}
