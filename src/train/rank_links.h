/* train/rank_links.h - what one rank of a layout sends in a step, by whom it goes to.
 *
 * Counted on the tasks that it would run (train/rank_view.h), as the transports move it:
 * of an all-reduce each member sums a part of its own and sends it to all others, to whom
 * it also sends what is to be in theirs. A link has two ends; this is the way out of
 * one. */
#ifndef HEADWAY_RANK_LINKS_H
#define HEADWAY_RANK_LINKS_H

#include "train/rank_view.h"

struct rank_link {
    i64 to; /* a rank of the world */
    enum lane lane;
    double bytes;
};

struct rank_links {
    struct rank_link *list; /* by lane, then rank */
    i64 n;
};

/* The sum over a lane's links is the view's message_bytes of it. The list lives in the arena. */
void rank_links_of(struct rank_links *out, const struct rank_view *v, struct arena *a);

#endif
