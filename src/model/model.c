#include "model/model.h"

#include "base/err.h"
#include "base/rng.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "graph/graph.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NOT_HERE = -1, ALIGN = 64, INIT_BLOCK = 1 << 16 };

bool model_uses_muon(const struct model *m, const struct param_desc *p)
{
    return (m->needs & MODEL_MUON) && p->kind == PARAM_MATRIX;
}

/* --- layout of the region ----------------------------------------------------------- */

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
    i64 *end = role == ROLE_AWAY ? &m->away_bytes : &m->region_bytes;
    t->offset = *end;
    *end += round_up(tensor_bytes(t), ALIGN);
    return t;
}

static struct tensor *flat(struct model *m, struct arena *a, enum tensor_role role,
                           enum dtype dtype, i64 n, const struct bucket *b)
{
    return n > 0 ? new_tensor(m, a, role, dtype, 1, &n, b->name) : NULL;
}

/* The parameter's own tensor: its elements of the bucket's, from `first` on. NULL when they
 * are not all there. */
static struct tensor *window(struct arena *a, struct tensor *of, const struct param *p, i64 first)
{
    if (!of || first < 0 || first + param_here(p) > tensor_count(of))
        return NULL;
    struct tensor *t = ARENA_NEW(a, struct tensor);
    *t = *of;
    t->name = p->desc.name;
    t->rank = p->desc.rank;
    memcpy(t->dim, p->shard.dim, sizeof p->shard.dim);
    t->index = -1;
    t->owner = of;
    t->owner_offset = first * dtype_bytes(of->dtype);
    t->data = of->data ? (char *)of->data + t->owner_offset : NULL;
    return t;
}

i64 bucket_state_at(const struct bucket *b, i64 at)
{
    if (at < b->copied)
        return at;
    bool here = at >= b->own_begin && at < b->own_begin + b->own_count;
    return here ? b->copied + at - b->own_begin : -1;
}

i64 bucket_weight_at(const struct bucket *b, i64 at)
{
    return b->split_weights ? bucket_state_at(b, at) : at;
}

i64 bucket_grad_at(const struct bucket *b, i64 at)
{
    return b->split_grads ? bucket_state_at(b, at) : at;
}

struct shard_range param_state_here(const struct param *p)
{
    const struct bucket *b = p->bucket;
    i64 n = param_here(p);
    if (p->at < b->copied)
        return (struct shard_range){ 0, n };
    i64 first = i64_max(p->at, b->own_begin);
    i64 last = i64_min(p->at + n, b->own_begin + b->own_count);
    return (struct shard_range){ i64_max(0, first - p->at), i64_max(0, last - first) };
}

struct shard_range param_weights_here(const struct param *p)
{
    return p->bucket->split_weights ? param_state_here(p)
                                    : (struct shard_range){ 0, param_here(p) };
}

float *param_weight(const struct param *p, i64 element)
{
    return (float *)p->bucket->master->data + bucket_weight_at(p->bucket, p->at + element);
}

/* The kinds that a bucket keeps apart, in their order there. */
enum place { PLACE_SHARED, PLACE_ALIKE, PLACE_CUT, PLACE_ADAM_WHOLE, PLACE_ADAM, PLACE_MUON_WHOLE,
             PLACE_MUON, PLACES };

static enum place place_of(const struct model *m, const struct param_desc *d)
{
    bool router = d->kind == PARAM_ROUTER || d->kind == PARAM_BALANCE;
    if (!param_is_copied(d))
        return router ? PLACE_ALIKE : d->split == SPLIT_NONE ? PLACE_SHARED : PLACE_CUT;
    if (d->split == SPLIT_NONE)
        return model_uses_muon(m, d) ? PLACE_MUON_WHOLE : PLACE_ADAM_WHOLE;
    return model_uses_muon(m, d) ? PLACE_MUON : PLACE_ADAM;
}

