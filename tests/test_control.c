/* Loops against the same computation unrolled (values, first and second gradients), while,
 * gradients written by hand, and what the passes take off a loop. */
#include "support.h"

#define S(...) BL_SHAPE(__VA_ARGS__)

static double *random_values(int64_t count, uint64_t seed)
{
    double *values = bl_alloc((size_t)count * sizeof *values);
    bl_random random = bl_random_new(bl_key_from_seed(seed));
    for (int64_t i = 0; i < count; i++)
        values[i] = 2 * bl_random_unit(&random) - 1;
    return values;
}

/* y is zero, up to `tolerance`, at pseudorandom values of up to four inputs. */
static void expect_zero(bl_tensor y, const bl_tensor *x, int count, double tolerance)
{
    double *values[4];
    for (int i = 0; i < count; i++)
        values[i] = random_values(bl_type_count(bl_type_of(x[i])), (uint64_t)i + 5);
    bl_array z = evaluate(bl_reduce_max(bl_abs(y)), x, (const double *const *)values, count);
    if (!(bl_array_get(&z, 0) <= tolerance))
        fail_msg("the largest difference is %g", bl_array_get(&z, 0));
    bl_array_free(&z);
    for (int i = 0; i < count; i++)
        bl_release(values[i]);
}

/* The scalars a and b, functions of x, agree in value, gradient and second gradient. */
static void expect_same_function(bl_tensor a, bl_tensor b, const bl_tensor *x, int count)
{
    bl_tensor da[4], db[4], slope_a = bl_number(0), slope_b = bl_number(0);
    expect_zero(bl_sub(a, b), x, count, 1e-12);
    bl_grad(a, x, count, da);
    bl_grad(b, x, count, db);
    for (int i = 0; i < count; i++) {
        expect_zero(bl_sub(da[i], db[i]), x, count, 1e-11);
        slope_a = bl_add(slope_a, bl_sum(bl_mul(da[i], bl_sin(da[i]))));
        slope_b = bl_add(slope_b, bl_sum(bl_mul(db[i], bl_sin(db[i]))));
    }
    bl_grad(slope_a, x, count, da);
    bl_grad(slope_b, x, count, db);
    for (int i = 0; i < count; i++)
        expect_zero(bl_sub(da[i], db[i]), x, count, 1e-9);
}

/* The scalar y along one random direction: its gradient and bl_jvp against the central difference
 * of its value, and bl_hvp against that of its slope. */
static void expect_differences(bl_tensor y, const bl_tensor *x, int count)
{
    const double h = 1e-5;
    double *values[4], *moved[4], *direction[4], at[2][2];
    bl_tensor v[4], dx[4], hv[4], slope = bl_number(0), bend = bl_number(0);
    bl_grad(y, x, count, dx);
    for (int i = 0; i < count; i++) {
        int64_t n = bl_type_count(bl_type_of(x[i]));
        values[i] = random_values(n, (uint64_t)i + 5);
        direction[i] = random_values(n, (uint64_t)i + 50);
        moved[i] = random_values(n, 0);
        bl_array a = array_of(bl_type_of(x[i]), direction[i]);
        v[i] = bl_constant(x[i].graph, &a);
        bl_array_free(&a);
        slope = bl_add(slope, bl_sum(bl_mul(dx[i], v[i])));
    }
    bl_hvp(y, x, v, count, hv);
    for (int i = 0; i < count; i++)
        bend = bl_add(bend, bl_sum(bl_mul(hv[i], v[i])));
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < count; i++)
            for (int64_t e = 0; e < bl_type_count(bl_type_of(x[i])); e++)
                moved[i][e] = values[i][e] + (side ? h : -h) * direction[i][e];
        const bl_tensor both[2] = {y, slope};
        for (int k = 0; k < 2; k++) {
            bl_array z = evaluate(both[k], x, (const double *const *)moved, count);
            at[k][side] = bl_array_get(&z, 0);
            bl_array_free(&z);
        }
    }
    const bl_tensor exact[] = {slope, bl_jvp(y, x, v, count), bend};
    for (int k = 0; k < 3; k++) {
        bl_array z = evaluate(exact[k], x, (const double *const *)values, count);
        double got = bl_array_get(&z, 0), quotient = (at[k / 2][1] - at[k / 2][0]) / (2 * h);
        if (!close_to(got, quotient, 1e-6) || fabs(got) < 1e-3)
            fail_msg("%s is %.10g, by differences %.10g",
                     (const char *[]){"the gradient", "jvp", "hvp"}[k], got, quotient);
        bl_array_free(&z);
    }
    for (int i = 0; i < count; i++) {
        bl_release(values[i]);
        bl_release(direction[i]);
        bl_release(moved[i]);
    }
}

