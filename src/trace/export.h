/* trace/export.h - spans for other people's viewers.
 *
 * Chrome's JSON (chrome://tracing, Perfetto, Holistic Trace Analysis) and Perfetto's own
 * protocol buffers. What a span is called is asked from the caller, who knows the program: this
 * room stands below it. A file is a head, the parts of all ranks with a text between, and a
 * foot; ranks write their parts each for itself, and any of them joins the parts.
 *
 * Viewers want the slices of a track to nest. Calls of a lane overlap freely, so a lane has as
 * many tracks as calls are under way at once. */
#ifndef HEADWAY_TRACE_EXPORT_H
#define HEADWAY_TRACE_EXPORT_H

#include "base/text.h"
#include "trace/trace.h"

/* Of a span with a task. */
struct trace_label {
    char name[160];  /* "linear, layer 3" */
    const char *tensor; /* what a call moves: a bucket's gradient, an activation; may be NULL */
    double bytes;       /* sent by the task; 0: it sends nothing */
};

struct trace_names {
    void *context;
    void (*task)(void *context, const struct span *s, struct trace_label *out);
    int rank;
    i64 shift_ns; /* added to all times: from this rank's clock to the common one */
};

struct trace_format {
    const char *file;
    void (*head)(int rank, int ranks, struct text *out);
    /* Appends what one rank has of the newest `steps` steps that its rings still hold. */
    void (*part)(const struct trace *t, u32 steps, const struct trace_names *names,
                 struct text *out);
    const char *between, *foot;
};
extern const struct trace_format trace_formats[2]; /* Chrome, Perfetto */

#endif
