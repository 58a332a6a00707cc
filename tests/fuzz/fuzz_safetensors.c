/* Any bytes: parsed or refused, and what is parsed can be read to its last byte. */
#include "base/err.h"
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct safetensors s;
    if (safetensors_parse(&s, data, (i64)bytes) == OK) {
        unsigned sum = 0;
        for (i64 i = 0; i < s.n; i++) {
            const u8 *p = safetensors_data(&s, &s.tensor[i]);
            for (i64 k = 0; k < s.tensor[i].bytes; k++)
                sum += p[k];
            if (safetensors_find(&s, s.tensor[i].name) != &s.tensor[i])
                err_panic("tensor %lld is not found by its name", (long long)i);
        }
        volatile unsigned sink = sum;
        (void)sink;
    }
    safetensors_close(&s);
    return 0;
}
