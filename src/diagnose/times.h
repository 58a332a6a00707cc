/* diagnose/times.h - the classes of time that a step consists of, and what of them no finding
 * explains. */
#ifndef HEADWAY_DIAGNOSE_TIMES_H
#define HEADWAY_DIAGNOSE_TIMES_H

#include "diagnose/findings.h"

enum times_class {
    TIME_COMPUTE, TIME_DATA, TIME_WAIT, TIME_TRANSFER, TIME_LOG, TIME_EVAL, TIME_CHECKPOINT,
    TIME_GAP, TIMES
};

/* "waiting for data". Where ranks are missing, TIME_WAIT is for ranks and bytes together, and
 * TIME_TRANSFER is not known. */
const char *times_name(const struct measure *m, enum times_class k);
const char *times_key(const struct measure *m, enum times_class k); /* "data_s" */
/* Seconds a step, on the mean rank; NaN: not known. */
double times_mean(const struct measure *m, enum times_class k);

/* Seconds a step of a class that no finding accounts for, when they are at least theta and half of
 * the class; else 0. Computing needs no explanation, nor do waits that were not judged. */
double times_unexplained(const struct measure *m, const struct findings *f, enum times_class k);

/* Stages of a pipeline that no division of whole layers makes more even: what the busiest computes
 * a step, and the mean one. */
struct times_stages {
    double most_s, mean_s;
};
/* Whether such stages are most of what ranks wait for each other without a finding, `seconds`. */
bool times_of_stages(const struct measure *m, double seconds, struct times_stages *out);

#endif
