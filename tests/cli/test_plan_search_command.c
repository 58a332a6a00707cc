/* headway plan search, explain, compare, memory, fit: what they print is what the library says. */
#include "base/json.h"
#include "program.h"
#include "test.h"

#include <math.h>
#include <string.h>

static json_t *json_of(const char *line)
{
    const char *text = shell(line, 0);
    json_t *root = json_loads(text, 0, NULL);
    if (!root)
        fail_msg("%s printed no JSON:\n%s", line, text);
    return root;
}

static double number(json_t *o, const char *key)
{
    json_t *value = json_object_get(o, key);
    if (!json_is_number(value))
        fail_msg("no number %s", key);
    return json_number_value(value);
}

/* Of a band. */
static double median(json_t *o, const char *key)
{
    return number(json_object_get(o, key), "p50");
}

TEST(a_search_says_what_a_run_takes_with_bands)
{
    json_t *root = json_of("$H plan search --model llama3-8b --gpus 64 --batch 512 --tokens 1T "
                           "--price 2USD/h --location FRA --top 3 --json");
    json_t *best = json_object_get(root, "best");
    static const char *const bands[] = { "step_seconds", "mfu", "goodput", "days", "mwh", "tco2e",
                                         "money", "tokens_per_second_per_device" };
    CHECK_EQ(json_array_size(best), 3);
    double last = 0;
    for (size_t i = 0; i < json_array_size(best); i++) {
        json_t *row = json_array_get(best, i);
        for (int k = 0; k < COUNT_OF(bands); k++) {
            json_t *band = json_object_get(row, bands[k]);
            CHECK(number(band, "p10") > 0 && number(band, "p10") <= number(band, "p50"));
            CHECK(number(band, "p50") <= number(band, "p90"));
        }
        double step = number(json_object_get(row, "step_seconds"), "p50");
        double days = number(json_object_get(row, "days"), "p50");
        double goodput = number(json_object_get(row, "goodput"), "p50");
        CHECK_NEAR(days, 1e12 / (512 * 8192) * step / goodput / 86400, 1e-6 * days);
        CHECK_NEAR(number(json_object_get(row, "money"), "p50"),
                   2 * 24 * days * (64 + number(row, "spare_devices")), 1e-6 * 1e7);
        CHECK(step >= last);
        last = step;
    }
    json_decref(root);
}

/* An upper end several times as far out has a reason, and both kinds of output say it. */
TEST(a_state_that_a_run_may_be_in_is_said_with_its_interval)
{
#define ASKED                                                                                   \
    "$H plan search --model llama3.2-3b --machine p5-efa --stack nanotron --batch 256 "           \
    "--seq 4096 --layout tp=8,pp=1,zero=1 --top 1 "
    json_t *root = json_of(ASKED "--gpus 512 --json");
    json_t *best = json_array_get(json_object_get(root, "best"), 0);
    json_t *step = json_object_get(best, "step_seconds");
    double more = number(best, "step_may_wait_seconds");
    CHECK(more > number(step, "p50"));
    CHECK(number(step, "p90") > number(step, "p50") + more);
    json_decref(root);
    CHECK(strstr(shell(ASKED "--gpus 512", 0), "of runs of nanotron on as many nodes more than"));
    CHECK(!strstr(shell(ASKED "--gpus 64", 0), "runs of nanotron on as many nodes"));
}

TEST(a_waterfall_sums_to_the_step)
{
    json_t *root = json_of("$H plan explain --model llama3-70b --gpus 512 --batch 512 --json "
                           "--why-not tp=2,pp=4");
    static const char *const both[] = { "best", "why_not" };
    for (int i = 0; i < 2; i++) {
        json_t *x = json_object_get(root, both[i]), *value;
        const char *key;
        double sum = 0;
        json_object_foreach(json_object_get(x, "terms"), key, value) {
            CHECK(json_number_value(value) >= 0);
            sum += json_number_value(value);
        }
        double step = number(json_object_get(json_object_get(x, "plan"), "step_seconds"), "p50");
        CHECK_NEAR(sum, step, 1e-9 * step);
    }
    json_decref(root);
}

