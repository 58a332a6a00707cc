#include "parallel/spread_rules.h"

#include "base/err.h"
#include "ops/ops.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const words[] = {
    "unknown", "the same on all ranks", "cut by rows", "cut by columns", "cut by experts",
    "each stage's own", "cut by heads that ranks share", "a partial sum of each rank",
    "a partial sum of each rank for a head that it shares", "the largest of each rank",
    "each island's own", "spread in several ways",
};

/* --- what is known of a tensor ------------------------------------------------------ */

static const struct tensor *owner_of(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

static struct entry *entry_of(struct check *c, const struct tensor *t)
{
    const struct tensor *owner = owner_of(t);
    u64 at = ((u64)(uintptr_t)owner >> 4) * 0x9e3779b97f4a7c15u;
    for (at >>= 20;; at++) {
        struct entry *e = &c->table[at & (c->slots - 1)];
        if (!e->owner)
            e->owner = owner;
        if (e->owner == owner)
            return e;
    }
}

enum spread spread_of(struct check *c, const struct tensor *t)
{
    enum spread is = SPREAD_UNKNOWN;
    if (!t)
        return is;
    i64 begin = t->owner ? t->owner_offset : 0, end = begin + tensor_bytes(t);
    for (const struct piece *p = entry_of(c, t)->pieces; p; p = p->next)
        if (p->is != SPREAD_UNKNOWN && p->begin < end && begin < p->end)
            is = is == SPREAD_UNKNOWN || is == p->is ? p->is : SPREAD_MIXED;
    return is;
}

static void add_piece(struct check *c, struct entry *e, i64 begin, i64 end, enum spread is)
{
    struct piece *p = ARENA_NEW(&c->arena, struct piece);
    if (begin >= end)
        return;
    *p = (struct piece){ e->pieces, begin, end, is };
    e->pieces = p;
}

void spread_set(struct check *c, const struct tensor *t, enum spread is)
{
    if (!t)
        return;
    struct entry *e = entry_of(c, t);
    i64 begin = t->owner ? t->owner_offset : 0, end = begin + tensor_bytes(t);
    struct piece *old = e->pieces;
    e->pieces = NULL;
    add_piece(c, e, begin, end, is);
    for (; old; old = old->next) { /* what is left of others on either side */
        add_piece(c, e, old->begin, i64_min(old->end, begin), old->is);
        add_piece(c, e, i64_max(old->begin, end), old->end, old->is);
    }
}

/* y, of the same size, is spread as x, piece by piece. */
static void copy_pieces(struct check *c, const struct tensor *x, const struct tensor *y)
{
    i64 from = x->owner ? x->owner_offset : 0, end = from + tensor_bytes(x);
    i64 shift = (y->owner ? y->owner_offset : 0) - from;
    spread_set(c, y, SPREAD_UNKNOWN);
    for (const struct piece *p = entry_of(c, x)->pieces; p; p = p->next)
        add_piece(c, entry_of(c, y), i64_max(p->begin, from) + shift,
                  i64_min(p->end, end) + shift, p->is);
}

const char *spread_word(enum spread is)
{
    return words[is];
}

/* --- errors ------------------------------------------------------------------------- */

const char *spread_axis_name(const struct check *c)
{
    return c->axis == LANE_TP ? "tp" : c->axis == LANE_ISLAND ? "islands"
           : c->axis == LANE_CP ? "cp" : c->axis == LANE_PP ? "pp" : c->axis == LANE_TIE ? "tie"
           : c->axis == LANE_EP ? "ep" : c->axis == LANE_EDP ? "edp"
           : c->axis == LANE_SHARD ? "dp within a zero_group"
           : c->axis == LANE_COPIES ? "dp across zero_groups" : "dp";
}

static void fail(struct check *c, const struct task *t, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void fail(struct check *c, const struct task *t, const char *fmt, ...)
{
    char text[400], where[32] = "";
    va_list ap;
    if (c->rc < 0)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (t->layer >= 0)
        snprintf(where, sizeof where, " in layer %d", t->layer);
    c->rc = err_set(ERR_INTERNAL, "%s%s: along %s, %s", t->op->name, where,
                    spread_axis_name(c), text);
}

static const char *kind_of(const struct tensor *t)
{
    return t->role == ROLE_GRAD ? "the gradient of " : "";
}

static void refuse(struct check *c, const struct task *t, const struct tensor *x, const char *why)
{
    fail(c, t, "%s%s is %s: %s", kind_of(x), x->name, words[spread_of(c, x)], why);
}

static void refuse_pair(struct check *c, const struct task *t, const struct tensor *x,
                        const struct tensor *y)
{
    fail(c, t, "%s%s is %s, but %s%s is %s", kind_of(x), x->name, words[spread_of(c, x)],
         kind_of(y), y->name, words[spread_of(c, y)]);
}

/* --- rules -------------------------------------------------------------------------- */

static enum spread in(struct check *c, const struct task *t, int k)
{
    return spread_of(c, t->in[k]);
}

static bool summed(const struct op_info *op, int k)
{
    return op->accumulates && (op->sums == 0 || (op->sums >> k & 1));
}

/* A sum that was begun before must be of the same kind. */
static void write(struct check *c, const struct task *t, int k, enum spread is)
{
    enum spread was = spread_of(c, t->out[k]);
    if (!t->out[k])
        return;
    if (summed(t->op, k) && !t->fresh && was != SPREAD_UNKNOWN && is != SPREAD_UNKNOWN && was != is)
        fail(c, t, "it adds what is %s to %s%s, which is %s already", words[is],
             kind_of(t->out[k]), t->out[k]->name, words[was]);
    spread_set(c, t->out[k], is);
}

/* The sums over rows of what is so spread; grouped: one per group of rows. */
static enum spread over_rows(enum spread rows, const struct tensor *sums)
{
    if (rows == SPREAD_ROWS)
        return sums && sums->rank == 2 ? SPREAD_ROWS : SPREAD_PARTIAL;
    return rows == SPREAD_COLUMNS ? SPREAD_ROWS : rows;
}

/* How inputs [0, n) are spread together. What all have goes with anything but a partial value. */
static enum spread join(struct check *c, const struct task *t, int n)
{
    enum spread all = SPREAD_SAME;
    for (int k = 0; k < n; k++) {
        enum spread is = in(c, t, k);
        if (!t->in[k] || is == all)
            continue;
        if (is == SPREAD_UNKNOWN || all == SPREAD_UNKNOWN) {
            all = SPREAD_UNKNOWN;
        } else if (is >= SPREAD_PARTIAL) {
            refuse(c, t, t->in[k], "it must be reduced first");
        } else if (all == SPREAD_SAME) {
            all = is;
        } else if (is != SPREAD_SAME) {
            refuse(c, t, t->in[k], "its inputs before are not");
        }
    }
    return all;
}

/* Row by row or element by element; sums are over rows. */
static void together(struct check *c, const struct task *t)
{
    enum spread all = join(c, t, t->op->n_in);
    for (int k = 0; k < t->op->n_out; k++)
        write(c, t, k, summed(t->op, k) ? over_rows(all, t->out[k]) : all);
}

/* The same where a row must be whole. */
static void by_rows(struct check *c, const struct task *t)
{
    if (in(c, t, 0) == SPREAD_COLUMNS)
        refuse(c, t, t->in[0], "whole rows are needed");
    together(c, t);
}

/* Heads or sequences are independent, the tokens of a sequence are not. */
static void by_heads(struct check *c, const struct task *t)
{
    if ((c->axis == LANE_TP || c->tokens) && in(c, t, 0) == SPREAD_ROWS)
        refuse(c, t, t->in[0], "all tokens of a sequence are needed");
    together(c, t);
}

/* Where kv has whole rows, queries of some tokens give their part of its gradient. */
static void block_rule(struct check *c, const struct task *t)
{
    const bool grad = t->op == &op_attention_block_grad;
    const int kv = grad ? 2 : 1;
    enum spread q = in(c, t, kv - 1);
    if (in(c, t, kv) == SPREAD_HEADS) {
        write(c, t, 0, q);
        write(c, t, 1, grad ? SPREAD_HEAD_SUMS : q);
        write(c, t, 2, q);
        return;
    }
    if (!c->tokens || t->attr[BLOCK_KEYS] >= 0) {
        together(c, t);
        return;
    }
    if (in(c, t, kv) != SPREAD_SAME && in(c, t, kv) != SPREAD_UNKNOWN)
        refuse(c, t, t->in[kv], "its queries see all keys of their rows");
    if (grad && in(c, t, 0) != q && in(c, t, 0) != SPREAD_UNKNOWN)
        refuse_pair(c, t, t->in[0], t->in[1]);
    write(c, t, 0, q);
    write(c, t, 1, grad ? over_rows(q, NULL) : q);
    write(c, t, 2, q);
}

/* Elements in other places, each as it was. */
static void moved(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0);
    write(c, t, 0, is == SPREAD_MIXED ? SPREAD_UNKNOWN : is);
}

/* Each has all columns of some rows; then some columns (heads) of all rows, or back. */
static void exchange_rule(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0);
    if (is != SPREAD_UNKNOWN && is != SPREAD_ROWS && is != SPREAD_COLUMNS)
        refuse(c, t, t->in[0], "only what is cut can be exchanged");
    write(c, t, 0, is == SPREAD_ROWS ? SPREAD_COLUMNS : is == SPREAD_COLUMNS ? SPREAD_ROWS : is);
}

