/* Any bytes as the record of a run's only rank, with the checksums of what looks like chunks put
 * right: refused, or judged, with JSON that is JSON and intervals that are some. */
#include "base/err.h"
#include "base/json.h"
#include "diagnose/diagnosis.h"
#include "diagnose/own_rates.h"
#include "trace/record.h"
#include "folder.h"

#include <math.h>
#include <string.h>

enum { MOST_BYTES = 1 << 16 };

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void see_findings(const struct diagnosis *d)
{
    for (i64 i = 0; i < d->findings.n; i++) {
        const struct finding *f = &d->findings.at[i];
        if (f->gain_lo > f->gain || f->gain > f->gain_hi)
            err_panic("%s gives back %g [%g, %g]", f->id, f->gain, f->gain_lo, f->gain_hi);
    }
}

static void see_diagnosis(void)
{
    const struct measure_range range = { .last = -1 };
    struct diagnosis d;
    struct text out = { 0 };
    struct json j;
    json_t *o;
    if (diagnosis_open(&d, fuzz_folder(), &range) < 0) {
        if (!*err_message())
            err_panic("refused without a message");
        return;
    }
    see_findings(&d);
    diagnosis_text(&d, &out);
    text_fini(&out);
    json_writer_init(&j);
    diagnosis_json(&d, &j);
    if (json_parse_text(j.out.data, j.out.length, "diagnosis", 1, &o) < 0)
        err_panic("what was written is no JSON: %s", err_message());
    json_decref(o);
    json_writer_fini(&j);
    diagnosis_close(&d);
}

static void see_rates(void)
{
    struct arena a;
    struct own_run run;
    struct plan_rates rates;
    arena_init(&a);
    if (own_run_read(&run, fuzz_folder(), &a) == OK)
        own_rates_fit(&rates, &(const struct own_run *){ &run }, 1, NULL, &a);
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    static const char name[] = "rank-0.spans";
    static u8 copy[MOST_BYTES];
    if (bytes > MOST_BYTES)
        return 0;
    memcpy(copy, data, bytes);
    for (i64 at = 0; at + RECORD_CHUNK_BYTES <= (i64)bytes;) {
        struct record_chunk c;
        memcpy(&c, copy + at, sizeof c);
        if (c.bytes > bytes || at + RECORD_CHUNK_BYTES + (i64)c.bytes > (i64)bytes)
            break;
        c.checksum = record_checksum(c.kind, copy + at + RECORD_CHUNK_BYTES, (i64)c.bytes);
        memcpy(copy + at, &c, sizeof c);
        at += RECORD_CHUNK_BYTES + round_up((i64)c.bytes, 8);
    }
    fuzz_file(name, copy, (i64)bytes);
    see_diagnosis();
    see_rates();
    fuzz_file(name, NULL, -1);
    return 0;
}
