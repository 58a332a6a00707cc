#include "base/inject.h"

#include "base/err.h"
#include "base/rng.h"
#include "base/text.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer than anybody waits for a fault; more than there is of anything that is counted. */
#define AN_HOUR_MS .most = 3.6e6
#define AN_HOUR_US .most = 3.6e9
#define MANY .most = 1e9
#define FAST .most = 1e9 /* MB/s: a petabyte */

#define COMPUTE .acts = "compute"
#define LANES .acts = "lanes"
#define LOADER .acts = "loader"
#define LOOP .acts = "loop"
#define RECIPE .acts = "recipe"

const struct inject_row inject_rows[INJECT_KINDS] = {
    [INJECT_SLOW_COMPUTE] = { "slow_compute", .unit = "x", .least = 1, .most = 1000, COMPUTE,
        .help = "Every compute task takes so many times as long." },
    [INJECT_PHI] = { "phi_override", .unit = "x", .least = 0.01, .most = 1, COMPUTE,
        .help = "As if the clock ran at this share of its speed: the clock probe says so, and "
                "compute tasks take that much longer." },
    [INJECT_JITTER] = { "jitter", .unit = "%", .most = 1000, COMPUTE,
        .help = "Each part of a step (action) takes 1 + this x |z| times as long, z drawn anew "
                "for every rank, step and part." },
    [INJECT_OP] = { "op", INJECT_OP_DELAY, .unit = "ms", AN_HOUR_MS, COMPUTE,
        .help = "op=NAME,delay=TIME: each compute task of that op takes so much longer. What a "
                "step then takes longer, over that, says how critical the op is." },
    [INJECT_PROBE] = { "probe", INJECT_OP_SLOWER, .unit = "%", .least = 0.1, .most = 1000, COMPUTE,
        .help = "probe=OP,slower=SHARE: in one of each two steps, compute tasks of the ops whose "
                "name begins so (all: of any) take so much longer. `headway diagnose` compares the "
                "steps: what they take longer bounds what mending these tasks can give back." },
    [INJECT_SERIAL] = { "serial", INJECT_WORD, COMPUTE,
        .help = "serial=OP: the tasks of that op run on one thread." },
    [INJECT_OVERLAP] = { "overlap", INJECT_WORD, .words = "off", COMPUTE,
        .help = "off: a call of a lane is waited for where it begins (pipelines' moves are not)." },
    [INJECT_COMM_DELAY] = { "comm_delay", .unit = "us", AN_HOUR_US, LANES,
        .help = "Each call of a lane ends so much later." },
    [INJECT_COMM_BW] = { "comm_bw", .unit = "MB/s", .least = 1e-6, FAST, LANES,
        .help = "What a rank sends on a lane passes a link of this rate, call by call." },
    [INJECT_PAIR_BW] = { "pair_bw", INJECT_LINK, .unit = "MB/s", .least = 1e-6, FAST, LANES,
        .help = "a-b:RATE: the same for the one link between two ranks: for moves between them, "
                "and for calls of groups where they are neighbours of the ring." },
    [INJECT_HANG] = { "hang", .unit = "n", .least = 1, MANY, LANES,
        .help = "The rank leaves out so many calls of lanes, from each first step on." },
    [INJECT_LOADER_SPIN] = { "loader_spin", .unit = "ms", AN_HOUR_MS, LOADER,
        .help = "Making a step's rows computes so much longer." },
    [INJECT_LOADER_BW] = { "loader_bw", .unit = "MB/s", .least = 1e-9, FAST, LOADER,
        .help = "The loader waits as if its tokens came from storage at this rate." },
    [INJECT_LOADER_LOGNORMAL] = { "loader_lognormal", .unit = "ms", AN_HOUR_MS, LOADER,
        .help = "Making a step's rows waits for a lognormal time (sigma 1) of which 95 % are "
                "below this." },
    [INJECT_SEQLEN_ZIPF] = { "seqlen_zipf", .unit = "x", .least = 0.01, .most = 20, LOADER,
        .help = "Attention within rows is cut into documents whose number follows a Zipf law of "
                "this exponent: rows cost differently." },
    [INJECT_PADDING] = { "padding", .unit = "%", .most = 99, LOADER,
        .help = "This share at the end of every row counts in no loss." },
    [INJECT_MALLOC_CHURN] = { "malloc_churn", .unit = "MiB", .most = 65536, LOOP,
        .help = "Each step takes so much memory from the system, touches it and gives it back." },
    [INJECT_PAUSE] = { "pause", INJECT_EVERY, .unit = "ms", AN_HOUR_MS, LOOP,
        .help = "pause=TIME/STEPS: every so many steps, stand still, and no span says so." },
    [INJECT_LOG] = { "log_every", .unit = "n", .least = 1, MANY, LOOP, .key = "log.every",
        .help = "Log every so many steps, and make each line durable." },
    [INJECT_NEIGHBOUR] = { "neighbour", .unit = "n", .least = 1, .most = 64, LOOP,
        .help = "So many other processes compute beside this one." },
    [INJECT_KILL] = { "kill", .unit = "n", .least = 1, MANY, LOOP,
        .help = "The process dies (SIGKILL) when it has taken so many steps; so does the one that "
                "resumes." },
    [INJECT_ROUTER_ZIPF] = { "router_zipf", .unit = "x", .least = 0.01, .most = 20, LOOP,
        .help = "The router's bias makes experts' loads follow a Zipf law of about this exponent; "
                "needs experts with a router bias." },
    [INJECT_EVAL] = { "eval_every", .unit = "n", .least = 1, MANY, RECIPE, .key = "eval.every",
        .help = "Evaluate every so many steps." },
    [INJECT_CKPT] = { "ckpt_every", .unit = "n", .least = 1, MANY, RECIPE,
        .key = "checkpoint.every",
        .help = "Save every so many steps, while training waits." },
    [INJECT_HEALTH] = { "health_every", .unit = "n", .least = 1, MANY, RECIPE, .key = "log.health",
        .help = "Measure how learning goes (norms, scores, noise) every so many steps." },
    [INJECT_THREADS] = { "threads", .unit = "n", .least = 1, .most = 1024, RECIPE,
        .key = "train.threads", .help = "Compute with so many threads." },
    [INJECT_MICRO_BATCH] = { "micro_batch", .unit = "n", .least = 1, MANY, RECIPE,
        .key = "train.batch",
        .help = "Rows of a micro-batch, with as many rows in a step." },
    [INJECT_ACCUMULATE] = { "accumulate", .unit = "n", .least = 1, MANY, RECIPE,
        .key = "train.accumulate", .help = "Micro-batches of a step." },
    [INJECT_RECOMPUTE] = { "recompute", INJECT_WORD, .words = "none|selective|full", RECIPE,
        .key = "train.recompute", .help = "What of the forward pass is computed again." },
    [INJECT_ZERO] = { "zero", .unit = "n", .most = 3, RECIPE, .key = "layout.zero",
        .help = "What ranks split over the data axis." },
    [INJECT_BUCKET] = { "bucket", INJECT_WORD, RECIPE, .key = "layout.bucket",
        .help = "SIZE or all: sums of gradients in messages of this size, or only when all are "
                "complete." },
    [INJECT_SYNC] = { "sync_every_microbatch", INJECT_WORD, .words = "on", RECIPE,
        .key = "layout.zero", .help = "on: gradients are summed over ranks in each micro-batch." },
    [INJECT_CAPACITY] = { "capacity", .unit = "x", .least = 1, .most = 1000, RECIPE,
        .key = "model.override", .help = "Rows that an expert takes, over its even share." },
    [INJECT_ISA] = { "isa", INJECT_WORD, .words = "scalar|generic|avx2|avx512|reference", RECIPE,
        .key = "--backend", .help = "Kernels of this instruction set; scalar is generic." },
    [INJECT_DTYPE] = { "dtype", INJECT_WORD, .words = "f32|bf16", RECIPE,
        .key = "train.precision", .help = "Compute in this type." },
    [INJECT_STAGE_SKEW] = { "stage_skew", .unit = "n", .least = 1, MANY, RECIPE,
        .key = "layout.stages",
        .help = "The last stage has so many layers more than its share, the others fewer." },
    [INJECT_ATTN] = { "attn", INJECT_WORD, .words = "dense_mask", RECIPE,
        .refused = "attention never computes what its mask forbids, so there is no kernel that "
                   "does",
        .help = "dense_mask: compute what the mask forbids." },
    [INJECT_NOFUSE] = { "nofuse", INJECT_WORD, RECIPE,
        .refused = "norms, activations and losses have fused kernels only",
        .help = "Run chains of small ops one by one." },
    [INJECT_SUBNORMAL] = { "subnormal", INJECT_WORD, RECIPE,
        .refused = "kernels flush nothing and are not fed by hand: gradients are what the loss "
                   "makes them",
        .help = "Gradients that are subnormal numbers." },
    [INJECT_CONTIGUOUS_CP] = { "cp_split", INJECT_WORD, .words = "contiguous", RECIPE,
        .refused = "context parallelism cuts rows in zigzag only",
        .help = "contiguous: ranks along cp have unequal attention." },
};

