/* The statistics of a comparison: known answers, recorded from scipy 1.17 (t, ttest_rel, wilcoxon,
 * permutation_test) and, for the noncentral t, from 30-digit quadrature; answers that can be found
 * by hand; and simulations of studies without any effect, whose false alarms must lie in the
 * binomial band of 5 %. Their seeds are printed.
 *
 * A simulation asserts both sides where a test is exact: one that never rejects is broken too. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "study/stats.h"

#define COUNT_OF(array) ((int)(sizeof(array) / sizeof *(array)))

static void ok(bl_status status)
{
    if (status != BL_OK)
        fail_msg("%s", bl_error());
}

static void expect_error(bl_status got, const char *message)
{
    assert_int_equal(got, BL_INVALID);
    assert_string_equal(bl_error(), message);
}

/* Relative, so that small p values are checked too. */
static void near_by(double got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance * fabs(expected)))
        fail_msg("got %.17g, expected %.17g", got, expected);
}

static void near(double got, double expected)
{
    near_by(got, expected, 1e-10);
}

/* --- distributions */

static void student_t_known_answers(void **state)
{
    (void)state;
    static const double tail[][3] = {
        {0.5, 1, 0.70483276469913347},    {2, 3, 0.13932596855884305},
        {-3.7, 9, 0.0049205621893296395}, {12.7, 1, 0.050024327689344165},
        {25, 9, 1.2589450378990368e-09},  {0.001, 7, 0.99923001724499882},
        {2.5, 4.5, 0.059905686502200545},
    };
    for (int i = 0; i < COUNT_OF(tail); i++)
        near(bl_t_two_sided(tail[i][0], tail[i][1]), tail[i][2]);
    near_by(bl_t_two_sided(1.96, 1e6), 0.049996067585269852, 1e-8);
    static const double quantile[][3] = {
        {0.975, 1, 12.706204736174694},   {0.975, 4, 2.7764451051977934},
        {0.975, 9, 2.2621571627982049},   {0.995, 29, 2.7563859036706049},
        {0.01, 2.5, -5.3531111730308742}, {1e-9, 6, -56.801430640363222},
        {0.51, 3, 0.027211467049117997},
    };
    for (int i = 0; i < COUNT_OF(quantile); i++)
        near(bl_t_quantile(quantile[i][0], quantile[i][1]), quantile[i][2]);
    near_by(bl_t_quantile(0.9, 1e5), 1.2815600314493614, 1e-8);
}

static void normal_known_answers(void **state)
{
    (void)state;
    near(bl_normal_cdf(-8), 6.2209605742717405e-16);
    near(bl_normal_cdf(-1.5), 0.066807201268858071);
    near(bl_normal_cdf(2), 0.97724986805182079);
    near(bl_normal_quantile(1e-12), -7.0344838253011313);
    near(bl_normal_quantile(0.025), -1.9599639845400545);
    near(bl_normal_quantile(0.6), 0.25334710313579972);
    near(bl_normal_quantile(0.999), 3.0902323061678132);
    near(bl_incomplete_beta(0.5, 0.5, 0.3), 0.36901011956554536);
    near(bl_incomplete_beta(2, 3, 0.9), 0.9963);
    near(bl_incomplete_beta(50, 0.5, 0.97), 0.081699333721822642);
    near(bl_incomplete_beta(0.01, 4, 0.2), 0.99679181226734559);
}

static void quantile_undoes_cdf(void **state)
{
    (void)state;
    for (double df = 1; df < 300; df *= 1.7)
        for (double p = 1e-6; p < 1; p += 0.0499)
            near(bl_t_cdf(bl_t_quantile(p, df), df), p);
}

static void noncentral_t_known_answers(void **state)
{
    (void)state;
    static const double answer[][4] = {
        {2.262, 9, 3, 0.23879985868711997},   {-2.262, 9, 3, 1.3599781994331119e-6},
        {2.776, 4, 3.8, 0.19237373643825007}, {1.5, 1, 0.7, 0.62799946860810517},
        {40, 29, 35, 0.80732821023420851},    {2.045, 29, -1, 0.99829234013188432},
        {0.4, 9, 0, 0.65075795416431732},     {2, 200, 2.5, 0.30853264837858447},
    };
    for (int i = 0; i < COUNT_OF(answer); i++)
        near(bl_noncentral_t_cdf(answer[i][0], answer[i][1], answer[i][2]), answer[i][3]);
}

static void arguments_without_meaning(void **state)
{
    (void)state;
    assert_true(isnan(bl_t_quantile(1.5, 3)) && isnan(bl_t_quantile(0.5, 0)));
    assert_true(isnan(bl_t_cdf(1, -1)) && isnan(bl_incomplete_beta(0, 1, 0.5)));
    assert_true(isinf(bl_normal_quantile(1)) && bl_t_two_sided(INFINITY, 3) == 0);
}

/* --- power */

