#include "plan/table.h"

#include "base/err.h"
#include "plan/efficiency.h"
#include "plan/expert_trade.h"
#include "plan/stack.h"

#include <math.h>
#include <string.h>

enum { HALF = 2 }; /* bytes of an activation on a GPU: bf16 or fp16 */

struct pricing {
    const struct plan_job *job;
    const struct plan_device *device;
    const struct plan_family *family;
    const struct plan_stack *stack;
    const struct plan_layout *layout;
    const struct plan_ops *ops;
};

int plan_table_ops(struct plan_ops *out, const struct plan_job *job,
                   const struct plan_layout *layout)
{
    struct model_spec spec = *job->spec;
    struct plan_shape shape = { layout->tp, layout->cp, 1, layout->micro_batch,
                                job->sequence,
                                job->dtype == PLAN_FP32 ? DTYPE_F32 : DTYPE_BF16 };
    spec.vocab = plan_stack_vocab(job->stack, spec.vocab, layout->tp);
    TRY(plan_ops_new(out, &spec, &shape));
    plan_ops_share(out, layout->ep, job->stack->experts.folds);
    return OK;
}

/* Rows that work between cut matrices passes over, as a multiple of the program's. */
static double spread(const struct pricing *x, bool cut_rows)
{
    return cut_rows && !x->layout->sequence_parallel ? (double)x->layout->tp : 1;
}

/* --- operators ------------------------------------------------------------------------ */

static void add_compute(struct plan_seconds *s, double seconds, double ideal)
{
    s->ideal += ideal;
    s->shape += seconds - ideal;
}

/* Rows, and gradients of rows, of a product of fewer bits; gradients of weights find both cast. */
static bool casts(const struct pricing *x, const struct plan_op *op, int dtype)
{
    return x->stack->cast_bytes > 0 && dtype > PLAN_BF16 && op->phase != PHASE_WEIGHT_GRAD;
}

/* Kernels that exchange rows along tp beside a product keep some of the device for themselves. */
static double slower_beside(const struct pricing *x, const struct plan_op *op)
{
    const struct plan_stack *s = x->stack;
    double keep = op->of_gathered ? s->gradient_units : op->of_summed ? s->sum_units : 0;
    if (x->layout->tp == 1 || !x->layout->sequence_parallel)
        return 1;
    return x->family->units / fmax(1, x->family->units - keep);
}

static void price_product(const struct pricing *x, const struct plan_op *op, int dtype,
                          struct plan_seconds *out)
{
    i64 row = op->phase == PHASE_WEIGHT_GRAD ? op->M | op->N : op->N | op->K; /* never tokens */
    struct plan_product p = { op->M, op->N, op->K, op->batch, row, op->bytes, HALF };
    if (dtype == PLAN_FP32)
        p.element_bytes = 4;
    add_compute(out, slower_beside(x, op) * plan_product_seconds(x->family, x->device, dtype, &p),
                op->model_flops / x->device->peak[dtype]);
    double rows = (double)op->batch * (double)op->M * (double)op->K;
    if (casts(x, op, dtype))
        out->memory += plan_traffic_seconds(x->family, x->device, x->stack->cast_bytes * rows, 1);
}

static bool softmax_is_split(const struct pricing *x)
{
    i64 multiple = x->stack->softmax_multiple;
    return x->stack->attention == STACK_SCORES && multiple > 0 &&
           x->layout->micro_batch * x->ops->heads % multiple != 0;
}

/* Two products over all pairs of tokens, and what passes over their scores: softmax reads and
 * writes, dropout does so again and writes a mask of a byte. Backward has four products. */
static void price_scores(const struct pricing *x, const struct plan_op *op,
                         struct plan_seconds *out)
{
    bool backward = op->phase != PHASE_FORWARD;
    i64 T = x->job->sequence / x->layout->cp, D = x->ops->key_size, V = x->ops->value_size;
    i64 n = x->layout->micro_batch * x->ops->heads;
    double pairs = (double)n * (double)T * (double)x->job->sequence;
    struct plan_product scores = { T, x->job->sequence, D, n, x->job->sequence | D,
                                   HALF * pairs, HALF };
    struct plan_product values = { T, V, x->job->sequence, n, x->job->sequence | V,
                                   HALF * pairs, HALF };
    int half = plan_half_dtype(x->device);
    double products = plan_product_seconds(x->family, x->device, half, &scores) +
                      plan_product_seconds(x->family, x->device, half, &values);
    double passes = 2 * HALF + (x->stack->dropout ? 2 * HALF + 1 : 0);
    if (backward) {
        products *= 2;
        passes = 3 * HALF + (x->stack->dropout ? 2 * HALF + 1 : 0);
    }
    if (!backward)
        passes += x->stack->scores_bytes;
    if (softmax_is_split(x))
        passes += x->stack->softmax_bytes;
    add_compute(out, products, op->model_flops / x->device->peak[half]);
    out->memory += plan_traffic_seconds(x->family, x->device, passes * pairs,
                                        x->stack->dropout ? 2 : 1);
}

