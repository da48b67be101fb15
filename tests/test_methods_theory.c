/* Methods that test theories of training - stability of grokking, corrupted arithmetic, limits of
 * high dimension, neural collapse: what their specs refuse, and facts about values and gradients at
 * shapes and corners that the reference cases do not have. Kernels of wide networks:
 * test_methods_ntk. */
#include "calls.h"

/* --- grokking at the edge of numerical stability ---------------------------------------------- */

static void stablemax_is_smooth_at_zero_and_far_out(void **state)
{
    (void)state;
    call c = start("grokking_stability_stablemax", NULL);
    F32(&c, "z", S(4), 0, 1, -1, 1e30); /* a single axis */
    accept(&c, NULL);
    near(result(&c, "p", 3), 1);
    finish(&c);
    c = start("grokking_stability_stablemax", NULL);
    F32(&c, "z", S(1, 3), 0, 1, -1); /* s = 1, 2, 1/2 */
    accept(&c, NULL);
    expect(&c, "p", 2 / 7.0, 4 / 7.0, 1 / 7.0);
    finish(&c);
    c = start("grokking_stability_stablemax_ce", "{\"reduction\": \"sum\"}");
    F32(&c, "z", S(1, 3), 0, 1, -1);
    I32(&c, "y", S(1), 0);
    accept(&c, "loss");
    expect(&c, "loss", log(3.5));
    near(slope(&c, "z", 0), 2 / 7.0 - 1);
    near(slope(&c, "z", 1), 2 / 7.0);
    near(slope(&c, "z", 2), 1 / 14.0);
    finish(&c);
    c = start("grokking_stability_stablemax_ce", NULL);
    F32(&c, "z", S(1, 2), 80, -80); /* where softmax has no gradient left */
    I32(&c, "y", S(1), 0);
    accept(&c, "loss");
    assert_true(slope(&c, "z", 1) > 1e-7 && result(&c, "loss", 0) > 1e-4);
    finish(&c);
}

static void a_gradient_along_its_weights_vanishes(void **state)
{
    (void)state;
    call c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(3), 0.1, 0.2, -0.7);
    F32(&c, "g", S(3), 0.3, 0.6, -2.1);
    accept(&c, NULL);
    expect(&c, "g_out", 0, 0, 0);
    expect(&c, "coef", 3);
    finish(&c);
    c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(2, 1), 0, 0);
    F32(&c, "g", S(2, 1), 3, 4);
    accept(&c, NULL);
    expect(&c, "g_out", 3, 4);
    expect(&c, "coef", 0);
    finish(&c);
    c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(2), 2, 0);
    F32(&c, "g", S(2), 3, 4);
    accept(&c, NULL);
    expect(&c, "g_out", 0, 5);
    c.options = "{\"rescale\": false}";
    accept(&c, NULL);
    expect(&c, "g_out", 0, 4);
    finish(&c);
    c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(2), 2, 0);
    F32(&c, "g", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "g_out", 0, 0);
    finish(&c);
}

static void a_collapsed_example_may_be_wrong(void **state)
{
    (void)state;
    call c = start("grokking_stability_softmax_collapse", NULL);
    F32(&c, "z", S(3, 2), 40, 0, 40, 0, 1, 1);
    I32(&c, "y", S(3), 0, 1, 0);
    accept(&c, NULL);
    expect(&c, "flag", 1, 1, 0);
    expect(&c, "collapsed", 2 / 3.0);
    expect(&c, "zero_loss", 1 / 3.0);
    finish(&c);
}

static void a_step_that_lengthens_weights_has_cosine_one(void **state)
{
    (void)state;
    call c = start("grokking_stability_nlm", NULL);
    F32(&c, "w", S(2), 3, 4);
    F32(&c, "g", S(2), -6, -8);
    accept(&c, NULL);
    expect(&c, "cosine", 1);
    finish(&c);
    c = start("grokking_stability_nlm", NULL);
    F32(&c, "w", S(2), 0, 0);
    F32(&c, "g", S(2), 1, 1);
    accept(&c, NULL);
    expect(&c, "cosine", 0);
    finish(&c);
}

/* Three numbers just above 2^-25 are lost one by one in 1, but not if they are added up first. */
static void collapse_depends_on_the_order_of_the_sum(void **state)
{
    (void)state;
    double tiny = log(0x1.1p-25);
    call c = start("grokking_stability_softmax_collapse", NULL);
    F32(&c, "z", S(2, 4), 0, tiny, tiny, tiny, tiny, tiny, tiny, 0);
    I32(&c, "y", S(2), 0, 3);
    accept(&c, NULL);
    expect(&c, "flag", 1, 0);
    expect(&c, "collapsed", 0.5);
    expect(&c, "zero_loss", 0.5);
    finish(&c);
    c = start("grokking_stability_softmax_collapse", NULL); /* one class is always certain */
    F32(&c, "z", S(1, 1), -7);
    I32(&c, "y", S(1), 0);
    accept(&c, NULL);
    expect(&c, "zero_loss", 1);
    finish(&c);
}

static void a_single_number_has_no_direction_across(void **state)
{
    (void)state;
    call c = start("grokking_stability_perp_grad", "{\"rescale\": false}");
    F32(&c, "w", BL_SCALAR, 2);
    F32(&c, "g", BL_SCALAR, 3);
    accept(&c, NULL);
    expect(&c, "g_out", 0);
    expect(&c, "coef", 1.5);
    finish(&c);
    c = start("grokking_stability_perp_grad", "{\"rescale\": false, \"eps\": 4}");
    F32(&c, "w", S(1), 2);
    F32(&c, "g", S(1), 3);
    accept(&c, NULL);
    expect(&c, "coef", 0.75); /* 6 / (4 + 4) */
    expect(&c, "g_out", 1.5);
    finish(&c);
    c = start("grokking_stability_nlm", NULL);
    F32(&c, "w", S(2), 1e-25, 1e-25); /* squares are below single precision */
    F32(&c, "g", S(2), 1e-25, 0);
    accept(&c, NULL);
    expect(&c, "cosine", -sqrt(0.5));
    finish(&c);
}

