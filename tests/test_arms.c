/* The classical arms in training: each runs and does what it says. Where an arm has a limit in
 * which it must equal something known (no decay, one epoch, a radius of 0), that is the test. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "methods/method.h"
#include "train/train.h"

enum { TRAIN = 96, TEST = 48, CLASSES = 3, SIDE = 8, BATCH = 16 };

/* --- data: each class is a bright block somewhere else, in noise -------------------------------
 */

static void make_part(bl_random *r, int64_t count, bl_part *part)
{
    part->count = count;
    assert_int_equal(bl_array_new(BL_F32, BL_SHAPE(count, SIDE, SIDE, 1), &part->inputs), BL_OK);
    assert_int_equal(bl_array_new(BL_I32, BL_SHAPE(count), &part->targets), BL_OK);
    for (int64_t i = 0; i < count; i++) {
        int label = (int)(i % CLASSES);
        bl_i32(&part->targets)[i] = label;
        float *image = bl_f32(&part->inputs) + i * SIDE * SIDE;
        for (int p = 0; p < SIDE * SIDE; p++) {
            bool bright = p / SIDE / 3 == label && p % SIDE < 5;
            image[p] = (float)(bl_random_gauss(r) + (bright ? 1.0 : 0.0));
        }
    }
}

static bl_training_data data;

static int make_data(void **state)
{
    (void)state;
    bl_random r = bl_random_new(bl_key_from_seed(1));
    make_part(&r, TRAIN, &data.train);
    make_part(&r, TEST, &data.test);
    make_part(&r, TEST, &data.validation);
    data.classes = CLASSES;
    data.target_scale = 1;
    return 0;
}

static int free_data(void **state)
{
    (void)state;
    bl_part *parts[] = {&data.train, &data.test, &data.validation};
    for (int i = 0; i < 3; i++) {
        bl_array_free(&parts[i]->inputs);
        bl_array_free(&parts[i]->targets);
    }
    return 0;
}

/* --- runs ---------------------------------------------------------------------------------------
 */

static bl_recipe plain_recipe(void)
{
    bl_recipe recipe = {.model = {.name = "mlp", .width = 12, .depth = 2, .outputs = CLASSES},
                        .optimizer = "sgd",
                        .learning_rate = 0.05,
                        .momentum = 0.9,
                        .schedule = "constant",
                        .epochs = 4,
                        .batch = BATCH,
                        .loss = "cross_entropy"};
    return recipe;
}

static bl_run_result run_on(const bl_device *device, const bl_recipe *recipe, const char *text)
{
    bl_arm arm;
    bl_run_result result = {0};
    if (bl_arm_parse(text, &arm) != BL_OK)
        fail_msg("%s", bl_error());
    bl_experiment experiment = {
        .recipe = *recipe,
        .data = &data,
        .arm = &arm,
        .keys = {bl_key_from_seed(2), bl_key_from_seed(3), bl_key_from_seed(4)},
        .device = device,
        .threads = 1};
    if (bl_train(&experiment, NULL, &result) != BL_OK)
        fail_msg("%s: %s", text, bl_error());
    bl_arm_free(&arm);
    assert_false(result.diverged);
    return result;
}

static bl_run_result run(const bl_recipe *recipe, const char *text)
{
    return run_on(bl_device_reference(), recipe, text);
}

static double measured(const bl_run_result *result, const char *name)
{
    for (int i = 0; i < result->effect.measures; i++)
        if (strcmp(result->effect.measure[i].name, name) == 0)
            return result->effect.measure[i].value;
    fail_msg("the run has no measure %s", name);
    return 0;
}

/* Largest difference of two final models. */
static double model_distance(const bl_run_result *a, const bl_run_result *b)
{
    double largest = 0;
    int compared = 0;
    for (size_t i = 0; i < a->state.count; i++) {
        const struct bl_entry *e = &a->state.entry[i];
        const bl_array *other = bl_dictionary_find(&b->state, e->name);
        if (strncmp(e->name, "param/", 6) != 0 || !other)
            continue;
        compared++;
        for (int64_t j = 0; j < bl_array_count(other); j++)
            largest = fmax(largest, fabs(bl_array_get(&e->array, j) - bl_array_get(other, j)));
    }
    assert_true(compared >= 2);
    return largest;
}

