/* The training loop: steps, and what happens between them (see session.h). */
#include "base/log.h"
#include "base/sys.h"
#include "comm/flight.h"
#include "model/decoder.h"
#include "ops/ops.h"
#include "parallel/islands.h"
#include "train/openmetrics.h"
#include "train/router_metrics.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct loop {
    struct session *s;
    i64 steps;            /* planned, 0: only the clock ends it */
    double loss, norm;    /* of the last step */
    double factor;        /* learning rate over its peak */
    u64 step_ns, window_ns; /* last step; sum since the last log line */
    i64 step_tokens, window_tokens;
    double window_flops;
    double tokens_per_s, mfu;
    u64 wait_ns;
    double outer_norm, divergence; /* of the last outer step; NaN before the first */
    u64 outer_ns;
    struct text monitored;
    bool not_monitored; /* the last write failed, which was said */
    bool data_ended; /* every source has reached its cap */
    bool unsound;    /* the weights are not worth saving */
    bool alike;      /* the error is one that all ranks have seen */
};

/* Share of the run that is done: of steps, of time, of what the data's caps allow, of
 * whichever is nearest its end. */
static double fraction_done(const struct loop *l)
{
    const struct session *s = l->s;
    double fraction = 0;
    if (l->steps > 0)
        fraction = (double)s->state.step / (double)l->steps;
    if (s->config->train.max_time > 0)
        fraction = fmax(fraction, s->clock / s->config->train.max_time);
    if (loader_places(s->loader) < INT64_MAX) {
        struct loader_cursor here;
        loader_get_cursor(s->loader, &here);
        fraction = fmax(fraction, (double)here.position / (double)loader_places(s->loader));
    }
    return fmin(fraction, 1);
}

/* --- one step ----------------------------------------------------------------------- */

struct step_program *session_program(struct session *s, i64 step)
{
    i64 T = schedule_seq(s->config, step), n = schedule_micro_batches(s->config, step);
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].shape.T == T && s->step_micro_batches[i] == n)
            return &s->steps[i];
    err_panic("no program for step %lld", (long long)step); /* all shapes were built */
}

static void write_hyper(struct loop *l)
{
    const struct train_config *c = l->s->config;
    float *hyper = l->s->io.hyper->data;
    double t = (double)(l->s->state.updates + 1);
    l->factor = schedule_factor(c, l->s->state.step, fraction_done(l));
    hyper[HYPER_LR] = (float)(c->optim.lr * l->factor);
    double muon_lr = c->optim.muon_lr > 0 ? c->optim.muon_lr : c->optim.lr;
    hyper[HYPER_MUON_LR] = (float)(muon_lr * l->factor);
    hyper[HYPER_CORRECT1] = (float)(1 - pow(c->optim.beta1, t));
    hyper[HYPER_CORRECT2] = (float)(1 - pow(c->optim.beta2, t));
}

static struct run context_of(struct session *s)
{
    struct run x = engine_context(&s->engine, (u64)s->state.step);
    if (s->config->trace.level != TRACE_TASKS)
        x.trace = NULL;
    return x;
}

/* Whether the rest of a step, of which `done` of n actions took since begin, and saving
 * would take longer than a signal leaves time for. */
static bool too_long(const struct session *s, u64 begin, i64 done, i64 n)
{
    if (!session_asked_to_stop(s) || s->mesh.world) /* ranks end their steps together */
        return false;
    u64 now = sys_now_ns(), asked = atomic_load(s->request.hooks.stop_ns);
    double rest = 1e-9 * (double)(now - begin) * (double)(n - done) / (double)done;
    double spent = now > asked ? 1e-9 * (double)(now - asked) : 0;
    return spent + rest + checkpoint_predict_seconds(s->writer) > s->request.hooks.grace;
}

/* Forward and backward of all micro-batches; they change no weight, so to leave in their
 * midst (ERR_STOPPED) loses nothing but time. */
