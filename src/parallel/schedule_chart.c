/* Pictures of a schedule (see schedule.h): a row per rank, time to the right. */
#include "parallel/schedule.h"

#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LABEL = 8, MOST_CELL = 4 };

static bool computes(const struct schedule_action *a)
{
    return a->op <= SCHEDULE_B;
}

/* Which of its rank's stages it is. */
static int chunk_of(const struct schedule *s, int stage)
{
    int chunk = 0;
    for (int t = 0; t < stage; t++)
        chunk += s->rank_of[t] == s->rank_of[stage];
    return chunk;
}

/* The shortest computing action: what one cell of the picture stands for. */
static double shortest(const struct schedule *s, const struct schedule_time *t)
{
    double least = INFINITY;
    for (int r = 0; r < s->ranks; r++)
        for (i64 i = 0; i < s->lists[r].n; i++)
            if (computes(&s->lists[r].actions[i]) && t->end[r][i] > t->begin[r][i])
                least = fmin(least, t->end[r][i] - t->begin[r][i]);
    return least;
}

/* "F12" where there is room; else its letter. Odd chunks have small letters. */
static void draw_action(char *row, i64 from, i64 to, const struct schedule_action *a, int chunk)
{
    char label[16], letter = "FIWB"[a->op];
    if (chunk % 2)
        letter = (char)(letter - 'A' + 'a');
    int n = snprintf(label, sizeof label, "%c%d", letter, a->micro_batch);
    if (to - from < n)
        n = 1;
    for (i64 i = from; i < to; i++)
        row[i] = i - from < n ? label[i - from] : '-';
}

void schedule_chart(const struct schedule *s, const struct schedule_time *t, int columns,
                    struct text *out)
{
    double cell = shortest(s, t);
    i64 room = columns - LABEL - 2;
    i64 wide = (i64)fmax(1, fmin(MOST_CELL, floor((double)room / (t->length / cell))));
    double scale = fmin((double)wide / cell, (double)room / t->length); /* characters per time */
    i64 width = (i64)llround(t->length * scale);
    struct arena scratch;
    arena_init(&scratch);
    char *row = ARENA_ARRAY(&scratch, char, width + 1);
    for (int r = 0; r < s->ranks; r++) {
        memset(row, '.', (size_t)width);
        for (i64 i = 0; i < s->lists[r].n; i++) {
            const struct schedule_action *a = &s->lists[r].actions[i];
            if (computes(a))
                draw_action(row, llround(t->begin[r][i] * scale), llround(t->end[r][i] * scale),
                            a, chunk_of(s, a->stage));
        }
        text_printf(out, "rank %-3d|%s|\n", r, row);
    }
    arena_fini(&scratch);
}

/* --- SVG ---------------------------------------------------------------------------- */

enum { ROW = 28, BAR = 22, LEFT = 70, TOP = 44, CELL = 26, LEGEND = 30 };

/* One hue per kind; later chunks are lighter. */
static const struct { int hue, saturation, light; } colours[] = {
    [SCHEDULE_F] = { 212, 70, 52 }, [SCHEDULE_I] = { 28, 85, 52 }, [SCHEDULE_W] = { 145, 45, 45 },
    [SCHEDULE_B] = { 28, 85, 46 },
};

static void put_fill(struct text *out, enum schedule_op op, int chunk)
{
    text_printf(out, "hsl(%d,%d%%,%d%%)", colours[op].hue, colours[op].saturation,
                (int)i64_min(84, colours[op].light + 12 * chunk));
}

static void put_bar(struct text *out, const struct schedule_action *a, int chunk, double x,
                    double y, double width)
{
    char cell[SCHEDULE_CELL];
    schedule_cell(a, cell);
    text_printf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%d\" fill=\"", x, y,
                width, BAR);
    put_fill(out, a->op, chunk);
    text_printf(out, "\" stroke=\"#fff\"><title>%s</title></rect>\n", cell);
    if (width >= 14)
        text_printf(out, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"middle\" fill=\"#fff\">%d"
                    "</text>\n", x + width / 2, y + 0.68 * BAR, a->micro_batch);
}

static void put_legend(const struct schedule *s, struct text *out, double y)
{
    static const char *const names[] = { "forward", "input gradient", "weight gradient",
                                         "backward" };
    bool splits = schedule_splits(s);
    double x = LEFT;
    for (int op = 0; op <= SCHEDULE_B; op++) {
        if ((op == SCHEDULE_B) == splits && op != SCHEDULE_F)
            continue;
        text_printf(out, "<rect x=\"%.0f\" y=\"%.0f\" width=\"12\" height=\"12\" fill=\"", x, y);
        put_fill(out, (enum schedule_op)op, 0);
        text_printf(out, "\"/><text x=\"%.0f\" y=\"%.0f\">%s</text>\n", x + 18, y + 10,
                    names[op]);
        x += 140;
    }
}

void schedule_chart_svg(const struct schedule *s, const struct schedule_time *t,
                        const char *title, struct text *out)
{
    double scale = fmin(CELL / shortest(s, t), 4000 / t->length);
    double width = LEFT + t->length * scale + 20, height = TOP + ROW * s->ranks + LEGEND;
    text_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
                "viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"12\">\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
                "<text x=\"12\" y=\"24\" font-size=\"15\">", width, height, width, height);
    for (const char *c = title; *c; c++)
        text_printf(out, *c == '<' ? "&lt;" : *c == '&' ? "&amp;" : "%c", *c);
    text_add(out, "</text>\n");
    for (int r = 0; r < s->ranks; r++) {
        double y = TOP + ROW * r;
        text_printf(out, "<text x=\"12\" y=\"%.2f\">rank %d</text>\n"
                    "<rect x=\"%d\" y=\"%.2f\" width=\"%.2f\" height=\"%d\" fill=\"#eee\"/>\n",
                    y + 0.68 * BAR, r, LEFT, y, t->length * scale, BAR);
        for (i64 i = 0; i < s->lists[r].n; i++) {
            const struct schedule_action *a = &s->lists[r].actions[i];
            if (computes(a))
                put_bar(out, a, chunk_of(s, a->stage), LEFT + t->begin[r][i] * scale, y,
                        (t->end[r][i] - t->begin[r][i]) * scale);
        }
    }
    put_legend(s, out, TOP + ROW * s->ranks + 8);
    text_add(out, "</svg>\n");
}
