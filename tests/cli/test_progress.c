#include "test.h"

#include "cli/progress.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const u64 SECOND = 1000000000u;

TEST(times_are_written_as_people_read_them)
{
    static const struct { double seconds; const char *text; } cases[] = {
        { 0, "0:00" }, { 7.4, "0:07" }, { 59.6, "1:00" }, { 754, "12:34" },
        { 10800, "3:00:00" }, { 439200, "5d 02:00:00" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        char text[32];
        progress_format_time(cases[i].seconds, text, sizeof text);
        CHECK_STR(text, cases[i].text);
    }
}

TEST(a_terminal_on_which_nothing_moves_is_none)
{
    static const struct { const char *term; bool is_tty; } cases[] = {
        { "xterm-256color", true }, { "dumb", false } };
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0);
    FILE *out = fopen(ptsname(fd), "w");
    CHECK(out);
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct terminal t;
        setenv("TERM", cases[i].term, 1);
        terminal_init(&t, out);
        CHECK_EQ(t.is_tty, cases[i].is_tty);
        terminal_fini(&t);
    }
    fclose(out);
    close(fd);
}

/* What was written so far to a terminal of this size. */
static const char *shown(int columns, int rows, void (*fn)(struct terminal *t))
{
    static char text[4096];
    int fd = posix_openpt(O_RDWR | O_NOCTTY), used = 0;
    CHECK(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0);
    FILE *out = fopen(ptsname(fd), "w");
    const struct winsize size = { .ws_col = (unsigned short)columns,
                                  .ws_row = (unsigned short)rows };
    CHECK(out && ioctl(fd, TIOCSWINSZ, &size) == 0);
    struct terminal t;
    setenv("TERM", "xterm", 1);
    terminal_init(&t, out);
    fn(&t);
    terminal_fini(&t);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (ssize_t n; (n = read(fd, text + used, sizeof text - 1 - (size_t)used)) > 0;)
        used += (int)n;
    text[used] = '\0';
    fclose(out);
    close(fd);
    return text;
}

static void show_two(struct terminal *t)
{
    struct progress p;
    progress_begin(&p, t, "train");
    progress_update(&p, 0.5, "loss 4.2");
    terminal_log(t, LOG_INFO, "saved");
    progress_end(&p, "loss 4.1");
}

TEST(a_tiny_terminal_gets_plain_lines)
{
    CHECK_STR(shown(8, 3, show_two),
              "train  50 %  0:00  loss 4.2\r\nsaved\r\ntrain  loss 4.1  in 0:00\r\n");
    CHECK(strchr(shown(40, 3, show_two), '\033')); /* there a line is rewritten */
    CHECK(strchr(shown(0, 0, show_two), '\033')); /* of unknown size */
}

static void show_much(struct terminal *t)
{
    struct progress p;
    progress_begin(&p, t, "train");
    progress_update(&p, 0.5, "step 22/30  loss 4.2  3412 tokens/s");
}

TEST(a_narrow_terminal_gets_whole_words)
{
    CHECK(strstr(shown(50, 24, show_much), "0:00  step 22/30  loss 4.2\r"));
    CHECK(strstr(shown(37, 24, show_much), "train  50 %  0:00  step 22/30\r"));
    CHECK(strstr(shown(24, 24, show_much), "train  50 %  0:00\r"));
}

static void shrink(struct terminal *t)
{
    terminal_status(t, "0123456789");
    t->width = 8;
    terminal_status(t, "still there?");
    terminal_line(t, "a line");
}

TEST(a_status_goes_when_its_terminal_becomes_tiny)
{
    CHECK_STR(shown(80, 24, shrink), "0123456789\r\033[1A\033[Ja line\r\n");
}

TEST(a_terminal_gets_a_bar_and_a_file_gets_words)
{
    struct terminal t = { .is_tty = true, .width = 100 };
    struct progress p = { .terminal = &t, .label = "train" };
    char line[256];
    progress_format(&p, 0.25, "loss 4.2", 30, line, sizeof line);
    CHECK_STR(line, "train [=====---------------]  25 %  1:30 left  loss 4.2");
    progress_format(&p, 1.5, "", 30, line, sizeof line);
    CHECK_STR(line, "train [====================] 100 %  0:00 left  ");
    t.is_tty = false;
    progress_format(&p, 0.25, "loss 4.2", 30, line, sizeof line);
    CHECK_STR(line, "train  25 %  1:30 left  loss 4.2");
    progress_format(&p, -1, "3 files", 65, line, sizeof line);
    CHECK_STR(line, "train  3 files  1:05");
    progress_format(&p, 0, "", 5, line, sizeof line); /* no estimate from nothing */
    CHECK_STR(line, "train   0 %  0:05  ");
}

