#include "tune/tune.h"

#include "base/err.h"
#include "base/sys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_STEPS = 256, /* of a trial */
    ROUNDS = 5, LEAST_ROUNDS = 3, PROOF_ROUNDS = 5,
    MOST_HEEDED = 3, /* knobs, when a diagnosis speaks for any */
    MOST_COMBINED = 3
};
/* A forecast this far below the recipe's own speed is believed: beyond what forecasts err by. */
static const double hopeless = -0.10;
/* Who is this far behind in the first round is out, whatever the noise; later it takes two standard
 * errors. */
static const double behind = -0.25;
static const double least_gain = 0.01;
/* Seconds of steps in one trial, if the budget has that many of them; its start may take
 * as long. */
static const double trial_s = 3, trials_in_budget = 40;

struct tuner {
    const struct tune_request *r;
    struct tune_outcome *out;
    struct arena *arena;
    u64 begin;
    double trial_seconds; /* that one trial takes, start included */
    double ratios[TUNE_ROWS][ROUNDS + PROOF_ROUNDS];
};

/* --- numbers ------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the first MOST_STEPS at most. */
static double median(const double *x, i64 n)
{
    double copy[MOST_STEPS];
    if (n < 1)
        return NAN;
    n = i64_min(n, MOST_STEPS);
    memcpy(copy, x, (size_t)n * sizeof *copy);
    qsort(copy, (size_t)n, sizeof *copy, by_value);
    return n % 2 ? copy[n / 2] : (copy[n / 2 - 1] + copy[n / 2]) / 2;
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

double tune_ratio(enum tune_objective o, double loss_tolerance,
                  const struct timing_result *change, const struct timing_result *recipe)
{
    const double step = median(change->step_s, change->steps) / change->tokens;
    const double was = median(recipe->step_s, recipe->steps) / recipe->tokens;
    if (o == TUNE_SPEED)
        return step / was;
    if (o == TUNE_ENERGY)
        return recipe->joules_per_token > 0 && change->joules_per_token > 0
                   ? change->joules_per_token / recipe->joules_per_token : NAN;
    const double target = mean_loss(recipe); /* which other numbers may miss by a hair */
    return step * steps_to(change, target + loss_tolerance * fabs(target)) /
           (was * steps_to(recipe, target));
}

/* Mean and standard error of gains = 1 - ratio. */
static void sum_up(struct tune_row *row, const double *ratios, i64 n)
{
    double mean = 0, spread = 0;
    for (i64 i = 0; i < n; i++)
        mean += ratios[i] / (double)n;
    for (i64 i = 0; i < n; i++)
        spread += (ratios[i] - mean) * (ratios[i] - mean);
    row->rounds = n;
    row->gain = n > 0 ? 1 - mean : NAN;
    row->error = n > 1 ? sqrt(spread / (double)(n - 1) / (double)n) : NAN;
}

/* --- what is tried ------------------------------------------------------------------- */

static bool asked_for(const char *only, const char *knob)
{
    const size_t n = strlen(knob);
    for (const char *at = only; at && (at = strstr(at, knob)) != NULL; at++)
        if ((at == only || at[-1] == ',' || at[-1] == ' ') &&
            (at[n] == ',' || at[n] == ' ' || at[n] == '\0'))
            return true;
    return only == NULL;
}

/* Of the hints, the largest gain that speaks for the knob; 0: none. */
static double hint_for(const struct tune_request *r, const struct knob *k)
{
    double most = 0;
    for (int i = 0; i < r->n_hints; i++)
        if (knob_heeds(k, r->hints[i].id))
            most = fmax(most, r->hints[i].gain);
    return most;
}

/* Marks the knobs whose changes are looked at: those that the diagnosis speaks for, the strongest
 * three, or all when it speaks for none. */
static void choose_knobs(const struct tune_request *r, bool *chosen)
{
    int n = 0;
    for (; knobs[n].name; n++)
        chosen[n] = false;
    for (int k = 0; k < MOST_HEEDED; k++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!chosen[i] && asked_for(r->only, knobs[i].name) && hint_for(r, &knobs[i]) > 0 &&
                (best < 0 || hint_for(r, &knobs[i]) > hint_for(r, &knobs[best])))
                best = i;
        if (best >= 0)
            chosen[best] = true;
    }
    for (int i = 0; i < n; i++)
        if (chosen[i])
            return;
    for (int i = 0; i < n; i++)
        chosen[i] = asked_for(r->only, knobs[i].name);
}

