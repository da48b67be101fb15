/* The methods for scarce data and large models - infinite compute, token crisis, scaling
 * crossovers, WideNet: what their specs refuse, and facts about values and gradients at shapes and
 * corners that the reference cases do not have. */
#include "calls.h"

/* --- infinite compute ------------------------------------------------------------------------- */

/* Averaging logits is the normalised geometric mean: 2/3 and 1/3 against 1/3 and 2/3 is a draw. */
static void an_ensemble_averages_logits_not_probabilities(void **state)
{
    (void)state;
    call c = start("infinite_compute_ensemble_nll", NULL);
    F32(&c, "logits", S(2, 1, 2), log(8), 0, log(0.5), 0);
    I32(&c, "labels", S(1), 0);
    F32(&c, "weights", S(1), 3);
    accept(&c, "loss");
    expect(&c, "avg_logits", log(2), 0);
    expect(&c, "loss", log(1.5));
    near(slope(&c, "logits", 0), -1.0 / 6);
    near(slope(&c, "weights", 0), 0); /* the weight of a single position cancels */
    c.options = "{\"temperature\": 3}";
    accept(&c, "loss");
    expect(&c, "avg_logits", log(2) / 3, 0);
    finish(&c);
}

static void equal_members_share_the_largest_logit_by_order(void **state)
{
    (void)state;
    call c = start("infinite_compute_ensemble_nll", "{\"method\": \"max\"}");
    F32(&c, "logits", S(3, 1, 2), 0, 80, 1, 80, 1, -80);
    I32(&c, "labels", S(1), 0);
    F32(&c, "weights", S(1), 1);
    accept(&c, "loss");
    expect(&c, "avg_logits", 1, 80);
    expect_values(&c, "loss", 1, VALUES(79));
    near(slope(&c, "logits", 0), 0); /* not the largest */
    near(slope(&c, "logits", 2), -1);
    near(slope(&c, "logits", 4), 0);
    near(slope(&c, "logits", 1), 1); /* the first of equals */
    near(slope(&c, "logits", 3), 0);
    c.options = "{\"method\": \"min\"}";
    accept(&c, "loss");
    expect(&c, "avg_logits", 0, -80);
    near(result(&c, "loss", 0), 0);
    finish(&c);
}

static void padding_counts_nothing(void **state)
{
    (void)state;
    call c = start("infinite_compute_ensemble_nll", NULL);
    F32(&c, "logits", S(1, 2, 2), 0, 0, 80, -80);
    I32(&c, "labels", S(2), 1, 1);
    F32(&c, "weights", S(2), 2, 0);
    accept(&c, "loss");
    expect(&c, "loss", log(2));
    near(slope(&c, "logits", 2), 0);
    near(slope(&c, "weights", 1), (160 - log(2)) / 2);
    finish(&c);
}

static void draws_fall_on_tokens_by_cumulative_probability(void **state)
{
    (void)state;
    call c = start("infinite_compute_sample", NULL);
    F32(&c, "logits", S(5, 2), 0, 0, 0, 0, 0, 0, -800, 0, 0, -800);
    F32(&c, "u", S(5), 0, 0.5, 0.99999994, 0, 0.99999994);
    accept(&c, NULL);
    expect(&c, "token", 0, 1, 1, 1, 0); /* u = 0 passes a token of probability 0 */
    finish(&c);
    c = start("infinite_compute_sample", "{\"temperature\": 0.001}");
    F32(&c, "logits", S(1, 3), 0, 1, 0.5);
    F32(&c, "u", S(1), 0.9);
    accept(&c, NULL);
    expect(&c, "token", 1);
    finish(&c);
}

static void the_rate_rises_then_falls_along_a_cosine(void **state)
{
    (void)state;
    call c = start("infinite_compute_lr",
                   "{\"total\": 29, \"warmup_frac\": 0.2, \"peak\": 2, \"min_ratio\": 0.25}");
    I32(&c, "step", S(6), 0, 4, 5, 17, 29, 1000); /* floor(5.8) steps of warm-up */
    accept(&c, NULL);
    expect(&c, "lr", 0, 1.6, 2, 1.25, 0.5, 0.5);
    finish(&c);
    c = start("infinite_compute_lr", "{\"total\": 1}"); /* no warm-up at all */
    I32(&c, "step", S(2), 0, 1);
    accept(&c, NULL);
    expect(&c, "lr", 3e-3, 0);
    finish(&c);
}

static void strong_decay_is_outside_of_adam(void **state)
{
    (void)state;
    call c = start("infinite_compute_adamw_step",
                   "{\"step\": 1, \"lr\": 0.5, \"weight_decay\": 0.5, \"eps\": 0}");
    F32(&c, "param", S(3), 4, 4, 4);
    F32(&c, "grad", S(3), 3, -4, 0);
    F32(&c, "m", S(3), 0, 0, 0);
    F32(&c, "v", S(3), 0, 0, 0);
    F32(&c, "decay_mask", S(3), 1, 0, 1);
    accept(&c, NULL);
    expect(&c, "grad_norm", 5);
    expect(&c, "m_out", 0.06, -0.08, 0); /* of the gradient at length 1 */
    expect(&c, "param_out", 4 - 0.5 * (1 + 2), 4 + 0.5, 4 - 0.5 * 2);
    c.options = "{\"step\": 1, \"lr\": 0.5, \"clip\": 0, \"weight_decay\": 0}";
    accept(&c, NULL);
    expect(&c, "m_out", 0.3, -0.4, 0);
    c.options = "{\"step\": 1, \"lr\": 0.5, \"clip\": 10, \"weight_decay\": 0}";
    accept(&c, NULL);
    expect(&c, "m_out", 0.3, -0.4, 0);
    finish(&c);
}

static void no_gradient_clips_nothing(void **state)
{
    (void)state;
    call c = start("infinite_compute_adamw_step", "{\"step\": 3, \"lr\": 1, \"eps\": 0}");
    F32(&c, "param", S(1), 2);
    F32(&c, "grad", S(1), 0);
    F32(&c, "m", S(1), 0);
    F32(&c, "v", S(1), 0);
    F32(&c, "decay_mask", S(1), 0);
    accept(&c, NULL);
    expect(&c, "param_out", 2);
    expect(&c, "grad_norm", 0);
    finish(&c);
}

static void a_power_law_is_recovered_in_any_unit(void **state)
{
    (void)state;
    for (int unit = 0; unit < 2; unit++) {
        call c = start("infinite_compute_power_fit", NULL);
        double scale = unit ? 1e9 : 1;
        F32(&c, "x", S(4), 4 * scale, 1 * scale, 16 * scale, 64 * scale);
        F32(&c, "y", S(4), 4, 5, 3.5, 3.25); /* 2 / sqrt(x) + 3 */
        accept(&c, NULL);
        near(result(&c, "coef", 0) / sqrt(scale), 2);
        near(result(&c, "coef", 1), 0.5);
        near(result(&c, "coef", 2), 3);
        assert_true(result(&c, "sse", 0) < 1e-12);
        finish(&c);
    }
}

