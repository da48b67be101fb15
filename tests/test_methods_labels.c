/* The methods for wrong or scarce labels - random teachers, ADELE, STORM - and for learning without
 * forgetting - OVOR, rehearsal-free continual learning: what their specs refuse, and facts about
 * values and gradients at shapes and corners that the reference cases do not have. */
#include "calls.h"

/* --- random teachers -------------------------------------------------------------------------- */

static void a_student_like_its_teacher_has_nothing_to_learn(void **state)
{
    (void)state;
    call c = start("random_teacher_loss", "{\"kind\": \"kl\"}");
    F32(&c, "student", S(1, 3), 80, -80, 0);
    F32(&c, "teacher", S(1, 3), 81, -80, 1);
    F32(&c, "center", S(3), 1, 0, 1);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    near(slope(&c, "student", 0), 0);
    c.options = "{\"kind\": \"mse\"}"; /* which knows no center */
    accept(&c, "loss");
    expect(&c, "loss", 2.0 / 3);
    near(slope(&c, "student", 0), -2.0 / 3);
    c.options = "{\"kind\": \"ce\", \"student_temp\": 160}";
    accept(&c, "loss");
    near(result(&c, "loss", 0), log(1 + exp(-0.5) + exp(-1)));
    finish(&c);
}

static void an_empty_direction_has_no_cosine(void **state)
{
    (void)state;
    call c = start("random_teacher_head", "{}");
    F32(&c, "x", S(1, 1), 2);
    F32(&c, "w1", S(1, 1), 0);
    F32(&c, "b1", S(1), 0);
    F32(&c, "w2", S(1, 1), 1);
    F32(&c, "b2", S(1), 0);
    F32(&c, "wb", S(2, 1), 0, 0);
    F32(&c, "bb", S(2), 3, 4);
    F32(&c, "v", S(2, 2), 6, 8, 0, 0);
    accept(&c, NULL);
    expect(&c, "logits", 1, 0);
    c.options = "{\"weight_norm\": false}";
    accept(&c, NULL);
    expect(&c, "logits", 10, 0);
    finish(&c);
}

static void a_student_starts_between_teacher_and_noise(void **state)
{
    (void)state;
    call c = start("random_teacher_init", "{\"alpha\": 0}");
    F32(&c, "teacher", S(2), 3, -1);
    F32(&c, "noise", S(2), 5, 1);
    accept(&c, NULL);
    expect(&c, "student", 3, -1);
    c.options = "{\"alpha\": 0.5}";
    accept(&c, NULL);
    expect(&c, "student", 4 * sqrt(2), 0);
    c.options = "{\"alpha\": 0.5, \"keep_variance\": false}";
    accept(&c, NULL);
    expect(&c, "student", 4, 0);
    finish(&c);
}

static void a_constant_feature_is_centred_only(void **state)
{
    (void)state;
    call c = start("random_teacher_standardize", NULL);
    F32(&c, "train", S(3, 2), 1000.1, 1, 1000.1, 2, 1000.1, 3);
    F32(&c, "test", S(1, 2), 1001.1, 4);
    accept(&c, NULL);
    expect(&c, "train_std", 0, -1, 0, 0, 0, 1);
    near(result(&c, "test_std", 1), 2);
    near(result(&c, "test_std", 0), (double)(1001.1f - 1000.1f));
    finish(&c);
    c = start("random_teacher_standardize", NULL); /* a single row has no deviation */
    F32(&c, "train", S(1, 1), 5);
    F32(&c, "test", S(0, 1), 0);
    accept(&c, NULL);
    expect(&c, "train_std", 0);
    finish(&c);
}

static void votes_of_equally_near_examples_go_to_the_lower_row(void **state)
{
    (void)state;
    call c = start("random_teacher_knn", "{\"k\": 2, \"classes\": 3}");
    F32(&c, "train", S(4, 1), 1, -1, 1, 5);
    I32(&c, "labels", S(4), 2, 1, 0, 0);
    F32(&c, "test", S(2, 1), 0, 5);
    accept(&c, NULL);
    expect(&c, "votes", 0, 1, 1, 1, 0, 1);
    expect(&c, "pred", 1, 0); /* the first class with most votes */
    finish(&c);
}

static void a_straight_line_has_no_barrier(void **state)
{
    (void)state;
    call c = start("random_teacher_barrier", NULL);
    F32(&c, "losses", S(3), 1, 1.5, 3);
    F32(&c, "alphas", S(3), 0, 0.25, 1);
    accept(&c, NULL);
    expect(&c, "barrier", 0);
    finish(&c);
}

