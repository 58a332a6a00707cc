/* Processes of one node: data moves through memory that they share.
 *
 * Collectives go in rounds. In a round each member puts down what others need, raises its
 * board, waits until all boards are raised, and takes what it needs. The last one to raise
 * its board wakes the others. Two slots per member
 * alternate: whoever raises the board for round r has taken all of round r - 1, so when
 * every board of round r - 1 was seen raised, the slots of round r - 2 are free. Nobody
 * ever waits for "has been read".
 *
 * An allreduce alternates two kinds of rounds: each member takes its part from everybody,
 * sums it, then puts the sum down for everybody.
 *
 * Messages, and the parts of all_to_all, go through a ring per ordered pair. */
#include "base/err.h"
#include "base/hash.h"
#include "comm/flight.h"
#include "comm/node.h"
#include "comm/reduce.h"
#include "comm/transport.h"

#include <stdio.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    SLOTS = 2,
    PIECES = 4,            /* of a ring: the reader begins before the writer is done */
    LARGE_BYTES = 8 << 20, /* more than the private caches of a core hold */
};

/* What a member says that its call is. */
struct label {
    u64 fingerprint;
    struct comm_record record;
};

struct board {
    _Alignas(64) atomic_ullong raised; /* rounds put down, over all calls */
    struct label label[SLOTS];
};

/* What the members of a group share; the slots follow the boards. */
struct meeting {
    _Alignas(64) atomic_ullong raised; /* by all together: n per round */
    struct board boards[];
};

struct pipe {
    _Alignas(64) atomic_ullong written;
    _Alignas(64) atomic_ullong read;
    _Alignas(64) char ring[];
};

struct queue {
    struct comm_call *head, *tail;
};

/* One direction between this member and another. */
struct side {
    struct queue queue;
    struct pipe *pipe;     /* of sends and receives */
    struct pipe *parts;    /* of all_to_all */
    i64 moved;             /* of the part in progress */
};

struct shm_group {
    struct comm_group *group;
    struct node *node;
    int *seats;
    struct meeting *meeting;
    char *slots;           /* [member][SLOTS][slot_bytes] */
    i64 slot_bytes, pipe_bytes;
    u64 rounds;            /* taken */
    bool raised;           /* this round's own slot is put down */
    struct queue queue;
    struct side *to, *from;
    const void **inputs;
};

static struct shm_group *shm_of(const struct comm_call *call)
{
    return call->group->state;
}

static int no_room(const struct comm_group *g)
{
    TRY(node_check(g->comm->node));
    return err_set(ERR_LIMIT, "the shared memory of this node is full: too many groups like "
                   "%s with %d members", g->axis, g->n);
}

static int shm_group_new(struct comm_group *g)
{
    struct arena *a = &g->comm->arena;
    struct node *node = g->comm->node;
    struct shm_group *s = ARENA_NEW(a, struct shm_group);
    *s = (struct shm_group){ .group = g, .node = node, .slot_bytes = node_slot_bytes(node) };
    s->slot_bytes = round_up(i64_max(s->slot_bytes, 8 * g->n), 64);
    s->pipe_bytes = round_up(i64_max(s->slot_bytes / 2, 1024), 64);
    s->seats = ARENA_ARRAY(a, int, g->n);
    for (int m = 0; m < g->n; m++)
        s->seats[m] = node_seat_of(node, g->members[m]);
    s->to = ARENA_ARRAY(a, struct side, g->n);
    s->from = ARENA_ARRAY(a, struct side, g->n);
    s->inputs = ARENA_ARRAY(a, const void *, g->n);
    i64 boards = (i64)sizeof(struct meeting) + g->n * (i64)sizeof(struct board);
    char *shared = node_find(node, g->key, boards + g->n * SLOTS * s->slot_bytes);
    if (!shared)
        return no_room(g);
    s->meeting = (struct meeting *)shared;
    s->slots = shared + boards;
    g->state = s;
    return OK;
}

/* --- labels ----------------------------------------------------------------------- */

static struct label label_of(const struct comm_call *call)
{
    struct label l;
    bool pair = call->op == COMM_SEND || call->op == COMM_RECV;
    i64 said[6] = { pair ? COMM_SEND : call->op, call->tag, call->dtype, call->reduce,
                    call->count, pair ? 0 : call->peer };
    l.fingerprint = hash64(said, sizeof said, 0);
    if (call->op == COMM_REDUCE_SCATTER || call->op == COMM_ALL_GATHER)
        l.fingerprint = hash64(call->counts, call->group->n * (i64)sizeof(i64), l.fingerprint);
    comm_record_fill(&l.record, call);
    return l;
}

