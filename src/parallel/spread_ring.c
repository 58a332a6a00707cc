/* The keys of a ring: kinds of tensors (spread.h) do not tell whose they are, turns do.
 *
 * After t turns a rank has what the rank t before it had, so a block of attention against part k of
 * the keys reads some that have come as many turns as k lies behind its queries' part; and
 * gradients of keys are summed and handed back with as many turns behind them as the keys had,
 * until at none they are of the rank's own keys. */
#include "parallel/spread_rules.h"

#include "base/err.h"
#include "ops/ops.h"

/* How far a tensor has come; those that are not in the table are of this rank. */
struct turned {
    const struct tensor *tensor;
    int turns;
};

struct ring {
    struct turned *table; /* by address */
    u64 slots;            /* a power of two */
    int ranks;
};

static struct turned *entry_of(const struct ring *r, const struct tensor *x)
{
    u64 at = ((u64)(uintptr_t)x >> 4) * 0x9e3779b97f4a7c15u;
    for (at >>= 20; r->table[at & (r->slots - 1)].tensor; at++)
        if (r->table[at & (r->slots - 1)].tensor == x)
            break;
    return &r->table[at & (r->slots - 1)];
}

static int turns_of(const struct ring *r, const struct tensor *x)
{
    return x ? entry_of(r, x)->turns : 0;
}

static void set_turns(struct ring *r, const struct tensor *x, int turns)
{
    *entry_of(r, x) = (struct turned){ .tensor = x,
                                       .turns = (turns % r->ranks + r->ranks) % r->ranks };
}

static int behind(const struct task *t)
{
    const int parts = (int)t->attr[BLOCK_PARTS];
    return ((int)t->attr[BLOCK_QUERIES] - (int)t->attr[BLOCK_KEYS] + parts) % parts;
}

static int check_keys(const struct ring *r, const struct task *t, const struct tensor *kv)
{
    if (turns_of(r, kv) != behind(t))
        return err_set(ERR_INTERNAL, "%s: along cp, its keys (%s) have come %d turns of "
                       "the ring, those of part %d are %d turns away", t->op->name,
                       kv->name, turns_of(r, kv), (int)t->attr[BLOCK_KEYS], behind(t));
    return OK;
}

/* Sums of gradients that come back: both are of the same keys. */
static int check_sum(struct ring *r, const struct task *t)
{
    const int a = turns_of(r, t->in[0]), b = turns_of(r, t->in[1]);
    if (a != b)
        return err_set(ERR_INTERNAL, "%s: along cp, %s is of keys that came %d turns of "
                       "the ring, %s of such that came %d",
                       t->op->name, t->in[0]->name, a, t->in[1]->name, b);
    if (a || turns_of(r, t->out[0]))
        set_turns(r, t->out[0], a);
    return OK;
}

/* Nothing else is about keys of other ranks. */
static int check_own(const struct ring *r, const struct task *t)
{
    for (int k = 0; k < t->op->n_in; k++)
        if (turns_of(r, t->in[k]))
            return err_set(ERR_INTERNAL, "%s: along cp, %s is of keys that came %d turns "
                           "of the ring, and goes back to nobody",
                           t->op->name, t->in[k]->name, turns_of(r, t->in[k]));
    return OK;
}

static int check_task(struct ring *r, const struct task *t)
{
    const bool grad = t->op == &op_attention_block_grad;
    if (t->op == &op_ring_shift) {
        set_turns(r, t->out[0], turns_of(r, t->in[0]) + (int)t->attr[RING_STEP]);
        return OK;
    }
    if ((t->op == &op_attention_block || grad) && t->attr[BLOCK_KEYS] >= 0) {
        TRY(check_keys(r, t, t->in[grad ? 2 : 1]));
        if (grad)
            set_turns(r, t->out[1], behind(t));
        return OK;
    }
    return t->op == &op_add ? check_sum(r, t) : check_own(r, t);
}

/* Blocks of the queries that the last of them ends, itself included. */
static i64 blocks_until(const struct graph *g, i64 at)
{
    i64 blocks = 1;
    const struct tensor *seen = g->tasks[at]->in[3];
    for (i64 i = at - 1; seen && i >= 0; i--)
        if (g->tasks[i]->op == &op_attention_block && g->tasks[i]->out[0] == seen) {
            seen = g->tasks[i]->in[3];
            blocks++;
        }
    return blocks;
}

static int check_all_seen(const struct graph *g, i64 at)
{
    const struct task *t = g->tasks[at];
    if (t->op != &op_attention_block || t->attr[BLOCK_KEYS] < 0 || t->attr[BLOCK_LAST] == 0)
        return OK;
    const i64 parts = (i64)t->attr[BLOCK_PARTS], blocks = blocks_until(g, at);
    if (blocks != parts)
        return err_set(ERR_INTERNAL, "%s: along cp, its queries have seen %lld of %lld "
                       "parts of the keys",
                       t->op->name, (long long)blocks, (long long)parts);
    return OK;
}

int spread_check_ring(const struct graph *g, int ranks)
{
    struct arena a;
    struct ring r = { .ranks = ranks, .slots = 64 };
    int rc = OK;
    arena_init(&a);
    while (r.slots < (u64)(2 * g->n_tasks)) /* a task sets one at most */
        r.slots *= 2;
    r.table = ARENA_ARRAY(&a, struct turned, (i64)r.slots);
    for (i64 i = 0; i < g->n_tasks && rc >= 0; i++) {
        rc = check_task(&r, g->tasks[i]);
        if (rc >= 0)
            rc = check_all_seen(g, i);
    }
    arena_fini(&a);
    return rc;
}
