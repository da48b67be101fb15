/* Early-Learning Regularization. Liu et al., NeurIPS 2020, arXiv 2007.00151. A network first learns
 * what the correct labels share and memorises the wrong ones later. Each training example keeps a
 * target t, the running average of its predictions; a term that rewards agreement with t keeps the
 * gradient of right labels alive and cancels that of wrong ones.
 *
 * Where the paper and its code differ we follow the code: predictions are clamped (clamp_eps near 0
 * recovers the paper). */
#include "methods/method.h"

#define ELR_LOSS(IN, OPT, OUT)                                                                     \
    IN (logits,    "f32[B,C]", "grad, rows > 0",       "raw model outputs")                        \
    IN (labels,    "i32[B]",   "0 <= . < C",           "given class, perhaps wrong")               \
    IN (bank,      "f32[N,C]", "",                     "targets, zero at first")                   \
    IN (index,     "i32[B]",   "0 <= . < N, distinct", "row of each example in the bank")          \
    OPT(lambda,    3.0,        "[0,inf), tune [1,10] log", "weight of the term")                   \
    OPT(beta,      0.7,        "[0,1], tune [0.3,0.95]", "share of the old target kept")           \
    OPT(clamp_eps, 1e-4,       "(0,0.5), tune never", "keeps p in [eps, 1-eps]")                   \
    OUT(loss,      "f32[]",    "ce + lambda reg")                                                  \
    OUT(bank_new,  "f32[N,C]", "bank with B rows replaced")                                        \
    OUT(ce,        "f32[]",    "cross-entropy, unclamped")                                         \
    OUT(reg,       "f32[]",    "mean log(1 - <t,p>), negative")

BL_CONTRACT(elr_loss, ELR_LOSS, "cross-entropy plus the early-learning term, and the new targets")
{
    bl_tensor p   = bl_softmax(f->logits, -1);
    bl_tensor pc  = bl_clamp(p, f->clamp_eps, bl_sub(1, f->clamp_eps));
    bl_tensor pd  = bl_stop_gradient(pc);
    bl_tensor old = bl_take(f->bank, f->index);
    bl_tensor now = bl_div(pd, bl_sum_keep(pd, -1));
    bl_tensor t   = bl_add(bl_mul(f->beta, old), bl_mul(bl_sub(1, f->beta), now));

    f->ce       = bl_cross_entropy(f->logits, f->labels);
    f->reg      = bl_mean(bl_log(bl_sub(1, bl_sum(bl_mul(t, pc), -1)))); /* pc not renormalised */
    f->loss     = bl_add(f->ce, bl_mul(f->lambda, f->reg));
    f->bank_new = bl_put(f->bank, f->index, t);
}

#define ELR_PLUS_TARGETS(IN, OPT, OUT)                                                             \
    IN (peer_logits, "f32[B,C]", "rows > 0",             "peer's averaged network, unmixed batch") \
    IN (bank,        "f32[N,C]", "",                     "targets, zero at first")                 \
    IN (index,       "i32[B]",   "0 <= . < N, distinct", "row of each example in the bank")        \
    IN (perm,        "i32[B]",   "permutation",          "mixup partner of each row")              \
    IN (mix,         "f32[]",    "0 <= . <= 1",          "share of a row's own target")            \
    OPT(beta,        0.7,        "[0,1]",                "share of the old target kept")           \
    OUT(bank_new,    "f32[N,C]", "bank with B rows replaced")                                      \
    OUT(q,           "f32[B,C]", "mixed targets for elr_plus_loss")

BL_CONTRACT(elr_plus_targets, ELR_PLUS_TARGETS, "ELR+: targets from the peer's averaged network")
{
    bl_tensor p   = bl_stop_gradient(bl_softmax(f->peer_logits, -1)); /* not clamped here */
    bl_tensor old = bl_take(f->bank, f->index);
    bl_tensor row = bl_add(bl_mul(f->beta, old), bl_mul(bl_sub(1, f->beta), p));

    f->bank_new = bl_put(f->bank, f->index, row);
    f->q        = bl_add(bl_mul(f->mix, row), bl_mul(bl_sub(1, f->mix), bl_take(row, f->perm)));
}

#define ELR_PLUS_LOSS(IN, OPT, OUT)                                                                \
    IN (logits,      "f32[B,C]", "grad, rows > 0", "outputs for the mixed batch")                  \
    IN (soft_labels, "f32[B,C]", "",               "mixed one-hot labels")                         \
    IN (q,           "f32[B,C]", "",               "mixed targets")                                \
    OPT(lambda,      3.0,        "[0,inf)",        "weight of the term")                           \
    OPT(ramp,        1.0,        "[0,1]",          "warm-up factor of lambda, see elr_rampup")     \
    OPT(clamp_eps,   1e-4,       "(0,0.5)",        "keeps p in [eps, 1-eps]")                      \
    OPT(gate_labels, 0,          "flag",           "weigh the labels with q (CIFAR-100 code)")     \
    OUT(loss,        "f32[]",    "ce + ramp lambda reg")                                           \
    OUT(ce,          "f32[]",    "cross-entropy with the (gated) soft labels")                     \
    OUT(reg,         "f32[]",    "mean log(1 - <q,p>), negative")

