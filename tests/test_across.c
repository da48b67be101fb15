/* Verdicts over data sets: the interquartile mean, its interval, and the test with its refusal. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "study/across.h"

static void interquartile_means_are_known(void **state)
{
    (void)state;
    double four[] = {100, 2, 1, -50}, five[] = {5, 1, 2, 3, 4}, one[] = {7},
           infinite[] = {-INFINITY, 1, 2, 3};
    assert_true(fabs(bl_interquartile_mean(four, 4) - 1.5) < 1e-12);
    /* 1.25 cut at each end: 0.75 * 2 + 3 + 0.75 * 4 over 2.5 */
    assert_true(fabs(bl_interquartile_mean(five, 5) - 3) < 1e-12);
    assert_true(bl_interquartile_mean(one, 1) == 7);
    assert_true(bl_interquartile_mean(infinite, 4) == 1.5);
    double skew[] = {0, 0, 1, 10, 100}; /* 0.75 * 0 + 1 + 0.75 * 10 over 2.5 */
    assert_true(fabs(bl_interquartile_mean(skew, 5) - 3.4) < 1e-12);
}

/* In 200 worlds the interval holds the true value (0, by symmetry) about as often as it says. */
static void intervals_cover(void **state)
{
    (void)state;
    enum { WORLDS = 200, STRATA = 4, RUNS = 15 };
    bl_random random = bl_random_new(bl_key_from_seed(4));
    int covered = 0;
    for (int w = 0; w < WORLDS; w++) {
        double x[STRATA * RUNS];
        for (int i = 0; i < STRATA * RUNS; i++)
            x[i] = bl_random_gauss(&random) * (1 + i / RUNS);
        bl_interval interval;
        assert_int_equal(
            bl_iqm_interval(x, STRATA, RUNS, 400, 0.1, bl_key_from_seed((uint64_t)w), &interval),
            BL_OK);
        covered += interval.low <= 0 && interval.high >= 0;
    }
    assert_in_range(covered, 160, 196); /* of 200 at 90 % */
}

/* --- outcomes made of scores --- */
enum { MOST = 8, RUNS = 6 };
static double score[MOST][3][RUNS];
static bl_arm_outcome arm[MOST][3];
static bl_outcome outcome[MOST];
static const bl_outcome *list[MOST];
static bl_plan plan;

/* good gains 2 to 3 % everywhere, odd a little here and loses a little there. */
static void make(int sets)
{
    static const char *const name[] = {"baseline", "good", "odd"};
    bl_random random = bl_random_new(bl_key_from_seed(9));
    plan.study_seed = 1;
    for (int s = 0; s < sets; s++) {
        double size = s % 2 ? 1000 : 1;
        outcome[s] = (bl_outcome){.arms = 3,
                                  .replicates = RUNS,
                                  .arm = arm[s],
                                  .higher_is_better = s % 2 == 0,
                                  .alpha = 0.05,
                                  .plan = &plan};
        for (int a = 0; a < 3; a++) {
            for (int r = 0; r < RUNS; r++) {
                double gain = a == 1   ? 0.02 + 0.01 * bl_random_unit(&random)
                              : a == 2 ? (s % 3 ? 0.01 : -0.01) * (1 + s)
                                       : 0;
                score[s][a][r] = size * (1 + (s % 2 ? -gain : gain));
            }
            arm[s][a] = (bl_arm_outcome){.arm = name[a], .score = score[s][a], .mean = size};
        }
        list[s] = &outcome[s];
    }
}

static void gains_have_one_sign_and_one_unit(void **state)
{
    (void)state;
    make(8);
    bl_across across;
    assert_int_equal(bl_across_new(list, 8, &across), BL_OK);
    assert_int_equal(across.rows, 2);
    const bl_across_row *good = &across.row[0], *odd = &across.row[1];
    assert_string_equal(good->arm, "good");
    assert_int_equal(good->better, 8);
    assert_true(good->iqm > 2.2 && good->iqm < 2.8);
    assert_true(good->interval.low > 2.2 && good->interval.high < 2.8);
    assert_true(fabs(good->p - 2.0 / 256) < 1e-12); /* the floor for 8 */
    assert_true(fabs(good->adjusted_p - 4.0 / 256) < 1e-12);
    assert_int_equal(good->verdict, BL_HELPS);
    assert_int_equal(odd->better, 5);
    assert_int_equal(odd->worse, 3);
    assert_int_equal(odd->verdict, BL_UNDECIDED);
    bl_text text = {0};
    assert_int_equal(bl_across_table(&across, &text), BL_OK);
    assert_non_null(strstr(text.at, "8 of 8"));
    assert_non_null(strstr(text.at, "= helps"));
    bl_text_free(&text);
    bl_across_free(&across);
}

static void too_few_data_sets_are_refused(void **state)
{
    (void)state;
    for (int sets = 2; sets < 7; sets++) { /* two arms: 0.025 is needed, 2^-6 is below it */
        make(sets);
        bl_across across;
        assert_int_equal(bl_across_new(list, sets, &across), BL_OK);
        assert_true(isnan(across.row[0].p) && isnan(across.row[0].adjusted_p));
        assert_int_equal(across.row[0].verdict, BL_UNDECIDED);
        assert_non_null(strstr(across.row[0].note, "compare at least 7"));
        bl_across_free(&across);
    }
    make(7);
    bl_across across;
    assert_int_equal(bl_across_new(list, 7, &across), BL_OK);
    assert_string_equal(across.row[0].note, "");
    assert_int_equal(across.row[0].verdict, BL_HELPS);
    bl_across_free(&across);
}

static void divergence_counts_and_failed_arms_are_left_out(void **state)
{
    (void)state;
    make(8);
    for (int s = 0; s < 8; s++)
        score[s][1][0] = (double)NAN;
    arm[3][2].failed = 1;
    bl_across across;
    assert_int_equal(bl_across_new(list, 8, &across), BL_OK);
    assert_int_equal(across.rows, 1);
    assert_int_equal(across.row[0].worse, 8);
    assert_true(isfinite(across.row[0].iqm)); /* 8 of 48 are within the quarter that is cut off */
    assert_int_equal(across.row[0].verdict, BL_HURTS);
    bl_across_free(&across);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interquartile_means_are_known),
        cmocka_unit_test(intervals_cover),
        cmocka_unit_test(gains_have_one_sign_and_one_unit),
        cmocka_unit_test(too_few_data_sets_are_refused),
        cmocka_unit_test(divergence_counts_and_failed_arms_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