TEST(memory_sums_and_names_what_binds)
{
    json_t *root = json_of("$H plan memory --model llama3-8b --gpus 8 --json "
                           "--layout dp=8,zero=0,recompute=full,micro_batch=1");
    json_t *value;
    const char *key;
    double sum = 0, most = 0, bytes = number(root, "memory_bytes");
    const char *largest = NULL;
    json_object_foreach(json_object_get(root, "memory"), key, value) {
        sum += json_number_value(value);
        if (json_number_value(value) > most) {
            most = json_number_value(value);
            largest = key;
        }
    }
    CHECK_NEAR(sum, bytes, 1e-9 * bytes);
    CHECK_STR(largest, json_string_value(json_object_get(root, "binding")));
    CHECK(!json_is_true(json_object_get(root, "fits")));
    json_decref(root);
}

/* Of what does not fit the memory command shows the same layout as the fit command. */
TEST(where_nothing_fits_the_least_is_shown)
{
    json_t *least = json_of("$H plan fit --model llama3-405b --gpus 8 --json");
    json_t *shown = json_of("$H plan memory --model llama3-405b --gpus 8 --json");
    CHECK(!json_is_true(json_object_get(shown, "fits")));
    CHECK_NEAR(number(shown, "memory_bytes") / number(least, "memory_bytes"), 1, 1e-12);
    CHECK_STR(json_string_value(json_object_get(shown, "layout")),
              json_string_value(json_object_get(least, "layout")));
    json_decref(least);
    json_decref(shown);
}

TEST(what_does_not_fit_gets_advice_that_fits)
{
    json_t *root = json_of("$H plan fit --model llama3-70b --gpus 16 --seq 4096 --json "
                           "--layout tp=1,zero=0,recompute=none");
    json_t *ways = json_object_get(root, "would_fit_with");
    CHECK(!json_is_true(json_object_get(root, "fits")));
    CHECK(json_array_size(ways) >= 1);
    for (size_t i = 0; i < json_array_size(ways); i++)
        CHECK(number(json_array_get(ways, i), "memory_bytes") > 0);
    json_decref(root);
    shell("$H plan fit --model llama3-8b --gpus 64 | grep -q '^it fits'", 0);
}

/* 100,000 devices are cut in few ways. */
TEST(fewer_devices_may_fit_what_more_do_not)
{
    json_t *root = json_of("$H plan fit --model llama3-405b --gpus 100000 --json");
    json_t *ways = json_object_get(root, "would_fit_with"), *fewer = NULL;
    for (size_t i = 0; i < json_array_size(ways); i++) {
        json_t *way = json_array_get(ways, i);
        if (!strcmp(json_string_value(json_object_get(way, "change")), "fewer devices"))
            fewer = way;
    }
    CHECK(fewer && number(fewer, "devices") < 100000 && number(fewer, "devices") > 90000);
    char line[128];
    snprintf(line, sizeof line, "$H plan fit --model llama3-405b --gpus %.0f | grep -q '^it fits'",
             number(fewer, "devices"));
    shell(line, 0);
    json_decref(root);
}

TEST(a_number_of_tokens_is_not_negative)
{
    shell("$H plan search --tokens=-5 2>&1 | grep -q 'must be at least 0'", 0);
    shell("$H plan limits --critical-batch=-3 2>&1 | grep -q 'must be at least 0'", 0);
    shell("$H plan run --step-time 3s --step-tokens=-4 2>&1 | grep -q 'must be at least 0'", 0);
}

TEST(a_front_has_no_plan_that_another_beats)
{
    json_t *root = json_of("$H plan search --model llama3-8b --gpus 64 --batch 512 --tokens 1T "
                           "--front --json");
    json_t *front = json_object_get(root, "front");
    CHECK(json_array_size(front) >= 2);
    for (size_t i = 1; i < json_array_size(front); i++) {
        json_t *p = json_object_get(json_array_get(front, i - 1), "plan");
        json_t *q = json_object_get(json_array_get(front, i), "plan");
        CHECK(median(p, "days") < median(q, "days"));
        CHECK(median(p, "mwh") > median(q, "mwh"));
    }
    json_decref(root);
}

TEST(the_same_question_has_the_same_answer)
{
    shell("x() { $H plan search --model mixtral-8x7b --gpus 32 --seq 4096 --json; }; "
          "[ \"$(x)\" = \"$(x)\" ]", 0);
}

