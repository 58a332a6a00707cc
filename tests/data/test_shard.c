#include "make_data.h"

#include "data/dataset.h"

#include <errno.h>

static struct arena arena;

static struct dataset open_set(const char *folder, const char *split, i32 separator)
{
    struct dataset d;
    CHECK_OK(dataset_open(&d, folder, split, separator, &arena));
    return d;
}

TEST(a_stream_runs_through_all_shards)
{
    struct made m = { .folder = fresh_folder("stream"), .documents = 300, .longest = 90,
                      .shard_tokens = 1000, .seed = 1, .masked = true };
    struct dataset_reader r;
    u32 ids[100];
    u8 mask[100];
    arena_init(&arena);
    make_data(&m);
    struct dataset d = open_set(m.folder, "train", -1);
    CHECK(d.n_shards > 10 && d.has_mask && d.vocab == MADE_VOCAB);
    CHECK_EQ(d.documents, m.documents);
    dataset_reader_init(&r, &d, 3);
    i64 at = 0, begin, document;
    for (i64 k = 0; k < m.documents; k++) {
        i64 n = made_length(&m, k);
        CHECK_OK(dataset_tokens(&r, at, n, ids));
        CHECK_OK(dataset_mask(&r, at, n, mask));
        for (i64 i = 0; i < n; i++) {
            CHECK_EQ(ids[i], made_token(&m, k, i));
            CHECK_EQ(mask[i], made_counts(&m, k, i));
            CHECK_OK(dataset_document_of(&r, at + i, &document));
            CHECK_EQ(document, k);
        }
        CHECK_OK(dataset_next_begin(&r, at + 1, &begin, &document));
        CHECK(begin == at + n && document == k + 1);
        at += n;
    }
    CHECK_EQ(at, d.tokens);
    dataset_reader_fini(&r);
    sys_remove_tree(m.folder);
    arena_fini(&arena);
}

/* Cuts the writer off after a sync, adds rubbish as a crash would, and goes on. */
TEST(a_writer_that_died_goes_on_to_the_same_bytes)
{
    struct made m = { .folder = fresh_folder("whole"), .documents = 200, .longest = 60,
                      .shard_tokens = 1500, .seed = 2, .masked = true };
    const char *folder = fresh_folder("resumed");
    struct shard like = { .token_bytes = 2, .tokenizer_hash = 77,
                          .separator = MADE_SEPARATOR, .vocab = MADE_VOCAB };
    struct shard_writer w;
    struct shard_writer_state saved = { 0 }, *from = NULL;
    arena_init(&arena);
    make_data(&m);
    i64 saved_at = 0, crashes = 0;
    for (i64 d = 0; d < m.documents;) {
        CHECK_OK(
            shard_writer_open(&w, folder, "train", &like, m.shard_tokens, from, &arena));
        i64 die = d + 1 + (i64)(rng_u64(&(struct rng){ 5, 5 }, (u64)crashes++) % 40);
        i64 sync = d + (die - d) / 2;
        for (; d < die && d < m.documents; d++) {
            u32 ids[64];
            i64 n = made_length(&m, d);
            for (i64 i = 0; i < n; i++)
                ids[i] =
                    made_token(&m, d, i) | (made_counts(&m, d, i) ? 0 : SHARD_NO_LOSS);
            CHECK_OK(shard_writer_add(&w, ids, n, 3 * (n - 1), hash64(&d, 8, m.seed)));
            if (d == sync) {
                CHECK_OK(shard_writer_sync(&w, &saved));
                saved_at = d + 1;
            }
        }
        from = &saved;
        if (d < m.documents) {
            shard_writer_close(&w);
            d = saved_at;
        }
    }
    CHECK(crashes > 5);
    CHECK_OK(shard_writer_finish(&w));
    CHECK_OK(shard_writer_clean(folder));
    char **names, path[512], one[65], other[65];
    int n = sys_list(m.folder, &names);
    CHECK(n > 3);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", m.folder, names[i]);
        CHECK_OK(sha256_file(path, one));
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        CHECK_OK(sha256_file(path, other));
        CHECK_STR(one, other);
    }
    sys_free(names);
    CHECK_EQ(sys_list(folder, &names), n);
    sys_free(names);
    sys_remove_tree(m.folder);
    sys_remove_tree(folder);
    arena_fini(&arena);
}

