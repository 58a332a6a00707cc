#include "data/loader.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/inject.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "base/sys_usage.h"
#include "data/ledger.h"
#include "data/mixture.h"
#include "ops/ops.h"
#include "ops/zigzag.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* One step's rows. Reading threads take rows in order; the last to finish sums up. */
struct slot {
    struct loader_step shape;
    i64 position;
    i64 rows, taken, done;
    i32 *tokens, *targets, *positions, *begin, *sources; /* [capacity] each */
    float *weights;
    struct row_sums *sums; /* [capacity of rows] */
    int *row_source;
    i64 idle, documents; /* see loader_counts */
    double attended;
    double weight;
    i64 bytes[LOADER_SOURCES];
    u64 begin_ns;
    int rc; /* first failure, with its words and whose fault it was */
    int failed_source;
    char message[512];
};

struct source {
    const char *name;
    struct dataset data;
    i64 windows; /* per epoch; for evaluation: that are looked at */
    i64 first;   /* evaluation: windows of the sources before */
    i64 cap;     /* windows that the recipe lets it give; INT64_MAX: any number */
    u64 key;     /* hash of the name */
};

struct reader {
    struct loader *loader;
    struct row_maker *maker;
    struct dataset_reader *from; /* [sources] */
    pthread_t thread;
    bool started;
};

struct loader {
    struct arena arena;
    struct loader_config config;
    struct row_rule rule;
    struct source *sources;
    i64 n_sources;
    bool eval;
    struct mixture mixture; /* training only */
    i64 failed_source;      /* whose text the last step lacked; -1: none */
    i64 windows;            /* all that can be served; INT64_MAX: no end */

    /* Slots are a ring by sequence number: [next - 1] is in use by the program,
     * [next, planned) are being filled or ready. The mutex guards all below. */
    pthread_mutex_t mutex;
    pthread_cond_t work, ready;
    struct slot *slots;
    i64 n_slots, capacity, row_capacity;
    i64 next, planned;
    i64 busy; /* rows being filled at this moment */
    i64 read_bytes;
    u64 busy_ns, cpu_ns;
    bool stop;
    struct reader *readers;
    int n_readers;

    /* Of the calling thread. */
    i64 position;
    struct slot *current;
    u64 waited_ns;
    i64 lay_ready;  /* steps, when the last was asked for */
    i64 used_bytes;
};

/* --- which tokens ------------------------------------------------------------------- */

/* Where window g lies. Each epoch of each source has its own permutation and key. */
static void locate(const struct loader *l, i64 g, int *source, i64 *window,
                   struct rng *key)
{
    const struct source *s;
    if (l->eval) {
        *source = 0;
        while (g >= l->sources[*source].first + l->sources[*source].windows)
            ++*source;
        s = &l->sources[*source];
        i64 all = row_windows(&s->data, l->rule.window);
        *window = (i64)((__int128)(g - s->first) * all / s->windows);
        *key = (struct rng){ 0 };
        return;
    }
    i64 nth;
    mixture_at(&l->mixture, g, source, &nth);
    s = &l->sources[*source];
    u64 epoch[2] = { s->key, (u64)(nth / s->windows) };
    *key = (struct rng){ l->config.seed, hash64(epoch, sizeof epoch, 0) };
    *window = rng_permute(key, s->windows, nth % s->windows);
}

/* Which row of the step on all ranks our row is. */
static i64 row_of_step(const struct loader_step *s, i64 row)
{
    i64 stride = s->stride ? s->stride : s->B;
    return s->first_row + row / s->B * stride + row % s->B;
}

static int fill_row(struct reader *r, struct slot *slot, i64 row)
{
    const struct loader *l = r->loader;
    i64 T = slot->shape.T, at = row * T, window;
    i64 position = slot->position + row_of_step(&slot->shape, row) * T;
    i64 g = position / l->rule.window;
    const struct row out = { .tokens = slot->tokens + at,
                             .targets = slot->targets + at,
                             .positions = slot->positions + at,
                             .begin = slot->begin + at,
                             .weights = slot->weights + at };
    struct rng key;
    int source = 0, rc = OK;
    slot->sums[row] = (struct row_sums){ 0 };
    if (g >= l->windows) {
        row_clear(&out, T);
    } else {
        locate(l, g, &source, &window, &key);
        rc = row_fill(r->maker, &r->from[source], &key, window, position % l->rule.window,
                      T, &out, &slot->sums[row]);
    }
    for (i64 i = 0; i < T; i++)
        slot->sources[at + i] = source;
    slot->row_source[row] = source;
    return rc;
}

