/* Which settings make a recipe faster, tried and proven. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "train/run_folder.h"
#include "tune/tune_report.h"

#include "backend/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tune_flags {
    const char *out, *backend, *layout, *knobs, *folder;
    double budget, tolerance;
    i64 ranks, trials;
    int objective; /* enum tune_objective */
    bool json;
};

static const struct option options[] = {
    { "objective", OPTION_FIELD(CHOICE, struct tune_flags, objective), "speed",
      .choices = "speed|loss|energy",
      .help = "What shall grow: tokens/s, how soon the recipe's loss is reached, or tokens per "
              "joule." },
    { "budget", OPTION_FIELD(DURATION, struct tune_flags, budget), "3m", .unit = "seconds",
      .min = 1, .max = 1e6,
      .help = "Time for all of it: no trial is begun that would not end in it. Each takes the "
              "start of a run and about three seconds of steps. "
              "The noisier the machine, the more rounds it takes to tell: with more time fewer "
              "changes are left as too noisy to tell." },
    { "trials", OPTION_FIELD(INT, struct tune_flags, trials), "6", .min = 1, .max = 64,
      .help = "Changes that are tried at most; forecasts choose which." },
    { "knobs", OPTION_FIELD(STRING, struct tune_flags, knobs), NULL,
      .help = "Only these, with commas between: threads, micro-batch, recompute, precision, "
              "kernels, prefetch, offload, bucket, layout, schedule. Not given: the up to three "
              "whose changes promise most, by the run's diagnosis or by forecast." },
    { "loss_tolerance", OPTION_FIELD(FLOAT, struct tune_flags, tolerance), "0.005", .max = 1,
      .help = "Share by which a change of precision may raise the loss of a trial's last steps." },
    { "ranks", OPTION_FIELD(INT, struct tune_flags, ranks), "0", .unit = "ranks", .max = 1024,
      .help = "As of `headway train`: so many processes on this machine." },
    { "layout", OPTION_FIELD(STRING, struct tune_flags, layout), NULL,
      .help = "As of `headway train`; changes of the layout go from there." },
    { "backend", OPTION_FIELD(STRING, struct tune_flags, backend), NULL,
      .help = "As of `headway train`." },
    { "out", OPTION_FIELD(PATH, struct tune_flags, out), NULL,
      .help = "The tuned recipe; not given: RECIPE.tuned.yaml beside the recipe. Nothing "
              "is written when nothing is faster." },
    { "folder", OPTION_FIELD(PATH, struct tune_flags, folder), NULL,
      .help = "Where trials have their run folders for a moment; not given: the recipe's "
              "run.dir." },
    { "json", OPTION_FIELD(BOOL, struct tune_flags, json), "no", .help = "Print JSON." },
    { 0 },
};

static volatile sig_atomic_t asked_to_stop;

static void on_signal(int number)
{
    (void)number;
    asked_to_stop = 1;
}

static bool stop(void *context)
{
    (void)context;
    return asked_to_stop;
}

static void tell(void *context, double fraction, const char *what)
{
    progress_update(context, fraction < 0.05 ? -1 : fraction, what); /* too early to foretell */
}

/* --- the machine --------------------------------------------------------------------- */

static int find_machine(struct machine *m, const struct tune_flags *f)
{
    struct backend b;
    struct pool *pool;
    TRY(backend_init(&b, f->backend ? f->backend : "auto"));
    TRY(pool_new(&pool, sys_cpu_count(), true));
    machine_peaks(m, b.name, pool); /* the cache's may have been measured in a noisy hour */
    if (m->level[MACHINE_LEVELS - 1].copy_all <= 0) {
        machine_measure(m, pool, NULL, NULL);
        machine_save(m);
    }
    pool_free(pool);
    return OK;
}

/* --- asking -------------------------------------------------------------------------- */

/* As --set: what --layout says, which a change of the layout then goes before. */
static void add_layout(struct timing_base *b, const char *layout, struct arena *a)
{
    for (const char *at = layout; at && *at; at += *at == ',') {
        const int n = (int)strcspn(at, ",");
        b->sets[b->n_sets++] = arena_printf(a, "layout.%.*s", n, at);
        at += n;
    }
}

/* The recipe with the base's settings and the change's. */
static int read_changed(struct train_recipe *out, const struct timing_base *b,
                        const struct tune_change *c, struct arena *a)
{
    const char **sets = ARENA_ARRAY(a, const char *, b->n_sets + c->n_sets + 1);
    int n = 0;
    for (int i = 0; i < b->n_sets; i++)
        sets[n++] = b->sets[i];
    for (int i = 0; i < c->n_sets; i++)
        sets[n++] = c->sets[i];
    return train_recipe_read(out, b->recipe, sets, n, NULL, a);
}

