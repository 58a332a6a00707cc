#include "diagnose/whatif_quiet.h"

#include "base/rng.h"
#include "test.h"

#include <math.h>

enum { STEPS = 40, RANKS = 2, ACTIONS = 8, TASKS = 5 };

/* Seconds that a task takes longer than 10 ms. */
typedef double late_fn(const struct rng *draws, int rank, int step, int action, int task);

static struct dag *step_of(const struct rng *draws, int step, late_fn *late, struct arena *a)
{
    struct dag *g = ARENA_NEW(a, struct dag);
    *g = (struct dag){ .n_ranks = RANKS, .nodes = ARENA_ARRAY(a, struct dag_node, RANKS * ACTIONS *
                                                               TASKS),
                       .seconds = ARENA_ARRAY(a, double, RANKS * ACTIONS * TASKS) };
    for (int r = 0; r < RANKS; r++)
        for (int i = 0; i < ACTIONS; i++)
            for (int t = 0; t < TASKS; t++) {
                g->nodes[g->n] = (struct dag_node){ .kind = DAG_COMPUTE, .action = (u16)i, .rank = r,
                                                    .task_id = (u32)t };
                g->seconds[g->n++] = 0.01 + late(draws, r, step, i, t);
            }
    return g;
}

static double drawn(const struct rng *draws, int rank, int step, int action)
{
    return rng_normal(draws, (u64)((step * RANKS + rank) * 64 + action));
}

/* What a rank takes on average, as quiet as is usual. */
static double quiet_step(late_fn *late, double pace)
{
    const struct rng draws = { 7, rng_stream("test") };
    struct arena a;
    struct dag *graphs[STEPS];
    const int stage[RANKS] = { 0 };
    const double paces[RANKS] = { 1, pace };
    double sum = 0;
    arena_init(&a);
    for (int k = 0; k < STEPS; k++)
        graphs[k] = step_of(&draws, k, late, &a);
    const struct quiet_steps s = { graphs, STEPS, stage, paces, NULL };
    const struct quiet_times quiet = quiet_find(&s, &a);
    for (int k = 0; k < STEPS; k++)
        for (i64 i = 0; i < graphs[k]->n; i++) {
            const struct dag_node *n = &graphs[k]->nodes[i];
            sum += (double)quiet.share[k][i] *
                   *quiet_action(&quiet, USUALLY_QUIET, k, RANKS, n->rank, n->action);
        }
    arena_fini(&a);
    return sum / STEPS / RANKS;
}

/* Each action takes up to twice as long, by itself. */
static double disturbed(const struct rng *draws, int rank, int step, int action, int task)
{
    (void)task;
    return 0.05 / TASKS * fmin(1, fabs(drawn(draws, rank, step, action)));
}

/* An action that ends late leaves the next less time, so that steps take equally long. */
static double caught_up(const struct rng *draws, int rank, int step, int action, int task)
{
    (void)task;
    const double own = action == ACTIONS - 1 ? 0 : fabs(drawn(draws, rank, step, action));
    const double before = action == 0 ? 0 : fabs(drawn(draws, rank, step, action - 1));
    return 0.01 / TASKS * (own - before);
}

static double slower_rank(const struct rng *draws, int rank, int step, int action, int task)
{
    (void)draws, (void)step, (void)action, (void)task;
    return rank == 1 ? 0.05 / TASKS : 0;
}

/* One task of an action is late, another one each time, and the others make up for it. */
static double late_in_turns(const struct rng *draws, int rank, int step, int action, int task)
{
    (void)draws;
    return (rank + step + action + task) % TASKS == 0 ? 0.005 : -0.005 / (TASKS - 1);
}

TEST(actions_that_are_disturbed_each_by_itself_are_quiet_in_their_quickest_cases)
{
    const double base = 0.01 * ACTIONS * TASKS, quiet = quiet_step(disturbed, 1);
    CHECK(quiet > base && quiet < 1.18 * base); /* the median of a step is 1.66 * base */
}

TEST(what_is_caught_up_with_is_no_noise)
{
    const double base = 0.01 * ACTIONS * TASKS, quiet = quiet_step(caught_up, 1);
    CHECK(quiet > 0.96 * base && quiet < 1.04 * base);
}

TEST(tasks_that_make_up_for_each_other_take_together_what_their_action_does)
{
    const double base = 0.01 * ACTIONS * TASKS; /* of the tasks' medians it is an eighth less */
    CHECK(fabs(quiet_step(late_in_turns, 1) - base) < 1e-6);
}

TEST(a_slow_ranks_tasks_are_at_the_usual_pace)
{
    const double base = 0.01 * ACTIONS * TASKS;
    CHECK(fabs(quiet_step(slower_rank, 2) - base) < 1e-6);
}

TEST_MAIN(ONE(actions_that_are_disturbed_each_by_itself_are_quiet_in_their_quickest_cases),
          ONE(what_is_caught_up_with_is_no_noise),
          ONE(tasks_that_make_up_for_each_other_take_together_what_their_action_does),
          ONE(a_slow_ranks_tasks_are_at_the_usual_pace))
