#include "comm/ask.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/node.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { QUESTION = 1, ANSWER = 2, NOTE = 3 }; /* MPI's tags */
static const u64 look_ns = 200 * 1000 * 1000;  /* how often a thread looks for questions */
static const u64 own_ns = 1000 * 1000 * 1000;  /* then neighbours are asked too */
/* A busy host keeps no thread waiting so long. */
static const u64 limit_ns = (u64)3500 * 1000 * 1000;
static const u64 still_ns = 50 * 1000 * 1000, take_in_ns = (u64)1000 * 1000 * 1000;
static const u64 poll_ns = 2 * 1000 * 1000;
static const u64 tell_ns = 50 * 1000 * 1000;   /* for what is told last to be sent */

struct question {
    i32 about;
    u32 round;
};

struct note {
    i32 code;
    char text[700];
};

/* One message that this rank sends; a stopped receiver may never take it. */
struct letter {
    void *request; /* NULL: none under way */
    union {
        struct question question;
        struct answer *answer; /* made when first needed */
    };
};

struct ask {
    const struct mpi_table *table;
    struct comm *comm;
    void *group;
    const int *nodes;
    struct letter *questions, *answers, *notes; /* to each rank */
    pthread_t thread;
    bool runs;
    atomic_uint bell;
    atomic_bool stop;
    atomic_bool noted;
    struct note note, last_words;
    struct answer in;
    const int *all; /* ranks of the world */
    bool *asked;   /* per rank: in this round */
    bool *open;    /* per rank: asked in this round, and nobody told yet */
    u64 *asked_ns; /* per rank: when asking last ended; 0: never */
    u32 round;
};

/* --- flights that travel ------------------------------------------------------------ */

void answer_pack(struct answer *to, const struct comm_flight *from)
{
    i64 written = atomic_load(&from->written);
    memcpy(to->groups, from->groups, sizeof to->groups);
    to->n = 0;
    for (i64 e = i64_max(0, written - COMM_FLIGHT_RECORDS); e < written; e++) {
        const struct comm_record *r = &from->records[e % COMM_FLIGHT_RECORDS];
        bool newest = e >= written - ASK_NEWEST;
        if (newest || (r->finished_ns == 0 && to->n < ASK_RECORDS - ASK_NEWEST))
            to->records[to->n++] = *r;
    }
}

void answer_unpack(struct comm_flight *to, const struct answer *from, u64 now_ns)
{
    memcpy(to->groups, from->groups, sizeof to->groups);
    for (i32 i = 0; i < from->n; i++) {
        struct comm_record r = from->records[i];
        r.started_ns += now_ns - from->now_ns;
        r.finished_ns += r.finished_ns ? now_ns - from->now_ns : 0;
        to->records[i] = r;
    }
    atomic_store(&to->written, from->n);
}

/* --- letters ------------------------------------------------------------------------ */

/* Whether this letter can be written again. */
static bool is_free(struct ask *a, struct letter *l)
{
    return !l->request || a->table->test(&l->request) == 1;
}

static void post(struct ask *a, int to, int tag, struct letter *l, const void *bytes, int n)
{
    if (a->table->post(a->group, to, tag, bytes, n, &l->request) < 0)
        l->request = NULL; /* who cannot be reached is silent */
}

/* --- answering ---------------------------------------------------------------------- */

static bool sees(const struct ask *a, int rank)
{
    const struct comm *c = a->comm;
    return rank == c->rank || (c->node && node_seat_of(c->node, rank) >= 0);
}

static char state_of(const struct ask *a, int rank)
{
    const struct comm *c = a->comm;
    return rank == c->rank ? sys_process_state(sys_pid())
                           : node_state(c->node, node_seat_of(c->node, rank));
}

static void answer(struct ask *a, int to, const struct question *q)
{
    struct letter *l = &a->answers[to];
    bool known = q->about >= 0 && q->about < a->comm->size && sees(a, q->about);
    if (!known || !is_free(a, l))
        return;
    if (!l->answer && !(l->answer = sys_alloc((i64)sizeof *l->answer, 64)))
        return;
    memset(l->answer, 0, sizeof *l->answer);
    l->answer->rank = q->about;
    l->answer->round = q->round;
    l->answer->state = state_of(a, q->about);
    answer_pack(l->answer, a->comm->flights[q->about]);
    l->answer->now_ns = sys_now_ns();
    post(a, to, ANSWER, l, l->answer, (int)sizeof *l->answer);
}