/* The arm's model beside the baseline's under another recipe. */
static double distance_to(const bl_recipe *arm_recipe, const char *arm,
                          const bl_recipe *baseline_recipe)
{
    bl_run_result a = run(arm_recipe, arm), b = run(baseline_recipe, "baseline");
    double distance = model_distance(&a, &b);
    bl_run_result_free(&a);
    bl_run_result_free(&b);
    return distance;
}

static double measure_of(const char *arm, const char *name)
{
    bl_recipe recipe = plain_recipe();
    bl_run_result result = run(&recipe, arm);
    double value = measured(&result, name);
    bl_run_result_free(&result);
    return value;
}

/* --- every arm ----------------------------------------------------------------------------------
 */

static bool needs(const bl_method *m, unsigned trait)
{
    return (m->traits & trait) != 0;
}

static void every_classical_arm_acts(void **state)
{
    (void)state;
    int arms = 0;
    for (int i = 0; i < bl_method_count(); i++) {
        const bl_method *m = bl_method_at(i);
        if (!m->hooks || strcmp(m->family, "classical") != 0)
            continue;
        bl_recipe recipe = plain_recipe();
        recipe.epochs = 8; /* so that the last quarter has two */
        if (needs(m, BL_BRANCHES)) {
            recipe.model.name = "resnet20";
            recipe.epochs = 1;
        }
        bl_run_result result = run(&recipe, m->slug);
        bool may_rest = strcmp(m->slug, "early_stopping") == 0; /* where the last epoch is best */
        if (result.effect.inert && !may_rest)
            fail_msg("%s did nothing", m->slug);
        bl_run_result_free(&result);
        arms++;
    }
    assert_true(arms >= 24);
}

/* Values instead of labels: the brightness of the first pixels. */
static void arms_without_labels_also_fit_regression(void **state)
{
    (void)state;
    bl_training_data classification = data;
    bl_part *parts[] = {&data.train, &data.test, &data.validation};
    data.classes = 0;
    for (int p = 0; p < 3; p++) {
        int64_t count = parts[p]->count;
        assert_int_equal(bl_array_new(BL_F32, BL_SHAPE(count, 2), &parts[p]->targets), BL_OK);
        for (int64_t i = 0; i < 2 * count; i++)
            bl_f32(&parts[p]->targets)[i] = bl_f32(&parts[p]->inputs)[i / 2 * SIDE * SIDE + i % 2];
    }
    bl_recipe recipe = plain_recipe();
    recipe.model.outputs = 2;
    recipe.epochs = 8;
    snprintf(recipe.loss, sizeof recipe.loss, "squared");
    for (int i = 0; i < bl_method_count(); i++) {
        const bl_method *m = bl_method_at(i);
        if (!m->hooks || strcmp(m->family, "classical") != 0 ||
            needs(m, BL_CLASSIFICATION | BL_BRANCHES))
            continue;
        bl_run_result result = run(&recipe, m->slug);
        if (result.effect.inert && strcmp(m->slug, "early_stopping") != 0)
            fail_msg("%s did nothing", m->slug);
        bl_run_result_free(&result);
    }
    for (int p = 0; p < 3; p++)
        bl_array_free(&parts[p]->targets);
    data = classification;
}

/* The same arm on both executors, in a network with convolutions and batch normalisation: a few
 * steps, since differences in rounding grow from step to step. */
static void both_executors_train_alike(void **state)
{
    (void)state;
    for (int i = 0; i < bl_method_count(); i++) {
        const bl_method *m = bl_method_at(i);
        if (!m->hooks || strcmp(m->family, "classical") != 0)
            continue;
        bl_recipe recipe = plain_recipe();
        recipe.model.name = needs(m, BL_BRANCHES) ? "resnet20" : "cnn";
        recipe.model.width = 4;
        recipe.learning_rate = 0.01;
        recipe.epochs = 1;
        bl_run_result reference = run(&recipe, m->slug);
        bl_run_result cpu = run_on(bl_device_cpu(), &recipe, m->slug);
        double distance = model_distance(&reference, &cpu);
        if (!(distance < 2e-3))
            fail_msg("%s: the executors differ by %g after %lld steps", m->slug, distance,
                     (long long)cpu.steps);
        bl_run_result_free(&reference);
        bl_run_result_free(&cpu);
    }
}

