/* Kernels against the reference (see selftest.h). */
#include "backend/selftest_trial.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLACES = TASK_INS + TASK_OUTS, POISON = 0xff, GUARD = 64 };

/* A tensor that the kernel writes. */
struct written {
    struct tensor *tensor;
    char name[16];
    bool sum;    /* accumulated: see op_info.accumulates */
    void *first; /* what it holds before the kernel runs */
    void *expected, *alone; /* by the reference; by the kernel with one thread */
};

struct read {
    struct tensor *tensor;
    void *copy;
};

struct check {
    struct trial trial;
    struct written written[PLACES];
    int n_written;
    struct read reads[TASK_INS];
    int n_reads;
    u8 *workspace;
};

/* How a task that sums may be told to begin. */
static const struct mode {
    const char *name;
    enum accumulate accumulate;
    int micro_batch;
    bool keeps;
} modes[] = {
    { "overwriting", ACCUMULATE_NONE, 0, false },
    { "in the first micro-batch", ACCUMULATE_STEP, 0, false },
    { "in the second micro-batch", ACCUMULATE_STEP, 1, true },
    { "adding", ACCUMULATE_ALWAYS, 0, true },
};

static void *copy_of(struct check *c, const struct tensor *t)
{
    void *p = arena_alloc(&c->trial.arena, tensor_bytes(t));
    memcpy(p, t->data, (size_t)tensor_bytes(t));
    return p;
}

static void restore(const struct tensor *t, const void *bytes)
{
    memcpy(t->data, bytes, (size_t)tensor_bytes(t));
}

/* --- what is written, what is only read --------------------------------------------- */

/* State that the kernel reads and writes: its content matters. */
static bool is_kept(const struct tensor *t)
{
    return t->role == ROLE_PARAM || t->role == ROLE_STATE;
}

static void add_written(struct check *c, struct tensor *t, const char *kind, int k, bool sum)
{
    struct written *w = &c->written[c->n_written++];
    *w = (struct written){ .tensor = t, .sum = sum };
    snprintf(w->name, sizeof w->name, "%s[%d]", kind, k);
    w->first = copy_of(c, t);
    w->expected = copy_of(c, t);
    w->alone = copy_of(c, t);
}

static void survey(struct check *c)
{
    const struct task *t = c->trial.task;
    for (int k = 0; k < t->op->n_out; k++) {
        bool sum = t->op->accumulates && (t->op->sums == 0 || (t->op->sums >> k & 1));
        if (t->out[k])
            add_written(c, t->out[k], "out", k, sum);
    }
    for (int k = 0; k < t->op->n_in; k++) {
        if (t->in[k] && t->in[k]->role == ROLE_STATE)
            add_written(c, t->in[k], "in", k, false); /* a cache */
        else if (t->in[k])
            c->reads[c->n_reads++] = (struct read){ t->in[k], copy_of(c, t->in[k]) };
    }
}

/* Sums begin with numbers when they are kept; what must be overwritten begins as NaN. */
static void fill_first(struct check *c, const struct mode *mode)
{
    for (int i = 0; i < c->n_written; i++) {
        struct written *w = &c->written[i];
        i64 bytes = tensor_bytes(w->tensor);
        if (w->sum && mode->keeps) {
            struct rng key = { (u64)i, rng_stream("sum") };
            struct tensor filled = *w->tensor;
            filled.data = w->first;
            for (i64 e = 0; e < tensor_count(&filled); e++)
                tensor_set(&filled, e, rng_normal(&key, (u64)e));
        } else if (w->sum || !is_kept(w->tensor)) {
            memset(w->first, POISON, (size_t)bytes);
        }
    }
}

/* --- running ------------------------------------------------------------------------ */

