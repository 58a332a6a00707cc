/* trace/export.h - spans for other people's viewers.
 *
 * Chrome's JSON (chrome://tracing, Perfetto, Holistic Trace Analysis) and Perfetto's own
 * protocol buffers. A span's name is asked from the caller, who knows the program: this
 * room stands below it. Both take the newest `steps` steps that the rings still hold. */
#ifndef HEADWAY_TRACE_EXPORT_H
#define HEADWAY_TRACE_EXPORT_H

#include "base/text.h"
#include "trace/trace.h"

struct trace_names {
    void *context;
    /* Name of a SPAN_TASK span ("linear L3"), into out. */
    void (*task)(void *context, const struct span *s, char *out, i64 size);
    int rank;
};

/* Appends a whole file's contents. */
void trace_export_chrome(const struct trace *t, u32 steps, const struct trace_names *names,
                         struct text *out);
void trace_export_perfetto(const struct trace *t, u32 steps, const struct trace_names *names,
                           struct text *out);

#endif
