/* machine/energy_nvml.h - energy that NVIDIA GPUs have counted, since Volta (NVML).
 *
 * The library comes with the driver and is opened at run time. Its counter of mJ since the driver
 * was loaded is right however seldom it is read, unlike its figure of power. */
#ifndef HEADWAY_ENERGY_NVML_H
#define HEADWAY_ENERGY_NVML_H

#include "base/base.h"

enum { NVML_DEVICES = 16 };

struct nvml {
    int (*energy)(void *device, unsigned long long *mj);
    void *device[NVML_DEVICES];
    unsigned long long last[NVML_DEVICES];
    int n; /* that count; 0: none, and why */
    double joules; /* since it was opened */
    char why[200];
};

void nvml_open(struct nvml *v, const char *library);
/* A GPU that no longer answers adds nothing. */
void nvml_read(struct nvml *v);

#endif
