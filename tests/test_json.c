/* What the program itself prints as JSON is as docs/json.md says: a study of one data set and of
 * two, the list of studies and their export. Runs the program that lies beside this test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "json_document.h"

static char folder[] = "/tmp/ballast-json-XXXXXX";

/* A table of numbers, so small that its runs take milliseconds. */
static bool write_table(const char *name, int seed)
{
    bl_text table = {0};
    char *path = bl_format("%s/%s", folder, name);
    bl_text_add(&table, "a,b,y\n");
    for (int i = 0; i < 60; i++)
        bl_text_add(&table, "%d,%d,%d.5\n", i * 7 % 11, i * seed % 13, i * i % 17);
    bool written = path && bl_write_file(path, table.at, table.length) == BL_OK;
    bl_text_free(&table);
    bl_release(path);
    return written;
}

/* The output of a command line of the program, in the folder, parsed. */
static json_t *run(const char *line)
{
    char *command = bl_format("cd %s && XDG_STATE_HOME=%s '%s/ballast' %s >output 2>error || "
                              "{ cat error; exit 1; }",
                              folder, folder, BALLAST_BINARY_DIR, line);
    char *path = bl_format("%s/output", folder);
    json_error_t error = {0};
    json_t *json = system(command) == 0 ? json_load_file(path, 0, &error) : NULL;
    if (!json)
        fail_msg("%s: %s", command, error.text);
    bl_release(path);
    bl_release(command);
    return json;
}

#define FLAGS    " --target y --epochs 1 --workers 1 --trials 2 --seeds auto --min-effect 2"
#define SIX_ARMS " --arm null --arm dropout --arm input_noise --arm mixup --arm sam --arm ema"

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || !write_table("one.csv", 3) || !write_table("two.csv", 5))
        return -1;
    json_decref(run("compare one.csv two.csv" FLAGS " --arm null --arm sam --name both --json"));
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char *command = bl_format("rm -rf %s", folder);
    int code = command ? system(command) : -1;
    bl_release(command);
    return code;
}

/* Screened, planned, tuned, with rows at equal cost. */
static void a_study_is_as_documented(void **state)
{
    (void)state;
    char *document = read_sections("The study", "Several data sets");
    json_t *json = run("compare one.csv" FLAGS SIX_ARMS " --json");
    bl_text seen = {0};
    walk(document, "", json, &seen);
    assert_true(json_is_object(json_object_get(json, "screening")));
    assert_true(json_is_object(json_object_get(json, "pilot")));
    assert_true(json_array_size(json_object_get(json, "equal_cost")) > 0);
    assert_non_null(strstr(seen.at, "\narms[].tuning.best\n"));
    assert_non_null(strstr(seen.at, "\narms[].runs[].curve[].train_loss\n"));
    bl_text_free(&seen);
    json_decref(json);
    bl_release(document);
}

static void studies_of_several_data_sets_are_as_documented(void **state)
{
    (void)state;
    char *study = read_sections("The study", "Several data sets"),
         *document = read_sections("Several data sets", "What study list prints");
    json_t *json = run("study show both --json"), *studies = json_object_get(json, "studies");
    bl_text inside = {0}, seen = {0};
    assert_int_equal(json_array_size(studies), 2);
    for (size_t i = 0; i < 2; i++)
        walk(study, "", json_array_get(studies, i), &inside);
    json_object_set_new(json, "studies", json_array());
    walk(document, "", json, &seen);
    expect_printed(document, seen.at);
    bl_text_free(&inside);
    bl_text_free(&seen);
    json_decref(json);
    bl_release(study);
    bl_release(document);
}

static void the_list_is_as_documented(void **state)
{
    (void)state;
    char *document = read_sections("What study list prints", "What study export prints");
    json_t *json = run("study list --json");
    bl_text seen = {0};
    assert_true(json_array_size(json) >= 2);
    for (size_t i = 0; i < json_array_size(json); i++)
        walk(document, "[]", json_array_get(json, i), &seen);
    expect_printed(document, seen.at);
    bl_text_free(&seen);
    json_decref(json);
    bl_release(document);
}

/* A run of an export is a run of a study. */
static void the_export_is_as_documented(void **state)
{
    (void)state;
    char *study = read_sections("The study", "Several data sets"),
         *document = read_sections("What study export prints", NULL);
    json_t *json = run("study export 1 --json");
    bl_text inside = {0}, seen = {0};
    assert_true(json_array_size(json) > 20);
    for (size_t i = 0; i < json_array_size(json); i++) {
        json_t *job = json_array_get(json, i);
        assert_string_equal(json_string_value(json_object_get(job, "state")), "done");
        walk(study, "arms[].runs[]", json_object_get(job, "result"), &inside);
        json_object_set_new(job, "result", json_object());
        if (i == 0) /* no run of this study failed */
            json_object_set_new(job, "error", json_string("a sentence"));
        walk(document, "[]", job, &seen);
    }
    expect_printed(document, seen.at);
    bl_text_free(&inside);
    bl_text_free(&seen);
    json_decref(json);
    bl_release(study);
    bl_release(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_study_is_as_documented),
        cmocka_unit_test(studies_of_several_data_sets_are_as_documented),
        cmocka_unit_test(the_list_is_as_documented),
        cmocka_unit_test(the_export_is_as_documented),
    };
    return cmocka_run_group_tests(tests, set_up, remove_folder);
}