static int make_request(struct tune_request *r, const struct invocation *v,
                        const struct train_recipe *recipe, const struct machine *m)
{
    enum { MOST_OF_LAYOUT = 64 };
    const struct tune_flags *f = v->options;
    const i64 ranks = i64_max(1, f->ranks), needed = layout_ranks(&recipe->layout);
    if (needed != ranks)
        return err_set(ERR_USAGE, "the layout %s has %lld ranks and --ranks says %lld: "
                       "tuning starts them on this machine, so say --ranks %lld",
                       layout_text(&recipe->layout, v->arena), (long long)needed,
                       (long long)ranks, (long long)needed);
    const char *parent = f->folder ? f->folder : recipe->config.run.dir;
    const char *folder = arena_printf(v->arena, "%s/.tune-%lld", parent,
                                      (long long)sys_process_id());
    if (sys_mkdirs(folder) < 0)
        return err_set(ERR_SYS, "cannot make the folder %s: %s", folder, strerror(errno));
    *r = (struct tune_request){
        .base = { .recipe = v->args[0], .backend = f->backend, .ranks = f->ranks,
                  .folder = folder, .patience_s = f->budget / 2, .stop = stop },
        .view = { .recipe = recipe, .ranks = ranks, .node_ranks = ranks, .cores = sys_cpu_count(),
                  .backend = f->backend },
        .machine = m, .objective = (enum tune_objective)f->objective, .budget_s = f->budget,
        .most_trials = f->trials, .only = f->knobs, .loss_tolerance = f->tolerance,
        .tell = tell, .stop = stop,
    };
    r->base.sets = ARENA_ARRAY(v->arena, const char *, v->n_sets + MOST_OF_LAYOUT);
    for (int i = 0; i < v->n_sets; i++)
        r->base.sets[r->base.n_sets++] = v->sets[i];
    add_layout(&r->base, f->layout, v->arena);
    return OK;
}

static int check_knobs(const char *only)
{
    char name[64];
    for (const char *at = only; at && *at; at += strspn(at, ", ")) {
        struct nearest near = { .typed = name };
        const int n = (int)strcspn(at, ", ");
        bool known = false;
        snprintf(name, sizeof name, "%.*s", n, at);
        for (int i = 0; knobs[i].name; i++) {
            known = known || strcmp(knobs[i].name, name) == 0;
            nearest_offer(&near, knobs[i].name);
        }
        if (!known)
            return err_set(ERR_USAGE, "--knobs: there is no %s; the nearest is %s", name,
                           nearest_found(&near) ? near.best : knobs[0].name);
        at += n;
    }
    return OK;
}

/* --- telling ------------------------------------------------------------------------- */

static const char *tuned_path(const struct invocation *v)
{
    const struct tune_flags *f = v->options;
    const char *path = v->args[0], *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    if (f->out)
        return f->out;
    i64 stem = dot && (!slash || dot > slash) ? dot - path : (i64)strlen(path);
    return arena_printf(v->arena, "%.*s.tuned.yaml", (int)stem, path);
}

/* Minutes of trials are not to end in a recipe that cannot be written. */
static int check_writable(const char *path)
{
    char near[4096];
    if (snprintf(near, sizeof near, "%s.tmp", path) >= (int)sizeof near)
        return err_set(ERR_USAGE, "--out: %.80s... is too long a path", path);
    if (strncmp(path, "/dev/", 5) == 0)
        return OK;
    const bool new = !sys_exists(near);
    int fd = sys_open(near, O_WRONLY | O_CREAT, 0644);
    if (fd < 0)
        return err_set(ERR_SYS, "cannot write the tuned recipe %s: %s; name another with --out",
                       path, strerror(errno));
    sys_close(fd);
    if (new)
        sys_unlink(near);
    return OK;
}

/* The winner's recipe; diff: what changed there. */
static int write_recipe(const struct tune_outcome *o, const struct tune_request *r,
                        const struct invocation *v, struct text *diff)
{
    const struct tune_change *c = &o->rows[o->winner].change;
    struct train_recipe *after = ARENA_NEW(v->arena, struct train_recipe);
    const char *path = tuned_path(v);
    struct text yaml = { 0 };
    TRY(read_changed(after, &r->base, c, v->arena));
    tune_recipe_yaml(o, r->objective, r->view.recipe, after, v->args[0], &yaml);
    int rc = file_replace(path, yaml.data, yaml.length);
    if (rc >= 0) {
        text_printf(diff, "--- %s\n+++ %s\n", v->args[0], path);
        tune_diff(c, r->view.recipe, diff);
    }
    text_fini(&yaml);
    return rc;
}

