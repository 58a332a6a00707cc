/* How far the planner is from what others measured. */
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "base/text.h"
#include "cli/command.h"
#include "plan/efficiency.h"
#include "plan/stack.h"
#include "plan/validate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct validate_options {
    const char *rows, *set;
    bool each, json;
};

static const struct option validate_table[] = {
    { "rows", OPTION_FIELD(PATH, struct validate_options, rows), NULL,
      .help = "A table of measurements, with the columns of facts/measured; all of these if "
              "not given." },
    { "set", OPTION_FIELD(STRING, struct validate_options, set), NULL,
      .help = "Only this set of facts/measured." },
    { "each", OPTION_FIELD(BOOL, struct validate_options, each), "false",
      .help = "A line for each row, with the terms of its step." },
    { "json", OPTION_FIELD(BOOL, struct validate_options, json), "false",
      .help = "As JSON." },
    { 0 },
};

static const char *const sets[] = {
    "korthikanti2022", "megatron_sc21_table1", "vtrain_single", "vtrain_multi",
    "bigscience_bloom_a100", "llm_foundry_mpt", "ultrascale_nanotron_h100",
    "megatron_h100_readme", "megascale", "megatron_bridge", "torchtitan", "maxtext",
    "misc_models",
};

/* --- text ----------------------------------------------------------------------------- */

static void print_each(const struct validated_set *s)
{
    printf("id,measured_s,predicted_s,error,lo_s,hi_s,fits,memory_gb,reported_gb");
    for (int i = 0; i < PLAN_TERMS; i++)
        printf(",%s", plan_term_names[i]);
    for (int i = 0; i < PLAN_MEMORIES; i++)
        printf(",%s_gb", plan_memory_names[i]);
    printf("\n");
    for (i64 i = 0; i < s->n; i++) {
        const struct validated_row *v = &s->rows[i];
        if (!v->priced) {
            printf("%s,,,,,,,,,%s%s\n", v->row->id, v->row->missing ? "missing: " : "",
                   v->row->missing ? v->row->missing : v->refused);
            continue;
        }
        printf("%s,%.6g,%.6g,%.4f,%.6g,%.6g,%d,%.2f,%.2f", v->row->id, v->row->seconds,
               v->step.seconds, v->error, v->step.band.lo, v->step.band.hi, v->step.fits,
               v->step.memory_bytes / 1e9, v->row->memory_bytes / 1e9);
        for (int k = 0; k < PLAN_TERMS; k++)
            printf(",%.6g", v->step.terms[k]);
        for (int k = 0; k < PLAN_MEMORIES; k++)
            printf(",%.4g", v->step.memory[k] / 1e9);
        printf("\n");
    }
}

static void print_heading(void)
{
    printf("%-25s %5s %5s %7s %7s %7s %7s %6s %6s %7s %6s %6s %8s\n", "set", "rows", "used",
           "error", "median", "p90", "bias", "rank", "regret", "best10%", "inside", "width",
           "w/median");
}

/* Rows whose memory is known or that failed, beside what "everything fits" would get right. */
static void print_memory(const struct validated_set *s)
{
    i64 all = s->memory_rows + s->failures;
    printf("%-25s   memory: %lld of %lld that ran are said to fit", "", (long long)s->fit_right,
           (long long)s->memory_rows);
    if (s->memory_rows > 0)
        printf(", median error %.1f%%", 100 * s->memory_error);
    printf("; of %lld that failed (some for other reasons) %lld are said not to fit; %.1f%% of all "
           "told right, \"everything fits\" %.1f%%\n", (long long)s->failures,
           (long long)s->failures_no_fit,
           100 * (double)(s->fit_right + s->failures_no_fit) / (double)all,
           100 * (double)s->memory_rows / (double)all);
}

/* A cell of `width` characters: the number with `end` after it; "-" where nothing was compared. */
static void print_number(bool known, int width, int digits, double x, const char *end)
{
    int room = width - (int)strlen(end);
    if (known)
        printf(" %*.*f%s", room, digits, x, end);
    else
        printf(" %*s", width, "-");
}