static int tell_mismatch(const struct comm_call *call, int m, const struct comm_record *other)
{
    char ours[128], theirs[128];
    struct comm_record own;
    comm_record_fill(&own, call);
    comm_record_describe(&own, ours, sizeof ours);
    comm_record_describe(other, theirs, sizeof theirs);
    const int rank = call->group->comm->rank, peer = call->group->members[m];
    const int odd = comm_odd_of(call->group->comm, call->group->key, call->sequence, rank, peer);
    char who[48] = "";
    if (odd >= 0)
        snprintf(who, sizeof who, "rank %d left its order of calls: ", odd);
    int rc = err_set(ERR_INTERNAL, "%sranks do not agree: rank %d calls %s, rank %d calls %s", who,
                     rank, ours, peer, theirs);
    node_note(shm_of(call)->node, rc, err_message());
    return node_check(shm_of(call)->node);
}

static int tell_left(const struct comm_call *call, int m)
{
    char text[128];
    struct comm_record own;
    comm_record_fill(&own, call);
    comm_record_describe(&own, text, sizeof text);
    int rc = err_set(ERR_PEER, "rank %d ended without reaching %s of rank %d",
                     call->group->members[m], text, call->group->comm->rank);
    node_note(shm_of(call)->node, rc, err_message());
    return node_check(shm_of(call)->node);
}

/* --- rounds ----------------------------------------------------------------------- */

static char *slot_of(const struct shm_group *s, int m)
{
    return s->slots + (m * SLOTS + (i64)(s->rounds % SLOTS)) * s->slot_bytes;
}

static char *next_slot(const struct shm_group *s, int m)
{
    return s->slots + (m * SLOTS + (i64)((s->rounds + 1) % SLOTS)) * s->slot_bytes;
}

/* Elements of one part that move in one round. */
static i64 chunk_of(const struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    bool of_all = call->op == COMM_ALLREDUCE || call->op == COMM_REDUCE_SCATTER;
    return s->slot_bytes / dtype_bytes(call->dtype) / (of_all ? call->group->n : 1);
}

static u64 rounds_of(const struct comm_call *call)
{
    i64 most = 1;
    if (call->op == COMM_BROADCAST)
        most = i64_max(most, call->count);
    if (call->op == COMM_ALLREDUCE || call->op == COMM_REDUCE_SCATTER ||
        call->op == COMM_ALL_GATHER)
        for (int m = 0; m < call->group->n; m++)
            most = i64_max(most, comm_part(call, m).count);
    u64 rounds = (u64)ceil_div(most, chunk_of(call));
    return call->op == COMM_ALLREDUCE ? 2 * rounds : rounds;
}

/* What of member m's part moves in this round. */
static struct comm_part piece_of(const struct comm_call *call, int m)
{
    i64 chunk = chunk_of(call);
    i64 first = (i64)(call->op == COMM_ALLREDUCE ? call->step / 2 : call->step) * chunk;
    struct comm_part p = call->op == COMM_BROADCAST ? (struct comm_part){ 0, call->count }
                                                    : comm_part(call, m);
    return (struct comm_part){ p.begin + first, i64_max(0, i64_min(chunk, p.count - first)) };
}

static bool is_gathering(const struct comm_call *call)
{
    return call->op == COMM_ALL_GATHER || (call->op == COMM_ALLREDUCE && call->step % 2 == 1);
}

static bool is_reducing(const struct comm_call *call)
{
    return call->op == COMM_REDUCE_SCATTER || (call->op == COMM_ALLREDUCE && call->step % 2 == 0);
}

/* Past the caches, for buffers that do not fit them anyway: a line that is written whole
 * need not be read first, nor taken back from the cache of the one who read it last. */
static void copy_past_caches(char *to, const char *from, i64 bytes)
{
#if defined(__SSE2__)
    i64 head = i64_min(bytes, -(i64)(uintptr_t)to & 15);
    memcpy(to, from, (size_t)head);
    i64 i = head;
    for (; i + 64 <= bytes; i += 64)
        for (int k = 0; k < 64; k += 16) {
            __m128i piece = _mm_loadu_si128((const __m128i *)(from + i + k));
            _mm_stream_si128((__m128i *)(to + i + k), piece);
        }
    memcpy(to + i, from + i, (size_t)(bytes - i));
    _mm_sfence(); /* before others are told */
#else
    memcpy(to, from, (size_t)bytes);
#endif
}

static void move_bytes(const struct comm_call *call, void *to, const void *from, i64 bytes)
{
    if (to != from && comm_payload_bytes(call) >= LARGE_BYTES)
        copy_past_caches(to, from, bytes);
    else
        comm_copy(to, from, bytes);
}

