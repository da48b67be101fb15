/* Optimisers: each adds the nodes of one parameter's update to the step's graph and keeps its slots
 * as state ("optimizer/momentum/dense1/weight"). To add one, write an update and a row of the
 * table. Weight decay acts on weights only, not on biases and gains. */
#define BL_KEEP_PLACE
#include <math.h>
#include <string.h>

#include "train/training.h"

static int optimizer_slot(bl_builder *b, const char *name, int parameter)
{
    char *full = bl_format("optimizer/%s/%s", name, b->t->parameter[parameter].path);
    int slot =
        full ? bl_slot_add(b->t, full, b->t->parameter[parameter].type, 0, BL_NO_SLOT) : BL_NO_SLOT;
    bl_release(full);
    if (slot == BL_NO_SLOT)
        bl_poison(b->step.graph, "memory is short for the optimiser's state");
    return slot;
}

static double decay_of(const bl_builder *b, int parameter)
{
    return b->t->parameter[parameter].role == BL_WEIGHT ? b->t->experiment->recipe.weight_decay : 0;
}

static bl_tensor coupled_gradient(bl_builder *b, int i)
{
    const bl_step *s = &b->step;
    double decay = decay_of(b, i);
    return decay == 0 ? s->gradient[i] : bl_add(s->gradient[i], bl_mul(decay, s->raw[i]));
}

/* m' = momentum m + g; w' = w - rate m', or Nesterov's w - rate (g + momentum m'). */
static bl_tensor sgd(bl_builder *b, int i)
{
    const bl_recipe *recipe = &b->t->experiment->recipe;
    const bl_step *s = &b->step;
    bl_tensor g = coupled_gradient(b, i);
    if (recipe->momentum != 0) {
        int slot = optimizer_slot(b, "momentum", i);
        bl_tensor m = bl_add(bl_mul(recipe->momentum, bl_builder_now(b, slot)), g);
        bl_builder_set(b, slot, m);
        g = recipe->nesterov ? bl_add(g, bl_mul(recipe->momentum, m)) : m;
    }
    return bl_sub(s->raw[i], bl_mul(s->learning_rate, g));
}

/* 1 - beta^t for step t = 1, 2, .., without cancellation. */
static bl_tensor correction(const bl_step *s, double beta)
{
    bl_tensor t = bl_add(bl_cast(s->step, BL_F32), 1);
    return bl_neg(bl_expm1(bl_mul(t, log(beta))));
}

/* Kingma and Ba 2015: w' = w - rate (m' / c1) / (sqrt(v' / c2) + epsilon). */
static bl_tensor adam_step(bl_builder *b, int i, bl_tensor w, bl_tensor g)
{
    const bl_recipe *recipe = &b->t->experiment->recipe;
    const bl_step *s = &b->step;
    double beta1 = recipe->beta1, beta2 = recipe->beta2;
    int first = optimizer_slot(b, "first", i), second = optimizer_slot(b, "second", i);
    bl_tensor m = bl_add(bl_mul(beta1, bl_builder_now(b, first)), bl_mul(1 - beta1, g));
    bl_tensor v = bl_add(bl_mul(beta2, bl_builder_now(b, second)), bl_mul(1 - beta2, bl_square(g)));
    bl_builder_set(b, first, m);
    bl_builder_set(b, second, v);
    bl_tensor rate = bl_div(s->learning_rate, correction(s, beta1));
    bl_tensor scale = bl_rsqrt(correction(s, beta2));
    bl_tensor root = bl_add(bl_mul(bl_sqrt(v), scale), recipe->epsilon);
    return bl_sub(w, bl_div(bl_mul(rate, m), root));
}

static bl_tensor adam(bl_builder *b, int i)
{
    return adam_step(b, i, b->step.raw[i], coupled_gradient(b, i));
}

/* Loshchilov and Hutter 2019: the decay shrinks the weight itself. */
static bl_tensor adamw(bl_builder *b, int i)
{
    const bl_step *s = &b->step;
    double decay = decay_of(b, i);
    bl_tensor w = s->raw[i];
    if (decay != 0)
        w = bl_mul(w, bl_sub(1, bl_mul(s->learning_rate, decay)));
    return adam_step(b, i, w, s->gradient[i]);
}

static const struct {
    const char *name;
    bl_tensor (*update)(bl_builder *b, int parameter);
} table[] = {{"sgd", sgd}, {"adam", adam}, {"adamw", adamw}};

static int find(const char *name)
{
    for (int i = 0; i < (int)(sizeof table / sizeof *table); i++)
        if (strcmp(table[i].name, name) == 0)
            return i;
    return -1;
}

bl_status bl_optimizer_check(const bl_recipe *recipe)
{
    if (find(recipe->optimizer) < 0)
        return bl_fail(BL_INVALID, "unknown optimizer \"%s\": there are sgd, adam, adamw",
                       recipe->optimizer);
    if (!(recipe->learning_rate > 0) || !(recipe->weight_decay >= 0))
        return bl_fail(BL_INVALID,
                       "learning rate %g must be above 0 and weight decay %g not below 0",
                       recipe->learning_rate, recipe->weight_decay);
    if (!(recipe->momentum >= 0 && recipe->momentum < 1))
        return bl_fail(BL_INVALID, "momentum %g is not in [0,1)", recipe->momentum);
    bool moments = strcmp(recipe->optimizer, "sgd") != 0;
    if (moments && !(recipe->beta1 >= 0 && recipe->beta1 < 1 && recipe->beta2 >= 0 &&
                     recipe->beta2 < 1 && recipe->epsilon > 0))
        return bl_fail(BL_INVALID, "%s needs betas in [0,1) and epsilon above 0, not %g, %g, %g",
                       recipe->optimizer, recipe->beta1, recipe->beta2, recipe->epsilon);
    return BL_OK;
}

void bl_optimizer_build(bl_builder *b)
{
    int chosen = find(b->t->experiment->recipe.optimizer);
    for (int i = 0; i < b->step.parameters; i++)
        b->step.updated[i] = table[chosen].update(b, i);
}
