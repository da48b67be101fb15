/* The methods ELR, PS-KD, nested dropout, ConR, decoupled mixup, weight compander and RandAugment:
 * what their specs refuse, and facts about their values and gradients at shapes and corners that
 * the reference cases (test_cases.c) do not have.
 *
 * A test makes a call (`start` an example that is fine, `give` inputs), then either `expect`s
 * outputs or `refuse`s it with the words of the error. To cover another method: an example of each
 * of its functions in `examples`, rows in `refusals`, and its facts as tests. */
#include "calls.h"

#include <stdlib.h>

#include "methods/inputs/randaugment/pixels.h"

/* --- an example of every function that accepts -------------------------------------------- */

static call example(const char *f)
{
    call c = start(f, NULL);
    bool is_elr = strcmp(f, "elr_loss") == 0, is_pskd = strcmp(f, "pskd_loss") == 0;
    if (is_elr || is_pskd) {
        c.options = is_pskd ? "{\"epoch\": 2, \"epochs\": 4}" : NULL;
        F32(&c, "logits", S(2, 3), 1, 0, -1, 0.5, 2, 0);
        I32(&c, "labels", S(2), 0, 2);
        F32(&c, "bank", S(3, 3), 0.2, 0.3, 0.5, 0, 0, 0, 0.1, 0.8, 0.1);
        I32(&c, "index", S(2), 2, 0);
    } else if (strcmp(f, "elr_plus_targets") == 0) {
        F32(&c, "peer_logits", S(2, 2), 1, 0, 0, 0);
        F32(&c, "bank", S(2, 2), 0, 0, 0, 0);
        I32(&c, "index", S(2), 1, 0);
        I32(&c, "perm", S(2), 1, 0);
        F32(&c, "mix", BL_SCALAR, 0.5);
    } else if (strcmp(f, "elr_plus_loss") == 0) {
        c.options = "{\"gate_labels\": true}";
        F32(&c, "logits", S(2, 2), 1, 0, 0, 0);
        F32(&c, "soft_labels", S(2, 2), 1, 0, 0.5, 0.5);
        F32(&c, "q", S(2, 2), 0.5, 0.5, 0, 0.9);
    } else if (strcmp(f, "elr_rampup") == 0) {
        F32(&c, "step", S(1), 3);
    } else if (strcmp(f, "pskd_calibration") == 0) {
        F32(&c, "probs", S(2, 2), 0.75, 0.25, 0.5, 0.5);
        I32(&c, "labels", S(2), 0, 1);
    } else if (strcmp(f, "nested_dropout") == 0) {
        c.options = "{\"sigma\": 2}";
        F32(&c, "x", S(2, 3), 1, 2, 3, 4, 5, 6);
        F32(&c, "u", S(2), 0, 0.99);
    } else if (strcmp(f, "nested_probs") == 0) {
        c.options = "{\"K\": 3, \"sigma\": 1}";
    } else if (strcmp(f, "nested_prefix_eval") == 0) {
        F32(&c, "x", S(2, 2), 1, 0, 0, 1);
        F32(&c, "weight", S(2, 2), 1, 0, 0, 1);
        I32(&c, "labels", S(2), 0, 1);
    } else if (strcmp(f, "nested_peer_loss") == 0) {
        F32(&c, "logits", S(3, 2), 1, 0, 0, 1, 2, 2);
        I32(&c, "labels", S(3), 0, 1, 1);
        F32(&c, "select_loss", S(3), 0.5, 0.5, 0.1);
    } else if (strcmp(f, "nested_forget_rate") == 0) {
        c.options = "{\"forget_rate\": 0.2}";
        I32(&c, "epoch", S(2), 1, 5);
    } else if (strcmp(f, "conr_loss") == 0) {
        F32(&c, "features", S(3, 2), 1, 0, 0, 1, 1, 1);
        F32(&c, "labels", S(3, 1), 0, 0.5, 9);
        F32(&c, "preds", S(3, 1), 0, 0, 0);
        F32(&c, "weights", S(3), 1, 1, 1);
    } else if (strcmp(f, "conr_label_weights") == 0) {
        I32(&c, "labels", S(3), 0, 0, 7);
    } else if (strcmp(f, "conr_shot_mae") == 0) {
        F32(&c, "preds", S(2), 0, 3);
        I32(&c, "labels", S(2), 1, 1);
        I32(&c, "train_counts", S(2), 0, 200);
    } else if (strncmp(f, "decoupled_mixup_", 16) == 0 && strstr(f, "ce")) {
        F32(&c, "logits", S(2, 3), 1, 0, -1, 0, 2, 0);
        I32(&c, "label_a", S(2), 0, 1);
        I32(&c, "label_b", S(2), 2, 1);
        F32(&c, "lam", S(2), 0.75, 0.5);
    } else if (strcmp(f, "decoupled_mixup_mix") == 0) {
        F32(&c, "x", S(2, 2), 0, 1, 2, 3);
        I32(&c, "perm", S(2), 1, 1);
        F32(&c, "lam", S(2), 0.25, 1);
    } else if (strcmp(f, "decoupled_mixup_cutmix") == 0) {
        F32(&c, "x", S(2, 2, 2, 1), 0, 1, 2, 3, 4, 5, 6, 7);
        I32(&c, "perm", S(2), 1, 0);
        I32(&c, "box", S(4), 0, 1, 1, 2);
    } else if (strcmp(f, "wc_reparam") == 0 || strcmp(f, "wc_inverse") == 0) {
        F32(&c, strcmp(f, "wc_reparam") ? "w" : "v", S(2, 2), 0, 0.1, -0.1, 0.2);
        F32(&c, "a", S(2, 1), 0.5, 1);
        F32(&c, "b", BL_SCALAR, 0.25);
    } else if (strcmp(f, "wc_weight_stats") == 0) {
        F32(&c, "w", S(2), -1, 1);
    } else if (strcmp(f, "randaugment_level") == 0) {
        c.options = "{\"op\": \"Rotate\"}";
        F32(&c, "levels", S(1), 10);
    } else if (strcmp(f, "randaugment_op") == 0) {
        c.options = "{\"op\": \"Invert\"}";
        I32(&c, "image", S(1, 2, 2), 0, 255, 7, 9);
        I32(&c, "center", S(2), 0, 1);
    } else if (strcmp(f, "randaugment_apply") == 0) {
        I32(&c, "images", S(1, 1, 2, 1), 0, 255);
        I32(&c, "ops", S(1, 1), 3);
        I32(&c, "signs", S(1, 1), -1);
        I32(&c, "centers", S(1, 1, 2), 0, 1);
    } else {
        fail_msg("no example of %s", f);
    }
    return c;
}

/* --- refusals: everything that a spec names under "checks"
 * -------------------------------------------- */

