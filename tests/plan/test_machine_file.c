/* Machines as data: all that are shipped load, lines say the same again, and what data sheets
 * double is refused with the sentence that helps. */
#include "test.h"

#include "base/csv.h"
#include "base/err.h"
#include "plan/machine_file.h"
#include "plan/quantity.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

static struct arena arena;

/* The tests run elsewhere; names are then looked up where the sources are. */
TEST(every_machine_and_device_loads)
{
    for (int devices = 0; devices < 2; devices++) {
        const char **names;
        i64 n;
        CHECK_OK(plan_machine_names(devices, &names, &n, &arena));
        CHECK(n >= (devices ? 26 : 8));
        for (i64 i = 0; i < n; i++) {
            struct plan_machine m;
            CHECK_OK(plan_machine_load(&m, names[i], &arena));
            CHECK_STR(m.name, names[i]);
            CHECK(m.device.peak[plan_half_dtype(&m.device)] > 1e10 && m.n_facts > 3);
            for (i64 f = 0; f < m.n_facts; f++) /* every value has a source */
                if (!m.facts[f].source)
                    fail_msg("%s: %s has no source", names[i], m.facts[f].key);
        }
    }
}

TEST(a_line_says_what_a_file_says)
{
    const char **names;
    i64 n;
    CHECK_OK(plan_machine_names(false, &names, &n, &arena));
    for (i64 i = 0; i < n; i++) {
        struct plan_machine file, line;
        CHECK_OK(plan_machine_load(&file, names[i], &arena));
        if (file.device.link_bytes_per_s == 0)
            continue;
        const char *text = plan_machine_text(&file, &arena);
        if (!strcmp(file.device.name, "laptop-cpu"))
            continue; /* described in its file */
        CHECK_OK(plan_machine_load(&line, text, &arena));
        CHECK_STR(plan_machine_text(&line, &arena), text);
        CHECK_EQ(line.n_tiers, file.n_tiers);
        CHECK_EQ(line.node_ranks, file.node_ranks);
        for (int t = 0; t < file.n_tiers; t++) {
            CHECK_EQ(line.tiers[t].ranks, file.tiers[t].ranks);
            CHECK_NEAR(line.tiers[t].bytes_per_s.mid / file.tiers[t].bytes_per_s.mid, 1, 1e-5);
            CHECK_EQ(line.tiers[t].wiring, file.tiers[t].wiring);
            CHECK_NEAR(line.tiers[t].sum_latency_s, file.tiers[t].sum_latency_s, 1e-9);
            CHECK_NEAR(line.tiers[t].piece_bytes, file.tiers[t].piece_bytes, 1);
            CHECK_EQ(line.tiers[t].reached, file.tiers[t].reached);
        }
    }
}

TEST(a_line_counts_outwards)
{
    struct plan_machine m;
    CHECK_OK(plan_machine_load(&m, "h100-sxm node:8 pod:32x25GB/s~8us/2 all:*+rail price=4.2USD/h "
                               "pue=1.1 at=FRA", &arena));
    CHECK_EQ(m.n_tiers, 3);
    CHECK_EQ(m.tiers[0].ranks, 8);
    CHECK_EQ(m.tiers[1].ranks, 256);
    CHECK(m.unlimited && m.tiers[2].wiring == PLAN_RAIL);
    CHECK_NEAR(m.tiers[0].bytes_per_s.mid, 450e9, 1); /* the device's */
    CHECK_NEAR(m.tiers[1].bytes_per_s.mid, 25e9, 1);
    CHECK_NEAR(m.tiers[1].latency_s.mid, 8e-6, 1e-12);
    CHECK_NEAR(m.tiers[1].oversubscription, 2, 0);
    CHECK_NEAR(m.tiers[0].latency_s.mid, 3e-6, 1e-12); /* assumed */
    CHECK(m.tiers[0].latency_assumed && !m.tiers[1].latency_assumed);
    CHECK_NEAR(m.price_per_hour, 4.2, 1e-12);
    CHECK_STR(m.currency, "USD");
    CHECK_OK(plan_machine_room(&m, 100000));
    CHECK_OK(plan_machine_load(&m, "h100-sxm node:8 pod:2~1us", &arena));
    CHECK_NEAR(m.tiers[0].latency_s.mid, 1e-6, 1e-12); /* no more than outside */
    CHECK_OK(plan_machine_load(&m, "h100-sxm", &arena));
    CHECK_FAILS(plan_machine_room(&m, 2), ERR_USAGE, "describe how they are joined");
}