static int run_gradients(struct session *s, const struct step_program *p, u64 begin)
{
    struct run x = context_of(s);
    i64 n = p->program->n_actions;
    for (i64 a = 0; a < n; a++) {
        if (program_updates(p->program, a))
            continue;
        TRY(exec_action(p->program, a, &x));
        if (too_long(s, begin, a + 1, n))
            return err_set(ERR_STOPPED, "stopped within step %lld", (long long)s->state.step + 1);
    }
    return OK;
}

static int run_update(struct session *s, const struct step_program *p)
{
    struct run x = context_of(s);
    for (i64 a = 0; a < p->program->n_actions; a++)
        if (program_updates(p->program, a))
            TRY(exec_action(p->program, a, &x));
    TRY(exec_drain(p->program, &x));
    model_forget_away(s->model);
    return OK;
}

static double mean_loss(const struct tensor *sums)
{
    const double *row = sums->data;
    double nll = 0, weight = 0;
    for (i64 i = 0; i < sums->dim[0]; i++) {
        nll += row[2 * i];
        weight += row[2 * i + 1];
    }
    return weight > 0 ? nll / weight : 0;
}

/* Whether any token counted. Of a step whose rows hold no answer, none does: its loss of zero is
 * that of no text, and says nothing of what is normal. */
static bool any_counts(const struct tensor *sums)
{
    const double *row = sums->data;
    bool any = false;
    for (i64 i = 0; i < sums->dim[0]; i++)
        any = any || row[2 * i + 1] != 0;
    return any;
}

static void add_span(struct session *s, enum span_kind kind, u64 begin, u64 end)
{
    struct span span = { .begin_ns = begin, .end_ns = end, .step = (u32)s->state.step,
                         .lane = TRACE_HOST, .kind = (u8)kind };
    if (s->config->trace.level != TRACE_OFF)
        trace_add(&s->engine.trace, &span);
}

/* Since begin, behind the step that was counted last. */
static void add_span_behind(struct session *s, enum span_kind kind, u64 begin)
{
    struct span span = { .begin_ns = begin, .end_ns = sys_now_ns(),
                         .step = (u32)s->state.step - 1, .lane = TRACE_HOST, .kind = (u8)kind };
    if (s->config->trace.level != TRACE_OFF)
        trace_add(&s->engine.trace, &span);
}

/* What all ranks do together, between what each of them computes. */
static int meet(struct session *s, int (*together)(struct session *s))
{
    u64 begin = sys_now_ns();
    int rc = together(s);
    if (s->mesh.world)
        add_span(s, SPAN_MEET, begin, sys_now_ns());
    return rc;
}

/* In the step that is next. */
static bool health_due(const struct session *s)
{
    i64 every = s->config->log.health;
    return every > 0 && (s->state.step + 1) % every == 0;
}

static int share_health(struct session *s)
{
    return health_share(&s->io.health, &s->mesh);
}

/* Behind a step that was due and has changed the weights; all ranks together. */
static int tell_health(struct session *s, const struct step_shape *shape)
{
    const struct health *h = &s->io.health;
    i64 tokens = shape->B * shape->T;
    TRY(meet(s, share_health));
    struct health_noise noise = health_noise(h, &s->mesh, shape->micro_batches, (double)tokens);
    health_put(h, &noise, s->state.step + 1, &s->folder);
    return OK;
}

static void count_step(struct loop *l, const struct step_program *p, u64 begin)
{
    struct session *s = l->s;
    u64 end = sys_now_ns();
    add_span(s, SPAN_STEP, begin, end);
    l->step_ns = end - begin;
    s->step_s = 1e-9 * (double)l->step_ns;
    session_set_patience(s, s->step_s);
    l->wait_ns = loader_wait_ns(s->loader);
    l->step_tokens = p->shape.B * p->shape.T * p->shape.micro_batches * s->mesh.layout.dp *
                     s->mesh.layout.islands;
}

/* The rest of a step in which nothing is computed: there is no loss to judge. */
static int end_sleep(struct loop *l, const struct step_program *p, u64 begin,
                     enum verdict *verdict)
{
    struct session *s = l->s;
    TRY(run_update(s, p));
    l->loss = NAN;
    *verdict = VERDICT_FINE;
    s->state.updates++;
    count_step(l, p, begin);
    return meet(s, session_agree);
}

