#include "data/encoder.h"

#include "base/err.h"
#include "base/sys.h"
#include "data/tokenizer_impl.h"
#include "data/unicode.h"

#include <string.h>

/* A word of up to 32 bytes that becomes up to 7 tokens is remembered; that is nearly
 * every word of every language. One slot is one cache line. */
enum { CACHE_BITS = 15, KEY_WORDS = 4, MAX_KEY = 8 * KEY_WORDS, MAX_IDS = 7 };

struct cache_slot {
    u64 key[KEY_WORDS];
    u16 length, count; /* length 0: empty */
    i32 ids[MAX_IDS];
};

struct encoder {
    const struct tokenizer *tokenizer;
    struct encoder_options options;
    struct cache_slot *cache;
    i32 *ids;
    i64 count, capacity;
    i64 malformed;
    struct pretoken_scratch pretoken;
    struct bpe_scratch bpe;
    struct normalizer normalizer;
    struct buffer replaced;
};

/* --- the ids ------------------------------------------------------------------------ */

static int grow(struct encoder *e, i64 more)
{
    i64 need, bytes;
    bool too_large = size_add(e->count, more, &need);
    need = too_large ? need : i64_max(need, 2 * e->capacity);
    i32 *ids = NULL;
    if (!too_large && !size_mul(need, (i64)sizeof *ids, &bytes))
        ids = sys_realloc(e->ids, bytes);
    if (!ids)
        return err_set(ERR_LIMIT, "no memory for %lld more token ids", (long long)more);
    e->ids = ids;
    e->capacity = need;
    return OK;
}

static inline int reserve(struct encoder *e, i64 more)
{
    return e->capacity - e->count >= more ? OK : grow(e, more);
}

int encoder_push(struct encoder *e, i32 id)
{
    TRY(reserve(e, 1));
    e->ids[e->count++] = id;
    return OK;
}

/* --- pieces ------------------------------------------------------------------------- */

static inline u64 load(const u8 *p, int bytes)
{
    u64 word = 0;
    memcpy(&word, p, (size_t)bytes);
    return word;
}

/* The bytes of a piece in four words: together with its length they determine it, and
 * nothing outside the piece is read. */
static inline void make_key(u64 key[KEY_WORDS], const u8 *p, i64 n)
{
    key[1] = key[2] = key[3] = 0;
    if (n > 16) {
        key[0] = load(p, 8);
        key[1] = load(p + 8, 8);
        key[2] = load(p + n - 16, 8);
        key[3] = load(p + n - 8, 8);
    } else if (n >= 8) {
        key[0] = load(p, 8);
        key[1] = load(p + n - 8, 8);
    } else if (n >= 4) {
        key[0] = load(p, 4) | load(p + n - 4, 4) << 32;
    } else {
        key[0] = (u64)p[0] | (u64)p[n / 2] << 8 | (u64)p[n - 1] << 16;
    }
}

static inline struct cache_slot *slot_of(const struct encoder *e, const u64 key[KEY_WORDS],
                                         i64 n)
{
    u64 h = (key[0] ^ (u64)n << 56) * 0x9E3779B97F4A7C15u; /* 2^64 / phi */
    if (n >= 8)
        h = ((h ^ h >> 29) + key[1] + key[2] * 0xBF58476D1CE4E5B9u + (key[3] << 1)) *
            0x94D049BB133111EBu;
    return &e->cache[h >> (64 - CACHE_BITS)];
}

/* One symbol per byte; bytes without a token of their own become the unknown token, or
 * vanish if there is none, as Hugging Face has it. */
static i64 first_symbols(const struct tokenizer *t, i32 *ids, const u8 *p, i64 n)
{
    i64 count = 0;
    bool after_unknown = false;
    for (i64 i = 0; i < n; i++) {
        bool unknown = t->byte_unknown[p[i]];
        if (t->byte_id[p[i]] >= 0 && !(unknown && after_unknown && t->fuse_unknown))
            ids[count++] = t->byte_id[p[i]];
        if (t->byte_id[p[i]] >= 0)
            after_unknown = unknown;
    }
    return count;
}

/* Appends the tokens of one piece, without the cache. */
static int merge_piece(struct encoder *e, const u8 *p, i64 n)
{
    const struct tokenizer *t = e->tokenizer;
    if (t->ignore_merges) {
        i32 id = vocab_map_find(&t->map, p, n, false);
        if (id >= 0)
            return encoder_push(e, id);
    }
    if (n > INT32_MAX)
        return err_set(ERR_LIMIT, "%lld bytes without a place to split are more than a "
                                  "tokenizer can take", (long long)n);
    TRY(reserve(e, n));
    i64 count = first_symbols(t, e->ids + e->count, p, n);
    TRY(bpe_merge(&t->table, &e->bpe, e->ids + e->count, &count));
    e->count += count;
    return OK;
}

static int encode_piece(void *context, const u8 *p, i64 n)
{
    struct encoder *e = context;
    u64 key[KEY_WORDS];
    if (n > MAX_KEY)
        return merge_piece(e, p, n);
    TRY(reserve(e, MAX_IDS));
    make_key(key, p, n);
    struct cache_slot *slot = slot_of(e, key, n);
    if (slot->length == n && !memcmp(slot->key, key, sizeof key)) {
        memcpy(e->ids + e->count, slot->ids, sizeof slot->ids);
        e->count += slot->count;
        return OK;
    }
    i64 before = e->count;
    TRY(merge_piece(e, p, n));
    i64 count = e->count - before;
    if (count <= MAX_IDS) {
        memcpy(slot->key, key, sizeof key);
        slot->length = (u16)n;
        slot->count = (u16)count;
        memcpy(slot->ids, e->ids + before, (size_t)count * sizeof *e->ids);
    }
    return OK;
}

