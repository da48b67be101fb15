/* AR-Net. Triebe, Laptev, Rajagopal 2019, arXiv 1911.12436. A linear layer from the last p values
 * of a series to its next h ones is an auto-regressive model that is fitted by gradient descent,
 * at a cost linear in p. A penalty that is steep at zero and flat far from it makes unneeded lags
 * vanish without shrinking the others, so p may be chosen far too large.
 *
 * Column 0 of x is the oldest value, so the coefficient of lag i is w[:, p-i]. */
#include "methods/method.h"

#include "ballast/solve.h"

/* --- data ------------------------------------------------------------------------------------ */

#define AR_NET_LAGS(IN, OPT, OUT)                                                                  \
    IN (series, "f32[T]",   "",    "the series, oldest value first")                               \
    OPT(p,      BL_REQUIRED_INTEGER, ">= 1", "lags")                                               \
    OPT(h,      1,          ">= 1", "steps to forecast")                                           \
    OUT(x,      "f32[N,p]", "x[n,j] = series[n+j]; N = T - p - h + 1")                             \
    OUT(y,      "f32[N,h]", "y[n,i] = series[n+p+i]")

/* [rows,columns]: series[first + n + j] */
static bl_tensor windows(bl_tensor series, int64_t first, int64_t rows, int64_t columns)
{
    bl_shape shape = BL_SHAPE(rows, columns);
    bl_tensor n = bl_iota(series.graph, BL_I32, shape, 0);
    bl_tensor j = bl_iota(series.graph, BL_I32, shape, 1);
    bl_tensor at = bl_reshape(bl_add(bl_add(n, j), (double)first), BL_SHAPE(rows * columns));
    return bl_reshape(bl_take(series, at), shape);
}

BL_CONTRACT(ar_net_lags, AR_NET_LAGS, "windows of a series and what follows them")
{
    int64_t length = bl_dim(f->series, 0), rows = length - f->p - f->h + 1;
    if (rows < 1) {
        f->x = f->y = bl_poison(graph, "series has %lld values, expected at least p + h = %lld",
                                (long long)length, (long long)(f->p + f->h));
        return;
    }
    f->x = windows(f->series, 0, rows, f->p);
    f->y = windows(f->series, f->p, rows, f->h);
}

#define AR_NET_GENERATE(IN, OPT, OUT)                                                              \
    IN (noise,  "f32[T]", "", "of each step")                                                      \
    IN (coef,   "f32[p]", "", "coef[i-1] belongs to lag i")                                        \
    OUT(series, "f32[T]", "s_t = noise_t + sum of coef[i-1] s_(t-i), 0 before the start")

BL_HOST(ar_net_generate, AR_NET_GENERATE, "an auto-regressive series from given noise")
{
    int64_t length = bl_array_count(&f->noise), lags = bl_array_count(&f->coef);
    double *s = bl_alloc((size_t)(length + 1) * sizeof *s);
    const float *coef = bl_f32(&f->coef);
    if (!s)
        return bl_no_memory((size_t)(length + 1) * sizeof *s);
    for (int64_t t = 0; t < length; t++) {
        double sum = (double)bl_f32(&f->noise)[t];
        for (int64_t i = 1; i <= lags && i <= t; i++)
            sum += (double)coef[i - 1] * s[t - i];
        s[t] = sum;
        bl_f32(&f->series)[t] = (float)sum;
    }
    bl_release(s);
    return BL_OK;
}

/* --- the penalty and the loss ---------------------------------------------------------------- */

#define AR_NET_FORM(OPT)                                                                           \
    OPT(form,  "sigmoid", "sigmoid|sqrt|l1", "of the penalty")                                     \
    OPT(c1,    3.0,       "(0,inf)",         "steepness; version 1 of the code has 2")             \
    OPT(c2,    3.0,       "(0,inf)",         "root taken; version 1 of the code has 2")            \
    OPT(floor, 0.0,       "[0,inf)",         "weights up to this size get no gradient")

#define AR_NET_PENALTY(IN, OPT, OUT)                                                               \
    IN (w,       "f32[h,p]", "grad, rows > 0", "weights of the first layer, without biases")       \
    AR_NET_FORM(OPT)                                                                               \
    OUT(penalty, "f32[]",    "mean of tanh(c1 |w|^(1/c2) / 2), of |w|^(1/2) or of |w|")

