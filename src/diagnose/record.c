#include "diagnose/record.h"

#include "base/err.h"
#include "base/sort.h"
#include "base/sys.h"
#include "base/text.h"
#include "diagnose/record_parse.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPEN = 128 };

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

static struct record_place place_of(const struct entry *e)
{
    const u64 bytes = sizeof(struct record_spans) + (u64)e->n * sizeof(struct span);
    return (struct record_place){ { RECORD_SPANS, e->checksum, bytes }, e->at };
}

struct clock_mark {
    struct record_clock clock;
};

struct file {
    const char *path;
    struct record_reader reader;
    u64 used; /* when */
    int rank; /* by its name */
    bool kept;
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
    i64 *first; /* [n_steps + 1]: of each step, in entries */
    i64 *offset_ns; /* [n_parts]: from the leading rank's clock to the record's */
    i64 cap_parts, cap_damage, cap_events;
    bool bad_head;
    bool shares; /* all but the files is another record's */
};

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

/* The same of what there is most of: the list with one more place behind n, in the same memory where the
 * system can move pages. NULL: no memory; the list is as it was. */
static void *grown(void *list, i64 n, i64 *capacity, i64 bytes)
{
    if (n < *capacity)
        return list;
    i64 more = i64_max(1024, 2 * *capacity);
    void *out = sys_realloc(list, more * bytes);
    if (!out) {
        err_set(ERR_LIMIT, "no memory for the index of a record: %lld chunks", (long long)n);
        return NULL;
    }
    *capacity = more;
    return out;
}

static void add_damage(struct record *r, const char *sentence)
{
    struct record_inside *x = r->inside;
    GROW(&x->arena, r->damage, r->n_damage, x->cap_damage);
    r->damage[r->n_damage++] = arena_strdup(&x->arena, sentence);
}

#define DAMAGE(r, ...) add_damage((r), arena_printf(&(r)->inside->arena, __VA_ARGS__))

/* --- files -------------------------------------------------------------------------- */

static void close_oldest(struct record_inside *x)
{
    struct file *oldest = NULL;
    for (i64 i = 0; i < x->n_files; i++) {
        struct file *f = &x->files[i];
        if (f->reader.fd >= 0 && (!oldest || f->used < oldest->used))
            oldest = f;
    }
    if (oldest) {
        record_reader_close(&oldest->reader);
        x->n_open--;
    }
}

/* Many ranks have more files than may be open at once. */
static int use_file(struct record_inside *x, struct file *f)
{
    f->used = ++x->ticks;
    if (f->reader.fd >= 0)
        return OK;
    if (x->n_open >= MOST_OPEN)
        close_oldest(x);
    struct record_reader was = f->reader;
    TRY(record_reader_open(&f->reader, f->path));
    f->reader.at = was.at;
    f->reader.bytes = was.bytes;
    f->reader.damaged = was.damaged;
    x->n_open++;
    return OK;
}

/* "rank-12.kept.old.spans" */
static bool parse_name(const char *name, struct file *out)
{
    int rank, chars = 0;
    if (sscanf(name, "rank-%d%n", &rank, &chars) != 1 || rank < 0)
        return false;
    const char *rest = name + chars;
    const bool kept = strncmp(rest, ".kept", 5) == 0;
    rest += kept ? 5 : 0;
    *out = (struct file){ .rank = rank, .kept = kept, .reader.fd = -1 };
    return strcmp(rest, ".spans") == 0 || strcmp(rest, ".old.spans") == 0;
}

/* By rank; "old" sorts before "spans", and kept ones are told by their flag. */
static int find_files(struct record *r, const char *folder)
{
    struct record_inside *x = r->inside;
    char **names;
    const char *inner = arena_printf(&x->arena, "%s/trace", folder);
    int n = sys_list(inner, &names);
    if (n < 0) {
        inner = folder;
        n = sys_list(inner, &names);
    }
    if (n < 0)
        return err_set(ERR_CONFIG, "open %s: %s", folder, strerror(errno));
    x->files = ARENA_ARRAY(&x->arena, struct file, n);
    for (int i = 0; i < n; i++)
        if (parse_name(names[i], &x->files[x->n_files]))
            x->files[x->n_files++].path = arena_printf(&x->arena, "%s/%s", inner, names[i]);
    if (n >= 0)
        sys_free(names);
    if (x->n_files == 0)
        return err_set(ERR_CONFIG, "%s has no recorded spans (rank-0.spans): was trace.disk or "
                       "trace.level off?", inner);
    return OK;
}

/* --- chunks ------------------------------------------------------------------------- */