/* --- reading ------------------------------------------------------------------------ */

struct reading {
    const char *text, *where;
    const struct inject_row *row;
};

static int wrong(const struct reading *r, const char *what)
{
    return err_set(ERR_CONFIG, "%s%s'%s': %s", r->where ? r->where : "", r->where ? ": " : "",
                   r->text, what);
}

static const struct {
    const char *unit, *of; /* of: units of rows that it can stand for */
    double scale;
} units[] = {
    { "us", "ms us", 1e-6 },  { "\xc2\xb5s", "ms us", 1e-6 }, { "ms", "ms us", 1e-3 },
    { "s", "ms us", 1 },      { "%", "%", 0.01 },    { "x", "x", 1 },   { "n", "n", 1 },
    { "KB/s", "MB/s", 1e3 },  { "MB/s", "MB/s", 1e6 }, { "GB/s", "MB/s", 1e9 },
    { "KiB", "MiB KiB", 1024 }, { "MiB", "MiB KiB", 1048576 }, { "GiB", "MiB KiB", 1073741824 },
};

static double scale_of(const char *unit, i64 n, const char *row)
{
    for (size_t i = 0; i < COUNT_OF(units); i++)
        if ((i64)strlen(units[i].unit) == n && strncmp(units[i].unit, unit, (size_t)n) == 0 &&
            strstr(units[i].of, row))
            return units[i].scale;
    return 0;
}

