/* bench_weak - weak scaling of GPT-2 124M to 64 ranks, on a clock that is computed; along
 * ep that of Llama 125M with 64 experts in each layer, of which 2 are chosen.
 *
 *     bench_weak [--flops F] [--memory B] [--link B] [--latency S] [--seq T]
 *
 * Each axis alone, at 1 to 64 ranks as far as the model has heads and layers to share; the
 * batch grows with the ranks (along cp the rows' length; a pipeline's share of the model
 * shrinks instead). Efficiency is the share of the step that ranks compute, by
 * plan/simulate.h. Beside it stand closed forms of the same seconds: nothing of the calls
 * hidden, c / (c + x), and all of it, c / max(c, x). For pipelines: m / (m + p - 1), which
 * wants even stages, and schedule_time's of the stages that there are, whose last one has the
 * head; where other axes send beside a pipeline, both of the first forms times either.
 * A second of one thread; no ranks run. */
#include "base/err.h"
#include "model/spec.h"
#include "plan/simulate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64, ROWS = 4, MICRO_BATCHES = 32, CUBE_STAGES = 4, EXPERTS = 64, CHOSEN = 2 };

struct setting {
    struct plan_price price;
    i64 seq;
};

static _Noreturn void stop(void)
{
    fprintf(stderr, "bench_weak: %s\n", err_message());
    exit(1);
}

static const struct axis {
    const char *name, *layout; /* printf-like, of the number of ranks */
    enum lane lane;
    i64 most;
    bool pipeline;
} axes[] = {
    { "dp", "dp=%d", LANE_DP, 64, false },
    { "zero 1", "dp=%d,zero=1", LANE_DP, 64, false },
    { "zero 2", "dp=%d,zero=2", LANE_DP, 64, false },
    { "zero 3", "dp=%d,zero=3", LANE_DP, 64, false },
    { "tp", "tp=%d", LANE_TP, 4, false },          /* 12 heads */
    { "ep", "dp=%1$d,ep=%1$d", LANE_EP, 64, false },
    { "cp", "cp=%d", LANE_CP, 64, false },
    { "pp 1f1b", "pp=%d,schedule=1f1b", LANE_PP, 8, true },  /* 12 layers */
    { "pp zb-h1", "pp=%d,schedule=zb-h1", LANE_PP, 8, true },
};

/* Three axes at once, on 64 ranks. */
static const struct axis cube = { "pp dp tp", "pp=4,dp=8,tp=2", LANE_PP, MOST, true };

struct weak {
    double length, compute, call; /* seconds; means over ranks */
    double busy; /* share of time that schedule_time gives */
};

/* By the schedule alone, where time is FLOPs. */
static double busy_share(const struct rank_view *const *views, struct arena *a)
{
    struct schedule order;
    struct schedule_time t;
    if (views[0]->mesh.layout.pp == 1)
        return 1;
    if (rank_view_schedule(views, MICRO_BATCHES, &order, &t, a) < 0)
        stop();
    return 1 - t.bubble;
}

static void simulate(const struct setting *set, const struct axis *axis, int n,
                     const struct model_spec *spec, struct weak *out)
{
    struct train_config c;
    struct layout l = layout_single();
    struct plan_time t;
    struct arena a;
    char text[60];
    arena_init(&a);
    option_set_defaults(train_options, &c, &a);
    c.train.seq = axis->lane == LANE_CP ? set->seq * n : set->seq;
    c.train.accumulate = axis->pipeline ? MICRO_BATCHES : 1;
    c.train.global_batch = 0;
    snprintf(text, sizeof text, axis->layout, n);
    if (layout_parse(&l, text, "bench_weak", &a) < 0)
        stop();
    c.train.batch = axis->pipeline ? l.dp : (i64)ROWS * (axis->lane == LANE_CP ? 1 : n);
    const struct rank_view **views = ARENA_ARRAY(&a, const struct rank_view *, l.pp);
    for (i64 i = 0; i < l.pp; i++) {
        struct rank_view *v = ARENA_NEW(&a, struct rank_view);
        if (rank_view_new(v, &l, spec, &c, i * layout_ranks(&l) / l.pp, &a) < 0)
            stop();
        views[i] = v;
    }
    if (plan_simulate(views, &set->price, &t, &a) < 0)
        stop();
    struct plan_rank_time mean = plan_mean(&t);
    *out = (struct weak){ t.length, mean.compute, 0, busy_share(views, &a) };
    for (int lane = 0; lane < LANE_COUNT; lane++)
        out->call += mean.call[lane];
    arena_fini(&a);
}