/* Ranks that split the bucket's state: of experts those who have the same. */
static i64 state_parts_of(const struct model *m, const struct bucket *b)
{
    bool apart = b->experts && m->part.state_parts > 1;
    return m->part.state_parts / (apart ? m->part.expert_neighbours : 1);
}

static void assign_places(struct model *m, struct bucket *b)
{
    i64 ends[PLACES];
    for (int place = 0; place < PLACES; place++) {
        for (i64 i = 0; i < m->n_params; i++) {
            struct param *p = &m->params[i];
            if (p->bucket != b || place_of(m, &p->desc) != (enum place)place)
                continue;
            p->at = b->count;
            b->count = round_up(b->count + param_here(p), BUCKET_ALIGN);
        }
        ends[place] = b->count;
    }
    b->alike = ends[PLACE_SHARED];
    b->cut = ends[PLACE_ALIKE];
    b->copied = ends[PLACE_CUT];
    /* Only a layer has any, and its matrices have one optimizer. */
    const bool muon = ends[PLACE_MUON_WHOLE] > ends[PLACE_ADAM];
    b->whole = muon ? ends[PLACE_ADAM] : b->copied;
    b->whole_count = ends[muon ? PLACE_MUON_WHOLE : PLACE_ADAM_WHOLE] - b->whole;
    i64 parts = state_parts_of(m, b), part = m->part.state_part / (m->part.state_parts / parts);
    b->own_count = round_up(b->count - b->copied, BUCKET_ALIGN * parts) / parts;
    b->own_begin = b->copied + b->own_count * part;
    b->count = b->copied + b->own_count * parts;
    b->adam = ends[PLACE_MUON] > ends[PLACE_ADAM] ? ends[PLACE_ADAM] : b->count;
}

/* In a pipeline a tied table is read and summed by two stages, at different times: gradients and
 * weights of its bucket stay whole. So do those of experts that no other rank has. */
static bool stays_whole(const struct model *m, const struct bucket *b)
{
    if (b->experts)
        return state_parts_of(m, b) == 1;
    return m->spec.tied && m->part.n_chunks > 0 && b->layer < 0;
}

static void lay_out_bucket(struct model *m, struct arena *a, struct bucket *b)
{
    assign_places(m, b);
    i64 state = b->copied + b->own_count;
    i64 v = i64_min(state, b->copied + i64_max(0, b->adam - b->own_begin));
    enum tensor_role role = m->part.state_folder ? ROLE_AWAY : ROLE_STATE;
    b->split_grads = m->part.split_grads && !stays_whole(m, b);
    b->split_weights = m->part.split_weights && !stays_whole(m, b);
    b->master = flat(m, a, ROLE_PARAM, DTYPE_F32, b->split_weights ? state : b->count, b);
    if (m->compute != DTYPE_F32)
        b->compute = flat(m, a, ROLE_COMPUTE, m->compute,
                          b->split_weights ? b->own_count : b->count - b->copied, b);
    if (m->needs & MODEL_GRADS)
        b->own_grad = flat(m, a, ROLE_GRAD, DTYPE_F32, b->split_grads ? state : b->count, b);
    if (b->own_grad && (m->needs & MODEL_GRADS_LENT)) {
        m->region_bytes = b->own_grad->offset;
        b->own_grad->offset = NOT_HERE;
    }
    b->grad = b->split_grads ? NULL : b->own_grad;
    if (m->needs & MODEL_ADAM) {
        b->m = flat(m, a, role, DTYPE_F32, state, b);
        b->v = flat(m, a, role, DTYPE_F32, v, b);
    }
    if (m->needs & MODEL_EMA)
        b->ema = flat(m, a, role, DTYPE_F32, state, b);
    if (m->needs & MODEL_OUTER) {
        b->anchor = flat(m, a, role, DTYPE_F32, state, b);
        b->momentum = flat(m, a, role, DTYPE_F32, state, b);
    }
}

