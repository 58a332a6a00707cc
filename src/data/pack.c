#include "data/pack.h"

#include "base/err.h"
#include "base/sys.h"

struct document {
    u64 key; /* length, then 32 random bits: sorts by length, ties at random */
    i64 begin;
};

/* Documents sorted by length, of which some are taken. before[i] leads to the last one
 * still there among the first i (1-based; 0: none), with shortcuts as in union-find. */
struct pack {
    i64 T, capacity; /* documents that a block may hold */
    struct document *documents;
    u32 *before;
    i64 *begins;
    i64 n;
    /* the row being looked for */
    i64 want_begin, want_end, n_pieces;
    struct pack_piece *pieces;
};

int pack_new(struct pack **out, i64 T)
{
    struct pack *p = sys_alloc(sizeof *p, 16);
    if (!p)
        return err_set(ERR_LIMIT, "no memory for packing documents");
    /* Every document has a token at least. Pages that are never needed cost nothing. */
    *p = (struct pack){ .T = T, .capacity = PACK_ROWS * T };
    p->documents = sys_map_pages(p->capacity * (i64)sizeof *p->documents);
    p->before = sys_map_pages((p->capacity + 1) * (i64)sizeof *p->before);
    p->begins = sys_map_pages((p->capacity + 1) * (i64)sizeof *p->begins);
    if (!p->documents || !p->before || !p->begins) {
        pack_free(p);
        return err_set(ERR_LIMIT,
                       "no memory for packing documents into rows of %lld tokens",
                       (long long)T);
    }
    *out = p;
    return OK;
}

void pack_free(struct pack *p)
{
    if (!p)
        return;
    sys_unmap(p->documents, p->capacity * (i64)sizeof *p->documents);
    sys_unmap(p->before, (p->capacity + 1) * (i64)sizeof *p->before);
    sys_unmap(p->begins, (p->capacity + 1) * (i64)sizeof *p->begins);
    sys_free(p);
}

static i64 length_of(const struct document *d)
{
    return (i64)(d->key >> 32);
}

/* --- the documents of a block ------------------------------------------------------- */

static void sift_down(struct document *d, i64 i, i64 n)
{
    struct document moving = d[i];
    for (i64 child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && d[child + 1].key > d[child].key)
            child++;
        if (d[child].key <= moving.key)
            break;
        d[i] = d[child];
    }
    d[i] = moving;
}

/* Heapsort: the library's qsort may allocate. */
static void sort(struct document *d, i64 n)
{
    for (i64 i = n / 2 - 1; i >= 0; i--)
        sift_down(d, i, n);
    for (i64 i = n - 1; i > 0; i--) {
        struct document last = d[i];
        d[i] = d[0];
        d[0] = last;
        sift_down(d, 0, i);
    }
}

/* Fills p->documents with block k, and gives the tokens it covers. */
static int load_block(struct pack *p, struct dataset_reader *r, const struct rng *key,
                      i64 k, i64 *begin, i64 *end)
{
    i64 S = PACK_ROWS * p->T, first, last;
    TRY(dataset_next_begin(r, k * S, begin, &first));
    TRY(dataset_next_begin(r, (k + 1) * S, end, &last));
    p->n = last - first;
    if (p->n < 0 || p->n > p->capacity)
        return err_set(ERR_FORMAT,
                       "%s: its table of documents is damaged; prepare the data "
                       "again",
                       r->dataset->path);
    TRY(dataset_begins(r, first, p->n + 1, p->begins));
    for (i64 i = 0; i < p->n; i++) {
        i64 tokens = p->begins[i + 1] - p->begins[i];
        if (tokens <= 0 || tokens > UINT32_MAX)
            return err_set(ERR_FORMAT, "%s: document %lld has an impossible length",
                           r->dataset->path, (long long)(first + i));
        u64 random = rng_u64(key, (u64)(first + i)) >> 32;
        p->documents[i] = (struct document){ (u64)tokens << 32 | random, p->begins[i] };
    }
    sort(p->documents, p->n);
    for (i64 i = 0; i <= p->n; i++)
        p->before[i] = (u32)i;
    return OK;
}

/* --- filling rows ------------------------------------------------------------------- */

/* The last document still there among the first i, 1-based; 0: none. */
static i64 last_among(struct pack *p, i64 i)
{
    while (p->before[i] != i) {
        p->before[i] = p->before[p->before[i]];
        i = p->before[i];
    }
    return i;
}

/* How many documents have at most this length. */
static i64 count_fitting(const struct pack *p, i64 length)
{
    i64 low = 0, high = p->n;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (length_of(&p->documents[middle]) <= length)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The document to go into `space`: preferably one after which another fits exactly. */
static i64 best_fit(struct pack *p, i64 space)
{
    enum { TRIES = 32 };
    i64 longest = last_among(p, count_fitting(p, space)), pick = longest;
    for (int i = 0; i < TRIES && pick > 0; i++, pick = last_among(p, pick - 1)) {
        i64 rest = space - length_of(&p->documents[pick - 1]);
        i64 other = rest ? last_among(p, count_fitting(p, rest)) : pick;
        if (rest == 0 || (other > 0 && other != pick &&
                          length_of(&p->documents[other - 1]) == rest))
            return pick;
    }
    return longest;
}

/* Lays a whole document at stream position `at`; pieces are cut at the ends of rows. */
static i64 lay(struct pack *p, const struct document *d, i64 at)
{
    i64 left = length_of(d), from = d->begin;
    while (left > 0) {
        i64 tokens = i64_min(left, p->T - at % p->T);
        if (at >= p->want_begin && at < p->want_end)
            p->pieces[p->n_pieces++] =
                (struct pack_piece){ from, tokens, tokens == left };
        at += tokens;
        from += tokens;
        left -= tokens;
    }
    return at;
}

static void fill_block(struct pack *p, const struct rng *key, i64 begin, i64 end)
{
    i64 at = begin;
    while (at < end && at < p->want_end) {
        i64 space = p->T - at % p->T, pick = 0;
        if (space == p->T)
            pick = last_among(p, 1 + (i64)(rng_u64(key, ~(u64)at) % (u64)p->n));
        else
            pick = best_fit(p, space);
        if (pick == 0)
            pick = last_among(p, p->n);
        assert(pick > 0);
        p->before[pick] = (u32)(pick - 1);
        at = lay(p, &p->documents[pick - 1], at);
    }
}

int pack_row(struct pack *p, struct dataset_reader *r, const struct rng *key, i64 row,
             struct pack_piece *out, i64 *pieces)
{
    const struct dataset *d = r->dataset;
    p->want_begin = row * p->T;
    p->want_end = i64_min(p->want_begin + p->T, d->tokens);
    p->pieces = out;
    p->n_pieces = 0;
    for (i64 at = p->want_begin; at < p->want_end;) {
        i64 document, document_begin, begin, end;
        TRY(dataset_document_of(r, at, &document));
        TRY(dataset_begins(r, document, 1, &document_begin));
        TRY(load_block(p, r, key, document_begin / (PACK_ROWS * p->T), &begin, &end));
        if (begin > at || end <= at || p->n == 0)
            return err_set(ERR_FORMAT,
                           "%s: its table of documents is damaged; prepare the "
                           "data again",
                           d->path);
        fill_block(p, key, begin, end);
        at = end;
    }
    *pieces = p->n_pieces;
    return OK;
}
