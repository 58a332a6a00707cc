/* What a layout means, before anything runs. */
#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"
#include "cli/layout_recipe.h"
#include "cli/terminal.h"
#include "ops/ops.h"
#include "plan/simulate.h"
#include "train/rank_links.h"
#include "train/rank_view.h"
#include "train/run_folder.h"
#include "trace/trace.h"

#include <stdio.h>
#include <string.h>

enum { MOST_ROWS = 64, MOST_SLICES = 8, LEAST_COLUMNS = 60, MOST_COLUMNS = 160 };

struct show_options {
    const char *layout, *svg;
    i64 ranks;
    double flops, memory, link, latency;
};

static const struct option show_table[] = {
    { "layout", OPTION_FIELD(STRING, struct show_options, layout), NULL,
      .help = "Such as pp=2,dp=2,schedule=zb-h1: short for layout.pp and its like. auto: the best "
              "of --ranks." },
    LAYOUT_RANKS_OPTION(struct show_options),
    { "svg", OPTION_FIELD(PATH, struct show_options, svg), NULL,
      .help = "Also write the pipeline's schedule as a picture." },
    { "flops", OPTION_FIELD(FLOAT, struct show_options, flops), "5e10", .unit = "FLOP/s",
      .min = 1, .max = 1e30, .help = "For the simulated step: what a rank computes." },
    { "memory", OPTION_FIELD(FLOAT, struct show_options, memory), "1e10", .unit = "bytes/s",
      .min = 1, .max = 1e30, .help = "The same: how fast its memory is." },
    { "link", OPTION_FIELD(FLOAT, struct show_options, link), "2e9", .unit = "bytes/s",
      .min = 1, .max = 1e30, .help = "The same: what it sends." },
    { "latency", OPTION_FIELD(FLOAT, struct show_options, latency), "2e-5", .unit = "seconds",
      .max = 1e6, .help = "The same: from the beginning of a message to its first byte." },
    { 0 },
};

struct show {
    struct invocation *v;
    struct train_config config;
    struct layout layout;
    struct model_spec spec;
    const struct rank_view **views; /* [pp]: the first rank of each coordinate */
};

/* --- what is shown ------------------------------------------------------------------ */

static int read_recipe(struct show *x)
{
    const struct show_options *o = x->v->options;
    struct layout_recipe r;
    TRY(layout_recipe_read(&r, x->v, o->layout, o->ranks));
    x->config = r.config;
    x->layout = r.layout;
    x->spec = r.spec;
    return OK;
}

static i64 stage_ranks(const struct layout *l)
{
    return layout_ranks(l) / (l->islands * l->pp);
}

static int view_ranks(struct show *x)
{
    const struct layout *l = &x->layout;
    x->views = ARENA_ARRAY(x->v->arena, const struct rank_view *, l->pp);
    for (i64 i = 0; i < l->pp; i++) {
        struct rank_view *view = ARENA_NEW(x->v->arena, struct rank_view);
        TRY(rank_view_new(view, l, &x->spec, &x->config, i * layout_stride(l, AXIS_PP),
                          x->v->arena));
        x->views[i] = view;
    }
    return OK;
}

static void add_range(struct text *out, const char *before, i64 begin, i64 count)
{
    if (count == 0)
        text_printf(out, "%snone", before);
    else if (count == 1)
        text_printf(out, "%s%lld", before, (long long)begin);
    else
        text_printf(out, "%s%lld-%lld", before, (long long)begin,
                    (long long)(begin + count - 1));
}

/* --- ranks -------------------------------------------------------------------------- */

/* "0-3, 8" */
static const char *layers_text(const struct show *x, i64 pp_rank)
{
    struct layer_range chunks[MODEL_CHUNKS];
    struct text out = { 0 };
    i64 n = model_chunks(x->views[pp_rank]->model, chunks);
    for (i64 k = 0; k < n; k++)
        add_range(&out, k ? ", " : "", chunks[k].first, chunks[k].count);
    const char *copy = arena_strdup(x->v->arena, out.data);
    text_fini(&out);
    return copy;
}