static void a_fit_without_a_fall_is_a_constant(void **state)
{
    (void)state;
    call c = start("infinite_compute_power_fit", NULL);
    F32(&c, "x", S(3), 1, 2, 3);
    F32(&c, "y", S(3), 3.3, 3.3, 3.3);
    accept(&c, NULL);
    expect(&c, "coef", 0, 0, 3.3);
    F32(&c, "y", S(3), 1, 2, 3); /* rises */
    accept(&c, NULL);
    expect(&c, "coef", 0, 0, 2);
    expect(&c, "sse", 2);
    F32(&c, "y", S(3), -1, -2, -3);
    accept(&c, NULL);
    expect(&c, "coef", 0, 0, 0);
    expect(&c, "sse", 14);
    F32(&c, "y", S(3), 1, NAN, 3);
    accept(&c, NULL);
    for (int i = 0; i < 3; i++)
        assert_true(isnan(result(&c, "coef", i)));
    assert_true(isnan(result(&c, "sse", 0)));
    finish(&c);
}

/* The exponent would be 2 and the asymptote below 0, were they free. */
static void the_bounds_of_a_fit_hold(void **state)
{
    (void)state;
    call c = start("infinite_compute_power_fit", "{\"alpha_min\": 0.25, \"alpha_max\": 1.5}");
    F32(&c, "x", S(4), 1, 2, 4, 8);
    F32(&c, "y", S(4), 1, 0.25, 0.0625, 0.015625);
    accept(&c, NULL);
    near(result(&c, "coef", 1), 1.5);
    assert_true(result(&c, "coef", 2) >= 0);
    c.options = "{\"alpha_min\": 2, \"alpha_max\": 2, \"grid\": 2}";
    accept(&c, NULL);
    expect(&c, "coef", 1, 2, 0);
    finish(&c);
}

/* loss = 1 / k + 1 / n + 2 */
static void asymptotes_have_an_asymptote(void **state)
{
    (void)state;
    call c = start("infinite_compute_tiered", NULL);
    F32(&c, "n", S(3), 1, 2, 4);
    F32(&c, "k", S(4), 1, 2, 4, 8);
    F32(&c, "loss", S(3, 4), 4, 3.5, 3.25, 3.125, 3.5, 3, 2.75, 2.625, 3.25, 2.75, 2.5, 2.375);
    accept(&c, NULL);
    expect(&c, "k_coef", 1, 1, 3, 1, 1, 2.5, 1, 1, 2.25);
    expect(&c, "n_coef", 1, 1, 2);
    expect(&c, "asymptote", 2);
    finish(&c);
}

static void equal_losses_need_equal_data(void **state)
{
    (void)state;
    call c = start("infinite_compute_data_equiv", "{\"A\": 2, \"alpha\": 0.5, \"E\": 1}");
    F32(&c, "loss", S(2), 2, 1.5);
    F32(&c, "base_loss", S(2), 2, 2);
    accept(&c, NULL);
    expect(&c, "data", 4, 16);
    expect(&c, "ratio", 1, 4);
    finish(&c);
}

static void a_certificate_needs_every_neighbour(void **state)
{
    (void)state;
    call c = start("infinite_compute_certificate", NULL);
    F32(&c, "loss", S(1, 1, 1), 3); /* a point is its own neighbour */
    accept(&c, NULL);
    expect(&c, "index", 0, 0, 0);
    expect(&c, "measured", 6);
    expect(&c, "certified", 1);
    F32(&c, "loss", S(2, 2, 2), NAN, 4, 2, INFINITY, 3, 3, 2, NAN); /* the first of two */
    accept(&c, NULL);
    expect(&c, "index", 0, 1, 0);
    expect(&c, "best", 2);
    expect(&c, "measured", 5); /* diverged is measured, not run is not */
    expect(&c, "certified", 0);
    F32(&c, "loss", S(2, 2, 2), 5, 4, 2, INFINITY, 3, 3, 2, NAN);
    accept(&c, NULL);
    expect(&c, "certified", 1); /* an equal neighbour is not lower */
    finish(&c);
}

#define ENSEMBLE(...)                                                                              \
    F32(&c, "logits", S(1, 2, 2), 0, 0, 0, 0), I32(&c, "labels", S(2), 0, 1), __VA_ARGS__

static void infinite_compute_refuses(void **state)
{
    (void)state;
    const char *f = "infinite_compute_ensemble_nll";
    REFUSE(f, "{\"temperature\": 0}", "option temperature is 0, expected (0,inf)");
    REFUSE(f, "{\"method\": \"sum\"}", "option method is \"sum\", expected one of mean|max|min");
    REFUSE(f, NULL, "logits has no rows, expected at least one",
           give(&c, "logits", BL_F32, S(0, 1, 2), NULL), I32(&c, "labels", S(1), 0),
           F32(&c, "weights", S(1), 1));
    REFUSE(f, NULL, "labels has no rows, expected at least one",
           give(&c, "logits", BL_F32, S(1, 0, 2), NULL), give(&c, "labels", BL_I32, S(0), NULL),
           give(&c, "weights", BL_F32, S(0), NULL));
    REFUSE(f, NULL, "labels[1] is 2, expected 0 <= . < V (V is 2)",
           ENSEMBLE(F32(&c, "weights", S(2), 1, 1)), I32(&c, "labels", S(2), 0, 2));
    REFUSE(f, NULL, "labels[0] is -1, expected 0 <= . < V",
           ENSEMBLE(F32(&c, "weights", S(2), 1, 1)), I32(&c, "labels", S(2), -1, 0));
    REFUSE(f, NULL, "weights[1] is -1, expected >= 0", ENSEMBLE(F32(&c, "weights", S(2), 2, -1)));
    REFUSE(f, NULL, "weights sums to 0, expected a positive sum",
           ENSEMBLE(F32(&c, "weights", S(2), 0, 0)));

    REFUSE("infinite_compute_sample", NULL, "u[0] is 1, expected 0 <= . < 1",
           F32(&c, "logits", S(1, 2), 0, 0), F32(&c, "u", S(1), 1));
    REFUSE("infinite_compute_sample", NULL, "logits have no classes, expected V >= 1",
           give(&c, "logits", BL_F32, S(1, 0), NULL), F32(&c, "u", S(1), 0));
    REFUSE("infinite_compute_sample", "{\"temperature\": -1}",
           "option temperature is -1, expected (0,inf)");
    REFUSE("infinite_compute_lr", NULL, "option total is required");
    REFUSE("infinite_compute_lr", "{\"total\": 0}", "option total is 0, expected >= 1");
    REFUSE("infinite_compute_lr", "{\"total\": 9, \"warmup_frac\": 1}",
           "option warmup_frac is 1, expected [0,1)");
    REFUSE("infinite_compute_lr", "{\"total\": 9}", "step[1] is -1, expected >= 0",
           I32(&c, "step", S(2), 0, -1));
    REFUSE("infinite_compute_adamw_step", "{\"step\": 0, \"lr\": 1}",
           "option step is 0, expected >= 1");
    REFUSE("infinite_compute_adamw_step", "{\"step\": 1.5, \"lr\": 1}",
           "option step is 1.5, expected integer");
    REFUSE("infinite_compute_adamw_step", "{\"step\": 1, \"lr\": 1, \"clip\": -1}",
           "option clip is -1, expected [0,inf)");
}

