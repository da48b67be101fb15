/* The methods for attacked and augmented inputs - the latent quantization defense, AdaMixUp, the
 * noise mask, contextual fusion, boundary tilting - and what test_methods.c leaves of ConR,
 * decoupled mixup and RandAugment: what their specs refuse, and facts about values and gradients at
 * shapes and corners that the reference cases do not have. */
#include "calls.h"

static const double pi = 3.14159265358979323846;

/* --- latent quantization defense -------------------------------------------------------------- */

#define LQ(name) "latent_quantization_defense_" name

static void a_code_on_the_band_s_edge_has_no_bit(void **state)
{
    (void)state;
    call c = start(LQ("quantize"), "{\"thresh\": 0.5, \"slope\": 8}");
    F32(&c, "mu", S(1, 4), 0.5, -0.5, 0, 1);
    F32(&c, "logvar", S(1, 4), -1, 80, 3, 0);
    F32(&c, "noise", S(1, 4), 0, 0, 0, 2);
    give_to(&c.cotangent, "z_soft", (bl_type){BL_F32, S(1, 4)}, VALUES(1, 1, 1, 1));
    give_to(&c.cotangent, "z_hard", (bl_type){BL_F32, S(1, 4)}, VALUES(9, 9, 9, 9));
    accept(&c, NULL);
    expect(&c, "z", 0.5, -0.5, 0, 1.5);
    expect(&c, "z_hard", 0, 0, 1, -1);
    expect(&c, "z_soft", 0, 0, 2 / 3.0, -16 / 17.0);
    near(slope(&c, "mu", 0), -8); /* -2 z slope / (1+|s|)^2, s = 0 */
    near(slope(&c, "mu", 1), 8);
    near(slope(&c, "mu", 2), 0);
    near(slope(&c, "noise", 3), 0.25 * slope(&c, "mu", 3));
    finish(&c);
}

static void a_standard_normal_code_has_no_divergence(void **state)
{
    (void)state;
    call c = start(LQ("kl"), NULL);
    F32(&c, "mu", S(1, 2), 0, 0);
    F32(&c, "logvar", S(1, 2), 0, 1e-4);
    accept(&c, "kl");
    double tiny = result(&c, "kl", 0); /* x^2 / 8: a difference from 1 + x would lose it */
    assert_true(fabs(tiny / 1.25e-9 - 1) < 1e-3);
    near(slope(&c, "logvar", 0), 0);
    F32(&c, "mu", S(1, 2), 100, 0);
    F32(&c, "logvar", S(1, 2), 20, -80);
    accept(&c, "kl");
    near(result(&c, "kl", 0) / ((1e4 + exp(20) - 21 + 79) / 4), 1);
    near(slope(&c, "mu", 0), 50);
    near(slope(&c, "logvar", 1), -0.25);
    finish(&c);
}

static void a_dead_encoder_has_a_norm_but_no_slope(void **state)
{
    (void)state;
    call c = start(LQ("encoder_penalty"), "{\"target\": 0.5}");
    F32(&c, "x", S(2, 2), 1, 2, 0, 0);
    F32(&c, "w1", S(2, 2), 1, 0, 0, 1);
    F32(&c, "b1", S(2), 0, 0);
    F32(&c, "w2", S(2, 1), 0, 0);
    F32(&c, "b2", S(1), 3);
    accept(&c, "penalty");
    expect(&c, "penalty", 0.25);
    expect(&c, "norm", 0, 0);
    for (int i = 0; i < 2; i++)
        near(slope(&c, "w2", i), 0);
    all_finite(&c.gradient);
    F32(&c, "w2", S(2, 1), 3, 4);
    accept(&c, "penalty");
    expect(&c, "norm", 5, 5); /* leaky ReLU has slope 1 at 0 */
    near(slope(&c, "w2", 0), 2 * 4.5 * 0.6);
    F32(&c, "x", S(2, 2), -1, -2, 0, -1);
    accept(&c, "penalty");
    near(result(&c, "norm", 0), 1);
    near(result(&c, "norm", 1), hypot(3, 0.8));
    finish(&c);
}

static void encoder_and_decoders_have_their_own_losses(void **state)
{
    (void)state;
    call c = start(LQ("losses"), "{\"w_rec\": 2, \"w_gp\": 4, \"target\": 1}");
    F32(&c, "mu", S(1, 1), 2);
    F32(&c, "logvar", S(1, 1), 0);
    F32(&c, "x_true", S(1), 0.5); /* an image may be a number */
    F32(&c, "x_cont", S(1), 1);
    F32(&c, "x_disc", S(1), -0.5);
    F32(&c, "grad_norm", S(1), 3);
    accept(&c, "enc_loss");
    expect(&c, "kl", 2);
    expect(&c, "mse_cont", 0.25);
    expect(&c, "mse_disc", 1);
    expect(&c, "penalty", 4);
    expect(&c, "enc_loss", 2 + 0.5 + 16);
    expect(&c, "cont_loss", 0.5);
    expect(&c, "disc_loss", 2);
    near(slope(&c, "grad_norm", 0), 16);
    near(slope(&c, "x_disc", 0), 0); /* the encoder does not see the discrete branch */
    finish(&c);
}

static void an_attacked_image_is_brought_back(void **state)
{
    (void)state;
    call c = start(LQ("fgsm"), "{\"eps\": 0.5, \"renorm\": \"minmax\", \"lo\": 2, \"hi\": 4}");
    F32(&c, "x", S(2, 1, 2), 0.5, 0, 7, 7);
    F32(&c, "grad", S(2, 1, 2), 3, -1e-30, 0, 0);
    accept(&c, NULL);
    expect(&c, "x_adv", 4, 2, 2, 2); /* a constant image becomes lo */
    c.options = "{\"eps\": 0.5, \"renorm\": \"none\"}";
    accept(&c, NULL);
    expect(&c, "x_adv", 1, -0.5, 7, 7);
    c.options = "{\"eps\": 0.5}";
    accept(&c, NULL);
    expect(&c, "x_adv", 1, -0.5, 1, 1);
    finish(&c);
    c = start(LQ("fgsm"), "{\"renorm\": \"minmax\"}"); /* no images, and images of one pixel */
    F32(&c, "x", S(0, 2), 0);
    F32(&c, "grad", S(0, 2), 0);
    accept(&c, NULL);
    F32(&c, "x", S(2), 0.5, -0.5);
    F32(&c, "grad", S(2), 1, 0);
    accept(&c, NULL);
    expect(&c, "x_adv", -1, -1);
    finish(&c);
}

static void a_bit_of_zero_is_its_own_value(void **state)
{
    (void)state;
    call c = start(LQ("bit_flips"), NULL);
    F32(&c, "code_a", S(1, 4), 1, 0, -1, 0);
    F32(&c, "code_b", S(1, 4), 1, 1, -1, 0);
    accept(&c, NULL);
    expect(&c, "rate", 0.25);
    finish(&c);
}

