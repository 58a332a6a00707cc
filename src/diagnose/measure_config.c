/* What the run's folder says besides its spans: the recipe as resolved, and the metrics. */
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "diagnose/measure_record.h"
#include "parallel/layout.h"
#include "plan/virtual_run.h"
#include "train/train_config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HEAD_BYTES = 1 << 16, TAIL_BYTES = 1 << 18, MANIFEST_BYTES = 1 << 24 };

static void tell_unread(struct measure *m, const char *sentence, struct arena *a)
{
    if (m->n_unread < MEASURE_FILES)
        m->unread[m->n_unread++] = arena_strdup(a, sentence);
}

/* Of the recipe, and what a running process was asked for later; what cannot be read is left
 * out. */
static void take_inject(struct measure *m, const struct train_config *c, const char *folder,
                        struct arena *a)
{
    struct inject *x = ARENA_NEW(a, struct inject);
    char text[INJECT_PROBES_CHARS + 1];
    inject_read(x, c->run.inject.at, c->run.inject.count, NULL);
    int fd = sys_open(arena_printf(a, "%s/" INJECT_PROBES_FILE, folder), O_RDONLY | O_CLOEXEC, 0);
    i64 n = fd >= 0 ? sys_read_full(fd, text, INJECT_PROBES_CHARS) : 0;
    if (fd >= 0)
        sys_close(fd);
    text[i64_max(0, n)] = '\0';
    inject_add_probes(x, text);
    inject_begin(x, 0, (u64)c->train.seed);
    m->inject = x;
}

static void take_recipe(struct measure *m, const char *folder, struct arena *a)
{
    struct train_config c;
    struct layout layout;
    struct recipe recipe;
    const struct option_group groups[] = { { train_options, &c }, { layout_options, &layout } };
    recipe_init(&recipe, a, groups, COUNT_OF(groups));
    if (recipe_load(&recipe, arena_printf(a, "%s/recipe.yaml", folder)) < 0) {
        tell_unread(m, err_message(), a);
        return;
    }
    take_inject(m, &c, folder, a);
    m->config.steps = c.train.steps;
    m->config.batch = c.train.batch;
    m->config.seq = c.train.seq;
    m->config.accumulate = c.train.global_batch > 0
                               ? c.train.global_batch / (c.train.batch * c.train.seq)
                               : c.train.accumulate;
    m->config.prefetch = c.data.prefetch;
    m->config.log_every = c.log.every;
    m->config.eval_every = c.eval.every;
    m->config.health_every = c.log.health;
    m->config.checkpoint_every = c.checkpoint.every;
    m->config.checkpoint_interval_s = c.checkpoint.interval;
    m->config.checkpoint_async = c.checkpoint.async;
    m->config.packed = c.data.packing == PACK_DOCUMENTS;
    m->config.zero_bubble = layout.schedule && strncmp(layout.schedule, "zb", 2) == 0;
    m->config.sums_at_end = layout.sums == SUMS_END;
}

/* --- metrics ---------------------------------------------------------------------- */

/* The end of the file, from a line's begin on; "" when there is none. */
static const char *tail_of(const char *path, i64 most, struct arena *a)
{
    i64 size = sys_file_bytes(path);
    int fd = size > 0 ? sys_open(path, O_RDONLY, 0) : -1;
    if (fd < 0)
        return "";
    i64 from = i64_max(0, size - most);
    char *text = arena_alloc(a, size - from + 1);
    ssize_t got = sys_pread(fd, text, size - from, from);
    sys_close(fd);
    if (got <= 0)
        return "";
    const char *line = from > 0 ? strchr(text, '\n') : text;
    return line ? line : "";
}

static double number_in(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

/* The worse of two, where the second is known. */
static double at_least(double x, double other)
{
    return isfinite(other) && other > x ? other : x;
}

/* What a link did before the first step. */
static void set_base(struct measure *m, double latency, double rate)
{
    m->config.link_latency_s = latency;
    m->config.link_bytes_per_s = rate;
}

static void take_slowest_link(struct measure *m, const json_t *o)
{
    const json_t *link = json_object_get(o, "slowest_link"), *ranks = json_object_get(link, "ranks");
    const i64 a = json_integer_value(json_array_get(ranks, 0));
    const i64 b = json_integer_value(json_array_get(ranks, 1));
    const double rate = number_in(link, "bytes_per_s"), others = number_in(link, "others_bytes_per_s");
    if (a >= 0 && a < b && b < m->n_ranks && rate > 0 && others > 0)
        m->config.probed = (struct measure_probed){ (int)a, (int)b, rate, others,
                                                    number_in(link, "next_bytes_per_s") };
}

/* Which ranks are near to each other; a list of another length is another run's. */
static void take_domains(struct measure *m, const json_t *o, struct arena *a)
{
    const json_t *d = json_object_get(o, "domains"), *list = json_object_get(d, "of");
    if (!list || (i64)json_array_size(list) != m->n_ranks)
        return;
    i32 *of = ARENA_ARRAY(a, i32, m->n_ranks);
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        of[r] = (i32)json_integer_value(json_array_get(list, (size_t)r));
        n = i64_max(n, of[r] + 1);
    }
    m->domains.n = n;
    m->domains.of = of;
    m->domains.near_probed = number_in(d, "near_bytes_per_s");
    m->domains.far_probed = number_in(d, "far_bytes_per_s");
}

