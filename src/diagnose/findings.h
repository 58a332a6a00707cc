/* diagnose/findings.h - what is wrong with a run, where, and what mending it would give back.
 *
 * A finding loses at least theta seconds per step (measure.h) and says which look-alikes were
 * rejected, by which numbers. Findings are sorted by predicted gain, never by share; what is about
 * others' work on the machine, and not about the run, stands behind the rest. Gains come
 * from a replay of the run's steps under an edit where there is one, else from the closed form
 * that stands with the rule. */
#ifndef HEADWAY_FINDINGS_H
#define HEADWAY_FINDINGS_H

#include "base/json.h"
#include "diagnose/measure.h"

enum { FINDING_TEXT = 240, FINDING_COMMAND = 1024, FINDING_EVIDENCE = 6, FINDING_REJECTED = 4, FINDINGS_MOST = 32,
       FINDING_RANKS = 64, FINDING_MENDED = 8 };

/* Ranks that are no range; n 0: it is not about such. */
struct finding_ranks {
    int n, at[FINDING_RANKS]; /* ascending */
};

/* Where; -1 or empty: everywhere. */
struct finding_place {
    int rank, peer, stage, layer;
    char op[MEASURE_NAME], lane[16];
    i64 first_step, last_step; /* counted from 0, as spans count */
    int last_rank; /* larger than rank: all from rank to this one */
    struct finding_ranks several; /* n > 0: these, and rank is -1 */
};

/* What a replay changes: durations of what is selected are multiplied by the factor. Where `less`
 * is said, factor x (less + less_per_byte x bytes sent + less_share x duration) is taken off instead,
 * as far as floor + floor_per_byte x bytes. */
enum finding_edit_kind {
    EDIT_NONE,
    EDIT_DATA,     /* waiting for the loader */
    EDIT_HOST,     /* gaps of one kind (enum measure_host) */
    EDIT_COMPUTE,  /* tasks, by rank, stage, op, phase */
    EDIT_TRANSFER, /* calls, by lane, rank */
    EDIT_ONE_TURN, /* what a lane exchanges in each micro-batch is exchanged in the last one only */
    EDIT_READY,    /* sums of gradients begin once what they sum is computed */
    EDIT_OVERLAP,  /* nobody stands still for a call before something needs it */
    EDIT_EVEN_RANK, /* a rank's tasks take what the median rank's do */
    EDIT_AS_ELSE,   /* in some steps a rank's tasks take what they take in the others (median) */
    EDIT_EVEN_ROWS, /* every task takes its mean over data-parallel copies */
    EDIT_EVEN_WORK, /* and what rows ask of attention is that mean: factor of that difference */
    EDIT_EVEN_STAGES, /* stages of equal length, but for what slow ranks and steps add */
    EDIT_QUIET,      /* tasks take at most what they take when nothing disturbs them; factor 0:
                      * when that is seldom so */
    EDIT_OFTEN_QUIET, /* the same, when that is more often so */
    EDIT_PLACES,     /* ranks lie on the axes as in another order of them */
    EDIT_CLOCK       /* ranks take `factor` of the time that they have to compute more slowly */
};

/* Ranks that are mended before anything else is: their tasks take so much of their time. */
struct finding_mended {
    double takes;
    struct finding_ranks ranks;
};

struct finding_edit {
    enum finding_edit_kind kind, least; /* least: what the pessimist's does instead; EDIT_NONE: the
                                         * same with factor_lo */
    int rank, peer, stage, lane, phase, host; /* -1: any; a peer counts like the rank */
    int last_rank;                      /* larger than rank: all from rank to this one */
    struct finding_ranks several;       /* n > 0: these */
    i64 first_step, last_step;          /* of EDIT_AS_ELSE; of transfers, where last_step > 0 */
    bool groups;                        /* of transfers: those of all groups (of the lane) with the
                                         * rank, and with the peer, or the last rank */
    bool sums;                          /* of transfers: of all lanes that can be hidden */
    bool delayed;                       /* of transfers: each still takes its lane's latency */
    int order;                          /* of EDIT_PLACES: one of measure_domains */
    bool quiet;                         /* tasks are quiet beforehand: the gain is from there on */
    bool as_usual;                      /* of quiet tasks: slow ranks' are as quick as others' */
    bool recompute, watching;           /* only what is computed again; what measures learning */
    char op[MEASURE_NAME];              /* what its name begins with; empty: any */
    bool whole_name;                    /* or is */
    double less, less_per_byte, less_share, floor, floor_per_byte;
    double starts;                      /* of transfers: with factor 1 so much of the time in which
                                         * ranks begin them goes */
    double takes;                       /* of ranks that compute slowly: the share of their time
                                         * that tasks take when mended; 0: it is about more */
    struct finding_mended mended[FINDING_MENDED]; /* n_mended > 0: the gain is from there on */
    int n_mended;
    double factor_lo, factor, factor_hi; /* lo: the pessimist's, gains least */
};

