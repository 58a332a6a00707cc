/* What a step that is looked at measures: beside plain loops, and on layouts beside one rank. */
#define JOB_DIR "health-test"
#include "train/job.h"

#include "parallel/ranks.h"

static struct ranks_options options(const char *layout, bool gpt2, i64 B, int micro_batches)
{
    return (struct ranks_options){ .tiny = { .threads = 1, .B = B, .micro_batches = micro_batches,
                                             .gpt2 = gpt2, .backend = backend_best() },
                                   .layout = layout, .health = 1 };
}

static void begin_all(struct ranks *all, bool due)
{
    for (int r = 0; r < all->n; r++)
        health_begin(&all->rank[r].io.health, due);
}

/* What health_share does between processes. */
static void share(struct ranks *all)
{
    const struct health *first = &all->rank[0].io.health;
    double *sums = first->norms->data, *most = first->logits->data;
    for (int r = 1; r < all->n; r++) {
        const struct health *h = &all->rank[r].io.health;
        for (i64 i = 0; i < tensor_count(h->norms); i++)
            sums[i] += tensor_get(h->norms, i);
        for (i64 i = 0; i < h->layers; i++)
            most[i] = fmax(most[i], tensor_get(h->logits, i));
    }
}

static double norm_of(const struct tensor *x, const float *before)
{
    double sum = 0;
    for (i64 i = 0; i < tensor_count(x); i++) {
        double change = tensor_get(x, i) - (before ? (double)before[i] : 0);
        sum += change * change;
    }
    return sqrt(sum);
}

/* --- one rank beside plain loops ---------------------------------------------------- */

enum { MOST_PARAMS = 64, MICRO = 4 };

struct seen {
    const struct rank *k;
    double small[MICRO][MOST_PARAMS]; /* squares of the gradient of each micro-batch alone */
    float *sum[MOST_PARAMS];          /* of the micro-batches before */
    double largest[8];
};

/* Of one query and one key of the same row, whose elements are n columns from q and k on. */
static double logit_of(const struct task *t, i64 q, i64 k)
{
    double sum = 0;
    for (i64 d = 0; d < (i64)t->attr[ATTENTION_D]; d++)
        sum += tensor_get(t->in[0], q + d) * tensor_get(t->in[0], k + d);
    return sum * t->attr[ATTENTION_SCALE];
}

/* Over all queries and the keys that they see. */
static void see_task(void *context, const struct task *t)
{
    struct seen *s = context;
    if (t->op != &op_attention)
        return;
    const i64 T = (i64)t->attr[ATTENTION_T], H = (i64)t->attr[ATTENTION_H];
    const i64 share = H / (i64)t->attr[ATTENTION_G], D = (i64)t->attr[ATTENTION_D];
    const i64 columns = tensor_columns(t->in[0]);
    for (i64 row = 0; row < t->in[0]->dim[0]; row++)
        for (i64 h = 0; h < H; h++)
            for (i64 key = row / T * T + (i64)tensor_get(t->in[1], row); key <= row; key++)
                s->largest[t->layer] =
                    fmax(s->largest[t->layer], logit_of(t, row * columns + h * D,
                                                        key * columns + (H + h / share) * D));
}

/* The gradients after a micro-batch, less those before it. */
static void see_gradients(struct seen *s, int micro_batch)
{
    for (i64 i = 0; i < s->k->model->n_params; i++) {
        const struct tensor *grad = s->k->model->params[i].grad;
        double norm = norm_of(grad, micro_batch > 0 ? s->sum[i] : NULL);
        s->small[micro_batch][i] = norm * norm;
        memcpy(s->sum[i], grad->data, (size_t)tensor_bytes(grad));
    }
}

static void run_seen(struct rank *k, struct seen *s, u64 step)
{
    const struct program *p = k->step.program;
    struct run x = engine_context(&k->engine, step);
    x.after_task = see_task;
    x.after_context = s;
    *s = (struct seen){ .k = k };
    for (int i = 0; i < 8; i++)
        s->largest[i] = -INFINITY;
    for (i64 i = 0; i < k->model->n_params; i++)
        s->sum[i] = arena_alloc(&k->arena, tensor_bytes(k->model->params[i].grad));
    for (i64 a = 0; a < p->n_actions; a++) {
        CHECK_OK(exec_action(p, a, &x));
        if (p->segments[p->actions[a].segment].kind == SEGMENT_BACKWARD)
            see_gradients(s, p->actions[a].micro_batch);
    }
}

