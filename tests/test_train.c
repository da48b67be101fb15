/* Training on toy problems: learning, update rules by hand, the order of hooks, resuming and
 * threads bit for bit, inert arms, divergence. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "train/training.h"

/* --- a toy problem: three clouds in the plane, or a noisy line -------------------------------- */
enum { TRAIN = 300, TEST = 150 };

typedef struct toy_problem {
    bl_training_data data;
    float inputs[2][TRAIN * 2];
    int32_t labels[2][TRAIN];
    float values[2][TRAIN];
} toy_problem;

static void fill_part(toy_problem *toy, int which, int64_t count, bool classes, bl_part *part)
{
    bl_random r = bl_random_new(bl_key_from_seed((uint64_t)which + 7));
    for (int i = 0; i < count; i++) {
        int label = i % 3;
        double x = cos(2.1 * label) + 0.35 * bl_random_gauss(&r);
        double y = sin(2.1 * label) + 0.35 * bl_random_gauss(&r);
        toy->inputs[which][2 * i] = (float)x, toy->inputs[which][2 * i + 1] = (float)y;
        toy->labels[which][i] = label;
        toy->values[which][i] = (float)(0.7 * x - 0.4 * y + 0.1 + 0.05 * bl_random_gauss(&r));
    }
    *part = (bl_part){.count = count, .inputs = {{BL_F32, BL_SHAPE(count, 2)}, toy->inputs[which]}};
    if (classes)
        part->targets = (bl_array){{BL_I32, BL_SHAPE(count)}, toy->labels[which]};
    else
        part->targets = (bl_array){{BL_F32, BL_SHAPE(count, 1)}, toy->values[which]};
}

static void make_toy(toy_problem *toy, bool classes)
{
    *toy = (toy_problem){.data = {.classes = classes ? 3 : 0, .target_scale = 10}};
    fill_part(toy, 0, TRAIN, classes, &toy->data.train);
    fill_part(toy, 1, TEST, classes, &toy->data.test);
}

static bl_experiment plan(const toy_problem *toy)
{
    bool classes = toy->data.classes > 0;
    bl_experiment e = {.data = &toy->data, .threads = 1};
    e.recipe = (bl_recipe){.model = {.name = "mlp", .width = 16, .depth = 2},
                           .learning_rate = 0.1,
                           .momentum = 0.9,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .epsilon = 1e-8,
                           .epochs = 10,
                           .batch = 32};
    e.recipe.model.outputs = classes ? 3 : 1;
    strcpy(e.recipe.optimizer, "sgd");
    strcpy(e.recipe.schedule, "constant");
    strcpy(e.recipe.loss, classes ? "cross_entropy" : "squared");
    bl_key key = bl_key_from_seed(3);
    e.keys = (bl_run_keys){bl_key_derive(key, 0), bl_key_derive(key, 1), bl_key_derive(key, 2)};
    return e;
}

static void run(const bl_experiment *e, bl_run_result *result)
{
    if (bl_train(e, NULL, result) != BL_OK)
        fail_msg("%s", bl_error());
}

static double metric(const bl_run_result *result, const char *name)
{
    for (int i = 0; i < result->metrics; i++)
        if (strcmp(result->metric[i].name, name) == 0)
            return result->metric[i].value;
    fail_msg("no metric %s", name);
    return NAN;
}

static void expect_same_state(const bl_run_result *a, const bl_run_result *b)
{
    assert_int_equal(a->state.count, b->state.count);
    for (size_t i = 0; i < a->state.count; i++) {
        const bl_array *other = bl_dictionary_find(&b->state, a->state.entry[i].name);
        assert_non_null(other);
        assert_memory_equal(a->state.entry[i].array.data, other->data, bl_type_bytes(other->type));
    }
    for (int i = 0; i < a->metrics; i++)
        assert_memory_equal(&a->metric[i].value, &b->metric[i].value, sizeof(double));
}

/* --- learning --------------------------------------------------------------------------------- */
static void clouds_are_separated(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    const char *optimizers[] = {"sgd", "adam", "adamw"};
    for (int i = 0; i < 3; i++) {
        bl_experiment e = plan(&toy);
        strcpy(e.recipe.optimizer, optimizers[i]);
        e.recipe.learning_rate = i == 0 ? 0.1 : 0.01;
        e.curve_points = 5;
        bl_run_result result;
        run(&e, &result);
        assert_true(metric(&result, "accuracy") > 95);
        assert_true(metric(&result, "nll") < 0.2);
        assert_int_equal(result.steps, 90);
        assert_int_equal(result.curve_count, 5);
        assert_int_equal(result.curve[4].epoch, 10);
        assert_true(result.curve[4].train_loss < result.curve[0].train_loss);
        assert_false(result.diverged || result.effect.inert);
        bl_run_result_free(&result);
    }
}