static void list_changes(struct tuner *t)
{
    bool chosen[64];
    struct change_list list = { .arena = t->arena };
    choose_knobs(t->r, chosen);
    for (int i = 0; knobs[i].name; i++)
        if (chosen[i])
            knobs[i].propose(&t->r->view, &list);
    for (int i = 0; i < list.n && t->out->n < CHANGES_MOST; i++)
        t->out->rows[t->out->n++] = (struct tune_row){
            .change = list.at[i], .predicted = NAN, .gain = NAN, .error = NAN };
}

/* Kernels are priced alike, whatever their set: nothing is foretold of them. Nor of loaders. */
static bool foretold(const struct tune_change *c)
{
    return !c->backend && strcmp(c->knob, "prefetch") != 0;
}

static void forecast_rows(struct tuner *t)
{
    const struct tune_request *r = t->r;
    struct forecast was, now;
    bool known = forecast_step(&was, &r->base, NULL, r->machine, &r->view) >= 0;
    for (int i = 0; i < t->out->n; i++) {
        struct tune_row *row = &t->out->rows[i];
        if (forecast_step(&now, &r->base, &row->change, r->machine, &r->view) < 0) {
            row->fate = FATE_IMPOSSIBLE;
            snprintf(row->why, sizeof row->why, "%s", err_message());
            continue;
        }
        if (!known || !foretold(&row->change))
            continue;
        row->predicted = 1 - now.seconds / was.seconds;
        if (row->predicted < hopeless) {
            row->fate = FATE_PRUNED;
            snprintf(row->why, sizeof row->why, "the forecast is %.0f %% slower",
                     -100 * row->predicted);
        }
    }
}

/* Of those that may be tried only the most promising are. */
static void keep_best(struct tuner *t)
{
    i64 n = 0;
    for (int i = 0; i < t->out->n; i++)
        n += t->out->rows[i].fate == FATE_TRIED;
    for (; n > t->r->most_trials; n--) {
        int worst = -1;
        for (int i = 0; i < t->out->n; i++) {
            struct tune_row *row = &t->out->rows[i];
            const double p = isnan(row->predicted) ? 0 : row->predicted;
            if (row->fate == FATE_TRIED &&
                (worst < 0 || p <= (isnan(t->out->rows[worst].predicted)
                                        ? 0 : t->out->rows[worst].predicted)))
                worst = i;
        }
        t->out->rows[worst].fate = FATE_PRUNED;
        snprintf(t->out->rows[worst].why, sizeof t->out->rows[worst].why,
                 "others promise more (--trials %lld)", (long long)t->r->most_trials);
    }
}

/* --- rounds -------------------------------------------------------------------------- */

static double spent(const struct tuner *t)
{
    return 1e-9 * (double)(sys_now_ns() - t->begin);
}

static bool time_left(const struct tuner *t, double trials)
{
    return spent(t) + trials * t->trial_seconds < t->r->budget_s;
}

static bool stopped(const struct tuner *t)
{
    return t->r->stop && t->r->stop(t->r->context);
}

static int run_one(struct tuner *t, const struct tune_change *c, struct timing_result *out)
{
    if (t->r->tell)
        t->r->tell(t->r->context, fmin(1, spent(t) / t->r->budget_s),
                   c ? c->label : "the recipe as it is");
    if (stopped(t))
        return err_set(ERR_STOPPED, "stopped by a signal; nothing was changed");
    int rc = timing_run(out, &t->r->base, c, t->out->steps, t->arena);
    sys_remove_tree(out->run);
    if (rc >= 0)
        t->trial_seconds = fmax(t->trial_seconds, out->seconds);
    return rc;
}

