/* The methods for features without labels, across domains and symmetries - T-JEPA, Hessian
 * alignment, self-supervised items, soft equivariance, MSBReg: what their specs refuse, and facts
 * about values and gradients at shapes and corners that the reference cases do not have. */
#include "calls.h"

/* --- MSBReg ----------------------------------------------------------------------------------- */

static void equal_singular_values_are_at_rest(void **state)
{
    (void)state;
    const char *form[] = {"variance", "target", "log", "whiten"};
    const double value[] = {0, 0, -log(1 + 1e-4), 0};
    for (int i = 0; i < COUNT_OF(form); i++) {
        char options[64];
        snprintf(options, sizeof options, "{\"form\": \"%s\"}", form[i]);
        call c = start("msbreg_singular_value_loss", options);
        F32(&c, "z", S(4, 2), 3, 0, 0, 5, -2, 0, 0, -7);
        accept(&c, "loss");
        near(result(&c, "loss", 0), value[i]);
        expect(&c, "singular_values", sqrt(2), sqrt(2));
        for (int64_t j = 0; j < 8; j++)
            near(slope(&c, "z", j), 0);
        finish(&c);
    }
}

static void singular_values_count_the_smaller_side(void **state)
{
    (void)state;
    call c = start("msbreg_singular_value_loss", "{\"form\": \"target\", \"normalize\": false}");
    F32(&c, "z", S(2, 3), 3, 0, 0, 0, 0, 1); /* two values, which should be 1 */
    accept(&c, "loss");
    expect(&c, "singular_values", 3, 1);
    expect(&c, "loss", 2);
    near(slope(&c, "z", 0), 2);
    near(slope(&c, "z", 5), 0);
    finish(&c);
}

static void a_collapsed_batch_has_finite_gradients(void **state)
{
    (void)state;
    const char *options[] = {"{\"form\": \"variance\"}", "{\"form\": \"target\"}",
                             "{\"form\": \"log\"}", "{\"form\": \"whiten\"}"};
    for (int i = 0; i < COUNT_OF(options); i++) {
        call c = start("msbreg_singular_value_loss", options[i]);
        F32(&c, "z", S(3, 2), 1, 1, 1, 1, 1, 1);
        accept(&c, "loss");
        near(result(&c, "singular_values", 0), sqrt(3));
        all_finite(&c.out);
        all_finite(&c.gradient);
        finish(&c);
    }
}

static void opposite_views_have_no_centroid(void **state)
{
    (void)state;
    call c = start("msbreg_centroid_loss", NULL);
    F32(&c, "z", S(2, 1, 2), 1, 0, -1, 0);
    F32(&c, "zt", S(1, 1, 2), 0, 3);
    accept(&c, "loss");
    expect(&c, "loss", 2);
    all_finite(&c.gradient);
    c.options = "{\"form\": \"view\"}";
    accept(&c, "loss");
    expect(&c, "loss", 2);
    near(slope(&c, "z", 1), -1);
    finish(&c);
    c = start("msbreg_centroid_loss", NULL); /* the other end of [0,4] */
    F32(&c, "z", S(1, 1, 2), 5, 0);
    F32(&c, "zt", S(2, 1, 2), -1, 0, -2, 0);
    accept(&c, "loss");
    expect(&c, "loss", 4);
    finish(&c);
}

static void views_of_an_image_are_pushed_alike(void **state)
{
    (void)state;
    call c = start("msbreg_brownian_loss", NULL);
    F32(&c, "z", S(2, 1, 2), 2, 0, 1, 0);
    F32(&c, "noise", S(1, 1, 2), 0, 9);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    near(slope(&c, "z", 1), 0.25); /* 1 / (V B |z|) across z */
    near(slope(&c, "z", 3), 0.5);
    finish(&c);
}

static void one_embedding_is_spread_over_nothing(void **state)
{
    (void)state;
    call c = start("msbreg_spread", NULL);
    F32(&c, "z", S(1, 2), 3, 4);
    accept(&c, "uniformity");
    near(result(&c, "effective_rank", 0), 1);
    expect(&c, "centroid_norm2", 1);
    expect(&c, "uniformity", 0);
    finish(&c);
    c = start("msbreg_spread", NULL);
    F32(&c, "z", S(2, 2), 0, 0, 0, 0);
    accept(&c, "effective_rank");
    expect(&c, "effective_rank", 1);
    expect(&c, "uniformity", 0);
    all_finite(&c.gradient);
    finish(&c);
}

static void the_copy_stops_at_the_end(void **state)
{
    (void)state;
    call c = start("msbreg_momentum", "{\"base\": 0.9, \"total_steps\": 2}");
    F32(&c, "step", S(3), 0, 1, 2);
    accept(&c, NULL);
    expect(&c, "m", 0.9, 0.95, 1);
    finish(&c);
    c = start("msbreg_ema", "{\"m\": 1}");
    F32(&c, "online", S(2), 5, 6);
    F32(&c, "target", S(2), 1, 2);
    accept(&c, NULL);
    expect(&c, "target_out", 1, 2);
    c.options = "{\"m\": 0}";
    accept(&c, NULL);
    expect(&c, "target_out", 5, 6);
    finish(&c);
}

static void msbreg_refuses(void **state)
{
    (void)state;
    const double none[] = {0};
    REFUSE("msbreg_centroid_loss", NULL, "z is f32[2,0,3], expected every size to be at least 1",
           give(&c, "z", BL_F32, S(2, 0, 3), none), give(&c, "zt", BL_F32, S(1, 0, 3), none));
    REFUSE("msbreg_centroid_loss", NULL, "zt must be f32[U,1,2], not f32[1,1,3]",
           F32(&c, "z", S(1, 1, 2), 1, 2), F32(&c, "zt", S(1, 1, 3), 1, 2, 3));
    REFUSE("msbreg_centroid_loss", "{\"form\": \"views\"}", "expected one of centroid|view");
    REFUSE("msbreg_brownian_loss", NULL, "noise must be f32[1,1,1] or f32[3,1,1], not f32[2,1,1]",
           F32(&c, "z", S(3, 1, 1), 1, 2, 3), F32(&c, "noise", S(2, 1, 1), 1, 1));
    REFUSE("msbreg_singular_value_loss", "{\"eps\": 0}", "option eps is 0, expected (0,inf)");
    REFUSE("msbreg_singular_value_loss", NULL, "z must be f32[N,D], not f32[2]",
           F32(&c, "z", S(2), 1, 2));
    REFUSE("msbreg_total", "{\"lam_s\": -1}", "option lam_s is -1, expected [0,inf)");
    REFUSE("msbreg_total", "{\"lam_b\": -0.5}", "option lam_b is -0.5, expected [0,inf)");
    REFUSE("msbreg_ema", "{\"m\": 1.5}", "option m is 1.5, expected [0,1]");
    REFUSE("msbreg_momentum", "{\"base\": -0.1, \"total_steps\": 3}", "expected [0,1]");
    REFUSE("msbreg_momentum", NULL, "option total_steps is required");
}

/* --- self-supervised items -------------------------------------------------------------------- */

static void a_copied_feature_tells_everything(void **state)
{
    (void)state;
    call c = start("item_ssl_mutual_information", NULL);
    I32(&c, "codes", S(4, 3), 0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1);
    I32(&c, "cards", S(3), 2, 2000000000, 2); /* as many values as there may be */
    accept(&c, NULL);
    double bit = log(2);
    expect(&c, "mi", bit, bit, 0, bit, bit, 0, 0, 0, bit);
    finish(&c);
}

