/* Ranks that do not have, or do not do, equally much. */
#include "diagnose/rows.h"
#include "diagnose/slow_groups.h"
#include "diagnose/split.h"
#include "graph/graph.h"
#include "parallel/layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RULE_B2, RULE_B1 }; /* the first of rules_balance */

/* --- episodes --------------------------------------------------------------------- */

/* All ranks at once: no peer tells. */
static struct measure_change common_change(const struct measure *m, double least)
{
    struct arena a;
    arena_init(&a);
    double *x = ARENA_ARRAY(&a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++)
        for (i64 r = 0; r < m->n_ranks; r++)
            x[i] += m->ranks[r].compute[i] / (double)m->n_ranks;
    struct measure_change c = measure_change_of(m, x, m->n_steps, least);
    arena_fini(&a);
    return c;
}

/* Of the step, over all of its steps. */
static double lost_in(struct measure_change c)
{
    return (c.inside - c.before) * (double)(c.until - c.at);
}

/* The episode that costs most, and which ranks have it (those whose own begins and ends with
 * it); all of them when their mean has more of it. *rank -1: there is none. left_out: ranks of which
 * one was told already; NULL: none was. */
static struct measure_change worst_episode(const struct measure *m, double least,
                                           const bool *left_out, bool *in, i64 *rank)
{
    struct measure_change worst = { .until = 0 }, c;
    *rank = -1;
    for (i64 r = 0; r < m->n_ranks; r++) {
        c = episode_of(m, r, least);
        if (left_out && left_out[r])
            continue;
        if (episode_is(m, c) && (*rank < 0 || c.inside - c.before > worst.inside - worst.before)) {
            worst = c;
            *rank = r;
        }
    }
    for (i64 r = 0; r < m->n_ranks && *rank >= 0; r++) {
        c = episode_of(m, r, least);
        in[r] = !(left_out && left_out[r]) && episode_is(m, c) && c.at < worst.until && c.until > worst.at &&
                c.inside - c.before >= 0.5 * (worst.inside - worst.before);
    }
    c = common_change(m, least);
    const bool common = !left_out && m->n_ranks > 1 && episode_is(m, c);
    if (common && (*rank < 0 || lost_in(c) > lost_in(worst))) { /* of one it is by chance */
        *rank = 0;
        worst = c;
        for (i64 r = 0; r < m->n_ranks; r++)
            in[r] = true;
    }
    return worst;
}

static bool is_among_all(const struct measure *m, const bool *in)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (!in[r])
            return false;
    return true;
}

/* A rank that was as the others, then slower for a time (or from then on). */
static bool tell_onset(const struct measure *m, const struct rule_limit *limit, const bool *left_out,
                       bool *in, struct finding *f, struct arena *a)
{
    i64 rank;
    const struct measure_change worst = worst_episode(m, limit[0].value, left_out, in, &rank);
    double steps = (double)(worst.until - worst.at);
    double inside = worst.inside - worst.before, lost = inside * steps / (double)m->n_steps;
    if (rank < 0 || !(inside >= fmax(2 * m->theta, limit[1].value * m->step.median)) ||
        !(lost >= 0.5 * m->theta))
        return false;
    /* A single step, or two, of rows that take longer. */
    if (steps < 5 && rows_fit(m).correlation >= rules_balance[RULE_B2].limit[2].value)
        return false;
    const bool all = is_among_all(m, in);
    const bool peers = !all && isfinite(rule_excess(m, rank, rule_compute).mean);
    /* Before and behind it the rank is as its peers, or there are none. */
    if (peers && fabs(worst.before) > 0.5 * inside)
        return false;
    slow_place(m, in, f, a);
    f->place.first_step = m->numbers[worst.at];
    f->place.last_step = m->numbers[worst.until - 1];
    const i64 others = m->n_steps - (worst.until - worst.at);
    if (all)
        f->title = "the step became slow";
    rule_evidence(f, "from step %lld to %lld %s %.1f ms longer a step than in the other %lld "
                  "(%s%.0f sigma)", (long long)f->place.first_step + 1,
                  (long long)f->place.last_step + 1, all ? "computing takes" : "it computes",
                  1e3 * inside, (long long)others, worst.height > 99 ? "more than " : "",
                  fmin(worst.height, 99));
    if (peers)
        rule_reject(f, "B1", "in the other %lld steps the rank is as fast as its peers",
                    (long long)others);
    if (m->ranks[rank].clock > 0.95)
        rule_reject(f, "K4", "its clock is at %.0f %% of what it was", 100 * m->ranks[rank].clock);
    rule_edit(f, EDIT_AS_ELSE, 1);
    if (!all && !finding_names_ranks(&f->place))
        f->edit.kind = EDIT_NONE; /* there are too many */
    rule_gain(m, f, lost, lost, 0.25);
    rule_fix(f, "see what that host did then (its log, its other jobs, its temperature); if it comes "
                "back, %s and go on with --resume",
             all ? "take another host" : "give the rank another host");
    rule_confirm(f, "headway diagnose RUN --steps %lld-%lld",
                 (long long)f->place.first_step + 1, (long long)f->place.last_step + 1);
    return true;
}

