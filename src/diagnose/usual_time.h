/* diagnose/usual_time.h - what each kind of action takes where nothing holds it up: the pace that the
 * ladder's kernels are judged at.
 *
 * Of one kind are actions with the same tasks in the same order (op, dtype, FLOPs, bytes): the same
 * micro-batch's pass over a stage in other steps, on other ranks, of other micro-batches. What they
 * take is counted at the clock of the start and on a processor (t f u), as far as samples tell, and
 * over the least pace of its rank in any step (diagnose/pace.h): that of a rank which is always slow
 * is known by what others do, too, and holds for what it does alone. Of attention it is time for
 * whole rows: where documents do not see each other, it has less to do. The usual time is near the
 * least, since nothing makes a task faster than it is: so neither a slow rank, nor some slow
 * steps, nor jitter on all ranks moves it. */
#ifndef HEADWAY_DIAGNOSE_USUAL_TIME_H
#define HEADWAY_DIAGNOSE_USUAL_TIME_H

#include "diagnose/attained.h"

struct usual_time {
    u64 kind;
    double seconds; /* t f u; once settled over the rank's pace */
    double speed;   /* f u, at most 1; likewise */
    int rank;
};

/* All zero but for the arena (the caller's) to begin with. */
struct usual {
    struct arena *arena;
    struct usual_time *times; /* one for each action; once settled for each kind, by kind */
    i64 n, room;
    double *pace; /* [n_ranks] of each rank the least; 0: none is known */
    int n_ranks;
    struct attained attained; /* in the same arena */
};

/* f: the clock over that at the start; u: of computing threads the share of their time that they
 * were on a processor and not waiting for one; of the pairs of tokens in whole rows those that
 * attention looks at (of rows that lie on several ranks a sample does not tell). 1 where nothing
 * says so. */
struct usual_speed {
    double clock, on_cpu, attended;
    bool has_clock, has_cpu;
};
struct usual_speed usual_speed_of(const struct record_rank *k);
/* Whether its work is by the pairs that attend to each other. */
bool usual_attends(const struct record_task *t);

void usual_add(struct usual *u, const struct record_step *s, const struct dag *g);
/* Behind the last one: those with the kind's fastest clock, most of a processor and least pace count,
 * so that times which had to be put right count only where all had to be. */
void usual_settle(struct usual *u);

/* Adds some of r->steps, evenly spread among these, and settles; few enough that reading them costs
 * little beside reading all. */
int usual_of_steps(struct usual *u, struct record *r, const i64 *steps, i64 n);

/* *c: t f u. Every action of a known kind takes the usual time of its kind, others what they take
 * over their rank's pace. */
void usual_apply(const struct usual *u, struct computing *c);

#endif
