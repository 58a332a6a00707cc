#include "train/checkpoint_manifest.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/json.h"

#include <string.h>

#define FORMAT "headway-checkpoint"
enum { VERSION = 1, MAX_SHARDS = 4096 };

/* The end of every manifest: the hash covers all that is before it. */
#define TAIL_BEGIN ",\n  \"sha256\": \""
#define TAIL_END "\"\n}\n"
enum { TAIL_BYTES = sizeof TAIL_BEGIN - 1 + 64 + sizeof TAIL_END - 1 };

static void write_shard(struct json *j, const struct checkpoint_shard *s)
{
    struct text hex = { 0 };
    for (i64 i = 0; i < s->chunks; i++)
        text_printf(&hex, "%08x", s->crc[i]);
    json_begin_object(j);
    json_put_str(j, "file", s->file);
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
    json_put_int(&j, "version", VERSION);
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
    if (version != VERSION)
        return err_set(ERR_FORMAT, "%s: version %lld; this program reads version %d", name,
                       (long long)version, VERSION);
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