static bool look_onset(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    struct arena a;
    arena_init(&a);
    const bool found = tell_onset(m, limit, NULL, ARENA_ARRAY(&a, bool, m->n_ranks), f, &a);
    arena_fini(&a);
    return found;
}

/* Of other ranks, in other steps or the same. */
static bool look_onset_beside(const struct measure *m, const struct rule_limit *limit,
                              struct finding *f)
{
    struct arena a;
    struct finding first = { .place = f->place };
    arena_init(&a);
    bool *had = ARENA_ARRAY(&a, bool, m->n_ranks);
    limit = rules_balance[RULE_B2].limit;
    const bool found = tell_onset(m, limit, NULL, had, &first, &a) && finding_names_ranks(&first.place) &&
                       tell_onset(m, limit, had, ARENA_ARRAY(&a, bool, m->n_ranks), f, &a);
    arena_fini(&a);
    return found && finding_names_ranks(&f->place);
}

/* --- slow ranks ------------------------------------------------------------------- */

/* Whether the other data-parallel ranks can share out rows and experts. */
static bool fits_without_one(const struct measure_config *c)
{
    return c->dp > 1 && (c->dp - 1) * c->cp % c->ep == 0 &&
           layout_rows_fit(c->islands, c->dp - 1, c->batch, (int)c->accumulate);
}

/* Whether they are all of one stage. */
static bool of_one_stage(const struct measure *m, const struct slow_ranks *g)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (g->in[r] && m->ranks[r].stage != m->ranks[g->rank].stage)
            return false;
    return true;
}

static void fix_slow_ranks(const struct measure *m, const struct slow_ranks *g, struct finding *f)
{
    const struct measure_rank *k = &m->ranks[g->rank];
    const char *host = k->host[0] ? k->host : "its host";
    char who[64], there[RULE_WHERE], stage[64];
    split_name(m, k->stage, stage, sizeof stage);
    snprintf(who, sizeof who, g->n > 1 ? "these %lld ranks" : "rank %lld",
             (long long)(g->n > 1 ? g->n : k->rank));
    if (m->config.pp > 1 && of_one_stage(m, g))
        rule_fix(f, "give %s (%s) another host; if it must stay: --layout.stages with fewer "
                    "layers for %s", who, host, stage);
    else if (g->n == 1 && fits_without_one(&m->config))
        rule_fix(f, "give %s (%s) another host, or leave it out: --layout.dp %lld", who, host,
                 (long long)(m->config.dp - 1));
    else
        rule_fix(f, "give %s (%s) another host", who, host);
    rule_confirm(f, "%sheadway machine --again", rule_there(m, g->rank, there));
    rule_look(f, "what it reaches beside other hosts");
}

/* Ranks that are slow for what they have to do, not a stage that has more of it. What the record says
 * of that are the tasks' own costs; where no task is like one of another stage, only another host. */
static void reject_more_work(const struct measure *m, const struct slow_ranks *g, struct finding *f)
{
    const struct slow_pace s = slow_stage_pace(m, m->ranks[g->rank].stage, NULL);
    const double times = 1 / slow_mended(m, g);
    if (s.by == SLOW_PACE_CEILINGS)
        rule_reject(f, "B4", "for what the machine's ceilings give its tasks it takes %.2f times as "
                    "long as other stages; ops that reach less of these than theirs would look alike: "
                    "the stage on another host tells", times);
    else
        rule_reject(f, "B4", "%s take %.2f times as long as on other stages, each: more work would be "
                    "more tasks, each as quick (by its tasks it has %.2f times the mean stage's)",
                    s.by == SLOW_PACE_TOLD ? "tasks of as many FLOPs and bytes"
                                           : "its tasks that other stages have, too,", times, s.work);
}

