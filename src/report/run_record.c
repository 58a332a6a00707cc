#include "report/run_record.h"

#include "base/arena.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "diagnose/record.h"
#include "report/kernels.h"
#include "report/pack.h"
#include "report/run_ladder.h"
#include "report/step_memory.h"
#include "report/thin.h"

#include <stdlib.h>
#include <string.h>

/* What tells spans apart to the eye. The page has colours and words for them in this order. */
enum shown_kind {
    SHOWN_FORWARD, SHOWN_INPUT_GRAD, SHOWN_WEIGHT_GRAD, SHOWN_UPDATE, SHOWN_AGAIN, SHOWN_WAIT,
    SHOWN_DATA, SHOWN_CALL, SHOWN_LOAD, SHOWN_EVAL, SHOWN_SAVE, SHOWN_LOG, SHOWN_MEET, SHOWN_KINDS
};

static enum shown_kind shown_kind(const struct record_span *s)
{
    static const enum shown_kind others[SPAN_KINDS] = {
        [SPAN_LOAD_WAIT] = SHOWN_DATA, [SPAN_LOAD] = SHOWN_LOAD, [SPAN_EVAL] = SHOWN_EVAL,
        [SPAN_CHECKPOINT] = SHOWN_SAVE, [SPAN_LOG] = SHOWN_LOG, [SPAN_MEET] = SHOWN_MEET,
    };
    if (s->kind == SPAN_WAIT)
        return SHOWN_WAIT;
    if (s->kind == SPAN_CALL)
        return SHOWN_CALL;
    if (s->kind != SPAN_TASK)
        return s->kind < SPAN_KINDS ? others[s->kind] : SHOWN_LOG;
    if (s->task && s->task->flags & RECORD_RECOMPUTE)
        return SHOWN_AGAIN;
    return s->task && s->task->phase >= 0 && s->task->phase < PHASES
               ? (enum shown_kind)s->task->phase
               : SHOWN_FORWARD;
}

/* --- labels ------------------------------------------------------------------------- */

struct label {
    const char *op; /* borrowed from the record, or a kind's name */
    i32 layer;
};

struct labels {
    struct label *list;
    i64 n, capacity;
    u32 *slots; /* 0: free, else 1 + index; twice as many as labels, a power of two */
    i64 n_slots;
};

static u32 *label_slot(const struct labels *l, const struct label *x)
{
    u64 at = hash64(x->op, (i64)strlen(x->op), (u64)(u32)x->layer);
    for (;; at++) {
        u32 *slot = &l->slots[at & (u64)(l->n_slots - 1)];
        if (*slot == 0 || (l->list[*slot - 1].layer == x->layer &&
                           strcmp(l->list[*slot - 1].op, x->op) == 0))
            return slot;
    }
}

static void labels_grow(struct labels *l)
{
    sys_free(l->slots);
    l->capacity = i64_max(1024, 2 * l->capacity);
    l->n_slots = 2 * l->capacity;
    l->list = sys_realloc(l->list, l->capacity * (i64)sizeof *l->list);
    l->slots = sys_alloc(l->n_slots * (i64)sizeof *l->slots, 64);
    if (!l->list || !l->slots)
        err_panic("out of memory for %lld labels", (long long)l->capacity);
    memset(l->slots, 0, (size_t)l->n_slots * sizeof *l->slots);
    for (i64 i = 0; i < l->n; i++)
        *label_slot(l, &l->list[i]) = (u32)i + 1;
}

static u32 label_of(struct labels *l, const struct record_span *s)
{
    struct label x = { .op = s->task ? s->task->op : trace_kind_name(s->kind),
                       .layer = s->task ? s->task->layer : -1 };
    if (l->n == l->capacity)
        labels_grow(l);
    u32 *slot = label_slot(l, &x);
    if (*slot == 0) {
        l->list[l->n++] = x;
        *slot = (u32)l->n;
    }
    return *slot - 1;
}

static void put_labels(const struct labels *l, struct json *j)
{
    json_key(j, "labels");
    json_begin_array(j);
    for (i64 i = 0; i < l->n; i++)
        json_str(j, l->list[i].op);
    json_end(j);
    json_key(j, "layers");
    json_begin_array(j);
    for (i64 i = 0; i < l->n; i++)
        json_int(j, l->list[i].layer);
    json_end(j);
}

/* --- lanes -------------------------------------------------------------------------- */

/* One lane of one rank, over all shown steps. */
struct shown_lane {
    struct thin_span *spans;
    i64 n, capacity;
};

