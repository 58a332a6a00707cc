#include "diagnose/attained.h"

#include "base/dtype.h"
#include "base/sort.h"
#include "diagnose/usual_time.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KERNELS = 64 };
static const double least_share = 0.02; /* of a rank's computing: less is no witness of a peak */
static const double as_measured = 1.02; /* so far beyond a ceiling is its own noise */
static const double near_best = 0.01;   /* of the ratios so many are higher, as of usual times shorter */
static const double alike = 0.02;       /* speeds that differ by less are */

static u64 key_of(const struct record_task *t)
{
    return t->op_hash ^ (u64)(16 * t->phase + t->dtype + 1) * 0x9e3779b97f4a7c15u;
}

static double probed_peak(const struct record_head *h, int dtype)
{
    const double peak = dtype == DTYPE_BF16 ? h->flops_bf16 : h->flops_f32;
    return peak > 0 ? peak : fmax(h->flops_f32, h->flops_bf16);
}

/* --- a step ------------------------------------------------------------------------- */

struct kernel {
    u64 key;
    int dtype;
    bool attends; /* what it has to do is not known in all layouts */
    double at_peak, at_rate, seconds;
};

static struct kernel *kernel_of(struct kernel *all, int *n, const struct record_task *t)
{
    const u64 key = key_of(t);
    for (int i = 0; i < *n; i++)
        if (all[i].key == key)
            return &all[i];
    if (*n == KERNELS)
        return NULL;
    all[*n] = (struct kernel){ .key = key, .dtype = t->dtype, .attends = usual_attends(t) };
    return &all[(*n)++];
}

static int sum_kernels(const struct record_rank *k, const struct computed *c, struct kernel *all,
                       double *total)
{
    const double rate = k->head->memory_bytes_per_s;
    int n = 0;
    *total = 0;
    for (i64 i = 0; i < c->n; i++) {
        const struct record_task *t = &k->table->tasks[(u32)c->task[i]];
        struct kernel *x = kernel_of(all, &n, t);
        *total += c->seconds[i];
        if (!x)
            continue;
        const double peak = probed_peak(k->head, t->dtype);
        x->seconds += c->seconds[i];
        x->at_peak += peak > 0 ? t->flops / peak : 0;
        x->at_rate += rate > 0 ? (t->read_bytes + t->written_bytes) / rate : 0;
    }
    return n;
}

#define MORE(a, list, n, room, more)                                                     \
    do {                                                                                 \
        if ((n) + (more) > (room)) {                                                     \
            (room) = i64_max(2 * (room), i64_max(256, (n) + (more)));                    \
            void *to_ = arena_alloc_unset((a)->arena, (room) * (i64)sizeof *(list));     \
            if ((n) > 0)                                                                 \
                memcpy(to_, (list), (size_t)(n) * sizeof *(list));                       \
            (list) = to_;                                                                \
        }                                                                                \
    } while (0)

static void add_peak(struct attained *a, const struct attained_peak *p)
{
    MORE(a, a->peaks, a->n_peaks, a->room_peaks, 1);
    a->peaks[a->n_peaks++] = *p;
}

/* from: where the step's kernels begin. */
static void add_kernel(struct attained *a, i64 from, const struct attained_kernel *k)
{
    for (i64 i = from; i < a->n_kernels; i++)
        if (a->kernels[i].key == k->key) {
            struct attained_kernel *best = &a->kernels[i];
            if (k->speed > best->speed + alike)
                *best = *k;
            else if (k->speed >= best->speed - alike) {
                best->by_flops = fmax(best->by_flops, k->by_flops);
                best->by_bytes = fmax(best->by_bytes, k->by_bytes);
            }
            return;
        }
    MORE(a, a->kernels, a->n_kernels, a->room_kernels, 1);
    a->kernels[a->n_kernels++] = *k;
}

void attained_add(struct attained *a, const struct computing *c, const double *speed)
{
    const i64 from = a->n_kernels;
    for (int r = 0; r < c->n_ranks; r++) {
        struct kernel all[KERNELS];
        double total, best[DTYPES] = { 0 };
        const struct record_head *h = c->s->ranks[r].head;
        if (!h || strcmp(h->backend, "none") == 0) /* its ceilings are given, and nothing computes */
            continue;
        const int n = sum_kernels(&c->s->ranks[r], &c->ranks[r], all, &total);
        for (int i = 0; i < n; i++) {
            const struct kernel *k = &all[i];
            if (!(k->seconds > 0))
                continue;
            const struct attained_kernel x = { k->key, speed[r], k->at_peak / k->seconds,
                                               k->at_rate / k->seconds };
            add_kernel(a, from, &x);
            if (k->seconds >= least_share * total && !k->attends && k->dtype >= 0 && k->dtype < DTYPES)
                best[k->dtype] = fmax(best[k->dtype], x.by_flops * speed[r]);
        }
        for (int d = 0; d < DTYPES; d++)
            if (best[d] > 0)
                add_peak(a, &(struct attained_peak){ r, d, best[d] });
    }
}

