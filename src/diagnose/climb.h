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

/* The ladder of these steps, and their path, sorted; *l and *c are zero but for the path's arena.
 * *looked_at: at how many steps; l->steps of them could be read. ERR_CONFIG: none is recorded. */
int climb_record(struct record *r, const struct climb_range *range, struct ladder *l,
                 struct critical *c, i64 *looked_at);

#endif