/* --- reading threads ---------------------------------------------------------------- */

static struct slot *slot_at(const struct loader *l, i64 sequence)
{
    return &l->slots[sequence % l->n_slots];
}

static void finish_slot(struct loader *l, struct slot *s)
{
    memset(s->bytes, 0, sizeof s->bytes);
    s->weight = 0;
    for (i64 i = 0; i < s->rows && (s->shape.cut <= 1 || s->shape.part == 0); i++) {
        s->weight += s->sums[i].weight;
        s->bytes[s->row_source[i]] += s->sums[i].bytes;
    }
    if (l->config.trace) {
        i64 kib = s->rows * s->shape.T * 4 / 1024;
        trace_add(l->config.trace, &(struct span){ .begin_ns = s->begin_ns,
                                                   .end_ns = sys_now_ns(),
                                                   .step = (u32)s->shape.step,
                                                   .lane = TRACE_LOADER,
                                                   .kind = SPAN_LOAD,
                                                   .detail = (u32)kib });
    }
    pthread_cond_signal(&l->ready);
}

/* The oldest slot that has rows to fill, or NULL. */
static struct slot *find_work(const struct loader *l)
{
    for (i64 i = l->next; i < l->planned; i++)
        if (slot_at(l, i)->taken < slot_at(l, i)->rows)
            return slot_at(l, i);
    return NULL;
}

/* --- disturbed on purpose ----------------------------------------------------------- */

/* Attention ends at more borders, and the end of the row counts in no loss. */
static void disturb_row(const struct loader *l, struct slot *slot, i64 row)
{
    const struct inject *x = l->config.inject;
    const u64 step = slot->shape.step;
    const struct inject_fault *padding = inject_at(x, INJECT_PADDING, step);
    i64 T = slot->shape.T, at = row * T;
    i64 length = inject_length(x, step, row_of_step(&slot->shape, row), T);
    i64 kept = padding ? T - (i64)(padding->value * (double)T) : T;
    for (i64 i = 0; i < T; i++) {
        i64 begin = i64_max(slot->begin[at + i], i / length * length);
        slot->positions[at + i] = (i32)(slot->begin[at + i] == begin ? slot->positions[at + i]
                                                                     : i - begin);
        slot->begin[at + i] = (i32)begin;
        if (i < kept)
            continue;
        slot->sums[row].weight -= (double)slot->weights[at + i];
        slot->weights[at + i] = 0;
    }
}

/* The whole step's, by who begins it. */
static void take_longer(const struct loader *l, const struct slot *slot)
{
    double spin, bytes = 4.0 * (double)(slot->rows * slot->shape.T);
    double all = inject_load(l->config.inject, slot->shape.step, bytes, &spin);
    u64 until = sys_now_ns() + (u64)(1e9 * spin);
    while (spin > 0 && sys_now_ns() < until)
        sys_pause();
    if (all > spin)
        sys_sleep_ns((u64)(1e9 * (all - spin)));
}

/* What the row's tokens have to do; added up with the mutex held. */
struct row_facts {
    i64 idle, documents;
    double attended;
    u64 busy_ns, cpu_ns;
};

/* Of a token, where it lies: two bytes where the vocabulary of its tokenizer fits. */
static i64 stored_bytes(const struct loader *l)
{
    return l->sources[0].data.vocab > UINT16_MAX + 1 ? 4 : 2;
}

static void look_at_row(const struct slot *slot, i64 row, struct row_facts *out)
{
    const i64 T = slot->shape.T, at = row * T;
    for (i64 i = 0; i < T; i++) {
        out->idle += slot->weights[at + i] == 0;
        out->documents += slot->begin[at + i] == (i32)i;
        out->attended += (double)(i - slot->begin[at + i] + 1);
    }
}

static int make_row(struct reader *r, struct slot *slot, i64 row)
{
    const struct loader *l = r->loader;
    if (l->config.inject && row == 0)
        take_longer(l, slot);
    TRY(fill_row(r, slot, row));
    if (l->config.inject)
        disturb_row(l, slot, row);
    return OK;
}

