#include "data/pretoken.h"

#include "base/err.h"
#include "base/text.h"

#include <string.h>

/* --- from JSON ---------------------------------------------------------------------- */

static int steps_left(const struct pretokenizer *p)
{
    if (p->count == PRETOKEN_STEPS)
        return err_set(ERR_LIMIT, "the pre-tokenizer has more than %d steps", PRETOKEN_STEPS);
    return OK;
}

static int add_pattern(struct pretokenizer *p, const char *pattern, enum split_keep keep)
{
    TRY(steps_left(p));
    struct split_step step = { .keep = keep };
    const struct scan_pattern *known = scan_by_regex(pattern);
    /* The scanners' pieces cover the text, so that dropping what lies between them drops
     * nothing; dropping the pieces themselves is left to the regular expression. */
    if (known && keep != KEEP_REST)
        step.scan = known->scan;
    else
        TRY(split_regex_new(&step.regex, pattern));
    p->steps[p->count++] = step;
    return OK;
}

/* Quotes every character that could be an operator. */
static int add_literal(struct pretokenizer *p, const char *literal, enum split_keep keep)
{
    struct text quoted = { 0 };
    text_add(&quoted, "");
    for (const char *c = literal; *c; c++) {
        if (strchr("\\^$.|?*+()[]{}-#&~ \t\r\n\v\f", *c))
            text_add(&quoted, "\\");
        text_add_bytes(&quoted, c, 1);
    }
    int rc = add_pattern(p, quoted.data, keep);
    text_fini(&quoted);
    return rc;
}

static int add_split(struct pretokenizer *p, const json_t *json)
{
    const char *behavior = json_string_value(json_object_get(json, "behavior"));
    const json_t *pattern = json_object_get(json, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    bool invert = json_is_true(json_object_get(json, "invert"));
    if (!behavior || (!regex && !literal))
        return err_set(ERR_FORMAT, "a Split step of the pre-tokenizer has no pattern or no "
                                   "behavior");
    enum split_keep keep = KEEP_ALL;
    if (!strcmp(behavior, "Removed"))
        keep = invert ? KEEP_MATCHES : KEEP_REST;
    else if (strcmp(behavior, "Isolated") != 0)
        return err_set(ERR_FORMAT, "a Split step of the pre-tokenizer has the behavior %s; "
                                   "Headway knows Isolated and Removed", behavior);
    return regex ? add_pattern(p, regex, keep) : add_literal(p, literal, keep);
}

/* Hugging Face's step Digits asks Rust's library, which knows Unicode 17: 13 numbers more
 * than its regular expressions know. */
#define NUMBER "[\\p{N}\\x{11DE0}-\\x{11DE9}\\x{16FF4}-\\x{16FF6}]"

static int add_digits(struct pretokenizer *p, const json_t *json)
{
    bool single = json_is_true(json_object_get(json, "individual_digits"));
    return add_pattern(p, single ? NUMBER : NUMBER "+", KEEP_ALL);
}

static int add_byte_level(struct pretokenizer *p, const json_t *json)
{
    const json_t *use_regex = json_object_get(json, "use_regex");
    const json_t *prefix = json_object_get(json, "add_prefix_space");
    if (!json_is_boolean(prefix) || (use_regex && !json_is_boolean(use_regex)))
        return err_set(ERR_FORMAT, "the ByteLevel pre-tokenizer has no add_prefix_space, or "
                                   "a use_regex that is neither true nor false");
    if (json_is_true(prefix))
        p->prefix_at = p->count;
    if (use_regex && json_is_false(use_regex))
        return OK;
    return add_pattern(p, scan_by_name("gpt2")->regex, KEEP_ALL);
}

/* *done is set by ByteLevel, which must come last. */
static int add_step(struct pretokenizer *p, const json_t *json, bool *done)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type)
        return err_set(ERR_FORMAT, "there is no pre-tokenizer, or one without a type; Headway "
                                   "reads byte-level BPE only (GPT-2, GPT-4, Llama 3, Qwen)");
    if (*done)
        return err_set(ERR_FORMAT, "the pre-tokenizer has a %s step behind ByteLevel, which "
                                   "Headway does not read", type);
    if (!strcmp(type, "Split"))
        return add_split(p, json);
    if (!strcmp(type, "Digits"))
        return add_digits(p, json);
    if (strcmp(type, "ByteLevel") != 0)
        return err_set(ERR_FORMAT, "the pre-tokenizer is of type %s; Headway reads "
                                   "byte-level BPE only (GPT-2, GPT-4, Llama 3, Qwen)", type);
    *done = true;
    return add_byte_level(p, json);
}