static void line_is_fitted_in_original_units(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, false);
    bl_experiment e = plan(&toy);
    e.recipe.model.name = "linear";
    bl_run_result result;
    run(&e, &result);
    assert_true(fabs(metric(&result, "mae") - 10 * 0.05 * sqrt(2 / 3.14159)) < 0.08);
    assert_true(metric(&result, "r2") > 0.98);
    const bl_array *w = bl_dictionary_find(&result.state, "param/classifier/weight");
    assert_true(fabs(bl_f32(w)[0] - 0.7) < 0.03 && fabs(bl_f32(w)[1] + 0.4) < 0.03);
    bl_array predictions;
    assert_int_equal(
        bl_predict(&e.recipe.model, &result.state, &toy.data.test, &toy.data, NULL, &predictions),
        BL_OK);
    bl_metric again[BL_METRICS];
    bl_metrics_regression(&predictions, toy.values[1], 10, again);
    assert_true(again[0].value == metric(&result, "mae"));
    bl_array_free(&predictions);
    bl_run_result_free(&result);
}

/* --- update rules by hand: one weight vector, full batches, a start of 0.5 -------------------- */
static bl_status start_at_half(bl_training *t, const void *options)
{
    (void)options;
    const bl_parameter *parameter;
    for (int i = 0; i < bl_training_parameters(t, &parameter); i++)
        for (int64_t k = 0; k < bl_array_count(bl_training_parameter(t, i)); k++)
            bl_f32(bl_training_parameter(t, i))[k] = 0.5F;
    return BL_OK;
}

static void hand_gradient(const toy_problem *toy, const double w[3], double g[3])
{
    g[0] = g[1] = g[2] = 0;
    for (int i = 0; i < TRAIN; i++) {
        const float *x = toy->inputs[0] + (ptrdiff_t)2 * i;
        double d = 2 * (w[0] * x[0] + w[1] * x[1] + w[2] - toy->values[0][i]) / TRAIN;
        g[0] += d * x[0], g[1] += d * x[1], g[2] += d;
    }
}

static void hand_step(const char *rule, int step, const double *g, double *w, double *m, double *v)
{
    const double rate = 0.1, decay = 0.3, b1 = 0.9, b2 = 0.999;
    for (int i = 0; i < 3; i++) {
        double d = i < 2 ? decay : 0, gi = g[i];
        if (strcmp(rule, "adamw") == 0)
            w[i] *= 1 - rate * d;
        else
            gi += d * w[i];
        if (strncmp(rule, "adam", 4) != 0) {
            m[i] = 0.9 * m[i] + gi;
            w[i] -= rate * (strcmp(rule, "nesterov") == 0 ? gi + 0.9 * m[i] : m[i]);
            continue;
        }
        m[i] = b1 * m[i] + (1 - b1) * gi;
        v[i] = b2 * v[i] + (1 - b2) * gi * gi;
        w[i] -= rate * m[i] / (1 - pow(b1, step)) / (sqrt(v[i] / (1 - pow(b2, step))) + 1e-8);
    }
}

static void updates_are_those_of_the_textbook(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, false);
    bl_hooks hooks = {.init = start_at_half};
    bl_arm_part part = {.name = "half", .hooks = &hooks};
    bl_arm arm = {.text = "half", .part = &part, .parts = 1};
    const char *rules[] = {"sgd", "nesterov", "adam", "adamw"};
    for (int r = 0; r < 4; r++) {
        bl_experiment e = plan(&toy);
        e.arm = &arm;
        e.recipe.model.name = "linear";
        e.recipe.weight_decay = 0.3, e.recipe.batch = TRAIN, e.recipe.epochs = 3;
        e.recipe.nesterov = r == 1;
        strcpy(e.recipe.optimizer, r == 1 ? "sgd" : rules[r]);
        bl_run_result result;
        run(&e, &result);
        double w[3] = {0.5, 0.5, 0.5}, m[3] = {0}, v[3] = {0}, g[3];
        for (int step = 1; step <= 3; step++) {
            hand_gradient(&toy, w, g);
            hand_step(rules[r], step, g, w, m, v);
        }
        const float *weight = bl_f32(bl_dictionary_find(&result.state, "param/classifier/weight"));
        const float *bias = bl_f32(bl_dictionary_find(&result.state, "param/classifier/bias"));
        assert_true(fabs(weight[0] - w[0]) < 2e-6 && fabs(weight[1] - w[1]) < 2e-6);
        assert_true(fabs(bias[0] - w[2]) < 2e-6);
        assert_true(result.effect.host_moved > 0.01); /* the init hook did something */
        bl_run_result_free(&result);
    }
}

