/* Any bytes as the files of a run's folder beside its record, with a byte 30 between them: what
 * diagnose takes from them, the page's JSON, and what tune makes of a trial. */
#include "base/err.h"
#include "diagnose/measure_record.h"
#include "report/run_page.h"
#include "tune/timing.h"
#include "folder.h"

#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static const char *const names[] = { "recipe.yaml", "manifest.json", "metrics.jsonl", "energy.json",
                                     INJECT_PROBES_FILE, "log.txt" };

static void write_files(const u8 *data, i64 bytes)
{
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        const u8 *end = bytes > 0 ? memchr(data, 30, (size_t)bytes) : NULL;
        const bool last = i + 1 == COUNT_OF(names) || !end;
        const i64 n = last ? bytes : end - data;
        fuzz_file(names[i], data, bytes > 0 ? n : -1);
        data += bytes > 0 && !last ? n + 1 : 0;
        bytes = last ? 0 : bytes - n - 1;
    }
}

static void see_measure(void)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = measure_new(4, 8, &a);
    measure_config(m, fuzz_folder(), &a);
    const struct measure_probed *p = &m->config.probed;
    if (p->bytes_per_s > 0 && (p->a < 0 || p->b <= p->a || p->b >= 4))
        err_panic("a link between ranks %d and %d of 4", p->a, p->b);
    for (int i = 0; i < m->n_unread; i++)
        if (!*m->unread[i])
            err_panic("a file is not read, without a reason");
    arena_fini(&a);
}

static void see_page(void)
{
    struct run_page p;
    struct run_page *const pages[] = { &p };
    struct text out = { 0 };
    json_t *o;
    bool changed;
    if (run_page_open(&p, fuzz_folder()) < 0)
        return;
    run_page_read(&p, &changed);
    run_page_data(pages, 1, RUN_PAGE_CURVES, &out);
    if (strchr(out.data, '<'))
        err_panic("a '<' in the page's block");
    if (json_parse_text(out.data, out.length, "page", 1, &o) < 0)
        err_panic("what was written is no JSON: %s", err_message());
    json_decref(o);
    text_fini(&out);
    run_page_close(&p);
}

static void see_trial(void)
{
    struct arena a;
    struct timing_result r;
    arena_init(&a);
    if (timing_read(&r, fuzz_folder(), &a) == OK) {
        if (r.steps < 1 || !isfinite(r.joules_per_token) || !isfinite(r.tokens))
            err_panic("a trial of %lld steps", (long long)r.steps);
    } else if (!*err_message()) {
        err_panic("refused without a message");
    }
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    write_files(data, (i64)bytes);
    see_measure();
    see_page();
    see_trial();
    fuzz_folder_end(names, COUNT_OF(names));
    return 0;
}
