/* data/loader_parts.h - what a loader is made of, for its own files alone.
 *
 *     loader.c           a step, where the run is, opening and closing
 *     loader_sources.c   the data sets, their names, shares and caps
 *     loader_row.c       one row: where its tokens lie, and what is made of them
 *     loader_ahead.c     the ring of steps that are read ahead, and the threads that read */
#ifndef HEADWAY_DATA_LOADER_PARTS_H
#define HEADWAY_DATA_LOADER_PARTS_H

#include "data/loader.h"
#include "data/mixture.h"

#include <pthread.h>

/* One step's rows. Reading threads take rows in order; the last to finish sums up. */
struct slot {
    struct loader_step shape;
    i64 position;
    i64 rows, taken, done;
    i32 *tokens, *targets, *positions, *begin, *sources; /* [capacity] each */
    float *weights;
    struct row_sums *sums; /* [capacity of rows] */
    int *row_source;
    i64 idle, documents; /* see loader_counts */
    double attended;
    double weight;
    i64 bytes[LOADER_SOURCES];
    u64 begin_ns;
    int rc; /* first failure, with its words and whose fault it was */
    int failed_source;
    char message[512];
};

struct source {
    const char *name;
    struct dataset data;
    i64 windows; /* per epoch; for evaluation: that are looked at */
    i64 first;   /* evaluation: windows of the sources before */
    i64 cap;     /* windows that the recipe lets it give; INT64_MAX: any number */
    u64 key;     /* hash of the name */
};

struct reader {
    struct loader *loader;
    struct row_maker *maker;
    struct dataset_reader *from; /* [sources] */
    pthread_t thread;
    bool started;
};

struct loader {
    struct arena arena;
    struct loader_config config;
    struct row_rule rule;
    struct source *sources;
    i64 n_sources;
    bool eval;
    struct mixture mixture; /* training only */
    i64 failed_source;      /* whose text the last step lacked; -1: none */
    i64 windows;            /* all that can be served; INT64_MAX: no end */

    /* Slots are a ring by sequence number: [next - 1] is in use by the program,
     * [next, planned) are being filled or ready. The mutex guards all below. */
    pthread_mutex_t mutex;
    pthread_cond_t work, ready;
    struct slot *slots;
    i64 n_slots, capacity, row_capacity;
    i64 next, planned;
    i64 busy; /* rows being filled at this moment */
    i64 read_bytes;
    u64 busy_ns, cpu_ns;
    bool stop;
    struct reader *readers;
    int n_readers;

    /* Of the calling thread. */
    i64 position;
    struct slot *current;
    u64 waited_ns;
    i64 lay_ready;  /* steps, when the last was asked for */
    i64 used_bytes;
};

/* What the row's tokens have to do; added up with the mutex held. */
struct row_facts {
    i64 idle, documents;
    double attended;
    u64 busy_ns, cpu_ns;
};

/* --- loader_sources.c --------------------------------------------------------------- */

int loader_open_sources(struct loader *l);
void loader_make_mixture(struct loader *l);
/* Every source keeps the same share of its windows, max_tokens in all; 0: all of them. */
void loader_choose_eval_windows(struct loader *l, i64 max_tokens);
/* Of a token, where it lies: two bytes where the vocabulary of its tokenizer fits. */
i64 loader_stored_bytes(const struct loader *l);

/* --- loader_row.c ------------------------------------------------------------------- */

/* Where window g lies. Each epoch of each source has its own permutation and key. */
void loader_locate(const struct loader *l, i64 g, int *source, i64 *window, struct rng *key);
/* Which row of the step on all ranks our row is. */
i64 loader_row_of_step(const struct loader_step *s, i64 row);
int loader_make_row(struct reader *r, struct slot *slot, i64 row, struct row_facts *facts);
/* A row that counts in nothing. */
void loader_clear_row(struct slot *slot, i64 row);

/* --- loader_ahead.c; all but the last two with the mutex held ----------------------- */

static inline i64 step_rows(const struct loader_step *s)
{
    return s->micro_batches * s->B;
}

/* Places of the step on all ranks. */
static inline i64 step_places(const struct loader_step *s)
{
    return (s->all_rows ? s->all_rows : step_rows(s)) * s->T;
}

struct slot *loader_slot(const struct loader *l, i64 sequence);
/* True when all rows of a step at this position exist (in evaluation: any). */
bool loader_can_serve(const struct loader *l, const struct loader_step *s, i64 position);
/* The next slot is of this step; its rows are read as soon as a thread is free. */
void loader_plan(struct loader *l, const struct loader_step *shape, i64 position);
/* Guesses that the following steps look like this one. */
void loader_plan_ahead(struct loader *l);
/* Forgets what was read ahead, once no thread is writing into it. */
void loader_discard(struct loader *l);
/* Makes every slot large enough; happens when a step is larger than any before. */
int loader_grow(struct loader *l, i64 places, i64 rows);
/* All its rows are there: sums them up. */
void loader_finish_slot(struct loader *l, struct slot *s);
/* Waits until the step at this position is ready, and returns how reading it went. */
int loader_await(struct loader *l, const struct loader_step *s, i64 position);
i64 loader_slot_bytes(i64 places, i64 rows);
int loader_start_readers(struct loader *l);
void loader_stop_readers(struct loader *l); /* and frees the slots; whatever was started */

#endif
