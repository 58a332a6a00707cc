/* Kernels and memory from a step that is written down here. */
#include "test.h"

#include "base/json.h"
#include "report/kernels.h"
#include "report/run_record.h"
#include "report/step_memory.h"

/* weight (kept), input, hidden, gradient: two micro-batches, hidden has two places. */
static struct record_tensor tensors[] = {
    { .name = "weight", .bytes = 100, .slots = 1 }, { .name = "input", .bytes = 10, .slots = 1 },
    { .name = "hidden", .bytes = 40, .slots = 2 },
    { .name = "gradient", .bytes = 100, .slots = 1 },
};
enum { WEIGHT, INPUT, HIDDEN, GRADIENT };
static struct record_task tasks[] = {
    { .op = "load_batch", .layer = -1, .n_writes = 1, .writes = { INPUT }, .written_bytes = 10 },
    { .op = "linear", .n_reads = 2, .reads = { INPUT, WEIGHT }, .n_writes = 1, .writes = { HIDDEN },
      .flops = 200, .model_flops = 200, .read_bytes = 110, .written_bytes = 20 },
    { .op = "linear", .layer = 7, .phase = PHASE_WEIGHT_GRAD, .n_reads = 1, .reads = { HIDDEN },
      .n_writes = 1, .writes = { GRADIENT }, .flops = 300, .read_bytes = 20, .written_bytes = 100 },
    { .op = "adamw", .layer = -1, .phase = PHASE_UPDATE, .n_reads = 2,
      .reads = { WEIGHT, GRADIENT }, .n_writes = 1, .writes = { WEIGHT } },
};
static struct action actions[] = { { 0, 0 }, { 0, 1 }, { 1, 0 }, { 1, 1 }, { 2, 1 } };
static struct record_table table = {
    .name = "step", .micro_batches = 2, .tensors = tensors, .n_tensors = 4, .tasks = tasks,
    .n_tasks = 4, .actions = actions, .n_actions = 5,
};

#define SPAN(begin, end, id, act)                                                              \
    { .begin_ns = begin, .end_ns = end, .task = &tasks[id], .task_id = id, .action = act,       \
      .kind = SPAN_TASK }
static const struct record_span spans[] = {
    SPAN(0, 10, 0, 0), SPAN(10, 30, 1, 0), SPAN(30, 40, 0, 1), SPAN(40, 60, 1, 1),
    SPAN(60, 80, 2, 2), SPAN(80, 100, 2, 3), SPAN(100, 110, 3, 4),
};
static struct record_head head = { .rank = 3, .ranks = 4 };
static const struct record_rank rank = { .head = &head, .table = &table, .spans = spans,
                                         .n_spans = COUNT_OF(spans), .end_ns = 110 };

static json_t *read_back(struct json *j)
{
    json_t *o;
    CHECK_OK(json_parse(j->out.data, j->out.length, "written", &o));
    json_writer_fini(j);
    return o;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Most is in use while both micro-batches' hidden values and the gradient are there. */
TEST(tensors_live_from_their_first_writer_to_their_last_reader)
{
    struct json j;
    json_writer_init(&j);
    step_memory_put(&rank, &j);
    json_t *o = read_back(&j);
    CHECK_NEAR(number(o, "kept"), 100, 0); /* the weight is read before anything wrote it */
    CHECK_NEAR(number(o, "peak"), 20 + 20 + 100, 0);
    CHECK_NEAR(number(o, "peak_ns"), 60, 0);
    CHECK_NEAR(number(o, "rank"), 3, 0);
    const json_t *largest = json_array_get(json_object_get(o, "largest"), 0);
    CHECK_STR(json_string_value(json_object_get(largest, "name")), "gradient");
    CHECK_NEAR(number(largest, "layer"), 7, 0); /* of its writer */
    CHECK_EQ(json_array_size(json_object_get(o, "largest")), 3);
    json_decref(o);
}

TEST(without_a_table_there_is_no_memory)
{
    struct json j;
    json_writer_init(&j);
    step_memory_put(&(struct record_rank){ .head = &head }, &j);
    CHECK_STR(j.out.data, "null");
    json_writer_fini(&j);
}

TEST(kernels_are_told_apart_by_op_and_phase)
{
    static struct kernels k;
    struct json j;
    k = (struct kernels){ 0 };
    kernels_add(&k, &rank);
    json_writer_init(&j);
    kernels_put(&k, &j);
    json_t *o = read_back(&j);
    CHECK_EQ(json_array_size(o), 4);
    double seconds = 0;
    for (size_t i = 0; i < 4; i++)
        seconds += number(json_array_get(o, i), "seconds");
    CHECK_NEAR(seconds, 110e-9, 1e-15);
    const json_t *forward = json_array_get(o, 0);
    if (strcmp(json_string_value(json_object_get(forward, "phase")), "forward") != 0)
        forward = json_array_get(o, 1);
    CHECK_STR(json_string_value(json_object_get(forward, "op")), "linear");
    CHECK_NEAR(number(forward, "calls"), 2, 0);
    CHECK_NEAR(number(forward, "flops"), 400, 0);
    CHECK_NEAR(number(forward, "bytes"), 260, 0);
    json_decref(o);
}

TEST(a_folder_without_a_record_is_said)
{
    struct json j;
    json_writer_init(&j);
    CHECK(run_record_put("no-such-run", -1, &j) < 0);
    CHECK_STR(j.out.data, "null");
    json_writer_fini(&j);
}

TEST_MAIN(ONE(tensors_live_from_their_first_writer_to_their_last_reader),
          ONE(without_a_table_there_is_no_memory), ONE(kernels_are_told_apart_by_op_and_phase),
          ONE(a_folder_without_a_record_is_said))
