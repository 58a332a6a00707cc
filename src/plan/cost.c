#include "plan/cost.h"

#include "parallel/layout.h"
#include "plan/interval.h"
#include "plan/net_band.h"
#include "plan/stack.h"

#include <math.h>

const char *const plan_term_names[PLAN_TERMS] = {
    [PLAN_IDEAL] = "ideal FLOPs", [PLAN_SHAPE] = "shape and alignment",
    [PLAN_MEMORY_BOUND] = "memory-bound work", [PLAN_LAUNCH] = "launch floor",
    [PLAN_RECOMPUTE] = "recompute", [PLAN_TP] = "tensor parallel messages",
    [PLAN_CP] = "context parallel messages", [PLAN_EP] = "expert messages",
    [PLAN_PP] = "messages between stages", [PLAN_DP] = "data parallel messages",
    [PLAN_IMBALANCE] = "slowest stage", [PLAN_BUBBLE] = "bubble", [PLAN_OPTIMIZER] = "optimizer",
    [PLAN_STRAGGLER] = "stragglers",
};

const char *const plan_memory_names[PLAN_MEMORIES] = {
    [PLAN_WEIGHTS] = "weights", [PLAN_GRADIENTS] = "gradients",
    [PLAN_OPTIMIZER_STATE] = "optimizer state", [PLAN_ACTIVATIONS] = "activations",
    [PLAN_WORKING] = "activations at work", [PLAN_LOGITS] = "logits",
    [PLAN_BUFFERS] = "messages", [PLAN_RUNTIME] = "runtime",
};

/* --- messages ------------------------------------------------------------------------- */

static double exchange(const struct plan_job *job, i64 ranks, i64 stride, double bytes,
                       double steps, bool sums)
{
    const struct plan_machine *m = job->machine;
    const struct plan_family *f = job->family;
    double rate = plan_tier_rate(m, 0, f->link, m->tiers[0].bytes_per_s.mid);
    double latency = fmax(m->tiers[0].latency_s.mid, f->link_latency_s);
    double whole = bytes;
    int t = plan_tier_of(m, ranks, stride);
    if (t > 0) {
        /* Within what links join first, then each of its ranks with its share out of it. */
        double together = (double)i64_min(ranks, i64_max(1, m->tiers[0].ranks / stride));
        double nodes = (double)ranks / together;
        double across = bytes * (1 - 1 / nodes) / (1 - 1 / (double)ranks);
        double net = together * plan_tier_rate(m, t, f->net, m->tiers[t].bytes_per_s.mid);
        if (together == 1 || across / net > bytes / rate) {
            rate = net;
            bytes = across;
        }
        /* A ring's ranks step together: each step waits for the hops between nodes. */
        latency = fmax(m->tiers[t].latency_s.mid, f->net_latency_s);
        if (sums && m->tiers[t].sum_latency_s > 0)
            latency = m->tiers[t].sum_latency_s;
        if (m->tiers[t].piece_bytes > 0)
            steps = fmax(steps, whole * (double)ranks / m->tiers[t].piece_bytes);
    }
    return bytes / rate + steps * latency;
}

double plan_exchange_seconds(const struct plan_job *job, i64 ranks, i64 stride, double bytes,
                             double steps)
{
    return exchange(job, ranks, stride, bytes, steps, false);
}

double plan_sum_seconds(const struct plan_job *job, i64 ranks, i64 stride, double bytes)
{
    double share = (double)(ranks - 1);
    return exchange(job, ranks, stride, 2 * share / (double)ranks * bytes, 2 * share, true);
}

/* --- stages --------------------------------------------------------------------------- */

/* What one micro-batch takes on a stage, by term; messages of data ranks not included, nor
 * those between stages but where they hold up both. */
struct stage {
    double terms[PLAN_PP + 1];
    double forward, backward;
    double weights; /* of backward */
};

