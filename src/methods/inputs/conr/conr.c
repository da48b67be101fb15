/* ConR, a contrastive regularizer for imbalanced regression. Keramati et al., ICLR 2024,
 * arXiv 2309.06651. Features of rare targets collapse onto those of frequent ones. Within a batch,
 * pairs with close labels attract; pairs with distant labels whose predictions are close (the
 * collapse itself) repel, the harder the further their labels are apart.
 *
 * denominator "sets" is the paper; "official" is its code, which adds e^0 for every entry outside
 * the positives, by oversight, and gave the published numbers. */
#include "methods/method.h"

#define CONR_LOSS(IN, OPT, OUT)                                                                    \
    IN (features,    "f32[B,D]", "grad, rows > 0", "of all views, not normalised")                 \
    IN (labels,      "f32[B,L]", "finite",         "targets, in the units of omega")               \
    IN (preds,       "f32[B,L]", "",               "predictions; no gradient goes through them")   \
    IN (weights,     "f32[B]",   "",               "of each example, 1 if none")                   \
    OPT(omega,       1.0,        "[0,inf)",        "labels this close are alike")                  \
    OPT(tau,         0.2,        "(0,inf)",        "temperature")                                  \
    OPT(eta,         0.01,       "[0,inf)",        "how fast repulsion grows with the distance")   \
    OPT(dist,        "l1",       "l1|l2",          "distance between labels")                      \
    OPT(push,        "exp",      "exp|linear",     "exp(eta d) or eta d")                          \
    OPT(denominator, "sets",     "sets|official",  "as in the paper, or as in its code")           \
    OPT(reduce_pos,  "out",      "out|in",         "mean of logs, or log of the mean")             \
    OPT(outer_weight, 1,         "flag",           "weigh each anchor's loss, too")                \
    OUT(loss,        "f32[]",    "mean over all B rows; 0 for those that are no anchor")           \
    OUT(n_pos,       "i32[B]",   "rows with a close label")                                        \
    OUT(n_neg,       "i32[B]",   "rows with a distant label and a close prediction")               \
    OUT(anchor,      "i32[B]",   "1 where there are both")

/* [B,B]: the distance between rows of y [B,L]. */
static bl_tensor row_distances(bl_tensor y, const char *dist)
{
    bl_tensor d = bl_sub(bl_expand(y, 1), bl_expand(y, 0));
    return bl_is(dist, "l1") ? bl_sum(bl_abs(d), -1) : bl_sqrt(bl_sum(bl_square(d), -1));
}

struct conr_loss;
static bl_tensor log_denominator(const struct conr_loss *f, bl_tensor s, bl_tensor distance,
                                 bl_tensor positive, bl_tensor negative, bl_tensor n_pos);

BL_CONTRACT(conr_loss, CONR_LOSS, "attracts close labels, repels distant ones predicted alike")
{
    int64_t B = bl_dim(f->features, 0);
    if (bl_dim(f->labels, 1) < 1) {
        bl_poison(graph, "labels have no columns, expected f32[B,L] with L >= 1");
        return;
    }
    bl_tensor unit  = bl_unit_rows(f->features, 1e-12);
    bl_tensor s     = bl_div(bl_dot(unit, unit, false, true), f->tau);
    bl_tensor dl    = row_distances(bl_stop_gradient(f->labels), f->dist);
    bl_tensor dp    = row_distances(bl_stop_gradient(f->preds), f->dist);
    bl_tensor other = bl_ne(bl_iota(graph, BL_I32, BL_SHAPE(B, B), 0),
                            bl_iota(graph, BL_I32, BL_SHAPE(B, B), 1));

    bl_tensor positive = bl_and(other, bl_le(dl, f->omega));
    bl_tensor negative = bl_and(bl_gt(dl, f->omega), bl_le(dp, f->omega));
    bl_tensor n_pos    = bl_sum(bl_cast(positive, BL_F32), 1);
    bl_tensor n_neg    = bl_sum(bl_cast(negative, BL_F32), 1);
    bl_tensor anchor   = bl_and(bl_gt(n_pos, 0), bl_gt(n_neg, 0));
    bl_tensor count    = bl_max(n_pos, 1);

    bl_tensor log_den = log_denominator(f, s, dl, positive, negative, n_pos);
    bl_tensor near    = bl_is(f->reduce_pos, "out")
                            ? bl_div(bl_sum(bl_select(positive, s, 0), 1), count)
                            : bl_sub(bl_masked_logsumexp(s, positive, 1), bl_log(count));
    bl_tensor l       = bl_select(anchor, bl_sub(log_den, near), 0);

    f->loss   = bl_mean(f->outer_weight ? bl_mul(bl_stop_gradient(f->weights), l) : l);
    f->n_pos  = bl_cast(n_pos, BL_I32);
    f->n_neg  = bl_cast(n_neg, BL_I32);
    f->anchor = bl_cast(anchor, BL_I32);
}

