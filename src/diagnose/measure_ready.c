/* What of one step's measures needs no other step (measure_ready.h). */
#include "diagnose/measure_ready.h"

#include "base/sort.h"

/* --- one rank's time -------------------------------------------------------------- */

enum share { IN_COMPUTE, IN_WAIT, IN_DATA, IN_MEET, IN_LOG, IN_EVAL, IN_CHECKPOINT, IN_NOTHING };

static inline enum share share_of(const struct record_span *s, const struct record_rank *k)
{
    bool inside = s->begin_ns >= k->begin_ns && s->end_ns <= k->end_ns;
    if (s->lane == TRACE_COMPUTE)
        return !inside ? IN_NOTHING : s->kind == SPAN_TASK ? IN_COMPUTE
                                    : s->kind == SPAN_WAIT ? IN_WAIT : IN_NOTHING;
    if (s->lane != TRACE_HOST)
        return IN_NOTHING;
    switch (s->kind) {
    case SPAN_LOAD_WAIT: return IN_DATA;
    case SPAN_MEET: return IN_MEET;
    case SPAN_LOG: return IN_LOG;
    case SPAN_EVAL: return IN_EVAL;
    case SPAN_CHECKPOINT: return IN_CHECKPOINT;
    default: return IN_NOTHING;
    }
}

static int by_begin(const void *a, const void *b)
{
    const struct record_span *x = a, *y = b;
    if (x->begin_ns != y->begin_ns)
        return x->begin_ns < y->begin_ns ? -1 : 1;
    return (x->end_ns < y->end_ns) - (x->end_ns > y->end_ns); /* what holds others first */
}

/* What the rank's own thread did, in order of time: the lane that computes and the host's, which
 * has few spans, merged as they are asked for. */
struct own {
    const struct record_span *compute, *host;
    i64 n_compute, n_host, at_compute, at_host;
};

/* Those of a lane that stand for any of its time, by their begins. */
static const struct record_span *sorted_lane(const struct record_step *s, int rank, int lane,
                                             i64 *n)
{
    i64 all, kept = 0;
    const struct record_span *from = record_lane(&s->ranks[rank], lane, &all);
    struct record_span *to = ARENA_UNSET(s->arena, struct record_span, all);
    for (i64 i = 0; i < all; i++)
        if (share_of(&from[i], &s->ranks[rank]) != IN_NOTHING)
            to[kept++] = from[i];
    sort_runs(to, kept, (i64)sizeof *to, by_begin, s->arena);
    *n = kept;
    return to;
}

static struct own own_spans(const struct record_step *s, int rank)
{
    const struct record_rank *k = &s->ranks[rank];
    struct own o = { 0 };
    if (k->rising)
        o.compute = record_lane(k, TRACE_COMPUTE, &o.n_compute);
    else
        o.compute = sorted_lane(s, rank, TRACE_COMPUTE, &o.n_compute);
    o.host = sorted_lane(s, rank, TRACE_HOST, &o.n_host);
    return o;
}

/* NULL: there is no more. What is empty on the lane that computes stands for no time, and would
 * hide what lies behind it. */
static inline const struct record_span *next_own(struct own *o)
{
    while (o->at_compute < o->n_compute &&
           o->compute[o->at_compute].begin_ns == o->compute[o->at_compute].end_ns)
        o->at_compute++;
    const bool more = o->at_compute < o->n_compute;
    if (o->at_host < o->n_host &&
        (!more || by_begin(&o->host[o->at_host], &o->compute[o->at_compute]) < 0))
        return &o->host[o->at_host++];
    return more ? &o->compute[o->at_compute++] : NULL;
}

/* The exchange that a wait was for: the newest of that task that had begun. */
static const struct measure_call *call_of(const struct measure_calls *calls, int rank,
                                          const struct record_span *wait)
{
    i64 low = calls->first[rank], high = calls->first[rank + 1];
    const i64 least = low;
    while (low < high) {
        i64 mid = (low + high) / 2;
        if (calls->at[mid].begin <= wait->end_ns)
            low = mid + 1;
        else
            high = mid;
    }
    for (i64 i = low - 1; i >= least; i--)
        if (calls->at[i].task == wait->task_id)
            return &calls->at[i];
    return NULL;
}

static struct ready_meetings find_meetings(const struct record_step *s)
{
    struct ready_meetings m = { NULL, NULL, -1 };
    for (int r = 0; r < s->n_ranks; r++) {
        const struct record_rank *k = &s->ranks[r];
        i64 n = 0, all;
        const struct record_span *host = record_lane(k, TRACE_HOST, &all);
        for (i64 i = 0; i < all; i++)
            n += host[i].kind == SPAN_MEET;
        if (k->head)
            m.n = m.n < 0 || m.n == n ? n : 0;
    }
    m.n = i64_max(m.n, 0);
    m.come = ARENA_ARRAY(s->arena, i64, m.n);
    m.last = ARENA_ARRAY(s->arena, int, m.n);
    for (int r = 0; r < s->n_ranks; r++) {
        i64 all, at = 0;
        const struct record_span *span = record_lane(&s->ranks[r], TRACE_HOST, &all);
        for (i64 i = 0; i < all && at < m.n; i++, span++) {
            if (span->kind != SPAN_MEET)
                continue;
            if (m.come[at] == 0 || span->begin_ns > m.come[at]) {
                m.come[at] = span->begin_ns;
                m.last[at] = r;
            }
            at++;
        }
    }
    return m;
}