/* The first note stays, and the ranks of this node see it too. */
static void take_note(struct ask *a, struct note *n)
{
    n->text[sizeof n->text - 1] = '\0';
    if (n->code >= 0 || atomic_load(&a->noted))
        return;
    a->note = *n;
    atomic_store(&a->noted, true);
    if (a->comm->node)
        node_note(a->comm->node, n->code, n->text);
}

static void *watch(void *context)
{
    struct ask *a = context;
    while (!atomic_load(&a->stop)) {
        u32 bell = atomic_load(&a->bell);
        struct question q;
        struct note n;
        int from;
        while (a->table->poll(a->group, NOTE, &n, (int)sizeof n, &from) == 1)
            take_note(a, &n);
        while (a->table->poll(a->group, QUESTION, &q, (int)sizeof q, &from) == 1)
            answer(a, from, &q);
        if (!atomic_load(&a->stop))
            sys_futex_wait(&a->bell, bell, look_ns);
    }
    return NULL;
}

/* --- asking ------------------------------------------------------------------------- */

static void put_question(struct ask *a, int to, int about)
{
    struct letter *l = &a->questions[to];
    if (!is_free(a, l))
        return;
    l->question = (struct question){ .about = about, .round = a->round };
    post(a, to, QUESTION, l, &l->question, (int)sizeof l->question);
}

static void hear(struct ask *a, const struct answer *in)
{
    struct comm *c = a->comm;
    int rank = in->rank;
    if (in->round != a->round || rank < 0 || rank >= c->size || sees(a, rank) || in->n < 0 ||
        in->n > ASK_RECORDS)
        return;
    if (!c->flights[rank]) {
        struct comm_flight *f = sys_alloc((i64)sizeof *f, 64);
        if (!f)
            return;
        memset(f, 0, sizeof *f);
        c->flights[rank] = f;
    }
    answer_unpack(c->flights[rank], in, sys_now_ns());
    c->sights[rank].state = (char)in->state;
    c->sights[rank].silent = false;
    a->open[rank] = false;
}

/* Of ranks that said nothing themselves; a neighbour may be one that was not asked of itself. */
static void ask_neighbours(struct ask *a)
{
    for (int about = 0; about < a->comm->size; about++)
        for (int r = 0; r < a->comm->size && a->open[about]; r++)
            if (!a->open[r] && !sees(a, r) && a->nodes[r] == a->nodes[about])
                put_question(a, r, about);
}

static int count_missing(const struct ask *a)
{
    int missing = 0;
    for (int r = 0; r < a->comm->size; r++)
        missing += a->open[r];
    return missing;
}

/* Opens the question about a rank, unless what is known of it is young enough. */
static void ask_of(struct ask *a, int rank, u64 now_ns)
{
    if (sees(a, rank) || (a->asked_ns[rank] && now_ns - a->asked_ns[rank] < limit_ns))
        return;
    a->open[rank] = true;
    put_question(a, rank, rank);
}

/* Until nothing is open, or the time is over: who is open then is silent. */
static void await_answers(struct ask *a, u64 begin)
{
    u64 neighbours_ns = begin + own_ns;
    int from;
    while (count_missing(a) > 0 && sys_now_ns() - begin < limit_ns && !atomic_load(&a->noted)) {
        while (a->table->poll(a->group, ANSWER, &a->in, (int)sizeof a->in, &from) == 1)
            hear(a, &a->in);
        if (sys_now_ns() > neighbours_ns) {
            neighbours_ns += look_ns;
            ask_neighbours(a);
        }
        sys_sleep_ns(poll_ns);
    }
}

int ask_ranks(struct ask *a, const int *ranks, int n)
{
    const u64 begin = sys_now_ns();
    a->round++;
    for (int i = 0; i < n; i++)
        ask_of(a, ranks[i], begin);
    memcpy(a->asked, a->open, sizeof *a->open * (size_t)a->comm->size);
    await_answers(a, begin);
    for (int r = 0; r < a->comm->size; r++) {
        if (!a->asked[r])
            continue;
        a->comm->sights[r].silent = a->open[r];
        a->asked_ns[r] = sys_now_ns();
        a->open[r] = false;
    }
    return ask_check(a);
}