/* --- a recurrent network -----------------------------------------------------------------------
 */

enum { STEPS = 49, BATCH = 3, WIDTH = 4 };

typedef struct recurrent {
    bl_tensor from_x, from_h, bias; /* [x,3h], [h,3h], [3h] */
} recurrent;

/* Gated recurrent unit, Cho et al. 2014. */
static bl_tensor gru(const recurrent *r, bl_tensor h, bl_tensor x)
{
    bl_tensor gx = bl_add(bl_matmul(x, r->from_x), r->bias), gh = bl_matmul(h, r->from_h);
    bl_tensor both =
        bl_sigmoid(bl_add(bl_slice_axis(gx, 1, 0, 2 * WIDTH), bl_slice_axis(gh, 1, 0, 2 * WIDTH)));
    bl_tensor update = bl_slice_axis(both, 1, 0, WIDTH),
              reset = bl_slice_axis(both, 1, WIDTH, 2 * WIDTH);
    bl_tensor new = bl_tanh(bl_add(bl_slice_axis(gx, 1, 2 * WIDTH, 3 * WIDTH),
                                   bl_mul(reset, bl_slice_axis(gh, 1, 2 * WIDTH, 3 * WIDTH))));
    return bl_add(bl_mul(update, h), bl_mul(bl_sub(1, update), new));
}

static void gru_step(BL_UNUSED bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                     bl_tensor *carry_next, bl_tensor *y, void *context)
{
    y[0] = carry_next[0] = gru(context, carry[0], x[0]);
}

static void a_gru_over_49_steps_is_its_unrolled_graph_and_agrees_with_differences(void **state)
{
    bl_graph *g = *state;
    bl_tensor x[4] = {bl_input(g, "x", BL_F64, S(STEPS, BATCH, 2)),
                      bl_input(g, "from_x", BL_F64, S(2, 3 * WIDTH)),
                      bl_input(g, "from_h", BL_F64, S(WIDTH, 3 * WIDTH)),
                      bl_input(g, "bias", BL_F64, S(3 * WIDTH))};
    recurrent r = {x[1], x[2], x[3]};
    bl_tensor start = bl_full(g, BL_F64, S(BATCH, WIDTH), 0.1), last, all, row[STEPS];
    bl_scan(g, STEPS, gru_step, &r, &start, 1, x, 1, &last, &all, 1);
    expect_type(all, "f64[49,3,4]");
    bl_tensor h = start;
    for (int t = 0; t < STEPS; t++) {
        h = gru(&r, h, bl_squeeze(bl_slice_axis(x[0], 0, t, t + 1), 0));
        row[t] = bl_expand(h, 0);
    }
    bl_tensor unrolled = bl_concat(row, STEPS, 0);
    expect_zero(bl_sub(all, unrolled), x, 4, 1e-13);
    bl_tensor weight = bl_iota(g, BL_F64, S(STEPS, BATCH, WIDTH), 0);
    bl_tensor loss = bl_add(bl_sum(bl_mul(last, last)), bl_mul(0.01, bl_sum(bl_mul(all, weight))));
    expect_differences(loss, x, 4);
    expect_same_function(
        loss, bl_add(bl_sum(bl_mul(h, h)), bl_mul(0.01, bl_sum(bl_mul(unrolled, weight)))), x, 4);
}

static void the_cpu_runs_a_gru_as_the_reference_does(void **state)
{
    bl_graph *g = *state;
    bl_tensor x[4] = {bl_input(g, "x", BL_F32, S(STEPS, BATCH, 2)),
                      bl_input(g, "from_x", BL_F32, S(2, 3 * WIDTH)),
                      bl_input(g, "from_h", BL_F32, S(WIDTH, 3 * WIDTH)),
                      bl_input(g, "bias", BL_F32, S(3 * WIDTH))};
    recurrent r = {x[1], x[2], x[3]};
    bl_tensor start = bl_full(g, BL_F32, S(BATCH, WIDTH), 0.1), last, all, slope[4];
    bl_scan(g, STEPS, gru_step, &r, &start, 1, x, 1, &last, &all, 1);
    bl_grad(bl_add(bl_sum(bl_mul(last, last)), bl_mean(all)), x, 4, slope);
    bl_array in[4], expected[4], got[4];
    for (int i = 0; i < 4; i++) {
        double *values = random_values(bl_type_count(bl_type_of(x[i])), (uint64_t)i + 1);
        in[i] = array_of(bl_type_of(x[i]), values);
        bl_release(values);
    }
    expect_ok(bl_evaluate(bl_device_reference(), x, in, 4, slope, expected, 4));
    expect_ok(bl_evaluate(bl_device_cpu(), x, in, 4, slope, got, 4));
    for (int i = 0; i < 4; i++) {
        for (int64_t at = 0; at < bl_array_count(&got[i]); at++)
            if (!close_to(bl_array_get(&got[i], at), bl_array_get(&expected[i], at), 1e-5))
                fail_msg("gradient %d at %lld: %g, expected %g", i, (long long)at,
                         bl_array_get(&got[i], at), bl_array_get(&expected[i], at));
        bl_array_free(&in[i]);
        bl_array_free(&got[i]);
        bl_array_free(&expected[i]);
    }
}

