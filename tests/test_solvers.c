/* Solvers in graphs: known answers, what stops them, and gradients against the differentiation of
 * the steps that a solver takes. */
#include "support.h"

#include "ballast/solve.h"

static double *random_values(int64_t count, uint64_t seed)
{
    double *values = bl_alloc((size_t)count * sizeof *values);
    bl_random random = bl_random_new(bl_key_from_seed(seed));
    for (int64_t i = 0; i < count; i++)
        values[i] = 2 * bl_random_unit(&random) - 1;
    return values;
}

/* y is zero, up to `tolerance`, at pseudorandom values of up to four inputs, on both executors. */
static void expect_zero(bl_tensor y, const bl_tensor *x, int count, double tolerance)
{
    double *values[4];
    bl_array in[4], z;
    bl_tensor largest = bl_reduce_max(bl_abs(y));
    for (int i = 0; i < count; i++) {
        values[i] = random_values(bl_type_count(bl_type_of(x[i])), (uint64_t)i + 5);
        in[i] = array_of(bl_type_of(x[i]), values[i]);
    }
    const bl_device *device[] = {bl_device_reference(), bl_device_cpu()};
    for (int d = 0; d < 2; d++) {
        expect_ok(bl_evaluate(device[d], x, in, count, &largest, &z, 1));
        if (!(bl_array_get(&z, 0) <= tolerance))
            fail_msg("the largest difference is %g", bl_array_get(&z, 0));
        bl_array_free(&z);
    }
    for (int i = 0; i < count; i++) {
        bl_array_free(&in[i]);
        bl_release(values[i]);
    }
}

/* The scalars a and b, functions of x, agree in value, gradient and, with `twice`, in the gradient
 * of a function of the gradient. */
static void expect_same_function(bl_tensor a, bl_tensor b, const bl_tensor *x, int count,
                                 bool twice)
{
    bl_tensor da[4], db[4], slope_a = bl_number(0), slope_b = bl_number(0);
    expect_zero(bl_sub(a, b), x, count, 1e-9);
    bl_grad(a, x, count, da);
    bl_grad(b, x, count, db);
    for (int i = 0; i < count; i++) {
        expect_zero(bl_sub(da[i], db[i]), x, count, 1e-8);
        slope_a = bl_add(slope_a, bl_sum(bl_mul(da[i], bl_sin(da[i]))));
        slope_b = bl_add(slope_b, bl_sum(bl_mul(db[i], bl_sin(db[i]))));
    }
    if (!twice)
        return;
    bl_grad(slope_a, x, count, da);
    bl_grad(slope_b, x, count, db);
    for (int i = 0; i < count; i++)
        expect_zero(bl_sub(da[i], db[i]), x, count, 1e-7);
}

/* --- conjugate gradients -----------------------------------------------------------------------
 */

/* (X^T X + exp(t) I) w, p = X, t. */
static bl_tensor ridge(bl_graph *g, bl_tensor w, const bl_tensor *p, void *context)
{
    (void)g, (void)context;
    return bl_add(bl_matmul(bl_transpose(p[0]), bl_matmul(p[0], w)), bl_mul(bl_exp(p[1]), w));
}

static void a_system_of_two_unknowns(void **state) /* [3 1; 1 3] w = (1, 5) */
{
    bl_tensor x = input(state, BL_F64, 1, 2), t = bl_full(*state, BL_F64, BL_SCALAR, log(2));
    bl_tensor b = bl_add(bl_mul(bl_iota(*state, BL_F64, BL_SHAPE(2), 0), 4), 1);
    bl_tensor p[] = {x, t};
    bl_solution report;
    bl_tensor w = bl_conjugate_gradients(ridge, NULL, p, 2, b, 1e-12, 100, &report);
    expect_result(w, x, VALUES(1, 1), VALUES(-0.25, 1.75));
    expect_result(report.steps, x, VALUES(1, 1), VALUES(2));
    expect_result(report.good, x, VALUES(1, 1), VALUES(1));
    w = bl_conjugate_gradients(ridge, NULL, p, 2, bl_zeros_like(b), 1e-12, 100, &report);
    expect_result(w, x, VALUES(1, 1), VALUES(0, 0));
    expect_result(report.steps, x, VALUES(1, 1), VALUES(0));
}

static bl_tensor minus(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g, (void)p, (void)context;
    return bl_neg(x);
}

static void what_is_not_positive_definite_is_reported(void **state)
{
    bl_tensor b = input(state, BL_F32, 2);
    bl_solution report;
    bl_tensor x = bl_conjugate_gradients(minus, NULL, NULL, 0, b, 1e-6, 9, &report);
    expect_result(report.good, b, VALUES(1, 2), VALUES(0));
    expect_result(x, b, VALUES(1, 2), VALUES(0, 0));
}

