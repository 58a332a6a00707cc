#include "parallel/schedule.h"

#include "base/err.h"

#include <string.h>

static const struct kind_info {
    const char *name;
    int least_chunks, most_chunks;
} kinds[SCHEDULE_KINDS] = {
    [SCHEDULE_GPIPE] = { "gpipe", 1, 1 },
    [SCHEDULE_1F1B] = { "1f1b", 1, 1 },
    [SCHEDULE_INTERLEAVED] = { "interleaved", 2, 0 },
    [SCHEDULE_ZB_H1] = { "zb-h1", 1, 1 },
    [SCHEDULE_ZB_V] = { "zb-v", 2, 2 },
};

const char *schedule_kind_name(enum schedule_kind kind)
{
    return kinds[kind].name;
}

enum schedule_kind schedule_kind_of(const char *name)
{
    int k = 0;
    while (k < SCHEDULE_KINDS && strcmp(kinds[k].name, name) != 0)
        k++;
    return (enum schedule_kind)k;
}

int schedule_least_chunks(enum schedule_kind kind)
{
    return kinds[kind].least_chunks;
}

int schedule_most_chunks(enum schedule_kind kind)
{
    return kinds[kind].most_chunks;
}

int schedule_place(enum schedule_kind kind, int ranks, int stage)
{
    if (kind == SCHEDULE_ZB_V && stage >= ranks)
        return 2 * ranks - 1 - stage;
    return stage % ranks;
}

/* --- lists -------------------------------------------------------------------------- */

static void push(struct schedule *s, struct schedule_list *l, enum schedule_op op, int stage,
                 int micro_batch)
{
    if (l->n == l->capacity) {
        i64 more = l->capacity ? 2 * l->capacity : 64;
        struct schedule_action *grown = ARENA_ARRAY(s->arena, struct schedule_action, more);
        if (l->n)
            memcpy(grown, l->actions, sizeof *grown * (size_t)l->n);
        l->actions = grown;
        l->capacity = more;
    }
    l->actions[l->n++] = (struct schedule_action){ op, stage, micro_batch };
}

static void add(struct schedule *s, int rank, enum schedule_op op, int stage, int micro_batch)
{
    push(s, &s->lists[rank], op, stage, micro_batch);
}

/* --- generators --------------------------------------------------------------------- */

static void make_gpipe(struct schedule *s)
{
    for (int r = 0; r < s->ranks; r++) {
        for (int i = 0; i < s->micro_batches; i++)
            add(s, r, SCHEDULE_F, r, i);
        for (int i = 0; i < s->micro_batches; i++)
            add(s, r, SCHEDULE_B, r, i);
    }
}

/* The k-th forward of a rank with chunks: groups of `ranks` micro-batches go through its
 * chunks one after the other (backward: last chunk first). */
static void add_unit(struct schedule *s, int rank, enum schedule_op op, int k)
{
    int p = s->ranks, v = s->stages / p, group = k / (p * v), within = k % (p * v);
    int chunk = within / p;
    if (op == SCHEDULE_B)
        chunk = v - 1 - chunk;
    add(s, rank, op, chunk * p + rank, group * p + within % p);
}

/* 1F1B is the case of one chunk, except that it warms up half as long: a chunk's output need
 * not come back round before the next one. */
static void make_1f1b(struct schedule *s)
{
    int p = s->ranks, v = s->stages / p, n = s->micro_batches * v;
    for (int r = 0; r < p; r++) {
        int ahead = v == 1 ? p - 1 - r : 2 * (p - 1 - r) + (v - 1) * p;
        int warm = (int)i64_min(n, ahead);
        for (int k = 0; k < warm; k++)
            add_unit(s, r, SCHEDULE_F, k);
        for (int k = 0; k < n; k++) {
            if (warm + k < n)
                add_unit(s, r, SCHEDULE_F, warm + k);
            add_unit(s, r, SCHEDULE_B, k);
        }
    }
}

/* Rank r puts off r of its W: what they would delay is then done by the time that the stages
 * before wait for it, and every rank holds p micro-batches. */
static void make_zb_h1(struct schedule *s)
{
    int m = s->micro_batches;
    for (int r = 0; r < s->ranks; r++) {
        int warm = (int)i64_min(m, s->ranks - 1 - r), w = 0;
        for (int i = 0; i < warm; i++)
            add(s, r, SCHEDULE_F, r, i);
        for (int i = 0; i < m; i++) {
            if (warm + i < m)
                add(s, r, SCHEDULE_F, r, warm + i);
            add(s, r, SCHEDULE_I, r, i);
            if (i >= r)
                add(s, r, SCHEDULE_W, r, w++);
        }
        while (w < m)
            add(s, r, SCHEDULE_W, r, w++);
    }
}

