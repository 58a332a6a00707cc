/* The last steps of a run, task by task, in the run folder (see session.h). */
#include "base/log.h"
#include "trace/export.h"
#include "train/session.h"

#include <stdio.h>

enum { EXPORT_STEPS = 3 };

static void task_name(void *context, const struct span *span, char *out, i64 size)
{
    const struct program *p = session_program(context, span->step)->program;
    if (span->task >= p->n_tasks) {
        snprintf(out, (size_t)size, "task %u", span->task);
        return;
    }
    const struct task *t = p->by_id[span->task];
    const char *again = t->recompute ? " (again)" : "";
    if (t->layer >= 0)
        snprintf(out, (size_t)size, "%s%s, layer %d", t->op->name, again, t->layer);
    else
        snprintf(out, (size_t)size, "%s%s", t->op->name, again);
}

void session_export_trace(struct session *s)
{
    static void (*const exporters[])(const struct trace *, u32, const struct trace_names *,
                                     struct text *) = { trace_export_chrome,
                                                        trace_export_perfetto };
    static const char *const files[] = { "trace.json", "trace.pftrace" };
    struct trace_names names = { .context = s, .task = task_name, .rank = 0 };
    if (s->config->trace.level == TRACE_OFF)
        return;
    for (i64 i = 0; i < COUNT_OF(files); i++) {
        struct text out = { 0 };
        exporters[i](&s->engine.trace, EXPORT_STEPS, &names, &out);
        if (run_folder_write(&s->folder, files[i], out.data, out.length) < 0)
            log_line(LOG_WARN, "%s", err_message());
        text_fini(&out);
    }
}