struct ar_net_penalty;
static bl_tensor size_term(const struct ar_net_penalty *f, bl_tensor size);

/* Where |w| <= floor, and at 0 in any case, the slope is 0 by definition; |w|^q is there kept off
 * its pole, so that no infinity arises. */
BL_CONTRACT(ar_net_penalty, AR_NET_PENALTY, "sparsity penalty, steep at zero and flat beyond")
{
    if (bl_dim(f->w, 1) < 1) {
        f->penalty = bl_poison(graph, "w is empty: it has no columns, expected p >= 1");
        return;
    }
    bl_tensor size   = bl_abs(f->w), moves = bl_gt(size, f->floor);
    bl_tensor moving = size_term(f, bl_select(moves, size, 1));
    bl_tensor still  = bl_stop_gradient(size_term(f, size));
    f->penalty = bl_mean(bl_select(moves, moving, still));
}

static bl_tensor size_term(const struct ar_net_penalty *f, bl_tensor size)
{
    if (bl_is(f->form, "l1"))
        return size;
    if (bl_is(f->form, "sqrt"))
        return bl_sqrt(size);
    bl_tensor root = bl_pow(size, bl_div(1, f->c2));
    return bl_tanh(bl_mul(bl_mul(0.5, f->c1), root)); /* 2 sigmoid(c1 root) - 1 */
}

#define AR_NET_LOSS(IN, OPT, OUT)                                                                  \
    IN (x,       "f32[N,p]", "grad, rows > 0", "windows, as ar_net_lags gives them")               \
    IN (y,       "f32[N,h]", "",               "what follows them")                                \
    IN (w,       "f32[h,p]", "grad, rows > 0", "weights")                                          \
    IN (b,       "f32[h]",   "grad",           "biases")                                           \
    IN (lam,     "f32[]",    ">= 0",           "weight of the penalty, see ar_net_lambda")         \
    AR_NET_FORM(OPT)                                                                               \
    OPT(fit,     "mse",      "mse|huber|mae",  "error function; huber: quadratic up to 1")         \
    OUT(loss,    "f32[]",    "fit + lam penalty")                                                  \
    OUT(fit,     "f32[]",    "mean error of the forecasts")                                        \
    OUT(penalty, "f32[]",    "of w")                                                               \
    OUT(pred,    "f32[N,h]", "x w^T + b")

static bl_tensor error_of(bl_tensor e, const char *fit)
{
    bl_tensor size = bl_abs(e), half_square = bl_mul(0.5, bl_square(e));
    return bl_is(fit, "mse")   ? bl_square(e)
           : bl_is(fit, "mae") ? size
                               : bl_select(bl_lt(size, 1), half_square, bl_sub(size, 0.5));
}

BL_CONTRACT_APART(ar_net_loss, AR_NET_LOSS, "forecasts, their error, and the penalty")
{
    struct ar_net_penalty of_w = {.w = f->w, .form = f->form, .c1 = f->c1, .c2 = f->c2,
                                  .floor = f->floor};
    bl_call(ar_net_penalty, &of_w);
    f->out_pred    = bl_linear(f->x, f->w, f->b);
    f->out_fit     = bl_mean(error_of(bl_sub(f->out_pred, f->y), f->fit));
    f->out_penalty = of_w.penalty;
    f->out_loss    = bl_add(f->out_fit, bl_mul(f->lam, of_w.penalty));
}

#define AR_NET_LAMBDA(IN, OPT, OUT)                                                                \
    IN (progress, "f32[]",     "no NaN",             "share of the training that is done")         \
    OPT(sparsity, BL_REQUIRED, "(0,1]",              "expected share of lags that are needed")     \
    OPT(strength, 0.01,        "[0,inf)",            "")                                           \
    OPT(noise,    1.0,         "[0,inf)",            "standard deviation of the noise")            \
    OPT(ramp,     "linear",    "none|linear|square", "from 0, between start and full")             \
    OPT(start,    0.0,         "",                   "progress at which the ramp starts")          \
    OPT(full,     1.0,         "(start,inf)",        "progress at which it ends")                  \
    OUT(lam,      "f32[]",     "strength noise (1 / sparsity - 1), on the ramp")