/* --- limits -------------------------------------------------------------------------------------
 */

static void arms_at_zero_strength_are_the_baseline(void **state)
{
    (void)state;
    static const char *const nothing[] = {"weight_decay(value=0)",
                                          "elastic_net(lam1=0,lam2=0)",
                                          "l1_prox(lam=0)",
                                          "group_lasso(lam=0)",
                                          "group_prox(lam=0)",
                                          "spectral(lam=0)",
                                          "orthogonality(lam=0)",
                                          "jacobian(lam=0)",
                                          "gradient_penalty(lam=0)",
                                          "clip_norm(max_norm=1e9)",
                                          "clip_value(limit=1e9)",
                                          "gradient_noise(eta=0)",
                                          "sam(rho=0)",
                                          "ema(decay=0)",
                                          "dropout(p=0)",
                                          "dropconnect(p=0)",
                                          "input_noise(std=0)",
                                          "label_smoothing(eps=0)",
                                          "confidence_penalty(beta=0)",
                                          "cutmix(probability=0)",
                                          "cutout(length=1)"};
    bl_recipe recipe = plain_recipe();
    bl_run_result baseline = run(&recipe, "baseline");
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        bl_run_result result = run(&recipe, nothing[i]);
        double distance = model_distance(&result, &baseline);
        if (!(distance < 2e-4))
            fail_msg("%s is %g from the baseline", nothing[i], distance);
        bl_run_result_free(&result);
    }
    bl_run_result_free(&baseline);
}

static void weight_decay_is_the_coupled_decay_of_sgd(void **state)
{
    (void)state;
    bl_recipe plain = plain_recipe(), decayed = plain_recipe();
    decayed.weight_decay = 0.05;
    assert_true(distance_to(&plain, "weight_decay(value=0.05)", &decayed) < 1e-4);
    assert_true(distance_to(&plain, "weight_decay(value=0.05)", &plain) > 1e-2);
}

static void averages_over_one_entry_are_the_last_weights(void **state)
{
    (void)state;
    bl_recipe recipe = plain_recipe();
    assert_true(distance_to(&recipe, "swa(start=0.75)", &recipe) < 1e-6); /* one of four epochs */
    assert_true(distance_to(&recipe, "swa(start=0.5)", &recipe) > 1e-4);
}

static void an_average_that_never_moves_is_the_start(void **state)
{
    (void)state;
    bl_recipe recipe = plain_recipe(), untrained = plain_recipe();
    untrained.learning_rate = 1e-30;
    assert_true(distance_to(&recipe, "ema(decay=1)", &untrained) < 1e-7);
}

/* --- what they are for --------------------------------------------------------------------------
 */

static void proximal_maps_make_exact_zeros(void **state)
{
    (void)state;
    assert_true(measure_of("l1_prox(lam=0.001)", "zeros") > 0);
    assert_true(measure_of("l1_prox(lam=100)", "zeros") == 1);
    assert_true(measure_of("elastic_net(lam1=0.001)+l1_prox(lam=0)", "zeros") < 0.01);
    assert_true(measure_of("group_prox(lam=100)", "zero_units") == 1);
    assert_true(measure_of("group_prox(lam=0)", "zero_units") == 0);
}

static void clipping_says_how_often(void **state)
{
    (void)state;
    assert_true(measure_of("clip_norm(max_norm=1e-3)", "clipped") == 1);
    assert_true(measure_of("clip_norm(max_norm=1e9)", "clipped") == 0);
    assert_true(measure_of("clip_value(limit=0)", "clipped") > 0.3);
}

