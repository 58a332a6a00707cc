/* The long proofs of checkpoints: `./run prove-checkpoint [SCALE]`. SCALE 1 takes a minute
 * or two, 100 a night; the work grows with it. Prints what was tried; exits 1 when a
 * promise of RELIABILITY (P1 to P4) was broken. The short ones are in tests/train. */
#include "base/err.h"
#include "base/rng.h"
#include "base/sys.h"
#include "support/checkpoint_fixture.h"
#include "support/crash.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[160], scratch[160];
static i64 violations;
static struct rng dice = { 0x70726f7665, 1 };
static u64 throws;

static u64 below(u64 n)
{
    return rng_u64(&dice, throws++) % n;
}

static void must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "%s\n", err_message());
        exit(1);
    }
}

static void broken(const char *what)
{
    if (violations++ < 10)
        printf("  VIOLATION: %s\n", what);
}

static void fresh_folder(void)
{
    if (sys_exists(folder))
        sys_remove_tree(folder);
    sys_mkdirs(folder);
}

static void report(const char *what, i64 n, u64 since_ns)
{
    double s = 1e-9 * (double)(sys_now_ns() - since_ns);
    printf("%-58s %9lld in %6.1f s, %lld broken\n", what, (long long)n, s,
           (long long)violations);
    fflush(stdout);
}

/* --- power loss ------------------------------------------------------------------ */

struct session {
    i64 step, generation; /* where it stands */
    bool rewinds;
};

/* Opens a writer, saves a few times, perhaps goes back in between; marks what holds. */
static struct crash_trace *record_session(struct session *s, int saves)
{
    struct checkpoint_writer *w;
    struct fixture f;
    struct crash_trace *t = crash_record(folder);
    crash_mark(t, s->generation);
    must(fixture_open(&w, &f, folder, s->step));
    for (int i = 0; i < saves; i++) {
        i64 before = s->step;
        must(fixture_save(w, &f, s->step += 1 + (i64)below(3), ++s->generation));
        crash_mark(t, s->generation);
        if (s->rewinds && before > 0 && below(3) == 0) {
            crash_mark(t, s->generation - 1);
            must(checkpoint_rewind(w, before));
            s->step = before;
        }
    }
    checkpoint_writer_free(w);
    crash_stop(t);
    return t;
}

static void prove_power_loss(i64 scale)
{
    u64 begin = sys_now_ns();
    struct crash_stats all = { 0 };
    for (i64 run = 0; run < 2 * scale; run++) {
        struct session s = { .step = -1, .rewinds = run % 2 };
        fresh_folder();
        struct crash_trace *t = record_session(&s, 3 + (int)below(4));
        crash_enumerate(t, scratch, 1000, (u64)run, fixture_check, NULL, &all);
        crash_free(t);
    }
    violations += all.violations;
    if (all.violations)
        printf("  VIOLATION: %s\n", all.first);
    printf("power loss: %lld crash points, %lld states,\n", (long long)all.points,
           (long long)all.states);
    report("  distinct trees loaded", all.distinct, begin);
}

/* --- several crashes in a row ---------------------------------------------------- */

static void prove_stacked_crashes(i64 scale)
{
    enum { DEPTH = 4 };
    u64 begin = sys_now_ns();
    i64 walks = 500 * scale;
    for (i64 walk = 0; walk < walks; walk++) {
        struct session s = { .step = -1 };
        fresh_folder();
        for (int depth = 0; depth < DEPTH; depth++) {
            struct session now = s;
            struct crash_trace *t = record_session(&now, 1 + (int)below(4));
            i64 mark = i64_max(s.generation, crash_once(t, folder, below(UINT64_MAX)));
            crash_free(t);
            if (fixture_check(NULL, folder, mark) != 0)
                broken(err_message());
            int rc = fixture_load(folder, &s.step, &s.generation);
            if (rc == ERR_USAGE)
                s = (struct session){ .step = -1 };
            else
                must(rc);
        }
    }
    report("stacked crashes (4 in a row): recoveries", DEPTH * walks, begin);
}

/* --- kill -9 --------------------------------------------------------------------- */

/* Saves as fast as it can, from where it stands, and tells each durable generation. */
static void child_saves(int pipe_fd, i64 step, i64 generation)
{
    struct checkpoint_writer *w;
    struct fixture f;
    must(fixture_open(&w, &f, folder, step));
    for (;;) {
        generation++;
        if (fixture_save(w, &f, ++step, generation) != OK ||
            write(pipe_fd, &generation, sizeof generation) != sizeof generation)
            _exit(2);
    }
}

/* Kills the child after a random time of up to a few saves; gives the last that it told. */
static i64 run_and_kill(i64 step, i64 generation, u64 longest_ns)
{
    int ends[2], status;
    i64 told = generation, value;
    if (pipe(ends) != 0)
        exit(1);
    pid_t child = fork();
    if (child == 0)
        child_saves(ends[1], step, generation);
    close(ends[1]);
    sys_sleep_ns(below(longest_ns));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    while (read(ends[0], &value, sizeof value) == sizeof value)
        told = value;
    close(ends[0]);
    if (!WIFSIGNALED(status))
        broken("the child ended by itself");
    return told;
}