/* w by elimination, through the Cholesky factor, which the engine differentiates by itself. */
static bl_tensor ridge_direct(bl_tensor x, bl_tensor t, bl_tensor b)
{
    int64_t n = bl_dim(x, 1);
    bl_tensor i = bl_iota(b.graph, BL_F64, BL_SHAPE(n, n), 0);
    bl_tensor one = bl_cast(bl_eq(i, bl_iota(b.graph, BL_F64, BL_SHAPE(n, n), 1)), BL_F64);
    bl_tensor a = bl_add(bl_matmul(bl_transpose(x), x), bl_mul(bl_exp(t), one));
    bl_tensor l = bl_cholesky(a), y = bl_triangular_solve(l, bl_expand(b, 1), false, false);
    return bl_squeeze(bl_triangular_solve(l, y, false, true), 1);
}

static void the_solution_of_a_system_is_differentiable_twice(void **state)
{
    bl_tensor x = input(state, BL_F64, 5, 3), t = scalar_input(state, BL_F64);
    bl_tensor b = input(state, BL_F64, 3), p[] = {x, t}, all[] = {x, t, b};
    bl_tensor w = bl_conjugate_gradients(ridge, NULL, p, 2, b, 1e-13, 100, NULL);
    bl_tensor direct = ridge_direct(x, t, b);
    expect_same_function(bl_sum(bl_mul(w, bl_sin(w))), bl_sum(bl_mul(direct, bl_sin(direct))), all,
                         3, true);
}

/* --- Sinkhorn ----------------------------------------------------------------------------------
 */

static bl_tensor simplex(bl_tensor x)
{
    return bl_softmax(x, -1);
}

static void two_points_are_matched_by_cost(void **state)
{
    /* Cost 0 on the diagonal and c beside it: P is symmetric, P_01 / P_00 = exp(-c / epsilon). */
    bl_tensor c = input(state, BL_F64, 2, 2);
    bl_tensor half = bl_full(*state, BL_F64, BL_SHAPE(2), 0.5);
    bl_transport t;
    bl_sinkhorn(c, half, half, 0.5, 1e-12, 1000, &t);
    double z = 2 * (1 + exp(-2)), near = 1 / z, far = exp(-2) / z;
    double value = 2 * far - 0.5 * (-2 * near * log(near) - 2 * far * log(far));
    expect_result(t.plan, c, VALUES(0, 1, 1, 0), VALUES(near, far, far, near));
    expect_result(t.value, c, VALUES(0, 1, 1, 0), VALUES(value));
    expect_result(t.steps, c, VALUES(0, 1, 1, 0), VALUES(10));
    expect_gradient(t.value, c, VALUES(0, 1, 1, 0), VALUES(near, far, far, near));
}

/* The value by the steps written out, for the engine to differentiate. */
static bl_tensor unrolled(bl_tensor c, bl_tensor a, bl_tensor b, double epsilon, int steps)
{
    bl_tensor f = bl_zeros_like(a), g = bl_zeros_like(b);
    for (int i = 0; i < steps; i++) {
        f = bl_mul(epsilon,
                   bl_sub(bl_log(a), bl_logsumexp(bl_div(bl_sub(bl_expand(g, 0), c), epsilon), 1)));
        g = bl_mul(epsilon,
                   bl_sub(bl_log(b), bl_logsumexp(bl_div(bl_sub(bl_expand(f, 1), c), epsilon), 0)));
    }
    bl_tensor log_plan = bl_div(bl_sub(bl_add(bl_expand(f, 1), bl_expand(g, 0)), c), epsilon);
    return bl_sum(bl_mul(bl_exp(log_plan), bl_add(c, bl_mul(epsilon, log_plan))));
}

static void the_envelope_is_the_gradient_of_the_steps(void **state)
{
    bl_tensor c = input(state, BL_F64, 4, 6), x = input(state, BL_F64, 4);
    bl_tensor y = input(state, BL_F64, 6), all[] = {c, x, y}, a = simplex(x), b = simplex(y);
    bl_tensor steps = unrolled(c, a, b, 0.5, 120);
    bl_transport t;
    bl_sinkhorn(c, a, b, 0.5, 1e-14, 1000, &t);
    expect_same_function(t.value, steps, all, 3, false);
    bl_sinkhorn(c, a, b, 0.5, 0, 120, &t); /* one scan */
    expect_same_function(t.value, steps, all, 3, false);
}

