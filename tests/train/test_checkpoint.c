#include "test.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/sys.h"
#include "model/safetensors.h"
#include "support/checkpoint_fixture.h"
#include "support/crash.h"
#include "train/checkpoint_manifest.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char base[128], folder[160];

static int fresh_folder(void **state)
{
    (void)state;
    if (sys_exists(folder))
        sys_remove_tree(folder);
    return 0;
}

static const char *in_folder(const char *rest)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, rest);
    return path;
}

/* Saves generations 1 ... n as steps 1 ... n, keeping all. */
static void save_steps(i64 n)
{
    struct checkpoint_writer *w;
    struct fixture f;
    fixture_init(&f);
    CHECK_OK(checkpoint_writer_new(&w, folder, f.tensor, FIXTURE_TENSORS,
                                   &(struct checkpoint_options){ .resumed_step = -1,
                                                                 .keep = 100 }));
    for (i64 i = 1; i <= n; i++)
        CHECK_OK(fixture_save(w, &f, i, i));
    checkpoint_writer_free(w);
}

static u8 *slurp(const char *path, i64 *bytes)
{
    u8 *map = sys_map_file(path, bytes);
    u8 *copy = malloc((size_t)*bytes + 1);
    memcpy(copy, map, (size_t)*bytes);
    sys_unmap(map, *bytes);
    return copy;
}

static void spill(const char *path, const u8 *data, i64 bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, data, (size_t)bytes) == bytes && close(fd) == 0);
}

/* --- saving and loading ---------------------------------------------------------- */

TEST(a_state_comes_back_bit_for_bit)
{
    struct fixture f;
    json_t *saved, *back;
    struct checkpoint_writer *w;
    i64 step = CHECKPOINT_NEWEST;
    const double odd[] = { 0.1, 1e-308, 4.9e-324, 1.7976931348623157e308, -1.0 / 3, 0.0 };
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    fixture_fill(&f, 7);
    saved = json_pack("{s:I, s:s, s:[]}", "n", (json_int_t)INT64_MIN, "name", "caf\xc3\xa9\n\"",
                      "odd");
    for (i64 i = 0; i < COUNT_OF(odd); i++)
        json_array_append_new(json_object_get(saved, "odd"), json_real(odd[i]));
    CHECK_OK(checkpoint_begin(w, 123, saved));
    checkpoint_writer_free(w);

    memset(f.data, 0, sizeof f.data);
    CHECK_OK(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, &back));
    CHECK_EQ(step, 123);
    CHECK(fixture_matches(&f, 7));
    CHECK(json_equal(saved, back));
    json_decref(back);
    CHECK_OK(checkpoint_state(folder, 123, &back));
    CHECK(json_equal(saved, back));
    json_decref(back);
    json_decref(saved);
}

TEST(shards_are_plain_safetensors_readable_by_their_owner_only)
{
    static const char *const files[] = { "param.safetensors", "adamw.m.safetensors",
                                         "scaler.safetensors" };
    save_steps(1);
    for (i64 i = 0; i < COUNT_OF(files); i++) {
        struct safetensors s;
        struct stat st;
        char path[512];
        snprintf(path, sizeof path, "%s/step-1/%s", folder, files[i]);
        CHECK_OK(safetensors_open(&s, path));
        CHECK_EQ(s.n, i == 0 ? 3 : 1);
        CHECK_EQ(sys_stat(path, &st), 0);
        CHECK_EQ(st.st_mode & 0777, 0600);
        safetensors_close(&s);
    }
}

TEST(params_can_be_loaded_without_the_optimizer)
{
    struct fixture f;
    i64 step = 2;
    save_steps(2);
    fixture_init(&f);
    CHECK_OK(checkpoint_load(folder, &step, f.tensor, 3, NULL));
    struct fixture expected;
    fixture_init(&expected);
    fixture_fill(&expected, 2);
    CHECK(memcmp(f.data[0], expected.data[0], FIXTURE_BYTES) == 0);
    CHECK_EQ(f.data[3][0], 0);
}

