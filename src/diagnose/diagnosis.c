#include "diagnose/diagnosis.h"

#include "base/err.h"
#include "base/sys.h"
#include "diagnose/times.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void note(struct diagnosis *d, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void note(struct diagnosis *d, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (d->n_notes < DIAGNOSIS_NOTES)
        d->notes[d->n_notes++] = arena_strdup(&d->arena, text);
}

/* In how many of the steps that were measured nothing of the rank is there. */
static i64 steps_absent(const struct measure *m, const struct measure_rank *k)
{
    i64 n = 0;
    for (i64 i = 0; i < m->n_steps; i++)
        n += !isfinite(k->step[i]);
    return n;
}

/* Ranks that are not in all steps that were measured: " (2)", " (2, 5 in 30 of 37 steps)"; or
 * nothing. */
static void put_absent(const struct measure *m, struct text *out)
{
    enum { MOST_NAMED = 16 };
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const i64 absent = steps_absent(m, &m->ranks[r]);
        if (absent == 0)
            continue;
        if (n < MOST_NAMED)
            text_printf(out, "%s%d", n == 0 ? " (" : ", ", m->ranks[r].rank);
        if (n < MOST_NAMED && absent < m->n_steps)
            text_printf(out, " in %lld of %lld steps", (long long)absent, (long long)m->n_steps);
        n++;
    }
    if (n > 0)
        text_add(out, n > MOST_NAMED ? " and more)" : ")");
}

/* --- is it still going on? -------------------------------------------------------- */

enum { END_BYTES = 1 << 16 };

/* Who trains holds a lock. */
static bool is_running(const char *folder, struct arena *a)
{
    int fd = sys_open(arena_printf(a, "%s/lock", folder), O_RDONLY | O_CLOEXEC, 0);
    bool taken = fd >= 0 && sys_lock(fd) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        sys_close(fd);
    return taken;
}

/* Since anything was recorded, by the wall clock of the rank that is there. */
static double silence(const struct record *r)
{
    const struct record_part *p = &r->parts[r->n_parts - 1];
    for (int i = 0; i < p->ranks; i++)
        if (p->heads[i])
            return sys_wall_seconds() - p->heads[i]->wall_begin -
                   1e-9 * (double)(p->end_ns - p->begin_ns);
    return NAN;
}

/* A rank whose last step is missing where others have theirs. */
static void find_behind(struct diagnosis *d)
{
    struct record_step s = { 0 };
    if (d->last_step >= 0 && record_step(&d->record, d->last_step, &s) == OK && s.missing > 0)
        for (int i = 0; i < s.n_ranks && d->measure->behind_rank < 0; i++)
            if (!s.ranks[i].head && d->record.parts[s.part].heads[i]) {
                d->measure->behind_rank = i;
                d->measure->calls_behind = 1;
            }
    record_step_free(&s);
}

/* What ranks left when they ended for lack of another; whoever waited in vain knows more than who
 * was told. */
static void read_ends(struct diagnosis *d, const char *folder)
{
    const struct record_part *p = &d->record.parts[d->record.n_parts - 1];
    struct measure *m = d->measure;
    json_t *o;
    for (int i = 0; i < p->ranks; i++) {
        if (json_load(arena_printf(&d->arena, "%s/trace/rank-%d.end", folder, i), END_BYTES, &o) < 0)
            continue;
        const char *why = json_string_value(json_object_get(o, "why"));
        i64 code = json_integer_value(json_object_get(o, "exit"));
        i64 absent = json_integer_value(json_object_get(o, "absent"));
        bool known = absent >= 0 && absent < p->ranks;
        if (why && code > 0 && (m->end_exit == 0 || (known && m->end_absent < 0))) {
            m->end_exit = code;
            m->end_absent = known ? absent : -1;
            m->end_step = json_integer_value(json_object_get(o, "step"));
            m->end_why = arena_strdup(&d->arena, why);
        }
        json_decref(o);
    }
}

