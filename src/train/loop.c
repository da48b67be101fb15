/* The run: programs are compiled, the state is drawn or resumed, steps follow one another until the
 * plan is done, an epoch hook ends it, the loss stops being finite, or the user interrupts. Nothing
 * is allocated in a step. A result depends on the experiment alone, never on timing or threads. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/training.h"

enum { CURVE_EXAMPLES = 1000 };

/* --- before the first step -------------------------------------------------------------------- */
static bool same_row(bl_type a, bl_type b)
{
    a.shape.dim[0] = b.shape.dim[0];
    return bl_type_equal(a, b);
}

/* Looked at once here, so that no step has to. */
static bl_status check_part(const bl_training_data *data, const char *name, const bl_part *part)
{
    if (part->count == 0)
        return BL_OK;
    if (!same_row(part->inputs.type, data->train.inputs.type) ||
        !same_row(part->targets.type, data->train.targets.type))
        return bl_fail(BL_INVALID, "the %s part has other types than the training part", name);
    for (int64_t i = 0; data->classes > 0 && i < part->count; i++)
        if (bl_i32(&part->targets)[i] < 0 || bl_i32(&part->targets)[i] >= data->classes)
            return bl_fail(BL_INVALID, "label %d of example %lld of the %s part is not in [0,%lld)",
                           bl_i32(&part->targets)[i], (long long)i, name, (long long)data->classes);
    bl_array arrays[2] = {part->inputs, part->targets};
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0, n = bl_array_count(&arrays[k]); arrays[k].type.dtype == BL_F32 && i < n;
             i++)
            if (!isfinite(bl_f32(&arrays[k])[i]))
                return bl_fail(BL_INVALID, "%s number %lld of the %s part is not finite",
                               k ? "target" : "input", (long long)i, name);
    return BL_OK;
}

static bl_status check_data(const bl_experiment *e)
{
    const bl_training_data *data = e->data;
    const bl_type inputs = data->train.inputs.type;
    if (data->train.count < 1)
        return bl_fail(BL_INVALID, "there is no training example");
    if (data->test.count < 1)
        return bl_fail(BL_INVALID, "there is no test example");
    bool images = inputs.dtype == BL_U8 && inputs.shape.rank == 4 && inputs.shape.dim[3] <= 4;
    if (!images && inputs.dtype != BL_F32)
        return bl_fail(BL_INVALID, "training inputs must be f32, or u8 [N,H,W,C] with C up to 4");
    bl_dtype targets = data->classes > 0 ? BL_I32 : BL_F32;
    if (data->train.targets.type.dtype != targets)
        return bl_fail(BL_INVALID, "training targets must be %s, not %s", bl_dtype_name(targets),
                       bl_dtype_name(data->train.targets.type.dtype));
    if (data->classes > 0 && e->recipe.model.outputs != data->classes)
        return bl_fail(BL_INVALID, "the model has %lld outputs for %lld classes",
                       (long long)e->recipe.model.outputs, (long long)data->classes);
    BL_TRY(check_part(data, "training", &data->train));
    BL_TRY(check_part(data, "held-out", &data->validation));
    return check_part(data, "test", &data->test);
}

static bl_status check_arm(const bl_experiment *e)
{
    for (int i = 0; e->arm && i < e->arm->parts; i++) {
        const bl_arm_part *part = &e->arm->part[i];
        if (part->hooks->load && e->data->train.inputs.type.dtype != BL_U8)
            return bl_fail(BL_INVALID, "%s changes images as stored, but the inputs are numbers",
                           part->name);
        if ((part->traits & BL_VALIDATION) && e->data->validation.count == 0)
            return bl_fail(BL_INVALID, "%s needs a held-out part, but there is none", part->name);
        if ((part->traits & BL_CLASSIFICATION) && e->data->classes == 0)
            return bl_fail(BL_INVALID, "%s is for classification, but targets are numbers",
                           part->name);
        if ((part->traits & BL_REGRESSION) && e->data->classes > 0)
            return bl_fail(BL_INVALID, "%s is for regression, but targets are classes", part->name);
    }
    return BL_OK;
}

static bl_status check(const bl_experiment *e)
{
    const bl_recipe *r = &e->recipe;
    BL_TRY(check_data(e));
    BL_TRY(check_arm(e));
    BL_TRY(bl_optimizer_check(r));
    BL_TRY(bl_schedule_check(r));
    if (r->epochs < 1 || r->batch < 1)
        return bl_fail(BL_INVALID, "epochs %lld and batch %lld must be at least 1",
                       (long long)r->epochs, (long long)r->batch);
    bool classes = strcmp(r->loss, "cross_entropy") == 0;
    if (!classes && strcmp(r->loss, "squared") != 0 && strcmp(r->loss, "absolute") != 0)
        return bl_fail(BL_INVALID,
                       "unknown loss \"%s\": there are cross_entropy, squared, absolute", r->loss);
    if (classes != (e->data->classes > 0))
        return bl_fail(BL_INVALID, "loss %s does not fit the targets: %s", r->loss,
                       e->data->classes > 0 ? "they are classes" : "they are numbers");
    return BL_OK;
}