#define GIVE_XY(...) F32(&c, "x", S(3), __VA_ARGS__), F32(&c, "y", S(3), 3, 2, 1)

static void fits_refuse(void **state)
{
    (void)state;
    const char *f = "infinite_compute_power_fit";
    REFUSE(f, NULL, "x[2] is 0, expected > 0", GIVE_XY(1, 2, 0));
    REFUSE(f, NULL, "x[1] is inf, expected finite", GIVE_XY(1, INFINITY, 3));
    REFUSE(f, NULL, "x has one value only, expected different ones", GIVE_XY(2, 2, 2));
    REFUSE(f, NULL, "x has 2 values, expected at least 3", F32(&c, "x", S(2), 1, 2),
           F32(&c, "y", S(2), 1, 2));
    REFUSE(f, NULL, "y must be f32[3], not f32[2]", F32(&c, "x", S(3), 1, 2, 3),
           F32(&c, "y", S(2), 1, 2));
    REFUSE(f, "{\"alpha_min\": 0}", "option alpha_min is 0, expected (0,inf)");
    REFUSE(f, "{\"alpha_max\": 1e-4}", "option alpha_max is 0.0001, expected [alpha_min,inf)");
    REFUSE(f, "{\"grid\": 1}", "option grid is 1, expected >= 2");
    f = "infinite_compute_tiered";
    REFUSE(f, NULL, "k has one value only, expected different ones", F32(&c, "n", S(3), 1, 2, 3),
           F32(&c, "k", S(3), 1, 1, 1), F32(&c, "loss", S(3, 3), 3, 2, 1, 3, 2, 1, 3, 2, 1));
    REFUSE(f, NULL, "n has 1 values, expected at least 3", F32(&c, "n", S(1), 1),
           F32(&c, "k", S(3), 1, 2, 3), F32(&c, "loss", S(1, 3), 3, 2, 1));
    f = "infinite_compute_data_equiv";
    REFUSE(f, NULL, "option A is required");
    REFUSE(f, "{\"A\": 1, \"alpha\": 0, \"E\": 0}", "option alpha is 0, expected (0,inf)");
    REFUSE(f, "{\"A\": 1, \"alpha\": 1, \"E\": 2}", "loss[1] is 2, expected > E (E is 2)",
           F32(&c, "loss", S(2), 3, 2), F32(&c, "base_loss", S(2), 3, 3));
    REFUSE(f, "{\"A\": 1, \"alpha\": 1, \"E\": 2}", "base_loss[0] is 1, expected > E (E is 2)",
           F32(&c, "loss", S(1), 3), F32(&c, "base_loss", S(1), 1));
    REFUSE("infinite_compute_certificate", NULL,
           "loss is NaN everywhere, expected at least one run",
           F32(&c, "loss", S(1, 1, 2), NAN, NAN));
}

/* --- token crisis ----------------------------------------------------------------------------- */

