/* The seven methods of test_methods.c inside training runs: that each arm acts, repeats itself bit
 * for bit, exports what it evaluates, and does to a toy problem what its paper promises.
 *
 * The toy problem has three clouds in the plane with some labels wrong, or a line with numbers as
 * targets, or small images; a tenth of the examples is held out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "methods/method.h"
#include "train/train.h"

enum { TRAIN = 300, OTHER = 150, SIDE = 8, PIXELS = SIDE * SIDE };

typedef struct toy_problem {
    bl_training_data data;
    float inputs[3][TRAIN * 2], values[3][TRAIN];
    uint8_t images[3][TRAIN * PIXELS];
    int32_t labels[3][TRAIN], truth[TRAIN];
} toy_problem;

typedef enum toy_kind { CLOUDS, LINE, IMAGES } toy_kind;

/* An image of class k is bright in its k-th third. */
static void draw_image(uint8_t *image, int label, bl_random *r)
{
    for (int i = 0; i < PIXELS; i++) {
        bool bright = i % SIDE * 3 / SIDE == label;
        image[i] = (uint8_t)((bright ? 150 : 20) + (int)bl_random_below(r, 90));
    }
}

static void fill_part(toy_problem *toy, int which, int64_t count, toy_kind kind, double noise,
                      bl_part *part)
{
    bl_random r = bl_random_new(bl_key_from_seed((uint64_t)which + 7));
    for (int i = 0; i < count; i++) {
        int label = i % 3;
        double x = cos(2.1 * label) + 0.35 * bl_random_gauss(&r);
        double y = sin(2.1 * label) + 0.35 * bl_random_gauss(&r);
        toy->inputs[which][2 * i] = (float)x, toy->inputs[which][2 * i + 1] = (float)y;
        toy->values[which][i] = (float)(0.7 * x - 0.4 * y + 0.05 * bl_random_gauss(&r));
        draw_image(toy->images[which] + i * PIXELS, label, &r);
        bool wrong = bl_random_unit(&r) < noise;
        toy->labels[which][i] = wrong ? (label + 1 + (int)bl_random_below(&r, 2)) % 3 : label;
        if (which == 0)
            toy->truth[i] = label;
    }
    *part = (bl_part){.count = count,
                      .inputs = {{BL_F32, BL_SHAPE(count, 2)}, toy->inputs[which]},
                      .targets = {{BL_I32, BL_SHAPE(count)}, toy->labels[which]}};
    if (kind == IMAGES)
        part->inputs = (bl_array){{BL_U8, BL_SHAPE(count, SIDE, SIDE, 1)}, toy->images[which]};
    if (kind == LINE)
        part->targets = (bl_array){{BL_F32, BL_SHAPE(count, 1)}, toy->values[which]};
}

static toy_problem *make_toy(toy_kind kind, double noise)
{
    toy_problem *toy = calloc(1, sizeof *toy);
    assert_non_null(toy);
    toy->data.classes = kind == LINE ? 0 : 3;
    toy->data.target_scale = kind == LINE ? 10 : 1;
    toy->data.mean[0] = 100, toy->data.scale[0] = 0.02;
    fill_part(toy, 0, TRAIN, kind, noise, &toy->data.train);
    fill_part(toy, 1, OTHER, kind, 0, &toy->data.test);
    fill_part(toy, 2, OTHER, kind, 0, &toy->data.validation);
    toy->data.true_labels = noise > 0 ? toy->truth : NULL;
    return toy;
}

static void run(const toy_problem *toy, const char *arm_text, int64_t epochs, bl_run_result *result)
{
    bl_arm arm;
    if (bl_arm_parse(arm_text, &arm) != BL_OK)
        fail_msg("%s", bl_error());
    bl_key key = bl_key_from_seed(3);
    bl_experiment e = {.data = &toy->data, .arm = &arm, .threads = 1};
    e.keys = (bl_run_keys){bl_key_derive(key, 0), bl_key_derive(key, 1), bl_key_derive(key, 2)};
    e.recipe = (bl_recipe){.model = {.name = "mlp", .width = 32, .depth = 2},
                           .learning_rate = 0.1,
                           .momentum = 0.9,
                           .epochs = epochs,
                           .batch = 30};
    e.recipe.model.outputs = toy->data.classes ? toy->data.classes : 1;
    strcpy(e.recipe.optimizer, "sgd");
    strcpy(e.recipe.schedule, "constant");
    strcpy(e.recipe.loss, toy->data.classes ? "cross_entropy" : "squared");
    if (bl_train(&e, NULL, result) != BL_OK)
        fail_msg("%s: %s", arm_text, bl_error());
    bl_arm_free(&arm);
}