/* What products read of a parameter, and where its gradient is summed. */
static void set_compute(struct arena *a, struct param *p)
{
    const struct bucket *b = p->bucket;
    bool copied = p->at >= b->copied;
    p->compute = p->master;
    if (copied && b->split_weights)
        p->compute = window(a, b->gathered, p, p->at - b->copied);
    else if (copied && b->compute)
        p->compute = window(a, b->compute, p, p->at - b->copied);
    p->grad = window(a, b->split_grads && !copied ? b->vector_grad : b->grad, p,
                     p->at - (b->split_grads && copied ? b->copied : 0));
    if (p->master)
        p->master->grad = p->grad;
    if (p->compute)
        p->compute->grad = p->grad;
}

static void make_windows(const struct model *m, struct arena *a, struct param *p)
{
    const struct bucket *b = p->bucket;
    i64 last = p->at + param_here(p) - 1;
    i64 state = bucket_state_at(b, last) < 0 ? -1 : bucket_state_at(b, p->at);
    bool elsewhere = b->split_weights && p->at >= b->copied;
    p->master = elsewhere ? NULL : window(a, b->master, p, p->at);
    set_compute(a, p);
    p->m = window(a, b->m, p, state);
    p->v = model_uses_muon(m, &p->desc) ? NULL : window(a, b->v, p, state);
    p->ema = window(a, b->ema, p, state);
}

/* Before the layers, each layer and its experts, behind the layers. */
static void list_buckets(struct model *m, struct arena *a)
{
    const i64 L = m->spec.layers;
    m->n_buckets = 0;
    m->buckets = ARENA_ARRAY(a, struct bucket, L + 2 + spec_sparse_layers(&m->spec));
    m->buckets[m->n_buckets++] = (struct bucket){ .name = "embedding", .layer = -1 };
    for (int i = 0; i < L; i++) {
        m->buckets[m->n_buckets++] =
            (struct bucket){ .name = arena_printf(a, "blocks.%d", i), .layer = i };
        if (spec_is_sparse(&m->spec, i))
            m->buckets[m->n_buckets++] = (struct bucket){
                .name = arena_printf(a, "blocks.%d.experts", i), .layer = i, .experts = true };
    }
    m->buckets[m->n_buckets++] = (struct bucket){ .name = "final", .layer = (int)L };
}

static struct bucket *bucket_of(const struct model *m, const struct param_desc *d)
{
    int layer = d->layer >= 0 || d->kind == PARAM_EMBEDDING ? d->layer : (int)m->spec.layers;
    i64 i = 0;
    while (m->buckets[i].layer != layer || m->buckets[i].experts != param_is_expert(d))
        i++;
    return &m->buckets[i];
}

static struct model_spec local_spec(const struct model *m)
{
    struct model_spec s = m->spec;
    s.heads /= m->part.tensor_parts;
    s.kv_heads = i64_max(1, s.kv_heads / m->part.tensor_parts); /* more ranks share one */
    s.hidden /= m->part.tensor_parts;
    s.expert_hidden /= m->part.tensor_parts;
    s.shared_hidden /= m->part.tensor_parts;
    s.experts /= m->part.expert_parts;
    return s;
}

/* --- stages ------------------------------------------------------------------------- */

bool model_has_layer(const struct model_spec *s, const struct model_part *part, i64 layer)
{
    if (part->n_chunks == 0)
        return layer >= 0 && layer < s->layers;
    for (int k = 0; k < part->n_chunks; k++)
        if (layer >= part->chunks[k].first &&
            layer < part->chunks[k].first + part->chunks[k].count)
            return true;
    return false;
}

i64 model_chunks(const struct model *m, struct layer_range out[MODEL_CHUNKS])
{
    out[0] = (struct layer_range){ 0, m->spec.layers };
    if (m->part.n_chunks == 0)
        return 1;
    memcpy(out, m->part.chunks, sizeof *out * (size_t)m->part.n_chunks);
    return m->part.n_chunks;
}