static void add_piece(struct stage *s, const struct plan_piece *p, double n, int recompute)
{
    const double all = recompute == RECOMPUTE_FULL; /* what runs again exchanges again */
    s->terms[PLAN_IDEAL] += n * (p->forward.ideal + p->backward.ideal);
    s->terms[PLAN_SHAPE] += n * (p->forward.shape + p->backward.shape);
    s->terms[PLAN_MEMORY_BOUND] += n * (p->forward.memory + p->backward.memory);
    s->terms[PLAN_LAUNCH] += n * (p->forward.launch + p->backward.launch);
    double again = plan_seconds_sum(&p->again[recompute]);
    s->terms[PLAN_RECOMPUTE] += n * again;
    double tp = p->tp_backward + p->tp_again[recompute];
    s->terms[PLAN_TP] += n * (p->tp_forward + tp);
    double cp = p->cp_backward + all * p->cp_forward, ep = p->ep_backward + all * p->ep_forward;
    s->terms[PLAN_CP] += n * (p->cp_forward + cp);
    s->terms[PLAN_EP] += n * (p->ep_forward + ep);
    s->forward += n * (plan_seconds_sum(&p->forward) + p->tp_forward + p->cp_forward +
                       p->ep_forward);
    s->backward += n * (plan_seconds_sum(&p->backward) + again + tp + cp + ep);
    s->weights += n * p->weight_seconds;
}

static void add_layers(struct stage *s, const struct plan_table *t, double layers, int recompute)
{
    double all = (double)(t->dense_layers + t->sparse_layers);
    add_piece(s, &t->pieces[PLAN_DENSE], layers * (double)t->dense_layers / all, recompute);
    add_piece(s, &t->pieces[PLAN_SPARSE], layers * (double)t->sparse_layers / all, recompute);
}

static bool pipeline_leaves_node(const struct plan_job *job, const struct plan_layout *l)
{
    return l->pp > 1 && plan_tier_of(job->machine, l->pp, l->tp * l->cp * l->dp) > 0;
}

/* The host's work besides layers shows where it is not ahead of the device: at the end of both
 * passes, when its lead is used up. */
static void add_batch(struct stage *s, const struct plan_job *job, const struct plan_table *t,
                      const struct plan_layout *l, double layers)
{
    double all = (double)(t->dense_layers + t->sparse_layers);
    const double *dense = t->pieces[PLAN_DENSE].slack, *sparse = t->pieces[PLAN_SPARSE].slack;
    double slack = layers / all * ((double)t->dense_layers * dense[l->recompute] +
                                   (double)t->sparse_layers * sparse[l->recompute]);
    double host = t->batch_launch;
    if (pipeline_leaves_node(job, l))
        host += layers * t->pipeline_launch;
    double seen = fmax(0, host - slack);
    s->terms[PLAN_LAUNCH] += seen;
    s->backward += seen;
}

static double stage_seconds(const struct stage *s)
{
    return s->forward + s->backward;
}

/* Layers of the first and the last stage, of the fullest one between them, and of those on
 * average. */
struct spread_layers {
    double first, last, most, middle;
};

static double piece_seconds(const struct plan_piece *p)
{
    return plan_seconds_sum(&p->forward) + plan_seconds_sum(&p->backward) + p->tp_forward +
           p->tp_backward + p->cp_forward + p->cp_backward + p->ep_forward + p->ep_backward;
}

static const struct plan_piece *last_block(const struct plan_table *t)
{
    return &t->pieces[t->sparse_layers > 0 ? PLAN_SPARSE : PLAN_DENSE];
}

/* What the last stage has besides layers, in layers: one head and what predicts more tokens. */
static double end_layers(const struct plan_table *t)
{
    double dense = (double)t->dense_layers, sparse = (double)t->sparse_layers;
    double layer = (dense * piece_seconds(&t->pieces[PLAN_DENSE]) +
                    sparse * piece_seconds(&t->pieces[PLAN_SPARSE])) / (dense + sparse);
    double head = piece_seconds(&t->pieces[PLAN_HEAD]);
    double more = head + piece_seconds(last_block(t)) + piece_seconds(&t->pieces[PLAN_MTP]);
    double end = head + (double)t->mtp_depth * more;
    return layer > 0 ? end / layer : 0;
}

/* Blocks go to stages by what they compute, the head counted as so many layers: a block is on the
 * stage where the sum up to its end lies (nanotron's rule). */
