/* plan/expert_trade.h - rows on their way to experts of other ranks.
 *
 * An all-to-all is no ring: what a rank sends to other nodes leaves by its own port, whole, where a
 * gather's bytes leave a node by the ports of all its ranks. So among ranks of several nodes it
 * takes as long as one port needs for them (bus bandwidth of 81 GB/s among 16 devices and 45 to 58
 * among more, with ports of 50 GB/s: facts/network_calibration.csv).
 *
 * Software may send a row once to each node that has an expert of it, whence it goes on to ranks by
 * the node's links, and once to each of those; what comes back is summed the same way (DeepSeek-V3
 * report, 2024, section 3.2.2; DeepEP). Of n places that are equally likely k choices meet
 * n (1 - (1 - 1/n)^k) on average, of those places that have experts of the row's groups. Pure. */
#ifndef HEADWAY_PLAN_EXPERT_TRADE_H
#define HEADWAY_PLAN_EXPERT_TRADE_H

#include "plan/cost.h"

struct plan_trade {
    i64 ranks, stride;  /* of the group, as those of plan_exchange_seconds */
    double rows;        /* that a rank has */
    double row_bytes;
    double choices;     /* experts of a row */
    double groups, group_limit; /* of experts, and of how many a row's are at most; 0: any */
    bool once;          /* a row goes once to a node and once to a rank */
};

/* One way, its start not counted. */
double plan_trade_seconds(const struct plan_job *job, const struct plan_trade *t);

#endif
