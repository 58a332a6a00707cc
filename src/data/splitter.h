/* data/splitter.h - a stream of bytes cut into documents.
 *
 *     text        the whole input is one document, unless there is a separator
 *     paragraphs  documents end at blank lines
 *     jsonl       one JSON document per line
 *
 * separator is a regular expression (PCRE2), tried on each line of a text: a line in
 * which it matches begins a new document. drop_separator leaves out what it matched at
 * the start of the line, and the line when nothing else is in it. So '^\S' splits at the
 * headwords of a dictionary whose entries are indented, and with drop_separator '^\f' at
 * form feeds and '^<\|endoftext\|>' at such lines.
 *
 * Documents shorter than `least` bytes are joined with those that follow. Texts longer
 * than `most` are cut at the end of a line (a byte sequence of one character is never
 * cut) and their parts are documents of their own, so that memory stays bounded. A
 * document of white space only is left out. Where documents begin and end depends on the
 * bytes and these settings alone. */
#ifndef HEADWAY_DATA_SPLITTER_H
#define HEADWAY_DATA_SPLITTER_H

#include "data/buffer.h"
#include "data/stream.h"

/* The order is that of the command line's choices; auto is jsonl for names that end in
 * .jsonl or .ndjson (before .gz, .zst), else text. */
enum text_format { FORMAT_AUTO, FORMAT_TEXT, FORMAT_PARAGRAPHS, FORMAT_JSONL };
enum text_format text_format_of(const char *name);

enum { JSONL_LONGEST_LINE = 64 << 20 };

struct splitter_options {
    const char *separator; /* NULL: none; not for jsonl */
    bool drop_separator;
    i64 least, most;       /* bytes; most >= 64 */
};

struct splitter; /* reusable for one input after another */

/* ERR_USAGE when the separator is no regular expression. */
int splitter_new(struct splitter **out, const struct splitter_options *o);
void splitter_free(struct splitter *s); /* NULL is fine */
/* Begins a new input; borrows stream and name. */
void splitter_begin(struct splitter *s, struct stream *from, const char *name,
                    enum text_format format);

struct split_document {
    const char *text; /* until the next call */
    i64 bytes;
    i64 line; /* number of its first line, from 1 */
    bool cut; /* ends where a longer document was cut */
    bool piece; /* of a longer document: the last of them is not cut */
};

/* 1: a document; 0: the end; negative: an error. */
int splitter_next(struct splitter *s, struct split_document *out);

#endif
