/* Methods for generators, tokenizers and codes - adapt then unlearn, ProFusion, GigaTok, latent
 * quantization: what their specs refuse, and facts about values and gradients at shapes and corners
 * that the reference cases do not have. */
#include "calls.h"
#include "methods/contract.h"

/* --- lists of whole numbers as options -------------------------------------------------------- */

static void expect_list(const char *text, const char *shown)
{
    const bl_contract *contract;
    expect_ok(bl_function_find("adapt_unlearn_repulsion", &contract));
    const bl_field *field = bl_option_find(contract, "tensor_sizes");
    void *fields = bl_fields_new(contract);
    assert_non_null(field);
    assert_non_null(fields);
    bl_status status = bl_option_set_text(contract, fields, field, text);
    bl_text out = {0};
    if (status == BL_OK)
        bl_option_show(contract, fields, field, &out);
    assert_string_equal(status == BL_OK ? out.at : "refused", shown);
    bl_text_free(&out);
    bl_release(fields);
}

static void a_list_is_read_and_shown(void **state)
{
    (void)state;
    expect_list("[6, 3,8]", "[6,3,8]");
    expect_list("[]", "[]");
    expect_list("[[0,1],[-1,3]]", "[[0,1],[-1,3]]");
    expect_list("[[6],[3]]", "[6,3]"); /* a row of one number is that number */
    static const char *const wrong[] = {"6,3",     "6",       "[6,3", "[[0,1],[2]]",
                                        "[1.5]",   "[\"a\"]", "[[]]", "[[[1]]]",
                                        "[1,[2]]", "[[1],2]", "{}",   "[1e40]"};
    for (int i = 0; i < COUNT_OF(wrong); i++)
        expect_list(wrong[i], "refused");
}

/* --- adapt then unlearn ----------------------------------------------------------------------- */

/* theta is 1, 2, 4, 6 from the first adapted model and as far from the second. */
static call repulsion(const char *options)
{
    call c = start("adapt_unlearn_repulsion", options);
    F32(&c, "theta", S(4), 1, 2, 4, 6);
    F32(&c, "theta_neg", S(2, 4), 0, 0, 0, 0, 2, 4, 8, 12);
    return c;
}

static void distances_average_over_models_or_tensors(void **state)
{
    (void)state;
    call c = repulsion("{\"form\": \"negative\"}");
    accept(&c, "loss");
    expect(&c, "distance", 57);
    expect(&c, "loss", -57);
    for (int i = 0; i < 4; i++)
        near(slope(&c, "theta", i), 0); /* in the middle between two */
    c.options = "{\"distance_kind\": \"tensor_mean\", \"form\": \"inverse\"}";
    accept(&c, NULL);
    expect(&c, "distance", 57.0 / 4);
    expect(&c, "loss", 4 / 57.0);
    c.options = "{\"distance_kind\": \"tensor_mean\", \"tensor_sizes\": [1, 3], \"alpha\": 0.1}";
    accept(&c, NULL);
    expect(&c, "distance", (1 + 56.0 / 3) / 2);
    near(result(&c, "loss", 0), exp(-0.1 * (1 + 56.0 / 3) / 2));
    c.options = "{\"distance_kind\": \"official\", \"tensor_sizes\": [1, 3]}";
    accept(&c, NULL);
    expect(&c, "distance", 2 * (1 + 56.0 / 3) / 2);
    F32(&c, "theta_neg", S(1, 4), 0, 0, 0, 0);
    c.options = "{\"distance_kind\": \"official\", \"form\": \"inverse\"}";
    accept(&c, "loss");
    expect(&c, "distance", 57.0 / 8);
    near(slope(&c, "theta", 3), -64.0 / 57 / 57 * 2 * 6 / 8);
    finish(&c);
}

static void weights_that_coincide_may_repel_softly(void **state)
{
    (void)state;
    call c = start("adapt_unlearn_generator_loss", "{\"gamma\": 3}");
    F32(&c, "fake_logits", S(2), 80, -80);
    F32(&c, "theta", S(1), 5);
    F32(&c, "theta_neg", S(1, 1), 5);
    accept(&c, "loss");
    expect(&c, "adversarial", 40);
    expect(&c, "repulsion", 1);
    expect(&c, "loss", 43);
    near(slope(&c, "theta", 0), 0);
    near(slope(&c, "fake_logits", 0), 0);
    near(slope(&c, "fake_logits", 1), -0.5);
    c.options = "{\"form\": \"inverse\"}";
    refuse(&c, "weights coincide with the adapted model");
}

static void scores_of_unequal_batches(void **state)
{
    (void)state;
    call c = start("adapt_unlearn_discriminator_loss", NULL);
    F32(&c, "real_logits", S(1), 0);
    F32(&c, "fake_logits", S(3), 80, -80, 0);
    accept(&c, "loss");
    expect(&c, "loss", log(2) + (80 + log(2)) / 3);
    near(slope(&c, "real_logits", 0), -0.5);
    near(slope(&c, "fake_logits", 0), 1.0 / 3);
    finish(&c);
}

/* At the kink of the activation the slope is 0.2, and so are derivatives of it. */
static void a_penalty_at_the_kink(void **state)
{
    (void)state;
    call c = start("adapt_unlearn_r1_mlp", NULL);
    F32(&c, "x", S(1, 1), 0);
    F32(&c, "v1", S(1, 2), 3, 5);
    F32(&c, "c1", S(2), 0, 1);
    F32(&c, "v2", S(2), 2, 7);
    F32(&c, "c2", BL_SCALAR, 9);
    accept(&c, "penalty");
    double g = 0.2 * 3 * 2 + 5 * 7;
    expect(&c, "input_grad", g);
    expect(&c, "penalty", g * g);
    near(slope(&c, "v1", 0), 2 * g * 0.2 * 2);
    near(slope(&c, "v2", 1), 2 * g * 5);
    near(slope(&c, "c1", 0), 0);
    near(slope(&c, "c2", 0), 0);
    finish(&c);
}

