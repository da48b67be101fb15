/* Solvers that fit and estimate: L-BFGS, logistic regression, mutual information, and numbers for
 * distinct values. */
#include "support.h"

#include "graph/node.h"
#include "ballast/solve.h"

static double rosenbrock(const double *x, double *gradient, void *context)
{
    ++*(int *)context;
    double a = 1 - x[0], b = x[1] - x[0] * x[0];
    gradient[0] = -2 * a - 400 * x[0] * b;
    gradient[1] = 200 * b;
    return a * a + 100 * b * b;
}

static void a_curved_valley_is_followed_to_its_floor(void **state)
{
    (void)state;
    double x[2] = {-1.2, 1}, value;
    int calls = 0;
    expect_ok(bl_smooth_minimum(rosenbrock, &calls, 2, 1e-10, 1000, x, &value));
    assert_true(fabs(x[0] - 1) < 1e-9 && fabs(x[1] - 1) < 1e-9 && value < 1e-18);
    assert_true(calls < 200);
    calls = 0; /* at the minimum there is nothing to do, nor with no steps allowed */
    expect_ok(bl_smooth_minimum(rosenbrock, &calls, 2, 1e-6, 1000, x, &value));
    assert_int_equal(calls, 1);
    double start[2] = {3, 4};
    expect_ok(bl_smooth_minimum(rosenbrock, &calls, 2, 0, 0, start, &value));
    assert_true(start[0] == 3 && start[1] == 4);
}

/* Curvatures from 1 to 10000 in forty dimensions. */
static double long_bowl(const double *x, double *gradient, void *context)
{
    (void)context;
    double sum = 0;
    for (int i = 0; i < 40; i++) {
        double curvature = pow(10, i / 39.0 * 4);
        gradient[i] = curvature * (x[i] - i);
        sum += curvature * (x[i] - i) * (x[i] - i) / 2;
    }
    return sum;
}

static void a_long_bowl_is_crossed(void **state)
{
    (void)state;
    double x[40] = {0}, value;
    expect_ok(bl_smooth_minimum(long_bowl, NULL, 40, 1e-9, 2000, x, &value));
    for (int i = 0; i < 40; i++)
        assert_true(fabs(x[i] - i) < 1e-8);
}

static double logarithm(const double *x, double *gradient, void *context)
{
    (void)context;
    gradient[0] = 1 - 1 / x[0];
    return x[0] - log(x[0]); /* NaN below 0 */
}

static void steps_stay_where_there_is_a_value(void **state)
{
    (void)state;
    double x = 1e-3, value;
    expect_ok(bl_smooth_minimum(logarithm, NULL, 1, 1e-9, 200, &x, &value));
    assert_true(fabs(x - 1) < 1e-8);
    x = -1; /* no value to begin with: stays */
    expect_ok(bl_smooth_minimum(logarithm, NULL, 1, 1e-9, 200, &x, &value));
    assert_true(x == -1 && isnan(value));
}

