/* Runs that are diagnosed, whole and in pieces. */
#include "cli/program.h"
#include "test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the first chunk of spans begins in $f. */
#define FIRST_SPANS "n=$(grep -abo SPAN $f | head -1 | cut -d: -f1) && "
#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "diagnose-command", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 30, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\neval: {every: 0}\nX\n"
          "timeout 100 $H train r.yaml --quiet --set run.name=one && "
          "rm -f runs/one/trace/*.kept*", 0); /* which a busy machine makes */
    return 0;
}

static json_t *diagnose(const char *arguments)
{
    json_error_t error;
    const char *text = shellf(0, "cd $D && $H diagnose --json %s", arguments);
    json_t *o = json_loads(text, 0, &error);
    if (!o)
        fail_msg("%s: %s", error.text, text);
    return o;
}

static double number(json_t *o, const char *key)
{
    json_t *x = json_object_get(o, key);
    CHECK(json_is_number(x));
    return json_number_value(x);
}

TEST(where_a_step_goes_adds_up_to_the_step)
{
    json_t *o = diagnose("runs/one"), *times = json_object_get(o, "times"), *value;
    const char *key;
    double sum = 0;
    json_object_foreach(times, key, value)
        sum += json_number_value(value);
    CHECK_EQ(number(o, "steps"), 27);
    CHECK_EQ(number(o, "first_step"), 4);
    CHECK_NEAR(sum, number(o, "step_s"), 1e-9 * number(o, "step_s"));
    CHECK(number(times, "compute_s") > 0.05 * sum); /* also where others have the processors */
    CHECK(number(o, "theta_s") >= 0.02 * number(o, "step_s") * (1 - 1e-12));
    json_decref(o);
    o = diagnose("runs/one --steps 11-20");
    CHECK_EQ(number(o, "steps"), 10);
    CHECK_EQ(number(o, "first_step"), 11);
    json_decref(o);
}

/* It is as long as many steps of so small a model, and as few of them stand for it. */
TEST(an_evaluation_at_the_end_is_no_part_of_a_step)
{
    shell("cd $D && for i in $(seq 400); do echo \"{\\\"text\\\": \\\"the cat $i saw "
          "$((i * i % 97)) birds and sat on mat $((i * 7 % 31))\\\"}\"; done >t.jsonl && "
          "$H data prepare t.jsonl --tokenizer tok.json --licence none --val-fraction 0.5 "
          "--out held --quiet >/dev/null && timeout 100 $H train r.yaml --quiet "
          "--set data.sources=held --eval.every 1000 --set run.name=held && "
          "grep -q '\"event\":\"eval\"' runs/held/metrics.jsonl", 0);
    json_t *o = diagnose("runs/held"), *times = json_object_get(o, "times");
    CHECK_EQ(number(o, "steps"), 27);
    CHECK(number(times, "compute_s") > 0 && !(number(times, "eval_s") > 0));
    json_decref(o);
    const char *of_the_run = shell("cd $D && $H trace ladder runs/held", 0);
    CHECK(strstr(of_the_run, "rank 0  eval\n"));
}

/* The longest parts are told, and what all others come to. */
TEST(the_critical_path_adds_up_to_the_step)
{
    json_t *part;
    size_t i;
    shell("cd $D && timeout 100 $H train r.yaml --quiet --clock virtual --layout dp=2 "
          "--set run.name=path", 0);
    json_t *o = diagnose("runs/path");
    double sum = number(o, "critical_path_rest_s");
    CHECK(sum > 0);
    json_array_foreach(json_object_get(o, "critical_path"), i, part)
        sum += number(part, "seconds");
    CHECK_NEAR(sum, number(o, "step_s"), 1e-9 * sum);
    json_decref(o);
    const char *text = shell("cd $D && $H diagnose runs/path", 0);
    CHECK(strstr(text, " shorter ones ") && strstr(text, " replayed steps of "));
    sum = 0;
    const char *line = strstr(shell("cd $D && $H trace ladder runs/path", 0), "per step:\n");
    CHECK(line != NULL);
    while ((line = strchr(line, '\n')) && strstr(++line, " ms "))
        sum += strtod(line, NULL);
    o = diagnose("runs/path --steps 1-30");
    CHECK_NEAR(1e-3 * sum, number(o, "step_s"), 1e-5); /* as printed */
    json_decref(o);
}

