#include "diagnose/each.h"

#include "base/pool.h"
#include "base/sys.h"
#include "base/sys_share.h"

#include <math.h>
#include <stdatomic.h>

/* A thread makes some steps ready before it waits for its turn to have them taken: as many as
 * stay in its core's cache until then. A step's graph and paths take so many times what its spans
 * take in the file (measured: 11 to 14). Fewer steps than ENOUGH are done before threads have
 * started, and whoever asks for so few may be beside a run. */
enum { MOST_SLOTS = 16, ENOUGH = 512, TIMES_SPANS = 16, SPINS = 4096 };
static const double cache_bytes = 1e6, most_bytes = 256e6;

struct slot {
    struct record_step step;
    void *made;
    int rc;
};

struct worker {
    struct record record;
    struct slot slots[MOST_SLOTS];
    void *kept;
};

struct work {
    const struct each *e;
    struct worker *workers; /* one for each thread */
    const i64 *steps;
    i64 n, slots;
    _Alignas(64) _Atomic i64 turn; /* the part whose steps are taken next */
    _Atomic int rc;                /* negative: nothing more is taken */
};

static void make_ready(const struct each *e, struct record *r, i64 step, struct slot *s,
                       void **kept)
{
    s->made = NULL;
    s->rc = record_step(r, step, &s->step);
    if (s->rc >= 0)
        s->made = e->make(e->context, &s->step, kept);
}

/* Until all parts before this one are taken; false: there will be no such time. */
static bool has_turn(struct work *w, i64 part)
{
    for (int spins = 0; atomic_load(&w->rc) >= 0; spins++) {
        if (atomic_load_explicit(&w->turn, memory_order_acquire) == part)
            return atomic_load(&w->rc) >= 0; /* what the one before left: it may have ended it */
        if (spins >= SPINS)
            sys_yield();
    }
    return false;
}

static void do_part(void *context, i64 part, int thread)
{
    struct work *w = context;
    struct worker *own = &w->workers[thread];
    const i64 from = part * w->slots, n = i64_min(w->slots, w->n - from);
    int rc = atomic_load(&w->rc);
    for (i64 i = 0; i < n && rc >= 0; i++)
        make_ready(w->e, &own->record, w->steps[from + i], &own->slots[i], &own->kept);
    if (rc < 0 || !has_turn(w, part))
        return;
    for (i64 i = 0; i < n && rc >= 0; i++) {
        const struct slot *s = &own->slots[i];
        rc = w->e->take(w->e->context, &s->step, s->made, s->rc);
    }
    if (rc < 0)
        atomic_store(&w->rc, rc);
    atomic_store_explicit(&w->turn, part + 1, memory_order_release);
}

static int read_alone(struct record *r, const i64 *steps, i64 n, const struct each *e)
{
    struct slot s = { 0 };
    void *kept = NULL;
    int rc = OK;
    for (i64 i = 0; i < n && rc >= 0; i++) {
        make_ready(e, r, steps[i], &s, &kept);
        rc = e->take(e->context, &s.step, s.made, s.rc);
    }
    record_step_free(&s.step);
    if (kept)
        e->drop(kept);
    return rc;
}

int each_step(struct record *r, const i64 *steps, i64 n, const struct each *e)
{
    const double bytes = n > 0 ? 1 + TIMES_SPANS * record_step_bytes(r, steps[n / 2]) : 1;
    const int threads = (int)fmin(sys_cpu_count(), most_bytes / bytes);
    struct pool *pool = NULL;
    if (n < ENOUGH || threads < 2 || pool_new(&pool, threads, false) < 0)
        return read_alone(r, steps, n, e);
    struct arena a;
    arena_init(&a);
    struct work *w = ARENA_NEW(&a, struct work);
    int shared = 0, rc = OK;
    *w = (struct work){ .e = e, .steps = steps, .n = n,
                        .workers = ARENA_ARRAY(&a, struct worker, threads),
                        .slots = (i64)fmin(MOST_SLOTS, 1 + cache_bytes / bytes) };
    while (shared < threads && rc >= 0)
        if ((rc = record_share(&w->workers[shared].record, r)) >= 0)
            shared++;
    if (rc >= 0) {
        pool_run(pool, ceil_div(n, w->slots), do_part, w);
        rc = atomic_load(&w->rc);
    }
    for (int i = 0; i < shared; i++) {
        for (int k = 0; k < MOST_SLOTS; k++)
            record_step_free(&w->workers[i].slots[k].step);
        record_close(&w->workers[i].record);
        if (w->workers[i].kept)
            e->drop(w->workers[i].kept);
    }
    pool_free(pool);
    arena_fini(&a);
    return rc;
}