static bool has_low_clock(const struct measure *m, const struct slow_ranks *g)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (g->in[r] && rule_low_clock(m, &m->ranks[r]) < 1)
            return true;
    return false;
}

static void tell_slow_ranks(const struct measure *m, const struct slow_ranks *slow,
                            struct finding *f, struct arena *a)
{
    const struct slow_ranks g = *slow;
    const struct rule_excess e = g.excess;
    const struct measure_rank *k = &m->ranks[g.rank];
    slow_place(m, g.in, f, a);
    f->place.stage = m->config.pp > 1 && of_one_stage(m, &g) ? k->stage : -1;
    const double usual = slow_usual(m, &g);
    if (g.n > 1)
        f->title = "ranks are always slow";
    rule_evidence(f, "%s for %.1f ms a step, %s peers %.1f ms: %.2f times as long",
                  g.n > 1 ? "they compute" : "it computes", 1e3 * (usual + e.mean),
                  g.n > 1 ? "their" : "its", 1e3 * usual, (usual + e.mean) / usual);
    rule_evidence(f, "%s the slowest in %.0f %% of the steps", g.n > 1 ? "they are" : "it is",
                  100 * e.share);
    if (isfinite(g.last_share))
        rule_evidence(f, "%s last to %.0f %% of the exchanges", g.n > 1 ? "they come" : "it comes",
                      100 * fmin(1, g.last_share));
    if (m->config.pp < 2 && isfinite(g.blamed_share))
        rule_evidence(f, "of what ranks wait for each other %.0f %% is for %s",
                      100 * fmin(1, g.blamed_share), g.n > 1 ? "them" : "it");
    const bool low = has_low_clock(m, &g);
    if (low)
        rule_reject(f, "K4", "its clock is at %.0f %% of what it was: it takes %.1f ms longer than that "
                    "explains", 100 * k->clock, 1e3 * e.mean);
    else if (k->clock > 0)
        rule_reject(f, "K4", "its clock is at %.0f %% of what it was, no quota held it back",
                    100 * k->clock);
    if (isfinite(k->on_cpu))
        rule_reject(f, "H8", "its threads run for %.0f %% of the time that they are ready",
                    100 * k->on_cpu);
    rule_reject(f, "D6", "it is always the same %s", g.n > 1 ? "ranks" : "rank");
    /* Tasks as others' would have their clock, too. */
    const bool by_share = g.across || low;
    double lost = e.mean;
    if (!low && isfinite(m->loss[LOSS_BALANCE]) && m->loss[LOSS_BALANCE] > 0)
        lost = fmax(m->loss[LOSS_BALANCE], e.mean);
    rule_edit(f, !finding_names_ranks(&f->place) ? EDIT_NONE : by_share ? EDIT_COMPUTE : EDIT_EVEN_RANK,
              by_share ? slow_mended(m, &g) : 1);
    f->edit.takes = slow_mended(m, &g);
    if (g.across) {
        f->place.stage = f->edit.stage = g.n > 1 ? -1 : k->stage;
        reject_more_work(m, &g, f);
    }
    rule_gain(m, f, lost, e.mean, 0.2);
    fix_slow_ranks(m, &g, f);
}

/* The n-th group of them. */
static bool look_slow_group(const struct measure *m, int n, struct finding *f)
{
    struct arena a;
    arena_init(&a);
    const struct slow_groups g = slow_groups_find(m, rules_balance[RULE_B1].limit, &a);
    if (n < g.n)
        tell_slow_ranks(m, &g.at[n], f, &a);
    arena_fini(&a);
    return n < g.n;
}

static bool look_slow_rank(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    (void)limit; /* its row's */
    return look_slow_group(m, 0, f);
}

/* Others that are slow beside these, by another amount: waited for once these are mended. */
static bool look_beside(const struct measure *m, int n, struct finding *f)
{
    return look_slow_group(m, n, f) && f->edit.kind != EDIT_NONE; /* its gain only a replay says */
}

static bool look_second_group(const struct measure *m, const struct rule_limit *limit,
                              struct finding *f)
{
    (void)limit; /* those of the first */
    return look_beside(m, 1, f);
}

