/* headway trace: what a run recorded, listed, added up and exported; also of a run that was
 * killed. */
#include "cli/program.h"
#include "test.h"

#include "trace/proto.h"
#include "trace/record.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static int prepare(void **state)
{
    (void)state;
    setenv("D", "trace-command", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: t.txt, tokenizer: tok.json, val_fraction: 0, cache: cache}\n"
          "train: {steps: 6, batch: 4, seq: 32, threads: 1}\n"
          "run: {dir: runs}\n"
          "X\n"
          "timeout 100 $H train r.yaml --run.name=one --quiet && "
          "timeout 100 $H train r.yaml --run.name=two --ranks 2 --layout.dp=2 --quiet", 0);
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

/* Events with this key and value. */
static i64 count(const json_t *o, const char *key, const char *value)
{
    const json_t *events = json_object_get(o, "traceEvents");
    i64 n = 0;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const char *v = json_string_value(json_object_get(json_array_get(events, i), key));
        n += v && strcmp(v, value) == 0;
    }
    return n;
}

TEST(info_says_what_there_is)
{
    const char *text = shell("cd $D && $H trace info runs/two 2>&1", 0);
    CHECK(strstr(text, "2 ranks (dp=2)"));
    CHECK(strstr(text, "steps 1 to 6"));
    CHECK(strstr(text, "6 steps recorded"));
    CHECK(strstr(text, "all of it can be read"));
    CHECK(!strstr(text, "missing"));
}

/* One bit of the first chunk of the kind (in a copy of the run, flip), or the last. */
static void flip_bit(const char *kind, bool last)
{
    enum { WITHIN = 40 };
    static char bytes[1 << 20];
    char path[256];
    i64 at = -1;
    shell("cd $D && rm -rf flip && cp -r runs/two flip", 0);
    snprintf(path, sizeof path, "%s/flip/trace/rank-0.spans", getenv("D"));
    FILE *f = fopen(path, "r+b");
    CHECK(f != NULL);
    const i64 n = (i64)fread(bytes, 1, sizeof bytes, f);
    for (i64 i = 0; i + WITHIN < n && (last || at < 0); i += 8) /* chunks begin at multiples of 8 */
        at = memcmp(bytes + i, kind, 4) == 0 ? i : at;
    CHECK(at >= 0 && n < (i64)sizeof bytes);
    CHECK(fseek(f, at + WITHIN, SEEK_SET) == 0 && fputc(bytes[at + WITHIN] ^ 1, f) != EOF);
    CHECK(fclose(f) == 0);
}

/* In spans and samples, which only reading them tells; in a head it can be put right. */
TEST(info_says_what_is_damaged)
{
    flip_bit("SPAN", true);
    const char *text = shell("cd $D && $H trace info flip", 0);
    CHECK(strstr(text, "missing: spans of 1 of 6 steps are damaged (step 6)\n"));
    CHECK(!strstr(text, "all of it"));
    text = shell("cd $D && $H trace info flip --no-check", 0);
    CHECK(!strstr(text, "missing") && !strstr(text, "all of it"));
    flip_bit("SAMP", false);
    CHECK(strstr(shell("cd $D && $H trace info flip", 0),
                 "missing: 1 sample of the host is damaged\n"));
    flip_bit("HEAD", false);
    CHECK(strstr(shell("cd $D && $H trace info flip", 0), "was wrong, and is put right\n"));
}

/* What was said to be missing is not there to be read. */
TEST(info_does_not_call_whole_what_lacks_something)
{
    const char *text;
    shell("cd $D && rm -rf torn && cp -r runs/two torn && "
          "rm -f torn/trace/*kept* torn/trace/*.toc && f=torn/trace/rank-1.spans && "
          "n=$(grep -abo SPAN $f | head -1 | cut -d: -f1) && "
          "truncate -s $((n + ($(stat -c %s $f) - n) / 2)) $f", 0);
    text = shell("cd $D && $H trace info torn", 0);
    CHECK(strstr(text, "rank-1.spans ends within a chunk"));
    CHECK(strstr(text, " of 6 steps are there of some ranks only (step"));
    CHECK(!strstr(text, "can be read"));
    shell("cd $D && rm -rf lost && cp -r runs/two lost && rm lost/trace/rank-1.*", 0);
    text = shell("cd $D && $H trace info lost", 0);
    CHECK(strstr(text, "missing: 1 of 2 ranks have no file that can be read: 1\n"
                       "all the rest can be read\n"));
    shell("cd $D && rm -rf foreign && mkdir -p foreign/trace && "
          "cp t.txt foreign/trace/rank-0.spans", 0);
    text = shell("cd $D && $H trace info foreign 2>&1", 1);
    CHECK(strstr(text, "rank-0.spans holds no recorded spans: it is another kind of file"));
}