TEST(only_the_newest_are_kept)
{
    struct checkpoint_writer *w;
    struct checkpoint_entry *e;
    struct fixture f;
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    for (i64 i = 1; i <= 12; i++) {
        CHECK_OK(fixture_save(w, &f, 5 * i, i));
        int n = checkpoint_list(folder, &e);
        CHECK_EQ(n, i64_min(i, 2));
        CHECK_EQ(e[n - 1].step, 5 * i);
        CHECK(e[n - 1].valid && e[n - 1].bytes > 0 && e[n - 1].saved_at > 1e9);
        sys_free(e);
    }
    checkpoint_writer_free(w);
}

TEST(a_damaged_checkpoint_does_not_count_among_the_kept)
{
    struct checkpoint_writer *w;
    struct checkpoint_entry *e;
    struct fixture f;
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    CHECK_OK(fixture_save(w, &f, 1, 1));
    CHECK_OK(fixture_save(w, &f, 2, 2));
    CHECK_EQ(truncate(in_folder("step-2/param.safetensors"), 10), 0);
    CHECK_OK(fixture_save(w, &f, 3, 3));
    CHECK_EQ(checkpoint_list(folder, &e), 3);
    CHECK(e[0].valid && !e[1].valid && e[2].valid);
    sys_free(e);
    CHECK_OK(fixture_save(w, &f, 4, 4));
    CHECK_EQ(checkpoint_list(folder, &e), 2); /* 3 and 4; older than both, 1 and 2 went */
    sys_free(e);
    checkpoint_writer_free(w);
}

TEST(saving_a_step_twice_does_nothing_the_second_time)
{
    struct checkpoint_writer *w;
    struct fixture f;
    i64 step, generation;
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    CHECK_OK(fixture_save(w, &f, 1, 1));
    CHECK_OK(fixture_save(w, &f, 1, 2));
    checkpoint_writer_free(w);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(generation, 1);
}

TEST(a_damaged_step_of_the_same_name_is_replaced)
{
    struct checkpoint_writer *w;
    struct fixture f;
    i64 step, generation;
    save_steps(3);
    CHECK_EQ(truncate(in_folder("step-3/param.safetensors"), 10), 0);
    CHECK_OK(fixture_open(&w, &f, folder, 2));
    CHECK_OK(fixture_save(w, &f, 3, 9));
    checkpoint_writer_free(w);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(generation, 9);
}

/* --- refusals before the first save ---------------------------------------------- */

TEST(a_run_may_not_start_below_the_newest_checkpoint)
{
    struct checkpoint_writer *w;
    struct fixture f;
    save_steps(3);
    CHECK_FAILS(fixture_open(&w, &f, folder, 1), ERR_USAGE, "step 3");
    CHECK_OK(checkpoint_discard_after(folder, 1));
    CHECK_OK(fixture_open(&w, &f, folder, 1));
    checkpoint_writer_free(w);
}

static int open_after_damage(struct fixture *f, i64 resumed, i64 seen)
{
    struct checkpoint_writer *w;
    fixture_init(f);
    int rc = checkpoint_writer_new(&w, folder, f->tensor, FIXTURE_TENSORS,
                                   &(struct checkpoint_options){ .resumed_step = resumed,
                                                                 .seen_step = seen });
    if (rc == OK)
        checkpoint_writer_free(w);
    return rc;
}

/* Those between the one that was loaded and the newest there was: none that came since. */
TEST(steps_that_loading_passed_over_are_set_aside)
{
    struct checkpoint_entry *e;
    struct fixture f;
    save_steps(5);
    CHECK_FAILS(open_after_damage(&f, 2, 4), ERR_USAGE, "step 5");
    CHECK_EQ(checkpoint_list(folder, &e), 5);
    sys_free(e);
    CHECK_EQ(sys_mkdirs(in_folder("step-4.damaged/x")), 0);
    CHECK_OK(open_after_damage(&f, 2, 5));
    CHECK(sys_exists(in_folder("step-3.damaged/manifest.json")));
    CHECK(sys_exists(in_folder("step-4.damaged/x")));
    CHECK(sys_exists(in_folder("step-4.damaged-2/manifest.json")));
    CHECK(sys_exists(in_folder("step-5.damaged/manifest.json")));
    CHECK_OK(open_after_damage(&f, 2, 0)); /* and stay so */
    CHECK(sys_exists(in_folder("step-5.damaged/manifest.json")));
    CHECK_EQ(checkpoint_list(folder, &e), 2);
    CHECK(e[0].step == 1 && e[1].step == 2);
    sys_free(e);
}

