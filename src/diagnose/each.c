#include "diagnose/each.h"

#include "base/pool.h"
#include "base/sys.h"

/* Steps that are ready at a time, and what they may take; a step's graph and paths take so many times
 * what its spans take in the file (measured: 11 to 14). Fewer steps than ENOUGH are done before
 * threads have started, and whoever asks for so few may be beside a run. */
enum { MOST_SLOTS = 64, ENOUGH = 512, TIMES_SPANS = 16 };
static const double most_bytes = 256e6;

struct slot {
    struct record_step step;
    void *made;
    int rc;
};

struct batch {
    const struct each *e;
    struct record *records; /* one for each thread */
    const i64 *steps;
    struct slot slots[MOST_SLOTS];
};

static void make_part(void *context, i64 part, int thread)
{
    struct batch *b = context;
    struct slot *s = &b->slots[part];
    s->made = NULL;
    s->rc = record_step(&b->records[thread], b->steps[part], &s->step);
    if (s->rc >= 0)
        s->made = b->e->make(b->e->context, &s->step);
}

static int read_alone(struct record *r, const i64 *steps, i64 n, const struct each *e)
{
    struct record_step s = { 0 };
    int rc = OK;
    for (i64 i = 0; i < n && rc >= 0; i++) {
        int got = record_step(r, steps[i], &s);
        rc = e->take(e->context, &s, got >= 0 ? e->make(e->context, &s) : NULL, got);
    }
    record_step_free(&s);
    return rc;
}

static int read_together(struct batch *b, struct pool *pool, i64 slots, const i64 *steps, i64 n)
{
    int rc = OK;
    for (i64 i = 0; i < n && rc >= 0; i += slots) {
        i64 parts = i64_min(slots, n - i);
        b->steps = steps + i;
        pool_run(pool, parts, make_part, b);
        for (i64 k = 0; k < parts && rc >= 0; k++)
            rc = b->e->take(b->e->context, &b->slots[k].step, b->slots[k].made, b->slots[k].rc);
    }
    return rc;
}

int each_step(struct record *r, const i64 *steps, i64 n, const struct each *e)
{
    const int threads = sys_cpu_count();
    const double bytes = n > 0 ? TIMES_SPANS * record_step_bytes(r, steps[n / 2]) : 0;
    const i64 slots = i64_min(MOST_SLOTS, (i64)(most_bytes / (bytes + 1)));
    struct pool *pool = NULL;
    if (n < ENOUGH || threads < 2 || slots < 2 || pool_new(&pool, threads, false) < 0)
        return read_alone(r, steps, n, e);
    struct arena a;
    arena_init(&a);
    struct batch *b = ARENA_NEW(&a, struct batch);
    int shared = 0, rc = OK;
    b->e = e;
    b->records = ARENA_ARRAY(&a, struct record, threads);
    while (shared < threads && rc >= 0)
        if ((rc = record_share(&b->records[shared], r)) >= 0)
            shared++;
    if (rc >= 0)
        rc = read_together(b, pool, slots, steps, n);
    for (int i = 0; i < MOST_SLOTS; i++)
        record_step_free(&b->slots[i].step);
    for (int i = 0; i < shared; i++)
        record_close(&b->records[i]);
    pool_free(pool);
    arena_fini(&a);
    return rc;
}
