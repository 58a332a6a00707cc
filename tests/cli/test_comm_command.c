/* The program under launchers, real ones where they are installed. */
#include "cli/program.h"
#include "test.h"

#define CLEAN "unset HEADWAY_RANK HEADWAY_SIZE HEADWAY_ADDRESS; "
#define CHECKED "calls gave the right results and moved the right number of bytes"

static void check_says(const char *line, int code, const char *text)
{
    static struct outcome o;
    run_shell(&o, line);
    if (o.code != code || !strstr(o.text, text))
        fail_msg("%s\ngave %d, expected %d and \"%s\":\n%s", line, o.code, code, text, o.text);
}

TEST(ranks_of_this_machine_check_themselves)
{
    check_says(CLEAN "timeout 60 $H comm --ranks 3 --check-every 19 --check-only 2>&1", 0,
               "3 ranks, shm");
    check_says(CLEAN "timeout 60 $H comm --check-every 19 --check-only 2>&1", 0, CHECKED);
}

TEST(a_table_is_printed_once)
{
    check_says(CLEAN "timeout 60 $H comm --ranks 2 --check-every 50 --max-size 4 | "
                     "grep -c '^allreduce '", 0, "1\n");
}

TEST(ranks_find_each_other_by_address)
{
    check_says(CLEAN "export HEADWAY_SIZE=2 HEADWAY_ADDRESS=127.0.0.1:$((20000 + $$ % 20000)); "
                     "HEADWAY_RANK=1 timeout 60 $H comm --check-every 19 --check-only & "
                     "HEADWAY_RANK=0 timeout 60 $H comm --check-every 19 --check-only && wait $!",
               0, CHECKED);
}

TEST(launchers_that_do_not_fit_get_one_sentence)
{
    check_says(CLEAN "HEADWAY_RANK=0 $H comm 2>&1", 2, "HEADWAY_SIZE is not set; a rank needs");
    check_says(CLEAN "SLURM_STEP_NUM_TASKS=2 $H comm 2>&1", 2, "use srun --mpi=pmix");
    check_says(CLEAN "PMI_RANK=0 $H comm 2>&1", 2, "PMI_RANK is set, but PMI_SIZE is not");
    check_says(CLEAN "OMPI_COMM_WORLD_SIZE=2 $H comm 2>&1", 2, "but OMPI_COMM_WORLD_RANK is not");
    check_says(CLEAN "$H comm --transport mpi 2>&1", 2, "no MPI launcher started this process");
}

/* Starts four ranks that measure for long, and does something to one of them. */
#define DO_TO_ONE(signal, deadline)                                                                \
    CLEAN "o=$(mktemp); timeout 60 $H comm --ranks 4 --check-every 50 --deadline " deadline        \
          " --max-size 1GiB >$o 2>&1 & until grep -q 'bus GB/s' $o; do sleep 0.05; done; "         \
          "p=$(cat /proc/$!/task/*/children); set -- $(cat /proc/${p% }/task/*/children); "        \
          "kill -" signal " $2; wait $!; c=$?; cat $o; rm $o; exit $c"

TEST(a_rank_that_stops_has_a_name_and_an_exit_code)
{
    check_says(DO_TO_ONE("STOP", "0.5s"), 80, ", stopped) ");
}

TEST(a_rank_that_dies_has_a_name_and_an_exit_code)
{
    check_says(DO_TO_ONE("KILL", "20s"), 81, "died ");
}

/* What MPI libraries never free is not ours to find (for builds with AddressSanitizer). */
#define THEIR_LEAKS "export ASAN_OPTIONS=detect_leaks=0; "

/* Skips where the launcher or the module is missing. */
static void under_mpi(const char *library, const char *run)
{
    static struct outcome o;
    char line[1024];
    snprintf(line, sizeof line, "command -v mpirun.%s >/dev/null && "
             "[ -e \"$(dirname \"$H\")/headway-mpi-%s.so\" ]", library, library);
    run_shell(&o, line);
    if (o.code != 0)
        skip();
    static const char *const carriers[] = { "mpi", "auto" };
    for (int n = 2; n <= 4; n += 2) {
        for (int i = 0; i < 2; i++) {
            snprintf(line, sizeof line, CLEAN THEIR_LEAKS "timeout 120 %s -n %d $H comm "
                     "--check-every 19 --check-only --transport %s 2>&1", run, n, carriers[i]);
            char text[64];
            snprintf(text, sizeof text, "%d ranks, %s", n, i == 0 ? "mpi" : "shm");
            check_says(line, 0, text);
        }
    }
}

#define OPENMPI "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun.openmpi " \
                "--oversubscribe --bind-to none"

TEST(open_mpi_carries_calls)
{
    under_mpi("openmpi", OPENMPI);
}

TEST(mpich_carries_calls)
{
    under_mpi("mpich", "mpirun.mpich");
}

/* MPICH's launcher, made to look like Open MPI's: every process is a world of its own. */
TEST(a_library_that_does_not_fit_the_launcher_is_named)
{
    static struct outcome o;
    run_shell(&o, "command -v mpirun.mpich >/dev/null && "
                  "[ -e \"$(dirname \"$H\")/headway-mpi-openmpi.so\" ]");
    if (o.code != 0)
        skip();
    check_says(CLEAN THEIR_LEAKS "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                     "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 timeout 60 $H comm "
                     "--check-every 19 --check-only 2>&1", 2,
               "launcher and library do not belong together");
}

TEST(a_module_that_was_not_copied_is_named)
{
    check_says(CLEAN "d=$(mktemp -d); cp $H $d/headway; "
                     "PMI_RANK=0 PMI_SIZE=1 $d/headway comm 2>&1; c=$?; rm -r $d; exit $c", 2,
               "headway-mpi-mpich.so must lie beside the program");
}

/* One of two processes ends, or is alone, before MPI's start, where the other waits for it. */
TEST(a_start_without_the_others_ends)
{
    static struct outcome o;
    run_shell(&o, "command -v mpirun.mpich >/dev/null && "
                  "[ -e \"$(dirname \"$H\")/headway-mpi-mpich.so\" ]");
    if (o.code != 0)
        skip();
    run_shell(&o, CLEAN THEIR_LEAKS
                  "export H HEADWAY_START_SECONDS=2; timeout 30 mpirun.mpich -n 2 sh -c "
                  "'[ $PMI_RANK = 0 ] || exit 127; exec \"$H\" comm --check-only' 2>&1");
    if (o.code == 124 || !strstr(o.text, "2 processes were announced, but mpich did not find "
                                         "all of them within 2 s"))
        fail_msg("code %d: %s", o.code, o.text);
    check_says(CLEAN "PMI_RANK=0 PMI_SIZE=2 HEADWAY_START_SECONDS=x $H comm 2>&1", 2,
               "HEADWAY_START_SECONDS=x is not a number of seconds");
}

TEST_MAIN(ONE(ranks_of_this_machine_check_themselves), ONE(a_table_is_printed_once),
          ONE(ranks_find_each_other_by_address), ONE(launchers_that_do_not_fit_get_one_sentence),
          ONE(a_rank_that_stops_has_a_name_and_an_exit_code),
          ONE(a_rank_that_dies_has_a_name_and_an_exit_code),
          ONE(open_mpi_carries_calls), ONE(mpich_carries_calls),
          ONE(a_start_without_the_others_ends), ONE(a_module_that_was_not_copied_is_named),
          ONE(a_library_that_does_not_fit_the_launcher_is_named))