static void random_teacher_refuses(void **state)
{
    (void)state;
    REFUSE("random_teacher_loss", "{\"student_temp\": 0}",
           "option student_temp is 0, expected (0,inf)");
    REFUSE("random_teacher_loss", "{\"teacher_temp\": -1}",
           "option teacher_temp is -1, expected (0,inf)");
    REFUSE("random_teacher_loss", "{\"kind\": \"js\"}",
           "option kind is \"js\", expected one of ce|kl|mse");
    REFUSE("random_teacher_loss", NULL, "teacher must be f32[1,2], not f32[1,3]",
           F32(&c, "student", S(1, 2), 0, 0), F32(&c, "teacher", S(1, 3), 0, 0, 0),
           F32(&c, "center", S(2), 0, 0));
    REFUSE("random_teacher_init", "{\"alpha\": 1.5}", "option alpha is 1.5, expected [0,1]");
    REFUSE("random_teacher_knn", "{\"classes\": 2}",
           "option k is 20, expected at most the rows of train (2)",
           F32(&c, "train", S(2, 1), 0, 0), I32(&c, "labels", S(2), 0, 1),
           F32(&c, "test", S(1, 1), 0));
    REFUSE("random_teacher_knn", "{\"classes\": 2, \"k\": 1}",
           "labels[1] is 2, expected 0 <= . < classes (classes is 2)",
           F32(&c, "train", S(2, 1), 0, 0), I32(&c, "labels", S(2), 0, 2),
           F32(&c, "test", S(1, 1), 0));
    REFUSE("random_teacher_barrier", NULL, "alphas[1] is 0.5, expected values rising from 0 to 1",
           F32(&c, "losses", S(2), 0, 1), F32(&c, "alphas", S(2), 0, 0.5));
    REFUSE("random_teacher_barrier", NULL, "alphas[1] is 0, expected values rising from 0 to 1",
           F32(&c, "losses", S(3), 0, 1, 1), F32(&c, "alphas", S(3), 0, 0, 1));
}

/* --- ADELE ------------------------------------------------------------------------------------ */

static void scales_that_agree_cost_cross_entropy_only(void **state)
{
    (void)state;
    call c = start("adele_loss", "{\"rho\": 0, \"divide_by\": 2}");
    F32(&c, "logits", S(2, 1, 1, 1, 2), 0, 0, 0, 0);
    F32(&c, "scale_weights", S(2), 1, 1);
    I32(&c, "labels", S(1, 1, 1), 1);
    accept(&c, "loss");
    near(result(&c, "ce", 0), 2 * log(2));
    expect(&c, "consistency", 0);
    near(result(&c, "loss", 0), log(2));
    near(slope(&c, "logits", 0), 0.5 * 0.5 * 0.5);
    finish(&c);
}

/* An image of two pixels at two scales, of which only the first pixel is confident. */
static void an_ignored_image_opens_no_gate(void **state)
{
    (void)state;
    call c = start("adele_loss", "{\"rho\": 0.8}");
    F32(&c, "logits", S(2, 1, 1, 2, 2), 40, -40, 1, -1, 40, -40, -1, 1);
    F32(&c, "scale_weights", S(2), 0, 0);
    I32(&c, "labels", S(1, 1, 2), 255, 255);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    expect(&c, "ce", 0);
    for (int i = 0; i < 8; i++)
        near(slope(&c, "logits", i), 0);
    I32(&c, "labels", S(1, 1, 2), 0, 255); /* the confident pixel counts: the image's gate opens */
    accept(&c, "loss");
    double p = 1 / (1 + exp(-2)), one = p * log(p / 0.5) + (1 - p) * log((1 - p) / 0.5);
    double clamped = -2 * log(1 - 1e-3);
    near(result(&c, "consistency", 0), (2 * one + clamped) / 2);
    c.options = "{\"skip_ignored\": true}";
    accept(&c, "loss");
    near(result(&c, "consistency", 0), clamped / 2);
    all_finite(&c.gradient);
    finish(&c);
}

static void an_absent_class_has_no_overlap(void **state)
{
    (void)state;
    call c = start("adele_class_iou", "{\"classes\": 3, \"ignore_index\": -1}");
    I32(&c, "pred", S(4), 0, 1, 1, 0);
    I32(&c, "labels", S(4), 0, 1, 0, -1);
    accept(&c, NULL);
    expect(&c, "tp", 1, 1, 0);
    expect(&c, "predicted", 1, 2, 0);
    expect(&c, "truth", 2, 1, 0);
    expect(&c, "iou", 0.5, 0.5, 0);
    finish(&c);
}

static void a_curve_is_found_again(void **state)
{
    (void)state;
    double iou[30];
    for (int i = 0; i < 30; i++)
        iou[i] = 0.8 * (1 - exp(-pow(i * 40.0 / 29, 0.6) / 3));
    call c = start("adele_fit_curve", "{\"span\": 40}");
    give(&c, "iou", BL_F32, S(30), iou);
    accept(&c, NULL);
    assert_true(fabs(result(&c, "a", 0) - 0.8) < 1e-4);
    assert_true(fabs(result(&c, "b", 0) - 0.6) < 1e-4);
    assert_true(fabs(result(&c, "c", 0) - 3) < 1e-3);
    assert_true(result(&c, "objective", 0) < 1e-10);
    for (int i = 0; i < 30; i++)
        iou[i] = 0;
    give(&c, "iou", BL_F32, S(30), iou); /* a class that is never found */
    accept(&c, NULL);
    assert_true(result(&c, "objective", 0) < 1e-6);
    finish(&c);
}

/* A slope that never changes has fallen by 0; so has one that is 0 everywhere. */
static void a_flat_curve_is_corrected_last(void **state)
{
    (void)state;
    call c = start("adele_update_epoch", "{\"n_epoch\": 4}");
    F32(&c, "a", BL_SCALAR, 0);
    F32(&c, "b", BL_SCALAR, 1);
    F32(&c, "c", BL_SCALAR, 1);
    accept(&c, NULL);
    expect(&c, "update_epoch", 4);
    expect(&c, "relative_change", 0, 0, 0);
    F32(&c, "a", BL_SCALAR, 1); /* e^-x: fallen by 1 - 1/e, 1 - 1/e^2 */
    c.options = "{\"n_epoch\": 4, \"r\": 0.7}";
    accept(&c, NULL);
    expect(&c, "relative_change", 0, 1 - exp(-1), 1 - exp(-2));
    expect(&c, "update_epoch", 3);
    c.options = "{\"n_epoch\": 1}";
    accept(&c, NULL);
    expect(&c, "update_epoch", 1);
    finish(&c);
}

