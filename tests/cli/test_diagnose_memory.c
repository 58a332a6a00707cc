/* Diagnosing a run of hundreds of ranks takes tens of megabytes, not gigabytes. */
#include "cli/program.h"
#include "test.h"

#include "base/sys.h"
#include "diagnose/diagnosis.h"

#include <stdlib.h>

static int prepare(void **state)
{
    (void)state;
    setenv("D", "diagnose-memory", 1);
    make_corpus();
    return 0;
}

/* 67 steps of 256 ranks: 2.3 million tasks of which 64 steps' graphs were kept with their spans, in
 * 1.2 GB; of graphs alone there is room for as many in 230 MB, with what replaying takes. */
TEST(graphs_of_many_ranks_do_not_fill_the_memory)
{
    struct diagnosis d;
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m}\ndata: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 67, batch: 256, accumulate: 1, seq: 32, threads: 1}\n"
          "eval: {every: 0}\nlog: {every: 100}\ncheckpoint: {interval: 0}\nX\n"
          "$H train r.yaml --quiet --clock virtual --layout dp=256,zero=1 "
          "--set run.name=a >/dev/null", 0);
    const i64 before = sys_peak_rss_bytes();
    CHECK_OK(diagnosis_open(&d, "diagnose-memory/runs/a", &(struct measure_range){ .last = -1 }));
    CHECK_EQ(d.measure->n_ranks, 256);
    CHECK(d.fidelity > 0.98 && d.fidelity < 1.02);
#ifndef __SANITIZE_ADDRESS__
    const i64 taken = sys_peak_rss_bytes() - before;
    if (taken > 400 << 20)
        fail_msg("diagnosing took %lld MB", (long long)taken >> 20);
#endif
    (void)before;
    diagnosis_close(&d);
    shell("rm -rf $D", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { ONE(graphs_of_many_ranks_do_not_fill_the_memory) };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