static struct spread_layers balanced_layers(const struct plan_layout *l, double layers, double head)
{
    double each = (layers + head) / (double)l->pp, pp = (double)l->pp, between = pp - 2;
    struct spread_layers n = { .first = floor(each * (1 + 1e-12)) };
    double before = fmin(layers, floor(each * (pp - 1) * (1 + 1e-12)));
    n.last = layers - before;
    n.middle = between > 0 ? (before - n.first) / between : n.first;
    for (i64 i = 1; i + 1 < l->pp; i++) {
        double end = fmin(layers, floor(each * (double)(i + 1) * (1 + 1e-12)));
        n.most = fmax(n.most, end - fmin(layers, floor(each * (double)i * (1 + 1e-12))));
    }
    return n;
}

static struct spread_layers spread_layers(const struct plan_job *job, const struct plan_layout *l,
                                          const struct plan_table *t)
{
    i64 layers = t->dense_layers + t->sparse_layers;
    double even = (double)layers / (double)l->pp;
    if (job->stack->balanced && l->pp > 1 && l->virtual_stages == 1)
        return balanced_layers(l, (double)layers, t->head_layers);
    if (layers % l->pp == 0 || l->pp == 1)
        return (struct spread_layers){ even, even, even, even };
    double most = ceil(even);
    double ends = (double)layers - most * (double)(l->pp - 2), last = ends / 2;
    if (t->mtp_depth > 0) /* who places what predicts more tokens places layers so that it fits */
        last = fmax(fmax(0, ends - most), fmin(last, (ends - end_layers(t)) / 2));
    return (struct spread_layers){ ends - last, last, most, most };
}

/* All stages of the first, a middle and the last rank, for one micro-batch. */
struct ends {
    struct stage first, middle, last, fullest; /* fullest: of those in the middle */
};

static void add_stage(struct stage *s, const struct stage *other, double n)
{
    for (int i = 0; i <= PLAN_PP; i++)
        s->terms[i] += n * other->terms[i];
    s->forward += n * other->forward;
    s->backward += n * other->backward;
    s->weights += n * other->weights;
}

/* Of one micro-batch, one way. */
static double boundary_seconds(const struct plan_job *job, const struct plan_layout *l,
                               const struct plan_table *t)
{
    if (l->pp == 1)
        return 0;
    return plan_exchange_seconds(job, 2, l->tp * l->cp * l->dp, t->boundary_bytes, 1);
}

/* Moves that hold up both stages: a micro-batch's rows and their gradients, with the neighbour
 * before and the one behind. Each of a rank's virtual stages has both, but the first and the
 * last of all. What was cut to be sent is gathered: rows for the forward pass, the stage's own
 * result and its gradient for the backward pass. */
static void add_moves(struct stage *s, const struct plan_job *job, const struct plan_layout *l,
                      const struct plan_table *t, bool before, bool behind)
{
    if (!job->stack->blocking_moves && t->boundary_gather == 0)
        return;
    const double in = (double)(l->virtual_stages - !before), out = (double)(l->virtual_stages - !behind);
    double each = job->stack->blocking_moves ? (in + out) * boundary_seconds(job, l, t) : 0;
    double forward = in * t->boundary_gather, backward = 2 * out * t->boundary_gather;
    s->terms[PLAN_PP] += 2 * each + forward + backward;
    s->forward += each + forward;
    s->backward += each + backward;
}

static struct stage stage_of(const struct plan_job *job, const struct plan_layout *l,
                             const struct plan_table *t, double layers, bool before, bool behind)
{
    struct stage s = { 0 };
    add_layers(&s, t, layers, l->recompute);
    add_batch(&s, job, t, l, layers);
    add_moves(&s, job, l, t, before, behind);
    return s;
}

/* A block, a head and a projection for each token that is predicted besides the next one. */
static void add_mtp(struct stage *s, const struct plan_table *t, int recompute)
{
    double n = (double)t->mtp_depth;
    add_piece(s, last_block(t), n, recompute);
    add_piece(s, &t->pieces[PLAN_MTP], n, RECOMPUTE_NONE);
    add_piece(s, &t->pieces[PLAN_HEAD], n, RECOMPUTE_NONE);
}

