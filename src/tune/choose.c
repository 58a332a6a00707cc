#include "tune/choose.h"

#include "base/err.h"
#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_KNOBS = 3 };
/* A forecast this far below the recipe's own speed is believed: beyond what forecasts err by. */
static const double hopeless = -0.10;

/* --- what there is ------------------------------------------------------------------- */

static bool asked_for(const char *only, const char *knob)
{
    const size_t n = strlen(knob);
    for (const char *at = only; at && (at = strstr(at, knob)) != NULL; at++)
        if ((at == only || at[-1] == ',' || at[-1] == ' ') &&
            (at[n] == ',' || at[n] == ' ' || at[n] == '\0'))
            return true;
    return only == NULL;
}

static bool has_set(const struct tune_change *c, const char *set)
{
    for (int i = 0; i < c->n_sets; i++)
        if (strcmp(c->sets[i], set) == 0)
            return true;
    return c->backend && strncmp(set, "backend=", 8) == 0 && strcmp(c->backend, set + 8) == 0;
}

/* What a finding would set, where the knob does not propose it by itself. */
static void propose_hinted(const struct tune_request *r, const struct knob *k,
                           struct change_list *list)
{
    for (int i = 0; i < r->n_hints; i++) {
        const struct tune_hint *h = &r->hints[i];
        bool there = h->n_sets != 1 || !knob_heeds(k, h->id);
        for (int c = 0; c < list->n && !there; c++)
            there = has_set(&list->at[c], h->sets[0]);
        if (!there)
            knob_propose_set(k, &r->view, h->sets[0], list);
    }
}

static void list_changes(struct tune_outcome *out, const struct tune_request *r, struct arena *a)
{
    struct change_list list = { .arena = a };
    for (int i = 0; knobs[i].name; i++) {
        if (!asked_for(r->only, knobs[i].name))
            continue;
        knobs[i].propose(&r->view, &list);
        propose_hinted(r, &knobs[i], &list);
    }
    for (int i = 0; i < list.n && out->n < CHANGES_MOST; i++)
        out->rows[out->n++] = (struct tune_row){
            .change = list.at[i], .predicted = NAN, .gain = NAN, .error = NAN, .bar = NAN };
}

/* --- what it would give -------------------------------------------------------------- */

/* Whether the recipe has this setting already; what keeps a step's rows as they are counts so. */
static bool changes_nothing(const struct tune_request *r, const char *set)
{
    char key[128];
    void *target;
    struct text now = { 0 };
    const char *equals = strchr(set, '=');
    snprintf(key, sizeof key, "%.*s", (int)(equals - set), set);
    if (strcmp(key, "train.accumulate") == 0)
        return true;
    const struct option *o = recipe_find(&r->view.recipe->recipe, key, &target);
    if (o)
        option_format(o, target, &now);
    const bool same = now.length > 0 && strcmp(now.data, equals + 1) == 0;
    text_fini(&now);
    return same;
}

/* The finding whose fix this change is, and nothing else; NULL: none. */
static const struct tune_hint *hint_for(const struct tune_request *r, const struct tune_change *c)
{
    const struct tune_hint *best = NULL;
    for (int i = 0; i < r->n_hints; i++) {
        const struct tune_hint *h = &r->hints[i];
        bool fits = h->n_sets > 0;
        for (int k = 0; k < h->n_sets; k++)
            fits = fits && has_set(c, h->sets[k]);
        for (int k = 0; k < c->n_sets && fits; k++) {
            bool named = false;
            for (int j = 0; j < h->n_sets; j++)
                named = named || strcmp(h->sets[j], c->sets[k]) == 0;
            fits = named || changes_nothing(r, c->sets[k]);
        }
        if (fits && (!best || h->gain > best->gain))
            best = h;
    }
    return best;
}

/* Loaders are not simulated. What they cost the diagnosis sees. */
static bool is_of_loader(const struct tune_change *c)
{
    return strcmp(c->knob, "prefetch") == 0;
}

