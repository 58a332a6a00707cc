#include "data/pipeline.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "data/json_document.h"
#include "data/shard_writer.h"
#include "data/unicode.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum unit_state { UNIT_EMPTY, UNIT_READ, UNIT_TAKEN, UNIT_DONE };

/* Each reader fills its own ring of units, so that one that is far ahead cannot keep the
 * one that the caller waits for from going on. */
struct lane {
    struct pipeline *pipeline;
    pthread_t thread;
    bool started;
    struct unit *units; /* [units_per_lane] */
    i64 head, tail;     /* filled and released, ever */
    struct splitter *splitter;
};

struct worker {
    struct pipeline *pipeline;
    pthread_t thread;
    bool started;
    struct encoder *encoder;
    struct json_document json;
    struct buffer clean; /* a JSON line after its ill-formed UTF-8 was replaced */
};

struct pipeline {
    struct pipeline_config config;
    struct arena arena;
    struct chat_style style;
    pthread_mutex_t mutex;
    pthread_cond_t room, work, done; /* for readers, encoders, the caller */
    struct lane *lanes;
    struct worker *workers;
    int n_lanes, n_workers;
    i64 units_per_lane;
    i64 next_input; /* to be taken by a reader */
    u8 *owner;      /* [inputs] lane + 1 that took it; 0: none yet */
    bool stop;
    /* Of the caller. */
    i64 input;
    struct lane *holding; /* whose oldest unit the caller has */
};

static struct unit *unit_at(const struct lane *l, i64 i)
{
    return &l->units[i % l->pipeline->units_per_lane];
}

static int keep_error(struct unit *u, int rc)
{
    if (rc < 0 && u->rc == OK) {
        u->rc = rc;
        snprintf(u->message, sizeof u->message, "%s", err_message());
    }
    return rc;
}

/* --- reading ------------------------------------------------------------------------ */

/* Waits for a free unit; NULL when the pipeline stops. */
static struct unit *free_unit(struct lane *l)
{
    struct pipeline *p = l->pipeline;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop && l->head - l->tail == p->units_per_lane)
        pthread_cond_wait(&p->room, &p->mutex);
    struct unit *u = p->stop ? NULL : unit_at(l, l->head);
    pthread_mutex_unlock(&p->mutex);
    return u;
}

static void publish(struct lane *l, struct unit *u)
{
    struct pipeline *p = l->pipeline;
    pthread_mutex_lock(&p->mutex);
    u->state = UNIT_READ;
    l->head++;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->mutex);
}

/* A unit that once held a huge document does not keep its memory. */
static void reset_buffer(struct buffer *b)
{
    enum { KEEP_BYTES = 8 << 20 };
    if (b->capacity > KEEP_BYTES)
        buffer_fini(b);
    b->bytes = 0;
}

static void reset_unit(struct unit *u, i64 input, i64 number)
{
    reset_buffer(&u->text);
    reset_buffer(&u->documents);
    reset_buffer(&u->ids);
    u->input = input;
    u->number = number;
    u->last = false;
    u->malformed = 0;
    u->rc = OK;
}

static int fill_unit(struct lane *l, struct unit *u, struct stream *s)
{
    while (u->text.bytes < l->pipeline->config.unit_bytes) {
        struct split_document d;
        int found = splitter_next(l->splitter, &d);
        u->last = found <= 0;
        if (found <= 0)
            return found;
        const struct unit_document kept = { .begin = u->text.bytes, .bytes = d.bytes,
                                            .line = d.line, .cut = d.cut, .piece = d.piece };
        TRY(buffer_add(&u->documents, &kept, sizeof kept));
        TRY(buffer_add(&u->text, d.text, d.bytes));
    }
    u->input_bytes = stream_input_bytes(s);
    return OK;
}

/* Units of one input, from first_unit on. False when there is no point in going on. */
static bool read_units(struct lane *l, struct stream *s, i64 input, i64 first_unit)
{
    for (i64 number = 0;; number++) {
        struct unit *u = free_unit(l);
        if (!u)
            return false;
        reset_unit(u, input, number);
        int rc = keep_error(u, fill_unit(l, u, s));
        if (rc < 0)
            u->last = true;
        if (u->last) {
            u->input_bytes = stream_input_bytes(s);
            stream_sha256(s, u->sha256);
        }
        bool last = u->last; /* before others may reuse the unit */
        if (number >= first_unit || last)
            publish(l, u);
        if (last)
            return rc == OK;
    }
}

