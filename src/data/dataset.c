#include "data/dataset.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

u64 dataset_tokenizer_id(const char *sha256)
{
    u64 id = 0;
    for (int i = 0; i < 16 && sha256[i]; i++)
        id = id << 4 | (u64)(sha256[i] <= '9' ? sha256[i] - '0' : sha256[i] - 'a' + 10);
    return id;
}

/* --- finding shards ----------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return sys_stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Does this file of a folder belong to the split? */
static bool in_split(const char *name, const char *split)
{
    size_t n = strlen(split);
    if (ends_with(name, ".shard"))
        return strncmp(name, split, n) == 0 && name[n] == '-';
    bool val = strstr(name, "val") != NULL;
    return ends_with(name, ".bin") && val == (strcmp(split, "val") == 0);
}

bool dataset_is_prepared(const char *path)
{
    if (!is_folder(path))
        return ends_with(path, ".shard") || ends_with(path, ".bin");
    char **names;
    int n = sys_list(path, &names);
    bool found = false;
    for (int i = 0; i < n; i++)
        found |= ends_with(names[i], ".shard") || ends_with(names[i], ".bin");
    if (n >= 0)
        sys_free(names);
    return found;
}

static int list_folder(struct dataset *d, struct arena *a)
{
    char **names;
    int n = sys_list(d->path, &names);
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", d->path, strerror(errno));
    bool prepared = false;
    for (int i = 0; i < n; i++)
        prepared |= ends_with(names[i], ".shard");
    d->shards = ARENA_ARRAY(a, struct dataset_shard, n);
    for (int i = 0; i < n; i++) {
        if (in_split(names[i], d->split) && ends_with(names[i], ".shard") == prepared)
            d->shards[d->n_shards++].path = arena_printf(a, "%s/%s", d->path, names[i]);
    }
    sys_free(names);
    return OK;
}

/* --- opening ------------------------------------------------------------------------ */

static int same_as_first(const struct dataset *d, i64 i)
{
    const struct shard *s = &d->shards[i].info, *first = &d->shards[0].info;
    const char *path = d->shards[i].path;
    if (s->kind == first->kind && s->tokenizer_hash == first->tokenizer_hash &&
        s->separator == first->separator && s->vocab == first->vocab)
        return OK;
    return err_set(ERR_FORMAT,
                   "%s and %s come from different data sets; keep one per folder",
                   d->shards[0].path, path);
}

static int open_shard(struct dataset *d, i64 i, struct arena *a)
{
    struct dataset_shard *s = &d->shards[i];
    struct shard_file f;
    TRY(shard_file_open(&f, s->path));
    int rc = shard_read(&s->info, &f);
    shard_file_close(&f);
    TRY(rc);
    TRY(same_as_first(d, i));
    s->token_begin = d->tokens;
    s->document_begin = d->documents;
    s->checked = ARENA_ARRAY(a, _Atomic u64, ceil_div(s->info.checks, 64));
    d->tokens += s->info.tokens;
    d->documents += s->info.documents;
    d->text_bytes += s->info.text_bytes;
    d->loss_tokens += s->info.loss_tokens;
    d->has_mask |= s->info.mask_at != 0;
    return OK;
}

/* Shards of our own are numbered, and the last one says so. One may be opened alone. */
static int check_complete(const struct dataset *d)
{
    if (d->shards[0].info.kind != SHARD_HEADWAY || !is_folder(d->path))
        return OK;
    for (i64 i = 0; i < d->n_shards; i++) {
        const struct shard *s = &d->shards[i].info;
        if (s->index != (u32)i || s->last != (i == d->n_shards - 1))
            return err_set(ERR_FORMAT,
                           "%s: the %s split is incomplete: a shard is missing near %s",
                           d->path, d->split, d->shards[i].path);
    }
    return OK;
}

int dataset_open(struct dataset *d, const char *path, const char *split, i32 separator,
                 struct arena *a)
{
    *d = (struct dataset){ .split = split, .separator = -1 };
    d->path = arena_strdup(a, path);
    if (!sys_exists(path))
        return err_set(ERR_SYS, "open %s: %s", path, strerror(ENOENT));
    if (is_folder(path)) {
        TRY(list_folder(d, a));
    } else {
        d->shards = ARENA_NEW(a, struct dataset_shard);
        const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
        bool val = strncmp(name, "val", 3) == 0 || strstr(name, "_val") != NULL;
        if (val == (strcmp(split, "val") == 0))
            d->shards[d->n_shards++].path = d->path;
    }
    for (i64 i = 0; i < d->n_shards; i++)
        TRY(open_shard(d, i, a));
    if (d->n_shards == 0)
        return OK;
    TRY(check_complete(d));
    const struct shard *first = &d->shards[0].info;
    d->tokenizer_hash = first->tokenizer_hash;
    d->vocab = first->vocab;
    d->has_documents = first->kind == SHARD_HEADWAY;
    d->separator = d->has_documents ? first->separator : separator;
    return OK;
}

