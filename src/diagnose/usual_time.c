#include "diagnose/usual_time.h"

#include "base/sort.h"
#include "diagnose/each.h"
#include "diagnose/pace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 40 };
static const double most_bytes = 64e6;  /* of spans that are read for it */
static const double near_least = 0.01;  /* of the times of a kind so many are shorter */
static const double near_best = 0.02; /* speeds that differ by less are alike */

struct usual_speed usual_speed_of(const struct record_rank *k)
{
    const struct sample *s = k->sample;
    struct usual_speed v = { .clock = 1, .on_cpu = 1, .attended = 1 };
    if (!s)
        return v;
    v.has_clock = (s->has & SAMPLE_CLOCK) != 0;
    v.has_cpu = (s->has & SAMPLE_SCHED) != 0 && !record_sleeps(k->head);
    if (v.has_clock && s->phi > 0 && isfinite(s->phi))
        v.clock = s->phi;
    const double ran = (double)s->run_ns + (double)s->pool_run_ns;
    const double waited = (double)s->queue_ns + (double)s->pool_queue_ns;
    if (v.has_cpu && ran > 0)
        v.on_cpu = ran / (ran + waited);
    const double pairs = (double)s->tokens * (double)(k->table->T + 1) / 2;
    if (s->has & SAMPLE_ROWS && k->head->of_cp <= 1 && s->attended > 0 && pairs > s->attended)
        v.attended = s->attended / pairs;
    return v;
}

bool usual_attends(const struct record_task *t)
{
    return strncmp(t->op, "attention", strlen("attention")) == 0;
}

/* What a rank's attention takes, times `factor`. */
static void scale_attention(const struct record_table *t, struct computed *c, double factor)
{
    for (i64 i = 0; i < c->n && factor != 1; i++)
        if (usual_attends(&t->tasks[(u32)c->task[i]]))
            c->seconds[i] *= factor;
}

/* What tasks that sleep take at the least: one that comes late is caught up with by those behind it,
 * which then sleep for less than they should. 0 where tasks compute. */
static double slept_at_least(const struct record_rank *k, const struct computed *c, i64 from, i64 to)
{
    const bool narrow = attained_dtype_in_use(k->head) == DTYPE_BF16;
    const double peak = narrow ? k->head->flops_bf16 : k->head->flops_f32;
    const double rate = k->head->memory_bytes_per_s;
    double sum = 0;
    if (!record_sleeps(k->head))
        return 0;
    for (i64 i = from; i < to; i++) {
        const struct record_task *t = &k->table->tasks[(u32)c->task[i]];
        const double bytes_s = rate > 0 ? (t->read_bytes + t->written_bytes) / rate : 0;
        sum += fmax(peak > 0 ? t->flops / peak : 0, bytes_s);
    }
    return sum;
}

/* --- actions ------------------------------------------------------------------------ */

static void see_paces(struct usual *u, const double *pace, int n)
{
    if (n > u->n_ranks) {
        double *grown = ARENA_ARRAY(u->arena, double, n);
        for (int r = 0; r < u->n_ranks; r++)
            grown[r] = u->pace[r];
        u->pace = grown;
        u->n_ranks = n;
    }
    for (int r = 0; r < n; r++)
        if (pace[r] > 0)
            u->pace[r] = u->pace[r] > 0 ? fmin(u->pace[r], pace[r]) : pace[r];
}

static double pace_of(const struct usual *u, int rank)
{
    return rank < u->n_ranks && u->pace[rank] > 0 ? u->pace[rank] : 1;
}

static struct usual_time *more_times(struct usual *u, i64 n)
{
    if (u->n + n > u->room) {
        u->room = i64_max(u->n + n, i64_max(64, 2 * u->room));
        struct usual_time *grown = ARENA_UNSET(u->arena, struct usual_time, u->room);
        if (u->n > 0)
            memcpy(grown, u->times, (size_t)u->n * sizeof *grown);
        u->times = grown;
    }
    u->n += n;
    return u->times + u->n - n;
}

void usual_add(struct usual *u, const struct record_step *s, const struct dag *g)
{
    struct computing c;
    double *pace = ARENA_ARRAY(s->arena, double, g->n_ranks);
    double *speed = ARENA_ARRAY(s->arena, double, g->n_ranks);
    computing_open(&c, s, g);
    for (int r = 0; r < c.n_ranks; r++) {
        const struct usual_speed v = usual_speed_of(&s->ranks[r]);
        speed[r] = v.clock * v.on_cpu;
        computing_scale(&c.ranks[r], 0, c.ranks[r].n, speed[r]);
        scale_attention(s->ranks[r].table, &c.ranks[r], 1 / v.attended);
    }
    u->attained.arena = u->arena;
    attained_add(&u->attained, &c, speed);
    pace_of_ranks(&c, pace);
    see_paces(u, pace, c.n_ranks);
    for (int r = 0; r < c.n_ranks; r++) {
        const struct computed *k = &c.ranks[r];
        for (i64 j = 0, i = 0; j < k->n_actions; i = k->actions[j++].to) {
            const double seconds = computing_seconds(k, i, k->actions[j].to);
            const double least = slept_at_least(&s->ranks[r], k, i, k->actions[j].to);
            if (seconds > 0)
                *more_times(u, 1) = (struct usual_time){ k->actions[j].kind, fmax(seconds, least),
                                                         fmin(1, speed[r]), r };
        }
    }
}