/* "A100-SXM-80GB" and a100-sxm-80gb are one; names may be shorter: h100-sxm. */
static bool same_name(const char *file, const char *row)
{
    for (; *file; file++, row++)
        if (tolower((unsigned char)*row) != *file && !(*row == ' ' && *file == '-'))
            return false;
    return *row == '\0' || *row == '-' || *row == ' ';
}

static void check_cell(const struct csv *t, i64 row, const char *column, double scale,
                       double value)
{
    const char *cell = csv_cell(t, row, csv_column(t, column));
    if (!*cell)
        return;
    if (fabs(strtod(cell, NULL) * scale - value) > 1e-6 * value)
        fail_msg("%s of %s: %s in facts/hardware.csv, %g in machines/devices/", column,
                 csv_cell(t, row, 0), cell, value / scale);
}

TEST(devices_are_those_of_the_facts)
{
    struct csv t;
    const char **names;
    i64 n, matched = 0;
    CHECK_OK(csv_load(SOURCE_DIR "/facts/hardware.csv", &arena, &t));
    CHECK_OK(plan_machine_names(true, &names, &n, &arena));
    for (i64 row = 0; row < t.n_rows; row++)
        for (i64 i = 0; i < n; i++) {
            struct plan_machine m;
            if (!same_name(names[i], csv_cell(&t, row, 0)))
                continue;
            CHECK_OK(plan_machine_load(&m, names[i], &arena));
            const struct plan_device *d = &m.device;
            check_cell(&t, row, "fp16_dense_tflops", 1e12, d->peak[PLAN_FP16]);
            check_cell(&t, row, "bf16_dense_tflops", 1e12, d->peak[PLAN_BF16]);
            check_cell(&t, row, "fp8_dense_tflops", 1e12, d->peak[PLAN_FP8]);
            check_cell(&t, row, "fp32_vector_tflops", 1e12, d->peak[PLAN_FP32]);
            check_cell(&t, row, "max_achieved_matmul_bf16_tflops", 1e12, d->reached[PLAN_BF16]);
            check_cell(&t, row, "mem_gb", 1e9, d->memory_sold_bytes);
            check_cell(&t, row, "mem_bw_gbs", 1e9, d->memory_bytes_per_s);
            check_cell(&t, row, "intra_node_uni_gbs_per_gpu", 1e9, d->link_bytes_per_s);
            check_cell(&t, row, "inter_node_gbs_per_gpu", 1e9, d->network_bytes_per_s);
            check_cell(&t, row, "tdp_w", 1, d->peak_w);
            matched++;
        }
    CHECK_EQ(matched, 26);
}

static const char good_device[] =
    "device:\n"
    "  peak: {bf16: 500 TFLOP/s dense}\n"
    "  memory: {size: 40 GiB, rate: 1000 GB/s}\n"
    "  link: {node: 100 GB/s one-way, network: 10 GB/s one-way}\n"
    "tiers:\n"
    "  - {name: node, size: 8 devices}\n"
    "  - {name: pod, size: 32 nodes, latency: {value: 8 us, lo: 4 us, hi: 20 us}}\n";

/* The machine above with `from` replaced. */
static int read_with(struct plan_machine *m, const char *from, const char *to)
{
    const struct yaml_node *root;
    const char *at = strstr(good_device, from);
    CHECK(at != NULL);
    const char *text = arena_printf(&arena, "%.*s%s%s", (int)(at - good_device), good_device, to,
                                    at + strlen(from));
    TRY(yaml_parse(text, (i64)strlen(text), "my.yaml", &arena, &root));
    return plan_machine_read(m, root, &arena);
}

TEST(a_good_file_is_read)
{
    struct plan_machine m;
    CHECK_OK(read_with(&m, "tiers", "tiers"));
    CHECK_NEAR(m.device.memory_bytes, 40 * 0x1p30, 1);
    CHECK_NEAR(m.tiers[1].bytes_per_s.mid, 10e9, 1);
    CHECK_NEAR(m.tiers[1].latency_s.hi, 20e-6, 1e-12);
    CHECK_EQ(m.tiers[1].ranks, 256);
    CHECK_OK(read_with(&m, "40 GiB", "40 GB"));
    CHECK_NEAR(m.device.memory_bytes, 40e9, 1);
    CHECK_OK(read_with(&m, "10 GB/s one-way", "80 Gb/s one-way")); /* bits */
    CHECK_NEAR(m.tiers[1].bytes_per_s.mid, 10e9, 1);
}