static void price_attention(const struct pricing *x, const struct plan_op *op,
                            struct plan_seconds *out)
{
    if (x->stack->attention == STACK_SCORES) {
        price_scores(x, op, out);
        return;
    }
    struct plan_fused fused = { op->flops, x->stack->generation, x->job->sequence, x->ops->key_size,
                                op->phase != PHASE_FORWARD };
    double seconds = plan_attention_seconds(x->family, x->device, &fused);
    add_compute(out, seconds, op->model_flops / x->device->peak[plan_half_dtype(x->device)]);
}

static void price_op(const struct pricing *x, const struct plan_op *op, int dtype,
                     struct plan_seconds *out)
{
    if (op->kind == PLAN_PRODUCT)
        price_product(x, op, dtype, out);
    else if (op->kind == PLAN_ATTENTION)
        price_attention(x, op, out);
    else
        out->memory += plan_traffic_seconds(x->family, x->device,
                                            op->bytes * spread(x, op->cut_rows), 1);
}

/* --- pieces --------------------------------------------------------------------------- */

static void scale(struct plan_seconds *s, double factor)
{
    s->ideal *= 1;
    s->shape += (factor - 1) * (s->ideal + s->shape);
    s->memory *= factor;
}

/* What a layer does besides the operators' own traffic: over its rows, and over what tp cuts of
 * them. */
static void add_software(const struct pricing *x, struct plan_seconds *s, double passes, double cut)
{
    double tp = (double)x->layout->tp, whole = x->layout->sequence_parallel ? passes / tp : passes;
    double bytes = (whole + cut / tp) * HALF * (double)x->ops->rows * (double)x->ops->width;
    s->memory += plan_traffic_seconds(x->family, x->device, bytes, ceil((passes + cut) / 3));
    scale(s, x->stack->factor);
}

/* Ranks along tp meet in each exchange and so take the time of the slowest host. The most of n
 * times that are scattered as those between random events is that many times their mean (a
 * rule). */
static double slowest_of(i64 n)
{
    double most = 0;
    for (i64 i = 1; i <= n; i++)
        most += 1 / (double)i;
    return most;
}

/* The host starts so many kernels while the device works for `busy` seconds: returns how far it
 * gets ahead. Were all kernels alike, the slower of both would decide. They are not: the device
 * waits within runs of short kernels even where the host is ahead on the whole, so both count, as a
 * norm of degree `pace`. What the host has left of that is its lead: were it what the device works
 * longer, a faster device would lose more of the lead than it gains. */
static double keep_pace(const struct pricing *x, struct plan_seconds *s, double kernels,
                        double busy)
{
    double host = kernels * x->family->launch_s;
    if (x->stack->blocking) {
        s->launch = host * slowest_of(x->layout->tp);
        return 0;
    }
    double most = fmax(host, busy), least = fmin(host, busy), p = x->family->pace;
    double both = most > 0 ? most * pow(1 + pow(least / most, p), 1 / p) : 0;
    s->launch = both - busy;
    return both - host;
}

/* How much of such operators selective recompute runs a second time. */
static double remade(const struct plan_stack *s, enum plan_op_kind kind)
{
    if (kind == PLAN_ATTENTION)
        return s->selective == SELECTIVE_ATTENTION;
    if (kind == PLAN_PRODUCT)
        return s->selective == SELECTIVE_HALF ? 0.5 : 0;
    return s->selective != SELECTIVE_ATTENTION;
}

static void add_share(struct plan_seconds *to, const struct plan_seconds *s, double share)
{
    to->ideal += share * s->ideal;
    to->shape += share * s->shape;
    to->memory += share * s->memory;
    to->launch += share * s->launch;
}

