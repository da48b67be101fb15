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

/* --- auto-regressive nets ------------------------------------------------------------------------
 */

static void windows_are_oldest_first(void **state)
{
    (void)state;
    call c = start("ar_net_lags", "{\"p\": 2, \"h\": 2}");
    F32(&c, "series", S(5), 1, 2, 3, 4, 5);
    accept(&c, NULL);
    expect(&c, "x", 1, 2, 2, 3);
    expect(&c, "y", 3, 4, 4, 5);
    finish(&c);
    c = start("ar_net_lags", "{\"p\": 2}");
    F32(&c, "series", S(3), 1, 2, 3);
    accept(&c, NULL);
    expect(&c, "x", 1, 2);
    expect(&c, "y", 3);
    finish(&c);
}

/* Lag 1 is the newest: after an impulse a coefficient of lag i is seen i steps later. */
static void an_impulse_shows_the_coefficients(void **state)
{
    (void)state;
    call c = start("ar_net_generate", NULL);
    F32(&c, "noise", S(5), 1, 0, 0, 0, 0);
    F32(&c, "coef", S(2), 0.5, 3);
    accept(&c, NULL);
    expect(&c, "series", 1, 0.5, 3.25, 3.125, 11.3125);
    finish(&c);
    c = start("ar_net_generate", NULL); /* more lags than steps, and none */
    F32(&c, "noise", S(2), 1, 2);
    F32(&c, "coef", S(3), 1, 1, 1);
    accept(&c, NULL);
    expect(&c, "series", 1, 3);
    F32(&c, "coef", S(0), 0);
    accept(&c, NULL);
    expect(&c, "series", 1, 2);
    finish(&c);
}

static void a_weight_of_zero_has_slope_zero(void **state)
{
    (void)state;
    static const char *const forms[] = {"{\"form\": \"sigmoid\"}", "{\"form\": \"sqrt\"}",
                                        "{\"form\": \"l1\"}", "{\"c2\": 1}", "{\"c2\": 0.5}"};
    for (int i = 0; i < 5; i++) {
        call c = start("ar_net_penalty", forms[i]);
        F32(&c, "w", S(1, 3), 0, -0.0, 1e-30);
        accept(&c, "penalty");
        all_finite(&c.gradient);
        assert_true(slope(&c, "w", 0) == 0 && slope(&c, "w", 1) == 0);
        assert_true(i == 4 || slope(&c, "w", 2) > 0);
        finish(&c);
    }
}

static void weights_up_to_the_floor_count_but_do_not_move(void **state)
{
    (void)state;
    call c = start("ar_net_penalty", "{\"form\": \"sqrt\", \"floor\": 0.25}");
    F32(&c, "w", S(2, 2), 0.25, -0.25, 4, -1);
    accept(&c, "penalty");
    expect(&c, "penalty", (0.5 + 0.5 + 2 + 1) / 4);
    near(slope(&c, "w", 0), 0);
    near(slope(&c, "w", 1), 0);
    near(slope(&c, "w", 2), 0.25 * 0.25);
    near(slope(&c, "w", 3), -0.5 * 0.25);
    finish(&c);
    c = start("ar_net_penalty", NULL); /* tanh(3 |w|^(1/3) / 2) */
    F32(&c, "w", S(1, 1), -8);
    accept(&c, "penalty");
    near(result(&c, "penalty", 0), tanh(3));
    near(slope(&c, "w", 0), -0.5 * 0.25 * (1 - tanh(3) * tanh(3)));
    finish(&c);
}

