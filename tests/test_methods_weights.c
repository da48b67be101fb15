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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
