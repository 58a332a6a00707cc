/* headway diagnose on recorded runs of machines that are not at hand: tests/vectors/records, which
 * tests/diagnose/make_fixtures.py writes. */
#include "cli/program.h"
#include "test.h"

#include "base/sys.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS SOURCE_DIR "/tests/vectors/records"

static int prepare(void **state)
{
    (void)state;
    setenv("D", "fixtures", 1);
    setenv("S", SOURCE_DIR, 1);
    sys_remove_tree("fixtures");
    sys_mkdirs("fixtures");
    return 0;
}

static json_t *diagnose(const char *name)
{
    char command[512];
    json_error_t error;
    snprintf(command, sizeof command, "$H diagnose " RECORDS "/%s --json 2>/dev/null", name);
    json_t *o = json_loads(shell(command, 0), 0, &error);
    if (!o)
        fail_msg("%s: %s", name, error.text);
    return o;
}

/* The first finding, which must be this one. */
static json_t *first(json_t *o, const char *id)
{
    json_t *f = json_array_get(json_object_get(o, "findings"), 0);
    const char *found = json_string_value(json_object_get(f, "id"));
    if (!found || strcmp(found, id) != 0)
        fail_msg("%s is named first, not %s: %s", found ? found : "nothing", id,
                 json_dumps(o, JSON_INDENT(1)));
    return f;
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    if (!json_is_number(x))
        fail_msg("no number %s in %s", key, json_dumps(o, 0));
    return json_number_value(x);
}

/* 513 of 772 thousand pages, most of them on the other node, at 10/21 of the speed; 8 ms of norms
 * forward and backward each, and 4 ms of an update, wait for memory. */
TEST(memory_on_another_node_is_told_by_where_pages_lie)
{
    json_t *o = diagnose("numa"), *f = first(o, "K5");
    const double far = 525888. / 790041;
    CHECK_NEAR(number(f, "lost_s"), 0.036 * far * (1 - 10. / 21), 2e-4);
    const json_t *gain = json_object_get(f, "gain_s");
    CHECK(json_number_value(json_array_get(gain, 0)) < 0.6 * number(f, "lost_s"));
    char *said = json_dumps(json_object_get(f, "evidence"), 0);
    CHECK(strstr(said, "67 % of its memory lies on NUMA nodes other than"));
    free(said);
    CHECK(strstr(json_string_value(json_object_get(f, "fix")), "numactl"));
    json_decref(o);
}

/* 30,000 faults from storage in 10 s, and some task stood still for 2 s of them. */
TEST(pages_that_come_back_from_swap_are_told_by_faults_and_pressure)
{
    json_t *o = diagnose("swap"), *f = first(o, "H7");
    char *said = json_dumps(json_object_get(f, "evidence"), 0);
    CHECK(strstr(said, "tasks stand still for memory in 20.0 %"));
    CHECK(strstr(said, "7.80 GiB of 8.00 GiB are in use"));
    free(said);
    json_decref(o);
}

/* Streams of a device are lanes: one sum of all gradients, behind the last of them, is told; copies
 * beside computing, which nobody waits for, are not. */
TEST(lanes_of_a_device_are_judged_as_lanes)
{
    json_t *o = diagnose("gpu"), *f = first(o, "C3");
    const char *lane = json_string_value(json_object_get(json_object_get(f, "place"), "lane"));
    CHECK_STR(lane ? lane : json_string_value(json_object_get(f, "lane")), "dp");
    CHECK_NEAR(number(f, "lost_s"), 0.0164, 5e-4);
    CHECK_EQ(json_array_size(json_object_get(o, "findings")), 1);
    json_decref(o);
}

TEST(other_commands_read_them_too)
{
    static const char *const names[] = { "numa", "swap", "gpu" };
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        char command[512];
        snprintf(command, sizeof command, "$H trace info " RECORDS "/%s 2>&1", names[i]);
        const char *said = shell(command, 0);
        CHECK(strstr(said, "40 steps recorded") && !strstr(said, "missing"));
        snprintf(command, sizeof command, "$H trace ladder " RECORDS "/%s 2>&1", names[i]);
        CHECK(strstr(shell(command, 0), "MFU 0."));
        snprintf(command, sizeof command, "$H trace export " RECORDS "/%s --out $D/%s.pftrace 2>&1",
                 names[i], names[i]);
        shell(command, 0);
    }
}

TEST(they_are_what_their_script_writes)
{
    shell("python3 -B $S/tests/diagnose/make_fixtures.py $D/again && "
          "for n in numa swap gpu; do diff -r $D/again/$n $S/tests/vectors/records/$n || exit 1; "
          "done", 0);
    sys_remove_tree("fixtures");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(memory_on_another_node_is_told_by_where_pages_lie),
        ONE(pages_that_come_back_from_swap_are_told_by_faults_and_pressure),
        ONE(lanes_of_a_device_are_judged_as_lanes), ONE(other_commands_read_them_too),
        ONE(they_are_what_their_script_writes),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
