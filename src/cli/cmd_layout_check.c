/* A layout's first steps beside one rank's: does nothing but rounding differ? */
#include "base/err.h"
#include "base/sys.h"
#include "cli/layout_recipe.h"
#include "train/session.h"
#include "train/train_layout.h"
#include "train/trial.h"

#include <stdio.h>
#include <stdlib.h>

enum { SHOWN = 12, MOST_SIMULATED = 64 };

struct check_options {
    const char *layout, *backend;
    i64 ranks, steps;
};

static const struct option check_table[] = {
    { "layout", OPTION_FIELD(STRING, struct check_options, layout), NULL,
      .help = "Such as dp=2,tp=2: short for layout.dp and its like. auto: the best of --ranks." },
    LAYOUT_RANKS_OPTION(struct check_options),
    { "steps", OPTION_FIELD(INT, struct check_options, steps), "1", .unit = "steps", .min = 1,
      .max = 3, .help = "Steps to take before tensors are compared." },
    { "backend", OPTION_FIELD(STRING, struct check_options, backend), "auto",
      .help = "Kernels: auto, generic, avx2, avx512, avx512bf16 or amx." },
    { 0 },
};

static int check_possible(const struct layout_recipe *r, const struct layout *exact)
{
    if (layout_ranks(&r->layout) > MOST_SIMULATED)
        return err_set(ERR_CONFIG, "%lld ranks are more than the %d that are simulated; choose "
                       "smaller degrees", (long long)layout_ranks(&r->layout), MOST_SIMULATED);
    if (r->layout.islands > 1)
        return err_set(ERR_CONFIG, "islands take other steps than one rank does; check the layout "
                       "within one of them, with islands=1");
    if (r->config.train.seq > r->spec.positions)
        return err_set(ERR_CONFIG, "train.seq %lld is longer than the %lld positions of %s",
                       (long long)r->config.train.seq, (long long)r->spec.positions, r->spec.name);
    return train_layout_check(exact, &r->spec, &r->config, 1);
}

/* Weights and their state of all that is in memory at once: two single ranks, and the
 * layout's, of which those that share the batch have copies unless zero splits them.
 * Activations come on top. */
static int check_memory(const struct layout_recipe *r)
{
    const struct layout *l = &r->layout;
    enum dtype compute = r->config.train.precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    const double whole = (double)model_bytes(&r->spec, compute, step_needs(&r->config),
                                             r->config.train.seq);
    const double copies = l->zero > ZERO_NONE ? 1 : (double)(l->dp * l->cp);
    const double bytes = (2 + copies) * whole, limit = (double)sys_memory_limit_bytes();
    if (bytes <= limit)
        return OK;
    return err_set(ERR_LIMIT, "to check this layout takes about %.1f GB or more, since "
                   "all ranks and two single ones are in this process, and there are "
                   "%.1f GB: choose smaller degrees, or fewer layers with --set "
                   "'model.override={layers: N}'", 1e-9 * bytes, 1e-9 * limit);
}

/* A token that two experts suit alike goes to the other one when anything is rounded otherwise. */
static bool watches(const struct layout_recipe *r)
{
    return r->spec.experts == 0 || r->config.train.precision != PRECISION_BF16;
}

/* Runs one of the three; one: NULL, or those to compare with. */
static int run_trial(struct trial *t, const struct layout_recipe *r, const struct layout *l,
                     const struct trial *one, const struct trial *disturbed, double disturb,
                     struct loader *loader, const struct check_options *o)
{
    TRY(trial_open(t, &r->config, &r->spec, l, o->backend));
    trial_read(t, loader);
    if (disturb > 0)
        trial_disturb(t, disturb);
    for (i64 step = 0; step < o->steps; step++) {
        if (step == o->steps - 1 && watches(r))
            trial_watch(t, one, disturbed);
        TRY(trial_step(t, step));
    }
    return OK;
}

static int by_ratio(const void *a, const void *b)
{
    const struct trial_line *x = a, *y = b;
    return x->ratio > y->ratio ? -1 : x->ratio < y->ratio;
}

