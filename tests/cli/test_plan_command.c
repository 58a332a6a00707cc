/* `headway plan` run, goodput, limits, network and machine, as a person meets them. */
#include "cli/program.h"
#include "test.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

/* Of a command that prints JSON. */
static json_t *run_json(const char *line)
{
    json_error_t error;
    json_t *o = json_loads(shell(line, 0), 0, &error);
    if (!o)
        fail_msg("%s: %s", line, error.text);
    return o;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v))
        fail_msg("no number %s", key);
    return json_number_value(v);
}

static double middle(const json_t *o, const char *key)
{
    return number(json_object_get(o, key), "p50");
}

TEST(a_run_is_sized_and_billed)
{
    json_t *o = run_json("$H plan run --model llama3-405b --tokens 15.6T --machine h100-sxm-roce "
                         "--gpus 16384 --mfu 0.4 --law none --price 2USD/h --location FRA "
                         "--pue 1 --json");
    const json_t *bill = json_object_get(o, "bill");
    double days = number(o, "flops_program") / (16384 * 989e12 * 0.4) / 86400;
    CHECK_NEAR(middle(o, "days") / days, 1, 1e-9);
    CHECK_NEAR(number(bill, "device_hours") / (days * 24 * 16384), 1, 1e-9);
    CHECK_NEAR(number(bill, "money") / (2 * number(bill, "device_hours")), 1, 1e-9);
    CHECK_NEAR(middle(bill, "tco2e") / (middle(bill, "mwh") * 56.039e-3), 1, 1e-9);
    json_decref(o);
}

TEST(a_steps_time_and_a_utilisation_say_the_same)
{
    json_t *o = run_json("$H plan run --model gpt3-175b --seq 2048 --tokens 300G --machine selene "
                         "--gpus 1024 --step-time 8.9s --step-tokens 1572864 --law none --json");
    CHECK_NEAR(middle(o, "days"), 300e9 / 1572864 * 8.9 / 86400, 1e-6);
    json_decref(o);
    shell("$H plan run --step-time 3s 2>&1 | grep -q 'belong together'", 0);
    shell("$H plan run --step-time 3s --step-tokens 1M --mfu 0.3 2>&1 | grep -q 'not both'", 0);
}

TEST(prices_may_come_from_a_file)
{
    shell("printf 'h100-sxm: 2.5 EUR/h\\n' >prices.yaml", 0);
    shell("$H plan run --law none --price prices.yaml | grep -q 'money.*EUR'", 0);
    shell("$H plan run --law none --machine selene --gpus 8 --price prices.yaml 2>&1 | "
          "grep -q \"add a line 'a100-sxm-80gb: 4.2 USD/h'\"", 0);
    shell("$H plan run --price 4 2>&1 | grep -q 'is no price'", 0);
}

TEST(goodput_is_simulated_and_in_closed_form)
{
    json_t *o = run_json("$H plan goodput --gpus 16384 --runs 100 --json");
    double formula = number(json_object_get(json_object_get(o, "usual"), "shares"), "progress");
    CHECK_NEAR(number(json_object_get(o, "simulated"), "progress"), formula, 0.01);
    CHECK_NEAR(number(o, "mtbf_s") / 3600, 3.09, 0.01);
    json_decref(o);
    shell("$H plan goodput --runs 10 | grep -q 'published: above 90 %'", 0);
    shell("$H plan goodput --runs 10 | grep -q 'planned stops *0.87 a day'", 0);
    shell("test \"$($H plan goodput --runs 10 --json)\" = \"$($H plan goodput --runs 10 --json)\"",
          0);
    shell("$H plan goodput --law lama3 2>&1 | grep -q \"no 'lama3'\"", 0);
}

TEST(runs_of_too_many_failures_are_not_walked_through)
{
    shell("timeout 120 $H plan goodput --gpus 1000000000 | grep -q 'not simulated: failures come'",
          0);
    shell("timeout 120 $H plan goodput --runs 1000000 | grep -q 'not simulated: 1000000 runs'", 0);
    shell("timeout 120 $H plan goodput --gpus 1000000 --elastic 8 --days 1 >/dev/null", 0);
    json_t *o = run_json("timeout 120 $H plan goodput --gpus 1000000000 --json");
    CHECK(json_is_false(json_object_get(o, "was_simulated")));
    CHECK(!json_object_get(o, "simulated"));
    CHECK(number(json_object_get(json_object_get(o, "slow"), "shares"), "down") == 1);
    json_decref(o);
}

