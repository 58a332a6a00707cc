/* Power loss, kill -9 and failing calls, at every point: RELIABILITY's P1 to P3. The long
 * versions are tests/slow/prove_checkpoint.c. */
#include "test.h"

#include "base/sys.h"
#include "support/checkpoint_fixture.h"
#include "support/crash.h"
#include "train/checkpoint.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[128], folder[160], scratch[160];

static void fresh_folder(void)
{
    if (sys_exists(folder))
        sys_remove_tree(folder);
}

/* Saves `saves` checkpoints (2 are kept), then goes back to the one before the last. */
static struct crash_trace *record_run(int saves, bool rewind)
{
    struct checkpoint_writer *w;
    struct fixture f;
    fresh_folder();
    sys_mkdirs(folder);
    struct crash_trace *t = crash_record(folder);
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    for (int i = 1; i <= saves; i++) {
        CHECK_OK(fixture_save(w, &f, 10 * i, i));
        crash_mark(t, i);
    }
    if (rewind) {
        crash_mark(t, saves - 1);
        CHECK_OK(checkpoint_rewind(w, 10 * (saves - 1)));
        CHECK_OK(fixture_save(w, &f, 10 * saves, saves + 1));
        crash_mark(t, saves + 1);
    }
    checkpoint_writer_free(w);
    crash_stop(t);
    return t;
}

static struct crash_stats enumerate(const struct crash_trace *t, i64 per_point)
{
    struct crash_stats stats = { 0 };
    crash_enumerate(t, scratch, per_point, 1, fixture_check, NULL, &stats);
    return stats;
}

TEST(no_acknowledged_checkpoint_is_lost_wherever_the_power_fails)
{
    struct crash_trace *t = record_run(4, true);
    struct crash_stats s = enumerate(t, 300);
    if (s.violations > 0)
        fail_msg("%lld of %lld states break a promise; the first: %s", (long long)s.violations,
                 (long long)s.distinct, s.first);
    CHECK(s.points > 80);
    CHECK(s.distinct > 1000); /* or the enumerator enumerates nothing */
    print_message("  %lld crash points, %lld states, %lld distinct trees\n", (long long)s.points,
                  (long long)s.states, (long long)s.distinct);
    crash_free(t);
}

/* The enumerator's own test: each fsync of a save is necessary, and it sees when one is
 * missing. The second save deletes nothing, so no later fsync hides a missing one. */
TEST(leaving_out_any_fsync_of_a_save_is_seen)
{
    int mutants = 0;
    struct crash_trace *whole = record_run(3, false);
    for (i64 op = 0; op < crash_ops(whole); op++) {
        if (!crash_is_fsync(whole, op) || crash_mark_at(whole, op) != 1)
            continue;
        struct crash_trace *t = record_run(3, false);
        crash_drop(t, op);
        if (enumerate(t, 64).violations == 0)
            fail_msg("dropping operation %lld, an fsync, went unseen", (long long)op);
        crash_free(t);
        mutants++;
    }
    CHECK_EQ(mutants, 6); /* three shards, the manifest, step-20.tmp, the parent */
    crash_free(whole);
}

TEST(deleting_an_old_checkpoint_without_first_unnaming_it_durably_is_seen)
{
    int fsyncs = 0;
    i64 last = -1;
    struct crash_trace *t = record_run(3, false);
    for (i64 op = 0; op < crash_ops(t); op++) {
        if (crash_is_fsync(t, op) && crash_mark_at(t, op) == 2) {
            fsyncs++;
            last = op;
        }
    }
    CHECK_EQ(fsyncs, 7); /* as above, and the parent after step-10 became step-10.del */
    crash_drop(t, last);
    CHECK(enumerate(t, 64).violations > 0);
    crash_free(t);
}

