/* backend/cpu/stream.h - reading memory as fast as an instruction set can, for measuring
 * it (machine/probe.c). Copying is memcpy's business. */
#ifndef HEADWAY_STREAM_H
#define HEADWAY_STREAM_H

#include "base/base.h"

/* Reads `bytes`, a multiple of 512, at an address aligned to 64. */
typedef void (*stream_read_fn)(const void *data, i64 bytes);

void stream_read_generic(const void *data, i64 bytes);
void stream_read_avx2(const void *data, i64 bytes);
void stream_read_avx512(const void *data, i64 bytes);
void stream_read_wide(const void *data, i64 bytes); /* tests only */

#endif