/* --- from text to pieces ------------------------------------------------------------ */

static int encode_plain(void *context, const u8 *text, i64 bytes)
{
    struct encoder *e = context;
    return pretokenize(&e->tokenizer->pretokenizer, &e->pretoken, text, bytes, encode_piece, e);
}

static int push_added(void *context, const struct added_token *token)
{
    return encoder_push(context, token->id);
}

static int encode_unnormalized(void *context, const u8 *text, i64 bytes)
{
    struct encoder *e = context;
    const struct tokenizer *t = e->tokenizer;
    const struct added_visitor v = { encode_plain, push_added, e, e->options.specials_as_text };
    if (!normalize_not_needed(t->form, text, bytes)) {
        TRY(normalize(&e->normalizer, t->form, text, bytes));
        text = e->normalizer.out.data;
        bytes = e->normalizer.out.bytes;
    }
    return added_set_split(&t->normalized, &v, text, bytes);
}

static int encode_wellformed(struct encoder *e, const u8 *text, i64 bytes)
{
    const struct added_visitor v = { encode_unnormalized, push_added, e,
                                     e->options.specials_as_text };
    return bytes > 0 ? added_set_split(&e->tokenizer->plain, &v, text, bytes) : OK;
}

/* --- what is not UTF-8 -------------------------------------------------------------- */

/* Copies text with U+FFFD for every ill-formed sequence. */
static int replace(struct encoder *e, const u8 *text, i64 bytes)
{
    bool incomplete;
    e->replaced.bytes = 0;
    for (i64 at = 0; at < bytes;) {
        i64 good = utf8_valid(text + at, bytes - at);
        TRY(buffer_add(&e->replaced, text + at, good));
        at += good;
        if (at == bytes)
            break;
        at += utf8_bad_length(text + at, bytes - at, &incomplete);
        e->malformed++;
        TRY(buffer_add(&e->replaced, "\xEF\xBF\xBD", 3));
    }
    return OK;
}

/* Well-formed and ill-formed stretches in turn; the latter are pieces of their own. */
static int encode_bytes(struct encoder *e, const u8 *text, i64 bytes)
{
    bool incomplete;
    for (i64 at = 0; at < bytes;) {
        i64 good = utf8_valid(text + at, bytes - at);
        TRY(encode_wellformed(e, text + at, good));
        at += good;
        i64 bad = at;
        while (bad < bytes && utf8_valid(text + bad, i64_min(bytes - bad, 4)) == 0) {
            bad += utf8_bad_length(text + bad, bytes - bad, &incomplete);
            e->malformed++;
        }
        if (bad > at)
            TRY(encode_piece(e, text + at, bad - at));
        at = bad;
    }
    return OK;
}

static int encode_by_policy(struct encoder *e, const u8 *text, i64 bytes)
{
    i64 good = utf8_valid(text, bytes);
    if (good == bytes)
        return encode_wellformed(e, text, bytes);
    switch (e->options.policy) {
    case UTF8_REPLACE:
        TRY(replace(e, text, bytes));
        return encode_wellformed(e, e->replaced.data, e->replaced.bytes);
    case UTF8_BYTES:
        return encode_bytes(e, text, bytes);
    default:
        return err_set(ERR_FORMAT, "byte %lld (0x%02x) of the text is not UTF-8; fix it, or "
                                   "choose the policy replace or bytes", (long long)good,
                       text[good]);
    }
}

static int encode_text(struct encoder *e, const u8 *text, i64 bytes)
{
    const struct tokenizer *t = e->tokenizer;
    for (int i = 0; e->options.add_template && i < t->prefix_count; i++)
        TRY(encoder_push(e, t->prefix[i]));
    TRY(encode_by_policy(e, text, bytes));
    for (int i = 0; e->options.add_template && i < t->suffix_count; i++)
        TRY(encoder_push(e, t->suffix[i]));
    return OK;
}

int encoder_text(struct encoder *e, const void *text, i64 bytes)
{
    i64 before = e->count;
    int rc = encode_text(e, text, bytes);
    if (rc < 0)
        e->count = before;
    return rc;
}

/* --- life --------------------------------------------------------------------------- */

int encoder_new(struct encoder **out, const struct tokenizer *t,
                const struct encoder_options *o)
{
    i64 cache_bytes = (i64)sizeof(struct cache_slot) << CACHE_BITS;
    struct encoder *e = sys_alloc((i64)sizeof *e, 64);
    if (!e)
        return err_set(ERR_LIMIT, "no memory for an encoder");
    *e = (struct encoder){ .tokenizer = t, .options = *o };
    e->cache = sys_alloc(cache_bytes, 64);
    if (!e->cache) {
        encoder_free(e);
        return err_set(ERR_LIMIT, "no memory for an encoder");
    }
    memset(e->cache, 0, (size_t)cache_bytes);
    *out = e;
    return OK;
}

void encoder_free(struct encoder *e)
{
    if (!e)
        return;
    sys_free(e->cache);
    sys_free(e->ids);
    pretoken_scratch_fini(&e->pretoken);
    bpe_scratch_fini(&e->bpe);
    normalizer_fini(&e->normalizer);
    buffer_fini(&e->replaced);
    sys_free(e);
}

const i32 *encoder_ids(const struct encoder *e, i64 *count)
{
    *count = e->count;
    return e->ids;
}

void encoder_clear(struct encoder *e)
{
    e->count = 0;
}

i64 encoder_malformed(const struct encoder *e)
{
    return e->malformed;
}
