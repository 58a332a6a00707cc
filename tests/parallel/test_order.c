/* layout.order: which axis has neighbours in rank order. Where ranks lie changes, and nothing that
 * they compute. */
#include "test.h"

#include "base/err.h"
#include "parallel/exact.h"

#include <stdio.h>

static void parse(struct layout *l, const char *text, int order, struct arena *a)
{
    char all[160];
    *l = layout_single();
    snprintf(all, sizeof all, "%s,order=%s", text, layout_orders[order]);
    CHECK_OK(layout_parse(l, all, "test", a));
}

TEST(every_rank_has_a_place_of_its_own_in_every_order)
{
    struct arena a;
    struct layout l, usual;
    bool met[96];
    arena_init(&a);
    parse(&usual, "islands=2,pp=2,dp=3,cp=2,tp=4", 0, &a);
    for (int order = 0; order < LAYOUT_ORDERS; order++) {
        parse(&l, "islands=2,pp=2,dp=3,cp=2,tp=4", order, &a);
        CHECK_EQ(layout_ranks(&l), 96);
        memset(met, 0, sizeof met);
        for (i64 r = 0; r < 96; r++) {
            const struct mesh m = mesh_at(&l, r);
            const i64 back = mesh_rank_in(&m, &usual);
            const struct mesh u = mesh_at(&usual, back);
            CHECK(!met[back]);
            met[back] = true;
            CHECK_EQ(mesh_rank_in(&m, &l), r);
            CHECK_EQ(mesh_column(&m), mesh_column(&u));
            for (int lane = 0; lane < LANE_COUNT; lane++) { /* rank 0 is the origin of all */
                CHECK_EQ(mesh_coordinate(&m, lane), mesh_coordinate(&u, lane));
                CHECK(mesh_coordinate(&m, lane) * mesh_stride(&m, lane) <= r);
            }
        }
    }
    arena_fini(&a);
}

TEST(the_first_axis_has_neighbours)
{
    static const struct { int order; i64 tp, rows, pp; } cases[] = {
        { 0, 1, 4, 24 }, { 1, 1, 8, 4 }, { 2, 6, 1, 24 }, { 3, 12, 1, 6 }, { 4, 2, 8, 1 },
        { 5, 12, 2, 1 },
    };
    struct arena a;
    struct layout l;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        parse(&l, "pp=2,dp=3,cp=2,tp=4", cases[i].order, &a);
        CHECK_EQ(layout_stride(&l, AXIS_TP), cases[i].tp);
        CHECK_EQ(layout_stride(&l, AXIS_ROWS), cases[i].rows);
        CHECK_EQ(layout_stride(&l, AXIS_PP), cases[i].pp);
    }
    arena_fini(&a);
}

TEST(an_order_is_told_when_it_is_not_the_usual_one)
{
    struct arena a;
    struct layout l;
    arena_init(&a);
    parse(&l, "dp=2,tp=2", 0, &a);
    CHECK_STR(layout_text(&l, &a), "dp=2,tp=2");
    parse(&l, "dp=2,tp=2", 2, &a);
    CHECK_STR(layout_text(&l, &a), "dp=2,tp=2,order=dp-tp-pp");
    CHECK_EQ(layout_parse(&l, "dp=2,order=dp-dp-pp", "--layout", &a), ERR_CONFIG);
    CHECK(strstr(err_message(), "order") && strstr(err_message(), "dp-dp-pp") &&
          strstr(err_message(), "dp-tp-pp"));
    arena_fini(&a);
}

TEST(an_order_changes_no_bit)
{
    static const struct { const char *layout; i64 B; int micro_batches, experts; } cases[] = {
        { "pp=2,dp=2,tp=2", 4, 2, 0 },
        { "pp=2,dp=2,tp=2,zero=1,schedule=interleaved", 4, 4, 0 },
        { "dp=4,tp=2,zero=3,zero_group=2", 4, 2, 0 },
        { "cp=2,dp=2,tp=2,zero=1", 4, 2, 0 },
        { "dp=4,ep=2,tp=2,zero=1,zero_group=2", 2, 8, TINY_MIXTRAL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        for (int order = 1; order < LAYOUT_ORDERS; order++) {
            char layout[96];
            snprintf(layout, sizeof layout, "%s,order=%s", cases[i].layout, layout_orders[order]);
            struct ranks_options o = {
                .layout = layout, .layers = strstr(layout, "pp=2") ? 4 : 0,
                .tiny = { .threads = 1, .B = cases[i].B, .micro_batches = cases[i].micro_batches,
                          .experts = cases[i].experts, .bf16 = order % 2,
                          .backend = backend_best() } };
            expect_exact_options(&o);
        }
}

/* Neighbours that share a key-value head are as far apart as others along tp. */
TEST(ranks_that_share_a_head_find_each_other)
{
    for (int order = 1; order < LAYOUT_ORDERS; order += 2) {
        char layout[64];
        snprintf(layout, sizeof layout, "dp=2,tp=4,order=%s", layout_orders[order]);
        struct ranks_options o = { .layout = layout, .heads = 8, .kv_heads = 2,
                                   .tiny = { .threads = 1, .B = 4, .micro_batches = 1,
                                             .backend = backend_best() } };
        expect_exact_options(&o);
    }
}

TEST_MAIN(ONE(every_rank_has_a_place_of_its_own_in_every_order), ONE(the_first_axis_has_neighbours),
          ONE(an_order_is_told_when_it_is_not_the_usual_one), ONE(an_order_changes_no_bit),
          ONE(ranks_that_share_a_head_find_each_other))
