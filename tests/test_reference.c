/* The reference executor: each primitive against numbers that can be checked by hand; what a
 * program promises about its arguments. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "exec/executor.h"
#include "graph/pass/pass.h"

/* --- a small vocabulary ------------------------------------------------------------------------
 */

#define VALUES(...) (const double[]){__VA_ARGS__}, (int)(sizeof((double[]){__VA_ARGS__}) / 8)

static int open_graph(void **state)
{
    *state = bl_graph_new();
    return *state ? 0 : -1;
}

static int close_graph(void **state)
{
    bl_graph_free(*state);
    return 0;
}

static bl_tensor data(bl_graph *g, bl_dtype dtype, bl_shape shape, const double *values, int count)
{
    bl_array array;
    assert_int_equal(count, bl_shape_count(shape));
    assert_int_equal(bl_array_new(dtype, shape, &array), BL_OK);
    for (int i = 0; i < count; i++)
        bl_array_set(&array, i, values[i]);
    bl_tensor constant = bl_constant(g, &array);
    bl_array_free(&array);
    return constant;
}

static bl_status run_plan(const bl_signature *signature, bl_array *result)
{
    void *plan = NULL;
    BL_TRY(bl_executor_reference.compile(signature, &plan));
    bl_status status = bl_executor_reference.run(plan, NULL, &result->data);
    bl_executor_reference.free(plan);
    return status;
}

/* Only what y needs, but not optimised: the passes would fold most of these tests away. */
static bl_status run_unoptimized(bl_tensor y, bl_array *result)
{
    bl_graph *needed = NULL;
    bl_tensor copy;
    BL_TRY(bl_graph_status(y.graph));
    BL_TRY(bl_copy_live(y.graph, NULL, 0, &y, 1, &needed, NULL, &copy));
    bl_signature signature = {.graph = needed, .output = &copy.id, .outputs = 1, .threads = 1};
    bl_status status = bl_array_new(bl_type_of(y).dtype, bl_type_of(y).shape, result);
    if (status == BL_OK)
        status = run_plan(&signature, result);
    bl_graph_free(needed);
    return status;
}

static void expect(bl_tensor y, const double *values, int count)
{
    bl_array result = {0};
    if (run_unoptimized(y, &result) != BL_OK)
        fail_msg("%s", bl_error());
    assert_int_equal(bl_array_count(&result), count);
    for (int i = 0; i < count; i++) {
        double got = bl_array_get(&result, i);
        bool same = got == values[i] || (isnan(got) && isnan(values[i])) ||
                    fabs(got - values[i]) <= 1e-6 * fabs(values[i]);
        if (!same)
            fail_msg("element %d is %.9g, expected %.9g", i, got, values[i]);
    }
    bl_array_free(&result);
}

static void expect_refused(bl_tensor y, const char *part)
{
    bl_array result = {0};
    assert_int_equal(run_unoptimized(y, &result), BL_INVALID);
    if (!strstr(bl_error(), part))
        fail_msg("\"%s\" does not say \"%s\"", bl_error(), part);
    bl_array_free(&result);
}

static bl_tensor f32(void **state, const double *values, int count)
{
    return data(*state, BL_F32, BL_SHAPE(count), values, count);
}

static bl_tensor i32(void **state, const double *values, int count)
{
    return data(*state, BL_I32, BL_SHAPE(count), values, count);
}

static bl_tensor matrix(void **state, int64_t rows, int64_t columns, const double *values,
                        int count)
{
    return data(*state, BL_F32, BL_SHAPE(rows, columns), values, count);
}

/* --- elementwise -------------------------------------------------------------------------------
 */