/* "((pp x 2 + dp) x 1 + cp) x 2 + tp", or in another order "tp x 2 + dp". */
static void print_places(const struct layout *l)
{
    if (l->order == 0) {
        printf("((pp x %lld + dp) x %lld + cp) x %lld + tp", (long long)l->dp, (long long)l->cp,
               (long long)l->tp);
    } else {
        const i64 rows = layout_stride(l, AXIS_ROWS);
        printf("tp x %lld + dp x %lld + cp x %lld + pp x %lld",
               (long long)layout_stride(l, AXIS_TP), (long long)(rows * l->cp), (long long)rows,
               (long long)layout_stride(l, AXIS_PP));
    }
    if (l->islands > 1)
        printf(" + island x %lld", (long long)(stage_ranks(l) * l->pp));
}

static void print_mesh(const struct show *x)
{
    const struct layout *l = &x->layout;
    i64 ranks = layout_ranks(l);
    printf("layout %s: %lld rank%s; rank = ", layout_text(l, x->v->arena), (long long)ranks,
           ranks == 1 ? "" : "s");
    print_places(l);
    printf("\n\n  rank%s    pp    dp    cp    tp  layers\n", l->islands > 1 ? " island" : "");
    for (i64 r = 0; r < i64_min(ranks, MOST_ROWS); r++) {
        struct mesh m = mesh_at(l, r);
        printf("%6lld", (long long)r);
        if (l->islands > 1)
            printf(" %6lld", (long long)m.island);
        printf(" %5lld %5lld %5lld %5lld  %s\n", (long long)m.pp_rank,
               (long long)m.dp_rank, (long long)m.cp_rank, (long long)m.tp_rank,
               layers_text(x, m.pp_rank));
    }
    if (ranks > MOST_ROWS)
        printf("   ... and %lld more\n", (long long)(ranks - MOST_ROWS));
}

/* The groups along an axis whose neighbours are `stride` apart. */
static void print_groups(const struct show *x, const char *axis, i64 n, i64 stride)
{
    i64 ranks = layout_ranks(&x->layout), shown = 0;
    if (n == 1)
        return;
    printf("  %-3s", axis);
    for (i64 first = 0; first < ranks && shown < MOST_ROWS; first++) {
        if (first / stride % n)
            continue;
        printf(" {");
        for (i64 i = 0; i < n; i++, shown++)
            printf("%s%lld", i ? " " : "", (long long)(first + i * stride));
        printf("}");
    }
    printf("%s\n", shown >= MOST_ROWS ? " ..." : "");
}

static void print_all_groups(const struct show *x)
{
    const struct layout *l = &x->layout;
    if (layout_ranks(l) > 1)
        printf("\ngroups\n");
    print_groups(x, "islands", l->islands, stage_ranks(l) * l->pp);
    print_groups(x, "pp", l->pp, layout_stride(l, AXIS_PP));
    const i64 rows = layout_stride(l, AXIS_ROWS), apart = l->exact_context ? l->cp * rows : rows;
    print_groups(x, "dp", layout_sharers(l), apart); /* who share gradients */
    if (l->zero_group > 0) {
        print_groups(x, "zero", l->zero_group, apart);
        print_groups(x, "copies", layout_sharers(l) / l->zero_group, apart * l->zero_group);
    }
    print_groups(x, "ep", l->ep, rows); /* who share the experts; who have the same */
    if (l->ep > 1) {
        const i64 of = layout_expert_rows(l);
        print_groups(x, "edp", layout_split_ranks(l) / of, of * apart);
        /* Of a row, in exact mode. */
        print_groups(x, "twins", layout_expert_twins(l), l->ep * rows);
    }
    print_groups(x, "cp", l->cp, rows);
    print_groups(x, "tp", l->tp, layout_stride(l, AXIS_TP));
}

/* --- parameters --------------------------------------------------------------------- */

/* What of the parameter each rank along tp has. */
static void add_shares(const struct show *x, const struct param_desc *d, struct text *out)
{
    for (i64 t = 0; t < x->layout.tp; t++) {
        struct param_shard s = param_share(d, x->layout.tp, t);
        text_add(out, t ? " | " : "");
        if (d->split == SPLIT_COLUMNS)
            add_range(out, "columns ", s.columns.begin, s.columns.count);
        for (int i = 0; d->split == SPLIT_ROWS && i < s.pieces; i++)
            add_range(out, i ? ", " : "rows ", s.rows[i].begin, s.rows[i].count);
    }
}

