/* tune/choose.h - which changes are worth a trial.
 *
 * Every change of the knobs that are asked for is foretold, and they are taken in the order of
 * what they promise, until `most_trials` are taken or, where no knobs were asked for by name, a
 * fourth knob comes, or what promises nothing behind what does: so nothing that is left out
 * promised more than what is kept. */
#ifndef HEADWAY_CHOOSE_H
#define HEADWAY_CHOOSE_H

#include "tune/tune.h"

/* Fills out->rows: who is to be tried has FATE_TRIED. */
void choose_changes(struct tune_outcome *out, const struct tune_request *r, struct arena *a);

#endif
