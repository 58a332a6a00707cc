#include "train/score.h"

#include <string.h>

static struct tensor *input(struct graph *g, enum dtype dtype, i64 n, const char *name)
{
    return graph_tensor(g, ROLE_INPUT, dtype, 1, &n, "%s", name);
}

int scorer_init(struct scorer *s, const struct model *m, struct engine *e, i64 B, i64 T,
                bool logits, struct arena *a)
{
    struct graph *g = &s->graph;
    struct decoder_shape shape = { .B = B, .T = T };
    *s = (struct scorer){ .engine = e, .B = B, .T = T, .vocab = m->spec.vocab };
    graph_init(g, a);
    s->batch.tokens = input(g, DTYPE_I32, B * T, "tokens");
    s->batch.targets = input(g, DTYPE_I32, B * T, "targets");
    s->batch.weights = input(g, DTYPE_F32, B * T, "weights");
    s->batch.positions = input(g, DTYPE_I32, B * T, "positions");
    s->batch.begin = input(g, DTYPE_I32, B * T, "begin");
    s->batch.inv_weight = input(g, DTYPE_F32, 1, "inv_weight");
    struct tensor *h = decoder_hidden(g, m, &s->batch, &shape);
    if (logits && (s->logits = decoder_logits(g, m, h, 0, B * T)))
        s->logits->role = ROLE_RESULT;
    s->nll = decoder_loss(g, m, h, &s->batch, &shape, NULL);
    TRY(program_new(&s->program, g, "score", 1));
    return engine_add(e, s->program);
}

void scorer_row(struct scorer *s, i64 b, const i32 *tokens, i64 n, i64 from)
{
    i32 *to = (i32 *)s->batch.tokens->data + b * s->T;
    i32 *targets = (i32 *)s->batch.targets->data + b * s->T;
    i32 *positions = (i32 *)s->batch.positions->data + b * s->T;
    i32 *begin = (i32 *)s->batch.begin->data + b * s->T;
    float *weights = (float *)s->batch.weights->data + b * s->T;
    assert(n <= s->T);
    for (i64 i = 0; i < s->T; i++) {
        bool asked = i >= from && i + 1 < n;
        to[i] = i < n ? tokens[i] : 0;
        targets[i] = asked ? tokens[i + 1] : 0;
        positions[i] = (i32)i;
        begin[i] = 0;
        weights[i] = asked ? 1.0f : 0.0f;
    }
}

void scorer_run(struct scorer *s)
{
    *(float *)s->batch.inv_weight->data = 1;
    engine_run(s->engine, s->program, NULL, 0);
}

double scorer_sum(const struct scorer *s, i64 b)
{
    const float *nll = (const float *)s->nll->data + b * s->T;
    const float *weights = (const float *)s->batch.weights->data + b * s->T;
    double sum = 0;
    for (i64 i = 0; i < s->T; i++)
        if (weights[i] > 0)
            sum += (double)nll[i];
    return sum;
}
