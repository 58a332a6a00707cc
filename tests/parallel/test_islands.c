/* Outer steps: beside a double reference made from what the islands had, beside one rank per island
 * to the last bit, and with faults that must show. */
#include "parallel/exact.h"
#include "parallel/islands.h"
#include "parallel/spread.h"

#include <stdlib.h>

enum { ROUNDS = 3, INNER = 2 };

/* --- the reference ------------------------------------------------------------------ */

/* What all have in common, of the whole model, in double. */
struct outer {
    struct arena arena;
    i64 n_params;
    struct param_desc *desc;
    double **anchor, **momentum;
    double lr, mu;
    double norm, divergence; /* of the last step */
};

static i64 count_of(const struct param_desc *d)
{
    return d->dim[0] * (d->rank == 2 ? d->dim[1] : 1);
}

/* The island's weights of a parameter, from the ranks that have the true ones. */
static void read_island(const struct ranks *all, i64 island, const struct param_desc *d,
                        double *out)
{
    for (int r = 0; r < all->n; r++) {
        const struct rank *k = &all->rank[r];
        const struct param *p = model_param(k->model, d->id, d->layer);
        if (k->mesh.island != island || !p)
            continue;
        const struct shard_range here = param_state_here(p);
        for (i64 i = here.begin; i < here.begin + here.count; i++)
            out[place_in_whole(p, i)] = *param_weight(p, i);
    }
}

static void outer_open(struct outer *x, const struct ranks *all, const struct ranks_options *o)
{
    struct model_spec spec = rank_spec(o);
    *x = (struct outer){ .lr = o->outer_lr, .mu = o->outer_momentum };
    arena_init(&x->arena);
    x->desc = params_of(&spec, &x->arena, &x->n_params);
    x->anchor = ARENA_ARRAY(&x->arena, double *, x->n_params);
    x->momentum = ARENA_ARRAY(&x->arena, double *, x->n_params);
    for (i64 i = 0; i < x->n_params; i++) {
        x->anchor[i] = ARENA_ARRAY(&x->arena, double, count_of(&x->desc[i]));
        x->momentum[i] = ARENA_ARRAY(&x->arena, double, count_of(&x->desc[i]));
        read_island(all, 0, &x->desc[i], x->anchor[i]);
    }
}

/* Algorithm 1 of Douillard et al. 2023 with Nesterov's momentum, element by element. */
static void outer_step(struct outer *x, const struct ranks *all)
{
    const i64 n = all->layout.islands;
    double squares = 0, apart = 0;
    for (i64 i = 0; i < x->n_params; i++) {
        i64 count = count_of(&x->desc[i]);
        double *w = ARENA_ARRAY(&x->arena, double, n * count);
        for (i64 k = 0; k < n; k++)
            read_island(all, k, &x->desc[i], w + k * count);
        for (i64 e = 0; e < count; e++) {
            double mean = 0;
            for (i64 k = 0; k < n; k++)
                mean += w[k * count + e] / (double)n;
            for (i64 k = 0; k < n; k++)
                apart += pow(w[k * count + e] - mean, 2) / (double)n;
            double g = x->anchor[i][e] - mean;
            squares += g * g;
            x->momentum[i][e] = x->mu * x->momentum[i][e] + g;
            x->anchor[i][e] -= x->lr * (g + x->mu * x->momentum[i][e]);
        }
    }
    x->norm = sqrt(squares);
    x->divergence = sqrt(apart);
}

/* --- comparing ---------------------------------------------------------------------- */

/* The first weight that is not the reference's, in words; NULL: none. Each step rounds a handful
 * of f32 values of the weights' size, whose errors momentum multiplies by less than 10. */
static const char *weight_difference(const struct outer *x, const struct ranks *all, bool half)
{
    static char text[256];
    const double bound = half ? 0x1p-8 : 0x1p-20;
    for (int r = 0; r < all->n; r++)
        for (i64 i = 0; i < x->n_params; i++) {
            const struct param *p = model_param(all->rank[r].model, x->desc[i].id,
                                                x->desc[i].layer);
            const struct shard_range here =
                p ? param_weights_here(p) : (struct shard_range){ 0, 0 };
            for (i64 k = here.begin; k < here.begin + here.count; k++) {
                double is = computed_weight(p, k), wanted = x->anchor[i][place_in_whole(p, k)];
                if (fabs(is - wanted) <= bound * (fabs(wanted) + 0.1))
                    continue;
                snprintf(text, sizeof text, "%s of rank %d, element %lld is %.9g, not %.9g",
                         x->desc[i].name, r, (long long)k, is, wanted);
                return text;
            }
        }
    return NULL;
}