static void schedules_have_their_values(void **state)
{
    (void)state;
    bl_recipe r = {.learning_rate = 2, .epochs = 40, .step_at = {0.6, 0.85}, .step_factor = 0.1};
    strcpy(r.schedule, "constant");
    assert_true(bl_learning_rate(&r, 399, 400) == 2);
    strcpy(r.schedule, "step"); /* ten steps an epoch: lower from epochs 25 and 35 */
    assert_true(bl_learning_rate(&r, 239, 400) == 2);
    assert_true(fabs(bl_learning_rate(&r, 240, 400) - 0.2) < 1e-15);
    assert_true(fabs(bl_learning_rate(&r, 339, 400) - 0.2) < 1e-15);
    assert_true(fabs(bl_learning_rate(&r, 340, 400) - 0.02) < 1e-15);
    strcpy(r.schedule, "cosine");
    assert_true(bl_learning_rate(&r, 0, 400) == 2);
    assert_true(fabs(bl_learning_rate(&r, 200, 400) - 1) < 1e-12);
    assert_true(bl_learning_rate(&r, 399, 400) < 1e-4);
    strcpy(r.schedule, "one_cycle");
    assert_true(fabs(bl_learning_rate(&r, 0, 400) - 0.08) < 1e-12);
    assert_true(fabs(bl_learning_rate(&r, 120, 400) - 2) < 1e-12);
    assert_true(bl_learning_rate(&r, 399, 400) < 1e-3);
}

/* --- the order of hooks, and what they may do ------------------------------------------------- */
static void note(const void *options, const char *what)
{
    char *log = ((char *const *)options)[0];
    if (!strstr(log, what))
        strcat(strcat(log, what), " ");
}

static bl_status note_init(bl_training *t, const void *o)
{
    note(o, "init");
    bl_f32(bl_training_state(t, "count"))[0] = 5;
    return BL_OK;
}

static void note_batch(bl_step *s, const void *o)
{
    note(o, "batch");
    assert_int_equal(s->target_form, BL_LABELS);
    s->targets = bl_target_distributions(s);
    s->target_form = BL_DISTRIBUTIONS;
}

static bl_tensor note_weight(bl_step *s, const void *o, int parameter, bl_tensor value)
{
    (void)s, (void)parameter;
    note(o, "weight");
    return value;
}

static bl_tensor note_site(bl_step *s, const void *o, const bl_site_info *site, bl_tensor value)
{
    (void)s;
    note(o, "site");
    note(o, site->path);
    return value;
}

static void note_loss(bl_step *s, const void *o)
{
    note(o, "loss");
    bl_set_state(s, "count", bl_add(bl_state(s, "count"), 1));
    bl_outputs again = bl_forward(s, s->inputs, s->raw);
    bl_measure(s, "twice", bl_sum(bl_abs(bl_sub(again.logits, s->logits))));
    bl_measure(s, "count", bl_state(s, "count"));
}

static void note_gradient(bl_step *s, const void *o)
{
    note(o, "gradient");
    bl_tensor there = bl_loss_at(s, s->raw);
    bl_measure(s, "loss", bl_abs(bl_sub(there, s->loss)));
}

static void note_update(bl_step *s, const void *o)
{
    note(o, "update");
    for (int i = 0; i < s->parameters; i++) {
        bl_tensor mean = bl_parameter_state(s, "mean", i, BL_START_AT_PARAMETER);
        bl_set_parameter_state(s, "mean", i, bl_mul(0.5, bl_add(mean, s->updated[i])));
    }
}

static void note_evaluate(bl_step *s, const void *o)
{
    note(o, "evaluate");
    for (int i = 0; i < s->parameters; i++)
        s->raw[i] = bl_parameter_state(s, "mean", i, BL_START_AT_PARAMETER);
}

