#include "data/normalize.h"

#include "base/err.h"
#include "data/unicode.h"

#include <string.h>
#include <utf8proc.h>

enum {
    LONGEST_DECOMPOSITION = 18, /* U+FDFA in NFKD */
    SHORT_RUN = 32,             /* marks sorted by insertion; longer runs by counting */
    COMBINING_CLASSES = 256,
    FIRST_MARK = 0x300, /* everything below is unchanged by NFC */
};

enum normal_form normal_form_from_name(const char *name)
{
    static const char *const names[FORMS] = { "", "NFC", "NFD", "NFKC", "NFKD" };
    for (int form = FORM_NFC; form < FORMS; form++)
        if (!strcmp(name, names[form]))
            return (enum normal_form)form;
    return FORM_NONE;
}

void normalizer_fini(struct normalizer *n)
{
    buffer_fini(&n->chars);
    buffer_fini(&n->sorted);
    buffer_fini(&n->out);
}

bool normalize_not_needed(enum normal_form form, const u8 *text, i64 bytes)
{
    if (form == FORM_NONE)
        return true;
    /* The first byte of U+0300 is 0xCC; all forms leave ASCII alone. */
    u8 limit = form == FORM_NFC ? 0xCC : 0x80;
    for (i64 i = 0; i < bytes; i++)
        if (text[i] >= limit)
            return false;
    return true;
}

/* Hugging Face's normaliser knows Unicode 9, and ids must be the same as with it. These
 * marks came later: to it they are ordinary characters. U+11930 is no mark, but the second
 * half of U+11938, which it does not compose. */
static const i32 newer_marks[][2] = {
    { 0x7FD, 0x7FD }, { 0x898, 0x89F }, { 0x8CA, 0x8D3 }, { 0x9FE, 0x9FE },
    { 0xC3C, 0xC3C }, { 0xD3B, 0xD3C }, { 0xEBA, 0xEBA }, { 0x1715, 0x1715 },
    { 0x1ABF, 0x1ACE }, { 0x1DF6, 0x1DFA }, { 0xA82C, 0xA82C }, { 0x10D24, 0x10D27 },
    { 0x10EAB, 0x10EAC }, { 0x10EFD, 0x10EFF }, { 0x10F46, 0x10F50 },
    { 0x10F82, 0x10F85 }, { 0x11070, 0x11070 }, { 0x1133B, 0x1133B },
    { 0x1145E, 0x1145E }, { 0x11839, 0x1183A }, { 0x11930, 0x11930 }, { 0x1193D, 0x1193E },
    { 0x11943, 0x11943 }, { 0x119E0, 0x119E0 }, { 0x11A34, 0x11A34 },
    { 0x11A47, 0x11A47 }, { 0x11A99, 0x11A99 }, { 0x11D42, 0x11D42 },
    { 0x11D44, 0x11D45 }, { 0x11D97, 0x11D97 }, { 0x11F41, 0x11F42 },
    { 0x16FF0, 0x16FF1 }, { 0x1E08F, 0x1E08F }, { 0x1E130, 0x1E136 },
    { 0x1E2AE, 0x1E2AE }, { 0x1E2EC, 0x1E2EF }, { 0x1E4EC, 0x1E4EF },
};

/* And these decompose only since then. */
static const i32 newer_forms[][2] = {
    { 0x32FF, 0x32FF }, { 0xA7F2, 0xA7F4 }, { 0xAB69, 0xAB69 }, { 0x10781, 0x10785 },
    { 0x10787, 0x107B0 }, { 0x107B2, 0x107BA }, { 0x11938, 0x11938 }, { 0x1E030, 0x1E06D },
    { 0x1F16C, 0x1F16C }, { 0x1FBF0, 0x1FBF9 },
};

