/* Saliency-aware partial retraining. Cao and Aref, arXiv 2504.13932 (2025), on ApiQ (Liao et al.
 * 2024). A trained network's weights go to 2 to 4 bits, layer by layer: the clipping range of every
 * group of weights and a low-rank adapter are learned on a few calibration inputs, so that the
 * layer's output stays what it was. With so few, important weights drift; a penalty holds each
 * dequantised weight to the original, by its saliency: the squared gradient of the task's loss.
 *
 * A group is group_size consecutive weights of a row; G = O I / group_size, row by row. */
#include "methods/method.h"

/* --- quantisation ----------------------------------------------------------------------------- */

#define QUANTISER(OPT)                                                                             \
    OPT(bits, 2, "[1,8]", "of a weight; at least 2 where symmetric")                               \
    OPT(group_size, 64, ">= 1", "weights that share a range; divides I")                           \
    OPT(symmetric, 0, "flag", "range centred at 0; else from the smallest to the largest")

#define SALIENT_FAKE_QUANT(IN, OPT, OUT)                                                           \
    IN(w, "f32[O,I]", "", "frozen weights")                                                        \
    IN(up, "f32[G,1]", "grad", "logit of the share of the largest weight; 4 at first")             \
    IN(low, "f32[G,1]", "grad", "likewise of the smallest")                                        \
    QUANTISER(OPT)                                                                                 \
    OUT(w_quant, "f32[O,I]", "(code - zero) scale")                                                \
    OUT(scale, "f32[G,1]", "width of a step")                                                      \
    OUT(zero, "f32[G,1]", "code of 0; whole, perhaps negative; no gradient")                       \
    OUT(code, "i32[O,I]", "0 .. 2^bits - 1")

static bool grouping_fits(bl_tensor w, bl_tensor up, int64_t bits, int64_t group_size,
                          bool symmetric)
{
    int64_t O = bl_dim(w, 0), I = bl_dim(w, 1), G = bl_dim(up, 0);
    if (I % group_size)
        bl_poison(w.graph, "option group_size is %lld, expected a divisor of I = %lld",
                  (long long)group_size, (long long)I);
    else if (G != O * I / group_size)
        bl_poison(w.graph, "up and low have %lld rows, expected G = %lld: one a group",
                  (long long)G, (long long)(O * I / group_size));
    else if (symmetric && bits < 2)
        bl_poison(w.graph, "option bits is %lld, expected at least 2 where symmetric",
                  (long long)bits);
    else
        return true;
    return false;
}

BL_CONTRACT(salient_fake_quant, SALIENT_FAKE_QUANT, "uniform quantisation with learned clipping")
{
    if (!grouping_fits(f->w, f->up, f->bits, f->group_size, f->symmetric))
        return;
    bl_type type = bl_type_of(f->w);
    int64_t top = ((int64_t)1 << f->bits) - 1;
    bl_tensor w = bl_reshape(bl_stop_gradient(f->w), BL_SHAPE(bl_dim(f->up, 0), f->group_size));
    bl_tensor high = bl_mul(bl_sigmoid(f->up), bl_reduce_max_keep(w, -1));
    bl_tensor bottom = bl_mul(bl_sigmoid(f->low), bl_reduce_min_keep(w, -1));

    if (f->symmetric) {
        double half = (double)(((int64_t)1 << (f->bits - 1)) - 1);
        bl_tensor reach = bl_max(bl_abs(high), bl_abs(bottom));
        f->scale = bl_clamp(bl_div(reach, half), 1e-5, 1e4);
        f->zero = bl_full_like(f->scale, half);
    } else {
        f->scale = bl_clamp(bl_div(bl_sub(high, bottom), (double)top), 1e-5, 1e4);
        bl_tensor place = bl_clamp(bl_div(bl_neg(bottom), f->scale), -1e4, 1e4);
        f->zero = bl_stop_gradient(bl_round(place));
    }
    bl_tensor code, quantised = bl_fake_quantize(w, f->scale, f->zero, 0, (double)top, &code);
    f->w_quant = bl_reshape(quantised, type.shape);
    f->code = bl_cast(bl_reshape(code, type.shape), BL_I32);
}

/* --- saliency --------------------------------------------------------------------------------- */

#define SALIENT_FISHER(IN, OPT, OUT)                                                               \
    IN(grads, "f32[N,O,I]", "rows > 0", "gradient of the task's loss, one a calibration sample")   \
    OPT(reduction, "mean", "mean|sum", "over the samples")                                         \
    OUT(saliency, "f32[O,I]", "mean or sum of the squares")

BL_CONTRACT(salient_fisher, SALIENT_FISHER,
            "how much each weight matters: a diagonal Fisher matrix")
{
    bl_tensor square = bl_square(f->grads);
    f->saliency = bl_is(f->reduction, "sum") ? bl_sum(square, 0) : bl_mean(square, 0);
}

/* --- the penalty ------------------------------------------------------------------------------ */

#define LAYER(IN)                                                                                  \
    IN(w, "f32[O,I]", "rows > 0", "original weights")                                              \
    IN(up, "f32[G,1]", "grad", "clipping logits, as salient_fake_quant")                           \
    IN(low, "f32[G,1]", "grad", "")                                                                \
    IN(a, "f32[r,I]", "grad, rows > 0", "the adapter is lora_scale b a")                           \
    IN(b, "f32[O,r]", "grad", "")                                                                  \
    IN(saliency, "f32[O,I]", ">= 0", "of each weight, see salient_fisher")

