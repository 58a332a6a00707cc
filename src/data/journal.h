/* data/journal.h - how far a preparation has come, saved so that it can be taken up
 * again.
 *
 * Plain numbers, written as JSON and replaced atomically. */
#ifndef HEADWAY_DATA_JOURNAL_H
#define HEADWAY_DATA_JOURNAL_H

#include "data/prepare.h"
#include "data/shard_writer.h"

struct journal {
    i64 input, unit; /* the next unit to write */
    i64 log_bytes;   /* of the list of finished inputs */
    i64 finished;    /* 1: all shards and the ledger are complete */
    struct prepare_counts total, in_input; /* in_input: of the input in hand */
    struct shard_writer_state train, val;
};

/* fingerprint: of settings and inputs. */
int journal_save(const struct journal *j, const char *folder, const char *fingerprint);
/* *found is false when there is none, or one of other settings or another program
 * version; a damaged one counts as none. */
int journal_load(struct journal *j, const char *folder, const char *fingerprint,
                 bool *found);
int journal_remove(const char *folder);

/* Replaces folder/name by these bytes: the old or the new contents survive, whole. */
int journal_replace_file(const char *folder, const char *name, const void *bytes, i64 n);

#endif
