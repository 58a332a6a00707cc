/* plan/net_facts.h - collectives that somebody measured, beside what network.h says of them.
 *
 * Rows of facts/network_calibration.csv whose system is what a machine file names under `measured`
 * and whose operation, ranks and size are known. Their values are bus bandwidths: of a mean, or the
 * ends of a band that lies around one. Rows that say "large" are priced at 8 GiB. */
#ifndef HEADWAY_PLAN_NET_FACTS_H
#define HEADWAY_PLAN_NET_FACTS_H

#include "plan/network.h"

struct net_fact {
    enum net_op op;
    i64 ranks;
    double bytes;
    double measured;                /* bus bandwidth, bytes/s */
    double least, most;             /* of the measured band; 0: none was published */
    struct plan_band predicted;     /* bus bandwidth; lo is the slow end */
    enum net_algorithm how;
};

/* ERR_CONFIG when the machine says no `measured`. */
int net_facts_of(const struct plan_machine *m, struct net_fact **facts, i64 *n, struct arena *a);

struct net_errors {
    i64 rows, inside;               /* inside: measured within the predicted band */
    double mean, median, worst;     /* |predicted / measured - 1| */
    double bias;                    /* mean of log(predicted / measured) */
};
struct net_errors net_facts_errors(const struct net_fact *facts, i64 n, struct arena *a);

#endif
