#include "train/session.h"

#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "model/hf.h"
#include "parallel/data_parallel.h"
#include "train/openmetrics.h"
#include "train/train_spec.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- the model's spec --------------------------------------------------------------- */

/* "recipe.yaml:3:5: " when the key was given, "" when it has its default. */
static const char *at(struct session *s, const char *key)
{
    const char *where = recipe_where(s->request.recipe, key);
    return where ? arena_printf(&s->arena, "%s: ", where) : "";
}

/* Programs are built for every batch shape that the ramps pass through. */
static int check_shapes(struct session *s)
{
    const struct train_config *c = s->config;
    i64 seen[SESSION_SHAPES][2], n = 0;
    for (i64 step = 0; step <= i64_max(c->ramp.batch_steps, c->ramp.seq_steps); step++) {
        i64 T = schedule_seq(c, step), micro = schedule_micro_batches(c, step), i = 0;
        while (i < n && (seen[i][0] != T || seen[i][1] != micro))
            i++;
        if (i == SESSION_SHAPES)
            return err_set(ERR_CONFIG, "%sthe ramps pass through more than %d batch shapes; let "
                           "the batch grow from nearer its full size, or in fewer steps",
                           at(s, "ramp.batch_from"), SESSION_SHAPES);
        seen[i][0] = T;
        seen[i][1] = micro;
        n = i64_max(n, i + 1);
    }
    return OK;
}

static int check_spec(struct session *s)
{
    if (s->config->train.seq > s->spec.positions)
        return err_set(ERR_CONFIG, "%strain.seq %lld is longer than the %lld positions of %s",
                       at(s, "train.seq"), (long long)s->config->train.seq,
                       (long long)s->spec.positions, s->spec.name);
    TRY(check_shapes(s));
    int rc = spec_check(&s->spec, s->spec.name);
    const char *where = recipe_where(s->request.recipe, "model.override");
    return rc < 0 && where ? err_context(rc, "%s", where) : rc;
}

/* A spec may leave its vocabulary to the tokenizer; a smaller one than that is refused. */
static int settle_vocab(struct session *s)
{
    i64 needed = s->tokenizer ? tokenizer_size(s->tokenizer) : 0;
    if (s->spec.vocab == 0)
        s->spec.vocab = needed;
    if (s->spec.vocab == 0)
        return err_set(ERR_CONFIG, "%s leaves the vocabulary open and there is no tokenizer to "
                       "take it from; give model.override {vocab: N}", s->spec.name);
    if (needed > s->spec.vocab)
        return err_set(ERR_CONFIG, "%sthe tokenizer has %lld tokens but %s has a vocabulary of "
                       "%lld; use its own tokenizer or another model.spec",
                       at(s, "data.tokenizer"), (long long)needed, s->spec.name,
                       (long long)s->spec.vocab);
    return OK;
}

/* Weights go with the tokenizer that they were trained with: the size alone says little. */
static void compare_tokenizers(const struct session *s)
{
    const char *then = s->from.trained_with;
    if (s->tokenizer && *then && strcmp(then, tokenizer_hash(s->tokenizer)) != 0)
        log_line(LOG_WARN, "the weights in %s were trained with another tokenizer (its SHA-256 "
                 "begins with %.12s, this one's with %.12s)", s->config->model.from, then,
                 tokenizer_hash(s->tokenizer));
}

/* --- programs ----------------------------------------------------------------------- */

static struct step_program *find_shape(struct session *s, i64 T, int micro_batches)
{
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].shape.T == T && s->step_micro_batches[i] == micro_batches)
            return &s->steps[i];
    return NULL;
}

static int add_shape(struct session *s, i64 T, int micro_batches)
{
    struct layout_rows rows = layout_rows(&s->mesh.layout, s->config->train.batch, micro_batches,
                                          s->mesh.row_rank);
    struct step_shape shape = { rows.B, T, rows.micro_batches, i64_max(1, s->n_sources) };
    if (find_shape(s, T, micro_batches))
        return OK;
    assert(s->n_steps < SESSION_SHAPES); /* check_shapes */
    struct step_program *p = &s->steps[s->n_steps];
    s->step_micro_batches[s->n_steps++] = micro_batches;
    TRY(step_program_new(p, s->model, s->config, &shape, &s->io, &s->mesh, &s->arena));
    return engine_add(&s->engine, p->program);
}

