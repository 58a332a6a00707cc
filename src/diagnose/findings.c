#include "diagnose/findings.h"

#include "diagnose/price.h"
#include "diagnose/rule.h"
#include "diagnose/times.h"
#include "graph/graph.h"
#include "machine/units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- a deeper cause explains a symptom -------------------------------------------- */

/* The rank that waits for its loader is late too; and so on. The symptom goes when the cause is at
 * the same place and loses at least half as much. */
static const char *const explains[][2] = {
    { "K4", "B1" }, { "K4", "B3" }, { "K4", "H8" }, { "K4", "B2" }, { "K4", "H9" },
    { "K5", "B1" }, { "K5", "B3" },
    { "H8", "B1" }, { "H8", "B3" }, { "H8", "C9" }, { "H8", "B2" }, { "H8", "C4" },
    { "K1", "H8" }, { "K1", "C4" }, { "K1", "C5" }, { "K1", "C9" }, { "K1", "B3" }, { "K1", "B1" },
    { "K1", "D1" }, { "D6", "B3" }, { "D6", "B1" },
    { "B2", "B1" }, { "B2", "B3" }, { "B1", "B3" }, { "B3", "B1" },
    { "B1", "K6" },
    { "H1", "H9" }, { "H2", "H9" }, { "H3", "H9" },
    { "H4", "B1" }, { "H7", "B1" }, { "D3", "D2" }, { "D3", "D1" }, { "D3", "H7" },
    { "C11", "C4" }, { "C11", "C1" }, { "C4", "C1" }, { "C5", "C1" }, { "C5", "C2" },
    { "C7", "C4" }, { "C7", "C5" }, { "C7", "C1" },
    { "C10", "C1" }, { "C2", "C1" }, { "B7", "B1" }, { "B6", "K7" }, { "B6", "H5" },
};

/* Its last rank. */
static i64 end_of(const struct finding_place *p)
{
    return i64_max(p->rank, p->last_rank);
}

static bool has_rank(const struct finding_place *p, int rank)
{
    for (int i = 0; i < p->several.n; i++)
        if (p->several.at[i] == rank)
            return true;
    return p->rank >= 0 && p->rank <= rank && rank <= end_of(p);
}

/* What holds everywhere does not tell one rank from the others; but that experts are unequally
 * full is a difference of ranks. Of several ranks the cause must have all. */
static bool same_place(const struct finding *cause, const struct finding *symptom)
{
    const struct finding_place *c = &cause->place, *s = &symptom->place;
    if (strcmp(cause->id, "B7") == 0)
        return true;
    for (int i = 0; i < s->several.n; i++)
        if (!has_rank(c, s->several.at[i]))
            return false;
    return s->rank < 0 || (has_rank(c, s->rank) && has_rank(c, (int)end_of(s)));
}

static i64 ranks_of(const struct finding_place *p)
{
    return p->several.n > 0 ? p->several.n : end_of(p) - p->rank + 1;
}

/* What is done every 250 steps makes no pause in every fourth. */
static bool same_period(const struct finding *cause, const struct finding *symptom)
{
    return cause->period == 0 || symptom->period == 0 || cause->period == symptom->period;
}

/* Equal ranks repeat within 3 %, and 5 % is B4's limit between stages. */
static const double usual_pace = 1.05;
/* The least of n times is still by some 2 / n of their noise above the undisturbed one; of few
 * actions by thrice that. */
static const double left_of_noise = 6;
/* As K4's own interval has it. */
static const double clock_known = 0.25;
/* How much of the symptom's loss the cause must have. */
static const double least_explained = 0.5;

/* Whether a rank that varies is as quick as others when nothing disturbs it: then it is slow by
 * that alone. */
static bool is_quick_when_quiet(const struct measure *m, const struct finding_place *p)
{
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        const double noise = k->noise > 0 ? k->noise : 0;
        if (has_rank(p, k->rank) &&
            !(k->quiet_pace < usual_pace + left_of_noise * noise / (double)m->n_steps))
            return false;
    }
    return true;
}

