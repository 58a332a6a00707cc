/* Schedules as text (see schedule.h). */
#include "parallel/schedule.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const op_names[SCHEDULE_OPS] = { "F", "I", "W", "B", "SEND_F", "RECV_F",
                                                    "SEND_B", "RECV_B" };

void schedule_cell(const struct schedule_action *a, char out[SCHEDULE_CELL])
{
    snprintf(out, SCHEDULE_CELL, "%d%s%d", a->stage,
             (unsigned)a->op < SCHEDULE_OPS ? op_names[a->op] : "?", a->micro_batch);
}

void schedule_write_csv(const struct schedule *s, struct text *out)
{
    for (int r = 0; r < s->ranks; r++) {
        for (i64 i = 0; i < s->lists[r].n; i++) {
            char cell[SCHEDULE_CELL];
            schedule_cell(&s->lists[r].actions[i], cell);
            text_printf(out, "%s%s", i ? "," : "", cell);
        }
        text_add(out, "\n");
    }
}

/* --- reading ------------------------------------------------------------------------ */

struct reader {
    const char *where;
    int line;
    const char *at;
};

static int wrong_cell(const struct reader *r, const char *cell, i64 length)
{
    char shown[41]; /* what a terminal would obey is not shown */
    length = i64_min(length, (i64)sizeof shown - 1);
    for (i64 i = 0; i < length; i++)
        shown[i] = cell[i] >= ' ' && cell[i] <= '~' ? cell[i] : '?';
    shown[length] = '\0';
    return err_set(ERR_CONFIG, "%s:%d: '%s' is no action; they look like 0F3: stage, one of F, "
                   "I, W, B, SEND_F, RECV_F, SEND_B or RECV_B, and micro-batch", r->where,
                   r->line, shown);
}

/* A number below the limit, or -1. */
static int read_number(const char **at, const char *end, int limit)
{
    i64 n = 0;
    if (*at == end || !isdigit((unsigned char)**at))
        return -1;
    for (; *at < end && isdigit((unsigned char)**at); (*at)++) {
        n = 10 * n + (**at - '0');
        if (n >= limit)
            return -1;
    }
    return (int)n;
}

static int read_cell(const struct reader *r, const char *cell, const char *end,
                     struct schedule_action *out)
{
    const char *at = cell;
    out->stage = read_number(&at, end, SCHEDULE_MOST_STAGES);
    const char *op = at;
    while (at < end && (isupper((unsigned char)*at) || *at == '_'))
        at++;
    int k = 0;
    while (k < SCHEDULE_OPS && !((i64)strlen(op_names[k]) == at - op &&
                                 memcmp(op_names[k], op, (size_t)(at - op)) == 0))
        k++;
    out->op = (enum schedule_op)k;
    out->micro_batch = read_number(&at, end, SCHEDULE_MOST_BATCHES);
    if (out->stage < 0 || k == SCHEDULE_OPS || out->micro_batch < 0 || at != end)
        return wrong_cell(r, cell, end - cell);
    return OK;
}

static const char *line_end(const char *at)
{
    return at + strcspn(at, "\n");
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next cell of the line that is not empty; false at its end. */
static bool next_cell(const char **at, const char *end, const char **cell, const char **cell_end)
{
    while (*at < end) {
        *cell = *at;
        while (*at < end && **at != ',')
            (*at)++;
        *cell_end = *at;
        *at += *at < end;
        while (*cell < *cell_end && is_blank(**cell))
            (*cell)++;
        while (*cell_end > *cell && is_blank((*cell_end)[-1]))
            (*cell_end)--;
        if (*cell < *cell_end)
            return true;
    }
    return false;
}

static int read_line(struct reader *r, struct schedule_list *l, struct arena *a)
{
    const char *end = line_end(r->at), *at = r->at, *cell, *cell_end;
    i64 cells = 1;
    for (const char *c = at; c < end; c++)
        cells += *c == ',';
    *l = (struct schedule_list){ ARENA_ARRAY(a, struct schedule_action, cells), 0, cells };
    while (next_cell(&at, end, &cell, &cell_end))
        TRY(read_cell(r, cell, cell_end, &l->actions[l->n++]));
    r->at = *end ? end + 1 : end;
    return OK;
}

/* Lines without a cell, as at the end of a file, are no ranks. */
static int read_lists(struct schedule *s, struct reader *r)
{
    s->lists = ARENA_ARRAY(s->arena, struct schedule_list, SCHEDULE_MOST_RANKS);
    while (*r->at) {
        struct schedule_list l;
        r->line++;
        TRY(read_line(r, &l, s->arena));
        if (l.n == 0)
            continue;
        if (s->ranks == SCHEDULE_MOST_RANKS)
            return err_set(ERR_CONFIG, "%s:%d: more than %d ranks", r->where, r->line,
                           SCHEDULE_MOST_RANKS);
        s->lists[s->ranks++] = l;
    }
    if (s->ranks == 0)
        return err_set(ERR_CONFIG, "%s: there is no action in it; a schedule has one line per "
                       "rank, like 0F0,0F1,0B0,0B1", r->where);
    return OK;
}

static void count_cells(struct schedule *s)
{
    for (int r = 0; r < s->ranks; r++)
        for (i64 i = 0; i < s->lists[r].n; i++) {
            const struct schedule_action *a = &s->lists[r].actions[i];
            s->stages = (int)i64_max(s->stages, a->stage + 1);
            s->micro_batches = (int)i64_max(s->micro_batches, a->micro_batch + 1);
        }
}

static int place_stages(struct schedule *s, const char *where)
{
    s->rank_of = ARENA_ARRAY(s->arena, int, s->stages);
    for (int t = 0; t < s->stages; t++)
        s->rank_of[t] = -1;
    for (int r = 0; r < s->ranks; r++)
        for (i64 i = 0; i < s->lists[r].n; i++) {
            const struct schedule_action *a = &s->lists[r].actions[i];
            if (a->op <= SCHEDULE_B && s->rank_of[a->stage] < 0)
                s->rank_of[a->stage] = r;
        }
    for (int t = 0; t < s->stages; t++)
        if (s->rank_of[t] < 0)
            return err_set(ERR_CONFIG, "%s: no line computes stage %d of %d", where, t,
                           s->stages);
    return OK;
}

int schedule_read_csv(struct schedule *out, const char *text, const char *where,
                      struct arena *a)
{
    struct reader r = { .where = where, .at = text };
    *out = (struct schedule){ .arena = a };
    TRY(read_lists(out, &r));
    count_cells(out);
    TRY(place_stages(out, where));
    if ((i64)out->stages * out->micro_batches > (i64)SCHEDULE_MOST_STAGES * 1024)
        return err_set(ERR_CONFIG, "%s: %d stages of %d micro-batches are beyond what can be "
                       "planned", where, out->stages, out->micro_batches);
    int rc = schedule_check(out);
    return rc < 0 ? err_context(rc, "%s", where) : OK;
}

int schedule_read_file(struct schedule *out, const char *path, struct arena *a)
{
    i64 bytes;
    void *map = sys_map_file(path, &bytes);
    if (!map)
        return err_set(ERR_CONFIG, "cannot read the schedule %s: %s", path, strerror(errno));
    const char *text = arena_strndup(a, map, bytes);
    sys_unmap(map, bytes);
    return schedule_read_csv(out, text, path, a);
}
