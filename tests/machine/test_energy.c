/* Energy: counters in a folder made here, a processor described here, sums over nodes. */
#include "test.h"

#include "base/sys.h"
#include "machine/energy.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>

#define TREE "energy-tree"

static void put(const char *path, const char *text)
{
    char full[256], folder[256];
    snprintf(full, sizeof full, TREE "/%s", path);
    snprintf(folder, sizeof folder, "%s", full);
    *strrchr(folder, '/') = '\0';
    CHECK_EQ(sys_mkdirs(folder), 0);
    int fd = sys_open(full, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && sys_write_full(fd, text, (i64)strlen(text)) == 0);
    sys_close(fd);
}

static void put_count(const char *zone, i64 uj)
{
    char path[128], text[32];
    snprintf(path, sizeof path, "%s/energy_uj", zone);
    snprintf(text, sizeof text, "%lld\n", (long long)uj);
    put(path, text);
}

static void put_zone(const char *zone, const char *name, i64 uj, const char *range)
{
    char path[128], line[64];
    snprintf(path, sizeof path, "%s/name", zone);
    snprintf(line, sizeof line, "%s\n", name);
    put(path, line);
    snprintf(path, sizeof path, "%s/max_energy_range_uj", zone);
    put(path, range);
    put_count(zone, uj);
}

/* Two packages, the second shown first, and everything that must not be summed. */
static void put_server(void)
{
    sys_remove_tree(TREE);
    put_zone("intel-rapl:0", "package-1", 5000000, "262143328850\n");
    put_zone("intel-rapl:0:0", "core", 1, "262143328850\n");
    put_zone("intel-rapl:0:1", "dram", 10, "65712999613\n");
    put_zone("intel-rapl:1", "package-0", 9000000, "10000000\n");
    put_zone("intel-rapl:1:0", "uncore", 1, "262143328850\n");
    put_zone("intel-rapl:2", "psys", 1, "262143328850\n");
    put_zone("intel-rapl-mmio:0", "package-0", 100, "262143328850\n");
    put("intel-rapl/enabled", "1\n");
}

static const u64 second = 1000000000;

TEST(packages_and_their_memory_are_summed_once_and_wraps_are_seen)
{
    struct powercap p;
    put_server();
    powercap_open(&p, TREE, 0);
    CHECK_EQ(p.n, 3); /* which of the two package-0 is the drivers' business: the first */
    put_count("intel-rapl:0", 7000000);         /* 2 J */
    put_count("intel-rapl:0:0", 900000000);     /* core: no */
    put_count("intel-rapl:0:1", 500010);        /* 0.5 J */
    put_count("intel-rapl:1", 1000000);         /* 1 J to its end, 1 J after it */
    put_count("intel-rapl:2", 900000000);       /* psys: not beside packages */
    put_count("intel-rapl-mmio:0", 3000100);    /* if this one is taken: 3 J */
    CHECK(powercap_read(&p, second / 1000));
    bool mmio = strstr(p.zone[0].path, "mmio") != NULL;
    CHECK_NEAR(p.joules, mmio ? 5.5 : 4.5, 1e-9);
    CHECK_NEAR(p.unsure_j, 0, 0);
    CHECK(powercap_read(&p, 2 * second / 1000));
    CHECK_NEAR(p.joules, mmio ? 5.5 : 4.5, 1e-9);
}

TEST(a_gap_in_which_a_counter_may_have_gone_around_is_told)
{
    struct powercap p;
    sys_remove_tree(TREE);
    put_zone("intel-rapl:0", "package-0", 9000000, "10000000\n");
    powercap_open(&p, TREE, 0);
    put_count("intel-rapl:0", 2000000);
    CHECK(powercap_read(&p, second)); /* 1000 W could have filled 10 J a hundred times */
    CHECK_NEAR(p.joules, 3, 1e-9);
    CHECK_NEAR(p.unsure_j, 10, 1e-9);
}

TEST(the_board_counts_where_no_package_does)
{
    struct powercap p;
    sys_remove_tree(TREE);
    put_zone("intel-rapl:0", "psys", 1000000, "262143328850\n");
    put_zone("intel-rapl:0:0", "core", 1000000, "262143328850\n");
    powercap_open(&p, TREE, 0);
    CHECK_EQ(p.n, 1);
    put_count("intel-rapl:0", 3500000);
    CHECK(powercap_read(&p, second));
    CHECK_NEAR(p.joules, 2.5, 1e-9);
}

static void expect_nothing(const char *why)
{
    struct powercap p;
    powercap_open(&p, TREE, 0);
    CHECK_EQ(p.n, 0);
    if (!strstr(p.why, why))
        fail_msg("\"%s\" does not say \"%s\"", p.why, why);
    CHECK(!powercap_read(&p, second) && p.joules == 0);
}