/* log of sum over P of e^s + sum over N of S e^s (+ the B - |P| of the official code), row by row:
 * in logarithms, so that neither a small tau nor a distant label overflows. */
static bl_tensor log_denominator(const struct conr_loss *f, bl_tensor s, bl_tensor distance,
                                 bl_tensor positive, bl_tensor negative, bl_tensor n_pos)
{
    bl_tensor far   = bl_select(negative, distance, 1);
    bl_tensor log_S = bl_is(f->push, "exp") ? bl_mul(f->eta, far) : bl_log(bl_mul(f->eta, far));
    log_S = bl_add(log_S, bl_expand(bl_log(bl_stop_gradient(f->weights)), 1));

    bl_tensor term   = bl_add(s, bl_select(negative, log_S, 0));
    bl_tensor member = bl_or(positive, negative);
    if (bl_is(f->denominator, "official")) {
        bl_tensor others = bl_sub((double)bl_dim(s, 0), n_pos);
        term   = bl_concat((bl_tensor[]){term, bl_expand(bl_log(others), 1)}, 2, 1);
        member = bl_concat((bl_tensor[]){member, bl_expand(bl_gt(others, 0), 1)}, 2, 1);
    }
    return bl_masked_logsumexp(term, member, 1);
}

#define CONR_LABEL_WEIGHTS(IN, OPT, OUT)                                                           \
    IN (labels,     "i32[N]",   ">= 0",                    "all training labels, whole numbers")   \
    OPT(max_target, 121,        ">= 1",                    "bins; larger labels go to the last")   \
    OPT(mode,       "sqrt_inv", "none|sqrt_inv|inverse",   "of the number of examples in a bin")   \
    OPT(lds,        0,          "flag",                    "smooth the numbers over the bins")     \
    OPT(kernel,     "gaussian", "gaussian|triang|laplace", "of the smoothing")                     \
    OPT(size,       5,          ">= 1, odd",               "of the kernel")                        \
    OPT(sigma,      2.0,        "(0,inf)",                 "width of the kernel")                  \
    OUT(weights,    "f32[N]",   "mean 1")

/* The response of a normal filter of width sigma, mirrored at the window's ends, to a spike in the
 * middle: its value at t. */
static double gaussian_window(int64_t t, int64_t size, double sigma)
{
    int64_t half = size / 2, reach = (int64_t)floor(4 * sigma + 0.5);
    double value = 0, sum = 0;
    for (int64_t j = -reach; j <= reach; j++) {
        double weight = exp(-(double)(j * j) / (2 * sigma * sigma));
        int64_t place = (half + t + j) % (2 * size);
        place = place < 0 ? place + 2 * size : place;
        place = place >= size ? 2 * size - 1 - place : place;
        value += place == half ? weight : 0;
        sum += weight;
    }
    return value / sum;
}

struct conr_label_weights;
static void smooth_bins(const struct conr_label_weights *f, const double *v, double *k,
                        double *smooth);
static int64_t bin_of(const struct conr_label_weights *f, int64_t i);

