/* Jobs: the same job gives the same result; arms of a replicate share everything but themselves;
 * what does not fit is refused; plans survive as JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "study/job.h"

static bl_job_data *open_plan(const bl_plan *plan)
{
    bl_job_data *data;
    if (bl_job_data_open(plan, &data) != BL_OK)
        fail_msg("%s", bl_error());
    return data;
}

static bl_plan digits(int64_t epochs)
{
    bl_plan plan = bl_plan_new();
    plan.data = strdup("digits");
    plan.epochs = epochs;
    return plan;
}

/* The deterministic part of a result, as text; the caller frees it. */
static char *run_text(const bl_plan *plan, const bl_job_data *data, const char *arm, int replicate)
{
    bl_run_result result;
    bl_job job = {.plan = plan, .arm = arm, .replicate = replicate};
    if (bl_job_run(&job, data, NULL, &result) != BL_OK)
        fail_msg("%s: %s", arm, bl_error());
    json_t *json = bl_run_result_to_json(&result);
    assert_non_null(json);
    assert_true(json_real_value(json_object_get(json_object_get(json, "timing"), "seconds")) > 0);
    json_object_del(json, "timing");
    uint64_t hash = 0;
    for (size_t i = 0; i < result.state.count; i++)
        hash ^= bl_hash(result.state.entry[i].array.data,
                        bl_type_bytes(result.state.entry[i].array.type), i);
    char weights[32];
    snprintf(weights, sizeof weights, "%016llx", (unsigned long long)hash);
    json_object_set_new(json, "weights", json_string(weights));
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_INDENT(1));
    json_decref(json);
    bl_run_result_free(&result);
    return text;
}

static double number(const char *text, const char *group, const char *name)
{
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    json_t *value =
        group ? json_object_get(json_object_get(json, group), name) : json_object_get(json, name);
    double result = json_is_true(value) ? 1 : value ? json_number_value(value) : NAN;
    json_decref(json);
    return result;
}

/* --- plans ------------------------------------------------------------------------------------ */
static void plans_survive_as_json(void **state)
{
    (void)state;
    bl_plan plan = digits(7), back;
    plan.label_noise = strdup("pairs:0.4:1->7");
    plan.learning_rate = 0.1;
    plan.study_seed = UINT64_MAX - 2;
    plan.keep_columns = true;
    json_t *json = bl_plan_to_json(&plan);
    char *text = json_dumps(json, JSON_SORT_KEYS);
    json_error_t error;
    json_t *read = json_loads(text, 0, &error);
    assert_int_equal(bl_plan_from_json(read, &back), BL_OK);
    assert_string_equal(back.data, "digits");
    assert_string_equal(back.label_noise, "pairs:0.4:1->7");
    assert_null(back.target);
    assert_true(back.learning_rate == 0.1 && back.weight_decay < 0 && back.epochs == 7);
    assert_true(back.study_seed == UINT64_MAX - 2 && back.keep_columns);
    free(text);
    json_decref(json);
    json_decref(read);
    bl_plan_free(&plan);
    bl_plan_free(&back);
}

/* --- results ---------------------------------------------------------------------------------- */
static void digits_are_learned_and_repeat(void **state)
{
    (void)state;
    bl_plan plan = digits(-1);
    bl_job_data *data = open_plan(&plan), *again = open_plan(&plan);
    bool higher;
    assert_string_equal(bl_job_primary_metric(data, &higher), "accuracy");
    assert_true(higher && bl_job_resplits(data));
    int64_t train, test;
    bl_job_counts(data, &train, &test);
    assert_int_equal(train + test, 1797);
    char *first = run_text(&plan, data, "baseline", 0);
    char *other = run_text(&plan, data, "baseline", 1);
    char *once_more = run_text(&plan, again, "baseline", 0);
    assert_string_equal(first, once_more);
    assert_string_not_equal(first, other);
    assert_true(number(first, "metrics", "accuracy") > 95);
    assert_true(number(first, "effect", "inert") == 0);
    char *null = run_text(&plan, data, "null", 0);
    assert_string_not_equal(first, null);
    assert_true(number(null, "metrics", "accuracy") > 95);
    free(first);
    free(other);
    free(once_more);
    free(null);
    bl_job_data_close(data);
    bl_job_data_close(again);
    bl_plan_free(&plan);
}

/* 40 % noise draws from all classes: a network that learns its labels by heart knows the wrong
 * ones. */
