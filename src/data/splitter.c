#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/splitter.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"

#include <pcre2.h>
#include <string.h>

enum { READ_BYTES = 1 << 17 };

struct splitter {
    struct splitter_options options;
    enum text_format format;
    pcre2_code *regex;
    pcre2_match_data *match;
    struct stream *from;
    const char *name;
    struct buffer buffer;
    i64 begin; /* of the document in hand, within the buffer */
    i64 scan;  /* lines before this were looked at */
    i64 line, begin_line; /* line numbers of scan and begin */
    bool began; /* its first bytes were looked at */
    bool within; /* what comes next goes on with a document that was cut */
    bool ended;
};

static bool ends_with(const char *text, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && strncmp(text + n - m, end, m) == 0;
}

enum text_format text_format_of(const char *name)
{
    static const char *const packed[] = { ".gz", ".zst", ".dz" };
    size_t n = strlen(name);
    for (i64 i = 0; i < COUNT_OF(packed); i++) {
        if (ends_with(name, n, packed[i])) {
            n -= strlen(packed[i]);
            break;
        }
    }
    bool json = ends_with(name, n, ".jsonl") || ends_with(name, n, ".ndjson");
    return json ? FORMAT_JSONL : FORMAT_TEXT;
}

int splitter_new(struct splitter **out, const struct splitter_options *o)
{
    struct splitter *s = sys_alloc(sizeof *s, 16);
    if (!s)
        return err_set(ERR_LIMIT, "no memory to split documents");
    *s = (struct splitter){ .options = *o };
    if (o->separator) {
        int error;
        PCRE2_SIZE at;
        s->regex = pcre2_compile((PCRE2_SPTR)o->separator, PCRE2_ZERO_TERMINATED, 0,
                                 &error, &at, NULL);
        if (!s->regex) {
            PCRE2_UCHAR why[200];
            pcre2_get_error_message(error, why, sizeof why);
            splitter_free(s);
            return err_set(ERR_USAGE, "the document separator '%.100s' is no regular "
                                      "expression: %s at character %lld",
                           o->separator, (char *)why, (long long)at);
        }
        pcre2_jit_compile(s->regex, PCRE2_JIT_COMPLETE); /* only slower where it fails */
        s->match = pcre2_match_data_create(1, NULL);
    }
    *out = s;
    return OK;
}

void splitter_free(struct splitter *s)
{
    if (!s)
        return;
    pcre2_match_data_free(s->match);
    pcre2_code_free(s->regex);
    buffer_fini(&s->buffer);
    sys_free(s);
}

void splitter_begin(struct splitter *s, struct stream *from, const char *name,
                    enum text_format format)
{
    enum { KEEP_BYTES = 16 << 20 };
    if (s->buffer.capacity > KEEP_BYTES)
        buffer_fini(&s->buffer);
    s->from = from;
    s->name = name;
    s->format = format == FORMAT_AUTO ? text_format_of(name) : format;
    s->buffer.bytes = s->begin = s->scan = 0;
    s->line = s->begin_line = 1;
    s->began = s->ended = s->within = false;
}

/* --- bytes -------------------------------------------------------------------------- */

static int fill(struct splitter *s)
{
    i64 got;
    if (s->begin > 0) {
        memmove(s->buffer.data, s->buffer.data + s->begin,
                (size_t)(s->buffer.bytes - s->begin));
        s->buffer.bytes -= s->begin;
        s->scan -= s->begin;
        s->begin = 0;
    }
    TRY(buffer_reserve(&s->buffer, READ_BYTES));
    TRY(stream_read(s->from, s->buffer.data + s->buffer.bytes, READ_BYTES, &got));
    s->buffer.bytes += got;
    s->ended = got == 0;
    if (!s->began) /* a mark is no text of the author's */
        s->begin = s->scan = text_mark(s->buffer.data, s->buffer.bytes);
    s->began = true;
    return OK;
}

/* Longest line that is waited for in one piece. */
static i64 longest_line(const struct splitter *s)
{
    return s->format == FORMAT_JSONL ? JSONL_LONGEST_LINE : s->options.most;
}

/* The line at scan is [scan, *end), newline included; it may be a part only when it is
 * longer than longest_line, or at the end of the input. False at the end. */
static int next_line(struct splitter *s, i64 *end, bool *found)
{
    i64 searched = 0;
    for (;;) {
        i64 from = s->scan + searched;
        const u8 *newline = NULL;
        if (from < s->buffer.bytes)
            newline =
                memchr(s->buffer.data + from, '\n', (size_t)(s->buffer.bytes - from));
        *end = newline ? newline + 1 - s->buffer.data : s->buffer.bytes;
        *found = *end > s->scan;
        searched = *end - s->scan;
        if (newline || s->ended || searched > longest_line(s))
            return OK;
        TRY(fill(s));
    }
}

