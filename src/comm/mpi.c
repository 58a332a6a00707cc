#include "comm/mpi.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/ask.h"
#include "comm/flight.h"
#include "comm/local.h"
#include "comm/mpi_table.h"
#include "comm/node.h"
#include "comm/reduce.h"
#include "comm/transport.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    YIELDS = 200,              /* looks before a waiter naps */
    NAP_NS = 20 * 1000,
    SCRATCH_BYTES = 4 << 20,   /* for the parts of a sum in fixed order */
    LOOKS_PER_CHECK = 256,     /* of the node's note */
};

static const char *const names[MPI_LIBRARIES] = { "openmpi", "mpich" };

struct mpi_state {
    const struct mpi_table *table;
    bool always_mpi;
    enum mpi_library library;
    atomic_ullong looks;
    int rank, size;
    struct ask *ask; /* NULL: all ranks see each other */
};

/* A group's calls run one after another through the same arrays. */
struct mpi_group {
    void *handle;
    int *counts, *offsets, *recv_counts, *recv_offsets;
    const void **inputs;
    char *scratch;
    struct comm_call *head, *tail; /* collectives: the first is under way */
    struct comm_call *pairs;       /* sends and receives, all under way */
};

/* A call's state: 0 not begun, then the phase under way. */
enum phase { WAITING, NATIVE, PARTS, SUMS, ENDED };

const char *mpi_library_name(enum mpi_library l)
{
    return names[l];
}

static struct mpi_state *state_of(const struct comm_call *call)
{
    return call->group->comm->state;
}

static int mpi_failed(const struct comm_call *call)
{
    char text[128];
    comm_describe(call, text, sizeof text);
    return err_set(ERR_PEER, "MPI in %s: %s", text, state_of(call)->table->last_error());
}

/* --- groups ----------------------------------------------------------------------- */

static int mpi_group_new(struct comm_group *g)
{
    struct mpi_state *s = g->comm->state;
    bool near = g->comm->node && !s->always_mpi;
    for (int m = 0; near && m < g->n; m++)
        near = node_seat_of(g->comm->node, g->members[m]) >= 0;
    if (near) {
        g->transport = &shm_transport;
        return shm_transport.group_new(g);
    }
    struct arena *a = &g->comm->arena;
    struct mpi_group *mg = ARENA_NEW(a, struct mpi_group);
    mg->counts = ARENA_ARRAY(a, int, g->n);
    mg->offsets = ARENA_ARRAY(a, int, g->n);
    mg->recv_counts = ARENA_ARRAY(a, int, g->n);
    mg->recv_offsets = ARENA_ARRAY(a, int, g->n);
    mg->inputs = ARENA_ARRAY(a, const void *, g->n);
    if (s->table->group(g->members, g->n, (int)(g->key % 32749), &mg->handle) < 0)
        return err_set(ERR_PEER, "MPI cannot make the group %s: %s", g->axis,
                       s->table->last_error());
    g->state = mg;
    return OK;
}

static enum mpi_dtype dtype_of(enum dtype d, bool reduces, i64 *factor)
{
    *factor = 1;
    switch (d) {
    case DTYPE_F32:
        return MPI_TABLE_F32;
    case DTYPE_F64:
        return MPI_TABLE_F64;
    case DTYPE_I32:
        return MPI_TABLE_I32;
    case DTYPE_I64:
        return MPI_TABLE_I64;
    default:
        assert(!reduces);
        *factor = dtype_bytes(d);
        return MPI_TABLE_U8;
    }
}

/* --- native calls ----------------------------------------------------------------- */

static int too_many(const struct comm_call *call)
{
    char text[128];
    comm_describe(call, text, sizeof text);
    return err_set(ERR_LIMIT, "%s: MPI counts at most 2^31 elements in one call; use smaller "
                   "buckets", text);
}

/* Counts and their sums as MPI's ints. */
static int to_ints(const struct comm_call *call, const i64 *counts, i64 factor, int *out,
                   int *offsets)
{
    i64 at = 0;
    for (int m = 0; m < call->group->n; m++) {
        i64 count = counts[m] * factor;
        if (at + count > INT_MAX)
            return too_many(call);
        out[m] = (int)count;
        offsets[m] = (int)at;
        at += count;
    }
    return OK;
}