static bl_status note_epoch(bl_training *t, const void *o)
{
    note(o, "epoch");
    assert_true(bl_f32(bl_training_state(t, "count"))[0] == 5 + 9 * (float)bl_training_epoch(t));
    assert_non_null(bl_training_parameter_state(t, "mean", 0));
    assert_null(bl_training_state(t, "nothing"));
    assert_true(isnan(bl_training_validation(t)));
    if (bl_training_epoch(t) == 4)
        bl_training_stop(t);
    return BL_OK;
}

static const bl_hooks noting = {.init = note_init,
                                .batch = note_batch,
                                .weight = note_weight,
                                .site = note_site,
                                .loss = note_loss,
                                .gradient = note_gradient,
                                .update = note_update,
                                .epoch = note_epoch,
                                .evaluate = note_evaluate,
                                .state = {{"count", "f32[]", 0}, {"bank", "f32[N,C]", 0}}};

static void hooks_are_called_in_the_visible_order(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    char log[400] = "";
    char *context[1] = {log};
    bl_arm_part part = {.name = "noting", .hooks = &noting, .options = context};
    bl_arm arm = {.text = "noting", .part = &part, .parts = 1};
    bl_experiment e = plan(&toy);
    e.arm = &arm;
    bl_run_result result;
    run(&e, &result);
    assert_string_equal(log, "batch weight site dense1/out features loss gradient update evaluate "
                             "init epoch ");
    assert_int_equal(result.epochs, 4);
    assert_true(result.effect.ended_early && !result.effect.inert);
    assert_int_equal(result.effect.measures, 3);
    assert_true(result.effect.measure[0].value == 0); /* the same pass again */
    assert_true(result.effect.measure[1].value == 5 + 35 / 2.0);
    assert_true(result.effect.measure[2].value == 0);
    assert_true(result.effect.parameters_moved > 1e-4); /* the mean is evaluated */
    assert_true(result.effect.gradient_share < 1e-6);
    assert_true(metric(&result, "accuracy") > 90);
    bl_run_result_free(&result);
}

static bl_tensor no_site(bl_step *s, const void *o, const bl_site_info *site, bl_tensor value)
{
    (void)s, (void)o, (void)site;
    return value;
}

static bl_tensor noisy_site(bl_step *s, const void *o, const bl_site_info *site, bl_tensor value)
{
    (void)o;
    if (!s->training)
        return value;
    bl_tensor noise = bl_normal(bl_step_key(s, site->path), bl_type_of(value).shape);
    return bl_add(value, bl_mul(0.1, noise));
}

static void an_arm_that_does_nothing_is_inert(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    bl_hooks hooks = {.site = no_site};
    bl_arm_part part = {.name = "hook", .hooks = &hooks};
    bl_arm arm = {.text = "hook", .part = &part, .parts = 1};
    bl_experiment e = plan(&toy);
    bl_run_result baseline, inert, noisy;
    run(&e, &baseline);
    e.arm = &arm;
    run(&e, &inert);
    hooks.site = noisy_site;
    run(&e, &noisy);
    expect_same_state(&baseline, &inert);
    assert_true(inert.effect.inert && inert.effect.sites == 0);
    assert_false(baseline.effect.inert);
    assert_false(noisy.effect.inert);
    assert_int_equal(noisy.effect.sites, 2);
    assert_true(noisy.effect.gradient_share > 0.01 && noisy.effect.gradient_share < 2);
    bl_run_result_free(&baseline);
    bl_run_result_free(&inert);
    bl_run_result_free(&noisy);
}

/* --- bit for bit ------------------------------------------------------------------------------ */
/* Interrupted after each of the first `times` steps. */
static void resume_and_compare(const toy_problem *toy, const bl_arm *arm, int times)
{
    bl_experiment e = plan(toy);
    e.arm = arm;
    e.curve_points = 4;
    strcpy(e.recipe.optimizer, "adamw");
    strcpy(e.recipe.schedule, "cosine");
    bl_run_result whole, resumed;
    run(&e, &whole);
    char path[] = "/tmp/ballast-train-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    unlink(path);
    e.checkpoint = path;
    const int stop = 1;
    bl_progress progress = {.stop = &stop};
    for (int i = 0; i < times; i++)
        assert_int_equal(bl_train(&e, &progress, &resumed), BL_INTERRUPTED);
    assert_int_equal(access(path, R_OK), 0);
    bl_experiment other = e;
    other.recipe.learning_rate *= 2;
    assert_int_equal(bl_train(&other, NULL, &resumed), BL_INVALID);
    run(&e, &resumed);
    assert_int_equal(unlink(path), 0); /* kept until the caller has the result in safety */
    expect_same_state(&whole, &resumed);
    assert_int_equal(whole.curve_count, resumed.curve_count);
    for (int i = 0; i < whole.curve_count; i++)
        assert_memory_equal(&whole.curve[i], &resumed.curve[i], sizeof whole.curve[i]);
    assert_memory_equal(&whole.effect.gradient_share, &resumed.effect.gradient_share,
                        sizeof(double));
    bl_run_result_free(&whole);
    bl_run_result_free(&resumed);
}

