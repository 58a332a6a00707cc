/* tests/support/checkpoint_fixture.h - a tiny training state that is told apart by number.
 *
 * Generation g fills every tensor with bytes that follow from g alone; the state says g.
 * So a loaded state proves which save it came from, and that it is that save's entirely. */
#ifndef HEADWAY_TEST_CHECKPOINT_FIXTURE_H
#define HEADWAY_TEST_CHECKPOINT_FIXTURE_H

#include "train/checkpoint.h"

enum { FIXTURE_TENSORS = 5, FIXTURE_BYTES = 256 };

struct fixture {
    struct checkpoint_tensor tensor[FIXTURE_TENSORS];
    u8 data[FIXTURE_TENSORS][FIXTURE_BYTES];
};

void fixture_init(struct fixture *f);
void fixture_fill(struct fixture *f, i64 generation);
bool fixture_matches(const struct fixture *f, i64 generation);

/* Fills and begins; in a writer that is not asynchronous, OK means durable unless missed. */
int fixture_save(struct checkpoint_writer *w, struct fixture *f, i64 step, i64 generation);
/* Loads the newest; *step and *generation receive what it was. ERR_INTERNAL when the
 * tensors do not match the generation that the state claims. */
int fixture_load(const char *dir, i64 *step, i64 *generation);
int fixture_open(struct checkpoint_writer **w, struct fixture *f, const char *dir, i64 resumed);

/* The same state, shared by two ranks: rows, a row that is cut, columns; some tensors are one
 * rank's alone. */
enum { FIXTURE_RANKS = 2, FIXTURE_BOXES = 4 };

struct fixture_part {
    struct checkpoint_tensor box[FIXTURE_BOXES];
    u8 data[FIXTURE_BOXES][FIXTURE_BYTES];
    i64 n;
    u64 ticket;
};

void fixture_part_init(struct fixture_part *f, int rank);
void fixture_part_fill(struct fixture_part *f, i64 generation);
bool fixture_part_matches(const struct fixture_part *f, i64 generation);
/* patience as in struct checkpoint_options; not asynchronous. */
int fixture_part_open(struct checkpoint_writer **w, struct fixture_part *f, const char *dir,
                      int rank, i64 resumed, double patience_s);
/* After checkpoint_open_step by rank 0. OK on rank 0 means durable unless missed. */
int fixture_part_save(struct checkpoint_writer *w, struct fixture_part *f, i64 step, u64 ticket,
                      i64 generation);

/* The promises after a crash (a crash_check): every folder named step-N is whole, and the
 * newest is of generation `mark` or later; with mark 0 there may be none. */
int fixture_check(void *context, const char *folder, i64 mark);

#endif
