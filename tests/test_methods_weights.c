/* The methods on what weights may be - MaskSparsity, AQT, sparse then prune, generalized Gaussian
 * priors - and on pretrained transformers: what their specs refuse, and facts about values and
 * gradients at shapes and corners that the reference cases do not have. */
#include <stdlib.h>

#include "calls.h"

/* Refuses a call, made of text only, after its inputs are given. */
#define REFUSE(f, json, words, ...)                                                                \
    do {                                                                                           \
        call c = start(f, json);                                                                   \
        __VA_ARGS__;                                                                               \
        refuse(&c, words);                                                                         \
    } while (0)

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