static void add_facts(struct loader *l, struct slot *s, const struct row_facts *f)
{
    s->idle += f->idle;
    s->documents += f->documents;
    s->attended += f->attended;
    l->busy_ns += f->busy_ns;
    l->cpu_ns += f->cpu_ns;
    l->read_bytes += s->shape.T * stored_bytes(l);
}

static void *read_rows(void *context)
{
    struct reader *r = context;
    struct loader *l = r->loader;
    struct slot *s;
    pthread_mutex_lock(&l->mutex);
    for (;;) {
        while (!l->stop && !(s = find_work(l)))
            pthread_cond_wait(&l->work, &l->mutex);
        if (l->stop)
            break;
        i64 row = s->taken++;
        if (row == 0)
            s->begin_ns = sys_now_ns();
        l->busy++;
        pthread_mutex_unlock(&l->mutex);
        struct row_facts facts = { 0 };
        u64 begin = sys_now_ns();
        double computed = sys_thread_cpu_seconds();
        int rc = make_row(r, s, row);
        if (rc == OK)
            look_at_row(s, row, &facts);
        facts.busy_ns = sys_now_ns() - begin;
        facts.cpu_ns = (u64)(1e9 * (sys_thread_cpu_seconds() - computed));
        pthread_mutex_lock(&l->mutex);
        l->busy--;
        add_facts(l, s, &facts);
        if (rc < 0 && s->rc == OK) {
            s->rc = rc;
            s->failed_source = s->row_source[row];
            snprintf(s->message, sizeof s->message, "%s", err_message());
        }
        if (++s->done == s->rows)
            finish_slot(l, s);
        else if (l->busy == 0)
            pthread_cond_signal(&l->ready); /* somebody may wait to discard */
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* --- planning; all with the mutex held ---------------------------------------------- */

static i64 step_rows(const struct loader_step *s)
{
    return s->micro_batches * s->B;
}

/* Places of the step on all ranks. */
static i64 step_places(const struct loader_step *s)
{
    return (s->all_rows ? s->all_rows : step_rows(s)) * s->T;
}

static void plan(struct loader *l, const struct loader_step *shape, i64 position)
{
    struct slot *s = slot_at(l, l->planned++);
    s->shape = *shape;
    s->position = position;
    s->rows = step_rows(shape);
    s->taken = s->done = 0;
    s->idle = s->documents = 0;
    s->attended = 0;
    s->rc = OK;
}

/* True when all rows of a step at this position exist (in evaluation: any). */
static bool can_serve(const struct loader *l, const struct loader_step *s, i64 position)
{
    i64 last = position + (l->eval ? 0 : step_places(s) - s->T);
    return last / l->rule.window < l->windows;
}

/* Guesses that the following steps look like this one. */
static void plan_ahead(struct loader *l)
{
    while (l->planned < l->next - 1 + l->n_slots) {
        const struct slot *last = slot_at(l, l->planned - 1);
        struct loader_step shape = last->shape;
        i64 position = last->position + step_places(&shape);
        shape.step++;
        if (!can_serve(l, &shape, position))
            break;
        plan(l, &shape, position);
    }
    pthread_cond_broadcast(&l->work);
}

/* Forgets what was read ahead, once no thread is writing into it. */
static void discard(struct loader *l)
{
    for (i64 i = l->next; i < l->planned; i++)
        slot_at(l, i)->taken = slot_at(l, i)->rows;
    while (l->busy > 0)
        pthread_cond_wait(&l->ready, &l->mutex);
    l->planned = l->next;
}

static void free_slots(struct loader *l)
{
    for (i64 i = 0; i < l->n_slots; i++) {
        sys_free(l->slots[i].tokens);
        sys_free(l->slots[i].sums);
        l->slots[i].tokens = NULL;
        l->slots[i].sums = NULL;
    }
    l->capacity = l->row_capacity = 0;
}

static i64 slot_bytes(i64 places, i64 rows)
{
    const struct slot *s;
    return 6 * 4 * places + rows * (i64)(sizeof *s->sums + sizeof *s->row_source);
}

/* Makes every slot large enough; happens when a step is larger than any before. */
static int grow_slots(struct loader *l, i64 places, i64 rows)
{
    if (places <= l->capacity && rows <= l->row_capacity)
        return OK;
    places = i64_max(places, l->capacity);
    rows = i64_max(rows, l->row_capacity);
    free_slots(l);
    for (i64 i = 0; i < l->n_slots; i++) {
        struct slot *s = &l->slots[i];
        s->tokens = sys_alloc(6 * 4 * places, 64);
        s->sums = sys_alloc(rows * (i64)(sizeof *s->sums + sizeof *s->row_source), 64);
        if (!s->tokens || !s->sums)
            return err_set(ERR_LIMIT,
                           "no memory to read steps of %lld tokens ahead; lower "
                           "data.prefetch or the batch",
                           (long long)places);
        s->targets = s->tokens + places;
        s->positions = s->tokens + 2 * places;
        s->begin = s->tokens + 3 * places;
        s->sources = s->tokens + 4 * places;
        s->weights = (float *)(s->tokens + 5 * places);
        s->row_source = (int *)(s->sums + rows);
    }
    l->capacity = places;
    l->row_capacity = rows;
    return OK;
}

/* --- one step ----------------------------------------------------------------------- */

static bool is_planned(const struct loader *l, const struct loader_step *s, i64 position)
{
    const struct slot *slot = slot_at(l, l->next);
    return l->next < l->planned && slot->position == position &&
           slot->shape.micro_batches == s->micro_batches && slot->shape.B == s->B &&
           slot->shape.T == s->T && slot->shape.first_row == s->first_row &&
           slot->shape.stride == s->stride &&
           slot->shape.cut == s->cut && slot->shape.part == s->part &&
           slot->shape.pairs == s->pairs &&
           step_places(&slot->shape) == step_places(s);
}

static int exhausted(const struct loader *l)
{
    return err_set(
        ERR_LIMIT,
        "every data source has reached its cap after %lld tokens; raise max_epochs "
        "or train for fewer steps",
        (long long)l->position);
}

/* Waits until the step at this position is ready, and returns how reading it went. */
static int await(struct loader *l, const struct loader_step *s, i64 position)
{
    if (!can_serve(l, s, position))
        return exhausted(l);
    if (!is_planned(l, s, position)) {
        discard(l);
        TRY(grow_slots(l, step_rows(s) * s->T, step_rows(s)));
        plan(l, s, position);
        pthread_cond_broadcast(&l->work);
    }
    struct slot *slot = slot_at(l, l->next);
    while (slot->done < slot->rows)
        pthread_cond_wait(&l->ready, &l->mutex);
    return slot->rc < 0 ? err_set(slot->rc, "%s", slot->message) : OK;
}

static int check_step(const struct loader *l, const struct loader_step *s)
{
    if (s->micro_batches < 1 || s->B < 1 || s->T < 1)
        return err_set(ERR_CONFIG, "a step needs at least one row of one token");
    if (s->cut > 1 && s->T % (2 * s->cut))
        return err_set(ERR_CONFIG, "rows of %lld tokens cannot be cut into %lld chunks",
                       (long long)s->T, (long long)(2 * s->cut));
    if (l->rule.window % s->T)
        return err_set(ERR_CONFIG,
                       "a sequence length of %lld does not divide the longest one, %lld; "
                       "choose a ramp of lengths that do",
                       (long long)s->T, (long long)l->rule.window);
    return OK;
}

/* What is planned next becomes current. */
static void take_slot(struct loader *l, i64 position)
{
    l->current = slot_at(l, l->next++);
    l->position = position + step_places(&l->current->shape);
}

int loader_start_step(struct loader *l, const struct loader_step *s)
{
    l->failed_source = -1;
    TRY(check_step(l, s));
    u64 begin_ns = sys_now_ns();
    i64 position = round_up(l->position, s->T);
    pthread_mutex_lock(&l->mutex);
    l->lay_ready = 0;
    for (i64 i = l->next; i < l->planned; i++)
        l->lay_ready += slot_at(l, i)->done == slot_at(l, i)->rows;
    int rc = await(l, s, position);
    if (rc == OK) {
        take_slot(l, position);
        l->used_bytes += step_rows(s) * s->T * stored_bytes(l);
        plan_ahead(l);
    } else {
        bool read = l->next < l->planned && slot_at(l, l->next)->rc < 0;
        l->failed_source = read ? slot_at(l, l->next)->failed_source : -1;
        discard(l);
    }
    pthread_mutex_unlock(&l->mutex);
    u64 end_ns = sys_now_ns();
    l->waited_ns = end_ns - begin_ns;
    if (l->config.trace)
        trace_add(l->config.trace, &(struct span){ .begin_ns = begin_ns,
                                                   .end_ns = end_ns,
                                                   .step = (u32)s->step,
                                                   .lane = TRACE_HOST,
                                                   .kind = SPAN_LOAD_WAIT });
    return rc;
}

static void clear_row(struct slot *slot, i64 row)
{
    const i64 T = slot->shape.T, at = row * T;
    const struct row out = { .tokens = slot->tokens + at, .targets = slot->targets + at,
                             .positions = slot->positions + at, .begin = slot->begin + at,
                             .weights = slot->weights + at };
    slot->sums[row] = (struct row_sums){ 0 };
    slot->row_source[row] = 0;
    row_clear(&out, T);
    memset(slot->sources + at, 0, sizeof *slot->sources * (size_t)T);
}

static int start_blank(struct loader *l, const struct loader_step *s)
{
    i64 position = round_up(l->position, s->T);
    discard(l);
    TRY(grow_slots(l, step_rows(s) * s->T, step_rows(s)));
    plan(l, s, position);
    struct slot *slot = slot_at(l, l->next);
    slot->taken = slot->done = slot->rows; /* nobody is to read them */
    for (i64 row = 0; row < slot->rows; row++)
        clear_row(slot, row);
    finish_slot(l, slot);
    take_slot(l, position);
    return OK;
}

int loader_start_blank(struct loader *l, const struct loader_step *s)
{
    TRY(check_step(l, s));
    pthread_mutex_lock(&l->mutex);
    int rc = start_blank(l, s);
    pthread_mutex_unlock(&l->mutex);
    return rc;
}

void loader_get_counts(struct loader *l, struct loader_counts *out)
{
    pthread_mutex_lock(&l->mutex);
    *out = (struct loader_counts){
        .read_bytes = l->read_bytes, .used_bytes = l->used_bytes, .busy_ns = l->busy_ns,
        .cpu_ns = l->cpu_ns, .ready = l->lay_ready,
        .ahead = l->n_slots - 1, .threads = l->n_readers,
    };
    const struct slot *s = l->current;
    if (s) {
        out->tokens = s->rows * s->shape.T;
        out->idle = s->idle;
        out->documents = s->documents;
        out->attended = s->attended;
    }
    pthread_mutex_unlock(&l->mutex);
}

i64 loader_bytes(const struct loader *l, const struct loader_step *largest)
{
    return l->n_slots * slot_bytes(step_rows(largest) * largest->T, step_rows(largest));
}

bool loader_ended(struct loader *l, const struct loader_step *s)
{
    pthread_mutex_lock(&l->mutex);
    bool ended = !can_serve(l, s, round_up(l->position, s->T));
    pthread_mutex_unlock(&l->mutex);
    return ended;
}

/* The tokens of B rows that are this rank's part. */
static void copy_rows(char *to, const i32 *from, const struct loader_step *s)
{
    const i64 parts = i64_max(1, s->cut), pairs = i64_max(1, s->pairs), here = s->T / parts;
    const i64 chunk = parts * pairs > 1 ? here / (2 * pairs) : here;
    for (i64 row = 0; row < s->B; row++, from += s->T)
        for (i64 i = 0; i < here; i += chunk, to += 4 * chunk)
            memcpy(to, from + zigzag_pair_place(parts, s->part, pairs, here, i),
                   (size_t)(4 * chunk));
}

/* op_load_batch: copies one micro-batch of the current step. */
static void copy_batch(const struct task *t, struct run *x)
{
    const struct loader *l = x->context;
    const struct slot *s = l->current;
    assert(s && x->micro_batch < s->shape.micro_batches);
    i64 n = s->shape.B * s->shape.T, at = x->micro_batch * n;
    const i32 *from[] = { [BATCH_TOKENS] = s->tokens + at,
                           [BATCH_TARGETS] = s->targets + at,
                           [BATCH_WEIGHTS] = (const i32 *)s->weights + at,
                           [BATCH_POSITIONS] = s->positions + at,
                           [BATCH_BEGIN] = s->begin + at,
                           [BATCH_SOURCES] = s->sources + at };
    for (i64 i = 0; i < COUNT_OF(from); i++) {
        assert(tensor_count(t->out[i]) * i64_max(1, s->shape.cut) == n);
        copy_rows(t->out[i]->data, from[i], &s->shape);
    }
    float *inv_weight = t->out[BATCH_INV_WEIGHT]->data;
    *inv_weight = s->weight > 0 ? (float)(1 / s->weight) : 0;
}

struct kernel loader_kernel(struct loader *l)
{
    return (struct kernel){ .run = copy_batch, .context = l };
}

const i64 *loader_step_bytes(const struct loader *l)
{
    return l->current->bytes;
}

double loader_step_weight(const struct loader *l)
{
    return l->current->weight;
}

void loader_set_weight(struct loader *l, double weight)
{
    l->current->weight = weight;
}

u64 loader_wait_ns(const struct loader *l)
{
    return l->waited_ns;
}

void loader_origin(const struct loader *l, i64 row, struct loader_origin *out)
{
    struct rng key;
    int source;
    row = row_of_step(&l->current->shape, row);
    out->sample = (l->current->position + row * l->current->shape.T) / l->rule.window;
    locate(l, out->sample, &source, &out->window, &key);
    out->source = l->sources[source].name;
}

u64 loader_mix(const struct loader *l)
{
    const i64 last = l->current->position + step_places(&l->current->shape) - 1;
    u64 mix = 0;
    for (i64 s = 0; s < l->n_sources; s++)
        mix |= (u64)mixture_has(&l->mixture, last / l->rule.window, (int)s) << s;
    return mix;
}

/* --- cursor ------------------------------------------------------------------------- */

void loader_get_cursor(const struct loader *l, struct loader_cursor *out)
{
    *out = (struct loader_cursor){ .position = l->position };
    for (i64 s = 0; s < l->n_sources && !l->eval; s++) {
        i64 limit = l->mixture.sources[s].limit;
        out->limit[s] = limit < l->sources[s].cap ? limit : INT64_MAX;
    }
}

int loader_seek_position(struct loader *l, i64 position)
{
    if (position < 0)
        return err_set(ERR_FORMAT,
                       "a data position of %lld is impossible; the checkpoint is "
                       "damaged",
                       (long long)position);
    pthread_mutex_lock(&l->mutex);
    l->position = position;
    pthread_mutex_unlock(&l->mutex);
    return OK;
}

int loader_seek(struct loader *l, const struct loader_cursor *cursor)
{
    TRY(loader_seek_position(l, cursor->position));
    pthread_mutex_lock(&l->mutex);
    discard(l);
    for (i64 s = 0; s < l->n_sources && !l->eval; s++)
        mixture_set_limit(&l->mixture, (int)s,
                          i64_min(i64_max(0, cursor->limit[s]), l->sources[s].cap));
    if (!l->eval)
        l->windows = l->mixture.samples;
    pthread_mutex_unlock(&l->mutex);
    return OK;
}

i64 loader_places(const struct loader *l)
{
    i64 places;
    return size_mul(l->windows, l->rule.window, &places) ? INT64_MAX : places;
}

i64 loader_sources(const struct loader *l)
{
    return l->n_sources;
}

const char *loader_source_name(const struct loader *l, i64 source)
{
    return l->sources[source].name;
}

const struct dataset *loader_dataset(const struct loader *l, i64 source)
{
    return &l->sources[source].data;
}

double loader_weight(const struct loader *l, i64 source)
{
    if (l->eval)
        return l->windows ? (double)l->sources[source].windows / (double)l->windows : 0;
    double total = 0;
    for (i64 s = 0; s < l->n_sources; s++)
        total += l->mixture.sources[s].weight;
    return l->mixture.sources[source].weight / total;
}

/* Samples that it has given before the next step. */
static i64 given(const struct loader *l, i64 source)
{
    return mixture_used(&l->mixture, l->position / l->rule.window, (int)source);
}

double loader_epochs(const struct loader *l, i64 source)
{
    if (l->eval)
        return 0;
    return (double)given(l, source) / (double)l->sources[source].windows;
}

/* --- opening ------------------------------------------------------------------------ */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static const char *short_name(const struct loader_source *from)
{
    return from->name ? from->name : last_part(from->path);
}

static bool name_taken(const struct loader *l, i64 source, const char *name)
{
    for (i64 i = 0; i < l->config.n_sources; i++)
        if (i != source && (strcmp(short_name(&l->config.sources[i]), name) == 0 ||
                            (i < source && strcmp(l->sources[i].name, name) == 0)))
            return true;
    return false;
}

/* What metrics call a source: the name it was given, or its path's last part, its whole path,
 * or that with a number, whichever no other source has. Sources before it have theirs. */
static const char *choose_name(struct loader *l, i64 source)
{
    const struct loader_source *from = &l->config.sources[source];
    const char *name = short_name(from);
    if (from->name)
        return arena_strdup(&l->arena, name);
    if (name_taken(l, source, name))
        name = from->path;
    for (i64 i = source + 1; name_taken(l, source, name); i++)
        name = arena_printf(&l->arena, "%s#%lld", from->path, (long long)i);
    return arena_strdup(&l->arena, name);
}

static int check_source(const struct loader *l, const struct source *s)
{
    const struct loader_config *c = &l->config;
    const struct dataset *d = &s->data;
    if (d->vocab > c->vocab)
        return err_set(
            ERR_MODEL,
            "%s holds ids up to %u, the model's vocabulary has %u; use the model's "
            "tokenizer to prepare the data",
            d->path, d->vocab - 1, c->vocab);
    if (c->tokenizer_hash && d->tokenizer_hash && c->tokenizer_hash != d->tokenizer_hash)
        return err_set(
            ERR_CONFIG,
            "%s was prepared with another tokenizer than this run's; prepare it "
            "again",
            d->path);
    if (l->rule.packing == ROW_DOCUMENTS && d->n_shards > 0 && !d->has_documents)
        return err_set(
            ERR_CONFIG,
            "%s does not say where documents begin, so data.packing documents is "
            "impossible; use contiguous, or prepare the text",
            d->path);
    if (d->tokens == 0 && !l->eval)
        return err_set(ERR_CONFIG, "%s has no tokens in its %s split", d->path, d->split);
    return OK;
}

static int open_sources(struct loader *l)
{
    const struct loader_config *c = &l->config;
    l->sources = ARENA_ARRAY(&l->arena, struct source, c->n_sources);
    for (i64 i = 0; i < c->n_sources; i++) {
        const struct loader_source *from = &c->sources[i];
        struct source *s = &l->sources[i];
        TRY(dataset_open(&s->data, from->path, l->eval ? "val" : "train", from->separator,
                         &l->arena));
        TRY(ledger_fits(&s->data));
        TRY(check_source(l, s));
        s->name = choose_name(l, i);
        s->key = hash64(s->name, (i64)strlen(s->name), 0);
        s->windows = row_windows(&s->data, l->rule.window);
    }
    return OK;
}

static void make_mixture(struct loader *l)
{
    struct mixture_source s[LOADER_SOURCES];
    for (i64 i = 0; i < l->n_sources; i++) {
        const struct loader_source *from = &l->config.sources[i];
        i64 windows = l->sources[i].windows;
        double limit = from->max_epochs * (double)windows;
        double weight =
            from->weight > 0 ? from->weight : (double)l->sources[i].data.tokens;
        s[i] = (struct mixture_source){ windows, weight, INT64_MAX };
        if (from->max_epochs > 0 && limit < 0x1p62)
            s[i].limit = i64_max(1, (i64)limit);
        l->sources[i].cap = s[i].limit;
    }
    mixture_init(&l->mixture, s, l->n_sources, &l->arena);
    l->windows = l->mixture.samples;
}

/* Sources without windows take no place in the pass. */
static void lay_windows(struct loader *l)
{
    l->windows = 0;
    for (i64 i = 0; i < l->n_sources; i++) {
        l->sources[i].first = l->windows;
        l->windows += l->sources[i].windows;
    }
}

/* Every source keeps the same share of its windows. */
static void choose_eval_windows(struct loader *l, i64 max_tokens)
{
    i64 all = 0;
    for (i64 i = 0; i < l->n_sources; i++)
        all += l->sources[i].windows;
    i64 keep = i64_max(1, max_tokens / l->rule.window);
    for (i64 i = 0; i < l->n_sources; i++) {
        struct source *s = &l->sources[i];
        if (max_tokens > 0 && keep < all && s->windows > 0)
            s->windows = i64_max(1, (i64)((__int128)s->windows * keep / all));
    }
    lay_windows(l);
}

i64 loader_failed_source(const struct loader *l)
{
    return l->failed_source;
}

bool loader_gives(const struct loader *l, i64 source)
{
    return l->eval ? l->sources[source].windows > 0
                   : given(l, source) < l->mixture.sources[source].limit;
}

void loader_leave_out(struct loader *l, i64 source)
{
    pthread_mutex_lock(&l->mutex);
    discard(l);
    if (l->eval) {
        l->sources[source].windows = 0;
        lay_windows(l);
    } else {
        mixture_set_limit(&l->mixture, (int)source, given(l, source));
        l->windows = l->mixture.samples;
    }
    pthread_mutex_unlock(&l->mutex);
}

static int start_readers(struct loader *l)
{
    enum { OPEN_FILES = 256 }; /* in all; processes are usually allowed 1,024 */
    l->n_readers = (int)i64_max(1, l->config.threads);
    int files = (int)(OPEN_FILES / l->n_sources / l->n_readers);
    l->readers = ARENA_ARRAY(&l->arena, struct reader, l->n_readers);
    for (int i = 0; i < l->n_readers; i++) {
        struct reader *r = &l->readers[i];
        r->loader = l;
        r->from = ARENA_ARRAY(&l->arena, struct dataset_reader, l->n_sources);
        for (i64 s = 0; s < l->n_sources; s++)
            dataset_reader_init(&r->from[s], &l->sources[s].data, files);
        TRY(row_maker_new(&r->maker, &l->rule));
        int error = pthread_create(&r->thread, NULL, read_rows, r);
        if (error)
            return err_set(ERR_SYS, "start a thread to read data: %s", strerror(error));
        r->started = true;
    }
    return OK;
}

static int open_any(struct loader **out, const struct loader_config *c, bool eval,
                    i64 max_tokens)
{
    int rc = OK;
    if (c->n_sources < 1 || c->n_sources > LOADER_SOURCES)
        return err_set(ERR_CONFIG, "between 1 and %d data sources are possible, not %lld",
                       LOADER_SOURCES, (long long)c->n_sources);
    struct loader *l = sys_alloc(sizeof *l, 64);
    if (!l)
        return err_set(ERR_LIMIT, "no memory for the data loader");
    *l = (struct loader){ .config = *c, .eval = eval, .n_sources = c->n_sources };
    arena_init(&l->arena);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    l->rule = (struct row_rule){ .window = c->window,
                                 .packing = eval ? ROW_CONTIGUOUS : c->packing,
                                 .border = c->border,
                                 .loss_on_answers = c->loss_on_answers,
                                 .vocab = c->vocab,
                                 .token_bytes = c->token_bytes };
    l->n_slots = 1 + i64_max(1, c->steps_ahead);
    l->slots = ARENA_ARRAY(&l->arena, struct slot, l->n_slots);
    l->next = l->planned = 1; /* slot next - 1 always exists */
    TRY_TO(fail, open_sources(l));
    if (eval)
        choose_eval_windows(l, max_tokens);
    else
        make_mixture(l);
    TRY_TO(fail, start_readers(l));
    *out = l;
    return OK;
fail:
    loader_close(l);
    return rc;
}

int loader_open(struct loader **out, const struct loader_config *c)
{
    return open_any(out, c, false, 0);
}

int loader_open_eval(struct loader **out, const struct loader_config *c, i64 max_tokens)
{
    return open_any(out, c, true, max_tokens);
}

void loader_close(struct loader *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->mutex);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->mutex);
    for (int i = 0; i < l->n_readers && l->readers; i++) {
        if (l->readers[i].started)
            pthread_join(l->readers[i].thread, NULL);
        for (i64 s = 0; s < l->n_sources && l->readers[i].from; s++)
            dataset_reader_fini(&l->readers[i].from[s]);
        row_maker_free(l->readers[i].maker);
    }
    if (l->slots)
        free_slots(l);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->mutex);
    arena_fini(&l->arena);
    sys_free(l);
}