/* Divides one span's time, from `begin` on, into waiting for ranks and for bytes. */
static void add_wait(struct ready_rank *out, i64 begin, i64 end, i64 come)
{
    i64 until = i64_max(begin, i64_min(end, come));
    out->wait += s_of(until - begin);
    out->transfer += s_of(end - until);
}

static void add_exposed(struct ready_rank *out, const struct record_span *s, i64 begin,
                        const struct measure_call *call, i64 backward_end)
{
    int lane = s->detail >= TRACE_CALLS ? (int)s->detail - TRACE_CALLS + 1 : 0;
    if (lane <= 0 || lane >= LANE_COUNT)
        return;
    i64 come = call ? call->come : begin;
    struct ready_stand x = { .lane = lane, .exposed_s = s_of(s->end_ns - begin),
                             .wait_s = s_of(i64_max(0, i64_min(s->end_ns, come) - begin)) };
    if (begin >= backward_end)
        x.tail_s = s_of(s->end_ns - i64_max(begin, come < s->end_ns ? come : begin));
    out->stands[out->n_stands++] = x;
}

/* Of the last task of the backward pass: spans of a lane are in order of their ends. */
static i64 backward_end_of(const struct record_rank *k)
{
    i64 n;
    const struct record_span *s = record_lane(k, TRACE_COMPUTE, &n);
    while (n-- > 0)
        if (s[n].kind == SPAN_TASK && s[n].task && s[n].task->lane == LANE_COMPUTE &&
            (s[n].task->phase == PHASE_INPUT_GRAD || s[n].task->phase == PHASE_WEIGHT_GRAD))
            return i64_max(k->begin_ns, s[n].end_ns);
    return k->begin_ns;
}

/* The lane of a call that the rank began between `from` and `to`, which is when the task behind
 * where it began it had ended; 0: none. *at moves along with tasks in order of time. */
static int begun_between(const struct measure_calls *c, int rank, i64 from, i64 to, i64 *at)
{
    while (*at < c->first[rank + 1] && c->at[*at].begin < from)
        ++*at;
    return *at < c->first[rank + 1] && c->at[*at].begin < to ? c->at[*at].lane : 0;
}

/* Time without a name before a span; what it began there, if anything, is that lane's. */
static void add_gap(struct ready_rank *out, const struct measure_calls *calls, int rank, i64 cursor,
                    i64 begin, i64 end, i64 *at)
{
    const double gap_s = s_of(i64_max(0, begin - cursor));
    const int lane = begun_between(calls, rank, cursor, end, at);
    out->gap[HOST_GAP] += gap_s;
    if (lane > 0)
        out->stands[out->n_stands++] = (struct ready_stand){ .lane = lane, .begin_s = gap_s };
}

static void divide(struct ready_rank *out, const struct record_step *s, int rank,
                   const struct measure_calls *calls, const struct ready_meetings *met)
{
    const struct record_rank *k = &s->ranks[rank];
    const i64 backward_end = backward_end_of(k);
    const struct record_span *span;
    struct own own = own_spans(s, rank);
    i64 cursor = k->window_begin_ns, meeting = 0, at = calls->first[rank];
    double compute = 0;
    out->stands = ARENA_UNSET(s->arena, struct ready_stand, 2 * (own.n_compute + own.n_host));
    while ((span = next_own(&own)) != NULL) {
        const enum share what = share_of(span, k);
        i64 begin = i64_max(span->begin_ns, cursor), end = span->end_ns;
        i64 come = what == IN_MEET && meeting < met->n ? met->come[meeting] : end;
        meeting += what == IN_MEET;
        if (end <= begin || what == IN_NOTHING)
            continue;
        add_gap(out, calls, rank, cursor, begin, end, &at);
        cursor = end;
        if (what == IN_COMPUTE)
            compute += s_of(end - begin);
        else if (what == IN_DATA)
            out->data += s_of(end - begin);
        else if (what == IN_MEET)
            add_wait(out, begin, end, come);
        else if (what == IN_WAIT) {
            const struct measure_call *c = call_of(calls, rank, span);
            add_wait(out, begin, end, c ? c->come : begin);
            add_exposed(out, span, begin, c, backward_end);
        } else
            out->gap[what == IN_LOG ? HOST_LOG : what == IN_EVAL ? HOST_EVAL : HOST_CHECKPOINT] +=
                s_of(end - begin);
    }
    out->compute = compute;
    out->gap[HOST_GAP] += s_of(i64_max(0, k->window_end_ns - cursor));
    out->step = s_of(k->window_end_ns - k->window_begin_ns);
}

