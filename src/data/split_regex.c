#include "data/split_regex.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"
#include "data/unicode.h"

#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    LONGEST_PATTERN = 64 * 1024,
    JIT_STACK_BYTES = 8 * 1024 * 1024,
    /* PCRE2 counts steps. Most pieces take a few; a piece that takes more is tried again
     * with more, at the cost of a budget that is linear in the text, so that a malicious
     * pattern ends with an error after bounded effort and an honest one never does. */
    FIRST_STEPS = 1000,
    MORE_STEPS = 16,
    BUDGET_PER_BYTE = 4096,
};

struct split_regex {
    pcre2_code *code;
};

struct split_match {
    pcre2_general_context *general;
    pcre2_match_context *context;
    pcre2_match_data *data;
    pcre2_jit_stack *stack;
    i64 budget; /* steps that repeated tries may still take in this text */
};

/* --- from Oniguruma's Ruby syntax to PCRE2 ---------------------------------------- */

struct translator {
    const char *pattern, *at;
    struct text out;
    bool in_class;
};

static int refuse(const struct translator *t, const char *what)
{
    return err_set(ERR_FORMAT,
                   "the pre-tokenizer's pattern uses %s at character %lld, which Headway "
                   "does not read; patterns of GPT-2, GPT-4, Llama 3 and Qwen work",
                   what, (long long)(t->at - t->pattern));
}

/* The ranges of category name (two letters, or one for a whole group) that PCRE2 may not
 * know yet. */
static void add_new_ranges(struct translator *t, const char *name, i64 length)
{
    for (i64 i = 0; i < unicode_since_14_count; i++) {
        const struct unicode_range *r = &unicode_since_14[i];
        if (strncmp(r->category, name, (size_t)length) == 0)
            text_printf(&t->out, "\\x{%x}-\\x{%x}", r->first, r->last);
    }
}

/* \p{L}, \p{^L}, \P{L}, \pL; t->at is at the p. */
static int translate_property(struct translator *t)
{
    bool negated = *t->at++ == 'P';
    const char *name = t->at, *end = t->at + 1;
    if (*name == '{') {
        name++;
        end = strchr(name, '}');
        if (!end)
            return refuse(t, "\\p{ without }");
    } else if (!*name) {
        return refuse(t, "\\p without a name");
    }
    t->at = *end == '}' ? end + 1 : end;
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    i64 length = end - name;
    if (negated && t->in_class)
        return refuse(t, "a negated property inside [ ]");
    if (length <= 0 || length > 32)
        return refuse(t, "a property without a name");
    if (!t->in_class)
        text_add(&t->out, negated ? "[^" : "[");
    text_printf(&t->out, "\\p{%.*s}", (int)length, name);
    if (length <= 2)
        add_new_ranges(t, name, length);
    if (!t->in_class)
        text_add(&t->out, "]");
    return OK;
}

/* White space is what Unicode says; PCRE2's \s would add U+180E. */
static int translate_space(struct translator *t)
{
    static const char set[] = "\\t-\\r\\x{85}\\p{Z}";
    bool negated = *t->at++ == 'S';
    if (t->in_class && negated)
        return refuse(t, "\\S inside [ ]");
    if (t->in_class)
        text_add(&t->out, set);
    else
        text_printf(&t->out, "[%s%s]", negated ? "^" : "", set);
    return OK;
}

static int translate_escape(struct translator *t)
{
    char c = *++t->at;
    if (c == 'p' || c == 'P')
        return translate_property(t);
    if (c == 's' || c == 'S')
        return translate_space(t);
    if (c == 'd') {
        text_add(&t->out, t->in_class ? "\\p{Nd}" : "[\\p{Nd}");
        add_new_ranges(t, "Nd", 2);
        if (!t->in_class)
            text_add(&t->out, "]");
        t->at++;
        return OK;
    }
    /* Control characters and quoted punctuation mean the same to both. */
    bool same = c && (strchr("rntfaex", c) || ((u8)c < 0x80 && char_class_ascii[(u8)c] !=
                      CHAR_LETTER && char_class_ascii[(u8)c] != CHAR_NUMBER));
    if (!same)
        return refuse(t, "an escape other than \\p \\s \\d \\r \\n \\t \\f \\x");
    text_add_bytes(&t->out, t->at - 1, 2);
    t->at++;
    return OK;
}

static int translate_char(struct translator *t)
{
    char c = *t->at;
    if (c == '\\')
        return translate_escape(t);
    if (t->in_class && (c == '[' || (c == '&' && t->at[1] == '&')))
        return refuse(t, "a set inside a set");
    if (!t->in_class && c == '}' && t->at[1] == '+')
        return refuse(t, "{ }+");
    if (!t->in_class && c == '(' && t->at[1] == '*')
        return refuse(t, "(*");
    if (c == '[' && !t->in_class) {
        t->in_class = true;
        i64 head = t->at[1] == '^' ? 2 : 1; /* a ] right behind is a member */
        head += t->at[head] == ']';
        text_add_bytes(&t->out, t->at, head);
        t->at += head;
        return OK;
    }
    if (c == ']')
        t->in_class = false;
    text_add_bytes(&t->out, t->at++, 1);
    return OK;
}