/* Graphs are built before the state is drawn, because hooks declare state by using it. */
static bl_status prepare(bl_training *t)
{
    BL_TRY(bl_step_compile(t));
    BL_TRY(bl_audit_compile(t));
    BL_TRY(bl_evaluate_compile(t, true, &t->evaluate));
    BL_TRY(bl_batch_new(t, t->batch, &t->train_batch));
    t->order = bl_alloc((size_t)t->data->train.count * sizeof *t->order);
    if (!t->order)
        return bl_no_memory((size_t)t->data->train.count * sizeof *t->order);
    BL_TRY(bl_training_start(t));
    if (t->experiment->checkpoint) {
        bl_status status = bl_checkpoint_load(t, t->experiment->checkpoint);
        if (status != BL_OK && status != BL_NOT_FOUND)
            return status;
    }
    bl_call_bind(t, &t->step, &t->train_batch, false);
    t->step.out[0] = t->loss;
    for (int i = 0; i < t->measures; i++)
        t->step.out[1 + i] = t->measure[i];
    if (t->audit.program)
        bl_call_bind(t, &t->audit, &t->train_batch, false);
    return BL_OK;
}

/* --- one step --------------------------------------------------------------------------------- */
static void draw_order(bl_training *t, int64_t epoch)
{
    if (t->ordered_epoch == epoch)
        return;
    bl_random r = bl_random_new(bl_key_derive(t->experiment->keys.order, (uint32_t)epoch));
    bl_random_permutation(&r, t->order, t->data->train.count);
    t->ordered_epoch = epoch;
}

/* Each load hook reads one buffer and writes the other. */
static bl_status call_load_hooks(bl_training *t, int64_t step)
{
    bl_batch *batch = &t->train_batch;
    const bl_shape shape = batch->argument[BL_ARG_INPUTS].type.shape;
    for (int i = 0; i < t->arm->parts; i++) {
        const bl_arm_part *part = &t->arm->part[i];
        if (!part->hooks->load)
            continue;
        bl_key key = bl_key_derive(t->experiment->keys.augmentation, (uint32_t)step);
        t->part = i;
        BL_TRY(part->hooks->load(t, part->options, batch->raw, batch->loaded, shape.dim[0],
                                 shape.dim[1], shape.dim[2], shape.dim[3],
                                 bl_key_derive_name(key, part->name)));
        uint8_t *swapped = batch->raw;
        batch->raw = batch->loaded, batch->loaded = swapped;
    }
    return BL_OK;
}

static bl_status load_batch(bl_training *t, int64_t step)
{
    draw_order(t, step / t->batches + 1);
    const int32_t *rows = t->order + step % t->batches * t->batch;
    bl_batch_gather(&t->train_batch, &t->data->train, rows, t->batch);
    if (t->train_batch.raw) {
        BL_TRY(call_load_hooks(t, step));
        bl_batch_normalise(t, &t->train_batch);
    }
    bl_batch_set(t, &t->train_batch, step);
    return BL_OK;
}

static bl_status do_step(bl_training *t, bool *finite)
{
    int64_t step = (int64_t)t->tally.step;
    BL_TRY(load_batch(t, step));
    if (bl_audit_due(t, step))
        BL_TRY(bl_audit_run(t));
    BL_TRY(bl_run(t->step.program, t->step.in, t->step.out));
    double loss = bl_f32(&t->loss)[0];
    *finite = isfinite(loss);
    t->tally.step += 1;
    t->tally.epoch_loss += loss;
    t->tally.epoch_steps += 1;
    t->tally.measure_steps += 1;
    for (int i = 0; i < t->measures; i++)
        t->tally.measure[i] += bl_f32(&t->measure[i])[0];
    return BL_OK;
}

/* --- after an epoch --------------------------------------------------------------------------- */
/* relu hides a NaN from the loss, so the parameters are looked at too. */
static bool parameters_finite(const bl_training *t)
{
    for (int i = 0; i < t->parameters; i++) {
        const float *w = bl_f32(&t->slot[i].value);
        double sum = 0;
        for (int64_t k = 0, n = bl_type_count(t->slot[i].type); k < n; k++)
            sum += w[k];
        if (!isfinite(sum))
            return false;
    }
    return true;
}

