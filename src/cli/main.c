#include "base/sys.h"
#include "base/sys_share.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The deepest calls take a fifth of it. */
enum { STACK_BYTES = 1 << 20 };

int main(int argc, char **argv)
{
    sys_begin_program();
    if (sys_stack_at_least(STACK_BYTES) != 0) {
        fprintf(stderr, "headway: stacks of %d KiB are needed, and this system's limit may not be "
                        "raised (%s): see ulimit -s\n", STACK_BYTES >> 10, strerror(errno));
        return 1;
    }
    return cli_run(argc, argv, stderr);
}
