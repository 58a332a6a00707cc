/* backend/engine.h - what a process needs to run programs: kernels, threads, memory.
 *
 * Programs that never run at the same time (training, evaluation, other batch shapes)
 * share one activation region and one workspace, sized for the hungriest. */
#ifndef HEADWAY_ENGINE_H
#define HEADWAY_ENGINE_H

#include "backend/backend.h"

enum { ENGINE_PROGRAMS = 64 };

struct engine {
    struct backend backend;
    struct pool *pool;
    struct trace trace;
    const struct lane_driver *lanes; /* set before programs that communicate run; else NULL */
    struct program *programs[ENGINE_PROGRAMS];
    int n_programs;
    void *region, *workspace;
    i64 region_bytes, workspace_bytes, kept_bytes; /* the last: inputs and results */
    const struct inject *inject; /* set before programs run; NULL: nothing is disturbed */
    struct pool *one_thread;
    const char *away_folder; /* where slower memory is, for programs with tensors there */
    void *away;
    i64 away_bytes;
    struct arena arena; /* inputs and results of the programs */
};

/* threads 0: one per core this process may use. backend as in backend_init. */
int engine_init(struct engine *e, const char *backend, int threads, i64 trace_spans);
void engine_fini(struct engine *e);

/* Checks that every op has a kernel and counts the program's memory in. */
int engine_add(struct engine *e, struct program *p);
/* Bytes that engine_commit will map. */
i64 engine_bytes(const struct engine *e);
/* Maps the region and workspace and binds every program added. Once. */
int engine_commit(struct engine *e);

/* One step; fails only when a lane does. The backend may be a copy with other kernels
 * for some ops (another loader). */
int engine_run(struct engine *e, const struct program *p, const struct backend *backend,
                u64 step);
/* A prepared struct run, for callers that walk actions themselves. */
struct run engine_context(struct engine *e, u64 step);

#endif
