#include "parallel/stages.h"

#include "base/err.h"
#include "model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECEIVE_AHEAD = 1 }; /* actions: data travel while the one before computes */

static bool is_file(const struct layout *l)
{
    return schedule_kind_of(l->schedule) == SCHEDULE_KINDS;
}

static int unknown(const struct layout *l)
{
    return err_set(ERR_CONFIG, "layout.schedule %s is neither gpipe, 1f1b, interleaved, zb-h1 or "
                   "zb-v nor a file that ends in .csv", l->schedule);
}

static int check_ranks(const struct schedule *s, const struct layout *l)
{
    if (s->ranks == l->pp)
        return OK;
    return err_set(ERR_CONFIG, "the schedule %s is for %d ranks, but the layout has pp=%lld",
                   l->schedule, s->ranks, (long long)l->pp);
}

static int read_file(struct schedule *out, const struct layout *l, struct arena *a)
{
    const char *dot = strrchr(l->schedule, '.');
    if (!dot || strcmp(dot, ".csv") != 0)
        return unknown(l);
    TRY(schedule_read_file(out, l->schedule, a));
    return check_ranks(out, l);
}

static int chunks_of(const struct layout *l)
{
    int least = schedule_least_chunks(schedule_kind_of(l->schedule));
    return l->chunks > 0 ? (int)l->chunks : least;
}

int stages_place(struct stages *out, const struct layout *l, struct arena *a)
{
    struct schedule s;
    *out = (struct stages){ .n = 1 };
    if (l->pp == 1) {
        out->rank_of = ARENA_ARRAY(a, int, 1);
        return OK;
    }
    if (is_file(l)) {
        TRY(read_file(&s, l, a));
        *out = (struct stages){ s.stages, s.rank_of };
        return OK;
    }
    out->n = (int)l->pp * chunks_of(l);
    out->rank_of = ARENA_ARRAY(a, int, out->n);
    for (int t = 0; t < out->n; t++)
        out->rank_of[t] = schedule_place(schedule_kind_of(l->schedule), (int)l->pp, t);
    return OK;
}

/* --- layers ------------------------------------------------------------------------- */

/* "3+5+4" */
static int given_layers(const struct layout *l, int n, const struct model_spec *s,
                        struct layer_range *out)
{
    const char *at = l->stages;
    i64 next = 0;
    int count = 0;
    while (*at) {
        char *end;
        i64 layers = strtoll(at, &end, 10);
        if (end == at || layers < 1 || layers > s->layers || (*end && *end != '+'))
            return err_set(ERR_CONFIG, "layout.stages %s: write how many layers each stage has, "
                           "at least one, like 3+5+4", l->stages);
        if (count < n)
            out[count] = (struct layer_range){ next, layers };
        count++;
        next += layers;
        at = *end ? end + 1 : end;
    }
    if (count != n || next != s->layers)
        return err_set(ERR_CONFIG, "layout.stages %s is %d stages of %lld layers together; the "
                       "layout has %d stages and the model %lld layers", l->stages, count,
                       (long long)next, n, (long long)s->layers);
    return OK;
}

/* Of the stages of the rank that has least to do so far, the one that has least. */
static int next_stage(const struct stages *st, const double *of_rank, const double *of_stage)
{
    int best = 0;
    for (int t = 1; t < st->n; t++) {
        const double more = of_rank[st->rank_of[t]] - of_rank[st->rank_of[best]];
        if (more < 0 || (st->rank_of[t] == st->rank_of[best] && of_stage[t] < of_stage[best]))
            best = t;
    }
    return best;
}

/* Each further layer goes where there is least to do so far: no other way makes the busiest
 * rank less busy, for layers are alike. */
void stages_share_out(const struct stages *st, i64 layers, double layer, const double *fixed,
                      i64 *count)
{
    struct arena a;
    arena_init(&a);
    double *of_rank = ARENA_ARRAY(&a, double, st->n), *of_stage = ARENA_ARRAY(&a, double, st->n);
    for (int t = 0; t < st->n; t++) {
        count[t] = 1;
        of_stage[t] = layer + fixed[t];
        of_rank[st->rank_of[t]] += of_stage[t];
    }
    for (i64 left = layers - st->n; left > 0; left--) {
        const int t = next_stage(st, of_rank, of_stage);
        count[t]++;
        of_stage[t] += layer;
        of_rank[st->rank_of[t]] += layer;
    }
    arena_fini(&a);
}