static bool look_third_group(const struct measure *m, const struct rule_limit *limit,
                             struct finding *f)
{
    (void)limit;
    return look_beside(m, 2, f);
}

struct spread {
    double mean, median, se;
};

/* Over steps, what the slowest rank of a stage has above its peers, in the stage where that is
 * most. */
static struct spread spread_within_stages(const struct measure *m)
{
    struct arena a;
    arena_init(&a);
    double *x = ARENA_ARRAY(&a, double, m->n_ranks), *worst = ARENA_ARRAY(&a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++)
        for (int p = 0; p < m->config.pp; p++) {
            i64 n = 0;
            for (i64 r = 0; r < m->n_ranks; r++)
                if (m->ranks[r].stage == p && isfinite(m->ranks[r].compute[i]))
                    x[n++] = m->ranks[r].compute[i];
            double above = measure_quantile(x, n, 1) - measure_quantile(x, n, 0.5);
            worst[i] = n > 1 ? fmax(worst[i], above) : worst[i];
        }
    struct measure_stat s = measure_stat(worst, m->n_steps);
    arena_fini(&a);
    return (struct spread){ m->n_steps > 0 ? s.mean : 0, s.median, s.se };
}

/* By what ranks have beside their peers: what is not of one rank, nor of a few odd steps, and is
 * more than chance. */
static bool slow_by_turns(const struct measure *m, const struct rule_limit *limit, double lost,
                          const struct rule_excess *e)
{
    const struct spread within = spread_within_stages(m);
    /* Noise makes whole steps vary, too: what tells it from none is how well its own loss is
     * known. */
    const double least = fmax(limit[3].value * m->step.mean, limit[4].value * within.se);
    return within.median >= limit[2].value * within.mean && lost >= least &&
           e->share < limit[0].value &&
           !(e->median > limit[1].value * lost && /* one of few always is somewhat slower */
             e->median > limit[4].value * e->sigma / sqrt((double)m->n_steps));
}

/* The rank whose tasks vary most. */
static double most_noise(const struct measure *m, i64 *rank)
{
    double most = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (m->ranks[r].noise > most) {
            most = m->ranks[r].noise;
            *rank = r;
        }
    return most;
}

/* Of few actions it is known roughly: what is usual among the noisy decides who has it, not the one that
 * seems to have most. */
static void place_noise(const struct measure *m, struct finding *f, struct arena *a)
{
    double *noise = ARENA_ARRAY(a, double, m->n_ranks), *noisy = ARENA_ARRAY(a, double, m->n_ranks);
    const double most = most_noise(m, &(i64){ 0 });
    for (i64 r = 0; r < m->n_ranks; r++) {
        noise[r] = m->ranks[r].noise > 0 ? m->ranks[r].noise : 0;
        noisy[r] = noise[r] >= 0.5 * most ? noise[r] : NAN;
    }
    const double usual = measure_quantile(noisy, m->n_ranks, 0.5);
    for (i64 r = 0; r < m->n_ranks; r++)
        noise[r] = fmin(noise[r], usual);
    rule_place_ranks(m, noise, f);
}