/* Without a jump a single point is left, and the curve is 1 - e^-x, whose slope has fallen by more
 * than 0.9 from epoch 4 on. */
static void a_slow_start_does_not_count(void **state)
{
    (void)state;
    call c = start("adele_should_correct", "{\"current_epoch\": 5, \"n_epoch\": 50}");
    F32(&c, "iou", S(3), 0.1, 0.15, 0.1);
    accept(&c, NULL);
    expect(&c, "start", 2);
    expect(&c, "update_epoch", 2 + 4);
    expect(&c, "correct", 0);
    c.options = "{\"current_epoch\": 6, \"n_epoch\": 50}";
    accept(&c, NULL);
    expect(&c, "correct", 1);
    F32(&c, "iou", S(1), 0.1);
    accept(&c, NULL);
    expect(&c, "start", 0);
    expect(&c, "update_epoch", 4);
    finish(&c);
}

static void only_confident_pixels_of_ready_classes_flip(void **state)
{
    (void)state;
    call c = start("adele_correct_labels", "{}");
    I32(&c, "labels", S(1, 5), 1, 1, 2, 255, 0);
    F32(&c, "probs", S(1, 5, 3), 0.9, 0.1, 0, 0.2, 0.1, 0.7, 0, 0.9, 0.1, 0, 0.9, 0.1, 0, 0.9, 0.1);
    I32(&c, "ready", S(3), 0, 1, 0);
    accept(&c, NULL); /* 0.7 is not above 0.7; class 2 is not ready; ignored pixels stay */
    expect(&c, "labels_new", 0, 1, 2, 255, 1);
    c.options = "{\"mode\": \"target\"}";
    accept(&c, NULL);
    expect(&c, "labels_new", 0, 1, 1, 1, 1);
    I32(&c, "ready", S(3), 1, 0, 0); /* nothing but the background */
    accept(&c, NULL);
    expect(&c, "labels_new", 1, 1, 2, 255, 0);
    I32(&c, "labels", S(1, 5), 2, 2, 2, 2, 0);
    I32(&c, "ready", S(3), 0, 1, 1);
    accept(&c, NULL); /* class 1 is not in the mask */
    expect(&c, "labels_new", 0, 2, 2, 2, 0);
    c.options = "{\"class_constraint\": false}";
    accept(&c, NULL);
    expect(&c, "labels_new", 0, 2, 1, 1, 1);
    finish(&c);
}

static void adele_refuses(void **state)
{
    (void)state;
    REFUSE("adele_loss", "{\"lambda\": -1}", "option lambda is -1, expected [0,inf)");
    REFUSE("adele_loss", "{\"rho\": 1.5}", "option rho is 1.5, expected [0,1]");
    REFUSE("adele_loss", "{\"mixture_eps\": 0.5}", "option mixture_eps is 0.5, expected (0,0.5)");
    REFUSE("adele_loss", "{\"divide_by\": 0}", "option divide_by is 0, expected (0,inf)");
    REFUSE("adele_loss", NULL,
           "labels: pixel 1 is 2, expected 0 <= . < C (C is 2), or ignore_index",
           F32(&c, "logits", S(1, 1, 1, 2, 2), 0, 0, 0, 0), F32(&c, "scale_weights", S(1), 0),
           I32(&c, "labels", S(1, 1, 2), 0, 2));
    REFUSE("adele_loss", NULL, "logits has no rows, expected at least one",
           F32(&c, "logits", S(0, 1, 1, 1, 2), 0), F32(&c, "scale_weights", S(0), 0),
           I32(&c, "labels", S(1, 1, 1), 0));
    REFUSE("adele_loss", NULL, "scale_weights must be f32[1], not f32[2]",
           F32(&c, "logits", S(1, 1, 1, 1, 2), 0, 0), F32(&c, "scale_weights", S(2), 0, 0),
           I32(&c, "labels", S(1, 1, 1), 0));
    REFUSE("adele_fit_curve", NULL, "iou has 2 values, expected at least 3",
           F32(&c, "iou", S(2), 0, 1));
    REFUSE("adele_class_iou", "{\"classes\": 2}", "labels: pixel 0 is 2", I32(&c, "pred", S(1), 0),
           I32(&c, "labels", S(1), 2));
    REFUSE("adele_class_iou", "{}", "option classes is required");
    REFUSE("adele_update_epoch", "{\"n_epoch\": 5, \"r\": 0}", "option r is 0, expected (0,1]");
    REFUSE("adele_correct_labels", "{\"mode\": \"new\"}",
           "option mode is \"new\", expected one of both|target");
}

/* --- STORM ------------------------------------------------------------------------------------ */