static void detectable_effects_of_the_protocol(void **state)
{
    (void)state;
    static const double seen[][4] = {/* pairs; effect with 1, 5 and 20 arms, two digits */
                                     {5, 1.7, 2.6, 3.8},
                                     {10, 1.0, 1.3, 1.7},
                                     {20, 0.66, 0.84, 0.99},
                                     {30, 0.53, 0.66, 0.77}};
    for (int i = 0; i < COUNT_OF(seen); i++)
        for (int arms = 1, j = 1; j <= 3; arms *= j == 1 ? 5 : 4, j++)
            near_by(bl_detectable_effect((int)seen[i][0], 0, 0.05 / arms, 0.8), seen[i][j], 0.04);
}

static void pairs_needed_is_the_fewest(void **state)
{
    (void)state;
    for (double d = 0.05; d < 3; d *= 1.5) {
        int n = bl_pairs_needed(d, 0, 0.05, 0.8);
        assert_true(bl_power(d, n, 0, 0.05) >= 0.8);
        assert_true(n == 2 || bl_power(d, n - 1, 0, 0.05) < 0.8);
    }
    assert_int_equal(bl_pairs_needed(0.5, 0, 0.05, 0.8), 34); /* as in tables of Cohen's d_z */
    assert_int_equal(bl_pairs_needed(0.2, 0, 0.05, 0.8), 199);
    assert_int_equal(bl_pairs_needed(0.8, 0, 0.05, 0.8), 15);
    assert_int_equal(bl_pairs_needed(0, 0, 0.05, 0.8), -1);
    assert_int_equal(bl_pairs_needed(1, 0.25, 0.05, 0.8), -1); /* re-splits: at most power 0.52 */
    assert_true(bl_pairs_needed(2, 0.25, 0.05, 0.8) > bl_pairs_needed(2, 0, 0.05, 0.8));
}

/* By quadrature over the chi-squared density with scipy. */
static void power_after_pilots_known_answers(void **state)
{
    (void)state;
    near_by(bl_power_after_pilots(1, 5, 10, 0, 0.05), 0.683759027003, 1e-5);
    near_by(bl_power_after_pilots(0.7, 5, 12, 0.25, 0.01), 0.066743054825, 1e-5);
    near_by(bl_power_after_pilots(0.5, 3, 30, 0, 0.05), 0.577535619121, 1e-5);
    near_by(bl_power_after_pilots(0.5, 2000, 30, 0, 0.05), bl_power(0.5, 30, 0, 0.05), 1e-3);
    assert_true(isnan(bl_power_after_pilots(1, 1, 10, 0, 0.05)));
    assert_int_equal(bl_pairs_needed_after_pilots(0.8, 5, 0, 0.05, 0.8), 22); /* known: 15 */
    double seen = bl_detectable_after_pilots(5, 22, 0, 0.05, 0.8);
    assert_true(seen <= 0.8 && seen > 0.77);
}

/* Rows chosen among 4: the others count with p = 1. */
static void verdicts_among_more_than_the_rows(void **state)
{
    (void)state;
    double arm[] = {1.1, 1.3, 0.9, 1.4, 0.8}, baseline[5] = {0};
    bl_comparison row, alone;
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true}, arm, baseline, 5, &row));
    alone = row;
    ok(bl_verdicts(&alone, 1, 0.05));
    ok(bl_verdicts_among(&row, 1, 4, 0.05));
    near_by(row.adjusted_p, 4 * alone.adjusted_p, 1e-12);
    assert_int_equal(bl_verdicts_among(&row, 1, 0, 0.05), BL_INVALID);
}

static void power_agrees_with_simulation(void **state)
{
    (void)state;
    enum { studies = 4000, n = 8 };
    bl_random r = bl_random_new(bl_key_from_seed(5));
    int rejected = 0;
    for (int s = 0; s < studies; s++) {
        double d[n];
        for (int i = 0; i < n; i++)
            d[i] = 0.9 + bl_random_gauss(&r);
        rejected += bl_paired_t(d, n, 0, NULL) <= 0.05;
    }
    double power = bl_power(0.9, n, 0, 0.05);
    assert_true(fabs((double)rejected / studies - power) <
                3.3 * sqrt(power * (1 - power) / studies));
}

/* --- tests on differences */

static const double arm_scores[] = {.912, .905, .921, .899, .930, .908, .915, .926, .903, .917};
static const double base_scores[] = {.901, .907, .910, .894, .915, .909, .902, .911, .905, .904};

static void differences(double d[10])
{
    for (int i = 0; i < 10; i++)
        d[i] = arm_scores[i] - base_scores[i];
}

static void paired_t_known_answer(void **state)
{
    (void)state;
    double d[10], t;
    differences(d);
    near(bl_paired_t(d, 10, 0, &t), 0.0070848459435443427);
    near(t, 3.4667617780338644);
    bl_interval interval = bl_mean_interval(d, 10, 0, 0.05);
    near(interval.low, 0.0027102860249506215);
    near(interval.high, 0.012889713975049392);
}

