/* plan/pick.h - some of a layout given, the rest left open.
 *
 * "tp=8,pp=16,schedule=interleaved": the same keys as a layout's, and those that only planning has.
 * What is left out is open: a search tries all of it. */
#ifndef HEADWAY_PLAN_PICK_H
#define HEADWAY_PLAN_PICK_H

#include "base/option.h"
#include "plan/cost.h"

enum { PICK_ANY = -1 };

/* PICK_ANY: open. The choices of recompute and schedule are one more than the enum's values. */
struct plan_pick {
    i64 tp, cp, pp, dp, ep, micro_batch, micro_batches, virtual_stages;
    i64 zero, zero_group;
    i64 sequence_parallel; /* PICK_ANY: where tp > 1, as is usual */
    int schedule, recompute; /* 0: open */
};

extern const struct option plan_pick_options[];

struct plan_pick plan_pick_open(void);
/* `where` begins messages. */
int plan_pick_parse(struct plan_pick *out, const char *text, const char *where, struct arena *a);

/* "tp=8,pp=16,..." that plan_pick_parse reads back to this layout alone; axes of one left out. */
const char *plan_layout_text(const struct plan_layout *l, struct arena *a);

#endif