void attained_take(struct attained *a, const struct attained *other)
{
    for (i64 i = 0; i < other->n_peaks; i++)
        add_peak(a, &other->peaks[i]);
    if (other->n_kernels > 0) {
        MORE(a, a->kernels, a->n_kernels, a->room_kernels, other->n_kernels);
        memcpy(a->kernels + a->n_kernels, other->kernels,
               (size_t)other->n_kernels * sizeof *a->kernels);
        a->n_kernels += other->n_kernels;
    }
}

/* --- all steps ---------------------------------------------------------------------- */

static int by_rank(const void *a, const void *b)
{
    const struct attained_peak *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->dtype - y->dtype;
}

static int by_key(const void *a, const void *b)
{
    const struct attained_kernel *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->speed < y->speed) - (x->speed > y->speed);
}

/* Of n ratios. */
static double high(const double *ratios, i64 n, struct arena *a)
{
    return sort_select(ratios, n, n - 1 - (i64)(near_best * (double)(n - 1)), a);
}

static void settle_peaks(struct attained *a)
{
    double *ratios = ARENA_UNSET(a->arena, double, a->n_peaks);
    i64 kept = 0;
    if (a->n_peaks > 0)
        qsort(a->peaks, (size_t)a->n_peaks, sizeof *a->peaks, by_rank);
    for (i64 i = 0, to; i < a->n_peaks; i = to) {
        struct attained_peak p = a->peaks[i];
        i64 n = 0;
        for (to = i; to < a->n_peaks && by_rank(&a->peaks[to], &p) == 0; to++)
            ratios[n++] = a->peaks[to].ratio;
        p.ratio = high(ratios, n, a->arena);
        if (p.ratio > as_measured)
            a->peaks[kept++] = p;
    }
    a->n_peaks = kept;
}

/* Of any rank: kernels are those of all. */
static double most_beyond(const struct attained *a)
{
    double most = 1;
    for (i64 i = 0; i < a->n_peaks; i++)
        most = fmax(most, a->peaks[i].ratio);
    return most;
}

void attained_settle(struct attained *a)
{
    double *flops = ARENA_UNSET(a->arena, double, a->n_kernels);
    double *bytes = ARENA_UNSET(a->arena, double, a->n_kernels);
    i64 kept = 0;
    settle_peaks(a);
    const double beyond = most_beyond(a);
    if (a->n_kernels > 0)
        qsort(a->kernels, (size_t)a->n_kernels, sizeof *a->kernels, by_key);
    for (i64 i = 0, to; i < a->n_kernels; i = to) {
        struct attained_kernel x = a->kernels[i];
        i64 n = 0;
        for (to = i; to < a->n_kernels && a->kernels[to].key == x.key; to++)
            if (a->kernels[to].speed >= x.speed - alike) {
                flops[n] = a->kernels[to].by_flops;
                bytes[n++] = a->kernels[to].by_bytes;
            }
        x.by_flops = high(flops, n, a->arena) / beyond;
        x.by_bytes = high(bytes, n, a->arena);
        if (fmax(x.by_flops, x.by_bytes) > as_measured)
            a->kernels[kept++] = x;
    }
    a->n_kernels = kept;
}

int attained_dtype_in_use(const struct record_head *h)
{
    return strcmp(h->precision, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
}

static double ratio_of(const struct attained *a, int rank, int dtype)
{
    for (i64 i = 0; i < a->n_peaks; i++)
        if (a->peaks[i].rank == rank && a->peaks[i].dtype == dtype)
            return a->peaks[i].ratio;
    return 1;
}

double attained_peak(const struct attained *a, const struct record_head *h, int dtype)
{
    const double in_use = ratio_of(a, h->rank, attained_dtype_in_use(h));
    return probed_peak(h, dtype) * fmax(ratio_of(a, h->rank, dtype), in_use);
}

double attained_beyond(const struct attained *a, const struct record_task *t)
{
    const u64 key = key_of(t);
    for (i64 i = 0; i < a->n_kernels; i++)
        if (a->kernels[i].key == key)
            return fmax(a->kernels[i].by_flops, a->kernels[i].by_bytes);
    return 1;
}