struct shown_rank {
    const struct record_head *head;
    struct shown_lane lanes[TRACE_LANES];
    double seconds[SHOWN_KINDS]; /* sums of all its spans; of calls, which lie above each other: in
                                  * which any is under way */
    i64 steps_missing;
};

struct shown {
    struct record *record;
    struct shown_rank *ranks;
    int n_ranks;
    i64 first, n_steps; /* of record->steps */
    i64 *begins, *ends; /* [n_steps], of all ranks */
    i64 resolution_ns;  /* the coarsest of any lane */
    i64 all_spans;
    struct labels labels;
    struct kernels kernels;
};

static void lane_add(struct shown_lane *l, const struct thin_span *span)
{
    if (l->n == l->capacity) {
        l->capacity = i64_max(64, 2 * l->capacity);
        l->spans = sys_realloc(l->spans, l->capacity * (i64)sizeof *l->spans);
        if (!l->spans)
            err_panic("out of memory for %lld spans of a timeline", (long long)l->capacity);
    }
    l->spans[l->n++] = *span;
}

static bool is_shown(const struct record_span *s)
{
    return s->kind != SPAN_STEP && s->end_ns > s->begin_ns && s->lane < TRACE_LANES;
}

/* Those of one lane, thinned, behind what the lane has of earlier steps. */
static void add_lane(struct shown *w, struct shown_rank *out, const struct record_span *spans,
                     i64 n, int lane, i64 most)
{
    struct shown_lane *l = &out->lanes[lane];
    i64 before = l->n, resolution;
    for (i64 i = 0; i < n; i++) {
        const struct record_span *s = &spans[i];
        if (s->lane != lane || !is_shown(s))
            continue;
        i64 length = s->end_ns - s->begin_ns;
        enum shown_kind kind = shown_kind(s);
        out->seconds[kind] += kind == SHOWN_CALL ? 0 : 1e-9 * (double)length;
        lane_add(l, &(struct thin_span){ s->begin_ns, s->end_ns, label_of(&w->labels, s), 1,
                                         (u32)kind, length, length });
    }
    w->all_spans += l->n - before;
    l->n = before + thin_spans(l->spans + before, l->n - before, most, &resolution);
    w->resolution_ns = i64_max(w->resolution_ns, resolution);
}

static i64 count_lane(const struct record_rank *r, int lane)
{
    i64 n = 0;
    for (i64 i = 0; i < r->n_spans; i++)
        n += r->spans[i].lane == lane && is_shown(&r->spans[i]);
    return n;
}

static int by_begin(const void *a, const void *b)
{
    const struct record_span *x = *(const struct record_span *const *)a;
    const struct record_span *y = *(const struct record_span *const *)b;
    return (x->begin_ns > y->begin_ns) - (x->begin_ns < y->begin_ns);
}

/* Seconds in which any of these calls is under way, on any lane. */
static double under_way(const struct record_span *spans, i64 n)
{
    struct arena a;
    i64 calls = 0, sum = 0, until = INT64_MIN;
    arena_init(&a);
    const struct record_span **order = ARENA_ARRAY(&a, const struct record_span *, n);
    for (i64 i = 0; i < n; i++)
        if (is_shown(&spans[i]) && shown_kind(&spans[i]) == SHOWN_CALL)
            order[calls++] = &spans[i];
    qsort(order, (size_t)calls, sizeof *order, by_begin);
    for (i64 i = 0; i < calls; i++) {
        sum += i64_max(0, order[i]->end_ns - i64_max(until, order[i]->begin_ns));
        until = i64_max(until, order[i]->end_ns);
    }
    arena_fini(&a);
    return 1e-9 * (double)sum;
}

/* Each lane gets its share of what a rank may show of a step. */
static void add_rank(struct shown *w, struct shown_rank *out, const struct record_rank *r)
{
    i64 most = i64_max(24, RECORD_SPANS_SHOWN / ((i64)w->n_ranks * w->n_steps));
    i64 count[TRACE_LANES], all = 0;
    if (!r->head) {
        out->steps_missing++;
        return;
    }
    out->head = r->head;
    for (int lane = 0; lane < TRACE_LANES; lane++)
        all += count[lane] = count_lane(r, lane);
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        double share = (double)count[lane] / (double)i64_max(1, all);
        if (count[lane] > 0)
            add_lane(w, out, r->spans, r->n_spans, lane,
                     all <= most ? most : i64_max(4, (i64)(share * (double)most)));
    }
    for (i64 i = 0; i < r->n_outer; i++)
        if (r->outer[i].lane < TRACE_LANES)
            add_lane(w, out, &r->outer[i], 1, r->outer[i].lane, 1);
    out->seconds[SHOWN_CALL] += under_way(r->spans, r->n_spans) + under_way(r->outer, r->n_outer);
    kernels_add(&w->kernels, r);
}