/* The same beside what rows ask for, where ranks' times follow that. */
static bool tell_jitter(const struct measure *m, const struct rule_limit *limit, struct finding *f,
                        struct arena *a)
{
    const struct rows_fit rows = rows_fit(m);
    const bool follows = rows_follow(&rows, limit[6].value, limit[7].value);
    const struct measure left = rows_left(m, follows ? &rows : NULL, a);
    const struct slow_ranks g = slow_ranks_find(&left, a);
    const double noise = most_noise(m, &(i64){ 0 });
    /* Of tasks that compute, times vary on the quietest machine, and who waits for that is what
     * counts; where times are given nothing but a fault makes them vary. */
    const bool varies = noise >= limit[m->config.simulated ? 8 : 5].value && rule_times_are_given(m);
    char there[RULE_WHERE];
    i64 rank = g.rank;
    double lost = m->loss[LOSS_BALANCE];
    if (follows || !isfinite(lost))
        lost = spread_within_stages(&left).mean;
    if (!varies && (rank < 0 || !slow_by_turns(&left, limit, lost, &g.excess)))
        return false;
    most_noise(m, &rank);
    double sigma = measure_stat(left.ranks[rank].compute, m->n_steps).sigma;
    f->within_steps = varies;
    if (varies) {
        place_noise(m, f, a);
        rule_evidence(f, "within a step, parts of it that take equally long else differ by %.0f %%",
                      100 * noise);
    }
    rule_evidence(f, "compute times vary by %.1f ms from step to step (%.0f %%), and each step waits "
                  "for whoever is slowest: %.1f ms", 1e3 * sigma,
                  100 * sigma / fmax(m->compute, 1e-12), 1e3 * lost);
    if (follows)
        rule_reject(f, "D6", "that is beside what the rows' lengths ask for, which times follow, too "
                    "(correlation %.2f)", rows.correlation);
    rule_reject(f, "B1", "no rank is the slowest in more than %.0f %% of the steps",
                100 * g.excess.share);
    rule_edit(f, EDIT_QUIET, 1);
    /* Else noise that stays, but evenly. */
    f->edit.least = varies || follows ? EDIT_OFTEN_QUIET : EDIT_EVEN_ROWS;
    f->edit.factor_hi = varies ? 0 : 1;
    rule_gain(m, f, lost, lost, 0.35);
    rule_fix(f, "cores of their own for the ranks (taskset, cpuset), a quiet system, or fewer "
                "meetings: --train.accumulate %lld", (long long)(2 * m->config.accumulate));
    rule_confirm(f, "%sheadway machine --again", rule_there(m, rank, there));
    rule_look(f, "how much this host varies, some times one after the other");
    return true;
}

static bool look_jitter(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    struct arena a;
    arena_init(&a);
    const bool found = tell_jitter(m, limit, f, &a);
    arena_fini(&a);
    return found;
}

/* --- a pipeline's stages ---------------------------------------------------------- */

struct stage_times {
    double most, mean, seconds[64];
    int slow;
};

/* How layers are shared out is the same for all ranks of a stage and in all steps: a stage is as long
 * as its quickest rank's usual step. take: of each rank's time, what counts; NULL: all. */
static struct stage_times see_stages(const struct measure *m, const double *take)
{
    struct stage_times s = { .most = 0 };
    for (int p = 0; p < m->config.pp && p < 64; p++) {
        double seconds = NAN;
        for (i64 r = 0; r < m->n_ranks; r++)
            if (m->ranks[r].stage == p) /* fmin: NaN is left out */
                seconds = fmin(seconds, (take ? take[r] : 1) *
                                            measure_stat(m->ranks[r].compute, m->n_steps).median);
        s.seconds[p] = seconds;
        s.mean += seconds / (double)m->config.pp;
        if (seconds > s.most) {
            s.most = seconds;
            s.slow = p;
        }
    }
    return s;
}

/* Of the others their stages' other ranks show what these take. */
static bool mend_hidden(const struct measure *m, const struct slow_groups *g, struct finding_edit *e)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (slow_hides(m, g, r) && !finding_mend(e, m->ranks[r].rank, g->take[r]))
            return false;
    return true;
}

/* That its ranks are alike does not say that the stage has more to do: all may be slow, on one slow
 * host. What its tasks take beside those of other stages does. */
static void tell_work(const struct measure *m, int stage, const struct slow_groups *g,
                      struct finding *f)
{
    const struct slow_pace s = slow_stage_pace(m, stage, g->take);
    const char *beside = g->n > 0 ? ", without what its slow ranks take longer" : "";
    if (isfinite(s.pace) && s.by != SLOW_PACE_CEILINGS) {
        rule_reject(f, "B1", "%s take %.2f times as long as on other stages%s: it has %.2f times the "
                    "mean stage's to do", s.by == SLOW_PACE_TOLD ? "tasks of as many FLOPs and bytes"
                                               : "its tasks that other stages have, too,",
                    s.pace, beside, s.work);
        return;
    }
    if (isfinite(s.pace))
        rule_evidence(f, "at the machine's ceilings its tasks are %.2f times the mean stage's; for that "
                      "it takes %.2f times as long as the middle stage%s", s.work, s.pace, beside);
    rule_evidence(f, "that all its ranks are slow (B1) is not ruled out: no other stage has tasks as "
                  "large as most of its are. `headway machine --again` there and elsewhere tells, or the "
                  "stage on other hosts");
}