static struct ends ends_of(const struct plan_job *job, const struct plan_layout *l,
                           const struct plan_table *t)
{
    struct spread_layers n = spread_layers(job, l, t);
    const bool many = l->pp > 1;
    struct ends e = { stage_of(job, l, t, n.first, false, many), stage_of(job, l, t, n.middle, many, many),
                      stage_of(job, l, t, n.last, many, false), stage_of(job, l, t, n.most, many, many) };
    add_piece(&e.first, &t->pieces[PLAN_EMBEDDING], 1, RECOMPUTE_NONE);
    add_piece(l->pp == 1 ? &e.first : &e.last, &t->pieces[PLAN_HEAD], 1, RECOMPUTE_NONE);
    add_mtp(l->pp == 1 ? &e.first : &e.last, t, l->recompute);
    if (l->schedule == SCHEDULE_ZB_V && l->pp > 1) { /* the last stage is where the first one is */
        add_stage(&e.first, &e.last, 1);
        add_stage(&e.first, &e.middle, -1);
        e.last = e.middle;
    }
    return e;
}

/* The whole pipeline for one micro-batch: all stages' terms summed, and the slowest stage. */
static void pipeline(const struct plan_job *job, const struct plan_layout *l,
                     const struct plan_table *t, struct stage *sum, struct stage *slowest)
{
    struct ends e = ends_of(job, l, t);
    *sum = *slowest = e.first;
    if (l->pp == 1)
        return;
    add_stage(sum, &e.last, 1);
    add_stage(sum, &e.middle, (double)(l->pp - 2));
    if (stage_seconds(&e.last) > stage_seconds(slowest))
        *slowest = e.last;
    if (l->pp > 2 && stage_seconds(&e.fullest) > stage_seconds(slowest))
        *slowest = e.fullest;
}

/* What the other stages make the slowest one wait for: the first micro-batch's way down and the
 * last one's way back. With zb-h1 no stage waits for weight gradients of others, and its own fill
 * as much again (Qi et al. 2024), but for the last micro-batch's. The order of zb-v is that of equal F, I and W; what it loses where they are not was fitted to the clock of
 * schedules (parallel/schedule_time.c). */
static double bubble(const struct plan_layout *l, const struct stage *sum,
                     const struct stage *slowest)
{
    double F = slowest->forward, W = slowest->weights, I = slowest->backward - W;
    double down = sum->forward - F, weights = sum->weights - W;
    double back = sum->backward - slowest->backward;
    if (l->schedule == SCHEDULE_ZB_H1)
        return fmax(0, down + back - weights - fmin(weights, (double)(l->micro_batches - 1) * W));
    if (l->schedule != SCHEDULE_ZB_V)
        return (down + back) / (double)l->virtual_stages;
    double pp = (double)l->pp, late, uneven, each;
    F = sum->forward / pp;
    W = sum->weights / pp;
    I = sum->backward / pp - W;
    late = (I + W) / 2 - F;
    uneven = I - W;
    each = late > 0 ? late + 1.5 * uneven : 0.75 * uneven - late / 2;
    each -= stage_seconds(slowest) - (F + I + W); /* others wait for that one anyhow */
    return down / 2 + (double)l->micro_batches * fmax(0, each);
}

/* --- data ranks ----------------------------------------------------------------------- */

struct held {
    double dense, experts; /* parameters of the fullest rank */
};

/* Layers that the first stages and the last one hold: where they are not balanced, of the
 * fullest. */
static struct spread_layers held_layers(const struct plan_job *job, const struct plan_layout *l,
                                        const struct plan_table *t)
{
    double most = (double)ceil_div(t->dense_layers + t->sparse_layers, l->pp);
    if (job->stack->balanced)
        return spread_layers(job, l, t);
    return (struct spread_layers){ most, most, most, most };
}

