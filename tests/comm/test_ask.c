/* Whom a stalled rank asks about others, with a table that answers for them. */
#include "comm/ask.h"

#include "base/err.h"
#include "base/sys.h"
#include "comm/transport.h"
#include "test.h"

#include <string.h>

enum { RANKS = 1024, PER_NODE = 8, QUESTION = 1, ANSWER = 2, NOTE = 3 };
static const u64 other_key = 77; /* of a group of rank 16 and all from 512 on */

/* What ranks elsewhere do: as member, in the call that rank 0 waits in; in one of another group;
 * in none. */
enum does { IN_CALL, IN_OTHER, IN_NOTHING, SILENT };

static struct world {
    struct comm *comm;
    struct comm_group *dp;
    struct ask *ask;
    enum does does[RANKS];
    char state[RANKS];
    int nodes[RANKS];
    bool stuck[RANKS]; /* questions to it stay under way */
    int questions, notes;
    struct answer *waiting; /* answers that nobody took in yet */
    int n_waiting;
} w;

static void answer_for(int about, u32 round)
{
    struct answer *a = &w.waiting[w.n_waiting++];
    *a = (struct answer){ .rank = about, .round = round, .state = w.state[about], .now_ns = 1 };
    a->groups[0] = w.dp->key;
    a->groups[1] = about == 16 || about >= 512 ? other_key : 0;
    if (w.does[about] == IN_NOTHING || w.does[about] == SILENT)
        return;
    a->n = 1;
    a->records[0] = (struct comm_record){ .key = w.does[about] == IN_CALL ? w.dp->key : other_key,
                                          .started_ns = 1, .op = COMM_BARRIER, .peer = -1,
                                          .axis = "tp" };
}

static int fake_post(void *group, int to, int tag, const void *in, int bytes, void **request)
{
    const struct { i32 about; u32 round; } *q = in;
    (void)group, (void)bytes;
    *request = NULL;
    w.notes += tag == NOTE;
    if (tag != QUESTION)
        return 0;
    w.questions++;
    if (w.stuck[to])
        *request = &w;
    if (w.does[to] != SILENT)
        answer_for(q->about, q->round);
    return 0;
}

static int fake_poll(void *group, int tag, void *out, int bytes, int *from)
{
    (void)group;
    if (tag != ANSWER || w.n_waiting == 0) /* the thread that watches looks for others */
        return 0;
    memcpy(out, &w.waiting[--w.n_waiting], (size_t)bytes);
    *from = 0;
    return 1;
}

static int fake_test(void **request)
{
    return *request == NULL;
}

static int fake_group(const int *ranks, int n, int tag, void **group)
{
    (void)ranks, (void)n, (void)tag;
    *group = &w;
    return 0;
}

static void fake_group_free(void *group)
{
    (void)group;
}

static const char *no_error(void)
{
    return "";
}

static const struct mpi_table table = {
    .version = MPI_TABLE_VERSION, .last_error = no_error, .group = fake_group,
    .group_free = fake_group_free, .test = fake_test, .post = fake_post, .poll = fake_poll,
};

static int ask_world(struct comm *c, const struct comm_group *of)
{
    (void)c;
    return of ? ask_ranks(w.ask, of->members, of->n) : ask_all(w.ask);
}

static const struct comm_transport transport = { .name = "fake", .ask = ask_world };

/* Rank 0 of 128 nodes, in a call with ranks 8, 16 and 24. */
static void world_open(void)
{
    w = (struct world){ .waiting = sys_alloc((i64)sizeof *w.waiting * 2 * RANKS, 64) };
    CHECK(w.waiting != NULL);
    CHECK_OK(comm_new(&w.comm, &transport, 0, RANKS));
    w.comm->sights = ARENA_ARRAY(&w.comm->arena, struct comm_sight, RANKS);
    for (int r = 0; r < RANKS; r++) {
        w.nodes[r] = r / PER_NODE;
        w.state[r] = 'S';
    }
    CHECK_OK(comm_group_new(&w.dp, w.comm, "dp", (int[]){ 0, 8, 16, 24 }, 4));
    CHECK_OK(ask_open(&w.ask, &table, w.comm, w.nodes));
}

static void world_close(void)
{
    ask_stop(w.ask);
    ask_close(w.ask);
    comm_free(w.comm);
    sys_free(w.waiting);
}

static int stall(void)
{
    const struct comm_call call = { .op = COMM_BARRIER, .group = w.dp, .tag = 5,
                                    .started_ns = sys_now_ns() };
    comm_flight_start(w.comm->flights[0], &call);
    return comm_explain_stall(&call);
}

TEST(where_a_member_is_to_blame_only_members_are_asked)
{
    world_open();
    w.does[16] = IN_NOTHING;
    CHECK_FAILS(stall(), ERR_HANG, "rank 16 did not reach barrier 0 on dp");
    CHECK_EQ(w.questions, 3);
    world_close();
}

TEST(where_a_member_waits_for_others_all_are_asked)
{
    world_open();
    w.does[16] = IN_OTHER;
    for (int r = 512; r < RANKS; r++)
        w.does[r] = r == 600 ? IN_NOTHING : IN_OTHER;
    CHECK_FAILS(stall(), ERR_HANG, "rank 600 did not reach barrier 0 on tp");
    CHECK(strstr(err_message(), "where rank 16 waits") != NULL);
    CHECK_EQ(w.questions, RANKS - 1); /* members were asked just now */
    world_close();
}

TEST(where_all_members_wait_in_the_call_a_stopped_rank_elsewhere_is_found)
{
    world_open();
    w.state[700] = 'T';
    w.does[700] = IN_OTHER;
    CHECK_FAILS(stall(), ERR_HANG, "rank 700");
    CHECK_EQ(w.questions, RANKS - 1);
    world_close();
}

TEST(a_silent_member_is_asked_about_at_neighbours_that_are_no_members)
{
    world_open();
    w.does[16] = SILENT;
    w.state[16] = 'T';
    CHECK_FAILS(stall(), ERR_HANG, "rank 16");
    CHECK(w.comm->sights[16].state == 'T' && !w.comm->sights[16].silent);
    CHECK_EQ(w.questions, 3 + PER_NODE - 1);
    world_close();
}

TEST(the_last_words_go_out_where_a_question_is_still_under_way)
{
    world_open();
    w.stuck[8] = true;
    w.does[16] = IN_NOTHING;
    CHECK_FAILS(stall(), ERR_HANG, "rank 16");
    ask_tell(w.ask, ERR_HANG);
    CHECK_EQ(w.notes, RANKS - 1);
    world_close();
}

TEST_MAIN(ONE(where_a_member_is_to_blame_only_members_are_asked),
          ONE(where_a_member_waits_for_others_all_are_asked),
          ONE(where_all_members_wait_in_the_call_a_stopped_rank_elsewhere_is_found),
          ONE(a_silent_member_is_asked_about_at_neighbours_that_are_no_members),
          ONE(the_last_words_go_out_where_a_question_is_still_under_way))