/* What the table's rows leave open. */
static bool may_explain(const struct measure *m, const struct finding *cause,
                        const struct finding *symptom)
{
    const struct finding_place *c = &cause->place;
    const bool by_clock = strcmp(cause->id, "K4") == 0 && cause->about == ABOUT_MACHINE;
    /* A clock that stays as low as it is makes no steps unlike others, nor gaps between tasks. */
    if (by_clock && ((strcmp(symptom->id, "B2") == 0 && c->first_step < 0) ||
                     strcmp(symptom->id, "H9") == 0))
        return false;
    /* B1 is what a low clock leaves, as far as the clock is known. */
    if (by_clock && strcmp(symptom->id, "B1") == 0)
        return symptom->lost <= clock_known * cause->lost;
    if (strcmp(cause->id, "B3") == 0)
        return cause->within_steps && is_quick_when_quiet(m, &symptom->place);
    /* Ranks that are slow alike throughout a step, as by their rows, make no parts of it unlike
     * others. */
    if (symptom->within_steps)
        return false;
    /* On a computed clock what is left beside the rows is no chance. */
    if (strcmp(cause->id, "D6") == 0 && strcmp(symptom->id, "B3") == 0)
        return !m->config.simulated;
    /* An op that is slow on some ranks only takes longer in sum by what these do. */
    if (strcmp(symptom->id, "K6") == 0)
        return (double)m->n_ranks * symptom->lost <= 1.2 * (double)ranks_of(c) * cause->lost;
    return true;
}

static bool explains_it(const struct measure *m, const struct finding *cause,
                        const struct finding *symptom)
{
    for (i64 e = 0; e < COUNT_OF(explains); e++)
        if (strcmp(explains[e][0], cause->id) == 0 && strcmp(explains[e][1], symptom->id) == 0)
            return same_place(cause, symptom) && may_explain(m, cause, symptom) &&
                   same_period(cause, symptom) && cause->lost >= least_explained * symptom->lost;
    return false;
}

/* Causes that a replay must confirm explain nothing before: asked: those, once they are. */
static void drop_explained(struct findings *f, const struct measure *m, bool asked)
{
    bool dropped[FINDINGS_MOST] = { false };
    int kept = 0;
    for (int s = 0; s < f->n; s++)
        for (int c = 0; c < f->n && !dropped[s]; c++) {
            dropped[s] = !dropped[c] && f->at[c].asks_replay == asked &&
                         explains_it(m, &f->at[c], &f->at[s]);
            if (dropped[s])
                rule_reject(&f->at[c], f->at[s].id, "%s (%.1f ms) is what comes of it",
                            f->at[s].title, 1e3 * f->at[s].lost);
        }
    for (int i = 0; i < f->n; i++)
        if (!dropped[i])
            f->at[kept++] = f->at[i];
    f->n = kept;
}