static void wrong_labels_are_memorised_and_elr_resists(void **state)
{
    (void)state;
    bl_plan plan = digits(-1);
    plan.label_noise = strdup("0.4");
    bl_job_data *data = open_plan(&plan);
    char *baseline = run_text(&plan, data, "baseline", 0);
    char *elr = run_text(&plan, data, "elr", 0);
    char *after = run_text(&plan, data, "baseline", 0);
    assert_string_equal(baseline, after);
    assert_true(number(baseline, "metrics", "memorised") > 50);
    assert_true(number(elr, "metrics", "memorised") <
                0.5 * number(baseline, "metrics", "memorised"));
    assert_true(number(elr, "metrics", "accuracy") > number(baseline, "metrics", "accuracy") + 3);
    assert_true(number(elr, "effect", "gradient_share") > 0.01);
    free(baseline);
    free(elr);
    free(after);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

/* An arm that holds a tenth out trains on the others, and shares the start with the rest. */
static void a_held_out_part_is_taken_from_training(void **state)
{
    (void)state;
    bl_plan plan = digits(4);
    plan.train_count = 200;
    plan.batch = 10;
    bl_job_data *data = open_plan(&plan);
    char *baseline = run_text(&plan, data, "baseline", 0);
    char *early = run_text(&plan, data, "early_stopping", 0);
    assert_true(number(baseline, NULL, "steps") == 80);
    assert_true(number(early, NULL, "steps") == 4 * 18);
    free(baseline);
    free(early);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

static void an_arm_without_strength_is_inert(void **state)
{
    (void)state;
    bl_plan plan = digits(3);
    bl_job_data *data = open_plan(&plan);
    char *text = run_text(&plan, data, "label_smoothing(eps=0)", 0);
    assert_true(number(text, "effect", "inert") == 1);
    free(text);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

/* --- tables ----------------------------------------------------------------------------------- */
static void write_prices(char *path)
{
    int file = mkstemps(path, 4);
    assert_true(file >= 0);
    FILE *out = fdopen(file, "w");
    bl_random r = bl_random_new(bl_key_from_seed(2));
    fprintf(out, "area,city,price\n");
    for (int i = 0; i < 300; i++) {
        double area = 20 + 100 * bl_random_unit(&r);
        bool rome = bl_random_below(&r, 2);
        fprintf(out, "%.3f,%s,%.2f\n", area, rome ? "Rome" : "Oslo",
                3000 * area + (rome ? 50000 : 0) + 1000 * bl_random_gauss(&r));
    }
    fclose(out);
}

static void prices_are_predicted_in_their_units(void **state)
{
    (void)state;
    char path[] = "/tmp/ballast-job-XXXXXX.csv";
    write_prices(path);
    bl_plan plan = bl_plan_new();
    plan.data = strdup(path);
    plan.target = strdup("price");
    bl_job_data *data = open_plan(&plan);
    bool higher;
    assert_string_equal(bl_job_primary_metric(data, &higher), "mae");
    assert_false(higher);
    char *text = run_text(&plan, data, "baseline", 0);
    assert_true(number(text, "metrics", "mae") < 6000); /* the noise alone gives 800 */
    assert_true(number(text, "metrics", "mae") > 500);
    free(text);
    assert_int_equal(bl_job_check_arm(data, "elr"), BL_INVALID);
    assert_int_equal(bl_job_check_arm(data, "randaugment"), BL_INVALID);
    assert_int_equal(bl_job_check_arm(data, "conr"), BL_OK);
    bl_job_data_close(data);
    unlink(path);
    bl_plan_free(&plan);
}

static void a_table_of_classes_takes_labels_but_no_images(void **state)
{
    (void)state;
    char path[] = "/tmp/ballast-job-XXXXXX.csv";
    write_prices(path);
    bl_plan plan = bl_plan_new();
    plan.data = strdup(path);
    plan.target = strdup("city");
    plan.epochs = 20;
    bl_job_data *data = open_plan(&plan);
    char *text = run_text(&plan, data, "elr", 0);
    assert_true(number(text, "metrics", "accuracy") > 90);
    free(text);
    assert_int_equal(bl_job_check_arm(data, "cutmix"), BL_INVALID);
    assert_non_null(strstr(bl_error(), "images"));
    assert_int_equal(bl_job_check_arm(data, "conr"), BL_INVALID);
    assert_int_equal(bl_job_check_arm(data, "erl"), BL_NOT_FOUND);
    assert_int_equal(bl_job_check_arm(data, "stochastic_depth"), BL_INVALID);
    assert_non_null(strstr(bl_error(), "branches"));
    bl_job_data_close(data);
    unlink(path);
    bl_plan_free(&plan);
}

/* --- what the plan may say -------------------------------------------------------------------- */
static void overrides_are_taken_or_refused(void **state)
{
    (void)state;
    bl_plan plan = digits(3);
    plan.model = strdup("cnn");
    plan.optimizer = strdup("adam");
    plan.width = 4;
    bl_job_data *data = open_plan(&plan);
    const bl_recipe *recipe = bl_job_recipe(data);
    assert_string_equal(recipe->model.name, "cnn");
    assert_true(recipe->model.width == 4 && recipe->epochs == 3);
    assert_true(recipe->learning_rate == 1e-3); /* not the rate of sgd */
    bl_job_data_close(data);
    free(plan.optimizer);
    plan.optimizer = strdup("adm");
    assert_int_equal(bl_job_data_open(&plan, &data), BL_INVALID);
    assert_non_null(strstr(bl_error(), "adam"));
    bl_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_survive_as_json),
        cmocka_unit_test(digits_are_learned_and_repeat),
        cmocka_unit_test(wrong_labels_are_memorised_and_elr_resists),
        cmocka_unit_test(a_held_out_part_is_taken_from_training),
        cmocka_unit_test(an_arm_without_strength_is_inert),
        cmocka_unit_test(prices_are_predicted_in_their_units),
        cmocka_unit_test(a_table_of_classes_takes_labels_but_no_images),
        cmocka_unit_test(overrides_are_taken_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