/* False when the change is out. */
static bool judge_loss(const struct tuner *t, struct tune_row *row,
                       const struct timing_result *now, const struct timing_result *was)
{
    if (!row->change.numbers)
        return true;
    row->loss_change = mean_loss(now) / mean_loss(was) - 1;
    if (row->loss_change <= t->r->loss_tolerance)
        return true;
    row->fate = FATE_LOSS;
    snprintf(row->why, sizeof row->why, "its loss is %.2f %% higher after %lld steps",
             100 * row->loss_change, (long long)now->steps);
    return false;
}

static int try_row(struct tuner *t, int i, const struct timing_result *was, double *ratios)
{
    struct tune_row *row = &t->out->rows[i];
    struct timing_result now;
    int rc = run_one(t, &row->change, &now);
    if (rc == ERR_STOPPED)
        return rc;
    if (rc < 0) {
        row->fate = FATE_FAILED;
        snprintf(row->why, sizeof row->why, "%s", err_message());
        return OK;
    }
    if (!judge_loss(t, row, &now, was))
        return OK;
    double ratio = tune_ratio(t->r->objective, t->r->loss_tolerance, &now, was);
    if (isnan(ratio)) {
        row->fate = FATE_FAILED;
        snprintf(row->why, sizeof row->why, t->r->objective == TUNE_ENERGY
                 ? "its energy is not known" : "it did not come down to the recipe's loss");
        return OK;
    }
    ratios[row->rounds++] = ratio;
    return OK;
}

/* The recipe, then every row in list that is still in; ratios go to t->ratios. */
static int one_round(struct tuner *t, const int *list, int n)
{
    struct timing_result was;
    TRY(run_one(t, NULL, &was));
    for (int k = 0; k < n; k++) {
        struct tune_row *row = &t->out->rows[list[k]];
        if (row->rounds == 0 && !time_left(t, 1)) {
            row->fate = FATE_LATE;
            snprintf(row->why, sizeof row->why, "the time was up (--budget)");
        }
        if (row->fate == FATE_TRIED)
            TRY(try_row(t, list[k], &was, t->ratios[list[k]]));
    }
    return OK;
}

static bool is_behind(const struct tune_row *row, const double *ratios)
{
    struct tune_row now = *row;
    sum_up(&now, ratios, row->rounds);
    double error = isnan(now.error) ? 0 : now.error;
    return row->rounds >= 1 && now.gain + 2 * error < (row->rounds >= 2 ? 0 : behind);
}

/* Rounds over these rows until they are told apart or the time is up. */
static int run_rounds(struct tuner *t, const int *list, int n, i64 rounds)
{
    bool in[TUNE_ROWS] = { false };
    int left = 0, order[TUNE_ROWS];
    for (int k = 0; k < n; k++)
        in[list[k]] = t->out->rows[list[k]].fate == FATE_TRIED;
    for (i64 round = 0; round < rounds; round++) {
        left = 0;
        for (int k = 0; k < n; k++)
            if (in[list[k]] && t->out->rows[list[k]].fate == FATE_TRIED)
                order[left++] = list[k];
        if (left == 0 || (round >= LEAST_ROUNDS && !time_left(t, left + 1)))
            break;
        TRY(one_round(t, order, left));
        for (int k = 0; k < left; k++)
            if (is_behind(&t->out->rows[order[k]], t->ratios[order[k]]))
                in[order[k]] = false;
    }
    for (int k = 0; k < n; k++) {
        struct tune_row *row = &t->out->rows[list[k]];
        if (row->rounds > 0)
            sum_up(row, t->ratios[list[k]], row->rounds);
    }
    return OK;
}

static bool is_better(const struct tune_row *row)
{
    return row->fate == FATE_TRIED && row->rounds >= 2 &&
           row->gain > fmax(least_gain, 2 * row->error);
}

/* Of those before `end`. */
static int best_row(const struct tune_outcome *out, int end)
{
    int best = -1;
    for (int i = 0; i < end; i++)
        if (is_better(&out->rows[i]) && (best < 0 || out->rows[i].gain > out->rows[best].gain))
            best = i;
    return best;
}