static int build_programs(struct session *s)
{
    const struct train_config *c = s->config;
    i64 ramps = i64_max(c->ramp.batch_steps, c->ramp.seq_steps);
    step_io_new(&s->io, &s->spec, i64_max(1, s->n_sources), &s->arena);
    *(i32 *)s->io.apply->data = s->request.sleep != NULL; /* else each step says */
    for (i64 step = 0; step <= ramps; step++)
        TRY(add_shape(s, schedule_seq(c, step), (int)schedule_micro_batches(c, step)));
    if (c->outer.every > 0) {
        TRY(outer_program_new(&s->outer, s->model, c, &s->io, &s->mesh, &s->arena));
        TRY(engine_add(&s->engine, s->outer.program));
    }
    if (!s->eval_loader)
        return OK;
    i64 B = session_full_rows(s).B;
    TRY(evaluator_init(&s->eval, s->model, &s->engine, s->eval_loader, B, c->train.seq, &s->mesh,
                       &s->arena));
    TRY(evaluator_init(&s->final_eval, s->model, &s->engine, s->final_loader, B, c->train.seq,
                       &s->mesh, &s->arena));
    if (!s->mesh.world) /* ranks do not leave an evaluation one by one */
        s->eval.stop = s->final_eval.stop = s->request.hooks.stop_ns;
    return OK;
}

/* --- opening ------------------------------------------------------------------------ */

/* "recipes/tiny.yaml" -> "tiny". */
static const char *stem_of(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return arena_strndup(a, name, dot && dot > name ? dot - name : (i64)strlen(name));
}

/* The newest run of this recipe, when a resume does not name one. */
static int newest_run(struct session *s, const char *stem, const char **name)
{
    char **names;
    int n = sys_list(s->config->run.dir, &names);
    *name = NULL;
    for (int i = 0; i < n; i++)
        if (strncmp(names[i], stem, strlen(stem)) == 0 && names[i][strlen(stem)] == '-')
            *name = arena_strdup(&s->arena, names[i]);
    if (n >= 0)
        sys_free(names);
    if (!*name)
        return err_set(ERR_CONFIG, "nothing to resume: %s has no run of %s",
                       s->config->run.dir, stem);
    return OK;
}

/* A run that goes on needs nothing of the model that it started from: its checkpoints have the
 * specification too, should that be gone. */
static int find_spec(struct session *s)
{
    struct train_config own = *s->config;
    const char *name = own.run.name;
    if (!s->request.resume || !own.model.from || sys_exists(own.model.from))
        return train_spec(&s->spec, &s->from, s->config, s->request.recipe, &s->arena);
    if (!name)
        TRY(newest_run(s, stem_of(s->request.recipe_path, &s->arena), &name));
    own.model.from = own.checkpoint.dir ? own.checkpoint.dir
                                        : arena_printf(&s->arena, "%s/%s", own.run.dir, name);
    return train_spec(&s->spec, &s->from, &own, NULL, &s->arena);
}

static void name_checkpoints(struct session *s)
{
    if (s->config->checkpoint.dir)
        snprintf(s->checkpoint_dir, sizeof s->checkpoint_dir, "%s", s->config->checkpoint.dir);
    else
        snprintf(s->checkpoint_dir, sizeof s->checkpoint_dir, "%s/checkpoints", s->folder.path);
}

/* A run may want that, to try something; who did not notice should. */
static void look_at_warmup(struct session *s)
{
    const i64 steps = schedule_steps(s->config), warmup = s->config->lr.warmup;
    if (steps > 0 && warmup > steps && !s->request.measure && !s->request.sleep)
        log_line(LOG_WARN, "%sthe learning rate never reaches its peak: lr.warmup is "
                 "%lld steps, and the run takes %lld; make it a tenth of them, say",
                 at(s, "lr.warmup"), (long long)warmup, (long long)steps);
}

static bool without_muon(const struct train_config *c)
{
    return c->optim.name != OPTIMIZER_MUON;
}

static bool without_wsd(const struct train_config *c)
{
    return c->lr.schedule != SCHEDULE_WSD;
}

static bool without_outer(const struct train_config *c)
{
    return c->outer.every == 0;
}

/* Of settings that only others make use of. A resolved recipe names all keys, most with their
 * defaults: of those nobody needs to hear. */
