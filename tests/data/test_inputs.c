#include "make_data.h"

#include "data/inputs.h"
#include "data/shard.h"
#include "data/splitter.h"
#include "data/stream.h"

#include <pthread.h>
#include <zlib.h>
#include <zstd.h>

/* --- streams ------------------------------------------------------------------------ */

/* Everything a stream gives, in small bites; negative when it fails. */
static i64 read_named(const void *bytes, i64 n, const char *name, struct buffer *out)
{
    struct stream *s;
    u8 bite[1000];
    i64 got = 1;
    out->bytes = 0;
    int rc = stream_open_memory(&s, bytes, n, name);
    if (rc < 0)
        return rc;
    for (i64 i = 0; rc == OK && got > 0; i++) {
        rc = stream_read(s, bite, 1 + i * 37 % (i64)sizeof bite, &got);
        if (rc == OK)
            CHECK_OK(buffer_add(out, bite, got));
    }
    stream_close(s);
    return rc < 0 ? rc : out->bytes;
}

static i64 read_all(const void *bytes, i64 n, struct buffer *out)
{
    return read_named(bytes, n, "memory", out);
}

static i64 gzip(const void *bytes, i64 n, u8 *out, i64 room)
{
    z_stream z = { 0 };
    CHECK(deflateInit2(&z, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_in = (void *)bytes;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

enum { TEXT = 300000, ROOM = 400000 };
static u8 text[TEXT], packed[ROOM];

static void make_text(void)
{
    for (i64 i = 0; i < TEXT; i++)
        text[i] =
            (u8)("the quick brown fox\n"[rng_u64(&(struct rng){ 1, 1 }, (u64)i / 3) %
                                         20]);
}

TEST(gzip_and_zstd_are_recognised_and_may_have_several_members)
{
    struct buffer out = { 0 };
    make_text();
    CHECK_EQ(read_all(text, TEXT, &out), TEXT);
    CHECK(memcmp(out.data, text, TEXT) == 0);
    i64 n = gzip(text, TEXT / 2, packed, ROOM);
    n += gzip(text + TEXT / 2, TEXT / 2, packed + n, ROOM - n);
    memset(packed + n, 0, 100); /* padding, as on tapes */
    CHECK_EQ(read_all(packed, n + 100, &out), TEXT);
    CHECK(memcmp(out.data, text, TEXT) == 0);
    n = (i64)ZSTD_compress(packed, ROOM, text, TEXT / 2, 3);
    n +=
        (i64)ZSTD_compress(packed + n, (size_t)(ROOM - n), text + TEXT / 2, TEXT / 2, 19);
    CHECK_EQ(read_all(packed, n, &out), TEXT);
    CHECK(memcmp(out.data, text, TEXT) == 0);
    CHECK_EQ(read_all(text, 0, &out), 0);
    CHECK_EQ(read_all(text, 1, &out), 1);
    buffer_fini(&out);
}

TEST(what_is_named_compressed_and_is_not_is_refused)
{
    static const char *const named[][2] = { { "a.gz", "gzip" }, { "b/a.txt.dz", "gzip" },
                                            { "a.jsonl.zst", "zstd" } };
    struct buffer out = { 0 };
    make_text();
    for (i64 i = 0; i < COUNT_OF(named); i++)
        for (i64 n = 0; n < 5; n++) {
            CHECK_EQ(read_named(text, n == 4 ? 5000 : n, named[i][0], &out), ERR_FORMAT);
            CHECK(strstr(err_message(), named[i][0]) && strstr(err_message(), named[i][1]));
        }
    CHECK_EQ(read_named(text, 5000, "a.zst.txt", &out), 5000);
    CHECK_EQ(read_named(text, 5000, "azst", &out), 5000);
    i64 n = gzip(text, 5000, packed, ROOM);
    CHECK_EQ(read_named(packed, n, "a.gz", &out), 5000);
    memcpy(packed, "\x51\x2a\x4d\x18\x03\0\0\0abc", 11); /* a frame to skip, then text */
    n = 11 + (i64)ZSTD_compress(packed + 11, ROOM - 11, text, 5000, 3);
    CHECK_EQ(read_named(packed, n, "a.zst", &out), 5000);
    buffer_fini(&out);
}

TEST(tokens_are_no_text)
{
    struct stream *s;
    CHECK_FAILS(stream_open_memory(&s, "HWSHARD1 and so on", 18, "train-00000.shard"), ERR_FORMAT,
                "train-00000.shard holds tokens");
    CHECK_OK(stream_open_memory(&s, "HWSHARD", 7, "a word"));
    stream_close(s);
}

TEST(compressed_data_that_end_early_are_refused)
{
    struct buffer out = { 0 };
    make_text();
    i64 n = gzip(text, 5000, packed, ROOM);
    for (i64 cut = 3; cut < n; cut++) {
        CHECK_EQ(read_all(packed, cut, &out), ERR_FORMAT);
        CHECK(strstr(err_message(), "ends in the middle"));
    }
    packed[n] = 'x';
    CHECK_EQ(read_all(packed, n + 1, &out), ERR_FORMAT);
    packed[n / 2] ^= 255;
    CHECK_EQ(read_all(packed, n, &out), ERR_FORMAT);
    n = (i64)ZSTD_compress(packed, ROOM, text, 5000, 3);
    for (i64 cut = 5; cut < n; cut++) {
        CHECK_EQ(read_all(packed, cut, &out), ERR_FORMAT);
        CHECK(strstr(err_message(), "ends in the middle"));
    }
    buffer_fini(&out);
}

/* 1 GiB of zeros from 33 KB of zstd: read in a megabyte of memory. */
TEST(a_small_file_that_expands_enormously_needs_little_memory)
{
    enum { EXPANDED = 1 << 30, BITE = 1 << 20 };
    static u8 zeros[BITE];
    struct buffer file = { 0 };
    ZSTD_CStream *z = ZSTD_createCStream();
    CHECK_OK(buffer_reserve(&file, 1 << 20));
    ZSTD_outBuffer out = { file.data, 1 << 20, 0 };
    for (i64 i = 0; i < EXPANDED / BITE; i++) {
        ZSTD_inBuffer in = { zeros, BITE, 0 };
        while (in.pos < in.size)
            CHECK(!ZSTD_isError(ZSTD_compressStream2(z, &out, &in, ZSTD_e_continue)));
    }
    ZSTD_inBuffer none = { zeros, 0, 0 };
    CHECK(ZSTD_compressStream2(z, &out, &none, ZSTD_e_end) == 0);
    ZSTD_freeCStream(z);
    struct stream *s;
    i64 got = 1, total = 0;
    CHECK_OK(stream_open_memory(&s, file.data, (i64)out.pos, "bomb"));
    i64 before = sys_rss_bytes();
    while (got > 0) {
        CHECK_OK(stream_read(s, zeros, BITE, &got));
        total += got;
    }
    CHECK_EQ(total, EXPANDED);
    CHECK(sys_rss_bytes() - before < 8 << 20); /* a window of 2 MiB, and slack */
    stream_close(s);
    buffer_fini(&file);
}

/* --- folders ------------------------------------------------------------------------ */

static void *write_late(void *path)
{
    int fd = open(path, O_WRONLY);
    usleep(50000); /* is there before it writes */
    CHECK_EQ(sys_write_full(fd, text, 1000), 0);
    close(fd);
    return NULL;
}

TEST(a_pipe_is_read_by_who_finds_a_writer_and_refused_by_who_does_not)
{
    static char path[] = "inputs-test-pipe";
    struct stream *s;
    pthread_t writer;
    u8 bite[TEXT];
    i64 got = 1, all = 0;
    unlink(path);
    CHECK_EQ(mkfifo(path, 0600), 0);
    make_text();
    CHECK_EQ(pthread_create(&writer, NULL, write_late, path), 0);
    CHECK_OK(stream_open(&s, path));
    for (; got > 0; all += got)
        CHECK_OK(stream_read(s, bite + all, TEXT - all, &got));
    pthread_join(writer, NULL);
    CHECK_EQ(all, 1000);
    CHECK(memcmp(bite, text, 1000) == 0);
    CHECK_EQ(stream_input_bytes(s), 1000);
    stream_close(s);
    CHECK_FAILS(stream_open(&s, path), ERR_SYS, "is a pipe that nobody writes into");
    unlink(path);
}

/* Shards are read at any place. */
TEST(a_pipe_is_no_shard)
{
    struct shard_file f;
    unlink("pipe.shard");
    CHECK_EQ(mkfifo("pipe.shard", 0600), 0);
    CHECK_FAILS(shard_file_open(&f, "pipe.shard"), ERR_FORMAT, "is not an ordinary file");
    unlink("pipe.shard");
}

TEST(folders_are_walked_in_order_without_hidden_files)
{
    const char *folder = fresh_folder("walk");
    static const char *const names[] = { "b.txt", "a/2.txt", "a/10.txt", ".hidden",
                                         "c/.git/x" };
    char path[512];
    struct arena a;
    struct inputs found;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        *strrchr(path, '/') = '\0';
        sys_mkdirs(path);
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        write_text(path, names[i]);
    }
    CHECK_OK(inputs_find(&found, &folder, 1, &a));
    CHECK_EQ(found.count, 3);
    CHECK(strstr(found.at[0].path, "/a/10.txt"));
    CHECK(strstr(found.at[1].path, "/a/2.txt"));
    CHECK(strstr(found.at[2].path, "/b.txt"));
    CHECK_EQ(found.bytes, 8 + 7 + 5);
    const char *nothing = "no/such/place";
    CHECK_FAILS(inputs_find(&found, &nothing, 1, &a), ERR_SYS, "no/such/place");
    snprintf(path, sizeof path, "%s/c", folder);
    const char *empty = path;
    CHECK_FAILS(inputs_find(&found, &empty, 1, &a), ERR_USAGE, "no files");
    sys_remove_tree(folder);
    arena_fini(&a);
}

TEST(a_link_to_a_folder_above_it_is_left_out)
{
    const char *folder = fresh_folder("circle");
    char path[512];
    struct arena a;
    struct inputs found;
    arena_init(&a);
    snprintf(path, sizeof path, "%s/a/b", folder);
    sys_mkdirs(path);
    snprintf(path, sizeof path, "%s/a/b/text.txt", folder);
    write_text(path, "text");
    snprintf(path, sizeof path, "%s/a/b/back", folder);
    CHECK_EQ(symlink("../..", path), 0);
    snprintf(path, sizeof path, "%s/twice", folder); /* a folder beside it is no circle */
    CHECK_EQ(symlink("a/b", path), 0);
    CHECK_OK(inputs_find(&found, &folder, 1, &a));
    CHECK_EQ(found.count, 2);
    CHECK(strstr(found.at[0].path, "/a/b/text.txt"));
    CHECK(strstr(found.at[1].path, "/twice/text.txt"));
    sys_remove_tree(folder);
    arena_fini(&a);
}

/* --- documents ---------------------------------------------------------------------- */

/* Documents of a text, joined by '|'. */
static const char *split(const char *input, const struct splitter_options *o,
                         enum text_format format)
{
    static char out[1 << 16];
    struct splitter *s;
    struct stream *stream;
    struct split_document d;
    int rc;
    i64 n = 0;
    CHECK_OK(splitter_new(&s, o));
    CHECK_OK(stream_open_memory(&stream, input, (i64)strlen(input), "text"));
    splitter_begin(s, stream, "text", format);
    while ((rc = splitter_next(s, &d)) > 0)
        n += snprintf(out + n, sizeof out - (size_t)n, "%s%.*s", n ? "|" : "",
                      (int)d.bytes, d.text);
    CHECK(rc == 0);
    out[n] = '\0';
    stream_close(stream);
    splitter_free(s);
    return out;
}

TEST(texts_are_split_where_they_should_be)
{
    const struct splitter_options plain = { .most = 1000 };
    const struct splitter_options feed = { .separator = "^\\f", .drop_separator = true,
                                           .most = 1000 };
    const struct splitter_options mark = { .separator = "^<end>\\s*$",
                                           .drop_separator = true, .most = 1000 };
    const struct splitter_options head = { .separator = "^\\S", .most = 1000 };
    const struct splitter_options joined = { .separator = "^\\S",
                                             .least = 8,
                                             .most = 1000 };
    const struct splitter_options blank = { .separator = "^\\s*$", .drop_separator = true,
                                            .most = 1000 };
    CHECK_STR(split("one\n\ntwo\n", &plain, FORMAT_TEXT), "one\n\ntwo\n");
    CHECK_STR(split(" \n\n", &plain, FORMAT_TEXT), "");
    CHECK_STR(split("a\nb\n\n\n \nc\n", &plain, FORMAT_PARAGRAPHS), "a\nb\n|c\n");
    CHECK_STR(split("\n\na\n\n", &plain, FORMAT_PARAGRAPHS), "a\n");
    CHECK_STR(split("a\n\fb\n\f\nc", &feed, FORMAT_TEXT), "a\n|b\n|c");
    CHECK_STR(split("<end>\na\n<end>\n<end>\r\nb\n<end> c\n", &mark, FORMAT_TEXT),
              "a\n|b\n<end> c\n");
    CHECK_STR(split("x\n one\ny\nz\n two\n", &head, FORMAT_TEXT),
              "x\n one\n|y\n|z\n two\n");
    CHECK_STR(split("x\n one\ny\nz\n two\n", &joined, FORMAT_TEXT),
              "x\n one\ny\n|z\n two\n");
    CHECK_STR(split("a\n\nb\n", &blank, FORMAT_TEXT), "a\n|b\n");
    CHECK_STR(split("{1}\n\n {2} \n{3}", &plain, FORMAT_JSONL), "{1}\n| {2} \n|{3}");
    CHECK_STR(split("\xEF\xBB\xBF{1}\n{2}\n", &plain, FORMAT_JSONL),
              "{1}\n|{2}\n");
    CHECK_STR(split("\xEF\xBB\xBFone \xEF\xBB\xBF\n", &plain, FORMAT_TEXT), "one \xEF\xBB\xBF\n");
    CHECK_STR(split("\xEF\xBB\xBF", &plain, FORMAT_TEXT), "");
    struct splitter *s;
    CHECK_FAILS(splitter_new(&s, &(struct splitter_options){ "(", false, 0, 1000 }),
                ERR_USAGE, "regular expression");
    CHECK_EQ(text_format_of("x.jsonl.zst"), FORMAT_JSONL);
    CHECK_EQ(text_format_of("x.jsonl.txt"), FORMAT_TEXT);
}

TEST(long_texts_are_cut_at_lines_and_never_within_a_character)
{
    const struct splitter_options o = { .most = 64 };
    static char input[4000], joined[8000];
    char want[4000] = "";
    i64 n = 0;
    for (int i = 0; n < 3000; i++)
        n += snprintf(input + n, sizeof input - (size_t)n, "%d %s\n", i,
                      i % 50 == 7 ? "ééééééééééééééééééééééééééééééééééééééééééééééééééé"
                                  : "word");
    snprintf(joined, sizeof joined, "%s", split(input, &o, FORMAT_TEXT));
    i64 parts = 0;
    for (char *part = strtok(joined, "|"); part; part = strtok(NULL, "|")) {
        CHECK(strlen(part) <= 64 && (part[0] & 0xC0) != 0x80);
        strcat(want, part);
        parts++;
    }
    CHECK_STR(want, input);
    CHECK(parts < 3000 / 64 * 1.5); /* no needless cuts */
}

TEST_MAIN(ONE(gzip_and_zstd_are_recognised_and_may_have_several_members),
          ONE(what_is_named_compressed_and_is_not_is_refused),
          ONE(tokens_are_no_text),
          ONE(compressed_data_that_end_early_are_refused),
          ONE(a_small_file_that_expands_enormously_needs_little_memory),
          ONE(a_pipe_is_read_by_who_finds_a_writer_and_refused_by_who_does_not),
          ONE(a_pipe_is_no_shard), ONE(folders_are_walked_in_order_without_hidden_files),
          ONE(a_link_to_a_folder_above_it_is_left_out),
          ONE(texts_are_split_where_they_should_be),
          ONE(long_texts_are_cut_at_lines_and_never_within_a_character))