static void expect_measured(const struct rank *k, const struct seen *s, float *const *before)
{
    const struct health *h = &k->io.health;
    CHECK_EQ(h->n_params, k->model->n_params);
    for (i64 i = 0; i < h->n_params; i++) {
        const struct param *p = &k->model->params[i];
        double small = health_in_noise(&p->desc) ? sqrt(s->small[0][i]) : 0;
        CHECK_STR(h->params[i].name, p->desc.name);
        CHECK_NEAR(health_norm(h, i, HEALTH_GRAD), norm_of(p->grad, NULL), 1e-12);
        CHECK_NEAR(health_norm(h, i, HEALTH_WEIGHT), norm_of(p->master, NULL), 1e-12);
        CHECK_NEAR(health_norm(h, i, HEALTH_UPDATE), norm_of(p->master, before[i]), 1e-12);
        CHECK_NEAR(health_norm(h, i, HEALTH_SMALL), small, 1e-12);
        CHECK(health_norm(h, i, HEALTH_UPDATE) > 0);
    }
    for (i64 i = 0; i < h->layers; i++)
        CHECK(fabs(tensor_get(h->logits, i) - s->largest[i]) < 1e-5 * (1 + fabs(s->largest[i])));
    CHECK_NEAR(health_total(h, HEALTH_GRAD), *(double *)k->io.norm->data, 1e-9);
}

static void measure_one(const struct ranks_options *o)
{
    struct ranks one;
    struct seen *s;
    ranks_open(&one, o);
    struct rank *k = &one.rank[0];
    float *before[MOST_PARAMS];
    s = arena_alloc(&k->arena, sizeof *s);
    for (u64 step = 0; step < 2; step++) {
        for (i64 i = 0; i < k->model->n_params; i++) {
            const struct tensor *w = k->model->params[i].master;
            before[i] = arena_alloc(&k->arena, tensor_bytes(w));
            memcpy(before[i], w->data, (size_t)tensor_bytes(w));
        }
        write_hyper(k, &one.config, step);
        begin_all(&one, true);
        run_seen(k, s, step);
        expect_measured(k, s, before);
    }
    ranks_close(&one);
}

TEST(one_rank_measures_what_plain_loops_find)
{
    for (int i = 0; i < 4; i++) {
        struct ranks_options o = options("dp=1", i % 2, 4, MICRO);
        o.tiny.optimizer = i / 2 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
        o.tiny.recompute = i ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        o.tiny.bf16 = i == 2;
        measure_one(&o);
    }
}

/* --- layouts beside one rank -------------------------------------------------------- */

/* Squares of the first micro-batch of each of dp ranks; one rank has them all. */
static double small_of(const struct seen *s, const struct ranks *many, i64 i)
{
    double sum = 0;
    for (int r = 0; r < many->n; r++) {
        const struct rank *k = &many->rank[r];
        if (k->mesh.pp_rank == 0 && k->mesh.tp_rank == 0)
            sum += s->small[k->rows.first / k->rows.B][i];
    }
    return sqrt(sum);
}

static void expect_near(const char *layout, const char *name, const char *what, double x,
                        double truth)
{
    if (!(fabs(x - truth) <= 2e-3 * fabs(truth) + 1e-7))
        fail_msg("%s: %s of %s is %.9g, one rank has %.9g", layout, what, name, x, truth);
}

static void expect_like_one(const struct ranks *one, const struct seen *s, const struct ranks *many,
                            const char *layout)
{
    static const char *const what[] = { "gradient", "weight", "update" };
    const struct health *a = &one->rank[0].io.health, *b = &many->rank[0].io.health;
    for (i64 i = 0; i < a->n_params; i++) {
        const char *name = a->params[i].name;
        for (int k = 0; k < HEALTH_SMALL; k++)
            expect_near(layout, name, what[k], health_norm(b, i, k), health_norm(a, i, k));
        if (health_in_noise(&a->params[i]) && many->layout.cp == 1)
            expect_near(layout, name, "one micro-batch's gradient", health_norm(b, i, HEALTH_SMALL),
                        small_of(s, many, i));
    }
    for (i64 i = 0; i < a->layers; i++)
        expect_near(layout, "attention", "largest", tensor_get(b->logits, i),
                    tensor_get(a->logits, i));
}

