/* train/checkpoint_folder.h - names, renames and deletions in a folder of checkpoints.
 *
 * Private to train/checkpoint*.c. The order of the calls in here is what crash safety
 * rests on; tests/train/test_checkpoint_crash.c replays it from every point. */
#ifndef HEADWAY_CHECKPOINT_FOLDER_H
#define HEADWAY_CHECKPOINT_FOLDER_H

#include "base/base.h"

enum { CHECKPOINT_PATH = 4096 };

/* DIR/step-N, with what is to follow it (".tmp", "/manifest.json", ...). ERR_LIMIT when it
 * is too long. */
int checkpoint_path(char path[CHECKPOINT_PATH], const char *dir, i64 step, const char *rest);

/* Creates the folder and what is above it, durably. */
int checkpoint_make_folder(const char *dir);

/* All steps, ascending, valid or not; sys_free(*steps). A folder that is not there has
 * none. Returns the count. */
i64 checkpoint_steps(const char *dir, i64 **steps);

/* Removes step-*.tmp and step-*.del. */
int checkpoint_clean(const char *dir);

/* Makes the step unnamed durably, then removes it. */
int checkpoint_delete(const char *dir, i64 step);

/* Renames the step to step-N.damaged, or step-N.damaged-2 and so on when that is taken: no
 * checkpoint any more, and left for a person to look at. Durable, and told in the log. */
int checkpoint_set_aside(const char *dir, i64 step);

/* Whether the manifest is valid and the files have its sizes; the message says what not. */
int checkpoint_peek(const char *dir, i64 step, i64 *bytes, double *saved_at);

#endif