TEST(two_runs_cannot_save_into_one_folder)
{
    struct checkpoint_writer *one, *two;
    struct fixture f, g;
    CHECK_OK(fixture_open(&one, &f, folder, -1));
    CHECK_FAILS(fixture_open(&two, &g, folder, -1), ERR_USAGE, "another run");
    checkpoint_writer_free(one);
    CHECK_OK(fixture_open(&two, &g, folder, -1));
    checkpoint_writer_free(two);
}

TEST(leftovers_are_removed_and_other_files_are_not)
{
    struct checkpoint_writer *w;
    struct fixture f;
    sys_mkdirs(in_folder("step-9.tmp/x"));
    sys_mkdirs(in_folder("step-8.del"));
    sys_mkdirs(in_folder("step-7x"));
    spill(in_folder("notes.tmp"), (const u8 *)"x", 1);
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    CHECK(!sys_exists(in_folder("step-9.tmp")));
    CHECK(!sys_exists(in_folder("step-8.del")));
    CHECK(sys_exists(in_folder("step-7x")));
    CHECK(sys_exists(in_folder("notes.tmp")));
    checkpoint_writer_free(w);
}

TEST(what_would_fail_at_the_first_checkpoint_fails_at_the_start)
{
    static const char *const faults[] = { "mkdir:1:EACCES", "open:3:EROFS", "write:1:ENOSPC",
                                          "fsync:2:EIO",    "rename:1:EIO", "unlink:1:EIO" };
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        struct checkpoint_writer *w;
        struct fixture f;
        fresh_folder(NULL);
        sys_fault_arm(faults[i]);
        CHECK_FAILS(fixture_open(&w, &f, folder, -1), ERR_SYS, folder);
        sys_fault_arm(NULL);
    }
}

/* --- damage ---------------------------------------------------------------------- */

/* The load must fail, and name the file (and chunk 0, when it is a shard). */
static void check_refused(const char *file, const char *what, i64 at)
{
    char name[64];
    struct fixture f;
    i64 step = 2;
    fixture_init(&f);
    snprintf(name, sizeof name, "step-2/%s", file);
    int rc = checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL);
    if (rc != ERR_FORMAT || !strstr(err_message(), name) || !strstr(err_message(), "step 1"))
        fail_msg("%s %s at byte %lld: %d %s", file, what, (long long)at, rc, err_message());
    for (int t = 0; t < FIXTURE_TENSORS; t++)
        for (int i = 0; i < FIXTURE_BYTES; i++)
            CHECK_EQ(f.data[t][i], 0); /* nothing was changed */
}

static const char *const all_files[] = { "param.safetensors", "adamw.m.safetensors",
                                         "scaler.safetensors", "manifest.json" };

TEST(a_flipped_bit_in_any_byte_is_found_and_named)
{
    save_steps(2);
    for (i64 i = 0; i < COUNT_OF(all_files); i++) {
        char path[256];
        i64 bytes;
        snprintf(path, sizeof path, "%s/step-2/%s", folder, all_files[i]);
        u8 *data = slurp(path, &bytes);
        for (i64 at = 0; at < bytes; at++) {
            data[at] ^= (u8)(1 << at % 8);
            spill(path, data, bytes);
            check_refused(all_files[i], "flipped", at);
            data[at] ^= (u8)(1 << at % 8);
        }
        spill(path, data, bytes);
        free(data);
    }
    CHECK_EQ(checkpoint_verify(folder, -1, NULL, NULL), 0);
}