TEST(a_replay_is_near_the_closed_form_and_repeats)
{
    static const char line[] = "$H plan replay --model llama3-8b --gpus 64 --batch 256 --top 3 "
                               "--jitter 0.03 --layout pp=4 --json";
    json_t *root = json_of(line), *again = json_of(line);
    CHECK(json_equal(root, again));
    json_t *replays = json_object_get(root, "replays");
    CHECK_EQ(json_array_size(replays), 3);
    for (size_t i = 0; i < 3; i++) {
        json_t *row = json_array_get(replays, i);
        double closed = median(json_object_get(row, "plan"), "step_seconds");
        double healthy = number(row, "replayed_seconds");
        CHECK_NEAR(healthy, closed, 0.1 * closed);
        CHECK(number(json_object_get(row, "with_chance_seconds"), "p50") > healthy);
    }
    json_decref(root);
    json_decref(again);
}

TEST(a_page_shows_a_plan_and_asks_for_nothing)
{
    shell("t=$(mktemp -d) && $H plan search --model llama3-8b --gpus 64 --layout pp=2 --tokens 1T "
          "--front --html $t/plan.html > /dev/null && grep -q '\"spans\":\\[\\[' $t/plan.html && "
          "grep -q \"default-src 'none'\" $t/plan.html && "
          "! grep -o '<script type=\"application/json\".*' $t/plan.html | head -1 | cut -c2- | "
          "sed 's,</script>.*,,' | grep -q '<' && rm -r $t", 0);
    shell("$H plan replay --html /nowhere/plan.html 2>&1 | grep -q 'cannot write'", 0);
}

TEST(bad_input_is_refused_with_what_helps)
{
    shell("$H plan search --model llama3-405b --gpus 8 2>&1 | grep -q 'the least needs'", 0);
    shell("$H plan search --layout tq=4 2>&1 | grep -q 'tp'", 0);
    shell("$H plan search --model nosuch 2>&1 | grep -q 'no model'", 0);
    shell("$H plan search --front 2>&1 | grep -q -e '--tokens'", 0);
    shell("$H plan search --seq 9000 2>&1 | grep -q 'positions'", 0);
    shell("$H plan search --gpus 8 --layout dp=7 2>&1 | grep -q 'no layout'", 0);
    shell("$H plan compare tp=8 2>&1 | grep -q 'A B'", 0);
    shell("$H plan calibrate --rows vtrain_multi:5 --constants prodct 2>&1 | "
          "grep -q 'show product, '", 0);
}

TEST(what_is_extrapolated_is_said_and_less_certain)
{
    shell("$H plan search --machine 'mi300x node:8 fabric:8' --gpus 64 | grep -q extrapolated", 0);
    shell("$H plan search --gpus 8 | grep -q 'extrapolated: no step of Megatron-Core'", 0);
    shell("$H plan search --gpus 8 --stack llm-foundry | grep -q extrapolated", 1);
    json_t *few = json_of("$H plan search --gpus 8 --stack llm-foundry --top 1 --json");
    json_t *many = json_of("$H plan search --gpus 4096 --any --stack llm-foundry --top 1 --json");
    CHECK(!json_is_true(json_object_get(json_object_get(few, "job"), "extrapolated")));
    CHECK(json_is_true(json_object_get(json_object_get(many, "job"), "extrapolated")));
    json_t *best[2] = { json_array_get(json_object_get(few, "best"), 0),
                        json_array_get(json_object_get(many, "best"), 0) };
    double width[2];
    for (int i = 0; i < 2; i++) {
        json_t *step = json_object_get(best[i], "step_seconds");
        width[i] = log(number(step, "p90") / number(step, "p10"));
    }
    CHECK(width[1] > 1.2 * width[0]); /* links' own bands do not widen */
    json_decref(few);
    json_decref(many);
}

/* What a model's file leaves open is said, not that no layout exists; of two that are one
 * neither is quicker. */
TEST(what_a_plan_lacks_is_named)
{
    shell("printf 'layers: 3\\n' >open.yaml; $H plan search --model ./open.yaml --gpus 8 2>&1 | "
          "grep -q 'leaves its vocabulary open'", 0);
    shell("$H plan search --model llama3-8b --seq 16384 2>&1 | grep -q 'with more positions'", 0);
    shell("$H plan compare tp=8 tp=8 --gpus 64 | grep -q 'neither is quicker'", 0);
    shell("$H plan compare tp=8 tp=4 --gpus 64 | grep -q 'B is quicker'", 0);
}

