#include "tune/knob.h"

#include "backend/backend.h"
#include "base/text.h"
#include "train/schedule.h"
#include "train/train_layout.h"

#include <string.h>

/* NULL where the list is full. */
static struct tune_change *new_change(struct change_list *out, const char *knob)
{
    if (out->n == CHANGES_MOST)
        return NULL;
    out->at[out->n] = (struct tune_change){ .knob = knob };
    return &out->at[out->n++];
}

static struct tune_change *change_one(struct change_list *out, const char *knob, const char *key,
                                      const char *before, const char *after)
{
    struct tune_change *c = new_change(out, knob);
    if (!c)
        return NULL;
    c->label = arena_printf(out->arena, "%s %s -> %s", key, before, after);
    c->sets[c->n_sets++] = arena_printf(out->arena, "%s=%s", key, after);
    return c;
}

static const char *number(struct change_list *out, i64 n)
{
    return arena_printf(out->arena, "%lld", (long long)n);
}

/* --- the knobs ----------------------------------------------------------------------- */

static i64 own_cores(const struct knob_view *v)
{
    return i64_max(1, v->cores / i64_max(1, v->node_ranks));
}

static void propose_threads(const struct knob_view *v, struct change_list *out)
{
    const i64 now = v->recipe->config.train.threads, cores = own_cores(v);
    const i64 used = now > 0 ? now : cores;
    const i64 tries[] = { cores, cores - 1, cores / 2 };
    for (i64 i = 0; i < COUNT_OF(tries); i++) {
        bool again = tries[i] < 1 || tries[i] == used;
        for (i64 k = 0; k < i; k++)
            again = again || tries[k] == tries[i];
        if (!again)
            change_one(out, "threads", "train.threads", number(out, used),
                       number(out, tries[i]));
    }
}

/* Another cut of the step's rows into micro-batches. */
static void cut_rows(const struct knob_view *v, struct change_list *out, i64 batch)
{
    const struct train_config *c = &v->recipe->config;
    const i64 rows = c->train.batch * schedule_full_micro_batches(c);
    const i64 sharers = i64_max(1, v->recipe->layout.dp * v->recipe->layout.islands);
    if (batch < 1 || rows % batch || batch == c->train.batch || (batch * (rows / batch)) % sharers)
        return;
    struct tune_change *x = new_change(out, "micro-batch");
    if (!x)
        return;
    x->label = arena_printf(out->arena, "train.batch %lld -> %lld (%lld micro-batches)",
                            (long long)c->train.batch, (long long)batch,
                            (long long)(rows / batch));
    x->sets[x->n_sets++] = arena_printf(out->arena, "train.batch=%lld", (long long)batch);
    if (c->train.global_batch == 0)
        x->sets[x->n_sets++] = arena_printf(out->arena, "train.accumulate=%lld",
                                            (long long)(rows / batch));
}

static void propose_micro_batch(const struct knob_view *v, struct change_list *out)
{
    const struct train_config *c = &v->recipe->config;
    const i64 batch = c->train.batch, all = batch * schedule_full_micro_batches(c);
    const i64 tries[] = { 2 * batch, 4 * batch, 8 * batch, all > 8 * batch ? all : 0, batch / 2,
                          batch / 4 };
    if (v->recipe->config.ramp.batch_from > 0)
        return; /* it counts micro-batches */
    for (i64 i = 0; i < COUNT_OF(tries); i++)
        cut_rows(v, out, tries[i]);
}

static void propose_recompute(const struct knob_view *v, struct change_list *out)
{
    static const char *const names[] = { "none", "selective", "full" };
    const int now = v->recipe->config.train.recompute;
    for (int i = 0; i < (int)COUNT_OF(names); i++)
        if (i != now)
            change_one(out, "recompute", "train.recompute", names[now], names[i]);
}