TEST(a_missing_shortened_or_lengthened_file_is_found_and_named)
{
    save_steps(2);
    for (i64 i = 0; i < COUNT_OF(all_files); i++) {
        char path[256];
        i64 bytes;
        snprintf(path, sizeof path, "%s/step-2/%s", folder, all_files[i]);
        u8 *data = slurp(path, &bytes);
        for (i64 keep = 0; keep <= bytes + 1; keep++) {
            if (keep == bytes)
                continue;
            data[bytes] = 0;
            spill(path, data, keep);
            check_refused(all_files[i], "cut", keep);
        }
        unlink(path);
        check_refused(all_files[i], "removed", 0);
        CHECK_EQ(symlink("../step-1/manifest.json", path), 0);
        check_refused(all_files[i], "made a link", 0);
        unlink(path);
        CHECK_EQ(mkfifo(path, 0600), 0); /* must not wait for a writer */
        check_refused(all_files[i], "made a pipe", 0);
        unlink(path);
        spill(path, data, bytes);
        free(data);
    }
}

TEST(files_of_another_checkpoint_are_found_and_named)
{
    save_steps(2);
    for (i64 i = 0; i < COUNT_OF(all_files); i++) {
        char mine[256], other[256];
        i64 bytes, other_bytes;
        snprintf(mine, sizeof mine, "%s/step-2/%s", folder, all_files[i]);
        snprintf(other, sizeof other, "%s/step-1/%s", folder, all_files[i]);
        u8 *data = slurp(mine, &bytes), *swapped = slurp(other, &other_bytes);
        spill(mine, swapped, other_bytes);
        check_refused(all_files[i], "swapped", 0);
        spill(mine, data, bytes);
        free(data);
        free(swapped);
    }
}

/* Damage that fixes its own CRC32C: the second line of defence. */
TEST(a_change_that_keeps_the_crc_is_found_by_the_sha)
{
    struct text text = { 0 };
    struct checkpoint_manifest m;
    char path[256];
    i64 bytes, manifest_bytes;
    save_steps(2);
    snprintf(path, sizeof path, "%s/step-2/param.safetensors", folder);
    u8 *data = slurp(path, &bytes);
    data[bytes - 1] ^= 1;
    spill(path, data, bytes);
    u8 *manifest = slurp(in_folder("step-2/manifest.json"), &manifest_bytes);
    CHECK_OK(checkpoint_manifest_parse(&m, (char *)manifest, manifest_bytes, "manifest"));
    for (i64 i = 0; i < m.n; i++)
        if (strcmp(m.shard[i].file, "param.safetensors") == 0)
            m.shard[i].crc[0] = crc32c(0, data, bytes);
    checkpoint_manifest_write(&text, m.step, m.saved_at, m.shard, m.n, "{\"generation\": 2}");
    spill(in_folder("step-2/manifest.json"), (u8 *)text.data, text.length);
    check_refused("param.safetensors", "changed", bytes - 1);
    CHECK(strstr(err_message(), "SHA-256") != NULL);
    checkpoint_manifest_fini(&m);
    text_fini(&text);
    free(manifest);
    free(data);
}

/* 3 MiB and a bit: chunks 0 to 3. */
static i64 big_tensor(struct checkpoint_tensor *t)
{
    *t = (struct checkpoint_tensor){ .name = "param/big", .dtype = DTYPE_U8, .rank = 1,
                                      .dim = { (3 << 20) + 100 } };
    t->data = malloc((size_t)t->dim[0]);
    for (i64 i = 0; i < t->dim[0]; i++)
        ((u8 *)t->data)[i] = (u8)(i * 2654435761u >> 13);
    return t->dim[0];
}

struct found {
    i64 chunk[8];
    int n;
};

static void collect(void *context, i64 step, const char *file, i64 chunk, const char *problem)
{
    struct found *f = context;
    CHECK_EQ(step, 5);
    CHECK_STR(file, "param.safetensors");
    CHECK(problem[0] != '\0');
    f->chunk[f->n++] = chunk;
}