static void refused(const char *layout, const char *gpus, const char *why)
{
    char line[512];
    snprintf(line, sizeof line, "$H plan search --model llama3-8b --batch 64 --gpus %s --layout %s "
             "2>&1 | grep -q '%s'", gpus, layout, why);
    shell(line, 0);
}

TEST(what_cannot_be_laid_out_is_told_why)
{
    refused("tp=5", "8", "tp 5 does not divide 8 devices");
    refused("tp=5", "160", "tp does not divide the attention heads");
    refused("pp=40", "160", "pp 40 is more stages than the 32 layers");
    refused("tp=8,dp=8", "8", "tp 8 x dp 8 does not divide 8 devices");
    refused("tp=1,pp=1,cp=1,dp=2", "8", "is not 8 devices");
    refused("dp=128", "128", "does not divide a step.s 64 rows");
    refused("ep=2", "8", "no experts for ep to share");
    refused("foo=3", "8", "no .foo.; there are tp, cp, pp");
}

TEST(what_was_not_asked_about_is_not_said)
{
    shell("$H plan search --model llama3-8b --gpus 8 --objective cost 2>&1 | grep -q 'needs what a "
          "device costs'", 0);
    shell("$H plan search --model llama3-8b --gpus 8 --objective cost --price 2USD/h >/dev/null",
          0);
    shell("$H plan search --model llama3-8b --gpus 8 | grep -q 'spare devices'", 1);
    shell("$H plan limits --model llama3-8b | grep -q 'e+0. devices'", 1);
}

/* tp 16 of 8 key-value heads: neighbours share each, and nobody computes anything twice. */
TEST(what_is_ideal_is_the_same_however_it_is_split)
{
    static const int ways[] = { 1, 4, 16 };
    double least = 0;
    for (i64 i = 0; i < COUNT_OF(ways); i++) {
        char line[256];
        snprintf(line, sizeof line, "$H plan explain --model llama3-8b --gpus 16 --batch 64 "
                 "--any --layout tp=%d,pp=1,recompute=none --json", ways[i]);
        json_t *o = run_json(line);
        const json_t *best = json_object_get(o, "best"), *plan = json_object_get(best, "plan");
        const json_t *terms = json_object_get(best, "terms");
        double ideal = number(terms, "ideal FLOPs");
        double more = number(terms, "work done twice, padding");
        CHECK_NEAR(ideal / middle(plan, "step_seconds") / middle(plan, "mfu"), 1, 1e-9);
        least = i ? least : ideal;
        CHECK_NEAR(ideal / least, 1, 1e-9);
        CHECK(more >= 0 && more < 0.001 * ideal);
        json_decref(o);
    }
}

#define CALIBRATE "$H plan calibrate --rows vtrain_single --most 1 --constants launch_s"

TEST(constants_go_to_a_file_or_a_program)
{
    shell(CALIBRATE " >one.yaml", 0);
    shell(CALIBRATE " --out two.yaml", 0);
    shell("cmp one.yaml two.yaml && rm one.yaml two.yaml", 0);
    json_t *o = run_json(CALIBRATE " --json");
    CHECK(json_is_object(o));
    json_decref(o);
    shell(CALIBRATE " --out no/such 2>&1 | "
          "grep -q 'cannot write no/such'", 0);
}

TEST(a_calibration_without_anything_to_calibrate_on_says_so)
{
    shell("$H plan calibrate --no-measure 2>&1 | grep -q "
          "'nothing to calibrate on: name run folders'", 0);
    shell("$H plan calibrate --measured x.yaml 2>&1 | grep -q 'leave --measured out'", 0);
    shell("$H plan calibrate runs/x --rows vtrain_single 2>&1 | grep -q 'one at a time'", 0);
    shell("$H plan calibrate no-such-run 2>&1 | grep -q \"no-such-run is no run's folder\"", 0);
    shell("$H plan calibrate --rows vtrain_single:0 2>&1 | grep -q '1 to 30'", 0);
    shell("$H plan calibrate --rows vtrain_single:-3 2>&1 | grep -q '1 to 30'", 0);
    shell("$H plan calibrate --rows vtrain_single:31 2>&1 | grep -q '1 to 30'", 0);
}

