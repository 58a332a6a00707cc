/* diagnose/climb.h - the ladder and the critical path of many steps, on all cores.
 *
 * Everybody who shows the ladder of a record has it from climb_record, so that all show the same. Of a
 * long record not all steps are looked at: each is as likely to be as it is long, with what was done
 * behind it, and stands for as many as make up for that. So their time is that of all, and what is
 * done every hundredth step counts as often as it is done. */
#ifndef HEADWAY_DIAGNOSE_CLIMB_H
#define HEADWAY_DIAGNOSE_CLIMB_H

#include "diagnose/critical.h"
#include "diagnose/ladder.h"

/* Adds these of r->steps, ascending; those that cannot be read are left out. u: settled, of some of
 * them (usual_of_steps). */
int climb_steps(struct record *r, const struct usual *u, const i64 *steps, i64 n, struct ladder *l,
                struct critical *c);

/* Where nobody asks for another number. */
enum { CLIMB_STEPS = 1000 };

struct climb_range {
    i64 first, last; /* steps, from 0 */
    i64 most; /* to be looked at, and of many ranks as many as half a gigabyte has; 0: all */
};

/* Which of a record's steps are looked at, ascending. */
struct climb_choice {
    i64 *steps;
    double *weights; /* how many steps each stands for */
    i64 n, of;       /* of so many */
    double share;    /* of their time, what one that is not its own stands for: by about so much of it
                      * may be off what is done behind some steps only; 0: all are looked at */
};
/* ERR_CONFIG: none of the range is recorded. */
int climb_choose(struct climb_choice *out, const struct record *r, const struct climb_range *range,
                 struct arena *a);

/* The ladder of these steps, and their path, sorted; *l and *c are zero but for the path's arena.
 * *chosen: which were looked at; l->steps of them could be read. ERR_CONFIG: none is recorded. */
int climb_record(struct record *r, const struct climb_range *range, struct ladder *l,
                 struct critical *c, struct climb_choice *chosen);

#endif