typedef struct refusal {
    const char *function, *options; /* NULL: the example's */
    const char *input;              /* replaced; NULL: none */
    bl_dtype dtype;
    bl_shape shape;
    double values[8];
    const char *words; /* in the message */
} refusal;

#define OPTION(f, json, words)                                                                     \
    {                                                                                              \
        f, json, NULL, BL_F32, {0}, {0}, words                                                     \
    }
#define REAL(f, input, shape, words, ...)                                                          \
    {                                                                                              \
        f, NULL, input, BL_F32, shape, {__VA_ARGS__}, words                                        \
    }
#define WHOLE(f, input, shape, words, ...)                                                         \
    {                                                                                              \
        f, NULL, input, BL_I32, shape, {__VA_ARGS__}, words                                        \
    }

static const refusal refusals[] = {
    REAL("elr_loss", "logits", S(2, 4), "bank must be f32[N,4], not f32[3,3]", 0),
    WHOLE("elr_loss", "labels", S(2), "labels[1] is 3, expected 0 <= . < C", 0, 3),
    WHOLE("elr_loss", "labels", S(2), "labels[0] is -1, expected 0 <= . < C", -1, 0),
    WHOLE("elr_loss", "index", S(2), "index[1] is 3, expected 0 <= . < N", 0, 3),
    WHOLE("elr_loss", "index", S(2), "index has 1 more than once, expected distinct", 1, 1),
    OPTION("elr_loss", "{\"lambda\": -1}", "option lambda is -1, expected [0,inf)"),
    OPTION("elr_loss", "{\"beta\": 1.5}", "option beta is 1.5, expected [0,1]"),
    OPTION("elr_loss", "{\"clamp_eps\": 0}", "option clamp_eps is 0, expected (0,0.5)"),
    OPTION("elr_loss", "{\"clamp_eps\": 0.5}", "option clamp_eps is 0.5, expected (0,0.5)"),
    WHOLE("elr_plus_targets", "perm", S(2), "perm is not a permutation of 0..1", 1, 1),
    WHOLE("elr_plus_targets", "index", S(2), "index has 1 more than once", 1, 1),
    REAL("elr_plus_targets", "mix", BL_SCALAR, "mix is 1.5, expected 0 <= . <= 1", 1.5),
    OPTION("elr_plus_targets", "{\"beta\": -0.1}", "option beta is -0.1, expected [0,1]"),
    REAL("elr_plus_loss", "q", S(2, 2), "soft_labels * q sums to 0 in row 0", 0, 1, 0.5, 0.5),
    OPTION("elr_plus_loss", "{\"ramp\": 2}", "option ramp is 2, expected [0,1]"),
    OPTION("elr_plus_loss", "{\"gate_labels\": 2}", "option gate_labels is 2, expected flag"),
    OPTION("elr_rampup", "{\"length\": -1}", "option length is -1, expected [0,inf)"),

    WHOLE("pskd_loss", "labels", S(2), "labels[0] is 3, expected 0 <= . < C", 3, 0),
    WHOLE("pskd_loss", "index", S(2), "index has 0 more than once", 0, 0),
    REAL("pskd_loss", "bank", S(3, 2), "bank must be f32[N,3], not f32[3,2]", 0),
    OPTION("pskd_loss", "{\"epoch\": 5, \"epochs\": 4}", "option epoch is 5, expected [1,epochs]"),
    OPTION("pskd_loss", "{\"epoch\": 0, \"epochs\": 4}", "option epoch is 0, expected [1,epochs]"),
    OPTION("pskd_loss", "{\"epoch\": 1.5, \"epochs\": 4}", "option epoch is 1.5, expected integer"),
    OPTION("pskd_loss", "{\"epochs\": 4}", "option epoch is required"),
    OPTION("pskd_loss", "{\"epoch\": 1, \"epochs\": 4, \"alpha_T\": 1.1}", "option alpha_T is 1.1"),
    REAL("pskd_calibration", "probs", S(2, 2), "probs[1,0] is 1.5, expected 0 <= . <= 1", 1, 0, 1.5,
         0),
    REAL("pskd_calibration", "probs", S(2, 2), "probs[0,1] is nan, expected 0 <= . <= 1", 1, NAN,
         0.5, 0.5),
    OPTION("pskd_calibration", "{\"bins\": 0}", "option bins is 0, expected >= 1"),

    REAL("nested_dropout", "x", S(2, 0), "x has no features", 0),
    OPTION("nested_dropout", "{\"sigma\": 0}", "option sigma is 0, expected (0,inf)"),
    REAL("nested_dropout", "u", S(2), "u[1] is 1, expected 0 <= . < 1", 0, 1),
    REAL("nested_dropout", "u", S(3), "u must be f32[1] or f32[2], not f32[3]", 0, 0, 0),
    OPTION("nested_probs", "{\"K\": 0, \"sigma\": 1}", "option K is 0, expected >= 1"),
    OPTION("nested_probs", "{\"sigma\": 1}", "option K is required"),
    WHOLE("nested_prefix_eval", "labels", S(2), "labels[1] is 2, expected 0 <= . < C", 0, 2),
    OPTION("nested_peer_loss", "{\"forget_rate\": 1}", "option forget_rate is 1, expected [0,1)"),
    OPTION("nested_peer_loss", "{\"forget_rate\": 0.9}", "forget_rate 0.9 leaves none of 3"),
    REAL("nested_peer_loss", "select_loss", S(3), "select_loss[2] is nan, expected no NaN", 0, 1,
         NAN),
    OPTION("nested_forget_rate", "{\"forget_rate\": 0.2, \"n_gradual\": -1}",
           "option n_gradual is -1, expected >= 0"),

    REAL("conr_loss", "preds", S(3, 2), "preds must be f32[3,1], not f32[3,2]", 0),
    REAL("conr_loss", "labels", S(3, 1), "labels[1,0] is inf, expected finite", 0, INFINITY, 0),
    REAL("conr_loss", "labels", S(3, 1), "labels[2,0] is nan, expected finite", 0, 0, NAN),
    OPTION("conr_loss", "{\"omega\": -1}", "option omega is -1, expected [0,inf)"),
    OPTION("conr_loss", "{\"tau\": 0}", "option tau is 0, expected (0,inf)"),
    OPTION("conr_loss", "{\"dist\": \"l3\"}", "option dist is \"l3\", expected one of l1|l2"),
    WHOLE("conr_label_weights", "labels", S(3), "labels[1] is -1, expected >= 0", 0, -1, 7),
    OPTION("conr_label_weights", "{\"size\": 4}", "option size is 4, expected odd"),
    WHOLE("conr_shot_mae", "labels", S(2), "labels[0] is 2, expected 0 <= . < bins", 2, 1),

    WHOLE("decoupled_mixup_ce", "label_a", S(2), "label_a[1] is 3, expected 0 <= . < C", 0, 3),
    WHOLE("decoupled_mixup_ce", "label_b", S(2), "label_b[0] is -1, expected 0 <= . < C", -1, 0),
    REAL("decoupled_mixup_ce", "lam", S(2), "lam[0] is 1.25, expected 0 <= . <= 1", 1.25, 0),
    OPTION("decoupled_mixup_ce", "{\"eta\": -1}", "option eta is -1, expected [0,inf)"),
    OPTION("decoupled_mixup_ce", "{\"terms\": \"most\"}", "option terms is \"most\""),
    OPTION("decoupled_mixup_ce", "{\"etta\": 1}", "did you mean eta?"),
    WHOLE("decoupled_mixup_bce", "label_a", S(2), "label_a[1] is 3, expected 0 <= . < C", 0, 3),
    OPTION("decoupled_mixup_bce", "{\"xi\": 0}", "option xi is 0, expected (0,1]"),
    WHOLE("decoupled_mixup_mix", "perm", S(2), "perm[1] is 2, expected 0 <= . < B", 0, 2),
    WHOLE("decoupled_mixup_cutmix", "perm", S(2), "perm[0] is -1, expected 0 <= . < B", -1, 0),
    WHOLE("decoupled_mixup_cutmix", "box", S(4), "box has rows 0 to 3, expected", 0, 3, 0, 1),
    WHOLE("decoupled_mixup_cutmix", "box", S(4), "box has columns 2 to 1, expected", 0, 1, 2, 1),
    WHOLE("decoupled_mixup_cutmix", "box", S(4), "box[0] is -1, expected >= 0", -1, 1, 0, 1),

    REAL("wc_reparam", "a", S(3, 1), "a is f32[3,1], expected one number or as many axes", 1, 1, 1),
    REAL("wc_reparam", "b", S(2), "b is f32[2], expected one number or as many axes", 1, 1),
    REAL("wc_reparam", "a", S(2, 1), "a[1,0] is 0, expected > 0", 1, 0),
    REAL("wc_reparam", "b", BL_SCALAR, "b is -1, expected > 0", -1),
    OPTION("wc_reparam", "{\"fn\": \"erf\"}", "option fn is \"erf\", expected one of atan|tanh"),
    REAL("wc_inverse", "a", S(1, 3), "a is f32[1,3], expected one number or as many axes", 1, 1, 1),
    REAL("wc_inverse", "a", S(2, 1), "a[0,0] is -1, expected > 0", -1, 1),
    OPTION("wc_inverse", "{\"eps\": 1}", "option eps is 1, expected (0,1)"),
    REAL("wc_weight_stats", "w", S(0), "w is empty, expected at least one weight", 0),
    OPTION("wc_weight_stats", "{\"tau\": -1}", "option tau is -1, expected [0,inf)"),

    OPTION("randaugment_level", "{\"op\": \"Swirl\"}", "option op is \"Swirl\", expected one of"),
    OPTION("randaugment_level", "{}", "option op is required"),
    OPTION("randaugment_op", "{\"op\": \"Posterize\", \"arg\": 9}",
           "Posterize is 9, expected 0 to"),
    OPTION("randaugment_op", "{\"op\": \"Posterize\", \"arg\": -1}", "Posterize is -1, expected"),
    OPTION("randaugment_op", "{\"op\": \"Color\", \"arg\": 2}", "2 channels, expected 1 or 3"),
    OPTION("randaugment_op", "{\"op\": \"Contrast\", \"arg\": 2}", "2 channels, expected 1 or 3"),
    OPTION("randaugment_op", "{\"op\": \"Invert\", \"fill\": 256}", "option fill is 256"),
    WHOLE("randaugment_apply", "ops", S(1, 1), "ops[0,0] is 17, expected 0 <= . <= 16", 17),
    WHOLE("randaugment_apply", "signs", S(1, 1), "signs[0,0] is 0, expected in {-1,1}", 0),
    WHOLE("randaugment_apply", "images", S(1, 1, 2, 1), "images has the value 256", 0, 256),
};

