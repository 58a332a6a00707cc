/* data/scan.h - hand-written scanners for the pre-tokenizer patterns that most models use.
 *
 * A scanner takes well-formed UTF-8 and a position and returns where the piece that
 * begins there ends: what the regular expression would match, several times faster.
 * Every position begins some piece, so pieces cover the text. The test compares them
 * with PCRE2 on random text; data/regex.h runs any other pattern. */
#ifndef HEADWAY_DATA_SCAN_H
#define HEADWAY_DATA_SCAN_H

#include "base/base.h"

typedef i64 (*scan_fn)(const u8 *text, i64 at, i64 end);

struct scan_pattern {
    const char *name;  /* what the command line calls it */
    const char *regex; /* as tokenizer.json files spell it */
    scan_fn scan;
};

/* gpt2, cl100k, llama3, qwen2. The expressions of cl100k and llama3 are the same one. */
extern const struct scan_pattern scan_patterns[];
extern const i64 scan_pattern_count;

/* NULL when there is none of that name, or none with exactly that expression. */
const struct scan_pattern *scan_by_name(const char *name);
const struct scan_pattern *scan_by_regex(const char *regex);

#endif
