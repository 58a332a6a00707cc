#include "report/energy_report.h"

#include "base/err.h"
#include "machine/units.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* "" for what is no time: a ledger may say anything. */
static void format_time(double seconds, char *out, size_t size)
{
    static const double year_10000 = 253402300800;
    struct tm utc;
    out[0] = '\0';
    if (!(seconds >= 0 && seconds < year_10000))
        return;
    const time_t whole = (time_t)seconds;
    if (gmtime_r(&whole, &utc))
        strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
}

/* --- for people --------------------------------------------------------------------- */

static void put_interval(struct text *out, const char *what, double mid, double lo, double hi,
                         bool gas)
{
    char a[64], b[64], c[64];
    unit_text(mid, gas, a, sizeof a);
    unit_text(lo, gas, b, sizeof b);
    unit_text(hi, gas, c, sizeof c);
    text_printf(out, "%-14s %s   (90 %%: %s to %s)\n", what, a, b, c);
}

static void put_method(const struct energy_ledger *l, struct text *out)
{
    char method[80];
    const struct energy_total *t = &l->total;
    energy_method_text(t->methods, method, sizeof method);
    text_printf(out, "%-14s %s, of the %s\n", "method", method, energy_scope(t->methods));
    if (t->methods & (ENERGY_MODELLED | ENERGY_GUESSED))
        text_printf(out, "%-14s %s: %lld hardware threads of %.1f W%s\n", "", l->processor,
                    (long long)l->cpus, l->watts_per_cpu,
                    t->methods & ENERGY_GUESSED ? ", a guess: an order of magnitude" : " TDP");
    if (l->uncounted[0])
        text_printf(out, "%-14s not counted: %s\n", "", l->uncounted);
}

static void put_factor(const struct energy_ledger *l, struct text *out)
{
    const struct carbon_factor *c = &l->carbon;
    char year[16] = "";
    if (c->year > 0)
        snprintf(year, sizeof year, ", %d", c->year);
    text_printf(out, "%-14s %g g/kWh, %s (%s%s), PUE %g\n", "grid", c->g_per_kwh, c->location,
                c->source, year, l->pue);
    if (c->assumed)
        text_printf(out, "%-14s nobody said where: set energy.location, or give --location\n", "");
}

void energy_report_text(const struct energy_ledger *l, struct text *out)
{
    const struct energy_total *t = &l->total;
    struct energy_gas gas = energy_gas(l);
    double tokens = l->tokens > 0 ? (double)l->tokens : 1;
    char kwh[64];
    unit_two_digits(unit_from_base(UNIT_KWH, t->j), kwh, sizeof kwh);
    put_interval(out, "energy", t->j, t->lo, t->hi, false);
    text_printf(out, "%-14s %s kWh\n", "", kwh);
    put_method(l, out);
    if (l->tokens > 0)
        put_interval(out, "per token", t->j / tokens, t->lo / tokens, t->hi / tokens, false);
    put_interval(out, "greenhouse gas", gas.g, gas.lo, gas.hi, true);
    put_factor(l, out);
    text_printf(out, "%-14s %.1f s, %.1f core-seconds, %.3g FLOPs, %.3g bytes, %lld tokens; "
                "ranks: %lld, nodes: %lld\n", "counted", t->seconds, t->core_seconds, t->flops,
                t->bytes, (long long)l->tokens, (long long)l->ranks, (long long)l->nodes);
    if (t->gpu_j > 0)
        text_printf(out, "%-14s %.0f J by GPUs\n", "", t->gpu_j);
    if (l->open) {
        char stamp[32];
        format_time(l->written, stamp, sizeof stamp);
        text_printf(out, "%-14s until %s UTC: the run goes on, or was cut off\n", "", stamp);
    }
}

/* --- emissions.csv ------------------------------------------------------------------ */

static void put_cell(struct text *out, const char *value)
{
    bool quote = strpbrk(value, ",\"\n") != NULL;
    text_add(out, quote ? "\"" : "");
    for (; *value; value++)
        text_add_bytes(out, *value == '"' ? "\"\"" : value, *value == '"' ? 2 : 1);
    text_add(out, quote ? "\"," : ",");
}

static void put_number(struct text *out, double value)
{
    text_add_double(out, value);
    text_add(out, ",");
}

