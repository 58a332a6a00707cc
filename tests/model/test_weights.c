#include "test.h"

#include "base/sys.h"
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>

static char folder[] = "/tmp/headway-weights-XXXXXX";

enum { N = 7 };

/* Tensor i holds 10 + i floats, all equal to i. */
static void describe(struct safetensors_tensor t[N], char names[N][8])
{
    for (int i = 0; i < N; i++) {
        snprintf(names[i], 8, "t%d", i);
        t[i] = (struct safetensors_tensor){ .name = names[i], .dtype = DTYPE_F32, .rank = 1,
                                            .dim = { 10 + i } };
    }
}

static int write_folder(const char *path, i64 max_file_bytes)
{
    struct safetensors_tensor t[N];
    char names[N][8];
    float values[10 + N];
    struct weights_writer w;
    describe(t, names);
    TRY(weights_create(&w, path, t, N, NULL, 0, max_file_bytes));
    for (int i = 0; i < N; i++) {
        for (i64 k = 0; k < t[i].dim[0]; k++)
            values[k] = (float)(t[i].dim[0] - 10);
        TRY(weights_put(&w, values, t[i].bytes));
    }
    return weights_commit(&w);
}

static void check_folder(const char *path, i64 files)
{
    struct weights w;
    CHECK_OK(weights_open(&w, path));
    CHECK_EQ(w.n, N);
    CHECK_EQ(w.n_files, files);
    for (int i = 0; i < N; i++) {
        char name[8];
        float value;
        snprintf(name, sizeof name, "t%d", i);
        const struct weights_entry *e = weights_find(&w, name);
        CHECK(e != NULL);
        CHECK_EQ(e->tensor->dim[0], 10 + i);
        memcpy(&value, weights_data(e), 4);
        CHECK_EQ(value, i);
    }
    CHECK(!weights_find(&w, "t"));
    weights_close(&w);
}

static const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
}

TEST(pickled_weights_are_named_with_the_way_out)
{
    struct weights w;
    CHECK_EQ(sys_mkdirs(in_folder("pickled")), 0);
    put_text(in_folder("pickled/pytorch_model.bin"), "PK");
    CHECK_FAILS(weights_open(&w, in_folder("pickled")), ERR_FORMAT,
                "holds its weights as pytorch_model.bin, and only safetensors are read; convert");
    weights_close(&w);
}

TEST(one_file_and_many_files_read_the_same)
{
    CHECK_OK(write_folder(in_folder("one"), 1 << 20));
    check_folder(in_folder("one"), 1);
    check_folder(in_folder("one/model.safetensors"), 1);
    CHECK_OK(write_folder(in_folder("many"), 100)); /* 40 + 44, 48 + 52, 56, 60, 64 */
    check_folder(in_folder("many"), 5);
}

TEST(an_export_replaces_an_earlier_one_of_another_shape)
{
    for (int round = 0; round < 4; round++) {
        CHECK_OK(write_folder(in_folder("again"), round % 2 ? 100 : 1000));
        check_folder(in_folder("again"), round % 2 ? 5 : 1);
    }
}

/* How many files a folder has whose name begins so. */
static i64 files_like(const char *path, const char *begin)
{
    char **names;
    int n = sys_list(path, &names), like = 0;
    for (int i = 0; i < n; i++)
        like += strncmp(names[i], begin, strlen(begin)) == 0;
    sys_free(names);
    return like;
}

/* But for what no index of the folder has named, which is somebody else's. */
TEST(files_of_an_earlier_export_go_with_it)
{
    const char *path = "shrinks";
    CHECK_OK(write_folder(in_folder(path), 100));
    put_text(in_folder("shrinks/model-00001-of-00009.safetensors"), "somebody's");
    put_text(in_folder("shrinks/notes.txt"), "somebody's");
    CHECK_EQ(files_like(in_folder(path), "model-"), 6);
    CHECK_OK(write_folder(in_folder(path), 200));
    check_folder(in_folder(path), 2);
    CHECK_EQ(files_like(in_folder(path), "model-"), 3);
    CHECK_OK(write_folder(in_folder(path), 1000));
    check_folder(in_folder(path), 1);
    CHECK_EQ(files_like(in_folder(path), "model-"), 1);
    CHECK_EQ(files_like(in_folder(path), "notes.txt"), 1);
    put_text(in_folder("shrinks/model.safetensors.index.json"),
             "{\"weight_map\": {\"a\": \"notes.txt\", \"b\": \"../shrinks/notes.txt\", \"c\": 1}}");
    CHECK_OK(write_folder(in_folder(path), 1000));
    CHECK_EQ(files_like(in_folder(path), "notes.txt"), 1);
}

