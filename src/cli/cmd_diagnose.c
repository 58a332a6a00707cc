/* Why a run is as slow as it is, and what mending that would give back. */
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/command.h"
#include "diagnose/diagnosis.h"
#include "diagnose/kind.h"
#include "diagnose/rule.h"
#include "ops/ops.h"
#include "train/run_folder.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct diagnose_flags {
    const char *steps, *probe;
    i64 pairs;
    bool json, live, rules, kinds;
    double every;
};

static const struct option options[] = {
    { "steps", OPTION_FIELD(STRING, struct diagnose_flags, steps), NULL,
      .help = "Judge these steps only, such as 50-80 or 100- (counted from 1, as in the "
              "metrics)." },
    { "json", OPTION_FIELD(BOOL, struct diagnose_flags, json), "no",
      .help = "Print one JSON object." },
    { "live", OPTION_FIELD(BOOL, struct diagnose_flags, live), "no",
      .help = "Judge again and again while the run goes on, and once more when it has ended." },
    { "every", OPTION_FIELD(DURATION, struct diagnose_flags, every), "10s", .unit = "seconds",
      .min = 0.1, .max = 86400, .help = "Time between judgements with --live.",
      .needs = "live|probe" },
    { "probe", OPTION_FIELD(STRING, struct diagnose_flags, probe), NULL,
      .help = "OP=SHARE, such as linear=10%: of a run that goes on, have tasks of the "
              "ops whose name begins so (all: of any) take so much longer in one of each "
              "two steps, wait until it has, and say what the steps answered: the most "
              "that mending these tasks can give back." },
    { "pairs", OPTION_FIELD(INT, struct diagnose_flags, pairs), "20", .min = 1, .max = 100000,
      .help = "Pairs of steps for --probe.", .needs = "probe" },
    { "rules", OPTION_FIELD(BOOL, struct diagnose_flags, rules), "no",
      .help = "Print the kinds that can be named, the numbers that decide and why they are what "
              "they are; RUN is not read.",
      .excludes = "kinds|json|steps|live|probe" },
    { "kinds", OPTION_FIELD(BOOL, struct diagnose_flags, kinds), "no",
      .help = "Print every kind of bottleneck that is known of: by what it is told and how it is "
              "injected, or why nothing here names it; RUN is not read.",
      .excludes = "steps|live|probe" },
    { 0 },
};

static int parse_steps(const char *text, struct measure_range *out)
{
    char *end;
    if (!text)
        return OK;
    long long first = strtoll(text, &end, 10), last = first;
    if (end == text || first < 1)
        return err_set(ERR_USAGE, "--steps %s: give the first and the last step, such as 50-80",
                       text);
    if (*end == '-') {
        const char *rest = end + 1;
        last = *rest ? strtoll(rest, &end, 10) : 0;
        end += *rest == '\0';
    }
    if (*end || (last != 0 && last < first))
        return err_set(ERR_USAGE, "--steps %s: give the first and the last step, such as 50-80",
                       text);
    out->first = first - 1;
    out->last = last > 0 ? last - 1 : -1;
    out->most = INT32_MAX;
    return OK;
}

/* --- asking a run that goes on ------------------------------------------------------ */

/* A rank that reads the question must still be before its first step. */
enum { LEAD_STEPS = 16 };
static const double lead_s = 5;

/* The fault that it asks for, without its steps. */
static int parse_probe(const char *text, const char **out, struct arena *a)
{
    struct inject_fault f;
    size_t n = strcspn(text, "=");
    if (!text[n])
        return err_set(ERR_USAGE, "--probe %s: give ops and by how much they are to be "
                       "slower, such as linear=10%%", text);
    *out = arena_printf(a, "probe=%.*s,slower=%s", (int)n, text, text + n + 1);
    TRY(inject_parse(&f, *out, "--probe"));
    if (f.kind != INJECT_PROBE || f.limited)
        return err_set(ERR_USAGE, "--probe %s: it concerns all ranks, and steps to come", text);
    for (i64 k = 0; k < op_table_count; k++)
        if (inject_probes(&f, op_table[k]->name))
            return OK;
    return err_set(ERR_USAGE, "--probe %s: there is no op whose name begins so", text);
}

static int add_line(const char *path, const char *line, struct arena *a)
{
    char was[INJECT_PROBES_CHARS + 1];
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    i64 n = fd >= 0 ? sys_read_full(fd, was, INJECT_PROBES_CHARS) : 0;
    if (fd >= 0)
        sys_close(fd);
    was[i64_max(0, n)] = '\0';
    const char *all = arena_printf(a, "%s%s\n", was, line);
    if (strlen(all) > INJECT_PROBES_CHARS)
        return err_set(ERR_LIMIT, "%s is full: it was asked for too many probes", path);
    return file_replace(path, all, (i64)strlen(all));
}

