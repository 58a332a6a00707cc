#include "comm/world.h"

#include "base/err.h"
#include "base/sys.h"
#include "comm/mpi.h"
#include "comm/rendezvous.h"

#include <stdlib.h>
#include <string.h>

/* --- who started us --------------------------------------------------------------- */

static bool is_set(const char *name)
{
    const char *text = sys_getenv(name);
    return text && *text;
}

/* A whole number in the environment; missing stays as it is. */
static int read_number(const char *name, int *out)
{
    const char *text = sys_getenv(name);
    char *end;
    if (!is_set(name))
        return OK;
    long value = strtol(text, &end, 10);
    if (*end || value < 0 || value > 1000000)
        return err_set(ERR_CONFIG, "%s=%.40s is not a number of ranks", name, text);
    *out = (int)value;
    return OK;
}

static int read_own(struct comm_launch *l)
{
    static const char *const needed[] = { "HEADWAY_RANK", "HEADWAY_SIZE", "HEADWAY_ADDRESS" };
    for (i64 i = 0; i < COUNT_OF(needed); i++)
        if (!is_set(needed[i]))
            return err_set(ERR_CONFIG, "%s is not set; a rank needs HEADWAY_RANK, HEADWAY_SIZE and "
                           "HEADWAY_ADDRESS (host:port of rank 0)", needed[i]);
    TRY(read_number("HEADWAY_RANK", &l->rank));
    TRY(read_number("HEADWAY_SIZE", &l->size));
    l->address = sys_getenv("HEADWAY_ADDRESS");
    l->launcher = LAUNCHER_HEADWAY;
    if (l->size < 1 || l->rank >= l->size)
        return err_set(ERR_CONFIG, "HEADWAY_RANK=%d is not below HEADWAY_SIZE=%d", l->rank,
                       l->size);
    return OK;
}

/* A rank that knows only half of what its launcher said would be a world of its own, or none. */
static int need_both(const char *rank, const char *size)
{
    if (is_set(rank) == is_set(size))
        return OK;
    const char *there = is_set(rank) ? rank : size, *missing = is_set(rank) ? size : rank;
    return err_set(ERR_CONFIG, "%s is set, but %s is not: launchers set both; pass both on to "
                   "headway, or unset %s to start one rank alone", there, missing, there);
}

/* srun sets these for any program, but connects the ranks only with --mpi. */
static int check_slurm(void)
{
    int tasks = 1;
    TRY(read_number("SLURM_STEP_NUM_TASKS", &tasks));
    if (tasks > 1)
        return err_set(ERR_CONFIG, "srun started %d tasks without connecting them; use srun "
                       "--mpi=pmix with Open MPI or srun --mpi=pmi2 with MPICH", tasks);
    return OK;
}

int comm_launch_detect(struct comm_launch *out)
{
    *out = (struct comm_launch){ .rank = -1 };
    if (is_set("HEADWAY_RANK") || is_set("HEADWAY_SIZE") || is_set("HEADWAY_ADDRESS"))
        return read_own(out);
    if (!is_set("PMIX_RANK")) /* with srun --mpi=pmix it is the only one */
        TRY(need_both("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"));
    TRY(need_both("PMI_RANK", "PMI_SIZE"));
    if (is_set("OMPI_COMM_WORLD_SIZE") || is_set("PMIX_RANK")) {
        out->launcher = LAUNCHER_OPENMPI;
        TRY(read_number("PMIX_RANK", &out->rank));
        TRY(read_number("OMPI_COMM_WORLD_RANK", &out->rank));
        TRY(read_number("SLURM_STEP_NUM_TASKS", &out->size));
        return read_number("OMPI_COMM_WORLD_SIZE", &out->size);
    }
    if (is_set("PMI_SIZE") || is_set("PMI_RANK")) {
        out->launcher = LAUNCHER_MPICH;
        TRY(read_number("PMI_RANK", &out->rank));
        return read_number("PMI_SIZE", &out->size);
    }
    return check_slurm();
}

const char *comm_launch_hint(void)
{
    if (is_set("RANK") && is_set("WORLD_SIZE"))
        return "RANK and WORLD_SIZE, which torchrun sets, say nothing to headway: start "
               "it by mpirun, by srun, with --ranks, or with HEADWAY_RANK, HEADWAY_SIZE "
               "and HEADWAY_ADDRESS";
    if (is_set("MPI_LOCALNRANKS") && !is_set("PMI_RANK"))
        return "MPICH's launcher started this process, but PMI_RANK and PMI_SIZE are not set: pass "
               "them on to headway";
    return NULL;
}

/* --- worlds ----------------------------------------------------------------------- */

static int open_world(const struct comm_world *w, struct comm **out)
{
    struct comm_launch l;
    TRY(comm_launch_detect(&l));
    bool always_mpi = w->carrier == COMM_MPI;
    switch (l.launcher) {
    case LAUNCHER_OPENMPI:
        return comm_mpi_new(out, MPI_LIBRARY_OPENMPI, l.size, always_mpi, w->deadline_s);
    case LAUNCHER_MPICH:
        return comm_mpi_new(out, MPI_LIBRARY_MPICH, l.size, always_mpi, w->deadline_s);
    case LAUNCHER_HEADWAY:
        return comm_rendezvous(out, l.rank, l.size, l.address, w->deadline_s);
    default:
        break;
    }
    if (always_mpi)
        return err_set(ERR_USAGE, "no MPI launcher started this process; run it under mpirun or "
                       "srun --mpi=pmix");
    return comm_self_new(out);
}

int comm_world_run(const struct comm_world *w, comm_body body, void *context)
{
    struct comm *c;
    if (w->local_ranks > 0) {
        struct comm_local l = { .ranks = w->local_ranks, .deadline_s = w->deadline_s };
        if (w->carrier == COMM_MPI)
            return err_set(ERR_USAGE, "ranks of one program share memory; for MPI start them with "
                           "mpirun instead of --ranks");
        return comm_local_run(&l, body, context);
    }
    TRY(open_world(w, &c));
    int rc = body(c, context);
    if (rc < 0 && !c->together)
        comm_fail(c, rc);
    comm_free(c);
    return rc;
}

void comm_world_refuse(int code)
{
    const double start_s = 60;
    struct comm_launch l;
    struct comm *c;
    if (comm_launch_detect(&l) < 0 || l.launcher != LAUNCHER_MPICH || l.size < 2)
        return;
    if (comm_mpi_new(&c, MPI_LIBRARY_MPICH, l.size, true, start_s) < 0)
        return;
    comm_fail(c, code);
    comm_free(c);
}

int comm_world_group(struct comm_group **out, struct comm *c, const char *axis)
{
    int *members = ARENA_ARRAY(&c->arena, int, c->size);
    for (int r = 0; r < c->size; r++)
        members[r] = r;
    return comm_group_new(out, c, axis, members, c->size);
}
