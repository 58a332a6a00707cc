/* train/checkpoint.h - state on disk that survives whatever happens.
 *
 * A folder of checkpoints holds one folder per step:
 *
 *     step-1200/param.safetensors      one file per name prefix: tensor "param/x" is "x" here
 *              /adamw.m.safetensors
 *              /manifest.json          sizes, CRC32C per MiB, SHA-256, training state
 *
 * A step folder gets that name only when every byte in it is durable: it is written as
 * step-N.tmp, its files and itself are fsynced, then it is renamed and the parent fsynced.
 * So what is named step-N is whole, whenever the machine died; the newest valid manifest
 * wins, and there is no tracker file to disagree with it. Deleting goes the other way:
 * renamed to step-N.del first. Leftovers (.tmp, .del) are removed when a writer starts. A
 * step whose damage a resumed run passed over becomes step-N.damaged, and stays so.
 *
 * Where several ranks share the state, each writes its boxes of the tensors into files of its
 * own (param-00003-of-00008.safetensors), the leading one the manifest, which says what is
 * in which file, so that any number of ranks can load any boxes. Ranks need a file system
 * that all of them see; they agree through files in the temporary folder, whose name has a
 * ticket of that attempt, so that a rank left over from another one meddles with nothing. If
 * any of them fails or dies, there is no checkpoint of that step.
 *
 * Saving does not stop training for long. With snapshot "live" nothing is copied: the io
 * thread writes from the tensors themselves while the next forward and backward run (they
 * only read them), and checkpoint_guard, called just before the optimizer changes them,
 * waits for what is not yet read. With "copy" the tensors are copied first, which costs
 * their size in memory. "auto" copies below 256 MiB.
 *
 * A checkpoint that fails (disk full, say) is told in the log, earlier ones stay, and
 * training goes on until more than max_missed have failed in a row.
 *
 * Loading verifies every byte before it changes anything. What it refuses to do: execute,
 * follow links, or take tensors of another shape. One process writes to a folder at a time
 * (a lock sees to it). Numbers in the state must fit JSON: integers of 64 bits signed,
 * doubles finite (they come back exactly); keep 64-bit seeds and hashes as strings. */
#ifndef HEADWAY_CHECKPOINT_H
#define HEADWAY_CHECKPOINT_H

#include "base/dtype.h"
#include "base/pool.h"

#include <jansson.h>

enum { CHECKPOINT_RANK = 4, CHECKPOINT_NEWEST = -1 };

struct checkpoint_tensor {
    const char *name; /* "param/blocks.0.attn.qkv.weight", "adamw.m/...": prefix, slash, rest */
    enum dtype dtype;
    int rank;
    i64 dim[CHECKPOINT_RANK]; /* of what lies at data */
    void *data;
    /* Where several ranks share a tensor: data are the elements [at, at + dim) of one of the
     * shape `whole`, row by row. Other boxes of it have the same name. whole[0] = 0: all. */
    i64 at[CHECKPOINT_RANK], whole[CHECKPOINT_RANK];
};

static inline bool checkpoint_is_box(const struct checkpoint_tensor *t)
{
    return t->rank > 0 && t->whole[0] > 0;
}

enum checkpoint_snapshot { CHECKPOINT_AUTO, CHECKPOINT_LIVE, CHECKPOINT_COPY };

struct checkpoint_options {
    int keep;       /* newest checkpoints kept, at least 1; 0 is the default of 2 */
    int max_missed; /* failures in a row that are borne; 0: none */
    bool async;     /* false: checkpoint_begin returns when all is durable */
    enum checkpoint_snapshot snapshot;
    struct pool *pool;  /* copies in parallel; NULL copies in the calling thread */
    i64 resumed_step;   /* this run continues from there; -1: from the beginning */
    i64 seen_step;      /* the newest there was when this run went on from resumed_step: those
                           between were passed over as damaged, and are set aside; 0: none */
    double patience_s;  /* longest wait for a slow disk before a checkpoint is given up;
                           0 is the default of 60 */
    int rank, ranks; /* this one of so many that save together, 0 leads; 0 ranks: alone */
    const void *away; /* slower memory, of away_bytes, in which tensors may lie: what is read
                         of it does not stay in memory (sys_forget_pages) */
    i64 away_bytes;
};

struct checkpoint_result {
    i64 step;   /* the last that is durable; resumed_step before the first */
    int missed; /* in a row, up to now */
    i64 bytes;  /* of the last */
    double write_seconds; /* of the last, from begin to durable */
    u64 stall_ns; /* that training waited in begin and guard, all checkpoints together */
    char error[512]; /* why the last one was missed, "" when it was not */
};

/* --- saving ---------------------------------------------------------------------- */

/* NULL for a writer: nothing happens, and all is well. */
struct checkpoint_writer;

/* Memory that a writer takes to copy tensors of so many bytes: none or as many. */
i64 checkpoint_copy_bytes(const struct checkpoint_options *options, i64 bytes);

/* Prepares the folder, proves that it can be written (free space for two checkpoints, a
 * rename, an fsync) and starts the io thread. The tensors' data must outlive the writer.
 * Refuses a folder with checkpoints newer than resumed_step and seen_step. Of several
 * ranks, the leading one does all that, and then the others call this. */
