/* diagnose/each.h - steps of a record, made ready on all cores, and taken one after another.
 *
 * Reading a step, putting its spans in order and making its graph is most of what a step costs,
 * and no step needs another one: threads do that, each with its own memory. What is then made
 * of them is added up in the order of the steps, by whoever made them, so it does not depend on
 * the number of threads; meanwhile the others make the next ones ready. */
#ifndef HEADWAY_DIAGNOSE_EACH_H
#define HEADWAY_DIAGNOSE_EACH_H

#include "diagnose/record.h"

struct each {
    void *context;
    /* On any thread, of a step that could be read: what take is given, from s->arena. NULL:
     * none. *kept: what it has kept from steps that the same thread made; NULL at first. */
    void *(*make)(void *context, const struct record_step *s, void **kept);
    /* In order, on one thread at a time. rc: of reading the step; where that is an error, made
     * is NULL and nothing of s but its number is there. A negative result ends it. */
    int (*take)(void *context, const struct record_step *s, void *made, int rc);
    /* Gives back what was kept; NULL: nothing is. */
    void (*drop)(void *kept);
};

/* These of r->steps, ascending. Few steps are read by the caller's thread alone. */
int each_step(struct record *r, const i64 *steps, i64 n, const struct each *e);

#endif
