#include "parallel/layout.h"

#include "base/err.h"
#include "base/text.h"
#include "parallel/stages.h"

#include <stdio.h>
#include <string.h>

enum { MOST_RANKS = 1 << 20 };

#define FIELD(kind, field) OPTION_FIELD(kind, struct layout, field)

/* The option's words, in the same order. */
const char *const layout_orders[LAYOUT_ORDERS] = { "tp-dp-pp", "tp-pp-dp", "dp-tp-pp", "dp-pp-tp",
                                                   "pp-tp-dp", "pp-dp-tp" };
static const enum layout_axis axes_of[LAYOUT_ORDERS][LAYOUT_AXES] = {
    { AXIS_TP, AXIS_ROWS, AXIS_PP }, { AXIS_TP, AXIS_PP, AXIS_ROWS },
    { AXIS_ROWS, AXIS_TP, AXIS_PP }, { AXIS_ROWS, AXIS_PP, AXIS_TP },
    { AXIS_PP, AXIS_TP, AXIS_ROWS }, { AXIS_PP, AXIS_ROWS, AXIS_TP },
};

const struct option layout_options[] = {
    { "layout.islands", FIELD(INT, islands), "1", .unit = "islands", .min = 1, .max = MOST_RANKS,
      .help = "Groups of ranks that take steps apart, each on its share of the rows, and average "
              "their weights every outer.every steps (DiLoCo). The other degrees are those within "
              "an island." },
    { "layout.pp", FIELD(INT, pp), "1", .unit = "ranks", .min = 1, .max = SCHEDULE_MOST_RANKS,
      .help = "Pipeline parallel: ranks that share the layers; a step's micro-batches pass "
              "through them." },
    { "layout.dp", FIELD(INT, dp), "1", .unit = "ranks", .min = 1, .max = MOST_RANKS,
      .help = "Data parallel: ranks that share the rows of the batch." },
    { "layout.cp", FIELD(INT, cp), "1", .unit = "ranks", .min = 1, .max = MOST_RANKS,
      .help = "Context parallel: ranks that share the tokens of each row." },
    { "layout.cp_kind", FIELD(CHOICE, cp_kind), "ring", .choices = "ring|ulysses",
      .help = "How attention sees all tokens of a row: keys and values go around (ring), or heads "
              "are exchanged for tokens (ulysses)." },
    { "layout.ep", FIELD(INT, ep), "1", .unit = "ranks", .min = 1, .max = MOST_RANKS,
      .help = "Expert parallel: ranks, out of those of dp and cp, that share the experts "
              "of each layer; tokens travel to them." },
    { "layout.tp", FIELD(INT, tp), "1", .unit = "ranks", .min = 1, .max = MOST_RANKS,
      .help = "Tensor parallel, with sequence parallel: ranks that share each matrix." },
    { "layout.zero", FIELD(INT, zero), "0", .max = 3,
      .help = "What data-parallel ranks split besides rows: 0 nothing, 1 the optimizer's "
              "state, 2 gradients too, 3 weights too." },
    { "layout.zero_group", FIELD(INT, zero_group), "0", .unit = "ranks", .max = MOST_RANKS,
      .help = "How many neighbours split what zero splits, such as those of a node; "
              "other groups are copies. 0: all data-parallel ranks." },
    { "layout.bucket", FIELD(SIZE, bucket), "0", .unit = "bytes", .max = 1e15,
      .help = "Sums of gradients over dp go in messages of about this size at most, where nothing "
              "is split; 0: each layer's as one." },
    { "layout.sums", FIELD(CHOICE, sums), "ready", .choices = "ready|end",
      .help = "When gradients are summed over dp: beside the rest of the backward pass, "
              "as soon as a layer's are ready, or all at its end." },
    { "layout.exact", FIELD(BOOL, exact), "false",
      .help = "Sums in an order that no layout changes: pp, dp, ep and tp give the very "
              "bits of one rank that is exact too; cp with exact_context. With islands, "
              "those of as many islands of one rank each." },
    { "layout.exact_context", FIELD(BOOL, exact_context), "false",
      .help = "With exact: sums over the tokens of a row in an order that cp leaves "
              "alone too, which takes longer." },
    { "layout.schedule", FIELD(STRING, schedule), "1f1b",
      .help = "Order of work in a pipeline: gpipe, 1f1b, interleaved, zb-h1, zb-v, or a .csv "
              "file with one line of actions per rank." },
    { "layout.chunks", FIELD(INT, chunks), "0", .unit = "stages", .max = MODEL_CHUNKS,
      .help = "Pipeline stages per rank; 0: as few as the schedule needs (interleaved and zb-v: "
              "2, others: 1)." },
    { "layout.stages", FIELD(STRING, stages), NULL,
      .help = "Layers of each pipeline stage, such as 3+5+4; without it they are shared out "
              "evenly, the head counted." },
    { "layout.order", FIELD(CHOICE, order), "tp-dp-pp",
      .choices = "tp-dp-pp|tp-pp-dp|dp-tp-pp|dp-pp-tp|pp-tp-dp|pp-dp-tp",
      .help = "Which axis has neighbours in rank order, innermost first: the first one's "
              "groups lie within a host, where ranks are placed host by host. cp lies within dp, "
              "islands outside of all." },
    { 0 },
};