TEST(a_person_reads_the_findings_first_then_where_the_time_goes)
{
    const char *text = shell("cd $D && $H diagnose runs/one", 0);
    CHECK(strstr(text, "A step takes "));
    CHECK(strstr(text, "computing"));
    CHECK(strstr(text, "of steady steps: the first 3 of a process"));
    CHECK(strstr(text, "linear"));
    CHECK(strstr(text, " 1. ") == text || strstr(text, "No finding above") == text ||
          strstr(text, "No kind that is known matches, yet ") == text);
    CHECK(strstr(shell("cd $D && $H diagnose --rules", 0), "three standard errors") == NULL);
    CHECK(strstr(shell("cd $D && $H diagnose --rules", 0), "B1   one rank is always slow"));
}

TEST(what_is_torn_costs_what_is_torn_and_is_said)
{
    shell("cd $D && rm -rf torn && cp -r runs/one torn && "
          "truncate -s -700 torn/trace/rank-0.spans", 0);
    json_t *o = diagnose("torn");
    CHECK(number(o, "steps") >= 25);
    CHECK(strstr(json_string_value(json_array_get(json_object_get(o, "missing"), 0)),
                 "ends within a chunk"));
    json_decref(o);
    /* Half of the file: half of the steps, and no recipe. */
    shell("cd $D && f=torn/trace/rank-0.spans && " FIRST_SPANS
          "truncate -s $((n + ($(stat -c %s $f) - n) / 2)) $f && rm torn/recipe.yaml", 0);
    o = diagnose("torn");
    CHECK(number(o, "steps") > 5 && number(o, "steps") < 20);
    json_decref(o);
}

static bool is_missing(const char *run, const char *what)
{
    json_t *o = diagnose(run), *line;
    size_t i;
    bool told = false;
    json_array_foreach(json_object_get(o, "missing"), i, line)
        told |= strstr(json_string_value(line), what) != NULL;
    json_decref(o);
    return told;
}

/* Beside the spans: what they were, and why they cannot be read. */
TEST(files_of_the_folder_that_cannot_be_read_are_told)
{
    shell("cd $D && rm -rf hurt && cp -r runs/one hurt && "
          "printf '{\"conf\\000' >hurt/manifest.json", 0);
    CHECK(is_missing("hurt", "hurt/manifest.json:1:"));
    shell("cd $D && : >hurt/manifest.json && head -c 400 /dev/zero >hurt/metrics.jsonl", 0);
    CHECK(is_missing("hurt", "hurt/manifest.json:1:0: it is empty"));
    CHECK(is_missing("hurt", "hurt/metrics.jsonl: none of its lines is a run's"));
    shell("cd $D && rm hurt/metrics.jsonl hurt/manifest.json && mkdir hurt/metrics.jsonl", 0);
    CHECK(is_missing("hurt", "read hurt/metrics.jsonl: Is a directory"));
    CHECK(is_missing("hurt", "open hurt/manifest.json: No such file"));
    shell("cd $D && rm -r hurt/metrics.jsonl hurt/recipe.yaml", 0);
    CHECK(!is_missing("hurt", "hurt/")); /* a record alone */
    CHECK(!is_missing("runs/one", "runs/one/"));
    shell("cd $D && printf '[1, 2]' >hurt/manifest.json", 0);
    CHECK(is_missing("hurt", "hurt/manifest.json is no run's"));
}

TEST(a_pipe_in_the_place_of_spans_is_not_waited_for)
{
    shell("cd $D && rm -rf pipe && cp -r runs/one pipe && rm pipe/trace/rank-0.spans* && "
          "mkfifo pipe/trace/rank-0.spans", 0);
    const char *text = shell("cd $D && timeout 60 $H diagnose pipe 2>&1", 1);
    CHECK(strstr(text, "rank-0.spans holds no recorded spans"));
}

