/* What the tests of graphs share: inputs, evaluation by the reference executor, and expectations.
 *
 * A test is a function of cmocka whose name is the fact it shows. `*state` is its graph:
 *
 *     static void square_root_at_zero(void **state)
 *     {
 *         bl_tensor x = input(state, BL_F64, 2);
 *         expect_gradient(bl_sum(bl_sqrt(x)), x, VALUES(0, 4), VALUES(0, 0.25));
 *     }
 *     cmocka_unit_test_setup_teardown(square_root_at_zero, new_graph, free_graph)
 *
 * Expected numbers are ones that can be checked by hand. */
#ifndef BL_TESTS_SUPPORT_H
#define BL_TESTS_SUPPORT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ballast/program.h"
#include "base/base.h"
#include "graph/node.h"

#define VALUES(...)     ((const double[]){__VA_ARGS__})
#define COUNT_OF(array) ((int)(sizeof(array) / sizeof *(array)))
#define TEST(name)      cmocka_unit_test_setup_teardown(name, new_graph, free_graph)

static inline int new_graph(void **state)
{
    *state = bl_graph_new();
    return *state ? 0 : -1;
}

static inline int free_graph(void **state)
{
    bl_graph_free(*state);
    return 0;
}

/* input(state, dtype, sizes..) and scalar_input(state, dtype). */
#define input(state, dtype, ...)   bl_input(*(state), "x", dtype, BL_SHAPE(__VA_ARGS__))
#define scalar_input(state, dtype) bl_input(*(state), "x", dtype, BL_SCALAR)

static inline void expect_ok(bl_status status)
{
    if (status != BL_OK)
        fail_msg("%s", bl_error());
}

/* An array with these values, which the caller frees. */
static inline bl_array array_of(bl_type type, const double *values)
{
    bl_array a;
    expect_ok(bl_array_new(type.dtype, type.shape, &a));
    for (int64_t i = 0; i < bl_array_count(&a); i++)
        bl_array_set(&a, i, values[i]);
    return a;
}

/* y for these values of inputs x, by the reference executor; the caller frees it. */
static inline bl_array evaluate(bl_tensor y, const bl_tensor *x, const double *const *values,
                                int count)
{
    bl_array in[8], out;
    assert_in_range(count, 0, 8);
    for (int i = 0; i < count; i++)
        in[i] = array_of(bl_type_of(x[i]), values[i]);
    expect_ok(bl_evaluate(bl_device_reference(), x, in, count, &y, &out, 1));
    for (int i = 0; i < count; i++)
        bl_array_free(&in[i]);
    return out;
}

static inline bool close_to(double got, double expected, double tolerance)
{
    if (isnan(expected) || isinf(expected))
        return isnan(expected) ? isnan(got) : got == expected;
    return fabs(got - expected) <= tolerance * (1 + fabs(expected));
}

/* Compares with a relative tolerance of the dtype: 1e-12 for f64, 1e-6 for f32. */
static inline void expect_array(const bl_array *got, const double *expected)
{
    double tolerance = got->type.dtype == BL_F64 ? 1e-12 : 1e-6;
    for (int64_t i = 0; i < bl_array_count(got); i++)
        if (!close_to(bl_array_get(got, i), expected[i], tolerance))
            fail_msg("element %lld is %.17g, expected %.17g", (long long)i, bl_array_get(got, i),
                     expected[i]);
}

/* y, a function of the one input x, at `values`. */
static inline void expect_result(bl_tensor y, bl_tensor x, const double *values,
                                 const double *expected)
{
    bl_array got = evaluate(y, &x, &values, 1);
    expect_array(&got, expected);
    bl_array_free(&got);
}

static inline bl_tensor gradient(bl_tensor y, bl_tensor x)
{
    bl_tensor dx;
    bl_grad(y, &x, 1, &dx);
    return dx;
}

/* The gradient of the scalar y in its one input x, at `values`. */
static inline void expect_gradient(bl_tensor y, bl_tensor x, const double *values,
                                   const double *expected)
{
    expect_result(gradient(y, x), x, values, expected);
}

/* y is poison and its graph's error is `message`, then " at FILE:LINE". */
static inline void expect_error(bl_tensor y, const char *message)
{
    assert_true(bl_is_poison(y));
    if (y.graph)
        assert_int_equal(bl_graph_status(y.graph), BL_INVALID);
    size_t length = strlen(message);
    if (strncmp(bl_error(), message, length) != 0 || strncmp(bl_error() + length, " at ", 4) != 0)
        fail_msg("the error is \"%s\", expected \"%s at ..\"", bl_error(), message);
}

static inline void expect_type(bl_tensor x, const char *text)
{
    if (bl_is_poison(x)) {
        (void)!bl_graph_status(x.graph);
        fail_msg("%s", bl_error());
    }
    assert_string_equal(bl_show(bl_type_of(x)), text);
}

/* True if the failure that bl_fail_allocation asked for was still to come, at the next allocation:
 * no failure was swallowed. */
static inline bool failure_to_come(void)
{
    void *next = bl_alloc(1);
    bl_release(next);
    return next == NULL;
}

#endif
