/* comm/world.h - how this process became a rank.
 *
 * Launchers say it in the environment: Open MPI's and MPICH's mpirun, srun, or anything
 * that sets HEADWAY_RANK, HEADWAY_SIZE and HEADWAY_ADDRESS (comm/rendezvous.h). Without any
 * of them a process is a world of one. */
#ifndef HEADWAY_COMM_WORLD_H
#define HEADWAY_COMM_WORLD_H

#include "comm/comm.h"
#include "comm/local.h"

enum comm_carrier { COMM_AUTO, COMM_SHM, COMM_MPI }; /* what carries data */

struct comm_world {
    enum comm_carrier carrier;
    int local_ranks; /* >= 1: fork so many on this machine; 0: ask the environment */
    double deadline_s;
};

/* Runs body as this process's rank (or as N of them) and tells others if it failed. */
int comm_world_run(const struct comm_world *w, comm_body body, void *context);

/* This process will not be a rank, for the reason `code`, which it has told. Where the
 * others would wait for it for ever (MPICH's start; Open MPI's mpirun ends them by
 * itself), they are ended. */
void comm_world_refuse(int code);

/* All ranks of the world. */
int comm_world_group(struct comm_group **out, struct comm *c, const char *axis);

/* What the environment says; for tests and for reports. */
enum comm_launcher { LAUNCHER_NONE, LAUNCHER_HEADWAY, LAUNCHER_OPENMPI, LAUNCHER_MPICH };
struct comm_launch {
    enum comm_launcher launcher;
    int rank, size; /* -1, 0: not said */
    const char *address;
};
int comm_launch_detect(struct comm_launch *out);

/* For who expected more ranks than this process alone: what in the environment may be why, or NULL.
 * Such variables may linger, so they are no error by themselves. */
const char *comm_launch_hint(void);

#endif
