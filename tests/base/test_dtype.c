#include "test.h"

#include "base/dtype.h"

#include <math.h>

TEST(every_half_survives_a_round_trip)
{
    for (u32 i = 0; i < 65536; i++) {
        u16 h = (u16)i, back;
        double value = dtype_get(DTYPE_F16, &h, 0);
        dtype_set(DTYPE_F16, &back, 0, value);
        CHECK(isnan(value) || back == h);
        value = dtype_get(DTYPE_BF16, &h, 0);
        dtype_set(DTYPE_BF16, &back, 0, value);
        CHECK(isnan(value) || back == h);
    }
}

TEST(bf16_rounds_to_nearest_even)
{
    CHECK_EQ(bf16_from_f32(1.0f), 0x3f80);
    CHECK_EQ(bf16_from_f32(1.00390625f), 0x3f80);        /* tie, 0x3f80 is even */
    CHECK_EQ(bf16_from_f32(1.01171875f), 0x3f82);        /* tie, up to even */
    CHECK_EQ(bf16_from_f32(1.0039064f), 0x3f81);         /* just above the tie */
    CHECK(isnan((double)bf16_to_f32(bf16_from_f32(NAN))));
    bf16 h;
    dtype_set(DTYPE_BF16, &h, 0, 1.00390625 + 1e-12); /* one rounding, not two */
    CHECK_EQ(h, 0x3f81);
}

TEST_MAIN(ONE(every_half_survives_a_round_trip), ONE(bf16_rounds_to_nearest_even))
