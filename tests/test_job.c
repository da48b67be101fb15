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

static uint64_t hash_of(const bl_dictionary *state)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < state->count; i++)
        hash ^= bl_hash(state->entry[i].array.data, bl_type_bytes(state->entry[i].array.type), i);
    return hash;
}

/* The deterministic part of a result, the weights included, as text; the caller frees it. */
static char *result_text(const bl_run_result *result)
{
    json_t *json = bl_run_result_to_json(result);
    assert_non_null(json);
    assert_true(json_real_value(json_object_get(json_object_get(json, "timing"), "seconds")) > 0);
    json_object_del(json, "timing");
    char weights[32];
    snprintf(weights, sizeof weights, "%016llx", (unsigned long long)hash_of(&result->state));
    json_object_set_new(json, "weights", json_string(weights));
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_INDENT(1));
    json_decref(json);
    return text;
}

static void run(const bl_plan *plan, const bl_job_data *data, const char *arm, int replicate,
                bl_run_result *result)
{
    bl_job job = {.plan = plan, .arm = arm, .replicate = replicate};
    if (bl_job_run(&job, data, NULL, result) != BL_OK)
        fail_msg("%s: %s", arm, bl_error());
}

static char *run_text(const bl_plan *plan, const bl_job_data *data, const char *arm, int replicate)
{
    bl_run_result result;
    run(plan, data, arm, replicate, &result);
    char *text = result_text(&result);
    bl_run_result_free(&result);
    return text;
}

