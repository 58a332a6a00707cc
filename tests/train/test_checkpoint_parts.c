/* Checkpoints that several ranks write, and that any others read: every element comes back
 * from whichever boxes, once; what is missing, double, damaged or late is told. */
#include "test.h"

#include "base/rng.h"
#include "base/sys.h"
#include "model/safetensors.h"
#include "support/checkpoint_fixture.h"
#include "support/crash.h"
#include "train/checkpoint_manifest.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[160];

static void fresh_folder(void)
{
    if (sys_exists(folder))
        sys_remove_tree(folder);
}

static const char *in_folder(const char *name)
{
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* --- any boxes into any boxes ------------------------------------------------------- */

enum { MOST_BOXES = 40, RANKS = 5, ROUNDS = 60 };

static const struct checkpoint_tensor wholes[] = {
    { .name = "param/matrix", .dtype = DTYPE_F32, .rank = 2, .dim = { 13, 9 } },
    { .name = "param/vector", .dtype = DTYPE_BF16, .rank = 1, .dim = { 17 } },
    { .name = "param/cube", .dtype = DTYPE_F32, .rank = 3, .dim = { 4, 5, 6 } },
    { .name = "m/matrix", .dtype = DTYPE_F64, .rank = 2, .dim = { 13, 9 } },
    { .name = "v/four", .dtype = DTYPE_U8, .rank = 4, .dim = { 3, 2, 3, 5 } },
};

static u64 dice_at;

static i64 below(i64 n)
{
    return (i64)(rng_u64(&(struct rng){ 9, 1 }, dice_at++) % (u64)n);
}

/* Cuts a box at random places, `cuts` deep, into list. */
static void cut(struct checkpoint_tensor box, int cuts, struct checkpoint_tensor *list, i64 *n)
{
    int d = (int)below(box.rank);
    if (cuts == 0 || box.dim[d] < 2) {
        list[(*n)++] = box;
        return;
    }
    struct checkpoint_tensor rest = box;
    i64 at = 1 + below(box.dim[d] - 1);
    box.dim[d] = at;
    rest.at[d] += at;
    rest.dim[d] -= at;
    cut(box, cuts - 1, list, n);
    cut(rest, cuts - 1, list, n);
}

static i64 count_of(const struct checkpoint_tensor *t)
{
    i64 n = 1;
    for (int d = 0; d < t->rank; d++)
        n *= t->dim[d];
    return n;
}

/* The number of the box's element i in the whole tensor. */
static i64 number_of(const struct checkpoint_tensor *t, i64 i)
{
    i64 number = 0, stride = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        number += (t->at[d] + i % t->dim[d]) * stride;
        stride *= t->whole[d];
        i /= t->dim[d];
    }
    return number;
}

/* All boxes of a random cut of all tensors, with memory. */
static i64 make_boxes(struct checkpoint_tensor *list)
{
    i64 n = 0;
    for (i64 i = 0; i < COUNT_OF(wholes); i++) {
        struct checkpoint_tensor t = wholes[i];
        memcpy(t.whole, t.dim, sizeof t.dim);
        cut(t, (int)below(4), list, &n);
    }
    for (i64 i = 0; i < n; i++)
        list[i].data = calloc((size_t)count_of(&list[i]), (size_t)dtype_bytes(list[i].dtype));
    return n;
}

static double value_of(const struct checkpoint_tensor *t, i64 number, i64 round)
{
    return (double)((number * 7 + round * 3 + t->rank) % 120);
}

