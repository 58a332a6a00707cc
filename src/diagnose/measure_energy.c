/* What the run took a second, from its ledger. */
#include "diagnose/measure_record.h"

#include "base/err.h"
#include "base/sys.h"
#include "machine/energy_ledger.h"

#include <math.h>

void measure_energy(struct measure *m, const char *folder, struct arena *a)
{
    struct measure_energy *e = &m->energy;
    const char *path = arena_printf(a, "%s/energy.json", folder);
    struct energy_ledger l;
    if (!sys_exists(path) || energy_ledger_read(&l, path) < 0)
        return; /* headway energy says what is wrong with it */
    const struct energy_total *t = &l.total;
    const double cpus = (double)(l.cpus * i64_max(1, l.nodes));
    const double u = t->core_seconds / (cpus * t->seconds);
    const double j = t->j - t->gpu_j; /* nothing here computes on GPUs */
    if (!(t->seconds > 0) || !(cpus > 0) || !(j > 0))
        return;
    e->watts = j / t->seconds;
    e->busy_cores = t->core_seconds / t->seconds;
    e->lo = fmax(0, t->lo - t->gpu_j) / j;
    e->hi = (t->hi - t->gpu_j) / j;
    /* The share that goes when they idle: of counted energy, too, it is by the model. */
    e->busy_share = 1 - energy_model_watts(1, cpus, 0) / energy_model_watts(1, cpus, u);
    energy_method_text(t->methods & ~(i64)ENERGY_GPU, e->method, sizeof e->method);
}
