/* Proof that a schedule computes everything once, in order, and that nobody waits for ever
 * (see schedule.h). First each rank's list alone, then all of them together. */
#include "parallel/schedule.h"

#include "base/err.h"

#include <stdio.h>

/* What each rank's list says of every (stage, micro-batch), and how far the ranks are. */
struct proof {
    const struct schedule *s;
    bool moves;
    i64 *place[SCHEDULE_OPS]; /* [stages * micro_batches]: position in its list + 1; 0: none */
    i64 *at;                  /* [ranks]: the next action */
};

static i64 cell_of(const struct proof *p, int stage, int micro_batch)
{
    return (i64)stage * p->s->micro_batches + micro_batch;
}

static i64 place_of(const struct proof *p, enum schedule_op op, int stage, int micro_batch)
{
    return p->place[op][cell_of(p, stage, micro_batch)];
}

static int wrong(int rank, const struct schedule_action *a, const char *what)
{
    char cell[SCHEDULE_CELL];
    schedule_cell(a, cell);
    return err_set(ERR_CONFIG, "the schedule is wrong: %s on rank %d %s", cell, rank, what);
}

/* --- one list ----------------------------------------------------------------------- */

/* A move goes between two stages that are there, on different ranks. */
static bool has_place(const struct schedule *s, const struct schedule_action *a)
{
    int other = a->stage;
    if (a->op == SCHEDULE_SEND_F || a->op == SCHEDULE_RECV_B)
        other++;
    else if (a->op == SCHEDULE_RECV_F || a->op == SCHEDULE_SEND_B)
        other--;
    else
        return true;
    return other >= 0 && other < s->stages && s->rank_of[other] != s->rank_of[a->stage];
}

/* The micro-batch in front of it had the same action, or one that holds it. */
static bool follows(const struct proof *p, const struct schedule_action *a)
{
    int t = a->stage, i = a->micro_batch - 1;
    if (i < 0)
        return true;
    bool both = place_of(p, SCHEDULE_B, t, i);
    switch (a->op) {
    case SCHEDULE_I:
    case SCHEDULE_W: return both || place_of(p, a->op, t, i);
    case SCHEDULE_B: return both || (place_of(p, SCHEDULE_I, t, i) &&
                                     place_of(p, SCHEDULE_W, t, i));
    default: return place_of(p, a->op, t, i);
    }
}

static int note(struct proof *p, int rank, i64 i)
{
    const struct schedule *s = p->s;
    const struct schedule_action *a = &s->lists[rank].actions[i];
    if (a->stage < 0 || a->stage >= s->stages || a->micro_batch < 0 ||
        a->micro_batch >= s->micro_batches || (unsigned)a->op >= SCHEDULE_OPS)
        return wrong(rank, a, "has no such stage or micro-batch");
    if (s->rank_of[a->stage] != rank)
        return wrong(rank, a, "belongs to another rank's stage");
    if (!has_place(s, a))
        return wrong(rank, a, "moves what does not leave its rank");
    i64 *place = &p->place[a->op][cell_of(p, a->stage, a->micro_batch)];
    if (*place)
        return wrong(rank, a, "is there twice");
    *place = i + 1;
    if (!follows(p, a))
        return wrong(rank, a, "comes before, or without, the micro-batch in front of it: each "
                     "stage takes them in ascending order");
    return OK;
}

static int lacks(enum schedule_op op, int stage, int micro_batch)
{
    char cell[SCHEDULE_CELL];
    schedule_cell(&(struct schedule_action){ op, stage, micro_batch }, cell);
    return err_set(ERR_CONFIG, "the schedule is wrong: there is no %s", cell);
}

/* Neither the whole backward pass nor its first half. */
static int lacks_backward(int stage, int micro_batch)
{
    static const enum schedule_op ops[] = { SCHEDULE_B, SCHEDULE_I, SCHEDULE_W };
    char cell[3][SCHEDULE_CELL];
    for (int i = 0; i < 3; i++)
        schedule_cell(&(struct schedule_action){ ops[i], stage, micro_batch }, cell[i]);
    return err_set(ERR_CONFIG, "the schedule is wrong: there is no %s (or %s and %s)", cell[0],
                   cell[1], cell[2]);
}

static int late(enum schedule_op op, int stage, int micro_batch, enum schedule_op behind)
{
    char cell[SCHEDULE_CELL], other[SCHEDULE_CELL];
    schedule_cell(&(struct schedule_action){ op, stage, micro_batch }, cell);
    schedule_cell(&(struct schedule_action){ behind, stage, micro_batch }, other);
    return err_set(ERR_CONFIG, "the schedule is wrong: %s must stand behind %s", cell, other);
}

static int check_order(const struct proof *p, enum schedule_op first, enum schedule_op then,
                       int t, int i)
{
    if (place_of(p, first, t, i) == 0)
        return lacks(first, t, i);
    if (place_of(p, then, t, i) == 0)
        return lacks(then, t, i);
    return place_of(p, first, t, i) < place_of(p, then, t, i) ? OK : late(then, t, i, first);
}