static void put_down(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    const struct comm_group *g = call->group;
    enum dtype d = call->dtype;
    char *slot = slot_of(s, g->index);
    if (is_reducing(call)) {
        for (int m = 0; m < g->n; m++) {
            struct comm_part p = piece_of(call, m);
            if (m == g->index)
                continue;
            move_bytes(call, comm_at(slot, m * chunk_of(call), d), comm_at(call->in, p.begin, d),
                      p.count * dtype_bytes(d));
            call->sent_bytes += p.count * dtype_bytes(d);
        }
    } else if (is_gathering(call)) {
        struct comm_part p = piece_of(call, g->index), whole = comm_part(call, g->index);
        if (call->op == COMM_ALL_GATHER) /* an allreduce has its sum there already */
            move_bytes(call, slot, comm_at(call->in, p.begin - whole.begin, d),
                       p.count * dtype_bytes(d));
        call->sent_bytes += (g->n - 1) * p.count * dtype_bytes(d);
    } else if (call->op == COMM_BROADCAST && call->peer == g->index) {
        struct comm_part p = piece_of(call, g->index);
        move_bytes(call, slot, comm_at(call->in, p.begin, d), p.count * dtype_bytes(d));
        call->sent_bytes += (g->n - 1) * p.count * dtype_bytes(d);
    }
}

static void take(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    const struct comm_group *g = call->group;
    enum dtype d = call->dtype;
    if (is_reducing(call)) {
        struct comm_part p = piece_of(call, g->index), whole = comm_part(call, g->index);
        for (int m = 0; m < g->n; m++)
            s->inputs[m] = m == g->index ? comm_at(call->in, p.begin, d)
                                         : comm_at(slot_of(s, m), g->index * chunk_of(call), d);
        /* The next round's slot is free: all have raised the board for this one. */
        bool all = call->op == COMM_ALLREDUCE;
        char *to = all ? next_slot(s, g->index) : comm_at(call->out, p.begin - whole.begin, d);
        comm_reduce_tree(d, call->reduce, g->n, s->inputs, to, p.count);
        if (all)
            move_bytes(call, comm_at(call->out, p.begin, d), to, p.count * dtype_bytes(d));
        call->received_bytes += (g->n - 1) * p.count * dtype_bytes(d);
    }
    for (int m = 0; m < g->n && !is_reducing(call); m++) {
        bool from_m = is_gathering(call) || (call->op == COMM_BROADCAST && call->peer == m);
        if (!from_m)
            continue;
        struct comm_part p = piece_of(call, m);
        i64 bytes = p.count * dtype_bytes(d);
        if (m != g->index) {
            move_bytes(call, comm_at(call->out, p.begin, d), slot_of(s, m), bytes);
            call->received_bytes += bytes;
        } else if (call->op == COMM_ALL_GATHER) {
            i64 at = p.begin - comm_part(call, m).begin;
            move_bytes(call, comm_at(call->out, p.begin, d), comm_at(call->in, at, d), bytes);
        } else if (call->op == COMM_BROADCAST) {
            move_bytes(call, comm_at(call->out, p.begin, d), comm_at(call->in, p.begin, d), bytes);
        }
    }
}

static u64 all_raised(const struct comm_call *call)
{
    return (shm_of(call)->rounds + 1) * (u64)call->group->n;
}

static void raise_board(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    struct board *own = &s->meeting->boards[call->group->index];
    if (call->step == 0)
        own->label[s->rounds % SLOTS] = label_of(call);
    put_down(call);
    atomic_store_explicit(&own->raised, s->rounds + 1, memory_order_release);
    bool last = atomic_fetch_add(&s->meeting->raised, 1) + 1 == all_raised(call);
    for (int m = 0; m < call->group->n && last; m++)
        if (m != call->group->index)
            node_ring(s->node, s->seats[m]);
    s->raised = true;
}

/* 1 when all boards of this round are raised. */
static int look_at_boards(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    struct board *boards = s->meeting->boards;
    int n = call->group->n;
    bool all = atomic_load_explicit(&s->meeting->raised, memory_order_acquire) >= all_raised(call);
    for (int m = 0; m < n && !all; m++)
        if (node_left(s->node, s->seats[m]) && atomic_load(&boards[m].raised) <= s->rounds)
            return tell_left(call, m);
    if (!all || call->step > 0)
        return all;
    u64 own = boards[call->group->index].label[s->rounds % SLOTS].fingerprint;
    for (int m = 0; m < n; m++) {
        const struct label *l = &boards[m].label[s->rounds % SLOTS];
        if (l->fingerprint != own)
            return tell_mismatch(call, m, &l->record);
    }
    return 1;
}

