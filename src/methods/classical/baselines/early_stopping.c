/* Early stopping: a part of the training data is held out, and the weights with the lowest loss on
 * it are the result. */
#include "methods/classical/baselines/weights.h"

#define BASE_EARLY_STOP_UPDATE(IN, OPT, OUT)                                                       \
    IN(best, "f32[]", "no NaN", "best value so far; an infinity at first")                         \
    IN(bad, "i32[]", ">= 0", "epochs since")                                                       \
    IN(value, "f32[]", "", "value of this epoch; a NaN is no improvement")                         \
    OPT(patience, 10, ">= 1", "epochs without improvement before stopping")                        \
    OPT(min_delta, 0.0, "[0,inf)", "what counts as an improvement, strictly more")                 \
    OPT(mode, "min", "min|max", "which is better")                                                 \
    OUT(best_new, "f32[]", "value where it improved, else best")                                   \
    OUT(bad_new, "i32[]", "0 where it improved, else bad + 1")                                     \
    OUT(improved, "bool[]", "value < best - min_delta, or > best + min_delta (max)")               \
    OUT(stop, "bool[]", "bad_new >= patience")

BL_CONTRACT(base_early_stop_update, BASE_EARLY_STOP_UPDATE, "should training stop?")
{
    f->improved = bl_is(f->mode, "max") ? bl_gt(f->value, bl_add(f->best, f->min_delta))
                                        : bl_lt(f->value, bl_sub(f->best, f->min_delta));
    f->best_new = bl_select(f->improved, f->value, f->best);
    f->bad_new = bl_select(f->improved, 0, bl_add(f->bad, 1));
    f->stop = bl_ge(f->bad_new, (double)f->patience);
}

#define EARLY_STOPPING(OPT)                                                                        \
    OPT(patience, 10, ">= 1, tune [3,20]", "epochs without improvement before training ends")      \
    OPT(min_delta, 0.0, "[0,inf)", "improvements must be larger than this")

BL_ARM_OPTIONS(early_stopping, EARLY_STOPPING)

static void keep_parameters(bl_training *t)
{
    const bl_parameter *parameter;
    int parameters = bl_training_parameters(t, &parameter);
    for (int i = 0; i < parameters; i++) {
        const bl_array *w = bl_training_parameter(t, i);
        memcpy(bl_training_parameter_state(t, "best", i)->data, w->data, bl_type_bytes(w->type));
    }
}

/* The rule of base_early_stop_update, on the held-out loss. */
static bl_status early_stopping_epoch(bl_training *t, const void *options)
{
    const struct early_stopping *o = options;
    bl_array *best = bl_training_state(t, "best_value"), *bad = bl_training_state(t, "bad");
    double value = bl_training_validation(t);
    if (value < bl_array_get(best, 0) - o->min_delta.number) {
        bl_array_set(best, 0, value);
        bl_array_set(bad, 0, 0);
        keep_parameters(t);
    } else {
        bl_array_set(bad, 0, bl_array_get(bad, 0) + 1);
    }
    if (bl_array_get(bad, 0) >= (double)o->patience)
        bl_training_stop(t);
    return BL_OK;
}

static void early_stopping_evaluate(bl_step *s, BL_UNUSED_ const void *options)
{
    for (int i = 0; i < s->parameters; i++)
        s->raw[i] = bl_parameter_state(s, "best", i, BL_START_AT_PARAMETER);
}

const bl_method bl_early_stopping = {
    .slug = "early_stopping",
    .family = "classical",
    .paper = "Prechelt 1998",
    .summary = "keeps the weights with the lowest loss on held-out data",
    .when =
        "When the network memorises its data. The held-out tenth is not trained on, which costs "
        "accuracy where data are few; training ends early where it can.",
    .functions = {&base_early_stop_update_contract},
    .options = &early_stopping_contract,
    .example = "--arm \"early_stopping(patience=5)\"",
    .traits = BL_VALIDATION,
    .hooks = &(const bl_hooks){.epoch = early_stopping_epoch,
                               .evaluate = early_stopping_evaluate,
                               .renew_statistics = true,
                               .state = {{"best_value", "f32[]", INFINITY}, {"bad", "i32[]", 0.0}}},
};
