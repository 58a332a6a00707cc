#include "support/byte_formulas.h"

#include "model/decoder.h"
#include "ops/ops.h"

#include <math.h>

enum { WIDE = 4 }; /* bytes of what is summed */

/* --- a ring ------------------------------------------------------------------------- */

/* n ranks, of which this is number i. */
struct ring {
    i64 n, i;
};

static struct ring ring_of(const struct byte_case *x, enum lane lane)
{
    return (struct ring){ mesh_degree(x->mesh, lane), mesh_coordinate(x->mesh, lane) };
}

/* Elements that a rank sends where each gets all n parts. */
static i64 gathered(struct ring r, i64 part)
{
    return (r.n - 1) * part;
}

/* Where each has n equal parts, and one goes to every rank. */
static i64 scattered(struct ring r, i64 whole)
{
    assert(whole % r.n == 0);
    return (r.n - 1) * (whole / r.n);
}

/* Where X elements are summed everywhere, each rank sums a part of them: X / n, the first X mod n
 * ranks one more. Rank i sends the other parts to whoever sums them, X - part_i, and its own
 * sum to n - 1 ranks: X + (n - 2) part_i. */
static i64 summed(struct ring r, i64 X)
{
    const i64 part = X / r.n + (r.i < X % r.n);
    return r.n == 1 ? 0 : X + (r.n - 2) * part;
}

/* --- who is where ------------------------------------------------------------------- */

static i64 activation_bytes(const struct byte_case *x)
{
    return dtype_bytes(x->m->compute);
}

static bool has_layer(const struct byte_case *x, i64 layer)
{
    return model_has_layer(&x->m->spec, &x->m->part, layer);
}

static bool has_last(const struct byte_case *x)
{
    return has_layer(x, x->m->spec.layers - 1);
}

static i64 sparse_layers_here(const struct byte_case *x)
{
    i64 n = 0;
    for (i64 i = 0; i < x->m->spec.layers; i++)
        n += has_layer(x, i) && spec_is_sparse(&x->m->spec, i);
    return n;
}

/* Tokens of a micro-batch that are here. */
static i64 tokens_here(const struct byte_case *x)
{
    return x->B * x->T / x->mesh->layout.cp;
}

/* Experts' matrices that are spread over ep. */
static bool is_spread(const struct byte_case *x, const struct bucket *b)
{
    return b->experts && x->mesh->layout.ep > 1;
}

/* Whether ranks along the lane split state. */
static bool splits(const struct byte_case *x, enum lane lane)
{
    return x->mesh->layout.zero >= ZERO_OPTIMIZER && mesh_degree(x->mesh, lane) > 1;
}

/* The ranks that split what zero splits: all that share the batch, or groups of them. */
static enum lane split_lane(const struct byte_case *x)
{
    return ring_of(x, LANE_COPIES).n > 1 ? LANE_SHARD : LANE_DP;
}

static enum lane splitters_of(const struct byte_case *x, const struct bucket *b)
{
    return is_spread(x, b) ? LANE_EDP : split_lane(x);
}

/* Zero 2 and 3 leave gradients and weights whole that two stages share, or that no other rank has.
 */
static bool stays_whole(const struct byte_case *x, const struct bucket *b)
{
    if (is_spread(x, b))
        return ring_of(x, LANE_EDP).n == 1;
    return x->m->spec.tied && x->mesh->layout.pp > 1 && b->layer < 0;
}

static bool splits_gradients(const struct byte_case *x, const struct bucket *b)
{
    return x->mesh->layout.zero >= ZERO_GRADIENTS && !stays_whole(x, b) &&
           splits(x, splitters_of(x, b));
}

/* The head's weight, on whoever has the last layer. */
static const struct param *head_of(const struct byte_case *x)
{
    return has_last(x) ? model_param(x->m, x->m->spec.tied ? P_WTE : P_HEAD, -1) : NULL;
}

/* In exact mode a table that is embedding and head on one rank has the embedding's gradient apart.
 */
static bool has_twice(const struct byte_case *x, const struct param *p)
{
    return x->m->spec.tied && p->desc.id == P_WTE && has_layer(x, 0) && has_last(x);
}

/* --- gradients ---------------------------------------------------------------------- */

