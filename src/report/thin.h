/* report/thin.h - spans of one lane, made few enough to send and to draw.
 *
 * Neighbours become one where the eye could not tell them apart: first those a small fraction of
 * the lane's time long, then longer ones, until no more than `most` remain. What many were is
 * counted; the kind that had most of the time gives the colour. Total time is kept up to the gaps
 * that were closed, and no span moves by more than the resolution that is returned. */
#ifndef HEADWAY_THIN_H
#define HEADWAY_THIN_H

#include "base/base.h"

struct thin_span {
    i64 begin_ns, end_ns;
    u32 name;  /* index of a label; of the longest of those that became one */
    u32 count; /* of spans that became this one */
    u32 kind;  /* what tells spans apart to the eye */
    i64 longest_ns, busy_ns; /* of its spans: the longest, and their sum */
};

/* Sorts by begin, thins in place; returns how many are left. most >= 1. *resolution_ns: spans that
 * are longer are all their own. */
i64 thin_spans(struct thin_span *spans, i64 n, i64 most, i64 *resolution_ns);

#endif
