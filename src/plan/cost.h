/* plan/cost.h - what a step of a layout costs on a machine that one does not have.
 *
 * Three pieces, from slow to fast:
 *
 *     operators  what one layer, the embedding and the head consist of for (tp, cp, ep, rows):
 *                taken from the program that a rank would run (layer_costs.h); independent of
 *                the machine
 *     table      the same in seconds, bytes and parameters, for one device, its calibration
 *                (efficiency.h) and a software stack (stack.h)
 *     step       closed form over a table: pipeline, micro-batches, messages that nothing hides,
 *                update, memory. Pure, allocates nothing, takes well under a microsecond
 *
 * The step's terms sum to its seconds, and its memory terms to its bytes.
 * Formulas: Narayanan et al. 2021 (pipelines), Korthikanti et al. 2022 (sequence parallel,
 * recompute), Rajbhandari et al. 2020 (what is split over data ranks), and
 * collectives by latency and bytes per second. */
#ifndef HEADWAY_PLAN_COST_H
#define HEADWAY_PLAN_COST_H

#include "graph/program.h"
#include "model/spec.h"
#include "parallel/schedule.h"
#include "plan/machine_file.h"

/* --- what is priced ------------------------------------------------------------------- */

struct plan_layout {
    i64 tp, cp, pp, dp, ep;    /* devices: tp cp pp dp; ep divides dp cp */
    i64 micro_batch;           /* sequences */
    i64 micro_batches;         /* of one data rank, per step */
    i64 virtual_stages;        /* per device; 1: not interleaved */
    int schedule;              /* enum schedule_kind; interleaved where virtual_stages > 1 */
    int recompute;             /* enum recompute */
    i64 zero;                  /* enum zero_stage */
    i64 zero_group;            /* ranks that split what zero splits; 0: all along dp and cp */
    bool sequence_parallel;    /* rows between cut matrices are cut too */
    bool offload;              /* optimizer state in the host's memory */
};

struct plan_family; /* efficiency.h */
struct plan_stack;  /* stack.h */

struct plan_job {
    const struct model_spec *spec;
    i64 sequence;              /* tokens of a row */
    i64 global_batch;          /* rows of a step, all ranks together */
    double tokens;             /* of the run; 0: one step is asked about */
    int dtype;                 /* enum plan_dtype: of the products */
    const struct plan_machine *machine;
    const struct plan_family *family; /* constants of the device's compute */
    const struct plan_stack *stack;   /* whose software runs it */
    i64 devices;
    bool any;                  /* layouts that the stack does not run, too (stack_runs.h) */
    bool frozen;               /* weights stay as they are: only adapters learn (LoRA), whose own
                                * work and memory are so small that they are left out */
};

/* --- tables --------------------------------------------------------------------------- */

/* Seconds of some operators, by what takes them. They sum. */
struct plan_seconds {
    double ideal;    /* model FLOPs at the device's peak */
    double shape;    /* what products and attention take beyond that */
    double memory;   /* work that moves bytes */
    double launch;   /* the device waits for the host, which starts kernels at its own pace */
};

static inline double plan_seconds_sum(const struct plan_seconds *s)
{
    return s->ideal + s->shape + s->memory + s->launch;
}

/* PLAN_MTP: what predicts one more token, besides a block and a head like the model's. */
enum plan_part { PLAN_DENSE, PLAN_SPARSE, PLAN_EMBEDDING, PLAN_HEAD, PLAN_MTP, PLAN_PARTS };

/* One layer (or the embedding, or the head with its loss) for one micro-batch on one rank. */
struct plan_piece {
    struct plan_seconds forward, backward;
    double weight_seconds;        /* of backward's, those of weight gradients */
    struct plan_seconds again[3]; /* by enum recompute: what is computed a second time */
    double flops;                 /* forward and backward together, without recompute */
    double again_flops[3];
    double tp_forward, tp_backward, tp_again[3]; /* seconds of messages that nothing hides */
    double cp_forward, cp_backward;
    double slack[3];              /* by enum recompute: seconds that the host is ahead after
                                   * forward and backward */
    double ep_forward, ep_backward;
    double parameters;            /* elements here that every data rank has */
    double expert_parameters;     /* and those that ranks along ep have others of */
    double kept_bytes[3];         /* by enum recompute: from forward to backward */
    double working_bytes[3];      /* more, while this piece is computed */
};