TEST(the_ladder_and_the_path_are_printed)
{
    const char *text = shell("cd $D && $H trace ladder runs/two --steps 2-6 2>&1", 0);
    CHECK(strstr(text, "factor      alone    so far   what it loses to\ngoodput") == text);
    CHECK(strstr(text, "clock"));
    CHECK(strstr(text, "5 steps"));
    CHECK(strstr(text, "MFU 0."));
    CHECK(strstr(text, "The critical path"));
    text = shell("cd $D && $H trace stragglers runs/two 2>&1", 0);
    CHECK(strstr(text, "S_w") && strstr(text, "6 steps"));
}

/* The first number behind a word. */
static double number_behind(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    if (!at)
        fail_msg("%s is not in %s", word, text);
    return strtod(at + strlen(word), NULL);
}

/* An evaluation behind every hundredth of 1,700 steps, and so behind 17 of them: of steps that are
 * looked at at a distance of their own, none might have one, or all. */
TEST(the_ladder_of_some_steps_is_that_of_all_on_the_page_too)
{
    shell("cd $D && sed 's/.*/{\"text\": \"&\"}/' t.txt >t.jsonl && $H data prepare t.jsonl "
          "--tokenizer tok.json --licence none --val-fraction 0.1 --out held --quiet >/dev/null && "
          "timeout 100 $H train r.yaml --quiet --clock virtual --run.name=long "
          "--train.steps=1700 --data.sources=held --eval.every=100 --eval.tokens=16000 "
          ">/dev/null && $H report runs/long >/dev/null", 0);
    const double all = number_behind(shell("cd $D && $H trace ladder runs/long --sample 0", 0),
                                     "goodput");
    CHECK(all > 0.2 && all < 0.95);
    for (int most = 100; most <= 1000; most *= 10) {
        const char *some = shellf(0, "cd $D && $H trace ladder runs/long --sample %d", most);
        CHECK_NEAR(number_behind(some, "goodput"), all, 0.01 * all);
        CHECK(strstr(some, most == 100 ? "\n100 steps;" : "\n1000 steps;"));
        CHECK(strstr(some, most == 100 ? "\nThese are 100 of 1700 steps, the longer"
                                       : "\nThese are 1000 of 1700 steps, the longer"));
    }
    /* Two steps cannot tell, and say so: by no less than what they are off. */
    for (int most = 1; most <= 2; most++) {
        const char *few = shellf(0, "cd $D && $H trace ladder runs/long --sample %d", most);
        const double told = number_behind(few, "goodput"),
                     off = number_behind(few, "goodput may be off by about");
        CHECK(fabs(told - all) <= off + 0.01 && off > 0.4);
        CHECK(strstr(few, "a larger --sample tells more"));
    }
    CHECK(!strstr(shell("cd $D && $H trace ladder runs/long --sample 0", 0), "may be off"));
    const char *page = shell("cd $D && grep -o '\"goodput\",\"value\":[0-9.]*' "
                             "runs/long/report.html", 0);
    CHECK_NEAR(number_behind(page, "value\":"),
               number_behind(shell("cd $D && $H trace ladder runs/long", 0), "goodput"), 5e-5);
    const char *steady = shell("cd $D && $H diagnose runs/long --steps 101-1700", 0);
    CHECK_NEAR(number_behind(steady, "goodput") / 100, all, 0.02 * all);
}

