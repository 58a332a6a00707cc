#include "backend/backend.h"

#include "backend/cpu/cpu.h"
#include "base/sys.h"
#include "ops/ops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <string.h>

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* gcc 12 does not know the names. */
static bool has_amx(void)
{
    enum { FEATURES = 7, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d = 0;
    return has_avx512bf16() && __get_cpuid_count(FEATURES, 0, &a, &b, &c, &d) &&
           (d & AMX_BF16) && (d & AMX_TILE) && sys_allow_amx();
}

/* Some processors have the instructions and multiply faster without them. */
static bool prefers_avx512bf16(void)
{
    return has_avx512bf16() && cpu_avx512bf16_pays();
}
#endif

static void register_reference(struct backend *b)
{
    for (i64 i = 0; i < op_table_count; i++)
        b->kernels[i] = (struct kernel){ .run = op_table[i]->run_ref,
                                         .workspace = op_table[i]->ref_workspace };
}

/* Best first; "reference" is never chosen by itself. A set includes those after it, down
 * to generic. */
static const struct {
    const char *name;
    bool (*supported)(void);
    bool (*preferred)(void); /* to the sets below it */
    void (*add)(struct backend *b);
} sets[] = {
#if defined(__x86_64__)
    { "amx", has_amx, has_amx, cpu_register_amx },
    { "avx512bf16", has_avx512bf16, prefers_avx512bf16, cpu_register_avx512bf16 },
    { "avx512", has_avx512, has_avx512, cpu_register_avx512 },
    { "avx2", has_avx2, has_avx2, cpu_register_avx2 },
#endif
    { "generic", always, always, cpu_register_generic },
    { "reference", always, always, register_reference },
};

static i64 find_set(const char *name)
{
    for (i64 i = 0; i < COUNT_OF(sets); i++)
        if (strcmp(sets[i].name, name) == 0)
            return i;
    return -1;
}

bool backend_supported(const char *name)
{
    i64 i = find_set(name);
    return i >= 0 && sets[i].supported();
}

const char *backend_best(void)
{
    i64 i = 0;
    while (!sets[i].preferred())
        i++;
    return sets[i].name;
}

int backend_init(struct backend *b, const char *name)
{
    assert(op_table_count <= BACKEND_OPS);
    if (strcmp(name, "auto") == 0)
        name = backend_best();
    i64 i = find_set(name);
    if (i < 0)
        return err_set(ERR_USAGE, "unknown backend '%s'; there are reference, generic, avx2, "
                       "avx512, avx512bf16, amx and auto", name);
    if (!sets[i].supported())
        return err_set(ERR_LIMIT, "this machine cannot run the %s backend; its best is %s",
                       name, backend_best());
    *b = (struct backend){ .name = sets[i].name };
    if (i == COUNT_OF(sets) - 1) {
        register_reference(b);
        return OK;
    }
    for (i64 k = COUNT_OF(sets) - 2; k >= i; k--)
        sets[k].add(b);
    return OK;
}

void backend_set(struct backend *b, const struct op_info *op, struct kernel kernel)
{
    b->kernels[op_index(op)] = kernel;
}

const struct kernel *backend_kernel(const struct backend *b, const struct op_info *op)
{
    return &b->kernels[op_index(op)];
}
