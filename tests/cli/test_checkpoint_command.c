#include "test.h"

#include "base/sys.h"
#include "cli/program.h"
#include "support/checkpoint_fixture.h"
#include "support/crash.h"

#include <stdlib.h>
#include <unistd.h>

static char run[160];

/* run/checkpoints/step-10 and step-20 */
static int make_run(void **state)
{
    char folder[256];
    struct checkpoint_writer *w;
    struct fixture f;
    (void)state;
    if (sys_exists(run))
        sys_remove_tree(run);
    snprintf(folder, sizeof folder, "%s/checkpoints", run);
    if (fixture_open(&w, &f, folder, -1) != OK)
        return -1;
    int rc = fixture_save(w, &f, 10, 1);
    if (rc == OK)
        rc = fixture_save(w, &f, 20, 2);
    checkpoint_writer_free(w);
    return rc;
}

static void flip_last_byte(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/checkpoints/%s", run, name);
    FILE *f = fopen(path, "r+");
    CHECK(f && fseek(f, -1, SEEK_END) == 0);
    int c = fgetc(f);
    CHECK(fseek(f, -1, SEEK_END) == 0 && fputc(c ^ 1, f) != EOF && fclose(f) == 0);
}

static void check_run(const char *arguments, int code, const char *expected)
{
    static struct outcome o;
    char line[600];
    snprintf(line, sizeof line, "cd %s && $H checkpoint %s 2>&1", run, arguments);
    run_shell(&o, line);
    if (o.code != code || !strstr(o.text, expected))
        fail_msg("%s: exit %d, \"%s\"; expected %d, \"%s\"", arguments, o.code, o.text, code,
                 expected);
}

TEST(list_says_when_the_run_began_and_went_on)
{
    char path[300];
    snprintf(path, sizeof path, "%s/manifest.json", run);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs("{\"segments\": [{\"started\": 1700000000.5, \"from_step\": 0}, "
                     "{\"started\": 1700086400, \"from_step\": 10}]}", f) >= 0);
    CHECK(fclose(f) == 0);
    check_run("list .", 0, "\nbegun   2023-11-1");
    check_run("list .", 0, " at step 0\nwent on 2023-11-1");
    check_run("list .", 0, " at step 10\n");
    CHECK_EQ(unlink(path), 0);
}

TEST(list_shows_steps_of_a_run_and_of_one_folder)
{
    check_run("list .", 0, "          10  ");
    check_run("list checkpoints/", 0, "          20  ");
    check_run("list checkpoints/step-20", 0, "MB  whole\n");
    check_run("list nowhere", 2, "there is no folder nowhere");
    check_run("list /", 0, "/ has no checkpoint\n");
}

TEST(verify_names_the_damaged_file_and_chunk)
{
    check_run("verify .", 0, "step-10: every byte is right\nstep-20: every byte is right\n");
    flip_last_byte("step-20/adamw.m.safetensors");
    check_run("verify .", 1, "step-20/adamw.m.safetensors: chunk 0: damaged between byte 0 and");
    check_run("verify .", 1, "damaged places: 1, in 2 checkpoints");
    check_run("verify checkpoints/step-10", 0, "step-10: every byte is right\n");
    flip_last_byte("step-20/manifest.json");
    check_run("verify checkpoints/step-20", 1, "manifest.json: ");
    check_run("list .", 0, "damaged\n");
    check_run("verify /", 2, "has no checkpoint");
}

TEST(export_writes_proven_parameters_only)
{
    check_run("export . --out x.safetensors", 0, "step 20 to x.safetensors");
    check_run("export checkpoints/step-10 --out y.safetensors", 0, "step 10 to y.safetensors");
    flip_last_byte("step-20/param.safetensors");
    check_run("export . --out z.safetensors", 1, "chunk 0: damaged");
    check_run("export . --out nowhere/z.safetensors", 1, "chunk 0");
    check_run("export checkpoints/step-10 --out nowhere/z", 1, "No such file or directory");
    flip_last_byte("step-20/manifest.json"); /* nothing older is taken unawares */
    check_run("export . --out w.safetensors", 1,
              "the newest sound one before it is step 10: name ");
    check_run("export checkpoints/step-10 --out w.safetensors", 0, "step 10 to w.safetensors");
    CHECK_EQ(chdir(run), 0);
    CHECK(!sys_exists("z.safetensors") && !sys_exists("z.safetensors.tmp"));
}

#define EACH(name) cmocka_unit_test_setup(name, make_run)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(list_says_when_the_run_began_and_went_on),
        EACH(list_shows_steps_of_a_run_and_of_one_folder),
        EACH(verify_names_the_damaged_file_and_chunk),
        EACH(export_writes_proven_parameters_only),
    };
    const char *base = scratch_folder();
    if (!base)
        return 1;
    snprintf(run, sizeof run, "%s/run", base);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sys_remove_tree(base);
    return failed;
}
