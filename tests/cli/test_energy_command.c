/* A run's energy: from counters in a folder made here to the ledger's foreign formats. */
#include "cli/program.h"
#include "test.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet "
#define COUNTED "--set energy.powercap=tree "

/* A corpus, a recipe of six steps, and one package whose counter stands still. */
static int prepare(void **state)
{
    (void)state;
    setenv("D", "energy-command", 1);
    make_corpus();
    shell("cd $D && mkdir -p tree/intel-rapl:0 && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 6, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\nX\n"
          "cd tree/intel-rapl:0 && echo package-0 >name && echo 5000000 >energy_uj && "
          "echo 262143328850 >max_energy_range_uj", 0);
    return 0;
}

static json_t *load(const char *path)
{
    char full[256];
    json_error_t error;
    snprintf(full, sizeof full, "%s/%s", getenv("D"), path);
    json_t *o = json_load_file(full, 0, &error);
    if (!o)
        fail_msg("%s: %s", full, error.text);
    return o;
}

static double number(const char *path, const char *key)
{
    json_t *o = load(path), *value = json_object_get(o, key);
    CHECK(json_is_number(value));
    double x = json_number_value(value);
    json_decref(o);
    return x;
}

TEST(a_run_without_counters_is_modelled_and_each_line_tells_how)
{
    shell(TRAIN "--set run.name=model --set energy.powercap=nowhere", 0);
    const char *lines = shell("cat $D/runs/model/metrics.jsonl", 0);
    int n = 0;
    double before = 0;
    for (const char *at = lines; (at = strstr(at, "\"energy\":{\"J\":")); n++) {
        double j = atof(at += strlen("\"energy\":{\"J\":"));
        CHECK(j > before);
        before = j;
        CHECK(strstr(at, "\"scope\":\"process\""));
    }
    CHECK_EQ(n, 6);
    double j = number("runs/model/energy.json", "J"), seconds, busy;
    seconds = number("runs/model/energy.json", "seconds");
    busy = number("runs/model/energy.json", "core_seconds");
    double full = number("runs/model/energy.json", "cpus") *
                  number("runs/model/energy.json", "watts_per_cpu") * seconds;
    CHECK(j >= before && j > 0.16 * full && j < 0.73 * full && busy > 0 && seconds > 0);
    CHECK(number("runs/model/energy.json", "J_lo") < j);
    CHECK_NEAR(number("runs/model/energy.json", "tokens"), 6 * 4 * 32, 0);
    CHECK_NEAR(number("runs/model/energy.json", "J_per_token") * 6 * 4 * 32, j, 1e-9 * j);
    CHECK_NEAR(number("runs/model/energy.json", "gCO2e"), j / 3.6e6 * 475, 1e-9);
    CHECK(number("runs/model/energy.json", "flops") > 1e6);
    const char *said = shell("$H energy $D/runs/model 2>&1", 0);
    CHECK(strstr(said, "not counted: nowhere: No such file"));
    CHECK(strstr(said, "475 g/kWh, world average (IEA") && strstr(said, "nobody said where"));
}

/* The counter goes on while two ranks train, which are then stopped: no joule counts twice. */
TEST(two_ranks_of_a_node_are_metered_once)
{
    shell("cd $D && ( until grep -qs '\"step\"' runs/two/metrics.jsonl; do sleep 0.02; done; "
          "echo 8000000 >new; mv new tree/intel-rapl:0/energy_uj; "
          "kill -INT $(cat runs/two/lock) ) & " TRAIN COUNTED
          "--set run.name=two --set train.steps=1000000 --ranks 2 --layout dp=2 2>&1", 75);
    CHECK_NEAR(number("runs/two/energy.json", "J"), 3, 1e-9);
    CHECK_NEAR(number("runs/two/energy.json", "J_hi"), 3.15, 1e-9);
    CHECK_NEAR(number("runs/two/energy.json", "ranks"), 2, 0);
    CHECK_NEAR(number("runs/two/energy.json", "nodes"), 1, 0);
    CHECK(strstr(shell("$H energy $D/runs/two", 0), "powercap, of the node"));
}