/* Keys and values of a head that ranks share stay what they are. */
static void shared_together(struct check *c, const struct task *t)
{
    if (in(c, t, 0) == SPREAD_HEAD_SUMS)
        write(c, t, 0, SPREAD_HEAD_SUMS); /* of a gradient: it is linear */
    else
        together(c, t);
}

/* Of queries every rank has its own heads. */
static void attention_rule(struct check *c, const struct task *t)
{
    const bool grad = t->op == &op_attention_grad;
    if (in(c, t, grad) != SPREAD_HEADS) {
        by_heads(c, t);
        return;
    }
    if (grad && in(c, t, 0) != SPREAD_COLUMNS && in(c, t, 0) != SPREAD_UNKNOWN)
        refuse_pair(c, t, t->in[0], t->in[1]);
    write(c, t, 0, grad ? SPREAD_HEAD_SUMS : SPREAD_COLUMNS);
    for (int k = 1; k < 3 && !grad; k++)
        write(c, t, k, SPREAD_COLUMNS);
}

static void split_rule(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0);
    bool heads = is == SPREAD_HEADS || is == SPREAD_HEAD_SUMS;
    write(c, t, 0, heads ? SPREAD_COLUMNS : is);
    write(c, t, 1, is);
}

/* Also of what is shared: whoever reads it where it should not be will say so. */
static void join_rule(struct check *c, const struct task *t)
{
    enum spread kv = in(c, t, 1);
    if (in(c, t, 0) == SPREAD_COLUMNS && (kv == SPREAD_HEADS || kv == SPREAD_HEAD_SUMS))
        write(c, t, 0, kv);
    else
        together(c, t);
}