static void unary_primitives_give_their_meaning(void **state)
{
    bl_tensor x = f32(state, VALUES(-1.5, 0, 0.5, 2.5));
    expect(bl_neg(x), VALUES(1.5, 0, -0.5, -2.5));
    expect(bl_abs(x), VALUES(1.5, 0, 0.5, 2.5));
    expect(bl_sign(x), VALUES(-1, 0, 1, 1));
    expect(bl_floor(x), VALUES(-2, 0, 0, 2));
    expect(bl_round(x), VALUES(-2, 0, 0, 2));
    expect(bl_exp(x), VALUES(0.22313016, 1, 1.6487213, 12.182494));
    expect(bl_tanh(x), VALUES(-0.90514825, 0, 0.46211716, 0.98661430));
    expect(bl_sigmoid(x), VALUES(0.18242552, 0.5, 0.62245933, 0.92414182));
    expect(bl_sqrt(x), VALUES(NAN, 0, 0.70710678, 1.5811388));
    expect(bl_rsqrt(x), VALUES(NAN, INFINITY, 1.4142136, 0.63245553));
    expect(bl_log(x), VALUES(NAN, -INFINITY, -0.69314718, 0.91629073));
    expect(bl_log1p(x), VALUES(NAN, 0, 0.40546511, 1.2527630));
    expect(bl_expm1(x), VALUES(-0.77686984, 0, 0.64872127, 11.182494));
    expect(bl_sin(x), VALUES(-0.99749499, 0, 0.47942554, 0.59847214));
    expect(bl_cos(x), VALUES(0.070737202, 1, 0.87758256, -0.80114362));
    expect(bl_atan(x), VALUES(-0.98279372, 0, 0.46364761, 1.1902899));
    expect(bl_erf(x), VALUES(-0.96610515, 0, 0.52049988, 0.99959305));
}

static void special_functions_at_known_points(void **state)
{
    bl_tensor x = data(*state, BL_F64, BL_SHAPE(2), VALUES(1, 5));
    expect(bl_lgamma(x), VALUES(0, 3.17805383034794562));
    expect(bl_digamma(x), VALUES(-0.57721566490153286, 1.50611766843180047));
    expect(bl_trigamma(x), VALUES(1.64493406684822644, 0.22132295573711533));
}

static void binary_primitives_give_their_meaning(void **state)
{
    bl_tensor x = f32(state, VALUES(-7, 2, 0, 3)), y = f32(state, VALUES(2, -3, 0, 3));
    expect(bl_add(x, y), VALUES(-5, -1, 0, 6));
    expect(bl_sub(x, y), VALUES(-9, 5, 0, 0));
    expect(bl_mul(x, y), VALUES(-14, -6, 0, 9));
    expect(bl_div(x, y), VALUES(-3.5, -2.0 / 3, NAN, 1));
    expect(bl_rem(x, y), VALUES(-1, 2, NAN, 0));
    expect(bl_pow(x, y), VALUES(49, 0.125, 1, 27));
    expect(bl_max(x, y), VALUES(2, 2, 0, 3));
    expect(bl_min(x, y), VALUES(-7, -3, 0, 3));
    expect(bl_atan2(x, y), VALUES(-1.2924967, 2.5535901, 0, 0.78539816));
    expect(bl_lt(x, y), VALUES(1, 0, 0, 0));
    expect(bl_le(x, y), VALUES(1, 0, 1, 1));
    expect(bl_gt(x, y), VALUES(0, 1, 0, 0));
    expect(bl_ge(x, y), VALUES(0, 1, 1, 1));
    expect(bl_eq(x, y), VALUES(0, 0, 1, 1));
    expect(bl_ne(x, y), VALUES(1, 1, 0, 0));
}

static void logic_select_and_clamp(void **state)
{
    bl_tensor x = f32(state, VALUES(-2, 0.5, 4, NAN));
    bl_tensor p = bl_gt(x, 0), q = bl_lt(x, 1);
    expect(bl_and(p, q), VALUES(0, 1, 0, 0));
    expect(bl_or(p, q), VALUES(1, 1, 1, 0));
    expect(bl_not(p), VALUES(1, 0, 0, 1));
    expect(bl_add(p, q), VALUES(1, 1, 1, 0));
    expect(bl_isfinite(x), VALUES(1, 1, 1, 0));
    expect(bl_select(p, x, -1), VALUES(-1, 0.5, 4, -1));
    expect(bl_clamp(x, 0, 1), VALUES(0, 0.5, 1, NAN));
    expect(bl_max(x, 0), VALUES(0, 0.5, 4, NAN));
    expect(bl_min(0, x), VALUES(-2, 0, 0, NAN));
}