static void save_boxes(struct checkpoint_tensor *box, i64 n, i64 round)
{
    struct checkpoint_tensor part[RANKS][MOST_BOXES];
    struct checkpoint_writer *w[RANKS];
    i64 count[RANKS] = { 0 };
    json_t *state = json_pack("{s:i}", "generation", (int)round);
    u64 ticket;
    for (i64 i = 0; i < n; i++) {
        for (i64 k = 0; k < count_of(&box[i]); k++)
            dtype_set(box[i].dtype, box[i].data, k,
                      value_of(&box[i], number_of(&box[i], k), round));
        i64 rank = below(RANKS - 1); /* the last rank has nothing to write */
        part[rank][count[rank]++] = box[i];
    }
    for (int r = 0; r < RANKS; r++)
        CHECK_OK(checkpoint_writer_new(&w[r], folder, part[r], count[r],
                                       &(struct checkpoint_options){ .resumed_step = -1,
                                                                     .rank = r,
                                                                     .ranks = RANKS }));
    CHECK_OK(checkpoint_open_step(w[0], 1, &ticket));
    for (int r = RANKS - 1; r >= 0; r--)
        CHECK_OK(checkpoint_begin_part(w[r], 1, ticket, state));
    json_decref(state);
    for (int r = 0; r < RANKS; r++)
        checkpoint_writer_free(w[r]);
}

static void check_values(const struct checkpoint_tensor *box, i64 n, i64 round)
{
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < count_of(&box[i]); k++)
            if (dtype_get(box[i].dtype, box[i].data, k) !=
                value_of(&box[i], number_of(&box[i], k), round))
                fail_msg("round %lld: %s, box %lld, element %lld", (long long)round, box[i].name,
                         (long long)i, (long long)k);
}

static void free_boxes(struct checkpoint_tensor *box, i64 n)
{
    for (i64 i = 0; i < n; i++)
        free(box[i].data);
}

TEST(any_boxes_are_loaded_from_any_boxes)
{
    for (i64 round = 0; round < ROUNDS; round++) {
        struct checkpoint_tensor from[5 * MOST_BOXES], to[5 * MOST_BOXES];
        i64 n = make_boxes(from), m = make_boxes(to);
        fresh_folder();
        save_boxes(from, n, round);
        struct checkpoint_want want = { .tensors = to, .n = m, .part = true };
        CHECK_OK(checkpoint_load_part(folder, 1, &want, NULL));
        check_values(to, m, round);
        want.n = 1; /* and a few of them alone */
        memset(to[0].data, 0, (size_t)count_of(&to[0]));
        CHECK_OK(checkpoint_load_part(folder, 1, &want, NULL));
        check_values(to, m, round);
        CHECK_EQ(checkpoint_verify(folder, -1, NULL, NULL), 0);
        free_boxes(from, n);
        free_boxes(to, m);
    }
}

/* --- two ranks and the fixture ------------------------------------------------------ */

struct pair {
    struct checkpoint_writer *w[FIXTURE_RANKS];
    struct fixture_part part[FIXTURE_RANKS];
};

static void open_pair(struct pair *p, i64 resumed)
{
    for (int r = 0; r < FIXTURE_RANKS; r++)
        CHECK_OK(fixture_part_open(&p->w[r], &p->part[r], folder, r, resumed, 0.05));
}

static void close_pair(struct pair *p)
{
    for (int r = 0; r < FIXTURE_RANKS; r++)
        checkpoint_writer_free(p->w[r]);
}

/* Returns whether it became durable. */
static bool save_pair(struct pair *p, i64 step)
{
    struct checkpoint_result result;
    u64 ticket;
    CHECK_OK(checkpoint_open_step(p->w[0], step, &ticket));
    CHECK(ticket != 0);
    for (int r = FIXTURE_RANKS - 1; r >= 0; r--)
        CHECK_OK(fixture_part_save(p->w[r], &p->part[r], step, ticket, step));
    CHECK_OK(checkpoint_poll(p->w[0], &result));
    return result.step == step;
}

static void save_steps(i64 n)
{
    struct pair p;
    fresh_folder();
    open_pair(&p, -1);
    for (i64 step = 1; step <= n; step++)
        CHECK(save_pair(&p, step));
    close_pair(&p);
}

