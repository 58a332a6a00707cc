/* train/record_json.h - what the chunks HEAD and TABLE of a recorded run hold.
 *
 * With them the spans of a file can be named, priced and replayed by who has nothing but the file:
 * who took part and in which groups, every task with its cost and the tensors that it touches, and
 * the order of actions. diagnose/record.h reads them. Real and simulated runs write the same. */
#ifndef HEADWAY_RECORD_JSON_H
#define HEADWAY_RECORD_JSON_H

#include "base/json.h"
#include "graph/program.h"
#include "parallel/mesh.h"

struct record_about {
    const struct mesh *mesh; /* coordinates and stages; needs no groups */
    i64 part;                /* the same on all ranks: wall clock of the run's begin, ns */
    const char *layout, *host, *backend, *processor, *precision;
    i64 pid;
    int threads, cores, sharers; /* that may be used; ranks that use the same */
    double flops_f32, flops_bf16, memory_bytes_per_s, launch_s; /* of this rank; 0: not known */
    const char *widest;      /* the backend that this processor runs fastest; NULL: not known */
    double widest_f32, widest_bf16; /* FLOP/s of it, likewise */
    u64 begin_ns;      /* of this process, on its clock */
    double wall_begin; /* s since the epoch, then */
};

void record_put_head(struct json *j, const struct record_about *about);

/* B, T: rows and tokens of a micro-batch here. */
void record_put_table(struct json *j, const char *name, const struct program *p, i64 B, i64 T);

#endif
