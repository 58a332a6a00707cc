/* Training, from a recipe to a run folder. */
#include "base/err.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/live.h"
#include "cli/live_diagnosis.h"
#include "cli/machine_peak.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "comm/world.h"
#include "machine/units.h"
#include "train/inject_settings.h"
#include "train/session.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum progress_style { PROGRESS_AUTO, PROGRESS_LIVE, PROGRESS_LINE };

struct train_flags {
    bool resume, dry_run, measure;
    double grace, deadline;
    const char *backend, *layout;
    i64 ranks;
    int progress; /* enum progress_style */
    struct option_strings inject;
};

static const struct option options[] = {
    { "resume", OPTION_FIELD(BOOL, struct train_flags, resume), "no",
      .help = "Go on from the run's newest valid checkpoint." },
    { "dry_run", OPTION_FIELD(BOOL, struct train_flags, dry_run), "no",
      .help = "Check everything, print the memory plan, and stop: nothing is written." },
    { "measure", OPTION_FIELD(BOOL, struct train_flags, measure), "no",
      .help = "Take steps only to see how long they take: nothing is evaluated, no checkpoint is "
              "written, the folder holds metrics and spans." },
    { "grace", OPTION_FIELD(DURATION, struct train_flags, grace), "25", .unit = "seconds",
      .max = 1e6,
      .help = "Time from a signal until everything must be saved: the step under way is "
              "finished if there is time, else left for --resume. The default suits the 30 s "
              "that Slurm gives." },
    { "backend", OPTION_FIELD(STRING, struct train_flags, backend), "auto",
      .help = "Kernels: auto, reference, generic, avx2, avx512 or avx512bf16." },
    { "layout", OPTION_FIELD(STRING, struct train_flags, layout), NULL,
      .help = "How the step is spread over ranks, such as dp=4: short for layout.dp and its "
              "like in the recipe. auto: the fastest that fits, by estimate, with the reason." },
    { "ranks", OPTION_FIELD(INT, struct train_flags, ranks), "0", .unit = "ranks", .max = 1024,
      .help = "Start so many processes on this machine; 0: be the one process, or one of those "
              "that mpirun or srun started." },
    { "progress", OPTION_FIELD(CHOICE, struct train_flags, progress), "auto",
      .choices = "auto|live|line",
      .help = "On a terminal: live is a few lines with curves, the peak divided and what a diagnosis "
              "finds; line is one line. auto: live where there is room. Elsewhere there are plain "
              "lines, at growing intervals." },
    { "deadline", OPTION_FIELD(DURATION, struct train_flags, deadline), "10m", .min = 1,
      .max = 1e6, .help = "A rank that others wait for longer than this hangs: the run ends and "
                          "names it. One that is stopped is found out after five steps' time, at "
                          "least 5 s; one that is merely late is named in the log then." },
    { "inject", OPTION_FIELD(STRINGS, struct train_flags, inject), NULL,
      .help = "Slow the run down in a known way: kind=value[@rank][:steps], such as "
              "slow_compute=1.5@1:20-40; may be repeated. The kinds are below." },
    { 0 },
};

/* What there is to inject, one paragraph each. */
static void list_kinds(struct text *out)
{
    text_add(out, "\nWhat --inject can do (where it acts; unit of numbers that have none):\n");
    for (int k = 0; k < INJECT_KINDS; k++) {
        const struct inject_row *r = &inject_rows[k];
        if (r->refused)
            continue;
        text_printf(out, "  %s (%s%s%s)\n      ", r->name, r->acts, r->unit ? "; " : "",
                    r->unit ? r->unit : "");
        text_wrap(out, r->help, 6, 6, 80);
        text_add(out, "\n");
    }
}

static atomic_ullong stop_ns; /* lock-free, as a signal handler needs */

/* The second signal ends the program at once. */
static void on_signal(int number)
{
    if (atomic_load(&stop_ns)) {
        signal(number, SIG_DFL);
        raise(number); /* delivered when this returns */
    }
    atomic_store(&stop_ns, sys_now_ns());
}

static void catch_signals(void)
{
    _Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "signal handlers need a lock-free time");
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

struct display {
    struct progress progress;
    bool preparing;
    struct invocation *v;
    struct train_status last;
    struct live *live; /* NULL: one line is enough */
    struct live_judge *judge;
};

static void show_preparing(void *context, double fraction, const char *what)
{
    struct display *d = context;
    if (!d->preparing)
        progress_begin(&d->progress, d->v->terminal, "prepare");
    d->preparing = true;
    progress_update(&d->progress, fraction, what);
}

static void format_status(const struct train_status *s, char *out, size_t size)
{
    int n = snprintf(out, size, "step %lld", (long long)s->step);
    if (s->steps > 0)
        n += snprintf(out + n, size - (size_t)n, "/%lld", (long long)s->steps);
    if (s->tokens_per_s > 0)
        n += snprintf(out + n, size - (size_t)n, "  loss %.4f  %.0f tokens/s", s->loss,
                      s->tokens_per_s);
    if (s->mfu > 0)
        n += snprintf(out + n, size - (size_t)n, "  %.0f %% of peak", 100 * s->mfu);
    if (!isnan(s->divergence))
        n += snprintf(out + n, size - (size_t)n, "  islands %.2g apart", s->divergence);
    if (!isnan(s->val_loss))
        snprintf(out + n, size - (size_t)n, "  held-out %.4f", s->val_loss);
}

static void show_status(void *context, const struct train_status *s)
{
    struct display *d = context;
    char line[256];
    d->last = *s;
    if (d->judge)
        live_judge_read(d->judge, &d->live->diagnosis);
    if (d->live) {
        live_update(d->live, s);
        return;
    }
    format_status(s, line, sizeof line);
    progress_update(&d->progress, s->fraction, line);
}

