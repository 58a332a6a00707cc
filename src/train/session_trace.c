/* The last steps of a run, task by task, of all ranks on one clock, in the run folder; and how
 * much of what lanes did was hidden (see session.h). */
#include "base/log.h"
#include "parallel/clock.h"
#include "trace/export.h"
#include "train/session.h"

#include <stdio.h>
#include <stdlib.h>

enum { EXPORT_STEPS = 3, OVERLAP_STEPS = 32 };

static void task_label(void *context, const struct span *span, struct trace_label *out)
{
    const struct program *p = session_program(context, span->step)->program;
    if (span->task >= p->n_tasks) {
        snprintf(out->name, sizeof out->name, "task %u", span->task);
        return;
    }
    const struct task *t = p->by_id[span->task];
    const char *again = t->recompute ? " (again)" : "";
    const struct tensor *moved = t->in[0] ? t->in[0] : t->out[0];
    out->bytes = t->cost.message_bytes;
    out->tensor = moved ? moved->name : NULL;
    if (t->layer >= 0)
        snprintf(out->name, sizeof out->name, "%s%s, layer %d", t->op->name, again, t->layer);
    else
        snprintf(out->name, sizeof out->name, "%s%s", t->op->name, again);
}

/* --- one file of all ranks ---------------------------------------------------------- */

/* The leader: appends what every other rank gives. */
static int join_parts(struct session *s, const struct trace_format *f, const i64 *bytes,
                      struct text *out)
{
    struct text part = { 0 };
    int rc = OK;
    for (int r = 1; r < s->mesh.world->n && rc >= 0; r++) {
        text_clear(&part);
        text_repeat(&part, ' ', bytes[r]);
        rc = mesh_give(&s->mesh, r, part.data, bytes[r]);
        text_add(out, f->between);
        text_add_bytes(out, part.data, bytes[r]);
    }
    text_fini(&part);
    return rc;
}

/* Leaves the whole file in *out at the leader, this rank's part elsewhere. */
static int make_file(struct session *s, const struct trace_format *f,
                     const struct trace_names *names, struct text *out)
{
    i64 n = s->mesh.world ? s->mesh.world->n : 1;
    i64 *bytes = ARENA_ARRAY(&s->arena, i64, n);
    if (session_leads(s))
        f->head((int)s->mesh.rank, (int)n, out);
    i64 head = out->length, own;
    f->part(&s->engine.trace, EXPORT_STEPS, names, out);
    own = out->length - head;
    TRY(mesh_gather(&s->mesh, &own, bytes, (i64)sizeof own));
    if (!session_leads(s))
        return mesh_give(&s->mesh, (int)s->mesh.rank, out->data, own);
    if (n > 1)
        TRY(join_parts(s, f, bytes, out));
    text_add(out, f->foot);
    return OK;
}

static int export_all(struct session *s)
{
    struct trace_names names = { .context = s, .task = task_label, .rank = (int)s->mesh.rank };
    TRY(clock_shift(&s->mesh, &names.shift_ns));
    for (i64 i = 0; i < COUNT_OF(trace_formats); i++) {
        struct text out = { 0 };
        int rc = make_file(s, &trace_formats[i], &names, &out);
        if (rc >= 0 && session_leads(s) &&
            run_folder_write(&s->folder, trace_formats[i].file, out.data, out.length) < 0)
            log_line(LOG_WARN, "%s", err_message()); /* the others go on, so this one must */
        text_fini(&out);
        TRY(rc);
    }
    return OK;
}

/* --- how much was hidden ------------------------------------------------------------ */

static int by_size(const void *a, const void *b)
{
    u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return (x > y) - (x < y);
}

/* Medians over the last steps; the first step of a process is not like the others. */
static struct trace_overlap usual_overlap(const struct session *s, int lane)
{
    u64 busy[OVERLAP_STEPS], exposed[OVERLAP_STEPS];
    i64 n = i64_min(OVERLAP_STEPS, s->steps_taken - 1);
    for (i64 i = 0; i < n; i++) {
        struct trace_overlap o = trace_overlap(&s->engine.trace, lane,
                                               (u32)(s->state.step - 1 - i));
        busy[i] = o.busy_ns;
        exposed[i] = o.exposed_ns;
    }
    if (n < 1)
        return (struct trace_overlap){ 0 };
    qsort(busy, (size_t)n, sizeof *busy, by_size);
    qsort(exposed, (size_t)n, sizeof *exposed, by_size);
    return (struct trace_overlap){ busy[n / 2], exposed[n / 2] };
}

static void tell_overlap(struct session *s)
{
    for (int lane = TRACE_CALLS; lane < TRACE_LANES; lane++) {
        struct trace_overlap o = usual_overlap(s, lane);
        if (o.busy_ns == 0)
            continue;
        double hidden = o.exposed_ns < o.busy_ns
                            ? 1 - (double)o.exposed_ns / (double)o.busy_ns : 0;
        log_line(LOG_INFO, "%s: busy for %.1f ms of a step, %.0f %% of it hidden behind computing",
                 trace_lane_name(lane), 1e-6 * (double)o.busy_ns, 100 * hidden);
        struct json *j = run_folder_begin_line(&s->folder, "overlap");
        json_put_str(j, "axis", trace_lane_name(lane));
        json_put_double(j, "busy_s", 1e-9 * (double)o.busy_ns);
        json_put_double(j, "exposed_s", 1e-9 * (double)o.exposed_ns);
        run_folder_end_line(&s->folder);
    }
}

void session_export_trace(struct session *s)
{
    if (s->config->trace.level == TRACE_OFF)
        return;
    if (s->config->trace.level == TRACE_TASKS && session_leads(s))
        tell_overlap(s);
    if (export_all(s) < 0)
        log_line(LOG_WARN, "%s", err_message());
}

int session_open_trace(struct session *s)
{
    if (s->config->trace.level != TRACE_TASKS)
        return OK;
    for (int lane = LANE_COMPUTE + 1; lane < LANE_COUNT; lane++)
        if (lane == LANE_AWAY ? s->away != NULL : s->mesh.groups[lane] != NULL)
            TRY(trace_open(&s->engine.trace, trace_of_lane(lane)));
    return OK;
}
