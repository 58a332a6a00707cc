/* graph/graph.h - building the list of tasks.
 *
 * Think of a graph as a growing flat list of tasks plus the tensors between them. A
 * model appends forward tasks through the builder functions of ops/ops.h; graph_backward
 * appends their gradients; passes (recompute, head chunks, layouts) rewrite the list;
 * program_new (program.h) seals it into segments with planned memory.
 *
 * An op is one file in ops/: struct op_info is what such a file exports. Errors are
 * sticky: after the first, graph->rc is negative, builders return NULL and do nothing, so
 * that model code reads as straight mathematics. Check graph->rc once at the end. */
#ifndef HEADWAY_GRAPH_H
#define HEADWAY_GRAPH_H

#include "base/arena.h"
#include "base/err.h"
#include "graph/tensor.h"

enum { TASK_INS = 8, TASK_OUTS = 8, TASK_ATTRS = 13 };

enum phase {
    PHASE_FORWARD,     /* F */
    PHASE_INPUT_GRAD,  /* I: what earlier layers wait for */
    PHASE_WEIGHT_GRAD, /* W: free to move behind I */
    PHASE_UPDATE,      /* once per step */
    PHASES
};

/* An ordered queue of tasks. Tasks of the compute lane run where they stand in the list;
 * tasks of the others begin where they stand and go on beside what follows, until a task
 * needs what they touch. One lane per axis of the mesh that communicates, and one for
 * copies to and from slower memory. */
enum lane {
    LANE_COMPUTE, LANE_TP, LANE_CP, LANE_DP,
    LANE_SHARD, LANE_COPIES, /* groups of the ranks of LANE_DP, and across these groups */
    LANE_PP,  /* sends and receives of a pipeline end in any order */
    LANE_TIE, /* the first and the last stage, which share a table */
    LANE_EP,  /* ranks with different experts; LANE_EDP: those with the same */
    LANE_EDP,
    LANE_ISLAND, /* between islands, once in many steps (parallel/islands.h) */
    LANE_AWAY, LANE_COUNT
};

/* Tasks of these lanes end in the order in which they were started, and none needs what another
 * of its lane moves: a pipeline's do the one, a ring's the other. */
static inline bool lane_in_order(enum lane lane)
{
    return lane != LANE_PP && lane != LANE_CP;
}

/* How a task that sums into its outputs begins. Settled by program_new from the final
 * order of tasks. */
enum accumulate {
    ACCUMULATE_NONE,  /* outputs are plainly written */
    ACCUMULATE_STEP,  /* first writer: overwrites in micro-batch 0, adds afterwards */
    ACCUMULATE_ALWAYS /* later writers add */
};

/* What a task costs. The only place where FLOPs and bytes are counted. */
struct cost {
    double flops;       /* executed floating-point operations; a multiply-add is two */
    double model_flops; /* the part that the model's mathematics needs: no recompute */
    double read_bytes, written_bytes; /* least traffic: each operand once */
    double message_bytes;             /* sent to other ranks */
};

struct task {
    const struct op_info *op;
    struct tensor *in[TASK_INS]; /* optional ones may be NULL */
    struct tensor *out[TASK_OUTS];
    double attr[TASK_ATTRS]; /* meaning per op: enums in ops/ops.h */
    enum phase phase;
    enum accumulate accumulate;
    int layer;           /* -1 outside the blocks */
    enum lane lane;
    bool first_turn, last_turn; /* runs in the step's first, last micro-batch only */
    bool fresh;          /* begins its sums anew every time: later tasks take them away */
    bool recompute;      /* a clone that a recompute pass inserted */
    bool head;           /* belongs to the chunked loss head */
    int chunk;           /* which chunk of it, else 0 */
    int part;            /* which of the rank's pipeline stages, else 0 */
    struct tensor *when; /* i32[1]: run only when it is not 0; NULL: always */
    struct cost cost;    /* filled by graph_add from op->cost */
    u32 id;              /* position in the sealed program; names its spans */
};

struct run; /* run.h: what a kernel may use besides its task */
struct graph;
struct op_example;

typedef void (*kernel_fn)(const struct task *t, struct run *x);

/* Whether it runs in this of so many micro-batches. */
static inline bool task_has_turn(const struct task *t, int micro_batch, int micro_batches)
{
    return (!t->first_turn || micro_batch == 0) &&
           (!t->last_turn || micro_batch == micro_batches - 1);
}