static void what_the_specs_refuse_is_refused_by_name(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(refusals); i++) {
        const refusal *r = &refusals[i];
        call c = example(r->function);
        expect_ok(run(&c, NULL)); /* before it is spoilt */
        c.options = r->options ? r->options : c.options;
        if (r->input)
            give(&c, r->input, r->dtype, r->shape, r->values);
        bl_status status = run(&c, NULL);
        size_t length = strlen(r->function);
        bool named = strncmp(bl_error(), r->function, length) == 0;
        if (status != BL_INVALID || !strstr(bl_error(), r->words) || !named)
            fail_msg("row %d: status %d, \"%s\", expected \"%s: .. %s\"", i, status, bl_error(),
                     r->function, r->words);
        finish(&c);
    }
}

/* Every input whose first size is that of the batch, cut to none. */
static void an_empty_batch_is_refused(void **state)
{
    (void)state;
    static const char *const functions[] = {
        "elr_loss",  "pskd_loss",          "pskd_calibration",    "nested_peer_loss",
        "conr_loss", "decoupled_mixup_ce", "decoupled_mixup_bce", "elr_plus_loss"};
    for (int f = 0; f < COUNT_OF(functions); f++) {
        call c = example(functions[f]);
        for (size_t e = 0; e < c.in.count; e++)
            if (strcmp(c.in.entry[e].name, "bank") != 0)
                c.in.entry[e].array.type.shape.dim[0] = 0;
        assert_int_equal(run(&c, NULL), BL_INVALID);
        if (!strstr(bl_error(), " has no rows, expected at least one"))
            fail_msg("%s", bl_error());
        finish(&c);
    }
}

static void cutout_needs_a_centre_inside(void **state)
{
    (void)state;
    call c = example("randaugment_op");
    c.options = "{\"op\": \"Cutout\", \"arg\": 1}";
    I32(&c, "center", S(2), 0, 2);
    assert_int_equal(run(&c, NULL), BL_INVALID);
    assert_non_null(strstr(bl_error(), "center is (0, 2), expected a pixel of 1 rows by 2"));
    c.options = "{\"op\": \"Invert\"}"; /* others do not look at it */
    accept(&c, NULL);
    finish(&c);
}

static void decoupled_mixup_needs_two_classes(void **state)
{
    (void)state;
    call c = start("decoupled_mixup_ce", NULL);
    F32(&c, "logits", S(1, 1), 1);
    I32(&c, "label_a", S(1), 0);
    I32(&c, "label_b", S(1), 0);
    F32(&c, "lam", S(1), 0.5);
    assert_int_equal(run(&c, NULL), BL_INVALID);
    assert_non_null(strstr(bl_error(), "logits have 1 class, expected at least 2"));
    finish(&c);
}

