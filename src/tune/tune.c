#include "tune/tune.h"

#include "base/err.h"
#include "base/sys.h"
#include "tune/choose.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_STEPS = 256,   /* of a trial */
    LEAST_STEPS = 4,
    ROUNDS = 8,         /* at most: who is within the noise then stays so */
    TOGETHER_ROUNDS = 6,
    LEAST_ROUNDS = 2,   /* there and back: nobody is judged by fewer */
    LEAST_PROOF = 3, PROOF_ROUNDS = ROUNDS_MOST,
    PROOFS = 3,         /* the best, and who is next when that was chance */
    MOST_COMBINED = 3
};
const double tune_least_gain = 0.01;
/* Seconds of steps in one trial, if the budget has that many of them; its start may take
 * as long. */
static const double trial_s = 3, trials_in_budget = 40;
/* Who takes this many times as long takes fewer steps from then on. */
static const double long_trial = 2;

struct tuner {
    const struct tune_request *r;
    struct tune_outcome *out;
    struct arena *arena;
    struct tune_measure measure;
    double spent;         /* seconds in trials */
    double trial_seconds; /* that one trial takes, start included: the newest of the recipe, or the
                           * longest of the changes since */
    bool time_up;         /* a trial was not begun, or ended with the budget */
    double floor;         /* of a round's noise, by what steps of one run differ by */
    struct rounds rounds[TUNE_ROWS];
    struct rounds recipe; /* logarithms of what it cost, the newest last */
    struct timing_result was; /* the recipe's newest run */
    double was_at;        /* `spent` in the middle of it */
};

/* --- numbers ------------------------------------------------------------------------- */

/* Of the first MOST_STEPS at most. */
static double median(const double *x, i64 n)
{
    double copy[MOST_STEPS];
    n = i64_min(n, MOST_STEPS);
    if (n > 0)
        memcpy(copy, x, (size_t)n * sizeof *copy);
    return rounds_median(copy, n);
}

static double mean_loss(const struct timing_result *t)
{
    double sum = 0;
    i64 n = i64_max(1, t->steps / 4);
    for (i64 i = t->steps - n; i < t->steps; i++)
        sum += t->loss[i] / (double)n;
    return sum;
}

/* Steps until the mean of a few losses is down to the target; NaN: it never is. */
static double steps_to(const struct timing_result *t, double target)
{
    const i64 n = i64_max(1, t->steps / 4);
    for (i64 end = n; end <= t->steps; end++) {
        double sum = 0;
        for (i64 i = end - n; i < end; i++)
            sum += t->loss[i] / (double)n;
        if (sum <= target)
            return (double)end;
    }
    return NAN;
}

/* A step of the run. */
static double step_of(const struct timing_result *t, bool mean)
{
    enum { MOST_MEDIANS = 3 };
    const double middle = median(t->step_s, t->steps);
    double sum = 0;
    for (i64 i = 0; i < t->steps; i++)
        sum += fmin(t->step_s[i], MOST_MEDIANS * middle) / (double)t->steps;
    return mean ? sum : middle;
}

double tune_ratio(const struct tune_measure *m, const struct timing_result *change,
                  const struct timing_result *recipe)
{
    const double step = step_of(change, m->mean) / change->tokens;
    const double was = step_of(recipe, m->mean) / recipe->tokens;
    if (m->objective == TUNE_SPEED)
        return step / was;
    if (m->objective == TUNE_ENERGY)
        return recipe->joules_per_token > 0 && change->joules_per_token > 0
                   ? change->joules_per_token / recipe->joules_per_token : NAN;
    const double target = mean_loss(recipe); /* which other numbers may miss by a hair */
    return step * steps_to(change, target + m->loss_tolerance * fabs(target)) /
           (was * steps_to(recipe, target));
}

/* What the recipe costs, per token. */
static double cost_of(const struct tune_measure *m, const struct timing_result *recipe)
{
    return m->objective == TUNE_ENERGY ? recipe->joules_per_token
                                       : step_of(recipe, m->mean) / recipe->tokens;
}

/* Standard error of the median step of a run, as a share of it. */
static double noise_within(const struct timing_result *t)
{
    const double step = median(t->step_s, t->steps);
    double spread[MOST_STEPS];
    const i64 n = i64_min(t->steps, MOST_STEPS);
    for (i64 i = 0; i < n; i++)
        spread[i] = fabs(t->step_s[i] - step);
    return 1.4826 * median(spread, n) / sqrt((double)n) / step;
}

/* --- judging ------------------------------------------------------------------------- */