static int advance_rounds(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    while (call->step < call->part) {
        if (!s->raised)
            raise_board(call);
        int rc = look_at_boards(call);
        if (rc <= 0)
            return rc;
        take(call);
        s->raised = false;
        s->rounds++;
        call->step++;
    }
    return 1;
}

/* --- rings ------------------------------------------------------------------------ */

/* Copies `bytes` at position `at` of the ring, which may lie at its end and its begin. */
static void into_ring(struct pipe *p, i64 capacity, u64 at, const void *data, i64 bytes)
{
    i64 begin = (i64)(at % (u64)capacity), first = i64_min(bytes, capacity - begin);
    memcpy(p->ring + begin, data, (size_t)first);
    memcpy(p->ring, (const char *)data + first, (size_t)(bytes - first));
}

static void out_of_ring(const struct pipe *p, i64 capacity, u64 at, void *data, i64 bytes)
{
    i64 begin = (i64)(at % (u64)capacity), first = i64_min(bytes, capacity - begin);
    memcpy(data, p->ring + begin, (size_t)first);
    memcpy((char *)data + first, p->ring, (size_t)(bytes - first));
}

/* Bytes written, at most a piece; all or nothing when whole. */
static i64 ring_write(struct pipe *p, i64 capacity, const void *data, i64 bytes, bool whole)
{
    u64 at = atomic_load_explicit(&p->written, memory_order_relaxed);
    i64 space = capacity - (i64)(at - atomic_load_explicit(&p->read, memory_order_acquire));
    i64 n = i64_min(space, whole ? bytes : i64_min(bytes, capacity / PIECES));
    if (n <= 0 || (whole && n < bytes))
        return 0;
    into_ring(p, capacity, at, data, n);
    atomic_store_explicit(&p->written, at + (u64)n, memory_order_release);
    return n;
}

static i64 ring_read(struct pipe *p, i64 capacity, void *data, i64 bytes, bool whole)
{
    u64 at = atomic_load_explicit(&p->read, memory_order_relaxed);
    i64 there = (i64)(atomic_load_explicit(&p->written, memory_order_acquire) - at);
    i64 n = i64_min(there, whole ? bytes : i64_min(bytes, capacity / PIECES));
    if (n <= 0 || (whole && n < bytes))
        return 0;
    out_of_ring(p, capacity, at, data, n);
    atomic_store_explicit(&p->read, at + (u64)n, memory_order_release);
    return n;
}

static int find_pipe(struct comm_call *call, struct pipe **pipe, bool sends, int m, u64 kind)
{
    struct shm_group *s = shm_of(call);
    int pair[2] = { sends ? call->group->index : m, sends ? m : call->group->index };
    if (!*pipe)
        *pipe = node_find(s->node, hash64(pair, sizeof pair, call->group->key + kind),
                          (i64)sizeof(struct pipe) + s->pipe_bytes);
    return *pipe ? OK : no_room(call->group);
}

/* Moves a message on; *moved counts its bytes, its label first. 1 when it has ended. */
static int advance_message(struct comm_call *call, struct pipe *pipe, bool sends, int m,
                           char *data, i64 bytes, i64 *moved)
{
    struct shm_group *s = shm_of(call);
    i64 head = (i64)sizeof(struct label), capacity = s->pipe_bytes, before = *moved;
    struct label l;
    if (*moved == 0 && sends) {
        l = label_of(call);
        l.record.bytes = bytes;
        *moved += ring_write(pipe, capacity, &l, head, true);
    } else if (*moved == 0 && ring_read(pipe, capacity, &l, head, true) > 0) {
        if (l.fingerprint != label_of(call).fingerprint || l.record.bytes != bytes)
            return tell_mismatch(call, m, &l.record);
        *moved = head;
    }
    while (*moved >= head && *moved - head < bytes) {
        i64 at = *moved - head;
        i64 n = sends ? ring_write(pipe, capacity, data + at, bytes - at, false)
                      : ring_read(pipe, capacity, data + at, bytes - at, false);
        if (n == 0)
            break;
        *moved += n;
        *(sends ? &call->sent_bytes : &call->received_bytes) += n;
        node_ring(s->node, s->seats[m]);
    }
    if (*moved > before)
        node_ring(s->node, s->seats[m]);
    if (*moved == head + bytes)
        return 1;
    if (*moved == before && !sends && node_left(s->node, s->seats[m]) &&
        atomic_load(&pipe->written) == atomic_load(&pipe->read))
        return tell_left(call, m);
    return 0;
}