static void a_first_example_is_like_its_group(void **state)
{
    (void)state;
    call c = start("storm_features", "{}");
    F32(&c, "losses", S(1, 1), 0.5);
    F32(&c, "logits", S(1, 1, 2), 0, log(3));
    I32(&c, "labels", S(1), 1);
    F32(&c, "mem", S(2, 1, 4), 9, 9, 9, 9, 7, 7, 7, 7);
    I32(&c, "mem_agree", S(2, 1), 0, 1);
    I32(&c, "mem_count", S(2), 1, 1);
    accept(&c, NULL); /* a list of one: the new row replaces the old one */
    expect(&c, "features", 0.5, 0.5, 1e-8, 0, 0, 1e-8, 0.75, 0.75, 1e-8, 0, 0, 1e-8, /* KL */ 0, 0,
           1e-8, /* OVL */ 1, 1, 1e-8, /* CAT */ 1);
    expect(&c, "mem_new", 9, 9, 9, 9, 0.5, 0, 0.75, 0);
    expect(&c, "mem_agree_new", 0, 1);
    expect(&c, "mem_count_new", 1, 1);
    finish(&c);
}

/* Two passes, one right and one wrong: pass 0 decides. Losses 1 and 3: mean 2, deviation sqrt 2. */
static void a_tie_of_passes_is_decided_by_the_first(void **state)
{
    (void)state;
    call c = start("storm_features", "{\"by_class\": false, \"by_agreement\": false}");
    F32(&c, "losses", S(2, 2), 1, 1, 3, 3);
    F32(&c, "logits", S(2, 2, 2), 5, 0, 0, 5, 0, 5, 5, 0);
    I32(&c, "labels", S(2), 0, 0);
    F32(&c, "mem", S(1, 3, 4), 8, sqrt(2), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    I32(&c, "mem_agree", S(1, 3), 0, 0, 0);
    I32(&c, "mem_count", S(1), 1);
    accept(&c, NULL);
    near(result(&c, "features", 0), 2);
    near(result(&c, "features", 1), 4);
    near(result(&c, "features", 2), sqrt(12));
    near(result(&c, "features", 3), sqrt(2));
    near(result(&c, "features", 5), 0);
    near(result(&c, "features", 12), 1); /* KL: (2 - 4)^2 / (2 * 2) */
    near(result(&c, "features", 15), 1 - erf(2 / (2 * sqrt(2) * sqrt(2))));
    near(result(&c, "features", 18), 1);
    near(result(&c, "features", 19 + 18), 0);
    finish(&c);
}

/* With two examples batch normalisation gives opposite values, so their shares are opposite too. */
static void two_examples_share_the_weight(void **state)
{
    (void)state;
    call c = start("storm_rescaler", "{}");
    F32(&c, "features", S(2, 2), 1, -3, 4, 0.5);
    I32(&c, "labels", S(2), 7, -1); /* one net serves all */
    F32(&c, "w1", S(1, 2, 2), 1, 0.5, -2, 0.3);
    F32(&c, "b1", S(1, 2), 5, 1);
    F32(&c, "w2", S(1, 2, 2), 1, 0.2, -1, 0.7);
    F32(&c, "b2", S(1, 2), 0, 3);
    accept(&c, NULL);
    near(result(&c, "weights", 0) + result(&c, "weights", 1), 1);
    double first = result(&c, "weights", 0);
    c.options = "{\"output_index\": 0}";
    accept(&c, NULL);
    near(result(&c, "weights", 0), 1 - first);
    finish(&c);
}

static call meta_step(const char *options)
{
    call c = start("storm_meta_loss", options);
    F32(&c, "W", S(1, 2), 0, 0);
    F32(&c, "b", S(2), 0, 0);
    F32(&c, "x", S(3, 1), 1, 0, 0);
    I32(&c, "labels", S(3), 0, 1, 1);
    F32(&c, "features", S(3, 1), 1, 2, 4);
    F32(&c, "x_val", S(1, 1), 2);
    I32(&c, "labels_val", S(1), 1);
    F32(&c, "features_val", S(1, 1), 0);
    F32(&c, "w1", S(1, 1, 1), 1);
    F32(&c, "b1", S(1, 1), 0);
    F32(&c, "w2", S(1, 2, 1), -1, 1);
    F32(&c, "b2", S(1, 2), 0, 0);
    return c;
}

static void a_step_of_length_zero_teaches_nothing(void **state)
{
    (void)state;
    call c = meta_step("{\"inner_lr\": 0, \"rescale_meta\": false}");
    accept(&c, "meta_loss");
    near(result(&c, "meta_loss", 0), log(2));
    near(slope(&c, "w1", 0), 0);
    near(slope(&c, "w2", 0), 0);
    double sum = result(&c, "weights", 0) + result(&c, "weights", 1) + result(&c, "weights", 2);
    near(result(&c, "inner_loss", 0), sum * log(2));
    finish(&c);
}

/* Adam's first step is the sign, where the gradient is not 0; W moves by the learning rate. */
static void a_first_step_of_adam_is_the_sign(void **state)
{
    (void)state;
    call c = meta_step("{\"inner_lr\": 0.25, \"inner_rule\": \"adam_first\", "
                       "\"rescale_meta\": false}");
    F32(&c, "x", S(3, 1), 1, 0, 0);
    accept(&c, "meta_loss");
    expect(&c, "W_new", 0.25, -0.25);
    F32(&c, "x", S(3, 1), 0, 0, 0); /* a feature that no example has */
    accept(&c, "meta_loss");
    expect(&c, "W_new", 0, 0);
    all_finite(&c.gradient);
    finish(&c);
}

static void storm_refuses(void **state)
{
    (void)state;
    REFUSE("storm_features", "{}", "mem has 1 lists, expected 2", F32(&c, "losses", S(1, 1), 0),
           F32(&c, "logits", S(1, 1, 2), 0, 0), I32(&c, "labels", S(1), 0),
           F32(&c, "mem", S(1, 1, 4), 0, 0, 0, 0), I32(&c, "mem_agree", S(1, 1), 0),
           I32(&c, "mem_count", S(1), 0));
    REFUSE("storm_features", "{\"by_class\": false}",
           "mem_count[0] is 2, expected 0 <= . <= W (W is 1)", F32(&c, "losses", S(1, 1), 0),
           F32(&c, "logits", S(1, 1, 2), 0, 0), I32(&c, "labels", S(1), 0),
           F32(&c, "mem", S(1, 1, 4), 0, 0, 0, 0), I32(&c, "mem_agree", S(1, 1), 0),
           I32(&c, "mem_count", S(1), 2));
    REFUSE("storm_features", "{\"by_class\": false}", "losses has no rows, expected at least one",
           F32(&c, "losses", S(0, 1), 0), F32(&c, "logits", S(0, 1, 2), 0),
           I32(&c, "labels", S(1), 0), F32(&c, "mem", S(1, 1, 4), 0, 0, 0, 0),
           I32(&c, "mem_agree", S(1, 1), 0), I32(&c, "mem_count", S(1), 1));
    REFUSE("storm_rescaler", "{}", "features has 1 rows, expected at least 2",
           F32(&c, "features", S(1, 1), 0), I32(&c, "labels", S(1), 0),
           F32(&c, "w1", S(1, 1, 1), 1), F32(&c, "b1", S(1, 1), 0), F32(&c, "w2", S(1, 2, 1), 1, 1),
           F32(&c, "b2", S(1, 2), 0, 0));
    REFUSE("storm_rescaler", "{}", "labels[1] is 2, expected 0 <= . < L (L is 2)",
           F32(&c, "features", S(2, 1), 0, 1), I32(&c, "labels", S(2), 0, 2),
           F32(&c, "w1", S(2, 1, 1), 1, 1), F32(&c, "b1", S(2, 1), 0, 0),
           F32(&c, "w2", S(2, 2, 1), 1, 1, 1, 1), F32(&c, "b2", S(2, 2), 0, 0, 0, 0));
    REFUSE("storm_rescaler", "{\"output_index\": 2}",
           "option output_index is 2, expected in {0,1}");
    REFUSE("storm_meta_loss", "{\"inner_lr\": -1}", "option inner_lr is -1, expected [0,inf)");
    call c = meta_step("{}"); /* whose meta loss is weighed: one example has no statistics */
    refuse(&c, "features_val has 1 rows, expected at least 2");
}

/* --- OVOR ------------------------------------------------------------------------------------- */

static void a_point_of_the_set_is_its_own_first_neighbour(void **state)
{
    (void)state;
    call c = start("ovor_knn_distance", "{\"k\": 1}");
    F32(&c, "query", S(2, 1), 3, 0);
    F32(&c, "ref", S(3, 1), 3, -2, 7);
    accept(&c, NULL);
    expect(&c, "dist", 0, 4);
    c.options = "{\"k\": 3}";
    accept(&c, NULL);
    expect(&c, "dist", 25, 49);
    finish(&c);
}

/* Around the origin each draw is there once for each boundary point, with the same distance. */
static void equally_far_outliers_come_in_order(void **state)
{
    (void)state;
    call c = start("ovor_outliers", "{\"k\": 1, \"select\": 9, \"n_out\": 100, \"sigma\": 2, "
                                    "\"center\": \"origin\", \"normalize_query\": false}");
    F32(&c, "feats", S(2, 1), 3, 0.5);
    F32(&c, "noise", S(2, 1), 1, 2);
    accept(&c, NULL);
    expect(&c, "boundary", 0, 1); /* both are 1 once normalised: a tie */
    expect(&c, "index", 1, 3, 0, 2);
    expect(&c, "outliers", 4, 4, 2, 2);
    expect(&c, "dist", 9, 9, 1, 1);
    c.options = "{\"k\": 2, \"select\": 1, \"n_out\": 1, \"sigma\": 2}";
    accept(&c, NULL); /* 3 + 2 and 3 + 4 have the same direction as the features */
    expect(&c, "outliers", 5);
    expect(&c, "dist", 0);
    finish(&c);
}

static void what_is_on_its_side_costs_nothing(void **state)
{
    (void)state;
    call c = start("ovor_loss", "{\"lmda\": 2}");
    F32(&c, "id_logits", S(1, 1), 15);
    F32(&c, "ood_logits", S(2, 1), 3, 3.5);
    accept(&c, "loss");
    expect(&c, "loss", 2 * 0.5 * 0.125);
    expect(&c, "id_score", -15);
    near(slope(&c, "id_logits", 0), 0);
    near(slope(&c, "ood_logits", 1), 2 * 0.5 * 0.5);
    F32(&c, "id_logits", S(1, 1), 5);
    accept(&c, "loss");
    expect(&c, "loss", 2 * (9.5 + 0.0625));
    near(slope(&c, "id_logits", 0), -2);
    finish(&c);
}

static void other_tasks_have_no_gradient(void **state)
{
    (void)state;
    call c = start("ovor_masked_ce", "{\"lo\": 1, \"hi\": 3}");
    F32(&c, "logits", S(1, 4), 80, 0, 0, INFINITY);
    I32(&c, "y", S(1), 2);
    accept(&c, "loss");
    near(result(&c, "loss", 0), log(2));
    near(slope(&c, "logits", 0), 0);
    near(slope(&c, "logits", 2), -0.5);
    near(slope(&c, "logits", 3), 0);
    finish(&c);
}

/* One token of size 1 and a prompt of one key and one value: a mean of two values. */
static void a_prompt_is_attended_to_as_it_is(void **state)
{
    (void)state;
    call c = start("ovor_prefix_attention", "{\"heads\": 1}");
    F32(&c, "x", S(1, 1, 1), 2);
    F32(&c, "wqkv", S(3, 1), 0, 1, 3);
    F32(&c, "bqkv", S(3), 0, 0, 1);
    F32(&c, "wproj", S(1, 1), 10);
    F32(&c, "bproj", S(1), 1);
    F32(&c, "prompt", S(2, 1), 50, 5);
    accept(&c, NULL);
    expect(&c, "out", 10 * (7 + 5) / 2.0 + 1);
    F32(&c, "prompt", S(0, 1), 0);
    accept(&c, NULL);
    expect(&c, "out", 71);
    finish(&c);
}

static void forgetting_is_from_the_best_earlier_accuracy(void **state)
{
    (void)state;
    call c = start("ovor_metrics", NULL);
    F32(&c, "acc", S(3, 3), 0.5, 0, 0, 0.75, 1, 0, 0.25, 0.5, 0.75);
    accept(&c, NULL);
    expect(&c, "average_accuracy", 0.5);
    expect(&c, "forgetting", 0.5);
    F32(&c, "acc", S(1, 1), 0.5);
    accept(&c, NULL);
    expect(&c, "forgetting", 0);
    finish(&c);
}

static void ovor_refuses(void **state)
{
    (void)state;
    REFUSE("ovor_knn_distance", "{\"k\": 3}", "option k is 3, expected at most the rows of ref (2)",
           F32(&c, "query", S(1, 1), 0), F32(&c, "ref", S(2, 1), 0, 1));
    REFUSE("ovor_knn_distance", "{\"k\": 0}", "option k is 0, expected >= 1");
    REFUSE("ovor_outliers", "{\"n_out\": 1}", "option k is 50, expected at most the rows of feats",
           F32(&c, "feats", S(1, 1), 0), F32(&c, "noise", S(1, 1), 0));
    REFUSE("ovor_outliers", "{\"n_out\": 0}", "option n_out is 0, expected >= 1");
    REFUSE("ovor_outliers", "{\"n_out\": 1, \"select\": 0}", "option select is 0, expected >= 1");
    REFUSE("ovor_outliers", "{\"n_out\": 1, \"sigma\": 0}", "option sigma is 0, expected (0,inf)");
    REFUSE("ovor_loss", "{\"lmda\": -1}", "option lmda is -1, expected [0,inf)");
    REFUSE("ovor_loss", NULL, "ood_logits must be f32[M,2], not f32[1,1]",
           F32(&c, "id_logits", S(1, 2), 0, 0), F32(&c, "ood_logits", S(1, 1), 0));
    REFUSE("ovor_masked_ce", "{\"lo\": 1, \"hi\": 2}", "y[0] is 2, expected lo <= . < hi",
           F32(&c, "logits", S(1, 3), 0, 0, 0), I32(&c, "y", S(1), 2));
    REFUSE("ovor_masked_ce", "{\"lo\": 1, \"hi\": 1}", "option hi is 1, expected > lo");
    REFUSE("ovor_masked_ce", "{\"lo\": 1, \"hi\": 4}",
           "option hi is 4, expected at most the columns of logits (3)",
           F32(&c, "logits", S(1, 3), 0, 0, 0), I32(&c, "y", S(1), 2));
    REFUSE("ovor_prefix_attention", "{\"heads\": 1}", "prompt has 1 rows, expected an even number",
           F32(&c, "x", S(1, 1, 1), 2), F32(&c, "wqkv", S(3, 1), 0, 1, 3),
           F32(&c, "bqkv", S(3), 0, 0, 1), F32(&c, "wproj", S(1, 1), 1), F32(&c, "bproj", S(1), 1),
           F32(&c, "prompt", S(1, 1), 5));
    REFUSE("ovor_prefix_attention", "{\"heads\": 2}",
           "x has 1 tokens of size 1, expected at least one, of a size that 2 heads divide",
           F32(&c, "x", S(1, 1, 1), 2), F32(&c, "wqkv", S(3, 1), 0, 1, 3),
           F32(&c, "bqkv", S(3), 0, 0, 1), F32(&c, "wproj", S(1, 1), 1), F32(&c, "bproj", S(1), 1),
           F32(&c, "prompt", S(2, 1), 5, 5));
    REFUSE("ovor_prefix_attention", "{\"heads\": 1}",
           "wqkv and bqkv have 2 and 3 rows, expected 3 D (3)", F32(&c, "x", S(1, 1, 1), 2),
           F32(&c, "wqkv", S(2, 1), 0, 1), F32(&c, "bqkv", S(3), 0, 0, 1),
           F32(&c, "wproj", S(1, 1), 1), F32(&c, "bproj", S(1), 1),
           F32(&c, "prompt", S(2, 1), 5, 5));
    REFUSE("ovor_schedule", "{\"total\": 1}", "option total is 1, expected >= 2");
    REFUSE("ovor_metrics", NULL, "acc must be f32[N,N], not f32[2,1]",
           F32(&c, "acc", S(2, 1), 0, 0));
}

/* --- rehearsal-free continual learning -------------------------------------------------------- */

static void old_columns_are_zero_or_left_out(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_class_loss", "{\"n_old\": 1}");
    F32(&c, "logits", S(2, 2), 0, 0, 0, 0);
    I32(&c, "y", S(2), 1, 1);
    accept(&c, "loss");
    near(result(&c, "loss", 0), 2 * log(2));
    near(slope(&c, "logits", 0), 0.25);
    c.options = "{\"n_old\": 1, \"old_columns\": \"ignore\"}";
    accept(&c, "loss");
    near(result(&c, "loss", 0), log(2));
    near(slope(&c, "logits", 0), 0);
    near(slope(&c, "logits", 1), -0.25);
    F32(&c, "logits", S(2, 2), -80, 80, 1e4, -1e4);
    accept(&c, "loss");
    near(result(&c, "loss", 0), 5000);
    all_finite(&c.gradient);
    finish(&c);
}

static void a_student_is_pulled_to_old_predictions(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_predkd", "{\"n_old\": 1}");
    F32(&c, "logits", S(1, 2), 0, 5);
    F32(&c, "teacher", S(1, 3), log(3), -5, 9);
    accept(&c, "loss");
    near(result(&c, "loss", 0), log(2));
    near(slope(&c, "logits", 0), 0.5 - 0.75);
    near(slope(&c, "logits", 1), 0);
    c.options = "{\"n_old\": 1, \"kind\": \"softmax\"}"; /* of one column: nothing to tell apart */
    accept(&c, "loss");
    expect(&c, "loss", 0);
    finish(&c);
}

static void a_first_task_has_nothing_to_distil(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_step_loss",
                   "{\"lam_feat\": 0.5, \"lam_reg\": 2, \"reg\": \"ewc\", \"kind\": \"softmax\"}");
    F32(&c, "logits", S(1, 2), 0, 0);
    F32(&c, "teacher_logits", S(1, 2), 9, 9);
    I32(&c, "y", S(1), 1);
    F32(&c, "feat", S(1, 2), 1, 2);
    F32(&c, "teacher_feat", S(1, 2), 0, 0);
    F32(&c, "theta", S(2), 1, 1);
    F32(&c, "anchor", S(2), 0, 3);
    F32(&c, "fisher", S(2), 1, 0.5);
    accept(&c, "loss");
    expect(&c, "kd", 0);
    expect(&c, "feat", 5);
    expect(&c, "reg", 3);
    near(result(&c, "loss", 0), log(2) + 2.5 + 6);
    near(slope(&c, "theta", 1), 2 * 2 * 0.5 * -2);
    near(slope(&c, "feat", 1), 0.5 * 4);
    finish(&c);
}

