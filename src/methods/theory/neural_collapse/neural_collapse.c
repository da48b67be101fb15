/* Perturbation analysis of neural collapse. Tirer, Huang, Niles-Weed, ICML 2023, arXiv 2210.16658.
 * At the end of training features of a class fall together and class means form a simplex. Here is
 * the model that explains it, features H chosen freely but near given ones H0 and a linear
 * classifier W with squared error; its minimisers, its gradient flow, its response to a change of
 * H0, and the measures of collapse.
 *
 * Examples are rows, Y = onehot(y), n = M/K. All in double, of which only results are rounded. */
#include "methods/method.h"

static bl_tensor squares(bl_tensor x)
{
    return bl_sum(bl_square(x));
}

static bl_tensor onehot(bl_tensor y, int64_t classes)
{
    return bl_onehot(y, classes, BL_F64);
}

static double per_class(bl_tensor onehot_labels)
{
    return (double)bl_dim(onehot_labels, 0) / (double)bl_dim(onehot_labels, 1);
}

/* Y^T H (H^T H + n lambda_w I)^-1 */
static bl_tensor best_classifier(bl_tensor h, bl_tensor y, bl_tensor lambda_w)
{
    return bl_ridge_solve(bl_dot(y, h, true, false), h, bl_mul(per_class(y), lambda_w));
}

/* |H W^T - Y|^2 / (2M) */
static bl_tensor misfit(bl_tensor w, bl_tensor h, bl_tensor y)
{
    double rows = (double)bl_dim(h, 0);
    return bl_div(squares(bl_sub(bl_dot(h, w, false, true), y)), 2 * rows);
}

/* misfit + lambda_w |W|^2 / (2K) + lambda_h |H|^2 / (2M) */
static bl_tensor objective(bl_tensor w, bl_tensor h, bl_tensor y, bl_tensor lambda_w,
                           bl_tensor lambda_h)
{
    double rows = (double)bl_dim(h, 0), classes = (double)bl_dim(w, 0);
    bl_tensor weights = bl_mul(bl_div(lambda_w, 2 * classes), squares(w));
    bl_tensor features = bl_mul(bl_div(lambda_h, 2 * rows), squares(h));
    return bl_add(bl_add(misfit(w, h, y), weights), features);
}

/* beta |H - H0|^2 / (2M) */
static bl_tensor distance(bl_tensor h, bl_tensor h0, bl_tensor beta)
{
    return bl_mul(bl_div(beta, 2 * (double)bl_dim(h, 0)), squares(bl_sub(h, h0)));
}

#define NEURAL_COLLAPSE_UFM_LOSS(IN, OPT, OUT)                                                     \
    IN(W, "f32[K,d]", "grad, rows > 0, finite", "classifier")                                      \
    IN(H, "f32[M,d]", "grad, rows > 0, finite", "features")                                        \
    IN(H0, "f32[M,d]", "grad, finite", "features to stay near")                                    \
    IN(y, "i32[M]", "0 <= . < K", "class of each example")                                         \
    OPT(lambda_w, 5e-3, "[0,inf)", "decay of the classifier")                                      \
    OPT(lambda_h, 5e-3, "[0,inf)", "decay of the features")                                        \
    OPT(beta, 1.0, "[0,inf)", "weight of the distance from H0")                                    \
    OUT(loss, "f32[]", "fit + lambda_w|W|^2/2K + lambda_h|H|^2/2M + beta|H-H0|^2/2M")              \
    OUT(fit, "f32[]", "|H W^T - Y|^2 / 2M")

BL_CONTRACT(neural_collapse_ufm_loss, NEURAL_COLLAPSE_UFM_LOSS, "the model's objective")
{
    bl_tensor w = bl_to_f64(f->W), h = bl_to_f64(f->H), y = onehot(f->y, bl_dim(f->W, 0));
    bl_tensor loss = objective(w, h, y, bl_to_f64(f->lambda_w), bl_to_f64(f->lambda_h));
    f->fit = bl_cast(misfit(w, h, y), BL_F32);
    f->loss = bl_cast(bl_add(loss, distance(h, bl_to_f64(f->H0), bl_to_f64(f->beta))), BL_F32);
}

#define NEURAL_COLLAPSE_WSTAR(IN, OPT, OUT)                                                        \
    IN(H, "f32[M,d]", "grad, rows > 0, finite", "features")                                        \
    IN(y, "i32[M]", "0 <= . < K", "class of each example")                                         \
    OPT(K, BL_REQUIRED_INTEGER, ">= 1", "classes")                                                 \
    OPT(lambda_w, 5e-3, "(0,inf)", "decay of the classifier")                                      \
    OUT(W, "f32[K,d]", "Y^T H (H^T H + n lambda_w I)^-1")