/* --- labels -------------------------------------------- */

/* One row, equal logits: p = 1/2, t = 0.7 [0.2 0.8] + 0.3 [1/2 1/2] = [0.29 0.71]. */
static void elr_by_hand(void **state)
{
    (void)state;
    call c = start("elr_loss", NULL);
    F32(&c, "logits", S(1, 2), 0, 0);
    I32(&c, "labels", S(1), 1);
    F32(&c, "bank", S(2, 2), 9, 9, 0.2, 0.8);
    I32(&c, "index", S(1), 1);
    accept(&c, "loss");
    expect(&c, "bank_new", 9, 9, 0.29, 0.71);
    expect(&c, "ce", log(2));
    expect(&c, "reg", log(0.5));
    expect(&c, "loss", -2 * log(2));
    /* p_0 - y_0 + 3 p_0 p_1 (t_1 - t_0) / (1 - 1/2) */
    near(slope(&c, "logits", 0), 0.5 + 3 * 0.25 * 0.42 / 0.5);
    finish(&c);
}

static void elr_stays_finite_at_extreme_logits(void **state)
{
    (void)state;
    call c = example("elr_loss");
    F32(&c, "logits", S(2, 3), 80, -80, 0, -80, -80, 80);
    accept(&c, "loss");
    all_finite(&c.out);
    all_finite(&c.gradient);
    finish(&c);
}

static void elr_rampup_without_length_is_one(void **state)
{
    (void)state;
    call c = start("elr_rampup", "{\"length\": 4}");
    F32(&c, "step", S(4), -1, 0, 2, 9);
    accept(&c, NULL);
    expect(&c, "value", exp(-5), exp(-5), exp(-1.25), 1);
    c.options = "{\"length\": 0}";
    accept(&c, NULL);
    expect(&c, "value", 1, 1, 1, 1);
    finish(&c);
}

/* In the first epoch the bank may hold anything, NaN included. */
static void the_first_epoch_of_ps_kd_ignores_the_bank(void **state)
{
    (void)state;
    call c = example("pskd_loss");
    c.options = "{\"epoch\": 1, \"epochs\": 4}";
    F32(&c, "bank", S(3, 3), NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN);
    accept(&c, "loss");
    expect(&c, "targets", 1, 0, 0, 0, 0, 1);
    expect(&c, "alpha_t", 0.2);
    all_finite(&c.gradient);
    finish(&c);
}

static void a_scheduled_epoch_gives_what_a_number_gives(void **state)
{
    bl_graph *g = *state;
    const bl_contract *contract;
    expect_ok(bl_function_find("pskd_loss", &contract));
    int count;
    const bl_field *table = contract->table(&count);
    for (int epoch = 1; epoch <= 2; epoch++) {
        void *fields = bl_alloc(contract->size);
        assert_non_null(fields);
        bl_contract_defaults(contract, fields);
        bl_tensor scheduled = bl_input(g, "epoch", BL_F32, BL_SCALAR), loss = {0};
        const double logits[] = {1, 0}, bank[] = {0.25, 0.75};
        bl_array rows = array_of((bl_type){BL_F32, S(1, 2)}, logits);
        bl_array past = array_of((bl_type){BL_F32, S(1, 2)}, bank);
        for (int i = 0; i < count; i++) {
            bl_tensor *t = (bl_tensor *)(void *)((char *)fields + table[i].offset);
            const char *name = table[i].name;
            if (strcmp(name, "logits") == 0)
                *t = bl_constant(g, &rows);
            if (strcmp(name, "bank") == 0)
                *t = bl_constant(g, &past);
            if (strcmp(name, "labels") == 0 || strcmp(name, "index") == 0)
                *t = bl_full(g, BL_I32, S(1), 0);
            if (strcmp(name, "epoch") == 0)
                *t = scheduled;
            if (strcmp(name, "epochs") == 0)
                *t = bl_number(2);
        }
        bl_contract_build(contract, fields);
        for (int i = 0; i < count; i++)
            if (strcmp(table[i].name, "loss") == 0)
                loss = *(bl_tensor *)(void *)((char *)fields + table[i].offset);
        double z = log(exp(1) + 1), alpha = epoch == 1 ? 0.4 : 0.8;
        double target = 1 - alpha + alpha * (epoch == 1 ? 1 : 0.25);
        expect_result(loss, scheduled, VALUES(epoch),
                      VALUES(-(target * (1 - z) - (1 - target) * z)));
        bl_array_free(&rows), bl_array_free(&past), bl_release(fields);
    }
}

/* Confidences 0.6 twice: the larger index, which is wrong, comes first. */
static void calibration_breaks_ties_by_the_larger_index(void **state)
{
    (void)state;
    call c = start("pskd_calibration", NULL);
    F32(&c, "probs", S(2, 2), 0.6, 0.4, 0.6, 0.4);
    I32(&c, "labels", S(2), 0, 1);
    accept(&c, NULL);
    expect(&c, "error", 50);
    expect(&c, "aurc", 750);  /* (1/1 + 1/2) / 2 */
    expect(&c, "eaurc", 500); /* best: (1/2) / 2 */
    expect(&c, "ece", 10);    /* |1/2 - 0.6| */
    finish(&c);
}

static void an_impossible_truth_has_infinite_likelihood_loss(void **state)
{
    (void)state;
    call c = start("pskd_calibration", NULL);
    F32(&c, "probs", S(1, 2), 1, 0);
    I32(&c, "labels", S(1), 1);
    accept(&c, NULL);
    expect(&c, "nll", INFINITY);
    expect(&c, "error", 100);
    expect(&c, "eaurc", 0);
    finish(&c);
}

/* sigma so small that k = 1 has all the mass, wherever mu is. */
static void nested_dropout_at_its_ends(void **state)
{
    (void)state;
    call c = example("nested_dropout");
    c.options = "{\"sigma\": 0.01}";
    accept(&c, NULL);
    expect(&c, "k", 1, 1);
    expect(&c, "y", 1, 0, 0, 4, 0, 0);
    c.options = "{\"sigma\": 0.01, \"mu\": 50}";
    accept(&c, NULL);
    expect(&c, "k", 3, 3);
    F32(&c, "x", S(2, 1), 7, 8); /* one feature is always kept */
    accept(&c, NULL);
    expect(&c, "y", 7, 8);
    finish(&c);
}

static void nested_draws_follow_their_probabilities(void **state)
{
    (void)state;
    call p = start("nested_probs", "{\"K\": 4, \"sigma\": 2}");
    accept(&p, NULL);
    double cdf = 0;
    for (int k = 1; k <= 4; k++) {
        for (int side = 0; side < 2; side++) { /* just below and just above a step of the cdf */
            double u = cdf + (side ? 1 : -1) * 1e-5;
            if (u < 0)
                continue;
            call c = start("nested_dropout", "{\"sigma\": 2}");
            F32(&c, "x", S(1, 4), 1, 1, 1, 1);
            F32(&c, "u", S(1), u);
            accept(&c, NULL);
            expect(&c, "k", side ? k : k - 1);
            finish(&c);
        }
        cdf += result(&p, "probs", k - 1);
    }
    near(cdf, 1);
    finish(&p);
}