static bool lies_within(const void *p, const void *buffer, i64 bytes)
{
    return (uintptr_t)p >= (uintptr_t)buffer && (uintptr_t)p < (uintptr_t)buffer + (size_t)bytes;
}

/* Sums that MPI cannot make, or not in the order wanted, or not in this place. */
static bool is_ours(const struct comm_call *call)
{
    if (call->op != COMM_ALLREDUCE && call->op != COMM_REDUCE_SCATTER)
        return false;
    return call->exact || call->dtype == DTYPE_BF16 ||
           (call->op == COMM_REDUCE_SCATTER &&
            lies_within(call->out, call->in, i64_max(1, comm_payload_bytes(call))));
}

static int make_native(struct comm_call *call, struct mpi_call *c)
{
    static const enum mpi_kind kinds[COMM_OPS] = {
        MPI_TABLE_ALLREDUCE, MPI_TABLE_REDUCE_SCATTER, MPI_TABLE_GATHER, MPI_TABLE_ALL_TO_ALL,
        MPI_TABLE_SEND, MPI_TABLE_RECV, MPI_TABLE_BROADCAST, MPI_TABLE_BARRIER
    };
    struct comm_group *g = call->group;
    struct mpi_group *mg = g->state;
    bool reduces = call->op == COMM_ALLREDUCE || call->op == COMM_REDUCE_SCATTER;
    i64 factor;
    *c = (struct mpi_call){ .kind = kinds[call->op], .max = call->reduce == COMM_MAX,
                            .in = call->in, .out = call->out, .peer = call->peer,
                            .counts = mg->counts, .offsets = mg->offsets,
                            .recv_counts = mg->recv_counts, .recv_offsets = mg->recv_offsets };
    c->dtype = dtype_of(call->dtype, reduces, &factor);
    if (call->count * factor > INT_MAX)
        return too_many(call);
    c->count = (int)(call->count * factor);
    if (call->op == COMM_REDUCE_SCATTER || call->op == COMM_ALL_GATHER ||
        call->op == COMM_ALL_TO_ALL)
        TRY(to_ints(call, call->counts, factor, mg->counts, mg->offsets));
    if (call->op == COMM_ALL_TO_ALL)
        TRY(to_ints(call, call->recv_counts, factor, mg->recv_counts, mg->recv_offsets));
    if (call->op == COMM_ALL_GATHER) {
        c->count = mg->counts[g->index];
        if (call->in == comm_at(call->out, comm_part(call, g->index).begin, call->dtype))
            c->in = NULL;
    }
    if (call->op == COMM_ALLREDUCE && call->in == call->out)
        c->in = NULL;
    if (call->op == COMM_BROADCAST && call->peer == g->index)
        comm_copy(call->out, call->in, comm_payload_bytes(call));
    return OK;
}

/* What the call delivers to and gets from others, by the meaning of the operation: how the
 * library moves it is its own affair. */
static void count_native(struct comm_call *call)
{
    struct comm_group *g = call->group;
    i64 eb = dtype_bytes(call->dtype), others = g->n - 1, sent = 0, received = 0;
    bool scatters = call->op == COMM_ALLREDUCE || call->op == COMM_REDUCE_SCATTER;
    bool gathers = call->op == COMM_ALLREDUCE || call->op == COMM_ALL_GATHER;
    for (int m = 0; m < g->n && (scatters || gathers); m++) {
        i64 part = comm_part(call, m).count;
        bool own = m == g->index;
        sent += scatters && !own ? part : 0;
        received += scatters && own ? others * part : 0;
        sent += gathers && own ? others * part : 0;
        received += gathers && !own ? part : 0;
    }
    for (int m = 0; m < g->n && call->op == COMM_ALL_TO_ALL; m++) {
        sent += m == g->index ? 0 : call->counts[m];
        received += m == g->index ? 0 : call->recv_counts[m];
    }
    if (call->op == COMM_BROADCAST) {
        sent = call->peer == g->index ? others * call->count : 0;
        received = call->peer == g->index ? 0 : call->count;
    }
    if (call->op == COMM_SEND)
        sent = call->count;
    if (call->op == COMM_RECV)
        received = call->count;
    call->sent_bytes = sent * eb;
    call->received_bytes = received * eb;
}

