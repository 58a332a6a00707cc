/* plan/stack.h - what software does with the same operators.
 *
 * The operators of a layer are mathematics; how many kernels they become, what is fused,
 * what is kept for the backward pass and what messages hide behind is a property of the
 * framework. A stack is a YAML file in machines/stacks that says so; every plan prints
 * which one it assumed. */
#ifndef HEADWAY_STACK_H
#define HEADWAY_STACK_H

#include "plan/stack_runs.h"

/* How gradients that data ranks split are summed: each part where it is kept, each by a
 * reduction of its own to there, or all of them everywhere. */
enum plan_sums { SUMS_SCATTERED, SUMS_REDUCED, SUMS_EVERYWHERE };

enum plan_attention_kind {
    STACK_FUSED,  /* one kernel; scores never reach memory */
    STACK_SCORES  /* two products and a softmax between them, over all pairs of tokens */
};
enum plan_selective {
    SELECTIVE_ATTENTION, /* the attention core */
    SELECTIVE_CHEAP,     /* what moves bytes */
    SELECTIVE_HALF       /* that and every second product; attention stays */
};

/* What layers of experts take of the host, and on the device besides their operators. */
struct plan_expert_work {
    double forward, backward;  /* kernels more than a layer without: router, order, exchanges */
    double each_forward, each_backward; /* and for each expert of a rank; 0: one has all */
    double casts;              /* more for each of them and way, where operands are cast */
    bool waits;                /* the host reads how many rows each expert has before it goes on */
    double sorts;              /* how often rows are put in order, each way, where others sent them */
    bool folds;                /* with ep, ranks along tp have experts of their own */
    bool once;                 /* rows go once to each node and rank (expert_trade.h) */
};

struct plan_stack {
    const char *name, *provenance;
    const char *like;          /* name of a stack with the same kernels, whose steps count as seen; NULL */
    struct option_strings seen; /* families of devices on which steps of it were fitted */
    struct option_strings frameworks; /* beginnings of how tables of measurements call it */
    int attention;             /* enum plan_attention_kind */
    i64 generation;            /* of fused attention: 1 FlashAttention and Triton's, 2 FlashAttention-2,
                                * 3 kernels made for the device (cuDNN from H100 on, FlashAttention-3) */
    i64 softmax_multiple;      /* scores' softmax is one kernel where micro-batch x heads of a rank
                                * is a multiple of it; else several, over fp32 copies. 0: always */
    double kernels_softmax;    /* that the host starts more for that, forward; backward as many */
    double softmax_bytes;      /* moved per score more, forward; backward as many */
    double scores_bytes;       /* moved per score more, forward, whatever the softmax: biases of positions */
    bool dropout;
    double kernels_forward, kernels_backward; /* that the host starts for a layer */
    double kernels_batch;      /* and besides, for a micro-batch on a stage: embedding, loss, loop */
    double kernels_exchange;   /* and for an exchange within a layer, its own and what goes before and after */
    double kernels_pipeline;   /* and for a layer and each rank along tp, in pipelines over several
                                * nodes */
    bool blocking_moves;       /* of stages: one way after the other, while neither of both computes */
    i64 move_passes;           /* over rows that came from another stage in parts, to put them together
                                * along tp; 0: they stay cut, or nobody counts it */
    bool balanced;             /* stages get layers by what they compute, the head included */
    bool blocking;             /* the host waits for the end of each kernel before it starts the next:
                                * its time and the device's are summed */
    double kernels_step;       /* and for a step: norms, clipping, update, logging */
    double passes_forward, passes_backward; /* over a layer's rows, of 2 bytes x width, besides
                                             * those of the operators' own traffic */
    double cut_forward, cut_backward;       /* the same over what tp cuts of them: heads, queries, keys */
    int selective;             /* enum plan_selective: what selective recompute remakes */
    bool keeps_gathered;       /* rows that tp ranks gathered stay for the backward pass */
    bool keeps_casts;          /* of rows that products of fewer than 16 bits multiply, the copy stays */
    double kept;               /* bytes of activations that stay, times those of the program */
    double weight_bytes, gradient_bytes, state_bytes; /* held per parameter */
    double message_bytes;      /* of one gradient, between data ranks */
    double cast_bytes;         /* that casting moves per element of what goes into products of fewer
                                * than 16 bits: rows and their gradients; 0: it is not counted */
    double accumulate_bytes;   /* that adding a micro-batch's gradient to the sum moves per weight */
    double loss_bytes;         /* that the loss moves per logit besides its operators' traffic */
    double update_bytes;       /* that the update moves per parameter of the rank */
    double dp_overlap, tp_overlap, pp_overlap, ep_overlap; /* share of such messages that computing
                                                            * may hide */
    struct plan_expert_work experts;
    double sum_units, gradient_units; /* multiprocessors that exchange rows along tp beside products
                                * whose result is summed, and beside gradients of those whose rows
                                * were gathered */
    double expert_units;       /* multiprocessors that move experts' rows, and so do not compute beside that */
    bool overlaps_gradients;   /* tp's exchanges in the backward pass go beside gradients of products:
                                * sums beside those of weights, rows that are gathered again beside
                                * those of inputs */
    bool waits_for_weights;    /* that ranks updated parts of: gathered before the next step, beside
                                * nothing */
    int sums;                  /* enum plan_sums */
    double split_rate;         /* share of the network that messages of what data ranks split reach,
                                * beside those of whole gradients */
    i64 vocab_multiple;        /* rows of the head are padded to that, times tp */
    bool vocab_alone;          /* also where tp is 1; else they are as many as words there */
    i64 since;                 /* year from which software of this name is like this; 0: always */
    i64 until;                 /* and the last one; 0: up to now */
    struct option_strings precisions; /* of rows whose software is like this; none: of all */
    struct option_strings models;     /* beginnings of names of models that it runs so; none: all */
    struct option_strings fitted; /* keys of values that headway plan calibrate finds */
    double logit_bytes;        /* held per logit at the end of the forward pass */
    double runtime_bytes;      /* context, libraries, buffers of messages */
    double usable;             /* of what memory is left, by tensors: the rest is lost between them */
    double stall_s;            /* seconds that a stage of a pipeline waits per micro-batch for each of
                                * its neighbours, on so many nodes and more; unexplained */
    double stall_sum_s;        /* and that data ranks which split nothing wait for the sum of their
                                * gradients, once a step, on so many nodes; unexplained */
    double stall_nodes, stall_from; /* so many: they do; from stall_from on: they may */
    double stall_memory;       /* they do where a stage takes more than this share of memory, too */
    double stall_tp;           /* and where so many ranks and more share each matrix */
    double residual_lo, residual_hi; /* as a family's, where its runs scatter otherwise; both 0:
                                      * the family's */
    double interval;           /* ends of the family's interval are so many times as far out: 2, a
                                * rule, where no step of this software was fitted */
    double factor;             /* seconds of computing, times this: 1 unless declared */
    struct plan_runs runs;     /* layouts that it has */
};

extern const struct option plan_stack_options[];

/* Ranks among which experts are shared out, or copied; and how far apart neighbours of them are. */
i64 plan_expert_sharers(const struct plan_stack *s, const struct plan_layout *l);
i64 plan_expert_stride(const struct plan_stack *s, const struct plan_layout *l);

/* Rows of the head that so many words get. */
i64 plan_stack_vocab(const struct plan_stack *s, i64 words, i64 tp);

/* A name in machines/stacks, or a path. */
int plan_stack_load(struct plan_stack *out, const char *name, struct arena *a);

#endif