/* In the fewest equal messages that layout.bucket allows. */
static i64 summed_in_messages(const struct byte_case *x, enum lane lane, i64 X)
{
    const i64 most = x->mesh->layout.bucket;
    i64 n = most > 0 ? ceil_div(WIDE * X, most) : 1;
    while (n > 1 && n < X && X % n)
        n++;
    n = i64_max(1, i64_min(n, X));
    return WIDE * n * summed(ring_of(x, lane), X / n);
}

/* Gradients of micro-batches were added up: they are summed once, split ones by those who split
 * first, of zero 2 and 3 in each micro-batch, then over the copies of these. What a matrix is not
 * is summed everywhere, and so is a table that stages share, whose slices are others there. */
static void add_sums(struct lane_bytes *c, const struct byte_case *x, const struct bucket *b)
{
    const enum lane splitters = splitters_of(x, b), all = is_spread(x, b) ? LANE_EDP : LANE_DP;
    const bool shared = model_shares_table(x->m) && b->layer < 0;
    const i64 times = splits_gradients(x, b) ? x->micro_batches : 1;
    if (shared) {
        c->sent[LANE_DP] += WIDE * summed(ring_of(x, LANE_DP), b->count);
    } else if (!splits(x, splitters)) {
        c->sent[all] += summed_in_messages(x, all, b->count);
        if (all == LANE_EDP)
            c->sent[LANE_COPIES] += WIDE * summed(ring_of(x, LANE_COPIES), b->count);
    } else {
        const i64 matrices = b->count - b->copied;
        c->sent[splitters] += times * WIDE * scattered(ring_of(x, splitters), matrices);
        c->sent[LANE_COPIES] += WIDE * summed(ring_of(x, LANE_COPIES), b->own_count);
        c->sent[LANE_DP] += summed_in_messages(x, LANE_DP, b->copied);
    }
}

/* A group of ep has several rows whole, and sums over tokens and rows at once. */
static bool joins_rows(const struct byte_case *x)
{
    const struct layout *l = &x->mesh->layout;
    return l->exact_context && l->cp > 1 && l->ep > l->cp && l->zero < ZERO_GRADIENTS;
}

/* X elements that ranks sum in each micro-batch where their rows take turns, and over the rest
 * once. Experts' rows have come together already, and so have those of joined rows. */
static void add_turn(struct lane_bytes *c, const struct byte_case *x, const struct bucket *b, i64 X,
                     bool counts)
{
    const bool split = x->mesh->layout.zero >= ZERO_GRADIENTS;
    const enum lane first = split ? splitters_of(x, b) : LANE_EP;
    const bool together = !split && (b->experts || (joins_rows(x) && !counts));
    const i64 times = counts ? 1 : x->micro_batches; /* whole numbers have no order */
    if (!together)
        c->sent[first] += times * WIDE * summed(ring_of(x, first), X);
    if (!split)
        c->sent[LANE_EDP] += summed_in_messages(x, LANE_EDP, X);
    c->sent[LANE_COPIES] += WIDE * summed(ring_of(x, LANE_COPIES), X);
}

/* Of a split bucket vectors together and the slice; else parameter by parameter. */
static void add_turns(struct lane_bytes *c, const struct byte_case *x, const struct bucket *b)
{
    if (splits_gradients(x, b)) {
        const enum lane splitters = splitters_of(x, b);
        const i64 matrices = b->count - b->copied;
        add_turn(c, x, b, b->copied, false);
        c->sent[splitters] += x->micro_batches * WIDE * scattered(ring_of(x, splitters), matrices);
        c->sent[LANE_COPIES] += WIDE * summed(ring_of(x, LANE_COPIES), b->own_count);
        return;
    }
    for (i64 i = 0; i < x->m->n_params; i++) {
        const struct param *p = &x->m->params[i];
        if (p->bucket == b)
            add_turn(c, x, b, param_here(p), p->desc.kind == PARAM_BALANCE);
    }
}

/* The embedding's gradient of a table that is the head too. */
static void add_apart(struct lane_bytes *c, const struct byte_case *x, const struct param *p)
{
    if (layout_turn_takers(&x->mesh->layout) > 1)
        add_turn(c, x, p->bucket, param_here(p), false);
    else
        c->sent[LANE_DP] += WIDE * summed(ring_of(x, LANE_DP), param_here(p));
}

