#include "report/kernels.h"

#include "base/dtype.h"

#include <stdlib.h>
#include <string.h>

static bool same(const struct kernel_use *u, const struct record_task *t)
{
    bool again = t->flags & RECORD_RECOMPUTE;
    return u->phase == t->phase && u->dtype == t->dtype && u->again == again &&
           strcmp(u->op, t->op) == 0;
}

static struct kernel_use *use_of(struct kernels *k, const struct record_task *t)
{
    for (i64 i = 0; i < k->n; i++)
        if (same(&k->at[i], t))
            return &k->at[i];
    if (k->n == KERNELS_MOST)
        return NULL;
    k->at[k->n] = (struct kernel_use){ .op = t->op, .phase = t->phase, .dtype = t->dtype,
                                       .again = t->flags & RECORD_RECOMPUTE };
    return &k->at[k->n++];
}

void kernels_add(struct kernels *k, const struct record_rank *rank)
{
    for (i64 i = 0; i < rank->n_spans; i++) {
        const struct record_span *s = &rank->spans[i];
        const struct record_task *t = s->task;
        if (s->kind != SPAN_TASK || !t)
            continue;
        double seconds = 1e-9 * (double)(s->end_ns - s->begin_ns);
        struct kernel_use *u = use_of(k, t);
        if (!u) {
            k->left_out += seconds;
            continue;
        }
        u->calls++;
        u->seconds += seconds;
        u->flops += t->flops;
        u->model_flops += t->model_flops;
        u->bytes += t->read_bytes + t->written_bytes;
    }
}

static int longer_first(const void *a, const void *b)
{
    double x = ((const struct kernel_use *)a)->seconds, y = ((const struct kernel_use *)b)->seconds;
    return (x < y) - (x > y);
}

void kernels_put(struct kernels *k, struct json *j)
{
    static const char *const phases[] = { "forward", "input gradient", "weight gradient",
                                          "update" };
    qsort(k->at, (size_t)k->n, sizeof *k->at, longer_first);
    json_begin_array(j);
    for (i64 i = 0; i < k->n; i++) {
        const struct kernel_use *u = &k->at[i];
        json_begin_object(j);
        json_put_str(j, "op", u->op);
        json_put_str(j, "phase", u->phase >= 0 && u->phase < PHASES ? phases[u->phase] : NULL);
        json_put_bool(j, "again", u->again);
        json_put_str(j, "dtype", u->dtype >= 0 && u->dtype < DTYPES ? dtype_name(u->dtype)
                                                                         : NULL);
        json_put_double(j, "calls", u->calls);
        json_put_double(j, "seconds", u->seconds);
        json_put_double(j, "flops", u->flops);
        json_put_double(j, "model_flops", u->model_flops);
        json_put_double(j, "bytes", u->bytes);
        json_end(j);
    }
    json_end(j);
}
