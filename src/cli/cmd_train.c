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
#include "data/tokenizer.h"
#include "machine/machine.h"
#include "machine/units.h"
#include "parallel/agree.h"
#include "plan/virtual_run.h"
#include "train/inject_settings.h"
#include "train/session.h"
#include "train/train_layout.h"
#include "train/train_recipe.h"
#include "train/train_spec.h"

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
    int clock;   /* enum clock_choice */
    int compute; /* enum compute_choice */
    const char *rates;
};

enum clock_choice { CLOCK_REAL, CLOCK_VIRTUAL };
enum compute_choice { COMPUTE_REAL, COMPUTE_NONE };

static const struct option options[] = {
    { "resume", OPTION_FIELD(BOOL, struct train_flags, resume), "no",
      .help = "Go on from the run's newest valid checkpoint." },
    { "dry_run", OPTION_FIELD(BOOL, struct train_flags, dry_run), "no",
      .help = "Check everything, print the memory plan, and stop: nothing is written." },
    { "measure", OPTION_FIELD(BOOL, struct train_flags, measure), "no",
      .help = "Take steps only to see how long they take: nothing is evaluated, no checkpoint is "
              "written, the folder holds metrics and spans." },
    { "grace", OPTION_FIELD(DURATION, struct train_flags, grace), "25s", .unit = "seconds",
      .max = 1e6,
      .help = "Time from a signal until everything must be saved: the step under way is "
              "finished if there is time, else left for --resume. The default suits the 30 s "
              "that Slurm gives." },
    { "backend", OPTION_FIELD(STRING, struct train_flags, backend), "auto",
      .help = "Kernels: auto, reference, generic, avx2, avx512, avx512bf16 or amx." },
    { "layout", OPTION_FIELD(STRING, struct train_flags, layout), NULL,
      .help = "How the step is spread over ranks, such as dp=4: short for layout.dp and its "
              "like in the recipe, which it goes before; what --set says otherwise is refused. "
              "auto: the fastest that fits, by estimate, with the reason." },
    { "ranks", OPTION_FIELD(INT, struct train_flags, ranks), "0", .unit = "ranks", .max = 1024,
      .help = "Start so many processes on this machine; 0: be the one process, or one of those "
              "that mpirun or srun started." },
    { "progress", OPTION_FIELD(CHOICE, struct train_flags, progress), "auto",
      .choices = "auto|live|line",
      .help = "On a terminal: live is a few lines with curves, the peak divided and what "
              "a diagnosis finds; line is one line. auto: live where there is room. "
              "Elsewhere there are plain lines, at growing intervals." },
    { "deadline", OPTION_FIELD(DURATION, struct train_flags, deadline), "10m", .min = 1,
      .max = 1e6, .help = "A rank that others wait for longer than this hangs: the run ends and "
                          "names it. One that is stopped is found out after five steps' time, at "
                          "least 5 s; one that is merely late is named in the log then." },
    { "inject", OPTION_FIELD(STRINGS, struct train_flags, inject), NULL,
      .help = "Slow the run down in a known way: kind=value[@rank][:steps], such as "
              "slow_compute=1.5@1:20-40; may be repeated. The kinds are below." },
    { "clock", OPTION_FIELD(CHOICE, struct train_flags, clock), "real", .choices = "real|virtual",
      .help = "How time passes. virtual: nothing is computed, no rank started; the steps of all "
              "ranks of the layout are walked on a clock that --rates make, and leave a run "
              "folder with their metrics and spans, for headway diagnose and report.",
      .excludes = "compute|resume|dry_run|measure|grace|progress|deadline" },
    { "compute", OPTION_FIELD(CHOICE, struct train_flags, compute), "real", .choices = "real|none",
      .help = "What tasks do. none: each sleeps as long as --rates say it takes, so that many "
              "ranks run side by side on few cores; lanes, loader and loop are real. There is no "
              "loss, nothing is evaluated or saved." },
    { "rates", OPTION_FIELD(STRING, struct train_flags, rates), NULL,
      .help = "What a rank is worth, for --clock virtual and --compute none: flops=5e10,"
              "memory=1e10,link=2e9,latency=2e-5,disk=1e9 in FLOP/s, bytes/s and seconds; those "
              "left out are as here. machine: what this one was measured to compute and to "
              "read.", .needs = "clock=virtual|compute=none" },
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

/* The second signal ends the program at once. One request can arrive twice: from a
 * terminal, or whoever signals all processes of a job, and passed on by the launcher. */
static void on_signal(int number)
{
    static const u64 same_ns = 500 * 1000 * 1000;
    const u64 first = atomic_load(&stop_ns), now = sys_now_ns();
    if (!first)
        atomic_store(&stop_ns, now);
    else if (now - first > same_ns) {
        signal(number, SIG_DFL);
        raise(number); /* delivered when this returns */
    }
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
    const char *backend;
    bool in_bf16;
};

static double peak_of(void *context, int threads)
{
    const struct display *d = context;
    const bool best = strcmp(d->backend, "auto") == 0 || strcmp(d->backend, backend_best()) == 0;
    if (!best) /* kept, so that the record can compare them */
        machine_peak_flops(backend_best(), threads, d->in_bf16);
    return machine_peak_flops(d->backend, threads, d->in_bf16);
}

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
    if (s->tokens_per_s > 0 && !isnan(s->loss))
        n += snprintf(out + n, size - (size_t)n, "  loss %.4f", s->loss);
    if (s->tokens_per_s > 0)
        n += snprintf(out + n, size - (size_t)n, "  %.0f tokens/s", s->tokens_per_s);
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
    format_status(s, line, sizeof line);
    if (d->live)
        live_update(d->live, s, line);
    else
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

/* What a run is asked to be; all ranks read it alike, so that all would refuse the same. */
struct opened {
    struct train_config config;
    struct layout layout;
    struct option_group groups[2];
    struct recipe recipe;
    bool choose; /* the layout is to be found */
    const char *backend;
};

/* o stays where it is: the recipe points into it. */
static int open_recipe(struct invocation *v, struct opened *o)
{
    const struct train_flags *flags = v->options;
    o->groups[0] = (struct option_group){ train_options, &o->config };
    o->groups[1] = (struct option_group){ layout_options, &o->layout };
    recipe_init(&o->recipe, v->arena, o->groups, COUNT_OF(o->groups));
    TRY(recipe_load(&o->recipe, v->args[0]));
    TRY(invocation_override(v, &o->recipe));
    o->choose = flags->layout && strcmp(flags->layout, "auto") == 0;
    if (flags->layout && !o->choose)
        TRY(train_layout_override(&o->recipe, &o->layout, flags->layout, v->arena));
    o->backend = flags->backend;
    return inject_settings(&o->recipe, &o->config, &o->layout, &flags->inject, &o->backend);
}

/* As --rates says; "machine": what was measured of this one. */
static int read_rates(const struct invocation *v, const struct opened *o,
                      struct virtual_rates *out)
{
    const struct train_flags *flags = v->options;
    const bool measured = flags->rates && strcmp(flags->rates, "machine") == 0;
    const bool narrow = o->config.train.precision == PRECISION_BF16;
    struct machine m;
    TRY(virtual_rates_parse(out, measured ? NULL : flags->rates, "--rates", v->arena));
    if (!measured)
        return OK;
    const char *backend = strcmp(o->backend, "auto") == 0 ? backend_best() : o->backend;
    i64 threads = o->config.train.threads;
    machine_detect(&m, backend, threads > 0 ? (int)threads : sys_cpu_count());
    if (machine_load(&m) < 0 || m.level[MACHINE_LEVELS - 1].read_all <= 0)
        return err_set(ERR_CONFIG, "--rates machine: this machine was not measured for the %s "
                       "backend; run 'headway machine' first", backend);
    out->price.flops_per_s = narrow ? m.bf16_all : m.f32_all;
    out->price.memory_bytes_per_s = m.level[MACHINE_LEVELS - 1].read_all;
    return OK;
}

static int train_on(struct comm *comm, void *context)
{
    struct invocation *v = context;
    const struct train_flags *flags = v->options;
    struct opened o;
    struct session session;
    struct display display = { .v = v };
    struct virtual_rates rates;
    struct mesh all;
    TRY(mesh_meet(&all, comm));
    int rc = open_recipe(v, &o);
    if (rc >= 0)
        rc = read_rates(v, &o, &rates);
    rc = mesh_all_well(&all, rc, v->arena);
    if (rc < 0) {
        v->terminal->follows = comm->rank > 0 && comm->together;
        return rc;
    }
    const struct sleep_rates sleep = { rates.price.flops_per_s, rates.price.memory_bytes_per_s };
    struct train_request request = {
        .config = &o.config, .recipe = &o.recipe, .recipe_path = v->args[0],
        .layout = &o.layout, .choose_layout = o.choose, .comm = comm,
        .resume = flags->resume, .dry_run = flags->dry_run, .measure = flags->measure,
        .backend = o.backend, .sleep = flags->compute == COMPUTE_NONE ? &sleep : NULL,
        .hooks = { .context = &display, .progress = show_status, .preparing = show_preparing,
                   .stop_ns = &stop_ns, .grace = flags->grace },
    };
    bool leads = comm->rank == 0;
    display.backend = o.backend;
    display.in_bf16 = o.config.train.precision == PRECISION_BF16;
    if (request.sleep)
        request.hooks.peak_flops = sleep.flops_per_s;
    else
        request.hooks.peak_of = peak_of;
    if (!leads)
        be_quiet(v->terminal);
    catch_signals();
    rc = session_open(&session, &request);
    bool opened = rc >= 0;
    if (opened && !flags->dry_run && !session.over)
        rc = train(&session, &display);
    v->terminal->follows = !leads && comm->together;
    if (!opened)
        return rc;
    if (leads)
        printf("%s\n", flags->dry_run ? "the recipe is sound; nothing was written"
                                      : session.folder.path);
    fflush(stdout); /* a rank that was started here ends without */
    session_close(&session);
    return rc;
}

/* Its vocabulary settled, without looking at data. */
static int virtual_spec(struct model_spec *spec, const struct train_config *c,
                        const struct recipe *r, struct arena *a)
{
    struct restore from;
    struct tokenizer *t;
    TRY(train_spec(spec, &from, c, r, a));
    const char *path = c->data.tokenizer ? c->data.tokenizer : from.tokenizer;
    if (spec->vocab == 0 && (!path || !*path))
        return err_set(ERR_CONFIG, "%s leaves its vocabulary open; name data.tokenizer, or set "
                       "model.override {vocab: N}", spec->name);
    if (spec->vocab == 0) {
        TRY(tokenizer_open(&t, path));
        spec->vocab = tokenizer_size(t);
        tokenizer_free(t);
    }
    return spec_check(spec, spec->name);
}

static int run_virtual(struct invocation *v)
{
    const struct train_flags *flags = v->options;
    struct opened o;
    struct model_spec spec;
    struct virtual_rates rates;
    char folder[2048];
    TRY(open_recipe(v, &o));
    TRY(read_rates(v, &o, &rates));
    TRY(train_config_check(&o.config, &o.recipe));
    TRY(virtual_spec(&spec, &o.config, &o.recipe, v->arena));
    TRY(train_layout_check(&o.layout, &spec, &o.config,
                           flags->ranks > 0 ? flags->ranks : layout_ranks(&o.layout)));
    struct virtual_request q = { &o.config, &o.layout, &spec, &o.recipe, v->args[0], rates };
    TRY(virtual_run(&q, folder));
    printf("%s\n", folder);
    return OK;
}

static int run(struct invocation *v)
{
    const struct train_flags *flags = v->options;
    if (flags->clock == CLOCK_VIRTUAL)
        return run_virtual(v);
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
    .joins_ranks = true,
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