static struct held held_by(const struct plan_job *job, const struct plan_layout *l,
                           const struct plan_table *t)
{
    const struct plan_piece *dense = &t->pieces[PLAN_DENSE], *sparse = &t->pieces[PLAN_SPARSE];
    struct spread_layers n = held_layers(job, l, t);
    double layers = (double)(t->dense_layers + t->sparse_layers);
    double embedding = t->pieces[PLAN_EMBEDDING].parameters;
    double head = t->pieces[PLAN_HEAD].parameters;
    double each = ((double)t->dense_layers * dense->parameters +
                   (double)t->sparse_layers * sparse->parameters) / layers;
    double fullest = fmax(n.most, fmax(n.first, n.last)), more = (double)t->mtp_depth;
    double mtp = more * (last_block(t)->parameters + t->pieces[PLAN_MTP].parameters);
    double copy = more > 0 && !job->spec->tied ? embedding : 0, end = head + mtp + copy;
    double spare = l->pp > 1 ? fmax(0, n.last + more - fullest) : more;
    struct held h = {
        .dense = fmax(n.most * each, fmax(n.first * each + embedding, n.last * each + end)),
        .experts = fullest / layers * (double)t->sparse_layers * sparse->expert_parameters +
                   spare * last_block(t)->expert_parameters,
    };
    if (l->pp == 1)
        h.dense = n.first * each + mtp +
                  (job->spec->tied ? fmax(embedding, head) : embedding + head);
    return h;
}

/* Of these, what has gradients and the optimizer's state. */
static struct held learned_by(const struct plan_job *job, const struct plan_layout *l,
                              const struct plan_table *t)
{
    return job->frozen ? (struct held){ 0 } : held_by(job, l, t);
}

/* Messages of a step among ranks that share the batch, for so many parameters: sums of gradients
 * and gathers of weights; with groups of fewer that split, sums over groups besides. */
struct shared {
    double reduce_s, gather_s; /* gather_s with zero 3: of one pass */
};

/* Reductions to one rank after another pass everything through each rank but the last one's. */
static double split_sum_seconds(const struct plan_job *job, i64 ranks, i64 stride, double bytes)
{
    double calls = (double)(ranks - 1), part = calls / (double)ranks;
    if (job->stack->sums == SUMS_EVERYWHERE)
        return plan_sum_seconds(job, ranks, stride, bytes);
    return plan_exchange_seconds(job, ranks, stride, job->stack->sums == SUMS_REDUCED ? bytes : part * bytes,
                                 calls);
}

/* Of one exchange of so many parameters, which takes so long to begin. */
static struct shared share_unit(const struct plan_job *job, const struct plan_layout *l,
                                double parameters, i64 ranks, i64 stride, double begin_s)
{
    const struct plan_stack *s = job->stack;
    i64 near = l->zero_group && l->zero > ZERO_NONE ? i64_min(l->zero_group, ranks) : ranks;
    i64 groups = ranks / near;
    double calls = (double)(near - 1), part = (double)(near - 1) / (double)near * parameters;
    struct shared out = { 0 };
    if (l->zero == ZERO_NONE)
        out.reduce_s = plan_sum_seconds(job, ranks, stride, parameters * s->message_bytes);
    else if (near > 1) {
        double sum = split_sum_seconds(job, near, stride, parameters * s->message_bytes);
        double gather = plan_exchange_seconds(job, near, stride, part * s->weight_bytes, calls);
        out.reduce_s = begin_s + sum / s->split_rate;
        out.gather_s = begin_s + gather / s->split_rate;
    }
    if (groups > 1)
        out.reduce_s += begin_s + plan_sum_seconds(job, groups, stride * near,
                                                   parameters / (double)near * s->message_bytes);
    if (job->frozen) /* what is split is still gathered */
        out = (struct shared){ .gather_s = l->zero == ZERO_WEIGHTS ? out.gather_s : 0 };
    return out;
}

/* Where weights are split they are gathered layer by layer, and gradients scattered so: each layer,
 * and what is in none, goes all steps of a ring by itself. */
