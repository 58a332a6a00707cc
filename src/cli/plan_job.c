#include "cli/plan_job.h"

#include "base/err.h"
#include "base/json.h"
#include "plan/interval.h"

#include <math.h>
#include <stdio.h>

/* Constants of a family that nobody calibrated are those of the H100. */
static int load_family(struct planned_job *p, struct arena *a)
{
    const char *family = p->machine.device.family;
    if (family && plan_family_load(&p->family, family, a) == OK)
        return OK;
    TRY(plan_family_load(&p->family, "h100", a));
    p->foreign = p->family.name ? p->family.name : "h100";
    return OK;
}

/* The family's constants are data sheets' and defaults. */
static bool nothing_fitted(const struct planned_job *p)
{
    return p->family.seen_devices == 0;
}

static void extrapolate(struct planned_job *p)
{
    p->widened = plan_interval_widening(&p->job);
    p->extrapolated = plan_interval_strange(&p->job) || p->widened > 1 || nothing_fitted(p);
}

/* Matrices, rows and experts are cut by powers of two; what else the devices are a multiple of is
 * left to ranks that share the batch, which divides by it unless it would become another one. */
i64 plan_job_batch(const struct plan_job *job)
{
    enum { LEAST_TOKENS = 1 << 19, TOKENS_PER_DEVICE = 1024, MOST_TIMES = 4 };
    i64 tokens = i64_max(LEAST_TOKENS, TOKENS_PER_DEVICE * job->devices);
    i64 rows = i64_max(1, tokens / job->sequence), odd = job->devices;
    while (odd % 2 == 0)
        odd /= 2;
    return odd <= MOST_TIMES * rows ? round_up(rows, odd) : rows;
}

static int check(const struct planned_job *p)
{
    if (p->spec.vocab == 0)
        return err_set(ERR_CONFIG, "%s leaves its vocabulary open; a plan needs to know it: give "
                       "its file a vocab", p->spec.name);
    if (p->job.sequence > p->spec.positions)
        return err_set(ERR_CONFIG, "--seq %lld is more than the %lld positions of %s; a copy of "
                       "its file with more positions can be planned", (long long)p->job.sequence,
                       (long long)p->spec.positions, p->spec.name);
    TRY(plan_dtype_check(&p->machine.device, p->job.dtype));
    return plan_machine_room(&p->machine, p->job.devices);
}

int plan_job_open(struct planned_job *out, const struct plan_flags *flags, struct arena *a)
{
    struct model_spec spec;
    TRY(spec_load(&spec, flags->model, a));
    return plan_job_open_spec(out, flags, &spec, a);
}

int plan_job_open_spec(struct planned_job *out, const struct plan_flags *flags,
                       const struct model_spec *spec, struct arena *a)
{
    *out = (struct planned_job){ .spec = *spec };
    TRY(plan_machine_load(&out->machine, flags->machine, a));
    TRY(plan_stack_load(&out->stack, flags->stack, a));
    TRY(load_family(out, a));
    TRY(plan_pick_parse(&out->pick, flags->layout, "--layout", a));
    out->job = (struct plan_job){
        .spec = &out->spec, .machine = &out->machine, .family = &out->family,
        .stack = &out->stack, .devices = flags->gpus, .dtype = flags->dtype,
        .tokens = (double)flags->tokens, .any = flags->any,
        .sequence = flags->seq ? flags->seq : out->spec.positions,
    };
    extrapolate(out);
    out->batch_assumed = flags->batch == 0;
    out->job.global_batch = flags->batch ? flags->batch : plan_job_batch(&out->job);
    return check(out);
}

void plan_job_print(const struct planned_job *p)
{
    const struct plan_job *j = &p->job;
    printf("%s on %lld x %s (%s), %s, rows of %lld tokens, %lld a step%s; software as %s\n",
           p->spec.name, (long long)j->devices, p->machine.device.name, p->machine.name,
           plan_dtype_names[j->dtype], (long long)j->sequence, (long long)j->global_batch,
           p->batch_assumed ? " (assumed)" : "", p->stack.name);
    if (p->foreign)
        printf("extrapolated: no step of a %s was fitted; constants of %s\n",
               p->machine.device.name, p->foreign);
    if (nothing_fitted(p))
        printf("extrapolated: no step of devices like these was fitted; constants are of data "
               "sheets, and defaults\n");
    else if ((double)j->devices > p->family.seen_devices)
        printf("extrapolated: constants were fitted to steps of at most %.0f devices\n",
               p->family.seen_devices);
    if (!nothing_fitted(p) && (double)j->sequence > p->family.seen_sequence)
        printf("extrapolated: constants were fitted to rows of at most %.0f tokens\n",
               p->family.seen_sequence);
    if (plan_interval_strange(j))
        printf("extrapolated: no step of %s was fitted on such devices\n", p->stack.name);
    if (p->widened > 1)
        printf("therefore the interval is taken to be %.3g times as wide (a rule: nobody knows)\n",
               p->widened);
}

void plan_job_json(const struct planned_job *p, struct json *j)
{
    json_key(j, "job");
    json_begin_object(j);
    json_put_str(j, "model", p->spec.name);
    json_put_str(j, "machine", p->machine.name);
    json_put_str(j, "device", p->machine.device.name);
    json_put_int(j, "devices", p->job.devices);
    json_put_int(j, "sequence", p->job.sequence);
    json_put_int(j, "global_batch", p->job.global_batch);
    json_put_bool(j, "batch_assumed", p->batch_assumed);
    json_put_double(j, "tokens", p->job.tokens);
    json_put_str(j, "stack", p->stack.name);
    json_put_bool(j, "extrapolated", p->extrapolated);
    json_put_double(j, "interval_widened", p->widened);
    json_end(j);
}
