/* The tasks that measure a step's health (see health.h). */
#include "ops/ops.h"
#include "parallel/insert.h"
#include "parallel/pipeline.h"
#include "train/health.h"

/* --- attention ---------------------------------------------------------------------- */

void health_watch_logits(struct graph *g, const struct health *h)
{
    for (i64 i = 0; i < g->n_tasks && g->rc >= 0; i++) {
        struct task *t = g->tasks[i];
        if (t->op != &op_attention && t->op != &op_attention_block)
            continue;
        g->layer = t->layer;
        struct tensor *largest = graph_view(g, h->logits, t->layer, 1);
        graph_add_at(g, ++i, &(struct task){ .op = &op_raise, .in = { attention_watch(g, t) },
                                             .out = { largest }, .when = h->due });
    }
    g->layer = -1;
}

/* --- parameters --------------------------------------------------------------------- */

static struct tensor *place_of(struct graph *g, const struct health *h, const struct param *p,
                               int column)
{
    i64 i = 0;
    while (h->params[i].id != p->desc.id || h->params[i].layer != p->desc.layer)
        i++;
    return graph_view(g, h->norms, i * HEALTH_COLUMNS + column, 1);
}

bool health_in_noise(const struct param_desc *p)
{
    return p->kind == PARAM_MATRIX && p->split != SPLIT_NONE && !param_is_expert(p);
}

/* The list's last task that sums into exactly this gradient; -1: none. */
static i64 last_product(const struct graph *g, const struct tensor *grad)
{
    for (i64 i = g->n_tasks - 1; i >= 0; i--)
        for (int k = 0; k < TASK_OUTS; k++)
            if (g->tasks[i]->lane == LANE_COMPUTE && g->tasks[i]->op->accumulates &&
                g->tasks[i]->out[k] == grad)
                return i;
    return -1;
}

int health_watch_gradients(struct graph *g, const struct health *h, const struct model *m,
                           const struct mesh *mesh)
{
    TRY(g->rc);
    struct insertions s = insertions_begin(g, mesh, m->n_params);
    for (i64 i = 0; i < m->n_params && g->rc >= 0; i++) {
        const struct param *p = &m->params[i];
        i64 at = health_in_noise(&p->desc) && p->grad ? last_product(g, p->grad) : -1;
        if (at < 0)
            continue;
        struct task *t = insert_task(&s, at + 1, g->tasks[at]->part,
                                     &(struct task){ .op = &op_sum_changes, .in = { p->grad },
                                                     .out = { place_of(g, h, p, HEALTH_SMALL) },
                                                     .phase = PHASE_WEIGHT_GRAD,
                                                     .first_turn = true, .when = h->due });
        if (t)
            t->layer = p->desc.layer;
    }
    return insertions_end(&s);
}

/* Who has the same elements: ranks that share the batch, or those of them with the same experts. A
 * split state leaves each of them its own part, but for copies of it in other groups. */
bool health_measures(const struct model *m, const struct mesh *mesh, const struct param *p)
{
    const struct layout *l = &mesh->layout;
    const bool sliced = m->part.state_parts > 1 && p->at >= p->bucket->copied;
    const i64 experts_apart = p->bucket->experts ? l->ep : 1;
    if (p->desc.kind == PARAM_BALANCE || !pipeline_counts(m, p))
        return false;
    if (mesh_coordinate(mesh, LANE_COPIES) != 0)
        return false;
    if (!sliced && mesh_coordinate(mesh, mesh_sharers(mesh, p->bucket)) != 0)
        return false;
    if (l->exact_context && mesh->cp_rank >= experts_apart)
        return false;
    return p->desc.split != SPLIT_NONE || mesh_coordinate(mesh, LANE_TP) == 0;
}

void health_watch_gradient(struct graph *g, const struct health *h, const struct param *p,
                           struct tensor *grad)
{
    if (h && p)
        sum_changes(g, grad, NULL, place_of(g, h, p, HEALTH_GRAD), h->due);
}

struct tensor *health_keep(struct graph *g, const struct health *h, const struct param *p,
                           struct tensor *weight)
{
    if (!h || !p)
        return NULL;
    struct task *t = graph_add(g, &(struct task){ .op = &op_cast, .in = { weight },
                                                  .phase = PHASE_UPDATE, .when = h->due,
                                                  .attr = { [CAST_DTYPE] = DTYPE_F32 } });
    return t ? t->out[0] : NULL;
}

void health_watch_update(struct graph *g, const struct health *h, const struct param *p,
                         struct tensor *weight, struct tensor *before)
{
    if (!h || !p)
        return;
    sum_changes(g, weight, NULL, place_of(g, h, p, HEALTH_WEIGHT), h->due);
    sum_changes(g, weight, before, place_of(g, h, p, HEALTH_UPDATE), h->due);
}