static void prove_kill(const char *where, i64 kills, u64 longest_ns)
{
    u64 begin = sys_now_ns();
    i64 step = -1, generation = 0, saves = 0;
    char what[160];
    fresh_folder();
    for (i64 i = 0; i < kills; i++) {
        i64 told = run_and_kill(step, generation, longest_ns);
        saves += told - generation;
        if (fixture_check(NULL, folder, told) != 0)
            broken(err_message());
        if (fixture_load(folder, &step, &generation) == ERR_USAGE)
            step = -1, generation = 0;
    }
    snprintf(what, sizeof what, "kill -9 %s (%lld saves acknowledged): kills", where,
             (long long)saves);
    report(what, kills, begin);
}

/* --- several ranks --------------------------------------------------------------- */

/* A few checkpoints of two ranks; now and then one of them does not take part. */
static struct crash_trace *record_ranks(int saves, i64 *generation)
{
    struct checkpoint_writer *w[FIXTURE_RANKS];
    struct fixture_part part[FIXTURE_RANKS];
    struct checkpoint_result result;
    struct crash_trace *t = crash_record(folder);
    for (int r = 0; r < FIXTURE_RANKS; r++)
        must(fixture_part_open(&w[r], &part[r], folder, r, -1, 1e-4));
    for (i64 step = 1; step <= saves; step++) {
        u64 ticket;
        must(checkpoint_open_step(w[0], step, &ticket));
        bool absent = below(4) == 0;
        for (int r = absent ? 0 : FIXTURE_RANKS - 1; ticket && r >= 0; r--)
            must(fixture_part_save(w[r], &part[r], step, ticket, step));
        must(checkpoint_poll(w[0], &result));
        if (absent != (result.step != step))
            broken("a checkpoint without one rank was called durable, or a whole one was not");
        crash_mark(t, i64_max(0, *generation = result.step));
    }
    for (int r = 0; r < FIXTURE_RANKS; r++)
        checkpoint_writer_free(w[r]);
    crash_stop(t);
    return t;
}

static void prove_ranks_power_loss(i64 scale)
{
    u64 begin = sys_now_ns();
    struct crash_stats all = { 0 };
    i64 generation;
    for (i64 run = 0; run < 2 * scale; run++) {
        fresh_folder();
        struct crash_trace *t = record_ranks(3 + (int)below(2), &generation);
        crash_enumerate(t, scratch, 500, (u64)run, fixture_check, NULL, &all);
        crash_free(t);
    }
    violations += all.violations;
    if (all.violations)
        printf("  VIOLATION: %s\n", all.first);
    printf("power loss, two ranks: %lld crash points, %lld states,\n", (long long)all.points,
           (long long)all.states);
    report("  distinct trees loaded", all.distinct, begin);
}

/* A rank that saves as fast as it can; rank 0 gives the tickets and tells what is durable. */
static void child_rank(int rank, int tickets, int told, i64 step)
{
    struct checkpoint_writer *w;
    struct checkpoint_result result;
    struct fixture_part f;
    signal(SIGPIPE, SIG_IGN);
    must(fixture_part_open(&w, &f, folder, rank, step, 0.01));
    for (;;) {
        u64 ticket;
        step++;
        if (rank == 0 && checkpoint_open_step(w, step, &ticket) < 0)
            _exit(0); /* too many missed: the other one is gone */
        ssize_t n = rank == 0 ? write(tickets, &ticket, sizeof ticket)
                              : read(tickets, &ticket, sizeof ticket);
        if (n != sizeof ticket)
            _exit(0);
        if (ticket && fixture_part_save(w, &f, step, ticket, step) != OK)
            _exit(0);
        if (rank == 0 && checkpoint_poll(w, &result) == OK && result.step == step &&
            write(told, &step, sizeof step) != sizeof step)
            _exit(2);
    }
}

/* Kills one of the two after a random time, then lets the other end. */
static i64 kill_a_rank(i64 step, u64 longest_ns)
{
    int tickets[2], told[2], status;
    i64 last = step, value;
    pid_t child[FIXTURE_RANKS];
    if (pipe(tickets) != 0 || pipe(told) != 0)
        exit(1);
    for (int r = 0; r < FIXTURE_RANKS; r++) {
        child[r] = fork();
        if (child[r] == 0) {
            close(tickets[r == 0 ? 0 : 1]);
            child_rank(r, tickets[r == 0 ? 1 : 0], told[1], step);
        }
    }
    close(tickets[0]);
    close(tickets[1]);
    close(told[1]);
    sys_sleep_ns(below(longest_ns));
    kill(child[below(FIXTURE_RANKS)], SIGKILL);
    while (read(told[0], &value, sizeof value) == sizeof value)
        last = value;
    close(told[0]);
    for (int r = 0; r < FIXTURE_RANKS; r++)
        waitpid(child[r], &status, 0);
    return last;
}