TEST(verify_names_every_damaged_chunk)
{
    struct checkpoint_tensor t;
    struct checkpoint_writer *w;
    struct found found = { .n = 0 };
    json_t *saved = json_object();
    char path[256];
    i64 bytes, size = big_tensor(&t), step = 5;
    CHECK_OK(checkpoint_writer_new(&w, folder, &t, 1,
                                   &(struct checkpoint_options){ .resumed_step = -1 }));
    CHECK_OK(checkpoint_begin(w, 5, saved));
    checkpoint_writer_free(w);
    snprintf(path, sizeof path, "%s/step-5/param.safetensors", folder);
    u8 *data = slurp(path, &bytes);
    data[(1 << 20) - 1] ^= 128;
    data[2 << 20] ^= 1;
    data[bytes - 1] ^= 4;
    spill(path, data, bytes);
    CHECK_EQ(checkpoint_verify(folder, -1, collect, &found), 3);
    CHECK_EQ(found.chunk[0], 0);
    CHECK_EQ(found.chunk[1], 2);
    CHECK_EQ(found.chunk[2], 3);
    memset(t.data, 0, (size_t)size);
    CHECK_FAILS(checkpoint_load(folder, &step, &t, 1, NULL), ERR_FORMAT,
                "chunk 0: damaged between byte 0 and 1048576; no older checkpoint is sound");
    for (i64 i = 0; i < size; i++)
        CHECK_EQ(((u8 *)t.data)[i], 0);
    json_decref(saved);
    free(t.data);
    free(data);
}

TEST(the_newest_that_is_sound_is_loaded)
{
    i64 step, generation, bytes;
    save_steps(4);
    u8 *data = slurp(in_folder("step-4/adamw.m.safetensors"), &bytes);
    data[bytes - 3] ^= 16;
    spill(in_folder("step-4/adamw.m.safetensors"), data, bytes);
    unlink(in_folder("step-3/manifest.json"));
    CHECK_OK(checkpoint_latest(folder, &step));
    CHECK_EQ(step, 4); /* sizes are right; latest does not read every byte */
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 2);
    CHECK_EQ(generation, 2);
    free(data);
}

/* What cannot be read may be sound after all: that is for a person to decide. */
TEST(an_unreadable_checkpoint_is_not_passed_over_silently)
{
    i64 step, generation;
    save_steps(2);
    sys_fault_arm("read:3:EIO");
    CHECK_FAILS(fixture_load(folder, &step, &generation), ERR_SYS, "before it is step 1");
    sys_fault_arm(NULL);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 2);
}

TEST(tensors_of_another_model_are_refused_by_name)
{
    struct fixture f;
    i64 step = 1;
    save_steps(1);
    fixture_init(&f);
    f.tensor[0].dim[1] = 6;
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_MODEL,
                "\"w.weight\" has another type or shape");
    fixture_init(&f);
    f.tensor[1].dtype = DTYPE_F16;
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_MODEL,
                "\"b\" has another type");
    fixture_init(&f);
    f.tensor[3].name = "adamw.m/other";
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_MODEL,
                "not wanted here");
    fixture_init(&f);
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor + 1, FIXTURE_TENSORS - 1, NULL),
                ERR_MODEL, "not wanted here");
    f.tensor[4].name = "param/more";
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_MODEL,
                "\"more\" is missing there");
    f.tensor[4].name = "muon/scale";
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_MODEL,
                "no muon.safetensors");
    CHECK_EQ(f.data[0][0], 0);
}

TEST(an_empty_or_absent_folder_has_no_checkpoint)
{
    i64 step, generation;
    struct checkpoint_entry *e;
    CHECK_OK(checkpoint_latest(folder, &step));
    CHECK_EQ(step, -1);
    CHECK_EQ(checkpoint_list(folder, &e), 0);
    sys_free(e);
    CHECK_FAILS(fixture_load(folder, &step, &generation), ERR_USAGE, "no checkpoint");
    CHECK_FAILS(checkpoint_verify(folder, 3, NULL, NULL), ERR_USAGE, "step 3");
}

/* --- misses ---------------------------------------------------------------------- */

static void count_warnings(void *context, enum log_level level, const char *line)
{
    *(int *)context += level == LOG_WARN && strstr(line, "No space left") != NULL;
}

