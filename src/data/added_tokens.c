#include "data/added_tokens.h"

#include "base/err.h"
#include "data/unicode.h"

#include <stdlib.h>
#include <string.h>

static int by_content(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    int order = memcmp(x->content, y->content, (size_t)i64_min(x->bytes, y->bytes));
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

void added_set_init(struct added_set *s, struct arena *a, const struct added_token *tokens,
                    i64 count)
{
    *s = (struct added_set){ .count = count, .only_begin = -1 };
    s->sorted = ARENA_ARRAY(a, struct added_token, count);
    for (i64 i = 0; i < count; i++)
        s->sorted[i] = tokens[i];
    qsort(s->sorted, (size_t)count, sizeof *s->sorted, by_content);
    for (i64 i = 0; i < count; i++)
        s->begins[(u8)s->sorted[i].content[0]] = true;
    for (int byte = 0, seen = 0; byte < 256; byte++)
        if (s->begins[byte])
            s->only_begin = seen++ == 0 ? byte : -1;
}

/* First token in sorted[low, high) whose byte at depth is at least `byte`. */
static i64 narrow(const struct added_set *s, i64 low, i64 high, i64 depth, int byte)
{
    while (low < high) {
        i64 middle = (low + high) / 2;
        const struct added_token *t = &s->sorted[middle];
        if (depth < t->bytes && (u8)t->content[depth] >= byte)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The longest token that text begins with, or NULL. */
static const struct added_token *longest_at(const struct added_set *s, const u8 *text, i64 bytes)
{
    const struct added_token *found = NULL;
    i64 low = 0, high = s->count;
    for (i64 depth = 0; depth < bytes && low < high; depth++) {
        low = narrow(s, low, high, depth, text[depth]);
        high = narrow(s, low, high, depth, text[depth] + 1);
        if (low < high && s->sorted[low].bytes == depth + 1)
            found = &s->sorted[low]; /* the shortest of those that begin so far */
    }
    return found;
}

static i64 next_begin(const struct added_set *s, const u8 *text, i64 bytes, i64 at)
{
    if (s->only_begin >= 0) {
        const u8 *p = memchr(text + at, s->only_begin, (size_t)(bytes - at));
        return p ? p - text : bytes;
    }
    while (at < bytes && !s->begins[text[at]])
        at++;
    return at;
}

static const struct added_token *find(const struct added_set *s, const u8 *text, i64 bytes,
                                      i64 from, i64 *begin)
{
    for (i64 at = from; (at = next_begin(s, text, bytes, at)) < bytes; at++) {
        const struct added_token *found = longest_at(s, text + at, bytes - at);
        *begin = at;
        if (found)
            return found;
    }
    return NULL;
}

static i64 char_before(const u8 *text, i64 at)
{
    do
        at--;
    while ((text[at] & 0xC0) == 0x80);
    return at;
}

static bool stands_alone(const u8 *text, i64 bytes, i64 begin, i64 end)
{
    int length;
    if (begin > 0 && char_is_word(utf8_decode(text + char_before(text, begin), &length)))
        return false;
    return end == bytes || !char_is_word(utf8_decode(text + end, &length));
}

static bool space_at(const u8 *text, i64 at, int *length)
{
    return char_class_of(utf8_decode(text + at, length)) == CHAR_SPACE;
}

static i64 before_spaces(const u8 *text, i64 at, i64 least)
{
    int length;
    while (at > least && space_at(text, char_before(text, at), &length))
        at = char_before(text, at);
    return at;
}

static i64 behind_spaces(const u8 *text, i64 bytes, i64 at)
{
    int length;
    while (at < bytes && space_at(text, at, &length))
        at += length;
    return at;
}

int added_set_split(const struct added_set *s, const struct added_visitor *v, const u8 *text,
                    i64 bytes)
{
    const struct added_token *t;
    i64 done = 0, from = 0, begin, end;
    while (s->count > 0 && (t = find(s, text, bytes, from, &begin))) {
        from = end = begin + t->bytes;
        if (v->specials_as_text && t->special)
            continue;
        if (t->single_word && !stands_alone(text, bytes, begin, end))
            continue;
        if (t->lstrip)
            begin = before_spaces(text, begin, done);
        if (t->rstrip)
            end = behind_spaces(text, bytes, end);
        if (done < begin)
            TRY(v->text(v->context, text + done, begin - done));
        TRY(v->token(v->context, t));
        done = end;
    }
    return done < bytes ? v->text(v->context, text + done, bytes - done) : OK;
}
