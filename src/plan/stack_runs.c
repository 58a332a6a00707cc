#include "plan/stack_runs.h"

#include "base/err.h"
#include "plan/cost.h"
#include "plan/stack.h"

#include <string.h>

static bool has_word(const struct option_strings *list, const char *word)
{
    for (i64 i = 0; i < list->count; i++)
        if (!strcmp(list->at[i], word))
            return true;
    return false;
}

static bool has_stage(const struct option_ints *list, i64 stage)
{
    for (i64 i = 0; i < list->count; i++)
        if (list->at[i] == stage)
            return true;
    return list->count == 0;
}

int plan_runs_check(const struct plan_runs *r, const char *where)
{
    const struct option_strings axes = { (const char *[]){ "tp", "pp", "cp", "ep" }, 4 };
    for (i64 i = 0; i < r->axes.count; i++)
        if (!has_word(&axes, r->axes.at[i]))
            return err_set(ERR_CONFIG, "%s: runs.axes has '%s'; there are tp, pp, cp and ep", where,
                           r->axes.at[i]);
    for (i64 i = 0; i < r->schedules.count; i++) {
        int kind = 0;
        while (kind < SCHEDULE_KINDS &&
               strcmp(r->schedules.at[i], schedule_kind_name((enum schedule_kind)kind)))
            kind++;
        if (kind == SCHEDULE_KINDS)
            return err_set(ERR_CONFIG, "%s: runs.schedules has '%s'; there are gpipe, 1f1b, "
                           "interleaved, zb-h1 and zb-v", where, r->schedules.at[i]);
    }
    return OK;
}

/* Embedding and head may stand for layers, on the first and the last stage. */
static bool is_even(const struct plan_job *job, i64 stages)
{
    const struct plan_runs *r = &job->stack->runs;
    for (i64 more = 0; more <= r->spare_layers; more++)
        if ((job->spec->layers + job->spec->mtp_depth + more) % stages == 0)
            return true;
    return !r->even_stages || job->spec->layers % stages == 0;
}

const char *plan_runs_degrees(const struct plan_job *job, const struct plan_layout *l)
{
    const struct plan_runs *r = &job->stack->runs;
    if (job->any)
        return NULL;
    if (l->tp > 1 && !has_word(&r->axes, "tp"))
        return "it has no tensor parallelism";
    if (l->pp > 1 && !has_word(&r->axes, "pp"))
        return "it has no pipelines";
    if (l->cp > 1 && !has_word(&r->axes, "cp"))
        return "it has no context parallelism";
    if (l->ep > 1 && !has_word(&r->axes, "ep"))
        return "it has no expert parallelism";
    if (r->kv_divides && job->spec->kv_heads % l->tp)
        return "its tp must divide the key-value heads";
    if (!is_even(job, l->pp))
        return "its stages must have as many layers each";
    return NULL;
}

const char *plan_runs_order(const struct plan_job *job, const struct plan_layout *l)
{
    const struct plan_runs *r = &job->stack->runs;
    if (job->any || l->pp == 1)
        return NULL;
    if (r->schedules.count && !has_word(&r->schedules, schedule_kind_name(l->schedule)))
        return "it has no such schedule";
    if (!is_even(job, l->pp * l->virtual_stages))
        return "its stages must have as many layers each";
    return NULL;
}

const char *plan_runs_split(const struct plan_job *job, const struct plan_layout *l)
{
    const struct plan_runs *r = &job->stack->runs;
    if (job->any || l->dp * l->cp == 1)
        return NULL;
    if (!has_stage(&r->zero, l->zero))
        return "it does not split this over data ranks (zero)";
    if (l->pp > 1 && l->zero > r->zero_with_pp)
        return "beside a pipeline it splits less over data ranks (zero)";
    if (l->zero_group > 0 && !r->zero_groups)
        return "it splits over all data ranks, not over some (zero_group)";
    return NULL;
}

const char *plan_runs_refused(const struct plan_job *job, const struct plan_layout *l)
{
    const char *why = plan_runs_degrees(job, l);
    why = why ? why : plan_runs_order(job, l);
    return why ? why : plan_runs_split(job, l);
}
