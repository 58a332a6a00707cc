#include "step_bench.h"

#include "base/rng.h"
#include "base/sys.h"
#include "ops/ops.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_OF_DATA = 16, CHUNK = 1 << 14, TRACE_SPANS = 1 << 16 };

_Noreturn void step_bench_fail(void)
{
    fprintf(stderr, "benchmark: %s\n", err_message());
    exit(EXIT_FAILURE);
}

static void must(int rc)
{
    if (rc < 0)
        step_bench_fail();
}

/* Position of a word in a list that ends with NULL. */
static int choice(const char *value, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(value, names[i]) == 0)
            return i;
    err_set(ERR_USAGE, "unknown word '%s'; the first that is known is '%s'", value, names[0]);
    step_bench_fail();
}

/* --- data --------------------------------------------------------------------------- */

void step_bench_write_tokens(const char *path, i64 n, i64 vocab)
{
    static u32 wide[CHUNK];
    static u16 narrow[CHUNK];
    const struct rng key = { 1, rng_stream("step_bench") };
    bool is_narrow = vocab <= 65536;
    i32 header[256] = { is_narrow ? 20240520 : 20240801, is_narrow ? 1 : 7, (i32)n };
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    bool failed = fd < 0 || sys_write_full(fd, header, sizeof header) < 0;
    for (i64 at = 0; at < n && !failed; at += CHUNK) {
        i64 count = i64_min(CHUNK, n - at);
        for (i64 i = 0; i < count; i++)
            narrow[i] = (u16)(wide[i] = (u32)(rng_u64(&key, (u64)(at + i)) % (u64)vocab));
        failed = is_narrow ? sys_write_full(fd, narrow, count * 2) < 0
                           : sys_write_full(fd, wide, count * 4) < 0;
    }
    if (failed || sys_close(fd) < 0)
        must(err_set(ERR_SYS, "cannot write %s; is there room in the temporary folder?", path));
}

static void open_loader(struct step_bench *b)
{
    const char *temporary = sys_getenv("TMPDIR");
    char path[300];
    snprintf(b->folder, sizeof b->folder, "%.200s/headway-bench-XXXXXX",
             temporary ? temporary : "/tmp");
    if (!mkdtemp(b->folder))
        must(err_set(ERR_SYS, "cannot make the folder %s", b->folder));
    snprintf(path, sizeof path, "%s/random_train.bin", b->folder);
    step_bench_write_tokens(path, STEPS_OF_DATA * step_bench_tokens(b) + 1, b->spec.vocab);
    struct loader_source source = { .name = "random", .path = path, .separator = -1 };
    struct loader_config c = {
        .sources = &source, .n_sources = 1, .window = b->o.seq, .seed = 1,
        .vocab = (u32)b->spec.vocab, .threads = 1,
        .steps_ahead = (int)b->config.data.prefetch, .trace = &b->engine.trace,
    };
    must(loader_open(&b->loader, &c));
    backend_set(&b->engine.backend, &op_load_batch, loader_kernel(b->loader));
}

/* --- opening ------------------------------------------------------------------------ */

static void configure(struct step_bench *b, const struct model_spec *spec)
{
    static const char *const policies[] = { "none", "selective", "full", NULL };
    static const char *const optimizers[] = { "adamw", "muon", NULL };
    option_set_defaults(train_options, &b->config, &b->arena);
    b->config.train.recompute = choice(b->o.recompute, policies);
    b->config.optim.name = choice(b->o.optimizer, optimizers);
    if (spec)
        b->spec = *spec;
    else
        must(spec_load(&b->spec, b->o.model, &b->arena));
    b->spec.vocab = b->spec.vocab ? b->spec.vocab : 32768;
}

static bool is_narrow(const struct step_bench *b)
{
    static const char *const precisions[] = { "fp32", "bf16", NULL };
    return choice(b->o.precision, precisions) == 1;
}

void step_bench_open(struct step_bench *b, const struct step_bench_options *o,
                     const struct model_spec *spec)
{
    *b = (struct step_bench){ .o = *o };
    arena_init(&b->arena);
    configure(b, spec);
    must(engine_init(&b->engine, o->backend, (int)o->threads, TRACE_SPANS));
    open_loader(b);
    unsigned needs = step_needs(&b->config) | (o->micro == 1 ? MODEL_GRADS_LENT : 0);
    must(model_new(&b->model, &b->spec, is_narrow(b) ? DTYPE_BF16 : DTYPE_F32, needs, o->seq,
                   &b->arena));
    struct step_shape shape = { o->batch, o->seq, (int)o->micro, 1 };
    step_io_new(&b->io, &b->model->spec, 1, &b->arena);
    struct mesh mesh = mesh_single();
    mesh.layout.exact = o->exact || o->exact_context;
    mesh.layout.exact_context = o->exact_context;
    must(step_program_new(&b->step, b->model, &b->config, &shape, &b->io, &mesh, &b->arena));
    must(engine_add(&b->engine, b->step.program));
    b->predicted_bytes = sys_rss_bytes() + b->model->region_bytes + engine_bytes(&b->engine);
    must(engine_commit(&b->engine));
    u64 begin = sys_now_ns();
    model_init(b->model, 1, b->engine.pool);
    b->init_s = 1e-9 * (double)(sys_now_ns() - begin);
}

void step_bench_close(struct step_bench *b)
{
    loader_close(b->loader);
    model_free(b->model);
    engine_fini(&b->engine);
    sys_remove_tree(b->folder);
    arena_fini(&b->arena);
}

/* --- running ------------------------------------------------------------------------ */

double step_bench_run(struct step_bench *b, bool traced)
{
    const struct loader_step data = { .step = (u64)b->steps, .micro_batches = (int)b->o.micro,
                                      .B = b->o.batch, .T = b->o.seq };
    float *hyper = b->io.hyper->data;
    hyper[HYPER_LR] = hyper[HYPER_MUON_LR] = 1e-4f;
    hyper[HYPER_CORRECT1] = hyper[HYPER_CORRECT2] = 1;
    u64 begin = sys_now_ns();
    must(loader_start_step(b->loader, &data));
    struct run x = engine_context(&b->engine, (u64)b->steps);
    x.trace = traced ? x.trace : NULL;
    exec_program(b->step.program, &x);
    double seconds = 1e-9 * (double)(sys_now_ns() - begin);
    b->wait_ns += loader_wait_ns(b->loader);
    b->steps++;
    return seconds;
}

i64 step_bench_tokens(const struct step_bench *b)
{
    return b->o.batch * b->o.seq * b->o.micro;
}

double step_bench_loss(const struct step_bench *b)
{
    const double *sums = b->io.sums->data;
    return sums[0] / sums[1];
}

struct step_bench_peaks step_bench_peak(const struct step_bench *b)
{
    struct machine m;
    machine_detect(&m, b->engine.backend.name, pool_threads(b->engine.pool));
    machine_measure_peaks(&m, b->engine.pool);
    return (struct step_bench_peaks){ is_narrow(b) ? m.bf16_all : m.f32_all, m.fma_all };
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double step_bench_median(double *times, i64 n)
{
    qsort(times, (size_t)n, sizeof *times, ascending);
    return times[n / 2];
}