/* Which experts each rank along ep has. */
static void add_experts(const struct show *x, const struct param_desc *d, struct text *out)
{
    for (i64 e = 0; e < x->layout.ep; e++) {
        struct param_shard s = param_expert_share(d, 1, 0, x->layout.ep, e);
        add_range(out, e ? " | experts " : "experts ", s.experts.begin, s.experts.count);
    }
}

/* "blocks.0-3.attn.qkv.weight": layers of a stage have the same parameters. */
static void put_name(const struct param_desc *d, i64 last, char *out, size_t chars)
{
    const char *rest = d->name;
    if (d->layer < 0 || last == d->layer) {
        snprintf(out, chars, "%s", d->name);
        return;
    }
    for (int dots = 0; dots < 2; rest++)
        dots += *rest == '.';
    snprintf(out, chars, "blocks.%d-%lld.%s", d->layer, (long long)last, rest);
}

static void print_param(const struct show *x, const struct param_desc *d, i64 last)
{
    char name[96], shape[48];
    struct text who = { 0 };
    put_name(d, last, name, sizeof name);
    if (d->rank == 2)
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)d->dim[0], (long long)d->dim[1]);
    else
        snprintf(shape, sizeof shape, "%lld", (long long)d->dim[0]);
    bool experts = param_is_expert(d), spread = experts && x->layout.ep > 1;
    bool cut = x->layout.tp > 1 && d->split != SPLIT_NONE;
    if (spread)
        add_experts(x, d, &who);
    if (cut && experts)
        text_printf(&who, "%sof each ", spread ? "; " : "");
    if (cut)
        add_shares(x, d, &who);
    else if (!spread)
        text_add(&who, "whole");
    printf("  %-32s %16s  %s\n", name, shape, who.data);
    text_fini(&who);
}

static void print_stage_params(const struct show *x, i64 pp_rank)
{
    struct layer_range chunks[MODEL_CHUNKS];
    const struct model *m = x->views[pp_rank]->model;
    i64 n = model_chunks(m, chunks);
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param_desc *d = &m->params[i].desc;
        i64 last = -1;
        for (i64 k = 0; k < n; k++)
            if (d->layer == chunks[k].first)
                last = chunks[k].first + chunks[k].count - 1;
        if (d->layer < 0 || last >= 0)
            print_param(x, d, last);
    }
}

static bool same_slices(const struct bucket *a, const struct bucket *b)
{
    return a->count == b->count && a->copied == b->copied && a->own_count == b->own_count &&
           a->experts == b->experts;
}

/* Which elements of a bucket's matrices each of those has who split them: equal parts, in order. */
static void print_slice(const struct rank_view *v, i64 from, i64 to)
{
    const struct bucket *b = &v->model->buckets[from];
    enum lane lane = mesh_sharers(&v->mesh, b);
    i64 n = mesh_degree(&v->mesh, lane), stride = mesh_stride(&v->mesh, lane);
    struct text out = { 0 };
    if (n == 1 || b->own_count == 0)
        return;
    add_range(&out, to > from ? "  buckets " : "  bucket ", from, to - from + 1);
    text_printf(&out, " of %lld: ", (long long)b->count);
    for (i64 k = 0; k < i64_min(n, MOST_SLICES); k++) {
        text_printf(&out, "%srank %lld has ", k ? " | " : "",
                    (long long)(v->mesh.rank + k * stride));
        add_range(&out, "", b->own_begin + k * b->own_count, b->own_count);
    }
    printf("%s%s\n", out.data, n > MOST_SLICES ? " | ..." : "");
    text_fini(&out);
}

/* Of the first rank of a stage, and who shares with it; buckets of layers are mostly alike. */
static void print_slices(const struct rank_view *v)
{
    const struct model *m = v->model;
    for (i64 i = 0, end; i < m->n_buckets; i = end) {
        end = i + 1;
        while (end < m->n_buckets && same_slices(&m->buckets[i], &m->buckets[end]))
            end++;
        print_slice(v, i, end - 1);
    }
}