/* Another mixture of sources has a loss of its own: that is no spike. */
static void note_mix(struct loop *l)
{
    struct session *s = l->s;
    if (guard_set_mix(&s->state.guard, loader_mix(s->loader)))
        log_line(LOG_INFO, "step %lld: another mixture of sources begins; its first %d losses say "
                 "what is normal", (long long)s->state.step + 1, GUARD_LEAST);
}

/* Forward, backward, and the update unless the loss forbids it. */
static int take_step(struct loop *l, const struct step_program *p, enum verdict *verdict)
{
    struct session *s = l->s;
    struct loader_step data = { .step = (u64)s->state.step,
                                .micro_batches = p->shape.micro_batches, .B = p->shape.B,
                                .T = p->shape.T };
    struct loader_cursor here;
    u64 begin = sys_now_ns();
    session_spread(s, &data);
    loader_get_cursor(s->loader, &here);
    int rc = session_start_data(s, &data);
    l->data_ended = rc < 0 && s->state.step > 0 && loader_ended(s->loader, &data);
    l->alike = rc < 0 && s->mesh.world && s->mesh.comm->together;
    TRY(rc);
    note_mix(l);
    TRY(meet(s, session_share_weight));
    TRY(session_disturb(s));
    write_hyper(l);
    health_begin(&s->io.health, health_due(s));
    rc = run_gradients(s, p, begin);
    if (rc < 0) {
        loader_seek_position(s->loader, here.position);
        return rc;
    }
    TRY(meet(s, session_share_sums));
    l->loss = mean_loss(s->io.sums);
    l->norm = NAN;
    if (s->request.sleep)
        return end_sleep(l, p, begin, verdict);
    bool counts = any_counts(s->io.sums);
    bool spike = counts && isfinite(l->loss) && guard_is_spike(&s->state.guard, l->loss);
    bool hold = !isfinite(l->loss) || (spike && s->config->guard.spike != SPIKE_LOG);
    if (!hold) {
        checkpoint_guard(s->writer);
        l->unsound = true; /* until all of it is updated */
        TRY(run_update(s, p));
        l->unsound = false;
        l->norm = *(const double *)s->io.norm->data;
    }
    bool finite = isfinite(l->loss) && (hold || isfinite(l->norm));
    TRY(session_all_islands(s, &finite));
    *verdict = VERDICT_FINE;
    if (counts || !finite)
        *verdict = guard_judge(&s->state.guard, s->state.step, l->loss, finite);
    if (!counts)
        l->loss = NAN; /* there is none to tell */
    if (!hold && finite)
        s->state.updates++;
    if (!hold && finite && health_due(s))
        TRY(tell_health(s, &p->shape));
    count_step(l, p, begin);
    return meet(s, session_agree);
}

static void log_outer(struct loop *l)
{
    struct session *s = l->s;
    double now = sys_wall_seconds();
    struct json *j = run_folder_begin_line(&s->folder, "outer");
    json_put_int(j, "step", s->state.step);
    json_put_int(j, "outer_step", s->state.step / s->config->outer.every);
    json_put_double(j, "outer_norm", l->outer_norm);
    json_put_double(j, "divergence", l->divergence);
    json_put_double(j, "outer_s", 1e-9 * (double)l->outer_ns);
    run_folder_end_line(&s->folder);
    events_scalar(&s->folder.events, s->state.step, now, "outer/norm", l->outer_norm);
    events_scalar(&s->folder.events, s->state.step, now, "outer/divergence", l->divergence);
}