static void propose_precision(const struct knob_view *v, struct change_list *out)
{
    static const char *const names[] = { "fp32", "bf16" };
    const int now = v->recipe->config.train.precision;
    struct tune_change *c = change_one(out, "precision", "train.precision", names[now],
                                       names[!now]);
    if (c)
        c->numbers = true;
}

static void propose_kernels(const struct knob_view *v, struct change_list *out)
{
    static const char *const names[] = { "amx", "avx512bf16", "avx512", "avx2" };
    const char *now = v->backend && strcmp(v->backend, "auto") != 0 ? v->backend : backend_best();
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        if (strcmp(now, names[i]) == 0 || !backend_supported(names[i]))
            continue;
        struct tune_change *c = new_change(out, "kernels");
        if (!c)
            return;
        c->label = arena_printf(out->arena, "--backend %s -> %s", now, names[i]);
        c->backend = names[i];
    }
}

static void propose_prefetch(const struct knob_view *v, struct change_list *out)
{
    const i64 now = v->recipe->config.data.prefetch, threads = v->recipe->config.data.threads;
    if (now <= 256)
        change_one(out, "prefetch", "data.prefetch", number(out, now), number(out, 4 * now));
    if (threads < own_cores(v))
        change_one(out, "prefetch", "data.threads", number(out, threads), number(out, threads + 1));
}

static const char *kib(struct change_list *out, i64 bytes)
{
    return arena_printf(out->arena, "%lldKiB", (long long)i64_max(1, bytes / 1024));
}

/* Sums of gradients over dp: in messages of what size, where nothing is split, and when. */
static void propose_bucket(const struct knob_view *v, struct change_list *out)
{
    const struct layout *l = &v->recipe->layout;
    const i64 now = l->bucket;
    if (l->dp * l->cp < 2)
        return;
    if (l->sums == SUMS_END)
        change_one(out, "bucket", "layout.sums", "end", "ready");
    if (l->zero > ZERO_NONE)
        return;
    if (now > 0)
        change_one(out, "bucket", "layout.bucket", kib(out, now), "0");
    change_one(out, "bucket", "layout.bucket", now > 0 ? kib(out, now) : "0",
               now > 0 ? kib(out, 8 * now) : "4096KiB");
    if (now == 0 || now >= 64 * 1024)
        change_one(out, "bucket", "layout.bucket", now > 0 ? kib(out, now) : "0",
                   now > 0 ? kib(out, now / 8) : "512KiB");
}

static void propose_offload(const struct knob_view *v, struct change_list *out)
{
    if (v->recipe->config.offload.optimizer)
        change_one(out, "offload", "offload.optimizer", "yes", "no");
    if (v->recipe->config.offload.activations)
        change_one(out, "offload", "offload.activations", "yes", "no");
}

/* pp x dp x tp with this zero, the rest as it is. */
static void try_layout(const struct knob_view *v, struct change_list *out, i64 pp, i64 tp, i64 zero)
{
    const struct train_recipe *r = v->recipe;
    struct layout l = r->layout;
    l.pp = pp;
    l.tp = tp;
    l.dp = v->ranks / (pp * tp * l.cp * l.islands);
    l.zero = zero;
    stages_leave_out(&l);
    const bool same = l.pp == r->layout.pp && l.tp == r->layout.tp && l.zero == r->layout.zero;
    const bool given = r->layout.stages && l.pp == 1; /* a change cannot take them out */
    if (same || given || (zero > ZERO_NONE && l.dp * l.cp == 1) ||
        train_layout_check(&l, &r->spec, &r->config, v->ranks) < 0)
        return;
    struct tune_change *c = new_change(out, "layout");
    if (!c)
        return;
    c->label = arena_printf(out->arena, "layout %s -> %s", layout_text(&r->layout, out->arena),
                            layout_text(&l, out->arena));
    c->sets[c->n_sets++] = arena_printf(out->arena, "layout.pp=%lld", (long long)l.pp);
    c->sets[c->n_sets++] = arena_printf(out->arena, "layout.dp=%lld", (long long)l.dp);
    c->sets[c->n_sets++] = arena_printf(out->arena, "layout.tp=%lld", (long long)l.tp);
    c->sets[c->n_sets++] = arena_printf(out->arena, "layout.zero=%lld", (long long)l.zero);
    if (l.pp == 1 && r->layout.pp > 1) {
        c->sets[c->n_sets++] = arena_printf(out->arena, "layout.schedule=%s", l.schedule);
        c->sets[c->n_sets++] = "layout.chunks=0";
    }
}

