/* Grokking at the Edge of Numerical Stability. Prieto et al., ICLR 2025, arXiv 2501.04697. Once all
 * training examples are right, gradients mostly lengthen the weights; logits grow until softmax in
 * single precision rounds the loss to 0, and learning stops before the network generalises. Here
 * are a softmax that grows linearly, gradients without the part along the weights, and two measures
 * of the trouble.
 *
 * Where the paper's formula and the published code differ, gradients are rescaled as in the code;
 * rescale = false is the formula. */
#include "methods/method.h"

/* log s(z), s(z) = 1 + z for z >= 0 and 1 / (1 - z) below: log(1 + |z|) with the sign of z. */
static bl_tensor log_stable(bl_tensor z)
{
    bl_tensor above = bl_ge(z, 0), size = bl_log1p(bl_select(above, z, bl_neg(z)));
    return bl_select(above, size, bl_neg(size));
}

#define GROKKING_STABILITY_STABLEMAX(IN, OPT, OUT)                                                 \
    IN(z, "f32[S...,C]", "grad, finite", "logits")                                                 \
    OUT(p, "f32[S...,C]", "s(z) / sum_c s(z)")

static bl_contract_check grokking_stability_stablemax_check;

BL_CONTRACT_CHECKED(grokking_stability_stablemax, GROKKING_STABILITY_STABLEMAX,
                    "probabilities that grow linearly with logits",
                    grokking_stability_stablemax_check)
{
    f->p = bl_softmax(log_stable(f->z), -1);
}

static bl_status grokking_stability_stablemax_check(const bl_dictionary *in,
                                                    BL_UNUSED_ const void *options)
{
    bl_shape shape = bl_dictionary_find(in, "z")->type.shape;
    if (shape.dim[shape.rank - 1] > 0)
        return BL_OK;
    return bl_fail(BL_INVALID,
                   "grokking_stability_stablemax: z has 0 classes, expected at least 1");
}

#define GROKKING_STABILITY_STABLEMAX_CE(IN, OPT, OUT)                                              \
    IN(z, "f32[B,C]", "grad, rows > 0, finite", "logits")                                          \
    IN(y, "i32[B]", "0 <= . < C", "class of each example")                                         \
    OPT(reduction, "mean", "mean|sum", "over examples")                                            \
    OUT(loss, "f32[]", "mean or sum of nll")                                                       \
    OUT(nll, "f32[B]", "-log p_y")

BL_CONTRACT(grokking_stability_stablemax_ce, GROKKING_STABILITY_STABLEMAX_CE,
            "cross-entropy of those probabilities")
{
    f->nll = bl_cross_entropy_rows(log_stable(f->z), f->y);
    f->loss = bl_is(f->reduction, "sum") ? bl_sum(f->nll) : bl_mean(f->nll);
}

/* sum a b over all elements, in double. */
static bl_tensor inner(bl_tensor a, bl_tensor b)
{
    return bl_inner(bl_to_f64(a), bl_to_f64(b));
}

#define GROKKING_STABILITY_PERP_GRAD(IN, OPT, OUT)                                                 \
    IN(w, "f32[S...]", "finite", "a parameter, taken as one vector")                               \
    IN(g, "f32[S...]", "finite", "its gradient")                                                   \
    OPT(rescale, 1, "flag", "give the rest the length of g (code); false: the paper's formula")    \
    OPT(eps, 1e-30, "(0,inf)", "added to what is divided by")                                      \
    OUT(g_out, "f32[S...]", "g without its part along w")                                          \
    OUT(coef, "f32[]", "<w,g> / (<w,w> + eps)")

