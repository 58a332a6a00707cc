/* base/err.h - one way to fail.
 *
 * Every function that can fail returns OK (0) or a negative err_code. Where most is
 * known, err_set() records one sentence for the user: what, where, what to do next.
 * Callers above either pass the code up (TRY, TRY_TO) or add context in front
 * (err_context). The message is per thread; err_message() reads it. */
#ifndef HEADWAY_ERR_H
#define HEADWAY_ERR_H

#include "base/base.h"

enum err_code {
    OK = 0,
    ERR_SYS = -1,      /* the operating system refused: open, read, disk full ... */
    ERR_USAGE = -2,    /* command line */
    ERR_CONFIG = -3,   /* recipe, model or machine file: key, value or unit */
    ERR_FORMAT = -4,   /* a file's contents: truncated, corrupt, malicious */
    ERR_LIMIT = -5,    /* too large for memory or for a stated limit */
    ERR_MODEL = -6,    /* shapes that do not fit together */
    ERR_NUMERIC = -7,  /* NaN or Inf where the policy forbids it */
    ERR_STOPPED = -8,  /* a signal asked us to stop; state was saved */
    ERR_INTERNAL = -9, /* a broken promise of our own */
    ERR_HANG = -10,    /* ranks wait for one that does not come */
    ERR_PEER = -11,    /* another rank died, or failed first */
};

/* Process exit codes, documented in the man page. 75 is EX_TEMPFAIL: "requeue me"; the
 * last two are beyond those of sysexits.h. */
enum exit_code {
    EXIT_OK = 0, EXIT_FAILED = 1, EXIT_BAD_USAGE = 2, EXIT_REQUEUE = 75, EXIT_HANG = 80,
    EXIT_PEER_LOST = 81
};

/* The exit code of a process that ends with this result. */
int err_exit_code(int rc);

/* Records the message and returns code, so that `return err_set(...)` reads well. */
int err_set(int code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Puts "text: " in front of the recorded message; returns code unchanged. */
int err_context(int code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The last message of this thread; never NULL. */
const char *err_message(void);

/* Stops the program at once: a promise of our own was broken, going on would corrupt. */
_Noreturn void err_panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

#define TRY(expr)                                                                        \
    do {                                                                                 \
        int try_rc_ = (expr);                                                            \
        if (try_rc_ < 0)                                                                 \
            return try_rc_;                                                              \
    } while (0)

/* Needs a local `int rc` and a clean-up label. */
#define TRY_TO(label, expr)                                                              \
    do {                                                                                 \
        rc = (expr);                                                                     \
        if (rc < 0)                                                                      \
            goto label;                                                                  \
    } while (0)

#endif
