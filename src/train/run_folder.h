/* train/run_folder.h - everything a run leaves behind, understandable without the run.
 *
 *     runs/NAME/manifest.json   what ran: configuration, versions, hashes, machine, data;
 *                               when the run began, and each time that it went on
 *               recipe.yaml     the configuration as resolved; starts the same run again
 *               metrics.jsonl   one object a line; line 1 names the schema
 *               energy.json     what it took so far, and how that is known
 *               log.txt         what was said
 *               events.out.*    TensorBoard, derived from the metrics
 *               trace.json      the last steps, task by task, for Chrome's viewer and Perfetto;
 *               trace.pftrace   the same in Perfetto's own format
 *               trace/           the spans of each rank's newest steps (trace/record.h)
 *               checkpoints/    step-N/ (see checkpoint.h)
 *               lock            held while a process trains here; its number
 *
 * Metrics are flushed line by line; a full disk costs lines, not the run. */
#ifndef HEADWAY_RUN_FOLDER_H
#define HEADWAY_RUN_FOLDER_H

#include "base/json.h"
#include "base/log.h"
#include "train/events.h"

struct run_folder {
    char path[2048];
    int metrics_fd, log_fd, lock_fd; /* -1: not open */
    struct json line;       /* reused for each metrics line */
    struct events events;
    bool metrics_failed; /* said once */
    bool made; /* by this process: it goes again when it is closed before a run began in it */
};

/* Makes runs_dir/name (NULL: "stem-YYYYMMDD-HHMMSS"), or with `resume` opens the existing
 * one. An existing folder that holds a run is refused unless resuming, and one that another
 * process trains in is refused before anything in it is touched. */
int run_folder_open(struct run_folder *f, const char *runs_dir, const char *name,
                    const char *stem, bool resume, bool tensorboard);
/* Whether it holds data that were prepared for a run, and no run. */
bool run_folder_waits(const char *runs_dir, const char *name);
/* Only the path, and with `resume` whether there is a run: for who must write nothing. */
int run_folder_look(struct run_folder *f, const char *runs_dir, const char *name,
                    const char *stem, bool resume);
/* On ranks that do not write: f->path is set, metrics lines go nowhere. */
void run_folder_follow(struct run_folder *f);
void run_folder_close(struct run_folder *f);

/* Writes a whole small file through a temporary name beside it, path.tmp; into a device or a pipe
 * as it stands. */
int file_replace(const char *path, const char *data, i64 bytes);
/* The same for a file in the folder. */
int run_folder_write(const struct run_folder *f, const char *name, const char *data, i64 bytes);

/* What manifest.json in a folder tells of the run's starts, the first one first: a list of objects
 * with "started" (seconds since 1970) and "from_step", for json_decref. Without a manifest it is
 * empty; ERR_FORMAT when that cannot be read. */
int run_folder_starts(const char *folder, json_t **out);

/* The step with which the run in a folder ended, all done: its metrics' last line says
 * so; else -1. */
i64 run_folder_finished(const char *folder);

/* A line of log.txt alone. */
void run_folder_note(struct run_folder *f, enum log_level level, const char *line);

/* The same on a rank that follows, for the leading one that is gone. */
void run_folder_note_for(struct run_folder *f, enum log_level level, const char *line);

/* One metrics line: begin, then json_put_* on the returned writer, then end. */
struct json *run_folder_begin_line(struct run_folder *f, const char *event);
void run_folder_end_line(struct run_folder *f);

/* When a run is resumed from `step`, drops metrics of later steps, which will be made
 * again. Lines that do not parse (a torn last line) are dropped too. */
int run_folder_rewind(struct run_folder *f, i64 step);

#endif
