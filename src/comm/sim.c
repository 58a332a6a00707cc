#include "comm/sim.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "comm/reduce.h"
#include "comm/transport.h"

#include <string.h>

/* Calls that one member may be ahead of the slowest. */
enum { WINDOW = 256 };

/* Where calls of the same sequence meet: one per group, one per ordered pair of it. */
struct channel {
    struct channel *next;
    u64 key;
    int sides;
    struct comm_call **pending; /* [WINDOW][sides] */
    u64 *started;               /* per side */
    u64 moved;                  /* calls that ended */
};

struct sim_group {
    struct channel *all, **to, **from; /* to, from: per member, made when first used */
};

struct comm_sim {
    int ranks;
    struct comm **rank;
    struct arena arena;
    struct channel *channels;
    const void **inputs; /* scratch of a reduction */
    bool failed;
};

static struct comm_sim *sim_of(const struct comm_call *call)
{
    return call->group->comm->state;
}

static struct channel *find_channel(struct comm_sim *s, u64 key, int sides)
{
    for (struct channel *c = s->channels; c; c = c->next)
        if (c->key == key)
            return c;
    struct channel *c = ARENA_NEW(&s->arena, struct channel);
    *c = (struct channel){ .key = key, .sides = sides, .next = s->channels };
    c->pending = ARENA_ARRAY(&s->arena, struct comm_call *, (i64)WINDOW * sides);
    c->started = ARENA_ARRAY(&s->arena, u64, sides);
    s->channels = c;
    return c;
}

static int sim_group_new(struct comm_group *g)
{
    struct sim_group *s = ARENA_NEW(&g->comm->arena, struct sim_group);
    s->all = find_channel(g->comm->state, g->key, g->n);
    s->to = ARENA_ARRAY(&g->comm->arena, struct channel *, g->n);
    s->from = ARENA_ARRAY(&g->comm->arena, struct channel *, g->n);
    g->state = s;
    return OK;
}

static struct channel *pair_channel(struct comm_call *call)
{
    struct comm_group *g = call->group;
    struct sim_group *s = g->state;
    bool sends = call->op == COMM_SEND;
    struct channel **at = sends ? &s->to[call->peer] : &s->from[call->peer];
    if (!*at) {
        int pair[2] = { sends ? g->index : call->peer, sends ? call->peer : g->index };
        *at = find_channel(g->comm->state, hash64(pair, sizeof pair, g->key), 2);
    }
    return *at;
}

/* --- moving ----------------------------------------------------------------------- */

/* Elements of `from` and `to` belong to these members' calls. */
static void deliver(struct comm_call *from, const void *data, struct comm_call *to, void *place,
                    i64 count)
{
    i64 bytes = count * dtype_bytes(from->dtype);
    comm_copy(place, data, bytes);
    if (from != to) {
        from->sent_bytes += bytes;
        to->received_bytes += bytes;
    }
}

/* Member p reduces its part, to where its own result goes. */
static void *reduce_part(struct comm_call **calls, int n, int p)
{
    struct comm_call *owner = calls[p];
    const void **inputs = sim_of(owner)->inputs;
    struct comm_part part = comm_part(owner, p);
    for (int m = 0; m < n; m++) {
        inputs[m] = comm_at(calls[m]->in, part.begin, owner->dtype);
        if (m != p) {
            i64 bytes = part.count * dtype_bytes(owner->dtype);
            calls[m]->sent_bytes += bytes;
            owner->received_bytes += bytes;
        }
    }
    void *out = owner->op == COMM_ALLREDUCE ? comm_at(owner->out, part.begin, owner->dtype)
                                            : owner->out;
    comm_reduce_tree(owner->dtype, owner->reduce, n, inputs, out, part.count);
    return out;
}

static void move_reduction(struct comm_call **calls, int n)
{
    for (int p = 0; p < n; p++) {
        void *result = reduce_part(calls, n, p);
        struct comm_part part = comm_part(calls[p], p);
        for (int m = 0; m < n && calls[p]->op == COMM_ALLREDUCE; m++)
            deliver(calls[p], result, calls[m],
                    comm_at(calls[m]->out, part.begin, calls[m]->dtype), part.count);
    }
}

static void move_parts(struct comm_call **calls, int n)
{
    for (int p = 0; p < n; p++) {
        struct comm_part part = comm_part(calls[p], p);
        for (int m = 0; m < n; m++)
            deliver(calls[p], calls[p]->in, calls[m],
                    comm_at(calls[m]->out, part.begin, calls[m]->dtype), part.count);
    }
}

