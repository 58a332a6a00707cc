#include "plan/replay_layout.h"

#include "parallel/layout.h"
#include "plan/efficiency.h"
#include "plan/stack.h"

#include <math.h>

static i64 divisor(i64 a, i64 b)
{
    return b ? divisor(b, a % b) : a;
}

/* Ranks in lockstep: whoever meets within a layer. */
static i64 cell_ranks(const struct plan_job *job, const struct plan_layout *l)
{
    i64 stride = plan_expert_stride(job->stack, l), others = l->tp * l->cp / stride;
    return stride * (others / divisor(others, l->ep) * l->ep);
}

static struct stage_time shared_out(struct stage_time t, double parts, double move_s)
{
    return (struct stage_time){ t.F / parts + move_s, t.I / parts + move_s, t.W / parts };
}

/* What of an exchange of a stage's data ranks is not over within an action of so many seconds: layers
 * go one by one, and while the first (or the last) of them computes there is nothing to send yet.
 * Where each action has its exchanges and these take longer, links are what decides: all is left. */
static double left_over(double exchange_s, double action_s, double layers, double tax, bool each)
{
    if (each && exchange_s > action_s)
        return exchange_s;
    double within = fmin(exchange_s, action_s) * fmax(0, 1 - 1 / layers);
    return exchange_s - within * (1 - tax);
}

/* Seconds of each stage; `seen` of a boundary is in the way of computing. */
static void set_stages(const struct plan_job *job, const struct plan_layout *l,
                       const struct plan_stages *all, const struct schedule *order, double seen,
                       struct replay_stage *out)
{
    const struct plan_stack *s = job->stack;
    const double parts = (double)l->virtual_stages, tax = job->family->overlap_tax;
    const double gather = (s->waits_for_weights ? 0 : s->dp_overlap) * all->gather_s / parts;
    const double reduce = s->dp_overlap * all->reduce_s / parts;
    const double layers = (double)job->spec->layers / (double)order->stages;
    const bool always = l->zero == ZERO_WEIGHTS;
    for (int t = 0; t < order->stages; t++) {
        int rank = order->rank_of[t];
        const struct stage_time *time = rank == 0 ? &all->first
                                      : rank == order->ranks - 1 ? &all->last : &all->middle;
        struct stage_time each = shared_out(*time, parts, seen);
        double back = each.I + each.W;
        out[t] = (struct replay_stage){ .seconds = each,
                                        .gather_s = left_over(gather, each.F, layers, tax, always),
                                        .reduce_s = left_over(reduce, back, layers, tax, always) };
    }
}

/* Of ranks, so that as many of a cell's nodes are slow as of all. */
static double slow_ranks(const struct plan_job *job, const struct plan_layout *l, double share)
{
    double members = (double)cell_ranks(job, l), node = (double)i64_max(1, job->machine->node_ranks);
    return 1 - pow(1 - share, fmax(1, members / node) / members);
}

static const double *same_for_all(double seconds, i64 n, struct arena *a)
{
    double *out = ARENA_ARRAY(a, double, n);
    for (i64 i = 0; i < n; i++)
        out[i] = seconds;
    return out;
}

int plan_replay_layout(const struct plan_job *job, const struct plan_layout *l,
                       const struct plan_table *table, const struct plan_chance *chance,
                       struct schedule *order, struct replay_time *out, struct arena *a)
{
    struct plan_stages all;
    const struct plan_stack *s = job->stack;
    bool each = l->zero == ZERO_WEIGHTS;
    double passes = each ? (double)l->micro_batches : 1, late = 1 - s->dp_overlap;
    double hidden = plan_moves_hidden(s, l), first = s->waits_for_weights ? 1 : late;
    TRY(schedule_new(order, (enum schedule_kind)l->schedule, (int)l->pp, (int)l->virtual_stages,
                     (int)l->micro_batches, a));
    schedule_add_moves(order, 1);
    plan_stages_of(job, l, table, &all);
    struct replay_stage *stages = ARENA_ARRAY(a, struct replay_stage, order->stages);
    set_stages(job, l, &all, order, (1 - hidden) * all.boundary_s, stages);
    struct replay_step step = {
        .order = order, .stages = stages, .each = each,
        .first_s = same_for_all(first * all.gather_s * (each ? 2 * passes : 1), l->pp, a),
        .last_s = same_for_all(late * all.reduce_s * passes, l->pp, a),
        .update_s = same_for_all(all.update_s + all.stall_s, l->pp, a),
        .replicas = job->devices / l->pp / cell_ranks(job, l), .members = cell_ranks(job, l),
        .move_s = hidden * all.boundary_s, .tax = job->family->overlap_tax,
        .shared = job->devices > job->machine->node_ranks, .seed = chance->seed,
        .jitter = chance->jitter, .slow_by = chance->slow_by,
        .slow_share = slow_ranks(job, l, chance->slow_share),
    };
    return plan_replay(&step, out, a);
}
