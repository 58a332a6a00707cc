#include "data/ledger.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "data/journal.h"
#include "data/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096, FORMAT_VERSION = 1, LARGEST = 1 << 30, QUICK = 16 << 20 };
static const char file_name[] = "ledger.json";

/* --- writing ------------------------------------------------------------------------ */

static void put_counts(struct json *j, const struct prepare_counts *c)
{
    json_put_int(j, "documents", c->documents);
    json_put_int(j, "tokens", c->tokens);
    json_put_int(j, "text_bytes", c->text_bytes);
    json_put_int(j, "duplicates", c->duplicates);
    json_put_int(j, "cut", c->cut);
    json_put_int(j, "malformed", c->malformed);
    json_put_int(j, "skipped", c->skipped);
}

void ledger_input_line(struct json *out, const struct input *input, const char *sha256,
                       i64 bytes, const struct prepare_counts *counts)
{
    json_begin_object(out);
    json_put_str(out, "path", input->path);
    json_put_str(out, "sha256", sha256);
    json_put_int(out, "bytes", bytes);
    put_counts(out, counts);
    json_end(out);
}

static void put_settings(struct json *j, const struct prepare_config *c)
{
    static const char *const formats[] = { "auto", "text", "paragraphs", "jsonl" };
    static const char *const policies[] = { "reject", "replace", "bytes" };
    json_key(j, "settings");
    json_begin_object(j);
    json_put_str(j, "format", formats[c->format]);
    json_put_str(j, "separator", c->separator);
    json_put_bool(j, "drop_separator", c->drop_separator);
    json_put_int(j, "least", c->least);
    json_put_int(j, "most", c->most);
    json_put_str(j, "invalid", policies[c->invalid]);
    json_put_bool(j, "skip_bad_lines", c->skip_bad_lines);
    json_put_bool(j, "keep_duplicates", c->keep_duplicates);
    json_put_double(j, "val_fraction", c->val_fraction);
    json_put_int(j, "shard_tokens", c->shard_tokens);
    json_end(j);
}

static void put_tokenizer(struct json *j, const struct prepare_config *c)
{
    json_key(j, "tokenizer");
    json_begin_object(j);
    json_put_str(j, "path", c->tokenizer_path);
    json_put_str(j, "sha256", tokenizer_hash(c->tokenizer));
    json_put_int(j, "size", tokenizer_size(c->tokenizer));
    json_end(j);
}

static int put_split(struct json *j, const char *folder, const char *split,
                     struct arena *a)
{
    struct dataset d;
    char crc[16];
    TRY(dataset_open(&d, folder, split, -1, a));
    json_key(j, split);
    json_begin_object(j);
    json_put_int(j, "documents", d.documents);
    json_put_int(j, "tokens", d.tokens);
    json_put_int(j, "loss_tokens", d.loss_tokens);
    json_put_int(j, "text_bytes", d.text_bytes);
    json_key(j, "shards");
    json_begin_array(j);
    for (i64 i = 0; i < d.n_shards; i++) {
        const struct shard *s = &d.shards[i].info;
        json_begin_object(j);
        json_put_str(j, "file", strrchr(d.shards[i].path, '/') + 1);
        json_put_int(j, "bytes", s->file_bytes);
        json_put_int(j, "documents", s->documents);
        json_put_int(j, "tokens", s->tokens);
        snprintf(crc, sizeof crc, "%08x", s->tokens_crc);
        json_put_str(j, "tokens_crc32c", crc);
        json_end(j);
    }
    json_end(j);
    json_end(j);
    return OK;
}