/* --- a differential equation -------------------------------------------------------------------
 */

typedef struct system {
    bl_tensor matrix;
    double step;
} system;

static bl_tensor velocity(const system *s, bl_tensor p)
{
    return bl_tanh(bl_matmul(p, s->matrix));
}

static bl_tensor runge_kutta(const system *s, bl_tensor p) /* the classical method of order four */
{
    bl_tensor a = velocity(s, p), b = velocity(s, bl_add(p, bl_mul(s->step / 2, a)));
    bl_tensor c = velocity(s, bl_add(p, bl_mul(s->step / 2, b)));
    bl_tensor d = velocity(s, bl_add(p, bl_mul(s->step, c)));
    bl_tensor sum = bl_add(bl_add(a, d), bl_mul(2, bl_add(b, c)));
    return bl_add(p, bl_mul(s->step / 6, sum));
}

static void solve_step(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                       bl_tensor *carry_next, BL_UNUSED bl_tensor *y, void *context)
{
    carry_next[0] = runge_kutta(context, carry[0]);
}

static void a_solved_equation_is_its_unrolled_graph_and_agrees_with_differences(void **state)
{
    bl_graph *g = *state;
    bl_tensor x[2] = {bl_input(g, "start", BL_F64, S(5, 2)), bl_input(g, "a", BL_F64, S(2, 2))};
    system s = {x[1], 0.1};
    bl_tensor end, p = x[0];
    bl_scan(g, 20, solve_step, &s, x, 1, NULL, 0, &end, NULL, 0);
    for (int i = 0; i < 20; i++)
        p = runge_kutta(&s, p);
    expect_same_function(bl_sum(bl_exp(end)), bl_sum(bl_exp(p)), x, 2);
    expect_differences(bl_sum(bl_exp(end)), x, 2);
}

/* Gradient descent on |p - target|^2: the body differentiates in its carry. */
static void descend(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                    bl_tensor *carry_next, BL_UNUSED bl_tensor *y, void *context)
{
    bl_tensor distance = bl_sub(carry[0], *(bl_tensor *)context), slope;
    bl_grad(bl_sum(bl_mul(distance, distance)), carry, 1, &slope);
    carry_next[0] = bl_sub(carry[0], bl_mul(0.25, slope));
}

static void a_body_may_differentiate(void **state)
{
    bl_tensor target = input(state, BL_F64, 2), start = bl_zeros_like(target), last;
    bl_scan(*state, 3, descend, &target, &start, 1, NULL, 0, &last, NULL, 0);
    expect_result(last, target, VALUES(8, -16), VALUES(7, -14)); /* each step halves the distance */
    expect_gradient(bl_sum(last), target, VALUES(8, -16), VALUES(0.875, 0.875));
}

/* The derivative in what is around the body would miss that its square depends on it. */
static void look_outside(BL_UNUSED bl_graph *g, const bl_tensor *carry,
                         BL_UNUSED const bl_tensor *x, bl_tensor *carry_next,
                         BL_UNUSED bl_tensor *y, void *context)
{
    bl_tensor outer = *(bl_tensor *)context, square = bl_mul(outer, outer);
    bl_grad(bl_sum(bl_mul(carry[0], square)), &outer, 1, carry_next);
}

static void a_body_may_not_differentiate_in_what_is_around_it(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), last;
    bl_scan(*state, 3, look_outside, &x, &x, 1, NULL, 0, &last, NULL, 0);
    expect_error(last, "grad: in the body of a loop there are derivatives in its own tensors only, "
                       "not in those around it; make it a carry");
}

/* --- fixed iterations --------------------------------------------------------------------------
 */

static void sinkhorn_step(BL_UNUSED bl_graph *g, const bl_tensor *carry,
                          BL_UNUSED const bl_tensor *x, bl_tensor *carry_next, bl_tensor *y,
                          void *context)
{
    bl_tensor cost = *(bl_tensor *)context;
    bl_tensor u = bl_neg(bl_logsumexp(bl_add(cost, bl_expand(carry[1], 0)), 1));
    bl_tensor v = bl_neg(bl_logsumexp(bl_add(cost, bl_expand(u, 1)), 0));
    carry_next[0] = u, carry_next[1] = v;
    y[0] = bl_sum(bl_abs(bl_sub(v, carry[1])));
}