TEST(the_fastest_of_open_layouts_counts_as_no_prediction)
{
    shell("$H plan table " SOURCE_DIR "/recipes/plan-deepseek-v3.yaml >open", 0);
    shell("grep -q 'leaves [0-9]* layouts open, .* the fastest is shown' open", 0);
    shell("grep -q '1 rows whose layout the source leaves open: .* no prediction' open", 0);
    shell("grep -q 'predictions are' open", 1);
    shell("$H plan table " SOURCE_DIR "/recipes/plan-megatron-lm.yaml >settled", 0);
    shell("grep -q '10 rows with a settled layout: predictions are' settled", 0);
    shell("grep -q 'no prediction' settled", 1);
}

/* Row by row, by two ways to the same layouts, machine and constants. */
TEST(a_published_table_and_the_validation_agree)
{
    json_t *o = run_json("$H plan table " SOURCE_DIR "/recipes/plan-megatron-lm.yaml --json");
    json_t *rows = json_object_get(o, "rows");
    shell("$H plan validate --set megatron_sc21_table1 --each | "
          "awk -F, '/^megatron_sc21_table1-/ {print $3}' >each", 0);
    FILE *f = fopen("each", "r");
    CHECK(f != NULL);
    for (size_t i = 0; i < 10; i++) {
        double each, table = number(json_array_get(rows, i), "predicted_s");
        CHECK_EQ(fscanf(f, "%lf", &each), 1);
        CHECK_NEAR(table / each, 1, 1e-4);
    }
    fclose(f);
    json_decref(o);
}

TEST(the_last_lines_of_a_validation_are_of_all_sets)
{
    shell("$H plan validate >sets", 0);
    shell("grep -q '^all sets  ' sets && grep -q '^all sets, a100 ' sets", 0);
    shell("grep -q '^all sets, h100 ' sets", 0);
    shell("$H plan validate --set korthikanti2022 | grep -q '^all sets'", 1);
    json_t *o = run_json("$H plan validate --json");
    bool all = false;
    for (size_t i = 0; i < json_array_size(o); i++) {
        json_t *set = json_array_get(o, i);
        if (strcmp(json_string_value(json_object_get(set, "set")), "all sets"))
            continue;
        all = true;
        CHECK(number(set, "interval_width_in_median_errors") <= 4);
    }
    CHECK(all);
    json_decref(o);
}

TEST(what_the_software_lacks_is_refused_marked_and_explained)
{
#define JOB " --model llama3-8b --gpus 64 --batch 64 "
    shell("$H plan search" JOB "--layout tp=16 2>&1 | grep -q 'Megatron-Core runs no "
          "such layout: its tp must divide the key-value heads; --any prices it'", 0);
    shell("$H plan search" JOB "--layout tp=16 --any --top 1 | grep -q "
          "'does not run this: its tp'", 0);
    shell("$H plan explain" JOB "--why-not tp=16 | grep -q 'does not run it: its tp must "
          "divide the key-value heads; if it did, the best of these is .* slower'", 0);
    shell("$H plan search" JOB "--top 3 | grep -q 'does not run this'", 1);
}