static int out_of_range(const struct reading *r)
{
    char what[128];
    const char *unit = strcmp(r->row->unit, "n") == 0 || strcmp(r->row->unit, "x") == 0
                           ? "" : r->row->unit;
    snprintf(what, sizeof what, "the value is out of range: between %g and %g%s%s", r->row->least,
             r->row->most, *unit ? " " : "", unit);
    return wrong(r, what);
}

/* The number that text begins with, and its unit; *end is what follows. */
static int read_number(const struct reading *r, const char *text, double *value,
                       const char **end)
{
    const char *row = r->row->unit;
    char *unit;
    if (!isdigit((unsigned char)text[0]) && text[0] != '.')
        return wrong(r, "a number belongs here");
    double number = strtod(text, &unit);
    i64 n = (i64)strcspn(unit, "@:,"); /* a rate has a slash, a period one of its own */
    if (r->row->value == INJECT_EVERY)
        n = (i64)strcspn(unit, "@:,/");
    double own = scale_of(row, (i64)strlen(row), row);
    double scale = n > 0 ? scale_of(unit, n, row) : own;
    if (scale == 0)
        return wrong(r, "this unit does not fit; without one the value is in the unit that "
                        "'headway train --help' names");
    *value = number * scale;
    double in_row = *value / own;
    if (!(in_row >= r->row->least && in_row <= r->row->most)) /* nor is NaN in it */
        return out_of_range(r);
    if (strcmp(row, "n") == 0 && in_row != floor(in_row))
        return wrong(r, "a whole number belongs here");
    *end = unit + n;
    return OK;
}

static int read_count(const struct reading *r, const char **text, i64 *out)
{
    char *end;
    if (!isdigit((unsigned char)**text))
        return wrong(r, "a whole number belongs behind @, :, / and -");
    *out = strtoll(*text, &end, 10);
    if (*out > 1000000000000)
        return wrong(r, "the number is out of range");
    *text = end;
    return OK;
}

/* "5", "5-9", and "5-" where that makes sense: then last stays as it is. */
static int read_range(const struct reading *r, const char **text, i64 *first, i64 *last)
{
    TRY(read_count(r, text, first));
    if (**text != '-') {
        *last = *first;
        return OK;
    }
    ++*text;
    if (isdigit((unsigned char)**text))
        TRY(read_count(r, text, last));
    return *last < *first ? wrong(r, "the range ends before it begins") : OK;
}

