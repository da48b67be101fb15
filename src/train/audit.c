/* What an arm did, measured: a second program of the same step also computes what the step would
 * have been without the arm, and is run on the first batch of a few epochs spread over the run. An
 * arm that changes nothing there is inert, which the user is told as an error. */
#define BL_KEEP_PLACE
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/training.h"

enum { AUDITS = 5, NUMBERS = 5 };
/* Shares below this are rounding: the two gradients come from differently fused kernels. */
static const double nothing = 1e-6;

static bool any_load_hook(const bl_training *t)
{
    for (int i = 0; i < t->arm->parts; i++)
        if (t->arm->part[i].hooks->load)
            return true;
    return false;
}

/* bool [B]: whether a row differs; of another shape, every row does. */
static bl_tensor rows_differ(bl_tensor a, bl_tensor b)
{
    int64_t batch = bl_dim(a, 0);
    if (!bl_type_equal(bl_type_of(a), bl_type_of(b)))
        return bl_full(a.graph, BL_BOOL, BL_SHAPE(batch), 1);
    bl_tensor difference = bl_abs(bl_sub(a, b));
    return bl_gt(bl_reduce_max(bl_reshape(difference, BL_SHAPE(batch, -1)), 1), 0);
}

static bl_tensor examples_changed(bl_builder *b)
{
    bl_step *s = &b->step;
    bl_tensor inputs = b->argument[BL_ARG_INPUTS], targets = b->argument[BL_ARG_TARGETS];
    bl_tensor changed = bl_full(s->graph, BL_BOOL, BL_SHAPE(s->batch), 0);
    if (s->inputs.id != inputs.id)
        changed = bl_or(changed, rows_differ(inputs, s->inputs));
    if (s->targets.id != targets.id) {
        if (b->t->data->classes > 0)
            targets = bl_onehot(targets, s->classes, BL_F32);
        bl_tensor now = s->target_form == BL_NUMBERS ? s->targets : bl_target_distributions(s);
        changed = bl_or(changed, rows_differ(targets, now));
    }
    return bl_mean(bl_cast(changed, BL_F32));
}

static bl_tensor distance(const bl_tensor *a, const bl_tensor *b, int count, bl_tensor *room)
{
    for (int i = 0; i < count; i++)
        room[i] = bl_sub(a[i], b[i]);
    return bl_global_norm(room, count);
}

static bl_status build_audit(bl_builder *b, bl_tensor outputs[NUMBERS])
{
    bl_step *s = &b->step;
    int n = s->parameters;
    bl_tensor *base = bl_alloc(2 * (size_t)n * sizeof *base);
    if (!base)
        return bl_no_memory(2 * (size_t)n * sizeof *base);
    bl_step_build(b);
    bl_step_build_baseline(b, base);
    bl_tensor *room = base + n;
    outputs[0] = examples_changed(b);
    outputs[1] = distance(s->gradient, base, n, room);
    outputs[2] = bl_global_norm(base, n);
    outputs[3] = distance(s->updated, b->optimised, n, room);
    outputs[4] = distance(b->optimised, s->raw, n, room);
    bl_release(base);
    return bl_graph_status(s->graph);
}

bl_status bl_audit_compile(bl_training *t)
{
    if (t->arm->parts == 0)
        return BL_OK;
    bl_builder b;
    bl_tensor outputs[NUMBERS];
    const int out_slot[NUMBERS] = {BL_NO_SLOT, BL_NO_SLOT, BL_NO_SLOT, BL_NO_SLOT, BL_NO_SLOT};
    bl_status status = bl_builder_open(t, true, t->batch, &b);
    if (status == BL_OK)
        status = build_audit(&b, outputs);
    if (status == BL_OK)
        status = bl_call_compile(&b, outputs, out_slot, NUMBERS, &t->audit);
    for (int i = 0; i < NUMBERS && status == BL_OK; i++, t->audit.owned = i)
        status = bl_array_new(BL_F32, BL_SCALAR, &t->audit.out[i]);
    bl_builder_close(&b);
    return status;
}

bool bl_audit_due(const bl_training *t, int64_t step)
{
    if (!t->audit.program || step % t->batches != 0)
        return false;
    int64_t epochs = t->experiment->recipe.epochs, epoch = step / t->batches; /* from 0 */
    for (int64_t k = 0; k < AUDITS; k++)
        if (epoch == k * (epochs - 1) / (AUDITS - 1))
            return true;
    return false;
}

/* Share of the images of this batch that load hooks changed. */
static double images_changed(const bl_training *t)
{
    if (!any_load_hook(t) || !t->train_batch.raw)
        return 0;
    const bl_batch *batch = &t->train_batch;
    const bl_array *images = &t->data->train.inputs;
    size_t bytes = bl_type_bytes(images->type) / (size_t)images->type.shape.dim[0];
    int64_t changed = 0;
    for (int64_t i = 0; i < batch->size; i++) {
        size_t row = (size_t)bl_i32(&batch->argument[BL_ARG_INDEX])[i];
        changed += memcmp(batch->raw + (size_t)i * bytes, bl_u8(images) + row * bytes, bytes) != 0;
    }
    return (double)changed / (double)batch->size;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : part > 0;
}

bl_status bl_audit_run(bl_training *t)
{
    BL_TRY(bl_run(t->audit.program, t->audit.in, t->audit.out));
    double number[NUMBERS];
    for (int i = 0; i < NUMBERS; i++)
        number[i] = bl_array_get(&t->audit.out[i], 0);
    t->tally.audits += 1;
    t->tally.changed += fmax(number[0], images_changed(t));
    t->tally.gradient_share += share(number[1], number[2]);
    t->tally.update_share += share(number[3], number[4]);
    return BL_OK;
}

/* An arm that holds training examples out differs from the baseline by that alone. */
static bool holds_out(const bl_arm *arm)
{
    for (int i = 0; i < arm->parts; i++)
        if (arm->part[i].traits & BL_VALIDATION)
            return true;
    return false;
}

void bl_audit_report(const bl_training *t, double moved, bool finished, bl_arm_effect *effect)
{
    const bl_tally *tally = &t->tally;
    double audits = tally->audits > 0 ? tally->audits : 1;
    *effect = (bl_arm_effect){.sites = t->sites,
                              .examples_changed = tally->changed / audits,
                              .gradient_share = tally->gradient_share / audits,
                              .update_share = tally->update_share / audits,
                              .host_moved = tally->host_moved,
                              .parameters_moved = moved,
                              .ended_early = !finished,
                              .measures = t->measures};
    for (int i = 0; i < t->measures; i++) {
        snprintf(effect->measure[i].name, sizeof effect->measure[i].name, "%s",
                 t->measure_name[i] ? t->measure_name[i] : "");
        effect->measure[i].value =
            tally->measure_steps > 0 ? tally->measure[i] / tally->measure_steps : NAN;
    }
    double most = fmax(fmax(effect->examples_changed, effect->gradient_share),
                       fmax(effect->update_share, fmax(effect->host_moved, moved)));
    effect->inert = t->arm->parts > 0 && !holds_out(t->arm) && finished && !(most > nothing);
}
