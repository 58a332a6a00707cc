#include "diagnose/price.h"

#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- by replay -------------------------------------------------------------------- */

/* A replay that does not come this near to what was measured predicts nothing. */
static const double replay_gate = 0.02;

/* And a gain below this share of theta is none: nobody could tell that it came. Of some steps it
 * can be told there. */
static double least_replayed(const struct finding *f)
{
    return f->place.first_step >= 0 ? 0.5 : 1;
}

/* T(edit) is what the graph of the step takes; the closed form's interval is kept where a replay
 * has nothing to say about the edit. */
static void price(struct finding *f, const struct measure *m, const struct finding_replay *replay,
                  double before)
{
    if (f->edit.kind == EDIT_NONE)
        return;
    if (f->edit.kind == EDIT_CLOCK) {
        rule_price_clock(f, m, replay, before);
        return;
    }
    if (f->edit.n_mended > 0 || f->edit.kind == EDIT_EVEN_STAGES) {
        struct finding_edit others = f->edit;
        others.kind = f->edit.kind == EDIT_EVEN_STAGES ? EDIT_OFTEN_QUIET : EDIT_COMPUTE;
        others.as_usual = true;
        before = replay->length(replay->context, &others, 1);
    }
    if (f->edit.quiet) {
        const struct finding_edit quiet = { .kind = EDIT_COMPUTE, .rank = -1, .peer = -1, .stage = -1,
                                            .phase = -1, .quiet = true };
        before = replay->length(replay->context, &quiet, 1);
    }
    const double mid = before - replay->length(replay->context, &f->edit, f->edit.factor);
    struct finding_edit least = f->edit;
    least.kind = f->edit.least != EDIT_NONE ? f->edit.least : f->edit.kind;
    double lo = mid, hi = mid;
    if (least.kind != f->edit.kind || f->edit.factor_lo != f->edit.factor)
        lo = before - replay->length(replay->context, &least, f->edit.factor_lo);
    if (f->edit.factor_hi != f->edit.factor)
        hi = before - replay->length(replay->context, &f->edit, f->edit.factor_hi);
    if (!isfinite(mid) || !isfinite(lo) || !isfinite(hi))
        return;
    const double noise = rule_noise_beside(m, f);
    f->gain = fmax(0, mid + f->beside);
    const double others = rule_disturbed(m);
    f->gain_lo = fmax(0, fmin(lo, mid) * (1 - price_spread) * (1 - others) - noise);
    f->gain_hi = fmin(fmax(f->gain, fmax(hi, mid) + f->beside) * (1 + price_spread) * (1 + others) + noise,
                      rule_most(m, f));
    f->replayed = true;
    f->lost = fmax(f->lost, f->gain); /* what comes back was lost */
    f->share = f->lost / m->step.mean;
}

static bool is_worth_it(const struct finding *f, const struct measure *m)
{
    return f->gain >= least_replayed(f) * m->theta;
}

/* --- beside slow ranks ------------------------------------------------------------ */

/* Whether the edit is about a rank of the place. */
static bool has_any_of(const struct finding_edit *e, const struct finding_place *p)
{
    for (int i = 0; i < p->several.n; i++)
        if (finding_edits_rank(e, p->several.at[i]))
            return true;
    for (int r = p->rank; p->several.n == 0 && r >= 0 && r <= i64_max(p->rank, p->last_rank); r++)
        if (finding_edits_rank(e, r))
            return true;
    return false;
}

/* False where there is no room for all of them: then the edit is none that may be replayed. */
static bool mend(struct finding_edit *e, const struct finding_place *p, double takes)
{
    bool fits = true;
    for (int i = 0; i < p->several.n; i++)
        fits &= finding_mend(e, p->several.at[i], takes);
    for (int r = p->rank; p->several.n == 0 && r <= i64_max(p->rank, p->last_rank); r++)
        fits &= finding_mend(e, r, takes);
    return fits;
}

/* Slow ranks that are neither x's nor mended: of those worth mending by themselves the one that gains
 * most, else the one that loses most. */
static const struct finding *slow_beside(const struct finding *x, const struct findings *f,
                                         const struct measure *m)
{
    const struct finding *best = NULL;
    for (int i = 0; i < f->n; i++) {
        const struct finding *o = &f->at[i];
        if (o == x || !(o->edit.takes > 0) || !o->replayed || !finding_names_ranks(&o->place) ||
            has_any_of(&o->edit, &x->place) ||
            finding_mended(&x->edit, o->place.several.n > 0 ? o->place.several.at[0]
                                                            : o->place.rank) < 1)
            continue;
        const bool worth = is_worth_it(o, m), best_is = best && is_worth_it(best, m);
        if (!best || worth > best_is ||
            (worth == best_is && (worth ? o->gain > best->gain : o->lost > best->lost)))
            best = o;
    }
    return best;
}