/* What the recipe's own run says of tasks holds for them. */
static bool has_own_rates(const struct tune_change *c)
{
    static const char *const of[] = { "micro-batch", "recompute" };
    for (i64 i = 0; i < COUNT_OF(of); i++)
        if (strcmp(c->knob, of[i]) == 0)
            return true;
    return false;
}

static void foretell_row(struct tune_row *row, const struct tune_request *r,
                         const struct knob_view *view, const struct forecast *was)
{
    const struct tune_hint *h = hint_for(r, &row->change);
    struct forecast now;
    if (forecast_step(&now, &r->base, &row->change, r->machine, view) < 0) {
        row->fate = FATE_IMPOSSIBLE;
        snprintf(row->why, sizeof row->why, "%s", err_message());
        return;
    }
    if (is_of_loader(&row->change))
        row->predicted = r->diagnosed ? 0 : NAN; /* what costs more than the noise has a finding */
    else if (was)
        row->predicted = 1 - now.seconds / was->seconds;
    if (h) {
        row->predicted = h->gain;
        snprintf(row->by, sizeof row->by, "%s", h->id);
    }
    if (row->predicted < hopeless) {
        row->fate = FATE_PRUNED;
        snprintf(row->why, sizeof row->why, "the forecast is %.0f %% more", -100 * row->predicted);
    }
}

static void foretell(struct tune_outcome *out, const struct tune_request *r)
{
    struct knob_view plain = r->view;
    struct forecast was, own;
    plain.rates = NULL;
    const bool known = forecast_step(&was, &r->base, NULL, r->machine, &plain) >= 0;
    const bool owned = r->view.rates &&
                       forecast_step(&own, &r->base, NULL, r->machine, &r->view) >= 0;
    for (int i = 0; i < out->n; i++)
        if (owned && has_own_rates(&out->rows[i].change))
            foretell_row(&out->rows[i], r, &r->view, &own);
        else
            foretell_row(&out->rows[i], r, &plain, known ? &was : NULL);
}

/* --- who is tried -------------------------------------------------------------------- */

static double promise(const struct tune_row *row)
{
    return isnan(row->predicted) ? 0 : row->predicted;
}

/* The most promising of those that may be tried and are not yet marked; -1: none. */
static int next_best(const struct tune_outcome *out, const bool *seen)
{
    int best = -1;
    for (int i = 0; i < out->n; i++)
        if (out->rows[i].fate == FATE_TRIED && !seen[i] &&
            (best < 0 || promise(&out->rows[i]) > promise(&out->rows[best])))
            best = i;
    return best;
}

static bool is_new_knob(const struct tune_outcome *out, const bool *seen, int row)
{
    for (int i = 0; i < out->n; i++)
        if (seen[i] && strcmp(out->rows[i].change.knob, out->rows[row].change.knob) == 0)
            return false;
    return true;
}

static void keep_best(struct tune_outcome *out, const struct tune_request *r)
{
    bool seen[TUNE_ROWS] = { false };
    i64 n = 0, n_knobs = 0;
    const char *why = NULL;
    double most_promise = -INFINITY;
    char most[64];
    snprintf(most, sizeof most, "others promise more (--trials %lld)", (long long)r->most_trials);
    for (int i; (i = next_best(out, seen)) >= 0;) {
        const bool fresh = is_new_knob(out, seen, i);
        if (!why && n == r->most_trials)
            why = most;
        if (!why && fresh && !r->only && n_knobs == MOST_KNOBS)
            why = "changes of three knobs promise more (--knobs names others)";
        if (!why && !r->only && n > 0 && most_promise >= tune_least_gain &&
            promise(&out->rows[i]) < tune_least_gain)
            why = "it promises nothing (--knobs tries it nevertheless)";
        most_promise = fmax(most_promise, promise(&out->rows[i]));
        seen[i] = true;
        n++;
        n_knobs += fresh;
        if (why) {
            out->rows[i].fate = FATE_PRUNED;
            snprintf(out->rows[i].why, sizeof out->rows[i].why, "%s", why);
        }
    }
}

void choose_changes(struct tune_outcome *out, const struct tune_request *r, struct arena *a)
{
    list_changes(out, r, a);
    foretell(out, r);
    keep_best(out, r);
}
