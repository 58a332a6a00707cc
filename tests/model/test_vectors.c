/* Whole models against vectors recorded from transformers in double precision (made by
 * tests/peers/make_vectors.py): logits, loss, every gradient, and a curve of 100 steps. */
#include "test.h"

#include "backend/engine.h"
#include "model/decoder.h"
#include "model/hf.h"
#include "model/weights.h"
#include "ops/ops.h"
#include "train/score.h"
#include "train/step.h"

#include <math.h>
#include <stdio.h>

enum { B = 2, T = 32, R = B * T, V = 256, CYCLE = 4, STEPS = 100 };

static const char *const families[] = { "gpt2", "llama", "mistral", "qwen2", "qwen3", "mixtral",
                                        "qwen3_moe", "dots1", "deepseek_v3" };
static const char *const backends[] = { "reference", "generic", "avx2", "avx512", "avx512bf16",
                                        "amx" };

struct fixture {
    struct arena arena;
    struct engine engine;
    struct train_config config;
    struct model_spec spec;
    struct model *model;
    struct step_io io;
    struct step_program step;
    struct weights expect;
    const i32 *ids, *targets;
};

static const void *data_of(const struct weights *w, const char *name)
{
    const struct weights_entry *e = weights_find(w, name);
    if (!e)
        fail_msg("%s is missing from the vectors", name);
    return weights_data(e);
}

static void recorded_batch(const struct task *t, struct run *x)
{
    const struct fixture *f = x->context;
    i64 at = (i64)(x->step % CYCLE) * R;
    memcpy(t->out[BATCH_TOKENS]->data, f->ids + at, R * sizeof(i32));
    memcpy(t->out[BATCH_TARGETS]->data, f->targets + at, R * sizeof(i32));
    for (i32 r = 0; r < R; r++) {
        ((float *)t->out[BATCH_WEIGHTS]->data)[r] = 1;
        ((i32 *)t->out[BATCH_POSITIONS]->data)[r] = r % T;
        ((i32 *)t->out[BATCH_BEGIN]->data)[r] = 0;
        ((i32 *)t->out[BATCH_SOURCES]->data)[r] = 0;
    }
    *(float *)t->out[BATCH_INV_WEIGHT]->data = 1.0f / R;
}

/* aux, z: coefficients of the router's losses. */
static void open_with(struct fixture *f, const char *family, const char *backend, bool narrow,
                      double aux, double z)
{
    char folder[512], path[600];
    *f = (struct fixture){ 0 };
    arena_init(&f->arena);
    snprintf(folder, sizeof folder, SOURCE_DIR "/tests/vectors/%s", family);
    snprintf(path, sizeof path, "%s/expect.safetensors", folder);
    CHECK_OK(weights_open(&f->expect, path));
    f->ids = data_of(&f->expect, "ids");
    f->targets = data_of(&f->expect, "targets");
    option_set_defaults(train_options, &f->config, &f->arena);
    f->config.train.clip = 0;
    CHECK_OK(hf_read_spec(&f->spec, folder, &f->arena));
    f->spec.bias_rate = 0; /* the peer's optimizer leaves that bias alone */
    f->spec.aux_loss = aux;
    f->spec.router_z_loss = z;
    CHECK_OK(engine_init(&f->engine, backend, 2, 64));
    CHECK_OK(model_new(&f->model, &f->spec, narrow ? DTYPE_BF16 : DTYPE_F32,
                       step_needs(&f->config), T, &f->arena));
    CHECK_OK(hf_load_weights(f->model, folder, f->engine.pool));
    struct step_shape shape = { B, T, 1, 1 };
    step_io_new(&f->io, &f->spec, 1, &f->arena);
    struct mesh mesh = mesh_single();
    CHECK_OK(step_program_new(&f->step, f->model, &f->config, &shape, &f->io, &mesh,
                              &f->arena));
    backend_set(&f->engine.backend, &op_load_batch,
                (struct kernel){ .run = recorded_batch, .context = f });
    CHECK_OK(engine_add(&f->engine, f->step.program));
}