/* A rank that is slow in every fourth step, of 128, and 32 of these looked at. */
TEST(stragglers_of_some_steps_are_those_of_all)
{
    shell("cd $D && faults=$(for i in $(seq 1 4 128); do printf '%sslow_compute=3@1:%d' "
          "\"${comma}\" $i; comma=,; done) && timeout 100 $H train r.yaml --quiet --clock virtual "
          "--run.name=fourth --layout dp=4 --train.batch=4 --train.steps=128 "
          "--rates flops=1e9,memory=1e10 --inject $faults >/dev/null", 0);
    const char *text = shell("cd $D && $H trace stragglers runs/fourth --sample 0", 0);
    const double all = number_behind(text, "S   ");
    CHECK(all > 1.1 && !strstr(text, "These are"));
    text = shell("cd $D && $H trace stragglers runs/fourth --sample 32", 0);
    CHECK_NEAR(number_behind(text, "S   "), all, 0.03 * all);
    CHECK(strstr(text, "\nThese are 32 of 128 steps, the longer the likelier"));
}

TEST(a_page_of_a_step_that_there_is_not_is_refused)
{
    CHECK(strstr(shell("cd $D && $H report runs/one --step 5000 2>&1", 2),
                 "--step 5000: steps 1 to 6 are recorded"));
    shell("cd $D && $H report runs/one --step 6 2>&1", 0);
}

TEST(chrome_has_every_rank_and_only_the_steps_asked_for)
{
    shell("cd $D && $H trace export runs/two --to chrome --steps 3-4 --out c.json 2>&1", 0);
    json_t *o = load("c.json");
    CHECK_EQ(count(o, "name", "ProfilerStep#2"), 2); /* of both ranks */
    CHECK_EQ(count(o, "name", "ProfilerStep#3"), 2);
    CHECK_EQ(count(o, "name", "ProfilerStep#1"), 0);
    CHECK(count(o, "cat", "communication") > 0);
    json_decref(o);
}

TEST(hta_gets_a_file_per_rank_with_a_launch_for_every_kernel)
{
    shell("cd $D && $H trace export runs/two --to hta --out hta 2>&1", 0);
    for (int rank = 0; rank < 2; rank++) {
        char path[32];
        snprintf(path, sizeof path, "hta/rank-%d.json", rank);
        json_t *o = load(path);
        const json_t *info = json_object_get(o, "distributedInfo");
        CHECK_EQ(json_integer_value(json_object_get(info, "rank")), rank);
        CHECK(count(o, "cat", "kernel") > 100);
        CHECK_EQ(count(o, "cat", "kernel"), count(o, "cat", "cuda_runtime"));
        json_decref(o);
    }
    CHECK(strstr(shell("grep -c '^\"distributedInfo.*\"rank\": 1' $D/hta/rank-1.json", 0), "1"));
    shell("grep -q ncclKernel_all_reduce $D/hta/rank-0.json", 0);
}

/* The n-th number of a member, of an event's args where it has none itself. */
static double member(const json_t *event, const char *key)
{
    const json_t *x = json_object_get(event, key);
    x = x ? x : json_object_get(json_object_get(event, "args"), key);
    if (!json_is_number(x))
        fail_msg("no number %s in %s", key, json_dumps(event, 0));
    return json_number_value(x);
}

static bool is(const json_t *event, const char *key, const char *value)
{
    const char *x = json_string_value(json_object_get(event, key));
    return x && strcmp(x, value) == 0;
}

/* Whether some step of the rank has this time in it. */
static bool in_a_step(const json_t *events, double ts)
{
    const json_t *e;
    size_t i;
    json_array_foreach(events, i, e) {
        const char *name = json_string_value(json_object_get(e, "name"));
        if (is(e, "ph", "X") && name && strncmp(name, "ProfilerStep#", 13) == 0 &&
            member(e, "ts") <= ts && ts < member(e, "ts") + member(e, "dur"))
            return true;
    }
    return false;
}

/* What HTA 0.5 needs of a file: ph, cat, name, pid, tid, ts and dur; a kernel's stream and
 * correlation, and exactly one launch with that correlation, on the host, inside a step. */