static void grokking_stability_refuses(void **state)
{
    (void)state;
    REFUSE("grokking_stability_stablemax", NULL, "z has 0 classes, expected at least 1",
           F32(&c, "z", S(2, 0), 0));
    REFUSE("grokking_stability_stablemax", NULL, "z[1] is inf", F32(&c, "z", S(2), 0, INFINITY));
    REFUSE("grokking_stability_stablemax_ce", NULL, "y[0] is 2, expected 0 <= . < C (C is 2)",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "y", S(1), 2));
    REFUSE("grokking_stability_stablemax_ce", NULL, "y must be i32[1], not i32[2]",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "y", S(2), 0, 0));
    REFUSE("grokking_stability_stablemax_ce", "{\"reduction\": \"none\"}",
           "option reduction is \"none\", expected one of mean|sum");
    REFUSE("grokking_stability_perp_grad", "{\"eps\": 0}", "option eps is 0, expected (0,inf)");
    REFUSE("grokking_stability_perp_grad", NULL, "g must be f32[2], not f32[3]",
           F32(&c, "w", S(2), 0, 0), F32(&c, "g", S(3), 0, 0, 0));
    REFUSE("grokking_stability_perp_grad", NULL, "g[0] is nan", F32(&c, "w", S(1), 0),
           F32(&c, "g", S(1), NAN));
    REFUSE("grokking_stability_perp_grad", NULL, "w[0] is inf", F32(&c, "w", S(1), INFINITY),
           F32(&c, "g", S(1), 0));
    REFUSE("grokking_stability_perp_grad", "{\"rescale\": 2}",
           "option rescale is 2, expected flag");
    REFUSE("grokking_stability_stablemax_ce", NULL, "y[0] is -1, expected 0 <= . < C",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "y", S(1), -1));
    REFUSE("grokking_stability_stablemax_ce", NULL, "z has no rows, expected at least one",
           give(&c, "z", BL_F32, S(0, 2), NULL), give(&c, "y", BL_I32, S(0), NULL));
    REFUSE("grokking_stability_stablemax_ce", NULL, "z[0,1] is nan, expected finite",
           F32(&c, "z", S(1, 2), 0, NAN), I32(&c, "y", S(1), 0));
    REFUSE("grokking_stability_softmax_collapse", NULL, "y[0] is 2, expected 0 <= . < C (C is 2)",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "y", S(1), 2));
    REFUSE("grokking_stability_nlm", NULL, "g must be f32[2], not f32[1]", F32(&c, "w", S(2), 0, 0),
           F32(&c, "g", S(1), 0));
}

/* --- grokking on corrupted arithmetic --------------------------------------------------------- */

static void a_random_label_counts_even_if_it_is_true(void **state)
{
    (void)state;
    call c = start("grok_corrupted_dataset",
                   "{\"p\": 2, \"noise\": 1, \"op\": \"mul\", \"train_frac\": 0.5}");
    I32(&c, "perm", S(4), 3, 0, 1, 2);
    I32(&c, "random_labels", S(4), 1, 1, 1, 1);
    accept(&c, NULL);
    expect(&c, "pairs", 1, 1, 0, 0, 0, 1, 1, 0);
    expect(&c, "clean", 1, 0, 0, 0);
    expect(&c, "label", 1, 1, 0, 0);
    expect(&c, "corrupted", 1, 1, 0, 0);
    expect(&c, "n_train", 2);
    expect(&c, "n_noise", 2);
    finish(&c);
}

static call small_network(const char *function, const char *options)
{
    call c = start(function, options);
    I32(&c, "pairs", S(1, 2), 0, 1);
    I32(&c, "y", S(1), 1);
    F32(&c, "U", S(1, 2), 2, 5);
    F32(&c, "V", S(1, 2), 7, 1);
    F32(&c, "W", S(2, 1), 1, 0);
    return c;
}

static void neurons_are_dropped_before_the_square(void **state)
{
    (void)state;
    call c = small_network("grok_corrupted_mlp", "{\"rate\": 0.5}");
    accept(&c, "loss"); /* without a mask the rate is not used */
    expect(&c, "z", 9, 0);
    expect(&c, "loss", 41);
    near(slope(&c, "U", 0), 9 * 6); /* (z - onehot) W 2 pre */
    near(slope(&c, "U", 1), 0);
    F32(&c, "drop", S(1, 1), 1);
    accept(&c, "loss");
    expect(&c, "z", 36, 0);
    finish(&c);
}

static void running_statistics_stay_in_evaluation(void **state)
{
    (void)state;
    call c = small_network("grok_corrupted_bn_mlp", "{\"train\": false, \"eps\": 1}");
    F32(&c, "gamma", S(1), 2);
    F32(&c, "beta", S(1), 1);
    F32(&c, "run_mean", S(1), 5);
    F32(&c, "run_var", S(1), 3);
    accept(&c, "loss");
    expect(&c, "z", 5, 0);
    expect(&c, "run_mean_out", 5);
    expect(&c, "run_var_out", 3);
    c.options = NULL;
    refuse(&c, "pairs has 1 row, expected at least 2");
}