static const char csv_header[] =
    "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,"
    "gpu_power,ram_power,cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,"
    "country_name,country_iso_code,region,cloud_provider,cloud_region,os,python_version,"
    "codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,longitude,latitude,"
    "ram_total_size,tracking_mode,cpu_utilization_percent,gpu_utilization_percent,"
    "ram_utilization_percent,ram_used_gb,on_cloud,pue,wue\n";

/* duration to water_consumed. */
static void put_amounts(const struct energy_ledger *l, struct text *out)
{
    const struct energy_total *t = &l->total;
    double kg = unit_from_base(UNIT_KG, energy_gas(l).g), seconds = fmax(t->seconds, 1e-9);
    double cpu_j = t->j - t->gpu_j;
    put_number(out, t->seconds);
    put_number(out, kg);
    put_number(out, kg / seconds);
    put_number(out, cpu_j / seconds);
    put_number(out, t->gpu_j / seconds);
    put_cell(out, ""); /* memory is in the processor's figure, or in none */
    put_number(out, unit_from_base(UNIT_KWH, cpu_j));
    put_number(out, unit_from_base(UNIT_KWH, t->gpu_j));
    put_cell(out, "");
    put_number(out, unit_from_base(UNIT_KWH, t->j));
    put_cell(out, "");
}

/* country_name to cloud_region; true for a cloud's. */
static bool put_location(const struct energy_ledger *l, struct text *out)
{
    const struct carbon_place *p = NULL;
    bool found = !l->carbon.assumed && carbon_find(l->carbon.location, &p) == OK;
    bool cloud = found && strncmp(p->code, "gcp:", 4) == 0;
    bool country = found && carbon_is_country(p);
    put_cell(out, country ? p->name : "");
    put_cell(out, country ? p->code : "");
    put_cell(out, found && !country && !cloud ? p->name : "");
    put_cell(out, cloud ? "gcp" : "");
    put_cell(out, cloud ? p->code + 4 : "");
    return cloud;
}

void energy_report_csv(const struct energy_ledger *l, const struct energy_run *run,
                       struct text *out)
{
    const struct energy_total *t = &l->total;
    char cpus[32], busy[64] = "", stamp[32];
    double whole = t->seconds * (double)l->cpus;
    snprintf(cpus, sizeof cpus, "%lld", (long long)l->cpus);
    if (whole > 0 && l->nodes == 1)
        snprintf(busy, sizeof busy, "%.1f", 100 * fmin(1, t->core_seconds / whole));
    text_add(out, csv_header);
    format_time(l->written, stamp, sizeof stamp);
    put_cell(out, stamp);
    put_cell(out, run->model);
    put_cell(out, run->name);
    put_cell(out, "");
    put_amounts(l, out);
    bool cloud = put_location(l, out);
    put_cell(out, "Linux");
    put_cell(out, "");
    put_cell(out, "headway " HEADWAY_VERSION);
    put_cell(out, cpus);
    put_cell(out, l->processor);
    text_add(out, ",,,,,"); /* gpu_count to ram_total_size */
    put_cell(out, strcmp(energy_scope(t->methods), "process") == 0 ? "process" : "machine");
    put_cell(out, busy);
    text_printf(out, ",,,%c,%g,0\n", cloud ? 'Y' : 'N', l->pue);
}

/* --- a model card ------------------------------------------------------------------- */

static void put_yaml_string(struct text *out, const char *key, const char *value)
{
    text_printf(out, "  %s: \"", key);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            text_add(out, "\\");
        text_add_bytes(out, (unsigned char)*value < ' ' ? " " : value, 1);
    }
    text_add(out, "\"\n");
}

/* Two digits without blanks that a JSON or YAML reader takes for the same number. */
static double two_digits(double value)
{
    char digits[64];
    double rounded = 0;
    unit_two_digits(value, digits, sizeof digits);
    sscanf(digits, "%lf", &rounded);
    return rounded;
}

void energy_report_card(const struct energy_ledger *l, const struct energy_run *run,
                        struct text *out)
{
    struct energy_gas gas = energy_gas(l);
    char method[80], source[400], hardware[192], lo[64], hi[64];
    energy_method_text(l->total.methods, method, sizeof method);
    unit_two_digits(gas.lo, lo, sizeof lo);
    unit_two_digits(gas.hi, hi, sizeof hi);
    snprintf(source, sizeof source, "Headway %s: %s of the %s, 90 %% interval %s to %s g",
             HEADWAY_VERSION, method, energy_scope(l->total.methods), lo, hi);
    snprintf(hardware, sizeof hardware, "%lld hardware threads of %s, on %s%lld node%s",
             (long long)l->cpus, l->processor, l->nodes > 1 ? "each of " : "", (long long)l->nodes,
             l->nodes > 1 ? "s" : "");
    text_add(out, "---\nco2_eq_emissions:\n  emissions: ");
    text_add_double(out, two_digits(gas.g));
    text_add(out, " # grams of CO2e\n");
    put_yaml_string(out, "source", source);
    put_yaml_string(out, "training_type", run->tuned ? "fine-tuning" : "pre-training");
    put_yaml_string(out, "geographical_location",
                    l->carbon.assumed ? "unknown (world average)" : l->carbon.location);
    put_yaml_string(out, "hardware_used", hardware);
    text_add(out, "---\n");
}