/* All islands go on from one place. Its numbers are in the metrics. */
static int take_outer_step(struct loop *l, const struct program *p)
{
    struct session *s = l->s;
    struct run x = context_of(s);
    i64 n = s->mesh.layout.islands;
    if (s->config->outer.every == 0 || !session_in_common(s))
        return OK;
    session_record_step(s, s->state.step - 1, p, NULL);
    u64 begin = sys_now_ns();
    checkpoint_guard(s->writer);
    l->unsound = true; /* until all of it is updated */
    TRY(exec_program(s->outer.program, &x));
    model_forget_away(s->model);
    l->unsound = false;
    double moved = *(const double *)s->io.moved->data, apart = *(const double *)s->io.apart->data;
    l->outer_norm = islands_norm(n, moved);
    l->divergence = islands_divergence(n, apart, moved);
    l->outer_ns = sys_now_ns() - begin;
    l->window_ns += l->outer_ns;
    log_outer(l);
    session_record_step(s, s->state.step - 1, s->outer.program, NULL);
    return OK;
}

/* --- after a step ------------------------------------------------------------------- */

static void account(struct loop *l, const struct step_program *p)
{
    struct session *s = l->s;
    s->state.tokens += l->step_tokens;
    l->window_ns += l->step_ns;
    l->window_tokens += l->step_tokens;
    l->window_flops += p->program->cost.model_flops;
    s->energy.flops += p->program->cost.flops;
    s->energy.bytes += p->program->cost.read_bytes + p->program->cost.written_bytes;
    energy_meter_poll(&s->energy.meter, sys_now_ns());
    double seconds = 1e-9 * (double)l->window_ns;
    l->tokens_per_s = (double)l->window_tokens / seconds;
    if (s->request.hooks.peak_flops > 0)
        l->mfu = l->window_flops / seconds / s->request.hooks.peak_flops;
}

static void put_sources(struct loop *l, struct json *j)
{
    const struct session *s = l->s;
    const double *row = s->io.sums->data;
    json_key(j, "sources");
    json_begin_object(j);
    for (i64 i = 0; i < loader_sources(s->loader); i++)
        if (row[2 * i + 1] > 0)
            json_put_double(j, loader_source_name(s->loader, i), row[2 * i] / row[2 * i + 1]);
    json_end(j);
}

/* What the routers of the last step did. */
static void put_router(struct loop *l, struct json *j)
{
    struct session *s = l->s;
    if (!s->io.load || s->state.step == 0)
        return;
    const i64 T = session_program(s, s->state.step - 1)->shape.T;
    const i64 capacity = decoder_capacity(&s->spec, T);
    struct router_metrics m = router_metrics(s->io.load, s->spec.experts_per_token, T, capacity);
    json_put_double(j, "expert_imbalance", m.imbalance);
    json_put_double(j, "expert_imbalance_worst", m.worst);
    json_put_double(j, "aux_loss", m.aux);
    json_put_double(j, "router_z", m.z);
    if (capacity > 0) {
        json_put_double(j, "expert_dropped", m.dropped);
        json_put_double(j, "expert_fill", m.fill);
    }
    double now = sys_wall_seconds();
    events_scalar(&s->folder.events, s->state.step, now, "router/imbalance", m.imbalance);
    events_scalar(&s->folder.events, s->state.step, now, "router/aux_loss", m.aux);
}

static void put_events(struct loop *l)
{
    struct session *s = l->s;
    double now = sys_wall_seconds();
    if (!s->request.sleep) {
        events_scalar(&s->folder.events, s->state.step, now, "train/loss", l->loss);
        events_scalar(&s->folder.events, s->state.step, now, "train/grad_norm", l->norm);
        events_scalar(&s->folder.events, s->state.step, now, "train/lr",
                      s->config->optim.lr * l->factor);
    }
    events_scalar(&s->folder.events, s->state.step, now, "speed/tokens_per_s",
                  l->tokens_per_s);
    if (l->mfu > 0)
        events_scalar(&s->folder.events, s->state.step, now, "speed/mfu", l->mfu);
}

