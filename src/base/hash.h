/* base/hash.h - SHA-256 for provenance, CRC32C for damage, xxHash for speed. */
#ifndef HEADWAY_HASH_H
#define HEADWAY_HASH_H

#include "base/base.h"

/* CRC32C (Castagnoli), as in iSCSI and TFRecord; crc is 0 to begin, or a previous result. */
u32 crc32c(u32 crc, const void *data, i64 bytes);

u64 hash64(const void *data, i64 bytes, u64 seed); /* XXH3 */

/* Streaming SHA-256; _fini gives 64 hex digits and a NUL and ends the stream. */
struct sha256 {
    void *context;
};
void sha256_init(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *data, i64 bytes);
void sha256_fini(struct sha256 *h, char hex[65]);
void sha256_of(const void *data, i64 bytes, char hex[65]);
/* 0, or a negative code with a message. */
int sha256_file(const char *path, char hex[65]);

#endif