TEST(a_run_without_spans_may_not_have_begun)
{
    shell("cd $D && rm -rf young && mkdir -p young/trace && cp runs/one/recipe.yaml young/", 0);
    CHECK(strstr(shell("cd $D && $H diagnose young 2>&1", 2), "about to take its first step"));
}

TEST(a_run_that_died_in_its_first_step_is_told_so)
{
    shell("cd $D && rm -rf early && cp -r runs/one early && "
          "f=early/trace/rank-0.spans && " FIRST_SPANS "truncate -s $n $f", 0);
    const char *text = shell("cd $D && $H diagnose early", 0);
    CHECK(strstr(text, "no step was finished"));
    CHECK(strstr(text, "the run ended in its first step"));
    CHECK(!strstr(text, "A step takes"));
}

static bool is_family(json_t *o, const char *letters)
{
    json_t *f;
    size_t i;
    json_array_foreach(json_object_get(o, "findings"), i, f) {
        const char *id = json_string_value(json_object_get(f, "id"));
        if (strchr(letters, id[0]) || strcmp(id, "K14") == 0)
            return true;
    }
    return false;
}

TEST(without_all_ranks_waits_are_not_told_apart_and_nobody_is_blamed)
{
    json_t *o, *times;
    shell("cd $D && timeout 100 $H train r.yaml --quiet --clock virtual --layout dp=2 "
          "--set run.name=two --inject slow_compute=2@1 && rm -rf lost && cp -r runs/two lost && "
          "rm -f lost/trace/rank-1.*", 0);
    o = diagnose("runs/two");
    CHECK_EQ(number(o, "missing_ranks"), 0);
    CHECK(number(json_object_get(o, "times"), "wait_s") > 0);
    CHECK(is_family(o, "B"));
    json_decref(o);
    o = diagnose("lost");
    times = json_object_get(o, "times");
    CHECK_EQ(number(o, "missing_ranks"), 1);
    CHECK(number(times, "wait_or_transfer_s") > 0);
    CHECK(json_is_null(json_object_get(times, "transfer_s")) && !is_family(o, "BC"));
    json_decref(o);
    const char *text = shell("cd $D && $H diagnose lost", 0);
    CHECK(strstr(text, "The record lacks 1 of 2 ranks (1): ") == text);
    CHECK(strstr(text, " transfer - x"));
    CHECK(!strstr(text, "No finding above"));
    /* Its file is there, and nothing of its spans can be read. */
    shell("cd $D && rm -rf rags && cp -r runs/two rags && f=rags/trace/rank-1.spans && " FIRST_SPANS
          "size=$(stat -c %s $f) && for i in $(seq 0 199); do printf X | "
          "dd of=$f bs=1 conv=notrunc seek=$((n + (size - n) * i / 200)) 2>/dev/null; done", 0);
    CHECK(is_missing("rags", "spans of 1 of 2 ranks (1) are damaged in steps that are judged"));
    /* A rank whose last steps were torn off: the steps that are whole are judged, as ever. */
    shell("cd $D && rm -rf torn2 && cp -r runs/two torn2 && f=torn2/trace/rank-1.spans && "
          FIRST_SPANS "truncate -s $((n + ($(stat -c %s $f) - n) * 2 / 3)) $f", 0);
    o = diagnose("torn2");
    CHECK_EQ(number(o, "missing_ranks"), 0);
    CHECK(number(o, "steps") >= 5 && number(o, "steps") < 25);
    CHECK(is_family(o, "B"));
    json_decref(o);
    /* So early that too few are whole: it is there in one step or two of those that are judged. */
    shell("cd $D && rm -rf torn3 && cp -r runs/two torn3 && f=torn3/trace/rank-1.spans && "
          FIRST_SPANS "truncate -s $((n + ($(stat -c %s $f) - n) / 6)) $f", 0);
    text = shell("cd $D && $H diagnose torn3", 0);
    CHECK(strstr(text, "The record lacks 1 of 2 ranks (1 in 2") == text);
    CHECK(strstr(text, " of 27 steps): "));
}