BL_CONTRACT(neural_collapse_wstar, NEURAL_COLLAPSE_WSTAR, "the best classifier of given features")
{
    bl_tensor w = best_classifier(bl_to_f64(f->H), onehot(f->y, f->K), bl_to_f64(f->lambda_w));
    f->W = bl_cast(w, BL_F32);
}

#define NEURAL_COLLAPSE_CENTRAL_LOSS(IN, OPT, OUT)                                                 \
    IN(H, "f32[M,d]", "grad, rows > 0, finite", "features")                                        \
    IN(y, "i32[M]", "0 <= . < K", "class of each example")                                         \
    OPT(K, BL_REQUIRED_INTEGER, ">= 1", "classes")                                                 \
    OPT(lambda_w, 5e-3, "(0,inf)", "decay of the classifier")                                      \
    OPT(lambda_h, 5e-3, "[0,inf)", "decay of the features")                                        \
    OUT(loss, "f32[]", "the objective with the best classifier and beta = 0")                      \
    OUT(W, "f32[K,d]", "that classifier")

BL_CONTRACT(neural_collapse_central_loss, NEURAL_COLLAPSE_CENTRAL_LOSS,
            "the objective on the central path")
{
    bl_tensor h = bl_to_f64(f->H), y = onehot(f->y, f->K), lambda_w = bl_to_f64(f->lambda_w);
    bl_tensor w = best_classifier(h, y, lambda_w);
    f->loss = bl_cast(objective(w, h, y, lambda_w, bl_to_f64(f->lambda_h)), BL_F32);
    f->W = bl_cast(w, BL_F32);
}

/* --- towards the minimum ---------------------------------------------------------------------- */

typedef struct problem {
    bl_tensor y, h0, lambda_w, lambda_h, beta, dt;
} problem;

#define NEURAL_COLLAPSE_FLOW(IN, OPT, OUT)                                                         \
    IN(H0, "f32[M,d]", "rows > 0, finite", "first features")                                       \
    IN(y, "i32[M]", "0 <= . < K", "class of each example")                                         \
    OPT(K, BL_REQUIRED_INTEGER, ">= 1", "classes")                                                 \
    OPT(lambda_w, 5e-3, "(0,inf)", "decay of the classifier")                                      \
    OPT(lambda_h, 5e-3, "[0,inf)", "decay of the features")                                        \
    OPT(dt, 0.1, "(0,inf)", "length of a step")                                                    \
    OPT(steps, 1, ">= 0", "steps")                                                                 \
    OUT(H, "f32[M,d]", "features after them")

/* H <- H - dt ((H W^T - Y) W + lambda_h H) with the best W */
static void flow_step(BL_UNUSED_ bl_graph *graph, const bl_tensor *carry,
                      BL_UNUSED_ const bl_tensor *x, bl_tensor *next, BL_UNUSED_ bl_tensor *y,
                      void *context)
{
    const problem *p = context;
    bl_tensor h = carry[0], w = best_classifier(h, p->y, p->lambda_w);
    bl_tensor residual = bl_sub(bl_dot(h, w, false, true), p->y);
    bl_tensor slope = bl_add(bl_dot(residual, w, false, false), bl_mul(p->lambda_h, h));
    next[0] = bl_sub(h, bl_mul(p->dt, slope));
}

BL_CONTRACT(neural_collapse_flow, NEURAL_COLLAPSE_FLOW, "Euler steps along the central path")
{
    problem p = {.y = onehot(f->y, f->K),
                 .lambda_w = bl_to_f64(f->lambda_w),
                 .lambda_h = bl_to_f64(f->lambda_h),
                 .dt = bl_to_f64(f->dt)};
    bl_tensor first = bl_to_f64(f->H0), last;
    bl_scan(graph, f->steps, flow_step, &p, &first, 1, NULL, 0, &last, NULL, 0);
    f->H = bl_cast(last, BL_F32);
}