TEST(limits_and_exchanges_are_said)
{
    shell("$H plan limits --model llama3-8b --gpus 1000000 | grep -Eq '  power +[0-9]{4}  MW'", 0);
    shell("$H plan limits --model llama3-8b --gpus 8 | grep -Eq '  power +[0-9.]+  kW'", 0);
    json_t *o = run_json("$H plan limits --model llama3-70b --machine h100-sxm-ib --json");
    CHECK(number(o, "tensor_ways_in_node") == 8);
    json_decref(o);
    o = run_json("$H plan limits --machine b200-ib --dtype fp4 --json");
    json_t *eight = run_json("$H plan limits --machine b200-ib --dtype fp8 --json");
    CHECK(number(o, "device_flops_per_s") > 1.5 * number(eight, "device_flops_per_s"));
    json_decref(o);
    json_decref(eight);
    shell("$H plan run --machine b200-ib --dtype fp4 | grep -q 'dense each (fp4)'", 0);
    o = run_json("$H plan network p5-efa --gpus 512 --json");
    CHECK(number(o, "measured_rows") == 31 && number(o, "median_error") < 0.15);
    json_decref(o);
    shell("$H plan network h100-sxm 2>&1 | grep -q 'describe how they are joined'", 0);
}

/* Of a network that a machine does not have there is nothing to say. */
TEST(limits_of_one_tier_are_of_that_tier)
{
    json_t *o = run_json("$H plan limits --machine tpu-v4-pod --gpus 4096 --json");
    CHECK(json_is_null(json_object_get(o, "network_ridge_flops_per_byte")));
    CHECK(json_is_null(json_object_get(o, "tensor_ways_over_network")));
    CHECK(number(o, "tensor_ways_in_node") > 8);
    json_decref(o);
    const char *asked = "$H plan limits --machine tpu-v4-pod --model qwen3-30b-a3b --gpus 4096";
    const char *text = shell(asked, 0);
    CHECK(strstr(text, "ways within a slice\n") && strstr(text, "computing within a slice\n"));
    CHECK(!strstr(text, "out of it") && !strstr(text, "(0 ways)") && !strstr(text, "inf"));
    shell("$H plan limits --machine tpu-v4-pod 2>&1 | grep -q 'has 4096; say how many'", 0);
}

TEST(machines_are_listed_and_described)
{
    shell("$H plan machine | grep -q '^h100-sxm-roce'", 0);
    shell("$H plan machine | grep -q '^trainium2'", 0);
    shell("$H plan machine h800-sxm | grep -q 'link.node.*200 GB/s one-way'", 0);
    shell("$H plan machine h800-sxm | grep -q 'not verified'", 0);
    json_t *all = run_json("$H plan machine --json");
    CHECK_EQ(json_array_size(json_object_get(all, "devices")), 26);
    json_decref(all);
    json_t *o = run_json("$H plan machine 'h100-sxm node:8 pod:32x50GB/s~8us/2' --json");
    CHECK_EQ(json_array_size(json_object_get(o, "tiers")), 2);
    json_decref(o);
    shell("$H plan machine 'h100-sxm node:8x900GB/s' 2>&1 | grep -q 'both directions'", 0);
    shell("$H plan machine h100-sxm-rose 2>&1 | grep -q \"did you mean 'h100-sxm-roce'\"", 0);
}

/* In a folder of its own: some tests write files. */
static int enter_folder(void **state)
{
    (void)state;
    shell("rm -rf plan-command-test && mkdir plan-command-test", 0);
    return chdir("plan-command-test");
}

static int leave_folder(void **state)
{
    (void)state;
    if (chdir("..") < 0)
        return -1;
    shell("rm -rf plan-command-test", 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(a_run_is_sized_and_billed),
        ONE(a_steps_time_and_a_utilisation_say_the_same),
        ONE(prices_may_come_from_a_file),
        ONE(goodput_is_simulated_and_in_closed_form),
        ONE(runs_of_too_many_failures_are_not_walked_through),
        ONE(what_is_ideal_is_the_same_however_it_is_split),
        ONE(constants_go_to_a_file_or_a_program),
        ONE(a_calibration_without_anything_to_calibrate_on_says_so),
        ONE(the_fastest_of_open_layouts_counts_as_no_prediction),
        ONE(what_cannot_be_laid_out_is_told_why),
        ONE(what_was_not_asked_about_is_not_said),
        ONE(a_published_table_and_the_validation_agree),
        ONE(the_last_lines_of_a_validation_are_of_all_sets),
        ONE(what_the_software_lacks_is_refused_marked_and_explained),
        ONE(limits_and_exchanges_are_said),
        ONE(limits_of_one_tier_are_of_that_tier),
          ONE(machines_are_listed_and_described),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