/* --- sums in fixed order ---------------------------------------------------------- */

/* Elements of each part per turn. */
static i64 chunk_of(const struct comm_call *call)
{
    return i64_max(1, SCRATCH_BYTES / dtype_bytes(call->dtype) / call->group->n);
}

static struct comm_part piece_of(const struct comm_call *call, int m)
{
    i64 chunk = chunk_of(call), first = (i64)call->step * chunk;
    struct comm_part p = comm_part(call, m);
    return (struct comm_part){ p.begin + first, i64_max(0, i64_min(chunk, p.count - first)) };
}

static u64 turns_of(const struct comm_call *call)
{
    i64 most = 1;
    for (int m = 0; m < call->group->n; m++)
        most = i64_max(most, comm_part(call, m).count);
    return (u64)ceil_div(most, chunk_of(call));
}

/* bf16 travels as bytes. */
static int start_parts(struct comm_call *call)
{
    struct comm_group *g = call->group;
    struct mpi_group *mg = g->state;
    i64 factor, eb = dtype_bytes(call->dtype), own = piece_of(call, g->index).count;
    struct mpi_call c = { .kind = MPI_TABLE_ALL_TO_ALL, .in = call->in, .out = mg->scratch,
                          .counts = mg->counts, .offsets = mg->offsets,
                          .recv_counts = mg->recv_counts, .recv_offsets = mg->recv_offsets };
    c.dtype = dtype_of(call->dtype, false, &factor);
    for (int m = 0; m < g->n; m++) {
        struct comm_part p = piece_of(call, m);
        if ((p.begin + p.count) * factor > INT_MAX)
            return too_many(call);
        bool mine = m == g->index;
        mg->counts[m] = mine ? 0 : (int)(p.count * factor);
        mg->offsets[m] = (int)(p.begin * factor);
        mg->recv_counts[m] = mine ? 0 : (int)(own * factor);
        mg->recv_offsets[m] = (int)(m * own * factor);
        call->sent_bytes += mine ? 0 : p.count * eb;
        call->received_bytes += mine ? 0 : own * eb;
    }
    call->part = PARTS;
    return state_of(call)->table->start(mg->handle, &c, &call->state) < 0 ? mpi_failed(call) : OK;
}

static void sum_own_part(struct comm_call *call)
{
    struct comm_group *g = call->group;
    struct mpi_group *mg = g->state;
    struct comm_part p = piece_of(call, g->index), whole = comm_part(call, g->index);
    for (int m = 0; m < g->n; m++)
        mg->inputs[m] = m == g->index ? comm_at(call->in, p.begin, call->dtype)
                                      : comm_at(mg->scratch, m * p.count, call->dtype);
    i64 at = call->op == COMM_ALLREDUCE ? p.begin : p.begin - whole.begin;
    comm_reduce_tree(call->dtype, call->reduce, g->n, mg->inputs,
                     comm_at(call->out, at, call->dtype), p.count);
}

static int start_sums(struct comm_call *call)
{
    struct comm_group *g = call->group;
    struct mpi_group *mg = g->state;
    i64 factor, eb = dtype_bytes(call->dtype);
    struct mpi_call c = { .kind = MPI_TABLE_GATHER, .out = call->out, .counts = mg->counts,
                          .offsets = mg->offsets };
    c.dtype = dtype_of(call->dtype, false, &factor);
    for (int m = 0; m < g->n; m++) {
        struct comm_part p = piece_of(call, m);
        mg->counts[m] = (int)(p.count * factor);
        mg->offsets[m] = (int)(p.begin * factor);
        if (m == g->index)
            call->sent_bytes += (g->n - 1) * p.count * eb;
        else
            call->received_bytes += p.count * eb;
    }
    call->part = SUMS;
    return state_of(call)->table->start(mg->handle, &c, &call->state) < 0 ? mpi_failed(call) : OK;
}

/* --- progress --------------------------------------------------------------------- */

static int begin(struct comm_call *call)
{
    struct mpi_group *mg = call->group->state;
    struct mpi_call c;
    if (is_ours(call)) {
        if (!mg->scratch)
            mg->scratch = arena_alloc(&call->group->comm->arena,
                                      i64_max(SCRATCH_BYTES, 8 * call->group->n));
        return start_parts(call);
    }
    TRY(make_native(call, &c));
    count_native(call);
    call->part = NATIVE;
    return state_of(call)->table->start(mg->handle, &c, &call->state) < 0 ? mpi_failed(call) : OK;
}