static void penalties_lower_what_they_penalise(void **state)
{
    (void)state;
    static const char *const pairs[][3] = {
        {"jacobian(lam=0)", "jacobian(lam=1)", "jacobian"},
        {"gradient_penalty(lam=0)", "gradient_penalty(lam=1)", "gradient"},
        {"spectral(lam=0)", "spectral(lam=0.5)", "sigma"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        double without = measure_of(pairs[i][0], pairs[i][2]);
        double with = measure_of(pairs[i][1], pairs[i][2]);
        if (!(with < 0.9 * without))
            fail_msg("%s: %g, and %g without", pairs[i][1], with, without);
    }
    assert_true(measure_of("confidence_penalty(beta=1)", "entropy") >
                1.1 * measure_of("confidence_penalty(beta=0)", "entropy"));
}

/* With alpha = 1 the share is uniform: the smaller of lam and 1-lam is 1/4 in the mean. With
 * E[lam^2] = (alpha+1)/(4 alpha+2), large alphas come close to 1/2 and small ones to 0. */
static void mixup_mixes_by_the_share_of_its_alpha(void **state)
{
    (void)state;
    bl_recipe recipe = plain_recipe();
    recipe.epochs = 60; /* 360 draws: the standard error is 0.0076 */
    bl_run_result uniform = run(&recipe, "mixup(alpha=1)");
    assert_true(fabs(measured(&uniform, "mixed") - 0.25) < 0.03);
    assert_true(uniform.effect.examples_changed > 0.5);
    bl_run_result_free(&uniform);
    assert_true(measure_of("mixup(alpha=500)", "mixed") > 0.45);
    assert_true(measure_of("mixup(alpha=0.01)", "mixed") < 0.1);
}

static void cutmix_pastes_less_than_it_draws(void **state)
{
    (void)state;
    bl_recipe recipe = plain_recipe();
    recipe.epochs = 40;
    bl_run_result result = run(&recipe, "cutmix(probability=1)");
    double pasted = measured(&result, "pasted"); /* boxes are cut at the border: less than 1/2 */
    assert_true(pasted > 0.15 && pasted < 0.45);
    bl_run_result_free(&result);
}

static void early_stopping_ends_a_run_that_gets_worse(void **state)
{
    (void)state;
    bl_recipe recipe = plain_recipe();
    recipe.epochs = 60;
    recipe.learning_rate = 0.3;
    bl_run_result result = run(&recipe, "early_stopping(patience=2)");
    assert_true(result.epochs < 60 && result.effect.ended_early);
    bl_run_result_free(&result);
}

static void arms_add_up(void **state)
{
    (void)state;
    static const char *const arms[] = {
        "mixup+label_smoothing+ema(decay=0.9)",
        "dropout+weight_decay+clip_norm+gradient_noise",
        "sam+jacobian+confidence_penalty+swa",
        "cutmix+cutout+input_noise+dropconnect+l1_prox",
        "spectral+orthogonality+group_lasso+group_prox+sam(adaptive=true,rho=1)",
    };
    bl_recipe recipe = plain_recipe();
    recipe.epochs = 2;
    for (size_t i = 0; i < sizeof arms / sizeof *arms; i++) {
        bl_run_result result = run(&recipe, arms[i]);
        assert_false(result.effect.inert);
        bl_run_result_free(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_classical_arm_acts),
        cmocka_unit_test(arms_without_labels_also_fit_regression),
        cmocka_unit_test(both_executors_train_alike),
        cmocka_unit_test(arms_at_zero_strength_are_the_baseline),
        cmocka_unit_test(weight_decay_is_the_coupled_decay_of_sgd),
        cmocka_unit_test(averages_over_one_entry_are_the_last_weights),
        cmocka_unit_test(an_average_that_never_moves_is_the_start),
        cmocka_unit_test(proximal_maps_make_exact_zeros),
        cmocka_unit_test(clipping_says_how_often),
        cmocka_unit_test(penalties_lower_what_they_penalise),
        cmocka_unit_test(mixup_mixes_by_the_share_of_its_alpha),
        cmocka_unit_test(cutmix_pastes_less_than_it_draws),
        cmocka_unit_test(early_stopping_ends_a_run_that_gets_worse),
        cmocka_unit_test(arms_add_up),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}
