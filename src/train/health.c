#include "train/health.h"

#include "base/sys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void health_begin(const struct health *h, bool due)
{
    double *logits = h->logits->data;
    *(i32 *)h->due->data = due;
    if (!due)
        return;
    memset(h->norms->data, 0, (size_t)tensor_bytes(h->norms));
    for (i64 i = 0; i < h->layers; i++)
        logits[i] = -INFINITY;
}

int health_share(const struct health *h, const struct mesh *mesh)
{
    TRY(mesh_sum_all(mesh, h->norms->data, tensor_count(h->norms)));
    return mesh_max(mesh, h->logits->data, h->layers);
}

static double square(const struct health *h, i64 param, int column)
{
    return ((const double *)h->norms->data)[param * HEALTH_COLUMNS + column];
}

double health_norm(const struct health *h, i64 param, int column)
{
    return sqrt(square(h, param, column));
}

double health_total(const struct health *h, int column)
{
    double sum = 0;
    for (i64 i = 0; i < h->n_params; i++)
        sum += square(h, i, column);
    return sqrt(sum);
}

/* A step's loss is a mean over its n batches of equal size (small ones; their weights are taken
 * as equal), so what one of them added to the gradient is 1/n of its own gradient. With
 * E |G_B|^2 = |G|^2 + tr(S) / B for both sizes (equations A.2, A.3). */
struct health_noise health_noise(const struct health *h, const struct mesh *mesh,
                                 int micro_batches, double tokens)
{
    const double dp = (double)mesh->layout.dp, n = dp * micro_batches;
    struct health_noise x = { .small = tokens, .big = tokens * n };
    double small = 0, big = 0;
    if (mesh->layout.cp > 1)
        x.missing = "ranks along cp have parts of the same rows";
    else if (n == 1)
        x.missing = "one micro-batch on one rank";
    for (i64 i = 0; i < h->n_params; i++) {
        small += square(h, i, HEALTH_SMALL) * n * n / dp;
        big += health_in_noise(&h->params[i]) ? square(h, i, HEALTH_GRAD) : 0;
    }
    if (!x.missing) {
        x.trace = (small - big) / (1 / x.small - 1 / x.big);
        x.signal = (x.big * big - x.small * small) / (x.big - x.small);
    }
    return x;
}

double health_noise_scale(const struct health_noise *x)
{
    return !x->missing && x->trace > 0 && x->signal > 0 ? x->trace / x->signal : NAN;
}

/* --- what is told ------------------------------------------------------------------- */

/* NaN, which both say as nothing, where something of 0 is compared. */
static double update_ratio(const struct health *h, i64 param)
{
    double weight = health_norm(h, param, HEALTH_WEIGHT);
    return weight > 0 ? health_norm(h, param, HEALTH_UPDATE) / weight : NAN;
}

static void put_params(const struct health *h, struct json *j)
{
    json_key(j, "parameters");
    json_begin_object(j);
    for (i64 i = 0; i < h->n_params; i++) {
        if (h->params[i].kind == PARAM_BALANCE)
            continue;
        json_key(j, h->params[i].name);
        json_begin_object(j);
        json_put_double(j, "grad", health_norm(h, i, HEALTH_GRAD));
        json_put_double(j, "weight", health_norm(h, i, HEALTH_WEIGHT));
        json_put_double(j, "update", health_norm(h, i, HEALTH_UPDATE));
        json_put_double(j, "update_ratio", update_ratio(h, i));
        json_end(j);
    }
    json_end(j);
}

static void put_noise(const struct health_noise *x, struct json *j)
{
    json_key(j, "noise");
    json_begin_object(j);
    if (x->missing) {
        json_put_str(j, "missing", x->missing);
    } else {
        json_put_double(j, "scale_tokens", health_noise_scale(x));
        json_put_double(j, "trace", x->trace);
        json_put_double(j, "signal", x->signal);
        json_put_double(j, "small_tokens", x->small);
        json_put_double(j, "big_tokens", x->big);
    }
    json_end(j);
}

static void put_logits(const struct health *h, struct json *j)
{
    const double *logits = h->logits->data;
    json_key(j, "attention_logit_max");
    json_begin_array(j);
    for (i64 i = 0; i < h->layers; i++)
        json_double(j, logits[i]);
    json_end(j);
}

static void put_scalar(struct events *e, i64 step, double now, const char *what, const char *whose,
                       double value)
{
    char tag[100];
    snprintf(tag, sizeof tag, "health/%s/%s", what, whose);
    if (isfinite(value))
        events_scalar(e, step, now, tag, value);
}

static void put_events(const struct health *h, const struct health_noise *noise, i64 step,
                       struct events *e)
{
    const double now = sys_wall_seconds(), *logits = h->logits->data;
    char layer[32];
    for (i64 i = 0; i < h->n_params; i++) {
        const struct param_desc *p = &h->params[i];
        if (p->kind == PARAM_BALANCE)
            continue;
        put_scalar(e, step, now, "grad_norm", p->name, health_norm(h, i, HEALTH_GRAD));
        put_scalar(e, step, now, "weight_norm", p->name, health_norm(h, i, HEALTH_WEIGHT));
        put_scalar(e, step, now, "update_ratio", p->name, update_ratio(h, i));
    }
    for (i64 i = 0; i < h->layers; i++) {
        snprintf(layer, sizeof layer, "blocks.%lld", (long long)i);
        put_scalar(e, step, now, "attention_logit_max", layer, logits[i]);
    }
    put_scalar(e, step, now, "noise_scale", "tokens", health_noise_scale(noise));
}

void health_put(const struct health *h, const struct health_noise *noise, i64 step,
                struct run_folder *f)
{
    struct json *j = run_folder_begin_line(f, "health");
    json_put_int(j, "step", step);
    json_put_double(j, "grad_norm", health_total(h, HEALTH_GRAD));
    json_put_double(j, "weight_norm", health_total(h, HEALTH_WEIGHT));
    json_put_double(j, "update_norm", health_total(h, HEALTH_UPDATE));
    put_noise(noise, j);
    put_logits(h, j);
    put_params(h, j);
    run_folder_end_line(f);
    put_events(h, noise, step, &f->events);
}