int ask_all(struct ask *a)
{
    return ask_ranks(a, a->all, a->comm->size);
}

/* --- the end ------------------------------------------------------------------------ */

int ask_check(struct ask *a)
{
    return atomic_load(&a->noted) ? err_set(a->note.code, "%s", a->note.text) : OK;
}

void ask_tell(struct ask *a, int code)
{
    u64 begin = sys_now_ns();
    if (atomic_load(&a->noted))
        return; /* they know */
    a->last_words.code = code;
    snprintf(a->last_words.text, sizeof a->last_words.text, "%s", err_message());
    for (int r = 0; r < a->comm->size; r++)
        if (!sees(a, r) && is_free(a, &a->notes[r]))
            post(a, r, NOTE, &a->notes[r], &a->last_words, (int)sizeof a->last_words);
    for (int r = 0; r < a->comm->size; r++)
        while (!is_free(a, &a->notes[r]) && sys_now_ns() - begin < tell_ns)
            sys_sleep_ns(poll_ns);
}

/* --- life --------------------------------------------------------------------------- */

int ask_open(struct ask **out, const struct mpi_table *table, struct comm *c, const int *nodes)
{
    int *all = ARENA_ARRAY(&c->arena, int, c->size);
    struct ask *a = ARENA_NEW(&c->arena, struct ask);
    for (int r = 0; r < c->size; r++)
        all[r] = r;
    *a = (struct ask){ .table = table, .comm = c, .nodes = nodes, .all = all };
    a->questions = ARENA_ARRAY(&c->arena, struct letter, c->size);
    a->answers = ARENA_ARRAY(&c->arena, struct letter, c->size);
    a->notes = ARENA_ARRAY(&c->arena, struct letter, c->size);
    a->asked = ARENA_ARRAY(&c->arena, bool, c->size);
    a->open = ARENA_ARRAY(&c->arena, bool, c->size);
    a->asked_ns = ARENA_ARRAY(&c->arena, u64, c->size);
    if (table->group(all, c->size, 0, &a->group) < 0)
        return err_set(ERR_PEER, "MPI cannot make a group for questions: %s", table->last_error());
    a->runs = pthread_create(&a->thread, NULL, watch, a) == 0;
    if (!a->runs)
        table->group_free(a->group);
    if (!a->runs)
        return err_set(ERR_LIMIT, "no thread that answers other ranks' questions");
    *out = a;
    return OK;
}

void ask_stop(struct ask *a)
{
    if (!a || !a->runs)
        return;
    atomic_store(&a->stop, true);
    atomic_fetch_add(&a->bell, 1);
    sys_futex_wake(&a->bell);
    pthread_join(a->thread, NULL);
    a->runs = false;
}

/* Nothing that this rank wrote is under way. */
static bool all_arrived(struct ask *a)
{
    bool all = true;
    for (int r = 0; r < a->comm->size; r++)
        all = is_free(a, &a->questions[r]) && is_free(a, &a->answers[r]) &&
              is_free(a, &a->notes[r]) && all;
    return all;
}

static bool was_used(const struct ask *a)
{
    bool used = a->round > 0;
    for (int r = 0; r < a->comm->size; r++)
        used = used || a->answers[r].answer;
    return used;
}

void ask_take_in(struct ask *a)
{
    const u64 begin = sys_now_ns();
    struct question q;
    struct note n;
    int from;
    if (!was_used(a))
        return;
    while (!(all_arrived(a) && sys_now_ns() - begin > still_ns) &&
           sys_now_ns() - begin < take_in_ns) {
        a->table->poll(a->group, QUESTION, &q, (int)sizeof q, &from);
        a->table->poll(a->group, NOTE, &n, (int)sizeof n, &from);
        a->table->poll(a->group, ANSWER, &a->in, (int)sizeof a->in, &from);
        sys_sleep_ns(poll_ns);
    }
}

void ask_close(struct ask *a)
{
    if (!a)
        return;
    for (int r = 0; r < a->comm->size; r++) {
        if (is_free(a, &a->answers[r])) /* else MPI still reads it */
            sys_free(a->answers[r].answer);
        if (!sees(a, r))
            sys_free(a->comm->flights[r]);
    }
    a->table->group_free(a->group);
}
