/* A compiled program with its argument lists, and the batch it is fed with. Lists are filled once;
 * a step only changes the numbers they point to. */
#include <string.h>

#include "train/training.h"

/* --- batches ---------------------------------------------------------------------------------- */
void bl_argument_types(const bl_training *t, int64_t batch, bl_type type[BL_ARGS])
{
    const bl_part *train = &t->data->train;
    bl_shape inputs = train->inputs.type.shape, targets = train->targets.type.shape;
    inputs.dim[0] = targets.dim[0] = batch;
    type[BL_ARG_INPUTS] = (bl_type){BL_F32, inputs};
    type[BL_ARG_TARGETS] = (bl_type){train->targets.type.dtype, targets};
    type[BL_ARG_INDEX] = (bl_type){BL_I32, BL_SHAPE(batch)};
    type[BL_ARG_EPOCH] = (bl_type){BL_F32, BL_SCALAR};
    type[BL_ARG_STEP] = (bl_type){BL_I32, BL_SCALAR};
    type[BL_ARG_PROGRESS] = (bl_type){BL_F32, BL_SCALAR};
    type[BL_ARG_LEARNING_RATE] = (bl_type){BL_F32, BL_SCALAR};
    type[BL_ARG_KEY] = (bl_type){BL_U32, BL_SHAPE(2)};
    type[BL_ARG_STATISTIC_RATE] = (bl_type){BL_F32, BL_SCALAR};
}

bl_status bl_batch_new(const bl_training *t, int64_t size, bl_batch *out)
{
    bl_type type[BL_ARGS];
    bl_argument_types(t, size, type);
    *out = (bl_batch){.size = size};
    for (int i = 0; i < BL_ARGS; i++)
        BL_TRY(bl_array_new(type[i].dtype, type[i].shape, &out->argument[i]));
    bl_f32(&out->argument[BL_ARG_STATISTIC_RATE])[0] = 0.1F;
    if (t->data->train.inputs.type.dtype == BL_U8) {
        size_t bytes = (size_t)bl_type_count(type[BL_ARG_INPUTS]);
        out->raw = bl_alloc(bytes);
        out->loaded = bl_alloc(bytes);
        if (!out->raw || !out->loaded)
            return bl_no_memory(bytes);
    }
    return BL_OK;
}

void bl_batch_free(bl_batch *batch)
{
    for (int i = 0; i < BL_ARGS; i++)
        bl_array_free(&batch->argument[i]);
    bl_release(batch->raw);
    bl_release(batch->loaded);
    *batch = (bl_batch){0};
}

void bl_batch_set(bl_training *t, bl_batch *batch, int64_t step)
{
    bl_key key = bl_key_derive(t->experiment->keys.augmentation, (uint32_t)step);
    bl_f32(&batch->argument[BL_ARG_EPOCH])[0] = (float)(step / t->batches + 1);
    bl_i32(&batch->argument[BL_ARG_STEP])[0] = (int32_t)step;
    bl_f32(&batch->argument[BL_ARG_PROGRESS])[0] = (float)((double)step / (double)t->steps);
    bl_f32(&batch->argument[BL_ARG_LEARNING_RATE])[0] =
        (float)bl_learning_rate(&t->experiment->recipe, step, t->steps);
    memcpy(batch->argument[BL_ARG_KEY].data, key.word, sizeof key.word);
}

static void gather_rows(const bl_array *from, const int32_t *rows, int64_t n, int64_t size,
                        void *to)
{
    size_t bytes =
        bl_type_bytes(from->type) / (size_t)(from->type.shape.dim[0] ? from->type.shape.dim[0] : 1);
    for (int64_t i = 0; i < size; i++) {
        int32_t row = rows[i < n ? i : 0];
        memcpy((char *)to + (size_t)i * bytes, (const char *)from->data + (size_t)row * bytes,
               bytes);
    }
}

void bl_batch_normalise(const bl_training *t, bl_batch *batch)
{
    bl_array *inputs = &batch->argument[BL_ARG_INPUTS];
    int64_t count = bl_array_count(inputs), channels = inputs->type.shape.dim[3];
    float *out = bl_f32(inputs);
    for (int64_t i = 0; i < count; i += channels)
        for (int64_t c = 0; c < channels; c++)
            out[i + c] = (float)t->lookup[c][batch->raw[i + c]];
}

