/* many_ranks RUN RANKS STEPS: makes of a recorded run of one rank one of RANKS ranks: each has the
 * first rank's last steps, its spans up to a tenth shorter, by rank. For pages of large runs. */
#include "base/sys.h"
#include "base/text.h"
#include "trace/record.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct chunk {
    struct record_place place;
    u8 *payload;
};

static int fail(const char *what)
{
    fprintf(stderr, "many_ranks: %s\n", what);
    return 1;
}

/* The rank, among so many that share the batch. */
static void edit_head(const char *json, i64 bytes, int rank, int ranks, struct text *out)
{
    char written[3][64];
    static const char *const before[] = { "\"rank\":0,", "\"ranks\":1,", "\"dp\":[0,1]" };
    const char *at = json, *end = json + bytes;
    snprintf(written[0], sizeof written[0], "\"rank\":%d,", rank);
    snprintf(written[1], sizeof written[1], "\"ranks\":%d,", ranks);
    snprintf(written[2], sizeof written[2], "\"dp\":[%d,%d]", rank, ranks);
    for (i64 i = 0; i < COUNT_OF(before); i++) {
        const char *found = memmem(at, (size_t)(end - at), before[i], strlen(before[i]));
        if (!found)
            continue;
        text_add_bytes(out, at, found - at);
        text_add(out, written[i]);
        at = found + strlen(before[i]);
    }
    text_add_bytes(out, at, end - at);
}

static void put_chunk(struct text *out, u32 kind, const void *payload, i64 bytes)
{
    struct record_chunk c = { kind, record_checksum(kind, payload, bytes), (u64)bytes };
    text_add_bytes(out, (const char *)&c, sizeof c);
    text_add_bytes(out, payload, bytes);
    while (out->length % 8)
        text_add_bytes(out, "", 1);
}

/* Everything a little shorter, from the chunk's begin on. */
static void shorten(u8 *payload, i64 bytes, int rank)
{
    double factor = 1 - 0.1 * (rank * 619 % 1000) / 1000;
    struct record_spans *head = (struct record_spans *)payload;
    struct span *spans = (struct span *)(payload + sizeof *head);
    for (i64 i = 0; i < (bytes - (i64)sizeof *head) / (i64)sizeof *spans; i++) {
        struct span *s = &spans[i];
        if (s->begin_ns < head->begin_ns)
            continue;
        s->end_ns = head->begin_ns + (u64)(factor * (double)(s->end_ns - head->begin_ns));
        s->begin_ns = head->begin_ns + (u64)(factor * (double)(s->begin_ns - head->begin_ns));
    }
}

static int write_rank(const char *folder, const struct chunk *chunks, i64 n, u32 first_step,
                      int rank, int ranks)
{
    char path[2200];
    struct text out = { 0 };
    for (i64 i = 0; i < n; i++) {
        const struct record_chunk *c = &chunks[i].place.chunk;
        struct text head = { 0 };
        u8 *copy = malloc(c->bytes);
        memcpy(copy, chunks[i].payload, c->bytes);
        if (c->kind == RECORD_HEAD) {
            edit_head((char *)copy, (i64)c->bytes, rank, ranks, &head);
            put_chunk(&out, c->kind, head.data, head.length);
        } else if (c->kind != RECORD_SPANS) {
            put_chunk(&out, c->kind, copy, (i64)c->bytes);
        } else if (((struct record_spans *)copy)->step >= first_step) {
            shorten(copy, (i64)c->bytes, rank);
            put_chunk(&out, c->kind, copy, (i64)c->bytes);
        }
        text_fini(&head);
        free(copy);
    }
    snprintf(path, sizeof path, "%s/trace/rank-%d.spans", folder, rank);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int rc = fd < 0 || sys_write_full(fd, out.data, out.length) != 0;
    if (fd >= 0)
        sys_close(fd);
    text_fini(&out);
    return rc;
}

int main(int argc, char **argv)
{
    enum { MOST = 100000 };
    static struct chunk chunks[MOST];
    static const char *const others[] = { "old", "kept", "kept.old" };
    struct record_reader reader;
    char path[2200];
    i64 n = 0;
    u32 last = 0;
    if (argc != 4)
        return fail("RUN RANKS STEPS");
    snprintf(path, sizeof path, "%s/trace/rank-0.spans", argv[1]);
    if (record_reader_open(&reader, path) < 0)
        return fail("no record of rank 0");
    for (; n < MOST && record_reader_next(&reader, &chunks[n].place) == 1; n++) {
        chunks[n].payload = calloc(1, chunks[n].place.chunk.bytes + 64);
        if (record_reader_payload(&reader, &chunks[n].place, chunks[n].payload) < 0)
            return fail("a chunk is damaged");
        if (chunks[n].place.chunk.kind == RECORD_SPANS)
            last = ((struct record_spans *)chunks[n].payload)->step;
    }
    record_reader_close(&reader);
    for (i64 i = 0; i < COUNT_OF(others); i++) {
        snprintf(path, sizeof path, "%s/trace/rank-0.%s.spans", argv[1], others[i]);
        sys_unlink(path);
    }
    int ranks = atoi(argv[2]);
    u32 steps = (u32)atoi(argv[3]), first = last + 1 > steps ? last + 1 - steps : 0;
    for (int r = ranks - 1; r >= 0; r--)
        if (write_rank(argv[1], chunks, n, first, r, ranks))
            return fail("cannot write");
    for (i64 i = 0; i < n; i++)
        free(chunks[i].payload);
    return 0;
}
