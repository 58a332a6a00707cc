/* tests/data/make_data.h - small data sets whose every token is predictable. */
#ifndef HEADWAY_TEST_MAKE_DATA_H
#define HEADWAY_TEST_MAKE_DATA_H

#include "test.h"

#include "base/hash.h"
#include "base/rng.h"
#include "base/sys.h"
#include "data/shard_writer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { MADE_VOCAB = 1000, MADE_SEPARATOR = 0 };

struct made {
    const char *folder;
    const char *split;   /* "train" when NULL */
    i64 documents;
    i64 longest;         /* tokens of a document: 1 .. longest */
    i64 shard_tokens;
    u64 seed;
    bool masked;         /* every third document counts from its middle on only */
};

static inline i64 made_length(const struct made *m, i64 document)
{
    struct rng key = { m->seed, 1 };
    return 1 + (i64)(rng_u64(&key, (u64)document) % (u64)m->longest);
}

/* Token i of a document: the separator first. */
static inline u32 made_token(const struct made *m, i64 document, i64 i)
{
    struct rng key = { m->seed, 2 };
    return i == 0 ? MADE_SEPARATOR
                  : 1 + (u32)(rng_u64(&key, (u64)(document * 100000 + i)) %
                              (MADE_VOCAB - 1));
}

static inline bool made_counts(const struct made *m, i64 document, i64 i)
{
    return !m->masked || document % 3 || i >= made_length(m, document) / 2;
}

static inline void make_data(const struct made *m)
{
    enum { LONGEST = 20000 };
    static u32 ids[LONGEST];
    struct shard like = { .token_bytes = 2, .tokenizer_hash = 77,
                          .separator = MADE_SEPARATOR, .vocab = MADE_VOCAB };
    struct shard_writer w;
    struct arena a;
    arena_init(&a);
    CHECK(sys_mkdirs(m->folder) == 0 && m->longest <= LONGEST);
    CHECK_OK(shard_writer_open(&w, m->folder, m->split ? m->split : "train", &like,
                               m->shard_tokens, NULL, &a));
    for (i64 d = 0; d < m->documents; d++) {
        i64 n = made_length(m, d);
        for (i64 i = 0; i < n; i++)
            ids[i] = made_token(m, d, i) | (made_counts(m, d, i) ? 0 : SHARD_NO_LOSS);
        CHECK_OK(shard_writer_add(&w, ids, n, 3 * (n - 1), hash64(&d, 8, m->seed)));
    }
    CHECK_OK(shard_writer_finish(&w));
    CHECK_OK(shard_writer_clean(m->folder));
    shard_writer_close(&w);
    arena_fini(&a);
}

/* A fresh folder, in memory where that is possible: tests of crashes flush to disk a lot. */
static inline const char *fresh_folder(const char *name)
{
    static char path[8][256];
    static int next;
    char *at = path[next++ % 8];
    snprintf(at, 256, "%sheadway-test-%d-%s", sys_exists("/dev/shm/") ? "/dev/shm/" : "",
             (int)getpid(), name);
    if (sys_exists(at))
        CHECK(sys_remove_tree(at) == 0);
    CHECK(sys_mkdirs(at) == 0);
    return at;
}

static inline void write_file(const char *path, const void *data, i64 bytes)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0 && sys_write_full(fd, data, bytes) == 0);
    sys_close(fd);
}

static inline void write_text(const char *path, const char *text)
{
    write_file(path, text, (i64)strlen(text));
}

#endif
