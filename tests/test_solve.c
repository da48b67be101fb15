/* Solvers: known answers, bounds, ties, and the corners that a caller may reach. */
#include "support.h"

#include "solve/solve.h"

static void nearest_rows_come_in_order_and_ties_go_to_the_lower_row(void **state)
{
    (void)state;
    const double rows[] = {2, -1, 1, 5, -1, 0}, query[] = {0, 4.5};
    int32_t index[8];
    double distance[8];
    expect_ok(bl_nearest_rows(query, 2, rows, 6, 1, 4, index, distance));
    const int32_t expected[] = {5, 1, 2, 4, 3, 0, 2, 5};
    const double squares[] = {0, 1, 1, 1, 0.25, 6.25, 12.25, 20.25};
    assert_memory_equal(index, expected, sizeof expected);
    assert_memory_equal(distance, squares, sizeof squares);
}

/* Against the definition, over several blocks of rows, with many ties. */
static void nearest_rows_agree_with_a_full_sort(void **state)
{
    (void)state;
    enum { ROWS = 150, SIZE = 3, K = 40 };
    double rows[ROWS * SIZE], distance[ROWS * K];
    int32_t index[ROWS * K];
    bl_random r = bl_random_new(bl_key_from_seed(1));
    for (int i = 0; i < ROWS * SIZE; i++)
        rows[i] = bl_random_below(&r, 4);
    expect_ok(bl_nearest_rows(rows, ROWS, rows, ROWS, SIZE, K, index, distance));
    for (int q = 0; q < ROWS; q++) {
        for (int i = 0; i < K; i++) {
            int place = 0, row = index[q * K + i];
            double own = distance[q * K + i];
            for (int other = 0; other < ROWS; other++) {
                double d = 0;
                for (int c = 0; c < SIZE; c++)
                    d += pow(rows[q * SIZE + c] - rows[other * SIZE + c], 2);
                place += d < own || (d == own && other < row);
                assert_true(other != row || d == own);
            }
            assert_int_equal(place, i);
        }
    }
}

static void a_nan_is_further_than_anything(void **state)
{
    (void)state;
    const double rows[] = {NAN, 1e300, 3}, query[] = {0};
    int32_t index[3];
    expect_ok(bl_nearest_rows(query, 1, rows, 3, 1, 3, index, NULL));
    assert_int_equal(index[0], 2);
    assert_int_equal(index[1], 0); /* its distance and the overflowing one are alike: lower row */
    expect_ok(bl_nearest_rows(query, 0, rows, 3, 1, 3, index, NULL));
}

/* residual = (x0 - 3, 10 (x1 - x0^2)): a bent valley with its floor at (3, 9). */
static void valley(const double *x, double *residual, double *jacobian, void *context)
{
    (void)context;
    residual[0] = x[0] - 3;
    residual[1] = 10 * (x[1] - x[0] * x[0]);
    if (jacobian) {
        jacobian[0] = 1;
        jacobian[1] = 0;
        jacobian[2] = -20 * x[0];
        jacobian[3] = 10;
    }
}

static void least_squares_finds_the_floor_of_a_valley(void **state)
{
    (void)state;
    double x[] = {-1, 1}, sum;
    expect_ok(bl_least_squares(valley, NULL, 2, 2, VALUES(-10, -100), VALUES(10, 100), x, &sum));
    assert_true(fabs(x[0] - 3) < 1e-7 && fabs(x[1] - 9) < 1e-6 && sum < 1e-14);
}

/* With x0 <= 2 the best is at the bound; x1 follows. From a start at both upper bounds. */
static void least_squares_stops_at_a_bound(void **state)
{
    (void)state;
    double x[] = {2, 50}, sum;
    expect_ok(bl_least_squares(valley, NULL, 2, 2, VALUES(-10, -100), VALUES(2, 50), x, &sum));
    assert_true(x[0] == 2 && fabs(x[1] - 4) < 1e-9 && fabs(sum - 1) < 1e-12);
}

static void least_squares_refuses_what_it_has_no_room_for(void **state)
{
    (void)state;
    double x[9] = {0}, sum;
    assert_int_equal(bl_least_squares(valley, NULL, 2, 9, x, x, x, &sum), BL_INVALID);
    bl_fail_allocation(1);
    assert_int_equal(bl_least_squares(valley, NULL, 2, 2, x, x, x, &sum), BL_NO_MEMORY);
    bl_fail_allocation(1);
    assert_int_equal(bl_nearest_rows(x, 1, x, 1, 1, 1, NULL, NULL), BL_NO_MEMORY);
    bl_fail_allocation(2);
    assert_int_equal(bl_nearest_rows(x, 1, x, 1, 1, 1, NULL, NULL), BL_NO_MEMORY);
    bl_fail_allocation(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_rows_come_in_order_and_ties_go_to_the_lower_row),
        cmocka_unit_test(nearest_rows_agree_with_a_full_sort),
        cmocka_unit_test(a_nan_is_further_than_anything),
        cmocka_unit_test(least_squares_finds_the_floor_of_a_valley),
        cmocka_unit_test(least_squares_stops_at_a_bound),
        cmocka_unit_test(least_squares_refuses_what_it_has_no_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