/* What follows when the request under way has ended. */
static int go_on(struct comm_call *call)
{
    if (call->part == PARTS) {
        sum_own_part(call);
        if (call->op == COMM_ALLREDUCE)
            return start_sums(call);
    }
    if (call->part != NATIVE && ++call->step < turns_of(call))
        return start_parts(call);
    call->part = ENDED;
    return OK;
}

static int advance(struct comm_call *call)
{
    if (call->part == WAITING)
        TRY(begin(call));
    while (call->part != ENDED) {
        int rc = state_of(call)->table->test(&call->state);
        if (rc < 0)
            return mpi_failed(call);
        if (rc == 0)
            return 0;
        TRY(go_on(call));
    }
    return 1;
}

static bool is_pair(const struct comm_call *call)
{
    return call->op == COMM_SEND || call->op == COMM_RECV;
}

/* Collectives of a group: one at a time, since they share its arrays. */
static int advance_queue(struct mpi_group *mg)
{
    while (mg->head) {
        struct comm_call *call = mg->head;
        int rc = advance(call);
        if (rc <= 0)
            return rc;
        mg->head = call->next;
        call->ended = true;
    }
    return OK;
}

static int advance_pairs(struct mpi_group *mg)
{
    for (struct comm_call **at = &mg->pairs; *at;) {
        struct comm_call *call = *at, *next = call->next;
        int rc = advance(call);
        TRY(rc);
        if (rc == 0) {
            at = &call->next;
            continue;
        }
        *at = next;
        call->ended = true;
    }
    return OK;
}

static int mpi_start(struct comm_call *call)
{
    struct mpi_group *mg = call->group->state;
    if (is_pair(call)) {
        TRY(begin(call));
        call->next = mg->pairs;
        mg->pairs = call;
        return OK;
    }
    if (mg->head)
        mg->tail->next = call;
    else
        mg->head = call;
    mg->tail = call;
    return advance_queue(mg);
}

static int mpi_progress(struct comm_group *g)
{
    struct mpi_state *s = g->comm->state;
    TRY(advance_queue(g->state));
    TRY(advance_pairs(g->state));
    if (atomic_fetch_add(&s->looks, 1) % LOOKS_PER_CHECK != 0)
        return OK;
    if (s->ask)
        TRY(ask_check(s->ask));
    return g->comm->node ? node_look(g->comm->node) : OK;
}

static int mpi_idle(struct comm *c, u32 bell, u64 idle)
{
    (void)c, (void)bell;
    if (idle % (1u << 20) < YIELDS) /* a lane begins at a multiple: it does not spin either */
        sys_yield();
    else
        sys_sleep_ns(NAP_NS);
    return OK;
}

static int mpi_ask(struct comm *c, const struct comm_group *of)
{
    struct mpi_state *s = c->state;
    if (!s->ask)
        return OK;
    return of ? ask_ranks(s->ask, of->members, of->n) : ask_all(s->ask);
}

static void mpi_close(struct comm *c)
{
    struct mpi_state *s = c->state;
    i32 own = 0, *all = ARENA_ARRAY(&c->arena, i32, c->size);
    if (s->ask && c->failed)
        ask_tell(s->ask, c->failed);
    else if (s->ask && s->table->exchange(&own, all, (int)sizeof own) < 0)
        c->failed = err_set(ERR_PEER, "MPI: %s", s->table->last_error());
    ask_stop(s->ask); /* not before the exchange: until then others ask */
    if (c->failed && c->size > 1) {
        /* The others wait inside MPI: there is no orderly end, so this is the last word. */
        if (c->speaks)
            log_line(LOG_ERROR, "%s", err_message());
        s->table->abort(err_exit_code(c->failed));
        return;
    }
    for (struct comm_group *g = c->groups; g; g = g->next)
        if (g->n > 1 && g->transport == c->transport)
            s->table->group_free(((struct mpi_group *)g->state)->handle);
    if (s->ask && s->table->exchange(&own, all, (int)sizeof own) == 0) /* nobody answers any more */
        ask_take_in(s->ask);
    ask_close(s->ask);
    s->table->close();
}