static struct record_part *part_with(struct record *r, i64 id, int ranks)
{
    struct record_inside *x = r->inside;
    for (int i = 0; i < r->n_parts; i++)
        if (r->parts[i].id == id)
            return r->parts[i].ranks == ranks ? &r->parts[i] : NULL;
    if (r->n_parts == MOST_PARTS)
        return NULL;
    GROW(&x->arena, r->parts, r->n_parts, x->cap_parts);
    struct record_part *p = &r->parts[r->n_parts++];
    *p = (struct record_part){ .id = id, .ranks = ranks, .last_step = -1 };
    p->heads = ARENA_ARRAY(&x->arena, struct record_head *, ranks);
    return p;
}

/* What the chunks of a file are about, as reading it goes on. */
struct context {
    struct record *r;
    struct file *file;
    i64 index;             /* of the file */
    struct member *member; /* NULL before a HEAD */
    i64 tables;            /* seen since */
    char *text;            /* of JSON chunks */
    i64 capacity;
    u64 last_end;          /* of the spans before */
};

static int read_text(struct context *c, const struct record_place *p)
{
    i64 bytes = (i64)p->chunk.bytes;
    if (bytes > c->capacity) {
        sys_free(c->text);
        c->capacity = bytes;
        c->text = sys_alloc(bytes, 16);
    }
    if (!c->text)
        return err_set(ERR_LIMIT, "no memory for a chunk of %lld bytes", (long long)bytes);
    return record_reader_payload(&c->file->reader, p, c->text);
}

static int see_head(struct context *c, const struct record_place *p)
{
    struct record *r = c->r;
    struct arena *a = &r->inside->arena;
    struct record_head head;
    i64 id;
    c->member = NULL;
    c->tables = 0;
    c->last_end = 0;
    TRY(read_text(c, p));
    TRY(record_parse_head(&head, &id, c->text, (i64)p->chunk.bytes, c->file->path, a));
    struct record_part *part = head.rank == c->file->rank ? part_with(r, id, head.ranks) : NULL;
    if (!part)
        return err_set(ERR_FORMAT, "%s: its head is of another rank or run", c->file->path);
    if (!part->heads[head.rank]) {
        struct member *m = ARENA_NEW(a, struct member);
        m->head = head;
        m->head.part = (int)(part - r->parts);
        part->heads[head.rank] = &m->head;
    }
    c->member = (struct member *)part->heads[head.rank];
    return OK;
}

/* Ranks that run the same program share what was made of its table. */
static int see_table(struct context *c, const struct record_place *p)
{
    struct record_inside *x = c->r->inside;
    struct member *m = c->member;
    struct record_table *table = NULL;
    if (!m || c->tables++ < m->head.n_tables)
        return OK;
    for (i64 i = 0; i < x->n_known; i++)
        if (x->known[i].checksum == p->chunk.checksum && x->known[i].bytes == p->chunk.bytes)
            table = x->known[i].table;
    if (!table) {
        TRY(read_text(c, p));
        table = ARENA_NEW(&x->arena, struct record_table);
        TRY(record_parse_table(table, c->text, (i64)p->chunk.bytes, c->file->path, &x->arena));
        GROW(&x->arena, x->known, x->n_known, x->cap_known);
        x->known[x->n_known++] = (struct known_table){ p->chunk.checksum, p->chunk.bytes, table };
    }
    i64 n = m->head.n_tables;
    GROW(&x->arena, m->tables, n, m->cap_tables);
    m->tables[n] = table;
    m->head.tables = m->tables;
    m->head.n_tables++;
    return OK;
}

static int see_spans(struct context *c, const struct record_place *p)
{
    struct record_inside *x = c->r->inside;
    struct record_spans head;
    if (!c->member)
        return OK;
    TRY(record_reader_peek(&c->file->reader, p, &head, (i64)sizeof head));
    if (p->chunk.bytes != sizeof head + (u64)head.n * sizeof(struct span) ||
        head.end_ns < head.begin_ns || head.end_ns > INT64_MAX)
        return err_set(ERR_FORMAT, "%s: the spans at byte %lld are damaged", c->file->path,
                       (long long)p->at);
    if (head.end_ns < c->last_end && !c->file->kept)
        DAMAGE(c->r, "the clock of rank %d went back by %.3f s before step %u", c->file->rank,
               1e-9 * (double)(c->last_end - head.end_ns), head.step + 1);
    c->last_end = head.end_ns;
    struct entry *entries = grown(x->entries, x->n_entries, &x->cap_entries,
                                  (i64)sizeof *x->entries);
    if (!entries)
        return ERR_LIMIT;
    x->entries = entries;
    const u32 flags = (head.flags & (RECORD_FIRST | RECORD_LOST)) | (c->file->kept ? KEPT_COPY : 0);
    x->entries[x->n_entries++] = (struct entry){
        .begin_ns = head.begin_ns, .end_ns = head.end_ns, .at = p->at, .step = head.step,
        .n = head.n, .rank = (u32)c->file->rank, .file = (u32)c->index,
        .checksum = p->chunk.checksum, .part = (u16)c->member->head.part,
        .table = (u8)(head.table < MOST_TABLES ? head.table : MOST_TABLES), .flags = (u8)flags };
    return OK;
}

