/* parallel/driver.h - carries a program's communication tasks out with comm's calls.
 *
 * One queue per lane; a task becomes one call, or one per sequence where its cut runs
 * through sequences. Nothing is allocated after driver_new. */
#ifndef HEADWAY_DRIVER_H
#define HEADWAY_DRIVER_H

#include "graph/run.h"
#include "parallel/mesh.h"

struct driver;
struct program;

/* most_calls: the most that one task of the programs makes (driver_calls). threads: each lane
 * gets a thread, so that data moves while the program computes; without, calls move when
 * somebody waits for them or tests them. Its memory lives as long as the mesh's comm. */
int driver_new(struct driver **out, const struct mesh *mesh, i64 most_calls, bool threads);
void driver_free(struct driver *d); /* ends the threads; NULL is fine */
const struct lane_driver *driver_lanes(const struct driver *d);

/* Calls that the hungriest task of a program makes. */
i64 driver_calls(const struct program *p);

#endif
