/* Contract functions: every reference case on every executor, what is rejected and how it is said,
 * and arms. A new method adds its cases to tests/cases/ and nothing here. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "methods/contract.h"

/* --- reference cases -------------------------------------------------------------------------- */

typedef struct tally {
    int passed, failed;
} tally;

static void check_folder(const char *folder, const bl_device *device, tally *t)
{
    struct dirent **entry = NULL;
    int count = scandir(folder, &entry, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *dot = strrchr(entry[i]->d_name, '.');
        if (dot && strcmp(dot, ".safetensors") == 0) {
            char *path = bl_format("%s/%s", folder, entry[i]->d_name);
            bl_check_result result;
            assert_int_equal(bl_check_case(path, device, &result), BL_OK);
            t->passed += result.passed;
            t->failed += !result.passed;
            if (!result.passed)
                print_message("%s: %s\n", path, result.message);
            bl_release(result.message);
            bl_release(path);
        }
        free(entry[i]);
    }
    free(entry);
}

static tally check_all(const bl_device *device)
{
    tally t = {0};
    const char *cases = BALLAST_SOURCE_DIR "/tests/cases";
    struct dirent **entry = NULL;
    int count = scandir(cases, &entry, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *folder = bl_format("%s/%s", cases, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.')
            check_folder(folder, device, &t);
        bl_release(folder);
        free(entry[i]);
    }
    free(entry);
    return t;
}

static void cases_hold_on_the_reference(void **state)
{
    (void)state;
    tally t = check_all(bl_device_reference());
    assert_int_equal(t.failed, 0);
    assert_true(t.passed >= 138);
}

static void cases_hold_on_the_cpu(void **state)
{
    (void)state;
    const bl_device *cpu = bl_device_named("cpu");
    if (!cpu)
        skip();
    tally t = check_all(cpu);
    assert_int_equal(t.failed, 0);
    assert_true(t.passed >= 138);
}

/* --- what is rejected, and how it is said ------------------------------------------------------
 */

/* Adds an array whose elements are `value`, the last one excepted, which is `last`. */
static void give(bl_dictionary *d, const char *name, bl_dtype dtype, bl_shape shape, double value,
                 double last)
{
    bl_array a;
    assert_int_equal(bl_array_new(dtype, shape, &a), BL_OK);
    int64_t count = bl_array_count(&a);
    for (int64_t i = 0; i < count; i++)
        bl_array_set(&a, i, i == count - 1 ? last : value);
    assert_int_equal(bl_dictionary_set(d, name, a), BL_OK);
}

/* Calls the function, frees the inputs, and expects the words in the message. */
static void refuses(const char *function, const char *options, bl_dictionary *in, const char *words)
{
    const bl_contract *contract;
    bl_dictionary out = {0};
    assert_int_equal(bl_function_find(function, &contract), BL_OK);
    bl_status status =
        bl_function_call(contract, bl_device_reference(), in, options, &out, NULL, NULL, NULL);
    if (status != BL_INVALID || !strstr(bl_error(), words))
        fail_msg("status %d, \"%s\"; expected \"%s\"", status, bl_error(), words);
    bl_dictionary_free(&out);
    bl_dictionary_free(in);
}

static bl_dictionary logits_and_labels(double last_label)
{
    bl_dictionary in = {0};
    give(&in, "logits", BL_F32, BL_SHAPE(4, 3), 0, 1);
    give(&in, "labels", BL_I32, BL_SHAPE(4), 2, last_label);
    return in;
}

static void inputs_are_checked(void **state)
{
    (void)state;
    const char *f = "base_label_smoothing_loss";
    bl_dictionary in = logits_and_labels(3);
    refuses(f, NULL, &in,
            "base_label_smoothing_loss: labels[3] is 3, expected 0 <= . < C (C is 3)");
    in = logits_and_labels(-1);
    refuses(f, NULL, &in, "labels[3] is -1");
    in = logits_and_labels(0);
    give(&in, "labels", BL_I32, BL_SHAPE(5), 0, 0);
    refuses(f, NULL, &in, "base_label_smoothing_loss: labels must be i32[4], not i32[5]");
    in = logits_and_labels(0);
    give(&in, "labels", BL_F32, BL_SHAPE(4), 0, 0);
    refuses(f, NULL, &in, "labels must be i32[4], not f32[4]");
    in = logits_and_labels(0);
    give(&in, "label", BL_I32, BL_SHAPE(4), 0, 0);
    refuses(f, NULL, &in, "no input is called label; did you mean labels?");
    in = (bl_dictionary){0};
    give(&in, "labels", BL_I32, BL_SHAPE(4), 0, 0);
    refuses(f, NULL, &in, "input logits is missing (f32[B,C]: raw model outputs)");
    in = (bl_dictionary){0};
    give(&in, "logits", BL_F32, BL_SHAPE(0, 3), 0, 0);
    give(&in, "labels", BL_I32, BL_SHAPE(0), 0, 0);
    refuses(f, NULL, &in, "logits has no rows, expected at least one");
}

static void options_are_checked(void **state)
{
    (void)state;
    static const char *const bad[][3] = {
        {"base_label_smoothing_loss", "{\"eps\": 1.5}", "option eps is 1.5, expected [0,1]"},
        {"base_label_smoothing_loss", "{\"epz\": 0}", "no option is called epz; did you mean eps?"},
        {"base_label_smoothing_loss", "{\"eps\": true}", "option eps is true, expected a number"},
        {"base_label_smoothing_loss", "{\"eps\": \"x\"}", "option eps is \"x\", expected a number"},
        {"base_label_smoothing_loss", "[0.1]", "options are not a JSON object"},
        {"base_confidence_penalty_loss", "{\"beta\": -1}", "option beta is -1, expected [0,inf)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bl_dictionary in = logits_and_labels(0);
        refuses(bad[i][0], bad[i][1], &in, bad[i][2]);
    }
    static const char *const on_matrix[][3] = {
        {"base_dropout", "{\"p\": 1}", "option p is 1, expected [0,1)"},
        {"base_elastic_net", "{\"lam1\": -0.1}", "option lam1 is -0.1, expected [0,inf)"},
        {"base_prox_elastic", "{\"lam1\": 1, \"lam2\": 0}", "option lr is required"},
        {"base_group_lasso", "{\"size_weighted\": 2}", "option size_weighted is 2, expected flag"},
        {"base_group_lasso", "{\"lam\": -1}", "option lam is -1, expected [0,inf)"},
        {"base_orthogonality_penalty", "{\"side\": \"left\"}",
         "option side is \"left\", expected one of rows|cols|auto"},
        {"base_orthogonality_penalty", "{\"side\": 1}", "option side is 1, expected rows|cols"},
        {"base_clip_grad_value", "{\"limit\": -1}", "option limit is -1, expected [0,inf)"},
    };
    for (size_t i = 0; i < sizeof on_matrix / sizeof *on_matrix; i++) {
        bl_dictionary in = {0};
        const char *f = on_matrix[i][0];
        const char *name = strcmp(f, "base_dropout") == 0           ? "x"
                           : strcmp(f, "base_clip_grad_value") == 0 ? "g"
                                                                    : "w";
        give(&in, name, BL_F32, BL_SHAPE(2, 3), 1, 1);
        if (strcmp(f, "base_dropout") == 0)
            give(&in, "u", BL_F32, BL_SHAPE(2, 3), 0, 0);
        refuses(f, on_matrix[i][1], &in, on_matrix[i][2]);
    }
    bl_dictionary in = {0};
    give(&in, "w", BL_F32, BL_SHAPE(2, 3), 1, 1);
    give(&in, "u", BL_F32, BL_SHAPE(2), 1, 1);
    refuses("base_spectral_penalty", "{\"n_iter\": 1.5}", &in,
            "option n_iter is 1.5, expected a whole number");
    give(&in, "w", BL_F32, BL_SHAPE(2, 3), 1, 1);
    give(&in, "u", BL_F32, BL_SHAPE(2), 1, 1);
    refuses("base_spectral_penalty", "{\"n_iter\": 0}", &in, "option n_iter is 0, expected >= 1");
    for (int i = 0; i < 3; i++)
        give(&in,
             i == 0   ? "best"
             : i == 1 ? "value"
                      : "bad",
             i == 2 ? BL_I32 : BL_F32, BL_SCALAR, 0, 0);
    refuses("base_early_stop_update", "{\"patience\": 0}", &in,
            "option patience is 0, expected >= 1");
}

static bl_dictionary mixup_inputs(double last_partner, double lam)
{
    bl_dictionary in = {0};
    give(&in, "x", BL_F32, BL_SHAPE(2, 3), 1, 1);
    give(&in, "target", BL_F32, BL_SHAPE(2, 2), 0.5, 0.5);
    give(&in, "perm", BL_I32, BL_SHAPE(2), 0, last_partner);
    give(&in, "lam", BL_F32, BL_SCALAR, lam, lam);
    return in;
}

static void sums_and_rows_are_checked(void **state)
{
    (void)state;
    bl_array x;
    assert_int_equal(bl_array_new(BL_F32, BL_SHAPE(2, 2), &x), BL_OK);
    const struct {
        float value[4];
        const char *condition, *message; /* NULL: fine */
    } row[] = {
        {{0.5F, 0.25F, 0.125F, 0.125F}, "sums to 1 within 1e-6", NULL},
        {{0.5F, 0.25F, 0.125F, 0}, "sums to 1 within 0.1", "sums to 0.875, expected 1 within 0.1"},
        {{NAN, 0, 0, 0}, "sums to 1 within 0.1", "sums to nan"},
        {{0.5F, 0.5F, 0.75F, 0.25F}, ">= 0, rows sum to 1 within 1e-6", NULL},
        {{0.5F, 0.5F, 0.75F, 0.5F}, "rows sum to 1 within 1e-6", "sums to 1.25 in row 1"},
        {{0, 0, 0, -1}, "not all 0", NULL},
        {{0, -0.0F, 0, 0}, "not all 0", "is all 0, expected an element that is not"},
        {{0, 1, 1, 0}, "no zero row", NULL},
        {{0, 1, 0, 0}, "finite, no zero row", "is all 0 in row 1, expected rows that are not"},
        {{0, 1, 0, 0}, "no zero rows", "has the condition \"no zero rows\", which is not one"},
    };
    const bl_symbols none = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        memcpy(x.data, row[i].value, sizeof row[i].value);
        bl_status status = bl_conditions_check(row[i].condition, &none, &x);
        if ((status == BL_OK) != !row[i].message ||
            (row[i].message && !strstr(bl_error(), row[i].message)))
            fail_msg("row %d: %s", (int)i, status == BL_OK ? "was accepted" : bl_error());
    }
    bl_array_free(&x);
    for (int rank = 0; rank < 3; rank += 2) { /* nothing sums to 0; there is no row in it */
        assert_int_equal(bl_array_new(BL_F32, rank ? BL_SHAPE(2, 0) : BL_SHAPE(0), &x), BL_OK);
        assert_int_equal(bl_conditions_check("sums to 1 within 0.5", &none, &x), BL_INVALID);
        assert_int_equal(bl_conditions_check("not all 0", &none, &x), BL_INVALID);
        bl_array_free(&x);
    }
}

static void values_are_checked(void **state)
{
    (void)state;
    bl_dictionary in = mixup_inputs(0, 0.5);
    refuses("base_mixup", NULL, &in, "base_mixup: perm is not a permutation of 0..1: it lacks 1");
    in = mixup_inputs(1, 1.5);
    refuses("base_mixup", NULL, &in, "base_mixup: lam is 1.5, expected 0 <= . <= 1");
    in = mixup_inputs(1, NAN);
    refuses("base_mixup", NULL, &in, "base_mixup: lam is nan");
    in = mixup_inputs(1, 0.5);
    give(&in, "lam", BL_F32, BL_SHAPE(3), 0, 0);
    refuses("base_mixup", NULL, &in, "lam must be f32[] or f32[2], not f32[3]");
    in = (bl_dictionary){0};
    give(&in, "x", BL_F32, BL_SHAPE(2, 3), 1, 1);
    give(&in, "u", BL_F32, BL_SHAPE(2, 3), 0.5, 1);
    refuses("base_dropout", NULL, &in, "u[1,2] is 1, expected 0 <= . < 1");
    give(&in, "x", BL_F32, BL_SHAPE(2, 3), 1, 1);
    give(&in, "u", BL_F32, BL_SHAPE(3, 2), 0, 0);
    refuses("base_dropout", NULL, &in, "u must be f32[2,3], not f32[3,2]");
    give(&in, "x", BL_F32, BL_SHAPE(1, 4, 5, 1), 1, 1);
    give(&in, "cy", BL_I32, BL_SHAPE(1), 4, 4);
    give(&in, "cx", BL_I32, BL_SHAPE(1), 4, 4);
    refuses("base_cutout", NULL, &in, "cy[0] is 4, expected 0 <= . < H");
}

static void lists_are_paired(void **state)
{
    (void)state;
    bl_dictionary in = {0};
    give(&in, "w0", BL_F32, BL_SHAPE(2), 1, 1);
    give(&in, "w1", BL_F32, BL_SHAPE(3), 1, 1);
    give(&in, "g0", BL_F32, BL_SHAPE(2), 1, 1);
    refuses("base_sam_perturb", NULL, &in, "g has 1 tensors, expected 2");
    give(&in, "w0", BL_F32, BL_SHAPE(2), 1, 1);
    give(&in, "g0", BL_F32, BL_SHAPE(3), 1, 1);
    refuses("base_sam_perturb", NULL, &in, "g0 must be f32[2], not f32[3]");
    give(&in, "w0", BL_F32, BL_SHAPE(2), 1, 1);
    refuses("base_sam_perturb", NULL, &in, "input g0 is missing");
}

static void gradients_need_a_scalar_or_cotangents(void **state)
{
    (void)state;
    const bl_contract *f;
    assert_int_equal(bl_function_find("base_dropout", &f), BL_OK);
    bl_dictionary in = {0}, out = {0}, gradient = {0}, cotangent = {0};
    give(&in, "x", BL_F32, BL_SHAPE(4), 2, 2);
    give(&in, "u", BL_F32, BL_SHAPE(4), 0.9, 0);
    const bl_device *device = bl_device_reference();
    assert_int_equal(bl_function_call(f, device, &in, NULL, &out, "y", NULL, &gradient),
                     BL_INVALID);
    assert_non_null(strstr(bl_error(), "base_dropout: y is f32[4], expected a scalar"));
    give(&cotangent, "y", BL_F32, BL_SHAPE(4), 3, 5);
    assert_int_equal(bl_function_call(f, device, &in, NULL, &out, NULL, &cotangent, &gradient),
                     BL_OK);
    const bl_array *dx = bl_dictionary_find(&gradient, "x");
    assert_true(bl_array_get(dx, 0) == 6 && bl_array_get(dx, 3) == 0);
    bl_dictionary_free(&cotangent);
    give(&cotangent, "z", BL_F32, BL_SHAPE(4), 3, 5);
    assert_int_equal(bl_function_call(f, device, &in, NULL, &out, NULL, &cotangent, &gradient),
                     BL_INVALID);
    assert_non_null(strstr(bl_error(), "no output is called z"));
    bl_dictionary_free(&in);
    bl_dictionary_free(&out);
    bl_dictionary_free(&gradient);
    bl_dictionary_free(&cotangent);
}

/* One output, or with `wrt` one gradient, of a call that succeeds. */
static bl_array result_of(const char *function, const char *options, bl_dictionary *in,
                          const char *name, const char *wrt)
{
    const bl_contract *f;
    bl_dictionary out = {0}, gradient = {0};
    bl_array copy;
    assert_int_equal(bl_function_find(function, &f), BL_OK);
    if (bl_function_call(f, bl_device_cpu(), in, options, &out, wrt, NULL,
                         wrt ? &gradient : NULL) != BL_OK)
        fail_msg("%s", bl_error());
    assert_int_equal(bl_array_copy(bl_dictionary_find(wrt ? &gradient : &out, name), &copy), BL_OK);
    bl_dictionary_free(&out);
    bl_dictionary_free(&gradient);
    bl_dictionary_free(in);
    return copy;
}

static void all_zero_groups_stay_where_they_are(void **state)
{
    (void)state;
    bl_dictionary in = {0};
    give(&in, "w", BL_F32, BL_SHAPE(2, 3), 0, 2); /* [0,0,0], [0,0,2] */
    bl_array a = result_of("base_group_lasso", "{\"lam\": 1, \"size_weighted\": false}", &in, "w",
                           "penalty");
    for (int i = 0; i < 6; i++)
        assert_true(bl_array_get(&a, i) == (i == 5));
    bl_array_free(&a);
    give(&in, "w", BL_F32, BL_SHAPE(2, 3), 0, 2);
    a = result_of("base_prox_group", "{\"lr\": 1, \"lam\": 1, \"size_weighted\": false}", &in,
                  "w_new", NULL);
    for (int i = 0; i < 6; i++)
        assert_true(bl_array_get(&a, i) == (i == 5));
    bl_array_free(&a);
}

static void a_value_that_is_no_number_is_no_improvement(void **state)
{
    (void)state;
    static const double values[][3] = {{NAN, 0, 2}, {-INFINITY, 1, 0}, {INFINITY, 0, 2}};
    for (int i = 0; i < 3; i++) {
        for (int output = 0; output < 2; output++) {
            bl_dictionary in = {0};
            give(&in, "best", BL_F32, BL_SCALAR, INFINITY, INFINITY);
            give(&in, "bad", BL_I32, BL_SCALAR, 1, 1);
            give(&in, "value", BL_F32, BL_SCALAR, values[i][0], values[i][0]);
            bl_array a = result_of("base_early_stop_update", NULL, &in,
                                   output ? "bad_new" : "improved", NULL);
            assert_true(bl_array_get(&a, 0) == values[i][1 + output]);
            bl_array_free(&a);
        }
    }
}

/* Confident logits: finite values and gradients. */
static void losses_are_finite_at_large_logits(void **state)
{
    (void)state;
    static const char *const losses[] = {"base_label_smoothing_loss",
                                         "base_confidence_penalty_loss"};
    for (int i = 0; i < 4; i++) {
        bl_dictionary in = {0};
        give(&in, "logits", BL_F32, BL_SHAPE(2, 3), -80, 80);
        give(&in, "labels", BL_I32, BL_SHAPE(2), 0, i % 2 ? 0 : 2);
        bl_array a = result_of(losses[i / 2], NULL, &in, "logits", "loss");
        for (int j = 0; j < 6; j++)
            assert_true(isfinite(bl_array_get(&a, j)));
        bl_array_free(&a);
    }
}

/* A call that runs out of memory, wherever that is, says so and leaks nothing. */
static void memory_may_end_anywhere(void **state)
{
    (void)state;
    const char *path =
        BALLAST_SOURCE_DIR "/tests/cases/00-baselines/base_sam_perturb-1.safetensors";
    bl_check_result result;
    int64_t n = 1;
    for (;; n++) {
        bl_fail_allocation(n);
        bl_status status = bl_check_case(path, bl_device_reference(), &result);
        bl_fail_allocation(0);
        bl_release(result.message);
        if (status == BL_OK && result.passed)
            break;
        if (status != BL_NO_MEMORY)
            fail_msg("allocation %d failed, and the check says %d, \"%s\"", (int)n, status,
                     bl_error());
    }
    assert_true(n > 50);
}

/* --- cases that must fail ----------------------------------------------------------------------
 */

typedef struct change {
    const char *metadata, *value; /* of the metadata, or */
    const char *array;            /* an array whose first element gets 0.25 added */
    const char *words;
} change;

static void wrong_cases_fail_with_a_reason(void **state)
{
    (void)state;
    const char *from =
        BALLAST_SOURCE_DIR "/tests/cases/00-baselines/base_label_smoothing_loss-1.safetensors";
    const char *to = BALLAST_BINARY_DIR "/wrong_case.safetensors";
    static const change changes[] = {
        {"function", "elr_los", NULL, "no function is called elr_los"},
        {"rtol", "much", NULL, "the metadata give rtol as much"},
        {"options", "{\"eps\": 7}", NULL, "option eps is 7"},
        {"wrt", "lost", NULL, "no output is called lost; did you mean loss?"},
        {NULL, NULL, "out.loss", "out.loss[0]: "},
        {NULL, NULL, "grad.logits", "grad.logits[0]: "},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const change *c = &changes[i];
        bl_dictionary file = {0};
        assert_int_equal(bl_safetensors_read(from, &file), BL_OK);
        if (c->metadata)
            assert_int_equal(bl_dictionary_set_note(&file, c->metadata, c->value), BL_OK);
        bl_array *a = c->array ? bl_dictionary_find(&file, c->array) : NULL;
        if (a)
            bl_array_set(a, 0, bl_array_get(a, 0) + 0.25);
        assert_int_equal(bl_safetensors_write(to, &file), BL_OK);
        bl_dictionary_free(&file);
        bl_check_result result;
        assert_int_equal(bl_check_case(to, bl_device_reference(), &result), BL_OK);
        assert_false(result.passed);
        if (!strstr(result.message, c->words))
            fail_msg("\"%s\"; expected \"%s\"", result.message, c->words);
        bl_release(result.message);
    }
    remove(to);
}

/* --- arms ---------------------------------------------------------------------------------------
 */

static void arms_have_a_canonical_text(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"baseline", "baseline"},
        {" null ", "null"},
        {"mixup", "mixup"},
        {"mixup()", "mixup"},
        {"mixup(alpha=0.20)", "mixup"},
        {"mixup( alpha = 1e0 )", "mixup(alpha=1)"},
        {"elastic_net(lam2=0,lam1=0.5)", "elastic_net(lam1=0.5,lam2=0)"},
        {"sam(adaptive=yes,rho=1)", "sam(rho=1,adaptive=true)"},
        {"gradient_penalty(kind=wgan) + ema(decay=.99)",
         "gradient_penalty(kind=wgan)+ema(decay=0.99)"},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        bl_arm arm;
        if (bl_arm_parse(same[i][0], &arm) != BL_OK)
            fail_msg("%s", bl_error());
        assert_string_equal(arm.text, same[i][1]);
        assert_true(arm.null == (strcmp(arm.text, "null") == 0));
        bl_arm_free(&arm);
    }
}