static int print(const struct tune_outcome *o, const struct tune_request *r,
                 const struct invocation *v)
{
    const struct tune_flags *f = v->options;
    struct text diff = { 0 }, t = { 0 };
    int rc = o->winner >= 0 ? write_recipe(o, r, v, &diff) : OK;
    if (f->json) {
        struct json j;
        json_writer_init(&j);
        tune_json(o, r->objective, diff.length ? tuned_path(v) : NULL, diff.data, &j);
        printf("%s\n", j.out.data);
        json_writer_fini(&j);
    } else {
        tune_text(o, r->objective, &t);
        fputs(t.data, stdout);
        if (diff.length)
            fputs(diff.data, stdout);
    }
    fflush(stdout);
    text_fini(&t);
    text_fini(&diff);
    return rc;
}

static int tune(struct tune_request *r, struct tune_outcome *o, struct arena *a)
{
    enum { FIRST_STEPS = 25 }; /* a diagnosis asks for 20 steady ones */
    struct tune_hint hints[TUNE_HINTS];
    struct timing_result first;
    struct timing_base base = r->base;
    base.most_s = r->budget_s / 4;
    int rc = timing_run(&first, &base, NULL, FIRST_STEPS, a);
    if (rc == ERR_LIMIT || rc == ERR_FORMAT) /* neither ended, or too few steps */
        rc = err_set(rc, "a quarter of the budget, %.0f s, is too short for the recipe's first "
                     "steps (%s): give --budget more", base.most_s, err_message());
    if (rc >= 0) {
        const int n = tune_hints(hints, first.run);
        r->hints = hints;
        r->n_hints = n > 0 ? n : 0;
        r->diagnosed = n >= 0;
        r->view.rates = tune_rates(first.run, a);
    }
    sys_remove_tree(first.run);
    return rc < 0 ? rc : tune_run(o, r, &first, a);
}

static int run(struct invocation *v)
{
    const struct tune_flags *f = v->options;
    struct train_recipe *recipe = ARENA_NEW(v->arena, struct train_recipe);
    struct tune_outcome *o = ARENA_NEW(v->arena, struct tune_outcome);
    struct tune_request r;
    struct machine m;
    struct progress progress;
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    const u64 began_ns = sys_now_ns();
    TRY(check_knobs(f->knobs));
    TRY(train_recipe_read(recipe, v->args[0], v->sets, v->n_sets, f->layout, v->arena));
    TRY(check_writable(tuned_path(v)));
    TRY(make_request(&r, v, recipe, &m));
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    progress_begin(&progress, v->terminal, "tune");
    r.context = &progress;
    r.began_ns = began_ns;
    progress_update(&progress, -1, "the recipe as it is");
    int rc = find_machine(&m, f);
    if (rc >= 0)
        rc = tune(&r, o, v->arena);
    sys_remove_tree(r.base.folder);
    progress_end(&progress, rc < 0 ? "ended early" : "done");
    if (rc >= 0)
        return print(o, &r, v);
    if (o->stopped) { /* what was measured is worth seeing; the reason comes behind it */
        char why[512];
        snprintf(why, sizeof why, "%s", err_message());
        print(o, &r, v);
        return err_set(rc, "%s", why);
    }
    return rc;
}

static const struct example examples[] = {
    { "headway tune recipes/demo.yaml", "Try what a short run and its diagnosis suggest." },
    { "headway tune recipes/gpt2-124m.yaml --knobs micro-batch,recompute --budget 20m",
      "Only these two, with time for a larger model." },
    { "headway tune recipes/demo.yaml --ranks 2 --layout dp=2 --objective energy",
      "Two ranks, for tokens per joule." },
    { 0 },
};

const struct command cmd_tune = {
    .name = "tune",
    .summary = "Find settings with which a recipe trains faster",
    .arguments = "RECIPE.yaml",
    .description = "Runs the recipe for some steps, diagnoses them, and tries the settings that "
                   "promise most: in rounds beside the recipe as it is, there and back, each trial "
                   "a process of its own that evaluates and saves nothing. No change is judged by "
                   "one round: how far rounds are apart says how far a gain may be off, and what "
                   "the noise hides is said to be too noisy to tell. The best, together if they go "
                   "together, run again in fresh processes; what is then still faster is written "
                   "as a recipe beside the old one, with a diff.\n\n"
                   "Stopped by a signal, it ends the trial under way, removes its folders and "
                   "prints what it has measured; nothing is written, and it does not resume.\n\n"
                   "What is trained stays as it is: the rows of a step, the model, the optimizer. "
                   "A change of precision counts only if its loss keeps up.",
    .options = options,
    .options_bytes = sizeof(struct tune_flags),
    .min_args = 1,
    .max_args = 1,
    .takes_set = true,
    .examples = examples,
    .run = run,
};
