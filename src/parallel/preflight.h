/* parallel/preflight.h - before the first step: is every rank, and every link, as fast as the
 * others?
 *
 * A step is as slow as its slowest rank. Each rank times the same matrix product while all
 * others do, and exchanges a small and a large message with every other rank, one partner at
 * a time. Whoever is far from the rest is named before it has cost a night; the slowest link
 * stays in the metrics, for a ring does not tell which of its links is slow. Then all sum a
 * small and a large message: what an exchange takes where all are at it, and have to share
 * cores. */
#ifndef HEADWAY_PREFLIGHT_H
#define HEADWAY_PREFLIGHT_H

#include "backend/engine.h"
#include "base/inject.h"
#include "base/json.h"
#include "parallel/mesh.h"

/* What one rank found. */
struct preflight_rank {
    double flops;        /* of the product, FLOP/s, best of a few */
    double latency_s;    /* half a round trip of 8 bytes with its slowest partner */
    double bytes_per_s;  /* one way, 1 MiB, with its slowest partner; 0: no partners */
    i64 latency_peer, bytes_peer; /* who they are */
    double sum_small_s, sum_large_s; /* of a sum over all, 8 bytes and 1 MiB: best of some */
};

enum { PREFLIGHT_PAIRS = 128 };

struct preflight {
    struct preflight_rank *ranks;
    i64 n;
    double *pairs; /* [n][n] bytes/s one way between two, as the first found it; NULL: there are
                    * more than PREFLIGHT_PAIRS ranks */
};

/* Called by all ranks together. The ranks' results live in the arena. inject: links that are
 * slow on purpose are so here, too; NULL: none. */
int preflight_run(struct preflight *out, const struct mesh *m, struct engine *e,
                  const struct inject *inject, struct arena *a);

/* The link that bytes pass most slowly, and what they pass the slowest links of ranks that are at
 * neither of its ends at (the median, and the least): false of fewer than three ranks, which have
 * none. */
struct preflight_link {
    i64 rank, peer;
    double bytes_per_s, others_bytes_per_s, next_bytes_per_s;
};
bool preflight_slowest(const struct preflight *p, struct preflight_link *out);
/* As a line of metrics has it: {"ranks":[1,2],"bytes_per_s":..,"others_bytes_per_s":..,
 * "next_bytes_per_s":..}. */
void preflight_put_link(const struct preflight_link *l, struct json *j);

/* Ranks that are nearer to each other than to the rest, as those of a host: whatever passes between
 * two of one domain is faster than whatever passes between two of different ones, by far. False:
 * there are no two such domains with more than one rank each. */
struct preflight_domains {
    i64 n, ranks;
    i32 of[PREFLIGHT_PAIRS]; /* numbered in the order of their first ranks */
    double near_bytes_per_s, far_bytes_per_s; /* medians, within and between */
};
bool preflight_find_domains(const double *pairs, i64 n, struct preflight_domains *out);
/* {"of":[0,0,1,1],"near_bytes_per_s":..,"far_bytes_per_s":..} */
void preflight_put_domains(const struct preflight_domains *d, struct json *j);

/* What a message of a sum over all ranks takes, as a ring would send it, and the rate of the bytes
 * that follow: medians over ranks, NaN where it cannot be told. */
void preflight_sums(const struct preflight *p, double *latency_s, double *bytes_per_s);

/* What is odd about them. Ranks are compared with the median rank, links with the median of
 * each rank's slowest; whether ranks share cores decides how much is odd. */
struct preflight_finding {
    i64 rank, peer;  /* peer -1: the rank itself */
    double times;    /* slower than the median */
    bool latency;    /* of a link: small messages, else large ones */
};
/* Findings, worst first, at most so many; returns how many. */
i64 preflight_judge(const struct preflight *p, bool crowded, struct preflight_finding *out,
                    i64 most);

#endif