static void see_progress(struct diagnosis *d, const char *folder)
{
    const struct record *r = &d->record;
    struct measure *m = d->measure;
    d->running = is_running(folder, &d->arena);
    d->planned = m->config.steps;
    d->last_step = r->n_steps > 0 ? r->steps[r->n_steps - 1] : -1;
    m->ended = !d->running;
    m->final_step = d->running ? -1 : d->last_step;
    m->silent_s = d->running ? silence(r) : NAN;
    if (!d->running)
        read_ends(d, folder);
    if (d->running)
        find_behind(d);
    else if (d->last_step < 0)
        note(d, "the run ended in its first step: no process trains in the folder (log.txt tells the last "
             "that it did)");
    else if (d->planned > 0 && d->last_step + 1 < d->planned)
        note(d, "the run is not finished: step %lld of %lld is the last recorded, and no process "
             "trains in the folder (log.txt tells the last that it did)", (long long)d->last_step + 1,
             (long long)d->planned);
    if (m->n_steps == 0 && r->n_steps > 0)
        note(d, "no steady step is recorded: of %lld steps the first %d of each process are left "
             "out", (long long)r->n_steps, MEASURE_WARM_UP);
    else if (m->n_steps > 0 && m->n_steps < DIAGNOSIS_STEPS_WANTED)
        note(d, "only %lld steady steps: numbers are rough (%d are wanted)",
             (long long)m->n_steps, DIAGNOSIS_STEPS_WANTED);
}

/* Files that are there, and of which steps cannot be read all the same. */
static void note_damaged(struct diagnosis *d)
{
    const struct record *r = &d->record;
    const struct measure *m = d->measure;
    i64 absent = 0;
    for (int k = 0; r->n_parts > 0 && k < r->parts[r->n_parts - 1].ranks; k++)
        absent += !r->parts[r->n_parts - 1].heads[k];
    if (m->missing <= absent)
        return;
    struct text who = { 0 };
    put_absent(m, &who);
    note(d, "spans of %lld of %lld ranks%s are damaged in steps that are judged, or were never written",
         (long long)m->missing, (long long)m->n_ranks, who.data ? who.data : "");
    text_fini(&who);
}

/* What was not measured, as far as rules wanted it. */
static void note_unknown(struct diagnosis *d)
{
    const struct measure *m = d->measure;
    bool sampled = false;
    if (m->n_steps == 0)
        return;
    for (i64 r = 0; r < m->n_ranks; r++)
        sampled |= m->ranks[r].on_cpu >= 0;
    if (strcmp(m->config.backend, "none") == 0)
        note(d, "tasks sleep here as long as they would compute (--compute none): whether threads "
                "get their processors is not judged");
    else if (!sampled)
        note(d, "no samples of the host: throttling, neighbours, faults and storage are not "
                "judged");
    const long long threads = (long long)m->config.threads;
    if (!(m->ceilings.used > 0))
        note(d, "this machine's ceilings are not known (headway machine measures them): products' "
             "shape and precision are not judged");
    else if (!(m->ceilings.memory_bytes_per_s > 0))
        note(d, "how fast this machine's memory is was not known when the run began (headway machine "
             "--threads %lld measures it): what waits for memory is not judged", threads);
    if (m->peak_probed > 0)
        note(d, "before the run a rank's peak was measured as %.0f GFLOP/s, and its kernels attain %.0f: "
             "the probe was disturbed, and shares are of the latter (headway machine --again)",
             1e-9 * m->peak_probed, 1e-9 * m->ceilings.used);
    if (m->left_out > 0 && measure_whole(m))
        note(d, "in %lld steps spans are damaged, ranks missing or clocks apart: those are left out",
             (long long)m->left_out);
    if (m->samples_lost > 0)
        note(d, "%lld samples of the host are damaged: what it did in those steps is not judged",
             (long long)m->samples_lost);
    bool based = m->n_lanes == 0 || m->metrics_unread;
    for (i64 i = 0; i < m->n_lanes; i++)
        based |= m->lanes[i].base_bytes_per_s > 0;
    if (!based)
        note(d, "links were not measured before the run (run.preflight): whether they are slow is "
             "not judged");
}