static int see_clock(struct context *c, const struct record_place *p)
{
    struct member *m = c->member;
    struct record_clock clock;
    if (!m || p->chunk.bytes != sizeof clock)
        return OK;
    TRY(record_reader_payload(&c->file->reader, p, &clock));
    if (llabs(clock.shift_ns) > INT64_MAX / 4 || clock.at_ns > INT64_MAX / 4)
        return err_set(ERR_FORMAT, "%s: a clock's shift is impossible", c->file->path);
    for (i64 i = 0; i < m->n_clocks; i++)
        if (m->clocks[i].at_ns == clock.at_ns)
            return OK; /* said in the kept file too */
    GROW(&c->r->inside->arena, m->clocks, m->n_clocks, m->cap_clocks);
    m->clocks[m->n_clocks++] = clock;
    return OK;
}

static int see_sample(struct context *c, const struct record_place *p)
{
    struct record_inside *x = c->r->inside;
    struct sample head;
    if (!c->member || p->chunk.bytes > UINT16_MAX)
        return OK;
    TRY(record_reader_peek(&c->file->reader, p, &head, (i64)offsetof(struct sample, run_ns)));
    struct sampled *samples = grown(x->samples, x->n_samples, &x->cap_samples,
                                    (i64)sizeof *x->samples);
    if (!samples)
        return ERR_LIMIT;
    x->samples = samples;
    x->samples[x->n_samples++] = (struct sampled){
        .at = p->at, .step = head.step, .rank = (u32)c->file->rank, .file = (u32)c->index,
        .checksum = p->chunk.checksum, .part = (u16)c->member->head.part,
        .bytes = (u16)p->chunk.bytes };
    return OK;
}

static int see_event(struct context *c, const struct record_place *p)
{
    struct record *r = c->r;
    struct record_event event;
    TRY(read_text(c, p));
    TRY(record_parse_event(&event, c->text, (i64)p->chunk.bytes, c->file->path,
                           &r->inside->arena));
    for (i64 i = 0; i < r->n_events; i++)
        if (r->events[i].step == event.step && r->events[i].rank == event.rank &&
            strcmp(r->events[i].text, event.text) == 0)
            return OK;
    GROW(&r->inside->arena, r->events, r->n_events, r->inside->cap_events);
    r->events[r->n_events++] = event;
    return OK;
}

static int see_chunk(struct context *c, const struct record_place *p)
{
    switch (p->chunk.kind) {
    case RECORD_HEAD: return see_head(c, p);
    case RECORD_TABLE: return see_table(c, p);
    case RECORD_SPANS: return see_spans(c, p);
    case RECORD_CLOCK: return see_clock(c, p);
    case RECORD_SAMPLE: return see_sample(c, p);
    default: return see_event(c, p);
    }
}

/* All of one file; what is damaged is said, once per file for each kind of damage that repeats. */
static int scan_file(struct record *r, i64 index)
{
    struct record_inside *x = r->inside;
    struct context c = { .r = r, .file = &x->files[index], .index = index };
    struct record_place place;
    i64 bad = 0, chunks = 0;
    TRY(use_file(x, c.file));
    for (; record_reader_next(&c.file->reader, &place) == 1; chunks++) {
        int rc = see_chunk(&c, &place);
        if (rc == ERR_LIMIT) {
            sys_free(c.text);
            return rc;
        }
        if (rc < 0 && bad++ == 0)
            DAMAGE(r, "%s", err_message());
    }
    sys_free(c.text);
    if (bad > 1)
        DAMAGE(r, "%s: %lld more chunks are damaged", c.file->path, (long long)bad - 1);
    if (c.file->reader.damaged > 0)
        DAMAGE(r, "%s: %lld bytes in its midst are damaged", c.file->path,
               (long long)c.file->reader.damaged);
    if (chunks == 0)
        DAMAGE(r, "%s holds no chunk of a record", c.file->path);
    else if (c.file->reader.at < c.file->reader.bytes)
        DAMAGE(r, "%s ends within a chunk: its last %lld bytes are not whole", c.file->path,
               (long long)(c.file->reader.bytes - c.file->reader.at));
    return OK;
}

/* --- the index ---------------------------------------------------------------------- */

#define COMPARE(x, y, field)                                                             \
    if (((x)->field) != ((y)->field))                                                    \
        return ((x)->field) < ((y)->field) ? -1 : 1

static int by_step(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    COMPARE(x, y, step);
    COMPARE(x, y, part);
    COMPARE(x, y, rank);
    COMPARE(x, y, begin_ns);
    COMPARE(x, y, flags & KEPT_COPY);
    COMPARE(x, y, file);
    COMPARE(x, y, at);
    return 0;
}

