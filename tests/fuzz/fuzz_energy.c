/* Any bytes as energy.json: refused with a message, or a ledger that is written and read back as it
 * was, and that every report is made from. */
#include "base/err.h"
#include "report/energy_report.h"
#include "folder.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void expect_json(const struct text *t)
{
    json_t *o;
    if (json_parse(t->data, t->length, "report", &o) < 0)
        err_panic("what was written is no JSON: %s\n%s", err_message(), t->data);
    json_decref(o);
}

static void see_reports(const struct energy_ledger *l)
{
    const struct energy_run run = { .name = "fuzz", .model = "a \"model\"" };
    struct text out = { 0 };
    i64 commas = 0, quoted = 0;
    energy_report_text(l, &out);
    text_clear(&out);
    energy_report_card(l, &run, &out);
    text_clear(&out);
    energy_report_csv(l, &run, &out);
    for (const char *c = out.data; *c && *c != '\n'; c++) {
        quoted ^= *c == '"';
        commas += *c == ',' && !quoted;
    }
    if (commas != 37)
        err_panic("%lld columns", (long long)commas + 1);
    text_clear(&out);
    energy_report_cyclonedx(l, &run, &out);
    expect_json(&out);
    text_fini(&out);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    static const char name[] = "energy.json";
    struct energy_ledger l, again;
    struct json j;
    fuzz_file(name, data, (i64)bytes);
    if (energy_ledger_read(&l, fuzz_path(name)) == OK) {
        json_writer_init(&j);
        energy_ledger_put(&l, &j);
        expect_json(&j.out);
        fuzz_file(name, j.out.data, j.out.length);
        if (energy_ledger_read(&again, fuzz_path(name)) < 0)
            err_panic("what was written is refused: %s\n%s", err_message(), j.out.data);
        if (memcmp(&l, &again, sizeof l) != 0)
            err_panic("a ledger changed: %s", j.out.data);
        json_writer_fini(&j);
        see_reports(&l);
    } else if (!*err_message()) {
        err_panic("refused without a message");
    }
    fuzz_file(name, NULL, -1);
    return 0;
}
