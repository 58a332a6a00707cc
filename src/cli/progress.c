#include "cli/progress.h"

#include "base/sys.h"

#include <string.h>

static const u64 SECOND = 1000000000u;

void progress_begin(struct progress *p, struct terminal *t, const char *label)
{
    u64 now = sys_now_ns();
    *p = (struct progress){
        .terminal = t, .label = label, .begin_ns = now, .next_ns = now,
        .begin_fraction = -1,
    };
    p->interval_ns = terminal_has_status(t) ? SECOND / 10 : SECOND;
}

bool progress_due(struct progress *p, u64 now_ns)
{
    if (now_ns < p->next_ns)
        return false;
    p->next_ns = now_ns + p->interval_ns;
    if (!terminal_has_status(p->terminal) && p->interval_ns < 60 * SECOND)
        p->interval_ns =
            p->interval_ns * 2 > 60 * SECOND ? 60 * SECOND : p->interval_ns * 2;
    return true;
}

void progress_format_time(double seconds, char *out, size_t size)
{
    i64 s = (i64)(seconds + 0.5), days = s / 86400;
    int h = (int)(s / 3600 % 24), m = (int)(s / 60 % 60), rest = (int)(s % 60);
    if (days)
        snprintf(out, size, "%lldd %02d:%02d:%02d", (long long)days, h, m, rest);
    else if (h)
        snprintf(out, size, "%d:%02d:%02d", h, m, rest);
    else
        snprintf(out, size, "%d:%02d", m, rest);
}

static void format_bar(double fraction, char *out, int width)
{
    int full = (int)(fraction * width + 0.5);
    memset(out, '-', (size_t)width);
    memset(out, '=', (size_t)full);
    out[width] = '\0';
}

void progress_format(const struct progress *p, double fraction, const char *detail,
                     double elapsed_s, char *out, size_t size)
{
    enum { BAR = 20 };
    char bar[BAR + 1], left[32] = "";
    fraction = fraction > 1 ? 1 : fraction;
    /* Before 1 % or a second, an estimate would only jump about. */
    double done = fraction - p->begin_fraction;
    if (fraction > 0 && done > 0 && (done >= 0.01 || elapsed_s >= 1)) {
        progress_format_time(elapsed_s * (1 - fraction) / done, left, sizeof left);
        strncat(left, " left", sizeof left - strlen(left) - 1);
    } else {
        progress_format_time(elapsed_s, left, sizeof left);
    }
    if (fraction < 0) {
        snprintf(out, size, "%s  %s  %s", p->label, detail, left);
        return;
    }
    format_bar(fraction, bar, BAR);
    if (p->terminal->is_tty && p->terminal->width >= 80)
        snprintf(out, size, "%s [%s] %3.0f %%  %s  %s", p->label, bar, 100 * fraction,
                 left, detail);
    else
        snprintf(out, size, "%s %3.0f %%  %s  %s", p->label, 100 * fraction, left,
                 detail);
}

/* What two spaces part goes as a whole where there is no room for it. */
static void fit(char *line, int width)
{
    char *end = NULL;
    if (width <= 0 || (int)strlen(line) <= width)
        return;
    for (char *at = strstr(line, "  "); at && at - line <= width; at = strstr(at + 2, "  "))
        end = at;
    if (end && end > line)
        *end = '\0';
}

void progress_show(struct progress *p, double fraction, const char *detail, u64 now_ns)
{
    char line[512];
    if (p->terminal->is_tty)
        terminal_measure(p->terminal);
    progress_format(p, fraction, detail, 1e-9 * (double)(now_ns - p->begin_ns), line,
                    sizeof line);
    if (terminal_has_status(p->terminal)) {
        fit(line, p->terminal->width - 1);
        terminal_status(p->terminal, line);
        return;
    }
    terminal_status(p->terminal, NULL);
    terminal_line(p->terminal, line);
}

void progress_update(struct progress *p, double fraction, const char *detail)
{
    u64 now = sys_now_ns();
    if (p->begin_fraction < 0)
        p->begin_fraction = fraction > 0 ? fraction : 0;
    if (!p->terminal->quiet && progress_due(p, now))
        progress_show(p, fraction, detail, now);
}

void progress_end(struct progress *p, const char *detail)
{
    char line[512], taken[32];
    if (p->terminal->quiet)
        return;
    progress_format_time(1e-9 * (double)(sys_now_ns() - p->begin_ns), taken,
                         sizeof taken);
    snprintf(line, sizeof line, "%s  %s  in %s", p->label, detail, taken);
    terminal_status(p->terminal, NULL);
    terminal_line(p->terminal, line);
}
