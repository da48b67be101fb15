/* Forward passes outside training: scores, the recomputation of batch-norm statistics for averaged
 * parameters, the export of effective parameters, and prediction from a trained state. */
#define BL_KEEP_PLACE
#include <math.h>
#include <string.h>

#include "train/training.h"

enum { EVALUATION_BATCH = 256 };

static void call_evaluate_hooks(bl_builder *b)
{
    BL_EACH_PART(b, i)
    {
        const bl_arm_part *part = &b->t->arm->part[i];
        b->part = i;
        if (part->hooks->evaluate)
            part->hooks->evaluate(&b->step, part->options);
        b->part = -1;
    }
}

static int64_t evaluation_size(const bl_training *t)
{
    int64_t most = t->data->test.count > t->data->validation.count ? t->data->test.count
                                                                   : t->data->validation.count;
    return most < 1 ? 1 : most < EVALUATION_BATCH ? most : EVALUATION_BATCH;
}

static bl_status output_array(bl_tensor tensor, bl_array *out)
{
    bl_type type = bl_type_of(tensor);
    return bl_array_new(type.dtype, type.shape, out);
}

bl_status bl_evaluate_compile(bl_training *t, bool hooks, bl_call *call)
{
    int64_t size = t->evaluation_batch.size ? t->evaluation_batch.size : evaluation_size(t);
    if (!t->evaluation_batch.size)
        BL_TRY(bl_batch_new(t, size, &t->evaluation_batch));
    bl_builder b;
    bl_status status = bl_builder_open(t, false, size, &b);
    if (status == BL_OK) {
        if (hooks)
            call_evaluate_hooks(&b);
        bl_outputs outputs = bl_builder_forward(&b);
        bl_tensor both[2] = {outputs.logits, outputs.features};
        int slots[2] = {BL_NO_SLOT, BL_NO_SLOT};
        status = bl_graph_status(b.step.graph);
        if (status == BL_OK)
            status = bl_call_compile(&b, both, slots, 2, call);
        for (int i = 0; i < 2 && status == BL_OK; i++)
            status = output_array(both[i], &call->out[i]);
        if (status == BL_OK)
            call->owned = 2;
    }
    bl_builder_close(&b);
    return status;
}

static bl_status rows_array(const bl_array *batch, int64_t count, bl_array *out)
{
    bl_shape shape = batch->type.shape;
    shape.dim[0] = count;
    return bl_array_new(BL_F32, shape, out);
}

static void keep_rows(const bl_array *batch, int64_t from, int64_t n, bl_array *out)
{
    size_t bytes = bl_type_bytes(batch->type) / (size_t)batch->type.shape.dim[0];
    memcpy((char *)out->data + (size_t)from * bytes, batch->data, (size_t)n * bytes);
}

static void load_rows(bl_training *t, bl_batch *batch, const bl_part *part, const int32_t *rows,
                      int64_t n)
{
    bl_batch_gather(batch, part, rows, n);
    if (batch->raw)
        bl_batch_normalise(t, batch);
}

static bl_status run_batches(bl_training *t, bl_call *call, const bl_part *part,
                             const int32_t *rows, int64_t count, bl_array *logits,
                             bl_array *features)
{
    bl_batch *batch = &t->evaluation_batch;
    int32_t in_order[EVALUATION_BATCH];
    for (int64_t from = 0; from < count; from += batch->size) {
        int64_t n = count - from < batch->size ? count - from : batch->size;
        for (int64_t i = 0; i < n; i++)
            in_order[i] = rows ? rows[from + i] : (int32_t)(from + i);
        load_rows(t, batch, part, in_order, n);
        BL_TRY(bl_run(call->program, call->in, call->out));
        keep_rows(&call->out[0], from, n, logits);
        if (features)
            keep_rows(&call->out[1], from, n, features);
    }
    return BL_OK;
}