static void look_at_unused(struct session *s)
{
    static const struct {
        const char *key;
        bool (*unused)(const struct train_config *c);
        const char *needs;
    } settings[] = {
        { "optim.muon_lr", without_muon, "optim.name=muon" },
        { "optim.muon_momentum", without_muon, "optim.name=muon" },
        { "optim.muon_ns_steps", without_muon, "optim.name=muon" },
        { "lr.decay_fraction", without_wsd, "lr.schedule=wsd" },
        { "outer.lr", without_outer, "outer.every" },
        { "outer.momentum", without_outer, "outer.every" },
    };
    struct train_config usual;
    option_set_defaults(train_options, &usual, &s->arena);
    for (i64 i = 0; i < COUNT_OF(settings); i++) {
        const struct option *o = option_find(train_options, settings[i].key);
        struct text is = { 0 }, was = { 0 };
        option_format(o, s->config, &is);
        option_format(o, &usual, &was);
        bool moved = strcmp(is.data, was.data) != 0;
        if (moved && !s->request.measure && settings[i].unused(s->config))
            log_line(LOG_WARN, "%s%s has no effect without %s", at(s, o->key), o->key,
                     settings[i].needs);
        text_fini(&is);
        text_fini(&was);
    }
}

/* Whether a run that ended well is to go on no further than it got: then its folder stays
 * as it is. */
static int look_whether_over(struct session *s)
{
    const i64 step = run_folder_finished(s->folder.path);
    const char *limit;
    i64 newest = -1;
    name_checkpoints(s);
    if (step < 0 || checkpoint_latest(s->checkpoint_dir, &newest) < 0 || newest != step)
        return OK;
    json_t *state;
    TRY(checkpoint_state(s->checkpoint_dir, step, &state));
    s->over = session_would_be_idle(s, state, step, &limit);
    json_decref(state);
    if (s->over)
        log_line(LOG_INFO, "%s ended at step %lld and has nothing left to do, so nothing in it was "
                 "changed; it goes on when %s is raised", s->folder.path, (long long)step, limit);
    return OK;
}

/* A dry run makes no folder; whether the run could is a part of being sound. */
static int look_whether_writable(struct session *s)
{
    const struct train_config *c = s->config;
    const struct { const char *key, *folder; } all[] = {
        { "run.dir", s->folder.path }, { "checkpoint.dir", c->checkpoint.dir },
        { "data.cache", c->data.cache },
    };
    for (i64 i = 0; i < COUNT_OF(all); i++) {
        if (!all[i].folder || sys_may_write(all[i].folder))
            continue;
        const char *why = strerror(errno);
        return err_set(ERR_SYS, "%s%s: no files can be made in %s: %s; name another folder",
                       at(s, all[i].key), all[i].key, all[i].folder, why);
    }
    return OK;
}

/* Whoever is told to start a stopped run again does so with --resume: one that was stopped while
 * its data were prepared has nothing but these, and begins. */
static void look_whether_begun(struct session *s, const char *name)
{
    if (!s->request.resume || !run_folder_waits(s->config->run.dir, name))
        return;
    log_line(LOG_INFO, "%s/%s holds prepared data only: training starts at step 0",
             s->config->run.dir, name);
    s->request.resume = false;
}

static int open_folder(struct session *s)
{
    const struct train_config *c = s->config;
    const char *stem = stem_of(s->request.recipe_path, &s->arena), *name = c->run.name;
    if (c->log.openmetrics)
        TRY(openmetrics_check(c->log.openmetrics));
    if (!name && s->request.resume)
        TRY(newest_run(s, stem, &name));
    look_whether_begun(s, name);
    if (s->request.resume && !s->request.dry_run) {
        TRY(run_folder_look(&s->folder, c->run.dir, name, stem, true));
        TRY(look_whether_over(s));
    }
    if (s->over)
        return OK;
    if (s->request.dry_run) {
        TRY(run_folder_look(&s->folder, c->run.dir, name, stem, s->request.resume));
        TRY(look_whether_writable(s));
    } else {
        TRY(run_folder_open(&s->folder, c->run.dir, name, stem, s->request.resume,
                            c->log.tensorboard));
    }
    name_checkpoints(s);
    look_at_warmup(s);
    look_at_unused(s);
    if (s->from.hf && !s->request.resume)
        TRY(hf_tell_dropout(s->from.path, &s->arena));
    return OK;
}

/* One program, and gradients that are used up where they are made: they then share memory
 * with what the backward pass has done with. */
static bool lends_gradients(const struct session *s)
{
    const struct train_config *c = s->config;
    bool one_shape = c->ramp.batch_steps == 0 && c->ramp.seq_steps == 0;
    return one_shape && session_full_rows(s).micro_batches == 1;
}

/* A dry run leaves nothing behind and may have no folder: files without a name do not show. */
static const char *away_folder(const struct session *s)
{
    const char *folder = s->config->offload.folder;
    return folder ? folder : s->request.dry_run ? "." : s->folder.path;
}

