#include "base/err.h"
#include "plan/machine_impl.h"
#include "plan/quantity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Products reach at least this share of a dense peak on every device in machines/devices (the
 * lowest: 51 %); of a peak with sparsity they cannot reach more than half. */
static const double least_reached = 0.45;

/* Of a message, in seconds: several times round the world and to a satellite is less. */
static const double most_latency = 10;

static int check_peak(const struct plan_device *d, int dtype, const char *where)
{
    const char *name = plan_dtype_names[dtype];
    double peak = d->peak[dtype], reached = d->reached[dtype];
    if (reached > 0 && peak == 0)
        return err_set(ERR_CONFIG, "%s: reached.%s without peak.%s", where, name, name);
    if (reached > 1.02 * peak)
        return err_set(ERR_CONFIG, "%s: reached.%s (%.4g TFLOP/s) is above peak.%s (%.4g); one of "
                       "them is something else", where, name, 1e-12 * reached, name, 1e-12 * peak);
    if (reached > 0 && reached < least_reached * peak)
        return err_set(ERR_CONFIG, "%s: products reach %.0f %% of peak.%s (%.4g TFLOP/s); this "
                       "looks like the peak with 2:4 sparsity. The dense one is usually half: %.4g "
                       "TFLOP/s",
                       where, 100 * reached / peak, name, 1e-12 * peak, 0.5e-12 * peak);
    return OK;
}

int plan_half_dtype(const struct plan_device *d)
{
    return d->peak[PLAN_BF16] > 0 ? PLAN_BF16 : PLAN_FP16;
}

int plan_dtype_check(const struct plan_device *d, int dtype)
{
    char known[64] = "";
    if (d->peak[dtype] > 0)
        return OK;
    for (int t = 0; t < PLAN_DTYPES; t++)
        if (d->peak[t] > 0)
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s",
                     *known ? ", " : "", plan_dtype_names[t]);
    return err_set(ERR_CONFIG, "%s has no peak in %s that is known; as dtype say one of %s",
                   d->name, plan_dtype_names[dtype], known);
}

/* Each halving of the bits makes products 2 to 3.3 times as fast (B300's nvfp4). */
static int check_ladder(const struct plan_device *d, int low, int high, const char *where)
{
    double few = d->peak[low], many = d->peak[high];
    if (few == 0 || many == 0 || few <= 3.5 * many)
        return OK;
    return err_set(ERR_CONFIG, "%s: peak.%s is %.2g times peak.%s; the first one looks like the "
                   "peak with 2:4 sparsity. The dense one is usually half: %.4g TFLOP/s", where,
                   plan_dtype_names[low], few / many, plan_dtype_names[high], 0.5e-12 * few);
}

/* No device comes near these; a thousand (or eight) times what one has is a slip of a unit. */
static int check_plausible(const struct plan_device *d, const char *where)
{
    const struct {
        const char *key, *meant;
        enum quantity kind;
        double value, most, slip;
    } rows[] = {
        { "memory.size", "GB and TB", QUANTITY_BYTES, d->memory_sold_bytes, 4e12, 1e3 },
        { "memory.rate", "GB/s and TB/s", QUANTITY_RATE, d->memory_bytes_per_s, 1e14, 1e3 },
        { "link.network", "Gb/s (bits) and GB/s", QUANTITY_LINK, d->network_bytes_per_s, 2.5e11,
          8 },
        { "power.peak", "W and kW", QUANTITY_WATTS, d->peak_w, 3e4, 1e3 },
    };
    for (i64 i = 0; i < COUNT_OF(rows); i++) {
        char said[48], meant[48], most[48];
        if (rows[i].value <= rows[i].most)
            continue;
        quantity_text(rows[i].value, rows[i].kind, said, sizeof said);
        quantity_text(rows[i].value / rows[i].slip, rows[i].kind, meant, sizeof meant);
        quantity_text(rows[i].most, rows[i].kind, most, sizeof most);
        return err_set(ERR_CONFIG, "%s: %s: %s is beyond any device (at most %s is believed); are "
                       "%s mixed up? Probably it is %s", where, rows[i].key, said, most,
                       rows[i].meant, meant);
    }
    return OK;
}

/* What comes over links is read from memory and written to it. */
static int check_memory_rate(const struct plan_device *d, const char *where)
{
    char said[48], meant[48], link[48];
    double most = fmax(d->link_bytes_per_s, d->network_bytes_per_s);
    if (d->memory_bytes_per_s >= 0.1 * most)
        return OK;
    quantity_text(d->memory_bytes_per_s, QUANTITY_RATE, said, sizeof said);
    quantity_text(1e3 * d->memory_bytes_per_s, QUANTITY_RATE, meant, sizeof meant);
    quantity_text(most, QUANTITY_LINK, link, sizeof link);
    return err_set(ERR_CONFIG, "%s: memory.rate: %s is little beside the links' %s; are GB/s and "
                   "TB/s mixed up? Probably it is %s", where, said, link, meant);
}