static int judge(const struct layout_recipe *r, struct trial_line *lines, i64 n, double rounding,
                 const char *rows, struct arena *a)
{
    const struct trial_line *bad = trial_first(lines, n);
    struct trial_line first = bad ? *bad : (struct trial_line){ 0 };
    qsort(lines, (size_t)n, sizeof *lines, by_ratio);
    if (lines[0].ratio == 0) {
        printf("layout %s beside one exact rank, on %s: loss, norm and %lld tensors are "
               "equal, bit for bit\n",
               layout_text(&r->layout, a), rows, (long long)n - TRIAL_NUMBERS);
        return OK;
    }
    printf("layout %s beside one exact rank, on %s; rounding moves weights by %.2g\n\n"
           "       of bound  difference  rank  tensor\n",
           layout_text(&r->layout, a), rows, rounding);
    for (i64 i = 0; i < i64_min(n, SHOWN); i++)
        printf("%15.3g  %10.2g  %4d  %s of %s\n", lines[i].ratio, lines[i].difference,
               lines[i].rank, lines[i].kind, lines[i].name);
    printf("   ... of %lld tensors, the loss and the gradient's norm\n",
           (long long)n - TRIAL_NUMBERS);
    if (bad)
        return err_set(ERR_NUMERIC, "the %s of %s on rank %d is the first that rounding does not "
                       "explain: its difference of %.2g is %.3g times the bound", first.kind,
                       first.name, first.rank, first.difference, first.ratio);
    printf("nothing but rounding differs\n");
    return OK;
}

static int compare(const struct layout_recipe *r, struct loader *loader, const char *rows,
                   const struct check_options *o, struct arena *a)
{
    struct trial many = { 0 }, one = { 0 }, disturbed = { 0 };
    struct trial_line *lines;
    struct layout exact = layout_single();
    exact.exact = true;
    double rounding = trial_rounding(&r->config, &r->spec);
    int rc = run_trial(&one, r, &exact, NULL, NULL, 0, loader, o);
    if (rc >= 0)
        rc = run_trial(&disturbed, r, &exact, NULL, NULL, rounding, loader, o);
    if (rc >= 0)
        rc = run_trial(&many, r, &r->layout, &one, &disturbed, 0, loader, o);
    if (rc >= 0) {
        i64 n = trial_compare(&many, &one, &disturbed, &lines, a);
        rc = judge(r, lines, n, rounding, rows, a);
    }
    trial_close(&many);
    trial_close(&one);
    trial_close(&disturbed);
    return rc;
}

/* On the rows that training would read first. Text without a data.cache becomes shards
 * for this only. */
static int compare_on_data(struct layout_recipe *r, const struct check_options *o, struct arena *a)
{
    const struct train_request request = { .config = &r->config, .recipe = r->recipe };
    const char *folder = arena_printf(a, "%s/layout-check-%lld", r->config.run.dir,
                                      (long long)sys_process_id());
    struct session *s = ARENA_NEW(a, struct session);
    int rc = session_open_rows(s, &request, &r->spec, folder);
    if (rc >= 0) {
        rc = compare(r, s->loader, "the recipe's rows", o, a);
        session_close(s);
    }
    sys_remove_tree(folder);
    return rc;
}

static int check(struct invocation *v)
{
    const struct check_options *o = v->options;
    struct layout_recipe r;
    TRY(layout_recipe_read(&r, v, o->layout, o->ranks));
    struct layout exact = layout_single();
    exact.exact = true;
    TRY(check_possible(&r, &exact));
    TRY(check_memory(&r));
    if (session_has_text(&r.config, v->arena))
        return compare_on_data(&r, o, v->arena);
    return compare(&r, NULL, "made-up rows, since the recipe's data are not there", o, v->arena);
}

static const struct example check_examples[] = {
    { "headway layout check recipes/demo.yaml --layout dp=2,tp=2,zero=1 --set train.batch=4",
      "Four ranks, simulated in this process." },
    { 0 },
};

const struct command cmd_layout_check = {
    .name = "check", .summary = "Compare a layout's first steps with those of one rank",
    .arguments = "RECIPE.yaml",
    .description = "Takes steps of the recipe's model on simulated ranks and on one rank in exact "
                   "mode, from the same weights, on the rows that training would read "
                   "first (made-up ones where the recipe's data are not there), and "
                   "compares the loss, the gradient's norm, every gradient, moment and "
                   "weight, and of the last step what goes into each product and the "
                   "gradient of what comes out of it (but with experts in bf16). How far "
                   "rounding can move a tensor is measured, by a second run of one rank "
                   "whose weights are off by what its sums can be off. The first tensor, "
                   "in the order of the step, that differs by more is named, and the "
                   "exit code is not 0.",
    .options = check_table, .options_bytes = sizeof(struct check_options), .takes_set = true,
    .min_args = 1, .max_args = 1, .examples = check_examples, .run = check,
};