#define NEURAL_COLLAPSE_MINIMIZER(IN, OPT, OUT)                                                    \
    IN(H0, "f32[M,d]", "rows > 0, finite", "features to stay near, and first features")            \
    IN(y, "i32[M]", "0 <= . < K", "class of each example")                                         \
    OPT(K, BL_REQUIRED_INTEGER, ">= 1", "classes")                                                 \
    OPT(lambda_w, 5e-3, "(0,inf)", "decay of the classifier")                                      \
    OPT(lambda_h, 5e-3, "[0,inf)", "decay of the features")                                        \
    OPT(beta, 1.0, "[0,inf)", "weight of the distance from H0")                                    \
    OPT(iters, 50, ">= 0", "rounds")                                                               \
    OUT(H, "f32[M,d]", "features")                                                                 \
    OUT(W, "f32[K,d]", "their best classifier")                                                    \
    OUT(loss, "f32[]", "the objective there")

/* H <- (Y W + beta H0) (W^T W + (lambda_h + beta) I)^-1 with the best W */
static void alternate(BL_UNUSED_ bl_graph *graph, const bl_tensor *carry,
                      BL_UNUSED_ const bl_tensor *x, bl_tensor *next, BL_UNUSED_ bl_tensor *y,
                      void *context)
{
    const problem *p = context;
    bl_tensor w = best_classifier(carry[0], p->y, p->lambda_w);
    bl_tensor wanted = bl_add(bl_dot(p->y, w, false, false), bl_mul(p->beta, p->h0));
    next[0] = bl_ridge_solve(wanted, w, bl_add(p->lambda_h, p->beta));
}

BL_CONTRACT(neural_collapse_minimizer, NEURAL_COLLAPSE_MINIMIZER,
            "minimises the objective over W and H in turn")
{
    bool numbers = bl_is_number(f->lambda_h) && bl_is_number(f->beta);
    if (numbers && !(f->lambda_h.number + f->beta.number > 0)) {
        f->H = bl_poison(graph, "lambda_h + beta is 0, expected > 0");
        return;
    }
    problem p = {.y = onehot(f->y, f->K),
                 .h0 = bl_to_f64(f->H0),
                 .lambda_w = bl_to_f64(f->lambda_w),
                 .lambda_h = bl_to_f64(f->lambda_h),
                 .beta = bl_to_f64(f->beta)};
    bl_tensor h;
    bl_scan(graph, f->iters, alternate, &p, &p.h0, 1, NULL, 0, &h, NULL, 0);
    bl_tensor w = best_classifier(h, p.y, p.lambda_w);
    bl_tensor loss = objective(w, h, p.y, p.lambda_w, p.lambda_h);
    f->H = bl_cast(h, BL_F32);
    f->W = bl_cast(w, BL_F32);
    f->loss = bl_cast(bl_add(loss, distance(h, p.h0, p.beta)), BL_F32);
}

/* --- measures --------------------------------------------------------------------------------- */

#define NEURAL_COLLAPSE_METRICS(IN, OPT, OUT)                                                      \
    IN(H, "f32[M,d]", "grad, rows > 0, finite", "features")                                        \
    IN(y, "i32[M]", "0 <= . < K", "class of each example; every class occurs")                     \
    OPT(K, BL_REQUIRED_INTEGER, ">= 2", "classes")                                                 \
    OPT(tol, 1e-6, "[0,1)", "eigenvalues up to tol times the largest are left out")                \
    OUT(tr_w, "f32[]", "mean squared distance from the class mean")                                \
    OUT(tr_b, "f32[]", "mean squared distance of class means from the mean of all")                \
    OUT(nc1_trace, "f32[]", "tr_w / tr_b")                                                         \
    OUT(nc1, "f32[]", "trace(Sigma_W pinv(Sigma_B)) / K")                                          \
    OUT(nc2, "f32[]", "distance of the class means' Gram matrix from a simplex")

/* | G/|G| - (I - 1/K) / sqrt(K-1) | */
static bl_tensor simplex_distance(bl_graph *graph, bl_tensor gram)
{
    int64_t classes = bl_dim(gram, 0);
    bl_shape square = BL_SHAPE(classes, classes);
    bl_tensor row = bl_iota(graph, BL_I32, square, 0), column = bl_iota(graph, BL_I32, square, 1);
    bl_tensor centred = bl_sub(bl_to_f64(bl_eq(row, column)), 1.0 / (double)classes);
    bl_tensor simplex = bl_div(centred, sqrt((double)classes - 1));
    return bl_sqrt(squares(bl_sub(bl_div(gram, bl_sqrt(squares(gram))), simplex)));
}

static bl_contract_check neural_collapse_metrics_check;

/* The pseudo-inverse is taken of the small matrix C C^T = U diag(l) U^T: with P = D C^T U / l,
 * trace(Sigma_W pinv(Sigma_B)) / K = |P|^2 / M. */
