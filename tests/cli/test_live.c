#include "cli/program.h"
#include "test.h"

#include "cli/live.h"
#include "cli/live_diagnosis.h"

#include <math.h>

static struct terminal terminal = { .is_tty = true, .width = 100, .height = 24 };
static struct progress progress = { .terminal = &terminal, .label = "train" };

static struct live begin(void)
{
    struct live l;
    progress.begin_fraction = 0;
    live_begin(&l, &progress);
    l.utf8 = true;
    for (int i = 0; i < 64; i++) {
        series_add(&l.loss, i, 64 - i);
        series_add(&l.speed, i, 100 + i % 2);
    }
    l.last = (struct train_status){ .step = 50, .steps = 100, .fraction = 0.5, .loss = 3.25,
                                    .val_loss = 3.5, .joules_per_token = 0.00044,
                                    .tokens_per_s = 1234, .mfu = 0.5, .divergence = NAN };
    return l;
}

static int columns(const char *line)
{
    int n = 0;
    for (; *line && *line != '\n'; line++)
        n += ((u8)*line & 0xc0) != 0x80;
    return n;
}

TEST(a_run_is_five_lines)
{
    struct live l = begin();
    struct text out = { 0 };
    l.utf8 = false;
    l.diagnosis = (struct live_diagnosis){ .compute = 0.7, .wait = 0.1, .data = 0.1, .host = 0.05,
                                           .finding = "slow loader (D1), rank 1" };
    live_format(&l, 99, 30, &out);
    CHECK_STR(out.data, "train    [============------------]  50 %  step 50/100  0:30 left\n"
                        "loss     3.2500   ######******++++++======------,,,,,,......______  "
                        "held-out 3.5000\n"
                        "speed    1234 tokens/s  _#-_#-_#-_#-_#-_#-_#-_#-_#-_#-_#-_#-_#-_#-_#-_#-  "
                        "0.00044 J/token\n"
                        "peak      50 % [####################kkkkkkkwwwwddddhh..]  "
                        "# model k kernels w waiting d data h host\n"
                        "finding  slow loader (D1), rank 1");
    text_fini(&out);
    live_fini(&l);
}

/* Whatever the width, and whatever a finding says. */
TEST(no_line_is_wider_than_the_terminal)
{
    struct live l = begin();
    memset(l.diagnosis.finding, 'x', sizeof l.diagnosis.finding - 1);
    l.diagnosis.compute = 0.9;
    l.last.step = l.last.steps = 1234567890123;
    for (int width = 20; width < 200; width++) {
        struct text out = { 0 };
        live_format(&l, width, 1e7, &out);
        int lines = 0;
        for (const char *line = out.data; line; line = strchr(line, '\n'), line += line != NULL) {
            if (columns(line) > width)
                fail_msg("%d columns, of %d: %s", columns(line), width, line);
            lines++;
        }
        CHECK_EQ(lines, 5);
        text_fini(&out);
    }
    live_fini(&l);
}

TEST(what_is_not_known_yet_has_no_line)
{
    struct live l = begin();
    struct text out = { 0 };
    l.last = (struct train_status){ .val_loss = NAN, .divergence = NAN };
    live_format(&l, 80, 0, &out);
    CHECK_STR(out.data, "train    [------------------------]   0 %  step 0  0:00 so far");
    text_fini(&out);
    live_fini(&l);
}

TEST(a_step_without_a_loss_shows_none)
{
    struct live l = begin();
    struct text out = { 0 };
    l.last.loss = NAN;
    live_format(&l, 80, 0, &out);
    CHECK(strstr(out.data, "\nloss     -  ") && !strstr(out.data, "nan"));
    text_fini(&out);
    live_fini(&l);
}

TEST(a_curve_falls_from_the_highest_block_to_the_lowest)
{
    struct live l = begin();
    struct text out = { 0 };
    live_curve(&l.loss, 8, true, &out);
    CHECK_STR(out.data, "█▇▆▅▄▃▂▁");
    text_clear(&out);
    live_curve(&l.loss, 0, true, &out);
    CHECK_EQ(out.length, 0);
    text_fini(&out);
    live_fini(&l);
}

/* As the diagnosis says beside its findings, for which there is no room here. */
TEST(a_run_of_few_steps_has_no_finding_yet)
{
    struct live_diagnosis few, many;
    setenv("D", "live", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {batch: 4, seq: 64, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\neval: {every: 0}\ncheckpoint: {interval: 0}\nX\n"
          "for n in 6 30; do timeout 100 $H train r.yaml --quiet --clock virtual --layout dp=2 "
          "--inject slow_compute=1.6@1 --train.steps=$n --run.name=$n >/dev/null || exit 1; done",
          0);
    CHECK(live_judge("live/runs/6", &few));
    CHECK_STR(few.finding, "none yet: 3 steady steps, 20 are wanted");
    CHECK(few.compute > 0.5);
    CHECK(live_judge("live/runs/30", &many));
    CHECK(strstr(many.finding, "(B1), rank 1: gives back"));
    CHECK(!live_judge("live/runs/7", &many));
    shell("rm -rf $D", 0);
}

TEST(a_small_terminal_has_no_room)
{
    struct terminal t = { .is_tty = true, .width = 60, .height = 12 };
    CHECK(live_fits(&t));
    t.width = 59;
    CHECK(!live_fits(&t));
    t = (struct terminal){ .is_tty = true, .width = 60, .height = 11 };
    CHECK(!live_fits(&t));
    t = (struct terminal){ .is_tty = false, .width = 200, .height = 80 };
    CHECK(!live_fits(&t));
}

TEST_MAIN(ONE(a_run_is_five_lines), ONE(no_line_is_wider_than_the_terminal),
          ONE(what_is_not_known_yet_has_no_line), ONE(a_step_without_a_loss_shows_none),
          ONE(a_curve_falls_from_the_highest_block_to_the_lowest),
          ONE(a_run_of_few_steps_has_no_finding_yet),
          ONE(a_small_terminal_has_no_room))