static void integers_wrap_around_and_divide_by_zero_to_zero(void **state)
{
    bl_tensor x = i32(state, VALUES(2147483647, -7, 46341, -2147483648.0));
    bl_tensor y = i32(state, VALUES(1, 0, 46341, -1));
    expect(bl_add(x, y), VALUES(-2147483648.0, -7, 92682, 2147483647));
    expect(bl_mul(x, y), VALUES(2147483647, 0, -2147479015, -2147483648.0));
    expect(bl_div(x, y), VALUES(2147483647, 0, 1, -2147483648.0));
    expect(bl_rem(x, y), VALUES(0, 0, 0, 0));
    expect(bl_neg(x), VALUES(-2147483647, 7, -46341, -2147483648.0));
    bl_tensor u = data(*state, BL_U32, BL_SHAPE(2), VALUES(4294967295.0, 3));
    expect(bl_mul(u, u), VALUES(1, 9));
    expect(bl_sub(u, bl_full_like(u, 4)), VALUES(4294967291.0, 4294967295.0));
    bl_tensor b = data(*state, BL_I8, BL_SHAPE(2), VALUES(100, -128));
    expect(bl_add(b, b), VALUES(-56, 0));
}

static void casts_go_towards_zero_and_stay_in_range(void **state)
{
    bl_tensor x = f32(state, VALUES(-1.9, 1.9, 1e20, NAN));
    expect(bl_cast(x, BL_I32), VALUES(-1, 1, 2147483647, 0));
    expect(bl_cast(x, BL_U8), VALUES(0, 1, 255, 0));
    expect(bl_cast(x, BL_BOOL), VALUES(1, 1, 1, 1));
    expect(bl_cast(i32(state, VALUES(300, -1)), BL_U8), VALUES(44, 255));
    expect(bl_cast(i32(state, VALUES(16777217, 3)), BL_F32), VALUES(16777216, 3));
}

/* --- leaves and movement ------------------------------------------------------------------------
 */

static void iota_counts_along_its_axis(void **state)
{
    expect(bl_iota(*state, BL_I32, BL_SHAPE(2, 3), 1), VALUES(0, 1, 2, 0, 1, 2));
    expect(bl_iota(*state, BL_F32, BL_SHAPE(2, 3), 0), VALUES(0, 0, 0, 1, 1, 1));
}

static void random_bits_are_philox_words(void **state)
{
    bl_tensor key = data(*state, BL_U32, BL_SHAPE(2), VALUES(17, 42));
    uint32_t first[4], second[4];
    bl_philox((const uint32_t[]){0, 0, 5, 6}, (const uint32_t[]){17, 42}, first);
    bl_philox((const uint32_t[]){1, 0, 5, 6}, (const uint32_t[]){17, 42}, second);
    expect(bl_random_bits(key, 5, 6, BL_SHAPE(6)),
           VALUES(first[0], first[1], first[2], first[3], second[0], second[1]));
}

