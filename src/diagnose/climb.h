/* diagnose/climb.h - the ladder and the critical path of many steps, on all cores. */
#ifndef HEADWAY_DIAGNOSE_CLIMB_H
#define HEADWAY_DIAGNOSE_CLIMB_H

#include "diagnose/critical.h"
#include "diagnose/ladder.h"

/* Adds these of r->steps, ascending; those that cannot be read are left out. u: settled, of some of
 * them (usual_of_steps). */
int climb_steps(struct record *r, const struct usual *u, const i64 *steps, i64 n, struct ladder *l,
                struct critical *c);

#endif
