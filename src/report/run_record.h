/* report/run_record.h - what a page shows of a run's record (RUN/trace): a timeline of
 * some steps, the time of every step, kernels beside the machine's ceilings, memory over
 * a step.
 *
 * All ranks are there, and the page stays small: RECORD_SPANS_SHOWN spans in all, shared out among
 * ranks and steps; neighbours are joined where there are more (thin.h). Sums are of all spans. */
#ifndef HEADWAY_RUN_RECORD_H
#define HEADWAY_RUN_RECORD_H

#include "base/json.h"

enum { RECORD_SPANS_SHOWN = 480000, RECORD_STEPS_SHOWN = 10 };

/* An object, or null when the folder has no record (then ERR_CONFIG, with the reason). newest: the
 * last of the steps that are shown, or the one before it that is recorded; < 0: the last of all. */
int run_record_put(const char *folder, i64 newest, struct json *j);

#endif