static int read_word(const struct reading *r, const char **text, char word[INJECT_CHARS])
{
    size_t n = strcspn(*text, "@:,");
    if (n == 0 || n >= INJECT_CHARS)
        return wrong(r, "a word belongs behind the =");
    memcpy(word, *text, n);
    word[n] = '\0';
    *text += n;
    for (const char *w = r->row->words; w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL) {
        size_t length = strcspn(w, "|");
        if (length == n && strncmp(w, word, n) == 0)
            return OK;
    }
    if (!r->row->words)
        return OK;
    return err_set(ERR_CONFIG, "%s%s'%s': %s may be %s", r->where ? r->where : "",
                   r->where ? ": " : "", r->text, r->row->name, r->row->words);
}

static int read_link(const struct reading *r, const char **text, struct inject_fault *out)
{
    i64 a, b;
    TRY(read_count(r, text, &a));
    if (*(*text)++ != '-')
        return wrong(r, "a link is two ranks and its rate, such as 0-1:10MB/s");
    TRY(read_count(r, text, &b));
    if (*(*text)++ != ':' || a == b || a > INT32_MAX || b > INT32_MAX)
        return wrong(r, "a link is two ranks and its rate, such as 0-1:10MB/s");
    out->a = (int)a;
    out->b = (int)b;
    return read_number(r, *text, &out->value, text);
}

static int read_value(const struct reading *r, const char **text, struct inject_fault *out)
{
    switch (r->row->value) {
    case INJECT_NUMBER:
        return read_number(r, *text, &out->value, text);
    case INJECT_WORD:
        return read_word(r, text, out->word);
    case INJECT_LINK:
        return read_link(r, text, out);
    case INJECT_OP_DELAY:
        TRY(read_word(r, text, out->word));
        if (strncmp(*text, ",delay=", 7) != 0)
            return wrong(r, "behind the op belongs its delay, such as op=linear,delay=2ms");
        return read_number(r, *text + 7, &out->value, text);
    case INJECT_OP_SLOWER:
        TRY(read_word(r, text, out->word));
        if (strncmp(*text, ",slower=", 8) != 0)
            return wrong(r, "behind the op belongs by how much, such as probe=linear,slower=10%");
        return read_number(r, *text + 8, &out->value, text);
    case INJECT_EVERY:
        TRY(read_number(r, *text, &out->value, text));
        if (*(*text)++ != '/')
            return wrong(r, "behind the time belongs how often, such as pause=20ms/25");
        TRY(read_count(r, text, &out->every));
        return out->every < 1 ? wrong(r, "every 0 steps is never") : OK;
    }
    return OK;
}

static int find_row(struct reading *r)
{
    size_t n = strcspn(r->text, "=");
    struct nearest nearest = { .typed = r->text };
    char name[INJECT_CHARS];
    snprintf(name, sizeof name, "%.*s", (int)i64_min((i64)n, INJECT_CHARS - 1), r->text);
    nearest.typed = name;
    for (int k = 0; k < INJECT_KINDS; k++) {
        r->row = &inject_rows[k];
        if (strcmp(r->row->name, name) == 0)
            return r->text[n] == '=' ? OK : wrong(r, "behind the kind belong = and a value");
        nearest_offer(&nearest, r->row->name);
    }
    const char *found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "%s%sthere is nothing called '%s' to inject%s%s%s; 'headway train "
                   "--help' lists what there is", r->where ? r->where : "", r->where ? ": " : "",
                   name, found ? "; did you mean " : "", found ? found : "", found ? "?" : "");
}

int inject_parse(struct inject_fault *out, const char *text, const char *where)
{
    struct reading r = { .text = text, .where = where };
    TRY(find_row(&r));
    const char *at = strchr(text, '=') + 1;
    *out = (struct inject_fault){ .kind = (enum inject_kind)(r.row - inject_rows),
                                  .last_rank = INT64_MAX, .last_step = INT64_MAX };
    if (r.row->refused)
        return wrong(&r, r.row->refused);
    TRY(read_value(&r, &at, out));
    out->limited = *at != '\0';
    if (*at == '@') {
        at++;
        TRY(read_range(&r, &at, &out->first_rank, &out->last_rank));
    }
    if (*at == ':') {
        i64 first, last = INT64_MAX;
        at++;
        TRY(read_range(&r, &at, &first, &last));
        if (first < 1)
            return wrong(&r, "steps are counted from 1");
        out->first_step = first - 1;
        out->last_step = last == INT64_MAX ? last : last - 1;
    }
    if (*at)
        return wrong(&r, "what follows the value should be @rank and then :steps");
    if (out->limited && r.row->key)
        return wrong(&r, "this is a setting, the same on all ranks and in all steps");
    return OK;
}

