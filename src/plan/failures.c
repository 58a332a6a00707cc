#include "plan/failures.h"

#include "base/err.h"
#include "base/recipe.h"
#include "plan/plan_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double day_s = 86400;

#define LAW(kind, field) OPTION_FIELD(kind, struct failure_law, field)

static const struct option law_options[] = {
    { "name", LAW(STRING, name), "unnamed", .help = "What to call it." },
    { "source", LAW(STRING, source), NULL, .help = "Where the numbers come from." },
    { "nodes", LAW(INT, nodes), "0", .max = 1e9, .unit = "nodes",
      .help = "Where it was observed." },
    { "node_failures", LAW(STRING, node_text), "0 per 1000 node-days",
      .help = "Interruptions that grow with the number of nodes." },
    { "job_failures", LAW(STRING, job_text), "0 per day",
      .help = "Interruptions of any job, however small." },
    { "planned_stops", LAW(STRING, planned_text), "0 per day", .help = "Stops that were planned." },
    { "hardware_share", LAW(FLOAT, hardware_share), "1", .min = 0, .max = 1,
      .help = "Of node failures, those after which a node is away for a repair." },
    { "detect", LAW(DURATION, detect_s), "0", .unit = "seconds", .max = 1e7,
      .help = "Until somebody notices." },
    { "detect_least", LAW(DURATION, detect_least_s), "0", .unit = "seconds", .max = 1e7,
      .help = "The same, at best; 0: as usual." },
    { "detect_most", LAW(DURATION, detect_most_s), "0", .unit = "seconds", .max = 1e7,
      .help = "The same, at worst; 0: as usual." },
    { "restart", LAW(DURATION, restart_s), "0", .unit = "seconds", .max = 1e7,
      .help = "Until training goes on." },
    { "restart_least", LAW(DURATION, restart_least_s), "0", .unit = "seconds", .max = 1e7,
      .help = "The same, at best; 0: as usual." },
    { "restart_most", LAW(DURATION, restart_most_s), "0", .unit = "seconds", .max = 1e7,
      .help = "The same, at worst; 0: as usual." },
    { "stall", LAW(DURATION, stall_s), "0", .unit = "seconds", .max = 1e6,
      .help = "What a checkpoint makes training wait." },
    { "stall_least", LAW(DURATION, stall_least_s), "0", .unit = "seconds", .max = 1e6,
      .help = "The same, at best; 0: as usual." },
    { "stall_most", LAW(DURATION, stall_most_s), "0", .unit = "seconds", .max = 1e6,
      .help = "The same, at worst; 0: as usual." },
    { "repair", LAW(DURATION, repair_s), "0", .unit = "seconds", .max = 1e9,
      .help = "How long a node is away." },
    { "published_effective", LAW(FLOAT, published_least), "0", .min = 0, .max = 1,
      .help = "The share of effective time that was published: at least this." },
    { 0 },
};

/* --- laws --------------------------------------------------------------------------- */

/* "3.2 per 1000 node-days", "1.2 per day" */
static int read_rate(const char *text, const char *unit, const char *path, double *per_day)
{
    char *end = NULL;
    double value = text ? strtod(text, &end) : -1, each = 1;
    if (!text)
        return err_set(ERR_CONFIG, "%s: a rate of interruptions has no value", path);
    if (end == text || !(value >= 0 && value < 1e9))
        return err_set(ERR_CONFIG, "%s: '%s' does not begin with a number of interruptions", path,
                       text);
    if (strncmp(end, " per ", 5) == 0) {
        const char *of = end + 5;
        each = strtod(of, &end);
        if (end == of)
            each = 1;
        while (*end == ' ')
            end++;
        if (each > 0 && strcmp(end, unit) == 0) {
            *per_day = value / each;
            return OK;
        }
    }
    return err_set(ERR_CONFIG, "%s: '%s' has no unit that fits; write '%g per %s%s'", path, text,
                   value, strcmp(unit, "day") ? "1000 " : "", unit);
}

static void fill_ends(double usual, double *least, double *most)
{
    if (*least == 0)
        *least = usual;
    if (*most == 0)
        *most = usual;
}

