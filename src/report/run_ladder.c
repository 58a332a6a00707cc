#include "report/run_ladder.h"

#include "base/arena.h"
#include "diagnose/climb.h"

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
        json_put_double(j, "seconds", s->seconds / c->steps);
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

void run_ladder_put(struct record *r, struct json *j)
{
    const struct climb_range all = { .last = INT64_MAX, .most = CLIMB_STEPS };
    struct arena a;
    struct ladder l = { 0 };
    struct critical c = { .arena = &a };
    struct climb_choice chosen;
    arena_init(&a);
    if (climb_record(r, &all, &l, &c, &chosen) >= 0 && l.steps > 0)
        put_ladder(&l, &c, j);
    else
        json_nothing(j);
    arena_fini(&a);
}
