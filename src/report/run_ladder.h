/* report/run_ladder.h - the efficiency ladder and the critical path of a record, for the page:
 * those that `headway trace ladder` prints. */
#ifndef HEADWAY_RUN_LADDER_H
#define HEADWAY_RUN_LADDER_H

#include "base/json.h"
#include "diagnose/record.h"

enum { LADDER_PATH = 12 };

/* An object: "factors" ({name, value}, null where it was not measured), "mfu", "hfu",
 * "peak" (FLOP/s of a rank), "steps", "off" (of replayed steps, the worst), "path"
 * (longest first, seconds per step); null where no step is whole. */
void run_ladder_put(struct record *r, struct json *j);

#endif