TEST(what_two_ranks_save_one_can_load_and_the_other_way_round)
{
    struct checkpoint_writer *w;
    struct fixture f;
    i64 step, generation;
    save_steps(2);
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 2);
    CHECK(sys_exists(in_folder("step-2/param-00001-of-00002.safetensors")));
    fresh_folder();
    CHECK_OK(fixture_open(&w, &f, folder, -1));
    CHECK_OK(fixture_save(w, &f, 5, 7));
    checkpoint_writer_free(w);
    for (int r = 0; r < FIXTURE_RANKS; r++) {
        struct fixture_part part;
        fixture_part_init(&part, r);
        const struct checkpoint_want want = { .tensors = part.box, .n = part.n, .part = true };
        CHECK_OK(checkpoint_load_part(folder, 5, &want, NULL));
        CHECK(fixture_part_matches(&part, 7));
    }
}

static int worst_is_damage(void *context, int code)
{
    *(int *)context += 1;
    return code < 0 ? code : ERR_FORMAT;
}

TEST(what_another_rank_cannot_load_changes_nothing_here)
{
    int asked = 0;
    struct fixture_part part, before;
    save_steps(1);
    fixture_part_init(&part, 0);
    before = part;
    struct checkpoint_want want = { .tensors = part.box, .n = part.n, .part = true,
                                    .agree = worst_is_damage, .context = &asked };
    CHECK_FAILS(checkpoint_load_part(folder, 1, &want, NULL), ERR_FORMAT, "another rank");
    CHECK_EQ(asked, 1);
    CHECK(checkpoint_load_part(folder, 77, &want, NULL) < 0);
    CHECK_EQ(asked, 2); /* whatever happens, the others are not left waiting */
    CHECK(memcmp(part.data, before.data, sizeof part.data) == 0);
}

TEST(a_checkpoint_of_many_is_exported_whole)
{
    struct safetensors s;
    struct fixture f;
    save_steps(1);
    CHECK_OK(checkpoint_export(folder, 1, in_folder("out.safetensors")));
    CHECK_OK(safetensors_open(&s, in_folder("out.safetensors")));
    CHECK_EQ(s.n, 3);
    fixture_init(&f);
    fixture_fill(&f, 1);
    const struct safetensors_tensor *t = safetensors_find(&s, "w.weight");
    CHECK(t && t->dim[0] == 3 && t->dim[1] == 7);
    CHECK(memcmp(safetensors_data(&s, t), f.data[0], (size_t)t->bytes) == 0);
    CHECK_STR(safetensors_meta(&s, "step"), "1");
    safetensors_close(&s);
}

/* --- gaps and overlaps -------------------------------------------------------------- */

TEST(boxes_that_leave_a_gap_or_overlap_are_not_saved)
{
    struct checkpoint_result result;
    struct pair p;
    fresh_folder();
    fixture_part_init(&p.part[0], 0);
    open_pair(&p, -1);
    checkpoint_writer_free(p.w[0]); /* again, with less and with more than its share */
    for (int more = 0; more <= 1; more++) {
        struct fixture_part *f = &p.part[0];
        fixture_part_init(f, 0);
        f->box[1].dim[1] = more ? 4 : 2;
        CHECK_OK(checkpoint_writer_new(&p.w[0], folder, f->box, f->n,
                                       &(struct checkpoint_options){ .resumed_step = -1,
                                                                     .ranks = 2,
                                                                     .max_missed = 3 }));
        CHECK(!save_pair(&p, 1));
        CHECK_OK(checkpoint_poll(p.w[0], &result));
        const char *expected = more ? "param/w.weight: its elements [2 to 2, 3 to 3] are in more"
                                    : "param/w.weight: its elements [2 to 2, 2 to 2] are in no";
        if (!strstr(result.error, expected))
            fail_msg("%s", result.error);
        CHECK(!sys_exists(in_folder("step-1")));
        checkpoint_writer_free(p.w[0]);
    }
    checkpoint_writer_free(p.w[1]);
}

