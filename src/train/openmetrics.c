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

static void add_family(struct text *out, const struct family *f, const struct openmetrics *m)
{
    if (f->absent)
        return;
    text_printf(out, "# TYPE %s %s\n", f->name, f->counter ? "counter" : "gauge");
    if (f->unit)
        text_printf(out, "# UNIT %s %s\n", f->name, f->unit);
    text_printf(out, "# HELP %s %s\n", f->name, f->help);
    text_printf(out, "%s%s{run=\"", f->name, f->counter ? "_total" : "");
    add_escaped(out, m->run);
    text_printf(out, "\",rank=\"%lld\"} ", (long long)m->rank);
    add_number(out, f->value);
    text_add(out, "\n");
}

void openmetrics_format(struct text *out, const struct openmetrics *m)
{
    const struct family families[] = {
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
        { "headway_mfu_ratio", "ratio", false, "Model FLOP/s over the measured peak.", m->mfu,
          !(m->mfu > 0) },
        { "headway_updated_timestamp_seconds", "seconds", false,
          "When this was written, since the epoch.", m->wall_seconds, false },
    };
    for (i64 i = 0; i < COUNT_OF(families); i++)
        add_family(out, &families[i], m);
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
