#include "diagnose/record.h"

#include "base/err.h"
#include "base/sort.h"
#include "base/sys.h"
#include "base/text.h"
#include "diagnose/record_index.h"
#include "diagnose/record_parse.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPEN = 128 };

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

/* The same of what there is most of: the list with one more place behind n, in the same memory
 * where the system can move pages. NULL: no memory; the list is as it was. */
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

void record_add_damage(struct record *r, const char *sentence)
{
    struct record_inside *x = r->inside;
    GROW(&x->arena, r->damage, r->n_damage, x->cap_damage);
    r->damage[r->n_damage++] = arena_strdup(&x->arena, sentence);
}

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
int record_use_file(struct record_inside *x, struct file *f)
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
        return err_set(ERR_CONFIG, "%s has no recorded spans (rank-0.spans): the run ended in its "
                       "first step, or trace.disk or trace.level was off", inner);
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
    TRY(record_use_file(x, c.file));
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

int record_by_sample(const void *a, const void *b)
{
    const struct sampled *x = a, *y = b;
    COMPARE(x, y, step);
    COMPARE(x, y, part);
    COMPARE(x, y, rank);
    return 0;
}

/* Each file is in order already, or nearly. */
static void order_index(struct record_inside *x)
{
    struct arena a;
    arena_init(&a);
    sort_runs(x->entries, x->n_entries, (i64)sizeof *x->entries, by_step, &a);
    arena_fini(&a);
    sort_runs(x->samples, x->n_samples, (i64)sizeof *x->samples, record_by_sample, &a);
    arena_fini(&a);
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

i64 record_clocks_until(const struct member *m, u64 ns)
{
    i64 low = 0, high = m->n_clocks;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (m->clocks[middle].at_ns <= ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static i64 shift_at(const struct member *m, u64 ns)
{
    i64 near = record_clocks_until(m, ns);
    return record_shift_near(m, ns, &near);
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

i64 record_common_ns(const struct record *r, const struct record_head *h, u64 ns)
{
    const struct member *m = (const struct member *)h;
    return (i64)ns + shift_at(m, ns) + r->inside->offset_ns[h->part];
}

/* Those that are said in the kept file, too, once. */
static void order_clocks(struct member *m)
{
    i64 n = 0;
    qsort(m->clocks, (size_t)m->n_clocks, sizeof *m->clocks, by_clock);
    for (i64 i = 0; i < m->n_clocks; i++)
        if (n == 0 || m->clocks[n - 1].at_ns != m->clocks[i].at_ns)
            m->clocks[n++] = m->clocks[i];
    m->n_clocks = n;
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
                    order_clocks(m);
            }
        const struct record_head *h = first_head(p);
        origin = i == 0 ? h->wall_begin : origin;
        x->offset_ns[i] = (i64)(1e9 * fmin(h->wall_begin - origin, 1e9)) - (i64)h->begin_ns -
                          shift_at((const struct member *)h, h->begin_ns);
        p->begin_ns = p->end_ns = p->steps_ns = record_common_ns(r, h, h->begin_ns);
    }
}

static void end_parts(struct record *r)
{
    struct record_inside *x = r->inside;
    for (i64 i = 0; i < x->n_entries; i++) {
        const struct entry *e = &x->entries[i];
        struct record_part *p = &r->parts[e->part];
        const struct record_head *h = p->heads[e->rank];
        p->end_ns = i64_max(p->end_ns, record_common_ns(r, h, e->end_ns));
        if (e->step == p->first_step && e->flags & RECORD_FIRST)
            p->steps_ns = i64_max(p->steps_ns, record_common_ns(r, h, e->begin_ns));
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

/* --- files of another run ------------------------------------------------------------- */

static int n_heads(const struct record_part *p)
{
    int n = 0;
    for (int k = 0; k < p->ranks; k++)
        n += p->heads[k] != NULL;
    return n;
}

/* All ranks of a run begin a part together. Ranks that have no part with others, in whose parts
 * they are missing, did not take part in this run. */
static bool is_foreign(const struct record *r, const struct record_part *p)
{
    const int own = n_heads(p);
    bool others = false;
    for (int i = 0; i < r->n_parts; i++) {
        const struct record_part *q = &r->parts[i];
        if (q == p || q->ranks != p->ranks)
            continue;
        for (int k = 0; k < p->ranks; k++)
            if (p->heads[k] && q->heads[k])
                return false;
        const int n = n_heads(q);
        others |= n > own || (n == own && q->heads[0]);
    }
    return others;
}

static void drop_part(struct record *r, int part)
{
    struct record_inside *x = r->inside;
    i64 n = 0, samples = 0;
    for (i64 i = 0; i < x->n_entries; i++)
        if (x->entries[i].part != part) {
            x->entries[n] = x->entries[i];
            x->entries[n++].part -= x->entries[i].part > part;
        }
    for (i64 i = 0; i < x->n_samples; i++)
        if (x->samples[i].part != part) {
            x->samples[samples] = x->samples[i];
            x->samples[samples++].part -= x->samples[i].part > part;
        }
    x->n_entries = n;
    x->n_samples = samples;
    r->n_parts--;
    for (int i = part; i < r->n_parts; i++)
        r->parts[i] = r->parts[i + 1];
}

static void drop_foreign(struct record *r)
{
    for (int i = r->n_parts - 1; i >= 0; i--) {
        struct text list = { 0 };
        int told = 0;
        if (!is_foreign(r, &r->parts[i]))
            continue;
        for (int k = 0; k < r->parts[i].ranks; k++)
            if (r->parts[i].heads[k] && told++ < 8)
                text_printf(&list, "%s%d", told > 1 ? ", " : "", k);
        DAMAGE(r, "the files of rank %s%s are of another run than the others' and are left out",
               list.data, told > 8 ? ", ..." : "");
        text_fini(&list);
        drop_part(r, i);
    }
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
    drop_foreign(r);
    order_parts(r);
    order_index(x);
    if (r->n_events > 0)
        qsort(r->events, (size_t)r->n_events, sizeof *r->events, by_event);
    drop_doubles(r);
    drop_earlier_parts(r);
    list_steps(r);
    end_parts(r);
    tell_missing(r);
    record_tell_apart(r);
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
        files[i].reader = (struct record_reader){ .fd = -1 };
    }
    return OK;
}