static int add_steps(struct pretokenizer *p, const json_t *json)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    bool byte_level = false;
    if (type && !strcmp(type, "Sequence")) {
        size_t i;
        const json_t *step;
        json_array_foreach(json_object_get(json, "pretokenizers"), i, step)
            TRY(add_step(p, step, &byte_level));
    } else {
        TRY(add_step(p, json, &byte_level));
    }
    if (!byte_level)
        return err_set(ERR_FORMAT, "the pre-tokenizer has no ByteLevel step: Headway reads "
                                   "byte-level BPE only (GPT-2, GPT-4, Llama 3, Qwen)");
    return OK;
}

int pretokenizer_init(struct pretokenizer *p, const json_t *json)
{
    *p = (struct pretokenizer){ .prefix_at = -1 };
    int rc = add_steps(p, json);
    if (rc < 0)
        pretokenizer_fini(p);
    return rc;
}

void pretokenizer_fini(struct pretokenizer *p)
{
    for (int i = 0; i < p->count; i++)
        split_regex_free(p->steps[i].regex);
    p->count = 0;
}

json_t *pretokenizer_json(const struct scan_pattern *pattern)
{
    bool gpt2 = !strcmp(pattern->name, "gpt2");
    json_t *byte_level = json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space",
                                   0, "trim_offsets", 1, "use_regex", gpt2);
    if (gpt2)
        return byte_level;
    return json_pack("{s:s,s:[{s:s,s:{s:s},s:s,s:b},o]}", "type", "Sequence", "pretokenizers",
                     "type", "Split", "pattern", "Regex", pattern->regex, "behavior",
                     "Isolated", "invert", 0, byte_level);
}

/* --- run ---------------------------------------------------------------------------- */

struct run {
    const struct pretokenizer *p;
    struct pretoken_scratch *scratch;
    piece_fn piece;
    void *context;
};

static int run_step(const struct run *r, int step, const u8 *text, i64 bytes);

static int run_scan(const struct run *r, int step, const u8 *text, i64 bytes)
{
    scan_fn scan = r->p->steps[step].scan;
    bool last = step + 1 == r->p->count && r->p->prefix_at != r->p->count;
    for (i64 at = 0, stop; at < bytes; at = stop) {
        stop = scan(text, at, bytes);
        TRY(last ? r->piece(r->context, text + at, stop - at)
                 : run_step(r, step + 1, text + at, stop - at));
    }
    return OK;
}

static int run_regex(const struct run *r, int step, const u8 *text, i64 bytes)
{
    const struct split_step *s = &r->p->steps[step];
    if (!r->scratch->match)
        TRY(split_match_new(&r->scratch->match));
    i64 at = 0, begin = 0, end = 0;
    int found = 1;
    while (found && at < bytes) {
        found = split_regex_find(s->regex, r->scratch->match, text, bytes, at, &begin, &end);
        TRY(found);
        if (!found)
            begin = end = bytes;
        if (s->keep != KEEP_MATCHES)
            TRY(run_step(r, step + 1, text + at, begin - at));
        if (s->keep != KEEP_REST)
            TRY(run_step(r, step + 1, text + begin, end - begin));
        at = end;
    }
    return OK;
}

static int run_step(const struct run *r, int step, const u8 *text, i64 bytes)
{
    if (bytes == 0)
        return OK;
    if (step == r->p->prefix_at && text[0] != ' ') {
        struct buffer *b = &r->scratch->prefixed;
        b->bytes = 0;
        TRY(buffer_reserve(b, bytes + 1));
        TRY(buffer_add(b, " ", 1));
        TRY(buffer_add(b, text, bytes));
        text = b->data;
        bytes = b->bytes;
    }
    if (step == r->p->count)
        return r->piece(r->context, text, bytes);
    return r->p->steps[step].scan ? run_scan(r, step, text, bytes)
                                  : run_regex(r, step, text, bytes);
}

int pretokenize(const struct pretokenizer *p, struct pretoken_scratch *s, const u8 *text,
                i64 bytes, piece_fn piece, void *context)
{
    const struct run r = { p, s, piece, context };
    return run_step(&r, 0, text, bytes);
}

void pretoken_scratch_fini(struct pretoken_scratch *s)
{
    split_match_free(s->match);
    buffer_fini(&s->prefixed);
    *s = (struct pretoken_scratch){ 0 };
}