static void latent_quantization_refuses(void **state)
{
    (void)state;
    REFUSE(LQ("quantize"), "{\"thresh\": 0}", "option thresh is 0, expected (0,inf)");
    REFUSE(LQ("quantize"), "{\"slope\": -1}", "option slope is -1, expected (0,inf)");
    REFUSE(LQ("quantize"), NULL, "noise must be f32[1,2], not f32[2,1]",
           F32(&c, "mu", S(1, 2), 0, 0), F32(&c, "logvar", S(1, 2), 0, 0),
           F32(&c, "noise", S(2, 1), 0, 0));
    REFUSE(LQ("kl"), NULL, "mu has no rows, expected at least one", F32(&c, "mu", S(0, 2), 0),
           F32(&c, "logvar", S(0, 2), 0));
    REFUSE(LQ("encoder_penalty"), "{\"target\": -0.1}", "option target is -0.1, expected [0,inf)");
    REFUSE(LQ("encoder_penalty"), "{\"act\": \"relu\"}",
           "option act is \"relu\", expected one of leaky_relu|tanh");
    REFUSE(LQ("encoder_penalty"), NULL, "w2 must be f32[3,K], not f32[2,1]",
           F32(&c, "x", S(1, 2), 0, 0), F32(&c, "w1", S(2, 3), 0, 0, 0, 0, 0, 0),
           F32(&c, "b1", S(3), 0, 0, 0), F32(&c, "w2", S(2, 1), 0, 0), F32(&c, "b2", S(1), 0));
    REFUSE(LQ("losses"), "{\"w_rec\": -1}", "option w_rec is -1, expected [0,inf)");
    REFUSE(LQ("losses"), "{\"w_gp\": -1}", "option w_gp is -1, expected [0,inf)");
    REFUSE(LQ("losses"), "{\"target\": -1}", "option target is -1, expected [0,inf)");
    REFUSE(LQ("losses"), NULL, "x_disc must be f32[1,2], not f32[1,3]", F32(&c, "mu", S(1, 1), 0),
           F32(&c, "logvar", S(1, 1), 0), F32(&c, "x_true", S(1, 2), 0, 0),
           F32(&c, "x_cont", S(1, 2), 0, 0), F32(&c, "x_disc", S(1, 3), 0, 0, 0),
           F32(&c, "grad_norm", S(1), 0));
    REFUSE(LQ("bit_flips"), NULL, "code_b must be f32[1,2], not f32[2,2]",
           F32(&c, "code_a", S(1, 2), 0, 0), F32(&c, "code_b", S(2, 2), 0, 0, 0, 0));
    REFUSE(LQ("fgsm"), "{\"eps\": -1}", "option eps is -1, expected [0,inf)");
    REFUSE(LQ("fgsm"), "{\"lo\": 1, \"hi\": 1}", "option hi is 1, expected > lo");
    REFUSE(LQ("fgsm"), "{\"renorm\": \"max\"}",
           "option renorm is \"max\", expected one of clip|minmax|none");
}

/* --- AdaMixUp --------------------------------------------------------------------------------- */

static void a_sure_policy_keeps_one_of_the_pair(void **state)
{
    (void)state;
    call c = start("adamixup_mix", NULL);
    F32(&c, "x1", S(3), 4, 4, 4);
    F32(&c, "x2", S(3), 8, 8, 8);
    F32(&c, "y1", S(3, 2), 1, 0, 1, 0, 1, 0);
    F32(&c, "y2", S(3, 2), 0, 1, 0, 1, 0, 1);
    F32(&c, "gate_logits", S(3, 3), 200, 0, 0, 0, 200, 0, 0, 0, 200);
    F32(&c, "u", S(3), 0.3, 0.25, 1);
    give_to(&c.cotangent, "x_mix", (bl_type){BL_F32, S(3)}, VALUES(1, 1, 1));
    accept(&c, NULL);
    expect(&c, "lam", 1, 0.25, 0);
    expect(&c, "x_mix", 4, 7, 8);
    expect(&c, "y_mix", 1, 0, 0.25, 0.75, 0, 1);
    near(slope(&c, "x1", 1), 0.25);
    near(slope(&c, "gate_logits", 4), 0); /* saturated */
    all_finite(&c.gradient);
    F32(&c, "gate_logits", S(3, 3), 0, 0, 0, 0, 0, 0, 0, 0, 0);
    F32(&c, "u", S(3), 0, 0.5, 1);
    accept(&c, NULL);
    expect(&c, "lam", 1 / 3.0, 0.5, 2 / 3.0);
    /* d lam / d gate = s0 (e0 - s) + u s1 (e1 - s); dx = (x1 - x2) of it */
    near(slope(&c, "gate_logits", 0), -4 * (1 / 3.0) * (2 / 3.0));
    near(slope(&c, "gate_logits", 7), -4 * (1 / 3.0) * (2 / 3.0 - 1 / 3.0));
    finish(&c);
}

static void an_interval_never_leaves_zero_to_one(void **state)
{
    (void)state;
    call c = start("adamixup_region", NULL);
    F32(&c, "gate_logits", S(2, 3), 80, 80, -80, 1000, -1000, 0);
    accept(&c, NULL);
    expect(&c, "lo", 0.5, 1);
    expect(&c, "width", 0.5, 0);
    F32(&c, "gate_logits", S(0, 3), 0);
    accept(&c, NULL);
    finish(&c);
}

static void an_empty_part_of_the_batch_costs_nothing(void **state)
{
    (void)state;
    for (int mixed = 0; mixed < 2; mixed++) {
        call c = start("adamixup_loss", "{\"w_intr\": 2}");
        F32(&c, "cls_logits", S(1, 2), 0, 0);
        F32(&c, "cls_targets", S(1, 2), 0.25, 0.75);
        I32(&c, "cls_mixed", S(1), mixed);
        F32(&c, "intr_logits", S(1, 2), 80, -80);
        I32(&c, "intr_real", S(1), 1);
        accept(&c, "loss");
        expect(&c, "ce_clean", mixed ? 0 : log(2));
        expect(&c, "ce_mixed", mixed ? log(2) : 0);
        expect(&c, "ce_intr", 160);
        near(result(&c, "loss", 0), log(2) + 320);
        near(slope(&c, "cls_logits", 0), 0.25);
        near(slope(&c, "intr_logits", 0), 2);
        finish(&c);
    }
}

static void sum_counts_each_part_once_and_concat_each_row(void **state)
{
    (void)state;
    call c = start("adamixup_loss", "{\"w_intr\": 0}");
    F32(&c, "cls_logits", S(3, 2), 0, 0, 100, -100, 0, 0);
    F32(&c, "cls_targets", S(3, 2), 1, 0, 0, 1, 0.5, 0.5);
    I32(&c, "cls_mixed", S(3), 0, 1, 0);
    F32(&c, "intr_logits", S(1, 2), 1, 0);
    I32(&c, "intr_real", S(1), 0);
    accept(&c, "loss");
    near(result(&c, "loss", 0), log(2) + 200);
    near(slope(&c, "cls_targets", 3), 200);
    near(slope(&c, "intr_logits", 0), 0);
    c.options = "{\"w_intr\": 0, \"reduction\": \"concat\"}";
    accept(&c, "loss");
    near(result(&c, "loss", 0), (2 * log(2) + 200) / 3);
    near(slope(&c, "cls_targets", 3), 200 / 3.0);
    finish(&c);
}