static void errors_are_measured_three_ways(void **state)
{
    (void)state;
    static const char *const fits[] = {"{\"fit\": \"mse\", \"form\": \"l1\"}",
                                       "{\"fit\": \"huber\", \"form\": \"l1\"}",
                                       "{\"fit\": \"mae\", \"form\": \"l1\"}"};
    double fit[3] = {(0 + 0.25 + 9) / 3, (0 + 0.125 + 2.5) / 3, (0 + 0.5 + 3) / 3};
    double by_bias[3] = {2 * (0 + 0.5 - 3) / 3, (0.5 - 1) / 3, (1.0 - 1) / 3};
    for (int i = 0; i < 3; i++) {
        call c = start("ar_net_loss", fits[i]);
        F32(&c, "x", S(3, 1), 1, 1, 1);
        F32(&c, "y", S(3, 1), 3, 2.5, 6);
        F32(&c, "w", S(1, 1), 2);
        F32(&c, "b", S(1), 1);
        F32(&c, "lam", BL_SCALAR, 10);
        accept(&c, "loss");
        expect(&c, "pred", 3, 3, 3);
        near(result(&c, "fit", 0), fit[i]);
        near(result(&c, "loss", 0), fit[i] + 20);
        near(slope(&c, "b", 0), by_bias[i]);
        near(slope(&c, "w", 0), by_bias[i] + 10);
        finish(&c);
    }
}

static void the_ramp_ends_at_full(void **state)
{
    (void)state;
    static const char *const options[] = {
        "{\"sparsity\": 0.5, \"strength\": 2, \"ramp\": \"linear\", \"start\": 0.25, \"full\": "
        "0.75}",
        "{\"sparsity\": 0.5, \"strength\": 2, \"ramp\": \"square\", \"start\": 0.25, \"full\": "
        "0.75}",
        "{\"sparsity\": 0.5, \"strength\": 2, \"ramp\": \"none\"}"};
    double progress[4] = {0.125, 0.5, 0.75, 1};
    double expected[3][4] = {{0, 1, 2, 2}, {0, 0.5, 2, 2}, {2, 2, 2, 2}};
    for (int i = 0; i < 12; i++) {
        call c = start("ar_net_lambda", options[i / 4]);
        F32(&c, "progress", BL_SCALAR, progress[i % 4]);
        accept(&c, NULL);
        near(result(&c, "lam", 0), expected[i / 4][i % 4]);
        finish(&c);
    }
}

static void opposite_coefficients_are_all_wrong(void **state)
{
    (void)state;
    call c = start("ar_net_stpe", NULL);
    F32(&c, "est", S(2), 1, -2);
    F32(&c, "real", S(2), -1, 2);
    accept(&c, NULL);
    expect(&c, "stpe", 100);
    F32(&c, "est", S(2), 0, 0);
    F32(&c, "real", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "stpe", 0);
    finish(&c);
}

/* Two equal lags share the coefficient; a constant lag shares it with the intercept. */
static void dependent_lags_share(void **state)
{
    (void)state;
    call c = start("ar_net_least_squares", "{\"intercept\": false}");
    F32(&c, "x", S(3, 2), 1, 1, 2, 2, -1, -1);
    F32(&c, "y", S(3, 1), 3, 6, -3);
    accept(&c, NULL);
    expect(&c, "w", 1.5, 1.5);
    expect(&c, "b", 0);
    finish(&c);
    c = start("ar_net_least_squares", NULL);
    F32(&c, "x", S(2, 1), 2, 2);
    F32(&c, "y", S(2, 2), 5, 0, 5, 10);
    accept(&c, NULL);
    expect(&c, "w", 2, 2); /* 2 w + b = 5, with |(w, b)| least */
    expect(&c, "b", 1, 1);
    finish(&c);
}

