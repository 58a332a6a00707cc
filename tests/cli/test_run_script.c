/* ./run, where what it calls fails: in a folder of its own, with a program that pretends. */
#include "cli/program.h"

/* No packages are installed, nothing is fetched or built; the program ends as it is told. */
static const char world[] =
    "set -e; rm -rf run-test; mkdir -p run-test/bin run-test/build/release "
    "run-test/corpus/austen/test run-test/corpus/r-cran-janeaustenr; "
    "cp " SOURCE_DIR "/run run-test/run; cd run-test; "
    "for f in apt-get cmake python3 xz; do printf '#!/bin/sh\\nexit 0\\n' >bin/$f; done; "
    "printf '#!/bin/sh\\necho ok installed\\n' >bin/dpkg-query; "
    "echo text >corpus/austen/test/a.txt; "
    "printf '#!/bin/sh\\n[ $1 != %s ] || { echo headway: $1 failed >&2; exit 1; }\\n"
    "[ $1 != train ] || echo runs/demo\\n' >build/release/headway; "
    "chmod +x bin/* build/release/headway; set +e; PATH=$PWD/bin:$PATH ./run demo 2>&1";

static const char *demo_where(const char *fails, int code)
{
    return shellf(code, world, fails);
}

TEST(a_demo_whose_training_fails_ends_there_with_its_message)
{
    const char *said = demo_where("train", 1);
    CHECK(strstr(said, "headway: train failed\n"));
    CHECK(!strstr(said, "What it writes"));
}

TEST(a_demo_whose_evaluation_fails_claims_no_numbers)
{
    const char *said = demo_where("eval", 1);
    CHECK(strstr(said, "What it writes") && strstr(said, "headway: eval failed\n"));
    CHECK(!strstr(said, "bits per byte; xz"));
    shell("rm -rf run-test", 0);
}

TEST_MAIN(ONE(a_demo_whose_training_fails_ends_there_with_its_message),
          ONE(a_demo_whose_evaluation_fails_claims_no_numbers))
