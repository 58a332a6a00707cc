/* report/trace_export.h - a recorded run in other people's formats.
 *
 *     chrome     JSON of trace events: chrome://tracing, Perfetto, Speedscope
 *     perfetto   protocol buffers: ui.perfetto.dev and its trace processor; less than half the
 *                size, and the calls of a group are joined by arrows
 *     hta        a folder with a Chrome file for each rank, as Meta's Holistic Trace Analysis
 *                reads them: that knows GPUs only, so each task is a kernel with a launch on the
 *                host, and calls between ranks are called nccl...
 *
 * All ranks are on the common clock. What is written is written step by step: memory does not
 * grow with the trace. Viewers want the slices of a track to nest; calls of a lane overlap
 * freely, so a lane has as many tracks as calls are under way at once. */
#ifndef HEADWAY_REPORT_TRACE_EXPORT_H
#define HEADWAY_REPORT_TRACE_EXPORT_H

#include "diagnose/record.h"

enum trace_target { TRACE_TO_CHROME, TRACE_TO_PERFETTO, TRACE_TO_HTA };

struct trace_export {
    enum trace_target to;
    i64 first, last;  /* steps, 0-based; those that are recorded */
    const char *path; /* file; folder of TRACE_TO_HTA, made if need be */
    i64 steps, damaged; /* written; that could not be read: set */
    i64 bytes;          /* written: set */
};

/* ERR_CONFIG when no such step is recorded; ERR_SYS when it cannot be written. */
int trace_export(struct record *r, struct trace_export *e);

#endif
