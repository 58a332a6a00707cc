#include "model/safetensors.h"

#include "base/err.h"
#include "base/sys.h"
#include "model/safetensors_format.h"
#include "model/safetensors_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* In the order of the Python library, which sorts a file's tensors by it, last row first. */
static const struct safetensors_format formats[] = {
    { "BOOL", 1, -1 },         { "U8", 1, DTYPE_U8 },    { "I8", 1, -1 },
    { "F8_E5M2", 1, -1 },      { "F8_E4M3", 1, -1 },     { "F8_E8M0", 1, -1 },
    { "F8_E4M3FNUZ", 1, -1 },  { "F8_E5M2FNUZ", 1, -1 }, { "I16", 2, -1 },
    { "U16", 2, -1 },          { "F16", 2, DTYPE_F16 },  { "BF16", 2, DTYPE_BF16 },
    { "I32", 4, DTYPE_I32 },   { "U32", 4, -1 },         { "F32", 4, DTYPE_F32 },
    { "C64", 8, -1 },          { "F64", 8, DTYPE_F64 },  { "I64", 8, DTYPE_I64 },
    { "U64", 8, -1 },
};

/* A header of "":"" pairs would cost three times its size. */
enum { MAX_METADATA = 65536, WORD = 16 };

const struct safetensors_format *safetensors_format_of(int dtype)
{
    for (i64 i = 0; i < COUNT_OF(formats); i++)
        if (formats[i].dtype == dtype)
            return &formats[i];
    err_panic("dtype %d has no safetensors format", dtype);
}