static void resplit_variance_known_answer(void **state)
{
    (void)state;
    double d[10], t;
    differences(d);
    near(bl_paired_t(d, 10, 0.25, &t), 0.09687770647617025);
    near(t, 1.8530621164237102);
    bl_interval interval = bl_mean_interval(d, 10, 0.25, 0.05);
    near(interval.low, -0.001721982945655039);
    near(interval.high, 0.017321982945655054);
}

static void equivalence_known_answers(void **state)
{
    (void)state;
    double d[10], negated[10];
    differences(d);
    for (int i = 0; i < 10; i++)
        negated[i] = -d[i];
    near(bl_equivalence(d, 10, 0, 0.015), 0.005414888344002276);
    near(bl_equivalence(d, 10, 0, 0.01), 0.17686036342038441);
    near(bl_equivalence(negated, 10, 0, 0.015), 0.005414888344002276);
    assert_true(bl_equivalence(d, 10, 0, 0.005) > 0.5); /* the mean is outside */
}

static void sign_flip_known_answers(void **state)
{
    (void)state;
    double d[10], p;
    differences(d);
    ok(bl_sign_flip(d, 10, (bl_key){{0}}, &p));
    assert_true(p == 18.0 / 1024);
    ok(bl_sign_flip((double[]){1, 2, 3}, 3, (bl_key){{0}}, &p)); /* +++ and --- of 8 */
    assert_true(p == 0.25);
    ok(bl_sign_flip((double[]){0, 0}, 2, (bl_key){{0}}, &p));
    assert_true(p == 1);
    expect_error(bl_sign_flip((double[]){1, INFINITY}, 2, (bl_key){{0}}, &p),
                 "sign-flip: expected finite differences, got 2 with sum inf");
}

/* Fisher, The Design of Experiments, 1935, section 21: Darwin's fifteen pairs of maize plants, in
 * eighths of an inch. 863 of the 32,768 sums are at least the observed 314; t is 2.148. */
static const double maize[] = {49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48};

static void darwins_maize(void **state)
{
    (void)state;
    double p, t;
    ok(bl_sign_flip(maize, 15, (bl_key){{0}}, &p));
    assert_true(p == 2 * 863.0 / 32768);
    near(bl_paired_t(maize, 15, 0, &t), 0.049702944021800866);
    near(t, 2.1479874613311205);
    ok(bl_signed_rank(maize, 15, &p, NULL));
    assert_true(p == 0.041259765625);
    double none[15] = {0};
    bl_comparison row;
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true}, maize, none, 15, &row));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_HELPS);
    assert_string_equal(row.note, "the check by sign-flip, which assumes no normality, does not "
                                  "bear this out: p = 0.0527");
    double few[] = {1.1, 1.3, 0.9, 1.4, 0.8};
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true}, few, none, 5, &row));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_HELPS);
    assert_non_null(strstr(row.note, "cannot be below 0.0625 with 5 pairs"));
}

/* Sampled above 20 pairs: pairs without a difference leave the exact p unchanged. */
static void sampled_sign_flip_is_near_the_exact(void **state)
{
    (void)state;
    double d[24] = {0}, exact, sampled, again;
    differences(d);
    ok(bl_sign_flip(d, 20, (bl_key){{0}}, &exact));
    ok(bl_sign_flip(d, 24, bl_key_from_seed(3), &sampled));
    ok(bl_sign_flip(d, 24, bl_key_from_seed(3), &again));
    assert_true(exact == 18.0 / 1024 && sampled == again);
    assert_true(fabs(sampled - exact) < 4 * sqrt(exact / 65536));
}

static void signed_rank_known_answers(void **state)
{
    (void)state;
    static const double d[] = {1.1, -.4, 2.3, .7, -1.9, 3.1, .2, 1.6, -.05, 2.8, .9};
    static const double tied[] = {1, 1, -1, 2, 2, -3, 3, 3, 0, 0, 4, -2};
    double p;
    int effective;
    ok(bl_signed_rank(d, 11, &p, &effective));
    assert_true(p == 0.0673828125 && effective == 11);
    ok(bl_signed_rank(tied, 12, &p, &effective));
    assert_true(p == 248.0 / 1024 && effective == 10);
    ok(bl_signed_rank((double[]){0, 0, 0}, 3, &p, &effective));
    assert_true(p == 1 && effective == 0);
    ok(bl_signed_rank((double[]){1, 2, INFINITY, INFINITY, 3}, 5, &p, NULL));
    assert_true(p == 0.0625);
    expect_error(bl_signed_rank((double[]){1, NAN}, 2, &p, NULL),
                 "signed-rank: difference 1 is not a number");
}

/* Pairs 1..n of which those with ranks that sum to `sum` are negative. */
static double p_of_rank_sum(int n, int sum)
{
    double d[32], p;
    for (int i = n; i >= 1; i--) {
        d[i - 1] = i <= sum ? -i : i;
        sum -= i <= sum ? i : 0;
    }
    ok(bl_signed_rank(d, n, &p, NULL));
    return p;
}

