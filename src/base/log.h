/* base/log.h - one place where messages leave the library.
 *
 * Nothing below cli prints to the terminal: it calls log_line, and the program decides
 * where lines go (terminal, the run's log file). Safe from any thread. */
#ifndef HEADWAY_LOG_H
#define HEADWAY_LOG_H

#include "base/base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

typedef void (*log_sink)(void *context, enum log_level level, const char *line);

/* Up to 4 sinks; a line goes to all whose level it reaches. */
void log_add_sink(log_sink sink, void *context, enum log_level least);
void log_remove_sink(log_sink sink, void *context);
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
const char *log_level_name(enum log_level level);

#endif
