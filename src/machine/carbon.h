/* machine/carbon.h - grams of CO2e per kWh of electricity, by place, each with year and source.
 *
 * Yearly means of what a country's, region's or cloud region's grid emits, never less what was
 * bought as offsets. */
#ifndef HEADWAY_CARBON_H
#define HEADWAY_CARBON_H

#include "base/base.h"

struct carbon_place {
    const char *code; /* "FRA", "gcp:europe-west1", "us:ohio", "SE1", "world" */
    const char *name; /* "France" */
    double g_per_kwh;
    int year;         /* 0: the source does not say */
    int source;       /* index for carbon_source */
};

/* Rows end with one whose code is NULL (carbon_table.c). */
extern const struct carbon_place carbon_places[];
const char *carbon_source(int source);

/* By code or name, letters of any case; ERR_CONFIG names the nearest. */
int carbon_find(const char *location, const struct carbon_place **out);

bool carbon_is_country(const struct carbon_place *p); /* its code is ISO 3166-1 alpha-3 */

/* What to multiply with. */
struct carbon_factor {
    char location[64], source[160];
    double g_per_kwh, lo, hi; /* lo to hi: 90 % of the world's countries where the place is not
                               * known, else all the same */
    int year;
    bool assumed; /* nobody said where */
};

/* location NULL: the world's mean, assumed; g_per_kwh > 0 stands above any table. */
int carbon_choose(const char *location, double g_per_kwh, struct carbon_factor *out);

#endif