BL_HOST(ar_net_lambda, AR_NET_LAMBDA, "weight of the penalty during training")
{
    double top = f->strength * f->noise * ((1 + 1e-9) / (f->sparsity + 1e-9) - 1);
    double q = (bl_array_get(&f->progress, 0) - f->start) / (f->full - f->start);
    q = bl_is(f->ramp, "none") ? 1 : fmin(fmax(q, 0), 1);
    bl_array_set(&f->lam, 0, top * (bl_is(f->ramp, "square") ? q * q : q));
    return BL_OK;
}

/* --- comparisons ----------------------------------------------------------------------------- */

#define AR_NET_STPE(IN, OPT, OUT)                                                                  \
    IN (est,  "f32[S...]", "", "estimated coefficients")                                           \
    IN (real, "f32[S...]", "", "the true ones, in the same order of lags")                         \
    OUT(stpe, "f32[]",     "100 sum |est - real| / (1e-8 + sum of |est| + |real|)")

BL_CONTRACT(ar_net_stpe, AR_NET_STPE, "symmetric total percentage error of coefficients")
{
    bl_tensor wrong = bl_sum(bl_abs(bl_sub(f->est, f->real)));
    bl_tensor size  = bl_sum(bl_add(bl_abs(f->est), bl_abs(f->real)));
    f->stpe = bl_mul(100, bl_div(wrong, bl_add(1e-8, size)));
}

#define AR_NET_LEAST_SQUARES(IN, OPT, OUT)                                                         \
    IN (x,         "f32[N,p]", "rows > 0", "windows")                                              \
    IN (y,         "f32[N,h]", "",         "what follows them")                                    \
    OPT(intercept, 1,          "flag",     "fit b; else it is 0")                                  \
    OUT(w,         "f32[h,p]", "minimises the sum of (x w^T + b - y)^2; the shortest (w, b)")      \
    OUT(b,         "f32[h]",   "")

struct ar_net_least_squares;
/* a [N,n] = [x, 1] and c [N,h] = y in double. */
static void least_squares_inputs(const struct ar_net_least_squares *f, int64_t n, double *a,
                                 double *c);

BL_HOST(ar_net_least_squares, AR_NET_LEAST_SQUARES, "the classic estimate: least squares")
{
    int64_t rows = f->x.type.shape.dim[0], p = f->x.type.shape.dim[1];
    int64_t h = f->y.type.shape.dim[1], n = p + f->intercept;
    size_t bytes = (size_t)(rows * (n + h) + n * h + 1) * sizeof(double);
    double *a = bl_alloc(bytes);
    if (!a)
        return bl_no_memory(bytes);
    double *c = a + rows * n, *z = c + rows * h; /* z [n,h] */
    least_squares_inputs(f, n, a, c);
    bl_status status = bl_minimum_norm(a, c, rows, n, h, z);
    for (int64_t i = 0; i < h && status == BL_OK; i++) {
        for (int64_t j = 0; j < p; j++)
            bl_array_set(&f->w, i * p + j, z[j * h + i]);
        bl_array_set(&f->b, i, f->intercept ? z[p * h + i] : 0);
    }
    bl_release(a);
    return status;
}

static void least_squares_inputs(const struct ar_net_least_squares *f, int64_t n, double *a,
                                 double *c)
{
    int64_t rows = f->x.type.shape.dim[0], p = f->x.type.shape.dim[1];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            a[i * n + j] = j < p ? bl_array_get(&f->x, i * p + j) : 1;
    for (int64_t i = 0; i < bl_array_count(&f->y); i++)
        c[i] = bl_array_get(&f->y, i);
}

const bl_method bl_ar_net = {
    .slug = "ar_net",
    .family = "series",
    .paper = "Triebe, Laptev, Rajagopal 2019, arXiv 1911.12436",
    .summary = "(no arm) auto-regression over many lags, of which few are kept",
    .when = "Forecasting a long series from many of its own last values, where the coefficients "
            "have to be read. The cost grows linearly in the number of lags.",
    .functions = {&ar_net_loss_contract, &ar_net_penalty_contract, &ar_net_lambda_contract,
                  &ar_net_lags_contract, &ar_net_stpe_contract, &ar_net_least_squares_contract,
                  &ar_net_generate_contract},
    .example = "ballast show ar_net_penalty",
};
