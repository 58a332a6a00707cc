#include "train/inject_settings.h"

#include "base/text.h"
#include "ops/ops.h"
#include "train/train_spec.h"

#include <stdio.h>
#include <string.h>

struct settings {
    struct recipe *recipe;
    const struct train_config *config;
    const struct layout *layout;
    const char **backend;
};

static int set(const struct settings *x, const char *key, const char *value)
{
    return recipe_override(x->recipe, arena_printf(x->recipe->arena, "%s=%s", key, value));
}

static int set_number(const struct settings *x, const char *key, i64 value)
{
    return set(x, key, arena_printf(x->recipe->arena, "%lld", (long long)value));
}

/* As many rows in a step as before. */
static int micro_batch(const struct settings *x, i64 rows)
{
    i64 all = x->config->train.batch * x->config->train.accumulate;
    if (x->config->train.global_batch == 0 && all % rows)
        return err_set(ERR_CONFIG, "micro_batch=%lld does not divide the %lld rows of a step",
                       (long long)rows, (long long)all);
    TRY(set_number(x, "train.batch", rows));
    return x->config->train.global_batch ? OK : set_number(x, "train.accumulate", all / rows);
}

/* "4+4+4+4" becomes "3+3+4+6": the last of n stages has `more` layers beyond its share. */
static int stage_skew(const struct settings *x, i64 more)
{
    struct model_spec spec;
    struct restore from;
    struct text out = { 0 };
    i64 n = x->layout->pp * i64_max(1, x->layout->chunks);
    TRY(train_spec(&spec, &from, x->config, x->recipe, x->recipe->arena));
    i64 last = spec.layers / n + more, rest = spec.layers - last;
    if (n < 2 || rest < n - 1)
        return err_set(ERR_CONFIG, "stage_skew=%lld needs a pipeline, and a layer for each other "
                       "stage; %lld layers on %lld stages do not have them", (long long)more,
                       (long long)spec.layers, (long long)n);
    for (i64 i = 0; i + 1 < n; i++) /* earlier stages take the remainder */
        text_printf(&out, "%lld+", (long long)(rest / (n - 1) + (i < rest % (n - 1))));
    text_printf(&out, "%lld", (long long)last);
    int rc = set(x, "layout.stages", out.data);
    text_fini(&out);
    return rc;
}

static int capacity(const struct settings *x, double value)
{
    void *target;
    struct text map = { 0 };
    const struct option *o = recipe_find(x->recipe, "model.override", &target);
    option_format(o, target, &map);
    bool some = map.length > 2 && map.data[0] == '{';
    const char *given = some ? arena_strndup(x->recipe->arena, map.data + 1, map.length - 2) : "";
    text_fini(&map);
    return set(x, "model.override", arena_printf(x->recipe->arena, "{%s%srouter.capacity: %g}",
                                                 given, some ? ", " : "", value));
}

static int bucket(const struct settings *x, const char *size)
{
    if (strcmp(size, "all") == 0)
        return set(x, "layout.sums", "end");
    return set(x, "layout.bucket", size);
}

static int apply(const struct settings *x, const struct inject_fault *f)
{
    const char *key = inject_rows[f->kind].key;
    switch (f->kind) {
    case INJECT_MICRO_BATCH:
        return micro_batch(x, (i64)f->value);
    case INJECT_STAGE_SKEW:
        return stage_skew(x, (i64)f->value);
    case INJECT_CAPACITY:
        return capacity(x, f->value);
    case INJECT_BUCKET:
        return bucket(x, f->word);
    case INJECT_SYNC:
        return set_number(x, key, ZERO_GRADIENTS);
    case INJECT_ISA:
        *x->backend = strcmp(f->word, "scalar") == 0 ? "generic"
                                                     : arena_strdup(x->recipe->arena, f->word);
        return OK;
    case INJECT_DTYPE:
        return set(x, key, strcmp(f->word, "f32") == 0 ? "fp32" : f->word);
    case INJECT_CKPT:
        TRY(set(x, "checkpoint.async", "no"));
        return set_number(x, key, (i64)f->value);
    default:
        return inject_rows[f->kind].value == INJECT_WORD ? set(x, key, f->word)
                                                         : set_number(x, key, (i64)f->value);
    }
}

/* Behind what the recipe says. */
static int add_texts(const struct settings *x, const struct option_strings *more)
{
    const struct option_strings *given = &x->config->run.inject;
    struct text all = { 0 };
    if (more->count == 0)
        return OK;
    for (i64 i = 0; i < given->count; i++)
        text_printf(&all, "%s,", given->at[i]);
    for (i64 i = 0; i < more->count; i++)
        text_printf(&all, "%s%s", more->at[i], i + 1 < more->count ? "," : "");
    int rc = set(x, "run.inject", all.data);
    text_fini(&all);
    return rc;
}

static bool is_set(const struct settings *x, const char *key)
{
    const char *where = recipe_where(x->recipe, key);
    return where && strcmp(where, "--set") == 0;
}