static void the_lower_of_equal_features_is_hidden(void **state)
{
    (void)state;
    call c = start("item_ssl_cfm_mask", "{\"n\": 2}");
    F32(&c, "mi", S(4, 4), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 5, 7, 1);
    I32(&c, "seed", BL_SCALAR, 3);
    accept(&c, NULL);
    expect(&c, "mask_h", 1, 0, 1, 1);
    expect(&c, "mask_g", 0, 1, 0, 0);
    finish(&c);
    c = start("item_ssl_cfm_mask", "{\"n\": 0}"); /* the seed alone, all being equal */
    F32(&c, "mi", S(2, 2), 0, 0, 0, 0);
    I32(&c, "seed", BL_SCALAR, 1);
    accept(&c, NULL);
    expect(&c, "mask_h", 0, 1);
    finish(&c);
    c = start("item_ssl_cfm_mask", NULL); /* half of one is none */
    F32(&c, "mi", S(1, 1), 3);
    I32(&c, "seed", BL_SCALAR, 0);
    accept(&c, NULL);
    expect(&c, "mask_h", 1);
    finish(&c);
}

static void a_dropped_feature_is_zero_and_a_hidden_one_its_default(void **state)
{
    (void)state;
    call c = start("item_ssl_augment", NULL);
    F32(&c, "emb", S(1, 2, 2, 1), 8, 2, 6, 4);
    I32(&c, "valid", S(1, 2, 2), 1, 1, 1, 1);
    I32(&c, "keep", S(1, 2, 2), 0, 0, 1, 1);
    I32(&c, "mask", S(2), 0, 1);
    F32(&c, "default", S(2, 1), -1, -2);
    give_to(&c.cotangent, "features", (bl_type){BL_F32, S(1, 2)}, VALUES(3, 5));
    accept(&c, NULL);
    expect(&c, "features", 0, -2);
    near(slope(&c, "default", 0), 0);
    near(slope(&c, "default", 1), 5);
    for (int64_t i = 0; i < 4; i++)
        near(slope(&c, "emb", i), 0);
    finish(&c);
}

static void a_batch_of_one_finds_itself(void **state)
{
    (void)state;
    call c = start("item_ssl_contrastive", NULL);
    F32(&c, "z", S(1, 3), 1, 2, 3);
    F32(&c, "zp", S(1, 3), -3, 0, 1);
    accept(&c, "loss");
    assert_true(result(&c, "loss", 0) == 0);
    near(slope(&c, "z", 0), 0);
    finish(&c);
}

static void similarities_may_be_large(void **state)
{
    (void)state;
    call c = start("item_ssl_contrastive", "{\"similarity\": \"dot\", \"tau\": 0.5}");
    F32(&c, "z", S(2, 2), 40, 0, 0, 40);
    F32(&c, "zp", S(2, 2), 0, 40, 40, 0); /* each finds the other's */
    accept(&c, "loss");
    expect(&c, "loss", 3200);
    all_finite(&c.gradient);
    finish(&c);
}

static void the_same_item_twice_is_no_mistake(void **state)
{
    (void)state;
    call c = start("item_ssl_batch_softmax", "{\"mask_duplicates\": true, \"tau\": 1}");
    F32(&c, "q", S(2, 2), 1, 0, 0, 1);
    F32(&c, "x", S(2, 2), 1, 1, 2, 2);
    F32(&c, "log_p", S(2), -1, -3);
    I32(&c, "item", S(2), 5, 5);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    all_finite(&c.gradient);
    c.options =
        "{\"logq\": true, \"tau\": 1}"; /* which adds 1 to the first column, 3 to the second */
    accept(&c, "loss");
    near(result(&c, "loss", 0), (log(1 + exp(2)) + log(1 + exp(-2))) / 2);
    finish(&c);
}

static void the_earlier_of_equal_scores_ranks_higher(void **state)
{
    (void)state;
    call c = start("item_ssl_ranking", "{\"k\": 2}");
    F32(&c, "scores", S(2, 3), 1, 1, 1, 1, 1, 1);
    I32(&c, "target", S(2), 1, 2);
    accept(&c, NULL);
    expect(&c, "recall", 0.5);
    expect(&c, "map", 0.25);
    finish(&c);
}

static void item_ssl_refuses(void **state)
{
    (void)state;
    REFUSE("item_ssl_mutual_information", NULL, "codes[1,1] is 2, expected 0 <= . < cards[1] (2)",
           I32(&c, "codes", S(2, 2), 0, 1, 0, 2), I32(&c, "cards", S(2), 3, 2));
    REFUSE("item_ssl_mutual_information", NULL, "codes[0,0] is -1, expected >= 0",
           I32(&c, "codes", S(1, 1), -1), I32(&c, "cards", S(1), 3));
    REFUSE("item_ssl_cfm_mask", NULL, "seed is 2, expected 0 <= . < k (k is 2)",
           F32(&c, "mi", S(2, 2), 0, 0, 0, 0), I32(&c, "seed", BL_SCALAR, 2));
    REFUSE("item_ssl_cfm_mask", "{\"n\": 2}", "option n is 2, expected at most 1",
           F32(&c, "mi", S(2, 2), 0, 0, 0, 0), I32(&c, "seed", BL_SCALAR, 0));
    REFUSE("item_ssl_cfm_mask", "{\"n\": -2}", "option n is -2, expected >= -1");
    REFUSE("item_ssl_rfm_mask", NULL, "perm is not a permutation of 0..2: it lacks 1",
           I32(&c, "perm", S(3), 0, 2, 2));
    REFUSE("item_ssl_augment", NULL, "mask[0] is 2, expected in {0,1}",
           F32(&c, "emb", S(1, 1, 1, 1), 1), I32(&c, "valid", S(1, 1, 1), 1),
           I32(&c, "keep", S(1, 1, 1), 1), I32(&c, "mask", S(1), 2),
           F32(&c, "default", S(1, 1), 0));
    REFUSE("item_ssl_augment", NULL, "default must be f32[1,1], not f32[2,1]",
           F32(&c, "emb", S(1, 1, 1, 1), 1), I32(&c, "valid", S(1, 1, 1), 1),
           I32(&c, "keep", S(1, 1, 1), 1), I32(&c, "mask", S(1), 1),
           F32(&c, "default", S(2, 1), 0, 0));
    REFUSE("item_ssl_contrastive", "{\"tau\": 0}", "option tau is 0, expected (0,inf)");
    REFUSE("item_ssl_batch_softmax", "{\"tau\": -1}", "option tau is -1, expected (0,inf)");
    REFUSE("item_ssl_batch_softmax", "{\"similarity\": \"l2\"}", "expected one of cosine|dot");
    REFUSE("item_ssl_spreadout", NULL, "x has no rows, expected at least one",
           give(&c, "x", BL_F32, S(0, 2), VALUES(0)));
    REFUSE("item_ssl_total", "{\"alpha\": -1}", "option alpha is -1, expected [0,inf)");
    REFUSE("item_ssl_ranking", "{\"k\": 0}", "option k is 0, expected >= 1");
}

/* --- Hessian alignment ------------------------------------------------------------------------ */

#define HEAD(c, C, F, ...) (F32(c, "w", S(C, F), __VA_ARGS__), zero_bias(c, C))

static void zero_bias(call *c, int64_t classes)
{
    give(c, "b", BL_F32, S(classes), VALUES(0, 0, 0, 0));
}

static void one_domain_is_aligned(void **state)
{
    (void)state;
    const char *function[] = {"hessian_alignment_hgp", "hessian_alignment_hutchinson",
                              "hessian_alignment_hgp"};
    const char *options[] = {
        "{\"n_domains\": 1}", "{\"n_domains\": 1, \"estimator\": \"exact\"}",
        "{\"n_domains\": 1, \"center\": \"mean_of_products\", \"detach_center\": false}"};
    for (int i = 0; i < COUNT_OF(function); i++) {
        call c = start(function[i], options[i]);
        F32(&c, "phi", S(3, 2), 1, 2, -1, 0.5, 3, 1);
        I32(&c, "y", S(3), 0, 1, 1);
        I32(&c, "domain", S(3), 0, 0, 0);
        HEAD(&c, 2, 2, 1, -1, 0.5, 2);
        accept(&c, "penalty");
        near(result(&c, "penalty", 0), 0);
        near(slope(&c, "phi", 0), 0);
        near(slope(&c, "w", 3), 0);
        finish(&c);
    }
}