TEST(renaming_before_the_files_are_durable_is_seen)
{
    struct crash_trace *whole = record_run(2, false);
    i64 rename = -1, first_fsync = -1;
    for (i64 op = 0; op < crash_ops(whole); op++) {
        if (crash_mark_at(whole, op) != 1)
            continue;
        if (crash_is_fsync(whole, op) && first_fsync < 0)
            first_fsync = op;
        if (crash_is_rename(whole, op))
            rename = op;
    }
    CHECK(rename > first_fsync && first_fsync > 0);
    for (i64 to = first_fsync; to < rename; to++) {
        if (!crash_is_fsync(whole, to))
            continue;
        struct crash_trace *t = record_run(2, false);
        crash_move(t, rename, to);
        CHECK(enumerate(t, 64).violations > 0);
        crash_free(t);
    }
    crash_free(whole);
}

/* Crash, recover, go on, crash again, up to four times in a row. */
TEST(crashes_during_recovery_lose_nothing_either)
{
    for (u64 walk = 0; walk < 60; walk++) {
        i64 mark = 0, step = -1, generation = 0;
        fresh_folder();
        sys_mkdirs(folder);
        for (int depth = 0; depth < 4; depth++) {
            struct checkpoint_writer *w;
            struct fixture f;
            i64 before = generation;
            struct crash_trace *t = crash_record(folder);
            crash_mark(t, generation);
            CHECK_OK(fixture_open(&w, &f, folder, step));
            for (int i = 1; i <= 3; i++) {
                CHECK_OK(fixture_save(w, &f, step + i, before + i));
                crash_mark(t, before + i);
            }
            checkpoint_writer_free(w);
            crash_stop(t);
            mark = i64_max(before, crash_once(t, folder, 4 * walk + (u64)depth));
            crash_free(t);
            CHECK_EQ(fixture_check(NULL, folder, mark), 0);
            if (fixture_load(folder, &step, &generation) == ERR_USAGE)
                step = -1, generation = 0;
        }
    }
}

/* --- kill -9 --------------------------------------------------------------------- */

/* Saves four checkpoints and tells each through the pipe once it is durable. */
static void child_saves(int pipe_fd, const char *fault)
{
    struct checkpoint_writer *w;
    struct fixture f;
    sys_fault_arm(fault);
    if (fixture_open(&w, &f, folder, -1) == OK)
        for (u8 i = 1; i <= 4; i++)
            if (fixture_save(w, &f, i, i) != OK || write(pipe_fd, &i, 1) != 1)
                _exit(2);
    _exit(0);
}

