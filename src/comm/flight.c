#include "comm/flight.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "comm/node.h"
#include "comm/transport.h"

#include <stdio.h>
#include <string.h>

/* --- recording -------------------------------------------------------------------- */

void comm_flight_join(struct comm_flight *f, u64 key)
{
    for (int i = 0; i < COMM_FLIGHT_GROUPS; i++) {
        if (f->groups[i] == 0) {
            f->groups[i] = key;
            return;
        }
    }
}

void comm_record_fill(struct comm_record *r, const struct comm_call *call)
{
    const struct comm_group *g = call->group;
    bool has_peer = call->op == COMM_SEND || call->op == COMM_RECV || call->op == COMM_BROADCAST;
    *r = (struct comm_record){
        .key = g->key, .sequence = call->sequence, .started_ns = call->started_ns,
        .bytes = comm_payload_bytes(call), .tag = call->tag, .op = (u8)call->op,
        .peer = has_peer ? g->members[call->peer] : -1,
    };
    memcpy(r->axis, g->axis, sizeof r->axis);
}

static struct comm_record *entry_of(struct comm_flight *f, i64 entry)
{
    return &f->records[entry % COMM_FLIGHT_RECORDS];
}

i64 comm_flight_start(struct comm_flight *f, const struct comm_call *call)
{
    /* Lanes of one rank record at the same time, each in an entry of its own. */
    i64 entry = atomic_fetch_add(&f->written, 1);
    comm_record_fill(entry_of(f, entry), call);
    return entry;
}

static bool is_overwritten(const struct comm_flight *f, i64 entry)
{
    return atomic_load_explicit(&f->written, memory_order_relaxed) - entry > COMM_FLIGHT_RECORDS;
}

void comm_flight_progress(struct comm_flight *f, i64 entry, u64 progress)
{
    if (!is_overwritten(f, entry))
        entry_of(f, entry)->progress = progress;
}

void comm_flight_finish(struct comm_flight *f, i64 entry, u64 now_ns)
{
    if (!is_overwritten(f, entry))
        entry_of(f, entry)->finished_ns = now_ns;
}

/* --- reading ---------------------------------------------------------------------- */

static i64 oldest_entry(i64 written)
{
    return i64_max(0, written - COMM_FLIGHT_RECORDS);
}

const struct comm_record *comm_flight_last(const struct comm_flight *f)
{
    i64 written = atomic_load(&f->written);
    return written ? &f->records[(written - 1) % COMM_FLIGHT_RECORDS] : NULL;
}

static const struct comm_record *oldest_unfinished(const struct comm_flight *f)
{
    i64 written = atomic_load(&f->written);
    for (i64 e = oldest_entry(written); e < written; e++)
        if (f->records[e % COMM_FLIGHT_RECORDS].finished_ns == 0)
            return &f->records[e % COMM_FLIGHT_RECORDS];
    return NULL;
}

static bool is_pair(const struct comm_record *r)
{
    return r->op == COMM_SEND || r->op == COMM_RECV;
}

/* The rank's counterpart of a call that `caller` waits in; NULL: not reached. */
static const struct comm_record *counterpart(const struct comm_flight *f,
                                             const struct comm_record *call, int caller)
{
    i64 written = atomic_load(&f->written);
    for (i64 e = written - 1; e >= oldest_entry(written); e--) {
        const struct comm_record *r = &f->records[e % COMM_FLIGHT_RECORDS];
        if (r->key != call->key || r->sequence != call->sequence || is_pair(r) != is_pair(call))
            continue;
        if (!is_pair(call) || (r->op != call->op && r->peer == caller))
            return r;
    }
    return NULL;
}

/* A silent rank's groups are known where this rank is a member too. */
static bool is_member(const struct comm *c, int rank, u64 key)
{
    const struct comm_group *g = c->groups;
    while (g && g->key != key)
        g = g->next;
    for (int m = 0; g && m < g->n; m++)
        if (g->members[m] == rank)
            return true;
    return false;
}

