/* Batches. A batch is a function of (key, epoch, number), so a run resumes anywhere. Tables and
 * matrices are prepared once; images stay bytes and are normalised as they are given out. */
#include "data/dataset.h"

#include <string.h>

struct bl_loader {
    const bl_dataset *d;
    const bl_preparation *p;
    bl_loader_options options;
    int64_t count, batch, batches;
    int64_t size;    /* values of one example */
    int32_t *rows;   /* [count] of the data set */
    float *features; /* [count,size]; NULL for images */
    void *targets;   /* [count] i32 or f32; NULL without a target */
    int32_t *order;  /* [count], of `order_epoch` */
    int64_t order_epoch;
    int32_t *position;       /* [batch]: of `rows` */
    int32_t *picked;         /* [batch]: rows of the data set */
    uint8_t *before, *after; /* [batch,size]: images around the hook */
};

void bl_loader_free(bl_loader *l)
{
    if (!l)
        return;
    bl_release(l->rows);
    bl_release(l->features);
    bl_release(l->targets);
    bl_release(l->order);
    bl_release(l->position);
    bl_release(l->picked);
    bl_release(l->before);
    bl_release(l->after);
    bl_release(l);
}

static bl_status room(bl_loader *l)
{
    size_t n = (size_t)l->count, b = (size_t)l->batch, size = (size_t)l->size;
    bool images = l->d->kind == BL_IMAGES, hook = l->options.hook != NULL;
    if (size > 0 && n > SIZE_MAX / 4 / size)
        return bl_fail(BL_UNSUPPORTED, "%s: too large to prepare", l->d->name);
    l->rows = bl_alloc(n * sizeof *l->rows);
    l->order = bl_alloc(n * sizeof *l->order);
    l->position = bl_alloc(b * sizeof *l->position);
    l->picked = bl_alloc(b * sizeof *l->picked);
    l->features = images ? NULL : bl_alloc_aligned(n * size * sizeof *l->features);
    l->targets = l->d->target_kind == BL_NO_TARGET ? NULL : bl_alloc(n * 4);
    l->before = hook ? bl_alloc(b * size) : NULL;
    l->after = hook ? bl_alloc(b * size) : NULL;
    bool made = l->rows && l->order && l->position && l->picked && (images || l->features) &&
                (l->d->target_kind == BL_NO_TARGET || l->targets) &&
                (!hook || (l->before && l->after));
    return made ? BL_OK : bl_no_memory(n * size * sizeof *l->features);
}

static bl_status fill_targets(bl_loader *l)
{
    if (!l->options.labels)
        return l->targets ? bl_preparation_targets(l->p, l->d, l->rows, l->count, l->targets)
                          : BL_OK;
    if (l->d->target_kind != BL_CLASSES)
        return bl_fail(BL_INVALID, "loader: labels are given, but %s has no classes", l->d->name);
    for (int64_t i = 0; i < l->count; i++)
        if (l->options.labels[i] < 0 || l->options.labels[i] >= bl_preparation_classes(l->p))
            return bl_fail(BL_INVALID, "loader: label %d of example %lld is not in 0..%d",
                           l->options.labels[i], (long long)i, bl_preparation_classes(l->p) - 1);
    memcpy(l->targets, l->options.labels, (size_t)l->count * sizeof(int32_t));
    return BL_OK;
}

static bl_status set_up(bl_loader *l, const int32_t *rows)
{
    const bl_loader_options *o = &l->options;
    if (l->count < 1 || o->batch < 1)
        return bl_fail(BL_INVALID,
                       "loader: %lld examples in batches of %lld; both must be 1 or more",
                       (long long)l->count, (long long)o->batch);
    if (l->count > (rows ? INT32_MAX : l->d->count))
        return bl_fail(BL_INVALID, "loader: %lld examples, but %s has %lld", (long long)l->count,
                       l->d->name, (long long)l->d->count);
    if (o->hook && l->d->kind != BL_IMAGES)
        return bl_fail(BL_INVALID, "loader: an image hook, but %s has no images", l->d->name);
    l->batch = o->batch < l->count ? o->batch : l->count;
    l->batches = (l->count + (o->keep_partial ? l->batch - 1 : 0)) / l->batch;
    l->size = bl_shape_count(bl_preparation_shape(l->p));
    l->order_epoch = -1;
    BL_TRY(room(l));
    for (int64_t i = 0; i < l->count; i++)
        l->rows[i] = rows ? rows[i] : (int32_t)i;
    if (l->features)
        BL_TRY(bl_preparation_inputs(l->p, l->d, l->rows, l->count, l->features));
    return fill_targets(l);
}