bl_status bl_evaluate_rows(bl_training *t, bl_call *call, const bl_part *part, const int32_t *rows,
                           int64_t count, bl_array *logits, bl_array *features)
{
    BL_TRY(rows_array(&call->out[0], count, logits));
    bl_status status = features ? rows_array(&call->out[1], count, features) : BL_OK;
    if (status == BL_OK) {
        bl_batch_set(t, &t->evaluation_batch, (int64_t)t->tally.step);
        bl_call_bind(t, call, &t->evaluation_batch, call == &t->evaluate);
        status = run_batches(t, call, part, rows, count, logits, features);
    }
    if (status != BL_OK) {
        bl_array_free(logits);
        if (features)
            bl_array_free(features);
    }
    return status;
}

/* --- held-out part: the parameters as they are ---------------------------------------------------
 */
static bl_status need_plain(bl_training *t)
{
    return t->plain.program ? BL_OK : bl_evaluate_compile(t, false, &t->plain);
}

bl_status bl_validate(bl_training *t, double *score)
{
    const bl_part *part = &t->data->validation;
    bl_array logits = {0};
    BL_TRY(need_plain(t));
    BL_TRY(bl_evaluate_rows(t, &t->plain, part, NULL, part->count, &logits, NULL));
    *score = bl_mean_loss(&logits, &part->targets, t->experiment->recipe.loss);
    bl_array_free(&logits);
    return BL_OK;
}

bl_status bl_training_validation_features(bl_training *t, bl_array *features, bl_array *targets)
{
    const bl_part *part = &t->data->validation;
    if (part->count == 0)
        return bl_fail(BL_NOT_FOUND, "nothing is held out in this run: the arm part must declare "
                                     "that it needs a held-out part");
    bl_array logits = {0};
    BL_TRY(need_plain(t));
    BL_TRY(bl_evaluate_rows(t, &t->plain, part, NULL, part->count, &logits, features));
    bl_array_free(&logits);
    bl_status status = bl_array_copy(&part->targets, targets);
    if (status != BL_OK)
        bl_array_free(features);
    return status;
}

/* --- statistics of averaged parameters -------------------------------------------------------- */
static bool wants_renewal(const bl_training *t)
{
    for (int i = 0; i < t->arm->parts; i++)
        if (t->arm->part[i].hooks->renew_statistics)
            return true;
    return false;
}

static bool is_statistic(const bl_slot *slot)
{
    return strncmp(slot->name, "model/", 6) == 0;
}

static int build_renewal(bl_builder *b, bl_tensor *outputs, int *out_slot)
{
    call_evaluate_hooks(b);
    b->model.training = true;
    b->frozen = 0;
    bl_builder_forward(b);
    int count = 0;
    for (int i = 0; i < b->slots && i < b->t->slots; i++)
        if (b->next[i].graph && is_statistic(&b->t->slot[i]))
            outputs[count] = b->next[i], out_slot[count++] = i;
    return count;
}

static bl_status compile_renewal(bl_training *t)
{
    bl_builder b;
    bl_status status = bl_builder_open(t, false, t->batch, &b);
    bl_tensor *outputs = bl_alloc((size_t)(t->slots + 1) * sizeof *outputs);
    int *out_slot = bl_alloc((size_t)(t->slots + 1) * sizeof *out_slot);
    if (status == BL_OK && (!outputs || !out_slot))
        status = bl_no_memory((size_t)t->slots * sizeof *outputs);
    if (status == BL_OK) {
        int count = build_renewal(&b, outputs, out_slot);
        status = bl_graph_status(b.step.graph);
        if (status == BL_OK && count > 0)
            status = bl_call_compile(&b, outputs, out_slot, count, &t->renew);
    }
    bl_release(outputs);
    bl_release(out_slot);
    bl_builder_close(&b);
    return status;
}

static bl_status copy_statistics(bl_training *t)
{
    if (!t->renewed) {
        t->renewed = bl_alloc((size_t)t->slots * sizeof *t->renewed);
        if (!t->renewed)
            return bl_no_memory((size_t)t->slots * sizeof *t->renewed);
        t->renewed_slots = t->slots;
    }
    for (int i = 0; i < t->renewed_slots; i++)
        if (is_statistic(&t->slot[i]) && !t->renewed[i].data)
            BL_TRY(bl_array_copy(&t->slot[i].value, &t->renewed[i]));
    return BL_OK;
}