static void print_row(const struct setting *set, const struct axis *axis, int n,
                      const struct model_spec *spec)
{
    struct weak w;
    simulate(set, axis, n, spec, &w);
    double none = w.compute / (w.compute + w.call);
    double all = w.compute / fmax(w.compute, w.call);
    printf("| %-8s | %2d | %8.3f | %8.3f | %8.3f | %5.1f %% |", axis->name, n, w.compute, w.call,
           w.length, 100 * w.compute / w.length);
    double even = (double)MICRO_BATCHES / (MICRO_BATCHES + (axis == &cube ? CUBE_STAGES : n) - 1);
    if (axis == &cube)
        printf(" %5.1f to %5.1f %%, uneven %5.1f to %5.1f %% |\n", 100 * even * none,
               100 * even * all, 100 * w.busy * none, 100 * w.busy * all);
    else if (axis->pipeline)
        printf(" %5.1f %%, uneven %5.1f %% |\n", 100 * even, 100 * w.busy);
    else
        printf(" %5.1f to %5.1f %% |\n", 100 * none, 100 * all);
}

static void print_axis(const struct setting *set, const struct axis *axis,
                       const struct model_spec *spec)
{
    for (int n = 1; n <= axis->most; n *= 2)
        print_row(set, axis, n, spec);
}

static void load_spec(struct model_spec *spec, const char *name, i64 seq, struct arena *a)
{
    if (spec_load(spec, name, a) < 0)
        stop();
    spec->vocab = spec->vocab ? spec->vocab : 50304;
    spec->positions = seq * MOST;
}

static void read_arguments(struct setting *set, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        double value = atof(argv[i + 1]);
        if (strcmp(argv[i], "--flops") == 0)
            set->price.flops_per_s = value;
        else if (strcmp(argv[i], "--memory") == 0)
            set->price.memory_bytes_per_s = value;
        else if (strcmp(argv[i], "--link") == 0)
            set->price.link_bytes_per_s = value;
        else if (strcmp(argv[i], "--latency") == 0)
            set->price.latency_s = value;
        else if (strcmp(argv[i], "--seq") == 0)
            set->seq = (i64)value;
    }
}

int main(int argc, char **argv)
{
    struct setting set = { { 2e12, 2e11, 1.25e9, 2e-5, NULL }, 1024 };
    const struct plan_price *price = &set.price;
    struct model_spec spec, sparse;
    struct arena a;
    arena_init(&a);
    read_arguments(&set, argc, argv);
    load_spec(&spec, "gpt2-124m", set.seq, &a);
    load_spec(&sparse, "llama-125m", set.seq, &a);
    sparse.experts = EXPERTS;
    sparse.experts_per_token = CHOSEN;
    if (spec_check(&sparse, "bench_weak") < 0)
        stop();
    printf("GPT-2 124M, T = %lld, %d rows a rank (pipelines: %d micro-batches of one), at %.3g "
           "FLOP/s, memory %.3g bytes/s, links %.3g bytes/s and %.3g s\n\n"
           "| axis | ranks | compute s | calls s | step s | efficiency | closed form |\n"
           "|---|---|---|---|---|---|---|\n", (long long)set.seq, ROWS, MICRO_BATCHES,
           price->flops_per_s, price->memory_bytes_per_s, price->link_bytes_per_s,
           price->latency_s);
    for (int i = 0; i < COUNT_OF(axes); i++)
        print_axis(&set, &axes[i], axes[i].lane == LANE_EP ? &sparse : &spec);
    print_row(&set, &cube, MOST, &spec);
    arena_fini(&a);
    return 0;
}