static void share_rule(struct check *c, const struct task *t)
{
    enum spread kv = in(c, t, 1);
    if (c->axis == LANE_TP && t->attr[SHARE_PARTS] > 1 && kv != SPREAD_HEADS &&
        kv != SPREAD_UNKNOWN)
        refuse(c, t, t->in[1], "the parts of a head must be gathered first");
    join_rule(c, t);
}

static void qk_norm_grad(struct check *c, const struct task *t)
{
    enum spread all = in(c, t, 0) == SPREAD_HEAD_SUMS ? SPREAD_HEAD_SUMS : join(c, t, 2);
    write(c, t, 0, all);
    for (int k = 1; k < 3; k++) {
        bool cut = all == SPREAD_ROWS || all == SPREAD_COLUMNS || all == SPREAD_HEAD_SUMS;
        bool grouped = t->out[k] && t->out[k]->rank == 2;
        write(c, t, k, !cut ? all : grouped ? SPREAD_ROWS : SPREAD_PARTIAL);
    }
}

/* Heads are cut where the key's common part is not. */
static void latent_rule(struct check *c, const struct task *t)
{
    if (in(c, t, 0) == SPREAD_COLUMNS && in(c, t, 2) == SPREAD_ROWS)
        refuse(c, t, t->in[2], "all rows of it are needed");
    together(c, t);
}

static void latent_grad_rule(struct check *c, const struct task *t)
{
    enum spread dy = in(c, t, 0);
    together(c, t);
    if (dy == SPREAD_COLUMNS)
        write(c, t, 2, SPREAD_PARTIAL); /* its own heads' */
}

static void load(struct check *c, const struct task *t)
{
    for (int k = 0; k < t->op->n_out; k++)
        spread_set(c, t->out[k],
            c->batch && k != BATCH_INV_WEIGHT ? SPREAD_ROWS : SPREAD_SAME);
}

static void embed_rule(struct check *c, const struct task *t)
{
    enum spread rows = in(c, t, 0), table = in(c, t, 1), y = rows;
    if (table == SPREAD_ROWS)
        y = rows == SPREAD_SAME ? SPREAD_PARTIAL : SPREAD_UNKNOWN;
    else if (table != SPREAD_SAME)
        y = SPREAD_UNKNOWN;
    if (t->in[3] && y != SPREAD_UNKNOWN && in(c, t, 3) != table)
        refuse_pair(c, t, t->in[3], t->in[1]);
    write(c, t, 0, y);
}

