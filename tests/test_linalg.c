/* Linear algebra: decompositions put together again, their conventions, and gradients where values
 * coincide or vanish. */
#include <float.h>

#include "support.h"

#define S(...) BL_SHAPE(__VA_ARGS__)

static bl_tensor flipped(bl_tensor x)
{
    return bl_rank(x) == 3 ? bl_transpose(x, 0, 2, 1) : bl_transpose(x);
}

static bl_tensor identity(bl_graph *g, int64_t n)
{
    bl_tensor same = bl_eq(bl_iota(g, BL_I32, S(n, n), 0), bl_iota(g, BL_I32, S(n, n), 1));
    return bl_cast(same, BL_F64);
}

/* The largest |y| for pseudorandom inputs in [-1, 1]. */
static double largest_of(bl_tensor y, bl_tensor x)
{
    int64_t count = bl_type_count(bl_type_of(x));
    double *values = bl_alloc((size_t)count * sizeof *values);
    bl_random random = bl_random_new(bl_key_from_seed(3));
    for (int64_t i = 0; i < count; i++)
        values[i] = 2 * bl_random_unit(&random) - 1;
    bl_array z = evaluate(bl_reduce_max(bl_abs(y)), &x, (const double *const *)&values, 1);
    double largest = bl_array_get(&z, 0);
    bl_array_free(&z);
    bl_release(values);
    return largest;
}

static void expect_small(bl_tensor y, bl_tensor x, double bound)
{
    double got = largest_of(y, x);
    if (!(got <= bound))
        fail_msg("the largest is %g, expected at most %g", got, bound);
}

/* --- cholesky and triangular systems -----------------------------------------------------------
 */

static void cholesky_by_hand(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2);
    expect_result(bl_cholesky(x), x, VALUES(4, 2, 2, 10), VALUES(2, 0, 1, 3));
    expect_result(bl_cholesky(x), x, VALUES(4, 0, 4, 10), VALUES(2, 0, 1, 3)); /* symmetric part */
    bl_tensor one = input(state, BL_F32, 3, 1, 1);
    expect_result(bl_cholesky(one), one, VALUES(4, 9, 16), VALUES(2, 3, 4));
}

static void factors_multiply_to_the_matrix(void **state)
{
    bl_tensor x = input(state, BL_F64, 3, 20, 20);
    bl_tensor a = bl_add(bl_dot(x, x, false, true), identity(*state, 20));
    bl_tensor l = bl_cholesky(a);
    expect_small(bl_sub(bl_dot(l, l, false, true), a), x, 1e-13);
    bl_tensor half = bl_triangular_solve(l, x, false, false);
    bl_tensor solved = bl_triangular_solve(l, half, false, true);
    expect_small(bl_sub(bl_dot(a, solved, false, false), x), x, 1e-11);
    bl_tensor right = bl_triangular_solve(l, bl_triangular_solve(l, x, true, true), true, false);
    expect_small(bl_sub(bl_dot(right, a, false, false), x), x, 1e-11);
}

static void the_gradient_of_a_log_determinant_is_the_inverse(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2);
    bl_tensor l = bl_cholesky(x), diagonal = bl_sum(bl_mul(l, identity(*state, 2)), 1);
    expect_gradient(bl_mul(2, bl_sum(bl_log(diagonal))), x, VALUES(4, 2, 2, 10),
                    VALUES(10. / 36, -2. / 36, -2. / 36, 4. / 36));
}

static void an_indefinite_matrix_is_an_error_of_the_run(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2, 2), l = bl_cholesky(x);
    bl_array in = array_of(bl_type_of(x), VALUES(1, 0, 0, 1, 1, 2, 2, 1)), out;
    assert_int_equal(bl_evaluate(bl_device_reference(), &x, &in, 1, &l, &out, 1), BL_INVALID);
    const char *expected = "cholesky: matrix 1 is not positive definite: pivot 1 is -3, at ";
    assert_memory_equal(bl_error(), expected, strlen(expected));
    bl_array_free(&in);
}