/* Whose doing it is: the run's; nobody's, but that its settings could be better; the machine's (its
 * clock falls), somebody else's on the machine. No setting of the run mends the last two; what
 * others do stands behind the rest. */
enum finding_about { ABOUT_RUN, ABOUT_SETTINGS, ABOUT_MACHINE, ABOUT_OTHERS };

struct finding_reject {
    char id[5], why[FINDING_TEXT];
};

struct finding {
    char id[5];
    const char *title;
    double lost;  /* seconds per step */
    double share; /* of the step */
    struct finding_place place;
    char evidence[FINDING_EVIDENCE][FINDING_TEXT];
    int n_evidence;
    struct finding_reject rejected[FINDING_REJECTED];
    int n_rejected;
    char fix[FINDING_TEXT];
    char confirm[FINDING_COMMAND]; /* a command line, as a shell takes it */
    char look[FINDING_TEXT];       /* what of it to look at; empty: whether steps are shorter */
    double gain_lo, gain, gain_hi; /* seconds per step */
    double saves_lo_j, saves_j, saves_hi_j; /* joules a step, of what takes energy and no time: then
                                             * its seconds are 0, and it stands behind the rest */
    double most;   /* that mending it can give back, in whatever noise; 0: the step */
    double beside; /* of the gain: what no replay of the edit shows; a pessimist has none of it */
    bool replayed; /* the gain comes from a replay */
    bool asks_replay; /* where there is a replay that cannot price it, it is no finding */
    bool within_steps; /* its evidence is how parts of a step differ from each other */
    char after[5]; /* the kind that must be mended first for the gain; empty: none */
    bool urgent;   /* stands before all others: the run hangs */
    enum finding_about about;
    struct finding_edit edit;
    i64 confirm_steps; /* 0: some steps that evaluate and save nothing confirm it; else so many that do */
    i64 period; /* it comes every so many steps; 0: not known, or in each */
};

struct findings {
    struct finding at[FINDINGS_MOST];
    int n;
};

/* Seconds of a step (mean over the steps that were replayed) under the edit with this factor, or
 * NaN when it cannot be replayed. The edit NULL: as it was. */
struct finding_replay {
    void *context;
    double (*length)(void *context, const struct finding_edit *e, double factor);
};

/* Runs every rule, drops what a deeper cause explains, prices, sorts. replay may be NULL. */
void findings_make(struct findings *out, const struct measure *m,
                   const struct finding_replay *replay);

/* Commands of fixes and confirmations name RECIPE and RUN; here they become this run's: its
 * folder's own recipe, for some steps that save nothing (unless saving is what it is about), on
 * as many ranks, under a name of its own; a simulated run is simulated again. Whatever the
 * folder is called, a shell takes it for one word. What gets too long stays as it is. */
void findings_name_run(struct findings *f, const char *folder, const struct measure *m);

/* For people: the findings and what no finding accounts for, or the sentence that there is none
 * above theta. */
void findings_text(const struct findings *f, const struct measure *m, struct text *out);
/* As the value of a key: an array. */
void findings_json(const struct findings *f, struct json *j);
/* Sums of gradients and what zero splits: the passes need not wait for such a lane's calls. */
bool finding_can_hide(int lane);
/* Whether the edit is about this rank. */
bool finding_edits_rank(const struct finding_edit *e, int rank);
/* The edit is one beside this rank, too, which takes so much of its time; false: there is no room. */
bool finding_mend(struct finding_edit *e, int rank, double takes);
/* What the rank's tasks take of their time, as the edit is beside it; 1: it is not among these. */
double finding_mended(const struct finding_edit *e, int rank);
/* Whether it is said on which ranks. */
bool finding_names_ranks(const struct finding_place *p);
/* "rank 1, stage 0, linear, steps 50-80", or "everywhere". */
void finding_place_text(const struct finding_place *p, struct text *out);

#endif