static void open_fixture(struct fixture *f, const char *family, const char *backend, bool narrow)
{
    open_with(f, family, backend, narrow, 0, 0);
}

static void close_fixture(struct fixture *f)
{
    weights_close(&f->expect);
    model_free(f->model);
    engine_fini(&f->engine);
    arena_fini(&f->arena);
}

static double one_step(struct fixture *f, u64 step)
{
    float *hyper = f->io.hyper->data;
    double t = (double)step + 1;
    hyper[HYPER_LR] = 1e-3f;
    hyper[HYPER_CORRECT1] = (float)(1 - pow(0.9, t));
    hyper[HYPER_CORRECT2] = (float)(1 - pow(0.95, t));
    engine_run(&f->engine, f->step.program, NULL, step);
    const double *sums = f->io.sums->data;
    return sums[0] / sums[1];
}

/* bf16 keeps 8 bits. Rounding to nearest moves a value in [1, 2) by at most 2^-8, evenly
 * spread: 2^-7 / sqrt(12) rms of 1, and with mantissas as usual (their logarithm evenly
 * spread) 0.74 of that of the value: 1.66e-3. Per layer 8 activations in a row are rounded
 * (norm, qkv, attention, out, norm, up, act, down) and so are the copies of 4 matrices; 4
 * more are embedding, last norm, head and its logits. Errors that have nothing to do with
 * each other add like a random walk; twice that is the bound. A gradient is an activation
 * (one forward pass of roundings) times what came back (another one that the loss saw, and
 * as many again on the way): three passes.
 *
 * A sparse layer has two more: what the experts give is rounded before it is summed, and so
 * is the input of the scores that it is weighted with. */
static double bf16_bound(const struct fixture *f, int passes)
{
    double layers = 12.0 * (double)f->spec.layers + 2.0 * (double)spec_sparse_layers(&f->spec);
    double roundings = passes * (layers + 4);
    return 2 * 1.66e-3 * sqrt(roundings);
}

/* --- logits ------------------------------------------------------------------------- */

