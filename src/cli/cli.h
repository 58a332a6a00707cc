/* cli/cli.h - from argv to an exit code. */
#ifndef HEADWAY_CLI_H
#define HEADWAY_CLI_H

#include <stdio.h>

/* Runs one command. Results go to stdout, everything else to `messages`. Returns the
 * process exit code. */
int cli_run(int argc, char **argv, FILE *messages);

#endif