static const struct safetensors_format *format_by_name(const char *name)
{
    for (i64 i = 0; i < COUNT_OF(formats); i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

/* The header is read twice by the same code: first to check it and to count, then, with
 * memory of exactly the right size, to keep. */
struct reader {
    struct scan s;
    struct safetensors *out;
    bool keep;
    i64 n, n_metadata;
    i64 text_bytes; /* of all names, keys and values; their NULs included */
    char *text;     /* where the next one goes */
    char *text_end;
};

static int read_text(struct reader *r, const char **out)
{
    i64 length;
    TRY(scan_string(&r->s, r->text, r->keep ? r->text_end - r->text : 0, &length));
    r->text_bytes += length + 1;
    if (r->keep) {
        *out = r->text;
        r->text += length + 1;
    }
    return OK;
}

/* A key among known ones; longer than every known one gives "". */
static int read_word(struct reader *r, char word[WORD])
{
    i64 length;
    TRY(scan_string(&r->s, word, WORD, &length));
    if (length >= WORD || length != (i64)strlen(word))
        word[0] = '\0';
    return OK;
}

static int read_metadata(struct reader *r)
{
    struct safetensors_pair pair;
    TRY(scan_expect(&r->s, '{'));
    if (scan_take(&r->s, '}'))
        return OK;
    do {
        TRY(read_text(r, &pair.key));
        TRY(scan_expect(&r->s, ':'));
        TRY(read_text(r, &pair.value));
        if (r->keep)
            r->out->metadata[r->n_metadata] = pair;
        if (++r->n_metadata > MAX_METADATA)
            return scan_fail(&r->s, "at most 65536 metadata entries");
    } while (scan_take(&r->s, ','));
    return scan_expect(&r->s, '}');
}

static int read_shape(struct reader *r, struct safetensors_tensor *t)
{
    TRY(scan_expect(&r->s, '['));
    if (scan_take(&r->s, ']'))
        return OK;
    do {
        if (t->rank == SAFETENSORS_RANK)
            return scan_fail(&r->s, "at most 8 dimensions");
        TRY(scan_integer(&r->s, &t->dim[t->rank++]));
    } while (scan_take(&r->s, ','));
    return scan_expect(&r->s, ']');
}

static int read_offsets(struct reader *r, struct safetensors_tensor *t)
{
    i64 end;
    TRY(scan_expect(&r->s, '['));
    TRY(scan_integer(&r->s, &t->begin));
    TRY(scan_expect(&r->s, ','));
    TRY(scan_integer(&r->s, &end));
    TRY(scan_expect(&r->s, ']'));
    if (end < t->begin)
        return scan_fail(&r->s, "data_offsets that do not run backwards");
    t->bytes = end - t->begin;
    return OK;
}

static int read_format(struct reader *r, struct safetensors_tensor *t, i64 *element_bytes)
{
    char word[WORD];
    TRY(read_word(r, word));
    const struct safetensors_format *f = format_by_name(word);
    if (!f)
        return scan_fail(&r->s, "a dtype such as F32, BF16, I64 or U8 before this place");
    t->format = f->name;
    t->dtype = f->dtype;
    *element_bytes = f->bytes;
    return OK;
}

static int read_field(struct reader *r, struct safetensors_tensor *t, i64 *element_bytes,
                      unsigned *seen)
{
    static const char *const names[] = { "dtype", "shape", "data_offsets" };
    char word[WORD];
    int which = 0;
    TRY(read_word(r, word));
    while (which < 3 && strcmp(word, names[which]) != 0)
        which++;
    if (which == 3)
        return scan_fail(&r->s, "dtype, shape or data_offsets before this place");
    if (*seen & 1u << which)
        return scan_fail(&r->s, "each field once, not twice");
    *seen |= 1u << which;
    TRY(scan_expect(&r->s, ':'));
    if (which == 0)
        return read_format(r, t, element_bytes);
    return which == 1 ? read_shape(r, t) : read_offsets(r, t);
}

static int read_tensor(struct reader *r)
{
    struct safetensors_tensor t = { 0 };
    unsigned seen = 0;
    i64 bytes = 0;
    TRY(read_text(r, &t.name));
    TRY(scan_expect(&r->s, ':'));
    TRY(scan_expect(&r->s, '{'));
    do
        TRY(read_field(r, &t, &bytes, &seen));
    while (scan_take(&r->s, ','));
    TRY(scan_expect(&r->s, '}'));
    if (seen != 7)
        return scan_fail(&r->s, "dtype, shape and data_offsets, all three, before this place");
    for (int d = 0; d < t.rank; d++)
        if (size_mul(bytes, t.dim[d], &bytes))
            return scan_fail(&r->s, "a shape whose size fits 63 bits before this place");
    if (bytes != t.bytes)
        return scan_fail(&r->s, "data_offsets that match dtype and shape before this place");
    if (r->keep)
        r->out->tensor[r->n] = t;
    r->n++;
    return OK;
}

static int read_entries(struct reader *r)
{
    bool had_metadata = false;
    TRY(scan_expect(&r->s, '{'));
    if (scan_take(&r->s, '}'))
        return scan_end(&r->s);
    do {
        struct scan before = r->s;
        char word[WORD];
        TRY(read_word(r, word));
        if (strcmp(word, "__metadata__") != 0) {
            r->s = before;
            TRY(read_tensor(r));
            continue;
        }
        if (had_metadata)
            return scan_fail(&r->s, "__metadata__ once, not twice");
        had_metadata = true;
        TRY(scan_expect(&r->s, ':'));
        TRY(read_metadata(r));
    } while (scan_take(&r->s, ','));
    TRY(scan_expect(&r->s, '}'));
    return scan_end(&r->s);
}

static int check_utf8(const u8 *text, i64 bytes)
{
    for (i64 i = 0; i < bytes;) {
        utf8proc_int32_t c;
        if (text[i] < 0x80) {
            i++;
            continue;
        }
        utf8proc_ssize_t used = utf8proc_iterate(text + i, bytes - i, &c);
        if (used <= 0)
            return err_set(ERR_FORMAT, "header byte %lld: not valid UTF-8", (long long)i);
        i += used;
    }
    return OK;
}

/* --- order, duplicates, tiling --------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->bytes != y->bytes) /* the empty ones at this place come first */
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    const struct safetensors_pair *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static int check_tiling(const struct safetensors *s, i64 data_bytes)
{
    i64 at = 0;
    for (i64 i = 0; i < s->n; i++) {
        const struct safetensors_tensor *t = &s->tensor[i];
        if (t->begin != at)
            return err_set(ERR_FORMAT, "tensor \"%s\" begins at data byte %lld, but %lld is %s",
                           t->name, (long long)t->begin, (long long)at,
                           t->begin < at ? "already taken (overlap)" : "next (hole)");
        at += t->bytes;
    }
    if (at != data_bytes)
        return err_set(ERR_FORMAT, "tensors cover %lld data bytes, the file holds %lld: %s",
                       (long long)at, (long long)data_bytes,
                       at < data_bytes ? "trailing bytes" : "truncated");
    return OK;
}

static int index_names(struct safetensors *s)
{
    for (i64 i = 0; i < s->n; i++)
        s->by_name[i] = &s->tensor[i];
    if (s->n > 0)
        qsort(s->by_name, (size_t)s->n, sizeof *s->by_name, by_name);
    for (i64 i = 1; i < s->n; i++)
        if (strcmp(s->by_name[i - 1]->name, s->by_name[i]->name) == 0)
            return err_set(ERR_FORMAT, "two tensors are named \"%s\"", s->by_name[i]->name);
    if (s->n_metadata > 0)
        qsort(s->metadata, (size_t)s->n_metadata, sizeof *s->metadata, by_key);
    for (i64 i = 1; i < s->n_metadata; i++)
        if (strcmp(s->metadata[i - 1].key, s->metadata[i].key) == 0)
            return err_set(ERR_FORMAT, "two metadata entries are named \"%s\"",
                           s->metadata[i].key);
    return OK;
}

static int read_header(struct safetensors *s, const u8 *json, i64 bytes, i64 data_bytes)
{
    struct reader count = { .s = { json, json, json + bytes }, .out = s };
    if (bytes == 0 || json[0] != '{')
        return err_set(ERR_FORMAT, "header does not begin with '{'");
    TRY(check_utf8(json, bytes));
    TRY(read_entries(&count));

    s->tensor = ARENA_ARRAY(&s->arena, struct safetensors_tensor, count.n);
    s->by_name = ARENA_ARRAY(&s->arena, const struct safetensors_tensor *, count.n);
    s->metadata = ARENA_ARRAY(&s->arena, struct safetensors_pair, count.n_metadata);
    struct reader keep = { .s = { json, json, json + bytes }, .out = s, .keep = true };
    keep.text = arena_alloc(&s->arena, count.text_bytes);
    keep.text_end = keep.text + count.text_bytes;
    TRY(read_entries(&keep));

    s->n = keep.n;
    s->n_metadata = keep.n_metadata;
    if (s->n > 0)
        qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_place);
    TRY(check_tiling(s, data_bytes));
    return index_names(s);
}

/* --- entry points ---------------------------------------------------------------- */

int safetensors_parse_header(struct safetensors *out, const void *head, i64 head_bytes,
                             i64 file_bytes)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");
    u64 length;
    *out = (struct safetensors){ 0 };
    arena_init(&out->arena);
    if (file_bytes < 8 || head_bytes < 8)
        return err_set(ERR_FORMAT, "%lld bytes are too few for a safetensors file",
                       (long long)file_bytes);
    memcpy(&length, head, 8);
    if (length < 2 || length > SAFETENSORS_MAX_HEADER)
        return err_set(ERR_FORMAT, "header length %llu is not between 2 and 100,000,000",
                       (unsigned long long)length);
    if ((i64)length > file_bytes - 8 || (i64)length > head_bytes - 8)
        return err_set(ERR_FORMAT, "header length %llu exceeds the file of %lld bytes",
                       (unsigned long long)length, (long long)file_bytes);
    out->data_begin = 8 + (i64)length;
    return read_header(out, (const u8 *)head + 8, (i64)length, file_bytes - out->data_begin);
}

