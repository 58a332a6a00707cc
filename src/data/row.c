#include "data/row.h"

#include "base/err.h"
#include "base/sys.h"

#include <string.h>

/* A piece of one document in the row, and what follows it. */
struct segment {
    i64 place, tokens; /* places [place, place + tokens) of the row */
    i64 next;          /* token that its last one predicts; -1: none */
    u8 next_mask;      /* whether that counts, with loss on answers */
};

struct row_maker {
    const struct row_rule *rule;
    struct dataset_reader *from; /* of the row in hand */
    struct pack *pack; /* NULL when rows are contiguous */
    u32 *ids;          /* [window + 1] */
    u8 *mask;          /* [window + 1] */
    i64 *begins;       /* [window + 2] */
    struct pack_piece *pieces; /* [window] */
    struct segment *segments;  /* [window + 1] */
    i64 n_segments;
};

i64 row_windows(const struct dataset *d, i64 window)
{
    return ceil_div(d->tokens, window);
}

int row_maker_new(struct row_maker **out, const struct row_rule *rule)
{
    i64 n = rule->window + 2;
    i64 each = (i64)(sizeof(u32) + 1 + sizeof(i64) + sizeof(struct pack_piece) +
                     sizeof(struct segment));
    struct row_maker *r = sys_alloc((i64)sizeof *r + n * each, 64);
    if (!r)
        return err_set(ERR_LIMIT, "no memory for rows of %lld tokens", (long long)n);
    *r = (struct row_maker){ .rule = rule };
    r->begins = (i64 *)(r + 1);
    r->pieces = (struct pack_piece *)(r->begins + n);
    r->segments = (struct segment *)(r->pieces + n);
    r->ids = (u32 *)(r->segments + n);
    r->mask = (u8 *)(r->ids + n);
    memset(r->mask, 1, (size_t)n);
    if (rule->packing == ROW_DOCUMENTS) {
        int rc = pack_new(&r->pack, rule->window);
        if (rc < 0) {
            sys_free(r);
            return rc;
        }
    }
    *out = r;
    return OK;
}

void row_maker_free(struct row_maker *r)
{
    if (!r)
        return;
    pack_free(r->pack);
    sys_free(r);
}

/* --- contiguous rows: documents found in the table, or by their separator ----------- */

static int damaged(const struct dataset *d)
{
    return err_set(ERR_FORMAT,
                   "%s: its table of documents is damaged; prepare the data again",
                   d->path);
}

/* Begins of documents in [at, at + n] into r->begins. The first may lie before `at`. */
static int find_begins(struct row_maker *r, i64 at, i64 n, i64 *count)
{
    enum { CHUNK = 64 };
    const struct dataset *d = r->from->dataset;
    *count = 0;
    if (!d->has_documents) {
        r->begins[(*count)++] = at;
        for (i64 i = 1; i <= n && at + i < d->tokens && d->separator >= 0; i++)
            if (r->ids[i] == (u32)d->separator)
                r->begins[(*count)++] = at + i;
        return OK;
    }
    i64 document;
    TRY(dataset_document_of(r->from, at, &document));
    for (bool more = true; more;) {
        i64 want = i64_min(n + 2 - *count, d->documents + 1 - document), kept = 0;
        want = i64_min(want, CHUNK);
        TRY(dataset_begins(r->from, document, want, &r->begins[*count]));
        while (kept < want && r->begins[*count + kept] <= at + n)
            kept++;
        more = want > 0 && kept == want;
        *count += kept;
        document += kept;
    }
    for (i64 i = 0; i < *count; i++) {
        if (i == 0 ? r->begins[0] > at : r->begins[i] <= i64_max(at, r->begins[i - 1]))
            return damaged(d);
    }
    return *count > 0 ? OK : damaged(d);
}

static int contiguous(struct row_maker *r, i64 at, i64 n)
{
    const struct dataset *d = r->from->dataset;
    i64 ahead = i64_min(n + 1, d->tokens - at), count;
    TRY(dataset_tokens(r->from, at, ahead, r->ids));
    if (r->rule->loss_on_answers)
        TRY(dataset_mask(r->from, at, ahead, r->mask));
    TRY(find_begins(r, at, n, &count));
    r->n_segments = 0;
    for (i64 i = 0; i < count && r->begins[i] < at + n; i++) {
        i64 begin = i64_max(r->begins[i], at);
        i64 end = i + 1 < count ? r->begins[i + 1] : at + n;
        bool ends = i + 1 < count || end == d->tokens;
        struct segment *s = &r->segments[r->n_segments++];
        *s = (struct segment){ begin - at, end - begin, d->separator, 0 };
        if (!ends)
            s->next = r->ids[end - at];
        s->next_mask = r->mask[ends ? end - at - 1 : end - at];
    }
    return OK;
}

