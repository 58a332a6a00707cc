#include "diagnose/record_parse.h"

#include "base/hash.h"
#include "base/json.h"
#include "train/health.h"

#include <math.h>
#include <string.h>

enum { MOST_TABLE_ITEMS = 1 << 24, MOST_MICRO_BATCHES = 65536, MOST_SLOTS = 65536 };

/* Reads values of one document; the first that is not as it must be is remembered. */
struct reader {
    struct arena *a;
    const char *name, *wrong;
};

static const json_t *member(struct reader *r, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!v && !r->wrong)
        r->wrong = key;
    return v;
}

static i64 whole(struct reader *r, const json_t *v, i64 least, i64 most, const char *what)
{
    i64 n = json_integer_value(v);
    if (!json_is_integer(v) || n < least || n > most) {
        r->wrong = r->wrong ? r->wrong : what;
        return i64_max(least, 0);
    }
    return n;
}

static i64 int_of(struct reader *r, const json_t *o, const char *key, i64 least, i64 most)
{
    return whole(r, member(r, o, key), least, most, key);
}

/* Not negative and finite; 0 for null. */
static double number(struct reader *r, const json_t *v, const char *what)
{
    double x = json_number_value(v);
    if ((v && !json_is_number(v) && !json_is_null(v)) || !(x >= 0) || isinf(x)) {
        r->wrong = r->wrong ? r->wrong : what;
        return 0;
    }
    return x;
}

static double number_of(struct reader *r, const json_t *o, const char *key)
{
    return number(r, member(r, o, key), key);
}

static const char *text_of(struct reader *r, const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? arena_strdup(r->a, text) : "";
}

/* Its length, when it is an array of at most `most`; else 0. */
static i64 array_of(struct reader *r, const json_t *v, i64 least, i64 most, const char *what)
{
    i64 n = (i64)json_array_size(v);
    if (json_is_array(v) && n >= least && n <= most)
        return n;
    r->wrong = r->wrong ? r->wrong : what;
    return 0;
}

static int end(const struct reader *r, json_t *document, const char *what)
{
    json_decref(document);
    return r->wrong ? err_set(ERR_FORMAT, "%s: the %s has no sound %s", r->name, what, r->wrong)
                    : OK;
}

/* --- HEAD --------------------------------------------------------------------------- */

static struct record_group group_from(struct reader *r, const json_t *v, i64 ranks)
{
    struct record_group g = { .n = (int)array_of(r, v, 0, ranks, "group") };
    i32 *members = ARENA_ARRAY(r->a, i32, g.n);
    for (int i = 0; i < g.n; i++)
        members[i] = (i32)whole(r, json_array_get(v, (size_t)i), 0, ranks - 1, "group");
    g.ranks = members;
    return g;
}

static void read_mesh(struct reader *r, const json_t *o, struct record_head *h)
{
    const json_t *mesh = member(r, o, "mesh");
    struct {
        const char *axis;
        i64 *at, *of;
    } axes[] = { { "islands", &h->island, &h->of_islands }, { "pp", &h->pp, &h->of_pp },
                 { "dp", &h->dp, &h->of_dp },               { "cp", &h->cp, &h->of_cp },
                 { "tp", &h->tp, &h->of_tp },               { "ep", NULL, &h->of_ep } };
    i64 product = 1;
    for (i64 i = 0; i < COUNT_OF(axes); i++) {
        const json_t *pair = member(r, mesh, axes[i].axis);
        *axes[i].of = whole(r, json_array_get(pair, 1), 1, RECORD_MOST_RANKS, axes[i].axis);
        i64 at = whole(r, json_array_get(pair, 0), 0, *axes[i].of - 1, axes[i].axis);
        if (axes[i].at) {
            *axes[i].at = at;
            product = i64_min(product * *axes[i].of, 2 * RECORD_MOST_RANKS);
        }
    }
    h->zero = int_of(r, mesh, "zero", 0, 3);
    if (product != h->ranks && !r->wrong)
        r->wrong = "mesh";
    i64 ranks = h->ranks;
    const json_t *groups = member(r, o, "groups"), *pairs = member(r, o, "boundaries");
    i64 n = array_of(r, groups, LANE_COUNT, LANE_COUNT, "groups");
    for (i64 i = 0; i < n; i++)
        h->groups[i] = group_from(r, json_array_get(groups, (size_t)i), ranks);
    h->n_boundaries = (int)array_of(r, pairs, 0, RECORD_MOST_RANKS, "boundaries");
    h->boundaries = ARENA_ARRAY(r->a, struct record_group, h->n_boundaries);
    for (int i = 0; i < h->n_boundaries; i++) {
        h->boundaries[i] = group_from(r, json_array_get(pairs, (size_t)i), ranks);
        if (h->boundaries[i].n != 0 && h->boundaries[i].n != 2 && !r->wrong)
            r->wrong = "boundaries";
    }
}