TEST(traps_of_data_sheets_are_refused)
{
    static const struct { const char *from, *to, *says; } traps[] = {
        { "500 TFLOP/s dense", "1000 TFLOP/s sparse", "give the dense peak, usually half: 500" },
        { "500 TFLOP/s dense", "500 TFLOP/s", "does not say whether it is dense" },
        { "500 TFLOP/s dense", "500", "has no unit" },
        { "500 TFLOP/s dense", "500 TFLOPS dense", "did you mean 'TFLOP/s'?" },
        { "{bf16: 500 TFLOP/s dense}", "{bf16: 500 TFLOP/s dense, fp8: 2000 TFLOP/s dense}",
          "looks like the peak with 2:4 sparsity" },
        { "  memory", "  reached: {bf16: 200 TFLOP/s}\n  memory", "with 2:4 sparsity" },
        { "  memory", "  reached: {bf16: 600 TFLOP/s}\n  memory", "is above peak.bf16" },
        { "500 TFLOP/s dense}\n  memory: {size: 40 GiB, rate: 1000 GB/s",
          "1979 TFLOP/s dense}\n  memory: {size: 80 GB, rate: 3350 GB/s",
          "twice that of h100-sxm" },
        { "500 TFLOP/s dense}\n  memory: {size: 40 GiB, rate: 1000 GB/s}\n  link: {node: 100",
          "989 TFLOP/s dense}\n  memory: {size: 80 GB, rate: 3350 GB/s}\n  link: {node: 900",
          "adds up both directions. One way it is 450 GB/s" },
        { "500 TFLOP/s dense}\n  memory: {size: 40 GiB, rate: 1000 GB/s",
          "989 TFLOP/s dense}\n  memory: {size: 80 GiB, rate: 3350 GB/s", "has 80 GB (1e9 bytes)" },
        { "rate: 1000 GB/s", "rate: 1000 TB/s", "Probably it is 1 TB/s" },
        { "rate: 1000 GB/s", "rate: 1 GB/s", "mixed up? Probably it is 1 TB/s" },
        { "size: 40 GiB", "size: 40 TB", "Probably it is 40 GB" },
        { "  memory", "  power: {peak: 700 kW}\n  memory", "Probably it is 700 W" },
        { "network: 10 GB/s", "network: 400 GB/s", "Probably it is 50 GB/s" },
        { "  peak: {bf16: 500 TFLOP/s dense}\n  memory: {size: 40 GiB",
          "  name: H100\n  peak: {bf16: 500 TFLOP/s dense}\n  memory: {size: 80 GiB",
          "has 80 GB (1e9 bytes)" },
        { "  peak: {bf16: 500 TFLOP/s dense}\n  memory: {size: 40 GiB, rate: 1000 GB/s}\n  link: "
          "{node: 100 GB/s one-way, network: 10",
          "  name: v100-sxm2\n  peak: {bf16: 500 TFLOP/s dense}\n  memory: {size: 40 GiB, rate: "
          "1000 GB/s}\n  link: {node: 100 GB/s one-way, network: 100", "sends 100 Gb/s (bits)" },
        { "100 GB/s one-way", "200 GB/s both ways", "give what goes one way: 100 GB/s" },
        { "100 GB/s one-way", "200 GB/s bidirectional", "give what goes one way" },
        { "100 GB/s one-way", "100 GB/s", "does not say in which direction" },
        { "40 GiB", "40G", "is neither GB (1000s) nor GiB (1024s)" },
        { "40 GiB", "40 Gb", "is neither GB (1000s) nor GiB (1024s)" },
        { "40 GiB", "40", "has no unit" },
        { "40 GiB", "-40 GiB", "does not begin with a number" },
        { "size: 40 GiB", "size: 40 GB, usable: 44 GiB", "are both in the units" },
        { "memory:", "memmory:", "did you mean 'memory" },
        { "rate: 1000", "rat: 1000", "did you mean 'memory.rate'" },
        { "tiers:", "tier:", "did you mean 'tiers'" },
        { "size: 8 devices", "size: 8", "write '8 devices'; every quantity has its unit" },
        { "size: 32 nodes", "size: 256 devices", "write '256 nodes'" },
        { "size: 8 devices", "bandwidth: 50 GB/s one-way",
          "has no size, so nothing can be around" },
        { "size: 32 nodes", "size: 1 node", "has one 'node'" },
        { "size: 32 nodes", "size: 32 nodes, bandwidth: 99 GB/s one-way, oversubscription: 0.5",
          "is below 1" },
        { "size: 32 nodes", "size: 32 nodes, bandwidth: 200 GB/s one-way", "both directions" },
        { "size: 8 devices", "size: 8 devices, bandwidth: 5 GB/s one-way",
          "outer tiers are not faster" },
        { "size: 8 devices", "size: 8 devices, latency: 50 us", "cannot be quicker" },
        { "lo: 4 us", "lo: 9 us", "lo must not be above" },
        { "size: 32 nodes", "size: 32 nodes, wiring: ring", "it is switch" },
        { "8 us,", "8,", "has no unit" },
        { "hi: 20 us", "hi: 20 s", "latencies up to 10 s" },
    };
    for (i64 i = 0; i < COUNT_OF(traps); i++) {
        struct plan_machine m;
        CHECK_FAILS(read_with(&m, traps[i].from, traps[i].to), ERR_CONFIG, traps[i].says);
    }
}

