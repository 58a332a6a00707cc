#include "train/train_config.h"

#include "base/err.h"
#include "train/schedule.h"

#include <math.h>

#define FIELD(kind, field) OPTION_FIELD(kind, struct train_config, field)

const struct option train_options[] = {
    /* --- model --- */
    { "model.spec", FIELD(STRING, model.spec), NULL,
      .help = "Model specification: a name that `headway model list` prints, or the path of "
              "a YAML file. Not needed with model.from." },
    { "model.from", FIELD(PATH, model.from), NULL,
      .help = "Start from these weights, with a fresh optimizer: a Hugging Face folder, a run, a "
              "folder of checkpoints (the newest counts) or one step-N of it. Without it, "
              "weights are drawn from train.seed." },
    { "model.override", FIELD(NODE, model.override), NULL,
      .help = "Map of model specification keys to replace, such as {layers: 4}." },
    { "model.window", FIELD(SIZE, model.window), "0", .unit = "tokens", .max = 1e9,
      .help = "Sliding attention window: each token sees this many tokens, itself included. "
              "0 leaves what the model specification says." },
    /* --- data --- */
    { "data.sources", FIELD(NODE, data.sources), NULL,
      .help = "Where text comes from: a path, or a list of paths or of maps with path, "
              "weight, max_epochs, name and licence. Files may be text, jsonl, .gz, .zst, "
              "folders of these, or prepared shards." },
    { "data.tokenizer", FIELD(PATH, data.tokenizer), NULL,
      .help = "Tokenizer: a tokenizer.json, or a folder that holds one. Without it, the one "
              "that model.from or prepared shards bring." },
    { "data.cache", FIELD(PATH, data.cache), NULL,
      .help = "Folder for shards that are prepared on the fly; without it, inside the run "
              "folder." },
    { "data.val_fraction", FIELD(FLOAT, data.val_fraction), "0.01", .max = 0.5,
      .help = "Share of documents held out for validation, chosen by the hash of their text. "
              "0 holds out none." },
    { "data.seed", FIELD(INT, data.seed), "1", .max = INFINITY,
      .help = "Seed of the order in which samples are visited." },
    { "data.packing", FIELD(CHOICE, data.packing), "contiguous",
      .choices = "contiguous|documents",
      .help = "How rows are filled. contiguous cuts the stream of documents every train.seq "
              "tokens; documents starts rows at document starts and packs whole ones." },
    { "data.border", FIELD(CHOICE, data.border), "stop", .choices = "stop|cross",
      .help = "Whether attention stops at the border between documents in one row, or "
              "crosses it." },
    { "data.loss_on", FIELD(CHOICE, data.loss_on), "all", .choices = "all|answers",
      .help = "Tokens that count in the loss: all, or only the answers of chat and "
              "prompt-answer data." },
    { "data.on_missing", FIELD(CHOICE, data.on_missing), "stop", .choices = "stop|skip",
      .help = "When a source's files vanish or turn out damaged during the run: stop after "
              "saving what was reached, or go on without that source, with a warning." },
    { "data.prefetch", FIELD(INT, data.prefetch), "4", .unit = "batches", .min = 1,
      .max = 1024, .help = "Batches that are read ahead of the training step." },
    { "data.threads", FIELD(INT, data.threads), "1", .unit = "threads", .min = 1, .max = 256,
      .help = "Threads of each rank that read ahead." },
    /* --- train --- */
    { "train.steps", FIELD(INT, train.steps), "0", .unit = "steps",
      .max = INFINITY,
      .help = "Stop after this many optimizer steps; 0 sets no such limit. The first limit "
              "of steps, tokens and max_time that is reached ends the run." },
    { "train.tokens", FIELD(SIZE, train.tokens), "0", .unit = "tokens", .max = INFINITY,
      .help = "Stop after training on this many tokens; 0 sets no such limit." },
    { "train.max_time", FIELD(DURATION, train.max_time), "0", .unit = "seconds", .max = 1e9,
      .help = "Take steps for so long; evaluations and checkpoints between them are included, "
              "preparing before the first and the last of each at the end are not. The learning "
              "rate follows the clock. 0 sets no such limit." },
    { "train.batch", FIELD(INT, train.batch), "8", .unit = "rows", .min = 1, .max = 1e6,
      .help = "Rows that are computed at once (the micro-batch). Larger is faster until "
              "memory runs out." },
    { "train.seq", FIELD(SIZE, train.seq), "256", .unit = "tokens", .min = 1, .max = 1e7,
      .help = "Tokens in a row. At most the positions that the model has." },
    { "train.accumulate", FIELD(INT, train.accumulate), "1", .unit = "micro-batches",
      .min = 1, .max = 1e6,
      .help = "Micro-batches whose gradients are summed for one step." },
    { "train.global_batch", FIELD(SIZE, train.global_batch), "0", .unit = "tokens",
      .max = INFINITY,
      .help = "Tokens in one step, instead of train.accumulate: must be a multiple of "
              "train.batch x train.seq. 0 uses train.accumulate." },
    { "train.precision", FIELD(CHOICE, train.precision), "fp32", .choices = "fp32|bf16",
      .help = "Arithmetic of matrix products and activations. Master weights, optimizer "
              "state and sums stay in fp32." },
    { "train.recompute", FIELD(CHOICE, train.recompute), "none",
      .choices = "none|selective|full",
      .help = "Activations that are computed again in the backward pass instead of kept: "
              "none, the cheap ones, or all but each layer's input." },
    { "train.threads", FIELD(INT, train.threads), "0", .unit = "threads", .max = 4096,
      .help = "Threads that compute; 0 uses every processor that the process may run on. "
              "The result does not depend on it." },
    { "train.seed", FIELD(INT, train.seed), "1", .max = INFINITY,
      .help = "Seed of the initial weights." },
    { "train.clip", FIELD(FLOAT, train.clip), "1", .max = 1e9,
      .help = "The gradient is scaled down to this global norm; 0 does not clip." },
    { "train.z_loss", FIELD(FLOAT, train.z_loss), "0", .max = 1,
      .help = "Weight of the square of log Z in the loss, which keeps logits from drifting "
              "(1e-4 is customary); 0 is off." },
    { "train.ema", FIELD(FLOAT, train.ema), "0", .max = 0.999999,
      .help = "Decay per step of a running average of the weights, kept beside them and "
              "evaluated too; 0 is off." },
    /* --- offload --- */
    { "offload.optimizer", FIELD(BOOL, offload.optimizer), "no",
      .help = "Optimizer state and averages lie in a file; each layer's are fetched while the "
              "one before is updated." },
    { "offload.activations", FIELD(BOOL, offload.activations), "no",
      .help = "Activations that wait for the backward pass lie in a file until shortly before "
              "it wants them." },
    { "offload.least", FIELD(SIZE, offload.least), "64KiB", .unit = "bytes", .min = 1,
      .help = "Smaller activations stay in memory." },
    { "offload.folder", FIELD(PATH, offload.folder), NULL,
      .help = "Where these files are (they have no name and vanish with the process): a fast "
              "local disk. Not set: the run's folder." },
    /* --- ramp --- */
    { "ramp.batch_from", FIELD(INT, ramp.batch_from), "0", .unit = "micro-batches",
      .max = 1e6,
      .help = "Micro-batches in the first step, growing to the full number; 0 is off." },
    { "ramp.batch_steps", FIELD(INT, ramp.batch_steps), "0", .unit = "steps",
      .max = 1e7,
      .help = "Steps over which the batch grows." },
    { "ramp.seq_from", FIELD(SIZE, ramp.seq_from), "0", .unit = "tokens", .max = 1e7,
      .help = "Tokens in a row at the first step, growing by doubling to train.seq; "
              "0 is off." },
    { "ramp.seq_steps", FIELD(INT, ramp.seq_steps), "0", .unit = "steps",
      .max = 1e7,
      .help = "Steps over which the row grows." },
    /* --- guard --- */
    { "guard.max_bad", FIELD(INT, guard.max_bad), "5", .unit = "steps", .min = 1,
      .max = 1e6,
      .help = "Steps with NaN or Inf are skipped; the run stops when more than this many "
              "of the last guard.bad_window steps were." },
    { "guard.bad_window", FIELD(INT, guard.bad_window), "100", .unit = "steps", .min = 1,
      .max = 1e6, .help = "Steps that guard.max_bad looks back on." },
    { "guard.spike", FIELD(CHOICE, guard.spike), "log", .choices = "log|skip|rewind",
      .help = "What to do when the loss jumps: note it, skip the update, or go back to an "
              "earlier checkpoint and pass over the batches in between." },
    { "guard.sigma", FIELD(FLOAT, guard.sigma), "6", .unit = "deviations", .min = 1,
      .max = 1000,
      .help = "A loss is a spike when it lies this many robust standard deviations above "
              "the median of recent steps." },
    { "guard.rewind", FIELD(INT, guard.rewind), "100", .unit = "steps", .min = 1,
      .max = 1e9, .help = "How far back a rewind goes, at least." },
    { "guard.skip", FIELD(INT, guard.skip), "200", .unit = "steps", .min = 1, .max = 1e9,
      .help = "Data that is passed over after a rewind: what this many full steps take." },
    { "guard.max_rewinds", FIELD(INT, guard.max_rewinds), "10", .unit = "rewinds",
      .max = 1e6,
      .help = "Rewinds in a whole run. Beyond them, and until the run is well past where "
              "its last rewind began, a spike's update is skipped instead." },
    /* --- optim --- */
    { "optim.name", FIELD(CHOICE, optim.name), "adamw", .choices = "adamw|muon",
      .help = "Optimizer. muon treats the matrices of the layers and leaves the rest to "
              "AdamW." },
    { "optim.lr", FIELD(FLOAT, optim.lr), "6e-4", .max = 10,
      .help = "Peak learning rate of AdamW." },
    { "optim.beta1", FIELD(FLOAT, optim.beta1), "0.9", .max = 0.999999,
      .help = "Decay of the gradient's running mean." },
    { "optim.beta2", FIELD(FLOAT, optim.beta2), "0.95", .max = 0.9999999,
      .help = "Decay of the squared gradient's running mean." },
    { "optim.eps", FIELD(FLOAT, optim.eps), "1e-8", .min = 1e-20, .max = 1,
      .help = "Added to the root of the squared gradient's mean." },
    { "optim.weight_decay", FIELD(FLOAT, optim.weight_decay), "0.1", .max = 10,
      .help = "Decoupled weight decay of matrices and embeddings; gains and biases have "
              "none." },
    { "optim.muon_lr", FIELD(FLOAT, optim.muon_lr), "0", .max = 10,
      .help = "Peak learning rate of the matrices under muon. Their updates are scaled to the "
              "size of AdamW's (Moonlight), so that its rates suit: 0 is optim.lr." },
    { "optim.muon_momentum", FIELD(FLOAT, optim.muon_momentum), "0.95", .max = 0.999999,
      .help = "Momentum of muon." },
    { "optim.muon_ns_steps", FIELD(INT, optim.muon_ns_steps), "5", .unit = "iterations",
      .min = 1, .max = 20, .help = "Newton-Schulz iterations of muon." },
    /* --- outer --- */
    { "outer.every", FIELD(INT, outer.every), "0", .unit = "steps", .max = 1e9,
      .help = "Steps between outer steps, in which islands (layout.islands) average how far their "
              "weights have moved and go on from one place (DiLoCo takes 500); 0 is off." },
    { "outer.lr", FIELD(FLOAT, outer.lr), "0.7", .max = 10,
      .help = "Learning rate of the outer step; 1 without momentum is a plain average." },
    { "outer.momentum", FIELD(FLOAT, outer.momentum), "0.9", .max = 0.999999,
      .help = "Nesterov momentum of the outer step." },
    /* --- lr --- */
    { "lr.schedule", FIELD(CHOICE, lr.schedule), "cosine",
      .choices = "cosine|wsd|linear|constant",
      .help = "Learning rate after warm-up: a cosine to lr.min_ratio, stable and then "
              "decayed in the last part (wsd), a straight line, or constant." },
    { "lr.warmup", FIELD(INT, lr.warmup), "100", .unit = "steps",
      .max = INFINITY,
      .help = "Steps over which the learning rate grows from 0 to its peak." },
    { "lr.decay_fraction", FIELD(FLOAT, lr.decay_fraction), "0.2", .max = 1,
      .help = "Last share of the run in which wsd lowers the learning rate." },
    { "lr.min_ratio", FIELD(FLOAT, lr.min_ratio), "0.1", .max = 1,
      .help = "Final learning rate as a share of the peak." },
    /* --- eval --- */
    { "eval.every", FIELD(INT, eval.every), "250", .unit = "steps",
      .max = INFINITY,
      .help = "Steps between evaluations on held-out documents; 0 evaluates only at the "
              "end." },
    { "eval.tokens", FIELD(SIZE, eval.tokens), "100K", .unit = "tokens", .max = INFINITY,
      .help = "Held-out tokens per evaluation; 0 uses all, as the one at the end does." },
    /* --- checkpoint --- */
    { "checkpoint.dir", FIELD(PATH, checkpoint.dir), NULL,
      .help = "Folder of checkpoints; without it, `checkpoints` in the run folder." },
    { "checkpoint.every", FIELD(INT, checkpoint.every), "0", .unit = "steps",
      .max = INFINITY,
      .help = "Steps between checkpoints; 0 sets no such rule. One is always saved at the "
              "end." },
    { "checkpoint.interval", FIELD(DURATION, checkpoint.interval), "10m", .unit = "seconds",
      .max = 1e9, .help = "Time between checkpoints; 0 sets no such rule." },
    { "checkpoint.keep", FIELD(INT, checkpoint.keep), "2", .unit = "checkpoints", .min = 1,
      .max = 1e6, .help = "Newest checkpoints to keep; older ones are deleted." },
    { "checkpoint.async", FIELD(BOOL, checkpoint.async), "true",
      .help = "Write while training goes on. With no, training waits for the disk." },
    { "checkpoint.snapshot", FIELD(CHOICE, checkpoint.snapshot), "auto",
      .choices = "auto|live|copy",
      .help = "How an asynchronous checkpoint keeps the state as it was: copy it to memory "
              "first (copy), or write it from where it lies during the next forward and "
              "backward pass, which only read it (live). Auto copies below 256 MiB." },
    { "checkpoint.max_missed", FIELD(INT, checkpoint.max_missed), "3",
      .unit = "checkpoints", .max = 1e6,
      .help = "Checkpoints in a row that may fail (disk full, say) before the run stops." },
    /* --- run --- */
    { "run.dir", FIELD(PATH, run.dir), "runs",
      .help = "Folder that holds run folders." },
    { "run.preflight", FIELD(BOOL, run.preflight), "yes",
      .help = "Before the first step of several ranks: time a product on each and messages "
              "between each two, and name what is slower than the rest." },
    { "run.inject", FIELD(STRINGS, run.inject), NULL,
      .help = "What slows this run down on purpose, to see whether it is found: kind=value"
              "[@rank][:steps], as --inject of `headway train`, whose help lists the kinds." },
    { "run.name", FIELD(STRING, run.name), NULL,
      .help = "Name of the run folder; without it, made from the recipe's name and the "
              "time." },
    /* --- energy --- */
    { "energy.location", FIELD(STRING, energy.location), NULL,
      .help = "Where the electricity comes from: a country (FRA, France), gcp:REGION, us:STATE "
              "or a Nordic zone (SE1). Not set: the world's mean, and the ledger says so." },
    { "energy.carbon_g_per_kwh", FIELD(FLOAT, energy.carbon_g_per_kwh), "0", .unit = "g/kWh",
      .max = 5000,
      .help = "Grams of CO2e per kWh, where better known than by energy.location; 0: not." },
    { "energy.pue", FIELD(FLOAT, energy.pue), "1", .min = 1, .max = 10,
      .help = "Power that the building takes over that of its machines; 1: only the machine." },
    { "energy.gpu", FIELD(BOOL, energy.gpu), "no",
      .help = "Also count what the NVIDIA GPUs of each node take, all of them, by their own "
              "counters. Nothing is computed on them: this is what idling costs." },
    { "energy.powercap", FIELD(PATH, energy.powercap), "/sys/class/powercap",
      .help = "Folder of the processors' energy counters: another, where a container has the "
              "host's elsewhere." },
    /* --- trace --- */
    { "trace.level", FIELD(CHOICE, trace.level), "tasks", .choices = "off|steps|tasks",
      .help = "What is timed: nothing, whole steps, or every task." },
    { "trace.ring", FIELD(INT, trace.ring), "65536", .unit = "spans", .min = 64, .max = 1e9,
      .help = "Spans kept per lane; older ones are overwritten." },
    { "trace.disk", FIELD(SIZE, trace.disk), "64MiB", .unit = "bytes", .max = 1e15,
      .help = "Disk for the spans of each rank, RUN/trace/rank-N.spans: the newest "
              "steps, and those around a slow step or a spike of the loss. 0 records "
              "nothing." },
    { "trace.slow", FIELD(FLOAT, trace.slow), "6", .max = 1e9,
      .help = "A step is kept as a slow one when it takes so many robust deviations longer than "
              "the median of those before it, and a quarter longer; 0 keeps none." },
    /* --- log --- */
    { "log.every", FIELD(INT, log.every), "10", .unit = "steps", .min = 1,
      .help = "Steps between lines in the metrics file and the log." },
    { "log.tensorboard", FIELD(BOOL, log.tensorboard), "true",
      .help = "Write a TensorBoard event file into the run folder." },
    { "log.health", FIELD(INT, log.health), "0", .unit = "steps", .max = INFINITY,
      .help = "Steps between measurements of how learning goes, such as 100: norms of each "
              "parameter's gradient, weight and update, attention's largest logit (q k scale, "
              "before softmax) per layer, and the gradient noise scale (a batch that suits), as "
              "`health` in the metrics file and in TensorBoard. 0 never measures, and costs "
              "nothing." },
    { "log.openmetrics", FIELD(PATH, log.openmetrics), NULL,
      .help = "File that says where the run is (loss, tokens, speed, ...) in OpenMetrics text "
              "format, replaced at each logged step; where its name ends in .prom, in Prometheus' "
              "own: such as /var/lib/prometheus/node-exporter/headway.prom for node_exporter's "
              "textfile collector." },
    { 0 },
};

