/* Gradient rules against finite differences (see selftest.h).
 *
 * For each weight w behind an example and a random direction v:
 *   <dL/dw, v>  =  (L(w + h v) - L(w - h v)) / 2h + O(h^2)
 * L is the sum of out[0] times random cotangents, or what the example names. All in double,
 * with h = 1e-5 of the size of w: truncation and rounding are both near 1e-9 of the slope,
 * so a bound of 1e-6 is tight. */
#include "backend/selftest_trial.h"
#include "base/rng.h"

#include <math.h>

enum { WEIGHTS = 64, DIRECTIONS = 2 };
static const double step_share = 1e-5, bound_share = 1e-6;

/* --- the cotangent enters through an op of its own ---------------------------------- */

static int probe_infer(struct graph *g, struct task *t)
{
    (void)g;
    (void)t;
    return OK;
}

static void probe_run(const struct task *t, struct run *x)
{
    (void)t;
    (void)x;
}

static void probe_grad(struct graph *g, const struct task *t)
{
    grad_add(g, t->in[0], t->in[1]);
}

/* in: y, cotangent; computes nothing; the gradient of y is the cotangent. */
static const struct op_info op_probe = {
    .name = "probe", .n_in = 2, .infer = probe_infer, .grad = probe_grad, .run_ref = probe_run,
};

static void fill_normal(const struct tensor *t, const char *stream, u64 seed)
{
    struct rng key = { seed, rng_stream(stream) };
    for (i64 i = 0; i < tensor_count(t); i++)
        tensor_set(t, i, rng_normal(&key, (u64)i));
}

static void add_probe(struct trial *t)
{
    struct tensor *y = t->task->out[0];
    struct tensor *cotangent = graph_tensor(&t->graph, ROLE_INPUT, DTYPE_F64, y->rank, y->dim,
                                            "cotangent");
    cotangent->data = arena_alloc(&t->arena, tensor_bytes(cotangent));
    fill_normal(cotangent, "cotangent", (u64)t->n);
    graph_add(&t->graph, &(struct task){ .op = &op_probe, .in = { y, cotangent } });
}

/* --- L and its slope ---------------------------------------------------------------- */

struct slopes {
    struct trial *trial;
    i64 forward; /* tasks [0, forward) compute L */
    struct tensor *weights[WEIGHTS];
    int n_weights;
};

static double loss(const struct slopes *s)
{
    struct trial *t = s->trial;
    trial_run(t, 0, s->forward, true);
    if (t->example.loss)
        return t->example.loss(t->task);
    const struct task *probe = t->graph.tasks[s->forward - 1];
    double sum = 0;
    for (i64 i = 0; i < tensor_count(probe->in[0]); i++)
        sum += tensor_get(probe->in[0], i) * tensor_get(probe->in[1], i);
    return sum;
}

static bool known(const struct slopes *s, const struct tensor *w)
{
    for (int i = 0; i < s->n_weights; i++)
        if (s->weights[i] == w)
            return true;
    return false;
}

static void find_weights(struct slopes *s)
{
    const struct graph *g = &s->trial->graph;
    for (i64 i = 0; i < s->forward; i++) {
        for (int k = 0; k < g->tasks[i]->op->n_in; k++) {
            struct tensor *w = g->tasks[i]->in[k];
            if (!w || !w->grad || known(s, w))
                continue;
            assert(s->n_weights < WEIGHTS);
            s->weights[s->n_weights++] = w;
        }
    }
}

static void move(const struct tensor *w, const struct tensor *at, const struct tensor *v,
                 double step)
{
    for (i64 i = 0; i < tensor_count(w); i++)
        tensor_set(w, i, tensor_get(at, i) + step * tensor_get(v, i));
}

static double size(const struct tensor *t)
{
    double sum = 0;
    for (i64 i = 0; i < tensor_count(t); i++)
        sum += tensor_get(t, i) * tensor_get(t, i);
    return sqrt(sum / (double)tensor_count(t));
}

static int check_slope(struct slopes *s, struct tensor *w, u64 direction)
{
    struct trial *t = s->trial;
    struct tensor v = *w, at = *w;
    i64 bytes = tensor_bytes(w);
    v.data = arena_alloc(&t->arena, bytes);
    at.data = arena_alloc(&t->arena, bytes);
    fill_normal(&v, "direction", direction);
    move(&at, w, &v, 0);
    double step = step_share * fmax(size(w), 1e-3), expected = 0, squares = 0;
    move(w, &at, &v, step);
    double up = loss(s);
    move(w, &at, &v, -step);
    double down = loss(s);
    move(w, &at, &v, 0);
    double slope = (up - down) / (2 * step);
    for (i64 i = 0; i < tensor_count(w); i++) {
        double term = tensor_get(w->grad, i) * tensor_get(&v, i);
        expected += term;
        squares += term * term;
    }
    /* The second term is the rounding of L itself: some gradients are zero. */
    double bound = bound_share * sqrt(squares) + 1e-15 * (fabs(up) + 1) / step;
    if (trial_note(t, fabs(slope - expected), bound))
        return OK;
    return trial_fail(t, "the gradient of %s has slope %.12g, finite differences say %.12g",
                      w->name, expected, slope);
}

static int check_example(struct trial *t)
{
    struct slopes s = { .trial = t };
    if (!t->example.loss)
        add_probe(t);
    s.forward = t->graph.n_tasks;
    TRY(graph_backward(&t->graph, 0, s.forward));
    trial_allocate(t);
    for (i64 i = s.forward; i < t->graph.n_tasks; i++)
        t->graph.tasks[i]->accumulate = ACCUMULATE_ALWAYS; /* gradients begin as zeros */
    trial_run(t, 0, t->graph.n_tasks, true);
    find_weights(&s);
    if (s.n_weights == 0)
        return trial_fail(t, "no input of it has a gradient to check");
    for (int i = 0; i < s.n_weights; i++)
        for (u64 d = 0; d < DIRECTIONS; d++)
            TRY(check_slope(&s, s.weights[i], d));
    return OK;
}

int selftest_gradients(struct selftest *s, const struct op_info *op)
{
    for (int n = 0; op->grad && op->run_ref; n++) {
        struct trial t;
        int rc = trial_init(&t, s, op, n, DTYPE_F64);
        if (rc == 1)
            break;
        TRY(rc);
        rc = check_example(&t);
        trial_fini(&t);
        TRY(rc);
    }
    return OK;
}
