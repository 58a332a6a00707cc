#include "trace/record_toc.h"

#include "base/hash.h"
#include "base/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static u32 checksum_of(const struct record_entry *e)
{
    return (u32)hash64(e, (i64)offsetof(struct record_entry, checksum), RECORD_VERSION);
}

void record_toc_enter(struct record_entry *out, const struct record_place *place,
                      const void *payload)
{
    *out = (struct record_entry){ .at = place->at - RECORD_CHUNK_BYTES, .chunk = place->chunk };
    memcpy(out->begin, payload, i64_min(RECORD_BEGIN_BYTES, (i64)place->chunk.bytes));
    out->checksum = checksum_of(out);
}

bool record_toc_counts(const struct record_entry *e, i64 at, i64 file_bytes)
{
    return e->at == at && at >= 0 && at < file_bytes && e->checksum == checksum_of(e) &&
           record_plausible(&e->chunk) && record_chunk_end(&e->chunk, e->at) <= file_bytes;
}

bool record_toc_read(int fd, struct record_entry *out, i64 from, i64 n)
{
    return sys_pread_full(fd, out, n * (i64)sizeof *out, from * (i64)sizeof *out);
}

/* Whether the file has a chunk like the entry's, at its place. */
static bool is_there(int file, const struct record_entry *e)
{
    struct record_chunk c;
    return sys_pread_full(file, &c, (i64)sizeof c, e->at) && memcmp(&c, &e->chunk, sizeof c) == 0;
}

/* How many of n entries lie within the file; they lie one behind the other. */
static i64 within(int fd, i64 n, i64 file_bytes)
{
    struct record_entry e;
    i64 low = 0, high = n;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        const bool good = record_toc_read(fd, &e, middle, 1) &&
                          record_toc_counts(&e, e.at, file_bytes);
        if (good)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

i64 record_toc_open(int *fd, const char *path, int file, i64 file_bytes)
{
    struct record_entry last;
    char beside[2300];
    snprintf(beside, sizeof beside, "%s" RECORD_TOC_SUFFIX, path);
    *fd = sys_open(beside, O_RDONLY | O_CLOEXEC, 0);
    if (*fd < 0)
        return 0;
    const i64 bytes = i64_max(0, sys_seek(*fd, 0, SEEK_END));
    const i64 n = within(*fd, bytes / (i64)sizeof last, file_bytes);
    if (n > 0 && record_toc_read(*fd, &last, n - 1, 1) && is_there(file, &last))
        return n;
    sys_close(*fd);
    *fd = -1;
    return 0;
}