/* --- reading ------------------------------------------------------------------------ */

void dataset_reader_init(struct dataset_reader *r, const struct dataset *d, int files)
{
    r->dataset = d;
    r->n_files = (int)i64_max(1, i64_min(files, DATASET_FILES));
    for (int i = 0; i < r->n_files; i++)
        r->open[i] = -1;
}

void dataset_reader_fini(struct dataset_reader *r)
{
    for (int i = 0; i < r->n_files; i++) {
        if (r->open[i] >= 0)
            shard_file_close(&r->files[i]);
        r->open[i] = -1;
    }
}

static int file_of(struct dataset_reader *r, i64 shard, struct shard_file **out)
{
    i64 place = shard % r->n_files;
    *out = &r->files[place];
    if (r->open[place] == shard)
        return OK;
    if (r->open[place] >= 0)
        shard_file_close(*out);
    r->open[place] = -1;
    TRY(shard_file_open(*out, r->dataset->shards[shard].path));
    r->open[place] = shard;
    return OK;
}

/* Bytes of a shard, compared with their checks if nobody did that yet. */
static int read_checked(struct dataset_reader *r, i64 shard, void *out, i64 n, i64 offset)
{
    const struct dataset_shard *s = &r->dataset->shards[shard];
    i64 first = (offset - SHARD_HEADER_BYTES) / SHARD_BLOCK_BYTES;
    i64 end = ceil_div(offset + n - SHARD_HEADER_BYTES, SHARD_BLOCK_BYTES);
    struct shard_file *f;
    TRY(file_of(r, shard, &f));
    for (i64 i = first; i < end && s->info.checks_at; i++) {
        u64 bit = (u64)1 << i % 64;
        if (atomic_load_explicit(&s->checked[i / 64], memory_order_relaxed) & bit)
            continue;
        TRY(shard_check_block(&s->info, f, i));
        atomic_fetch_or_explicit(&s->checked[i / 64], bit, memory_order_relaxed);
    }
    return shard_file_read(f, out, n, offset);
}

