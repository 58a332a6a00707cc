/* backend/backend.h - a table of kernels, and the executor that walks a program.
 *
 * A backend starts full of reference kernels (each op's run_ref), or empty, and is then
 * overridden by better ones. Which table to use is decided once at start by the
 * instruction sets of this machine; a program that meets an op without a kernel refuses
 * to start and names the op. */
#ifndef HEADWAY_BACKEND_H
#define HEADWAY_BACKEND_H

#include "base/pool.h"
#include "graph/program.h"
#include "trace/trace.h"

enum { BACKEND_OPS = 64 };

/* What a kernel may use besides its task. Nothing in it is allocated during a step. */
struct run {
    const struct backend *backend;
    struct pool *pool;
    void *workspace; /* workspace_bytes, shared by all threads, 64-byte aligned */
    i64 workspace_bytes;
    u64 step;
    int micro_batch;
    void *context;       /* of this kernel's row */
    struct trace *trace; /* may be NULL */
    /* Called after each task, for tests and the search for the first bad tensor. */
    void (*after_task)(void *context, const struct task *t);
    void *after_context;
};

/* True when a task that sums into its outputs must keep what is there. */
static inline bool run_accumulates(const struct task *t, const struct run *x)
{
    return t->accumulate == ACCUMULATE_ALWAYS ||
           (t->accumulate == ACCUMULATE_STEP && x->micro_batch > 0);
}

struct kernel {
    kernel_fn run;
    /* Scratch that the task needs with this many threads; NULL: none. */
    i64 (*workspace)(const struct task *t, int threads);
    void *context;
};

struct backend {
    const char *name; /* reference, generic, avx2, avx512, avx512bf16 */
    struct kernel kernels[BACKEND_OPS]; /* by position in op_table */
};

/* Which of the names this machine can run; backend_best is the fastest of them. */
bool backend_supported(const char *name);
const char *backend_best(void);
/* "auto" is backend_best. ERR_USAGE for an unknown name, ERR_LIMIT when the processor
 * lacks the instructions. */
int backend_init(struct backend *b, const char *name);
void backend_set(struct backend *b, const struct op_info *op, struct kernel kernel);
const struct kernel *backend_kernel(const struct backend *b, const struct op_info *op);

/* Workspace for the program's hungriest task; ERR_INTERNAL naming an op without kernel. */
int backend_check(const struct backend *b, const struct program *p, int threads,
                  i64 *workspace_bytes);

/* Runs one action, or a whole step. The program must be bound, every tensor have data. */
void exec_action(const struct program *p, i64 action, struct run *x);
void exec_program(const struct program *p, struct run *x);

#endif
