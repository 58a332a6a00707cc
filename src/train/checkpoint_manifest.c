#include "train/checkpoint_manifest.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/json.h"

#include <string.h>

#define FORMAT "headway-checkpoint"
enum { VERSION_WHOLE = 1, VERSION_BOXES = 2, MAX_SHARDS = 1 << 14, MAX_BOXES = 1 << 22 };

/* The end of every manifest: the hash covers all that is before it. */
#define TAIL_BEGIN ",\n  \"sha256\": \""
#define TAIL_END "\"\n}\n"
enum { TAIL_BYTES = sizeof TAIL_BEGIN - 1 + 64 + sizeof TAIL_END - 1 };

const char *checkpoint_box_name(const struct checkpoint_box *b, struct arena *a)
{
    struct text t = { 0 };
    text_printf(&t, "%s@", b->name);
    for (int d = 0; d < b->rank; d++)
        text_printf(&t, "%s%lld", d ? "," : "", (long long)b->at[d]);
    const char *name = arena_strdup(a, t.data);
    text_fini(&t);
    return name;
}

static void write_numbers(struct json *j, const char *key, const i64 *value, int n)
{
    struct text list = { 0 };
    text_add(&list, "[");
    for (int d = 0; d < n; d++)
        text_printf(&list, "%s%lld", d ? "," : "", (long long)value[d]);
    text_add(&list, "]");
    json_key(j, key);
    json_literal(j, list.data);
    text_fini(&list);
}

static void write_boxes(struct json *j, const struct checkpoint_shard *s)
{
    json_put_str(j, "prefix", s->prefix);
    json_key(j, "boxes");
    json_begin_array(j);
    for (i64 i = 0; i < s->boxes; i++) {
        const struct checkpoint_box *b = &s->box[i];
        json_begin_object(j);
        json_put_str(j, "tensor", b->name);
        json_put_str(j, "dtype", dtype_name(b->dtype));
        write_numbers(j, "at", b->at, b->rank);
        write_numbers(j, "dim", b->dim, b->rank);
        write_numbers(j, "of", b->whole, b->rank);
        json_end(j);
    }
    json_end(j);
}

static void write_shard(struct json *j, const struct checkpoint_shard *s)
{
    struct text hex = { 0 };
    for (i64 i = 0; i < s->chunks; i++)
        text_printf(&hex, "%08x", s->crc[i]);
    json_begin_object(j);
    json_put_str(j, "file", s->file);
    if (s->box)
        write_boxes(j, s);
    json_put_int(j, "bytes", s->bytes);
    json_put_str(j, "sha256", s->sha256);
    json_put_str(j, "crc32c", hex.data ? hex.data : "");
    json_end(j);
    text_fini(&hex);
}

void checkpoint_manifest_write(struct text *out, i64 step, double saved_at,
                               const struct checkpoint_shard *shards, i64 n, const char *state)
{
    struct json j;
    char hex[65];
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_str(&j, "format", FORMAT);
    json_put_int(&j, "version", n > 0 && !shards[0].box ? VERSION_WHOLE : VERSION_BOXES);
    json_put_int(&j, "step", step);
    json_put_double(&j, "saved_at", saved_at);
    json_put_int(&j, "chunk_bytes", CHECKPOINT_CHUNK);
    json_key(&j, "state");
    json_literal(&j, state);
    json_key(&j, "shards");
    json_begin_array(&j);
    for (i64 i = 0; i < n; i++)
        write_shard(&j, &shards[i]);
    json_end(&j);
    json_end(&j);
    i64 body = j.out.length;
    while (body > 0 && j.out.data[body - 1] != ']') /* the closing brace comes after the hash */
        body--;
    sha256_of(j.out.data, body, hex);
    text_add_bytes(out, j.out.data, body);
    text_printf(out, "%s%s%s", TAIL_BEGIN, hex, TAIL_END);
    json_writer_fini(&j);
}

/* --- reading --------------------------------------------------------------------- */

