/* The methods that adapt a trained model - RPO, self-distillation for further pre-training,
 * BA-LoRA, SORSA, LT-SFT, saliency-aware retraining, mask tuning, DR-Tune: what their specs refuse,
 * and facts about values and gradients at shapes and corners that the reference cases do not have.
 */
#include <dirent.h>
#include <stdlib.h>

#include "calls.h"
#include "methods/contract.h"

/* Refuses a call with these inputs, made by `example` and then changed. */
#define REJECT(example, json, words, ...)                                                          \
    do {                                                                                           \
        call c = example;                                                                          \
        c.options = json;                                                                          \
        expect_ok(c.options ? BL_OK : run(&c, NULL)); /* before it is spoilt */                    \
        __VA_ARGS__;                                                                               \
        refuse(&c, words);                                                                         \
    } while (0)

#define NO_CHANGE (void)0

/* --- RPO -------------------------------------------------------------------------------------- */

static call rpo_pairs(double policy, double reference)
{
    call c = start("rpo_loss", NULL);
    F32(&c, "policy_chosen", S(2), policy, -2);
    F32(&c, "policy_rejected", S(2), -3, -3);
    F32(&c, "ref_chosen", S(2), reference, -2);
    F32(&c, "ref_rejected", S(2), -3, -3);
    I32(&c, "chosen_len", S(2), 4, 1);
    return c;
}

static void a_policy_equal_to_its_reference_has_no_accuracy(void **state)
{
    (void)state;
    call c = rpo_pairs(-4, -4);
    accept(&c, "loss");
    expect(&c, "dpo", log(2));
    expect(&c, "accuracy", 0);
    expect(&c, "chosen_reward", 0, 0);
    expect(&c, "sft", 3);
    expect(&c, "loss", log(2) + 0.005 * 0.1 * 3);
    near(slope(&c, "policy_chosen", 0), -0.1 * 0.5 / 2 - 0.0005 / 2);
    finish(&c);
}

static void the_supervised_term_is_averaged_in_three_ways(void **state)
{
    (void)state;
    call c = rpo_pairs(-4, 0);
    c.options = "{\"sft_reduction\": \"mean_per_sequence\", \"eta\": 2, \"scale_by_beta\": false}";
    accept(&c, "loss");
    expect(&c, "sft", (1.0 + 2) / 2);
    near(result(&c, "loss", 0) - result(&c, "dpo", 0), 3);
    c.options = "{\"sft_reduction\": \"mean_per_batch\"}";
    accept(&c, "loss");
    expect(&c, "sft", 6.0 / 5);
    finish(&c);
}

static void huge_margins_stay_finite(void **state)
{
    (void)state;
    call c = rpo_pairs(-1e4, 1e4);
    c.options = "{\"beta\": 2, \"label_smoothing\": 0.25}";
    accept(&c, "loss");
    all_finite(&c.out);
    all_finite(&c.gradient);
    near(slope(&c, "policy_rejected", 0), 0.75);
    finish(&c);
}

static call one_sequence(void)
{
    call c = start("rpo_sequence_logp", NULL);
    F32(&c, "logits", S(1, 3, 2), 80, -80, 0, 0, 5, 9);
    I32(&c, "labels", S(1, 3), 1, 1, -100);
    return c;
}

static void a_causal_model_predicts_the_next_token(void **state)
{
    (void)state;
    call c = one_sequence();
    accept(&c, NULL);
    expect(&c, "logp", -160);
    expect(&c, "n_tokens", 1);
    c.options = "{\"shift\": false}";
    accept(&c, NULL);
    expect(&c, "logp", -160 - log(2));
    expect(&c, "n_tokens", 2);
    finish(&c);
}

static void a_sequence_that_counts_nothing_has_probability_one(void **state)
{
    (void)state;
    call c = one_sequence();
    I32(&c, "labels", S(1, 3), 1, -100, -100);
    give_to(&c.cotangent, "logp", (bl_type){BL_F32, S(1)}, VALUES(1));
    accept(&c, NULL);
    expect(&c, "logp", 0);
    expect(&c, "n_tokens", 0);
    for (int i = 0; i < 6; i++)
        near(slope(&c, "logits", i), 0);
    finish(&c);
}

static call bandit(void)
{
    call c = start("rpo_maximin", "{\"eta\": 0.5, \"beta\": 0.25}");
    F32(&c, "reward", S(2, 2), 1, -1, 0.5, 2);
    F32(&c, "ref_logits", S(2, 2), 80, -80, 1, 0);
    F32(&c, "baseline", S(2, 2), 0.5, 0.5, 0.25, 0.75);
    F32(&c, "prompt", S(2), 0.75, 0.25);
    I32(&c, "pair_prompt", S(2), 0, 1);
    I32(&c, "pair_chosen", S(2), 0, 1);
    I32(&c, "pair_rejected", S(2), 1, 0);
    return c;
}

static void the_game_and_the_loss_are_equal(void **state)
{
    (void)state;
    call c = bandit();
    accept(&c, "objective");
    near(result(&c, "objective", 0), result(&c, "rpo_form", 0));
    double slopes[4];
    for (int i = 0; i < 4; i++)
        slopes[i] = slope(&c, "reward", i);
    accept(&c, "rpo_form");
    for (int i = 0; i < 4; i++)
        near(slope(&c, "reward", i), slopes[i]);
    finish(&c);
}

static call logits_of_pairs(double first, double second)
{
    call c = start("rpo_loss_logits", NULL);
    F32(&c, "chosen_logits", S(1, 2, 2), 1, 0, 0, 0);
    I32(&c, "chosen_labels", S(1, 2), first, second);
    F32(&c, "rejected_logits", S(1, 2, 2), 0, 0, 0, 0);
    I32(&c, "rejected_labels", S(1, 2), 0, 0);
    F32(&c, "ref_chosen", S(1), 0);
    F32(&c, "ref_rejected", S(1), 0);
    return c;
}