/* --- tasks ------------------------------------------------------------------------ */

/* Nanoseconds of [begin, end) in which any exchange of the rank is under way; *at moves along with
 * tasks in order of time. */
static i64 beside(const struct measure_calls *c, int rank, i64 begin, i64 end, i64 *at)
{
    i64 covered = 0, cursor = begin;
    while (*at < c->first[rank + 1] && c->at[*at].end <= begin)
        ++*at;
    for (i64 i = *at; i < c->first[rank + 1] && c->at[i].begin < end; i++) {
        i64 b = i64_max(c->at[i].begin, cursor), e = i64_min(c->at[i].end, end);
        if (e > b) {
            covered += e - b;
            cursor = e;
        }
    }
    return covered;
}

static void list_tasks(struct ready_rank *out, const struct record_step *s, int rank,
                       const struct measure_calls *calls)
{
    const struct record_rank *k = &s->ranks[rank];
    i64 n, at = calls->first[rank];
    const struct record_span *span = record_lane(k, TRACE_COMPUTE, &n);
    out->tasks = ARENA_UNSET(s->arena, struct ready_task, n);
    for (i64 i = 0; i < n; i++, span++) {
        const bool inside = span->begin_ns >= k->begin_ns && span->end_ns <= k->end_ns;
        if (span->kind != SPAN_TASK || !span->task || !inside || (span->task->flags & RECORD_WAITS))
            continue;
        const i64 took = span->end_ns - span->begin_ns;
        const i64 covered = beside(calls, rank, span->begin_ns, span->end_ns, &at);
        out->tasks[out->n_tasks++] = (struct ready_task){
            .seconds = s_of(took), .task = span->task_id, .detail = span->detail,
            .alone = covered == 0, .beside = covered > 0 && 10 * covered > 9 * took };
    }
}

static inline bool is_of_passes(const struct record_span *s)
{
    return s->kind == SPAN_TASK && s->task && s->task->phase != PHASE_UPDATE;
}

/* One list serves all lanes where spans come in order of their begins: each has its end. */
static void share_list(struct ready_rank *out, const struct record_span *spans, i64 n,
                       const i64 *first, double *seconds)
{
    i64 kept = 0;
    int begun = 0; /* lanes */
    for (i64 i = 0; i < n; i++) {
        while (begun < out->n_behind && spans[i].begin_ns >= first[begun])
            out->behind[begun++].seconds = &seconds[kept];
        if (begun > 0 && is_of_passes(&spans[i]))
            seconds[kept++] = s_of(spans[i].end_ns - spans[i].begin_ns);
    }
    for (int b = 0; b < begun; b++)
        out->behind[b].n = &seconds[kept] - out->behind[b].seconds;
}

/* Computing of the passes that stands behind the first exchange of a lane. */
static void list_behind(struct ready_rank *out, const struct record_step *s, int rank,
                        const struct measure_calls *calls)
{
    const struct record_rank *k = &s->ranks[rank];
    i64 first[LANE_COUNT], n; /* when the first exchange of each began, ascending */
    for (i64 i = calls->first[rank]; i < calls->first[rank + 1]; i++) {
        int b = 0;
        while (b < out->n_behind && out->behind[b].lane != calls->at[i].lane)
            b++;
        if (b < out->n_behind)
            continue;
        first[b] = calls->at[i].begin;
        out->behind[out->n_behind++] = (struct ready_behind){ .lane = calls->at[i].lane };
    }
    const struct record_span *spans = record_lane(k, TRACE_COMPUTE, &n);
    if (k->rising) {
        share_list(out, spans, n, first, ARENA_UNSET(s->arena, double, n));
        return;
    }
    for (int b = 0; b < out->n_behind; b++) {
        struct ready_behind *l = &out->behind[b];
        l->seconds = ARENA_UNSET(s->arena, double, n);
        for (i64 i = 0; i < n; i++)
            if (spans[i].begin_ns >= first[b] && is_of_passes(&spans[i]))
                l->seconds[l->n++] = s_of(spans[i].end_ns - spans[i].begin_ns);
    }
}

void *measure_ready(void *context, const struct record_step *s, void **kept)
{
    struct ready *x = ARENA_NEW(s->arena, struct ready);
    (void)context;
    (void)kept;
    x->met = find_meetings(s);
    measure_match_calls(s, &x->calls, s->arena);
    x->ranks = ARENA_ARRAY(s->arena, struct ready_rank, s->n_ranks);
    for (int r = 0; r < s->n_ranks; r++)
        if (s->ranks[r].head) {
            divide(&x->ranks[r], s, r, &x->calls, &x->met);
            list_tasks(&x->ranks[r], s, r, &x->calls);
            list_behind(&x->ranks[r], s, r, &x->calls);
        }
    return x;
}
