/* One step's spans, of all ranks, on one clock; and whether those clocks can be right. */
#include "base/err.h"
#include "base/sort.h"
#include "base/sys.h"
#include "diagnose/record_index.h"

#include <math.h>
#include <stdlib.h>

/* --- clocks that jumped --------------------------------------------------------------- */

/* Of ranks that meet in every step, those of one island: when the last began, and the first
 * ended. */
struct common {
    i64 begun, ended, island;
    int last, first; /* which ranks those are */
    bool any;
};

static void add_window(struct common *c, const struct record *r, const struct entry *first,
                       const struct entry *last)
{
    const struct record_head *h = r->parts[first->part].heads[first->rank];
    const i64 begin = record_common_ns(r, h, first->begin_ns);
    const i64 end = i64_max(begin, record_common_ns(r, h, last->end_ns)); /* of a clock that went back */
    if (!c->any || h->island != c->island)
        *c = (struct common){ begin, end, h->island, h->rank, h->rank, true };
    if (begin > c->begun) {
        c->begun = begin;
        c->last = h->rank;
    }
    if (end < c->ended) {
        c->ended = end;
        c->first = h->rank;
    }
}

/* Seconds between the end of one rank's step and the begin of another's of the same island; at
 * most 0: they have a moment in common. */
static double seconds_apart(const struct record *r, i64 index, struct common *worst)
{
    const struct record_inside *x = r->inside;
    struct common c = { 0 };
    i64 most = 0;
    for (i64 i = x->first[index], to; i < x->first[index + 1]; i = to) {
        for (to = i + 1; to < x->first[index + 1] && x->entries[to].rank == x->entries[i].rank; to++)
            ;
        add_window(&c, r, &x->entries[i], &x->entries[to - 1]);
        if (c.begun - c.ended > most) {
            most = c.begun - c.ended;
            *worst = c;
        }
    }
    return 1e-9 * (double)most;
}

bool record_step_apart(const struct record *r, i64 index)
{
    struct common c;
    return seconds_apart(r, index, &c) > 0;
}

void record_tell_apart(struct record *r)
{
    struct common c, first = { 0 };
    double most = 0;
    i64 n = 0, from = 0;
    for (i64 i = 0; i < r->n_steps; i++) {
        double s = seconds_apart(r, i, &c);
        if (s > 0 && n++ == 0) {
            first = c;
            from = r->steps[i];
        }
        most = fmax(most, s);
    }
    if (n > 0)
        DAMAGE(r, "the clocks of ranks %d and %d jumped apart: in %lld steps, the first of them %lld, one "
                  "rank's step ends up to %.3f s before another's begins, so who waited for whom "
                  "in those is not known", (int)i64_min(first.first, first.last),
               (int)i64_max(first.first, first.last), (long long)n, (long long)from + 1, most);
}

/* --- a step ------------------------------------------------------------------------- */

static bool sound_span(const struct span *s, const struct record_table *t)
{
    return s->end_ns >= s->begin_ns && s->end_ns <= INT64_MAX && s->lane < TRACE_LANES &&
           s->kind < SPAN_KINDS && (!span_has_task(s->kind) || s->task < t->n_tasks) &&
           (s->kind != SPAN_WAIT || s->detail < TRACE_LANES);
}

/* NULL: it names none, or one that could not be read. */
static const struct record_table *table_of(const struct record_head *h, const struct entry *e)
{
    const bool named = e->table < MOST_TABLES && e->table < h->n_tables;
    return named && h->tables[e->table]->n_tasks > 0 ? h->tables[e->table] : NULL;
}

/* By lane, and on a lane in order of their ends. What is known of all of them is found as they
 * come: a step's spans are looked at once here. */
struct spans {
    struct record_span *at;
    i64 n;
    bool in_order; /* they are */
    bool rising;   /* and those of the lane that computes in order of their begins, too */
    i64 task_begin_ns, task_end_ns; /* between which all those lie that have a task */
    i64 steps;     /* spans of the step itself, the last of them in `step` */
    struct record_span step;
};