static int run_kernel(struct check *c, const struct kernel *k, int threads,
                      const struct mode *mode)
{
    struct trial *t = &c->trial;
    struct run x = { .backend = t->test->backend, .pool = t->test->pools[threads - 1],
                     .workspace = c->workspace, .micro_batch = mode->micro_batch,
                     .context = k->context };
    x.workspace_bytes = k->workspace ? k->workspace(t->task, threads, k->context) : 0;
    memset(c->workspace, POISON, (size_t)(x.workspace_bytes + GUARD));
    t->task->accumulate = mode->accumulate;
    k->run(t->task, &x);
    for (i64 i = 0; i < GUARD; i++)
        if (c->workspace[x.workspace_bytes + i] != POISON)
            return trial_fail(t, "%d threads write behind the %lld bytes of scratch asked for",
                              threads, (long long)x.workspace_bytes);
    for (int i = 0; i < c->n_reads; i++)
        if (memcmp(c->reads[i].tensor->data, c->reads[i].copy,
                   (size_t)tensor_bytes(c->reads[i].tensor)) != 0)
            return trial_fail(t, "the kernel changes its input %s", c->reads[i].tensor->name);
    return OK;
}

static void restore_all(struct check *c)
{
    for (int i = 0; i < c->n_written; i++)
        restore(c->written[i].tensor, c->written[i].first);
}

/* --- comparing ---------------------------------------------------------------------- */

/* Rounding to the dtype, plus, in f32, sums of hundreds of terms in any order; integers are
 * exact. A bf16 result may fall on the other side of a tie: one unit in the last place is
 * at most 2^-7 of the value. f64 results (norms, losses) are sums of f32 numbers. */
static double bound_of(const struct tensor *t, double wish)
{
    switch (t->dtype) {
    case DTYPE_F32: return fmax(wish, 1e-5);
    case DTYPE_BF16: return fmax(wish, 0x1p-7);
    case DTYPE_F64: return fmax(wish, 1e-7);
    default: return 0;
    }
}

/* What the example asks of this kernel's output; 0: what is usual. */
static double wish_of(const struct check *c, const struct written *w)
{
    const struct op_example *e = &c->trial.example;
    const bool first = w->tensor == c->trial.task->out[0];
    if (!c->trial.test->backend->rounds_within)
        return e->bound;
    return first && e->within_first > 0 ? e->within_first : fmax(e->bound, e->within_bound);
}

static double rms(const struct tensor *t)
{
    double sum = 0;
    for (i64 i = 0; i < tensor_count(t); i++)
        sum += tensor_get(t, i) * tensor_get(t, i);
    return sqrt(sum / (double)i64_max(1, tensor_count(t)));
}

static int compare(struct check *c, const struct written *w, const struct mode *mode)
{
    struct tensor expected = *w->tensor;
    expected.data = w->expected;
    double bound = bound_of(w->tensor, wish_of(c, w)), scale = rms(&expected);
    double worst = 0;
    i64 at = 0;
    for (i64 i = 0; i < tensor_count(&expected); i++) {
        double want = tensor_get(&expected, i), got = tensor_get(w->tensor, i);
        double share = got == want ? 0 : fabs(got - want) / (bound * (fabs(want) + scale));
        if (!(share <= worst)) { /* NaN too */
            worst = share;
            at = i;
        }
        if (isnan(share))
            break;
    }
    if (trial_note(&c->trial, worst, 1))
        return OK;
    return trial_fail(&c->trial, "%s element %lld is %.9g, the reference says %.9g (%s, error "
                      "%.3g times what is allowed)", w->name, (long long)at,
                      tensor_get(w->tensor, at), tensor_get(&expected, at), mode->name, worst);
}

static int check_threads(struct check *c, const struct kernel *k, const struct mode *mode)
{
    for (int threads = 2; threads <= SELFTEST_THREADS; threads++) {
        restore_all(c);
        TRY(run_kernel(c, k, threads, mode));
        for (int i = 0; i < c->n_written; i++) {
            const struct written *w = &c->written[i];
            if (memcmp(w->tensor->data, w->alone, (size_t)tensor_bytes(w->tensor)) != 0)
                return trial_fail(&c->trial, "%s differs between 1 and %d threads (%s)",
                                  w->name, threads, mode->name);
            c->trial.test->checks++;
        }
    }
    return OK;
}