/* Tasks that graphs may have in all: some 100 bytes each, and 40 to edit them. */
enum { MOST_NODES = 2000000 };

static void take_path(struct diagnosis *d, const struct critical *c)
{
    for (i64 i = 0; i < c->n && i < DIAGNOSIS_PATH; i++) {
        struct critical_share *p = &d->path[d->n_path++];
        *p = c->shares[i];
        p->seconds /= fmax(1, c->steps);
        p->op = arena_strdup(&d->arena, p->op);
    }
    d->path_parts = c->n;
    for (i64 i = d->n_path; i < c->n; i++)
        d->path_rest_s += c->shares[i].seconds / fmax(1, c->steps);
}

/* Findings, priced by replay where the steps' graphs can be trusted. */
static int judge(struct diagnosis *d)
{
    struct whatif *w;
    d->fidelity = NAN;
    TRY(whatif_new(&w, &d->record, d->measure, MOST_NODES));
    if (!w) {
        findings_make(&d->findings, d->measure, NULL);
        d->n_probes = probes_measure(d->probes, &d->record, d->measure, NULL);
        return OK;
    }
    struct finding_replay replay = whatif_replay(w);
    d->fidelity = whatif_fidelity(w);
    d->ladder = *whatif_ladder(w);
    take_path(d, whatif_critical(w));
    if (fabs(d->fidelity - 1) <= DAG_GATE && measure_whole(d->measure)) {
        whatif_lost(w, d->measure->loss);
        whatif_noise(w, d->measure);
        whatif_settle(w, d->measure);
    }
    findings_make(&d->findings, d->measure, &replay);
    bool valid = fabs(d->fidelity - 1) <= DAG_GATE;
    d->n_probes = probes_measure(d->probes, &d->record, d->measure, valid ? w : NULL);
    probes_limit(d->probes, d->n_probes, &d->findings);
    whatif_free(w);
    if (!(fabs(d->fidelity - 1) <= DAG_GATE))
        note(d, "replay is not valid: the graphs of the steps come to %.1f %% of what was "
             "measured, so gains are by formula", 100 * d->fidelity);
    return OK;
}

int diagnosis_open(struct diagnosis *d, const char *folder, const struct measure_range *range)
{
    *d = (struct diagnosis){ .last_step = -1 };
    arena_init(&d->arena);
    int rc = record_open(&d->record, folder);
    if (rc >= 0 && !is_running(folder, &d->arena) && d->record.n_steps > 0)
        d->record.final_step = d->record.steps[d->record.n_steps - 1];
    if (rc >= 0)
        rc = measure_record(&d->measure, &d->record, folder, range, &d->arena);
    if (rc >= 0)
        rc = measure_link_episode(d->measure, &d->record, folder, &d->arena);
    if (rc < 0) {
        diagnosis_close(d);
        return rc;
    }
    for (i64 i = 0; i < d->record.n_damage; i++)
        note(d, "%s", d->record.damage[i]);
    for (int i = 0; i < d->measure->n_unread; i++)
        note(d, "%s", d->measure->unread[i]);
    note_damaged(d);
    see_progress(d, folder);
    note_unknown(d);
    rc = judge(d);
    if (rc < 0)
        diagnosis_close(d);
    else
        findings_name_run(&d->findings, folder, d->measure);
    return rc;
}

void diagnosis_close(struct diagnosis *d)
{
    record_close(&d->record);
    arena_fini(&d->arena);
}

/* --- telling ---------------------------------------------------------------------- */

static void put_share(const struct measure *m, struct text *out, const char *what, double seconds)
{
    if (seconds > 0.0005 * m->step.mean)
        text_printf(out, "  %-28s %9.2f ms %5.1f %%\n", what, 1e3 * seconds,
                    100 * seconds / m->step.mean);
}

enum { TOLD = 8 };

