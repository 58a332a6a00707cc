/* train/session.h - one training run: what it is made of, and its loop.
 *
 * session_open assembles everything and checks it before any work starts: run folder,
 * tokenizer, data, model, programs of all batch shapes, memory. session_train runs to the
 * end (of steps, tokens, time, or of what the data's caps allow), to a signal or to an
 * error; it saves what was reached in every case where the weights are sound, and its
 * message says whether that succeeded.
 * Nothing here prints: the caller's hooks hear of progress. */
#ifndef HEADWAY_SESSION_H
#define HEADWAY_SESSION_H

#include "backend/away_lane.h"
#include "backend/engine.h"
#include "backend/sleeper.h"
#include "base/inject.h"
#include "comm/node.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "machine/energy_ledger.h"
#include "parallel/driver.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/guard.h"
#include "train/model_boxes.h"
#include "train/restore.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/step.h"

#include <stdatomic.h>

/* What the caller hears after each step and evaluation. */
struct train_status {
    i64 step, steps;  /* done; planned, 0 when only the clock ends the run */
    double fraction;  /* of the run done, [0, 1] */
    double loss;      /* of the last step, nats per token */
    double val_loss;  /* of the last evaluation; NaN before the first */
    double joules_per_token;  /* of the whole run; 0: not known yet */
    double tokens_per_s, mfu; /* over recent steps; mfu against the measured peak, 0: unknown */
    i64 tokens;       /* trained on so far */
    double divergence; /* of islands, at the last outer step; NaN: there was none */
};

struct session_record;
struct session_sampler;
struct sample; /* trace/sample.h */
struct text;

struct train_hooks {
    void *context;
    void (*progress)(void *context, const struct train_status *s); /* may be NULL */
    /* Preparing raw text before training starts: share done, in words. May be NULL. */
    void (*preparing)(void *context, double fraction, const char *what);
    /* When (sys_now_ns) a signal asked the run to save and return ERR_STOPPED; 0: it did not.
     * May be NULL. The step under way is finished if that, and saving, can be done within
     * `grace` seconds of it; else it is left after a micro-batch, for the resumed run. */
    const atomic_ullong *stop_ns;
    double grace;
    /* FLOP/s of so many threads of this machine in the run's precision, what MFU is taken from; 0:
     * unknown. Asked once, by the leading rank, when it knows how many threads a rank has. May be
     * NULL: then it is peak_flops. */
    double (*peak_of)(void *context, int threads);
    double peak_flops; /* of one rank */
};

struct train_request {
    struct train_config *config;
    const struct layout *layout; /* NULL: one rank */
    bool choose_layout;          /* its degrees are to be found */
    struct comm *comm;           /* the ranks of this run; NULL: one */
    const struct recipe *recipe;
    const char *recipe_path; /* its stem names the run */
    bool resume;
    bool dry_run; /* session_open checks what it can and writes nothing; no training then */
    bool measure; /* steps are taken for their times alone: none is evaluated or saved */
    const char *backend; /* "auto" */
    const struct sleep_rates *sleep; /* compute nothing, take the time at these rates: no loss, no
                                      * evaluation, nothing saved; NULL: compute */
    struct train_hooks hooks;
};

/* Where the run is; all of it is in every checkpoint. */
struct train_state {
    i64 step;    /* steps taken, bad and skipped ones included */
    i64 updates; /* steps that changed the weights: Adam's t */
    i64 tokens;
    double elapsed; /* seconds of earlier parts of the run */
    i64 rewinds; /* so far; the last one from and to these steps */
    i64 rewound_from, rewound_to;
    struct guard guard;
};

enum { SESSION_SHAPES = 32, SESSION_STEPS = 128 };