static void only_the_lower_triangle_is_read(void **state)
{
    bl_tensor b = input(state, BL_F64, 2, 1);
    bl_array values = array_of((bl_type){BL_F64, S(2, 2)}, VALUES(2, NAN, 1, 4));
    bl_tensor l = bl_constant(*state, &values);
    bl_array_free(&values);
    expect_result(bl_triangular_solve(l, b, false, false), b, VALUES(6, 11), VALUES(3, 2));
    expect_result(bl_triangular_solve(l, b, false, true), b, VALUES(6, 8), VALUES(2, 2));
}

/* --- eigh --------------------------------------------------------------------------------------
 */

static void eigenvalues_ascend_and_vectors_point_forward(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2), w, v;
    double half = sqrt(0.5);
    bl_eigh(x, &w, &v);
    expect_result(w, x, VALUES(2, 1, 1, 2), VALUES(1, 3));
    expect_result(bl_abs(v), x, VALUES(2, 1, 1, 2), VALUES(half, half, half, half));
    expect_result(bl_reduce_max(v, 0), x, VALUES(2, 1, 1, 2), VALUES(half, half));
    expect_result(v, x, VALUES(3, 0, 0, -5), VALUES(0, 1, 1, 0));
    bl_tensor one = input(state, BL_F64, 1, 1);
    bl_eigh(one, &w, &v);
    expect_result(bl_add(bl_expand(w, 1), v), one, VALUES(-7), VALUES(-6));
}

static void eigenvectors_rebuild_the_matrix(void **state)
{
    bl_tensor x = input(state, BL_F64, 3, 24, 24), w, v;
    bl_tensor a = bl_add(x, flipped(x));
    bl_eigh(a, &w, &v);
    bl_tensor back = bl_dot(bl_mul(v, bl_expand(w, -2)), v, false, true);
    expect_small(bl_sub(back, a), x, 1e-12);
    expect_small(bl_sub(bl_dot(v, v, true, false), identity(*state, 24)), x, 1e-13);
    bl_tensor largest = bl_reduce_max(bl_abs(v), 1);
    expect_small(bl_sub(bl_reduce_max(v, 1), largest), x, 0);
    expect_small(bl_relu(bl_sub(bl_slice_axis(w, 1, 0, 23), bl_slice_axis(w, 1, 1, 24))), x, 0);
}

static void eigenvalues_that_coincide_have_finite_gradients(void **state)
{
    bl_tensor x = input(state, BL_F64, 3, 3), w, v;
    const double *twice = VALUES(2, 0, 0, 0, 2, 0, 0, 0, 5);
    bl_eigh(x, &w, &v);
    expect_gradient(bl_sum(w), x, twice, VALUES(1, 0, 0, 0, 1, 0, 0, 0, 1));
    bl_tensor square = bl_sum(bl_mul(w, w)); /* |x|^2, whose gradient is 2x and Hessian 2 */
    expect_gradient(square, x, twice, VALUES(4, 0, 0, 0, 4, 0, 0, 0, 10));
    bl_tensor rebuilt = bl_dot(bl_mul(v, bl_expand(bl_mul(w, w), -2)), v, false, true);
    bl_tensor corner = bl_slice(rebuilt, S(0, 0), S(1, 1), S(1, 1)); /* (x^2)[0,0] */
    expect_gradient(bl_sum(corner), x, twice, VALUES(4, 0, 0, 0, 0, 0, 0, 0, 0));
    bl_tensor any = gradient(bl_sum(bl_mul(v, bl_iota(*state, BL_F64, S(3, 3), 0))), x);
    bl_tensor second = gradient(bl_sum(bl_mul(any, any)), x);
    expect_result(bl_cast(bl_isfinite(second), BL_F64), x, VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0),
                  VALUES(1, 1, 1, 1, 1, 1, 1, 1, 1));
}

/* --- ridge regression -------------------------------------------------------------------------
 */

