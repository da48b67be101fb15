/* Methods about flows of time - solver heuristics, self-tuning networks, imputation of series,
 * auto-regressive nets: what their specs refuse, and facts about values and gradients at shapes and
 * corners that the reference cases do not have. */
#include "calls.h"

/* --- solver heuristics --------------------------------------------------------------------------
 */

#define ZERO_FIELD(c)                                                                              \
    F32(c, "w1", S(1, 2), 0, 0);                                                                   \
    F32(c, "b1", S(1), 0);                                                                         \
    F32(c, "w2", S(1, 2), 0, 0);                                                                   \
    F32(c, "b2", S(1), 0)

static void a_field_of_zero_moves_nothing(void **state)
{
    (void)state;
    call c = start("ode_heuristics_tsit5_step", NULL);
    F32(&c, "z", S(2, 1), 3, 0);
    F32(&c, "t", BL_SCALAR, 0);
    F32(&c, "dt", BL_SCALAR, 0.5);
    ZERO_FIELD(&c);
    accept(&c, "stiff");
    expect(&c, "z_next", 3, 0);
    expect(&c, "err", 0);
    expect(&c, "stiff", 0);
    all_finite(&c.gradient);
    accept(&c, "err");
    all_finite(&c.gradient);
    finish(&c);
    c = start("ode_heuristics_solve", "{\"kind\": \"error_stiff\"}");
    F32(&c, "z", S(2, 1), 3, 0);
    ZERO_FIELD(&c);
    give_to(&c.cotangent, "z1", (bl_type){BL_F32, S(2, 1)}, VALUES(5, 7));
    accept(&c, NULL);
    expect(&c, "z1", 3, 0);
    expect(&c, "reg", 0);
    near(slope(&c, "z", 1), 7);
    near(slope(&c, "b2", 0), 12); /* z1 = z + b2 for small b2, and the interval is 1 */
    finish(&c);
}

/* tanh(tanh(z)) for w1 = w2 = [1,0]: the solve's gradient against differences of solves whose steps
 * are the same, because the first covers the interval. */
static double solved(double z, double w, call *c)
{
    bl_dictionary_free(&c->in);
    c->in = (bl_dictionary){0};
    F32(c, "z", S(1, 1), z);
    F32(c, "w1", S(1, 2), w, 0.5);
    F32(c, "b1", S(1), 0.25);
    F32(c, "w2", S(1, 2), 2, -1);
    F32(c, "b2", S(1), 0);
    accept(c, "reg");
    return result(c, "reg", 0);
}

static void the_regulariser_has_its_solve_differentiated(void **state)
{
    (void)state;
    static const char *const options[] = {
        "{\"dt0\": 1, \"rtol\": 1, \"atol\": 1, \"kind\": \"error\"}",
        "{\"dt0\": 1, \"rtol\": 1, \"atol\": 1, \"kind\": \"stiff\", \"agg\": \"max\"}",
        "{\"dt0\": 1, \"rtol\": 1, \"atol\": 1, \"kind\": \"error_stiff\", \"mix\": 2}"};
    for (int i = 0; i < 3; i++) {
        call c = start("ode_heuristics_solve", options[i]);
        double z = 0.5, w = 2, step = 1.0 / 256;
        double by_z = (solved(z + step, w, &c) - solved(z - step, w, &c)) / (2 * step);
        double by_w = (solved(z, w + step, &c) - solved(z, w - step, &c)) / (2 * step);
        solved(z, w, &c);
        expect(&c, "accepted", 1);
        expect(&c, "nfe", 7);
        expect(&c, "dt", 1);
        assert_true(close_to(slope(&c, "z", 0), by_z, 1e-4));
        assert_true(close_to(slope(&c, "w1", 0), by_w, 1e-4));
        finish(&c);
    }
}

static void the_largest_step_gets_the_gradient(void **state)
{
    (void)state;
    call c = start("ode_heuristics_regularizer", "{\"agg\": \"max\"}");
    F32(&c, "err", S(3), 0.5, 1, 0.5);
    F32(&c, "dt", S(3), 2, 1, 1);
    F32(&c, "stiff", S(3), 1, 2, 3);
    accept(&c, "reg");
    expect(&c, "reg", 1);
    near(slope(&c, "err", 0), 2); /* the first of equals */
    near(slope(&c, "err", 1), 0);
    c.options = "{\"kind\": \"stiff\", \"agg\": \"sum\", \"stability\": 2}";
    accept(&c, "reg");
    expect(&c, "reg", 3);
    finish(&c);
}

