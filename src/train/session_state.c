/* What a checkpoint holds of a session, and how it comes back (see session.h). */
#include "base/sys.h"
#include "train/session.h"

static json_t *numbers(const double *values, i64 n)
{
    json_t *list = json_array();
    for (i64 i = 0; i < n; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *integers(const i64 *values, i64 n)
{
    json_t *list = json_array();
    for (i64 i = 0; i < n; i++)
        json_array_append_new(list, json_integer(values[i]));
    return list;
}

static json_t *guard_json(const struct guard *g)
{
    json_t *o = json_object();
    json_object_set_new(o, "losses", numbers(g->loss, i64_min(g->seen, GUARD_WINDOW)));
    json_object_set_new(o, "seen", json_integer(g->seen));
    json_object_set_new(o, "spikes", numbers(g->spike, g->spikes));
    json_object_set_new(o, "mix", json_integer((json_int_t)g->mix));
    json_object_set_new(o, "bad", integers(g->bad_step, i64_min(g->bad_count, GUARD_WINDOW)));
    json_object_set_new(o, "bad_count", json_integer(g->bad_count));
    return o;
}

static void guard_read(struct guard *g, const json_t *o)
{
    const json_t *losses = json_object_get(o, "losses"), *bad = json_object_get(o, "bad");
    const json_t *spikes = json_object_get(o, "spikes");
    g->seen = json_integer_value(json_object_get(o, "seen"));
    g->mix = (u64)json_integer_value(json_object_get(o, "mix"));
    g->bad_count = json_integer_value(json_object_get(o, "bad_count"));
    for (size_t i = 0; i < json_array_size(losses) && i < GUARD_WINDOW; i++)
        g->loss[i] = json_number_value(json_array_get(losses, i));
    g->spikes = i64_min((i64)json_array_size(spikes), GUARD_LASTING - 1);
    for (i64 i = 0; i < g->spikes; i++)
        g->spike[i] = json_number_value(json_array_get(spikes, (size_t)i));
    for (size_t i = 0; i < json_array_size(bad) && i < GUARD_WINDOW; i++)
        g->bad_step[i] = json_integer_value(json_array_get(bad, i));
}

json_t *session_state_json(const struct session *s)
{
    struct loader_cursor cursor;
    const struct train_state *state = &s->state;
    json_t *o = json_object();
    loader_get_cursor(s->loader, &cursor);
    session_put_identity(s, o);
    json_object_set_new(o, "ema", json_boolean(s->config->train.ema > 0));
    json_object_set_new(o, "step", json_integer(state->step));
    json_object_set_new(o, "updates", json_integer(state->updates));
    json_object_set_new(o, "tokens", json_integer(state->tokens));
    json_object_set_new(o, "elapsed",
                        json_real(state->elapsed + 1e-9 * (double)(sys_now_ns() - s->begin_ns)));
    json_object_set_new(o, "position", json_integer(cursor.position));
    json_object_set_new(o, "limits", integers(cursor.limit, loader_sources(s->loader)));
    json_object_set_new(o, "rewinds", json_integer(state->rewinds));
    json_object_set_new(o, "rewound_from", json_integer(state->rewound_from));
    json_object_set_new(o, "rewound_to", json_integer(state->rewound_to));
    json_object_set_new(o, "guard", guard_json(&state->guard));
    return o;
}

static int read_state(struct session *s, const json_t *o)
{
    struct loader_cursor cursor;
    const json_t *limits = json_object_get(o, "limits");
    s->state.step = json_integer_value(json_object_get(o, "step"));
    s->steps_taken = 0;
    trace_forget(&s->engine.trace);
    s->state.updates = json_integer_value(json_object_get(o, "updates"));
    s->state.tokens = json_integer_value(json_object_get(o, "tokens"));
    s->state.elapsed = json_number_value(json_object_get(o, "elapsed"));
    s->state.rewinds = json_integer_value(json_object_get(o, "rewinds"));
    s->state.rewound_from = json_integer_value(json_object_get(o, "rewound_from"));
    s->state.rewound_to = json_integer_value(json_object_get(o, "rewound_to"));
    guard_read(&s->state.guard, json_object_get(o, "guard"));
    loader_get_cursor(s->loader, &cursor);
    cursor.position = json_integer_value(json_object_get(o, "position"));
    if ((i64)json_array_size(limits) != loader_sources(s->loader))
        return err_set(ERR_CONFIG, "%s: %s had %lld data sources, and now there are "
                       "%lld; go on with the same ones, or give another run.name, and "
                       "model.from to start from its weights",
                       recipe_where(s->request.recipe, "data.sources"), s->folder.path,
                       (long long)json_array_size(limits),
                       (long long)loader_sources(s->loader));
    for (size_t i = 0; i < json_array_size(limits); i++)
        cursor.limit[i] = json_integer_value(json_array_get(limits, i));
    return loader_seek(s->loader, &cursor);
}

int session_restore(struct session *s, i64 step)
{
    json_t *state;
    TRY(session_load(s, step, &state));
    int rc = read_state(s, state);
    json_decref(state);
    TRY(rc);
    s->begin_ns = sys_now_ns();
    model_refresh_compute(s->model, s->engine.pool);
    return OK;
}