static int by_sample(const void *a, const void *b)
{
    const struct sampled *x = a, *y = b;
    COMPARE(x, y, step);
    COMPARE(x, y, part);
    COMPARE(x, y, rank);
    return 0;
}

static bool same_take(const struct entry *x, const struct entry *y)
{
    return x->step == y->step && x->part == y->part && x->rank == y->rank;
}

/* Kept copies of what the newest files still have are dropped; then, of each rank in each part,
 * all but the last time that it took the step. What was taken again is counted as lost. */
static void drop_doubles(struct record *r)
{
    struct record_inside *x = r->inside;
    i64 n = 0;
    for (i64 i = 0; i < x->n_entries; i++) {
        struct entry *e = &x->entries[i], *before = n > 0 ? &x->entries[n - 1] : NULL;
        bool same = before && same_take(before, e);
        if (same && before->begin_ns == e->begin_ns &&
            (before->flags & KEPT_COPY) < (e->flags & KEPT_COPY))
            continue;
        if (same && (e->flags & RECORD_FIRST)) {
            while (n > 0 && same_take(&x->entries[n - 1], e)) {
                const struct entry *gone = &x->entries[--n];
                if (e->rank == 0)
                    r->parts[e->part].lost_ns += (i64)(gone->end_ns - gone->begin_ns);
            }
        }
        x->entries[n++] = *e;
    }
    x->n_entries = n;
}

/* The same step in an earlier part was taken again, too. */
static void drop_earlier_parts(struct record *r)
{
    struct record_inside *x = r->inside;
    i64 n = 0;
    for (i64 i = 0, j; i < x->n_entries; i = j) {
        u32 newest = 0;
        for (j = i; j < x->n_entries && x->entries[j].step == x->entries[i].step; j++)
            newest = x->entries[j].part > newest ? x->entries[j].part : newest;
        for (i64 k = i; k < j; k++) {
            const struct entry *e = &x->entries[k];
            if (e->part == newest)
                x->entries[n++] = *e;
            else if (e->rank == 0)
                r->parts[e->part].lost_ns += (i64)(e->end_ns - e->begin_ns);
        }
    }
    x->n_entries = n;
}

static void list_steps(struct record *r)
{
    struct record_inside *x = r->inside;
    i64 n = 0;
    for (i64 i = 0; i < x->n_entries; i++)
        n += i == 0 || x->entries[i].step != x->entries[i - 1].step;
    r->steps = ARENA_ARRAY(&x->arena, i64, n);
    x->first = ARENA_ARRAY(&x->arena, i64, n + 1);
    for (i64 i = 0; i < x->n_entries; i++) {
        const struct entry *e = &x->entries[i];
        struct record_part *p = &r->parts[e->part];
        if (r->n_steps == 0 || r->steps[r->n_steps - 1] != e->step) {
            x->first[r->n_steps] = i;
            r->steps[r->n_steps++] = e->step;
        }
        if (p->last_step < p->first_step)
            p->first_step = e->step;
        p->last_step = e->step;
    }
    x->first[r->n_steps] = x->n_entries;
}

/* --- clocks ------------------------------------------------------------------------- */

static int by_part(const void *a, const void *b)
{
    const struct record_part *x = a, *y = b;
    COMPARE(x, y, id);
    return 0;
}

static int by_clock(const void *a, const void *b)
{
    const struct record_clock *x = a, *y = b;
    COMPARE(x, y, at_ns);
    return 0;
}

/* From the rank's clock to the leading rank's: between two measurements in a straight line. */
static i64 shift_at(const struct member *m, u64 ns)
{
    i64 n = m->n_clocks, i = 0;
    if (n == 0)
        return 0;
    while (i < n && m->clocks[i].at_ns <= ns)
        i++;
    if (i == 0 || i == n)
        return m->clocks[i == 0 ? 0 : n - 1].shift_ns;
    const struct record_clock *a = &m->clocks[i - 1], *b = &m->clocks[i];
    double share = (double)(ns - a->at_ns) / (double)(b->at_ns - a->at_ns);
    return a->shift_ns + (i64)(share * (double)(b->shift_ns - a->shift_ns));
}

bool record_sleeps(const struct record_head *h)
{
    return strcmp(h->backend, "none") == 0;
}

static struct record_head *first_head(const struct record_part *p)
{
    int i = 0;
    while (i < p->ranks && !p->heads[i])
        i++;
    return i < p->ranks ? p->heads[i] : NULL;
}

static i64 common_ns(const struct record *r, const struct record_head *h, u64 ns)
{
    const struct member *m = (const struct member *)h;
    return (i64)ns + shift_at(m, ns) + r->inside->offset_ns[h->part];
}

/* Parts in the order of time, everything that names them by index put right, and where each begins
 * on the record's clock. */
