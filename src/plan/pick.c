#include "plan/pick.h"

#include "base/err.h"
#include "base/text.h"

#include <string.h>

#define FIELD(kind, field) OPTION_FIELD(kind, struct plan_pick, field)
#define DEGREE(name, field, text)                                                              \
    { name, FIELD(INT, field), "-1", .min = -1, .max = 1 << 20, .help = text }

const struct option plan_pick_options[] = {
    DEGREE("tp", tp, "Ranks that share each matrix; -1: whatever is best, here and below."),
    DEGREE("cp", cp, "Ranks that share the tokens of each row."),
    DEGREE("pp", pp, "Ranks that share the layers."),
    DEGREE("dp", dp, "Ranks that share the rows of the batch."),
    DEGREE("ep", ep, "Ranks that share the experts."),
    DEGREE("micro_batch", micro_batch, "Rows of a micro-batch."),
    DEGREE("micro_batches", micro_batches, "Micro-batches of a step, on each rank along dp."),
    DEGREE("chunks", virtual_stages, "Pipeline stages on each rank."),
    { "zero", FIELD(INT, zero), "-1", .min = -1, .max = 3,
      .help = "What ranks along dp split: 0 nothing, 1 state, 2 gradients, 3 weights." },
    DEGREE("zero_group", zero_group, "How many neighbours split it; 0: all."),
    { "sp", FIELD(INT, sequence_parallel), "-1", .min = -1, .max = 1,
      .help = "With tp, rows between cut matrices are cut too: 1 yes, 0 no; -1: yes." },
    { "schedule", FIELD(CHOICE, schedule), "any",
      .choices = "any|gpipe|1f1b|interleaved|zb-h1|zb-v", .help = "Order of work in a pipeline." },
    { "recompute", FIELD(CHOICE, recompute), "any", .choices = "any|none|selective|full",
      .help = "What the backward pass computes again." },
    { 0 },
};

struct plan_pick plan_pick_open(void)
{
    return (struct plan_pick){ PICK_ANY, PICK_ANY, PICK_ANY, PICK_ANY, PICK_ANY, PICK_ANY,
                               PICK_ANY, PICK_ANY, PICK_ANY, PICK_ANY, PICK_ANY, 0, 0 };
}

static int check_key(const char *key, const char *where, struct arena *a)
{
    const char *all = "";
    struct nearest nearest = { .typed = key };
    for (const struct option *o = plan_pick_options; o->key; o++) {
        if (strcmp(o->key, key) == 0)
            return OK;
        nearest_offer(&nearest, o->key);
        all = arena_printf(a, "%s%s%s", all, *all ? ", " : "", o->key);
    }
    const char *found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "%s: a layout has no '%s'%s%s%s; there are %s", where, key,
                   found ? " (did you mean '" : "", found ? found : "", found ? "'?)" : "", all);
}

/* Each key once; what counts ranks, rows or stages is at least 1, or left open. */
static int check_given(const struct plan_pick *p, const char *key, const char *value,
                       bool given_before, const char *where)
{
    const struct { const char *name; i64 value; } counts[] = {
        { "tp", p->tp }, { "cp", p->cp }, { "pp", p->pp }, { "dp", p->dp }, { "ep", p->ep },
        { "micro_batch", p->micro_batch }, { "micro_batches", p->micro_batches },
        { "chunks", p->virtual_stages },
    };
    if (given_before)
        return err_set(ERR_USAGE, "%s: %s is given twice, the second time as %s", where, key, value);
    for (i64 i = 0; i < COUNT_OF(counts); i++)
        if (counts[i].value == 0)
            return err_set(ERR_USAGE, "%s: %s=0 is no number of ranks, rows or stages; write 1 or "
                           "more, or leave it out", where, counts[i].name);
    return OK;
}

/* key= stands in the text before `end`, at the beginning of an item. */
static bool is_before(const char *text, const char *end, const char *key)
{
    size_t n = strlen(key);
    for (; text < end; text += strcspn(text, ",") + 1) {
        const char *item = text + strspn(text, " ");
        if (!strncmp(item, key, n) && item[n + strspn(item + n, " ")] == '=')
            return true;
    }
    return false;
}

/* Without spaces at its ends. */
static const char *trimmed(const char *text, const char *end, struct arena *a)
{
    while (text < end && *text == ' ')
        text++;
    while (end > text && end[-1] == ' ')
        end--;
    return arena_strndup(a, text, end - text);
}

int plan_pick_parse(struct plan_pick *out, const char *text, const char *where, struct arena *a)
{
    const char *whole = text;
    *out = plan_pick_open();
    while (*text) {
        i64 length = (i64)strcspn(text, ",");
        const char *equals = memchr(text, '=', (size_t)length);
        if (!equals)
            return err_set(ERR_USAGE, "%s: '%.*s' is not key=value; a layout is written like "
                           "tp=8,pp=4,recompute=none", where, (int)length, text);
        const char *key = trimmed(text, equals, a);
        const char *value = trimmed(equals + 1, text + length, a);
        TRY(check_key(key, where, a));
        TRY(option_parse_one(plan_pick_options, out, key, value, where, a));
        TRY(check_given(out, key, value, is_before(whole, text, key), where));
        text += length + (text[length] == ',');
    }
    return OK;
}

const char *plan_layout_text(const struct plan_layout *l, struct arena *a)
{
    static const char *const recompute[] = { "none", "selective", "full" };
    const struct { const char *name; i64 value, usual; } numbers[] = {
        { "tp", l->tp, 1 }, { "cp", l->cp, 1 }, { "pp", l->pp, 1 }, { "dp", l->dp, 1 },
        { "ep", l->ep, 1 }, { "micro_batch", l->micro_batch, 0 },
        { "chunks", l->virtual_stages, 1 }, { "zero", l->zero, 0 },
        { "zero_group", l->zero_group, 0 }, { "sp", l->sequence_parallel, l->tp > 1 },
    };
    struct text out = { 0 };
    for (i64 i = 0; i < COUNT_OF(numbers); i++)
        if (numbers[i].value != numbers[i].usual)
            text_printf(&out, "%s=%lld,", numbers[i].name, (long long)numbers[i].value);
    if (l->pp > 1)
        text_printf(&out, "schedule=%s,",
                    schedule_kind_name((enum schedule_kind)l->schedule));
    text_printf(&out, "recompute=%s", recompute[l->recompute]);
    const char *copy = arena_strdup(a, out.data);
    text_fini(&out);
    return copy;
}
