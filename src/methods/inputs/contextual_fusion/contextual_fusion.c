/* Contextual fusion. Akumalla, Haney and Bazhenov 2020, arXiv 2011.09526. One frozen network looks
 * at the object, another at the scene; a linear classifier reads the features of both. What ruins
 * one stream leaves the other, and where it is known which stream is attacked, a penalty on its
 * weights moves the decision to the other.
 *
 * There is no official code. The data term is a mean over examples where a published summary has a
 * sum, so that alpha does not depend on the batch. */
#include "methods/method.h"

static bl_tensor fused_logits(bl_tensor fg, bl_tensor bg, bl_tensor w_fg, bl_tensor w_bg,
                              bl_tensor bias)
{
    bl_tensor object = bl_dot(fg, w_fg, false, true), scene = bl_dot(bg, w_bg, false, true);
    return bl_add(bl_add(object, scene), bias);
}

#define CONTEXTUAL_FUSION_LOGITS(IN, OPT, OUT)                                                     \
    IN(fg, "f32[B,Df]", "grad, rows > 0", "features of the object")                                \
    IN(bg, "f32[B,Db]", "grad", "features of the scene")                                           \
    IN(w_fg, "f32[C,Df]", "grad, rows > 0", "weights of the object's features")                    \
    IN(w_bg, "f32[C,Db]", "grad", "weights of the scene's features")                               \
    IN(bias, "f32[C]", "grad", "")                                                                 \
    OUT(logits, "f32[B,C]", "fg w_fg^T + bg w_bg^T + bias")

BL_CONTRACT(contextual_fusion_logits, CONTEXTUAL_FUSION_LOGITS,
            "a linear classifier on the features of two networks")
{
    f->logits = fused_logits(f->fg, f->bg, f->w_fg, f->w_bg, f->bias);
}

#define CONTEXTUAL_FUSION_LOSS(IN, OPT, OUT)                                                       \
    IN(fg, "f32[B,Df]", "grad, rows > 0", "features of the object")                                \
    IN(bg, "f32[B,Db]", "grad", "features of the scene")                                           \
    IN(w_fg, "f32[C,Df]", "grad, rows > 0", "weights of the object's features")                    \
    IN(w_bg, "f32[C,Db]", "grad", "weights of the scene's features")                               \
    IN(bias, "f32[C]", "grad", "")                                                                 \
    IN(labels, "i32[B]", "0 <= . < C", "class of each example")                                    \
    OPT(alpha, 0.0, "[0,inf)", "weight of the penalty on the attacked stream, fg")                 \
    OUT(loss, "f32[]", "ce + alpha penalty")                                                       \
    OUT(ce, "f32[]", "cross-entropy, mean over examples")                                          \
    OUT(penalty, "f32[]", "sum of the squares of w_fg")

BL_CONTRACT(contextual_fusion_loss, CONTEXTUAL_FUSION_LOSS,
            "cross-entropy and a penalty on the stream that is attacked")
{
    bl_tensor logits = fused_logits(f->fg, f->bg, f->w_fg, f->w_bg, f->bias);
    f->ce = bl_cross_entropy(logits, f->labels);
    f->penalty = bl_sum(bl_square(f->w_fg));
    f->loss = bl_add(f->ce, bl_mul(f->alpha, f->penalty));
}

#define CONTEXTUAL_FUSION_FGSM(IN, OPT, OUT)                                                       \
    IN(x, "f32[S...]", "", "images")                                                               \
    IN(grad, "f32[S...]", "", "gradient of the attacked classifier's loss in x")                   \
    OPT(eps, 0.03, "[0,inf)", "size of the step")                                                  \
    OPT(lo, 0.0, "finite", "lowest value of a pixel")                                              \
    OPT(hi, 1.0, "finite, > lo", "highest")                                                        \
    OUT(x_adv, "f32[S...]", "x + eps sign(grad), cut to lo..hi")

BL_CONTRACT(contextual_fusion_fgsm, CONTEXTUAL_FUSION_FGSM,
            "one step against a classifier (Goodfellow et al. 2015)")
{
    bl_tensor step = bl_mul(f->eps, bl_sign(f->grad));
    f->x_adv = bl_stop_gradient(bl_clamp(bl_add(f->x, step), f->lo, f->hi));
}

#define CONTEXTUAL_FUSION_BLUR(IN, OPT, OUT)                                                       \
    IN(x, "f32[B,H,W,C]", "grad", "images")                                                        \
    OPT(sigma, 1.0, "[0,inf)", "width in pixels; 0 leaves images as they are; not scheduled")      \
    OPT(truncate, 4.0, "(0,inf)", "the filter ends after this many sigma; not scheduled")          \
    OUT(blurred, "f32[B,H,W,C]", "Gaussian filter along both axes, mirrored with the edge")

BL_CONTRACT(contextual_fusion_blur, CONTEXTUAL_FUSION_BLUR, "Gaussian blur")
{
    if (!bl_is_number(f->sigma) || !bl_is_number(f->truncate)) {
        bl_poison(graph, "sigma and truncate decide how wide the filter is: they must be numbers, "
                         "not scheduled");
        return;
    }
    double sigma = f->sigma.number, radius = floor(f->truncate.number * sigma + 0.5);
    bool wide = radius > 0; /* else the filter is the pixel itself */
    f->blurred = wide ? bl_gaussian_blur(f->x, sigma, (int64_t)fmin(radius, 1e9), false) : f->x;
}

#define CONTEXTUAL_FUSION_BALANCE(IN, OPT, OUT)                                                    \
    IN(w_fg, "f32[C,Df]", "", "weights of the object's features")                                  \
    IN(w_bg, "f32[C,Db]", "", "weights of the scene's features")                                   \
    OUT(fg_share, "f32[C]", "|w_fg[c]| / (|w_fg[c]| + |w_bg[c]|); 0.5 where both are 0")

BL_CONTRACT(contextual_fusion_balance, CONTEXTUAL_FUSION_BALANCE,
            "how much of each class's decision rests on the object")
{
    bl_tensor object = bl_norm(bl_cast(f->w_fg, BL_F64), 1);
    bl_tensor both = bl_add(object, bl_norm(bl_cast(f->w_bg, BL_F64), 1));
    bl_tensor none = bl_eq(both, 0);
    bl_tensor share = bl_select(none, 0.5, bl_div(object, bl_select(none, 1, both)));
    f->fg_share = bl_cast(share, BL_F32);
}

const bl_method bl_contextual_fusion = {
    .slug = "contextual_fusion",
    .family = "inputs",
    .paper = "Akumalla et al. 2020, arXiv 2011.09526",
    .summary = "(no arm) classifies from the features of an object and of a scene network",
    .when =
        "Two pretrained encoders of different tasks are at hand and context tells of the class. "
        "Trains a linear layer only; slows the loss of accuracy under attack or blur.",
    .functions = {&contextual_fusion_loss_contract, &contextual_fusion_logits_contract,
                  &contextual_fusion_balance_contract, &contextual_fusion_fgsm_contract,
                  &contextual_fusion_blur_contract},
    .example = "ballast show contextual_fusion_loss",
};