static void propose_layout(const struct knob_view *v, struct change_list *out)
{
    const i64 fixed = v->recipe->layout.cp * v->recipe->layout.islands;
    for (i64 pp = 1; pp <= v->ranks; pp++)
        for (i64 tp = 1; pp * tp * fixed <= v->ranks; tp++)
            for (i64 zero = ZERO_NONE; zero <= ZERO_WEIGHTS; zero++)
                if (v->ranks % (pp * tp * fixed) == 0)
                    try_layout(v, out, pp, tp, zero);
}

static void propose_schedule(const struct knob_view *v, struct change_list *out)
{
    static const char *const names[] = { "1f1b", "interleaved", "zb-h1", "zb-v" };
    const struct train_recipe *r = v->recipe;
    for (i64 i = 0; r->layout.pp > 1 && i < COUNT_OF(names); i++) {
        struct layout l = r->layout;
        l.schedule = names[i];
        l.chunks = 0;
        if (strcmp(names[i], r->layout.schedule) == 0 || l.stages ||
            train_layout_check(&l, &r->spec, &r->config, v->ranks) < 0)
            continue;
        struct tune_change *c = change_one(out, "schedule", "layout.schedule",
                                           r->layout.schedule, names[i]);
        if (c)
            c->sets[c->n_sets++] = "layout.chunks=0";
    }
}

const struct knob knobs[] = {
    { "threads", "Threads of a rank.", "K1 K2 H8 C9", "train.threads", propose_threads },
    { "micro-batch", "Rows that are computed at once; the step's stay.", "K7 H5 B5 B6 R3 C10", NULL,
      propose_micro_batch },
    { "recompute", "What is computed again instead of kept.", "K10 H7", "train.recompute",
      propose_recompute },
    { "precision", "fp32 or bf16.", "K8", NULL, propose_precision },
    { "kernels", "The instruction set.", "K8", NULL, propose_kernels },
    { "prefetch", "Batches that are read ahead, and threads that read them.", "D1 D2 D4",
      "data.prefetch data.threads", propose_prefetch },
    { "offload", "State in slower memory.", "H7 H10", NULL, propose_offload },
    { "bucket", "Messages in which gradients are summed, and when.", "C1 C2 C3",
      "layout.bucket layout.sums", propose_bucket },
    { "layout", "How a step is spread over ranks.", "C1 C4 C5 C10 B4 B5 K14", NULL,
      propose_layout },
    { "schedule", "Order of work in a pipeline.", "B5", NULL, propose_schedule },
    { 0 },
};

static bool is_in(const char *list, const char *word, size_t n)
{
    for (const char *at = list; at && (at = strstr(at, word)) != NULL; at++)
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return false;
}

void knob_propose_set(const struct knob *k, const struct knob_view *v, const char *set,
                      struct change_list *out)
{
    const char *equals = strchr(set, '=');
    void *target;
    if (!equals)
        return;
    const char *key = arena_strndup(out->arena, set, equals - set);
    if (!is_in(k->keys, key, strlen(key)))
        return;
    const struct option *o = recipe_find(&v->recipe->recipe, key, &target);
    struct text now = { 0 };
    if (o)
        option_format(o, target, &now);
    if (now.length > 0 && strcmp(now.data, equals + 1) != 0)
        change_one(out, k->name, key, arena_strdup(out->arena, now.data), equals + 1);
    text_fini(&now);
}

bool knob_heeds(const struct knob *k, const char *finding)
{
    return is_in(k->speaks, finding, strlen(finding));
}