static void print_params(const struct show *x)
{
    const struct layout *l = &x->layout;
    for (i64 i = 0; i < l->pp; i++) {
        i64 first = i * stage_ranks(l);
        if (l->pp > 1)
            printf("\nparameters where pp=%lld (ranks %lld to %lld%s)%s\n", (long long)i,
                   (long long)first, (long long)(first + stage_ranks(l) - 1),
                   l->islands > 1 ? " of each island" : "",
                   l->tp > 1 ? ", by tp" : "");
        else
            printf("\nparameters%s\n", l->tp > 1 ? ", by tp" : "");
        print_stage_params(x, i);
        if (l->zero > ZERO_NONE)
            print_slices(x->views[i]);
    }
    if (l->zero > ZERO_NONE && layout_sharers(l) > 1)
        printf("  %s of matrices: 1/%lld of each bucket, in the order of dp\n",
               l->zero == ZERO_WEIGHTS ? "optimizer state, gradients and weights"
               : l->zero == ZERO_GRADIENTS ? "optimizer state and gradients" : "optimizer state",
               (long long)(l->zero_group > 0 ? l->zero_group : layout_sharers(l)));
    if (l->zero > ZERO_NONE && l->ep > 1)
        printf("  of experts: 1/%lld, in the order of edp\n",
               (long long)(layout_split_ranks(l) / layout_expert_rows(l)));
}

/* --- schedule ----------------------------------------------------------------------- */

static int write_svg(const struct show *x, const struct schedule *s,
                     const struct schedule_time *t)
{
    const char *path = ((const struct show_options *)x->v->options)->svg;
    struct text picture = { 0 };
    schedule_chart_svg(s, t, layout_text(&x->layout, x->v->arena), &picture);
    int rc = file_replace(path, picture.data, picture.length);
    text_fini(&picture);
    return rc;
}

/* Many micro-batches are more than a row of text can show; the first ones look like the others.
 * An order from a file is what it is. */
static int print_chart(const struct show *x, const struct schedule *all)
{
    struct schedule s;
    struct schedule_time t;
    struct text chart = { 0 };
    i64 pp = x->layout.pp;
    int drawn = (int)i64_min(all->micro_batches, i64_max(8, 2 * pp) / pp * pp);
    if (schedule_kind_of(x->layout.schedule) == SCHEDULE_KINDS)
        drawn = all->micro_batches;
    TRY(rank_view_schedule(x->views, drawn, &s, &t, x->v->arena));
    int columns = (int)i64_min(MOST_COLUMNS, i64_max(LEAST_COLUMNS, x->v->terminal->width));
    schedule_chart(&s, &t, columns, &chart);
    printf("\nschedule %s: %d stages, %d micro-batches%s; time is FLOPs, links are free\n%s",
           x->layout.schedule, all->stages, all->micro_batches,
           drawn < all->micro_batches ? " (drawn with fewer)" : "", chart.data);
    text_fini(&chart);
    return OK;
}

static int print_schedule(const struct show *x)
{
    const char *svg = ((const struct show_options *)x->v->options)->svg;
    struct schedule s;
    struct schedule_time t;
    if (x->layout.pp == 1)
        return svg ? err_set(ERR_USAGE, "--svg draws a pipeline's schedule, but the layout has "
                             "pp=1") : OK;
    TRY(rank_view_schedule(x->views, x->views[0]->step.shape.micro_batches, &s, &t,
                           x->v->arena));
    TRY(print_chart(x, &s));
    printf("  idle: %.1f %% of all ranks' time\n  pp  idle   micro-batches in flight\n",
           100 * t.bubble);
    for (int r = 0; r < s.ranks; r++)
        printf("%4d %4.1f %%  %g\n", r, 100 * t.ranks[r].idle / t.length, t.ranks[r].peak);
    return svg ? write_svg(x, &s, &t) : OK;
}

/* --- costs -------------------------------------------------------------------------- */

static void print_bytes(double bytes)
{
    static const char *const units[] = { "B", "KB", "MB", "GB", "TB" };
    int unit = 0;
    while (bytes >= 1000 && unit < COUNT_OF(units) - 1) {
        bytes /= 1000;
        unit++;
    }
    if (bytes == 0)
        printf(" %10s", "-");
    else
        printf(" %7.*f %s%s", unit ? 2 : 0, bytes, unit ? "" : " ", units[unit]);
}

