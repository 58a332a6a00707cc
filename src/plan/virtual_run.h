/* plan/virtual_run.h - a run that nobody computes: its folder, written by a clock that is computed.
 *
 * The programs of all ranks are walked by plan/simulate.h, step after step, with what run.inject
 * disturbs, around them what the loop does: waiting for data that loader threads make ahead, the
 * ranks' meetings, evaluations and checkpoints. What comes out is a run folder like any other
 * (manifest.json, recipe.yaml, metrics.jsonl, trace/rank-N.spans), so that whoever explains runs
 * can be asked about thousands of ranks, and about causes that are known. Nothing is learnt: there
 * is no loss, and nothing to resume. The same request gives the same bytes, times of day in
 * metrics.jsonl and the manifest apart. */
#ifndef HEADWAY_VIRTUAL_RUN_H
#define HEADWAY_VIRTUAL_RUN_H

#include "plan/simulate.h"
#include "train/run_folder.h"

struct virtual_rates {
    struct plan_price price;
    double disk_bytes_per_s; /* of each rank, for checkpoints */
};

/* "flops=5e10,memory=1e10,link=2e9,latency=2e-5,disk=1e9", some or all; NULL: the defaults,
 * which are these. `where` begins messages. */
int virtual_rates_parse(struct virtual_rates *out, const char *text, const char *where,
                        struct arena *a);

struct virtual_request {
    const struct train_config *config;
    const struct layout *layout; /* checked */
    const struct model_spec *spec;
    const struct recipe *recipe;
    const char *recipe_path;     /* its stem names the run */
    struct virtual_rates rates;
};

/* folder: of 2048 characters, receives the run's path. */
int virtual_run(const struct virtual_request *q, char *folder);

#endif
