#include "train/train_layout.h"

#include "train/schedule.h"

/* Share of a data-parallel exchange that is not hidden behind the backward pass. */
static const double exposed_data = 0.3;
/* Rows from which on cp is thought of, and tokens that a rank has of them at least. */
enum { LONG_ROWS = 4096, LEAST_TOKENS = 1024 };
/* A vocabulary that the tokenizer will settle: its size hardly moves the choice. */
enum { USUAL_VOCAB = 32768 };

/* A processor core's work, and messages within a machine. */
struct layout_budget layout_budget_usual(i64 ranks, i64 memory_bytes)
{
    return (struct layout_budget){ .ranks = ranks, .memory_bytes = memory_bytes,
                                   .flops_per_s = 5e10, .bytes_per_s = 2e9 };
}

struct candidate {
    struct layout layout;
    double seconds, work, messages, idle; /* of a step; idle in a pipeline */
    i64 bytes; /* of the hungriest rank */
};

struct search {
    const struct layout *base;
    const struct model_spec *spec;
    const struct train_config *config;
    const struct layout_budget *budget;
    struct candidate best, second;
    i64 legal, fitting;
    i64 least_bytes; /* of what did not fit */
};

int train_layout_check(const struct layout *l, const struct model_spec *s,
                       const struct train_config *c, i64 ranks)
{
    i64 ramps = i64_max(c->ramp.batch_steps, c->ramp.seq_steps);
    for (i64 step = 0; step <= ramps; step++)
        TRY(layout_check(l, s, ranks, c->train.batch, schedule_seq(c, step),
                         (int)schedule_micro_batches(c, step)));
    if (l->islands > 1 && c->outer.every == 0)
        return err_set(ERR_CONFIG, "islands=%lld would never meet: say after how many "
                       "steps, such as --set outer.every=100, or use dp=%lld",
                       (long long)l->islands, (long long)(l->islands * l->dp));
    if (c->log.health > 0 && l->islands > 1)
        return err_set(ERR_CONFIG, "log.health measures one model, and islands have one each: set "
                       "log.health to 0, or islands=1 and dp=%lld",
                       (long long)(l->islands * l->dp));
    if (l->pp > 1 && c->offload.activations)
        return err_set(ERR_CONFIG, "offload.activations needs micro-batches that follow "
                       "each other, and pp=%lld has several under way: set one of them "
                       "back (offload.optimizer works with pp)", (long long)l->pp);
    return OK;
}

static double work_of(const struct rank_view *v)
{
    double flops = 0;
    for (int i = 0; i < MODEL_CHUNKS; i++)
        flops += v->flops[i].F + v->flops[i].I + v->flops[i].W;
    return flops * v->step.shape.micro_batches;
}

static bool is_data(int lane)
{
    return lane == LANE_DP || lane == LANE_SHARD || lane == LANE_COPIES || lane == LANE_EDP;
}

static void add_view(struct candidate *k, const struct rank_view *v, const struct layout_budget *b)
{
    double sent = 0;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        sent += v->message_bytes[lane] * (is_data(lane) ? exposed_data : 1);
    double work = work_of(v) / b->flops_per_s, messages = sent / b->bytes_per_s;
    k->work = work > k->work ? work : k->work;
    k->messages = messages > k->messages ? messages : k->messages;
    k->bytes = i64_max(k->bytes, v->model_bytes + v->activation_bytes);
}

/* Idle share of the pipeline's busiest rank. */
static int add_idle(struct candidate *k, const struct rank_view **views, struct arena *a)
{
    struct schedule order;
    struct schedule_time time;
    double busy = 0;
    TRY(rank_view_schedule(views, views[0]->step.shape.micro_batches, &order, &time, a));
    for (i64 i = 0; i < k->layout.pp; i++)
        busy = work_of(views[i]) > busy ? work_of(views[i]) : busy;
    k->idle = busy > 0 ? k->work * (time.length / busy - 1) : 0;
    return OK;
}

static int price(const struct search *x, struct candidate *k)
{
    const struct layout *l = &k->layout;
    struct arena a;
    int rc = OK;
    arena_init(&a);
    const struct rank_view **views = ARENA_ARRAY(&a, const struct rank_view *, l->pp);
    for (i64 i = 0; i < l->pp && rc >= 0; i++) {
        struct rank_view *v = ARENA_NEW(&a, struct rank_view);
        rc = rank_view_new(v, l, x->spec, x->config, i * layout_stride(l, AXIS_PP), &a);
        views[i] = v;
        if (rc >= 0)
            add_view(k, v, x->budget);
    }
    if (rc >= 0 && l->pp > 1)
        rc = add_idle(k, views, &a);
    k->seconds = k->work + k->messages + k->idle;
    arena_fini(&a);
    return rc;
}