/* --- compile ------------------------------------------------------------------------ */

static void *pcre_alloc(PCRE2_SIZE bytes, void *unused)
{
    (void)unused;
    return sys_alloc((i64)bytes, 16);
}

static void pcre_free(void *p, void *unused)
{
    (void)unused;
    sys_free(p);
}

static int compile(struct split_regex *r, const struct text *pattern)
{
    int rc = ERR_LIMIT, number;
    u32 empty = 0;
    PCRE2_SIZE where;
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    if (!context) {
        err_set(rc, "no memory to compile the pre-tokenizer's pattern");
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    r->code = pcre2_compile((PCRE2_SPTR)pattern->data, (PCRE2_SIZE)pattern->length,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &number, &where, context);
    if (!r->code) {
        char message[128];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)message, sizeof message);
        rc = err_set(ERR_FORMAT, "the pre-tokenizer's pattern does not compile: %s", message);
        goto done;
    }
    pcre2_pattern_info(r->code, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty) {
        rc = err_set(ERR_FORMAT, "the pre-tokenizer's pattern can match nothing at all, so "
                                 "it does not say where to split");
        goto done;
    }
    /* Without JIT (a hardened kernel may forbid it) the interpreter runs the pattern. */
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    rc = OK;
done:
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    return rc;
}

int split_regex_new(struct split_regex **out, const char *pattern)
{
    struct translator t = { .pattern = pattern, .at = pattern };
    struct split_regex *r = NULL;
    int rc = OK;
    if (strlen(pattern) > LONGEST_PATTERN)
        return err_set(ERR_LIMIT, "the pre-tokenizer's pattern is longer than %d bytes",
                       LONGEST_PATTERN);
    text_add(&t.out, "");
    while (*t.at)
        TRY_TO(done, translate_char(&t));
    r = sys_alloc((i64)sizeof *r, 16);
    if (!r) {
        rc = err_set(ERR_LIMIT, "no memory for the pre-tokenizer");
        goto done;
    }
    *r = (struct split_regex){ 0 };
    TRY_TO(done, compile(r, &t.out));
    *out = r;
    r = NULL;
done:
    split_regex_free(r);
    text_fini(&t.out);
    return rc;
}

void split_regex_free(struct split_regex *r)
{
    if (r)
        pcre2_code_free(r->code);
    sys_free(r);
}

/* --- match -------------------------------------------------------------------------- */

int split_match_new(struct split_match **out)
{
    struct split_match *m = sys_alloc((i64)sizeof *m, 16);
    if (!m)
        return err_set(ERR_LIMIT, "no memory for the pre-tokenizer");
    *m = (struct split_match){ .general =
                                   pcre2_general_context_create(pcre_alloc, pcre_free, NULL) };
    if (m->general) {
        m->context = pcre2_match_context_create(m->general);
        m->data = pcre2_match_data_create(1, m->general);
        m->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_BYTES, m->general);
    }
    if (!m->context || !m->data || !m->stack) {
        split_match_free(m);
        return err_set(ERR_LIMIT, "no memory for the pre-tokenizer");
    }
    pcre2_jit_stack_assign(m->context, NULL, m->stack);
    *out = m;
    return OK;
}

void split_match_free(struct split_match *m)
{
    if (m) {
        pcre2_match_data_free(m->data);
        pcre2_match_context_free(m->context);
        pcre2_jit_stack_free(m->stack);
        pcre2_general_context_free(m->general);
    }
    sys_free(m);
}

static int match(const struct split_regex *r, struct split_match *m, const u8 *text, i64 bytes,
                 i64 from, u32 steps)
{
    u32 options = PCRE2_NO_UTF_CHECK;
    pcre2_set_match_limit(m->context, steps);
    int rc = pcre2_match(r->code, text, (PCRE2_SIZE)bytes, (PCRE2_SIZE)from, options, m->data,
                         m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its state on the heap */
        rc = pcre2_match(r->code, text, (PCRE2_SIZE)bytes, (PCRE2_SIZE)from,
                         options | PCRE2_NO_JIT, m->data, m->context);
    return rc;
}

int split_regex_find(const struct split_regex *r, struct split_match *m, const u8 *text,
                     i64 bytes, i64 from, i64 *begin, i64 *end)
{
    if (from == 0)
        m->budget = (bytes + 1) * BUDGET_PER_BYTE;
    i64 steps = FIRST_STEPS;
    int rc = match(r, m, text, bytes, from, (u32)steps);
    while (rc == PCRE2_ERROR_MATCHLIMIT && m->budget > 0 && steps < UINT32_MAX / MORE_STEPS) {
        steps *= MORE_STEPS;
        m->budget -= steps;
        rc = match(r, m, text, bytes, from, (u32)steps);
    }
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return err_set(ERR_LIMIT, "the pre-tokenizer's pattern takes too long on a text of "
                                  "%lld bytes (PCRE2 error %d)", (long long)bytes, rc);
    const PCRE2_SIZE *extent = pcre2_get_ovector_pointer(m->data);
    *begin = (i64)extent[0];
    *end = (i64)extent[1];
    return 1;
}
