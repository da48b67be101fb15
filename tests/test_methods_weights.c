/* The methods on what weights may be - MaskSparsity, AQT, sparse then prune, generalized Gaussian
 * priors - and on pretrained transformers: what their specs refuse, and facts about values and
 * gradients at shapes and corners that the reference cases do not have. */
#include <stdlib.h>

#include "calls.h"

/* --- MaskSparsity ----------------------------------------------------------------------------- */

static void a_penalty_is_of_pruned_channels_only(void **state)
{
    (void)state;
    call c = start("ms_penalty", "{\"s\": 2}");
    F32(&c, "gamma", S(2, 2), 3, -1, 0, -2);
    U8(&c, "pruned", S(2, 2), 0, 1, 1, 1);
    accept(&c, "penalty");
    expect(&c, "penalty", 6);
    near(slope(&c, "gamma", 0), 0);
    near(slope(&c, "gamma", 1), -2);
    near(slope(&c, "gamma", 2), 0);
    c.options = "{\"s\": 2, \"kind\": \"l2\"}";
    accept(&c, "penalty");
    expect(&c, "penalty", 5);
    near(slope(&c, "gamma", 3), -4);
    finish(&c);
}

static void a_gradient_edit_stops_chatter_near_zero(void **state)
{
    (void)state;
    call c = start("ms_grad", "{\"s\": 0.5, \"method\": \"smooth_l1\", \"lr\": 2}");
    F32(&c, "gamma", S(5), 0.5, -0.5, 1, -3, 0.5);
    F32(&c, "grad", S(5), 1, 1, 1, 1, 1);
    U8(&c, "pruned", S(5), 1, 1, 1, 1, 0);
    accept(&c, NULL);
    expect(&c, "grad_out", 1.25, 0.75, 1.5, 0.5, 1);
    c.options = "{\"s\": 0.5, \"method\": \"l2\"}";
    accept(&c, NULL);
    expect(&c, "grad_out", 1.25, 0.75, 1.5, -0.5, 1);
    c.options = "{\"s\": 0.5}";
    accept(&c, NULL);
    expect(&c, "grad_out", 1.5, 0.5, 1.5, 0.5, 1);
    finish(&c);
}

static void a_layer_keeps_its_largest_channels_ties_lowest_first(void **state)
{
    (void)state;
    call c = start("ms_channel_mask", "{\"value\": 5, \"min_channels\": 2}");
    F32(&c, "gamma", S(4), 1, -2, 2, 2);
    accept(&c, NULL);
    expect(&c, "keep", 0, 1, 1, 0);
    expect(&c, "n_keep", 2);
    expect(&c, "threshold", 5);
    c.options = "{\"value\": 2, \"min_channels\": 0}"; /* strictly above */
    accept(&c, NULL);
    expect(&c, "keep", 0, 0, 0, 0);
    c.options = "{\"method\": \"ratio\"}"; /* half of four: the second smallest */
    accept(&c, NULL);
    expect(&c, "threshold", 2);
    expect(&c, "keep", 0, 1, 0, 0);
    c.options = "{\"method\": \"ratio\", \"value\": 0.2}"; /* floor(0.8) = 0 are cut */
    accept(&c, NULL);
    expect(&c, "threshold", -1);
    expect(&c, "n_keep", 4);
    finish(&c);
}

static void an_energy_threshold_lies_between_two_channels(void **state)
{
    (void)state;
    call c = start("ms_channel_mask", "{\"method\": \"energy\", \"value\": 0.2}");
    F32(&c, "gamma", S(3), 2, -1, 1); /* squares 1, 1, 4: shares 1/6, 2/6 */
    accept(&c, NULL);
    expect(&c, "threshold", 1);
    expect(&c, "keep", 1, 0, 0);
    c.options = "{\"method\": \"energy\", \"value\": 0.1}"; /* the first already exceeds it */
    accept(&c, NULL);
    expect(&c, "threshold", 0);
    c.options = "{\"method\": \"energy\", \"value\": 2}"; /* none does: the last */
    accept(&c, NULL);
    expect(&c, "threshold", 1.5);
    F32(&c, "gamma", S(3), 1e-4, 2e-4, 0); /* all tiny: the whole layer but one */
    accept(&c, NULL);
    expect(&c, "threshold", 1);
    expect(&c, "keep", 0, 1, 0);
    finish(&c);
}

static void layers_of_a_group_share_a_careful_mask(void **state)
{
    (void)state;
    call c = start("ms_group_mask", NULL);
    U8(&c, "keep", S(2, 3), 0, 0, 1, 1, 0, 1); /* prune {0,1} and {1}: 1 is enough */
    accept(&c, NULL);
    expect(&c, "keep_shared", 1, 0, 1);
    expect(&c, "votes_needed", 2);
    U8(&c, "keep", S(2, 3), 0, 0, 1, 1, 1, 0); /* {0,1} and {2}: one vote must do */
    accept(&c, NULL);
    expect(&c, "keep_shared", 0, 0, 0);
    expect(&c, "votes_needed", 1);
    U8(&c, "keep", S(2, 3), 0, 0, 1, 1, 1, 1); /* one layer prunes nothing */
    accept(&c, NULL);
    expect(&c, "keep_shared", 1, 1, 1);
    expect(&c, "votes_needed", 2);
    U8(&c, "keep", S(1, 3), 0, 0, 1); /* a layer alone */
    accept(&c, NULL);
    expect(&c, "keep_shared", 0, 0, 1);
    finish(&c);
}

static void a_cut_pair_is_dense_layers_too(void **state)
{
    (void)state;
    call c = start("ms_prune_pair", "{\"absorb\": true}");
    F32(&c, "w1", S(3, 2), 1, 2, 3, 4, 5, 6);
    F32(&c, "gamma", S(3), 0, 1, 0);
    F32(&c, "beta", S(3), 2, 3, -1);
    F32(&c, "mean", S(3), 4, 5, 6);
    F32(&c, "var", S(3), 7, 8, 9);
    F32(&c, "w2", S(2, 3), 10, 20, 30, 40, 50, 60);
    F32(&c, "b2", S(2), 1, -1);
    U8(&c, "keep", S(3), 0, 1, 0);
    accept(&c, NULL);
    expect(&c, "w1", 3, 4);
    expect(&c, "gamma", 1);
    expect(&c, "beta", 3);
    expect(&c, "mean", 5);
    expect(&c, "var", 8);
    expect(&c, "w2", 20, 50);
    expect(&c, "b2", 21, 79); /* relu(2) times 10 and 40; relu(-1) gives nothing */
    U8(&c, "keep", S(3), 0, 0, 0);
    refuse(&c, "ms_prune_pair: keep has no 1, expected at least one channel that stays");
}