static void sinkhorn_scaling_is_its_unrolled_graph(void **state)
{
    bl_graph *g = *state;
    bl_tensor cost = bl_input(g, "cost", BL_F64, S(9, 9));
    bl_tensor zero[2] = {bl_full(g, BL_F64, S(9), 0), bl_full(g, BL_F64, S(9), 0)}, last[2], moved;
    bl_scan(g, 30, sinkhorn_step, &cost, zero, 2, NULL, 0, last, &moved, 1);
    bl_tensor pair[2] = {zero[0], zero[1]}, next[2], unused;
    for (int i = 0; i < 30; i++) {
        sinkhorn_step(g, pair, NULL, next, &unused, &cost);
        pair[0] = next[0], pair[1] = next[1];
    }
    bl_tensor plan = bl_exp(bl_add(bl_add(cost, bl_expand(last[0], 1)), bl_expand(last[1], 0)));
    bl_tensor same = bl_exp(bl_add(bl_add(cost, bl_expand(pair[0], 1)), bl_expand(pair[1], 0)));
    expect_zero(bl_sub(bl_sum(plan, 0), 1), &cost, 1, 1e-12);
    expect_zero(bl_slice_axis(moved, 0, 29, 30), &cost, 1, 1e-6);
    expect_same_function(bl_sum(bl_mul(plan, cost)), bl_sum(bl_mul(same, cost)), &cost, 1);
}

/* --- the pieces of scan ------------------------------------------------------------------------
 */

/* Counts in i32, adds rows, and stacks both. */
static void count_and_add(bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                          bl_tensor *carry_next, bl_tensor *y, BL_UNUSED void *context)
{
    carry_next[0] = bl_add(carry[0], bl_full(g, BL_I32, BL_SCALAR, 1));
    carry_next[1] = bl_add(carry[1], bl_mul(x[0], bl_cast(carry_next[0], BL_F64)));
    y[0] = carry_next[0];
    y[1] = carry[1];
}

static void carries_of_several_dtypes(void **state)
{
    bl_tensor x = input(state, BL_F64, 3, 2), last[2], y[2];
    bl_tensor start[2] = {bl_full(*state, BL_I32, BL_SCALAR, 0), bl_full(*state, BL_F64, S(2), 1)};
    bl_scan(*state, 3, count_and_add, NULL, start, 2, &x, 1, last, y, 2);
    const double *values = VALUES(1, 2, 3, 4, 5, 6);
    expect_result(last[0], x, values, VALUES(3));
    expect_result(last[1], x, values, VALUES(1 + 1 + 6 + 15, 1 + 2 + 8 + 18));
    expect_result(y[0], x, values, VALUES(1, 2, 3));
    expect_result(y[1], x, values, VALUES(1, 1, 2, 3, 8, 11));
    expect_gradient(bl_sum(last[1]), x, values, VALUES(1, 1, 2, 2, 3, 3));
    expect_gradient(bl_sum(y[1]), x, values, VALUES(2, 2, 2, 2, 0, 0));
}

static void no_steps_give_the_first_carry(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), rows = bl_full(*state, BL_F64, S(0, 2), 1), last[2],
              y[2];
    bl_tensor start[2] = {bl_full(*state, BL_I32, BL_SCALAR, 5), bl_mul(2, x)};
    bl_scan(*state, 0, count_and_add, NULL, start, 2, &rows, 1, last, y, 2);
    expect_type(y[1], "f64[0,2]");
    expect_result(last[1], x, VALUES(3, 4), VALUES(6, 8));
    expect_gradient(bl_add(bl_sum(last[1]), bl_sum(y[1])), x, VALUES(3, 4), VALUES(2, 2));
}

static void empty_carries_and_rows(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 0), last[2], y[2];
    bl_tensor start[2] = {bl_full(*state, BL_I32, BL_SCALAR, 0), bl_full(*state, BL_F64, S(0), 1)};
    bl_scan(*state, 2, count_and_add, NULL, start, 2, &x, 1, last, y, 2);
    expect_result(last[0], x, VALUES(0), VALUES(2));
    expect_type(gradient(bl_sum(last[1]), x), "f64[2,0]");
}

/* A scan in a scan: powers of an outer tensor, w^3 each outer step, with w captured twice over. */
static void multiply(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                     bl_tensor *carry_next, BL_UNUSED bl_tensor *y, void *context)
{
    carry_next[0] = bl_mul(carry[0], *(bl_tensor *)context);
}

static void multiply_thrice(bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                            bl_tensor *carry_next, bl_tensor *y, void *context)
{
    bl_scan(g, 3, multiply, context, carry, 1, NULL, 0, carry_next, NULL, 0);
    y[0] = carry_next[0];
}

