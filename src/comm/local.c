#include "comm/local.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/node.h"
#include "comm/transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* For all ranks to be there; and for ranks to end by themselves after one failed. */
static const u64 meet_ns = (u64)60 * 1000 * 1000 * 1000;
static const u64 grace_ns = (u64)3 * 1000 * 1000 * 1000;

int comm_shm_new(struct comm **out, struct node *node, int rank, int size, double deadline_s)
{
    struct comm *c;
    TRY(comm_new(&c, &shm_transport, rank, size));
    c->deadline_ns = (u64)(1e9 * deadline_s);
    node_sit(node, rank, rank);
    int rc = node_meet(node, meet_ns);
    if (rc < 0) {
        comm_free(c);
        return rc;
    }
    c->node = node;
    for (int r = 0; r < size; r++)
        c->flights[r] = node_flight(node, r);
    *out = c;
    return OK;
}

void comm_fail(struct comm *c, int code)
{
    char text[600];
    c->failed = code;
    if (!c->node || node_check(c->node) < 0)
        return; /* all know of another one */
    if (c->together) /* whoever was the first, all would say it */
        snprintf(text, sizeof text, "%s", err_message());
    else
        snprintf(text, sizeof text, "rank %d: %s", c->rank, err_message());
    node_note(c->node, code, text);
}

static _Noreturn void be_rank(const struct comm_local *l, struct node *node, int rank,
                              comm_body body, void *context)
{
    struct comm *c;
    sys_die_with_parent();
    int rc = comm_shm_new(&c, node, rank, l->ranks, l->deadline_s);
    if (rc >= 0) {
        rc = body(c, context);
        if (rc < 0)
            comm_fail(c, rc);
        comm_free(c);
    }
    sys_exit_now(rc < 0 ? EXIT_FAILED : EXIT_OK);
}

struct child {
    int pid, code;
    bool ended;
};

static void record_end(struct child *children, int n, int pid, int code)
{
    for (int r = 0; r < n; r++) {
        if (children[r].pid == pid) {
            children[r].ended = true;
            children[r].code = code;
        }
    }
}

/* Returns when all have ended; after the first bad end the others have a while. */
static void wait_for(struct child *children, int n)
{
    u64 bad_ns = 0;
    for (int ended = 0; ended < n;) {
        int code = 0, pid = sys_wait_child(bad_ns == 0, &code);
        if (pid < 0)
            return;
        if (pid > 0) {
            sys_pass_no_more(pid);
            record_end(children, n, pid, code);
            ended++;
            if (code != 0 && bad_ns == 0)
                bad_ns = sys_now_ns();
            continue;
        }
        if (sys_now_ns() - bad_ns > grace_ns)
            for (int r = 0; r < n; r++)
                if (!children[r].ended)
                    sys_kill(children[r].pid);
        sys_sleep_ns(2 * 1000 * 1000);
    }
}

static int result_of(const struct child *children, int n, struct node *node)
{
    int rc = node_check(node);
    for (int r = 0; r < n && rc == OK; r++)
        if (children[r].code < 0)
            rc = err_set(ERR_PEER, "rank %d died of signal %d", r, -children[r].code);
    for (int r = 0; r < n && rc == OK; r++)
        if (children[r].code > 0)
            rc = err_set(ERR_PEER, "rank %d ended with code %d", r, children[r].code);
    return rc;
}

static int start_ranks(const struct comm_local *l, struct node *node, struct child *children,
                       comm_body body, void *context)
{
    for (int r = 0; r < l->ranks; r++) {
        children[r].pid = sys_fork();
        if (children[r].pid == 0)
            be_rank(l, node, r, body, context);
        if (children[r].pid > 0)
            continue;
        int rc = err_set(ERR_SYS, "cannot start rank %d of %d: %s", r, l->ranks,
                         strerror(errno));
        for (int k = 0; k < r; k++)
            sys_kill(children[k].pid);
        wait_for(children, r);
        return rc;
    }
    return OK;
}

/* Whoever stops this process means the ranks, which know how to stop. */
static void pass_signals_to(const struct child *children, int n, struct arena *a)
{
    int *pids = ARENA_ARRAY(a, int, n);
    for (int r = 0; r < n; r++)
        pids[r] = children[r].pid;
    sys_pass_signals(pids, n);
}

/* Ranks that did not catch the signal: then neither did this process. */
static void die_as_ranks(const struct child *children, int n)
{
    const int number = sys_passed_signal();
    for (int r = 0; r < n; r++)
        if (number > 0 && children[r].code == -number)
            sys_die_of(number);
}

int comm_local_run(const struct comm_local *l, comm_body body, void *context)
{
    int memory;
    struct node *node = NULL;
    struct arena arena;
    arena_init(&arena);
    struct child *children = ARENA_ARRAY(&arena, struct child, l->ranks);
    int rc;
    TRY_TO(done, node_new(&memory, l->ranks, l->slot_bytes ? l->slot_bytes : COMM_SLOT_BYTES));
    TRY_TO(done, node_open(&node, memory));
    TRY_TO(done, start_ranks(l, node, children, body, context));
    pass_signals_to(children, l->ranks, &arena);
    wait_for(children, l->ranks);
    die_as_ranks(children, l->ranks);
    rc = result_of(children, l->ranks, node);
done:
    node_close(node);
    arena_fini(&arena);
    return rc;
}