static void savings_are_exact_beyond_32_bits(void **state)
{
    (void)state;
    call c = start("ms_flops", NULL);
    static const char *const name[] = {"c_in", "c_out", "kh",      "kw",
                                       "oh",   "ow",    "keep_in", "keep_out"};
    static const double value[] = {4096, 4096, 3, 3, 512, 512, 4096, 1024};
    for (int i = 0; i < 8; i++)
        give(&c, name[i], BL_I32, S(1), &value[i]);
    accept(&c, NULL);
    expect(&c, "flops_reduction", 0.75);
    expect(&c, "params_reduction", 0.75);
    I32(&c, "oh", S(1), 0);
    refuse(&c, "ms_flops: the layers have no multiplications");
}

static void mask_sparsity_refuses(void **state)
{
    (void)state;
    REFUSE("ms_penalty", "{\"s\": -1}", "option s is -1, expected [0,inf)",
           F32(&c, "gamma", S(1), 1));
    REFUSE("ms_penalty", NULL, "pruned must be u8[2], not u8[3]", F32(&c, "gamma", S(2), 1, 1);
           U8(&c, "pruned", S(3), 0, 1, 1));
    REFUSE("ms_penalty", NULL, "pruned[0] is 2, expected in {0,1}", F32(&c, "gamma", S(1), 1);
           U8(&c, "pruned", S(1), 2));
    REFUSE("ms_grad", "{\"lr\": 0}", "option lr is 0, expected (0,inf)", F32(&c, "gamma", S(1), 1));
    REFUSE("ms_channel_mask", NULL, "gamma has no rows", F32(&c, "gamma", S(0), 0));
    REFUSE("ms_channel_mask", "{\"min_channels\": 3}",
           "option min_channels is 3, expected at most 2", F32(&c, "gamma", S(2), 1, 1));
    REFUSE("ms_channel_mask", "{\"method\": \"ratio\", \"value\": -1}",
           "option value is -1, expected [0,1] for ratio", F32(&c, "gamma", S(2), 1, 1));
    REFUSE("ms_channel_mask", "{\"method\": \"ratio\", \"value\": 1.5}",
           "option value is 1.5, expected [0,1] for ratio", F32(&c, "gamma", S(2), 1, 1));
    REFUSE("ms_group_mask", NULL, "keep has no rows", U8(&c, "keep", S(0, 2), 0));
}

/* --- AQT -------------------------------------------------------------------------------------- */

/* In f32 the largest weight times its scale may exceed B; its gradient is 1 all the same. */
static void the_largest_weight_keeps_its_gradient(void **state)
{
    (void)state;
    for (int k = 1; k <= 40; k++) {
        double large = 0.37 * k * k;
        call c = start("aqt_weight_fake_quant", "{\"prec\": 3}");
        F32(&c, "w", S(3, 2), large, -large, large / 3, 0, 0.1, 0.2);
        give_to(&c.cotangent, "wq", (bl_type){BL_F32, S(3, 2)}, VALUES(1, 2, 3, 4, 5, 6));
        accept(&c, NULL);
        for (int i = 0; i < 6; i++)
            assert_true(slope(&c, "w", i) == i + 1);
        assert_true(result(&c, "q", 0) == 3 && result(&c, "q", 1) == -3);
        finish(&c);
    }
}

static void half_shifted_weights_lose_the_gradient_of_the_largest(void **state)
{
    (void)state;
    call c = start("aqt_weight_fake_quant", "{\"prec\": 2, \"half_shift\": true}");
    F32(&c, "w", S(3), 3, 0.1, -3);
    give_to(&c.cotangent, "wq", (bl_type){BL_F32, S(3)}, VALUES(1, 1, 1));
    accept(&c, NULL); /* one weight for each channel: all are the largest */
    for (int i = 0; i < 3; i++)
        near(slope(&c, "w", i), 0);
    expect(&c, "q", 1.5, 1.5, -1.5);
    c.options = "{\"prec\": 2, \"half_shift\": true, \"per_channel\": false}";
    accept(&c, NULL);
    near(slope(&c, "w", 1), 1);
    near(slope(&c, "w", 2), 0);
    finish(&c);
}

static void channels_of_zeros_stay_zero(void **state)
{
    (void)state;
    static const char *const options[] = {NULL, "{\"half_shift\": true}",
                                          "{\"per_channel\": false, \"prec\": 24}"};
    for (int i = 0; i < COUNT_OF(options); i++) {
        call c = start("aqt_weight_fake_quant", options[i]);
        F32(&c, "w", S(2, 1), 0, 0);
        accept(&c, NULL);
        assert_true(result(&c, "wq", 0) == 0 && result(&c, "wq", 1) == 0);
        finish(&c);
    }
}

