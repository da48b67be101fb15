/* Solvers of dense linear systems and of functions of one variable: known answers, and corners. */
#include "support.h"

#include "ballast/solve.h"

/* --- linear systems --------------------------------------------------------------------------- */

/* The first pivot is 0, so rows must change places. */
static void a_system_by_hand(void **state)
{
    (void)state;
    double a[] = {0, 2, 1, 1, 0, 0, 3, 0, -1}, b[] = {5, 0, 1, 2, 2, -2};
    expect_ok(bl_solve_linear(a, b, 3, 2));
    const double x[] = {1, 2, 2, -4, 1, 8};
    for (int i = 0; i < 6; i++)
        assert_true(fabs(b[i] - x[i]) < 1e-14);
}

static void pivots_keep_a_small_diagonal_harmless(void **state)
{
    (void)state;
    double a[] = {1e-20, 1, 1, 1}, b[] = {1, 2};
    expect_ok(bl_solve_linear(a, b, 2, 1));
    assert_true(fabs(b[0] - 1) < 1e-15 && fabs(b[1] - 1) < 1e-15);
}

/* a[n,n] and b[n,3] are filled, and a x = b solved to `tolerance`. */
static void expect_solved(double *a, double *b, int n, uint64_t seed, double tolerance)
{
    enum { COLUMNS = 3 };
    double *used = bl_alloc((size_t)(n * n) * sizeof *used);
    double *x = bl_alloc((size_t)(n * COLUMNS) * sizeof *x);
    bl_random r = bl_random_new(bl_key_from_seed(seed));
    for (int i = 0; i < n * n; i++)
        used[i] = a[i] = bl_random_gauss(&r);
    for (int i = 0; i < n * COLUMNS; i++)
        x[i] = b[i] = bl_random_gauss(&r);
    expect_ok(bl_solve_linear(used, x, n, COLUMNS));
    for (int i = 0; i < n * COLUMNS; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++)
            sum += a[i / COLUMNS * n + j] * x[j * COLUMNS + i % COLUMNS];
        assert_true(fabs(sum - b[i]) < tolerance);
    }
    bl_release(used);
    bl_release(x);
}

static void random_systems_are_solved(void **state)
{
    (void)state;
    double a[23 * 23], b[23 * 3];
    expect_solved(a, b, 23, 5, 1e-11);
}

static void a_singular_matrix_is_refused_in_its_column(void **state)
{
    (void)state;
    double a[] = {1, 2, 3, 2, 4, 6, 1, 0, 1}, b[3] = {0};
    assert_int_equal(bl_solve_linear(a, b, 3, 1), BL_INVALID);
    assert_string_equal(bl_error(), "singular in column 2, expected independent columns");
    double not_a_number[] = {NAN};
    assert_int_equal(bl_solve_linear(not_a_number, b, 1, 1), BL_INVALID);
    expect_ok(bl_solve_linear(a, b, 0, 1));
}

/* Large enough for LAPACK: solved, singular, without memory, and not finite, which is not for it.
 */
static void a_large_system_is_solved_or_refused_as_a_small_one(void **state)
{
    (void)state;
    enum { N = 90, COLUMNS = 3 };
    static double a[N * N], kept[N * N], b[N * COLUMNS];
    expect_solved(kept, b, N, 6, 1e-9);
    memset(a, 0, sizeof a);
    for (int i = 0; i < N; i++)
        a[i * N + i] = i != 40;
    assert_int_equal(bl_solve_linear(a, b, N, COLUMNS), BL_INVALID);
    assert_string_equal(bl_error(), "singular in column 40, expected independent columns");
    bl_fail_allocation(1);
    assert_int_equal(bl_solve_linear(kept, b, N, COLUMNS), BL_NO_MEMORY);
    bl_fail_allocation(0);
    b[0] = NAN;
    memset(a, 0, sizeof a);
    for (int i = 0; i < N; i++)
        a[i * N + i] = 2;
    expect_ok(bl_solve_linear(a, b, N, COLUMNS));
    assert_true(isnan(b[0]));
}

/* --- functions of one variable ---------------------------------------------------------------- */

static double two_valleys(double x, void *context)
{
    ++*(int *)context;
    return (x * x - 1) * (x * x - 1) + 0.3 * x; /* the left one, near -1.0354, is deeper */
}

static double flat(double x, void *context)
{
    (void)context;
    return x < 0 ? (double)NAN : 7;
}

static void the_deeper_of_two_valleys_is_found(void **state)
{
    int calls = 0;
    (void)state;
    bl_minimum m = bl_grid_minimum(two_valleys, &calls, -2, 2, 101);
    assert_true(fabs(4 * m.x * (m.x * m.x - 1) + 0.3) < 1e-6 && m.x < -1); /* the slope is 0 */
    assert_int_equal(m.point, 24);
    assert_true(m.value == two_valleys(m.x, &calls) && calls < 300);
}

static void a_minimum_at_an_end_stays_there(void **state)
{
    int calls = 0;
    (void)state;
    bl_minimum m = bl_grid_minimum(two_valleys, &calls, 0, 0.5, 6);
    assert_true(m.point == 5 && m.x == 0.5);
    m = bl_grid_minimum(two_valleys, &calls, 2, 3, 6);
    assert_true(m.point == 0 && m.x == 2);
    m = bl_grid_minimum(two_valleys, &calls, 2, 2, 2);
    assert_true(m.x == 2 && m.value == two_valleys(2, &calls));
}

static void the_first_of_equals_is_lowest_and_nan_never(void **state)
{
    (void)state;
    bl_minimum m = bl_grid_minimum(flat, NULL, -1, 1, 21);
    assert_true(m.point == 10 && m.value == 7);
    m = bl_grid_minimum(flat, NULL, -2, -1, 5);
    assert_true(m.point == 0 && m.x == -2 && isnan(m.value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_system_by_hand),
        cmocka_unit_test(pivots_keep_a_small_diagonal_harmless),
        cmocka_unit_test(random_systems_are_solved),
        cmocka_unit_test(a_singular_matrix_is_refused_in_its_column),
        cmocka_unit_test(a_large_system_is_solved_or_refused_as_a_small_one),
        cmocka_unit_test(the_deeper_of_two_valleys_is_found),
        cmocka_unit_test(a_minimum_at_an_end_stays_there),
        cmocka_unit_test(the_first_of_equals_is_lowest_and_nan_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