static void embed_grad_rule(struct check *c, const struct task *t)
{
    enum spread dy = in(c, t, 0);
    bool share = c->axis == LANE_TP; /* tables are always cut by rows there */
    if (dy >= SPREAD_COLUMNS)
        refuse(c, t, t->in[0], "whole rows are needed");
    write(c, t, 0, dy == SPREAD_SAME && share ? SPREAD_ROWS : over_rows(dy, NULL));
}

/* x w': w by rows gives columns of y, w by columns partial sums. */
static enum spread product_of(struct check *c, const struct task *t, enum spread x, enum spread w,
                              enum spread cut_w, enum spread kept_w)
{
    if (x == SPREAD_UNKNOWN || w == SPREAD_UNKNOWN || w == SPREAD_MIXED)
        return SPREAD_UNKNOWN;
    if (x >= SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "it must be reduced first");
    else if (w == SPREAD_SAME && x != SPREAD_COLUMNS)
        return x;
    else if (w == kept_w && x == SPREAD_SAME)
        return SPREAD_COLUMNS;
    else if (w == cut_w && x == SPREAD_COLUMNS)
        return SPREAD_PARTIAL;
    else
        refuse_pair(c, t, t->in[0], t->in[1]);
    return SPREAD_UNKNOWN;
}

static void linear_rule(struct check *c, const struct task *t)
{
    enum spread y = product_of(c, t, in(c, t, 0), in(c, t, 1), SPREAD_COLUMNS, SPREAD_ROWS);
    for (int k = 2; k < 4; k++)
        if (t->in[k] && y == SPREAD_PARTIAL)
            refuse(c, t, t->in[k], "every rank would add it to its part of the sum");
    if (t->in[3] && in(c, t, 3) >= SPREAD_PARTIAL)
        refuse(c, t, t->in[3], "it must be reduced first");
    write(c, t, 0, y);
}

static void linear_dx_rule(struct check *c, const struct task *t)
{
    enum spread dx = product_of(c, t, in(c, t, 0), in(c, t, 1), SPREAD_ROWS, SPREAD_COLUMNS);
    enum spread addend = in(c, t, 2);
    if (addend != SPREAD_UNKNOWN && dx != SPREAD_UNKNOWN && addend != dx)
        refuse(c, t, t->in[2], "the product is not");
    write(c, t, 0, dx);
}

static void linear_dw_rule(struct check *c, const struct task *t)
{
    enum spread dy = in(c, t, 0), x = in(c, t, 1), dw = SPREAD_UNKNOWN;
    for (int k = 0; k < 2; k++)
        if (in(c, t, k) >= SPREAD_PARTIAL)
            refuse(c, t, t->in[k], "it must be reduced first");
    if (dy == SPREAD_ROWS && x == SPREAD_ROWS)
        dw = SPREAD_PARTIAL;
    else if (dy == SPREAD_SAME && (x == SPREAD_SAME || x == SPREAD_COLUMNS))
        dw = x;
    else if (dy == SPREAD_COLUMNS && x == SPREAD_SAME)
        dw = SPREAD_ROWS;
    else if (dy != SPREAD_UNKNOWN && x != SPREAD_UNKNOWN)
        refuse_pair(c, t, t->in[1], t->in[0]);
    write(c, t, 0, dw);
    write(c, t, 1, over_rows(dy, NULL));
}

static void add_rule(struct check *c, const struct task *t)
{
    enum spread a = in(c, t, 0), b = in(c, t, 1);
    bool known = a != SPREAD_UNKNOWN && b != SPREAD_UNKNOWN;
    if (known && a != b && (a >= SPREAD_PARTIAL || b >= SPREAD_PARTIAL))
        refuse_pair(c, t, t->in[1], t->in[0]);
    write(c, t, 0, a == SPREAD_SAME ? b : a);
}

static void peak_rule(struct check *c, const struct task *t)
{
    enum spread z = in(c, t, 0);
    write(c, t, 0, z == SPREAD_COLUMNS ? SPREAD_LARGEST : z);
}

static void sum_rule(struct check *c, const struct task *t)
{
    enum spread z = in(c, t, 0);
    if (in(c, t, 1) >= SPREAD_PARTIAL)
        refuse(c, t, t->in[1], "it must be reduced first");
    write(c, t, 0, z == SPREAD_COLUMNS ? SPREAD_PARTIAL : z);
}

static void finish_rule(struct check *c, const struct task *t)
{
    enum spread z = in(c, t, 0);
    for (int k = 4; k < 6; k++)
        if (in(c, t, k) >= SPREAD_PARTIAL)
            refuse(c, t, t->in[k], "it must be reduced first");
    write(c, t, 0, z == SPREAD_COLUMNS ? SPREAD_SAME : z);
    write(c, t, 1, z);
}