/* All but the inputs, without the closing brace. */
static int put_head(struct json *j, const struct ledger *l)
{
    struct arena a;
    arena_init(&a);
    j->indent = true;
    json_begin_object(j);
    json_put_int(j, "version", FORMAT_VERSION);
    json_put_str(j, "headway", HEADWAY_VERSION);
    json_put_str(j, "fingerprint", l->fingerprint);
    json_put_str(j, "source", l->config->source);
    json_put_str(j, "licence", l->config->licence);
    put_tokenizer(j, l->config);
    put_settings(j, l->config);
    json_key(j, "total");
    json_begin_object(j);
    put_counts(j, l->total);
    json_end(j);
    int rc = put_split(j, l->folder, "train", &a);
    if (rc == OK)
        rc = put_split(j, l->folder, "val", &a);
    arena_fini(&a);
    return rc;
}

/* The lines of inputs may be millions: they are copied, not parsed. */
static void add_inputs(struct text *out, const char *lines, i64 bytes)
{
    text_add(out, ",\n  \"inputs\": [");
    for (i64 at = 0; at < bytes;) {
        const char *newline = memchr(lines + at, '\n', (size_t)(bytes - at));
        i64 n = (newline ? newline - lines : bytes) - at;
        text_add(out, at ? ",\n    " : "\n    ");
        text_add_bytes(out, lines + at, n);
        at += n + 1;
    }
    text_add(out, "\n  ]\n}\n");
}

int ledger_write(const struct ledger *l)
{
    char path[PATH_BYTES];
    struct json j;
    i64 bytes;
    snprintf(path, sizeof path, "%s/%s", l->folder, l->inputs_name);
    void *lines = sys_map_file(path, &bytes);
    if (!lines)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    json_writer_init(&j);
    int rc = put_head(&j, l);
    if (rc == OK) {
        add_inputs(&j.out, lines, bytes);
        rc = journal_replace_file(l->folder, file_name, j.out.data, j.out.length);
    }
    json_writer_fini(&j);
    sys_unmap(lines, bytes);
    return rc;
}

/* --- reading ------------------------------------------------------------------------ */

int ledger_load(const char *folder, json_t **out)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, file_name);
    TRY(json_load(path, LARGEST, out));
    if (json_integer_value(json_object_get(*out, "version")) == FORMAT_VERSION &&
        json_is_string(json_object_get(*out, "fingerprint")))
        return OK;
    json_decref(*out);
    return err_set(ERR_FORMAT, "%s is not a ledger that this program knows", path);
}

static void tell(const struct ledger_check *check, const char *file, const char *state)
{
    if (check->told)
        check->told(check->context, file, state);
}

static const char *file_of(const struct dataset_shard *s)
{
    const char *slash = strrchr(s->path, '/');
    return slash ? slash + 1 : s->path;
}

static int same_shard(const struct dataset_shard *s, const json_t *entry)
{
    const char *listed = json_string_value(json_object_get(entry, "file"));
    const char *crc = json_string_value(json_object_get(entry, "tokens_crc32c"));
    char own[16];
    snprintf(own, sizeof own, "%08x", s->info.tokens_crc);
    if (listed && strcmp(listed, file_of(s)) == 0 && crc && strcmp(crc, own) == 0 &&
        json_integer_value(json_object_get(entry, "bytes")) == s->info.file_bytes)
        return OK;
    return err_set(ERR_FORMAT, "%s is not the shard that the ledger describes", s->path);
}

static int same_shards(const struct dataset *d, const json_t *ledger)
{
    const json_t *shards = json_object_get(json_object_get(ledger, d->split), "shards");
    if ((i64)json_array_size(shards) != d->n_shards)
        return err_set(ERR_FORMAT, "%s: the ledger lists %lld %s shards, %lld are there", d->path,
                       (long long)json_array_size(shards), d->split, (long long)d->n_shards);
    for (i64 i = 0; i < d->n_shards; i++)
        TRY(same_shard(&d->shards[i], json_array_get(shards, (size_t)i)));
    return OK;
}

/* The list of millions of inputs would take seconds and gigabytes to parse: what was cut off is
 * noticed by the end that it lacks. */