static void compare(const char *layout, bool gpt2, enum train_optimizer optimizer,
                    enum tiny_experts experts)
{
    struct ranks_options alone = options("dp=1", gpt2, 4, MICRO);
    struct ranks_options o = options(layout, gpt2, 4, MICRO);
    struct ranks one, many;
    alone.tiny.optimizer = o.tiny.optimizer = optimizer;
    alone.tiny.experts = o.tiny.experts = experts;
    alone.layers = o.layers = 4;
    ranks_open(&one, &alone);
    ranks_open(&many, &o);
    struct seen *s = arena_alloc(&one.arena, sizeof *s);
    write_hyper(&one.rank[0], &one.config, 0);
    begin_all(&one, true);
    begin_all(&many, true);
    run_seen(&one.rank[0], s, 0);
    ranks_step(&many, 0);
    share(&many);
    expect_like_one(&one, s, &many, layout);
    ranks_close(&one);
    ranks_close(&many);
}

TEST(every_layout_measures_what_one_rank_does)
{
    static const char *const layouts[] = {
        "dp=2", "dp=2,zero=1", "dp=2,zero=2", "dp=2,zero=3", "dp=4,zero=3,zero_group=2", "tp=2",
        "dp=2,tp=2,zero=1", "dp=2,tp=2,zero=3", "pp=2", "pp=2,dp=2,zero=2", "pp=2,tp=2",
        "pp=2,schedule=zb-h1", "cp=2", "dp=2,cp=2,zero=1", "dp=2,zero=1,exact=yes",
        "tp=2,exact=yes", "pp=2,dp=2,exact=yes",
    };
    for (i64 i = 0; i < COUNT_OF(layouts); i++)
        compare(layouts[i], i % 2, i % 3 == 2 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW, TINY_DENSE);
}

TEST(so_do_layouts_with_experts_apart_and_rows_cut_exactly)
{
    static const char *const experts[] = {
        "dp=2", "dp=2,ep=2", "dp=4,ep=2", "dp=4,ep=2,zero=1", "dp=4,ep=2,zero=3",
        "dp=2,ep=2,tp=2,zero=2", "dp=4,ep=2,zero=1,zero_group=2", "cp=2,ep=2",
        "dp=2,cp=2,ep=2,zero=1", "pp=2,dp=2,ep=2", "dp=4,ep=2,exact=yes",
        "dp=2,ep=2,zero=2,exact=yes",
        "cp=4,ep=2,exact=yes,exact_context=yes", "dp=2,cp=2,ep=4,exact=yes,exact_context=yes",
        "dp=2,cp=2,ep=2,zero=1,exact=yes,exact_context=yes",
    };
    static const char *const context[] = {
        "cp=2,exact=yes,exact_context=yes", "dp=2,exact=yes,exact_context=yes",
        "dp=2,cp=2,zero=1,exact=yes,exact_context=yes",
        "dp=2,cp=2,zero=3,exact=yes,exact_context=yes",
        "tp=2,cp=2,pp=2,exact=yes,exact_context=yes",
    };
    for (i64 i = 0; i < COUNT_OF(experts); i++)
        compare(experts[i], false, i % 3 == 2 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW,
                i % 2 ? TINY_DEEPSEEK : TINY_MIXTRAL);
    for (i64 i = 0; i < COUNT_OF(context); i++)
        compare(context[i], i % 2, i % 2 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW, TINY_DENSE);
}

/* --- steps that are not looked at --------------------------------------------------- */

static void count_task(void *context, const struct task *t)
{
    (void)t;
    ++*(i64 *)context;
}

static i64 tasks_run(struct rank *k, u64 step)
{
    i64 n = 0;
    struct run x = engine_context(&k->engine, step);
    x.after_task = count_task;
    x.after_context = &n;
    for (i64 a = 0; a < k->step.program->n_actions; a++)
        CHECK_OK(exec_action(k->step.program, a, &x));
    return n;
}

TEST(other_steps_run_nothing_more)
{
    struct ranks_options plain = options("dp=1", false, 4, 2), o = plain;
    struct ranks without, with;
    plain.health = 0;
    ranks_open(&without, &plain);
    ranks_open(&with, &o);
    begin_all(&with, false);
    write_hyper(&without.rank[0], &without.config, 0);
    write_hyper(&with.rank[0], &with.config, 0);
    i64 n = tasks_run(&without.rank[0], 0);
    CHECK_EQ(tasks_run(&with.rank[0], 0), n);
    begin_all(&with, true);
    CHECK(tasks_run(&with.rank[0], 1) > n);
    tasks_run(&without.rank[0], 1);
    CHECK(distance(&without, &with.rank[0]) == 0);
    ranks_close(&without);
    ranks_close(&with);
}

/* --- numbers ------------------------------------------------------------------------ */