/* Nothing that cannot be is priced because this question would not need it. */
TEST(what_cannot_be_is_refused_whatever_is_asked)
{
    shell("$H plan search --model llama3-8b --gpus 8 --pue 0.5 2>&1 | "
          "grep -q 'no less than its machines'", 0);
    shell("$H plan search --model llama3-8b --gpus 8 --location Atlantis 2>&1 | "
          "grep -q \"for 'Atlantis'\"", 0);
    shell("$H plan fit --model llama3-8b --gpus 8 --any --layout zero=5 2>&1 | "
          "grep -q 'between -1 and 3'", 0);
    shell("$H plan islands --gpus 16 --islands 2 --link '0 Gb/s one-way' 2>&1 | "
          "grep -q 'islands never meet'", 0);
    shell("$H plan search --model llama3-8b --gpus 8 --dtype fp4 2>&1 | "
          "grep -q 'no peak in fp4 that is known; as dtype say one of fp32, fp16, bf16, fp8'", 0);
}

/* A V100 multiplies in fp16 alone: whoever asks for bf16 is told, by recipes too. */
TEST(a_dtype_that_a_device_lacks_is_told)
{
    static const char *const asked[] = {
        "search --model gpt2-124m --gpus 1 --batch 8 --machine v100-sxm2-32gb",
        "limits --model gpt2-124m --gpus 1 --batch 8 --machine v100-sxm2-32gb",
        "run --model gpt2-124m --gpus 1 --tokens 1G --mfu 0.3 --machine v100-sxm2-32gb",
        "table v100.yaml",
    };
    shell("printf 'about: one\nmodel: gpt2-124m\nmachine: v100-sxm2-32gb\nstack: megatron-lm\n"
          "rows:\n  - {label: one, gpus: 1, batch: 8, dtype: bf16, step: 1s, layout: dp=1}\n' "
          ">v100.yaml", 0);
    for (int i = 0; i < COUNT_OF(asked); i++)
        shellf(0, "$H plan %s 2>&1 | grep -q 'v100-sxm2-32gb has no peak in bf16 that is known; "
               "as dtype say one of fp32, fp16$'", asked[i]);
    shell("$H plan search --model gpt2-124m --gpus 1 --batch 8 --machine v100-sxm2-32gb "
          "--dtype fp16 | grep -q 'v100-sxm2-32gb), fp16, rows'", 0);
}

/* What layouts are held against is the share of the memory that can be used. */
TEST(a_search_says_what_layouts_must_fit_into)
{
    json_t *root = json_of("$H plan memory --model llama3-8b --gpus 8 --json");
    double memory = number(root, "device_bytes");
    shellf(0, "$H plan search --model llama3-8b --gpus 8 | grep -q 'need more than %.1f GB "
           "(96 %% of %.1f)'", 0.96e-9 * memory, 1e-9 * memory);
    json_decref(root);
}

/* GPT-3's keys of 2,048 tokens are 0.17 of the FLOPs that a byte over the network must be worth. */
TEST(a_split_of_less_than_two_ways_does_not_pay)
{
    shell("$H plan limits --model gpt3-175b --machine dgx-a100 --gpus 1024 --batch 4M --seq 2048 | "
          "grep -q 'context   does not pay over the fabric (0.17 ways)'", 0);
}

/* Constants of B200 and younger are of data sheets, whatever the software. */
TEST(devices_of_which_nothing_was_fitted_are_extrapolated)
{
    json_t *o = json_of("$H plan search --machine b300-ib --gpus 64 --stack llm-foundry --json");
    CHECK(json_is_true(json_object_get(json_object_get(o, "job"), "extrapolated")));
    json_decref(o);
    shell("$H plan search --machine b300-ib --gpus 64 | grep -q 'constants are of data sheets'", 0);
    shell("$H plan search --machine b300-ib --gpus 64 | grep -q 'at most 0'", 1);
}