static void rpo_refuses(void **state)
{
    (void)state;
    REJECT(rpo_pairs(0, 0), NULL, "rpo_loss: chosen_len[1] is 0, expected >= 1",
           I32(&c, "chosen_len", S(2), 1, 0));
    REJECT(rpo_pairs(0, 0), NULL, "ref_chosen must be f32[2], not f32[3]",
           F32(&c, "ref_chosen", S(3), 0, 0, 0));
    REJECT(rpo_pairs(0, 0), "{\"beta\": 0}", "option beta is 0, expected (0,inf)", NO_CHANGE);
    REJECT(rpo_pairs(0, 0), "{\"eta\": -1}", "option eta is -1, expected [0,inf)", NO_CHANGE);
    REJECT(rpo_pairs(0, 0), "{\"label_smoothing\": 0.5}", "option label_smoothing is 0.5",
           NO_CHANGE);
    REJECT(rpo_pairs(0, 0), "{\"sft_reduction\": \"mean\"}", "option sft_reduction is \"mean\"",
           NO_CHANGE);
    REJECT(one_sequence(), NULL, "labels[0,2] is 2, expected -100 or 0 <= . < V (V is 2)",
           I32(&c, "labels", S(1, 3), 0, 0, 2));
    REJECT(one_sequence(), NULL, "labels[0,1] is -1, expected -100 or 0 <= . < V",
           I32(&c, "labels", S(1, 3), 0, -1, 0));
    REJECT(one_sequence(), NULL, "labels must be i32[1,3], not i32[1,2]",
           I32(&c, "labels", S(1, 2), 0, 0));
    REJECT(one_sequence(), NULL, "logits are 1 tokens of 2 classes, expected T >= 2",
           F32(&c, "logits", S(1, 1, 2), 0, 0);
           I32(&c, "labels", S(1, 1), 0));
    REJECT(logits_of_pairs(0, 1), NULL, "chosen_labels count no token in row 0",
           I32(&c, "chosen_labels", S(1, 2), 0, -100));
    REJECT(logits_of_pairs(0, 1), NULL, "rejected_labels[0,1] is 7, expected -100 or",
           I32(&c, "rejected_labels", S(1, 2), 0, 7));
    REJECT(bandit(), NULL, "baseline sums to 1.25 in row 1, expected 1 within 0.001",
           F32(&c, "baseline", S(2, 2), 0.5, 0.5, 0.5, 0.75));
    REJECT(bandit(), NULL, "prompt sums to 0.5, expected 1", F32(&c, "prompt", S(2), 0.25, 0.25));
    REJECT(bandit(), NULL, "prompt[0] is -1, expected >= 0", F32(&c, "prompt", S(2), -1, 2));
    REJECT(bandit(), NULL, "pair_prompt[1] is 2, expected 0 <= . < X",
           I32(&c, "pair_prompt", S(2), 0, 2));
    REJECT(bandit(), NULL, "pair_rejected[0] is -1, expected 0 <= . < A",
           I32(&c, "pair_rejected", S(2), -1, 0));
    REJECT(bandit(), "{\"beta\": 0}", "option beta is 0", NO_CHANGE);
}

/* --- self-distillation ------------------------------------------------------------------------ */

static void patches_are_cut_row_by_row(void **state)
{
    (void)state;
    call c = start("self_distill_patchify", "{\"patch\": 2}");
    F32(&c, "image", S(1, 2, 4, 1), 0, 1, 2, 3, 4, 5, 6, 7);
    accept(&c, NULL);
    expect(&c, "patches", 0, 1, 4, 5, 2, 3, 6, 7);
    finish(&c);
}

static void equal_noise_hides_the_last_patches(void **state)
{
    (void)state;
    call c = start("self_distill_mask", "{\"mask_ratio\": 0.5}");
    F32(&c, "noise", S(2, 5), 0, 0, 0, 0, 0, 0.9, 0.1, 0.5, 0.1, 0.5);
    accept(&c, NULL);
    expect(&c, "keep", 0, 1, 1, 3);
    expect(&c, "mask", 0, 0, 1, 1, 1, 1, 0, 1, 0, 1);
    expect(&c, "restore", 0, 1, 2, 3, 4, 4, 0, 2, 1, 3);
    finish(&c);
}

static call features(void)
{
    call c = start("self_distill_loss", NULL);
    F32(&c, "pred", S(1, 2, 2), 1, -1, 0, 0);
    F32(&c, "patches", S(1, 2, 2), 5, 5, 1, 3);
    I32(&c, "mask", S(1, 2), 0, 1);
    F32(&c, "student", S(1, 2), 1, 2);
    F32(&c, "teacher", S(1, 2), 0, 0);
    return c;
}

/* (1, 3) standardised without bias is (-1, 1) / sqrt(2). */
static void only_hidden_patches_count(void **state)
{
    (void)state;
    call c = features();
    c.options = "{\"norm_eps\": 0}";
    I32(&c, "mask", S(1, 2), 0, 1);
    accept(&c, "loss");
    expect(&c, "mae", 0.5);
    expect(&c, "distill", 5);
    near(slope(&c, "pred", 0), 0);
    near(slope(&c, "pred", 2), sqrt(0.5));
    near(slope(&c, "student", 1), 4);
    c.options = "{\"reduce\": \"mean\", \"norm_pix\": false, \"weight\": 0}";
    accept(&c, "loss");
    expect(&c, "distill", 2.5);
    expect(&c, "loss", 5);
    finish(&c);
}

