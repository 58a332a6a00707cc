/* tiktoken files: one token a line, "base64 rank". They hold no merge rules; those are
 * recovered as Hugging Face's converter does, as every way to cut a token in two tokens,
 * in order of the token's rank. A piece that is a token is never merged (ignore_merges). */
#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_TOKEN = 512 }; /* bytes; cl100k's longest is 128 blanks */

static int digit(char c)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* Strict base64 with padding; returns the bytes written, or -1. */
static i64 read_base64(u8 *out, const char *text, i64 length)
{
    i64 count = 0, padding = 0;
    if (length == 0 || length % 4)
        return -1;
    while (padding < 2 && text[length - 1 - padding] == '=')
        padding++;
    for (i64 i = 0; i < length; i += 4) {
        u32 word = 0;
        for (i64 k = i; k < i + 4; k++) {
            int value = k >= length - padding ? 0 : digit(text[k]);
            if (value < 0)
                return -1;
            word = word << 6 | (u32)value;
        }
        out[count++] = (u8)(word >> 16);
        out[count++] = (u8)(word >> 8);
        out[count++] = (u8)word;
    }
    return count - padding;
}

/* line ends where its newline was. */
static int read_line(struct draft_token *out, struct arena *a, const char *line, i64 length)
{
    const char *blank = memchr(line, ' ', (size_t)length);
    i64 text = blank ? blank - line : 0, rank = 0;
    if (!blank || blank + 1 == line + length || line + length - blank > 10)
        return ERR_FORMAT;
    for (const char *c = blank + 1; c < line + length; c++) {
        if (*c < '0' || *c > '9')
            return ERR_FORMAT;
        rank = rank * 10 + (*c - '0');
    }
    u8 *bytes = arena_alloc(a, text);
    i64 count = read_base64(bytes, line, text);
    if (count <= 0)
        return ERR_FORMAT;
    if (count > LONGEST_TOKEN)
        return ERR_LIMIT;
    *out = (struct draft_token){ .bytes = bytes, .length = (i32)count, .id = (i32)rank };
    return OK;
}

static int by_id(const void *a, const void *b)
{
    const struct draft_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int read_lines(struct tokenizer_draft *d, struct arena *a, const char *text, i64 bytes,
                      const char *path)
{
    i64 lines = 1, count = 0;
    for (i64 i = 0; i < bytes; i++)
        lines += text[i] == '\n';
    struct draft_token *tokens = ARENA_ARRAY(a, struct draft_token, lines);
    for (i64 at = 0, number = 1; at < bytes; number++) {
        const char *end = memchr(text + at, '\n', (size_t)(bytes - at));
        i64 length = end ? end - (text + at) : bytes - at;
        i64 next = at + length + 1;
        length -= length > 0 && text[at + length - 1] == '\r';
        int rc = length > 0 ? read_line(&tokens[count++], a, text + at, length) : OK;
        if (rc == ERR_LIMIT)
            return err_set(rc, "%s:%lld: a token of more than %d bytes, which is the most that "
                               "Headway reads from a tiktoken file", path, (long long)number,
                           LONGEST_TOKEN);
        if (rc < 0)
            return err_set(rc, "%s:%lld: not a line of a tiktoken file (base64 and a rank); "
                               "SentencePiece models are not read either", path,
                           (long long)number);
        at = next;
    }
    qsort(tokens, (size_t)count, sizeof *tokens, by_id);
    d->vocab = tokens;
    d->vocab_count = count;
    return OK;
}

static int by_parts(const void *a, const void *b)
{
    const struct bpe_rule *x = a, *y = b;
    if (x->left != y->left)
        return (x->left > y->left) - (x->left < y->left);
    return (x->right > y->right) - (x->right < y->right);
}

/* All ways to make this token of two others, by the ranks of the parts. */
static i64 cuts_of(struct bpe_rule *out, const struct vocab_map *map,
                   const struct draft_token *token)
{
    i64 count = 0;
    for (i32 cut = 1; cut < token->length; cut++) {
        i32 left = vocab_map_find(map, token->bytes, cut, false);
        i32 right = vocab_map_find(map, token->bytes + cut, token->length - cut, false);
        if (left >= 0 && right >= 0)
            out[count++] = (struct bpe_rule){ left, right, token->id };
    }
    qsort(out, (size_t)count, sizeof *out, by_parts);
    return count;
}

static int find_rules(struct tokenizer_draft *d, struct arena *a, struct buffer *rules)
{
    struct vocab_map map;
    struct bpe_rule cuts[LONGEST_TOKEN];
    vocab_map_init(&map, a, d->vocab_count);
    for (i64 i = 0; i < d->vocab_count; i++)
        vocab_map_add(&map, d->vocab[i].bytes, d->vocab[i].length, false, d->vocab[i].id);
    for (i64 i = 0; i < d->vocab_count; i++) {
        i64 count = cuts_of(cuts, &map, &d->vocab[i]);
        TRY(buffer_add(rules, cuts, count * (i64)sizeof *cuts));
    }
    d->rules = (const struct bpe_rule *)(const void *)rules->data;
    d->rule_count = rules->bytes / (i64)sizeof *cuts;
    return OK;
}

int import_tiktoken(struct tokenizer **out, const char *path,
                    const struct tokenizer_import *how)
{
    struct arena a;
    struct buffer rules = { 0 };
    struct tokenizer_draft d = { .ignore_merges = true };
    i64 bytes;
    int rc;
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    arena_init(&a);
    if (bytes > TOKENIZER_MAX_FILE) {
        rc = err_set(ERR_LIMIT, "%s is larger than %d MiB", path, TOKENIZER_MAX_FILE >> 20);
        goto done;
    }
    TRY_TO(done, read_lines(&d, &a, text, bytes, path));
    TRY_TO(done, find_rules(&d, &a, &rules));
    TRY_TO(done, import_specials(&d, ARENA_ARRAY(&a, struct added_token, how->special_count),
                                 how, &a));
    rc = import_build(out, &d, how->pattern ? how->pattern : "cl100k");
    if (rc == OK && !how->pattern)
        import_say_assumed(path, "cl100k");
done:
    buffer_fini(&rules);
    arena_fini(&a);
    sys_unmap(text, bytes);
    return rc;
}