static bool holds(const struct model *m, const struct param_desc *d)
{
    bool first = model_has_layer(&m->spec, &m->part, 0);
    bool last = model_has_layer(&m->spec, &m->part, m->spec.layers - 1);
    if (d->layer >= 0)
        return model_has_layer(&m->spec, &m->part, d->layer);
    if (d->kind == PARAM_EMBEDDING)
        return first || (last && d->id == P_WTE && m->spec.tied);
    return last;
}

bool model_shares_table(const struct model *m)
{
    bool first = model_has_layer(&m->spec, &m->part, 0);
    bool last = model_has_layer(&m->spec, &m->part, m->spec.layers - 1);
    return m->spec.tied && first != last;
}

static void list_params(struct model *m, struct arena *a)
{
    const struct model_part *part = &m->part;
    i64 all, n = 0;
    struct param_desc *descs = params_of(&m->spec, a, &all);
    m->params = ARENA_ARRAY(a, struct param, all);
    for (i64 i = 0; i < all; i++) {
        if (!holds(m, &descs[i]))
            continue;
        struct param *p = &m->params[n++];
        p->desc = descs[i];
        p->shard = param_expert_share(&descs[i], part->tensor_parts, part->tensor_part,
                                      part->expert_parts, part->expert_part);
        p->bucket = bucket_of(m, &descs[i]);
    }
    m->n_params = n;
}

static void lay_out(struct model *m, struct arena *a)
{
    m->local = local_spec(m);
    list_buckets(m, a);
    list_params(m, a);
    for (i64 i = 0; i < m->n_buckets; i++)
        lay_out_bucket(m, a, &m->buckets[i]);
    for (i64 i = 0; i < m->n_params; i++)
        make_windows(m, a, &m->params[i]);
    if (m->spec.position == POSITION_ROPE) {
        const i64 dim[] = { m->positions, spec_rope_size(&m->spec) };
        m->rope_table = new_tensor(m, a, ROLE_CONST, DTYPE_F32, 2, dim, "rope.table");
    }
}

i64 model_part_bytes(const struct model_spec *s, enum dtype compute, unsigned needs,
                     i64 positions, const struct model_part *part)
{
    struct arena a;
    arena_init(&a);
    struct model m = { .spec = *s, .compute = compute, .needs = needs,
                       .positions = positions, .part = *part };
    lay_out(&m, &a);
    arena_fini(&a);
    return m.region_bytes;
}

i64 model_bytes(const struct model_spec *s, enum dtype compute, unsigned needs, i64 positions)
{
    struct model_part whole = model_whole();
    return model_part_bytes(s, compute, needs, positions, &whole);
}

static void place(const struct model *m, struct tensor *t)
{
    if (t && !t->owner && t->offset != NOT_HERE)
        t->data = (char *)(t->role == ROLE_AWAY ? m->away : m->region) + t->offset;
    else if (t && t->owner && t->owner->data)
        t->data = (char *)t->owner->data + t->owner_offset;
}

static void place_all(const struct model *m)
{
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        struct tensor *all[] = { b->master, b->compute, b->own_grad, b->m, b->v, b->ema,
                                b->anchor, b->momentum };
        for (i64 k = 0; k < COUNT_OF(all); k++)
            place(m, all[k]);
    }
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        struct tensor *all[] = { p->master, p->compute, p->grad, p->m, p->v, p->ema };
        for (i64 k = 0; k < COUNT_OF(all); k++)
            place(m, all[k]);
    }
    place(m, m->rope_table);
}

static void fill_rope_table(struct model *m)
{
    i64 D = spec_rope_size(&m->spec);
    double frequency[1024]; /* D is at most 1024 */
    float *table = m->rope_table->data;
    spec_rope_frequencies(&m->spec, frequency);
    for (i64 p = 0; p < m->positions; p++)
        for (i64 i = 0; i < D / 2; i++) {
            table[p * D + i] = (float)cos((double)p * frequency[i]);
            table[p * D + D / 2 + i] = (float)sin((double)p * frequency[i]);
        }
}

