/* report/step_memory.h - bytes in use over one step of one rank, from what its tasks read
 * and write.
 *
 * A tensor that the step reads before anything wrote it was there before the step: weights, state
 * of the optimizer, constants. It counts all the time. Any other lives from the begin of its first
 * writer to the end of its last reader, for each micro-batch's copy where it has several. This is
 * what is needed at the least; the plan's region has the gaps between on top. */
#ifndef HEADWAY_STEP_MEMORY_H
#define HEADWAY_STEP_MEMORY_H

#include "base/json.h"
#include "diagnose/record.h"

/* An object: "kept" (bytes there all the time), "t" (ns since the step's begin, packed)
 * and "live" (bytes beyond, packed, from then on), "peak" with the names of the largest
 * tensors then. Null when the rank has no table or no spans. */
void step_memory_put(const struct record_rank *rank, struct json *j);

#endif
