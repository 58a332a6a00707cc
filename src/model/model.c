#include "model/model.h"

#include "base/err.h"
#include "base/rng.h"
#include "base/sys.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { ALIGN = 64, INIT_BLOCK = 1 << 16 };

bool model_uses_muon(const struct model *m, const struct param_desc *p)
{
    return (m->needs & MODEL_MUON) && p->kind == PARAM_MATRIX;
}

/* --- layout of the region ------------------------------------------------------------ */

static struct tensor *new_tensor(struct model *m, struct arena *a, enum tensor_role role,
                                 enum dtype dtype, int rank, const i64 *dim, const char *name)
{
    struct tensor *t = ARENA_NEW(a, struct tensor);
    t->name = name;
    t->dtype = dtype;
    t->role = role;
    t->rank = rank;
    t->index = -1;
    memcpy(t->dim, dim, sizeof *dim * (size_t)rank);
    t->offset = m->region_bytes;
    m->region_bytes += round_up(tensor_bytes(t), ALIGN);
    return t;
}

static void lay_out_param(struct model *m, struct arena *a, struct param *p)
{
    const struct param_desc *d = &p->desc;
    bool matrix = param_decays(d), muon = model_uses_muon(m, d);
    p->master = new_tensor(m, a, ROLE_PARAM, DTYPE_F32, d->rank, d->dim, d->name);
    p->compute = p->master;
    if (matrix && m->compute != DTYPE_F32)
        p->compute = new_tensor(m, a, ROLE_COMPUTE, m->compute, d->rank, d->dim, d->name);
    if (m->needs & MODEL_GRADS) {
        p->grad = new_tensor(m, a, ROLE_GRAD, DTYPE_F32, d->rank, d->dim, d->name);
        p->master->grad = p->compute->grad = p->grad;
    }
    if (m->needs & MODEL_ADAM) {
        p->m = new_tensor(m, a, ROLE_STATE, DTYPE_F32, d->rank, d->dim, d->name);
        if (!muon)
            p->v = new_tensor(m, a, ROLE_STATE, DTYPE_F32, d->rank, d->dim, d->name);
    }
    if (m->needs & MODEL_EMA)
        p->ema = new_tensor(m, a, ROLE_STATE, DTYPE_F32, d->rank, d->dim, d->name);
}

static void lay_out(struct model *m, struct arena *a)
{
    i64 n;
    struct param_desc *descs = params_of(&m->spec, a, &n);
    m->params = ARENA_ARRAY(a, struct param, n);
    m->n_params = n;
    for (i64 i = 0; i < n; i++) {
        m->params[i].desc = descs[i];
        lay_out_param(m, a, &m->params[i]);
    }
    if (m->spec.position == POSITION_ROPE) {
        const i64 dim[] = { m->positions, m->spec.head_size };
        m->rope_table = new_tensor(m, a, ROLE_CONST, DTYPE_F32, 2, dim, "rope.table");
    }
}

i64 model_bytes(const struct model_spec *s, enum dtype compute, unsigned needs, i64 positions)
{
    struct arena a;
    arena_init(&a);
    struct model m = { .spec = *s, .compute = compute, .needs = needs,
                       .positions = positions };
    lay_out(&m, &a);
    arena_fini(&a);
    return m.region_bytes;
}

static void place(const struct model *m, struct tensor *t)
{
    if (t)
        t->data = (char *)m->region + t->offset;
}

static void fill_rope_table(struct model *m)
{
    i64 D = m->spec.head_size;
    double frequency[1024]; /* head_size is at most 1024 */
    float *table = m->rope_table->data;
    spec_rope_frequencies(&m->spec, frequency);
    for (i64 p = 0; p < m->positions; p++)
        for (i64 i = 0; i < D / 2; i++) {
            table[p * D + i] = (float)cos((double)p * frequency[i]);
            table[p * D + D / 2 + i] = (float)sin((double)p * frequency[i]);
        }
}

int model_new(struct model **out, const struct model_spec *s, enum dtype compute,
              unsigned needs, i64 positions, struct arena *a)
{
    struct model *m = ARENA_NEW(a, struct model);
    *m = (struct model){ .spec = *s, .compute = compute, .needs = needs,
                         .positions = positions };
    lay_out(m, a);
    m->region = sys_map_pages(m->region_bytes);
    if (!m->region)
        return err_set(ERR_LIMIT, "no memory for the %.2f GB of %s's weights and optimizer "
                       "state", (double)m->region_bytes / 1e9, s->name);
    for (i64 i = 0; i < m->n_params; i++) {
        struct param *p = &m->params[i];
        struct tensor *all[] = { p->master, p->compute, p->grad, p->m, p->v, p->ema };
        for (i64 k = 0; k < COUNT_OF(all); k++)
            place(m, all[k]);
    }
    place(m, m->rope_table);
    if (m->rope_table)
        fill_rope_table(m);
    *out = m;
    return OK;
}