static void large_domains_weigh_no_more(void **state)
{
    (void)state;
    call c = start("hessian_alignment_hgp", NULL);
    F32(&c, "phi", S(4, 1), 0, 0, 0, 0);
    I32(&c, "y", S(4), 0, 0, 0, 1);
    I32(&c, "domain", S(4), 0, 0, 0, 1);
    F32(&c, "w", S(2, 1), 1, -1);
    F32(&c, "b", S(2), log(3), 0); /* p = 3/4, 1/4 */
    accept(&c, "penalty");
    near(result(&c, "risk", 0), (log(4.0 / 3) + log(4)) / 2);
    finish(&c);
}

static void confident_heads_have_finite_gradients(void **state)
{
    (void)state;
    const char *options[] = {"{\"loss\": \"sigmoid\"}", "{\"loss\": \"softmax\"}"};
    for (int i = 0; i < COUNT_OF(options); i++) {
        call c = start("hessian_alignment_hgp", options[i]);
        F32(&c, "phi", S(4, 1), 80, -80, 80, -80);
        I32(&c, "y", S(4), 0, 0, 0, 0);
        I32(&c, "domain", S(4), 0, 1, 1, 0);
        HEAD(&c, 1, 1, 1);
        accept(&c, "penalty");
        all_finite(&c.out);
        all_finite(&c.gradient);
        finish(&c);
    }
}

/* p = 1/2 everywhere: the Hessian of [phi, 1] is (1/4) [phi^2, phi; phi, 1]. */
static void the_hessian_of_an_undecided_head(void **state)
{
    (void)state;
    call c = start("hessian_alignment_head_hessian", "{\"loss\": \"sigmoid\"}");
    F32(&c, "phi", S(1, 2), 2, 3);
    I32(&c, "y", S(1), 1);
    HEAD(&c, 1, 2, 0, 0);
    accept(&c, NULL);
    expect(&c, "hessian", 1, 1.5, 0.5, 1.5, 2.25, 0.75, 0.5, 0.75, 0.25);
    expect(&c, "grad", -1, -1.5, -0.5);
    finish(&c);
    c = start("hessian_alignment_head_hessian", NULL); /* w0, w1, b0, b1 */
    F32(&c, "phi", S(1, 1), 2);
    I32(&c, "y", S(1), 1);
    HEAD(&c, 2, 1, 0, 0);
    accept(&c, NULL);
    expect(&c, "hessian", 1, -1, 0.5, -0.5, -1, 1, -0.5, 0.5, 0.5, -0.5, 0.25, -0.25, -0.5, 0.5,
           -0.25, 0.25);
    expect(&c, "grad", 1, -1, 0.5, -0.5);
    finish(&c);
}

/* With every draw of signs the estimate is exact: off the diagonal signs cancel. */
static void all_draws_together_are_exact(void **state)
{
    (void)state;
    const char *options[] = {"{\"loss\": \"sigmoid\", \"detach_center\": false}",
                             "{\"loss\": \"sigmoid\", \"detach_center\": false, "
                             "\"estimator\": \"exact\"}"};
    double penalty[2], change[2];
    for (int i = 0; i < 2; i++) {
        call c = start("hessian_alignment_hutchinson", options[i]);
        F32(&c, "phi", S(3, 1), 1, -2, 0.5);
        I32(&c, "y", S(3), 0, 1, 1);
        I32(&c, "domain", S(3), 1, 0, 1);
        HEAD(&c, 1, 1, 0.75);
        if (i == 0) {
            F32(&c, "z_mean", S(2, 2), 1, 1, 1, -1);
            F32(&c, "z_env", S(2, 2, 2), 1, 1, 1, -1, -1, 1, 1, 1);
        }
        accept(&c, "penalty");
        penalty[i] = result(&c, "penalty", 0);
        change[i] = slope(&c, "phi", 1);
        finish(&c);
    }
    near(penalty[0], penalty[1]);
    near(change[0], change[1]);
    assert_true(penalty[0] > 0);
}

/* The penalty by differentiating twice, and its gradient by differentiating a third time. */
static void products_are_second_derivatives(void **state)
{
    const double *phi = VALUES(2, -1, 1, 0.5, 3, 1), *theta = VALUES(0.5, -1, 0.25);
    bl_tensor x = bl_input(*state, "phi", BL_F32, S(2, 3)), v[2];
    bl_tensor w = bl_input(*state, "theta", BL_F32, S(3)), input[] = {x, w};
    for (int e = 0; e < 2; e++) { /* a row in each domain, of class 1 and 0 */
        bl_tensor logit = bl_sum(bl_mul(bl_slice_axis(x, 0, e, e + 1), w));
        bl_tensor g = gradient(bl_softplus(bl_mul(e ? 1 : -1, logit)), w);
        v[e] = gradient(bl_mul(0.5, bl_sum(bl_square(g))), w);
    }
    bl_tensor half = bl_mul(0.5, bl_sub(v[0], v[1]));
    bl_tensor third = gradient(bl_sum(bl_square(half)), w);
    bl_array want = evaluate(third, input, (const double *const[]){phi, theta}, 2);

    call c =
        start("hessian_alignment_hgp", "{\"loss\": \"sigmoid\", \"center\": \"mean_of_products\", "
                                       "\"detach_center\": false}");
    F32(&c, "phi", S(2, 2), phi[0], phi[1], phi[3], phi[4]);
    I32(&c, "y", S(2), 1, 0);
    I32(&c, "domain", S(2), 0, 1);
    F32(&c, "w", S(1, 2), theta[0], theta[1]);
    F32(&c, "b", S(1), theta[2]);
    accept(&c, "hess_term");
    near(slope(&c, "w", 0), bl_array_get(&want, 0));
    near(slope(&c, "w", 1), bl_array_get(&want, 1));
    near(slope(&c, "b", 0), bl_array_get(&want, 2));
    assert_true(fabs(bl_array_get(&want, 0)) > 1e-3);
    bl_array_free(&want);
    finish(&c);
}

static void opposite_eigenvalues_are_as_far(void **state)
{
    (void)state;
    call c = start("hessian_alignment_hessian_distance", NULL);
    F32(&c, "h0", S(2, 2), 1, 0, 0, -3);
    F32(&c, "h1", S(2, 2), 0, 0, 0, 0);
    accept(&c, "spectral");
    expect(&c, "spectral", 3);
    near(result(&c, "frobenius", 0), sqrt(10));
    near(slope(&c, "h0", 0), 0);
    near(slope(&c, "h0", 3), -1);
    near(slope(&c, "h1", 3), 1);
    F32(&c, "h0", S(2, 2), 0, 0, 0, 0);
    accept(&c, "frobenius"); /* equal ones are 0 apart, with gradient 0 */
    expect(&c, "spectral", 0);
    near(slope(&c, "h0", 0), 0);
    finish(&c);
}

static void halves_are_every_other_row(void **state)
{
    (void)state;
    call c = start("hessian_alignment_irm", "{\"loss\": \"sigmoid\", \"split\": true}");
    F32(&c, "logits", S(5, 1), 0, 0, 1, -1, 0);
    I32(&c, "y", S(5), 1, 0, 0, 0, 1);
    I32(&c, "domain", S(5), 1, 0, 1, 0, 1); /* domain 1: rows 0, 4 and row 2 */
    accept(&c, "penalty");
    near(result(&c, "penalty", 0), 0); /* in each domain a half of logits 0 */
    near(slope(&c, "logits", 1), 0.5 * 0.5 * -1 / (1 + exp(1)));
    c.options = "{\"loss\": \"sigmoid\"}";
    accept(&c, "penalty");
    double p = 1 / (1 + exp(-1));
    near(result(&c, "penalty", 0), (pow((1 - p) / 2, 2) + pow(p / 3, 2)) / 2);
    finish(&c);
}

static void only_two_domains_differ(void **state)
{
    (void)state;
    call c = start("hessian_alignment_vrex", "{\"form\": \"difference\"}");
    F32(&c, "losses", S(3), 1, 3, 100);
    accept(&c, "penalty");
    expect(&c, "penalty", 4);
    near(slope(&c, "losses", 2), 0);
    finish(&c);
}