static struct shared share(const struct plan_job *job, const struct plan_layout *l,
                           const struct plan_table *t, double parameters, i64 ranks, i64 stride)
{
    const bool each = l->zero == ZERO_WEIGHTS;
    const double layers = (double)ceil_div(t->dense_layers + t->sparse_layers, l->pp);
    const double units = each ? layers + 1 : 1;
    struct shared out = { 0 };
    if (ranks <= 1 || parameters <= 0)
        return out;
    const double begin_s = each ? job->family->collective_s : 0;
    out = share_unit(job, l, parameters / units, ranks, stride, begin_s);
    return (struct shared){ units * out.reduce_s, units * out.gather_s };
}

static struct shared share_all(const struct plan_job *job, const struct plan_layout *l,
                               const struct plan_table *t)
{
    struct held h = held_by(job, l, t);
    i64 sharers = l->dp * l->cp;
    struct shared dense = share(job, l, t, h.dense, sharers, l->tp);
    i64 of_experts = plan_expert_sharers(job->stack, l);
    i64 stride = plan_expert_stride(job->stack, l) * l->ep;
    struct shared experts = share(job, l, t, h.experts, of_experts / l->ep, stride);
    return (struct shared){ dense.reduce_s + experts.reduce_s, dense.gather_s + experts.gather_s };
}

static double exposed_dp(const struct plan_job *job, const struct plan_layout *l,
                         const struct plan_table *t, const struct stage *slowest)
{
    struct shared each = share_all(job, l, t);
    double all = each.reduce_s + each.gather_s, beside = slowest->backward;
    if (l->zero > ZERO_NONE) /* weights are gathered beside the next forward pass */
        beside = stage_seconds(slowest);
    if (l->zero == ZERO_WEIGHTS) {
        all = (double)l->micro_batches * (each.reduce_s + 2 * each.gather_s);
        beside = (double)l->micro_batches * stage_seconds(slowest);
    }
    double may = job->stack->waits_for_weights ? all - each.gather_s : all;
    double hidden = fmin(may * job->stack->dp_overlap, beside);
    return all - hidden + hidden * job->family->overlap_tax;
}

static double optimizer_seconds(const struct plan_job *job, const struct plan_layout *l,
                                const struct plan_table *t)
{
    struct held h = learned_by(job, l, t);
    double n = h.dense, experts = h.experts;
    if (l->zero > ZERO_NONE) {
        i64 split = l->zero_group ? l->zero_group : l->dp * l->cp;
        n /= (double)split;
        double times = (double)plan_expert_sharers(job->stack, l) / (double)(l->dp * l->cp);
        experts /= fmax(1, times * (double)split / (double)l->ep);
    }
    return plan_traffic_seconds(job->family, &job->machine->device,
                                job->stack->update_bytes * (n + experts), 8);
}

/* --- a step --------------------------------------------------------------------------- */

static void add_flops(const struct plan_job *job, const struct plan_layout *l,
                      const struct plan_table *t, struct plan_step *out)
{
    i64 more = t->mtp_depth;
    i64 layers[PLAN_PARTS] = { t->dense_layers, t->sparse_layers, 1, 1 + more, more };
    layers[t->sparse_layers > 0 ? PLAN_SPARSE : PLAN_DENSE] += more;
    double batches = (double)(l->micro_batches * l->dp * l->cp * l->tp);
    for (int part = 0; part < PLAN_PARTS; part++) {
        const struct plan_piece *p = &t->pieces[part];
        out->flops += batches * (double)layers[part] * (p->flops + p->again_flops[l->recompute]);
    }
    (void)job;
}

double plan_stall_seconds(const struct plan_job *job, const struct plan_layout *l)
{
    double neighbours = (double)i64_min(l->pp - 1, 2), way = (double)(l->pp - 1) / 2;
    return job->stack->stall_s * ((double)l->micro_batches * neighbours + way);
}

double plan_moves_hidden(const struct plan_stack *s, const struct plan_layout *l)
{
    return l->schedule == SCHEDULE_1F1B || l->schedule == SCHEDULE_GPIPE ? 0 : s->pp_overlap;
}

static double nodes_of(const struct plan_job *job)
{
    return (double)ceil_div(job->devices, job->machine->node_ranks);
}