/* At the end, beside the rest. */
static void format_energy(const struct train_status *s, char *out, size_t size)
{
    char digits[64];
    unit_two_digits(s->joules_per_token, digits, sizeof digits);
    if (s->joules_per_token > 0)
        snprintf(out, size, "  %s J/token", digits);
}

/* The rank that speaks, on a terminal with room. */
static void begin_live(struct display *d, struct live *live, const struct session *s)
{
    const struct train_flags *flags = d->v->options;
    const struct terminal *t = d->v->terminal;
    if (t->quiet || !live_fits(t) || flags->progress == PROGRESS_LINE || !session_leads(s))
        return;
    live_begin(live, &d->progress);
    d->live = live;
    d->judge = live_judge_begin(s->folder.path);
}

static void end_live(struct display *d)
{
    live_judge_end(d->judge);
    if (d->live)
        live_fini(d->live);
    d->judge = NULL;
    d->live = NULL;
}

static int train(struct session *s, struct display *d)
{
    char line[256];
    struct live live;
    progress_begin(&d->progress, d->v->terminal, "train");
    begin_live(d, &live, s);
    int rc = session_train(s);
    end_live(d);
    format_status(&d->last, line, sizeof line);
    format_energy(&d->last, line + strlen(line), sizeof line - strlen(line));
    progress_end(&d->progress, line);
    return rc;
}

/* A rank that does not lead speaks up only when something is wrong. */
static void be_quiet(struct terminal *t)
{
    t->quiet = true;
    log_remove_sink(terminal_log, t);
    log_add_sink(terminal_log, t, LOG_ERROR);
}

/* What all ranks read alike, so that all would refuse the same. */
static int read_settings(struct invocation *v, struct recipe *recipe, struct layout *layout)
{
    const struct train_flags *flags = v->options;
    TRY(recipe_load(recipe, v->args[0]));
    TRY(invocation_override(v, recipe));
    if (flags->layout && strcmp(flags->layout, "auto") != 0)
        TRY(layout_parse(layout, flags->layout, "--layout", v->arena));
    return OK;
}

static int train_on(struct comm *comm, void *context)
{
    struct invocation *v = context;
    const struct train_flags *flags = v->options;
    struct train_config config;
    struct layout layout;
    struct recipe recipe;
    struct session session;
    struct display display = { .v = v };
    struct option_group groups[] = { { train_options, &config }, { layout_options, &layout } };
    recipe_init(&recipe, v->arena, groups, COUNT_OF(groups));
    bool choose = flags->layout && strcmp(flags->layout, "auto") == 0;
    const char *backend = flags->backend;
    int rc = read_settings(v, &recipe, &layout);
    if (rc < 0) {
        v->terminal->follows = comm->rank > 0;
        comm->together = true;
        return rc;
    }
    TRY(inject_settings(&recipe, &config, &layout, &flags->inject, &backend));
    struct train_request request = {
        .config = &config, .recipe = &recipe, .recipe_path = v->args[0],
        .layout = &layout, .choose_layout = choose, .comm = comm,
        .resume = flags->resume, .dry_run = flags->dry_run, .measure = flags->measure,
        .backend = backend,
        .hooks = { &display, show_status, show_preparing, &stop_ns, flags->grace, 0 },
    };
    bool leads = comm->rank == 0;
    if (leads)
        request.hooks.peak_flops = machine_peak_flops(
            backend, config.train.threads, config.train.precision == PRECISION_BF16);
    else
        be_quiet(v->terminal);
    catch_signals();
    rc = session_open(&session, &request);
    bool opened = rc >= 0;
    if (opened && !flags->dry_run)
        rc = train(&session, &display);
    v->terminal->follows = !leads && comm->together;
    if (!opened)
        return rc;
    if (leads)
        printf("%s\n", flags->dry_run ? "the recipe is sound; nothing was written"
                                      : session.folder.path);
    session_close(&session);
    return rc;
}

static int run(struct invocation *v)
{
    const struct train_flags *flags = v->options;
    struct comm_world world = { .local_ranks = flags->ranks > 1 ? (int)flags->ranks : 0,
                                .deadline_s = flags->deadline };
    return comm_world_run(&world, train_on, v);
}

static const struct example examples[] = {
    { "headway train recipes/demo.yaml", "Train as the recipe says." },
    { "headway train recipes/demo.yaml --set train.steps=100 --set optim.lr=1e-3",
      "The same with two settings changed." },
    { "headway train recipes/demo.yaml --set run.name=night --resume",
      "Go on with runs/night after an interruption." },
    { "headway train recipes/demo.yaml --ranks 2 --layout dp=2",
      "Two processes share the rows of each step." },
    { "mpirun -n 8 headway train recipes/gpt2-124m.yaml --layout dp=8",
      "Eight ranks, started by MPI." },
    { 0 },
};

const struct command cmd_train = {
    .name = "train",
    .summary = "Train a model as a recipe says",
    .arguments = "RECIPE.yaml",
    .description = "Trains from the recipe's data and leaves a run folder: configuration, "
                   "metrics, log, checkpoints; its path is printed at the end. Any recipe key "
                   "can be set on the command line; 'headway config' describes them.\n\n"
                   "SIGTERM, SIGINT and SIGUSR1 finish the step (or leave it, if --grace is too "
                   "short for it), save, and exit with code 75; --resume then goes on as if "
                   "nothing had happened. A second signal ends at once.",
    .options = options,
    .options_bytes = sizeof(struct train_flags),
    .min_args = 1,
    .max_args = 1,
    .takes_set = true,
    .more = list_kinds,
    .examples = examples,
    .run = run,
};