int failure_law_load(struct failure_law *out, const char *name, struct arena *a)
{
    char path[4096];
    const struct yaml_node *root;
    TRY(plan_file_find(path, sizeof path, "machines/failures", name));
    TRY(yaml_load(path, a, &root));
    return failure_law_read(out, root, path, a);
}

int failure_law_read(struct failure_law *out, const struct yaml_node *root, const char *name,
                     struct arena *a)
{
    TRY(recipe_read_map(law_options, out, root, a));
    TRY(read_rate(out->node_text, "node-days", name, &out->node_per_day));
    TRY(read_rate(out->job_text, "day", name, &out->job_per_day));
    TRY(read_rate(out->planned_text, "day", name, &out->planned_per_day));
    fill_ends(out->detect_s, &out->detect_least_s, &out->detect_most_s);
    fill_ends(out->restart_s, &out->restart_least_s, &out->restart_most_s);
    fill_ends(out->stall_s, &out->stall_least_s, &out->stall_most_s);
    if (out->detect_least_s > out->detect_s || out->detect_s > out->detect_most_s ||
        out->restart_least_s > out->restart_s || out->restart_s > out->restart_most_s ||
        out->stall_least_s > out->stall_s || out->stall_s > out->stall_most_s)
        return err_set(ERR_CONFIG, "%s: a least is above what is usual, or a most below", name);
    return OK;
}

double failure_extrapolation(const struct failure_law *law, i64 nodes)
{
    return law->nodes > 0 ? exp(0.1 * fabs(log((double)nodes / (double)law->nodes))) : 1;
}

struct failure_job failure_job_of(const struct failure_law *law, i64 nodes, enum failure_end end)
{
    bool quick = end == FAILURE_QUICK, slow = end == FAILURE_SLOW;
    double far = failure_extrapolation(law, nodes), rates = quick ? 1 / far : slow ? far : 1;
    return (struct failure_job){
        .nodes = nodes,
        .node_per_day = law->node_per_day * rates,
        .job_per_day = law->job_per_day * rates,
        .planned_per_day = law->planned_per_day,
        .hardware_share = law->hardware_share,
        .detect_s = quick ? law->detect_least_s : slow ? law->detect_most_s : law->detect_s,
        .restart_s = quick ? law->restart_least_s : slow ? law->restart_most_s : law->restart_s,
        .stall_s = quick ? law->stall_least_s : slow ? law->stall_most_s : law->stall_s,
        .repair_s = law->repair_s,
    };
}

/* --- intervals ---------------------------------------------------------------------- */

double failure_mtbf(const struct failure_job *j)
{
    double per_day = (double)j->nodes * j->node_per_day + j->job_per_day;
    return per_day > 0 ? day_s / per_day : INFINITY;
}

double failure_young(const struct failure_job *j)
{
    return sqrt(2 * j->stall_s * failure_mtbf(j));
}

double failure_daly(const struct failure_job *j)
{
    double w = j->stall_s, m = failure_mtbf(j), x = w / (2 * m);
    return w < 2 * m ? sqrt(2 * w * m) * (1 + sqrt(x) / 3 + x / 9) - w : m;
}

/* Of the time, for stops that were planned; something is always left. */
static double planned_share(const struct failure_job *j)
{
    return fmin(0.999, j->planned_per_day * j->restart_s / day_s);
}

/* How often a segment is computed: again when the next failure comes before it is written. */
static double repeats(const struct failure_job *j)
{
    return exp(fmax(0, j->write_s - j->stall_s) / failure_mtbf(j));
}

/* Seconds that a segment of progress takes on average, over its length. */
static double stretch(const struct failure_job *j, double every)
{
    double m = failure_mtbf(j), r = j->restart_s;
    double planned = 1 - planned_share(j);
    if (isinf(m))
        return (every + j->stall_s) / every / planned;
    double down = j->detect_s * exp(r / m) + m * expm1(r / m);
    return repeats(j) * (m + down) * expm1((every + j->stall_s) / m) / every / planned;
}

/* stretch() has one minimum: its logarithm is convex in the interval. Thirds of a second are far
 * below what matters. */
double failure_best_interval(const struct failure_job *j)
{
    double lo = log(1), hi = log(fmax(2, fmin(1e9, 100 * failure_mtbf(j))));
    for (int i = 0; i < 100; i++) {
        double a = lo + (hi - lo) / 3, b = hi - (hi - lo) / 3;
        if (stretch(j, exp(a)) < stretch(j, exp(b)))
            hi = b;
        else
            lo = a;
    }
    return exp(lo);
}