static void squares_of_samples_not_of_their_mean(void **state)
{
    (void)state;
    call c = start("adapt_unlearn_fisher", NULL);
    F32(&c, "score_grads", S(2, 2), 1, 2, -1, 4);
    accept(&c, NULL);
    expect(&c, "fisher", 1, 10);
    finish(&c);
    c = start("adapt_unlearn_fisher_mlp", NULL);
    F32(&c, "z", S(2, 1), 1, -1);
    F32(&c, "w1", S(1, 1), 1);
    F32(&c, "b1", S(1), 0);
    F32(&c, "w2", S(1, 1), 2);
    F32(&c, "b2", S(1), 0);
    F32(&c, "v1", S(1, 1), 1);
    F32(&c, "c1", S(1), 0);
    F32(&c, "v2", S(1), 3);
    F32(&c, "c2", BL_SCALAR, 0);
    accept(&c, NULL); /* the score is 3 x where x > 0 and 0.6 x where not */
    double t = tanh(1), squares = (9 + 0.36) / 2, through = 2 * (1 - t * t);
    expect(&c, "fisher_b2", squares);
    expect(&c, "fisher_w2", squares * t * t);
    expect(&c, "fisher_b1", squares * through * through);
    expect(&c, "fisher_w1", squares * through * through);
    finish(&c);
}

static void an_anchor_and_a_walk(void **state)
{
    (void)state;
    call c = start("adapt_unlearn_ewc", "{\"lam\": 3}");
    F32(&c, "theta", S(2), 1, 5);
    F32(&c, "theta_ref", S(2), 3, 4);
    F32(&c, "fisher", S(2), 2, 0);
    accept(&c, "loss");
    expect(&c, "loss", 12);
    near(slope(&c, "theta", 0), -12);
    near(slope(&c, "theta", 1), 0);
    finish(&c);
    c = start("adapt_unlearn_extrapolate", "{\"gamma\": -1.5}");
    F32(&c, "theta", S(1), 1);
    F32(&c, "theta_neg", S(2, 1), 2, 4);
    accept(&c, NULL);
    expect(&c, "theta_out", -2);
    finish(&c);
}

static void unlearning_can_be_negative(void **state)
{
    (void)state;
    call c = start("adapt_unlearn_pul", "{\"target\": 7}");
    I32(&c, "pred_before", S(4), 7, 7, 0, 0);
    I32(&c, "pred_after", S(4), 7, 7, 7, 0);
    accept(&c, NULL);
    expect(&c, "pul", -50);
    c.options = "{\"target\": 7, \"scope\": \"previously_negative\"}";
    accept(&c, NULL);
    expect(&c, "pul", 0);
    finish(&c);
}

#define THETA(n, ...)        F32(&c, "theta", S(n), __VA_ARGS__)
#define NEGATIVES(m, n, ...) F32(&c, "theta_neg", S(m, n), __VA_ARGS__)

static void adapt_unlearn_refuses(void **state)
{
    (void)state;
    REFUSE("adapt_unlearn_repulsion", NULL, "theta_neg must be f32[M,2], not f32[1,3]",
           THETA(2, 0, 1), NEGATIVES(1, 3, 0, 0, 0));
    REFUSE("adapt_unlearn_repulsion", NULL, "theta_neg has no rows, expected at least one",
           THETA(2, 0, 1), NEGATIVES(0, 2, 0));
    REFUSE("adapt_unlearn_repulsion", "{\"tensor_sizes\": [1, 2]}",
           "option tensor_sizes sums to 3, expected a list that sums to 2", THETA(2, 0, 1),
           NEGATIVES(1, 2, 0, 0));
    REFUSE("adapt_unlearn_repulsion", "{\"tensor_sizes\": [2, 0]}",
           "option tensor_sizes[1] is 0, expected >= 1");
    REFUSE("adapt_unlearn_repulsion", "{\"tensor_sizes\": [[1, 1]]}",
           "option tensor_sizes sums to 2, expected a list that sums to 2", THETA(2, 0, 1),
           NEGATIVES(1, 2, 0, 0));
    REFUSE("adapt_unlearn_repulsion", "{\"tensor_sizes\": 2}",
           "option tensor_sizes is 2, expected whole numbers");
    REFUSE("adapt_unlearn_repulsion", "{\"alpha\": 0}", "option alpha is 0, expected (0,inf)");
    REFUSE("adapt_unlearn_repulsion", "{\"form\": \"log\"}", "option form is \"log\"");
    REFUSE("adapt_unlearn_repulsion", NULL, "theta[1] is inf, expected finite",
           THETA(2, 0, INFINITY), NEGATIVES(1, 2, 0, 0));
    REFUSE("adapt_unlearn_repulsion", NULL, "theta_neg[0,1] is nan, expected finite",
           THETA(2, 0, 1), NEGATIVES(1, 2, 0, NAN));
    REFUSE("adapt_unlearn_repulsion", "{\"form\": \"inverse\", \"distance_kind\": \"official\"}",
           "theta's weights coincide with the adapted model: their distance is 0, expected at "
           "least 1e-12",
           THETA(2, 0, 1), NEGATIVES(2, 2, 0, 1, 0, 1));
    REFUSE("adapt_unlearn_generator_loss", "{\"gamma\": -1}",
           "option gamma is -1, expected [0,inf)");
    REFUSE("adapt_unlearn_ewc", "{\"lam\": -1}", "option lam is -1, expected [0,inf)");
    REFUSE("adapt_unlearn_ewc", NULL, "fisher[0] is -2, expected >= 0", THETA(1, 0),
           F32(&c, "theta_ref", S(1), 0), F32(&c, "fisher", S(1), -2));
    REFUSE("adapt_unlearn_pul", "{\"target\": 3}",
           "pred_before never is 3, expected the target at least once",
           I32(&c, "pred_before", S(2), 0, 1), I32(&c, "pred_after", S(2), 3, 3));
    REFUSE("adapt_unlearn_pul", NULL, "option target is required");
}

/* --- ProFusion -------------------------------------------------------------------------------- */