static int check_end(const char *path)
{
    i64 bytes;
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    bool ends = bytes >= 2 && memcmp(text + bytes - 2, "}\n", 2) == 0;
    sys_unmap(text, bytes);
    return ends ? OK : err_set(ERR_FORMAT, "%s is cut off", path);
}

static int fits(const struct dataset *d, const char *path)
{
    json_t *ledger;
    if (sys_file_bytes(path) > QUICK)
        return check_end(path);
    TRY(ledger_load(d->path, &ledger));
    int rc = same_shards(d, ledger);
    json_decref(ledger);
    return rc;
}

int ledger_fits(const struct dataset *d)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", d->path, file_name);
    const bool others = d->n_shards > 0 && d->shards[0].info.kind != SHARD_HEADWAY;
    if (others || sys_file_bytes(path) < 0)
        return OK;
    int rc = fits(d, path);
    if (rc != ERR_FORMAT)
        return rc;
    char why[1024];
    snprintf(why, sizeof why, "%s", err_message());
    return err_set(rc, "%s; prepare the data again", why);
}

static int verify_shard(const struct dataset_shard *s, struct ledger_check *check)
{
    struct shard_file f;
    TRY(shard_file_open(&f, s->path));
    int rc = shard_verify(&s->info, &f);
    shard_file_close(&f);
    TRY(rc);
    check->shards++;
    tell(check, file_of(s), "good");
    return OK;
}

static int verify_split(const char *folder, const char *split, const json_t *ledger,
                        struct ledger_check *check, struct arena *a)
{
    struct dataset d;
    TRY(dataset_open(&d, folder, split, -1, a));
    TRY(same_shards(&d, ledger));
    for (i64 i = 0; i < d.n_shards; i++)
        TRY(verify_shard(&d.shards[i], check));
    return OK;
}

static int verify_input(const json_t *entry, struct ledger_check *check)
{
    const char *path = json_string_value(json_object_get(entry, "path"));
    const char *sha256 = json_string_value(json_object_get(entry, "sha256"));
    char hex[65];
    if (!path || !sha256)
        return err_set(ERR_FORMAT, "the ledger's list of inputs is damaged");
    if (!sys_exists(path) || strcmp(path, "-") == 0) {
        check->inputs_missing++;
        return OK;
    }
    TRY(sha256_file(path, hex));
    if (strcmp(hex, sha256) != 0)
        return err_set(ERR_FORMAT,
                       "%s is no longer what was prepared: its SHA-256 has changed",
                       path);
    check->inputs_checked++;
    tell(check, path, "unchanged");
    return OK;
}

/* The tokenizer in the folder, if there is one, made the tokens. */
static int verify_tokenizer(const char *folder, const json_t *ledger)
{
    const json_t *made = json_object_get(json_object_get(ledger, "tokenizer"), "sha256");
    char path[PATH_BYTES];
    struct tokenizer *t;
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    if (!json_is_string(made) || !sys_exists(path))
        return OK;
    TRY(tokenizer_open(&t, path));
    const bool same = strcmp(tokenizer_hash(t), json_string_value(made)) == 0;
    tokenizer_free(t);
    return same ? OK : err_set(ERR_FORMAT, "%s is not the tokenizer that made these tokens (the "
                               "ledger has its SHA-256)", path);
}

int ledger_verify(const char *folder, const json_t *ledger, struct ledger_check *check)
{
    const json_t *inputs = json_object_get(ledger, "inputs");
    struct arena a;
    TRY(verify_tokenizer(folder, ledger));
    arena_init(&a);
    int rc = verify_split(folder, "train", ledger, check, &a);
    if (rc == OK)
        rc = verify_split(folder, "val", ledger, check, &a);
    for (size_t i = 0; rc == OK && check->inputs && i < json_array_size(inputs); i++)
        rc = verify_input(json_array_get(inputs, i), check);
    arena_fini(&a);
    return rc;
}
