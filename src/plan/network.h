/* plan/network.h - how long ranks take to exchange something, on the tiers of a machine.
 *
 * A message over a tier takes latency + bytes / rate (alpha and beta). A collective is priced by
 * several algorithms and takes the quickest, as libraries choose by size:
 *
 *     ring          n - 1 steps around all ranks; bytes of all tiers flow at once, and what leaves
 *                   a domain leaves it by the links of all its members
 *     tree          log2 steps up or down, pieces in a row behind each other: allreduce, broadcast
 *     doubling      log2 steps to ranks at doubling distance
 *     hierarchical  rings within the domains of each tier, then across them with what is left
 *     in-switch     the node's switch sums (NVLink SHARP); a tree joins nodes. Allreduce
 *     direct        every rank to every other: all-to-all, sendrecv
 *
 * Over tiers whose collectives were timed (plan_tier.piece_bytes) an allreduce, a gather and a scatter
 * take what they took, whatever the algorithm.
 *
 * bytes is the whole buffer X: an allreduce and a broadcast of X, a gather that ends with X at each
 * rank, a scatter that begins with it, an all-to-all where each rank has X; sendrecv: the message.
 * Each rank then sends at least 2 (n-1)/n X, (n-1)/n X ... (Thakur, Rabenseifner and Gropp 2005).
 *
 * Ranks of a group are `stride` apart. While one group communicates, its neighbours (the other
 * offsets below the stride) do the same: each rank has its own share of the way out of its node,
 * so they share nothing, but for what oversubscription takes from all of them. `sharers` says how
 * many other exchanges use the same ranks' links at the same time.
 *
 * Pure: holds no memory. Sources: Chan et al. 2007 (collectives), Hockney 1994 (alpha-beta). */
#ifndef HEADWAY_PLAN_NETWORK_H
#define HEADWAY_PLAN_NETWORK_H

#include "plan/machine_file.h"

enum net_op { NET_ALLREDUCE, NET_ALLGATHER, NET_REDUCE_SCATTER, NET_ALLTOALL, NET_BROADCAST,
              NET_SENDRECV, NET_OPS };
extern const char *const net_op_names[NET_OPS];

struct net_group {
    i64 ranks, stride; /* stride 1: neighbours */
    double sharers;    /* of each rank's links; at least 1 (0 counts as 1) */
};

/* A group's ranks by tier: fan[i] domains of tier i - 1 meet in one of tier i. Their product is
 * the number of ranks, or more where it does not divide. Returns how many tiers it spans: 0 for
 * one rank. */
int net_spread(const struct plan_machine *m, struct net_group g, i64 fan[PLAN_TIERS]);

/* Seconds by one algorithm, at latencies and rates of the middle; INFINITY where it does not
 * serve the operation. */
double net_seconds_by(const struct plan_machine *m, enum net_op op, enum net_algorithm how,
                      struct net_group g, double bytes);

/* Seconds by the quickest; band.lo is with the quick ends of all bands. how may be NULL. */
struct plan_band net_seconds(const struct plan_machine *m, enum net_op op, struct net_group g,
                             double bytes, enum net_algorithm *how);

/* What benchmarks call bus bandwidth: bytes that each rank must send / seconds. */
double net_bus_bytes(enum net_op op, i64 ranks, double bytes);

#endif