struct layout layout_single(void)
{
    return (struct layout){ .islands = 1, .pp = 1, .dp = 1, .cp = 1, .tp = 1, .ep = 1,
                            .schedule = "1f1b" };
}

i64 layout_ranks(const struct layout *l)
{
    const i64 degrees[] = { l->islands, l->pp, l->dp, l->cp, l->tp };
    i64 n = 1;
    for (i64 i = 0; i < COUNT_OF(degrees); i++)
        if (__builtin_mul_overflow(n, degrees[i], &n))
            return INT64_MAX;
    return n;
}

i64 layout_stride(const struct layout *l, enum layout_axis axis)
{
    const i64 degrees[LAYOUT_AXES] = { [AXIS_TP] = l->tp, [AXIS_ROWS] = l->dp * l->cp,
                                       [AXIS_PP] = l->pp };
    const enum layout_axis *axes = axes_of[l->order];
    i64 stride = 1;
    for (int i = 0; i < LAYOUT_AXES && axes[i] != axis; i++)
        stride *= degrees[axes[i]];
    return stride;
}

/* --- text --------------------------------------------------------------------------- */

/* Whether one of the keys before `end` is this one. */
static bool was_set(const char *text, const char *end, const char *key, i64 chars)
{
    for (; text < end; text += strcspn(text, ",") + 1)
        if (strncmp(text, key, (size_t)chars) == 0 && text[chars] == '=')
            return true;
    return false;
}

int layout_parse(struct layout *l, const char *text, const char *where, struct arena *a)
{
    const char *begin = text;
    while (*text) {
        i64 length = (i64)strcspn(text, ",");
        const char *equals = memchr(text, '=', (size_t)length);
        if (equals && was_set(begin, text, text, equals - text))
            return err_set(ERR_USAGE, "%s: %.*s is there twice; leave one out", where,
                           (int)(equals - text), text);
        if (!equals)
            return err_set(ERR_USAGE, "%s: '%.*s' is not key=value; a layout is written like "
                           "dp=2,zero=1", where, (int)length, text);
        const char *key = arena_printf(a, "layout.%.*s", (int)(equals - text), text);
        const char *value = arena_strndup(a, equals + 1, text + length - equals - 1);
        TRY(option_parse_one(layout_options, l, key, value, where, a));
        text += length + (text[length] == ',');
    }
    return OK;
}

const char *layout_text(const struct layout *l, struct arena *a)
{
    struct text out = { 0 };
    const struct layout single = layout_single();
    for (const struct option *o = layout_options; o->key; o++) {
        struct text was = { 0 }, is = { 0 };
        option_format(o, &single, &was);
        option_format(o, l, &is);
        if (strcmp(was.data, is.data) != 0)
            text_printf(&out, "%s%s=%s", out.length ? "," : "", strchr(o->key, '.') + 1,
                        is.data);
        text_fini(&was);
        text_fini(&is);
    }
    const char *copy = arena_strdup(a, out.length ? out.data : "single");
    text_fini(&out);
    return copy;
}

/* --- rows and tokens ---------------------------------------------------------------- */