/* Its rule, once and twice, against differentiation of the steps. */
static void a_ridge_solution_has_the_gradient_of_its_steps(void **state)
{
    bl_tensor all = input(state, BL_F64, 11, 6), b = bl_slice_axis(all, 0, 0, 2);
    bl_tensor x = bl_slice_axis(all, 0, 2, 10), least = bl_pick(bl_pick(all, 0, 10), 0, 0);
    bl_tensor ridge = bl_add(1.5, least);
    bl_tensor a = bl_add(bl_dot(x, x, true, false), bl_mul(ridge, identity(*state, 6)));
    bl_tensor l = bl_cholesky(a), half = bl_triangular_solve(l, b, true, true);
    bl_tensor z[] = {bl_ridge_solve(b, x, ridge), bl_triangular_solve(l, half, true, false)};
    bl_tensor once[2], twice[2];
    for (int i = 0; i < 2; i++) {
        once[i] = gradient(bl_sum(bl_mul(z[i], bl_exp(z[i]))), all);
        twice[i] = gradient(bl_sum(bl_mul(once[i], bl_sin(all))), all);
    }
    expect_small(bl_sub(z[0], z[1]), all, 1e-13);
    expect_small(bl_sub(once[0], once[1]), all, 1e-11);
    expect_small(bl_sub(twice[0], twice[1]), all, 1e-9);
}

/* --- svd ---------------------------------------------------------------------------------------
 */

static void check_svd(bl_graph *g, bl_tensor x)
{
    bl_tensor u, s, v;
    bl_svd(x, &u, &s, &v);
    int64_t k = bl_dim(s, -1);
    bl_tensor back = bl_dot(bl_mul(u, bl_expand(s, -2)), v, false, true);
    expect_small(bl_sub(back, x), x, 1e-13);
    expect_small(bl_sub(bl_dot(u, u, true, false), identity(g, k)), x, 1e-13);
    expect_small(bl_sub(bl_dot(v, v, true, false), identity(g, k)), x, 1e-13);
    expect_small(bl_sub(bl_reduce_max(u, -2), bl_reduce_max(bl_abs(u), -2)), x, 0);
}

static void singular_vectors_rebuild_the_matrix(void **state)
{
    check_svd(*state, input(state, BL_F64, 2, 9, 17));
    check_svd(*state, input(state, BL_F64, 17, 9));
    check_svd(*state, input(state, BL_F64, 12, 12));
    check_svd(*state, input(state, BL_F64, 5, 1));
    check_svd(*state, input(state, BL_F64, 1, 1));
}

static void svd_by_hand(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 3), u, s, v;
    bl_svd(x, &u, &s, &v);
    const double *values = VALUES(0, 0, -2, 3, 0, 0);
    expect_result(u, x, values, VALUES(0, 1, 1, 0));
    expect_result(s, x, values, VALUES(3, 2));
    expect_result(v, x, values, VALUES(1, 0, 0, 0, 0, -1));
}

static void the_largest_singular_values_give_the_nearest_matrix_of_low_rank(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 3), u, s, v;
    const double *values = VALUES(0, 0, -2, 3, 0, 0);
    bl_truncated_svd(x, 1, &u, &s, &v);
    expect_result(s, x, values, VALUES(3));
    bl_tensor nearest = bl_dot(bl_mul(u, bl_expand(s, -2)), v, false, true);
    expect_result(nearest, x, values, VALUES(0, 0, 0, 3, 0, 0));
    expect_gradient(bl_sum(s), x, values, VALUES(0, 0, 0, 1, 0, 0));
    bl_truncated_svd(x, 3, &u, &s, &v);
    expect_error(v, "truncated_svd: rank is 3, expected at most 2, the smaller side of f64[2,3]");
}

static void a_singular_matrix_has_a_whole_basis_and_a_finite_gradient(void **state)
{
    bl_tensor x = input(state, BL_F64, 3, 2), u, s, v;
    const double *one = VALUES(3, 4, 3, 4, 3, 4), *zero = VALUES(0, 0, 0, 0, 0, 0);
    bl_svd(x, &u, &s, &v);
    expect_result(s, x, one, VALUES(5 * sqrt(3), 0));
    expect_result(bl_dot(u, u, true, false), x, one, VALUES(1, 0, 0, 1));
    expect_result(bl_dot(u, u, true, false), x, zero, VALUES(1, 0, 0, 1));
    expect_result(bl_dot(v, v, true, false), x, zero, VALUES(1, 0, 0, 1));
    bl_tensor dx = gradient(bl_add(bl_sum(bl_exp(u)), bl_sum(bl_exp(v))), x);
    bl_tensor second = gradient(bl_sum(bl_mul(dx, dx)), x);
    expect_result(bl_cast(bl_isfinite(dx), BL_F64), x, zero, VALUES(1, 1, 1, 1, 1, 1));
    expect_result(bl_cast(bl_isfinite(second), BL_F64), x, one, VALUES(1, 1, 1, 1, 1, 1));
    /* the largest value alone: its gradient is u v^T */
    double third = 1 / sqrt(3);
    expect_gradient(bl_sum(bl_slice_axis(s, 0, 0, 1)), x, one,
                    VALUES(.6 * third, .8 * third, .6 * third, .8 * third, .6 * third, .8 * third));
}

