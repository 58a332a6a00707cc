/* cli/progress.h - how far, how fast, how long still.
 *
 * On a terminal: one line that is rewritten, ten times a second at most. Elsewhere (a log
 * file, CI): plain lines at growing intervals, 1 s at first and a minute in the end, so
 * that a night's run leaves a readable file.
 *
 *     progress_begin(&p, terminal, "train");
 *     progress_update(&p, done / total, "loss 4.21  1230 tokens/s");   // often
 *     progress_end(&p, "loss 3.02");
 */
#ifndef HEADWAY_PROGRESS_H
#define HEADWAY_PROGRESS_H

#include "cli/terminal.h"

struct progress {
    struct terminal *terminal;
    const char *label;
    u64 begin_ns, next_ns, interval_ns;
    double begin_fraction; /* of a resumed run; -1: not told */
};

void progress_begin(struct progress *p, struct terminal *t, const char *label);
/* fraction in [0, 1], or negative when the end is not known. Costs a clock read when
 * nothing is due. */
void progress_update(struct progress *p, double fraction, const char *detail);
/* What that shows when it is due: a status, or a line of its own where that has no room. */
void progress_show(struct progress *p, double fraction, const char *detail, u64 now_ns);
/* The last line stays: label, detail, time taken. */
void progress_end(struct progress *p, const char *detail);

/* The parts, without a clock. Is a line due at this time? Then the next one is set. */
bool progress_due(struct progress *p, u64 now_ns);
void progress_format(const struct progress *p, double fraction, const char *detail,
                     double elapsed_s, char *out, size_t size);
/* "0:07", "12:34", "3:00:00", "5d 02:00:00". */
void progress_format_time(double seconds, char *out, size_t size);

#endif
