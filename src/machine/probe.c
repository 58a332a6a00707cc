/* Measuring the ceilings (see machine.h). */
#include "backend/cpu/gemm.h"
#include "backend/cpu/stream.h"
#include "base/sys.h"
#include "machine/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPS = 7, PEAK_NS = 20 * 1000 * 1000, MAX_THREADS = 1024 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return values[n / 2];
}

/* --- arithmetic --------------------------------------------------------------------- */

struct peak_job {
    const struct gemm_kernels *kernels;
    i64 rounds;
    i64 flops[MAX_THREADS];
};

static void fill_random(float *data, i64 n)
{
    u64 state = 88172645463325252u; /* xorshift64; constant data would flatter the clock */
    for (i64 i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = (float)(state >> 40) * 0x1p-24f - 0.5f;
    }
}

static void peak_part(void *context, i64 part, int thread)
{
    struct peak_job *job = context;
    _Alignas(64) float data[256];
    (void)thread;
    fill_random(data, 256);
    job->flops[part] = job->kernels->peak(job->rounds, data);
}

/* Seconds for `parts` threads doing `rounds` each; *flops of all. */
static double time_peak(struct peak_job *job, struct pool *pool, int parts, double *flops)
{
    u64 begin = sys_now_ns();
    pool_run(pool, parts, peak_part, job);
    double seconds = 1e-9 * (double)(sys_now_ns() - begin);
    *flops = 0;
    for (int i = 0; i < parts; i++)
        *flops += (double)job->flops[i];
    return seconds;
}

/* The best of several: whatever else runs on the machine can only lower a ceiling. */
static double measure_peak(const struct gemm_kernels *kernels, struct pool *pool, int parts)
{
    struct peak_job job = { .kernels = kernels, .rounds = 1000 };
    double best = 0, flops;
    while (time_peak(&job, pool, parts, &flops) < 1e-9 * PEAK_NS)
        job.rounds *= 2;
    for (int i = 0; i < REPS; i++) {
        double seconds = time_peak(&job, pool, parts, &flops);
        best = flops / seconds > best ? flops / seconds : best;
    }
    return best;
}

/* The reference backend is measured against plain C, its nearest relative. */
static const struct gemm_kernels *kernels_of(const char *backend)
{
#if defined(__x86_64__)
    static const struct gemm_kernels *const sets[] = {
        &gemm_kernels_amx, &gemm_kernels_avx512bf16, &gemm_kernels_avx512, &gemm_kernels_avx2,
    };
    for (i64 i = 0; i < COUNT_OF(sets); i++)
        if (strcmp(sets[i]->name, backend) == 0)
            return sets[i];
#else
    (void)backend;
#endif
    return &gemm_kernels_generic;
}

struct rates {
    double one, all;
};

/* A host may run the processors of a virtual machine on two threads of one core for a while: all
 * that are hardly faster than one are measured some more times. */
static struct rates measure_rates(const struct gemm_kernels *kernels, struct pool *pool)
{
    enum { MORE = 5 };
    static const double hardly = 1.3;
    const int all = (int)i64_min(pool_threads(pool), MAX_THREADS);
    struct rates r = { measure_peak(kernels, pool, 1), 0 };
    for (int i = 0; all > 1 && i <= MORE && r.all < hardly * r.one; i++)
        r.all = fmax(r.all, measure_peak(kernels, pool, all));
    return (struct rates){ r.one, all > 1 ? r.all : r.one };
}

/* f32 can be multiplied by multiply-adds, and bf16 be widened and multiplied as f32, so
 * that these are the least of their peaks. */
void machine_measure_peaks(struct machine *m, struct pool *pool)
{
    const struct gemm_kernels *set = kernels_of(m->backend);
    const struct gemm_kernels *f32 = gemm_kernels_for(set, DTYPE_F32, DTYPE_F32);
    const struct rates fma = measure_rates(gemm_kernels_unsplit(set), pool);
    struct rates wide = fma, narrow;
    m->fma_one = fma.one;
    m->fma_all = fma.all;
    if (f32->unsplit)
        wide = measure_rates(f32, pool);
    m->f32_split = wide.all > fma.all;
    m->f32_one = m->f32_split ? wide.one : fma.one;
    m->f32_all = m->f32_split ? wide.all : fma.all;
    narrow = set == f32 ? wide : measure_rates(set, pool);
    m->bf16_native = narrow.all > m->f32_all;
    m->bf16_one = m->bf16_native ? narrow.one : m->f32_one;
    m->bf16_all = m->bf16_native ? narrow.all : m->f32_all;
}