static int check_hash(const char *text, i64 bytes, const char *name)
{
    char hex[65];
    const char *tail = text + bytes - TAIL_BYTES;
    const i64 begin = sizeof TAIL_BEGIN - 1;
    if (bytes < TAIL_BYTES || memcmp(tail, TAIL_BEGIN, (size_t)begin) != 0 ||
        memcmp(tail + begin + 64, TAIL_END, sizeof TAIL_END - 1) != 0)
        return err_set(ERR_FORMAT, "%s: truncated or damaged: it does not end in its SHA-256",
                       name);
    sha256_of(text, bytes - TAIL_BYTES, hex);
    if (memcmp(tail + begin, hex, 64) != 0)
        return err_set(ERR_FORMAT, "%s: damaged: its SHA-256 does not match", name);
    return OK;
}

static bool is_plain_name(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    size_t n = strlen(name);
    return n > 0 && n < 200 && name[0] != '.' && strspn(name, allowed) == n;
}

static bool is_hex(const char *text, size_t length)
{
    return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

static bool read_crcs(struct arena *a, struct checkpoint_shard *s, const char *hex)
{
    s->chunks = ceil_div(s->bytes, CHECKPOINT_CHUNK);
    if (!is_hex(hex, (size_t)(8 * s->chunks)))
        return false;
    s->crc = ARENA_ARRAY(a, u32, s->chunks);
    for (i64 i = 0; i < s->chunks; i++)
        for (int k = 0; k < 8; k++) {
            u32 c = (u8)hex[8 * i + k];
            s->crc[i] = s->crc[i] << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
        }
    return true;
}

/* Whole numbers up to 2^48: rank of them where that is known, else as many as there are. */
static bool read_numbers(const json_t *list, int *rank, i64 *out)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > CHECKPOINT_RANK || (*rank >= 0 && n != (size_t)*rank))
        return false;
    for (size_t d = 0; d < n; d++) {
        const json_t *v = json_array_get(list, d);
        out[d] = (i64)json_integer_value(v);
        if (!json_is_integer(v) || out[d] < 0 || out[d] > (i64)1 << 48)
            return false;
    }
    *rank = (int)n;
    return true;
}

static bool read_dtype(const char *text, enum dtype *out)
{
    for (int d = 0; text && d < DTYPES; d++)
        if (strcmp(text, dtype_name((enum dtype)d)) == 0) {
            *out = (enum dtype)d;
            return true;
        }
    return false;
}

static bool read_box(struct arena *a, struct checkpoint_box *b, const json_t *json)
{
    const char *name = json_string_value(json_object_get(json, "tensor"));
    i64 elements = 8;
    b->rank = -1;
    if (!name || !*name ||
        !read_dtype(json_string_value(json_object_get(json, "dtype")), &b->dtype) ||
        !read_numbers(json_object_get(json, "of"), &b->rank, b->whole) ||
        !read_numbers(json_object_get(json, "at"), &b->rank, b->at) ||
        !read_numbers(json_object_get(json, "dim"), &b->rank, b->dim))
        return false;
    for (int d = 0; d < b->rank; d++)
        if (b->at[d] + b->dim[d] > b->whole[d] || size_mul(elements, b->whole[d], &elements))
            return false;
    b->name = arena_strdup(a, name);
    return true;
}

/* Version 1 has no boxes, and the file's name begins with the prefix. */
static bool read_boxes(struct checkpoint_manifest *m, struct checkpoint_shard *s, json_t *json)
{
    static const char ending[] = ".safetensors";
    const json_t *list = json_object_get(json, "boxes");
    const char *prefix = json_string_value(json_object_get(json, "prefix"));
    if (m->version == VERSION_WHOLE) {
        i64 n = (i64)strlen(s->file) - (i64)strlen(ending);
        bool named = n > 0 && strcmp(s->file + n, ending) == 0;
        s->prefix = named ? arena_strndup(&m->arena, s->file, n) : s->file;
        return true;
    }
    if (!prefix || !is_plain_name(prefix) || !json_is_array(list) ||
        json_array_size(list) > MAX_BOXES)
        return false;
    s->prefix = arena_strdup(&m->arena, prefix);
    s->box = ARENA_ARRAY(&m->arena, struct checkpoint_box, json_array_size(list) + 1);
    for (; s->boxes < (i64)json_array_size(list); s->boxes++)
        if (!read_box(&m->arena, &s->box[s->boxes], json_array_get(list, (size_t)s->boxes)))
            return false;
    return true;
}