struct op_info {
    const char *name;
    int n_in, n_out;  /* at most; which are optional is said in ops/ops.h */
    bool accumulates; /* out[] are sums over micro-batches and tasks (see accumulate) */
    u32 sums;         /* when accumulates: bit i set if out[i] is such a sum; 0 means all */
    u32 in_place;     /* bit i: one output may occupy the bytes of in[i], when sizes match: */
    int in_place_out; /* ... this one */
    bool sends, receives; /* to or from another stage of a pipeline: segments of their own; what
                           * is received has a gradient that goes back */
    bool waits;       /* nothing to compute: only what it reads must be complete */
    bool cheap;       /* remaking the outputs costs less than keeping them: norms,
                       * activation functions (selective recompute) */
    /* Checks in[] and attr[], and creates each out[] that the builder left NULL and that
     * is not optional. Negative with a message (graph_fail) when shapes do not fit. */
    int (*infer)(struct graph *g, struct task *t);
    /* Appends the tasks that turn gradients of out[] into gradients of in[]. NULL: nothing
     * upstream is reached through this op. */
    void (*grad)(struct graph *g, const struct task *t);
    void (*cost)(const struct task *t, struct cost *c);
    /* The truth: plain loops in double, any dtype, one thread. Optimised kernels are
     * judged by it and the reference backend runs it. NULL for ops whose work lives in a
     * higher room (load_batch). */
    kernel_fn run_ref;
    /* Scratch of run_ref, as struct kernel's; NULL: none. */
    i64 (*ref_workspace)(const struct task *t, int threads, const void *context);
    /* Describes the n-th small example of this op, with odd shapes, for self-tests of
     * kernels and gradients; false when there is no n-th. See ops/example.h. */
    bool (*example)(struct op_example *e, int n);
};

struct graph {
    struct arena *arena;
    struct tensor **tensors; /* owned activations, views, inputs: everything made here */
    i64 n_tensors, cap_tensors;
    struct task **tasks;
    i64 n_tasks, cap_tasks;
    int rc; /* first error, sticky */
    /* Stamped on new tasks: */
    enum phase phase;
    int layer;
    bool head;
    int chunk, part;
    struct backward *backward; /* live during graph_backward */
};

void graph_init(struct graph *g, struct arena *arena);

/* --- tensors ----------------------------------------------------------------------- */
/* A new tensor of this graph; name is printf-like and copied. NULL after an error. */
struct tensor *graph_tensor(struct graph *g, enum tensor_role role, enum dtype dtype,
                            int rank, const i64 *dim, const char *fmt, ...)
    PRINTF_LIKE(6, 7);
/* Activations: with the shape of `like`; one- and two-dimensional ones. */
struct tensor *graph_like(struct graph *g, const struct tensor *like, enum dtype dtype,
                          const char *name);
struct tensor *graph_vector(struct graph *g, enum dtype dtype, i64 n, const char *name);
struct tensor *graph_matrix(struct graph *g, enum dtype dtype, i64 rows, i64 columns,
                            const char *name);
/* Rows [row, row + rows) of the first dimension; a view of a view is one of its owner. */
struct tensor *graph_view(struct graph *g, struct tensor *of, i64 row, i64 rows);

/* Makes a tensor that was made elsewhere one of this graph's activations; views after their
 * owner. It must have no data. */
void graph_adopt(struct graph *g, struct tensor *t);

/* --- tasks ------------------------------------------------------------------------- */
/* Appends a copy of *proto (op, in, out, attr, when, phase from g), after infer and cost.
 * NULL on error (sticky). */
struct task *graph_add(struct graph *g, const struct task *proto);
/* The same at position `at` of the list, as part of the stage that the task before it is of. */
struct task *graph_add_at(struct graph *g, i64 at, const struct task *proto);
/* Makes room and inserts at position `at`; for passes. */
void graph_insert(struct graph *g, i64 at, struct task *t);
/* Sets the sticky error with a message that names the op and its layer. */
int graph_fail(struct graph *g, const struct task *t, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* --- backward ---------------------------------------------------------------------- */
/* Appends gradient tasks for tasks [first, last), from the last to the first. Gradients
 * begin at ops that know their own (xent writes dlogits itself). */
int graph_backward(struct graph *g, i64 first, i64 last);

/* y = a + b: the one op that differentiation itself appends, so it is declared here and
 * defined in ops/add.c. */
struct tensor *add(struct graph *g, struct tensor *a, struct tensor *b);

/* The rest is for op->grad. */
/* Upstream gradient of an output (parts already summed), or NULL: nothing depends on it. */
struct tensor *grad_of(struct graph *g, struct tensor *t);
/* True when t's gradient is wanted: it leads back to a weight with a gradient. */
bool grad_needed(struct graph *g, const struct tensor *t);
/* A tensor to write the gradient of activation t into, in t's dtype (or f32:
 * wide_grad); when t is a view, the same rows of its owner's gradient (so views of
 * one tensor must not overlap). Report it with grad_add after adding the task. */
struct tensor *grad_target(struct graph *g, struct tensor *t);
/* dt is (part of) the gradient of t. Several parts are summed by `add` tasks. */
void grad_add(struct graph *g, struct tensor *t, struct tensor *dt);
/* Takes the parts of t's gradient so far, for the caller's own task to add (fusion); NULL
 * when there are none. The caller must grad_add the sum. */
struct tensor *grad_take(struct graph *g, struct tensor *t);

#endif