TEST(misses_are_told_and_borne_until_there_are_too_many)
{
    struct checkpoint_writer *w;
    struct checkpoint_result result;
    struct fixture f;
    int warnings = 0;
    i64 step, generation;
    CHECK_OK(fixture_open(&w, &f, folder, -1)); /* bears 3 */
    CHECK_OK(fixture_save(w, &f, 1, 1));
    log_add_sink(count_warnings, &warnings, LOG_WARN);
    sys_fault_arm("write:1:ENOSPC:repeat");
    for (i64 i = 2; i <= 4; i++)
        CHECK_OK(fixture_save(w, &f, i, i));
    CHECK_FAILS(fixture_save(w, &f, 5, 5), ERR_SYS, "4 checkpoints in a row failed");
    sys_fault_arm(NULL);
    log_remove_sink(count_warnings, &warnings);
    CHECK_EQ(warnings, 4);
    CHECK_FAILS(checkpoint_poll(w, &result), ERR_SYS, "No space left");
    CHECK_EQ(result.missed, 4);
    CHECK_EQ(result.step, 1);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(generation, 1);
    checkpoint_writer_free(w);
}

/* --- while training goes on ------------------------------------------------------ */

static void save_while_training(enum checkpoint_snapshot snapshot, int threads)
{
    struct checkpoint_tensor t[2];
    struct checkpoint_writer *w;
    struct checkpoint_result result;
    struct pool *pool;
    i64 size = big_tensor(&t[0]), step = CHECKPOINT_NEWEST;
    big_tensor(&t[1]);
    t[1].name = "adamw.m/big";
    CHECK_OK(pool_new(&pool, threads, false));
    CHECK_OK(checkpoint_writer_new(&w, folder, t, 2,
                                   &(struct checkpoint_options){ .resumed_step = -1,
                                                                 .async = true,
                                                                 .snapshot = snapshot,
                                                                 .pool = pool }));
    for (i64 i = 1; i <= 20; i++) {
        json_t *saved = json_pack("{s:I}", "i", (json_int_t)i);
        memset(t[0].data, (int)i, (size_t)size);
        memset(t[1].data, (int)(100 + i), (size_t)size);
        CHECK_OK(checkpoint_begin(w, i, saved));
        json_decref(saved);
        checkpoint_guard(w);
        memset(t[0].data, 0xff, (size_t)size); /* the optimizer's next step */
        memset(t[1].data, 0xff, (size_t)size);
        if (i % 7 != 0)
            continue;
        CHECK_OK(checkpoint_wait(w, 0, &result));
        CHECK_EQ(result.step, i);
        CHECK_OK(checkpoint_load(folder, &step, t, 2, &saved));
        CHECK_EQ(step, i);
        step = CHECKPOINT_NEWEST;
        CHECK_EQ(json_integer_value(json_object_get(saved, "i")), i);
        json_decref(saved);
        for (i64 k = 0; k < size; k++)
            CHECK(((u8 *)t[0].data)[k] == i && ((u8 *)t[1].data)[k] == 100 + i);
    }
    checkpoint_writer_free(w); /* finishes the last one */
    CHECK_OK(checkpoint_latest(folder, &step));
    CHECK_EQ(step, 20);
    pool_free(pool);
    free(t[0].data);
    free(t[1].data);
}

TEST(what_is_saved_is_the_state_at_begin_with_live_tensors)
{
    save_while_training(CHECKPOINT_LIVE, 1);
}

TEST(what_is_saved_is_the_state_at_begin_with_a_copy)
{
    save_while_training(CHECKPOINT_COPY, 3);
}

/* Holds the io thread inside its first write of a shard, as a hung disk would. */
struct hang {
    sem_t inside, go_on;
    bool armed;
};

static void hang_in_write(void *context, const struct sys_event *e)
{
    struct hang *h = context;
    if (e->op == SYS_WRITE && e->bytes == CHECKPOINT_CHUNK && h->armed) {
        h->armed = false;
        sem_post(&h->inside);
        sem_wait(&h->go_on);
    }
}

