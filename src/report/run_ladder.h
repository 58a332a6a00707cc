/* report/run_ladder.h - the efficiency ladder and the critical path of a record, for the page. */
#ifndef HEADWAY_RUN_LADDER_H
#define HEADWAY_RUN_LADDER_H

#include "base/json.h"
#include "diagnose/record.h"

/* At most so many of the recorded steps, evenly spread, and so many spans in them. */
enum { LADDER_STEPS = 64, LADDER_SPANS = 4000000, LADDER_PATH = 12 };

/* An object: "factors" ({name, value}, null where it was not measured), "mfu", "hfu",
 * "peak" (FLOP/s of a rank), "steps", "off" (of replayed steps, the worst), "path"
 * (longest first, seconds per step); null where no step is whole. */
void run_ladder_put(struct record *r, struct json *j);

#endif