static void the_policy_sees_the_pair_through_noise(void **state)
{
    (void)state;
    call c = start("adamixup_policy_input", NULL);
    F32(&c, "x1", S(2), 1, 2);
    F32(&c, "x2", S(2), 3, 4);
    F32(&c, "m1", S(2), 2, 0);
    F32(&c, "m2", S(2), -1, 0.5);
    give_to(&c.cotangent, "p", (bl_type){BL_F32, S(2)}, VALUES(1, 10));
    accept(&c, NULL);
    expect(&c, "p", -0.5, 1);
    near(slope(&c, "x1", 0), 1);
    near(slope(&c, "x2", 1), 2.5);
    finish(&c);
}

#define PAIR(c)                                                                                    \
    F32(c, "x1", S(1, 2), 0, 0), F32(c, "x2", S(1, 2), 0, 0), F32(c, "y1", S(1, 2), 1, 0),         \
        F32(c, "y2", S(1, 2), 0, 1), F32(c, "gate_logits", S(1, 3), 0, 0, 0), F32(c, "u", S(1), 0)
#define ADAMIXUP_ROWS(c)                                                                           \
    F32(c, "cls_logits", S(1, 2), 0, 0), F32(c, "cls_targets", S(1, 2), 1, 0),                     \
        I32(c, "cls_mixed", S(1), 0), F32(c, "intr_logits", S(1, 2), 0, 0),                        \
        I32(c, "intr_real", S(1), 0)

static void adamixup_refuses(void **state)
{
    (void)state;
    REFUSE("adamixup_policy_input", NULL, "m2 must be f32[1,2], not f32[1,3]",
           F32(&c, "x1", S(1, 2), 0, 0), F32(&c, "x2", S(1, 2), 0, 0), F32(&c, "m1", S(1, 2), 0, 0),
           F32(&c, "m2", S(1, 3), 0, 0, 0));
    REFUSE("adamixup_region", NULL, "gate_logits must be f32[B,3], not f32[1,2]",
           F32(&c, "gate_logits", S(1, 2), 0, 0));
    REFUSE("adamixup_mix", NULL, "x2 must be f32[1,2], not f32[1,1]", PAIR(&c),
           F32(&c, "x2", S(1, 1), 0));
    REFUSE("adamixup_mix", NULL, "y2 must be f32[1,2], not f32[1,3]", PAIR(&c),
           F32(&c, "y2", S(1, 3), 0, 0, 0));
    REFUSE("adamixup_mix", NULL, "u[0] is 1.5, expected [0,1]", PAIR(&c), F32(&c, "u", S(1), 1.5));
    REFUSE("adamixup_mix", NULL, "u[0] is -0.5, expected [0,1]", PAIR(&c),
           F32(&c, "u", S(1), -0.5));
    REFUSE("adamixup_mix", NULL, "x1 has no rows, expected at least one", F32(&c, "x1", S(0, 2), 0),
           F32(&c, "x2", S(0, 2), 0), F32(&c, "y1", S(0, 2), 0), F32(&c, "y2", S(0, 2), 0),
           F32(&c, "gate_logits", S(0, 3), 0), F32(&c, "u", S(0), 0));
    REFUSE("adamixup_loss", NULL, "cls_mixed[0] is 2, expected in {0,1}", ADAMIXUP_ROWS(&c),
           I32(&c, "cls_mixed", S(1), 2));
    REFUSE("adamixup_loss", NULL, "intr_real[0] is -1, expected in {0,1}", ADAMIXUP_ROWS(&c),
           I32(&c, "intr_real", S(1), -1));
    REFUSE("adamixup_loss", NULL, "cls_targets[0,1] is inf, expected finite", ADAMIXUP_ROWS(&c),
           F32(&c, "cls_targets", S(1, 2), 0, INFINITY));
    REFUSE("adamixup_loss", NULL, "intr_logits must be f32[M,2], not f32[1,3]", ADAMIXUP_ROWS(&c),
           F32(&c, "intr_logits", S(1, 3), 0, 0, 0));
    REFUSE("adamixup_loss", NULL, "cls_logits has no rows, expected at least one",
           ADAMIXUP_ROWS(&c), F32(&c, "cls_logits", S(0, 2), 0), F32(&c, "cls_targets", S(0, 2), 0),
           I32(&c, "cls_mixed", S(0), 0));
    REFUSE("adamixup_loss", NULL, "intr_logits has no rows, expected at least one",
           ADAMIXUP_ROWS(&c), F32(&c, "intr_logits", S(0, 2), 0), I32(&c, "intr_real", S(0), 0));
    REFUSE("adamixup_loss", "{\"reduction\": \"mean\"}",
           "option reduction is \"mean\", expected one of sum|concat");
    REFUSE("adamixup_loss", "{\"w_intr\": -1}", "option w_intr is -1, expected [0,inf)");
}

/* --- noise mask ------------------------------------------------------------------------------- */

static void the_running_base_moves_for_the_next_batch(void **state)
{
    (void)state;
    call c = start("noise_mask_concentration", "{\"decay\": 0.5, \"ema\": 0.75}");
    F32(&c, "head_a", S(2, 1), log(4), log(16));
    F32(&c, "head_b", S(2, 1), 0, 0);
    F32(&c, "base_a", S(1, 1), 0);
    F32(&c, "base_b", S(1, 1), 0);
    give_to(&c.cotangent, "conc_a", (bl_type){BL_F32, S(2, 1)}, VALUES(1, 1));
    give_to(&c.cotangent, "new_base_a", (bl_type){BL_F32, S(1, 1)}, VALUES(100));
    accept(&c, NULL);
    expect(&c, "conc_a", 2, 4);
    expect(&c, "new_base_a", 0.25 * log(8));
    near(slope(&c, "head_a", 0), 1); /* nothing from the base */
    near(slope(&c, "head_a", 1), 2);
    F32(&c, "head_a", S(2, 1), 160, -160); /* exp(80) and exp(-80) are still accepted */
    accept(&c, NULL);
    all_finite(&c.out);
    finish(&c);
}