BL_CONTRACT(grokking_stability_perp_grad, GROKKING_STABILITY_PERP_GRAD,
            "removes a gradient's part along its own parameter")
{
    bl_tensor eps = bl_cast(f->eps, BL_F64), g = bl_cast(f->g, BL_F64);
    bl_tensor coef = bl_div(inner(f->w, f->g), bl_add(inner(f->w, f->w), eps));
    bl_tensor rest = bl_sub(g, bl_mul(coef, bl_cast(f->w, BL_F64)));
    if (f->rescale) {
        bl_tensor length = bl_sqrt(inner(f->g, f->g)), left = bl_sqrt(inner(rest, rest));
        bl_tensor scaled = bl_mul(rest, bl_div(length, bl_add(left, eps)));
        /* Of a gradient along w only rounding is left, which must not be blown up. */
        rest = bl_select(bl_le(left, bl_mul(1e-6, length)), 0, scaled);
    }
    f->coef = bl_cast(coef, BL_F32);
    f->g_out = bl_cast(rest, BL_F32);
}

#define GROKKING_STABILITY_SOFTMAX_COLLAPSE(IN, OPT, OUT)                                          \
    IN(z, "f32[B,C]", "", "logits")                                                                \
    IN(y, "i32[B]", "0 <= . < C", "class of each example")                                         \
    OUT(collapsed, "f32[]", "share of examples whose softmax denominator is 1")                    \
    OUT(zero_loss, "f32[]", "share of examples whose cross-entropy is 0")                          \
    OUT(flag, "u8[B]", "1 where the denominator is 1")

/* exp(z - *most) summed from left to right in single precision: the rounding is what is measured.
 */
static float denominator(const float *z, int64_t classes, float *most)
{
    float sum = 0;
    *most = z[0];
    for (int64_t c = 1; c < classes; c++)
        *most = fmaxf(*most, z[c]);
    for (int64_t c = 0; c < classes; c++)
        sum += expf(z[c] - *most);
    return sum;
}

BL_HOST(grokking_stability_softmax_collapse, GROKKING_STABILITY_SOFTMAX_COLLAPSE,
        "examples that single precision has stopped learning from")
{
    int64_t rows = f->z.type.shape.dim[0], classes = f->z.type.shape.dim[1];
    double collapsed = 0, zero = 0;
    for (int64_t b = 0; b < rows; b++) {
        const float *z = bl_f32(&f->z) + b * classes;
        float most, sum = denominator(z, classes, &most);
        float loss = logf(sum) - (z[bl_i32(&f->y)[b]] - most);
        bool one = !(sum < 1) && !(sum > 1) && !isnan(sum);
        bl_u8(&f->flag)[b] = one;
        collapsed += one;
        zero += !(loss < 0) && !(loss > 0) && !isnan(loss);
    }
    bl_array_set(&f->collapsed, 0, collapsed / fmax((double)rows, 1));
    bl_array_set(&f->zero_loss, 0, zero / fmax((double)rows, 1));
    return BL_OK;
}

#define GROKKING_STABILITY_NLM(IN, OPT, OUT)                                                       \
    IN(w, "f32[S...]", "", "a parameter, or all of them in one vector")                            \
    IN(g, "f32[S...]", "", "its gradient")                                                         \
    OUT(cosine, "f32[]", "-<w,g> / (|w| |g|); 0 where a length is 0")

BL_CONTRACT(grokking_stability_nlm, GROKKING_STABILITY_NLM,
            "how far a descent step only lengthens the weights")
{
    bl_tensor lengths = bl_mul(bl_sqrt(inner(f->w, f->w)), bl_sqrt(inner(f->g, f->g)));
    bl_tensor some = bl_gt(lengths, 0);
    bl_tensor cosine = bl_div(bl_neg(inner(f->w, f->g)), bl_select(some, lengths, 1));
    f->cosine = bl_cast(bl_select(some, cosine, 0), BL_F32);
}

const bl_method bl_grokking_stability = {
    .slug = "grokking_stability",
    .family = "theory",
    .paper = "Prieto et al. 2025, arXiv 2501.04697",
    .summary = "(no arm) softmax that does not collapse, gradients across the weights",
    .when = "The training loss reaches 0 and test accuracy stays low, or grokking is wanted "
            "without weight decay. Costs a pass over the weights.",
    .functions = {&grokking_stability_stablemax_ce_contract, &grokking_stability_stablemax_contract,
                  &grokking_stability_perp_grad_contract,
                  &grokking_stability_softmax_collapse_contract, &grokking_stability_nlm_contract},
    .example = "ballast show grokking_stability_perp_grad",
};