/* --- CycloneDX ---------------------------------------------------------------------- */

static void put_amount(struct json *j, const char *key, double value, const char *unit)
{
    json_key(j, key);
    json_begin_object(j);
    json_put_double(j, "value", value);
    json_put_str(j, "unit", unit);
    json_end(j);
}

static void put_provider(const struct energy_ledger *l, struct json *j)
{
    json_key(j, "energyProviders");
    json_begin_array(j);
    json_begin_object(j);
    json_put_str(j, "description", l->carbon.assumed ? "unknown grid" : l->carbon.location);
    json_key(j, "organization");
    json_begin_object(j);
    json_put_str(j, "name", "unknown");
    json_end(j);
    json_put_str(j, "energySource", "unknown");
    put_amount(j, "energyProvided", two_digits(unit_from_base(UNIT_KWH, l->total.j * l->pue)),
               "kWh");
    json_end(j);
    json_end(j);
}

static void put_property(struct json *j, const char *name, const char *value)
{
    json_begin_object(j);
    json_put_str(j, "name", name);
    json_put_str(j, "value", value);
    json_end(j);
}

static void put_properties(const struct energy_ledger *l, struct json *j)
{
    char text[160], lo[64], hi[64];
    const struct energy_total *t = &l->total;
    json_key(j, "properties");
    json_begin_array(j);
    energy_method_text(t->methods, text, sizeof text);
    put_property(j, "energy:method", text);
    put_property(j, "energy:scope", energy_scope(t->methods));
    unit_two_digits(unit_from_base(UNIT_KWH, t->lo * l->pue), lo, sizeof lo);
    unit_two_digits(unit_from_base(UNIT_KWH, t->hi * l->pue), hi, sizeof hi);
    snprintf(text, sizeof text, "%s..%s", lo, hi);
    put_property(j, "energy:interval_90_kWh", text);
    snprintf(text, sizeof text, "%g", l->carbon.g_per_kwh);
    put_property(j, "energy:gCO2e_per_kWh", text);
    snprintf(text, sizeof text, "%g", l->pue);
    put_property(j, "energy:pue", text);
    json_end(j);
}

static void put_consumption(const struct energy_ledger *l, struct json *j)
{
    json_key(j, "considerations");
    json_begin_object(j);
    json_key(j, "environmentalConsiderations");
    json_begin_object(j);
    json_key(j, "energyConsumptions");
    json_begin_array(j);
    json_begin_object(j);
    json_put_str(j, "activity", "training");
    put_provider(l, j);
    put_amount(j, "activityEnergyCost", two_digits(unit_from_base(UNIT_KWH, l->total.j * l->pue)),
               "kWh");
    put_amount(j, "co2CostEquivalent", two_digits(unit_from_base(UNIT_T, energy_gas(l).g)),
               "tCO2eq");
    put_properties(l, j);
    json_end(j);
    json_end(j);
    json_end(j);
    json_end(j);
}

void energy_report_cyclonedx(const struct energy_ledger *l, const struct energy_run *run,
                             struct text *out)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_str(&j, "bomFormat", "CycloneDX");
    json_put_str(&j, "specVersion", "1.6");
    json_put_int(&j, "version", 1);
    json_key(&j, "components");
    json_begin_array(&j);
    json_begin_object(&j);
    json_put_str(&j, "type", "machine-learning-model");
    json_put_str(&j, "bom-ref", "model");
    json_put_str(&j, "name", run->model);
    json_put_str(&j, "version", run->name);
    json_key(&j, "modelCard");
    json_begin_object(&j);
    put_consumption(l, &j);
    json_end(&j);
    json_end(&j);
    json_end(&j);
    json_end(&j);
    text_add_bytes(out, j.out.data, j.out.length);
    text_add(out, "\n");
    json_writer_fini(&j);
}