static void scans_nest(void **state)
{
    bl_tensor w = input(state, BL_F64, 1), one = bl_full(*state, BL_F64, S(1), 1), last, y;
    bl_scan(*state, 2, multiply_thrice, &w, &one, 1, NULL, 0, &last, &y, 1);
    expect_result(bl_reshape(y, S(2)), w, VALUES(2), VALUES(8, 64));
    expect_gradient(bl_sum(last), w, VALUES(2), VALUES(6 * 32));
    expect_gradient(bl_sum(gradient(bl_sum(last), w)), w, VALUES(2), VALUES(30 * 16));
    expect_gradient(bl_sum(y), w, VALUES(2), VALUES(3 * 4 + 6 * 32));
}

static void draw_one(BL_UNUSED bl_graph *g, BL_UNUSED const bl_tensor *carry, const bl_tensor *x,
                     BL_UNUSED bl_tensor *carry_next, bl_tensor *y, BL_UNUSED void *context)
{
    y[0] = bl_uniform(x[0], S(1));
}

static void rows_of_keys_give_other_numbers_each_step(void **state)
{
    bl_tensor keys = bl_input(*state, "keys", BL_U32, S(2, 2)), drawn;
    bl_scan(*state, 2, draw_one, NULL, NULL, 0, &keys, 1, NULL, &drawn, 1);
    bl_tensor second = bl_squeeze(bl_slice_axis(keys, 0, 1, 2), 0);
    bl_tensor expected = bl_uniform(second, S(1)), row = bl_slice_axis(drawn, 0, 1, 2);
    expect_result(bl_sub(bl_reshape(row, S(1)), expected), keys, VALUES(1, 2, 3, 4), VALUES(0));
    bl_tensor apart = bl_ne(bl_slice_axis(drawn, 0, 0, 1), row);
    expect_result(bl_cast(apart, BL_F32), keys, VALUES(1, 2, 3, 4), VALUES(1));
}

static void jvp_and_hvp_go_through_a_scan(void **state)
{
    bl_tensor w = input(state, BL_F64, 1), one = bl_full(*state, BL_F64, S(1), 1), last, hv;
    bl_scan(*state, 4, multiply, &w, &one, 1, NULL, 0, &last, NULL, 0); /* w^4 */
    bl_tensor t = bl_full_like(w, 2);
    expect_result(bl_jvp(last, &w, &t, 1), w, VALUES(3), VALUES(2 * 108));
    bl_hvp(bl_sum(last), &w, &t, 1, &hv);
    expect_result(hv, w, VALUES(3), VALUES(2 * 108));
}

/* --- while -------------------------------------------------------------------------------------
 */

static bl_tensor not_yet(BL_UNUSED bl_graph *g, const bl_tensor *carry, void *context)
{
    bl_tensor a = *(bl_tensor *)context;
    return bl_gt(bl_abs(bl_sub(bl_mul(carry[0], carry[0]), a)), 1e-12);
}

static void newton(BL_UNUSED bl_graph *g, const bl_tensor *carry, bl_tensor *carry_next,
                   void *context)
{
    bl_tensor a = *(bl_tensor *)context;
    carry_next[0] = bl_mul(0.5, bl_add(carry[0], bl_div(a, carry[0])));
}

static void while_runs_until_its_condition_fails(void **state)
{
    bl_tensor a = scalar_input(state, BL_F64), start = bl_full(*state, BL_F64, BL_SCALAR, 1), root;
    bl_tensor steps = bl_while(*state, 100, not_yet, newton, &a, &start, 1, &root);
    expect_type(steps, "i32[]");
    expect_result(root, a, VALUES(16), VALUES(4));
    expect_result(steps, a, VALUES(1), VALUES(0));
    expect_result(steps, a, VALUES(16), VALUES(6));
}

static void while_stops_at_its_limit(void **state)
{
    bl_tensor a = scalar_input(state, BL_F64), start = bl_full(*state, BL_F64, BL_SCALAR, 1), root;
    bl_tensor steps = bl_while(*state, 2, not_yet, newton, &a, &start, 1, &root);
    expect_result(steps, a, VALUES(3), VALUES(2));
    expect_result(root, a, VALUES(3), VALUES(1.75));
    bl_tensor none = bl_while(*state, 0, not_yet, newton, &a, &start, 1, &root);
    expect_result(bl_add(root, bl_cast(none, BL_F64)), a, VALUES(3), VALUES(1));
}

static void while_refuses_a_gradient_by_name(void **state)
{
    bl_tensor a = scalar_input(state, BL_F64), root;
    bl_while(*state, 100, not_yet, newton, &a, &a, 1, &root);
    expect_error(gradient(root, a), "while has no gradient");
}

