#include "data/mixture.h"

#include <string.h>

/* Places per block, by largest remainders, at least one for each source that stays. */
static void apportion(const struct mixture *m, const struct mixture_phase *p)
{
    double total = 0, remainder[MIXTURE_SOURCES];
    i64 left = MIXTURE_BLOCK;
    for (i64 s = 0; s < m->n_sources; s++)
        if (p->used[s] < m->sources[s].limit)
            total += m->sources[s].weight;
    for (i64 s = 0; s < m->n_sources; s++) {
        p->share[s] = 0;
        remainder[s] = -1;
        if (p->used[s] >= m->sources[s].limit)
            continue;
        double exact = MIXTURE_BLOCK * (m->sources[s].weight / total);
        p->share[s] = i64_max(1, (i64)exact);
        remainder[s] = exact - (double)p->share[s];
        left -= p->share[s];
    }
    while (left != 0) { /* at most n_sources rounds */
        i64 best = -1;
        for (i64 s = 0; s < m->n_sources; s++) {
            if (p->share[s] == 0 || (left < 0 && p->share[s] == 1))
                continue;
            if (best < 0 || (left > 0 ? remainder[s] > remainder[best]
                                      : remainder[s] < remainder[best]))
                best = s;
        }
        int change = left > 0 ? 1 : -1;
        p->share[best] += change;
        remainder[best] -= change;
        left -= change;
    }
}

/* Gives each place to the source that lags most behind its share. */
static void deal(const struct mixture *m, const struct mixture_phase *p)
{
    i64 dealt[MIXTURE_SOURCES] = { 0 };
    for (i64 i = 0; i < MIXTURE_BLOCK; i++) {
        i64 best = -1, best_lag = 0;
        for (i64 s = 0; s < m->n_sources; s++) {
            i64 lag = p->share[s] * (2 * i + 1) - 2 * dealt[s] * MIXTURE_BLOCK;
            if (dealt[s] < p->share[s] && (best < 0 || lag > best_lag)) {
                best = s;
                best_lag = lag;
            }
        }
        p->source[i] = (u16)best;
        p->rank[i] = (u16)dealt[best]++;
    }
}

/* Samples of the phase before source s, which has `left` to give, is asked for one more. */
static i64 lasts(const struct mixture_phase *p, i64 s, i64 left)
{
    if (p->share[s] == 0 || left > INT64_MAX / MIXTURE_BLOCK / 2)
        return INT64_MAX;
    i64 place = 0;
    while (p->source[place] != s || p->rank[place] != left % p->share[s])
        place++;
    return left / p->share[s] * MIXTURE_BLOCK + place;
}

static i64 taken(const struct mixture_phase *p, i64 s, i64 samples)
{
    i64 n = samples / MIXTURE_BLOCK * p->share[s];
    for (i64 i = 0; i < samples % MIXTURE_BLOCK; i++)
        n += p->source[i] == s;
    return n;
}

static void make_phases(struct mixture *m)
{
    m->n_phases = 0;
    i64 begin = 0;
    while (m->n_phases < m->n_sources) {
        struct mixture_phase *p = &m->phases[m->n_phases];
        const struct mixture_phase *before = p - 1;
        i64 staying = 0, length = INT64_MAX;
        p->begin = begin;
        for (i64 s = 0; s < m->n_sources; s++) {
            p->used[s] = m->n_phases == 0
                             ? 0
                             : before->used[s] + taken(before, s, begin - before->begin);
            staying += p->used[s] < m->sources[s].limit;
        }
        if (staying == 0)
            break;
        apportion(m, p);
        deal(m, p);
        for (i64 s = 0; s < m->n_sources; s++)
            if (p->share[s] > 0)
                length = i64_min(length, lasts(p, s, m->sources[s].limit - p->used[s]));
        m->n_phases++;
        if (length == INT64_MAX) {
            begin = INT64_MAX;
            break;
        }
        begin += length;
    }
    m->samples = begin;
}

void mixture_init(struct mixture *m, const struct mixture_source *sources, i64 n,
                  struct arena *a)
{
    assert(n >= 1 && n <= MIXTURE_SOURCES);
    *m = (struct mixture){ .n_sources = n };
    m->sources = ARENA_ARRAY(a, struct mixture_source, n);
    memcpy(m->sources, sources, sizeof *sources * (size_t)n);
    m->phases = ARENA_ARRAY(a, struct mixture_phase, n);
    for (i64 i = 0; i < n; i++) {
        m->phases[i].used = ARENA_ARRAY(a, i64, n);
        m->phases[i].share = ARENA_ARRAY(a, i64, n);
        m->phases[i].source = ARENA_ARRAY(a, u16, MIXTURE_BLOCK);
        m->phases[i].rank = ARENA_ARRAY(a, u16, MIXTURE_BLOCK);
    }
    make_phases(m);
}

static const struct mixture_phase *phase_at(const struct mixture *m, i64 g)
{
    i64 i = m->n_phases - 1;
    while (m->phases[i].begin > g)
        i--;
    return &m->phases[i];
}

void mixture_at(const struct mixture *m, i64 g, int *source, i64 *nth)
{
    assert(g >= 0 && g < m->samples);
    const struct mixture_phase *p = phase_at(m, g);
    i64 block = (g - p->begin) / MIXTURE_BLOCK, place = (g - p->begin) % MIXTURE_BLOCK;
    *source = p->source[place];
    *nth = p->used[*source] + block * p->share[*source] + p->rank[place];
}

bool mixture_has(const struct mixture *m, i64 g, int source)
{
    assert(g >= 0 && g < m->samples);
    return phase_at(m, g)->share[source] > 0;
}

i64 mixture_used(const struct mixture *m, i64 g, int source)
{
    if (m->n_phases == 0)
        return 0;
    const struct mixture_phase *p = phase_at(m, i64_min(g, m->samples));
    return p->used[source] + taken(p, source, i64_min(g, m->samples) - p->begin);
}

void mixture_set_limit(struct mixture *m, int source, i64 limit)
{
    m->sources[source].limit = limit;
    make_phases(m);
}
