/* A published table, priced row by row beside what it says. */
#include "base/err.h"
#include "base/json.h"
#include "cli/plan_job.h"
#include "plan/run_size.h"
#include "plan/search.h"
#include "plan/worked.h"

#include <math.h>
#include <stdio.h>

enum { MOST_LAYOUTS = 4000 };

struct table_flags {
    bool json;
};

static const struct option options[] = {
    { "json", OPTION_FIELD(BOOL, struct table_flags, json), "no", .help = "Print JSON." },
    { 0 },
};

/* All of one device. */
struct priced_row {
    const struct worked_row *row;
    const char *layout;         /* the best of those that the source leaves open */
    i64 layouts;
    bool fits;
    double best_s, worst_s;     /* of these layouts; of the best */
    struct plan_band step_s;
    double mfu, mfu_squares, tokens_per_s, memory_bytes, capacity;
    double published_s;         /* of a step: as published, or from what was published */
};

/* --- the numbers -------------------------------------------------------------------- */

/* Seconds of a step that the published figures mean. */
static double published_seconds(const struct worked_row *r, const struct plan_job *job,
                                const struct plan_run_size *size)
{
    double tokens = (double)(job->global_batch * job->sequence) / (double)job->devices;
    double flops = r->squares ? size->square_per_token : size->flops_per_token;
    if (r->step_s > 0)
        return r->step_s;
    if (r->tokens_per_s > 0)
        return tokens / r->tokens_per_s;
    /* Of fp8 too, MFU is counted of the peak of 16 bits, unless a source says otherwise. */
    const struct plan_device *d = &job->machine->device;
    return tokens * flops / (r->mfu / 100 * d->peak[plan_half_dtype(d)]);
}

static int search_row(const struct planned_job *p, struct plan_search_result *out, bool all,
                      struct arena *a)
{
    struct plan_search s = { .job = &p->job, .pick = p->pick, .keep = MOST_LAYOUTS,
                             .prune = false, .all = all };
    return plan_search(&s, out, a);
}

static int price_row(struct priced_row *out, const struct worked_row *r, struct arena *a)
{
    struct plan_flags flags = { .model = r->model, .machine = r->machine, .stack = r->stack,
                                .layout = r->layout, .gpus = r->gpus, .batch = r->batch,
                                .seq = r->seq, .dtype = r->dtype,
                                .any = true }; /* who published it ran it */
    struct planned_job *p = ARENA_NEW(a, struct planned_job);
    struct plan_run_size size;
    struct plan_search_result found;
    TRY(plan_job_open_spec(p, &flags, &r->spec, a));
    TRY(plan_run_size_of(&size, &r->spec, p->job.sequence));
    bool fits = search_row(p, &found, false, a) == OK;
    if (!fits)
        TRY(search_row(p, &found, true, a));
    const struct plan_found *best = &found.best[0];
    double tokens = (double)(p->job.global_batch * p->job.sequence) / (double)p->job.devices;
    *out = (struct priced_row){
        .row = r, .layout = plan_layout_text(&best->layout, a), .layouts = found.n, .fits = fits,
        .best_s = best->step.seconds, .worst_s = found.best[found.n - 1].step.seconds,
        .step_s = best->step.band, .tokens_per_s = tokens / best->step.seconds,
        .memory_bytes = best->step.memory_bytes, .capacity = p->machine.device.memory_bytes,
        .published_s = published_seconds(r, &p->job, &size),
    };
    const struct plan_device *d = &p->machine.device;
    double flops = out->tokens_per_s / d->peak[plan_half_dtype(d)];
    out->mfu = flops * size.flops_per_token;
    out->mfu_squares = flops * size.square_per_token;
    return OK;
}

/* --- as text ------------------------------------------------------------------------ */

static void print_row(const struct priced_row *x)
{
    const struct worked_row *r = x->row;
    char published[24] = "";
    if (r->mfu > 0)
        snprintf(published, sizeof published, "%.3g %%", r->mfu);
    printf("%-22s %7lld %9.4g %9.4g %+7.1f %%  (%.4g-%.4g) %7s %6.1f %8.1f%s  %s\n", r->label,
           (long long)r->gpus, x->published_s, x->best_s, 100 * (x->best_s / x->published_s - 1),
           x->step_s.lo, x->step_s.hi, published,
           100 * (r->squares ? x->mfu_squares : x->mfu), 1e-9 * x->memory_bytes,
           x->fits ? " " : "!", x->layout);
    if (x->layouts > 1)
        printf("%-22s         the source leaves %lld layouts open, %.4g to %.4g s; the fastest is "
               "shown\n", "",
               (long long)x->layouts, x->best_s, x->worst_s);
    if (r->note)
        printf("%-22s         %s\n", "", r->note);
}