int checkpoint_writer_new(struct checkpoint_writer **out, const char *dir,
                          const struct checkpoint_tensor *tensors, i64 n,
                          const struct checkpoint_options *options);
/* Finishes the checkpoint that is under way first. NULL is fine. */
void checkpoint_writer_free(struct checkpoint_writer *w);

/* Starts saving the tensors and this state as they are now. A failure is borne (OK, a
 * warning) until max_missed is exceeded. Saving the step that was saved last does nothing. */
int checkpoint_begin(struct checkpoint_writer *w, i64 step, const json_t *state);
/* The same for ranks that save together. First the leading one opens the step, which gives a
 * ticket, or 0 when there is nothing to do (a miss that is borne, or saved already). With it
 * every rank begins. Only the leading rank's results tell whether the checkpoint is durable;
 * state is NULL on the others. */
int checkpoint_open_step(struct checkpoint_writer *w, i64 step, u64 *ticket);
int checkpoint_begin_part(struct checkpoint_writer *w, i64 step, u64 ticket,
                          const json_t *state);
/* To be called before the tensors change after a begin; cheap when nothing is under way. */
void checkpoint_guard(struct checkpoint_writer *w);
/* How things stand; negative once max_missed is exceeded. */
int checkpoint_poll(struct checkpoint_writer *w, struct checkpoint_result *result);
/* Seconds that a checkpoint takes: those of the last, or before the first those of writing
 * as many bytes as fast as the folder's disk took the writer's probe. */
double checkpoint_predict_seconds(struct checkpoint_writer *w);
/* Waits until the checkpoint under way is durable, at most so many seconds (0: for ever).
 * Negative when the last begin did not become durable. */
int checkpoint_wait(struct checkpoint_writer *w, double seconds,
                    struct checkpoint_result *result);

/* Whether one is under way. */
bool checkpoint_busy(struct checkpoint_writer *w);

/* Deletes the checkpoints newer than step: before training goes on from an earlier one,
 * because the newest is what a restart would take. */
int checkpoint_discard_after(const char *dir, i64 step);
/* The same through a writer, which then continues from step. Of several ranks the leading one
 * deletes; all call it, and none goes on before that. */
int checkpoint_rewind(struct checkpoint_writer *w, i64 step);

/* --- reading --------------------------------------------------------------------- */

/* What people name: a step folder (then *step is its number), a folder of checkpoints, or
 * a run folder (then *step is -1). dir has room for bytes. */
int checkpoint_find(const char *path, char *dir, i64 bytes, i64 *step);

/* The newest step whose manifest is valid and whose files have the right sizes; *step is
 * -1 when there is none, also when there is no folder. */
int checkpoint_latest(const char *dir, i64 *step);

/* The same for whoever wants what was trained last, and nothing older unawares: ERR_FORMAT when the
 * newest step is damaged, with the newest that is not. */
int checkpoint_newest(const char *dir, i64 *step);

/* Loads *step, or the newest when that is CHECKPOINT_NEWEST: then damaged ones are passed
 * over with a warning, and *step tells which was taken. Only the files of the prefixes
 * asked for are read (so params can be loaded alone); in these, tensors must match one to
 * one. Nothing is changed unless every byte of these files is proven. *state is the
 * caller's (json_decref); state may be NULL. */
int checkpoint_load(const char *dir, i64 *step, const struct checkpoint_tensor *tensors, i64 n,
                    json_t **state);

/* What one of several ranks wants. */
struct checkpoint_want {
    const struct checkpoint_tensor *tensors;
    i64 n;
    bool part; /* others want more: a tensor that is not asked for here is no mistake */
    /* Called once, between proving and changing anything, with this rank's code: gives the
     * worst of all ranks' codes, so that all change or none. NULL: this rank alone. */
    int (*agree)(void *context, int code);
    void *context;
};

/* The same for boxes of tensors, whichever ranks wrote them in whichever boxes: only what
 * lies in the boxes is read and proven (by the CRC32C of each MiB, where not all of a file is
 * wanted). The files must hold each element of a tensor once. step is a number. */
int checkpoint_load_part(const char *dir, i64 step, const struct checkpoint_want *want,
                         json_t **state);

/* The manifest's state alone, for those who need the shapes before they load. */
int checkpoint_state(const char *dir, i64 step, json_t **state);

struct checkpoint_entry {
    i64 step, bytes;
    double saved_at; /* seconds since the epoch */
    bool valid;      /* manifest valid, files of the right sizes */
};
/* All step folders, oldest first; the array is the caller's (sys_free). Returns the count. */
int checkpoint_list(const char *dir, struct checkpoint_entry **entries);

/* One finding of verify; chunk -1: the file as a whole. */
typedef void (*checkpoint_report)(void *context, i64 step, const char *file, i64 chunk,
                                  const char *problem);
/* Reads every byte of one step, or of all (CHECKPOINT_NEWEST is not special here: -1 is
 * all). Returns the number of findings, or a negative code when it cannot look. */
int checkpoint_verify(const char *dir, i64 step, checkpoint_report report, void *context);

/* Writes the parameters of one step, once proven, as a safetensors file of its own. */
int checkpoint_export(const char *dir, i64 step, const char *path);

#endif