static struct spans no_spans(void)
{
    return (struct spans){ .in_order = true, .rising = true, .task_begin_ns = INT64_MAX,
                           .task_end_ns = INT64_MIN };
}

static inline int compare_spans(const struct record_span *x, const struct record_span *y)
{
    COMPARE(x, y, lane);
    COMPARE(x, y, end_ns);
    COMPARE(x, y, begin_ns);
    return 0;
}

static int by_lane(const void *a, const void *b)
{
    return compare_spans(a, b);
}

/* Whether a span that ends behind another one of its lane begins behind it, too: what is empty may
 * stand where the next one begins. */
static inline bool rises(const struct record_span *before, const struct record_span *k)
{
    return k->lane != TRACE_COMPUTE || before->lane != TRACE_COMPUTE ||
           before->begin_ns < k->begin_ns ||
           (before->begin_ns == k->begin_ns &&
            (before->end_ns == k->end_ns || before->end_ns == before->begin_ns));
}

static void put_in_order(struct spans *s, struct arena *a)
{
    if (s->in_order)
        return;
    sort_runs(s->at, s->n, (i64)sizeof *s->at, by_lane, a);
    s->rising = true;
    for (i64 i = 1; i < s->n && s->at[i].lane == TRACE_COMPUTE; i++)
        s->rising &= rises(&s->at[i - 1], &s->at[i]);
}

/* Of times between begin_ns and end_ns on a rank's clock all have the same shift to the record's,
 * where these two have: between two measurements of a clock the shift goes one way. */
struct shift {
    u64 begin_ns, end_ns; /* begin > end: they differ */
    i64 ns;
    i64 near;
};

static struct shift shift_of(const struct record *r, const struct record_head *h,
                             const struct entry *e)
{
    const struct member *m = (const struct member *)h;
    struct shift s = { .begin_ns = 1 };
    i64 near = record_clocks_until(m, e->begin_ns);
    s.near = near;
    const i64 first = record_shift_near(m, e->begin_ns, &near);
    const i64 last = record_shift_near(m, e->end_ns, &near);
    if (first == last && near == s.near) {
        s.begin_ns = e->begin_ns;
        s.end_ns = e->end_ns;
        s.ns = first + r->inside->offset_ns[h->part];
    }
    return s;
}

/* One more span, which lies in its place behind the others: what it tells of all of them. */
static inline void see_span(struct spans *s, i64 step)
{
    const struct record_span *k = &s->at[s->n - 1], *before = k - 1;
    if (k->task) {
        s->task_begin_ns = i64_min(s->task_begin_ns, k->begin_ns);
        s->task_end_ns = i64_max(s->task_end_ns, k->end_ns);
    } else if (k->kind == SPAN_STEP && k->step == (u32)step) {
        s->steps++;
        s->step = *k;
    }
    if (s->n == 1)
        return;
    s->in_order &= compare_spans(before, k) <= 0;
    s->rising &= rises(before, k);
}

/* Appends one chunk's spans; false: it is damaged. */
static bool add_chunk(struct record *r, const struct entry *e, const struct record_head *h,
                      struct span *raw, struct spans *out, i64 step, bool *incomplete)
{
    struct record_inside *x = r->inside;
    struct file *f = &x->files[e->file];
    const struct record_place place = record_place_of(e);
    const struct record_table *t = table_of(h, e);
    if (!t || record_use_file(x, f) < 0 || record_reader_payload(&f->reader, &place, raw) < 0)
        return false;
    const struct span *s = raw + sizeof(struct record_spans) / sizeof *raw;
    struct spans own = *out; /* apart, so that it may lie in registers */
    struct shift shift = shift_of(r, h, e);
    for (u32 i = 0; i < e->n; i++, s++) {
        if (!sound_span(s, t)) {
            *incomplete = true;
            continue;
        }
        const bool same = s->begin_ns >= shift.begin_ns && s->end_ns <= shift.end_ns;
        own.at[own.n++] = (struct record_span){
            .begin_ns = same ? (i64)s->begin_ns + shift.ns
                             : record_near_ns(r, h, s->begin_ns, &shift.near),
            .end_ns = same ? (i64)s->end_ns + shift.ns
                           : record_near_ns(r, h, s->end_ns, &shift.near),
            .task = span_has_task(s->kind) ? &t->tasks[s->task] : NULL, .task_id = s->task,
            .step = s->step, .action = s->action, .lane = s->lane, .kind = s->kind,
            .detail = s->detail };
        see_span(&own, step);
    }
    *out = own;
    return true;
}