/* Of rows with a layout that the source settles, or of the others. */
static void print_errors(const struct priced_row *x, i64 rows, bool open)
{
    double sum = 0, bias = 0;
    i64 inside = 0, n = 0;
    for (i64 i = 0; i < rows; i++) {
        if ((x[i].layouts > 1) != open)
            continue;
        n++;
        double error = x[i].best_s / x[i].published_s - 1;
        sum += fabs(error);
        bias += error;
        inside += x[i].published_s >= x[i].step_s.lo && x[i].published_s <= x[i].step_s.hi;
    }
    if (n == 0)
        return;
    printf("%lld rows %s: %s %.1f %% off on average, bias %+.1f %%; %lld within its P10 to P90\n",
           (long long)n, open ? "whose layout the source leaves open" : "with a settled layout",
           open ? "the fastest layout, which is no prediction, is" : "predictions are",
           100 * sum / (double)n, 100 * bias / (double)n, (long long)inside);
}

static void print_json(const struct worked_table *t, const struct priced_row *x)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_str(&j, "about", t->about);
    json_key(&j, "rows");
    json_begin_array(&j);
    for (i64 i = 0; i < t->n; i++) {
        json_begin_object(&j);
        json_put_str(&j, "label", x[i].row->label);
        json_put_int(&j, "devices", x[i].row->gpus);
        json_put_double(&j, "published_s", x[i].published_s);
        json_put_double(&j, "predicted_s", x[i].best_s);
        json_put_double(&j, "p10_s", x[i].step_s.lo);
        json_put_double(&j, "p90_s", x[i].step_s.hi);
        json_put_int(&j, "open_layouts", x[i].layouts > 1 ? x[i].layouts : 0);
        json_put_double(&j, "slowest_open_layout_s", x[i].worst_s);
        json_put_double(&j, "mfu", x[i].mfu);
        json_put_double(&j, "mfu_square_attention", x[i].mfu_squares);
        json_put_double(&j, "tokens_per_s_per_device", x[i].tokens_per_s);
        json_put_double(&j, "memory_bytes", x[i].memory_bytes);
        json_put_bool(&j, "fits", x[i].fits);
        json_put_str(&j, "layout", x[i].layout);
        json_end(&j);
    }
    json_end(&j);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static int run(struct invocation *v)
{
    const struct table_flags *f = v->options;
    struct worked_table t;
    TRY(worked_load(&t, v->args[0], v->arena));
    struct priced_row *rows = ARENA_ARRAY(v->arena, struct priced_row, t.n);
    for (i64 i = 0; i < t.n; i++) {
        int rc = price_row(&rows[i], &t.rows[i], v->arena);
        if (rc < 0)
            return err_context(rc, "%s, row %s", v->args[0], t.rows[i].label);
    }
    if (f->json) {
        print_json(&t, rows);
        return OK;
    }
    printf("%s\n\n                       devices     step, seconds     error  (P10-P90)            "
           "MFU         memory\n                               published predicted"
           "                         published   here    GB\n", t.about);
    for (i64 i = 0; i < t.n; i++)
        print_row(&rows[i]);
    printf("\n");
    print_errors(rows, t.n, false);
    print_errors(rows, t.n, true);
    printf("'!': does not fit by this count. A published MFU is counted as its source does, of the "
           "peak of 16 bits.\n");
    return OK;
}

static const struct example examples[] = {
    { "headway plan table recipes/plan-megascale.yaml", "MegaScale's steps, priced." },
    { "headway plan table recipes/plan-llama3.yaml --json", "Llama 3 405B's, as JSON." },
    { 0 },
};

const struct command cmd_plan_table = {
    .name = "table",
    .summary = "Price the rows of a published table beside what it says",
    .arguments = "FILE",
    .description = "FILE lists runs that somebody published: model, machine, batch, what is known "
                   "of the layout, and a step's time, an MFU or tokens per second. What the source "
                   "leaves open is searched; the best is shown and the range said. Nothing is "
                   "fitted here. Examples are recipes/plan-*.yaml.",
    .options = options,
    .options_bytes = sizeof(struct table_flags),
    .min_args = 1,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