static void arms_carry_their_options(void **state)
{
    (void)state;
    bl_arm arm;
    assert_int_equal(bl_arm_parse("early_stopping(patience=3)+cutmix(probability=1)", &arm), BL_OK);
    assert_int_equal(arm.parts, 2);
    const struct {
        int64_t patience;
        bl_tensor min_delta;
    } *stopping = arm.part[0].options;
    const struct {
        bl_tensor alpha, probability;
    } *cutmix = arm.part[1].options;
    assert_int_equal(stopping->patience, 3);
    assert_true(bl_is_number(cutmix->probability) && cutmix->probability.number == 1);
    assert_true(cutmix->alpha.number == 1);
    unsigned traits = bl_arm_traits(&arm);
    assert_true((traits & BL_VALIDATION) && (traits & BL_SOFTENS_LABELS));
    bl_arm_free(&arm);
}

static void wrong_arms_are_explained(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"mxiup", "arm \"mxiup\": no method is called mxiup; did you mean mixup?"},
        {"mixup(alhpa=1)", "mixup: no option is called alhpa; did you mean alpha?"},
        {"mixup(alpha=0)", "mixup: option alpha is 0, expected (0,inf)"},
        {"mixup(alpha=lots)", "option alpha is \"lots\", expected a number"},
        {"mixup(alpha=1,alpha=2)", "option alpha is given twice"},
        {"mixup(alpha)", "option alpha has no value"},
        {"mixup(alpha=1", "the bracket is not closed"},
        {"mixup)", "no method is called mixup)"},
        {"mixup+", "a method expected"},
        {"", "a method expected"},
        {"mixup+mixup", "mixup appears twice"},
        {"mixup+baseline", "baseline stands alone"},
        {"early_stopping(patience=2.5)", "option patience is 2.5, expected a whole number"},
        {"sam(adaptive=maybe)", "option adaptive is maybe, expected true or false"},
        {"gradient_penalty(kind=l2)", "option kind is \"l2\", expected one of squared|wgan"},
        {"mixup+elr", "elr needs hard labels, but mixup before it makes them soft"},
        {"elr+mixup", "elr needs hard labels, but mixup makes them soft: batches are changed"},
        {"elr+conr", "elr is for classification, but conr for regression"},
        {"optimizers", "optimizers has functions, but no arm"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bl_arm arm;
        bl_status status = bl_arm_parse(wrong[i][0], &arm);
        if (status == BL_OK || !strstr(bl_error(), wrong[i][1]))
            fail_msg("%s: status %d, \"%s\"; expected \"%s\"", wrong[i][0], status, bl_error(),
                     wrong[i][1]);
    }
}

