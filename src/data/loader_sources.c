#include "data/loader_parts.h"

#include "base/err.h"
#include "base/hash.h"
#include "data/ledger.h"

#include <string.h>

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

int loader_open_sources(struct loader *l)
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

i64 loader_stored_bytes(const struct loader *l)
{
    return l->sources[0].data.vocab > UINT16_MAX + 1 ? 4 : 2;
}

/* --- shares ------------------------------------------------------------------------- */

void loader_make_mixture(struct loader *l)
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

void loader_choose_eval_windows(struct loader *l, i64 max_tokens)
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

double loader_weight(const struct loader *l, i64 source)
{
    if (l->eval)
        return l->windows ? (double)l->sources[source].windows / (double)l->windows : 0;
    double total = 0;
    for (i64 s = 0; s < l->n_sources; s++)
        total += l->mixture.sources[s].weight;
    return l->mixture.sources[source].weight / total;
}

bool loader_gives(const struct loader *l, i64 source)
{
    return l->eval ? l->sources[source].windows > 0
                   : given(l, source) < l->mixture.sources[source].limit;
}

void loader_leave_out(struct loader *l, i64 source)
{
    pthread_mutex_lock(&l->mutex);
    loader_discard(l);
    if (l->eval) {
        l->sources[source].windows = 0;
        lay_windows(l);
    } else {
        mixture_set_limit(&l->mixture, (int)source, given(l, source));
        l->windows = l->mixture.samples;
    }
    pthread_mutex_unlock(&l->mutex);
}

/* --- what they are ------------------------------------------------------------------ */

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
