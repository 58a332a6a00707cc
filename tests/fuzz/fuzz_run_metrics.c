/* Any bytes as metrics.jsonl, in two parts: curves whose points are in order, and JSON. */
#include "base/err.h"
#include "report/run_metrics.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void check_series(const struct series *s)
{
    for (i64 i = 0; i < s->n; i++) {
        const struct series_point *p = &s->points[i];
        if (p->x_last < p->x_first || (i > 0 && p->x_first <= p[-1].x_last) || p->count < 1)
            err_panic("a point that is out of order");
        if (!(p->least <= p->most))
            err_panic("least above most");
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct run_metrics m;
    struct json j;
    json_t *again;
    i64 cut = bytes > 0 ? data[0] % (i64)bytes : 0;
    run_metrics_init(&m);
    run_metrics_feed(&m, (const char *)data, cut);
    run_metrics_feed(&m, (const char *)data + cut, (i64)bytes - cut);
    for (i64 i = 0; i < m.n_series; i++)
        check_series(&m.series[i]);
    json_writer_init(&j);
    run_metrics_put(&m, &j);
    if (json_parse_text(j.out.data, j.out.length, "page", 1, &again) < 0)
        err_panic("what was written is no JSON: %s", err_message());
    json_decref(again);
    json_writer_fini(&j);
    run_metrics_fini(&m);
    return 0;
}
