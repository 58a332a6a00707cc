/* diagnose/record_check.h - whether what a record's index tells of can be read: all of it is. */
#ifndef HEADWAY_DIAGNOSE_RECORD_CHECK_H
#define HEADWAY_DIAGNOSE_RECORD_CHECK_H

#include "diagnose/record.h"

enum { RECORD_CHECK_NAMED = 8 };

struct record_check_steps {
    i64 n, named[RECORD_CHECK_NAMED]; /* the first of them, from 0 */
};

struct record_check {
    struct record_check_steps damaged; /* spans of some rank cannot be read */
    struct record_check_steps absent;  /* spans of a rank that has a file are not in it */
    i64 samples;                       /* that cannot be read */
};

int record_check(struct record_check *out, struct record *r);

#endif