static void read_machine(struct reader *r, const json_t *o, struct record_head *h)
{
    h->layout = text_of(r, o, "layout");
    h->host = text_of(r, o, "host");
    h->backend = text_of(r, o, "backend");
    h->processor = text_of(r, o, "processor");
    h->precision = text_of(r, o, "precision");
    h->pid = int_of(r, o, "pid", 0, INT64_MAX);
    h->threads = (int)int_of(r, o, "threads", 1, INT32_MAX);
    h->cores = (int)int_of(r, o, "cores", 1, INT32_MAX);
    h->sharers = json_object_get(o, "sharers") ? (int)int_of(r, o, "sharers", 1, INT32_MAX) : 1;
    h->flops_f32 = number_of(r, o, "flops_f32");
    h->flops_bf16 = number_of(r, o, "flops_bf16");
    h->widest = text_of(r, o, "widest");
    if (h->widest[0]) {
        h->widest_f32 = number_of(r, o, "widest_f32");
        h->widest_bf16 = number_of(r, o, "widest_bf16");
    }
    h->memory_bytes_per_s = number_of(r, o, "memory_bytes_per_s");
    h->launch_s = number_of(r, o, "launch_s");
    h->begin_ns = (u64)int_of(r, o, "begin_ns", 0, INT64_MAX);
    h->wall_begin = number_of(r, o, "wall_begin");
}

int record_parse_head(struct record_head *out, i64 *part_id, const char *text, i64 bytes,
                      const char *name, struct arena *a)
{
    struct reader r = { .a = a, .name = name };
    json_t *o;
    *out = (struct record_head){ 0 };
    TRY(json_parse(text, bytes, name, &o));
    i64 version = int_of(&r, o, "version", 1, INT32_MAX);
    if (version > RECORD_VERSION) {
        json_decref(o);
        return err_set(ERR_FORMAT, "%s has version %lld of the format; this program reads up to "
                       "%d", name, (long long)version, RECORD_VERSION);
    }
    out->ranks = (int)int_of(&r, o, "ranks", 1, RECORD_MOST_RANKS);
    out->rank = (int)int_of(&r, o, "rank", 0, out->ranks - 1);
    *part_id = int_of(&r, o, "part", 0, INT64_MAX);
    read_machine(&r, o, out);
    read_mesh(&r, o, out);
    return end(&r, o, "head");
}

/* --- TABLE -------------------------------------------------------------------------- */

static void read_tensors(struct reader *r, const json_t *o, struct record_table *t)
{
    const json_t *list = member(r, o, "tensors");
    t->n_tensors = array_of(r, list, 0, MOST_TABLE_ITEMS, "tensors");
    t->tensors = ARENA_ARRAY(r->a, struct record_tensor, t->n_tensors);
    for (i64 i = 0; i < t->n_tensors; i++) {
        const json_t *row = json_array_get(list, (size_t)i);
        const char *name = json_string_value(json_array_get(row, 0));
        t->tensors[i] = (struct record_tensor){
            .name = arena_strdup(r->a, name ? name : ""),
            .bytes = whole(r, json_array_get(row, 1), 0, INT64_MAX, "tensors"),
            .slots = (int)whole(r, json_array_get(row, 2), 1, MOST_SLOTS, "tensors"),
        };
    }
}

