/* Nested dropout against label noise. Chen et al., IEEE TNNLS 2022, arXiv 2206.13140. Wrong labels
 * are memorised through the many loosely used directions of a wide feature layer. Keeping only the
 * first k features, k random in every step, orders them by importance, and a short prefix, chosen
 * on held-out examples, is enough.
 *
 * The arm is the paper's first stage, one network. The second, two networks that teach each other
 * with nested_peer_loss, needs a run of two networks; its functions are here. */
#include "methods/method.h"

#define NESTED_PROBS(IN, OPT, OUT)                                                                 \
    OPT(K,     BL_REQUIRED_INTEGER, ">= 1", "features")                                            \
    OPT(sigma, BL_REQUIRED, "(0,inf)",    "width: about how many features are kept")               \
    OPT(mu,    0.0,         "(-inf,inf)", "the most likely k")                                     \
    OUT(probs, "f32[K]",    "probability of keeping the first 1, 2, .. K features")

/* exp(-((k-mu)/sigma)^2), without the 1/2 of a normal density. */
static double nested_exponent(double k, double mu, double sigma)
{
    double z = (k - mu) / sigma;
    return -z * z;
}

BL_HOST(nested_probs, NESTED_PROBS, "how likely each length of the kept prefix is")
{
    double largest = -INFINITY, sum = 0; /* taken out, so that a far mu does not give 0 / 0 */
    for (int64_t k = 1; k <= f->K; k++)
        largest = fmax(largest, nested_exponent((double)k, f->mu, f->sigma));
    for (int64_t k = 1; k <= f->K; k++)
        sum += exp(nested_exponent((double)k, f->mu, f->sigma) - largest);
    for (int64_t k = 1; k <= f->K; k++)
        bl_array_set(&f->probs, k - 1,
                     exp(nested_exponent((double)k, f->mu, f->sigma) - largest) / sum);
    return BL_OK;
}

#define NESTED_DROPOUT(IN, OPT, OUT)                                                               \
    IN (x,     "f32[B,K]",        "grad",       "features entering the linear classifier")         \
    IN (u,     "f32[1] | f32[B]", "0 <= . < 1", "uniform draws: one for the batch or one a row")   \
    OPT(sigma, BL_REQUIRED,       "(0,inf)",    "width: about how many features are kept")         \
    OPT(mu,    0.0,               "(-inf,inf)", "the most likely k")                               \
    OUT(y,     "f32[B,K]",        "x with all but the first k features 0; not rescaled")           \
    OUT(k,     "i32[1] | i32[B]", "features kept, 1..K")

BL_CONTRACT(nested_dropout, NESTED_DROPOUT, "masks all features after a random prefix")
{
    int64_t K = bl_dim(f->x, 1);
    if (K < 1) {
        bl_poison(graph, "x has no features, expected f32[B,K] with K >= 1");
        return;
    }
    /* In double, as the official draw: k is the smallest with cdf_k > u, else K. */
    bl_tensor place = bl_add(bl_iota(graph, BL_F64, BL_SHAPE(1, K), 1), 1);
    bl_tensor z     = bl_div(bl_sub(place, bl_cast(f->mu, BL_F64)), bl_cast(f->sigma, BL_F64));
    bl_tensor e     = bl_neg(bl_square(z));
    bl_tensor total = bl_cumsum(bl_exp(bl_sub(e, bl_reduce_max_keep(e))), 1);
    bl_tensor cdf   = bl_div(total, bl_slice_axis(total, 1, K - 1, K));
    bl_tensor u     = bl_expand(bl_cast(f->u, BL_F64), 1);
    bl_tensor below = bl_sum_keep(bl_cast(bl_le(cdf, u), BL_I32), 1);
    bl_tensor k     = bl_min(bl_add(below, 1), (double)K);

    bl_tensor kept = bl_lt(bl_iota(graph, BL_I32, BL_SHAPE(1, K), 1), k);
    f->y = bl_select(kept, f->x, 0);
    f->k = bl_squeeze(k, 1);
}

#define NESTED_PREFIX_EVAL(IN, OPT, OUT)                                                           \
    IN (x,          "f32[B,K]", "rows > 0",   "features")                                          \
    IN (weight,     "f32[K,C]", "rows > 0",   "of the classifier, which has no bias")              \
    IN (labels,     "i32[B]",   "0 <= . < C", "classes")                                           \
    OPT(penalty,    1e-5,       "[0,inf)",    "price of one more feature, in accuracy")            \
    OUT(accuracy,   "f32[K]",   "with the first 1, 2, .. K features")                              \
    OUT(best_k,     "i32[]",    "first maximiser of accuracy - penalty (k - 1)")                   \
    OUT(best_score, "f32[]",    "its value")

/* right[k-1] is the number of rows whose first-k-features logits are largest at the label. The
 * logits are a running sum, so all K prefixes cost one matrix product. */
