/* cli/plan_job.h - the flags with which every command of `headway plan` says what is planned. */
#ifndef HEADWAY_CLI_PLAN_JOB_H
#define HEADWAY_CLI_PLAN_JOB_H

#include "cli/command.h"
#include "plan/cost.h"
#include "plan/efficiency.h"
#include "plan/pick.h"
#include "plan/stack.h"

#include <math.h>

struct plan_flags {
    const char *model, *machine, *stack, *layout;
    i64 gpus, tokens, batch, seq;
    int dtype; /* enum plan_dtype */
    bool json, any;
};

/* Rows of these flags for the table of a struct that begins with them. */
#define PLAN_FLAG(kind, field) OPTION_FIELD(kind, struct plan_flags, field)
#define PLAN_DEVICES "8", .min = 1, .help = "How many devices."
#define PLAN_FLAGS PLAN_FLAGS_WITH(PLAN_DEVICES)
#define PLAN_FLAGS_WITH(...) /* the default of --gpus and what it means */                      \
    { "model", PLAN_FLAG(STRING, model), "llama3-8b",                                           \
      .help = "What is trained: a name in models/, or a file." },                               \
    { "machine", PLAN_FLAG(STRING, machine), "h100-sxm-roce",                                   \
      .help = "On what: a name in machines/, a file, or a line (headway plan machine --help)." }, \
    { "gpus", PLAN_FLAG(INT, gpus), __VA_ARGS__, .unit = "devices", .max = 1e7 },               \
    { "tokens", PLAN_FLAG(SIZE, tokens), "0", .unit = "tokens", .max = INFINITY,                \
      .help = "Of the whole run, such as 15.6T; 0: one step is asked about." },                 \
    { "batch", PLAN_FLAG(INT, batch), "0", .unit = "rows", .max = 1e9,                          \
      .help = "Rows of a step, all ranks together; 0: as many as make 1024 tokens per device, "  \
              "or half a million, and can be shared out among them." },                         \
    { "seq", PLAN_FLAG(INT, seq), "0", .unit = "tokens", .max = 1 << 24,                        \
      .help = "Tokens of a row; 0: the model's longest." },                                     \
    { "dtype", PLAN_FLAG(CHOICE, dtype), "bf16", .choices = "fp32|fp16|bf16|fp8|fp4",           \
      .help = "Of the matrix products." },                                                      \
    { "stack", PLAN_FLAG(STRING, stack), "megatron-core",                                       \
      .help = "Whose software runs it: a name in machines/stacks, or a file." },                \
    { "any", PLAN_FLAG(BOOL, any), "no",                                                        \
      .help = "Also layouts that exist but that this software does not run." },                 \
    { "layout", PLAN_FLAG(STRING, layout), "",                                                  \
      .help = "What is settled of the layout, such as tp=8,pp=16; the rest is searched." },     \
    { "json", PLAN_FLAG(BOOL, json), "no", .help = "Print JSON." }

/* Everything a job points to. */
struct planned_job {
    struct plan_job job;
    struct model_spec spec;
    struct plan_machine machine;
    struct plan_family family;
    struct plan_stack stack;
    struct plan_pick pick;
    bool batch_assumed;
    const char *foreign; /* whose constants stand in for the device's own, never calibrated; NULL */
    bool extrapolated;   /* devices, rows, or software beyond what was fitted */
    double widened;      /* the interval's ends are so many times as far out: extrapolation */
};

/* Rows of a step where nobody says how many. */
i64 plan_job_batch(const struct plan_job *job);

/* Reads model, machine, constants, software and layout, and checks that there is room. */
int plan_job_open(struct planned_job *out, const struct plan_flags *flags, struct arena *a);
/* The same for a model that was read already. */
int plan_job_open_spec(struct planned_job *out, const struct plan_flags *flags,
                       const struct model_spec *spec, struct arena *a);

/* One line: what is planned, and what was assumed. */
void plan_job_print(const struct planned_job *p);

struct json;
void plan_job_json(const struct planned_job *p, struct json *j);

#endif