static void price_again(const struct pricing *x, const struct plan_piece_ops *p,
                        struct plan_piece *out)
{
    out->again[RECOMPUTE_FULL] = out->forward;
    out->tp_again[RECOMPUTE_FULL] = out->tp_forward;
    for (int i = 0; i < p->n; i++) {
        const struct plan_op *op = &p->ops[i];
        if (op->phase != PHASE_FORWARD)
            continue;
        out->again_flops[RECOMPUTE_FULL] += op->flops;
        double share = remade(x->stack, op->kind);
        struct plan_seconds whole = { 0 };
        price_op(x, op, x->job->dtype, &whole);
        add_share(&out->again[RECOMPUTE_SELECTIVE], &whole, share);
        out->again_flops[RECOMPUTE_SELECTIVE] += share * op->flops;
    }
}

/* Of so many collectives. */
static double message_seconds(const struct pricing *x, const struct plan_messages *m, i64 ranks,
                              i64 stride, double collectives)
{
    double bytes = x->job->dtype == PLAN_FP32 ? m->bytes : m->half_bytes;
    if (ranks == 1)
        return 0;
    return collectives * x->family->collective_s +
           plan_exchange_seconds(x->job, ranks, stride, bytes, m->calls * (double)(ranks - 1));
}

/* Rows that are whole are summed at once, where the program scatters sums and gathers rows. */
static double tp_collectives(const struct pricing *x, const struct plan_messages *m)
{
    return x->layout->sequence_parallel ? m->calls : m->calls / 2;
}

static double tp_seconds(const struct pricing *x, const struct plan_messages *m)
{
    return message_seconds(x, m, x->layout->tp, 1, tp_collectives(x, m));
}

/* Weights that do not learn have no gradients. */
static bool left_out(const struct pricing *x, const struct plan_op *op)
{
    return x->job->frozen && op->phase == PHASE_WEIGHT_GRAD;
}

/* Gradients of products whose rows tp gathered: of the phase's tensors. */
static double gradient_seconds(const struct pricing *x, const struct plan_piece_ops *p,
                               enum phase phase)
{
    struct plan_seconds s = { 0 };
    for (int i = 0; i < p->n; i++)
        if (p->ops[i].of_gathered && p->ops[i].phase == phase && !left_out(x, &p->ops[i]))
            price_op(x, &p->ops[i], x->job->dtype, &s);
    return plan_seconds_sum(&s);
}

/* What is left to see of an exchange beside so many seconds of products, and what it taxes them. */
static double beside(const struct pricing *x, double exchange, double products)
{
    double hidden = fmin(exchange, products);
    return exchange - hidden + hidden * x->family->overlap_tax;
}

/* Rows are gathered again for the gradients of products, where they were cut and nobody kept them
 * whole (Korthikanti et al. 2022, section 4.2.2). */
static bool gathers_again(const struct pricing *x)
{
    return x->layout->sequence_parallel && !x->stack->keeps_gathered;
}

static double backward_messages(const struct pricing *x, const struct plan_piece_ops *p)
{
    double all = tp_seconds(x, &p->tp[1]);
    double seen = 1 - x->stack->tp_overlap, sums = all, again = 0;
    if (x->layout->sequence_parallel) /* else both halves of each sum are at the same place */
        sums = tp_seconds(x, &p->summed);
    if (gathers_again(x))
        again = tp_seconds(x, &p->gathered);
    if (!x->stack->overlaps_gradients)
        return seen * (all + again);
    return seen * (all - sums) + beside(x, sums, gradient_seconds(x, p, PHASE_WEIGHT_GRAD)) +
           beside(x, again, gradient_seconds(x, p, PHASE_INPUT_GRAD));
}

static void price_messages(const struct pricing *x, const struct plan_piece_ops *p,
                           struct plan_piece *out)
{
    const struct plan_layout *l = x->layout;
    const i64 share = i64_max(1, l->tp / x->job->spec->kv_heads); /* who has the same key-value head */
    double seen = 1 - x->stack->tp_overlap;
    const struct plan_messages *heads = p->heads, *cp = p->cp;
    out->tp_forward = seen * (tp_seconds(x, &p->tp[0]) +
                              message_seconds(x, &heads[0], share, 1, heads[0].calls));
    if (l->tp > 1)
        out->tp_backward = backward_messages(x, p) +
                           seen * message_seconds(x, &heads[1], share, 1, heads[1].calls);
    out->cp_forward = message_seconds(x, &cp[0], l->cp, l->tp, cp[0].calls);
    out->cp_backward = message_seconds(x, &cp[1], l->cp, l->tp, cp[1].calls);
}