/* The rule for values alone, and the whole rule, which a vector that counts nothing asks for. */
static void values_alone_have_the_gradient_of_the_whole_rule(void **state)
{
    bl_tensor x = input(state, BL_F64, 9, 6), square = input(state, BL_F64, 7, 7), u, s, v, w, e;
    bl_svd(x, &u, &s, &v);
    bl_tensor alone = bl_sum(bl_square(s)), whole = bl_add(alone, bl_mul(0, bl_sum(bl_mul(u, u))));
    expect_small(bl_sub(gradient(alone, x), bl_mul(2, x)), x, 1e-13);
    expect_small(bl_sub(gradient(whole, x), bl_mul(2, x)), x, 1e-13);
    bl_eigh(square, &w, &e);
    alone = bl_sum(bl_mul(w, bl_square(w)));
    whole = bl_add(alone, bl_mul(0, bl_sum(bl_mul(e, e))));
    expect_small(bl_sub(gradient(alone, square), gradient(whole, square)), square, 1e-12);
    bl_tensor part = bl_mul(0.5, bl_add(square, flipped(square)));
    bl_tensor expected = bl_mul(3, bl_dot(part, part, false, false));
    expect_small(bl_sub(gradient(alone, square), expected), square, 1e-12);
}

static void the_nuclear_norm_of_a_rotation(void **state) /* all singular values are 1 */
{
    bl_tensor x = input(state, BL_F64, 2, 2), u, s, v;
    bl_svd(x, &u, &s, &v);
    expect_gradient(bl_sum(s), x, VALUES(.6, -.8, .8, .6), VALUES(.6, -.8, .8, .6));
    bl_tensor polar = bl_dot(u, v, false, true);
    expect_result(polar, x, VALUES(.6, -.8, .8, .6), VALUES(.6, -.8, .8, .6));
}

/* --- the cpu against the reference -------------------------------------------------------------
 */

/* Pseudorandom in [-1, 1], of this rank where rank is not 0. */
static bl_array random_matrices(bl_dtype dtype, bl_shape shape, int64_t rank)
{
    bl_array a;
    expect_ok(bl_array_new(dtype, shape, &a));
    bl_random random = bl_random_new(bl_key_from_seed((uint64_t)(shape.dim[1] * 71 + rank)));
    int64_t m = shape.dim[1], n = shape.dim[2];
    for (int64_t i = 0; i < bl_array_count(&a); i++)
        bl_array_set(&a, i, 2 * bl_random_unit(&random) - 1);
    for (int64_t i = 0; i < bl_array_count(&a) && rank; i++) /* rows repeat */
        if (i / n % m >= rank)
            bl_array_set(&a, i, bl_array_get(&a, i - rank * n));
    return a;
}

enum { RESULTS = 3 };

/* Both executors answer the same. */
static void expect_agreement(bl_tensor x, const bl_array *in, const bl_tensor *y, int count,
                             double tolerance)
{
    bl_array z[2][RESULTS] = {0};
    bl_status status[2];
    status[0] = bl_evaluate(bl_device_reference(), &x, in, 1, y, z[0], count);
    status[1] = bl_evaluate(bl_device_cpu(), &x, in, 1, y, z[1], count);
    assert_int_equal(status[0], status[1]);
    for (int o = 0; o < count && status[0] == BL_OK; o++)
        for (int64_t i = 0; i < bl_array_count(&z[0][o]); i++)
            if (!close_to(bl_array_get(&z[1][o], i), bl_array_get(&z[0][o], i), tolerance))
                fail_msg("%s: result %d, element %lld: cpu %.17g, reference %.17g",
                         bl_show(bl_type_of(x)), o, (long long)i, bl_array_get(&z[1][o], i),
                         bl_array_get(&z[0][o], i));
    for (int o = 0; o < count; o++) {
        bl_array_free(&z[0][o]);
        bl_array_free(&z[1][o]);
    }
}

