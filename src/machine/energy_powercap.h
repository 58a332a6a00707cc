/* machine/energy_powercap.h - energy counters of processors, as Linux shows them (powercap).
 *
 * Every zone is a folder with `name`, `energy_uj` and `max_energy_range_uj`, where the counter
 * begins anew. Packages are summed, and the memory beside them (dram); core and uncore are
 * parts of a package and are not. One package may be shown by two drivers: zones are told apart
 * by name. psys, the whole board, counts only where no package does. */
#ifndef HEADWAY_ENERGY_POWERCAP_H
#define HEADWAY_ENERGY_POWERCAP_H

#include "base/base.h"

enum { POWERCAP_ZONES = 32 };

struct powercap_zone {
    char path[320]; /* of energy_uj */
    char name[80];  /* "package-0", "package-0/dram", "psys" */
    u64 last, range;
};

struct powercap {
    struct powercap_zone zone[POWERCAP_ZONES];
    int n; /* 0: nothing is counted, and why */
    double joules, unsure_j; /* since it was opened; what wraps nobody saw might add */
    u64 read_ns;
    char why[200];
};

/* root: "/sys/class/powercap". Either all packages can be read or none counts. */
void powercap_open(struct powercap *p, const char *root, u64 now_ns);
/* Adds what was counted since. false: a counter has gone, and p->n is 0 from now on. */
bool powercap_read(struct powercap *p, u64 now_ns);

#endif
