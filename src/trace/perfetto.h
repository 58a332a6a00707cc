/* trace/perfetto.h - packets of Perfetto's trace format (perfetto_trace.proto).
 *
 * Of its protocol buffers only what ranks, their tracks and slices on these need, written by
 * hand. Packets follow each other in `out` without a frame, so parts of a trace may be
 * joined. A rank is a process; its tracks are numbered from 0. */
#ifndef HEADWAY_TRACE_PERFETTO_H
#define HEADWAY_TRACE_PERFETTO_H

#include "base/text.h"

struct perfetto {
    struct text *out;                /* where packets go */
    struct text packet, inner, innermost; /* scratch */
};

void perfetto_fini(struct perfetto *p);

void perfetto_name_rank(struct perfetto *p, int rank, const char *name);
void perfetto_name_track(struct perfetto *p, int rank, i64 track, const char *name);

/* A slice begins with one edge and ends with the next one of its track; its name, its category
 * (may be NULL) and the flow that it is a part of (0: none) stand at the first. */
void perfetto_begin(struct perfetto *p, int rank, i64 track, u64 ns, const char *name,
                    const char *category, u64 flow);
void perfetto_end(struct perfetto *p, int rank, i64 track, u64 ns);

#endif