/* The table of critical values, two-sided 5 %, that statistics books print for n = 6 to 20. */
static void signed_rank_critical_values(void **state)
{
    (void)state;
    static const int critical[] = {0, 2, 3, 5, 8, 10, 13, 17, 21, 25, 29, 34, 40, 46, 52};
    for (int i = 0; i < COUNT_OF(critical); i++) {
        assert_true(p_of_rank_sum(6 + i, critical[i]) <= 0.05);
        assert_true(p_of_rank_sum(6 + i, critical[i] + 1) > 0.05);
    }
}

/* The dynamic programme against all 2^n assignments, on random ties and zeros. */
static void signed_rank_agrees_with_enumeration(void **state)
{
    (void)state;
    bl_random r = bl_random_new(bl_key_from_seed(9));
    for (int trial = 0; trial < 60; trial++) {
        enum { n = 9 };
        double d[n], rank[n], p, observed = 0;
        for (int i = 0; i < n; i++)
            d[i] = (int)bl_random_below(&r, 9) - 4;
        ok(bl_signed_rank(d, n, &p, NULL));
        ok(bl_signed_ranks(d, n, rank));
        for (int i = 0; i < n; i++)
            observed += rank[i];
        int hits = 0;
        for (int signs = 0; signs < 1 << n; signs++) {
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += signs >> i & 1 ? fabs(rank[i]) : -fabs(rank[i]);
            hits += fabs(sum) >= fabs(observed);
        }
        assert_true(p == (double)hits / (1 << n));
    }
}

static double normal_signed_rank(const double *d, int n) /* without ties */
{
    double rank[256], sum = 0;
    ok(bl_signed_ranks(d, n, rank));
    for (int i = 0; i < n; i++)
        sum += rank[i];
    return 2 * bl_normal_cdf(-fabs(sum) / sqrt(n * (n + 1.0) * (2 * n + 1.0) / 6));
}

/* Exact up to 200 pairs, normal above: near each other where they meet. */
static void signed_rank_of_many_pairs_is_nearly_normal(void **state)
{
    (void)state;
    bl_random r = bl_random_new(bl_key_from_seed(4));
    double d[201], p;
    for (int i = 0; i < 201; i++)
        d[i] = 0.35 + bl_random_gauss(&r);
    ok(bl_signed_rank(d, 200, &p, NULL));
    assert_true(p < 0.2);
    near_by(p, normal_signed_rank(d, 200), 0.1); /* far out in the tail */
    ok(bl_signed_rank(d, 201, &p, NULL));
    near(p, normal_signed_rank(d, 201));
}

static void floors_refuse_with_a_sentence(void **state)
{
    (void)state;
    expect_error(bl_test_check(BL_TEST_SIGNED_RANK, 5, 1, 0.05),
                 "signed-rank over 5 pairs cannot give a p below 0.0625, and 0.05 is needed (alpha "
                 "0.05 over 1 arm): run at least 6 replicates");
    ok(bl_test_check(BL_TEST_SIGNED_RANK, 6, 1, 0.05));
    ok(bl_test_check(BL_TEST_PAIRED_T, 2, 60, 0.05));
    static const int needed[][2] = {{5, 8}, {20, 10}, {60, 12}}; /* arms, pairs */
    for (int i = 0; i < COUNT_OF(needed); i++) {
        ok(bl_test_check(BL_TEST_SIGNED_RANK, needed[i][1], needed[i][0], 0.05));
        assert_int_equal(bl_test_check(BL_TEST_SIGN_FLIP, needed[i][1] - 1, needed[i][0], 0.05),
                         BL_INVALID);
    }
    expect_error(bl_test_check(BL_TEST_PAIRED_T, 9, 1, 5),
                 "alpha is 5, expected a number between 0 and 1");
}

static void holm_by_hand(void **state)
{
    (void)state;
    /* sorted .01 .02 .03 .04: times 4 3 2 1 = .04 .06 .06 .04, then never falling */
    double adjusted[4];
    ok(bl_holm((double[]){.03, .01, .04, .02}, 4, adjusted));
    near(adjusted[0], .06), near(adjusted[1], .04), near(adjusted[2], .06), near(adjusted[3], .06);
    double p[] = {0.9, NAN, 0.8};
    ok(bl_holm(p, 3, p));
    assert_true(p[0] == 1 && p[1] == 1 && p[2] == 1);
}

static void wilson_known_answer(void **state)
{
    (void)state;
    bl_interval interval = bl_wilson(0.7, 10, 0.05);
    near(interval.low, 0.39677814746114526);
    near(interval.high, 0.89220873259369904);
    near(bl_wilson(1, 10, 0.05).high, 1);
    assert_true(bl_wilson(0, 10, 0.05).low < 1e-15);
    /* Newcombe, Statistics in Medicine 17, 1998, table I: method 3 */
    static const double printed[][4] = {{81, 263, 0.2553, 0.3662},
                                        {15, 148, 0.0624, 0.1605},
                                        {0, 20, 0, 0.1611},
                                        {1, 29, 0.0061, 0.1718}};
    for (int i = 0; i < COUNT_OF(printed); i++) {
        interval = bl_wilson(printed[i][0] / printed[i][1], printed[i][1], 0.05);
        assert_true(fabs(interval.low - printed[i][2]) <= 5e-5);
        assert_true(fabs(interval.high - printed[i][3]) <= 5e-5);
    }
}