static void ar_net_refuses(void **state)
{
    (void)state;
    REFUSE("ar_net_lags", "{\"p\": 0}", "option p is 0, expected >= 1");
    REFUSE("ar_net_lags", "{\"p\": 1, \"h\": 0}", "option h is 0, expected >= 1");
    REFUSE("ar_net_lags", "{\"p\": 3}", "series has 3 values, expected at least p + h = 4",
           F32(&c, "series", S(3), 1, 2, 3));
    REFUSE("ar_net_penalty", "{\"c1\": 0}", "option c1 is 0, expected (0,inf)");
    REFUSE("ar_net_penalty", "{\"c2\": -1}", "option c2 is -1, expected (0,inf)");
    REFUSE("ar_net_penalty", "{\"floor\": -1}", "option floor is -1, expected [0,inf)");
    REFUSE("ar_net_penalty", NULL, "w has no rows", F32(&c, "w", S(0, 2), 0));
    REFUSE("ar_net_penalty", NULL, "w is empty", F32(&c, "w", S(2, 0), 0));
    REFUSE("ar_net_loss", NULL, "lam is -1, expected >= 0", F32(&c, "x", S(1, 1), 1);
           F32(&c, "y", S(1, 1), 1); F32(&c, "w", S(1, 1), 1); F32(&c, "b", S(1), 0);
           F32(&c, "lam", BL_SCALAR, -1));
    REFUSE("ar_net_loss", NULL, "x has no rows", F32(&c, "x", S(0, 1), 1); F32(&c, "y", S(0, 1), 1);
           F32(&c, "w", S(1, 1), 1); F32(&c, "b", S(1), 0); F32(&c, "lam", BL_SCALAR, 1));
    REFUSE("ar_net_loss", NULL, "w must be f32[1,2], not f32[1,3]", F32(&c, "x", S(1, 2), 1, 1);
           F32(&c, "y", S(1, 1), 1); F32(&c, "w", S(1, 3), 1, 1, 1); F32(&c, "b", S(1), 0);
           F32(&c, "lam", BL_SCALAR, 1));
    REFUSE("ar_net_lambda", "{\"sparsity\": 0}", "option sparsity is 0, expected (0,1]");
    REFUSE("ar_net_lambda", NULL, "option sparsity is required");
    REFUSE("ar_net_lambda", "{\"sparsity\": 1, \"start\": 0.5, \"full\": 0.5}",
           "option full is 0.5, expected (start,inf)");
    REFUSE("ar_net_lambda", "{\"sparsity\": 1, \"strength\": -1}",
           "option strength is -1, expected [0,inf)");
    REFUSE("ar_net_lambda", "{\"sparsity\": 1, \"noise\": -1}",
           "option noise is -1, expected [0,inf)");
}

/* --- imputation of series --------------------------------------------------------------------- */

static void without_rates_nothing_is_hidden(void **state)
{
    (void)state;
    call c = start("supnotmiwae_obs_dropout", NULL);
    I32(&c, "mask", S(1, 2, 2), 1, 0, 1, 1);
    F32(&c, "u", S(1, 1, 2, 2), 0.7, 0, 0.2, 1);
    F32(&c, "beta", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "mask_out", 1, 0, 1, 1);
    expect(&c, "log_m", 0);
    F32(&c, "beta", S(2), 0.5, 0); /* one variable is never hidden */
    accept(&c, NULL);
    expect(&c, "mask_out", 0, 0, 1, 0);
    near(result(&c, "log_m", 0), -INFINITY); /* u = 1 hides what has no chance to be hidden */
    F32(&c, "u", S(1, 1, 2, 2), 0.7, 0, 0.2, 0.9);
    accept(&c, NULL);
    expect(&c, "log_m", 2 * log(0.5));
    finish(&c);
}

