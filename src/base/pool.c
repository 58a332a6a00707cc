#include "base/pool.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A worker that finds nothing to do spins this long, then sleeps on a futex. Tasks of a
 * step follow each other within microseconds, so sleeping happens between steps only. */
enum { SPIN_NS = 100 * 1000, SPIN_CHECK = 256 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    _Alignas(64) atomic_uint round; /* a new value starts a round; workers wait on it */
    _Alignas(64) atomic_llong next; /* the next part to take */
    _Alignas(64) atomic_int busy;   /* workers still in the round */
    atomic_int sleepers;
    atomic_bool stop;
    i64 parts;
    pool_fn fn;
    void *context;
    struct worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_parts(struct pool *p, int thread)
{
    for (;;) {
        i64 part = atomic_fetch_add(&p->next, 1);
        if (part >= p->parts)
            return;
        p->fn(p->context, part, thread);
    }
}

/* Returns once the round is no longer the one seen. */
static void wait_for_round(struct pool *p, u32 seen)
{
    u64 until = sys_now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < SPIN_CHECK; i++) {
            if (atomic_load_explicit(&p->round, memory_order_acquire) != seen)
                return;
            relax();
        }
    } while (sys_now_ns() < until);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->round) == seen)
        syscall(SYS_futex, &p->round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void start_round(struct pool *p)
{
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleepers) > 0)
        syscall(SYS_futex, &p->round, FUTEX_WAKE_PRIVATE, p->threads, NULL, NULL, 0);
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    struct pool *p = w->pool;
    u32 seen = 0;
    for (;;) {
        wait_for_round(p, seen);
        seen++;
        if (atomic_load(&p->stop))
            return NULL;
        take_parts(p, w->index);
        atomic_fetch_sub_explicit(&p->busy, 1, memory_order_release);
    }
}

/* The n-th core that this process may use, or -1. */
static int allowed_core(int n)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return -1;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &set) && n-- == 0)
            return core;
    return -1;
}

static void pin_thread(pthread_t thread, int core)
{
    cpu_set_t set;
    if (core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    pthread_setaffinity_np(thread, sizeof set, &set); /* a wish: failing costs speed only */
}

int pool_new(struct pool **out, int threads, bool pin)
{
    assert(threads >= 1);
    i64 bytes = (i64)sizeof(struct pool) + threads * (i64)sizeof(struct worker);
    struct pool *p = sys_alloc(bytes, 64);
    if (!p)
        return err_set(ERR_LIMIT, "no memory for a pool of %d threads", threads);
    memset(p, 0, (size_t)bytes);
    p->threads = 1;
    int cores = sys_cpu_count();
    for (int i = 1; i < threads; i++) {
        struct worker *w = &p->workers[i];
        *w = (struct worker){ .pool = p, .index = i };
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc != 0) {
            pool_free(p);
            return err_set(ERR_SYS, "starting thread %d of %d: %s; ask for fewer threads", i,
                           threads, strerror(rc));
        }
        if (pin && threads <= cores)
            pin_thread(w->thread, allowed_core(i));
        p->threads++;
    }
    *out = p;
    return OK;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    start_round(p);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    sys_free(p);
}

int pool_threads(const struct pool *p)
{
    return p->threads;
}

void pool_run(struct pool *p, i64 parts, pool_fn fn, void *context)
{
    if (p->threads == 1 || parts == 1) {
        for (i64 part = 0; part < parts; part++)
            fn(context, part, 0);
        return;
    }
    p->parts = parts;
    p->fn = fn;
    p->context = context;
    atomic_store(&p->next, 0);
    atomic_store(&p->busy, p->threads - 1);
    start_round(p);
    take_parts(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->busy, memory_order_acquire) > 0; spins++) {
        if (spins < 4096)
            relax();
        else
            sched_yield(); /* more threads than cores: let them run */
    }
}
