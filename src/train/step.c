/* The training step: every hook that acts inside it, called in one visible order while the step's
 * graph is being built. Everything before and after (forward passes, state, compilation) is
 * elsewhere in train/, so that this file can be read as the definition of a step. */
#define BL_KEEP_PLACE
#include <string.h>

#include "train/training.h"

typedef void bl_graph_hook(bl_step *s, const void *options);

static void call(bl_builder *b, int part, bl_graph_hook *hook)
{
    if (!hook)
        return;
    b->part = part;
    bl_scope(b->step.graph, b->t->arm->part[part].name);
    hook(&b->step, b->t->arm->part[part].options);
    bl_scope_end(b->step.graph);
    b->part = -1;
}

void bl_step_build(bl_builder *b)
{
    bl_step *s = &b->step;
    const bl_arm_part *part = b->t->arm->part;

    BL_EACH_PART(b, i)
    call(b, i, part[i].hooks->batch);

    b->counting = true; /* weight and site hooks run inside the forward pass */
    bl_outputs outputs = bl_builder_forward(b);
    b->counting = false;
    s->logits = outputs.logits;
    s->features = outputs.features;

    s->loss = bl_task_loss(s, s->logits, s->targets, s->target_form);
    b->in_loss = true;
    BL_EACH_PART(b, i)
    call(b, i, part[i].hooks->loss);
    b->in_loss = false;

    bl_grad(s->loss, s->raw, s->parameters, s->gradient);
    BL_EACH_PART(b, i)
    call(b, i, part[i].hooks->gradient);

    bl_optimizer_build(b);
    memcpy(b->optimised, s->updated, (size_t)s->parameters * sizeof *b->optimised);
    BL_EACH_PART(b, i)
    call(b, i, part[i].hooks->update);
}

/* What the same batch would give without the arm: the gradient of the task's loss. */
void bl_step_build_baseline(bl_builder *b, bl_tensor *gradient)
{
    bl_step *s = &b->step;
    b->plain = true;
    bl_outputs outputs = bl_forward(s, b->argument[BL_ARG_INPUTS], s->raw);
    bl_target_form form = b->t->data->classes > 0 ? BL_LABELS : BL_NUMBERS;
    bl_tensor loss = bl_task_loss(s, outputs.logits, b->argument[BL_ARG_TARGETS], form);
    bl_grad(loss, s->raw, s->parameters, gradient);
    b->plain = false;
}

static bl_status compile_built(bl_training *t, bl_builder *b)
{
    size_t room = (size_t)t->slots + BL_MEASURES + 1;
    bl_tensor *outputs = bl_alloc(room * sizeof *outputs);
    int *out_slot = bl_alloc(room * sizeof *out_slot);
    if (!outputs || !out_slot) {
        bl_release(outputs);
        bl_release(out_slot);
        return bl_no_memory(room * sizeof *outputs);
    }
    int count = 0;
    outputs[count] = b->step.loss, out_slot[count++] = BL_NO_SLOT;
    for (int i = 0; i < b->measures; i++)
        outputs[count] = b->measure[i], out_slot[count++] = BL_NO_SLOT;
    bl_status status = bl_builder_collect(b, outputs, out_slot, &count);
    if (status == BL_OK)
        status = bl_call_compile(b, outputs, out_slot, count, &t->step);
    bl_release(outputs);
    bl_release(out_slot);
    return status;
}

bl_status bl_step_compile(bl_training *t)
{
    bl_builder b;
    bl_status status = bl_builder_open(t, true, t->batch, &b);
    if (status == BL_OK) {
        bl_step_build(&b);
        status = compile_built(t, &b);
    }
    t->sites = b.replaced;
    t->measures = b.measures;
    memcpy(t->measure_name, b.measure_name, sizeof t->measure_name);
    for (int i = 0; status == BL_OK && i < t->measures; i++)
        status = bl_array_new(BL_F32, BL_SCALAR, &t->measure[i]);
    if (status == BL_OK)
        status = bl_array_new(BL_F32, BL_SCALAR, &t->loss);
    bl_builder_close(&b);
    return status;
}
