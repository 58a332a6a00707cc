/* tests/train/job.h - whole runs of a small model on a small corpus, below JOB_DIR, which
 * each test program names for itself. */
#ifndef HEADWAY_TEST_JOB_H
#define HEADWAY_TEST_JOB_H

#include "test.h"

#include "base/sys.h"
#include "train/session.h"

#include <fcntl.h>
#include <stdio.h>

#define JOB_TOKENIZER SOURCE_DIR "/tests/vectors/tokenizer/gpt2.json"

static inline void write_file(const char *path, const char *text)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && sys_write_full(fd, text, (i64)strlen(text)) == 0);
    sys_close(fd);
}

/* 30 files of words in a random order. */
static inline void make_text(const char *folder, u64 state)
{
    static const char *const words[] = { "the", "river", "runs", "below", "an", "old", "stone",
                                         "bridge", "and", "nobody", "crosses", "it", "now" };
    char path[64], text[4096];
    CHECK_EQ(sys_mkdirs(folder), 0);
    for (int file = 0; file < 30; file++) {
        int n = 0;
        for (int i = 0; i < 400; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            n += snprintf(text + n, sizeof text - (size_t)n, "%s ", words[(state >> 33) % 13]);
        }
        snprintf(path, sizeof path, "%s/%02d.txt", folder, file);
        write_file(path, text);
    }
}

static inline void make_corpus(void)
{
    sys_remove_tree(JOB_DIR);
    make_text(JOB_DIR "/text", 7);
}

struct job {
    struct arena arena;
    struct train_config config;
    struct recipe recipe;
    struct train_request request;
    struct option_group group;
};

static inline void open_job(struct job *j, const char *name, const char *const *sets)
{
    static const char yaml[] =
        "model: {spec: laptop-2m, override: {layers: 2, width: 32, heads: 2, hidden: 48}}\n"
        "data: {sources: " JOB_DIR "/text, val_fraction: 0.2, cache: " JOB_DIR "/cache}\n"
        "train: {batch: 2, seq: 32, steps: 8, ema: 0.9}\n"
        "optim: {lr: 1e-2}\n"
        "lr: {warmup: 2}\n"
        "eval: {every: 4, tokens: 200}\n"
        "checkpoint: {every: 3, keep: 5}\n"
        "log: {every: 1}\n"
        "run: {dir: " JOB_DIR "/runs}\n";
    char set[512];
    *j = (struct job){ 0 };
    arena_init(&j->arena);
    snprintf(set, sizeof set, JOB_DIR "/job-%lld.yaml", (long long)sys_process_id());
    write_file(set, yaml);
    CHECK_EQ(sys_rename(set, JOB_DIR "/job.yaml"), 0); /* ranks do this at the same time */
    j->group = (struct option_group){ train_options, &j->config };
    recipe_init(&j->recipe, &j->arena, &j->group, 1);
    CHECK_OK(recipe_load(&j->recipe, JOB_DIR "/job.yaml"));
    snprintf(set, sizeof set, "data.tokenizer=%s", JOB_TOKENIZER);
    CHECK_OK(recipe_override(&j->recipe, set));
    snprintf(set, sizeof set, "run.name=%s", name);
    CHECK_OK(recipe_override(&j->recipe, set));
    for (; sets && *sets; sets++)
        CHECK_OK(recipe_override(&j->recipe, *sets));
    j->request = (struct train_request){ .config = &j->config, .recipe = &j->recipe,
                                         .recipe_path = "job.yaml", .backend = "auto" };
}

/* Instead of the job's dense model. */
#define JOB_EXPERTS \
    "model.override={layers: 2, width: 32, heads: 2, hidden: 48, experts: 4, shared_hidden: 16, " \
    "dense_layers: 1, router.score: sigmoid, router.bias: true, router.aux_loss: 0.01}"

static inline int run_job(struct job *j)
{
    struct session s;
    TRY(session_open(&s, &j->request));
    int rc = session_train(&s);
    session_close(&s);
    return rc;
}

static inline int train(const char *name, const char *const *sets, bool resume,
                 const atomic_ullong *stop)
{
    struct job j;
    open_job(&j, name, sets);
    j.request.resume = resume;
    j.request.hooks.stop_ns = stop;
    int rc = run_job(&j);
    arena_fini(&j.arena);
    return rc;
}

/* Every line of a run's metrics. */
static inline void each_metric(const char *run, void (*see)(void *context, json_t *line),
                               void *context)
{
    char path[256];
    i64 bytes;
    snprintf(path, sizeof path, JOB_DIR "/runs/%s/metrics.jsonl", run);
    char *text = sys_map_file(path, &bytes);
    CHECK(text != NULL);
    for (i64 at = 0; at < bytes;) {
        i64 length = (char *)memchr(text + at, '\n', (size_t)(bytes - at)) - (text + at);
        json_t *line;
        CHECK_OK(json_parse(text + at, length, "metrics", &line));
        see(context, line);
        json_decref(line);
        at += length + 1;
    }
    sys_unmap(text, bytes);
}

struct metric {
    const char *event, *key;
    double value;
};

static inline void see_metric(void *context, json_t *line)
{
    struct metric *m = context;
    if (strcmp(json_string_value(json_object_get(line, "event")), m->event) == 0)
        m->value = json_number_value(json_object_get(line, m->key));
}

/* The last value under this key in lines of this event. */
static inline double last_metric(const char *run, const char *event, const char *key)
{
    struct metric m = { event, key, 0 };
    each_metric(run, see_metric, &m);
    return m.value;
}

static inline void see_step(void *context, json_t *line)
{
    i64 *last = context;
    if (strcmp(json_string_value(json_object_get(line, "event")), "step") == 0)
        CHECK_EQ(json_integer_value(json_object_get(line, "step")), ++*last);
}

/* With log.every 1: steps 1 to n, each once and in order. */
static inline void expect_steps_once(const char *run, i64 n)
{
    i64 last = 0;
    each_metric(run, see_step, &last);
    CHECK_EQ(last, n);
}

static inline bool log_has(const char *run, const char *words)
{
    char path[256];
    i64 bytes;
    snprintf(path, sizeof path, JOB_DIR "/runs/%s/log.txt", run);
    char *text = sys_map_file(path, &bytes);
    bool has = text && memmem(text, (size_t)bytes, words, strlen(words));
    sys_unmap(text, bytes);
    return has;
}

/* The bytes of one file of two runs' checkpoints of a step. */
static inline void expect_same_shard(const char *a, const char *b, i64 step, const char *shard)
{
    static const char *const form = JOB_DIR "/runs/%s/checkpoints/step-%lld/%s.safetensors";
    char path[256];
    i64 n, m;
    snprintf(path, sizeof path, form, a, (long long)step, shard);
    void *x = sys_map_file(path, &n);
    snprintf(path, sizeof path, form, b, (long long)step, shard);
    void *y = sys_map_file(path, &m);
    CHECK(x && y);
    CHECK_EQ(n, m);
    CHECK(memcmp(x, y, (size_t)n) == 0);
    sys_unmap(x, n);
    sys_unmap(y, m);
}

#endif