static int add_step(struct shown *w, i64 index, struct json *memory)
{
    struct record_step step = { 0 };
    int rc = record_step(w->record, w->record->steps[w->first + index], &step);
    if (rc == OK) {
        for (int r = 0; r < i64_min(step.n_ranks, w->n_ranks); r++)
            add_rank(w, &w->ranks[r], &step.ranks[r]);
        w->begins[index] = step.begin_ns;
        w->ends[index] = step.end_ns;
        if (index + 1 == w->n_steps)
            step_memory_put(&step.ranks[0], memory);
    }
    record_step_free(&step);
    return rc;
}

/* --- for the page ------------------------------------------------------------------- */

/* Begin since the end before, length, label, kind; and how many it stands for, where that is more
 * than one (then the kind is beyond SHOWN_KINDS). */
static void put_lane(const struct shown_lane *l, int lane, i64 origin, struct json *j)
{
    struct text bytes = { 0 };
    i64 before = origin;
    for (i64 i = 0; i < l->n; i++) {
        const struct thin_span *s = &l->spans[i];
        i64 d = s->begin_ns - before;
        text_add_varint(&bytes, (u64)d << 1 ^ (u64)(d >> 63));
        text_add_varint(&bytes, (u64)(s->end_ns - s->begin_ns));
        text_add_varint(&bytes, s->name);
        text_add_varint(&bytes, s->kind + (s->count > 1 ? SHOWN_KINDS : 0));
        if (s->count > 1) {
            text_add_varint(&bytes, s->count);
            text_add_varint(&bytes, (u64)s->busy_ns);
        }
        before = s->end_ns;
    }
    json_begin_object(j);
    json_put_str(j, "lane", trace_lane_name(lane));
    json_put_int(j, "n", l->n);
    json_key(j, "spans");
    pack_bytes(j, bytes.data, bytes.length);
    json_end(j);
    text_fini(&bytes);
}

static void put_place(const struct record_head *h, struct json *j)
{
    const struct { const char *axis; i64 at, of; } axes[] = {
        { "island", h->island, h->of_islands }, { "stage", h->pp, h->of_pp },
        { "dp", h->dp, h->of_dp }, { "cp", h->cp, h->of_cp }, { "tp", h->tp, h->of_tp },
    };
    struct text place = { 0 };
    text_add(&place, "");
    for (i64 i = 0; i < COUNT_OF(axes); i++)
        if (axes[i].of > 1)
            text_printf(&place, "%s%s %lld", place.length ? ", " : "", axes[i].axis,
                        (long long)axes[i].at);
    json_put_str(j, "place", place.data);
    json_put_str(j, "host", h->host);
    text_fini(&place);
}

static void put_rank(const struct shown *w, int r, struct json *j)
{
    const struct shown_rank *x = &w->ranks[r];
    json_begin_object(j);
    json_put_int(j, "rank", r);
    json_put_int(j, "steps_missing", x->steps_missing);
    if (x->head)
        put_place(x->head, j);
    json_key(j, "seconds");
    json_begin_array(j);
    for (int k = 0; k < SHOWN_KINDS; k++)
        json_double(j, x->seconds[k]);
    json_end(j);
    json_key(j, "lanes");
    json_begin_array(j);
    for (int lane = 0; lane < TRACE_LANES; lane++)
        if (x->lanes[lane].n > 0)
            put_lane(&x->lanes[lane], lane, w->begins[0], j);
    json_end(j);
    json_end(j);
}

static void put_steps(const struct shown *w, struct json *j)
{
    json_key(j, "steps");
    json_begin_array(j);
    for (i64 i = 0; i < w->n_steps; i++) {
        json_begin_object(j);
        json_put_int(j, "step", w->record->steps[w->first + i]);
        json_put_int(j, "begin", w->begins[i] - w->begins[0]);
        json_put_int(j, "end", w->ends[i] - w->begins[0]);
        json_end(j);
    }
    json_end(j);
}