TEST(each_event_has_what_hta_looks_for)
{
    enum { MOST = 1 << 16 };
    static i64 launches[MOST], kernels[MOST];
    const json_t *e;
    i64 first = 0;
    size_t i;
    json_t *o = load("hta/rank-0.json");
    const json_t *events = json_object_get(o, "traceEvents");
    CHECK_EQ(json_integer_value(json_object_get(o, "schemaVersion")), 1);
    CHECK(json_is_integer(json_object_get(o, "baseTimeNanoseconds")));
    memset(launches, 0, sizeof launches);
    memset(kernels, 0, sizeof kernels);
    json_array_foreach(events, i, e) {
        CHECK(json_is_string(json_object_get(e, "name")) && member(e, "pid") == 0);
        CHECK(member(e, "tid") >= 0);
        if (is(e, "ph", "M"))
            continue;
        CHECK(is(e, "ph", "X") && json_is_string(json_object_get(e, "cat")));
        CHECK(member(e, "ts") >= 0 && member(e, "dur") >= 0);
        CHECK(json_is_integer(json_object_get(e, "ts"))); /* others it cuts, inwards */
        CHECK(json_is_integer(json_object_get(e, "dur")));
        const bool kernel = is(e, "cat", "kernel"), launch = is(e, "cat", "cuda_runtime");
        if (!kernel && !launch)
            continue;
        /* HTA 0.5 puts numbers of events where correlations were: two bytes do not hold those. */
        const i64 id = (i64)member(e, "correlation") - INT16_MAX;
        CHECK(id > 0);
        first = first > 0 ? first : id;
        CHECK(id >= first && id - first < MOST);
        (kernel ? kernels : launches)[id - first]++;
        CHECK(!kernel || member(e, "stream") == member(e, "tid"));
        CHECK(!launch || in_a_step(events, member(e, "ts")));
    }
    for (i64 id = 0; id < MOST; id++)
        CHECK(launches[id] == kernels[id] && kernels[id] <= 1);
    json_decref(o);
}

static int by_value(const void *a, const void *b)
{
    const u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return (x > y) - (x < y);
}

/* Both ranks' parts in a call have the same number, which nothing else has. */
TEST(perfetto_joins_the_calls_of_a_group)
{
    static struct seen_trace seen;
    static u64 flows[SEEN_FLOWS];
    i64 joined = 0;
    shell("cd $D && $H trace export runs/two --out j.pftrace 2>&1", 0);
    FILE *f = fopen("trace-command/j.pftrace", "rb");
    CHECK(f);
    static u8 bytes[4 << 20];
    const i64 n = (i64)fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    CHECK(n > 0 && n < (i64)sizeof bytes);
    seen = (struct seen_trace){ .name = "ProfilerStep#3", .flow = flows };
    see_trace(&seen, bytes, n);
    CHECK_EQ(seen.named, 2);
    CHECK(seen.flows > 6 && seen.flows < SEEN_FLOWS);
    qsort(flows, (size_t)seen.flows, sizeof *flows, by_value);
    for (i64 i = 0; i + 1 < seen.flows; i += 2)
        joined += flows[i] == flows[i + 1] && (i + 2 == seen.flows || flows[i + 2] != flows[i]);
    CHECK_EQ(2 * joined, seen.flows);
}

TEST(perfetto_is_smaller)
{
    shell("cd $D && $H trace export runs/two --out p.pftrace 2>&1 && "
          "$H trace export runs/two --to chrome --out c.json 2>&1 && "
          "test $(stat -c %s p.pftrace) -lt $(($(stat -c %s c.json) / 2))", 0);
}

TEST(a_killed_run_gives_what_it_did_until_then)
{
    shell("cd $D && (timeout -s KILL 3 $H train r.yaml --run.name=killed --train.steps=1000000 "
          "--quiet >/dev/null 2>&1; true)", 0);
    const char *text = shell("cd $D && $H trace info runs/killed 2>&1", 0);
    CHECK(strstr(text, "steps recorded"));
    shell("cd $D && $H trace export runs/killed --to chrome --out k.json 2>&1", 0);
    json_decref(load("k.json"));
}

