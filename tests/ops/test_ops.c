/* Every op of the table, without naming any: kernels against the reference on every backend
 * that this machine can run, gradients against finite differences. */
#include "backend/selftest.h"
#include "ops/example.h"
#include "test.h"

#include <stdio.h>

static const char *const backends[] = { "reference", "generic", "avx2", "avx512", "avx512bf16",
                                        "amx" };

static void report(const char *what, const struct selftest *s)
{
    printf("%s: %lld checks, worst error %.2g of its bound (%s, example %d in %s)\n", what,
           (long long)s->checks, s->worst, s->worst_op, s->worst_example,
           dtype_name(s->worst_dtype));
}

TEST(every_op_has_a_name_and_shapes_and_examples)
{
    for (i64 i = 0; i < op_table_count; i++) {
        const struct op_info *op = op_table[i];
        CHECK(op->infer != NULL);
        CHECK(op->cost != NULL || op->waits);
        CHECK(op_find(op->name) == op);
        CHECK_EQ(op_index(op), i);
        CHECK(op->example != NULL || op->run_ref == NULL);
    }
    CHECK(op_find("no such op") == NULL);
}

TEST(gradient_rules_are_derivatives)
{
    struct backend b;
    struct selftest s;
    CHECK_OK(backend_init(&b, "reference"));
    CHECK_OK(selftest_init(&s, &b));
    CHECK_OK(selftest_all_gradients(&s));
    report("gradients", &s);
    CHECK(s.checks > 100);
    selftest_fini(&s);
}

TEST(kernels_of_every_backend_agree_with_the_reference)
{
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        struct backend b;
        struct selftest s;
        if (!backend_supported(backends[i]))
            continue;
        CHECK_OK(backend_init(&b, backends[i]));
        CHECK_OK(selftest_init(&s, &b));
        CHECK_OK(selftest_all_kernels(&s));
        report(backends[i], &s);
        selftest_fini(&s);
    }
}

/* The bounds of others are too narrow for it. */
TEST(only_who_says_so_may_round_within_attention)
{
    struct backend b;
    struct selftest s;
    if (!backend_supported("avx512bf16"))
        skip();
    CHECK_OK(backend_init(&b, "avx512bf16"));
    CHECK(b.rounds_within);
    b.rounds_within = false;
    CHECK_OK(selftest_init(&s, &b));
    CHECK_EQ(selftest_kernels(&s, &op_attention_grad), ERR_NUMERIC);
    CHECK_EQ(selftest_kernels(&s, &op_attention_block), ERR_NUMERIC);
    selftest_fini(&s);
    CHECK_OK(backend_init(&b, "avx512"));
    CHECK(!b.rounds_within);
}

TEST_MAIN(ONE(every_op_has_a_name_and_shapes_and_examples),
          ONE(gradient_rules_are_derivatives),
          ONE(only_who_says_so_may_round_within_attention),
          ONE(kernels_of_every_backend_agree_with_the_reference))