struct plan_table {
    i64 tp, cp, ep, micro_batch;
    bool sequence_parallel;
    struct plan_piece pieces[PLAN_PARTS];
    i64 dense_layers, sparse_layers;
    i64 mtp_depth;         /* tokens predicted besides the next one, on the last stage */
    double head_layers;    /* the head's products are those of so many layers */
    double batch_launch;   /* seconds of the host per micro-batch besides its layers */
    double pipeline_launch; /* and per layer and micro-batch, in pipelines over several nodes */
    double step_launch;    /* and per step */
    double boundary_gather; /* seconds of gathering what came from another stage along tp */
    double boundary_bytes; /* that a stage sends to the next one, per micro-batch and rank */
};

/* Seconds of an exchange among `ranks` ranks that are `stride` apart, in which each sends so many
 * bytes in so many steps, at the middle of the band. Ranks that links join (the first tier) share
 * out their ports to others; every group of the machine is taken to exchange at the same time. */
double plan_exchange_seconds(const struct plan_job *job, i64 ranks, i64 stride, double bytes,
                             double steps);

/* The same of a sum of so many bytes that all of them have, and have afterwards. */
double plan_sum_seconds(const struct plan_job *job, i64 ranks, i64 stride, double bytes);

/* Makes the table of a job for these degrees. ERR_MODEL where such a layout cannot exist (heads
 * that tp does not divide ...), with a sentence. What it needs in between lies in the arena. */
int plan_table_new(struct plan_table *out, const struct plan_job *job,
                   const struct plan_layout *layout, struct arena *a);

/* --- a step --------------------------------------------------------------------------- */

enum plan_term {
    PLAN_IDEAL, PLAN_SHAPE, PLAN_MEMORY_BOUND, PLAN_LAUNCH, PLAN_RECOMPUTE,
    PLAN_TP, PLAN_CP, PLAN_EP, PLAN_PP, PLAN_DP, /* messages that nothing hides */
    PLAN_IMBALANCE, /* other stages wait for the slowest one */
    PLAN_BUBBLE, PLAN_OPTIMIZER, PLAN_STRAGGLER, PLAN_TERMS
};
extern const char *const plan_term_names[PLAN_TERMS];

enum plan_memory {
    PLAN_WEIGHTS, PLAN_GRADIENTS, PLAN_OPTIMIZER_STATE, PLAN_ACTIVATIONS, PLAN_WORKING,
    PLAN_LOGITS, PLAN_BUFFERS, /* of messages */
    PLAN_RUNTIME,              /* the device's context and the allocator's loss */
    PLAN_MEMORIES
};
extern const char *const plan_memory_names[PLAN_MEMORIES];

struct plan_step {
    double seconds;
    double terms[PLAN_TERMS];
    struct plan_band band;      /* of seconds */
    double flops;               /* of all devices together, with what is computed again */
    double memory_bytes;        /* of the fullest rank */
    double memory[PLAN_MEMORIES];
    int binding;                /* enum plan_memory: the largest of them */
    bool fits;                  /* in what the device's memory leaves to a program */
};

/* NULL when such a layout can exist for this job, else what is wrong with it (a constant text):
 * degrees against devices, batch, layers, heads, tokens. */
const char *plan_layout_refused(const struct plan_job *job, const struct plan_layout *l);

/* The layout is not refused and the table is that of its degrees. */
void plan_step_of(const struct plan_job *job, const struct plan_layout *l,
                  const struct plan_table *table, struct plan_step *out);

/* The share of moves between stages that computing hides: what the software hides with several parts
 * to a rank or with weight gradients in between. A stage of plain 1F1B or GPipe has nothing else to
 * do (Megatron-LM turns it off there: "non-interleaved schedule does not support overlapping"). */
double plan_moves_hidden(const struct plan_stack *s, const struct plan_layout *l);

/* What stages of a pipeline wait for their neighbours, where the job's software stalls at all:
 * for each of a stage's neighbours in each micro-batch, and half as long on the way of the
 * first one. */
double plan_stall_seconds(const struct plan_job *job, const struct plan_layout *l);

/* What a step consists of, for who walks it in time: seconds of one micro-batch on all stages of
 * the first rank of a pipeline, of one in the middle and of the last, and of one message. */
struct plan_stages {
    struct stage_time first, middle, last;
    double boundary_s;          /* between neighbouring stages, one way */
    double reduce_s, gather_s;  /* of data ranks, in a step (with zero 3: for each micro-batch; and
                                 * gather_s for each of its passes) */
    double update_s, stall_s;   /* stall_s: what the software is known to stall in a step */
};
void plan_stages_of(const struct plan_job *job, const struct plan_layout *l,
                    const struct plan_table *table, struct plan_stages *out);

/* The memory terms alone; also whether it fits. */
void plan_memory_of(const struct plan_job *job, const struct plan_layout *l,
                    const struct plan_table *table, struct plan_step *out);

#endif