/* The mean over the training set in its own order: batch k counts with 1 / (k + 1). */
bl_status bl_renew_statistics(bl_training *t)
{
    if (!wants_renewal(t))
        return BL_OK;
    if (!t->renew.program) {
        BL_TRY(compile_renewal(t));
        if (!t->renew.program) /* a model without statistics */
            return BL_OK;
    }
    BL_TRY(copy_statistics(t));
    bl_batch *batch = &t->train_batch;
    float *rate = bl_f32(&batch->argument[BL_ARG_STATISTIC_RATE]), usual = *rate;
    bl_call_bind(t, &t->renew, batch, true);
    bl_status status = BL_OK;
    for (int64_t k = 0; k < t->batches && status == BL_OK; k++) {
        for (int64_t i = 0; i < t->batch; i++)
            t->order[i] = (int32_t)(k * t->batch + i);
        t->ordered_epoch = 0; /* the order is drawn again when training goes on */
        load_rows(t, batch, &t->data->train, t->order, t->batch);
        *rate = (float)(1.0 / (double)(k + 1));
        status = bl_run(t->renew.program, t->renew.in, t->renew.out);
    }
    *rate = usual;
    return status;
}

/* --- export ----------------------------------------------------------------------------------- */
/* Effective parameters as they are trained, then as they are evaluated. */
static void build_export(bl_builder *b, bl_tensor *outputs)
{
    bl_step *s = &b->step;
    s->training = true;
    for (int i = 0; i < s->parameters; i++)
        outputs[i] = bl_builder_weight(b, i, s->raw[i]);
    s->training = false;
    call_evaluate_hooks(b);
    for (int i = 0; i < s->parameters; i++)
        outputs[s->parameters + i] = bl_builder_weight(b, i, s->raw[i]);
}

static bl_status run_export(bl_training *t, bl_call *call)
{
    bl_builder b;
    size_t count = 2 * (size_t)t->parameters;
    bl_status status = bl_builder_open(t, false, t->evaluation_batch.size, &b);
    bl_tensor *outputs = bl_alloc(count * sizeof *outputs);
    int *out_slot = bl_alloc(count * sizeof *out_slot);
    if (status == BL_OK && (!outputs || !out_slot))
        status = bl_no_memory(count * sizeof *outputs);
    if (status == BL_OK) {
        build_export(&b, outputs);
        for (size_t i = 0; i < count; i++)
            out_slot[i] = BL_NO_SLOT;
        status = bl_graph_status(b.step.graph);
    }
    if (status == BL_OK)
        status = bl_call_compile(&b, outputs, out_slot, (int)count, call);
    for (size_t i = 0; i < count && status == BL_OK; i++, call->owned = (int)i)
        status = output_array(outputs[i], &call->out[i]);
    bl_release(outputs);
    bl_release(out_slot);
    bl_builder_close(&b);
    if (status != BL_OK)
        return status;
    bl_batch_set(t, &t->evaluation_batch, (int64_t)t->tally.step);
    bl_call_bind(t, call, &t->evaluation_batch, false);
    return bl_run(call->program, call->in, call->out);
}

static bl_status keep_copy(bl_dictionary *out, const char *name, const bl_array *from)
{
    bl_array copy = {0};
    BL_TRY(bl_array_copy(from, &copy));
    return bl_dictionary_set(out, name, copy);
}

static bl_status keep_all(bl_training *t, const bl_array *evaluated, bl_dictionary *out)
{
    for (int i = 0; i < t->slots; i++) {
        bool renewed = i < t->renewed_slots && t->renewed[i].data;
        if (i < t->parameters)
            BL_TRY(keep_copy(out, t->slot[i].name, evaluated ? &evaluated[i] : &t->slot[i].value));
        else if (is_statistic(&t->slot[i]))
            BL_TRY(keep_copy(out, t->slot[i].name, renewed ? &t->renewed[i] : &t->slot[i].value));
    }
    return BL_OK;
}