TEST(a_page_without_curves_says_so_where_it_is_written)
{
    shell("cd $D && rm -rf mute && cp -r runs/two mute && : >mute/metrics.jsonl", 0);
    const char *text = shell("cd $D && $H report mute --out mute.html 2>&1", 0);
    CHECK(strstr(text, "mute/metrics.jsonl: there is no whole line; the page has no curves"));
    text = shell("cd $D && printf 'x\n' >mute/metrics.jsonl && "
                 "$H report mute --out mute.html 2>&1", 0);
    CHECK(strstr(text, "mute/metrics.jsonl: no line can be read; the page has no curves"));
    text = shell("cd $D && cp runs/two/metrics.jsonl mute/ && printf 'x\n' >>mute/metrics.jsonl && "
                 "$H report mute --out mute.html 2>&1", 0);
    CHECK(strstr(text, "mute/metrics.jsonl: 1 of "));
    text = shell("cd $D && HEADWAY_FAULT=open:1:EACCES $H report runs/two --out mute.html 2>&1", 0);
    CHECK(strstr(text, "open runs/two/metrics.jsonl: Permission denied; the page has no curves"));
    CHECK(!strstr(text, "no whole line"));
    shell("cd $D && grep -q 'open runs/two/metrics.jsonl: Permission denied' mute.html", 0);
    text = shell("cd $D && $H report runs/two --out mute.html 2>&1", 0);
    CHECK(!strstr(text, "warning"));
}

/* Messages of a few hundred bytes, all alike, and a delay on each: not bandwidth. */
TEST(a_delay_of_small_messages_is_not_called_bandwidth)
{
    shell("cd $D && timeout 100 $H train r.yaml --quiet --clock virtual --layout dp=2 "
          "--set run.name=slow --inject comm_delay=20ms", 0);
    json_t *o = diagnose("runs/slow"), *f = json_array_get(json_object_get(o, "findings"), 0);
    CHECK_STR(json_string_value(json_object_get(f, "id")), "C5");
    json_decref(o);
}

/* Two stages with a slow rank each, as slow as the other: to mend one alone gives back nothing. */
TEST(slow_ranks_that_hide_each_other_are_both_named)
{
    shell("cd $D && timeout 100 $H train r.yaml --quiet --clock virtual --layout "
          "dp=3,pp=4,schedule=1f1b --rates flops=8e10,memory=2e10,link=1.5e9,latency=1.5e-5 "
          "--set model.spec=laptop-5m --set model.override={} --set train.batch=24 "
          "--set train.accumulate=8 --set train.seq=128 --set train.steps=8 --set run.name=both "
          "--inject slow_compute=2.2@9,slow_compute=1.3@8", 0);
    json_t *o = diagnose("runs/both"), *findings = json_object_get(o, "findings"), *f;
    size_t i;
    int named = 0;
    json_array_foreach(findings, i, f) {
        const i64 rank = json_integer_value(json_object_get(json_object_get(f, "place"), "rank"));
        if (strcmp(json_string_value(json_object_get(f, "id")), "B1") == 0)
            named |= rank == 8 ? 1 : rank == 9 ? 2 : 4;
    }
    CHECK_EQ(named, 3);
    json_decref(o);
}

TEST(rungs_that_were_not_measured_have_no_number)
{
    shell("cd $D && rm -rf bare && cp -r runs/one bare && "
          "rm -f bare/trace/*.toc && "
          "LC_ALL=C sed -i s/SAMP/SAMQ/g bare/trace/rank-0.spans", 0); /* no samples */
    json_t *o = diagnose("bare"), *cpu = json_object_get(json_object_get(o, "ladder"), "cpu");
    CHECK(json_is_null(cpu));
    json_decref(o);
    CHECK(strstr(shell("cd $D && $H trace ladder bare", 0), "on a processor: not measured"));
}

/* --- real ranks, whose tasks sleep: the processor hardly matters ---------------------- */

#define FOUR "timeout 100 $H train r.yaml --quiet --measure --ranks 4 --layout dp=4,zero=1 " \
             "--set train.batch=4 --compute none --rates flops=1e8,memory=1e9 --set run.name="

static json_t *slowed(const char *name, const char *fault)
{
    shellf(0, "cd $D && rm -rf runs/%s && " FOUR "%s --inject %s", name, name, fault);
    char folder[64];
    snprintf(folder, sizeof folder, "runs/%s", name);
    return diagnose(folder);
}

