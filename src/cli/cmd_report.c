/* Runs as a page. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "diagnose/record.h"
#include "report/run_page.h"
#include "train/run_folder.h"

#include <stdio.h>

struct report_flags {
    const char *out;
    i64 step;
};

static const struct option options[] = {
    { "out", OPTION_FIELD(PATH, struct report_flags, out), NULL,
      .help = "Where to write the page; else report.html in the first run's folder." },
    { "step", OPTION_FIELD(INT, struct report_flags, step), "0", .max = 1e15,
      .help = "The last of the ten steps that the timeline shows; 0: the last that is recorded." },
    { 0 },
};

static const char *title_of(struct run_page *const *runs, i64 n, struct arena *a)
{
    const char *title = runs[0]->name;
    for (i64 i = 1; i < n; i++)
        title = arena_printf(a, "%s, %s", title, runs[i]->name);
    return arena_printf(a, "%s - Headway", title);
}

static int write_page(struct run_page *const *runs, i64 n, const char *path, struct arena *a)
{
    struct text data = { 0 }, page = { 0 };
    run_page_data(runs, n, RUN_PAGE_ALL, &data);
    run_page_html(&data, title_of(runs, n, a), &page);
    text_fini(&data);
    int rc = file_replace(path, page.data, page.length);
    text_fini(&page);
    return rc;
}

/* What the page lacks of its curves, said where it is written, too. */
static void warn_of_metrics(const struct run_page *p)
{
    const struct run_metrics *m = &p->metrics;
    if (*p->unread)
        log_line(LOG_WARN, "%s; the page has no curves", p->unread);
    else if (m->lines == m->bad_lines)
        log_line(LOG_WARN, "%s/metrics.jsonl: %s; the page has no curves", p->folder,
                 m->lines > 0 ? "no line can be read" : "there is no whole line");
    else if (m->bad_lines > 0)
        log_line(LOG_WARN, "%s/metrics.jsonl: %lld of %lld lines cannot be read", p->folder,
                 (long long)m->bad_lines, (long long)m->lines);
}

/* A step that none of the runs has recorded would be another one on the page. */
static int check_step(const struct invocation *v, i64 step)
{
    struct record r;
    i64 first = INT64_MAX, last = -1;
    for (int i = 0; i < v->n_args && step > 0; i++) {
        if (record_open(&r, v->args[i]) < 0)
            return OK; /* the page says why it has no timeline */
        if (r.n_steps > 0) {
            first = i64_min(first, r.steps[0] + 1);
            last = i64_max(last, r.steps[r.n_steps - 1] + 1);
        }
        record_close(&r);
    }
    if (step == 0 || last < 0 || (step >= first && step <= last))
        return OK;
    return err_set(ERR_USAGE, "--step %lld: steps %lld to %lld are recorded; give one of them, or "
                   "leave --step out for the last", (long long)step, (long long)first,
                   (long long)last);
}

static int run(struct invocation *v)
{
    const struct report_flags *f = v->options;
    const char *path = f->out ? f->out : arena_printf(v->arena, "%s/report.html", v->args[0]);
    struct run_page **runs = ARENA_ARRAY(v->arena, struct run_page *, v->n_args);
    int opened = 0, rc = check_step(v, f->step);
    bool changed;
    for (; opened < v->n_args && rc >= 0; opened++) {
        runs[opened] = ARENA_NEW(v->arena, struct run_page);
        TRY_TO(done, run_page_open(runs[opened], v->args[opened]));
        runs[opened]->newest = f->step - 1;
        (void)run_page_read(runs[opened], &changed); /* the page says what it lacks */
        warn_of_metrics(runs[opened]);
    }
    if (rc >= 0)
        rc = write_page(runs, opened, path, v->arena);
    if (rc >= 0)
        printf("%s\n", path);
done:
    while (opened-- > 0)
        run_page_close(runs[opened]);
    return rc;
}

static const struct example examples[] = {
    { "headway report runs/tiny", "Leaves runs/tiny/report.html; open it in any browser." },
    { "headway report runs/tiny --step 60", "The same; its timeline shows steps 51 to 60." },
    { "headway report runs/a runs/b --out compare.html",
      "Two runs on one page: curves on each other, and which settings differ." },
    { 0 },
};

const struct command cmd_report = {
    .name = "report",
    .summary = "Write a run, or several beside each other, as one HTML page",
    .arguments = "RUN [RUN...]",
    .description = "What a diagnosis finds and where the peak goes; curves of loss, learning rate "
                   "and speed; a timeline of steps, kernels beside the machine's ceilings, memory "
                   "over a step; health of learning where it was logged; energy, data, "
                   "settings and the log: in one file that needs no network and nothing "
                   "beside it. The run may still be going on; then the page shows it as "
                   "it is now. What a folder lacks is named on the page.",
    .options = options,
    .options_bytes = sizeof(struct report_flags),
    .min_args = 1,
    .max_args = 16,
    .examples = examples,
    .run = run,
};