/* For monitoring: a disk that refuses costs that alone. */
static void put_openmetrics(struct loop *l)
{
    const struct session *s = l->s;
    const char *slash = strrchr(s->folder.path, '/');
    struct openmetrics m = {
        .run = slash ? slash + 1 : s->folder.path, .rank = s->mesh.rank, .step = s->state.step,
        .tokens = s->state.tokens, .loss = l->loss, .grad_norm = l->norm,
        .learning_rate = s->config->optim.lr * l->factor,
        .step_seconds = 1e-9 * (double)l->step_ns, .tokens_per_s = l->tokens_per_s,
        .mfu = l->mfu, .heldout_loss = s->val_loss, .wall_seconds = sys_wall_seconds(),
    };
    const char *path = s->config->log.openmetrics;
    if (!path || !session_leads(s))
        return;
    text_clear(&l->monitored);
    openmetrics_format(&l->monitored, &m, 1, openmetrics_dialect_of(path));
    int rc = file_replace(path, l->monitored.data, l->monitored.length);
    if (rc < 0 && !l->not_monitored)
        log_line(LOG_WARN, "log.openmetrics: %s; the run goes on", err_message());
    l->not_monitored = rc < 0;
}

static int log_step(struct loop *l)
{
    struct session *s = l->s;
    TRY(session_sample_energy(s));
    struct json *j = run_folder_begin_line(&s->folder, "step");
    json_put_int(j, "step", s->state.step);
    json_put_int(j, "tokens", s->state.tokens);
    if (!s->request.sleep) { /* which has none */
        json_put_double(j, "loss", l->loss);
        json_put_double(j, "lr", s->config->optim.lr * l->factor);
        json_put_double(j, "grad_norm", l->norm);
    }
    json_put_double(j, "step_s", 1e-9 * (double)l->step_ns);
    json_put_double(j, "load_wait_s", 1e-9 * (double)l->wait_ns);
    json_put_double(j, "tokens_per_s", l->tokens_per_s);
    if (l->mfu > 0)
        json_put_double(j, "mfu", l->mfu);
    if (loader_sources(s->loader) > 1)
        put_sources(l, j);
    put_router(l, j);
    session_put_energy(s, j);
    run_folder_end_line(&s->folder);
    if (inject_has(&s->inject, INJECT_LOG))
        sys_fsync(s->folder.metrics_fd); /* what it costs is the point */
    put_events(l);
    put_openmetrics(l);
    l->window_ns = 0;
    l->window_tokens = 0;
    l->window_flops = 0;
    return OK;
}

static void tell(struct loop *l)
{
    struct session *s = l->s;
    struct train_status status = {
        .step = s->state.step, .steps = l->steps, .fraction = fraction_done(l),
        .loss = l->loss, .val_loss = s->val_loss, .tokens_per_s = l->tokens_per_s,
        .mfu = l->mfu, .tokens = s->state.tokens, .divergence = l->divergence,
        .joules_per_token = energy_per_token(&s->energy.ledger),
    };
    if (s->request.hooks.progress)
        s->request.hooks.progress(s->request.hooks.context, &status);
}

static int evaluate(struct loop *l, bool final, bool ema)
{
    struct session *s = l->s;
    struct eval_result r;
    TRY(session_evaluate(s, final, ema, &r));
    if (r.tokens == 0) {
        if (!ema)
            log_line(LOG_WARN, "step %lld: not evaluated: no token that is held out counts in the "
                     "loss; hold out documents that have answers", (long long)s->state.step);
        return OK;
    }
    if (!ema)
        s->val_loss = r.loss;
    if (!ema && l->step_ns > 0)
        put_openmetrics(l);
    struct json *j = run_folder_begin_line(&s->folder, ema ? "eval_ema" : "eval");
    json_put_int(j, "step", s->state.step);
    json_put_double(j, "loss", r.loss);
    json_put_double(j, "perplexity", r.perplexity);
    json_put_double(j, "bits_per_byte", r.bits_per_byte);
    json_put_int(j, "tokens", r.tokens);
    json_put_int(j, "bytes", r.bytes);
    run_folder_end_line(&s->folder);
    double now = sys_wall_seconds();
    events_scalar(&s->folder.events, s->state.step, now, ema ? "val/loss_ema" : "val/loss",
                  r.loss);
    if (isfinite(r.bits_per_byte))
        events_scalar(&s->folder.events, s->state.step, now,
                      ema ? "val/bits_per_byte_ema" : "val/bits_per_byte", r.bits_per_byte);
    log_line(LOG_INFO, "step %lld: held-out loss %.4f%s, perplexity %.2f, %.4f bits per byte "
             "(%lld tokens)", (long long)s->state.step, r.loss, ema ? " (averaged weights)" : "",
             r.perplexity, r.bits_per_byte, (long long)r.tokens);
    return OK;
}