static void a_coarse_mask_is_read_by_its_cells(void **state)
{
    (void)state;
    call c = start("noise_mask_render", "{\"grid\": 2, \"kernel\": 1}");
    F32(&c, "mask", S(1, 4), 1, 2, 3, 4);
    F32(&c, "image", S(1, 3, 1, 2), 1, 1, 1, -1, 2, 0);
    give_to(&c.cotangent, "masked", (bl_type){BL_F32, S(1, 3, 1, 2)}, VALUES(1, 1, 1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "full", 1, 1, 3); /* floor(i 2/3) = 0, 0, 1; the one column is the first cell */
    expect(&c, "masked", 1, 1, 1, -1, 6, 0);
    near(slope(&c, "mask", 0), 2);
    near(slope(&c, "mask", 2), 2);
    near(slope(&c, "mask", 3), 0);
    near(slope(&c, "image", 5), 3);
    finish(&c);
}

static void a_blurred_mask_mirrors_without_its_edge(void **state)
{
    (void)state;
    call c = start("noise_mask_render", "{\"grid\": 3, \"kernel\": 5, \"sigma\": 1e6}");
    F32(&c, "mask", S(1, 9), 1, 4, 10, 1, 4, 10, 1, 4, 10);
    F32(&c, "image", S(1, 3, 3, 1), 1, 1, 1, 1, 1, 1, 1, 1, 1);
    accept(&c, NULL);
    near(result(&c, "full", 0), (10 + 4 + 1 + 4 + 10) / 5.0);
    near(result(&c, "full", 4), (4 + 1 + 4 + 10 + 4) / 5.0);
    near(result(&c, "full", 8), (1 + 4 + 10 + 4 + 1) / 5.0);
    finish(&c);
}

static void a_uniform_mask_is_scored_by_its_cost_only(void **state)
{
    (void)state;
    call c = start("noise_mask_objective", NULL);
    F32(&c, "conc_a", S(2, 3), 1, 1, 1, 1, 1, 1);
    F32(&c, "conc_b", S(2, 3), 1, 1, 1, 1, 1, 1);
    F32(&c, "mask", S(2, 3), 0, 0.5, 1, 0.25, 0.75, 0.5);
    F32(&c, "ce", S(2), 1, 3);
    accept(&c, "loss");
    expect(&c, "lse", log(3), log(3));
    expect(&c, "logp_sum", 0, 0);
    near(result(&c, "loss", 0), 2 * log(3));
    near(slope(&c, "ce", 0), 0.5 * log(3));
    c.options = "{\"form\": \"per_sample\"}";
    accept(&c, "loss");
    near(slope(&c, "ce", 1), 0.5 * log(3));
    c.options = "{\"form\": \"reinforce\", \"baseline\": 2, \"clamp\": 0.25}";
    accept(&c, "loss");
    expect(&c, "loss", 2);
    near(slope(&c, "ce", 1), 0.5); /* the cost of the mask is no path to the classifier */
    near(slope(&c, "conc_a", 0), 0.5 * (log(0.25) + 1) * (1 - 2)); /* log m - psi(1) + psi(2) */
    near(slope(&c, "conc_b", 4), 0.5 * (log(0.25) + 1) * (3 - 2));
    finish(&c);
}

static void a_density_at_the_mask_s_ends_is_finite(void **state)
{
    (void)state;
    call c = start("noise_mask_objective", "{\"form\": \"reinforce\"}");
    F32(&c, "conc_a", S(1, 4), 1e-3, 500, 1e-3, 1e4);
    F32(&c, "conc_b", S(1, 4), 1e-3, 0.5, 40, 1e4);
    F32(&c, "mask", S(1, 4), 0, 0, 1, 0.5);
    F32(&c, "ce", S(1), 2);
    accept(&c, "loss");
    all_finite(&c.out);
    all_finite(&c.gradient);
    /* log(1-m) - psi(b) + psi(a+b) = 1/(4b) + 1/(16b^2) + .. */
    near(slope(&c, "conc_b", 3) / (2 * (0.25e-4 + 0.0625e-8)), 1);
    finish(&c);
}

static void moments_of_a_uniform_mask(void **state)
{
    (void)state;
    call c = start("noise_mask_beta_moments", NULL);
    F32(&c, "conc_a", S(4), 1, 1e-20, 1e25, 3e-25);
    F32(&c, "conc_b", S(4), 1, 1e-20, 1e25, 1e-25);
    give_to(&c.cotangent, "mean", (bl_type){BL_F32, S(4)}, VALUES(1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "mean", 0.5, 0.5, 0.5, 0.75);
    expect(&c, "var", 1 / 12.0, 0.25, 0, 3 / 16.0);
    near(slope(&c, "conc_a", 0), 0.25);
    near(slope(&c, "conc_a", 1) / 2.5e19, 1); /* b / (a+b)^2, though the square underflows */
    near(slope(&c, "conc_a", 2), 0);
    near(slope(&c, "conc_b", 3) / -1.875e24, 1);
    finish(&c);
}

#define HEADS(c)                                                                                   \
    F32(c, "head_a", S(1, 2), 0, 0), F32(c, "head_b", S(1, 2), 0, 0),                              \
        F32(c, "base_a", S(1, 2), 0, 0), F32(c, "base_b", S(1, 2), 0, 0)
#define PICTURE(c)                                                                                 \
    F32(c, "mask", S(1, 4), 0, 0, 0, 0), F32(c, "image", S(1, 2, 3, 1), 0, 0, 0, 0, 0, 0)
#define SAMPLE(c)                                                                                  \
    F32(c, "conc_a", S(1, 2), 1, 1), F32(c, "conc_b", S(1, 2), 1, 1),                              \
        F32(c, "mask", S(1, 2), 0, 1), F32(c, "ce", S(1), 1)

static void noise_mask_refuses(void **state)
{
    (void)state;
    REFUSE("noise_mask_concentration", "{\"decay\": 1.5}", "option decay is 1.5, expected [0,1]");
    REFUSE("noise_mask_concentration", "{\"ema\": -1}", "option ema is -1, expected [0,1]");
    REFUSE("noise_mask_concentration", NULL, "base_a must be f32[1,2], not f32[2,1]", HEADS(&c),
           F32(&c, "base_a", S(2, 1), 0, 0));
    REFUSE("noise_mask_concentration", "{\"decay\": 0}",
           "head_b[0,1] and base_b give a concentration of exp(81), expected exp(-80) to exp(80)",
           HEADS(&c), F32(&c, "head_b", S(1, 2), 0, 81));
    REFUSE("noise_mask_concentration", "{\"decay\": 1}",
           "head_a[0,0] and base_a give a concentration of exp(-90), expected exp(-80) to exp(80)",
           HEADS(&c), F32(&c, "base_a", S(1, 2), -90, 0));
    REFUSE("noise_mask_render", "{\"grid\": 0}", "option grid is 0, expected >= 1");
    REFUSE("noise_mask_render", "{\"kernel\": 4}", "option kernel is 4, expected odd");
    REFUSE("noise_mask_render", "{\"kernel\": -1}", "option kernel is -1, expected >= 1");
    REFUSE("noise_mask_render", "{\"sigma\": 0}", "option sigma is 0, expected (0,inf)");
    REFUSE("noise_mask_render", "{\"grid\": 3, \"kernel\": 1}",
           "mask has 4 cells, expected grid^2 with a grid of 3", PICTURE(&c));
    REFUSE("noise_mask_render", "{\"grid\": 4294967298, \"kernel\": 1}",
           "mask has 4 cells, expected grid^2 with a grid of 4294967298", PICTURE(&c));
    REFUSE("noise_mask_render", "{\"grid\": 2, \"kernel\": 5}",
           "option kernel is 5, but half of it must be less than the image's shorter side, 2",
           PICTURE(&c));
    REFUSE("noise_mask_render", NULL, "image must be f32[1,H,W,C], not f32[2,1,1,1]", PICTURE(&c),
           F32(&c, "image", S(2, 1, 1, 1), 0, 0));
    REFUSE("noise_mask_objective", NULL, "conc_a[0,1] is 0, expected > 0", SAMPLE(&c),
           F32(&c, "conc_a", S(1, 2), 1, 0));
    REFUSE("noise_mask_objective", NULL, "conc_b[0,0] is -1, expected > 0", SAMPLE(&c),
           F32(&c, "conc_b", S(1, 2), -1, 1));
    REFUSE("noise_mask_objective", NULL, "mask[0,1] is 1.5, expected [0,1]", SAMPLE(&c),
           F32(&c, "mask", S(1, 2), 1, 1.5));
    REFUSE("noise_mask_objective", NULL, "ce must be f32[1], not f32[2]", SAMPLE(&c),
           F32(&c, "ce", S(2), 1, 1));
    REFUSE("noise_mask_objective", "{\"form\": \"paper\"}",
           "option form is \"paper\", expected one of official|per_sample|reinforce");
    REFUSE("noise_mask_objective", "{\"clamp\": 0}", "option clamp is 0, expected (0,0.5)");
    REFUSE("noise_mask_objective", "{\"clamp\": 0.5}", "option clamp is 0.5, expected (0,0.5)");
    REFUSE("noise_mask_beta_moments", NULL, "conc_b[1] is 0, expected > 0",
           F32(&c, "conc_a", S(2), 1, 1), F32(&c, "conc_b", S(2), 1, 0));
    REFUSE("noise_mask_beta_moments", NULL, "conc_b must be f32[2], not f32[1]",
           F32(&c, "conc_a", S(2), 1, 1), F32(&c, "conc_b", S(1), 1));
}

/* --- contextual fusion ------------------------------------------------------------------------ */

#define STREAMS(c)                                                                                 \
    F32(c, "fg", S(1, 1), 2), F32(c, "bg", S(1, 2), 1, -1), F32(c, "w_fg", S(2, 1), 3, -4),        \
        F32(c, "w_bg", S(2, 2), 0, 1, 1, 0), F32(c, "bias", S(2), 0.5, 0)

static void the_penalty_falls_on_the_attacked_stream(void **state)
{
    (void)state;
    call c = start("contextual_fusion_loss", "{\"alpha\": 0.5}");
    STREAMS(&c);
    I32(&c, "labels", S(1), 1);
    accept(&c, "loss");
    expect(&c, "penalty", 25);
    near(result(&c, "ce", 0), 12.5 + log1p(exp(-12.5))); /* logits 5.5 and -7 */
    near(result(&c, "loss", 0), result(&c, "ce", 0) + 12.5);
    double p = 1 / (1 + exp(-12.5));
    near(slope(&c, "w_fg", 0), 2 * p + 3);
    near(slope(&c, "w_bg", 1), -p);
    near(slope(&c, "bias", 0), p);
    F32(&c, "fg", S(1, 1), 1e4); /* hopeless, and still finite */
    accept(&c, "loss");
    near(result(&c, "ce", 0), 7e4 - 1.5);
    all_finite(&c.gradient);
    finish(&c);
}

static void one_class_costs_nothing(void **state)
{
    (void)state;
    call c = start("contextual_fusion_loss", NULL);
    F32(&c, "fg", S(2, 1), 2, 3);
    F32(&c, "bg", S(2, 1), 1, 1);
    F32(&c, "w_fg", S(1, 1), 3);
    F32(&c, "w_bg", S(1, 1), 3);
    F32(&c, "bias", S(1), 0);
    I32(&c, "labels", S(2), 0, 0);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    near(slope(&c, "w_fg", 0), 0);
    finish(&c);
}

static void a_filter_wider_than_the_image_is_mirrored_again(void **state)
{
    (void)state;
    call c = start("contextual_fusion_blur", "{\"sigma\": 1e3, \"truncate\": 0.003}");
    F32(&c, "x", S(1, 1, 2, 1), 0, 7); /* a b; the radius is 3 */
    give_to(&c.cotangent, "blurred", (bl_type){BL_F32, S(1, 1, 2, 1)}, VALUES(1, 0));
    accept(&c, NULL);
    assert_true(fabs(result(&c, "blurred", 0) - 4) <
                1e-4); /* b b a a b b a, nearly equal weights */
    near(slope(&c, "x", 0) + slope(&c, "x", 1), 1);
    c.options = "{\"sigma\": 0.1}"; /* a radius of 0 leaves the image */
    accept(&c, NULL);
    expect(&c, "blurred", 0, 7);
    c.options = "{\"sigma\": 0}";
    accept(&c, NULL);
    expect(&c, "blurred", 0, 7);
    near(slope(&c, "x", 0), 1);
    finish(&c);
}

static void weightless_classes_rest_on_both_streams(void **state)
{
    (void)state;
    call c = start("contextual_fusion_balance", NULL);
    F32(&c, "w_fg", S(4, 2), 0, 0, 0, 0, 3e-30, 4e-30, 3e30, 0);
    F32(&c, "w_bg", S(4, 1), 0, 2, 15e-30, 1e30);
    accept(&c, NULL);
    expect(&c, "fg_share", 0.5, 0, 0.25, 0.75);
    finish(&c);
}

static void a_step_without_gradient_is_only_cut(void **state)
{
    (void)state;
    call c = start("contextual_fusion_fgsm", "{\"eps\": 0.25}");
    F32(&c, "x", S(4), 0.5, 0.9, -0.5, 0.1);
    F32(&c, "grad", S(4), 0, 1e-30, 0, -3);
    accept(&c, NULL);
    expect(&c, "x_adv", 0.5, 1, 0, 0);
    finish(&c);
}

static void contextual_fusion_refuses(void **state)
{
    (void)state;
    REFUSE("contextual_fusion_logits", NULL, "w_fg must be f32[C,1], not f32[2,3]", STREAMS(&c),
           F32(&c, "w_fg", S(2, 3), 0, 0, 0, 0, 0, 0));
    REFUSE("contextual_fusion_logits", NULL, "w_bg must be f32[2,2], not f32[1,2]", STREAMS(&c),
           F32(&c, "w_bg", S(1, 2), 0, 0));
    REFUSE("contextual_fusion_logits", NULL, "bias must be f32[2], not f32[3]", STREAMS(&c),
           F32(&c, "bias", S(3), 0, 0, 0));
    REFUSE("contextual_fusion_logits", NULL, "fg has no rows, expected at least one", STREAMS(&c),
           F32(&c, "fg", S(0, 1), 0), F32(&c, "bg", S(0, 2), 0));
    REFUSE("contextual_fusion_logits", NULL, "w_fg has no rows, expected at least one", STREAMS(&c),
           F32(&c, "w_fg", S(0, 1), 0), F32(&c, "w_bg", S(0, 2), 0), F32(&c, "bias", S(0), 0));
    REFUSE("contextual_fusion_loss", NULL, "labels[0] is 2, expected 0 <= . < C", STREAMS(&c),
           I32(&c, "labels", S(1), 2));
    REFUSE("contextual_fusion_loss", NULL, "labels[0] is -1, expected 0 <= . < C", STREAMS(&c),
           I32(&c, "labels", S(1), -1));
    REFUSE("contextual_fusion_loss", "{\"alpha\": -0.1}", "option alpha is -0.1, expected [0,inf)");
    REFUSE("contextual_fusion_fgsm", "{\"lo\": 1}", "option hi is 1, expected > lo");
    REFUSE("contextual_fusion_fgsm", "{\"eps\": -1}", "option eps is -1, expected [0,inf)");
    REFUSE("contextual_fusion_fgsm", NULL, "grad must be f32[2], not f32[1]",
           F32(&c, "x", S(2), 0, 0), F32(&c, "grad", S(1), 0));
    REFUSE("contextual_fusion_blur", "{\"sigma\": -1}", "option sigma is -1, expected [0,inf)");
    REFUSE("contextual_fusion_blur", "{\"truncate\": 0}", "option truncate is 0, expected (0,inf)");
    REFUSE("contextual_fusion_blur", NULL, "x must be f32[B,H,W,C], not f32[2,2]",
           F32(&c, "x", S(2, 2), 0, 0, 0, 0));
    REFUSE("contextual_fusion_balance", NULL, "w_bg must be f32[1,Db], not f32[2,1]",
           F32(&c, "w_fg", S(1, 1), 0), F32(&c, "w_bg", S(2, 1), 0, 0));
}

/* --- boundary tilting ------------------------------------------------------------------------- */

#define BT(name) "boundary_tilting_" name

static void angles_keep_their_digits_at_both_ends(void **state)
{
    (void)state;
    call c = start(BT("angle"), NULL);
    F32(&c, "w", S(2), 3e-30, 0); /* of any length */
    F32(&c, "mean_i", S(2), 1, 1);
    F32(&c, "mean_j", S(2), 3, 1 + 0x1p-20);
    accept(&c, "angle");
    near(result(&c, "angle", 0) / 0x1p-21, 1); /* acos gives 0 in single precision */
    expect(&c, "half_gap", 1);
    near(slope(&c, "mean_j", 1), 0.5);
    F32(&c, "w", S(2), -3, -4);
    F32(&c, "mean_i", S(2), 0, 0);
    F32(&c, "mean_j", S(2), 6, 8);
    accept(&c, "cos");
    expect(&c, "cos", -1);
    expect(&c, "angle", pi);
    expect(&c, "strength", 1);
    for (int i = 0; i < 2; i++)
        near(slope(&c, "w", i), 0);
    accept(&c, "angle");
    all_finite(&c.gradient);
    F32(&c, "w", S(2), 0, 1);
    F32(&c, "mean_j", S(2), 5, 0);
    accept(&c, NULL);
    expect(&c, "cos", 0);
    expect(&c, "angle", pi / 2);
    expect(&c, "strength", INFINITY);
    finish(&c);
}

static void a_mirror_image_is_as_far_on_the_other_side(void **state)
{
    (void)state;
    call c = start(BT("mirror"), "{\"strength\": -1}");
    F32(&c, "x", S(2, 2), 3, 4, 0, 0);
    F32(&c, "w", S(2), 3, 4);
    F32(&c, "b", BL_SCALAR, 0);
    give_to(&c.cotangent, "distance", (bl_type){BL_F32, S(2)}, VALUES(1, 0));
    accept(&c, NULL);
    expect(&c, "distance", 5, 0);
    expect(&c, "projection", 0, 0, 0, 0);
    expect(&c, "mirror", -3, -4, 0, 0);
    expect(&c, "adversarial", 3, 4, 0, 0);
    near(slope(&c, "x", 0), 0.6);
    near(slope(&c, "b", 0), 0.2);
    near(slope(&c, "w", 0), 0); /* it already points at x */
    c.options = "{\"strength\": 2}";
    accept(&c, NULL);
    expect(&c, "adversarial", -6, -8, 0, 0);
    finish(&c);
}

static void the_distance_to_the_boundary_is_the_gap_times_the_cosine(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        call c = start(BT("adversarial_distance"), NULL);
        F32(&c, "x_i", S(2, 2), -1, 0, 0, k);
        F32(&c, "x_j", S(1, 2), 2, 1);
        F32(&c, "w", S(2), 1, k - 1);
        F32(&c, "b", BL_SCALAR, 10 * k);
        accept(&c, "d_adv");
        near(slope(&c, "b", 0), 0);
        call a = start(BT("angle"), NULL);
        F32(&a, "w", S(2), 1, k - 1);
        F32(&a, "mean_i", S(2), -0.5, 0.5 * k);
        F32(&a, "mean_j", S(2), 2, 1);
        accept(&a, NULL);
        near(result(&c, "cos", 0), result(&a, "cos", 0));
        near(result(&c, "half_gap", 0), result(&a, "half_gap", 0));
        near(result(&c, "d_adv", 0), result(&c, "cos", 0) * result(&c, "half_gap", 0));
        finish(&a);
        finish(&c);
    }
}

static void a_tilted_boundary_keeps_its_pivot(void **state)
{
    (void)state;
    static const double theta[] = {0, 0.5, -1.5, 1.57079};
    for (int k = 0; k < COUNT_OF(theta); k++) {
        char *options = bl_format("{\"theta\": %.17g}", theta[k]);
        call c = start(BT("tilt"), options);
        F32(&c, "w", S(2), 2, 0);
        F32(&c, "b", BL_SCALAR, -6); /* the boundary x = 3 */
        F32(&c, "direction", S(2), 5, 0.5);
        F32(&c, "pivot", S(2), 7, 2); /* drops to (3, 2) */
        accept(&c, "b");
        expect(&c, "w", cos(theta[k]), sin(theta[k]));
        near(result(&c, "b", 0), -3 * cos(theta[k]) - 2 * sin(theta[k]));
        near(slope(&c, "pivot", 1), -sin(theta[k]));
        near(slope(&c, "pivot", 0), 0);
        finish(&c);
        bl_release(options);
    }
}

static void a_margin_of_one_is_flat(void **state)
{
    (void)state;
    call c = start(BT("objective"), "{\"lam\": 2}");
    F32(&c, "x", S(2, 1), 1, -3);
    I32(&c, "y", S(2), 1, 1);
    F32(&c, "w", S(1), 0.5);
    F32(&c, "b", BL_SCALAR, 0.5); /* margins 1 and -1 */
    accept(&c, "data");
    expect(&c, "data", 1);
    expect(&c, "loss", 1.25);
    near(slope(&c, "x", 0), 0);
    near(slope(&c, "x", 1), -0.25);
    near(slope(&c, "b", 0), -0.5);
    accept(&c, "loss");
    near(slope(&c, "w", 0), 1.5 + 1);
    near(slope(&c, "b", 0), -0.5); /* not regularised */
    c.options = "{\"lam\": 0, \"loss\": \"logistic\"}";
    F32(&c, "x", S(2, 1), 1e4, -1e4);
    accept(&c, "loss");
    near(result(&c, "loss", 0), 4999.5 / 2);
    near(slope(&c, "w", 0), 5e3);
    all_finite(&c.gradient);
    finish(&c);
}

static void energies_sum_to_one(void **state)
{
    (void)state;
    call c = start(BT("profile"), NULL);
    F32(&c, "x", S(2, 3), 1, 5, 2, 1, 9, 2); /* one direction varies, and N < D */
    F32(&c, "w", S(3), 0, -3e-20, 0);
    F32(&c, "mean_i", S(3), 0, 0, 0);
    F32(&c, "mean_j", S(3), 3, 4, 0);
    accept(&c, NULL);
    expect(&c, "variance", 0, 0, 4);
    expect(&c, "normal_energy", 0, 0, 1);
    near(result(&c, "centroid_energy", 2), 0.64);
    near(result(&c, "centroid_energy", 0) + result(&c, "centroid_energy", 1), 0.36);
    finish(&c);
}

#define PLANE(c)   F32(c, "w", S(2), 1, 0), F32(c, "b", BL_SCALAR, 0)
#define CLASSES(c) PLANE(c), F32(c, "x_i", S(2, 2), 0, 0, 1, 1), F32(c, "x_j", S(1, 2), 1, 0)
#define MEANS(c)   F32(c, "w", S(2), 1, 0), F32(c, "mean_i", S(2), 1, 1), F32(c, "mean_j", S(2), 2, 1)
#define TILT(c)    PLANE(c), F32(c, "direction", S(2), 0, 1), F32(c, "pivot", S(2), 0, 0)
#define POINTS(c)  PLANE(c), F32(c, "x", S(1, 2), 0, 0), I32(c, "y", S(1), 1)

static void boundary_tilting_refuses(void **state)
{
    (void)state;
    REFUSE(BT("angle"), NULL, "w is all 0, expected an element", MEANS(&c), F32(&c, "w", S(2), 0, 0));
    REFUSE(BT("angle"), NULL, "mean_i and mean_j are equal: the class means coincide", MEANS(&c),
           F32(&c, "mean_j", S(2), 1, 1));
    REFUSE(BT("angle"), NULL, "mean_j must be f32[2], not f32[3]", MEANS(&c),
           F32(&c, "mean_j", S(3), 1, 1, 1));
    REFUSE(BT("mirror"), NULL, "w is all 0, expected an element", PLANE(&c),
           F32(&c, "x", S(1, 2), 1, 1), F32(&c, "w", S(2), 0, 0));
    REFUSE(BT("mirror"), NULL, "w must be f32[3], not f32[2]", PLANE(&c),
           F32(&c, "x", S(1, 3), 1, 1, 1));
    REFUSE(BT("mirror"), NULL, "x has no rows, expected at least one", PLANE(&c),
           F32(&c, "x", S(0, 2), 0));
    REFUSE(BT("adversarial_distance"), NULL, "x_i has no rows, expected at least one", CLASSES(&c),
           F32(&c, "x_i", S(0, 2), 0));
    REFUSE(BT("adversarial_distance"), NULL, "x_j has no rows, expected at least one", CLASSES(&c),
           F32(&c, "x_j", S(0, 2), 0));
    REFUSE(BT("adversarial_distance"), NULL, "x_j must be f32[Bj,2], not f32[1,1]", CLASSES(&c),
           F32(&c, "x_j", S(1, 1), 0));
    REFUSE(BT("adversarial_distance"), NULL, "w is all 0, expected an element", CLASSES(&c),
           F32(&c, "w", S(2), 0, 0));
    REFUSE(BT("adversarial_distance"), NULL,
           "x_i and x_j have equal means: the class means coincide", CLASSES(&c),
           F32(&c, "x_j", S(1, 2), 0.5, 0.5));
    REFUSE(BT("tilt"), "{\"theta\": 1.5707963267948966}", "option theta is 1.57", TILT(&c));
    REFUSE(BT("tilt"), "{\"theta\": -2}", "option theta is -2, expected", TILT(&c));
    REFUSE(BT("tilt"), NULL, "w is all 0, expected an element", TILT(&c), F32(&c, "w", S(2), 0, 0));
    REFUSE(BT("tilt"), NULL, "direction is all 0, expected an element", TILT(&c),
           F32(&c, "direction", S(2), 0, 0));
    REFUSE(BT("tilt"), NULL, "direction is parallel to w", TILT(&c),
           F32(&c, "direction", S(2), -3, 0));
    REFUSE(BT("tilt"), NULL, "direction is parallel to w", TILT(&c),
           F32(&c, "direction", S(2), 1, 1e-7));
    REFUSE(BT("objective"), NULL, "y[0] is 2, expected in {0,1}", POINTS(&c),
           I32(&c, "y", S(1), 2));
    REFUSE(BT("objective"), NULL, "y must be i32[1], not i32[2]", POINTS(&c),
           I32(&c, "y", S(2), 0, 0));
    REFUSE(BT("objective"), "{\"lam\": -1}", "option lam is -1, expected [0,inf)");
    REFUSE(BT("objective"), "{\"loss\": \"svm\"}",
           "option loss is \"svm\", expected one of hinge|logistic");
    REFUSE(BT("profile"), NULL, "x has 1 rows, expected at least 2", MEANS(&c),
           F32(&c, "x", S(1, 2), 0, 0));
    REFUSE(BT("profile"), NULL, "w is all 0, expected an element", MEANS(&c), F32(&c, "w", S(2), 0, 0),
           F32(&c, "x", S(2, 2), 0, 0, 1, 1));
}

/* --- ConR, decoupled mixup, RandAugment: the rest --------------------------------------------- */

static void conr_with_rows_that_are_zero(void **state)
{
    (void)state;
    static const char *const options[] = {
        "{\"tau\": 0.01}", "{\"tau\": 0.01, \"push\": \"linear\", \"eta\": 0}",
        "{\"denominator\": \"official\", \"reduce_pos\": \"in\", \"dist\": \"l2\"}"};
    for (int k = 0; k < COUNT_OF(options); k++) {
        call c = start("conr_loss", options[k]);
        F32(&c, "features", S(4, 2), 0, 0, 1, 0, -1, 0, 1, 1e-20);
        F32(&c, "labels", S(4, 2), 0, 0, 0.5, 0.5, 3, 0, 3, 0);
        F32(&c, "preds", S(4, 2), 0, 0, 0, 0, 0, 0, 0, 0);
        F32(&c, "weights", S(4), 0, 1, 2, 0);
        accept(&c, "loss");
        all_finite(&c.out);
        all_finite(&c.gradient);
        expect(&c, "n_pos", 1, 1, 1, 1);
        expect(&c, "n_neg", 2, 2, 2, 2);
        expect(&c, "anchor", 1, 1, 1, 1);
        finish(&c);
    }
}

static void a_label_at_the_window_s_edge_is_inside(void **state)
{
    (void)state;
    call c = start("conr_loss", "{\"omega\": 2}");
    F32(&c, "features", S(3, 1), 1, 1, 1);
    F32(&c, "labels", S(3, 1), 0, 2, 5);
    F32(&c, "preds", S(3, 1), 0, 9, 2);
    F32(&c, "weights", S(3), 1, 1, 1);
    accept(&c, "loss");
    expect(&c, "n_pos", 1, 1, 0);
    expect(&c, "n_neg", 1, 0, 1);
    expect(&c, "anchor", 1, 0, 0);
    near(result(&c, "loss", 0), log1p(exp(0.05)) / 3); /* eta 0.01, labels 5 apart */
    finish(&c);
}

static void the_rest_is_refused(void **state)
{
    (void)state;
    REFUSE("conr_loss", "{\"eta\": -1}", "option eta is -1, expected [0,inf)");
    REFUSE("conr_loss", "{\"push\": \"log\"}",
           "option push is \"log\", expected one of exp|linear");
    REFUSE("conr_loss", "{\"denominator\": \"all\"}",
           "option denominator is \"all\", expected one of sets|official");
    REFUSE("conr_loss", "{\"reduce_pos\": \"sum\"}",
           "option reduce_pos is \"sum\", expected one of out|in");
    REFUSE("conr_label_weights", "{\"mode\": \"inv\"}",
           "option mode is \"inv\", expected one of none|sqrt_inv|inverse");
    REFUSE("conr_label_weights", "{\"kernel\": \"box\"}",
           "option kernel is \"box\", expected one of gaussian|triang|laplace");
    REFUSE("conr_label_weights", "{\"sigma\": 0}", "option sigma is 0, expected (0,inf)");
    REFUSE("decoupled_mixup_ce", "{\"thr\": 1.5}", "option thr is 1.5, expected [0,1]");
    REFUSE("decoupled_mixup_ce", "{\"lam_pow\": -1}", "option lam_pow is -1, expected [0,inf)");
    REFUSE("decoupled_mixup_ce", "{\"lam_thr\": 0}", "option lam_thr is 0, expected (0,1]");
    REFUSE("decoupled_mixup_ce", "{\"min_lam\": 0.5}", "option min_lam is 0.5, expected [0,0.5)");
    REFUSE("decoupled_mixup_bce", "{\"power\": -1}", "option power is -1, expected [0,inf)");
    REFUSE("randaugment_op", "{\"op\": \"Rotate\", \"arg\": \"inf\"}", "option arg is inf");
    REFUSE("randaugment_level", "{\"op\": \"Rotate\"}", "levels[0] is 31, expected 0 <= . <= 30",
           F32(&c, "levels", S(1), 31));
    REFUSE("randaugment_apply", "{\"magnitude\": 31}", "option magnitude is 31, expected [0,30]");
    REFUSE("randaugment_apply", "{\"level_map\": \"timm\"}",
           "option level_map is \"timm\", expected one of official|monotone");
}

static void no_operations_leave_the_images(void **state)
{
    (void)state;
    call c = start("randaugment_apply", NULL);
    I32(&c, "images", S(2, 1, 2, 1), 1, 2, 3, 255);
    I32(&c, "ops", S(2, 0), 0);
    I32(&c, "signs", S(2, 0), 0);
    I32(&c, "centers", S(2, 0, 2), 0);
    accept(&c, NULL);
    expect(&c, "images", 1, 2, 3, 255);
    finish(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_code_on_the_band_s_edge_has_no_bit),
        cmocka_unit_test(a_standard_normal_code_has_no_divergence),
        cmocka_unit_test(a_dead_encoder_has_a_norm_but_no_slope),
        cmocka_unit_test(encoder_and_decoders_have_their_own_losses),
        cmocka_unit_test(an_attacked_image_is_brought_back),
        cmocka_unit_test(a_bit_of_zero_is_its_own_value),
        cmocka_unit_test(latent_quantization_refuses),
        cmocka_unit_test(a_sure_policy_keeps_one_of_the_pair),
        cmocka_unit_test(an_interval_never_leaves_zero_to_one),
        cmocka_unit_test(an_empty_part_of_the_batch_costs_nothing),
        cmocka_unit_test(sum_counts_each_part_once_and_concat_each_row),
        cmocka_unit_test(the_policy_sees_the_pair_through_noise),
        cmocka_unit_test(adamixup_refuses),
        cmocka_unit_test(the_running_base_moves_for_the_next_batch),
        cmocka_unit_test(a_coarse_mask_is_read_by_its_cells),
        cmocka_unit_test(a_blurred_mask_mirrors_without_its_edge),
        cmocka_unit_test(a_uniform_mask_is_scored_by_its_cost_only),
        cmocka_unit_test(a_density_at_the_mask_s_ends_is_finite),
        cmocka_unit_test(moments_of_a_uniform_mask),
        cmocka_unit_test(noise_mask_refuses),
        cmocka_unit_test(the_penalty_falls_on_the_attacked_stream),
        cmocka_unit_test(one_class_costs_nothing),
        cmocka_unit_test(a_filter_wider_than_the_image_is_mirrored_again),
        cmocka_unit_test(weightless_classes_rest_on_both_streams),
        cmocka_unit_test(a_step_without_gradient_is_only_cut),
        cmocka_unit_test(contextual_fusion_refuses),
        cmocka_unit_test(angles_keep_their_digits_at_both_ends),
        cmocka_unit_test(a_mirror_image_is_as_far_on_the_other_side),
        cmocka_unit_test(the_distance_to_the_boundary_is_the_gap_times_the_cosine),
        cmocka_unit_test(a_tilted_boundary_keeps_its_pivot),
        cmocka_unit_test(a_margin_of_one_is_flat),
        cmocka_unit_test(energies_sum_to_one),
        cmocka_unit_test(boundary_tilting_refuses),
        cmocka_unit_test(conr_with_rows_that_are_zero),
        cmocka_unit_test(a_label_at_the_window_s_edge_is_inside),
        cmocka_unit_test(the_rest_is_refused),
        cmocka_unit_test(no_operations_leave_the_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