/* The last shard that begins at or before a token. */
static i64 shard_of_token(const struct dataset *d, i64 token)
{
    i64 low = 0, high = d->n_shards;
    while (high - low > 1) {
        i64 middle = (low + high) / 2;
        if (d->shards[middle].token_begin <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Widens in place: bytes of n u16 lie at the start of out. */
static void widen(u32 *out, i64 n)
{
    const u8 *narrow = (const u8 *)out;
    for (i64 i = n - 1; i >= 0; i--) {
        u16 v;
        memcpy(&v, narrow + 2 * i, 2);
        out[i] = v;
    }
}

int dataset_tokens(struct dataset_reader *r, i64 at, i64 n, u32 *out)
{
    const struct dataset *d = r->dataset;
    assert(at >= 0 && n >= 0 && at + n <= d->tokens);
    for (i64 i = n ? shard_of_token(d, at) : 0; n > 0; i++) {
        const struct dataset_shard *s = &d->shards[i];
        i64 local = at - s->token_begin, count = i64_min(n, s->info.tokens - local);
        if (count <= 0)
            continue; /* an empty shard */
        int width = s->info.token_bytes;
        TRY(read_checked(r, i, out, count * width, s->info.tokens_at + local * width));
        if (width == 2)
            widen(out, count);
        out += count;
        at += count;
        n -= count;
    }
    return OK;
}

static int mask_of_shard(struct dataset_reader *r, i64 shard, i64 local, i64 n, u8 *out)
{
    enum { CHUNK = 512 };
    const struct shard *s = &r->dataset->shards[shard].info;
    u8 bits[CHUNK / 8 + 1];
    if (!s->mask_at) {
        memset(out, 1, (size_t)n);
        return OK;
    }
    for (i64 done = 0; done < n; done += CHUNK) {
        i64 first = local + done, count = i64_min(CHUNK, n - done);
        i64 byte = first / 8, bytes = (first + count - 1) / 8 - byte + 1;
        TRY(read_checked(r, shard, bits, bytes, s->mask_at + byte));
        for (i64 i = 0; i < count; i++) {
            i64 bit = first + i - 8 * byte;
            out[done + i] = bits[bit / 8] >> bit % 8 & 1;
        }
    }
    return OK;
}

int dataset_mask(struct dataset_reader *r, i64 at, i64 n, u8 *out)
{
    const struct dataset *d = r->dataset;
    assert(at >= 0 && n >= 0 && at + n <= d->tokens);
    for (i64 i = n ? shard_of_token(d, at) : 0; n > 0; i++) {
        i64 local = at - d->shards[i].token_begin;
        i64 count = i64_min(n, d->shards[i].info.tokens - local);
        if (count <= 0)
            continue;
        TRY(mask_of_shard(r, i, local, count, out));
        out += count;
        at += count;
        n -= count;
    }
    return OK;
}

/* --- documents ---------------------------------------------------------------------- */

static int damaged(const struct dataset_shard *s)
{
    return err_set(ERR_FORMAT,
                   "%s: its table of documents is damaged; prepare the data again",
                   s->path);
}

/* Begin of one document within its shard; document may be info.documents. */
static int local_begin(struct dataset_reader *r, i64 shard, i64 document, i64 *begin)
{
    const struct dataset_shard *s = &r->dataset->shards[shard];
    TRY(read_checked(r, shard, begin, sizeof *begin,
                     s->info.documents_at + document * (i64)sizeof(struct shard_document)));
    return *begin < 0 || *begin > s->info.tokens ? damaged(s) : OK;
}

int dataset_document_of(struct dataset_reader *r, i64 token, i64 *document)
{
    const struct dataset *d = r->dataset;
    assert(d->has_documents && token >= 0 && token < d->tokens);
    i64 shard = shard_of_token(d, token);
    const struct dataset_shard *s = &d->shards[shard];
    i64 local = token - s->token_begin, low = 0, high = s->info.documents, begin;
    while (high - low > 1) {
        i64 middle = (low + high) / 2;
        TRY(local_begin(r, shard, middle, &begin));
        if (begin <= local)
            low = middle;
        else
            high = middle;
    }
    *document = s->document_begin + low;
    return OK;
}

static i64 shard_of_document(const struct dataset *d, i64 document)
{
    i64 low = 0, high = d->n_shards;
    while (high - low > 1) {
        i64 middle = (low + high) / 2;
        if (d->shards[middle].document_begin <= document)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int begins_of_shard(struct dataset_reader *r, i64 shard, i64 local, i64 n,
                           i64 *out)
{
    enum { CHUNK = 256 };
    struct shard_document table[CHUNK];
    const struct dataset_shard *s = &r->dataset->shards[shard];
    i64 before = -1;
    for (i64 done = 0; done < n; done += CHUNK) {
        i64 count = i64_min(CHUNK, n - done);
        TRY(read_checked(r, shard, table, count * (i64)sizeof *table,
                         s->info.documents_at + (local + done) * (i64)sizeof *table));
        for (i64 i = 0; i < count; i++) {
            if (table[i].begin <= before || table[i].begin >= s->info.tokens)
                return damaged(s);
            before = table[i].begin;
            out[done + i] = s->token_begin + before;
        }
    }
    return OK;
}

int dataset_begins(struct dataset_reader *r, i64 first, i64 n, i64 *out)
{
    const struct dataset *d = r->dataset;
    assert(d->has_documents && first >= 0 && n >= 0 && first + n <= d->documents + 1);
    if (n > 0 && first + n == d->documents + 1)
        out[--n] = d->tokens;
    for (i64 i = n ? shard_of_document(d, first) : 0; n > 0; i++) {
        i64 local = first - d->shards[i].document_begin;
        i64 count = i64_min(n, d->shards[i].info.documents - local);
        if (count <= 0)
            continue;
        TRY(begins_of_shard(r, i, local, count, out));
        out += count;
        first += count;
        n -= count;
    }
    return OK;
}

int dataset_next_begin(struct dataset_reader *r, i64 token, i64 *begin, i64 *document)
{
    const struct dataset *d = r->dataset;
    *begin = d->tokens;
    *document = d->documents;
    if (token >= d->tokens)
        return OK;
    TRY(dataset_document_of(r, token, document));
    TRY(dataset_begins(r, *document, 1, begin));
    if (*begin >= token)
        return OK;
    ++*document;
    return dataset_begins(r, *document, 1, begin);
}