static void expect_logits(const char *family, const char *backend, bool narrow, double bound)
{
    struct fixture f;
    struct scorer s;
    open_fixture(&f, family, backend, narrow);
    CHECK_OK(scorer_init(&s, f.model, &f.engine, B, T, true, &f.arena));
    CHECK_OK(engine_commit(&f.engine));
    for (i64 b = 0; b < B; b++)
        scorer_row(&s, b, f.ids + b * T, T, 0);
    scorer_run(&s);
    const double *want = data_of(&f.expect, "logits");
    const float *got = s.logits->data;
    bound = narrow ? bf16_bound(&f, 1) : bound;
    double error = 0, norm = 0;
    for (i64 i = 0; i < (i64)R * V; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    if (!(sqrt(error / norm) <= bound))
        fail_msg("%s on %s: logits off by %.3g of their norm", family, backend,
                 sqrt(error / norm));
    close_fixture(&f);
}

static void for_each(void (*check)(const char *, const char *, bool, double), bool narrow,
                     double bound)
{
    for (i64 i = 0; i < COUNT_OF(families); i++)
        for (i64 k = 0; k < COUNT_OF(backends); k++)
            if (backend_supported(backends[k]))
                check(families[i], backends[k], narrow, bound);
}

TEST(logits_equal_those_of_transformers)
{
    for_each(expect_logits, false, 2e-6); /* a few dozen roundings of 6e-8 */
}

TEST(logits_in_bf16_stay_within_its_rounding)
{
    for_each(expect_logits, true, 0);
}

/* --- gradients ---------------------------------------------------------------------- */

static double squared(const float *x, i64 n)
{
    double sum = 0;
    for (i64 i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static double all_gradients(const struct fixture *f, const char *prefix)
{
    double sum = 0;
    for (i64 i = 0; i < f->expect.n; i++)
        if (strncmp(f->expect.entry[i].tensor->name, prefix, strlen(prefix)) == 0)
            sum += squared(weights_data(&f->expect.entry[i]),
                           f->expect.entry[i].tensor->bytes / 4);
    return sqrt(sum);
}

/* |g - want| of one foreign piece, and |want|. */
static double piece_error(const struct param *p, const struct foreign_piece *piece,
                          const float *want, double *norm)
{
    i64 columns = p->desc.rank == 2 ? p->desc.dim[1] : 1;
    const float *got = (const float *)p->grad->data + piece->row * columns;
    double sum = 0;
    for (i64 r = 0; r < piece->rows; r++) {
        for (i64 c = 0; c < columns; c++) {
            i64 at = piece->transposed ? c * piece->rows + r : r * columns + c;
            double d = (double)got[r * columns + c] - (double)want[at];
            sum += d * d;
        }
    }
    *norm = sqrt(squared(want, piece->rows * columns));
    return sqrt(sum);
}

/* A loss moves by as much as its target's logit and the logarithm of the sum do: each by
 * the error of logits, here taken as if it were the same in every row. */
static double loss_bound(const struct fixture *f)
{
    const double *logits = data_of(&f->expect, "logits");
    double squares = 0;
    for (i64 i = 0; i < (i64)R * V; i++)
        squares += logits[i] * logits[i];
    return 2 * bf16_bound(f, 1) * sqrt(squares / (R * V));
}

/* Every gradient is that recorded under prefix. */
static void compare_gradients(const struct fixture *f, const char *what, const char *prefix,
                              double bound)
{
    double all = all_gradients(f, prefix);
    for (i64 i = 0; i < f->model->n_params; i++) {
        const struct param *p = &f->model->params[i];
        i64 n = p->desc.kind == PARAM_BALANCE ? 0 : params_foreign_count(&f->spec, &p->desc);
        for (i64 k = 0; k < n; k++) {
            char name[512];
            double norm;
            struct foreign_piece piece = params_foreign(&f->spec, &p->desc, k);
            snprintf(name, sizeof name, "%s%s", prefix, piece.name);
            double error = piece_error(p, &piece, data_of(&f->expect, name), &norm);
            if (!(error <= bound * norm + 1e-2 * bound * all))
                fail_msg("%s: %s is off by %.3g (its norm %.3g, all %.3g)", what, name, error,
                         norm, all);
        }
    }
}

static void expect_gradients(const char *family, const char *backend, bool narrow, double bound)
{
    struct fixture f;
    char what[100];
    snprintf(what, sizeof what, "%s on %s", family, backend);
    open_fixture(&f, family, backend, narrow);
    CHECK_OK(engine_commit(&f.engine));
    double loss = one_step(&f, 0);
    bound = narrow ? bf16_bound(&f, 3) : bound;
    CHECK_NEAR(loss, *(const double *)data_of(&f.expect, "loss"),
               narrow ? loss_bound(&f) : 2e-6);
    compare_gradients(&f, what, "grad.", bound);
    close_fixture(&f);
}

/* Some gradients, as of a key bias, are zero in exact arithmetic: hence the second term. */
TEST(every_gradient_equals_that_of_transformers)
{
    for_each(expect_gradients, false, 1e-5);
}

TEST(every_gradient_in_bf16_stays_within_its_rounding)
{
    for_each(expect_gradients, true, 0);
}

/* The peer's function for a batch and all layers, on each sequence and layer alone. */
TEST(losses_of_the_router_and_their_gradients_equal_those_of_transformers)
{
    const double aux = 0.5, z = 0.1; /* AUX and Z of make_vectors.py */
    for (i64 k = 0; k < COUNT_OF(backends); k++) {
        struct fixture f;
        if (!backend_supported(backends[k]))
            continue;
        open_with(&f, "mixtral", backends[k], false, aux, z);
        CHECK_OK(engine_commit(&f.engine));
        CHECK_NEAR(one_step(&f, 0), *(const double *)data_of(&f.expect, "loss"), 2e-6);
        compare_gradients(&f, backends[k], "aux.grad.", 1e-5);
        const double *want = data_of(&f.expect, "aux.losses"), *load = f.io.load->data;
        i64 E = f.spec.experts, sparse = f.io.load->dim[0], columns = f.io.load->dim[1];
        double got[2] = { 0, 0 }, tokens = 0;
        for (i64 i = 0; i < sparse; i++, load += columns) {
            got[0] += load[E] / (double)(B * sparse);
            got[1] += load[E + 1] / (double)(R * sparse);
            for (i64 e = 0; e < E; e++)
                tokens += load[e];
        }
        CHECK_NEAR(got[0], want[0], 1e-6);
        CHECK_NEAR(got[1], want[1], 1e-6);
        CHECK_EQ((i64)tokens, R * f.spec.experts_per_token * sparse);
        close_fixture(&f);
    }
}

/* --- a curve ------------------------------------------------------------------------ */

static void expect_curve(const char *family, const char *backend, bool narrow, double bound)
{
    struct fixture f;
    if (strcmp(backend, "reference") == 0)
        return; /* 100 steps of it take minutes; its single steps are checked above */
    open_fixture(&f, family, backend, narrow);
    CHECK_OK(engine_commit(&f.engine));
    const double *want = data_of(&f.expect, "curve64");
    for (u64 step = 0; step < STEPS; step++) {
        double loss = one_step(&f, step);
        if (!(fabs(loss - want[step]) <= bound))
            fail_msg("%s on %s: loss of step %d is %.7f, expected %.7f", family, backend,
                     (int)step, loss, want[step]);
    }
    close_fixture(&f);
}

TEST(a_hundred_steps_follow_those_of_pytorch)
{
    /* fp32 PyTorch itself strays from its float64 curve by this order (curve32). */
    for_each(expect_curve, false, 2e-3);
}

/* --- packed documents --------------------------------------------------------------- */

TEST(packed_documents_give_the_logits_of_separate_ones)
{
    struct fixture f;
    struct scorer s;
    struct weights packed;
    CHECK_OK(weights_open(&packed, SOURCE_DIR "/tests/vectors/llama/packed.safetensors"));
    open_fixture(&f, "llama", backend_best(), false);
    CHECK_OK(scorer_init(&s, f.model, &f.engine, B, T, true, &f.arena));
    CHECK_OK(engine_commit(&f.engine));
    const i32 *ids = data_of(&packed, "ids");
    for (i64 b = 0; b < B; b++)
        scorer_row(&s, b, ids + b * T, T, 0);
    memcpy(s.batch.begin->data, data_of(&packed, "doc_begin"), R * sizeof(i32));
    memcpy(s.batch.positions->data, data_of(&packed, "positions"), R * sizeof(i32));
    scorer_run(&s);
    const double *want = data_of(&packed, "logits");
    for (i64 i = 0; i < (i64)R * V; i++)
        CHECK_NEAR(((const float *)s.logits->data)[i], want[i], 2e-5);
    weights_close(&packed);
    close_fixture(&f);
}

/* --- rotary frequencies ------------------------------------------------------------- */

TEST(rotary_frequencies_equal_those_of_transformers)
{
    static const char *const names[] = { "llama2-7b", "llama3.1-8b", "llama3.2-1b" };
    struct weights w;
    struct arena a;
    arena_init(&a);
    CHECK_OK(weights_open(&w, SOURCE_DIR "/tests/vectors/rope/expect.safetensors"));
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        struct model_spec s;
        double got[512];
        CHECK_OK(spec_load(&s, names[i], &a));
        spec_rope_frequencies(&s, got);
        const float *want = data_of(&w, names[i]);
        for (i64 k = 0; k < s.head_size / 2; k++)
            CHECK_NEAR(got[k], want[k], 1e-6 * (double)want[k]);
    }
    weights_close(&w);
    arena_fini(&a);
}

TEST_MAIN(ONE(logits_equal_those_of_transformers), ONE(logits_in_bf16_stay_within_its_rounding),
          ONE(every_gradient_equals_that_of_transformers),
          ONE(every_gradient_in_bf16_stays_within_its_rounding),
          ONE(losses_of_the_router_and_their_gradients_equal_those_of_transformers),
          ONE(a_hundred_steps_follow_those_of_pytorch),
          ONE(packed_documents_give_the_logits_of_separate_ones),
          ONE(rotary_frequencies_equal_those_of_transformers))
