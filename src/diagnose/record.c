#include "diagnose/record.h"

#include "base/err.h"
#include "base/sort.h"
#include "base/sys.h"
#include "base/text.h"
#include "diagnose/record_index.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void record_add_damage(struct record *r, const char *sentence)
{
    struct record_inside *x = r->inside;
    GROW(&x->arena, r->damage, r->n_damage, x->cap_damage);
    r->damage[r->n_damage++] = arena_strdup(&x->arena, sentence);
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
    *r = (struct record){ .final_step = -1, .inside = x };
    if (!x)
        return err_set(ERR_LIMIT, "no memory for reading a record");
    memset(x, 0, sizeof *x);
    arena_init(&x->arena);
    int rc = record_scan(r, folder);
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