/* Whoever shares the batch: all of them, within groups, and across these; of experts, edp. */
static double bytes_along(const struct rank_view *v, enum lane lane)
{
    double groups = v->message_bytes[LANE_SHARD] + v->message_bytes[LANE_COPIES] +
                    v->message_bytes[LANE_EDP];
    return v->message_bytes[lane] + (lane == LANE_DP ? groups : 0);
}

static void print_costs(const struct show *x)
{
    static const enum lane lanes[] = { LANE_PP, LANE_TIE, LANE_DP, LANE_CP, LANE_TP, LANE_EP };
    printf("\neach rank: what it sends in a step, by axis                                      "
           "memory\n  pp         pp      table         dp         cp         tp         ep       "
           "model activation  parameters\n");
    for (i64 i = 0; i < x->layout.pp; i++) {
        const struct rank_view *v = x->views[i];
        printf("%4lld", (long long)i);
        for (i64 k = 0; k < COUNT_OF(lanes); k++)
            print_bytes(bytes_along(v, lanes[k]));
        print_bytes((double)v->model_bytes);
        print_bytes((double)v->activation_bytes);
        printf(" %9.2f M\n", 1e-6 * (double)v->parameters);
    }
    if (x->layout.ep > 1)
        printf("ep sends this with even loads; activation has room for the rows of all "
               "%lld ranks at one\n", (long long)x->layout.ep);
}

/* Links of one axis that carry as much as the first of them, from i on. */
static i64 alike(const struct rank_links *l, i64 i)
{
    i64 n = 1;
    while (i + n < l->n && l->list[i + n].lane == l->list[i].lane &&
           l->list[i + n].bytes == l->list[i].bytes)
        n++;
    return n;
}

static void print_links_of(const struct show *x, const struct rank_view *v)
{
    enum { SHOWN = 3 }; /* first ranks of many */
    struct rank_links l;
    rank_links_of(&l, v, x->v->arena);
    for (i64 i = 0, n; i < l.n; i += n) {
        n = alike(&l, i);
        struct text to = { 0 };
        for (i64 k = 0; k < n; k++) {
            if (n > SHOWN + 1 && k == SHOWN) {
                text_add(&to, ", ...");
                k = n - 1;
            }
            text_printf(&to, "%s%lld", k ? ", " : "", (long long)l.list[i + k].to);
        }
        printf("%6lld  %-24s", (long long)v->mesh.rank, to.data);
        print_bytes(l.list[i].bytes);
        printf("  %s\n", trace_lane_name(trace_of_lane(l.list[i].lane)));
        text_fini(&to);
    }
}

static void print_links(const struct show *x)
{
    if (layout_ranks(&x->layout) == 1)
        return;
    printf("\nlinks: what the first rank of each stage sends in a step, and to whom; the "
           "others of the stage send\n"
           "the same to ranks as far away (but for what does not divide)\n"
           "  from  to                         bytes each  along\n");
    for (i64 i = 0; i < x->layout.pp; i++)
        print_links_of(x, x->views[i]);
}

/* Training counts more (copies for checkpoints, workspace) and refuses what does not fit. */
static void print_room(const struct show *x)
{
    const double here = (double)sys_machine_memory_bytes();
    double need = 0;
    for (i64 i = 0; i < x->layout.pp; i++)
        need += (double)(x->views[i]->model_bytes + x->views[i]->activation_bytes);
    need *= (double)(stage_ranks(&x->layout) * x->layout.islands);
    if (need > here)
        printf("all ranks together need %.2f GB, and this machine has %.2f GB: alone it "
               "would refuse to train this\n", 1e-9 * need, 1e-9 * here);
}

/* What an outer step sends, and how much that is for each of the steps in between. */
static void print_outer(const struct show *x)
{
    double every = (double)x->config.outer.every;
    if (every == 0)
        return;
    printf("\nouter step, after %.0f steps: what each rank sends, and on average in a step\n"
           "  pp    islands     a step\n", every);
    for (i64 i = 0; i < x->layout.pp; i++) {
        double sent = x->views[i]->outer_bytes[LANE_ISLAND];
        printf("%4lld", (long long)i);
        print_bytes(sent);
        print_bytes(sent / every);
        printf("\n");
    }
}

