#include "plan/run_size.h"

#include "base/arena.h"
#include "base/err.h"
#include "model/params.h"
#include "plan/layer_costs.h"

static double piece_flops(const struct plan_piece_ops *p, bool attention_only)
{
    double sum = 0;
    for (int i = 0; i < p->n; i++)
        if (!attention_only || p->ops[i].kind == PLAN_ATTENTION)
            sum += p->ops[i].model_flops;
    return sum;
}

int plan_run_size_of(struct plan_run_size *out, const struct model_spec *s, i64 sequence)
{
    struct arena a;
    sequence = sequence ? sequence : s->positions;
    struct plan_shape shape = { 1, 1, 1, 1, sequence, DTYPE_BF16 };
    arena_init(&a);
    struct plan_ops *ops = ARENA_NEW(&a, struct plan_ops);
    int rc = plan_ops_new(ops, s, &shape);
    if (rc >= 0) {
        i64 sparse = spec_sparse_layers(s);
        double count[PLAN_PARTS] = { [PLAN_DENSE] = (double)(s->layers - sparse),
                                     [PLAN_SPARSE] = (double)sparse, [PLAN_EMBEDDING] = 1,
                                     [PLAN_HEAD] = 1 };
        double more = (double)s->mtp_depth; /* each a block, a head and a projection */
        count[sparse > 0 ? PLAN_SPARSE : PLAN_DENSE] += more;
        count[PLAN_HEAD] += more;
        count[PLAN_MTP] = more;
        double flops = 0, attention = 0;
        for (int p = 0; p < PLAN_PARTS; p++) {
            flops += count[p] * piece_flops(&ops->pieces[p], false);
            attention += count[p] * piece_flops(&ops->pieces[p], true);
        }
        *out = (struct plan_run_size){
            .parameters = (double)params_total(s), .active = (double)params_active(s),
            .in_products = (double)params_matmul(s), .sequence = sequence,
            .flops_per_token = flops / (double)sequence, .attention_share = attention / flops,
            .square_per_token = (flops + attention) / (double)sequence,
        };
        out->six_n_per_token = 6 * out->active;
    }
    arena_fini(&a);
    return rc < 0 ? rc : OK;
}
