#include "cli/live.h"

#include "base/sys.h"
#include "machine/units.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LEAST_COLUMNS = 60, LEAST_ROWS = 12, CURVE_POINTS = 256, NAME = 9 };

bool live_fits(const struct terminal *t)
{
    return t->is_tty && t->width >= LEAST_COLUMNS && t->height >= LEAST_ROWS;
}

/* As the C library would decide, without changing the process's locale. */
static bool locale_is_utf8(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        const char *value = sys_getenv(names[i]);
        if (value && *value)
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

void live_begin(struct live *l, struct progress *p)
{
    *l = (struct live){ .progress = p, .utf8 = locale_is_utf8() };
    series_init(&l->loss, "loss", CURVE_POINTS);
    series_init(&l->speed, "speed", CURVE_POINTS);
}

void live_fini(struct live *l)
{
    series_fini(&l->loss);
    series_fini(&l->speed);
}

void live_update(struct live *l, const struct train_status *s, const char *plain)
{
    struct text lines = { 0 };
    if (s->step > l->last.step || s->step < l->last.step) {
        series_add(&l->loss, (double)s->step, s->loss);
        if (s->tokens_per_s > 0)
            series_add(&l->speed, (double)s->step, s->tokens_per_s);
    }
    l->last = *s;
    struct progress *p = l->progress;
    if (p->begin_fraction < 0)
        p->begin_fraction = s->fraction > 0 ? s->fraction : 0;
    u64 now = sys_now_ns();
    if (p->terminal->quiet || !progress_due(p, now))
        return;
    terminal_measure(p->terminal);
    if (!live_fits(p->terminal)) {
        progress_show(p, s->fraction, plain, now);
        return;
    }
    live_format(l, p->terminal->width - 1, 1e-9 * (double)(now - p->begin_ns), &lines);
    terminal_status(p->terminal, lines.data);
    text_fini(&lines);
}

/* --- parts of lines ----------------------------------------------------------------- */

static int columns_of(const char *text, i64 bytes)
{
    int n = 0;
    for (i64 i = 0; i < bytes; i++)
        n += ((u8)text[i] & 0xc0) != 0x80;
    return n;
}

/* Cuts what was added since `from` to so many columns. */
static void cut(struct text *out, i64 from, int width)
{
    i64 end = from;
    for (int n = 0; end < out->length; end++) {
        n += ((u8)out->data[end] & 0xc0) != 0x80;
        if (n > width)
            break;
    }
    out->data[end] = '\0';
    out->length = end;
}

void live_curve(const struct series *s, int columns, bool utf8, struct text *out)
{
    static const char *const blocks[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    static const char *const plain[] = { "_", ".", ",", "-", "=", "+", "*", "#" };
    double least = INFINITY, most = -INFINITY, at[512];
    int n = (int)i64_min(i64_min(columns, s->n), COUNT_OF(at));
    for (int c = 0; c < n; c++) { /* mean of the points that fall into a column */
        i64 first = c * s->n / n, end = (c + 1) * s->n / n;
        double sum = 0;
        for (i64 i = first; i < end; i++)
            sum += series_mean(&s->points[i]);
        at[c] = sum / (double)(end - first);
        least = fmin(least, at[c]);
        most = fmax(most, at[c]);
    }
    for (int c = 0; c < n; c++) {
        int level = most > least ? (int)(7.999 * (at[c] - least) / (most - least)) : 3;
        text_add(out, utf8 ? blocks[level] : plain[level]);
    }
}

static void begin_line(struct text *out, const char *name)
{
    text_printf(out, "%s%-*s", out->length ? "\n" : "", NAME, name);
}

/* --- lines -------------------------------------------------------------------------- */

static void put_progress(const struct live *l, int width, double elapsed_s, struct text *out)
{
    enum { MOST = 24, WORDS = 47 };
    char bar[MOST + 1], left[32];
    const struct train_status *s = &l->last;
    int size = width - WORDS < 6 ? 6 : width - WORDS > MOST ? MOST : width - WORDS;
    double fraction = fmax(0, fmin(1, s->fraction)), done = fraction - l->progress->begin_fraction;
    memset(bar, '-', (size_t)size);
    memset(bar, '=', (size_t)(fraction * size + 0.5));
    bar[size] = '\0';
    begin_line(out, l->progress->label);
    text_printf(out, "[%s] %3.0f %%  step %lld", bar, 100 * fraction, (long long)s->step);
    if (s->steps > 0)
        text_printf(out, "/%lld", (long long)s->steps);
    bool known = done > 0 && (done >= 0.01 || elapsed_s >= 1); /* before that it jumps about */
    progress_format_time(known ? elapsed_s * (1 - fraction) / done : elapsed_s, left, sizeof left);
    text_printf(out, "  %s %s", left, known ? "left" : "so far");
}

/* What stands behind the curve is never cut: the curve gives way. */
static void put_curve(const struct live *l, const struct series *s, const char *behind, i64 from,
                      int width, struct text *out)
{
    int used = columns_of(out->data + from, out->length - from);
    int room = width - used - columns_of(behind, (i64)strlen(behind)) - 2;
    if (room >= 4) {
        live_curve(s, room < 48 ? room : 48, l->utf8, out);
        text_add(out, "  ");
    }
    text_add(out, behind);
}

static void put_loss(const struct live *l, int width, struct text *out)
{
    char behind[96] = "";
    i64 from = out->length + (out->length > 0);
    begin_line(out, "loss");
    if (isnan(l->last.loss))
        text_printf(out, "%-8s ", "-");
    else
        text_printf(out, "%-8.4f ", l->last.loss);
    if (!isnan(l->last.val_loss))
        snprintf(behind, sizeof behind, "held-out %.4f", l->last.val_loss);
    if (!isnan(l->last.divergence))
        snprintf(behind + strlen(behind), sizeof behind - strlen(behind), "  islands %.2g apart",
                 l->last.divergence);
    put_curve(l, &l->loss, behind, from, width, out);
}

static void put_speed(const struct live *l, int width, struct text *out)
{
    char behind[96] = "", energy[64];
    i64 from = out->length + (out->length > 0);
    begin_line(out, "speed");
    text_printf(out, "%.0f tokens/s  ", l->last.tokens_per_s);
    if (l->last.joules_per_token > 0) {
        unit_text(l->last.joules_per_token, false, energy, sizeof energy);
        snprintf(behind, sizeof behind, "%s/token", energy);
    }
    put_curve(l, &l->speed, behind, from, width, out);
}

/* The peak divided: into the model's arithmetic and what the rest of the time went to. */
static void put_peak(const struct live *l, int width, struct text *out)
{
    static const char letters[] = "#kwdh.";
    const struct live_diagnosis *d = &l->diagnosis;
    double mfu = fmax(0, fmin(1, l->last.mfu));
    double known = d->compute + d->wait + d->data + d->host;
    double share[] = { mfu, fmax(0, d->compute - mfu), d->wait, d->data, d->host, 0 };
    const char *legend = known > 0 ? "# model k kernels w waiting d data h host" : "# model";
    enum { AROUND = 10, LEAST_BAR = 10 }; /* " 55 % [" "]  " */
    bool both = width - NAME - AROUND - (int)strlen(legend) >= LEAST_BAR;
    int room = width - NAME - AROUND - (both ? (int)strlen(legend) : 0), at = 0;
    double sum = 0;
    begin_line(out, "peak");
    text_printf(out, "%3.0f %% ", 100 * mfu);
    text_add(out, "[");
    for (int k = 0; k < 6; k++) {
        sum += share[k];
        int end = k == 5 ? room : (int)(fmin(1, sum) * room + 0.5);
        text_repeat(out, letters[k], i64_max(0, end - at));
        at = at > end ? at : end;
    }
    text_printf(out, "]  %s", both ? legend : "");
}

void live_format(const struct live *l, int width, double elapsed_s, struct text *out)
{
    i64 from = out->length;
    put_progress(l, width, elapsed_s, out);
    cut(out, from, width);
    if (l->last.tokens_per_s > 0) {
        from = out->length + 1;
        put_loss(l, width, out);
        cut(out, from, width);
        from = out->length + 1;
        put_speed(l, width, out);
        cut(out, from, width);
    }
    if (l->last.mfu > 0) {
        from = out->length + 1;
        put_peak(l, width, out);
        cut(out, from, width);
    }
    if (*l->diagnosis.finding) {
        from = out->length + 1;
        begin_line(out, "finding");
        text_add(out, l->diagnosis.finding);
        cut(out, from, width);
    }
}
