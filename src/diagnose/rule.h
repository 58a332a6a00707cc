/* diagnose/rule.h - a rule looks at what was measured and says at most one thing.
 *
 * To add one: a function in the file of its family, a row in that file's table, and a test that
 * it fires on its own fault and stays silent on the look-alikes. Ids, symptoms and discriminators
 * are those of the table of kinds that the documentation prints; numbers that decide stand in the
 * rule's own row of limits, with their reason. */
#ifndef HEADWAY_RULE_H
#define HEADWAY_RULE_H

#include "diagnose/findings.h"

enum { RULE_LIMITS = 9 };

/* A number that decides, and why it is that number. */
struct rule_limit {
    double value;
    const char *what, *reason; /* "share of steps that found nothing read ahead" */
};

struct rule {
    char id[5];
    const char *title; /* "the loader is too slow" */
    /* True when it applies: f has id, title and an empty place, and gets the rest. */
    bool (*look)(const struct measure *m, const struct rule_limit *limit, struct finding *f);
    struct rule_limit limit[RULE_LIMITS];
};

/* One table per family; each ends with an empty row. */
extern const struct rule rules_data[], rules_host[], rules_kernel[], rules_comm[],
    rules_links[], rules_axes[], rules_balance[], rules_run[], rules_energy[];
extern const struct rule *const rule_families[]; /* ends with NULL */
/* What may be in a second place, too, by another amount: asked only where a replay can tell what is
 * left to gain beside the first. */
extern const struct rule rules_beside[];
/* What links do where they are slow in some steps only: asked where the measure has slow_links. */
extern const struct rule rules_links_some[];

/* The kinds of which one must have been found before this one is asked, "K7 H5": f then has the
 * gain of that one, and stands right behind it. NULL: asked always. */
const char *rule_behind(const char *id);

/* --- for rules ----------------------------------------------------------------------- */

void rule_evidence(struct finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
void rule_reject(struct finding *f, const char *id, const char *fmt, ...) PRINTF_LIKE(3, 4);
void rule_fix(struct finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
void rule_confirm(struct finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What to look at in what the confirming command says, where it is not how long steps take. */
void rule_look(struct finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum { RULE_WHERE = 96, RULE_HOSTS = 400 };
/* What a command that is to run where this rank does begins with: "ssh node1 " where ranks are on
 * several hosts, else nothing. */
const char *rule_there(const struct measure *m, i64 rank, char out[RULE_WHERE]);
/* Confirms by measuring what passes between the hosts of these ranks; b -1: of a and any other. */
void rule_confirm_link(const struct measure *m, i64 a, i64 b, struct finding *f);
/* Or between all. */
void rule_confirm_links(const struct measure *m, struct finding *f);
/* What f's gain cannot be above, in seconds a step. */
double rule_most(const struct measure *m, const struct finding *f);
/* Loses `lost` seconds per step, of which mending gives back `gain`, give or take `spread` of
 * it, as much of it as the machine is disturbed, and what the step's noise lets one see. */
void rule_gain(const struct measure *m, struct finding *f, double lost, double gain,
               double spread);
/* How far the mean step may be off beside the finding: what is of some steps is itself a reason why
 * the mean of all varies; around the middle they do less. */
double rule_noise_beside(const struct measure *m, const struct finding *f);
/* Where ranks lose lost[n_ranks] each: f's place becomes the rank, or the ranks from one to
 * another, that have at least half of what the worst has. False when all have, and the place
 * stays; or when they are no range, and are listed there. */
bool rule_place_ranks(const struct measure *m, const double *lost, struct finding *f);
/* Whether tasks take what the run was told that they take: on a computed clock, or where they sleep. */
bool rule_times_are_given(const struct measure *m);
/* Bytes per second of this machine's memory: as given; else as probed, or what the run's own tasks
 * reach where that is more (caches hold what a small model reads, and a probe beside other work
 * measures too little). */
double rule_memory_rate(const struct measure *m);
/* Share of the step that other work takes from this run's threads, on the mean rank; 0 where
 * nothing is known of it. Durations hold so much of others, and others come and go. */
double rule_disturbed(const struct measure *m);
/* Seconds a step in which the rank's threads were ready and did not run, for others' sake. */
double rule_robbed(const struct measure_rank *r);
/* Of that, what it lost while it computed. */
double rule_robbed_computing(const struct measure *m, const struct measure_rank *k);
/* What a step would wait for all ranks' loaders, were each ready for the next batch after so many
 * seconds, consume[n_steps]; NaN where no loads were timed. */
double rule_loader_wait(const struct measure *m, const double *consume);
/* What a replay tries: durations of what f's place selects, times factor. */
void rule_edit(struct finding *f, enum finding_edit_kind kind, double factor);

/* Of every rank: the mean of what it has above the median of its peers, the other ranks with the
 * same stage, step by step; NaN without peers. */
struct rule_excess {
    double mean, median, sigma; /* over steps */
    double share;               /* of steps in which it has most of all its peers */
};
struct rule_excess rule_excess(const struct measure *m, i64 rank, measure_series_fn series);
/* x of a rank stands out: it is twice the median of the others and of them all the most. */
bool rule_alone(const struct measure *m, measure_series_fn series, i64 *rank);

/* What the rank's clock is all the time, of that at the start; 1 where that is not low. What a rank
 * computes, times this, it would compute at the clock of the start. */
double rule_low_clock(const struct measure *m, const struct measure_rank *r);

const double *rule_compute(const struct measure_rank *r);
const double *rule_data(const struct measure_rank *r);

/* --- energy --------------------------------------------------------------------------- */

/* Ranks compute more slowly as far as leaves steps as long as they are (`before`, replayed), and
 * what that saves. */
void rule_price_clock(struct finding *f, const struct measure *m,
                      const struct finding_replay *replay, double before);
/* Whether it saves enough of what a step takes to be a finding. */
bool rule_saves_enough(const struct measure *m, const struct finding *f);

/* --- lanes ---------------------------------------------------------------------------- */

/* Ranks that share cores wait for each other's turns within an exchange, which a probe of two of
 * them does not see: there `crowded` holds, not `usual`. */
double rule_where_crowded(const struct measure *m, double usual, double crowded);
/* Where ranks share cores, what is slow leaves the others room. Once it is mended all come at once
 * again, and an exchange takes up to so many times what it takes alone. */
double rule_crowd(const struct measure *m);
/* Seconds a step that the ranks stood still for bytes of this lane, not for ranks. */
double rule_stood(const struct measure_lane *l);
/* Which share of what its calls took is latency; NaN: it is not known. */
double rule_by_latency(const struct measure_lane *l);
/* The lane that costs most; NULL when none costs `least`, or none is on the critical path. */
const struct measure_lane *rule_costliest_lane(const struct measure *m, double least,
                                               double (*cost)(const struct measure_lane *));
/* The one for which ranks stand still the longest, if that is a loss. */
const struct measure_lane *rule_worst_lane(const struct measure *m);
/* f's place becomes the lane, with what its exchanges take as evidence. */
void rule_tell_lane(const struct measure_lane *l, struct finding *f);
/* It is for bytes, and not for a late rank. */
void rule_reject_wait(const struct measure_lane *l, struct finding *f);
/* What a replay tries: what the lane's exchanges take, times factor. */
void rule_edit_lane(struct finding *f, const struct measure_lane *l, double factor);

#endif