/* --- gradients of a row's tokens, before those of other rows (exact_context) -------- */

/* Those with other tokens of a row; of spread experts those of them who have the same. */
static struct ring row_ring(const struct byte_case *x, const struct bucket *b, enum lane *lane)
{
    const struct layout *l = &x->mesh->layout;
    *lane = LANE_CP;
    if (is_spread(x, b))
        return (struct ring){ layout_expert_twins(l), x->mesh->cp_rank / l->ep };
    if (joins_rows(x))
        *lane = LANE_EP;
    return ring_of(x, *lane);
}

/* Is summed by itself, or is a number of tokens, of which all of the row are known. */
static bool is_apart(const struct byte_case *x, const struct param *p)
{
    return p == head_of(x) || p->desc.kind == PARAM_BALANCE;
}

static const struct param *first_apart(const struct byte_case *x, const struct bucket *b, i64 from,
                                       i64 end)
{
    const struct param *first = NULL;
    for (i64 i = 0; i < x->m->n_params; i++) {
        const struct param *p = &x->m->params[i];
        if (p->bucket == b && is_apart(x, p) && p->at >= from && p->at < end &&
            (!first || p->at < first->at))
            first = p;
    }
    return first;
}

/* Elements [from, end) of a bucket, in the stretches between what is apart. */
static i64 row_sums(const struct byte_case *x, const struct bucket *b, i64 from, i64 end)
{
    enum lane lane;
    const struct ring r = row_ring(x, b, &lane);
    const struct param *apart;
    bool any = false;
    i64 sent = 0;
    for (i64 i = 0; i < x->m->n_params; i++) {
        const struct param *p = &x->m->params[i];
        any = any || (p->bucket == b && !is_apart(x, p) && p->at >= from && p->at < end);
    }
    for (i64 at = from; any && at < end; at = apart ? apart->at + param_here(apart) : end) {
        apart = first_apart(x, b, at, end);
        sent += summed(r, (apart ? apart->at : end) - at);
    }
    return sent;
}

static void add_rows(struct lane_bytes *c, const struct byte_case *x, const struct bucket *b)
{
    enum lane lane;
    const struct ring r = row_ring(x, b, &lane);
    const struct param *head = head_of(x);
    const i64 border = splits_gradients(x, b) ? b->copied : 0;
    i64 elements = row_sums(x, b, 0, border) + row_sums(x, b, border, b->count);
    if (head && head->bucket == b)
        elements += (has_twice(x, head) ? 2 : 1) * summed(r, param_here(head));
    c->sent[lane] += x->micro_batches * WIDE * elements;
}

/* --- buckets ------------------------------------------------------------------------ */

/* How often a micro-batch gathers split weights: in the passes that read them. An embedding is read
 * in the forward pass, a head where its loss is formed. */
static i64 passes_of(const struct byte_case *x, const struct bucket *b)
{
    if (b->layer >= 0 && b->layer < x->m->spec.layers)
        return 2;
    return x->m->spec.tied ? (b->layer < 0 ? 2 : 0) : 1;
}

/* New weights to all who split them, once, or where they are split too whenever they are read. */
static void add_weights(struct lane_bytes *c, const struct byte_case *x, const struct bucket *b)
{
    const enum lane splitters = splitters_of(x, b);
    const bool split = x->mesh->layout.zero == ZERO_WEIGHTS && !stays_whole(x, b);
    const i64 times = split ? x->micro_batches * passes_of(x, b) : 1;
    if (splits(x, splitters))
        c->sent[splitters] += times * activation_bytes(x) *
                              gathered(ring_of(x, splitters), b->own_count);
}

static void add_bucket(struct lane_bytes *c, const struct byte_case *x, const struct bucket *b)
{
    const struct layout *l = &x->mesh->layout;
    const struct param *head = head_of(x);
    if (b->count == 0)
        return;
    if (!l->exact) /* which has leaves of all tokens */
        c->sent[LANE_TP] += WIDE * summed(ring_of(x, LANE_TP), b->alike);
    if (l->exact_context && l->cp > 1)
        add_rows(c, x, b);
    if (layout_turn_takers(l) > 1)
        add_turns(c, x, b);
    else
        add_sums(c, x, b);
    if (l->exact && head && head->bucket == b && has_twice(x, head))
        add_apart(c, x, head);
    add_weights(c, x, b);
}

