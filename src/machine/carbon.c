#include "machine/carbon.h"

#include "base/err.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int carbon_find(const char *location, const struct carbon_place **out)
{
    struct nearest nearest = { .typed = location };
    for (const struct carbon_place *p = carbon_places; p->code; p++) {
        if (strcasecmp(p->code, location) == 0 || strcasecmp(p->name, location) == 0) {
            *out = p;
            return OK;
        }
        nearest_offer(&nearest, p->code);
        nearest_offer(&nearest, p->name);
    }
    const char *found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "no carbon factor for '%s'%s%s%s; give a country (FRA, France), "
                   "gcp:REGION, us:STATE, or the grams of a kWh (--carbon-g-per-kwh; in a recipe "
                   "energy.carbon_g_per_kwh)", location,
                   found ? ": did you mean '" : "", found ? found : "", found ? "'?" : "");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* 90 % of the countries lie between. */
static void spread_of_countries(double *lo, double *hi)
{
    double values[512];
    i64 n = 0;
    for (const struct carbon_place *p = carbon_places; p->code && n < COUNT_OF(values); p++)
        if (carbon_is_country(p))
            values[n++] = p->g_per_kwh;
    qsort(values, (size_t)n, sizeof *values, by_value);
    *lo = values[n / 20];
    *hi = values[n - 1 - n / 20];
}

int carbon_choose(const char *location, double g_per_kwh, struct carbon_factor *out)
{
    const struct carbon_place *p;
    bool known = location && *location;
    *out = (struct carbon_factor){ .assumed = !known && g_per_kwh <= 0 };
    if (g_per_kwh > 0) {
        snprintf(out->location, sizeof out->location, "%s", known ? location : "as given");
        snprintf(out->source, sizeof out->source, "given with the run");
        out->g_per_kwh = out->lo = out->hi = g_per_kwh;
        return OK;
    }
    TRY(carbon_find(known ? location : "world", &p));
    snprintf(out->location, sizeof out->location, "%s", p->name);
    snprintf(out->source, sizeof out->source, "%s", carbon_source(p->source));
    out->g_per_kwh = out->lo = out->hi = p->g_per_kwh;
    out->year = p->year;
    if (out->assumed)
        spread_of_countries(&out->lo, &out->hi);
    return OK;
}