void model_free(struct model *m)
{
    if (m)
        sys_unmap(m->region, m->region_bytes);
}

struct param *model_param(const struct model *m, enum param_id id, int layer)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (m->params[i].desc.id == id && m->params[i].desc.layer == layer)
            return &m->params[i];
    return NULL;
}

struct param *model_param_named(const struct model *m, const char *name)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (strcmp(m->params[i].desc.name, name) == 0)
            return &m->params[i];
    return NULL;
}

/* --- initial weights --------------------------------------------------------------------- */

struct init_job {
    float *data;
    i64 count;
    struct rng key;
    float deviation;
};

/* The normal distribution's quantiles at i / QUANTILES. Between them a random number is
 * interpolated, so a weight costs a quarter of a random block and no transcendental
 * function; tails end at 4.2 deviations. Plain arithmetic: the same on every machine. */
enum { QUANTILE_BITS = 12, QUANTILES = 1 << QUANTILE_BITS };
static float quantile[QUANTILES + 1];
static pthread_once_t quantiles_once = PTHREAD_ONCE_INIT;

static void fill_quantiles(void)
{
    double x = -4.2; /* Newton's method from one quantile to the next */
    for (int i = 1; i <= QUANTILES / 2; i++) {
        double p = (double)i / QUANTILES;
        for (int k = 0; k < 20; k++) {
            double density = 0.39894228040143268 * exp(-0.5 * x * x); /* 1/sqrt(2 pi) */
            x += (p - 0.5 * erfc(-x * 0.70710678118654752)) / density;
        }
        quantile[i] = (float)x;
        quantile[QUANTILES - i] = -(float)x;
    }
    quantile[QUANTILES / 2] = 0;
    quantile[0] = -4.2f;
    quantile[QUANTILES] = 4.2f;
}

static void init_normals(const struct init_job *job, i64 first, i64 last)
{
    for (i64 i = first; i < last; i += 4) {
        u32 bits[4];
        rng_block(&job->key, (u64)(i / 4), bits);
        for (i64 k = 0; k < i64_min(4, last - i); k++) {
            u32 cell = bits[k] >> (32 - QUANTILE_BITS);
            float between = (float)(bits[k] & 0xfffffu) * 0x1p-20f;
            float low = quantile[cell], high = quantile[cell + 1];
            job->data[i + k] = (low + between * (high - low)) * job->deviation;
        }
    }
}

static void init_block(void *context, i64 block, int thread)
{
    const struct init_job *job = context;
    (void)thread;
    init_normals(job, block * INIT_BLOCK, i64_min(job->count, (block + 1) * INIT_BLOCK));
}

static void init_param(const struct model *m, struct param *p, u64 seed, struct pool *pool)
{
    i64 n = tensor_count(p->master);
    float *data = p->master->data;
    if (p->desc.init == INIT_ONES || p->desc.init == INIT_ZEROS) {
        for (i64 i = 0; i < n; i++)
            data[i] = p->desc.init == INIT_ONES ? 1.0f : 0.0f;
        return;
    }
    double deviation = m->spec.init_std;
    if (p->desc.init == INIT_RESIDUAL && m->spec.init_residual)
        deviation /= sqrt(2.0 * (double)m->spec.layers);
    struct init_job job = { data, n, { seed, rng_stream(p->desc.name) }, (float)deviation };
    pool_run(pool, ceil_div(n, INIT_BLOCK), init_block, &job);
}

void model_init(struct model *m, u64 seed, struct pool *pool)
{
    pthread_once(&quantiles_once, fill_quantiles);
    for (i64 i = 0; i < m->n_params; i++) {
        struct param *p = &m->params[i];
        init_param(m, p, seed, pool);
        if (p->ema)
            memcpy(p->ema->data, p->master->data, (size_t)tensor_bytes(p->master));
    }
    model_refresh_compute(m, pool);
}

/* --- compute copies ------------------------------------------------------------------------ */

static void round_block(void *context, i64 block, int thread)
{
    const struct param *p = context;
    const float *from = p->master->data;
    bf16 *to = p->compute->data;
    (void)thread;
    i64 last = i64_min(tensor_count(p->master), (block + 1) * INIT_BLOCK);
    for (i64 i = block * INIT_BLOCK; i < last; i++)
        to[i] = bf16_from_f32(from[i]);
}

void model_refresh_compute(struct model *m, struct pool *pool)
{
    for (i64 i = 0; i < m->n_params; i++) {
        struct param *p = &m->params[i];
        if (p->compute != p->master)
            pool_run(pool, ceil_div(tensor_count(p->master), INIT_BLOCK), round_block, p);
    }
}