static void the_shortest_of_equal_prefixes_is_best(void **state)
{
    (void)state;
    call c = start("nested_prefix_eval", "{\"penalty\": 0}");
    F32(&c, "x", S(2, 3), 1, 0, 5, -1, 0, 5);
    F32(&c, "weight", S(3, 2), 1, -1, 0, 0, 0, 1);
    I32(&c, "labels", S(2), 0, 1);
    accept(&c, NULL);
    expect(&c, "accuracy", 1, 1, 0.5);
    expect(&c, "best_k", 1);
    expect(&c, "best_score", 1);
    finish(&c);
}

static void peer_selection_takes_the_lower_index_at_ties(void **state)
{
    (void)state;
    call c = example("nested_peer_loss");
    c.options = "{\"forget_rate\": 0.3}";
    accept(&c, "loss");
    expect(&c, "selected", 2, 0);
    expect(&c, "kept", 1, 0, 1);
    near(slope(&c, "logits", 2), 0);              /* row 1 was left out */
    F32(&c, "select_loss", S(3), INFINITY, 1, 2); /* infinite losses are merely last */
    accept(&c, "loss");
    expect(&c, "selected", 1, 2);
    finish(&c);
}

static void forget_rate_rises_over_n_gradual_epochs(void **state)
{
    (void)state;
    call c = start("nested_forget_rate", "{\"forget_rate\": 0.3, \"n_gradual\": 4}");
    I32(&c, "epoch", S(6), 1, 2, 3, 4, 5, 9);
    accept(&c, NULL);
    expect(&c, "rate", 0, 0.1, 0.2, 0.3, 0.3, 0.3);
    c.options = "{\"forget_rate\": 0.3, \"n_gradual\": 1}";
    accept(&c, NULL);
    expect(&c, "rate", 0, 0.3, 0.3, 0.3, 0.3, 0.3);
    c.options = "{\"forget_rate\": 0.3, \"n_gradual\": 0}";
    accept(&c, NULL);
    expect(&c, "rate", 0.3, 0.3, 0.3, 0.3, 0.3, 0.3);
    finish(&c);
}

/* --- inputs -------------------------------------------- */

static void conr_of_one_row_is_zero(void **state)
{
    (void)state;
    call c = start("conr_loss", NULL);
    F32(&c, "features", S(1, 2), 1, 2);
    F32(&c, "labels", S(1, 1), 3);
    F32(&c, "preds", S(1, 1), 4);
    F32(&c, "weights", S(1), 1);
    accept(&c, "loss");
    expect(&c, "loss", 0);
    expect(&c, "n_pos", 0);
    expect(&c, "anchor", 0);
    near(slope(&c, "features", 0), 0);
    finish(&c);
}

/* Rows 0 and 1 are positives of each other and have row 2 as negative; row 2 has no positive. */
static void conr_by_hand(void **state)
{
    (void)state;
    call c = start("conr_loss", "{\"tau\": 1, \"eta\": 0.5, \"push\": \"linear\"}");
    F32(&c, "features", S(3, 2), 2, 0, 0, 3, 5, 0);
    F32(&c, "labels", S(3, 1), 0, 1, 4);
    F32(&c, "preds", S(3, 1), 0, 0, 1);
    F32(&c, "weights", S(3), 1, 2, 1);
    accept(&c, "loss");
    expect(&c, "n_pos", 1, 1, 0);
    expect(&c, "n_neg", 1, 1, 2);
    expect(&c, "anchor", 1, 1, 0);
    /* row 0: s = 0 to its positive, 1 to the negative, S = 0.5 * 4; row 1: both 0, S = 2 * 0.5 * 3
     */
    expect(&c, "loss", (log(1 + 2 * exp(1)) + 2 * log(1 + 3)) / 3);
    finish(&c);
}

static void conr_stays_finite_where_a_plain_exponential_does_not(void **state)
{
    (void)state;
    call c = example("conr_loss");
    c.options = "{\"tau\": 0.001, \"eta\": 1000}";
    F32(&c, "features", S(3, 2), 0, 0, 1, 1, 1, 1); /* and a row of zero length */
    accept(&c, "loss");
    all_finite(&c.out);
    all_finite(&c.gradient);
    finish(&c);
}

static void conr_weights_have_mean_one(void **state)
{
    (void)state;
    static const char *const options[] = {
        "{\"mode\": \"none\"}", "{\"mode\": \"sqrt_inv\", \"max_target\": 5}",
        "{\"mode\": \"inverse\", \"lds\": true, \"kernel\": \"laplace\", \"size\": 9}",
        "{\"lds\": true, \"size\": 1}"};
    for (int i = 0; i < COUNT_OF(options); i++) {
        call c = start("conr_label_weights", options[i]);
        I32(&c, "labels", S(5), 0, 0, 0, 4, 900);
        accept(&c, NULL);
        double sum = 0;
        for (int k = 0; k < 5; k++)
            sum += result(&c, "weights", k);
        near(sum, 5);
        finish(&c);
    }
}

static void an_empty_shot_group_has_error_zero(void **state)
{
    (void)state;
    call c = example("conr_shot_mae"); /* both test points have 200 training examples */
    accept(&c, NULL);
    expect(&c, "all", 1.5);
    expect(&c, "many", 1.5);
    expect(&c, "medium", 0);
    expect(&c, "few", 0);
    expect(&c, "n", 2, 0, 0);
    finish(&c);
}

/* The term of a leaves z[b] out altogether: d Da / d z[b] = 0. */
static void decoupled_terms_do_not_see_the_other_class(void **state)
{
    (void)state;
    for (int b_term = 0; b_term < 2; b_term++) {
        call c = start("decoupled_mixup_ce", b_term ? "{\"terms\": \"b\"}" : "{\"terms\": \"a\"}");
        F32(&c, "logits", S(2, 4), 1, -2, 0.5, 3, 80, -80, 0, 80);
        I32(&c, "label_a", S(2), 0, 3);
        I32(&c, "label_b", S(2), 2, 0);
        F32(&c, "lam", S(2), 0.3, 0.6);
        accept(&c, "dm");
        const int other[2][2] = {{2, 4 + 0}, {0, 4 + 3}};
        for (int row = 0; row < 2; row++)
            assert_true(slope(&c, "logits", other[b_term][row]) == 0);
        all_finite(&c.out);
        all_finite(&c.gradient);
        assert_true(fabs(slope(&c, "logits", b_term ? 2 : 0)) > 1e-3);
        finish(&c);
    }
}