/* Who else is taken for mended. */
static void tell_hidden(const struct finding_edit *e, struct finding *f)
{
    for (int k = 0; k < e->n_mended; k++) {
        struct text names = { 0 };
        struct finding_place p = { .rank = -1, .peer = -1, .stage = -1, .layer = -1,
                                   .first_step = -1, .several = e->mended[k].ranks };
        finding_place_text(&p, &names);
        rule_evidence(f, "%s, of which no stage's others show what they have to do, would take %.0f %% "
                      "of their time: the gain is from there on", names.data, 100 * e->mended[k].takes);
        text_fini(&names);
    }
}

static bool tell_stages(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f, struct arena *a)
{
    const struct slow_groups g = slow_groups_find(m, rules_balance[RULE_B1].limit, a);
    const struct stage_times s = see_stages(m, g.take);
    const bool beside = g.n > 0;
    char slowest[64], split[FINDING_TEXT];
    double M = (double)m->config.micro_batches, P = (double)m->config.pp;
    if (P < 2 || !(s.most > limit[0].value * s.mean))
        return false;
    /* The slow stage alone is busy all the time; the others wait for it in each micro-batch. */
    double lost = (M + P - 1) / M * (s.most - s.mean);
    if (!(lost >= m->theta))
        return false;
    f->place.stage = s.slow;
    split_name(m, s.slow, slowest, sizeof slowest);
    rule_evidence(f, "%s computes for %.1f ms a step, the mean of the pipeline's ranks is %.1f ms%s",
                  slowest, 1e3 * s.most, 1e3 * s.mean,
                  beside ? ", once slow ranks (B1) are mended" : "");
    tell_work(m, s.slow, &g, f);
    rule_reject(f, "B5", "%.0f micro-batches for %.0f stages: the bubble of even stages is "
                         "%.0f %%", M,
                P, 100 * (P - 1) / (M + P - 1));
    rule_edit(f, EDIT_EVEN_STAGES, 1);
    f->edit.stage = -1;
    if (!mend_hidden(m, &g, &f->edit))
        return false;
    tell_hidden(&f->edit, f);
    rule_gain(m, f, lost, lost, 0.25);
    const bool known = P <= COUNT_OF(s.seconds) && split_best(m, s.seconds, split, sizeof split);
    if (known) {
        rule_fix(f, "--layout.stages %s: as even as whole layers can be", split);
        rule_confirm(f, "headway layout show RECIPE --layout.stages %s", split);
        return true;
    }
    rule_fix(f, "--layout.stages with fewer layers for %s", slowest);
    rule_confirm(f, "headway layout show RECIPE");
    rule_look(f, "how the stages divide the layers, and what is left idle; then the same with "
                 "--layout.stages");
    return true;
}

static bool look_stages(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    struct arena a;
    arena_init(&a);
    const bool found = tell_stages(m, limit, f, &a);
    arena_fini(&a);
    return found;
}

/* Where weights' gradients wait until nothing else is left to do, they fill the pipeline's end: of
 * (P - 1) (F + I + W) stages stand empty for (P - 1) (F + I - W) (Qi et al. 2023, ZB-H1). */
static double filled_by_weights(const struct measure *m)
{
    double weights = 0, all = 0;
    for (i64 i = 0; i < m->n_ops; i++) {
        if (m->ops[i].phase == PHASE_UPDATE)
            continue;
        all += m->ops[i].seconds;
        weights += m->ops[i].phase == PHASE_WEIGHT_GRAD ? m->ops[i].seconds : 0;
    }
    return all > 0 ? fmin(1, 2 * weights / all) : 0;
}

/* Twice as many micro-batches on each rank: of half as many rows where these can be halved. Ranks
 * that share out a step's rows take whole micro-batches first (layout_rows_fit), so twice as many
 * in all may leave each with what it had. */
static void fix_bubble(const struct measure *m, struct finding *f)
{
    const struct measure_config *c = &m->config;
    const i64 sharers = i64_max(1, c->islands) * i64_max(1, c->dp);
    const i64 own = i64_max(1, c->micro_batches);
    const i64 rows = i64_max(1, c->batch * c->accumulate / (sharers * own));
    const bool halves = rows % 2 == 0;
    char more[96];
    snprintf(more, sizeof more, "--train.accumulate %lld --train.batch %lld",
             (long long)(2 * own * sharers), (long long)(halves ? rows / 2 : rows));
    if (!c->zero_bubble)
        rule_evidence(f, "--layout.schedule zb-h1 instead would fill about %.1f ms of that with "
                      "gradients of weights", 1e3 * f->lost * filled_by_weights(m));
    rule_fix(f, "%s%s", more, halves ? "" : ": steps of twice the rows, with the bubble of one");
    rule_confirm(f, "headway train RECIPE %s", more);
}

