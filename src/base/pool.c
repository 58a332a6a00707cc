#include "base/pool.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_usage.h"

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
    atomic_int id; /* the system's; 0 until it runs */
    _Alignas(64) double busy, on_cpu; /* ns while measured; its own until the round ends */
    u64 left_ns;      /* when its processor time was read last, behind a round; 0: never */
    double left_cpu;  /* what it was, seconds */
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
    bool measures, measures_cpu;
    double rounds; /* ns while measured */
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

struct stopwatch {
    u64 begin_ns;
    double computed; /* seconds on a processor by then */
};

/* Reading it is a call of the system, nearly a microsecond on virtual machines. Rounds that follow
 * each other share one: in so short a time a spinning thread is hardly taken off its processor. */
enum { CHAIN_NS = 5000 };

static struct stopwatch start_work(const struct pool *p, int thread)
{
    const struct worker *w = &p->workers[thread];
    struct stopwatch s = { 0 };
    if (!p->measures)
        return s;
    s.begin_ns = sys_now_ns();
    if (!p->measures_cpu)
        return s;
    if (w->left_ns > 0 && s.begin_ns - w->left_ns < CHAIN_NS) {
        s.computed = w->left_cpu + 1e-9 * (double)(s.begin_ns - w->left_ns);
    } else {
        s.computed = sys_thread_cpu_seconds();
        s.begin_ns = sys_now_ns();
    }
    return s;
}

static void end_work(struct pool *p, int thread, const struct stopwatch *s)
{
    struct worker *w = &p->workers[thread];
    const u64 now = p->measures ? sys_now_ns() : 0;
    if (p->measures)
        w->busy += (double)(now - s->begin_ns);
    if (!p->measures_cpu)
        return;
    w->left_cpu = sys_thread_cpu_seconds();
    w->left_ns = now;
    w->on_cpu += 1e9 * (w->left_cpu - s->computed);
}

static void work(struct pool *p, int thread)
{
    struct stopwatch s = start_work(p, thread);
    take_parts(p, thread);
    end_work(p, thread, &s);
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
    atomic_store(&w->id, (int)syscall(SYS_gettid));
    for (;;) {
        wait_for_round(p, seen);
        seen++;
        if (atomic_load(&p->stop))
            return NULL;
        work(p, w->index);
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
        w->pool = p;
        w->index = i;
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

int pool_thread_ids(const struct pool *p, int *ids, int n)
{
    int k = 0;
    for (int i = 1; i < p->threads && k < n; i++) {
        while (atomic_load(&p->workers[i].id) == 0)
            sched_yield(); /* it was started, and says so in a moment */
        ids[k++] = atomic_load(&p->workers[i].id);
    }
    return k;
}

void pool_measure(struct pool *p, bool on_cpu)
{
    for (int i = 0; i < p->threads; i++)
        p->workers[i].busy = p->workers[i].on_cpu = 0;
    p->rounds = 0;
    p->measures = true;
    p->measures_cpu = on_cpu;
}

struct pool_work pool_measured(struct pool *p)
{
    struct pool_work w = { .rounds = p->rounds };
    for (int i = 0; i < p->threads; i++) {
        w.busy += p->workers[i].busy;
        w.on_cpu += p->workers[i].on_cpu;
        w.longest = p->workers[i].busy > w.longest ? p->workers[i].busy : w.longest;
    }
    p->measures = p->measures_cpu = false;
    return w;
}

static void run_alone(struct pool *p, i64 parts, pool_fn fn, void *context)
{
    struct stopwatch s = start_work(p, 0);
    for (i64 part = 0; part < parts; part++)
        fn(context, part, 0);
    end_work(p, 0, &s);
}

static void run_round(struct pool *p, i64 parts, pool_fn fn, void *context)
{
    p->parts = parts;
    p->fn = fn;
    p->context = context;
    atomic_store(&p->next, 0);
    atomic_store(&p->busy, p->threads - 1);
    start_round(p);
    work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->busy, memory_order_acquire) > 0; spins++) {
        if (spins < 4096)
            relax();
        else
            sched_yield(); /* more threads than cores: let them run */
    }
}

void pool_run(struct pool *p, i64 parts, pool_fn fn, void *context)
{
    const u64 begin = p->measures ? sys_now_ns() : 0;
    if (p->threads == 1 || parts == 1)
        run_alone(p, parts, fn, context);
    else
        run_round(p, parts, fn, context);
    if (p->measures)
        p->rounds += (double)(sys_now_ns() - begin);
}
