/* cli/plan_replay.h - the best layouts of a job, replayed, and the page that shows a plan. */
#ifndef HEADWAY_CLI_PLAN_REPLAY_H
#define HEADWAY_CLI_PLAN_REPLAY_H

#include "cli/plan_terms.h"
#include "plan/front.h"
#include "plan/replay_layout.h"

struct replayed {
    struct schedule order;
    struct replay_time healthy; /* without chance; spans are those of this one */
    struct plan_band chance;    /* seconds, over seeds; all 0: no seeds */
};

/* A layout's step without chance, and with that of so many seeds. */
int plan_replay_seeds(const struct plan_job *job, const struct plan_layout *l,
                      const struct plan_chance *chance, i64 seeds, struct replayed *out,
                      struct arena *a);

struct plan_shown { /* on the page */
    const struct planned_run *x;
    const struct plan_search_result *r;
    const struct plan_outcome *outcomes; /* [r->n] */
    const struct plan_front *front;      /* may be NULL */
    const struct replayed *replay;       /* of r->best[0]; may be NULL */
    u64 seed;
};

int plan_page_write(const char *path, const struct plan_shown *s, struct arena *a);

#endif
