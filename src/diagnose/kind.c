#include "diagnose/kind.h"

#include <string.h>

const struct kind kinds[KINDS] = {
    { "D1", "the loader computes too slowly",
      "steps that find nothing read ahead; its threads' time on a processor", "loader_spin=50ms",
      KIND_NAMED },
    { "D2", "storage is too slow", "the same, while its threads wait for reads",
      "loader_bw=10MB/s", KIND_NAMED },
    { "D3", "the page cache is too small", "bytes read per byte used; faults from storage", NULL,
      KIND_NAMED },
    { "D4", "batches come unevenly", "replay of the queue with the loader's recorded times",
      "loader_lognormal=80ms", KIND_NAMED },
    { "D5", "rows are padded", "places that no counted token depends on", "padding=20%", KIND_NAMED },
    { "D6", "rows of unequal length",
      "correlation of a rank's computing with the pairs that attend", "seqlen_zipf=1", KIND_NAMED },

    { "H1", "logging too often", "spans of logging", "log_every=1", KIND_NAMED },
    { "H2", "evaluating too often", "spans of evaluation", "eval_every=5", KIND_NAMED },
    { "H3", "checkpoints hold the step up", "spans of checkpoints", "ckpt_every=10", KIND_NAMED },
    { "H4", "memory is mapped afresh in each step", "page faults; time inside the kernel",
      "malloc_churn=64MiB", KIND_NAMED },
    { "H5", "too many short tasks", "tasks that take less than twenty empty ones", NULL,
      KIND_NAMED },
    { "H6", "what watches learning takes time", "tasks with log.health's condition", "health_every=1",
      KIND_NAMED },
    { "H7", "memory is short", "pressure on memory; faults from storage; the limit", NULL,
      KIND_NAMED },
    { "H8", "something else runs on these processors",
      "time that threads are ready and wait for a processor; steal", "neighbour=2", KIND_NAMED },
    { "H9", "a regular pause without a name", "gaps between spans that repeat", "pause=20ms/8",
      KIND_NAMED },

    { "K1", "more threads than processors", "threads and processors of a node; time off them",
      "threads=8", KIND_NAMED },
    { "K2", "threads wait for one of them", "mean of threads' work over the longest, by task",
      "serial=linear", KIND_NAMED },
    { "K3", "false sharing", "threads write tiles of their own, and what they count lies in lines "
      "of its own (base/pool.c): no two write one line in a loop", NULL, KIND_NEVER },
    { "K4", "a processor is held back", "a loop on registers, against the start; throttled time",
      "phi_override=0.7", KIND_NAMED },
    { "K5", "memory of another NUMA node", "on which nodes a rank's own memory lies, and how far these "
      "are, beside what its memory-bound tasks take", NULL, KIND_NAMED },
    { "K6", "one op is slow for what it does", "in simulated runs, its time against FLOPs and bytes, "
      "beside other ops'; real kernels stride by no leading dimension: products copy their operands "
      "into panels (backend/cpu/multi/gemm_pack.c), all else reads rows from end to end",
      "op=attention,delay=2ms", KIND_NAMED },
    { "K7", "products are too thin", "FLOPs per byte of products, against the machine's",
      "micro_batch=1", KIND_NAMED },
    { "K8", "slow arithmetic", "the ceiling in use, against the best that was probed",
      "isa=generic", KIND_NAMED },
    { "K9", "unfused chains", "which ops are fused is no setting, and a backend has one kernel for an "
      "op: norms, activations, attention and losses are fused in each; a slower backend is K8",
      NULL, KIND_NEVER },
    { "K10", "recompute that memory does not ask for", "time of tasks that are marked as repeated",
      "recompute=full", KIND_NAMED },
    { "K11", "subnormal numbers", "the threads that train take them as zero and make none "
      "(train/session.c); with them adamw took 17 to 24 times as long on an Intel Xeon, and no "
      "longer on an AMD EPYC", NULL, KIND_NEVER },
    { "K12", "small pages", "the one region of tensors asks for huge pages (base/sys.c); without them a "
      "step of laptop-25m took 0.2 to 1.8 % longer, which is no finding", NULL, KIND_BLIND },
    { "K13", "work that a mask throws away", "attention never computes what its mask forbids: its "
      "FLOPs are those of the pairs that attend", NULL, KIND_NEVER },
    { "K14", "every rank makes the same update", "time of updates that copies repeat", "zero=0",
      KIND_NAMED },

    { "C1", "exchanges that nothing hides", "exposed time of exchanges beside computing behind them",
      "overlap=off", KIND_NAMED },
    { "C2", "exchanges in too many pieces", "share of latency in what exchanges take", "bucket=16KiB",
      KIND_NAMED },
    { "C3", "exchanges in too few pieces", "exposed time behind the backward pass", "bucket=all",
      KIND_NAMED },
    { "C4", "low bandwidth", "a line through sizes and times, against the probe before the run",
      "comm_bw=10MB/s", KIND_NAMED },
    { "C5", "high latency", "the same", "comm_delay=300us", KIND_NAMED },
    { "C6", "another algorithm would exchange faster", "which algorithm an MPI library takes between "
      "hosts is its own; within a host there is one", NULL, KIND_BLIND },
    { "C7", "the axis that talks most crosses hosts", "what passes between any two ranks before the "
      "run: whether they lie in domains; bytes of each axis that pass between these, beside other "
      "orders of the axes (layout.order)", "pair_bw=0-2:10MB/s", KIND_NAMED },
    { "C8", "senders wait for each other in a chain", "a send does not wait for its receiver, nor "
      "hold up what its lane does next (comm/lane.h)", NULL, KIND_NEVER },
    { "C9", "computing slows down beside exchanges", "the same tasks with and without an exchange "
      "under way", NULL, KIND_NAMED },
    { "C10", "the same is exchanged several times", "exchanges of a task in a step",
      "sync_every_microbatch=on", KIND_NAMED },
    { "C11", "one slow link", "bytes per second of each pair, and what rings of more pass beside their "
      "slowest link before the run",
      "pair_bw=0-1:10MB/s", KIND_NAMED },

    { "B1", "one rank is always slow", "computing against the peers of its stage",
      "slow_compute=1.5@1", KIND_NAMED },
    { "B2", "a rank became slow", "change of level of the same", "slow_compute=1.5@1:20-40",
      KIND_NAMED },
    { "B3", "ranks are slow by turns", "spread within a step without a rank that stands out",
      "jitter=20%", KIND_NAMED },
    { "B4", "stages of unequal length", "computing by stage", "stage_skew=1", KIND_NAMED },
    { "B5", "too few micro-batches for the pipeline", "the ladder's bubble", "accumulate=4",
      KIND_NAMED },
    { "B6", "micro-batches smaller than the pipeline needs",
      "products' FLOPs and bytes with more rows, against the bubble", "micro_batch=1", KIND_NAMED },
    { "B7", "experts of unequal load", "tokens of the fullest expert over the mean",
      "router_zipf=1", KIND_NAMED },
    { "B8", "experts' places stay empty", "rows that hold no token are not computed "
      "(ops/expert_linear.c): a capacity costs memory, and tokens that are dropped stand in the metrics",
      NULL, KIND_NEVER },
    { "B9", "a causal row cut where ranks attend unequally", "rows are cut in zigzag (ops/zigzag.h), "
      "which is no setting: every rank has equally many pairs, to the token", NULL, KIND_NEVER },

    { "R1", "checkpoints too far apart for the failures there are",
      "parts of a run whose last steps were taken again", "kill=30", KIND_NAMED },
    { "R2", "a slow start", "time before the first step", NULL, KIND_NAMED },
    { "R3", "memory that a larger micro-batch could use",
      "the peak against the limit, where K7, H5 or B6 was found", "micro_batch=1", KIND_NAMED },
    { "R4", "energy of ranks that have time", "by how much ranks could compute more slowly, "
      "replayed; joules by the run's ledger and a model of what a lower clock saves. Waiting itself is slept "
      "(comm/lane.h)", "slow_compute=1.5@1", KIND_NAMED },
    { "R5", "the run stands still", "time since anything was recorded; who has made fewer calls",
      "hang=1@1:20", KIND_NAMED },
};

const char *kind_state_name(enum kind_state s)
{
    static const char *const names[] = { "named", "cannot occur", "not measured" };
    return names[s];
}

void kinds_text(struct text *out)
{
    for (int i = 0; i < KINDS; i++) {
        const struct kind *k = &kinds[i];
        text_printf(out, "%-4s %s\n       %s: ", k->id, k->name, kind_state_name(k->state));
        text_wrap(out, k->measured, 9 + (i64)strlen(kind_state_name(k->state)), 9, 98);
        if (k->inject)
            text_printf(out, "\n       --inject %s", k->inject);
        else if (k->state == KIND_NAMED)
            text_add(out, "\n       nothing injects it: tests plant its numbers");
        text_add(out, "\n");
    }
}
