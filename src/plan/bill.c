#include "plan/bill.h"

#include "base/err.h"
#include "base/json.h"

#include <math.h>

/* See the header for where they come from. lo is the least power. */
static const struct plan_band idle_share = { 0.15, 0.15, 0.40 }, busy_share = { 0.45, 0.70, 0.60 };
static const struct plan_band host_share = { 0.20, 0.59, 0.70 }, usual_pue = { 1.08, 1.2, 1.56 };

static double watts(const struct plan_device *d, double idle, double rise, double busy)
{
    if (d->idle_w > 0) /* its idle power is known: the rise ends where it would have */
        return d->idle_w + (d->peak_w * (idle + rise) - d->idle_w) * busy;
    return d->peak_w * (idle + rise * busy);
}

struct plan_band plan_device_watts(const struct plan_device *d, struct plan_band busy)
{
    return (struct plan_band){ watts(d, idle_share.lo, busy_share.lo, busy.lo),
                               watts(d, idle_share.mid, busy_share.mid, busy.mid),
                               watts(d, idle_share.hi, busy_share.hi, busy.hi) };
}

struct plan_band plan_busy_of_mfu(const struct plan_device *d, int dtype, double mfu)
{
    double best = d->reached[dtype] > 0 ? d->reached[dtype] / d->peak[dtype] : 1;
    return (struct plan_band){ fmin(1, mfu / best), fmin(1, mfu / (0.8 * best)), 1 };
}

static struct plan_band times(struct plan_band a, struct plan_band b, double scale)
{
    return (struct plan_band){ a.lo * b.lo * scale, a.mid * b.mid * scale, a.hi * b.hi * scale };
}

static int choose_pue(const struct plan_machine *m, const struct plan_use *use,
                      struct plan_band *out)
{
    double given = use->pue > 0 ? use->pue : m->pue;
    if (given > 0 && given < 1)
        return err_set(ERR_CONFIG, "a PUE of %g: a building takes no less than its machines",
                       given);
    *out = given > 0 ? (struct plan_band){ given, given, given } : usual_pue;
    return OK;
}

int plan_bill_of(const struct plan_machine *m, const struct plan_use *use, struct plan_bill *out)
{
    const struct plan_device *d = &m->device;
    double hours = use->devices * use->seconds / 3600;
    *out = (struct plan_bill){ .device_hours = hours, .power_known = d->peak_w > 0 };
    TRY(choose_pue(m, use, &out->pue));
    TRY(carbon_choose(use->location ? use->location : m->location,
                      use->g_per_kwh > 0 ? use->g_per_kwh : m->grid_g_per_kwh, &out->carbon));
    const struct plan_band one = { 1, 1, 1 };
    struct plan_band host = times(host_share, one, d->peak_w * hours * 1e-6);
    struct plan_band gas = { out->carbon.lo, out->carbon.g_per_kwh, out->carbon.hi };
    out->peak_mwh = d->peak_w * hours * 1e-6;
    out->watts = plan_device_watts(d, use->busy);
    out->devices_mwh = times(out->watts, one, hours * 1e-6);
    struct plan_band site = { out->devices_mwh.lo + host.lo, out->devices_mwh.mid + host.mid,
                              out->devices_mwh.hi + host.hi };
    out->mwh = times(site, out->pue, 1);
    out->tco2e = times(out->mwh, gas, 1e-3); /* MWh x g/kWh = kg */
    double price = use->price > 0 ? use->price : m->price_per_hour;
    out->money = price * hours;
    out->currency = use->price > 0 ? use->currency : m->currency;
    return OK;
}

void plan_bill_json(const struct plan_bill *b, struct json *j)
{
    json_begin_object(j);
    json_put_double(j, "device_hours", b->device_hours);
    if (b->power_known) {
        plan_band_json(j, "device_watts", &b->watts);
        plan_band_json(j, "devices_mwh", &b->devices_mwh);
        plan_band_json(j, "mwh", &b->mwh);
        plan_band_json(j, "tco2e", &b->tco2e);
        json_put_double(j, "devices_at_peak_mwh", b->peak_mwh);
    }
    plan_band_json(j, "pue", &b->pue);
    json_put_str(j, "grid", b->carbon.location);
    json_put_double(j, "grid_g_per_kwh", b->carbon.g_per_kwh);
    json_put_int(j, "grid_year", b->carbon.year);
    json_put_str(j, "grid_source", b->carbon.source);
    json_put_bool(j, "grid_assumed", b->carbon.assumed);
    if (b->money > 0) {
        json_put_double(j, "money", b->money);
        json_put_str(j, "currency", b->currency);
    }
    json_end(j);
}
