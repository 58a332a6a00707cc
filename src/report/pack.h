/* report/pack.h - arrays inside of JSON: little-endian bytes in base64, a fraction of the size of
 * decimals, and read by a browser without parsing numbers. */
#ifndef HEADWAY_PACK_H
#define HEADWAY_PACK_H

#include "base/json.h"

void pack_bytes(struct json *j, const void *data, i64 bytes);
void pack_f32(struct json *j, const float *values, i64 n);
/* Differences to the value before, zigzag, as varints: steps and times. */
void pack_deltas(struct json *j, const i64 *values, i64 n);

#endif
