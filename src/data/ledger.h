/* data/ledger.h - what went into a data set, in ledger.json beside the shards.
 *
 * Source, licence, settings, tokenizer (SHA-256), program version; per split and shard
 * the counts and checksums; per input file its SHA-256, bytes, documents, tokens,
 * duplicates dropped and ill-formed sequences. No time stamps: equal inputs give equal
 * ledgers. */
#ifndef HEADWAY_DATA_LEDGER_H
#define HEADWAY_DATA_LEDGER_H

#include "base/json.h"
#include "data/dataset.h"
#include "data/prepare.h"

/* One finished input as a line of the list that ledger_write takes in. */
void ledger_input_line(struct json *out, const struct input *input, const char *sha256,
                       i64 bytes, const struct prepare_counts *counts);

struct ledger {
    const struct prepare_config *config;
    const char *fingerprint;
    const struct prepare_counts *total;
    const char *folder; /* where the shards are, and inputs_name */
    const char *inputs_name; /* file of lines of finished inputs */
};

/* Writes folder/ledger.json, durably. */
int ledger_write(const struct ledger *l);

/* Reads it; the caller releases *out with json_decref. ERR_FORMAT when it is none. */
int ledger_load(const char *folder, json_t **out);

/* Whether the ledger beside an opened split is whole and describes these shards, by their names,
 * sizes and checksums; none of their tokens is read. OK where there is no ledger. */
int ledger_fits(const struct dataset *d);

/* Compares every shard with its ledger and its own checksums, and, if asked, every input
 * file that is still there with its SHA-256. `told` (may be NULL) hears of each. */
struct ledger_check {
    bool inputs;
    void (*told)(void *context, const char *file, const char *state);
    void *context;
    i64 shards, inputs_checked, inputs_missing;
};
int ledger_verify(const char *folder, const json_t *ledger, struct ledger_check *check);

#endif
