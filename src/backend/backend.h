/* backend/backend.h - a table of kernels, and the executor that walks a program.
 *
 * A backend starts full of reference kernels (each op's run_ref), or empty, and is then
 * overridden by better ones. Which table to use is decided once at start by the
 * instruction sets of this machine; a program that meets an op without a kernel refuses
 * to start and names the op. */
#ifndef HEADWAY_BACKEND_H
#define HEADWAY_BACKEND_H

#include "graph/program.h"
#include "graph/run.h"

enum { BACKEND_OPS = 64 };

struct kernel {
    kernel_fn run;
    /* Scratch that the task needs with this many threads; NULL: none. */
    i64 (*workspace)(const struct task *t, int threads, const void *context);
    void *context; /* the kernel finds it in run.context */
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
