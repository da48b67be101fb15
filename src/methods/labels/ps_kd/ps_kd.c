/* Self-knowledge distillation with progressive refinement of targets. Kim et al., ICCV 2021,
 * arXiv 2006.12000. The one-hot target of every example is softened with the prediction that the
 * same network made for it one epoch earlier, and these predictions are trusted more as training
 * goes on.
 *
 * The paper can be read as keeping a copy of last epoch's network as the teacher; its code keeps
 * the predictions, made in the forward pass of training, and so do we. */
#include "methods/method.h"
#include "ballast/solve.h"

#define PSKD_LOSS(IN, OPT, OUT)                                                                    \
    IN (logits,   "f32[B,C]",  "grad, rows > 0",       "outputs of this step")                     \
    IN (labels,   "i32[B]",    "0 <= . < C",           "class of each example")                    \
    IN (bank,     "f32[N,C]",  "",                     "what each example got last epoch")         \
    IN (index,    "i32[B]",    "0 <= . < N, distinct", "row of each example in the bank")          \
    OPT(alpha_T,  0.8,         "[0,1]",                "trust in past predictions at the end")     \
    OPT(epoch,    BL_REQUIRED, "[1,epochs], integer",  "1, 2, .. epochs; may be a tensor")         \
    OPT(epochs,   BL_REQUIRED, ">= 1, integer",        "planned number of epochs")                 \
    OUT(loss,     "f32[]",     "mean cross-entropy with the soft targets")                         \
    OUT(bank_new, "f32[N,C]",  "bank with B rows replaced by softmax(logits)")                     \
    OUT(targets,  "f32[B,C]",  "the soft targets")                                                 \
    OUT(alpha_t,  "f32[]",     "trust at this epoch")

BL_CONTRACT(pskd_loss, PSKD_LOSS, "soft targets from past predictions, loss and new predictions")
{
    bl_tensor alpha  = bl_max(0, bl_div(bl_mul(f->alpha_T, f->epoch), f->epochs));
    bl_tensor onehot = bl_onehot(f->labels, bl_dim(f->logits, 1), BL_F32);
    /* In the first epoch there is no prediction yet, whatever the bank holds. */
    bl_tensor prev   = bl_select(bl_le(f->epoch, 1), onehot, bl_take(f->bank, f->index));
    bl_tensor target = bl_add(bl_mul(bl_sub(1, alpha), onehot), bl_mul(alpha, prev));
    bl_tensor log_p  = bl_log_softmax(f->logits, -1);

    f->targets  = bl_stop_gradient(target);
    f->alpha_t  = bl_is_number(alpha) ? bl_full(graph, BL_F32, BL_SCALAR, alpha.number) : alpha;
    f->loss     = bl_neg(bl_mean(bl_sum(bl_mul(f->targets, log_p), -1)));
    f->bank_new = bl_put(f->bank, f->index, bl_stop_gradient(bl_softmax(f->logits, -1)));
}

#define PSKD_CALIBRATION(IN, OPT, OUT)                                                             \
    IN (probs,  "f32[N,C]", "rows > 0, 0 <= . <= 1", "predicted distributions")                    \
    IN (labels, "i32[N]",   "0 <= . < C",            "true classes")                               \
    OPT(bins,   10,         ">= 1",                  "bins of confidence, of equal width")         \
    OUT(error,  "f32[]",    "wrong answers, percent")                                              \
    OUT(nll,    "f32[]",    "mean -log probability of the true class")                             \
    OUT(ece,    "f32[]",    "expected calibration error, percent")                                 \
    OUT(aurc,   "f32[]",    "area under the risk-coverage curve, x1000")                           \
    OUT(eaurc,  "f32[]",    "aurc above that of the best order, x1000")

/* What was answered on N examples. */
typedef struct answers {
    int64_t count;
    double *confidence; /* floats, as the bins are */
    double *right;      /* 1 or 0 */
    int64_t *order;     /* the surest last; among equals the larger index */
} answers;

/* Bin k holds k/bins < confidence <= (k+1)/bins: the sum over bins of the distance of
 * confidence and the share of right answers, |mean - mean| times their number. */
static double calibration_error(const answers *a, int64_t bins)
{
    double sum = 0;
    int64_t last = a->count - 1;
    for (int64_t k = bins - 1; k >= 0; k--) {
        float low = (float)((double)k / (double)bins);
        double missing = 0;
        for (; last >= 0 && a->confidence[a->order[last]] > (double)low; last--)
            missing += a->right[a->order[last]] - a->confidence[a->order[last]];
        sum += fabs(missing);
    }
    return 100 * sum / (double)a->count;
}

