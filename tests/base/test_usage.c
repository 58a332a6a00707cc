/* What the system counts: its texts, and that the counters move with what is done. */
#include "base/proc_text.h"
#include "base/sys.h"
#include "base/sys_usage.h"
#include "machine/speed.h"
#include "test.h"

TEST(texts_of_the_kernel_give_their_numbers)
{
    u64 a, b;
    char path[64];
    CHECK(proc_value("rchar: 5\nread_bytes: 4096\nwrite_bytes: 7\n", "read_bytes", &a));
    CHECK_EQ(a, 4096);
    CHECK(proc_value("nr_periods 9\nnr_throttled 3\nthrottled_time 12345\n", "nr_throttled", &a));
    CHECK_EQ(a, 3);
    CHECK(proc_schedstat("123456 789 42\n", &a, &b));
    CHECK(a == 123456 && b == 789);
    CHECK(proc_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=5551\n"
                        "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n", &a));
    CHECK_EQ(a, 5551);
    CHECK(proc_steal("cpu  1 2 3 4 5 6 7 88 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n", &a));
    CHECK_EQ(a, 88);
    CHECK(proc_resident("1000 250 80 1 0 90 0\n", &a));
    CHECK_EQ(a, 250);
    static const char groups[] = "5:cpuset:/x\n4:cpu,cpuacct:/batch/job 1\n0::/user.slice\n";
    CHECK(proc_cgroup(groups, "cpu", path, sizeof path));
    CHECK_STR(path, "/batch/job 1");
    CHECK(proc_cgroup(groups, NULL, path, sizeof path));
    CHECK_STR(path, "/user.slice");
}

/* Lines as Documentation/admin-guide and numa(5) describe them. */
TEST(memory_is_counted_by_the_node_on_which_it_lies)
{
    u64 near = 0, far = 0, distance;
    CHECK(proc_numa_line("7f12c0000000 default anon=512 dirty=512 active=0 N0=300 N1=212 "
                         "kernelpagesize_kB=4\n", 1, &near, &far));
    CHECK(near == 300 * 4096 && far == 212 * 4096);
    CHECK(proc_numa_line("7f2000000000 bind:1 anon=2 dirty=2 N1=2 kernelpagesize_kB=2048", 1, &near,
                         &far));
    CHECK(near == 300 * 4096 && far == 212 * 4096 + 2 * (2 << 20));
    CHECK(!proc_numa_line("7f3000000000 default file=/x.so mapped=9 N1=9 kernelpagesize_kB=4",
                          1, &near, &far)); /* others' too */
    CHECK(!proc_numa_line("7f4000000000 default", 1, &near, &far));
    CHECK(!proc_numa_line("7f5000000000 default anon=1 N99=1 kernelpagesize_kB=4", 1, &near, &far));
    CHECK(!proc_numa_line("7f6000000000 default anon=1 N1=x kernelpagesize_kB=4", 1, &near, &far));
    CHECK(near == 300 * 4096 && far == 212 * 4096 + 2 * (2 << 20));
    CHECK(proc_list_has("0-15,32-47\n", 15) && proc_list_has("0-15,32-47\n", 40));
    CHECK(proc_list_has("3\n", 3) && !proc_list_has("3\n", 0));
    CHECK(!proc_list_has("0-15,32-47\n", 16) && !proc_list_has("", 0) && !proc_list_has("x", 0));
    CHECK(proc_distance("10 21\n", 1, &distance));
    CHECK_EQ(distance, 21);
    CHECK(!proc_distance("10 21\n", 2, &distance));
}

/* Here there may be one node or several. */
TEST(where_memory_lies_is_told_on_machines_of_several_nodes_only)
{
    struct sys_numa n;
    if (!sys_numa_read(&n)) {
        CHECK(n.near_bytes + n.far_bytes == 0 || n.far_speed == 0);
        return;
    }
    CHECK(n.near_bytes + n.far_bytes > 0);
    CHECK(n.far_speed > 0 && n.far_speed < 1);
}

TEST(other_texts_give_none)
{
    u64 a = 7, b = 7;
    char path[8];
    CHECK(!proc_value("", "read_bytes", &a));
    CHECK(!proc_value("read_bytes_x: 5\n", "read_bytes", &a));
    CHECK(!proc_value("read_bytes: five\n", "read_bytes", &a));
    CHECK(!proc_value("read_bytes: 99999999999999999999999\n", "read_bytes", &a));
    CHECK(!proc_schedstat("123", &a, &b));
    CHECK(!proc_schedstat("1 2x", &a, &b));
    CHECK(!proc_pressure("full avg10=0.00 total=9\n", &a));
    CHECK(!proc_pressure("some avg10=0.00\nfull total=9\n", &a));
    CHECK(!proc_steal("cpu  1 2 3 4\n", &a));
    CHECK(!proc_steal("cpu0 1 2 3 4 5 6 7 8\n", &a));
    CHECK(!proc_cgroup("4:cpuset:/x\n", "cpu", path, sizeof path));
    CHECK(!proc_cgroup("0::/far/too/long\n", NULL, path, sizeof path));
    CHECK(!proc_cgroup("0::relative\n", NULL, path, sizeof path));
    CHECK(a == 7 && b == 7);
}