static void find_bounds(struct record_rank *k, const struct spans *s, i64 step)
{
    bool whole = s->steps > 0; /* the span of the step itself is there */
    k->begin_ns = whole ? s->step.begin_ns : INT64_MAX;
    k->end_ns = whole ? s->step.end_ns : INT64_MIN;
    for (i64 i = 0; i < k->n_spans && s->steps > 1; i++) { /* the last one in order */
        const struct record_span *span = &k->spans[i];
        if (span->kind == SPAN_STEP && span->step == (u32)step) {
            k->begin_ns = span->begin_ns;
            k->end_ns = span->end_ns;
        }
    }
    for (i64 i = 0; i < k->n_spans && !whole && k->spans[i].lane == TRACE_COMPUTE; i++) {
        k->begin_ns = i64_min(k->begin_ns, k->spans[i].begin_ns);
        k->end_ns = i64_max(k->end_ns, k->spans[i].end_ns);
    }
    if (k->begin_ns == INT64_MAX) {
        k->begin_ns = k->window_begin_ns;
        k->end_ns = k->window_end_ns;
    }
}

/* Evaluations and searches run other programs, behind the step. */
static void drop_others(struct record_rank *k, struct record_span *spans, i64 n)
{
    i64 kept = 0;
    for (i64 i = 0; i < n; i++) {
        if (span_has_task(spans[i].kind) &&
            !(spans[i].begin_ns >= k->begin_ns && spans[i].end_ns <= k->end_ns))
            continue;
        if (kept < i)
            spans[kept] = spans[i];
        kept++;
    }
    k->n_spans = kept;
}