/* A variable with missing values that are not even numbers: t = 1, 3, 4, observed at 3 only. */
static void values_decay_from_the_last_observed(void **state)
{
    (void)state;
    call c = start("supnotmiwae_fdecay_impute", NULL);
    F32(&c, "x_obs", S(1, 3, 1), NAN, 8, NAN);
    F32(&c, "x_tilde", S(1, 1, 3, 1), 2, 5, -4);
    U8(&c, "mask", S(1, 1, 3, 1), 0, 1, 0);
    F32(&c, "times", S(1, 3), 1, 3, 4);
    F32(&c, "w", S(1), 1);
    F32(&c, "bias", S(1), 0.5);
    give_to(&c.cotangent, "x_imputed", (bl_type){BL_F32, S(1, 1, 3, 1)}, VALUES(1, 1, 1));
    accept(&c, NULL);
    double g = exp(-1.5); /* ages 1 - 0 and 4 - 3 */
    expect(&c, "x_imputed", (1 - g) * 2, 8, g * 8 + (1 - g) * -4);
    near(slope(&c, "x_tilde", 0), 1 - g);
    near(slope(&c, "x_tilde", 1), 0);
    near(slope(&c, "bias", 0), -g * (0 - 2) - g * (8 + 4));
    near(slope(&c, "w", 0), -g * (0 - 2) - g * (8 + 4));
    finish(&c);
    c = start("supnotmiwae_fdecay_impute", NULL); /* a negative decay carries forward */
    F32(&c, "x_obs", S(1, 2, 1), 3, NAN);
    F32(&c, "x_tilde", S(2, 1, 2, 1), 0, 7, 0, 9);
    U8(&c, "mask", S(2, 1, 2, 1), 1, 0, 0, 0);
    F32(&c, "times", S(1, 2), 0, 1);
    F32(&c, "w", S(1), -1);
    F32(&c, "bias", S(1), 0);
    give_to(&c.cotangent, "x_imputed", (bl_type){BL_F32, S(2, 1, 2, 1)}, VALUES(1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "x_imputed", 3, 3, 0, 0);
    near(slope(&c, "w", 0), 0);
    all_finite(&c.gradient);
    finish(&c);
}

static void missing_data_have_no_likelihood(void **state)
{
    (void)state;
    call c = start("supnotmiwae_gauss_logprob", NULL);
    F32(&c, "x", S(1, 2, 1), NAN, 3);
    F32(&c, "mu", S(1, 1, 2, 1), 0, 1);
    F32(&c, "sigma", S(1, 1, 2, 1), 1, 2);
    U8(&c, "mask", S(1, 2, 1), 0, 1);
    give_to(&c.cotangent, "log_px", (bl_type){BL_F32, S(1, 1)}, VALUES(1));
    accept(&c, NULL);
    expect(&c, "log_px", -0.5 - log(2) - 0.5 * log(2 * acos(-1)));
    near(slope(&c, "mu", 0), 0);
    near(slope(&c, "sigma", 0), 0);
    near(slope(&c, "mu", 1), 0.5);
    near(slope(&c, "sigma", 1), 0);
    finish(&c);
}

/* Two steps, the second padded: the covariance is [[a,b],[b,a]], with determinant a^2 - b^2. */
static void the_process_counts_padded_steps_and_the_posterior_does_not(void **state)
{
    (void)state;
    double one = 0.5 * log(2 * acos(-1)), a[2] = {2 + 0.5, 1.5}, b[2] = {1, exp(-1)};
    static const char *const options[] = {
        "{\"kernel\": \"cauchy\", \"length_scale\": 1, \"sigma\": 2, \"jitter\": 0.5}",
        "{\"kernel\": \"rbf\", \"length_scale\": 1, \"sigma\": 2, \"jitter\": 0.5}",
        "{\"prior\": \"normal\"}"};
    for (int i = 0; i < 3; i++) {
        call c = start("supnotmiwae_latent_terms", options[i]);
        F32(&c, "z", S(1, 1, 2, 1), 1, 3);
        F32(&c, "q_mu", S(1, 2, 1), 1, 0);
        F32(&c, "q_sigma", S(1, 2, 1), 2, 1);
        U8(&c, "pad", S(1, 2), 1, 0);
        give_to(&c.cotangent, "log_pz", (bl_type){BL_F32, S(1, 1)}, VALUES(1));
        accept(&c, NULL);
        near(result(&c, "log_qz", 0), -log(2) - one);
        double det = i < 2 ? a[i] * a[i] - b[i] * b[i] : 1;
        double form = i < 2 ? (a[i] * 10 - 2 * b[i] * 3) / det : 1;
        near(result(&c, "log_pz", 0), -0.5 * form - (i < 2 ? 2 : 1) * one - 0.5 * log(det));
        near(slope(&c, "z", 1), i < 2 ? -(a[i] * 3 - b[i]) / det : 0);
        finish(&c);
    }
}

static void sure_logits_of_a_mask_are_stable(void **state)
{
    (void)state;
    call c = start("supnotmiwae_missing_logprob", NULL);
    F32(&c, "logits", S(1, 1, 2, 2), 80, -80, 80, 1000);
    U8(&c, "mask", S(1, 1, 2, 2), 1, 1, 0, 0);
    U8(&c, "pad", S(1, 2), 1, 0);
    give_to(&c.cotangent, "log_ps", (bl_type){BL_F32, S(1, 1)}, VALUES(1));
    accept(&c, NULL);
    expect(&c, "log_ps", -80);
    near(slope(&c, "logits", 1), 1);
    near(slope(&c, "logits", 3), 0);
    finish(&c);
}

/* Two latents, one of them 2 log 3 likelier by large terms that cancel. */
static void weights_survive_large_sums(void **state)
{
    (void)state;
    double third = 2 * log(3);
    call c = start("supnotmiwae_bound", NULL);
    F32(&c, "log_py", S(1, 2, 1), log(0.5), log(0.25));
    F32(&c, "log_px", S(2, 1), -100000, -100000);
    F32(&c, "log_pz", S(2, 1), 60000, 60000);
    F32(&c, "log_qz", S(2, 1), -40000, -40000);
    F32(&c, "log_ps", S(1, 2, 1), 0, third);
    F32(&c, "log_m", S(1, 2, 1), 0, -log(3));
    accept(&c, "loss");
    near(result(&c, "loss", 0), -log((0.5 + 0.25 * 3) / 2));
    expect(&c, "log_w", log(0.25), log(0.75));
    expect(&c, "ess", 1 / (1.0 / 16 + 9.0 / 16));
    near(slope(&c, "log_py", 0), -0.4);
    near(slope(&c, "log_qz", 1), 0.6);
    c.options = "{\"weights_include_ps\": false}";
    accept(&c, "loss");
    expect(&c, "log_w", log(0.75), log(0.25));
    finish(&c);
}

static void predictions_are_averaged_by_class(void **state)
{
    (void)state;
    static const char *const options[] = {NULL, "{\"average\": \"geometric\"}"};
    double expected[2][2] = {{0.5 * (0.6 + 0.2), 0.5 * (0.4 + 0)}, {sqrt(0.6 * 0.2), 0}};
    for (int i = 0; i < 4; i++) { /* flat, and with an axis for classes */
        call c = start("supnotmiwae_predict", options[i % 2]);
        F32(&c, "log_p", i < 2 ? S(2, 1, 2) : S(2, 1, 1, 2), log(0.6), log(0.4), log(0.2),
            -INFINITY);
        F32(&c, "log_w", S(2, 1, 1), 0, 0);
        accept(&c, NULL);
        expect(&c, "prob", expected[i % 2][0], expected[i % 2][1]);
        finish(&c);
    }
}

static void times_far_away_are_encoded_exactly(void **state)
{
    (void)state;
    call c = start("supnotmiwae_time_encoding", "{\"dim\": 3, \"max_time\": 10000}");
    F32(&c, "times", S(1, 1), 123456);
    accept(&c, NULL);
    expect(&c, "encoding", sin(123456), cos(1234.56), sin(12.3456));
    finish(&c);
}

static void supnotmiwae_refuses(void **state)
{
    (void)state;
    REFUSE("supnotmiwae_obs_dropout", NULL, "beta[0] is 1, expected [0,1)",
           U8(&c, "mask", S(1, 1, 1), 1);
           F32(&c, "u", S(1, 1, 1, 1), 0); F32(&c, "beta", S(1), 1));
    REFUSE("supnotmiwae_obs_dropout", NULL, "mask[0,0,0] is 2, expected in {0,1}",
           I32(&c, "mask", S(1, 1, 1), 2);
           F32(&c, "u", S(1, 1, 1, 1), 0); F32(&c, "beta", S(1), 0));
    REFUSE("supnotmiwae_gauss_logprob", NULL, "sigma[0,0,0,0] is 0, expected > 0",
           F32(&c, "x", S(1, 1, 1), 0);
           F32(&c, "mu", S(1, 1, 1, 1), 0); F32(&c, "sigma", S(1, 1, 1, 1), 0);
           U8(&c, "mask", S(1, 1, 1), 1));
    REFUSE("supnotmiwae_latent_terms", "{\"length_scale\": 0}",
           "option length_scale is 0, expected (0,inf)");
    REFUSE("supnotmiwae_latent_terms", "{\"jitter\": 0}", "option jitter is 0, expected (0,inf)");
    REFUSE("supnotmiwae_latent_terms", NULL, "q_sigma[0,0,0] is -1, expected > 0",
           F32(&c, "z", S(1, 1, 1, 1), 0);
           F32(&c, "q_mu", S(1, 1, 1), 0); F32(&c, "q_sigma", S(1, 1, 1), -1);
           U8(&c, "pad", S(1, 1), 1));
    REFUSE("supnotmiwae_missing_logprob", NULL, "pad[0,0] is 3, expected in {0,1}",
           F32(&c, "logits", S(1, 1, 1, 1), 0);
           U8(&c, "mask", S(1, 1, 1, 1), 0); U8(&c, "pad", S(1, 1), 3));
    REFUSE("supnotmiwae_time_encoding", "{\"dim\": 1}", "option dim is 1, expected >= 2");
    REFUSE("supnotmiwae_predict", NULL, "log_p has 3 columns, expected 2 of log_w times",
           F32(&c, "log_p", S(1, 1, 3), 0, 0, 0);
           F32(&c, "log_w", S(1, 1, 2), 0, 0));
    REFUSE("supnotmiwae_bound", NULL, "log_px must be f32[2,1], not f32[1,2]",
           F32(&c, "log_py", S(1, 2, 1), 0, 0);
           F32(&c, "log_px", S(1, 2), 0, 0); F32(&c, "log_pz", S(2, 1), 0, 0);
           F32(&c, "log_qz", S(2, 1), 0, 0); F32(&c, "log_ps", S(1, 2, 1), 0, 0);
           F32(&c, "log_m", S(1, 2, 1), 0, 0));
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
        cmocka_unit_test(windows_are_oldest_first),
        cmocka_unit_test(an_impulse_shows_the_coefficients),
        cmocka_unit_test(a_weight_of_zero_has_slope_zero),
        cmocka_unit_test(weights_up_to_the_floor_count_but_do_not_move),
        cmocka_unit_test(errors_are_measured_three_ways),
        cmocka_unit_test(the_ramp_ends_at_full),
        cmocka_unit_test(opposite_coefficients_are_all_wrong),
        cmocka_unit_test(dependent_lags_share),
        cmocka_unit_test(ar_net_refuses),
        cmocka_unit_test(without_rates_nothing_is_hidden),
        cmocka_unit_test(values_decay_from_the_last_observed),
        cmocka_unit_test(missing_data_have_no_likelihood),
        cmocka_unit_test(the_process_counts_padded_steps_and_the_posterior_does_not),
        cmocka_unit_test(sure_logits_of_a_mask_are_stable),
        cmocka_unit_test(weights_survive_large_sums),
        cmocka_unit_test(predictions_are_averaged_by_class),
        cmocka_unit_test(times_far_away_are_encoded_exactly),
        cmocka_unit_test(supnotmiwae_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
