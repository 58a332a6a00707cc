#include "train/evaluate.h"

#include "ops/ops.h"

#include <math.h>

int evaluator_init(struct evaluator *e, const struct model *m, struct engine *engine,
                   struct loader *loader, i64 B, i64 T, struct arena *a)
{
    struct step_io io;
    struct step_shape shape = { B, T, 1, i64_max(1, loader_sources(loader)) };
    *e = (struct evaluator){ .engine = engine, .loader = loader, .backend = engine->backend };
    backend_set(&e->backend, &op_load_batch, loader_kernel(loader));
    if (!backend_kernel(&engine->backend, &op_load_batch)->run)
        backend_set(&engine->backend, &op_load_batch, loader_kernel(loader));
    step_io_new(&io, shape.sources, a);
    e->sums = io.sums;
    TRY(eval_program_new(&e->program, m, &shape, e->sums, a));
    return engine_add(engine, e->program.program);
}

static int run_batch(struct evaluator *e, struct eval_result *out, double *nll, double *weight)
{
    const struct step_shape *shape = &e->program.shape;
    struct loader_step data = { .micro_batches = 1, .B = shape->B, .T = shape->T };
    struct run x = engine_context(e->engine, 0);
    TRY(loader_start_step(e->loader, &data));
    x.backend = &e->backend;
    x.trace = NULL;
    TRY(exec_program(e->program.program, &x));
    const double *row = e->sums->data;
    for (i64 s = 0; s < shape->sources; s++) {
        *nll += row[2 * s];
        *weight += row[2 * s + 1];
        out->bytes += loader_step_bytes(e->loader)[s];
    }
    return OK;
}

int evaluator_run(struct evaluator *e, struct eval_result *out)
{
    const struct step_shape *shape = &e->program.shape;
    double nll = 0, weight = 0;
    i64 batches = ceil_div(loader_places(e->loader), shape->B * shape->T);
    *out = (struct eval_result){ 0 };
    TRY(loader_seek_position(e->loader, 0));
    for (i64 i = 0; i < batches; i++) {
        if (e->stop && atomic_load(e->stop))
            return err_set(ERR_STOPPED, "the evaluation was stopped");
        TRY(run_batch(e, out, &nll, &weight));
    }
    out->tokens = (i64)weight;
    out->loss = weight > 0 ? nll / weight : NAN;
    out->perplexity = exp(out->loss);
    out->bits_per_byte = out->bytes > 0 ? nll / log(2) / (double)out->bytes : NAN;
    return OK;
}