static void sinkhorn_keeps_to_its_limit(void **state)
{
    bl_tensor c = input(state, BL_F64, 4, 6), a = bl_full(*state, BL_F64, BL_SHAPE(4), 0.25);
    bl_tensor b = bl_full(*state, BL_F64, BL_SHAPE(6), 1.0 / 6);
    for (int limit = 0; limit < 25; limit += 4) {
        bl_transport t, u;
        bl_sinkhorn(c, a, b, 0.1, 1e-14, limit, &t);
        bl_sinkhorn(c, a, b, 0.1, 0, limit, &u);
        expect_zero(bl_sub(t.plan, u.plan), &c, 1, 1e-9);
        expect_zero(bl_sub(t.steps, u.steps), &c, 1, 0);
        expect_zero(bl_sub(t.violation, bl_sum(bl_abs(bl_sub(bl_sum(t.plan, 1), a)))), &c, 1, 1e-9);
        expect_zero(bl_mean(t.f), &c, 1, 1e-9);
    }
}

static void sinkhorn_refuses_masses_that_do_not_fit(void **state)
{
    bl_tensor c = input(state, BL_F64, 4, 6), a = input(state, BL_F64, 4);
    bl_transport t;
    bl_sinkhorn(c, a, a, 0.1, 1e-6, 10, &t);
    expect_error(t.value, "sinkhorn: cost [n,m] with masses a[n] and b[m] expected, not f64[4,6], "
                          "f64[4], f64[4]");
}

/* --- L-BFGS ------------------------------------------------------------------------------------
 */

/* Rosenbrock's valley, floor at (1, 1). */
static bl_tensor valley(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g, (void)p, (void)context;
    bl_tensor a = bl_slice_axis(x, 0, 0, 1), b = bl_slice_axis(x, 0, 1, 2);
    return bl_sum(bl_add(bl_square(bl_sub(1, a)), bl_mul(100, bl_square(bl_sub(b, bl_square(a))))));
}

static void the_floor_of_a_bent_valley_is_found(void **state)
{
    bl_tensor start = input(state, BL_F64, 2);
    bl_solution report;
    bl_tensor x = bl_minimize(valley, NULL, NULL, 0, start, 0, 1e-11, 200, &report);
    bl_array steps = evaluate(report.steps, &start, (const double *[]){VALUES(-1.2, 1)}, 1);
    assert_in_range(bl_array_get(&steps, 0), 10, 60);
    bl_array_free(&steps);
    expect_zero(bl_select(bl_gt(report.residual, 1e-11), 1, 0), &start, 1, 0);
    expect_zero(bl_sub(x, 1), &start, 1, 1e-9);
}

/* |x_0| + 2 |x_1|: gradients jump at the minimum. */
static bl_tensor folded(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g, (void)p, (void)context;
    return bl_sum(bl_mul(bl_add(bl_iota(x.graph, BL_F64, BL_SHAPE(2), 0), 1), bl_abs(x)));
}

static void a_minimum_without_a_slope_ends_the_search(void **state)
{
    bl_tensor start = input(state, BL_F64, 2);
    bl_solution report;
    bl_tensor x = bl_minimize(folded, NULL, NULL, 0, start, 0, 1e-11, 200, &report);
    expect_zero(x, &start, 1, 1e-6);
}

/* log-sum-exp of (X x) + exp(t)/2 |x|^2 - <b,x>, p = X, t, b. */
static bl_tensor smooth(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g, (void)context;
    bl_tensor square = bl_mul(bl_mul(0.5, bl_exp(p[1])), bl_sum(bl_mul(x, x)));
    return bl_sub(bl_add(bl_logsumexp(bl_matmul(p[0], x), 0), square), bl_sum(bl_mul(p[2], x)));
}

/* The same minimum by Newton's steps, written out. */
static bl_tensor smooth_by_newton(const bl_tensor *p)
{
    bl_tensor x = bl_zeros_like(p[2]);
    for (int i = 0; i < 7; i++) {
        bl_tensor q = bl_softmax(bl_matmul(p[0], x), 0), xt = bl_transpose(p[0]);
        bl_tensor slope = bl_sub(bl_add(bl_matmul(xt, q), bl_mul(bl_exp(p[1]), x)), p[2]);
        bl_tensor mean = bl_matmul(xt, q), i3 = bl_iota(x.graph, BL_F64, BL_SHAPE(3, 3), 0);
        bl_tensor one = bl_cast(bl_eq(i3, bl_iota(x.graph, BL_F64, BL_SHAPE(3, 3), 1)), BL_F64);
        bl_tensor h = bl_matmul(xt, bl_mul(bl_expand(q, 1), p[0]));
        h = bl_sub(h, bl_mul(bl_expand(mean, 1), bl_expand(mean, 0)));
        bl_tensor l = bl_cholesky(bl_add(h, bl_mul(bl_exp(p[1]), one)));
        bl_tensor y = bl_triangular_solve(l, bl_expand(slope, 1), false, false);
        x = bl_sub(x, bl_squeeze(bl_triangular_solve(l, y, false, true), 1));
    }
    return x;
}

