/* Back to an earlier checkpoint after a spike of the loss (see session.h). */
#include "base/log.h"
#include "base/sys.h"
#include "train/session.h"

/* The newest checkpoint that is old enough, and not older than where the last rewind went:
 * rewinds must not eat up the run. -1 when there is none. */
static i64 rewind_target(const struct session *s)
{
    struct checkpoint_entry *entries;
    i64 target = -1;
    int n = session_leads(s) ? checkpoint_list(s->checkpoint_dir, &entries) : -1;
    for (int i = 0; i < n; i++)
        if (entries[i].valid && entries[i].step <= s->state.step - s->config->guard.rewind &&
            entries[i].step >= s->state.rewound_to)
            target = entries[i].step;
    if (n >= 0)
        sys_free(entries);
    return mesh_tell(&s->mesh, &target, sizeof target) < 0 ? -1 : target;
}

const char *session_keeps_from_rewinding(const struct session *s, i64 *target)
{
    if (s->state.rewinds >= s->config->guard.max_rewinds)
        return "guard.max_rewinds is reached";
    /* GUARD_LASTING more: a rise that lasts must be known as one before the next rewind. */
    if (s->state.rewinds > 0 && s->state.step <= s->state.rewound_from + GUARD_LASTING)
        return "the last rewind began not long before here";
    *target = rewind_target(s);
    return *target < 0 ? "no checkpoint is guard.rewind steps old" : NULL;
}

/* The weights have not seen what lies between the two positions, and will not. */
static void note_rewind(struct session *s, double loss, double deviation, i64 begin, i64 end)
{
    const i64 first = begin / s->config->train.seq, last = ceil_div(end, s->config->train.seq) - 1;
    log_line(LOG_WARN, "step %lld: loss %.4f is a spike, %.1f robust deviations up; back to "
             "step %lld, past samples %lld to %lld of the run: those of the steps that are undone, "
             "and of %lld more", (long long)s->state.rewound_from, loss, deviation,
             (long long)s->state.step, (long long)first, (long long)last,
             (long long)s->config->guard.skip);
    struct json *j = run_folder_begin_line(&s->folder, "rewind");
    json_put_int(j, "step", s->state.step);
    json_put_int(j, "from", s->state.rewound_from);
    json_put_double(j, "loss", loss);
    json_put_double(j, "deviations", deviation);
    json_put_int(j, "first_sample", first);
    json_put_int(j, "last_sample", last);
    run_folder_end_line(&s->folder);
}

/* PaLM, section 5.1: about 100 steps back, 200 to 500 batches skipped. */
int session_rewind(struct session *s, i64 target, double loss, double deviation, bool *unsound)
{
    const struct train_config *c = s->config;
    struct loader_cursor here, there;
    i64 spiked = s->state.step, rewinds = s->state.rewinds;
    const double elapsed = s->state.elapsed; /* what is undone took its time all the same */
    const u64 begin_ns = s->begin_ns;
    i64 skip = c->guard.skip * c->train.batch * c->train.seq * schedule_full_micro_batches(c);
    loader_get_cursor(s->loader, &here);
    TRY(session_wait_saved(s, &(struct checkpoint_result){ 0 }));
    *unsound = true; /* until weights and state are of one step again */
    TRY(session_restore(s, target));
    loader_get_cursor(s->loader, &there);
    s->state.elapsed = elapsed;
    s->begin_ns = begin_ns;
    s->state.rewinds = rewinds + 1;
    s->state.rewound_from = spiked;
    s->state.rewound_to = target;
    TRY(loader_seek_position(s->loader, here.position + skip));
    *unsound = false;
    TRY(checkpoint_rewind(s->writer, target));
    TRY(run_folder_rewind(&s->folder, target));
    note_rewind(s, loss, deviation, there.position, here.position + skip);
    return OK;
}
