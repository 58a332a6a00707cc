/* plan/failures.h - how much of a run's time is progress when machines fail.
 *
 * Two-regime law: a job of N nodes is interrupted N x node rate + job rate times a day. The first
 * part is hardware, the second is what strikes any job however small (software, dependencies); the
 * node rate alone predicts 28.8 h between failures of 1,024 GPUs where Meta measured 7.9 h
 * (Kokolis et al. 2025). Interruptions come independently (exponential gaps, mean M).
 *
 * Between checkpoints lie tau seconds of progress; one stalls the job for w seconds and can be used
 * c seconds after it began (c >= w: written in the background). After an interruption it takes d
 * until somebody notices and r until training goes on from the last usable checkpoint, and r can be
 * interrupted too. Then a share
 *
 *     tau e^(-(c - w)/M) / ((M + down) (e^((tau + w)/M) - 1)),  down = d e^(r/M) + M (e^(r/M) - 1)
 *
 * of the time is progress (Daly 2006 with detection, and with writing in the background, during
 * which a failure costs the segment before, too). Planned stops lose r each, and no progress.
 *
 * A share of node failures takes the node away for a repair. With s spares a job that needs all of
 * its N nodes stands still while more than s are away, by Erlang's loss formula for s + 1 (however
 * repair times are spread). An elastic job goes on with what is left, in steps of whole replicas.
 */
#ifndef HEADWAY_PLAN_FAILURES_H
#define HEADWAY_PLAN_FAILURES_H

#include "base/option.h"
#include "base/yaml.h"
#include "plan/machine_file.h"

struct json;

struct failure_law {
    const char *name, *source;
    const char *node_text, *job_text, *planned_text; /* as the file has them */
    double node_per_day;        /* interruptions per node and day */
    double job_per_day;         /* per job and day, however large */
    double planned_per_day;
    double hardware_share;      /* of node failures: the node is away for a repair */
    double detect_s, detect_least_s, detect_most_s;
    double restart_s, restart_least_s, restart_most_s;
    double stall_s, stall_least_s, stall_most_s;
    double repair_s;
    i64 nodes;                  /* where the law was observed; 0: unknown */
    double published_least;     /* share of effective time that was published; 0: none */
};

/* A name in machines/failures, or a path. */
int failure_law_load(struct failure_law *out, const char *name, struct arena *a);
/* An already read map; `name` stands for it in messages. */
int failure_law_read(struct failure_law *out, const struct yaml_node *root, const char *name,
                     struct arena *a);

struct failure_job {
    i64 nodes, spares;
    i64 replica_nodes;          /* an elastic job shrinks by so many; 0: it is not elastic */
    double node_per_day, job_per_day, planned_per_day, hardware_share;
    double detect_s, restart_s, stall_s, write_s, repair_s;
    double every_s;             /* progress between checkpoints */
};

/* How far rates may be off where a law was observed on other numbers of nodes: at the quick end
 * they are divided by this, at the slow end multiplied. Assumed: 23 % for a factor of eight. */
double failure_extrapolation(const struct failure_law *law, i64 nodes);

/* At the middle of a law's ranges, or at their ends: slow gives the least goodput. every_s and
 * write_s are left 0. */
enum failure_end { FAILURE_QUICK, FAILURE_MIDDLE, FAILURE_SLOW };
struct failure_job failure_job_of(const struct failure_law *law, i64 nodes, enum failure_end end);

/* Mean seconds between interruptions that nobody planned. INFINITY without failures. */
double failure_mtbf(const struct failure_job *j);

double failure_young(const struct failure_job *j); /* sqrt(2 w M) */
double failure_daly(const struct failure_job *j);  /* higher order (Daly 2006, equation 37) */
/* The interval that the formula above is largest at; at least a second. */
double failure_best_interval(const struct failure_job *j);

struct failure_time { /* shares of the time of the nodes that a job has; they sum to 1 */
    double progress;
    double checkpoints;     /* stalls */
    double lost;            /* computed, but never saved */
    double down;            /* detecting and restarting; planned stops */
    double waiting;         /* for repairs, or running with fewer */
};

/* In closed form. */
struct failure_time failure_goodput(const struct failure_job *j);

/* 1 - ... : the share of time that fewer than `needed` of the spares + needed nodes are there. */
double failure_short_of_nodes(const struct failure_job *j);

/* The number of spares, up to `most`, at which progress per node that is paid for is largest. */
i64 failure_best_spares(const struct failure_job *j, i64 most);

/* What the walk below costs: how many segments and interruptions it meets in all, more where many
 * nodes are in repair and looked at. Infinite when a job never gets through a segment. */
double failure_walk_events(const struct failure_job *j, double days, i64 runs);

/* The same by walking through `runs` runs of so many days, event by event. Runs differ: `progress`
 * has the 10th, 50th and 90th percentile of theirs. Deterministic in seed. */
struct failure_walk {
    struct failure_time mean;
    struct plan_band progress;
    double interruptions; /* per run */
};
void failure_simulate(const struct failure_job *j, double days, i64 runs, u64 seed,
                      struct failure_walk *out, struct arena *a);

#endif
