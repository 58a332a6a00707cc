/* diagnose/measure_gather.h - what the steps of a record add up to, until it is a measure.
 *
 * Only for the files that do so: measure_record.c (time and tasks), measure_exchange.c,
 * measure_sample.c. */
#ifndef HEADWAY_DIAGNOSE_MEASURE_GATHER_H
#define HEADWAY_DIAGNOSE_MEASURE_GATHER_H

#include "diagnose/measure_record.h"
#include "graph/program.h"

#include <math.h>

enum { MOST_OPS = 256, MOST_LIKES = 1024, KEPT = 512, SIZES = 64, MOST_LINKS = 4096, MOST_LOADS = 1 << 16 };

/* The newest KEPT of values, for medians. */
struct kept {
    double *x; /* [KEPT], made on the first value */
    i64 n;     /* ever */
};

static inline void keep(struct kept *k, double value, struct arena *a)
{
    if (!k->x)
        k->x = ARENA_ARRAY(a, double, KEPT);
    k->x[(u64)k->n++ % KEPT] = value;
}

static inline double middle(const struct kept *k)
{
    return k->x ? measure_quantile(k->x, i64_min(k->n, KEPT), 0.5) : NAN;
}

struct op_sum {
    struct measure_op op; /* sums, until it is settled */
    struct kept seconds;
};

/* How long a task of the program takes with no exchange under way, and with one. */
struct task_time {
    double alone_s, beside_s;
    i64 alone, beside;
};

/* What is the same each time that a task is computed, side by side for who adds it up. */
struct task_cost {
    double flops, model_flops, bytes, roofline_s;
    i32 class; /* index in ops */
    i32 like;  /* index in likes; -1: there is no room */
};

struct table_time {
    const struct record_table *table;
    struct task_time *tasks; /* [n_tasks] */
    struct task_cost *costs; /* [n_tasks] */
};

/* Tasks of one class that do as much: they take equally long wherever they run. */
struct like {
    i32 class;
    double flops, bytes;
};

struct like_time {
    double seconds, calls;
};

struct lane_sum {
    struct measure_lane lane;
    struct kept seconds[SIZES]; /* of exchanges of one kind */
    double bytes[SIZES];        /* that a rank sends in one */
    int rounds[SIZES];
    i64 n_sizes;
    double members;
    double tasks; /* calls of different tasks, for turns */
    i64 link;     /* where its last call was kept */
    bool alike;   /* its sizes are: what of this is latency is a guess */
    double size, extra; /* then: bytes of an exchange, and what it takes beyond a probe's price */
};

/* Exchanges of a group that are of one size: the newest of their times. */
enum { LINK_KEPT = 64, LINK_SIZES = 16 };

struct link_size {
    double bytes;
    int rounds;
    i64 n;
    double seconds[LINK_KEPT];
};

struct link_sum { /* a group's exchanges; a and b: its first and last rank */
    int a, b, lane, members;
    const i32 *ranks; /* its members */
    struct kept rate_s, rate_bytes;
    struct link_size *sizes;
    i64 n_sizes;
};

struct gather {
    struct measure *m;
    struct record *r;
    struct arena *a;
    struct op_sum ops[MOST_OPS];
    i64 n_ops;
    struct like likes[MOST_LIKES];
    i64 n_likes;
    struct like_time **like_times; /* [ranks][MOST_LIKES], of ranks that took part */
    struct table_time *tables;
    i64 n_tables, cap_tables;
    struct lane_sum lanes[LANE_COUNT];
    struct link_sum *links;
    i64 n_links, cap_links;
    double *came_last, *met; /* [ranks] */
    double *blamed_s, waited_s; /* [ranks]: of what all ranks waited at exchanges, for this one */
    i64 *sampled;            /* [ranks] steps with a sample */
    struct kept *clock;      /* [ranks] speeds of the loop on registers */
    double *covered_s;       /* [ranks] which these samples are about: more than a step each */
    double *empty;           /* [ranks] steps that found no data */
    double *looked_s, *away_s; /* [ranks] tasks that were looked at; of that, threads at work were not
                                * on a processor */
    double rank_steps;       /* that spans were there for */
};

static inline double s_of(i64 ns)
{
    return 1e-9 * (double)ns;
}

/* --- exchanges ---------------------------------------------------------------------- */

void gather_add_calls(struct gather *g, const struct record_step *s, const struct measure_calls *calls);
void gather_add_link_size(struct link_sum *l, const struct measure_call *c, double seconds,
                          struct arena *a);
/* The one rank, if any, that all groups with slow exchanges have in common. */
void gather_find_slow_end(struct gather *g);
/* Of its bytes: beside what an exchange of the lane took before the run whatever its size. */
double gather_rate_of(const struct gather *g, const struct link_sum *l);
/* What crosses domains of ranks, in each order of the axes that the part's layout can have. */
void gather_settle_domains(struct gather *g, const struct record_part *part);
/* Lanes, as fitted, and links: of the lane that has most of them. */
void gather_settle_exchanges(struct gather *g);

/* --- tasks -------------------------------------------------------------------------- */

i32 gather_like(struct gather *g, i32 class, const struct record_task *t);
void gather_add_like(struct gather *g, int rank, i32 like, double seconds);
/* What each rank would compute at the other stages' pace. */
void gather_settle_paces(struct gather *g);

/* --- samples ------------------------------------------------------------------------ */

void gather_add_sample(struct gather *g, i64 step, int rank, const struct record_rank *from);
/* A sample is rarer than a step where steps are short: what it counted is of all since the last. */
void gather_settle_samples(struct gather *g);

#endif