static bool in_ranges(const i32 (*ranges)[2], i64 count, i32 c)
{
    i64 low = 0, high = count;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (ranges[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges[low][0] <= c;
}

static bool is_newer_mark(i32 c)
{
    return in_ranges(newer_marks, COUNT_OF(newer_marks), c);
}

static int combining_class(i32 c)
{
    int class = c < FIRST_MARK ? 0 : utf8proc_get_property(c)->combining_class;
    return class && is_newer_mark(c) ? 0 : class;
}

/* Appends the full decomposition of every character to n->chars. */
static int decompose(struct normalizer *n, bool compatible, const u8 *text, i64 bytes)
{
    const utf8proc_option_t options =
        UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
    n->chars.bytes = 0;
    for (i64 i = 0; i < bytes;) {
        int length, unused = 0;
        i32 c = (i32)utf8_decode(text + i, &length);
        TRY(buffer_reserve(&n->chars, LONGEST_DECOMPOSITION * (i64)sizeof(i32)));
        i32 *out = (i32 *)(void *)(n->chars.data + n->chars.bytes);
        utf8proc_ssize_t count = 1;
        *out = c;
        if (!in_ranges(newer_forms, COUNT_OF(newer_forms), c))
            count = utf8proc_decompose_char(c, out, LONGEST_DECOMPOSITION, options, &unused);
        assert(count > 0 && count <= LONGEST_DECOMPOSITION);
        n->chars.bytes += count * (i64)sizeof(i32);
        i += length;
    }
    return OK;
}

static void sort_by_insertion(i32 *marks, i64 count)
{
    for (i64 i = 1; i < count; i++) {
        i32 mark = marks[i];
        int class = combining_class(mark);
        i64 k = i;
        for (; k > 0 && combining_class(marks[k - 1]) > class; k--)
            marks[k] = marks[k - 1];
        marks[k] = mark;
    }
}

static int sort_by_counting(struct buffer *scratch, i32 *marks, i64 count)
{
    i64 begin[COMBINING_CLASSES + 1] = { 0 };
    scratch->bytes = 0;
    TRY(buffer_reserve(scratch, count * (i64)sizeof(i32)));
    i32 *copy = (i32 *)(void *)scratch->data;
    memcpy(copy, marks, (size_t)count * sizeof *copy);
    for (i64 i = 0; i < count; i++)
        begin[combining_class(copy[i]) + 1]++;
    for (int class = 0; class < COMBINING_CLASSES; class++)
        begin[class + 1] += begin[class];
    for (i64 i = 0; i < count; i++)
        marks[begin[combining_class(copy[i])]++] = copy[i];
    return OK;
}

/* Canonical ordering: every run of marks is sorted stably by combining class. */
static int order_marks(struct normalizer *n)
{
    i32 *c = (i32 *)(void *)n->chars.data;
    i64 count = n->chars.bytes / (i64)sizeof(i32);
    for (i64 i = 0; i < count;) {
        if (combining_class(c[i]) == 0) {
            i++;
            continue;
        }
        i64 end = i + 1;
        while (end < count && combining_class(c[end]) != 0)
            end++;
        if (end - i <= SHORT_RUN)
            sort_by_insertion(c + i, end - i);
        else
            TRY(sort_by_counting(&n->sorted, c + i, end - i));
        i = end;
    }
    return OK;
}

static int append_chars(struct buffer *out, const i32 *c, i64 count)
{
    TRY(buffer_reserve(out, count * 4));
    for (i64 i = 0; i < count; i++)
        out->bytes += utf8_put((u32)c[i], out->data + out->bytes);
    return OK;
}

/* Composes stretches without newer marks, which would stand in utf8proc's way. */
static int compose(struct normalizer *n, i32 *c, i64 count)
{
    const utf8proc_option_t options = UTF8PROC_COMPOSE | UTF8PROC_STABLE;
    for (i64 begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count; end++)
            if (c[end] > FIRST_MARK && is_newer_mark(c[end]))
                break;
        utf8proc_ssize_t left = utf8proc_normalize_utf32(c + begin, end - begin, options);
        assert(left >= 0);
        TRY(append_chars(&n->out, c + begin, left));
    }
    return OK;
}

int normalize(struct normalizer *n, enum normal_form form, const u8 *text, i64 bytes)
{
    bool compatible = form == FORM_NFKC || form == FORM_NFKD;
    n->out.bytes = 0;
    TRY(decompose(n, compatible, text, bytes));
    TRY(order_marks(n));
    i32 *c = (i32 *)(void *)n->chars.data;
    i64 count = n->chars.bytes / (i64)sizeof(i32);
    if (form == FORM_NFC || form == FORM_NFKC)
        return compose(n, c, count);
    return append_chars(&n->out, c, count);
}
