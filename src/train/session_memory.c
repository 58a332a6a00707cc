/* Peak memory, said before it is used (see session.h). */
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "train/session.h"

#include <stdlib.h>

enum { TERMS = 24, SHOWN = 6 };

struct term {
    const char *name;
    i64 bytes;
};

static i64 role_bytes(const struct model *m, enum tensor_role role, bool averages)
{
    i64 bytes = 0;
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const struct tensor *all[] = { p->master, p->compute != p->master ? p->compute : NULL,
                                       p->grad, p->m, p->v, p->ema };
        for (i64 k = 0; k < COUNT_OF(all); k++)
            if (all[k] && all[k]->role == role && (all[k] == p->ema) == averages)
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
        terms[i] = (struct term){ largest[i]->name, tensor_bytes(largest[i]) };
        named += terms[i].bytes;
    }
    terms[n++] = (struct term){ "other activations", most->memory.bytes - named };
    return n;
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
    terms[n++] = (struct term){ "averaged weights", role_bytes(m, ROLE_STATE, true) };
    terms[n++] = (struct term){ "kernel workspace", s->engine.workspace_bytes };
    n += activation_terms(s, terms + n);
    qsort(terms, (size_t)n, sizeof *terms, larger_first);
    return n;
}

static int refuse(const struct session *s, i64 limit)
{
    struct term terms[TERMS];
    struct text list = { 0 };
    i64 n = list_terms(s, terms);
    for (i64 i = 0; i < i64_min(n, SHOWN); i++)
        text_printf(&list, "%s%s %.2f GB", i ? ", " : "", terms[i].name,
                    (double)terms[i].bytes / 1e9);
    int rc = err_set(ERR_LIMIT, "the run needs %.2f GB and there are %.2f GB; largest: %s; try a "
                     "smaller train.batch, train.recompute selective or full, or a smaller model",
                     (double)s->predicted_bytes / 1e9, (double)limit / 1e9, list.data);
    text_fini(&list);
    return rc;
}

/* However activations are recomputed, the inputs of all layers and the batch itself stay. */
int session_check_floor(const struct session *s)
{
    enum { BATCH_ARRAYS = 7 }; /* six of load_batch, and the loss of each token */
    const struct train_config *c = s->config;
    double limit = (double)sys_memory_limit_bytes();
    double size = c->train.precision == PRECISION_BF16 ? 2 : 4;
    double rows = (double)c->train.batch * (double)c->train.seq;
    double row = size * (double)(s->spec.layers * s->spec.width) + 4.0 * BATCH_ARRAYS;
    enum dtype compute = size == 2 ? DTYPE_BF16 : DTYPE_F32;
    double state = (double)model_bytes(&s->spec, compute, step_needs(c), c->train.seq);
    if (state + rows * row <= limit)
        return OK;
    return err_set(ERR_LIMIT, "the run needs more than %.2f GB (weights and optimizer %.2f, "
                   "activations of %.0f tokens at once the rest) and there are %.2f GB; try a "
                   "smaller train.batch or train.seq, or a smaller model",
                   1e-9 * (state + rows * row), 1e-9 * state, rows, 1e-9 * limit);
}

int session_check_memory(struct session *s)
{
    i64 limit = sys_memory_limit_bytes();
    s->predicted_bytes = sys_rss_bytes() + s->model->region_bytes + engine_bytes(&s->engine);
    if (s->predicted_bytes > limit)
        return refuse(s, limit);
    log_line(LOG_INFO, "memory: %.2f GB at most (weights and optimizer %.2f, activations %.2f, "
             "workspace %.2f)", (double)s->predicted_bytes / 1e9,
             (double)s->model->region_bytes / 1e9, (double)s->engine.region_bytes / 1e9,
             (double)s->engine.workspace_bytes / 1e9);
    return OK;
}