BL_CONTRACT_CHECKED(neural_collapse_metrics, NEURAL_COLLAPSE_METRICS,
                    "how far features have collapsed", neural_collapse_metrics_check)
{
    bl_tensor h = bl_to_f64(f->H), y = onehot(f->y, f->K), l, u;
    double rows = (double)bl_dim(h, 0);
    bl_tensor means = bl_div(bl_dot(y, h, true, false), bl_expand(bl_sum(y, 0), 1));
    bl_tensor c = bl_sub(means, bl_mean_keep(h, 0)), d = bl_sub(h, bl_take(means, f->y));
    bl_tensor gram = bl_dot(c, c, false, true);
    bl_eigh(gram, &l, &u);
    bl_tensor kept = bl_gt(l, bl_mul(bl_to_f64(f->tol), bl_reduce_max(l)));
    bl_tensor inverse = bl_select(kept, bl_div(1, bl_select(kept, l, bl_ones_like(l))), 0);
    bl_tensor p = bl_mul(bl_dot(bl_dot(d, c, false, true), u, false, false), bl_expand(inverse, 0));
    bl_tensor within = bl_div(squares(d), rows), between = bl_div(squares(c), (double)f->K);

    f->tr_w = bl_cast(within, BL_F32);
    f->tr_b = bl_cast(between, BL_F32);
    f->nc1_trace = bl_cast(bl_div(within, between), BL_F32);
    f->nc1 = bl_cast(bl_div(squares(p), rows), BL_F32);
    f->nc2 = bl_cast(simplex_distance(graph, gram), BL_F32);
}

/* Whether all class means are equal; mean is room for [classes,size]. */
static bool means_coincide(const bl_array *h, const bl_array *y, const double *examples,
                           int64_t classes, double *mean)
{
    int64_t rows = h->type.shape.dim[0], size = h->type.shape.dim[1];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < size; j++) {
            int64_t k = bl_i32(y)[i];
            mean[k * size + j] += (double)bl_f32(h)[i * size + j] / examples[k];
        }
    for (int64_t i = size; i < classes * size; i++) {
        double a = mean[i], b = mean[i % size];
        if (fabs(a - b) > 1e-14 * fmax(fabs(a), fabs(b)))
            return false;
    }
    return true;
}

static bl_status neural_collapse_metrics_check(const bl_dictionary *in, const void *options)
{
    const bl_array *h = bl_dictionary_find(in, "H"), *y = bl_dictionary_find(in, "y");
    int64_t classes = ((const struct neural_collapse_metrics *)options)->K;
    size_t bytes = (size_t)(classes * (h->type.shape.dim[1] + 1)) * sizeof(double);
    double *examples = bl_alloc(bytes);
    if (!examples)
        return bl_no_memory(bytes);
    for (int64_t i = 0; i < bl_array_count(y); i++)
        examples[bl_i32(y)[i]]++;
    bl_status status = BL_OK;
    for (int64_t k = 0; k < classes && status == BL_OK; k++)
        if (examples[k] < 1)
            status = bl_fail(BL_INVALID, "y has no example of class %lld, expected all of 0..%lld",
                             (long long)k, (long long)(classes - 1));
    if (status == BL_OK && means_coincide(h, y, examples, classes, examples + classes))
        status = bl_fail(BL_INVALID, "H has equal means in all classes: tr_b is 0, expected > 0");
    bl_release(examples);
    return status;
}

/* --- theory ----------------------------------------------------------------------------------- */

#define NEURAL_COLLAPSE_COLLAPSED(IN, OPT, OUT)                                                    \
    IN(Q, "f32[K,d]", "rows > 0, finite", "orthonormal rows")                                      \
    IN(y, "i32[M]", "rows > 0, 0 <= . < K", "class of each example")                               \
    OPT(lambda_w, 5e-3, "(0,inf)", "decay of the classifier")                                      \
    OPT(lambda_h, 5e-3, "(0,inf)", "decay of the features")                                        \
    OUT(H, "f32[M,d]", "sqrt(rho) Q_y, rho = max(0, 1-c) sqrt(lambda_w/lambda_h)")                 \
    OUT(W, "f32[K,d]", "sqrt(lambda_h/lambda_w) sqrt(rho) Q, c = sqrt(lambda_h lambda_w)")

static bl_contract_check neural_collapse_collapsed_check;

