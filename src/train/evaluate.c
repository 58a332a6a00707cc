#include "train/evaluate.h"

#include "base/log.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int evaluator_init(struct evaluator *e, const struct model *m, struct engine *engine,
                   struct loader *loader, i64 B, i64 T, const struct mesh *mesh,
                   struct arena *a)
{
    struct step_io io;
    struct step_shape shape = { B, T, 1, i64_max(1, loader_sources(loader)) };
    *e = (struct evaluator){ .engine = engine, .loader = loader, .backend = engine->backend,
                             .mesh = *mesh,
                             .has_loss = model_has_layer(&m->spec, &m->part,
                                                         m->spec.layers - 1) };
    backend_set(&e->backend, &op_load_batch, loader_kernel(loader));
    if (!backend_kernel(&engine->backend, &op_load_batch)->run)
        backend_set(&engine->backend, &op_load_batch, loader_kernel(loader));
    step_io_new(&io, &m->spec, shape.sources, a);
    e->sums = io.sums;
    TRY(eval_program_new(&e->program, m, &shape, e->sums, mesh, a));
    return engine_add(engine, e->program.program);
}

/* The first counts. */
static void note_failure(struct evaluator *e, int rc)
{
    if (rc >= 0 || e->rc < 0)
        return;
    e->rc = rc;
    snprintf(e->why, sizeof e->why, "%s", err_message());
}

/* A rank that cannot read its rows goes on with rows that count in nothing, since others
 * may need it in what they compute: all see at the end that the pass is not worth
 * anything. */
static int start_rows(struct evaluator *e, const struct loader_step *data)
{
    int rc = loader_start_step(e->loader, data);
    if (rc != ERR_FORMAT && rc != ERR_SYS)
        return rc;
    if (e->rc == OK)
        e->lacks = loader_failed_source(e->loader);
    note_failure(e, rc);
    return layout_ranks(&e->mesh.layout) == 1 ? rc : loader_start_blank(e->loader, data);
}

static int run_batch(struct evaluator *e, struct eval_result *out, double *nll, double *weight)
{
    const struct step_shape *shape = &e->program.shape;
    struct loader_step data = { .micro_batches = 1, .B = shape->B, .T = shape->T,
                                .cut = e->mesh.layout.cp, .part = e->mesh.cp_rank,
                                .pairs = layout_pairs(&e->mesh.layout) };
    struct run x = engine_context(e->engine, 0);
    TRY(start_rows(e, &data));
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

/* This rank's share of the batches, which lie together. All ranks run as many, since the program
 * may need all of them: behind the end the last one again, which counts nothing. */
static int run_share(struct evaluator *e, struct eval_result *out, double *nll, double *weight)
{
    const struct step_shape *shape = &e->program.shape;
    i64 batches = ceil_div(loader_places(e->loader), shape->B * shape->T);
    i64 sharers = e->mesh.layout.islands * e->mesh.layout.dp;
    i64 share = ceil_div(batches, sharers), first = share * e->mesh.row_rank;
    for (i64 i = first; i < first + share; i++) {
        struct eval_result ignored = { 0 };
        double none = 0;
        bool counts = i < batches;
        if (e->stop && atomic_load(e->stop))
            return err_set(ERR_STOPPED, "the evaluation was stopped");
        if (i == first || !counts)
            TRY(loader_seek_position(e->loader,
                                     i64_min(i, batches - 1) * shape->B * shape->T));
        TRY(run_batch(e, counts ? out : &ignored, counts ? nll : &none, counts ? weight : &none));
    }
    return OK;
}

int evaluator_run(struct evaluator *e, struct eval_result *out)
{
    double nll = 0, weight = 0;
    *out = (struct eval_result){ 0 };
    e->rc = OK;
    e->lacks = -1;
    int rc = run_share(e, out, &nll, &weight);
    TRY(rc == ERR_PEER || rc == ERR_HANG ? rc : OK);
    note_failure(e, rc);
    double last = e->has_loss; /* bytes are counted where the loss is */
    double sums[] = { nll, weight, last * (double)out->bytes };
    double failed[1 + LOADER_SOURCES] = { e->rc < 0 };
    if (e->lacks >= 0)
        failed[1 + e->lacks] = 1;
    TRY(mesh_sum_stages(&e->mesh, sums, COUNT_OF(sums)));
    TRY(mesh_sum_all(&e->mesh, failed, COUNT_OF(failed)));
    e->failed = failed[0];
    memcpy(e->lost, failed + 1, sizeof e->lost);
    if (e->rc < 0)
        return err_set(e->rc, "%s", e->why);
    if (e->failed > 0)
        return err_set(ERR_SYS, "another rank could not evaluate");
    out->tokens = (i64)sums[1];
    out->bytes = (i64)sums[2];
    out->loss = sums[1] > 0 ? sums[0] / sums[1] : NAN;
    out->perplexity = exp(out->loss);
    out->bits_per_byte = out->bytes > 0 ? sums[0] / log(2) / (double)out->bytes : NAN;
    return OK;
}

bool evaluator_leave_out(struct evaluator *e)
{
    double explained = 0;
    i64 rest = 0, n = loader_sources(e->loader);
    for (i64 s = 0; s < n; s++) {
        explained += e->lost[s];
        rest += e->lost[s] == 0 && loader_gives(e->loader, s);
    }
    if (rest == 0 || e->failed == 0 || explained < e->failed)
        return false;
    for (i64 s = 0; s < n; s++)
        if (e->lost[s] > 0) {
            log_line(LOG_WARN, "held-out text of source %s is left out from here on: %s",
                     loader_source_name(e->loader, s), err_message());
            loader_leave_out(e->loader, s);
        }
    return true;
}