static void even_layers(const struct stages *st, const struct model_spec *s,
                        struct layer_range *out)
{
    struct arena a;
    arena_init(&a);
    double *fixed = ARENA_ARRAY(&a, double, st->n);
    i64 *count = ARENA_ARRAY(&a, i64, st->n);
    const double head = (double)s->vocab * (double)s->width;
    fixed[0] = (double)s->width; /* a row of the embedding */
    fixed[st->n - 1] += head;
    stages_share_out(st, s->layers, ((double)params_matmul(s) - head) / (double)s->layers, fixed,
                     count);
    for (int t = 0; t < st->n; t++)
        out[t] = (struct layer_range){ t > 0 ? out[t - 1].first + out[t - 1].count : 0, count[t] };
    arena_fini(&a);
}

/* Every stage has a layer at least, and every rank as many stages. */
static int too_many(const struct layout *l, int n, const struct model_spec *s)
{
    i64 chunks = n / l->pp, pp = s->layers / chunks;
    char instead[64] = "choose another layout.schedule or fewer layout.chunks";
    if (is_file(l))
        snprintf(instead, sizeof instead, "choose another schedule");
    else if (pp > 0)
        snprintf(instead, sizeof instead, "pp=%lld has %lld", (long long)pp,
                 (long long)(pp * chunks));
    return err_set(ERR_CONFIG, "%d pipeline stages are more than the model's %lld layers; %s", n,
                   (long long)s->layers, instead);
}

int stages_layers(const struct layout *l, const struct stages *st, const struct model_spec *s,
                  struct layer_range *out)
{
    const int n = st->n;
    memset(out, 0, sizeof *out * (size_t)n);
    if (n > s->layers)
        return too_many(l, n, s);
    if (l->stages)
        return given_layers(l, n, s, out);
    even_layers(st, s, out);
    return OK;
}

/* --- schedules ---------------------------------------------------------------------- */

int stages_schedule(struct schedule *out, const struct layout *l, int micro_batches,
                    struct arena *a)
{
    if (!is_file(l)) {
        TRY(schedule_new(out, schedule_kind_of(l->schedule), (int)l->pp, chunks_of(l),
                         micro_batches, a));
    } else {
        TRY(read_file(out, l, a));
        if (out->micro_batches != micro_batches)
            return err_set(ERR_CONFIG, "the schedule %s has %d micro-batches, a step of this run "
                           "%d for each rank", l->schedule, out->micro_batches, micro_batches);
    }
    if (!schedule_moves(out))
        schedule_add_moves(out, RECEIVE_AHEAD);
    return schedule_check(out);
}

void stages_forward(struct schedule *out, const struct layout *l, const struct stages *stages,
                    int micro_batches, struct arena *a)
{
    schedule_new_forward(out, (int)l->pp, stages->n, stages->rank_of, micro_batches, a);
    schedule_add_moves(out, RECEIVE_AHEAD);
}

static int most_chunks(const struct stages *st, i64 ranks, struct arena *a)
{
    int *count = ARENA_ARRAY(a, int, ranks), most = 0;
    for (int t = 0; t < st->n; t++)
        most = (int)i64_max(most, ++count[st->rank_of[t]]);
    return most;
}

static int check_in(struct arena *a, const struct layout *l, const struct model_spec *s,
                    int micro_batches)
{
    struct stages st;
    struct schedule order;
    TRY(stages_place(&st, l, a));
    if (most_chunks(&st, l->pp, a) > MODEL_CHUNKS)
        return err_set(ERR_CONFIG, "a rank can have %d pipeline stages at most; choose a smaller "
                       "layout.chunks", MODEL_CHUNKS);
    TRY(stages_layers(l, &st, s, ARENA_ARRAY(a, struct layer_range, st.n)));
    return stages_schedule(&order, l, micro_batches, a);
}

/* What says something of a pipeline where there is none. */
static int check_alone(const struct layout *l)
{
    const char *dot = strrchr(l->schedule, '.');
    if (is_file(l) && (!dot || strcmp(dot, ".csv") != 0))
        return unknown(l);
    const char *said = l->stages ? "stages" : l->chunks > 1 ? "chunks"
                       : schedule_kind_of(l->schedule) != SCHEDULE_1F1B ? "schedule" : NULL;
    if (said)
        return err_set(ERR_CONFIG, "layout.%s is about a pipeline, and pp=1 has none; "
                       "leave it out, or choose a larger pp", said);
    return OK;
}

void stages_leave_out(struct layout *l)
{
    const struct layout single = layout_single();
    const char *dot = strrchr(l->schedule, '.');
    bool known = !is_file(l) || (dot && strcmp(dot, ".csv") == 0);
    if (l->pp > 1)
        return;
    l->stages = NULL;
    l->chunks = 0;
    if (known)
        l->schedule = single.schedule;
}

int stages_check(const struct layout *l, const struct model_spec *s, int micro_batches)
{
    struct arena a;
    if (l->pp == 1)
        return check_alone(l);
    arena_init(&a);
    int rc = check_in(&a, l, s, micro_batches);
    arena_fini(&a);
    return rc;
}