static void features_of_any_shape_are_compared(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_featkd", NULL);
    F32(&c, "feat", S(2, 1, 2), 1, 2, 3, 4);
    F32(&c, "teacher", S(2, 1, 2), 1, 0, 3, 0);
    accept(&c, "loss");
    expect(&c, "loss", 10);
    c.options = "{\"reduction\": \"mean\"}";
    accept(&c, "loss");
    expect(&c, "loss", 5);
    near(slope(&c, "feat", 1), 1);
    finish(&c);
}

static void importance_grows_or_fades(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_fisher_update", NULL);
    F32(&c, "grads", S(2, 1), 2, 4);
    F32(&c, "weight", S(2), 3, 1);
    F32(&c, "fisher", S(1), 10);
    accept(&c, NULL);
    expect(&c, "fisher_out", 10 + 7);
    c.options = "{\"mode\": \"batch\", \"accumulate\": \"ema\", \"decay\": 0.5}";
    accept(&c, NULL);
    expect(&c, "fisher_out", 5 + 14);
    c.options = "{\"mode\": \"batch\", \"accumulate\": \"replace\"}";
    F32(&c, "weight", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "fisher_out", 0);
    finish(&c);
}

static void later_tasks_are_ignored_and_one_task_forgets_nothing(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_metrics", NULL);
    F32(&c, "r", S(2, 2), 1, NAN, 0.5, 0.25);
    F32(&c, "a", S(2, 2), 1, NAN, 0.75, 1);
    I32(&c, "sizes", S(2), 3, 1);
    accept(&c, NULL);
    expect(&c, "global_forgetting", 0.75 * 0.5);
    expect(&c, "local_forgetting", -0.25);
    expect(&c, "final_accuracy", 0.75 * 0.5 + 0.25 * 0.25);
    F32(&c, "r", S(1, 1), 0.5);
    F32(&c, "a", S(1, 1), 0.5);
    I32(&c, "sizes", S(1), 2);
    accept(&c, NULL);
    expect(&c, "global_forgetting", 0);
    expect(&c, "local_forgetting", 0);
    finish(&c);
}