/* d sqrt(a) = da / (2 sqrt(a)), by the implicit function theorem. */
static void implicit_slope(BL_UNUSED bl_graph *g, BL_UNUSED const bl_tensor *in,
                           const bl_tensor *out, const bl_tensor *cotangent, bl_tensor *slope,
                           BL_UNUSED void *context)
{
    slope[0] = bl_div(cotangent[0], bl_mul(2, out[0]));
}

static void a_fixed_point_gets_a_gradient_by_hand(void **state)
{
    bl_tensor a = scalar_input(state, BL_F64), start = bl_full(*state, BL_F64, BL_SCALAR, 1), root;
    bl_tensor fixed = bl_stop_gradient(a);
    bl_while(*state, 100, not_yet, newton, &fixed, &start, 1, &root);
    bl_tensor y;
    bl_override_gradient(&root, 1, &a, 1, implicit_slope, NULL, &y);
    expect_gradient(y, a, VALUES(16), VALUES(0.125));
}

/* --- override_gradient -------------------------------------------------------------------------
 */

static void only_the_second(BL_UNUSED bl_graph *g, const bl_tensor *in,
                            BL_UNUSED const bl_tensor *out, const bl_tensor *cotangent,
                            bl_tensor *slope, void *context)
{
    double factor = *(const double *)context;
    slope[1] = bl_mul(factor, bl_add(bl_mul(cotangent[0], in[0]), cotangent[1]));
}

static void a_rule_may_have_several_values_and_inputs(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), b = bl_mul(x, 3), out[2] = {bl_exp(x), bl_mul(x, b)};
    bl_tensor z[2], in[2] = {x, b};
    double factor = 10;
    bl_override_gradient(out, 2, in, 2, only_the_second, &factor, z);
    expect_result(z[1], x, VALUES(1, 2), VALUES(3, 12));
    /* through b = 3x only: d z0 = 10 x db, d z1 = 10 db */
    expect_gradient(bl_sum(z[0]), x, VALUES(1, 2), VALUES(30, 60));
    expect_gradient(bl_sum(z[1]), x, VALUES(1, 2), VALUES(30, 30));
    bl_tensor slope = gradient(bl_sum(z[0]), x);
    expect_gradient(bl_sum(slope), x, VALUES(1, 2), VALUES(30, 30));
}

/* Each step has the slope 2 instead of 3. */
static void two_for_three(BL_UNUSED bl_graph *g, BL_UNUSED const bl_tensor *in,
                          BL_UNUSED const bl_tensor *out, const bl_tensor *cotangent,
                          bl_tensor *slope, BL_UNUSED void *context)
{
    slope[0] = bl_mul(2, cotangent[0]);
}

static void thrice(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                   bl_tensor *carry_next, BL_UNUSED bl_tensor *y, BL_UNUSED void *context)
{
    bl_tensor value = bl_mul(3, carry[0]);
    bl_override_gradient(&value, 1, carry, 1, two_for_three, NULL, carry_next);
}

static void a_rule_holds_within_a_scan(void **state)
{
    bl_tensor x = input(state, BL_F64, 1), last;
    bl_scan(*state, 4, thrice, NULL, &x, 1, NULL, 0, &last, NULL, 0);
    expect_result(last, x, VALUES(1), VALUES(81));
    expect_gradient(bl_sum(last), x, VALUES(1), VALUES(16));
}

/* --- what the passes do ------------------------------------------------------------------------
 */

static const bl_node *find(const bl_graph *g, bl_op op)
{
    for (int32_t id = 0; id < (int32_t)bl_graph_size(g); id++)
        if (bl_node_at(g, id)->op == op)
            return bl_node_at(g, id);
    return NULL;
}

/* The optimised graph of y; the caller frees it. */
static bl_graph *optimized(bl_tensor y, bl_tensor x)
{
    bl_graph *g;
    bl_tensor x_new, y_new;
    expect_ok(bl_optimize(&x, 1, &y, 1, &g, &x_new, &y_new));
    expect_ok(bl_verify(g));
    return g;
}

static void a_scan_keeps_only_what_is_needed(void **state)
{
    bl_tensor x = input(state, BL_F64, 3, 2), last[2], y[2];
    bl_tensor start[2] = {bl_full(*state, BL_I32, BL_SCALAR, 0), bl_full(*state, BL_F64, S(2), 1)};
    bl_scan(*state, 3, count_and_add, NULL, start, 2, &x, 1, last, y, 2);
    bl_graph *g = optimized(y[0], x);
    const bl_node *scan = find(g, BL_OP_scan);
    assert_int_equal(scan->operands, 1); /* the count */
    assert_int_equal(scan->attr->control->results, 2);
    assert_int_equal(scan->attr->control->inputs, 0);
    assert_null(find(scan->attr->control->body->graph, BL_OP_mul));
    bl_graph_free(g);
    g = optimized(last[1], x); /* which needs the count */
    assert_int_equal(find(g, BL_OP_scan)->operands, 3);
    assert_int_equal(find(g, BL_OP_scan)->attr->control->outputs, 0);
    bl_graph_free(g);
}

