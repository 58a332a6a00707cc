#include "data/json_document.h"

#include "base/err.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>

/* --- parts -------------------------------------------------------------------------- */

/* The last part, where it is text that counts as this does: one text, whose tokens may reach
 * across, as where it is written as a whole (a prompt, by a template). */
static struct json_part *same_text(struct json_document *d, bool counts)
{
    const i64 n = json_document_parts(d);
    struct json_part *last = n ? (struct json_part *)d->parts.data + n - 1 : NULL;
    return last && last->special < 0 && last->counts == counts ? last : NULL;
}

static int add_part(struct json_document *d, const char *text, i64 bytes, i32 special,
                    bool counts)
{
    if (special < 0 && bytes == 0)
        return OK;
    struct json_part *last = special < 0 ? same_text(d, counts) : NULL;
    const struct json_part part = { .begin = d->text.bytes, .bytes = bytes, .special = special,
                                    .counts = counts };
    if (last)
        last->bytes += bytes;
    else
        TRY(buffer_add(&d->parts, &part, sizeof part));
    return buffer_add(&d->text, text, bytes);
}

static int add_string(struct json_document *d, const json_t *value, bool counts)
{
    return add_part(d, json_string_value(value), (i64)json_string_length(value), -1,
                    counts);
}

static int add_special(struct json_document *d, i32 special, bool counts)
{
    return special < 0 ? OK : add_part(d, "", 0, special, counts);
}

static int add_literal(struct json_document *d, const char *text, bool counts)
{
    return add_part(d, text, (i64)strlen(text), -1, counts);
}

/* What stands before a message's content. */
static int add_head(struct json_document *d, const struct chat_style *s, const char *role)
{
    TRY(add_special(d, s->open, false));
    TRY(add_literal(d, s->before, false));
    TRY(add_literal(d, role, false));
    TRY(add_special(d, s->middle, false));
    return add_literal(d, s->after_role, false);
}

static int add_message(struct json_document *d, const struct chat_style *s, const char *role,
                       const char *content, i64 bytes)
{
    bool counts = strcmp(role, "assistant") == 0;
    bool token_ends = s->close >= 0; /* then the text after it is mere layout */
    TRY(add_head(d, s, role));
    TRY(add_part(d, content, bytes, -1, counts));
    TRY(add_special(d, s->close, counts));
    return add_literal(d, s->after, counts && !token_ends);
}

static int add_json_message(struct json_document *d, const struct chat_style *s,
                            const json_t *m)
{
    const json_t *role = json_object_get(m, "role"),
                 *content = json_object_get(m, "content");
    if (!json_is_string(role) || !json_is_string(content))
        return err_set(ERR_FORMAT,
                       "each of messages needs a role and a content, both strings");
    return add_message(d, s, json_string_value(role), json_string_value(content),
                       (i64)json_string_length(content));
}

static int add_messages(struct json_document *d, const struct chat_style *s,
                        const json_t *messages)
{
    if (json_array_size(messages) == 0)
        return err_set(ERR_FORMAT, "messages is not a list with something in it");
    for (size_t i = 0; i < json_array_size(messages); i++)
        TRY(add_json_message(d, s, json_array_get(messages, i)));
    return OK;
}

/* What an instruction is about, where it says that apart (Alpaca): on a line of its own. */
static int add_input(struct json_document *d, const json_t *input)
{
    if (!input || json_is_null(input) || (json_is_string(input) && !json_string_length(input)))
        return OK;
    if (!json_is_string(input))
        return err_set(ERR_FORMAT, "the input of its instruction is not a string");
    TRY(add_literal(d, "\n", false));
    return add_string(d, input, false);
}

static int add_object(struct json_document *d, const struct chat_style *s,
                      const json_t *o)
{
    static const char *const pairs[][2] = { { "prompt", "answer" },
                                            { "prompt", "completion" },
                                            { "prompt", "response" },
                                            { "question", "answer" },
                                            { "instruction", "output" } };
    const json_t *text = json_object_get(o, "text"),
                 *messages = json_object_get(o, "messages");
    if (json_is_string(text))
        return add_string(d, text, true);
    if (messages)
        return add_messages(d, s, messages);
    for (i64 i = 0; i < COUNT_OF(pairs); i++) {
        const json_t *first = json_object_get(o, pairs[i][0]);
        const json_t *second = json_object_get(o, pairs[i][1]);
        if (!json_is_string(first) || !json_is_string(second))
            continue;
        TRY(add_string(d, first, false));
        if (strcmp(pairs[i][0], "instruction") == 0)
            TRY(add_input(d, json_object_get(o, "input")));
        return add_string(d, second, true);
    }
    return err_set(ERR_FORMAT,
                   "it has neither a text, nor messages, nor a prompt and an answer, "
                   "as strings");
}

int json_document_parse(struct json_document *d, const struct chat_style *style,
                        const char *json, i64 bytes, const char *name, i64 line)
{
    json_t *root;
    d->text.bytes = d->parts.bytes = 0;
    while (bytes > 0 && (json[bytes - 1] == '\n' || json[bytes - 1] == '\r'))
        bytes--; /* what breaks off does so on its own line */
    TRY(json_parse_text(json, bytes, name, line, &root));
    int rc = json_is_object(root) ? add_object(d, style, root)
                                  : err_set(ERR_FORMAT, "it is not an object");
    json_decref(root);
    return rc < 0 ? err_context(rc, "%.400s, document at line %lld", name, (long long)line) : OK;
}

int json_document_ask(struct json_document *d, const struct chat_style *style,
                      const char *system, const char *question)
{
    d->text.bytes = d->parts.bytes = 0;
    if (system)
        TRY(add_message(d, style, "system", system, (i64)strlen(system)));
    TRY(add_message(d, style, "user", question, (i64)strlen(question)));
    return add_head(d, style, "assistant");
}

void json_document_fini(struct json_document *d)
{
    buffer_fini(&d->text);
    buffer_fini(&d->parts);
}