static double primary_metric(const bl_training *t, const bl_array *logits, const bl_array *targets)
{
    bl_metric metric[BL_METRICS];
    if (t->data->classes > 0)
        bl_metrics_classification(logits, bl_i32(targets), metric);
    else
        bl_metrics_regression(logits, bl_f32(targets), t->data->target_scale, metric);
    return metric[0].value;
}

static void pick_targets(const bl_array *from, const int32_t *rows, int64_t count, bl_array *out)
{
    size_t bytes = bl_type_bytes(from->type) / (size_t)from->type.shape.dim[0];
    for (int64_t i = 0; i < count; i++)
        memcpy((char *)out->data + (size_t)i * bytes,
               (const char *)from->data + (size_t)rows[i] * bytes, bytes);
}

/* Every k-th test example, at most CURVE_EXAMPLES. */
static bl_status score_some(bl_training *t, double *metric)
{
    const bl_part *test = &t->data->test;
    int64_t count = test->count < CURVE_EXAMPLES ? test->count : CURVE_EXAMPLES;
    int32_t rows[CURVE_EXAMPLES];
    for (int64_t i = 0; i < count; i++)
        rows[i] = (int32_t)(i * test->count / count);
    bl_array logits = {0}, targets = {0};
    bl_shape shape = test->targets.type.shape;
    shape.dim[0] = count;
    BL_TRY(bl_renew_statistics(t));
    BL_TRY(bl_evaluate_rows(t, &t->evaluate, test, rows, count, &logits, NULL));
    bl_status status = bl_array_new(test->targets.type.dtype, shape, &targets);
    if (status == BL_OK) {
        pick_targets(&test->targets, rows, count, &targets);
        *metric = primary_metric(t, &logits, &targets);
    }
    bl_array_free(&logits);
    bl_array_free(&targets);
    return status;
}

static bl_status extend_curve(bl_training *t)
{
    int64_t points = t->experiment->curve_points, epochs = t->experiment->recipe.epochs;
    if (points <= 0 || t->epoch * points / epochs == (t->epoch - 1) * points / epochs)
        return BL_OK;
    bl_curve_point point = {.epoch = t->epoch, .train_loss = t->tally.train_loss};
    BL_TRY(score_some(t, &point.metric));
    if (!BL_GROW(t->curve, t->curve_count, t->curve_capacity))
        return bl_no_memory(sizeof point);
    t->curve[t->curve_count++] = point;
    return BL_OK;
}

static bl_status end_epoch(bl_training *t, bool *finite)
{
    t->epoch++;
    t->tally.train_loss = t->tally.epoch_loss / t->tally.epoch_steps;
    t->tally.epoch_loss = t->tally.epoch_steps = 0;
    if (!(*finite = parameters_finite(t)))
        return BL_OK;
    if (t->data->validation.count > 0)
        BL_TRY(bl_validate(t, &t->tally.validation));
    BL_TRY(bl_run_host_hooks(t, false));
    BL_TRY(extend_curve(t));
    int64_t every = t->experiment->checkpoint_every;
    if (t->experiment->checkpoint && every > 0 && t->epoch % every == 0)
        BL_TRY(bl_checkpoint_save(t, t->experiment->checkpoint));
    return BL_OK;
}

/* --- the loop --------------------------------------------------------------------------------- */
typedef struct bl_clock {
    double started, reported, in_steps;
    int64_t steps; /* in this session */
} bl_clock;

static void report(const bl_training *t, const bl_progress *progress, bl_clock *clock, bool epoch)
{
    if (!progress || !progress->report)
        return;
    double now = bl_seconds_now();
    if (!epoch && now - clock->reported < 0.2)
        return;
    clock->reported = now;
    double loss =
        t->tally.epoch_steps > 0 ? t->tally.epoch_loss / t->tally.epoch_steps : t->tally.train_loss;
    progress->report(progress->context, (int64_t)t->tally.step, t->steps,
                     (int64_t)t->tally.step / t->batches, loss);
}

static bl_status interrupt(const bl_training *t)
{
    const char *path = t->experiment->checkpoint;
    if (path)
        BL_TRY(bl_checkpoint_save(t, path));
    return bl_fail(BL_INTERRUPTED, "interrupted after step %lld of %lld%s%s",
                   (long long)t->tally.step, (long long)t->steps, path ? "; saved in " : "",
                   path ? path : "");
}

static bl_status run_steps(bl_training *t, const bl_progress *progress, bl_clock *clock,
                           bool *finite)
{
    while ((int64_t)t->tally.step < t->steps && t->tally.stop == 0 && *finite) {
        double before = bl_seconds_now();
        BL_TRY(do_step(t, finite));
        clock->in_steps += bl_seconds_now() - before;
        clock->steps++;
        bool epoch = *finite && (int64_t)t->tally.step % t->batches == 0;
        if (epoch)
            BL_TRY(end_epoch(t, finite));
        report(t, progress, clock, epoch);
        if (*finite && progress && progress->stop && *progress->stop &&
            (int64_t)t->tally.step < t->steps)
            return interrupt(t);
    }
    return BL_OK;
}

