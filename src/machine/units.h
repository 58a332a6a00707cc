/* machine/units.h - the one table of units of energy and of greenhouse gas.
 *
 * Values are kept in J and in grams of CO2e; every other unit is made here, when a number is
 * written. Formats disagree: a model card has grams, emissions.csv kilograms, CycloneDX tonnes. */
#ifndef HEADWAY_UNITS_H
#define HEADWAY_UNITS_H

#include "base/base.h"

enum unit { UNIT_J, UNIT_KJ, UNIT_MJ, UNIT_KWH, UNIT_MWH, UNIT_G, UNIT_KG, UNIT_T, UNITS };

/* "kWh"; gases: "gCO2e", "kgCO2e", "tCO2e". */
const char *unit_name(enum unit u);
/* base: J or gCO2e. */
double unit_from_base(enum unit u, double base);
double unit_to_base(enum unit u, double value);

/* Two significant digits, which is more than any estimate deserves: "0.0031", "4.7", "120". */
void unit_two_digits(double value, char *out, size_t size);
/* The same with the unit that leaves the fewest zeros: "1.3 kJ", "0.0021 gCO2e". gas: base is
 * in grams; else in J. */
void unit_text(double base, bool gas, char *out, size_t size);

#endif