/* One package of two would be half the truth. */
TEST(a_counter_that_is_missing_damaged_or_forbidden_leaves_all_uncounted)
{
    sys_remove_tree(TREE);
    expect_nothing("No such file");
    CHECK_EQ(sys_mkdirs(TREE), 0);
    expect_nothing("has no counter");
    put_server();
    sys_unlink(TREE "/intel-rapl:0/energy_uj");
    expect_nothing("intel-rapl:0/energy_uj: No such file");
    put_server();
    sys_unlink(TREE "/intel-rapl:0/max_energy_range_uj");
    expect_nothing("No such file");
    put_server();
    put("intel-rapl:0/energy_uj", "many\n");
    expect_nothing("Invalid argument");
    sys_remove_tree(TREE);
    put_zone("intel-rapl:0", "package-0", 1, "262143328850\n");
    sys_fault_arm("open:2:EACCES"); /* the name, then the counter */
    expect_nothing("Permission denied; root may allow it");
    sys_fault_arm(NULL);
}

static void put_cpuinfo(const char *name, int siblings, bool guest)
{
    char text[512];
    snprintf(text, sizeof text, "processor\t: 0\nmodel name\t: %s\nsiblings\t: %d\n"
             "flags\t\t: fpu avx2%s\n\nprocessor\t: 1\nmodel name\t: other\n", name, siblings,
             guest ? " hypervisor" : "");
    put("cpuinfo", text);
}

static struct energy_processor processor(const char *name, int siblings, bool guest)
{
    struct energy_processor p;
    put_cpuinfo(name, siblings, guest);
    energy_processor_read(&p, TREE "/cpuinfo");
    CHECK_STR(p.name, name);
    return p;
}