static bl_tensor unit(bl_tensor like, int64_t n)
{
    return bl_cast(identity(like.graph, n), bl_type_of(like).dtype);
}

/* Values, and what is put together again from values and vectors, whose sign the largest
 * component of the first gives. */
static void compare_svd(bl_dtype dtype, int64_t m, int64_t n, int64_t rank)
{
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "x", dtype, S(2, m, n)), u, s, v;
    bl_array in = random_matrices(dtype, S(2, m, n), rank);
    int64_t k = m < n ? m : n;
    /* Under valgrind the long doubles that BLAS adds in are doubles. */
    volatile long double one = 1;
    double exact = one + LDBL_EPSILON > one ? 2e-13 : 1e-12;
    double tolerance = dtype == BL_F64 ? exact : 1e-5;
    bl_svd(x, &u, &s, &v);
    bl_tensor back = bl_sub(bl_dot(bl_mul(u, bl_expand(s, -2)), v, false, true), x);
    bl_tensor right = bl_sub(bl_dot(v, v, true, false), unit(x, k));
    bl_tensor left = bl_sub(bl_dot(u, u, true, false), unit(x, k));
    bl_tensor sign = bl_sub(bl_reduce_max(u, -2), bl_reduce_max(bl_abs(u), -2));
    expect_agreement(x, &in, &s, 1, tolerance);
    expect_agreement(x, &in, (bl_tensor[]){back, left, right}, 3, tolerance);
    expect_agreement(x, &in, &sign, 1, 0);
    if (!rank)
        expect_agreement(x, &in, (bl_tensor[]){u, v}, 2, dtype == BL_F64 ? 1e-9 : 1e-4);
    bl_array_free(&in);
    bl_graph_free(g);
}

static void compare_symmetric(bl_dtype dtype, int64_t n)
{
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "x", dtype, S(3, n, n)), w, v;
    bl_array in = random_matrices(dtype, S(3, n, n), 0);
    double tolerance = dtype == BL_F64 ? 2e-13 : 1e-5;
    bl_tensor a = bl_add(x, flipped(x));
    bl_eigh(a, &w, &v);
    bl_tensor back = bl_sub(bl_dot(bl_mul(v, bl_expand(w, -2)), v, false, true), a);
    bl_tensor turned = bl_sub(bl_dot(v, v, true, false), unit(x, n));
    expect_agreement(x, &in, (bl_tensor[]){w, back, turned}, 3, tolerance);
    expect_agreement(x, &in, &v, 1, dtype == BL_F64 ? 1e-9 : 1e-4);
    bl_tensor l = bl_cholesky(bl_add(bl_dot(x, x, false, true), unit(x, n)));
    expect_agreement(x, &in, &l, 1, tolerance);
    for (int flags = 0; flags < 4; flags++) {
        bl_tensor solved = bl_triangular_solve(l, x, flags & 1, flags >> 1);
        expect_agreement(x, &in, &solved, 1, dtype == BL_F64 ? 1e-11 : 1e-4);
    }
    bl_tensor wide = bl_triangular_solve(l, bl_slice_axis(x, 2, 0, 1), false, true);
    expect_agreement(x, &in, &wide, 1, dtype == BL_F64 ? 1e-11 : 1e-4);
    bl_array_free(&in);
    bl_graph_free(g);
}

static void the_cpu_decomposes_as_the_reference_does(void **state)
{
    (void)state;
    static const int64_t size[] = {1, 2, 7, 8, 9, 16, 25, 26, 33, 70};
    for (int i = 0; i < COUNT_OF(size); i++)
        for (int f64 = 0; f64 < 2; f64++) {
            bl_dtype dtype = f64 ? BL_F64 : BL_F32;
            compare_symmetric(dtype, size[i]);
            compare_svd(dtype, size[i], size[i], 0);
            compare_svd(dtype, size[i], 31, 0);
            compare_svd(dtype, 12, size[i], 0);
            compare_svd(dtype, 70, size[i], size[i] > 2 ? 3 : 0);
        }
}