static double width_in_errors(const struct validated_set *s)
{
    return s->median > 0 ? s->width / s->median : NAN;
}

static void print_set(const struct validated_set *s)
{
    bool times = s->compared > 0, order = s->cells > 0;
    printf("%-25s %5lld %5lld", s->name, (long long)s->n, (long long)s->compared);
    print_number(times, 7, 2, 100 * s->mape, "%");
    print_number(times, 7, 2, 100 * s->median, "%");
    print_number(times, 7, 2, 100 * s->p90, "%");
    if (times)
        printf(" %+6.2f%%", 100 * s->bias);
    else
        print_number(false, 7, 2, 0, "%");
    print_number(order, 6, 3, s->rank, "");
    print_number(order, 6, 1, 100 * s->regret, "%");
    print_number(order, 7, 1, 100 * s->near_best, "%");
    print_number(times, 6, 1, 100 * s->coverage, "%");
    print_number(times, 6, 1, 100 * s->width, "%");
    print_number(times && s->median > 0, 8, 2, width_in_errors(s), "");
    printf("\n");
    if (s->memory_rows > 0 || s->failures > 0)
        print_memory(s);
}

/* How far out intervals of a stack's rows are at most, beside those of what was fitted. */
static double widest(const struct validated_set *s, const struct plan_stack *stack)
{
    double most = 1;
    for (i64 i = 0; i < s->n; i++)
        if (s->rows[i].stack == stack)
            most = fmax(most, s->rows[i].widened);
    return most;
}

/* What was assumed of software, each stack once, with what no operator explains. */
static void print_stacks(const struct validated_set *s)
{
    for (i64 i = 0; i < s->n; i++) {
        const struct plan_stack *stack = s->rows[i].stack;
        bool first = stack != NULL;
        for (i64 k = 0; k < i; k++)
            first = first && s->rows[k].stack != stack;
        if (!first)
            continue;
        printf("%-25s   software: %s", "", stack->name);
        if (stack->factor != 1)
            printf(", declared factor %g on computing", stack->factor);
        if (stack->stall_s > 0)
            printf(", declared stall of %.3g s per micro-batch and neighbour in "
                   "pipelines on %g nodes and more", stack->stall_s, stack->stall_nodes);
        if (stack->stall_s > 0 && stack->stall_memory < 1)
            printf(" or with more than %g of the memory", stack->stall_memory);
        if (stack->stall_s > 0 && stack->stall_tp < 1e9)
            printf(" or with tp of %g and more", stack->stall_tp);
        if (stack->stall_sum_s > 0)
            printf(", of %.3g s per sum of whole gradients on as many nodes", stack->stall_sum_s);
        if (stack->since > 0)
            printf(", for rows of %lld and later", (long long)stack->since);
        if (stack->kept != 1)
            printf(", declared %g times the program's activations kept", stack->kept);
        if (stack->residual_lo != 0 || stack->residual_hi != 0)
            printf(", declared interval of %.3g to %.3g times the predicted time",
                   exp(stack->residual_lo), exp(stack->residual_hi));
        if (stack->stall_nodes > stack->stall_from)
            printf(" and of stalls from %g nodes on", stack->stall_from);
        double widened = widest(s, stack);
        if (widened > 1)
            printf(", beyond what was fitted: interval up to %.3g times as far out", widened);
        printf("\n");
    }
}

/* Which rows are not in the numbers: nobody picked them. */
static void print_fitted(const struct validated_set *s)
{
    if (s->fitted > 0)
        printf("%-25s   %lld rows were fitted and are left out: the middles of as many "
               "equal stretches of the rows that can be\n", "", (long long)s->fitted);
}

static void print_ranges(const struct validated_set *s)
{
    for (i64 i = 0; i < s->n_ranges; i++) {
        const struct validated_range *r = &s->ranges[i];
        printf("%-25s   %s: MFU %.1f %%; %.1f to %.1f %% over %lld layouts that "
               "fit, with micro-batches of 1, 2 and 4, one to four stages per rank\n",
               "", r->row->id, r->row->mfu, r->lo, r->hi, (long long)r->layouts);
    }
}