void bl_batch_gather(bl_batch *batch, const bl_part *part, const int32_t *rows, int64_t n)
{
    bool images = part->inputs.type.dtype == BL_U8;
    gather_rows(&part->inputs, rows, n, batch->size,
                images ? (void *)batch->raw : batch->argument[BL_ARG_INPUTS].data);
    if (part->targets.data)
        gather_rows(&part->targets, rows, n, batch->size, batch->argument[BL_ARG_TARGETS].data);
    for (int64_t i = 0; i < batch->size; i++)
        bl_i32(&batch->argument[BL_ARG_INDEX])[i] = rows[i < n ? i : 0];
}

/* --- calls ------------------------------------------------------------------------------------ */
static bl_status allocate(bl_call *call, int ins, int outs)
{
    call->in = bl_alloc((size_t)ins * sizeof *call->in);
    call->out = bl_alloc((size_t)(outs + 1) * sizeof *call->out);
    call->in_slot = bl_alloc((size_t)ins * sizeof *call->in_slot);
    call->out_slot = bl_alloc((size_t)(outs + 1) * sizeof *call->out_slot);
    return call->in && call->out && call->in_slot && call->out_slot
               ? BL_OK
               : bl_no_memory((size_t)(ins + outs) * sizeof *call->in);
}

static int collect_inputs(const bl_builder *b, bl_call *call, bl_tensor *inputs)
{
    for (int i = 0; i < BL_ARGS; i++)
        inputs[call->ins] = b->argument[i], call->in_slot[call->ins++] = BL_NO_SLOT;
    for (int i = 0; i < b->slots && i < b->t->slots; i++)
        if (b->now[i].graph)
            inputs[call->ins] = b->now[i], call->in_slot[call->ins++] = i;
    return call->ins;
}

static int find_donations(const bl_call *call, bl_donation *donation)
{
    int donations = 0;
    for (int o = 0; o < call->outs; o++)
        for (int i = BL_ARGS; call->out_slot[o] != BL_NO_SLOT && i < call->ins; i++)
            if (call->in_slot[i] == call->out_slot[o])
                donation[donations++] = (bl_donation){i, o};
    return donations;
}

bl_status bl_call_compile(bl_builder *b, const bl_tensor *outputs, const int *out_slot, int count,
                          bl_call *call)
{
    const bl_experiment *experiment = b->t->experiment;
    int room = BL_ARGS + b->t->slots;
    bl_call_free(call);
    BL_TRY(allocate(call, room, count));
    bl_tensor *inputs = bl_alloc((size_t)room * sizeof *inputs);
    bl_donation *donation = bl_alloc((size_t)(count + 1) * sizeof *donation);
    bl_status status = inputs && donation ? BL_OK : bl_no_memory((size_t)room * sizeof *inputs);
    if (status == BL_OK) {
        collect_inputs(b, call, inputs);
        memcpy(call->out_slot, out_slot, (size_t)count * sizeof *out_slot);
        call->outs = count;
        bl_compile_options options = {.threads = experiment->threads, .donation = donation};
        options.donations = find_donations(call, donation);
        const bl_device *device = experiment->device ? experiment->device : bl_device_cpu();
        status = bl_compile(device, inputs, call->ins, outputs, count, &options, &call->program);
    }
    bl_release(inputs);
    bl_release(donation);
    return status;
}

static bl_array slot_array(const bl_training *t, int slot, bool renewed)
{
    if (renewed && slot < t->renewed_slots && t->renewed[slot].data)
        return t->renewed[slot];
    return t->slot[slot].value;
}

void bl_call_bind(bl_training *t, bl_call *call, const bl_batch *batch, bool renewed)
{
    for (int i = 0; i < call->ins; i++)
        call->in[i] = i < BL_ARGS ? batch->argument[i] : slot_array(t, call->in_slot[i], renewed);
    for (int o = 0; o < call->outs; o++)
        if (call->out_slot[o] != BL_NO_SLOT)
            call->out[o] = slot_array(t, call->out_slot[o], renewed);
}

void bl_call_free(bl_call *call)
{
    bl_program_free(call->program);
    for (int i = 0; i < call->owned; i++)
        bl_array_free(&call->out[i]);
    bl_release(call->in);
    bl_release(call->out);
    bl_release(call->in_slot);
    bl_release(call->out_slot);
    *call = (bl_call){0};
}
