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

enum { BACKEND_OPS = 128 };

struct kernel {
    kernel_fn run;
    /* Scratch that the task needs with this many threads; NULL: none. */
    i64 (*workspace)(const struct task *t, int threads, const void *context);
    void *context; /* the kernel finds it in run.context */
};

struct backend {
    const char *name; /* reference, generic, avx2, avx512, avx512bf16, amx; none */
    bool rounds_within; /* attention of bf16: what is multiplied again is rounded to bf16 */
    bool sleeps;      /* its kernels compute nothing and take what is injected into account */
    struct kernel kernels[BACKEND_OPS]; /* by position in op_table */
};

/* Which of the names this machine can run; backend_best is the fastest of them. That is
 * avx512 and not avx512bf16 where vdpbf16ps is slower than multiply-adds in f32: bf16
 * operands are then widened while they are packed. */
bool backend_supported(const char *name);
const char *backend_best(void);
/* "auto" is backend_best. ERR_USAGE for an unknown name, ERR_LIMIT when the processor
 * lacks the instructions, or the kernel does not let them be used (amx). */
int backend_init(struct backend *b, const char *name);
void backend_set(struct backend *b, const struct op_info *op, struct kernel kernel);
const struct kernel *backend_kernel(const struct backend *b, const struct op_info *op);

/* Workspace for the program's hungriest task; ERR_INTERNAL naming an op without kernel. */
int backend_check(const struct backend *b, const struct program *p, int threads,
                  i64 *workspace_bytes);

/* Runs one action, or a whole step. The program must be bound, every tensor have data.
 * Compute tasks run here and now, in order; tasks of other lanes are handed to x->lanes and
 * waited for by the first task that needs what they read or write. Fails only when a lane
 * fails. exec_program ends with all lanes at rest; after exec_action they may be busy. */
int exec_action(const struct program *p, i64 action, struct run *x);
int exec_program(const struct program *p, struct run *x);
/* Waits for all lanes that this program uses. */
int exec_drain(const struct program *p, struct run *x);

/* Where a rank stands in its step, for those who run several ranks in one thread: with
 * x->yields, exec_resume returns EXEC_BLOCKED instead of waiting, and goes on from there when
 * called again; OK when the step is done. */
enum { EXEC_BLOCKED = 1 };
struct exec_cursor {
    i64 action, task;
};
int exec_resume(const struct program *p, struct exec_cursor *at, struct run *x);

#endif