static bool read_input(struct lane *l, i64 input, i64 first_unit)
{
    const struct pipeline_config *c = &l->pipeline->config;
    const char *path = c->inputs->at[input].path;
    struct stream *s;
    int rc = stream_open(&s, path);
    if (rc < 0) {
        struct unit *u = free_unit(l);
        if (u) {
            reset_unit(u, input, 0);
            u->last = true;
            keep_error(u, rc);
            publish(l, u);
        }
        return false;
    }
    splitter_begin(l->splitter, s, path, c->format);
    bool good = read_units(l, s, input, first_unit);
    stream_close(s);
    return good;
}

static void *run_reader(void *context)
{
    struct lane *l = context;
    struct pipeline *p = l->pipeline;
    const struct pipeline_config *c = &p->config;
    bool good = true;
    while (good) {
        pthread_mutex_lock(&p->mutex);
        i64 input = p->next_input++;
        bool more = !p->stop && input < c->inputs->count;
        if (more)
            p->owner[input] = (u8)(1 + (l - p->lanes));
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->mutex);
        if (!more)
            break;
        good = read_input(l, input, input == c->first_input ? c->first_unit : 0);
    }
    return NULL;
}

/* --- encoding ----------------------------------------------------------------------- */

/* Appends the encoder's ids to the unit, and clears them. */
static int take_ids(struct worker *w, struct unit *u, bool counts)
{
    i64 n;
    const i32 *ids = encoder_ids(w->encoder, &n);
    TRY(buffer_reserve(&u->ids, n * 4));
    u32 *out = (u32 *)(u->ids.data + u->ids.bytes);
    for (i64 i = 0; i < n; i++)
        out[i] = (u32)ids[i] | (counts ? 0 : SHARD_NO_LOSS);
    u->ids.bytes += n * 4;
    encoder_clear(w->encoder);
    return OK;
}

static int add_id(struct worker *w, struct unit *u, i32 id, bool counts)
{
    if (id < 0)
        return OK;
    TRY(encoder_push(w->encoder, id));
    return take_ids(w, u, counts);
}

/* JSON must be UTF-8, so "bytes" is not possible here: ill-formed sequences become
 * U+FFFD. */
static int clean_line(struct worker *w, struct unit *u, const char **text, i64 *bytes)
{
    const u8 *at = (const u8 *)*text;
    i64 left = *bytes, good = utf8_valid(at, left);
    bool incomplete;
    if (good == left || w->pipeline->config.invalid == UTF8_REJECT)
        return OK; /* in order, or the parser will say what is wrong */
    w->clean.bytes = 0;
    while (left > 0) {
        TRY(buffer_add(&w->clean, at, good));
        at += good;
        left -= good;
        if (left > 0) {
            int bad = utf8_bad_length(at, left, &incomplete);
            TRY(buffer_add(&w->clean, "\xEF\xBF\xBD", 3));
            at += bad;
            left -= bad;
            u->malformed++;
        }
        good = utf8_valid(at, left);
    }
    *text = (const char *)w->clean.data;
    *bytes = w->clean.bytes;
    return OK;
}

static int encode_parts(struct worker *w, struct unit *u, bool *last_counts)
{
    const struct json_document *d = &w->json;
    for (i64 i = 0; i < json_document_parts(d); i++) {
        const struct json_part *p = json_document_part(d, i);
        *last_counts = p->counts;
        if (p->special >= 0) {
            TRY(add_id(w, u, p->special, p->counts));
            continue;
        }
        TRY(encoder_text(w->encoder, d->text.data + p->begin, p->bytes));
        TRY(take_ids(w, u, p->counts));
    }
    return OK;
}