static int try_layout(struct search *x, const struct layout *l)
{
    const i64 zero = l->zero;
    struct candidate k = { .layout = *l };
    k.layout.dp = x->budget->ranks / (l->islands * l->pp * l->cp * l->tp);
    stages_leave_out(&k.layout);
    if ((zero > ZERO_NONE && k.layout.dp * k.layout.cp == 1) ||
        train_layout_check(&k.layout, x->spec, x->config, x->budget->ranks) < 0)
        return OK;
    TRY(price(x, &k));
    x->legal++;
    if (k.bytes > x->budget->memory_bytes) {
        x->least_bytes = x->least_bytes ? i64_min(x->least_bytes, k.bytes) : k.bytes;
        return OK;
    }
    if (x->fitting++ == 0 || k.seconds < x->best.seconds) {
        x->second = x->best;
        x->best = k;
    } else if (x->fitting == 2 || k.seconds < x->second.seconds) {
        x->second = k;
    }
    return OK;
}

/* With every sharing out of the experts. */
static int try_experts(struct search *x, struct layout l)
{
    i64 sharers = x->budget->ranks / (l.islands * l.pp * l.tp);
    for (l.ep = 1; l.ep <= i64_max(1, i64_min(sharers, x->spec->experts)); l.ep++)
        TRY(try_layout(x, &l));
    return OK;
}

/* With every pp, tp and zero. */
static int try_degrees(struct search *x, i64 cp)
{
    const i64 ranks = x->budget->ranks;
    struct layout l = *x->base;
    l.cp = cp;
    for (l.pp = 1; l.pp <= ranks; l.pp++)
        for (l.tp = 1; l.pp * l.tp <= ranks; l.tp++)
            for (l.zero = ZERO_NONE; l.zero <= ZERO_WEIGHTS; l.zero++)
                if (ranks % (l.islands * l.pp * cp * l.tp) == 0)
                    TRY(try_experts(x, l));
    return OK;
}

/* Where rows are long, and where nothing else will do, with every cp. */
static int try_contexts(struct search *x)
{
    const i64 T = x->config->train.seq, asked = x->base->cp;
    TRY(try_degrees(x, asked));
    for (i64 cp = 2; asked == 1 && cp <= x->budget->ranks; cp *= 2)
        if (x->fitting == 0 || (T >= LONG_ROWS && T / cp >= LEAST_TOKENS))
            TRY(try_degrees(x, cp));
    return OK;
}

static void explain(const struct search *x, struct text *why)
{
    const struct candidate *k = &x->best;
    struct arena a;
    arena_init(&a);
    text_printf(why, "%s, the fastest of the %lld of %lld legal layouts that fit: an estimated "
                "%.3g s a step (work %.3g, messages %.3g, idle in a pipeline %.3g) and %.2f GB a "
                "rank", layout_text(&k->layout, &a), (long long)x->fitting, (long long)x->legal,
                k->seconds, k->work, k->messages, k->idle, 1e-9 * (double)k->bytes);
    if (x->fitting > 1)
        text_printf(why, "; next is %s with %.3g s and %.2f GB", layout_text(&x->second.layout, &a),
                    x->second.seconds, 1e-9 * (double)x->second.bytes);
    arena_fini(&a);
}

int train_layout_choose(struct layout *out, const struct layout *base,
                        const struct model_spec *s, const struct train_config *c,
                        const struct layout_budget *budget, struct text *why)
{
    struct model_spec spec = *s;
    struct search x = { .base = base, .spec = &spec, .config = c, .budget = budget };
    if (spec.vocab == 0)
        spec.vocab = USUAL_VOCAB;
    TRY(try_contexts(&x));
    if (x.legal == 0)
        return err_set(ERR_CONFIG, "no layout of %lld ranks fits this model and batch; more "
                       "rows or micro-batches per step (train.batch, train.accumulate) allow more "
                       "data-parallel ranks", (long long)budget->ranks);
    if (x.fitting == 0)
        return err_set(ERR_LIMIT, "none of %lld legal layouts of %lld ranks fits: the "
                       "smallest needs %.2f GB a rank and there are %.2f; use more "
                       "ranks, train.recompute full or offload.optimizer",
                       (long long)x.legal, (long long)budget->ranks,
                       1e-9 * (double)x.least_bytes, 1e-9 * (double)budget->memory_bytes);
    *out = x.best.layout;
    explain(&x, why);
    return OK;
}