int machine_check_device(const struct plan_device *d, const char *where)
{
    if (d->peak[plan_half_dtype(d)] <= 0 && d->peak[PLAN_FP32] <= 0)
        return err_set(ERR_CONFIG, "%s: a device needs peak.bf16 (or peak.fp16, or peak.fp32)",
                       where);
    if (d->memory_bytes <= 0 || d->memory_bytes_per_s <= 0)
        return err_set(ERR_CONFIG, "%s: a device needs memory.size and memory.rate", where);
    if (d->memory_sold_bytes > 0 && d->memory_bytes > 1.08 * d->memory_sold_bytes)
        return err_set(ERR_CONFIG, "%s: memory.usable is above memory.size; are both in the units "
                       "that they say (GB is 1e9, GiB is 2^30)?", where);
    if (d->peak_w > 0 && d->idle_w > d->peak_w)
        return err_set(ERR_CONFIG, "%s: power.idle is above power.peak", where);
    TRY(check_plausible(d, where));
    TRY(check_memory_rate(d, where));
    for (int t = 0; t < PLAN_DTYPES; t++)
        TRY(check_peak(d, t, where));
    TRY(check_ladder(d, PLAN_FP8, PLAN_BF16, where));
    return check_ladder(d, PLAN_FP4, PLAN_FP8, where);
}

static bool near(double a, double b)
{
    return b > 0 && fabs(a / b - 1) < 0.02;
}

static double half_peak(const struct plan_device *d)
{
    return d->peak[plan_half_dtype(d)];
}

static int check_against(const struct plan_device *d, const struct plan_device *known,
                         const char *where)
{
    bool same = near(d->memory_bytes_per_s, known->memory_bytes_per_s);
    for (int t = PLAN_FP16; t < PLAN_DTYPES; t++)
        if (same && near(d->peak[t], 2 * known->peak[t]))
            return err_set(ERR_CONFIG, "%s: peak.%s is twice that of %s with the same memory: this "
                           "is the peak with 2:4 sparsity. The dense one is %.4g TFLOP/s", where,
                           plan_dtype_names[t], known->name, 1e-12 * known->peak[t]);
    if (same && near(d->link_bytes_per_s, 2 * known->link_bytes_per_s))
        return err_set(ERR_CONFIG, "%s: link.node is twice that of %s: this adds up both "
                       "directions. One way it is %.4g GB/s", where, known->name,
                       1e-9 * known->link_bytes_per_s);
    return OK;
}

/* By its name, such as H100, or by what it does. */
static bool same_device(const struct plan_device *d, const struct plan_device *known)
{
    size_t n = d->name ? strlen(d->name) : 0;
    return (n >= 4 && strncasecmp(d->name, known->name, n) == 0) ||
           (near(half_peak(d), half_peak(known)) &&
            near(d->memory_bytes_per_s, known->memory_bytes_per_s));
}

/* Slips of a unit, beside the device that it is. */
static int check_units(const struct plan_device *d, const struct plan_device *known,
                       const char *where)
{
    static const double gib_per_gb = 0x1p30 / 1e9;
    double size = known->memory_sold_bytes;
    if (fabs(d->memory_sold_bytes / (gib_per_gb * size) - 1) < 0.005)
        return err_set(ERR_CONFIG, "%s: memory.size: %.4g GiB, but %s has %.4g GB (1e9 bytes); "
                       "write %.4g GB, and what programs get as memory.usable", where,
                       d->memory_sold_bytes / 0x1p30, known->name, 1e-9 * size, 1e-9 * size);
    if (near(d->network_bytes_per_s, 8 * known->network_bytes_per_s))
        return err_set(ERR_CONFIG, "%s: link.network: %.4g GB/s, but %s sends %.4g Gb/s (bits); "
                       "write %.4g GB/s one-way", where, 1e-9 * d->network_bytes_per_s,
                       known->name, 8e-9 * known->network_bytes_per_s,
                       1e-9 * known->network_bytes_per_s);
    if (near(d->memory_bytes_per_s, 1e3 * known->memory_bytes_per_s))
        return err_set(ERR_CONFIG, "%s: memory.rate: a thousand times that of %s; write %.4g GB/s",
                       where, known->name, 1e-9 * known->memory_bytes_per_s);
    return OK;
}

int machine_check_known(const struct plan_device *d, const char *where, struct arena *a)
{
    const char **names;
    i64 n = 0;
    bool twin = false;
    TRY(plan_machine_names(true, &names, &n, a));
    struct plan_machine *known = ARENA_ARRAY(a, struct plan_machine, n);
    for (i64 i = 0; i < n; i++) {
        TRY(machine_device_load(&known[i], names[i], a));
        twin |= near(half_peak(d), half_peak(&known[i].device)) &&
                near(d->memory_bytes_per_s, known[i].device.memory_bytes_per_s);
    }
    for (i64 i = 0; i < n; i++)
        if (same_device(d, &known[i].device))
            TRY(check_units(d, &known[i].device, where));
    for (i64 i = 0; i < n && !twin; i++)
        TRY(check_against(d, &known[i].device, where));
    for (i64 i = 0; i < n; i++) /* the same device, but for its link */
        if (twin && near(half_peak(d), half_peak(&known[i].device)))
            TRY(check_against(d, &known[i].device, where));
    return OK;
}