static i64 rank_in(json_t *f)
{
    json_t *rank = json_object_get(json_object_get(f, "place"), "rank");
    return json_is_null(rank) ? -1 : json_integer_value(rank);
}

TEST(of_real_ranks_the_slow_one_is_named_with_its_cost)
{
    json_t *o = slowed("late", "slow_compute=2@2"), *f = json_array_get(
        json_object_get(o, "findings"), 0), *gain = json_object_get(f, "gain_s");
    CHECK_STR(json_string_value(json_object_get(f, "id")), "B1");
    CHECK_EQ(rank_in(f), 2);
    double high = json_real_value(json_array_get(gain, 2)), step = number(o, "step_s");
    CHECK(high > 0.25 * step && high < step);
    json_decref(o);
}

TEST(of_real_ranks_slow_links_blame_no_rank)
{
    json_t *o = slowed("thin", "comm_delay=30ms"), *times = json_object_get(o, "times"), *f;
    size_t i;
    CHECK(number(times, "transfer_s") > number(times, "wait_s"));
    json_array_foreach(json_object_get(o, "findings"), i, f)
        CHECK_EQ(rank_in(f), -1);
    json_decref(o);
}

/* Tasks that sleep want no processor: that the system gave theirs to others says nothing. */
TEST(where_tasks_sleep_processors_are_not_judged)
{
    json_t *o = slowed("sleeps", "neighbour=3"), *f, *notes = json_object_get(o, "missing");
    size_t i;
    json_array_foreach(json_object_get(o, "findings"), i, f) {
        const char *id = json_string_value(json_object_get(f, "id"));
        CHECK(strcmp(id, "H8") != 0 && strcmp(id, "K1") != 0 && strcmp(id, "C9") != 0);
        CHECK(strcmp(id, "K4") != 0);
    }
    CHECK(json_is_null(json_object_get(json_object_get(o, "ladder"), "cpu")));
    CHECK(json_array_size(notes) == 1);
    CHECK(strstr(json_string_value(json_array_get(notes, 0)), "--compute none"));
    json_decref(o);
}

/* Who was there has left word, so that the folder alone tells. */
TEST(a_run_whose_ranks_disagreed_or_hung_tells_so_afterwards)
{
    json_t *o = slowed("late", "slow_compute=2@2"), *f;
    CHECK(!strstr(shell("cd $D && $H diagnose runs/late", 0), " R5 "));
    shell("cd $D && rm -rf hung && cp -r runs/late hung && printf '{\"exit\":80,\"step\":30,"
          "\"absent\":1,\"why\":\"rank 1 did not reach allreduce 7 on dp\"}' "
          ">hung/trace/rank-3.end && printf torn >hung/trace/rank-0.end", 0);
    json_decref(o);
    o = diagnose("hung");
    f = json_array_get(json_object_get(o, "findings"), 0);
    CHECK_STR(json_string_value(json_object_get(f, "id")), "R5");
    CHECK_EQ(rank_in(f), 1);
    json_decref(o);
    shell("cd $D && rm -rf runs/apart && { " FOUR "apart --inject hang=1@1:9; } >/dev/null 2>&1",
          1);
    const char *text = shell("cd $D && $H diagnose runs/apart", 0);
    CHECK(strstr(text, " R5 ") && strstr(text, "ranks do not agree") && strstr(text, "[rank 1]"));
}

/* Steps are shorter than samples are rare: a sample's counters are of several steps, and a step's
 * rows are 2 x 2 of 32 tokens of two bytes. */
TEST(counters_of_a_sample_are_of_all_the_steps_that_it_covers)
{
    shell(TRAIN "--measure --set run.name=brief --set train.steps=200", 0);
    json_t *o = diagnose("runs/brief");
    const bool known = json_is_number(json_object_get(o, "loader_bytes"));
    const double bytes = known ? number(o, "loader_bytes") : NAN;
    json_decref(o);
    if (!known)
        skip(); /* a busy machine: samples were dear, so there are too few */
    CHECK(bytes > 128 && bytes < 400);
}