/* --- time --------------------------------------------------------------------------- */

/* Under dp also for those of its groups that split what zero splits, or the experts. */
static double wait_along(const struct plan_rank_time *t, enum lane lane)
{
    double groups = t->wait[LANE_SHARD] + t->wait[LANE_COPIES] + t->wait[LANE_EP] +
                    t->wait[LANE_EDP];
    return t->wait[lane] + (lane == LANE_DP ? groups : 0);
}

/* The first rank of each coordinate along pp; the others of its stage do the same. */
static int print_time(const struct show *x)
{
    static const enum lane lanes[] = { LANE_PP, LANE_TIE, LANE_DP, LANE_CP, LANE_TP, LANE_AWAY };
    const struct show_options *o = x->v->options;
    struct plan_price price = { o->flops, o->memory, o->link, o->latency, NULL };
    struct plan_time t;
    TRY(plan_simulate(x->views, &price, &t, x->v->arena));
    printf("\nsimulated step: %.4g s, %.1f %% of it computing; at %.3g FLOP/s, %.3g bytes/s of "
           "memory,\nlinks of %.3g bytes/s and %.3g s. In seconds:\n"
           "  pp    compute  and waiting for pp      table         dp         cp         tp"
           "       away       idle\n", t.length, 100 * plan_mean(&t).compute / t.length,
           price.flops_per_s, price.memory_bytes_per_s, price.link_bytes_per_s, price.latency_s);
    for (i64 i = 0; i < x->layout.pp; i++) {
        const struct plan_rank_time *r = &t.ranks[i * stage_ranks(&x->layout)];
        printf("%4lld %10.4g       ", (long long)i, r->compute);
        for (i64 k = 0; k < COUNT_OF(lanes); k++)
            printf(" %10.4g", wait_along(r, lanes[k]));
        printf(" %10.4g\n", r->idle);
    }
    return OK;
}

static int show(struct invocation *v)
{
    struct show x = { .v = v };
    TRY(read_recipe(&x));
    TRY(view_ranks(&x));
    print_mesh(&x);
    print_all_groups(&x);
    print_params(&x);
    TRY(print_schedule(&x));
    print_costs(&x);
    print_links(&x);
    print_room(&x);
    print_outer(&x);
    return print_time(&x);
}

static const struct example show_examples[] = {
    { "headway layout show recipes/demo.yaml --layout pp=2,dp=2,schedule=zb-h1",
      "Four ranks: two stages, each twice." },
    { "headway layout show recipes/gpt2-124m.yaml --layout pp=4,schedule=zb-v --svg zb-v.svg",
      "The order of work as a picture, too." },
    { 0 },
};

static const struct command cmd_show = {
    .name = "show", .summary = "Show what a layout does with a recipe's run",
    .arguments = "RECIPE.yaml",
    .description = "Who is where in the mesh, which layers and which rows of which parameter each "
                   "rank has, the order of work in a pipeline, and for each rank what it sends in "
                   "a step and the memory that it needs. All of it is counted on the steps that "
                   "ranks would run; nothing runs, and no other process is needed. At last, how "
                   "long a step would take on ranks and links of given speed, and what nothing "
                   "hides of what ranks wait for.",
    .options = show_table, .options_bytes = sizeof(struct show_options), .takes_set = true,
    .min_args = 1, .max_args = 1, .examples = show_examples, .run = show,
};

static const struct command *const subcommands[] = { &cmd_show, &cmd_layout_check, NULL };

static const struct example examples[] = {
    { "headway layout show recipes/demo.yaml --layout dp=4", "Who does what." },
    { "headway layout check recipes/demo.yaml --layout dp=2,tp=2", "Whether it is only rounding." },
    { 0 },
};

const struct command cmd_layout = {
    .name = "layout",
    .summary = "Look at layouts: how a run is spread over ranks",
    .description = "A layout says how a training step is spread over ranks; it changes how a step "
                   "is computed, never which step.",
    .subcommands = subcommands,
    .examples = examples,
};
