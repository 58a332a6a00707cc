#include "plan/stack.h"

#include "base/err.h"

#include "plan/cost.h"
#include "plan/plan_files.h"

#define STACK(type, field) OPTION_FIELD(type, struct plan_stack, field)

const struct option plan_stack_options[] = {
    { "name", STACK(STRING, name), NULL, .help = "Of the software." },
    { "provenance", STACK(STRING, provenance), NULL, .help = "Where the values come from." },
    { "like", STACK(STRING, like), NULL,
      .help = "Name of software with the same kernels: steps of that one count as this one's." },
    { "seen", STACK(STRINGS, seen), NULL,
      .help = "Families of devices on which steps of it were fitted." },
    { "frameworks", STACK(STRINGS, frameworks), NULL,
      .help = "How tables of measurements call it: beginnings." },
    { "attention", STACK(CHOICE, attention), "fused", .choices = "fused|scores",
      .help = "One kernel, or products with scores in memory." },
    { "generation", STACK(INT, generation), "2", .min = 1, .max = 3,
      .help = "Of kernels of fused attention: 1 FlashAttention, 2 FlashAttention-2, 3 made for the device." },
    { "softmax.multiple", STACK(INT, softmax_multiple), "0", .max = 1024,
      .help = "The softmax is one kernel where micro-batch x heads is a multiple of this; 0: always." },
    { "softmax.kernels", STACK(FLOAT, kernels_softmax), "0", .max = 1e4,
      .help = "Kernels more where it is not, forward and backward each." },
    { "softmax.bytes", STACK(FLOAT, softmax_bytes), "0", .max = 1e4, .unit = "bytes",
      .help = "Moved per score more where it is not, forward and backward each." },
    { "bytes.scores", STACK(FLOAT, scores_bytes), "0", .max = 1e4, .unit = "bytes",
      .help = "Moved per score more forward, such as by biases of positions." },
    { "dropout", STACK(BOOL, dropout), "false", .help = "Masks are made and kept." },
    { "kernels.forward", STACK(FLOAT, kernels_forward), "20", .max = 1e5,
      .help = "Kernels that the host starts for a layer's forward pass." },
    { "kernels.backward", STACK(FLOAT, kernels_backward), "40", .max = 1e5,
      .help = "The same for its backward pass." },
    { "kernels.batch", STACK(FLOAT, kernels_batch), "40", .max = 1e5,
      .help = "For a micro-batch on a stage besides its layers." },
    { "kernels.exchange", STACK(FLOAT, kernels_exchange), "2", .max = 1e5,
      .help = "The same for an exchange within a layer: its kernel and the event that is waited for." },
    { "kernels.pipeline", STACK(FLOAT, kernels_pipeline), "0", .max = 1e5,
      .help = "For a layer, times tp, in pipelines over several nodes: the host waits for others." },
    { "moves.blocking", STACK(BOOL, blocking_moves), "false",
      .help = "Messages between stages go one way after the other, while neither of both computes." },
    { "moves.passes", STACK(INT, move_passes), "0", .max = 1000,
      .help = "Rows between stages are gathered along tp after each move, with so many passes; 0: not." },
    { "balanced", STACK(BOOL, balanced), "false",
      .help = "Stages get layers by what they compute, the head included; else as many each." },
    { "kernels.blocking", STACK(BOOL, blocking), "false",
      .help = "The host waits for the end of each kernel: CUDA_LAUNCH_BLOCKING." },
    { "kernels.step", STACK(FLOAT, kernels_step), "100", .max = 1e6,
      .help = "For a step besides its micro-batches." },
    { "passes.forward", STACK(FLOAT, passes_forward), "0", .max = 1e5,
      .help = "Passes over a layer's rows besides the operators' own, forward." },
    { "passes.backward", STACK(FLOAT, passes_backward), "0", .max = 1e5,
      .help = "The same, backward." },
    { "cut.forward", STACK(FLOAT, cut_forward), "0", .max = 1e5,
      .help = "Passes over what tp cuts of a layer's rows, forward." },
    { "cut.backward", STACK(FLOAT, cut_backward), "0", .max = 1e5,
      .help = "The same, backward." },
    { "selective", STACK(CHOICE, selective), "attention", .choices = "attention|cheap|half",
      .help = "What selective recompute remakes." },
    { "keeps_gathered", STACK(BOOL, keeps_gathered), "false",
      .help = "Rows that tp ranks gathered stay for the backward pass." },
    { "keeps_casts", STACK(BOOL, keeps_casts), "false",
      .help = "Of rows that go into products of fewer than 16 bits the cast copy stays for the "
              "backward pass, not the row." },
    { "kept", STACK(FLOAT, kept), "1", .min = 0.1, .max = 10,
      .help = "Activations that stay for the backward pass take so many times what the program's do." },
    { "bytes.weight", STACK(FLOAT, weight_bytes), "2", .max = 64, .unit = "bytes",
      .help = "Held per weight, for products." },
    { "bytes.gradient", STACK(FLOAT, gradient_bytes), "4", .max = 64, .unit = "bytes",
      .help = "Held per gradient." },
    { "bytes.state", STACK(FLOAT, state_bytes), "12", .max = 64, .unit = "bytes",
      .help = "Held per weight by the optimizer, its own copy of the weight included." },
    { "bytes.message", STACK(FLOAT, message_bytes), "4", .max = 64, .unit = "bytes",
      .help = "Of a gradient between data ranks." },
    { "bytes.cast", STACK(FLOAT, cast_bytes), "0", .max = 64, .unit = "bytes",
      .help = "Moved per element of rows, and of their gradients, that go into products of fewer "
              "than 16 bits, to cast them." },
    { "bytes.accumulate", STACK(FLOAT, accumulate_bytes), "0", .max = 1024, .unit = "bytes",
      .help = "Moved per weight by adding a micro-batch's gradient to the sum; 0: products add." },
    { "bytes.loss", STACK(FLOAT, loss_bytes), "0", .max = 1024, .unit = "bytes",
      .help = "Moved per logit by the loss, besides its operators' own traffic." },
    { "bytes.update", STACK(FLOAT, update_bytes), "40", .max = 1024, .unit = "bytes",
      .help = "Moved per weight by norm, clipping and update." },
    { "overlap.dp", STACK(FLOAT, dp_overlap), "0", .max = 1,
      .help = "Share of the data ranks' messages that the backward pass may hide." },
    { "overlap.tp", STACK(FLOAT, tp_overlap), "0", .max = 1,
      .help = "The same of tensor parallel messages and products." },
    { "overlap.pp", STACK(FLOAT, pp_overlap), "0", .max = 1,
      .help = "The same of messages between stages." },
    { "overlap.ep", STACK(FLOAT, ep_overlap), "0", .max = 1,
      .help = "The same of rows that go to experts and back." },
    { "overlap.expert_units", STACK(FLOAT, expert_units), "0", .max = 64, .unit = "multiprocessors",
      .help = "That move experts' rows, and so do not compute beside that." },
    { "experts.forward", STACK(FLOAT, experts.forward), "0", .max = 1e5,
      .help = "Kernels that experts add to a layer, forward: router, order, exchanges." },
    { "experts.backward", STACK(FLOAT, experts.backward), "0", .max = 1e5,
      .help = "The same, backward." },
    { "experts.each_forward", STACK(FLOAT, experts.each_forward), "0", .max = 1e3,
      .help = "Kernels for each expert of a rank, forward; 0: one has all of them." },
    { "experts.each_backward", STACK(FLOAT, experts.each_backward), "0", .max = 1e3,
      .help = "The same, backward." },
    { "experts.casts", STACK(FLOAT, experts.casts), "0", .max = 1e3,
      .help = "Kernels more for each of them, each way, where operands are cast (bytes.cast)." },
    { "experts.waits", STACK(BOOL, experts.waits), "false",
      .help = "The host reads how many rows each expert has before it starts their kernels." },
    { "experts.sorts", STACK(FLOAT, experts.sorts), "0", .max = 16,
      .help = "How often rows that others sent are put in order, each way." },
    { "experts.folds", STACK(BOOL, experts.folds), "false",
      .help = "Where ranks share out experts (ep), those along tp are among them: tp cuts no expert." },
    { "experts.once", STACK(BOOL, experts.once), "false",
      .help = "A row goes once to each node and rank with experts of it, not to each expert." },
    { "overlap.gradients", STACK(BOOL, overlaps_gradients), "false",
      .help = "tp's exchanges in the backward pass go beside gradients of products." },
    { "overlap.late_weights", STACK(BOOL, waits_for_weights), "false",
      .help = "Weights that ranks updated in parts are gathered before the next step begins." },
    { "sums", STACK(CHOICE, sums), "scattered", .choices = "scattered|reduced|everywhere",
      .help = "How gradients that data ranks split are summed: scattered, by a reduction for each part "
              "to where it is kept, or all of them everywhere." },
    { "split_rate", STACK(FLOAT, split_rate), "1", .min = 0.01, .max = 1,
      .help = "Share of the network that messages of what data ranks split reach, beside whole gradients." },
    { "vocab_multiple", STACK(INT, vocab_multiple), "128", .min = 1, .max = 1e6, .unit = "rows",
      .help = "Rows of the head are padded to that, times tp." },
    { "vocab_alone", STACK(BOOL, vocab_alone), "true",
      .help = "Rows of the head are padded where tp is 1, too." },
    { "since", STACK(INT, since), "0", .max = 9999, .unit = "year",
      .help = "Software of these names is like this from that year on; 0: always." },
    { "until", STACK(INT, until), "0", .max = 9999, .unit = "year",
      .help = "And up to that year; 0: up to now." },
    { "precisions", STACK(STRINGS, precisions), NULL,
      .help = "It is like this with these alone, as tables of measurements call them." },
    { "fitted", STACK(STRINGS, fitted), NULL,
      .help = "Keys of values that headway plan calibrate finds." },
    { "bytes.logit", STACK(FLOAT, logit_bytes), "6", .max = 64, .unit = "bytes",
      .help = "Held per logit where the loss is formed." },
    { "bytes.runtime", STACK(FLOAT, runtime_bytes), "2e9", .max = 1e12, .unit = "bytes",
      .help = "Taken by context, libraries and buffers of messages." },
    { "usable", STACK(FLOAT, usable), "0.96", .min = 0.1, .max = 1,
      .help = "Share of what memory is left that tensors can use." },
    { "stall", STACK(FLOAT, stall_s), "0", .max = 1e3, .unit = "seconds",
      .help = "A stage waits that long per micro-batch for each of its neighbours." },
    { "stall_sum", STACK(FLOAT, stall_sum_s), "0", .max = 1e3, .unit = "seconds",
      .help = "That data ranks which split nothing wait for sums of gradients, per step." },
    { "stall_nodes", STACK(FLOAT, stall_nodes), "1", .min = 1, .max = 1e6, .unit = "nodes",
      .help = "On so many nodes and more." },
    { "stall_from", STACK(FLOAT, stall_from), "1e6", .min = 1, .max = 1e6, .unit = "nodes",
      .help = "On so many nodes and more it may, so that intervals hold both." },
    { "stall_memory", STACK(FLOAT, stall_memory), "1", .min = 0.1, .max = 1,
      .help = "And where a stage takes more than this share of the device's memory." },
    { "stall_tp", STACK(FLOAT, stall_tp), "1e9", .min = 1, .max = 1e9, .unit = "ranks",
      .help = "And with tp of so many and more." },
    { "residual.lo", STACK(FLOAT, residual_lo), "0", .min = -10, .max = 10,
      .help = "Log of measured over predicted time, 10th percentile; both 0: that of the family." },
    { "residual.hi", STACK(FLOAT, residual_hi), "0", .min = -10, .max = 10,
      .help = "The same, 90th percentile." },
    { "interval", STACK(FLOAT, interval), "1", .min = 1, .max = 10,
      .help = "The ends of the family's interval are so many times as far out." },
    { "runs.axes", STACK(STRINGS, runs.axes), "tp, pp, cp, ep",
      .help = "Of tp, pp, cp and ep, those that it has." },
    { "runs.schedules", STACK(STRINGS, runs.schedules), NULL,
      .help = "Orders of work in a pipeline that it has; all if not given." },
    { "runs.zero", STACK(INTS, runs.zero), NULL, .min = 0, .max = 3,
      .help = "What it splits over data ranks: 0 nothing, 1 state, 2 gradients, 3 weights; all." },
    { "runs.zero_with_pp", STACK(INT, runs.zero_with_pp), "3", .max = 3,
      .help = "The most of that beside a pipeline." },
    { "runs.zero_groups", STACK(BOOL, runs.zero_groups), "true",
      .help = "Some of the data ranks may split it." },
    { "runs.even_stages", STACK(BOOL, runs.even_stages), "false",
      .help = "Stages must have as many layers each," },
    { "runs.spare_layers", STACK(INT, runs.spare_layers), "0", .max = 2,
      .help = "where embedding and head may count as so many layers." },
    { "runs.kv_divides", STACK(BOOL, runs.kv_divides), "false",
      .help = "tp must divide the key-value heads." },
    { "factor", STACK(FLOAT, factor), "1", .min = 0.1, .max = 10,
      .help = "Computing takes so many times what operators say; 1 unless declared." },
    { 0 },
};

static bool folds(const struct plan_stack *s, const struct plan_layout *l)
{
    return s->experts.folds && l->ep > 1;
}

i64 plan_expert_sharers(const struct plan_stack *s, const struct plan_layout *l)
{
    return l->dp * l->cp * (folds(s, l) ? l->tp : 1);
}

i64 plan_expert_stride(const struct plan_stack *s, const struct plan_layout *l)
{
    return folds(s, l) ? 1 : l->tp;
}

i64 plan_stack_vocab(const struct plan_stack *s, i64 words, i64 tp)
{
    return tp == 1 && !s->vocab_alone ? words : round_up(words, s->vocab_multiple * tp);
}

int plan_stack_load(struct plan_stack *out, const char *name, struct arena *a)
{
    TRY(plan_file_load(out, plan_stack_options, "machines/stacks", name, a));
    return plan_runs_check(&out->runs, name);
}