static i64 common_divisor(i64 a, i64 b)
{
    while (b) {
        i64 rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Whole micro-batches are shared out as far as they go, since larger ones are faster. */
struct layout_rows layout_rows(const struct layout *l, i64 B, int micro_batches, i64 row_rank)
{
    i64 sharers = l->islands * l->dp, shared = common_divisor(micro_batches, sharers);
    struct layout_rows r = { .B = B / (sharers / shared),
                             .micro_batches = (int)(micro_batches / shared) };
    if (l->exact_context && l->cp > 1) { /* cp completes the sums over each row */
        r.micro_batches *= (int)r.B;
        r.B = 1;
    }
    layout_place_rows(l, &r, row_rank);
    return r;
}

void layout_place_rows(const struct layout *l, struct layout_rows *rows, i64 row_rank)
{
    i64 turns = layout_turn_takers(l);
    rows->stride = rows->B * turns;
    rows->first = row_rank / turns * rows->stride * rows->micro_batches +
                  row_rank % turns * rows->B;
}

i64 layout_sharers(const struct layout *l)
{
    return l->exact_context ? l->dp : l->dp * l->cp;
}

i64 layout_split_ranks(const struct layout *l)
{
    return l->zero_group > 0 ? l->zero_group : layout_sharers(l);
}

i64 layout_expert_rows(const struct layout *l)
{
    return l->exact_context ? i64_max(1, l->ep / l->cp) : l->ep;
}

i64 layout_expert_twins(const struct layout *l)
{
    return l->exact_context && l->ep > 1 ? i64_max(1, l->cp / l->ep) : 1;
}

i64 layout_turn_takers(const struct layout *l)
{
    if (!l->exact)
        return 1;
    return l->zero > ZERO_OPTIMIZER ? layout_split_ranks(l) : layout_expert_rows(l);
}

i64 layout_pairs(const struct layout *l)
{
    return l->exact_context ? EXACT_PAIRS / l->cp : 1;
}

/* --- checks ------------------------------------------------------------------------- */

/* "islands=2,pp=2,dp=2,tp=1", as far as it decides how many ranks there are. */
static void put_degrees(const struct layout *l, char *out, size_t chars)
{
    const struct { const char *name; i64 degree; bool always; } axes[] = {
        { "islands", l->islands, false }, { "pp", l->pp, false }, { "dp", l->dp, true },
        { "cp", l->cp, false }, { "tp", l->tp, true },
    };
    int n = 0;
    for (i64 i = 0; i < COUNT_OF(axes); i++)
        if (axes[i].always || axes[i].degree > 1)
            n += snprintf(out + n, chars - (size_t)n, "%s%s=%lld", n ? "," : "", axes[i].name,
                          (long long)axes[i].degree);
}

bool layout_rows_fit(i64 islands, i64 dp, i64 B, int micro_batches)
{
    i64 sharers = islands * dp;
    return B % (sharers / common_divisor(micro_batches, sharers)) == 0;
}

static int check_rows(const struct layout *l, i64 B, int micro_batches)
{
    if (layout_rows_fit(l->islands, l->dp, B, micro_batches))
        return OK;
    if (!layout_rows_fit(l->islands, 1, B, micro_batches))
        return err_set(ERR_CONFIG, "islands=%lld cannot share out the %d micro-batches "
                       "of %lld rows of a step equally; choose another train.batch or "
                       "train.accumulate",
                       (long long)l->islands, micro_batches, (long long)B);
    i64 lower = l->dp, upper = l->dp;
    while (!layout_rows_fit(l->islands, lower, B, micro_batches))
        lower--;
    while (upper < B * micro_batches && !layout_rows_fit(l->islands, upper, B, micro_batches))
        upper++;
    if (!layout_rows_fit(l->islands, upper, B, micro_batches))
        return err_set(ERR_CONFIG, "dp=%lld cannot share out the %d micro-batches of %lld rows of "
                       "a step; dp=%lld can, or choose a larger train.batch", (long long)l->dp,
                       micro_batches, (long long)B, (long long)lower);
    return err_set(ERR_CONFIG, "dp=%lld cannot share out the %d micro-batches of %lld rows of a "
                   "step; dp=%lld or dp=%lld can, or choose another train.batch",
                   (long long)l->dp, micro_batches, (long long)B, (long long)lower,
                   (long long)upper);
}

static bool power_of_two(i64 n)
{
    return n > 0 && (n & (n - 1)) == 0;
}

/* --- degrees ------------------------------------------------------------------------ */

/* Rows are cut into 2 cp chunks, and each rank's tokens are cut again by tp. */
static bool tokens_fit(i64 T, i64 cp, i64 tp)
{
    return cp == 1 || (T % (2 * cp) == 0 && T / cp % tp == 0);
}

/* With ulysses each rank has an n-th of the heads that tp leaves. */
static bool heads_spread(const struct layout *l, i64 n)
{
    return l->cp_kind != CP_ULYSSES || l->cp == 1 || n % (l->cp * l->tp) == 0;
}

/* Each rank has key-value heads, or an equal part of the columns of one (share_heads). */
static bool kv_heads_fit(const struct model_spec *s, i64 tp)
{
    bool shared = tp % s->kv_heads == 0 && s->head_size % (tp / s->kv_heads) == 0;
    return s->kv_heads % tp == 0 || shared;
}

static bool can_be_exact(const struct layout *l, i64 degree)
{
    return !l->exact || (power_of_two(degree) && degree <= 8);
}

/* Some matrices of latents see a cut of the rows along tp, whose sums are no trees. */
static bool latents_fit(const struct layout *l, const struct model_spec *s)
{
    return !spec_is_latent(s) || l->tp == 1 || !l->exact;
}

/* What the degrees of tp and cp must go with. */
static bool cuts_fit(const struct layout *l, const struct model_spec *s, i64 T)
{
    bool experts = s->experts == 0 ||
                   (s->expert_hidden % l->tp == 0 && s->shared_hidden % l->tp == 0);
    return latents_fit(l, s) && s->heads % l->tp == 0 && kv_heads_fit(s, l->tp) &&
           s->hidden % l->tp == 0 && experts && T % l->tp == 0 &&
           tokens_fit(T, l->cp, l->tp) && heads_spread(l, s->heads) &&
           heads_spread(l, s->kv_heads) && can_be_exact(l, l->tp) && can_be_exact(l, l->cp);
}

enum { NEAREST_CHARS = 64 };

/* "tp=4 and tp=6 do": the nearest degrees of that axis, tp or cp, that fit with all the rest. */
static const char *nearest_cuts(const struct layout *l, const struct model_spec *s, i64 T, bool tp,
                                char out[NEAREST_CHARS])
{
    struct layout other = *l;
    i64 *degree = tp ? &other.tp : &other.cp, least = *degree, most = *degree;
    const i64 end = tp ? s->heads : T;
    const char *axis = tp ? "tp" : "cp";
    while (least > 1 && (*degree = --least, !cuts_fit(&other, s, T)))
        ;
    *degree = least;
    bool below = least < (tp ? l->tp : l->cp) && cuts_fit(&other, s, T);
    while (most < end && (*degree = ++most, !cuts_fit(&other, s, T)))
        ;
    *degree = most;
    bool above = most > (tp ? l->tp : l->cp) && cuts_fit(&other, s, T);
    if (below && above)
        snprintf(out, NEAREST_CHARS, "%s=%lld and %s=%lld do", axis, (long long)least, axis,
                 (long long)most);
    else if (below || above)
        snprintf(out, NEAREST_CHARS, "%s=%lld does", axis, (long long)(below ? least : most));
    else
        snprintf(out, NEAREST_CHARS, "no %s does", axis);
    return out;
}

static int check_tokens(const struct layout *l, const struct model_spec *s, i64 T)
{
    char near[NEAREST_CHARS];
    i64 longer = T;
    if (tokens_fit(T, l->cp, l->tp))
        return OK;
    while (!tokens_fit(longer, l->cp, l->tp))
        longer++;
    return err_set(ERR_CONFIG, "cp=%lld does not cut rows of %lld tokens into %lld chunks%s; "
                   "%s, or choose train.seq %lld", (long long)l->cp, (long long)T,
                   (long long)(2 * l->cp), l->tp > 1 ? " that tp cuts again" : "",
                   nearest_cuts(l, s, T, false, near), (long long)longer);
}

static int check_spread(const struct layout *l, const struct model_spec *s, i64 T, const char *what,
                        i64 n)
{
    char near[NEAREST_CHARS];
    if (heads_spread(l, n))
        return OK;
    return err_set(ERR_CONFIG, "cp=%lld with tp=%lld does not divide the model's %lld %s, as "
                   "ulysses must; %s, or choose cp_kind=ring", (long long)l->cp,
                   (long long)l->tp, (long long)n, what, nearest_cuts(l, s, T, false, near));
}

static int check_divides(const struct layout *l, const struct model_spec *s, i64 T,
                         const char *what, i64 n)
{
    char near[NEAREST_CHARS];
    if (n % l->tp == 0)
        return OK;
    return err_set(ERR_CONFIG, "tp=%lld does not divide the model's %lld %s; %s", (long long)l->tp,
                   (long long)n, what, nearest_cuts(l, s, T, true, near));
}

static int check_latents(const struct layout *l, const struct model_spec *s)
{
    if (latents_fit(l, s))
        return OK;
    return err_set(ERR_CONFIG, "tp=%lld cannot be exact: %s has latent attention, some of whose "
                   "matrices sum over a cut of the rows; use tp=1, or leave layout.exact off",
                   (long long)l->tp, s->name);
}

static int check_heads(const struct layout *l, const struct model_spec *s, i64 T)
{
    char near[NEAREST_CHARS];
    TRY(check_divides(l, s, T, "attention heads", s->heads));
    if (kv_heads_fit(s, l->tp))
        return OK;
    return err_set(ERR_CONFIG, "tp=%lld neither divides the model's %lld key-value heads "
                   "nor cuts each of them, of %lld columns, into equal parts; %s",
                   (long long)l->tp, (long long)s->kv_heads, (long long)s->head_size,
                   nearest_cuts(l, s, T, true, near));
}

/* --- exact mode and experts --------------------------------------------------------- */

/* What sums over tokens in pairs of chunks need besides. */
static int check_exact_context(const struct layout *l, i64 B, i64 T, int micro_batches)
{
    const i64 rows = B * micro_batches, cut = i64_max(2 * EXACT_PAIRS, l->cp * l->tp);
    i64 lower = rows;
    if (l->exact_context && !l->exact)
        return err_set(ERR_CONFIG, "layout.exact_context says how layout.exact sums over "
                       "tokens; set exact=true too");
    if (l->exact && l->cp > 1 && !l->exact_context)
        return err_set(ERR_CONFIG, "cp=%lld is exact only where sums over tokens have an order for "
                       "it; set exact_context=true too, also for the one rank to compare with",
                       (long long)l->cp);
    while (!power_of_two(lower))
        lower--;
    if (l->exact_context && lower != rows)
        return err_set(ERR_CONFIG, "%lld rows a step cannot be exact: with "
                       "layout.exact_context choose a power of two, such as train.batch "
                       "%lld with 1 micro-batch", (long long)rows, (long long)lower);
    if (l->exact_context && T % cut)
        return err_set(ERR_CONFIG, "rows of %lld tokens cannot be cut into %lld leaves as "
                       "layout.exact_context must; train.seq %lld can", (long long)T,
                       (long long)cut, (long long)round_up(T, cut));
    return OK;
}

/* What sums in a tree cannot share. */
static int check_exact(const struct layout *l, int micro_batches)
{
    const struct { const char *name; i64 degree; } axes[] = {
        { "dp", l->dp }, { "cp", l->cp }, { "tp", l->tp }, { "ep", l->ep },
    };
    if (l->exact && l->zero_group > 0 && !power_of_two(l->zero_group))
        return err_set(ERR_CONFIG, "zero_group=%lld cannot be exact: with layout.exact "
                       "it is 1, 2, 4 or 8 ranks", (long long)l->zero_group);
    for (i64 i = 0; l->exact && i < COUNT_OF(axes); i++)
        if (!power_of_two(axes[i].degree) || axes[i].degree > 8)
            return err_set(ERR_CONFIG, "%s=%lld cannot be exact: with layout.exact each axis has "
                           "1, 2, 4 or 8 ranks", axes[i].name, (long long)axes[i].degree);
    if (l->exact && !power_of_two(micro_batches))
        return err_set(ERR_CONFIG, "%d micro-batches a step cannot be exact: with layout.exact "
                       "choose a power of two, here or in the ramp", micro_batches);
    return OK;
}

static bool experts_fit(const struct layout *l, const struct model_spec *s, i64 ep)
{
    return l->dp * l->cp % ep == 0 && s->experts % ep == 0;
}

/* Experts over ranks that share the batch. */
static int check_expert_parallel(const struct layout *l, const struct model_spec *s)
{
    const i64 most = i64_min(l->dp * l->cp, s->experts);
    i64 lower = l->ep, upper = l->ep;
    char above[32] = "";
    if (l->ep == 1)
        return OK;
    if (s->experts == 0)
        return err_set(ERR_CONFIG, "ep=%lld has nothing to share out: %s has no experts; use ep=1",
                       (long long)l->ep, s->name);
    while (!experts_fit(l, s, lower))
        lower--;
    if (lower == l->ep)
        return OK;
    while (upper < most && !experts_fit(l, s, upper))
        upper++;
    if (upper <= most && experts_fit(l, s, upper))
        snprintf(above, sizeof above, " and ep=%lld do", (long long)upper);
    return err_set(ERR_CONFIG, "ep=%lld must divide the %lld ranks that share the batch and "
                   "the model's %lld experts; ep=%lld%s", (long long)l->ep,
                   (long long)(l->dp * l->cp), (long long)s->experts, (long long)lower,
                   *above ? above : " does");
}

/* A group has all experts as often as any other, so that copies of a slice are copies of
 * experts. */
static int check_expert_group(const struct layout *l)
{
    i64 all = layout_sharers(l), each = layout_expert_rows(l), more = round_up(l->zero_group, each);
    if (l->zero_group % each == 0)
        return OK;
    while (all % more)
        more += each;
    return err_set(ERR_CONFIG, "zero_group=%lld has not all experts equally often: they "
                   "are on groups of ep=%lld ranks%s; zero_group=%lld works",
                   (long long)l->zero_group, (long long)l->ep,
                   each < l->ep ? ", of dp and cp" : "", (long long)more);
}

/* Groups of neighbours that split what zero splits. */
static int check_group(const struct layout *l)
{
    bool cp = l->cp > 1 && !l->exact_context;
    i64 all = layout_sharers(l), lower = l->zero_group, upper = l->zero_group;
    if (l->zero_group == 0)
        return OK;
    if (l->zero == ZERO_NONE)
        return err_set(ERR_CONFIG, "zero_group=%lld has nothing to split; choose zero=1, "
                       "2 or 3, or leave it out", (long long)l->zero_group);
    while (lower > 1 && (lower > all || all % lower))
        lower--;
    while (upper < all && all % upper)
        upper++;
    if (lower == l->zero_group)
        return OK;
    if (upper <= all && upper > lower)
        return err_set(ERR_CONFIG, "zero_group=%lld does not divide the %lld ranks of "
                       "dp%s; %lld and %lld do", (long long)l->zero_group, (long long)all,
                       cp ? " and cp" : "", (long long)lower, (long long)upper);
    return err_set(ERR_CONFIG, "zero_group=%lld is more than the %lld ranks of dp%s; %lld fits",
                   (long long)l->zero_group, (long long)all, cp ? " and cp" : "",
                   (long long)lower);
}

/* Everything but the number of ranks. */
static int check_shape(const struct layout *l, const struct model_spec *s, i64 B, i64 T,
                       int micro_batches)
{
    TRY(check_rows(l, B, micro_batches));
    TRY(check_exact(l, micro_batches));
    TRY(check_exact_context(l, B, T, micro_batches));
    TRY(check_expert_parallel(l, s));
    TRY(check_group(l));
    TRY(check_expert_group(l));
    TRY(check_latents(l, s));
    TRY(check_heads(l, s, T));
    TRY(check_divides(l, s, T, "hidden units", s->hidden));
    if (s->experts > 0)
        TRY(check_divides(l, s, T, "hidden units of an expert", s->expert_hidden));
    if (s->experts > 0)
        TRY(check_divides(l, s, T, "hidden units of what experts share", s->shared_hidden));
    TRY(check_spread(l, s, T, "attention heads", s->heads));
    TRY(check_spread(l, s, T, "key-value heads", s->kv_heads));
    TRY(check_tokens(l, s, T));
    TRY(stages_check(l, s, layout_rows(l, B, micro_batches, 0).micro_batches));
    return check_divides(l, s, T, "tokens per row", T);
}

/* The same with these degrees, and as much of the rest as goes with them. */
static struct layout with_degrees(const struct layout *l, i64 ranks, i64 pp, i64 cp, i64 tp)
{
    struct layout other = *l;
    other.pp = pp;
    other.cp = cp;
    other.tp = tp;
    other.dp = ranks / (l->islands * pp * cp * tp);
    if (pp != l->pp) {
        other.stages = NULL;
        other.chunks = 0;
    }
    stages_leave_out(&other);
    if (cp == 1)
        other.cp_kind = layout_single().cp_kind;
    return other;
}

enum { MOST_NEAREST = 3 };

/* Layouts of so many ranks that differ little, the nearest first; no degree but dp grows. */
static int find_nearest(const struct layout *l, const struct model_spec *s, i64 ranks, i64 B, i64 T,
                        int micro_batches, struct layout out[MOST_NEAREST])
{
    int n = 0;
    for (i64 pp = i64_min(l->pp, ranks); pp >= 1; pp--)
        for (i64 tp = i64_min(l->tp, ranks); tp >= 1; tp--)
            for (i64 cp = i64_min(l->cp, ranks); cp >= 1 && n < MOST_NEAREST; cp--) {
                if (ranks % (l->islands * pp * cp * tp))
                    continue;
                out[n] = with_degrees(l, ranks, pp, cp, tp);
                n += check_shape(&out[n], s, B, T, micro_batches) == OK;
            }
    return n;
}

/* "pp=2,dp=4 or dp=8": each can be given as it is written, and names a degree. */
static const char *nearest_text(const struct layout *nearest, int n, struct arena *a)
{
    const struct layout single = layout_single();
    const char *none = layout_text(&single, a), *out = "";
    for (int i = 0; i < n; i++) {
        const char *one = layout_text(&nearest[i], a);
        if (layout_ranks(&nearest[i]) == 1 && strcmp(one, none) != 0)
            one = arena_printf(a, "dp=1,%s", one);
        const char *between = i == 0 ? "" : i < n - 1 ? ", " : " or ";
        out = arena_printf(a, "%s%s%s", out, between, strcmp(one, none) == 0 ? "dp=1" : one);
    }
    return out;
}

static int refuse_ranks(const struct layout *l, const struct model_spec *s, i64 ranks, i64 B, i64 T,
                        int micro_batches)
{
    char degrees[128];
    const char *were = ranks == 1 ? "was" : "were";
    const char *plural = layout_ranks(l) == 1 ? "" : "s";
    struct layout nearest[MOST_NEAREST];
    struct arena a;
    put_degrees(l, degrees, sizeof degrees);
    int n = find_nearest(l, s, ranks, B, T, micro_batches, nearest);
    if (n == 0)
        return err_set(ERR_CONFIG, "the layout %s needs %lld rank%s, but %lld %s started; "
                       "start %lld, or change its degrees", degrees, (long long)layout_ranks(l),
                       plural, (long long)ranks, were, (long long)layout_ranks(l));
    arena_init(&a);
    int rc = err_set(ERR_CONFIG, "the layout %s needs %lld rank%s, but %lld %s started; "
                     "%s would fit", degrees, (long long)layout_ranks(l), plural,
                     (long long)ranks, were, nearest_text(nearest, n, &a));
    arena_fini(&a);
    return rc;
}

int layout_check(const struct layout *l, const struct model_spec *s, i64 ranks, i64 B, i64 T,
                 int micro_batches)
{
    TRY(check_shape(l, s, B, T, micro_batches)); /* or so many ranks would be started in vain */
    return layout_ranks(l) == ranks ? OK : refuse_ranks(l, s, ranks, B, T, micro_batches);
}
