#include "plan/limits.h"

#include "base/err.h"
#include "model/params.h"

#include <math.h>

static double ridge(const struct plan_machine *m, int tier, double flops_per_s)
{
    if (tier >= m->n_tiers)
        return 0;
    const struct plan_tier *t = &m->tiers[tier];
    return flops_per_s / (t->bytes_per_s.mid / t->oversubscription);
}

static double over(double intensity, double at)
{
    return at > 0 ? intensity / at : 0;
}

/* The width of the products that most FLOPs are in. */
static double product_width(const struct model_spec *s)
{
    bool sparse = spec_sparse_layers(s) > 0;
    return sparse ? (double)(s->experts_per_token * s->expert_hidden + s->shared_hidden)
                  : (double)s->hidden;
}

static int find_power(struct plan_limits *out, const struct plan_machine *m, i64 devices)
{
    struct plan_use use = { .devices = (double)devices, .seconds = 3600, .busy = { 1, 1, 1 } };
    struct plan_bill bill;
    TRY(plan_bill_of(m, &use, &bill));
    out->watts = (struct plan_band){ 1e6 * bill.mwh.lo, 1e6 * bill.mwh.mid, 1e6 * bill.mwh.hi };
    return OK;
}

/* Ranks along a pipeline that idles a tenth at most: p - 1 <= v m / 9, with as many stages on each
 * as layers allow (v p stages of so many layers at least), and a row a micro-batch. */
static double deepest_pipeline(double layers, double least, double rows)
{
    double most = fmax(1, floor(layers / fmax(1, ceil(least))));
    double p = 1;
    while (p + 1 <= most && p <= floor(most / (p + 1)) * floor(fmax(1, rows)) / 9)
        p++;
    return p;
}

int plan_limits_of(struct plan_limits *out, const struct model_spec *s,
                   const struct plan_machine *m, i64 devices, i64 sequence, double batch,
                   double critical, int dtype)
{
    const struct plan_device *d = &m->device;
    double width = product_width(s), row = (double)(sequence ? sequence : s->positions);
    *out = (struct plan_limits){ 0 };
    TRY(plan_dtype_check(d, dtype));
    out->flops_per_s = d->reached[dtype] > 0 ? d->reached[dtype] : 0.8 * d->peak[dtype];
    out->node_ridge = ridge(m, 0, out->flops_per_s);
    out->net_ridge = ridge(m, 1, out->flops_per_s);
    double far = out->net_ridge > 0 ? out->net_ridge : out->node_ridge;
    double node = m->n_tiers > 0 ? (double)m->tiers[0].ranks : 1;
    out->tensor_node = fmin(node, over(width, out->node_ridge));
    out->tensor_net = over(width, out->net_ridge);
    out->context_net = over(row * (double)s->heads / (double)s->kv_heads, far);
    out->pipeline_layers = far / (1.5 * width);
    if (s->experts > 0) {
        out->experts_node = over((double)s->expert_hidden, out->node_ridge);
        out->experts_net = over((double)s->expert_hidden, out->net_ridge);
    }
    /* A token meets part of a sparse model, so weights serve fewer tokens. */
    double sparsity = (double)params_total(s) / (double)params_active(s);
    out->data_tokens = far * sparsity;
    out->row_ranks = batch / row;
    out->data_ranks = fmin(out->row_ranks, batch / out->data_tokens);
    out->critical_ranks = critical > 0 ? fmin(critical / row, critical / out->data_tokens) : 0;
    double ranks = fmax(1, floor(out->data_ranks));
    out->stages = deepest_pipeline((double)s->layers, out->pipeline_layers, out->row_ranks / ranks);
    out->devices = ranks * fmax(1, floor(out->tensor_node)) * out->stages;
    out->memory_split = 18 * (double)params_total(s) / d->memory_bytes;
    out->memory_whole = 6 * (double)params_total(s) / d->memory_bytes;
    return find_power(out, m, devices);
}