/* How far a stage got in unit time. */
struct progress {
    int done[SCHEDULE_W + 1];       /* actions begun */
    int *ended[SCHEDULE_W + 1];     /* [micro_batches]: tick at whose end, or 0: not yet */
};

static bool ended_before(const struct progress *p, enum schedule_op op, int i, int tick)
{
    return p->ended[op][i] > 0 && p->ended[op][i] <= tick;
}

/* Whether stage t could begin its next `op` at this tick. */
static bool could_begin(const struct schedule *s, const struct progress *all, int t,
                        enum schedule_op op, int tick)
{
    int i = all[t].done[op];
    if (i >= s->micro_batches)
        return false;
    if (op == SCHEDULE_F)
        return t == 0 || ended_before(&all[t - 1], SCHEDULE_F, i, tick);
    if (op == SCHEDULE_W)
        return ended_before(&all[t], SCHEDULE_I, i, tick);
    return ended_before(&all[t], SCHEDULE_F, i, tick) &&
           (t == s->stages - 1 || ended_before(&all[t + 1], SCHEDULE_I, i, tick));
}

/* Each takes one tick: I before all, for others wait for it; then F, of the later stage
 * first, while there is room; else W. */
static bool step_rank(struct schedule *s, struct progress *all, int rank, int tick, int *live)
{
    int near = rank, far = s->stages - 1 - rank;
    const struct schedule_action order[] = {
        { SCHEDULE_I, near, 0 }, { SCHEDULE_I, far, 0 }, { SCHEDULE_F, far, 0 },
        { SCHEDULE_F, near, 0 }, { SCHEDULE_W, far, 0 }, { SCHEDULE_W, near, 0 },
    };
    for (int k = 0; k < COUNT_OF(order); k++) {
        const struct schedule_action *a = &order[k];
        if (a->op == SCHEDULE_F && *live == s->stages)
            continue;
        if (!could_begin(s, all, a->stage, a->op, tick))
            continue;
        *live += a->op == SCHEDULE_F ? 1 : a->op == SCHEDULE_W ? -1 : 0;
        int i = all[a->stage].done[a->op]++;
        all[a->stage].ended[a->op][i] = tick + 1;
        add(s, rank, a->op, a->stage, i);
        return true;
    }
    return false;
}

/* Ticks of equal F, I and W, everybody doing what is most urgent within p micro-batches of
 * memory. With the V, the last stage's first I is where the first stage is: no rank waits
 * but for the first micro-batch to reach it. */
static void make_zb_v(struct schedule *s)
{
    struct progress *all = ARENA_ARRAY(s->arena, struct progress, s->stages);
    int *live = ARENA_ARRAY(s->arena, int, s->ranks);
    i64 left = 3 * (i64)s->stages * s->micro_batches;
    for (int t = 0; t < s->stages; t++)
        for (int op = 0; op <= SCHEDULE_W; op++)
            all[t].ended[op] = ARENA_ARRAY(s->arena, int, s->micro_batches);
    for (int tick = 0; left > 0; tick++)
        for (int r = 0; r < s->ranks; r++)
            left -= step_rank(s, all, r, tick, &live[r]);
}

static int check_numbers(enum schedule_kind kind, int ranks, int chunks, int micro_batches)
{
    const struct kind_info *k = &kinds[kind];
    if (ranks < 1 || ranks > SCHEDULE_MOST_RANKS || micro_batches < 1 ||
        micro_batches > SCHEDULE_MOST_BATCHES || (i64)ranks * chunks > SCHEDULE_MOST_STAGES)
        return err_set(ERR_CONFIG, "a schedule of %d ranks, %d stages each and %d micro-batches "
                       "is beyond what can be planned", ranks, chunks, micro_batches);
    if (k->most_chunks == 1 && chunks != 1)
        return err_set(ERR_CONFIG, "schedule %s needs 1 stage on each rank, not %d; "
                       "leave layout.chunks out, or choose layout.schedule=interleaved, "
                       "which takes 2 or more", k->name, chunks);
    if (chunks < k->least_chunks || (k->most_chunks && chunks > k->most_chunks))
        return err_set(ERR_CONFIG, "schedule %s needs %s%d stages on each rank, not %d; "
                       "set layout.chunks=%d", k->name, k->most_chunks ? "" : "at least ",
                       k->least_chunks, chunks, k->least_chunks);
    if (kind == SCHEDULE_INTERLEAVED && micro_batches % ranks)
        return err_set(ERR_CONFIG, "schedule interleaved needs a number of micro-batches that "
                       "%d ranks divide, not %d; %lld would do", ranks, micro_batches,
                       (long long)round_up(micro_batches, ranks));
    return OK;
}