TEST(lines_that_say_nothing_sensible_are_refused)
{
    static const struct { const char *line, *says; } lines[] = {
        { "h100-sxn node:8", "did you mean 'h100-sxm'" },
        { "h100-sxm node 8", "'node' is no tier" },
        { "h100-sxm node:0", "is no tier" },
        { "h100-sxm node:8 pod:32x50", "has no unit" },
        { "h100-sxm node:8x900GB/s", "both directions" },
        { "h100-sxm node:8 pod:*x50GB/s all:2", "nothing is around it" },
        { "h100-sxm node:8 pod:4x50GB/s~8", "has no unit" },
        { "h100-sxm node:8 pod:4x50GB/s~8min", "latencies up to 10 s" },
        { "h100-sxm node:8 pod:4x50GB/s+torus4", "is no tier" },
        { "h100-sxm node:8 pod:4x50GB/s+pieces1B", "were timed" },
        { "h100-sxm node:8 pod:4x50GB/s+pieces256", "has no unit" },
        { "h100-sxm node:8 pod:4x50GB/s+sum9e9s", "were timed" },
        { "h100-sxm node:8 pod:4x50GB/s+sumup", "is no tier" },
        { "h100-sxm node:8 prize=3USD/h", "no such setting" },
        { "h100-sxm node:8 price=3", "is no price" },
        { "h100-sxm node:8 host:3 pod:2", "do not fill" },
    };
    for (i64 i = 0; i < COUNT_OF(lines); i++) {
        struct plan_machine m;
        CHECK_FAILS(plan_machine_load(&m, lines[i].line, &arena), ERR_CONFIG, lines[i].says);
    }
}

TEST(quantities_read_back)
{
    static const enum quantity kinds[] = { QUANTITY_PEAK, QUANTITY_FLOPS, QUANTITY_BYTES,
                                           QUANTITY_RATE, QUANTITY_LINK, QUANTITY_SECONDS,
                                           QUANTITY_WATTS, QUANTITY_RATIO };
    for (i64 k = 0; k < COUNT_OF(kinds); k++)
        for (double value = 3.125e-3; value < 1e15; value *= 8) {
            char text[64];
            double again;
            quantity_text(value, kinds[k], text, sizeof text);
            CHECK_OK(quantity_parse(text, kinds[k], "here", &again, NULL));
            CHECK_NEAR(again / value, 1, 1e-3);
        }
}

/* Hexadecimal numbers are slips; an x in what is counted is none. */
TEST(what_is_counted_may_have_any_letter)
{
    double value;
    const char *of;
    CHECK_OK(quantity_parse("2 sixteens", QUANTITY_COUNT, "here", &value, &of));
    CHECK_NEAR(value, 2, 0);
    CHECK_STR(of, "sixteens");
    CHECK_FAILS(quantity_parse("0x10 nodes", QUANTITY_COUNT, "here", &value, &of), ERR_CONFIG,
                "begin with a number");
}

int main(void)
{
    const struct CMUnitTest all[] = {
        ONE(every_machine_and_device_loads), ONE(a_line_says_what_a_file_says),
        ONE(devices_are_those_of_the_facts), ONE(a_line_counts_outwards), ONE(a_good_file_is_read),
        ONE(traps_of_data_sheets_are_refused), ONE(lines_that_say_nothing_sensible_are_refused),
        ONE(quantities_read_back), ONE(what_is_counted_may_have_any_letter),
    };
    arena_init(&arena);
    int failed = cmocka_run_group_tests(all, NULL, NULL);
    arena_fini(&arena);
    return failed;
}