static void unsigned_activations_are_floored_and_edges_have_their_gradient(void **state)
{
    (void)state;
    call c = start("aqt_act_fake_quant", "{\"prec\": 2, \"edge_grad\": 0.25}");
    F32(&c, "x", S(7, 1), -0.5, 0, 0.9, 1.5, 3.5, 4, 4.5);
    F32(&c, "bound", S(1), 4);
    give_to(&c.cotangent, "xq", (bl_type){BL_F32, S(7, 1)}, VALUES(1, 1, 1, 1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "q", 0, 0, 0, 1, 3, 3, 3);
    expect(&c, "xq", 0, 0, 0, 1, 3, 3, 3);
    static const double gradient[] = {0, 0.25, 0.25, 1, 0.25, 0.25, 0};
    for (int i = 0; i < 7; i++)
        near(slope(&c, "x", i), gradient[i]);
    finish(&c);
}

static void signed_activations_are_rounded_and_clipped(void **state)
{
    (void)state;
    call c = start("aqt_act_fake_quant", "{\"prec\": 3, \"signed\": true}");
    F32(&c, "x", S(5), -7, -3, 0.4, 1.2, 3.5);
    F32(&c, "bound", BL_SCALAR, 3);
    give_to(&c.cotangent, "xq", (bl_type){BL_F32, S(5)}, VALUES(1, 1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "q", -3, -3, 0, 1, 3);
    static const double gradient[] = {0, 1, 1, 1, 0};
    for (int i = 0; i < 5; i++)
        near(slope(&c, "x", i), gradient[i]);
    finish(&c);
}

static void a_bound_of_minus_one_quantises_nothing(void **state)
{
    (void)state;
    static const char *const options[] = {NULL, "{\"signed\": true}"};
    for (int i = 0; i < 2; i++) {
        call c = start("aqt_act_fake_quant", options[i]);
        F32(&c, "x", S(2, 2), -5, 0.3, 80, -80);
        F32(&c, "bound", S(2), -1, -1);
        give_to(&c.cotangent, "xq", (bl_type){BL_F32, S(2, 2)}, VALUES(1, 1, 1, 1));
        accept(&c, NULL);
        expect(&c, "xq", -5, 0.3, 80, -80);
        expect(&c, "q", -5, 0.3, 80, -80);
        for (int j = 0; j < 4; j++)
            near(slope(&c, "x", j), 1);
        F32(&c, "bound", S(2), -1, 2);
        refuse(&c, "aqt_act_fake_quant: bound[0] is -1, expected > 0, or -1 everywhere");
    }
}

static void integers_serve_what_was_trained(void **state)
{
    (void)state;
    static const char *const options[] = {
        "{\"prec_x\": 4, \"prec_w\": 4}", "{\"prec_x\": 8, \"prec_w\": 8}",
        "{\"prec_x\": 8, \"prec_w\": 8, \"signed\": true}", "{\"prec_x\": 2, \"prec_w\": 12}"};
    for (int i = 0; i < COUNT_OF(options); i++) {
        call c = start("aqt_quantized_dense", options[i]), d = start("aqt_int_dense", options[i]);
        call *both[] = {&c, &d};
        for (int j = 0; j < 2; j++) {
            F32(both[j], "x", S(2, 3), 0.11, 0.73, 1.9, 0.21, 1.33, 0.47);
            F32(both[j], "w", S(3, 2), 0.31, -0.77, 0.9, 0.13, -0.41, 0.6);
            F32(both[j], "bound", BL_SCALAR, 1.5);
            accept(both[j], NULL);
        }
        for (int j = 0; j < 4; j++)
            assert_true(close_to(result(&d, "y", j), result(&c, "y", j), 1e-4)); /* eps in t */
        finish(&c);
        finish(&d);
    }
}

static call statistics(const char *options, int channels)
{
    call c = start("aqt_stats_update", options);
    static const char *const name[] = {"mean", "mean_abs", "mean_sq", "mn", "mx"};
    for (int i = 0; i < 5; i++)
        give(&c, name[i], BL_F32, S(channels), VALUES(1, 1, 1));
    I32(&c, "n", BL_SCALAR, 3);
    return c;
}

static void statistics_skip_zeros_and_empty_channels(void **state)
{
    (void)state;
    call c = statistics("{\"ema\": 0.5}", 2);
    F32(&c, "x", S(3, 2), 0, 0, -3, 0, 5, 0);
    accept(&c, NULL);
    expect(&c, "n", 4);
    expect(&c, "mean", 1, 1); /* (1 + (-3 + 5) / 2) / 2; nothing counts */
    expect(&c, "mean_abs", 2.5, 1);
    expect(&c, "mean_sq", 9, 1);
    expect(&c, "mn", -1, 1);
    expect(&c, "mx", 3, 1);
    finish(&c);
    c = statistics("{\"ema\": 0, \"exclude_zeros\": false, \"per_channel\": false}", 1);
    F32(&c, "x", S(2, 2), 0, 0, 2, 6);
    accept(&c, NULL);
    expect(&c, "mean", 1.25);
    expect(&c, "mn", 0.75);
    expect(&c, "mx", 2.25);
    finish(&c);
    c = statistics(NULL, 3);
    F32(&c, "x", S(0, 3), 0); /* an empty batch */
    accept(&c, NULL);
    expect(&c, "mean", 1, 1, 1);
    expect(&c, "mx", 1, 1, 1);
    finish(&c);
}

static call bounds(const char *options)
{
    call c = start("aqt_bounds", options);
    F32(&c, "mean", S(2), -100, 2);
    F32(&c, "mean_abs", S(2), 100, 3);
    F32(&c, "mean_sq", S(2), 10000.25, 3.99); /* the second is rounding: no variance */
    F32(&c, "mn", S(2), -7, 1);
    F32(&c, "mx", S(2), 5, 2);
    accept(&c, NULL);
    return c;
}

static void bounds_by_each_method(void **state)
{
    (void)state;
    call c = bounds(NULL);
    expect(&c, "bound", 7, 2);
    finish(&c);
    c = bounds("{\"method\": \"cams\", \"stddev_coeff\": 2}");
    assert_true(fabs(result(&c, "bound", 0) - 101) < 1e-4 && result(&c, "bound", 1) == 2);
    finish(&c);
    c = bounds("{\"method\": \"mix\"}");
    expect(&c, "bound", 300, 9);
    finish(&c);
}

static void costs_round_bits_up(void **state)
{
    (void)state;
    call c = start("aqt_compute_cost", NULL);
    I32(&c, "mults", S(3), 2000000000, 2000000000, 0);
    I32(&c, "w_bits", S(3), 3, 5, 16);
    I32(&c, "a_bits", S(3), 4, 9, 16);
    accept(&c, NULL);
    expect(&c, "quadratic", 114e9);
    expect(&c, "linear", 40e9);
    expect(&c, "quadratic_ratio", 57.0 / 512);
    expect(&c, "linear_ratio", 0.625);
    I32(&c, "a_bits", S(3), 4, 17, 16);
    refuse(&c, "aqt_compute_cost: a_bits[1] is 17, expected [1,16]");
    c = start("aqt_compute_cost", NULL);
    I32(&c, "mults", S(1), 0);
    I32(&c, "w_bits", S(1), 3);
    I32(&c, "a_bits", S(1), 4);
    refuse(&c, "mults sums to 0, expected a positive sum");
}

static void aqt_refuses(void **state)
{
    (void)state;
    REFUSE("aqt_weight_fake_quant", "{\"prec\": 25}", "option prec is 25, expected [1,24]",
           F32(&c, "w", S(1), 1));
    REFUSE("aqt_weight_fake_quant", "{\"prec\": 0}", "option prec is 0, expected [1,24]",
           F32(&c, "w", S(1), 1));
    REFUSE("aqt_weight_fake_quant", NULL, "w[1] is nan, expected finite",
           F32(&c, "w", S(2), 1, NAN));
    REFUSE("aqt_act_fake_quant", "{\"edge_grad\": 2}", "option edge_grad is 2, expected [0,1]",
           F32(&c, "x", S(1), 1));
    REFUSE("aqt_act_fake_quant", NULL, "bound[1] is 0, expected > 0", F32(&c, "x", S(2), 1, 1);
           F32(&c, "bound", S(2), 1, 0));
    REFUSE("aqt_quantized_dense", NULL, "bound[0] is -2, expected > 0", F32(&c, "x", S(1, 1), 1);
           F32(&c, "w", S(1, 1), 1); F32(&c, "bound", BL_SCALAR, -2));
    REFUSE("aqt_int_dense", NULL, "bound is -1, expected > 0", F32(&c, "x", S(1, 1), 1);
           F32(&c, "w", S(1, 1), 1); F32(&c, "bound", BL_SCALAR, -1));
    REFUSE("aqt_int_dense", "{\"prec_x\": 16, \"prec_w\": 16, \"signed\": true}",
           "sums of 3 products of codes of 16 and 16 bits exceed 32 bits",
           F32(&c, "x", S(1, 3), 1, 1, 1);
           F32(&c, "w", S(3, 1), 1, 1, 1); F32(&c, "bound", BL_SCALAR, 1));
    call c = statistics(NULL, 2);
    F32(&c, "x", S(1, 3), 1, 1, 1);
    refuse(&c, "aqt_stats_update: mean is f32[2], expected f32[3]");
}

/* --- sparse then prune ------------------------------------------------------------------------ */

static void uniform_attention_has_the_smallest_penalty(void **state)
{
    (void)state;
    call c = start("stp_attention", NULL);
    F32(&c, "q", S(1, 1, 2, 1), 0, 80);
    F32(&c, "k", S(1, 1, 2, 1), 1, -1);
    F32(&c, "v", S(1, 1, 2, 1), 3, 5);
    accept(&c, "penalty"); /* rows (1/2, 1/2) and (1, 0) */
    expect(&c, "out", 4, 3);
    expect(&c, "penalty", (2 * log(1.25) + log(2)) / 4);
    all_finite(&c.gradient);
    near(slope(&c, "v", 0), 0);
    finish(&c);
}

static void a_token_alone_attends_to_itself(void **state)
{
    (void)state;
    call c = start("stp_attention", NULL);
    F32(&c, "q", S(1, 1, 1, 2), 7, 80);
    F32(&c, "k", S(1, 1, 1, 2), 1, -80);
    F32(&c, "v", S(1, 1, 1, 2), 3, 5);
    accept(&c, NULL);
    expect(&c, "out", 3, 5);
    expect(&c, "penalty", log(2));
    F32(&c, "k", S(1, 1, 1, 3), 1, 2, 3);
    refuse(&c, "stp_attention: k must be f32[1,1,1,2], not f32[1,1,1,3]");
}

static void penalties_of_layers_are_reduced(void **state)
{
    (void)state;
    static const char *const options[] = {"{\"lam\": 2}",
                                          "{\"lam\": 2, \"reduce_layers\": \"sum\"}",
                                          "{\"lam\": 2, \"reduce_layers\": \"mean\"}"};
    static const double penalty[] = {5, 9, 3}, first[] = {0, 2, 2.0 / 3};
    for (int i = 0; i < 3; i++) {
        call c = start("stp_loss", options[i]);
        F32(&c, "logits", S(1, 2), 80, -80);
        I32(&c, "labels", S(1), 0);
        F32(&c, "penalties", S(3), 1, 3, 5);
        accept(&c, "loss");
        expect(&c, "ce", 0);
        expect(&c, "penalty", penalty[i]);
        expect(&c, "loss", 2 * penalty[i]);
        near(slope(&c, "penalties", 0), first[i]);
        F32(&c, "penalties", S(0), 0);
        refuse(&c, "stp_loss: penalties has no rows");
    }
}

static void pruning_rounds_halves_to_even_and_ties_go_to_the_lower_index(void **state)
{
    (void)state;
    call c = start("stp_prune_mask", "{\"amount\": 0.5}");
    F32(&c, "w", S(5), 1, -1, 0.5, 1, 2); /* 2.5 are pruned: 2 */
    accept(&c, NULL);
    expect(&c, "n_pruned", 2);
    expect(&c, "keep", 0, 1, 0, 1, 1);
    c.options = "{\"amount\": 0.3}"; /* 1.5: 2 */
    accept(&c, NULL);
    expect(&c, "n_pruned", 2);
    c.options = "{\"amount\": 1}";
    accept(&c, NULL);
    expect(&c, "keep", 0, 0, 0, 0, 0);
    c.options = "{\"amount\": 0}";
    accept(&c, NULL);
    expect(&c, "keep", 1, 1, 1, 1, 1);
    finish(&c);
}

static void sparse_then_prune_refuses(void **state)
{
    (void)state;
    REFUSE("stp_penalty", NULL, "a is f32[2,0], expected at least one element",
           F32(&c, "a", S(2, 0), 0));
    REFUSE("stp_loss", "{\"lam\": -1}", "option lam is -1, expected [0,inf)",
           F32(&c, "logits", S(1, 1), 0));
    REFUSE("stp_loss", NULL, "labels[0] is 2, expected 0 <= . < C",
           F32(&c, "logits", S(1, 2), 0, 0);
           I32(&c, "labels", S(1), 2); F32(&c, "penalties", S(1), 0));
    REFUSE("stp_prune_mask", "{\"amount\": 1.5}", "option amount is 1.5, expected [0,1]",
           F32(&c, "w", S(1), 0));
    REFUSE("stp_prune_mask", NULL, "option amount is required", F32(&c, "w", S(1), 0));
    REFUSE("stp_prune_mask", "{\"amount\": 0.5}", "w is empty", F32(&c, "w", S(0), 0));
}

/* --- generalized Gaussian priors -------------------------------------------------------------- */

static void a_shape_is_found_among_the_tabled_ones(void **state)
{
    (void)state;
    call c = start("gg_estimate", NULL);
    F32(&c, "w", S(3), 2, -2, 2); /* rho 1: below all ratios, which end at 3.00 */
    accept(&c, NULL);
    expect(&c, "rho", 1);
    expect(&c, "shape", 3);
    expect(&c, "std", 2);
    expect(&c, "scale", 2 * sqrt(tgamma(1.0 / 3) / tgamma(1)));
    F32(&c, "w", S(4), 0, 0, 1, -1); /* rho 2: Laplace */
    accept(&c, NULL);
    expect(&c, "shape", 1);
    expect(&c, "scale", sqrt(0.5) / sqrt(2));
    finish(&c);
}

static void likelihoods_of_shape_two_are_normal(void **state)
{
    (void)state;
    call c = start("gg_nll", NULL);
    F32(&c, "w", S(2), 1, 3);
    F32(&c, "shape", BL_SCALAR, 2);
    F32(&c, "scale", BL_SCALAR, 2);
    F32(&c, "mean", BL_SCALAR, 1);
    accept(&c, "loss");
    expect(&c, "loss", 0.5 + log(2 * sqrt(M_PI)));
    near(slope(&c, "w", 0), 0);
    near(slope(&c, "w", 1), 0.5);
    near(slope(&c, "scale", 0), -0.5 + 0.5);
    finish(&c);
}

static void a_weight_at_the_centre_has_no_slope(void **state)
{
    (void)state;
    call c = start("gg_nll", NULL);
    F32(&c, "w", S(2), 0, 0);
    F32(&c, "shape", BL_SCALAR, 0.5);
    F32(&c, "scale", BL_SCALAR, 1);
    F32(&c, "mean", BL_SCALAR, 0);
    accept(&c, "loss");
    all_finite(&c.gradient);
    expect(&c, "loss", log(2) + 0 - log(0.5)); /* lgamma(2) is 0 */
    near(slope(&c, "shape", 0), -4 * (1 - 0.5772156649015329) - 2);
    F32(&c, "w", S(2), NAN, 0);
    accept(&c, NULL);
    assert_true(isnan(result(&c, "loss", 0)));
    finish(&c);
}

static void initial_weights_scale_with_the_chosen_fan(void **state)
{
    (void)state;
    call c = start("gg_init", "{\"xi\": 2}");
    F32(&c, "gamma_draw", S(1, 2), 3, 0);
    F32(&c, "sign", S(1, 2), -1, 1);
    accept(&c, NULL);
    expect(&c, "w", -3 * sqrt(2.0 / 2), 0); /* Gamma(1) / Gamma(3) is 1/2 */
    c.options = "{\"xi\": 2, \"fan\": \"columns\", \"shape\": 2}";
    accept(&c, NULL);
    expect(&c, "w", -sqrt(2) * sqrt(3), 0); /* a normal deviate is sqrt(2 draw) */
    finish(&c);
}

static void a_rate_has_no_slope_at_zero(void **state)
{
    (void)state;
    call c = start("gg_rate", "{\"shape\": 0.5, \"coefficient\": 2, \"clip\": 0}");
    F32(&c, "w", S(2), 0, -4);
    accept(&c, "rate");
    expect(&c, "rate", 2);
    near(slope(&c, "w", 0), 0);
    near(slope(&c, "w", 1), -0.25);
    finish(&c);
}

static void a_step_may_stop_at_zero(void **state)
{
    (void)state;
    call c = start("gg_backslash", "{\"shape\": 1, \"coefficient\": 3, \"clip\": 0}");
    F32(&c, "w", S(3), 0, -0.5, 2);
    accept(&c, NULL);
    expect(&c, "w", 0, 0.5, 1);
    expect(&c, "shape", 1);
    c.options = "{\"shape\": 1, \"coefficient\": 3, \"clip\": 0, \"stop_at_zero\": true}";
    accept(&c, NULL);
    expect(&c, "w", 0, 0, 1);
    c.options = "{\"shape\": 0.5, \"coefficient\": 6, \"clip\": 0}"; /* 0 stays 0 */
    accept(&c, NULL);
    assert_true(result(&c, "w", 0) == 0);
    near(result(&c, "w", 2), 2 - 1 / sqrt(2));
    finish(&c);
}

static void codes_are_counted(void **state)
{
    (void)state;
    call c = start("gg_code_bits", "{\"step\": 1}");
    F32(&c, "w", S(4), 0.5, 1.5, -1, -1); /* 0, 2, -1, -1: u is 0, 3, 2, 2 */
    accept(&c, NULL);
    expect(&c, "exp_golomb", (1 + 5 + 3 + 3) / 4.0);
    expect(&c, "entropy", 1.5);
    expect(&c, "fixed", 2);
    expect(&c, "zeros", 0.25);
    c.options = "{\"step\": 1, \"k\": 1}"; /* u / 2: 0, 1, 1, 1 */
    accept(&c, NULL);
    expect(&c, "exp_golomb", (2 + 4 + 4 + 4) / 4.0);
    F32(&c, "w", S(2), 3, 3);
    accept(&c, NULL);
    expect(&c, "fixed", 0);
    expect(&c, "entropy", 0);
    finish(&c);
}

static void remapping_keeps_the_order(void **state)
{
    (void)state;
    double w[301];
    bl_random r = bl_random_new(bl_key_from_seed(5));
    for (int i = 0; i < 301; i++)
        w[i] = bl_random_gauss(&r) / 16;
    for (int k = 0; k < 3; k++) {
        static const char *const options[] = {"{\"step\": 0.0078125}",
                                              "{\"step\": 0.0078125, \"rare\": 3}",
                                              "{\"step\": 0.03125, \"rare\": 100}"};
        call c = start("gg_deepshape", options[k]);
        give(&c, "w", BL_F32, S(301), w);
        accept(&c, NULL);
        double assigned = result(&c, "assigned", 0), step = k == 2 ? 0.03125 : 0.0078125;
        assert_true(assigned > 0 && assigned <= 301);
        int outside = 0;
        for (int i = 0; i < 301; i++) {
            double level = result(&c, "w", i) / step;
            assert_true(level == floor(level));
            outside += level == rint((double)(float)w[i] / step);
            for (int j = 0; j < 301 && k == 0; j++)
                if (w[i] < w[j] - step && w[j] < 0.1)
                    assert_true(result(&c, "w", i) <= result(&c, "w", j));
        }
        assert_true(outside >= 301 - (int)assigned);
        finish(&c);
    }
}

static void residual_floats_switch_at_half_an_octave(void **state)
{
    (void)state;
    call c = start("gg_rf8", NULL);
    F32(&c, "w", S(8), 1.5, 1.4, -1.5, 0, 1, 0x1p-149, 1.0 + 0x1p-5, 1.41421354);
    accept(&c, NULL);
    static const double expected[] = {1.5, 1.5, -1.5, 0, 1, 0x1p-149, 1, 1.5};
    for (int i = 0; i < 8; i++)
        assert_true(result(&c, "w", i) == expected[i]);
    c.options = "{\"reach\": 5}";
    accept(&c, NULL);
    assert_true(result(&c, "w", 6) == 1.0 + 0x1p-5);
    c.options = "{\"reach\": 0}";
    accept(&c, NULL);
    assert_true(result(&c, "w", 0) == 2);
    F32(&c, "w", S(2), 1.41421366, -0x1.8p127); /* just above sqrt(2): 2 - 0.5 */
    c.options = NULL;
    accept(&c, NULL);
    assert_true(result(&c, "w", 0) == 1.5 && result(&c, "w", 1) == -0x1.8p127);
    finish(&c);
}

static void gg_prior_refuses(void **state)
{
    (void)state;
    REFUSE("gg_estimate", NULL, "gg_estimate: w is all 0, expected an element", F32(&c, "w", S(2), 0, 0));
    REFUSE("gg_estimate", NULL, "w has no rows", F32(&c, "w", S(0), 0));
    REFUSE("gg_estimate", NULL, "w[1] is inf, expected finite", F32(&c, "w", S(2), 0, INFINITY));
    REFUSE("gg_backslash", NULL, "gg_backslash: w is all 0, expected an element", F32(&c, "w", S(2), 0, 0));
    REFUSE("gg_backslash", "{\"shape\": -1}", "option shape is -1, expected [0,inf)",
           F32(&c, "w", S(1), 1));
    REFUSE("gg_nll", NULL, "scale is 0, expected > 0", F32(&c, "w", S(1), 1);
           F32(&c, "shape", BL_SCALAR, 1); F32(&c, "scale", BL_SCALAR, 0);
           F32(&c, "mean", BL_SCALAR, 0));
    REFUSE("gg_nll", NULL, "shape is 0, expected > 0", F32(&c, "w", S(1), 1);
           F32(&c, "shape", BL_SCALAR, 0); F32(&c, "scale", BL_SCALAR, 1);
           F32(&c, "mean", BL_SCALAR, 0));
    REFUSE("gg_init", "{\"shape\": 0}", "option shape is 0, expected (0,inf)",
           F32(&c, "sign", S(1, 1), 1));
    REFUSE("gg_init", NULL, "sign[0,0] is 0, expected in {-1,1}", F32(&c, "gamma_draw", S(1, 1), 1);
           F32(&c, "sign", S(1, 1), 0));
    REFUSE("gg_rate", "{\"shape\": 1, \"coefficient\": -1}", "option coefficient is -1",
           F32(&c, "w", S(1), 1));
    REFUSE("gg_rate", NULL, "option shape is required", F32(&c, "w", S(1), 1));
    REFUSE("gg_code_bits", "{\"k\": 16}", "option k is 16, expected [0,15]", F32(&c, "w", S(1), 1));
    REFUSE("gg_code_bits", "{\"step\": 1e-30}", "w reaches 1e+30 steps", F32(&c, "w", S(1), 1));
    REFUSE("gg_deepshape", "{\"rare\": -1}", "option rare is -1, expected >= 0",
           F32(&c, "w", S(1), 1));
    REFUSE("gg_deepshape", NULL, "w has nothing but 0", F32(&c, "w", S(2), 0, 0));
}

/* --- making the most of a transformer --------------------------------------------------------- */

static void a_summary_is_of_the_mean_state(void **state)
{
    (void)state;
    call c = start("mtm_recurrent_state", NULL);
    F32(&c, "hidden", S(2, 1), 1, 3);
    F32(&c, "w1", S(2, 1), 2, -2);
    F32(&c, "b1", S(2), 1, 1);
    F32(&c, "w2", S(1, 2), 3, 100);
    F32(&c, "b2", S(1), -1);
    accept(&c, NULL);
    expect(&c, "z", 14); /* 3 relu(5) + 100 relu(-3) - 1 */
    c.options = "{\"activation\": \"tanh\"}";
    accept(&c, NULL);
    expect(&c, "z", 3 * tanh(5) + 100 * tanh(-3) - 1);
    finish(&c);
}

static call window(const char *options, int summaries)
{
    call c = start("mtm_window_attention", options);
    F32(&c, "x", S(2, 2), 1, 2, 3, 4);
    give(&c, "z", BL_F32, S(summaries, 2), VALUES(5, 6));
    F32(&c, "wq", S(2, 2), 0, 0, 0, 0); /* every row is weighed equally */
    F32(&c, "wk", S(2, 2), 1, 0, 0, 1);
    F32(&c, "wv", S(2, 2), 1, 0, 0, 1);
    F32(&c, "wo", S(2, 2), 1, 0, 0, 1);
    return c;
}

static void a_window_sees_summaries_and_its_past(void **state)
{
    (void)state;
    static const char *const options[] = {NULL, "{\"heads\": 2}"};
    for (int i = 0; i < 2; i++) {
        call c = window(options[i], 1);
        accept(&c, NULL);
        expect(&c, "y", 3, 4, 3, 4);
        finish(&c);
        c = window(options[i], 0); /* the first window has none */
        accept(&c, NULL);
        expect(&c, "y", 1, 2, 2, 3);
        finish(&c);
    }
    call c = window("{\"heads\": 3}", 1);
    refuse(&c, "option heads is 3, expected a divisor of 2, the rows of wq");
}

static call block(int cached)
{
    call c = start("mtm_hso_loss", NULL);
    F32(&c, "x", S(1, 1), 2);
    give(&c, "past_k", BL_F32, S(1, cached, 1), VALUES(0, 0));
    give(&c, "past_v", BL_F32, S(1, cached, 1), VALUES(4, 4));
    static const char *const name[] = {"wq", "wk", "wv", "wo"};
    for (int i = 0; i < 4; i++)
        give(&c, name[i], BL_F32, S(1, 1), VALUES(i < 2 ? 0 : 1));
    F32(&c, "embedding", S(2, 1), 1, 0);
    I32(&c, "targets", S(1), 1);
    return c;
}

static void a_block_sees_its_cache(void **state)
{
    (void)state;
    for (int cached = 0; cached < 3; cached++) {
        call c = block(cached);
        accept(&c, "loss");
        double h = 2 + (4.0 * cached + 2) / (cached + 1), p = 1 / (1 + exp(-h));
        near(result(&c, "loss", 0), h + log1p(exp(-h)));
        if (cached)
            near(slope(&c, "past_v", 0), p / (cached + 1));
        finish(&c);
    }
    call c = block(1);
    I32(&c, "targets", S(1), 2);
    refuse(&c, "targets[0] is 2, expected 0 <= . < V");
    c = block(1);
    F32(&c, "past_k", S(2, 1, 1), 1, 1);
    F32(&c, "past_v", S(2, 1, 1), 1, 1);
    refuse(&c, "wq has 1 rows, expected 2 heads of 1");
}

static void a_state_is_corrected_by_its_own_age(void **state)
{
    (void)state;
    call c = start("mtm_hso_adam", "{\"lr\": 1, \"eps\": 0}");
    F32(&c, "state", S(2, 1), 5, 5);
    F32(&c, "grad", S(2, 1), 3, 3);
    F32(&c, "m", S(2, 1), 0, 0.3);
    F32(&c, "v", S(2, 1), 0, 0.009);
    I32(&c, "age", S(2), 0, 1);
    accept(&c, NULL);
    expect(&c, "age", 1, 2);
    expect(&c, "state", 4, 4); /* the second has had the same gradient before */
    I32(&c, "age", S(2), 0, -1);
    refuse(&c, "age[1] is -1, expected >= 0");
}

static call beam(const char *options)
{
    call c = start("mtm_conditional_beam_step", options);
    F32(&c, "beam_logp", S(2), -1, -1);
    F32(&c, "next_logits", S(2, 2), 0, 0, 0, 0);
    F32(&c, "attribute_logp", S(2, 2), 0, 0, 0, -1);
    I32(&c, "finished", S(2), 0, 1);
    return c;
}

static void a_finished_prefix_goes_on_with_eos_only(void **state)
{
    (void)state;
    call c = beam("{\"width\": 3, \"eos\": 1}");
    accept(&c, NULL);
    expect(&c, "parent", 0, 0, 1); /* a tie, then -2 */
    expect(&c, "token", 0, 1, 1);
    expect(&c, "logp", -1 - log(2), -1 - log(2), -1);
    expect(&c, "score", -1 - log(2), -1 - log(2), -2);
    expect(&c, "finished", 0, 1, 1);
    c.options = "{\"width\": 1, \"eos\": 1, \"alpha\": 0}";
    accept(&c, NULL);
    expect(&c, "parent", 1);
    c.options = "{\"width\": 4, \"eos\": 1}";
    refuse(&c, "only 3 candidates are finite, expected 4, the width");
    c = beam("{\"width\": 5, \"eos\": 1}");
    refuse(&c, "option width is 5, expected at most 4");
    c = beam("{\"width\": 1, \"eos\": 2}");
    refuse(&c, "option eos is 2, expected 0 <= . < 2");
    c = beam("{\"width\": 1, \"eos\": 1, \"alpha\": -1}");
    refuse(&c, "option alpha is -1, expected [0,inf)");
    c = beam("{\"width\": 1, \"eos\": 1}");
    F32(&c, "attribute_logp", S(2, 2), 0, 0, 0, -INFINITY);
    refuse(&c, "attribute_logp[1,1] is -inf, expected finite");
}

static void modes_of_each_length_are_exact(void **state)
{
    (void)state;
    call c = start("mtm_markov_modes", "{\"max_len\": 2, \"eos\": 0}");
    F32(&c, "first_logits", S(3), log(0.2), log(0.4), log(0.4));
    F32(&c, "next_logits", S(3, 3), 0, 0, 0, log(0.5), log(0.25), log(0.25), log(0.5), log(0.5),
        -INFINITY);
    accept(&c, NULL);
    expect(&c, "logp", log(0.2), log(0.2), log(0.1));
    expect(&c, "sequence", -1, -1, 1, -1, 2, 1); /* a tie: the lowest last word */
    assert_true(result(&c, "mode_length", 0) <= 1);
    finish(&c);
    c = start("mtm_markov_modes", "{\"max_len\": 1, \"eos\": 0}"); /* no word but the end */
    F32(&c, "first_logits", S(1), 3);
    F32(&c, "next_logits", S(1, 1), 3);
    accept(&c, NULL);
    expect(&c, "logp", 0, -INFINITY);
    expect(&c, "sequence", -1, -1);
    c.options = "{\"max_len\": 0, \"eos\": 0}";
    refuse(&c, "option max_len is 0, expected >= 1");
}

static call contaminate(double epsilon)
{
    call c = start("mtm_contamination", NULL);
    F32(&c, "clean", S(3), 6, 2, 2);
    F32(&c, "noise", S(3), 0, 1, 1);
    F32(&c, "epsilon", BL_SCALAR, epsilon);
    return c;
}

static void enough_noise_flips_a_mode(void **state)
{
    (void)state;
    call c = contaminate(0.5);
    accept(&c, NULL);
    expect(&c, "critical", 4.0 / 9); /* 0.4 / (0.4 + 0.5) */
    expect(&c, "mixed", 0.3, 0.35, 0.35);
    expect(&c, "mode", 1);
    finish(&c);
    c = contaminate(0.4);
    accept(&c, NULL);
    expect(&c, "mode", 0);
    finish(&c);
    c = contaminate(1.5);
    refuse(&c, "epsilon is 1.5, expected 0 <= . <= 1");
    c = contaminate(0);
    F32(&c, "noise", S(3), 0, 0, 0);
    refuse(&c, "noise sums to 0, expected a positive sum");
    c = contaminate(0);
    F32(&c, "noise", S(3), 1, 0, 0);
    refuse(&c, "clean and noise both have their mode at 0");
    c = contaminate(0);
    F32(&c, "clean", S(3), 1, -1, 3);
    refuse(&c, "clean[1] is -1, expected >= 0");
}

static call masked_words(double last)
{
    call c = start("mtm_cmlm_loss", "{\"length_weight\": 2}");
    F32(&c, "logits", S(1, 2, 2), 80, -80, 0, 0);
    I32(&c, "targets", S(1, 2), -100, last);
    F32(&c, "length_logits", S(1, 2), 0, 0);
    I32(&c, "lengths", S(1), 1);
    return c;
}

static void visible_words_do_not_count(void **state)
{
    (void)state;
    call c = masked_words(1);
    accept(&c, "loss");
    expect(&c, "word", log(2));
    expect(&c, "loss", 3 * log(2));
    near(slope(&c, "logits", 0), 0);
    near(slope(&c, "logits", 3), -0.5);
    near(slope(&c, "length_logits", 1), -1);
    finish(&c);
    c = masked_words(-100);
    accept(&c, "loss");
    expect(&c, "word", 0);
    all_finite(&c.gradient);
    finish(&c);
    c = masked_words(2);
    refuse(&c, "targets[0,1] is 2, expected 0 <= . < 2 or -100");
    c = masked_words(-1);
    refuse(&c, "targets[0,1] is -1, expected 0 <= . < 2 or -100");
    c = masked_words(0);
    I32(&c, "lengths", S(1), 2);
    refuse(&c, "lengths[0] is 2, expected 0 <= . < Lmax");
}

static call round_of(double iteration)
{
    call c = start("mtm_mask_predict_step", "{\"iterations\": 3, \"mask_token\": 0}");
    F32(&c, "logits", S(1, 4, 3), 9, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5);
    I32(&c, "tokens", S(1, 4), 0, 2, 1, 0);
    F32(&c, "confidence", S(1, 4), 0, -50, -50, 0);
    I32(&c, "lengths", S(1), 3);
    I32(&c, "masked", S(1, 4), 1, 0, 0, 1);
    give(&c, "iteration", BL_I32, BL_SCALAR, &iteration);
    return c;
}

static void a_round_masks_what_is_least_certain(void **state)
{
    (void)state;
    call c = round_of(0); /* 3 * 2 / 3 = 2 are masked again, and none behind the length */
    accept(&c, NULL);
    expect(&c, "tokens", 1, 0, 0, 2);
    expect(&c, "masked", 0, 1, 1, 0);
    near(result(&c, "confidence", 0), 1 - log(exp(9) + exp(1) + 1));
    near(result(&c, "confidence", 1), -50);
    finish(&c);
    c = round_of(1); /* 1: of two alike the first */
    accept(&c, NULL);
    expect(&c, "masked", 0, 1, 0, 0);
    finish(&c);
    c = round_of(2);
    accept(&c, NULL);
    expect(&c, "tokens", 1, 2, 1, 2);
    expect(&c, "masked", 0, 0, 0, 0);
    finish(&c);
    c = round_of(3);
    refuse(&c, "iteration is 3, expected 0 <= . < iterations");
    c = round_of(0);
    I32(&c, "lengths", S(1), 5);
    refuse(&c, "lengths[0] is 5, expected 0 <= . <= T");
    c = round_of(0);
    c.options = "{\"iterations\": 3, \"mask_token\": 3}";
    refuse(&c, "option mask_token is 3, expected one of 3 words");
}

/* --- short memory ----------------------------------------------------------------------------- */

/* Whichever allocation fails, the call says so and leaks nothing. */
static void functions_on_the_host_survive_short_memory(void **state)
{
    (void)state;
    static const char *const cases[] = {"42-mask-sparsity/ms_channel_mask-2",
                                        "42-mask-sparsity/ms_prune_pair-2",
                                        "20-sparse-then-prune/stp_prune_mask-1",
                                        "56-gg-prior/gg_code_bits-1",
                                        "56-gg-prior/gg_deepshape-1",
                                        "51-making-the-most/mtm_markov_modes-1",
                                        "51-making-the-most/mtm_conditional_beam_step-1"};
    for (int i = 0; i < COUNT_OF(cases); i++) {
        char *path = bl_format("%s/tests/cases/%s.safetensors", BALLAST_SOURCE_DIR, cases[i]);
        bl_check_result result;
        int64_t n = 1;
        for (;; n++) {
            bl_fail_allocation(n);
            bl_status status = bl_check_case(path, bl_device_reference(), &result);
            bl_fail_allocation(0);
            bl_release(result.message);
            if (status == BL_OK && result.passed)
                break;
            if (status != BL_NO_MEMORY)
                fail_msg("%s, allocation %lld: %s", cases[i], (long long)n, bl_error());
        }
        assert_true(n > 5);
        bl_release(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_penalty_is_of_pruned_channels_only),
        cmocka_unit_test(a_gradient_edit_stops_chatter_near_zero),
        cmocka_unit_test(a_layer_keeps_its_largest_channels_ties_lowest_first),
        cmocka_unit_test(an_energy_threshold_lies_between_two_channels),
        cmocka_unit_test(layers_of_a_group_share_a_careful_mask),
        cmocka_unit_test(a_cut_pair_is_dense_layers_too),
        cmocka_unit_test(savings_are_exact_beyond_32_bits),
        cmocka_unit_test(mask_sparsity_refuses),
        cmocka_unit_test(the_largest_weight_keeps_its_gradient),
        cmocka_unit_test(half_shifted_weights_lose_the_gradient_of_the_largest),
        cmocka_unit_test(channels_of_zeros_stay_zero),
        cmocka_unit_test(unsigned_activations_are_floored_and_edges_have_their_gradient),
        cmocka_unit_test(signed_activations_are_rounded_and_clipped),
        cmocka_unit_test(a_bound_of_minus_one_quantises_nothing),
        cmocka_unit_test(integers_serve_what_was_trained),
        cmocka_unit_test(statistics_skip_zeros_and_empty_channels),
        cmocka_unit_test(bounds_by_each_method),
        cmocka_unit_test(costs_round_bits_up),
        cmocka_unit_test(aqt_refuses),
        cmocka_unit_test(uniform_attention_has_the_smallest_penalty),
        cmocka_unit_test(a_token_alone_attends_to_itself),
        cmocka_unit_test(penalties_of_layers_are_reduced),
        cmocka_unit_test(pruning_rounds_halves_to_even_and_ties_go_to_the_lower_index),
        cmocka_unit_test(sparse_then_prune_refuses),
        cmocka_unit_test(a_shape_is_found_among_the_tabled_ones),
        cmocka_unit_test(likelihoods_of_shape_two_are_normal),
        cmocka_unit_test(a_weight_at_the_centre_has_no_slope),
        cmocka_unit_test(initial_weights_scale_with_the_chosen_fan),
        cmocka_unit_test(a_rate_has_no_slope_at_zero),
        cmocka_unit_test(a_step_may_stop_at_zero),
        cmocka_unit_test(codes_are_counted),
        cmocka_unit_test(remapping_keeps_the_order),
        cmocka_unit_test(residual_floats_switch_at_half_an_octave),
        cmocka_unit_test(gg_prior_refuses),
        cmocka_unit_test(a_summary_is_of_the_mean_state),
        cmocka_unit_test(a_window_sees_summaries_and_its_past),
        cmocka_unit_test(a_block_sees_its_cache),
        cmocka_unit_test(a_state_is_corrected_by_its_own_age),
        cmocka_unit_test(a_finished_prefix_goes_on_with_eos_only),
        cmocka_unit_test(modes_of_each_length_are_exact),
        cmocka_unit_test(enough_noise_flips_a_mode),
        cmocka_unit_test(visible_words_do_not_count),
        cmocka_unit_test(a_round_masks_what_is_least_certain),
        cmocka_unit_test(functions_on_the_host_survive_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