static void count_right(const bl_array *x, const bl_array *weight, const int32_t *label,
                        double *logits, double *right)
{
    int64_t rows = x->type.shape.dim[0], K = x->type.shape.dim[1], C = weight->type.shape.dim[1];
    for (int64_t i = 0; i < rows; i++) {
        memset(logits, 0, (size_t)C * sizeof *logits);
        for (int64_t k = 0; k < K; k++) {
            double feature = (double)bl_f32(x)[i * K + k];
            const float *w = bl_f32(weight) + k * C;
            int64_t predicted = 0;
            for (int64_t c = 0; c < C; c++) {
                logits[c] += feature * (double)w[c];
                predicted = logits[c] > logits[predicted] ? c : predicted;
            }
            right[k] += predicted == label[i];
        }
    }
}

BL_HOST(nested_prefix_eval, NESTED_PREFIX_EVAL, "accuracy of every prefix and the best one")
{
    int64_t rows = f->x.type.shape.dim[0], K = f->x.type.shape.dim[1];
    size_t classes = (size_t)f->weight.type.shape.dim[1];
    double *work = bl_alloc(((size_t)K + classes) * sizeof *work), *right = work + classes;
    if (!work)
        return bl_no_memory(((size_t)K + classes) * sizeof *work);
    count_right(&f->x, &f->weight, bl_i32(&f->labels), work, right);
    double best = -INFINITY;
    for (int64_t k = 0; k < K; k++) {
        double accuracy = right[k] / (double)rows, score = accuracy - f->penalty * (double)k;
        bl_array_set(&f->accuracy, k, accuracy);
        if (score > best) {
            best = score;
            bl_array_set(&f->best_k, 0, (double)(k + 1));
        }
    }
    bl_array_set(&f->best_score, 0, best);
    bl_release(work);
    return BL_OK;
}

#define NESTED_PEER_LOSS(IN, OPT, OUT)                                                             \
    IN (logits,      "f32[B,C]", "grad, rows > 0", "this network's outputs")                       \
    IN (labels,      "i32[B]",   "0 <= . < C",     "given classes, perhaps wrong")                 \
    IN (select_loss, "f32[B]",   "no NaN",         "the peer's cross-entropy of each example")     \
    OPT(forget_rate, 0.2,        "[0,1)",          "share of the batch left out; a plain number")  \
    OUT(loss,        "f32[]",    "mean cross-entropy of the selected")                             \
    OUT(selected,    "i32[R]",   "R = floor((1 - forget_rate) B) smallest losses, ascending")      \
    OUT(kept,        "i32[B]",   "1 where selected")

BL_CONTRACT(nested_peer_loss, NESTED_PEER_LOSS, "co-teaching: learn from what the peer finds easy")
{
    if (!bl_is_number(f->forget_rate)) {
        bl_poison(graph, "forget_rate is a tensor, expected a plain number: it sizes `selected`");
        return;
    }
    int64_t B = bl_dim(f->logits, 0);
    int64_t R = (int64_t)floor((1.0 - f->forget_rate.number) * (double)B);
    if (R < 1) {
        bl_poison(graph, "forget_rate %g leaves none of %lld examples, expected at least one",
                  f->forget_rate.number, (long long)B);
        return;
    }
    bl_tensor order = bl_argsort(bl_stop_gradient(f->select_loss), 0, false);
    bl_tensor none  = bl_full(graph, BL_I32, BL_SHAPE(B), 0);
    bl_tensor ones  = bl_full(graph, BL_I32, BL_SHAPE(R), 1);

    f->selected = bl_slice_axis(order, 0, 0, R);
    f->kept     = bl_put(none, f->selected, ones);
    f->loss     = bl_mean(bl_take(bl_cross_entropy_rows(f->logits, f->labels), f->selected));
}

#define NESTED_FORGET_RATE(IN, OPT, OUT)                                                           \
    IN (epoch,       "i32[n]",    ">= 1",  "1 in the first epoch")                                 \
    OPT(forget_rate, BL_REQUIRED, "[0,1]", "final rate")                                           \
    OPT(n_gradual,   0,           ">= 0",  "epochs over which it rises from 0")                    \
    OUT(rate,        "f32[n]",    "share of each batch left out")

BL_CONTRACT(nested_forget_rate, NESTED_FORGET_RATE, "co-teaching's schedule of the forget rate")
{
    double n = (double)f->n_gradual;
    bl_tensor epoch = bl_cast(f->epoch, BL_F32);
    bl_tensor share = n > 1 ? bl_div(bl_sub(epoch, 1), n - 1) : bl_zeros_like(epoch);
    f->rate = bl_mul(f->forget_rate, bl_select(bl_gt(epoch, n), 1, share));
}

