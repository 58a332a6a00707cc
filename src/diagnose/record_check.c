#include "diagnose/record_check.h"

#include "diagnose/each.h"

struct checking {
    struct record_check *out;
    const struct record *r;
    i64 index; /* of the step that is taken next */
};

static void *make_nothing(void *context, const struct record_step *s, void **kept)
{
    (void)context, (void)s, (void)kept;
    return NULL;
}

static void add_step(struct record_check_steps *out, i64 step)
{
    if (out->n < RECORD_CHECK_NAMED)
        out->named[out->n] = step;
    out->n++;
}

static int take_step(void *context, const struct record_step *s, void *made, int rc)
{
    struct checking *k = context;
    bool damaged = rc < 0, absent = false;
    (void)made;
    for (int i = 0; i < s->n_ranks && rc >= 0; i++) {
        const struct record_rank *rank = &s->ranks[i];
        damaged |= rank->damaged > 0;
        absent |= !rank->head && k->r->parts[s->part].heads[i];
        k->out->samples += rank->sample_lost;
    }
    if (damaged)
        add_step(&k->out->damaged, k->r->steps[k->index]);
    else if (absent)
        add_step(&k->out->absent, k->r->steps[k->index]);
    k->index++;
    return OK;
}

int record_check(struct record_check *out, struct record *r)
{
    struct checking k = { out, r, 0 };
    *out = (struct record_check){ 0 };
    return each_step(r, r->steps, r->n_steps,
                     &(struct each){ &k, make_nothing, take_step, NULL });
}