static void init(struct schedule *s, int ranks, int stages, int micro_batches, struct arena *a)
{
    *s = (struct schedule){ .ranks = ranks, .stages = stages, .micro_batches = micro_batches,
                            .arena = a };
    s->rank_of = ARENA_ARRAY(a, int, stages);
    s->lists = ARENA_ARRAY(a, struct schedule_list, ranks);
}

int schedule_new(struct schedule *out, enum schedule_kind kind, int ranks, int chunks,
                 int micro_batches, struct arena *a)
{
    TRY(check_numbers(kind, ranks, chunks, micro_batches));
    init(out, ranks, ranks * chunks, micro_batches, a);
    for (int t = 0; t < out->stages; t++)
        out->rank_of[t] = schedule_place(kind, ranks, t);
    if (kind == SCHEDULE_GPIPE)
        make_gpipe(out);
    else if (kind == SCHEDULE_ZB_H1)
        make_zb_h1(out);
    else if (kind == SCHEDULE_ZB_V)
        make_zb_v(out);
    else
        make_1f1b(out);
    return OK;
}

void schedule_new_forward(struct schedule *out, int ranks, int stages, const int *rank_of,
                          int micro_batches, struct arena *a)
{
    init(out, ranks, stages, micro_batches, a);
    memcpy(out->rank_of, rank_of, sizeof *rank_of * (size_t)stages);
    for (int i = 0; i < micro_batches; i++)
        for (int t = 0; t < stages; t++)
            add(out, rank_of[t], SCHEDULE_F, t, i);
}

/* --- moves -------------------------------------------------------------------------- */

static bool is_backward(enum schedule_op op)
{
    return op == SCHEDULE_I || op == SCHEDULE_B;
}

/* Whether stage t and the next one are on different ranks. */
static bool cut_behind(const struct schedule *s, int t)
{
    return t >= 0 && t < s->stages - 1 && s->rank_of[t] != s->rank_of[t + 1];
}

static void receive_for(struct schedule *s, struct schedule_list *l,
                        const struct schedule_action *a)
{
    if (a->op == SCHEDULE_F && cut_behind(s, a->stage - 1))
        push(s, l, SCHEDULE_RECV_F, a->stage, a->micro_batch);
    if (is_backward(a->op) && cut_behind(s, a->stage))
        push(s, l, SCHEDULE_RECV_B, a->stage, a->micro_batch);
}

static void send_of(struct schedule *s, struct schedule_list *l,
                    const struct schedule_action *a)
{
    if (a->op == SCHEDULE_F && cut_behind(s, a->stage))
        push(s, l, SCHEDULE_SEND_F, a->stage, a->micro_batch);
    if (is_backward(a->op) && cut_behind(s, a->stage - 1))
        push(s, l, SCHEDULE_SEND_B, a->stage, a->micro_batch);
}

void schedule_add_moves(struct schedule *s, int ahead)
{
    for (int r = 0; r < s->ranks; r++) {
        struct schedule_list plain = s->lists[r], full = { 0 };
        for (i64 i = 0; i < i64_min(ahead, plain.n); i++)
            receive_for(s, &full, &plain.actions[i]);
        for (i64 i = 0; i < plain.n; i++) {
            const struct schedule_action *a = &plain.actions[i];
            if (i + ahead < plain.n)
                receive_for(s, &full, &plain.actions[i + ahead]);
            push(s, &full, a->op, a->stage, a->micro_batch);
            send_of(s, &full, a);
        }
        s->lists[r] = full;
    }
}

static bool has_op(const struct schedule *s, enum schedule_op first, enum schedule_op last)
{
    for (int r = 0; r < s->ranks; r++)
        for (i64 i = 0; i < s->lists[r].n; i++)
            if (s->lists[r].actions[i].op >= first && s->lists[r].actions[i].op <= last)
                return true;
    return false;
}

bool schedule_moves(const struct schedule *s)
{
    return has_op(s, SCHEDULE_SEND_F, SCHEDULE_RECV_B);
}

bool schedule_splits(const struct schedule *s)
{
    return has_op(s, SCHEDULE_I, SCHEDULE_W);
}