void model_outline(struct model **out, const struct model_spec *s, enum dtype compute,
                   unsigned needs, i64 positions, const struct model_part *part,
                   struct arena *a)
{
    struct model *m = ARENA_NEW(a, struct model);
    *m = (struct model){ .spec = *s, .compute = compute, .needs = needs,
                         .positions = positions, .part = *part };
    lay_out(m, a);
    *out = m;
}

int model_new_part(struct model **out, const struct model_spec *s, enum dtype compute,
                   unsigned needs, i64 positions, const struct model_part *part,
                   struct arena *a)
{
    struct model *m;
    model_outline(&m, s, compute, needs, positions, part, a);
    m->region = sys_map_pages(m->region_bytes);
    if (!m->region)
        return err_set(ERR_LIMIT, "no memory for the %.2f GB of %s's weights and optimizer "
                       "state", (double)m->region_bytes / 1e9, s->name);
    if (m->away_bytes > 0 && !(m->away = sys_map_scratch(part->state_folder, m->away_bytes))) {
        int cause = errno;
        sys_unmap(m->region, m->region_bytes);
        return err_set(ERR_SYS, "no file of %.2f GB for the optimizer's state in %s: %s; give "
                       "another offload.folder", 1e-9 * (double)m->away_bytes,
                       part->state_folder, strerror(cause));
    }
    place_all(m);
    if (m->rope_table)
        fill_rope_table(m);
    *out = m;
    return OK;
}

int model_new(struct model **out, const struct model_spec *s, enum dtype compute,
              unsigned needs, i64 positions, struct arena *a)
{
    struct model_part whole = model_whole();
    return model_new_part(out, s, compute, needs, positions, &whole, a);
}

/* A flat activation of this graph. */
static struct tensor *flat_activation(struct graph *g, enum dtype dtype, i64 n, const char *name)
{
    return n > 0 ? graph_tensor(g, ROLE_ACTIVATION, dtype, 1, &n, "%s", name) : NULL;
}

static void bind_bucket(const struct model *m, struct bucket *b, struct graph *g, bool gradients)
{
    if (gradients && b->own_grad && (m->needs & MODEL_GRADS_LENT))
        graph_adopt(g, b->own_grad);
    if (b->split_grads) {
        b->grad = gradients ? flat_activation(g, DTYPE_F32, b->count - b->copied, b->name) : NULL;
        b->vector_grad = gradients ? flat_activation(g, DTYPE_F32, b->copied, b->name) : NULL;
    }
    if (b->split_weights)
        b->gathered = flat_activation(g, m->compute, b->count - b->copied, b->name);
}

/* Views follow their owners into the graph. */
static void adopt_views(const struct param *p, struct graph *g)
{
    struct tensor *views[] = { p->grad, p->compute == p->master ? NULL : p->compute };
    for (i64 i = 0; i < COUNT_OF(views); i++)
        if (views[i] && views[i]->owner->index >= 0)
            graph_adopt(g, views[i]);
    if (p->bucket->split_weights && views[1])
        views[1]->role = ROLE_COMPUTE; /* a weight to those who ask whose gradient is wanted */
}

void model_bind(const struct model *m, struct graph *g, bool gradients)
{
    bool lent = gradients && (m->needs & MODEL_GRADS_LENT);
    if (!lent && !(gradients && m->part.split_grads) && !m->part.split_weights)
        return;
    for (i64 i = 0; i < m->n_buckets; i++)
        bind_bucket(m, &m->buckets[i], g, gradients);
    for (i64 i = 0; i < m->n_params && g->rc >= 0; i++) {
        struct param *p = &m->params[i];
        if (m->part.split_grads || m->part.split_weights)
            set_compute(g->arena, p);
        adopt_views(p, g);
    }
}