static void one_frequency_has_participation_one(void **state)
{
    (void)state;
    call c = start("grok_corrupted_ipr", "{\"r\": 1}");
    F32(&c, "U", S(1, 4), 1, 0, -1, 0);
    F32(&c, "V", S(1, 4), 0, 0, 0, 0);
    F32(&c, "W", S(4, 1), 1, 0, 0, 0); /* three equal frequencies */
    bl_dictionary_free(&c.cotangent);
    give_to(&c.cotangent, "ipr", (bl_type){BL_F32, S(1)}, VALUES(1));
    accept(&c, NULL);
    expect(&c, "ipr_u", 1);
    expect(&c, "ipr_v", 0);
    expect(&c, "ipr_w", 1);
    all_finite(&c.gradient);
    c.options = "{\"r\": 3}";
    accept(&c, NULL);
    expect(&c, "ipr_w", 1 / 9.0);
    expect(&c, "ipr", 10 / 27.0);
    all_finite(&c.gradient);
    finish(&c);
}

static void equal_neurons_are_pruned_in_order(void **state)
{
    (void)state;
    call c = start("grok_corrupted_prune", "{\"n_prune\": 2}");
    F32(&c, "U", S(3, 1), 1, 2, 3);
    F32(&c, "V", S(3, 1), 4, 5, 6);
    F32(&c, "W", S(1, 3), 7, 8, 9);
    F32(&c, "ipr", S(3), 0.5, 0.5, 0.5);
    accept(&c, NULL);
    expect(&c, "keep", 0, 0, 1);
    expect(&c, "W_out", 0, 0, 9);
    c.options = "{\"n_prune\": 1, \"order\": \"high\"}";
    accept(&c, NULL);
    expect(&c, "U_out", 0, 2, 3);
    c.options = "{\"n_prune\": 0}";
    accept(&c, NULL);
    expect(&c, "V_out", 4, 5, 6);
    finish(&c);
}

static void an_empty_subset_has_accuracy_zero(void **state)
{
    (void)state;
    call c = start("grok_corrupted_accuracy", NULL);
    F32(&c, "z", S(2, 2), 1, 1, 0, 1); /* a tie goes to the lowest class */
    I32(&c, "label", S(2), 0, 0);
    I32(&c, "clean", S(2), 0, 0);
    U8(&c, "corrupted", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "acc", 0.5);
    expect(&c, "acc_uncorrupted", 0.5);
    expect(&c, "acc_corrupted", 0);
    expect(&c, "acc_corrected", 0);
    finish(&c);
}

static void grok_corrupted_refuses(void **state)
{
    (void)state;
    REFUSE("grok_corrupted_dataset", "{\"p\": 2}", "perm has 3 entries, expected p^2 (p is 2)",
           I32(&c, "perm", S(3), 0, 1, 2), I32(&c, "random_labels", S(3), 0, 0, 0));
    REFUSE("grok_corrupted_dataset", "{\"p\": 2}", "perm", I32(&c, "perm", S(4), 0, 1, 1, 2),
           I32(&c, "random_labels", S(4), 0, 0, 0, 0));
    REFUSE("grok_corrupted_dataset", "{\"p\": 2}", "random_labels[1] is 2, expected 0 <= . < p",
           I32(&c, "perm", S(4), 0, 1, 3, 2), I32(&c, "random_labels", S(4), 0, 2, 0, 0));
    REFUSE("grok_corrupted_dataset", "{\"p\": 2, \"train_frac\": 0.2}",
           "option train_frac is 0.2, expected at least one of 4 pairs",
           I32(&c, "perm", S(4), 0, 1, 3, 2), I32(&c, "random_labels", S(4), 0, 0, 0, 0));
    REFUSE("grok_corrupted_dataset", "{\"train_frac\": 1}", "option train_frac is 1");
    REFUSE("grok_corrupted_dataset", "{\"op\": \"sub\"}",
           "option op is \"sub\", expected one of add|mul");
    REFUSE("grok_corrupted_dataset", "{\"p\": 1}", "option p is 1, expected >= 2");
    REFUSE("grok_corrupted_dataset", "{\"noise\": 1.5}", "option noise is 1.5, expected [0,1]");
    REFUSE("grok_corrupted_dataset", "{\"p\": 2}", "random_labels[0] is -1, expected 0 <= . < p",
           I32(&c, "perm", S(4), 0, 1, 3, 2), I32(&c, "random_labels", S(4), -1, 0, 0, 0));
    REFUSE("grok_corrupted_dataset", "{\"p\": 2}", "random_labels must be i32[4], not i32[2]",
           I32(&c, "perm", S(4), 0, 1, 3, 2), I32(&c, "random_labels", S(2), 0, 0));
    REFUSE("grok_corrupted_bn_mlp", "{\"eps\": 0}", "option eps is 0, expected (0,inf)");
    REFUSE("grok_corrupted_bn_mlp", "{\"momentum\": 2}", "option momentum is 2, expected [0,1]");
    REFUSE("grok_corrupted_ipr", "{\"r\": 0}", "option r is 0, expected >= 1");
    REFUSE("grok_corrupted_prune", NULL, "option n_prune is required");
    REFUSE("grok_corrupted_prune", "{\"n_prune\": -1}", "option n_prune is -1, expected >= 0");
    REFUSE("grok_corrupted_prune", "{\"n_prune\": 0, \"order\": \"up\"}",
           "option order is \"up\", expected one of low|high");
    REFUSE("grok_corrupted_analytic", "{\"p\": 5}", "sigma[1] is 0, expected 1 <= . <= p",
           I32(&c, "sigma", S(2), 1, 0), F32(&c, "phi_u", S(2), 0, 0),
           F32(&c, "phi_v", S(2), 0, 0));
    REFUSE("grok_corrupted_accuracy", NULL, "clean[0] is 2, expected 0 <= . < p (p is 2)",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "label", S(1), 0), I32(&c, "clean", S(1), 2),
           U8(&c, "corrupted", S(1), 0));
    REFUSE("grok_corrupted_accuracy", NULL, "corrupted[0] is 2, expected in {0,1}",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "label", S(1), 0), I32(&c, "clean", S(1), 1),
           U8(&c, "corrupted", S(1), 2));
    REFUSE("grok_corrupted_mlp", "{\"rate\": 1}", "option rate is 1, expected [0,1)");
    REFUSE("grok_corrupted_prune", "{\"n_prune\": 2}",
           "option n_prune is 2, expected at most the neurons (1)", F32(&c, "U", S(1, 1), 1),
           F32(&c, "V", S(1, 1), 1), F32(&c, "W", S(1, 1), 1), F32(&c, "ipr", S(1), 1));
    REFUSE("grok_corrupted_analytic", "{\"p\": 5}",
           "sigma[0] is 3, expected 1 <= . <= (p-1)/2 (p is 5)", I32(&c, "sigma", S(1), 3),
           F32(&c, "phi_u", S(1), 0), F32(&c, "phi_v", S(1), 0));
    call c = small_network("grok_corrupted_mlp", NULL);
    F32(&c, "drop", S(1, 1), 0.5);
    refuse(&c, "drop[0,0] is 0.5, expected in {0,1}");
    c = small_network("grok_corrupted_mlp", NULL);
    I32(&c, "pairs", S(1, 2), 0, 2);
    refuse(&c, "pairs[0,1] is 2, expected 0 <= . < p (p is 2)");
    c = small_network("grok_corrupted_mlp", NULL);
    I32(&c, "y", S(1), -1);
    refuse(&c, "y[0] is -1, expected 0 <= . < p");
    c = small_network("grok_corrupted_mlp", NULL);
    F32(&c, "drop", S(1, 2), 1, 1);
    refuse(&c, "drop must be f32[1,1], not f32[1,2]");
    c = small_network("grok_corrupted_bn_mlp", "{\"train\": false}");
    F32(&c, "gamma", S(1), 2);
    F32(&c, "beta", S(1), 1);
    F32(&c, "run_mean", S(1), 5);
    F32(&c, "run_var", S(1), -1);
    refuse(&c, "run_var[0] is -1, expected >= 0");
}

