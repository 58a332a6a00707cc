#include "plan/expert_trade.h"

#include "plan/efficiency.h"
#include "plan/net_band.h"

#include <math.h>

/* Of n places, those that have experts of the groups that a row's are in. */
static double open_places(const struct plan_trade *t, double n)
{
    double share = t->groups > 0 ? t->group_limit / t->groups : 1, each = t->groups / n;
    return share >= 1 ? n : fmax(1, n * (each > 1 ? 1 - pow(1 - share, each) : share));
}

/* How many of n places a row goes to, of those that its choices name. */
static double places(const struct plan_trade *t, double n)
{
    double of = open_places(t, n);
    return t->once ? of * (1 - pow(1 - 1 / of, t->choices)) : t->choices;
}

double plan_trade_seconds(const struct plan_job *job, const struct plan_trade *t)
{
    const struct plan_machine *m = job->machine;
    const struct plan_family *f = job->family;
    int tier = plan_tier_of(m, t->ranks, t->stride);
    double all = (double)t->ranks, bytes = t->rows * t->row_bytes;
    double near = tier ? fmin(all, fmax(1, (double)(m->tiers[0].ranks / t->stride))) : all;
    double nodes = all / near;
    /* What is sent on within a node is what came from all of them, if a row comes once. */
    double inside = places(t, all) * (1 - 1 / near) / (t->once ? 1 : nodes);
    double link = plan_tier_rate(m, 0, f->link, m->tiers[0].bytes_per_s.mid);
    double link_step = fmax(m->tiers[0].latency_s.mid, f->link_latency_s);
    if (tier == 0)
        return inside * bytes / link + (all - 1) * link_step;
    double across = places(t, nodes) * (1 - 1 / nodes);
    double net = plan_tier_rate(m, tier, f->net, m->tiers[tier].bytes_per_s.mid);
    double net_step = fmax(m->tiers[tier].latency_s.mid, f->net_latency_s);
    double hops = (near - 1) * link_step + (nodes - 1) * net_step;
    double steps = t->once ? hops : (all - 1) * net_step;
    return fmax(across * bytes / net, inside * bytes / link) + steps;
}