static int read_shard(struct checkpoint_manifest *m, json_t *json, const char *name)
{
    struct checkpoint_shard *s = &m->shard[m->n];
    const char *file, *sha, *crc;
    json_int_t bytes;
    if (json_unpack(json, "{s:s, s:I, s:s, s:s}", "file", &file, "bytes", &bytes, "sha256", &sha,
                    "crc32c", &crc) != 0 ||
        !is_plain_name(file) || bytes < 0 || bytes > (json_int_t)1 << 48 || !is_hex(sha, 64))
        return err_set(ERR_FORMAT, "%s: shard %lld is not described as it should be", name,
                       (long long)m->n);
    for (i64 i = 0; i < m->n; i++)
        if (strcmp(m->shard[i].file, file) == 0)
            return err_set(ERR_FORMAT, "%s: names %s twice", name, file);
    s->file = arena_strdup(&m->arena, file);
    s->bytes = bytes;
    memcpy(s->sha256, sha, 65);
    if (!read_crcs(&m->arena, s, crc))
        return err_set(ERR_FORMAT, "%s: %s: its CRC32C list does not fit its size", name, file);
    if (!read_boxes(m, s, json))
        return err_set(ERR_FORMAT, "%s: %s: what is in it is not described as it should be",
                       name, file);
    m->n++;
    return OK;
}

static int read_root(struct checkpoint_manifest *m, json_t *root, const char *name)
{
    const char *format;
    json_int_t version, step, chunk;
    json_t *state, *shards, *shard;
    size_t i;
    if (json_unpack(root, "{s:s, s:I}", "format", &format, "version", &version) != 0 ||
        strcmp(format, FORMAT) != 0)
        return err_set(ERR_FORMAT, "%s: not a manifest of a Headway checkpoint", name);
    if (version != VERSION_WHOLE && version != VERSION_BOXES)
        return err_set(ERR_FORMAT, "%s: version %lld; this program reads versions %d and %d",
                       name, (long long)version, VERSION_WHOLE, VERSION_BOXES);
    m->version = version;
    if (json_unpack(root, "{s:I, s:F, s:I, s:o, s:o}", "step", &step, "saved_at", &m->saved_at,
                    "chunk_bytes", &chunk, "state", &state, "shards", &shards) != 0 ||
        step < 0 || chunk != CHECKPOINT_CHUNK || !json_is_object(state) ||
        !json_is_array(shards) || json_array_size(shards) > MAX_SHARDS)
        return err_set(ERR_FORMAT, "%s: an entry is missing or of the wrong kind", name);
    m->step = step;
    m->shard = ARENA_ARRAY(&m->arena, struct checkpoint_shard, json_array_size(shards));
    json_array_foreach(shards, i, shard)
        TRY(read_shard(m, shard, name));
    m->state = json_incref(state);
    return OK;
}

int checkpoint_manifest_parse(struct checkpoint_manifest *out, const char *text, i64 bytes,
                              const char *name)
{
    json_t *root;
    *out = (struct checkpoint_manifest){ 0 };
    arena_init(&out->arena);
    TRY(check_hash(text, bytes, name));
    TRY(json_parse(text, bytes, name, &root));
    int rc = read_root(out, root, name);
    json_decref(root);
    return rc;
}

void checkpoint_manifest_fini(struct checkpoint_manifest *m)
{
    json_decref(m->state);
    arena_fini(&m->arena);
    *m = (struct checkpoint_manifest){ 0 };
}