/* Rows that a rank has for experts: their tokens, cut by tp. */
static double token_rows(const struct pricing *x)
{
    return (double)x->ops->rows / (double)x->layout->tp;
}

/* Rows go to their experts and come back, forward and backward: four exchanges in all. */
static void price_expert_messages(const struct pricing *x, struct plan_piece *out)
{
    const struct plan_layout *l = x->layout;
    if (l->ep == 1)
        return;
    struct plan_trade trade = {
        .ranks = l->ep, .stride = plan_expert_stride(x->stack, l), .rows = token_rows(x),
        .row_bytes = HALF * (double)x->ops->width,
        .choices = (double)x->job->spec->experts_per_token,
        .groups = (double)x->job->spec->groups,
        .group_limit = (double)x->job->spec->group_limit, .once = x->stack->experts.once,
    };
    double seconds = x->family->collective_s + plan_trade_seconds(x->job, &trade);
    out->ep_forward = out->ep_backward = 2 * (1 - x->stack->ep_overlap) * seconds;
}

/* Rows that others sent lie by sender: they are put together by expert, and back afterwards. */
static void price_sorts(const struct pricing *x, struct plan_piece *out)
{
    double rows = token_rows(x) * (double)x->job->spec->experts_per_token;
    double sorts = x->stack->experts.sorts;
    double seconds = plan_traffic_seconds(x->family, x->device,
                                          sorts * 2 * HALF * rows * (double)x->ops->width, sorts);
    out->forward.memory += seconds;
    out->backward.memory += seconds;
}

/* A layer's input, attention's result and half of those of products. */
static double kept_by_half(const struct pricing *x, const struct plan_piece_ops *p, double cut)
{
    double rows = (double)x->ops->rows;
    double n = rows * (double)x->ops->width / cut +
               rows * (double)(x->ops->heads * x->ops->value_size);
    for (int i = 0; i < p->n; i++)
        if (p->ops[i].kind == PLAN_PRODUCT && p->ops[i].phase == PHASE_FORWARD)
            n += 0.5 * (double)p->ops[i].batch * (double)p->ops[i].M * (double)p->ops[i].N;
    return HALF * n;
}

/* Products of fewer bits multiply copies of rows for gradients of weights, and software may keep
 * these, not the rows: one byte where there were two, or of fp4 a half and a scale of a byte
 * for 16. Where something else reads a row, both are kept. */
static double saved_by_casts(const struct pricing *x, const struct plan_piece_ops *p)
{
    const double copy = x->job->dtype == PLAN_FP4 ? (0.5 + 1.0 / 16) / HALF : 1.0 / HALF;
    if (!x->stack->keeps_casts || x->job->dtype <= PLAN_BF16)
        return 0;
    return (1 - copy) * p->kept_as_rows[0] - copy * p->kept_as_rows[1];
}

static void price_kept(const struct pricing *x, const struct plan_piece_ops *p, bool layer,
                       struct plan_piece *out)
{
    double tp = (double)x->layout->tp, cut = x->layout->sequence_parallel ? tp : 1;
    double rows = (double)x->ops->rows, width = (double)x->ops->width;
    double kept = layer ? p->kept_bytes - saved_by_casts(x, p) : p->kept_bytes;
    double all = kept * x->stack->kept, scores = 0;
    if (x->layout->sequence_parallel && x->stack->keeps_gathered)
        all += p->gathered_bytes;
    if (!x->layout->sequence_parallel)
        all += (tp - 1) * p->kept_cut_bytes * x->stack->kept;
    if (layer && x->stack->dropout)
        all += 2 * rows * width / cut;
    if (layer && x->stack->attention == STACK_SCORES)
        scores = (x->stack->dropout ? 2 * HALF + 1 : HALF) * rows * (double)x->ops->heads *
                 (double)x->job->sequence;
    out->kept_bytes[RECOMPUTE_NONE] = all + scores;
    out->kept_bytes[RECOMPUTE_SELECTIVE] = all;
    out->working_bytes[RECOMPUTE_SELECTIVE] = scores;
    if (layer && x->stack->selective == SELECTIVE_HALF) {
        out->kept_bytes[RECOMPUTE_SELECTIVE] = fmin(all, kept_by_half(x, p, cut));
        out->working_bytes[RECOMPUTE_SELECTIVE] = all;
    }
    out->kept_bytes[RECOMPUTE_FULL] = layer ? HALF * rows * width / cut : all;
    out->working_bytes[RECOMPUTE_FULL] = layer ? all + scores : 0;
}

