/* Any bytes as a file of rates: refused with a message, or rates that are written and read back to
 * the same file. */
#include "base/err.h"
#include "base/text.h"
#include "plan/rates.h"
#include "folder.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    static const char name[] = "rates.yaml";
    struct arena a;
    struct text first = { 0 }, second = { 0 };
    arena_init(&a);
    struct plan_rates *r = ARENA_NEW(&a, struct plan_rates);
    const struct plan_rates *const one[] = { r };
    fuzz_file(name, data, (i64)bytes);
    if (plan_rates_load(r, fuzz_path(name), "fp32", 1, 1, &a) == OK) {
        plan_rates_write(one, 1, NULL, 0, &first);
        fuzz_file(name, first.data, first.length);
        if (plan_rates_load(r, fuzz_path(name), "fp32", 1, 1, &a) < 0)
            err_panic("what was written is refused: %s\n%s", err_message(), first.data);
        plan_rates_write(one, 1, NULL, 0, &second);
        if (strcmp(first.data, second.data) != 0)
            err_panic("rates changed:\n%s\n%s", first.data, second.data);
    } else if (!*err_message()) {
        err_panic("refused without a message");
    }
    fuzz_file(name, NULL, -1);
    text_fini(&first);
    text_fini(&second);
    arena_fini(&a);
    return 0;
}