/* Asks, and waits until the steps that answer are recorded or no more will come. */
static int probe_run(const struct diagnose_flags *f, const char *folder, struct arena *a)
{
    struct diagnosis d;
    const char *fault = NULL;
    TRY(parse_probe(f->probe, &fault, a));
    TRY(diagnosis_open(&d, folder, &(struct measure_range){ .last = -1 }));
    double step_s = d.measure->step.median > 0 ? d.measure->step.median : lead_s;
    i64 first = d.last_step + i64_max(LEAD_STEPS, (i64)(lead_s / step_s));
    i64 planned = d.planned;
    bool running = d.running;
    diagnosis_close(&d);
    first += first % 2;
    const i64 last = first + 2 * f->pairs - 1;
    if (!running)
        return err_set(ERR_CONFIG, "%s: no process trains there; slow it from the start "
                       "with headway train RECIPE --inject %s", folder, fault);
    if (planned > 0 && last >= planned)
        return err_set(ERR_CONFIG, "%s: it ends with step %lld, before %lld pairs of "
                       "steps are taken: ask for fewer --pairs",
                       folder, (long long)planned, (long long)f->pairs);
    TRY(add_line(arena_printf(a, "%s/" INJECT_PROBES_FILE, folder),
                 arena_printf(a, "%s:%lld-%lld", fault, (long long)first + 1, (long long)last + 1),
                 a));
    if (!f->json)
        printf("Asked for %s in one of each two of steps %lld to %lld; it takes about %.0f s.\n",
               fault, (long long)first + 1, (long long)last + 1,
               step_s * (double)(LEAD_STEPS + 2 * f->pairs));
    fflush(stdout);
    for (i64 at = -1; running && at <= last;) { /* and one more, which ends the last window */
        sys_sleep_ns((u64)(1e9 * fmin(f->every, 1)));
        if (diagnosis_open(&d, folder, &(struct measure_range){ .last = -1, .most = 1 }) < 0)
            continue;
        at = d.last_step;
        running = d.running;
        diagnosis_close(&d);
    }
    return OK;
}

static void print_rules(void)
{
    for (i64 k = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++) {
            printf("%-4s %s\n", r->id, r->title);
            for (int i = 0; i < RULE_LIMITS && r->limit[i].what; i++)
                printf("       %-6g %s: %s\n", r->limit[i].value, r->limit[i].what,
                       r->limit[i].reason);
        }
}

static void put_kinds(struct json *j)
{
    json_begin_array(j);
    for (int i = 0; i < KINDS; i++) {
        json_begin_object(j);
        json_put_str(j, "id", kinds[i].id);
        json_put_str(j, "name", kinds[i].name);
        json_put_str(j, "state", kind_state_name(kinds[i].state));
        json_put_str(j, "measured", kinds[i].measured);
        json_put_str(j, "inject", kinds[i].inject);
        json_end(j);
    }
    json_end(j);
}

static void print_kinds(bool as_json)
{
    struct text out = { 0 };
    struct json j;
    json_writer_init(&j);
    if (as_json)
        put_kinds(&j);
    else
        kinds_text(&out);
    printf("%s%s", as_json ? j.out.data : out.data, as_json ? "\n" : "");
    json_writer_fini(&j);
    text_fini(&out);
}

static void print(const struct diagnosis *d, bool as_json)
{
    struct text out = { 0 };
    struct json j;
    if (as_json) {
        json_writer_init(&j);
        diagnosis_json(d, &j);
        printf("%s\n", j.out.data);
        json_writer_fini(&j);
    } else {
        diagnosis_text(d, &out);
        fputs(out.data ? out.data : "", stdout);
        text_fini(&out);
    }
    fflush(stdout);
}

static int run(struct invocation *v)
{
    const struct diagnose_flags *f = v->options;
    struct measure_range range = { .last = -1 };
    bool again = f->live;
    if (f->rules) {
        print_rules();
        return OK;
    }
    if (f->kinds) {
        print_kinds(f->json);
        return OK;
    }
    if (v->n_args != 1)
        return err_set(ERR_USAGE, "which run? headway diagnose RUN");
    TRY(parse_steps(f->steps, &range));
    if (f->probe)
        TRY(probe_run(f, v->args[0], v->arena));
    for (i64 n = 0; n == 0 || again; n++) {
        struct diagnosis d;
        if (n > 0)
            sys_sleep_ns((u64)(1e9 * f->every));
        int rc = diagnosis_open(&d, v->args[0], &range);
        if (rc < 0 && n == 0)
            return rc;
        if (rc < 0)
            continue; /* the files were in the midst of changing places */
        if (n > 0 && !f->json)
            printf("\n--- after step %lld\n", (long long)d.last_step + 1);
        print(&d, f->json);
        again = f->live && d.running;
        diagnosis_close(&d);
    }
    return OK;
}

static const struct example examples[] = {
    { "headway diagnose runs/tiny", "What costs the run tiny most, where, and how to mend it." },
    { "headway diagnose runs/tiny --steps 50-80", "The same of some steps only." },
    { "headway diagnose runs/tiny --live", "The same of a run that goes on, every ten seconds." },
    { "headway diagnose runs/tiny --probe linear=10%",
      "What the steps of a run that goes on answer when its products take longer." },
    { "headway diagnose --rules", "What can be named, and which numbers decide." },
    { "headway diagnose --kinds", "All kinds, those that cannot be named and why, too." },
    { 0 },
};

const struct command cmd_diagnose = {
    .name = "diagnose",
    .summary = "Name what makes a run slow, where, and what mending it would give back",
    .arguments = "[RUN]",
    .description = "RUN is a run folder, finished or not; its recorded spans and samples "
                   "(trace.disk) "
                   "are what is judged. Findings are sorted by what mending them would give "
                   "back, with an interval; those about others' work on the machine stand behind "
                   "the rest. Each says where, by which numbers, which look-alikes were "
                   "rejected, and the setting that mends it.\n\n"
                   "A finding must lose at least 2 % of a step and three standard errors of its "
                   "length. When there is none, that figure is printed: it is how much could "
                   "be hidden "
                   "in the noise.\n\n"
                   "A probe asks the run itself: tasks that are slowed by a little make "
                   "a step longer by what of them is critical, and since a step's length "
                   "is convex in its tasks', making them faster gives back no more than "
                   "that in proportion. `headway train --inject probe=OP,slower=SHARE` "
                   "does so from the start.",
    .options = options,
    .options_bytes = sizeof(struct diagnose_flags),
    .min_args = 0,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