static void the_weight_falls_by_a_factor_each_epoch(void **state)
{
    (void)state;
    call c = start("ode_heuristics_lambda", "{\"start\": 8, \"end\": 1, \"epochs\": 3}");
    F32(&c, "epoch", BL_SCALAR, 0);
    accept(&c, NULL);
    expect(&c, "lam", 8);
    finish(&c);
    c = start("ode_heuristics_lambda", "{\"start\": 8, \"end\": 1, \"epochs\": 3}");
    F32(&c, "epoch", BL_SCALAR, 2);
    accept(&c, NULL);
    expect(&c, "lam", 2);
    finish(&c);
}

/* One interval is itself; of two equal ones, the first half of the way counts for longer. */
static void draws_of_intervals_are_merged(void **state)
{
    (void)state;
    call c = start("ode_heuristics_brownian_merge", NULL);
    F32(&c, "dw", S(1, 1, 2), 2, -1);
    F32(&c, "dz", S(1, 1, 2), 3, 5);
    F32(&c, "h", S(1), 0.25);
    accept(&c, NULL);
    expect(&c, "dw_out", 2, -1);
    expect(&c, "dz_out", 3, 5);
    expect(&c, "h_out", 0.25);
    finish(&c);
    c = start("ode_heuristics_brownian_merge", NULL);
    F32(&c, "dw", S(2, 1, 1), 1, 0);
    F32(&c, "dz", S(2, 1, 1), 0, 0);
    F32(&c, "h", S(2), 1, 1);
    accept(&c, NULL);
    expect(&c, "dw_out", 1);
    near(result(&c, "dz_out", 0), sqrt(3) * 0.5); /* its integral is 1/2 + 1 */
    finish(&c);
}

static void ode_heuristics_refuses(void **state)
{
    (void)state;
    REFUSE("ode_heuristics_solve", "{\"rtol\": 0}", "option rtol is 0, expected (0,inf)");
    REFUSE("ode_heuristics_solve", "{\"atol\": -1}", "option atol is -1, expected (0,inf)");
    REFUSE("ode_heuristics_solve", "{\"t0\": 2, \"t1\": 2}", "option t1 is 2, expected (t0,inf)");
    REFUSE("ode_heuristics_solve", "{\"field\": \"mlp\"}",
           "option field is \"mlp\", expected one of mlp2t");
    REFUSE("ode_heuristics_solve", NULL,
           "stiff or diverging, try regularisation or looser "
           "tolerance",
           F32(&c, "z", S(1, 1), NAN);
           ZERO_FIELD(&c));
    REFUSE("ode_heuristics_solve", "{\"max_steps\": 1, \"dt0\": 0.5}",
           "stiff or diverging, try regularisation or looser tolerance", F32(&c, "z", S(1, 1), 1);
           ZERO_FIELD(&c));
    REFUSE("ode_heuristics_tsit5_step", NULL,
           "w1 has 1 columns, expected 2, the last one for the "
           "time",
           F32(&c, "z", S(1, 1), 1);
           F32(&c, "t", BL_SCALAR, 0); F32(&c, "dt", BL_SCALAR, 1); F32(&c, "w1", S(1, 1), 0);
           F32(&c, "b1", S(1), 0); F32(&c, "w2", S(1, 2), 0, 0); F32(&c, "b2", S(1), 0));
    REFUSE("ode_heuristics_sri_step", "{\"tableau\": \"sra1\"}",
           "option tableau is \"sra1\", expected one of sosri|sosri2");
    REFUSE("ode_heuristics_regularizer", NULL, "err has no rows, expected at least one",
           F32(&c, "err", S(0), 0);
           F32(&c, "dt", S(0), 0); F32(&c, "stiff", S(0), 0));
    REFUSE("ode_heuristics_lambda", "{\"end\": 0}", "option end is 0, expected (0,inf)");
    REFUSE("ode_heuristics_brownian_merge", NULL, "h[0] is 0, expected > 0",
           F32(&c, "dw", S(1, 1, 1), 0);
           F32(&c, "dz", S(1, 1, 1), 0); F32(&c, "h", S(1), 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_field_of_zero_moves_nothing),
        cmocka_unit_test(the_regulariser_has_its_solve_differentiated),
        cmocka_unit_test(the_largest_step_gets_the_gradient),
        cmocka_unit_test(the_weight_falls_by_a_factor_each_epoch),
        cmocka_unit_test(draws_of_intervals_are_merged),
        cmocka_unit_test(ode_heuristics_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
