#include "backend/away_lane.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_share.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
    QUEUE = 1024,
    /* Copied at a time, and then forgotten: what is away is in memory only so far. */
    PART = 1 << 20,
};

struct job {
    const struct tensor *from, *to;
    const void *source; /* their places when the task was started */
    void *target;
    struct trace *trace; /* NULL: nobody asks */
    struct span span;
};

struct away_lane {
    pthread_t thread;
    struct job jobs[QUEUE]; /* [ended, started), each at its number modulo QUEUE */
    u64 started, ended;
    atomic_llong bytes;
    bool stop;
    pthread_mutex_t lock; /* of the two counters and stop */
    pthread_cond_t work, done;
    const struct lane_driver *others;
    struct lane_driver lanes;
};

static bool is_away(const struct tensor *t)
{
    return (t->owner ? t->owner : t)->role == ROLE_AWAY;
}

static void carry_out(struct away_lane *l, struct job *j)
{
    j->span.begin_ns = sys_now_ns();
    const i64 bytes = tensor_bytes(j->from);
    u8 *target = j->target, *away = is_away(j->from) ? (u8 *)(uintptr_t)j->source : target;
    for (i64 at = 0; at < bytes; at += PART) {
        const i64 n = i64_min(PART, bytes - at);
        memcpy(target + at, (const u8 *)j->source + at, (size_t)n);
        sys_forget_pages(away + at, n);
    }
    sys_forget_pages(away, bytes); /* pages that two parts share */
    atomic_fetch_add(&l->bytes, bytes);
    j->span.end_ns = sys_now_ns();
    if (j->trace) /* this thread is the lane's only writer */
        trace_add(j->trace, &j->span);
}

static void *lane_main(void *argument)
{
    struct away_lane *l = argument;
    pthread_mutex_lock(&l->lock);
    while (!l->stop || l->ended < l->started) {
        if (l->ended == l->started) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        struct job job = l->jobs[l->ended % QUEUE];
        pthread_mutex_unlock(&l->lock);
        carry_out(l, &job);
        pthread_mutex_lock(&l->lock);
        l->ended++;
        pthread_cond_broadcast(&l->done);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static int start(void *context, const struct task *t, struct run *x, u64 *ticket)
{
    struct away_lane *l = context;
    if (t->lane != LANE_AWAY)
        return l->others->start(l->others->context, t, x, ticket);
    pthread_mutex_lock(&l->lock);
    while (l->started - l->ended == QUEUE)
        pthread_cond_wait(&l->done, &l->lock);
    l->jobs[l->started++ % QUEUE] = (struct job){
        t->in[0], t->out[0], t->in[0]->data, t->out[0]->data, x->trace,
        { .step = (u32)x->step, .action = (u16)x->action, .task = t->id,
          .lane = (u8)trace_of_lane(LANE_AWAY), .kind = SPAN_CALL } };
    *ticket = l->started;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
    return OK;
}

static int wait_for(void *context, enum lane lane, u64 ticket, bool block)
{
    struct away_lane *l = context;
    if (lane != LANE_AWAY)
        return l->others->wait(l->others->context, lane, ticket, block);
    pthread_mutex_lock(&l->lock);
    while (block && l->ended < ticket)
        pthread_cond_wait(&l->done, &l->lock);
    int rc = l->ended >= ticket;
    pthread_mutex_unlock(&l->lock);
    return rc;
}

int away_lane_new(struct away_lane **out, const struct lane_driver *others)
{
    struct away_lane *l = sys_alloc((i64)sizeof *l, 64);
    if (!l)
        return err_set(ERR_LIMIT, "no memory for the lane to slower memory");
    memset(l, 0, sizeof *l);
    l->others = others;
    l->lanes = (struct lane_driver){ l, start, wait_for };
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    int rc = pthread_create(&l->thread, NULL, lane_main, l);
    if (rc != 0) {
        sys_free(l);
        return err_set(ERR_SYS, "cannot start the thread that copies to slower memory: %s",
                       strerror(rc));
    }
    *out = l;
    return OK;
}

void away_lane_free(struct away_lane *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    sys_free(l);
}

const struct lane_driver *away_lane_driver(const struct away_lane *l)
{
    return &l->lanes;
}

i64 away_lane_bytes(const struct away_lane *l)
{
    return atomic_load(&l->bytes);
}