static bool is_space(u8 c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_blank(const u8 *text, i64 bytes)
{
    while (bytes > 0 && is_space(text[bytes - 1]))
        bytes--;
    return bytes == 0;
}

/* --- lines -------------------------------------------------------------------------- */

/* Does the line [scan, end) begin a document? Then *drop bytes at its start are left out. */
static int begins_document(struct splitter *s, i64 end, bool *begins, i64 *drop)
{
    const u8 *line = s->buffer.data + s->scan;
    i64 bytes = end - s->scan;
    *begins = s->format == FORMAT_PARAGRAPHS && is_blank(line, bytes);
    *drop = *begins ? bytes : 0;
    if (!s->regex)
        return OK;
    while (bytes > 0 && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r'))
        bytes--;
    u32 options = bytes > 0 ? PCRE2_NOTEMPTY : 0;
    int rc = pcre2_match(s->regex, line, (PCRE2_SIZE)bytes, 0, options, s->match, NULL);
    if (rc == PCRE2_ERROR_NOMATCH)
        return OK;
    if (rc < 0)
        return err_set(ERR_LIMIT,
                       "%s:%lld: the document separator takes too long on this "
                       "line; write it more simply",
                       s->name, (long long)s->line);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match);
    *begins = true;
    if (s->options.drop_separator && at[0] == 0)
        *drop = (i64)at[1] == bytes ? end - s->scan : (i64)at[1];
    return OK;
}

/* Hands out [begin, end); the next document begins at `next`. False when it is blank. */
static bool emit(struct splitter *s, i64 end, i64 next, struct split_document *out)
{
    const u8 *text = s->buffer.data + s->begin;
    *out = (struct split_document){ .text = (const char *)text,
                                    .bytes = end - s->begin,
                                    .line = s->begin_line,
                                    .piece = s->within };
    s->within = false;
    bool blank = is_blank(text, end - s->begin);
    s->begin = next;
    s->begin_line = s->line;
    return !blank;
}

/* Where to cut a line that is too long: not within a UTF-8 sequence. */
static i64 cut_point(const struct splitter *s)
{
    i64 at = s->begin + s->options.most;
    for (int i = 0; i < 3 && (s->buffer.data[at] & 0xC0) == 0x80; i++)
        at--;
    return at;
}

/* Takes `bytes` at scan out, when the document goes on beyond them. */
static void take_out(struct splitter *s, i64 bytes)
{
    memmove(s->buffer.data + s->begin + bytes, s->buffer.data + s->begin,
            (size_t)(s->scan - s->begin));
    s->begin += bytes;
}

/* The line [scan, end) would make the document too long: cut before it, or within it. */
static bool cut_text(struct splitter *s, struct split_document *out)
{
    i64 at = s->scan > s->begin ? s->scan : cut_point(s);
    s->scan = at;
    bool good = emit(s, at, at, out);
    out->cut = out->piece = s->within = true;
    return good;
}

/* Moves on by the line [scan, end); true when that completes a document. */
static int take_line(struct splitter *s, i64 end, bool *complete,
                     struct split_document *out)
{
    bool begins;
    i64 drop, at = s->scan;
    TRY(begins_document(s, end, &begins, &drop));
    bool enough = at > s->begin && at - s->begin >= s->options.least;
    bool drops_line = drop == end - at;
    *complete = false;
    s->line += begins && drops_line; /* the next document begins on the next line */
    if (begins && enough)
        *complete = emit(s, at, at + drop, out);
    else if (begins && (s->regex || at == s->begin)) /* blank lines stay in joined text */
        take_out(s, drop);
    if (begins && at == s->begin - drop)
        s->begin_line = s->line;
    s->line += !(begins && drops_line);
    s->scan = end;
    return OK;
}

static int next_text(struct splitter *s, struct split_document *out)
{
    for (;;) {
        i64 end;
        bool found, complete;
        TRY(next_line(s, &end, &found));
        if (!found)
            return s->begin < s->scan && emit(s, s->scan, s->scan, out);
        if (end - s->begin > s->options.most)
            complete = cut_text(s, out);
        else
            TRY(take_line(s, end, &complete, out));
        if (complete)
            return 1;
    }
}

static int next_json(struct splitter *s, struct split_document *out)
{
    for (;;) {
        i64 end;
        bool found;
        TRY(next_line(s, &end, &found));
        if (!found)
            return 0;
        if (end - s->scan > JSONL_LONGEST_LINE)
            return err_set(
                ERR_LIMIT,
                "%s:%lld: the line is longer than %d MiB; jsonl has one document "
                "per line, use --format text for anything else",
                s->name, (long long)s->line, JSONL_LONGEST_LINE >> 20);
        s->scan = end;
        s->line++;
        bool good = emit(s, end, end, out);
        out->line = s->line - 1;
        if (good)
            return 1;
    }
}

int splitter_next(struct splitter *s, struct split_document *out)
{
    return s->format == FORMAT_JSONL ? next_json(s, out) : next_text(s, out);
}