static int advance_pair(struct comm_call *call)
{
    bool sends = call->op == COMM_SEND;
    struct side *side = sends ? &shm_of(call)->to[call->peer] : &shm_of(call)->from[call->peer];
    TRY(find_pipe(call, &side->pipe, sends, call->peer, 1));
    i64 moved = (i64)call->step;
    int rc = advance_message(call, side->pipe, sends, call->peer,
                             sends ? (char *)(uintptr_t)call->in : call->out,
                             call->count * dtype_bytes(call->dtype), &moved);
    call->step = (u64)moved;
    return rc;
}

/* --- all_to_all ------------------------------------------------------------------- */

/* One direction; 1 when every part of it has moved. */
static int advance_parts(struct comm_call *call, bool sends)
{
    struct shm_group *s = shm_of(call);
    i64 offset = 0, eb = dtype_bytes(call->dtype);
    int all = 1;
    for (int m = 0; m < call->group->n; m++) {
        i64 bytes = (sends ? call->counts : call->recv_counts)[m] * eb;
        struct side *side = sends ? &s->to[m] : &s->from[m];
        char *data = (sends ? (char *)(uintptr_t)call->in : (char *)call->out) + offset;
        offset += bytes;
        if (m == call->group->index || side->moved == (i64)sizeof(struct label) + bytes)
            continue;
        TRY(find_pipe(call, &side->parts, sends, m, 2));
        int rc = advance_message(call, side->parts, sends, m, data, bytes, &side->moved);
        TRY(rc);
        all &= rc;
    }
    return all;
}

static void copy_own_part(struct comm_call *call)
{
    i64 from = 0, to = 0, eb = dtype_bytes(call->dtype);
    int me = call->group->index;
    for (int m = 0; m < me; m++) {
        from += call->counts[m];
        to += call->recv_counts[m];
    }
    comm_copy((char *)call->out + to * eb, (const char *)call->in + from * eb,
              call->counts[me] * eb);
}

static int advance_all_to_all(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    int sent = advance_parts(call, true);
    TRY(sent);
    int received = advance_parts(call, false);
    TRY(received);
    if (!sent || !received)
        return 0;
    copy_own_part(call);
    for (int m = 0; m < call->group->n; m++)
        s->to[m].moved = s->from[m].moved = 0;
    return 1;
}

/* --- the table -------------------------------------------------------------------- */

static int advance(struct comm_call *call)
{
    if (call->op == COMM_SEND || call->op == COMM_RECV)
        return advance_pair(call);
    int rc = advance_rounds(call);
    return rc > 0 && call->op == COMM_ALL_TO_ALL ? advance_all_to_all(call) : rc;
}

static struct queue *queue_of(struct comm_call *call)
{
    struct shm_group *s = shm_of(call);
    if (call->op == COMM_SEND)
        return &s->to[call->peer].queue;
    return call->op == COMM_RECV ? &s->from[call->peer].queue : &s->queue;
}

/* Calls of a queue end in their order. */
static int advance_queue(struct queue *q)
{
    while (q->head) {
        struct comm_call *call = q->head;
        const struct comm *c = call->group->comm;
        int rc = advance(call);
        comm_flight_progress(c->flights[c->rank], call->flight,
                             call->step + (u64)(call->sent_bytes + call->received_bytes));
        if (rc <= 0)
            return rc;
        q->head = call->next;
        call->ended = true; /* last: its owner may be another thread */
    }
    return OK;
}

static int shm_start(struct comm_call *call)
{
    struct queue *q = queue_of(call);
    TRY(node_check(shm_of(call)->node));
    if (call->op != COMM_SEND && call->op != COMM_RECV)
        call->part = rounds_of(call);
    if (q->head)
        q->tail->next = call;
    else
        q->head = call;
    q->tail = call;
    return advance_queue(q);
}

static int shm_progress(struct comm_group *g)
{
    struct shm_group *s = g->state;
    TRY(node_check(s->node));
    TRY(advance_queue(&s->queue));
    for (int m = 0; m < g->n; m++) {
        TRY(advance_queue(&s->to[m].queue));
        TRY(advance_queue(&s->from[m].queue));
    }
    return OK;
}

static int shm_idle(struct comm *c, u32 bell, u64 idle)
{
    return node_rest(c->node, bell, idle);
}

const struct comm_transport shm_transport = {
    .name = "shm", .rings = true, .group_new = shm_group_new, .start = shm_start,
    .progress = shm_progress, .idle = shm_idle,
};