static const struct comm_transport mpi_transport = {
    .name = "mpi", .group_new = mpi_group_new, .start = mpi_start, .progress = mpi_progress,
    .idle = mpi_idle, .ask = mpi_ask, .close = mpi_close,
};

/* --- worlds ----------------------------------------------------------------------- */

static void module_path(enum mpi_library l, char *path, int chars)
{
    char folder[3000];
    sys_program_folder(folder, sizeof folder);
    /* beside the program, or above it: tests lie in a folder of their own */
    snprintf(path, (size_t)chars, "%s/headway-mpi-%s.so", folder, names[l]);
    if (!sys_exists(path))
        snprintf(path, (size_t)chars, "%s/../headway-mpi-%s.so", folder, names[l]);
}

bool comm_mpi_exists(enum mpi_library l)
{
    char path[4096];
    module_path(l, path, sizeof path);
    return sys_exists(path);
}

static int load(enum mpi_library l, const struct mpi_table **table)
{
    char path[4096];
    const char *why;
    module_path(l, path, sizeof path);
    if (!sys_exists(path))
        return err_set(ERR_CONFIG, "there is no module for %s: headway-mpi-%s.so must "
                       "lie beside the program (copy both); a build makes it where the "
                       "library's development package is installed", names[l], names[l]);
    mpi_table_fn fn = (mpi_table_fn)sys_load(path, MPI_TABLE_SYMBOL, &why);
    if (!fn)
        return err_set(ERR_SYS, "cannot load %s: %s", path, why);
    *table = fn();
    if ((*table)->version != MPI_TABLE_VERSION)
        return err_set(ERR_CONFIG, "%s belongs to another version of headway; build both again",
                       path);
    return OK;
}

/* What ranks tell each other to find the node's memory. */
struct offer {
    i32 leader, pid, memory; /* leader: the node's first rank */
    i32 ok;
    char host[COMM_HOST_CHARS];
};

static int exchange(struct mpi_state *s, const struct offer *own, struct offer *all)
{
    if (s->table->exchange(own, all, (int)sizeof *own) < 0)
        return err_set(ERR_PEER, "MPI: %s", s->table->last_error());
    return OK;
}

/* A node whose ranks cannot share memory (containers, hidden processes) goes without:
 * *node stays NULL for all of them. */
static int share_node(struct mpi_state *s, struct arena *a, struct node **node,
                      struct offer *all)
{
    int *ranks = ARENA_ARRAY(a, int, s->size), n = 0, memory = -1, seat = 0;
    if (s->table->node(ranks, &n) < 0)
        return err_set(ERR_PEER, "MPI: %s", s->table->last_error());
    while (ranks[seat] != s->rank)
        seat++;
    struct offer own = { .leader = ranks[0], .pid = sys_pid(), .memory = -1 };
    sys_host_name(own.host, sizeof own.host);
    if (seat == 0 && node_new(&memory, n, COMM_SLOT_BYTES) == OK)
        own.memory = memory;
    TRY(exchange(s, &own, all));
    if (seat > 0 && all[ranks[0]].memory >= 0)
        memory = sys_memory_open(all[ranks[0]].pid, all[ranks[0]].memory);
    own.ok = memory >= 0 && node_open(node, memory) == OK;
    TRY(exchange(s, &own, all));
    bool ok = true;
    for (int i = 0; i < n; i++)
        ok = ok && all[ranks[i]].ok;
    if (!ok) {
        node_close(*node);
        *node = NULL;
        return OK;
    }
    node_sit(*node, seat, s->rank);
    return exchange(s, &own, all); /* all sit */
}

/* A way to learn of ranks that cannot be seen; all ranks make it, or none. */
static int learn_of_others(struct mpi_state *s, struct comm *c, const struct offer *all)
{
    int *nodes = ARENA_ARRAY(&c->arena, int, c->size);
    bool apart = false;
    for (int r = 0; r < c->size; r++) {
        nodes[r] = all[r].leader;
        apart = apart || all[r].leader != all[0].leader || !all[r].ok;
    }
    if (!apart)
        return OK;
    c->sights = ARENA_ARRAY(&c->arena, struct comm_sight, c->size);
    for (int r = 0; r < c->size; r++) {
        c->sights[r].pid = all[r].pid;
        memcpy(c->sights[r].host, all[r].host, sizeof c->sights[r].host);
    }
    return ask_open(&s->ask, s->table, c, nodes);
}

