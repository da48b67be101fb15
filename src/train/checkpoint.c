/* Checkpoints: the whole state of a run as one safetensors file. Slots go in under their names,
 * sums and counters as doubles under "run/", and a note names the experiment, so that a file of
 * another run is refused. What is not here is a function of the step's number: the order of the
 * examples, every random key, the learning rate. */
#include <math.h>
#include <string.h>

#include "train/training.h"

static char *experiment_text(const bl_training *t)
{
    const bl_experiment *e = t->experiment;
    const bl_recipe *r = &e->recipe;
    const bl_run_keys *k = &e->keys;
    return bl_format("%s %lld %lld %lld %.17g; %s %.17g %.17g %.17g %d %.17g %.17g %.17g; "
                     "%s %.17g %.17g %.17g %.17g %.17g; %lld %lld %s; %s%s; "
                     "%08x%08x %08x%08x %08x%08x; %lld %lld %016llx",
                     r->model.name, (long long)r->model.width, (long long)r->model.depth,
                     (long long)r->model.outputs, r->model.output_bias, r->optimizer,
                     r->learning_rate, r->momentum, r->weight_decay, r->nesterov, r->beta1,
                     r->beta2, r->epsilon, r->schedule, r->step_at[0], r->step_at[1], r->step_at[2],
                     r->step_at[3], r->step_factor, (long long)r->epochs, (long long)r->batch,
                     r->loss, t->arm->text ? t->arm->text : "", t->arm->null ? " null" : "",
                     k->init.word[0], k->init.word[1], k->order.word[0], k->order.word[1],
                     k->augmentation.word[0], k->augmentation.word[1],
                     (long long)t->data->train.count, (long long)t->data->test.count,
                     (unsigned long long)bl_hash(t->data->train.targets.data,
                                                 bl_type_bytes(t->data->train.targets.type), 0));
}

static bl_status keep(bl_dictionary *d, const char *name, bl_dtype dtype, bl_shape shape,
                      const void *data)
{
    bl_array copy = {0};
    BL_TRY(bl_array_new(dtype, shape, &copy));
    if (bl_array_count(&copy) > 0)
        memcpy(copy.data, data, bl_type_bytes(copy.type));
    return bl_dictionary_set(d, name, copy);
}

static bl_status fill_dictionary(const bl_training *t, bl_dictionary *d)
{
    for (int i = 0; i < t->slots; i++)
        BL_TRY(keep(d, t->slot[i].name, t->slot[i].type.dtype, t->slot[i].type.shape,
                    t->slot[i].value.data));
    BL_TRY(keep(d, "run/tally", BL_F64, BL_SHAPE(sizeof t->tally / sizeof(double)), &t->tally));
    bl_array curve = {0};
    BL_TRY(bl_array_new(BL_F64, BL_SHAPE((int64_t)t->curve_count, 3), &curve));
    for (size_t i = 0; i < t->curve_count; i++) {
        double *row = bl_f64(&curve) + 3 * i;
        row[0] = (double)t->curve[i].epoch;
        row[1] = t->curve[i].train_loss, row[2] = t->curve[i].metric;
    }
    BL_TRY(bl_dictionary_set(d, "run/curve", curve));
    char *text = experiment_text(t);
    bl_status status = text ? bl_dictionary_set_note(d, "experiment", text) : bl_no_memory(256);
    bl_release(text);
    return status;
}

bl_status bl_checkpoint_save(const bl_training *t, const char *path)
{
    bl_dictionary d = {0};
    bl_status status = fill_dictionary(t, &d);
    if (status == BL_OK)
        status = bl_safetensors_write(path, &d);
    bl_dictionary_free(&d);
    return status;
}

static bool is_count(double x, int64_t most)
{
    return x >= 0 && x <= (double)most && x == floor(x);
}

static bl_status restore_curve(bl_training *t, const bl_array *curve, const char *path)
{
    for (int64_t i = 0; i < curve->type.shape.dim[0]; i++) {
        const double *row = bl_f64(curve) + 3 * i;
        if (!is_count(row[0], t->experiment->recipe.epochs))
            return bl_fail(BL_INVALID, "%s: run/curve[%lld,0] is %g, expected an epoch", path,
                           (long long)i, row[0]);
        if (!BL_GROW(t->curve, t->curve_count, t->curve_capacity))
            return bl_no_memory(sizeof *t->curve);
        t->curve[t->curve_count++] = (bl_curve_point){(int64_t)row[0], row[1], row[2]};
    }
    return BL_OK;
}

static bl_status restore(bl_training *t, const bl_dictionary *d, const char *path)
{
    char *text = experiment_text(t);
    const char *note = bl_dictionary_note(d, "experiment");
    bool same = text && note && strcmp(text, note) == 0;
    bl_release(text);
    if (!same)
        return bl_fail(BL_INVALID,
                       "%s is the checkpoint of another run: delete it, or name another "
                       "file",
                       path);
    const bl_array *tally = bl_dictionary_find(d, "run/tally");
    const bl_array *curve = bl_dictionary_find(d, "run/curve");
    if (!tally || bl_type_bytes(tally->type) != sizeof t->tally || !curve ||
        curve->type.dtype != BL_F64 || curve->type.shape.rank != 2 ||
        curve->type.shape.dim[1] != 3)
        return bl_fail(BL_INVALID, "%s: run/tally or run/curve is missing or of another size",
                       path);
    for (int i = 0; i < t->slots; i++) {
        const bl_array *from = bl_dictionary_find(d, t->slot[i].name);
        if (!from || !bl_type_equal(from->type, t->slot[i].type))
            return bl_fail(BL_INVALID, "%s: %s is missing or of another type", path,
                           t->slot[i].name);
        memcpy(t->slot[i].value.data, from->data, bl_type_bytes(from->type));
    }
    memcpy(&t->tally, tally->data, sizeof t->tally);
    if (!is_count(t->tally.step, t->steps))
        return bl_fail(BL_INVALID, "%s: run/tally[0] is %g, expected a step from 0 to %lld", path,
                       t->tally.step, (long long)t->steps);
    t->epoch = (int64_t)t->tally.step / t->batches;
    return restore_curve(t, curve, path);
}

bl_status bl_checkpoint_load(bl_training *t, const char *path)
{
    bl_dictionary d = {0};
    BL_TRY(bl_safetensors_read(path, &d));
    bl_status status = restore(t, &d, path);
    bl_dictionary_free(&d);
    return status;
}
