/* AdaMixUp. Guo, Mao and Zhang, AAAI 2019, arXiv 1809.02499. A mixture of two inputs may land on a
 * real example of a third class, where its blended label is wrong. A policy network proposes, pair
 * by pair, the interval that the share is drawn from, and a discriminator that tells mixtures from
 * real examples keeps mixtures off the data.
 *
 * Classifier, policy and discriminator all minimise the one loss; gradients reach the policy
 * through the mixed inputs and the mixed labels. "sum" is the paper's objective, "concat" its
 * code's. */
#include "methods/method.h"

/* x [B,..] as it is multiplied with a value for each example: [B,1,..]. */
static bl_tensor beside(bl_tensor value, bl_tensor x)
{
    bl_shape rows = bl_type_of(x).shape;
    for (int i = 1; i < rows.rank; i++)
        rows.dim[i] = 1;
    return bl_reshape(value, rows);
}

#define ADAMIXUP_POLICY_INPUT(IN, OPT, OUT)                                                        \
    IN(x1, "f32[B,S...]", "grad", "first of each pair")                                            \
    IN(x2, "f32[B,S...]", "grad", "second of each pair")                                           \
    IN(m1, "f32[B,S...]", "", "noise: standard normal cut off at 2")                               \
    IN(m2, "f32[B,S...]", "", "likewise")                                                          \
    OUT(p, "f32[B,S...]", "(m1 x1 + m2 x2) / 2")

BL_CONTRACT(adamixup_policy_input, ADAMIXUP_POLICY_INPUT, "what the policy network sees of a pair")
{
    bl_tensor first = bl_mul(bl_stop_gradient(f->m1), f->x1);
    bl_tensor second = bl_mul(bl_stop_gradient(f->m2), f->x2);
    f->p = bl_mul(0.5, bl_add(first, second));
}

#define ADAMIXUP_REGION(IN, OPT, OUT)                                                              \
    IN(gate_logits, "f32[B,3]", "grad", "outputs of the policy network")                           \
    OUT(lo, "f32[B]", "s0, s = softmax(gate_logits): where the interval of the share begins")      \
    OUT(width, "f32[B]", "s1: its length; lo + width <= 1")

BL_CONTRACT(adamixup_region, ADAMIXUP_REGION, "the interval that a pair's share is drawn from")
{
    bl_tensor s = bl_softmax(f->gate_logits, 1);
    f->lo = bl_pick(s, 1, 0);
    f->width = bl_pick(s, 1, 1);
}

#define ADAMIXUP_MIX(IN, OPT, OUT)                                                                 \
    IN(x1, "f32[B,S...]", "grad, rows > 0", "first of each pair; it gets the share lam")           \
    IN(x2, "f32[B,S...]", "grad", "second of each pair")                                           \
    IN(y1, "f32[B,C]", "grad", "labels of x1, one-hot or soft")                                    \
    IN(y2, "f32[B,C]", "grad", "labels of x2")                                                     \
    IN(gate_logits, "f32[B,3]", "grad", "outputs of the policy network for the pair")              \
    IN(u, "f32[B]", "[0,1]", "uniform random numbers")                                             \
    OUT(x_mix, "f32[B,S...]", "lam x1 + (1-lam) x2")                                               \
    OUT(y_mix, "f32[B,C]", "lam y1 + (1-lam) y2")                                                  \
    OUT(lam, "f32[B]", "lo + u width")

static bl_tensor blend(bl_tensor lam, bl_tensor a, bl_tensor b)
{
    bl_tensor share = beside(lam, a);
    return bl_add(bl_mul(share, a), bl_mul(bl_sub(1, share), b));
}

BL_CONTRACT(adamixup_mix, ADAMIXUP_MIX, "mixes pairs by shares that the policy network learns")
{
    struct adamixup_region region = {.gate_logits = f->gate_logits};
    bl_call(adamixup_region, &region);
    f->lam = bl_add(region.lo, bl_mul(bl_stop_gradient(f->u), region.width));
    f->x_mix = blend(f->lam, f->x1, f->x2);
    f->y_mix = blend(f->lam, f->y1, f->y2);
}

#define ADAMIXUP_LOSS(IN, OPT, OUT)                                                                \
    IN(cls_logits, "f32[N,C]", "grad, rows > 0", "classifier, on mixed and on clean rows")         \
    IN(cls_targets, "f32[N,C]", "grad, finite", "their distributions over classes")                \
    IN(cls_mixed, "i32[N]", "in {0,1}", "1: mixed, 0: clean")                                      \
    IN(intr_logits, "f32[M,2]", "grad, rows > 0", "discriminator")                                 \
    IN(intr_real, "i32[M]", "in {0,1}", "1: a real example, 0: a mixture")                         \
    OPT(reduction, "sum", "sum|concat", "mean over clean plus mean over mixed rows, or over all")  \
    OPT(w_intr, 1.0, "[0,inf)", "weight of the discriminator's term")                              \
    OUT(loss, "f32[]", "ce_clean + ce_mixed, or the mean over all rows; + w_intr ce_intr")         \
    OUT(ce_clean, "f32[]", "cross-entropy of the clean rows, 0 if there are none")                 \
    OUT(ce_mixed, "f32[]", "of the mixed rows, likewise")                                          \
    OUT(ce_intr, "f32[]", "of the discriminator")

/* The mean over rows in the set, 0 where it is empty. */
static bl_tensor mean_of(bl_tensor row, bl_tensor in_set)
{
    bl_tensor count = bl_max(bl_sum(bl_cast(in_set, BL_F32)), 1);
    return bl_div(bl_sum(bl_select(in_set, row, 0)), count);
}

BL_CONTRACT(adamixup_loss, ADAMIXUP_LOSS, "the loss of classifier, policy and discriminator")
{
    bl_tensor ce = bl_neg(bl_sum(bl_mul(f->cls_targets, bl_log_softmax(f->cls_logits, 1)), 1));
    f->ce_clean = mean_of(ce, bl_eq(f->cls_mixed, 0));
    f->ce_mixed = mean_of(ce, bl_eq(f->cls_mixed, 1));
    f->ce_intr = bl_cross_entropy(f->intr_logits, f->intr_real);
    bl_tensor classes = bl_is(f->reduction, "sum") ? bl_add(f->ce_clean, f->ce_mixed) : bl_mean(ce);
    f->loss = bl_add(classes, bl_mul(f->w_intr, f->ce_intr));
}

const bl_method bl_adamixup = {
    .slug = "adamixup",
    .family = "inputs",
    .paper = "Guo et al. 2019, arXiv 1809.02499",
    .summary = "(no arm) mixup whose shares are learned, pair by pair",
    .when =
        "Where mixup under-fits because mixtures fall on other classes. Trains a policy network "
        "and a discriminator beside the classifier; try mixup with a small alpha first.",
    .functions = {&adamixup_mix_contract, &adamixup_loss_contract, &adamixup_region_contract,
                  &adamixup_policy_input_contract},
    .example = "ballast show adamixup_mix",
};
