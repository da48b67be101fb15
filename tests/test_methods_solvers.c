/* Methods that solve: the Monge gap, sparse transport, MAID, learned proximal networks. What their
 * specs refuse, and facts at shapes and corners that the reference cases do not have. */
#include "calls.h"

static void sum_to(const call *c, const char *name, double expected)
{
    double sum = 0;
    for (int64_t i = 0; i < bl_array_count(bl_dictionary_find(&c->out, name)); i++)
        sum += result(c, name, i);
    near(sum, expected);
}

/* --- the Monge gap ---------------------------------------------------------------------------- */

static void one_point_has_no_gap(void **state)
{
    (void)state;
    const char *options[] = {"{\"eps\": 0.1}", "{\"eps\": 0.1, \"entropy\": \"kl\"}"};
    for (int i = 0; i < 2; i++) {
        call c = start("monge_gap", options[i]);
        F32(&c, "x", S(1, 2), 3, 4);
        F32(&c, "y", S(1, 2), 0, 0);
        accept(&c, "gap");
        expect(&c, "gap", 0);
        expect(&c, "displacement", 25);
        near(slope(&c, "x", 0), 0);
        near(slope(&c, "y", 1), 0);
        finish(&c);
    }
}

static void swapped_images_have_a_gap_and_fixed_ones_have_none(void **state)
{
    (void)state;
    call c = start("monge_gap", "{\"eps\": 0.01}");
    F32(&c, "x", S(2, 1), 0, 1);
    F32(&c, "y", S(2, 1), 1, 0);
    accept(&c, "gap");
    near(result(&c, "gap", 0), 1 + 0.01 * log(2)); /* the best plan costs 0 */
    near(slope(&c, "y", 0), 1);                    /* (1/2) 2 (1 - 0) */
    finish(&c);
    c = start("monge_gap", "{\"eps\": 0.01}");
    F32(&c, "x", S(2, 1), 0, 1);
    F32(&c, "y", S(2, 1), 0, 1);
    accept(&c, "gap");
    near(result(&c, "gap", 0), 0.01 * log(2));
    finish(&c);
}

static void costs_at_distance_zero_have_no_slope(void **state)
{
    (void)state;
    const char *options[] = {"{\"cost\": \"euclidean\"}", "{\"cost\": \"lp_power\", \"p\": 1}",
                             "{\"cost\": \"lp_power\", \"p\": 1.5}"};
    for (int i = 0; i < 3; i++) {
        call c = start("monge_gap_cost", options[i]);
        F32(&c, "x", S(1, 2), 3, 4);
        F32(&c, "y", S(2, 2), 3, 4, 0, 0);
        give_to(&c.cotangent, "c", (bl_type){BL_F32, S(1, 2)}, VALUES(1, 0));
        accept(&c, NULL);
        near(result(&c, "c", 0), 0);
        near(slope(&c, "x", 0), 0);
        near(slope(&c, "y", 1), 0);
        finish(&c);
    }
}