static bool is_silent(const struct comm *c, int rank)
{
    return c->sights && c->sights[rank].silent;
}

static bool takes_part(const struct comm *c, int rank, const struct comm_record *call, int caller)
{
    if (rank == caller || (!c->flights[rank] && !is_silent(c, rank)))
        return false;
    if (is_pair(call))
        return rank == call->peer;
    if (!c->flights[rank])
        return is_member(c, rank, call->key);
    for (int i = 0; i < COMM_FLIGHT_GROUPS; i++)
        if (c->flights[rank]->groups[i] == call->key)
            return true;
    return false;
}

static bool is_stopped(const struct comm *c, int rank)
{
    int seat = c->node ? node_seat_of(c->node, rank) : -1;
    if (seat >= 0)
        return node_state(c->node, seat) == 'T';
    return c->sights && c->sights[rank].state == 'T';
}

static bool is_lost(const struct comm *c, int rank)
{
    return is_silent(c, rank) || is_stopped(c, rank);
}

enum { NOBODY_SEEN = -1, ALL_REACHED = -2 };

/* What the caller itself did for the call, where its transport counts that. */
static u64 own_progress(const struct comm *c, const struct comm_record *call, int caller)
{
    const struct comm_flight *f = c->flights[caller];
    i64 written = f ? atomic_load(&f->written) : 0;
    for (i64 e = written - 1; f && e >= oldest_entry(written); e--) {
        const struct comm_record *r = &f->records[e % COMM_FLIGHT_RECORDS];
        if (r->key == call->key && r->sequence == call->sequence && r->op == call->op &&
            r->peer == call->peer)
            return r->progress;
    }
    return 0;
}

/* Who is lost; else who did not reach the call; if all did, who did least for it, and less than
 * the caller; or one of the numbers above. */
static int find_absent(const struct comm *c, const struct comm_record *call, int caller,
                       bool *reached)
{
    int least = NOBODY_SEEN, missing = -1;
    u64 progress = own_progress(c, call, caller);
    for (int rank = 0; rank < c->size; rank++) {
        if (!takes_part(c, rank, call, caller))
            continue;
        const struct comm_record *r =
            c->flights[rank] ? counterpart(c->flights[rank], call, caller) : NULL;
        *reached = r != NULL;
        if (is_lost(c, rank) && !(r && r->finished_ns))
            return rank;
        if (!r && missing < 0)
            missing = rank;
        if (!r || r->finished_ns)
            continue;
        if (least == NOBODY_SEEN)
            least = ALL_REACHED;
        if (r->progress < progress) {
            least = rank;
            progress = r->progress;
        }
    }
    *reached = missing < 0;
    return missing >= 0 ? missing : least;
}

/* A rank that is lost though nobody in the chain lacks it; -1: none. of: only its members
 * were asked, so that others are judged on this node alone; NULL: all were. */
static int find_lost(const struct comm *c, const struct comm_group *of)
{
    for (int rank = 0; rank < c->size; rank++) {
        bool near = c->node && node_seat_of(c->node, rank) >= 0;
        if (of && !near && !is_member(c, rank, of->key))
            continue;
        if (rank != c->rank && is_lost(c, rank))
            return rank;
    }
    return -1;
}

/* Whether a member that waits for nobody keeps this rank from going on, so that no other
 * rank need be asked. */
static bool is_settled(const struct comm *c, const struct comm_record *own, int culprit)
{
    if (culprit < 0 || !is_member(c, culprit, own->key))
        return false;
    const struct comm_flight *f = c->flights[culprit];
    return is_lost(c, culprit) || (f && !oldest_unfinished(f) && !counterpart(f, own, c->rank));
}

/* --- telling ---------------------------------------------------------------------- */

