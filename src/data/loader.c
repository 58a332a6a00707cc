#include "data/loader_parts.h"

#include "base/err.h"
#include "base/sys.h"
#include "ops/ops.h"
#include "ops/zigzag.h"

#include <string.h>

/* --- one step ----------------------------------------------------------------------- */

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
    l->current = loader_slot(l, l->next++);
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
        l->lay_ready += loader_slot(l, i)->done == loader_slot(l, i)->rows;
    int rc = loader_await(l, s, position);
    if (rc == OK) {
        take_slot(l, position);
        l->used_bytes += step_rows(s) * s->T * loader_stored_bytes(l);
        loader_plan_ahead(l);
    } else {
        bool read = l->next < l->planned && loader_slot(l, l->next)->rc < 0;
        l->failed_source = read ? loader_slot(l, l->next)->failed_source : -1;
        loader_discard(l);
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

static int start_blank(struct loader *l, const struct loader_step *s)
{
    i64 position = round_up(l->position, s->T);
    loader_discard(l);
    TRY(loader_grow(l, step_rows(s) * s->T, step_rows(s)));
    loader_plan(l, s, position);
    struct slot *slot = loader_slot(l, l->next);
    slot->taken = slot->done = slot->rows; /* nobody is to read them */
    for (i64 row = 0; row < slot->rows; row++)
        loader_clear_row(slot, row);
    loader_finish_slot(l, slot);
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
    return l->n_slots * loader_slot_bytes(step_rows(largest) * largest->T, step_rows(largest));
}

bool loader_ended(struct loader *l, const struct loader_step *s)
{
    pthread_mutex_lock(&l->mutex);
    bool ended = !loader_can_serve(l, s, round_up(l->position, s->T));
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
    row = loader_row_of_step(&l->current->shape, row);
    out->sample = (l->current->position + row * l->current->shape.T) / l->rule.window;
    loader_locate(l, out->sample, &source, &out->window, &key);
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
    loader_discard(l);
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

i64 loader_failed_source(const struct loader *l)
{
    return l->failed_source;
}

/* --- opening and closing ------------------------------------------------------------ */

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
    TRY_TO(fail, loader_open_sources(l));
    if (eval)
        loader_choose_eval_windows(l, max_tokens);
    else
        loader_make_mixture(l);
    TRY_TO(fail, loader_start_readers(l));
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
    loader_stop_readers(l);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->mutex);
    arena_fini(&l->arena);
    sys_free(l);
}