TEST(a_thread_has_its_share_of_the_socket)
{
    struct energy_processor p = processor("AMD EPYC 7742 64-Core Processor", 2, true);
    CHECK(p.known);
    CHECK_NEAR(p.watts, 225.0 / 128, 1e-12); /* what the guest sees of the socket says nothing */
    p = processor("AMD EPYC 7742 64-Core Processor", 64, false); /* without SMT */
    CHECK_NEAR(p.watts, 225.0 / 64, 1e-12);
    CHECK_NEAR(processor("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 12, false).watts,
               95.0 / 12, 1e-12);
    CHECK_NEAR(processor("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", 12, false).watts,
               65.0 / 12, 1e-12);
    CHECK(processor("Intel(R) Xeon(R) Platinum 8480+", 112, false).known);
    p = processor("AMD EPYC", 2, true);
    CHECK(!p.known && p.watts == energy_usual_watts() && p.watts > 1 && p.watts < 8);
    energy_processor_read(&p, TREE "/nowhere");
    CHECK(!p.known);
    CHECK_STR(p.name, "unknown");
}

TEST(the_model_is_the_fitted_curve)
{
    CHECK_NEAR(energy_model_watts(2, 8, 0), 16 * 0.16, 1e-12);
    CHECK_NEAR(energy_model_watts(2, 8, 1), 16 * 0.72, 1e-12);
    CHECK_NEAR(energy_model_watts(2, 8, 7), 16 * 0.72, 1e-12);
    CHECK_NEAR(energy_model_watts(2, 8, 0.5), 16 * (0.16 + 0.56 * pow(0.5, 0.6)), 1e-12);
}

/* Ranks 0 and 1 on a node that models, 2 and 3 on one that counts. */
static void two_nodes(struct energy_sample now[4], struct energy_sample before[4])
{
    for (i64 r = 0; r < 4; r++) {
        before[r] = (struct energy_sample){ .node = r < 2 ? 0 : 2, .seconds = 1, .quota = 100,
                                            .watts = 2, .known = 1, .cpus = { 0xf } };
        now[r] = before[r];
        now[r].seconds = 11;
        now[r].cpu_seconds = 20;
        now[r].flops = 1e9;
        now[r].bytes = 1e8;
    }
    now[2].counts = before[2].counts = 1;
    before[2].counted_j = 50;
    now[2].counted_j = 250;
    now[3].counted_j = 1e9; /* no meter of its own */
    now[3].gpu_j = 1e9;
    now[2].gpu_j = 30;
    before[2].unsure_j = 1;
    now[2].unsure_j = 8;
}

TEST(each_node_is_metered_once_and_all_are_summed)
{
    struct energy_sample now[4], before[4];
    struct energy_total t = { 0 };
    char text[80];
    two_nodes(now, before);
    energy_add(&t, before, now, 4);
    double model = 10 * energy_model_watts(2, 4, 1); /* 2 ranks x 20 s of 4 cpus x 10 s */
    CHECK_NEAR(t.j, model + 200 + 30, 1e-9);
    CHECK_NEAR(t.lo, 0.5 * model + 0.95 * 230, 1e-9);
    CHECK_NEAR(t.hi, 2.5 * model + 1.05 * 230 + 7, 1e-9);
    CHECK_NEAR(t.gpu_j, 30, 0);
    CHECK_NEAR(t.seconds, 10, 0);
    CHECK_NEAR(t.core_seconds, 80, 0);
    CHECK_NEAR(t.flops, 4e9, 0);
    CHECK_NEAR(t.bytes, 4e8, 0);
    energy_method_text(t.methods, text, sizeof text);
    CHECK_STR(text, "powercap+tdp-model+nvml");
    CHECK_STR(energy_scope(t.methods), "node+process");
    energy_add(&t, now, now, 4); /* nothing has happened since */
    CHECK_NEAR(t.j, model + 230, 1e-9);
}

TEST(ranks_with_processors_of_their_own_share_a_node_and_a_quota_limits_it)
{
    struct energy_sample now[4], before[4];
    struct energy_total t = { 0 };
    two_nodes(now, before);
    now[1].cpus[0] = 0xf0;
    energy_add(&t, before, now, 2);
    CHECK_NEAR(t.j, 10 * energy_model_watts(2, 8, 0.5), 1e-9);
    now[0].quota = now[1].quota = 2;
    t = (struct energy_total){ 0 };
    energy_add(&t, before, now, 2);
    CHECK_NEAR(t.j, 10 * energy_model_watts(2, 2, 1), 1e-9);
    now[0].known = 0;
    t = (struct energy_total){ 0 };
    energy_add(&t, before, now, 2);
    CHECK_NEAR(t.lo, t.j / 5, 1e-9);
    CHECK_NEAR(t.hi, t.j * 5, 1e-9);
    CHECK_EQ(t.methods, ENERGY_GUESSED);
}

TEST(a_counter_that_goes_away_leaves_the_rest_to_the_model)
{
    struct energy_sample now[4], before[4];
    struct energy_total t = { 0 };
    two_nodes(now, before);
    now[2].counts = 0;
    energy_add(&t, before, now, 4);
    CHECK_EQ(t.methods, ENERGY_MODELLED | ENERGY_GPU);
}

TEST(a_meter_counts_from_where_it_was_opened)
{
    const struct energy_places at = { TREE, TREE "/cpuinfo", FAKE_NVML };
    struct energy_meter m;
    struct energy_sample a, b;
    put_server();
    put_cpuinfo("AMD EPYC 7742 64-Core Processor", 128, true);
    energy_meter_open(&m, &at);
    CHECK_EQ(m.nvml.n, 2);
    energy_meter_sit(&m, 3, 3);
    energy_meter_sample(&m, &a);
    put_count("intel-rapl:0", 8000000);
    energy_meter_poll(&m, m.read_ns + second);
    CHECK_NEAR(m.powercap.joules, a.counted_j, 0); /* not due */
    energy_meter_poll(&m, m.read_ns + 31 * second);
    CHECK_NEAR(m.powercap.joules, a.counted_j + 3, 1e-9);
    energy_meter_sample(&m, &b);
    CHECK_NEAR(b.counted_j - a.counted_j, 3, 1e-9);
    CHECK_NEAR(b.gpu_j - a.gpu_j, 2 * 2 * 1.5, 1e-9); /* two readings of two GPUs */
    CHECK(b.counts && b.known && b.node == 3 && b.cpu_seconds >= a.cpu_seconds);
    CHECK(b.cpus[0] != 0 && b.seconds > a.seconds);
    sys_unlink(TREE "/intel-rapl:0/energy_uj");
    energy_meter_sample(&m, &b);
    CHECK(!b.counts && strstr(m.powercap.why, "No such file"));
    energy_meter_open(&m, &at);
    energy_meter_sit(&m, 0, 1); /* another rank of the node has the meter */
    energy_meter_sample(&m, &b);
    CHECK(b.gpu_j == 0 && b.counted_j == 0);
}

TEST(without_the_library_no_gpu_counts_and_it_is_said_why)
{
    struct nvml v;
    nvml_open(&v, "./no-such-library.so");
    CHECK(v.n == 0 && strstr(v.why, "no-such-library"));
}

TEST_MAIN(ONE(packages_and_their_memory_are_summed_once_and_wraps_are_seen),
          ONE(a_gap_in_which_a_counter_may_have_gone_around_is_told),
          ONE(the_board_counts_where_no_package_does),
          ONE(a_counter_that_is_missing_damaged_or_forbidden_leaves_all_uncounted),
          ONE(a_thread_has_its_share_of_the_socket), ONE(the_model_is_the_fitted_curve),
          ONE(each_node_is_metered_once_and_all_are_summed),
          ONE(ranks_with_processors_of_their_own_share_a_node_and_a_quota_limits_it),
          ONE(a_counter_that_goes_away_leaves_the_rest_to_the_model),
          ONE(a_meter_counts_from_where_it_was_opened),
          ONE(without_the_library_no_gpu_counts_and_it_is_said_why))