static void put_times(const struct measure *m, struct text *out)
{
    text_printf(out, "\nA step takes %.2f ms (median %.2f, sigma %.2f, %lld steps from %lld), "
                     "on the "
                "mean rank:\n", 1e3 * m->step.mean, 1e3 * m->step.median, 1e3 * m->step.sigma,
                (long long)m->n_steps, (long long)m->first_step + 1);
    for (int k = 0; k < TIMES; k++)
        put_share(m, out, times_name(m, (enum times_class)k), times_mean(m, (enum times_class)k));
}

/* What takes less than memory's rate allows, by more than noise, does not come from there. */
static const double beyond_memory = 1.05;

static void put_ops(const struct measure *m, struct text *out)
{
    double total = 0;
    for (i64 i = 0; i < m->n_ops; i++)
        total += m->ops[i].seconds;
    if (m->n_ops == 0)
        return;
    text_add(out, "\nComputing, the longest:\n");
    for (i64 i = 0; i < m->n_ops && i < 6; i++) {
        const struct measure_op *o = &m->ops[i];
        static const char *const phases[] = { "forward", "input grad", "weight grad", "update" };
        text_printf(out, "  %-18s %-11s %9.2f ms %5.1f %%", o->name,
                    o->recompute ? "again" : o->phase < 4 ? phases[o->phase] : "",
                    1e3 * o->seconds, 100 * o->seconds / total);
        const double share = o->roofline_s / o->seconds;
        const bool attends = strncmp(o->name, "attention", strlen("attention")) == 0;
        if (share > beyond_memory)
            text_printf(out, "  100 %% of the roofline (%s)", attends ? "of whole rows" : "from caches");
        else if (o->roofline_s > 0)
            text_printf(out, "  %3.0f %% of the roofline", 100 * fmin(1, share));
        text_add(out, "\n");
    }
}

static const char *path_name(const struct critical_share *p)
{
    return p->op && p->op[0] ? p->op : critical_kind_name(p->kind);
}

/* The steps that are replayed have a mean of their own. */
static void put_path_title(const struct diagnosis *d, struct text *out)
{
    double all = d->path_rest_s;
    for (i64 i = 0; i < d->n_path; i++)
        all += d->path[i].seconds;
    text_printf(out, "\nWhat the step's end waited for (critical path; %lld replayed step%s of "
                     "%.2f ms), the longest:\n", (long long)d->ladder.steps,
                d->ladder.steps == 1 ? "" : "s", 1e3 * all);
}

static void put_path(const struct diagnosis *d, struct text *out)
{
    const struct measure *m = d->measure;
    if (d->n_path == 0)
        return;
    put_path_title(d, out);
    for (i64 i = 0; i < d->n_path && i < TOLD; i++) {
        const struct critical_share *p = &d->path[i];
        char where[32] = "", layer[32] = "", what[128];
        if (m->n_ranks > 1 && p->rank >= 0)
            snprintf(where, sizeof where, ", rank %d", p->rank);
        if (p->layer >= 0)
            snprintf(layer, sizeof layer, ", layer %d", p->layer);
        snprintf(what, sizeof what, "%s%s%s", path_name(p), layer, where);
        put_share(m, out, what, p->seconds);
    }
    double rest = d->path_rest_s;
    for (i64 i = TOLD; i < d->n_path; i++)
        rest += d->path[i].seconds;
    if (d->path_parts > TOLD) {
        char what[64];
        snprintf(what, sizeof what, "%lld shorter ones", (long long)d->path_parts - TOLD);
        put_share(m, out, what, rest);
    }
}

/* What the run multiplies in: its peak is what shares are of. */
static const char *precision_of(const struct record *r)
{
    const struct record_part *p = &r->parts[r->n_parts - 1];
    for (int i = 0; i < p->ranks; i++)
        if (p->heads[i])
            return p->heads[i]->precision;
    return "fp32";
}