static void costs_of_directions(void **state)
{
    (void)state;
    call c = start("monge_gap_cost", "{\"cost\": \"cosine\"}");
    F32(&c, "x", S(2, 2), 0, 0, 3, 0);
    F32(&c, "y", S(2, 2), 0, 2, -5, 0);
    give_to(&c.cotangent, "c", (bl_type){BL_F32, S(2, 2)}, VALUES(1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "c", 1, 1, 1, 2); /* a zero row is at a right angle to everything */
    all_finite(&c.gradient);
    finish(&c);
    c = start("monge_gap_cost", "{\"cost\": \"geodesic\"}");
    F32(&c, "x", S(1, 2), 1, 0);
    F32(&c, "y", S(3, 2), 0, 1, -1, 0, 1, 0);
    give_to(&c.cotangent, "c", (bl_type){BL_F32, S(1, 3)}, VALUES(0, 1, 1));
    accept(&c, NULL);
    near(result(&c, "c", 0), M_PI / 2);
    near(result(&c, "c", 1), acos(-1 + 1e-7));
    near(slope(&c, "x", 1), 0); /* clamped */
    finish(&c);
}

static void masses_are_met(void **state)
{
    (void)state;
    call c = start("monge_gap_sinkhorn", "{\"eps\": 0.05, \"tol\": 1e-9}");
    F32(&c, "c", S(2, 3), 0, 1, 2, 3, 1, 0);
    F32(&c, "a", S(2), 0.3, 0.70005);
    F32(&c, "b", S(3), 0.2, 0.3, 0.5);
    accept(&c, "ent_cost");
    double a = result(&c, "plan", 0) + result(&c, "plan", 1) + result(&c, "plan", 2);
    near(a, 0.3 / 1.00005);
    near(result(&c, "plan", 0) + result(&c, "plan", 3), 0.2);
    sum_to(&c, "f", 0);
    for (int i = 0; i < 6; i++)
        near(slope(&c, "c", i), result(&c, "plan", i));
    finish(&c);
}

static void too_few_iterations_are_a_status(void **state)
{
    (void)state;
    call c = start("monge_gap_sinkhorn", "{\"eps\": 0.01, \"max_iter\": 7}");
    F32(&c, "c", S(2, 2), 0, 1, 0.4, 0);
    F32(&c, "a", S(2), 0.3, 0.7);
    F32(&c, "b", S(2), 0.6, 0.4);
    accept(&c, NULL);
    expect(&c, "n_iter", 7);
    assert_true(result(&c, "violation", 0) > 1e-3);
    all_finite(&c.out);
    finish(&c);
}

static void a_sample_does_not_diverge_from_itself(void **state)
{
    (void)state;
    call c = start("monge_gap_divergence", "{\"eps\": 0.3}");
    F32(&c, "x", S(3, 1), 0, 1, 5);
    F32(&c, "y", S(3, 1), 0, 1, 5);
    accept(&c, "divergence");
    near(result(&c, "divergence", 0), 0);
    near(slope(&c, "x", 2), 0);
    finish(&c);
    c = start("monge_gap_divergence", "{\"eps\": 0.3}"); /* two single points: their distance */
    F32(&c, "x", S(1, 1), 1);
    F32(&c, "y", S(1, 1), 3);
    accept(&c, "divergence");
    near(result(&c, "divergence", 0), 4);
    near(slope(&c, "x", 0), -4);
    near(slope(&c, "y", 0), 4);
    finish(&c);
}

static void monge_gap_refuses(void **state)
{
    (void)state;
    REFUSE("monge_gap", "{\"eps\": 0}", "option eps is 0, expected (0,inf)");
    REFUSE("monge_gap", "{\"eps\": 1, \"p\": 0.5}", "option p is 0.5, expected [1,inf)");
    REFUSE("monge_gap", "{\"eps\": 1}", "y must be f32[2,1], not f32[3,1]",
           F32(&c, "x", S(2, 1), 0, 0), F32(&c, "y", S(3, 1), 0, 0, 0));
    REFUSE("monge_gap_cost", "{}", "y must be f32[M,2], not f32[2,1]", F32(&c, "x", S(1, 2), 0, 0),
           F32(&c, "y", S(2, 1), 0, 0));
    REFUSE("monge_gap_cost", "{}", "x has no rows", F32(&c, "x", S(0, 1), 0),
           F32(&c, "y", S(1, 1), 0));
    REFUSE("monge_gap_cost", "{}", "x[0,1] is nan, expected finite", F32(&c, "x", S(1, 2), 0, NAN),
           F32(&c, "y", S(1, 2), 0, 0));
    REFUSE("monge_gap_sinkhorn", "{\"eps\": 1}", "b sums to 0.9, expected 1 within 0.0001",
           F32(&c, "c", S(1, 2), 0, 0), F32(&c, "a", S(1), 1), F32(&c, "b", S(2), 0.5, 0.4));
    REFUSE("monge_gap_sinkhorn", "{\"eps\": 1}", "b[1] is 0, expected > 0",
           F32(&c, "c", S(1, 2), 0, 0), F32(&c, "a", S(1), 1), F32(&c, "b", S(2), 1, 0));
}

/* --- sparse transport ------------------------------------------------------------------------- */

static void projections_keep_k_and_their_sum(void **state)
{
    (void)state;
    call c = start("sparse_ot_project", "{\"k\": 2}");
    F32(&c, "v", S(3, 3), 1, 1, 1, 5, 0.5, 5, -80, 80, 79.5);
    give_to(&c.cotangent, "t", (bl_type){BL_F32, S(3, 3)}, VALUES(1, 2, 4, 1, 2, 4, 1, 2, 4));
    accept(&c, NULL);
    expect(&c, "t", 0.5, 0.5, 0, 0.5, 0, 0.5, 0, 0.75, 0.25); /* ties: lower index */
    near(slope(&c, "v", 0), -0.5);
    near(slope(&c, "v", 2), 0);
    near(slope(&c, "v", 5), 1.5);
    finish(&c);
    c = start("sparse_ot_project", "{\"k\": 9, \"z\": 0}");
    F32(&c, "v", S(1, 2), 3, 3);
    give_to(&c.cotangent, "t", (bl_type){BL_F32, S(1, 2)}, VALUES(1, 2));
    accept(&c, NULL);
    expect(&c, "t", 0, 0);
    near(slope(&c, "v", 0), 0);
    finish(&c);
    c = start("sparse_ot_project", "{\"k\": 1, \"z\": 1e-6}"); /* small beside v */
    F32(&c, "v", S(1, 2), 1e4, 2);
    accept(&c, NULL);
    assert_true(fabs(result(&c, "t", 0) / 1e-6 - 1) < 1e-6);
    finish(&c);
    c = start("sparse_ot_project", "{\"k\": 2}");
    F32(&c, "v", S(0, 3), 0);
    accept(&c, NULL);
    finish(&c);
}

static void a_dual_by_hand(void **state) /* s = (3, 1; 2, -1), k = 1, gamma = 2 */
{
    (void)state;
    call c = start("sparse_ot_dual", "{\"k\": 1, \"gamma\": 2}");
    F32(&c, "alpha", S(2), 3, 2);
    F32(&c, "beta", S(2), 0, -1);
    F32(&c, "a", S(2), 0.5, 0.5);
    F32(&c, "b", S(2), 0.25, 0.75);
    F32(&c, "cost", S(2, 2), 0, 1, 0, 2);
    accept(&c, "value");
    expect(&c, "plan", 1.5, 0.5, 0, 0);
    expect(&c, "value", 2.5 - 0.75 - (2.25 + 0.25));
    near(slope(&c, "alpha", 0), 0.5 - 2);
    near(slope(&c, "alpha", 1), 0.5);
    near(slope(&c, "beta", 0), 0.25 - 1.5);
    near(slope(&c, "a", 1), 2);
    near(slope(&c, "cost", 1), 0.5);
    finish(&c);
}

static void a_target_without_mass_takes_nothing(void **state)
{
    (void)state;
    call c = start("sparse_ot_semidual", "{\"k\": 2, \"gamma\": 1}");
    F32(&c, "alpha", S(2), 1, 0);
    F32(&c, "a", S(2), 0, 1);
    F32(&c, "b", S(2), 1, 0);
    F32(&c, "cost", S(2, 2), 0, 0, 0.5, 0);
    accept(&c, "value");
    expect(&c, "plan", 1, 0, 0, 0);
    expect(&c, "value", 0 - (1 - 0.5));
    finish(&c);
}

static void both_forms_have_one_optimum(void **state)
{
    (void)state;
    const char *options[] = {"{\"k\": 3, \"gamma\": 0.5, \"form\": \"dual\", \"max_iter\": 2000}",
                             "{\"k\": 7, \"gamma\": 0.5, \"max_iter\": 2000}"};
    double value[2];
    for (int i = 0; i < 2; i++) {
        call c = start("sparse_ot_solve", options[i]);
        F32(&c, "a", S(3), 0.2, 0.3, 0.5);
        F32(&c, "b", S(2), 0.4, 0.6);
        F32(&c, "cost", S(3, 2), 0, 1, 0.3, 0.2, 0.9, 0.1);
        accept(&c, "value");
        value[i] = result(&c, "value", 0);
        assert_true(result(&c, "violation", 0) <= 1e-6);
        expect(&c, "feasible", 1);
        for (int j = 0; j < 6; j++)
            near(slope(&c, "cost", j), result(&c, "plan", j));
        near(slope(&c, "a", 0), result(&c, "alpha", 0));
        near(slope(&c, "b", 1), result(&c, "beta", 1));
        finish(&c);
    }
    near(value[0], value[1]);
}

static void what_k_makes_impossible_is_reported(void **state)
{
    (void)state;
    call c = start("sparse_ot_solve", "{\"k\": 1, \"gamma\": 1}"); /* three sources, one target */
    F32(&c, "a", S(3), 0.2, 0.3, 0.5);
    F32(&c, "b", S(1), 1);
    F32(&c, "cost", S(3, 1), 0, 1, 2);
    accept(&c, NULL);
    expect(&c, "feasible", 0);
    sum_to(&c, "plan", 1);
    finish(&c);
}

static void sparse_ot_refuses(void **state)
{
    (void)state;
    REFUSE("sparse_ot_project", "{\"k\": 0}", "option k is 0, expected >= 1");
    REFUSE("sparse_ot_project", "{\"k\": 1, \"z\": -1}", "option z is -1, expected [0,inf)");
    REFUSE("sparse_ot_solve", "{\"k\": 1, \"gamma\": 0}", "option gamma is 0, expected (0,inf)");
    REFUSE("sparse_ot_solve", "{\"k\": 1, \"gamma\": 1}", "a sums to 1.1, expected 1",
           F32(&c, "a", S(2), 0.5, 0.6), F32(&c, "b", S(1), 1), F32(&c, "cost", S(2, 1), 0, 0));
    REFUSE("sparse_ot_solve", "{\"k\": 1, \"gamma\": 1}", "a[0] is -0.5, expected >= 0",
           F32(&c, "a", S(2), -0.5, 1.5), F32(&c, "b", S(1), 1), F32(&c, "cost", S(2, 1), 0, 0));
    REFUSE("sparse_ot_solve", "{\"k\": 1, \"gamma\": 1}", "cost[1,0] is inf, expected finite",
           F32(&c, "a", S(2), 0.5, 0.5), F32(&c, "b", S(1), 1),
           F32(&c, "cost", S(2, 1), 0, INFINITY));
    REFUSE("sparse_ot_dual", "{\"k\": 1, \"gamma\": 1}", "cost must be f32[2,1], not f32[1,2]",
           F32(&c, "alpha", S(2), 0, 0), F32(&c, "beta", S(1), 0), F32(&c, "a", S(2), 0.5, 0.5),
           F32(&c, "b", S(1), 1), F32(&c, "cost", S(1, 2), 0, 0));
}

/* --- MAID ------------------------------------------------------------------------------------- */

/* h = (x + theta)^2 2, g = (x - 1)^2 / 2: f(theta) = (theta + 1)^2 / 2. */
static void scalar_problem(call *c)
{
    F32(c, "a1", S(1, 1), 1);
    F32(c, "a2", S(1, 1), 2);
    F32(c, "a3", S(1, 1), 2);
    F32(c, "b1", S(1), 1);
    F32(c, "b2", S(1), 0);
}

static void a_quadratic_in_one_variable(void **state)
{
    (void)state;
    call c = start("maid_lower_solve", "{\"problem\": \"quadratic\", \"eps\": 1e-9}");
    F32(&c, "x", S(1), 5);
    F32(&c, "theta", S(1), 3);
    scalar_problem(&c);
    accept(&c, NULL);
    expect(&c, "x", -3);
    expect(&c, "iters", 2); /* mu = L: a single step, and one that sees it */
    finish(&c);
    c = start("maid_hypergrad", "{\"problem\": \"quadratic\", \"delta\": 1e-9}");
    F32(&c, "x", S(1), -3);
    F32(&c, "theta", S(1), 3);
    scalar_problem(&c);
    accept(&c, NULL);
    expect(&c, "q", -1);
    expect(&c, "z", 4); /* f'(3) */
    expect(&c, "iters", 1);
    c.options = "{\"problem\": \"quadratic\", \"delta\": 4}"; /* |grad g| = 4 */
    accept(&c, NULL);
    expect(&c, "q", 0);
    expect(&c, "z", 0);
    finish(&c);
    c = start("maid_jacobian_norm", "{\"problem\": \"quadratic\"}");
    F32(&c, "x", S(1), -3);
    F32(&c, "theta", S(1), 3);
    F32(&c, "v0", S(1), 0.1);
    scalar_problem(&c);
    accept(&c, NULL);
    expect(&c, "norm", 4);
    finish(&c);
}

static void a_run_finds_the_best_parameter(void **state)
{
    (void)state;
    call c = start("maid_run", "{\"problem\": \"quadratic\", \"iters\": 40, \"eps0\": 0.1, "
                               "\"delta0\": 0.1, \"beta0\": 0.3}");
    F32(&c, "x", S(1), 0);
    F32(&c, "theta", S(1), 3);
    F32(&c, "v0", S(1), 1);
    scalar_problem(&c);
    accept(&c, NULL);
    assert_true(fabs(result(&c, "theta", 0) + 1) < 1e-3);
    for (int k = 1; k < 40; k++)
        assert_true(result(&c, "loss", k) <= result(&c, "loss", k - 1) + 1e-6);
    finish(&c);
}

static void a_stationary_start_ends_the_run(void **state)
{
    (void)state;
    call c = start("maid_run", "{\"problem\": \"quadratic\", \"iters\": 3, \"eps0\": 0.1, "
                               "\"delta0\": 0.1, \"beta0\": 0.3}");
    F32(&c, "x", S(1), 1);
    F32(&c, "theta", S(1), -1);
    F32(&c, "v0", S(1), 1);
    scalar_problem(&c);
    accept(&c, NULL);
    expect(&c, "stationary", 1);
    expect(&c, "theta", -1);
    expect(&c, "step", 0, 0, 0);
    finish(&c);
}

static void maid_refuses(void **state)
{
    (void)state;
    REFUSE("maid_lower", "{\"problem\": \"cubic\"}",
           "option problem is \"cubic\", expected one of");
    REFUSE("maid_lower", "{\"problem\": \"tv\"}", "input noisy is missing: problem tv needs it",
           F32(&c, "x", S(1, 1, 1), 0), F32(&c, "theta", S(2), 0, 0));
    REFUSE("maid_lower", "{\"problem\": \"quadratic\"}",
           "x must be f32[1] for problem quadratic, not f32[2]", F32(&c, "x", S(2), 0, 0),
           F32(&c, "theta", S(1), 0), scalar_problem(&c));
    REFUSE("maid_hypergrad", "{\"problem\": \"quadratic\", \"delta\": 1e-6}",
           "the lower objective is not strongly convex", F32(&c, "x", S(1), 0),
           F32(&c, "theta", S(1), 0), F32(&c, "a1", S(1, 1), 1), F32(&c, "a2", S(1, 1), 0),
           F32(&c, "a3", S(1, 1), 1), F32(&c, "b1", S(1), 1), F32(&c, "b2", S(1), 0));
    REFUSE("maid_hypergrad", "{\"problem\": \"tv\", \"delta\": 0}", "option delta is 0, expected");
    REFUSE("maid_error_bound", NULL, "mu is 0, expected > 0", F32(&c, "eps", BL_SCALAR, 1),
           F32(&c, "delta", BL_SCALAR, 1), F32(&c, "mu", BL_SCALAR, 0),
           F32(&c, "jnorm", BL_SCALAR, 1), F32(&c, "gnorm", BL_SCALAR, 1),
           F32(&c, "lg", BL_SCALAR, 1), F32(&c, "lj", BL_SCALAR, 1),
           F32(&c, "lhinv", BL_SCALAR, 1));
    REFUSE("maid_decrease", "{\"eta\": 1}", "option eta is 1, expected (0,1)");
}

/* --- learned proximal networks ---------------------------------------------------------------- */

/* psi = softplus(softplus(x)) + ro x with all weights 1, in one dimension. */
static void small_network(call *c, double w)
{
    F32(c, "l0", S(1, 1), 1);
    F32(c, "w", S(1, 1, 1), w);
    F32(c, "r", S(1, 1, 1), 0);
    F32(c, "b", S(1, 1), 0);
    F32(c, "wo", S(1), 1);
    F32(c, "ro", S(1), 0.25);
    F32(c, "bo", BL_SCALAR, 0);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void a_network_by_hand_and_at_extremes(void **state)
{
    (void)state;
    call c = start("lpn_prox", "{\"beta\": 1, \"alpha\": 0.5}");
    F32(&c, "x", S(3, 1), 0, 2000, -2000);
    small_network(&c, 1);
    give_to(&c.cotangent, "prox", (bl_type){BL_F32, S(3, 1)}, VALUES(1, 1, 1));
    accept(&c, NULL);
    double z = log(2);
    near(result(&c, "psi", 0), log(1 + exp(z)));
    near(result(&c, "prox", 0), sigmoid(z) * 0.5 + 0.25);
    near(result(&c, "prox", 1), 1 + 0.25 + 1000);
    near(result(&c, "prox", 2), 0.25 - 1000);
    double s = sigmoid(z); /* psi'' = s (1 - s) / 4 + s / 4 + alpha */
    near(slope(&c, "x", 0), s * (1 - s) * 0.25 + s * 0.25 + 0.5);
    near(slope(&c, "x", 1), 0.5);
    all_finite(&c.gradient);
    finish(&c);
}

static void exact_outputs_have_no_slope(void **state)
{
    (void)state;
    call c = start("lpn_pm_loss", "{\"gamma\": 0.5}");
    F32(&c, "out", S(2, 1, 2), 1, 2, 1e3, 0);
    F32(&c, "target", S(2, 1, 2), 1, 2, 0, 0);
    accept(&c, "loss");
    expect(&c, "loss", 0.5);
    for (int i = 0; i < 4; i++)
        near(slope(&c, "out", i), 0);
    finish(&c);
}

static void a_point_that_no_y_leads_to_is_reported(void **state)
{
    (void)state;
    call c = start("lpn_prior", "{\"beta\": 1, \"max_iter\": 50}"); /* prox lies in (1/4, 5/4) */
    F32(&c, "x", S(3, 1), 0.75, 3, 0.75);
    small_network(&c, 1);
    accept(&c, NULL);
    assert_true(result(&c, "residual", 0) <= 1e-6);
    assert_true(result(&c, "residual", 1) > 1);
    near(result(&c, "prior", 0), result(&c, "prior", 2)); /* rows do not disturb each other */
    double y = result(&c, "y", 0), z = log(1 + exp(y));
    near(sigmoid(z) * sigmoid(y) + 0.25, 0.75);
    near(result(&c, "prior", 0), 0.75 * y - 0.75 * 0.75 / 2 - log(1 + exp(z)) - 0.25 * y);
    finish(&c);
}

static void a_step_of_admm_by_hand(void **state)
{
    (void)state;
    call c = start("lpn_admm_step", "{\"beta\": 1, \"rho\": 2}");
    F32(&c, "z", S(1, 1), 1);
    F32(&c, "u", S(1, 1), 0.5);
    F32(&c, "a", S(1, 1), 3);
    F32(&c, "meas", S(1), 4);
    small_network(&c, 1);
    accept(&c, NULL);
    double x = (12 + 2 * 0.5) / 11, v = x + 0.5;
    double z = sigmoid(log(1 + exp(v))) * sigmoid(v) + 0.25;
    expect(&c, "x_next", x);
    expect(&c, "z_next", z);
    expect(&c, "u_next", v - z);
    finish(&c);
}

static void lpn_refuses(void **state)
{
    (void)state;
    REFUSE("lpn_prox", "{}", "w[0] is -1, expected >= 0, or the potential is not convex",
           F32(&c, "x", S(1, 1), 0), small_network(&c, -1));
    REFUSE("lpn_prior", "{}", "w[0] is -1, expected >= 0", F32(&c, "x", S(1, 1), 0),
           small_network(&c, -1));
    REFUSE("lpn_prox", "{\"beta\": 0}", "option beta is 0, expected (0,inf)");
    REFUSE("lpn_prox", "{\"alpha\": -1}", "option alpha is -1, expected [0,inf)");
    REFUSE("lpn_pm_loss", "{\"gamma\": 0}", "option gamma is 0, expected (0,inf)");
    REFUSE("lpn_prox", "{}", "x has no rows", F32(&c, "x", S(0, 1), 0), small_network(&c, 1));
    REFUSE("lpn_admm_step", "{\"rho\": 0}", "option rho is 0, expected (0,inf)");
    call c = start("lpn_prox", "{\"check_convex\": false}");
    F32(&c, "x", S(1, 1), 0);
    small_network(&c, -1);
    accept(&c, NULL);
    finish(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_point_has_no_gap),
        cmocka_unit_test(swapped_images_have_a_gap_and_fixed_ones_have_none),
        cmocka_unit_test(costs_at_distance_zero_have_no_slope),
        cmocka_unit_test(costs_of_directions),
        cmocka_unit_test(masses_are_met),
        cmocka_unit_test(too_few_iterations_are_a_status),
        cmocka_unit_test(a_sample_does_not_diverge_from_itself),
        cmocka_unit_test(monge_gap_refuses),
        cmocka_unit_test(projections_keep_k_and_their_sum),
        cmocka_unit_test(a_dual_by_hand),
        cmocka_unit_test(a_target_without_mass_takes_nothing),
        cmocka_unit_test(both_forms_have_one_optimum),
        cmocka_unit_test(what_k_makes_impossible_is_reported),
        cmocka_unit_test(sparse_ot_refuses),
        cmocka_unit_test(a_quadratic_in_one_variable),
        cmocka_unit_test(a_run_finds_the_best_parameter),
        cmocka_unit_test(a_stationary_start_ends_the_run),
        cmocka_unit_test(maid_refuses),
        cmocka_unit_test(a_network_by_hand_and_at_extremes),
        cmocka_unit_test(exact_outputs_have_no_slope),
        cmocka_unit_test(a_point_that_no_y_leads_to_is_reported),
        cmocka_unit_test(a_step_of_admm_by_hand),
        cmocka_unit_test(lpn_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