static int indices(struct reader *r, const json_t *list, i32 *out, i64 most, i64 tensors)
{
    int n = (int)array_of(r, list, 0, most, "tensors of a task");
    for (int i = 0; i < n; i++)
        out[i] = (i32)whole(r, json_array_get(list, (size_t)i), 0, tensors - 1,
                            "tensors of a task");
    return n;
}

/* The row that train/record_json.c writes. Names of ops repeat: each is kept once. */
static void read_task(struct reader *r, const json_t *row, struct record_table *t,
                      struct record_task *out, const struct record_task *before)
{
    enum { OP, LAYER, PHASE, PART, LANE, DTYPE, FLAGS, BOUNDARY, CALLS, CONDITIONAL, FLOPS,
           MODEL_FLOPS, READ, WRITTEN, SENT, READS, WRITES, MOVED, COLUMNS };
    const char *op = json_string_value(json_array_get(row, OP));
    i32 moved = -1;
    array_of(r, row, COLUMNS, COLUMNS, "task");
    op = op ? op : "";
    *out = (struct record_task){
        .op = before && strcmp(before->op, op) == 0 ? before->op : arena_strdup(r->a, op),
        .layer = (int)whole(r, json_array_get(row, LAYER), -1, 1 << 20, "layer"),
        .phase = (int)whole(r, json_array_get(row, PHASE), 0, PHASES - 1, "phase"),
        .part = (int)whole(r, json_array_get(row, PART), 0, 1 << 20, "part of a task"),
        .lane = (int)whole(r, json_array_get(row, LANE), 0, LANE_COUNT - 1, "lane"),
        .dtype = (int)whole(r, json_array_get(row, DTYPE), 0, 64, "dtype"),
        .flags = (int)whole(r, json_array_get(row, FLAGS), 0, 255, "flags"),
        .boundary = (int)whole(r, json_array_get(row, BOUNDARY), -1, 1 << 20, "boundary"),
        .calls = (int)whole(r, json_array_get(row, CALLS), 0, 1 << 20, "calls"),
        .conditional = json_is_true(json_array_get(row, CONDITIONAL)),
        .flops = number(r, json_array_get(row, FLOPS), "flops"),
        .model_flops = number(r, json_array_get(row, MODEL_FLOPS), "model flops"),
        .read_bytes = number(r, json_array_get(row, READ), "bytes read"),
        .written_bytes = number(r, json_array_get(row, WRITTEN), "bytes written"),
        .message_bytes = number(r, json_array_get(row, SENT), "bytes sent"),
    };
    out->op_hash = hash64(out->op, (i64)strlen(out->op), 0);
    const double work[] = { out->dtype, out->flops, out->read_bytes, out->written_bytes };
    out->kind_hash = hash64(work, sizeof work, out->op_hash);
    out->n_reads = indices(r, json_array_get(row, READS), out->reads, RECORD_TOUCHES, t->n_tensors);
    out->n_writes = indices(r, json_array_get(row, WRITES), out->writes, TASK_OUTS, t->n_tensors);
    out->moved = indices(r, json_array_get(row, MOVED), &moved, 1, t->n_tensors) ? moved : -1;
    if ((out->flags & (RECORD_SENDS | RECORD_RECEIVES)) && out->boundary < 0 && !r->wrong)
        r->wrong = "boundary";
    if (out->conditional && out->n_reads == 0 && !r->wrong)
        r->wrong = "condition";
    else if (out->conditional && strcmp(t->tensors[out->reads[0]].name, HEALTH_DUE) == 0)
        out->flags |= RECORD_WATCHES;
}

static struct record_tensor *touched(const struct record_table *t,
                                     const struct record_task *k, int i)
{
    return &t->tensors[i < k->n_reads ? k->reads[i] : k->writes[i - k->n_reads]];
}

