/* comm/selftest.h - one call with known inputs, and an answer computed another way: by plain
 * loops over all members' inputs, sums by a recursive tree, bytes by the ring's formula.
 * Every transport is asked the same, in tests and on the user's own machines. */
#ifndef HEADWAY_COMM_SELFTEST_H
#define HEADWAY_COMM_SELFTEST_H

#include "comm/comm.h"

enum { TRIAL_MEMBERS = 64, TRIAL_BYTES = 1 << 16 };

struct trial {
    enum comm_op op;
    enum dtype dtype;
    enum comm_reduce reduce;
    int n;
    i64 count; /* of the whole, or of a message */
    int peer;  /* broadcast: root. send and recv: member m sends to m + 1 */
    bool exact, in_place, even;
    u32 seed;
};

/* One member's side. */
struct trial_side {
    struct comm_call call[2]; /* send and recv are a pair, the others use the first */
    int calls;
    i64 counts[TRIAL_MEMBERS], recv_counts[TRIAL_MEMBERS];
    unsigned char in[TRIAL_BYTES], out[TRIAL_BYTES];
    char wrong[256]; /* what trial_check found */
};

void trial_prepare(const struct trial *t, struct trial_side *s, struct comm_group *g);
/* NULL, or what is wrong: results, or bytes counted other than by the ring's formula. */
const char *trial_check(const struct trial *t, struct trial_side *s, int member);

/* The next of a fixed list of trials for n members: all operations, dtypes and sizes. */
bool trial_next(struct trial *t, int n, int *at);

/* Runs every step-th trial on the group; all members call it. *calls receives how many. */
int comm_selftest(struct comm_group *g, int step, i64 *calls);

#endif