/* Whether an evaluation that ended so may be done without: the recipe says so, and it failed for
 * want of data. */
static bool may_skip(const struct session *s, int rc)
{
    bool data = rc == ERR_FORMAT || rc == ERR_SYS;
    return data && s->config->data.on_missing != MISSING_STOP;
}

/* Held-out text can vanish like any other; then the policy for data decides. */
static int evaluate_what_is_there(struct loop *l, bool final, bool ema)
{
    struct session *s = l->s;
    int rc = evaluate(l, final, ema);
    while (may_skip(s, rc) && evaluator_leave_out(final ? &s->final_eval : &s->eval))
        rc = evaluate(l, final, ema);
    return rc;
}

static int evaluate_both(struct loop *l, bool final)
{
    const struct session *s = l->s;
    if (!s->eval_loader || s->request.measure)
        return OK;
    int rc = evaluate_what_is_there(l, final, false);
    if (rc >= 0 && s->config->train.ema > 0)
        rc = evaluate_what_is_there(l, final, true);
    if (!may_skip(s, rc))
        return rc;
    log_line(LOG_WARN, "step %lld: not evaluated: %s", (long long)s->state.step,
             err_message());
    return OK;
}

static bool checkpoint_due(const struct session *s)
{
    const struct train_config *c = s->config;
    if (s->request.measure)
        return false;
    if (c->checkpoint.every > 0 && s->state.step % c->checkpoint.every == 0)
        return true;
    return c->checkpoint.interval > 0 &&
           s->clock - s->saved_clock >= c->checkpoint.interval;
}

/* --- trouble ------------------------------------------------------------------------ */

static int bad_step(struct loop *l, const struct step_program *p)
{
    struct session *s = l->s;
    char where[512];
    TRY(session_find_bad(s, p, where, sizeof where, &l->unsound));
    log_line(LOG_WARN, "step %lld is not finite: %s; its update was skipped",
             (long long)s->state.step, where);
    struct json *j = run_folder_begin_line(&s->folder, "bad_step");
    json_put_int(j, "step", s->state.step);
    json_put_str(j, "first", where);
    run_folder_end_line(&s->folder);
    bool exhausted = guard_exhausted(&s->state.guard, s->state.step);
    l->alike = l->unsound || exhausted;
    if (l->unsound)
        return err_set(ERR_NUMERIC, "%s, and no later step can mend it: resume from an earlier "
                       "checkpoint", where);
    if (exhausted)
        return err_set(ERR_NUMERIC, "more than %lld of the last %lld steps were not finite (the "
                       "last: %s); lower optim.lr or look at the data of step %lld",
                       (long long)s->config->guard.max_bad,
                       (long long)s->config->guard.bad_window, where,
                       (long long)s->state.step);
    return OK;
}

static int spiked_step(struct loop *l, bool *rewound)
{
    struct session *s = l->s;
    i64 target = -1;
    double deviation = guard_deviation(&s->state.guard, l->loss);
    const char *does = s->config->guard.spike == SPIKE_LOG ? "kept" : "update skipped";
    const char *why = s->config->guard.spike == SPIKE_REWIND
                          ? session_keeps_from_rewinding(s, &target) : NULL;
    *rewound = target >= 0;
    if (*rewound)
        return session_rewind(s, target, l->loss, deviation, &l->unsound);
    log_line(LOG_WARN, "step %lld: loss %.4f is a spike, %.1f robust deviations up; %s%s%s%s",
             (long long)s->state.step, l->loss, deviation, does, why ? " (" : "",
             why ? why : "", why ? ")" : "");
    struct json *j = run_folder_begin_line(&s->folder, "spike");
    json_put_int(j, "step", s->state.step);
    json_put_double(j, "loss", l->loss);
    json_put_double(j, "deviations", deviation);
    run_folder_end_line(&s->folder);
    return OK;
}