static call noising_call(const char *function, const char *options, double a_t, double a_prev)
{
    call c = start(function, options);
    F32(&c, "x", S(1, 2), 1, -2);
    F32(&c, "eps", S(1, 2), 3, 0.5);
    F32(&c, "noise", S(1, 2), -1, 4);
    F32(&c, "a_t", BL_SCALAR, a_t);
    F32(&c, "a_prev", BL_SCALAR, a_prev);
    return c;
}

static void sum_gradient(call *c, const char *output, bl_shape shape)
{
    const double ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    assert_true(bl_shape_count(shape) <= COUNT_OF(ones));
    give_to(&c->cotangent, output, (bl_type){BL_F32, shape}, ones);
}

static void a_fusion_move_is_a_step_and_the_way_back(void **state)
{
    (void)state;
    double a = 0.25, prev = 0.5, eta = 0.8;
    double s2 = eta * eta * (1 - prev) / (1 - a) * (1 - a / prev);
    double removed = s2 * sqrt(1 - a) / (1 - prev);
    double added = sqrt(s2) * sqrt((1 - a) * (2 - 2 * prev - s2)) / (1 - prev);
    call c = noising_call("profusion_fusion_step", "{\"eta\": 0.8}", a, prev);
    sum_gradient(&c, "x_out", S(1, 2));
    accept(&c, NULL);
    expect(&c, "x_out", 1 - 3 * removed - added, -2 - 0.5 * removed + 4 * added);
    near(slope(&c, "x", 0), 1);
    near(slope(&c, "eps", 0), -removed);
    c.options = "{\"eta\": 0}";
    accept(&c, NULL);
    expect(&c, "x_out", 1, -2);
    near(slope(&c, "eps", 1), 0);
    finish(&c);
    c = noising_call("profusion_fusion_step", NULL, 0.5, 0.5); /* no step, no way back */
    accept(&c, NULL);
    expect(&c, "x_out", 1, -2);
    finish(&c);
}

static void what_is_clean_stays_clean(void **state)
{
    (void)state;
    for (int noisy = 0; noisy < 2; noisy++) {
        call c = noising_call("profusion_fusion_step", NULL, noisy ? 0.3 : 1, 1);
        sum_gradient(&c, "x_out", S(1, 2));
        accept(&c, NULL);
        expect(&c, "x_out", 1, -2);
        near(slope(&c, "x", 1), 1);
        near(slope(&c, "eps", 1), 0);
        finish(&c);
        c = noising_call("profusion_ddim_step", "{\"eta\": 1}", noisy ? 0.25 : 1, 1);
        accept(&c, NULL);
        double level = noisy ? sqrt(0.75) : 0, root = noisy ? 0.5 : 1;
        expect(&c, "x0", (1 - 3 * level) / root, (-2 - 0.5 * level) / root);
        expect(&c, "x_prev", (1 - 3 * level) / root, (-2 - 0.5 * level) / root);
        finish(&c);
    }
}

/* A step from almost pure noise replaces all of it: the root of 1 - q may not turn negative. */
static void a_full_step_from_pure_noise(void **state)
{
    (void)state;
    call c = noising_call("profusion_ddim_step", "{\"eta\": 1}", 1e-30, 0.9);
    sum_gradient(&c, "x_prev", S(1, 2));
    accept(&c, NULL);
    all_finite(&c.out);
    all_finite(&c.gradient);
    finish(&c);
}

static void guidance_adds_up(void **state)
{
    (void)state;
    call c = start("profusion_compose_eps", NULL);
    F32(&c, "eps_uncond", S(2), 1, 2);
    F32(&c, "eps_cond", S(2, 2), 3, 2, 0, 7);
    F32(&c, "weight", S(2), 2, -1);
    sum_gradient(&c, "eps", S(2));
    accept(&c, NULL);
    expect(&c, "eps", 1 + 4 + 1, 2 + 0 - 5);
    near(slope(&c, "eps_uncond", 0), 0); /* 1 - 2 + 1 */
    near(slope(&c, "eps_cond", 0), 2);
    finish(&c);
    c = start("profusion_compose_eps", NULL); /* no condition, no guidance */
    F32(&c, "eps_uncond", S(2), 1, 2);
    F32(&c, "eps_cond", S(0, 2), 0);
    F32(&c, "weight", S(0), 0);
    accept(&c, NULL);
    expect(&c, "eps", 1, 2);
    finish(&c);
}

static void words_may_stand_at_the_end(void **state)
{
    (void)state;
    call c = start("profusion_scale_token", "{\"pos\": 1, \"count\": 2, \"gamma\": 0.5}");
    F32(&c, "hidden", S(1, 3, 1), 2, 4, 6);
    sum_gradient(&c, "hidden_out", S(1, 3, 1));
    accept(&c, NULL);
    expect(&c, "hidden_out", 2, 2, 3);
    near(slope(&c, "hidden", 0), 1);
    near(slope(&c, "hidden", 2), 0.5);
    c.options = "{\"pos\": 2, \"count\": 2}";
    refuse(&c, "options pos and count are 2 and 2, expected positions within 0 <= . < 3");
}

static void noise_of_a_clean_level_is_not_weighed(void **state)
{
    (void)state;
    call c = start("profusion_denoise_loss", "{\"prompt_l2\": 2}");
    F32(&c, "eps_pred", S(2), 3, 0); /* a sample of one number */
    F32(&c, "eps", S(2), 1, 0);
    F32(&c, "prompt", S(2, 1, 1), 1, 3);
    F32(&c, "alpha_bar", S(2), 1, 0.75);
    accept(&c, "loss");
    expect(&c, "diffusion", 2); /* 0^0 is 1 */
    expect(&c, "prompt_reg", 5);
    expect(&c, "loss", 12);
    near(slope(&c, "prompt", 1), 2 * 3);
    c.options = "{\"p_gamma\": 2}";
    accept(&c, "loss");
    expect(&c, "diffusion", 0);
    near(slope(&c, "eps_pred", 0), 0);
    finish(&c);
}

/* One component far away: its noise is that of a single Gaussian, and its weight does not matter.
 */
