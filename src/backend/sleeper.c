#include "backend/sleeper.h"

#include "base/sys.h"
#include "ops/ops.h"

#include <math.h>

/* Less than this is not slept but owed: a system wakes nobody so exactly. */
static const double least_s = 20e-6;
/* More than this late is not made up: the process was stopped, or its core taken. */
static const double most_late_s = 5e-3;

double sleep_seconds(const struct task *t, const struct sleep_rates *rates)
{
    double bytes = t->cost.read_bytes + t->cost.written_bytes;
    return fmax(t->cost.flops / rates->flops_per_s, bytes / rates->memory_bytes_per_s);
}

static void sleep_for(const struct task *t, struct run *x)
{
    struct sleeper *s = x->context;
    u64 begin = sys_now_ns();
    double seconds = sleep_seconds(t, &s->rates);
    if (x->inject)
        seconds = inject_compute(x->inject, t->op->name, x->step, (u64)x->action, seconds);
    double asked = seconds - s->late;
    if (asked >= least_s)
        sys_sleep_ns((u64)(1e9 * asked));
    double took = 1e-9 * (double)(sys_now_ns() - begin);
    s->late = fmin(most_late_s, s->late + took - seconds);
}

void backend_sleep(struct backend *b, struct sleeper *s, const struct sleep_rates *rates)
{
    *s = (struct sleeper){ .rates = *rates };
    *b = (struct backend){ .name = "none", .sleeps = true };
    for (i64 i = 0; i < op_table_count; i++)
        b->kernels[i] = (struct kernel){ .run = sleep_for, .context = s };
    sys_sleep_exactly();
}
