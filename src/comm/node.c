#include "comm/node.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_share.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    DIRECTORY = 4096,  /* groups and pairs */
    NOTE_CHARS = 900,
    SPIN = 1000,       /* looks while each rank has a core: some 100 us */
    PAUSES = 2,        /* between two looks */
    YIELDS = 100,      /* then, or at once when ranks share cores */
    LOOK_NS = 50 * 1000 * 1000, /* how often a waiter looks whether others live */
};
/* Address space; memory is taken when touched. */
static const i64 bytes_per_rank = (i64)256 << 20;
enum { FULL = 1 }; /* as an offset */
static const u64 magic = 0x3145444f4e575748u; /* "HWWNODE1" */

struct seat {
    _Alignas(64) atomic_uint bell;
    atomic_int sleepers;
    _Alignas(64) atomic_int pid; /* 0: not here yet */
    atomic_int left;
    int rank;
    struct comm_flight flight;
};

struct place {
    atomic_ullong key, offset; /* 0: free; not ready */
};

struct shared {
    u64 magic;
    i64 bytes, slot_bytes;
    int ranks;
    atomic_ullong used;
    atomic_int noted; /* 1: being written, 2: can be read */
    int code;
    char note[NOTE_CHARS];
    struct place directory[DIRECTORY];
    struct seat seats[];
};

struct node {
    struct shared *shared;
    i64 bytes;
    int memory, seat;
    bool crowded;      /* more ranks than cores */
    int *watches;      /* per seat; -1: none */
    atomic_flag looking; /* one lane looks for the dead at a time */
    atomic_ullong looked_ns;
    struct arena arena;
};

static i64 header_bytes(int ranks)
{
    return round_up((i64)sizeof(struct shared) + ranks * (i64)sizeof(struct seat), 4096);
}

int node_new(int *memory, int ranks, i64 slot_bytes)
{
    i64 bytes = header_bytes(ranks) + ranks * bytes_per_rank;
    int fd = sys_memory_new("headway", bytes);
    struct shared *s = fd < 0 ? NULL : sys_map_shared(fd, header_bytes(ranks));
    if (!s) {
        int rc = err_set(ERR_SYS, "no shared memory for %d ranks: %s", ranks, strerror(errno));
        if (fd >= 0)
            sys_close(fd);
        return rc;
    }
    s->magic = magic;
    s->bytes = bytes;
    s->ranks = ranks;
    s->slot_bytes = slot_bytes;
    s->used = (u64)header_bytes(ranks);
    sys_unmap(s, header_bytes(ranks));
    *memory = fd;
    return OK;
}

int node_open(struct node **out, int memory)
{
    i64 bytes = sys_memory_bytes(memory);
    struct shared *s = bytes < (i64)sizeof *s ? NULL : sys_map_shared(memory, bytes);
    if (!s)
        return err_set(ERR_SYS, "cannot map the shared memory of this node: %s",
                       strerror(errno));
    struct node *n = NULL;
    if (s->magic == magic && s->bytes == bytes)
        n = sys_alloc((i64)sizeof *n, 64);
    if (!n) {
        sys_unmap(s, bytes);
        return err_set(ERR_FORMAT, "this is not the shared memory of this job");
    }
    *n = (struct node){ .shared = s, .bytes = bytes, .memory = memory, .seat = -1 };
    arena_init(&n->arena);
    n->crowded = s->ranks > sys_cpu_count();
    n->watches = ARENA_ARRAY(&n->arena, int, s->ranks);
    for (int i = 0; i < s->ranks; i++)
        n->watches[i] = -1;
    *out = n;
    return OK;
}

static void ring_all(struct node *n)
{
    for (int i = 0; i < n->shared->ranks; i++)
        node_ring(n, i);
}

void node_sit(struct node *n, int seat, int rank)
{
    assert(seat >= 0 && seat < n->shared->ranks);
    n->seat = seat;
    n->shared->seats[seat].rank = rank;
    atomic_store(&n->shared->seats[seat].pid, sys_pid());
    ring_all(n);
}

void node_close(struct node *n)
{
    if (!n)
        return;
    if (n->seat >= 0) {
        atomic_store(&n->shared->seats[n->seat].left, 1);
        ring_all(n);
    }
    for (int i = 0; i < n->shared->ranks; i++)
        if (n->watches[i] >= 0)
            sys_close(n->watches[i]);
    sys_unmap(n->shared, n->bytes);
    sys_close(n->memory);
    arena_fini(&n->arena);
    sys_free(n);
}

int node_ranks(const struct node *n)
{
    return n->shared->ranks;
}

i64 node_slot_bytes(const struct node *n)
{
    return n->shared->slot_bytes;
}

int node_rank_at(const struct node *n, int seat)
{
    return n->shared->seats[seat].rank;
}

int node_seat_of(const struct node *n, int rank)
{
    for (int i = 0; i < n->shared->ranks; i++)
        if (n->shared->seats[i].rank == rank)
            return i;
    return -1;
}

struct comm_flight *node_flight(struct node *n, int seat)
{
    return &n->shared->seats[seat].flight;
}

bool node_left(const struct node *n, int seat)
{
    return atomic_load_explicit(&n->shared->seats[seat].left, memory_order_relaxed);
}

/* --- bells, and who lives --------------------------------------------------------- */

u32 node_bell(struct node *n)
{
    return atomic_load(&n->shared->seats[n->seat].bell);
}

