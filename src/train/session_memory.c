/* Peak memory, said before it is used (see session.h). */
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "train/session.h"
#include "train/train_layout.h"

#include <stdio.h>
#include <stdlib.h>

enum { TERMS = 24, SHOWN = 6 };

struct term {
    const char *name;
    i64 bytes;
};

static i64 role_bytes(const struct model *m, enum tensor_role role, bool averages)
{
    enum { FIRST_AVERAGE = 5 };
    i64 bytes = 0;
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        const struct tensor *all[] = { b->master, b->compute, b->own_grad, b->m, b->v, b->ema,
                                       b->anchor, b->momentum };
        for (i64 k = 0; k < COUNT_OF(all); k++)
            if (all[k] && all[k]->role == role && (k >= FIRST_AVERAGE) == averages)
                bytes += tensor_bytes(all[k]);
    }
    return bytes;
}

/* The activations of the hungriest program, largest tensors first. */
static i64 activation_terms(const struct session *s, struct term *terms)
{
    const struct tensor *largest[SHOWN];
    const struct program *most = s->engine.programs[0];
    for (int i = 1; i < s->engine.n_programs; i++)
        if (s->engine.programs[i]->memory.bytes > most->memory.bytes)
            most = s->engine.programs[i];
    i64 n = program_largest(most, largest, SHOWN), named = 0;
    for (i64 i = 0; i < n; i++) {
        terms[i] = (struct term){ largest[i]->name, tensor_place_bytes(largest[i]) };
        named += terms[i].bytes;
    }
    terms[n++] = (struct term){ "other activations", most->memory.bytes - named };
    return n;
}

static i64 copy_bytes(const struct session *s)
{
    const struct train_config *c = s->config;
    struct checkpoint_options options = {
        .async = c->checkpoint.async,
        .snapshot = (enum checkpoint_snapshot)c->checkpoint.snapshot,
    };
    i64 bytes = 0;
    for (i64 i = 0; i < s->written.n; i++) {
        const struct checkpoint_tensor *t = &s->written.list[i];
        i64 count = 1;
        for (int k = 0; k < t->rank; k++)
            count *= t->dim[k];
        bytes += count * dtype_bytes(t->dtype);
    }
    return checkpoint_copy_bytes(&options, bytes);
}

/* Batches that the loaders read ahead. */
static i64 reading_bytes(const struct session *s)
{
    struct layout_rows rows = session_full_rows(s);
    struct loader_step largest = { .micro_batches = 1, .B = rows.B, .T = s->config->train.seq };
    i64 bytes = 0;
    if (s->eval_loader)
        bytes = loader_bytes(s->eval_loader, &largest) + loader_bytes(s->final_loader, &largest);
    largest.micro_batches = rows.micro_batches;
    return s->loader ? bytes + loader_bytes(s->loader, &largest) : 0;
}

static int larger_first(const void *a, const void *b)
{
    i64 x = ((const struct term *)a)->bytes, y = ((const struct term *)b)->bytes;
    return x > y ? -1 : x < y;
}

static i64 list_terms(const struct session *s, struct term *terms)
{
    const struct model *m = s->model;
    i64 n = 0;
    terms[n++] = (struct term){ "weights (fp32)", role_bytes(m, ROLE_PARAM, false) };
    terms[n++] = (struct term){ "weights (bf16 copy)", role_bytes(m, ROLE_COMPUTE, false) };
    terms[n++] = (struct term){ "gradients", role_bytes(m, ROLE_GRAD, false) };
    terms[n++] = (struct term){ "optimizer state", role_bytes(m, ROLE_STATE, false) };
    terms[n++] = (struct term){ "averaged weights, outer state", role_bytes(m, ROLE_STATE, true) };
    terms[n++] = (struct term){ "kernel workspace", s->engine.workspace_bytes };
    terms[n++] = (struct term){ "inputs and sums of a step", s->engine.kept_bytes };
    terms[n++] = (struct term){ "copy for checkpoints", copy_bytes(s) };
    terms[n++] = (struct term){ "batches read ahead", reading_bytes(s) };
    n += activation_terms(s, terms + n);
    qsort(terms, (size_t)n, sizeof *terms, larger_first);
    return n;
}

/* "37 MB", "1.25 GB" */
static void put_bytes(struct text *out, const char *before, i64 bytes)
{
    if (bytes < 1000000000)
        text_printf(out, "%s%lld MB", before, (long long)ceil_div(bytes, 1000000));
    else
        text_printf(out, "%s%.2f GB", before, 1e-9 * (double)bytes);
}

static int refuse(const struct session *s, i64 limit)
{
    struct term terms[TERMS];
    struct text list = { 0 };
    i64 n = list_terms(s, terms);
    put_bytes(&list, "the run needs ", s->predicted_bytes);
    put_bytes(&list, " and there are ", limit);
    for (i64 i = 0; i < i64_min(n, SHOWN); i++) {
        text_printf(&list, "%s%s", i ? ", " : "; largest: ", terms[i].name);
        put_bytes(&list, " ", terms[i].bytes);
    }
    int rc = err_set(ERR_LIMIT, "%s; try a smaller train.batch, train.recompute selective or "
                     "full, or a smaller model", list.data);
    text_fini(&list);
    return rc;
}

/* --- ranks of one machine ----------------------------------------------------------- */

struct need {
    i64 bytes, limit; /* of the rank; of its machine */
    i64 machine;      /* its first rank there */
};