static uint64_t run_weights(const bl_plan *plan, const bl_job_data *data, const char *arm,
                            int replicate)
{
    bl_run_result result;
    run(plan, data, arm, replicate, &result);
    uint64_t hash = hash_of(&result.state);
    bl_run_result_free(&result);
    return hash;
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

static void every_field_of_a_plan_survives(void **state)
{
    (void)state;
    json_error_t error;
    json_t *json =
        json_loads("{\"batch\":8,\"columns\":\"a=drop\",\"data\":\"d\",\"depth\":3,\"epochs\":4,"
                   "\"fixed_split\":1,\"imbalance\":5.5,\"keep_columns\":1,\"label_noise\":\"0.4\","
                   "\"labels\":\"l\","
                   "\"learning_rate\":0.1,\"loss\":\"absolute\",\"model\":\"mlp\",\"momentum\":0.9,"
                   "\"optimizer\":\"sgd\",\"schedule\":\"step\",\"study_seed\":9007199254740993,"
                   "\"target\":\"t\",\"task\":\"regression\",\"test\":\"x\",\"test_fraction\":0.3,"
                   "\"train_count\":7,\"weight_decay\":1e-17,\"width\":2}",
                   0, &error);
    bl_plan plan;
    assert_non_null(json);
    assert_int_equal(bl_plan_from_json(json, &plan), BL_OK);
    json_t *back = bl_plan_to_json(&plan);
    assert_true(json_equal(json, back));
    bl_plan_free(&plan);
    json_decref(back);
    json_decref(json);
}

static void a_plan_of_other_kinds_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } bad[] = {{"[]", "a plan is a JSON object"},
               {"{\"data\":1}", "plan: data is not a text"},
               {"{\"data\":\"d\",\"epochs\":2.5}", "plan: epochs is not a whole number"},
               {"{\"imbalance\":\"2\"}", "plan: imbalance is not a number"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_error_t error;
        json_t *json = json_loads(bad[i].text, 0, &error);
        bl_plan plan;
        assert_int_equal(bl_plan_from_json(json, &plan), BL_INVALID);
        assert_string_equal(bl_error(), bad[i].sentence);
        json_decref(json);
    }
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
    assert_int_equal(bl_job_pool(data), 1797);
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
    assert_int_equal(bl_job_pool(data), 1797);
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

/* --- what the arms of a replicate share --------------------------------------------------------
 */
/* At a rate that float32 rounds to 0 the weights stay what they were at the start. */
static void arms_share_the_initial_weights_and_null_does_not(void **state)
{
    (void)state;
    static const char *const arms[] = {"mixup", "label_smoothing", "dropout", "input_noise", "elr"};
    bl_plan plan = digits(1);
    plan.learning_rate = 1e-60;
    bl_job_data *data = open_plan(&plan);
    uint64_t start = run_weights(&plan, data, "baseline", 0);
    for (size_t i = 0; i < sizeof arms / sizeof *arms; i++)
        assert_true(run_weights(&plan, data, arms[i], 0) == start);
    assert_true(run_weights(&plan, data, "null", 0) != start);
    assert_true(run_weights(&plan, data, "baseline", 1) != start);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

/* Arms that change nothing, though they draw or add: equal weights after three epochs mean that
 * examples came in the same order. */
static void arms_share_the_order_of_the_batches(void **state)
{
    (void)state;
    static const char *const arms[] = {"label_smoothing(eps=0)", "input_noise(std=0)",
                                       "elr(lambda=0)"};
    bl_plan plan = digits(3);
    plan.label_noise = strdup("0.2");
    bl_job_data *data = open_plan(&plan);
    uint64_t trained = run_weights(&plan, data, "baseline", 2);
    for (size_t i = 0; i < sizeof arms / sizeof *arms; i++)
        if (run_weights(&plan, data, arms[i], 2) != trained)
            fail_msg("%s trains on other batches", arms[i]);
    assert_true(run_weights(&plan, data, "null", 2) != trained);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

/* A linear model has one optimum, whatever it starts from; it is that of its examples and labels.
 */
static void null_shares_split_and_label_noise(void **state)
{
    (void)state;
    bl_plan plan = digits(300);
    plan.model = strdup("linear");
    plan.optimizer = strdup("sgd");
    plan.batch = 200;
    plan.train_count = 200;
    plan.label_noise = strdup("0.4");
    plan.weight_decay = 0.1;
    bl_job_data *data = open_plan(&plan);
    char *baseline = run_text(&plan, data, "baseline", 0), *null = run_text(&plan, data, "null", 0),
         *other = run_text(&plan, data, "baseline", 1);
    double nll = number(baseline, "metrics", "nll"),
           spread = fabs(number(other, "metrics", "nll") - nll);
    assert_string_not_equal(baseline, null);
    assert_true(spread > 1e-3);
    assert_true(fabs(number(null, "metrics", "nll") - nll) < 0.05 * spread);
    free(baseline);
    free(null);
    free(other);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

/* --- going on --------------------------------------------------------------------------------- */
typedef struct interruption {
    int64_t at; /* step after which the run is to stop */
    int stop;
} interruption;

static void stop_later(void *context, int64_t step, int64_t steps, int64_t epoch, double loss)
{
    (void)steps;
    (void)epoch;
    (void)loss;
    interruption *i = context;
    i->stop = step >= i->at;
}

/* Interrupted again and again, each time a little further on. */
static char *run_in_pieces(const bl_plan *plan, const char *arm, int *pieces)
{
    bl_job_data *data = open_plan(plan);
    char path[] = "/tmp/ballast-job-XXXXXX";
    assert_true(mkdtemp(path) != NULL);
    char *checkpoint = bl_format("%s/run.checkpoint", path);
    bl_job job = {.plan = plan, .arm = arm, .replicate = 1, .checkpoint = checkpoint};
    bl_run_result result;
    interruption i = {.at = 3};
    bl_progress progress = {.report = stop_later, .context = &i, .stop = &i.stop};
    bl_status status;
    for (*pieces = 1; (status = bl_job_run(&job, data, &progress, &result)) == BL_INTERRUPTED;
         (*pieces)++) {
        assert_int_equal(access(checkpoint, F_OK), 0);
        i = (interruption){.at = i.at + 40};
        bl_job_data_close(data); /* another process would read the data again */
        data = open_plan(plan);
    }
    if (status != BL_OK)
        fail_msg("%s: %s", arm, bl_error());
    assert_int_equal(unlink(checkpoint), 0); /* kept until the result is in safety */
    char *text = result_text(&result);
    bl_run_result_free(&result);
    rmdir(path);
    bl_release(checkpoint);
    bl_job_data_close(data);
    return text;
}

static void an_interrupted_run_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const char *const arms[] = {"baseline", "elr", "mixup+ema(decay=0.9)", "early_stopping",
                                       "dropout+input_noise"};
    bl_plan plan = digits(6);
    plan.label_noise = strdup("0.3");
    bl_job_data *data = open_plan(&plan);
    for (size_t i = 0; i < sizeof arms / sizeof *arms; i++) {
        int pieces;
        char *whole = run_text(&plan, data, arms[i], 1);
        char *parts = run_in_pieces(&plan, arms[i], &pieces);
        assert_true(pieces > 2);
        assert_string_equal(whole, parts);
        free(whole);
        free(parts);
    }
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

static void a_run_that_diverges_is_a_result(void **state)
{
    (void)state;
    bl_plan plan = digits(3);
    plan.learning_rate = 1e6;
    bl_job_data *data = open_plan(&plan);
    char *text = run_text(&plan, data, "baseline", 0);
    assert_true(number(text, NULL, "diverged") == 1);
    assert_non_null(strstr(text, "\"accuracy\": null"));
    free(text);
    bl_job_data_close(data);
    bl_plan_free(&plan);
}

/* --- details ---------------------------------------------------------------------------------- */
/* The groups divide the test part, so their weighted mean is the whole metric. */
static void expect_groups(const bl_run_result *result, int groups, int64_t test)
{
    double sum = 0;
    int64_t count = 0;
    assert_int_equal(result->groups, groups);
    for (int g = 0; g < groups; g++) {
        assert_true(result->group[g].count > 0);
        sum += result->group[g].value * (double)result->group[g].count;
        count += result->group[g].count;
    }
    assert_int_equal(count, test);
    assert_true(fabs(sum / (double)test - result->metric[0].value) < 1e-6 * fabs(sum));
}

/* Rows are those of the data set; what was injected is known; most suspects are wrong labels. */
static void suspects_are_rows_with_wrong_labels(void **state)
{
    (void)state;
    bl_plan plan = digits(20);
    plan.label_noise = strdup("0.3");
    bl_job_data *data = open_plan(&plan);
    bl_dataset set;
    assert_int_equal(bl_dataset_open("digits", NULL, &set), BL_OK);
    bl_run_result result;
    run(&plan, data, "elr", 1, &result);
    expect_groups(&result, 10, 359);
    int wrong = 0;
    assert_true(result.doubts && result.suspects > 100);
    for (int i = 0; i < result.suspects; i++) {
        const bl_suspect *s = &result.suspect[i];
        assert_int_equal(bl_i32(&set.target)[s->example], s->truth);
        assert_true(s->given != s->believed && s->doubt > 0);
        assert_true(i == 0 || s->doubt <= s[-1].doubt);
        wrong += s->given != s->truth;
    }
    assert_true(wrong > 0.8 * result.suspects);
    assert_true(wrong > 0.8 * (double)result.wrong_labels);
    bl_run_result_free(&result);
    run(&plan, data, "early_stopping", 1, &result); /* keeps no beliefs */
    assert_true(!result.doubts && result.suspects == 0);
    bl_run_result_free(&result);
    bl_dataset_free(&set);
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

/* A plan of the file, which goes with unlink(plan.data). */
static bl_plan prices(const char *target)
{
    char path[] = "/tmp/ballast-job-XXXXXX.csv";
    write_prices(path);
    bl_plan plan = bl_plan_new();
    plan.data = strdup(path);
    plan.target = strdup(target);
    return plan;
}

static void errors_are_told_by_density_of_labels(void **state)
{
    (void)state;
    bl_plan plan = prices("price");
    plan.epochs = 20;
    bl_job_data *data = open_plan(&plan);
    bl_run_result result;
    run(&plan, data, "baseline", 0, &result);
    expect_groups(&result, 3, 60);
    assert_true(result.group[0].count <= 20); /* ties go to the denser third */
    bl_run_result_free(&result);
    run(&plan, data, "tuning baseline", 0, &result); /* whose details nobody reads */
    assert_int_equal(result.groups, 0);
    bl_run_result_free(&result);
    bl_job_data_close(data);
    unlink(plan.data);
    bl_plan_free(&plan);
}

static void prices_are_predicted_in_their_units(void **state)
{
    (void)state;
    bl_plan plan = prices("price");
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
    bl_job job = {.plan = &plan, .arm = "elr"};
    bl_run_result result;
    assert_int_equal(bl_job_run(&job, data, NULL, &result), BL_INVALID);
    assert_string_equal(bl_error(), "the arm elr is for classification, but this is regression");
    bl_job_data_close(data);
    unlink(plan.data);
    bl_plan_free(&plan);
}

static void a_table_of_classes_takes_labels_but_no_images(void **state)
{
    (void)state;
    bl_plan plan = prices("city");
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
    unlink(plan.data);
    bl_plan_free(&plan);
}

/* Two cities that the price alone tells apart; training labels are all exchanged, and a model that
 * learns them is always wrong on the test part, whose labels are the true ones. */
static void label_noise_spares_the_test_part(void **state)
{
    (void)state;
    char path[] = "/tmp/ballast-job-XXXXXX.csv";
    int file = mkstemps(path, 4);
    assert_true(file >= 0);
    FILE *out = fdopen(file, "w");
    fprintf(out, "price,city\n");
    for (int i = 0; i < 200; i++)
        fprintf(out, "%d,%s\n", i % 2 ? 1000 + i : i, i % 2 ? "Rome" : "Oslo");
    fclose(out);
    bl_plan plan = bl_plan_new();
    plan.data = strdup(path);
    plan.target = strdup("city");
    plan.label_noise = strdup("pairs:1:Rome<->Oslo");
    bl_job_data *data = open_plan(&plan);
    char *text = run_text(&plan, data, "baseline", 0);
    assert_true(number(text, "metrics", "accuracy") == 0);
    assert_true(number(text, "metrics", "memorised") == 100);
    free(text);
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

/* Opens a table of four columns under a plan and expects a sentence. */
static void expect_refused(const char *target, const char *model, const char *noise,
                           const char *task, const char *sentence)
{
    char path[] = "/tmp/ballast-job-XXXXXX.csv";
    int file = mkstemps(path, 4);
    assert_true(file >= 0);
    FILE *out = fdopen(file, "w");
    fprintf(out, "area,city,country,price\n");
    for (int i = 0; i < 40; i++)
        fprintf(out, "%d,%s,Italy,%d\n", i * i, i % 3 ? "Rome" : "Pisa", 7 * i * i + i % 5);
    fclose(out);
    bl_plan plan = bl_plan_new();
    plan.data = strdup(path);
    plan.target = strdup(target);
    plan.model = model ? strdup(model) : NULL;
    plan.label_noise = noise ? strdup(noise) : NULL;
    plan.task = task ? strdup(task) : NULL;
    bl_job_data *data;
    bl_status status = bl_job_data_open(&plan, &data);
    unlink(path);
    bl_plan_free(&plan);
    assert_true(status == BL_INVALID || status == BL_NOT_FOUND);
    assert_null(data);
    if (!strstr(bl_error(), sentence))
        fail_msg("\"%s\" lacks \"%s\"", bl_error(), sentence);
}

static void what_cannot_run_is_refused_at_once(void **state)
{
    (void)state;
    expect_refused("prize", NULL, NULL, NULL, "did you mean \"price\"?");
    expect_refused("price", "mpl", NULL, NULL, "there is no model \"mpl\": did you mean mlp?");
    expect_refused("price", "cnn", NULL, NULL, "the model cnn is for images, but ");
    expect_refused("country", NULL, NULL, NULL, "every example is of the class \"Italy\"");
    expect_refused("price", NULL, "0.4", NULL, "label noise 0.4: the target holds numbers");
    expect_refused("city", NULL, "pairs:0.4:Rome->Piza", NULL,
                   "no class \"Piza\"; did you mean Pisa?");
    expect_refused("city", NULL, "2", NULL, "label noise is \"2\", but must be a rate from 0 to 1");
    expect_refused("city", NULL, NULL, "regression", "\"Pisa\"");
    expect_refused("price", NULL, NULL, "regresion", "did you mean regression?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_survive_as_json),
        cmocka_unit_test(every_field_of_a_plan_survives),
        cmocka_unit_test(a_plan_of_other_kinds_is_refused),
        cmocka_unit_test(digits_are_learned_and_repeat),
        cmocka_unit_test(wrong_labels_are_memorised_and_elr_resists),
        cmocka_unit_test(a_held_out_part_is_taken_from_training),
        cmocka_unit_test(an_arm_without_strength_is_inert),
        cmocka_unit_test(arms_share_the_initial_weights_and_null_does_not),
        cmocka_unit_test(arms_share_the_order_of_the_batches),
        cmocka_unit_test(null_shares_split_and_label_noise),
        cmocka_unit_test(an_interrupted_run_goes_on_to_the_same_bits),
        cmocka_unit_test(a_run_that_diverges_is_a_result),
        cmocka_unit_test(suspects_are_rows_with_wrong_labels),
        cmocka_unit_test(errors_are_told_by_density_of_labels),
        cmocka_unit_test(prices_are_predicted_in_their_units),
        cmocka_unit_test(a_table_of_classes_takes_labels_but_no_images),
        cmocka_unit_test(label_noise_spares_the_test_part),
        cmocka_unit_test(overrides_are_taken_or_refused),
        cmocka_unit_test(what_cannot_run_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
