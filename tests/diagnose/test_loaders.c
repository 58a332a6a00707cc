/* Ranks whose loaders make steps wait together: who has which fault, and what mending it gives. */
#include "test.h"

#include "diagnose/plant.h"

/* Of which one in twenty is five times the median, like what others' use of a disk makes. */
static double *uneven_loads(double median, u64 *seed, struct arena *a)
{
    double *load = series(a, 0);
    for (i64 i = 0; i < STEPS; i++) {
        double normal = 0;
        for (int k = 0; k < 12; k++)
            normal += usual_noise(seed);
        load[i] = median * exp(normal);
    }
    return load;
}

/* Loads of all four ranks, and what steps wait for them. */
static double plant_loads(struct measure *m, double *const load[4])
{
    const double consume = m->step.mean;
    const double wait = measure_queues_wait((const double *const *)load, 4, STEPS, consume, 1,
                                            m->config.prefetch, false);
    for (int r = 0; r < 4; r++) {
        m->ranks[r].load = load[r];
        m->ranks[r].n_loads = STEPS;
        for (i64 i = 0; i < STEPS; i++)
            m->ranks[r].data[i] = wait / 4; /* now one comes last, now another */
    }
    longer(m, wait);
    m->loss[LOSS_DATA] = wait;
    return wait;
}

static bool holds(const struct finding *f, double gain)
{
    return f->gain_lo <= gain && gain <= f->gain_hi;
}

TEST(uneven_loaders_of_all_ranks_are_one_finding_everywhere)
{
    static struct findings f;
    for (u64 seed = 1; seed <= 12; seed++) {
        struct arena a;
        arena_init(&a);
        u64 draw = seed;
        struct measure *m = usual_run(4, STEPS, &a);
        double *load[4];
        for (int r = 0; r < 4; r++)
            load[r] = uneven_loads(0.07 + 0.007 * (double)seed, &draw, &a);
        const double wait = plant_loads(m, load);
        findings_make(&f, m, NULL);
        if (f.n != 1 || strcmp(f.at[0].id, "D4") != 0 || f.at[0].place.rank >= 0 ||
            f.at[0].place.several.n > 0 || !holds(&f.at[0], wait)) {
            tell(&f, m);
            fail_msg("seed %llu: uneven loaders were planted at all ranks, waits %.1f ms",
                     (unsigned long long)seed, 1e3 * wait);
        }
        arena_fini(&a);
    }
}

TEST(a_slow_loader_and_an_uneven_one_are_told_apart)
{
    static struct findings f;
    for (int same = 0; same < 2; same++) {
        struct arena a;
        arena_init(&a);
        u64 draw = 5;
        struct measure *m = usual_run(4, STEPS, &a);
        double *load[4];
        for (int r = 0; r < 4; r++)
            load[r] = series(&a, 0.01);
        load[3] = uneven_loads(same ? 0.12 : 0.08, &draw, &a);
        for (i64 i = 0; i < STEPS; i++)
            load[same ? 3 : 1][i] += same ? 0.13 : 0.125;
        plant_loads(m, load);
        m->ranks[1].load_cpu = m->ranks[3].load_cpu = 0.9;
        findings_make(&f, m, NULL);
        int slow = -1, uneven = -1;
        for (int i = 0; i < f.n; i++) {
            slow = strcmp(f.at[i].id, "D1") == 0 ? f.at[i].place.rank : slow;
            uneven = strcmp(f.at[i].id, "D4") == 0 ? f.at[i].place.rank : uneven;
        }
        if (f.n != 2 || slow != (same ? 3 : 1) || uneven != 3) {
            tell(&f, m);
            fail_msg("a slow and an uneven loader were planted, %d", same);
        }
        arena_fini(&a);
    }
}

static double half_the_step(void *context, const struct finding_edit *e, double factor)
{
    (void)factor;
    return *(const double *)context * (e ? 0.5 : 1);
}

/* A loader that keeps up with steps as long as something else makes them long. */
TEST(a_loader_takes_of_a_gain_what_steps_would_then_wait_for_it)
{
    static struct findings f;
    for (int late = 0; late < 2; late++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        b1(m, &a);
        const double step = m->step.mean;
        const struct finding_replay replay = { &(double){ step }, half_the_step };
        m->ranks[2].load = series(&a, (late ? 0.8 : 0.4) * step);
        m->ranks[2].n_loads = STEPS;
        m->loss[LOSS_DATA] = 0;
        m->energy.watts = NAN; /* R4 is not asked */
        findings_make(&f, m, &replay);
        const double gain = (late ? 0.2 : 0.5) * step;
        if (f.n != 1 + late || strcmp(f.at[0].id, "B1") != 0 ||
            fabs(f.at[0].gain - gain) > 0.01 * step ||
            (late && (strcmp(f.at[1].id, "D1") != 0 || f.at[1].place.rank != 2 ||
                      fabs(f.at[1].gain - 0.3 * step) > 0.01 * step))) {
            tell(&f, m);
            fail_msg("a slow rank was planted beside a loader, %d", late);
        }
        arena_fini(&a);
    }
}

/* One loader computes, another one stands still for storage: mending the slower one leaves what steps
 * wait for the other. */
TEST(slow_loaders_with_different_causes_are_two_findings)
{
    static struct findings f;
    for (int slower = 1; slower < 3; slower++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        double *load[4];
        for (int r = 0; r < 4; r++)
            load[r] = series(&a, r == slower ? 0.16 : r == 1 || r == 2 ? 0.14 : 0.05);
        plant_loads(m, load);
        for (int r = 0; r < 4; r++) {
            m->ranks[r].load_cpu = r == 2 ? 0.05 : 0.95;
            m->ranks[r].queue_empty = r == slower ? 1 : 0.05;
        }
        findings_make(&f, m, NULL);
        const int first = slower == 1 ? 0 : 1; /* by id: the slower one, to be mended first */
        static const char *const ids[] = { "D1", "D2" };
        if (f.n != 2 || strcmp(f.at[0].id, ids[first]) != 0 || strcmp(f.at[1].id, ids[!first]) != 0) {
            tell(&f, m);
            fail_msg("%s and %s were planted", ids[first], ids[!first]);
        }
        CHECK_EQ(f.at[0].place.rank, slower);
        CHECK_EQ(f.at[1].place.rank, 3 - slower);
        CHECK_NEAR(f.at[0].gain, 0.02, 0.002);
        CHECK_NEAR(f.at[1].gain, 0.04, 0.002);
        CHECK(strcmp(f.at[1].after, ids[first]) == 0);
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(slow_loaders_with_different_causes_are_two_findings),
          ONE(a_loader_takes_of_a_gain_what_steps_would_then_wait_for_it),
          ONE(uneven_loaders_of_all_ranks_are_one_finding_everywhere),
          ONE(a_slow_loader_and_an_uneven_one_are_told_apart))