static int encode_json(struct worker *w, struct unit *u, struct unit_document *d)
{
    const struct pipeline_config *c = &w->pipeline->config;
    const char *text = (const char *)u->text.data + d->begin;
    i64 bytes = d->bytes;
    bool last_counts = false;
    TRY(clean_line(w, u, &text, &bytes));
    TRY(json_document_parse(&w->json, &w->pipeline->style, text, bytes,
                            c->inputs->at[u->input].path, d->line));
    d->text_bytes = w->json.text.bytes;
    /* The parts distinguish a prompt "a" answered "b" from a text "ab". */
    u64 seed = 0;
    if (json_document_parts(&w->json) > 1)
        seed = hash64(w->json.parts.data, w->json.parts.bytes, 0);
    d->hash = hash64(w->json.text.data, w->json.text.bytes, seed);
    TRY(add_id(w, u, c->begin, false));
    TRY(encode_parts(w, u, &last_counts));
    return add_id(w, u, c->end, last_counts);
}

static int encode_text(struct worker *w, struct unit *u, struct unit_document *d)
{
    const struct pipeline_config *c = &w->pipeline->config;
    const u8 *text = u->text.data + d->begin;
    d->text_bytes = d->bytes;
    d->hash = hash64(text, d->bytes, 0);
    TRY(add_id(w, u, c->begin, true));
    int rc = encoder_text(w->encoder, text, d->bytes);
    if (rc < 0)
        return err_context(rc, "%s, document at line %lld", c->inputs->at[u->input].path,
                           (long long)d->line);
    TRY(take_ids(w, u, true));
    return add_id(w, u, c->end, true);
}

static int encode_document(struct worker *w, struct unit *u, struct unit_document *d)
{
    const struct pipeline_config *c = &w->pipeline->config;
    enum text_format format = c->format;
    if (format == FORMAT_AUTO)
        format = text_format_of(c->inputs->at[u->input].path);
    d->first = u->ids.bytes / 4;
    encoder_clear(w->encoder);
    int rc = format == FORMAT_JSONL ? encode_json(w, u, d) : encode_text(w, u, d);
    d->tokens = u->ids.bytes / 4 - d->first;
    if (rc == ERR_FORMAT && format == FORMAT_JSONL && c->skip_bad_lines) {
        u->ids.bytes = d->first * 4;
        d->tokens = 0;
        rc = OK;
    }
    return rc;
}

static void encode_unit(struct worker *w, struct unit *u)
{
    struct unit_document *d = (struct unit_document *)u->documents.data;
    i64 n = u->documents.bytes / (i64)sizeof *d;
    i64 malformed = encoder_malformed(w->encoder);
    for (i64 i = 0; i < n && u->rc == OK; i++)
        keep_error(u, encode_document(w, u, &d[i]));
    u->malformed += encoder_malformed(w->encoder) - malformed;
}

/* The unread unit that the caller will want first, or NULL. */
static struct unit *find_unit(struct pipeline *p)
{
    struct unit *best = NULL;
    for (int i = 0; i < p->n_lanes; i++) {
        const struct lane *l = &p->lanes[i];
        for (i64 k = l->tail; k < l->head; k++) {
            struct unit *u = unit_at(l, k);
            if (u->state != UNIT_READ)
                continue;
            if (!best || u->input < best->input)
                best = u;
            break;
        }
    }
    return best;
}

static void *run_worker(void *context)
{
    struct worker *w = context;
    struct pipeline *p = w->pipeline;
    struct unit *u;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->stop && !(u = find_unit(p)))
            pthread_cond_wait(&p->work, &p->mutex);
        if (p->stop)
            break;
        u->state = UNIT_TAKEN;
        pthread_mutex_unlock(&p->mutex);
        encode_unit(w, u);
        pthread_mutex_lock(&p->mutex);
        u->state = UNIT_DONE;
        pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* --- the caller's side -------------------------------------------------------------- */

/* Gives back the unit that the caller had. */
static void release(struct pipeline *p)
{
    struct lane *l = p->holding;
    if (!l)
        return;
    struct unit *u = unit_at(l, l->tail);
    if (u->last)
        p->input++;
    u->state = UNIT_EMPTY;
    l->tail++;
    p->holding = NULL;
    pthread_cond_broadcast(&p->room);
}

