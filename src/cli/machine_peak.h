/* cli/machine_peak.h - the measured peak that MFU is taken from. */
#ifndef HEADWAY_MACHINE_PEAK_H
#define HEADWAY_MACHINE_PEAK_H

#include "base/base.h"

/* FLOP/s of this machine with so many threads (0: all), in bf16 or fp32: cached, or
 * measured now. 0 when threads cannot be had. */
double machine_peak_flops(const char *backend, i64 threads, bool in_bf16);

#endif
