#include "base/json.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* --- writing --------------------------------------------------------------------- */

void json_writer_init(struct json *j)
{
    *j = (struct json){ 0 };
}

void json_writer_fini(struct json *j)
{
    text_fini(&j->out);
}

void json_writer_clear(struct json *j)
{
    text_clear(&j->out);
    j->depth = 0;
    j->after_key = false;
    j->has_item[0] = false;
}

/* Comma and line break before a key or an array item. */
static void before_item(struct json *j)
{
    if (j->after_key) {
        j->after_key = false;
        return;
    }
    if (j->depth == 0)
        return;
    bool *has_item = &j->has_item[j->depth - 1];
    if (*has_item)
        text_add(&j->out, ",");
    *has_item = true;
    if (j->indent) {
        text_add(&j->out, "\n");
        text_repeat(&j->out, ' ', 2 * j->depth);
    }
}

static void begin(struct json *j, const char *opener, char closer)
{
    before_item(j);
    assert(j->depth < JSON_MAX_DEPTH);
    text_add(&j->out, opener);
    j->closer[j->depth] = closer;
    j->has_item[j->depth++] = false;
}

void json_begin_object(struct json *j)
{
    begin(j, "{", '}');
}

void json_begin_array(struct json *j)
{
    begin(j, "[", ']');
}

void json_end(struct json *j)
{
    assert(j->depth > 0 && !j->after_key);
    j->depth--;
    if (j->indent && j->has_item[j->depth]) {
        text_add(&j->out, "\n");
        text_repeat(&j->out, ' ', 2 * j->depth);
    }
    text_add_bytes(&j->out, &j->closer[j->depth], 1);
}

static const char *short_escape(char c)
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return NULL;
    }
}

/* Control characters, both kinds, and the few others that YAML or JavaScript refuse. */
static bool must_escape(utf8proc_int32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 ||
           code == 0x2029 || code == 0xfeff || code == 0xfffe || code == 0xffff;
}

/* Runs of plain characters are copied at once; what is not UTF-8 becomes U+FFFD. */
static void add_quoted(struct text *t, const char *s, i64 n)
{
    i64 plain = 0, i = 0;
    text_add(t, "\"");
    while (i < n) {
        utf8proc_int32_t code;
        utf8proc_ssize_t bytes =
            utf8proc_iterate((const utf8proc_uint8_t *)s + i, n - i, &code);
        const char *escape = bytes < 1 ? "\\ufffd" : short_escape(s[i]);
        char hex[8];
        if (!escape && must_escape(code)) {
            snprintf(hex, sizeof hex, "\\u%04x", (unsigned)code & 0xffff);
            escape = hex;
        }
        if (escape) {
            text_add_bytes(t, s + plain, i - plain);
            text_add(t, escape);
            plain = i + (bytes < 1 ? 1 : bytes);
        }
        i += bytes < 1 ? 1 : bytes;
    }
    text_add_bytes(t, s + plain, n - plain);
    text_add(t, "\"");
}

void json_key(struct json *j, const char *key)
{
    assert(j->depth > 0 && j->closer[j->depth - 1] == '}' && !j->after_key);
    before_item(j);
    add_quoted(&j->out, key, (i64)strlen(key));
    text_add(&j->out, j->indent ? ": " : ":");
    j->after_key = true;
}

void json_literal(struct json *j, const char *literal)
{
    before_item(j);
    text_add(&j->out, literal);
}

void json_str_bytes(struct json *j, const char *value, i64 bytes)
{
    before_item(j);
    add_quoted(&j->out, value, bytes);
}

void json_str(struct json *j, const char *value)
{
    if (value)
        json_str_bytes(j, value, (i64)strlen(value));
    else
        json_nothing(j);
}

void json_int(struct json *j, i64 value)
{
    before_item(j);
    text_printf(&j->out, "%lld", (long long)value);
}

void json_double(struct json *j, double value)
{
    if (!isfinite(value)) {
        json_nothing(j);
        return;
    }
    before_item(j);
    text_add_double(&j->out, value);
}

void json_bool(struct json *j, bool value)
{
    json_literal(j, value ? "true" : "false");
}

void json_nothing(struct json *j)
{
    json_literal(j, "null");
}

void json_put_str(struct json *j, const char *key, const char *value)
{
    json_key(j, key);
    json_str(j, value);
}

void json_put_int(struct json *j, const char *key, i64 value)
{
    json_key(j, key);
    json_int(j, value);
}

void json_put_double(struct json *j, const char *key, double value)
{
    json_key(j, key);
    json_double(j, value);
}

void json_put_bool(struct json *j, const char *key, bool value)
{
    json_key(j, key);
    json_bool(j, value);
}

/* --- reading --------------------------------------------------------------------- */

/* jansson spends up to about 40 bytes of memory on 2 bytes of hostile text; its
 * allocations therefore come from here, against a budget while a file is read. */
enum { BUDGET_BASE = 64 << 20, BUDGET_PER_BYTE = 16 };
static _Thread_local i64 budget_left = INT64_MAX;
static _Thread_local bool out_of_memory; /* jansson does not always say so itself */

static void *charged_alloc(size_t bytes)
{
    if ((i64)bytes > budget_left) {
        out_of_memory = true;
        return NULL;
    }
    if (budget_left != INT64_MAX)
        budget_left -= (i64)bytes;
    void *p = sys_alloc((i64)bytes, 16);
    out_of_memory |= !p;
    return p;
}

static void use_charged_alloc(void)
{
    json_set_alloc_funcs(charged_alloc, sys_free);
}

/* line: of the file, where the text begins. */
static int parse(const char *text, i64 bytes, const char *name, i64 line, size_t flags,
                 json_t **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    json_error_t error;
    pthread_once(&once, use_charged_alloc);
    const i64 mark = text_mark(text, bytes);
    if (bytes == mark) /* then text may be NULL */
        return err_set(ERR_FORMAT, "%s:%lld:0: it is empty", name, (long long)line);
    text += mark;
    bytes -= mark;
    budget_left = BUDGET_BASE + BUDGET_PER_BYTE * bytes;
    out_of_memory = false;
    *out = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags,
                      &error);
    budget_left = INT64_MAX;
    if (*out)
        return OK;
    if (out_of_memory)
        return err_set(ERR_LIMIT, "%s: its JSON needs more than %lld MiB of memory", name,
                       (long long)((BUDGET_BASE + BUDGET_PER_BYTE * bytes) >> 20));
    return err_set(ERR_FORMAT, "%s:%lld:%d: %s", name, (long long)(line + error.line - 1),
                   error.column, error.text);
}

int json_parse(const char *text, i64 bytes, const char *name, json_t **out)
{
    return parse(text, bytes, name, 1, 0, out);
}

int json_parse_text(const char *text, i64 bytes, const char *name, i64 line, json_t **out)
{
    return parse(text, bytes, name, line, JSON_ALLOW_NUL, out);
}

int json_load(const char *path, i64 max_bytes, json_t **out)
{
    i64 bytes;
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    int rc;
    if (bytes > max_bytes)
        rc = err_set(ERR_LIMIT,
                     "%s: %lld bytes, more than the limit of %lld for such a file", path,
                     (long long)bytes, (long long)max_bytes);
    else
        rc = json_parse(text, bytes, path, out);
    sys_unmap(text, bytes);
    return rc;
}
