#include "cli/plan_terms.h"

#include "base/json.h"
#include "plan/interval.h"
#include "plan/stack.h"

#include <stdio.h>
#include <string.h>

/* A place or a PUE that cannot be is said even where no whole run is asked about. */
static int check_terms(const struct planned_run *x)
{
    struct plan_bill nothing;
    struct plan_use use = { .pue = x->terms.pue, .location = x->terms.location,
                            .g_per_kwh = x->terms.g_per_kwh };
    return plan_bill_of(&x->p.machine, &use, &nothing);
}

int plan_run_open(struct planned_run *out, const struct plan_run_flags *flags, struct arena *a)
{
    *out = (struct planned_run){ .terms = { .pue = flags->pue, .location = flags->location,
                                            .g_per_kwh = flags->g_per_kwh } };
    TRY(plan_job_open(&out->p, &flags->plan, a));
    TRY(check_terms(out));
    if (flags->price)
        TRY(plan_price_parse(flags->price, "--price", &out->terms.price, &out->terms.currency, a));
    if (strcmp(flags->law, "none") == 0)
        return OK;
    TRY(failure_law_load(&out->law, flags->law, a));
    out->terms.law = &out->law;
    return OK;
}

void plan_band_print(const struct plan_band *b, double scale, int width)
{
    char text[64];
    if (b->mid == 0)
        snprintf(text, sizeof text, "-");
    else if (b->lo == b->hi)
        snprintf(text, sizeof text, "%.4g", scale * b->mid);
    else
        snprintf(text, sizeof text, "%.4g (%.3g-%.3g)", scale * b->mid, scale * b->lo,
                 scale * b->hi);
    printf(" %-*s", width, text);
}

static void put_layout(struct json *j, const struct plan_layout *l, struct arena *a)
{
    static const char *const recompute[] = { "none", "selective", "full" };
    json_put_str(j, "layout", plan_layout_text(l, a));
    json_put_int(j, "tp", l->tp);
    json_put_int(j, "cp", l->cp);
    json_put_int(j, "pp", l->pp);
    json_put_int(j, "dp", l->dp);
    json_put_int(j, "ep", l->ep);
    json_put_int(j, "micro_batch", l->micro_batch);
    json_put_int(j, "micro_batches", l->micro_batches);
    json_put_int(j, "chunks", l->virtual_stages);
    json_put_str(j, "schedule", schedule_kind_name((enum schedule_kind)l->schedule));
    json_put_str(j, "recompute", recompute[l->recompute]);
    json_put_int(j, "zero", l->zero);
    json_put_int(j, "zero_group", l->zero_group);
}

void plan_found_json(struct json *j, const struct planned_run *x, const struct plan_found *f,
                     const struct plan_outcome *o, struct arena *a)
{
    json_begin_object(j);
    put_layout(j, &f->layout, a);
    plan_band_json(j, "step_seconds", &o->step_s);
    json_put_double(j, "step_may_wait_seconds",
                    plan_interval_may_wait(&x->p.job, &f->layout, &f->step));
    plan_band_json(j, "tokens_per_second_per_device", &o->rate);
    plan_band_json(j, "mfu", &o->mfu);
    json_put_double(j, "hfu", o->hfu);
    json_put_double(j, "memory_bytes", f->step.memory_bytes);
    json_put_str(j, "memory_binding", plan_memory_names[f->step.binding]);
    plan_band_json(j, "goodput", &o->goodput);
    plan_band_json(j, "days", &o->days);
    plan_band_json(j, "mwh", &o->mwh);
    plan_band_json(j, "tco2e", &o->tco2e);
    plan_band_json(j, "money", &o->money);
    if (o->money.mid > 0)
        json_put_str(j, "currency", o->bill.currency);
    json_put_int(j, "spare_devices", o->spares);
    json_end(j);
}

void plan_notes_print(const struct planned_run *x, const struct plan_found *f,
                      const struct plan_outcome *o)
{
    const double may_wait = plan_interval_may_wait(&x->p.job, &f->layout, &f->step);
    printf("\nMFU: model FLOPs (products and attention as half squares, forward and backward, "
           "nothing twice) / time / dense peak\n(P10-P90): ");
    printf("residuals of the fit of %s", x->p.family.name);
    if (x->p.widened > 1)
        printf(", %.3g times as far out (extrapolated)", x->p.widened);
    if (may_wait > 0)
        printf("; of runs of %s on as many nodes more than one in five took longer, such a\n"
               "step by %.3g s: P90 holds that, too", x->p.job.stack->name, may_wait);
    printf("\n");
    if (x->p.job.tokens <= 0)
        return;
    if (x->terms.law)
        printf("goodput: failures as of %s, %lld spare devices; 'headway plan goodput' has more\n",
               x->law.name, (long long)o->spares);
    if (o->bill.power_known)
        printf("energy: devices and hosts x PUE %.3g; gas: %.4g g/kWh, %s%s\n", o->bill.pue.mid,
               o->bill.carbon.g_per_kwh, o->bill.carbon.location,
               o->bill.carbon.assumed ? " (assumed; say --location)" : "");
    if (o->money.mid <= 0)
        printf("money: no price was given: --price 4.2USD/h\n");
}