/* A manifest that is sound but for one box. */
static void change_manifest(void (*change)(struct checkpoint_box *b))
{
    struct text text = { 0 };
    struct checkpoint_manifest m;
    i64 bytes;
    char *old = sys_map_file(in_folder("step-1/manifest.json"), &bytes);
    CHECK_OK(checkpoint_manifest_parse(&m, old, bytes, "manifest"));
    sys_unmap(old, bytes);
    for (i64 i = 0; i < m.n; i++)
        for (i64 k = 0; k < m.shard[i].boxes; k++)
            if (strcmp(m.shard[i].prefix, "param") == 0 &&
                strcmp(m.shard[i].box[k].name, "w.weight") == 0 && m.shard[i].box[k].at[1] == 3)
                change(&m.shard[i].box[k]);
    checkpoint_manifest_write(&text, 1, 0, m.shard, m.n, "{\"generation\": 1}");
    int fd = open(in_folder("step-1/manifest.json"), O_WRONLY | O_TRUNC);
    CHECK(fd >= 0 && write(fd, text.data, (size_t)text.length) == text.length);
    close(fd);
    checkpoint_manifest_fini(&m);
    text_fini(&text);
}

static void shift(struct checkpoint_box *b) { b->at[1] = 2; }
static void rename_box(struct checkpoint_box *b) { b->name = "other"; }
static void reshape(struct checkpoint_box *b) { b->whole[0] = 4; }

TEST(a_manifest_whose_boxes_do_not_fit_is_refused)
{
    struct fixture f;
    i64 step = 1;
    fixture_init(&f);
    save_steps(1);
    change_manifest(shift);
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_FORMAT,
                "w.weight: its elements [2 to 2, 2 to 2] are in more than one");
    save_steps(1);
    change_manifest(rename_box);
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_MODEL,
                "\"other\" is not wanted here");
    save_steps(1);
    change_manifest(reshape);
    CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_FORMAT,
                "w.weight: files differ in its type or shape");
    CHECK_EQ(f.data[0][0], 0);
}

/* --- damage ------------------------------------------------------------------------- */

static const char *const files[] = {
    "param-00000-of-00002.safetensors",   "param-00001-of-00002.safetensors",
    "adamw.m-00000-of-00002.safetensors", "adamw.m-00001-of-00002.safetensors",
    "scaler-00001-of-00002.safetensors",  "manifest.json",
};

static void spill(const char *path, const u8 *data, i64 bytes)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    CHECK(fd >= 0 && write(fd, data, (size_t)bytes) == bytes);
    close(fd);
}

/* Each rank's load either fails and names the file, or did not need it and is right. */
static void check_ranks(const char *file, i64 at)
{
    int refused = 0;
    for (int r = 0; r < FIXTURE_RANKS; r++) {
        struct fixture_part part;
        fixture_part_init(&part, r);
        const struct checkpoint_want want = { .tensors = part.box, .n = part.n, .part = true };
        int rc = checkpoint_load_part(folder, 1, &want, NULL);
        if (rc == OK && fixture_part_matches(&part, 1))
            continue;
        refused++;
        if (rc != ERR_FORMAT || !strstr(err_message(), file) || part.data[0][0] != 0)
            fail_msg("%s, byte %lld, rank %d: %d %s", file, (long long)at, r, rc, err_message());
    }
    if (refused == 0)
        fail_msg("%s: damage in byte %lld went unseen", file, (long long)at);
}

TEST(a_flipped_bit_in_any_byte_of_any_part_is_found_and_named)
{
    struct fixture f;
    save_steps(1);
    for (i64 i = 0; i < COUNT_OF(files); i++) {
        char path[400];
        i64 bytes, step = 1;
        snprintf(path, sizeof path, "%s/step-1/%s", folder, files[i]);
        u8 *map = sys_map_file(path, &bytes), *data = malloc((size_t)bytes);
        memcpy(data, map, (size_t)bytes);
        sys_unmap(map, bytes);
        for (i64 at = 0; at < bytes; at++) {
            data[at] ^= (u8)(1 << at % 8);
            spill(path, data, bytes);
            check_ranks(files[i], at);
            data[at] ^= (u8)(1 << at % 8);
        }
        data[0] ^= 1;
        spill(path, data, bytes);
        fixture_init(&f);
        CHECK_FAILS(checkpoint_load(folder, &step, f.tensor, FIXTURE_TENSORS, NULL), ERR_FORMAT,
                    files[i]);
        data[0] ^= 1;
        spill(path, data, bytes);
        free(data);
    }
}