/* "rank 3 (K4)", "ranks 1 and 4 (B1)" */
static void add_name(struct text *out, const struct finding *f)
{
    struct finding_place p = f->place;
    p.stage = p.layer = -1;
    p.first_step = -1;
    p.lane[0] = p.op[0] = 0;
    finding_place_text(&p, out);
    text_printf(out, " (%s)", f->id);
}

static void tell_mended(struct finding *x, const char *names, bool first, double alone)
{
    if (first)
        rule_evidence(x, "the gain is what is left once %s %s mended: until then the others wait for "
                      "that", names, strstr(names, "ranks") ? "are" : "is");
    else
        rule_evidence(x, "the gain is that of mending %s too: as long as either is slow, the others "
                      "wait (%.1f ms without that)", names, 1e3 * alone);
}

/* Slow ranks that nobody waits for, as long as others are slower, or as slow: they are worth something
 * once these are mended, and those that are slower than they are by less. */
static void price_beside(struct finding *x, const struct findings *f, const struct measure *m,
                         const struct finding_replay *replay, double before)
{
    if (x->edit.takes == 0 || !finding_names_ranks(&x->place) || !x->replayed || is_worth_it(x, m))
        return;
    const struct finding was = *x, *other;
    struct text names = { 0 };
    bool first = false;
    while (!is_worth_it(x, m) && (other = slow_beside(x, f, m)) &&
           mend(&x->edit, &other->place, other->edit.takes)) {
        text_add(&names, names.length > 0 ? " and " : "");
        add_name(&names, other);
        first |= is_worth_it(other, m);
        price(x, m, replay, before);
    }
    if (names.length > 0 && (first || is_worth_it(x, m)))
        tell_mended(x, names.data, first, was.gain);
    else
        *x = was;
    text_fini(&names);
}

/* --- beside noise ----------------------------------------------------------------- */

/* Noise in all that ranks compute, which is worth mending; on a computed clock no other varies. */
static const struct finding *noise_of_tasks(const struct findings *f, const struct measure *m)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->at[i].id, "B3") == 0 && f->at[i].replayed && is_worth_it(&f->at[i], m) &&
            (f->at[i].within_steps || m->config.simulated))
            return &f->at[i];
    return NULL;
}

/* What makes one rank late makes nobody wait as long as another is later by chance. */
static void price_beside_noise(struct finding *x, const struct finding *noise, const struct measure *m,
                               const struct finding_replay *replay, double before)
{
    if (!noise || x == noise || !x->replayed || is_worth_it(x, m))
        return;
    const struct finding was = *x;
    x->edit.quiet = true;
    price(x, m, replay, before);
    if (!is_worth_it(x, m)) {
        *x = was;
        return;
    }
    snprintf(x->after, sizeof x->after, "%s", noise->id);
    rule_evidence(x, "the gain is what is left once %s is mended: until then the others wait for whoever "
                  "is slow by chance (%.1f ms without that)", noise->id, 1e3 * was.gain);
}

/* --- all of them ------------------------------------------------------------------ */

static bool is_worth(const struct finding *f, const struct measure *m)
{
    if (f->edit.kind == EDIT_CLOCK)
        return rule_saves_enough(m, f);
    return is_worth_it(f, m) && f->gain_lo > 0;
}

void price_all(struct findings *f, const struct measure *m, const struct finding_replay *replay)
{
    double before = replay ? replay->length(replay->context, NULL, 1) : NAN;
    const bool valid = fabs(before - m->step.mean) <= replay_gate * m->step.mean;
    int kept = 0;
    for (int i = 0; i < f->n && valid; i++)
        price(&f->at[i], m, replay, before);
    for (int i = 0; i < f->n && valid; i++)
        price_beside(&f->at[i], f, m, replay, before);
    const struct finding *noise = noise_of_tasks(f, m);
    for (int i = 0; i < f->n && valid; i++)
        price_beside_noise(&f->at[i], noise, m, replay, before);
    for (int i = 0; i < f->n; i++) {
        const struct finding *x = &f->at[i];
        /* What the critical path does not go through is no finding, nor what may give back
         * nothing; nor lower clocks of which no replay says that steps stay as long. */
        if (!valid ? x->edit.kind != EDIT_CLOCK : x->replayed ? is_worth(x, m) : !x->asks_replay)
            f->at[kept++] = *x;
    }
    f->n = kept;
}