static void constants_go_into_the_body_and_gradients_leave_no_rule(void **state)
{
    bl_tensor x = input(state, BL_F64, 1), one = bl_full(*state, BL_F64, S(1), 1), last;
    bl_scan(*state, 3, multiply, &one, &x, 1, NULL, 0, &last, NULL, 0);
    bl_graph *g = optimized(last, x);
    assert_int_equal(find(g, BL_OP_scan)->operands, 1);
    assert_null(find(find(g, BL_OP_scan)->attr->control->body->graph, BL_OP_mul)); /* times 1 */
    bl_graph_free(g);
    bl_scan(*state, 4, thrice, NULL, &x, 1, NULL, 0, &last, NULL, 0);
    g = optimized(last, x);
    assert_null(find(find(g, BL_OP_scan)->attr->control->body->graph, BL_OP_override_gradient));
    bl_graph_free(g);
}

static int count(const bl_graph *g, bl_op op)
{
    int found = 0;
    for (int32_t id = 0; id < (int32_t)bl_graph_size(g); id++)
        found += bl_node_at(g, id)->op == op;
    return found;
}

static void a_gradient_reads_what_the_steps_reduced(void **state)
{
    bl_graph *g = *state;
    bl_tensor cost = bl_input(g, "cost", BL_F64, S(9, 9)), last[2], moved, slope;
    bl_tensor zero[2] = {bl_full(g, BL_F64, S(9), 0), bl_full(g, BL_F64, S(9), 0)};
    bl_scan(g, 30, sinkhorn_step, &cost, zero, 2, NULL, 0, last, &moved, 1);
    bl_grad(bl_sum(last[1]), &cost, 1, &slope);
    bl_graph *small = optimized(slope, cost);
    int scans = 0;
    for (int32_t id = 0; id < (int32_t)bl_graph_size(small); id++) {
        const bl_node *node = bl_node_at(small, id);
        if (node->op != BL_OP_scan)
            continue;
        assert_int_equal(count(node->attr->control->body->graph, BL_OP_reduce_max),
                         scans++ ? 0 : 2);
    }
    assert_int_equal(scans, 2);
    bl_graph_free(small);
}

static void a_loop_counts_its_steps_as_work(void **state)
{
    bl_tensor x = input(state, BL_F64, 1000), w = bl_exp(x), last;
    bl_scan(*state, 7, multiply, &w, &x, 1, NULL, 0, &last, NULL, 0);
    bl_program *p;
    expect_ok(bl_compile(bl_device_reference(), &x, 1, &last, 1, NULL, &p));
    assert_true(bl_program_work(p).flops == 8000);
    assert_true(bl_program_work(p).memory >= 16000);
    bl_program_free(p);
}

/* --- errors ------------------------------------------------------------------------------------
 */

static void grow(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                 bl_tensor *carry_next, bl_tensor *y, void *context)
{
    carry_next[0] = bl_concat((bl_tensor[]){carry[0], carry[0]}, 2, 0);
    y[0] = carry[0];
    if (context)
        *(bl_tensor *)context = carry[0];
}

static void forget(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                   bl_tensor *carry_next, BL_UNUSED bl_tensor *y, void *context)
{
    carry_next[0] = carry[0];
    if (context)
        *(bl_tensor *)context = carry[0];
}

static void mistake(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED const bl_tensor *x,
                    bl_tensor *carry_next, bl_tensor *y, BL_UNUSED void *context)
{
    carry_next[0] = y[0] = bl_transpose(carry[0], 1);
}

static bl_tensor scanned(bl_scan_body *body, bl_tensor carry, bl_tensor x, int outputs)
{
    bl_graph *g = x.graph;
    bl_tensor last, y[2];
    bl_scan(g, 3, body, NULL, &carry, 1, &x, 1, &last, y, outputs);
    return last;
}

#define REFUSES(expression, message)                                                               \
    do {                                                                                           \
        bl_graph *g = bl_graph_new();                                                              \
        bl_tensor x = bl_input(g, "x", BL_F32, S(3, 2)), c = bl_input(g, "c", BL_F32, S(2));       \
        (void)c, (void)x;                                                                          \
        expect_error(expression, message);                                                         \
        bl_graph_free(g);                                                                          \
    } while (0)

