/* How long a schedule takes (see schedule.h): each action begins when its rank is free and what
 * it needs has arrived. */
#include "parallel/schedule.h"

#include "base/err.h"

#include <math.h>

struct clockwork {
    const struct schedule *s;
    const struct stage_time *times;
    double latency;
    double *made[2]; /* [stages * micro_batches]: when F and I ended; NaN: not yet */
    i64 *at;         /* [ranks] */
    double *now;     /* [ranks] */
};

static double duration(const struct stage_time *t, enum schedule_op op)
{
    switch (op) {
    case SCHEDULE_F: return t->F;
    case SCHEDULE_I: return t->I;
    case SCHEDULE_W: return t->W;
    case SCHEDULE_B: return t->I + t->W;
    default: return 0;
    }
}

/* When what stage `from` made is where stage `to` is. */
static double arrival(const struct clockwork *c, int kind, int from, int to, int micro_batch)
{
    const struct schedule *s = c->s;
    double ended = c->made[kind][(i64)from * s->micro_batches + micro_batch];
    return ended + (s->rank_of[from] == s->rank_of[to] ? 0 : c->latency);
}

/* When the action could begin were its rank free; NaN: not known yet. */
static double ready(const struct clockwork *c, const struct schedule_action *a)
{
    int t = a->stage, last = c->s->stages - 1;
    switch (a->op) {
    case SCHEDULE_F:
    case SCHEDULE_RECV_F: return t > 0 ? arrival(c, 0, t - 1, t, a->micro_batch) : 0;
    case SCHEDULE_I:
    case SCHEDULE_B:
    case SCHEDULE_RECV_B: return t < last ? arrival(c, 1, t + 1, t, a->micro_batch) : 0;
    default: return 0; /* behind something on its own rank */
    }
}

/* Moves take no time of their rank. */
static bool is_move(enum schedule_op op)
{
    return op >= SCHEDULE_SEND_F;
}

static bool run_one(struct clockwork *c, int rank, struct schedule_time *out)
{
    const struct schedule *s = c->s;
    i64 i = c->at[rank];
    const struct schedule_action *a = &s->lists[rank].actions[i];
    double when = is_move(a->op) ? c->now[rank] : ready(c, a);
    if (isnan(when))
        return false;
    double begin = fmax(c->now[rank], when), end = begin + duration(&c->times[a->stage], a->op);
    i64 cell = (i64)a->stage * s->micro_batches + a->micro_batch;
    if (a->op == SCHEDULE_F)
        c->made[0][cell] = end;
    if (a->op == SCHEDULE_I || a->op == SCHEDULE_B) /* what is sent is known with all of B */
        c->made[1][cell] = end;
    c->now[rank] = end;
    c->at[rank]++;
    out->begin[rank][i] = begin;
    out->end[rank][i] = end;
    out->ranks[rank].busy += end - begin;
    out->length = fmax(out->length, end);
    return true;
}

static void note_peaks(const struct schedule *s, struct schedule_time *out)
{
    for (int r = 0; r < s->ranks; r++) {
        i64 live = 0, most = 0, stages = 0;
        for (int t = 0; t < s->stages; t++)
            stages += s->rank_of[t] == r;
        for (i64 i = 0; i < s->lists[r].n; i++) {
            enum schedule_op op = s->lists[r].actions[i].op;
            live += op == SCHEDULE_F ? 1 : op == SCHEDULE_W || op == SCHEDULE_B ? -1 : 0;
            most = i64_max(most, live + (op == SCHEDULE_W || op == SCHEDULE_B));
        }
        out->ranks[r].peak = stages ? (double)most / (double)stages : 0;
    }
}

/* Moves begin and end when what they carry is there. */
static void place_moves(const struct clockwork *c, struct schedule_time *out)
{
    const struct schedule *s = c->s;
    for (int r = 0; r < s->ranks; r++)
        for (i64 i = 0; i < s->lists[r].n; i++) {
            const struct schedule_action *a = &s->lists[r].actions[i];
            if (is_move(a->op))
                out->begin[r][i] = out->end[r][i] = fmax(out->begin[r][i], ready(c, a));
        }
}

void schedule_time(const struct schedule *s, const struct stage_time *times, double latency,
                   struct schedule_time *out, struct arena *a)
{
    struct clockwork c = { .s = s, .times = times, .latency = latency };
    i64 cells = (i64)s->stages * s->micro_batches;
    *out = (struct schedule_time){ .ranks = ARENA_ARRAY(a, struct rank_time, s->ranks),
                                   .begin = ARENA_ARRAY(a, double *, s->ranks),
                                   .end = ARENA_ARRAY(a, double *, s->ranks) };
    c.at = ARENA_ARRAY(a, i64, s->ranks);
    c.now = ARENA_ARRAY(a, double, s->ranks);
    for (int kind = 0; kind < 2; kind++) {
        c.made[kind] = ARENA_ARRAY(a, double, cells);
        for (i64 i = 0; i < cells; i++)
            c.made[kind][i] = NAN;
    }
    for (int r = 0; r < s->ranks; r++) {
        out->begin[r] = ARENA_ARRAY(a, double, s->lists[r].n);
        out->end[r] = ARENA_ARRAY(a, double, s->lists[r].n);
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (int r = 0; r < s->ranks; r++)
            while (c.at[r] < s->lists[r].n && run_one(&c, r, out))
                moved = true;
    }
    place_moves(&c, out);
    note_peaks(s, out);
    double busy = 0;
    for (int r = 0; r < s->ranks; r++) {
        assert(c.at[r] == s->lists[r].n); /* schedule_check */
        out->ranks[r].idle = out->length - out->ranks[r].busy;
        busy += out->ranks[r].busy;
    }
    out->bubble = out->length > 0 ? 1 - busy / (out->length * s->ranks) : 0;
}
