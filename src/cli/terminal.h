/* cli/terminal.h - who may write to stderr, and in which order.
 *
 * Log lines come from any thread while a status (progress) of one line or several may be
 * standing at the bottom of a terminal: both go through here, so that a log line never
 * cuts the status line in two. Control characters in messages are replaced, because
 * messages quote file names and file contents. */
#ifndef HEADWAY_TERMINAL_H
#define HEADWAY_TERMINAL_H

#include "base/base.h"
#include "base/log.h"
#include "base/text.h"

#include <pthread.h>
#include <stdio.h>

struct terminal {
    FILE *out;
    bool is_tty;
    bool quiet; /* no progress */
    bool follows; /* another process tells how this one's command ended */
    int width, height;
    pthread_mutex_t lock;
    char status[4096]; /* the lines that stand at the bottom, "\n" between them; empty: none */
};

void terminal_init(struct terminal *t, FILE *out);
void terminal_fini(struct terminal *t); /* clears the status line */

/* A line of its own; a standing status line moves below it. */
void terminal_line(struct terminal *t, const char *line);
/* Asks for the terminal's size anew: somebody may have changed it. */
void terminal_measure(struct terminal *t);
/* Whether a status has room; elsewhere there are lines of their own only, as in a file. */
bool terminal_has_status(const struct terminal *t);
/* Replaces the status; NULL or "" removes it, as what is too small does. One line is cut to the
 * width; of several, with "\n" between, none may be wider than width - 1 columns. */
void terminal_status(struct terminal *t, const char *line);
/* Adds a line from elsewhere, such as a file name, without control characters. */
void terminal_clean(struct text *out, const char *line);
/* A log_sink; context is the struct terminal. Plain for info, "warning: " and so on. */
void terminal_log(void *context, enum log_level level, const char *line);

#endif