/* A checkpoint with one of its arrays replaced; the run's own note is kept. */
static void replace_and_resume(const bl_experiment *e, const char *name, bl_shape shape,
                               double value, const char *message)
{
    bl_dictionary d = {0};
    bl_array a;
    bl_run_result result;
    assert_int_equal(bl_safetensors_read(e->checkpoint, &d), BL_OK);
    assert_int_equal(bl_array_new(BL_F64, shape, &a), BL_OK);
    for (int64_t i = 0; i < bl_array_count(&a); i++)
        bl_array_set(&a, i, value);
    assert_int_equal(bl_dictionary_set(&d, name, a), BL_OK);
    assert_int_equal(bl_safetensors_write(e->checkpoint, &d), BL_OK);
    bl_dictionary_free(&d);
    assert_int_equal(bl_train(e, NULL, &result), BL_INVALID);
    if (!strstr(bl_error(), message))
        fail_msg("%s", bl_error());
}

static void a_damaged_checkpoint_is_refused(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    bl_experiment e = plan(&toy);
    e.curve_points = 4;
    char path[] = "/tmp/ballast-train-XXXXXX";
    close(mkstemp(path));
    const int stop = 1;
    bl_progress progress = {.stop = &stop};
    bl_run_result result;
    const struct {
        const char *name;
        bl_shape shape;
        double value;
        const char *message;
    } damage[] = {
        {"run/curve", BL_SHAPE(4, 1), 0, "of another size"},
        {"run/curve", BL_SHAPE(12), 0, "of another size"},
        {"run/curve", BL_SHAPE(1, 3), (double)NAN, "run/curve[0,0] is nan, expected an epoch"},
        {"run/curve", BL_SHAPE(1, 3), 1e300, "expected an epoch"},
        {"run/tally", BL_SHAPE(3), 0, "of another size"},
        {"run/tally", BL_SHAPE(sizeof(bl_tally) / sizeof(double)), -1, "expected a step from 0"},
        {"run/tally", BL_SHAPE(sizeof(bl_tally) / sizeof(double)), 1e300, "expected a step"},
    };
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        unlink(path);
        e.checkpoint = path;
        assert_int_equal(bl_train(&e, &progress, &result), BL_INTERRUPTED);
        replace_and_resume(&e, damage[i].name, damage[i].shape, damage[i].value,
                           damage[i].message);
    }
    unlink(path);
}

static void a_resumed_run_is_the_same_run(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    bl_hooks hooks = {.site = noisy_site, .update = note_update, .evaluate = note_evaluate};
    char log[400] = "";
    char *context[1] = {log};
    bl_arm_part part = {.name = "noisy", .hooks = &hooks, .options = context};
    bl_arm arm = {.text = "noisy", .part = &part, .parts = 1};
    resume_and_compare(&toy, &arm, 1);
    resume_and_compare(&toy, &arm, 30);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    bl_experiment e = plan(&toy);
    e.recipe.model.width = 200;
    e.recipe.batch = 100;
    bl_run_result one, again, two;
    run(&e, &one);
    run(&e, &again);
    e.threads = 2;
    run(&e, &two);
    expect_same_state(&one, &again);
    expect_same_state(&one, &two);
    bl_run_result_free(&one);
    bl_run_result_free(&again);
    bl_run_result_free(&two);
}

/* --- images: load hooks, held-out parts, statistics of other parameters ----------------------- */
enum { IMAGES = 120, SIDE = 7 };

typedef struct picture_problem {
    bl_training_data data;
    uint8_t pixels[IMAGES * SIDE * SIDE];
    int32_t labels[IMAGES];
} picture_problem;

