#include "machine/energy_ledger.h"

#include "base/err.h"
#include "machine/units.h"

#include <stdio.h>

enum { LEDGER_SCHEMA = 1, LEDGER_BYTES = 1 << 16 };

struct energy_gas energy_gas(const struct energy_ledger *l)
{
    const struct energy_total *t = &l->total;
    double pue = l->pue;
    return (struct energy_gas){
        .g = unit_from_base(UNIT_KWH, t->j) * pue * l->carbon.g_per_kwh,
        .lo = unit_from_base(UNIT_KWH, t->lo) * pue * l->carbon.lo,
        .hi = unit_from_base(UNIT_KWH, t->hi) * pue * l->carbon.hi,
    };
}

double energy_per_token(const struct energy_ledger *l)
{
    return l->tokens > 0 ? l->total.j / (double)l->tokens : 0;
}

/* --- writing ------------------------------------------------------------------------ */

static void put_estimate(const struct energy_ledger *l, struct json *j)
{
    char method[80];
    const struct energy_total *t = &l->total;
    energy_method_text(t->methods, method, sizeof method);
    json_put_double(j, "J", t->j);
    json_put_double(j, "J_lo", t->lo);
    json_put_double(j, "J_hi", t->hi);
    json_put_str(j, "interval", "90 %");
    json_put_double(j, "kWh", unit_from_base(UNIT_KWH, t->j));
    json_put_double(j, "J_per_token", energy_per_token(l));
    json_put_str(j, "method", method);
    json_put_int(j, "methods", t->methods);
    json_put_str(j, "scope", energy_scope(t->methods));
    json_put_str(j, "uncounted", l->uncounted[0] ? l->uncounted : NULL);
}

static void put_gas(const struct energy_ledger *l, struct json *j)
{
    struct energy_gas gas = energy_gas(l);
    json_put_double(j, "pue", l->pue);
    json_put_double(j, "gCO2e", gas.g);
    json_put_double(j, "gCO2e_lo", gas.lo);
    json_put_double(j, "gCO2e_hi", gas.hi);
    json_key(j, "carbon");
    json_begin_object(j);
    json_put_str(j, "location", l->carbon.location);
    json_put_bool(j, "assumed", l->carbon.assumed);
    json_put_double(j, "g_per_kWh", l->carbon.g_per_kwh);
    json_put_double(j, "lo", l->carbon.lo);
    json_put_double(j, "hi", l->carbon.hi);
    json_put_int(j, "year", l->carbon.year);
    json_put_str(j, "source", l->carbon.source);
    json_end(j);
}

void energy_ledger_put(const struct energy_ledger *l, struct json *j)
{
    const struct energy_total *t = &l->total;
    json_begin_object(j);
    json_put_int(j, "schema", LEDGER_SCHEMA);
    json_put_double(j, "began", l->began);
    json_put_double(j, "written", l->written);
    json_put_bool(j, "open", l->open);
    json_put_double(j, "seconds", t->seconds);
    json_put_double(j, "core_seconds", t->core_seconds);
    json_put_double(j, "flops", t->flops);
    json_put_double(j, "bytes", t->bytes);
    json_put_double(j, "gpu_J", t->gpu_j);
    json_put_int(j, "tokens", l->tokens);
    json_put_int(j, "ranks", l->ranks);
    json_put_int(j, "nodes", l->nodes);
    json_put_int(j, "cpus", l->cpus);
    json_put_str(j, "processor", l->processor);
    json_put_double(j, "watts_per_cpu", l->watts_per_cpu);
    put_estimate(l, j);
    put_gas(l, j);
    json_end(j);
}

/* --- reading ------------------------------------------------------------------------ */

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static i64 whole(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void words(const json_t *o, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(o, key));
    snprintf(out, size, "%s", text ? text : "");
}

static void read_carbon(struct carbon_factor *c, const json_t *o)
{
    words(o, "location", c->location, sizeof c->location);
    words(o, "source", c->source, sizeof c->source);
    c->assumed = json_is_true(json_object_get(o, "assumed"));
    c->g_per_kwh = number(o, "g_per_kWh");
    c->lo = number(o, "lo");
    c->hi = number(o, "hi");
    c->year = (int)whole(o, "year");
}

static void read_ledger(struct energy_ledger *l, const json_t *o)
{
    l->total = (struct energy_total){
        .j = number(o, "J"), .lo = number(o, "J_lo"), .hi = number(o, "J_hi"),
        .gpu_j = number(o, "gpu_J"), .seconds = number(o, "seconds"),
        .core_seconds = number(o, "core_seconds"), .flops = number(o, "flops"),
        .bytes = number(o, "bytes"), .methods = whole(o, "methods"),
    };
    l->began = number(o, "began");
    l->written = number(o, "written");
    l->open = json_is_true(json_object_get(o, "open"));
    l->tokens = whole(o, "tokens");
    l->ranks = whole(o, "ranks");
    l->nodes = whole(o, "nodes");
    l->cpus = whole(o, "cpus");
    l->watts_per_cpu = number(o, "watts_per_cpu");
    l->pue = number(o, "pue");
    words(o, "processor", l->processor, sizeof l->processor);
    words(o, "uncounted", l->uncounted, sizeof l->uncounted);
    read_carbon(&l->carbon, json_object_get(o, "carbon"));
}

int energy_ledger_read(struct energy_ledger *l, const char *path)
{
    json_t *o;
    *l = (struct energy_ledger){ 0 };
    TRY(json_load(path, LEDGER_BYTES, &o));
    bool sound = whole(o, "schema") == LEDGER_SCHEMA &&
                 json_is_number(json_object_get(o, "J")) && number(o, "J") >= 0;
    if (sound)
        read_ledger(l, o);
    json_decref(o);
    return sound ? OK : err_set(ERR_FORMAT, "%s is not an energy ledger of schema %d", path,
                                LEDGER_SCHEMA);
}