static bool is_among(const char *id, const char *list)
{
    size_t n = strlen(id);
    for (const char *at = list; (at = strstr(at, id)) != NULL; at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
            return true;
    return false;
}

/* --- beside loaders ----------------------------------------------------------------- */

/* A step that gets shorter asks for batches sooner, and may then wait for them: what a graph of
 * what was waited does not show. */
struct supply {
    const double *ready; /* [n_steps] what a step takes without waiting for data */
    double *sooner;      /* [n_steps] room */
    double waited;       /* the mean step's wait */
    double scale;        /* that over what the loads replayed wait */
};

static bool see_supply(const struct measure *m, struct supply *s, struct arena *a)
{
    double *ready = ARENA_ARRAY(a, double, m->n_steps), *data = ARENA_ARRAY(a, double, m->n_steps);
    const double lost = m->loss[LOSS_DATA];
    for (i64 i = 0; i < m->n_steps; i++)
        for (i64 r = 0; r < m->n_ranks; r++)
            data[i] = fmax(data[i], m->ranks[r].data[i]); /* fmax: NaN is left out */
    s->waited = isfinite(lost) ? lost : 0;
    s->sooner = ARENA_ARRAY(a, double, m->n_steps);
    const double all = measure_stat(data, m->n_steps).mean, counts = all > 0 ? s->waited / all : 0;
    for (i64 i = 0; i < m->n_steps; i++)
        ready[i] = fmax(m->seconds[i] - fmin(1, counts) * data[i], 1e-9);
    s->ready = ready;
    const double replayed = rule_loader_wait(m, ready);
    s->scale = replayed > 0 && s->waited > 0 ? s->waited / replayed : 1;
    return isfinite(replayed);
}

/* How much of a finding's gain comes of this step, over other steps: of gaps, as they have them. */
static double weight_of(const struct measure *m, const struct finding *x, i64 step)
{
    const i64 number = m->numbers[step];
    double gap = 0;
    if (x->edit.kind != EDIT_HOST || x->edit.host < 0)
        return x->place.first_step < 0 ||
               (number >= x->place.first_step && number <= x->place.last_step);
    for (i64 r = 0; r < m->n_ranks; r++)
        gap = fmax(gap, m->ranks[r].gap[x->edit.host][step]); /* fmax: NaN is left out */
    return gap;
}

/* What steps wait for data when they are ready so much sooner in the mean, by mending x. */
static double wait_after(const struct measure *m, const struct supply *s, const struct finding *x,
                         double gain)
{
    double all = 0;
    for (i64 i = 0; i < m->n_steps; i++)
        all += weight_of(m, x, i);
    for (i64 i = 0; i < m->n_steps; i++) {
        const double share = all > 0 ? weight_of(m, x, i) / all : 1 / (double)m->n_steps;
        s->sooner[i] = fmax(s->ready[i] - share * gain * (double)m->n_steps, 1e-9);
    }
    return fmax(s->waited, s->scale * rule_loader_wait(m, s->sooner));
}

static bool is_of_data(const struct finding *f)
{
    return is_among(f->id, "D1 D2 D3 D4");
}

static const struct finding *first_of_data(const struct findings *f)
{
    for (int i = 0; i < f->n; i++)
        if (is_of_data(&f->at[i]))
            return &f->at[i];
    return NULL;
}

/* Which of its gain loaders would take: less than this is nothing. */
static const double least_taken = 0.05;

/* True when loaders take of its gain, and no finding tells of them yet. */
static bool price_supplied(struct finding *x, const struct measure *m, const struct supply *s,
                           const struct finding *data)
{
    const double waits = wait_after(m, s, x, x->gain) - s->waited;
    if (x->urgent || is_of_data(x) || !(waits > least_taken * x->gain))
        return false;
    if (data && x->gain - waits < m->theta) {
        snprintf(x->after, sizeof x->after, "%s", data->id);
        rule_evidence(x, "the gain is what is left once the loader (%s) is mended: until then "
                      "steps would wait for data instead", data->id);
        return false;
    }
    rule_evidence(x, "it would be %.1f ms, but steps that short would wait %.1f ms for data",
                  1e3 * x->gain, 1e3 * waits);
    x->gain = fmax(0, x->gain - waits);
    x->gain_lo = fmin(x->gain, fmax(0, x->gain_lo - wait_after(m, s, x, x->gain_lo) + s->waited));
    x->gain_hi = fmax(x->gain, x->gain_hi - wait_after(m, s, x, x->gain_hi) + s->waited);
    /* What the loader takes of it is no surer than what a replay says. */
    x->gain_lo = fmin(x->gain_lo, x->gain * (1 - price_spread));
    x->gain_hi = fmin(fmax(x->gain_hi, x->gain * (1 + price_spread)), fmax(x->gain, rule_most(m, x)));
    return !data;
}

static void ask(struct findings *out, const struct measure *m, const struct rule *r);

/* The loader that nobody waits for, as long as x makes steps longer. */
static void add_supply(struct findings *f, const struct measure *m, const struct supply *s,
                       const struct finding *by, double gain)
{
    struct measure sooner = *m;
    const int before = f->n;
    sooner.loss[LOSS_DATA] = wait_after(m, s, by, gain);
    sooner.step.mean += sooner.loss[LOSS_DATA] - s->waited - gain;
    for (const struct rule *r = rules_data; r->look && f->n == before; r++)
        if (is_among(r->id, "D1 D2 D4"))
            ask(f, &sooner, r);
    if (f->n == before)
        return;
    struct finding *x = &f->at[before];
    snprintf(x->after, sizeof x->after, "%s", by->id);
    rule_evidence(x, "the gain is what is left once %s is mended: until then its batches come in "
                  "time, and afterwards they are waited for", by->id);
}

static void price_beside_loaders(struct findings *f, const struct measure *m)
{
    struct supply s;
    struct arena a;
    const struct finding *data = first_of_data(f);
    int most = -1;
    double full = 0;
    arena_init(&a);
    const bool known = see_supply(m, &s, &a);
    for (int i = 0; i < f->n && known; i++) {
        const double gain = f->at[i].gain;
        if (price_supplied(&f->at[i], m, &s, data) && gain > full) {
            most = i;
            full = gain;
        }
    }
    if (most >= 0)
        add_supply(f, m, &s, &f->at[most], full);
    arena_fini(&a);
}

/* --- order ---------------------------------------------------------------------------- */

static int first_rank(const struct finding_place *p)
{
    return p->several.n > 0 ? p->several.at[0] : p->rank;
}

static bool is_behind(const struct finding *x, const struct finding *first)
{
    const bool ranks = x->edit.takes > 0 && first->edit.takes > 0 &&
                       finding_mended(&x->edit, first_rank(&first->place)) < 1;
    return ranks || (x->after[0] && strcmp(x->after, first->id) == 0);
}

/* Behind what must be mended first. */
static void move_behind(struct findings *f)
{
    for (int i = f->n - 1; i >= 0; i--)
        for (int k = f->n - 1; k > i; k--) {
            const struct finding x = f->at[i];
            if (!is_behind(&x, &f->at[k]))
                continue;
            memmove(&f->at[i], &f->at[i + 1], (size_t)(k - i) * sizeof x);
            f->at[k] = x;
            break;
        }
}

static bool is_of_links(const struct finding *f)
{
    return is_among(f->id, "C11 C4 C5");
}

/* Links that are slow in some steps are so on average, too, which gives back less; where it is more,
 * beyond what a replay tells, they are slow in the others as well. */
static void drop_other_links(struct findings *f)
{
    double all = 0, some = 0;
    int kept = 0;
    for (int i = 0; i < f->n; i++) {
        double *most = f->at[i].place.first_step < 0 ? &all : &some;
        *most = is_of_links(&f->at[i]) ? fmax(*most, f->at[i].gain) : *most;
    }
    const bool in_all = all > (1 + price_spread) * some;
    for (int i = 0; i < f->n; i++)
        if (!(all > 0 && some > 0 && is_of_links(&f->at[i]) &&
              (f->at[i].place.first_step < 0) != in_all))
            f->at[kept++] = f->at[i];
    f->n = kept;
}

static int by_gain(const void *a, const void *b)
{
    const struct finding *x = a, *y = b;
    if (x->urgent != y->urgent)
        return x->urgent ? -1 : 1;
    if ((x->saves_j > 0) != (y->saves_j > 0))
        return x->saves_j > 0 ? 1 : -1;
    if ((x->about == ABOUT_OTHERS) != (y->about == ABOUT_OTHERS))
        return x->about == ABOUT_OTHERS ? 1 : -1;
    return (x->gain < y->gain) - (x->gain > y->gain);
}

/* Who is late, and whether bytes or ranks are waited for, cannot be told while some are missing
 * or their clocks apart. */
static bool needs_all_ranks(const struct rule *family, const struct rule *r)
{
    return family == rules_links || family == rules_comm || family == rules_axes || family == rules_balance || strcmp(r->id, "K14") == 0;
}

/* Kinds that a key of the recipe mends, or a lower clock (R4), while nothing is broken or slow. */
static const char settings[] = "B4 B5 B6 C1 C2 C3 C7 C10 D5 D6 H1 H2 H3 H5 H6 K1 K7 K8 K10 K14 R1 R3 R4";

static void say_of_settings(struct finding *f)
{
    if (f->about == ABOUT_RUN && is_among(f->id, settings))
        f->about = ABOUT_SETTINGS;
}

static const struct finding_place everywhere = {
    .rank = -1, .peer = -1, .stage = -1, .layer = -1, .first_step = -1, .last_step = -1,
    .last_rank = -1,
};

/* What a finding makes possible stands right behind it, with its gain: mending is one act. */
static void add_behind(struct findings *f, const struct measure *m, const struct rule *r)
{
    for (int i = 0; i < f->n && f->n < FINDINGS_MOST; i++) {
        const struct finding *by = &f->at[i];
        if (!is_among(by->id, rule_behind(r->id)) || !(by->gain_lo > 0))
            continue; /* a gain that may be none is no reason for more */
        struct finding x = { .title = r->title, .place = everywhere,
            .lost = by->lost, .share = by->share, .gain = by->gain, .gain_lo = by->gain_lo,
            .gain_hi = by->gain_hi, .replayed = by->replayed };
        snprintf(x.id, sizeof x.id, "%s", r->id);
        rule_evidence(&x, "%s (%s) is what it would mend; the gain is that one's", by->title,
                      by->id);
        if (!r->look(m, r->limit, &x))
            return;
        say_of_settings(&x);
        memmove(&f->at[i + 2], &f->at[i + 1], (size_t)(f->n - i - 1) * sizeof f->at[0]);
        f->at[i + 1] = x;
        f->n++;
        return;
    }
}

static void ask(struct findings *out, const struct measure *m, const struct rule *r)
{
    struct finding *f = &out->at[out->n];
    *f = (struct finding){ .title = r->title, .place = everywhere };
    snprintf(f->id, sizeof f->id, "%s", r->id);
    if (out->n < FINDINGS_MOST - 1 && r->look(m, r->limit, f)) {
        say_of_settings(f);
        out->n++;
    }
}

void findings_make(struct findings *out, const struct measure *m,
                   const struct finding_replay *replay)
{
    out->n = 0;
    for (i64 k = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++) {
            if (!(m->theta > 0) && rule_families[k] != rules_run)
                break; /* not one step was measured */
            if (rule_behind(r->id))
                continue;
            if (!measure_whole(m) && needs_all_ranks(rule_families[k], r))
                continue;
            ask(out, m, r);
        }
    for (const struct rule *r = rules_links_some; m->slow_links && m->theta > 0 && r->look; r++)
        ask(out, m, r);
    const bool may_ask = replay && measure_whole(m) && m->theta > 0;
    for (const struct rule *r = rules_beside; may_ask && r->look; r++)
        ask(out, m, r);
    drop_explained(out, m, false);
    price_all(out, m, replay);
    drop_explained(out, m, true);
    drop_other_links(out);
    price_beside_loaders(out, m);
    qsort(out->at, (size_t)out->n, sizeof out->at[0], by_gain);
    move_behind(out);
    for (i64 k = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++)
            if (rule_behind(r->id))
                add_behind(out, m, r);
}

bool finding_can_hide(int lane)
{
    return lane == LANE_DP || lane == LANE_SHARD || lane == LANE_COPIES || lane == LANE_EDP;
}

bool finding_names_ranks(const struct finding_place *p)
{
    return p->rank >= 0 || p->several.n > 0;
}

static bool lists(const struct finding_ranks *ranks, int rank)
{
    for (int i = 0; i < ranks->n; i++)
        if (ranks->at[i] == rank)
            return true;
    return false;
}

bool finding_mend(struct finding_edit *e, int rank, double takes)
{
    const double alike = 0.02; /* what a replay may take for one */
    int k = 0;
    while (k < e->n_mended && !(fabs(e->mended[k].takes - takes) <= alike * takes &&
                                e->mended[k].ranks.n < FINDING_RANKS))
        k++;
    if (k == FINDING_MENDED)
        return false;
    struct finding_mended *x = &e->mended[k];
    if (k == e->n_mended) {
        *x = (struct finding_mended){ .takes = takes };
        e->n_mended++;
    }
    x->ranks.at[x->ranks.n++] = rank;
    return true;
}

double finding_mended(const struct finding_edit *e, int rank)
{
    for (int k = 0; k < e->n_mended; k++)
        if (lists(&e->mended[k].ranks, rank))
            return e->mended[k].takes;
    return 1;
}

bool finding_edits_rank(const struct finding_edit *e, int rank)
{
    if (e->several.n > 0)
        return lists(&e->several, rank);
    return e->rank < 0 || rank == e->rank || (e->peer >= 0 && rank == e->peer) ||
           (rank > e->rank && rank <= e->last_rank);
}

/* --- telling ---------------------------------------------------------------------- */

/* "ranks 0, 2-5 and 8" */
static void list_ranks(const struct finding_ranks *several, struct text *out)
{
    text_add(out, "ranks ");
    for (int i = 0, to; i < several->n; i = to) {
        for (to = i + 1; to < several->n && several->at[to] == several->at[to - 1] + 1; to++)
            ;
        to = to - i > 2 ? to : i + 1; /* two are no range */
        text_printf(out, "%s%d", i == 0 ? "" : to < several->n ? ", " : " and ", several->at[i]);
        if (to > i + 1)
            text_printf(out, "-%d", several->at[to - 1]);
    }
}

void finding_place_text(const struct finding_place *p, struct text *out)
{
    i64 before = out->length;
    const char *sep = "";
    if (p->rank >= 0 && p->peer >= 0) {
        text_printf(out, "ranks %d and %d", p->rank, p->peer);
        sep = ", ";
    } else if (p->rank >= 0 && p->last_rank > p->rank) {
        text_printf(out, "ranks %d-%d", p->rank, p->last_rank);
        sep = ", ";
    } else if (p->rank >= 0) {
        text_printf(out, "rank %d", p->rank);
        sep = ", ";
    } else if (p->several.n > 0) {
        list_ranks(&p->several, out);
        sep = ", ";
    }
    if (p->stage >= 0) {
        text_printf(out, "%sstage %d", sep, p->stage);
        sep = ", ";
    }
    if (p->layer >= 0) {
        text_printf(out, "%slayer %d", sep, p->layer);
        sep = ", ";
    }
    if (p->lane[0]) {
        text_printf(out, "%s%s", sep, p->lane);
        sep = ", ";
    }
    if (p->op[0]) {
        text_printf(out, "%s%s", sep, p->op);
        sep = ", ";
    }
    if (p->first_step >= 0)
        text_printf(out, "%ssteps %lld-%lld", sep, (long long)p->first_step + 1,
                    (long long)p->last_step + 1);
    if (out->length == before)
        text_add(out, "everywhere");
}

static void put_saving(const struct finding *f, struct text *out)
{
    char j[3][32];
    unit_two_digits(f->saves_lo_j, j[0], sizeof j[0]);
    unit_two_digits(f->saves_j, j[1], sizeof j[1]);
    unit_two_digits(f->saves_hi_j, j[2], sizeof j[2]);
    text_printf(out, "    loses no time; mending it saves %s J a step [%s, %s], by a model; steps stay "
                "as long, by replay\n", j[1], j[0], j[2]);
}

static void put_finding(const struct finding *f, int number, struct text *out)
{
    text_printf(out, "%2d. %-4s%s  [", number, f->id, f->title);
    finding_place_text(&f->place, out);
    text_add(out, "]\n");
    if (f->about == ABOUT_SETTINGS)
        text_add(out, "    this is about the run's settings: nothing is broken, they could be "
                      "better\n");
    else if (f->about != ABOUT_RUN)
        text_printf(out, "    the machine is %s: this is none of the run's own doing\n",
                    f->about == ABOUT_OTHERS ? "disturbed" : "slower than it was");
    if (f->urgent)
        text_add(out, "    mend this first\n");
    else if (f->saves_j > 0)
        put_saving(f, out);
    else
        text_printf(out, "    loses %.1f ms a step (%.0f %%); mending it gives back %.1f ms [%.1f, "
                    "%.1f], by %s\n", 1e3 * f->lost, 100 * f->share, 1e3 * f->gain,
                    1e3 * f->gain_lo, 1e3 * f->gain_hi, f->replayed ? "replay" : "formula");
    for (int i = 0; i < f->n_evidence; i++) {
        text_add(out, "    - ");
        text_wrap(out, f->evidence[i], 6, 6, 98);
        text_add(out, "\n");
    }
    for (int i = 0; i < f->n_rejected; i++) {
        text_printf(out, "    not %s: ", f->rejected[i].id);
        text_wrap(out, f->rejected[i].why, 12, 12, 98);
        text_add(out, "\n");
    }
    text_add(out, "    fix:     ");
    text_wrap(out, f->fix, 13, 13, 98);
    text_add(out, "\n    confirm: ");
    text_add(out, f->confirm); /* on one line, to be pasted */
    if (f->look[0]) {
        text_add(out, "\n    look at: ");
        text_wrap(out, f->look, 13, 13, 98);
    }
    text_add(out, "\n");
}

/* What evaluating takes, where it is no finding: that it is not too often is not that it is unexplained. */
static void put_evaluating(const struct measure *m, double s, struct text *out)
{
    text_printf(out, "Evaluating takes %.2f ms (%.1f %%): less than what is too often (H2).\n",
                1e3 * s, 100 * s / m->step.mean);
}

/* That it has no remedy among the settings does not make it unexplained. */
static void put_stages(const struct measure *m, const struct times_stages *stages, double s,
                       struct text *out)
{
    struct text line = { 0 };
    text_printf(&line, "%.2f ms (%.1f %%) of waiting for ranks is for stages of unequal length: the "
                "busiest computes for %.1f ms a step, the mean one for %.1f ms, and no other "
                "division of whole layers is more even. Another number of stages may be (--layout "
                "pp=N).", 1e3 * s, 100 * s / m->step.mean, 1e3 * stages->most_s,
                1e3 * stages->mean_s);
    text_wrap(out, line.data, 0, 0, 98);
    text_add(out, "\n");
    text_fini(&line);
}

/* "no kind that is known matches, yet ..." for each class of time that nothing accounts for. */
static bool put_unexplained(const struct findings *f, const struct measure *m, struct text *out)
{
    bool any = false;
    struct times_stages stages;
    for (int k = 0; k < TIMES; k++) {
        double s = times_unexplained(m, f, (enum times_class)k);
        if (s == 0 || k == TIME_EVAL)
            continue;
        if (k == TIME_WAIT && times_of_stages(m, s, &stages)) {
            put_stages(m, &stages, s, out);
            any = true;
            continue;
        }
        text_printf(out, "No kind that is known%s matches, yet %.2f ms (%.1f %%) of %s is "
                         "unexplained.\n", f->n > 0 ? " further" : "", 1e3 * s,
                    100 * s / m->step.mean, times_name(m, (enum times_class)k));
        any = true;
    }
    return any;
}

/* The same seconds may be of several kinds: a thread that is off its processor makes slow
 * products too. */
static void put_overlap(const struct findings *f, const struct measure *m, struct text *out)
{
    double lost = 0;
    for (int i = 0; i < f->n; i++)
        if (!f->at[i].urgent && !rule_behind(f->at[i].id))
            lost += f->at[i].lost;
    if (m->step.mean > 0 && lost > m->step.mean) {
        text_wrap(out, "These overlap: together they lose more than a whole step, so some of the time is "
                       "counted in several, and mending one leaves less to gain from another.", 0, 0, 98);
        text_add(out, "\n");
    }
}

void findings_text(const struct findings *f, const struct measure *m, struct text *out)
{
    for (int i = 0; i < f->n; i++)
        put_finding(&f->at[i], i + 1, out);
    put_overlap(f, m, out);
    const double evaluating = times_unexplained(m, f, TIME_EVAL);
    if (!put_unexplained(f, m, out) && f->n == 0)
        text_printf(out, "No finding%s above %.2f ms a step (%.1f %%; three standard errors of "
                         "the step are %.2f ms, over %lld steps).\n",
                    !measure_whole(m) ? " of the kinds that are judged" : "", 1e3 * m->theta,
                    100 * m->theta / m->step.mean, 3e3 * m->step.se, (long long)m->n_steps);
    if (evaluating > 0)
        put_evaluating(m, evaluating, out);
}

static void put_number(struct json *j, const char *key, int value)
{
    json_key(j, key);
    if (value >= 0)
        json_int(j, value);
    else
        json_nothing(j);
}

static void put_place(const struct finding_place *p, struct json *j)
{
    json_key(j, "place");
    json_begin_object(j);
    put_number(j, "rank", p->rank);
    put_number(j, "last_rank", p->rank >= 0 && p->last_rank > p->rank ? p->last_rank : -1);
    put_number(j, "peer", p->peer);
    json_key(j, "ranks"); /* that are no range */
    json_begin_array(j);
    for (int i = 0; i < p->several.n; i++)
        json_int(j, p->several.at[i]);
    json_end(j);
    put_number(j, "stage", p->stage);
    put_number(j, "layer", p->layer);
    json_put_str(j, "lane", p->lane[0] ? p->lane : NULL);
    json_put_str(j, "op", p->op[0] ? p->op : NULL);
    put_number(j, "first_step", p->first_step >= 0 ? (int)p->first_step + 1 : -1);
    put_number(j, "last_step", p->first_step >= 0 ? (int)p->last_step + 1 : -1);
    json_end(j);
}

static void put_strings(const struct finding *f, struct json *j)
{
    json_key(j, "evidence");
    json_begin_array(j);
    for (int k = 0; k < f->n_evidence; k++)
        json_str(j, f->evidence[k]);
    json_end(j);
    json_key(j, "rejected");
    json_begin_array(j);
    for (int k = 0; k < f->n_rejected; k++) {
        json_begin_object(j);
        json_put_str(j, "id", f->rejected[k].id);
        json_put_str(j, "why", f->rejected[k].why);
        json_end(j);
    }
    json_end(j);
}

static void put_interval(struct json *j, const char *key, double lo, double mid, double hi)
{
    json_key(j, key);
    json_begin_array(j);
    json_double(j, lo);
    json_double(j, mid);
    json_double(j, hi);
    json_end(j);
}

void findings_json(const struct findings *all, struct json *j)
{
    json_begin_array(j);
    for (int i = 0; i < all->n; i++) {
        const struct finding *f = &all->at[i];
        json_begin_object(j);
        json_put_str(j, "id", f->id);
        json_put_str(j, "title", f->title);
        json_put_str(j, "about", f->about == ABOUT_RUN        ? "run"
                                 : f->about == ABOUT_SETTINGS ? "settings"
                                                              : "machine");
        json_put_double(j, "lost_s", f->lost);
        json_put_double(j, "share", f->share);
        put_place(&f->place, j);
        put_strings(f, j);
        json_put_str(j, "fix", f->fix);
        json_put_str(j, "confirm", f->confirm);
        if (f->look[0])
            json_put_str(j, "look_at", f->look);
        put_interval(j, "gain_s", f->gain_lo, f->gain, f->gain_hi);
        if (f->saves_j > 0)
            put_interval(j, "saves_j", f->saves_lo_j, f->saves_j, f->saves_hi_j);
        json_put_str(j, "gain_by", f->urgent ? NULL : f->replayed ? "replay" : "formula");
        json_end(j);
    }
    json_end(j);
}
