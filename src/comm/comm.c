#include "comm/comm.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/flight.h"
#include "comm/node.h"
#include "comm/reduce.h"
#include "comm/transport.h"

#include <stdio.h>
#include <string.h>

/* A rank that was itself stopped must not count that time as waiting for others. */
enum { NS_PER_TEST_AT_MOST = 1000 * 1000 * 1000 };

static const char *const op_names[COMM_OPS] = { "allreduce", "reduce_scatter", "all_gather",
                                                "all_to_all", "send", "recv", "broadcast",
                                                "barrier" };

const char *comm_op_name(enum comm_op op)
{
    return op_names[op];
}

/* --- worlds and groups ------------------------------------------------------------ */

int comm_new(struct comm **out, const struct comm_transport *t, int rank, int size)
{
    struct comm *c = sys_alloc((i64)sizeof *c, 64);
    if (!c)
        return err_set(ERR_LIMIT, "no memory for rank %d of %d", rank, size);
    *c = (struct comm){ .transport = t, .rank = rank, .size = size };
    arena_init(&c->arena);
    c->flights = ARENA_ARRAY(&c->arena, struct comm_flight *, size);
    c->flights[rank] = ARENA_NEW(&c->arena, struct comm_flight);
    *out = c;
    return OK;
}

void comm_free(struct comm *c)
{
    if (!c)
        return;
    if (c->transport->close)
        c->transport->close(c);
    node_close(c->node);
    arena_fini(&c->arena);
    sys_free(c);
}

static int check_members(const struct comm *c, const char *axis, const int *members, int n,
                         int *index)
{
    *index = -1;
    if (n < 1 || n > c->size)
        return err_set(ERR_INTERNAL, "group %s has %d members in a world of %d", axis, n,
                       c->size);
    for (int m = 0; m < n; m++) {
        if (members[m] < 0 || members[m] >= c->size)
            return err_set(ERR_INTERNAL, "group %s: there is no rank %d in a world of %d",
                           axis, members[m], c->size);
        for (int k = 0; k < m; k++)
            if (members[k] == members[m])
                return err_set(ERR_INTERNAL, "group %s has rank %d twice", axis, members[m]);
        if (members[m] == c->rank)
            *index = m;
    }
    if (*index < 0)
        return err_set(ERR_INTERNAL, "rank %d makes a group %s without itself", c->rank, axis);
    return OK;
}

/* Members that made the same groups before agree on the key without talking. */
static u64 group_key(const struct comm *c, const char *axis, const int *members, int n)
{
    u64 same = 0;
    for (const struct comm_group *g = c->groups; g; g = g->next)
        if (g->n == n && strcmp(g->axis, axis) == 0 &&
            memcmp(g->members, members, sizeof *members * (size_t)n) == 0)
            same++;
    u64 key = hash64(axis, (i64)strlen(axis), same);
    key = hash64(members, (i64)sizeof *members * n, key);
    return key ? key : 1; /* 0 means "free" in tables */
}

int comm_group_new(struct comm_group **out, struct comm *c, const char *axis,
                   const int *members, int n)
{
    int index;
    TRY(check_members(c, axis, members, n, &index));
    struct comm_group *g = ARENA_NEW(&c->arena, struct comm_group);
    *g = (struct comm_group){ .comm = c, .n = n, .index = index, .transport = c->transport };
    snprintf(g->axis, sizeof g->axis, "%s", axis);
    g->key = group_key(c, g->axis, members, n);
    g->members = ARENA_ARRAY(&c->arena, int, n);
    memcpy(g->members, members, sizeof *members * (size_t)n);
    g->sent = ARENA_ARRAY(&c->arena, u64, n);
    g->received = ARENA_ARRAY(&c->arena, u64, n);
    if (n > 1 && c->transport->group_new)
        TRY(c->transport->group_new(g));
    comm_flight_join(c->flights[c->rank], g->key);
    struct comm_group **last = &c->groups;
    while (*last)
        last = &(*last)->next;
    *last = g;
    *out = g;
    return OK;
}