TEST(a_damaged_chunk_costs_its_step_and_no_other)
{
    /* The last chunk of spans: its step becomes one that no other step stands beside. */
    shell("cd $D && rm -rf flip && cp -r runs/one flip && f=flip/trace/rank-0.spans && "
          "n=$(grep -abo SPAN $f | tail -1 | cut -d: -f1) && "
          "printf '\\300' | dd of=$f bs=1 seek=$((n + 18)) conv=notrunc 2>/dev/null", 0);
    json_t *o = diagnose("flip");
    CHECK(number(o, "steps") >= 25);
    json_decref(o);
}

/* Dies behind steps 39 and 59 (more often where the disk is slow): 21 to 39 and 41 to 59 are taken
 * twice. */
TEST(a_run_that_dies_again_and_again_is_told_how_often_to_save)
{
    shell("cd $D && for go in '' $(yes -- --resume | head -9); do timeout 100 $H train r.yaml "
          "--quiet --set run.name=dies --set train.steps=79 --set checkpoint.every=20 "
          "--inject kill=39,pause=25ms/1 $go && break; done 2>/dev/null", 0); /* pauses: spans and
                                                                     * checkpoints get to disk */
    json_t *o = diagnose("runs/dies"), *all = json_object_get(o, "findings"), *f = NULL, *x;
    size_t i;
    json_array_foreach(all, i, x)
        if (strcmp(json_string_value(json_object_get(x, "id")), "R1") == 0)
            f = x;
    if (!f)
        fail_msg("%s", json_dumps(all, JSON_INDENT(1)));
    const char *text = json_string_value(json_array_get(json_object_get(f, "evidence"), 0));
    CHECK(atoi(text) >= 2 && strstr(text, " times in "));
    CHECK(strstr(json_string_value(json_object_get(f, "fix")), "--checkpoint.every "));
    double share = number(f, "share"); /* 38 of 117 steps; less of the time, with starts */
    CHECK(share > 0.02 && share < 0.7);
    json_decref(o);
}

TEST(all_kinds_are_printed_and_read_back)
{
    json_error_t error;
    json_t *o = json_loads(shellf(0, "$H diagnose --kinds --json"), 0, &error);
    CHECK_EQ(json_array_size(o), 54);
    json_decref(o);
    CHECK(strstr(shellf(0, "$H diagnose --kinds"), "K13  work that a mask throws away"));
}

TEST(steps_that_the_run_does_not_have_are_told_so)
{
    const char *text = shell("cd $D && $H diagnose runs/one --steps 50-80 2>&1", 2);
    CHECK(strstr(text, "the run has no steps 50-80: steps 1 to 30 are recorded"));
    text = shell("cd $D && $H diagnose runs/one --steps 31- 2>&1", 2);
    CHECK(strstr(text, "no steps from 31 on"));
}

static json_t *first_lane(const char *run)
{
    json_t *o = diagnose(run), *lane = json_incref(json_array_get(json_object_get(o, "lanes"), 0));
    json_decref(o);
    return lane;
}

/* Each piece has a span; on a computed clock all of them have one. To within what a step that
 * the clocks cut in two adds to a mean. */
TEST(what_is_exchanged_in_pieces_counts_its_bytes_once)
{
    shell(TRAIN "--layout tp=2 --ranks 2 --compute none --measure --set run.name=pieces && "
          "$H train r.yaml --quiet --layout tp=2 --clock virtual --set run.name=whole", 0);
    json_t *real = first_lane("runs/pieces"), *computed = first_lane("runs/whole");
    CHECK(strcmp(json_string_value(json_object_get(real, "axis")), "tp") == 0);
    CHECK(number(computed, "bytes") > 0);
    CHECK_NEAR(number(real, "bytes"), number(computed, "bytes"), 1e-2 * number(computed, "bytes"));
    CHECK_NEAR(number(real, "calls"), number(computed, "calls"), 1e-2 * number(computed, "calls"));
    json_decref(real);
    json_decref(computed);
}