/* --- nodes -------------------------------------------------------------------------- */

/* How many nodes are in repair on average, if nothing stops the job. */
static double in_repair(const struct failure_job *j)
{
    return (double)j->nodes * j->node_per_day * j->hardware_share * j->repair_s / day_s;
}

double failure_short_of_nodes(const struct failure_job *j)
{
    double load = in_repair(j), blocked = 1; /* Erlang B by its recursion */
    for (i64 k = 1; k <= j->spares + 1; k++)
        blocked = load * blocked / ((double)k + load * blocked);
    return load > 0 ? blocked : 0;
}

/* So many nodes are away: how many an elastic job does without. */
static double done_without(const struct failure_job *j, i64 away)
{
    return away <= j->spares ? 0 : (double)i64_min(j->nodes, round_up(away - j->spares,
                                                                      j->replica_nodes));
}

/* Of an elastic job: the mean share of nodes that it is short of. Poisson, of which twelve
 * deviations matter; of very many the mean says enough. */
static double shrunk(const struct failure_job *j)
{
    static const double many = 1e5;
    double load = in_repair(j), sum = 0;
    if (load <= 0)
        return 0;
    if (load > many)
        return done_without(j, (i64)load) / (double)j->nodes;
    i64 first = (i64)fmax(0, load - 12 * sqrt(load));
    i64 most = (i64)(load + 12 * sqrt(load) + 20) + j->spares;
    double log_p = (double)first * log(load) - load - lgamma((double)first + 1);
    for (i64 k = first; k <= most; log_p += log(load) - log((double)++k))
        sum += exp(log_p) * done_without(j, k);
    return sum / (double)j->nodes;
}

struct failure_time failure_goodput(const struct failure_job *j)
{
    double m = failure_mtbf(j), whole = stretch(j, j->every_s) * j->every_s;
    double segment = j->every_s + j->stall_s, failures = isinf(m) ? 0 : expm1(segment / m);
    double r = j->restart_s, planned = planned_share(j);
    double down = isinf(m) ? 0 : failures * (j->detect_s * exp(r / m) + m * expm1(r / m));
    double again = repeats(j);
    if (!isfinite(whole)) /* it never gets through a segment */
        return (struct failure_time){ .down = 1 };
    struct failure_time t = {
        .progress = j->every_s / whole, .checkpoints = again * j->stall_s / whole,
        .down = again * down / whole + planned,
    };
    t.lost = fmax(0, 1 - t.progress - t.checkpoints - t.down);
    if (j->replica_nodes > 0) { /* it computes with fewer */
        t.waiting = t.progress * shrunk(j);
        t.progress -= t.waiting;
        return t;
    }
    t.waiting = failure_short_of_nodes(j);
    t.progress *= 1 - t.waiting;
    t.checkpoints *= 1 - t.waiting;
    t.lost *= 1 - t.waiting;
    t.down *= 1 - t.waiting;
    return t;
}

double failure_walk_events(const struct failure_job *j, double days, i64 runs)
{
    double m = failure_mtbf(j), whole = stretch(j, j->every_s) * j->every_s;
    double events = 1; /* of a segment */
    if (!isinf(m))
        events += expm1((j->every_s + j->stall_s) / m) * exp(j->restart_s / m);
    double looks = 1 + fmin(4096, in_repair(j)) / 8; /* nodes that may be back, at each */
    return (double)runs * looks * events * (1 + (isfinite(whole) ? days * day_s / whole : 0));
}

i64 failure_best_spares(const struct failure_job *j, i64 most)
{
    struct failure_job with = *j;
    double best = -1, load = in_repair(j), blocked = 1; /* Erlang B, as it goes */
    i64 at = 0;
    for (i64 s = 0; s <= most; s++) {
        with.spares = s;
        blocked = load * blocked / ((double)s + 1 + load * blocked);
        double waiting = with.replica_nodes > 0 ? shrunk(&with) : blocked;
        double per_node = (1 - waiting) * (double)j->nodes / (double)(j->nodes + s);
        if (per_node > best) {
            best = per_node;
            at = s;
        }
    }
    return at;
}