static void prove_ranks_kill(i64 kills)
{
    u64 begin = sys_now_ns();
    i64 step = -1, generation, saves = 0;
    char what[160];
    fresh_folder();
    for (i64 i = 0; i < kills; i++) {
        i64 told = kill_a_rank(step, 8000000);
        saves += told - step;
        if (fixture_check(NULL, folder, i64_max(told, 0)) != 0)
            broken(err_message());
        if (fixture_load(folder, &step, &generation) == ERR_USAGE)
            step = -1;
    }
    snprintf(what, sizeof what, "kill -9 of one rank of two (%lld steps on): kills",
             (long long)saves);
    report(what, kills, begin);
}

/* --- damage ---------------------------------------------------------------------- */

static const char *const files[] = { "param.safetensors", "adamw.m.safetensors",
                                     "scaler.safetensors", "manifest.json" };

static u8 *slurp(const char *path, i64 *bytes)
{
    u8 *map = sys_map_file(path, bytes);
    u8 *copy = malloc((size_t)*bytes + 1);
    memcpy(copy, map, (size_t)*bytes);
    sys_unmap(map, *bytes);
    return copy;
}

static void spill(const char *path, const u8 *data, i64 bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, (size_t)bytes) != bytes || close(fd) != 0)
        exit(1);
}

/* Must fail and name the file, with every tensor untouched. */
static void check_refused(const char *file)
{
    static const u8 zeros[FIXTURE_BYTES];
    struct fixture f;
    i64 step = 1;
    fixture_init(&f);
    if (checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL) != ERR_FORMAT)
        broken("damage was not seen");
    else if (!strstr(err_message(), file))
        broken(err_message());
    for (int t = 0; t < FIXTURE_TENSORS; t++)
        if (memcmp(f.data[t], zeros, FIXTURE_BYTES) != 0)
            broken("a tensor was changed");
}

static i64 flip_every_bit(const char *file, const char *path, u8 *data, i64 bytes)
{
    for (i64 bit = 0; bit < 8 * bytes; bit++) {
        data[bit / 8] ^= (u8)(1 << bit % 8);
        spill(path, data, bytes);
        check_refused(file);
        data[bit / 8] ^= (u8)(1 << bit % 8);
    }
    return 8 * bytes;
}

/* Overwrites, in several places, with random bytes. */
static i64 damage_at_random(const char *file, const char *path, const u8 *data, i64 bytes, i64 n)
{
    u8 *work = malloc((size_t)bytes);
    for (i64 i = 0; i < n; i++) {
        memcpy(work, data, (size_t)bytes);
        for (u64 k = below(8) + 1; k > 0; k--)
            work[below((u64)bytes)] = (u8)below(256);
        if (memcmp(work, data, (size_t)bytes) == 0)
            continue;
        spill(path, work, bytes);
        check_refused(file);
    }
    free(work);
    return n;
}

static void prove_damage(i64 scale)
{
    u64 begin = sys_now_ns();
    i64 flips = 0, random = 0;
    struct checkpoint_writer *w;
    struct fixture f;
    fresh_folder();
    must(fixture_open(&w, &f, folder, -1));
    must(fixture_save(w, &f, 1, 1));
    checkpoint_writer_free(w);
    for (i64 i = 0; i < COUNT_OF(files); i++) {
        char path[256];
        i64 bytes;
        snprintf(path, sizeof path, "%s/step-1/%s", folder, files[i]);
        u8 *data = slurp(path, &bytes);
        flips += flip_every_bit(files[i], path, data, bytes);
        random += damage_at_random(files[i], path, data, bytes, 2500 * scale);
        spill(path, data, bytes);
        free(data);
    }
    printf("damage: %lld single bits (all of them),\n", (long long)flips);
    report("  and random bytes in several places", random, begin);
}

int main(int argc, char **argv)
{
    i64 scale = argc > 1 ? atoll(argv[1]) : 1;
    const char *base = scratch_folder();
    char disk[] = "/var/tmp/headway-XXXXXX";
    if (scale < 1 || !base || !mkdtemp(disk)) {
        fprintf(stderr, "usage: %s [SCALE >= 1]\n", argv[0]);
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/run", base);
    snprintf(scratch, sizeof scratch, "%s/scratch", base);
    prove_power_loss(scale);
    prove_stacked_crashes(scale);
    prove_ranks_power_loss(scale);
    prove_ranks_kill(300 * scale);
    prove_damage(scale);
    prove_kill("in memory", 1000 * scale, 5000000);
    snprintf(folder, sizeof folder, "%s/run", disk);
    prove_kill("on disk", 100 * scale, 300000000);
    sys_remove_tree(disk);
    sys_remove_tree(base);
    printf("%s\n", violations ? "BROKEN" : "every promise held");
    return violations ? 1 : 0;
}