static const char *number_difference(const struct outer *x, const struct ranks *all)
{
    static char text[256];
    for (int r = 0; r < all->n; r++) {
        const struct step_io *io = &all->rank[r].io;
        double moved = *(double *)io->moved->data, apart = *(double *)io->apart->data;
        double norm = islands_norm(all->layout.islands, moved);
        double divergence = islands_divergence(all->layout.islands, apart, moved);
        if (fabs(norm - x->norm) <= 1e-5 * x->norm &&
            fabs(divergence - x->divergence) <= 1e-5 * (x->norm + x->divergence))
            continue;
        snprintf(text, sizeof text, "rank %d: norm %.9g and divergence %.9g, not %.9g and %.9g", r,
                 norm, divergence, x->norm, x->divergence);
        return text;
    }
    return NULL;
}

/* Rounds of steps apart and an outer step; in words what differs from the reference. */
static const char *islands_difference(const struct ranks_options *o, void (*plant)(struct rank *k))
{
    struct ranks *all = calloc(1, sizeof *all);
    struct outer x;
    const char *difference = NULL;
    ranks_open(all, o);
    for (int r = 0; plant && r < all->n; r++)
        plant(&all->rank[r]);
    outer_open(&x, all, o);
    for (int round = 0; round < ROUNDS && !difference; round++) {
        for (int step = 0; step < INNER; step++)
            ranks_step(all, (u64)(round * INNER + step));
        outer_step(&x, all);
        CHECK_OK(ranks_run(all, (u64)round, true));
        difference = weight_difference(&x, all, o->tiny.bf16);
        if (!difference)
            difference = number_difference(&x, all);
    }
    ranks_close(all);
    arena_fini(&x.arena);
    free(all);
    return difference;
}

static struct ranks_options options_of(const char *layout, bool gpt2)
{
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 2, .B = 12, .gpt2 = gpt2 },
                               .layout = layout, .outer_lr = 0.7, .outer_momentum = 0.9 };
    o.tiny.backend = backend_best();
    return o;
}

static void expect_islands(const struct ranks_options *o)
{
    const char *difference = islands_difference(o, NULL);
    if (difference)
        fail_msg("%s: %s", o->layout, difference);
}

TEST(islands_meet_where_the_reference_does_whatever_they_are_made_of)
{
    static const char *const layouts[] = {
        "islands=2", "islands=3", "islands=1", "islands=2,dp=2", "islands=2,tp=2", "islands=2,cp=2",
        "islands=2,pp=2", "islands=2,dp=2,zero=1", "islands=2,dp=2,zero=2", "islands=2,dp=2,zero=3",
        "islands=3,dp=4,zero=3,zero_group=2", "islands=2,pp=2,dp=2,tp=2,zero=1",
    };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct ranks_options o = options_of(layouts[i], i % 2 == 0);
        expect_islands(&o);
        o.tiny.bf16 = true;
        expect_islands(&o);
    }
}

TEST(learning_rate_1_without_momentum_is_a_plain_average)
{
    struct ranks_options o = options_of("islands=2,dp=2,zero=1", true);
    o.outer_lr = 1;
    o.outer_momentum = 0;
    expect_islands(&o);
    o.layout = "islands=3";
    o.tiny.optimizer = OPTIMIZER_MUON;
    expect_islands(&o);
}

/* One island that goes where it went anyway is a run without outer steps. */
TEST(one_island_with_rate_1_trains_as_if_it_never_met)
{
    struct ranks with, without;
    struct ranks_options o = options_of("islands=1", false);
    o.outer_lr = 1;
    o.outer_momentum = 0;
    ranks_open(&with, &o);
    o.outer_lr = 0;
    ranks_open(&without, &o);
    for (u64 step = 0; step < 4; step++) {
        double a = ranks_step(&with, step), b = ranks_step(&without, step);
        CHECK_OK(ranks_run(&with, step, true));
        CHECK_NEAR(a, b, 1e-6 * b);
    }
    CHECK(distance(&without, &with.rank[0]) < 1e-6);
    ranks_close(&with);
    ranks_close(&without);
}

TEST(an_exact_island_is_one_rank_to_the_last_bit)
{
    static const char *const layouts[] = { "islands=2,dp=4,zero=1,exact=true",
                                           "islands=2,dp=2,tp=2,exact=true",
                                           "islands=2,pp=2,tp=2,exact=true",
                                           "islands=2,pp=2,tp=2,order=pp-tp-dp,exact=true" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct ranks *one = calloc(2, sizeof *one), *many = one + 1;
        struct ranks_options o = options_of("islands=2,exact=true", i % 2 == 0);
        o.tiny.B = 8;
        ranks_open(one, &o);
        o.layout = layouts[i];
        ranks_open(many, &o);
        for (u64 step = 0; step < 4; step++) {
            ranks_step(one, step);
            ranks_step(many, step);
            if (step % 2) {
                CHECK_OK(ranks_run(one, step, true));
                CHECK_OK(ranks_run(many, step, true));
            }
            const char *difference = exact_difference(one, many);
            if (difference)
                fail_msg("%s, step %d: %s", layouts[i], (int)step, difference);
        }
        ranks_close(one);
        ranks_close(many);
        free(one);
    }
}