/* --- ranks that fail ---------------------------------------------------------------- */

TEST(a_full_disk_at_one_rank_is_a_miss_that_names_it)
{
    struct checkpoint_result result;
    struct pair p;
    u64 ticket;
    i64 step, generation;
    fresh_folder();
    open_pair(&p, -1);
    CHECK(save_pair(&p, 1));
    CHECK_OK(checkpoint_open_step(p.w[0], 2, &ticket));
    sys_fault_arm("write:1:ENOSPC:repeat");
    CHECK_OK(fixture_part_save(p.w[1], &p.part[1], 2, ticket, 2));
    sys_fault_arm(NULL);
    CHECK_OK(fixture_part_save(p.w[0], &p.part[0], 2, ticket, 2));
    CHECK_OK(checkpoint_poll(p.w[0], &result));
    CHECK_EQ(result.missed, 1);
    CHECK(strstr(result.error, "rank 1 could not write its part"));
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(step, 1);
    CHECK(save_pair(&p, 3));
    close_pair(&p);
}

TEST(a_rank_that_does_not_come_is_a_miss_and_its_late_files_harm_nothing)
{
    struct checkpoint_result result;
    struct pair p;
    u64 late, ticket;
    i64 step, generation;
    fresh_folder();
    open_pair(&p, -1);
    CHECK_OK(checkpoint_open_step(p.w[0], 1, &late));
    CHECK_OK(fixture_part_save(p.w[0], &p.part[0], 1, late, 1));
    CHECK_OK(checkpoint_poll(p.w[0], &result));
    CHECK_EQ(result.missed, 1);
    CHECK(strstr(result.error, "rank 1 has not written its part"));
    CHECK_OK(checkpoint_open_step(p.w[0], 1, &ticket)); /* the same step once more */
    CHECK(ticket != late);
    CHECK_OK(fixture_part_save(p.w[1], &p.part[1], 1, late, 99));
    CHECK_OK(fixture_part_save(p.w[1], &p.part[1], 1, ticket, 5));
    CHECK_OK(fixture_part_save(p.w[1], &p.part[1], 1, late, 98));
    CHECK_OK(fixture_part_save(p.w[0], &p.part[0], 1, ticket, 5));
    CHECK_OK(fixture_load(folder, &step, &generation));
    CHECK_EQ(generation, 5);
    close_pair(&p);
}

TEST(a_rank_that_sees_another_folder_is_told_so)
{
    struct checkpoint_writer *w;
    struct fixture_part f;
    fresh_folder();
    CHECK_FAILS(fixture_part_open(&w, &f, folder, 1, -1, 0), ERR_SYS,
                "rank 1 does not see");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(any_boxes_are_loaded_from_any_boxes),
        ONE(what_two_ranks_save_one_can_load_and_the_other_way_round),
        ONE(what_another_rank_cannot_load_changes_nothing_here),
        ONE(a_checkpoint_of_many_is_exported_whole),
        ONE(boxes_that_leave_a_gap_or_overlap_are_not_saved),
        ONE(a_manifest_whose_boxes_do_not_fit_is_refused),
        ONE(a_flipped_bit_in_any_byte_of_any_part_is_found_and_named),
        ONE(a_full_disk_at_one_rank_is_a_miss_that_names_it),
        ONE(a_rank_that_does_not_come_is_a_miss_and_its_late_files_harm_nothing),
        ONE(a_rank_that_sees_another_folder_is_told_so),
    };
    const char *path = scratch_folder();
    if (!path)
        return 1;
    snprintf(folder, sizeof folder, "%s/run", path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sys_remove_tree(path);
    return failed;
}