static int open_model(struct session *s)
{
    const struct train_config *c = s->config;
    enum dtype compute = c->train.precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    unsigned needs = step_needs(c) | (lends_gradients(s) ? MODEL_GRADS_LENT : 0);
    struct model_part part = mesh_part(&s->mesh, &s->spec);
    if (c->offload.optimizer)
        part.state_folder = away_folder(s);
    return model_new_part(&s->model, &s->spec, compute, needs, c->train.seq, &part, &s->arena);
}

static int fill_weights(struct session *s)
{
    if (s->request.sleep)
        return OK;
    if (!s->config->model.from && s->request.dry_run)
        return OK;
    if (!s->config->model.from) {
        model_init(s->model, (u64)s->config->train.seed, s->engine.pool);
        return OK;
    }
    compare_tokenizers(s);
    TRY(restore_weights(s->model, &s->from, false, s->engine.pool, &s->arena));
    model_start_averages(s->model);
    log_line(LOG_INFO, "starting from the weights in %s", s->config->model.from);
    return OK;
}

/* Go on from the newest checkpoint. A run that died before its first one begins again. */
static int resume(struct session *s)
{
    struct text changes = { 0 };
    TRY(session_any_saved(s, &s->resumed));
    if (!s->resumed) {
        log_line(LOG_WARN, "%s has no checkpoint in %s: training starts at step 0",
                 s->folder.path, s->checkpoint_dir);
        return OK;
    }
    int rc = session_leads(s) ? session_check_same(s, &changes) : OK;
    if (rc == OK)
        rc = session_restore(s, CHECKPOINT_NEWEST);
    if (rc == OK)
        log_line(LOG_INFO, "resuming %s at step %lld", s->folder.path,
                 (long long)s->state.step);
    if (rc == OK && changes.length > 0)
        log_line(LOG_WARN, "this is not quite the run that it was: %s", changes.data);
    text_fini(&changes);
    return rc;
}

static int start_or_resume(struct session *s)
{
    const struct train_config *c = s->config;
    guard_init(&s->state.guard, c->guard.sigma, c->guard.max_bad, c->guard.bad_window);
    if (s->request.resume && !s->unprepared)
        TRY(resume(s));
    return s->resumed ? OK : fill_weights(s);
}

bool session_finished(const struct session *s, i64 steps)
{
    if (steps > 0 && s->state.step >= steps)
        return true;
    return s->config->train.max_time > 0 && s->clock >= s->config->train.max_time;
}

/* What a dry run leaves out. The leader makes the folder of checkpoints for all. A run that is
 * finished takes no step here: its manifest stays that of those who did. */
static int begin_writing(struct session *s)
{
    if (session_leads(s) && !s->request.sleep)
        TRY(session_open_writer(s));
    TRY(session_agree(s));
    if (!session_leads(s))
        return s->request.sleep ? OK : session_open_writer(s);
    if (s->request.resume)
        TRY(run_folder_rewind(&s->folder, s->state.step));
    const bool over = s->resumed && session_finished(s, schedule_steps(s->config));
    return over ? OK : session_write_manifest(s);
}

/* The leader turns raw text into shards, if it must; the others find them made. */
static int open_data(struct session *s)
{
    if (session_leads(s))
        TRY(session_open_data(s));
    TRY(session_agree(s));
    return session_leads(s) ? OK : session_open_data(s);
}

/* Nothing is computed, so nothing decides whether to update, and there is nothing to go on from. */
static int open_sleeper(struct session *s)
{
    if (!s->request.sleep)
        return OK;
    if (s->request.resume || s->config->log.health > 0)
        return err_set(ERR_CONFIG, "--compute none computes nothing: --resume and log.health have "
                       "no use for it");
    backend_sleep(&s->engine.backend, &s->sleeper, s->request.sleep);
    return OK;
}