static void movement_moves(void **state)
{
    bl_tensor x = matrix(state, 2, 3, VALUES(1, 2, 3, 4, 5, 6));
    expect(bl_reshape(x, BL_SHAPE(3, 2)), VALUES(1, 2, 3, 4, 5, 6));
    expect(bl_transpose(x), VALUES(1, 4, 2, 5, 3, 6));
    expect(bl_broadcast(bl_slice_axis(x, 0, 1, 2), BL_SHAPE(2, 3)), VALUES(4, 5, 6, 4, 5, 6));
    expect(bl_slice(x, BL_SHAPE(0, 0), BL_SHAPE(2, 3), BL_SHAPE(1, 2)), VALUES(1, 3, 4, 6));
    expect(bl_reverse(x, 1), VALUES(3, 2, 1, 6, 5, 4));
    expect(bl_pad(x, BL_SHAPE(0, 1), BL_SHAPE(1, 0), 9),
           VALUES(9, 1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9));
    expect(bl_concat(((bl_tensor[]){x, bl_slice_axis(x, 1, 0, 1)}), 2, 1),
           VALUES(1, 2, 3, 1, 4, 5, 6, 4));
}

static void padding_between_neighbours_is_the_adjoint_of_a_stepped_slice(void **state)
{
    bl_tensor x = f32(state, VALUES(1, 2, 3, 4, 5));
    bl_tensor even = bl_slice(x, BL_SHAPE(1), BL_SHAPE(5), BL_SHAPE(2)), dx;
    bl_grad(bl_sum(bl_mul(even, even)), &x, 1, &dx);
    expect(dx, VALUES(0, 4, 0, 8, 0));
}

/* --- indexing ------------------------------------------------------------------------------------
 */

static void rows_are_taken_put_and_added(void **state)
{
    bl_tensor x = matrix(state, 3, 2, VALUES(1, 2, 3, 4, 5, 6));
    bl_tensor index = i32(state, VALUES(2, 0));
    bl_tensor rows = matrix(state, 2, 2, VALUES(10, 20, 30, 40));
    expect(bl_take(x, index), VALUES(5, 6, 1, 2));
    expect(bl_put(x, index, rows), VALUES(30, 40, 3, 4, 10, 20));
    expect(bl_add_at(x, index, rows), VALUES(31, 42, 3, 4, 15, 26));
    expect(bl_add_at(x, i32(state, VALUES(1, 1)), rows), VALUES(1, 2, 43, 64, 5, 6));
}

static void elements_are_taken_and_added_along_an_axis(void **state)
{
    bl_tensor x = matrix(state, 2, 3, VALUES(1, 2, 3, 4, 5, 6));
    bl_tensor columns = data(*state, BL_I32, BL_SHAPE(2, 2), VALUES(2, 0, 1, 1));
    bl_tensor updates = matrix(state, 2, 2, VALUES(10, 20, 30, 40));
    expect(bl_take_along(x, columns, 1), VALUES(3, 1, 5, 5));
    expect(bl_add_along(x, columns, updates, 1), VALUES(21, 2, 13, 4, 75, 6));
    bl_tensor row = data(*state, BL_I32, BL_SHAPE(1, 3), VALUES(1, 0, 1));
    expect(bl_take_along(x, row, 0), VALUES(4, 2, 6));
}

static void argsort_is_stable_with_nan_at_the_far_end(void **state)
{
    bl_tensor x = f32(state, VALUES(3, NAN, 1, 3, -2));
    expect(bl_argsort(x, 0, false), VALUES(4, 2, 0, 3, 1));
    expect(bl_argsort(x, 0, true), VALUES(1, 0, 3, 2, 4));
    bl_tensor columns = matrix(state, 3, 2, VALUES(2, 1, 1, 3, 3, 2));
    expect(bl_argsort(columns, 0, false), VALUES(1, 0, 0, 2, 2, 1));
}

static void an_index_out_of_range_is_named(void **state)
{
    bl_tensor x = matrix(state, 3, 2, VALUES(1, 2, 3, 4, 5, 6));
    bl_scope(*state, "bank");
    bl_tensor bad = bl_take(x, i32(state, VALUES(0, 3)));
    bl_scope_end(*state);
    expect_refused(bad, "take: index 3 (element 1) is not in 0 .. 2, at ");
    assert_non_null(strstr(bl_error(), "test_reference.c:"));
    assert_non_null(strstr(bl_error(), " in bank"));
}