int safetensors_parse(struct safetensors *out, const void *file, i64 bytes)
{
    int rc = safetensors_parse_header(out, file, bytes, bytes);
    out->file = file;
    return rc;
}

int safetensors_open(struct safetensors *out, const char *path)
{
    i64 bytes;
    void *file = sys_map_file(path, &bytes);
    if (!file) {
        *out = (struct safetensors){ 0 };
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    }
    int rc = safetensors_parse(out, file, bytes);
    out->mapped = i64_max(bytes, 1);
    return rc < 0 ? err_context(rc, "%s", path) : OK;
}

void safetensors_close(struct safetensors *s)
{
    if (s->mapped)
        sys_unmap((void *)s->file, s->mapped);
    arena_fini(&s->arena);
    *s = (struct safetensors){ 0 };
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s,
                                                  const char *name)
{
    const struct safetensors_tensor wanted = { .name = name }, *key = &wanted;
    if (s->n == 0)
        return NULL;
    const struct safetensors_tensor **found =
        bsearch(&key, s->by_name, (size_t)s->n, sizeof *s->by_name, by_name);
    return found ? *found : NULL;
}

const char *safetensors_meta(const struct safetensors *s, const char *key)
{
    const struct safetensors_pair wanted = { key, NULL };
    if (s->n_metadata == 0)
        return NULL;
    const struct safetensors_pair *found =
        bsearch(&wanted, s->metadata, (size_t)s->n_metadata, sizeof *s->metadata, by_key);
    return found ? found->value : NULL;
}

const void *safetensors_data(const struct safetensors *s, const struct safetensors_tensor *t)
{
    assert(s->file);
    return s->file + s->data_begin + t->begin;
}