/* --- high-dimensional dynamics ---------------------------------------------------------------- */

static void a_direction_without_data_keeps_its_error(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_modes", "{\"n_samples\": 1, \"sigma_w0\": 2}");
    F32(&c, "lam", S(2), 0, 1);
    F32(&c, "t", S(2), 0, 50);
    give_to(&c.cotangent, "eg", (bl_type){BL_F32, S(2)}, VALUES(1, 1));
    accept(&c, NULL);
    expect(&c, "eg", 6, 4); /* (5+5)/2 + 1, (5+1)/2 + 1 */
    expect(&c, "et", 6, 0); /* lambda (1+4) + 1, all fitted */
    all_finite(&c.gradient);
    finish(&c);
}

static void the_limit_has_mass_one(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_mp_density", "{\"alpha\": 0.25}");
    F32(&c, "lam", S(4), 0, 0.25, 2.25, 1);
    accept(&c, NULL);
    expect(&c, "density", 0, 0, 0, sqrt(1.25 * 0.75) / (2 * M_PI));
    expect(&c, "mass0", 0.75);
    expect(&c, "edges", 0.25, 2.25);
    finish(&c);
    c = start("high_dim_dynamics_mp_curve", "{\"alpha\": 0.5, \"quad\": 64, \"sigma_w0\": 1}");
    F32(&c, "t", S(2), 0, 1000);
    accept(&c, NULL);
    expect(&c, "eg", 3, 3); /* sigma_w^2 + sigma_w0^2 + sigma_e^2; (1-a) 2 + 1/(1-a) */
    finish(&c);
}

static void as_many_samples_as_inputs_is_worst(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_final", NULL);
    F32(&c, "alpha", S(3), 1, 2, 0.5);
    accept(&c, NULL);
    assert_true(isinf(result(&c, "eg_inf", 0)));
    near(result(&c, "eg_inf", 1), 2);
    near(result(&c, "eg_inf", 2), 2.5);
    near(result(&c, "eg_ridge", 0), 1 + (sqrt(5) - 1) / 2);
    c.options = "{\"sigma_e\": 0}";
    accept(&c, NULL);
    expect(&c, "eg_inf", 0, 0, 0.5);
    expect(&c, "eg_ridge", 0, 0, 0.5);
    expect(&c, "gamma_opt", 0);
    finish(&c);
}

static void one_eigenvalue_has_a_known_time_to_stop(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_stop_time", "{\"sigma_w\": 2, \"sigma_w0\": 1, \"tau\": 3}");
    F32(&c, "lam", S(2), 0.5, 0.5);
    accept(&c, NULL);
    /* (tau/lambda) log(1 + SNR lambda (1 + INR)) */
    assert_true(fabs(result(&c, "t_opt", 0) - 6 * log(3.5)) < 1e-4);
    expect(&c, "interior", 1);
    c.options = "{\"sigma_e\": 0}"; /* without noise: never */
    accept(&c, NULL);
    near(result(&c, "eg_opt", 0), 0);
    finish(&c);
}

static void flow_starts_at_w0_and_ends_at_least_squares(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_linear_flow", NULL);
    F32(&c, "X", S(1, 2), 2, 0);
    F32(&c, "y", S(1), 6);
    F32(&c, "w0", S(2), 1, 5);
    F32(&c, "t", S(2), 0, 1e6);
    give_to(&c.cotangent, "w", (bl_type){BL_F32, S(2, 2)}, VALUES(0, 0, 1, 1));
    accept(&c, NULL);
    expect(&c, "w", 1, 5, 3, 5);
    expect(&c, "train_mse", 16, 0);
    near(slope(&c, "y", 0), 0.5);
    near(slope(&c, "w0", 0), 0);
    near(slope(&c, "w0", 1), 1);
    finish(&c);
}

