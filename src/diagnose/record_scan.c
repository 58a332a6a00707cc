/* What a record's files hold, chunk by chunk: who took part, their programs, where spans lie. */
#include "base/err.h"
#include "base/sys.h"
#include "diagnose/record_index.h"
#include "diagnose/record_parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPEN = 128, MOST_MENDED = 4 };

/* Of what there is most of: the list with one more place behind n, in the same memory
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
    if (n < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        inner = folder;
        n = sys_list(inner, &names);
    }
    if (n < 0 && errno == ENOTDIR)
        return err_set(ERR_CONFIG, "%s is a file: give the folder of a run, whose path `headway train` "
                       "prints", folder);
    if (n < 0)
        return err_set(ERR_CONFIG, "open %s: %s", inner, strerror(errno));
    x->files = ARENA_ARRAY(&x->arena, struct file, n);
    for (int i = 0; i < n; i++)
        if (parse_name(names[i], &x->files[x->n_files]))
            x->files[x->n_files++].path = arena_printf(&x->arena, "%s/%s", inner, names[i]);
    sys_free(names);
    if (x->n_files == 0 && inner == folder &&
        !sys_exists(arena_printf(&x->arena, "%s/manifest.json", folder)))
        return err_set(ERR_CONFIG, "%s is no run folder: it has neither manifest.json nor trace; give "
                       "the one whose path `headway train` prints", folder);
    if (x->n_files == 0)
        return err_set(ERR_CONFIG, "%s has no recorded spans (rank-0.spans): the run is about to "
                       "take its first step, or ended before it, or trace.disk or trace.level was "
                       "off", inner);
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
    i64 mended;            /* of them, which takes its time */
    bool known;            /* the member is, from another file: only what is measured is wanted */
    u64 last_end;          /* of the spans before */
};

