/* plan/replay.h - one step of a large cluster, event by event.
 *
 * The order of work is the one that the trainer would follow (parallel/schedule.h), for every
 * stage, micro-batch and replica. What is walked are *cells*: the ranks of one stage and replica
 * that exchange within each layer (tp, cp, ep) and therefore go in lockstep, at the pace of the
 * slowest. A cell computes one action after another, and beside it has links of its own:
 *
 *     move     between neighbouring stages: begins when both sides have come and the boundary's
 *              last one has ended
 *     gather   weights of a stage, from all replicas, before its first forward pass; or, with
 *              `each`, before every action, one action ahead
 *     reduce   gradients of a stage, with all replicas, after its last action; or after each
 *
 * Gathers and reduces of a stage's replicas are in order on one channel and begin when all have
 * come. With `shared`, what goes over one cell's link at once shares it equally: a move has
 * a half while a reduce goes on. While a link carries data, computing takes 1 + tax as long. After
 * its last reduce a cell meets all others (the gradient's norm) and takes its update.
 *
 * Chance is counted, not drawn: the same seed gives the same step, to the bit. Jitter is the
 * deviation of the logarithm of one rank's time for one action; a straggler is slower by slow_by
 * for the whole step.
 *
 * Without jitter, sharing and links it is schedule_time; with moves alone, plan_simulate. It leaves
 * out: what happens within an action, whose exposed exchanges are part of its seconds. */
#ifndef HEADWAY_PLAN_REPLAY_H
#define HEADWAY_PLAN_REPLAY_H

#include "parallel/schedule.h"

struct replay_stage {
    struct stage_time seconds; /* of a healthy rank, exposed exchanges within layers included */
    double gather_s, reduce_s; /* alone on their links; 0: none */
};

struct replay_step {
    const struct schedule *order;      /* checked, with its moves */
    const struct replay_stage *stages; /* [order->stages] */
    const double *first_s, *last_s;    /* [order->ranks]: one gather before a rank's first action,
                                        * one reduce after its last one; NULL: none */
    const double *update_s;            /* [order->ranks] */
    i64 replicas;                      /* cells with the same stage */
    i64 members;                       /* ranks of a cell */
    double move_s;                     /* one move, alone on its link */
    double tax;                        /* 0.15: computing takes 15 % longer beside a transfer */
    bool shared, each;
    u64 seed;
    double jitter, slow_share, slow_by;
};

/* Seconds of an average cell of one pipeline rank. The sum is the step's length. */
struct replay_rank {
    double busy;   /* computing, with all that is within actions */
    double moves;  /* waiting for a neighbouring stage, the bubble included */
    double gather; /* waiting for weights */
    double reduce; /* waiting for gradients after the last action */
    double others; /* waiting for the slowest cell */
    double update;
};

struct replay_span { /* of one action of replica 0 */
    i32 rank;
    struct schedule_action action;
    double begin, end;
};

struct replay_time {
    double length;
    i64 events, cells;
    struct replay_rank *ranks; /* [order->ranks] */
    struct replay_span *spans; /* [n_spans]: replica 0, in the order in which they end */
    i64 n_spans;
};

/* ERR_INTERNAL when cells would wait for ever, which a checked order excludes. */
int plan_replay(const struct replay_step *step, struct replay_time *out, struct arena *a);

#endif