/* The spans of all steps, with their table of contents in order. */
static void damage_spans(const char *path)
{
    static u8 bytes[1 << 20];
    char full[256];
    snprintf(full, sizeof full, "%s/%s", getenv("D"), path);
    FILE *f = fopen(full, "r+b");
    CHECK(f);
    const i64 n = (i64)fread(bytes, 1, sizeof bytes, f);
    for (i64 at = 0; at + RECORD_CHUNK_BYTES <= n;) {
        struct record_chunk chunk;
        memcpy(&chunk, bytes + at, sizeof chunk);
        if (chunk.kind == RECORD_SPANS)
            bytes[at + RECORD_CHUNK_BYTES + (i64)chunk.bytes - 1] ^= 1;
        at += RECORD_CHUNK_BYTES + round_up((i64)chunk.bytes, 8);
    }
    rewind(f);
    CHECK_EQ(fwrite(bytes, 1, (size_t)n, f), n);
    fclose(f);
}

/* A rank's file is gone, or nothing but its beginning is there: what can be told is. */
TEST(what_is_left_of_a_record_is_split_and_the_rest_is_named)
{
    const char *text;
    shell("cd $D && rm -rf lost && cp -r runs/two lost && rm lost/trace/rank-1.*", 0);
    text = shell("cd $D && $H trace stragglers lost 2>&1", 0);
    CHECK(strstr(text, "There is no step of all ranks") && strstr(text, "\nrank 0 computes "));
    CHECK(strstr(text, "missing: 1 of 2 ranks have no file that can be read: 1"));
    CHECK(!strstr(text, "S_w") && !strstr(text, "rank 1 computes"));
    text = shell("cd $D && $H trace ladder lost 2>&1", 0);
    CHECK(strstr(text, "The critical path") && strstr(text, "missing: 1 of 2 ranks"));
    shell("cd $D && rm -rf short && cp -r runs/two short && rm -f short/trace/*kept* "
          "short/trace/*.toc && for k in 0 1; do f=short/trace/rank-$k.spans; "
          "truncate -s $(grep -abo SPAN $f | head -1 | cut -d: -f1) $f; done", 0);
    text = shell("cd $D && $H trace ladder short 2>&1", 0);
    CHECK(strstr(text, "no step whose time could be split") && strstr(text, "missing: no step"));
    text = shell("cd $D && $H trace stragglers short 2>&1", 0);
    CHECK(strstr(text, "There is no step of all ranks") && strstr(text, "missing: no step"));
    shell("cd $D && rm -rf hurt && cp -r runs/two hurt && rm -f hurt/trace/*kept*", 0);
    damage_spans("hurt/trace/rank-1.spans");
    text = shell("cd $D && $H trace stragglers hurt 2>&1", 0);
    CHECK(strstr(text, "missing: the spans of 6 of 6 steps"));
    CHECK(strstr(shell("cd $D && $H trace ladder lost --steps 70 2>&1", 2), "none of these steps"));
    CHECK(strstr(shell("cd $D && $H trace stragglers lost --steps 70 2>&1", 2),
                 "none of these steps"));
}

/* A folder that may not be entered is not an empty one. */
TEST(a_trace_that_may_not_be_read_is_told_so)
{
    const char *text = shell("cd $D && HEADWAY_FAULT=opendir:1:EACCES "
                             "$H trace info runs/two 2>&1", 2);
    CHECK(strstr(text, "open runs/two/trace: Permission denied"));
}

/* A small stack is made larger, or it is said that it may not be. */
TEST(a_small_stack_ends_nothing_in_its_midst)
{
    shell("cd $D && (ulimit -S -s 64; $H diagnose runs/two >/dev/null && "
          "$H report runs/two --out stack.html >/dev/null && timeout 100 $H train r.yaml "
          "--run.name=stack --ranks 2 --layout.dp=2 --quiet) 2>&1", 0);
    shell("cd $D && (ulimit -s 64; $H diagnose runs/two >/dev/null 2>stack.txt; c=$?; "
          "test $c = 0 || { test $c = 1 && grep -q 'stacks of 1024 KiB are needed' stack.txt; })",
          0);
}

TEST(a_record_whose_steps_cannot_be_read_is_no_export)
{
    shell("cd $D && cp -r runs/one runs/bad && echo mine >bad.json", 0);
    damage_spans("runs/bad/trace/rank-0.spans");
    CHECK(strstr(shell("cd $D && $H trace export runs/bad --to chrome --out bad.json 2>&1", 1),
                 "none of these 6 steps can be read: the spans of step 6 are damaged"));
    CHECK_STR(shell("cat $D/bad.json", 0), "mine\n");
}