/* True when the child was killed; *told is the last checkpoint that it called durable. */
static bool run_child(const char *fault, u8 *told)
{
    int ends[2], status;
    *told = 0;
    fresh_folder();
    CHECK_EQ(pipe(ends), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        child_saves(ends[1], fault);
    close(ends[1]);
    while (read(ends[0], told, 1) == 1)
        ;
    close(ends[0]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

TEST(kill_at_any_system_call_loses_nothing_that_was_acknowledged)
{
    static const char *const ops[] = { "open", "write", "fsync", "close", "rename", "unlink",
                                       "mkdir", "stat" };
    int kills = 0;
    for (i64 i = 0; i < COUNT_OF(ops); i++) {
        for (int nth = 1;; nth++) {
            char fault[64];
            u8 told;
            snprintf(fault, sizeof fault, "%s:%d:KILL", ops[i], nth);
            bool killed = run_child(fault, &told);
            CHECK_EQ(fixture_check(NULL, folder, told), 0);
            if (!killed)
                break;
            kills++;
        }
    }
    CHECK(kills > 100);
}

/* --- several ranks --------------------------------------------------------------- */

struct pair {
    struct checkpoint_writer *w[FIXTURE_RANKS];
    struct fixture_part part[FIXTURE_RANKS];
};

static void open_pair(struct pair *p)
{
    for (int r = 0; r < FIXTURE_RANKS; r++)
        CHECK_OK(fixture_part_open(&p->w[r], &p->part[r], folder, r, -1, 0.01));
}

static void close_pair(struct pair *p)
{
    for (int r = 0; r < FIXTURE_RANKS; r++)
        checkpoint_writer_free(p->w[r]);
}

static void save_pair(struct pair *p, i64 step)
{
    u64 ticket;
    CHECK_OK(checkpoint_open_step(p->w[0], step, &ticket));
    for (int r = FIXTURE_RANKS - 1; r >= 0 && ticket; r--)
        CHECK_OK(fixture_part_save(p->w[r], &p->part[r], step, ticket, step));
}

static struct crash_trace *record_pair(int saves)
{
    struct pair p;
    fresh_folder();
    sys_mkdirs(folder);
    struct crash_trace *t = crash_record(folder);
    open_pair(&p);
    for (int i = 1; i <= saves; i++) {
        save_pair(&p, i);
        crash_mark(t, i);
    }
    close_pair(&p);
    crash_stop(t);
    return t;
}

TEST(what_several_ranks_acknowledged_survives_wherever_the_power_fails)
{
    struct crash_trace *t = record_pair(4);
    struct crash_stats s = enumerate(t, 200);
    if (s.violations > 0)
        fail_msg("%lld of %lld states break a promise; the first: %s", (long long)s.violations,
                 (long long)s.distinct, s.first);
    CHECK(s.distinct > 1000);
    print_message("  %lld crash points, %lld states, %lld distinct trees\n", (long long)s.points,
                  (long long)s.states, (long long)s.distinct);
    crash_free(t);
}

/* Each file of each rank, the manifest, the temporary folder, the parent. What rank 1 puts
 * down to tell that it is done need not last, nor need the folder before rank 0 syncs it. */
TEST(leaving_out_an_fsync_of_any_rank_is_seen)
{
    int seen = 0, fsyncs = 0;
    struct crash_trace *whole = record_pair(2);
    for (i64 op = 0; op < crash_ops(whole); op++) {
        if (!crash_is_fsync(whole, op) || crash_mark_at(whole, op) != 1)
            continue;
        struct crash_trace *t = record_pair(2);
        crash_drop(t, op);
        seen += enumerate(t, 64).violations > 0;
        crash_free(t);
        fsyncs++;
    }
    CHECK_EQ(fsyncs, 3 + 2 + 2 + 3);
    CHECK_EQ(seen, fsyncs - 2);
    crash_free(whole);
}

static int by_pipe(int fd, void *data, i64 bytes, bool give)
{
    ssize_t n = give ? write(fd, data, (size_t)bytes) : read(fd, data, (size_t)bytes);
    return n == bytes ? OK : -1;
}

/* A rank of a job that saves four checkpoints; rank 0 hands out tickets and tells. */
static void child_rank(int rank, int tickets, int told, const char *fault)
{
    struct checkpoint_writer *w;
    struct fixture_part f;
    struct checkpoint_result result;
    signal(SIGPIPE, SIG_IGN);
    sys_fault_arm(fault);
    if (fixture_part_open(&w, &f, folder, rank, -1, 0.02) < 0)
        _exit(2);
    for (u8 step = 1; step <= 4; step++) {
        u64 ticket;
        if (rank == 0 && checkpoint_open_step(w, step, &ticket) < 0)
            _exit(2);
        if (by_pipe(tickets, &ticket, sizeof ticket, rank == 0) < 0 && rank > 0)
            _exit(3); /* rank 0 is gone */
        if (ticket && fixture_part_save(w, &f, step, ticket, step) < 0)
            _exit(2);
        if (rank == 0 && checkpoint_poll(w, &result) == OK && result.step == step)
            by_pipe(told, &step, 1, true);
    }
    _exit(0);
}

/* One of the ranks is killed at the fault; the other must come to an end by itself. */
static bool run_ranks(int victim, const char *fault, u8 *last)
{
    int tickets[2], told[2], status;
    bool killed = false;
    pid_t child[FIXTURE_RANKS];
    *last = 0;
    fresh_folder();
    sys_mkdirs(folder);
    CHECK(pipe(tickets) == 0 && pipe(told) == 0);
    for (int r = 0; r < FIXTURE_RANKS; r++) {
        child[r] = fork();
        if (child[r] == 0) {
            close(tickets[r == 0 ? 0 : 1]);
            child_rank(r, tickets[r == 0 ? 1 : 0], told[1], r == victim ? fault : NULL);
        }
    }
    close(tickets[0]);
    close(tickets[1]);
    close(told[1]);
    while (read(told[0], last, 1) == 1)
        ;
    close(told[0]);
    for (int r = 0; r < FIXTURE_RANKS; r++) {
        CHECK_EQ(waitpid(child[r], &status, 0), child[r]);
        CHECK(r == victim || WIFEXITED(status));
        killed = killed || WIFSIGNALED(status);
    }
    return killed;
}

TEST(kill_of_either_rank_at_any_system_call_loses_nothing_that_was_acknowledged)
{
    static const char *const ops[] = { "open", "write", "fsync", "rename", "mkdir" };
    int kills = 0;
    for (int victim = 0; victim < FIXTURE_RANKS; victim++) {
        for (i64 i = 0; i < COUNT_OF(ops); i++) {
            for (int nth = 1;; nth += 5) {
                char fault[64];
                u8 told;
                snprintf(fault, sizeof fault, "%s:%d:KILL", ops[i], nth);
                bool killed = run_ranks(victim, fault, &told);
                CHECK_EQ(fixture_check(NULL, folder, told), 0);
                if (!killed)
                    break;
                kills++;
            }
        }
    }
    CHECK(kills > 25);
}

/* --- calls that fail ------------------------------------------------------------- */

/* Two sound checkpoints, then one while the fault is armed: whatever comes of it, a sound
 * one is there afterwards, and the next save works. Returns whether the fault was reached. */
static bool save_under_fault(const char *op, int nth, const char *what)
{
    struct checkpoint_writer *w;
    struct checkpoint_result result;
    struct fixture f;
    char fault[64];
    i64 step, generation;
    enum sys_op number = 0;
    while (strcmp(sys_op_name(number), op) != 0)
        number++;
    fresh_folder();
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    CHECK_OK(fixture_save(w, &f, 1, 1));
    CHECK_OK(fixture_save(w, &f, 2, 2));
    snprintf(fault, sizeof fault, "%s:%d:%s", op, nth, what);
    CHECK_EQ(sys_fault_arm(fault), 0);
    CHECK_OK(fixture_save(w, &f, 3, 3)); /* a miss is borne */
    bool reached = sys_op_count(number) >= (u64)nth;
    sys_fault_arm(NULL);
    CHECK_OK(checkpoint_poll(w, &result));
    CHECK(result.missed == 0 ? result.step == 3 : result.step == 2 && result.error[0] != '\0');
    CHECK_EQ(fixture_check(NULL, folder, result.step), 0);
    CHECK_OK(fixture_save(w, &f, 4, 4));
    CHECK_OK(checkpoint_poll(w, &result));
    CHECK_EQ(result.missed, 0);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 4);
    checkpoint_writer_free(w);
    return reached;
}

TEST(no_failing_call_costs_an_earlier_checkpoint_or_the_next_one)
{
    static const char *const ops[] = { "open", "write", "fsync", "close", "rename",
                                       "unlink", "mkdir", "stat", "opendir", "read" };
    static const char *const what[] = { "ENOSPC", "EIO", "EINTR", "SHORT", "ENOSPC:repeat",
                                        "EROFS:repeat" };
    for (i64 i = 0; i < COUNT_OF(ops); i++)
        for (i64 k = 0; k < COUNT_OF(what); k++)
            for (int nth = 1; save_under_fault(ops[i], nth, what[k]); nth++)
                ;
}

/* The same for two ranks, with the fault at the one or at the other. */
static bool save_pair_under_fault(int victim, const char *op, int nth, const char *what)
{
    struct checkpoint_result result;
    struct pair p;
    char fault[64];
    i64 step, generation;
    u64 ticket;
    enum sys_op number = 0;
    while (strcmp(sys_op_name(number), op) != 0)
        number++;
    fresh_folder();
    open_pair(&p);
    save_pair(&p, 1);
    CHECK_OK(checkpoint_open_step(p.w[0], 2, &ticket));
    bool reached = false;
    snprintf(fault, sizeof fault, "%s:%d:%s", op, nth, what);
    for (int r = FIXTURE_RANKS - 1; r >= 0; r--) {
        if (r == victim)
            CHECK_EQ(sys_fault_arm(fault), 0);
        CHECK_OK(fixture_part_save(p.w[r], &p.part[r], 2, ticket, 2));
        reached = reached || (r == victim && sys_op_count(number) >= (u64)nth);
        sys_fault_arm(NULL);
    }
    CHECK_OK(checkpoint_poll(p.w[0], &result));
    CHECK(result.missed == 0 ? result.step == 2 : result.step == 1 && result.error[0] != '\0');
    CHECK_EQ(fixture_check(NULL, folder, result.step), 0);
    save_pair(&p, 3);
    CHECK_OK(checkpoint_poll(p.w[0], &result));
    CHECK_EQ(result.missed, 0);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 3);
    close_pair(&p);
    return reached;
}

TEST(no_failing_call_of_any_rank_costs_an_earlier_checkpoint_or_the_next_one)
{
    static const char *const ops[] = { "open", "write", "fsync", "close", "rename", "read" };
    static const char *const what[] = { "EIO", "SHORT", "ENOSPC:repeat" };
    for (int victim = 0; victim < FIXTURE_RANKS; victim++)
        for (i64 i = 0; i < COUNT_OF(ops); i++)
            for (i64 k = 0; k < COUNT_OF(what); k++)
                for (int nth = 1; save_pair_under_fault(victim, ops[i], nth, what[k]); nth++)
                    ;
}

TEST(a_short_write_is_completed_and_a_failed_fsync_is_made_good_with_new_files)
{
    static const char *const faults[] = { "write:1:SHORT:repeat", "write:2:EINTR", "fsync:1:EIO",
                                          "close:2:EIO", "rename:1:EIO" };
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct checkpoint_writer *w;
        struct checkpoint_result result;
        struct fixture f;
        fresh_folder();
        CHECK_OK(fixture_open(&w, &f, folder, -1));
        sys_fault_arm(faults[i]);
        CHECK_OK(fixture_save(w, &f, 1, 1));
        sys_fault_arm(NULL);
        CHECK_OK(checkpoint_poll(w, &result));
        CHECK_EQ(result.step, 1);
        CHECK_EQ(fixture_check(NULL, folder, 1), 0);
        checkpoint_writer_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(no_acknowledged_checkpoint_is_lost_wherever_the_power_fails),
        ONE(leaving_out_any_fsync_of_a_save_is_seen),
        ONE(deleting_an_old_checkpoint_without_first_unnaming_it_durably_is_seen),
        ONE(renaming_before_the_files_are_durable_is_seen),
        ONE(crashes_during_recovery_lose_nothing_either),
        ONE(kill_at_any_system_call_loses_nothing_that_was_acknowledged),
        ONE(what_several_ranks_acknowledged_survives_wherever_the_power_fails),
        ONE(leaving_out_an_fsync_of_any_rank_is_seen),
        ONE(kill_of_either_rank_at_any_system_call_loses_nothing_that_was_acknowledged),
        ONE(no_failing_call_of_any_rank_costs_an_earlier_checkpoint_or_the_next_one),
        ONE(no_failing_call_costs_an_earlier_checkpoint_or_the_next_one),
        ONE(a_short_write_is_completed_and_a_failed_fsync_is_made_good_with_new_files),
    };
    const char *path = scratch_folder();
    if (!path)
        return 1;
    snprintf(base, sizeof base, "%s", path);
    snprintf(folder, sizeof folder, "%s/run", base);
    snprintf(scratch, sizeof scratch, "%s/scratch", base);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sys_remove_tree(base);
    return failed;
}