static bl_contract_check elr_plus_loss_check;

BL_CONTRACT_CHECKED(elr_plus_loss, ELR_PLUS_LOSS, "the ELR+ objective on a mixed batch",
                    elr_plus_loss_check)
{
    bl_tensor q = bl_stop_gradient(f->q), y = bl_stop_gradient(f->soft_labels);
    if (f->gate_labels) {
        y = bl_mul(y, q);
        y = bl_div(y, bl_sum_keep(y, -1));
    }
    bl_tensor p  = bl_softmax(f->logits, -1);
    bl_tensor pc = bl_clamp(p, f->clamp_eps, bl_sub(1, f->clamp_eps));

    f->ce   = bl_neg(bl_mean(bl_sum(bl_mul(y, bl_log_softmax(f->logits, -1)), -1)));
    f->reg  = bl_mean(bl_log(bl_sub(1, bl_sum(bl_mul(q, pc), -1))));
    f->loss = bl_add(f->ce, bl_mul(bl_mul(f->ramp, f->lambda), f->reg));
}

/* A row whose label and target share no class would be divided by zero. */
static bl_status elr_plus_loss_check(const bl_dictionary *in, const void *options)
{
    const bl_array *y = bl_dictionary_find(in, "soft_labels"), *q = bl_dictionary_find(in, "q");
    int64_t rows = y->type.shape.dim[0], classes = y->type.shape.dim[1];
    if (!((const struct elr_plus_loss *)options)->gate_labels)
        return BL_OK;
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t c = i * classes; c < (i + 1) * classes; c++)
            sum += bl_array_get(y, c) * bl_array_get(q, c);
        if (sum == 0)
            return bl_fail(BL_INVALID,
                           "elr_plus_loss: soft_labels * q sums to 0 in row %lld; with gate_labels "
                           "every row needs a class that both give a share",
                           (long long)i);
    }
    return BL_OK;
}

#define ELR_RAMPUP(IN, OPT, OUT)                                                                   \
    IN (step,   "f32[n]", "",                "steps done")                                         \
    OPT(length, 0.0,      "[0,inf)",         "steps of warm-up; 0: none")                          \
    OUT(value,  "f32[n]", "exp(-5 (1 - step/length)^2), 1 from length on")

BL_CONTRACT(elr_rampup, ELR_RAMPUP, "ELR+: exponential warm-up of the term's weight")
{
    bl_tensor warming = bl_gt(f->length, 0), length = bl_select(warming, f->length, 1);
    bl_tensor left    = bl_sub(1, bl_div(bl_clamp(f->step, 0, length), length));
    f->value = bl_select(warming, bl_exp(bl_mul(-5, bl_square(left))), bl_ones_like(f->step));
}

/* Adds the term to whatever the loss is so far: alone, that is cross-entropy, and loss is the
 * paper's. */
static void elr_in_training(bl_step *s, const void *options)
{
    struct elr_loss f = *(const struct elr_loss *)options;
    f.logits = s->logits, f.labels = s->targets, f.index = s->index, f.bank = bl_state(s, "bank");
    bl_call(elr_loss, &f);
    s->loss = bl_add(s->loss, bl_mul(f.lambda, f.reg));
    bl_set_state(s, "bank", f.bank_new);

    bl_tensor kept = bl_argmax(bl_take(f.bank_new, s->index), -1);
    bl_measure(s, "suspect labels", bl_mean(bl_cast(bl_ne(kept, s->targets), BL_F32)));
}

static const bl_hooks elr_hooks = {
    .loss = elr_in_training,
    .state = {{"bank", "f32[N,C]", 0.0}},
    .beliefs = "bank",
};

const bl_method bl_elr = {
    .slug = "elr",
    .family = "labels",
    .paper = "Liu et al. 2020, arXiv 2007.00151",
    .summary = "keeps a network from memorising wrong labels",
    .when = "Training labels are partly wrong and there is no clean subset. Costs a row of class "
            "probabilities per training example.",
    .functions = {&elr_loss_contract, &elr_plus_loss_contract, &elr_plus_targets_contract,
                  &elr_rampup_contract},
    .example = "--arm \"elr(lambda=3,beta=0.7)\"",
    .traits = BL_CLASSIFICATION | BL_HARD_LABELS | BL_EXAMPLE_INDEX,
    .hooks = &elr_hooks,
};