static void directions_without_features_are_frozen(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_frozen", NULL);
    F32(&c, "Hf", S(2, 3), 2, 0, 0, 0, 1, 0);
    F32(&c, "w0", S(3), 1, 1, 3);
    accept(&c, NULL);
    expect(&c, "rank", 2);
    expect(&c, "frozen_frac", 1 / 3.0);
    expect(&c, "lam_min", 1);
    expect(&c, "lam_max", 4);
    expect(&c, "frozen_norm2", 9);
    c.options = "{\"tol\": 0.5}";
    accept(&c, NULL);
    expect(&c, "rank", 1);
    expect(&c, "frozen_norm2", 10);
    finish(&c);
    c = start("high_dim_dynamics_frozen", NULL);
    F32(&c, "Hf", S(1, 2), 0, 0);
    F32(&c, "w0", S(2), 1, 1);
    accept(&c, NULL);
    expect(&c, "rank", 0);
    expect(&c, "lam_min", 0);
    expect(&c, "frozen_norm2", 2);
    finish(&c);
}

/* Without time nothing is learnt; an eigenvalue 0 counts as a direction but not towards the rank.
 */
static void curves_start_from_what_the_student_was(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_modes",
                   "{\"n_samples\": 4, \"sigma_w\": 2, \"sigma_w0\": 1, \"sigma_e\": 3}");
    F32(&c, "lam", S(2), 0, 2);
    F32(&c, "t", S(2), 0, 1e9);
    give_to(&c.cotangent, "eg", (bl_type){BL_F32, S(2)}, VALUES(0, 1));
    accept(&c, NULL);
    near(result(&c, "eg", 0), 4 + 1 + 9);
    near(result(&c, "et", 0), (2 * (4 + 1) + 9 + 3 * 9) / 4.0);
    near(result(&c, "eg", 1), (5 + 9 / 2.0) / 2 + 9); /* noise is fitted in one direction */
    near(result(&c, "et", 1), 3 * 9 / 4.0);
    near(slope(&c, "lam", 1), -9 / 4.0 / 2);
    near(slope(&c, "t", 1), 0);
    finish(&c);
}

/* eg of a direction without data: its weights stay, whatever lam is near 0, at finite times. */
static void the_slope_at_eigenvalue_zero_is_finite(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_modes",
                   "{\"n_samples\": 1, \"sigma_w\": 2, \"sigma_w0\": 1, \"sigma_e\": 3}");
    F32(&c, "lam", S(1), 0);
    F32(&c, "t", S(1), 0.5);
    give_to(&c.cotangent, "eg", (bl_type){BL_F32, S(1)}, VALUES(1));
    accept(&c, NULL); /* -2 sigma_w^2 t - 2 sigma_w0^2 t + sigma_e^2 t^2 */
    near(slope(&c, "lam", 0), -4 - 1 + 9 / 4.0);
    finish(&c);
}

static void without_noise_more_training_is_better(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_final", "{\"sigma_e\": 0, \"sigma_w\": 2}");
    F32(&c, "alpha", S(3), 0.25, 1, 4);
    accept(&c, NULL);
    expect(&c, "eg_inf", 3, 0, 0);
    expect(&c, "eg_ridge", 3, 0, 0);
    expect(&c, "gamma_opt", 0);
    finish(&c);
    c = start("high_dim_dynamics_stop_time", "{\"sigma_e\": 0}");
    F32(&c, "lam", S(2), 0, 2);
    accept(&c, NULL);
    expect(&c, "eg_opt", 0.5); /* the direction without data */
    finish(&c);
    c = start("high_dim_dynamics_stop_time", "{\"sigma_w\": 0}"); /* nothing to learn but noise */
    F32(&c, "lam", S(1), 2);
    accept(&c, NULL);
    expect(&c, "t_opt", 1e-3 / 2);
    expect(&c, "interior", 0);
    finish(&c);
}

/* Decay shrinks what data do not hold: w0 exp(-gamma t / tau). */
static void decay_acts_in_directions_without_data(void **state)
{
    (void)state;
    call c = start("high_dim_dynamics_linear_flow", "{\"gamma\": 0.5, \"tau\": 2}");
    F32(&c, "X", S(1, 2), 0, 1);
    F32(&c, "y", S(1), 3);
    F32(&c, "w0", S(2), 4, 0);
    F32(&c, "t", S(2), 0, 4);
    give_to(&c.cotangent, "w", (bl_type){BL_F32, S(2, 2)}, VALUES(0, 0, 1, 1));
    accept(&c, NULL);
    double learnt = (1 - exp(-1.5 * 2)) / 1.5;
    expect(&c, "w", 4, 0, 4 * exp(-1), 3 * learnt);
    near(slope(&c, "w0", 0), exp(-1));
    near(slope(&c, "y", 0), learnt);
    finish(&c);
}

