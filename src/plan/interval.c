#include "plan/interval.h"

#include "plan/efficiency.h"
#include "plan/net_band.h"
#include "plan/stack.h"

#include <math.h>
#include <string.h>

/* What links and networks give differs from run to run by factors (256 MB among 128 devices of
 * one kind of cluster: 31 to 188 GB/s, middle 85), what devices compute by 10 or 20 %: in
 * logarithms a sixth of that. */
#define MESSAGES_WIDER 6.0

bool plan_interval_foreign(const struct plan_job *job)
{
    const char *device = job->machine->device.family, *fitted = job->family->name;
    return !device || !fitted || strcmp(device, fitted) != 0;
}

bool plan_interval_strange(const struct plan_job *job)
{
    const struct plan_stack *s = job->stack;
    return s->seen.count == 0 && !plan_family_saw(job->family, s->name) &&
           !(s->like && plan_family_saw(job->family, s->like));
}

/* What is unknown for different reasons adds as squares. Of its own interval software says
 * itself how far out it is. */
double plan_interval_widening(const struct plan_job *job)
{
    const struct plan_family *f = job->family;
    double devices = f->seen_devices > 0 ? (double)job->devices / f->seen_devices : 1;
    double rows = f->seen_sequence > 0 ? (double)job->sequence / f->seen_sequence : 1;
    double software = job->stack->interval != 1 ? job->stack->interval : plan_interval_strange(job) ? 2 : 1;
    const double each[] = { plan_interval_foreign(job) ? 2 : 1, software,
                            1 + 0.1 * log2(fmax(1, devices)), 1 + 0.1 * log2(fmax(1, rows)) };
    double squares = 1;
    for (i64 i = 0; i < COUNT_OF(each); i++)
        squares += each[i] * each[i] - 1;
    return sqrt(squares);
}

/* Seconds that stages may wait where the prediction says that they do not. */
static double may_stall(const struct plan_job *job, const struct plan_layout *l,
                        const struct plan_step *step)
{
    double nodes = (double)ceil_div(job->devices, job->machine->node_ranks);
    bool does = step->terms[PLAN_STRAGGLER] > 0, may = l->pp > 1 && nodes >= job->stack->stall_from;
    return may && !does && nodes < job->stack->stall_nodes ? plan_stall_seconds(job, l) : 0;
}

/* Seconds that the host may take for layers besides, where nothing of a job on so many nodes leaves
 * its stage: as in pipelines that leave a node. */
static double may_lag(const struct plan_job *job, const struct plan_layout *l)
{
    const struct plan_stack *s = job->stack;
    double nodes = (double)ceil_div(job->devices, job->machine->node_ranks);
    double layers = (double)(job->spec->layers * l->micro_batches);
    if (l->pp > 1 || nodes < s->stall_nodes)
        return 0;
    return layers * s->kernels_pipeline * (double)l->tp * job->family->launch_s;
}

double plan_interval_may_wait(const struct plan_job *job, const struct plan_layout *l,
                              const struct plan_step *step)
{
    return may_stall(job, l, step) + may_lag(job, l);
}

double plan_interval_spread(const struct plan_step *step)
{
    double messages = 0;
    for (int i = PLAN_TP; i <= PLAN_DP; i++)
        messages += step->terms[i];
    double share = step->seconds > 0 ? messages / step->seconds : 0;
    return 1 - share + MESSAGES_WIDER * share;
}

void plan_interval_of(const struct plan_job *job, const struct plan_layout *l,
                      struct plan_step *step)
{
    const struct plan_stack *s = job->stack;
    bool own = s->residual_lo != 0 || s->residual_hi != 0;
    double times = plan_interval_widening(job) * plan_interval_spread(step);
    double lo = own ? s->residual_lo : job->family->residual_lo;
    double hi = own ? s->residual_hi : job->family->residual_hi;
    step->band = (struct plan_band){ step->seconds * exp(times * lo), step->seconds,
                                     step->seconds * exp(times * hi) };
    plan_widen_by_network(job, l, step);
    step->band.hi *= 1 + plan_interval_may_wait(job, l, step) / step->seconds;
}