/* What preparing took is known, and that it may not be all. */
TEST(a_run_that_died_in_its_first_step_has_a_ledger)
{
    shell("( until [ -e $D/runs/died/energy.json ]; do sleep 0.01; done; "
          "kill -KILL $(cat $D/runs/died/lock) ) & " TRAIN COUNTED "--set run.name=died "
          "--set train.steps=1000000 --set log.every=1000000 2>&1", 137);
    const char *said = shell("$H energy $D/runs/died 2>&1", 0);
    CHECK(strstr(said, "0 FLOPs, 0 bytes, 0 tokens; ranks: 1"));
    CHECK(strstr(said, "UTC: the run goes on, or was cut off"));
    CHECK(!strstr(shell("$H energy $D/runs/two", 0), "cut off"));
    CHECK(strstr(shell("rm $D/runs/died/energy.json; $H energy $D/runs/died 2>&1", 1),
                 "runs/died has no energy.json: nothing was counted"));
}

TEST(a_resumed_run_goes_on_counting)
{
    shell(TRAIN "--set run.name=parts --set train.steps=3", 0);
    double j = number("runs/parts/energy.json", "J");
    double flops = number("runs/parts/energy.json", "flops");
    double began = number("runs/parts/energy.json", "began");
    shell(TRAIN "--set run.name=parts --resume", 0);
    CHECK(number("runs/parts/energy.json", "J") > j);
    CHECK_NEAR(number("runs/parts/energy.json", "flops"), 2 * flops, 1e-6 * flops);
    CHECK_NEAR(number("runs/parts/energy.json", "began"), began, 0);
    CHECK_NEAR(number("runs/parts/energy.json", "tokens"), 6 * 4 * 32, 0);
    shell("cd $D && echo '{' >runs/parts/energy.json", 0);
    shell(TRAIN "--set run.name=parts --set train.steps=7 --resume", 0);
    shell("grep -q 'energy of earlier parts of this run is not known' $D/runs/parts/log.txt", 0);
}

