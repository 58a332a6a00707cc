/* vocab.json with merges.txt beside it: the format of GPT-2, still shipped with Qwen. */
#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "base/sys.h"
#include "data/unicode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Reads a text file into the arena, with a zero behind it. */
static int read_text(char **out, i64 *bytes, struct arena *a, const char *path)
{
    u8 *data = sys_map_file(path, bytes);
    if (!data)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    int rc = OK;
    if (*bytes > TOKENIZER_MAX_FILE)
        rc = err_set(ERR_LIMIT, "%s is larger than %d MiB", path, TOKENIZER_MAX_FILE >> 20);
    else if (utf8_valid(data, *bytes) != *bytes || memchr(data, 0, (size_t)*bytes))
        rc = err_set(ERR_FORMAT, "%s is not UTF-8 text", path);
    else
        *out = arena_strndup(a, (char *)data, *bytes);
    sys_unmap(data, *bytes);
    return rc;
}

static int read_merges(struct tokenizer_draft *d, struct arena *a, char *text,
                       const json_t *vocab, const char *path)
{
    struct text scratch = { 0 };
    i64 count = 0, number = 0;
    int rc = OK;
    for (const char *c = text; *c; c++)
        count += *c == '\n';
    struct bpe_rule *rules = ARENA_ARRAY(a, struct bpe_rule, count + 1);
    count = 0;
    for (char *line = text, *next; line && *line; line = next) {
        char *right;
        number++;
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        line[strcspn(line, "\r")] = '\0';
        if (!strncmp(line, "#version", 8) || (!*line && !next))
            continue;
        if (!import_cut_rule(line, &right)) {
            rc = err_set(ERR_FORMAT, "%s:%lld: not two tokens with a blank between", path,
                         (long long)number);
            goto done;
        }
        TRY_TO(done, import_rule(&rules[count], vocab, &scratch, line, right, number));
        count++;
    }
    d->rules = rules;
    d->rule_count = count;
done:
    text_fini(&scratch);
    return rc;
}

/* "added_tokens_decoder" of tokenizer_config.json: {"50256": {"content": ...}, ...}. */
static int read_config_tokens(struct tokenizer_draft *d, struct added_token *added,
                              const json_t *list)
{
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)list, key, item) {
        const char *content = json_string_value(json_object_get(item, "content"));
        char *end;
        i64 id = strtoll(key, &end, 10);
        if (!content || end == key || *end || id < 0 || id > INT32_MAX)
            return err_set(ERR_FORMAT, "tokenizer_config.json: the added token \"%.20s\" has no "
                                       "content or no id", key);
        added[d->added_count++] =
            (struct added_token){ .content = content,
                                  .bytes = (i64)strlen(content),
                                  .id = (i32)id,
                                  .special = json_is_true(json_object_get(item, "special")),
                                  .single_word = json_is_true(json_object_get(item, "single_word")),
                                  .lstrip = json_is_true(json_object_get(item, "lstrip")),
                                  .rstrip = json_is_true(json_object_get(item, "rstrip")),
                                  .normalized = json_is_true(json_object_get(item, "normalized")) };
    }
    return OK;
}

static int read_added(struct tokenizer_draft *d, struct arena *a, const json_t *vocab,
                      const json_t *config, const struct tokenizer_import *how)
{
    const json_t *list = json_object_get(config, "added_tokens_decoder");
    const char *end = "<|endoftext|>"; /* GPT-2's, which its files do not mark */
    i64 most = (i64)json_object_size(list) + how->special_count + 1;
    struct added_token *added = ARENA_ARRAY(a, struct added_token, most);
    TRY(read_config_tokens(d, added, list));
    if (!list && how->special_count == 0 && json_object_get(vocab, end))
        added[d->added_count++] = (struct added_token){
            .content = end,
            .bytes = (i64)strlen(end),
            .id = (i32)json_integer_value(json_object_get(vocab, end)),
            .special = true
        };
    return import_specials(d, added, how, a);
}

static int import(struct tokenizer **out, struct arena *a, const char *vocab_path,
                  const json_t *vocab, const json_t *config, const struct tokenizer_import *how)
{
    struct tokenizer_draft d = { 0 };
    i64 stem = (i64)strlen(vocab_path) - (i64)strlen("vocab.json"), bytes;
    if (stem < 0 || strcmp(vocab_path + stem, "vocab.json") != 0)
        return err_set(ERR_FORMAT, "%s is a bare vocabulary; call it vocab.json and put its "
                                   "merges.txt beside it", vocab_path);
    const char *merges_path = arena_printf(a, "%.*smerges.txt", (int)stem, vocab_path);
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const bool qwen = class && !strncmp(class, "Qwen2", 5);
    const bool gpt2 = class && !strncmp(class, "GPT2", 4);
    const char *pattern = qwen ? "qwen2" : "gpt2";
    char *merges = NULL;
    TRY(read_text(&merges, &bytes, a, merges_path));
    TRY(import_vocab(&d, a, vocab));
    TRY(read_merges(&d, a, merges, vocab, merges_path));
    TRY(read_added(&d, a, vocab, config, how));
    d.bos = import_config_token(config, "bos_token");
    d.eos = import_config_token(config, "eos_token");
    TRY(import_build(out, &d, how->pattern ? how->pattern : pattern));
    if (!how->pattern && !qwen && !gpt2)
        import_say_assumed(vocab_path, pattern);
    return OK;
}

int import_vocab_merges(struct tokenizer **out, const char *vocab_path, const json_t *config,
                        const struct tokenizer_import *how)
{
    struct arena a;
    json_t *vocab = NULL;
    int rc;
    arena_init(&a);
    TRY_TO(done, json_load(vocab_path, TOKENIZER_MAX_FILE, &vocab));
    rc = import(out, &a, vocab_path, vocab, config, how);
done:
    json_decref(vocab);
    arena_fini(&a);
    return rc;
}
