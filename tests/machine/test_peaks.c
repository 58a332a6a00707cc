/* What is kept of a measurement, and when it is not believed. */
#include "backend/backend.h"
#include "base/pool.h"
#include "base/sys.h"
#include "machine/machine.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

TEST(a_kept_peak_that_the_machine_surpasses_is_measured_again)
{
    struct pool *pool;
    struct machine m, kept;
    setenv("XDG_CACHE_HOME", "peaks-test", 1);
    sys_mkdirs("peaks-test/headway");
    CHECK_OK(pool_new(&pool, 1, false));
    machine_detect(&kept, "generic", 1);
    kept.f32_one = kept.f32_all = kept.bf16_one = kept.bf16_all = 1e6; /* as if all was taken */
    machine_save(&kept);
    machine_peaks(&m, "generic", pool);
    CHECK(m.f32_all > 1e7);
    machine_detect(&kept, "generic", 1);
    CHECK_OK(machine_load(&kept));
    CHECK(kept.f32_all > 1e7);

    kept.f32_all = 1e18; /* no processor: what others take from it now changes nothing */
    machine_save(&kept);
    machine_peaks(&m, "generic", pool);
    CHECK_NEAR(m.f32_all, 1e18, 1e9);
    pool_free(pool);
}

/* Ways that need no other units are the least of a peak. */
TEST(a_peak_is_that_of_the_fastest_way)
{
    struct pool *pool;
    struct machine m;
    CHECK_OK(pool_new(&pool, 1, false));
    machine_detect(&m, backend_best(), 1);
    machine_measure_peaks(&m, pool);
    CHECK(m.fma_all > 0);
    CHECK(m.f32_all >= m.fma_all && m.bf16_all >= m.f32_all);
    CHECK(m.f32_split ? m.f32_all > m.fma_all : m.f32_all == m.fma_all);
    CHECK(!m.f32_split || strcmp(m.backend, "amx") == 0);
    pool_free(pool);
}

TEST(what_others_took_is_told)
{
    char why[160];
    struct machine m = { .threads = 2, .f32_one = 1e11, .f32_all = 1.9e11, .bf16_one = 1e11,
                         .bf16_all = 1.9e11 };
    struct machine before = m;
    CHECK(!machine_disturbed(&m, NULL, why, sizeof why));
    CHECK(!machine_disturbed(&m, &before, why, sizeof why));
    m.bf16_all = 1.4e11;
    CHECK(machine_disturbed(&m, &before, why, sizeof why));
    CHECK(strstr(why, "bf16 140 GFLOP/s, which were 190 and 190") != NULL);
    m.f32_all = 0.9e11;
    CHECK(machine_disturbed(&m, NULL, why, sizeof why));
    CHECK(strstr(why, "2 threads multiply no faster") != NULL);
    m.threads = 1;
    CHECK(!machine_disturbed(&m, NULL, why, sizeof why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(a_kept_peak_that_the_machine_surpasses_is_measured_again),
        ONE(a_peak_is_that_of_the_fastest_way), ONE(what_others_took_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