struct comm_count comm_axis_count(const struct comm *c, const char *axis)
{
    struct comm_count sum = { 0 };
    for (const struct comm_group *g = c->groups; g; g = g->next) {
        if (axis && strcmp(axis, g->axis) != 0)
            continue;
        for (int op = 0; op < COMM_OPS; op++) {
            sum.calls += g->count[op].calls;
            sum.sent_bytes += g->count[op].sent_bytes;
            sum.received_bytes += g->count[op].received_bytes;
        }
    }
    return sum;
}

/* --- what a call means ------------------------------------------------------------ */

static i64 sum_of(const i64 *counts, int n)
{
    i64 sum = 0;
    for (int m = 0; m < n; m++)
        sum += counts[m];
    return sum;
}

struct comm_part comm_part(const struct comm_call *call, int m)
{
    int n = call->group->n;
    if (call->op == COMM_ALLREDUCE) {
        i64 each = call->count / n, more = call->count % n;
        return (struct comm_part){ m * each + i64_min(m, more), each + (m < more) };
    }
    return (struct comm_part){ sum_of(call->counts, m), call->counts[m] };
}

i64 comm_payload_bytes(const struct comm_call *call)
{
    i64 count = call->count;
    if (call->op == COMM_REDUCE_SCATTER || call->op == COMM_ALL_GATHER ||
        call->op == COMM_ALL_TO_ALL)
        count = sum_of(call->counts, call->group->n);
    return call->op == COMM_BARRIER ? 0 : count * dtype_bytes(call->dtype);
}

void comm_describe(const struct comm_call *call, char *text, int chars)
{
    struct comm_record r;
    comm_record_fill(&r, call);
    comm_record_describe(&r, text, chars);
}

static bool is_reduction(enum comm_op op)
{
    return op == COMM_ALLREDUCE || op == COMM_REDUCE_SCATTER;
}

static int broken(const struct comm_call *call, const char *what)
{
    return err_set(ERR_INTERNAL, "%s on %s (tag %u): %s", op_names[call->op],
                   call->group->axis, call->tag, what);
}

static int check_counts(const struct comm_call *call, const i64 *counts)
{
    if (!counts)
        return broken(call, "no counts");
    for (int m = 0; m < call->group->n; m++)
        if (counts[m] < 0)
            return broken(call, "a count is negative");
    return OK;
}

static int check_call(const struct comm_call *call)
{
    if (call->op == COMM_BARRIER)
        return OK;
    if (is_reduction(call->op) && !comm_can_reduce(call->dtype))
        return broken(call, "this dtype cannot be reduced");
    if (call->op == COMM_REDUCE_SCATTER || call->op == COMM_ALL_GATHER ||
        call->op == COMM_ALL_TO_ALL)
        TRY(check_counts(call, call->counts));
    if (call->op == COMM_ALL_TO_ALL)
        TRY(check_counts(call, call->recv_counts));
    if (call->count < 0)
        return broken(call, "a count is negative");
    bool has_peer = call->op == COMM_SEND || call->op == COMM_RECV || call->op == COMM_BROADCAST;
    if (has_peer && (call->peer < 0 || call->peer >= call->group->n))
        return broken(call, "the peer is no member");
    if ((call->op == COMM_SEND || call->op == COMM_RECV) && call->peer == call->group->index)
        return broken(call, "a rank cannot send to itself");
    return OK;
}

int comm_check_match(const struct comm_call *a, const struct comm_call *b)
{
    bool pair = a->op == COMM_SEND && b->op == COMM_RECV;
    bool same = (pair || a->op == b->op) && a->tag == b->tag && a->dtype == b->dtype &&
                a->reduce == b->reduce && a->count == b->count &&
                (pair || a->peer == b->peer);
    if (same && (a->op == COMM_REDUCE_SCATTER || a->op == COMM_ALL_GATHER))
        same = memcmp(a->counts, b->counts, sizeof *a->counts * (size_t)a->group->n) == 0;
    if (same && a->op == COMM_ALL_TO_ALL)
        same = a->counts[b->group->index] == b->recv_counts[a->group->index];
    if (same)
        return OK;
    char ours[128], theirs[128];
    comm_describe(a, ours, sizeof ours);
    comm_describe(b, theirs, sizeof theirs);
    return err_set(ERR_INTERNAL, "ranks do not agree: rank %d calls %s, rank %d calls %s",
                   a->group->comm->rank, ours, b->group->comm->rank, theirs);
}