static struct rounds_noise noise_of(const struct tuner *t)
{
    return rounds_noise(t->rounds, t->out->n, &t->recipe, t->floor);
}

static struct rounds_gain judge(const struct tuner *t, int row)
{
    const struct rounds_noise noise = noise_of(t);
    return rounds_judge(&t->rounds[row], &noise, tune_least_gain);
}

/* Logarithms become shares of what is saved. What is lost at worst is more than what is saved at
 * best: the bar is the way to the former. */
static double share_saved(double x)
{
    return 1 - exp(-x);
}

static double bar_saved(const struct rounds_gain *g)
{
    return share_saved(g->middle) - share_saved(g->middle - g->bar);
}

static void sum_up(struct tuner *t)
{
    for (int i = 0; i < t->out->n; i++) {
        struct tune_row *row = &t->out->rows[i];
        const struct rounds_gain g = judge(t, i);
        row->rounds = t->rounds[i].n;
        row->verdict = g.verdict;
        row->gain = share_saved(g.middle);
        row->error = g.error * exp(-g.middle);
        row->bar = bar_saved(&g);
    }
    t->out->noise = noise_of(t).sigma;
    t->out->seconds = t->spent;
}

static bool is_faster(const struct tune_row *row)
{
    return row->fate == FATE_TRIED && row->verdict == VERDICT_FASTER && row->gain > tune_least_gain;
}

/* Of those before `end`; -1: none. */
static int best_row(const struct tune_outcome *out, int end)
{
    int best = -1;
    for (int i = 0; i < end; i++)
        if (is_faster(&out->rows[i]) && (best < 0 || out->rows[i].gain > out->rows[best].gain))
            best = i;
    return best;
}

/* Whether more rounds may change what is said of the row: it is not told apart from the recipe, or
 * not from the best. */
static bool is_open(const struct tuner *t, int row, int best)
{
    if (t->out->rows[row].fate != FATE_TRIED)
        return false;
    const struct rounds_gain g = judge(t, row);
    if (g.verdict == VERDICT_NONE)
        return true;
    if (g.verdict == VERDICT_SLOWER || g.verdict == VERDICT_EVEN)
        return false;
    if (best < 0 || best == row)
        return g.verdict == VERDICT_NOISE;
    const struct rounds_gain b = judge(t, best);
    return !rounds_ahead(&b, &g) && g.bar > tune_least_gain;
}

/* Fills list with those that are open. The best goes on beside those that are not told apart
 * from it. */
static int list_open(struct tuner *t, const int *rows, int n, int *list)
{
    int left = 0;
    bool there = false;
    sum_up(t);
    const int best = best_row(t->out, t->out->n);
    for (int k = 0; k < n; k++)
        if (is_open(t, rows[k], best)) {
            list[left++] = rows[k];
            there = there || rows[k] == best;
        }
    for (int k = 0; k < n && left > 0 && !there; k++)
        if (rows[k] == best && t->rounds[best].n < ROUNDS_MOST)
            list[left++] = best;
    return left;
}

/* --- trials -------------------------------------------------------------------------- */

/* Seconds of the budget. */
static double used(const struct tuner *t)
{
    return t->r->began_ns ? 1e-9 * (double)(sys_now_ns() - t->r->began_ns) : t->spent;
}

static bool time_left(const struct tuner *t, double trials)
{
    return !t->time_up && used(t) + trials * t->trial_seconds < t->r->budget_s;
}

/* ERR_LIMIT: it did not end within the budget. */
static int run_one(struct tuner *t, const struct tune_change *c, i64 steps,
                   struct timing_result *out)
{
    const struct tune_request *r = t->r;
    struct timing_base base = r->base;
    base.patience_s = r->budget_s - used(t);
    if (r->tell)
        r->tell(r->context, fmin(1, used(t) / r->budget_s),
                c ? c->label : "the recipe as it is");
    if (r->stop && r->stop(r->context))
        return err_set(ERR_STOPPED, "stopped by a signal; nothing was changed");
    const u64 begin = sys_now_ns();
    if (r->trial)
        return r->trial(r->context, out, c, steps, t->arena);
    int rc = timing_run(out, &base, c, steps, t->arena);
    sys_remove_tree(out->run);
    out->seconds = 1e-9 * (double)(sys_now_ns() - begin);
    return rc;
}