static void order_parts(struct record *r)
{
    struct record_inside *x = r->inside;
    i64 *ids = ARENA_ARRAY(&x->arena, i64, r->n_parts);
    i64 *to = ARENA_ARRAY(&x->arena, i64, r->n_parts);
    x->offset_ns = ARENA_ARRAY(&x->arena, i64, r->n_parts);
    for (int i = 0; i < r->n_parts; i++)
        ids[i] = r->parts[i].id;
    qsort(r->parts, (size_t)r->n_parts, sizeof *r->parts, by_part);
    for (int i = 0; i < r->n_parts; i++)
        for (int k = 0; k < r->n_parts; k++)
            if (r->parts[k].id == ids[i])
                to[i] = k;
    for (i64 i = 0; i < x->n_entries; i++)
        x->entries[i].part = (u16)to[x->entries[i].part];
    for (i64 i = 0; i < x->n_samples; i++)
        x->samples[i].part = (u16)to[x->samples[i].part];
    double origin = 0;
    for (int i = 0; i < r->n_parts; i++) {
        struct record_part *p = &r->parts[i];
        for (int k = 0; k < p->ranks; k++)
            if (p->heads[k]) {
                struct member *m = (struct member *)p->heads[k];
                p->heads[k]->part = i;
                if (m->n_clocks > 0)
                    qsort(m->clocks, (size_t)m->n_clocks, sizeof *m->clocks, by_clock);
            }
        const struct record_head *h = first_head(p);
        origin = i == 0 ? h->wall_begin : origin;
        x->offset_ns[i] = (i64)(1e9 * fmin(h->wall_begin - origin, 1e9)) - (i64)h->begin_ns -
                          shift_at((const struct member *)h, h->begin_ns);
        p->begin_ns = p->end_ns = p->steps_ns = common_ns(r, h, h->begin_ns);
    }
}

static void end_parts(struct record *r)
{
    struct record_inside *x = r->inside;
    for (i64 i = 0; i < x->n_entries; i++) {
        const struct entry *e = &x->entries[i];
        struct record_part *p = &r->parts[e->part];
        const struct record_head *h = p->heads[e->rank];
        p->end_ns = i64_max(p->end_ns, common_ns(r, h, e->end_ns));
        if (e->step == p->first_step && e->flags & RECORD_FIRST)
            p->steps_ns = i64_max(p->steps_ns, common_ns(r, h, e->begin_ns));
    }
}

static void tell_missing(struct record *r)
{
    for (int i = 0; i < r->n_parts; i++) {
        const struct record_part *p = &r->parts[i];
        struct text list = { 0 };
        int missing = 0;
        for (int k = 0; k < p->ranks; k++)
            if (!p->heads[k] && missing++ < 8)
                text_printf(&list, "%s%d", missing > 1 ? ", " : "", k);
        if (missing > 0)
            DAMAGE(r, "%d of %d ranks have no file that can be read: %s%s", missing, p->ranks, list.data,
                   missing > 8 ? ", ..." : "");
        text_fini(&list);
    }
    if (r->n_steps == 0)
        DAMAGE(r, "no step was finished");
}

/* --- clocks that jumped --------------------------------------------------------------- */

/* Of ranks that meet in every step, those of one island: when the last began, and the first ended. */
struct common {
    i64 begun, ended, island;
    int last, first; /* which ranks those are */
    bool any;
};

static void add_window(struct common *c, const struct record *r, const struct entry *first,
                       const struct entry *last)
{
    const struct record_head *h = r->parts[first->part].heads[first->rank];
    const i64 begin = common_ns(r, h, first->begin_ns);
    const i64 end = i64_max(begin, common_ns(r, h, last->end_ns)); /* of a clock that went back */
    if (!c->any || h->island != c->island)
        *c = (struct common){ begin, end, h->island, h->rank, h->rank, true };
    if (begin > c->begun) {
        c->begun = begin;
        c->last = h->rank;
    }
    if (end < c->ended) {
        c->ended = end;
        c->first = h->rank;
    }
}

/* Seconds between the end of one rank's step and the begin of another's of the same island; at most 0:
 * they have a moment in common. */
static double seconds_apart(const struct record *r, i64 index, struct common *worst)
{
    const struct record_inside *x = r->inside;
    struct common c = { 0 };
    i64 most = 0;
    for (i64 i = x->first[index], to; i < x->first[index + 1]; i = to) {
        for (to = i + 1; to < x->first[index + 1] && x->entries[to].rank == x->entries[i].rank; to++)
            ;
        add_window(&c, r, &x->entries[i], &x->entries[to - 1]);
        if (c.begun - c.ended > most) {
            most = c.begun - c.ended;
            *worst = c;
        }
    }
    return 1e-9 * (double)most;
}