/* What the sum of whole gradients takes besides its bytes, where all of the job's nodes stall. */
static double sum_stall(const struct plan_job *job, const struct plan_layout *l)
{
    i64 ranks = l->dp * l->cp;
    bool across = ranks > 1 && plan_tier_of(job->machine, ranks, l->tp) > 0;
    bool whole = l->zero == ZERO_NONE && !job->frozen;
    return across && whole && nodes_of(job) >= job->stack->stall_nodes ? job->stack->stall_sum_s : 0;
}

static double stalls(const struct plan_job *job, const struct plan_layout *l,
                     const struct plan_step *out)
{
    const struct plan_stack *s = job->stack;
    double nodes = nodes_of(job);
    bool tight = out->memory_bytes > s->stall_memory * job->machine->device.memory_bytes;
    bool wide = (double)l->tp >= s->stall_tp;
    bool does = nodes >= s->stall_nodes || (l->pp > 1 && (tight || wide));
    return does ? plan_stall_seconds(job, l) : 0;
}

static struct stage_time times_of(const struct stage *s)
{
    return (struct stage_time){ s->forward, s->backward - s->weights, s->weights };
}

void plan_stages_of(const struct plan_job *job, const struct plan_layout *l,
                    const struct plan_table *t, struct plan_stages *out)
{
    struct ends e = ends_of(job, l, t);
    struct shared data = share_all(job, l, t);
    struct plan_step held;
    plan_memory_of(job, l, t, &held);
    const struct stage *middle = job->stack->balanced ? &e.fullest : &e.middle; /* all wait for it */
    *out = (struct plan_stages){ times_of(&e.first), times_of(middle), times_of(&e.last),
                                 job->stack->blocking_moves ? 0 : boundary_seconds(job, l, t), data.reduce_s, data.gather_s,
                                 optimizer_seconds(job, l, t) + t->step_launch,
                                 stalls(job, l, &held) + sum_stall(job, l) };
}

/* Moves of a step that computing does not hide. On the first micro-batch's way through all parts and on
 * the last one's way back nothing can: who waits for them has nothing to compute yet, or any more. */
static double moves_seconds(const struct plan_job *job, const struct plan_layout *l,
                            const struct plan_table *t)
{
    const double hidden = plan_moves_hidden(job->stack, l), pp = (double)l->pp;
    const double m = (double)l->micro_batches, parts = (double)l->virtual_stages;
    if (job->stack->blocking_moves)
        return 0;
    return 2 * boundary_seconds(job, l, t) *
           ((1 - hidden) * (parts * m + pp - 1) + hidden * (parts * pp - 1));
}

void plan_step_of(const struct plan_job *job, const struct plan_layout *l,
                  const struct plan_table *t, struct plan_step *out)
{
    struct stage sum, slowest;
    double m = (double)l->micro_batches, pp = (double)l->pp;
    *out = (struct plan_step){ 0 };
    pipeline(job, l, t, &sum, &slowest);
    for (int i = 0; i <= PLAN_PP; i++)
        out->terms[i] = m * sum.terms[i] / pp;
    double slot = stage_seconds(&slowest), all = stage_seconds(&sum);
    out->terms[PLAN_IMBALANCE] = m * (slot - all / pp);
    out->terms[PLAN_BUBBLE] = l->pp > 1 ? bubble(l, &sum, &slowest) : 0;
    out->terms[PLAN_PP] += moves_seconds(job, l, t);
    out->terms[PLAN_DP] = exposed_dp(job, l, t, &slowest) + sum_stall(job, l);
    out->terms[PLAN_OPTIMIZER] = optimizer_seconds(job, l, t);
    out->terms[PLAN_LAUNCH] += t->step_launch;
    plan_memory_of(job, l, t, out);
    out->terms[PLAN_STRAGGLER] = stalls(job, l, out);
    for (int i = 0; i < PLAN_TERMS; i++)
        out->seconds += out->terms[i];
    plan_interval_of(job, l, out);
    add_flops(job, l, t, out);
}

/* --- memory --------------------------------------------------------------------------- */