static void a_single_gaussian(void **state)
{
    (void)state;
    call c = start("profusion_gmm_eps", "{\"std\": 0.5}");
    F32(&c, "x", S(1, 2), 80, -80);
    F32(&c, "a_t", BL_SCALAR, 0.25);
    F32(&c, "means", S(2, 2), 2, 0, -1e4, 0);
    F32(&c, "pi", S(2), 0.001, 0.999);
    sum_gradient(&c, "eps", S(1, 2));
    accept(&c, NULL);
    double v = 0.25 * 0.25 + 0.75, factor = sqrt(0.75) / v;
    expect(&c, "eps", factor * 79, factor * -80);
    near(slope(&c, "x", 0), factor);
    finish(&c);
}

/* Without conditions that differ, and with nothing fused, sampling is DDIM with the exact noise. */
static void a_chain_of_one_step(void **state)
{
    (void)state;
    call c = start("profusion_sample_gmm",
                   "{\"std\": 1, \"fusion_steps\": 0, \"w_subject\": 5, \"w_text\": -7}");
    F32(&c, "x_start", S(1, 1), 2);
    F32(&c, "noise", S(1, 0, 1, 1), 0);
    F32(&c, "alphas", S(2), 0.25, 1);
    F32(&c, "means", S(1, 1), 3);
    F32(&c, "pi_uncond", S(1), 1);
    F32(&c, "pi_subject", S(1), 1);
    F32(&c, "pi_text", S(1), 1);
    F32(&c, "pi_joint", S(1), 1);
    accept(&c, NULL);
    double eps = sqrt(0.75) * (2 - 1.5);
    expect(&c, "x_final", (2 - sqrt(0.75) * eps) / 0.5);
    F32(&c, "noise", S(0, 0, 1, 1), 0);
    F32(&c, "alphas", S(1), 0.25);
    accept(&c, NULL);
    expect(&c, "x_final", 2);
    F32(&c, "alphas", S(2), 0.25, 1);
    refuse(&c, "alphas has 2 values, expected 1: one more than noise has steps");
}

#define MIXTURE(uncond)                                                                            \
    F32(&c, "x_start", S(1, 1), 2), F32(&c, "noise", S(1, 1, 1, 1), 0),                            \
        F32(&c, "means", S(1, 1), 3), F32(&c, "pi_uncond", S(1), uncond),                          \
        F32(&c, "pi_subject", S(1), 1), F32(&c, "pi_text", S(1), 1), F32(&c, "pi_joint", S(1), 1)

static void refuse_levels(const char *function, double a_t, double a_prev, const char *words)
{
    call c = noising_call(function, NULL, a_t, a_prev);
    refuse(&c, words);
}

static void profusion_refuses(void **state)
{
    (void)state;
    refuse_levels("profusion_fusion_step", 0, 0.5, "a_t is 0, expected (0,1]");
    refuse_levels("profusion_fusion_step", 0.5, 1.5, "a_prev is 1.5, expected (0,1]");
    refuse_levels("profusion_fusion_step", 0.5, 0.25,
                  "a_t is 0.5, expected at most a_prev, 0.25: the next level has less noise");
    refuse_levels("profusion_ddim_step", 0.5, 0.25, "a_t is 0.5, expected at most a_prev, 0.25");
    REFUSE("profusion_fusion_step", "{\"eta\": 1.5}", "option eta is 1.5, expected [0,1]");
    REFUSE("profusion_ddim_step", "{\"eta\": -1}", "option eta is -1, expected [0,1]");
    REFUSE("profusion_add_noise", NULL, "t[0] is 2, expected 0 <= . < T (T is 2)",
           F32(&c, "x0", S(1, 1), 0), F32(&c, "noise", S(1, 1), 0), I32(&c, "t", S(1), 2),
           F32(&c, "alphas_cumprod", S(2), 1, 1));
    REFUSE("profusion_denoise_loss", "{\"prompt_l2\": -1}",
           "option prompt_l2 is -1, expected [0,inf)");
    REFUSE("profusion_scale_token", "{\"pos\": -1}", "option pos is -1, expected >= 0");
    REFUSE("profusion_scale_token", "{\"pos\": 0, \"gamma\": -1}",
           "option gamma is -1, expected [0,inf)");
    REFUSE("profusion_scale_token", NULL, "option pos is required");
    REFUSE("profusion_gmm_eps", "{\"std\": 0}", "option std is 0, expected (0,inf)");
    REFUSE("profusion_gmm_eps", "{\"std\": 1}", "pi[0] is 0, expected > 0",
           F32(&c, "x", S(1, 1), 0), F32(&c, "a_t", BL_SCALAR, 1), F32(&c, "means", S(1, 1), 0),
           F32(&c, "pi", S(1), 0));
    REFUSE("profusion_gmm_eps", "{\"std\": 1}", "pi sums to 0.5, expected 1 within 0.001",
           F32(&c, "x", S(1, 1), 0), F32(&c, "a_t", BL_SCALAR, 1), F32(&c, "means", S(1, 1), 0),
           F32(&c, "pi", S(1), 0.5));
    REFUSE("profusion_sample_gmm", "{\"std\": 1}", "pi_uncond sums to 2, expected 1",
           MIXTURE(2), F32(&c, "alphas", S(2), 0.5, 1));
    REFUSE("profusion_sample_gmm", "{\"std\": 1}",
           "alphas[1] is 0.25, expected at least the one before it, 0.5", MIXTURE(1),
           F32(&c, "alphas", S(2), 0.5, 0.25));
    REFUSE("profusion_sample_gmm", "{\"std\": 1, \"fusion_steps\": 2}",
           "option fusion_steps is 2, expected at most 1, those noise is for", MIXTURE(1),
           F32(&c, "alphas", S(2), 0.5, 1));
}

/* --- GigaTok ---------------------------------------------------------------------------------- */

static call quantizer(const char *options)
{
    call c = start("gigatok_vq", options);
    F32(&c, "z", S(1, 2, 2), 3, 0, 0, 0.5);
    F32(&c, "codebook", S(4, 2), 0, -1, 0, 2, 0, 2, 5, 0);
    return c;
}