static void every_indexing_primitive_checks_its_index(void **state)
{
    bl_tensor x = matrix(state, 2, 2, VALUES(1, 2, 3, 4)), bad = i32(state, VALUES(-1, 0));
    expect_refused(bl_put(x, bad, x), "put: index -1 (element 0)");
    expect_refused(bl_add_at(x, bad, x), "add_at: index -1");
    bl_tensor square = data(*state, BL_I32, BL_SHAPE(2, 2), VALUES(0, 1, 2, 0));
    expect_refused(bl_take_along(x, square, 1), "take_along: index 2 (element 2)");
    expect_refused(bl_add_along(x, square, x, 0), "add_along: index 2");
}

/* --- reductions ----------------------------------------------------------------------------------
 */

static void reductions_over_one_axis_and_all(void **state)
{
    bl_tensor x = matrix(state, 2, 3, VALUES(1, 5, 3, 4, 2, 6));
    expect(bl_sum(x, 0), VALUES(5, 7, 9));
    expect(bl_sum(x, 1), VALUES(9, 12));
    expect(bl_sum(x), VALUES(21));
    expect(bl_prod(x, 1), VALUES(15, 48));
    expect(bl_reduce_max(x, 1), VALUES(5, 6));
    expect(bl_reduce_min(x, 0), VALUES(1, 2, 3));
    expect(bl_argmax(x, 1), VALUES(1, 2));
    expect(bl_argmin(x, 0), VALUES(0, 1, 0));
    expect(bl_cumsum(x, 1), VALUES(1, 6, 9, 4, 6, 12));
    expect(bl_cumsum(x, 0), VALUES(1, 5, 3, 5, 7, 9));
}

static void the_first_extreme_wins_and_nan_is_one(void **state)
{
    bl_tensor x = matrix(state, 2, 3, VALUES(2, 7, 7, 1, NAN, 9));
    expect(bl_argmax(x, 1), VALUES(1, 1));
    expect(bl_reduce_max(x, 1), VALUES(7, NAN));
    expect(bl_reduce_min(x, 1), VALUES(2, NAN));
    expect(bl_argmin(x, 1), VALUES(0, 1));
}

static void integer_sums_wrap_around(void **state)
{
    bl_tensor x = i32(state, VALUES(2147483647, 2, 5));
    expect(bl_sum(x), VALUES(-2147483642));
    expect(bl_cumsum(x, 0), VALUES(2147483647, -2147483647, -2147483642));
    expect(bl_prod(i32(state, VALUES(65536, 65536, 3)), 0), VALUES(0));
}

static void sums_are_in_double(void **state)
{
    expect(bl_sum(f32(state, VALUES(16777216, 1, 1, -16777216))), VALUES(2));
}

static void arrays_without_elements(void **state)
{
    bl_tensor x = bl_full(*state, BL_F32, BL_SHAPE(0, 3), 1);
    expect(bl_sum(x, 0), VALUES(0, 0, 0));
    expect(bl_sum(bl_mul(bl_exp(x), 2)), VALUES(0));
    bl_tensor none = bl_full(*state, BL_I32, BL_SHAPE(0), 0);
    expect(bl_sum(bl_take(matrix(state, 1, 2, VALUES(1, 2)), none)), VALUES(0));
    expect(bl_matmul(bl_full(*state, BL_F32, BL_SHAPE(1, 0), 1),
                     bl_full(*state, BL_F32, BL_SHAPE(0, 2), 1)),
           VALUES(0, 0));
}

/* --- contractions --------------------------------------------------------------------------------
 */