/* 64 rows would be half a million tokens: 36 devices and 100 share out 72 and 75. */
TEST(rows_that_nobody_asked_for_can_be_shared_out_to_odd_numbers)
{
    static const struct { i64 devices, rows; } cases[] = { { 36, 72 }, { 100, 75 }, { 8, 64 } };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        char line[128];
        snprintf(line, sizeof line, "$H plan search --model llama3-8b --gpus %lld --json",
                 (long long)cases[i].devices);
        json_t *o = json_of(line);
        CHECK_NEAR(number(json_object_get(o, "job"), "global_batch"), (double)cases[i].rows, 0);
        json_decref(o);
    }
}

/* Megatron-Core was never fitted, and says so itself: twice as wide, once. */
TEST(json_and_text_say_the_same_of_what_is_extrapolated)
{
    json_t *o = json_of("$H plan search --model llama3-8b --gpus 8 --seq 4096 --top 1 --json");
    CHECK_NEAR(number(json_object_get(o, "job"), "interval_widened"), 2, 1e-9);
    json_decref(o);
    shell("$H plan search --model llama3-8b --gpus 8 --seq 4096 --top 1 | grep -q "
          "'taken to be 2 times'", 0);
}

/* 12,500 rows would be as many tokens as are assumed for 100,000 devices: eight islands
 * cannot share them. */
TEST(rows_that_nobody_asked_for_can_be_shared_out_to_islands)
{
    json_t *o = json_of("$H plan islands --model llama3-8b --gpus 100000 --islands 8 --json");
    CHECK_NEAR(number(json_object_get(o, "job"), "global_batch"), 8 * 3125, 0);
    json_decref(o);
    shell("$H plan islands --gpus 100000 --islands 8 --batch 12500 2>&1 | grep -q "
          "'batch 12504 can'", 0);
    shell("$H plan islands --gpus 8 2>&1 | grep -q "
          "'has 1 of the 8 devices (--gpus is those of all islands'", 0);
    /* A node for each, if nobody says. */
    shell("$H plan islands | grep -q '8 islands of 8 devices'", 0);
    /* 2 (K - 1) / K times 4 bytes. */
    shell("$H plan islands --gpus 16 --islands 2 | grep -q 'sends 4 bytes for each'", 0);
    shell("$H plan run --location nowhere 2>&1 | grep -q -e '--carbon-g-per-kwh'", 0);
}

TEST(what_was_not_compared_has_no_number)
{
    shell("$H plan validate --set maxtext --json | grep -q '\"mean_error\":null'", 0);
    shell("$H plan validate --set maxtext | grep -q ' 0.00%'", 1);
    shell("$H plan validate --rows /dev/null", 1);
    shell("$H plan validate --set vtrain_singel 2>&1 | grep -q \"did you mean "
          "'vtrain_single'\"", 0);
    shell("$H plan validate --set nothing-like-it 2>&1 | grep -q 'there are korthikanti2022, '", 0);
}

TEST_MAIN(ONE(a_dtype_that_a_device_lacks_is_told),
          ONE(a_search_says_what_layouts_must_fit_into),
          ONE(a_split_of_less_than_two_ways_does_not_pay),
        ONE(json_and_text_say_the_same_of_what_is_extrapolated),
        ONE(rows_that_nobody_asked_for_can_be_shared_out_to_islands),
        ONE(what_was_not_compared_has_no_number),
        ONE(devices_of_which_nothing_was_fitted_are_extrapolated), ONE(what_a_plan_lacks_is_named),
        ONE(what_cannot_be_is_refused_whatever_is_asked),
        ONE(rows_that_nobody_asked_for_can_be_shared_out_to_odd_numbers),
          ONE(a_search_says_what_a_run_takes_with_bands),
          ONE(a_state_that_a_run_may_be_in_is_said_with_its_interval),
          ONE(a_waterfall_sums_to_the_step),
          ONE(memory_sums_and_names_what_binds), ONE(what_does_not_fit_gets_advice_that_fits),
          ONE(where_nothing_fits_the_least_is_shown),
          ONE(fewer_devices_may_fit_what_more_do_not), ONE(a_number_of_tokens_is_not_negative),
          ONE(a_front_has_no_plan_that_another_beats), ONE(the_same_question_has_the_same_answer),
          ONE(bad_input_is_refused_with_what_helps),
          ONE(a_replay_is_near_the_closed_form_and_repeats),
          ONE(a_page_shows_a_plan_and_asks_for_nothing),
          ONE(what_is_extrapolated_is_said_and_less_certain))
