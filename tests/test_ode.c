/* Solvers of differential equations on problems whose solutions are known: values, orders,
 * gradients over the steps that were taken, counts, and what is refused. */
#include "ballast/solve.h"
#include "support.h"

static bl_array f64_array(bl_shape shape, const double *values)
{
    return array_of((bl_type){BL_F64, shape}, values);
}

static void near(double got, double expected, double tolerance)
{
    if (!close_to(got, expected, tolerance))
        fail_msg("%.12g, expected %.12g", got, expected);
}

/* --- fields -------------------------------------------------------------------------------------
 */

#define FIELD(name)                                                                                \
    static bl_tensor name(                                                                         \
        __attribute__((unused)) bl_tensor z, __attribute__((unused)) bl_tensor t,                  \
        __attribute__((unused)) const bl_tensor *p, __attribute__((unused)) void *context)

FIELD(decay) /* z = z0 e^(-p t) */
{
    return bl_neg(bl_mul(p[0], z));
}

FIELD(rotation) /* (cos t, sin t) */
{
    return bl_concat((bl_tensor[]){bl_neg(bl_slice_axis(z, 0, 1, 2)), bl_slice_axis(z, 0, 0, 1)}, 2,
                     0);
}

FIELD(cosine) /* z0 + sin t */
{
    return bl_add(bl_mul(0, z), bl_cos(t));
}

FIELD(square) /* z0 / (1 - z0 t) */
{
    return bl_square(z);
}

FIELD(network)
{
    return bl_add(bl_tanh(bl_dot(z, p[0], false, true)), bl_sin(bl_mul(3, t)));
}

FIELD(logistic_drift)
{
    return bl_mul(0.3, z);
}

FIELD(proportional_noise)
{
    return bl_mul(0.5, z);
}

FIELD(no_noise)
{
    return bl_zeros_like(z);
}

static const bl_ode_options strict = {.relative = 1e-10, .absolute = 1e-10};
static const bl_ode_options loose = {.relative = 1e-3, .absolute = 1e-3, .first_step = 2};

static bl_ode *compiled(bl_ode_field *field, bl_type state, const bl_type *parameter,
                        int parameters, bl_ode_options options)
{
    bl_ode *ode;
    expect_ok(
        bl_ode_new(bl_device_cpu(), field, NULL, state, parameter, parameters, options, &ode));
    return ode;
}

/* --- values
 * --------------------------------------------------------------------------------------- */

static void decay_and_its_gradient(void **state)
{
    (void)state;
    bl_type rate = {BL_F64, BL_SCALAR}, type = {BL_F64, BL_SHAPE(2)};
    bl_ode *ode = compiled(decay, type, &rate, 1, strict);
    bl_array z0 = f64_array(BL_SHAPE(2), VALUES(1, -3)), p = f64_array(BL_SCALAR, VALUES(2));
    bl_array z1 = f64_array(BL_SHAPE(2), VALUES(0, 0)), dz1 = f64_array(BL_SHAPE(2), VALUES(1, 5));
    bl_array dz0 = f64_array(BL_SHAPE(2), VALUES(7, 7)), dp = f64_array(BL_SCALAR, VALUES(7));
    double left = exp(-2 * 1.5);
    for (int again = 0; again < 2; again++) { /* buffers are used again */
        expect_ok(bl_ode_solve(ode, &z0, &p, 0.5, 2, &z1, NULL));
        near(bl_f64(&z1)[0], left, 1e-9);
        near(bl_f64(&z1)[1], -3 * left, 1e-9);
        expect_ok(bl_ode_gradient(ode, &p, &dz1, NULL, NULL, &dz0, &dp));
        near(bl_f64(&dz0)[0], left, 1e-9);
        near(bl_f64(&dz0)[1], 5 * left, 1e-9);
        near(bl_f64(&dp)[0], (1 - 15) * -1.5 * left, 1e-9);
    }
    bl_array *const all[] = {&z0, &p, &z1, &dz1, &dz0, &dp};
    for (int i = 0; i < 6; i++)
        bl_array_free(all[i]);
    bl_ode_free(ode);
}