/* Seconds a step, once ranks of a stage are alike and nothing else is waited for; without a ladder
 * what even stages would leave empty. */
static double empty_at_slowest(const struct measure *m, const struct stage_times *s)
{
    const double stages = m->loss[LOSS_STAGE] + m->loss[LOSS_BUBBLE];
    const double even = s->mean * (double)(m->config.pp - 1) / (double)m->config.micro_batches;
    return isfinite(stages) ? fmax(0, s->mean + stages - s->most) : even;
}

static bool look_bubble(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    double M = (double)m->config.micro_batches, P = (double)m->config.pp;
    double lost = m->loss[LOSS_BUBBLE];
    if (P < 2)
        return false;
    const struct stage_times s = see_stages(m, NULL);
    if (!isfinite(lost))
        lost = s.mean * (P - 1) / M;
    if (!(lost >= limit[0].value * m->step.mean) || !(lost >= m->theta))
        return false;
    /* Twice as many, half as long: so is the time in which the slowest stage stands empty. */
    const double gain = 0.5 * fmin(empty_at_slowest(m, &s), 2 * lost);
    rule_evidence(f, "%.0f micro-batches pass through %.0f stages: stages stand empty for "
                     "%.1f ms a "
                  "step, %.0f %%", M, P, 1e3 * lost, 100 * lost / m->step.mean);
    rule_reject(f, "B4", "the slowest stage has %.2f times the mean", s.most / s.mean);
    rule_gain(m, f, lost, gain, 0.15);
    fix_bubble(m, f);
    return true;
}

/* Seconds that a rank computes per step with micro-batches of `times` as many rows: products read
 * their weights less often, and so many tasks fewer begin. */
static double compute_with(const struct measure *m, double times)
{
    double saved = 0, overhead = 0;
    const double rate = rule_memory_rate(m);
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        double by_flops = o->flops / m->ceilings.used;
        double by_bytes = o->bytes / rate;
        if (o->phase == PHASE_UPDATE)
            continue;
        overhead += o->calls * m->ceilings.op_s * (1 - 1 / times);
        if (strncmp(o->name, "linear", 6) == 0 || strncmp(o->name, "expert_linear", 13) == 0)
            saved += o->seconds * (1 - fmax(by_flops, by_bytes / times) / fmax(by_flops, by_bytes));
    }
    return m->compute - saved - (isfinite(overhead) ? overhead : 0);
}

/* The same rows in fewer and larger micro-batches: T(k) = C(k) (1 + (P - 1) k / M). */
static bool look_tiny(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    double M = (double)m->config.micro_batches, P = (double)m->config.pp, best = 0;
    double now = m->compute * (1 + (P - 1) / M);
    i64 times = 1;
    if (P < 2)
        return false;
    for (i64 k = 2; (double)k <= M && k <= (i64)limit[1].value; k *= 2) {
        double gain = now - compute_with(m, (double)k) * (1 + (P - 1) * (double)k / M);
        if (gain > best) {
            best = gain;
            times = k;
        }
    }
    double lost = m->compute - compute_with(m, (double)times);
    if (!(best >= m->theta) || !(m->compute > limit[0].value * (m->compute - lost)))
        return false;
    rule_evidence(f, "a micro-batch of %lld rows computes %.2f times as long per row as one of %lld "
                  "would, by FLOPs and bytes of its products", (long long)m->config.batch,
                  m->compute / (m->compute - lost), (long long)(times * m->config.batch));
    rule_evidence(f, "%.0f micro-batches for %.0f stages: with %.0f the bubble grows from %.0f to "
                  "%.0f %%", M, P, M / (double)times, 100 * (P - 1) / (M + P - 1),
                  100 * (P - 1) / (M / (double)times + P - 1));
    rule_reject(f, "B5", "there are %.1f micro-batches per stage", M / P);
    rule_gain(m, f, lost, best, 0.3);
    const i64 batch = times * m->config.batch;
    const i64 accumulate = i64_max(1, m->config.accumulate / times);
    rule_fix(f, "--train.batch %lld --train.accumulate %lld: micro-batches %lld times larger, as many "
             "times fewer", (long long)batch, (long long)accumulate, (long long)times);
    rule_confirm(f, "headway train RECIPE --train.batch %lld --train.accumulate %lld",
                 (long long)batch, (long long)accumulate);
    return true;
}