static void two_classes_leave_nothing_to_decouple(void **state)
{
    (void)state;
    call c = start("decoupled_mixup_ce", "{\"eta\": 10}");
    F32(&c, "logits", S(2, 2), 5, -1, 0, 2);
    I32(&c, "label_a", S(2), 0, 1);
    I32(&c, "label_b", S(2), 1, 0);
    F32(&c, "lam", S(2), 0.5, 0.1);
    accept(&c, "dm");
    expect(&c, "dm", 0);
    for (int i = 0; i < 4; i++)
        assert_true(slope(&c, "logits", i) == 0);
    finish(&c);
}

/* Equal logits over three classes: D = log 2. Row 1 mixes a class with itself, row 2 has lam 1. */
static void unmixed_rows_count_but_add_nothing(void **state)
{
    (void)state;
    call c = start("decoupled_mixup_ce", "{\"eta\": 1}");
    F32(&c, "logits", S(3, 3), 0, 0, 0, 0, 0, 0, 0, 0, 0);
    I32(&c, "label_a", S(3), 0, 1, 0);
    I32(&c, "label_b", S(3), 2, 1, 2);
    F32(&c, "lam", S(3), 0.5, 0.5, 1);
    accept(&c, "loss");
    expect(&c, "mce", log(3));
    expect(&c, "dm", 2 * log(2) / 3);
    expect(&c, "loss", log(3) + 2 * log(2) / 3);
    finish(&c);
}

static void less_and_more_are_opposites(void **state)
{
    (void)state;
    call c = start("decoupled_mixup_ce", "{\"terms\": \"less\", \"lam_pow\": 1}");
    F32(&c, "logits", S(1, 3), 0, 0, log(3));
    I32(&c, "label_a", S(1), 0);
    I32(&c, "label_b", S(1), 2);
    F32(&c, "lam", S(1), 0.25);
    accept(&c, NULL); /* Da = log(1 + 1) - 0, Db = log(1 + 3) - log 3 */
    expect(&c, "dm", 0.25 * log(2));
    c.options = "{\"terms\": \"more\", \"lam_pow\": 1}";
    accept(&c, NULL);
    expect(&c, "dm", 0.75 * log(4.0 / 3));
    F32(&c, "lam", S(1), 0.5); /* not below thr: less takes b, more a */
    accept(&c, NULL);
    expect(&c, "dm", 0.5 * log(2));
    finish(&c);
}

static void the_sigmoid_target_never_exceeds_one(void **state)
{
    (void)state;
    call c = start("decoupled_mixup_bce", "{\"xi\": 0.5}");
    F32(&c, "logits", S(1, 2), 80, -80);
    I32(&c, "label_a", S(1), 1);
    I32(&c, "label_b", S(1), 1);
    F32(&c, "lam", S(1), 0.5);
    accept(&c, "loss");
    expect(&c, "target", 0, 1);
    expect(&c, "loss", 160);
    finish(&c);
}

static void cutmix_pastes_a_box(void **state)
{
    (void)state;
    call c = example("decoupled_mixup_cutmix");
    accept(&c, NULL);
    expect(&c, "x_mix", 0, 5, 2, 3, 4, 1, 6, 7);
    expect(&c, "lam", 0.75, 0.75);
    I32(&c, "box", S(4), 1, 1, 0, 2); /* empty */
    accept(&c, NULL);
    expect(&c, "x_mix", 0, 1, 2, 3, 4, 5, 6, 7);
    expect(&c, "lam", 1, 1);
    finish(&c);
}

static void mix_blends_any_rank(void **state)
{
    (void)state;
    call c = start("decoupled_mixup_mix", NULL);
    F32(&c, "x", S(2), 4, 8);
    I32(&c, "perm", S(2), 1, 1);
    F32(&c, "lam", S(2), 0.25, 0.5);
    accept(&c, NULL);
    expect(&c, "x_mix", 7, 8);
    finish(&c);
}

/* Kolmogorov's distance of 20000 draws from the distribution function stays below the 1 % point,
 * 1.63 / sqrt(n), for one fixed key. */
static double arcsine(double x)
{
    return 2 / 3.14159265358979324 * asin(sqrt(x));
}
static double flat(double x)
{
    return x;
}
static double hump(double x)
{
    return 3 * x * x - 2 * x * x * x;
}
static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void beta_draws_are_beta_distributed(void **state)
{
    const struct {
        double alpha;
        double (*cdf)(double);
    } law[] = {{0.5, arcsine}, {1, flat}, {2, hump}};
    enum { DRAWS = 20000 };
    for (int i = 0; i < COUNT_OF(law); i++) {
        bl_tensor key = input(state, BL_U32, 2);
        bl_tensor draws = bl_beta_symmetric(key, law[i].alpha, S(DRAWS));
        const double *seed = VALUES(17, 4);
        bl_array got = evaluate(draws, &key, &seed, 1);
        qsort(got.data, DRAWS, sizeof(float), ascending);
        double worst = 0;
        for (int k = 0; k < DRAWS; k++) {
            double p = law[i].cdf((double)bl_f32(&got)[k]);
            worst =
                fmax(worst, fmax(fabs(p - k / (double)DRAWS), fabs(p - (k + 1) / (double)DRAWS)));
        }
        if (worst > 1.63 / sqrt(DRAWS))
            fail_msg("alpha %g: distance %g", law[i].alpha, worst);
        bl_array_free(&got);
    }
}

/* Most of Beta(0.02, 0.02) lies at the ends, where U^(-1/alpha) overflows. */
static void beta_draws_survive_a_tiny_alpha(void **state)
{
    bl_tensor key = input(state, BL_U32, 2);
    bl_tensor draws = bl_beta_symmetric(key, 0.02, S(1000));
    const double *seed = VALUES(3, 9);
    bl_array got = evaluate(draws, &key, &seed, 1);
    int low = 0, high = 0;
    for (int k = 0; k < 1000; k++) {
        float x = bl_f32(&got)[k];
        assert_true(x >= 0 && x <= 1);
        low += x<0.01f, high += x> 0.99f;
    }
    assert_in_range(low, 400, 550);
    assert_in_range(high, 400, 550);
    bl_array_free(&got);
}

/* --- weights -------------------------------------------- */