/* What was measured while others used the machine is too low. */
static bool is_surpassed(const struct machine *m, struct pool *pool)
{
    static const double noise = 1.05; /* of two measurements on a quiet machine */
    const struct gemm_kernels *f32 = gemm_kernels_for(kernels_of(m->backend), DTYPE_F32, DTYPE_F32);
    return measure_peak(f32, pool, (int)i64_min(pool_threads(pool), MAX_THREADS)) >
           noise * m->f32_all;
}

/* Whatever else runs can only lower a ceiling. */
static void keep_higher(struct machine *m, const struct machine *kept)
{
    m->fma_one = fmax(m->fma_one, kept->fma_one);
    m->fma_all = fmax(m->fma_all, kept->fma_all);
    m->f32_split = m->f32_split || kept->f32_split;
    m->f32_one = fmax(m->f32_one, kept->f32_one);
    m->f32_all = fmax(m->f32_all, kept->f32_all);
    m->bf16_one = fmax(m->bf16_one, kept->bf16_one);
    m->bf16_all = fmax(m->bf16_all, kept->bf16_all);
}

void machine_peaks(struct machine *m, const char *backend, struct pool *pool)
{
    machine_detect(m, backend, pool_threads(pool));
    const bool known = machine_load(m) >= 0;
    if (known && !is_surpassed(m, pool))
        return;
    const struct machine kept = *m;
    machine_measure_peaks(m, pool);
    if (known)
        keep_higher(m, &kept);
    machine_save(m);
}

/* --- memory ------------------------------------------------------------------------- */

struct stream_job {
    stream_read_fn read;
    u8 *data[MAX_THREADS];
    i64 bytes;  /* per thread */
    i64 passes;
    bool copy;  /* first half to second half; else read all */
};

/* What the backend's kernels read with; the matrix kernels' names are the backends'. */
static stream_read_fn read_of(const char *backend)
{
#if defined(__x86_64__)
    if (strncmp(backend, "avx512", 6) == 0 || strcmp(backend, "amx") == 0)
        return stream_read_avx512;
    if (strcmp(backend, "avx2") == 0)
        return stream_read_avx2;
#else
    (void)backend;
#endif
    return stream_read_generic;
}

static void stream_part(void *context, i64 part, int thread)
{
    struct stream_job *job = context;
    (void)thread;
    for (i64 i = 0; i < job->passes; i++) {
        if (job->copy)
            memcpy(job->data[part] + job->bytes / 2, job->data[part], (size_t)(job->bytes / 2));
        else
            job->read(job->data[part], job->bytes);
    }
}

static double measure_stream(struct stream_job *job, struct pool *pool, int parts)
{
    double rates[REPS];
    job->passes = 1;
    for (int i = -1; i < REPS;) {
        u64 begin = sys_now_ns();
        pool_run(pool, parts, stream_part, job);
        u64 taken = sys_now_ns() - begin;
        if (i < 0 && taken < 10 * 1000 * 1000) {
            job->passes *= 2; /* until a measurement takes 10 ms */
            continue;
        }
        if (i >= 0)
            rates[i] = (double)(job->bytes * job->passes * parts) / (1e-9 * (double)taken);
        i++;
    }
    return median(rates, REPS);
}

/* A random cycle through the working set, one pointer per 64-byte line. */
static double measure_latency(void **cells, i64 bytes)
{
    enum { LINE = 64 / sizeof(void *) };
    i64 lines = bytes / 64, hops = 200 * 1000;
    u64 state = 1;
    for (i64 i = 0; i < lines; i++)
        cells[i * LINE] = &cells[i * LINE];
    for (i64 i = lines - 1; i > 0; i--) { /* Sattolo: one cycle through all */
        state = state * 6364136223846793005u + 1442695040888963407u;
        i64 j = (i64)((state >> 33) % (u64)i);
        void *t = cells[i * LINE];
        cells[i * LINE] = cells[j * LINE];
        cells[j * LINE] = t;
    }
    double times[3];
    for (int rep = 0; rep < 3; rep++) {
        void **at = cells;
        u64 begin = sys_now_ns();
        for (i64 i = 0; i < hops; i++)
            at = *at;
        __asm__ volatile("" : : "r"(at));
        times[rep] = (double)(sys_now_ns() - begin) / (double)hops;
    }
    return median(times, 3);
}

/* Bytes per thread that measure a level: half of a private cache; of L3 some times L2,
 * since the whole of one that many cores share is nobody's; for memory twice L3, so that
 * nothing of a pass is left for the next. */
