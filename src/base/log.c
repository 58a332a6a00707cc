#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

enum { MAX_SINKS = 4, LINE_BYTES = 2048 };

static struct {
    pthread_mutex_t lock;
    int count;
    struct {
        log_sink sink;
        void *context;
        enum log_level least;
    } sinks[MAX_SINKS];
} logger = { .lock = PTHREAD_MUTEX_INITIALIZER };

void log_add_sink(log_sink sink, void *context, enum log_level least)
{
    pthread_mutex_lock(&logger.lock);
    assert(logger.count < MAX_SINKS);
    int i = logger.count++;
    logger.sinks[i].sink = sink;
    logger.sinks[i].context = context;
    logger.sinks[i].least = least;
    pthread_mutex_unlock(&logger.lock);
}

void log_remove_sink(log_sink sink, void *context)
{
    pthread_mutex_lock(&logger.lock);
    for (int i = 0; i < logger.count; i++) {
        if (logger.sinks[i].sink == sink && logger.sinks[i].context == context) {
            logger.sinks[i] = logger.sinks[--logger.count];
            break;
        }
    }
    pthread_mutex_unlock(&logger.lock);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char line[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&logger.lock);
    for (int i = 0; i < logger.count; i++)
        if (level >= logger.sinks[i].least)
            logger.sinks[i].sink(logger.sinks[i].context, level, line);
    pthread_mutex_unlock(&logger.lock);
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };
    return names[level];
}