/* With a split state each rank takes its own slice only, also of a gradient that all have. */
static enum spread slice_of(struct check *c, const struct tensor *x)
{
    enum spread is = spread_of(c, x);
    for (i64 i = 0; i < c->m->n_buckets && c->m->part.state_parts > 1; i++) {
        const struct bucket *b = &c->m->buckets[i];
        if (c->split && b->own_grad == owner_of(x) && x->owner &&
            x->owner_offset >= b->copied * (i64)sizeof(float) && is == SPREAD_SAME)
            return SPREAD_ROWS;
    }
    return is;
}

static bool is_cut(enum spread is)
{
    return is == SPREAD_ROWS || is == SPREAD_COLUMNS || is == SPREAD_EXPERTS || is == SPREAD_STAGES;
}

/* A sum over elements, each of which may be here or there. */
static enum spread count_of(struct check *c, const struct task *t, const struct tensor *x)
{
    enum spread is = slice_of(c, x);
    if (is == SPREAD_PARTIAL || is == SPREAD_LARGEST || is == SPREAD_MIXED)
        refuse(c, t, x, "it must be reduced first");
    return is_cut(is) || is == SPREAD_OWN ? SPREAD_PARTIAL : is;
}

static void squares_rule(struct check *c, const struct task *t)
{
    enum spread now = count_of(c, t, t->in[0]), before = in(c, t, 1);
    if (before != SPREAD_UNKNOWN && now != SPREAD_UNKNOWN && before != now)
        refuse(c, t, t->in[1], "what is added is not");
    write(c, t, 0, before == SPREAD_UNKNOWN ? now : before);
}

/* What ranks watch they add up afterwards, each element once. A gradient that is watched before the
 * update is this rank's alone: not yet summed over ranks that have other rows. */
static void watch_rule(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0);
    bool own = c->batch && t->phase == PHASE_WEIGHT_GRAD;
    if (own && is != SPREAD_UNKNOWN && is != SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "what this rank's rows gave is wanted");
    for (int k = 0; k < t->op->n_in && !own; k++)
        if (in(c, t, k) >= SPREAD_PARTIAL)
            refuse(c, t, t->in[k], "it must be reduced first");
    spread_set(c, t->out[0], SPREAD_UNKNOWN);
}

/* Numbers that are added must be of one kind: otherwise what all have is counted once per rank. */
static void add_norms_rule(struct check *c, const struct task *t)
{
    enum spread all = SPREAD_UNKNOWN;
    for (int k = 0; k < TASK_INS && t->in[k]; k++) {
        enum spread is = in(c, t, k);
        if (is != SPREAD_UNKNOWN && all != SPREAD_UNKNOWN && is != all)
            refuse_pair(c, t, t->in[k], t->in[0]);
        all = all == SPREAD_UNKNOWN ? is : all;
    }
    write(c, t, 0, all);
}

/* ZeRO adds gradients, as one row, to what the rank keeps of them. */
static void fold_rule(struct check *c, const struct task *t)
{
    const struct tensor *sum = t->out[0];
    for (i64 i = 0; i < c->m->n_buckets; i++)
        if (c->m->buckets[i].split_grads && c->m->buckets[i].own_grad == owner_of(sum) &&
            tensor_count(t->in[0]) == tensor_count(sum)) {
            copy_pieces(c, t->in[0], sum);
            return;
        }
    together(c, t);
}

/* What is put by and taken back is of one kind: x stays as it is. */
static void carry_rule(struct check *c, const struct task *t)
{
    spread_set(c, t->out[1], SPREAD_UNKNOWN);
}

/* Reads a gradient and writes weights and state of the same elements. */
static void update_rule(struct check *c, const struct task *t)
{
    enum spread grad = slice_of(c, t->in[0]), p = spread_of(c, t->out[0]);
    bool slice = c->split && grad == SPREAD_ROWS; /* ZeRO: the own part */
    if (grad >= SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "a gradient must be reduced before its update");
    else if (grad != SPREAD_UNKNOWN && p != SPREAD_UNKNOWN && grad != p && !slice)
        refuse_pair(c, t, t->in[0], t->out[0]);
    for (int k = 1; k < t->op->n_in; k++)
        if (in(c, t, k) >= SPREAD_PARTIAL)
            refuse(c, t, t->in[k], "all ranks must have it");
    for (int k = 0; k < t->op->n_out; k++)
        spread_set(c, t->out[k], slice ? SPREAD_ROWS : p);
}