/* A number, or its digits where its sum has no order. */
static i64 norm_bytes(const struct byte_case *x, enum lane lane)
{
    const struct ring r = ring_of(x, lane);
    return x->mesh->layout.exact ? 4 * summed(r, SQUARES_DIGITS) : 8 * summed(r, 1);
}

/* Shares of the norm: of slices, of other experts where slices do not tell them, of stages. */
static void add_norm(struct lane_bytes *c, const struct byte_case *x)
{
    const struct layout *l = &x->mesh->layout;
    const bool split = splits(x, split_lane(x));
    const enum lane experts = split && l->ep > l->cp ? LANE_CP : LANE_EP;
    if (split)
        c->sent[split_lane(x)] += norm_bytes(x, split_lane(x));
    if (l->ep > 1 && sparse_layers_here(x) > 0 && (!split || l->exact_context))
        c->sent[experts] += norm_bytes(x, experts);
    c->sent[LANE_TP] += norm_bytes(x, LANE_TP);
    c->sent[LANE_PP] += norm_bytes(x, LANE_PP);
}

/* --- pipeline ----------------------------------------------------------------------- */

/* Rows go up over each boundary between stages of different ranks, their gradients down; with tp
 * each rank has a cut of them. */
static void add_boundaries(struct lane_bytes *c, const struct byte_case *x)
{
    const struct stages *s = &x->mesh->stages;
    const i64 rows = tokens_here(x) / x->mesh->layout.tp;
    const int own = (int)x->mesh->pp_rank;
    i64 sends = 0;
    for (int t = 1; t < s->n && x->mesh->layout.pp > 1; t++)
        if (s->rank_of[t] != s->rank_of[t - 1])
            sends += (s->rank_of[t] == own) + (s->rank_of[t - 1] == own);
    c->sent[LANE_PP] += x->micro_batches * sends * rows * x->m->spec.width * activation_bytes(x);
    if (model_shares_table(x->m)) {
        const struct ring two = { 2, !has_layer(x, 0) };
        c->sent[LANE_TIE] += WIDE * summed(two, param_here(model_param(x->m, P_WTE, -1)));
    }
}

/* --- tensor parallel ---------------------------------------------------------------- */

/* Bytes of the exchanges of rows along tp, which are cut between layers: with `bytes` an element,
 * of all columns. */
static i64 rows_cut(const struct byte_case *x, i64 bytes)
{
    return bytes * scattered(ring_of(x, LANE_TP), tokens_here(x) * x->m->spec.width);
}

/* Of gradients that a gathering has: what ranks make of all rows is summed. */
static i64 gradient_bytes(const struct byte_case *x)
{
    return x->mesh->layout.exact ? WIDE : activation_bytes(x);
}

/* Rows are gathered before products and what they give is summed, in f32, and cut; backward the
 * same the other way round. With full recompute once more, but for the last sum of a layer, which
 * nothing there reads. */
static i64 half_layer(const struct byte_case *x, bool last)
{
    const i64 a = activation_bytes(x);
    i64 sent = 2 * rows_cut(x, a) + rows_cut(x, WIDE) + rows_cut(x, gradient_bytes(x));
    if (x->recompute == RECOMPUTE_FULL)
        sent += rows_cut(x, a) + (last ? 0 : rows_cut(x, WIDE));
    return sent;
}

/* Ranks that share a key-value head each have an equal part of its keys and values, and gather
 * them. */
static i64 shared_heads(const struct byte_case *x)
{
    const struct model_spec *s = &x->m->spec;
    const i64 n = i64_max(1, x->mesh->layout.tp / s->kv_heads);
    const struct ring r = { n, x->mesh->tp_rank % n };
    const i64 times = x->recompute == RECOMPUTE_FULL ? 2 : 1;
    return (times * activation_bytes(x) + gradient_bytes(x)) *
           scattered(r, tokens_here(x) * 2 * s->head_size);
}

/* Rows that there is room for behind the router: those that choose experts here, of all ranks along
 * ep; of a row's, no more than a capacity. */
