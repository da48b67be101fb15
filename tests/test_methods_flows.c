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

/* --- self-tuning networks -----------------------------------------------------------------------
 */

#define GATED_LAYER(c)                                                                             \
    F32(c, "we", S(1, 2), 1, 2);                                                                   \
    F32(c, "be", S(1), 3);                                                                         \
    F32(c, "s", BL_SCALAR, 2)
#define RESPONSE(c)                                                                                \
    F32(c, "h", S(1, 1), 10);                                                                      \
    F32(c, "wh", S(1, 2), 1, -1);                                                                  \
    F32(c, "bh", S(1), 7);                                                                         \
    F32(c, "v", S(2, 1), 0.5, 0.25)

static void a_layer_without_hyperparameters_is_plain(void **state)
{
    (void)state;
    call c = start("stn_hyper_linear", NULL);
    F32(&c, "x", S(1, 2), 1, 0.5);
    GATED_LAYER(&c);
    accept(&c, NULL);
    expect(&c, "out", 2 * (1 + 1 + 3));
    RESPONSE(&c);
    accept(&c, NULL);
    expect(&c, "out", 10 + 5 * 0.5 + 2.5 * 7);
    finish(&c);
}

/* Strides and padding: one filter of size 2 on a row of two pixels, padded to 3 x 4. */
static void a_convolution_responds_at_every_pixel(void **state)
{
    (void)state;
    call c = start("stn_hyper_conv2d", "{\"stride\": 2, \"pad\": 1}");
    F32(&c, "x", S(1, 1, 2, 1), 3, 5);
    F32(&c, "we", S(2, 2, 1, 1), 1, 1, 1, 1);
    F32(&c, "be", S(1), 1);
    F32(&c, "s", BL_SCALAR, 1);
    accept(&c, NULL);
    expect(&c, "out", 4, 6);
    F32(&c, "h", S(1, 1), 1);
    F32(&c, "wh", S(2, 2, 1, 1), 0, 0, 0, 1);
    F32(&c, "bh", S(1), 10);
    F32(&c, "v", S(2, 1), 2, -1);
    accept(&c, NULL);
    expect(&c, "out", 4 + 2 * 3 - 10, 6 - 10);
    finish(&c);
}

static void the_norm_is_that_of_the_effective_weights(void **state)
{
    (void)state;
    call c = start("stn_weight_sqnorm", NULL);
    F32(&c, "h", S(2, 1), 10, 0);
    F32(&c, "we", S(1, 2), 1, 2);
    F32(&c, "wh", S(1, 2), 1, -1);
    F32(&c, "v", S(2, 1), 0.5, 0.25);
    F32(&c, "s", BL_SCALAR, 2);
    accept(&c, NULL);
    expect(&c, "norm2", 7 * 7 + 1, 4 + 16); /* 2 (1,2) + 5 (1,-1) */
    finish(&c);
}

#define ONE_BOUND(c, lower, upper)                                                                 \
    F32(c, "lo", S(1), lower);                                                                     \
    F32(c, "hi", S(1), upper)

static void hyperparameters_stay_within_their_bounds(void **state)
{
    (void)state;
    double bound[4][2] = {{-INFINITY, INFINITY}, {2, INFINITY}, {-INFINITY, 2}, {2, 4}};
    double at_zero[4] = {0, 2 + log(2), 2 - log(2), 3}, tangent[4] = {1, 0.5, -0.5, 0.5};
    for (int i = 0; i < 4; i++) {
        call c = start("stn_perturb", NULL);
        F32(&c, "lam", S(1), 0);
        F32(&c, "scale", S(1), 0);
        F32(&c, "noise", S(3, 1), 0, -1e4, 1e4);
        ONE_BOUND(&c, bound[i][0], bound[i][1]);
        I32(&c, "discrete", S(1), 0);
        I32(&c, "shared", S(1), 0);
        give_to(&c.cotangent, "value", (bl_type){BL_F32, S(3, 1)}, VALUES(1, 0, 0));
        accept(&c, NULL);
        near(result(&c, "value", 0), at_zero[i]);
        near(slope(&c, "lam", 0), tangent[i]);
        near(slope(&c, "scale", 0), 0);
        all_finite(&c.out);
        all_finite(&c.gradient);
        finish(&c);
    }
}