static void move_all_to_all(struct comm_call **calls, int n)
{
    for (int p = 0; p < n; p++) {
        i64 offset = 0;
        for (int m = 0; m < n; m++) {
            i64 place = 0, count = calls[p]->counts[m];
            for (int k = 0; k < p; k++)
                place += calls[m]->recv_counts[k];
            deliver(calls[p], comm_at(calls[p]->in, offset, calls[p]->dtype), calls[m],
                    comm_at(calls[m]->out, place, calls[m]->dtype), count);
            offset += count;
        }
    }
}

static void move(struct comm_call **calls, int n)
{
    switch (calls[0]->op) {
    case COMM_ALLREDUCE:
    case COMM_REDUCE_SCATTER:
        move_reduction(calls, n);
        break;
    case COMM_ALL_GATHER:
        move_parts(calls, n);
        break;
    case COMM_ALL_TO_ALL:
        move_all_to_all(calls, n);
        break;
    case COMM_SEND:
        deliver(calls[0], calls[0]->in, calls[1], calls[1]->out, calls[0]->count);
        break;
    case COMM_BROADCAST:
        for (int m = 0; m < n; m++) {
            struct comm_call *root = calls[calls[0]->peer];
            deliver(root, root->in, calls[m], calls[m]->out, root->count);
        }
        break;
    default:
        break;
    }
}

static int check_matches(struct comm_call **calls, int n)
{
    bool pairwise = calls[0]->op == COMM_ALL_TO_ALL;
    for (int m = 1; m < n; m++)
        TRY(comm_check_match(calls[0], calls[m]));
    for (int p = 0; pairwise && p < n; p++)
        for (int m = 0; m < n; m++)
            TRY(comm_check_match(calls[p], calls[m]));
    return OK;
}

/* --- the table -------------------------------------------------------------------- */

static int sim_start(struct comm_call *call)
{
    bool pair = call->op == COMM_SEND || call->op == COMM_RECV;
    struct channel *c = pair ? pair_channel(call)
                             : ((struct sim_group *)call->group->state)->all;
    int side = pair ? call->op == COMM_RECV : call->group->index;
    if (c->started[side] - c->moved >= WINDOW)
        return err_set(ERR_LIMIT, "rank %d is %d calls ahead of others on %s",
                       call->group->comm->rank, WINDOW, call->group->axis);
    u64 place = c->started[side]++ % WINDOW;
    c->pending[place * (u64)c->sides + (u64)side] = call;
    for (int m = 0; m < c->sides; m++)
        if (c->started[m] <= c->moved)
            return OK; /* somebody is missing */
    struct comm_call **calls = &c->pending[c->moved++ % WINDOW * (u64)c->sides];
    int rc = check_matches(calls, c->sides);
    if (rc < 0) {
        sim_of(call)->failed = true;
        return rc;
    }
    move(calls, c->sides);
    for (int m = 0; m < c->sides; m++)
        calls[m]->ended = true;
    return OK;
}

static int sim_progress(struct comm_group *g)
{
    if (((struct comm_sim *)g->comm->state)->failed)
        return err_set(ERR_INTERNAL, "another simulated rank failed before");
    return OK;
}

/* There is one thread, and it waits. */
static int sim_idle(struct comm *c, u32 bell, u64 idle)
{
    (void)c, (void)bell, (void)idle;
    return ERR_HANG;
}

static const struct comm_transport sim_transport = {
    .name = "sim", .one_thread = true, .group_new = sim_group_new, .start = sim_start,
    .progress = sim_progress, .idle = sim_idle,
};

int comm_sim_new(struct comm_sim **out, int ranks)
{
    struct comm_sim *s = sys_alloc((i64)sizeof *s, 64);
    if (!s)
        return err_set(ERR_LIMIT, "no memory for %d simulated ranks", ranks);
    *s = (struct comm_sim){ 0 };
    arena_init(&s->arena);
    s->rank = ARENA_ARRAY(&s->arena, struct comm *, ranks);
    s->inputs = ARENA_ARRAY(&s->arena, const void *, ranks);
    for (; s->ranks < ranks; s->ranks++) {
        int rc = comm_new(&s->rank[s->ranks], &sim_transport, s->ranks, ranks);
        if (rc < 0) {
            comm_sim_free(s);
            return rc;
        }
        s->rank[s->ranks]->state = s;
    }
    for (int r = 0; r < ranks; r++)
        for (int other = 0; other < ranks; other++)
            s->rank[r]->flights[other] = s->rank[other]->flights[other];
    *out = s;
    return OK;
}

struct comm *comm_sim_rank(struct comm_sim *s, int rank)
{
    return s->rank[rank];
}

void comm_sim_free(struct comm_sim *s)
{
    if (!s)
        return;
    for (int r = 0; r < s->ranks; r++)
        comm_free(s->rank[r]);
    arena_fini(&s->arena);
    sys_free(s);
}
