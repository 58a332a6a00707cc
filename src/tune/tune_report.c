#include "tune/tune_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const objective_names[] = { "tokens/s", "time to loss", "tokens per joule" };
static const char *const saved_names[] = { "time per token", "time to the same loss",
                                           "energy per token" };
static const char *const fate_names[] = { "tried", "impossible", "not tried", "not tried", "failed",
                                          "refused" };

/* --- for people ---------------------------------------------------------------------- */

static void add_percent(struct text *out, double share, int width)
{
    if (isnan(share))
        text_printf(out, " %*s  ", width, "-");
    else
        text_printf(out, " %+*.1f %%", width, 100 * share);
}

static void add_row(const struct tune_row *r, struct text *out)
{
    text_printf(out, "  %-44s", r->change.label);
    add_percent(out, r->predicted, 6);
    if (r->fate == FATE_TRIED || !isnan(r->gain)) {
        add_percent(out, r->gain, 6);
        if (!isnan(r->error))
            text_printf(out, " +- %.1f", 100 * r->error);
    }
    if (r->fate != FATE_TRIED)
        text_printf(out, "  %s: %s", fate_names[r->fate], r->why);
    else if (r->change.numbers)
        text_printf(out, "  loss %+.2f %%", 100 * r->loss_change);
    text_add(out, "\n");
}

void tune_text(const struct tune_outcome *o, enum tune_objective objective, struct text *out)
{
    text_printf(out, "as it is: %.4g s a step, %.0f tokens/s, noise %.1f %%; "
                "trials of %lld steps\n", o->base_step_s, o->base_tokens_per_s,
                100 * o->noise, (long long)o->steps);
    text_printf(out, "%s saved:%*s predicted  measured\n", saved_names[objective],
                (int)(39 - strlen(saved_names[objective])), "");
    for (int i = 0; i < o->n; i++)
        add_row(&o->rows[i], out);
    if (o->winner >= 0)
        text_printf(out, "best: %s: %.1f %% +- %.1f less in fresh processes\n",
                    o->rows[o->winner].change.label, 100 * o->proven, 100 * o->proven_error);
    else if (isnan(o->proven))
        text_add(out, "nothing is faster beyond the noise: the recipe stays as it is\n");
    else
        text_printf(out, "the best in rounds gained only %.1f %% +- %.1f when it ran "
                    "again: the recipe stays as it is\n",
                    100 * o->proven, 100 * o->proven_error);
}

/* --- for machines -------------------------------------------------------------------- */

static void put_known(struct json *j, const char *key, double value)
{
    if (!isnan(value))
        json_put_double(j, key, value);
}

static void put_change(struct json *j, const struct tune_change *c)
{
    json_put_str(j, "knob", c->knob);
    json_put_str(j, "label", c->label);
    json_key(j, "set");
    json_begin_array(j);
    for (int i = 0; i < c->n_sets; i++)
        json_str(j, c->sets[i]);
    json_end(j);
    if (c->backend)
        json_put_str(j, "backend", c->backend);
}

void tune_json(const struct tune_outcome *o, enum tune_objective objective, struct json *j)
{
    json_begin_object(j);
    json_put_str(j, "objective", objective_names[objective]);
    json_put_double(j, "step_s", o->base_step_s);
    json_put_double(j, "tokens_per_s", o->base_tokens_per_s);
    json_put_double(j, "joules_per_token", o->base_joules_per_token);
    json_put_double(j, "noise", o->noise);
    json_put_int(j, "trial_steps", o->steps);
    json_put_double(j, "seconds", o->seconds);
    json_key(j, "trials");
    json_begin_array(j);
    for (int i = 0; i < o->n; i++) {
        const struct tune_row *r = &o->rows[i];
        json_begin_object(j);
        put_change(j, &r->change);
        json_put_str(j, "fate", fate_names[r->fate]);
        if (r->fate != FATE_TRIED)
            json_put_str(j, "why", r->why);
        put_known(j, "predicted", r->predicted);
        put_known(j, "gain", r->gain);
        put_known(j, "error", r->error);
        json_put_int(j, "rounds", r->rounds);
        json_end(j);
    }
    json_end(j);
    if (o->winner >= 0)
        json_put_str(j, "best", o->rows[o->winner].change.label);
    put_known(j, "proven", o->proven);
    put_known(j, "proven_error", o->proven_error);
    json_end(j);
}

/* --- as a recipe --------------------------------------------------------------------- */

static void add_setting(const char *set, const struct train_recipe *before, const char *prefix,
                        struct text *out)
{
    char key[128];
    void *target;
    const char *equals = strchr(set, '=');
    snprintf(key, sizeof key, "%.*s", (int)(equals - set), set);
    const struct option *o = recipe_find(&before->recipe, key, &target);
    const char *where = recipe_where(&before->recipe, key);
    text_printf(out, "%s-%s: ", prefix, key);
    option_format(o, target, out);
    text_printf(out, "   # %s\n", where ? where : "the default");
    text_printf(out, "%s+%s: %s\n", prefix, key, equals + 1);
}

static void add_diff(const struct tune_change *c, const struct train_recipe *before,
                     const char *prefix, struct text *out)
{
    for (int i = 0; i < c->n_sets; i++)
        add_setting(c->sets[i], before, prefix, out);
    if (c->backend)
        text_printf(out, "%s+ start it with --backend %s\n", prefix, c->backend);
}

void tune_diff(const struct tune_change *c, const struct train_recipe *before, struct text *out)
{
    add_diff(c, before, "", out);
}

void tune_recipe_yaml(const struct tune_outcome *o, const struct train_recipe *before,
                      const struct train_recipe *after, const char *path, struct text *out)
{
    const struct tune_change *c = &o->rows[o->winner].change;
    text_printf(out, "# %s, tuned: %.1f %% +- %.1f less time a step on the machine where it was "
                "tried.\n# Besides defaults that are written out, this changed:\n", path,
                100 * o->proven, 100 * o->proven_error);
    add_diff(c, before, "#   ", out);
    recipe_write_yaml(&after->recipe, out);
}