/* --- a group of one --------------------------------------------------------------- */

void comm_copy(void *to, const void *from, i64 bytes)
{
    if (to != from && bytes > 0)
        memmove(to, from, (size_t)bytes);
}

static int self_start(struct comm_call *call)
{
    return broken(call, "a world of one has nobody to talk to");
}

static int self_progress(struct comm_group *g)
{
    (void)g;
    return OK;
}

static int self_idle(struct comm *c, u32 bell, u64 idle)
{
    (void)c, (void)bell, (void)idle;
    return OK;
}

static const struct comm_transport self_transport = {
    .name = "self", .start = self_start, .progress = self_progress, .idle = self_idle,
};

int comm_self_new(struct comm **out)
{
    return comm_new(out, &self_transport, 0, 1);
}

/* --- calls ------------------------------------------------------------------------ */

static void enter(struct comm_group *g)
{
    while (atomic_flag_test_and_set_explicit(&g->busy, memory_order_acquire))
        sys_yield();
}

static void leave(struct comm_group *g)
{
    atomic_flag_clear_explicit(&g->busy, memory_order_release);
}

static void finish(struct comm_call *call, int status)
{
    struct comm_group *g = call->group;
    if (g->n > 1)
        atomic_fetch_sub(&g->under_way, 1);
    call->finished_ns = sys_now_ns();
    if (status == COMM_DONE) {
        struct comm_count *count = &g->count[call->op];
        count->calls++;
        count->sent_bytes += call->sent_bytes;
        count->received_bytes += call->received_bytes;
    }
    comm_flight_finish(g->comm->flights[g->comm->rank], call->flight, call->finished_ns);
    call->status = status; /* last: now the call may be reused by whoever looks at it */
}

int comm_start(struct comm_call *call)
{
    struct comm_group *g = call->group;
    struct comm *c = g->comm;
    TRY(check_call(call));
    if (call->op == COMM_SEND)
        call->sequence = g->sent[call->peer]++;
    else if (call->op == COMM_RECV)
        call->sequence = g->received[call->peer]++;
    else
        call->sequence = g->sequence++;
    call->sent_bytes = call->received_bytes = 0;
    call->step = call->part = 0;
    call->ended = false;
    call->state = NULL;
    call->next = NULL;
    call->waited_ns = call->release_ns = 0;
    call->looked = 0;
    call->started_ns = call->tested_ns = sys_now_ns();
    call->status = COMM_STARTED;
    call->flight = comm_flight_start(c->flights[c->rank], call);
    if (g->n == 1) {
        comm_copy(call->out, call->in, comm_payload_bytes(call));
        finish(call, COMM_DONE);
        return OK;
    }
    enter(g);
    atomic_fetch_add(&g->under_way, 1);
    int rc = g->transport->start(call);
    leave(g);
    if (rc < 0)
        finish(call, COMM_FAILED);
    return rc;
}

/* OK while there is time to wait. */
static int look_at_time(struct comm_call *call)
{
    const struct comm *c = call->group->comm;
    u64 patience = atomic_load_explicit(&c->patience_ns, memory_order_relaxed);
    u64 now = sys_now_ns(), since = now - call->tested_ns;
    call->tested_ns = now;
    call->waited_ns += since < NS_PER_TEST_AT_MOST ? since : NS_PER_TEST_AT_MOST;
    if (c->deadline_ns && call->waited_ns > c->deadline_ns)
        return comm_explain_stall(call);
    if (!patience || call->waited_ns / patience <= call->looked)
        return OK;
    call->looked++;
    return comm_look_into_stall(call);
}