static void take_step(struct measure *m, const json_t *o, struct arena *a)
{
    double worst = number_in(o, "expert_imbalance");
    if (!isfinite(worst))
        return;
    if (!m->experts)
        m->experts = ARENA_NEW(a, struct measure_expert_layer);
    m->n_experts = 1;
    m->experts[0] = (struct measure_expert_layer){ .layer = -1, .worst = worst };
}

/* As the command line takes them, where they are not the usual ones. */
static void take_rates(struct measure *m, const json_t *machine, struct arena *a)
{
    struct virtual_rates usual;
    double flops = number_in(machine, "peak_flops"), memory = number_in(machine, "memory_bytes_per_s");
    double link = number_in(machine, "link_bytes_per_s"), latency = number_in(machine, "latency_s");
    if (virtual_rates_parse(&usual, NULL, "", a) < 0 || !isfinite(flops + memory + link + latency))
        return;
    const struct plan_price *p = &usual.price;
    if (flops != p->flops_per_s || memory != p->memory_bytes_per_s || link != p->link_bytes_per_s ||
        latency != p->latency_s)
        snprintf(m->config.rates, sizeof m->config.rates,
                 " --rates flops=%.4g,memory=%.4g,link=%.4g,latency=%.4g", flops, memory, link,
                 latency);
}

/* A simulated run's manifest says so, and what its links do. */
static void take_manifest(struct measure *m, const char *folder, struct arena *a)
{
    json_t *o;
    if (json_load(arena_printf(a, "%s/manifest.json", folder), MANIFEST_BYTES, &o) < 0) {
        tell_unread(m, err_message(), a);
        return;
    }
    if (!json_is_object(o))
        tell_unread(m, arena_printf(a, "%s/manifest.json is no run's", folder), a);
    const json_t *machine = json_object_get(o, "machine");
    if (json_object_get(machine, "link_bytes_per_s"))
        set_base(m, number_in(machine, "latency_s"), number_in(machine, "link_bytes_per_s"));
    m->config.simulated = json_is_true(json_object_get(o, "virtual"));
    if (m->config.simulated)
        take_rates(m, machine, a);
    json_decref(o);
}

/* Lines that are torn or foreign are passed over; how many were not. */
static i64 take_metrics(struct measure *m, const char *text, struct arena *a)
{
    i64 lines = 0;
    for (const char *end; *text; text = *end ? end + 1 : end) {
        json_t *o;
        end = text + strcspn(text, "\n");
        if (end == text || json_parse(text, end - text, "metrics.jsonl", &o) < 0)
            continue;
        const char *event = json_string_value(json_object_get(o, "event"));
        if (event && strcmp(event, "preflight") == 0) {
            set_base(m, at_least(number_in(o, "latency_s"), number_in(o, "sum_latency_s")),
                     1 / at_least(1 / number_in(o, "bytes_per_s"),
                                  1 / number_in(o, "sum_bytes_per_s")));
            take_slowest_link(m, o);
            take_domains(m, o, a);
        } else if (event && strcmp(event, "step") == 0)
            take_step(m, o, a);
        lines += event != NULL;
        json_decref(o);
    }
    return lines;
}

/* The line is among the first. NULL: it cannot be read. */
static const char *head_of(const char *path, i64 most, struct arena *a)
{
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    char *text = arena_alloc(a, most + 1);
    i64 got = fd >= 0 ? sys_read_full(fd, text, most) : -1;
    if (got < 0)
        err_set(ERR_SYS, "%s %s: %s", fd < 0 ? "open" : "read", path, strerror(errno));
    if (fd >= 0)
        sys_close(fd);
    if (got < 0)
        return NULL;
    char *last = strrchr(text, '\n');
    if (last)
        last[1] = '\0';
    return last ? text : "";
}

static void read_metrics(struct measure *m, const char *path, struct arena *a)
{
    const i64 size = sys_file_bytes(path);
    const char *head = head_of(path, HEAD_BYTES, a);
    i64 lines = 0;
    if (head) {
        lines = take_metrics(m, head, a);
        if (size > HEAD_BYTES)
            lines += take_metrics(m, tail_of(path, i64_min(TAIL_BYTES, size - HEAD_BYTES), a), a);
    }
    if (lines > 0)
        return;
    m->metrics_unread = true;
    tell_unread(m, head ? arena_printf(a, "%s: none of its lines is a run's", path) : err_message(),
                a);
}

void measure_config(struct measure *m, const char *folder, struct arena *a)
{
    static const char *const names[MEASURE_FILES] = { "recipe.yaml", "manifest.json", "metrics.jsonl" };
    bool any = false;
    for (int i = 0; i < MEASURE_FILES; i++)
        any |= sys_exists(arena_printf(a, "%s/%s", folder, names[i]));
    if (!any)
        return; /* a record alone */
    take_recipe(m, folder, a);
    take_manifest(m, folder, a);
    read_metrics(m, arena_printf(a, "%s/metrics.jsonl", folder), a);
}