static void dot_in_all_four_orientations(void **state)
{
    bl_tensor a = matrix(state, 2, 3, VALUES(1, 2, 3, 4, 5, 6));
    bl_tensor b = matrix(state, 3, 2, VALUES(1, 0, 2, 1, 0, 3));
    bl_tensor at = bl_transpose(a), bt = bl_transpose(b);
    expect(bl_dot(a, b, false, false), VALUES(5, 11, 14, 23));
    expect(bl_dot(at, b, true, false), VALUES(5, 11, 14, 23));
    expect(bl_dot(a, bt, false, true), VALUES(5, 11, 14, 23));
    expect(bl_dot(at, bt, true, true), VALUES(5, 11, 14, 23));
    bl_tensor batch = data(*state, BL_F32, BL_SHAPE(2, 1, 2), VALUES(1, 2, 3, 4));
    expect(bl_dot(batch, batch, false, true), VALUES(5, 25));
}

/* x is 3 x 3, counted from 1; the filter has 1 at its first place and 2 at its last. */
static bl_tensor image(void **state)
{
    return data(*state, BL_F32, BL_SHAPE(1, 3, 3, 1), VALUES(1, 2, 3, 4, 5, 6, 7, 8, 9));
}

static bl_tensor filter(void **state)
{
    return data(*state, BL_F32, BL_SHAPE(2, 2, 1, 1), VALUES(1, 0, 0, 2));
}

static void convolution_by_hand(void **state)
{
    bl_tensor x = image(state), w = filter(state);
    expect(bl_conv(x, w, (bl_conv_options){0}), VALUES(11, 14, 20, 23));
    expect(bl_conv(x, w, (bl_conv_options){.low = {1, 1}, .stride = {2, 2}}), VALUES(2, 6, 14, 23));
    expect(bl_conv(x, w, (bl_conv_options){.dilation = {2, 2}}), VALUES(19));
}

static void convolution_in_groups_keeps_channels_apart(void **state)
{
    bl_tensor x = data(*state, BL_F32, BL_SHAPE(1, 1, 2, 2), VALUES(1, 2, 3, 4));
    bl_tensor w = data(*state, BL_F32, BL_SHAPE(1, 1, 1, 4), VALUES(1, 10, 100, 1000));
    expect(bl_conv(x, w, (bl_conv_options){.groups = 2}),
           VALUES(1, 10, 200, 2000, 3, 30, 400, 4000));
}

static void the_adjoints_of_convolution_by_hand(void **state)
{
    bl_tensor x = image(state), w = filter(state);
    bl_tensor g = data(*state, BL_F32, BL_SHAPE(1, 2, 2, 1), VALUES(1, 10, 100, 1000));
    expect(bl_conv_dx(g, w, BL_SHAPE(1, 3, 3, 1), (bl_conv_options){0}),
           VALUES(1, 10, 0, 100, 1002, 20, 0, 200, 2000));
    expect(bl_conv_dw(x, g, BL_SHAPE(2, 2, 1, 1), (bl_conv_options){0}),
           VALUES(5421, 6532, 8754, 9865));
}

/* --- programs
 * ------------------------------------------------------------------------------------- */

static bl_array array_of(bl_shape shape, const double *values, int count)
{
    bl_array array;
    assert_int_equal(bl_array_new(BL_F32, shape, &array), BL_OK);
    for (int i = 0; i < count; i++)
        bl_array_set(&array, i, values[i]);
    return array;
}

static void a_program_outlives_its_graph(void **state)
{
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "x", BL_F32, BL_SHAPE(2)), y = bl_mul(x, 3);
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), &x, 1, &y, 1, NULL, &p), BL_OK);
    bl_graph_free(g);
    bl_array in = array_of(BL_SHAPE(2), VALUES(1, 2)), out = array_of(BL_SHAPE(2), VALUES(0, 0));
    assert_int_equal(bl_run(p, &in, &out), BL_OK);
    assert_true(bl_f32(&out)[0] == 3 && bl_f32(&out)[1] == 6);
    bl_program_free(p);
    bl_array_free(&in);
    bl_array_free(&out);
    (void)state;
}