/* --- faults ------------------------------------------------------------------------- */

static struct task *find_outer(struct rank *k, const struct op_info *op, int nth)
{
    const struct program *p = k->outer.program;
    for (i64 i = 0; i < p->n_tasks; i++)
        if (p->by_id[i]->op == op && nth-- == 0)
            return p->by_id[i];
    fail_msg("there is no such task");
    return NULL;
}

static void sum_for_mean(struct rank *k)
{
    find_outer(k, &op_outer_update, 1)->attr[OUTER_SHARE] = 1;
}

static void never_summed(struct rank *k)
{
    struct tensor *never = ARENA_NEW(&k->arena, struct tensor);
    never->data = ARENA_NEW(&k->arena, i32);
    find_outer(k, &op_all_reduce, 1)->when = never;
}

static void stale_momentum(struct rank *k)
{
    struct task *t = find_outer(k, &op_outer_update, 0);
    struct tensor *lost = ARENA_NEW(&k->arena, struct tensor);
    *lost = *t->out[2];
    lost->data = arena_alloc(&k->arena, tensor_bytes(lost));
    t->out[2] = lost;
    find_outer(k, &op_outer_update, 2)->attr[OUTER_MU] = 0;
}

static void never_gathered(struct rank *k)
{
    struct tensor *never = ARENA_NEW(&k->arena, struct tensor);
    never->data = ARENA_NEW(&k->arena, i32);
    find_outer(k, &op_all_gather, 0)->when = never;
}

static void one_island_stays(struct rank *k)
{
    if (k->mesh.island == 1)
        never_gathered(k);
}

static void counted_twice(struct rank *k)
{
    struct task *t = find_outer(k, &op_sum_squares, 0);
    t->in[0] = find_outer(k, &op_sum_squares, 1)->in[0];
}

TEST(what_goes_wrong_in_an_outer_step_shows)
{
    static void (*const faults[])(struct rank *k) = { sum_for_mean, never_summed, stale_momentum,
                                                      never_gathered, one_island_stays,
                                                      counted_twice };
    struct ranks_options o = options_of("islands=2,dp=2,zero=1", true);
    for (i64 i = 0; i < COUNT_OF(faults); i++)
        if (!islands_difference(&o, faults[i]))
            fail_msg("fault %d went unseen", (int)i);
}

/* The list of an outer step without its n-th exchange of this kind is refused when it is built. */
static void expect_refused(const char *layout, const struct op_info *op, enum lane lane, int nth,
                           const char *words)
{
    struct ranks all;
    struct ranks_options o = options_of(layout, true);
    struct graph g;
    i64 at = 0;
    ranks_open(&all, &o);
    const struct rank *k = &all.rank[0];
    const struct islands x = { 0.7, 0.9, k->io.apart, k->io.moved };
    graph_init(&g, &all.arena);
    g.phase = PHASE_UPDATE;
    CHECK_OK(islands_step(&g, k->model, &k->mesh, &x));
    CHECK_OK(spread_check_islands(&g, k->model, &k->mesh));
    while (g.tasks[at]->op != op || g.tasks[at]->lane != lane || nth-- > 0)
        at++;
    memmove(g.tasks + at, g.tasks + at + 1, sizeof *g.tasks * (size_t)(g.n_tasks - at - 1));
    g.n_tasks--;
    CHECK_EQ(spread_check_islands(&g, k->model, &k->mesh), ERR_INTERNAL);
    if (!strstr(err_message(), words))
        fail_msg("%s", err_message());
    ranks_close(&all);
}

TEST(an_outer_step_without_an_exchange_is_refused_by_name)
{
    expect_refused("islands=2", &op_all_reduce, LANE_ISLAND, 0,
                   "is each island's own: it must be summed over islands first");
    expect_refused("islands=2,dp=2,zero=1", &op_all_gather, LANE_DP, 1, "along dp");
}

TEST_MAIN(ONE(islands_meet_where_the_reference_does_whatever_they_are_made_of),
          ONE(learning_rate_1_without_momentum_is_a_plain_average),
          ONE(one_island_with_rate_1_trains_as_if_it_never_met),
          ONE(an_exact_island_is_one_rank_to_the_last_bit),
          ONE(what_goes_wrong_in_an_outer_step_shows),
          ONE(an_outer_step_without_an_exchange_is_refused_by_name))
