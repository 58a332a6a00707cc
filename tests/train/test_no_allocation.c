/* After warm-up, a step allocates nothing: not the loop, the loader, the kernels, the log
 * or the trace; and nothing on the computing thread while a checkpoint is being written.
 * The program's own malloc counts; it serves the shared libraries too. */
#define JOB_DIR "no-allocation-test"
#include "train/job.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
TEST(a_step_allocates_nothing)
{
    skip(); /* a sanitizer's malloc cannot be replaced */
}
#else

/* glibc's own, under the names that stay when malloc is replaced. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static atomic_llong all_threads;
static _Thread_local i64 this_thread;

static void count(void)
{
    atomic_fetch_add(&all_threads, 1);
    this_thread++;
}

void *malloc(size_t bytes)
{
    count();
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    count();
    return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes)
{
    count();
    return __libc_realloc(p, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    count();
    return __libc_memalign(align, bytes);
}

enum { STEPS = 40, SAVED = 20, WRITTEN = 30 };

struct counts {
    struct session *s;
    i64 all[STEPS + 1], mine[STEPS + 1];
    u64 mapped[STEPS + 1];
};

static void note(void *context, const struct train_status *status)
{
    struct counts *c = context;
    struct checkpoint_result r;
    if (status->step == WRITTEN)
        CHECK_OK(checkpoint_wait(c->s->writer, 0, &r));
    c->all[status->step] = atomic_load(&all_threads);
    c->mine[status->step] = this_thread;
    c->mapped[status->step] = sys_op_count(SYS_ALLOC) + sys_op_count(SYS_MMAP);
}

static void train_counted(struct counts *c, const char *snapshot, const char *model)
{
    const char *sets[] = { "train.steps=40", "eval.every=0", "checkpoint.every=20",
                           "train.threads=2", "train.accumulate=2", snapshot, model, NULL };
    struct session s;
    struct job j;
    *c = (struct counts){ .s = &s };
    open_job(&j, snapshot + strlen("checkpoint.snapshot="), sets);
    j.request.hooks.context = c;
    j.request.hooks.progress = note;
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    session_close(&s);
    arena_fini(&j.arena);
}

/* The first steps grow buffers that are then kept. The save of step 20 stands between the
 * counts of steps 20 and 21. */
static void check_counts(const struct counts *c)
{
    enum { WARM = 5 };
    CHECK(c->mine[SAVED + 1] > c->mine[SAVED]); /* the counter does count */
    for (int step = WARM + 1; step < STEPS; step++) {
        if (step == SAVED + 1)
            continue;
        CHECK_EQ(c->mine[step] - c->mine[step - 1], 0);
        if (step > SAVED && step <= WRITTEN)
            continue; /* the io thread is writing */
        CHECK_EQ(c->all[step] - c->all[step - 1], 0);
        CHECK_EQ(c->mapped[step] - c->mapped[step - 1], 0);
    }
}

TEST(a_step_allocates_nothing)
{
    static struct counts c;
    make_corpus();
    train_counted(&c, "checkpoint.snapshot=copy", NULL);
    check_counts(&c);
    train_counted(&c, "checkpoint.snapshot=live", NULL);
    check_counts(&c);
    sys_remove_tree(JOB_DIR "/runs");
    train_counted(&c, "checkpoint.snapshot=copy", JOB_EXPERTS);
    check_counts(&c);
    sys_remove_tree(JOB_DIR);
}
#endif

TEST_MAIN(ONE(a_step_allocates_nothing))