static void risen_step(struct loop *l)
{
    struct session *s = l->s;
    log_line(LOG_WARN, "step %lld: the loss stays up: %.4f is no spike but the new level",
             (long long)s->state.step, l->loss);
    struct json *j = run_folder_begin_line(&s->folder, "risen");
    json_put_int(j, "step", s->state.step);
    json_put_double(j, "loss", l->loss);
    run_folder_end_line(&s->folder);
}

/* --- the loop ----------------------------------------------------------------------- */

static bool finished(const struct loop *l)
{
    return l->data_ended || session_finished(l->s, l->steps);
}

static int between_steps(struct loop *l)
{
    struct session *s = l->s;
    const struct train_config *c = s->config;
    u64 begin = sys_now_ns();
    if (s->state.step % c->log.every == 0) {
        TRY(log_step(l));
        add_span_behind(s, SPAN_LOG, begin);
    }
    tell(l);
    if (c->eval.every > 0 && s->state.step % c->eval.every == 0 && !finished(l))
        TRY(evaluate_both(l, false));
    begin = sys_now_ns();
    if (checkpoint_due(s) && !finished(l)) {
        TRY(session_save(s));
        add_span_behind(s, SPAN_CHECKPOINT, begin);
    }
    return checkpoint_poll(s->writer, &(struct checkpoint_result){ 0 });
}

static int one_step(struct loop *l)
{
    struct session *s = l->s;
    struct step_program *p = session_program(s, s->state.step);
    const i64 step = s->state.step;
    enum verdict verdict;
    bool rewound = false;
    TRY(take_step(l, p, &verdict));
    s->state.step++;
    s->steps_taken++;
    account(l, p);
    if (verdict == VERDICT_BAD)
        TRY(bad_step(l, p));
    else if (verdict == VERDICT_SPIKE)
        TRY(spiked_step(l, &rewound));
    else if (verdict == VERDICT_RISEN)
        risen_step(l);
    if (rewound)
        return OK;
    TRY(take_outer_step(l, p->program));
    TRY(between_steps(l));
    session_record_step(s, step, p->program, verdict == VERDICT_SPIKE ? "the loss rose" : NULL);
    return OK;
}

static int finish(struct loop *l, bool stopped)
{
    struct session *s = l->s;
    struct checkpoint_result saved;
    char why[1024];
    int logged = l->window_tokens > 0 ? log_step(l) : OK;
    if (stopped && logged == OK)
        logged = session_end_energy(s);
    int rc = s->request.measure ? OK : session_save(s); /* soon: a signal leaves little time */
    if (l->step_ns > 0)
        session_export_trace(s);
    if (rc == OK && !s->request.measure)
        rc = session_wait_saved(s, &saved);
    if (rc == OK)
        rc = logged;
    if (stopped && s->request.measure)
        return rc < 0 ? rc : err_set(ERR_STOPPED, "stopped by a signal after step %lld; --measure "
                                     "saves nothing", (long long)s->state.step);
    if (stopped)
        return rc < 0 ? rc : err_set(ERR_STOPPED, "stopped by a signal after step %lld; the "
                                     "state is saved, --resume goes on",
                                     (long long)s->state.step);
    snprintf(why, sizeof why, "%s", err_message());
    if (!session_in_common(s))
        log_line(LOG_WARN, "the run ends %lld step%s after its last outer step: the weights that "
                 "islands have in common, which are evaluated and exported, are those of step %lld",
                 (long long)(s->state.step % s->config->outer.every),
                 s->state.step % s->config->outer.every == 1 ? "" : "s",
                 (long long)(s->state.step - s->state.step % s->config->outer.every));
    int judged = evaluate_both(l, true);
    if (judged < 0 && rc >= 0)
        judged = err_context(judged, "training ended at step %lld, which is saved, but what is "
                             "held out could not be evaluated", (long long)s->state.step);
    if (judged == OK)
        judged = session_end_energy(s);
    tell(l);
    if (rc >= 0 && judged == OK && !s->request.measure && !s->request.sleep) {
        json_put_int(run_folder_begin_line(&s->folder, "finished"), "step", s->state.step);
        run_folder_end_line(&s->folder); /* what --resume looks for */
    }
    return rc < 0 ? err_set(rc, "%s", why) : judged; /* evaluated even when not saved */
}