/* What a rank has of a cut matrix is a share of it, whichever way it is cut. */
static void momentum_rule(struct check *c, const struct task *t)
{
    enum spread grad = slice_of(c, t->in[0]);
    if (grad >= SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "a gradient must be reduced before its update");
    spread_set(c, t->out[0], grad);
    spread_set(c, t->out[1], grad == SPREAD_COLUMNS ? SPREAD_ROWS : grad);
}

/* One of the ranks that share the matrix does it, and the others have zeros: where it is none of
 * those along tp, each of its own share. What tp does not cut all along it do alike. */
static void orthogonal_rule(struct check *c, const struct task *t)
{
    const struct model_part *part = &c->m->part;
    const bool alike = t->attr[MUON_SHARES] == 0;
    i64 sharers = c->axis == LANE_TP ? (alike ? 1 : part->tensor_parts)
                : c->split ? part->state_parts : 1;
    bool share = t->attr[MUON_ELSEWHERE] != 0 && alike;
    enum spread u = in(c, t, 0);
    if (u == SPREAD_EXPERTS || u == SPREAD_STAGES ||
        (u == SPREAD_ROWS && c->axis == LANE_TP && share)) {
        write(c, t, 0, u); /* an expert's or a stage's matrix is whole where it is */
        return;
    }
    if (u != SPREAD_UNKNOWN && u != SPREAD_SAME)
        refuse(c, t, t->in[0], "the whole matrix is needed");
    write(c, t, 0, sharers > 1 && u == SPREAD_SAME ? SPREAD_PARTIAL : u);
}

static void step_rule(struct check *c, const struct task *t)
{
    enum spread y = in(c, t, 0), p = spread_of(c, t->out[0]);
    bool slice = c->split && y == SPREAD_ROWS;
    if (y >= SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "it must be reduced first");
    else if (y != SPREAD_UNKNOWN && p != SPREAD_UNKNOWN && is_cut(y) != is_cut(p) && !slice)
        refuse_pair(c, t, t->in[0], t->out[0]);
    for (int k = 0; k < t->op->n_out; k++)
        spread_set(c, t->out[k], slice ? SPREAD_ROWS : p);
}

/* How far each island has come. */
static void outer_gradient_rule(struct check *c, const struct task *t)
{
    if (c->axis != LANE_ISLAND)
        together(c, t);
    else
        write(c, t, 0, in(c, t, 1));
}

/* Each rank writes weights where it has the outer state of them. */
static void outer_update_rule(struct check *c, const struct task *t)
{
    const struct tensor *p = t->out[0];
    bool slice = false;
    if (in(c, t, 0) >= SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "it must be summed over islands first");
    for (i64 i = 0; i < c->m->n_buckets && c->split && c->m->part.state_parts > 1; i++) {
        const struct bucket *b = &c->m->buckets[i];
        slice = slice || (b->master == owner_of(p) && b->copied < b->count &&
                          p->owner_offset >= b->copied * (i64)sizeof(float));
    }
    for (int k = 0; k < t->op->n_out; k++)
        if (slice || c->axis == LANE_ISLAND) /* else as before, cut in several ways */
            spread_set(c, t->out[k], slice ? SPREAD_ROWS : in(c, t, 0));
}

/* Among neighbours along tp: parts of a head become one that they share; sums become parts. */
static void heads_rule(struct check *c, const struct task *t)
{
    bool gathers = t->op == &op_all_gather;
    enum spread is = in(c, t, 0), needs = gathers ? SPREAD_COLUMNS : SPREAD_HEAD_SUMS;
    if (is != SPREAD_UNKNOWN && is != needs)
        refuse(c, t, t->in[0], gathers ? "only parts of heads can be gathered"
                                       : "it must not be reduced (again)");
    spread_set(c, t->out[0], gathers ? SPREAD_HEADS : SPREAD_COLUMNS);
}

static void collective_rule(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0), needs = SPREAD_ROWS, gives = SPREAD_SAME;
    if (collective_of_heads(t)) {
        heads_rule(c, t);
        return;
    }
    if (t->op == &op_all_reduce)
        needs = t->attr[COLLECTIVE_KIND] == COLLECTIVE_MAX ? SPREAD_LARGEST : SPREAD_PARTIAL;
    if (t->op == &op_reduce_scatter) {
        needs = SPREAD_PARTIAL;
        gives = SPREAD_ROWS;
    }
    if (t->op == &op_all_reduce && is == SPREAD_OWN)
        needs = is;
    if (is != SPREAD_UNKNOWN && is != needs)
        refuse(c, t, t->in[0], needs == SPREAD_ROWS ? "only what is cut by rows can be gathered"
                                                    : "it must not be reduced (again)");
    spread_set(c, t->out[0], gives);
}