bool record_step_apart(const struct record *r, i64 index)
{
    struct common c;
    return seconds_apart(r, index, &c) > 0;
}

static void tell_apart(struct record *r)
{
    struct common c, first = { 0 };
    double most = 0;
    i64 n = 0, from = 0;
    for (i64 i = 0; i < r->n_steps; i++) {
        double s = seconds_apart(r, i, &c);
        if (s > 0 && n++ == 0) {
            first = c;
            from = r->steps[i];
        }
        most = fmax(most, s);
    }
    if (n > 0)
        DAMAGE(r, "the clocks of ranks %d and %d jumped apart: in %lld steps, the first of them %lld, one "
                  "rank's step ends up to %.3f s before another's begins, so who waited for whom "
                  "in those is not known", (int)i64_min(first.first, first.last),
               (int)i64_max(first.first, first.last), (long long)n, (long long)from + 1, most);
}

/* --- opening ------------------------------------------------------------------------ */

static int scan(struct record *r, const char *folder)
{
    struct record_inside *x = r->inside;
    TRY(find_files(r, folder));
    for (i64 i = 0; i < x->n_files; i++) {
        int rc = scan_file(r, i);
        if (rc == ERR_LIMIT)
            return rc;
        if (rc < 0)
            DAMAGE(r, "%s", err_message());
    }
    if (r->n_parts == 0)
        return err_set(ERR_FORMAT, "%s: nothing of the record is sound%s%s", folder,
                       r->n_damage > 0 ? ": " : "", r->n_damage > 0 ? r->damage[0] : "");
    return OK;
}

static int by_event(const void *a, const void *b)
{
    const struct record_event *x = a, *y = b;
    COMPARE(x, y, step);
    COMPARE(x, y, rank);
    return 0;
}

int record_open(struct record *r, const char *folder)
{
    struct record_inside *x = sys_alloc((i64)sizeof *x, 16);
    *r = (struct record){ .inside = x };
    if (!x)
        return err_set(ERR_LIMIT, "no memory for reading a record");
    memset(x, 0, sizeof *x);
    arena_init(&x->arena);
    int rc = scan(r, folder);
    if (rc < 0) {
        record_close(r);
        return rc;
    }
    order_parts(r);
    if (x->n_entries > 0)
        qsort(x->entries, (size_t)x->n_entries, sizeof *x->entries, by_step);
    if (x->n_samples > 0)
        qsort(x->samples, (size_t)x->n_samples, sizeof *x->samples, by_sample);
    if (r->n_events > 0)
        qsort(r->events, (size_t)r->n_events, sizeof *r->events, by_event);
    drop_doubles(r);
    drop_earlier_parts(r);
    list_steps(r);
    end_parts(r);
    tell_missing(r);
    tell_apart(r);
    return OK;
}

void record_close(struct record *r)
{
    struct record_inside *x = r->inside;
    if (!x)
        return;
    for (i64 i = 0; i < x->n_files; i++)
        record_reader_close(&x->files[i].reader);
    if (x->shares) {
        sys_free(x->files);
    } else {
        sys_free(x->entries);
        sys_free(x->samples);
        arena_fini(&x->arena);
    }
    sys_free(x);
    *r = (struct record){ 0 };
}

int record_share(struct record *out, const struct record *r)
{
    const struct record_inside *from = r->inside;
    struct record_inside *x = sys_alloc((i64)sizeof *x, 16);
    struct file *files = sys_alloc(from->n_files * (i64)sizeof *files, 16);
    *out = *r;
    out->inside = x;
    if (!x || !files) {
        sys_free(x);
        sys_free(files);
        return err_set(ERR_LIMIT, "no memory for reading a record");
    }
    *x = *from;
    x->shares = true;
    x->files = files;
    x->n_open = 0;
    for (i64 i = 0; i < x->n_files; i++) {
        files[i] = from->files[i];
        files[i].reader.fd = -1;
    }
    return OK;
}

/* --- a step ------------------------------------------------------------------------- */

static bool sound_span(const struct span *s, const struct record_table *t)
{
    return s->end_ns >= s->begin_ns && s->end_ns <= INT64_MAX && s->lane < TRACE_LANES &&
           s->kind < SPAN_KINDS && (!span_has_task(s->kind) || s->task < t->n_tasks) &&
           (s->kind != SPAN_WAIT || s->detail < TRACE_LANES);
}

/* NULL: it names none. */
static const struct record_table *table_of(const struct record_head *h, const struct entry *e)
{
    return e->table < MOST_TABLES && e->table < h->n_tables ? h->tables[e->table] : NULL;
}