static int check_size(const struct mpi_state *s, int launched)
{
    if (launched == 0 || launched == s->size)
        return OK;
    if (s->size == 1)
        return err_set(ERR_CONFIG, "the launcher started %d processes, but %s made each of them a "
                       "world of its own: launcher and library do not belong together (use "
                       "mpirun.%s, or srun --mpi=%s)", launched, s->table->library(),
                       names[s->library], s->library == MPI_LIBRARY_OPENMPI ? "pmix" : "pmi2");
    return err_set(ERR_CONFIG, "the launcher says that it started %d processes, %s sees %d",
                   launched, s->table->library(), s->size);
}

/* --- start ------------------------------------------------------------------------ */

/* MPI starts when all processes have come, and waits for them for ever without a word. */
struct start_watch {
    atomic_uint over;
    enum mpi_library library;
    int launched, seconds;
};

static int start_seconds(int *out)
{
    const char *text = sys_getenv("HEADWAY_START_SECONDS");
    char *end;
    *out = 60;
    if (!text || !*text)
        return OK;
    long value = strtol(text, &end, 10);
    if (*end || value < 1 || value > 1000000)
        return err_set(ERR_CONFIG, "HEADWAY_START_SECONDS=%.40s is not a number of seconds, 1 or "
                       "more", text);
    *out = (int)value;
    return OK;
}

static void *watch_start(void *context)
{
    struct start_watch *w = context;
    const u64 begin = sys_now_ns(), most = (u64)w->seconds * 1000 * 1000 * 1000;
    char announced[64] = "other processes were announced";
    if (w->launched > 0)
        snprintf(announced, sizeof announced, "%d processes were announced", w->launched);
    while (!atomic_load(&w->over)) {
        const u64 past = sys_now_ns() - begin;
        if (past >= most) {
            log_line(LOG_ERROR, "%s, but %s did not find all of them within %d s: the others ended "
                     "before they joined, or lack their launcher's variables; "
                     "HEADWAY_START_SECONDS can be more", announced, names[w->library], w->seconds);
            sys_exit_now(EXIT_HANG); /* nothing else ends what waits inside MPI */
        }
        sys_futex_wait(&w->over, 0, most - past);
    }
    return NULL;
}

static int start(struct mpi_state *s, int launched)
{
    struct start_watch w = { .library = s->library, .launched = launched };
    pthread_t thread;
    TRY(start_seconds(&w.seconds));
    const bool watched = launched != 1 && pthread_create(&thread, NULL, watch_start, &w) == 0;
    int rc = s->table->open(&s->rank, &s->size);
    atomic_store(&w.over, 1);
    sys_futex_wake(&w.over);
    if (watched)
        pthread_join(thread, NULL);
    return rc < 0 ? err_set(ERR_PEER, "%s does not start: %s", names[s->library],
                            s->table->last_error()) : OK;
}

int comm_mpi_new(struct comm **out, enum mpi_library l, int launched, bool always_mpi,
                 double deadline_s)
{
    struct mpi_state s = { .always_mpi = always_mpi, .library = l };
    struct comm *c;
    TRY(load(l, &s.table));
    TRY(start(&s, launched));
    TRY(check_size(&s, launched));
    TRY(comm_new(&c, &mpi_transport, s.rank, s.size));
    struct mpi_state *state = ARENA_NEW(&c->arena, struct mpi_state);
    *state = s;
    c->state = state;
    c->speaks = true;
    c->deadline_ns = (u64)(1e9 * deadline_s);
    struct offer *all = ARENA_ARRAY(&c->arena, struct offer, s.size);
    int rc = share_node(state, &c->arena, &c->node, all);
    for (int seat = 0; rc >= 0 && c->node && seat < node_ranks(c->node); seat++)
        c->flights[node_rank_at(c->node, seat)] = node_flight(c->node, seat);
    if (rc >= 0)
        rc = learn_of_others(state, c, all);
    if (rc < 0) {
        c->failed = rc; /* the others may have got further, and would wait */
        comm_free(c);
        return rc;
    }
    *out = c;
    return OK;
}