bl_status bl_loader_new(const bl_dataset *d, const bl_preparation *p, const int32_t *rows,
                        int64_t count, const bl_loader_options *options, bl_loader **out)
{
    *out = NULL;
    for (int64_t i = 0; rows && i < count; i++)
        if (rows[i] < 0 || rows[i] >= d->count)
            return bl_fail(BL_INVALID, "loader: row %d, but rows of %s are 0 to %lld", rows[i],
                           d->name, (long long)d->count - 1);
    bl_loader *l = bl_alloc(sizeof *l);
    if (!l)
        return bl_no_memory(sizeof *l);
    *l = (bl_loader){.d = d, .p = p, .options = *options, .count = count};
    bl_status status = set_up(l, rows);
    l->options.labels = NULL; /* copied */
    if (status == BL_OK)
        *out = l;
    else
        bl_loader_free(l);
    return status;
}

int64_t bl_loader_batches(const bl_loader *l)
{
    return l->batches;
}

int64_t bl_loader_batch_size(const bl_loader *l)
{
    return l->batch;
}

int64_t bl_loader_count(const bl_loader *l)
{
    return l->count;
}

bl_type bl_loader_input_type(const bl_loader *l)
{
    bl_shape one = bl_preparation_shape(l->p);
    bl_type type = {BL_F32, {.rank = one.rank + 1, .dim = {l->batch}}};
    for (int i = 0; i < one.rank; i++)
        type.shape.dim[i + 1] = one.dim[i];
    return type;
}

bl_type bl_loader_target_type(const bl_loader *l)
{
    return (bl_type){l->d->target_kind == BL_CLASSES ? BL_I32 : BL_F32, BL_SHAPE(l->batch)};
}

static void set_order(bl_loader *l, int64_t epoch)
{
    if (l->order_epoch == epoch)
        return;
    bl_random r =
        bl_random_new(bl_key_derive(bl_key_derive_name(l->options.key, "order"), (uint32_t)epoch));
    if (l->options.shuffle)
        bl_random_permutation(&r, l->order, l->count);
    for (int64_t i = 0; !l->options.shuffle && i < l->count; i++)
        l->order[i] = (int32_t)i;
    l->order_epoch = epoch;
}

/* The hook sees the whole batch, what repeats included. */
static bl_status hooked(bl_loader *l, int64_t epoch, int64_t batch, float *inputs)
{
    const int64_t *dim = l->d->inputs.type.shape.dim;
    for (int64_t i = 0; i < l->batch; i++)
        memcpy(l->before + i * l->size, bl_u8(&l->d->inputs) + l->picked[i] * l->size,
               (size_t)l->size);
    bl_key key = bl_key_derive(bl_key_derive_name(l->options.key, "hook"), (uint32_t)epoch);
    l->options.hook(l->options.context, l->before, l->after, l->batch, dim[1], dim[2], dim[3],
                    l->position, bl_key_derive(key, (uint32_t)batch));
    return bl_preparation_pixels(l->p, l->after, l->batch, inputs);
}

static bl_status give_inputs(bl_loader *l, int64_t epoch, int64_t batch, float *inputs)
{
    if (l->options.hook)
        return hooked(l, epoch, batch, inputs);
    if (!l->features)
        return bl_preparation_inputs(l->p, l->d, l->picked, l->batch, inputs);
    for (int64_t i = 0; i < l->batch; i++)
        memcpy(inputs + i * l->size, l->features + l->position[i] * l->size,
               (size_t)l->size * sizeof *inputs);
    return BL_OK;
}

bl_status bl_loader_fill(bl_loader *l, int64_t epoch, int64_t batch, float *inputs, void *targets,
                         int32_t *index, int64_t *filled)
{
    if (epoch < 0 || batch < 0 || batch >= l->batches)
        return bl_fail(BL_INVALID, "loader: batch %lld of epoch %lld; there are %lld batches",
                       (long long)batch, (long long)epoch, (long long)l->batches);
    if (targets && !l->targets)
        return bl_fail(BL_INVALID, "loader: %s has no target", l->d->name);
    set_order(l, epoch);
    int64_t begin = batch * l->batch, left = l->count - begin;
    int64_t full = left < l->batch ? left : l->batch;
    for (int64_t i = 0; i < l->batch; i++) {
        int32_t at = l->order[begin + i % full];
        l->position[i] = at;
        l->picked[i] = l->rows[at];
        if (targets)
            memcpy((char *)targets + 4 * i, (char *)l->targets + 4 * (int64_t)at, 4);
    }
    if (index)
        memcpy(index, l->position, (size_t)l->batch * sizeof *index);
    if (filled)
        *filled = full;
    return inputs ? give_inputs(l, epoch, batch, inputs) : BL_OK;
}