struct session {
    struct arena arena;
    u64 float_mode; /* of the thread that opened it, before */
    struct train_request request;
    const struct train_config *config;
    struct run_folder folder;
    struct tokenizer *tokenizer; /* NULL: the data are shards without one */
    u16 *token_bytes;
    struct model_spec spec;
    struct restore from; /* where the first weights come from; with model.from only */
    struct model *model;
    struct mesh mesh;
    struct layout chosen; /* when the request leaves the choice */
    const char *layout_text;
    struct driver *driver; /* NULL for a single rank */
    struct away_lane *away; /* NULL when nothing lies in slower memory */
    int core_sharers;      /* ranks that share this rank's cores, itself included */
    double clock;          /* seconds of the run so far, as the ranks agreed after a step */
    bool stopping;         /* one of them was asked to stop */
    double step_seconds[SESSION_STEPS]; /* of the last steps, in a ring */
    i64 steps_timed; /* by this process */
    double step_s;   /* of the last step; of the slowest rank's once they have agreed */
    i64 steps_taken; /* by this process, since it was where a checkpoint was */
    struct engine engine;
    struct sleeper sleeper; /* with request.sleep */
    struct inject inject; /* run.inject */
    struct inject asked;  /* and what was asked for while the run goes on */
    i64 asked_bytes;      /* of the file that asks */
    int neighbours[64];   /* processes that compute beside this one, on purpose */
    int n_neighbours;
    i64 disturbed; /* steps that this process has begun, where anything is injected */
    struct step_io io;
    struct step_program steps[SESSION_SHAPES];
    struct step_program outer; /* with outer.every only */
    int step_micro_batches[SESSION_SHAPES]; /* of all ranks together, per shape */
    int n_steps;
    struct evaluator eval, final_eval; /* during the run, about eval.tokens; at its end, all */
    struct loader_source *sources;
    i64 n_sources;
    struct loader *loader;
    struct loader *eval_loader, *final_loader; /* NULL: nothing is held out */
    struct model_boxes held, written; /* of what a checkpoint holds: what this rank loads, saves */
    struct checkpoint_writer *writer;
    char checkpoint_dir[2200];
    struct train_state state;
    bool over;          /* a resume with nothing left to do: only the folder's path is known */
    bool resumed;       /* from a checkpoint */
    i64 seen_step;      /* the newest checkpoint there was then, damaged or not */
    bool prepared_here; /* text was made into shards that lie in the run's folder */
    bool unprepared;    /* a dry run, and some source is text, or lacking: there are no loaders */
    const char *lacking; /* what a dry run did not find, or NULL; it tells of memory first */
    int lacking_rc;
    u64 begin_ns;       /* of this part of the run */
    u64 opened_ns;      /* when the process began with it, on both clocks */
    double opened_wall;
    double saved_clock; /* when the last checkpoint began */
    struct {
        struct energy_meter meter;
        struct energy_ledger ledger;         /* the leading rank's */
        struct energy_sample *before, *now;  /* [ranks] */
        i64 ranks;
        double flops, bytes; /* of this rank's steps, by this process */
        struct json text;    /* of the ledger's file */
    } energy;
    i64 predicted_bytes; /* peak memory said before the start */
    struct session_sampler *sampler;
    struct session_record *record; /* NULL: nothing is recorded */
    double val_loss;
};

/* Everything but training. On failure the session is closed. */
int session_open(struct session *s, const struct train_request *request);
/* ERR_STOPPED when hooks.stop_ns asked for it and the state was saved. */
int session_train(struct session *s);
void session_close(struct session *s);
bool session_asked_to_stop(const struct session *s);

/* Loss on held-out text, all of it when final; with the averaged weights when ema. Between outer
 * steps it is that of the weights that islands have in common, those of the last one. */
int session_evaluate(struct session *s, bool final, bool ema, struct eval_result *out);

/* --- parts, each in its own file ---------------------------------------------------- */

/* session_data.c: tokenizer, raw text to shards, loaders. */
int session_open_data(struct session *s);
int session_open_loaders(struct session *s);
/* Only what reads the rows of a run of this model, for session_close: no run folder, no
 * weights. Text is made into shards below data.cache, or else below `folder`. */
int session_open_rows(struct session *s, const struct train_request *request,
                      const struct model_spec *spec, const char *folder);
/* Whether the sources, which may have to be found prepared, give the very tokens that a
 * checkpoint's list of identities is of. */
bool session_has_same_data(struct session *s, const json_t *identities);
/* Whether the recipe names sources and all of them are there; what is wrong with them otherwise is
 * told by who opens them. */
bool session_has_text(const struct train_config *c, struct arena *a);

/* session_ranks.c: all ranks call these together, in the same order. A rank that fails in
 * between returns its error; the others then fail in their next call (comm/world.h). */
int session_open_mesh(struct session *s);
/* session_preflight.c: ERR_CONFIG on all ranks, naming the odd one, when they do not run the
 * same program, recipe (session_meet, before anything else) or data. Cores are shared out where
 * no launcher did; what is slow is named in the log. */
int session_meet(struct session *s);
int session_check_data(struct session *s);
int session_place(struct session *s);
int session_preflight(struct session *s);
/* Exact mode needs kernels that keep its order. */
int session_check_exact(const struct session *s);
bool session_leads(const struct session *s); /* writes the folder, saves, tells */
int session_threads(const struct session *s);
int session_share_folder(struct session *s); /* the leader has opened it */
int session_open_lanes(struct session *s);   /* after all programs were added */
/* What this rank computes of a step, once the batch has grown to its full size. */
struct layout_rows session_full_rows(const struct session *s);
/* Which rows of the step this rank reads. */
void session_spread(const struct session *s, struct loader_step *step);
int session_share_weight(struct session *s);
/* Makes the step's rows current. What data.on_missing says of sources that cannot be read any more
 * holds for all ranks at the same step, so that they read the same order on. */
int session_start_data(struct session *s, const struct loader_step *step);
int session_share_sums(struct session *s);
/* What every island says of itself, it says of all. */
int session_all_islands(struct session *s, bool *holds);
/* Whether the weights here are those of the last outer step, or there is none. */
bool session_in_common(const struct session *s);
/* How long this step took: sets how long others are waited for without asking why. */
void session_set_patience(struct session *s, double step_seconds);
/* The same clock and the same wish to stop everywhere: what the loop decides by. */
int session_agree(struct session *s);