/* Why rows are not priced, each reason once. */
static void print_reasons(const struct validated_set *s)
{
    for (i64 i = 0; i < s->n; i++) {
        const struct validated_row *v = &s->rows[i];
        const char *why = v->row->missing ? v->row->missing : v->refused;
        i64 n = 0;
        bool first = true;
        for (i64 k = 0; why && k < s->n; k++) {
            const struct validated_row *o = &s->rows[k];
            const char *other = o->row->missing ? o->row->missing : o->refused;
            if (!other || strcmp(other, why))
                continue;
            first = first && k >= i;
            n++;
        }
        if (why && first)
            printf("%-25s   %lld without a price: %s%s\n", "", (long long)n,
                   v->row->missing ? "lacks " : "", why);
    }
}

/* --- JSON ----------------------------------------------------------------------------- */

/* null where nothing was compared. */
static void put_number(struct json *j, const char *key, bool known, double x)
{
    json_put_double(j, key, known ? x : NAN);
}

static void write_set(struct json *j, const struct validated_set *s)
{
    bool times = s->compared > 0;
    json_begin_object(j);
    json_put_str(j, "set", s->name);
    json_put_int(j, "rows", s->n);
    json_put_int(j, "compared", s->compared);
    json_put_int(j, "fitted", s->fitted);
    json_put_int(j, "missing", s->missing);
    json_put_int(j, "refused", s->refused);
    put_number(j, "mean_error", times, s->mape);
    put_number(j, "median_error", times, s->median);
    put_number(j, "p90_error", times, s->p90);
    put_number(j, "largest_error", times, s->worst);
    put_number(j, "bias", times, s->bias);
    put_number(j, "rank_correlation", s->cells > 0, s->rank);
    json_put_int(j, "cells", s->cells);
    put_number(j, "regret", s->cells > 0, s->regret);
    put_number(j, "cells_within_10_percent", s->cells > 0, s->near_best);
    put_number(j, "interval_coverage", times, s->coverage);
    put_number(j, "interval_width", times, s->width);
    put_number(j, "interval_width_in_median_errors", times, width_in_errors(s));
    json_put_int(j, "memory_known", s->memory_rows);
    json_put_int(j, "memory_known_fit", s->fit_right);
    put_number(j, "memory_median_error", s->memory_rows > 0, s->memory_error);
    json_put_int(j, "failed", s->failures);
    json_put_int(j, "failed_no_fit", s->failures_no_fit);
    json_put_int(j, "rows_over_a_range", s->n_ranges);
    json_put_int(j, "within_3_mfu_points_of_it", s->near_range);
    json_end(j);
}

/* --- the command ---------------------------------------------------------------------- */

/* A table of one's own that says nothing is a mistake in it. */
static int nothing_priced(const char *path, const struct validated_set *s)
{
    const struct validated_row *v = &s->rows[0];
    if (s->n == 0)
        return err_set(ERR_FORMAT, "%s has no rows below its heading", path);
    return err_set(ERR_FORMAT, "%s: none of its %lld rows can be priced; the first, '%s', %s%s",
                   path, (long long)s->n, v->row->id, v->row->missing ? "lacks " : "is refused: ",
                   v->row->missing ? v->row->missing : v->refused);
}

/* What was examined so far. */
struct examination {
    struct plan_world *world;
    const struct validated_set *sets[COUNT_OF(sets)];
    i64 n;
    struct json *json;
};

static int validate_one(struct invocation *v, const char *path, struct examination *x)
{
    const struct validate_options *o = v->options;
    struct plan_rows *rows = ARENA_NEW(v->arena, struct plan_rows);
    struct validated_set *set = ARENA_NEW(v->arena, struct validated_set);
    TRY(plan_rows_load(rows, path, v->arena));
    TRY(plan_validate(set, rows, x->world, v->arena));
    if (o->rows && set->priced == 0 && set->n_ranges == 0)
        return nothing_priced(path, set);
    if (o->json) {
        write_set(x->json, set);
    } else if (o->each) {
        print_each(set);
    } else {
        if (x->n == 0)
            print_heading();
        print_set(set);
        print_fitted(set);
        print_stacks(set);
        print_ranges(set);
        print_reasons(set);
    }
    x->sets[x->n++] = set;
    return OK;
}