static i64 first_here(const struct session *s)
{
    const struct node *node = s->mesh.comm->node;
    i64 first = 0;
    while (node && first < s->mesh.rank && node_seat_of(node, (int)first) < 0)
        first++;
    return node ? first : s->mesh.rank;
}

/* A layout of as many ranks that fits, or that there is none. The leading rank looks, all
 * are told. */
static int suggest(const struct session *s, i64 bytes_each, char *out, i64 size)
{
    const struct layout_budget budget = layout_budget_usual(s->mesh.comm->size, bytes_each);
    struct text why = { 0 };
    struct arena a;
    arena_init(&a);
    if (session_leads(s)) {
        struct layout l = s->mesh.layout;
        if (train_layout_choose(&l, &s->mesh.layout, &s->spec, s->config, &budget, &why) >= 0)
            snprintf(out, (size_t)size, "--layout %s would fit", layout_text(&l, &a));
        else
            snprintf(out, (size_t)size, "no layout of so many ranks would fit, so use more "
                     "machines, train.recompute full, offload.optimizer or a smaller model");
    }
    arena_fini(&a);
    text_fini(&why);
    return mesh_tell(&s->mesh, out, size);
}

/* All ranks know what each needs, and say the same of the first machine that has not enough. */
static int refuse_together(struct session *s, const struct need *all)
{
    char better[512] = "";
    for (int first = 0; first < s->mesh.comm->size; first++) {
        i64 sum = 0, n = 0, limit = all[first].limit;
        for (int r = first; r < s->mesh.comm->size; r++)
            if (all[r].machine == first) {
                sum += all[r].bytes;
                n++;
            }
        if (n == 0 || sum <= limit)
            continue;
        TRY(suggest(s, limit / n, better, sizeof better));
        s->mesh.comm->together = true;
        return err_set(ERR_LIMIT, "the %lld ranks of one machine (rank %d is its first) "
                       "need %.2f GB or more and there are %.2f GB: %s", (long long)n,
                       first, 1e-9 * (double)sum, 1e-9 * (double)limit, better);
    }
    return OK;
}

static int check_machines(struct session *s, i64 bytes)
{
    struct need mine = { bytes, sys_machine_memory_bytes(), 0 };
    struct arena a;
    int rc = OK;
    if (!s->mesh.world)
        return OK;
    arena_init(&a);
    struct need *all = ARENA_ARRAY(&a, struct need, s->mesh.comm->size);
    mine.machine = first_here(s);
    TRY_TO(done, mesh_gather(&s->mesh, &mine, all, sizeof mine));
    rc = refuse_together(s, all);
done:
    arena_fini(&a);
    return rc;
}

/* --- checks ------------------------------------------------------------------------- */

/* However activations are recomputed, the inputs of all layers and the batch itself stay. */
int session_check_floor(struct session *s)
{
    if (s->request.sleep) /* pages that nobody touches are not there */
        return OK;
    enum { BATCH_ARRAYS = 7 }; /* six of load_batch, and the loss of each token */
    const struct train_config *c = s->config;
    double limit = (double)sys_memory_limit_bytes();
    double size = c->train.precision == PRECISION_BF16 ? 2 : 4;
    struct model_part part = mesh_part(&s->mesh, &s->spec);
    double rows = (double)session_full_rows(s).B * (double)c->train.seq;
    double layers = (double)s->spec.layers / (double)s->mesh.layout.pp;
    double kept = layers * (double)s->spec.width / (double)part.tensor_parts;
    double row = size * kept + 4.0 * BATCH_ARRAYS;
    enum dtype compute = size == 2 ? DTYPE_BF16 : DTYPE_F32;
    double state = (double)model_part_bytes(&s->spec, compute, step_needs(c), c->train.seq, &part);
    TRY(check_machines(s, (i64)(state + rows * row)));
    if (state + rows * row <= limit)
        return OK;
    return err_set(ERR_LIMIT, "the run needs more than %.2f GB (weights and optimizer %.2f, "
                   "activations of %.0f tokens at once the rest) and there are %.2f GB; try a "
                   "smaller train.batch or train.seq, or a smaller model",
                   1e-9 * (state + rows * row), 1e-9 * state, rows, 1e-9 * limit);
}

int session_check_memory(struct session *s)
{
    i64 limit = sys_memory_limit_bytes(), copy = copy_bytes(s), reading = reading_bytes(s);
    struct text line = { 0 };
    s->predicted_bytes = sys_rss_bytes() + s->model->region_bytes + engine_bytes(&s->engine) +
                         copy + reading;
    if (!s->request.sleep)
        TRY(check_machines(s, s->predicted_bytes));
    if (s->predicted_bytes > limit && !s->request.sleep)
        return refuse(s, limit);
    put_bytes(&line, "memory: ", s->predicted_bytes);
    put_bytes(&line, " at most (weights and optimizer ", s->model->region_bytes);
    put_bytes(&line, ", activations ", s->engine.region_bytes);
    if (s->mesh.layout.ep > 1)
        text_printf(&line, " with room for the rows of all %lld ranks of ep at one of them",
                    (long long)s->mesh.layout.ep);
    put_bytes(&line, ", workspace ", s->engine.workspace_bytes);
    put_bytes(&line, ", copy for checkpoints ", copy);
    if (s->model->away_bytes + s->engine.away_bytes > 0)
        put_bytes(&line, "), and in files ", s->model->away_bytes + s->engine.away_bytes);
    else
        text_add(&line, ")");
    log_line(LOG_INFO, "%s", line.data);
    text_fini(&line);
    return OK;
}