TEST(a_hung_disk_costs_a_checkpoint_and_not_the_run)
{
    struct checkpoint_tensor t;
    struct checkpoint_writer *w;
    struct checkpoint_result result;
    struct hang hang = { .armed = true };
    json_t *saved = json_object();
    i64 size = big_tensor(&t), step;
    sem_init(&hang.inside, 0, 0);
    sem_init(&hang.go_on, 0, 0);
    CHECK_OK(checkpoint_writer_new(&w, folder, &t, 1,
                                   &(struct checkpoint_options){ .resumed_step = -1,
                                                                 .async = true,
                                                                 .max_missed = 3,
                                                                 .snapshot = CHECKPOINT_LIVE,
                                                                 .patience_s = 0.01 }));
    sys_record(hang_in_write, &hang);
    CHECK_OK(checkpoint_begin(w, 1, saved));
    sem_wait(&hang.inside);
    checkpoint_guard(w); /* gives up after 10 ms */
    memset(t.data, 0, (size_t)size);
    CHECK_OK(checkpoint_begin(w, 2, saved)); /* missed: the first is not through */
    CHECK_FAILS(checkpoint_wait(w, 0.01, &result), ERR_SYS, "still being written");
    sem_post(&hang.go_on);
    CHECK_FAILS(checkpoint_wait(w, 0, &result), ERR_SYS, "training went on");
    sys_record(NULL, NULL);
    CHECK_EQ(result.missed, 2);
    CHECK_OK(checkpoint_begin(w, 3, saved));
    CHECK_OK(checkpoint_wait(w, 0, &result));
    CHECK_EQ(result.missed, 0);
    checkpoint_writer_free(w);
    CHECK_OK(checkpoint_latest(folder, &step));
    CHECK_EQ(step, 3);
    sem_destroy(&hang.inside);
    sem_destroy(&hang.go_on);
    json_decref(saved);
    free(t.data);
}

TEST(going_back_makes_the_older_checkpoint_the_newest)
{
    struct checkpoint_writer *w;
    struct fixture f;
    i64 step, generation;
    fixture_init(&f);
    CHECK_OK(checkpoint_writer_new(&w, folder, f.tensor, FIXTURE_TENSORS,
                                   &(struct checkpoint_options){ .resumed_step = -1, .keep = 5,
                                                                 .async = true }));
    for (i64 i = 1; i <= 4; i++)
        CHECK_OK(fixture_save(w, &f, 10 * i, i));
    CHECK_OK(checkpoint_rewind(w, 20));
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 20);
    CHECK_OK(fixture_save(w, &f, 30, 33));
    checkpoint_writer_free(w);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 30);
    CHECK_EQ(generation, 33);
}

#define EACH(name) cmocka_unit_test_setup(name, fresh_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(a_state_comes_back_bit_for_bit),
        EACH(shards_are_plain_safetensors_readable_by_their_owner_only),
        EACH(params_can_be_loaded_without_the_optimizer),
        EACH(only_the_newest_are_kept),
        EACH(a_damaged_checkpoint_does_not_count_among_the_kept),
        EACH(saving_a_step_twice_does_nothing_the_second_time),
        EACH(a_damaged_step_of_the_same_name_is_replaced),
        EACH(a_run_may_not_start_below_the_newest_checkpoint),
        EACH(steps_that_loading_passed_over_are_set_aside),
        EACH(two_runs_cannot_save_into_one_folder),
        EACH(leftovers_are_removed_and_other_files_are_not),
        EACH(what_would_fail_at_the_first_checkpoint_fails_at_the_start),
        EACH(a_flipped_bit_in_any_byte_is_found_and_named),
        EACH(a_missing_shortened_or_lengthened_file_is_found_and_named),
        EACH(files_of_another_checkpoint_are_found_and_named),
        EACH(a_change_that_keeps_the_crc_is_found_by_the_sha),
        EACH(verify_names_every_damaged_chunk),
        EACH(the_newest_that_is_sound_is_loaded),
        EACH(an_unreadable_checkpoint_is_not_passed_over_silently),
        EACH(tensors_of_another_model_are_refused_by_name),
        EACH(an_empty_or_absent_folder_has_no_checkpoint),
        EACH(misses_are_told_and_borne_until_there_are_too_many),
        EACH(what_is_saved_is_the_state_at_begin_with_live_tensors),
        EACH(what_is_saved_is_the_state_at_begin_with_a_copy),
        EACH(a_hung_disk_costs_a_checkpoint_and_not_the_run),
        EACH(going_back_makes_the_older_checkpoint_the_newest),
    };
    const char *path = scratch_folder();
    if (!path)
        return 1;
    snprintf(base, sizeof base, "%s", path);
    snprintf(folder, sizeof folder, "%s/run", base);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sys_remove_tree(base);
    return failed;
}