/* Micro-batches whose activations a stage holds at most, the first or the last one. */
static double in_flight(const struct plan_layout *l, bool last)
{
    double pp = (double)l->pp, m = (double)l->micro_batches, v = (double)l->virtual_stages;
    if (l->schedule == SCHEDULE_GPIPE)
        return m;
    bool round = v > 1 && l->schedule != SCHEDULE_ZB_V;
    if (last)
        return 1;
    return fmin(m, round ? pp * (1 + (pp - 1) / (pp * v)) : pp);
}

static void memory_of_state(const struct plan_job *job, const struct plan_layout *l,
                            const struct plan_table *t, double *memory)
{
    const struct plan_stack *s = job->stack;
    struct held h = held_by(job, l, t), learned = learned_by(job, l, t);
    double split = (double)(l->zero_group ? l->zero_group : l->dp * l->cp);
    double dense[4] = { 1, 1, 1, 1 }, experts[4] = { 1, 1, 1, 1 };
    double times = (double)plan_expert_sharers(s, l) / (double)(l->dp * l->cp);
    for (i64 z = ZERO_OPTIMIZER; z <= l->zero; z++) {
        dense[z] = split;
        experts[z] = fmax(1, times * split / (double)l->ep);
    }
    memory[PLAN_WEIGHTS] = s->weight_bytes * (h.dense / dense[ZERO_WEIGHTS] +
                                              h.experts / experts[ZERO_WEIGHTS]);
    memory[PLAN_GRADIENTS] = s->gradient_bytes * (learned.dense / dense[ZERO_GRADIENTS] +
                                                  learned.experts / experts[ZERO_GRADIENTS]);
    if (!l->offload)
        memory[PLAN_OPTIMIZER_STATE] =
            s->state_bytes * (learned.dense / dense[ZERO_OPTIMIZER] +
                              learned.experts / experts[ZERO_OPTIMIZER]);
    if (l->zero == ZERO_WEIGHTS) /* two layers are whole at a time */
        memory[PLAN_BUFFERS] = 2 * s->weight_bytes * (t->pieces[PLAN_DENSE].parameters +
                                                      t->pieces[PLAN_SPARSE].parameters);
}

void plan_memory_of(const struct plan_job *job, const struct plan_layout *l,
                    const struct plan_table *t, struct plan_step *out)
{
    double *memory = out->memory;
    int r = l->recompute;
    const struct plan_piece *dense = &t->pieces[PLAN_DENSE], *sparse = &t->pieces[PLAN_SPARSE];
    struct spread_layers n = held_layers(job, l, t);
    double early = fmax(n.first, n.most * (double)(l->pp - 1) / (double)l->pp);
    for (int i = 0; i < PLAN_MEMORIES; i++)
        memory[i] = 0;
    memory_of_state(job, l, t, memory);
    double kept = ((double)t->dense_layers * dense->kept_bytes[r] +
                   (double)t->sparse_layers * sparse->kept_bytes[r]) /
                  (double)(t->dense_layers + t->sparse_layers);
    double more = (double)t->mtp_depth;
    double mtp = more * (last_block(t)->kept_bytes[r] + t->pieces[PLAN_MTP].kept_bytes[r]);
    double first = early * kept * in_flight(l, l->pp == 1);
    double last = (n.last * kept + mtp) * in_flight(l, true);
    double rows = (double)(job->sequence * l->micro_batch) / (double)l->cp;
    double vocab = (double)plan_stack_vocab(job->stack, job->spec->vocab, l->tp);
    double logits = (1 + more) * job->stack->logit_bytes * rows * vocab / (double)l->tp;
    memory[PLAN_WORKING] = fmax(dense->working_bytes[r], sparse->working_bytes[r]);
    memory[PLAN_ACTIVATIONS] = first;
    if (l->pp == 1 || last + logits > first) {
        memory[PLAN_ACTIVATIONS] = last;
        memory[PLAN_LOGITS] = logits;
    }
    memory[PLAN_RUNTIME] = job->stack->runtime_bytes;
    out->memory_bytes = 0;
    out->binding = 0;
    for (int i = 0; i < PLAN_MEMORIES; i++) {
        out->memory_bytes += memory[i];
        if (memory[i] > memory[out->binding])
            out->binding = i;
    }
    out->fits = out->memory_bytes <= job->machine->device.memory_bytes * job->stack->usable;
}