/* --- the result ------------------------------------------------------------------------------- */
/* Share of the wrongly labelled training examples that are predicted as their wrong label. */
static bl_status score_memorised(bl_training *t, bl_run_result *result)
{
    const bl_part *train = &t->data->train;
    const int32_t *truth = t->data->true_labels, *given = bl_i32(&train->targets);
    int64_t wrong = 0, repeated = 0;
    for (int64_t i = 0; truth && i < train->count; i++)
        if (truth[i] != given[i])
            t->order[wrong++] = (int32_t)i;
    t->ordered_epoch = 0;
    if (wrong == 0)
        return BL_OK;
    bl_array logits = {0};
    BL_TRY(bl_evaluate_rows(t, &t->evaluate, train, t->order, wrong, &logits, NULL));
    int64_t classes = t->data->classes;
    for (int64_t i = 0; i < wrong; i++) {
        const float *row = bl_f32(&logits) + i * classes;
        int64_t best = 0;
        for (int64_t c = 1; c < classes; c++)
            best = row[c] > row[best] ? c : best;
        repeated += best == given[t->order[i]];
    }
    bl_array_free(&logits);
    bl_metric *metric = &result->metric[result->metrics++];
    snprintf(metric->name, sizeof metric->name, "memorised");
    metric->value = 100 * (double)repeated / (double)wrong;
    return BL_OK;
}

static bl_status score(bl_training *t, bl_run_result *result)
{
    const bl_part *test = &t->data->test;
    bl_array logits = {0};
    BL_TRY(bl_renew_statistics(t));
    BL_TRY(bl_evaluate_rows(t, &t->evaluate, test, NULL, test->count, &logits, NULL));
    result->metrics =
        t->data->classes > 0
            ? bl_metrics_classification(&logits, bl_i32(&test->targets), result->metric)
            : bl_metrics_regression(&logits, bl_f32(&test->targets), t->data->target_scale,
                                    result->metric);
    bl_status status = t->experiment->details ? bl_find_groups(t, &logits, result) : BL_OK;
    bl_array_free(&logits);
    if (status == BL_OK && t->experiment->details)
        status = bl_find_suspects(t, result);
    return status == BL_OK ? score_memorised(t, result) : status;
}

/* A run that diverged keeps its metrics, all NaN, so that a study can rank it last. */
static bl_status finish(bl_training *t, bool finite, bl_run_result *result)
{
    double moved = 0;
    BL_TRY(score(t, result));
    for (int i = 0; !finite && i < result->metrics; i++)
        result->metric[i].value = NAN;
    for (int i = 0; !finite && i < result->groups; i++)
        result->group[i].value = NAN;
    result->suspects = finite ? result->suspects : 0;
    BL_TRY(bl_export(t, &result->state, &moved));
    bool planned = (int64_t)t->tally.step == t->steps || !finite;
    bl_audit_report(t, moved, planned, &result->effect);
    result->effect.inert = result->effect.inert && finite;
    result->curve = t->curve;
    result->curve_count = (int)t->curve_count;
    t->curve = NULL;
    result->steps = (int64_t)t->tally.step;
    result->epochs = t->epoch;
    result->diverged = !finite;
    result->work = bl_program_work(t->step.program);
    return BL_OK;
}

static bl_status train(bl_training *t, const bl_progress *progress, bl_run_result *result)
{
    bl_clock clock = {.started = bl_seconds_now()};
    bool finite = true;
    BL_TRY(prepare(t));
    BL_TRY(run_steps(t, progress, &clock, &finite));
    BL_TRY(finish(t, finite, result));
    result->seconds = bl_seconds_now() - clock.started;
    result->seconds_per_step = clock.steps ? clock.in_steps / (double)clock.steps : 0;
    return BL_OK;
}

bl_status bl_train(const bl_experiment *experiment, const bl_progress *progress,
                   bl_run_result *result)
{
    *result = (bl_run_result){0};
    BL_TRY(check(experiment));
    bl_training *t = NULL;
    bl_status status = bl_training_new(experiment, &t);
    if (status == BL_OK)
        status = train(t, progress, result);
    bl_training_free(t);
    if (status != BL_OK)
        bl_run_result_free(result);
    return status;
}

void bl_run_result_free(bl_run_result *result)
{
    bl_release(result->curve);
    bl_release(result->group);
    bl_release(result->suspect);
    bl_dictionary_free(&result->state);
    *result = (bl_run_result){0};
}