TEST(every_flipped_bit_and_every_truncation_is_noticed)
{
    struct made m = { .folder = fresh_folder("flips"), .documents = 5, .longest = 20,
                      .shard_tokens = 1000, .seed = 3, .masked = true };
    char path[512];
    i64 bytes;
    make_data(&m);
    snprintf(path, sizeof path, "%s/train-00000.shard", m.folder);
    const u8 *map = sys_map_file(path, &bytes);
    CHECK(map && bytes > 300);
    u8 *copy = malloc((size_t)bytes);
    struct shard_file f;
    struct shard s;
    for (i64 bit = 0; bit < 8 * bytes; bit++) {
        memcpy(copy, map, (size_t)bytes);
        copy[bit / 8] ^= (u8)(1 << bit % 8);
        shard_file_memory(&f, copy, bytes, "copy.shard");
        int rc = shard_read(&s, &f);
        if (rc == OK)
            rc = shard_verify(&s, &f);
        CHECK_EQ(rc, ERR_FORMAT);
    }
    for (i64 n = 0; n < bytes; n++) {
        shard_file_memory(&f, map, n, "copy.shard");
        CHECK(shard_read(&s, &f) == ERR_FORMAT);
    }
    free(copy);
    sys_unmap((void *)map, bytes);
    sys_remove_tree(m.folder);
}

/* All tokens, mask bits and borders of a file that is no longer what was written. */
static int read_all(const char *path)
{
    struct dataset_reader r;
    struct dataset d;
    u32 ids[200];
    u8 mask[200];
    i64 begins[10];
    TRY(dataset_open(&d, path, "train", -1, &arena));
    CHECK(d.tokens <= COUNT_OF(ids) && d.documents < COUNT_OF(begins));
    dataset_reader_init(&r, &d, 1);
    int rc = dataset_tokens(&r, 0, d.tokens, ids);
    if (rc == OK)
        rc = dataset_mask(&r, 0, d.tokens, mask);
    if (rc == OK)
        rc = dataset_begins(&r, 0, d.documents, begins);
    dataset_reader_fini(&r);
    return rc;
}

TEST(a_reader_of_tokens_notices_every_flipped_byte)
{
    struct made m = { .folder = fresh_folder("read"), .documents = 5, .longest = 20,
                      .shard_tokens = 1000, .seed = 3, .masked = true };
    char path[512];
    i64 bytes;
    arena_init(&arena);
    make_data(&m);
    snprintf(path, sizeof path, "%s/train-00000.shard", m.folder);
    CHECK_OK(read_all(path));
    u8 *map = sys_map_file(path, &bytes), *copy = malloc((size_t)bytes);
    memcpy(copy, map, (size_t)bytes);
    sys_unmap(map, bytes);
    for (i64 i = 0; i < bytes; i++) {
        copy[i] ^= 4;
        write_file(path, copy, bytes);
        CHECK_FAILS(read_all(path), ERR_FORMAT, i < SHARD_HEADER_BYTES ? path : "(CRC)");
        copy[i] ^= 4;
    }
    free(copy);
    sys_remove_tree(m.folder);
    arena_fini(&arena);
}

/* Blocks of 16 KiB: of several, only the one that is touched is looked at. */
TEST(damage_far_from_what_is_read_does_not_matter_yet)
{
    struct made m = { .folder = fresh_folder("far"), .documents = 60, .longest = 2000,
                      .shard_tokens = 1 << 20, .seed = 6 };
    char path[512], where[64];
    u8 byte = 0xff;
    u32 ids[4];
    struct dataset_reader r;
    arena_init(&arena);
    make_data(&m);
    snprintf(path, sizeof path, "%s/train-00000.shard", m.folder);
    struct dataset d = open_set(m.folder, "train", -1);
    CHECK(d.shards[0].info.checks > 3);
    i64 at = 2 * SHARD_BLOCK_BYTES / 2 + 100; /* a token of block 2 */
    int fd = sys_open(path, O_RDWR, 0);
    CHECK(sys_seek(fd, SHARD_HEADER_BYTES + 2 * at + 1, SEEK_SET) > 0);
    CHECK(sys_write_full(fd, &byte, 1) == 0);
    sys_close(fd);
    dataset_reader_init(&r, &d, 1);
    CHECK_OK(dataset_tokens(&r, 0, 4, ids));
    CHECK_OK(dataset_tokens(&r, d.tokens - 4, 4, ids));
    snprintf(where, sizeof where, "bytes %d to %d", SHARD_HEADER_BYTES + 2 * SHARD_BLOCK_BYTES,
             SHARD_HEADER_BYTES + 3 * SHARD_BLOCK_BYTES);
    CHECK_FAILS(dataset_tokens(&r, at + 900, 4, ids), ERR_FORMAT, where);
    dataset_reader_fini(&r);
    sys_remove_tree(m.folder);
    arena_fini(&arena);
}