static void one_row_has_no_variance(void **state)
{
    (void)state;
    call c = start("hessian_alignment_fishr", "{\"first\": true, \"loss\": \"sigmoid\"}");
    F32(&c, "phi", S(3, 1), 2, 1, 3);
    I32(&c, "y", S(3), 1, 0, 0);
    I32(&c, "domain", S(3), 1, 0, 0);
    HEAD(&c, 1, 1, 0);
    F32(&c, "state", S(2, 2), 9, 9, 9, 9); /* not looked at in the first step */
    accept(&c, "penalty");
    expect(&c, "var", 0.25, 0, 0, 0); /* r = 1/2 and phi = 1, 3 */
    expect(&c, "state_out", 0.0125, 0, 0, 0);
    near(result(&c, "penalty", 0), 0.125 * 0.125 * 2 / 4);
    c.options =
        "{\"loss\": \"sigmoid\", \"ema\": 0.5, \"centered\": false, \"reduction\": \"sum\", "
        "\"correction\": false}";
    accept(&c, "penalty");
    expect(&c, "var", 1.25, 0.25, 1, 0.25);
    expect(&c, "state_out", 5.125, 4.625, 5, 4.625);
    near(result(&c, "penalty", 0), 2 * 0.0625 * 0.0625);
    finish(&c);
}

static void one_domain_has_no_pairs(void **state)
{
    (void)state;
    call c = start("hessian_alignment_coral", "{\"n_domains\": 1}");
    F32(&c, "phi", S(2, 1), 1, 2);
    I32(&c, "domain", S(2), 0, 0);
    accept(&c, "penalty");
    expect(&c, "penalty", 0);
    near(slope(&c, "phi", 0), 0);
    finish(&c);
    c = start("hessian_alignment_coral", NULL);
    F32(&c, "phi", S(4, 1), 1, 3, 5, 9);
    I32(&c, "domain", S(4), 0, 0, 1, 1);
    accept(&c, "penalty");
    expect(&c, "penalty", 25 + 36); /* means 2 and 7, variances 2 and 8 */
    finish(&c);
}

#define ROWS(c, domain1)                                                                           \
    (F32(c, "phi", S(2, 1), 1, 2), I32(c, "y", S(2), 0, 2), I32(c, "domain", S(2), 0, domain1))