/* All values are the same, or all are 0: any basis will do, and the cpu's must be one. */
static void the_cpu_decomposes_multiples_of_the_identity(void **state)
{
    enum { N = 20 };
    bl_tensor x = bl_input(*state, "x", BL_F64, S(N, N)), u, s, v, w, q;
    bl_svd(x, &u, &s, &v);
    bl_eigh(x, &w, &q);
    bl_tensor one = identity(*state, N);
    bl_tensor wrong = bl_abs(bl_sub(bl_dot(bl_mul(u, bl_expand(s, -2)), v, false, true), x));
    wrong = bl_add(wrong, bl_abs(bl_sub(bl_dot(u, u, true, false), one)));
    wrong = bl_add(wrong, bl_abs(bl_sub(bl_dot(q, q, true, false), one)));
    wrong = bl_add(wrong, bl_abs(bl_sub(bl_dot(bl_mul(q, bl_expand(w, -2)), q, false, true), x)));
    for (int scale = 0; scale < 3; scale++) {
        bl_array in, out;
        expect_ok(bl_array_new(BL_F64, S(N, N), &in));
        for (int64_t i = 0; i < N * N; i++)
            bl_array_set(&in, i, i / N == i % N ? scale : 0);
        expect_ok(bl_evaluate(bl_device_cpu(), &x, &in, 1, &wrong, &out, 1));
        for (int64_t i = 0; i < N * N; i++)
            assert_true(bl_array_get(&out, i) < 1e-13);
        bl_array_free(&in);
        bl_array_free(&out);
    }
}

/* NaN and infinity in any place, and pivots that are not positive: the same answer, the same words.
 */
static void the_cpu_treats_what_is_not_finite_as_the_reference_does(void **state)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    enum { N = 10 };
    bl_tensor x = bl_input(*state, "x", BL_F64, S(2, N, N)), w, v, u, s, r;
    bl_eigh(x, &w, &v);
    bl_svd(x, &u, &s, &r);
    bl_tensor solved = bl_triangular_solve(x, x, false, false);
    for (int i = 0; i < 3; i++)
        for (int64_t at = 0; at < 2 * N * N; at += 37) {
            bl_array in = random_matrices(BL_F64, S(2, N, N), 0);
            bl_array_set(&in, at, bad[i]);
            expect_agreement(x, &in, (bl_tensor[]){w, v}, 2, 1e-9);
            expect_agreement(x, &in, (bl_tensor[]){u, s, r}, 3, 1e-9);
            expect_agreement(x, &in, &solved, 1, 1e-6);
            bl_array_free(&in);
        }
}

static void the_cpu_names_the_pivot_that_the_reference_names(void **state)
{
    enum { N = 10 };
    bl_tensor x = bl_input(*state, "x", BL_F64, S(2, N, N)), l = bl_cholesky(x);
    for (int k = 0; k < 4; k++) {
        bl_array in, out = {0};
        expect_ok(bl_array_new(BL_F64, S(2, N, N), &in));
        for (int64_t i = 0; i < 2 * N * N; i++)
            bl_array_set(&in, i, k == 2 ? 4 : i / N % N == i % N ? 2 : 1);
        if (k != 2)
            bl_array_set(&in, N * N + 4 * N + 4, k == 0 ? -3 : k == 1 ? NAN : 0);
        char message[256];
        assert_int_equal(bl_evaluate(bl_device_reference(), &x, &in, 1, &l, &out, 1), BL_INVALID);
        snprintf(message, sizeof message, "%s", bl_error());
        assert_int_equal(bl_evaluate(bl_device_cpu(), &x, &in, 1, &l, &out, 1), BL_INVALID);
        assert_string_equal(bl_error(), message);
        bl_array_free(&in);
    }
}

/* --- edges -------------------------------------------------------------------------------------
 */