/* What it says of sequences is a sum of what ranks that cut them have. */
static void router_rule(struct check *c, const struct task *t)
{
    enum spread z = in(c, t, 0);
    together(c, t);
    if (c->tokens && z == SPREAD_ROWS)
        write(c, t, 2, SPREAD_PARTIAL);
}

/* How many tokens chose an expert is summed like a gradient. What one rank tells is of
 * whole rows. */
static void load_rule(struct check *c, const struct task *t)
{
    enum spread stats = in(c, t, 0);
    if (t->out[0] && stats >= SPREAD_PARTIAL)
        refuse(c, t, t->in[0], "it must be reduced first");
    write(c, t, 1, is_cut(stats) ? SPREAD_PARTIAL : stats);
}

/* Rows of tokens become rows of experts, or the other way round. */
static void expert_exchange_rule(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0), from = SPREAD_ROWS, to = SPREAD_EXPERTS;
    if (t->attr[EXCHANGE_BACK] != 0) {
        from = SPREAD_EXPERTS;
        to = SPREAD_ROWS;
    }
    if (is != SPREAD_UNKNOWN && is != from)
        refuse(c, t, t->in[0], "it must not be sent there (again)");
    spread_set(c, t->out[0], to);
}

/* No rule: rows go in, rows come out, as far as nothing is cut otherwise. */
static void opaque(struct check *c, const struct task *t)
{
    enum spread all = t->op->n_in ? SPREAD_SAME : SPREAD_UNKNOWN;
    for (int k = 0; k < t->op->n_in; k++) {
        enum spread is = in(c, t, k);
        if (!t->in[k] || is == SPREAD_SAME)
            continue;
        all = is == SPREAD_ROWS && all != SPREAD_UNKNOWN ? is : SPREAD_UNKNOWN;
    }
    for (int k = 0; k < t->op->n_out; k++)
        write(c, t, k, summed(t->op, k) ? over_rows(all, NULL) : all);
}

/* Which tokens come first is said by those of the whole row. */
static void order_rule(struct check *c, const struct task *t)
{
    if (c->tokens && in(c, t, 1) == SPREAD_ROWS)
        refuse(c, t, t->in[1], "all tokens of a sequence are needed");
    opaque(c, t);
}

/* Counts for each expert; what arrives of them. */
static void counts_rule(struct check *c, const struct task *t)
{
    if (c->experts && t->op == &op_expert_arrival && in(c, t, 1) == SPREAD_ROWS)
        refuse(c, t, t->in[1], "what other ranks send must have been exchanged");
    const bool arrives = c->experts && t->op == &op_expert_arrival;
    for (int k = 0; k < t->op->n_out; k++)
        spread_set(c, t->out[k], arrives ? SPREAD_EXPERTS : in(c, t, 0));
}

/* All experts' matrices meet a rank's own rows, or some experts' all of theirs. */
static void expert_linear_rule(struct check *c, const struct task *t)
{
    enum spread x = in(c, t, 0), w = in(c, t, 1);
    bool known = x != SPREAD_UNKNOWN && w != SPREAD_UNKNOWN;
    bool fits = w == SPREAD_SAME ? x == SPREAD_ROWS || x == SPREAD_SAME
                                 : w == SPREAD_EXPERTS && x == w;
    if (c->axis == LANE_TP) { /* a share of each matrix */
        bool dx = t->op == &op_expert_linear_dx;
        write(c, t, 0, product_of(c, t, x, w, dx ? SPREAD_ROWS : SPREAD_COLUMNS,
                                  dx ? SPREAD_COLUMNS : SPREAD_ROWS));
        return;
    }
    if (known && !fits)
        refuse_pair(c, t, t->in[0], t->in[1]);
    write(c, t, 0, known ? x : SPREAD_UNKNOWN);
}

static void expert_linear_dw_rule(struct check *c, const struct task *t)
{
    enum spread dy = in(c, t, 0), x = in(c, t, 1);
    if (c->axis == LANE_TP) {
        linear_dw_rule(c, t);
        return;
    }
    if (dy != SPREAD_UNKNOWN && x != SPREAD_UNKNOWN && dy != x)
        refuse_pair(c, t, t->in[1], t->in[0]);
    write(c, t, 0, dy == SPREAD_ROWS ? SPREAD_PARTIAL : dy);
}