static double find(const bl_metric *metric, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(metric[i].name, name) == 0)
            return metric[i].value;
    fail_msg("there is no %s", name);
    return NAN;
}
#define METRIC(result, name)  find((result)->metric, (result)->metrics, name)
#define MEASURE(result, name) find((result)->effect.measure, (result)->effect.measures, name)

static const bl_array *state_of(const bl_run_result *result, const char *name)
{
    const bl_array *array = bl_dictionary_find(&result->state, name);
    if (!array)
        fail_msg("the state has no %s", name);
    return array;
}

/* Predictions from the exported parameters alone score what the run reported. */
static void expect_export(const toy_problem *toy, const bl_run_result *result)
{
    bl_architecture model = {.name = "mlp", .width = 32, .depth = 2, .outputs = toy->data.classes};
    bl_array logits;
    assert_int_equal(
        bl_predict(&model, &result->state, &toy->data.test, &toy->data, bl_device_cpu(), &logits),
        BL_OK);
    int right = 0;
    for (int i = 0; i < OTHER; i++) {
        const float *z = bl_f32(&logits) + 3 * i;
        int best = z[1] > z[0] ? 1 : 0;
        right += (z[2] > z[best] ? 2 : best) == toy->labels[1][i];
    }
    bl_array_free(&logits);
    assert_true(fabs(100.0 * right / OTHER - METRIC(result, "accuracy")) < 1e-9);
}

static void every_arm_acts_and_repeats_itself(void **state)
{
    (void)state;
    static const struct {
        const char *arm;
        toy_kind kind;
    } runs[] = {{"elr", CLOUDS},
                {"ps_kd", CLOUDS},
                {"nested_dropout(sigma=6)", CLOUDS},
                {"decoupled_mixup(lam_pow=0.5)", CLOUDS},
                {"weight_compander", CLOUDS},
                {"weight_compander(fn=tanh,start=direct)", CLOUDS},
                {"weight_compander(learned=true,rate=0.1)", CLOUDS},
                {"elr+weight_compander", CLOUDS},
                {"nested_dropout(sigma=6)+ps_kd", CLOUDS},
                {"conr", LINE},
                {"conr(omega=2,views=1,push=linear)", LINE},
                {"randaugment(translate=2)", IMAGES},
                {"decoupled_mixup(mix=cutmix)", IMAGES},
                {"randaugment(set=tpu16)+elr", IMAGES}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        toy_problem *toy = make_toy(runs[i].kind, 0);
        bl_run_result once, again;
        run(toy, runs[i].arm, 5, &once);
        run(toy, runs[i].arm, 5, &again);
        if (once.diverged || once.effect.inert)
            fail_msg("%s: %s", runs[i].arm, once.diverged ? "diverged" : "did nothing");
        if (runs[i].kind == CLOUDS && METRIC(&once, "accuracy") < 90)
            fail_msg("%s: accuracy %g", runs[i].arm, METRIC(&once, "accuracy"));
        if (runs[i].kind == CLOUDS)
            expect_export(toy, &once);
        assert_int_equal(once.state.count, again.state.count);
        for (size_t k = 0; k < once.state.count; k++)
            assert_memory_equal(once.state.entry[k].array.data, again.state.entry[k].array.data,
                                bl_type_bytes(once.state.entry[k].array.type));
        bl_run_result_free(&once), bl_run_result_free(&again);
        free(toy);
    }
}