static void high_dim_dynamics_refuses(void **state)
{
    (void)state;
    REFUSE("high_dim_dynamics_modes", "{\"n_samples\": 1}", "lam[0] is -1, expected >= 0",
           F32(&c, "lam", S(1), -1), F32(&c, "t", S(1), 0));
    REFUSE("high_dim_dynamics_modes", "{\"n_samples\": 1}", "t[0] is -1, expected >= 0",
           F32(&c, "lam", S(1), 1), F32(&c, "t", S(1), -1));
    REFUSE("high_dim_dynamics_modes", "{\"n_samples\": 0}", "option n_samples is 0");
    REFUSE("high_dim_dynamics_modes", "{\"n_samples\": 1, \"tau\": 0}", "option tau is 0");
    REFUSE("high_dim_dynamics_modes", "{\"n_samples\": 1, \"gamma\": -1}", "option gamma is -1");
    REFUSE("high_dim_dynamics_mp_density", "{\"alpha\": 0}", "option alpha is 0");
    REFUSE("high_dim_dynamics_mp_curve", "{\"alpha\": 1, \"quad\": 7}",
           "option quad is 7, expected >= 8");
    REFUSE("high_dim_dynamics_final", "{\"sigma_w\": 0}", "option sigma_w is 0");
    static const char *const negative[][3] = {
        {"high_dim_dynamics_modes", "{\"n_samples\": 1, \"sigma_w\": -1}", "option sigma_w is -1"},
        {"high_dim_dynamics_modes", "{\"n_samples\": 1, \"sigma_w0\": -1}",
         "option sigma_w0 is -1"},
        {"high_dim_dynamics_modes", "{\"n_samples\": 1, \"sigma_e\": -1}", "option sigma_e is -1"},
        {"high_dim_dynamics_modes", NULL, "option n_samples is required"},
        {"high_dim_dynamics_mp_density", NULL, "option alpha is required"},
        {"high_dim_dynamics_mp_curve", "{\"alpha\": -1}", "option alpha is -1, expected (0,inf)"},
        {"high_dim_dynamics_mp_curve", "{\"alpha\": 1, \"tau\": 0}", "option tau is 0"},
        {"high_dim_dynamics_mp_curve", "{\"alpha\": 1, \"gamma\": -1}", "option gamma is -1"},
        {"high_dim_dynamics_stop_time", "{\"tau\": 0}", "option tau is 0, expected (0,inf)"},
        {"high_dim_dynamics_stop_time", "{\"sigma_e\": -1}", "option sigma_e is -1"},
        {"high_dim_dynamics_linear_flow", "{\"gamma\": -1}", "option gamma is -1"},
        {"high_dim_dynamics_linear_flow", "{\"tau\": -1}", "option tau is -1"},
        {"high_dim_dynamics_frozen", "{\"tol\": -1}", "option tol is -1, expected [0,1)"},
    };
    for (size_t i = 0; i < sizeof negative / sizeof *negative; i++)
        REFUSE(negative[i][0], negative[i][1], negative[i][2]);
    REFUSE("high_dim_dynamics_final", NULL, "alpha[0] is 0, expected > 0",
           F32(&c, "alpha", S(1), 0));
    REFUSE("high_dim_dynamics_mp_curve", "{\"alpha\": 1}", "t[0] is -1, expected >= 0",
           F32(&c, "t", S(1), -1));
    REFUSE("high_dim_dynamics_stop_time", NULL, "lam[1] is -1, expected >= 0",
           F32(&c, "lam", S(2), 1, -1));
    REFUSE("high_dim_dynamics_stop_time", NULL, "lam[0] is inf, expected finite",
           F32(&c, "lam", S(1), INFINITY));
    REFUSE("high_dim_dynamics_linear_flow", NULL, "t[0] is -1, expected >= 0",
           F32(&c, "X", S(1, 1), 1), F32(&c, "y", S(1), 1), F32(&c, "w0", S(1), 0),
           F32(&c, "t", S(1), -1));
    REFUSE("high_dim_dynamics_linear_flow", NULL, "w0 must be f32[1], not f32[2]",
           F32(&c, "X", S(1, 1), 1), F32(&c, "y", S(1), 1), F32(&c, "w0", S(2), 0, 0),
           F32(&c, "t", S(1), 1));
    REFUSE("high_dim_dynamics_frozen", NULL, "w0 must be f32[1], not f32[2]",
           F32(&c, "Hf", S(2, 1), 1, 1), F32(&c, "w0", S(2), 1, 1));
    REFUSE("high_dim_dynamics_stop_time", NULL, "lam is all 0, expected a value > 0",
           F32(&c, "lam", S(2), 0, 0));
}

/* --- neural collapse -------------------------------------------------------------------------- */

/* One example of one class, with one feature of value 2. */
static call one_feature(const char *function, const char *input, const char *options)
{
    call c = start(function, options);
    F32(&c, input, S(1, 1), 2);
    I32(&c, "y", S(1), 0);
    return c;
}

static void features_are_fitted_or_stay_near(void **state)
{
    (void)state;
    call c = one_feature("neural_collapse_ufm_loss", "H",
                         "{\"lambda_w\": 0, \"lambda_h\": 0, \"beta\": 1}");
    F32(&c, "W", S(1, 1), 1);
    F32(&c, "H0", S(1, 1), 0);
    accept(&c, "loss");
    expect(&c, "fit", 0.5);
    expect(&c, "loss", 2.5);
    near(slope(&c, "H", 0), 3);
    near(slope(&c, "W", 0), 2);
    near(slope(&c, "H0", 0), -2);
    finish(&c);
}

static void the_best_classifier_has_no_slope_of_its_own(void **state)
{
    (void)state;
    call c = one_feature("neural_collapse_wstar", "H", "{\"K\": 1, \"lambda_w\": 1}");
    accept(&c, NULL);
    expect(&c, "W", 0.4);
    finish(&c);
    c = one_feature("neural_collapse_central_loss", "H",
                    "{\"K\": 1, \"lambda_w\": 1, \"lambda_h\": 0.5}");
    accept(&c, "loss");
    expect(&c, "loss", 1.1);
    near(slope(&c, "H", 0), 0.92); /* (H W - 1) W + lambda_h H */
    finish(&c);
    c = one_feature("neural_collapse_flow", "H0", "{\"K\": 1, \"lambda_w\": 1, \"lambda_h\": 0.5}");
    accept(&c, NULL);
    expect(&c, "H", 2 - 0.092);
    c.options = "{\"K\": 1, \"steps\": 0}";
    accept(&c, NULL);
    expect(&c, "H", 2);
    finish(&c);
}

