/* That a setting reaches the step: what should change the weights does, the rest does not. */
#define JOB_DIR "settings-test"
#include "train/job.h"

#include "base/hash.h"

enum { MOST = 8 };

/* The bytes of a file of the last checkpoint, after a run with some settings. */
static u64 trained(const char *const *sets, const char *more, const char *shard)
{
    const char *all[MOST + 2] = { 0 };
    char path[256];
    i64 bytes, n = 0;
    for (; sets[n]; n++)
        all[n] = sets[n];
    all[n] = more;
    sys_remove_tree(JOB_DIR "/runs");
    CHECK_OK(train("run", all, false, NULL));
    snprintf(path, sizeof path, JOB_DIR "/runs/run/checkpoints/step-8/%s.safetensors", shard);
    void *at = sys_map_file(path, &bytes);
    CHECK(at && bytes > 0);
    u64 hash = hash64(at, bytes, 0);
    sys_unmap(at, bytes);
    return hash;
}

static void expect(bool change, const char *const *sets, const char *shard,
                   const char *const *settings)
{
    const u64 before = trained(sets, NULL, shard);
    CHECK(trained(sets, NULL, shard) == before);
    for (i64 i = 0; settings[i]; i++)
        if ((trained(sets, settings[i], shard) != before) != change)
            fail_msg("with %s the %s are %s", settings[i], shard,
                     change ? "as before" : "others");
}

#define TWO(a, b)                                                     \
    "data.sources=[{path: " JOB_DIR "/text, weight: " a ", name: a}, " \
    "{path: " JOB_DIR "/text, weight: " b ", name: b}]"

static const char *const plain[] = { NULL };
static const char *const muon[] = { "optim.name=muon", NULL };

TEST(settings_of_the_step_change_what_is_learnt)
{
    static const char *const settings[] = {
        "optim.name=muon", "optim.lr=2e-2", "optim.beta1=0.5", "optim.beta2=0.5",
        "optim.eps=1e-2", "optim.weight_decay=1", "train.clip=1e-2", "train.z_loss=0.1",
        "train.seed=2", "train.batch=3", "train.seq=16", "train.accumulate=2",
        "train.global_batch=128", "train.precision=bf16", "data.seed=2",
        "data.packing=documents",
        "lr.warmup=1", "lr.min_ratio=0.5", "lr.schedule=linear", "lr.schedule=wsd",
        "lr.schedule=constant", "model.window=4", NULL };
    static const char *const of_muon[] = {
        "optim.muon_lr=3e-2", "optim.muon_momentum=0.5", "optim.muon_ns_steps=2",
        "optim.weight_decay=1", "optim.beta1=0.5", "optim.lr=2e-2", NULL };
    static const char *const wsd[] = { "lr.schedule=wsd", NULL };
    static const char *const of_wsd[] = { "lr.decay_fraction=0.9", NULL };
    static const char *const ramps[] = {
        "train.accumulate=3", "ramp.batch_from=1", "ramp.batch_steps=6", "ramp.seq_from=8",
        "ramp.seq_steps=6", NULL };
    static const char *const of_ramps[] = { "ramp.batch_from=2", "ramp.batch_steps=3",
                                            "ramp.seq_from=16", "ramp.seq_steps=3", NULL };
    static const char *const rows[] = { "train.batch=16", NULL }; /* some of them with borders */
    static const char *const of_rows[] = { "data.border=cross", "model.window=20", NULL };
    static const char *const mixture[] = { TWO("1", "1"), "data.cache=" JOB_DIR "/two", NULL };
    static const char *const of_mixture[] = { TWO("5", "1"), NULL };
    make_corpus();
    expect(true, plain, "param", settings);
    expect(true, mixture, "param", of_mixture);
    expect(true, rows, "param", of_rows);
    expect(true, muon, "param", of_muon);
    expect(true, wsd, "param", of_wsd);
    expect(true, ramps, "param", of_ramps);
    expect(true, plain, "ema", (const char *const[]){ "train.ema=0.5", NULL });
}

TEST(other_settings_change_no_bit_of_it)
{
    static const char *const settings[] = {
        "train.threads=1", "train.recompute=selective", "train.recompute=full", "train.ema=0",
        "data.threads=3", "data.prefetch=1", "eval.every=1", "eval.tokens=64",
        "checkpoint.every=1", "checkpoint.async=no", "checkpoint.snapshot=live",
        "offload.optimizer=yes", "log.every=3", "log.health=2", "log.tensorboard=no",
        "trace.level=off", "trace.disk=0", NULL };
    static const char *const of_muon[] = { "train.threads=1", "train.recompute=full",
                                           "offload.optimizer=yes", NULL };
    make_corpus();
    expect(false, plain, "param", settings);
    expect(false, muon, "param", of_muon);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(settings_of_the_step_change_what_is_learnt),
          ONE(other_settings_change_no_bit_of_it))
