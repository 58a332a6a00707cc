#include "cli/command.h"

#include "parallel/layout.h"
#include "train/train_config.h"

extern const struct command cmd_train, cmd_eval, cmd_sample, cmd_data, cmd_tokenizer, cmd_model,
    cmd_checkpoint, cmd_diagnose, cmd_energy, cmd_report, cmd_serve, cmd_trace, cmd_layout,
    cmd_tune, cmd_plan,
    cmd_machine, cmd_comm, cmd_config, cmd_help;

/* In the order of `headway --help`. */
const struct command *const commands[] = {
    &cmd_train,
    &cmd_eval,
    &cmd_sample,
    &cmd_data,
    &cmd_tokenizer,
    &cmd_model,
    &cmd_checkpoint,
    &cmd_diagnose,
    &cmd_energy,
    &cmd_report,
    &cmd_serve,
    &cmd_trace,
    &cmd_layout,
    &cmd_tune,
    &cmd_plan,
    &cmd_machine,
    &cmd_comm,
    &cmd_config,
    &cmd_help,
    NULL,
};

const struct option *const recipe_tables[] = { train_options, layout_options, NULL };