/* Appends one chunk's spans; false: it is damaged. */
static bool add_chunk(struct record *r, const struct entry *e, const struct record_head *h,
                      struct span *raw, struct record_span *out, i64 *n, bool *incomplete)
{
    struct record_inside *x = r->inside;
    struct file *f = &x->files[e->file];
    const struct record_place place = place_of(e);
    if (!table_of(h, e) || use_file(x, f) < 0 || record_reader_payload(&f->reader, &place, raw) < 0)
        return false;
    const struct record_table *t = table_of(h, e);
    const struct span *s = raw + sizeof(struct record_spans) / sizeof *raw;
    for (u32 i = 0; i < e->n; i++, s++) {
        if (!sound_span(s, t)) {
            *incomplete = true;
            continue;
        }
        out[(*n)++] = (struct record_span){
            .begin_ns = common_ns(r, h, s->begin_ns), .end_ns = common_ns(r, h, s->end_ns),
            .task = span_has_task(s->kind) ? &t->tasks[s->task] : NULL, .task_id = s->task,
            .step = s->step, .action = s->action, .lane = s->lane, .kind = s->kind,
            .detail = s->detail };
    }
    return true;
}

static int by_lane(const void *a, const void *b)
{
    const struct record_span *x = a, *y = b;
    COMPARE(x, y, lane);
    COMPARE(x, y, end_ns);
    COMPARE(x, y, begin_ns);
    return 0;
}

static void find_bounds(struct record_rank *k, i64 step)
{
    k->begin_ns = INT64_MAX;
    k->end_ns = INT64_MIN;
    for (i64 i = 0; i < k->n_spans; i++) {
        const struct record_span *s = &k->spans[i];
        if (s->kind == SPAN_STEP && s->step == (u32)step) {
            k->begin_ns = s->begin_ns;
            k->end_ns = s->end_ns;
        }
    }
    for (i64 i = 0; i < k->n_spans && k->end_ns == INT64_MIN; i++)
        if (k->spans[i].lane == TRACE_COMPUTE)
            k->begin_ns = i64_min(k->begin_ns, k->spans[i].begin_ns);
    for (i64 i = 0; i < k->n_spans && k->begin_ns != INT64_MAX; i++)
        if (k->spans[i].lane == TRACE_COMPUTE)
            k->end_ns = i64_max(k->end_ns, k->spans[i].end_ns);
    if (k->begin_ns == INT64_MAX) {
        k->begin_ns = k->window_begin_ns;
        k->end_ns = k->window_end_ns;
    }
}

/* Evaluations and searches run other programs, behind the step. */
static i64 drop_others(struct record_rank *k, struct record_span *spans, i64 n)
{
    i64 kept = 0;
    for (i64 i = 0; i < n; i++)
        if (!span_has_task(spans[i].kind) ||
            (spans[i].begin_ns >= k->begin_ns && spans[i].end_ns <= k->end_ns))
            spans[kept++] = spans[i];
    return kept;
}

/* All chunks of one rank, [from, to) of the index; raw: room for the largest of them. */
static void read_rank(struct record *r, i64 from, i64 to, struct record_step *out,
                      struct span *raw)
{
    struct record_inside *x = r->inside;
    const struct entry *e = &x->entries[from];
    const struct record_head *h = r->parts[e->part].heads[e->rank];
    struct record_rank *k = &out->ranks[e->rank];
    i64 most = 0, n = 0, outer = 0;
    for (i64 i = from; i < to; i++)
        most += x->entries[i].n;
    struct record_span *spans = ARENA_ARRAY(out->arena, struct record_span, most), *outers = NULL;
    *k = (struct record_rank){ .head = h };
    for (i64 i = from; i < to; i++, e++) {
        bool whole;
        const struct record_table *t = table_of(h, e);
        k->incomplete |= (e->flags & RECORD_LOST) != 0;
        bool apart = t && k->table && t != k->table;
        if (apart && !outers)
            outers = ARENA_ARRAY(out->arena, struct record_span, most);
        if (apart)
            whole = add_chunk(r, e, h, raw, outers, &outer, &k->incomplete);
        else
            whole = add_chunk(r, e, h, raw, spans, &n, &k->incomplete);
        if (whole && apart)
            k->outer_table = t;
        else if (whole)
            k->table = t;
        k->incomplete |= !whole;
        if (whole && k->window_end_ns == 0)
            k->window_begin_ns = common_ns(r, h, e->begin_ns);
        if (whole)
            k->window_end_ns = common_ns(r, h, e->end_ns);
    }
    if (!k->table) { /* nothing of it is sound */
        *k = (struct record_rank){ 0 };
        return;
    }
    sort_runs(spans, n, (i64)sizeof *spans, by_lane, out->arena);
    if (outers)
        sort_runs(outers, outer, (i64)sizeof *outers, by_lane, out->arena);
    k->spans = spans;
    k->n_spans = n;
    k->outer = outers;
    k->n_outer = outer;
    find_bounds(k, out->step);
    k->n_spans = drop_others(k, spans, n);
}