static void companding_undoes_its_inverse(void **state)
{
    (void)state;
    static const char *const fn[] = {"{\"fn\": \"atan\"}", "{\"fn\": \"tanh\"}"};
    for (int i = 0; i < 2; i++) {
        call back = start("wc_inverse", fn[i]), there = start("wc_reparam", fn[i]);
        F32(&back, "w", S(5), -0.45, -0.1, 0, 0.2, 0.4);
        F32(&back, "a", S(1), 0.5);
        F32(&back, "b", BL_SCALAR, 0.3);
        accept(&back, NULL);
        expect(&back, "n_clipped", 0);
        bl_array v;
        expect_ok(bl_array_copy(bl_dictionary_find(&back.out, "v"), &v));
        expect_ok(bl_dictionary_set(&there.in, "v", v));
        F32(&there, "a", S(1), 0.5);
        F32(&there, "b", BL_SCALAR, 0.3);
        accept(&there, NULL);
        expect(&there, "w", -0.45, -0.1, 0, 0.2, 0.4);
        finish(&back), finish(&there);
    }
}

static void weights_out_of_reach_are_counted(void **state)
{
    (void)state;
    call c = start("wc_inverse", "{\"fn\": \"tanh\", \"eps\": 0.5}");
    F32(&c, "w", S(4), -9, 0, 0.25, NAN);
    F32(&c, "a", BL_SCALAR, 1);
    F32(&c, "b", BL_SCALAR, 2);
    accept(&c, NULL);
    expect(&c, "n_clipped", 1);
    expect(&c, "v", -2 * atanh(0.5), 0, 2 * atanh(0.25), NAN);
    finish(&c);
}

static void non_finite_parameters_pass_through(void **state)
{
    (void)state;
    call c = start("wc_reparam", NULL);
    F32(&c, "v", S(3), INFINITY, -INFINITY, NAN);
    F32(&c, "a", BL_SCALAR, 2);
    F32(&c, "b", BL_SCALAR, 1);
    accept(&c, NULL);
    expect(&c, "w", 3.14159265358979324, -3.14159265358979324, NAN);
    finish(&c);
}

static void equal_weights_have_no_spread(void **state)
{
    (void)state;
    call c = start("wc_weight_stats", NULL);
    F32(&c, "w", S(7), 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1);
    accept(&c, NULL);
    expect(&c, "std", 0);
    expect(&c, "kurtosis", 0);
    expect(&c, "frac_small", 0);
    F32(&c, "w", S(1), -3);
    accept(&c, NULL);
    expect(&c, "max_abs", 3);
    finish(&c);
}

/* --- images -------------------------------------------- */

enum { HEIGHT = 7, WIDTH = 9, CHANNELS = 3, VALUES_OF_IMAGE = HEIGHT * WIDTH * CHANNELS };

static void fill_image(uint8_t *image, uint32_t seed)
{
    bl_random r = bl_random_new(bl_key_from_seed(seed));
    for (int i = 0; i < VALUES_OF_IMAGE; i++)
        image[i] = (uint8_t)bl_random_below(&r, 256);
}

static void apply_op(ra_op op, double argument, const uint8_t *in, uint8_t *out)
{
    ra_settings settings = {.fill = 77};
    ra_image m = {HEIGHT, WIDTH, CHANNELS, in, out};
    expect_ok(ra_apply(op, argument, (const int32_t[]){3, 4}, &settings, &m));
}

static void neutral_arguments_change_nothing(void **state)
{
    (void)state;
    const struct {
        ra_op op;
        double argument;
    } neutral[] = {{RA_IDENTITY, 0},       {RA_ROTATE, 0},          {RA_ROTATE, 360},
                   {RA_POSTERIZE, 8},      {RA_SOLARIZE, 256},      {RA_SOLARIZE_ADD, 0},
                   {RA_COLOR, 1},          {RA_CONTRAST, 1},        {RA_BRIGHTNESS, 1},
                   {RA_SHARPNESS, 1},      {RA_SHEAR_X, 0},         {RA_SHEAR_Y, 0},
                   {RA_TRANSLATE_X, 0.49}, {RA_TRANSLATE_Y, -0.49}, {RA_CUTOUT, 0}};
    uint8_t in[VALUES_OF_IMAGE], out[VALUES_OF_IMAGE];
    fill_image(in, 1);
    for (int i = 0; i < COUNT_OF(neutral); i++) {
        apply_op(neutral[i].op, neutral[i].argument, in, out);
        if (memcmp(in, out, sizeof in) != 0)
            fail_msg("operation %d at %g changed the image", neutral[i].op, neutral[i].argument);
    }
}

static void shifts_round_half_away_from_zero(void **state)
{
    (void)state;
    uint8_t in[VALUES_OF_IMAGE], half[VALUES_OF_IMAGE], whole[VALUES_OF_IMAGE];
    fill_image(in, 2);
    apply_op(RA_TRANSLATE_X, 0.5, in, half); /* 0.5 rounds to 1, 1.5 to 2, .. */
    apply_op(RA_TRANSLATE_X, 1, in, whole);
    assert_memory_equal(half, whole, sizeof half);
    for (int y = 0; y < HEIGHT; y++)
        for (int c = 0; c < CHANNELS; c++) {
            int row = y * WIDTH * CHANNELS;
            assert_int_equal(whole[row + c], in[row + CHANNELS + c]);
            assert_int_equal(whole[row + (WIDTH - 1) * CHANNELS + c], 77);
        }
    apply_op(RA_TRANSLATE_Y, 1e300, in, whole); /* far outside is fill, not an overflow */
    for (int i = 0; i < VALUES_OF_IMAGE; i++)
        assert_int_equal(whole[i], 77);
}

static void half_a_turn_reverses_the_pixels(void **state)
{
    (void)state;
    uint8_t in[VALUES_OF_IMAGE], out[VALUES_OF_IMAGE];
    fill_image(in, 3);
    apply_op(RA_ROTATE, 180, in, out);
    for (int i = 0; i < HEIGHT * WIDTH; i++)
        assert_memory_equal(out + i * CHANNELS, in + (HEIGHT * WIDTH - 1 - i) * CHANNELS, CHANNELS);
}

static void thin_images_are_not_sharpened(void **state)
{
    (void)state;
    uint8_t in[6] = {0, 200, 13, 255, 9, 90}, out[6];
    ra_settings settings = {0};
    ra_image m = {2, 3, 1, in, out};
    expect_ok(ra_apply(RA_SHARPNESS, 1.9, (const int32_t[]){0, 0}, &settings, &m));
    assert_memory_equal(in, out, 6);
}