static i64 chosen_rows(const struct byte_case *x)
{
    const struct model_spec *s = &x->m->spec;
    const struct layout *l = &x->mesh->layout;
    const i64 here = s->experts / l->ep;
    i64 row = x->T / l->cp * i64_min(s->experts_per_token, here);
    if (s->capacity > 0)
        row = i64_min(row, here * decoder_capacity(s, x->T));
    return l->ep * x->B * row;
}

/* Rows are gathered for the router and experts alike; what shares of experts make of each chosen
 * row is summed everywhere, in f32, and so is the gradient of these rows; the gradient of what was
 * combined is gathered. A shared part is as a dense one. */
static i64 sparse_half(const struct byte_case *x)
{
    const i64 again = x->recompute == RECOMPUTE_FULL, a = activation_bytes(x);
    const i64 sum = summed(ring_of(x, LANE_TP), chosen_rows(x) * x->m->spec.width);
    const i64 shared = x->m->spec.shared_hidden > 0 ? half_layer(x, true) : 0;
    return (2 + again) * rows_cut(x, a) + ((1 + again) * WIDE + gradient_bytes(x)) * sum + shared;
}

/* Embeddings are summed over shares of the table. A loss exchanges a maximum and two sums per
 * token, a chunk of the head at a time. */
static i64 ends_of_model(const struct byte_case *x)
{
    const struct ring r = ring_of(x, LANE_TP);
    const i64 a = activation_bytes(x), tokens = tokens_here(x);
    i64 sent = has_layer(x, 0) ? 2 * rows_cut(x, a) : 0;
    if (!has_last(x))
        return sent;
    for (i64 row = 0; row < tokens; row += HEAD_ROWS) {
        const i64 rows = i64_min(HEAD_ROWS, tokens - row);
        sent += 4 * (summed(r, rows) + summed(r, 2 * rows));
    }
    return sent + rows_cut(x, a) + rows_cut(x, gradient_bytes(x));
}

/* The most leaves, of 1, 2, 4 ... most, that divide n. */
static i64 leaves_of(i64 n, i64 most)
{
    while (n % most)
        most /= 2;
    return most;
}

/* In exact mode the gradient of a vector that tp does not cut is a tree over leaves of each
 * sequence's tokens, or of a norm of heads over leaves of heads, which are gathered. */
static i64 leaves_of_vectors(const struct byte_case *x)
{
    enum { TOKENS = 16, CONTEXT_TOKENS = 64, HEADS = 8 };
    const struct layout *l = &x->mesh->layout;
    const struct model_spec *s = &x->m->spec;
    const i64 tokens = leaves_of(x->T, l->exact_context ? CONTEXT_TOKENS : TOKENS) / l->cp;
    const i64 heads = layout_pairs(l) * leaves_of(s->kv_heads * decoder_head_copies(s),
                                                  leaves_of(s->heads, HEADS));
    i64 sent = 0;
    for (i64 i = 0; i < x->m->n_params && l->exact; i++) {
        const struct param_desc *d = &x->m->params[i].desc;
        const bool of_heads = d->id == P_Q_NORM || d->id == P_K_NORM;
        if (d->rank == 1 && d->split == SPLIT_NONE && d->kind != PARAM_BALANCE)
            sent += WIDE * scattered(ring_of(x, LANE_TP),
                                     x->B * (of_heads ? heads : tokens) * d->dim[0]);
    }
    return sent;
}

static void add_tensor(struct lane_bytes *c, const struct byte_case *x)
{
    i64 sent = ends_of_model(x) + leaves_of_vectors(x);
    for (i64 i = 0; i < x->m->spec.layers && x->mesh->layout.tp > 1; i++) {
        if (!has_layer(x, i))
            continue;
        sent += half_layer(x, false) + shared_heads(x);
        sent += spec_is_sparse(&x->m->spec, i) ? sparse_half(x) : half_layer(x, true);
    }
    c->sent[LANE_TP] += x->mesh->layout.tp > 1 ? x->micro_batches * sent : 0;
}

/* --- context parallel --------------------------------------------------------------- */

/* A ring sends keys and values on n - 1 times, backward their gradients in f32; ulysses changes
 * heads for tokens and back. In exact mode keys and values are gathered, each leaf's copy of a
 * head. */