TEST(shards_that_cannot_be_are_refused_in_one_sentence)
{
    struct made m = { .folder = fresh_folder("refused"), .documents = 50, .longest = 20,
                      .shard_tokens = 100, .seed = 4 };
    char path[512];
    struct dataset d;
    arena_init(&arena);
    make_data(&m);
    snprintf(path, sizeof path, "%s/train-00001.shard", m.folder);
    int fd = sys_open(path, O_RDWR, 0);
    i64 bytes = sys_file_bytes(path);
    CHECK(sys_truncate(fd, bytes + 1) == 0);
    CHECK_FAILS(dataset_open(&d, m.folder, "train", -1, &arena), ERR_FORMAT,
                "truncated or");
    CHECK(sys_truncate(fd, bytes / 2) == 0);
    CHECK_FAILS(dataset_open(&d, m.folder, "train", -1, &arena), ERR_FORMAT,
                "truncated or");
    CHECK(sys_truncate(fd, 0) == 0 && sys_truncate(fd, bytes) == 0);
    CHECK_FAILS(dataset_open(&d, m.folder, "train", -1, &arena), ERR_FORMAT,
                "never finished");
    sys_close(fd);
    CHECK(sys_unlink(path) == 0);
    CHECK_FAILS(dataset_open(&d, m.folder, "train", -1, &arena), ERR_FORMAT,
                "incomplete");
    CHECK_OK(dataset_open(&d, m.folder, "val", -1, &arena));
    CHECK_EQ(d.tokens, 0);
    CHECK_FAILS(dataset_open(&d, "no/such/folder", "val", -1, &arena), ERR_SYS,
                "no/such/folder");
    CHECK_FAILS(dataset_open(&d, "no/such/folder.shard", "train", -1, &arena), ERR_SYS,
                "no/such/folder.shard");
    sys_remove_tree(m.folder);
    arena_fini(&arena);
}

TEST(shards_of_llmc_and_nanogpt_are_read)
{
    const char *folder = fresh_folder("foreign");
    char path[512];
    i32 header[256] = { 20240520, 1, 5 };
    u8 file[1024 + 20];
    u16 narrow[5] = { 50256, 1, 2, 50256, 65535 };
    u32 wide[5] = { 128000, 1, 2, 128000, 70000 }, ids[5];
    struct dataset_reader r;
    arena_init(&arena);
    memcpy(file, header, 1024);
    memcpy(file + 1024, narrow, sizeof narrow);
    snprintf(path, sizeof path, "%s/corpus_train_000001.bin", folder);
    write_file(path, file, 1024 + sizeof narrow);
    struct dataset d = open_set(folder, "train", 50256);
    CHECK(d.tokens == 5 && d.separator == 50256 && !d.has_documents);
    dataset_reader_init(&r, &d, 1);
    CHECK_OK(dataset_tokens(&r, 0, 5, ids));
    CHECK(ids[0] == 50256 && ids[4] == 65535);
    dataset_reader_fini(&r);
    header[0] = 20240801;
    header[1] = 7;
    memcpy(file, header, 1024);
    memcpy(file + 1024, wide, sizeof wide);
    snprintf(path, sizeof path, "%s/corpus_val_000000.bin", folder);
    write_file(path, file, 1024 + sizeof wide);
    d = open_set(folder, "val", -1);
    dataset_reader_init(&r, &d, 1);
    CHECK_OK(dataset_tokens(&r, 1, 4, ids));
    CHECK(ids[0] == 1 && ids[2] == 128000 && d.tokens == 5);
    dataset_reader_fini(&r);
    write_file(path, file, 1024 + sizeof wide - 4);
    CHECK_FAILS(dataset_open(&d, folder, "val", -1, &arena), ERR_FORMAT, "llm.c");
    static const i32 unknown[] = { 0, 1, 6, 8, 9, -7 };
    for (i64 i = 0; i < COUNT_OF(unknown); i++) { /* 7 is the one of this magic */
        memcpy(file + 4, &unknown[i], 4);
        write_file(path, file, 1024 + sizeof wide);
        CHECK_FAILS(dataset_open(&d, folder, "val", -1, &arena), ERR_FORMAT,
                    "val_000000.bin has an llm.c header of version");
    }
    write_file(path, narrow, sizeof narrow);
    d = open_set(folder, "val", -1);
    CHECK_EQ(d.tokens, 5);
    write_file(path, narrow, 3);
    CHECK_FAILS(dataset_open(&d, folder, "val", -1, &arena), ERR_FORMAT, "odd number");
    sys_remove_tree(folder);
    arena_fini(&arena);
}