TEST(the_formats_have_their_own_units)
{
    shell("cd $D && rm -rf runs/known && cp -r runs/two runs/known && cd runs/known && "
          "sed -i -e 's/\"J\": 3.*,/\"J\": 7200000,/' -e 's/\"seconds\": .*/\"seconds\": 3600,/' "
          "energy.json && cd ../.. && $H energy runs/known/ --carbon-g-per-kwh 100 --pue 1.5 "
          "--codecarbon e.csv --card c.md --cyclonedx b.json", 0); /* 2 kWh, 300 g */
    shell("cd $D && test $(head -1 e.csv | tr , '\\n' | wc -l) = 38 && "
          "wc -l <e.csv | grep -qx 2", 0);
    /* codecarbon 3's emissions_data.py, in the order of its fields */
    CHECK_STR(shell("head -1 $D/e.csv", 0),
              "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,"
              "cpu_power,gpu_power,ram_power,cpu_energy,gpu_energy,ram_energy,energy_consumed,"
              "water_consumed,country_name,country_iso_code,region,cloud_provider,cloud_region,os,"
              "python_version,codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,longitude,"
              "latitude,ram_total_size,tracking_mode,cpu_utilization_percent,"
              "gpu_utilization_percent,ram_utilization_percent,ram_used_gb,on_cloud,pue,wue\n");
    CHECK_STR(shell("tail -1 $D/e.csv | cut -d, -f 2,3,5-8", 0), "laptop-2m,known,3600,0.3,"
              "8.333333333333333e-05,2000\n");
    CHECK_STR(shell("tail -1 $D/e.csv | cut -d, -f 11-14", 0), "2,0,,2\n");
    shell("tail -1 $D/e.csv | grep -q ',machine,.*,,,N,1.5,0$'", 0);
    shell("grep -qx '  emissions: 300 # grams of CO2e' $D/c.md", 0);
    shell("grep -q 'training_type: \"pre-training\"' $D/c.md", 0);
    shell("for key in source geographical_location hardware_used; do "
          "grep -q \"^  $key: \\\"\" $D/c.md || exit 1; done; "
          "grep -qx 'co2_eq_emissions:' $D/c.md && "
          "test \"$(head -1 $D/c.md)\" = ---", 0);
    json_t *bom = load("b.json");
    CHECK_STR(json_string_value(json_object_get(bom, "bomFormat")), "CycloneDX");
    CHECK_STR(json_string_value(json_object_get(bom, "specVersion")), "1.6");
    json_t *spent = json_array_get(json_object_get(json_object_get(json_object_get(json_object_get(
        json_array_get(json_object_get(bom, "components"), 0), "modelCard"), "considerations"),
        "environmentalConsiderations"), "energyConsumptions"), 0);
    json_t *cost = json_object_get(spent, "activityEnergyCost");
    json_t *gas = json_object_get(spent, "co2CostEquivalent");
    CHECK_STR(json_string_value(json_object_get(cost, "unit")), "kWh");
    CHECK_NEAR(json_number_value(json_object_get(cost, "value")), 3, 0); /* with PUE */
    CHECK_STR(json_string_value(json_object_get(gas, "unit")), "tCO2eq");
    CHECK_NEAR(json_number_value(json_object_get(gas, "value")), 0.0003, 1e-18);
    json_decref(bom);
    shell("$H energy $D/runs/known --location Sweden --codecarbon $D/s.csv >/dev/null", 0);
    CHECK_STR(shell("tail -1 $D/s.csv | cut -d, -f 16,17", 0), "Sweden,SWE\n");
    shell("$H energy $D/runs/known --location gcp:us-west4 --codecarbon $D/g.csv >/dev/null", 0);
    CHECK_STR(shell("tail -1 $D/g.csv | cut -d, -f 16-20", 0), ",,,gcp,us-west4\n");
    shell("tail -1 $D/g.csv | grep -q ',Y,1,0$'", 0);
}

/* What was counted does not hang on what the run was; formats that name the model do. */
TEST(a_damaged_manifest_costs_the_name_of_the_model)
{
    shell("rm -rf $D/hurt && cp -r $D/runs/two $D/hurt && echo '{\"x' >$D/hurt/manifest.json", 0);
    const char *said = shell("$H energy $D/hurt 2>&1", 0);
    CHECK(strstr(said, "warning: ") && strstr(said, "hurt/manifest.json:1:"));
    CHECK(strstr(said, "energy "));
    said = shell("$H energy $D/hurt --card $D/hurt.md 2>&1", 1);
    CHECK(strstr(said, "headway: ") && strstr(said, "hurt/manifest.json:1:"));
    shell("test ! -e $D/hurt.md", 0);
}

TEST(what_cannot_be_is_refused)
{
    CHECK(strstr(shell("$H energy $D 2>&1", 2), "is no run folder, or its run ended before"));
    CHECK(strstr(shell("$H energy $D/runs/two --location Frnace 2>&1", 2), "mean 'France'?"));
    CHECK(strstr(shell("$H energy $D/runs/two --pue 0.5 2>&1", 2), "--pue 0.5"));
    CHECK(strstr(shell("$H energy $D/runs/two --card /proc/no/such 2>&1", 1), "/proc/no/such"));
    CHECK(strstr(shell(TRAIN "--set energy.location=Frnace 2>&1", 2), "mean 'France'?"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(a_run_without_counters_is_modelled_and_each_line_tells_how),
        ONE(two_ranks_of_a_node_are_metered_once),
        ONE(a_run_that_died_in_its_first_step_has_a_ledger),
        ONE(a_resumed_run_goes_on_counting),
        ONE(the_formats_have_their_own_units), ONE(a_damaged_manifest_costs_the_name_of_the_model),
        ONE(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
