#include "plan/stack.h"

#include "plan/plan_files.h"

#define STACK(type, field) OPTION_FIELD(type, struct plan_stack, field)

const struct option plan_stack_options[] = {
    { "name", STACK(STRING, name), NULL, .help = "Of the software." },
    { "provenance", STACK(STRING, provenance), NULL, .help = "Where the values come from." },
    { "frameworks", STACK(STRINGS, frameworks), NULL,
      .help = "How tables of measurements call it: beginnings." },
    { "attention", STACK(CHOICE, attention), "fused", .choices = "fused|scores",
      .help = "One kernel, or products with scores in memory." },
    { "dropout", STACK(BOOL, dropout), "false", .help = "Masks are made and kept." },
    { "kernels.forward", STACK(FLOAT, kernels_forward), "20", .max = 1e5,
      .help = "Kernels that the host starts for a layer's forward pass." },
    { "kernels.backward", STACK(FLOAT, kernels_backward), "40", .max = 1e5,
      .help = "The same for its backward pass." },
    { "kernels.batch", STACK(FLOAT, kernels_batch), "40", .max = 1e5,
      .help = "For a micro-batch on a stage besides its layers." },
    { "kernels.step", STACK(FLOAT, kernels_step), "100", .max = 1e6,
      .help = "For a step besides its micro-batches." },
    { "passes.forward", STACK(FLOAT, passes_forward), "0", .max = 1e5,
      .help = "Passes over a layer's rows besides the operators' own, forward." },
    { "passes.backward", STACK(FLOAT, passes_backward), "0", .max = 1e5,
      .help = "The same, backward." },
    { "selective", STACK(CHOICE, selective), "attention", .choices = "attention|cheap",
      .help = "What selective recompute remakes." },
    { "bytes.weight", STACK(FLOAT, weight_bytes), "2", .max = 64, .unit = "bytes",
      .help = "Held per weight, for products." },
    { "bytes.gradient", STACK(FLOAT, gradient_bytes), "4", .max = 64, .unit = "bytes",
      .help = "Held per gradient." },
    { "bytes.state", STACK(FLOAT, state_bytes), "12", .max = 64, .unit = "bytes",
      .help = "Held per weight by the optimizer, its own copy of the weight included." },
    { "bytes.message", STACK(FLOAT, message_bytes), "4", .max = 64, .unit = "bytes",
      .help = "Of a gradient between data ranks." },
    { "bytes.update", STACK(FLOAT, update_bytes), "40", .max = 1024, .unit = "bytes",
      .help = "Moved per weight by norm, clipping and update." },
    { "overlap.dp", STACK(FLOAT, dp_overlap), "0", .max = 1,
      .help = "Share of the data ranks' messages that the backward pass may hide." },
    { "overlap.tp", STACK(FLOAT, tp_overlap), "0", .max = 1,
      .help = "The same of tensor parallel messages and products." },
    { "overlap.pp", STACK(FLOAT, pp_overlap), "0", .max = 1,
      .help = "The same of messages between stages." },
    { "vocab_multiple", STACK(INT, vocab_multiple), "128", .min = 1, .max = 1e6, .unit = "rows",
      .help = "Rows of the head are padded to that, times tp." },
    { "bytes.logit", STACK(FLOAT, logit_bytes), "6", .max = 64, .unit = "bytes",
      .help = "Held per logit where the loss is formed." },
    { "bytes.runtime", STACK(FLOAT, runtime_bytes), "2e9", .max = 1e12, .unit = "bytes",
      .help = "Taken by context, libraries and buffers of messages." },
    { "usable", STACK(FLOAT, usable), "0.96", .min = 0.1, .max = 1,
      .help = "Share of what memory is left that tensors can use." },
    { "factor", STACK(FLOAT, factor), "1", .min = 0.1, .max = 10,
      .help = "Computing takes so many times what operators say; 1 unless declared." },
    { 0 },
};

int plan_stack_load(struct plan_stack *out, const char *name, struct arena *a)
{
    return plan_file_load(out, plan_stack_options, "machines/stacks", name, a);
}