static void put_ceilings(const struct shown *w, struct json *j)
{
    json_key(j, "ceilings");
    json_begin_array(j);
    for (int r = 0; r < w->n_ranks; r++) {
        const struct record_head *h = w->ranks[r].head;
        if (!h)
            continue;
        json_begin_object(j);
        json_put_int(j, "rank", r);
        json_put_str(j, "processor", h->processor);
        json_put_str(j, "precision", h->precision);
        json_put_int(j, "threads", h->threads);
        json_put_double(j, "flops_f32", h->flops_f32);
        json_put_double(j, "flops_bf16", h->flops_bf16);
        json_put_double(j, "memory_bytes_per_s", h->memory_bytes_per_s);
        json_end(j);
        break; /* points are means over ranks, and so are compared with one rank's */
    }
    json_end(j);
}

static void put_record(struct shown *w, const struct json *memory, struct json *j)
{
    const struct record *r = w->record;
    json_begin_object(j);
    put_steps(w, j);
    put_labels(&w->labels, j);
    json_key(j, "ranks");
    json_begin_array(j);
    for (int i = 0; i < w->n_ranks; i++)
        put_rank(w, i, j);
    json_end(j);
    json_put_int(j, "all_spans", w->all_spans);
    json_put_int(j, "resolution", w->resolution_ns);
    put_ceilings(w, j);
    json_key(j, "kernels");
    kernels_put(&w->kernels, j);
    json_key(j, "memory");
    json_literal(j, memory->out.data ? memory->out.data : "null");
    json_key(j, "ladder");
    run_ladder_put(w->record, j);
    json_key(j, "damage");
    json_begin_array(j);
    for (i64 i = 0; i < r->n_damage; i++)
        json_str(j, r->damage[i]);
    json_end(j);
    json_key(j, "events");
    json_begin_array(j);
    for (i64 i = 0; i < r->n_events; i++) {
        json_begin_object(j);
        json_put_int(j, "step", r->events[i].step);
        json_put_int(j, "rank", r->events[i].rank);
        json_put_str(j, "kind", r->events[i].kind);
        json_put_str(j, "text", r->events[i].text);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void shown_fini(struct shown *w)
{
    for (int r = 0; r < w->n_ranks; r++)
        for (int lane = 0; lane < TRACE_LANES; lane++)
            sys_free(w->ranks[r].lanes[lane].spans);
    sys_free(w->labels.list);
    sys_free(w->labels.slots);
}

/* Which steps are shown: the newest up to that one, all of one part of the run, since another part
 * has other ranks. */
static int choose_steps(struct shown *w, const struct record *r, i64 newest)
{
    i64 end = r->n_steps;
    while (end > 0 && newest >= 0 && r->steps[end - 1] > newest)
        end--;
    if (end == 0)
        return err_set(ERR_FORMAT, r->n_steps ? "no step up to %lld is recorded"
                                              : "the record has no steps", (long long)newest + 1);
    int part = r->n_parts - 1;
    while (part > 0 && r->parts[part].first_step > r->steps[end - 1])
        part--;
    w->n_ranks = r->parts[part].ranks;
    w->first = end;
    while (w->first > 0 && end - w->first < RECORD_STEPS_SHOWN &&
           r->steps[w->first - 1] >= r->parts[part].first_step)
        w->first--;
    w->n_steps = end - w->first;
    return w->n_steps > 0 ? OK : err_set(ERR_FORMAT, "the record's parts do not fit its steps");
}

static int show_steps(struct record *r, i64 newest, struct arena *a, struct json *j)
{
    struct shown *w = ARENA_NEW(a, struct shown);
    struct json memory;
    int rc = OK;
    *w = (struct shown){ .record = r };
    TRY(choose_steps(w, r, newest));
    w->ranks = ARENA_ARRAY(a, struct shown_rank, w->n_ranks);
    w->begins = ARENA_ARRAY(a, i64, w->n_steps);
    w->ends = ARENA_ARRAY(a, i64, w->n_steps);
    json_writer_init(&memory);
    for (i64 i = 0; i < w->n_steps && rc >= 0; i++)
        rc = add_step(w, i, &memory);
    if (rc >= 0)
        put_record(w, &memory, j);
    json_writer_fini(&memory);
    shown_fini(w);
    return rc;
}

int run_record_put(const char *folder, i64 newest, struct json *j)
{
    struct record record;
    struct arena a;
    int rc = record_open(&record, folder);
    if (rc < 0) {
        json_nothing(j);
        return rc;
    }
    arena_init(&a);
    rc = show_steps(&record, newest, &a, j);
    if (rc < 0)
        json_nothing(j);
    arena_fini(&a);
    record_close(&record);
    return rc;
}