TEST(a_run_that_goes_on_answers_a_probe)
{
    shell("cd $D && rm -rf runs/live && (timeout 200 $H train r.yaml --quiet --ranks 2 "
          "--layout dp=2 --compute none --rates flops=2e9,memory=1e9 --set run.name=live "
          "--set train.steps=100000 >/dev/null 2>&1 & echo $! >live.pid); "
          "for i in $(seq 600); do $H diagnose runs/live --json 2>/dev/null | "
          "grep -q '\"steps\": *[1-9][0-9]' && break; sleep 0.1; done", 0);
    CHECK(strstr(shell("cd $D && $H diagnose runs/live --probe linear 2>&1", 2),
                 "such as linear=10%"));
    CHECK(strstr(shell("cd $D && $H diagnose runs/live --probe nothing=5% 2>&1", 2), "no op"));
    /* what the machine wanders by is less than tasks that take twice as long, mostly */
    double response = 0, replayed = 0;
    for (int i = 0; i < 4 && response <= 0.3 * replayed; i++) {
        json_t *o = diagnose("runs/live --probe linear=100% --pairs 8 --every 0.2");
        json_t *p = json_array_get(json_object_get(o, "probes"), 0);
        CHECK_EQ(json_integer_value(json_object_get(p, "pairs")), 8);
        response = number(p, "response_s");
        replayed = number(p, "replayed_response_s");
        json_decref(o);
    }
    shell("cd $D && pkill -TERM -P $(cat live.pid); kill $(cat live.pid); sleep 1; true", 0);
    CHECK(replayed > 0);
    CHECK(response > 0.3 * replayed);
    CHECK(strstr(shell("cd $D && $H diagnose runs/one --probe linear=5% 2>&1", 2), "no process"));
}

TEST(what_is_no_run_is_refused_in_a_sentence)
{
    CHECK(strstr(shell("cd $D && $H diagnose nowhere 2>&1", 2), "nowhere"));
    CHECK(strstr(shell("cd $D && mkdir -p e && $H diagnose e 2>&1", 2),
                 "e is no run folder: it has neither manifest.json nor trace; give the one"));
    CHECK(strstr(shell("cd $D && $H diagnose r.yaml 2>&1", 2),
                 "r.yaml is a file: give the folder of a run"));
    CHECK(strstr(shell("cd $D && $H diagnose 2>&1", 2), "which run?"));
    CHECK(strstr(shell("cd $D && $H diagnose runs/one --steps x 2>&1", 2), "50-80"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(where_a_step_goes_adds_up_to_the_step),
        ONE(an_evaluation_at_the_end_is_no_part_of_a_step),
        ONE(the_critical_path_adds_up_to_the_step),
        ONE(a_person_reads_the_findings_first_then_where_the_time_goes),
        ONE(what_is_torn_costs_what_is_torn_and_is_said),
        ONE(files_of_the_folder_that_cannot_be_read_are_told),
        ONE(a_pipe_in_the_place_of_spans_is_not_waited_for),
        ONE(a_run_without_spans_may_not_have_begun),
        ONE(a_run_that_died_in_its_first_step_is_told_so),
        ONE(without_all_ranks_waits_are_not_told_apart_and_nobody_is_blamed),
        ONE(a_page_without_curves_says_so_where_it_is_written),
        ONE(a_delay_of_small_messages_is_not_called_bandwidth),
        ONE(slow_ranks_that_hide_each_other_are_both_named),
        ONE(rungs_that_were_not_measured_have_no_number),
        ONE(of_real_ranks_the_slow_one_is_named_with_its_cost),
        ONE(of_real_ranks_slow_links_blame_no_rank),
        ONE(where_tasks_sleep_processors_are_not_judged),
        ONE(a_run_whose_ranks_disagreed_or_hung_tells_so_afterwards),
        ONE(counters_of_a_sample_are_of_all_the_steps_that_it_covers),
        ONE(a_damaged_chunk_costs_its_step_and_no_other),
        ONE(a_run_that_dies_again_and_again_is_told_how_often_to_save),
        ONE(all_kinds_are_printed_and_read_back),
        ONE(steps_that_the_run_does_not_have_are_told_so),
        ONE(what_is_exchanged_in_pieces_counts_its_bytes_once),
        ONE(a_run_that_goes_on_answers_a_probe),
        ONE(what_is_no_run_is_refused_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
