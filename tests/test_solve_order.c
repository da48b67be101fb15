/* Solvers for host functions: known answers, ties and corners. */
#include "ballast/solve.h"
#include "support.h"

static void equal_keys_keep_their_order_and_nan_is_last(void **state)
{
    (void)state;
    int64_t order[7];
    expect_ok(bl_ascending_order(VALUES(2, NAN, -INFINITY, 2, 0, -0.0, NAN), 7, order));
    const int64_t expected[7] = {2, 4, 5, 0, 3, 1, 6};
    for (int i = 0; i < 7; i++)
        assert_int_equal(order[i], expected[i]);
    expect_ok(bl_ascending_order(NULL, 0, NULL));
}

static void an_order_without_memory_is_an_error(void **state)
{
    (void)state;
    int64_t order[2];
    bl_fail_allocation(1);
    assert_int_equal(bl_ascending_order(VALUES(2, 1), 2, order), BL_NO_MEMORY);
    bl_fail_allocation(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_keys_keep_their_order_and_nan_is_last),
        cmocka_unit_test(an_order_without_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
