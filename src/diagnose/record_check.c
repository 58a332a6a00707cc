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

static int take_step(void *context, const struct record_step *s, void *made, int rc)
{
    struct checking *k = context;
    bool damaged = rc < 0;
    (void)made;
    for (int i = 0; i < s->n_ranks && rc >= 0; i++) {
        damaged |= s->ranks[i].damaged > 0;
        k->out->samples += s->ranks[i].sample_lost;
    }
    if (damaged) {
        if (k->out->damaged < RECORD_CHECK_NAMED)
            k->out->named[k->out->damaged] = k->r->steps[k->index];
        k->out->damaged++;
    }
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
