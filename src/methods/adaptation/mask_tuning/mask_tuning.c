/* Regularized mask tuning (R-AMT). Zheng et al., ICCV 2023, arXiv 2307.15049. A large frozen
 * network is adapted to a few examples by switching weights off: each has a real number m that is
 * trained, and acts where m exceeds a threshold. The gradient of m is dropped at random where it
 * disagrees with the gradient of staying close to the original network's predictions, so that what
 * it knew is kept. */
#include "methods/method.h"

/* --- masks ------------------------------------------------------------------------------------ */

#define RAMT_MASK(IN, OPT, OUT)                                                                    \
    IN(m, "f32[O,I]", "grad", "real-valued mask, 1e-2 at first")                                   \
    OPT(threshold, 5e-3, "finite", "a weight acts where m is larger, strictly")                    \
    OUT(mask, "f32[O,I]", "1 or 0; its gradient passes to m unchanged, everywhere")                \
    OUT(dropped, "f32[]", "share of zeros; no gradient")

static bl_tensor binary(bl_tensor m, bl_tensor threshold)
{
    return bl_straight_through(bl_cast(bl_gt(m, threshold), BL_F32), m);
}

BL_CONTRACT(ramt_mask, RAMT_MASK, "the binary mask of real numbers")
{
    f->mask = binary(f->m, f->threshold);
    f->dropped = bl_mean(bl_sub(1, bl_stop_gradient(f->mask)));
}

#define RAMT_MASKED_LINEAR(IN, OPT, OUT)                                                           \
    IN(x, "f32[N,I]", "grad", "inputs of the layer")                                               \
    IN(w, "f32[O,I]", "", "frozen weights")                                                        \
    IN(bias, "f32[O]", "", "frozen, never masked")                                                 \
    IN(m, "f32[O,I]", "grad", "real-valued mask")                                                  \
    OPT(threshold, 5e-3, "finite", "as ramt_mask")                                                 \
    OUT(y, "f32[N,O]", "x (w mask)^T + bias")

BL_CONTRACT(ramt_masked_linear, RAMT_MASKED_LINEAR, "a dense layer with weights switched off")
{
    bl_tensor w = bl_mul(bl_stop_gradient(f->w), binary(f->m, f->threshold));
    f->y = bl_linear(f->x, w, bl_stop_gradient(f->bias));
}

#define RAMT_MASK_PENALTY(IN, OPT, OUT)                                                            \
    IN(m, "f32[L,P]", "grad", "a row for each masked tensor")                                      \
    OPT(power, 2, "[1,2]", "1: sum of |m|; 2: Euclidean norm, not squared")                        \
    OPT(coefficient, 1e-4, "finite", "weight")                                                     \
    OUT(penalty, "f32[]", "coefficient sum of the rows' norms; gradient 0 at a zero row")

BL_CONTRACT(ramt_mask_penalty, RAMT_MASK_PENALTY, "the norm of the masks")
{
    bl_tensor norm = f->power == 1 ? bl_sum(bl_abs(f->m), -1) : bl_norm(f->m, -1);
    f->penalty = bl_mul(f->coefficient, bl_sum(norm));
}

/* --- gradient dropout ------------------------------------------------------------------------- */

#define RAMT_GRADIENT_DROPOUT(IN, OPT, OUT)                                                        \
    IN(g_task, "f32[P]", "", "gradient of the task's loss in the masks")                           \
    IN(g_teacher, "f32[P]", "", "and of the distance to the original predictions")                 \
    IN(u, "f32[P]", "0 <= . < 1", "uniform draws")                                                 \
    OPT(strength, 1.0, "[0,1]", "share of a dropped gradient that is taken away")                  \
    OPT(eps, 1e-8, "[0,inf)", "added to the sum of sizes")                                         \
    OUT(grad, "f32[P]", "((1 - l) + l [p > u]) g_task")                                            \
    OUT(keep_probability, "f32[P]",                                                                \
        "p: 1 where the signs agree, else |g_task| / (|g_task| + |g_teacher|)")

BL_CONTRACT(ramt_gradient_dropout, RAMT_GRADIENT_DROPOUT,
            "drops gradients that disagree with the teacher's")
{
    bl_tensor size = bl_add(bl_add(bl_abs(f->g_task), bl_abs(f->g_teacher)), f->eps);
    bl_tensor both = bl_mul(bl_sign(f->g_task), bl_add(f->g_task, f->g_teacher));
    bl_tensor purity = bl_div(both, bl_select(bl_gt(size, 0), size, 1));
    f->keep_probability = bl_mul(0.5, bl_add(purity, 1));
    bl_tensor kept = bl_cast(bl_gt(f->keep_probability, f->u), BL_F32);
    f->grad = bl_mul(bl_add(bl_sub(1, f->strength), bl_mul(f->strength, kept)), f->g_task);
}

/* --- teacher and head ------------------------------------------------------------------------- */

#define RAMT_TEACHER_LOSS(IN, OPT, OUT)                                                            \
    IN(student, "f32[B,C]", "grad, rows > 0", "logits with masks")                                 \
    IN(teacher, "f32[B,C]", "", "logits of the original network")                                  \
    OPT(temperature, 1.0, "(0,inf)", "of both")                                                    \
    OPT(alpha, 1.0, "[0,1]",                                                                       \
        "share of the teacher in the target; below 1 the target has a "                            \
        "gradient, too")                                                                           \
    OUT(loss, "f32[]", "T^2 times the cross-entropy with the target")

BL_CONTRACT(ramt_teacher_loss, RAMT_TEACHER_LOSS, "distance to the original predictions")
{
    bl_tensor T = f->temperature, share = bl_sub(1, f->alpha);
    bl_tensor target =
        bl_add(bl_mul(f->alpha, bl_stop_gradient(f->teacher)), bl_mul(share, f->student));
    bl_tensor p = bl_softmax(bl_div(target, T), -1);
    f->loss = bl_mul(bl_square(T), bl_soft_cross_entropy(bl_div(f->student, T), p));
}

#define RAMT_COSINE_LOGITS(IN, OPT, OUT)                                                           \
    IN(features, "f32[B,D]", "grad, no zero row", "of the images")                                 \
    IN(text, "f32[C,D]", "", "unit rows, frozen: one a class")                                     \
    IN(log_scale, "f32[]", "", "frozen")                                                           \
    OUT(logits, "f32[B,C]", "exp(log_scale) cosine")

BL_CONTRACT(ramt_cosine_logits, RAMT_COSINE_LOGITS, "logits by cosine, as CLIP's")
{
    bl_tensor unit = bl_unit_rows(f->features, 1e-30);
    bl_tensor cosine = bl_dot(unit, bl_stop_gradient(f->text), false, true);
    f->logits = bl_mul(bl_exp(bl_stop_gradient(f->log_scale)), cosine);
}

const bl_method bl_mask_tuning = {
    .slug = "mask_tuning",
    .family = "adaptation",
    .paper = "Zheng et al. 2023, arXiv 2307.15049",
    .summary = "(no arm) adapts a frozen network by switching weights off",
    .when =
        "Many tasks on one large frozen network with few examples each: a task is stored as one "
        "bit a weight. Costs a second backward pass and a forward pass of the original network.",
    .functions = {&ramt_mask_penalty_contract, &ramt_mask_contract, &ramt_masked_linear_contract,
                  &ramt_gradient_dropout_contract, &ramt_teacher_loss_contract,
                  &ramt_cosine_logits_contract},
    .example = "ballast check tests/cases/21-mask-tuning/ramt_mask-1.safetensors",
};