void comm_record_describe(const struct comm_record *r, char *text, int chars)
{
    int used = snprintf(text, (size_t)chars, "%s %llu on %s (tag %u, %lld bytes",
                        comm_op_name(r->op), (unsigned long long)r->sequence, r->axis, r->tag,
                        (long long)r->bytes);
    if (used >= chars)
        return;
    if (r->peer < 0)
        snprintf(text + used, (size_t)(chars - used), ")");
    else
        snprintf(text + used, (size_t)(chars - used), ", %s rank %d)",
                 r->op == COMM_SEND ? "to" : "from", r->peer);
}

const char *comm_state_words(char state)
{
    switch (state) {
    case 'T':
        return ", stopped";
    case 'R':
        return ", running";
    case 'S':
        return ", sleeping";
    case 'D':
        return ", in input or output";
    default:
        return "";
    }
}

static double seconds_since(u64 then_ns)
{
    return 1e-9 * (double)(sys_now_ns() - then_ns);
}

static const char *process_of(const struct comm *c, int rank, char *text, int chars)
{
    text[0] = '\0';
    int seat = c->node ? node_seat_of(c->node, rank) : -1;
    if (seat >= 0)
        node_describe(c->node, seat, text, chars);
    else if (c->sights && c->sights[rank].pid)
        snprintf(text, (size_t)chars, " (pid %d on %s%s)", c->sights[rank].pid,
                 c->sights[rank].host, is_silent(c, rank) ? ""
                                       : comm_state_words(c->sights[rank].state));
    return text;
}

static int tell_silent(const struct comm *c, int silent, const struct comm_record *call, int caller)
{
    char text[128], process[128];
    comm_record_describe(call, text, sizeof text);
    process_of(c, silent, process, sizeof process);
    return err_set(ERR_HANG, "rank %d%s does not answer: it is stopped or dead, or its host "
                   "cannot be reached; rank %d waits in %s for %.1f s", silent, process,
                   caller, text, seconds_since(call->started_ns));
}

static int tell_absent(const struct comm *c, int absent, const struct comm_record *call,
                       int caller, bool reached)
{
    char missed[128], last[128], process[128];
    if (is_silent(c, absent))
        return tell_silent(c, absent, call, caller);
    comm_record_describe(call, missed, sizeof missed);
    process_of(c, absent, process, sizeof process);
    const struct comm_record *r = comm_flight_last(c->flights[absent]);
    const char *did = reached ? "stopped moving in" : "did not reach";
    double waited = seconds_since(call->started_ns);
    if (reached || !r)
        return err_set(ERR_HANG, "rank %d%s %s %s, where rank %d waits for %.1f s%s", absent,
                       process, did, missed, caller, waited, r ? "" : "; it made no call yet");
    comm_record_describe(r, last, sizeof last);
    return err_set(ERR_HANG, "rank %d%s %s %s, where rank %d waits for %.1f s; its last call, "
                   "%s, %s %.1f s ago", absent, process, did, missed, caller, waited, last,
                   r->finished_ns ? "ended" : "started",
                   seconds_since(r->finished_ns ? r->finished_ns : r->started_ns));
}

static int tell_circle(int first, const struct comm_record *a, int last,
                       const struct comm_record *b)
{
    char ours[128], theirs[128];
    comm_record_describe(a, ours, sizeof ours);
    comm_record_describe(b, theirs, sizeof theirs);
    return err_set(ERR_HANG, "ranks wait in a circle: rank %d in %s, and rank %d in %s", first,
                   ours, last, theirs);
}

static int tell_all_reached(int waiting, const struct comm_record *at)
{
    char text[128];
    comm_record_describe(at, text, sizeof text);
    return err_set(ERR_HANG, "rank %d waits in %s for %.1f s; all its members have reached it and "
                   "none is stopped: look at what carries data between them", waiting, text,
                   seconds_since(at->started_ns));
}

