#include "train/openmetrics.h"

#include "base/err.h"
#include "base/sys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A metric family of one sample. A unit is the last part of the name, a counter's sample has
 * "_total" behind that. */
struct family {
    const char *name, *unit; /* unit NULL: none */
    bool counter;
    const char *help;
    double value;
    bool absent;
};

static void add_number(struct text *out, double value)
{
    if (isnan(value))
        text_add(out, "NaN");
    else if (isinf(value))
        text_add(out, value > 0 ? "+Inf" : "-Inf");
    else
        text_add_double(out, value);
}

static void add_escaped(struct text *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '\n')
            text_add(out, "\\n");
        else if (*value == '"' || *value == '\\')
            text_printf(out, "\\%c", *value);
        else
            text_add_bytes(out, value, 1);
    }
}

static void add_sample(struct text *out, const struct family *f, const struct openmetrics *m)
{
    text_printf(out, "%s%s{run=\"", f->name, f->counter ? "_total" : "");
    add_escaped(out, m->run);
    text_printf(out, "\",rank=\"%lld\"} ", (long long)m->rank);
    add_number(out, f->value);
    text_add(out, "\n");
}

/* Older readers know a counter by the name of its sample. */
static void add_family(struct text *out, const struct family *f, enum openmetrics_dialect dialect)
{
    const bool old = dialect == PROMETHEUS_TEXT;
    const char *type = f->counter ? "counter" : "gauge", *end = old && f->counter ? "_total" : "";
    if (old)
        text_printf(out, "# HELP %s%s %s\n", f->name, end, f->help);
    text_printf(out, "# TYPE %s%s %s\n", f->name, end, type);
    if (f->unit && !old)
        text_printf(out, "# UNIT %s %s\n", f->name, f->unit);
    if (!old)
        text_printf(out, "# HELP %s %s\n", f->name, f->help);
}

enum { FAMILIES = 10 };

static void families_of(const struct openmetrics *m, struct family out[FAMILIES])
{
    const struct family families[FAMILIES] = {
        { "headway_steps", NULL, true, "Optimizer steps taken.", (double)m->step, false },
        { "headway_trained_tokens", "tokens", true, "Tokens trained on.", (double)m->tokens,
          false },
        { "headway_loss_nats", "nats", false, "Loss of the last step, per token.", m->loss,
          false },
        { "headway_heldout_loss_nats", "nats", false, "Loss on held-out text, per token.",
          m->heldout_loss, isnan(m->heldout_loss) },
        { "headway_gradient_norm", NULL, false, "Norm of the gradient before clipping.",
          m->grad_norm, false },
        { "headway_learning_rate", NULL, false, "Learning rate of the last step.",
          m->learning_rate, false },
        { "headway_step_seconds", "seconds", false, "Duration of the last step.",
          m->step_seconds, false },
        { "headway_throughput_tokens_per_second", "tokens_per_second", false,
          "Speed over recent steps, all ranks together.", m->tokens_per_s, false },
        { "headway_mfu_ratio", "ratio", false,
          "Model FLOP/s over the peak measured in the run's precision.", m->mfu, !(m->mfu > 0) },
        { "headway_updated_timestamp_seconds", "seconds", false,
          "When this was written, since the epoch.", m->wall_seconds, false },
    };
    memcpy(out, families, sizeof families);
}

enum openmetrics_dialect openmetrics_dialect_of(const char *path)
{
    const size_t n = strlen(path);
    return n >= 5 && strcmp(path + n - 5, ".prom") == 0 ? PROMETHEUS_TEXT : OPENMETRICS_1;
}

void openmetrics_format(struct text *out, const struct openmetrics *m, i64 n,
                        enum openmetrics_dialect dialect)
{
    struct family families[FAMILIES];
    for (i64 k = 0; k < FAMILIES; k++) {
        bool told = false;
        for (i64 i = 0; i < n; i++) {
            families_of(&m[i], families);
            if (families[k].absent)
                continue;
            if (!told)
                add_family(out, &families[k], dialect);
            told = true;
            add_sample(out, &families[k], &m[i]);
        }
    }
    if (dialect == OPENMETRICS_1)
        text_add(out, "# EOF\n");
}

int openmetrics_check(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 1,
             slash ? path : ".");
    if (sys_exists(folder))
        return OK;
    return err_set(ERR_CONFIG, "log.openmetrics: there is no folder %s: make it, or name a file "
                   "in the folder that node_exporter was told of", folder);
}