static void a_turn_leads_back(void **state)
{
    (void)state;
    bl_ode *ode = compiled(rotation, (bl_type){BL_F64, BL_SHAPE(2)}, NULL, 0, strict);
    bl_array z0 = f64_array(BL_SHAPE(2), VALUES(1, 0)), z1 = f64_array(BL_SHAPE(2), VALUES(0, 0));
    expect_ok(bl_ode_solve(ode, &z0, NULL, 0, 2 * acos(-1), &z1, NULL));
    near(bl_f64(&z1)[0], 1, 1e-8);
    near(bl_f64(&z1)[1], 0, 1e-8);
    bl_array_free(&z0);
    bl_array_free(&z1);
    bl_ode_free(ode);
}

static void time_is_where_the_field_is_asked(void **state)
{
    (void)state;
    bl_ode *ode = compiled(cosine, (bl_type){BL_F64, BL_SHAPE(1)}, NULL, 0, strict);
    bl_array z0 = f64_array(BL_SHAPE(1), VALUES(2)), z1 = f64_array(BL_SHAPE(1), VALUES(0));
    expect_ok(bl_ode_solve(ode, &z0, NULL, -1, 3, &z1, NULL));
    near(bl_f64(&z1)[0], 2 + sin(3) - sin(-1), 1e-9);
    bl_array_free(&z0);
    bl_array_free(&z1);
    bl_ode_free(ode);
}

/* |z(1) - e^-1| after n steps of size 1 / n. */
static double error_of_steps(int n)
{
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "z", BL_F64, BL_SHAPE(1)), z = x, rate = bl_number(1);
    for (int i = 0; i < n; i++)
        z = bl_tsit5_step(decay, NULL, &rate, z, decay(z, bl_number(0), &rate, NULL), i / (double)n,
                          1.0 / n, 1e-6, 1e-6)
                .z;
    bl_array out = evaluate(z, &x, (const double *const[]){VALUES(1)}, 1);
    double error = fabs(bl_f64(&out)[0] - exp(-1));
    bl_array_free(&out);
    bl_graph_free(g);
    return error;
}

static void halving_the_step_divides_the_error_by_32(void **state)
{
    (void)state;
    double order = log2(error_of_steps(16) / error_of_steps(32));
    if (!(order > 4.7 && order < 5.6))
        fail_msg("the order is %g", order);
}

/* z' = -p z at z = 1, p = 50: stage slopes are -50 times stage states. */
static void stiffness_is_the_fields_eigenvalue(void **state)
{
    bl_tensor z = input(state, BL_F64, 1), rate = bl_number(50);
    bl_ode_step s =
        bl_tsit5_step(decay, NULL, &rate, z, decay(z, bl_number(0), &rate, NULL), 0, 0.1, 1, 1);
    expect_result(s.stiffness, z, VALUES(1), VALUES(50));
    expect_result(s.stiffness, z, VALUES(0), VALUES(0)); /* nothing moves */
    expect_gradient(s.stiffness, z, VALUES(0), VALUES(0));
    expect_gradient(s.error, z, VALUES(0), VALUES(0));
    expect_result(bl_sub(s.slope, bl_mul(-50, s.z)), z, VALUES(1), VALUES(0));
}

/* error = error_rms / (absolute + relative |larger state|) for a single unknown. */
static void the_error_is_in_units_of_the_tolerance(void **state)
{
    bl_tensor z = input(state, BL_F64, 1), rate = bl_number(1);
    bl_ode_step s =
        bl_tsit5_step(decay, NULL, &rate, z, decay(z, bl_number(0), &rate, NULL), 0, 1, 0.25, 0.5);
    expect_result(bl_div(s.error_rms, s.error), z, VALUES(2), VALUES(1));
}

/* --- adaptive solves
 * -------------------------------------------------------------------------------- */