/* The best alone, or the last row, in which several are together: more settings must give
 * more, beyond the noise. */
static int choose_winner(const struct tune_outcome *out, int together)
{
    int alone = best_row(out, together < 0 ? out->n : together);
    if (together < 0 || alone < 0 || !is_better(&out->rows[together]))
        return alone;
    const struct tune_row *x = &out->rows[alone], *y = &out->rows[together];
    return y->gain - x->gain > 2 * hypot(x->error, y->error) ? together : alone;
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

/* A row of the best changes of up to three knobs; -1 where there is only one. */
static int combine(struct tuner *t)
{
    struct tune_outcome *out = t->out;
    struct tune_row row = { .predicted = NAN, .gain = NAN, .error = NAN };
    const char *used[MOST_COMBINED];
    double left = 1;
    int parts = 0;
    for (; parts < MOST_COMBINED && out->n < TUNE_ROWS; parts++) {
        int best = -1;
        for (int i = 0; i < out->n; i++) {
            bool again = !is_better(&out->rows[i]);
            for (int k = 0; k < parts; k++)
                again = again || strcmp(used[k], out->rows[i].change.knob) == 0;
            if (!again && (best < 0 || out->rows[i].gain > out->rows[best].gain))
                best = i;
        }
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

/* --- all of it ----------------------------------------------------------------------- */

/* The winner and the recipe again, in processes that no choice has depended on. */
static int prove(struct tuner *t)
{
    struct tune_outcome *out = t->out;
    double ratios[PROOF_ROUNDS];
    struct tune_row *row = &out->rows[out->winner], proof = *row;
    for (proof.rounds = 0; proof.rounds < PROOF_ROUNDS;) {
        struct timing_result was, now;
        TRY(run_one(t, NULL, &was));
        TRY(run_one(t, &row->change, &now));
        ratios[proof.rounds++] = tune_ratio(t->r->objective, t->r->loss_tolerance, &now, &was);
        if (proof.rounds >= LEAST_ROUNDS && !time_left(t, 2))
            break;
    }
    sum_up(&proof, ratios, proof.rounds);
    out->proven = proof.gain;
    out->proven_error = proof.error;
    if (!(proof.gain > fmax(least_gain, 2 * proof.error)))
        out->winner = -1;
    return OK;
}

static void measure_base(struct tuner *t, const struct timing_result *first)
{
    struct tune_outcome *out = t->out;
    double step = median(first->step_s, first->steps), spread[MOST_STEPS];
    i64 n = i64_min(first->steps, MOST_STEPS);
    for (i64 i = 0; i < n; i++)
        spread[i] = fabs(first->step_s[i] - step);
    out->base_step_s = step;
    out->base_tokens_per_s = first->tokens / step;
    out->base_joules_per_token = first->joules_per_token;
    out->noise = 1.4826 * median(spread, n) / sqrt((double)n) / step;
    const double length = fmin(trial_s, t->r->budget_s / trials_in_budget);
    out->steps = i64_max(4, i64_min(MOST_STEPS, (i64)(length / step) + 1));
    t->trial_seconds = first->seconds;
}

int tune_run(struct tune_outcome *out, const struct tune_request *r,
             const struct timing_result *first, struct arena *a)
{
    struct tuner *t = ARENA_NEW(a, struct tuner);
    int list[TUNE_ROWS], n = 0;
    *out = (struct tune_outcome){ .winner = -1, .proven = NAN, .proven_error = NAN };
    *t = (struct tuner){ .r = r, .out = out, .arena = a, .begin = sys_now_ns() };
    measure_base(t, first);
    list_changes(t);
    forecast_rows(t);
    keep_best(t);
    for (int i = 0; i < out->n; i++)
        list[n++] = i;
    TRY(run_rounds(t, list, n, ROUNDS));
    int together = combine(t);
    if (together >= 0)
        TRY(run_rounds(t, &together, 1, LEAST_ROUNDS));
    out->winner = choose_winner(out, together);
    if (out->winner >= 0)
        TRY(prove(t));
    out->seconds = spent(t);
    return OK;
}