/* Sums over answers, surest first, of the share of wrong ones so far: as they are ordered, and as
 * they would be at best, with the wrong ones last. */
static void risks(const answers *a, double wrong, double *risk, double *best)
{
    double so_far = 0, n = (double)a->count;
    *risk = *best = 0;
    for (int64_t j = 1; j <= a->count; j++) {
        so_far += 1 - a->right[a->order[a->count - j]];
        *risk += so_far / (double)j;
    }
    for (double k = 1; k <= wrong; k++)
        *best += k / (n - wrong + k);
}

struct pskd_calibration;
static bl_status score(struct pskd_calibration *f, answers *a);

BL_HOST(pskd_calibration, PSKD_CALIBRATION, "error, likelihood, calibration and risk-coverage")
{
    answers a = {.count = f->probs.type.shape.dim[0]};
    size_t bytes = (size_t)a.count * (2 * sizeof(double) + sizeof(int64_t));
    a.confidence = bl_alloc(bytes);
    if (!a.confidence)
        return bl_no_memory(bytes);
    a.right = a.confidence + a.count;
    a.order = (int64_t *)(a.right + a.count);
    bl_status status = score(f, &a);
    bl_release(a.confidence);
    return status;
}

static bl_status score(struct pskd_calibration *f, answers *a)
{
    int64_t classes = f->probs.type.shape.dim[1];
    double nll = 0, wrong = 0, n = (double)a->count, risk, best;
    for (int64_t i = 0; i < a->count; i++) {
        const float *p = bl_f32(&f->probs) + i * classes;
        int32_t label = bl_i32(&f->labels)[i], predicted = 0;
        for (int32_t c = 1; c < classes; c++)
            predicted = p[c] > p[predicted] ? c : predicted;
        a->confidence[i] = (double)p[predicted];
        a->right[i] = predicted == label;
        nll -= log((double)p[label]);
        wrong += predicted != label;
    }
    BL_TRY(bl_ascending_order(a->confidence, a->count, a->order));
    risks(a, wrong, &risk, &best);
    bl_array_set(&f->error, 0, 100 * wrong / n);
    bl_array_set(&f->nll, 0, nll / n);
    bl_array_set(&f->ece, 0, calibration_error(a, f->bins));
    bl_array_set(&f->aurc, 0, 1000 * risk / n);
    bl_array_set(&f->eaurc, 0, 1000 * (risk - best) / n);
    return BL_OK;
}

#define PS_KD(OPT)                                                                                 \
    OPT(alpha_T, 0.8, "[0,1], tune [0.3,1]", "trust in past predictions in the last epoch")
BL_ARM_OPTIONS(ps_kd, PS_KD)

static void ps_kd_in_training(bl_step *s, const void *options)
{
    struct pskd_loss f = BL_DEFAULTS(pskd_loss);
    f.alpha_T = ((const struct ps_kd *)options)->alpha_T;
    f.epoch = s->epoch, f.epochs = bl_number((double)s->epochs);
    f.logits = s->logits, f.labels = s->targets, f.index = s->index, f.bank = bl_state(s, "bank");
    bl_call(pskd_loss, &f);
    s->loss = f.loss;
    bl_set_state(s, "bank", f.bank_new);
    bl_measure(s, "trust", f.alpha_t);
}

static const bl_hooks ps_kd_hooks = {
    .loss = ps_kd_in_training,
    .state = {{"bank", "f32[N,C]", 0.0}},
};

const bl_method bl_ps_kd = {
    .slug = "ps_kd",
    .family = "labels",
    .paper = "Kim et al. 2021, arXiv 2006.12000",
    .summary = "softens labels with the network's own predictions of the epoch before",
    .when = "Probabilities are over-confident and their quality matters as well as accuracy. Costs "
            "a row of class probabilities per training example.",
    .functions = {&pskd_loss_contract, &pskd_calibration_contract},
    .options = &ps_kd_contract,
    .example = "--arm \"ps_kd(alpha_T=0.8)\"",
    .traits = BL_CLASSIFICATION | BL_HARD_LABELS | BL_EXAMPLE_INDEX,
    .hooks = &ps_kd_hooks,
};
