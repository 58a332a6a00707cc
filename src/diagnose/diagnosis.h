/* diagnose/diagnosis.h - a run's folder, read, measured and judged: what `headway diagnose` says.
 *
 * Whatever is sound is used. What is missing, damaged or unfinished is said in notes, and
 * rules that would need it stay silent. */
#ifndef HEADWAY_DIAGNOSIS_H
#define HEADWAY_DIAGNOSIS_H

#include "diagnose/findings.h"
#include "diagnose/measure_record.h"
#include "diagnose/probe.h"
#include "diagnose/whatif.h"

/* With fewer steady steps than wanted what stands out may be chance: the diagnosis says so beside its
 * findings, and who has no room to say so names none. */
enum { DIAGNOSIS_NOTES = 32, DIAGNOSIS_PATH = 16, DIAGNOSIS_STEPS_WANTED = 20 };

struct diagnosis {
    struct arena arena;
    struct record record;
    struct measure *measure;
    struct findings findings;
    struct probe probes[PROBES_MOST];
    int n_probes;
    double fidelity;         /* of the steps' graphs, as whatif_fidelity; NaN: there are none */
    struct ladder ladder;    /* of steps that have a graph; steps 0: of none */
    struct critical_share path[DIAGNOSIS_PATH]; /* the critical path's longest parts, per step */
    i64 n_path, path_parts; /* told of how many */
    double path_rest_s;     /* of those that are not told: with them the path is the step */
    const char *notes[DIAGNOSIS_NOTES];
    int n_notes;
    bool running;            /* a process trains in the folder now */
    i64 last_step, planned;  /* recorded, from 0 (-1: none); of the recipe, 0: no such limit */
};

/* ERR_CONFIG or ERR_FORMAT when nothing in the folder can be judged. On failure it is closed. */
int diagnosis_open(struct diagnosis *d, const char *folder, const struct measure_range *range);
void diagnosis_close(struct diagnosis *d);

/* For a tired engineer: the worst first, where the step's time goes, and what is missing. */
void diagnosis_text(const struct diagnosis *d, struct text *out);
/* One object. */
void diagnosis_json(const struct diagnosis *d, struct json *j);

#endif
