#include "diagnose/rule.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct rule *const rule_families[] = {
    rules_data, rules_host, rules_kernel, rules_links, rules_comm, rules_axes, rules_balance,
    rules_run, rules_energy, NULL,
};

const char *rule_behind(const char *id)
{
    return strcmp(id, "R3") == 0 ? "K7 H5 B6" : NULL;
}

void rule_evidence(struct finding *f, const char *fmt, ...)
{
    va_list args;
    if (f->n_evidence == FINDING_EVIDENCE)
        return;
    va_start(args, fmt);
    vsnprintf(f->evidence[f->n_evidence++], FINDING_TEXT, fmt, args);
    va_end(args);
}

void rule_reject(struct finding *f, const char *id, const char *fmt, ...)
{
    va_list args;
    if (f->n_rejected == FINDING_REJECTED)
        return;
    struct finding_reject *r = &f->rejected[f->n_rejected++];
    snprintf(r->id, sizeof r->id, "%s", id);
    va_start(args, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, args);
    va_end(args);
}

void rule_fix(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->fix, sizeof f->fix, fmt, args);
    va_end(args);
}

void rule_confirm(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->confirm, sizeof f->confirm, fmt, args);
    va_end(args);
}

void rule_look(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->look, sizeof f->look, fmt, args);
    va_end(args);
}

/* --- where commands run -------------------------------------------------------------- */

/* A record may have been written by anybody: what is not plainly a name gets into no command. */
static bool is_plain(const char *host)
{
    const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return *host && *host != '-' && host[strspn(host, plain)] == '\0';
}

static bool on_one_host(const struct measure *m)
{
    for (i64 r = 1; r < m->n_ranks; r++)
        if (strcmp(m->ranks[r].host, m->ranks[0].host) != 0)
            return false;
    return true;
}

const char *rule_there(const struct measure *m, i64 rank, char out[RULE_WHERE])
{
    const char *host = rank >= 0 && rank < m->n_ranks ? m->ranks[rank].host : "";
    snprintf(out, RULE_WHERE, "%s", "");
    if (!on_one_host(m) && is_plain(host))
        snprintf(out, RULE_WHERE, "ssh %s ", host);
    return out;
}

static i64 rank_elsewhere(const struct measure *m, i64 rank)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (strcmp(m->ranks[r].host, m->ranks[rank].host) != 0)
            return r;
    return rank;
}

void rule_confirm_link(const struct measure *m, i64 a, i64 b, struct finding *f)
{
    b = b < 0 ? rank_elsewhere(m, a) : b;
    const char *x = m->ranks[a].host, *y = m->ranks[b].host;
    if (on_one_host(m))
        rule_confirm(f, "headway comm --ranks 2");
    else if (is_plain(x) && is_plain(y))
        rule_confirm(f, "mpirun -n 2 --host %s,%s headway comm", x, y);
    else
        rule_confirm(f, "mpirun -n 2 headway comm");
    rule_look(f, "what passes a second, and what a small message takes, beside two other hosts");
}

static bool is_listed(const struct measure *m, i64 rank)
{
    for (i64 r = 0; r < rank; r++)
        if (strcmp(m->ranks[r].host, m->ranks[rank].host) == 0)
            return true;
    return false;
}

void rule_confirm_links(const struct measure *m, struct finding *f)
{
    char hosts[RULE_HOSTS] = "";
    i64 at = 0;
    bool whole = true;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const char *host = m->ranks[r].host;
        if (is_listed(m, r))
            continue;
        if (!is_plain(host) || at + (i64)strlen(host) + 2 > RULE_HOSTS) {
            whole = false;
            break;
        }
        at += snprintf(hosts + at, (size_t)(RULE_HOSTS - at), "%s%s", at ? "," : "", host);
    }
    if (on_one_host(m))
        rule_confirm(f, "headway comm --ranks %lld", (long long)m->n_ranks);
    else
        rule_confirm(f, "mpirun -n %lld%s%s headway comm", (long long)m->n_ranks,
                     whole ? " --host " : "", whole ? hosts : "");
    rule_look(f, "what passes a second, and what a small message takes, beside before the run");
}

/* Ops below this share of computing are no witness. */
static const double least_witness = 0.02;

/* Tasks that are simulated, or slept through, take what they are given, give or take how exactly
 * they sleep: what one of them reaches beyond that is no rate of anything. */
bool rule_times_are_given(const struct measure *m)
{
    return m->config.simulated || strcmp(m->config.backend, "none") == 0;
}

double rule_memory_rate(const struct measure *m)
{
    double rate = m->ceilings.memory_bytes_per_s;
    for (i64 i = 0; i < m->n_ops && rate > 0 && !rule_times_are_given(m); i++)
        if (m->ops[i].seconds > least_witness * m->compute)
            rate = fmax(rate, m->ops[i].bytes / m->ops[i].seconds);
    return rate;
}

/* What its own loader took is not others'. */
double rule_robbed(const struct measure_rank *r)
{
    double queue = isfinite(r->run_queue_s) ? r->run_queue_s : 0;
    queue = fmax(0, queue - (isfinite(r->load_cpu_s) ? r->load_cpu_s : 0));
    return queue + (isfinite(r->steal_s) ? r->steal_s : 0);
}

/* Of what it was robbed of, what it lost while it computed: a thread is also pushed aside
 * between tasks and in exchanges. It is never all of the computing. */
double rule_robbed_computing(const struct measure *m, const struct measure_rank *k)
{
    const double computing = measure_mean(m, k->compute), most = rule_robbed(k);
    double share = most / fmax(m->step.mean, most);
    if (isfinite(k->on_cpu))
        share = fmax(share, 1 - k->on_cpu);
    return fmin(most, computing * share);
}