static void alternation_goes_down(void **state)
{
    (void)state;
    call c = one_feature("neural_collapse_minimizer", "H0",
                         "{\"K\": 1, \"lambda_w\": 1, \"lambda_h\": 0.5, \"beta\": 0, "
                         "\"iters\": 0}");
    accept(&c, NULL);
    expect(&c, "loss", 1.1);
    c.options = "{\"K\": 1, \"lambda_w\": 1, \"lambda_h\": 0.5, \"beta\": 0, \"iters\": 1}";
    accept(&c, NULL);
    expect(&c, "H", 0.4 / 0.66);
    assert_true(result(&c, "loss", 0) < 1.1);
    finish(&c);
}

static void a_simplex_is_collapsed(void **state)
{
    (void)state;
    call c = start("neural_collapse_metrics", "{\"K\": 2}");
    F32(&c, "H", S(4, 1), 1, 1, -1, -1);
    I32(&c, "y", S(4), 0, 0, 1, 1);
    accept(&c, "nc1_trace");
    expect(&c, "tr_w", 0);
    expect(&c, "tr_b", 1);
    expect(&c, "nc1_trace", 0);
    expect(&c, "nc1", 0);
    expect(&c, "nc2", 0);
    all_finite(&c.gradient);
    accept(&c, "nc1");
    all_finite(&c.gradient);
    accept(&c, "nc2");
    all_finite(&c.gradient);
    finish(&c);
}

static void strong_decay_collapses_to_zero(void **state)
{
    (void)state;
    call c = start("neural_collapse_collapsed", "{\"lambda_w\": 0.5, \"lambda_h\": 0.5}");
    F32(&c, "Q", S(2, 2), 0, 1, 1, 0);
    I32(&c, "y", S(3), 1, 0, 1);
    accept(&c, NULL);
    double r = sqrt(0.5);
    expect(&c, "H", r, 0, 0, r, r, 0);
    expect(&c, "W", 0, r, r, 0);
    c.options = "{\"lambda_w\": 2, \"lambda_h\": 2}";
    accept(&c, NULL);
    expect(&c, "W", 0, 0, 0, 0);
    finish(&c);
}

static void no_change_has_no_response(void **state)
{
    (void)state;
    call c = one_feature("neural_collapse_response", "H", NULL);
    F32(&c, "W", S(1, 1), 0.4);
    F32(&c, "dH0", S(1, 1), 0);
    accept(&c, NULL);
    expect(&c, "dH", 0);
    expect(&c, "dW", 0);
    finish(&c);
}

static void many_equal_features_are_one(void **state)
{
    (void)state;
    call c = start("neural_collapse_metrics", "{\"K\": 2}");
    F32(&c, "H", S(5, 3), 1, 2, 3, 1, 2, 3, 1, 2, 3, -1, 0, 5, -1, 0, 5);
    I32(&c, "y", S(5), 0, 0, 0, 1, 1);
    accept(&c, "nc1"); /* collapsed, but classes are of different sizes */
    expect(&c, "tr_w", 0);
    expect(&c, "nc1", 0);
    expect(&c, "nc1_trace", 0);
    near(result(&c, "tr_b", 0), 12 * (0.4 * 0.4 + 0.6 * 0.6) / 2); /* means are sqrt(12) apart */
    for (int i = 0; i < 15; i++)
        near(slope(&c, "H", i), 0);
    accept(&c, "nc2");
    all_finite(&c.gradient);
    finish(&c);
}

static void a_best_classifier_of_unseen_classes_is_zero_there(void **state)
{
    (void)state;
    call c = start("neural_collapse_wstar", "{\"K\": 3, \"lambda_w\": 3}");
    F32(&c, "H", S(1, 1), 2);
    I32(&c, "y", S(1), 1);
    accept(&c, NULL); /* 2 / (4 + lambda_w / 3) */
    expect(&c, "W", 0, 2 / 5.0, 0);
    finish(&c);
}

static void no_steps_change_nothing(void **state)
{
    (void)state;
    call c = start("neural_collapse_flow", "{\"K\": 2, \"steps\": 0}");
    F32(&c, "H0", S(2, 1), 3, -4);
    I32(&c, "y", S(2), 0, 1);
    accept(&c, NULL);
    expect(&c, "H", 3, -4);
    finish(&c);
    c = start("neural_collapse_minimizer", "{\"K\": 1, \"iters\": 0, \"lambda_w\": 1}");
    F32(&c, "H0", S(1, 1), 1);
    I32(&c, "y", S(1), 0);
    accept(&c, NULL);
    expect(&c, "H", 1);
    expect(&c, "W", 0.5);
    expect(&c, "loss", 0.5 * 0.25 + 0.5 * 0.25 + 0.5 * 5e-3);
    finish(&c);
}

