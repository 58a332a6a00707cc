/* report/run_page.h - run folders as one HTML page that needs nothing else.
 *
 * The page is a template, a style and a script (src/report/page/), made part of the program when it
 * is built, and one block of JSON with everything that is shown. The script is allowed by its hash
 * (Content-Security-Policy), so that nothing a folder holds can run: names, settings and messages
 * of a run are text, and "<" never occurs in the block. The page asks for nothing from anywhere
 * unless it is live, and then from where it came alone. */
#ifndef HEADWAY_RUN_PAGE_H
#define HEADWAY_RUN_PAGE_H

#include "base/arena.h"
#include "report/run_metrics.h"

struct run_page {
    struct arena arena;
    const char *folder, *name; /* name: the folder's last part */
    struct run_metrics metrics;
    i64 newest; /* of the steps of its timeline, counted from 0; < 0: the last that is recorded */
    const char *missing[16]; /* sentences: what could not be shown, and why */
    i64 n_missing;
    char unread[512]; /* why metrics.jsonl could not be read the last time; "": it could */
};

/* ERR_CONFIG when the folder is none of a run: neither manifest.json nor metrics.jsonl. */
int run_page_open(struct run_page *p, const char *folder);
void run_page_close(struct run_page *p);

/* Reads what is new. True in *changed if anything is. After an error the page is without curves, or
 * with those that were read before, and says why. */
int run_page_read(struct run_page *p, bool *changed);

/* The record costs most, and a live page asks for it by itself. */
enum run_page_part { RUN_PAGE_ALL, RUN_PAGE_CURVES, RUN_PAGE_RECORD };

/* The JSON of n runs, as a text without "<". Its last member is the time
 * when it was made. */
void run_page_data(struct run_page *const *runs, i64 n, enum run_page_part part, struct text *out);

/* What a browser may do with it: the Content-Security-Policy. */
void run_page_policy(bool live, struct text *out);

/* The page around it; data NULL: a live one, which asks for "data" beside itself. */
void run_page_html(const struct text *data, const char *title, struct text *out);

#endif