void machine_tier_begin(struct plan_machine *m, int i)
{
    double rate = i == 0 ? m->device.link_bytes_per_s : m->device.network_bytes_per_s;
    m->tiers[i] = (struct plan_tier){ .oversubscription = 1, .axes = 1 };
    m->tiers[i].bytes_per_s = (struct plan_band){ rate, rate, rate };
    if (i > 1) /* further out it is the same way out of the node */
        m->tiers[i].bytes_per_s = m->tiers[i - 1].bytes_per_s;
    double latency = i == 0 ? 3e-6 : fmax(8e-6, m->tiers[i - 1].latency_s.mid);
    m->tiers[i].latency_s = (struct plan_band){ latency, latency, latency };
}

void machine_tier_settle(struct plan_machine *m, int i, bool said)
{
    struct plan_tier *t = &m->tiers[i];
    t->latency_assumed = !said;
    for (int k = i - 1; k >= 0 && m->tiers[k].latency_assumed; k--)
        if (m->tiers[k].latency_s.mid > t->latency_s.mid)
            m->tiers[k].latency_s = t->latency_s;
}

/* Against the tier inside it. */
static int check_nesting(const struct plan_machine *m, int i, const char *where)
{
    const struct plan_tier *t = &m->tiers[i], *inner = &m->tiers[i - 1];
    if (t->bytes_per_s.mid > 1.001 * inner->bytes_per_s.mid)
        return err_set(ERR_CONFIG, "%s: tier '%s' gives each device %.4g GB/s, but '%s' inside it "
                       "only %.4g; outer tiers are not faster", where, t->name,
                       1e-9 * t->bytes_per_s.mid, inner->name, 1e-9 * inner->bytes_per_s.mid);
    if (t->latency_s.mid < inner->latency_s.mid && t->piece_bytes == 0) /* what was measured may */
        return err_set(ERR_CONFIG, "%s: a message over tier '%s' (%.4g us) cannot be quicker than "
                       "within '%s' (%.4g us)", where, t->name, 1e6 * t->latency_s.mid, inner->name,
                       1e6 * inner->latency_s.mid);
    if (t->ranks > 0 && t->ranks < 2 * inner->ranks)
        return err_set(ERR_CONFIG, "%s: tier '%s' has one '%s'; leave it out", where, t->name,
                       inner->name);
    return OK;
}

int machine_check_tier(const struct plan_machine *m, int i, const char *where)
{
    const struct plan_tier *t = &m->tiers[i];
    double most = m->device.link_bytes_per_s;
    if (t->bytes_per_s.mid <= 0)
        return err_set(ERR_CONFIG, "%s: how fast is tier '%s'? %s says nothing of its %s; write "
                       "bandwidth", where, t->name, m->device.name,
                       i ? "network" : "links");
    if (most > 0 && t->bytes_per_s.mid > 1.05 * most)
        return err_set(ERR_CONFIG, "%s: tier '%s' gives a device %.4g GB/s, but %s sends %.4g GB/s "
                       "at most; does this add up both directions?", where, t->name,
                       1e-9 * t->bytes_per_s.mid, m->device.name, 1e-9 * most);
    if (t->oversubscription < 1)
        return err_set(ERR_CONFIG, "%s: oversubscription %.3g of tier '%s' is below 1; 2 means "
                       "that half of what devices could send gets through", where,
                       t->oversubscription, t->name);
    if (t->oversubscription > 1000 || t->latency_s.hi > most_latency)
        return err_set(ERR_CONFIG, "%s: oversubscription up to 1000 and latencies up to %g s are "
                       "believed, not those of tier '%s'", where, most_latency, t->name);
    if (t->sum_latency_s > most_latency || (t->piece_bytes > 0 && t->piece_bytes < 1e3))
        return err_set(ERR_CONFIG, "%s: collectives of tier '%s' that were timed, with %.4g bytes and "
                       "%.4g s a step: kilobytes at least, such as 256 MB, and up to %g s are believed",
                       where, t->name, t->piece_bytes, t->sum_latency_s, most_latency);
    if (t->ranks > 1000000000)
        return err_set(ERR_CONFIG, "%s: tier '%s' has more than 1e9 devices", where, t->name);
    return i ? check_nesting(m, i, where) : OK;
}

int machine_check_whole(struct plan_machine *m, const char *where)
{
    struct plan_tier *last = &m->tiers[m->n_tiers - 1];
    if (last->ranks == 0) {
        m->unlimited = true;
        last->ranks = 1000000000;
    }
    if (m->node_ranks == 0)
        m->node_ranks = m->tiers[0].ranks;
    if (m->tiers[0].ranks % m->node_ranks && m->node_ranks % m->tiers[0].ranks)
        return err_set(ERR_CONFIG, "%s: hosts of %lld devices do not fill a '%s' of %lld", where,
                       (long long)m->node_ranks, m->tiers[0].name, (long long)m->tiers[0].ranks);
    if (m->pue > 0 && m->pue < 1)
        return err_set(ERR_CONFIG, "%s: pue %g: a building takes no less than its machines", where,
                       m->pue);
    return OK;
}