static void neural_collapse_refuses(void **state)
{
    (void)state;
    REFUSE("neural_collapse_wstar", "{\"K\": 1, \"lambda_w\": 0}",
           "option lambda_w is 0, expected (0,inf)");
    REFUSE("neural_collapse_wstar", "{\"K\": 1}", "y[0] is 1, expected 0 <= . < K",
           F32(&c, "H", S(1, 1), 0), I32(&c, "y", S(1), 1));
    REFUSE("neural_collapse_wstar", "{\"K\": 1}", "H[0,0] is nan", F32(&c, "H", S(1, 1), NAN),
           I32(&c, "y", S(1), 0));
    REFUSE("neural_collapse_minimizer", "{\"K\": 1, \"lambda_h\": 0, \"beta\": 0}",
           "lambda_h + beta is 0, expected > 0", F32(&c, "H0", S(1, 1), 1), I32(&c, "y", S(1), 0));
    REFUSE("neural_collapse_metrics", "{\"K\": 1}", "option K is 1, expected >= 2");
    REFUSE("neural_collapse_metrics", "{\"K\": 3}", "y has no example of class 1",
           F32(&c, "H", S(2, 1), 0, 1), I32(&c, "y", S(2), 0, 2));
    REFUSE("neural_collapse_metrics", "{\"K\": 2}", "tr_b is 0, expected > 0",
           F32(&c, "H", S(4, 1), 0, 2, 1, 1), I32(&c, "y", S(4), 0, 0, 1, 1));
    REFUSE("neural_collapse_collapsed", NULL, "expected orthonormal rows",
           F32(&c, "Q", S(1, 2), 1, 1), I32(&c, "y", S(1), 0));
    static const char *const options[][3] = {
        {"neural_collapse_ufm_loss", "{\"lambda_w\": -1}",
         "option lambda_w is -1, expected [0,inf)"},
        {"neural_collapse_ufm_loss", "{\"lambda_h\": -1}", "option lambda_h is -1"},
        {"neural_collapse_ufm_loss", "{\"beta\": -1}", "option beta is -1, expected [0,inf)"},
        {"neural_collapse_wstar", NULL, "option K is required"},
        {"neural_collapse_central_loss", "{\"K\": 2, \"lambda_w\": 0}",
         "option lambda_w is 0, expected (0,inf)"},
        {"neural_collapse_flow", "{\"K\": 2, \"lambda_w\": 0}", "option lambda_w is 0"},
        {"neural_collapse_flow", "{\"K\": 2, \"steps\": -1}", "option steps is -1, expected >= 0"},
        {"neural_collapse_flow", "{\"K\": 2, \"dt\": 0}", "option dt is 0, expected (0,inf)"},
        {"neural_collapse_minimizer", "{\"K\": 2, \"lambda_w\": 0}", "option lambda_w is 0"},
        {"neural_collapse_minimizer", "{\"K\": 2, \"iters\": -1}", "option iters is -1"},
        {"neural_collapse_minimizer", "{\"K\": 2, \"beta\": -1}", "option beta is -1"},
        {"neural_collapse_metrics", "{\"K\": 2, \"tol\": -1}", "option tol is -1, expected [0,1)"},
        {"neural_collapse_collapsed", "{\"lambda_h\": 0}", "option lambda_h is 0"},
        {"neural_collapse_response", "{\"lambda_w\": 0}", "option lambda_w is 0, expected (0,inf)"},
        {"neural_collapse_response", "{\"beta\": 0}", "option beta is 0, expected (0,inf)"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        REFUSE(options[i][0], options[i][1], options[i][2]);
    static const char *const one_class = "{\"K\": 1}";
    static const char *const features[][2] = {{"neural_collapse_wstar", "H"},
                                              {"neural_collapse_central_loss", "H"},
                                              {"neural_collapse_flow", "H0"},
                                              {"neural_collapse_minimizer", "H0"}};
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        const char *f = features[i][0], *name = features[i][1];
        REFUSE(f, one_class, "has no rows, expected at least one",
               give(&c, name, BL_F32, S(0, 1), NULL), give(&c, "y", BL_I32, S(0), NULL));
        REFUSE(f, one_class, "[0,0] is inf, expected finite", F32(&c, name, S(1, 1), INFINITY),
               I32(&c, "y", S(1), 0));
        REFUSE(f, one_class, "y[0] is -1, expected 0 <= . < K", F32(&c, name, S(1, 1), 1),
               I32(&c, "y", S(1), -1));
        REFUSE(f, one_class, "y must be i32[1], not i32[2]", F32(&c, name, S(1, 1), 1),
               I32(&c, "y", S(2), 0, 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stablemax_is_smooth_at_zero_and_far_out),
        cmocka_unit_test(a_gradient_along_its_weights_vanishes),
        cmocka_unit_test(a_collapsed_example_may_be_wrong),
        cmocka_unit_test(a_step_that_lengthens_weights_has_cosine_one),
        cmocka_unit_test(grokking_stability_refuses),
        cmocka_unit_test(a_random_label_counts_even_if_it_is_true),
        cmocka_unit_test(neurons_are_dropped_before_the_square),
        cmocka_unit_test(running_statistics_stay_in_evaluation),
        cmocka_unit_test(one_frequency_has_participation_one),
        cmocka_unit_test(equal_neurons_are_pruned_in_order),
        cmocka_unit_test(an_empty_subset_has_accuracy_zero),
        cmocka_unit_test(grok_corrupted_refuses),
        cmocka_unit_test(a_direction_without_data_keeps_its_error),
        cmocka_unit_test(the_limit_has_mass_one),
        cmocka_unit_test(as_many_samples_as_inputs_is_worst),
        cmocka_unit_test(one_eigenvalue_has_a_known_time_to_stop),
        cmocka_unit_test(flow_starts_at_w0_and_ends_at_least_squares),
        cmocka_unit_test(directions_without_features_are_frozen),
        cmocka_unit_test(high_dim_dynamics_refuses),
        cmocka_unit_test(features_are_fitted_or_stay_near),
        cmocka_unit_test(the_best_classifier_has_no_slope_of_its_own),
        cmocka_unit_test(alternation_goes_down),
        cmocka_unit_test(a_simplex_is_collapsed),
        cmocka_unit_test(strong_decay_collapses_to_zero),
        cmocka_unit_test(no_change_has_no_response),
        cmocka_unit_test(neural_collapse_refuses),
        cmocka_unit_test(collapse_depends_on_the_order_of_the_sum),
        cmocka_unit_test(a_single_number_has_no_direction_across),
        cmocka_unit_test(curves_start_from_what_the_student_was),
        cmocka_unit_test(the_slope_at_eigenvalue_zero_is_finite),
        cmocka_unit_test(without_noise_more_training_is_better),
        cmocka_unit_test(decay_acts_in_directions_without_data),
        cmocka_unit_test(many_equal_features_are_one),
        cmocka_unit_test(a_best_classifier_of_unseen_classes_is_zero_there),
        cmocka_unit_test(no_steps_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