int inject_read(struct inject *out, const char *const *texts, i64 n, const char *where)
{
    *out = (struct inject){ 0 };
    for (i64 i = 0; i < n; i++) {
        char whole[256];
        int length = snprintf(whole, sizeof whole, "%s", texts[i]);
        if (i + 1 < n && (strncmp(texts[i + 1], "delay=", 6) == 0 ||
                          strncmp(texts[i + 1], "slower=", 7) == 0))
            length += snprintf(whole + i64_min(length, 255), sizeof whole -
                               (size_t)i64_min(length, 255), ",%s", texts[++i]);
        if (length >= (int)sizeof whole || out->n == INJECT_FAULTS)
            return err_set(ERR_CONFIG, "%s%sat most %d things can be injected, each in fewer than "
                           "%d characters", where ? where : "", where ? ": " : "", INJECT_FAULTS,
                           (int)sizeof whole);
        TRY(inject_parse(&out->faults[out->n], whole, where));
        out->n++;
    }
    return OK;
}

int inject_add_probes(struct inject *x, const char *lines)
{
    for (const char *end; *lines; lines = *end ? end + 1 : end) {
        char line[256];
        end = lines + strcspn(lines, "\n");
        if (end == lines)
            continue;
        snprintf(line, sizeof line, "%.*s", (int)i64_min(end - lines, 255), lines);
        struct inject_fault f;
        TRY(inject_parse(&f, line, "probes"));
        if (f.kind != INJECT_PROBE || x->n == INJECT_FAULTS)
            return err_set(ERR_CONFIG, "probes: '%s': %s", line, f.kind != INJECT_PROBE
                           ? "only probes may be asked for while a run goes on"
                           : "there were too many");
        x->faults[x->n++] = f;
    }
    return OK;
}

int inject_check_ranks(const struct inject *x, i64 ranks)
{
    for (int i = 0; i < x->n; i++)
        if (x->faults[i].first_rank >= ranks)
            return err_set(ERR_CONFIG, "run.inject (--inject): there is no rank %lld to "
                           "disturb; the run has %lld, counted from 0",
                           (long long)x->faults[i].first_rank, (long long)ranks);
    return OK;
}

void inject_begin(struct inject *x, i64 rank, u64 seed)
{
    x->rank = rank;
    x->seed = seed;
    x->kinds = 0;
    for (int i = 0; i < x->n; i++)
        if (x->faults[i].kind < INJECT_ACTING && rank >= x->faults[i].first_rank &&
            rank <= x->faults[i].last_rank)
            x->kinds |= 1ull << x->faults[i].kind;
}

/* --- acting ------------------------------------------------------------------------- */

static bool holds(const struct inject *x, const struct inject_fault *f, u64 step)
{
    return x->rank >= f->first_rank && x->rank <= f->last_rank && (i64)step >= f->first_step &&
           (i64)step <= f->last_step;
}

const struct inject_fault *inject_at(const struct inject *x, enum inject_kind kind, u64 step)
{
    if (!inject_has(x, kind))
        return NULL;
    for (int i = x->n - 1; i >= 0; i--)
        if (x->faults[i].kind == kind && holds(x, &x->faults[i], step))
            return &x->faults[i];
    return NULL;
}

/* Numbers of one use, rank and step. */
static struct rng draws(const struct inject *x, const char *use, u64 step)
{
    u64 stream = rng_stream(use);
    return (struct rng){ x->seed, rng_u64(&(struct rng){ stream, (u64)x->rank }, step) };
}

bool inject_probed(const struct inject *x, u64 step)
{
    struct rng key = { x->seed, rng_stream("probe") };
    return (rng_u64(&key, step / 2) & 1) == (step & 1);
}

bool inject_probes(const struct inject_fault *probe, const char *op)
{
    return strcmp(probe->word, "all") == 0 || strncmp(op, probe->word, strlen(probe->word)) == 0;
}

