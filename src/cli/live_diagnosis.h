/* cli/live_diagnosis.h - judging a run while it trains, beside it.
 *
 * A thread with the lowest priority reads the run's folder now and then, for one part in fifty of
 * the time at most, and leaves what it found for the next drawing. */
#ifndef HEADWAY_LIVE_DIAGNOSIS_H
#define HEADWAY_LIVE_DIAGNOSIS_H

#include "cli/live.h"

struct live_judge;

/* NULL when there can be no thread: then nothing is judged. folder is copied. */
struct live_judge *live_judge_begin(const char *folder);
/* What was found last; false: nothing yet. */
bool live_judge_read(struct live_judge *j, struct live_diagnosis *out);
void live_judge_end(struct live_judge *j); /* NULL is fine */

/* One judgement; false: there is nothing to judge yet. A run too short for findings has none. */
bool live_judge(const char *folder, struct live_diagnosis *out);

#endif
