#include "base/log.h"
#include "diagnose/diagnosis.h"
#include "tune/tune.h"

#include <stdio.h>

int tune_hints(struct tune_hint *out, const char *run)
{
    const struct measure_range all = { .last = -1 };
    struct diagnosis d;
    int n = 0;
    if (diagnosis_open(&d, run, &all) < 0)
        return 0;
    for (int i = 0; i < d.findings.n && n < TUNE_HINTS; i++) {
        const struct finding *f = &d.findings.at[i];
        if (f->gain <= 0 || d.measure->step.mean <= 0)
            continue;
        snprintf(out[n].id, sizeof out[n].id, "%s", f->id);
        out[n++].gain = f->gain / d.measure->step.mean;
        log_line(LOG_INFO, "the diagnosis: %s, %s (%.1f %% of a step)", f->id, f->title,
                 100 * f->gain / d.measure->step.mean);
    }
    diagnosis_close(&d);
    return n;
}
