#include "tune/tune_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const objective_names[] = { "tokens/s", "time to loss", "tokens per joule" };
static const char *const saved_names[] = { "time per token", "time to the same loss",
                                           "energy per token" };
static const char *const fate_names[] = { "tried", "impossible", "not tried", "not tried", "failed",
                                          "refused", "not confirmed" };
static const char *const verdict_names[] = { "unknown", "noise", "even", "faster", "slower" };

/* --- for people ---------------------------------------------------------------------- */

static void add_percent(struct text *out, double share, int width)
{
    if (isnan(share))
        text_printf(out, " %*s  ", width, "-");
    else
        text_printf(out, " %+*.1f %%", width, 100 * share);
}

/* A figure only where it can be told; else how far it may be off. */
static void add_verdict(const struct tune_row *r, struct text *out)
{
    static const char *const words[] = { "one round, which says nothing", "too noisy to tell",
                                         "no different", "faster", "slower" };
    text_printf(out, "  %s", words[r->verdict]);
    if (r->verdict == VERDICT_NOISE)
        text_printf(out, ": %+.1f %% +- %.1f", 100 * r->gain, 100 * r->bar);
    if (r->rounds > 1)
        text_printf(out, " (%lld rounds)", (long long)r->rounds);
    if (r->change.numbers)
        text_printf(out, ", loss %+.2f %%", 100 * r->loss_change);
}

static void add_row(const struct tune_row *r, struct text *out)
{
    const bool told = r->verdict != VERDICT_NONE && r->verdict != VERDICT_NOISE;
    text_printf(out, "  %-44s", r->change.label);
    add_percent(out, r->predicted, 6);
    text_printf(out, " %-4s", r->by);
    add_percent(out, told ? r->gain : NAN, 6);
    if (told)
        text_printf(out, " +- %-5.1f", 100 * r->bar);
    else
        text_printf(out, "%9s", "");
    if (r->rounds > 0)
        add_verdict(r, out);
    if (r->fate != FATE_TRIED)
        text_printf(out, "  %s: %s", fate_names[r->fate], r->why);
    else if (r->rounds == 0)
        text_add(out, "  not reached");
    text_add(out, "\n");
}

static void add_result(const struct tune_outcome *o, enum tune_objective objective,
                       struct text *out)
{
    bool noisy = o->proofs > 0 && o->proven_verdict == VERDICT_NOISE;
    for (int i = 0; i < o->n; i++)
        noisy = noisy || (o->rows[i].fate == FATE_TRIED && (o->rows[i].verdict == VERDICT_NOISE ||
                                                            o->rows[i].verdict == VERDICT_NONE));
    if (o->stopped)
        text_add(out, "ended early: this is what was measured until then; nothing was proven or "
                      "written\n");
    else if (o->winner >= 0)
        text_printf(out, "best: %s: %.1f %% +- %.1f less %s, run again in fresh processes (%lld "
                    "rounds)\n", o->rows[o->winner].change.label, 100 * o->proven,
                    100 * o->proven_bar, saved_names[objective], (long long)o->proven_rounds);
    else if (o->late)
        text_add(out, "the time was up before the best was proven: the recipe stays as it is; a "
                      "larger --budget would tell\n");
    else if (noisy)
        text_add(out, "nothing is proven to be better, and what is too noisy to tell may be: the "
                      "recipe stays as it is; a larger --budget or a quieter machine would "
                      "tell\n");
    else if (o->proofs > 0)
        text_add(out, "what was best in rounds was not when it ran again: the recipe stays as it "
                      "is\n");
    else
        text_add(out, "nothing is better beyond the noise: the recipe stays as it is\n");
}

void tune_text(const struct tune_outcome *o, enum tune_objective objective, struct text *out)
{
    text_printf(out, "as it is: %.4g s a step, %.0f tokens/s; trials of %lld steps", o->base_step_s,
                o->base_tokens_per_s, (long long)o->steps);
    if (o->by_mean)
        text_add(out, " by their mean");
    if (!isnan(o->noise))
        text_printf(out, "; one round is off by %.1f %%", 100 * o->noise);
    text_printf(out, "\n%s saved:%*s predicted by    measured (19 of 20 times within)\n",
                saved_names[objective], (int)(39 - strlen(saved_names[objective])), "");
    for (int i = 0; i < o->n; i++)
        add_row(&o->rows[i], out);
    add_result(o, objective, out);
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

void tune_json(const struct tune_outcome *o, enum tune_objective objective, const char *recipe,
               const char *diff, struct json *j)
{
    json_begin_object(j);
    json_put_str(j, "objective", objective_names[objective]);
    json_put_double(j, "step_s", o->base_step_s);
    json_put_double(j, "tokens_per_s", o->base_tokens_per_s);
    json_put_double(j, "joules_per_token", o->base_joules_per_token);
    put_known(j, "noise", o->noise);
    json_put_int(j, "trial_steps", o->steps);
    json_put_str(j, "step", o->by_mean ? "mean" : "median");
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
        if (r->by[0])
            json_put_str(j, "predicted_by", r->by);
        put_known(j, "gain", r->gain);
        put_known(j, "error", r->error);
        put_known(j, "bar", r->bar);
        json_put_str(j, "verdict", verdict_names[r->verdict]);
        if (r->change.numbers && r->rounds > 0)
            json_put_double(j, "loss_change", r->loss_change);
        json_put_int(j, "rounds", r->rounds);
        json_end(j);
    }
    json_end(j);
    if (o->winner >= 0)
        json_put_str(j, "best", o->rows[o->winner].change.label);
    put_known(j, "proven", o->proven);
    put_known(j, "proven_error", o->proven_error);
    put_known(j, "proven_bar", o->proven_bar);
    if (o->proofs > 0)
        json_put_int(j, "proven_rounds", o->proven_rounds);
    json_put_bool(j, "stopped", o->stopped);
    if (recipe)
        json_put_str(j, "recipe", recipe);
    if (diff)
        json_put_str(j, "diff", diff);
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
    struct text was = { 0 };
    option_format(o, target, &was);
    if (strcmp(was.data, equals + 1) != 0) {
        text_printf(out, "%s-%s: %s   # %s\n", prefix, key, was.data,
                    where ? where : "the default");
        text_printf(out, "%s+%s: %s\n", prefix, key, equals + 1);
    }
    text_fini(&was);
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

void tune_recipe_yaml(const struct tune_outcome *o, enum tune_objective objective,
                      const struct train_recipe *before, const struct train_recipe *after,
                      const char *path, struct text *out)
{
    const struct tune_change *c = &o->rows[o->winner].change;
    text_printf(out, "# %s, tuned: %.1f %% +- %.1f less %s on the machine where it was tried.\n"
                "# Besides defaults that are written out, this changed:\n", path,
                100 * o->proven, 100 * o->proven_bar, saved_names[objective]);
    add_diff(c, before, "#   ", out);
    recipe_write_yaml(&after->recipe, out);
}