static void steps_are_counted_and_cover_the_interval(void **state)
{
    (void)state;
    bl_type weight = {BL_F64, BL_SHAPE(2, 2)};
    bl_ode *ode = compiled(network, (bl_type){BL_F64, BL_SHAPE(1, 2)}, &weight, 1, loose);
    bl_array z0 = f64_array(BL_SHAPE(1, 2), VALUES(1, -2));
    bl_array w = f64_array(BL_SHAPE(2, 2), VALUES(3, -4, 5, 1));
    bl_array z1 = f64_array(BL_SHAPE(1, 2), VALUES(0, 0));
    bl_ode_report r;
    expect_ok(bl_ode_solve(ode, &z0, &w, 0, 4, &z1, &r));
    assert_true(r.rejected > 0);
    assert_int_equal(r.evaluations, 1 + 6 * (r.accepted + r.rejected));
    double t = 0;
    for (int64_t i = 0; i < r.accepted; i++) {
        near(r.step[i].t, t, 1e-12);
        assert_true(r.step[i].error <= 1);
        t += r.step[i].dt;
    }
    near(t, 4, 1e-12);
    bl_array_free(&z0);
    bl_array_free(&w);
    bl_array_free(&z1);
    bl_ode_free(ode);
}

/* The same steps in one graph, where the engine differentiates all of them at once. */
static void check_against_one_graph(const bl_ode_report *r, const bl_array *z0, const bl_array *w,
                                    const bl_array *dz0, const bl_array *dw)
{
    bl_graph *g = bl_graph_new();
    bl_tensor in[2] = {bl_input(g, "z", BL_F64, z0->type.shape),
                       bl_input(g, "w", BL_F64, w->type.shape)};
    bl_tensor z = in[0], slope = network(z, bl_number(0), &in[1], NULL), y = bl_number(0), dx[2];
    for (int64_t i = 0; i < r->accepted; i++) {
        bl_ode_step s = bl_tsit5_step(network, NULL, &in[1], z, slope, r->step[i].t, r->step[i].dt,
                                      loose.relative, loose.absolute);
        y = bl_add(y, bl_add(bl_mul(0.5, s.error), bl_mul(2, s.stiffness)));
        z = s.z, slope = s.slope;
    }
    bl_grad(bl_add(y, bl_sum(bl_mul(3, z))), in, 2, dx);
    bl_array got[2];
    expect_ok(bl_evaluate(bl_device_reference(), in, (const bl_array[]){*z0, *w}, 2, dx, got, 2));
    expect_array(dz0, bl_f64(&got[0]));
    expect_array(dw, bl_f64(&got[1]));
    bl_array_free(&got[0]);
    bl_array_free(&got[1]);
    bl_graph_free(g);
}

static void the_gradient_goes_back_over_the_accepted_steps(void **state)
{
    (void)state;
    bl_type weight = {BL_F64, BL_SHAPE(2, 2)};
    bl_ode *ode = compiled(network, (bl_type){BL_F64, BL_SHAPE(1, 2)}, &weight, 1, loose);
    bl_array z0 = f64_array(BL_SHAPE(1, 2), VALUES(1, -2));
    bl_array w = f64_array(BL_SHAPE(2, 2), VALUES(3, -4, 5, 1));
    bl_array z1 = f64_array(BL_SHAPE(1, 2), VALUES(0, 0));
    bl_array dz1 = f64_array(BL_SHAPE(1, 2), VALUES(3, 3));
    bl_array dz0 = f64_array(BL_SHAPE(1, 2), VALUES(0, 0));
    bl_array dw = f64_array(BL_SHAPE(2, 2), VALUES(0, 0, 0, 0));
    bl_ode_report r;
    expect_ok(bl_ode_solve(ode, &z0, &w, 0, 2, &z1, &r));
    double derror[32], dstiffness[32];
    assert_in_range(r.accepted, 2, 32);
    for (int i = 0; i < 32; i++)
        derror[i] = 0.5, dstiffness[i] = 2;
    expect_ok(bl_ode_gradient(ode, &w, &dz1, derror, dstiffness, &dz0, &dw));
    check_against_one_graph(&r, &z0, &w, &dz0, &dw);
    bl_array *const all[] = {&z0, &w, &z1, &dz1, &dz0, &dw};
    for (int i = 0; i < 6; i++)
        bl_array_free(all[i]);
    bl_ode_free(ode);
}

/* --- refusals
 * ----------------------------------------------------------------------------------------- */

static void refused(bl_status status, const char *words)
{
    if (status != BL_INVALID || !strstr(bl_error(), words))
        fail_msg("status %d, \"%s\"; expected \"%s\"", status, bl_error(), words);
}