static i64 working_set(const struct machine *m, int level, int threads)
{
    const struct machine_level *l = m->level;
    i64 bytes = l[level].bytes / 2;
    if (level == 2 && l[1].bytes > 0)
        bytes = i64_max(i64_min(l[2].bytes / 4, 8 * l[1].bytes), 2 * l[1].bytes);
    if (level == MACHINE_LEVELS - 1)
        bytes = i64_min(i64_max((i64)256 << 20, 2 * l[2].bytes), l[level].bytes / 8 / threads);
    return round_up(bytes, 4096);
}

static void measure_level(struct machine *m, int level, struct pool *pool)
{
    enum { HUGE_PAGE = 2 << 20 };
    struct machine_level *l = &m->level[level];
    int all = (int)i64_min(pool_threads(pool), MAX_THREADS);
    struct stream_job job = { .read = read_of(m->backend),
                              .bytes = working_set(m, level, all) };
    i64 mapped = job.bytes * all + 2 * HUGE_PAGE; /* room to begin at a huge page */
    u8 *map = sys_map_pages(mapped);
    if (!map)
        return;
    u8 *region = map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE) % HUGE_PAGE;
    memset(region, 1, (size_t)(job.bytes * all));
    for (int i = 0; i < all; i++)
        job.data[i] = region + job.bytes * i;
    l->working_set = job.bytes;
    l->read_one = measure_stream(&job, pool, 1);
    l->read_all = measure_stream(&job, pool, all);
    job.copy = true;
    l->copy_one = measure_stream(&job, pool, 1);
    l->copy_all = measure_stream(&job, pool, all);
    l->latency_ns = measure_latency((void **)(void *)region, job.bytes);
    sys_unmap(map, mapped);
}

/* A chain of dependent 64-bit multiplications takes 3 cycles each on every x86-64 of the
 * last decade (Agner Fog's tables: imul r64, latency 3). */
static double measure_clock(void)
{
    enum { CHAIN = 4 * 1000 * 1000, LATENCY = 3 };
    double best = 0;
    u64 x = 3;
    for (int rep = 0; rep < REPS; rep++) {
        u64 begin = sys_now_ns();
        for (i64 i = 0; i < CHAIN; i++)
            __asm__ volatile("imul %0, %0" : "+r"(x));
        best = fmax(best, LATENCY * (double)CHAIN / (1e-9 * (double)(sys_now_ns() - begin)));
    }
    return best;
}

static void nothing(void *context, i64 part, int thread)
{
    (void)context;
    (void)part;
    (void)thread;
}

/* Of several runs the quickest: who else runs holds threads back that all wait for. */
static double measure_launch(struct pool *pool)
{
    enum { RUNS = 20, LAUNCHES = 1000 };
    double best = INFINITY;
    for (int run = 0; run < RUNS; run++) {
        u64 begin = sys_now_ns();
        for (int i = 0; i < LAUNCHES; i++)
            pool_run(pool, pool_threads(pool), nothing, NULL);
        best = fmin(best, (double)(sys_now_ns() - begin) / LAUNCHES);
    }
    return best;
}

bool machine_disturbed(const struct machine *m, const struct machine *before, char *why, int chars)
{
    const double least = 0.8; /* of what was measured before: a clock's rise and fall is less */
    if (m->threads > 1 && m->f32_all < m->f32_one) {
        snprintf(why, (size_t)chars, "%d threads multiply no faster than one", m->threads);
        return true;
    }
    if (before && (m->f32_all < least * before->f32_all ||
                   m->bf16_all < least * before->bf16_all)) {
        snprintf(why, (size_t)chars, "fp32 is %.0f and bf16 %.0f GFLOP/s, which were %.0f and %.0f",
                 1e-9 * m->f32_all, 1e-9 * m->bf16_all, 1e-9 * before->f32_all,
                 1e-9 * before->bf16_all);
        return true;
    }
    return false;
}

void machine_measure(struct machine *m, struct pool *pool,
                     void (*progress)(void *context, double fraction, const char *what),
                     void *context)
{
    static const char *const what[] = { "L1 cache", "L2 cache", "L3 cache", "memory" };
    if (progress)
        progress(context, 0, "arithmetic");
    machine_measure_peaks(m, pool);
    m->clock_hz = measure_clock();
    m->launch_ns = measure_launch(pool);
    for (int i = 0; i < MACHINE_LEVELS; i++) {
        if (progress)
            progress(context, 0.1 + 0.2 * i, what[i]);
        if (m->level[i].bytes > 0)
            measure_level(m, i, pool);
    }
    if (progress)
        progress(context, 1, "done");
}
