/* report/run_metrics.h - metrics.jsonl as curves, read once, or again and again as it grows.
 *
 * Every number of a line becomes a point of the curve EVENT/KEY/..., over the line's step:
 * "step/loss", "step/sources/NAME", "eval/loss", "health/parameters/NAME/grad",
 * "health/attention_logit_max/3". Seconds since the first line are EVENT/since. What a file
 * may hold is bounded: curves beyond METRICS_SERIES, levels beyond METRICS_DEPTH and
 * lines longer than METRICS_LINE are left out and counted. A last line without its
 * newline is left for the next reading: it is being written. */
#ifndef HEADWAY_RUN_METRICS_H
#define HEADWAY_RUN_METRICS_H

#include "base/json.h"
#include "report/series.h"

enum {
    METRICS_SERIES = 16384, METRICS_DEPTH = 4, METRICS_LINE = 1 << 24, METRICS_NOTES = 256,
    METRICS_POINTS = 2048,  /* of one curve; */
    METRICS_FEW_POINTS = 256 /* of those that a run has very many of: each parameter's health */
};

/* An event that is no regular measurement: a spike, a step that was skipped. */
struct metrics_note {
    double step; /* NaN: it names none */
    char *text;  /* the whole line */
};

struct run_metrics {
    struct series *series;
    i64 n_series;
    i32 *slots; /* of a hash table of names; 0: free, else 1 + index */
    i64 n_slots;
    struct metrics_note notes[METRICS_NOTES]; /* the newest; a ring */
    i64 n_notes; /* ever */
    i64 lines, bad_lines, left_out; /* left_out: numbers without a curve */
    double first_t, last_t; /* seconds since the epoch; NaN: no line has one */
    i64 offset, inode;      /* of the file: what was read */
    struct text partial;
};

void run_metrics_init(struct run_metrics *m);
void run_metrics_fini(struct run_metrics *m);

/* Reads what was appended since the last time; true in *changed if something was. A file that was
 * replaced or became shorter is read from its beginning. No file: no curves, no error. */
int run_metrics_read(struct run_metrics *m, const char *path, bool *changed);
/* A part of the file's text, cut anywhere. */
void run_metrics_feed(struct run_metrics *m, const char *text, i64 bytes);

/* The value that came last, and in *x its step (NULL: not wanted); NaN: there is none. */
double run_metrics_newest(const struct run_metrics *m, const char *name, double *x);

/* An object: "x" (a list of packed steps), "series" (name, which x, packed values), "notes". */
void run_metrics_put(const struct run_metrics *m, struct json *j);

#endif