struct context_bytes bytes_of_attention(const struct byte_case *x)
{
    const struct layout *l = &x->mesh->layout;
    const struct model *m = x->m;
    const struct ring r = ring_of(x, LANE_CP);
    const i64 a = activation_bytes(x), tokens = tokens_here(x);
    const i64 sharers = i64_max(1, l->tp / m->spec.kv_heads);
    const i64 copies = l->exact ? decoder_head_copies(&m->spec) / sharers : 1;
    const i64 h = m->local.heads * m->local.head_size;
    const i64 k = copies * m->local.kv_heads * m->local.head_size;
    const bool ring = l->cp_kind == CP_RING;
    struct context_bytes b = { 0 };
    i64 layers = 0, stages = 0;
    for (i64 i = 0; i < m->spec.layers; i++)
        layers += has_layer(x, i);
    for (int t = 0; t < x->mesh->stages.n; t++)
        stages += l->pp == 1 || x->mesh->stages.rank_of[t] == (int)x->mesh->pp_rank;
    b.forward = ring ? layers * a * gathered(r, tokens * 2 * k)
                     : layers * a * scattered(r, tokens * (2 * h + 2 * k));
    b.backward = ring ? layers * WIDE * gathered(r, tokens * 2 * k) : b.forward;
    if (x->recompute == RECOMPUTE_FULL ||
        (x->recompute == RECOMPUTE_SELECTIVE && ring && !l->exact)) /* parts that came around */
        b.again = b.forward;
    b.begin = ring ? 0 : stages * 4 * gathered(r, tokens);
    return b;
}

/* Routers sum over a row what they did: 2 E + 1 numbers; with a capacity they know all its choices.
 */
static void add_context(struct lane_bytes *c, const struct byte_case *x)
{
    const struct model_spec *s = &x->m->spec;
    const struct ring r = ring_of(x, LANE_CP);
    const struct context_bytes attention = bytes_of_attention(x);
    const i64 choices = s->capacity > 0 ? gathered(r, tokens_here(x) * s->experts_per_token) : 0;
    const i64 routers = 4 * (summed(r, x->B * (2 * s->experts + 1)) + choices);
    c->sent[LANE_CP] += x->micro_batches * (attention.forward + attention.backward +
                                            attention.again + attention.begin +
                                            sparse_layers_here(x) * routers);
}

/* --- expert parallel ---------------------------------------------------------------- */

/* In exact mode an expert's rows are kept apart by sequence, or by the pairs of chunks that cp
 * shares. */
static i64 leaves_here(const struct byte_case *x)
{
    const struct layout *l = &x->mesh->layout;
    return !l->exact ? 1 : l->exact_context ? x->B * layout_pairs(l) : x->B;
}

/* Each layer tells how many rows come, of each leaf; then they go to their experts and back, and so
 * do the gradients of both ways. */
static void add_experts(struct lane_bytes *c, const struct byte_case *x)
{
    const struct layout *l = &x->mesh->layout;
    const struct model_spec *s = &x->m->spec;
    const struct ring r = ring_of(x, LANE_EP);
    const i64 layers = sparse_layers_here(x), leaves = leaves_here(x);
    const i64 again = x->recompute == RECOMPUTE_FULL;
    if (l->ep == 1)
        return;
    /* Of all experts, those of n - 1 ranks are elsewhere; as many rows come for those that are
     * here. */
    const i64 rows = layers * x->micro_batches * scattered(r, tokens_here(x) * s->experts);
    const i64 both = x->routed ? x->leave + x->come : 2 * rows;
    const i64 counts = layers * x->micro_batches * 4 * scattered(r, s->experts * leaves);
    c->sent[LANE_EP] += (1 + again) * counts + (2 + again) * both * s->width * activation_bytes(x);
}

/* --- Muon --------------------------------------------------------------------------- */

/* Work of the steps on one matrix of N x M, or on each of a fused one's blocks: X X' and its
 * square, with the shorter side squared, and their product with X. */
static double newton_schulz_work(const struct param_desc *d)
{
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        const i64 N = i == 0 && d->blocks[0] == 0 ? d->dim[0] / d->experts : d->blocks[i];
        const double least = (double)i64_min(N, d->dim[1]), most = (double)i64_max(N, d->dim[1]);
        sum += least * least * most + least * least * least + least * least * most;
    }
    return sum * (double)d->experts;
}