TEST(an_export_that_finds_no_room_leaves_what_was_there)
{
    const char *text = shell("cd $D && echo before >no-room.json && (ulimit -f 8; $H trace export "
                             "runs/two --to chrome --out no-room.json 2>&1)", 1);
    CHECK(strstr(text, "no-room.json"));
    CHECK_STR(shell("cd $D && cat no-room.json && ls no-room.json*", 0), "before\nno-room.json\n");
    text = shell("cd $D && echo before >no-room.csv && (ulimit -f 0; $H energy runs/two "
                 "--codecarbon no-room.csv 2>&1)", 1);
    CHECK(strstr(text, "no-room.csv"));
    CHECK_STR(shell("cd $D && cat no-room.csv && ls no-room.csv*", 0), "before\nno-room.csv\n");
}

TEST(little_room_for_the_record_is_told)
{
    CHECK(strstr(shell("cd $D && timeout 100 $H train r.yaml --run.name=room --trace.disk=200KiB "
                       "2>&1", 0),
                 "trace.disk=204800 is less than this run's record needs and may be exceeded; "
                 "give 512KiB or more"));
    CHECK(!strstr(shell("cd $D && timeout 100 $H train r.yaml --run.name=more "
                        "--trace.disk=512KiB 2>&1", 0), "trace.disk"));
}

/* Only who asks for an evaluation, or expects one, is told that there is none. */
TEST(an_evaluation_of_nothing_is_told)
{
    const char *told = "nothing is held out for validation, so that eval.every=2 evaluates nothing";
    CHECK(strstr(shell("cd $D && timeout 100 $H train r.yaml --run.name=none --eval.every=2 2>&1",
                       0), told));
    shell("cd $D && timeout 100 $H train r.yaml --run.name=zero --eval.every=0 2>&1 | "
          "grep -q 'held out'", 1);
    shell("cd $D && timeout 100 $H train r.yaml --run.name=zero2 2>&1 | grep -q 'held out'", 1);
    shell("cd $D && timeout 100 $H train r.yaml --run.name=data2 --data.val_fraction=0.01 "
          "--data.sources=data 2>&1 | grep -q 'nothing is held out'", 0);
}

TEST(what_cannot_be_is_told)
{
    CHECK(strstr(shell("cd $D && $H trace export runs/one --steps 70-80 2>&1", 2),
                 "none of these steps is recorded"));
    CHECK(strstr(shell("cd $D && $H trace export runs/one --steps 5-3 2>&1", 2), "--steps 5-3"));
    CHECK(strstr(shell("cd $D && $H trace info . 2>&1", 2), "no run folder"));
    shell("cd $D && timeout 100 $H train r.yaml --run.name=off --trace.disk=0 --quiet", 0);
    CHECK(strstr(shell("cd $D && $H trace info runs/off 2>&1", 2),
                 "or trace.disk or trace.level was off"));
    shell("rm -rf $D", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(info_says_what_there_is), ONE(info_says_what_is_damaged),
        ONE(info_does_not_call_whole_what_lacks_something),
        ONE(the_ladder_and_the_path_are_printed),
        ONE(the_ladder_of_some_steps_is_that_of_all_on_the_page_too),
        ONE(stragglers_of_some_steps_are_those_of_all),
          ONE(a_page_of_a_step_that_there_is_not_is_refused),
        ONE(chrome_has_every_rank_and_only_the_steps_asked_for),
        ONE(hta_gets_a_file_per_rank_with_a_launch_for_every_kernel),
        ONE(each_event_has_what_hta_looks_for),
        ONE(perfetto_joins_the_calls_of_a_group), ONE(perfetto_is_smaller),
        ONE(a_killed_run_gives_what_it_did_until_then),
        ONE(what_is_left_of_a_record_is_split_and_the_rest_is_named),
        ONE(a_trace_that_may_not_be_read_is_told_so),
        ONE(a_small_stack_ends_nothing_in_its_midst),
        ONE(a_record_whose_steps_cannot_be_read_is_no_export),
        ONE(an_export_that_finds_no_room_leaves_what_was_there),
        ONE(little_room_for_the_record_is_told), ONE(an_evaluation_of_nothing_is_told),
        ONE(what_cannot_be_is_told) };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