double rule_disturbed(const struct measure *m)
{
    double sum = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        sum += fmin(1, rule_robbed(&m->ranks[r]) / m->step.mean) / (double)m->n_ranks;
    return sum > 0 ? sum : 0;
}

double rule_noise_beside(const struct measure *m, const struct finding *f)
{
    double se = m->step.se;
    if (f->place.first_step >= 0 && m->n_steps > 0)
        se = fmin(se, m->step.sigma / sqrt((double)m->n_steps));
    return isfinite(se) ? 2 * se : 0;
}

/* Sums of nanoseconds, written with so many digits, differ by so much. */
static const double rounding = 1e-4;

double rule_most(const struct measure *m, const struct finding *f)
{
    const double most = (1 + rounding) * fmax(f->most, f->gain);
    return f->most > 0 ? fmin(most, m->step.mean) : m->step.mean;
}

void rule_gain(const struct measure *m, struct finding *f, double lost, double gain,
               double spread)
{
    const double noise = rule_noise_beside(m, f);
    gain = fmax(0, fmin(gain, m->step.mean));
    const double others = rule_disturbed(m);
    f->lost = lost;
    f->share = m->step.mean > 0 ? lost / m->step.mean : 0;
    f->gain = gain;
    f->gain_lo = fmax(0, gain * (1 - spread) * (1 - others) - noise);
    f->gain_hi = fmin(gain * (1 + spread) * (1 + others) + noise, rule_most(m, f));
}

void rule_edit(struct finding *f, enum finding_edit_kind kind, double factor)
{
    f->edit = (struct finding_edit){ .kind = kind, .rank = f->place.rank,
        .last_rank = f->place.last_rank, .several = f->place.several, .peer = f->place.peer,
        .stage = f->place.stage, .first_step = f->place.first_step,
        .last_step = f->place.last_step, .lane = -1, .phase = -1, .host = -1,
        .factor_lo = factor, .factor = factor, .factor_hi = factor };
    snprintf(f->edit.op, sizeof f->edit.op, "%s", f->place.op);
}

/* What one has half of, two have: a pause on every rank makes one wait, whoever had it. */
static const double has_it_too = 0.5;

/* Those few are the place. Where most have it, those that have less may by chance: then they are
 * named in words, as far as there is room. */
static void list_ranks(const struct measure *m, const double *lost, double most, i64 n,
                       struct finding *f)
{
    const bool few = n <= FINDING_RANKS && 2 * n <= m->n_ranks;
    char list[FINDING_TEXT] = "";
    int at = 0;
    for (i64 r = 0; r < m->n_ranks && at < (int)sizeof list - 16; r++) {
        if (!(lost[r] >= has_it_too * most))
            continue;
        if (few)
            f->place.several.at[f->place.several.n++] = m->ranks[r].rank;
        at += snprintf(list + at, sizeof list - (size_t)at, " %d", m->ranks[r].rank);
    }
    if (!few)
        rule_evidence(f, "so it is on the ranks%s", list);
}

bool rule_place_ranks(const struct measure *m, const double *lost, struct finding *f)
{
    double most = 0;
    i64 first = -1, last = -1, n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        most = fmax(most, lost[r]);
    for (i64 r = 0; r < m->n_ranks && most > 0; r++)
        if (lost[r] >= has_it_too * most) {
            first = first < 0 ? r : first;
            last = r;
            n++;
        }
    if (n == 0 || n == m->n_ranks)
        return false;
    if (n < last - first + 1) { /* no range says it */
        list_ranks(m, lost, most, n, f);
        return false;
    }
    f->place.rank = m->ranks[first].rank;
    f->place.last_rank = n > 1 ? m->ranks[last].rank : 0;
    return true;
}

const double *rule_compute(const struct measure_rank *r) { return r->compute; }
const double *rule_data(const struct measure_rank *r) { return r->data; }

/* --- one rank beside its peers ---------------------------------------------------- */

static i64 peers_of(const struct measure *m, i64 rank, measure_series_fn series, i64 step,
                    double *out)
{
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (r != rank && m->ranks[r].stage == m->ranks[rank].stage)
            out[n++] = series(&m->ranks[r])[step];
    return n;
}

struct rule_excess rule_excess(const struct measure *m, i64 rank, measure_series_fn series)
{
    struct rule_excess e = { NAN, NAN, NAN, 0 };
    struct arena a;
    arena_init(&a);
    double *peers = ARENA_ARRAY(&a, double, m->n_ranks);
    double *above = ARENA_ARRAY(&a, double, m->n_steps);
    i64 most = 0, n = 0;
    for (i64 i = 0; i < m->n_steps; i++) {
        double own = series(&m->ranks[rank])[i];
        n = peers_of(m, rank, series, i, peers);
        above[i] = own - measure_quantile(peers, n, 0.5);
        most += n > 0 && own > measure_quantile(peers, n, 1);
    }
    if (n > 0 && m->n_steps > 0) {
        struct measure_stat s = measure_stat(above, m->n_steps);
        e = (struct rule_excess){ s.mean, s.median, s.sigma,
                                  (double)most / (double)m->n_steps };
    }
    arena_fini(&a);
    return e;
}

bool rule_alone(const struct measure *m, measure_series_fn series, i64 *rank)
{
    struct arena a;
    arena_init(&a);
    double *mean = ARENA_ARRAY(&a, double, m->n_ranks), most = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        mean[r] = measure_mean(m, series(&m->ranks[r]));
        if (mean[r] > most) {
            most = mean[r];
            *rank = r;
        }
    }
    if (most > 0)
        mean[*rank] = NAN;
    double others = measure_quantile(mean, m->n_ranks, 0.5);
    arena_fini(&a);
    return m->n_ranks > 1 && most > 2 * others;
}