static void what_cannot_be_solved(void **state)
{
    (void)state;
    bl_type type = {BL_F64, BL_SHAPE(1)}, one = {BL_F64, BL_SCALAR};
    bl_ode *ode;
    bl_ode_options zero = {.relative = 0, .absolute = 1}, few = loose;
    few.most_steps = 3;
    refused(bl_ode_new(bl_device_cpu(), square, NULL, type, NULL, 0, zero, &ode),
            "the tolerances are 0 (relative) and 1 (absolute), expected positive numbers");
    refused(bl_ode_new(bl_device_cpu(), square, NULL, (bl_type){BL_I32, BL_SHAPE(1)}, NULL, 0,
                       loose, &ode),
            "the state is i32[1], expected f32 or f64");
    refused(bl_ode_new(bl_device_cpu(), decay, NULL, type, &(bl_type){BL_F64, BL_SHAPE(3)}, 1,
                       loose, &ode),
            "the field gives f64[3], expected the state's type f64[1]");
    bl_array z = f64_array(BL_SHAPE(1), VALUES(1)), p = f64_array(BL_SCALAR, VALUES(-100));
    ode = compiled(square, type, NULL, 0, loose);
    refused(bl_ode_solve(ode, &z, NULL, 1, 1, &z, NULL), "t1 is 1 and t0 1, expected");
    refused(bl_ode_solve(ode, &z, NULL, 0, 2, &z, NULL), "stiff or diverging"); /* pole at 1 */
    refused(bl_ode_gradient(ode, NULL, &z, NULL, NULL, &z, NULL), "no solve has succeeded");
    bl_f64(&z)[0] = NAN;
    refused(bl_ode_solve(ode, &z, NULL, 0, 1, &z, NULL), "the state is not finite at t = 0");
    refused(bl_ode_solve(ode, &p, NULL, 0, 1, &z, NULL), "z0 is f64[], expected f64[1]");
    bl_ode_free(ode);
    ode = compiled(decay, type, &one, 1, few);
    bl_f64(&z)[0] = 1;
    refused(bl_ode_solve(ode, &z, &p, 0, 1, &z, NULL), "3 steps lead to t = ");
    bl_ode_free(ode);
    bl_array_free(&z);
    bl_array_free(&p);
}

/* Every allocation may fail: then the status says so, and nothing leaks. */
static void memory_may_be_short(void **state)
{
    (void)state;
    bl_type type = {BL_F64, BL_SHAPE(1)}, rate = {BL_F64, BL_SCALAR};
    bl_array z = f64_array(BL_SHAPE(1), VALUES(1)), z1 = f64_array(BL_SHAPE(1), VALUES(0));
    bl_array p = f64_array(BL_SCALAR, VALUES(1)), dp = f64_array(BL_SCALAR, VALUES(0));
    bl_status status = BL_NO_MEMORY;
    for (int64_t n = 1; n < 3000 && status == BL_NO_MEMORY; n += 1 + n / 16) {
        bl_ode *ode = NULL;
        bl_fail_allocation(n);
        status = bl_ode_new(bl_device_reference(), decay, NULL, type, &rate, 1, loose, &ode);
        if (status == BL_OK)
            status = bl_ode_solve(ode, &z, &p, 0, 1, &z1, NULL);
        if (status == BL_OK)
            status = bl_ode_gradient(ode, &p, &z, NULL, NULL, &z1, &dp);
        bl_fail_allocation(0);
        bl_ode_free(ode);
    }
    assert_int_equal(status, BL_OK);
    bl_array *const all[] = {&z, &z1, &p, &dp};
    for (int i = 0; i < 4; i++)
        bl_array_free(all[i]);
}

/* --- stochastic equations
 * --------------------------------------------------------------------------- */

enum { PATHS = 4000 };

/* Draws dw and dv, [steps,PATHS], of variance dt. */
static bl_array draws(bl_random *random, int steps, double dt)
{
    bl_array a;
    expect_ok(bl_array_new(BL_F64, BL_SHAPE(steps, PATHS), &a));
    for (int64_t i = 0; i < bl_array_count(&a); i++)
        bl_f64(&a)[i] = sqrt(dt) * bl_random_gauss(random);
    return a;
}