/* Three of four are of class 1 where the feature is 1, one of four where it is 0. */
static void a_regression_finds_frequencies(void **state)
{
    (void)state;
    const double feature[8] = {1, 1, 1, 1}, weight[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const int32_t label[8] = {1, 1, 1, 0, 1, 0, 0, 0};
    double coefficient[4], log_loss;
    expect_ok(bl_logistic_regression(feature, label, weight, 8, 1, 2, coefficient, &log_loss));
    double at_0 = coefficient[3] - coefficient[2], slope = coefficient[1] - coefficient[0];
    assert_true(fabs(at_0 + log(3)) < 1e-5 && fabs(slope - 2 * log(3)) < 1e-5);
    assert_true(fabs(log_loss + 0.75 * log(0.75) + 0.25 * log(0.25)) < 1e-9);
}

static void what_is_separable_ends(void **state)
{
    (void)state;
    const double feature[4] = {-2, -1, 1, 2}, weight[4] = {1, 1, 1, 1};
    const int32_t label[4] = {0, 0, 2, 2}; /* and class 1 is never seen */
    double coefficient[6], log_loss;
    expect_ok(bl_logistic_regression(feature, label, weight, 4, 1, 3, coefficient, &log_loss));
    assert_true(log_loss >= 0 && log_loss < 1e-3);
}

static void distinct_values_are_numbered_in_order(void **state)
{
    (void)state;
    const int32_t value[6] = {7, INT32_MIN, 7, INT32_MAX, -1, -1}, expected[6] = {2, 0, 2, 3, 1, 1};
    int32_t number[6], values;
    expect_ok(bl_number_values(value, 6, number, &values));
    assert_int_equal(values, 4);
    assert_memory_equal(number, expected, sizeof expected);
    expect_ok(bl_number_values(NULL, 0, NULL, &values));
    assert_int_equal(values, 0);
}

/* Against the definition, on numbers with many ties, for few and many neighbours. */
static double nearest_by_definition(const double *x, const int32_t *y, int n, int k)
{
    double sum = 0;
    int kept = 0, size[8] = {0};
    for (int i = 0; i < n; i++)
        size[y[i]]++;
    for (int i = 0; i < n; i++) {
        int near = k < size[y[i]] - 1 ? k : size[y[i]] - 1, within = 0;
        double radius = 0;
        if (size[y[i]] < 2)
            continue;
        kept++;
        for (int j = 0; j < n; j++) { /* the distance to the near-th other of the class */
            int closer = 0, as_close = 0;
            double d = fabs(x[j] - x[i]);
            for (int o = 0; o < n; o++) {
                bool other = y[o] == y[i] && o != i;
                closer += other && fabs(x[o] - x[i]) < d;
                as_close += other && fabs(x[o] - x[i]) <= d;
            }
            if (y[j] == y[i] && j != i && closer < near && as_close >= near)
                radius = d;
        }
        for (int j = 0; j < n; j++)
            within += size[y[j]] > 1 && (fabs(x[j] - x[i]) < radius || x[j] == x[i]);
        sum += bl_digamma_scalar(near) - bl_digamma_scalar(size[y[i]]) - bl_digamma_scalar(within);
    }
    return fmax(0, bl_digamma_scalar(kept) + sum / kept);
}

static void neighbours_agree_with_the_definition(void **state)
{
    (void)state;
    enum { N = 60 };
    bl_random r = bl_random_new(bl_key_from_seed(9));
    for (int round = 0; round < 12; round++) {
        double x[N], nats;
        int32_t y[N];
        int k = 1 + round % 4 * 7;
        for (int i = 0; i < N; i++) {
            y[i] = (int32_t)bl_random_below(&r, 7);
            x[i] = y[i] + (round % 2 ? bl_random_below(&r, 9) : bl_random_gauss(&r));
        }
        y[N - 1] = 7; /* alone */
        expect_ok(bl_mutual_information_nearest(x, y, N, k, &nats));
        assert_true(fabs(nats - nearest_by_definition(x, y, N, k)) < 1e-12);
    }
}

static void estimates_without_memory_are_errors(void **state)
{
    (void)state;
    const int32_t a[3] = {1, 2, 1};
    double nats, x[3] = {0, 1, 2};
    int failed = 0;
    for (int n = 1; n < 12; n++) {
        bl_fail_allocation(n);
        bl_status status = bl_mutual_information(a, a, 3, &nats);
        bl_fail_allocation(n);
        bl_status other = bl_mutual_information_nearest(x, a, 3, 1, &nats);
        bl_fail_allocation(0);
        assert_true(status == BL_OK || status == BL_NO_MEMORY);
        assert_true(other == BL_OK || other == BL_NO_MEMORY);
        failed += (status != BL_OK) + (other != BL_OK);
    }
    assert_true(failed >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_curved_valley_is_followed_to_its_floor),
        cmocka_unit_test(a_long_bowl_is_crossed),
        cmocka_unit_test(steps_stay_where_there_is_a_value),
        cmocka_unit_test(a_regression_finds_frequencies),
        cmocka_unit_test(what_is_separable_ends),
        cmocka_unit_test(distinct_values_are_numbered_in_order),
        cmocka_unit_test(neighbours_agree_with_the_definition),
        cmocka_unit_test(estimates_without_memory_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