/* The second vector is as near to code 1 as to code 2, and the first is a multiple of code 3. */
static void equal_codes_go_to_the_first(void **state)
{
    (void)state;
    call c = quantizer("{\"estimator\": \"ste\"}");
    sum_gradient(&c, "vq_loss", BL_SCALAR);
    accept(&c, NULL);
    expect(&c, "index", 3, 1);
    expect(&c, "z_q", 1, 0, 0, 1);
    expect(&c, "vq_loss", 0);
    expect(&c, "usage", 0.5);
    expect(&c, "entropy_loss", 0);
    c.options = "{\"estimator\": \"ste\", \"l2_norm\": false, \"beta\": 2}";
    accept(&c, NULL);
    expect(&c, "index", 3, 0); /* now code 0 is as near */
    expect(&c, "z_q", 5, 0, 0, -1);
    expect(&c, "vq_loss", (4 + 2.25) / 4);
    expect(&c, "commit_loss", 2 * (4 + 2.25) / 4);
    near(slope(&c, "codebook", 6), 2 * 2.0 / 4);
    near(slope(&c, "codebook", 1), -2 * 1.5 / 4);
    near(slope(&c, "z", 0), 0); /* the codes move to the vectors, not these to them */
    finish(&c);
}

static void straight_through_or_turned(void **state)
{
    (void)state;
    call c = start("gigatok_vq", "{\"estimator\": \"ste\", \"l2_norm\": false}");
    F32(&c, "z", S(1, 1, 2), 2, 0);
    F32(&c, "codebook", S(1, 2), 0, 3);
    give_to(&c.cotangent, "z_q", (bl_type){BL_F32, S(1, 1, 2)}, VALUES(5, 7));
    accept(&c, NULL);
    near(slope(&c, "z", 0), 5);
    near(slope(&c, "z", 1), 7);
    near(slope(&c, "codebook", 1), 0);
    c.options = "{\"l2_norm\": false}"; /* a quarter turn, times 3; e does not grow with z */
    accept(&c, NULL);
    assert_true(fabs(result(&c, "z_q", 0)) < 1e-4 && fabs(result(&c, "z_q", 1) - 3) < 1e-4);
    assert_true(fabs(slope(&c, "z", 0)) < 1e-4);
    assert_true(fabs(slope(&c, "z", 1) + 3 * 5 / 2.0) < 1e-4);
    finish(&c);
}

static void where_nothing_can_be_turned_it_goes_straight(void **state)
{
    (void)state;
    const double z[][2] = {{1, 2}, {0, 0}, {0.3, -0.1}}, code[][2] = {{-2, -4}, {3, 1}, {0, 0}};
    for (int i = 0; i < 3; i++) {
        call c = start("gigatok_vq", "{\"l2_norm\": false}");
        give(&c, "z", BL_F32, S(1, 1, 2), z[i]);
        give(&c, "codebook", BL_F32, S(1, 2), code[i]);
        give_to(&c.cotangent, "z_q", (bl_type){BL_F32, S(1, 1, 2)}, VALUES(5, 7));
        accept(&c, NULL);
        expect(&c, "z_q", code[i][0], code[i][1]);
        near(slope(&c, "z", 0), 5);
        near(slope(&c, "z", 1), 7);
        c.options = "{}"; /* of norm 1, or of norm 0 */
        accept(&c, NULL);
        all_finite(&c.out);
        finish(&c);
    }
}

/* More vectors than a block holds, the last block not full; codes 0 .. 9 on a line. */
static void blocks_join(void **state)
{
    (void)state;
    enum { M = 600 };
    double z[M], code[10];
    for (int i = 0; i < M; i++)
        z[i] = (i * 7 % 1000) / 100.0 - 0.505;
    for (int k = 0; k < 10; k++)
        code[k] = k;
    call c = start("gigatok_vq", "{\"estimator\": \"ste\", \"l2_norm\": false}");
    give(&c, "z", BL_F32, S(M, 1, 1), z);
    give(&c, "codebook", BL_F32, S(10, 1), code);
    accept(&c, NULL);
    for (int i = 0; i < M; i++)
        near(result(&c, "index", i), fmin(9, fmax(0, round((double)(float)z[i]))));
    expect(&c, "usage", 1);
    finish(&c);
}

/* A single code is chosen surely, and used on average as well: no entropy. */
static void entropies_of_clear_and_unclear_choices(void **state)
{
    (void)state;
    call c = start("gigatok_entropy_loss", "{\"eps\": 0}");
    F32(&c, "affinity", S(2, 2), 4, -4, -4,
        4); /* logits +-400: each is sure, and both are in use */
    accept(&c, "loss");
    expect(&c, "sample_entropy", 0);
    expect(&c, "average_entropy", log(2));
    expect(&c, "loss", -log(2));
    all_finite(&c.gradient);
    F32(&c, "affinity", S(1, 3), 1, 1, 1);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    near(result(&c, "sample_entropy", 0), log(3));
    finish(&c);
    c = quantizer("{\"entropy_weight\": 2, \"temperature\": 1, \"l2_norm\": false}");
    accept(&c, "entropy_loss");
    call e = start("gigatok_entropy_loss", "{\"temperature\": 1}");
    F32(&e, "affinity", S(2, 4), -10, -13, -13, -4, -2.25, -2.25, -2.25, -25.25);
    accept(&e, NULL);
    near(result(&c, "entropy_loss", 0), 2 * result(&e, "loss", 0));
    finish(&c);
    finish(&e);
}

static void a_feature_of_zeros_has_no_direction(void **state)
{
    (void)state;
    call c = start("gigatok_semantic_loss", "{\"weight\": 3}");
    F32(&c, "h", S(1, 2, 2), 3, 4, 1, 1);
    F32(&c, "f", S(1, 2, 2), 6, 8, 0, 0);
    accept(&c, "loss");
    expect(&c, "cosine", 1, 0);
    expect(&c, "loss", -0.5);
    expect(&c, "weighted", -1.5);
    near(slope(&c, "h", 0), 0);
    near(slope(&c, "h", 2), 0);
    finish(&c);
}

