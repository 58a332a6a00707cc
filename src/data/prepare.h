/* data/prepare.h - text in, a data set out: `headway data prepare`.
 *
 * Documents are read, split, encoded (pipeline.h), dropped when their text was seen
 * before, put into train or val by the hash of their text, and written as shards. The
 * result is a folder with train-*.shard, val-*.shard, tokenizer.json and ledger.json. It
 * depends on the inputs and the settings, not on the number of threads nor on
 * interruptions.
 *
 * All work happens in OUT.partial; it becomes OUT by one rename when everything is on the
 * disk, so an incomplete data set never exists under its name. Every sync_bytes of text a
 * journal says how far things are. After a kill, a full disk or a power failure the same
 * call goes on from there; other settings, or changed inputs, begin anew. */
#ifndef HEADWAY_DATA_PREPARE_H
#define HEADWAY_DATA_PREPARE_H

#include "data/pipeline.h"

struct prepare_progress;

struct prepare_config {
    const char *const *paths; /* files, folders, "-" */
    i64 n_paths;
    const char *out; /* folder to make */
    const struct tokenizer *tokenizer;
    const char *tokenizer_path; /* for the ledger; may be NULL */
    const char *source, *licence; /* for the ledger; may be NULL */
    enum text_format format;
    const char *separator; /* see splitter.h */
    bool drop_separator;
    i64 least, most; /* bytes of a document; most 0: 4 MiB */
    enum utf8_policy invalid;
    bool skip_bad_lines, keep_duplicates;
    double val_fraction;
    i64 shard_tokens; /* 0: 500 million */
    i64 sync_bytes;   /* 0: 64 MiB of text */
    i64 unit_bytes;   /* of text that one thread encodes at a time; 0: 512 KiB */
    int threads;      /* 0: as many as there are processors */
    /* Now and then; returning false stops the work, to be taken up again later. */
    bool (*progress)(void *context, const struct prepare_progress *p);
    void *context;
};

/* What happened to documents. */
struct prepare_counts {
    i64 documents, tokens, text_bytes; /* kept */
    i64 val_documents, val_tokens, val_bytes; /* of these, in val */
    i64 duplicates; /* dropped */
    i64 cut;        /* because they were longer than `most` */
    i64 malformed;  /* UTF-8 sequences */
    i64 skipped;    /* lines that were no documents */
};

struct prepare_progress {
    i64 input_bytes, total_bytes; /* -1: unknown */
    struct prepare_counts counts;
    bool resumed; /* an earlier run had begun */
    bool existed; /* the data set was there already; nothing was done */
};

int prepare_run(const struct prepare_config *c, struct prepare_progress *result);

#endif
