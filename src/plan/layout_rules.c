#include "plan/layout_rules.h"

#include "model/params.h"
#include "plan/stack.h"

#include <math.h>

/* Stages between the last layer's and the head's, which get neither. */
static double idle_stages(const struct plan_job *job, const struct plan_layout *l)
{
    double head = (double)(job->spec->vocab * job->spec->width), layers = (double)job->spec->layers;
    double each = layers / (double)l->pp * (1 + head / ((double)params_matmul(job->spec) - head));
    return (double)(l->pp - 1) - ceil(layers / each * (1 - 1e-12));
}

i64 plan_layout_faults(const struct plan_job *job, const struct plan_layout *l, const char **first)
{
    const struct model_spec *s = job->spec;
    const i64 sharers = l->dp * l->cp, stages = l->pp * l->virtual_stages;
    const struct { bool broken; const char *why; } rules[] = {
        { l->tp * l->cp * l->pp * l->dp != job->devices, "tp x cp x pp x dp is not the number of devices" },
        { l->micro_batch * l->micro_batches * l->dp != job->global_batch,
          "micro-batch x micro-batches x dp is not the batch" },
        { s->heads % l->tp, "tp does not divide the attention heads" },
        { s->kv_heads % l->tp && l->tp % s->kv_heads,
          "neither of tp and the key-value heads divides the other" },
        { l->tp > s->kv_heads && s->head_size % (l->tp / s->kv_heads),
          "tp does not cut the columns of a key-value head evenly" },
        { s->hidden % l->tp, "tp does not divide the hidden units" },
        { job->sequence % (l->cp > 1 ? 2 * l->cp * l->tp : l->tp),
          "tp and twice cp do not divide the sequence" },
        { stages > s->layers, "there are more stages than layers" },
        { job->stack->balanced && l->virtual_stages == 1 && idle_stages(job, l) > 1,
          "balanced by what they compute, several stages have nothing to do" },
        { l->virtual_stages > 1 && l->micro_batches % l->pp,
          "interleaved stages need a multiple of pp micro-batches" },
        { l->ep > 1 && s->experts == 0, "the model has no experts for ep to share" },
        { l->ep > 1 && s->experts > 0 && s->experts % l->ep, "ep does not divide the experts" },
        { plan_expert_sharers(job->stack, l) % l->ep,
          job->stack->experts.folds ? "ep does not divide tp x dp x cp" : "ep does not divide dp x cp" },
        { l->zero_group && sharers % l->zero_group, "zero_group does not divide dp x cp" },
    };
    i64 n = 0;
    for (i64 i = 0; i < COUNT_OF(rules); i++)
        if (rules[i].broken && n++ == 0)
            *first = rules[i].why;
    return n;
}

const char *plan_layout_refused(const struct plan_job *job, const struct plan_layout *l)
{
    const char *why = NULL;
    plan_layout_faults(job, l, &why);
    return why;
}