void model_free(struct model *m)
{
    if (!m)
        return;
    sys_unmap(m->region, m->region_bytes);
    sys_unmap(m->away, m->away_bytes);
}

void model_forget_away(const struct model *m)
{
    if (m->away)
        sys_forget_pages(m->away, m->away_bytes);
}

struct param *model_param(const struct model *m, enum param_id id, int layer)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (m->params[i].desc.id == id && m->params[i].desc.layer == layer)
            return &m->params[i];
    return NULL;
}

/* --- initial weights ---------------------------------------------------------------- */

/* A run of elements that lie side by side both in the whole parameter and here. */
struct init_job {
    float *data; /* of element `first` of the whole */
    i64 first, count;
    struct rng key;
    float deviation;
};

/* Element i of the whole parameter is a function of its key and i: a random number between
 * two quantiles is interpolated, so a weight costs a quarter of a random block and no
 * transcendental function. */
static void init_normals(const struct init_job *job, i64 first, i64 last)
{
    const float *quantile = rng_quantiles();
    for (i64 i = first; i < last; i = i / 4 * 4 + 4) {
        u32 bits[4];
        rng_block(&job->key, (u64)(i / 4), bits);
        for (i64 k = i % 4; k < i64_min(4, last - i / 4 * 4); k++) {
            u32 cell = bits[k] >> (32 - RNG_QUANTILE_BITS);
            float between = (float)(bits[k] & 0xfffffu) * 0x1p-20f;
            float low = quantile[cell], high = quantile[cell + 1];
            job->data[i / 4 * 4 + k - job->first] = (low + between * (high - low)) * job->deviation;
        }
    }
}

static void init_block(void *context, i64 block, int thread)
{
    const struct init_job *job = context;
    i64 first = job->first + block * INIT_BLOCK, last = job->first + job->count;
    (void)thread;
    init_normals(job, first, i64_min(last, first + INIT_BLOCK));
}

/* Elements of the share that are here, and where the first of them lies. */
struct init_here {
    i64 begin, end;
    float *data;
};

/* A run of the share from its element `at` on: what of it is here. */
static void init_run(struct init_job job, i64 at, const struct init_here *here, struct pool *pool)
{
    i64 from = i64_max(at, here->begin), to = i64_min(at + job.count, here->end);
    job.first += from - at;
    job.count = to - from;
    job.data = here->data + (from - here->begin);
    if (job.count > 0)
        pool_run(pool, ceil_div(job.count, INIT_BLOCK), init_block, &job);
}

/* Whole rows are one run per piece, of every expert; a share of the columns is one per row. */
static void init_shard(const struct param *p, struct init_job job, const struct init_here *here,
                       struct pool *pool)
{
    const struct param_shard *s = &p->shard;
    i64 C = p->desc.rank == 2 ? p->desc.dim[1] : 1, at = 0;
    i64 columns = p->desc.rank == 2 ? s->columns.count : 1;
    i64 rows = p->desc.dim[0] / p->desc.experts; /* of one expert */
    for (i64 i = 0; i < s->experts.count * s->pieces; i++) {
        const struct shard_range *piece = &s->rows[i % s->pieces];
        i64 first = (s->experts.begin + i / s->pieces) * rows + piece->begin;
        i64 runs = columns == C ? 1 : piece->count;
        job.count = piece->count * columns / i64_max(1, runs);
        for (i64 run = 0; run < runs; run++, at += job.count) {
            job.first = (first + run) * C + s->columns.begin;
            init_run(job, at, here, pool);
        }
    }
}

