/* train/checkpoint_parts.h - how several ranks agree that a checkpoint is whole.
 *
 * They share nothing but the temporary folder, so the thread that writes needs no messages.
 * Rank R makes its files and their names durable and then puts down rank-R.done, a manifest
 * of them; or, when it cannot, rank-R.failed, which takes no space on a full disk. The leading
 * rank waits for all, proves that their boxes cover every tensor once, and commits. A rank
 * that died puts down nothing; then nobody commits. Private to train/checkpoint*.c. */
#ifndef HEADWAY_CHECKPOINT_PARTS_H
#define HEADWAY_CHECKPOINT_PARTS_H

#include "train/checkpoint_write.h"

int checkpoint_part_done(const struct checkpoint_image *image, const char *dir, i64 step,
                         u64 ticket, int *cause);
void checkpoint_part_failed(const struct checkpoint_image *image, const char *dir, i64 step,
                            u64 ticket, const char *why);

/* Asked now and then; false: wait no longer. */
struct checkpoint_patience {
    bool (*goes_on)(void *context);
    void *context;
};

/* The leading rank's: waits for the parts of ranks 1 and up, checks and commits them with its
 * own. state: as in checkpoint_write. */
int checkpoint_parts_commit(const struct checkpoint_image *own, const char *dir, i64 step,
                            u64 ticket, const char *state,
                            const struct checkpoint_patience *patience, int *cause);

#endif