/* The recipe as it is, at one end of a round. */
static int run_recipe(struct tuner *t)
{
    struct timing_result now = { .steps = 0 };
    const int rc = run_one(t, NULL, t->out->steps, &now);
    t->time_up |= rc == ERR_LIMIT;
    if (rc < 0)
        return rc == ERR_LIMIT ? OK : rc;
    if (t->recipe.n == ROUNDS_MOST) { /* the oldest goes */
        memmove(t->recipe.x, t->recipe.x + 1, (ROUNDS_MOST - 1) * sizeof *t->recipe.x);
        t->recipe.n--;
    }
    t->recipe.x[t->recipe.n++] = log(cost_of(&t->measure, &now));
    t->was = now;
    t->was_at = t->spent + now.seconds / 2;
    t->trial_seconds = now.seconds;
    t->spent += now.seconds;
    return OK;
}

/* False when the change is out. */
static bool judge_loss(const struct tuner *t, struct tune_row *row,
                       const struct timing_result *now)
{
    if (!row->change.numbers)
        return true;
    row->loss_change = mean_loss(now) / mean_loss(&t->was) - 1;
    if (row->loss_change <= t->r->loss_tolerance)
        return true;
    row->fate = FATE_LOSS;
    snprintf(row->why, sizeof row->why, "its loss is %.2f %% higher after %lld steps",
             100 * row->loss_change, (long long)now->steps);
    return false;
}

/* One round's trial of a change. */
struct trial {
    double x;  /* logarithm of what the recipe cost before it, over what it costs */
    double at; /* `spent` in the middle of it */
    bool done;
};

/* As many steps as the recipe's trials, or fewer where these take much longer: only where it is
 * time alone that is compared. */
static i64 steps_for(const struct tuner *t, int row)
{
    const struct rounds *r = &t->rounds[row];
    if (r->n == 0 || t->r->objective == TUNE_LOSS || t->out->rows[row].change.numbers)
        return t->out->steps;
    const double times = exp(-r->x[r->n - 1]);
    return times < long_trial ? t->out->steps
                              : i64_max(LEAST_STEPS, (i64)((double)t->out->steps / times));
}

static int try_row(struct tuner *t, int i, struct trial *trial)
{
    struct tune_row *row = &t->out->rows[i];
    struct timing_result now = { .steps = 0 };
    int rc = run_one(t, &row->change, steps_for(t, i), &now);
    trial->at = t->spent + now.seconds / 2;
    t->spent += now.seconds;
    t->trial_seconds = fmax(t->trial_seconds, now.seconds);
    t->time_up |= rc == ERR_LIMIT;
    if (rc == ERR_STOPPED || rc == ERR_LIMIT)
        return rc == ERR_STOPPED ? rc : OK;
    if (rc < 0) {
        row->fate = FATE_FAILED;
        snprintf(row->why, sizeof row->why, "%s", err_message());
        return OK;
    }
    if (!judge_loss(t, row, &now))
        return OK;
    const double ratio = tune_ratio(&t->measure, &now, &t->was);
    if (!(ratio > 0)) {
        row->fate = FATE_FAILED;
        snprintf(row->why, sizeof row->why, "%s", t->r->objective == TUNE_ENERGY
                 ? "its energy is not known" : "it did not come down to the recipe's loss");
        return OK;
    }
    trial->x = -log(ratio);
    trial->done = true;
    return OK;
}

/* The recipe's cost in between is taken to be on the way from one run to the next. */
static void add_round(struct tuner *t, const int *list, int n, const struct trial *trials,
                      double was, double was_at)
{
    const double later = t->recipe.x[t->recipe.n - 1] - was;
    for (int k = 0; k < n; k++) {
        struct rounds *r = &t->rounds[list[k]];
        if (trials[k].done && r->n < ROUNDS_MOST)
            r->x[r->n++] = trials[k].x + later * (trials[k].at - was_at) / (t->was_at - was_at);
    }
}

/* The rows in list, forwards or backwards, as many as there is time for, and the recipe behind them
 * (else they say nothing); before them it ran as the end of the round before. */
static int one_round(struct tuner *t, const int *list, int n, bool backwards)
{
    struct trial trials[TUNE_ROWS] = { { 0 } };
    if (t->recipe.n == 0 && time_left(t, 3))
        TRY(run_recipe(t));
    if (t->recipe.n == 0) {
        t->time_up = true;
        return OK;
    }
    const double was = t->recipe.x[t->recipe.n - 1], was_at = t->was_at;
    for (int k = 0; k < n && time_left(t, 2); k++) {
        const int at = backwards ? n - 1 - k : k;
        TRY(try_row(t, list[at], &trials[at]));
    }
    t->time_up |= !time_left(t, 1);
    if (!t->time_up)
        TRY(run_recipe(t));
    if (!t->time_up)
        add_round(t, list, n, trials, was, was_at);
    return OK;
}