/* The lane whose oldest unit is the next one, once that is encoded. */
static struct lane *await_unit(struct pipeline *p)
{
    for (;;) {
        struct lane *l = p->owner[p->input] ? &p->lanes[p->owner[p->input] - 1] : NULL;
        if (l && l->tail < l->head && unit_at(l, l->tail)->state == UNIT_DONE)
            return l;
        pthread_cond_wait(&p->done, &p->mutex);
    }
}

int pipeline_next(struct pipeline *p, struct unit **out)
{
    int rc = 0;
    pthread_mutex_lock(&p->mutex);
    release(p);
    if (p->input < p->config.inputs->count) {
        p->holding = await_unit(p);
        *out = unit_at(p->holding, p->holding->tail);
        rc = (*out)->rc < 0 ? err_set((*out)->rc, "%s", (*out)->message) : 1;
    }
    pthread_mutex_unlock(&p->mutex);
    return rc;
}

static int start_readers(struct pipeline *p)
{
    for (int i = 0; i < p->n_lanes; i++) {
        struct lane *l = &p->lanes[i];
        l->pipeline = p;
        l->units = ARENA_ARRAY(&p->arena, struct unit, p->units_per_lane);
        TRY(splitter_new(&l->splitter, &p->config.split));
    }
    for (int i = 0; i < p->n_lanes; i++) {
        struct lane *l = &p->lanes[i];
        int error = pthread_create(&l->thread, NULL, run_reader, l);
        if (error)
            return err_set(ERR_SYS, "start a thread to read: %s", strerror(error));
        l->started = true;
    }
    return OK;
}

static int start_workers(struct pipeline *p)
{
    const struct encoder_options o = { .policy = p->config.invalid,
                                       .specials_as_text = true };
    for (int i = 0; i < p->n_workers; i++) {
        struct worker *w = &p->workers[i];
        w->pipeline = p;
        TRY(encoder_new(&w->encoder, p->config.tokenizer, &o));
        int error = pthread_create(&w->thread, NULL, run_worker, w);
        if (error)
            return err_set(ERR_SYS, "start a thread to encode: %s", strerror(error));
        w->started = true;
    }
    return OK;
}

int pipeline_start(struct pipeline **out, const struct pipeline_config *c)
{
    enum { READERS = 16 };
    struct pipeline *p = sys_alloc(sizeof *p, 64);
    if (!p)
        return err_set(ERR_LIMIT, "no memory to read documents");
    *p = (struct pipeline){ .config = *c, .input = c->first_input,
                            .next_input = c->first_input };
    arena_init(&p->arena);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->room, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->style = chat_style_of(c->tokenizer);
    p->n_workers = (int)i64_max(1, c->threads);
    /* One reader decompresses and splits for about eight encoders. */
    p->n_lanes = (int)i64_min(READERS, i64_min(c->inputs->count, 1 + p->n_workers / 8));
    p->units_per_lane = p->n_workers + 2;
    p->lanes = ARENA_ARRAY(&p->arena, struct lane, p->n_lanes);
    p->workers = ARENA_ARRAY(&p->arena, struct worker, p->n_workers);
    p->owner = ARENA_ARRAY(&p->arena, u8, c->inputs->count);
    int rc = start_readers(p);
    if (rc == OK)
        rc = start_workers(p);
    if (rc < 0)
        pipeline_stop(p);
    else
        *out = p;
    return rc;
}

static void free_lane(struct lane *l, i64 units)
{
    for (i64 i = 0; i < units && l->units; i++) {
        buffer_fini(&l->units[i].text);
        buffer_fini(&l->units[i].documents);
        buffer_fini(&l->units[i].ids);
    }
    splitter_free(l->splitter);
}

void pipeline_stop(struct pipeline *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->room);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->n_workers; i++) {
        if (p->workers[i].started)
            pthread_join(p->workers[i].thread, NULL);
        encoder_free(p->workers[i].encoder);
        json_document_fini(&p->workers[i].json);
        buffer_fini(&p->workers[i].clean);
    }
    for (int i = 0; i < p->n_lanes; i++) {
        if (p->lanes[i].started)
            pthread_join(p->lanes[i].thread, NULL);
        free_lane(&p->lanes[i], p->units_per_lane);
    }
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->room);
    pthread_mutex_destroy(&p->mutex);
    arena_fini(&p->arena);
    sys_free(p);
}