/* Gradients are added to their sums by kernels of their own, and the loss passes over the logits
 * more often than the program's does. */
static void price_sums(const struct pricing *x, const struct plan_piece_ops *p,
                       enum plan_part part, struct plan_piece *out)
{
    double learns = x->job->frozen ? 0 : p->parameters + p->expert_parameters;
    double bytes = x->stack->accumulate_bytes * learns;
    if (part == PLAN_HEAD)
        bytes += x->stack->loss_bytes * (double)x->ops->rows * (double)x->ops->vocab;
    out->backward.memory += plan_traffic_seconds(x->family, x->device, bytes, 0);
}

/* Kernels that the host starts for experts, besides those of any layer. */
static double kernels_of_experts(const struct pricing *x, double besides, double each)
{
    bool cast = x->stack->cast_bytes > 0 && x->job->dtype > PLAN_BF16;
    double here = (double)(x->job->spec->experts / x->layout->ep);
    return besides + here * (each + (cast && each > 0 ? x->stack->experts.casts : 0));
}

/* Seconds of the forward pass from where rows are put in order for experts. */
static double seconds_at_experts(const struct pricing *x, const struct plan_piece_ops *p,
                                 const struct plan_piece *out)
{
    struct plan_seconds s = { 0 };
    bool there = false;
    for (int i = 0; i < p->n; i++) {
        there |= !strcmp(p->ops[i].name, "expert_order");
        if (there && p->ops[i].phase == PHASE_FORWARD)
            price_op(x, &p->ops[i], x->job->dtype, &s);
    }
    return fmin(plan_seconds_sum(&s), plan_seconds_sum(&out->forward)) + out->ep_forward;
}

/* The host reads how many rows there are for each expert: what it starts for these it starts when
 * all before has ended, so both parts keep pace by themselves. Returns how far it is ahead. */
static double keep_pace_twice(const struct pricing *x, struct plan_seconds *s, double before,
                              double experts, double busy, double busy_there)
{
    struct plan_seconds there = { 0 };
    double ahead = keep_pace(x, &there, experts, busy_there);
    keep_pace(x, s, before, busy - busy_there);
    s->launch += there.launch;
    return ahead;
}

static void price_launches(const struct pricing *x, const struct plan_piece_ops *p, bool sparse,
                           struct plan_piece *out)
{
    const struct plan_stack *k = x->stack;
    double forward = plan_seconds_sum(&out->forward) + out->tp_forward + out->cp_forward +
                     out->ep_forward;
    double backward = plan_seconds_sum(&out->backward) + out->tp_backward + out->cp_backward +
                      out->ep_backward;
    double more = softmax_is_split(x) ? k->kernels_softmax : 0;
    double again = gathers_again(x) ? p->gathered.calls : 0;
    const double each = k->kernels_exchange;
    double there = each * (tp_collectives(x, &p->tp[0]) + p->heads[0].calls + p->cp[0].calls);
    double back = each * (tp_collectives(x, &p->tp[1]) + again + p->heads[1].calls +
                          p->cp[1].calls);
    double experts = 0, experts_back = 0;
    if (sparse) {
        experts = kernels_of_experts(x, k->experts.forward, k->experts.each_forward);
        experts_back = kernels_of_experts(x, k->experts.backward, k->experts.each_backward);
    }
    there += k->kernels_forward + more;
    double ahead, ahead_back;
    if (sparse && k->experts.waits)
        ahead = keep_pace_twice(x, &out->forward, there, experts, forward,
                                seconds_at_experts(x, p, out));
    else
        ahead = keep_pace(x, &out->forward, there + experts, forward);
    back += k->kernels_backward + more + experts_back;
    ahead_back = keep_pace(x, &out->backward, back, backward);
    for (int r = 0; r < 3; r++)
        out->slack[r] = ahead + ahead_back + (r == RECOMPUTE_FULL ? ahead : 0);
}

