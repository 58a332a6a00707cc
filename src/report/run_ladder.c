#include "report/run_ladder.h"

#include "base/arena.h"
#include "base/err.h"
#include "diagnose/critical.h"
#include "diagnose/ladder.h"

#include <math.h>

static void put_factors(const struct ladder *l, struct json *j)
{
    double f[LADDER_FACTORS];
    ladder_factors(l, f);
    json_key(j, "factors");
    json_begin_array(j);
    for (int i = 0; i < LADDER_FACTORS; i++) {
        json_begin_object(j);
        json_put_str(j, "name", ladder_name((enum ladder_factor)i));
        json_put_double(j, "value", ladder_known(l, (enum ladder_factor)i) ? f[i] : NAN);
        json_end(j);
    }
    json_end(j);
}

static void put_path(const struct critical *c, struct json *j)
{
    static const char *const phases[] = { "forward", "input gradient", "weight gradient",
                                          "update" };
    json_key(j, "path");
    json_begin_array(j);
    for (i64 i = 0; i < i64_min(c->n, LADDER_PATH); i++) {
        const struct critical_share *s = &c->shares[i];
        json_begin_object(j);
        json_put_double(j, "seconds", s->seconds / (double)c->steps);
        json_put_double(j, "share", s->seconds / c->seconds);
        json_put_int(j, "rank", s->rank);
        json_put_str(j, "kind", critical_kind_name(s->kind));
        json_put_str(j, "op", *s->op ? s->op : NULL);
        json_put_str(j, "phase", s->phase >= 0 && s->phase < PHASES ? phases[s->phase] : NULL);
        json_put_int(j, "layer", s->layer);
        json_end(j);
    }
    json_end(j);
}

static void put_ladder(const struct ladder *l, const struct critical *c, struct json *j)
{
    json_begin_object(j);
    put_factors(l, j);
    json_put_double(j, "mfu", l->no_peak ? NAN : ladder_mfu(l));
    json_put_double(j, "hfu", l->no_peak ? NAN : ladder_hfu(l));
    json_put_double(j, "peak", l->no_peak ? NAN : ladder_peak(l));
    json_put_int(j, "steps", l->steps);
    json_put_double(j, "off", fabs(l->worst_fidelity - 1));
    put_path(c, j);
    json_end(j);
}

static i64 spans_of(const struct record_step *s)
{
    i64 n = 0;
    for (int r = 0; r < s->n_ranks; r++)
        n += s->ranks[r].n_spans;
    return n;
}

void run_ladder_put(struct record *r, struct json *j)
{
    struct arena a;
    struct ladder l = { 0 };
    struct critical c = { .arena = &a };
    struct record_step s = { 0 };
    struct usual usual = { .arena = &a };
    struct dag *g;
    i64 stride = i64_max(1, ceil_div(r->n_steps, LADDER_STEPS)), spans = 0, n = 0;
    i64 chosen[LADDER_STEPS];
    arena_init(&a);
    l.weight = (double)stride;
    for (i64 i = stride / 2; i < r->n_steps && n < LADDER_STEPS; i += stride)
        chosen[n++] = r->steps[i];
    if (usual_of_steps(&usual, r, chosen, n) < 0)
        n = 0;
    for (i64 i = 0; i < n && spans < LADDER_SPANS; i++) {
        if (record_step(r, chosen[i], &s) < 0 || dag_new(&g, &s) < 0)
            continue;
        spans += spans_of(&s);
        ladder_add(&l, r, &s, g, &usual);
        critical_add(&c, &s, g);
    }
    if (l.steps > 0) {
        ladder_add_retaken(&l, r);
        critical_sort(&c);
        put_ladder(&l, &c, j);
    } else {
        json_nothing(j);
    }
    record_step_free(&s);
    arena_fini(&a);
}
