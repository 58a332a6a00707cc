#include "base/yaml.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 64, MAX_NODES = 1000000, MAX_BYTES = 64 << 20 };

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    const char *file, *bytes;
    i64 n_bytes, n_nodes;
    struct arena *arena;
    struct yaml_node *open[MAX_DEPTH]; /* the collections that we are inside of */
    int depth;
    /* In a map, a key that waits for its value. */
    const char *key;
    int key_line, key_column;
};

static int fail_at(const struct reader *r, yaml_mark_t mark, const char *what)
{
    return err_set(ERR_CONFIG, "%s:%d:%d: %s", r->file, (int)mark.line + 1,
                   (int)mark.column + 1, what);
}

/* libyaml gives a byte offset, not a mark, when the characters themselves are wrong. */
static int fail_encoding(const struct reader *r)
{
    i64 offset = i64_min((i64)r->parser.problem_offset, r->n_bytes);
    yaml_mark_t mark = { 0 };
    for (i64 i = 0; i < offset; i++) {
        mark.column++;
        if (r->bytes[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return fail_at(r, mark, "not valid UTF-8 text, or a control character");
}

/* Editors show a tab as blanks, and YAML forbids it there. */
static bool tab_indents(const struct reader *r, size_t line)
{
    const char *p = r->bytes, *end = r->bytes + r->n_bytes;
    for (; line > 0 && p < end; p++)
        line -= *p == '\n';
    while (p < end && *p == ' ')
        p++;
    return p < end && *p == '\t';
}

static int fail_syntax(const struct reader *r)
{
    if (r->parser.error == YAML_READER_ERROR)
        return fail_encoding(r);
    if (r->parser.error == YAML_MEMORY_ERROR)
        return err_set(ERR_LIMIT, "%s: out of memory", r->file);
    if (r->parser.error == YAML_SCANNER_ERROR && tab_indents(r, r->parser.problem_mark.line))
        return fail_at(r, r->parser.problem_mark, "a tab indents this line; use spaces");
    return fail_at(r, r->parser.problem_mark,
                   r->parser.problem ? r->parser.problem : "not YAML");
}

/* Only after the document: a map with keys compared in order finds duplicates in
 * n log n, so that a million keys are no trap. */
static int by_key(const void *a, const void *b)
{
    const struct yaml_node *x = *(const struct yaml_node *const *)a;
    const struct yaml_node *y = *(const struct yaml_node *const *)b;
    int order = strcmp(x->key, y->key);
    if (order)
        return order;
    if (x->key_line != y->key_line)
        return x->key_line < y->key_line ? -1 : 1;
    return x->key_column < y->key_column ? -1 : x->key_column > y->key_column;
}

static int check_duplicates(const struct reader *r, const struct yaml_node *map)
{
    struct yaml_node **sorted = sys_alloc((i64)sizeof *sorted * map->count, 16);
    if (!sorted)
        return err_set(ERR_LIMIT, "%s: out of memory", r->file);
    i64 n = 0;
    for (struct yaml_node *child = map->first; child; child = child->next)
        sorted[n++] = child;
    qsort(sorted, (size_t)n, sizeof *sorted, by_key);
    int rc = OK;
    for (i64 i = 1; i < n && rc == OK; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0)
            rc = err_set(ERR_CONFIG, "%s:%d:%d: key '%.60s' was already given in line %d",
                         r->file, sorted[i]->key_line, sorted[i]->key_column,
                         sorted[i]->key, sorted[i - 1]->key_line);
    sys_free(sorted);
    return rc;
}

/* Appends a node to the innermost open collection; the first node is the root. */
static int add_node(struct reader *r, enum yaml_kind kind, struct yaml_node **out)
{
    yaml_mark_t mark = r->event.start_mark;
    if (++r->n_nodes > MAX_NODES)
        return fail_at(r, mark, "more than a million values; split the file");
    struct yaml_node *node = ARENA_NEW(r->arena, struct yaml_node);
    *node = (struct yaml_node){ .kind = kind,
                                .file = r->file,
                                .line = (int)mark.line + 1,
                                .column = (int)mark.column + 1 };
    if (r->depth > 0) {
        struct yaml_node *parent = r->open[r->depth - 1];
        if (parent->kind == YAML_MAP) {
            node->key = r->key;
            node->key_line = r->key_line;
            node->key_column = r->key_column;
            r->key = NULL;
        }
        if (parent->last)
            parent->last->next = node;
        else
            parent->first = node;
        parent->last = node;
        parent->count++;
    } else {
        r->open[0] = node; /* the root stays here, even if it is a scalar */
    }
    *out = node;
    return OK;
}

static bool key_expected(const struct reader *r)
{
    return r->depth > 0 && r->open[r->depth - 1]->kind == YAML_MAP && !r->key;
}

static int begin_collection(struct reader *r, enum yaml_kind kind)
{
    struct yaml_node *node;
    if (key_expected(r))
        return fail_at(r, r->event.start_mark,
                       "a key must be a word, not a list or a map");
    if (r->depth == MAX_DEPTH)
        return fail_at(r, r->event.start_mark, "nested deeper than 64 levels");
    TRY(add_node(r, kind, &node));
    r->open[r->depth++] = node;
    return OK;
}

static int read_scalar(struct reader *r)
{
    const char *value = (const char *)r->event.data.scalar.value;
    i64 length = (i64)r->event.data.scalar.length;
    yaml_mark_t mark = r->event.start_mark;
    struct yaml_node *node;
    if (memchr(value, 0, (size_t)length))
        return fail_at(r, mark, "text with a NUL character in it");
    if (key_expected(r)) {
        r->key = arena_strndup(r->arena, value, length);
        r->key_line = (int)mark.line + 1;
        r->key_column = (int)mark.column + 1;
        return OK;
    }
    TRY(add_node(r, YAML_SCALAR, &node));
    node->text = arena_strndup(r->arena, value, length);
    node->quoted = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return OK;
}

static int refuse_extras(struct reader *r, const yaml_char_t *anchor,
                         const yaml_char_t *tag)
{
    if (anchor)
        return fail_at(r, r->event.start_mark,
                       "anchors (&) are not supported: write the value where it is used");
    if (tag)
        return fail_at(r, r->event.start_mark,
                       "tags (!) are not supported: types come from the key");
    return OK;
}

static int read_event(struct reader *r, int *documents)
{
    yaml_event_t *e = &r->event;
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if ((*documents)++)
            return fail_at(r, e->start_mark, "a second document (---); one is expected");
        return OK;
    case YAML_ALIAS_EVENT:
        return fail_at(r, e->start_mark,
                       "aliases (*) are not supported: write the value where it is used");
    case YAML_SCALAR_EVENT:
        TRY(refuse_extras(r, e->data.scalar.anchor, e->data.scalar.tag));
        return read_scalar(r);
    case YAML_SEQUENCE_START_EVENT:
        TRY(refuse_extras(r, e->data.sequence_start.anchor, e->data.sequence_start.tag));
        return begin_collection(r, YAML_LIST);
    case YAML_MAPPING_START_EVENT:
        TRY(refuse_extras(r, e->data.mapping_start.anchor, e->data.mapping_start.tag));
        return begin_collection(r, YAML_MAP);
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return check_duplicates(r, r->open[r->depth]);
    case YAML_SEQUENCE_END_EVENT:
        r->depth--;
        return OK;
    default:
        return OK;
    }
}

static int read_all(struct reader *r)
{
    int documents = 0;
    for (bool end = false; !end;) {
        if (!yaml_parser_parse(&r->parser, &r->event))
            return fail_syntax(r);
        end = r->event.type == YAML_STREAM_END_EVENT;
        int rc = read_event(r, &documents);
        yaml_event_delete(&r->event);
        TRY(rc);
    }
    return OK;
}

int yaml_parse(const char *text, i64 bytes, const char *name, struct arena *a,
               const struct yaml_node **root)
{
    if (bytes > MAX_BYTES)
        return err_set(ERR_LIMIT, "%s: larger than 64 MiB, the limit for YAML", name);
    const i64 mark = text_mark(text, bytes);
    text += mark;
    bytes -= mark;
    struct reader r = {
        .file = arena_strdup(a, name), .bytes = text, .n_bytes = bytes, .arena = a
    };
    if (!yaml_parser_initialize(&r.parser))
        return err_set(ERR_LIMIT, "%s: out of memory", name);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, (size_t)bytes);
    int rc = read_all(&r);
    yaml_parser_delete(&r.parser);
    TRY(rc);
    if (!r.open[0]) {
        r.open[0] = ARENA_NEW(a, struct yaml_node);
        *r.open[0] = (struct yaml_node){
            .kind = YAML_MAP, .file = r.file, .line = 1, .column = 1
        };
    }
    *root = r.open[0];
    return OK;
}

int yaml_load(const char *path, struct arena *a, const struct yaml_node **root)
{
    i64 bytes;
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    int rc = yaml_parse(text, bytes, path, a, root);
    sys_unmap(text, bytes);
    return rc;
}

const struct yaml_node *yaml_get(const struct yaml_node *node, const char *key)
{
    if (node->kind != YAML_MAP)
        return NULL;
    for (const struct yaml_node *child = node->first; child; child = child->next)
        if (strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

bool yaml_is_null(const struct yaml_node *node)
{
    return node->kind == YAML_SCALAR && !node->quoted &&
           (!*node->text || strcmp(node->text, "null") == 0 ||
            strcmp(node->text, "~") == 0);
}

const char *yaml_where(const struct yaml_node *node, struct arena *a)
{
    return arena_printf(a, "%s:%d:%d", node->file, node->line, node->column);
}

const char *yaml_key_where(const struct yaml_node *node, struct arena *a)
{
    return arena_printf(a, "%s:%d:%d", node->file, node->key_line, node->key_column);
}

/* A plain scalar that JSON writes the same way: a number, true or false. */
static bool is_json_literal(const char *s)
{
    const char *p = s + (*s == '-');
    if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
        return true;
    size_t digits = strspn(p, "0123456789");
    if (digits == 0 || (digits > 1 && *p == '0'))
        return false;
    p += digits;
    if (*p == '.') {
        digits = strspn(p + 1, "0123456789");
        if (digits == 0)
            return false;
        p += 1 + digits;
    }
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '-' || p[1] == '+');
        digits = strspn(p, "0123456789");
        if (digits == 0)
            return false;
        p += digits;
    }
    return *p == '\0';
}

/* The depth is at most MAX_DEPTH, checked while reading. */
void yaml_write_json(const struct yaml_node *node, struct json *out)
{
    if (node->kind == YAML_SCALAR) {
        if (yaml_is_null(node))
            json_nothing(out);
        else if (!node->quoted && is_json_literal(node->text))
            json_literal(out, node->text);
        else
            json_str(out, node->text);
        return;
    }
    if (node->kind == YAML_MAP)
        json_begin_object(out);
    else
        json_begin_array(out);
    for (const struct yaml_node *child = node->first; child; child = child->next) {
        if (node->kind == YAML_MAP)
            json_key(out, child->key);
        yaml_write_json(child, out);
    }
    json_end(out);
}