/* "MFU 41 % = goodput 98 x data 100 x ...", factors in per cent. */
static void put_ladder(const struct diagnosis *d, struct text *out)
{
    double factor[LADDER_FACTORS], mfu = ladder_mfu(&d->ladder);
    struct text line = { 0 };
    bool all = true;
    for (int k = 0; k < LADDER_FACTORS; k++)
        all = all && ladder_known(&d->ladder, (enum ladder_factor)k);
    if (d->ladder.steps == 0)
        return;
    ladder_factors(&d->ladder, factor);
    if (isfinite(mfu))
        text_printf(&line, "MFU %.1f %% of %.0f GFLOP/s a rank (its peak in %s) = ", 100 * mfu,
                    1e-9 * ladder_peak(&d->ladder), precision_of(&d->record));
    for (int k = 0; k < LADDER_FACTORS; k++)
        if (ladder_known(&d->ladder, (enum ladder_factor)k))
            text_printf(&line, "%s%s %.1f", k > 0 ? " x " : "", ladder_name(k), 100 * factor[k]);
        else
            text_printf(&line, "%s%s -", k > 0 ? " x " : "", ladder_name(k));
    if (!all)
        text_add(&line, " (-: not measured)");
    text_add(out, "\n");
    text_wrap(out, line.data ? line.data : "", 0, 4, 98);
    text_printf(out, "\n    of steady steps: the first %d of a process and what is done once, at "
                     "the run's end, are\n    left out, which `headway trace ladder` counts\n",
                MEASURE_WARM_UP);
    text_fini(&line);
}

/* Before the numbers that it is about. */
static void put_missing(const struct measure *m, struct text *out)
{
    struct text text = { 0 };
    if (measure_whole(m))
        return;
    if (m->missing > 0) {
        text_printf(&text, "The record lacks %lld of %lld ranks", (long long)m->missing,
                    (long long)m->n_ranks);
        put_absent(m, &text);
    } else {
        text_add(&text, "The ranks' clocks are apart");
    }
    text_printf(&text, ": whether the others wait for ranks or for bytes is not told apart, and kinds "
                "B, C and K14 are not judged.%s",
                m->missing > 0 ? " All numbers are of the ranks that are there." : "");
    text_wrap(out, text.data, 0, 0, 98);
    text_add(out, "\n\n");
    text_fini(&text);
}

void diagnosis_text(const struct diagnosis *d, struct text *out)
{
    const struct measure *m = d->measure;
    put_missing(m, out);
    if (m->n_steps > 0 || d->findings.n > 0)
        findings_text(&d->findings, m, out);
    if (m->n_steps > 0) {
        probes_text(d->probes, d->n_probes, out);
        put_times(m, out);
        put_ladder(d, out);
        put_path(d, out);
        put_ops(m, out);
    }
    for (int i = 0; i < d->n_notes; i++) {
        text_add(out, i == 0 ? "\nMissing:\n  - " : "  - ");
        text_wrap(out, d->notes[i], 4, 4, 98);
        text_add(out, "\n");
    }
}

static void put_factors(const struct diagnosis *d, struct json *j)
{
    double factor[LADDER_FACTORS];
    if (d->ladder.steps == 0)
        return;
    ladder_factors(&d->ladder, factor);
    json_put_double(j, "mfu", ladder_mfu(&d->ladder));
    json_put_double(j, "mfu_peak", ladder_peak(&d->ladder));
    json_put_str(j, "mfu_precision", precision_of(&d->record));
    json_put_double(j, "hfu", ladder_hfu(&d->ladder));
    json_key(j, "ladder");
    json_begin_object(j);
    for (int k = 0; k < LADDER_FACTORS; k++)
        json_put_double(j, ladder_name(k),
                        ladder_known(&d->ladder, (enum ladder_factor)k) ? factor[k] : NAN);
    json_end(j);
}

/* Bytes of tokens that a step takes, at the rank that takes most. */
static double most_loaded(const struct measure *m)
{
    double most = NAN;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (!(most >= m->ranks[r].used_bytes))
            most = m->ranks[r].used_bytes;
    return most;
}

