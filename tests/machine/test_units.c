/* Units of energy and gas, and carbon factors. */
#include "test.h"

#include "machine/carbon.h"
#include "machine/units.h"

TEST(each_unit_is_what_it_says)
{
    CHECK_NEAR(unit_to_base(UNIT_KWH, 1), 3.6e6, 0);
    CHECK_NEAR(unit_from_base(UNIT_MWH, 3.6e9), 1, 0);
    CHECK_NEAR(unit_from_base(UNIT_KG, 83.5), 0.0835, 1e-15);
    CHECK_NEAR(unit_from_base(UNIT_T, 5.7), 5.7e-6, 1e-20);
    CHECK_NEAR(unit_to_base(UNIT_T, 1), 1000 * unit_to_base(UNIT_KG, 1), 0);
    for (int u = 0; u < UNITS; u++)
        CHECK_NEAR(unit_from_base((enum unit)u, unit_to_base((enum unit)u, 3)), 3, 1e-15);
    CHECK_STR(unit_name(UNIT_KWH), "kWh");
}

static const char *two(double value)
{
    static char text[64];
    unit_two_digits(value, text, sizeof text);
    return text;
}

TEST(numbers_have_two_digits)
{
    CHECK_STR(two(0), "0");
    CHECK_STR(two(0.003149), "0.0031");
    CHECK_STR(two(0.0996), "0.10");
    CHECK_STR(two(4.71), "4.7");
    CHECK_STR(two(9.96), "10");
    CHECK_STR(two(99.6), "100");
    CHECK_STR(two(1249), "1200");
    CHECK_STR(two(-47.2), "-47");
    CHECK_STR(two(1e6), "1000000");
}

static const char *in_words(double base, bool gas)
{
    static char text[64];
    unit_text(base, gas, text, sizeof text);
    return text;
}

TEST(the_unit_fits_the_number)
{
    CHECK_STR(in_words(0, false), "0 J");
    CHECK_STR(in_words(12.3, false), "12 J");
    CHECK_STR(in_words(999, false), "1.0 kJ");
    CHECK_STR(in_words(2.5e6, false), "2.5 MJ");
    CHECK_STR(in_words(3.6e6 * 7, false), "7.0 kWh");
    CHECK_STR(in_words(3.6e9 * 1287, false), "1300 MWh");
    CHECK_STR(in_words(0.0021, true), "0.0021 gCO2e");
    CHECK_STR(in_words(83.5, true), "84 gCO2e");
    CHECK_STR(in_words(83524, true), "84 kgCO2e");
    CHECK_STR(in_words(552e6, true), "550 tCO2e");
}

TEST(a_place_is_found_by_code_or_name_and_a_misspelt_one_is_named)
{
    const struct carbon_place *a, *b;
    CHECK_OK(carbon_find("FRA", &a));
    CHECK_OK(carbon_find("france", &b));
    CHECK(a == b && a->year >= 2019);
    CHECK_OK(carbon_find("gcp:europe-west1", &a));
    CHECK_OK(carbon_find("us:california", &a));
    CHECK_FAILS(carbon_find("Frnace", &a), ERR_CONFIG, "did you mean 'France'?");
}

TEST(where_nobody_says_where_the_world_counts_and_all_of_its_countries)
{
    struct carbon_factor f;
    CHECK_OK(carbon_choose(NULL, 0, &f));
    CHECK(f.assumed && f.year == 2019);
    CHECK_NEAR(f.g_per_kwh, 475, 0);
    CHECK(f.lo > 0 && f.lo < 100 && f.hi > 600 && f.hi < 1000);
    CHECK_OK(carbon_choose("Sweden", 0, &f));
    CHECK(!f.assumed && f.lo == f.hi && f.g_per_kwh < 100 && f.source[0]);
    CHECK_OK(carbon_choose("Sweden", 33, &f));
    CHECK_NEAR(f.g_per_kwh, 33, 0);
    CHECK_STR(f.source, "given with the run");
    CHECK_FAILS(carbon_choose("nowhere", 0, &f), ERR_CONFIG, "no carbon factor for 'nowhere'");
}

TEST(every_factor_is_sound_and_found_under_its_own_code)
{
    for (const struct carbon_place *p = carbon_places, *found; p->code; p++) {
        CHECK_OK(carbon_find(p->code, &found));
        CHECK_STR(found->code, p->code);
        CHECK(p->g_per_kwh >= 0 && p->g_per_kwh < 1500 && strlen(carbon_source(p->source)) > 5);
        CHECK(p->year == 0 || (p->year > 2000 && p->year < 2030));
    }
}

TEST_MAIN(ONE(each_unit_is_what_it_says), ONE(numbers_have_two_digits),
          ONE(the_unit_fits_the_number),
          ONE(a_place_is_found_by_code_or_name_and_a_misspelt_one_is_named),
          ONE(where_nobody_says_where_the_world_counts_and_all_of_its_countries),
          ONE(every_factor_is_sound_and_found_under_its_own_code))
