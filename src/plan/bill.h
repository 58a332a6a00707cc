/* plan/bill.h - energy, greenhouse gas and money of a run on a machine that one does not have.
 *
 * A device's power is not its TDP: while OLMo 2 trained, GPUs drew 15 to 85 % of their most
 * (Morrison et al. 2025). So a device draws
 *
 *     peak x (0.15 + 0.70 busy)        band: (0.15 + 0.45 busy) to (0.40 + 0.60 busy)
 *
 * with busy the share of time that it computes; 15 and 85 % are theirs, the band is assumed. The
 * devices' idle power, where it is known, stands for the 15 %. Hosts, network and what else a
 * machine runs on draw 0.59 W for each W of devices' peak, all the time: BLOOM's machine took
 * 256.6 MWh idling over the 1,082,990 GPU-hours of 400 W (Luccioni et al. 2023); band 0.2 to 0.7.
 * The building takes PUE times all that. Gas is energy times the grid's factor (machine/carbon.h);
 * nothing is subtracted for what was bought.
 *
 * Money is device-hours, spares included, at a price that somebody gives: none is known here. */
#ifndef HEADWAY_PLAN_BILL_H
#define HEADWAY_PLAN_BILL_H

#include "machine/carbon.h"
#include "plan/machine_file.h"

struct json;

struct plan_use {
    double devices;      /* spares included */
    double seconds;      /* by the wall clock */
    struct plan_band busy; /* share of this time that a device computes */
    double pue;          /* 0: the machine's; neither given: 1.2, from 1.08 to 1.56 */
    const char *location; /* NULL: the machine's */
    double g_per_kwh;    /* 0: by location */
    double price;        /* per device and hour; 0: the machine's */
    const char *currency;
};

struct plan_bill {
    double device_hours;
    double peak_mwh;          /* devices at their peak power alone: how model cards often count */
    struct plan_band watts;   /* of one device */
    struct plan_band devices_mwh, mwh; /* devices; everything, PUE included */
    struct plan_band pue, tco2e;
    struct carbon_factor carbon;
    double money;             /* 0: no price was given */
    const char *currency;
    bool power_known;         /* the device's peak power; else all energies are 0 */
};

/* Watts of one device of which a share `busy` of the time computes. */
struct plan_band plan_device_watts(const struct plan_device *d, struct plan_band busy);

/* ERR_CONFIG for a place that has no factor, or a PUE below 1. */
int plan_bill_of(const struct plan_machine *m, const struct plan_use *use, struct plan_bill *out);

void plan_bill_json(const struct plan_bill *b, struct json *j);

/* How much of the time a device computes when nothing but its utilisation is known: it cannot
 * compute faster than the best product that somebody measured, nor always. */
struct plan_band plan_busy_of_mfu(const struct plan_device *d, int dtype, double mfu);

#endif
