/* Which settings make a recipe faster, tried and proven. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "train/run_folder.h"
#include "tune/tune_report.h"

#include "backend/backend.h"

#include <errno.h>
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
      .min = 1, .max = 1e6, .help = "Time for trials. Each takes the start of a run and "
                                    "about three seconds of steps." },
    { "trials", OPTION_FIELD(INT, struct tune_flags, trials), "6", .min = 1, .max = 64,
      .help = "Changes that are tried at most; forecasts choose which." },
    { "knobs", OPTION_FIELD(STRING, struct tune_flags, knobs), NULL,
      .help = "Only these, with commas between: threads, micro-batch, recompute, precision, "
              "kernels, prefetch, offload, layout, schedule. Not given: those that the run's "
              "diagnosis speaks for, or all." },
    { "loss_tolerance", OPTION_FIELD(FLOAT, struct tune_flags, tolerance), "0.005", .max = 1,
      .help = "Share by which a change of precision may raise the loss of a trial's last steps." },
    { "ranks", OPTION_FIELD(INT, struct tune_flags, ranks), "0", .unit = "ranks", .max = 1024,
      .help = "As of `headway train`: so many processes on this machine." },
    { "layout", OPTION_FIELD(STRING, struct tune_flags, layout), NULL,
      .help = "As of `headway train`." },
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
    machine_detect(m, b.name, pool_threads(pool));
    if (machine_load(m) < 0 || m->level[MACHINE_LEVELS - 1].copy_all <= 0) {
        machine_measure(m, pool, NULL, NULL);
        machine_save(m);
    }
    pool_free(pool);
    return OK;
}

/* --- asking -------------------------------------------------------------------------- */

static int read_recipe(struct train_recipe *out, const struct invocation *v,
                       const struct tune_change *c)
{
    const struct tune_flags *f = v->options;
    const int n = v->n_sets + (c ? c->n_sets : 0);
    const char **sets = ARENA_ARRAY(v->arena, const char *, n + 1);
    for (int i = 0; i < v->n_sets; i++)
        sets[i] = v->sets[i];
    for (int i = v->n_sets; i < n; i++)
        sets[i] = c->sets[i - v->n_sets];
    return train_recipe_read(out, v->args[0], sets, n, f->layout, v->arena);
}

static int make_request(struct tune_request *r, const struct invocation *v,
                        const struct train_recipe *recipe, const struct machine *m)
{
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
        .base = { .recipe = v->args[0], .sets = v->sets, .n_sets = v->n_sets,
                  .backend = f->backend, .layout = f->layout, .ranks = f->ranks,
                  .folder = folder, .patience_s = 600 + f->budget },
        .view = { .recipe = recipe, .ranks = ranks, .node_ranks = ranks, .cores = sys_cpu_count(),
                  .backend = f->backend },
        .machine = m, .objective = (enum tune_objective)f->objective, .budget_s = f->budget,
        .most_trials = f->trials, .only = f->knobs, .loss_tolerance = f->tolerance,
        .tell = tell, .stop = stop,
    };
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

static int write_recipe(const struct tune_outcome *o, const struct train_recipe *before,
                        const struct invocation *v)
{
    struct train_recipe *after = ARENA_NEW(v->arena, struct train_recipe);
    const char *path = tuned_path(v);
    struct text yaml = { 0 }, diff = { 0 };
    TRY(read_recipe(after, v, &o->rows[o->winner].change));
    tune_recipe_yaml(o, before, after, v->args[0], &yaml);
    int rc = file_replace(path, yaml.data, yaml.length);
    if (rc >= 0) {
        tune_diff(&o->rows[o->winner].change, before, &diff);
        printf("--- %s\n+++ %s\n%s", v->args[0], path, diff.data);
    }
    text_fini(&yaml);
    text_fini(&diff);
    return rc;
}

static int print(const struct tune_outcome *o, const struct train_recipe *recipe,
                 const struct invocation *v)
{
    const struct tune_flags *f = v->options;
    if (f->json) {
        struct json j;
        json_writer_init(&j);
        tune_json(o, (enum tune_objective)f->objective, &j);
        printf("%s\n", j.out.data);
        json_writer_fini(&j);
        return OK;
    }
    struct text t = { 0 };
    tune_text(o, (enum tune_objective)f->objective, &t);
    fputs(t.data, stdout);
    text_fini(&t);
    return o->winner >= 0 ? write_recipe(o, recipe, v) : OK;
}

static int tune(struct tune_request *r, struct tune_outcome *o, struct arena *a)
{
    enum { FIRST_STEPS = 25 }; /* a diagnosis asks for 20 steady ones */
    struct tune_hint hints[TUNE_HINTS];
    struct timing_result first;
    TRY(timing_run(&first, &r->base, NULL, FIRST_STEPS, a));
    r->hints = hints;
    r->n_hints = tune_hints(hints, first.run);
    sys_remove_tree(first.run);
    return tune_run(o, r, &first, a);
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
    TRY(check_knobs(f->knobs));
    TRY(read_recipe(recipe, v, NULL));
    TRY(make_request(&r, v, recipe, &m));
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    progress_begin(&progress, v->terminal, "tune");
    r.context = &progress;
    progress_update(&progress, -1, "the recipe as it is");
    int rc = find_machine(&m, f);
    if (rc >= 0)
        rc = tune(&r, o, v->arena);
    sys_remove_tree(r.base.folder);
    progress_end(&progress, rc < 0 ? "ended early" : "done");
    return rc < 0 ? rc : print(o, recipe, v);
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
                   "promise something: in rounds beside the recipe as it is, each trial a process "
                   "of its own that evaluates and saves nothing. The best, together if they go "
                   "together, run again; what is then still faster is written as a recipe beside "
                   "the old one, with a diff.\n\n"
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