static void a_minimum_is_differentiable_twice(void **state)
{
    bl_tensor p[] = {input(state, BL_F64, 5, 3), scalar_input(state, BL_F64),
                     input(state, BL_F64, 3)};
    bl_tensor x = bl_minimize(smooth, NULL, p, 3, bl_zeros_like(p[2]), 5, 1e-13, 200, NULL);
    bl_tensor y = smooth_by_newton(p);
    expect_same_function(bl_sum(bl_mul(x, bl_sin(x))), bl_sum(bl_mul(y, bl_sin(y))), p, 3, true);
}

static void newton_finds_the_same_minima(void **state)
{
    bl_tensor start = input(state, BL_F64, 2);
    bl_solution report;
    bl_tensor x = bl_newton(valley, NULL, NULL, 0, start, 1e-11, 100, &report);
    expect_zero(bl_sub(x, 1), &start, 1, 1e-9);
    expect_zero(bl_select(bl_gt(report.steps, 30), 1, 0), &start, 1, 0);
    bl_tensor p[] = {input(state, BL_F64, 5, 3), scalar_input(state, BL_F64),
                     input(state, BL_F64, 3)};
    bl_tensor y = bl_newton(smooth, NULL, p, 3, bl_zeros_like(p[2]), 1e-13, 50, NULL);
    bl_tensor z = smooth_by_newton(p);
    expect_same_function(bl_sum(bl_mul(y, bl_sin(y))), bl_sum(bl_mul(z, bl_sin(z))), p, 3, true);
}

/* --- fixed points ------------------------------------------------------------------------------
 */

/* tanh(W x / 4 + b) */
static bl_tensor recur(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g, (void)context;
    return bl_tanh(bl_add(bl_mul(0.25, bl_matmul(p[0], x)), p[1]));
}

static void a_fixed_point_is_differentiable_twice(void **state)
{
    bl_tensor p[] = {input(state, BL_F64, 3, 3), input(state, BL_F64, 3)};
    bl_solution report;
    bl_tensor x = bl_fixed_point(recur, NULL, p, 2, bl_zeros_like(p[1]), 1e-14, 500, &report);
    bl_tensor y = bl_zeros_like(p[1]);
    for (int i = 0; i < 60; i++)
        y = recur(*state, y, p, NULL);
    expect_same_function(bl_sum(bl_mul(x, bl_sin(x))), bl_sum(bl_mul(y, bl_sin(y))), p, 2, true);
    expect_zero(bl_sub(bl_cast(report.good, BL_F64), 1), p, 2, 0);
}

static void a_fixed_point_keeps_to_its_limit(void **state)
{
    bl_tensor x = input(state, BL_F64, 1);
    bl_solution report;
    bl_tensor y = bl_fixed_point(minus, NULL, NULL, 0, x, 1e-9, 7, &report);
    expect_result(y, x, VALUES(3), VALUES(-3));
    expect_result(report.steps, x, VALUES(3), VALUES(7));
    expect_result(report.residual, x, VALUES(3), VALUES(6));
}

/* --- power iteration ---------------------------------------------------------------------------
 */

static bl_tensor multiply(bl_graph *g, bl_tensor v, const bl_tensor *p, void *context)
{
    (void)g, (void)context;
    return bl_matmul(p[0], v);
}

static void the_largest_singular_value_and_its_gradient(void **state)
{
    bl_tensor a = input(state, BL_F64, 4, 3), v = bl_full(*state, BL_F64, BL_SHAPE(3), 1), u, s, w;
    bl_tensor norm = bl_power_iteration(multiply, NULL, &a, 1, v, 400);
    bl_svd(a, &u, &s, &w);
    expect_same_function(norm, bl_sum(bl_slice_axis(s, 0, 0, 1)), &a, 1, false);
    expect_zero(bl_power_iteration(multiply, NULL, (bl_tensor[]){bl_mul(0, a)}, 1, v, 3), &a, 1, 0);
    expect_error(bl_power_iteration(multiply, NULL, &a, 1, v, 0),
                 "power_iteration: 0 steps, expected at least 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_system_of_two_unknowns),
        TEST(what_is_not_positive_definite_is_reported),
        TEST(the_solution_of_a_system_is_differentiable_twice),
        TEST(two_points_are_matched_by_cost),
        TEST(the_envelope_is_the_gradient_of_the_steps),
        TEST(sinkhorn_keeps_to_its_limit),
        TEST(sinkhorn_refuses_masses_that_do_not_fit),
        TEST(the_floor_of_a_bent_valley_is_found),
        TEST(a_minimum_without_a_slope_ends_the_search),
        TEST(a_minimum_is_differentiable_twice),
        TEST(newton_finds_the_same_minima),
        TEST(a_fixed_point_is_differentiable_twice),
        TEST(a_fixed_point_keeps_to_its_limit),
        TEST(the_largest_singular_value_and_its_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
