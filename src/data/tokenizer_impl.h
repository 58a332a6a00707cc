/* data/tokenizer_impl.h - inside a tokenizer; for src/data/tokenizer*.c, encoder.c and
 * bpe_train.c only.
 *
 * Importers collect a draft; tokenizer_build checks it and makes a tokenizer of it. */
#ifndef HEADWAY_DATA_TOKENIZER_IMPL_H
#define HEADWAY_DATA_TOKENIZER_IMPL_H

#include "base/json.h"
#include "data/added_tokens.h"
#include "data/bpe_merge.h"
#include "data/normalize.h"
#include "data/pretoken.h"
#include "data/tokenizer.h"
#include "data/vocab_map.h"

enum {
    TOKENIZER_MAX_FILE = 256 << 20, /* bytes; the largest in use are about 30 MB */
    TOKENIZER_MAX_TEMPLATE = 8,
};

struct vocab_token {
    const u8 *bytes; /* NULL: no such id in the model's vocabulary */
    i32 length;
    bool raw; /* the entry is not spelled in the byte alphabet: these are its characters */
    bool added, special; /* an added token has this id, with or without a vocabulary entry */
};

struct tokenizer {
    struct arena arena;
    struct vocab_token *vocab; /* [size] */
    i32 size;
    struct vocab_map map;
    struct added_token *added; /* by id */
    i64 added_count;
    struct added_set plain, normalized; /* looked for before and after normalisation */
    i32 byte_id[256];                   /* -1: a byte without token, left away */
    bool byte_unknown[256];             /* stands for the unknown token */
    bool fuse_unknown, ignore_merges;
    const char *unknown;
    struct bpe_rule *rules; /* by rank, one per pair */
    i64 rule_count;
    struct bpe_table table;
    enum normal_form form;
    struct pretokenizer pretokenizer;
    i32 prefix[TOKENIZER_MAX_TEMPLATE], suffix[TOKENIZER_MAX_TEMPLATE];
    int prefix_count, suffix_count; /* what the post-processor puts around a text */
    i32 bos, eos;
    char *normalizer_json, *pre_tokenizer_json, *post_processor_json, *decoder_json;
    char hash[65];
};

struct draft_token {
    const u8 *bytes;
    i32 length, id;
    bool raw;
};

struct tokenizer_draft {
    const struct draft_token *vocab;
    i64 vocab_count;
    const struct bpe_rule *rules;
    i64 rule_count;
    const struct added_token *added; /* ids are decided */
    i64 added_count;
    const json_t *normalizer, *pre_tokenizer, *post_processor, *decoder; /* NULL: none */
    const char *unknown; /* spelling of the unknown token; NULL: none */
    bool fuse_unknown, ignore_merges;
    const char *bos, *eos; /* contents of tokens; NULL: not said */
    bool made_here; /* the post-processor is to put around a text what training does */
};

int tokenizer_build(struct tokenizer **out, const struct tokenizer_draft *d);

/* Appends the canonical tokenizer.json to out. */
void tokenizer_write(const struct tokenizer *t, struct json *out);

/* Makers, one file each. config is tokenizer_config.json, or NULL. */
int import_json(struct tokenizer **out, const json_t *root, const json_t *config);
int import_vocab_merges(struct tokenizer **out, const char *vocab_path, const json_t *config,
                        const struct tokenizer_import *how);
int import_tiktoken(struct tokenizer **out, const char *path,
                    const struct tokenizer_import *how);

/* --- shared by the makers ----------------------------------------------------------- */

/* The vocabulary {"token": id, ...} and merge rules over it. merges holds "left right"
 * or ["left", "right"]. */
int import_vocab(struct tokenizer_draft *d, struct arena *a, const json_t *vocab);
int import_rule(struct bpe_rule *out, const json_t *vocab, struct text *scratch,
                const char *left, const char *right, i64 number);
/* "left right" cut at its only blank; false if that is not its form. */
bool import_cut_rule(char *line, char **right);

/* How tokenizer_config.json names a token: "text" or {"content": "text"}; or NULL. */
const char *import_config_token(const json_t *config, const char *key);

/* Appends how->specials to the draft's added tokens (room for them is the caller's). */
int import_specials(struct tokenizer_draft *d, struct added_token *added,
                    const struct tokenizer_import *how, struct arena *a);

/* Says that a file leaves open how text is cut into words, and what is taken for it. */
void import_say_assumed(const char *path, const char *pattern);

/* Builds with one of data/scan.h's patterns; qwen2 brings the normaliser NFC along. */
int import_build(struct tokenizer **out, struct tokenizer_draft *d, const char *pattern);

#endif