static int check_compute(const struct proof *p, int t, int i)
{
    bool whole = place_of(p, SCHEDULE_B, t, i) > 0;
    const struct schedule_action b = { SCHEDULE_B, t, i };
    if (whole && (place_of(p, SCHEDULE_I, t, i) || place_of(p, SCHEDULE_W, t, i)))
        return wrong(p->s->rank_of[t], &b, "is I and W at once, but one of them is there too");
    if (!whole && !place_of(p, SCHEDULE_I, t, i) && !place_of(p, SCHEDULE_W, t, i))
        return lacks_backward(t, i);
    TRY(check_order(p, SCHEDULE_F, whole ? SCHEDULE_B : SCHEDULE_I, t, i));
    return whole ? OK : check_order(p, SCHEDULE_I, SCHEDULE_W, t, i);
}

static int check_stage_moves(const struct proof *p, int t, int i)
{
    const struct schedule *s = p->s;
    enum schedule_op back = place_of(p, SCHEDULE_B, t, i) ? SCHEDULE_B : SCHEDULE_I;
    if (t > 0 && s->rank_of[t - 1] != s->rank_of[t]) {
        TRY(check_order(p, SCHEDULE_RECV_F, SCHEDULE_F, t, i));
        TRY(check_order(p, back, SCHEDULE_SEND_B, t, i));
    }
    if (t < s->stages - 1 && s->rank_of[t + 1] != s->rank_of[t]) {
        TRY(check_order(p, SCHEDULE_F, SCHEDULE_SEND_F, t, i));
        TRY(check_order(p, SCHEDULE_RECV_B, back, t, i));
    }
    return OK;
}

/* --- all lists ---------------------------------------------------------------------- */

static bool is_past(const struct proof *p, enum schedule_op op, int stage, int micro_batch)
{
    i64 place = place_of(p, op, stage, micro_batch);
    return place > 0 && place <= p->at[p->s->rank_of[stage]];
}

/* I, or the B that holds it. */
static bool input_grad_past(const struct proof *p, int stage, int micro_batch)
{
    return is_past(p, SCHEDULE_I, stage, micro_batch) ||
           is_past(p, SCHEDULE_B, stage, micro_batch);
}

/* What stage t - 1 made for stage t is there. */
static bool input_there(const struct proof *p, int t, int i)
{
    const struct schedule *s = p->s;
    if (t == 0)
        return true;
    bool moves = p->moves && s->rank_of[t - 1] != s->rank_of[t];
    return is_past(p, moves ? SCHEDULE_SEND_F : SCHEDULE_F, t - 1, i);
}

static bool gradient_there(const struct proof *p, int t, int i)
{
    const struct schedule *s = p->s;
    if (t == s->stages - 1)
        return true;
    if (p->moves && s->rank_of[t + 1] != s->rank_of[t])
        return is_past(p, SCHEDULE_SEND_B, t + 1, i);
    return input_grad_past(p, t + 1, i);
}

/* The stage's last output has left: its receive was begun. */
static bool sent_before(const struct proof *p, int t, int i, enum schedule_op receive, int to)
{
    const struct schedule *s = p->s;
    if (!p->moves || i == 0 || to < 0 || to >= s->stages || s->rank_of[to] == s->rank_of[t])
        return true;
    return is_past(p, receive, to, i - 1);
}

static bool may_begin(const struct proof *p, const struct schedule_action *a)
{
    int t = a->stage, i = a->micro_batch;
    if (a->op == SCHEDULE_F)
        return input_there(p, t, i) && sent_before(p, t, i, SCHEDULE_RECV_F, t + 1);
    if (a->op == SCHEDULE_I || a->op == SCHEDULE_B)
        return gradient_there(p, t, i) && sent_before(p, t, i, SCHEDULE_RECV_B, t - 1);
    return true; /* W follows its own I; moves only begin */
}

/* Lets every rank go as far as it can, in turns, until none can. */
static int play(struct proof *p)
{
    const struct schedule *s = p->s;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int r = 0; r < s->ranks; r++)
            while (p->at[r] < s->lists[r].n && may_begin(p, &s->lists[r].actions[p->at[r]])) {
                p->at[r]++;
                moved = true;
            }
    }
    for (int r = 0; r < s->ranks; r++)
        if (p->at[r] < s->lists[r].n)
            return wrong(r, &s->lists[r].actions[p->at[r]], "waits for ever: the ranks wait for "
                         "each other");
    return OK;
}

static int prove(struct proof *p)
{
    const struct schedule *s = p->s;
    for (int r = 0; r < s->ranks; r++)
        for (i64 i = 0; i < s->lists[r].n; i++)
            TRY(note(p, r, i));
    for (int t = 0; t < s->stages; t++)
        for (int i = 0; i < s->micro_batches; i++) {
            TRY(check_compute(p, t, i));
            if (p->moves)
                TRY(check_stage_moves(p, t, i));
        }
    return play(p);
}

int schedule_check(const struct schedule *s)
{
    struct arena scratch;
    arena_init(&scratch);
    struct proof p = { .s = s, .moves = schedule_moves(s),
                       .at = ARENA_ARRAY(&scratch, i64, s->ranks) };
    for (int op = 0; op < SCHEDULE_OPS; op++)
        p.place[op] = ARENA_ARRAY(&scratch, i64, (i64)s->stages * s->micro_batches);
    int rc = prove(&p);
    arena_fini(&scratch);
    return rc;
}