#define NESTED_DROPOUT_ARM(OPT)                                                                    \
    OPT(sigma,   10.0, "(0,inf), tune [2,50] log", "width: about how many features are kept")      \
    OPT(mu,      0.0,  "(-inf,inf)", "the most likely number")                                     \
    OPT(penalty, 1e-5, "[0,inf)",    "price of one more feature, in accuracy, when k is chosen")
BL_ARM_OPTIONS(nested_dropout_arm, NESTED_DROPOUT_ARM)

static bl_tensor mask_features(bl_step *s, const void *options, const bl_site_info *site,
                               bl_tensor value)
{
    if (site->kind != BL_SITE_FEATURES || !s->training)
        return value;
    const struct nested_dropout_arm *o = options;
    struct nested_dropout f = BL_DEFAULTS(nested_dropout);
    f.sigma = o->sigma, f.mu = o->mu;
    f.x = value, f.u = bl_uniform(bl_step_key(s, "prefix"), BL_SHAPE(1));
    bl_call(nested_dropout, &f);
    bl_measure(s, "features kept", bl_cast(bl_squeeze(f.k, 0), BL_F32));
    return f.y;
}

/* The paper's classifier has no bias: with one, an empty prefix would already say something. */
static bl_tensor drop_bias(bl_step *s, const void *options, int i, bl_tensor value)
{
    (void)options;
    const bl_parameter *p = &s->parameter[i];
    return p->classifier && p->role == BL_BIAS ? bl_zeros_like(value) : value;
}

static bl_status choose_prefix(bl_training *t, const void *options)
{
    const bl_parameter *parameter;
    int count = bl_training_parameters(t, &parameter), classifier = -1;
    for (int i = 0; i < count; i++)
        if (parameter[i].classifier && parameter[i].role == BL_WEIGHT)
            classifier = i;
    bl_array *prefix = bl_training_state(t, "prefix");
    if (classifier < 0 || !prefix)
        return bl_fail(BL_INVALID, "nested_dropout: the model has no classifier to choose for");

    struct nested_prefix_eval f = {
        .weight = *bl_training_parameter(t, classifier),
        .penalty = ((const struct nested_dropout_arm *)options)->penalty.number};
    int32_t best_k = 0;
    float best_score = 0;
    f.best_k = (bl_array){{BL_I32, BL_SCALAR}, &best_k};
    f.best_score = (bl_array){{BL_F32, BL_SCALAR}, &best_score};
    BL_TRY(bl_training_validation_features(t, &f.x, &f.labels));
    bl_status status =
        bl_array_new(BL_F32, BL_SHAPE(f.weight.type.shape.dim[0]), &f.accuracy);
    if (status == BL_OK)
        status = nested_prefix_eval_host(&f);
    bl_i32(prefix)[0] = best_k;
    bl_array_free(&f.x), bl_array_free(&f.labels), bl_array_free(&f.accuracy);
    return status;
}

/* Keeping the first k features is the same as a classifier whose later rows are zero, and that
 * classifier can be stored. Until an epoch has chosen k it keeps all. */
static void evaluate_prefix(bl_step *s, const void *options)
{
    (void)options;
    bl_tensor k = bl_state(s, "prefix");
    for (int i = 0; i < s->parameters; i++) {
        if (!s->parameter[i].classifier)
            continue;
        if (s->parameter[i].role == BL_BIAS)
            s->raw[i] = bl_zeros_like(s->raw[i]);
        if (s->parameter[i].role == BL_WEIGHT) {
            int64_t K = bl_dim(s->raw[i], 0);
            bl_tensor row  = bl_iota(s->graph, BL_I32, BL_SHAPE(K, 1), 0);
            bl_tensor kept = bl_or(bl_lt(row, k), bl_eq(k, 0));
            s->raw[i] = bl_select(kept, s->raw[i], 0);
        }
    }
}

static const bl_hooks nested_dropout_hooks = {
    .site = mask_features,
    .weight = drop_bias,
    .epoch = choose_prefix,
    .evaluate = evaluate_prefix,
    .state = {{"prefix", "i32[]", 0.0}},
};

const bl_method bl_nested_dropout = {
    .slug = "nested_dropout",
    .family = "labels",
    .paper = "Chen et al. 2022, arXiv 2206.13140",
    .summary = "orders features by importance and keeps the few that generalise",
    .when = "Training labels are partly wrong and a held-out part can be spared, best with clean "
            "labels. Costs next to nothing.",
    .functions = {&nested_dropout_contract, &nested_probs_contract, &nested_prefix_eval_contract,
                  &nested_peer_loss_contract, &nested_forget_rate_contract},
    .options = &nested_dropout_arm_contract,
    .example = "--arm \"nested_dropout(sigma=10)\"",
    .traits = BL_CLASSIFICATION | BL_VALIDATION,
    .hooks = &nested_dropout_hooks,
};