static void init_param(const struct model *m, struct param *p, u64 seed, struct pool *pool)
{
    const struct shard_range range = param_weights_here(p);
    if (range.count == 0)
        return;
    const struct init_here here = { range.begin, range.begin + range.count,
                                    param_weight(p, range.begin) };
    if (p->desc.init == INIT_ONES || p->desc.init == INIT_ZEROS) {
        for (i64 i = 0; i < range.count; i++)
            here.data[i] = p->desc.init == INIT_ONES ? 1.0f : 0.0f;
        return;
    }
    double deviation = m->spec.init_std;
    if (p->desc.init == INIT_RESIDUAL && m->spec.init_residual)
        deviation /= sqrt(2.0 * (double)m->spec.layers);
    struct init_job job = { .key = { seed, rng_stream(p->desc.name) },
                            .deviation = (float)deviation };
    init_shard(p, job, &here, pool);
}

/* What lies as the state does becomes what the weights are. */
static void copy_weights(const struct bucket *b, const struct tensor *state)
{
    if (!state)
        return;
    float *to = state->data, *master = b->master->data;
    memcpy(to, master, (size_t)b->copied * sizeof *to);
    memcpy(to + b->copied, master + bucket_weight_at(b, b->own_begin),
           (size_t)b->own_count * sizeof *to);
}

void model_start_averages(struct model *m)
{
    for (i64 i = 0; i < m->n_buckets; i++) {
        copy_weights(&m->buckets[i], m->buckets[i].ema);
        copy_weights(&m->buckets[i], m->buckets[i].anchor);
    }
}

void model_init(struct model *m, u64 seed, struct pool *pool)
{
    for (i64 i = 0; i < m->n_params; i++)
        init_param(m, &m->params[i], seed, pool);
    model_start_averages(m);
    model_refresh_compute(m, pool);
}

/* --- averages ----------------------------------------------------------------------- */

static void swap_floats(float *a, float *b, i64 n)
{
    for (i64 i = 0; i < n; i++) {
        float t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

static void swap_weights(const struct bucket *b, const struct tensor *state)
{
    if (!state)
        return;
    float *with = state->data, *weights = b->master->data;
    swap_floats(with, weights, b->copied);
    swap_floats(with + b->copied, weights + bucket_weight_at(b, b->own_begin), b->own_count);
}

void model_swap_averages(const struct model *m)
{
    for (i64 i = 0; i < m->n_buckets; i++)
        swap_weights(&m->buckets[i], m->buckets[i].ema);
}

void model_swap_anchors(const struct model *m)
{
    for (i64 i = 0; i < m->n_buckets; i++)
        swap_weights(&m->buckets[i], m->buckets[i].anchor);
}

/* --- what was loaded ---------------------------------------------------------------- */

const struct param *model_first_not_finite(const struct model *m, i64 *element)
{
    for (i64 i = 0; i < m->n_params; i++) {
        const struct shard_range here = param_weights_here(&m->params[i]);
        const float *x = here.count ? param_weight(&m->params[i], here.begin) : NULL;
        i64 n = here.count;
        u32 bad = 0, exponent = 0x7f800000, bits;
        for (i64 k = 0; k < n; k++) { /* without a way out, so that it becomes vectors */
            memcpy(&bits, &x[k], sizeof bits);
            bad |= (bits & exponent) == exponent;
        }
        if (!bad)
            continue;
        i64 k = 0;
        while (isfinite(x[k]))
            k++;
        *element = here.begin + k;
        return &m->params[i];
    }
    return NULL;
}

/* --- compute copies ----------------------------------------------------------------- */

static void round_block(void *context, i64 block, int thread)
{
    const struct bucket *b = context;
    const float *from = (const float *)b->master->data + b->copied;
    bf16 *to = b->compute->data;
    (void)thread;
    i64 last = i64_min(tensor_count(b->compute), (block + 1) * INIT_BLOCK);
    for (i64 i = block * INIT_BLOCK; i < last; i++)
        to[i] = bf16_from_f32(from[i]);
}

void model_refresh_compute(struct model *m, struct pool *pool)
{
    for (i64 i = 0; i < m->n_buckets; i++) {
        struct bucket *b = &m->buckets[i];
        if (b->compute)
            pool_run(pool, ceil_div(tensor_count(b->compute), INIT_BLOCK), round_block, b);
    }
}