double inject_compute(const struct inject *x, const char *op, u64 step, u64 action,
                      double seconds)
{
    const struct inject_fault *f;
    if ((f = inject_at(x, INJECT_SLOW_COMPUTE, step)))
        seconds *= f->value;
    if ((f = inject_at(x, INJECT_PHI, step)))
        seconds /= f->value;
    if ((f = inject_at(x, INJECT_JITTER, step))) {
        struct rng key = draws(x, "jitter", step);
        seconds *= 1 + f->value * fabs(rng_normal(&key, action));
    }
    if ((f = inject_at(x, INJECT_PROBE, step)) && inject_probed(x, step) && inject_probes(f, op))
        seconds *= 1 + f->value;
    if (!inject_has(x, INJECT_OP))
        return seconds;
    for (int i = 0; i < x->n; i++)
        if (x->faults[i].kind == INJECT_OP && holds(x, &x->faults[i], step) &&
            strcmp(x->faults[i].word, op) == 0)
            seconds += x->faults[i].value;
    return seconds;
}

/* 95 % of standard normal numbers are below this. */
static const double normal_95 = 1.6448536269514722;

double inject_load(const struct inject *x, u64 step, double bytes, double *spin)
{
    const struct inject_fault *f;
    double wait = 0;
    *spin = 0;
    if ((f = inject_at(x, INJECT_LOADER_SPIN, step)))
        *spin = f->value;
    if ((f = inject_at(x, INJECT_LOADER_BW, step)))
        wait += bytes / f->value;
    if ((f = inject_at(x, INJECT_LOADER_LOGNORMAL, step))) {
        struct rng key = draws(x, "loader", step);
        wait += f->value * exp(rng_normal(&key, 0) - normal_95);
    }
    return *spin + wait;
}

/* Whether a call goes over the link between the two: as a move, or around the ring. */
static bool passes(const struct inject_fault *f, const int *members, int n, int me, int peer)
{
    for (int i = 0; i < n; i++) {
        int next = peer >= 0 ? (i == me ? peer : -1) : (i + 1) % n;
        if (next >= 0 && ((members[i] == f->a && members[next] == f->b) ||
                          (members[i] == f->b && members[next] == f->a)))
            return true;
    }
    return false;
}

struct inject_call inject_call(const struct inject *x, u64 step, const int *members, int n,
                               int me, int peer, double bytes)
{
    struct inject_call c = { 0 };
    const struct inject_fault *f;
    if ((f = inject_at(x, INJECT_COMM_DELAY, step)))
        c.delay = f->value;
    if ((f = inject_at(x, INJECT_COMM_BW, step)))
        c.link = bytes / f->value;
    if (!inject_has(x, INJECT_PAIR_BW))
        return c;
    for (int i = 0; i < x->n; i++)
        if (x->faults[i].kind == INJECT_PAIR_BW && holds(x, &x->faults[i], step) &&
            passes(&x->faults[i], members, n, me, peer))
            c.link = fmax(c.link, bytes / x->faults[i].value);
    return c;
}

double inject_pair(const struct inject *x, int rank, int peer, double bytes)
{
    const int members[] = { rank, peer };
    double seconds = 0;
    for (int i = 0; inject_has(x, INJECT_PAIR_BW) && i < x->n; i++)
        if (x->faults[i].kind == INJECT_PAIR_BW && holds(x, &x->faults[i], 0) &&
            passes(&x->faults[i], members, 2, 0, 1))
            seconds = fmax(seconds, bytes / x->faults[i].value);
    return seconds;
}

double inject_pause(const struct inject *x, u64 step)
{
    const struct inject_fault *f = inject_at(x, INJECT_PAUSE, step);
    return f && (i64)(step + 1) % f->every == 0 ? f->value : 0;
}

/* Rows are cut into 1, 2, 4 ... 64 parts: the i-th of these numbers with a chance of 1 / i^s. */
i64 inject_length(const struct inject *x, u64 step, i64 row, i64 T)
{
    enum { NUMBERS = 7 };
    const struct inject_fault *f = inject_at(x, INJECT_SEQLEN_ZIPF, step);
    struct rng key = draws(x, "seqlen", step);
    double total = 0, at = rng_uniform(&key, (u64)row);
    i64 parts = 1;
    if (!f)
        return T;
    for (int k = 1; k <= NUMBERS; k++)
        total += pow(k, -f->value);
    for (int k = 1; k <= NUMBERS && at >= pow(k, -f->value) / total; k++) {
        at -= pow(k, -f->value) / total;
        parts *= 2;
    }
    return i64_max(1, T / i64_min(parts, T));
}
