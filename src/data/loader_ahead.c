#include "data/loader_parts.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_usage.h"

#include <stdio.h>
#include <string.h>

/* --- slots -------------------------------------------------------------------------- */

struct slot *loader_slot(const struct loader *l, i64 sequence)
{
    return &l->slots[sequence % l->n_slots];
}

void loader_finish_slot(struct loader *l, struct slot *s)
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

i64 loader_slot_bytes(i64 places, i64 rows)
{
    const struct slot *s;
    return 6 * 4 * places + rows * (i64)(sizeof *s->sums + sizeof *s->row_source);
}

int loader_grow(struct loader *l, i64 places, i64 rows)
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

/* --- reading threads ---------------------------------------------------------------- */

/* The oldest slot that has rows to fill, or NULL. */
static struct slot *find_work(const struct loader *l)
{
    for (i64 i = l->next; i < l->planned; i++)
        if (loader_slot(l, i)->taken < loader_slot(l, i)->rows)
            return loader_slot(l, i);
    return NULL;
}

static void add_facts(struct loader *l, struct slot *s, const struct row_facts *f)
{
    s->idle += f->idle;
    s->documents += f->documents;
    s->attended += f->attended;
    l->busy_ns += f->busy_ns;
    l->cpu_ns += f->cpu_ns;
    l->read_bytes += s->shape.T * loader_stored_bytes(l);
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
        int rc = loader_make_row(r, s, row, &facts);
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
            loader_finish_slot(l, s);
        else if (l->busy == 0)
            pthread_cond_signal(&l->ready); /* somebody may wait to discard */
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

int loader_start_readers(struct loader *l)
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

void loader_stop_readers(struct loader *l)
{
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
}

/* --- planning ----------------------------------------------------------------------- */

void loader_plan(struct loader *l, const struct loader_step *shape, i64 position)
{
    struct slot *s = loader_slot(l, l->planned++);
    s->shape = *shape;
    s->position = position;
    s->rows = step_rows(shape);
    s->taken = s->done = 0;
    s->idle = s->documents = 0;
    s->attended = 0;
    s->rc = OK;
}

bool loader_can_serve(const struct loader *l, const struct loader_step *s, i64 position)
{
    i64 last = position + (l->eval ? 0 : step_places(s) - s->T);
    return last / l->rule.window < l->windows;
}

void loader_plan_ahead(struct loader *l)
{
    while (l->planned < l->next - 1 + l->n_slots) {
        const struct slot *last = loader_slot(l, l->planned - 1);
        struct loader_step shape = last->shape;
        i64 position = last->position + step_places(&shape);
        shape.step++;
        if (!loader_can_serve(l, &shape, position))
            break;
        loader_plan(l, &shape, position);
    }
    pthread_cond_broadcast(&l->work);
}

void loader_discard(struct loader *l)
{
    for (i64 i = l->next; i < l->planned; i++)
        loader_slot(l, i)->taken = loader_slot(l, i)->rows;
    while (l->busy > 0)
        pthread_cond_wait(&l->ready, &l->mutex);
    l->planned = l->next;
}

static bool is_planned(const struct loader *l, const struct loader_step *s, i64 position)
{
    const struct slot *slot = loader_slot(l, l->next);
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

int loader_await(struct loader *l, const struct loader_step *s, i64 position)
{
    if (!loader_can_serve(l, s, position))
        return exhausted(l);
    if (!is_planned(l, s, position)) {
        loader_discard(l);
        TRY(loader_grow(l, step_rows(s) * s->T, step_rows(s)));
        loader_plan(l, s, position);
        pthread_cond_broadcast(&l->work);
    }
    struct slot *slot = loader_slot(l, l->next);
    while (slot->done < slot->rows)
        pthread_cond_wait(&l->ready, &l->mutex);
    return slot->rc < 0 ? err_set(slot->rc, "%s", slot->message) : OK;
}
