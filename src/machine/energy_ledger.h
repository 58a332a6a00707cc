/* machine/energy_ledger.h - energy.json: what a run took, so that estimates can be made again.
 *
 * Beside the estimate it holds what no method goes into: seconds, core-seconds, FLOPs, bytes,
 * tokens, what GPUs counted. Greenhouse gas is energy x PUE x factor of the grid, offsets never
 * subtracted; its interval is that of the energy times that of the factor. */
#ifndef HEADWAY_ENERGY_LEDGER_H
#define HEADWAY_ENERGY_LEDGER_H

#include "base/json.h"
#include "machine/carbon.h"
#include "machine/energy.h"

struct energy_ledger {
    struct energy_total total;
    struct carbon_factor carbon;
    double pue;             /* power of the building over that of its machines */
    i64 nodes, ranks, tokens, cpus; /* cpus: of the first node */
    double began, written;  /* seconds since the epoch */
    bool open;              /* the run had not ended then */
    char processor[128];
    double watts_per_cpu;
    char uncounted[200];    /* why nothing counts processors here; "" where something does */
};

struct energy_gas { double g, lo, hi; }; /* CO2e */
struct energy_gas energy_gas(const struct energy_ledger *l);
double energy_per_token(const struct energy_ledger *l); /* J; 0 before the first */

void energy_ledger_put(const struct energy_ledger *l, struct json *j);
int energy_ledger_read(struct energy_ledger *l, const char *path);

#endif