/* One that is lost elsewhere: what it is in, or did last. */
static int tell_lost(const struct comm *c, int lost, const struct comm_record *call)
{
    char text[128], own[128], process[128];
    const struct comm_record *in = c->flights[lost] ? oldest_unfinished(c->flights[lost]) : NULL;
    if (!in && c->flights[lost])
        in = comm_flight_last(c->flights[lost]);
    if (is_silent(c, lost) || !in)
        return tell_absent(c, lost, call, c->rank, false);
    comm_record_describe(in, text, sizeof text);
    comm_record_describe(call, own, sizeof own);
    process_of(c, lost, process, sizeof process);
    return err_set(ERR_HANG, "rank %d%s stopped moving %s %s; rank %d waits in %s for %.1f s", lost,
                   process, in->finished_ns ? "after" : "in", text, c->rank, own,
                   seconds_since(call->started_ns));
}

/* From who waits to who is waited for, until somebody waits for nobody: *culprit, or -1. */
static int follow(const struct comm *c, const struct comm_record *at, int *culprit)
{
    const struct comm_record *before = NULL;
    int waiting = c->rank, waited = c->rank;
    *culprit = -1;
    for (int hops = 0; hops < c->size; hops++) {
        bool reached = false;
        int absent = find_absent(c, at, waiting, &reached);
        if (absent == ALL_REACHED) {
            *culprit = -1;
            return tell_all_reached(waiting, at);
        }
        if (absent < 0 && before) /* all others have ended this call: it stays in it alone */
            return tell_absent(c, waiting, before, waited, false);
        if (absent < 0)
            break;
        const struct comm_record *next =
            c->flights[absent] ? oldest_unfinished(c->flights[absent]) : NULL;
        *culprit = absent;
        if (!next || reached || is_lost(c, absent))
            return tell_absent(c, absent, at, waiting, reached);
        if (absent == c->rank || hops == c->size - 1)
            return tell_circle(waiting, at, absent, next);
        waited = waiting;
        before = at;
        waiting = absent;
        at = next;
    }
    char text[128];
    comm_record_describe(at, text, sizeof text);
    return err_set(ERR_HANG, "rank %d waits in %s for %.1f s; the other members cannot be seen "
                   "from here", waiting, text, seconds_since(at->started_ns));
}

/* The rank's call of the group with this sequence; NULL: it is not there, or no longer. */
static const struct comm_record *call_number(const struct comm_flight *f, u64 key, u64 sequence)
{
    i64 written = atomic_load(&f->written);
    for (i64 e = written - 1; e >= oldest_entry(written); e--) {
        const struct comm_record *r = &f->records[e % COMM_FLIGHT_RECORDS];
        if (r->key == key && r->sequence == sequence && !is_pair(r))
            return r;
    }
    return NULL;
}

static bool is_alike(const struct comm_record *x, const struct comm_record *y)
{
    return x && y && x->op == y->op && x->tag == y->tag && x->bytes == y->bytes;
}

enum way { WAY_UNKNOWN, WAY_KEPT, WAY_LEFT };

/* So many calls before are compared at most: a step's layers repeat, too, and only a
 * longer look tells which of them it is. */
enum { LOOK_BACK = 64, LEAST_ALIKE = 2 };

static int alike_before(const struct comm_flight *f, u64 key, u64 x, u64 y)
{
    int n = 0;
    while (n < LOOK_BACK && (u64)n < y &&
           is_alike(call_number(f, key, x - 1 - (u64)n), call_number(f, key, y - 1 - (u64)n)))
        n++;
    return n;
}

/* Whether the rank does what it did when it had come the same way, as far back as its
 * record goes. */
static enum way way_of(const struct comm_flight *f, u64 key, u64 sequence)
{
    const struct comm_record *now = call_number(f, key, sequence), *best = NULL, *then;
    int most = LEAST_ALIKE - 1;
    for (u64 q = sequence; q-- > 0 && (then = call_number(f, key, q)) != NULL;) {
        int n = alike_before(f, key, sequence, q);
        if (n > most) {
            most = n;
            best = then;
        }
    }
    return !now || !best ? WAY_UNKNOWN : is_alike(now, best) ? WAY_KEPT : WAY_LEFT;
}

