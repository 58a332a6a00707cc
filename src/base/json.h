/* base/json.h - writing JSON, and reading it strictly.
 *
 * The writer streams into a text buffer that is reused (metrics JSON Lines: one object
 * per step, no allocation after the first). It puts commas and quotes; the caller keeps
 * begin and end balanced (asserted). Strings may hold anything: control characters are
 * escaped, bytes that are not UTF-8 become U+FFFD. NaN and Inf are written as null,
 * because JSON has no word for them.
 *
 * Reading is jansson's job: json_load adds what it lacks - a size limit, a memory limit,
 * duplicate keys refused, and messages that name file, line and column. Values are
 * released with json_decref. */
#ifndef HEADWAY_JSON_H
#define HEADWAY_JSON_H

#include "base/base.h"
#include "base/text.h"

#include <jansson.h>

enum { JSON_MAX_DEPTH = 128 };

struct json {
    struct text out;
    int depth;
    bool indent;                /* one item a line, two blanks a level; else one line */
    bool has_item[JSON_MAX_DEPTH];
    char closer[JSON_MAX_DEPTH]; /* '}' or ']' of each open level */
    bool after_key;
};

void json_writer_init(struct json *j);
void json_writer_fini(struct json *j);
void json_writer_clear(struct json *j); /* keeps the memory */

/* In an object, each value or begin is preceded by json_key. */
void json_begin_object(struct json *j);
void json_begin_array(struct json *j);
void json_end(struct json *j); /* closes the innermost */
void json_key(struct json *j, const char *key);
void json_str(struct json *j, const char *value); /* NULL is written as null */
void json_str_bytes(struct json *j, const char *value, i64 bytes);
void json_int(struct json *j, i64 value);
void json_double(struct json *j, double value); /* shortest text that reads back the same */
void json_bool(struct json *j, bool value);
void json_nothing(struct json *j);
void json_literal(struct json *j, const char *literal); /* JSON already, such as "1.5" */

/* Key and value in one call. */
void json_put_str(struct json *j, const char *key, const char *value);
void json_put_int(struct json *j, const char *key, i64 value);
void json_put_double(struct json *j, const char *key, double value);
void json_put_bool(struct json *j, const char *key, bool value);

/* Reads a whole JSON file. max_bytes limits the file; memory is limited to 64 MiB plus
 * 16 times the file (ERR_LIMIT). */
int json_load(const char *path, i64 max_bytes, json_t **out);
/* The same for text; name stands for the file in messages. */
int json_parse(const char *text, i64 bytes, const char *name, json_t **out);
/* The same for documents of people, whose strings may hold NUL: json_string_length. line: of the
 * file, where the text begins. */
int json_parse_text(const char *text, i64 bytes, const char *name, i64 line, json_t **out);

#endif