/* Norms made from a known |G|^2 and tr(S): 8 batches of 100 tokens, on 2 ranks. */
TEST(the_noise_scale_is_the_one_that_the_norms_were_made_from)
{
    struct model_spec spec = tiny_spec(false);
    struct mesh mesh = mesh_single();
    struct step_io io = { 0 };
    struct arena a;
    i64 i = 0;
    arena_init(&a);
    step_io_new(&io, &spec, 1, &a);
    health_begin(&io.health, true);
    while (!health_in_noise(&io.health.params[i]))
        i++;
    double *row = (double *)io.health.norms->data + i * HEALTH_COLUMNS;
    mesh.layout.dp = 2;
    row[HEALTH_GRAD] = 3 + 4000 / 800.0;
    row[HEALTH_SMALL] = 2 * (3 + 4000 / 100.0) / 64; /* of both ranks; 1/8 of its own gradient */
    struct health_noise x = health_noise(&io.health, &mesh, 4, 100);
    CHECK(!x.missing);
    CHECK_NEAR(x.trace, 4000.0, 1e-9);
    CHECK_NEAR(x.signal, 3.0, 1e-11);
    CHECK_NEAR(health_noise_scale(&x), 4000.0 / 3, 1e-6);
    x.trace = -1; /* as one step may have it by chance: no batch of tokens is below 0 */
    CHECK(isnan(health_noise_scale(&x)));
    mesh.layout.dp = 1;
    CHECK_STR(health_noise(&io.health, &mesh, 1, 100).missing, "one micro-batch on one rank");
    mesh.layout.cp = 2;
    CHECK(strstr(health_noise(&io.health, &mesh, 4, 100).missing, "cp"));
    arena_fini(&a);
}

/* --- a run -------------------------------------------------------------------------- */

struct lines {
    i64 n, last;
    double grad, parameter, ratio, logit, scale, trace, signal;
};

static void see_health(void *context, json_t *line)
{
    struct lines *l = context;
    if (strcmp(json_string_value(json_object_get(line, "event")), "health") != 0)
        return;
    const json_t *p = json_object_get(json_object_get(line, "parameters"),
                                      "blocks.1.attn.qkv.weight");
    const json_t *noise = json_object_get(line, "noise");
    l->n++;
    l->last = json_integer_value(json_object_get(line, "step"));
    l->grad = json_number_value(json_object_get(line, "grad_norm"));
    l->parameter = json_number_value(json_object_get(p, "grad"));
    l->ratio = json_number_value(json_object_get(p, "update")) /
               json_number_value(json_object_get(p, "weight")) -
               json_number_value(json_object_get(p, "update_ratio"));
    l->logit = json_number_value(json_array_get(json_object_get(line, "attention_logit_max"), 1));
    l->trace = json_number_value(json_object_get(noise, "trace"));
    l->signal = json_number_value(json_object_get(noise, "signal"));
    l->scale = json_number_value(json_object_get(noise, "scale_tokens"));
}

TEST(a_run_tells_its_health_every_so_often_and_learns_the_same)
{
    static const char *const plain[] = { "train.accumulate=4", NULL };
    static const char *const sets[] = { "train.accumulate=4", "log.health=4", NULL };
    struct lines l = { 0 };
    make_corpus();
    CHECK_OK(train("plain", plain, false, NULL));
    CHECK_OK(train("healthy", sets, false, NULL));
    expect_same_shard("plain", "healthy", 8, "param");
    expect_same_shard("plain", "healthy", 8, "v");
    each_metric("healthy", see_health, &l);
    CHECK_EQ(l.n, 2);
    CHECK_EQ(l.last, 8);
    CHECK_NEAR(l.grad, last_metric("healthy", "step", "grad_norm"), 1e-9);
    CHECK(l.parameter > 0 && l.parameter < l.grad);
    CHECK(fabs(l.ratio) < 1e-12);
    CHECK(l.logit > 0 && l.logit < 100);
    CHECK(l.trace > 0);
    CHECK(l.signal <= 0 || fabs(l.scale * l.signal - l.trace) < 1e-9 * l.trace);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(one_rank_measures_what_plain_loops_find),
          ONE(every_layout_measures_what_one_rank_does),
          ONE(so_do_layouts_with_experts_apart_and_rows_cut_exactly),
          ONE(other_steps_run_nothing_more),
          ONE(the_noise_scale_is_the_one_that_the_norms_were_made_from),
          ONE(a_run_tells_its_health_every_so_often_and_learns_the_same))
