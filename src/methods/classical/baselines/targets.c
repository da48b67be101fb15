/* Softer targets and less certain predictions: label smoothing and the confidence penalty. */
#include "methods/classical/baselines/weights.h"

#define BASE_SOFT_CROSS_ENTROPY(IN, OPT, OUT)                                                      \
    IN(logits, "f32[B,C]", "grad, rows > 0", "raw model outputs")                                  \
    IN(target, "f32[B,C]", "grad", "weights of the classes, usually summing to 1")                 \
    OUT(loss, "f32[]", "-mean_b sum_c target log softmax(logits)")

BL_CONTRACT(base_soft_cross_entropy, BASE_SOFT_CROSS_ENTROPY,
            "cross-entropy against distributions: the loss of mixed examples")
{
    f->loss = bl_soft_cross_entropy(f->logits, f->target);
}

/* --- label smoothing -------------------------------------------------------------------------- */

/* (1-eps) target + eps / C: with the uniform distribution over all classes, the true one too. */
static bl_tensor smoothed(bl_tensor target, bl_tensor eps)
{
    double classes = (double)bl_dim(target, -1);
    return bl_add(bl_mul(bl_sub(1, eps), target), bl_div(eps, classes));
}

#define BASE_LABEL_SMOOTHING_LOSS(IN, OPT, OUT)                                                    \
    IN(logits, "f32[B,C]", "grad, rows > 0", "raw model outputs")                                  \
    IN(labels, "i32[B]", "0 <= . < C", "class of each example")                                    \
    OPT(eps, 0.1, "[0,1], tune [0.02,0.3] log", "share given to all classes alike")                \
    OUT(loss, "f32[]", "soft cross-entropy with (1-eps) onehot + eps/C")

BL_CONTRACT(base_label_smoothing_loss, BASE_LABEL_SMOOTHING_LOSS,
            "cross-entropy with smoothed labels (Szegedy et al. 2016)")
{
    bl_tensor hard = bl_onehot(f->labels, bl_dim(f->logits, 1), BL_F32);
    f->loss = bl_soft_cross_entropy(f->logits, smoothed(hard, f->eps));
}

/* Smooths the batch's targets, so that it combines with mixup and with any loss on distributions.
 */
static void label_smoothing_batch(bl_step *s, const void *options)
{
    const struct base_label_smoothing_loss *o = options;
    s->targets = smoothed(bl_target_distributions(s), o->eps);
    s->target_form = BL_DISTRIBUTIONS;
}

const bl_method bl_label_smoothing = {
    .slug = "label_smoothing",
    .family = "classical",
    .paper = "Szegedy et al. 2016, arXiv 1512.00567",
    .summary = "gives every class a small share of every target",
    .when = "Against overconfidence, and under mild label noise. Free. Accuracy moves little; "
            "probabilities become flatter.",
    .functions = {&base_label_smoothing_loss_contract, &base_soft_cross_entropy_contract},
    .example = "--arm \"label_smoothing(eps=0.1)\"",
    .traits = BL_CLASSIFICATION | BL_SOFTENS_LABELS,
    .hooks = &(const bl_hooks){.batch = label_smoothing_batch},
};

/* --- confidence penalty ----------------------------------------------------------------------- */

static bl_tensor mean_entropy(bl_tensor logits)
{
    bl_tensor log_p = bl_log_softmax(logits, -1);
    return bl_neg(bl_mean(bl_sum(bl_mul(bl_exp(log_p), log_p), -1)));
}

#define BASE_CONFIDENCE_PENALTY_LOSS(IN, OPT, OUT)                                                 \
    IN(logits, "f32[B,C]", "grad, rows > 0", "raw model outputs")                                  \
    IN(labels, "i32[B]", "0 <= . < C", "class of each example")                                    \
    OPT(beta, 0.1, "[0,inf), tune [0.01,1] log", "reward for entropy")                             \
    OUT(loss, "f32[]", "mean (CE_b - beta H_b)")                                                   \
    OUT(entropy, "f32[]", "mean H_b, H_b = -sum p log p")

BL_CONTRACT(base_confidence_penalty_loss, BASE_CONFIDENCE_PENALTY_LOSS,
            "cross-entropy minus the entropy of the prediction (Pereyra et al. 2017)")
{
    f->entropy = mean_entropy(f->logits);
    f->loss = bl_sub(bl_cross_entropy(f->logits, f->labels), bl_mul(f->beta, f->entropy));
}

/* Takes beta H off whatever the loss is, so that it combines with other losses. */
static void confidence_penalty_loss(bl_step *s, const void *options)
{
    const struct base_confidence_penalty_loss *o = options;
    bl_tensor entropy = mean_entropy(s->logits);
    bl_measure(s, "entropy", entropy);
    s->loss = bl_sub(s->loss, bl_mul(o->beta, entropy));
}

const bl_method bl_confidence_penalty = {
    .slug = "confidence_penalty",
    .family = "classical",
    .paper = "Pereyra et al. 2017, arXiv 1701.06548",
    .summary = "rewards predictions that are not too certain",
    .when = "As label_smoothing, acting where the network is certain. Free.",
    .functions = {&base_confidence_penalty_loss_contract},
    .example = "--arm \"confidence_penalty(beta=0.3)\"",
    .traits = BL_CLASSIFICATION,
    .hooks = &(const bl_hooks){.loss = confidence_penalty_loss},
};
