#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "data/dataset.h"

/* Of a file without checksums: pieces at even distances, all of it where they reach. */
enum { PIECE_BYTES = 64 << 10, PIECES = 1024 };

/* What cannot be read is left out: whoever trains on it will be told. */
static u64 add_content(const struct dataset_shard *s, i64 pieces, u64 hash)
{
    struct shard_file f;
    u8 *piece = sys_alloc(PIECE_BYTES, 64);
    if (!piece || shard_file_open(&f, s->path) < 0) {
        sys_free(piece);
        return hash;
    }
    const i64 whole = ceil_div(f.bytes, PIECE_BYTES), n = i64_min(whole, pieces);
    for (i64 i = 0; i < n; i++) {
        const i64 at = (n < 2 ? 0 : i * (whole - 1) / (n - 1)) * PIECE_BYTES;
        const i64 bytes = i64_min(PIECE_BYTES, f.bytes - at);
        if (shard_file_read(&f, piece, bytes, at) == OK)
            hash = hash64(piece, bytes, hash);
    }
    shard_file_close(&f);
    sys_free(piece);
    return hash;
}

u64 dataset_identity(const struct dataset *d)
{
    u64 hash = 0;
    for (i64 i = 0; i < d->n_shards; i++) {
        const struct shard *h = &d->shards[i].info;
        const i64 facts[] = { h->tokens, h->file_bytes, h->tokens_crc, h->documents_crc,
                              h->mask_crc };
        hash = hash64(facts, sizeof facts, hash);
        if (h->kind != SHARD_HEADWAY)
            hash = add_content(&d->shards[i], i64_max(2, PIECES / d->n_shards), hash);
    }
    return hash;
}
