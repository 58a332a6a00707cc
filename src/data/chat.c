#include "data/chat.h"

#include "data/tokenizer.h"

#include <string.h>

struct chat_style chat_style_of(const struct tokenizer *t)
{
    i32 start = tokenizer_find(t, "<|im_start|>"), end = tokenizer_find(t, "<|im_end|>");
    if (start >= 0 && end >= 0)
        return (struct chat_style){ .name = "chatml", .open = start, .middle = -1, .close = end,
                                    .before = "", .after_role = "\n", .after = "\n" };
    i32 open = tokenizer_find(t, "<|start_header_id|>");
    i32 middle = tokenizer_find(t, "<|end_header_id|>");
    i32 close = tokenizer_find(t, "<|eot_id|>");
    if (open >= 0 && middle >= 0 && close >= 0)
        return (struct chat_style){ .name = "llama3", .open = open, .middle = middle,
                                    .close = close, .before = "", .after_role = "\n\n",
                                    .after = "" };
    return (struct chat_style){ .name = "plain", .open = -1, .middle = -1, .close = -1,
                                .before = "### ", .after_role = "\n", .after = "\n\n" };
}

/* --- as a template ------------------------------------------------------------------ */

/* Within a string of Jinja in single quotes. Bytes beyond ASCII stay as they are. */
static void add_quoted(struct text *out, const char *s, i64 bytes)
{
    for (i64 i = 0; i < bytes; i++) {
        if (s[i] == '\'' || s[i] == '\\')
            text_add(out, "\\");
        if (s[i] == '\n')
            text_add(out, "\\n");
        else
            text_add_bytes(out, s + i, 1);
    }
}

static void add_special(struct text *out, const struct tokenizer *t, i32 id)
{
    i64 bytes = 0;
    const char *name = id < 0 ? NULL : (const char *)tokenizer_token(t, id, &bytes);
    if (name)
        add_quoted(out, name, bytes);
}

static void add_literal(struct text *out, const char *s)
{
    add_quoted(out, s, (i64)strlen(s));
}

/* What stands before a message's content, its role being an expression of Jinja. */
static void add_head(struct text *out, const struct tokenizer *t, const struct chat_style *s,
                     const char *role)
{
    text_add(out, "'");
    add_special(out, t, s->open);
    add_literal(out, s->before);
    text_printf(out, "' + %s + '", role);
    add_special(out, t, s->middle);
    add_literal(out, s->after_role);
    text_add(out, "'");
}

void chat_template(struct text *out, const struct tokenizer *t, i32 begin)
{
    const struct chat_style s = chat_style_of(t);
    text_add(out, "{{- '");
    add_special(out, t, begin);
    text_add(out, "' }}{%- for message in messages %}{{- ");
    add_head(out, t, &s, "message['role']");
    text_add(out, " + message['content'] + '");
    add_special(out, t, s.close);
    add_literal(out, s.after);
    text_add(out, "' }}{%- endfor %}{%- if add_generation_prompt %}{{- ");
    add_head(out, t, &s, "'assistant'");
    text_add(out, " }}{%- endif %}");
}