void node_ring(struct node *n, int seat)
{
    struct seat *s = &n->shared->seats[seat];
    atomic_fetch_add(&s->bell, 1);
    if (atomic_load(&s->sleepers) > 0)
        sys_futex_wake(&s->bell);
}

char node_state(const struct node *n, int seat)
{
    int pid = atomic_load(&n->shared->seats[seat].pid);
    return pid ? sys_process_state(pid) : 0;
}

void node_describe(const struct node *n, int seat, char *text, int chars)
{
    int pid = atomic_load(&n->shared->seats[seat].pid);
    if (pid)
        snprintf(text, (size_t)chars, " (pid %d%s)", pid, comm_state_words(node_state(n, seat)));
    else
        snprintf(text, (size_t)chars, " (not started)");
}

static int tell_death(struct node *n, int seat)
{
    struct seat *s = &n->shared->seats[seat];
    char last[128] = "it had made no call", text[400];
    const struct comm_record *r = comm_flight_last(&s->flight);
    if (r) {
        comm_record_describe(r, last, sizeof last);
        snprintf(text, sizeof text, "rank %d (pid %d) died %s %s", s->rank, s->pid,
                 r->finished_ns ? "after" : "in", last);
    } else {
        snprintf(text, sizeof text, "rank %d (pid %d) died before its first call", s->rank,
                 s->pid);
    }
    node_note(n, ERR_PEER, text);
    return node_check(n);
}

static int find_dead(struct node *n)
{
    struct shared *s = n->shared;
    for (int i = 0; i < s->ranks; i++) {
        int pid = atomic_load(&s->seats[i].pid);
        if (i == n->seat || pid == 0 || node_left(n, i))
            continue;
        if (n->watches[i] < 0 && (n->watches[i] = sys_watch(pid)) < 0 && errno != ESRCH)
            continue; /* this kernel has no such thing */
        if ((n->watches[i] < 0 || sys_watch_ended(n->watches[i])) && !node_left(n, i))
            return tell_death(n, i);
    }
    return OK;
}

int node_look(struct node *n)
{
    TRY(node_check(n));
    if (atomic_flag_test_and_set(&n->looking))
        return OK;
    int rc = find_dead(n);
    atomic_flag_clear(&n->looking);
    return rc;
}

void *node_find(struct node *n, u64 key, i64 bytes)
{
    struct shared *s = n->shared;
    for (int probe = 0; probe < DIRECTORY; probe++) {
        struct place *p = &s->directory[(key + (u64)probe) % DIRECTORY];
        unsigned long long seen = 0;
        if (atomic_compare_exchange_strong(&p->key, &seen, key)) {
            u64 at = atomic_fetch_add(&s->used, (u64)round_up(bytes, 4096));
            bool fits = at + (u64)bytes <= (u64)s->bytes;
            atomic_store(&p->offset, fits ? at : FULL);
            return fits ? (char *)s + at : NULL;
        }
        if (seen != key)
            continue;
        u64 at; /* whoever took the place writes where in a moment */
        while ((at = atomic_load(&p->offset)) == 0) {
            sys_yield();
            if (node_look(n) < 0)
                return NULL;
        }
        return at == FULL ? NULL : (char *)s + at;
    }
    return NULL;
}

void node_nap(struct node *n, u32 bell, u64 timeout_ns)
{
    struct seat *s = &n->shared->seats[n->seat];
    atomic_fetch_add(&s->sleepers, 1);
    sys_futex_wait(&s->bell, bell, timeout_ns);
    atomic_fetch_sub(&s->sleepers, 1);
}

int node_rest(struct node *n, u32 bell, u64 idle)
{
    u64 spin = n->crowded ? 0 : SPIN;
    if (idle < spin + YIELDS) {
        if (idle >= spin)
            sys_yield();
        for (int i = 0; i < PAUSES && idle < spin; i++)
            sys_pause();
        return OK;
    }
    node_nap(n, bell, LOOK_NS);
    u64 now = sys_now_ns();
    if (now - atomic_load(&n->looked_ns) < LOOK_NS)
        return OK;
    atomic_store(&n->looked_ns, now);
    return node_look(n);
}

int node_meet(struct node *n, u64 timeout_ns)
{
    u64 begin = sys_now_ns();
    for (u64 idle = 0;; idle++) {
        u32 bell = node_bell(n);
        int missing = -1;
        for (int i = 0; i < n->shared->ranks && missing < 0; i++)
            if (atomic_load(&n->shared->seats[i].pid) == 0)
                missing = i;
        if (missing < 0)
            return OK;
        TRY(node_check(n));
        if (sys_now_ns() - begin > timeout_ns)
            return err_set(ERR_HANG, "process %d of the %d on this node did not start within "
                           "%.0f s; look at its own messages", missing, n->shared->ranks,
                           1e-9 * (double)timeout_ns);
        TRY(node_rest(n, bell, idle));
    }
}

/* --- the note --------------------------------------------------------------------- */

void node_note(struct node *n, int code, const char *text)
{
    struct shared *s = n->shared;
    int none = 0;
    if (!atomic_compare_exchange_strong(&s->noted, &none, 1))
        return;
    s->code = code;
    snprintf(s->note, sizeof s->note, "%s", text);
    atomic_store(&s->noted, 2);
    ring_all(n);
}

int node_check(struct node *n)
{
    struct shared *s = n->shared;
    if (atomic_load_explicit(&s->noted, memory_order_acquire) != 2)
        return OK;
    return err_set(s->code, "%s", s->note);
}