static struct sys_usage_reader *open_reader(void)
{
    const int thread = sys_thread_id();
    struct sys_usage_reader *r = sys_usage_open(&thread, 1);
    CHECK(r != NULL);
    return r;
}

TEST(touched_pages_are_faults_and_memory)
{
    enum { BYTES = 32 << 20, PAGE = 4096 };
    struct sys_usage_reader *r = open_reader();
    struct sys_usage before, after;
    sys_usage_read(r, true, &before);
    volatile char *memory = sys_map_pages(BYTES);
    CHECK(memory != NULL);
    for (i64 i = 0; i < BYTES; i += PAGE)
        memory[i] = 1;
    sys_usage_read(r, true, &after);
    CHECK(after.has & SYS_USAGE_PROCESS && after.has & SYS_USAGE_MEMORY);
    CHECK(after.minor_faults > before.minor_faults); /* pages may be huge */
    CHECK(after.rss_bytes >= before.rss_bytes + BYTES / 2);
    sys_unmap((void *)(uintptr_t)memory, BYTES);
    sys_usage_close(r);
}

TEST(computing_is_time_on_a_processor)
{
    struct sys_usage_reader *r = open_reader();
    struct sys_usage before, after;
    sys_usage_read(r, false, &before);
    double begin = sys_thread_cpu_seconds();
    while (sys_thread_cpu_seconds() - begin < 0.03)
        speed_probe_ns(1);
    sys_usage_read(r, false, &after);
    CHECK(after.user_ns + after.system_ns > before.user_ns + before.system_ns);
    if (after.has & SYS_USAGE_SCHED) /* the scheduler's statistics may be left out of a kernel */
        CHECK(after.run_ns - before.run_ns >= 25 * 1000 * 1000);
    sys_usage_close(r);
}

/* Nothing of it is needed: what cannot be opened is not there. */
TEST(what_cannot_be_read_is_left_out)
{
    struct sys_usage u;
    CHECK_EQ(sys_fault_arm("open:1:EACCES:repeat"), 0);
    struct sys_usage_reader *r = open_reader();
    sys_usage_read(r, true, &u);
    CHECK_EQ(u.has, SYS_USAGE_PROCESS);
    sys_usage_close(r);
    CHECK_EQ(sys_fault_arm(NULL), 0);
    r = open_reader();
    CHECK_EQ(sys_fault_arm("read:1:EIO:repeat"), 0);
    sys_usage_read(r, true, &u);
    CHECK_EQ(u.has, SYS_USAGE_PROCESS);
    CHECK_EQ(sys_fault_arm(NULL), 0);
    sys_usage_close(r);
}

/* Cheap enough to be taken behind every step of a tenth of a second: the best of many, since a busy
 * machine makes all of them longer. */
TEST(a_reading_takes_a_tenth_of_a_millisecond)
{
    struct sys_usage_reader *r = open_reader();
    struct sys_usage u;
    u64 least = UINT64_MAX;
    for (int i = 0; i < 200; i++) {
        u64 begin = sys_now_ns();
        sys_usage_read(r, false, &u);
        u64 took = sys_now_ns() - begin;
        least = took < least ? took : least;
    }
    print_message("a reading takes %.1f us, the clock's probe %.1f us\n", 1e-3 * (double)least,
                  1e-3 * (double)speed_probe_ns(100));
    CHECK(least < 100 * 1000);
    sys_usage_close(r);
}

TEST(the_probe_of_the_clock_repeats)
{
    double a = (double)speed_probe_ns(200), b = (double)speed_probe_ns(200);
    CHECK(a > 1000 && a < 1e6);
    CHECK(a < 2 * b && b < 2 * a); /* a clock may change in between, but not by so much */
}

TEST_MAIN(ONE(texts_of_the_kernel_give_their_numbers),
          ONE(memory_is_counted_by_the_node_on_which_it_lies),
          ONE(where_memory_lies_is_told_on_machines_of_several_nodes_only),
          ONE(other_texts_give_none),
          ONE(touched_pages_are_faults_and_memory), ONE(computing_is_time_on_a_processor),
          ONE(what_cannot_be_read_is_left_out), ONE(a_reading_takes_a_tenth_of_a_millisecond),
          ONE(the_probe_of_the_clock_repeats))