static void put_lanes(const struct measure *m, struct json *j)
{
    json_key(j, "lanes");
    json_begin_array(j);
    for (i64 i = 0; i < m->n_lanes; i++) {
        const struct measure_lane *l = &m->lanes[i];
        json_begin_object(j);
        json_put_str(j, "axis", l->axis);
        json_put_int(j, "members", l->members);
        json_put_double(j, "calls", l->calls);
        json_put_double(j, "bytes", l->bytes);
        json_put_double(j, "busy_s", l->busy_s);
        json_put_double(j, "exposed_s", l->exposed_s);
        json_put_double(j, "wait_exposed_s", l->wait_exposed_s);
        json_put_double(j, "latency_s", l->latency_s);
        json_put_double(j, "bytes_per_s", l->bytes_per_s);
        json_end(j);
    }
    json_end(j);
}

/* Per class of time that no finding accounts for: seconds a step, under the keys of times. */
static void put_unexplained(const struct diagnosis *d, struct json *j)
{
    json_key(j, "unexplained");
    json_begin_object(j);
    for (int k = 0; k < TIMES; k++) {
        double s = times_unexplained(d->measure, &d->findings, (enum times_class)k);
        if (s > 0)
            json_put_double(j, times_key(d->measure, (enum times_class)k), s);
    }
    json_end(j);
}

/* Where stages that cannot be more even are what is waited for. */
static void put_uneven_stages(const struct diagnosis *d, struct json *j)
{
    struct times_stages stages;
    const double waits = times_unexplained(d->measure, &d->findings, TIME_WAIT);
    if (!(waits > 0) || !times_of_stages(d->measure, waits, &stages))
        return;
    json_key(j, "uneven_stages");
    json_begin_object(j);
    json_put_double(j, "most_s", stages.most_s);
    json_put_double(j, "mean_s", stages.mean_s);
    json_end(j);
}

void diagnosis_json(const struct diagnosis *d, struct json *j)
{
    const struct measure *m = d->measure;
    json_begin_object(j);
    json_put_int(j, "schema", 1);
    json_put_bool(j, "running", d->running);
    json_put_int(j, "ranks", m->n_ranks);
    json_put_int(j, "missing_ranks", m->missing);
    json_put_int(j, "steps", m->n_steps);
    json_put_int(j, "first_step", m->first_step + 1);
    json_put_double(j, "step_s", m->step.mean);
    json_put_double(j, "step_median_s", m->step.median);
    json_put_double(j, "step_se_s", m->step.se);
    json_put_double(j, "theta_s", m->theta);
    json_key(j, "times");
    json_begin_object(j);
    for (int k = 0; k < TIMES; k++)
        json_put_double(j, times_key(m, (enum times_class)k), times_mean(m, (enum times_class)k));
    json_end(j);
    put_unexplained(d, j);
    put_uneven_stages(d, j);
    json_put_double(j, "loader_bytes", most_loaded(m));
    put_factors(d, j);
    json_put_double(j, "replay_fidelity", d->fidelity);
    json_key(j, "critical_path");
    json_begin_array(j);
    for (i64 i = 0; i < d->n_path; i++) {
        json_begin_object(j);
        json_put_str(j, "what", path_name(&d->path[i]));
        json_put_int(j, "rank", d->path[i].rank);
        json_put_int(j, "layer", d->path[i].layer);
        json_put_double(j, "seconds", d->path[i].seconds);
        json_end(j);
    }
    json_end(j);
    json_put_double(j, "critical_path_rest_s", d->path_rest_s);
    put_lanes(m, j);
    json_key(j, "findings");
    findings_json(&d->findings, j);
    json_key(j, "probes");
    probes_json(d->probes, d->n_probes, j);
    json_key(j, "missing");
    json_begin_array(j);
    for (int i = 0; i < d->n_notes; i++)
        json_str(j, d->notes[i]);
    json_end(j);
    json_end(j);
}