static void say_pool(struct invocation *v, struct examination *x, const char *name,
                     const char *family)
{
    const struct validate_options *o = v->options;
    struct validated_set pool;
    plan_validate_pool(&pool, name, family, x->sets, x->n, v->arena);
    if (o->json)
        write_set(x->json, &pool);
    else
        print_set(&pool);
}

enum { MOST_FAMILIES = 8 };

/* Rows of all sets that were not fitted: whether intervals hold is asked of them together. */
static void say_pools(struct invocation *v, struct examination *x)
{
    const struct validate_options *o = v->options;
    const char *families[MOST_FAMILIES];
    if (x->n < 2 || o->each)
        return;
    say_pool(v, x, "all sets", NULL);
    i64 n = plan_validate_families(families, MOST_FAMILIES, x->sets, x->n);
    for (i64 i = 0; i < n; i++)
        say_pool(v, x, arena_printf(v->arena, "all sets, %s", families[i]), families[i]);
}

static int no_such_set(const char *name, struct arena *a)
{
    struct nearest nearest = { .typed = name };
    const char *all = "";
    for (i64 i = 0; i < COUNT_OF(sets); i++) {
        nearest_offer(&nearest, sets[i]);
        all = arena_printf(a, "%s%s%s", all, i ? ", " : "", sets[i]);
    }
    const char *near = nearest_found(&nearest);
    if (near)
        return err_set(ERR_USAGE, "no set '%s' in facts/measured; did you mean '%s'?", name, near);
    return err_set(ERR_USAGE, "no set '%s' in facts/measured; there are %s", name, all);
}

static int validate_all(struct invocation *v, struct examination *x)
{
    const struct validate_options *o = v->options;
    if (o->rows)
        return validate_one(v, o->rows, x);
    for (i64 i = 0; i < COUNT_OF(sets); i++) {
        const char *path;
        if (o->set && strcmp(o->set, sets[i]))
            continue;
        TRY(plan_set_path(sets[i], &path, v->arena));
        TRY(validate_one(v, path, x));
        if (o->set)
            return OK;
    }
    if (o->set)
        return no_such_set(o->set, v->arena);
    say_pools(v, x);
    return OK;
}

static int run(struct invocation *v)
{
    const struct validate_options *o = v->options;
    struct json j;
    struct examination x = { .json = &j };
    TRY(plan_world_new(&x.world, v->arena));
    json_writer_init(&j);
    if (o->json)
        json_begin_array(&j);
    int rc = validate_all(v, &x);
    if (o->json && rc >= 0) {
        json_end(&j);
        printf("%s\n", j.out.data);
    }
    json_writer_fini(&j);
    return rc;
}

static const struct example examples[] = {
    { "headway plan validate", "All published sets." },
    { "headway plan validate --set korthikanti2022 --each", "One set, row by row." },
    { 0 },
};

const struct command cmd_plan_validate = {
    .name = "validate",
    .summary = "Price published measurements and say how far off that is",
    .description = "Every row of facts/measured that determines a layout is priced with the frozen "
                   "constants of machines/calibration and the declared software of "
                   "machines/stacks. Rows that lack something are counted, with what "
                   "they lack.\n\n"
                   "error, median, p90 and bias are of step times; rank is Spearman's "
                   "correlation within cells of the same model, devices and batch; "
                   "regret is what the layout predicted to be best, of those said to "
                   "fit, costs beyond the best one, best10% how often it is within 10 %; "
                   "inside is the share of rows within their 80 % interval, width its "
                   "median width, w/median that in median errors. Last come the rows of "
                   "all sets together, and those of each family of devices.",
    .options = validate_table,
    .options_bytes = sizeof(struct validate_options),
    .examples = examples,
    .run = run,
};
