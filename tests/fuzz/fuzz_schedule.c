/* Any text: refused with a sentence, or a schedule that holds, can be timed and reads back. */
#include "base/err.h"
#include "base/text.h"
#include "parallel/schedule.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena a;
    struct schedule s, back;
    arena_init(&a);
    const char *text = arena_strndup(&a, (const char *)data, (i64)bytes);
    if (schedule_read_csv(&s, text, "fuzz.csv", &a) == OK) {
        struct schedule_time t;
        struct text csv = { 0 };
        struct stage_time *times = ARENA_ARRAY(&a, struct stage_time, s.stages);
        for (int stage = 0; stage < s.stages; stage++)
            times[stage] = (struct stage_time){ 1, 1, 1 };
        schedule_time(&s, times, 0.5, &t, &a);
        schedule_write_csv(&s, &csv);
        if (schedule_read_csv(&back, csv.data, "again", &a) < 0)
            err_panic("a schedule does not read back: %s", err_message());
        text_fini(&csv);
    }
    arena_fini(&a);
    return 0;
}