/* Where one of two keys that do not fit together was given; one of them was. */
static const char *given_at(const struct recipe *r, const char *a, const char *b)
{
    const char *where = recipe_where(r, a);
    return where ? where : recipe_where(r, b);
}

static int check_batch(const struct train_config *c, const struct recipe *r)
{
    i64 rows_tokens = c->train.batch * c->train.seq;
    if (c->train.global_batch % rows_tokens)
        return err_set(ERR_CONFIG,
                       "%s: train.global_batch of %lld tokens is not a multiple of the "
                       "%lld tokens of a micro-batch (train.batch %lld x train.seq %lld)",
                       recipe_where(r, "train.global_batch"),
                       (long long)c->train.global_batch, (long long)rows_tokens,
                       (long long)c->train.batch, (long long)c->train.seq);
    if (c->train.global_batch && recipe_where(r, "train.accumulate"))
        return err_set(ERR_CONFIG,
                       "%s: give train.global_batch or train.accumulate, not both",
                       recipe_where(r, "train.accumulate"));
    return OK;
}

static int check_ramps(const struct train_config *c, const struct recipe *r)
{
    if ((c->ramp.batch_from > 0) != (c->ramp.batch_steps > 0))
        return err_set(ERR_CONFIG, "%s: ramp.batch_from and ramp.batch_steps go together",
                       given_at(r, "ramp.batch_from", "ramp.batch_steps"));
    if (c->ramp.batch_from > schedule_full_micro_batches(c))
        return err_set(ERR_CONFIG, "%s: ramp.batch_from %lld is more than the %lld "
                       "micro-batches of a full step (train.accumulate)",
                       given_at(r, "ramp.batch_from", "train.accumulate"),
                       (long long)c->ramp.batch_from, (long long)schedule_full_micro_batches(c));
    if ((c->ramp.seq_from > 0) != (c->ramp.seq_steps > 0))
        return err_set(ERR_CONFIG, "%s: ramp.seq_from and ramp.seq_steps go together",
                       given_at(r, "ramp.seq_from", "ramp.seq_steps"));
    if (c->ramp.seq_from > c->train.seq)
        return err_set(ERR_CONFIG, "%s: ramp.seq_from %lld is longer than train.seq %lld",
                       given_at(r, "ramp.seq_from", "train.seq"),
                       (long long)c->ramp.seq_from, (long long)c->train.seq);
    i64 row = c->ramp.seq_from;
    while (row > 0 && row * 2 < c->train.seq)
        row *= 2;
    if (row > 0 && c->train.seq % row)
        return err_set(ERR_CONFIG, "%s: rows that double from ramp.seq_from %lld come to %lld "
                       "tokens, which do not divide train.seq %lld; let train.seq be "
                       "ramp.seq_from times 2, 4, 8, ...",
                       given_at(r, "ramp.seq_from", "train.seq"),
                       (long long)c->ramp.seq_from, (long long)row, (long long)c->train.seq);
    return OK;
}