static void constant_features_resemble_nothing(void **state)
{
    (void)state;
    call c = start("rehearsal_free_cl_cka", NULL);
    F32(&c, "x", S(3, 1), 1000.1, 1000.1, 1000.1);
    F32(&c, "y", S(3, 2), 1, 2, 3, 5, -1, 0);
    accept(&c, "cka");
    expect(&c, "cka", 0);
    all_finite(&c.gradient);
    F32(&c, "x", S(3, 2), 3, 4, 7, 10, -1, 0); /* 2 y + (1, 0): the same but for scale and place */
    accept(&c, "cka");
    expect(&c, "cka", 1);
    finish(&c);
}

static void rehearsal_free_cl_refuses(void **state)
{
    (void)state;
    REFUSE("rehearsal_free_cl_class_loss", "{\"n_old\": 3}",
           "option n_old is 3, expected 0 <= . <= C (C is 2)", F32(&c, "logits", S(1, 2), 0, 0),
           I32(&c, "y", S(1), 1));
    REFUSE("rehearsal_free_cl_class_loss", "{\"n_old\": 1, \"old_columns\": \"ignore\"}",
           "y[0] is 0, expected n_old <= . (n_old is 1)", F32(&c, "logits", S(1, 2), 0, 0),
           I32(&c, "y", S(1), 0));
    REFUSE("rehearsal_free_cl_class_loss", NULL, "y[0] is 2, expected 0 <= . < C (C is 2)",
           F32(&c, "logits", S(1, 2), 0, 0), I32(&c, "y", S(1), 2));
    REFUSE("rehearsal_free_cl_predkd", "{\"n_old\": 0}", "option n_old is 0, expected >= 1");
    REFUSE("rehearsal_free_cl_predkd", "{\"n_old\": 3}",
           "option n_old is 3, expected 1 <= . <= C (C is 2)", F32(&c, "logits", S(1, 2), 0, 0),
           F32(&c, "teacher", S(1, 2), 0, 0));
    REFUSE("rehearsal_free_cl_predkd", "{\"n_old\": 1}",
           "teacher has 1 columns, expected at least those of logits (2)",
           F32(&c, "logits", S(1, 2), 0, 0), F32(&c, "teacher", S(1, 1), 0));
    REFUSE("rehearsal_free_cl_predkd", "{\"n_old\": 1, \"temperature\": 0}",
           "option temperature is 0, expected (0,inf)");
    REFUSE("rehearsal_free_cl_param_reg", NULL, "fisher[0] is -1, expected >= 0",
           F32(&c, "theta", S(1), 0), F32(&c, "anchor", S(1), 0), F32(&c, "fisher", S(1), -1));
    REFUSE("rehearsal_free_cl_fisher_update", NULL, "weight[0] is -1, expected >= 0",
           F32(&c, "grads", S(1, 1), 0), F32(&c, "weight", S(1), -1), F32(&c, "fisher", S(1), 1));
    REFUSE("rehearsal_free_cl_fisher_update", NULL, "weight sums to 0, expected a positive sum",
           F32(&c, "grads", S(1, 1), 0), F32(&c, "weight", S(1), 0), F32(&c, "fisher", S(1), 1));
    REFUSE("rehearsal_free_cl_step_loss", "{\"lam_kd\": -1}",
           "option lam_kd is -1, expected [0,inf)");
    REFUSE("rehearsal_free_cl_metrics", NULL, "sizes[0] is 0, expected > 0",
           F32(&c, "r", S(1, 1), 0), F32(&c, "a", S(1, 1), 0), I32(&c, "sizes", S(1), 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_student_like_its_teacher_has_nothing_to_learn),
        cmocka_unit_test(an_empty_direction_has_no_cosine),
        cmocka_unit_test(a_student_starts_between_teacher_and_noise),
        cmocka_unit_test(a_constant_feature_is_centred_only),
        cmocka_unit_test(votes_of_equally_near_examples_go_to_the_lower_row),
        cmocka_unit_test(a_straight_line_has_no_barrier),
        cmocka_unit_test(random_teacher_refuses),
        cmocka_unit_test(scales_that_agree_cost_cross_entropy_only),
        cmocka_unit_test(an_ignored_image_opens_no_gate),
        cmocka_unit_test(an_absent_class_has_no_overlap),
        cmocka_unit_test(a_curve_is_found_again),
        cmocka_unit_test(a_flat_curve_is_corrected_last),
        cmocka_unit_test(a_slow_start_does_not_count),
        cmocka_unit_test(only_confident_pixels_of_ready_classes_flip),
        cmocka_unit_test(adele_refuses),
        cmocka_unit_test(a_first_example_is_like_its_group),
        cmocka_unit_test(a_tie_of_passes_is_decided_by_the_first),
        cmocka_unit_test(two_examples_share_the_weight),
        cmocka_unit_test(a_step_of_length_zero_teaches_nothing),
        cmocka_unit_test(a_first_step_of_adam_is_the_sign),
        cmocka_unit_test(storm_refuses),
        cmocka_unit_test(a_point_of_the_set_is_its_own_first_neighbour),
        cmocka_unit_test(equally_far_outliers_come_in_order),
        cmocka_unit_test(what_is_on_its_side_costs_nothing),
        cmocka_unit_test(other_tasks_have_no_gradient),
        cmocka_unit_test(a_prompt_is_attended_to_as_it_is),
        cmocka_unit_test(forgetting_is_from_the_best_earlier_accuracy),
        cmocka_unit_test(ovor_refuses),
        cmocka_unit_test(old_columns_are_zero_or_left_out),
        cmocka_unit_test(a_student_is_pulled_to_old_predictions),
        cmocka_unit_test(a_first_task_has_nothing_to_distil),
        cmocka_unit_test(features_of_any_shape_are_compared),
        cmocka_unit_test(importance_grows_or_fades),
        cmocka_unit_test(later_tasks_are_ignored_and_one_task_forgets_nothing),
        cmocka_unit_test(constant_features_resemble_nothing),
        cmocka_unit_test(rehearsal_free_cl_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
