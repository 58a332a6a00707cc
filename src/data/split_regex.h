/* data/split_regex.h - any other pre-tokenizer pattern, through PCRE2.
 *
 * tokenizer.json files are written for Oniguruma (Ruby syntax, Unicode 16). Where PCRE2
 * reads the same text differently, the pattern is rewritten: categories and white space
 * gain what was assigned after PCRE2's Unicode 14, and ^ and $ match at line ends.
 * Constructs that cannot be carried over are refused with one sentence.
 *
 * A split_regex is immutable and shared; each thread brings its own split_match. */
#ifndef HEADWAY_DATA_SPLIT_REGEX_H
#define HEADWAY_DATA_SPLIT_REGEX_H

#include "base/base.h"

struct split_regex;
struct split_match;

int split_regex_new(struct split_regex **out, const char *pattern);
void split_regex_free(struct split_regex *r); /* NULL is fine */

int split_match_new(struct split_match **out);
void split_match_free(struct split_match *m); /* NULL is fine */

/* Finds the first match in text[from, bytes), looking back before `from` where the
 * pattern does. Returns 1 and the extent, 0 without a match, or a negative code when the
 * pattern takes more than linear effort. Pre: text is well-formed UTF-8. */
int split_regex_find(const struct split_regex *r, struct split_match *m, const u8 *text,
                     i64 bytes, i64 from, i64 *begin, i64 *end);

#endif