/* --- experts ---------------------------------------------------------------------- */

static double expert_seconds(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_ops; i++)
        if (strncmp(m->ops[i].name, "expert_linear", 13) == 0)
            sum += m->ops[i].seconds;
    return sum;
}

static bool look_experts(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    double worst = 0, sum = 0;
    for (i64 i = 0; i < m->n_experts; i++) {
        sum += m->experts[i].worst / (double)m->n_experts;
        if (m->experts[i].worst > worst) {
            worst = m->experts[i].worst;
            f->place.layer = m->experts[i].layer;
        }
    }
    double lost = expert_seconds(m) * (1 - 1 / sum);
    if (m->config.ep < 2 || !(sum > limit[0].value) || !(lost >= m->theta))
        return false;
    rule_evidence(f, "the fullest expert gets %.2f times the mean (layer %d: %.2f)", sum,
                  f->place.layer, worst);
    rule_evidence(f, "products of experts take %.1f ms a step", 1e3 * expert_seconds(m));
    rule_gain(m, f, lost, lost, 0.35);
    rule_fix(f, "more balance: the model's balance_rate or aux loss (model.override), or "
                "fewer ranks "
                "along ep");
    rule_confirm(f, "headway train RECIPE --log.every 1");
    rule_look(f, "expert_imbalance in its metrics.jsonl");
    return true;
}

const struct rule rules_balance[] = {
    [RULE_B2] = { "B2", "a rank became slow", look_onset,
      { { 5, "sigma between the levels", "CUSUM's usual threshold: once in 10^4 steps by chance" },
        { 0.05, "of the step", "smaller episodes are weather" },
        { 0.8, "correlation of computing with the rows' work", "as D6: it is what the rows ask for" } } },
    [RULE_B1] = { "B1", "one rank is always slow", look_slow_rank,
      { { 0.8, "share of steps in which it is the slowest", "of equal ranks none is it so often" },
        { 4, "standard errors above its peers", "one in 10^4 by chance" },
        { 0.2, "less often last to exchanges than slowest, or less of the waiting for it",
          "some stand before its slow tasks" },
        { 1.05, "times as long as other stages take for such work",
          "equal stages repeat within 3 %" } } },
    { "B3", "ranks are slow by turns", look_jitter,
      { { 0.8, "share of steps in which one rank is the slowest", "more: it is that rank (B1)" },
        { 0.5, "of the loss that one rank explains", "more: it is that rank (B1)" },
        { 0.25, "of its mean that the spread of ranks has in half of the steps",
          "noise in every task has it; less: a few steps were disturbed" },
        { 0.02, "of the step", "less is not worth a person's time" },
        { 3, "standard errors of the spread", "none within is told from chance" },
        { 0.03, "of their time that parts of a step vary by, where their times are given",
          "tasks that sleep repeat within 2 %" },
        { 0.3, "correlation of compute time and work", "as D6" },
        { 4, "standard errors of a correlation by chance", "as D6" },
        { 0.005, "of their time that parts of a step vary by, on a computed clock",
          "there they repeat to a nanosecond" } } },
    { "B4", "stages of unequal length", look_stages,
      { { 1.05, "times the mean of the stages", "equal stages repeat within 3 %" } } },
    { "B5", "too few micro-batches for the pipeline", look_bubble,
      { { 0.1, "of the step", "a tenth is what good schedules leave" } } },
    { "B6", "micro-batches are smaller than the pipeline needs", look_tiny,
      { { 1.1, "times the time per row of larger ones", "below it the curve is flat" },
        { 16, "times larger at most", "beyond, activations are what decides" } } },
    { "B7", "experts of unequal load", look_experts,
      { { 1.2, "times the mean load", "a balanced router stays below" } } },
    { .id = "" },
};

const struct rule rules_beside[] = {
    { "B1", "another rank is always slow", look_second_group, { { 0, NULL, NULL } } },
    { "B1", "another rank is always slow", look_third_group, { { 0, NULL, NULL } } },
    { "B2", "another rank became slow", look_onset_beside, { { 0, NULL, NULL } } },
    { .id = "" },
};
