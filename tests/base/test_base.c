#include "test.h"

#include "base/arena.h"
#include "base/sort.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/sys.h"
#include "base/sys_share.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

TEST(errors_keep_context_in_front)
{
    CHECK_EQ(err_set(ERR_SYS, "open %s", "x"), ERR_SYS);
    CHECK_EQ(err_context(ERR_SYS, "recipe"), ERR_SYS);
    CHECK_STR(err_message(), "recipe: open x");
}

TEST(arena_memory_is_zeroed_and_aligned)
{
    struct arena a;
    arena_init(&a);
    for (i64 bytes = 0; bytes < 300000; bytes = bytes * 3 + 1) {
        u8 *p = arena_alloc(&a, bytes);
        CHECK_EQ((uintptr_t)p % (bytes >= 64 ? 64 : 16), 0);
        for (i64 i = 0; i < bytes; i++)
            CHECK_EQ(p[i], 0);
        memset(p, 0xff, (size_t)bytes);
    }
    CHECK_STR(arena_printf(&a, "%d-%s", 7, "x"), "7-x");
    arena_fini(&a);
}

TEST(hashes_match_published_values)
{
    char hex[65];
    CHECK_EQ(crc32c(0, "123456789", 9), 0xE3069283);
    CHECK_EQ(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
    sha256_of("abc", 3, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* The known-answer vectors of the Random123 distribution (kat_vectors). */
TEST(philox_matches_known_answers)
{
    u32 r[4];
    rng_block(&(struct rng){ 0, 0 }, 0, r);
    CHECK_EQ(r[0], 0x6627e8d5);
    CHECK_EQ(r[1], 0xe169c58d);
    CHECK_EQ(r[2], 0xbc57ac4c);
    CHECK_EQ(r[3], 0x9b00dbd8);
    rng_block(&(struct rng){ ~(u64)0, ~(u64)0 }, ~(u64)0, r);
    CHECK_EQ(r[0], 0x408f276d);
    CHECK_EQ(r[3], 0x6d5451fd);
}

TEST(quantiles_are_those_of_the_normal_distribution)
{
    const float *q = rng_quantiles();
    CHECK(q == rng_quantiles());
    CHECK_NEAR(q[0], -4.2, 1e-6);
    CHECK_NEAR(q[RNG_QUANTILES / 4], -0.67448975, 1e-6); /* of tables; floats are rounded */
    CHECK_NEAR(q[102], -1.96163763, 1e-6);
    for (int i = 1; i <= RNG_QUANTILES; i++)
        CHECK(q[i] > q[i - 1] && q[i] == -q[RNG_QUANTILES - i]);
}

TEST(permutation_visits_every_index_once)
{
    for (i64 n = 1; n < 300; n += 7) {
        u8 seen[300] = { 0 };
        struct rng key = { 42, (u64)n };
        for (i64 i = 0; i < n; i++) {
            i64 j = rng_permute(&key, n, i);
            CHECK(j >= 0 && j < n && !seen[j]);
            seen[j] = 1;
        }
    }
}

static void mark(void *context, i64 part, int thread)
{
    (void)thread;
    __atomic_fetch_add((int *)context + part, 1, __ATOMIC_RELAXED);
}

TEST(pool_runs_every_part_exactly_once)
{
    static int hits[1000];
    for (int threads = 1; threads <= 4; threads++) {
        struct pool *p;
        CHECK_OK(pool_new(&p, threads, false));
        for (int round = 1; round <= 200; round++) {
            memset(hits, 0, sizeof hits);
            pool_run(p, 1000, mark, hits);
            for (int i = 0; i < 1000; i++)
                CHECK_EQ(hits[i], 1);
        }
        pool_free(p);
    }
}

TEST(an_armed_fault_hits_the_nth_call_only)
{
    char path[] = "/tmp/headway-test-XXXXXX";
    int fd = mkstemp(path);
    CHECK_EQ(sys_fault_arm("write:2:ENOSPC"), 0);
    CHECK_EQ(sys_write_full(fd, "a", 1), 0);
    CHECK_EQ(sys_write_full(fd, "b", 1), -1);
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(sys_write_full(fd, "c", 1), 0);
    CHECK_EQ(sys_fault_arm("write:1:SHORT"), 0);
    CHECK_EQ(sys_write_full(fd, "defgh", 5), 0);
    CHECK_EQ(sys_fault_arm(NULL), 0);
    CHECK_EQ(sys_file_bytes(path), 7);
    CHECK_EQ(sys_fault_arm("write:x"), -1);
    close(fd);
    sys_unlink(path);
}

TEST(folders_are_made_listed_and_removed)
{
    char **names;
    CHECK_EQ(sys_mkdirs("tree-test/b/c"), 0);
    CHECK_EQ(sys_mkdirs("tree-test/a"), 0);
    CHECK_EQ(sys_list("tree-test", &names), 2);
    CHECK_STR(names[0], "a");
    CHECK_STR(names[1], "b");
    sys_free(names);
    CHECK_EQ(sys_remove_tree("tree-test"), 0);
    CHECK(!sys_exists("tree-test"));
}

TEST(where_files_can_be_made_is_known_without_making_any)
{
    CHECK(sys_may_write("may-write/b/c") && sys_may_write(".") && sys_may_write("/tmp/none"));
    CHECK(!sys_exists("may-write"));
    CHECK(!sys_may_write("/proc/self/comm") && errno == ENOTDIR);
    CHECK(!sys_may_write("/proc/self/comm/runs") && errno == ENOTDIR);
    CHECK_EQ(sys_mkdirs("may-write/b"), 0);
    CHECK_EQ(chmod("may-write/b", 0555), 0);
    if (geteuid() != 0) /* who may write everywhere */
        CHECK(!sys_may_write("may-write/b/c") && errno == EACCES);
    CHECK_EQ(sys_remove_tree("may-write"), 0);
}

struct sent {
    const char *path, *text;
};

static void *send_text(void *context)
{
    const struct sent *s = context;
    int fd = open(s->path, O_WRONLY);
    usleep(50000); /* is there before it writes */
    CHECK_EQ(sys_write_full(fd, s->text, (i64)strlen(s->text)), 0);
    close(fd);
    return NULL;
}

TEST(what_comes_through_a_pipe_is_read_like_a_file)
{
    static char text[200001];
    struct sent sent = { "pipe-test", text };
    pthread_t sender;
    i64 bytes;
    memset(text, 'a', sizeof text - 1);
    unlink("pipe-test");
    CHECK_EQ(mkfifo("pipe-test", 0600), 0);
    CHECK_EQ(pthread_create(&sender, NULL, send_text, &sent), 0);
    void *got = sys_map_file("pipe-test", &bytes);
    pthread_join(sender, NULL);
    CHECK(got != NULL);
    CHECK_EQ(bytes, (i64)sizeof text - 1);
    CHECK(memcmp(got, text, (size_t)bytes) == 0);
    sys_unmap(got, bytes);
    unlink("pipe-test");
}

static void *write_nothing(void *path)
{
    close(open(path, O_WRONLY));
    return NULL;
}

/* At once, not when the time for somebody to begin is over. */
TEST(a_pipe_whose_writer_leaves_without_a_word_is_empty)
{
    static char path[] = "empty-pipe-test";
    pthread_t writer;
    i64 bytes;
    unlink(path);
    CHECK_EQ(mkfifo(path, 0600), 0);
    CHECK_EQ(pthread_create(&writer, NULL, write_nothing, path), 0);
    void *got = sys_map_file(path, &bytes);
    CHECK(got != NULL);
    CHECK_EQ(bytes, 0);
    pthread_join(writer, NULL);
    sys_unmap(got, bytes);
    unlink(path);
}

/* A child that is interrupted while its file is not whole yet, and one whose file is. */
TEST(a_file_that_is_not_whole_goes_with_who_is_interrupted)
{
    static const char path[] = "not-whole.tmp";
    for (int whole = 0; whole < 2; whole++) {
        int code = 0;
        const int child = sys_fork();
        CHECK(child >= 0);
        if (child == 0) {
            sys_discard_on_signal(path);
            sys_close(sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
            if (whole)
                sys_discard_on_signal(NULL);
            raise(SIGINT);
            sys_exit_now(3);
        }
        CHECK(sys_wait_for(child, 10000000000, &code));
        CHECK_EQ(code, -SIGINT);
        CHECK_EQ(sys_exists(path), whole == 1);
    }
    CHECK_EQ(sys_unlink(path), 0);
}

TEST(a_cleared_arena_gives_zeroed_memory_from_the_same_piece)
{
    struct arena a;
    arena_init(&a);
    for (int i = 0; i < 5; i++)
        memset(arena_alloc(&a, 50000), 0xff, 50000);
    arena_clear(&a);
    CHECK_EQ(a.used_bytes, 0);
    char *first = arena_alloc(&a, 250000);
    for (int i = 0; i < 250000; i++)
        CHECK_EQ(first[i], 0);
    memset(first, 0xff, 250000);
    arena_clear(&a);
    CHECK(arena_alloc(&a, 250000) == (void *)first && first[9] == 0); /* nothing was given back */
    arena_fini(&a);
    arena_clear(&a); /* of nothing */
    CHECK(a.top == NULL);
}

struct sorted {
    int key, place;
};

static int by_sorted_key(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

TEST(runs_are_merged_and_equal_elements_stay_in_order)
{
    struct arena a;
    arena_init(&a);
    for (int n = 0; n < 70; n++)
        for (int runs = 1; runs < 9; runs++) {
            struct sorted x[70];
            for (int i = 0; i < n; i++)
                x[i] = (struct sorted){ (i * 7 / (runs * runs)) % (3 * runs), i };
            sort_runs(x, n, sizeof x[0], by_sorted_key, &a);
            i64 sum = 0;
            for (int i = 0; i < n; i++) {
                sum += x[i].place;
                CHECK(i == 0 || x[i - 1].key < x[i].key ||
                      (x[i - 1].key == x[i].key && x[i - 1].place < x[i].place));
            }
            CHECK_EQ(sum, n * (n - 1) / 2);
        }
    arena_fini(&a);
}

TEST_MAIN(ONE(errors_keep_context_in_front), ONE(arena_memory_is_zeroed_and_aligned),
          ONE(hashes_match_published_values), ONE(philox_matches_known_answers),
          ONE(quantiles_are_those_of_the_normal_distribution),
          ONE(permutation_visits_every_index_once), ONE(pool_runs_every_part_exactly_once),
          ONE(an_armed_fault_hits_the_nth_call_only),
          ONE(folders_are_made_listed_and_removed),
          ONE(where_files_can_be_made_is_known_without_making_any),
          ONE(what_comes_through_a_pipe_is_read_like_a_file),
          ONE(a_pipe_whose_writer_leaves_without_a_word_is_empty),
          ONE(a_file_that_is_not_whole_goes_with_who_is_interrupted),
          ONE(a_cleared_arena_gives_zeroed_memory_from_the_same_piece),
          ONE(runs_are_merged_and_equal_elements_stay_in_order))
