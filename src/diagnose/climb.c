#include "diagnose/climb.h"

#include "diagnose/dag_again.h"
#include "diagnose/each.h"

struct climb {
    const struct record *r;
    struct ladder *l;
    struct critical *c;
    const struct usual *usual;
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
    const struct climb *k = context;
    const struct climbed *x = made;
    if (rc < 0 || !x)
        return OK; /* a damaged step */
    ladder_take(k->l, k->r, s, &x->ladder);
    critical_take(k->c, &x->path);
    return OK;
}

int climb_steps(struct record *r, const struct usual *u, const i64 *steps, i64 n, struct ladder *l,
                struct critical *c)
{
    struct climb k = { r, l, c, u };
    const struct each e = { &k, make_rungs, take_rungs, drop_shapes };
    return each_step(r, steps, n, &e);
}