/* z(1) of n steps on PATHS paths of dz = 0.3 z dt + 0.5 z dW from 1. */
static bl_array paths_of(bl_sri_tableau tableau, int n, const bl_array *dw, const bl_array *dv)
{
    bl_graph *g = bl_graph_new();
    bl_tensor in[2] = {bl_input(g, "dw", BL_F64, dw->type.shape),
                       bl_input(g, "dv", BL_F64, dv->type.shape)};
    bl_tensor z = bl_full(g, BL_F64, BL_SHAPE(1, PATHS), 1);
    bl_sde sde = {.drift = logistic_drift, .diffusion = proportional_noise};
    for (int i = 0; i < n; i++)
        z = bl_sri_step(tableau, sde, z, i / (double)n, 1.0 / n, bl_slice_axis(in[0], 0, i, i + 1),
                        bl_slice_axis(in[1], 0, i, i + 1), 0.1, 0.1, 1)
                .z;
    bl_array out;
    expect_ok(bl_evaluate(bl_device_cpu(), in, (const bl_array[]){*dw, *dv}, 2, &z, &out, 1));
    bl_graph_free(g);
    return out;
}

/* Mean of |z(1) - exp((0.3 - 0.5^2 / 2) + 0.5 W(1))|. */
static double strong_error(bl_sri_tableau tableau, int n)
{
    bl_random random = bl_random_new(bl_key_from_seed(5));
    bl_array dw = draws(&random, n, 1.0 / n), dv = draws(&random, n, 1.0 / n);
    bl_array z = paths_of(tableau, n, &dw, &dv);
    double sum = 0;
    for (int64_t i = 0; i < PATHS; i++) {
        double w = 0;
        for (int64_t s = 0; s < n; s++)
            w += bl_f64(&dw)[s * PATHS + i];
        sum += fabs(bl_f64(&z)[i] - exp(0.3 - 0.125 + 0.5 * w));
    }
    bl_array_free(&dw);
    bl_array_free(&dv);
    bl_array_free(&z);
    return sum / PATHS;
}

static void paths_converge_with_strong_order_one_and_a_half(void **state)
{
    (void)state;
    for (int tableau = BL_SOSRI; tableau <= BL_SOSRI2; tableau++) {
        double order = log2(strong_error((bl_sri_tableau)tableau, 8) /
                            strong_error((bl_sri_tableau)tableau, 32)) /
                       2;
        if (!(order > 1.35 && order < 1.8))
            fail_msg("tableau %d has strong order %g", tableau, order);
    }
}

/* Without noise the step is a Runge-Kutta step of z' = 0.3 z, of order 2 at least. */
static void without_noise_the_drift_remains(void **state)
{
    bl_tensor z = input(state, BL_F64, 1), none = bl_zeros_like(z);
    bl_sde sde = {.drift = logistic_drift, .diffusion = no_noise};
    for (int tableau = BL_SOSRI; tableau <= BL_SOSRI2; tableau++) {
        bl_sde_step s =
            bl_sri_step((bl_sri_tableau)tableau, sde, z, 0, 0.01, none, none, 0.1, 0.1, 1);
        bl_array got = evaluate(s.z, &z, (const double *const[]){VALUES(1)}, 1);
        near(bl_f64(&got)[0], exp(0.003), 1e-8);
        bl_array_free(&got);
        got = evaluate(s.stiffness, &z, (const double *const[]){VALUES(1)}, 1);
        near(bl_f64(&got)[0], 0.3, 1e-9);
        bl_array_free(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decay_and_its_gradient),
        cmocka_unit_test(a_turn_leads_back),
        cmocka_unit_test(time_is_where_the_field_is_asked),
        cmocka_unit_test(halving_the_step_divides_the_error_by_32),
        TEST(stiffness_is_the_fields_eigenvalue),
        TEST(the_error_is_in_units_of_the_tolerance),
        cmocka_unit_test(steps_are_counted_and_cover_the_interval),
        cmocka_unit_test(the_gradient_goes_back_over_the_accepted_steps),
        cmocka_unit_test(what_cannot_be_solved),
        cmocka_unit_test(memory_may_be_short),
        cmocka_unit_test(paths_converge_with_strong_order_one_and_a_half),
        TEST(without_noise_the_drift_remains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