static int read_text(struct context *c, const struct record_place *p)
{
    i64 bytes = (i64)p->chunk.bytes;
    if (!c->text || bytes > c->capacity) {
        sys_free(c->text);
        c->capacity = i64_max(bytes, 1);
        c->text = sys_alloc(c->capacity, 16);
    }
    if (!c->text)
        return err_set(ERR_LIMIT, "no memory for a chunk of %lld bytes", (long long)bytes);
    if (p->chunk.kind == RECORD_EVENT || c->mended == MOST_MENDED)
        return record_reader_payload(&c->file->reader, p, c->text);
    const int rc = record_reader_mended(&c->file->reader, p, c->text);
    if (rc != OK)
        c->mended++;
    if (rc == 1)
        DAMAGE(c->r, "%s: one bit of the chunk at byte %lld was wrong, and is put right",
               c->file->path, (long long)(p->at - RECORD_CHUNK_BYTES));
    return rc < 0 ? rc : OK;
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

static struct record_table *known_table(const struct record_inside *x, u32 checksum, u64 bytes)
{
    for (i64 i = 0; i < x->n_known; i++)
        if (x->known[i].checksum == checksum && x->known[i].bytes == bytes)
            return x->known[i].table;
    return NULL;
}

/* NULL: it cannot be read. */
static struct record_table *read_table(struct context *c, const struct record_place *p)
{
    struct record_inside *x = c->r->inside;
    struct record_table *table = ARENA_NEW(&x->arena, struct record_table);
    if (read_text(c, p) < 0 || record_parse_table(table, c->text, (i64)p->chunk.bytes,
                                                  c->file->path, &x->arena) < 0)
        return NULL;
    GROW(&x->arena, x->known, x->n_known, x->cap_known);
    x->known[x->n_known++] = (struct known_table){ p->chunk.checksum, p->chunk.bytes, table };
    return table;
}

/* Ranks that run the same program share what was made of its table. One that cannot be read keeps
 * its number, since spans name it by that. */
static int see_table(struct context *c, const struct record_place *p)
{
    struct record_inside *x = c->r->inside;
    struct member *m = c->member;
    const i64 at = c->tables++;
    if (!m || (at < m->head.n_tables && m->tables[at]->n_tasks > 0))
        return OK;
    struct record_table *table = known_table(x, p->chunk.checksum, p->chunk.bytes);
    table = table ? table : read_table(c, p);
    const bool good = table != NULL;
    if (!good) {
        GROW(&x->arena, x->lost, x->n_lost, x->cap_lost);
        x->lost[x->n_lost++] = (struct lost_table){ m, at, p->chunk.checksum, p->chunk.bytes };
        table = ARENA_NEW(&x->arena, struct record_table);
        *table = (struct record_table){ .name = "", .micro_batches = 1 };
    }
    if (at == m->head.n_tables) {
        GROW(&x->arena, m->tables, at, m->cap_tables);
        m->head.n_tables++;
    }
    m->tables[at] = table;
    m->head.tables = m->tables;
    return good ? OK : ERR_FORMAT;
}

/* Once all files were seen. */
static void find_lost_tables(struct record_inside *x)
{
    for (i64 i = 0; i < x->n_lost; i++) {
        const struct lost_table *l = &x->lost[i];
        struct record_table *table = known_table(x, l->checksum, l->bytes);
        if (table && l->member->tables[l->index]->n_tasks == 0)
            l->member->tables[l->index] = table;
    }
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
    const u32 kind = p->chunk.kind;
    if (c->known && (kind == RECORD_HEAD || kind == RECORD_TABLE || kind == RECORD_EVENT))
        return OK;
    switch (p->chunk.kind) {
    case RECORD_HEAD: return see_head(c, p);
    case RECORD_TABLE: return see_table(c, p);
    case RECORD_SPANS: return see_spans(c, p);
    case RECORD_CLOCK: return see_clock(c, p);
    case RECORD_SAMPLE: return see_sample(c, p);
    default: return see_event(c, p);
    }
}

/* All chunks of a file; how many there are. */
static int scan_chunks(struct context *c, i64 *chunks)
{
    struct record *r = c->r;
    struct record_place place;
    i64 bad = 0, heads = 0, bad_heads = 0;
    TRY(record_use_file(r->inside, c->file));
    for (; record_reader_next(&c->file->reader, &place) == 1; ++*chunks) {
        const int rc = see_chunk(c, &place);
        if (rc == ERR_LIMIT)
            return rc;
        heads += place.chunk.kind == RECORD_HEAD && rc == OK;
        bad_heads += place.chunk.kind == RECORD_HEAD && rc < 0;
        if (rc < 0 && bad++ == 0)
            DAMAGE(r, "%s", err_message());
    }
    c->file->headless = heads == 0 && (bad_heads > 0 || c->file->reader.damaged > 0);
    if (bad > 1)
        DAMAGE(r, "%s: %lld more chunks are damaged", c->file->path, (long long)bad - 1);
    return OK;
}

/* All of one file; what is damaged is said, once per file for each kind of damage that repeats. */
static int scan_file(struct record *r, i64 index)
{
    struct record_inside *x = r->inside;
    struct context c = { .r = r, .file = &x->files[index], .index = index };
    i64 chunks = 0;
    const int rc = scan_chunks(&c, &chunks);
    sys_free(c.text);
    TRY(rc);
    if (c.file->reader.damaged > 0 && chunks > 0)
        DAMAGE(r, "%s: %lld bytes in its midst are damaged", c.file->path,
               (long long)c.file->reader.damaged);
    if (chunks == 0)
        DAMAGE(r, "%s holds no recorded spans: it is another kind of file, or all of it is damaged",
               c.file->path);
    else if (c.file->reader.at < c.file->reader.bytes)
        DAMAGE(r, "%s ends within a chunk: its last %lld bytes are not whole", c.file->path,
               (long long)(c.file->reader.bytes - c.file->reader.at));
    return OK;
}

/* A file whose head is damaged is read by that of the same rank in another file, where the record
 * has one part, so that there is no doubt which one that is. */
static int scan_headless(struct record *r, i64 index)
{
    struct record_inside *x = r->inside;
    struct file *f = &x->files[index];
    struct context c = { .r = r, .file = f, .index = index, .known = true };
    const struct record_part *p = r->n_parts == 1 ? &r->parts[0] : NULL;
    i64 chunks = 0;
    if (!f->headless || !p || f->rank >= p->ranks || !p->heads[f->rank])
        return OK;
    c.member = (struct member *)p->heads[f->rank];
    if (f->reader.fd >= 0) {
        record_reader_close(&f->reader);
        x->n_open--;
    }
    f->reader = (struct record_reader){ .fd = -1 };
    DAMAGE(r, "%s: its head is damaged; what follows is read by that of the same rank in another "
              "file", f->path);
    return scan_chunks(&c, &chunks);
}

/* --- all of it ---------------------------------------------------------------------- */

int record_scan(struct record *r, const char *folder)
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
    for (i64 i = 0; i < x->n_files; i++)
        TRY(scan_headless(r, i));
    find_lost_tables(x);
    if (r->n_parts == 0)
        return err_set(ERR_FORMAT, "%s: nothing of the record is sound%s%s", folder,
                       r->n_damage > 0 ? ": " : "", r->n_damage > 0 ? r->damage[0] : "");
    return OK;
}