static void every_arm_parses_with_its_defaults(void **state)
{
    (void)state;
    for (int i = 0; i < bl_method_count(); i++) {
        const bl_method *m = bl_method_at(i);
        bl_arm arm;
        if (!m->hooks)
            continue;
        if (bl_arm_parse(m->slug, &arm) != BL_OK)
            fail_msg("%s", bl_error());
        assert_string_equal(arm.text, m->slug);
        bl_arm_free(&arm);
        assert_non_null(m->when);
        assert_non_null(m->example);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_hold_on_the_reference),
        cmocka_unit_test(cases_hold_on_the_cpu),
        cmocka_unit_test(inputs_are_checked),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(sums_and_rows_are_checked),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(lists_are_paired),
        cmocka_unit_test(gradients_need_a_scalar_or_cotangents),
        cmocka_unit_test(all_zero_groups_stay_where_they_are),
        cmocka_unit_test(a_value_that_is_no_number_is_no_improvement),
        cmocka_unit_test(losses_are_finite_at_large_logits),
        cmocka_unit_test(memory_may_end_anywhere),
        cmocka_unit_test(wrong_cases_fail_with_a_reason),
        cmocka_unit_test(arms_have_a_canonical_text),
        cmocka_unit_test(arms_carry_their_options),
        cmocka_unit_test(wrong_arms_are_explained),
        cmocka_unit_test(every_arm_parses_with_its_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