static void hinges_are_flat_at_the_kink(void **state)
{
    (void)state;
    call c = start("gigatok_hinge_d", "{\"disc_weight\": 2}");
    F32(&c, "logits_real", S(2), 1, -80);
    F32(&c, "logits_fake", S(3, 1), -1, 80, -2);
    accept(&c, "loss");
    expect(&c, "loss", 81 / 2.0 + 81 / 3.0);
    near(slope(&c, "logits_real", 0), 0);
    near(slope(&c, "logits_real", 1), -0.5);
    near(slope(&c, "logits_fake", 0), 0);
    near(slope(&c, "logits_fake", 1), 1.0 / 3);
    finish(&c);
}

#define ONE(name, value) F32(&c, name, BL_SCALAR, value)

static void a_tokenizer_pays_for_everything(void **state)
{
    (void)state;
    call c = start("gigatok_generator_loss", "{\"disc_weight\": 0, \"semantic_weight\": 2}");
    F32(&c, "x", S(1, 2), 1, 2);
    F32(&c, "x_rec", S(1, 2), 1, 4);
    F32(&c, "logits_fake", S(3), 9, 9, 9);
    ONE("perceptual", 10), ONE("vq_loss", 20), ONE("commit_loss", 30), ONE("entropy_loss", 40);
    ONE("semantic", -1);
    accept(&c, "loss");
    expect(&c, "reconstruction", 2);
    expect(&c, "loss", 2 + 10 + 20 + 30 + 40 - 2);
    near(slope(&c, "semantic", 0), 2);
    near(slope(&c, "vq_loss", 0), 1);
    near(slope(&c, "logits_fake", 0), 0);
    finish(&c);
}

static void gigatok_refuses(void **state)
{
    (void)state;
    REFUSE("gigatok_semantic_loss", NULL, "f must be f32[1,1,2], not f32[1,2,2]",
           F32(&c, "h", S(1, 1, 2), 1, 1), F32(&c, "f", S(1, 2, 2), 1, 1, 1, 1));
    REFUSE("gigatok_semantic_loss", NULL,
           "h has 1 places of 0 features, expected at least one of each",
           F32(&c, "h", S(1, 1, 0), 0), F32(&c, "f", S(1, 1, 0), 0));
    REFUSE("gigatok_entropy_loss", "{\"temperature\": 0}",
           "option temperature is 0, expected (0,inf)");
    REFUSE("gigatok_vq", NULL, "codebook must be f32[K,2], not f32[1,3]",
           F32(&c, "z", S(1, 1, 2), 1, 1), F32(&c, "codebook", S(1, 3), 1, 1, 1));
    REFUSE("gigatok_vq", NULL, "codebook has no rows, expected at least one",
           F32(&c, "z", S(1, 1, 2), 1, 1), F32(&c, "codebook", S(0, 2), 0));
    REFUSE("gigatok_vq", "{\"estimator\": \"gumbel\"}",
           "option estimator is \"gumbel\", expected one of rotation|ste");
    REFUSE("gigatok_vq", "{\"beta\": -1}", "option beta is -1, expected [0,inf)");
    REFUSE("gigatok_hinge_d", NULL, "logits_real has no rows, expected at least one",
           F32(&c, "logits_real", S(0), 0), F32(&c, "logits_fake", S(1), 0));
}

/* --- latent quantization ---------------------------------------------------------------------- */

/* Latent 0 has the values -1 and 1, latent 1 two equal ones; 0 lies in the middle of -1 and 1. */
static void halfway_goes_to_the_lower_value(void **state)
{
    (void)state;
    call c = start("qlae_quantize", NULL);
    F32(&c, "z", S(2, 2), 0, 3, 0.5, -9);
    F32(&c, "codebook", S(2, 2), -1, 1, 2, 2);
    sum_gradient(&c, "z_quantized", S(2, 2));
    accept(&c, NULL);
    expect(&c, "index", 0, 0, 1, 0);
    expect(&c, "z_hat", -1, 2, 1, 2);
    expect(&c, "z_quantized", -1, 2, 1, 2);
    expect(&c, "quantization", 1, (0.25 + 121) / 2);
    expect(&c, "commitment", 1, (0.25 + 121) / 2);
    near(slope(&c, "codebook", 1), 1);
    near(slope(&c, "codebook", 2), 2);
    near(slope(&c, "z", 0), 0);
    bl_dictionary_free(&c.cotangent);
    sum_gradient(&c, "z_hat", S(2, 2));
    accept(&c, NULL);
    near(slope(&c, "codebook", 2), 0);
    near(slope(&c, "z", 3), 1);
    finish(&c);
}

static void codebook_and_codes_move_to_each_other(void **state)
{
    (void)state;
    call c = start("qlae_loss", "{\"quantization_weight\": 3, \"commitment_weight\": 5}");
    F32(&c, "logits", S(1, 2), 80, -80);
    F32(&c, "x", S(1, 2), 1, 0.5);
    F32(&c, "z", S(1, 1), 2);
    F32(&c, "codebook", S(1, 1), 1);
    accept(&c, "loss");
    expect(&c, "bce", 20);
    expect(&c, "loss", 20 + 3 + 5);
    near(slope(&c, "codebook", 0), -6);
    near(slope(&c, "z", 0), 10);
    near(slope(&c, "logits", 0), 0);
    near(slope(&c, "logits", 1), -0.25);
    finish(&c);
}

static void entries_are_clipped_one_by_one(void **state)
{
    (void)state;
    call c = start("qlae_adamw_step",
                   "{\"lr\": 0.5, \"weight_decay\": 0.25, \"clip\": 2, \"beta1\": 0.5}");
    F32(&c, "w", S(2), 8, 0);
    F32(&c, "g", S(2), 10, -1);
    F32(&c, "m", S(2), 0, 0);
    F32(&c, "v", S(2), 0, 0);
    F32(&c, "step", BL_SCALAR, 1);
    accept(&c, NULL);
    expect(&c, "m_out", 1, -0.5);
    expect(&c, "v_out", 0.004, 0.001);
    expect(&c, "w_out", 8 - 0.5 * (1 + 2), 0.5); /* the first direction of Adam is the sign */
    c.options = "{\"clip\": 0, \"beta1\": 0.5}";
    accept(&c, NULL);
    expect(&c, "m_out", 5, -0.5);
    finish(&c);
}