BL_HOST(conr_label_weights, CONR_LABEL_WEIGHTS, "inverse-frequency weights, smoothed if wanted")
{
    int64_t n = f->labels.type.shape.dim[0], bins = f->max_target;
    size_t bytes = (size_t)(2 * bins + f->size) * sizeof(double);
    double *v = bl_alloc(bytes), *used = v, sum = 0;
    if (!v)
        return bl_no_memory(bytes);
    for (int64_t i = 0; i < n; i++)
        v[bin_of(f, i)]++;
    for (int64_t j = 0; j < bins; j++)
        v[j] = bl_is(f->mode, "sqrt_inv") ? sqrt(v[j]) : fmin(fmax(v[j], 5), 1000);
    if (f->lds) {
        used = v + bins;
        smooth_bins(f, v, v + 2 * bins, used);
    }
    bool equal = bl_is(f->mode, "none");
    for (int64_t i = 0; i < n; i++)
        sum += equal ? 1 : 1 / used[bin_of(f, i)];
    for (int64_t i = 0; i < n; i++)
        bl_array_set(&f->weights, i, (equal ? 1 : 1 / used[bin_of(f, i)]) * (double)n / sum);
    bl_release(v);
    return BL_OK;
}

static double window(const struct conr_label_weights *f, int64_t t)
{
    double distance = fabs((double)t);
    if (bl_is(f->kernel, "triang"))
        return 1 - distance / (double)(f->size / 2 + 1);
    if (bl_is(f->kernel, "laplace"))
        return exp(-distance / f->sigma);
    return gaussian_window(t, f->size, f->sigma);
}

/* v'_j = sum over t of k_t v_{j+t}, zero outside, k divided by its maximum; v' into `smooth`,
 * k [size] is scratch. */
static void smooth_bins(const struct conr_label_weights *f, const double *v, double *k,
                        double *smooth)
{
    int64_t half = f->size / 2;
    double largest = 0;
    for (int64_t t = -half; t <= half; t++) {
        k[half + t] = window(f, t);
        largest = fmax(largest, k[half + t]);
    }
    for (int64_t j = 0; j < f->max_target; j++)
        for (int64_t t = -half; t <= half; t++)
            if (j + t >= 0 && j + t < f->max_target)
                smooth[j] += k[half + t] / largest * v[j + t];
}

static int64_t bin_of(const struct conr_label_weights *f, int64_t i)
{
    int64_t label = bl_i32(&f->labels)[i];
    return label < f->max_target ? label : f->max_target - 1;
}

#define CONR_SHOT_MAE(IN, OPT, OUT)                                                                \
    IN (preds,        "f32[M]",    "",              "predictions")                                 \
    IN (labels,       "i32[M]",    "0 <= . < bins", "whole-number targets")                        \
    IN (train_counts, "i32[bins]", "",              "training examples of each label")             \
    OPT(many_above,   100,         ">= 0",          "more training examples than this: many")      \
    OPT(few_below,    20,          ">= 0",          "fewer than this: few")                        \
    OUT(all,          "f32[]",     "mean absolute error")                                          \
    OUT(many,         "f32[]",     "where the label has many training examples; 0 if nowhere")     \
    OUT(medium,       "f32[]",     "neither many nor few")                                         \
    OUT(few,          "f32[]",     "where it has few")                                             \
    OUT(n,            "i32[3]",    "test examples: many, medium, few")

BL_HOST(conr_shot_mae, CONR_SHOT_MAE, "mean absolute error on frequent and rare labels")
{
    int64_t m = f->preds.type.shape.dim[0];
    double sum[3] = {0}, count[3] = {0};
    for (int64_t i = 0; i < m; i++) {
        int32_t label = bl_i32(&f->labels)[i], examples = bl_i32(&f->train_counts)[label];
        int group = examples > f->many_above ? 0 : examples < f->few_below ? 2 : 1;
        sum[group] += fabs((double)bl_f32(&f->preds)[i] - (double)label);
        count[group]++;
    }
    bl_array *mean[3] = {&f->many, &f->medium, &f->few};
    for (int g = 0; g < 3; g++) {
        bl_array_set(mean[g], 0, count[g] > 0 ? sum[g] / count[g] : 0);
        bl_array_set(&f->n, g, count[g]);
    }
    bl_array_set(&f->all, 0, m > 0 ? (sum[0] + sum[1] + sum[2]) / (double)m : 0);
    return BL_OK;
}

