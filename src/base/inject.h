/* base/inject.h - slowing a run down on purpose, in a known way.
 *
 * A tool that explains where time went must be right, and that is tested by putting a known
 * cause in and asking for it. The causes are part of the program, need no privilege, and are
 * one row each of inject_rows:
 *
 *     kind=value[@rank][:steps]      slow_compute=1.5@1:20-40
 *
 * @rank: one rank, or first-last; without it all. :steps: counted from 1 as in the metrics, one
 * step, first-last or first-; without it all. Values may have their unit (2ms, 300us, 64KiB,
 * 10MB/s, 10%); without one they are in the row's.
 *
 * A kind either acts where it says, while steps are taken, or stands for a key of the recipe
 * (`key`), which train/inject_settings.h sets. What the program has no feature for is refused
 * with a sentence (`refused`). Nothing here sleeps or spins: who acts asks how much.
 *
 * Numbers are drawn from (seed, rank, step, place): the same run is disturbed the same way. */
#ifndef HEADWAY_INJECT_H
#define HEADWAY_INJECT_H

#include "base/base.h"

enum inject_kind {
    /* in the executor */
    INJECT_SLOW_COMPUTE, INJECT_PHI, INJECT_JITTER, INJECT_OP, INJECT_PROBE, INJECT_SERIAL,
    INJECT_OVERLAP,
    /* of what is exchanged on lanes */
    INJECT_COMM_DELAY, INJECT_COMM_BW, INJECT_PAIR_BW, INJECT_HANG,
    /* in the loader's threads */
    INJECT_LOADER_SPIN, INJECT_LOADER_BW, INJECT_LOADER_LOGNORMAL, INJECT_SEQLEN_ZIPF,
    INJECT_PADDING,
    /* in the loop, between the tasks of steps */
    INJECT_MALLOC_CHURN, INJECT_PAUSE, INJECT_LOG, INJECT_NEIGHBOUR, INJECT_KILL,
    INJECT_ROUTER_ZIPF,
    INJECT_ACTING, /* the kinds before this one act; those behind stand for settings */
    INJECT_EVAL = INJECT_ACTING, INJECT_CKPT, INJECT_HEALTH, INJECT_THREADS, INJECT_MICRO_BATCH,
    INJECT_ACCUMULATE, INJECT_RECOMPUTE, INJECT_ZERO, INJECT_BUCKET, INJECT_SYNC,
    INJECT_CAPACITY, INJECT_ISA, INJECT_DTYPE, INJECT_STAGE_SKEW,
    INJECT_ATTN, INJECT_NOFUSE, INJECT_SUBNORMAL, INJECT_CONTIGUOUS_CP,
    INJECT_KINDS
};

/* What a value looks like. */
enum inject_value {
    INJECT_NUMBER, /* of the row's unit */
    INJECT_WORD,   /* one of the row's words; any when it has none */
    INJECT_OP_DELAY, /* OP,delay=TIME */
    INJECT_OP_SLOWER, /* OP,slower=SHARE */
    INJECT_LINK,   /* a-b:RATE */
    INJECT_EVERY,  /* TIME/STEPS */
};

struct inject_row {
    const char *name;
    enum inject_value value;
    const char *unit;    /* of numbers without one: ms, us, MB/s, MiB, KiB, %, x, n */
    double least, most;  /* of numbers, in that unit */
    const char *words;   /* "off", "all|SIZE" ... */
    const char *acts;    /* where: compute, lanes, loader, loop, recipe */
    const char *key;     /* of the recipe, for what is a setting; else NULL */
    const char *refused; /* why this program cannot do it; else NULL */
    const char *help;
};
extern const struct inject_row inject_rows[INJECT_KINDS];

/* In a run's folder: probes that it was asked for while it went on, one a line. It looks
 * before each step. */
#define INJECT_PROBES_FILE "probes"
enum { INJECT_PROBES_CHARS = 1 << 12 };

enum { INJECT_FAULTS = 32, INJECT_CHARS = 48 };

struct inject_fault {
    enum inject_kind kind;
    double value;           /* seconds, bytes, bytes/s, a share, or as it stands */
    i64 every;              /* of INJECT_EVERY: steps */
    int a, b;               /* of INJECT_LINK */
    char word[INJECT_CHARS]; /* of words; the op's name */
    i64 first_rank, last_rank, first_step, last_step; /* steps from 0 */
    bool limited;           /* to ranks or steps */
};

/* Of one rank. Zero: nothing is injected. */
struct inject {
    struct inject_fault faults[INJECT_FAULTS];
    int n;
    u64 kinds; /* bit k: there is a fault of that kind, which acts, for this rank */
    u64 seed;
    i64 rank;
};

/* One fault; ERR_CONFIG names what is wrong, with the nearest kind, or says that this program
 * cannot. `where` begins the message. */
int inject_parse(struct inject_fault *out, const char *text, const char *where);
/* A list of them, as an option's texts are split: "delay=..." and "slower=..." go on with what
 * came before. */
int inject_read(struct inject *out, const char *const *texts, i64 n, const char *where);
/* Adds probes, one a line, as inject_parse reads them. A line that is none, or for which
 * there is no room, ends it: ERR_CONFIG. */
int inject_add_probes(struct inject *x, const char *lines);
/* ERR_CONFIG when one is meant for a rank that a run of so many does not have: it would disturb
 * nothing. */
int inject_check_ranks(const struct inject *x, i64 ranks);
/* All that concerns this rank from now on. */
void inject_begin(struct inject *x, i64 rank, u64 seed);

static inline bool inject_has(const struct inject *x, enum inject_kind kind)
{
    return x && x->kinds >> kind & 1;
}

/* The last fault of that kind that holds for this rank and step, or NULL. */
const struct inject_fault *inject_at(const struct inject *x, enum inject_kind kind, u64 step);

/* Of steps 2 k and 2 k + 1 the one that a probe slows, the same on all ranks: drawn, so
 * that nothing that comes every other step stands in its way. */
bool inject_probed(const struct inject *x, u64 step);
/* Whether a probe's word, the begin of an op's name or "all", means this op. */
bool inject_probes(const struct inject_fault *probe, const char *op);

/* How long what takes `seconds` of computing takes then: slow_compute, phi, jitter, op,
 * probe. op: the op's name; action: which part of the step, with a draw of its own. */
double inject_compute(const struct inject *x, const char *op, u64 step, u64 action,
                      double seconds);
/* How long the loader takes for a step beyond its own work: *spin of it computing. bytes: read. */
double inject_load(const struct inject *x, u64 step, double bytes, double *spin);
/* A call of n members (ranks, in order; me: this one's index) that sends so many bytes: the time
 * in which it occupies a link, and the delay behind that. peer: of a send or a receive; else -1. */
struct inject_call {
    double link, delay;
};
struct inject_call inject_call(const struct inject *x, u64 step, const int *members, int n,
                               int me, int peer, double bytes);
/* How long so many bytes occupy the link between two ranks, if it is slow from the first step on: a
 * probe before the run finds it so. 0: it is not. */
double inject_pair(const struct inject *x, int rank, int peer, double bytes);
/* Standing still before a step's tasks. */
double inject_pause(const struct inject *x, u64 step);
/* A row of T tokens is cut into documents of this length; T: it is not. */
i64 inject_length(const struct inject *x, u64 step, i64 row, i64 T);

#endif
