/* The chunked loss head (see program.h). Logits of one chunk of rows are formed, turned
 * into their own gradient, used for dx and dw, and forgotten, before the next chunk: a
 * V-wide matrix of all rows never exists. */
#include "graph/program.h"

#include <string.h>

static bool belongs(const struct task *t, int chunk)
{
    return t->head && t->chunk == chunk;
}

static bool plain(const struct task *t, int unused)
{
    (void)unused;
    return !t->head;
}

static i64 take(struct graph *g, i64 from, i64 to, bool (*wanted)(const struct task *, int),
                int chunk, struct task **out)
{
    i64 n = 0;
    for (i64 i = from; i < to; i++)
        if (wanted(g->tasks[i], chunk))
            out[n++] = g->tasks[i];
    return n;
}

int pass_chunk_head(struct graph *g)
{
    TRY(g->rc);
    i64 forward = 0, backward, n = 0;
    int chunks = 0;
    while (forward < g->n_tasks && g->tasks[forward]->phase == PHASE_FORWARD) {
        if (g->tasks[forward]->head && g->tasks[forward]->chunk >= chunks)
            chunks = g->tasks[forward]->chunk + 1;
        forward++;
    }
    for (backward = forward; backward < g->n_tasks; backward++)
        if (g->tasks[backward]->phase == PHASE_UPDATE)
            break;
    struct task **order = ARENA_ARRAY(g->arena, struct task *, g->n_tasks);
    n += take(g, 0, forward, plain, 0, order);
    i64 head_begin = n;
    for (int chunk = 0; chunk < chunks; chunk++) {
        n += take(g, 0, forward, belongs, chunk, order + n);
        n += take(g, forward, backward, belongs, chunk, order + n);
    }
    for (i64 i = head_begin; i < n; i++)
        if (order[i]->phase == PHASE_FORWARD)
            order[i]->phase = PHASE_INPUT_GRAD;
    n += take(g, forward, backward, plain, 0, order + n);
    memcpy(order + n, g->tasks + backward, sizeof *order * (size_t)(g->n_tasks - backward));
    memcpy(g->tasks, order, sizeof *order * (size_t)g->n_tasks);
    return OK;
}
