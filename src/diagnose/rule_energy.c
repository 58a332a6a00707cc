/* What takes energy and no time: ranks that are done before others, at full clock.
 *
 * A rank that has time left could compute more slowly. Beyond what a processor draws when it idles,
 * its power goes with clock x voltage^2, and the voltage somewhat with the clock: power with the
 * clock's a-th power, energy of the same work with its (a - 1)-th. How a processor's voltage falls
 * is not known here, hence the interval: not at all (a = 1: nothing is saved) to in proportion
 * (a = 3).
 * Waiting takes what idling does, at any clock, for who waits sleeps (comm/lane.h). */
#include "diagnose/rule.h"
#include "machine/units.h"

#include <math.h>

static const double usual_power = 2, most_power = 3;

/* Share of the energy of computing that is saved when each rank takes `k` of the time it has; of:
 * seconds at full clock that each saves, or NULL. */
static double saved_share(const struct measure *m, double k, double power, double *of)
{
    double all = 0, saved = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const double compute = measure_mean(m, m->ranks[r].compute);
        const double clock = 1 / (1 + k * (m->ranks[r].stretch - 1));
        const double own = compute * (1 - pow(clock, power - 1));
        if (of)
            of[r] = own;
        all += compute;
        saved += own;
    }
    return saved / all;
}

/* Of the seconds that cores were busy, those in which ranks computed. */
static double computing_share(const struct measure *m)
{
    double compute = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        compute += measure_mean(m, m->ranks[r].compute) * (double)i64_max(1, m->config.threads);
    return fmin(1, compute / (m->energy.busy_cores * m->step.mean));
}

/* At most, of the time that ranks have. With all of it taken, whoever is late by chance holds the
 * others up: two ranks of which one computed 1.5 times as long took 3 to 8 % longer steps when the
 * other did so too, and no longer ones when it did so 1.25 times as long (bench/DIAGNOSE.md). */
static const double taken = 0.5;

/* k: of that time, what steps allow. */
static void save(const struct measure *m, double k, struct finding *f)
{
    const double busy =
        m->energy.watts * m->step.mean * m->energy.busy_share * computing_share(m);
    f->edit.factor = fmin(taken, k);
    f->saves_j = busy * saved_share(m, f->edit.factor, usual_power, NULL);
    f->saves_lo_j = 0;
    f->saves_hi_j = busy * m->energy.hi * saved_share(m, k, most_power, NULL);
}

bool rule_saves_enough(const struct measure *m, const struct finding *f)
{
    return f->saves_j >= rules_energy[0].limit[0].value * m->energy.watts * m->step.mean;
}

static i64 rank_with_most(const struct measure *m, bool stretch)
{
    i64 most = 0;
    double best = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const double x = stretch ? m->ranks[r].stretch : measure_mean(m, m->ranks[r].compute);
        most = x > best ? r : most;
        best = fmax(best, x);
    }
    return most;
}

/* Steps are as long as they were if they get no longer than by this share, a quarter of what a
 * finding must lose. */
static const double as_long = 0.005;
enum { BISECTIONS = 8 };

void rule_price_clock(struct finding *f, const struct measure *m,
                      const struct finding_replay *replay, double before)
{
    double fits = 0, fails = 1, share = 1;
    for (int i = 0; i < BISECTIONS && fits < 1; i++) {
        const double then = replay->length(replay->context, &f->edit, share);
        if (then <= (1 + as_long) * before) /* not: NaN */
            fits = share;
        else
            fails = share;
        share = (fits + fails) / 2;
    }
    save(m, fits, f);
    f->replayed = true;
    const double then = replay->length(replay->context, &f->edit, f->edit.factor);
    rule_evidence(f, "replayed: with %.0f %% of that time taken by all ranks that have it, steps "
                  "take %.2f %% longer", 100 * f->edit.factor, 100 * (then / before - 1));
    rule_fix(f, "a lower clock for the processors of these ranks, down to %.0f %% of what they "
             "have: cpupower -c LIST frequency-set --max FREQUENCY on the machine itself; better, "
             "where what makes the others late can be mended, that: it gives time back instead",
             100 / (1 + f->edit.factor * (m->ranks[rank_with_most(m, true)].stretch - 1)));
}

static void tell_slack(const struct measure *m, i64 early, struct finding *f)
{
    const struct measure_energy *e = &m->energy;
    const struct measure_rank *k = &m->ranks[early], *last = &m->ranks[rank_with_most(m, false)];
    const double step_j = e->watts * m->step.mean;
    char j[3][32];
    rule_evidence(f, "rank %d computes for %.1f ms a step, rank %d %.1f: in nine steps of ten it "
                  "could take %.2f times as long and not be last", k->rank,
                  1e3 * measure_mean(m, k->compute), last->rank,
                  1e3 * measure_mean(m, last->compute), k->stretch);
    unit_two_digits(step_j, j[0], sizeof j[0]);
    unit_two_digits(step_j * e->lo, j[1], sizeof j[1]);
    unit_two_digits(step_j * e->hi, j[2], sizeof j[2]);
    rule_evidence(f, "a step takes %s J [%s, %s] (%s), of which %.0f %% is computing's and "
                  "would not be drawn by an idle processor", j[0], j[1], j[2], e->method,
                  100 * e->busy_share * computing_share(m));
    rule_evidence(f, "modelled, not measured: power above idling falls with the clock's %.0fnd "
                  "power (least: its 1st, where the voltage stays and nothing is saved; most: its "
                  "%.0frd)", usual_power, most_power);
    rule_reject(f, "B3", "it is not by turns: the time is there in nine steps of ten");
    if (isfinite(k->clock))
        rule_reject(f, "K4", "rank %d's clock is at %.0f %% of what it was: it is not lower yet",
                    k->rank, 100 * k->clock);
}

/* How many times the mean rank's computing the longest is. */
static double unevenness(const struct measure *m)
{
    double most = 0, sum = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const double compute = measure_mean(m, m->ranks[r].compute);
        most = fmax(most, compute);
        sum += compute;
    }
    return most * (double)m->n_ranks / sum;
}

static bool look_slack(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    struct arena a;
    if (!(m->energy.watts > 0) || m->n_ranks < 2 || !measure_whole(m))
        return false;
    const i64 early = rank_with_most(m, true);
    rule_edit(f, EDIT_CLOCK, 1);
    save(m, 1, f);
    if (!rule_saves_enough(m, f) || m->ranks[early].clock < limit[1].value ||
        unevenness(m) < limit[2].value)
        return false;
    arena_init(&a);
    double *of = ARENA_ARRAY(&a, double, m->n_ranks);
    saved_share(m, 1, usual_power, of);
    rule_place_ranks(m, of, f);
    arena_fini(&a);
    tell_slack(m, early, f);
    f->asks_replay = true;
    rule_confirm(f, "headway energy RUN");
    rule_look(f, "J a token, beside a run with the lower clock, whose steps must take as long");
    return true;
}

const struct rule rules_energy[] = {
    { "R4", "ranks that have time compute at full clock", look_slack,
      { { 0.01, "of a step's energy", "as half of the time is taken: of all it is the 2 % that a "
          "finding must lose of its time" },
        { 0.95, "of its clock before", "as K4: below it, it is lower already" },
        { 1.05, "times the mean rank's computing", "as B4: ranks and stages that differ by less are "
          "even, and what they wait for each other no fault of the run" } } },
    { .id = "" },
};
