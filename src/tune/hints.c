#include "base/log.h"
#include "diagnose/diagnosis.h"
#include "diagnose/own_rates.h"
#include "tune/tune.h"

#include <stdio.h>
#include <string.h>

/* Length of the word at `at`. */
static int word(const char *at)
{
    return (int)strcspn(at, " ");
}

/* What only says how the confirming run is to be made. */
static bool is_of_the_run(const char *key, int n)
{
    static const char *const keys[] = { "train.steps", "run.name" };
    for (i64 i = 0; i < COUNT_OF(keys); i++)
        if (n == (int)strlen(keys[i]) && strncmp(key, keys[i], (size_t)n) == 0)
            return true;
    return false;
}

void tune_hint_read(struct tune_hint *h, const char *confirm)
{
    h->n_sets = 0;
    for (const char *at = confirm; *at && h->n_sets < HINT_SETS; at += strspn(at, " ")) {
        const char *key = at + 2;
        const int n = word(at) - 2;
        const bool flag = n > 0 && strncmp(at, "--", 2) == 0;
        at += word(at);
        if (!flag || (!memchr(key, '.', (size_t)n) && strncmp(key, "backend ", 8) != 0) ||
            is_of_the_run(key, n))
            continue;
        at += strspn(at, " ");
        snprintf(h->sets[h->n_sets++], sizeof h->sets[0], "%.*s=%.*s", n, key, word(at), at);
        at += word(at);
    }
}

const struct plan_rates *tune_rates(const char *run, struct arena *a)
{
    struct own_run own;
    struct plan_rates *rates = ARENA_NEW(a, struct plan_rates);
    const struct own_run *runs[] = { &own };
    if (own_run_read(&own, run, a) < 0 || own_rates_fit(rates, runs, 1, NULL, a) < 0)
        return NULL;
    return rates;
}

int tune_hints(struct tune_hint *out, const char *run)
{
    const struct measure_range all = { .last = -1 };
    struct diagnosis d;
    int n = 0;
    if (diagnosis_open(&d, run, &all) < 0)
        return -1;
    for (int i = 0; i < d.findings.n && n < TUNE_HINTS; i++) {
        const struct finding *f = &d.findings.at[i];
        if (f->gain <= 0 || d.measure->step.mean <= 0)
            continue;
        snprintf(out[n].id, sizeof out[n].id, "%s", f->id);
        out[n].gain = f->gain / d.measure->step.mean;
        tune_hint_read(&out[n++], f->confirm);
        log_line(LOG_INFO, "the diagnosis: %s, %s (%.1f %% of a step)", f->id, f->title,
                 100 * f->gain / d.measure->step.mean);
    }
    diagnosis_close(&d);
    return n;
}
