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
                                            m->config.prefetch);
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

TEST_MAIN(ONE(uneven_loaders_of_all_ranks_are_one_finding_everywhere),
          ONE(a_slow_loader_and_an_uneven_one_are_told_apart))
