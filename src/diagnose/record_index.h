/* diagnose/record_index.h - what record_scan.c has found in the files, record.c puts in order, and
 * record_step.c reads steps by.
 *
 * Nobody else includes this. An index entry for each chunk of spans, ordered by step, part,
 * rank and time; where samples lie; the files, of which only so many are open. */
#ifndef HEADWAY_RECORD_INDEX_H
#define HEADWAY_RECORD_INDEX_H

#include "base/arena.h"
#include "diagnose/record.h"

/* Where one chunk of spans lies, and what its head says. There is one for each rank and step, or
 * more: every byte of it counts. */
struct entry {
    u64 begin_ns, end_ns;
    i64 at; /* of the payload */
    u32 step, n, rank, file, checksum;
    u16 part;
    u8 table; /* MOST_TABLES: none that there is */
    u8 flags; /* enum record_flag, and KEPT_COPY: newest before kept */
};

struct sampled {
    i64 at;
    u32 step, rank, file, checksum;
    u16 part, bytes;
};

enum { MOST_TABLES = 255, MOST_PARTS = 65535, KEPT_COPY = 128 };

_Static_assert(sizeof(struct entry) == 48 && sizeof(struct sampled) == 32, "without holes");

static inline struct record_place record_place_of(const struct entry *e)
{
    const u64 bytes = sizeof(struct record_spans) + (u64)e->n * sizeof(struct span);
    return (struct record_place){ { RECORD_SPANS, e->checksum, bytes }, e->at };
}

struct file {
    const char *path;
    struct record_reader reader;
    u64 used; /* when */
    int rank; /* by its name */
    bool kept;
    bool headless; /* no HEAD in it is sound, though one is there */
};

/* One rank in one part: what HEAD says and more. */
struct member {
    struct record_head head;
    struct record_clock *clocks;
    i64 n_clocks, cap_clocks;
    struct record_table **tables;
    i64 cap_tables;
};

struct known_table {
    u32 checksum;
    u64 bytes;
    struct record_table *table;
};

/* A table that could not be read: of another rank's, perhaps, or of another file, it can. */
struct lost_table {
    struct member *member;
    i64 index;
    u32 checksum;
    u64 bytes;
};

struct record_inside {
    struct arena arena;
    struct file *files;
    i64 n_files;
    int n_open;
    u64 ticks;
    struct entry *entries;
    i64 n_entries, cap_entries;
    struct sampled *samples;
    i64 n_samples, cap_samples;
    struct known_table *known;
    i64 n_known, cap_known;
    struct lost_table *lost;
    i64 n_lost, cap_lost;
    i64 *first; /* [n_steps + 1]: of each step, in entries */
    i64 *offset_ns; /* [n_parts]: from the leading rank's clock to the record's */
    i64 cap_parts, cap_damage, cap_events;
    bool bad_head;
    bool shares; /* all but the files is another record's */
};

#define COMPARE(x, y, field)                                                             \
    if (((x)->field) != ((y)->field))                                                    \
        return ((x)->field) < ((y)->field) ? -1 : 1

/* One more place behind n, zeroed; arrays double and old ones stay in the arena. */
#define GROW(a, list, n, capacity)                                                       \
    do {                                                                                 \
        if ((n) == (capacity)) {                                                         \
            (capacity) = i64_max(16, 2 * (capacity));                                    \
            void *grown_ = arena_alloc((a), (capacity) * (i64)sizeof *(list));           \
            if ((n) > 0)                                                                 \
                memcpy(grown_, (list), (size_t)(n) * sizeof *(list));                    \
            (list) = grown_;                                                             \
        }                                                                                \
    } while (0)

/* All chunks of all files into r, in no order yet; ERR_CONFIG and ERR_FORMAT as record_open. */
int record_scan(struct record *r, const char *folder);
int record_by_sample(const void *a, const void *b);
/* Many ranks have more files than may be open at once. */
int record_use_file(struct record_inside *x, struct file *f);
/* From a rank's clock to the record's. */
i64 record_common_ns(const struct record *r, const struct record_head *h, u64 ns);
/* How many of its clocks were measured up to then; a run of days has thousands. */
i64 record_clocks_until(const struct member *m, u64 ns);

/* From the rank's clock to the leading rank's: between two measurements in a straight line.
 * *near is a guess at how many clocks were measured until then, and becomes their number. */
static inline i64 record_shift_near(const struct member *m, u64 ns, i64 *near)
{
    const i64 n = m->n_clocks;
    if (n == 0)
        return 0;
    if ((*near > 0 && m->clocks[*near - 1].at_ns > ns) ||
        (*near < n && m->clocks[*near].at_ns <= ns))
        *near = record_clocks_until(m, ns);
    const i64 i = *near;
    if (i == 0 || i == n)
        return m->clocks[i == 0 ? 0 : n - 1].shift_ns;
    const struct record_clock *a = &m->clocks[i - 1], *b = &m->clocks[i];
    double share = (double)(ns - a->at_ns) / (double)(b->at_ns - a->at_ns);
    return a->shift_ns + (i64)(share * (double)(b->shift_ns - a->shift_ns));
}

/* record_common_ns, of times that lie near each other: *near, 0 at first, is where the last one
 * lay. */
static inline i64 record_near_ns(const struct record *r, const struct record_head *h, u64 ns,
                                 i64 *near)
{
    const i64 shift = record_shift_near((const struct member *)h, ns, near);
    return (i64)ns + shift + r->inside->offset_ns[h->part];
}

void record_add_damage(struct record *r, const char *sentence);
#define DAMAGE(r, ...) record_add_damage((r), arena_printf(&(r)->inside->arena, __VA_ARGS__))
/* Adds the damage that steps are, in which ranks' clocks are apart. */
void record_tell_apart(struct record *r);

#endif