/* Saves what was reached, if this rank can: with the others where all of them failed alike,
 * alone where it has the whole model. */
static void save_rest(struct loop *l, struct checkpoint_result *saved)
{
    struct session *s = l->s;
    if (s->mesh.world && !l->alike) {
        session_save_alone(s, saved);
        return;
    }
    session_save(s); /* how it went is what the wait says */
    session_wait_saved(s, saved);
}

/* Why this rank goes on without the others, before it saves: that takes long, and a
 * launcher may end it meanwhile. Of a leading rank that is gone, the next one tells in
 * its log. */
static void tell_parting(struct session *s, int rc, const char *why)
{
    struct comm *c = s->request.comm;
    if (rc != ERR_PEER && rc != ERR_HANG)
        return;
    if (session_leads(s) && c->speaks) {
        log_line(LOG_ERROR, "%s", why); /* into log.txt too */
        c->speaks = false;
    } else if (session_leads(s)) {
        run_folder_note(&s->folder, LOG_ERROR, why);
    } else if (c->rank == 1 && comm_absent_in(why) == 0) {
        run_folder_note_for(&s->folder, LOG_ERROR, why);
    }
}

/* After an error: what was reached is worth saving, and the message tells what is saved. */
static int rescue(struct loop *l, int rc)
{
    struct session *s = l->s;
    struct checkpoint_result saved = { .step = -1 };
    char why[1024];
    i64 step = s->state.step;
    bool alone = s->mesh.world && !l->alike;
    snprintf(why, sizeof why, "%s", err_message());
    session_record_end(s, rc, why);
    const bool saves = !l->unsound && step > 0 && !s->request.measure &&
                       (!alone || (!s->held.part && session_leads(s)));
    if (alone && (saves || !session_leads(s)))
        tell_parting(s, rc, why);
    err_set(rc, "%s", why); /* whatever that met */
    if (!saves)
        return rc;
    save_rest(l, &saved);
    if (!s->mesh.world)
        session_end_energy(s);
    if (saved.step == step)
        return err_set(rc, "%s; stopped after step %lld, whose state is saved", why,
                       (long long)step);
    if (saved.step < 0)
        return err_set(rc, "%s; stopped after step %lld, and no checkpoint could be saved", why,
                       (long long)step);
    return err_set(rc, "%s; stopped after step %lld; nothing newer than step %lld could be "
                   "saved", why, (long long)step, (long long)saved.step);
}

static int run_loop(struct loop *l)
{
    struct session *s = l->s;
    int rc = OK;
    if (s->resumed && finished(l))
        log_line(LOG_INFO, "%s is finished at step %lld: raise train.steps, train.tokens or "
                 "train.max_time to go on", s->folder.path, (long long)s->state.step);
    tell(l);
    while (rc >= 0 && !finished(l) && !s->stopping)
        rc = one_step(l);
    if (rc == ERR_STOPPED) /* within a step or an evaluation */
        return finish(l, true);
    if (l->data_ended)
        log_line(LOG_INFO, "step %lld: the data sources have no more to give (max_epochs); "
                 "the run ends here", (long long)s->state.step);
    else if (rc < 0)
        return rescue(l, rc);
    return finish(l, !finished(l));
}

int session_train(struct session *s)
{
    struct loop l = { .s = s, .steps = schedule_steps(s->config), .loss = NAN, .norm = NAN,
                      .outer_norm = NAN, .divergence = NAN };
    s->begin_ns = sys_now_ns(); /* what opening took is not the schedule's */
    s->clock = s->saved_clock = s->state.elapsed;
    int rc = s->over ? OK : run_loop(&l);
    if (rc < 0) /* who runs the program is told so by it */
        run_folder_note(&s->folder, rc == ERR_STOPPED ? LOG_INFO : LOG_ERROR, err_message());
    text_fini(&l.monitored);
    return rc;
}