static void read_sample(struct record *r, struct record_rank *k, int rank,
                        const struct record_step *out)
{
    struct record_inside *x = r->inside;
    const struct sampled key = { .step = (u32)out->step, .rank = (u32)rank,
                                 .part = (u16)out->part };
    const struct sampled *s = NULL;
    if (k->head && x->n_samples > 0)
        s = bsearch(&key, x->samples, (size_t)x->n_samples, sizeof key, by_sample);
    if (!s || use_file(x, &x->files[s->file]) < 0)
        return;
    const struct record_place place = { { RECORD_SAMPLE, s->checksum, s->bytes }, s->at };
    i64 bytes = i64_max(s->bytes, (i64)sizeof(struct sample));
    void *sample = arena_alloc(out->arena, bytes); /* zeroed: an older, shorter one */
    if (record_reader_payload(&x->files[s->file].reader, &place, sample) == OK)
        k->sample = sample;
}

static i64 index_of(const struct record *r, i64 step)
{
    i64 low = 0, high = r->n_steps;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (r->steps[middle] < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->n_steps && r->steps[low] == step ? low : -1;
}

int record_step(struct record *r, i64 step, struct record_step *out)
{
    struct record_inside *x = r->inside;
    struct arena *a = out->arena ? out->arena : sys_alloc((i64)sizeof *a, 16);
    i64 at = index_of(r, step);
    if (!a)
        return err_set(ERR_LIMIT, "no memory for a step's spans");
    if (out->arena)
        arena_clear(a);
    else
        arena_init(a);
    *out = (struct record_step){ .step = step, .arena = a };
    if (at < 0)
        return err_set(ERR_CONFIG, "step %lld is not recorded", (long long)step + 1);
    out->apart = record_step_apart(r, at);
    i64 from = x->first[at], end = x->first[at + 1];
    out->part = (int)x->entries[from].part;
    out->n_ranks = r->parts[out->part].ranks;
    out->ranks = ARENA_ARRAY(a, struct record_rank, out->n_ranks);
    i64 largest = 0;
    for (i64 i = from; i < end; i++)
        largest = i64_max(largest, (i64)place_of(&x->entries[i]).chunk.bytes);
    struct span *raw = arena_alloc(a, largest);
    for (i64 to; from < end; from = to) {
        for (to = from; to < end && x->entries[to].rank == x->entries[from].rank; to++)
            ;
        read_rank(r, from, to, out, raw);
    }
    out->begin_ns = INT64_MAX;
    out->end_ns = INT64_MIN;
    for (int i = 0; i < out->n_ranks; i++) {
        struct record_rank *k = &out->ranks[i];
        read_sample(r, k, i, out);
        out->missing += !k->head;
        if (k->head) {
            out->begin_ns = i64_min(out->begin_ns, k->begin_ns);
            out->end_ns = i64_max(out->end_ns, k->end_ns);
        }
    }
    if (out->missing == out->n_ranks)
        return err_set(ERR_FORMAT, "the spans of step %lld are damaged", (long long)step + 1);
    return OK;
}

void record_step_free(struct record_step *out)
{
    if (out->arena) {
        arena_fini(out->arena);
        sys_free(out->arena);
    }
    *out = (struct record_step){ 0 };
}

double record_step_seconds(const struct record *r, i64 index)
{
    const struct record_inside *x = r->inside;
    double longest = 0, sum = 0;
    for (i64 i = x->first[index]; i < x->first[index + 1]; i++) {
        const struct entry *e = &x->entries[i];
        bool same = i > x->first[index] && e[-1].rank == e->rank;
        bool continued = same && e[-1].begin_ns == e->begin_ns;
        double seconds = 1e-9 * (double)(e->end_ns - e->begin_ns);
        sum = !same ? seconds : continued ? sum : sum + seconds;
        longest = fmax(longest, sum);
    }
    return longest;
}

double record_step_bytes(const struct record *r, i64 step)
{
    const struct record_inside *x = r->inside;
    i64 at = index_of(r, step);
    double bytes = 0;
    for (i64 i = at < 0 ? 0 : x->first[at]; at >= 0 && i < x->first[at + 1]; i++)
        bytes += (double)place_of(&x->entries[i]).chunk.bytes;
    return bytes;
}

int record_step_ranks(const struct record *r, i64 index)
{
    const struct record_inside *x = r->inside;
    int n = 0;
    for (i64 i = x->first[index]; i < x->first[index + 1]; i++)
        n += i == x->first[index] || x->entries[i - 1].rank != x->entries[i].rank;
    return n;
}

bool record_step_kept(const struct record *r, i64 index)
{
    const struct record_inside *x = r->inside;
    for (i64 i = x->first[index]; i < x->first[index + 1]; i++)
        if (!x->files[x->entries[i].file].kept)
            return false;
    return true;
}