/* Kernels that move experts' rows keep some of the device for themselves. */
static void leave_units(const struct pricing *x, struct plan_piece *out)
{
    double slower = x->family->units / fmax(1, x->family->units - x->stack->expert_units);
    scale(&out->forward, slower);
    scale(&out->backward, slower);
    out->weight_seconds *= slower;
}

static void price_piece(const struct pricing *x, const struct plan_piece_ops *p,
                        enum plan_part part, struct plan_piece *out)
{
    bool layer = part == PLAN_DENSE || part == PLAN_SPARSE;
    bool within = layer || part == PLAN_MTP;
    int dtype = within ? x->job->dtype : (int)i64_min(x->job->dtype, PLAN_BF16);
    struct plan_seconds weights = { 0 };
    *out = (struct plan_piece){ .parameters = p->parameters,
                                .expert_parameters = p->expert_parameters };
    for (int i = 0; i < p->n; i++) {
        const struct plan_op *op = &p->ops[i];
        if (left_out(x, op))
            continue;
        price_op(x, op, dtype, op->phase == PHASE_FORWARD ? &out->forward : &out->backward);
        if (op->phase == PHASE_WEIGHT_GRAD)
            price_op(x, op, dtype, &weights);
        out->flops += op->flops;
    }
    if (layer) {
        add_software(x, &out->forward, x->stack->passes_forward, x->stack->cut_forward);
        add_software(x, &out->backward, x->stack->passes_backward, x->stack->cut_backward);
    }
    out->weight_seconds = plan_seconds_sum(&weights);
    if (part == PLAN_SPARSE && x->layout->ep > 1)
        leave_units(x, out);
    if (part == PLAN_SPARSE && x->layout->ep > 1)
        price_sorts(x, out);
    price_sums(x, p, part, out);
    price_messages(x, p, out);
    if (part == PLAN_SPARSE)
        price_expert_messages(x, out);
    if (layer)
        price_launches(x, p, part == PLAN_SPARSE, out);
    if (layer)
        price_again(x, p, out);
    price_kept(x, p, layer, out);
}

/* Rows that another stage sent in parts, put together along tp. */
static double gather_of_moves(const struct pricing *x)
{
    double rows = HALF * (double)x->ops->rows * (double)x->ops->width;
    double tp = (double)x->layout->tp, passes = (double)x->stack->move_passes;
    if (x->layout->tp == 1 || passes == 0)
        return 0;
    return plan_exchange_seconds(x->job, x->layout->tp, 1, rows * (tp - 1) / tp, tp - 1) +
           plan_traffic_seconds(x->family, x->device, passes * rows, passes / 2);
}

void plan_table_price(struct plan_table *out, const struct plan_job *job,
                      const struct plan_layout *layout, const struct plan_ops *ops)
{
    struct pricing x = { job, &job->machine->device, job->family, job->stack, layout, ops };
    *out = (struct plan_table){
        .tp = layout->tp, .cp = layout->cp, .ep = layout->ep, .micro_batch = layout->micro_batch,
        .sequence_parallel = layout->sequence_parallel,
        .sparse_layers = spec_sparse_layers(job->spec), .mtp_depth = job->spec->mtp_depth,
    };
    out->dense_layers = job->spec->layers - out->sparse_layers;
    for (int part = 0; part < PLAN_PARTS; part++)
        price_piece(&x, &ops->pieces[part], (enum plan_part)part, &out->pieces[part]);
    if (ops->pieces[PLAN_DENSE].matrices > 0)
        out->head_layers = ops->pieces[PLAN_HEAD].matrices / ops->pieces[PLAN_DENSE].matrices;
    out->batch_launch = job->stack->kernels_batch * job->family->launch_s;
    out->pipeline_launch = job->stack->kernels_pipeline * (double)layout->tp * job->family->launch_s;
    out->step_launch = job->stack->kernels_step * job->family->launch_s;
    out->boundary_gather = gather_of_moves(&x);
    out->boundary_bytes = HALF * (double)ops->rows * (double)ops->width / (double)layout->tp;
}

int plan_table_new(struct plan_table *out, const struct plan_job *job,
                   const struct plan_layout *layout, struct arena *a)
{
    struct plan_ops *ops = ARENA_NEW(a, struct plan_ops);
    TRY(plan_table_ops(ops, job, layout));
    plan_table_price(out, job, layout, ops);
    return OK;
}