/* Bright left halves against bright right halves. */
static void make_pictures(picture_problem *p)
{
    *p = (picture_problem){.data = {.classes = 2, .target_scale = 1}};
    p->data.mean[0] = 100, p->data.scale[0] = 0.01;
    bl_random r = bl_random_new(bl_key_from_seed(5));
    for (int i = 0; i < IMAGES * SIDE * SIDE; i++) {
        int label = i / (SIDE * SIDE) % 2, column = i % SIDE;
        bool bright = label ? column > 3 : column < 3;
        p->pixels[i] = (uint8_t)(bl_random_below(&r, 120) + (bright ? 120 : 0));
        p->labels[i / (SIDE * SIDE)] = label;
    }
    bl_part part = {.count = IMAGES,
                    .inputs = {{BL_U8, BL_SHAPE(IMAGES, SIDE, SIDE, 1)}, p->pixels},
                    .targets = {{BL_I32, BL_SHAPE(IMAGES)}, p->labels}};
    p->data.train = p->data.validation = p->data.test = part;
}

static bl_experiment picture_plan(const picture_problem *p)
{
    bl_experiment e = {.data = &p->data, .threads = 1};
    e.recipe = (bl_recipe){.model = {.name = "cnn", .width = 4, .outputs = 2},
                           .learning_rate = 0.05,
                           .momentum = 0.9,
                           .epochs = 3,
                           .batch = 20};
    strcpy(e.recipe.optimizer, "sgd");
    strcpy(e.recipe.schedule, "constant");
    strcpy(e.recipe.loss, "cross_entropy");
    bl_key key = bl_key_from_seed(4);
    e.keys = (bl_run_keys){bl_key_derive(key, 0), bl_key_derive(key, 1), bl_key_derive(key, 2)};
    return e;
}

static bl_status swap_halves(bl_training *t, const void *o, const uint8_t *in, uint8_t *out,
                             int64_t n, int64_t h, int64_t w, int64_t c, bl_key key)
{
    (void)t, (void)o, (void)key;
    assert_true(n == 20 && h == SIDE && w == SIDE && c == 1);
    for (int64_t i = 0; i < n * h * w; i++)
        out[i] = in[i / w * w + (w - 1 - i % w)];
    return BL_OK;
}

static bl_status look_at_held_out(bl_training *t, const void *o)
{
    (void)o;
    assert_true(bl_training_validation(t) > 0);
    bl_array features, targets;
    assert_int_equal(bl_training_validation_features(t, &features, &targets), BL_OK);
    assert_true(bl_shape_equal(features.type.shape, BL_SHAPE(IMAGES, 64)));
    assert_int_equal(bl_i32(&targets)[1], 1);
    bl_array_free(&features);
    bl_array_free(&targets);
    return BL_OK;
}

/* Mirrored in training only: the network learns the mirror, so every test example is wrong. */
static void load_hooks_see_pixels_and_epoch_hooks_the_held_out_part(void **state)
{
    (void)state;
    picture_problem p;
    make_pictures(&p);
    bl_experiment e = picture_plan(&p);
    bl_run_result result;
    run(&e, &result);
    assert_true(metric(&result, "accuracy") > 95);
    bl_run_result_free(&result);
    bl_hooks hooks = {.load = swap_halves, .epoch = look_at_held_out};
    bl_arm_part part = {.name = "mirror", .hooks = &hooks, .traits = BL_VALIDATION};
    bl_arm arm = {.text = "mirror", .part = &part, .parts = 1};
    e.arm = &arm;
    run(&e, &result);
    assert_true(metric(&result, "accuracy") < 5);
    assert_true(result.effect.examples_changed == 1);
    assert_false(result.effect.inert);
    bl_run_result_free(&result);
    p.data.validation.count = 0;
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    assert_non_null(strstr(bl_error(), "held-out"));
}

static void scale_first_filter(bl_step *s, const void *factor)
{
    s->raw[0] = bl_mul(s->raw[0], *(const double *)factor);
}