/* --- packed rows -------------------------------------------------------------------- */

/* Tokens [first, first + n) of packed row `row`. */
static int packed(struct row_maker *r, const struct rng *key, i64 row, i64 first, i64 n)
{
    const struct dataset *d = r->from->dataset;
    i64 pieces, place = 0;
    TRY(pack_row(r->pack, r->from, key, row, r->pieces, &pieces));
    r->n_segments = 0;
    for (i64 i = 0; i < pieces && place < first + n; place += r->pieces[i++].tokens) {
        const struct pack_piece *p = &r->pieces[i];
        i64 begin = i64_max(place, first), end = i64_min(place + p->tokens, first + n);
        if (begin >= end)
            continue;
        /* One token more than the piece has, unless its document ends there. */
        i64 from = p->from + begin - place, count = end - begin;
        bool ends = p->ends && end == place + p->tokens;
        u32 *ids = r->ids + begin - first;
        u8 *mask = r->mask + begin - first;
        TRY(dataset_tokens(r->from, from, count + !ends, ids));
        if (r->rule->loss_on_answers)
            TRY(dataset_mask(r->from, from, count + !ends, mask));
        r->segments[r->n_segments++] =
            (struct segment){ begin - first, count, ends ? d->separator : (i64)ids[count],
                              mask[ends ? count - 1 : count] };
    }
    return OK;
}

/* --- from pieces to a row ----------------------------------------------------------- */

static int bad_id(const struct row_maker *r, i64 id)
{
    return err_set(ERR_FORMAT,
                   "%s holds token %lld, but the model's vocabulary ends at %u: it was "
                   "prepared with another tokenizer, or is damaged",
                   r->from->dataset->path, (long long)id, r->rule->vocab);
}

static int write_segment(struct row_maker *r, const struct segment *s,
                         const struct row *out, struct row_sums *sums)
{
    const struct row_rule *rule = r->rule;
    bool stop = rule->border == ROW_BORDER_STOP;
    for (i64 i = 0; i < s->tokens; i++) {
        i64 at = s->place + i;
        bool last = i + 1 == s->tokens;
        i64 target = last ? s->next : (i64)r->ids[at + 1];
        i64 counts = target >= 0;
        if (rule->loss_on_answers)
            counts &= last ? s->next_mask : r->mask[at + 1];
        if (r->ids[at] >= rule->vocab || target >= rule->vocab)
            return bad_id(r, i64_max(r->ids[at], target));
        out->tokens[at] = (i32)r->ids[at];
        out->targets[at] = (i32)i64_max(target, 0);
        out->weights[at] = (float)counts;
        out->positions[at] = (i32)(stop ? i : at);
        out->begin[at] = (i32)(stop ? s->place : 0);
        sums->weight += (double)counts;
        if (counts && rule->token_bytes)
            sums->bytes += rule->token_bytes[target];
    }
    return OK;
}

static void pad(const struct row *out, i64 from, i64 T)
{
    for (i64 i = from; i < T; i++) {
        out->tokens[i] = out->targets[i] = 0;
        out->weights[i] = 0;
        out->positions[i] = (i32)(i - from);
        out->begin[i] = (i32)from;
    }
}

void row_clear(const struct row *out, i64 T)
{
    pad(out, 0, T);
}

int row_fill(struct row_maker *r, struct dataset_reader *from, const struct rng *key,
             i64 window, i64 first, i64 T, const struct row *out, struct row_sums *sums)
{
    const struct dataset *d = from->dataset;
    r->from = from;
    i64 at = window * r->rule->window + first;
    i64 n = i64_max(0, i64_min(T, d->tokens - at));
    *sums = (struct row_sums){ 0 };
    if (n > 0 && r->rule->packing == ROW_DOCUMENTS)
        TRY(packed(r, key, window, first, n));
    else if (n > 0)
        TRY(contiguous(r, at, n));
    else
        r->n_segments = 0;
    for (i64 i = 0; i < r->n_segments; i++)
        TRY(write_segment(r, &r->segments[i], out, sums));
    pad(out, n, T);
    return OK;
}
