/* Checkpoints of all ranks of a run together (see session.h). */
#include "base/log.h"
#include "base/sys.h"
#include "train/session.h"

#include <string.h>

int session_open_writer(struct session *s)
{
    const struct train_config *c = s->config;
    struct checkpoint_options options = {
        .keep = (int)c->checkpoint.keep,
        .max_missed = (int)c->checkpoint.max_missed,
        .async = c->checkpoint.async,
        .snapshot = (enum checkpoint_snapshot)c->checkpoint.snapshot,
        .pool = s->engine.pool,
        .resumed_step = s->resumed ? s->state.step : -1,
        .seen_step = s->seen_step,
        .rank = (int)s->mesh.rank,
        .ranks = (int)layout_ranks(&s->mesh.layout),
        .away = s->model->away,
        .away_bytes = s->model->away_bytes,
    };
    TRY(checkpoint_writer_new(&s->writer, s->checkpoint_dir, s->written.list, s->written.n,
                              &options));
    double seconds = checkpoint_predict_seconds(s->writer), grace = s->request.hooks.grace;
    if (grace > 0 && seconds > grace)
        log_line(LOG_WARN, "a checkpoint takes about %.0f s on this disk, longer than the %.0f s "
                 "of --grace: whoever stops this run should wait longer, or save often "
                 "(checkpoint.interval)", seconds, grace);
    return OK;
}

/* --- saving ------------------------------------------------------------------------- */

/* What the leading rank says of a step: its code, and the ticket with which all begin. */
struct opened {
    i64 code;
    u64 ticket;
};

static int save_together(struct session *s, const json_t *state)
{
    struct opened told = { 0 };
    i64 step = s->state.step;
    int rc = OK;
    if (session_leads(s))
        told.code = rc = checkpoint_open_step(s->writer, step, &told.ticket);
    TRY(mesh_tell(&s->mesh, &told, sizeof told) < 0 ? ERR_PEER : OK);
    TRY(rc);
    if (told.code < 0)
        return err_set((int)told.code, "rank 0 gave up saving checkpoints");
    return told.ticket ? checkpoint_begin_part(s->writer, step, told.ticket, state) : OK;
}

int session_save(struct session *s)
{
    if (s->request.sleep)
        return OK;
    json_t *state = session_state_json(s);
    int rc = s->mesh.world ? save_together(s, state)
                           : checkpoint_begin(s->writer, s->state.step, state);
    json_decref(state);
    s->saved_clock = s->clock;
    return rc;
}

/* How far the leading rank's checkpoint is. */
struct saved {
    i64 code;
    bool busy;
    struct checkpoint_result result;
};

int session_wait_saved(struct session *s, struct checkpoint_result *result)
{
    if (s->request.sleep) {
        *result = (struct checkpoint_result){ .step = -1 };
        return OK;
    }
    enum { LOOK_S = 1 }; /* ranks meet so often meanwhile: one that died is noticed */
    struct saved told = { .busy = true };
    if (!s->mesh.world)
        return checkpoint_wait(s->writer, 0, result);
    while (told.busy) {
        if (session_leads(s)) {
            told.code = checkpoint_wait(s->writer, LOOK_S, &told.result);
            told.busy = checkpoint_busy(s->writer);
        }
        TRY(mesh_tell(&s->mesh, &told, sizeof told));
    }
    *result = told.result;
    if (!session_leads(s)) { /* whether this rank's part was written is in what was told */
        struct checkpoint_result own;
        checkpoint_wait(s->writer, 0, &own);
    }
    return told.code < 0 ? err_set((int)told.code, "%s", told.result.error) : OK;
}

/* A data-parallel rank has all of the state, and can save it when the others are gone. */
int session_save_alone(struct session *s, struct checkpoint_result *result)
{
    struct model_boxes all = model_boxes_held(s->model, &s->arena);
    struct checkpoint_options options = { .keep = (int)s->config->checkpoint.keep,
                                          .resumed_step = INT64_MAX };
    struct checkpoint_result before;
    checkpoint_poll(s->writer, &before);
    checkpoint_writer_free(s->writer);
    s->writer = NULL;
    s->mesh.world = NULL; /* from here on this rank asks nobody */
    *result = before;
    if (before.step == s->state.step)
        return OK;
    TRY(checkpoint_writer_new(&s->writer, s->checkpoint_dir, all.list, all.n, &options));
    TRY(session_save(s));
    return checkpoint_wait(s->writer, 0, result);
}

/* --- loading ------------------------------------------------------------------------ */

/* The worst of all ranks' codes: damage only where nobody has anything else to say, because
 * then an older checkpoint will do. */
static int worst_code(void *context, int code)
{
    const struct session *s = context;
    double values[] = { code < 0 && code != ERR_FORMAT ? -code : 0, code == ERR_FORMAT };
    TRY(mesh_max(&s->mesh, values, COUNT_OF(values)));
    return values[0] > 0 ? -(int)values[0] : values[1] > 0 ? ERR_FORMAT : OK;
}

static int load_together(struct session *s, i64 step, json_t **state)
{
    const struct checkpoint_want want = { .tensors = s->held.list, .n = s->held.n,
                                          .part = s->held.part, .agree = worst_code,
                                          .context = s };
    return checkpoint_load_part(s->checkpoint_dir, step, &want, state);
}

/* The newest step below that, as the leading rank sees them; -1: none. */
static int find_step(struct session *s, i64 below, i64 *step)
{
    struct checkpoint_entry *entries;
    int n = session_leads(s) ? checkpoint_list(s->checkpoint_dir, &entries) : 0;
    TRY(n);
    *step = -1;
    for (int i = 0; i < n; i++)
        if (entries[i].step < below)
            *step = entries[i].step;
    if (session_leads(s))
        sys_free(entries);
    return mesh_tell(&s->mesh, step, sizeof *step);
}

int session_load(struct session *s, i64 step, json_t **state)
{
    int rc = ERR_FORMAT;
    if (step == CHECKPOINT_NEWEST)
        TRY(find_step(s, INT64_MAX, &s->seen_step));
    if (!s->mesh.world)
        return checkpoint_load(s->checkpoint_dir, &step, s->held.list, s->held.n, state);
    if (step != CHECKPOINT_NEWEST)
        return load_together(s, step, state);
    for (i64 below = INT64_MAX; rc == ERR_FORMAT; below = step) {
        TRY(find_step(s, below, &step));
        if (step < 0)
            return err_set(ERR_FORMAT, "%s has no sound checkpoint", s->checkpoint_dir);
        rc = load_together(s, step, state);
        if (rc == ERR_FORMAT)
            log_line(LOG_WARN, "%s: passed over: %s", s->checkpoint_dir, err_message());
    }
    return rc;
}

int session_any_saved(struct session *s, bool *any)
{
    i64 step;
    TRY(find_step(s, INT64_MAX, &step));
    *any = step >= 0;
    return OK;
}