/* Half of what is left was done in 30 s: as long again. */
TEST(the_time_left_counts_from_where_a_resumed_run_began)
{
    struct terminal t = { .is_tty = false };
    struct progress p = { .terminal = &t, .label = "train", .begin_fraction = 0.8 };
    char line[256];
    progress_format(&p, 0.9, "", 30, line, sizeof line);
    CHECK_STR(line, "train  90 %  0:30 left  ");
    progress_format(&p, 0.8, "", 5, line, sizeof line);
    CHECK_STR(line, "train  80 %  0:05  ");
}

TEST(a_file_gets_fewer_lines_as_time_goes_on)
{
    struct terminal t = { .is_tty = false };
    struct progress p = { .terminal = &t, .interval_ns = SECOND };
    int lines_first_minute = 0, lines_second_hour = 0;
    for (u64 s = 0; s < 7200; s++) {
        bool due = progress_due(&p, s * SECOND);
        lines_first_minute += due && s < 60;
        lines_second_hour += due && s >= 3600;
    }
    CHECK_EQ(lines_first_minute, 6); /* at 0, 1, 3, 7, 15, 31 s */
    CHECK_EQ(lines_second_hour, 60);
}

TEST(a_log_line_never_cuts_the_status_line)
{
    struct terminal t;
    char *written;
    size_t bytes;
    FILE *out = open_memstream(&written, &bytes);
    terminal_init(&t, out);
    CHECK(!t.is_tty && t.width == 80);
    t.is_tty = true; /* as if */
    terminal_status(&t, "train 1 %");
    terminal_log(&t, LOG_WARN, "disk\x1b nearly full");
    terminal_status(&t, "train 2 %");
    terminal_fini(&t);
    fclose(out);
    CHECK_STR(written, "train 1 %\r\033[Kwarning: disk? nearly full\ntrain 1 %"
                       "\r\033[Ktrain 2 %\r\033[K");
    free(written);
}

TEST(a_status_line_is_cut_to_the_width)
{
    struct terminal t;
    char *written;
    size_t bytes;
    FILE *out = open_memstream(&written, &bytes);
    terminal_init(&t, out);
    t.is_tty = true;
    t.width = 20;
    terminal_status(&t, "0123456789abcdefghijk");
    terminal_status(&t, "éééééééééééééééééééééé");
    fclose(out);
    CHECK_STR(written, "0123456789abcdefghi\r\033[Kééééééééééééééééééé");
    free(written);
    pthread_mutex_destroy(&t.lock);
}

TEST(several_lines_are_replaced_as_one_and_log_lines_pass_above)
{
    struct terminal t;
    char *written;
    size_t bytes;
    FILE *out = open_memstream(&written, &bytes);
    terminal_init(&t, out);
    t.is_tty = true;
    t.width = 40;
    terminal_status(&t, "one\ntwo\n0123456789012345678901234");
    terminal_line(&t, "a line");
    t.width = 20; /* narrower: the digits take two rows now */
    terminal_status(&t, "1\n2\x1b");
    terminal_fini(&t);
    fclose(out);
    CHECK_STR(written, "one\ntwo\n0123456789012345678901234\r\033[2A\033[Ja line\n"
                       "one\ntwo\n0123456789012345678901234"
                       "\r\033[3A\033[J1\n2?\r\033[1A\033[J");
    free(written);
}

TEST_MAIN(ONE(several_lines_are_replaced_as_one_and_log_lines_pass_above),
          ONE(times_are_written_as_people_read_them),
          ONE(a_terminal_on_which_nothing_moves_is_none),
          ONE(a_tiny_terminal_gets_plain_lines), ONE(a_narrow_terminal_gets_whole_words),
          ONE(a_status_goes_when_its_terminal_becomes_tiny),
          ONE(a_terminal_gets_a_bar_and_a_file_gets_words),
          ONE(the_time_left_counts_from_where_a_resumed_run_began),
          ONE(a_file_gets_fewer_lines_as_time_goes_on),
          ONE(a_log_line_never_cuts_the_status_line), ONE(a_status_line_is_cut_to_the_width))
