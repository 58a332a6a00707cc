/* diagnose/measure_record.h - from recorded spans and samples to what was measured.
 *
 * Each step's spans are divided up so that nothing is lost or counted twice: on a rank, the time
 * from one step's end to the next one's is computing, waiting for data, for ranks or for bytes,
 * what the host did under a name, and the rest (HOST_GAP). Memory: some numbers per step and
 * rank, and one step's spans at a time. */
#ifndef HEADWAY_MEASURE_RECORD_H
#define HEADWAY_MEASURE_RECORD_H

#include "diagnose/measure.h"
#include "diagnose/record.h"

struct measure_range {
    i64 first, last; /* steps, from 0; last < 0: to the end */
    i64 most;        /* so many of the newest; 0: 256 */
};

/* The steady steps of the newest part of the run that lie in the range; folder: the run's, for its
 * configuration and metrics (what is missing there is not known). A record without a finished
 * step gives a measure without steps. */
int measure_record(struct measure **out, struct record *r, const char *folder,
                   const struct measure_range *range, struct arena *a);

/* Where ranks stand still for bytes longer in some steps than in the rest: these steps measured by
 * themselves, in m->slow_links. */
int measure_link_episode(struct measure *m, struct record *r, const char *folder, struct arena *a);

/* Which those are: indices in r->steps. */
struct measure_chosen {
    i64 from, n;
};
struct measure_chosen measure_choose(struct record *r, const struct measure_range *range);
/* ERR_CONFIG when none of the steps that are asked for was ever recorded. */
int measure_check_range(const struct record *r, const struct measure_range *range);

/* Of a part of the record as a whole: ranks, threads, ceilings; memory, once it was sampled;
 * the start, from the first step that is measured; of all parts, failures. */
void measure_heads(struct measure *m, const struct record_part *part);
void measure_memory(struct measure *m, const struct record_part *part);
void measure_start(struct measure *m, const struct record_part *part,
                   const struct record_step *first);
void measure_failures(struct measure *m, const struct record *r);
/* By the folder's ledger, where it has one. */
void measure_energy(struct measure *m, const char *folder, struct arena *a);

/* --- its parts ------------------------------------------------------------------------ */

/* One rank's part in an exchange. Times on the common clock, ns. */
struct measure_call {
    int rank, lane;     /* enum lane */
    i64 key[5];         /* what all members of the same exchange have alike */
    i64 begin, end;
    i64 come;           /* when its last member had come */
    i64 free;           /* and the lane's exchanges before it had ended */
    int last;           /* who that was */
    int members, peer;  /* peer: the other one of two, else -1 */
    u32 task;
    u16 action;
    int pieces;         /* that it is carried out in */
    int rounds;         /* messages one after another, in a ring */
    bool move;          /* between stages of a pipeline */
    double bytes, moved; /* that this rank sent; that any member of the exchange sent */
};

/* All exchanges of a step, by rank and begin; calls whose other members are not recorded have
 * come = begin; come and free are not before begin. */
struct measure_calls {
    struct measure_call *at;
    i64 n;
    i64 *first; /* [ranks + 1] */
};
void measure_match_calls(const struct record_step *s, struct measure_calls *out, struct arena *a);

/* The recipe, the manifest and the metrics of the folder, as far as they can be read. */
void measure_config(struct measure *m, const char *folder, struct arena *a);

#endif
