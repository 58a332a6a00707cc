#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERR_TEXT = 1024 };
static _Thread_local char err_text[ERR_TEXT];

int err_set(int code, const char *fmt, ...)
{
    char text[ERR_TEXT]; /* an argument may be err_message() itself */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(err_text, text, sizeof text);
    return code;
}

int err_context(int code, const char *fmt, ...)
{
    char text[ERR_TEXT / 2], old[ERR_TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(old, err_text, sizeof old);
    int used = snprintf(err_text, sizeof err_text, "%s: ", text);
    snprintf(err_text + used, sizeof err_text - (size_t)used, "%.*s", ERR_TEXT - used - 1, old);
    return code;
}

const char *err_message(void)
{
    return err_text;
}

int err_exit_code(int rc)
{
    if (rc >= 0)
        return EXIT_OK;
    if (rc == ERR_USAGE || rc == ERR_CONFIG)
        return EXIT_BAD_USAGE;
    if (rc == ERR_HANG || rc == ERR_PEER)
        return rc == ERR_HANG ? EXIT_HANG : EXIT_PEER_LOST;
    return rc == ERR_STOPPED ? EXIT_REQUEUE : EXIT_FAILED;
}

void err_panic(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("headway: internal error: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}