/* --- rows and verdicts */

static void a_row_on_a_fixed_test_set(void **state)
{
    (void)state;
    bl_comparison row;
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true, .min_effect = 0.015}, arm_scores,
                  base_scores, 10, &row));
    assert_int_equal(row.test, BL_TEST_PAIRED_T);
    assert_int_equal(row.direction, 1);
    near(row.arm_mean, 0.9136);
    near(row.difference, 0.0078);
    near_by(row.p, 0.0070848459435443427, 1e-8);
    near_by(row.equivalence_p, 0.005414888344002276, 1e-8);
    near_by(row.d_z, 1.0962863323802099, 1e-8);
    assert_true(row.sign_flip_p == 18.0 / 1024);
    near(row.better, 0.7);
    assert_string_equal(row.note, "");
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_EQUIVALENT); /* significant, and too small to matter */
}

static void lower_is_better_turns_the_verdict(void **state)
{
    (void)state;
    bl_comparison row[2];
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true}, arm_scores, base_scores, 10,
                  &row[0]));
    ok(bl_compare(&(bl_compare_options){0}, arm_scores, base_scores, 10, &row[1]));
    assert_true(row[0].p == row[1].p && row[0].difference == row[1].difference);
    near(row[1].better, 0.3);
    ok(bl_verdicts(row, 2, 0.05));
    assert_string_equal(bl_verdict_name(row[0].verdict), "helps");
    assert_string_equal(bl_verdict_name(row[1].verdict), "hurts");
    near_by(row[0].adjusted_p, 2 * row[0].p, 1e-12);
}

static void resplits_need_more(void **state)
{
    (void)state;
    bl_comparison row;
    bl_compare_options o = {.higher_is_better = true, .train_count = 240, .test_count = 60};
    ok(bl_compare(&o, arm_scores, base_scores, 10, &row));
    assert_int_equal(row.test, BL_TEST_RESPLIT_T);
    near_by(row.p, 0.09687770647617025, 1e-8);
    assert_true(isnan(row.sign_flip_p));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_UNDECIDED);
    assert_int_equal(row.pairs_more, -1); /* d_z 1.1: only more data would help */
}

static void undecided_says_how_many_more(void **state)
{
    (void)state;
    double arm[] = {1.1, -0.3, 0.9, -0.4, 0.8}, baseline[5] = {0};
    bl_comparison row;
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true}, arm, baseline, 5, &row));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_UNDECIDED);
    assert_int_equal(row.pairs_more, bl_pairs_needed(row.d_z, 0, 0.05, 0.8) - 5);
    assert_true(row.pairs_more > 0);
}

static void diverged_runs_rank_last(void **state)
{
    (void)state;
    double arm[10], baseline[10];
    memcpy(arm, arm_scores, sizeof arm);
    memcpy(baseline, base_scores, sizeof baseline);
    arm[0] = NAN, arm[4] = -INFINITY, baseline[4] = NAN, baseline[7] = NAN;
    bl_comparison row;
    bl_compare_options o = {.higher_is_better = true, .min_effect = 1};
    ok(bl_compare(&o, arm, baseline, 10, &row));
    assert_int_equal(row.test, BL_TEST_SIGNED_RANK);
    assert_int_equal(row.arm_diverged, 2);
    assert_int_equal(row.baseline_diverged, 2);
    assert_int_equal(row.finite_pairs, 7);
    near(row.better, 0.55); /* five better, one tie, four worse */
    double gain[] = {-INFINITY, -.002, .011, .005, 0, -.001, .013, INFINITY, -.002, .013}, p;
    ok(bl_signed_rank(gain, 10, &p, NULL));
    assert_true(row.p == p && row.equivalence_p == 1 && isnan(row.sign_flip_p));
    assert_string_equal(row.note, "2 of 10 runs diverged, 2 of the baseline's: ranks decide, means "
                                  "are of the finite runs");
    o.higher_is_better = false; /* diverged is worse whatever the direction of the metric */
    ok(bl_compare(&o, arm, baseline, 10, &row));
    near(row.better, 0.45);
}

static void an_arm_that_always_diverges_hurts(void **state)
{
    (void)state;
    double arm[8], baseline[8];
    for (int i = 0; i < 8; i++)
        arm[i] = NAN, baseline[i] = i;
    bl_comparison row;
    ok(bl_compare(&(bl_compare_options){0}, arm, baseline, 8, &row));
    assert_true(row.p == 1.0 / 128 && row.direction == -1 && isnan(row.arm_mean));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_HURTS);
    ok(bl_compare(&(bl_compare_options){0}, arm, baseline, 5, &row)); /* floor 0.0625 */
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_UNDECIDED);
    assert_int_equal(row.pairs_more, 1);
    assert_non_null(strstr(row.note, "run at least 6 replicates"));
    bl_compare_options resplit = {.train_count = 80, .test_count = 20};
    ok(bl_compare(&resplit, arm, baseline, 8, &row));
    assert_int_equal(row.test, BL_TEST_RESPLIT_RANK);
    near(row.p, exp2(1 - 1 / (1 / 8.0 + 0.25)));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_UNDECIDED); /* overlapping test sets count as 4 at most */
    assert_int_equal(row.pairs_more, -1);
}