static void hessian_alignment_refuses(void **state)
{
    (void)state;
    REFUSE("hessian_alignment_hgp", NULL, "y[1] is 2, expected 0 <= . < 2", ROWS(&c, 1),
           HEAD(&c, 2, 1, 1, 1));
    REFUSE("hessian_alignment_hgp", "{\"loss\": \"sigmoid\"}", "y[1] is 2, expected 0 <= . < 2",
           ROWS(&c, 1), HEAD(&c, 1, 1, 1));
    REFUSE("hessian_alignment_hgp", "{\"loss\": \"sigmoid\"}",
           "there are 3 logits, expected 1 with the sigmoid loss", F32(&c, "phi", S(2, 1), 1, 2),
           I32(&c, "y", S(2), 0, 1), I32(&c, "domain", S(2), 0, 1), HEAD(&c, 3, 1, 1, 1, 1));
    REFUSE("hessian_alignment_hgp", NULL, "[1] is 2, expected 0 <= . < n_domains (n_domains is 2)",
           ROWS(&c, 2), HEAD(&c, 3, 1, 1, 1, 1));
    REFUSE("hessian_alignment_hgp", NULL, "domain 1 has 0 rows, expected at least 1", ROWS(&c, 0),
           HEAD(&c, 3, 1, 1, 1, 1));
    REFUSE("hessian_alignment_hutchinson", "{\"estimator\": \"exact\"}",
           "domain 1 has 0 rows, expected at least 1", ROWS(&c, 0), HEAD(&c, 3, 1, 1, 1, 1));
    REFUSE("hessian_alignment_hutchinson", NULL,
           "input z_mean is missing, expected with the estimator hutchinson", ROWS(&c, 1),
           HEAD(&c, 3, 1, 1, 1, 1));
    REFUSE("hessian_alignment_hutchinson", NULL, "expected in {-1,1}", ROWS(&c, 1),
           HEAD(&c, 3, 1, 1, 1, 1), F32(&c, "z_mean", S(1, 6), 1, 1, 1, 0.5, 1, 1),
           F32(&c, "z_env", S(2, 1, 6), 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
    REFUSE("hessian_alignment_hutchinson", NULL,
           "z_mean has 1 rows of 2, expected at least one, "
           "of P = 6",
           ROWS(&c, 1), HEAD(&c, 3, 1, 1, 1, 1), F32(&c, "z_mean", S(1, 2), 1, 1),
           F32(&c, "z_env", S(2, 1, 2), 1, 1, 1, 1));
    REFUSE("hessian_alignment_fishr", "{\"loss\": \"sigmoid\"}", "y[1] is 2", ROWS(&c, 1),
           HEAD(&c, 1, 1, 1), F32(&c, "state", S(2, 2), 0, 0, 0, 0));
    REFUSE("hessian_alignment_fishr", NULL, "state must be f32[2,P], not f32[3,2]", ROWS(&c, 1),
           HEAD(&c, 3, 1, 1, 1, 1), F32(&c, "state", S(3, 2), 0, 0, 0, 0, 0, 0));
    REFUSE("hessian_alignment_fishr", "{\"ema\": 1}", "option ema is 1, expected [0,1)");
    REFUSE("hessian_alignment_hgp", NULL, "w must be f32[C,1], not f32[2,3]", ROWS(&c, 1),
           HEAD(&c, 2, 3, 0, 0, 0, 0, 0, 0));
    REFUSE("hessian_alignment_hgp", "{\"alpha\": -1}", "option alpha is -1, expected [0,inf)");
    REFUSE("hessian_alignment_hutchinson", "{\"beta\": -1}", "option beta is -1, expected [0,inf)");
    REFUSE("hessian_alignment_hgp", "{\"n_domains\": 0}", "option n_domains is 0, expected >= 1");
    REFUSE("hessian_alignment_irm", "{\"split\": true, \"n_domains\": 1}",
           "domain 0 has 1 rows, expected at least 2", F32(&c, "logits", S(1, 2), 1, 2),
           I32(&c, "y", S(1), 0), I32(&c, "domain", S(1), 0));
    REFUSE("hessian_alignment_irm", "{\"n_domains\": 1}", "y[0] is -1",
           F32(&c, "logits", S(1, 2), 1, 2), I32(&c, "y", S(1), -1), I32(&c, "domain", S(1), 0));
    REFUSE("hessian_alignment_coral", NULL, "domain 1 has 1 rows, expected at least 2",
           F32(&c, "phi", S(3, 1), 1, 2, 3), I32(&c, "domain", S(3), 0, 0, 1));
    REFUSE("hessian_alignment_vrex", "{\"form\": \"difference\"}",
           "losses has 1 domain, expected at least 2", F32(&c, "losses", S(1), 1));
    REFUSE("hessian_alignment_head_hessian", NULL, "y[0] is 5, expected 0 <= . < 1",
           F32(&c, "phi", S(1, 1), 1), I32(&c, "y", S(1), 5), HEAD(&c, 1, 1, 1));
    REFUSE("hessian_alignment_hessian_distance", NULL, "h1 must be f32[2,2], not f32[1,1]",
           F32(&c, "h0", S(2, 2), 1, 0, 0, 1), F32(&c, "h1", S(1, 1), 1));
    REFUSE("hessian_alignment_fish_step", NULL, "theta_inner must be f32[2], not f32[3]",
           F32(&c, "theta", S(2), 1, 2), F32(&c, "theta_inner", S(3), 1, 2, 3));
}

/* --- T-JEPA ----------------------------------------------------------------------------------- */

static void a_table_may_have_one_kind_of_feature(void **state)
{
    (void)state;
    const double none[] = {0};
    call c = start("t_jepa_tokenize", "{\"n_reg\": 0}");
    F32(&c, "x_num", S(1, 1), 3);
    give(&c, "x_cat", BL_I32, S(1, 0), none);
    F32(&c, "w", S(1, 2), 2, -1);
    give(&c, "emb", BL_F32, S(0, 2), none);
    F32(&c, "bias", S(1, 2), 10, 20);
    give(&c, "cards", BL_I32, S(0), none);
    accept(&c, NULL);
    expect(&c, "tokens", 16, 18); /* position 0: sin 0, cos 0 */
    finish(&c);
    c = start("t_jepa_tokenize", NULL); /* [REG] and a code of the second table */
    give(&c, "x_num", BL_F32, S(1, 0), none);
    I32(&c, "x_cat", S(1, 2), 1, 0);
    F32(&c, "w", S(1, 2), 5, 6);
    F32(&c, "emb", S(3, 2), 0, 0, 1, 2, 3, 4);
    F32(&c, "bias", S(2, 2), 0, 0, 0, 0);
    I32(&c, "cards", S(2), 2, 1);
    accept(&c, NULL);
    expect(&c, "tokens", 5, 7, 1 + sin(1), 2 + cos(1), 3 + sin(2), 4 + cos(2));
    finish(&c);
}

static void halves_are_rounded_to_even(void **state)
{
    (void)state;
    call c =
        start("t_jepa_mask_sizes", "{\"n_features\": 10, \"min_ctx\": 0.25, \"max_ctx\": 0.55, "
                                   "\"min_tgt\": 0.15, \"max_tgt\": 0.75}");
    F32(&c, "u", S(4), 1, 1, 0.125, 0.25); /* 2 to 6 (5.5), 2 (1.5) to 8 (7.5) */
    accept(&c, NULL);
    expect(&c, "n_ctx", 2); /* 2 + 0.5 */
    expect(&c, "n_tgt", 4); /* 2 + 1.5 */
    expect(&c, "pairs_used", 2);
    finish(&c);
}

static void targets_are_what_is_left_in_order(void **state)
{
    (void)state;
    call c = start("t_jepa_masks", "{\"n_ctx\": 1, \"n_tgt\": 2, \"n_reg\": 2}");
    I32(&c, "perm_ctx", S(1, 4), 1, 3, 0, 2); /* left 0, 2, 3 */
    I32(&c, "perm_tgt", S(2, 1, 3), 2, 0, 1, 1, 2, 0);
    accept(&c, NULL);
    expect(&c, "idx_ctx", 0, 1, 3);
    expect(&c, "idx_tgt", 5, 2, 4, 5);
    c.options = "{\"n_ctx\": 1, \"n_tgt\": 2, \"n_reg\": 2, \"reg_mode\": \"maskable\"}";
    accept(&c, NULL);
    expect(&c, "idx_ctx", 1);
    expect(&c, "idx_tgt", 3, 0, 2, 3);
    finish(&c);
}

/* One head, one layer of width 2, whose weights are what is given here and else 0. */
static void give_stack(call *c, bool identity)
{
    const double zero[16] = {0}, one = identity;
    give(c, "in_w", BL_F32, S(1, 6, 2), zero);
    give(c, "in_b", BL_F32, S(1, 6), zero);
    give(c, "out_w", BL_F32, S(1, 2, 2), zero);
    give(c, "out_b", BL_F32, S(1, 2), zero);
    F32(c, "ln_g", S(1, 2, 2), one, one, one, one);
    give(c, "ln_b", BL_F32, S(1, 2, 2), zero);
    give(c, "ff1_w", BL_F32, S(1, 1, 2), zero);
    give(c, "ff1_b", BL_F32, S(1, 1), zero);
    give(c, "ff2_w", BL_F32, S(1, 2, 1), zero);
    give(c, "ff2_b", BL_F32, S(1, 2), zero);
    F32(c, "end_g", S(2, 2), 1, 1, 1, 1);
    give(c, "end_b", BL_F32, S(2, 2), zero);
    F32(c, "fc_w", S(2, 2), 1, 0, 0, 1);
    give(c, "fc_b", BL_F32, S(2), zero);
}

static void a_target_encoder_needs_no_index(void **state)
{
    (void)state;
    call c = start("t_jepa_encoder", "{\"gather\": false, \"heads\": 1, \"eps\": 1e-12}");
    F32(&c, "tokens", S(1, 2, 2), 3, 1, -2, 8); /* normalised: 1 -1, -1 1 */
    give_stack(&c, true);
    accept(&c, NULL);
    expect(&c, "out", 1, -1, -1, 1);
    I32(&c, "idx", S(1, 1), 1);
    c.options = "{\"heads\": 1, \"eps\": 1e-12}";
    accept(&c, NULL);
    expect(&c, "out", -1, 1);
    finish(&c);
}

static void equal_tokens_have_finite_gradients(void **state)
{
    (void)state;
    call c = start("t_jepa_encoder", "{\"gather\": false, \"heads\": 2}");
    F32(&c, "tokens", S(1, 2, 2), 1, 1, 1, 1);
    give_stack(&c, false);
    give_to(&c.cotangent, "out", (bl_type){BL_F32, S(1, 2, 2)}, VALUES(1, 2, 3, 4));
    accept(&c, NULL);
    all_finite(&c.out);
    all_finite(&c.gradient);
    finish(&c);
}

static void targets_get_no_gradient(void **state)
{
    (void)state;
    call c = start("t_jepa_loss", NULL);
    F32(&c, "pred", S(1, 1, 1, 2), 1, 2);
    F32(&c, "h", S(1, 2, 2), 9, 9, 0, 4);
    I32(&c, "idx_tgt", S(1, 1, 1), 1);
    accept(&c, "loss");
    expect(&c, "loss", 2.5);
    near(slope(&c, "pred", 0), 1);
    assert_null(bl_dictionary_find(&c.gradient, "h"));
    finish(&c);
}

static void schedules_meet_their_ends(void **state)
{
    (void)state;
    call c =
        start("t_jepa_schedules", "{\"warmup\": 0, \"total\": 4, \"lr_start\": 9, \"lr_ref\": 2, "
                                  "\"lr_final\": 1, \"wd_ref\": 0, \"wd_final\": 4}");
    I32(&c, "step", S(3), 0, 2, 4);
    accept(&c, NULL);
    expect(&c, "lr", 2, 1.5, 1);
    expect(&c, "wd", 0, 2, 4);
    expect(&c, "m", 0.996, 0.998, 1);
    c.options = "{\"warmup\": 4, \"total\": 4, \"lr_ref\": 2}"; /* nothing is left to fall */
    accept(&c, NULL);
    expect(&c, "lr", 0, 1, 2);
    finish(&c);
}

static void a_collapsed_table_has_no_variance(void **state)
{
    (void)state;
    call c = start("t_jepa_collapse", NULL);
    F32(&c, "h", S(2, 2, 2), 1, 2, 3, 4, 1, 2, 3, 4);
    I32(&c, "pairs", S(2, 2), 0, 1, 1, 1);
    accept(&c, NULL);
    expect(&c, "intra_var", 0);
    expect(&c, "inter_var", 0.25);
    expect(&c, "kl", 0);
    expect(&c, "euclidean", 0);
    expect(&c, "n", 2);
    F32(&c, "h", S(2, 2, 2), 5, 5, 5, 5, 0, 0, 0, 1000); /* equal numbers, and a gap */
    accept(&c, NULL);
    all_finite(&c.out);
    assert_true(result(&c, "kl", 0) > 0);
    give(&c, "pairs", BL_I32, S(0, 2), VALUES(0));
    accept(&c, NULL);
    expect(&c, "kl", 0);
    finish(&c);
}

static void t_jepa_refuses(void **state)
{
    (void)state;
    REFUSE("t_jepa_tokenize", NULL, "x_cat[0,1] is 1, expected 0 <= . < cards[1] (1)",
           F32(&c, "x_num", S(1, 1), 0), I32(&c, "x_cat", S(1, 2), 1, 1),
           F32(&c, "w", S(2, 2), 0, 0, 0, 0), F32(&c, "emb", S(3, 2), 0, 0, 0, 0, 0, 0),
           F32(&c, "bias", S(3, 2), 0, 0, 0, 0, 0, 0), I32(&c, "cards", S(2), 2, 1));
    REFUSE("t_jepa_tokenize", NULL, "emb has 2 rows, expected 3, the sum of cards",
           F32(&c, "x_num", S(1, 1), 0), I32(&c, "x_cat", S(1, 1), 0),
           F32(&c, "w", S(2, 2), 0, 0, 0, 0), F32(&c, "emb", S(2, 2), 0, 0, 0, 0),
           F32(&c, "bias", S(2, 2), 0, 0, 0, 0), I32(&c, "cards", S(1), 3));
    REFUSE("t_jepa_tokenize", NULL, "w has 1 rows, expected 2", F32(&c, "x_num", S(1, 1), 0),
           I32(&c, "x_cat", S(1, 1), 0), F32(&c, "w", S(1, 2), 0, 0), F32(&c, "emb", S(1, 2), 0, 0),
           F32(&c, "bias", S(2, 2), 0, 0, 0, 0), I32(&c, "cards", S(1), 1));
    REFUSE("t_jepa_tokenize", NULL, "bias has 1 rows, expected 2", F32(&c, "x_num", S(1, 1), 0),
           I32(&c, "x_cat", S(1, 1), 0), F32(&c, "w", S(2, 2), 0, 0, 0, 0),
           F32(&c, "emb", S(1, 2), 0, 0), F32(&c, "bias", S(1, 2), 0, 0),
           I32(&c, "cards", S(1), 1));
    REFUSE("t_jepa_tokenize", "{\"n_reg\": 0}", "the width d is 1, expected an even number",
           F32(&c, "x_num", S(1, 1), 0), I32(&c, "x_cat", S(1, 1), 0), F32(&c, "w", S(1, 1), 0),
           F32(&c, "emb", S(1, 1), 0), F32(&c, "bias", S(2, 1), 0, 0), I32(&c, "cards", S(1), 1));
    REFUSE("t_jepa_mask_sizes", "{\"n_features\": 3}", "min_ctx and max_ctx give 0 to 1 of 3",
           F32(&c, "u", S(2), 0, 0));
    REFUSE("t_jepa_mask_sizes", "{\"n_features\": 10, \"min_tgt\": 0.5, \"max_tgt\": 0.5}",
           "min_tgt and max_tgt give 5 to 5 of 10", F32(&c, "u", S(2), 0, 0));
    REFUSE("t_jepa_mask_sizes", "{\"n_features\": 10, \"max_ctx\": 0.9, \"max_tgt\": 0.9}",
           "u has no pair with n_ctx + n_tgt <= 10, expected one among 2",
           F32(&c, "u", S(4), 1, 1, 1, 1));
    REFUSE("t_jepa_mask_sizes", "{\"n_features\": 10}", "u has 3 draws, expected two for each",
           F32(&c, "u", S(3), 0, 0, 0));
    REFUSE("t_jepa_masks", "{\"n_ctx\": 2, \"n_tgt\": 2}",
           "n_ctx + n_tgt is 4, expected at most the features (3)",
           I32(&c, "perm_ctx", S(1, 3), 0, 1, 2), I32(&c, "perm_tgt", S(1, 1, 1), 0));
    REFUSE("t_jepa_masks", "{\"n_ctx\": 1, \"n_tgt\": 1}",
           "perm_tgt permutes 1 features, expected the 2 that are left",
           I32(&c, "perm_ctx", S(1, 3), 0, 1, 2), I32(&c, "perm_tgt", S(1, 1, 1), 0));
    REFUSE("t_jepa_masks", "{\"n_ctx\": 1, \"n_tgt\": 1}",
           "perm_ctx has the row 1, where [1] is 1, expected a permutation of 0..1",
           I32(&c, "perm_ctx", S(2, 2), 0, 1, 1, 1), I32(&c, "perm_tgt", S(1, 2, 1), 0, 0));
    REFUSE("t_jepa_masks", "{\"n_ctx\": 1, \"n_tgt\": 1}",
           "perm_tgt has the row 0, where [0] is 5, expected a permutation of 0..0",
           I32(&c, "perm_ctx", S(1, 2), 0, 1), I32(&c, "perm_tgt", S(1, 1, 1), 5));
    REFUSE("t_jepa_encoder", "{\"heads\": 3}",
           "the width is 2, expected an even multiple of the 3 heads",
           F32(&c, "tokens", S(1, 1, 2), 0, 0), I32(&c, "idx", S(1, 1), 0), give_stack(&c, true));
    REFUSE("t_jepa_encoder", NULL, "in_w has 2 rows a layer, expected 6: queries, keys, values",
           F32(&c, "tokens", S(1, 1, 2), 0, 0), I32(&c, "idx", S(1, 1), 0), give_stack(&c, true),
           F32(&c, "in_w", S(1, 2, 2), 0, 0, 0, 0), F32(&c, "in_b", S(1, 2), 0, 0));
    REFUSE("t_jepa_encoder", NULL, "input idx is missing, expected with gather",
           F32(&c, "tokens", S(1, 1, 2), 0, 0), give_stack(&c, true));
    REFUSE("t_jepa_encoder", NULL, "expected 0 <= . < T (T is 1)",
           F32(&c, "tokens", S(1, 1, 2), 0, 0), I32(&c, "idx", S(1, 1), 1), give_stack(&c, true));
    REFUSE("t_jepa_loss", NULL, "expected 0 <= . < T (T is 1)", F32(&c, "pred", S(1, 1, 1, 1), 0),
           F32(&c, "h", S(1, 1, 1), 0), I32(&c, "idx_tgt", S(1, 1, 1), 1));
    REFUSE("t_jepa_ema", "{\"m\": 0}", "option m is 0, expected (0,1]");
    REFUSE("t_jepa_schedules", "{\"warmup\": 0, \"total\": 2, \"lr_ref\": 1}",
           "is 3, expected 0 <= . <= total (total is 2)", I32(&c, "step", S(1), 3));
    REFUSE("t_jepa_schedules", "{\"warmup\": 3, \"total\": 2, \"lr_ref\": 1}",
           "option warmup is 3, expected [0,total]");
    REFUSE("t_jepa_collapse", NULL, "expected 0 <= . < N (N is 1)", F32(&c, "h", S(1, 1, 1), 0),
           I32(&c, "pairs", S(1, 2), 0, 1));
    REFUSE("t_jepa_predictor", "{\"heads\": 2, \"n_positions\": 1}",
           "idx_tgt[0,0,0] is 1, expected 0 <= . < n_positions (n_positions is 1)",
           F32(&c, "z", S(1, 1, 1), 0), I32(&c, "idx_ctx", S(1, 1), 0),
           I32(&c, "idx_tgt", S(1, 1, 1), 1), F32(&c, "emb_w", S(2, 1), 0, 0),
           F32(&c, "emb_b", S(2), 0, 0), F32(&c, "mask_token", S(2), 0, 0),
           F32(&c, "norm_g", S(2), 1, 1), F32(&c, "norm_b", S(2), 0, 0),
           F32(&c, "proj_w", S(1, 2), 0, 0), F32(&c, "proj_b", S(1), 0), give_stack(&c, true));
}

/* --- soft equivariance ------------------------------------------------------------------------ */

static void a_representation_is_block_diagonal(void **state)
{
    (void)state;
    call c = start("soft_equivariance_rep", "{\"n0\": 1, \"n1\": 1, \"n2\": 1}");
    F32(&c, "g", S(1, 1, 1), 3);
    accept(&c, NULL);
    expect(&c, "rho", 1, 0, 0, 0, 3, 0, 0, 0, 9);
    c.options = "{\"n0\": 1, \"n1\": 1, \"n2\": 1, \"kind\": \"algebra\"}";
    accept(&c, NULL);
    expect(&c, "rho", 0, 0, 0, 0, 3, 0, 0, 0, 6);
    c.options = NULL; /* nothing to act on */
    accept(&c, NULL);
    assert_int_equal(bl_array_count(bl_dictionary_find(&c.out, "rho")), 0);
    finish(&c);
}

static void without_generators_anything_is_equivariant(void **state)
{
    (void)state;
    const double none[] = {0};
    call c = start("soft_equivariance_projector", NULL);
    give(&c, "rho_in", BL_F32, S(0, 1, 1), none);
    give(&c, "rho_out", BL_F32, S(0, 2, 2), none);
    give(&c, "drho_in", BL_F32, S(0, 1, 1), none);
    give(&c, "drho_out", BL_F32, S(0, 2, 2), none);
    accept(&c, NULL);
    expect(&c, "projector", 1, 0, 0, 1);
    expect(&c, "rank", 2);
    finish(&c);
}

/* Doubled inputs and swapped outputs go with no map, both scaled by 3 with every one: it is the
 * inverse of rho_in that counts, not its transpose. */
static void scales_must_agree(void **state)
{
    (void)state;
    const double none[] = {0};
    call c = start("soft_equivariance_projector", NULL);
    F32(&c, "rho_in", S(1, 1, 1), 2);
    F32(&c, "rho_out", S(1, 2, 2), 0, 1, 1, 0);
    give(&c, "drho_in", BL_F32, S(0, 1, 1), none);
    give(&c, "drho_out", BL_F32, S(0, 2, 2), none);
    accept(&c, NULL);
    expect(&c, "projector", 0, 0, 0, 0);
    expect(&c, "rank", 0);
    F32(&c, "rho_in", S(1, 1, 1), 3);
    F32(&c, "rho_out", S(1, 2, 2), 3, 0, 0, 3);
    accept(&c, NULL);
    expect(&c, "projector", 1, 0, 0, 1);
    F32(&c, "rho_in", S(1, 1, 1), 1); /* swapped outputs must be equal */
    F32(&c, "rho_out", S(1, 2, 2), 0, 1, 1, 0);
    accept(&c, NULL);
    expect(&c, "projector", 0.5, 0.5, 0.5, 0.5);
    expect(&c, "rank", 1);
    finish(&c);
}

static void strength_zero_only_measures(void **state)
{
    (void)state;
    call c = start("soft_equivariance_penalty", NULL);
    F32(&c, "w", S(2, 1), 3, 1);
    F32(&c, "b", S(2), 4, -4);
    F32(&c, "pw", S(2, 2, 2), 0.5, 0.5, 0.5, 0.5, 1, 0, 0, 0);
    F32(&c, "pb", S(2, 2, 2), 1, 0, 0, 1, 0, 0, 0, 0);
    F32(&c, "lam", S(2), 2, 0);
    accept(&c, "loss");
    expect(&c, "reg", 1, 16.5);
    expect(&c, "loss", 2);
    near(slope(&c, "w", 0), 2);
    near(slope(&c, "w", 1), -2);
    near(slope(&c, "b", 0), 0);
    c.options = "{\"bias\": false, \"weight_decay\": 2}";
    accept(&c, "loss");
    expect(&c, "reg", 1, 0.5);
    expect(&c, "loss", 2 + 42);
    near(slope(&c, "b", 0), 8); /* decay is of the bias too */
    finish(&c);
}

static void segments_of_count_zero_are_nothing(void **state)
{
    (void)state;
    call c = start("soft_equivariance_typed_project",
                   "{\"layout_out\": [[0, 2]], \"layout_in\": [[0, 1], [1, 0], [0, 1]]}");
    F32(&c, "w", S(2, 2), 1, 2, 3, 4);
    F32(&c, "p00", S(1, 1), 0.5);
    F32(&c, "p01", S(3, 3), 0, 0, 0, 0, 0, 0, 0, 0, 0);
    accept(&c, "reg");
    expect(&c, "w_out", 0.5, 1, 1.5, 2);
    expect(&c, "reg", 3.75);
    finish(&c);
}

static void a_whole_epoch_counts_as_best(void **state)
{
    (void)state;
    call c = start("soft_equivariance_tune", NULL);
    F32(&c, "lam", S(3), 0, 10, 10);
    F32(&c, "reg", S(3, 3), 1, 2, 8, 9, 1, 2, 9, 1,
        2); /* the second, by one entry; not the third */
    accept(&c, NULL);
    expect(&c, "reg_used", 9, 1, 2);
    expect(&c, "lam_out", 0, 10, 2.5);
    F32(&c, "reg", S(1, 3), 0, 0, 4); /* a symmetry that holds exactly */
    accept(&c, NULL);
    expect(&c, "lam_out", 0, 10, 0);
    F32(&c, "reg", S(1, 3), 0, 0, 0);
    accept(&c, NULL);
    expect(&c, "lam_out", 0, 10, 10);
    F32(&c, "lam", S(3), 0, 0, 0);
    accept(&c, NULL);
    expect(&c, "lam_out", 0, 0, 0);
    finish(&c);
}

static void nothing_is_equivariant(void **state)
{
    (void)state;
    call c = start("soft_equivariance_equivariance_error", NULL);
    F32(&c, "y_gx", S(1, 2, 2), 0, 0, 0, 3);
    F32(&c, "y_x", S(2, 2), 0, 0, 3, 0);
    F32(&c, "rho_out", S(1, 2, 2), 0, -1, 1, 0);
    accept(&c, "error");
    expect(&c, "error", 0);
    all_finite(&c.gradient);
    F32(&c, "y_gx", S(1, 2, 2), 1, 0, 0, -3); /* opposite outputs, and one where 0 should be */
    accept(&c, "error");
    expect(&c, "error", 1);
    finish(&c);
}

static void noise_scales_a_column(void **state)
{
    (void)state;
    call c = start("soft_equivariance_inertia", "{\"k\": 1, \"noise\": 0.5, \"axis\": -1}");
    F32(&c, "x", S(1, 4), 2, 1, 0, 3); /* mass 2 at (1,0,3) */
    accept(&c, NULL);
    expect(&c, "y", 9, 0, -6, 0, 30, 0, -3, 0, 2);
    c.options = "{\"k\": 1, \"noise\": 0, \"axis\": 0}";
    accept(&c, NULL);
    expect(&c, "y", 18, 0, -6, 0, 20, 0, -6, 0, 2);
    finish(&c);
}

static void scale_changes_what_knows_the_norm(void **state)
{
    (void)state;
    const char *sym[] = {"so3-scale", "so3", "scale", "none"};
    for (int i = 0; i < COUNT_OF(sym); i++) {
        char options[80];
        snprintf(options, sizeof options, "{\"k\": 2, \"noise\": 0.5, \"sym\": \"%s\"}", sym[i]);
        call c = start("soft_equivariance_cossim", options);
        F32(&c, "x", S(1, 6), 4, 4, 0, 0, 0, 6); /* at right angles, norms 4 root 2 and 6 */
        accept(&c, NULL);
        double norm = (4 * sqrt(2) + 6) / 2, ratio = 8.0 / 6;
        const double want[] = {0, -0.5 * norm, -0.5 * ratio, -0.5 * norm + 0.5 * ratio};
        near(result(&c, "y", 0), want[i]);
        finish(&c);
    }
}

static void one_channel_is_next_to_itself(void **state)
{
    (void)state;
    call c = start("soft_equivariance_block", "{\"c\": 1}");
    F32(&c, "x", S(1, 1), 1);
    F32(&c, "w", S(15, 1), 2, 1, 2, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0); /* s 2, v (1,2,3), M = I */
    give(&c, "b", BL_F32, S(15), (double[15]){0});
    F32(&c, "a", S(6, 1), 1, 1, 1, 1, 1, 1);
    accept(&c, NULL);
    double s = 2 + 14 + 3; /* s + |v|^2 + tr M; v + s v + M v = 4 v; M + v v^T + s M, both halved */
    expect(&c, "out", s / (1 + exp(-s)), 2, 4, 6, 2, 1, 1.5, 1, 3.5, 3, 1.5, 3, 6);
    finish(&c);
}

static void soft_equivariance_refuses(void **state)
{
    (void)state;
    const double none[] = {0};
    REFUSE("soft_equivariance_rep", "{\"n1\": -1}", "option n1 is -1, expected >= 0");
    REFUSE("soft_equivariance_rep", NULL, "g must be f32[M,d,d], not f32[1,2,3]",
           F32(&c, "g", S(1, 2, 3), 1, 2, 3, 4, 5, 6));
    REFUSE("soft_equivariance_projector", "{\"tol\": 0}", "option tol is 0, expected (0,inf)");
    REFUSE("soft_equivariance_projector", NULL, "drho_in must be f32[L,2,2], not f32[0,1,1]",
           F32(&c, "rho_in", S(1, 2, 2), 1, 0, 0, 1), F32(&c, "rho_out", S(1, 1, 1), 1),
           give(&c, "drho_in", BL_F32, S(0, 1, 1), none),
           give(&c, "drho_out", BL_F32, S(0, 1, 1), none));
    REFUSE("soft_equivariance_projector", NULL, "positive definite",
           F32(&c, "rho_in", S(1, 1, 1), 0), F32(&c, "rho_out", S(1, 1, 1), 1),
           give(&c, "drho_in", BL_F32, S(0, 1, 1), none),
           give(&c, "drho_out", BL_F32, S(0, 1, 1), none));
    REFUSE("soft_equivariance_penalty", NULL, "pw projects 1 numbers, expected 2, the size of w",
           F32(&c, "w", S(1, 2), 1, 2), F32(&c, "b", S(1), 0), F32(&c, "pw", S(1, 1, 1), 1),
           F32(&c, "pb", S(1, 1, 1), 1), F32(&c, "lam", S(1), 1));
    REFUSE("soft_equivariance_penalty", NULL, "lam[0] is -1, expected >= 0",
           F32(&c, "w", S(1, 1), 1), F32(&c, "b", S(1), 0), F32(&c, "pw", S(1, 1, 1), 1),
           F32(&c, "pb", S(1, 1, 1), 1), F32(&c, "lam", S(1), -1));
    REFUSE("soft_equivariance_typed_project", "{\"layout_out\": [[0, 2]], \"layout_in\": [[0, 2]]}",
           "option layout_in adds up to 2, expected 3 as in w",
           F32(&c, "w", S(2, 3), 1, 2, 3, 4, 5, 6), F32(&c, "p00", S(1, 1), 1));
    REFUSE("soft_equivariance_typed_project", "{\"layout_out\": [[3, 1]], \"layout_in\": [[0, 1]]}",
           "option layout_out[0] is [3,1], expected a type 0, 1 or 2", F32(&c, "w", S(1, 1), 1));
    REFUSE("soft_equivariance_typed_project", "{\"layout_out\": [1], \"layout_in\": [[0, 1]]}",
           "option layout_out has rows of 1 numbers, expected [type, count]",
           F32(&c, "w", S(1, 1), 1));
    REFUSE("soft_equivariance_typed_project", NULL, "option layout_out adds up to 0, expected 1",
           F32(&c, "w", S(1, 1), 1));
    REFUSE("soft_equivariance_typed_project", "{\"layout_out\": [[0, 1]], \"layout_in\": [[1, 1]]}",
           "input p01 is missing, expected where the layouts map type 1 to type 0",
           F32(&c, "w", S(1, 3), 1, 2, 3));
    REFUSE("soft_equivariance_tune", "{\"power\": -1}", "option power is -1, expected [0,inf)");
    REFUSE("soft_equivariance_tune", NULL, "lam[1] is -2, expected >= 0",
           F32(&c, "lam", S(2), 1, -2), F32(&c, "reg", S(1, 2), 1, 1));
    REFUSE("soft_equivariance_tune", NULL, "reg has no rows, expected at least one",
           F32(&c, "lam", S(1), 1), give(&c, "reg", BL_F32, S(0, 1), none));
    REFUSE("soft_equivariance_inertia", "{\"noise\": 0, \"axis\": 3}",
           "option axis is 3, expected [-1,2]");
    REFUSE("soft_equivariance_inertia", "{\"noise\": 0, \"axis\": 0, \"k\": 2}",
           "x has 4 columns, expected 8", F32(&c, "x", S(1, 4), 1, 2, 3, 4));
    REFUSE("soft_equivariance_cossim", "{\"noise\": 0, \"sym\": \"so2\"}",
           "expected one of so3-scale|so3|scale|none");
    REFUSE("soft_equivariance_block", "{\"c\": 1}", "w has 2 rows, expected 15 c = 15",
           F32(&c, "x", S(1, 1), 1), F32(&c, "w", S(2, 1), 1, 2), F32(&c, "b", S(2), 0, 0),
           F32(&c, "a", S(6, 1), 0, 0, 0, 0, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_singular_values_are_at_rest),
        cmocka_unit_test(singular_values_count_the_smaller_side),
        cmocka_unit_test(a_collapsed_batch_has_finite_gradients),
        cmocka_unit_test(opposite_views_have_no_centroid),
        cmocka_unit_test(views_of_an_image_are_pushed_alike),
        cmocka_unit_test(one_embedding_is_spread_over_nothing),
        cmocka_unit_test(the_copy_stops_at_the_end),
        cmocka_unit_test(msbreg_refuses),
        cmocka_unit_test(a_copied_feature_tells_everything),
        cmocka_unit_test(the_lower_of_equal_features_is_hidden),
        cmocka_unit_test(a_dropped_feature_is_zero_and_a_hidden_one_its_default),
        cmocka_unit_test(a_batch_of_one_finds_itself),
        cmocka_unit_test(similarities_may_be_large),
        cmocka_unit_test(the_same_item_twice_is_no_mistake),
        cmocka_unit_test(the_earlier_of_equal_scores_ranks_higher),
        cmocka_unit_test(item_ssl_refuses),
        cmocka_unit_test(one_domain_is_aligned),
        cmocka_unit_test(large_domains_weigh_no_more),
        cmocka_unit_test(confident_heads_have_finite_gradients),
        cmocka_unit_test(the_hessian_of_an_undecided_head),
        cmocka_unit_test(all_draws_together_are_exact),
        TEST(products_are_second_derivatives),
        cmocka_unit_test(opposite_eigenvalues_are_as_far),
        cmocka_unit_test(halves_are_every_other_row),
        cmocka_unit_test(only_two_domains_differ),
        cmocka_unit_test(one_row_has_no_variance),
        cmocka_unit_test(one_domain_has_no_pairs),
        cmocka_unit_test(hessian_alignment_refuses),
        cmocka_unit_test(a_table_may_have_one_kind_of_feature),
        cmocka_unit_test(halves_are_rounded_to_even),
        cmocka_unit_test(targets_are_what_is_left_in_order),
        cmocka_unit_test(a_target_encoder_needs_no_index),
        cmocka_unit_test(equal_tokens_have_finite_gradients),
        cmocka_unit_test(targets_get_no_gradient),
        cmocka_unit_test(schedules_meet_their_ends),
        cmocka_unit_test(a_collapsed_table_has_no_variance),
        cmocka_unit_test(t_jepa_refuses),
        cmocka_unit_test(a_representation_is_block_diagonal),
        cmocka_unit_test(without_generators_anything_is_equivariant),
        cmocka_unit_test(scales_must_agree),
        cmocka_unit_test(strength_zero_only_measures),
        cmocka_unit_test(segments_of_count_zero_are_nothing),
        cmocka_unit_test(a_whole_epoch_counts_as_best),
        cmocka_unit_test(nothing_is_equivariant),
        cmocka_unit_test(noise_scales_a_column),
        cmocka_unit_test(scale_changes_what_knows_the_norm),
        cmocka_unit_test(one_channel_is_next_to_itself),
        cmocka_unit_test(soft_equivariance_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