BL_CONTRACT_CHECKED(neural_collapse_collapsed, NEURAL_COLLAPSE_COLLAPSED,
                    "the collapsed minimiser without H0", neural_collapse_collapsed_check)
{
    bl_tensor q = bl_to_f64(f->Q), lambda_w = bl_to_f64(f->lambda_w),
              lambda_h = bl_to_f64(f->lambda_h);
    bl_tensor c = bl_sqrt(bl_mul(lambda_h, lambda_w)), left = bl_max(bl_sub(1, c), 0);
    bl_tensor size = bl_sqrt(bl_mul(left, bl_sqrt(bl_div(lambda_w, lambda_h))));
    f->H = bl_cast(bl_take(bl_mul(size, q), f->y), BL_F32);
    f->W = bl_cast(bl_mul(bl_mul(bl_sqrt(bl_div(lambda_h, lambda_w)), size), q), BL_F32);
}

static bl_status neural_collapse_collapsed_check(const bl_dictionary *in,
                                                 BL_UNUSED_ const void *options)
{
    const bl_array *q = bl_dictionary_find(in, "Q");
    int64_t rows = q->type.shape.dim[0], size = q->type.shape.dim[1];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < size; k++)
                sum += (double)bl_f32(q)[i * size + k] * (double)bl_f32(q)[j * size + k];
            if (fabs(sum - (i == j)) > 1e-3)
                return bl_fail(BL_INVALID,
                               "Q has rows %lld and %lld with product %g, expected "
                               "orthonormal rows",
                               (long long)j, (long long)i, sum);
        }
    return BL_OK;
}

#define NEURAL_COLLAPSE_RESPONSE(IN, OPT, OUT)                                                     \
    IN(H, "f32[M,d]", "rows > 0, finite", "features at the minimum")                               \
    IN(W, "f32[K,d]", "rows > 0, finite", "classifier at the minimum")                             \
    IN(dH0, "f32[M,d]", "finite", "change of H0")                                                  \
    IN(y, "i32[M]", "0 <= . < K", "class of each example")                                         \
    OPT(lambda_w, 5e-3, "(0,inf)", "decay of the classifier")                                      \
    OPT(lambda_h, 5e-3, "[0,inf)", "decay of the features")                                        \
    OPT(beta, 100.0, "(0,inf)", "weight of the distance from H0, large")                           \
    OUT(dH, "f32[M,d]", "change of H, to first order in 1/beta")                                   \
    OUT(dW, "f32[K,d]", "change of W")

/* dW = -(W dH0^T H + R^T dH0) A^-1, R = H W^T - Y, A = H^T H + n lambda_w I;
 * dH = dH0 - (lambda_h dH0 + dH0 W^T W + R dW + H dW^T W) / beta */
BL_CONTRACT(neural_collapse_response, NEURAL_COLLAPSE_RESPONSE,
            "how the minimiser follows a change of H0")
{
    bl_tensor h = bl_to_f64(f->H), w = bl_to_f64(f->W), d = bl_to_f64(f->dH0),
              y = onehot(f->y, bl_dim(w, 0));
    bl_tensor r = bl_sub(bl_dot(h, w, false, true), y);
    bl_tensor push =
        bl_add(bl_dot(bl_dot(w, d, false, true), h, false, false), bl_dot(r, d, true, false));
    bl_tensor ridge = bl_mul(per_class(y), bl_to_f64(f->lambda_w));
    bl_tensor dw = bl_neg(bl_ridge_solve(push, h, ridge));
    bl_tensor moved = bl_add(bl_dot(d, w, false, true), bl_dot(h, dw, false, true));
    bl_tensor pull = bl_add(bl_dot(moved, w, false, false), bl_dot(r, dw, false, false));
    pull = bl_add(pull, bl_mul(bl_to_f64(f->lambda_h), d));
    f->dH = bl_cast(bl_sub(d, bl_div(pull, bl_to_f64(f->beta))), BL_F32);
    f->dW = bl_cast(dw, BL_F32);
}

const bl_method bl_neural_collapse = {
    .slug = "neural_collapse",
    .family = "theory",
    .paper = "Tirer, Huang, Niles-Weed 2023, arXiv 2210.16658",
    .summary = "(no arm) measures of collapsed features, and the model that explains them",
    .when = "To see how far features of a class fall together, layer by layer or epoch by epoch, "
            "and what decay of weights and features does to that.",
    .functions = {&neural_collapse_metrics_contract, &neural_collapse_ufm_loss_contract,
                  &neural_collapse_wstar_contract, &neural_collapse_central_loss_contract,
                  &neural_collapse_flow_contract, &neural_collapse_minimizer_contract,
                  &neural_collapse_collapsed_contract, &neural_collapse_response_contract},
    .example = "ballast show neural_collapse_metrics",
};