/* Two pairs that differ by exactly the same amount would have t = infinity. */
static void equal_differences_are_no_certainty(void **state)
{
    (void)state;
    double arm[] = {0.3, 0.4, 0.9}, baseline[] = {0.2, 0.3, 0.8}; /* equal but for rounding */
    assert_true(arm[0] - baseline[0] != arm[1] - baseline[1]);
    bl_comparison row;
    bl_compare_options o = {.higher_is_better = true};
    ok(bl_compare(&o, arm, baseline, 3, &row));
    assert_int_equal(row.test, BL_TEST_SIGN_FLIP);
    assert_true(row.p == 0.25 && row.sign_flip_p == 0.25);
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_UNDECIDED);
    assert_int_equal(row.pairs_more, 3);
    o.train_count = 80, o.test_count = 20; /* as re-splits: even less of one */
    ok(bl_compare(&o, arm, baseline, 3, &row));
    near(row.p, exp2(1 - 1 / (1 / 3.0 + 0.25)));
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.pairs_more, -1);
    o.train_count = o.test_count = 0;
    o.min_effect = 0.2;
    ok(bl_compare(&o, arm, baseline, 3, &row));
    assert_true(row.equivalence_p == 0.125);
    o.min_effect = 0;
    ok(bl_compare(&o, baseline, baseline, 3, &row));
    assert_true(row.p == 1 && row.better == 0.5 && row.direction == 0);
    ok(bl_verdicts(&row, 1, 0.05));
    assert_int_equal(row.verdict, BL_UNDECIDED);
    assert_int_equal(row.pairs_more, -1);
}

static void a_huge_score_hides_no_other_difference(void **state)
{
    (void)state;
    double arm[] = {1e30, 1.5, 2.5, 3.25}, baseline[] = {1, 1, 2, 3};
    bl_comparison row;
    ok(bl_compare(&(bl_compare_options){.higher_is_better = true}, arm, baseline, 4, &row));
    assert_true(row.better == 1);
}

static void bad_options_are_errors(void **state)
{
    (void)state;
    bl_comparison row;
    double x[] = {1, 2};
    expect_error(bl_compare(&(bl_compare_options){0}, x, x, 1, &row),
                 "comparison: 1 replicates, expected at least 2");
    expect_error(bl_compare(&(bl_compare_options){.alpha = 2}, x, x, 2, &row),
                 "alpha is 2, expected a number between 0 and 1");
    expect_error(bl_compare(&(bl_compare_options){.min_effect = -1}, x, x, 2, &row),
                 "comparison: min_effect is -1, expected 0 or more");
    expect_error(bl_compare(&(bl_compare_options){.test_count = 9}, x, x, 2, &row),
                 "comparison: re-splits with 0 training and 9 test examples: expected both, or "
                 "neither for a fixed test set");
}

static void short_memory_is_a_status(void **state)
{
    (void)state;
    double arm[] = {1, NAN, 3}, baseline[] = {1, 2, 4};
    for (int64_t n = 1;; n++) {
        bl_comparison row;
        bl_fail_allocation(n);
        bl_status status = bl_compare(&(bl_compare_options){0}, arm, baseline, 3, &row);
        if (status == BL_OK)
            status = bl_verdicts(&row, 1, 0.05);
        bl_fail_allocation(0);
        if (status == BL_OK) {
            assert_true(n > 3);
            return;
        }
        assert_int_equal(status, BL_NO_MEMORY);
    }
}

/* --- simulations: no effect, so every rejection is a false alarm */

/* How far a share of `studies` may be from 5 %: 3.3 standard deviations (chance 0.1 %). */
#define BAND(studies) (3.3 * sqrt(0.05 * 0.95 / (studies)))

static void report(const char *what, int seed, int hits, int studies)
{
    print_message("seed %d: %s: %d false alarms in %d studies\n", seed, what, hits, studies);
}

static void false_alarms_on_a_fixed_test_set(void **state)
{
    (void)state;
    enum { studies = 2000, n = 10, seed = 11 };
    bl_random r = bl_random_new(bl_key_from_seed(seed));
    int by_t = 0, by_flip = 0, verdicts = 0;
    for (int s = 0; s < studies; s++) {
        double arm[n], baseline[n];
        for (int i = 0; i < n; i++) {
            double split = bl_random_gauss(&r); /* shared by the pair */
            arm[i] = split + bl_random_gauss(&r);
            baseline[i] = split + bl_random_gauss(&r);
        }
        bl_comparison row;
        ok(bl_compare(&(bl_compare_options){0}, arm, baseline, n, &row));
        ok(bl_verdicts(&row, 1, 0.05));
        by_t += row.p <= 0.05;
        by_flip += row.sign_flip_p <= 0.05;
        verdicts += row.verdict != BL_UNDECIDED;
    }
    report("paired t", seed, by_t, studies);
    report("sign-flip", seed, by_flip, studies);
    assert_true(fabs((double)by_t / studies - 0.05) < BAND(studies));
    assert_true(fabs((double)by_flip / studies - 0.05) < BAND(studies));
    assert_int_equal(verdicts, by_t);
}