static void information_of_frequencies(void **state)
{
    (void)state;
    call c = start("qlae_mi_discrete", NULL);
    I32(&c, "a", S(4), -7, 3, -7, 3);
    I32(&c, "b", S(4), 1, 1, 2, 2);
    accept(&c, NULL);
    expect(&c, "mi", 0);
    I32(&c, "b", S(4), 9, 4, 9, 5); /* tells a; more than a does of it */
    accept(&c, NULL);
    expect(&c, "mi", log(2));
    I32(&c, "a", S(1), 1);
    I32(&c, "b", S(1), 1);
    accept(&c, NULL);
    expect(&c, "mi", 0);
    finish(&c);
    c = start("qlae_nmi", NULL);
    I32(&c, "sources", S(4, 1), 0, 1, 0, 1);
    I32(&c, "latents", S(4, 3), 5, 0, 8, 6, 0, 8, 5, 1, 8, 7, 1, 8);
    accept(&c, NULL);
    expect(&c, "nmi", 1, 0, 0);
    finish(&c);
}

/* psi(n) + 0.577.. = 1 + 1/2 + .. + 1/(n-1). Class 5 has one sample only. */
static void information_of_neighbours(void **state)
{
    (void)state;
    call c = start("qlae_mi_knn", "{\"k\": 10}");
    F32(&c, "x", S(5), 0, 100, 1, 101, 50);
    I32(&c, "y", S(5), 1, 2, 1, 2, 5);
    accept(&c, NULL);
    /* kept 4; k = 1, n = 2, m = 1 (no sample nearer than 1, but itself) for each */
    expect(&c, "mi", (1 + 1 / 2.0 + 1 / 3.0) + 0 - 1 - 0);
    F32(&c, "x", S(5), 3, 3, 3, 3, 3); /* all equal: m = 4, and the estimate would be negative */
    accept(&c, NULL);
    expect(&c, "mi", 0);
    F32(&c, "x", S(5), 3, 3, 3, NAN, 3);
    accept(&c, NULL);
    assert_true(isnan(result(&c, "mi", 0)));
    finish(&c);
}

static void latents_in_use(void **state)
{
    (void)state;
    call c = start("qlae_active", NULL);
    F32(&c, "latents", S(2, 4), 0, 7, 0, 0, 40, 7, 2, 3);
    accept(&c, NULL);
    expect(&c, "active", 1, 0, 0, 1); /* 2 is not more than 40 / 20 */
    c.options = "{\"discrete\": true}";
    accept(&c, NULL);
    expect(&c, "active", 1, 0, 1, 1);
    c.options = "{\"divisor\": 10}";
    accept(&c, NULL);
    expect(&c, "active", 1, 0, 0, 0);
    F32(&c, "latents", S(1, 2), 0, 7);
    accept(&c, NULL);
    expect(&c, "active", 0, 0);
    finish(&c);
}

static void a_perfect_and_a_useless_code(void **state)
{
    (void)state;
    call c = start("qlae_infomec", NULL);
    F32(&c, "nmi", S(2, 3), 1, 9, 0, 0, 9, 0.5);
    I32(&c, "active", S(3), 1, 0, 1);
    accept(&c, NULL);
    expect(&c, "infom", 1);
    expect(&c, "infoc", 1);
    F32(&c, "nmi", S(2, 3), 1, 9, 1, 1, 9, 1);
    accept(&c, NULL);
    expect(&c, "infom", 0);
    expect(&c, "infoc", 0);
    finish(&c);
    c = start("qlae_infoe", NULL);
    F32(&c, "h_conditional", S(2), 0, 1);
    F32(&c, "h_null", S(2), 2, 4);
    accept(&c, NULL);
    expect(&c, "infoe", (1 + 0.75) / 2);
    finish(&c);
}

static void what_a_regression_leaves_unknown(void **state)
{
    (void)state;
    call c = start("qlae_predictive_entropy", "{\"classes\": 2}");
    F32(&c, "features", S(5, 1), 0, 0, 0, 0, 0);
    I32(&c, "labels", S(5), 1, 1, 1, 1, 0);
    accept(&c, NULL);
    expect(&c, "log_loss", log(2)); /* balanced, however rare class 0 is */
    /* One-hot: of class 0, weight 5/2, one sample has feature 1; of class 1, weight 5/8 each, one
     * of four has. So p(0 | 1) = 0.8 and p(0 | 0) = 0. */
    F32(&c, "features", S(5, 2), 1, 0, 0, 1, 0, 1, 0, 1, 1, 0);
    accept(&c, NULL);
    assert_true(fabs(result(&c, "log_loss", 0) - (-log(0.8) - log(0.2)) / 5) < 1e-4);
    F32(&c, "features", S(5, 0), 0);
    accept(&c, NULL);
    expect(&c, "log_loss", log(2));
    F32(&c, "features", S(5, 1), 1, 2, 3, 4, -1); /* separable */
    accept(&c, NULL);
    assert_true(result(&c, "log_loss", 0) < 1e-3);
    finish(&c);
}

/* The size of an evaluation in the paper: each function in well under a minute, even unoptimised.
 */
static void ten_thousand_samples(void **state)
{
    (void)state;
    enum { N = 10000 };
    bl_random r = bl_random_new(bl_key_from_seed(4));
    bl_array x, y;
    expect_ok(bl_array_new(BL_F32, S(N), &x));
    expect_ok(bl_array_new(BL_I32, S(N), &y));
    for (int i = 0; i < N; i++) {
        bl_i32(&y)[i] = (int32_t)bl_random_below(&r, 4);
        bl_f32(&x)[i] = (float)(10 * bl_i32(&y)[i] + bl_random_gauss(&r));
    }
    call c = start("qlae_mi_knn", NULL);
    expect_ok(bl_dictionary_set(&c.in, "x", x));
    expect_ok(bl_dictionary_set(&c.in, "y", y));
    accept(&c, NULL);
    assert_true(fabs(result(&c, "mi", 0) - log(4)) < 0.01); /* x tells y */
    finish(&c);
}