static void running_allocates_nothing(void **state)
{
    bl_tensor x = bl_input(*state, "x", BL_F32, BL_SHAPE(4));
    bl_tensor y = bl_sum(bl_mul(bl_exp(x), bl_cumsum(x, 0)));
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), &x, 1, &y, 1, NULL, &p), BL_OK);
    bl_array in = array_of(BL_SHAPE(4), VALUES(0, 0, 0, 1)), out = array_of(BL_SCALAR, VALUES(0));
    bl_fail_allocation(1);
    bl_status status = bl_run(p, &in, &out);
    bl_fail_allocation(0);
    assert_int_equal(status, BL_OK);
    assert_float_equal(bl_f32(&out)[0], 2.7182818f, 1e-6);
    bl_program_free(p);
    bl_array_free(&in);
    bl_array_free(&out);
}

static void a_wrong_argument_is_named(void **state)
{
    bl_tensor x = bl_input(*state, "image", BL_F32, BL_SHAPE(2)), y = bl_neg(x);
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), &x, 1, &y, 1, NULL, &p), BL_OK);
    bl_array in = array_of(BL_SHAPE(3), VALUES(1, 2, 3)), out = array_of(BL_SHAPE(2), VALUES(0, 0));
    assert_int_equal(bl_run(p, &in, &out), BL_INVALID);
    assert_string_equal(bl_error(), "run: input 0, \"image\", is f32[3], but the program was "
                                    "compiled for f32[2]");
    bl_program_free(p);
    bl_array_free(&in);
    bl_array_free(&out);
}

static void an_unlisted_input_is_named(void **state)
{
    bl_tensor x = bl_input(*state, "x", BL_F32, BL_SHAPE(2));
    bl_tensor w = bl_input(*state, "w", BL_F32, BL_SHAPE(2)), y = bl_mul(x, w);
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), &x, 1, &y, 1, NULL, &p), BL_INVALID);
    assert_non_null(strstr(bl_error(), "the input \"w\" (f32[2], at "));
    assert_null(p);
}

static void calls_that_cannot_be_compiled(void **state)
{
    bl_tensor x = bl_input(*state, "x", BL_F32, BL_SHAPE(2)), y = bl_neg(x);
    bl_tensor number = bl_number(1), twice[] = {x, x};
    bl_program *p = NULL;
    const bl_device *device = bl_device_reference();
    assert_int_equal(bl_compile(device, &x, 1, &number, 1, NULL, &p), BL_INVALID);
    assert_int_equal(bl_compile(device, twice, 2, &y, 1, NULL, &p), BL_INVALID);
    assert_non_null(strstr(bl_error(), "\"x\" is listed twice"));
    assert_int_equal(bl_compile(device, &y, 1, &y, 1, NULL, &p), BL_INVALID);
    assert_int_equal(bl_compile(device, &x, 1, &y, 0, NULL, &p), BL_INVALID);
    assert_int_equal(bl_compile(bl_device_named("tpu"), &x, 1, &y, 1, NULL, &p), BL_INVALID);
    bl_tensor bad = bl_add(x, bl_input(*state, "z", BL_F32, BL_SHAPE(3)));
    assert_int_equal(bl_compile(device, &x, 1, &bad, 1, NULL, &p), BL_INVALID);
    assert_non_null(strstr(bl_error(), "add"));
}

/* Two arguments that are each other's results, written over each other. */
static void donated_buffers_may_swap(void **state)
{
    bl_tensor in[] = {bl_input(*state, "a", BL_F32, BL_SHAPE(2)),
                      bl_input(*state, "b", BL_F32, BL_SHAPE(2))};
    bl_tensor out[] = {in[1], in[0], bl_add(in[0], in[1])};
    bl_compile_options options = {.donation = (bl_donation[]){{0, 0}, {1, 1}}, .donations = 2};
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), in, 2, out, 3, &options, &p), BL_OK);
    bl_array a = array_of(BL_SHAPE(2), VALUES(1, 2)), b = array_of(BL_SHAPE(2), VALUES(30, 40));
    bl_array sum = array_of(BL_SHAPE(2), VALUES(0, 0));
    assert_int_equal(bl_run(p, (bl_array[]){a, b}, (bl_array[]){a, b, sum}), BL_OK);
    assert_true(bl_f32(&a)[0] == 30 && bl_f32(&a)[1] == 40);
    assert_true(bl_f32(&b)[0] == 1 && bl_f32(&b)[1] == 2);
    assert_true(bl_f32(&sum)[0] == 31 && bl_f32(&sum)[1] == 42);
    assert_int_equal(bl_run(p, (bl_array[]){a, b}, (bl_array[]){sum, b, a}), BL_INVALID);
    bl_program_free(p);
    bl_array_free(&a);
    bl_array_free(&b);
    bl_array_free(&sum);
}