static void self_distillation_refuses(void **state)
{
    (void)state;
    REJECT(features(), NULL, "mask hides no patch", I32(&c, "mask", S(1, 2), 0, 0));
    REJECT(features(), NULL, "mask[0,1] is 2, expected in {0,1}", I32(&c, "mask", S(1, 2), 0, 2));
    REJECT(features(), NULL, "teacher must be f32[1,2], not f32[1,3]",
           F32(&c, "teacher", S(1, 3), 0, 0, 0));
    REJECT(features(), "{\"weight\": -1}", "option weight is -1", NO_CHANGE);
    REJECT(features(), "{\"reduce\": \"max\"}", "option reduce is \"max\"", NO_CHANGE);
    REJECT(features(), NULL, "P = 1 values", F32(&c, "pred", S(1, 2, 1), 0, 0);
           F32(&c, "patches", S(1, 2, 1), 0, 0));
    REJECT(features(), NULL, "expected P >= 2 and student [B,D] or [B,T,D]",
           F32(&c, "student", S(1), 0);
           F32(&c, "teacher", S(1), 0));
    call c = start("self_distill_patchify", "{\"patch\": 3}");
    F32(&c, "image", S(1, 2, 3, 1), 0, 1, 2, 3, 4, 5);
    refuse(&c, "image is 2 x 3, expected multiples of patch = 3");
    c = start("self_distill_mask", "{\"mask_ratio\": 0.9}");
    F32(&c, "noise", S(1, 10), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    refuse(&c, "mask_ratio 0.9 of 10 patches leaves none");
    c = start("self_distill_mask", "{\"mask_ratio\": 1}");
    F32(&c, "noise", S(1, 1), 0);
    refuse(&c, "option mask_ratio is 1, expected [0,1)");
}

/* --- BA-LoRA ---------------------------------------------------------------------------------- */

static call balora(const char *function, const char *options, double last)
{
    call c = start(function, options);
    F32(&c, "z_ft", S(3, 2), 1, 0, 0, 2, last, last);
    I32(&c, "mask", S(3), 1, 1, 0);
    return c;
}

/* What stands in rows that do not count, padding of any kind, changes nothing. */
static void masked_rows_change_nothing(void **state)
{
    (void)state;
    static const char *const calls[][2] = {{"balora_consistency", NULL},
                                           {"balora_consistency", "{\"kind\": \"mse_norm\"}"},
                                           {"balora_diversity", NULL},
                                           {"balora_diversity", "{\"kind\": \"entropy\"}"},
                                           {"balora_diversity", "{\"kind\": \"topk_entropy\"}"},
                                           {"balora_svd", "{\"k\": 1}"}};
    for (int i = 0; i < COUNT_OF(calls); i++) {
        double loss[2];
        for (int padded = 0; padded < 2; padded++) {
            call c = balora(calls[i][0], calls[i][1], padded ? (double)NAN : 0);
            if (i < 2)
                F32(&c, "z_pre", S(3, 2), 0, 1, 0, 1, padded ? INFINITY : 0, 0);
            accept(&c, "loss");
            loss[padded] = result(&c, "loss", 0);
            near(slope(&c, "z_ft", 4), 0);
            near(slope(&c, "z_ft", 5), 0);
            all_finite(&c.gradient);
            finish(&c);
        }
        assert_true(loss[0] == loss[1] && loss[0] != 0);
    }
}

static void no_counted_row_is_no_loss(void **state)
{
    (void)state;
    static const char *const calls[][2] = {{"balora_consistency", NULL},
                                           {"balora_consistency", "{\"kind\": \"mse_norm\"}"},
                                           {"balora_diversity", NULL},
                                           {"balora_diversity", "{\"kind\": \"entropy\"}"},
                                           {"balora_diversity", "{\"kind\": \"topk_entropy\"}"},
                                           {"balora_svd", NULL},
                                           {"balora_svd", "{\"norm\": \"frobenius\"}"}};
    for (int i = 0; i < COUNT_OF(calls); i++) {
        call c = balora(calls[i][0], calls[i][1], 1);
        I32(&c, "mask", S(3), 0, 0, 0);
        if (i < 2)
            F32(&c, "z_pre", S(3, 2), 0, 1, 0, 1, 0, 0);
        accept(&c, "loss");
        expect(&c, "loss", 0);
        for (int j = 0; j < 6; j++)
            near(slope(&c, "z_ft", j), 0);
        finish(&c);
    }
}

/* diag(1, 2): sigma = 2, 1. */
static void singular_values_by_hand(void **state)
{
    (void)state;
    call c = balora("balora_svd", "{\"k\": 1}", 9);
    accept(&c, "loss");
    expect(&c, "loss", -2.0 / 3);
    near(slope(&c, "z_ft", 0), 2.0 / 9);
    near(slope(&c, "z_ft", 3), -1.0 / 9);
    c.options = "{\"k\": 7, \"norm\": \"frobenius\"}";
    accept(&c, "loss");
    expect(&c, "loss", -3 / sqrt(5));
    c.options = "{\"k\": 7}"; /* all of all: no slope */
    accept(&c, "loss");
    expect(&c, "loss", -1);
    near(slope(&c, "z_ft", 0), 0);
    finish(&c);
}

static void dependent_rows_have_finite_slopes(void **state)
{
    (void)state;
    call c = start("balora_svd", "{\"k\": 2}");
    F32(&c, "z_ft", S(3, 3), 1, 2, 3, 1, 2, 3, 2, 4, 6);
    I32(&c, "mask", S(3), 1, 1, 1);
    accept(&c, "loss");
    expect(&c, "loss", -1);
    for (int i = 0; i < 9; i++)
        near(slope(&c, "z_ft", i), 0);
    finish(&c);
}

static void ties_go_to_the_lowest_class(void **state)
{
    (void)state;
    call c = start("balora_diversity", "{\"kind\": \"topk_entropy\", \"top_k\": 2}");
    F32(&c, "z_ft", S(1, 4), 1, 3, 1, 1);
    I32(&c, "mask", S(1), 1);
    accept(&c, "loss");
    assert_true(slope(&c, "z_ft", 0) != 0);
    assert_true(slope(&c, "z_ft", 2) == 0 && slope(&c, "z_ft", 3) == 0);
    finish(&c);
}

static void shares_of_a_run_are_exact(void **state)
{
    (void)state;
    call c =
        start("balora_weights",
              "{\"total_steps\": 100, \"warmup_ratio\": 0.29, \"lambda2\": 1, "
              "\"focus_schedule\": \"linear_warmup\", \"consistency_schedule\": \"constant\"}");
    I32(&c, "step", BL_SCALAR, 14); /* 0.29 * 100 is below 29 in double */
    accept(&c, NULL);
    expect(&c, "weights", 0.025, 0.5, 0.0025);
    c.options = "{\"total_steps\": 10, \"warmup_ratio\": 0, \"focus_schedule\": "
                "\"quadratic_warmup\"}";
    I32(&c, "step", BL_SCALAR, 10);
    accept(&c, NULL);
    expect(&c, "weights", 0.0025, 0.005, 0.005);
    finish(&c);
}

static void ba_lora_refuses(void **state)
{
    (void)state;
    REJECT(balora("balora_svd", NULL, 0), NULL, "mask[2] is 2, expected in {0,1}",
           I32(&c, "mask", S(3), 0, 1, 2));
    REJECT(balora("balora_svd", NULL, 0), NULL, "mask must be i32[3], not i32[2]",
           I32(&c, "mask", S(2), 0, 1));
    REJECT(balora("balora_svd", NULL, 0), "{\"k\": 0}", "option k is 0, expected >= 1", NO_CHANGE);
    REJECT(balora("balora_svd", NULL, 0), "{\"norm\": \"max\"}", "option norm is \"max\"",
           NO_CHANGE);
    REJECT(balora("balora_svd", NULL, 0), NULL, "expected at least one class",
           F32(&c, "z_ft", S(3, 0), 0));
    REJECT(balora("balora_diversity", NULL, 0), "{\"top_k\": 0}", "option top_k is 0", NO_CHANGE);
    call c = start("balora_consistency", "{\"temperature\": 0}");
    refuse(&c, "option temperature is 0, expected (0,inf)");
    c = start("balora_consistency", NULL);
    F32(&c, "z_pre", S(0, 2), 0);
    F32(&c, "z_ft", S(0, 2), 0);
    I32(&c, "mask", S(0), 0);
    refuse(&c, "z_pre has no rows");
    c = start("balora_weights", NULL);
    I32(&c, "step", BL_SCALAR, 1);
    refuse(&c, "option total_steps is required");
    c = start("balora_weights", "{\"total_steps\": 0}");
    refuse(&c, "option total_steps is 0, expected >= 1");
    c = start("balora_weights", "{\"total_steps\": 9, \"lambda2\": -1}");
    refuse(&c, "option lambda2 is -1");
    c = start("balora_loss", NULL);
    F32(&c, "task_loss", BL_SCALAR, 1);
    F32(&c, "z_pre", S(1, 1), 1);
    F32(&c, "z_ft", S(1, 1), 1);
    I32(&c, "mask", S(1), 1);
    F32(&c, "weights", S(3), 0, -1, 0);
    refuse(&c, "weights[1] is -1, expected >= 0");
    static const char *const starts[] = {"balora_pissa_init", "sorsa_init"};
    for (int i = 0; i < 2; i++) {
        c = start(starts[i], "{\"rank\": 3}");
        F32(&c, "w", S(2, 3), 1, 2, 3, 4, 5, 6);
        refuse(&c, "rank is 3, expected at most 2");
        c = start(starts[i], "{\"rank\": 0}");
        refuse(&c, "option rank is 0, expected >= 1");
        c = start(starts[i], "{\"rank\": 1}");
        F32(&c, "w", S(1, 2), 1, NAN);
        refuse(&c, "w[0,1] is nan, expected finite");
    }
}

/* --- SORSA ------------------------------------------------------------------------------------ */

static void a_layer_starts_as_it_was(void **state)
{
    (void)state;
    const double w[] = {3, 0, 1, -1, 2, 0.5};
    call c = start("sorsa_init", "{\"rank\": 2, \"scale\": 0.5}"), m, y;
    give(&c, "w", BL_F32, S(2, 3), w);
    accept(&c, NULL);
    m = start("sorsa_merge", "{\"scale\": 0.5}");
    y = start("sorsa_linear", "{\"scale\": 0.5}");
    F32(&y, "x", S(1, 3), 1, 2, -1);
    F32(&y, "bias", S(2), 10, 20);
    static const char *const parts[] = {"w_res", "a", "s", "b"};
    for (int p = 0; p < 4; p++) {
        bl_array part;
        for (int i = 0; i < 2; i++) {
            expect_ok(bl_array_copy(bl_dictionary_find(&c.out, parts[p]), &part));
            expect_ok(bl_dictionary_set(i ? &y.in : &m.in, parts[p], part));
        }
    }
    accept(&m, NULL);
    expect_values(&m, "w", 6, w);
    accept(&y, NULL);
    expect(&y, "y", 12, 22.5);
    finish(&c);
    finish(&m);
    finish(&y);
}

static void orthonormal_vectors_are_left_alone(void **state)
{
    (void)state;
    call c = start("sorsa_orthonormality", "{\"reduction\": \"sum\"}");
    F32(&c, "a", S(2, 1, 2), 0.6, 0.8, 3, 4);
    F32(&c, "b", S(2, 2, 1), 1, 0, 0, 2);
    accept(&c, "loss");
    expect(&c, "loss", 24 + 3);
    assert_true(slope(&c, "a", 0) == 0 && slope(&c, "b", 0) == 0);
    near(slope(&c, "a", 2), 6); /* of a^2 - 1 */
    near(slope(&c, "b", 3), 4);
    c.options = "{\"tiny\": 100}";
    accept(&c, "loss");
    expect(&c, "loss", 27.0 / 4);
    near(slope(&c, "a", 2), 0);
    finish(&c);
}

static void drift_does_not_see_signs(void **state)
{
    (void)state;
    call c = start("sorsa_drift", NULL);
    F32(&c, "w0", S(2, 2), 3, 0, 0, 1);
    F32(&c, "wt", S(2, 2), -4, 0, 0, 3);
    accept(&c, NULL);
    expect(&c, "delta_sigma", 1.5);
    near(result(&c, "delta_d", 0), 0);
    F32(&c, "wt", S(2, 2), 0, 0.5, 2, 0); /* the vectors of one side are exchanged */
    accept(&c, NULL);
    expect(&c, "delta_d", 0.5);
    finish(&c);
}

static void sorsa_refuses(void **state)
{
    (void)state;
    call c = start("sorsa_init", "{\"scale\": 0}");
    F32(&c, "w", S(4, 4), 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1);
    refuse(&c, "option scale is 0, expected another number");
    c = start("sorsa_orthonormality", NULL);
    F32(&c, "a", S(1, 2, 1), 1, 1);
    F32(&c, "b", S(1, 2, 2), 1, 1, 1, 1);
    refuse(&c, "rank r is 2, expected at most 1");
    c = start("sorsa_orthonormality", "{\"tiny\": -1}");
    refuse(&c, "option tiny is -1, expected [0,inf)");
    c = start("sorsa_merge", NULL);
    F32(&c, "w_res", S(1, 1), 1);
    F32(&c, "a", S(2, 1), 1, 1);
    F32(&c, "s", S(1), 1);
    F32(&c, "b", S(1, 2), 1, 1);
    refuse(&c, "s must be f32[2], not f32[1]");
}

/* --- LT-SFT ----------------------------------------------------------------------------------- */

static call selection(const char *options)
{
    call c = start("ltsft_select", options);
    F32(&c, "theta0", S(6), 0, 0, 0, 0, 0, 0);
    F32(&c, "theta1", S(6), 1, -2, 2, 9, 0, -2);
    I32(&c, "chosen", S(6), 0, 0, 0, 1, 0, 0);
    return c;
}

static void ties_are_cut_or_taken_whole(void **state)
{
    (void)state;
    call c = selection("{\"k\": 2}");
    accept(&c, NULL);
    expect(&c, "mask", 0, 1, 1, 1, 0, 0);
    expect(&c, "threshold", 2);
    expect(&c, "count", 3);
    c.options = "{\"k\": 2, \"ties\": \"include\"}";
    accept(&c, NULL);
    expect(&c, "mask", 0, 1, 1, 1, 0, 1);
    expect(&c, "count", 4);
    c.options = "{\"k\": 5}";
    accept(&c, NULL);
    expect(&c, "mask", 1, 1, 1, 1, 1, 1);
    expect(&c, "threshold", 0);
    finish(&c);
}

/* In float the two movements would be equal. */
static void movements_are_compared_in_double(void **state)
{
    (void)state;
    call c = start("ltsft_select", "{\"k\": 1}");
    F32(&c, "theta0", S(2), 1e-9, 0);
    F32(&c, "theta1", S(2), 1, 1);
    I32(&c, "chosen", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "mask", 0, 1);
    finish(&c);
}

static void masked_parameters_stay(void **state)
{
    (void)state;
    call c = start("ltsft_masked_adamw", "{\"lr\": 0.5}");
    F32(&c, "theta", S(3), 1, 2, 3);
    F32(&c, "grad", S(3), 5, -7, 0);
    F32(&c, "m", S(3), 0, 0, 0);
    F32(&c, "v", S(3), 0, 0, 0);
    I32(&c, "mask", S(3), 0, 1, 1);
    I32(&c, "step", BL_SCALAR, 0);
    accept(&c, NULL);
    expect(&c, "theta", 1, 2.5, 3);
    expect(&c, "m", 0, -0.7, 0);
    expect(&c, "v", 0, 0.049, 0);
    c.options = "{\"lr\": 0.5, \"weight_decay\": 1, \"eps\": 0}";
    accept(&c, NULL);
    expect(&c, "theta", 0.5, 1.5, 1.5);
    finish(&c);
}

static void differences_add_up(void **state)
{
    (void)state;
    call c = start("ltsft_extract", "{\"eps\": 0.5}");
    F32(&c, "theta", S(4), 1, 0.5, -2, 3);
    F32(&c, "theta0", S(4), 0, 0, 0, 0);
    I32(&c, "maskable", S(4), 1, 1, 1, 0);
    accept(&c, NULL);
    expect(&c, "diff", 1, 0, -2, 0);
    expect(&c, "nonzero", 1, 0, 1, 0);
    expect(&c, "count", 2);
    finish(&c);
    c = start("ltsft_compose", NULL);
    F32(&c, "theta0", S(2), 1, 1);
    F32(&c, "diffs", S(2, 2), 2, 0, 2, 4);
    F32(&c, "weights", S(2), 1, -1);
    accept(&c, NULL);
    expect(&c, "theta", 1, -3);
    expect(&c, "overlap", 1);
    F32(&c, "diffs", S(0, 2), 0);
    F32(&c, "weights", S(0), 0);
    accept(&c, NULL);
    expect(&c, "theta", 1, 1);
    expect(&c, "overlap", 0);
    finish(&c);
}

static call pull(const char *options)
{
    call c = start("ltsft_l1", options);
    F32(&c, "theta", S(3), 1, 2, 9);
    F32(&c, "theta0", S(3), 1, 4, 0);
    I32(&c, "trainable", S(3), 1, 1, 0);
    return c;
}

static void the_pull_is_shared_by_all_parameters(void **state)
{
    (void)state;
    call c = pull("{\"coefficient\": 6}");
    accept(&c, "penalty");
    expect(&c, "penalty", 4);
    near(slope(&c, "theta", 0), 0);
    near(slope(&c, "theta", 1), -2);
    near(slope(&c, "theta", 2), 0);
    c.options = "{\"coefficient\": 6, \"total\": 12}";
    accept(&c, "penalty");
    expect(&c, "penalty", 1);
    finish(&c);
}

static void lt_sft_refuses(void **state)
{
    (void)state;
    REJECT(selection("{\"k\": 6}"), "{\"k\": 6}", "option k is 6, expected at most the 5 not yet",
           NO_CHANGE);
    REJECT(selection(NULL), "{\"k\": 0}", "option k is 0, expected >= 1", NO_CHANGE);
    REJECT(selection(NULL), "{}", "option k is required", NO_CHANGE);
    REJECT(selection(NULL), "{\"k\": 1, \"ties\": \"all\"}", "option ties is \"all\"", NO_CHANGE);
    REJECT(selection(NULL), "{\"k\": 1}", "chosen[5] is 2, expected in {0,1}",
           I32(&c, "chosen", S(6), 0, 0, 0, 0, 0, 2));
    REJECT(selection(NULL), "{\"k\": 1}", "theta1[1] is inf, expected finite",
           F32(&c, "theta1", S(6), 0, INFINITY, 0, 0, 0, 0));
    REJECT(selection(NULL), "{\"k\": 1}", "theta1 must be f32[6], not f32[2]",
           F32(&c, "theta1", S(2), 0, 0));
    REJECT(pull(NULL), "{\"coefficient\": -1}", "option coefficient is -1", NO_CHANGE);
    REJECT(pull(NULL), NULL, "trainable[0] is -1", I32(&c, "trainable", S(3), -1, 0, 0));
    call c = start("ltsft_masked_adamw", "{\"lr\": 0}");
    refuse(&c, "option lr is 0, expected (0,inf)");
    c = start("ltsft_masked_adamw", "{\"eps\": -1}");
    refuse(&c, "option eps is -1, expected [0,inf)");
    c = start("ltsft_extract", "{\"eps\": -1}");
    refuse(&c, "option eps is -1, expected [0,inf)");
}

/* --- saliency-aware retraining ---------------------------------------------------------------- */

static call quantiser(const char *options)
{
    call c = start("salient_fake_quant", options);
    F32(&c, "w", S(2, 2), 0, 0, -1, 2);
    F32(&c, "up", S(2, 1), 0, 80);
    F32(&c, "low", S(2, 1), 0, 80);
    return c;
}

/* The second group is not clipped: -1 .. 2 in three steps of 1, code 1 for 0. */
static void a_group_of_zeros_is_legal(void **state)
{
    (void)state;
    call c = quantiser("{\"group_size\": 2}");
    give_to(&c.cotangent, "w_quant", (bl_type){BL_F32, S(2, 2)}, VALUES(1, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "scale", 1e-5, 1);
    expect(&c, "zero", 0, 1);
    expect(&c, "code", 0, 0, 0, 3);
    expect(&c, "w_quant", 0, 0, -1, 2);
    all_finite(&c.gradient);
    near(slope(&c, "up", 0), 0);
    finish(&c);
}

static void the_ends_of_the_range_pass_gradients(void **state)
{
    (void)state;
    call c = start("salient_fake_quant", "{\"group_size\": 2, \"bits\": 1}");
    F32(&c, "w", S(1, 2), 0, 2);
    F32(&c, "up", S(1, 1), 0); /* high = 1 = scale, codes 0 and 1; 2 is clipped */
    F32(&c, "low", S(1, 1), 0);
    give_to(&c.cotangent, "w_quant", (bl_type){BL_F32, S(1, 2)}, VALUES(5, 1));
    accept(&c, NULL);
    expect(&c, "w_quant", 0, 1);
    near(slope(&c, "up", 0), 2 * 0.25); /* d scale / d up = max w sigma' */
    finish(&c);
}

static call held(const char *options)
{
    call c = start("salient_penalty", options);
    F32(&c, "w", S(1, 2), -1, 2.25);
    F32(&c, "up", S(1, 1), 80);
    F32(&c, "low", S(1, 1), 80);
    F32(&c, "a", S(1, 2), 0, 1);
    F32(&c, "b", S(1, 1), 2);
    F32(&c, "saliency", S(1, 2), 0, 3);
    return c;
}

static void the_adapter_is_held_only_after_it(void **state)
{
    (void)state;
    call c = held("{\"group_size\": 2, \"lora_scale\": 0.5, \"target\": \"after_lora\"}");
    accept(&c, "penalty"); /* scale 3.25 / 3, zero 1: W = (-1.083, 2.167) + (0, 1) */
    double gap = 2 * 3.25 / 3 + 1 - 2.25;
    expect(&c, "penalty", 3 * gap * gap);
    near(slope(&c, "b", 0), 2 * 3 * gap * 0.5);
    c.options = "{\"group_size\": 2, \"lora_scale\": 0.5}";
    accept(&c, "penalty");
    near(slope(&c, "b", 0), 0);
    near(slope(&c, "a", 1), 0);
    finish(&c);
}

static void saliency_refuses(void **state)
{
    (void)state;
    REJECT(quantiser(NULL), "{\"group_size\": 3}", "option group_size is 3, expected a divisor of",
           NO_CHANGE);
    REJECT(quantiser(NULL), "{\"group_size\": 1}", "up and low have 2 rows, expected G = 4",
           NO_CHANGE);
    REJECT(quantiser(NULL), "{\"group_size\": 2, \"bits\": 9}", "option bits is 9, expected [1,8]",
           NO_CHANGE);
    REJECT(quantiser(NULL), "{\"group_size\": 2, \"bits\": 0}", "option bits is 0", NO_CHANGE);
    REJECT(quantiser(NULL), "{\"group_size\": 2, \"bits\": 1, \"symmetric\": true}",
           "option bits is 1, expected at least 2 where symmetric", NO_CHANGE);
    REJECT(quantiser(NULL), "{\"group_size\": 2}", "low must be f32[2,1], not f32[1,1]",
           F32(&c, "low", S(1, 1), 0));
    REJECT(held(NULL), "{\"group_size\": 2}", "saliency[0,1] is -1, expected >= 0",
           F32(&c, "saliency", S(1, 2), 0, -1));
    REJECT(held(NULL), "{\"group_size\": 2}", "b must be f32[1,1], not f32[1,2]",
           F32(&c, "b", S(1, 2), 0, -1));
    REJECT(held(NULL), "{\"group_size\": 2}", "a has no rows", F32(&c, "a", S(0, 2), 0);
           F32(&c, "b", S(1, 0), 0));
    REJECT(held(NULL), "{\"target\": \"lora\"}", "option target is \"lora\"", NO_CHANGE);
    call c = start("salient_layer_loss", "{\"lambda_reg\": -1}");
    refuse(&c, "option lambda_reg is -1, expected [0,inf)");
}

/* --- mask tuning ------------------------------------------------------------------------------ */

static void equality_switches_a_weight_off(void **state)
{
    (void)state;
    call c = start("ramt_mask", "{\"threshold\": 0.5}");
    F32(&c, "m", S(1, 4), 0.5, 0.75, -9, 1);
    give_to(&c.cotangent, "mask", (bl_type){BL_F32, S(1, 4)}, VALUES(1, 2, 3, 4));
    accept(&c, NULL);
    expect(&c, "mask", 0, 1, 0, 1);
    expect(&c, "dropped", 0.5);
    for (int i = 0; i < 4; i++)
        near(slope(&c, "m", i), i + 1);
    finish(&c);
}

static call dropping(const char *options)
{
    call c = start("ramt_gradient_dropout", options);
    F32(&c, "g_task", S(4), 3, 3, 0, -3);
    F32(&c, "g_teacher", S(4), 1, -1, 5, 9);
    F32(&c, "u", S(4), 0.9, 0.8, 0.25, 0.1);
    return c;
}

static void a_gradient_survives_by_its_share(void **state)
{
    (void)state;
    call c = dropping(NULL);
    accept(&c, NULL);
    expect(&c, "keep_probability", 1, 0.75, 0.5, 0.25);
    expect(&c, "grad", 3, 0, 0, -3);
    c.options = "{\"strength\": 0.5}";
    accept(&c, NULL);
    expect(&c, "grad", 3, 1.5, 0, -3);
    c.options = "{\"strength\": 0, \"eps\": 0}";
    F32(&c, "g_teacher", S(4), 0, 0, 0, 0);
    accept(&c, NULL);
    expect(&c, "grad", 3, 3, 0, -3);
    expect(&c, "keep_probability", 1, 1, 0.5, 1);
    finish(&c);
}

static void norms_of_zero_rows_have_no_slope(void **state)
{
    (void)state;
    call c = start("ramt_mask_penalty", "{\"coefficient\": 2}");
    F32(&c, "m", S(2, 2), 0, 0, 3, -4);
    accept(&c, "penalty");
    expect(&c, "penalty", 10);
    near(slope(&c, "m", 0), 0);
    near(slope(&c, "m", 3), -1.6);
    c.options = "{\"coefficient\": 2, \"power\": 1}";
    accept(&c, "penalty");
    expect(&c, "penalty", 14);
    near(slope(&c, "m", 1), 0);
    finish(&c);
}

static void cosines_do_not_see_length(void **state)
{
    (void)state;
    call c = start("ramt_cosine_logits", NULL);
    F32(&c, "features", S(2, 2), 3e-15, 4e-15, 3e15, -4e15);
    F32(&c, "text", S(1, 2), 1, 0);
    F32(&c, "log_scale", BL_SCALAR, log(10));
    accept(&c, NULL);
    expect(&c, "logits", 6, 6);
    finish(&c);
}

static void mask_tuning_refuses(void **state)
{
    (void)state;
    REJECT(dropping(NULL), "{\"strength\": 1.5}", "option strength is 1.5, expected [0,1]",
           NO_CHANGE);
    REJECT(dropping(NULL), NULL, "u[3] is 1, expected 0 <= . < 1", F32(&c, "u", S(4), 0, 0, 0, 1));
    REJECT(dropping(NULL), NULL, "g_teacher must be f32[4], not f32[1]",
           F32(&c, "g_teacher", S(1), 0));
    call c = start("ramt_mask_penalty", "{\"power\": 3}");
    refuse(&c, "option power is 3, expected [1,2]");
    c = start("ramt_teacher_loss", "{\"temperature\": 0}");
    refuse(&c, "option temperature is 0, expected (0,inf)");
    c = start("ramt_teacher_loss", "{\"alpha\": -0.5}");
    refuse(&c, "option alpha is -0.5, expected [0,1]");
    c = start("ramt_cosine_logits", NULL);
    F32(&c, "features", S(2, 2), 0, 1, 0, 0);
    F32(&c, "text", S(1, 2), 1, 0);
    F32(&c, "log_scale", BL_SCALAR, 1);
    refuse(&c, "features is all 0 in row 1");
}

/* --- DR-Tune ---------------------------------------------------------------------------------- */

static call ring(double ptr)
{
    call c = start("drt_bank_push", NULL);
    F32(&c, "pre_bank", S(3, 1), 1, 2, 3);
    F32(&c, "down_bank", S(3, 1), 4, 5, 6);
    I32(&c, "bank_labels", S(3), 7, 8, 9);
    I32(&c, "ptr", BL_SCALAR, ptr);
    F32(&c, "pre", S(2, 1), -1, -2);
    F32(&c, "down", S(2, 1), -4, -5);
    I32(&c, "labels", S(2), 0, 1);
    return c;
}

static void the_ring_wraps(void **state)
{
    (void)state;
    call c = ring(2);
    accept(&c, NULL);
    expect(&c, "pre_bank", -2, 2, -1);
    expect(&c, "down_bank", -5, 5, -4);
    expect(&c, "bank_labels", 1, 8, 0);
    expect(&c, "ptr", 1);
    finish(&c);
}

/* y is x mirrored at the first axis; no rotation does that, so the weaker axis is turned as well.
 */
static void a_mirror_image_is_not_a_rotation(void **state)
{
    (void)state;
    call c = start("drt_rotate", NULL);
    F32(&c, "x", S(4, 2), 5, 0, -5, 0, 0, 1, 0, -1);
    F32(&c, "y", S(4, 2), -4, 2, 6, 2, 1, 3, 1, 1);
    accept(&c, NULL);
    expect(&c, "rot", -1, 0, 0, -1);
    expect(&c, "x_rot", -5, 0, 5, 0, 0, -1, 0, 1);
    c.options = "{\"restore_mean\": true}";
    accept(&c, NULL);
    expect(&c, "x_rot", -4, 2, 6, 2, 1, 1, 1, 3);
    finish(&c);
}

static void one_point_has_a_proper_rotation(void **state)
{
    (void)state;
    call c = start("drt_rotate", NULL);
    F32(&c, "x", S(1, 3), 1, 2, 3);
    F32(&c, "y", S(1, 3), 0, 1, 0);
    accept(&c, NULL);
    expect(&c, "x_rot", 0, 0, 0);
    double r[9];
    for (int i = 0; i < 9; i++)
        r[i] = result(&c, "rot", i);
    near(r[0] * (r[4] * r[8] - r[5] * r[7]) - r[1] * (r[3] * r[8] - r[5] * r[6]) +
             r[2] * (r[3] * r[7] - r[4] * r[6]),
         1);
    finish(&c);
}

static call clouds(void)
{
    call c = start("drt_class_translate", NULL);
    F32(&c, "pre", S(3, 2), 1, 1, 3, 3, 9, 9);
    F32(&c, "down", S(3, 2), 1, 0, 1, 0, 0, 1);
    I32(&c, "labels", S(3), 2, 2, 0);
    F32(&c, "head_w", S(3, 2), 0, 0, 5, 5, 7, 0);
    return c;
}

/* Class 2 moves from (2, 2) to (1, 0), class 0 with one entry to it; class 1 has none. */
static void each_class_moves_as_a_whole(void **state)
{
    (void)state;
    call c = clouds();
    accept(&c, NULL);
    expect(&c, "pre_shifted", 0, -1, 2, 1, 0, 1);
    finish(&c);
}

static call head(const char *options)
{
    call c = start("drt_loss", options);
    F32(&c, "z_down", S(1, 1), 0);
    I32(&c, "labels", S(1), 0);
    F32(&c, "z_cal", S(3, 1), 80, 80, 80);
    I32(&c, "bank_labels", S(3), 1, 1, 1);
    F32(&c, "head_w", S(2, 1), 1, -1);
    F32(&c, "head_b", S(2), 0, 0);
    return c;
}

static void the_bank_outweighs_the_batch(void **state)
{
    (void)state;
    call c = head("{\"lam\": 0.5}");
    accept(&c, "loss");
    expect(&c, "task", log(2));
    expect(&c, "dr", 160);
    expect(&c, "loss", (log(2) + 0.5 * 3 * 160) / 4);
    near(slope(&c, "z_down", 0), -1.0 / 4);
    near(slope(&c, "head_b", 0), (-0.5 + 0.5 * 3) / 4);
    c.options = "{\"lam\": 0.5, \"reduction\": \"sum_means\"}";
    accept(&c, "loss");
    expect(&c, "loss", log(2) + 80);
    finish(&c);
}

static void dr_tune_refuses(void **state)
{
    (void)state;
    REJECT(ring(0), NULL, "ptr is 3, expected 0 <= . < K", I32(&c, "ptr", BL_SCALAR, 3));
    REJECT(ring(0), NULL, "ptr is -1, expected 0 <= . < K", I32(&c, "ptr", BL_SCALAR, -1));
    REJECT(ring(0), NULL, "labels[1] is -1, expected >= 0", I32(&c, "labels", S(2), 0, -1));
    REJECT(ring(0), NULL, "pre has 4 rows, expected at most the bank's K = 3",
           F32(&c, "pre", S(4, 1), 0, 0, 0, 0);
           F32(&c, "down", S(4, 1), 0, 0, 0, 0); I32(&c, "labels", S(4), 0, 0, 0, 0));
    REJECT(clouds(), NULL, "labels[1] is 3, expected 0 <= . < C", I32(&c, "labels", S(3), 0, 3, 0));
    REJECT(clouds(), NULL, "down must be f32[3,2], not f32[2,2]",
           F32(&c, "down", S(2, 2), 0, 0, 0, 0));
    REJECT(head(NULL), "{\"lam\": -1}", "option lam is -1, expected [0,inf)", NO_CHANGE);
    REJECT(head(NULL), "{\"reduction\": \"sum\"}", "option reduction is \"sum\"", NO_CHANGE);
    REJECT(head(NULL), NULL, "bank_labels[2] is 2, expected 0 <= . < C",
           I32(&c, "bank_labels", S(3), 0, 0, 2));
}

/* --- in a training graph ---------------------------------------------------------------------- */

/* A graph in which all inputs and all numbers among the options are tensors, as a schedule gives
 * them; x[i] stands for value[i]. */
typedef struct scheduled {
    bl_graph *graph;
    char *fields;
    bl_tensor x[32];
    bl_array value[32];
    int inputs;
    bl_array number[16];
    int numbers;
} scheduled;

static void add_scheduled_option(scheduled *s, const bl_field *field)
{
    bl_tensor *slot = (bl_tensor *)(s->fields + field->offset);
    bl_array *number = &s->number[s->numbers++];
    expect_ok(bl_array_new(BL_F32, BL_SCALAR, number));
    bl_array_set(number, 0, slot->number);
    *slot = s->x[s->inputs] = bl_input(s->graph, field->name, BL_F32, BL_SCALAR);
    s->value[s->inputs++] = *number;
}

static scheduled schedule(const call *c)
{
    scheduled s = {.graph = bl_graph_new(), .fields = bl_fields_new(c->contract)};
    assert_true(s.graph && s.fields);
    expect_ok(bl_options_set_json(c->contract, s.fields, c->options));
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        if (f->kind == BL_FIELD_OPTION && f->option == BL_OPTION_NUMBER)
            add_scheduled_option(&s, f);
        if (f->kind != BL_FIELD_IN)
            continue;
        bl_array value = *bl_dictionary_find(&c->in, f->name);
        bl_tensor x = bl_input(s.graph, f->name, value.type.dtype, value.type.shape);
        *(bl_tensor *)(s.fields + f->offset) = s.x[s.inputs] = x;
        s.value[s.inputs++] = value;
    }
    bl_contract_build(c->contract, s.fields);
    expect_ok(bl_graph_status(s.graph));
    return s;
}

static void expect_the_same(const scheduled *s, const call *c)
{
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++) {
        if (table[i].kind != BL_FIELD_OUT)
            continue;
        bl_tensor y = *(bl_tensor *)(s->fields + table[i].offset);
        bl_array got;
        expect_ok(bl_evaluate(bl_device_named("cpu"), s->x, s->value, s->inputs, &y, &got, 1));
        const bl_array *expected = bl_dictionary_find(&c->out, table[i].name);
        for (int64_t e = 0; e < bl_array_count(&got); e++)
            if (!close_to(bl_array_get(&got, e), bl_array_get(expected, e), 1e-5))
                fail_msg("%s: %s[%lld] is %.9g, expected %.9g", c->contract->name, table[i].name,
                         (long long)e, bl_array_get(&got, e), bl_array_get(expected, e));
        bl_array_free(&got);
    }
}