static void a_chain_is_its_operations_in_order(void **state)
{
    (void)state;
    for (int n = 0; n <= 3; n++) { /* an odd and an even number, and none */
        call c = start("randaugment_apply", "{\"magnitude\": 5}");
        double pixels[VALUES_OF_IMAGE], ops[3] = {RA_ROTATE, RA_INVERT, RA_SOLARIZE_ADD};
        double signs[3] = {-1, 1, 1}, centres[6] = {0};
        uint8_t in[VALUES_OF_IMAGE], out[VALUES_OF_IMAGE];
        fill_image(in, 4);
        for (int i = 0; i < VALUES_OF_IMAGE; i++)
            pixels[i] = in[i];
        give(&c, "images", BL_U8, S(1, HEIGHT, WIDTH, CHANNELS), pixels);
        give(&c, "ops", BL_I32, S(1, n), ops);
        give(&c, "signs", BL_I32, S(1, n), signs);
        give(&c, "centers", BL_I32, S(1, n, 2), centres);
        accept(&c, NULL);
        ra_settings settings = {.fill = 128, .translate_const = 100, .cutout_const = 40};
        for (int k = 0; k < n; k++) {
            ra_op op = (ra_op)ops[k];
            ra_image m = {HEIGHT, WIDTH, CHANNELS, in, out};
            double argument = ra_signed(op, ra_level(op, 5, &settings), (int)signs[k], &settings);
            expect_ok(ra_apply(op, argument, (const int32_t[]){0, 0}, &settings, &m));
            memcpy(in, out, sizeof in);
        }
        for (int i = 0; i < VALUES_OF_IMAGE; i++)
            near(result(&c, "images", i), in[i]);
        finish(&c);
    }
}

/* --- arms -------------------------------------------- */

static const bl_arm_part *part_of(const char *text, bl_arm *arm)
{
    expect_ok(bl_arm_parse(text, arm));
    return arm->part;
}

static void every_arm_reads_its_options(void **state)
{
    (void)state;
    static const char *const arms[] = {"elr(lambda=7,beta=0.9)",
                                       "ps_kd(alpha_T=0.5)",
                                       "nested_dropout(sigma=100,penalty=0.001)",
                                       "conr(omega=2,beta=0.3,views=1)",
                                       "decoupled_mixup(mix=cutmix,alpha=0.2,terms=less)",
                                       "weight_compander(fn=tanh,amp=3)",
                                       "randaugment(n=3,m=5,level_map=official,fill=0)",
                                       "elr+weight_compander"};
    for (int i = 0; i < COUNT_OF(arms); i++) {
        bl_arm arm;
        part_of(arms[i], &arm);
        assert_string_equal(arm.text, arms[i]);
        bl_arm_free(&arm);
    }
}

static void impossible_arms_are_refused_with_a_sentence(void **state)
{
    (void)state;
    const struct {
        const char *arm, *words;
    } wrong[] = {{"elr(beta=2)", "option beta is 2, expected [0,1]"},
                 {"decoupled_mixup+elr", "elr needs hard labels"},
                 {"conr+ps_kd", "for classification"},
                 {"randaugment(m=31)", "option m is 31"}};
    for (int i = 0; i < COUNT_OF(wrong); i++) {
        bl_arm arm;
        assert_int_not_equal(bl_arm_parse(wrong[i].arm, &arm), BL_OK);
        if (!strstr(bl_error(), wrong[i].words))
            fail_msg("\"%s\", expected \"%s\"", bl_error(), wrong[i].words);
    }
}

/* The load hook: the same key gives the same images, each image its own; grey images work. */
static void randaugment_depends_on_its_key_alone(void **state)
{
    (void)state;
    enum { IMAGES = 64, SIDE = 12, BYTES = SIDE * SIDE };
    static uint8_t in[IMAGES * BYTES], once[IMAGES * BYTES], again[IMAGES * BYTES];
    bl_random r = bl_random_new(bl_key_from_seed(5));
    for (int i = 0; i < BYTES; i++)
        in[i] = (uint8_t)bl_random_below(&r, 256);
    for (int k = 1; k < IMAGES; k++)
        memcpy(in + k * BYTES, in, BYTES);
    bl_arm arm;
    const bl_arm_part *p = part_of("randaugment(m=7)", &arm);
    bl_key key = bl_key_from_seed(6);
    expect_ok(p->hooks->load(NULL, p->options, in, once, IMAGES, SIDE, SIDE, 1, key));
    expect_ok(p->hooks->load(NULL, p->options, in, again, IMAGES, SIDE, SIDE, 1, key));
    assert_memory_equal(once, again, sizeof once);
    int changed = 0, different = 0;
    for (int k = 0; k < IMAGES; k++) {
        changed += memcmp(once + k * BYTES, in, BYTES) != 0;
        different += memcmp(once + k * BYTES, once, BYTES) != 0;
    }
    assert_true(changed > IMAGES / 2 && different > IMAGES / 2);
    expect_ok(p->hooks->load(NULL, p->options, in, again, 1, SIDE, SIDE, 1, bl_key_from_seed(8)));
    bl_arm_free(&arm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_the_specs_refuse_is_refused_by_name),
        TEST(an_empty_batch_is_refused),
        TEST(cutout_needs_a_centre_inside),
        TEST(decoupled_mixup_needs_two_classes),
        TEST(elr_by_hand),
        TEST(elr_stays_finite_at_extreme_logits),
        TEST(elr_rampup_without_length_is_one),
        TEST(the_first_epoch_of_ps_kd_ignores_the_bank),
        TEST(a_scheduled_epoch_gives_what_a_number_gives),
        TEST(calibration_breaks_ties_by_the_larger_index),
        TEST(an_impossible_truth_has_infinite_likelihood_loss),
        TEST(nested_dropout_at_its_ends),
        TEST(nested_draws_follow_their_probabilities),
        TEST(the_shortest_of_equal_prefixes_is_best),
        TEST(peer_selection_takes_the_lower_index_at_ties),
        TEST(forget_rate_rises_over_n_gradual_epochs),
        TEST(conr_of_one_row_is_zero),
        TEST(conr_by_hand),
        TEST(conr_stays_finite_where_a_plain_exponential_does_not),
        TEST(conr_weights_have_mean_one),
        TEST(an_empty_shot_group_has_error_zero),
        TEST(decoupled_terms_do_not_see_the_other_class),
        TEST(two_classes_leave_nothing_to_decouple),
        TEST(unmixed_rows_count_but_add_nothing),
        TEST(less_and_more_are_opposites),
        TEST(the_sigmoid_target_never_exceeds_one),
        TEST(cutmix_pastes_a_box),
        TEST(mix_blends_any_rank),
        TEST(beta_draws_are_beta_distributed),
        TEST(beta_draws_survive_a_tiny_alpha),
        TEST(companding_undoes_its_inverse),
        TEST(weights_out_of_reach_are_counted),
        TEST(non_finite_parameters_pass_through),
        TEST(equal_weights_have_no_spread),
        TEST(neutral_arguments_change_nothing),
        TEST(shifts_round_half_away_from_zero),
        TEST(half_a_turn_reverses_the_pixels),
        TEST(thin_images_are_not_sharpened),
        TEST(a_chain_is_its_operations_in_order),
        TEST(every_arm_reads_its_options),
        TEST(impossible_arms_are_refused_with_a_sentence),
        TEST(randaugment_depends_on_its_key_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