static void a_draw_at_the_rate_is_kept(void **state)
{
    (void)state;
    call c = start("token_crisis_dropout", "{\"rate\": 0.3}");
    F32(&c, "x", S(2, 3), 1, 2, 3, 4, 5, 6);
    F32(&c, "u", S(2, 1), 0.3f, 0.29); /* a draw for each row */
    give_to(&c.cotangent, "y", (bl_type){BL_F32, S(2, 3)}, VALUES(1, 1, 1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "y", 1 / 0.7, 2 / 0.7, 3 / 0.7, 0, 0, 0);
    near(slope(&c, "x", 2), 1 / 0.7);
    near(slope(&c, "x", 3), 0);
    F32(&c, "u", S(3), 0, 0.5, 0); /* fewer axes than x: the same for all rows */
    accept(&c, NULL);
    expect(&c, "y", 0, 2 / 0.7, 0, 0, 5 / 0.7, 0);
    c.options = "{\"rate\": 0}";
    accept(&c, NULL);
    expect(&c, "y", 1, 2, 3, 4, 5, 6);
    finish(&c);
}

static void a_dropped_branch_leaves_the_shortcut(void **state)
{
    (void)state;
    call c = start("token_crisis_droppath", "{\"rate\": 0.5}");
    F32(&c, "x", S(2, 1, 2), 1, 2, 3, 4);
    F32(&c, "h", S(2, 1, 2), 10, 20, 30, 40);
    F32(&c, "u", S(2), 0.5, 0.4);
    give_to(&c.cotangent, "y", (bl_type){BL_F32, S(2, 1, 2)}, VALUES(1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "y", 21, 42, 3, 4);
    near(slope(&c, "h", 0), 2);
    near(slope(&c, "h", 2), 0);
    near(slope(&c, "x", 2), 1);
    finish(&c);
}

static void dropout_begins_at_its_stage(void **state)
{
    (void)state;
    call c = start("token_crisis_dropstage", "{\"start\": 5, \"rate\": 0.25}");
    I32(&c, "step", S(3), 4, 5, 2147483647);
    accept(&c, NULL);
    expect(&c, "rate", 0, 0.25, 0.25);
    c.options = NULL;
    accept(&c, NULL);
    expect(&c, "rate", 0.1, 0.1, 0.1);
    finish(&c);
}

/* A prediction that is the smoothed target itself costs nothing. */
static void smoothing_has_minimum_zero(void **state)
{
    (void)state;
    call c = start("token_crisis_xent", "{\"smoothing\": 0.4}");
    F32(&c, "logits", S(2, 3), log(0.6), log(0.2), log(0.2), 80, -80, -80);
    I32(&c, "targets", S(2), 0, 1);
    F32(&c, "weights", S(2), 1, 0);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    expect(&c, "acc", 1);
    near(result(&c, "per_token", 1), 0.6 * 160 + 0.2 * 160 + 0.6 * log(0.6) + 0.4 * log(0.2));
    for (int i = 0; i < 6; i++)
        near(slope(&c, "logits", i), 0);
    finish(&c);
}

static void the_level_of_logits_costs_by_its_square(void **state)
{
    (void)state;
    call c = start("token_crisis_xent", "{\"z_loss\": 0.5}");
    F32(&c, "logits", S(2), 3, 3); /* one token, no axes */
    I32(&c, "targets", BL_SCALAR, 1);
    F32(&c, "weights", BL_SCALAR, 0.1);
    accept(&c, "loss");
    double level = 3 + log(2);
    expect(&c, "loss", log(2) + 0.5 * level * level);
    expect(&c, "acc", 0); /* the first of equal logits is the prediction */
    near(slope(&c, "logits", 0), 0.5 + level * 0.5);
    near(slope(&c, "logits", 1), -0.5 + level * 0.5);
    finish(&c);
}

static void spans_alternate_from_kept_to_hidden(void **state)
{
    (void)state;
    call c =
        start("token_crisis_span_mask", "{\"length\": 8, \"density\": 0.4, \"mean_span\": 1.5}");
    I32(&c, "order_noise", S(2), 1, 0); /* floor(3.7) hidden, floor(2.5) spans: cut after 2 */
    I32(&c, "order_keep", S(4), 3, 0, 2, 1);
    accept(&c, NULL);
    expect(&c, "n_noise", 3);
    expect(&c, "n_spans", 2);
    expect(&c, "mask", 0, 0, 1, 1, 0, 0, 0, 1);
    finish(&c);
    c = start("token_crisis_span_mask", "{\"length\": 2, \"density\": 1}");
    give(&c, "order_noise", BL_I32, S(0), NULL);
    give(&c, "order_keep", BL_I32, S(0), NULL);
    accept(&c, NULL);
    expect(&c, "mask", 0, 1);
    finish(&c);
}

static void inputs_and_targets_share_their_sentinels(void **state)
{
    (void)state;
    call c = start("token_crisis_span_corrupt", "{\"sentinel0\": 9, \"eos\": 1}");
    I32(&c, "tokens", S(4), 5, 6, 7, 4);
    U8(&c, "mask", S(4), 1, 1, 0, 1);
    accept(&c, NULL);
    expect(&c, "inputs", 9, 7, 8, 1, 0, 0, 0, 0, 0, 0);
    expect(&c, "targets", 9, 5, 6, 8, 4, 1, 0, 0, 0, 0);
    expect(&c, "n_inputs", 4);
    expect(&c, "n_targets", 6);
    expect(&c, "n_spans", 2);
    I32(&c, "tokens", S(4), 7, 6, 10, 4); /* 7 would be the third sentinel, of two */
    accept(&c, NULL);
    finish(&c);
    c = start("token_crisis_span_corrupt", "{\"sentinel0\": 0, \"eos\": 1}");
    give(&c, "tokens", BL_I32, S(0), NULL);
    give(&c, "mask", BL_U8, S(0), NULL);
    accept(&c, NULL);
    expect(&c, "inputs", 1, 0);
    expect(&c, "targets", 1, 0);
    finish(&c);
}

static void a_run_falls_from_its_first_best(void **state)
{
    (void)state;
    call c = start("token_crisis_degradation", NULL);
    F32(&c, "val", S(4), 1, 3, 3, 2.5);
    accept(&c, NULL);
    expect(&c, "best", 3);
    expect(&c, "best_at", 1);
    expect(&c, "drop", 0.5);
    F32(&c, "val", S(1), -4);
    accept(&c, NULL);
    expect(&c, "final", -4);
    expect(&c, "drop", 0);
    finish(&c);
}

static void a_proxy_is_judged_by_its_last_value(void **state)
{
    (void)state;
    call c = start("token_crisis_proxy_select", NULL);
    F32(&c, "val", S(3, 2), 9, 1, 0, 2, 5, 2);
    F32(&c, "rates", S(3), 0.1, 0.2, 0.3);
    accept(&c, NULL);
    expect(&c, "index", 1);
    expect(&c, "rate", 0.2);
    finish(&c);
}

#define TOKENS(...) I32(&c, "tokens", S(3), __VA_ARGS__), U8(&c, "mask", S(3), 1, 0, 1)
#define ORDERS(noise, keep)                                                                        \
    I32(&c, "order_noise", S(2), 0, noise), I32(&c, "order_keep", S(2), 0, keep)

static void token_crisis_refuses(void **state)
{
    (void)state;
    REFUSE("token_crisis_dropout", "{\"rate\": 1}", "option rate is 1, expected [0,1)");
    REFUSE("token_crisis_dropout", NULL, "u[1] is 1, expected 0 <= . < 1", F32(&c, "x", S(2), 1, 2),
           F32(&c, "u", S(2), 0, 1));
    REFUSE("token_crisis_dropout", NULL, "f32[3] does not broadcast to [2]",
           F32(&c, "x", S(2), 1, 2), F32(&c, "u", S(3), 0, 0, 0));
    REFUSE("token_crisis_dropout", NULL, "f32[2,2] does not broadcast to 1 axes",
           F32(&c, "x", S(2), 1, 2), F32(&c, "u", S(2, 2), 0, 0, 0, 0));
    REFUSE("token_crisis_droppath", "{\"rate\": -0.5}", "option rate is -0.5, expected [0,1)");
    REFUSE("token_crisis_droppath", NULL, "u must be f32[2], not f32[1]", F32(&c, "x", S(2), 1, 2),
           F32(&c, "h", S(2), 1, 2), F32(&c, "u", S(1), 0));
    REFUSE("token_crisis_dropstage", "{\"start\": -1}", "option start is -1, expected >= 0");
    REFUSE("token_crisis_dropstage", "{\"rate\": 1}", "option rate is 1, expected [0,1)");
    const char *f = "token_crisis_xent";
    REFUSE(f, "{\"smoothing\": 1}", "option smoothing is 1, expected [0,1)");
    REFUSE(f, "{\"z_loss\": -1}", "option z_loss is -1, expected [0,inf)");
    REFUSE(f, NULL, "logits have 1 classes, expected V >= 2", F32(&c, "logits", S(1, 1), 0),
           I32(&c, "targets", S(1), 0), F32(&c, "weights", S(1), 1));
    REFUSE(f, NULL, "targets[0] is 2, expected 0 <= . < V (V is 2)",
           F32(&c, "logits", S(1, 2), 0, 0), I32(&c, "targets", S(1), 2),
           F32(&c, "weights", S(1), 1));
    REFUSE(f, NULL, "weights sums to 0, expected a positive sum", F32(&c, "logits", S(1, 2), 0, 0),
           I32(&c, "targets", S(1), 1), F32(&c, "weights", S(1), 0));
    REFUSE("token_crisis_degradation", NULL, "val has no rows",
           give(&c, "val", BL_F32, S(0), NULL));
    REFUSE("token_crisis_proxy_select", NULL, "val has no rows",
           give(&c, "val", BL_F32, S(0, 2), NULL), give(&c, "rates", BL_F32, S(0), NULL));
    REFUSE("token_crisis_proxy_select", NULL, "val has no columns",
           give(&c, "val", BL_F32, S(1, 0), NULL), F32(&c, "rates", S(1), 0));
}

static void spans_refuse(void **state)
{
    (void)state;
    const char *f = "token_crisis_span_mask";
    REFUSE(f, "{\"length\": 1}", "option length is 1, expected >= 2");
    REFUSE(f, "{\"length\": 6, \"mean_span\": 0}", "option mean_span is 0, expected (0,inf)");
    REFUSE(f, "{\"length\": 6, \"density\": 1.5}", "option density is 1.5, expected [0,1]");
    REFUSE(f, "{\"length\": 6, \"density\": 0.5}",
           "order_keep is not a permutation of 0..1: it lacks 1", ORDERS(1, 2));
    REFUSE(f, "{\"length\": 6, \"density\": 0.5}",
           "order_noise is not a permutation of 0..1: it lacks 1", ORDERS(0, 1));
    REFUSE(f, "{\"length\": 7, \"density\": 0.5}", "order_noise has 2 entries, expected 3",
           ORDERS(1, 1));
    REFUSE(f, "{\"length\": 7, \"density\": 0.4}", "order_keep has 2 entries, expected 3",
           ORDERS(1, 1));
    f = "token_crisis_span_corrupt";
    REFUSE(f, "{\"sentinel0\": 9}", "option eos is required");
    REFUSE(f, "{\"sentinel0\": 9, \"eos\": 1}",
           "tokens[2] is 8, which is a sentinel: they are 8 to 9", TOKENS(5, 6, 8));
    REFUSE(f, "{\"sentinel0\": 9, \"eos\": 1}", "tokens[1] is 9, which is a sentinel",
           TOKENS(5, 9, 7));
    REFUSE(f, "{\"sentinel0\": 0, \"eos\": 1}",
           "option sentinel0 is 0, expected 1 <= . <= 2147483647 for 2 spans", TOKENS(5, 6, 7));
    REFUSE(f, "{\"sentinel0\": 9, \"eos\": 1}", "mask[1] is 2, expected in {0,1}",
           I32(&c, "tokens", S(2), 0, 0), U8(&c, "mask", S(2), 0, 2));
}

/* --- scaling crossovers ----------------------------------------------------------------------- */

static void a_pure_power_law_is_fitted_exactly(void **state)
{
    (void)state;
    call c = start("scaling_crossover_fit", NULL);
    F32(&c, "c", S(3), 16, 1, 256);
    F32(&c, "loss", S(3), 2, 4, 1); /* 4 / c^(1/4) */
    accept(&c, NULL);
    expect(&c, "coef", 4, 0.25);
    assert_true(result(&c, "rms", 0) < 1e-7);
    F32(&c, "loss", S(3), 2, 1, 4); /* it may rise */
    accept(&c, NULL);
    expect(&c, "coef", 1, -0.25);
    F32(&c, "c", S(2), 1, 4);
    F32(&c, "loss", S(2), 3, 3);
    accept(&c, NULL);
    expect(&c, "coef", 3, 0);
    finish(&c);
}

static void residuals_of_a_fit_are_of_logarithms(void **state)
{
    (void)state;
    call c = start("scaling_crossover_fit", NULL);
    F32(&c, "c", S(4), 1, 1, 4, 4);
    F32(&c, "loss", S(4), exp(1), exp(-1), exp(1), exp(-1));
    accept(&c, NULL);
    expect(&c, "coef", 1, 0);
    expect(&c, "rms", 1);
    finish(&c);
}

/* Pure laws cross at (a_A / a_B)^(1 / (alpha_A - alpha_B)). */
static void pure_laws_cross_where_they_are_equal(void **state)
{
    (void)state;
    call c = start("scaling_crossover_point", "{\"c_min\": 1, \"c_max\": 1000, \"grid\": 2}");
    F32(&c, "coef_a", S(3), 8, 1, 0);
    F32(&c, "coef_b", S(3), 2, 0.5, 0);
    accept(&c, NULL);
    expect(&c, "n_cross", 1);
    expect(&c, "c_first", 16);
    expect(&c, "better_small", 1);
    expect(&c, "better_large", -1);
    c.options = "{\"c_min\": 17, \"c_max\": 1000}";
    accept(&c, NULL);
    expect(&c, "n_cross", 0);
    expect(&c, "c_first", 0);
    expect(&c, "better_small", -1);
    c.options = "{\"c_min\": 1, \"c_max\": 256, \"grid\": 3}"; /* exactly on the middle point */
    F32(&c, "coef_a", S(3), 4, 0, 0);
    F32(&c, "coef_b", S(3), 4, 0, 0);
    accept(&c, NULL);
    expect(&c, "n_cross", 0);
    expect(&c, "better_small", 0);
    expect(&c, "better_large", 0);
    finish(&c);
}

/* 1/c + 1 against 1.5 / c^(1/4) crosses twice: below at first, then above, then below. */
static void laws_with_a_floor_may_cross_twice(void **state)
{
    (void)state;
    call c = start("scaling_crossover_point", "{\"c_min\": 0.1, \"c_max\": 1e4}");
    F32(&c, "coef_a", S(3), 1, 1, 1);
    F32(&c, "coef_b", S(3), 1.8, 0.25, 0);
    accept(&c, NULL);
    expect(&c, "n_cross", 2);
    expect(&c, "better_small", 1);
    expect(&c, "better_large", 1);
    double first = result(&c, "c_first", 0);
    near(1 / first + 1, (double)1.8f / pow(first, 0.25));
    finish(&c);
}

static void ties_are_stepped_over(void **state)
{
    (void)state;
    call c = start("scaling_crossover_empirical", NULL);
    F32(&c, "c", S(5), 1, 2, 4, 8, 16);
    F32(&c, "loss_a", S(5), 1, 2, 3, 2, 1);
    F32(&c, "loss_b", S(5), 1, 4, 3, 1, 2);
    accept(&c, NULL);
    expect(&c, "sign", 0, -1, 0, 1, -1);
    expect(&c, "n_cross", 2);
    expect(&c, "c_first", 4); /* half way between log 2 and log 8 */
    F32(&c, "loss_b", S(5), 1, 4, 3, 2, 1);
    accept(&c, NULL);
    expect(&c, "n_cross", 0);
    expect(&c, "c_first", 0);
    finish(&c);
    c = start("scaling_crossover_empirical", NULL);
    F32(&c, "c", S(1), 3);
    F32(&c, "loss_a", S(1), 3);
    F32(&c, "loss_b", S(1), 4);
    accept(&c, NULL);
    expect(&c, "sign", -1);
    finish(&c);
}

static void rules_agree_at_the_reference_width(void **state)
{
    (void)state;
    static const char *const rules[] = {"const", "inverse", "sqrt"};
    const double at_quarter[] = {0.02, 0.08, 0.04};
    for (int i = 0; i < 3; i++) {
        char options[80];
        snprintf(options, sizeof options, "{\"rule\": \"%s\", \"ref\": 100}", rules[i]);
        call c = start("scaling_crossover_lr", options);
        I32(&c, "width", S(2), 100, 25);
        accept(&c, NULL);
        expect(&c, "lr", 0.02, at_quarter[i]);
        finish(&c);
    }
}

static void three_decays_differ_by_factors_of_the_rate(void **state)
{
    (void)state;
    static const char *const decays[] = {"none", "l2", "decoupled", "independent"};
    const double after[] = {4 - 0.05, 4 - 0.05, 4 - 0.05 - 0.05 * 0.25 * 4,
                            4 - 0.05 - 0.5 * 0.25 * 4};
    const double norms[] = {2, 3, 2, 2};
    for (int i = 0; i < 4; i++) {
        char options[160];
        snprintf(options, sizeof options,
                 "{\"step\": 1, \"lr\": 0.1, \"lr_scale\": 0.5, \"lam\": 0.25, \"eps\": 0, "
                 "\"grad_mode\": \"none\", \"decay\": \"%s\"}",
                 decays[i]);
        call c = start("scaling_crossover_step", options);
        F32(&c, "param", S(1), 4);
        F32(&c, "grad", S(1), 2);
        F32(&c, "m", S(1), 0);
        F32(&c, "v", S(1), 0);
        accept(&c, NULL);
        expect(&c, "param_out", after[i]);
        expect(&c, "grad_norm", norms[i]);
        expect(&c, "m_out", 0.1 * norms[i]);
        finish(&c);
    }
}

static void gradients_are_shortened_or_put_at_a_length(void **state)
{
    (void)state;
    call c = start("scaling_crossover_step", "{\"step\": 2, \"threshold\": 10, \"beta1\": 0}");
    F32(&c, "param", S(2), 0, 0);
    F32(&c, "grad", S(2), 3, 4);
    F32(&c, "m", S(2), 1, 1);
    F32(&c, "v", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "m_out", 3, 4);
    c.options = "{\"step\": 2, \"threshold\": 10, \"beta1\": 0, \"grad_mode\": \"normalize\"}";
    accept(&c, NULL);
    expect(&c, "m_out", 6, 8);
    expect(&c, "grad_norm", 5);
    c.options = "{\"step\": 2, \"threshold\": 2.5, \"beta1\": 0}";
    accept(&c, NULL);
    expect(&c, "m_out", 1.5, 2);
    F32(&c, "grad", S(2), 0, 0); /* has no direction */
    c.options = "{\"step\": 2, \"grad_mode\": \"normalize\"}";
    accept(&c, NULL);
    all_finite(&c.out);
    expect(&c, "m_out", 0.9, 0.9);
    finish(&c);
}

#define LAWS(...) F32(&c, "coef_a", S(3), __VA_ARGS__), F32(&c, "coef_b", S(3), 1, 0.5, 0)
#define RANGE     "{\"c_min\": 1, \"c_max\": 10}"

static void scaling_crossover_refuses(void **state)
{
    (void)state;
    const char *f = "scaling_crossover_fit";
    REFUSE(f, NULL, "c[1] is 0, expected > 0", F32(&c, "c", S(2), 1, 0),
           F32(&c, "loss", S(2), 1, 1));
    REFUSE(f, NULL, "loss[0] is -1, expected > 0", F32(&c, "c", S(2), 1, 2),
           F32(&c, "loss", S(2), -1, 1));
    REFUSE(f, NULL, "c has one value only, expected different ones", F32(&c, "c", S(2), 3, 3),
           F32(&c, "loss", S(2), 1, 2));
    REFUSE(f, NULL, "c has 1 values, expected at least 2", F32(&c, "c", S(1), 3),
           F32(&c, "loss", S(1), 1));
    f = "scaling_crossover_point";
    REFUSE(f, "{\"c_max\": 10}", "option c_min is required");
    REFUSE(f, "{\"c_min\": 0, \"c_max\": 10}", "option c_min is 0, expected (0,inf)");
    REFUSE(f, "{\"c_min\": 10, \"c_max\": 10}", "option c_max is 10, expected (c_min,inf)");
    REFUSE(f, "{\"c_min\": 1, \"c_max\": 10, \"grid\": 1}", "option grid is 1, expected >= 2");
    REFUSE(f, RANGE, "coef_a[0] is -1, expected >= 0", LAWS(-1, 0.5, 3));
    REFUSE(f, RANGE, "coef_a[2] is -2, expected >= 0", LAWS(9, 0.5, -2));
    REFUSE(f, RANGE, "coef_a gives a loss of 0 at c = 1, expected a finite one > 0", LAWS(0, 1, 0));
    REFUSE(f, RANGE, "coef_a[1] is nan, expected finite", LAWS(1, NAN, 0));
    f = "scaling_crossover_empirical";
    REFUSE(f, NULL, "c[2] is 2, expected more than c[1]", F32(&c, "c", S(3), 1, 2, 2),
           F32(&c, "loss_a", S(3), 1, 1, 1), F32(&c, "loss_b", S(3), 1, 1, 1));
    REFUSE(f, NULL, "loss_b[1] is 0, expected > 0", F32(&c, "c", S(2), 1, 2),
           F32(&c, "loss_a", S(2), 1, 1), F32(&c, "loss_b", S(2), 1, 0));
    REFUSE("scaling_crossover_lr", NULL, "option rule is required");
    REFUSE("scaling_crossover_lr", "{\"rule\": \"linear\"}",
           "option rule is \"linear\", expected one of const|inverse|sqrt");
    REFUSE("scaling_crossover_lr", "{\"rule\": \"sqrt\"}", "width[0] is 0, expected >= 1",
           I32(&c, "width", S(1), 0));
    f = "scaling_crossover_step";
    REFUSE(f, NULL, "option step is required");
    REFUSE(f, "{\"step\": 0}", "option step is 0, expected >= 1");
    REFUSE(f, "{\"step\": 1, \"threshold\": 0}", "option threshold is 0, expected (0,inf)");
    REFUSE(f, "{\"step\": 1, \"lam\": -1}", "option lam is -1, expected [0,inf)");
    REFUSE(f, "{\"step\": 1, \"decay\": \"l1\"}",
           "option decay is \"l1\", expected one of none|l2|decoupled|independent");
    REFUSE(f, "{\"step\": 1, \"grad_mode\": \"value\"}",
           "option grad_mode is \"value\", expected one of none|clip|normalize");
}

/* --- WideNet ---------------------------------------------------------------------------------- */

/* Every token wants expert 1 first and expert 0 second. */
static void first_choices_fill_buffers_before_second_ones(void **state)
{
    (void)state;
    call c = start("widenet_route", "{\"k\": 2, \"capacity_factor\": 1}");
    F32(&c, "x", S(3, 1), 1, 1, 1);
    F32(&c, "w_r", S(2, 1), 0, log(3));
    F32(&c, "noise", S(3, 2), 0, 0, 0, 0, log(9), 0); /* but the last, the other way round */
    accept(&c, "l_balance");
    expect(&c, "capacity", 3);
    expect(&c, "expert", 1, 0, 1, 0, 0, 1);
    expect(&c, "gate", 0.75, 0.25, 0.75, 0.25, 0.75, 0.25);
    expect(&c, "slot", 0, 1, 1, 2, 0, 2); /* 0's first is token 2's first choice */
    expect(&c, "l_balance", 2);
    for (int i = 0; i < 2; i++)
        near(slope(&c, "w_r", i), 0); /* all experts are equally busy */
    c.options = "{\"k\": 2, \"capacity_factor\": 0.5, \"balance_div_k\": 1}";
    accept(&c, NULL);
    expect(&c, "capacity", 1);
    expect(&c, "slot", 0, -1, -1, -1, 0, -1);
    expect(&c, "l_balance", 1);
    finish(&c);
}

static void equal_experts_are_chosen_in_order(void **state)
{
    (void)state;
    call c = start("widenet_route", "{\"k\": 3}");
    F32(&c, "x", S(1, 2), 0, 0);
    F32(&c, "w_r", S(4, 2), 1, 2, 3, 4, 5, 6, 7, 8);
    F32(&c, "noise", S(1, 4), 0, 0, 0, 0);
    accept(&c, NULL);
    expect(&c, "expert", 0, 1, 2);
    expect(&c, "gate", 0.25, 0.25, 0.25);
    finish(&c);
}

static void capacity_is_rounded_and_has_a_least(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        double capacity;
    } cases[] = {
        {"{\"k\": 1, \"capacity_factor\": 1.5}", 3}, /* floor(1.5 * 5 / 2) */
        {"{\"k\": 1, \"capacity_factor\": 1.5, \"even_capacity\": 1}", 4},
        {"{\"k\": 1, \"capacity_factor\": 0.01}", 1},
        {"{\"k\": 1, \"capacity_factor\": 0.01, \"even_capacity\": 1}", 1},
        {"{\"k\": 1, \"capacity_factor\": 0.01, \"min_capacity\": 7, \"even_capacity\": 1}", 7},
        {"{\"k\": 2, \"capacity_factor\": 1.2}", 6}, /* 2 * 1.2 * 5 / 2, whatever the rounding */
        {"{\"k\": 1, \"capacity_factor\": 1e30}", 2147483646},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        call c = start("widenet_route", cases[i].options);
        F32(&c, "x", S(5, 1), 1, 2, 3, 4, 5);
        F32(&c, "w_r", S(2, 1), 1, -1);
        F32(&c, "noise", S(5, 2), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        accept(&c, NULL);
        expect(&c, "capacity", cases[i].capacity);
        finish(&c);
    }
}

/* One expert: y = x times 2 plus 1 where it has room (gelu is the identity for large numbers). */
static void a_dropped_token_gives_nothing(void **state)
{
    (void)state;
    call c = start("widenet_moe", "{\"k\": 1, \"capacity_factor\": 0.67}");
    F32(&c, "x", S(3, 1), 20, 30, 40);
    F32(&c, "w_r", S(1, 1), 5);
    F32(&c, "noise", S(3, 1), 0, 0, 0);
    F32(&c, "w1", S(1, 1, 1), 1);
    F32(&c, "b1", S(1, 1), 0);
    F32(&c, "w2", S(1, 1, 1), 2);
    F32(&c, "b2", S(1, 1), 1);
    give_to(&c.cotangent, "y", (bl_type){BL_F32, S(3, 1)}, VALUES(1, 1, 1));
    accept(&c, NULL);
    expect(&c, "y", 41, 61, 0);
    expect(&c, "n_dropped", 1);
    expect(&c, "l_balance", 1);
    near(slope(&c, "x", 0), 2);
    near(slope(&c, "x", 2), 0);
    near(slope(&c, "w2", 0), 50);
    near(slope(&c, "b2", 0), 2);
    near(slope(&c, "w_r", 0), 0);
    c.options = "{\"k\": 1, \"capacity_factor\": 1e9, \"gelu_tanh\": true}";
    accept(&c, NULL);
    expect(&c, "y", 41, 61, 81);
    expect(&c, "n_dropped", 0);
    finish(&c);
}

static call encoder(const char *options, int64_t blocks)
{
    call c = start("widenet_encoder", options);
    const double zeros[64] = {0};
    F32(&c, "x", S(1, 2, 2), 3, 1, -4, 6);
    give(&c, "noise", BL_F32, S(blocks, 2, 1), zeros);
    give(&c, "w_qkv", BL_F32, S(6, 2), zeros);
    give(&c, "b_qkv", BL_F32, S(6), zeros);
    give(&c, "w_o", BL_F32, S(2, 2), zeros);
    F32(&c, "b_o", S(2), 1, 0);
    F32(&c, "w_r", S(1, 2), 1, 1);
    give(&c, "w1", BL_F32, S(1, 2, 3), zeros);
    give(&c, "b1", BL_F32, S(1, 3), zeros);
    give(&c, "w2", BL_F32, S(1, 3, 2), zeros);
    F32(&c, "b2", S(1, 2), 0, 0.5);
    F32(&c, "ln1_g", S(1, 2), 1, 1);
    F32(&c, "ln1_b", S(1, 2), 0, 0);
    F32(&c, "ln2_g", S(1, 2), 1, 1);
    F32(&c, "ln2_b", S(1, 2), 0, 0);
    F32(&c, "lnf_g", S(2), 2, 2);
    F32(&c, "lnf_b", S(2), 0, 1);
    return c;
}

/* With zero weights each block adds the biases: (1, 0) of attention, (0, 1/2) of the expert. */
static void shared_biases_are_added_in_every_block(void **state)
{
    (void)state;
    call c = encoder("{\"heads\": 1, \"k\": 1, \"eps\": 3}", 4);
    give_to(&c.cotangent, "y", (bl_type){BL_F32, S(1, 2, 2)}, VALUES(1, 0, 0, 0));
    accept(&c, NULL);
    double half = (7.0 - 3.0) / 2, scaled = half / sqrt(half * half + 3);
    near(result(&c, "y", 0), 2 * scaled); /* of (7, 3) and (0, 8) */
    near(result(&c, "y", 1), 1 - 2 * scaled);
    near(result(&c, "y", 3), 1 + 2 * 4 / sqrt(19));
    expect(&c, "l_balance", 4);
    expect(&c, "n_dropped", 0);
    double moved = 2 * 0.5 * 3 / pow(half * half + 3, 1.5); /* d y[0] / d x[0] */
    near(slope(&c, "x", 0), moved);
    near(slope(&c, "b_o", 0), 4 * moved);
    c.options = "{\"heads\": 1, \"k\": 1, \"eps\": 3, \"capacity_factor\": 0.5}";
    accept(&c, NULL);
    expect(&c, "n_dropped", 4);                     /* the second token, in each block */
    near(result(&c, "y", 3), 1 + 2 * 3 / sqrt(12)); /* of (0, 6) */
    finish(&c);
    c = encoder("{\"heads\": 1, \"k\": 1, \"eps\": 3}", 0); /* no block: the last norm alone */
    accept(&c, NULL);
    near(result(&c, "y", 0), 2 / sqrt(4));
    expect(&c, "l_balance", 0);
    finish(&c);
}

#define TOKENS_AND_ROUTER(noise)                                                                   \
    F32(&c, "x", S(1, 2), 1, 2), F32(&c, "w_r", S(2, 2), 1, 0, 0, 1),                              \
        F32(&c, "noise", S(1, 2), 0, noise)

static void refuse_encoder(const char *options, const char *name, bl_shape shape, const char *words)
{
    call c = encoder(options, 2);
    const double zeros[64] = {0};
    give(&c, name, BL_F32, shape, zeros);
    refuse(&c, words);
}

static void widenet_refuses(void **state)
{
    (void)state;
    const char *f = "widenet_route";
    REFUSE(f, "{\"k\": 0}", "option k is 0, expected >= 1");
    REFUSE(f, "{\"k\": 3}", "option k is 3, expected at most E (E is 2)", TOKENS_AND_ROUTER(0));
    REFUSE(f, "{\"capacity_factor\": 0}", "option capacity_factor is 0, expected (0,inf)");
    REFUSE(f, "{\"min_capacity\": 0}", "option min_capacity is 0, expected >= 1");
    REFUSE(f, "{\"even_capacity\": 2}", "option even_capacity is 2, expected flag");
    REFUSE(f, NULL, "noise[0,1] is nan, expected finite", TOKENS_AND_ROUTER(NAN));
    REFUSE(f, NULL, "x[0,0] is inf, expected finite", TOKENS_AND_ROUTER(0),
           F32(&c, "x", S(1, 2), INFINITY, 0));
    REFUSE(f, NULL, "w_r[1,0] is -inf, expected finite", TOKENS_AND_ROUTER(0),
           F32(&c, "w_r", S(2, 2), 0, 0, -INFINITY, 0));
    REFUSE(f, NULL, "x has no rows, expected at least one", TOKENS_AND_ROUTER(0),
           give(&c, "x", BL_F32, S(0, 2), NULL), give(&c, "noise", BL_F32, S(0, 2), NULL));
    REFUSE("widenet_moe", "{\"k\": 3}", "option k is 3, expected at most E (E is 2)",
           TOKENS_AND_ROUTER(0), F32(&c, "w1", S(2, 2, 1), 0, 0, 0, 0),
           F32(&c, "b1", S(2, 1), 0, 0), F32(&c, "w2", S(2, 1, 2), 0, 0, 0, 0),
           F32(&c, "b2", S(2, 2), 0, 0, 0, 0));
    REFUSE("widenet_moe", NULL, "w1 must be f32[2,2,h], not f32[1,2,1]", TOKENS_AND_ROUTER(0),
           F32(&c, "w1", S(1, 2, 1), 0, 0), F32(&c, "b1", S(2, 1), 0, 0),
           F32(&c, "w2", S(2, 1, 2), 0, 0, 0, 0), F32(&c, "b2", S(2, 2), 0, 0, 0, 0));
    const char *plain = "{\"heads\": 1, \"k\": 1}";
    refuse_encoder("{\"k\": 1}", "b_o", S(2), "option heads is required");
    refuse_encoder("{\"heads\": 1}", "b_o", S(2), "option k is 2, expected at most E (E is 1)");
    refuse_encoder("{\"heads\": 4, \"k\": 1}", "b_o", S(2),
                   "w_qkv has 6 rows, expected a multiple of 3 heads (heads is 4)");
    refuse_encoder("{\"heads\": 1, \"k\": 1, \"eps\": 0}", "b_o", S(2),
                   "option eps is 0, expected (0,inf)");
    refuse_encoder(plain, "noise", S(2, 3, 1), "noise is of 3 tokens, expected B L");
    refuse_encoder(plain, "w_o", S(2, 3), "w_o has 3 columns, expected a third of w_qkv's rows, 2");
    refuse_encoder(plain, "noise", S(2, 2, 2), "w_r must be f32[2,2], not f32[1,2]");
    refuse_encoder(plain, "ln2_b", S(2, 2), "ln2_b must be f32[1,2], not f32[2,2]");
    call c = encoder(plain, 2);
    for (int i = 0; i < 4; i++)
        give(&c, (const char *[]){"ln1_g", "ln1_b", "ln2_g", "ln2_b"}[i], BL_F32, S(3, 2),
             VALUES(0, 0, 0, 0, 0, 0));
    refuse(&c, "ln1_g has 3 rows, expected 1 or one for each block (D is 2)");
}

/* Runs the call with its n-th allocation failing, for every n. */
static void survives_want_of_memory(call *c)
{
    bl_status status = BL_NO_MEMORY;
    int64_t n = 0;
    while (status == BL_NO_MEMORY) {
        bl_fail_allocation(++n);
        status = run(c, NULL);
    }
    bl_fail_allocation(0);
    expect_ok(status);
    assert_true(n > 2);
    finish(c);
}

static void fits_and_spans_survive_want_of_memory(void **state)
{
    (void)state;
    call c = start("infinite_compute_tiered", "{\"grid\": 3}");
    F32(&c, "n", S(3), 1, 2, 4);
    F32(&c, "k", S(3), 1, 2, 4);
    F32(&c, "loss", S(3, 3), 4, 3.5, 3.25, 3.5, 3, 2.75, 3.25, 2.75, 2.5);
    survives_want_of_memory(&c);
    c = start("infinite_compute_power_fit", "{\"grid\": 3}");
    F32(&c, "x", S(3), 1, 2, 3);
    F32(&c, "y", S(3), 3, 2, 1);
    survives_want_of_memory(&c);
    c = start("token_crisis_span_corrupt", "{\"sentinel0\": 9, \"eos\": 1}");
    I32(&c, "tokens", S(2), 5, 6);
    U8(&c, "mask", S(2), 0, 1);
    survives_want_of_memory(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ensemble_averages_logits_not_probabilities),
        cmocka_unit_test(equal_members_share_the_largest_logit_by_order),
        cmocka_unit_test(padding_counts_nothing),
        cmocka_unit_test(draws_fall_on_tokens_by_cumulative_probability),
        cmocka_unit_test(the_rate_rises_then_falls_along_a_cosine),
        cmocka_unit_test(strong_decay_is_outside_of_adam),
        cmocka_unit_test(no_gradient_clips_nothing),
        cmocka_unit_test(a_power_law_is_recovered_in_any_unit),
        cmocka_unit_test(a_fit_without_a_fall_is_a_constant),
        cmocka_unit_test(the_bounds_of_a_fit_hold),
        cmocka_unit_test(asymptotes_have_an_asymptote),
        cmocka_unit_test(equal_losses_need_equal_data),
        cmocka_unit_test(a_certificate_needs_every_neighbour),
        cmocka_unit_test(infinite_compute_refuses),
        cmocka_unit_test(fits_refuse),
        cmocka_unit_test(a_draw_at_the_rate_is_kept),
        cmocka_unit_test(a_dropped_branch_leaves_the_shortcut),
        cmocka_unit_test(dropout_begins_at_its_stage),
        cmocka_unit_test(smoothing_has_minimum_zero),
        cmocka_unit_test(the_level_of_logits_costs_by_its_square),
        cmocka_unit_test(spans_alternate_from_kept_to_hidden),
        cmocka_unit_test(inputs_and_targets_share_their_sentinels),
        cmocka_unit_test(a_run_falls_from_its_first_best),
        cmocka_unit_test(a_proxy_is_judged_by_its_last_value),
        cmocka_unit_test(token_crisis_refuses),
        cmocka_unit_test(spans_refuse),
        cmocka_unit_test(a_pure_power_law_is_fitted_exactly),
        cmocka_unit_test(residuals_of_a_fit_are_of_logarithms),
        cmocka_unit_test(pure_laws_cross_where_they_are_equal),
        cmocka_unit_test(laws_with_a_floor_may_cross_twice),
        cmocka_unit_test(ties_are_stepped_over),
        cmocka_unit_test(rules_agree_at_the_reference_width),
        cmocka_unit_test(three_decays_differ_by_factors_of_the_rate),
        cmocka_unit_test(gradients_are_shortened_or_put_at_a_length),
        cmocka_unit_test(scaling_crossover_refuses),
        cmocka_unit_test(first_choices_fill_buffers_before_second_ones),
        cmocka_unit_test(equal_experts_are_chosen_in_order),
        cmocka_unit_test(capacity_is_rounded_and_has_a_least),
        cmocka_unit_test(a_dropped_token_gives_nothing),
        cmocka_unit_test(shared_biases_are_added_in_every_block),
        cmocka_unit_test(widenet_refuses),
        cmocka_unit_test(fits_and_spans_survive_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