#define PENALTY(OPT)                                                                               \
    QUANTISER(OPT)                                                                                 \
    OPT(lora_scale, 0.25, "finite", "alpha / r of the adapter")                                    \
    OPT(target, "before_lora", "before_lora|after_lora",                                           \
        "hold the quantised weights, or with their adapter")                                       \
    OPT(weighted, 1, "flag", "by saliency; else all alike")

#define SALIENT_PENALTY(IN, OPT, OUT)                                                              \
    LAYER(IN)                                                                                      \
    PENALTY(OPT)                                                                                   \
    OUT(penalty, "f32[]", "sum of saliency (W - w)^2 over all weights")

static bl_tensor quantised(bl_tensor w, bl_tensor up, bl_tensor low, int64_t bits,
                           int64_t group_size, int64_t symmetric)
{
    struct salient_fake_quant q = {.w = w,
                                   .up = up,
                                   .low = low,
                                   .bits = bits,
                                   .group_size = group_size,
                                   .symmetric = symmetric};
    bl_call(salient_fake_quant, &q);
    return q.w_quant;
}

BL_CONTRACT(salient_penalty, SALIENT_PENALTY, "how far salient weights are from the originals")
{
    bl_tensor w = quantised(f->w, f->up, f->low, f->bits, f->group_size, f->symmetric);
    if (bl_is(f->target, "after_lora"))
        w = bl_add(w, bl_mul(f->lora_scale, bl_matmul(f->b, f->a)));
    bl_tensor square = bl_square(bl_sub(w, bl_stop_gradient(f->w)));
    f->penalty = bl_sum(f->weighted ? bl_mul(bl_stop_gradient(f->saliency), square) : square);
}

/* --- calibration ------------------------------------------------------------------------------ */

#define SALIENT_LAYER_LOSS(IN, OPT, OUT)                                                           \
    LAYER(IN)                                                                                      \
    IN(x_full, "f32[N,I]", "rows > 0", "the layer's inputs in the original network")               \
    IN(x_quant, "f32[N,I]", "", "and in the network quantised so far")                             \
    PENALTY(OPT)                                                                                   \
    OPT(lambda_output, 1.0, "[0,inf)", "weight of the output's error")                             \
    OPT(lambda_reg, 1e-3, "[0,inf)", "weight of the penalty")                                      \
    OPT(augmented, 1, "flag", "compare with the original layer on x_quant, too")                   \
    OUT(loss, "f32[]", "lambda_output output + lambda_reg penalty")                                \
    OUT(output, "f32[]", "mean squared error of the outputs")                                      \
    OUT(penalty, "f32[]", "as salient_penalty: a sum, which grows with the layer")

/* y as x_quant w_quant^T + lora_scale (x_quant a^T) b^T: the adapter is never multiplied out. */
BL_CONTRACT(salient_layer_loss, SALIENT_LAYER_LOSS, "what a quantised layer is calibrated by")
{
    struct salient_penalty p = {.w = f->w,
                                .up = f->up,
                                .low = f->low,
                                .a = f->a,
                                .b = f->b,
                                .saliency = f->saliency,
                                .bits = f->bits,
                                .group_size = f->group_size,
                                .symmetric = f->symmetric,
                                .lora_scale = f->lora_scale,
                                .target = f->target,
                                .weighted = f->weighted};
    bl_call(salient_penalty, &p);
    bl_tensor full = bl_stop_gradient(f->x_full), x = bl_stop_gradient(f->x_quant);
    bl_tensor original = bl_stop_gradient(f->w);
    bl_tensor w = quantised(f->w, f->up, f->low, f->bits, f->group_size, f->symmetric);
    bl_tensor inner = bl_mul(f->lora_scale, bl_dot(x, f->a, false, true));
    bl_tensor y = bl_add(bl_dot(x, w, false, true), bl_dot(inner, f->b, false, true));

    f->output = bl_mean(bl_square(bl_sub(bl_dot(full, original, false, true), y)));
    if (f->augmented) {
        bl_tensor beside = bl_mean(bl_square(bl_sub(bl_dot(x, original, false, true), y)));
        f->output = bl_add(f->output, beside);
    }
    f->penalty = p.penalty;
    f->loss = bl_add(bl_mul(f->lambda_output, f->output), bl_mul(f->lambda_reg, f->penalty));
}

const bl_method bl_saliency_retraining = {
    .slug = "saliency_retraining",
    .family = "adaptation",
    .paper = "Cao and Aref 2025, arXiv 2504.13932",
    .summary = "(no arm) weights to 2 to 4 bits with few calibration data",
    .when = "A trained network must shrink to a few bits a weight and there are little data and no "
            "time to retrain. Costs per-example gradients once, then a small training per layer.",
    .functions = {&salient_layer_loss_contract, &salient_penalty_contract,
                  &salient_fake_quant_contract, &salient_fisher_contract},
    .example = "ballast check tests/cases/38-saliency-retraining/salient_layer_loss-1.safetensors",
};