/* What calls of other lanes touch, and who may meet them there: most tasks never do. */
static void find_meeting(struct record_table *t)
{
    for (i64 i = 0; i < t->n_tensors; i++)
        t->tensors[i].place = -1;
    for (i64 i = 0; i < t->n_tasks; i++) {
        const struct record_task *k = &t->tasks[i];
        const bool calls = k->lane != LANE_COMPUTE && !(k->flags & RECORD_WAITS);
        for (int n = 0; calls && n < k->n_reads + k->n_writes; n++)
            touched(t, k, n)->place = 0;
    }
    for (i64 i = 0; i < t->n_tensors; i++)
        if (t->tensors[i].place == 0) {
            t->tensors[i].place = t->n_places;
            t->n_places += t->tensors[i].slots;
        }
    for (i64 i = 0; i < t->n_tasks; i++) {
        struct record_task *k = &t->tasks[i];
        for (int n = 0; n < k->n_reads + k->n_writes; n++)
            if (touched(t, k, n)->place >= 0)
                k->flags |= RECORD_MEETS;
    }
}

static void read_tasks(struct reader *r, const json_t *o, struct record_table *t)
{
    const json_t *list = member(r, o, "tasks");
    t->n_tasks = array_of(r, list, 0, MOST_TABLE_ITEMS, "tasks");
    t->tasks = ARENA_ARRAY(r->a, struct record_task, t->n_tasks);
    for (i64 i = 0; i < t->n_tasks && !r->wrong; i++)
        read_task(r, json_array_get(list, (size_t)i), t, &t->tasks[i],
                  i > 0 ? &t->tasks[i - 1] : NULL);
}

static void read_order(struct reader *r, const json_t *o, struct record_table *t)
{
    const json_t *segments = member(r, o, "segments"), *actions = member(r, o, "actions");
    t->n_segments = array_of(r, segments, 0, 1 << 16, "segments");
    t->segments = ARENA_ARRAY(r->a, struct record_segment, t->n_segments);
    for (i64 i = 0; i < t->n_segments; i++) {
        const json_t *row = json_array_get(segments, (size_t)i);
        struct record_segment *s = &t->segments[i];
        s->kind = (int)whole(r, json_array_get(row, 0), 0, SEGMENT_KINDS - 1, "segments");
        s->part = (int)whole(r, json_array_get(row, 1), 0, 1 << 20, "segments");
        s->first = whole(r, json_array_get(row, 2), 0, t->n_tasks, "segments");
        s->n = whole(r, json_array_get(row, 3), 0, t->n_tasks - s->first, "segments");
    }
    t->n_actions = array_of(r, actions, 0, MOST_TABLE_ITEMS, "actions");
    t->actions = ARENA_ARRAY(r->a, struct action, t->n_actions);
    for (i64 i = 0; i < t->n_actions; i++) {
        const json_t *row = json_array_get(actions, (size_t)i);
        t->actions[i].segment = (u16)whole(r, json_array_get(row, 0), 0, t->n_segments - 1,
                                           "actions");
        t->actions[i].micro_batch = (u16)whole(r, json_array_get(row, 1), 0,
                                               t->micro_batches - 1, "actions");
    }
}

int record_parse_table(struct record_table *out, const char *text, i64 bytes, const char *name,
                       struct arena *a)
{
    struct reader r = { .a = a, .name = name };
    json_t *o;
    *out = (struct record_table){ 0 };
    TRY(json_parse(text, bytes, name, &o));
    out->name = text_of(&r, o, "name");
    out->B = int_of(&r, o, "B", 0, INT32_MAX);
    out->T = int_of(&r, o, "T", 0, INT32_MAX);
    out->micro_batches = (int)int_of(&r, o, "micro_batches", 1, MOST_MICRO_BATCHES);
    out->flops = number_of(&r, o, "flops");
    out->model_flops = number_of(&r, o, "model_flops");
    read_tensors(&r, o, out);
    read_tasks(&r, o, out);
    if (!r.wrong) {
        find_meeting(out);
        read_order(&r, o, out);
    }
    return end(&r, o, "table");
}

/* --- EVENT -------------------------------------------------------------------------- */

int record_parse_event(struct record_event *out, const char *text, i64 bytes, const char *name,
                       struct arena *a)
{
    struct reader r = { .a = a, .name = name };
    json_t *o;
    TRY(json_parse(text, bytes, name, &o));
    out->step = int_of(&r, o, "step", 0, UINT32_MAX);
    out->rank = (int)int_of(&r, o, "rank", 0, RECORD_MOST_RANKS);
    out->kind = text_of(&r, o, "kind");
    out->text = text_of(&r, o, "text");
    return end(&r, o, "event");
}