static void elr_memorises_less_of_wrong_labels(void **state)
{
    (void)state;
    toy_problem *toy = make_toy(CLOUDS, 0.3);
    bl_run_result plain, elr;
    run(toy, "baseline", 60, &plain);
    run(toy, "elr(lambda=3,beta=0.7)", 60, &elr);
    assert_true(METRIC(&elr, "memorised") < METRIC(&plain, "memorised"));
    assert_true(METRIC(&elr, "accuracy") >= METRIC(&plain, "accuracy"));
    double suspects = MEASURE(&elr, "suspect labels"); /* 30 % are wrong */
    assert_true(suspects > 0.15 && suspects < 0.45);
    bl_run_result_free(&plain), bl_run_result_free(&elr);
    free(toy);
}

/* alpha_t grows linearly to alpha_T: its mean over T epochs is alpha_T (T + 1) / 2T. */
static void ps_kd_trusts_more_from_epoch_to_epoch(void **state)
{
    (void)state;
    toy_problem *toy = make_toy(CLOUDS, 0);
    bl_run_result result;
    run(toy, "ps_kd(alpha_T=0.8)", 4, &result);
    assert_true(fabs(MEASURE(&result, "trust") - 0.8 * 5 / 8) < 1e-6);
    bl_run_result_free(&result);
    free(toy);
}

static void nested_dropout_exports_a_prefix_without_bias(void **state)
{
    (void)state;
    toy_problem *toy = make_toy(CLOUDS, 0.3);
    bl_run_result result;
    run(toy, "nested_dropout(sigma=4,penalty=0.01)", 20, &result);
    const bl_array *weight = state_of(&result, "param/classifier/weight");
    const bl_array *bias = state_of(&result, "param/classifier/bias");
    int kept = 0;
    for (int k = 0; k < 32; k++) {
        bool zero = true;
        for (int c = 0; c < 3; c++)
            zero = zero && bl_f32(weight)[3 * k + c] == 0;
        assert_true(zero || kept == k); /* no row after the first that is zero */
        kept += !zero;
    }
    assert_in_range(kept, 1, 31);
    for (int c = 0; c < 3; c++)
        assert_true(bl_f32(bias)[c] == 0);
    double mean = MEASURE(&result, "features kept"); /* of sigma = 4 */
    assert_true(mean > 1.5 && mean < 4);
    bl_run_result_free(&result);
    free(toy);
}

static void companded_weights_stay_inside_their_bound(void **state)
{
    (void)state;
    toy_problem *toy = make_toy(CLOUDS, 0.3);
    bl_run_result result;
    run(toy, "weight_compander(amp=1)", 40, &result);
    /* a is a standard deviation of the He draws, sqrt(2 / 32): the bound is a pi / 2 */
    const bl_array *weight = state_of(&result, "param/dense2/weight");
    double largest = 0;
    for (int64_t i = 0; i < bl_array_count(weight); i++)
        largest = fmax(largest, fabs(bl_array_get(weight, i)));
    assert_true(largest < 0.25 * 1.5707963 * 1.1);
    bl_run_result_free(&result);
    free(toy);
}

static void learned_companding_moves_its_scales(void **state)
{
    (void)state;
    toy_problem *toy = make_toy(CLOUDS, 0.3);
    bl_run_result fixed, learned;
    run(toy, "weight_compander", 10, &fixed);
    run(toy, "weight_compander(learned=true,rate=0.1)", 10, &learned);
    const bl_array *a = state_of(&fixed, "param/dense1/weight");
    const bl_array *b = state_of(&learned, "param/dense1/weight");
    assert_true(memcmp(a->data, b->data, bl_type_bytes(a->type)) != 0);
    bl_run_result_free(&fixed), bl_run_result_free(&learned);
    free(toy);
}

static void conr_finds_anchors(void **state)
{
    (void)state;
    toy_problem *toy = make_toy(LINE, 0);
    bl_run_result result;
    run(toy, "conr", 3, &result);
    double share = MEASURE(&result, "anchors");
    assert_true(share > 0.01 && share <= 1);
    bl_run_result_free(&result);
    free(toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_arm_acts_and_repeats_itself),
        cmocka_unit_test(elr_memorises_less_of_wrong_labels),
        cmocka_unit_test(ps_kd_trusts_more_from_epoch_to_epoch),
        cmocka_unit_test(nested_dropout_exports_a_prefix_without_bias),
        cmocka_unit_test(companded_weights_stay_inside_their_bound),
        cmocka_unit_test(learned_companding_moves_its_scales),
        cmocka_unit_test(conr_finds_anchors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