/* A peer may have to get something of this rank's other calls before it comes to this one. */
static int progress_others(const struct comm_group *own)
{
    for (struct comm_group *g = own->comm->groups; g; g = g->next) {
        if (g == own || atomic_load_explicit(&g->under_way, memory_order_relaxed) == 0)
            continue;
        if (atomic_flag_test_and_set_explicit(&g->busy, memory_order_acquire))
            continue; /* another thread is at it */
        int rc = g->transport->progress(g);
        leave(g);
        TRY(rc);
    }
    return OK;
}

/* The last of what is held: until then waiters look again and again. */
static void hold(struct comm *c, u64 until)
{
    u64 was = atomic_load(&c->held_ns);
    while (was < until && !atomic_compare_exchange_weak(&c->held_ns, &was, until))
        ;
}

/* Whether a call that has ended may be seen to have ended. */
static bool released(struct comm_call *call)
{
    u64 now;
    if (call->link_ns + call->delay_ns == 0)
        return true;
    now = sys_now_ns();
    if (call->release_ns == 0) {
        struct comm_group *g = call->group;
        u64 begin = g->link_free_ns > now ? g->link_free_ns : now;
        g->link_free_ns = begin + call->link_ns;
        call->release_ns = g->link_free_ns + call->delay_ns;
        hold(g->comm, call->release_ns);
    }
    return now >= call->release_ns;
}

int comm_test(struct comm_call *call)
{
    struct comm_group *g = call->group;
    if (call->status == COMM_DONE)
        return 1;
    assert(call->status == COMM_STARTED);
    int rc = OK;
    if (!call->ended) {
        enter(g);
        rc = g->transport->progress(g);
        leave(g);
    }
    if (call->ended) {
        if (!released(call))
            return 0;
        finish(call, COMM_DONE);
        return 1;
    }
    if (rc == OK)
        rc = progress_others(g);
    if (rc == OK)
        rc = look_at_time(call);
    if (rc < 0)
        finish(call, COMM_FAILED);
    return rc;
}

u32 comm_bell(const struct comm *c)
{
    return c->node ? node_bell(c->node) : 0;
}

/* Short, since no bell rings when it is over; a bell may ring meanwhile for what is not held. */
static bool rest_for_held(struct comm *c, u32 bell)
{
    const u64 spin_ns = 20 * 1000, most_ns = 200 * 1000;
    u64 until = atomic_load_explicit(&c->held_ns, memory_order_relaxed);
    u64 now;
    if (until == 0)
        return false;
    now = sys_now_ns();
    if (now >= until) { /* since the caller looked: it must look once more */
        atomic_compare_exchange_strong(&c->held_ns, &until, 0);
        return true;
    }
    u64 nap_ns = until - now > spin_ns ? until - now - spin_ns : 0;
    nap_ns = nap_ns < most_ns ? nap_ns : most_ns;
    if (nap_ns == 0)
        sys_yield();
    else if (c->node)
        node_nap(c->node, bell, nap_ns);
    else
        sys_sleep_ns(nap_ns);
    return true;
}

int comm_rest(struct comm *c, u32 bell, u64 idle)
{
    const struct comm_transport *t = c->transport;
    if (rest_for_held(c, bell))
        return OK;
    for (const struct comm_group *g = c->groups; g; g = g->next) {
        if (atomic_load_explicit(&g->under_way, memory_order_relaxed) == 0)
            continue;
        t = g->transport;
        if (!t->rings)
            break; /* must be asked again and again */
    }
    return t->idle(c, bell, idle);
}

int comm_wait(struct comm_call *call)
{
    struct comm *c = call->group->comm;
    for (u64 idle = 0;; idle++) {
        u32 bell = comm_bell(c);
        int rc = comm_test(call);
        if (rc != 0)
            return rc < 0 ? rc : OK;
        rc = comm_rest(c, bell, idle);
        if (rc == ERR_HANG)
            rc = comm_explain_stall(call);
        if (rc < 0) {
            finish(call, COMM_FAILED);
            return rc;
        }
    }
}

int comm_run(struct comm_call *call)
{
    TRY(comm_start(call));
    return comm_wait(call);
}