/* A sparse file of 6 GB: offsets beyond 32 bits, in bytes and in tokens. Nearly all of
 * its blocks are zero and have the same check. */
TEST(shards_beyond_four_gigabytes_are_read)
{
    const char *folder = fresh_folder("large");
    static const u8 zero[SHARD_BLOCK_BYTES];
    char path[512];
    struct shard s = { .token_bytes = 2, .tokens = (i64)3 << 30, .documents = 2,
                       .separator = -1, .vocab = 100, .last = true };
    u8 header[SHARD_HEADER_BYTES];
    const struct shard_document table[3] = { { 0, 1, 1 }, { (i64)5 << 29, 1, 2 },
                                             { s.tokens, 0, 0 } };
    u16 mark = 42;
    u32 ids[2];
    i64 document;
    struct dataset_reader r;
    arena_init(&arena);
    s.loss_tokens = s.tokens;
    shard_lay_out(&s, false);
    u32 *checks = arena_alloc(&arena, s.checks * (i64)sizeof *checks);
    for (i64 i = 0; i < s.checks; i++)
        checks[i] = crc32c(0, zero, sizeof zero);
    i64 last_bytes = s.checks_at - SHARD_HEADER_BYTES - (s.checks - 1) * SHARD_BLOCK_BYTES;
    CHECK_EQ(last_bytes, sizeof table); /* 6 GB are whole blocks */
    checks[s.checks - 1] = crc32c(0, table, sizeof table);
    u8 block[SHARD_BLOCK_BYTES] = { 0 };
    memcpy(block + SHARD_BLOCK_BYTES - 2, &mark, 2);
    checks[s.checks - 2] = crc32c(0, block, sizeof block);
    shard_encode_header(&s, header);
    snprintf(path, sizeof path, "%s/train-00000.shard", folder);
    write_file(path, header, sizeof header);
    int fd = sys_open(path, O_RDWR, 0);
    CHECK(sys_truncate(fd, s.file_bytes) == 0);
    CHECK(sys_seek(fd, s.tokens_at + 2 * (s.tokens - 1), SEEK_SET) > 0);
    CHECK(sys_write_full(fd, &mark, 2) == 0);
    CHECK(sys_seek(fd, s.documents_at, SEEK_SET) > 0);
    CHECK(sys_write_full(fd, table, sizeof table) == 0);
    CHECK(sys_seek(fd, s.checks_at, SEEK_SET) > 0);
    CHECK(sys_write_full(fd, checks, s.checks * (i64)sizeof *checks) == 0);
    sys_close(fd);
    struct dataset d = open_set(folder, "train", -1);
    CHECK(d.tokens == s.tokens && d.shards[0].info.file_bytes > (i64)6 << 30);
    dataset_reader_init(&r, &d, 1);
    CHECK_OK(dataset_tokens(&r, s.tokens - 2, 2, ids));
    CHECK(ids[0] == 0 && ids[1] == 42);
    CHECK_OK(dataset_tokens(&r, (i64)5 << 28, 2, ids));
    CHECK_OK(dataset_document_of(&r, s.tokens - 1, &document));
    CHECK_EQ(document, 1);
    dataset_reader_fini(&r);
    sys_remove_tree(folder);
    arena_fini(&arena);
}

TEST_MAIN(ONE(a_stream_runs_through_all_shards),
          ONE(a_writer_that_died_goes_on_to_the_same_bytes),
          ONE(every_flipped_bit_and_every_truncation_is_noticed),
          ONE(a_reader_of_tokens_notices_every_flipped_byte),
          ONE(damage_far_from_what_is_read_does_not_matter_yet),
          ONE(shards_that_cannot_be_are_refused_in_one_sentence),
          ONE(shards_of_llmc_and_nanogpt_are_read),
          ONE(shards_beyond_four_gigabytes_are_read))