static void impossible_donations_are_refused(void **state)
{
    bl_tensor x = bl_input(*state, "x", BL_F32, BL_SHAPE(2)), y = bl_sum(x);
    bl_compile_options options = {.donation = &(bl_donation){0, 0}, .donations = 1};
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), &x, 1, &y, 1, &options, &p), BL_INVALID);
    assert_non_null(strstr(bl_error(), "cannot be donated"));
    options.donation = &(bl_donation){0, 7};
    assert_int_equal(bl_compile(bl_device_reference(), &x, 1, &y, 1, &options, &p), BL_INVALID);
}

static void work_is_counted_from_the_graph(void **state)
{
    bl_tensor in[] = {bl_input(*state, "a", BL_F32, BL_SHAPE(2, 3)),
                      bl_input(*state, "b", BL_F32, BL_SHAPE(3, 5))};
    bl_tensor y = bl_exp(bl_matmul(in[0], in[1]));
    bl_program *p = NULL;
    assert_int_equal(bl_compile(bl_device_reference(), in, 2, &y, 1, NULL, &p), BL_OK);
    bl_work work = bl_program_work(p);
    assert_true(work.flops == 2 * 2 * 3 * 5 + 10);
    assert_true(work.bytes == 4 * (6 + 15 + 10) + 4 * (10 + 10));
    assert_int_equal(work.kernels, 2);
    char *text = bl_program_explain(p);
    assert_non_null(strstr(text, "%2 = dot %0, %1 : f32[2,5]  60 flops"));
    free(text);
    bl_program_free(p);
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, open_graph, close_graph)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FACT(unary_primitives_give_their_meaning),
        FACT(special_functions_at_known_points),
        FACT(binary_primitives_give_their_meaning),
        FACT(logic_select_and_clamp),
        FACT(integers_wrap_around_and_divide_by_zero_to_zero),
        FACT(casts_go_towards_zero_and_stay_in_range),
        FACT(iota_counts_along_its_axis),
        FACT(random_bits_are_philox_words),
        FACT(movement_moves),
        FACT(padding_between_neighbours_is_the_adjoint_of_a_stepped_slice),
        FACT(rows_are_taken_put_and_added),
        FACT(elements_are_taken_and_added_along_an_axis),
        FACT(argsort_is_stable_with_nan_at_the_far_end),
        FACT(an_index_out_of_range_is_named),
        FACT(every_indexing_primitive_checks_its_index),
        FACT(reductions_over_one_axis_and_all),
        FACT(the_first_extreme_wins_and_nan_is_one),
        FACT(integer_sums_wrap_around),
        FACT(sums_are_in_double),
        FACT(arrays_without_elements),
        FACT(dot_in_all_four_orientations),
        FACT(convolution_by_hand),
        FACT(convolution_in_groups_keeps_channels_apart),
        FACT(the_adjoints_of_convolution_by_hand),
        FACT(a_program_outlives_its_graph),
        FACT(running_allocates_nothing),
        FACT(a_wrong_argument_is_named),
        FACT(an_unlisted_input_is_named),
        FACT(calls_that_cannot_be_compiled),
        FACT(donated_buffers_may_swap),
        FACT(impossible_donations_are_refused),
        FACT(work_is_counted_from_the_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
