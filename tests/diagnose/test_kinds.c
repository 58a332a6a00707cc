/* The table of kinds tells what the rules and the injectors do, row by row. */
#include "test.h"

#include "base/inject.h"
#include "diagnose/kind.h"
#include "diagnose/rule.h"

static const struct rule *rule_of(const char *id)
{
    for (i64 k = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++)
            if (strcmp(r->id, id) == 0)
                return r;
    return NULL;
}

TEST(every_kind_is_there_once_and_says_what_becomes_of_it)
{
    static const struct { char family; int n; } families[] = {
        { 'D', 6 }, { 'H', 9 }, { 'K', 14 }, { 'C', 11 }, { 'B', 9 }, { 'R', 5 },
    };
    int at = 0;
    for (i64 f = 0; f < COUNT_OF(families); f++)
        for (int n = 1; n <= families[f].n; n++, at++) {
            char id[16];
            snprintf(id, sizeof id, "%c%d", families[f].family, n);
            CHECK_STR(kinds[at].id, id);
            CHECK(kinds[at].name[0] && kinds[at].measured[0]);
            if ((kinds[at].state == KIND_NAMED) != (rule_of(id) != NULL))
                fail_msg("%s is %s, and %s rule", id, kind_state_name(kinds[at].state),
                         rule_of(id) ? "has a" : "has no");
        }
    CHECK_EQ(at, KINDS);
}

TEST(what_injects_a_kind_is_something_that_can_be_injected)
{
    bool shown[INJECT_KINDS] = { false };
    for (int i = 0; i < KINDS; i++) {
        struct inject_fault f;
        if (!kinds[i].inject)
            continue;
        CHECK(kinds[i].state == KIND_NAMED);
        CHECK_OK(inject_parse(&f, kinds[i].inject, NULL));
        shown[f.kind] = true;
    }
    for (int k = 0; k < INJECT_KINDS; k++)
        if (!inject_rows[k].refused && !shown[k])
            print_message("%s stands for no kind alone\n", inject_rows[k].name);
    CHECK(shown[INJECT_SLOW_COMPUTE] && shown[INJECT_HANG]);
}

TEST(the_table_is_told_whole)
{
    struct text out = { 0 };
    kinds_text(&out);
    for (int i = 0; i < KINDS; i++)
        CHECK(strstr(out.data, kinds[i].name));
    CHECK(strstr(out.data, "--inject slow_compute=1.5@1:20-40"));
    CHECK(strstr(out.data, "cannot occur: "));
    text_fini(&out);
}

TEST_MAIN(ONE(every_kind_is_there_once_and_says_what_becomes_of_it),
          ONE(what_injects_a_kind_is_something_that_can_be_injected),
          ONE(the_table_is_told_whole))