/* Trials that are kept for what follows: a proof of the least length. */
enum { KEPT_TRIALS = 2 * LEAST_PROOF };

/* Rounds over these rows until they are told apart or the time is up: all of it while nobody is
 * faster, since there is nothing to be proven. */
static int run_rounds(struct tuner *t, const int *rows, int n, int most)
{
    int list[TUNE_ROWS];
    for (int round = 0; round < most; round++) {
        const int left = list_open(t, rows, n, list);
        const int kept = best_row(t->out, t->out->n) < 0 ? 0 : KEPT_TRIALS;
        if (left == 0 || t->time_up ||
            (round >= LEAST_ROUNDS && !time_left(t, left + 1 + kept)))
            break;
        TRY(one_round(t, list, left, round % 2));
    }
    sum_up(t);
    return OK;
}

/* Who is tried is tried there and back: the least promising are not, where that does not fit. */
static void leave_what_is_late(struct tuner *t)
{
    struct tune_outcome *out = t->out;
    i64 n = 0;
    for (int i = 0; i < out->n; i++)
        n += out->rows[i].fate == FATE_TRIED;
    for (; n > 1 && !time_left(t, (double)(LEAST_ROUNDS * (n + 1) + 1 + KEPT_TRIALS)); n--) {
        int worst = -1;
        for (int i = 0; i < out->n; i++)
            if (out->rows[i].fate == FATE_TRIED &&
                (worst < 0 || !(out->rows[i].predicted > out->rows[worst].predicted)))
                worst = i;
        out->rows[worst].fate = FATE_LATE;
        snprintf(out->rows[worst].why, sizeof out->rows[worst].why,
                 "there is no time for two rounds of it (--budget)");
    }
}

/* --- together ------------------------------------------------------------------------ */

static bool joins(struct tune_change *c, const struct tune_change *with)
{
    if (c->n_sets + with->n_sets > CHANGE_SETS || (c->backend && with->backend))
        return false;
    for (int i = 0; i < with->n_sets; i++)
        c->sets[c->n_sets++] = with->sets[i];
    c->backend = c->backend ? c->backend : with->backend;
    c->numbers = c->numbers || with->numbers;
    return true;
}

static bool is_used(const char *const *used, int n, const char *knob)
{
    for (int i = 0; i < n; i++)
        if (strcmp(used[i], knob) == 0)
            return true;
    return false;
}

/* A row of the best changes of up to three knobs; -1 where there is only one. */
static int combine(struct tuner *t)
{
    struct tune_outcome *out = t->out;
    struct tune_row row = { .predicted = NAN, .gain = NAN, .error = NAN, .bar = NAN };
    const char *used[MOST_COMBINED];
    double left = 1;
    int parts = 0;
    for (; parts < MOST_COMBINED && out->n < TUNE_ROWS; parts++) {
        int best = -1;
        for (int i = 0; i < out->n; i++)
            if (is_faster(&out->rows[i]) && !is_used(used, parts, out->rows[i].change.knob) &&
                (best < 0 || out->rows[i].gain > out->rows[best].gain))
                best = i;
        if (best < 0 || !joins(&row.change, &out->rows[best].change))
            break;
        used[parts] = out->rows[best].change.knob;
        left *= 1 - out->rows[best].gain;
        row.change.label = parts == 0 ? out->rows[best].change.label
            : arena_printf(t->arena, "%s, %s", row.change.label, out->rows[best].change.label);
    }
    if (parts < 2)
        return -1;
    row.change.knob = "together";
    row.predicted = 1 - left;
    out->rows[out->n] = row;
    return out->n++;
}

/* The best alone, or the row in which several are together: more settings must give more, beyond
 * the noise. */
static int choose_winner(const struct tuner *t, int together)
{
    const struct tune_outcome *out = t->out;
    const int alone = best_row(out, together < 0 ? out->n : together);
    if (together < 0 || !is_faster(&out->rows[together]))
        return alone;
    if (alone < 0)
        return together;
    const struct rounds_gain x = judge(t, alone), y = judge(t, together);
    return y.middle - x.middle > 2 * hypot(x.error, y.error) ? together : alone;
}

/* --- the proof ----------------------------------------------------------------------- */

/* The change and the recipe in turn, in processes that no choice has depended on; what the noise is
 * all rounds say. */
