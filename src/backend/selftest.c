#include "backend/selftest.h"

#include "ops/ops.h"

int selftest_init(struct selftest *s, const struct backend *backend)
{
    *s = (struct selftest){ .backend = backend, .worst_op = "none" };
    for (int i = 0; i < SELFTEST_THREADS; i++) {
        int rc = pool_new(&s->pools[i], i + 1, false);
        if (rc < 0) {
            selftest_fini(s);
            return rc;
        }
    }
    return OK;
}

void selftest_fini(struct selftest *s)
{
    for (int i = 0; i < SELFTEST_THREADS; i++)
        pool_free(s->pools[i]);
}

int selftest_all_kernels(struct selftest *s)
{
    for (i64 i = 0; i < op_table_count; i++)
        TRY(selftest_kernels(s, op_table[i]));
    return OK;
}

int selftest_all_gradients(struct selftest *s)
{
    for (i64 i = 0; i < op_table_count; i++)
        TRY(selftest_gradients(s, op_table[i]));
    return OK;
}
