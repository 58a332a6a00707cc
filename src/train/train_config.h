/* train/train_config.h - what a training recipe says.
 *
 * One struct, one table (train_options, see base/option.h); `headway config` prints the
 * reference from it. Nothing is decided here: paths are not opened and shapes are not
 * compared. train_config_check() finds settings that contradict each other.
 *
 * Values of 0 that mean "not set" or "off" are named in the help of their row. */
#ifndef HEADWAY_TRAIN_CONFIG_H
#define HEADWAY_TRAIN_CONFIG_H

#include "base/option.h"
#include "base/recipe.h"
#include "graph/program.h"

/* The order of each enum is the order of the row's choices. */
enum train_packing { PACK_CONTIGUOUS, PACK_DOCUMENTS };
enum train_border { BORDER_STOP, BORDER_CROSS };
enum train_loss_on { LOSS_ON_ALL, LOSS_ON_ANSWERS };
enum train_missing { MISSING_STOP, MISSING_SKIP };
enum train_precision { PRECISION_FP32, PRECISION_BF16 };
enum train_spike { SPIKE_LOG, SPIKE_SKIP, SPIKE_REWIND };
enum train_optimizer { OPTIMIZER_ADAMW, OPTIMIZER_MUON };
enum train_schedule { SCHEDULE_COSINE, SCHEDULE_WSD, SCHEDULE_LINEAR, SCHEDULE_CONSTANT };
enum train_trace { TRACE_OFF, TRACE_STEPS, TRACE_TASKS };

struct train_config {
    struct {
        const char *spec; /* a name in models/, or a path */
        const char *from; /* a Hugging Face folder or a checkpoint */
        const struct yaml_node *override; /* a map of spec keys */
        i64 window;
    } model;
    struct {
        const struct yaml_node *sources; /* a path, or a list of paths and maps */
        const char *tokenizer;
        const char *cache;
        double val_fraction;
        i64 seed;
        int packing; /* enum train_packing */
        int border;  /* enum train_border */
        int loss_on; /* enum train_loss_on */
        int on_missing; /* enum train_missing */
        i64 prefetch, threads;
    } data;
    struct {
        i64 steps, tokens;
        double max_time;
        i64 batch, seq, accumulate, global_batch;
        int precision; /* enum train_precision */
        int recompute; /* enum recompute, graph/program.h */
        i64 threads, seed;
        double clip, z_loss, ema;
    } train;
    struct {
        i64 batch_from, batch_steps, seq_from, seq_steps;
    } ramp;
    struct {
        i64 max_bad, bad_window;
        int spike; /* enum train_spike */
        double sigma;
        i64 rewind, skip, max_rewinds;
    } guard;
    struct {
        int name; /* enum train_optimizer */
        double lr, beta1, beta2, eps, weight_decay;
        double muon_lr, muon_momentum;
        i64 muon_ns_steps;
    } optim;
    struct {
        i64 every;
        double lr, momentum;
    } outer;
    struct {
        int schedule; /* enum train_schedule */
        i64 warmup;
        double decay_fraction, min_ratio;
    } lr;
    struct {
        i64 every, tokens;
    } eval;
    struct {
        const char *dir;
        i64 every;
        double interval;
        i64 keep;
        bool async;
        int snapshot; /* enum checkpoint_snapshot */
        i64 max_missed;
    } checkpoint;
    struct {
        bool optimizer, activations;
        i64 least;
        const char *folder;
    } offload;
    struct {
        const char *dir, *name;
        bool preflight;
        struct option_strings inject;
    } run;
    struct {
        const char *location, *powercap;
        double carbon_g_per_kwh, pue;
        bool gpu;
    } energy;
    struct {
        int level; /* enum train_trace */
        i64 ring, disk;
        double slow;
    } trace;
    struct {
        i64 every;
        bool tensorboard;
        const char *openmetrics; /* NULL: none */
        i64 health;
    } log;
};

extern const struct option train_options[];

/* Settings that contradict each other or leave the run without an end. `r` names where
 * they were given. */
int train_config_check(const struct train_config *c, const struct recipe *r);

#endif