static void family_wise_false_alarms(void **state)
{
    (void)state;
    enum { studies = 1000, arms = 5, n = 10, seed = 12 };
    bl_random r = bl_random_new(bl_key_from_seed(seed));
    int corrected = 0, uncorrected = 0;
    for (int s = 0; s < studies; s++) {
        double baseline[n], arm[n];
        bl_comparison row[arms];
        for (int i = 0; i < n; i++)
            baseline[i] = bl_random_gauss(&r);
        for (int a = 0; a < arms; a++) {
            for (int i = 0; i < n; i++)
                arm[i] = bl_random_gauss(&r);
            ok(bl_compare(&(bl_compare_options){0}, arm, baseline, n, &row[a]));
        }
        bool any = false, any_uncorrected = false;
        ok(bl_verdicts(row, arms, 0.05));
        for (int a = 0; a < arms; a++) {
            any |= row[a].verdict != BL_UNDECIDED;
            any_uncorrected |= row[a].p <= 0.05;
        }
        corrected += any;
        uncorrected += any_uncorrected;
    }
    report("Holm over 5 arms", seed, corrected, studies);
    report("5 arms uncorrected", seed, uncorrected, studies);
    assert_true((double)corrected / studies < 0.05 + BAND(studies));
    assert_true(corrected > 0 && uncorrected > 2 * corrected);
}

/* Claims of equivalence where the truth is exactly at the margin. */
static void false_claims_of_equivalence(void **state)
{
    (void)state;
    enum { studies = 2000, n = 10, seed = 13 };
    bl_random r = bl_random_new(bl_key_from_seed(seed));
    int claims = 0;
    for (int s = 0; s < studies; s++) {
        double d[n];
        for (int i = 0; i < n; i++)
            d[i] = 1 + 0.5 * bl_random_gauss(&r);
        claims += bl_equivalence(d, n, 0, 1) <= 0.05;
    }
    report("equivalence at the margin", seed, claims, studies);
    assert_true(fabs((double)claims / studies - 0.05) < BAND(studies));
}

/* --- two equal learners on one file: nearest class mean, one sees the first features, the other
 * as many others of the same distribution. Over files they are equal; on overlapping re-splits of
 * one file their differences are not independent. */
enum { ROWS = 300, TEST_ROWS = 60, FEATURES = 6 };

typedef struct file {
    double x[ROWS][FEATURES];
    int label[ROWS];
} file;

static void draw_file(bl_random *r, file *f)
{
    for (int i = 0; i < ROWS; i++) {
        f->label[i] = i % 2;
        for (int j = 0; j < FEATURES; j++)
            f->x[i][j] = bl_random_gauss(r) + 0.4 * f->label[i];
    }
}

/* Accuracy on the first rows of `order`, trained on the others, by features [from, from + 3). */
static double nearest_mean(const file *f, const int32_t *order, int from)
{
    double mean[2][FEATURES] = {{0}};
    int count[2] = {0}, right = 0;
    for (int i = TEST_ROWS; i < ROWS; i++) {
        int row = order[i], c = f->label[row];
        count[c]++;
        for (int j = from; j < from + FEATURES / 2; j++)
            mean[c][j] += f->x[row][j];
    }
    for (int i = 0; i < TEST_ROWS; i++) {
        double score = 0; /* squared distance to class 0 minus that to class 1 */
        for (int j = from; j < from + FEATURES / 2; j++) {
            double a = f->x[order[i]][j] - mean[0][j] / count[0];
            double b = f->x[order[i]][j] - mean[1][j] / count[1];
            score += a * a - b * b;
        }
        right += (score > 0) == f->label[order[i]];
    }
    return (double)right / TEST_ROWS;
}

/* As if the test sets were independent: paired t, or signed-rank if a run diverged. */
static double plain_p(const double *first, const double *second, int n)
{
    double d[32], p;
    bool diverged = false;
    for (int i = 0; i < n; i++) {
        d[i] = first[i] - second[i];
        if (isnan(d[i])) {
            d[i] = 2.0 * (isnan(second[i]) - isnan(first[i])); /* beyond any accuracy */
            diverged = true;
        }
    }
    if (!diverged)
        return bl_paired_t(d, n, 0, NULL);
    ok(bl_signed_rank(d, n, &p, NULL));
    return p;
}