int comm_odd_of(const struct comm *c, u64 key, u64 sequence, int a, int b)
{
    if (!c->flights || !c->flights[a] || !c->flights[b])
        return -1;
    const enum way of_a = way_of(c->flights[a], key, sequence);
    const enum way of_b = way_of(c->flights[b], key, sequence);
    if (of_a == WAY_LEFT && of_b == WAY_KEPT)
        return a;
    return of_b == WAY_LEFT && of_a == WAY_KEPT ? b : -1;
}

/* Asks the members of the stalled call's group, and all others only if none of them is to
 * blame: a world of many ranks would ask each other all at once. *of: who was asked;
 * NULL: the world. An error with its sentence. */
static int ask_and_follow(struct comm *c, const struct comm_record *own,
                          const struct comm_group **of, int *culprit, bool *told)
{
    int rc = c->transport->ask ? c->transport->ask(c, *of) : OK;
    *told = rc < 0;
    if (rc < 0)
        return rc;
    rc = follow(c, own, culprit);
    if (is_settled(c, own, *culprit))
        return rc;
    *of = NULL;
    if (!c->transport->ask)
        return rc;
    rc = c->transport->ask(c, NULL);
    *told = rc < 0;
    return rc < 0 ? rc : follow(c, own, culprit);
}

/* The error with its sentence. *certain: waiting on is of no use. */
static int judge(const struct comm_call *call, int *culprit, bool *certain)
{
    struct comm *c = call->group->comm;
    struct comm_record own;
    comm_record_fill(&own, call);
    while (atomic_flag_test_and_set(&c->judging)) /* another lane asks, for a second or two */
        sys_sleep_ns(1000 * 1000);
    const struct comm_group *of = c->transport->ask ? call->group : NULL;
    *culprit = -1;
    int rc = ask_and_follow(c, &own, &of, culprit, certain);
    if (!*certain) {
        int lost = *culprit >= 0 && is_lost(c, *culprit) ? -1 : find_lost(c, of);
        if (lost >= 0) {
            *culprit = lost;
            rc = tell_lost(c, lost, &own);
        }
        *certain = *culprit >= 0 && is_lost(c, *culprit);
    }
    atomic_flag_clear(&c->judging);
    return rc;
}

int comm_absent_in(const char *sentence)
{
    static const char *const lacks[] = {
        " did not reach ", " left its order ", " stopped moving in ", " stopped moving after ",
        " does not answer: ", " died ", " ended with", " ended without",
    };
    const char *at = strstr(sentence, "rank ");
    int rank = -1;
    bool absent = false;
    for (i64 i = 0; i < COUNT_OF(lacks); i++)
        absent |= strstr(sentence, lacks[i]) != NULL;
    return absent && at && sscanf(at, "rank %d", &rank) == 1 ? rank : -1;
}

/* All ranks of the node end with the first one's sentence. */
static int tell_node(struct comm *c, int rc)
{
    if (!c->node)
        return rc;
    node_note(c->node, rc, err_message());
    return node_check(c->node);
}

int comm_explain_stall(const struct comm_call *call)
{
    int culprit;
    bool certain;
    return tell_node(call->group->comm, judge(call, &culprit, &certain));
}

int comm_look_into_stall(const struct comm_call *call)
{
    struct comm *c = call->group->comm;
    int culprit;
    bool certain;
    int rc = judge(call, &culprit, &certain);
    if (certain)
        return tell_node(c, rc);
    if (call->looked == 1 && !atomic_load(&c->untimed) &&
        c->rank == (culprit == 0)) /* rank 0 tells; of rank 0 itself, rank 1 */
        log_line(culprit == 0 ? LOG_ERROR : LOG_WARN, "%s; waiting goes on", err_message());
    return OK;
}