#define CONR(OPT)                                                                                  \
    OPT(omega,       0.0,    "[0,inf)",        "labels this close are alike, in their own units; " \
                                               "0: measure labels in tenths of their standard "    \
                                               "deviation and take one")                           \
    OPT(tau,         0.2,    "(0,inf), tune [0.05,1] log", "temperature")                          \
    OPT(eta, 0.01, "[0,inf), tune [0.001,0.1] log", "how fast repulsion grows with the distance")  \
    OPT(beta, 0.2, "[0,inf), tune [0.02,2] log", "weight beside the standardised loss")            \
    OPT(views,       2,      "[1,16]",         "noisy copies compared; 1: the batch as it is")     \
    OPT(noise, 0.05, "[0,inf), tune [0.01,0.2] log", "standard deviation of noise, of prepared "\
                                               "inputs")                                           \
    OPT(push,        "exp",  "exp|linear",     "exp(eta d) or eta d")                              \
    OPT(denominator, "sets", "sets|official",  "as in the paper, or as in its code")
BL_ARM_OPTIONS(conr, CONR)

enum { MOST_VIEWS = 16 };

static bl_tensor repeated(bl_tensor x, int64_t times)
{
    bl_tensor copy[MOST_VIEWS];
    for (int64_t i = 0; i < times; i++)
        copy[i] = x;
    return bl_concat(copy, (int)times, 0);
}

static void conr_in_training(bl_step *s, const void *options)
{
    const struct conr *o = options;
    struct conr_loss f = BL_DEFAULTS(conr_loss);
    f.tau = o->tau, f.eta = o->eta, f.push = o->push, f.denominator = o->denominator;
    bl_tensor predictions = s->logits;
    f.features = s->features;
    if (o->views > 1) {
        bl_tensor x = repeated(s->inputs, o->views);
        bl_tensor noise = bl_normal(bl_step_key(s, "noise"), bl_type_of(x).shape);
        bl_outputs view = bl_forward(s, bl_add(x, bl_mul(o->noise, noise)), s->raw);
        f.features = view.features, predictions = view.logits;
    }
    bool relative = bl_is_number(o->omega) && o->omega.number == 0;
    double unit = relative ? 10 : s->target_scale;
    f.omega   = relative ? bl_number(1) : o->omega;
    f.labels  = bl_mul(unit, repeated(s->targets, o->views));
    f.preds   = bl_mul(unit, predictions);
    f.weights = bl_full(s->graph, BL_F32, BL_SHAPE(s->batch * o->views), 1);
    bl_call(conr_loss, &f);
    s->loss = bl_add(s->loss, bl_mul(o->beta, f.loss));
    bl_measure(s, "anchors", bl_mean(bl_cast(f.anchor, BL_F32)));
}

static const bl_hooks conr_hooks = {.loss = conr_in_training};

const bl_method bl_conr = {
    .slug = "conr",
    .family = "inputs",
    .paper = "Keramati et al. 2024, arXiv 2309.06651",
    .summary = "keeps rare targets of a regression apart from frequent ones",
    .when = "Regression with a long tail of rare target values whose error matters. Costs a "
            "forward and backward pass for each of two noisy views.",
    .functions = {&conr_loss_contract, &conr_label_weights_contract, &conr_shot_mae_contract},
    .options = &conr_contract,
    .example = "--arm \"conr(beta=0.2)\"",
    .traits = BL_REGRESSION,
    .hooks = &conr_hooks,
};