static void whole_numbers_pass_no_gradient(void **state)
{
    (void)state;
    call c = start("stn_perturb", NULL);
    F32(&c, "lam", S(2), 0.5, 1);
    F32(&c, "scale", S(2), 0, 0);
    F32(&c, "noise", S(2, 2), 1, 1, 2, 3);
    F32(&c, "lo", S(2), -INFINITY, -INFINITY);
    F32(&c, "hi", S(2), INFINITY, INFINITY);
    I32(&c, "discrete", S(2), 1, 0);
    I32(&c, "shared", S(2), 0, 1);
    give_to(&c.cotangent, "value", (bl_type){BL_F32, S(2, 2)}, VALUES(1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "value", 1, 1 + log(2), 1, 1 + log(2)); /* column 1: row 0 for both */
    near(slope(&c, "lam", 0), 0);
    near(slope(&c, "lam", 1), 2);
    near(slope(&c, "scale", 1), 1); /* 2 * noise 1 * sigmoid(0) */
    finish(&c);
}

static void initial_values_are_found_again(void **state)
{
    (void)state;
    call c = start("stn_unconstrain", NULL);
    F32(&c, "value", S(4), 1e6, -1e6, 1e-30, 0.75);
    F32(&c, "lo", S(4), 0, -INFINITY, 0, 0);
    F32(&c, "hi", S(4), INFINITY, 0, INFINITY, 1);
    accept(&c, NULL);
    expect(&c, "lam", 1e6, 1e6, log(1e-30), log(3));
    finish(&c);
}

static void the_entropy_of_almost_no_noise_is_finite(void **state)
{
    (void)state;
    call c = start("stn_entropy", NULL);
    F32(&c, "scale", S(2), -1000, 1000);
    accept(&c, "entropy");
    near(result(&c, "entropy", 0), -1000 + log(1000) + log(2 * acos(-1) * exp(1)));
    near(slope(&c, "scale", 0), 1);
    near(slope(&c, "scale", 1), 1e-3);
    finish(&c);
    double at[3] = {-15.5, -14.5, 0};
    for (int i = 0; i < 3; i++) {
        c = start("stn_entropy", NULL);
        F32(&c, "scale", S(1), at[i]);
        accept(&c, "entropy");
        double plus = log1p(exp(at[i]));
        near(result(&c, "entropy", 0), log(plus) + 0.5 * log(2 * acos(-1) * exp(1)));
        near(slope(&c, "scale", 0), exp(at[i]) / (1 + exp(at[i])) / plus);
        finish(&c);
    }
}

static void each_example_has_its_rate(void **state)
{
    (void)state;
    call c = start("stn_row_dropout", NULL);
    F32(&c, "x", S(2, 2, 2), 1, 2, 3, 4, 5, 6, 7, 8);
    F32(&c, "rate", S(2), 0, 0.5);
    F32(&c, "u", S(2, 2), 0.9, 0.9, 0.25, 0.5); /* by channel */
    accept(&c, NULL);
    expect(&c, "out", 1, 2, 3, 4, 10, 0, 14, 0);
    finish(&c);
    c = start("stn_row_dropout", NULL);
    F32(&c, "x", S(2), 3, INFINITY);
    F32(&c, "rate", S(2), 0.75, 0.5);
    F32(&c, "u", S(2), 0.1, 0.6);
    accept(&c, NULL);
    expect(&c, "out", 12, 0);
    finish(&c);
}

/* A network of one unit a layer and two classes, with zero weights but for given ones. */
static void give_network(call *c)
{
    F32(c, "x", S(1, 1), 1);
    I32(c, "y", S(1), 0);
    F32(c, "we1", S(1, 1), 2);
    F32(c, "wh1", S(1, 1), 1);
    F32(c, "be1", S(1), 0);
    F32(c, "bh1", S(1), 0);
    F32(c, "v1", S(2, 3), 0, 0, 0, 0, 0, 0);
    F32(c, "s1", BL_SCALAR, 1);
    F32(c, "we2", S(2, 1), 1, 0);
    F32(c, "wh2", S(2, 1), 0, 0);
    F32(c, "be2", S(2), 0, 0);
    F32(c, "bh2", S(2), 0, 0);
    F32(c, "v2", S(4, 3), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    F32(c, "s2", BL_SCALAR, 1);
    F32(c, "lam", S(3), 3, 0, 0);
    F32(c, "scale", S(3), 0, 0, 0);
    F32(c, "noise", S(1, 3), 0, 0, 0);
}

/* Hyper-parameters in another order: 2 is the dropout rate, here 1/2, and 0 the decay, here 3. */
static void training_and_validation_read_the_same_network(void **state)
{
    (void)state;
    call c = start("stn_train_loss", "{\"dropout_index\": 2, \"l2_index\": 0}");
    give_network(&c);
    F32(&c, "lo", S(3), -INFINITY, 0, 0);
    F32(&c, "hi", S(3), INFINITY, 1, 1);
    F32(&c, "u_drop", S(1, 1), 0.25);
    accept(&c, "loss");
    near(result(&c, "loss", 0), log1p(exp(-4)) + 3 * (4 + 1)); /* hidden 2, doubled */
    near(slope(&c, "we1", 0), 3 * 4 - 2 * exp(-4) / (1 + exp(-4)));
    assert_null(bl_dictionary_find(&c.gradient, "lam"));
    finish(&c);
    c = start("stn_valid_loss", "{\"entropy_weight\": 0}");
    give_network(&c);
    F32(&c, "v1", S(2, 3), 0, 1, 0, 0, 0, 0); /* the hidden unit responds to the second */
    accept(&c, "loss");
    near(result(&c, "loss", 0), log1p(exp(-2)));
    near(slope(&c, "lam", 1), -exp(-2) / (1 + exp(-2)));
    near(slope(&c, "lam", 0), 0);
    assert_null(bl_dictionary_find(&c.gradient, "we1"));
    finish(&c);
}

static void stn_refuses(void **state)
{
    (void)state;
    REFUSE("stn_hyper_linear", NULL, "v has 3 rows, expected 2: two for each of 1 units",
           F32(&c, "x", S(1, 2), 1, 2);
           GATED_LAYER(&c); RESPONSE(&c); F32(&c, "v", S(3, 1), 1, 1, 1));
    call bare = start("stn_hyper_linear", NULL);
    F32(&bare, "x", S(1, 2), 1, 2);
    GATED_LAYER(&bare);
    F32(&bare, "h", S(1, 1), 1);
    refuse(&bare, "wh is not given, but h is");
    REFUSE("stn_hyper_linear", NULL, "wh must be f32[1,2], not f32[1,3]",
           F32(&c, "x", S(1, 2), 1, 2);
           GATED_LAYER(&c); RESPONSE(&c); F32(&c, "wh", S(1, 3), 1, 1, 1));
    REFUSE("stn_row_dropout", NULL, "rate[1] is 1, expected [0,1)", F32(&c, "x", S(2), 1, 1);
           F32(&c, "rate", S(2), 0, 1); F32(&c, "u", S(2), 0, 0));
    REFUSE("stn_row_dropout", NULL, "u is f32[1,1], expected f32[1,2], or a draw for each",
           F32(&c, "x", S(1, 2), 1, 1);
           F32(&c, "rate", S(1), 0); F32(&c, "u", S(1, 1), 0));
    REFUSE("stn_perturb", NULL, "lo[0] is 2 and hi[0] is 2, expected lo < hi",
           F32(&c, "lam", S(1), 0);
           F32(&c, "scale", S(1), 0); F32(&c, "noise", S(1, 1), 0); ONE_BOUND(&c, 2, 2);
           I32(&c, "discrete", S(1), 0); I32(&c, "shared", S(1), 0));
    REFUSE("stn_unconstrain", NULL, "value[0] is 2, expected strictly between lo 2 and hi inf",
           F32(&c, "value", S(1), 2);
           ONE_BOUND(&c, 2, INFINITY));
    REFUSE("stn_unconstrain", NULL, "lo[0] is 3 and hi[0] is 2, expected lo < hi",
           F32(&c, "value", S(1), 2);
           ONE_BOUND(&c, 3, 2));
    REFUSE("stn_valid_loss", "{\"entropy_weight\": -1}",
           "option entropy_weight is -1, expected [0,inf)");
    REFUSE("stn_valid_loss", NULL, "y[0] is 2, expected 0 <= . < C (C is 2)", give_network(&c);
           I32(&c, "y", S(1), 2));
    REFUSE("stn_train_loss", NULL, "the dropout rate lies between lo[0] = 0 and hi[0] = 2",
           give_network(&c);
           F32(&c, "lo", S(3), 0, 0, 0); F32(&c, "hi", S(3), 2, 2, 2);
           F32(&c, "u_drop", S(1, 1), 0));
    REFUSE("stn_train_loss", "{\"l2_index\": 3}",
           "options dropout_index and l2_index are 0 and 3, expected [0,3)", give_network(&c);
           F32(&c, "lo", S(3), 0, 0, 0); F32(&c, "hi", S(3), 1, 1, 1);
           F32(&c, "u_drop", S(1, 1), 0));
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
        cmocka_unit_test(a_layer_without_hyperparameters_is_plain),
        cmocka_unit_test(a_convolution_responds_at_every_pixel),
        cmocka_unit_test(the_norm_is_that_of_the_effective_weights),
        cmocka_unit_test(hyperparameters_stay_within_their_bounds),
        cmocka_unit_test(whole_numbers_pass_no_gradient),
        cmocka_unit_test(initial_values_are_found_again),
        cmocka_unit_test(the_entropy_of_almost_no_noise_is_finite),
        cmocka_unit_test(each_example_has_its_rate),
        cmocka_unit_test(training_and_validation_read_the_same_network),
        cmocka_unit_test(stn_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
