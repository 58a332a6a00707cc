/* Stands in for libFuzzer where there is none: runs a fuzz target on every file of the
 * given folders, and on a fixed number of random mutations of each. Any compiler, any
 * sanitizer, the same inputs every time. `./run fuzz` uses libFuzzer itself. */
#include "base/rng.h"
#include "base/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

enum { MUTANTS = 2000, MAX_EDITS = 4 };

/* Each input lies in a block of its own size, so that the address sanitizer sees overruns. */
static void run_copy(const u8 *data, i64 bytes)
{
    u8 *copy = malloc((size_t)bytes + !bytes);
    if (bytes > 0)
        memcpy(copy, data, (size_t)bytes);
    LLVMFuzzerTestOneInput(copy, (size_t)bytes);
    free(copy);
}

static u32 below(struct rng *r, u64 *counter, u32 n)
{
    u32 words[4];
    rng_block(r, (*counter)++, words);
    return n ? words[0] % n : 0;
}

/* Flips, sets, inserts, deletes or truncates; the buffer has room for one more byte. */
static i64 mutate(u8 *p, i64 bytes, struct rng *r, u64 *counter)
{
    i64 at = below(r, counter, (u32)bytes);
    u32 kind = below(r, counter, 6), byte = below(r, counter, 256);
    if (bytes == 0)
        return 0;
    if (kind == 0)
        p[at] ^= (u8)(1u << (byte & 7));
    else if (kind == 1)
        p[at] = (u8)byte;
    else if (kind == 2)
        p[at] = (u8)"0129{}[]\",:\\-.e \xff"[byte % 17];
    else if (kind == 3)
        memmove(p + at + 1, p + at, (size_t)(bytes - at)), bytes++;
    else if (kind == 4)
        memmove(p + at, p + at + 1, (size_t)(bytes - at - 1)), bytes--;
    else if (byte < 16)
        bytes = at;
    return bytes;
}

static int replay_file(const char *path, u64 key)
{
    i64 bytes;
    u64 counter = 0;
    struct rng r = { key, 0x66757a7a };
    u8 *data = sys_map_file(path, &bytes);
    if (!data)
        return -1;
    run_copy(data, bytes);
    u8 *work = malloc((size_t)bytes + MAX_EDITS);
    for (int m = 0; m < MUTANTS; m++) {
        i64 n = bytes;
        memcpy(work, data, (size_t)bytes);
        for (u32 edits = 1 + below(&r, &counter, MAX_EDITS); edits > 0; edits--)
            n = mutate(work, n, &r, &counter);
        run_copy(work, n);
    }
    free(work);
    sys_unmap(data, bytes);
    return 0;
}

int main(int argc, char **argv)
{
    for (int a = 1; a < argc; a++) {
        char **names;
        int n = sys_list(argv[a], &names);
        if (n <= 0) {
            fprintf(stderr, "no seeds in %s\n", argv[a]);
            return 1;
        }
        for (int i = 0; i < n; i++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[a], names[i]);
            if (replay_file(path, (u64)i) != 0) {
                perror(path);
                return 1;
            }
        }
        printf("%s: %d seeds, %d mutants of each\n", argv[a], n, MUTANTS);
        sys_free(names);
    }
    return 0;
}
