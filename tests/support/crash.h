/* tests/support/crash.h - what a disk may look like after the power failed.
 *
 * Records every change that the program makes under one folder (sys_record), then builds,
 * for a crash after any number of them, the trees that a file system may show: whatever
 * was not fsynced yet may have happened or not, in any combination, and a write may also
 * have left garbage or only its first half. This is the weakest promise that POSIX allows
 * (a file's fsync does not make its name durable, for instance), harsher than ext4. */
#ifndef HEADWAY_TEST_CRASH_H
#define HEADWAY_TEST_CRASH_H

#include "base/base.h"

struct crash_trace;

/* What is in the folder now counts as durable. */
struct crash_trace *crash_record(const char *folder);
void crash_stop(struct crash_trace *t); /* ends the recording */
void crash_free(struct crash_trace *t);

/* From here on, checks are told this value (0 before the first mark). */
void crash_mark(struct crash_trace *t, i64 value);

/* Mutations, for testing the test. */
i64 crash_ops(const struct crash_trace *t);
bool crash_is_fsync(const struct crash_trace *t, i64 op);
bool crash_is_rename(const struct crash_trace *t, i64 op);
i64 crash_mark_at(const struct crash_trace *t, i64 op); /* the mark that holds before op */
void crash_drop(struct crash_trace *t, i64 op);         /* as if it had never been called */
void crash_move(struct crash_trace *t, i64 from, i64 to); /* as if called before op `to` */

/* 0 when what lies in folder keeps the promises. */
typedef int (*crash_check)(void *context, const char *folder, i64 mark);

struct crash_stats {
    i64 points, states, distinct, violations;
    char first[256]; /* where the first violation was */
};

/* Every crash point, every combination: at most per_point of them, else as many at random.
 * Equal trees are checked once. scratch is overwritten. */
void crash_enumerate(const struct crash_trace *t, const char *scratch, i64 per_point, u64 seed,
                     crash_check check, void *context, struct crash_stats *stats);

/* One random crash: leaves the tree in folder and gives the mark that held. */
i64 crash_once(const struct crash_trace *t, const char *folder, u64 seed);

/* A new folder in memory where there is one (fsync costs nothing there). Static text. */
const char *scratch_folder(void);

#endif