/* The case at `path`; mask_ratio decides a size, so it cannot move. */
static void check_scheduled(const char *path)
{
    bl_dictionary file = {0};
    expect_ok(bl_safetensors_read(path, &file));
    const char *function = bl_dictionary_note(&file, "function");
    call c = start(function, bl_dictionary_note(&file, "options"));
    for (size_t e = 0; e < file.count; e++) {
        bl_array copy;
        if (strncmp(file.entry[e].name, "in.", 3) != 0)
            continue;
        expect_ok(bl_array_copy(&file.entry[e].array, &copy));
        expect_ok(bl_dictionary_set(&c.in, file.entry[e].name + 3, copy));
    }
    accept(&c, NULL);
    if (c.contract->build && strcmp(function, "self_distill_mask") != 0) {
        scheduled s = schedule(&c);
        expect_the_same(&s, &c);
        bl_graph_free(s.graph);
        bl_release(s.fields);
        for (int i = 0; i < s.numbers; i++)
            bl_array_free(&s.number[i]);
    }
    finish(&c);
    bl_dictionary_free(&file);
}

static void options_may_move_in_training(void **state)
{
    (void)state;
    if (!bl_device_named("cpu"))
        skip();
    static const char *const folders[] = {"04-rpo",
                                          "09-ba-lora",
                                          "21-mask-tuning",
                                          "22-dr-tune",
                                          "41-lt-sft",
                                          "45-sorsa",
                                          "35-self-distill-pretrain",
                                          "38-saliency-retraining",
                                          "07-adapt-unlearn",
                                          "12-profusion",
                                          "15-gigatok",
                                          "27-qlae"};
    int checked = 0;
    for (int i = 0; i < COUNT_OF(folders); i++) {
        char *folder = bl_format("%s/tests/cases/%s", BALLAST_SOURCE_DIR, folders[i]);
        struct dirent **entry = NULL;
        int count = scandir(folder, &entry, NULL, alphasort);
        for (int e = 0; e < count; e++) {
            char *path = bl_format("%s/%s", folder, entry[e]->d_name);
            if (entry[e]->d_name[0] != '.') {
                check_scheduled(path);
                checked++;
            }
            bl_release(path);
            free(entry[e]);
        }
        free(entry);
        bl_release(folder);
    }
    assert_true(checked >= 122);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_equal_to_its_reference_has_no_accuracy),
        cmocka_unit_test(the_supervised_term_is_averaged_in_three_ways),
        cmocka_unit_test(huge_margins_stay_finite),
        cmocka_unit_test(a_causal_model_predicts_the_next_token),
        cmocka_unit_test(a_sequence_that_counts_nothing_has_probability_one),
        cmocka_unit_test(the_game_and_the_loss_are_equal),
        cmocka_unit_test(rpo_refuses),
        cmocka_unit_test(patches_are_cut_row_by_row),
        cmocka_unit_test(equal_noise_hides_the_last_patches),
        cmocka_unit_test(only_hidden_patches_count),
        cmocka_unit_test(self_distillation_refuses),
        cmocka_unit_test(masked_rows_change_nothing),
        cmocka_unit_test(no_counted_row_is_no_loss),
        cmocka_unit_test(singular_values_by_hand),
        cmocka_unit_test(dependent_rows_have_finite_slopes),
        cmocka_unit_test(ties_go_to_the_lowest_class),
        cmocka_unit_test(shares_of_a_run_are_exact),
        cmocka_unit_test(ba_lora_refuses),
        cmocka_unit_test(a_layer_starts_as_it_was),
        cmocka_unit_test(orthonormal_vectors_are_left_alone),
        cmocka_unit_test(drift_does_not_see_signs),
        cmocka_unit_test(sorsa_refuses),
        cmocka_unit_test(ties_are_cut_or_taken_whole),
        cmocka_unit_test(movements_are_compared_in_double),
        cmocka_unit_test(masked_parameters_stay),
        cmocka_unit_test(differences_add_up),
        cmocka_unit_test(the_pull_is_shared_by_all_parameters),
        cmocka_unit_test(lt_sft_refuses),
        cmocka_unit_test(a_group_of_zeros_is_legal),
        cmocka_unit_test(the_ends_of_the_range_pass_gradients),
        cmocka_unit_test(the_adapter_is_held_only_after_it),
        cmocka_unit_test(saliency_refuses),
        cmocka_unit_test(equality_switches_a_weight_off),
        cmocka_unit_test(a_gradient_survives_by_its_share),
        cmocka_unit_test(norms_of_zero_rows_have_no_slope),
        cmocka_unit_test(cosines_do_not_see_length),
        cmocka_unit_test(mask_tuning_refuses),
        cmocka_unit_test(the_ring_wraps),
        cmocka_unit_test(a_mirror_image_is_not_a_rotation),
        cmocka_unit_test(one_point_has_a_proper_rotation),
        cmocka_unit_test(each_class_moves_as_a_whole),
        cmocka_unit_test(the_bank_outweighs_the_batch),
        cmocka_unit_test(dr_tune_refuses),
        cmocka_unit_test(options_may_move_in_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
