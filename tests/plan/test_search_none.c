/* Why a search found nothing: the reason that is said is the one that matters. */
#include "test.h"

#include "base/err.h"
#include "parallel/layout.h"
#include "plan/search.h"
#include "plan_job.h"

#include <string.h>

static int search_for(const char *model, i64 devices, i64 rows, const struct plan_pick *pick,
                      bool any)
{
    struct planned p;
    struct plan_search_result r;
    open_planned(&p, model, "h100-sxm-roce", devices, rows, 4096);
    CHECK_OK(plan_stack_load(&p.stack, "megatron-core", &p.arena));
    p.job.any = any;
    struct plan_search s = { .job = &p.job, .pick = *pick, .keep = 1, .prune = true, .all = true };
    int rc = plan_search(&s, &r, &p.arena);
    arena_fini(&p.arena);
    return rc;
}

TEST(the_rule_that_is_broken_is_named)
{
    static const struct { const char *model; i64 devices, rows; const char *asked, *said; } cases[] = {
        { "mixtral-8x7b", 48, 480, "ep=8,pp=6", "as many layers each" },
        { "mixtral-8x7b", 40, 480, "ep=4,pp=5,tp=2", "as many layers each" },
        { "mixtral-8x7b", 48, 480, "ep=8,pp=8", "ep does not divide tp x dp x cp" },
        { "mixtral-8x7b", 64, 512, "ep=16", "ep does not divide the experts" },
        { "llama3-8b", 64, 512, "ep=2", "no experts" },
        { "llama3-8b", 64, 512, "tp=16", "divide the key-value heads" },
        { "llama3-8b", 64, 512, "zero=3,pp=4", "(zero)" },
        { "llama3-8b", 64, 512, "pp=4,schedule=zb-v", "no such schedule" },
        { "llama3-8b", 64, 512, "pp=1,schedule=zb-v", "several of them (pp)" },
        { "llama3-8b", 64, 512, "pp=1,chunks=4", "pp is 1" },
        { "llama3-8b", 64, 512, "zero=1,dp=1,cp=1", "single data rank" },
        { "llama3-8b", 64, 512, "zero=1,zero_group=5", "zero_group" },
        { "llama3-8b", 64, 512, "cp=64", "fewer than 512 tokens" },
        { "llama3-8b", 64, 512, "pp=4,micro_batches=7", "is not the batch" },
        { "llama3-8b", 997, 1000, "", "1000 rows of 4096 tokens a step: micro-batch" },
        { "llama3-8b", 100000, 10000, "", "try 96000 devices" },
        { "llama3-8b", 64, 512, "tp=3", "tp 3 does not divide 64 devices" },
        { "llama3-8b", 64, 512, "pp=33", "pp 33 does not divide 64 devices" },
        { "llama3-8b", 66, 528, "pp=33", "more stages than the 32 layers" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct plan_pick pick;
        arena_init(&a);
        CHECK_OK(plan_pick_parse(&pick, cases[i].asked, "test", &a));
        CHECK_FAILS(search_for(cases[i].model, cases[i].devices, cases[i].rows, &pick, false),
                    ERR_CONFIG, cases[i].said);
        arena_fini(&a);
    }
}

/* Whatever is asked for: where ep is to blame there is a layout without that wish, and where the
 * software is, there is one for other software. */
TEST(without_what_is_blamed_there_is_a_layout)
{
    i64 ep_blamed = 0, software_blamed = 0;
    for (i64 tp = 1; tp <= 8; tp *= 2)
        for (i64 pp = 1; pp <= 6; pp++)
            for (i64 ep = 1; ep <= 16; ep *= 2) {
                struct plan_pick pick = plan_pick_open();
                pick.tp = tp;
                pick.pp = pp;
                pick.ep = ep;
                if (search_for("mixtral-8x7b", 120, 480, &pick, false) == OK)
                    continue;
                bool blamed = strstr(err_message(), ": ep does") != NULL;
                bool software = strstr(err_message(), "runs no such layout") != NULL;
                ep_blamed += blamed;
                software_blamed += software;
                if (software)
                    CHECK_OK(search_for("mixtral-8x7b", 120, 480, &pick, true));
                pick.ep = PICK_ANY;
                if (blamed)
                    CHECK_OK(search_for("mixtral-8x7b", 120, 480, &pick, true));
            }
    CHECK(ep_blamed > 4 && software_blamed > 4);
}

TEST_MAIN(ONE(the_rule_that_is_broken_is_named), ONE(without_what_is_blamed_there_is_a_layout))
