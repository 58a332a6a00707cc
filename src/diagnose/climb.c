#include "diagnose/climb.h"

#include "base/err.h"
#include "diagnose/dag_again.h"
#include "diagnose/each.h"

#include <math.h>
#include <stdlib.h>

/* Half a gigabyte of spans takes some three seconds of two cores. */
static const double most_bytes = 5e8;

struct climb {
    const struct record *r;
    struct ladder *l;
    struct critical *c;
    const struct usual *usual;
    const double *weights; /* of the steps, in order; NULL: they have the ladder's */
    i64 taken;
};

struct climbed {
    struct ladder_step ladder;
    struct critical_path path;
};

static void *make_rungs(void *context, const struct record_step *s, void **kept)
{
    const struct climb *k = context;
    struct dag_shapes *shapes = *kept;
    struct dag *g;
    const int rc = dag_new_again(&g, s, &shapes);
    *kept = shapes;
    if (rc < 0)
        return NULL;
    struct climbed *x = ARENA_NEW(s->arena, struct climbed);
    ladder_measure(&x->ladder, s, g, k->usual);
    critical_walk(&x->path, s, g);
    return x;
}

static void drop_shapes(void *kept)
{
    dag_shapes_free(kept);
}

static int take_rungs(void *context, const struct record_step *s, void *made, int rc)
{
    struct climb *k = context;
    const struct climbed *x = made;
    const i64 at = k->taken++;
    if (k->weights)
        k->l->weight = k->c->weight = k->weights[at];
    if (rc < 0 || !x)
        return OK; /* a damaged step */
    ladder_take(k->l, k->r, s, &x->ladder);
    critical_take(k->c, &x->path);
    return OK;
}

int climb_steps(struct record *r, const struct usual *u, const i64 *steps, i64 n, struct ladder *l,
                struct critical *c)
{
    struct climb k = { r, l, c, u, NULL, 0 };
    const struct each e = { &k, make_rungs, take_rungs, drop_shapes };
    return each_step(r, steps, n, &e);
}

/* --- of a long record --------------------------------------------------------------- */

/* Of steps in order of length those are taken in which an equal share of their time is full: as likely
 * as they are long, and standing for so many steps as are as long as that share. Who is longer stands
 * for itself. */

struct length {
    double seconds; /* from the end of the step before to its own, with what was done between */
    i64 index;      /* of r->steps */
};

static int longest_first(const void *a, const void *b)
{
    const struct length *x = a, *y = b;
    if (x->seconds != y->seconds)
        return x->seconds < y->seconds ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Index of the step in r->steps, or where it would be. */
static i64 index_of(const struct record *r, i64 step)
{
    i64 low = 0, high = r->n_steps;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (r->steps[middle] < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* weight[n], 0: fewer than n steps [from, from + n) of r->steps get theirs. Returns which share of
 * their time each stands for that is not its own. */
static double weigh(double *weight, const struct record *r, i64 from, i64 n, i64 most,
                    struct arena *a)
{
    struct length *all = ARENA_ARRAY(a, struct length, n);
    double left = 0, at = 0, total;
    i64 room = most, next = 0;
    for (i64 i = 0; i < n; i++) {
        all[i] = (struct length){ fmax(1e-9, record_step_seconds(r, from + i)), i };
        left += all[i].seconds;
    }
    total = left;
    for (int i = 0; i < r->n_parts && room > 1; i++) {
        const i64 first = index_of(r, r->parts[i].first_step) - from;
        if (first < 0 || first >= n || weight[first] > 0)
            continue;
        weight[first] = 1;
        left -= all[first].seconds;
        room--;
    }
    qsort(all, (size_t)n, sizeof *all, longest_first);
    for (; room > 1 && all[next].seconds >= left / (double)room; next++) {
        if (weight[all[next].index] > 0)
            continue;
        weight[all[next].index] = 1;
        left -= all[next].seconds;
        room--;
    }
    const double each = left / (double)room;
    for (i64 i = next, taken = 0; i < n && taken < room; i++) {
        if (weight[all[i].index] > 0)
            continue;
        at += all[i].seconds;
        if (at > ((double)taken + 0.5) * each) {
            weight[all[i].index] = each / all[i].seconds;
            taken++;
        }
    }
    return each / total;
}

int climb_choose(struct climb_choice *out, const struct record *r, const struct climb_range *range,
                 struct arena *a)
{
    i64 from = 0, n = 0, most = range->most;
    for (i64 i = 0; i < r->n_steps; i++) {
        from += r->steps[i] < range->first;
        n += r->steps[i] >= range->first && r->steps[i] <= range->last;
    }
    *out = (struct climb_choice){ .of = n };
    if (n == 0 && r->n_steps > 0)
        return err_set(ERR_CONFIG, "none of these steps is recorded");
    const double bytes = n > 0 ? record_step_bytes(r, r->steps[from + n / 2]) : 0;
    if (most > 0 && bytes > 0)
        most = (i64)fmax(1, fmin((double)most, most_bytes / bytes));
    double *weight = ARENA_ARRAY(a, double, n);
    if (most > 0 && n > most)
        out->share = weigh(weight, r, from, n, most, a);
    for (i64 i = 0; i < n && out->share == 0; i++)
        weight[i] = 1;
    out->steps = ARENA_ARRAY(a, i64, n);
    out->weights = ARENA_ARRAY(a, double, n);
    for (i64 i = 0; i < n; i++)
        if (weight[i] > 0) {
            out->steps[out->n] = r->steps[from + i];
            out->weights[out->n++] = weight[i];
        }
    return OK;
}

int climb_record(struct record *r, const struct climb_range *range, struct ladder *l,
                 struct critical *c, struct climb_choice *chosen)
{
    struct usual usual = { .arena = c->arena };
    TRY(climb_choose(chosen, r, range, c->arena));
    TRY(usual_of_steps(&usual, r, chosen->steps, chosen->n));
    struct climb k = { r, l, c, &usual, chosen->weights, 0 };
    TRY(each_step(r, chosen->steps, chosen->n,
                  &(struct each){ &k, make_rungs, take_rungs, drop_shapes }));
    if (l->steps > 0 && range->first == 0 && range->last == INT64_MAX)
        ladder_add_retaken(l, r);
    critical_sort(c);
    return OK;
}
