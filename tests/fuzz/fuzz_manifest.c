/* Any bytes, with a right hash put behind them: else no input would get past it. */
#include "base/err.h"
#include "base/hash.h"
#include "base/text.h"
#include "train/checkpoint_manifest.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct checkpoint_manifest m;
    struct text text = { 0 };
    char hex[65];
    checkpoint_manifest_parse(&m, (const char *)data, (i64)bytes, "fuzz"); /* as it is */
    checkpoint_manifest_fini(&m);

    sha256_of(data, (i64)bytes, hex);
    text_add_bytes(&text, (const char *)data, (i64)bytes);
    text_printf(&text, ",\n  \"sha256\": \"%s\"\n}\n", hex);
    if (checkpoint_manifest_parse(&m, text.data, text.length, "fuzz") == OK) {
        u32 sum = 0;
        for (i64 i = 0; i < m.n; i++) {
            if (strchr(m.shard[i].file, '/') || m.shard[i].file[0] == '.')
                err_panic("a file name is a path: %s", m.shard[i].file);
            for (i64 k = 0; k < m.shard[i].chunks; k++)
                sum += m.shard[i].crc[k];
        }
        volatile u32 sink = sum;
        (void)sink;
    }
    checkpoint_manifest_fini(&m);
    text_fini(&text);
    return 0;
}
