/* What runs would take on machines that one does not have. */
#include "cli/command.h"

extern const struct command cmd_plan_search;
extern const struct command cmd_plan_replay;
extern const struct command cmd_plan_islands;
extern const struct command cmd_plan_explain;
extern const struct command cmd_plan_compare;
extern const struct command cmd_plan_memory;
extern const struct command cmd_plan_fit;
extern const struct command cmd_plan_run;
extern const struct command cmd_plan_limits;
extern const struct command cmd_plan_goodput;
extern const struct command cmd_plan_network;
extern const struct command cmd_plan_table;
extern const struct command cmd_plan_published;
extern const struct command cmd_plan_machine;
extern const struct command cmd_plan_validate;
extern const struct command cmd_plan_calibrate;
extern const struct command cmd_plan_predict;

static const struct command *const subcommands[] = {
    &cmd_plan_search,
    &cmd_plan_replay,
    &cmd_plan_islands,
    &cmd_plan_explain,
    &cmd_plan_compare,
    &cmd_plan_memory,
    &cmd_plan_fit,
    &cmd_plan_run,
    &cmd_plan_limits,
    &cmd_plan_goodput,
    &cmd_plan_network,
    &cmd_plan_table,
    &cmd_plan_published,
    &cmd_plan_machine,
    &cmd_plan_validate,
    &cmd_plan_calibrate,
    &cmd_plan_predict,
    NULL,
};

static const struct example examples[] = {
    { "headway plan search --model llama3-405b --gpus 16384 --batch 2048",
      "The best layouts of a run." },
    { "headway plan machine", "The machines and devices that are known." },
    { "headway plan validate", "How far predictions are from published step times." },
    { "headway plan machine h100-sxm-roce", "One of them, with the source of every value." },
    { 0 },
};

const struct command cmd_plan = {
    .name = "plan",
    .summary = "Plan runs on machines that one does not have",
    .description = "Machines are data: a YAML file each in machines/ and machines/devices/, or one "
                   "line. The planner prices the program that training would run on them; nothing "
                   "runs, and no other process is needed.",
    .subcommands = subcommands,
    .examples = examples,
};
