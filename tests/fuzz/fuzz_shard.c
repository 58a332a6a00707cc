/* Any bytes as a shard, and again with the header's checksum put right so that what is
 * behind it is reached: refused, or read as rows whose ids and borders are in order. */
#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "data/row.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 16, VOCAB = 70000, MOST_TOKENS = 1 << 12 };

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void check_row(const struct row *row)
{
    for (int t = 0; t < WINDOW; t++)
        if (row->tokens[t] < 0 || row->tokens[t] >= VOCAB || row->targets[t] < 0 ||
            row->targets[t] >= VOCAB || row->begin[t] < 0 || row->begin[t] > t ||
            row->positions[t] != t - row->begin[t])
            err_panic("place %d of a row is impossible", t);
}

static void read_rows(const struct dataset *d, enum row_packing packing)
{
    const struct row_rule rule = { .window = WINDOW, .packing = packing,
                                   .loss_on_answers = true, .vocab = VOCAB };
    const struct rng key = { 1, 2 };
    i32 tokens[WINDOW], targets[WINDOW], positions[WINDOW], begin[WINDOW];
    float weights[WINDOW];
    const struct row row = { tokens, targets, positions, begin, weights };
    struct dataset_reader r;
    struct row_maker *maker;
    struct row_sums sums;
    if (row_maker_new(&maker, &rule) < 0)
        err_panic("%s", err_message());
    dataset_reader_init(&r, d, 1);
    for (i64 i = 0; i < row_windows(d, WINDOW); i++)
        if (row_fill(maker, &r, &key, i, 0, WINDOW, &row, &sums) == OK)
            check_row(&row);
    dataset_reader_fini(&r);
    row_maker_free(maker);
}

static void read_file(const u8 *data, i64 bytes)
{
    char path[64];
    struct dataset d;
    struct arena a;
    snprintf(path, sizeof path, "/dev/shm/headway-fuzz-%d.shard", (int)getpid());
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || sys_write_full(fd, data, bytes) != 0)
        return; /* no such folder here */
    sys_close(fd);
    arena_init(&a);
    if (dataset_open(&d, path, "train", 0, &a) == OK && d.tokens <= MOST_TOKENS) {
        read_rows(&d, ROW_CONTIGUOUS);
        if (d.has_documents)
            read_rows(&d, ROW_DOCUMENTS);
    }
    arena_fini(&a);
    sys_unlink(path);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    enum { MOST_BYTES = 1 << 16 };
    static u8 copy[MOST_BYTES];
    struct shard_file f;
    struct shard s;
    shard_file_memory(&f, data, (i64)bytes, "fuzz.bin");
    if (shard_read(&s, &f) == OK)
        (void)shard_verify(&s, &f);
    if (bytes < SHARD_HEADER_BYTES || bytes > MOST_BYTES)
        return 0;
    memcpy(copy, data, bytes);
    u32 crc = crc32c(0, copy, SHARD_HEADER_BYTES - 4);
    memcpy(copy + SHARD_HEADER_BYTES - 4, &crc, 4);
    shard_file_memory(&f, copy, (i64)bytes, "fuzz.shard");
    if (shard_read(&s, &f) == OK)
        (void)shard_verify(&s, &f);
    read_file(copy, (i64)bytes);
    return 0;
}