TEST(an_index_cannot_name_a_path_outside_its_folder)
{
    static const char *const names[] = { "../one/model.safetensors", "/etc/passwd", "..", "",
                                         ".hidden", "a/b", "a\\\\b" };
    CHECK_OK(write_folder(in_folder("bad"), 1000));
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        char text[256];
        struct weights w;
        snprintf(text, sizeof text, "{\"weight_map\":{\"t0\":\"%s\"}}", names[i]);
        put_text(in_folder("bad/model.safetensors.index.json"), text);
        CHECK_FAILS(weights_open(&w, in_folder("bad")), ERR_FORMAT, "plain file name");
        weights_close(&w);
    }
}

TEST(an_index_that_contradicts_its_files_is_refused)
{
    static const struct {
        const char *index, *why;
        int code;
    } cases[] = {
        { "{", "index.json:1", ERR_FORMAT },
        { "{\"weight_map\":[]}", "no object", ERR_FORMAT },
        { "{\"weight_map\":{}}", "names 0 files", ERR_FORMAT },
        { "{\"weight_map\":{\"t0\":7}}", "plain file name", ERR_FORMAT },
        { "{\"weight_map\":{\"t0\":\"x.safetensors\"}}", "x.safetensors", ERR_SYS },
        { "{\"weight_map\":{\"t9\":\"model.safetensors\"}}", "not in", ERR_FORMAT },
        { "{\"weight_map\":{\"t0\":\"model.safetensors\"}}", "names 1 tensors", ERR_FORMAT },
        { "{\"weight_map\":{\"t0\":\"a\",\"t0\":\"b\"}}", "duplicate", ERR_FORMAT },
    };
    CHECK_OK(write_folder(in_folder("odd"), 1000));
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct weights w;
        put_text(in_folder("odd/model.safetensors.index.json"), cases[i].index);
        CHECK_FAILS(weights_open(&w, in_folder("odd")), cases[i].code, cases[i].why);
        weights_close(&w);
    }
}

TEST(a_folder_that_lacks_a_file_is_refused_and_has_no_tensors)
{
    struct weights w;
    CHECK_OK(write_folder(in_folder("lacks"), 100));
    CHECK_EQ(sys_unlink(in_folder("lacks/model-00003-of-00005.safetensors")), 0);
    CHECK_FAILS(weights_open(&w, in_folder("lacks")), ERR_SYS, "model-00003-of-00005.safetensors");
    CHECK(weights_find(&w, "t0") == NULL);
    weights_close(&w);
}

TEST(an_export_that_fails_leaves_no_files_of_its_own)
{
    static const char *const faults[] = { "write:1:ENOSPC", "write:6:ENOSPC", "rename:2:EIO",
                                          "open:3:EACCES",  "fsync:1:EIO",    "write:13:EIO" };
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        char **names;
        sys_fault_arm(faults[i]);
        CHECK_EQ(write_folder(in_folder("failed"), 100), ERR_SYS);
        sys_fault_arm(NULL);
        CHECK_EQ(sys_list(in_folder("failed"), &names), 0);
        sys_free(names);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(pickled_weights_are_named_with_the_way_out),
        ONE(one_file_and_many_files_read_the_same),
        ONE(an_export_replaces_an_earlier_one_of_another_shape),
        ONE(files_of_an_earlier_export_go_with_it),
        ONE(an_index_cannot_name_a_path_outside_its_folder),
        ONE(an_index_that_contradicts_its_files_is_refused),
        ONE(a_folder_that_lacks_a_file_is_refused_and_has_no_tensors),
        ONE(an_export_that_fails_leaves_no_files_of_its_own),
    };
    if (!mkdtemp(folder))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sys_remove_tree(folder);
    return failed;
}