/* out[0] in the place of in[i]. */
static int check_place(struct check *c, const struct kernel *k, int i, const struct mode *mode)
{
    struct task *t = c->trial.task;
    struct tensor *out = t->out[0], *in = t->in[i];
    void *input = copy_of(c, in), *place = out->data;
    restore_all(c);
    out->data = in->data;
    int n_reads = c->n_reads;
    c->n_reads = 0; /* this input does change */
    int rc = run_kernel(c, k, SELFTEST_THREADS, mode);
    c->n_reads = n_reads;
    bool same = memcmp(out->data, c->written[0].alone, (size_t)tensor_bytes(out)) == 0;
    restore(in, input);
    out->data = place;
    c->trial.test->checks++;
    if (rc >= 0 && !same)
        rc = trial_fail(&c->trial, "out[0] in the place of in[%d] gives other bits (%s)", i,
                        mode->name);
    return rc;
}

static int check_mode(struct check *c, const struct kernel *k, const struct mode *mode)
{
    const struct task *t = c->trial.task;
    struct kernel reference = { .run = t->op->run_ref, .workspace = t->op->ref_workspace };
    fill_first(c, mode);
    restore_all(c);
    TRY(run_kernel(c, &reference, 1, mode));
    for (int i = 0; i < c->n_written; i++)
        memcpy(c->written[i].expected, c->written[i].tensor->data,
               (size_t)tensor_bytes(c->written[i].tensor));
    restore_all(c);
    TRY(run_kernel(c, k, 1, mode));
    for (int i = 0; i < c->n_written; i++) {
        TRY(compare(c, &c->written[i], mode));
        memcpy(c->written[i].alone, c->written[i].tensor->data,
               (size_t)tensor_bytes(c->written[i].tensor));
    }
    if (k->run != t->op->run_ref) /* the reference knows no threads */
        TRY(check_threads(c, k, mode));
    for (int i = 0; i < t->op->n_in; i++)
        if ((t->op->in_place >> i & 1) && t->in[i] &&
            tensor_bytes(t->in[i]) == tensor_bytes(t->out[0]))
            TRY(check_place(c, k, i, mode));
    return OK;
}

static int check_example(struct check *c, const struct kernel *k)
{
    struct trial *t = &c->trial;
    i64 most = 0;
    if (t->task->op != t->op)
        return trial_fail(t, "its last task must be the op itself");
    trial_allocate(t);
    trial_run(t, 0, t->graph.n_tasks - 1, false);
    survey(c);
    if (t->op->ref_workspace)
        most = t->op->ref_workspace(t->task, 1, NULL);
    for (int threads = 1; threads <= SELFTEST_THREADS && k->workspace; threads++)
        most = i64_max(most, k->workspace(t->task, threads, k->context));
    c->workspace = arena_alloc(&t->arena, most + GUARD);
    for (i64 m = 0; m < (t->op->accumulates ? COUNT_OF(modes) : 1); m++)
        TRY(check_mode(c, k, &modes[m]));
    return OK;
}

int selftest_kernels(struct selftest *s, const struct op_info *op)
{
    static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16 };
    const struct kernel *k = backend_kernel(s->backend, op);
    if (!op->run_ref)
        return OK;
    if (!op->example)
        return err_set(ERR_INTERNAL, "%s describes no example of itself", op->name);
    if (!k->run)
        return err_set(ERR_INTERNAL, "the %s backend has no kernel for %s", s->backend->name,
                       op->name);
    for (i64 d = 0; d < COUNT_OF(dtypes); d++) {
        for (int n = 0;; n++) {
            struct check c = { .n_written = 0 };
            int rc = trial_init(&c.trial, s, op, n, dtypes[d]);
            if (rc == 1 && n == 0)
                return err_set(ERR_INTERNAL, "%s describes no example of itself", op->name);
            if (rc == 1)
                break;
            TRY(rc);
            rc = check_example(&c, k);
            trial_fini(&c.trial);
            TRY(rc);
        }
    }
    return OK;
}
