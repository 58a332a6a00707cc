/* Which steps of a record are measured. */
#include "base/err.h"
#include "diagnose/measure_record.h"

enum { MOST_STEPS = 256 };

/* The newest steps in the range that can be read, as the ladder takes them, but for those of old
 * that a trigger kept: they are unlike the others. Damage in their midst costs what is damaged. */
struct measure_chosen measure_choose(struct record *r, const struct measure_range *range)
{
    struct measure_chosen c = { 0, 0 };
    struct record_step s = { 0 };
    i64 most = range->most > 0 ? range->most : MOST_STEPS, end = r->n_steps;
    while (end > 0 && ((range->last >= 0 && r->steps[end - 1] > range->last) ||
                       record_step(r, r->steps[end - 1], &s) < 0))
        end--;
    record_step_free(&s);
    i64 begin = end;
    while (begin > 0 && end - begin < most && r->steps[begin - 1] >= range->first &&
           (begin == end || !record_step_kept(r, begin - 1)))
        begin--;
    const struct record_part *part = NULL;
    for (int i = 0; i < r->n_parts; i++)
        if (end > begin && r->parts[i].last_step >= r->steps[end - 1])
            part = &r->parts[i];
    while (part && begin < end && r->steps[begin] < part->first_step + MEASURE_WARM_UP)
        begin++;
    c.from = begin;
    c.n = end - begin;
    return c;
}

/* Steps that are wanted and were never recorded are another matter than damaged ones. */
int measure_check_range(const struct record *r, const struct measure_range *range)
{
    for (i64 i = 0; i < r->n_steps; i++)
        if (r->steps[i] >= range->first && (range->last < 0 || r->steps[i] <= range->last))
            return OK;
    if (r->n_steps == 0 || (range->first == 0 && range->last < 0))
        return OK; /* the whole run was asked for */
    if (range->last < 0)
        return err_set(ERR_CONFIG, "the run has no steps from %lld on: steps %lld to %lld are "
                       "recorded", (long long)range->first + 1, (long long)r->steps[0] + 1,
                       (long long)r->steps[r->n_steps - 1] + 1);
    return err_set(ERR_CONFIG, "the run has no steps %lld-%lld: steps %lld to %lld are recorded",
                   (long long)range->first + 1, (long long)range->last + 1,
                   (long long)r->steps[0] + 1, (long long)r->steps[r->n_steps - 1] + 1);
}