int train_config_check(const struct train_config *c, const struct recipe *r)
{
    if (!c->model.spec && !c->model.from)
        return err_set(ERR_CONFIG, "no model: give model.spec, such as --set "
                                   "model.spec=gpt2-124m, or model.from");
    if (!c->data.sources)
        return err_set(ERR_CONFIG, "no data: give data.sources, such as --set "
                                   "data.sources=corpus.txt");
    if (!c->train.steps && !c->train.tokens && c->train.max_time == 0)
        return err_set(ERR_CONFIG, "no end: give train.steps, train.tokens or "
                                   "train.max_time, such as --set train.steps=1000");
    TRY(check_batch(c, r));
    TRY(check_ramps(c, r));
    if (c->outer.every > 0 && c->train.ema > 0)
        return err_set(ERR_CONFIG, "%s: train.ema averages the weights of every step, and an outer "
                       "step replaces them; leave train.ema or outer.every out",
                       given_at(r, "train.ema", "outer.every"));
    if (c->guard.max_bad >= c->guard.bad_window)
        return err_set(ERR_CONFIG,
                       "%s: guard.max_bad %lld must be less than guard.bad_window %lld",
                       given_at(r, "guard.max_bad", "guard.bad_window"),
                       (long long)c->guard.max_bad, (long long)c->guard.bad_window);
    return OK;
}