static void matrices_of_nothing(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 0, 0), flat = input(state, BL_F64, 3, 0), u, s, v, w;
    bl_eigh(x, &w, &v);
    expect_type(w, "f64[2,0]");
    expect_type(v, "f64[2,0,0]");
    expect_gradient(bl_add(bl_sum(w), bl_sum(v)), x, VALUES(0), VALUES(0));
    expect_gradient(bl_sum(bl_cholesky(x)), x, VALUES(0), VALUES(0));
    bl_svd(flat, &u, &s, &v);
    expect_type(u, "f64[3,0]");
    expect_type(s, "f64[0]");
    expect_type(v, "f64[0,0]");
    expect_gradient(bl_add(bl_sum(u), bl_sum(s)), flat, VALUES(0), VALUES(0));
    bl_tensor l = input(state, BL_F64, 2, 2), none = bl_zeros_like(bl_slice_axis(l, 1, 0, 0));
    expect_result(bl_sum(bl_triangular_solve(l, none, false, true)), l, VALUES(1, 0, 0, 1),
                  VALUES(0));
}

static bl_tensor eigenvalues(bl_tensor x)
{
    bl_tensor w, v;
    bl_eigh(x, &w, &v);
    assert_true(bl_is_poison(v));
    return w;
}

static bl_tensor singular_values(bl_tensor x)
{
    bl_tensor u, s, v;
    bl_svd(x, &u, &s, &v);
    assert_true(bl_is_poison(u) && bl_is_poison(v));
    return s;
}

#define REFUSES(expression, message)                                                               \
    do {                                                                                           \
        bl_graph *fresh = bl_graph_new();                                                          \
        bl_tensor a = bl_input(fresh, "a", BL_F32, S(2, 3)),                                       \
                  c = bl_input(fresh, "c", BL_I32, S(2, 2));                                       \
        bl_tensor l = bl_input(fresh, "l", BL_F32, S(2, 2));                                       \
        (void)a, (void)c, (void)l;                                                                 \
        expect_error(expression, message);                                                         \
        bl_graph_free(fresh);                                                                      \
    } while (0)

static void errors_name_what_is_wrong(void **state)
{
    (void)state;
    REFUSES(bl_cholesky(a), "cholesky: the last two axes of f32[2,3] differ");
    REFUSES(bl_cholesky(c), "cholesky: operand must be float [..,n,n], not i32[2,2]");
    REFUSES(bl_cholesky(bl_sum(a)), "cholesky: operand must be float [..,n,n], not f32[]");
    REFUSES(bl_cholesky(4), "cholesky: needs a tensor, not the bare number 4");
    REFUSES(eigenvalues(a), "eigh: the last two axes of f32[2,3] differ");
    REFUSES(singular_values(c), "svd: operand must be float [..,m,n], not i32[2,2]");
    REFUSES(bl_triangular_solve(a, a, false, false),
            "triangular_solve: the last two axes of f32[2,3] differ");
    REFUSES(bl_triangular_solve(l, a, true, false),
            "triangular_solve: L and b do not fit: f32[2,2] and f32[2,3]");
    REFUSES(bl_triangular_solve(l, bl_sum(a, 0), false, false),
            "triangular_solve: L and b do not fit: f32[2,2] and f32[3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cholesky_by_hand),
        TEST(factors_multiply_to_the_matrix),
        TEST(the_gradient_of_a_log_determinant_is_the_inverse),
        TEST(an_indefinite_matrix_is_an_error_of_the_run),
        TEST(only_the_lower_triangle_is_read),
        TEST(eigenvalues_ascend_and_vectors_point_forward),
        TEST(eigenvectors_rebuild_the_matrix),
        TEST(eigenvalues_that_coincide_have_finite_gradients),
        TEST(singular_vectors_rebuild_the_matrix),
        TEST(a_ridge_solution_has_the_gradient_of_its_steps),
        TEST(svd_by_hand),
        TEST(the_largest_singular_values_give_the_nearest_matrix_of_low_rank),
        TEST(a_singular_matrix_has_a_whole_basis_and_a_finite_gradient),
        TEST(values_alone_have_the_gradient_of_the_whole_rule),
        TEST(the_nuclear_norm_of_a_rotation),
        TEST(the_cpu_decomposes_as_the_reference_does),
        TEST(the_cpu_decomposes_multiples_of_the_identity),
        TEST(the_cpu_treats_what_is_not_finite_as_the_reference_does),
        TEST(the_cpu_names_the_pivot_that_the_reference_names),
        TEST(matrices_of_nothing),
        TEST(errors_name_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