static int open_parts(struct session *s)
{
    const struct train_config *c = s->config;
    session_open_energy(s);
    TRY(session_meet(s));
    TRY(train_config_check(c, s->request.recipe));
    TRY(session_check_energy(s));
    TRY(find_spec(s));
    TRY(check_spec(s)); /* all that can be said before there is data */
    TRY(session_open_mesh(s));
    if (session_leads(s))
        TRY(open_folder(s));
    TRY(session_share_folder(s));
    if (s->over)
        return OK;
    if (!session_leads(s))
        name_checkpoints(s);
    TRY(session_place(s));
    int threads = s->request.sleep ? 1 : session_threads(s);
    if (session_leads(s) && s->request.hooks.peak_of)
        s->request.hooks.peak_flops = s->request.hooks.peak_of(s->request.hooks.context, threads);
    TRY(engine_init(&s->engine, s->request.backend, threads, c->trace.ring));
    TRY(open_sleeper(s));
    TRY(session_open_inject(s));
    TRY(session_check_exact(s));
    s->engine.away_folder = away_folder(s);
    TRY(open_data(s));
    TRY(settle_vocab(s));
    TRY(session_check_floor(s));
    TRY(session_open_loaders(s));
    TRY(session_check_data(s));
    TRY(open_model(s));
    backend_set(&s->engine.backend, &op_load_batch, loader_kernel(s->loader));
    TRY(session_check_inject(s));
    TRY(build_programs(s));
    s->held = model_boxes_held(s->model, &s->arena);
    s->written = model_boxes_written(s->model, &s->mesh, &s->arena);
    TRY(session_check_memory(s));
    if (s->lacking) {
        if (s->mesh.world) /* all ranks looked alike */
            s->mesh.comm->together = true;
        return err_set(s->lacking_rc, "%s", s->lacking);
    }
    TRY(engine_commit(&s->engine));
    TRY(session_open_lanes(s));
    TRY(session_open_trace(s));
    TRY(session_preflight(s));
    TRY(start_or_resume(s));
    TRY(session_begin_inject(s));
    if (!s->request.dry_run) {
        TRY(begin_writing(s));
        TRY(session_begin_energy(s));
        TRY(session_open_record(s));
    }
    TRY(session_agree(s));
    s->saved_clock = s->clock;
    return OK;
}

/* Of a folder in which no run began: shards that were made in it, or are half made and
 * will be found under the same name. */
static bool worth_keeping(const struct session *s, int rc)
{
    return s->prepared_here || (rc == ERR_STOPPED && s->config->run.name);
}

int session_open(struct session *s, const struct train_request *request)
{
    *s = (struct session){ .request = *request, .config = request->config,
                           .mesh = mesh_single(), .val_loss = NAN };
    s->begin_ns = s->opened_ns = sys_now_ns();
    /* The moments of rows whose token stays away decay through the subnormal numbers, for
     * which some processors take twenty times as long. Threads have the mode of the one
     * that starts them. */
    s->float_mode = sys_flush_subnormals();
    s->opened_wall = sys_wall_seconds();
    arena_init(&s->arena);
    s->folder.metrics_fd = s->folder.log_fd = s->folder.lock_fd = s->folder.events.fd = -1;
    int rc = open_parts(s);
    if (rc < 0) {
        run_folder_note(&s->folder, LOG_ERROR, err_message());
        s->folder.made &= !worth_keeping(s, rc);
        session_close(s);
    }
    return rc;
}

/* Exchanges the weights with something else, everywhere. */
static int swap_weights(struct session *s, void (*swap)(const struct model *m))
{
    swap(s->model);
    model_refresh_compute(s->model, s->engine.pool);
    return data_parallel_share(s->model, &s->mesh);
}

int session_evaluate(struct session *s, bool final, bool ema, struct eval_result *out)
{
    struct span span = { .step = (u32)s->state.step, .lane = TRACE_HOST, .kind = SPAN_EVAL,
                         .begin_ns = sys_now_ns() };
    checkpoint_guard(s->writer); /* the swap would change what is being saved */
    void (*swap)(const struct model *m) = ema ? model_swap_averages
                                         : session_in_common(s) ? NULL : model_swap_anchors;
    if (swap)
        TRY(swap_weights(s, swap));
    int rc = evaluator_run(final ? &s->final_eval : &s->eval, out);
    if (swap)
        TRY(swap_weights(s, swap));
    span.end_ns = sys_now_ns();
    trace_add(&s->engine.trace, &span);
    return rc;
}

bool session_asked_to_stop(const struct session *s)
{
    return s->request.hooks.stop_ns && atomic_load(s->request.hooks.stop_ns) != 0;
}

void session_close(struct session *s)
{
    session_end_inject(s);
    driver_free(s->driver);
    away_lane_free(s->away);
    checkpoint_writer_free(s->writer);
    loader_close(s->loader);
    loader_close(s->eval_loader);
    loader_close(s->final_loader);
    session_close_record(s);
    json_writer_fini(&s->energy.text);
    model_free(s->model);
    engine_fini(&s->engine);
    tokenizer_free(s->tokenizer);
    run_folder_close(&s->folder);
    arena_fini(&s->arena);
    sys_set_float_mode(s->float_mode);
}
