#include "base/sys.h"
#include "cli/cli.h"

int main(int argc, char **argv)
{
    sys_begin_program();
    return cli_run(argc, argv, stderr);
}