static void averaged_parameters_get_their_own_statistics(void **state)
{
    (void)state;
    picture_problem p;
    make_pictures(&p);
    bl_experiment e = picture_plan(&p);
    bl_hooks hooks = {.evaluate = scale_first_filter, .renew_statistics = true};
    double factor[2] = {1, 2};
    bl_run_result result[2];
    for (int i = 0; i < 2; i++) {
        bl_arm_part part = {.name = "scale", .hooks = &hooks, .options = &factor[i]};
        bl_arm arm = {.text = "scale", .part = &part, .parts = 1};
        e.arm = &arm;
        run(&e, &result[i]);
        assert_true(metric(&result[i], "accuracy") > 95);
    }
    assert_true(result[0].effect.inert && !result[1].effect.inert);
    for (int c = 0; c < 4; c++) {
        const char *names[2] = {"model/norm1/mean", "model/norm1/variance"};
        for (int k = 0; k < 2; k++) {
            double a = bl_f32(bl_dictionary_find(&result[0].state, names[k]))[c];
            double b = bl_f32(bl_dictionary_find(&result[1].state, names[k]))[c];
            assert_true(fabs(b - (k ? 4 : 2) * a) < 1e-4 * fabs(b) + 1e-6);
        }
    }
    bl_run_result_free(&result[0]);
    bl_run_result_free(&result[1]);
}

/* --- what goes wrong -------------------------------------------------------------------------- */
static void divergence_is_a_result(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, false);
    bl_experiment e = plan(&toy);
    e.recipe.learning_rate = 1e6;
    bl_run_result result;
    run(&e, &result);
    assert_true(result.diverged && result.steps < 90);
    assert_true(isnan(metric(&result, "mae")));
    bl_run_result_free(&result);
}

static void bad_plans_are_refused_with_a_sentence(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    bl_run_result result;
    bl_experiment e = plan(&toy);
    strcpy(e.recipe.optimizer, "sdg");
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    assert_non_null(strstr(bl_error(), "sdg"));
    e = plan(&toy);
    e.recipe.model.name = "transformer";
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    assert_non_null(strstr(bl_error(), "resnet20"));
    e = plan(&toy);
    e.recipe.model.name = "cnn";
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    assert_non_null(strstr(bl_error(), "images"));
    e = plan(&toy);
    strcpy(e.recipe.loss, "squared");
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    e = plan(&toy);
    toy.labels[1][4] = 3;
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    assert_non_null(strstr(bl_error(), "label 3 of example 4 of the test part"));
    toy.labels[1][4] = 0;
    toy.inputs[0][5] = NAN;
    assert_int_equal(bl_train(&e, NULL, &result), BL_INVALID);
    assert_non_null(strstr(bl_error(), "not finite"));
}

/* Every third allocation of a short run fails in turn: a status, no crash, no leak. */
static void short_memory_is_an_error(void **state)
{
    (void)state;
    toy_problem toy;
    make_toy(&toy, true);
    bl_hooks hooks = {.site = noisy_site, .update = note_update, .evaluate = note_evaluate};
    char log[400] = "";
    char *context[1] = {log};
    bl_arm_part part = {.name = "noisy", .hooks = &hooks, .options = context};
    bl_arm arm = {.text = "noisy", .part = &part, .parts = 1};
    bl_experiment e = plan(&toy);
    e.arm = &arm;
    e.curve_points = 1, e.recipe.epochs = 1;
    bl_status status = BL_NO_MEMORY;
    int64_t n = 1;
    for (; status != BL_OK && n < 100000; n += 3) {
        bl_run_result result;
        bl_fail_allocation(n);
        status = bl_train(&e, NULL, &result);
        bl_fail_allocation(0);
        if (status != BL_OK && status != BL_NO_MEMORY && !strstr(bl_error(), "memory is short"))
            fail_msg("allocation %lld: status %d, %s", (long long)n, (int)status, bl_error());
        if (status == BL_OK)
            bl_run_result_free(&result);
    }
    assert_int_equal(status, BL_OK);
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clouds_are_separated),
        cmocka_unit_test(line_is_fitted_in_original_units),
        cmocka_unit_test(updates_are_those_of_the_textbook),
        cmocka_unit_test(schedules_have_their_values),
        cmocka_unit_test(hooks_are_called_in_the_visible_order),
        cmocka_unit_test(an_arm_that_does_nothing_is_inert),
        cmocka_unit_test(a_resumed_run_is_the_same_run),
        cmocka_unit_test(a_damaged_checkpoint_is_refused),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(load_hooks_see_pixels_and_epoch_hooks_the_held_out_part),
        cmocka_unit_test(averaged_parameters_get_their_own_statistics),
        cmocka_unit_test(divergence_is_a_result),
        cmocka_unit_test(short_memory_is_an_error),
        cmocka_unit_test(bad_plans_are_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
