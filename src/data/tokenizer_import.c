#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "data/byte_alphabet.h"
#include "data/unicode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- shared by the makers ----------------------------------------------------------- */

int import_vocab(struct tokenizer_draft *d, struct arena *a, const json_t *vocab)
{
    i64 count = 0;
    const char *key;
    json_t *value;
    struct draft_token *tokens = ARENA_ARRAY(a, struct draft_token, json_object_size(vocab));
    json_object_foreach((json_t *)vocab, key, value) {
        i64 length = (i64)strlen(key);
        i64 id = json_is_integer(value) ? (i64)json_integer_value(value) : -1;
        if (id < 0 || id > INT32_MAX)
            return err_set(ERR_FORMAT, "the vocabulary's entry \"%.40s\" has no id", key);
        u8 *bytes = arena_alloc(a, length);
        i64 read = byte_alphabet_read(key, length, bytes);
        if (read < 0)
            memcpy(bytes, key, (size_t)length);
        tokens[count++] = (struct draft_token){ .bytes = bytes,
                                                .length = (i32)(read < 0 ? length : read),
                                                .id = (i32)id,
                                                .raw = read < 0 };
    }
    d->vocab = tokens;
    d->vocab_count = count;
    return OK;
}

int import_rule(struct bpe_rule *out, const json_t *vocab, struct text *scratch,
                const char *left, const char *right, i64 number)
{
    text_clear(scratch);
    text_add(scratch, left);
    text_add(scratch, right);
    const json_t *l = json_object_get(vocab, left), *r = json_object_get(vocab, right);
    const json_t *made = json_object_get(vocab, scratch->data);
    if (!l || !r || !made)
        return err_set(ERR_FORMAT, "merge %lld makes \"%.40s\" of \"%.40s\" and \"%.40s\", but "
                                   "the vocabulary lacks %s", (long long)number, scratch->data,
                       left, right, !l ? "the first part" : !r ? "the second part" : "it");
    *out = (struct bpe_rule){ (i32)json_integer_value(l), (i32)json_integer_value(r),
                              (i32)json_integer_value(made) };
    return OK;
}

bool import_cut_rule(char *line, char **right)
{
    char *blank = strchr(line, ' ');
    if (!blank || strchr(blank + 1, ' '))
        return false;
    *blank = '\0';
    *right = blank + 1;
    return true;
}

const char *import_config_token(const json_t *config, const char *key)
{
    const json_t *token = json_object_get(config, key);
    if (json_is_object(token))
        token = json_object_get(token, "content");
    return json_string_value(token);
}

/* "TEXT=123" to TEXT and 123; *id is -1 without a number. */
static int cut_id(struct arena *a, const char *special, char **text, i64 *id)
{
    *text = arena_strdup(a, special);
    char *equals = strrchr(*text, '=');
    *id = -1;
    if (!equals || equals == *text)
        return OK;
    const char *digits = equals + 1 + (equals[1] == '-');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits))
        return OK;
    *id = strtoll(equals + 1, NULL, 10);
    *equals = '\0';
    if (equals[1] == '-' || *id > INT32_MAX)
        return err_set(ERR_USAGE, "the id of the special token %s is not between 0 and %d", *text,
                       INT32_MAX);
    return OK;
}

static bool is_taken(const struct tokenizer_draft *d, const struct added_token *added, i64 n,
                     i64 id)
{
    bool taken = false;
    for (i64 i = 0; i < d->vocab_count; i++)
        taken |= d->vocab[i].id == id;
    for (i64 i = 0; i < n; i++)
        taken |= added[i].id == id;
    return taken;
}

static i32 find_spelling(const struct vocab_map *m, struct arena *a, const char *spelling)
{
    i64 length = (i64)strlen(spelling);
    u8 *bytes = arena_alloc(a, length);
    i64 read = byte_alphabet_read(spelling, length, bytes);
    return read >= 0 ? vocab_map_find(m, bytes, read, false)
                     : vocab_map_find(m, (const u8 *)spelling, length, true);
}

int import_specials(struct tokenizer_draft *d, struct added_token *added,
                    const struct tokenizer_import *how, struct arena *a)
{
    struct vocab_map map;
    i64 next = 0, n = d->added_count;
    vocab_map_init(&map, a, d->vocab_count);
    for (i64 i = 0; i < d->vocab_count; i++) {
        const struct draft_token *v = &d->vocab[i];
        vocab_map_add(&map, v->bytes, v->length, v->raw, v->id);
        next = i64_max(next, (i64)v->id + 1);
    }
    for (i64 i = 0; i < n; i++)
        next = i64_max(next, (i64)added[i].id + 1);
    for (i64 i = 0; i < how->special_count; i++) {
        const char *given = how->specials[i];
        i64 id, length = (i64)strlen(given);
        if (utf8_valid((const u8 *)given, length) != length)
            return err_set(ERR_USAGE, "the special token %s is not UTF-8", given);
        char *text;
        TRY(cut_id(a, given, &text, &id));
        i32 known = find_spelling(&map, a, text);
        if (known >= 0 && id >= 0 && id != known)
            return err_set(ERR_USAGE, "the special token %s has the id %d already, not %lld",
                           text, known, (long long)id);
        if (known < 0 && id >= 0 && is_taken(d, added, n, id))
            return err_set(ERR_USAGE, "the special token %s cannot have the id %lld, which is "
                                      "another token's", text, (long long)id);
        id = known >= 0 ? known : id >= 0 ? id : next;
        if (id > INT32_MAX)
            return err_set(ERR_USAGE, "no id is left for the special token %s", text);
        next = i64_max(next, id + 1);
        added[n++] = (struct added_token){ .content = text, .bytes = (i64)strlen(text),
                                           .id = (i32)id, .special = true };
    }
    d->added = added;
    d->added_count = n;
    return OK;
}