/* Whether the command line says otherwise. */
static bool is_overridden(const struct settings *x, const struct inject_fault *f)
{
    const char *key = inject_rows[f->kind].key;
    switch (f->kind) {
    case INJECT_MICRO_BATCH:
        return is_set(x, key) || is_set(x, "train.accumulate");
    case INJECT_BUCKET:
        return is_set(x, key) || is_set(x, "layout.sums");
    case INJECT_ISA:
        return *x->backend != NULL;
    default:
        return is_set(x, key);
    }
}

int inject_settings(struct recipe *r, const struct train_config *config,
                    const struct layout *layout, const struct option_strings *more,
                    const char **backend)
{
    struct settings x = { r, config, layout, backend };
    const struct option_strings *texts = &config->run.inject;
    const bool in_file = texts->count > 0 && !is_set(&x, "run.inject");
    bool applies[INJECT_FAULTS];
    struct inject all;
    TRY(inject_read(&all, texts->at, texts->count,
                    texts->count ? recipe_where(r, "run.inject") : NULL));
    const int from_file = in_file ? all.n : 0;
    TRY(add_texts(&x, more));
    TRY(inject_read(&all, texts->at, texts->count, "--inject"));
    for (int i = 0; i < all.n; i++) /* before any of them is set */
        applies[i] = inject_rows[all.faults[i].kind].key &&
                     !(i < from_file && is_overridden(&x, &all.faults[i]));
    for (int i = 0; i < all.n; i++)
        if (applies[i])
            TRY(apply(&x, &all.faults[i]));
    return OK;
}

/* All there are, with commas. */
static void list_ops(struct text *out)
{
    for (i64 k = 0; k < op_table_count; k++)
        text_printf(out, "%s%s", k > 0 ? ", " : "", op_table[k]->name);
}

static bool is_of_op(const struct inject_fault *f)
{
    return f->kind == INJECT_OP || f->kind == INJECT_SERIAL || f->kind == INJECT_PROBE;
}

static bool is_meant(const void *fault, const char *op)
{
    const struct inject_fault *f = fault;
    return f->kind == INJECT_PROBE ? inject_probes(f, op) : strcmp(op, f->word) == 0;
}

static int check_op(const struct inject_fault *f)
{
    struct nearest nearest = { .typed = f->word };
    struct text all = { 0 };
    for (i64 k = 0; k < op_table_count; k++) {
        nearest_offer(&nearest, op_table[k]->name);
        if (is_meant(f, op_table[k]->name))
            return OK;
    }
    const char *near = nearest_found(&nearest);
    list_ops(&all);
    int rc = near ? err_set(ERR_CONFIG, "there is no op called %s to disturb; did you mean %s?",
                            f->word, near)
                  : err_set(ERR_CONFIG, "there is no op called %s to disturb; there are %s",
                            f->word, all.data);
    text_fini(&all);
    return rc;
}

int inject_check_ops(const struct inject *x)
{
    for (int i = 0; i < x->n; i++)
        if (is_of_op(&x->faults[i]))
            TRY(check_op(&x->faults[i]));
    return OK;
}

/* --- ops of the run's program ------------------------------------------------------- */

bool inject_has_ops(const struct inject *x)
{
    for (int i = 0; i < x->n; i++)
        if (is_of_op(&x->faults[i]))
            return true;
    return false;
}

/* Whether the fault is meant for a rank of this stage. */
static bool concerns_stage(const struct inject_fault *f, const struct layout *l, i64 stage)
{
    const i64 last = i64_min(f->last_rank, layout_ranks(l) - 1);
    for (i64 rank = f->first_rank; rank <= last; rank++)
        if (mesh_at(l, rank).pp_rank == stage)
            return true;
    return false;
}

static bool is_called(const void *name, const char *op)
{
    return strcmp(op, name) == 0;
}

/* What the stages compute that the fault is meant for: whether that has its op, or else of which
 * ops there are tasks. */
static bool look_for_op(const struct inject_fault *f, const struct layout *l,
                        const struct rank_view *const *views, struct text *others)
{
    for (i64 p = 0; p < l->pp; p++)
        if (concerns_stage(f, l, p) && rank_view_has_op(views[p], is_meant, f))
            return true;
    for (i64 k = 0; k < op_table_count; k++) {
        const char *op = op_table[k]->name;
        bool there = false;
        for (i64 p = 0; p < l->pp && !there; p++)
            there = concerns_stage(f, l, p) && rank_view_has_op(views[p], is_called, op);
        if (there)
            text_printf(others, "%s%s", others->length > 0 ? ", " : "", op);
    }
    return false;
}

int inject_check_program(const struct inject *x, const struct layout *l,
                         const struct rank_view *const *views)
{
    int rc = OK;
    for (int i = 0; i < x->n && rc == OK; i++) {
        const struct inject_fault *f = &x->faults[i];
        struct text others = { 0 };
        const bool all = f->first_rank <= 0 && f->last_rank >= layout_ranks(l) - 1;
        if (is_of_op(f) && !look_for_op(f, l, views, &others))
            rc = err_set(ERR_CONFIG, "%s has no %s to disturb; it has %s",
                         all ? "this run's program" : "the program of these ranks", f->word,
                         others.data);
        text_fini(&others);
    }
    return rc;
}