/* session_memory.c: the prediction, and the refusal when it cannot fit: what a rank
 * needs, and what all ranks of a machine need together. The floor is known before
 * programs are built, which would take long for what is far too large. All ranks
 * together. */
int session_check_floor(struct session *s);
int session_check_memory(struct session *s);

/* session_state.c: what checkpoints hold. */
json_t *session_state_json(const struct session *s);
int session_restore(struct session *s, i64 step);

/* session_save.c: all ranks call these together. The leading rank's folder and disk decide, and
 * all learn the same. */
int session_open_writer(struct session *s); /* the leading rank first */
int session_save(struct session *s);        /* as checkpoint_begin */
int session_wait_saved(struct session *s, struct checkpoint_result *result);
int session_any_saved(struct session *s, bool *any);
/* As checkpoint_load: nothing changes on any rank unless every rank has proven its part. */
int session_load(struct session *s, i64 step, json_t **state);
/* The leading rank only, when the others have failed and its model is whole. */
int session_save_alone(struct session *s, struct checkpoint_result *result);

/* session_rewind.c: back to an earlier checkpoint, and past the data that led to a spike;
 * all ranks together. Why not to do so now, or NULL and where to. What is lost is not
 * given back to the clock; *unsound while weights and state are of different steps. */
const char *session_keeps_from_rewinding(const struct session *s, i64 *target);
int session_rewind(struct session *s, i64 target, double loss, double deviation, bool *unsound);

/* session_same.c: whether the newest checkpoint is of this run. Another model or tokenizer
 * is refused; other data and settings are said, in the log and in *changes. */
/* Of the tokens that a source gives, wherever they lie. */
void session_data_identity(const struct dataset *d, char hex[17]);
void session_put_identity(const struct session *s, json_t *state);
int session_check_same(struct session *s, struct text *changes);
/* Of a run that ended at this step: whether this recipe differs from its checkpoint's
 * only in how far to go, and in what is written on the way, and goes no further; *limit
 * is what keeps it. */
bool session_would_be_idle(struct session *s, const json_t *state, i64 step, const char **limit);

/* session_energy.c: opened before the rank is given cores of its own. What samples, all ranks call
 * together; it is summed, and energy.json written, on the leading rank. */
void session_open_energy(struct session *s);
int session_check_energy(struct session *s); /* ERR_CONFIG: no such location */
int session_begin_energy(struct session *s);
int session_sample_energy(struct session *s);
void session_put_energy(const struct session *s, struct json *j); /* as of the last sample */
int session_end_energy(struct session *s);

/* session_manifest.c: manifest.json and recipe.yaml. What the manifest in the folder says of the
 * run's earlier starts stays. */
int session_write_manifest(struct session *s);

/* session.c: whether the steps (as schedule_steps counts them, 0: no end) or the time are over. */
bool session_finished(const struct session *s, i64 steps);

/* The program that computes a step: with ramps, its shape changes from step to step. */
struct step_program *session_program(struct session *s, i64 step);

/* session_inject.c: what run.inject asks for is settled once it is known which rank this
 * is; what is done between the tasks of steps; the end. */
int session_open_inject(struct session *s);
int session_check_inject(struct session *s); /* once the model is settled; all ranks say the same */
int session_begin_inject(struct session *s); /* once there are weights */
int session_disturb(struct session *s);      /* before each step's tasks */
void session_end_inject(struct session *s);

/* session_trace.c: spans of what is exchanged, once lanes are open; at the end of a run, trace.json
 * and trace.pftrace of the last steps. All ranks call it together. */
int session_open_trace(struct session *s);
void session_export_trace(struct session *s);

/* session_sample.c: what the host counted since the last sample. False: none was taken, since they
 * take no more than 0.1 % of the time. */
int session_open_sampler(struct session *s);
bool session_sample(struct session *s, i64 step, struct sample *out);
void session_close_sampler(struct session *s);

/* session_record.c: every span of every step into RUN/trace (trace/record.h). All ranks
 * open it together. session_record_step takes what the rings got since the last time, as
 * of this step and of the program p; it allocates nothing and waits for nothing. trigger:
 * why this step is worth keeping beyond the newest (a sentence), or NULL; the same on all
 * ranks. */
int session_open_record(struct session *s);
void session_record_step(struct session *s, i64 step, const struct program *p,
                         const char *trigger);
/* Leaves why this rank ended, where another did not come, died or called something else, beside
 * its record, for who asks the folder. */
void session_record_end(struct session *s, int rc, const char *why);
/* What is left, once lanes and loaders have ended. */
void session_close_record(struct session *s);

/* first_bad.c: runs the step's passes again and finds the first tensor that is not
 * finite, on whichever rank; text names it, its op and layer. *hopeless when a weight itself is
 * not finite: then no later step can be better. All ranks call it, and learn the same. */
int session_find_bad(struct session *s, const struct step_program *p, char *text, i64 size,
                     bool *hopeless);

#endif