static void errors_name_what_is_wrong(void **state)
{
    (void)state;
    REFUSES(scanned(grow, c, x, 1), "scan: carry 0 is f32[2], but the body makes it f32[4]");
    REFUSES(scanned(forget, c, x, 1),
            "scan: output 0 is the bare number 0; bl_full makes a tensor of it");
    REFUSES(scanned(forget, bl_number(2), x, 0),
            "scan: carry 0 is the bare number 2; bl_full makes a tensor of it");
    REFUSES(scanned(forget, c, c, 0), "scan: input 0 must have 3 rows, not be f32[2]");
    REFUSES(scanned(mistake, c, x, 1), "transpose: there is no axis 1 of 1 axes");
}

static void a_tensor_of_a_finished_body_is_refused(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), last, inner;
    bl_scan(*state, 2, forget, &inner, &x, 1, NULL, 0, &last, NULL, 0);
    expect_error(bl_exp(bl_add(x, inner)), "add: operands are of different graphs");
}

static bl_tensor not_bool(BL_UNUSED bl_graph *g, const bl_tensor *carry, BL_UNUSED void *context)
{
    return carry[0];
}

static void a_condition_is_a_bool(void **state)
{
    bl_tensor x = scalar_input(state, BL_F64), last;
    bl_tensor steps = bl_while(*state, 9, not_bool, newton, &x, &x, 1, &last);
    expect_error(steps, "while: the condition must be bool[], not f64[]");
}

/* c becomes w c mean(c^2), whose gradient reads the mean. */
static void multiply_by_mean(BL_UNUSED bl_graph *g, const bl_tensor *carry,
                             BL_UNUSED const bl_tensor *x, bl_tensor *carry_next,
                             BL_UNUSED bl_tensor *y, void *context)
{
    bl_tensor mean = bl_mean(bl_square(carry[0]));
    carry_next[0] = bl_mul(bl_mul(carry[0], mean), *(bl_tensor *)context);
}

/* Builds, differentiates twice, compiles and runs; every allocation may fail. */
static bl_status whole_life(double *result)
{
    bl_graph *g = bl_graph_new();
    bl_tensor w = bl_input(g, "w", BL_F64, S(1)), one = bl_full(g, BL_F64, S(8), 1), last, slope;
    bl_scan(g, 2, multiply_by_mean, &w, &one, 1, NULL, 0, &last, NULL, 0);
    bl_grad(bl_mean(last), &w, 1, &slope);
    bl_grad(bl_sum(slope), &w, 1, &slope);
    bl_array in, out = {0};
    bl_status status = bl_array_new(BL_F64, S(1), &in);
    if (status == BL_OK) {
        bl_array_set(&in, 0, 2);
        status = bl_evaluate(bl_device_reference(), &w, &in, 1, &slope, &out, 1);
        if (status == BL_OK)
            *result = bl_array_get(&out, 0);
        bl_array_free(&out);
        bl_array_free(&in);
    }
    bl_graph_free(g);
    return status;
}

static void any_allocation_may_fail(void **state)
{
    double result = 0;
    (void)state;
    for (int64_t n = 1; n < 100000; n++) {
        bl_fail_allocation(n);
        bl_status status = whole_life(&result);
        bl_fail_allocation(0);
        if (status == BL_OK)
            break;
        if (status != BL_NO_MEMORY)
            fail_msg("allocation %lld: status %d: %s", (long long)n, (int)status, bl_error());
    }
    assert_true(result == 48); /* (w^4)'' = 12 w^2 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_gru_over_49_steps_is_its_unrolled_graph_and_agrees_with_differences),
        TEST(the_cpu_runs_a_gru_as_the_reference_does),
        TEST(a_solved_equation_is_its_unrolled_graph_and_agrees_with_differences),
        TEST(a_body_may_differentiate),
        TEST(a_body_may_not_differentiate_in_what_is_around_it),
        TEST(sinkhorn_scaling_is_its_unrolled_graph),
        TEST(carries_of_several_dtypes),
        TEST(no_steps_give_the_first_carry),
        TEST(empty_carries_and_rows),
        TEST(scans_nest),
        TEST(rows_of_keys_give_other_numbers_each_step),
        TEST(jvp_and_hvp_go_through_a_scan),
        TEST(while_runs_until_its_condition_fails),
        TEST(while_stops_at_its_limit),
        TEST(while_refuses_a_gradient_by_name),
        TEST(a_fixed_point_gets_a_gradient_by_hand),
        TEST(a_rule_may_have_several_values_and_inputs),
        TEST(a_rule_holds_within_a_scan),
        TEST(a_scan_keeps_only_what_is_needed),
        TEST(constants_go_into_the_body_and_gradients_leave_no_rule),
        TEST(a_gradient_reads_what_the_steps_reduced),
        TEST(a_loop_counts_its_steps_as_work),
        TEST(errors_name_what_is_wrong),
        TEST(a_tensor_of_a_finished_body_is_refused),
        TEST(a_condition_is_a_bool),
        TEST(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
