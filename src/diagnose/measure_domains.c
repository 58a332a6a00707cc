/* Domains of ranks: which lanes' exchanges pass between them, and which would if ranks lay otherwise
 * on the axes. */
#include "diagnose/measure_gather.h"
#include "parallel/mesh.h"

#include <string.h>

bool measure_crosses(const struct measure *m, const i32 *ranks, int n, const i32 *to)
{
    const i32 *of = m->domains.of;
    i32 domain = -1;
    for (int i = 0; i < n; i++) {
        if (ranks[i] < 0 || ranks[i] >= m->n_ranks)
            continue;
        const i32 own = of[to ? to[ranks[i]] : ranks[i]];
        if (domain >= 0 && own != domain)
            return true;
        domain = own;
    }
    return false;
}

static bool crosses(const struct gather *g, const struct link_sum *l, const i32 *to)
{
    return measure_crosses(g->m, l->ranks, l->members, to);
}

static double bytes_of(const struct link_sum *l)
{
    return (double)l->rate_bytes.n * middle(&l->rate_bytes);
}

/* Shares of lanes' bytes. */
static void add_crossings(const struct gather *g, const i32 *to, double share[LANE_COUNT])
{
    double all[LANE_COUNT] = { 0 };
    for (i64 i = 0; i < g->n_links; i++) {
        const struct link_sum *l = &g->links[i];
        all[l->lane] += bytes_of(l);
        share[l->lane] += crosses(g, l, to) ? bytes_of(l) : 0;
    }
    for (int k = 0; k < LANE_COUNT; k++)
        share[k] = all[k] > 0 ? share[k] / all[k] : 0;
}

/* What exchanges pass a second, those with more bytes counting more; NaN: there are none. */
static double passed(const struct gather *g, bool between)
{
    double bytes = 0, seconds = 0;
    for (i64 i = 0; i < g->n_links; i++)
        if (crosses(g, &g->links[i], NULL) == between) {
            bytes += bytes_of(&g->links[i]);
            seconds += bytes_of(&g->links[i]) / gather_rate_of(g, &g->links[i]);
        }
    return bytes / seconds;
}

/* Where each rank's part lies in that order; false: all stay where they are. */
static bool place_ranks(const struct layout *now, int order, i32 *to, i64 ranks)
{
    struct layout then = *now;
    bool moves = false;
    then.order = order;
    for (i64 r = 0; r < ranks; r++) {
        const struct mesh m = mesh_at(now, r);
        to[r] = (i32)mesh_rank_in(&m, &then);
        moves |= to[r] != r;
    }
    return moves;
}

static bool read_layout(struct layout *out, const struct record_head *h, struct arena *a)
{
    *out = layout_single();
    if (!h || !h->layout)
        return false;
    return strcmp(h->layout, "single") != 0 && layout_parse(out, h->layout, "the record", a) >= 0;
}

void gather_settle_domains(struct gather *g, const struct record_part *part)
{
    struct measure_domains *d = &g->m->domains;
    struct layout now;
    if (d->n < 2 || !read_layout(&now, part->heads[0], g->a) ||
        layout_ranks(&now) != g->m->n_ranks)
        return;
    add_crossings(g, NULL, d->crosses);
    d->near_bytes_per_s = passed(g, false);
    d->far_bytes_per_s = passed(g, true);
    for (int order = 0; order < LAYOUT_ORDERS; order++) {
        i32 *to = ARENA_ARRAY(g->a, i32, g->m->n_ranks);
        if (!place_ranks(&now, order, to, g->m->n_ranks))
            continue;
        struct measure_order *o = &d->orders[d->n_orders++];
        *o = (struct measure_order){ .name = layout_orders[order], .to = to };
        add_crossings(g, to, o->crosses);
    }
}