/* Where the lane's spans end, which begin at `from`: found by halves, since lanes are few. */
static i64 lane_end(const struct record_rank *k, int lane, i64 from)
{
    i64 low = from, high = k->n_spans;
    if (low == high || k->spans[low].lane > lane)
        return low;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (k->spans[middle].lane <= lane)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void find_lanes(struct record_rank *k)
{
    k->lane[0] = 0;
    for (int lane = 0; lane < TRACE_LANES; lane++)
        k->lane[lane + 1] = lane_end(k, lane, k->lane[lane]);
}

/* All chunks of one rank, [from, to) of the index; raw: room for the largest of them. */
static void read_rank(struct record *r, i64 from, i64 to, struct record_step *out,
                      struct span *raw)
{
    struct record_inside *x = r->inside;
    const struct entry *e = &x->entries[from];
    const struct record_head *h = r->parts[e->part].heads[e->rank];
    struct record_rank *k = &out->ranks[e->rank];
    i64 most = 0;
    for (i64 i = from; i < to; i++)
        most += x->entries[i].n;
    struct spans own = no_spans(), outer = no_spans();
    own.at = ARENA_UNSET(out->arena, struct record_span, most);
    *k = (struct record_rank){ .head = h };
    for (i64 i = from; i < to; i++, e++) {
        const struct record_table *t = table_of(h, e);
        const bool apart = t && k->table && t != k->table;
        k->incomplete |= (e->flags & RECORD_LOST) != 0;
        if (apart && !outer.at)
            outer.at = ARENA_UNSET(out->arena, struct record_span, most);
        const bool whole = add_chunk(r, e, h, raw, apart ? &outer : &own, out->step,
                                     &k->incomplete);
        if (whole && apart)
            k->outer_table = t;
        else if (whole)
            k->table = t;
        k->incomplete |= !whole;
        k->damaged += !whole;
        if (whole && k->window_end_ns == 0)
            k->window_begin_ns = record_common_ns(r, h, e->begin_ns);
        if (whole)
            k->window_end_ns = record_common_ns(r, h, e->end_ns);
    }
    if (!k->table) { /* nothing of it is sound */
        *k = (struct record_rank){ .damaged = k->damaged };
        return;
    }
    put_in_order(&own, out->arena);
    put_in_order(&outer, out->arena);
    k->spans = own.at;
    k->n_spans = own.n;
    k->outer = outer.at;
    k->n_outer = outer.n;
    k->rising = own.rising;
    find_bounds(k, &own, out->step);
    if (own.task_begin_ns < k->begin_ns || own.task_end_ns > k->end_ns)
        drop_others(k, own.at, own.n);
    find_lanes(k);
}

static void read_sample(struct record *r, struct record_rank *k, int rank,
                        const struct record_step *out)
{
    struct record_inside *x = r->inside;
    const struct sampled key = { .step = (u32)out->step, .rank = (u32)rank,
                                 .part = (u16)out->part };
    const struct sampled *s = NULL;
    if (k->head && x->n_samples > 0)
        s = bsearch(&key, x->samples, (size_t)x->n_samples, sizeof key, record_by_sample);
    if (!s || record_use_file(x, &x->files[s->file]) < 0)
        return;
    const struct record_place place = { { RECORD_SAMPLE, s->checksum, s->bytes }, s->at };
    i64 bytes = i64_max(s->bytes, (i64)sizeof(struct sample));
    void *sample = arena_alloc(out->arena, bytes); /* zeroed: an older, shorter one */
    if (record_reader_payload(&x->files[s->file].reader, &place, sample) == OK)
        k->sample = sample;
    else
        k->sample_lost = true;
}

/* When the first evaluation or checkpoint behind the step began, on any rank. */
static i64 end_of_work(const struct record_step *s)
{
    i64 end = INT64_MAX;
    for (int r = 0; r < s->n_ranks; r++) {
        const struct record_rank *k = &s->ranks[r];
        for (i64 i = 0; i < k->n_spans; i++) {
            const struct record_span *span = &k->spans[i];
            if ((span->kind == SPAN_EVAL || span->kind == SPAN_CHECKPOINT) &&
                span->begin_ns >= k->end_ns)
                end = i64_min(end, span->begin_ns);
        }
    }
    return end;
}

/* Of a run's last step, without what is done once behind it. */
static void end_windows(struct record_step *s)
{
    const i64 end = end_of_work(s);
    for (int r = 0; r < s->n_ranks && end < INT64_MAX; r++) {
        struct record_rank *k = &s->ranks[r];
        const i64 own_end = i64_max(end, k->end_ns);
        struct record_span *kept = ARENA_UNSET(s->arena, struct record_span, k->n_spans);
        i64 n = 0;
        for (i64 i = 0; i < k->n_spans; i++)
            if (k->spans[i].begin_ns < own_end) {
                kept[n] = k->spans[i];
                kept[n].end_ns = i64_min(kept[n].end_ns, own_end);
                n++;
            }
        k->spans = kept;
        k->n_spans = n;
        k->window_end_ns = i64_min(k->window_end_ns, own_end);
        find_lanes(k);
    }
}

static i64 index_of(const struct record *r, i64 step)
{
    i64 low = 0, high = r->n_steps;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (r->steps[middle] < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->n_steps && r->steps[low] == step ? low : -1;
}

int record_step(struct record *r, i64 step, struct record_step *out)
{
    struct record_inside *x = r->inside;
    struct arena *a = out->arena ? out->arena : sys_alloc((i64)sizeof *a, 16);
    i64 at = index_of(r, step);
    if (!a)
        return err_set(ERR_LIMIT, "no memory for a step's spans");
    if (out->arena)
        arena_clear(a);
    else
        arena_init(a);
    *out = (struct record_step){ .step = step, .arena = a };
    if (at < 0)
        return err_set(ERR_CONFIG, "step %lld is not recorded", (long long)step + 1);
    out->apart = record_step_apart(r, at);
    i64 from = x->first[at], end = x->first[at + 1];
    out->part = (int)x->entries[from].part;
    out->n_ranks = r->parts[out->part].ranks;
    out->ranks = ARENA_ARRAY(a, struct record_rank, out->n_ranks);
    i64 largest = 0;
    for (i64 i = from; i < end; i++)
        largest = i64_max(largest, (i64)record_place_of(&x->entries[i]).chunk.bytes);
    struct span *raw = arena_alloc_unset(a, largest);
    for (i64 to; from < end; from = to) {
        for (to = from; to < end && x->entries[to].rank == x->entries[from].rank; to++)
            ;
        read_rank(r, from, to, out, raw);
    }
    out->begin_ns = INT64_MAX;
    out->end_ns = INT64_MIN;
    for (int i = 0; i < out->n_ranks; i++) {
        struct record_rank *k = &out->ranks[i];
        read_sample(r, k, i, out);
        out->missing += !k->head;
        if (k->head) {
            out->begin_ns = i64_min(out->begin_ns, k->begin_ns);
            out->end_ns = i64_max(out->end_ns, k->end_ns);
        }
    }
    if (out->missing == out->n_ranks)
        return err_set(ERR_FORMAT, "the spans of step %lld are damaged", (long long)step + 1);
    if (step == r->final_step)
        end_windows(out);
    return OK;
}

void record_step_forget(struct record *r, i64 step)
{
    enum { AROUND = 1 << 17 }; /* that the system may have read beside what it was asked for */
    struct record_inside *x = r->inside;
    const i64 at = index_of(r, step);
    for (i64 i = at < 0 ? 0 : x->first[at]; at >= 0 && i < x->first[at + 1]; i++) {
        const struct entry *e = &x->entries[i];
        struct file *f = &x->files[e->file];
        const i64 from = i64_max(0, e->at - AROUND);
        const i64 to = e->at + (i64)record_place_of(e).chunk.bytes + AROUND;
        if (record_use_file(x, f) == OK)
            sys_forget(f->reader.fd, from, to - from);
    }
}

void record_step_free(struct record_step *out)
{
    if (out->arena) {
        arena_fini(out->arena);
        sys_free(out->arena);
    }
    *out = (struct record_step){ 0 };
}

double record_step_seconds(const struct record *r, i64 index)
{
    const struct record_inside *x = r->inside;
    double longest = 0, sum = 0;
    for (i64 i = x->first[index]; i < x->first[index + 1]; i++) {
        const struct entry *e = &x->entries[i];
        bool same = i > x->first[index] && e[-1].rank == e->rank;
        bool continued = same && e[-1].begin_ns == e->begin_ns;
        double seconds = 1e-9 * (double)(e->end_ns - e->begin_ns);
        sum = !same ? seconds : continued ? sum : sum + seconds;
        longest = fmax(longest, sum);
    }
    return longest;
}

double record_step_bytes(const struct record *r, i64 step)
{
    const struct record_inside *x = r->inside;
    i64 at = index_of(r, step);
    double bytes = 0;
    for (i64 i = at < 0 ? 0 : x->first[at]; at >= 0 && i < x->first[at + 1]; i++)
        bytes += (double)record_place_of(&x->entries[i]).chunk.bytes;
    return bytes;
}

int record_step_ranks(const struct record *r, i64 index)
{
    const struct record_inside *x = r->inside;
    int n = 0;
    for (i64 i = x->first[index]; i < x->first[index + 1]; i++)
        n += i == x->first[index] || x->entries[i - 1].rank != x->entries[i].rank;
    return n;
}

bool record_step_kept(const struct record *r, i64 index)
{
    const struct record_inside *x = r->inside;
    for (i64 i = x->first[index]; i < x->first[index + 1]; i++)
        if (!x->files[x->entries[i].file].kept)
            return false;
    return true;
}
