#include "cli/live_diagnosis.h"

#include "base/sys.h"
#include "diagnose/diagnosis.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_S = 5, LEAST_PAUSE_S = 10, SHARE = 50 };

struct live_judge {
    pthread_t thread;
    pthread_mutex_t lock;
    atomic_bool stop;
    char folder[2200];
    struct live_diagnosis found;
    bool any;
};

/* --- one judgement ------------------------------------------------------------------ */

static double plus(const struct measure *m, double sum, const double *series)
{
    double x = measure_mean(m, series);
    return isfinite(x) ? sum + x : sum;
}

static void share_out(const struct measure *m, struct live_diagnosis *out)
{
    double whole = m->step.mean * (double)m->n_ranks;
    for (i64 i = 0; i < m->n_ranks && whole > 0; i++) {
        const struct measure_rank *r = &m->ranks[i];
        out->compute += plus(m, 0, r->compute) / whole;
        out->wait += plus(m, plus(m, 0, r->wait), r->transfer) / whole;
        out->data += plus(m, 0, r->data) / whole;
        for (int k = 0; k < HOST_KINDS; k++)
            out->host += plus(m, 0, r->gap[k]) / whole;
    }
}

static void name_finding(const struct diagnosis *d, struct live_diagnosis *out)
{
    const struct finding *f = &d->findings.at[0];
    struct text place = { 0 };
    char gain[64];
    if (d->measure->n_steps < DIAGNOSIS_STEPS_WANTED) {
        snprintf(out->finding, sizeof out->finding, "none yet: %lld steady steps, %d are wanted",
                 (long long)d->measure->n_steps, DIAGNOSIS_STEPS_WANTED);
        return;
    }
    if (d->findings.n == 0) {
        snprintf(out->finding, sizeof out->finding, "none above the noise of %.*f ms a step",
                 d->measure->theta < 0.01 ? 2 : 0, 1e3 * d->measure->theta);
        return;
    }
    finding_place_text(&f->place, &place);
    if (f->saves_j > 0)
        snprintf(gain, sizeof gain, "saves %.2g J a step", f->saves_j);
    else
        snprintf(gain, sizeof gain, "gives back %.*f ms a step, %.0f %%", f->gain < 0.01 ? 2 : 0,
                 1e3 * f->gain, 100 * f->gain / d->measure->step.mean);
    snprintf(out->finding, sizeof out->finding, "%s (%s), %s: %s", f->title, f->id,
             place.data ? place.data : "", gain);
    text_fini(&place);
}

bool live_judge(const char *folder, struct live_diagnosis *out)
{
    struct diagnosis d;
    struct measure_range range = { .last = -1, .most = 64 };
    *out = (struct live_diagnosis){ 0 };
    if (diagnosis_open(&d, folder, &range) < 0)
        return false;
    bool any = d.measure->n_steps > 0;
    if (any) {
        share_out(d.measure, out);
        name_finding(&d, out);
    }
    diagnosis_close(&d);
    return any;
}

/* --- the thread --------------------------------------------------------------------- */

/* Soon over when it is to stop. */
static void pause_for(struct live_judge *j, double seconds)
{
    enum { PIECE_MS = 50 };
    for (double left = 1e3 * seconds; left > 0 && !atomic_load(&j->stop); left -= PIECE_MS)
        sys_sleep_ns((u64)PIECE_MS * 1000000u);
}

static void *run(void *context)
{
    struct live_judge *j = context;
    sys_be_nice(); /* this thread alone */
    pause_for(j, FIRST_S);
    while (!atomic_load(&j->stop)) {
        struct live_diagnosis found;
        u64 began = sys_now_ns();
        bool any = live_judge(j->folder, &found);
        double took = 1e-9 * (double)(sys_now_ns() - began);
        if (any) {
            pthread_mutex_lock(&j->lock);
            j->found = found;
            j->any = true;
            pthread_mutex_unlock(&j->lock);
        }
        pause_for(j, fmax(LEAST_PAUSE_S, SHARE * took));
    }
    return NULL;
}

struct live_judge *live_judge_begin(const char *folder)
{
    struct live_judge *j = sys_alloc(sizeof *j, 16);
    if (!j)
        return NULL;
    memset(j, 0, sizeof *j);
    snprintf(j->folder, sizeof j->folder, "%s", folder);
    pthread_mutex_init(&j->lock, NULL);
    if (pthread_create(&j->thread, NULL, run, j) == 0)
        return j;
    pthread_mutex_destroy(&j->lock);
    sys_free(j);
    return NULL;
}

bool live_judge_read(struct live_judge *j, struct live_diagnosis *out)
{
    pthread_mutex_lock(&j->lock);
    bool any = j->any;
    if (any)
        *out = j->found;
    pthread_mutex_unlock(&j->lock);
    return any;
}

void live_judge_end(struct live_judge *j)
{
    if (!j)
        return;
    atomic_store(&j->stop, true);
    pthread_join(j->thread, NULL);
    pthread_mutex_destroy(&j->lock);
    sys_free(j);
}