void import_say_assumed(const char *path, const char *pattern)
{
    log_line(LOG_WARN, "%s does not say how text is cut into words: %s's pattern is "
             "assumed; where that is wrong, 'headway tokenizer import --from %s "
             "--pattern NAME' makes a tokenizer.json with another (gpt2, cl100k, llama3, "
             "qwen2)", path, pattern, path);
}

int import_build(struct tokenizer **out, struct tokenizer_draft *d, const char *pattern)
{
    const struct scan_pattern *known = scan_by_name(pattern);
    if (!known)
        return err_set(ERR_USAGE, "there is no pre-tokenizer pattern %s; known are gpt2, "
                                  "cl100k, llama3 and qwen2", pattern);
    json_t *pre = pretokenizer_json(known);
    json_t *byte_level = json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space",
                                   0, "trim_offsets", 0, "use_regex", 0);
    json_t *form = strcmp(pattern, "qwen2") ? NULL : json_pack("{s:s}", "type", "NFC");
    d->pre_tokenizer = pre;
    d->post_processor = d->decoder = byte_level;
    d->normalizer = form;
    d->made_here = true;
    int rc = tokenizer_build(out, d);
    json_decref(pre);
    json_decref(byte_level);
    json_decref(form);
    return rc;
}

/* --- which kind of file ------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* path's folder and name as one path; the folder of "x" is ".". */
static char *beside(struct arena *a, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return slash ? arena_printf(a, "%.*s/%s", (int)(slash - path), path, name)
                 : arena_strdup(a, name);
}

/* The file in a folder that says most, or NULL. */
static const char *file_in(struct arena *a, const char *folder)
{
    static const char *const wanted[] = { "tokenizer.json", "vocab.json", ".tiktoken",
                                          "tokenizer.model" };
    char **names;
    const char *found = NULL;
    int count = sys_list(folder, &names);
    for (int k = 0; !found && k < COUNT_OF(wanted); k++)
        for (int i = 0; !found && i < count; i++)
            if (ends_with(names[i], wanted[k]))
                found = arena_printf(a, "%s/%s", folder, names[i]);
    if (count >= 0)
        sys_free(names);
    return found;
}

static int open_json(struct tokenizer **out, const char *path, const json_t *config,
                     const struct tokenizer_import *how)
{
    json_t *root = NULL;
    TRY(json_load(path, TOKENIZER_MAX_FILE, &root));
    int rc;
    if (!json_object_get(root, "model") && json_is_integer(json_object_iter_value(
                                               json_object_iter(root)))) {
        json_decref(root); /* a bare vocabulary, whatever its name */
        return import_vocab_merges(out, path, config, how);
    }
    if (how->pattern || how->special_count)
        rc = err_set(ERR_USAGE, "a tokenizer.json says its own pattern and special tokens; "
                                "leave these options away");
    else
        rc = import_json(out, root, config);
    json_decref(root);
    return rc;
}

static int open_file(struct tokenizer **out, const char *path, const json_t *config,
                     const struct tokenizer_import *how, struct arena *a)
{
    if (ends_with(path, ".json"))
        return open_json(out, path, config, how);
    if (ends_with(path, "merges.txt")) {
        i64 stem = (i64)strlen(path) - (i64)strlen("merges.txt");
        return import_vocab_merges(out, arena_printf(a, "%.*svocab.json", (int)stem, path),
                                   config, how);
    }
    return import_tiktoken(out, path, how);
}

/* In a folder, which may not be one that may be read. */
static int no_file(const char *folder)
{
    char **names;
    const int n = sys_list(folder, &names);
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", folder, strerror(errno));
    sys_free(names);
    return err_set(ERR_FORMAT, "%s holds no tokenizer.json, vocab.json or tiktoken file", folder);
}

int tokenizer_open_as(struct tokenizer **out, const char *path,
                      const struct tokenizer_import *how)
{
    struct arena a;
    struct stat info;
    json_t *config = NULL;
    const char *file = path;
    int rc = OK;
    arena_init(&a);
    if (sys_stat(path, &info) < 0) {
        rc = err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
        goto done;
    }
    if (S_ISDIR(info.st_mode) && !(file = file_in(&a, path))) {
        rc = no_file(path);
        goto done;
    }
    const char *config_path = beside(&a, file, "tokenizer_config.json");
    if (sys_exists(config_path))
        TRY_TO(done, json_load(config_path, TOKENIZER_MAX_FILE, &config));
    rc = open_file(out, file, config, how, &a);
    if (rc < 0 && !strstr(err_message(), file))
        err_context(rc, "%s", file);
done:
    json_decref(config);
    arena_fini(&a);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *path)
{
    return tokenizer_open_as(out, path, &(struct tokenizer_import){ 0 });
}

int tokenizer_parse(struct tokenizer **out, const void *json, i64 bytes, const char *name)
{
    json_t *root = NULL;
    TRY(json_parse(json, bytes, name, &root));
    int rc = import_json(out, root, NULL);
    json_decref(root);
    return rc < 0 ? err_context(rc, "%s", name) : OK;
}