/* False alarms of a plain and of a corrected comparison, with a share of runs that diverge. */
static void resplit_studies(int n, int studies, int seed, double diverge, int *plain,
                            int *corrected)
{
    bl_random r = bl_random_new(bl_key_from_seed((uint64_t)seed));
    const bl_compare_options honest = {.train_count = ROWS - TEST_ROWS, .test_count = TEST_ROWS};
    *plain = *corrected = 0;
    for (int s = 0; s < studies; s++) {
        file f;
        double first[32], second[32];
        draw_file(&r, &f);
        for (int i = 0; i < n; i++) {
            int32_t order[ROWS];
            bl_random_permutation(&r, order, ROWS);
            first[i] = bl_random_unit(&r) < diverge ? NAN : nearest_mean(&f, order, 0);
            second[i] = bl_random_unit(&r) < diverge ? NAN : nearest_mean(&f, order, 3);
        }
        bl_comparison row;
        *plain += plain_p(first, second, n) <= 0.05;
        ok(bl_compare(&honest, first, second, n, &row));
        *corrected += row.p <= 0.05;
    }
}

static void resplits_fool_a_plain_t(void **state)
{
    (void)state;
    enum { studies = 1000, seed = 14 };
    int plain, corrected;
    resplit_studies(10, studies, seed, 0, &plain, &corrected);
    report("10 re-splits, plain paired t", seed, plain, studies);
    report("10 re-splits, Nadeau and Bengio", seed, corrected, studies);
    assert_true(plain > 0.15 * studies);
    assert_true((double)corrected / studies < 0.05 + BAND(studies));
    assert_true(corrected > 0);
}

static void more_resplits_fool_it_more(void **state)
{
    (void)state;
    enum { studies = 400, seed = 15 };
    int plain, corrected;
    resplit_studies(30, studies, seed, 0, &plain, &corrected);
    report("30 re-splits, plain paired t", seed, plain, studies);
    report("30 re-splits, Nadeau and Bengio", seed, corrected, studies);
    assert_true(plain > 0.35 * studies);
    assert_true((double)corrected / studies < 0.05 + BAND(studies));
    assert_true(corrected > 0);
}

static void resplits_fool_plain_ranks_too(void **state)
{
    (void)state;
    enum { studies = 1000, seed = 16 };
    int plain, corrected;
    resplit_studies(10, studies, seed, 0.03, &plain, &corrected);
    report("10 re-splits, 3 % diverged, signed-rank", seed, plain, studies);
    report("10 re-splits, 3 % diverged, t on signed ranks", seed, corrected, studies);
    assert_true(plain > 0.1 * studies);
    assert_true((double)corrected / studies < 0.05 + BAND(studies));
    assert_true(corrected > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(student_t_known_answers),
        cmocka_unit_test(normal_known_answers),
        cmocka_unit_test(quantile_undoes_cdf),
        cmocka_unit_test(noncentral_t_known_answers),
        cmocka_unit_test(arguments_without_meaning),
        cmocka_unit_test(detectable_effects_of_the_protocol),
        cmocka_unit_test(pairs_needed_is_the_fewest),
        cmocka_unit_test(power_after_pilots_known_answers),
        cmocka_unit_test(verdicts_among_more_than_the_rows),
        cmocka_unit_test(power_agrees_with_simulation),
        cmocka_unit_test(paired_t_known_answer),
        cmocka_unit_test(resplit_variance_known_answer),
        cmocka_unit_test(equivalence_known_answers),
        cmocka_unit_test(sign_flip_known_answers),
        cmocka_unit_test(darwins_maize),
        cmocka_unit_test(signed_rank_critical_values),
        cmocka_unit_test(sampled_sign_flip_is_near_the_exact),
        cmocka_unit_test(signed_rank_known_answers),
        cmocka_unit_test(signed_rank_agrees_with_enumeration),
        cmocka_unit_test(signed_rank_of_many_pairs_is_nearly_normal),
        cmocka_unit_test(floors_refuse_with_a_sentence),
        cmocka_unit_test(holm_by_hand),
        cmocka_unit_test(wilson_known_answer),
        cmocka_unit_test(a_row_on_a_fixed_test_set),
        cmocka_unit_test(lower_is_better_turns_the_verdict),
        cmocka_unit_test(resplits_need_more),
        cmocka_unit_test(undecided_says_how_many_more),
        cmocka_unit_test(diverged_runs_rank_last),
        cmocka_unit_test(an_arm_that_always_diverges_hurts),
        cmocka_unit_test(equal_differences_are_no_certainty),
        cmocka_unit_test(a_huge_score_hides_no_other_difference),
        cmocka_unit_test(bad_options_are_errors),
        cmocka_unit_test(short_memory_is_a_status),
        cmocka_unit_test(false_alarms_on_a_fixed_test_set),
        cmocka_unit_test(family_wise_false_alarms),
        cmocka_unit_test(false_claims_of_equivalence),
        cmocka_unit_test(resplits_fool_a_plain_t),
        cmocka_unit_test(more_resplits_fool_it_more),
        cmocka_unit_test(resplits_fool_plain_ranks_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
