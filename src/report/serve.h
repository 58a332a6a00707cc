/* report/serve.h - what is answered to whom: a run's page, live, for this machine's user alone.
 *
 * Every path begins with a token of 128 random bits that only the printed address has; it is
 * compared in the same time whatever it is. The Host must be this server's own, which keeps out
 * pages that were made to look as if they came from here (DNS rebinding); what another site's page
 * asks for is refused. Nothing can be changed: GET and HEAD only. Paths name no files.
 *
 *     /TOKEN/        the page
 *     /TOKEN/data    its JSON but for the record; 204 when "seen" is what there is
 *     /TOKEN/record  the record, at most every SERVE_RECORD_S seconds a new one
 *     /TOKEN/metrics for Prometheus: where each run is, of what its metrics have last; in
 *                    OpenMetrics format who accepts that, as Prometheus does
 *
 * Reads of the folder are bounded in time likewise: asking often costs the run nothing. */
#ifndef HEADWAY_SERVE_H
#define HEADWAY_SERVE_H

#include "report/http_table.h"
#include "report/run_page.h"

enum {
    SERVE_DATA_S = 1, SERVE_RECORD_S = 10,
    SERVE_SHARE = 20, /* of the time, one part in so many at most is spent on reading */
    SERVE_PER_S = 30, SERVE_BURST = 120 /* requests; more are answered 429 */
};

struct serve_part {
    struct text text;
    double made;     /* when, -1: never; and how long that took */
    double took;
    u64 hash;        /* of what it says, and its name towards the page */
};

struct serve {
    struct run_page *const *runs;
    i64 n_runs;
    char token[33];
    int port;
    struct text page, policy;
    struct serve_part data, record;
    struct serve_part metrics, openmetrics; /* the same in two formats */
    double allowance, last; /* of requests; when it was counted */
};

/* Makes the token. ERR_SYS: no randomness. runs are borrowed. */
int serve_init(struct serve *s, struct run_page *const *runs, i64 n, const char *title);
void serve_fini(struct serve *s);

/* An http_answer_fn; context is the struct serve. */
void serve_answer(void *context, const struct http_request *q, struct http_answer *a);

/* The module with the HTTP library, or ERR_CONFIG when this build has none. */
int serve_load_http(const struct http_table **table);

#endif