enum { MOST_WORKERS = 64 };

/* Whoever has had least to do so far does a matrix: of `n` ranks along zero x tp, the i-th of
 * which are `alike` neighbours with other experts, who have as much to do each. */
static i64 choose_worker(double *load, i64 n, i64 alike, i64 tp, double work)
{
    i64 best = 0;
    double least = INFINITY;
    for (i64 i = 0; i < n * tp; i++) {
        double most = 0;
        for (i64 j = 0; j < alike; j++)
            most = fmax(most, load[(i / tp * alike + j) * tp + i % tp]);
        if (most < least) {
            best = i;
            least = most;
        }
    }
    for (i64 j = 0; j < alike; j++)
        load[(best / tp * alike + j) * tp + best % tp] += work;
    return best;
}

/* What is orthogonalised is gathered and scattered back in f32, by all that split a bucket's state;
 * then each matrix that tp cuts by those along tp of whoever works on it. */
static void add_muon(struct lane_bytes *c, const struct byte_case *x)
{
    double load[MOST_WORKERS] = { 0 };
    const i64 tp = x->mesh->layout.tp;
    const i64 all = x->mesh->layout.zero >= ZERO_OPTIMIZER ? ring_of(x, LANE_SHARD).n : 1;
    assert(all * tp <= MOST_WORKERS);
    for (i64 i = 0; i < x->m->n_buckets; i++) {
        const struct bucket *b = &x->m->buckets[i];
        const enum lane lane = splitters_of(x, b);
        const bool split = splits(x, lane);
        const i64 n = split ? ring_of(x, lane).n : 1, own = split ? ring_of(x, lane).i : 0;
        bool any = false;
        for (i64 k = 0; k < x->m->n_params; k++) {
            const struct param *p = &x->m->params[k];
            if (p->bucket != b || !model_uses_muon(x->m, &p->desc))
                continue;
            any = true;
            const i64 worker = choose_worker(load, n, all / n, tp, newton_schulz_work(&p->desc));
            if (p->desc.split != SPLIT_NONE && worker / tp == own)
                c->sent[LANE_TP] += 2 * WIDE * gathered(ring_of(x, LANE_TP), param_here(p));
        }
        if (any && split)
            c->sent[lane] += 2 * WIDE * gathered(ring_of(x, lane), b->own_count);
    }
}

/* --- a step, an outer step ---------------------------------------------------------- */

struct lane_bytes bytes_of_step(const struct byte_case *x)
{
    struct lane_bytes c = { { 0 } };
    for (i64 i = 0; i < x->m->n_buckets; i++)
        add_bucket(&c, x, &x->m->buckets[i]);
    add_norm(&c, x);
    add_boundaries(&c, x);
    add_tensor(&c, x);
    add_context(&c, x);
    add_experts(&c, x);
    add_muon(&c, x);
    return c;
}

/* What each island has of the state is summed over them, and one number; new weights go to those
 * who split them, unless they are split; two norms, of the differences and of their sum. */
struct lane_bytes bytes_of_outer_step(const struct byte_case *x)
{
    struct lane_bytes c = { { 0 } };
    const struct ring islands = ring_of(x, LANE_ISLAND);
    const enum lane lane = split_lane(x);
    for (i64 i = 0; i < x->m->n_buckets; i++) {
        const struct bucket *b = &x->m->buckets[i];
        if (b->count == 0)
            continue;
        c.sent[LANE_ISLAND] += WIDE * summed(islands, b->copied + b->own_count);
        if (x->mesh->layout.zero < ZERO_WEIGHTS || stays_whole(x, b))
            add_weights(&c, x, b);
    }
    c.sent[LANE_ISLAND] += 8 * summed(islands, 1);
    c.sent[lane] += splits(x, lane) ? 2 * 8 * summed(ring_of(x, lane), 1) : 0;
    c.sent[LANE_TP] += 2 * 8 * summed(ring_of(x, LANE_TP), 1);
    c.sent[LANE_PP] += 2 * 8 * summed(ring_of(x, LANE_PP), 1);
    return c;
}
