/* diagnose/record_parse.h - the chunks HEAD, TABLE and EVENT of a record, checked.
 *
 * What they say is used as indices and counts elsewhere, so everything that could lead out of
 * bounds is refused here (ERR_FORMAT). */
#ifndef HEADWAY_DIAGNOSE_RECORD_PARSE_H
#define HEADWAY_DIAGNOSE_RECORD_PARSE_H

#include "diagnose/record.h"

enum { RECORD_MOST_RANKS = 1 << 17 };

/* What they make lives in the arena; name stands for the file in messages. *part_id: see
 * record_part. */
int record_parse_head(struct record_head *out, i64 *part_id, const char *text, i64 bytes,
                      const char *name, struct arena *a);
int record_parse_table(struct record_table *out, const char *text, i64 bytes, const char *name,
                       struct arena *a);
int record_parse_event(struct record_event *out, const char *text, i64 bytes, const char *name,
                       struct arena *a);

#endif