/* What all have becomes some rows of each. */
static void take_rule(struct check *c, const struct task *t)
{
    enum spread is = in(c, t, 0);
    if (c->axis == LANE_TP && is != SPREAD_SAME && is != SPREAD_UNKNOWN)
        refuse(c, t, t->in[0], "each rank takes a part of what all must have");
    write(c, t, 0, c->axis == LANE_TP && is == SPREAD_SAME ? SPREAD_ROWS : is);
}

/* The same with the parts of the experts, where ranks have a cut of the tokens. */
static void combine_rule(struct check *c, const struct task *t)
{
    enum spread x = in(c, t, 0);
    if (c->axis != LANE_TP || t->attr[COMBINE_PARTS] <= 1) {
        together(c, t);
        return;
    }
    for (int k = 0; k < 3; k++)
        if (t->in[k] && in(c, t, k) != SPREAD_SAME && in(c, t, k) != SPREAD_UNKNOWN)
            refuse(c, t, t->in[k], "all ranks must have what experts made of their rows");
    if (t->in[3] && in(c, t, 3) != SPREAD_ROWS && in(c, t, 3) != SPREAD_UNKNOWN)
        refuse(c, t, t->in[3], "it is added to a cut of the rows");
    write(c, t, 0, x == SPREAD_SAME ? SPREAD_ROWS : SPREAD_UNKNOWN);
}

static const struct rule {
    const struct op_info *op;
    void (*check)(struct check *c, const struct task *t);
} rules[] = {
    { &op_load_batch, load },
    { &op_embed, embed_rule },              { &op_embed_grad, embed_grad_rule },
    { &op_linear, linear_rule },            { &op_linear_dx, linear_dx_rule },
    { &op_linear_dw, linear_dw_rule },
    { &op_rmsnorm, by_rows },               { &op_rmsnorm_grad, by_rows },
    { &op_layernorm, by_rows },             { &op_layernorm_grad, by_rows },
    { &op_qk_norm, together },              { &op_qk_norm_grad, qk_norm_grad },
    { &op_rope, shared_together },
    { &op_latent_heads, latent_rule },      { &op_latent_heads_grad, latent_grad_rule },
    { &op_attention, attention_rule },      { &op_attention_grad, attention_rule },
    { &op_attention_block, block_rule },    { &op_attention_block_grad, block_rule },
    { &op_split_qkv, split_rule },          { &op_join_qkv, join_rule },
    { &op_share_heads, share_rule },        { &op_share_heads_grad, split_rule },
    { &op_spread_heads, moved },            { &op_order_rows, moved },
    { &op_gelu, together },                 { &op_gelu_grad, together },
    { &op_swiglu, together },               { &op_swiglu_grad, together },
    { &op_add, add_rule },                  { &op_cast, shared_together },
    { &op_finish_sum, together },           { &op_column_sums, together },
    { &op_fold, fold_rule },                { &op_carry, carry_rule },
    { &op_xent, by_rows },                  { &op_xent_peak, peak_rule },
    { &op_xent_sum, sum_rule },             { &op_xent_finish, finish_rule },
    { &op_loss_sums, together },
    { &op_sum_squares, squares_rule },      { &op_exact_squares, squares_rule },
    { &op_add_norms, add_norms_rule },      { &op_exact_total, together },
    { &op_sum_changes, watch_rule },        { &op_raise, watch_rule },
    { &op_clip, together },
    { &op_adamw, update_rule },             { &op_ema, update_rule },
    { &op_outer_gradient, outer_gradient_rule }, { &op_outer_update, outer_update_rule },
    { &op_muon_momentum, momentum_rule },   { &op_muon_orthogonal, orthogonal_rule },
    { &op_muon_step, step_rule },
    { &op_router, router_rule },            { &op_router_grad, together },
    { &op_expert_load, load_rule },         { &op_balance_bias, update_rule },
    { &op_expert_order, order_rule },
    { &op_expert_counts, counts_rule },     { &op_expert_arrival, counts_rule },
    { &op_expert_exchange, expert_exchange_rule },
    { &op_expert_gather, together },        { &op_expert_combine, combine_rule },
    { &op_expert_combine_grad, together },
    { &op_expert_linear, expert_linear_rule }, { &op_expert_linear_dx, expert_linear_rule },
    { &op_expert_linear_dw, expert_linear_dw_rule },
    { &op_reduce_scatter, collective_rule }, { &op_all_gather, collective_rule },
    { &op_all_reduce, collective_rule },    { &op_all_to_all, exchange_rule },
    { &op_take_part, take_rule },
};

void spread_apply(struct check *c, const struct task *t)
{
    for (i64 i = 0; i < COUNT_OF(rules); i++)
        if (rules[i].op == t->op) {
            rules[i].check(c, t);
            return;
        }
    opaque(c, t);
}
