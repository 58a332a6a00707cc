/* The chunked loss head (see program.h). Logits of one chunk of rows are formed, turned
 * into their own gradient, used for dx and dw, and forgotten, before the next chunk: a
 * V-wide matrix of all rows never exists. */
#include "graph/program.h"

#include <string.h>

/* Tasks [from, to) that are not in the head, in their order. */
static i64 take_plain(const struct graph *g, i64 from, i64 to, struct task **out)
{
    i64 n = 0;
    for (i64 i = from; i < to; i++)
        if (!g->tasks[i]->head)
            out[n++] = g->tasks[i];
    return n;
}

/* Those in the head, chunk by chunk, each chunk's forward before its backward: a counting
 * sort, because long rows make tens of thousands of chunks. */
static i64 take_head(const struct graph *g, i64 forward, i64 backward, struct task **out)
{
    int chunks = 0;
    for (i64 i = 0; i < backward; i++)
        if (g->tasks[i]->head && g->tasks[i]->chunk >= chunks)
            chunks = g->tasks[i]->chunk + 1;
    i64 *at = ARENA_ARRAY(g->arena, i64, 2 * chunks + 1);
    for (i64 i = 0; i < backward; i++)
        if (g->tasks[i]->head)
            at[2 * g->tasks[i]->chunk + (i >= forward) + 1]++;
    for (int k = 0; k < 2 * chunks; k++)
        at[k + 1] += at[k];
    i64 n = at[2 * chunks];
    for (i64 i = 0; i < backward; i++)
        if (g->tasks[i]->head)
            out[at[2 * g->tasks[i]->chunk + (i >= forward)]++] = g->tasks[i];
    return n;
}

int pass_chunk_head(struct graph *g)
{
    TRY(g->rc);
    i64 forward = 0, backward, n = 0;
    while (forward < g->n_tasks && g->tasks[forward]->phase == PHASE_FORWARD)
        forward++;
    for (backward = forward; backward < g->n_tasks; backward++)
        if (g->tasks[backward]->phase == PHASE_UPDATE)
            break;
    struct task **order = ARENA_ARRAY(g->arena, struct task *, g->n_tasks);
    n = take_plain(g, 0, forward, order);
    i64 head_begin = n;
    n += take_head(g, forward, backward, order + n);
    for (i64 i = head_begin; i < n; i++)
        if (order[i]->phase == PHASE_FORWARD)
            order[i]->phase = PHASE_INPUT_GRAD;
    n += take_plain(g, forward, backward, order + n);
    memcpy(order + n, g->tasks + backward, sizeof *order * (size_t)(g->n_tasks - backward));
    memcpy(g->tasks, order, sizeof *order * (size_t)g->n_tasks);
    return OK;
}