bl_status bl_export(bl_training *t, bl_dictionary *out, double *moved)
{
    bool hooks = false;
    for (int i = 0; i < t->arm->parts; i++)
        hooks = hooks || t->arm->part[i].hooks->weight || t->arm->part[i].hooks->evaluate;
    *moved = 0;
    if (!hooks)
        return keep_all(t, NULL, out);
    bl_call call = {0};
    bl_status status = run_export(t, &call);
    double distance = 0, norm = 0;
    for (int i = 0; i < t->parameters && status == BL_OK; i++)
        distance += bl_squared_distance(bl_f32(&call.out[t->parameters + i]), bl_f32(&call.out[i]),
                                        bl_type_count(call.out[i].type), &norm);
    if (status == BL_OK) {
        *moved = sqrt(norm > 0 ? distance / norm : distance);
        status = keep_all(t, call.out + t->parameters, out);
    }
    bl_call_free(&call);
    return status;
}

/* --- prediction ------------------------------------------------------------------------------- */
/* Whether the arrays are there that the slots declared so far need. */
static bl_status check_state(const bl_training *t, const bl_dictionary *state)
{
    for (int i = 0; i < t->slots; i++) {
        const bl_array *from = bl_dictionary_find(state, t->slot[i].name);
        char want[BL_TYPE_TEXT], got[BL_TYPE_TEXT];
        if (!from)
            return bl_fail(BL_INVALID, "the model has no array %s, which %s needs", t->slot[i].name,
                           t->experiment->recipe.model.name);
        if (!bl_type_equal(from->type, t->slot[i].type))
            return bl_fail(BL_INVALID, "array %s of the model is %s, expected %s", t->slot[i].name,
                           bl_type_text(from->type, got), bl_type_text(t->slot[i].type, want));
    }
    return BL_OK;
}

static bl_status load_state(bl_training *t, const bl_dictionary *state)
{
    BL_TRY(check_state(t, state));
    for (int i = 0; i < t->slots; i++) {
        const bl_array *from = bl_dictionary_find(state, t->slot[i].name);
        memcpy(t->slot[i].value.data, from->data, bl_type_bytes(from->type));
    }
    return BL_OK;
}

static bl_status predict_now(const bl_experiment *experiment, const bl_dictionary *state,
                             const bl_part *part, bl_array *outputs)
{
    bl_training *t = NULL;
    bl_status status = bl_training_new(experiment, &t);
    if (status == BL_OK)
        status = check_state(t, state); /* a file may claim any size: no memory before this */
    if (status == BL_OK)
        status = bl_evaluate_compile(t, false, &t->evaluate);
    if (status == BL_OK)
        status = bl_training_start(t);
    if (status == BL_OK)
        status = load_state(t, state);
    if (status == BL_OK)
        status = bl_evaluate_rows(t, &t->evaluate, part, NULL, part->count, outputs, NULL);
    bl_training_free(t);
    return status;
}

bl_status bl_predict(const bl_architecture *model, const bl_dictionary *state, const bl_part *part,
                     const bl_training_data *normalisation, const bl_device *device,
                     bl_array *outputs)
{
    if (part->count < 1)
        return bl_fail(BL_INVALID, "there is no example to predict");
    bl_training_data data = {.train = *part, .test = *part};
    if (normalisation) {
        memcpy(data.mean, normalisation->mean, sizeof data.mean);
        memcpy(data.scale, normalisation->scale, sizeof data.scale);
        data.classes = normalisation->classes;
    }
    if (!part->targets.data) {
        bl_type none = {BL_I32, BL_SHAPE(part->count)};
        data.train.targets.type = data.test.targets.type = none;
    }
    bl_experiment experiment = {.data = &data, .device = device, .threads = 1};
    experiment.recipe = (bl_recipe){.model = *model, .epochs = 1, .batch = 1};
    strcpy(experiment.recipe.schedule, "constant");
    return predict_now(&experiment, state, &data.test, outputs);
}