static int prove(struct tuner *t, int row, struct rounds_gain *g)
{
    const struct rounds before = t->rounds[row];
    const struct rounds_noise noise = noise_of(t);
    int rc = OK;
    t->rounds[row].n = 0;
    while (t->rounds[row].n < PROOF_ROUNDS && time_left(t, 2)) {
        rc = one_round(t, &row, 1, false);
        if (rc < 0 || t->out->rows[row].fate != FATE_TRIED)
            break;
        *g = rounds_judge(&t->rounds[row], &noise, tune_least_gain);
        if (t->rounds[row].n >= LEAST_PROOF &&
            (g->verdict != VERDICT_NOISE || !time_left(t, 2)))
            break;
    }
    t->out->proven_rounds = t->rounds[row].n;
    t->rounds[row] = before;
    return rc;
}

/* Whether the row's gain is there again. */
static int try_proof(struct tuner *t, int row, bool *proven)
{
    struct tune_outcome *out = t->out;
    struct rounds_gain g = { NAN, NAN, NAN, VERDICT_NONE };
    TRY(prove(t, row, &g));
    out->proofs++;
    out->proven = share_saved(g.middle);
    out->proven_error = g.error * exp(-g.middle);
    out->proven_bar = bar_saved(&g);
    out->proven_verdict = g.verdict;
    out->late = out->proven_rounds < LEAST_PROOF && out->rows[row].fate == FATE_TRIED;
    *proven = !out->late && g.verdict == VERDICT_FASTER && out->proven > tune_least_gain;
    if (out->late) {
        out->rows[row].fate = FATE_UNPROVEN;
        snprintf(out->rows[row].why, sizeof out->rows[row].why, "the time was up (--budget)");
    }
    if (!*proven && out->rows[row].fate == FATE_TRIED) {
        out->rows[row].fate = FATE_UNPROVEN;
        snprintf(out->rows[row].why, sizeof out->rows[row].why,
                 "%s%+.1f %% +- %.1f when it ran again",
                 g.verdict == VERDICT_NOISE ? "too noisy to tell, " : "", 100 * out->proven,
                 100 * out->proven_bar);
    }
    return OK;
}

/* --- all of it ----------------------------------------------------------------------- */

static void measure_base(struct tuner *t, const struct timing_result *first)
{
    struct tune_outcome *out = t->out;
    const double step = median(first->step_s, first->steps);
    out->base_step_s = step;
    out->base_tokens_per_s = first->tokens / step;
    out->base_joules_per_token = first->joules_per_token;
    const double length = fmin(trial_s, t->r->budget_s / trials_in_budget);
    out->steps = i64_max(LEAST_STEPS, i64_min(MOST_STEPS, (i64)(length / step) + 1));
    t->floor = noise_within(first) * sqrt(2 * (double)first->steps / (double)out->steps);
    const double began = fmax(0, first->seconds - step * (double)first->steps);
    t->trial_seconds = began + step * (double)out->steps;
}

static bool waits_are_tried(const struct tune_outcome *out)
{
    for (int i = 0; i < out->n; i++)
        if (out->rows[i].fate == FATE_TRIED && strcmp(out->rows[i].change.knob, "prefetch") == 0)
            return true;
    return false;
}

static int tune_all(struct tuner *t)
{
    struct tune_outcome *out = t->out;
    int list[TUNE_ROWS], n = 0;
    bool proven = false;
    for (int i = 0; i < out->n; i++)
        list[n++] = i;
    TRY(run_rounds(t, list, n, ROUNDS));
    const int together = combine(t);
    if (together >= 0 && time_left(t, 2 * LEAST_ROUNDS + KEPT_TRIALS))
        TRY(run_rounds(t, &together, 1, TOGETHER_ROUNDS));
    while (out->proofs < PROOFS && (out->proofs == 0 || time_left(t, KEPT_TRIALS))) {
        const int best = choose_winner(t, together);
        if (best < 0)
            break;
        TRY(try_proof(t, best, &proven));
        out->winner = proven ? best : -1;
        if (proven)
            break;
    }
    return OK;
}

int tune_run(struct tune_outcome *out, const struct tune_request *r,
             const struct timing_result *first, struct arena *a)
{
    struct tuner *t = ARENA_NEW(a, struct tuner);
    *out = (struct tune_outcome){ .winner = -1, .noise = NAN, .proven = NAN, .proven_error = NAN,
                                  .proven_bar = NAN };
    *t = (struct tuner){ .r = r, .out = out, .arena = a };
    measure_base(t, first);
    choose_changes(out, r, a);
    leave_what_is_late(t);
    t->measure = (struct tune_measure){ r->objective, r->loss_tolerance, waits_are_tried(out) };
    out->by_mean = t->measure.mean;
    int rc = tune_all(t);
    out->seconds = t->spent;
    out->stopped = rc < 0;
    if (rc < 0) {
        sum_up(t);
        out->winner = -1;
    }
    return rc;
}