static void qlae_refuses(void **state)
{
    (void)state;
    REFUSE("qlae_quantize", NULL, "codebook must be f32[2,V], not f32[1,3]",
           F32(&c, "z", S(1, 2), 0, 0), F32(&c, "codebook", S(1, 3), 0, 0, 0));
    REFUSE("qlae_quantize", NULL,
           "codebook is f32[1,0], expected at least one latent and one value",
           F32(&c, "z", S(1, 1), 0), F32(&c, "codebook", S(1, 0), 0));
    REFUSE("qlae_quantize", NULL, "z[0,1] is nan, expected no NaN", F32(&c, "z", S(1, 2), 0, NAN),
           F32(&c, "codebook", S(2, 1), 0, 0));
    REFUSE("qlae_loss", NULL, "x[0] is 1.5, expected [0,1]", F32(&c, "logits", S(1), 0),
           F32(&c, "x", S(1), 1.5), F32(&c, "z", S(1, 1), 0), F32(&c, "codebook", S(1, 1), 0));
    REFUSE("qlae_adamw_step", NULL, "step is 0, expected >= 1", F32(&c, "w", S(1), 0),
           F32(&c, "g", S(1), 0), F32(&c, "m", S(1), 0), F32(&c, "v", S(1), 0),
           F32(&c, "step", BL_SCALAR, 0));
    REFUSE("qlae_nmi", NULL, "source 1 is constant, expected at least two values",
           I32(&c, "sources", S(2, 2), 0, 3, 1, 3), I32(&c, "latents", S(2, 1), 0, 1));
    REFUSE("qlae_mi_knn", "{\"k\": 0}", "option k is 0, expected >= 1");
    REFUSE("qlae_mi_knn", NULL, "y has no value twice, expected a class of at least two samples",
           F32(&c, "x", S(2), 0, 1), I32(&c, "y", S(2), 0, 1));
    REFUSE("qlae_infomec", NULL,
           "nmi has 1 sources and 2 active latents, expected at least 2 of each",
           F32(&c, "nmi", S(1, 2), 1, 1), I32(&c, "active", S(2), 1, 1));
    REFUSE("qlae_infomec", NULL,
           "nmi has 2 sources and 1 active latents, expected at least 2 of each",
           F32(&c, "nmi", S(2, 2), 1, 1, 1, 1), I32(&c, "active", S(2), 1, 0));
    REFUSE("qlae_infomec", NULL, "active column 1 of nmi sums to 0, expected information",
           F32(&c, "nmi", S(2, 2), 1, 0, 1, 0), I32(&c, "active", S(2), 1, 1));
    REFUSE("qlae_infomec", NULL, "row 0 of nmi sums to 0, expected information",
           F32(&c, "nmi", S(2, 3), 0, 0, 9, 1, 1, 0), I32(&c, "active", S(3), 1, 1, 0));
    REFUSE("qlae_infomec", NULL, "active[0] is 2, expected in {0,1}",
           F32(&c, "nmi", S(2, 2), 1, 0, 1, 0), I32(&c, "active", S(2), 2, 1));
    REFUSE("qlae_predictive_entropy", "{\"classes\": 2}",
           "labels[0] is 2, expected 0 <= . < classes", F32(&c, "features", S(1, 1), 0),
           I32(&c, "labels", S(1), 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_read_and_shown),
        cmocka_unit_test(distances_average_over_models_or_tensors),
        cmocka_unit_test(weights_that_coincide_may_repel_softly),
        cmocka_unit_test(scores_of_unequal_batches),
        cmocka_unit_test(a_penalty_at_the_kink),
        cmocka_unit_test(squares_of_samples_not_of_their_mean),
        cmocka_unit_test(an_anchor_and_a_walk),
        cmocka_unit_test(unlearning_can_be_negative),
        cmocka_unit_test(adapt_unlearn_refuses),
        cmocka_unit_test(a_fusion_move_is_a_step_and_the_way_back),
        cmocka_unit_test(what_is_clean_stays_clean),
        cmocka_unit_test(a_full_step_from_pure_noise),
        cmocka_unit_test(guidance_adds_up),
        cmocka_unit_test(words_may_stand_at_the_end),
        cmocka_unit_test(noise_of_a_clean_level_is_not_weighed),
        cmocka_unit_test(a_single_gaussian),
        cmocka_unit_test(a_chain_of_one_step),
        cmocka_unit_test(profusion_refuses),
        cmocka_unit_test(equal_codes_go_to_the_first),
        cmocka_unit_test(straight_through_or_turned),
        cmocka_unit_test(where_nothing_can_be_turned_it_goes_straight),
        cmocka_unit_test(blocks_join),
        cmocka_unit_test(entropies_of_clear_and_unclear_choices),
        cmocka_unit_test(a_feature_of_zeros_has_no_direction),
        cmocka_unit_test(hinges_are_flat_at_the_kink),
        cmocka_unit_test(a_tokenizer_pays_for_everything),
        cmocka_unit_test(gigatok_refuses),
        cmocka_unit_test(halfway_goes_to_the_lower_value),
        cmocka_unit_test(codebook_and_codes_move_to_each_other),
        cmocka_unit_test(entries_are_clipped_one_by_one),
        cmocka_unit_test(information_of_frequencies),
        cmocka_unit_test(information_of_neighbours),
        cmocka_unit_test(latents_in_use),
        cmocka_unit_test(a_perfect_and_a_useless_code),
        cmocka_unit_test(what_a_regression_leaves_unknown),
        cmocka_unit_test(ten_thousand_samples),
        cmocka_unit_test(qlae_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
