/* Calibration on the digits: alarms as often as alpha says, power that grows with the planted
 * difference, one split where it is fixed. tests/cli/calibrate.sh runs the program. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "data/preparation.h"
#include "study/calibrate.h"

static void binomial_sums_are_known(void **state)
{
    (void)state;
    assert_true(fabs(bl_binomial_cdf(0, 3, 0.5) - 0.125) < 1e-12);
    assert_true(fabs(bl_binomial_cdf(1, 3, 0.5) - 0.5) < 1e-12);
    assert_true(fabs(bl_binomial_cdf(2, 10, 0.05) - 0.98849644) < 1e-8);
    assert_true(fabs(bl_binomial_cdf(10, 10, 0.05) - 1) < 1e-12);
}

static bl_plan small(void)
{
    bl_plan plan = bl_plan_new();
    plan.data = bl_copy_text("digits");
    plan.train_count = 60;
    plan.epochs = 2;
    plan.width = 8;
    plan.study_seed = 1;
    return plan;
}

/* At alpha 0.5 both too many and too few alarms show in 60 studies. */
static void alarms_are_as_many_as_alpha_says(void **state)
{
    (void)state;
    bl_plan plan = small();
    plan.fixed_split = true;
    bl_calibration_options options = {.plan = &plan, .studies = 60, .replicates = 5, .alpha = 0.5};
    bl_calibration c, again;
    assert_int_equal(bl_calibrate(&options, &c), BL_OK);
    assert_int_equal(c.runs, 60 * 5 * 2);
    assert_true(c.low >= 21 && c.low <= 23 && c.high >= 37 && c.high <= 39);
    assert_in_range(c.alarms, 18, 42); /* the central 99.8 % */
    assert_true(c.deviation > 0);
    for (int i = 0; i < BL_PLANTED; i++) {
        assert_true(i == 0 || c.planted[i].power >= c.planted[i - 1].power - 0.05);
        assert_true(fabs(c.planted[i].power - c.planted[i].theory) < 0.25);
    }
    assert_true(c.planted[BL_PLANTED - 1].power > 0.95);
    assert_int_equal(bl_calibrate(&options, &again), BL_OK);
    assert_int_equal(again.alarms, c.alarms);
    assert_true(again.deviation == c.deviation);
    bl_plan_free(&plan);
}

static void tuned_studies_run_their_trials(void **state)
{
    (void)state;
    bl_plan plan = small();
    bl_calibration_options options = {
        .plan = &plan, .studies = 10, .replicates = 4, .trials = 3, .alpha = 0.05};
    bl_calibration c;
    assert_int_equal(bl_calibrate(&options, &c), BL_OK);
    assert_int_equal(c.runs, 10 * (4 * 2 + 3 * 2));
    assert_true(c.alarms <= 4); /* re-splits are on the safe side */
    bl_plan_free(&plan);
}

/* A rate at which every run overflows. */
static void divergence_is_refused(void **state)
{
    (void)state;
    bl_plan plan = small();
    plan.learning_rate = 1e6;
    bl_calibration_options options = {.plan = &plan, .studies = 10, .replicates = 4, .alpha = 0.05};
    bl_calibration c;
    assert_int_equal(bl_calibrate(&options, &c), BL_INVALID);
    assert_non_null(strstr(bl_error(), "diverged"));
    options.studies = 0;
    assert_int_equal(bl_calibrate(&options, &c), BL_INVALID);
    bl_plan_free(&plan);
}

/* With one split for all, a trial trains and is scored on what the comparison trains on. */
static void a_fixed_split_is_one_split(void **state)
{
    (void)state;
    bl_plan plan = small();
    for (int fixed = 0; fixed < 2; fixed++) {
        plan.fixed_split = fixed;
        bl_job_data *data;
        assert_int_equal(bl_job_data_open(&plan, &data), BL_OK);
        assert_int_equal(bl_job_resplits(data), !fixed);
        /* the preparation follows from the training rows alone */
        char *first = NULL;
        for (int r = 0; r < 3; r++) {
            bl_job job = {.plan = &plan, .arm = "baseline", .replicate = r};
            bl_preparation *preparation;
            assert_int_equal(bl_job_preparation(&job, data, &preparation), BL_OK);
            float black[64];
            uint8_t image[64] = {0};
            assert_int_equal(bl_preparation_pixels(preparation, image, 1, black), BL_OK);
            char *seen = bl_format("%.9g", (double)black[20]);
            if (first)
                assert_true((strcmp(first, seen) == 0) == fixed);
            else
                first = bl_copy_text(seen);
            bl_release(seen);
            bl_preparation_free(preparation);
        }
        bl_release(first);
        bl_job_data_close(data);
    }
    bl_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binomial_sums_are_known),
        cmocka_unit_test(alarms_are_as_many_as_alpha_says),
        cmocka_unit_test(tuned_studies_run_their_trials),
        cmocka_unit_test(divergence_is_refused),
        cmocka_unit_test(a_fixed_split_is_one_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
