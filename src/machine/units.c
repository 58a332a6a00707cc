#include "machine/units.h"

#include <math.h>
#include <stdio.h>

static const struct { const char *name; double base; bool gas; } table[UNITS] = {
    [UNIT_J] = { "J", 1, false },        [UNIT_KJ] = { "kJ", 1e3, false },
    [UNIT_MJ] = { "MJ", 1e6, false },    [UNIT_KWH] = { "kWh", 3.6e6, false },
    [UNIT_MWH] = { "MWh", 3.6e9, false },
    [UNIT_G] = { "gCO2e", 1, true },     [UNIT_KG] = { "kgCO2e", 1e3, true },
    [UNIT_T] = { "tCO2e", 1e6, true },
};

const char *unit_name(enum unit u)
{
    return table[u].name;
}

double unit_from_base(enum unit u, double base)
{
    return base / table[u].base;
}

double unit_to_base(enum unit u, double value)
{
    return value * table[u].base;
}

void unit_two_digits(double value, char *out, size_t size)
{
    if (!isfinite(value) || value == 0) {
        snprintf(out, size, "%.0f", value);
        return;
    }
    int decimals = 1 - (int)floor(log10(fabs(value)));
    double step = pow(10, -decimals), rounded = round(value / step) * step;
    if (rounded != 0 && 1 - (int)floor(log10(fabs(rounded) * (1 + 1e-12))) < decimals)
        decimals--; /* 9.96 has become 10 */
    snprintf(out, size, "%.*f", decimals > 0 ? decimals : 0, rounded);
}

void unit_text(double base, bool gas, char *out, size_t size)
{
    char digits[64];
    int best = gas ? UNIT_G : UNIT_J;
    for (int u = best; u < UNITS; u++)
        if (table[u].gas == gas && fabs(base) >= 0.995 * table[u].base)
            best = u;
    unit_two_digits(unit_from_base((enum unit)best, base), digits, sizeof digits);
    snprintf(out, size, "%s %s", digits, table[best].name);
}