/* By kind, then the fastest first. */
static int by_speed(const void *a, const void *b)
{
    const struct usual_time *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->speed < y->speed) - (x->speed > y->speed);
}

void usual_settle(struct usual *u)
{
    double *room = ARENA_UNSET(u->arena, double, u->n);
    i64 kinds = 0;
    for (i64 i = 0; i < u->n; i++) {
        u->times[i].seconds /= pace_of(u, u->times[i].rank);
        u->times[i].speed /= pace_of(u, u->times[i].rank);
    }
    if (u->n > 0)
        qsort(u->times, (size_t)u->n, sizeof *u->times, by_speed);
    for (i64 i = 0, to; i < u->n; i = to) {
        const struct usual_time first = u->times[i];
        i64 alike = 0;
        for (to = i; to < u->n && u->times[to].kind == first.kind; to++)
            if (u->times[to].speed >= first.speed - near_best)
                room[alike++] = u->times[to].seconds;
        const i64 k = (i64)(near_least * (double)(alike - 1));
        u->times[kinds++] = (struct usual_time){
            .kind = first.kind, .seconds = sort_select(room, alike, k, u->arena) };
    }
    u->n = kinds;
    u->attained.arena = u->arena;
    attained_settle(&u->attained);
}

/* NULL: not one of it was seen. */
static const struct usual_time *find_time(const struct usual *u, u64 kind)
{
    i64 low = 0, high = u->n;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (u->times[middle].kind < kind)
            low = middle + 1;
        else
            high = middle;
    }
    return low < u->n && u->times[low].kind == kind ? &u->times[low] : NULL;
}

void usual_apply(const struct usual *u, struct computing *c)
{
    for (int r = 0; r < c->n_ranks; r++) {
        struct computed *k = &c->ranks[r];
        const double attended = usual_speed_of(&c->s->ranks[r]).attended;
        scale_attention(c->s->ranks[r].table, k, 1 / attended);
        for (i64 j = 0, i = 0; j < k->n_actions; i = k->actions[j++].to) {
            const i64 to = k->actions[j].to;
            const double own = computing_seconds(k, i, to);
            const struct usual_time *t = own > 0 ? find_time(u, k->actions[j].kind) : NULL;
            computing_scale(k, i, to, t ? t->seconds / own : 1 / pace_of(u, r));
        }
        scale_attention(c->s->ranks[r].table, k, attended);
    }
}

/* --- steps -------------------------------------------------------------------------- */

static void *make_times(void *context, const struct record_step *s, void **kept)
{
    struct dag *g;
    (void)context;
    (void)kept;
    if (dag_new(&g, s) < 0)
        return NULL;
    struct usual *own = ARENA_NEW(s->arena, struct usual);
    own->arena = s->arena;
    usual_add(own, s, g);
    return own;
}

static int take_times(void *context, const struct record_step *s, void *made, int rc)
{
    struct usual *u = context;
    const struct usual *own = made;
    (void)s;
    if (rc >= 0 && own)
        see_paces(u, own->pace, own->n_ranks);
    u->attained.arena = u->arena;
    if (rc >= 0 && own)
        attained_take(&u->attained, &own->attained);
    if (rc >= 0 && own && own->n > 0)
        memcpy(more_times(u, own->n), own->times, (size_t)own->n * sizeof *own->times);
    return OK; /* a damaged step: others will do */
}

int usual_of_steps(struct usual *u, struct record *r, const i64 *steps, i64 n)
{
    const struct each e = { u, make_times, take_times, NULL };
    const double bytes = n > 0 ? record_step_bytes(r, steps[n / 2]) : 0;
    const i64 room = bytes > 0 ? (i64)fmin(MOST_STEPS, most_bytes / bytes) : MOST_STEPS;
    const i64 take = i64_min(n, i64_max(1, room));
    i64 *some = ARENA_ARRAY(u->arena, i64, take);
    for (i64 k = 0; k < take; k++)
        some[k] = steps[(2 * k + 1) * n / (2 * take)];
    TRY(each_step(r, some, take, &e));
    for (i64 k = 0; k < take; k++)
        record_step_forget(r, some[k]);
    usual_settle(u);
    return OK;
}
