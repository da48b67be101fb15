/* High-dimensional dynamics of generalization error. Advani, Saxe 2017, arXiv 1710.03667. Gradient
 * flow in linear regression learns each direction of the data at the speed of its eigenvalue, so
 * learning curves, the best time to stop, and what training for ever leads to are known in closed
 * form: for a given spectrum, for given data, and in the limit of many inputs N and samples P with
 * P/N = alpha.
 *
 * Inputs have variance 1/N, descent is on the sum of squares, lambda are the eigenvalues of X^T X.
 * All in double, of which only the results are rounded. */
#include "methods/method.h"
#include "ballast/solve.h"

/* What student, teacher and descent are like, as options of several functions. */
#define STUDENT(OPT)                                                                               \
    OPT(sigma_w, 1.0, "[0,inf)", "deviation of the teacher's weights")                             \
    OPT(sigma_w0, 0.0, "[0,inf)", "deviation of the student's first weights")                      \
    OPT(sigma_e, 1.0, "[0,inf)", "deviation of the noise on targets")
#define DESCENT(OPT)                                                                               \
    OPT(gamma, 0.0, "[0,inf)", "weight decay")                                                     \
    OPT(tau, 1.0, "(0,inf)", "time constant")

/* (1 - exp(-s t/tau)) / s, t/tau where s = 0; s = lambda + gamma [1,N], time t/tau [T,1]. */
static bl_tensor learnt(bl_tensor s, bl_tensor time)
{
    bl_tensor positive = bl_gt(s, 0), divisor = bl_select(positive, s, bl_ones_like(s));
    bl_tensor share = bl_div(bl_neg(bl_expm1(bl_neg(bl_mul(s, time)))), divisor);
    return bl_select(positive, share, time);
}

/* What each mode contributes at each time, [T,N]. */
typedef struct modes {
    bl_tensor error;  /* sigma_w^2 (1 - lambda a)^2 + sigma_w0^2 e^2: weights not yet right */
    bl_tensor noise;  /* sigma_e^2 lambda a^2: noise learnt */
    bl_tensor unseen; /* sigma_e^2 (1 - lambda a)^2: noise not yet learnt */
} modes;

static modes modes_at(bl_tensor lambda, bl_tensor time, bl_tensor gamma, const bl_tensor *variance)
{
    bl_tensor s = bl_add(lambda, gamma), a = learnt(s, time);
    bl_tensor missing = bl_square(bl_sub(1, bl_mul(lambda, a)));
    bl_tensor first = bl_exp(bl_mul(-2, bl_mul(s, time)));
    return (modes){.error = bl_add(bl_mul(variance[0], missing), bl_mul(variance[1], first)),
                   .noise = bl_mul(variance[2], bl_mul(lambda, bl_square(a))),
                   .unseen = bl_mul(variance[2], missing)};
}

#define HIGH_DIM_DYNAMICS_MODES(IN, OPT, OUT)                                                      \
    IN(lam, "f32[N]", "grad, rows > 0, >= 0", "all eigenvalues of X^T X, zeros included")          \
    IN(t, "f32[T]", "grad, >= 0", "times")                                                         \
    OPT(n_samples, BL_REQUIRED_INTEGER, ">= 1", "samples P")                                       \
    STUDENT(OPT)                                                                                   \
    DESCENT(OPT)                                                                                   \
    OUT(eg, "f32[T]", "expected error on new noisy samples")                                       \
    OUT(et, "f32[T]", "expected error on the training samples")

BL_CONTRACT(high_dim_dynamics_modes, HIGH_DIM_DYNAMICS_MODES, "learning curves of a spectrum")
{
    bl_tensor variance[] = {bl_square(bl_to_f64(f->sigma_w)), bl_square(bl_to_f64(f->sigma_w0)),
                            bl_square(bl_to_f64(f->sigma_e))};
    bl_tensor lambda = bl_expand(bl_to_f64(f->lam), 0);
    bl_tensor time = bl_expand(bl_div(bl_to_f64(f->t), bl_to_f64(f->tau)), 1);
    modes m = modes_at(lambda, time, bl_to_f64(f->gamma), variance);
    bl_tensor positive = bl_gt(lambda, 0), rank = bl_sum(bl_to_f64(positive));
    bl_tensor seen = bl_add(bl_mul(lambda, m.error), m.unseen);
    bl_tensor rest = bl_mul(variance[2], bl_sub((double)f->n_samples, rank));

    bl_tensor train = bl_add(bl_sum(bl_select(positive, seen, 0), 1), rest);
    f->eg = bl_cast(bl_add(bl_mean(bl_add(m.error, m.noise), 1), variance[2]), BL_F32);
    f->et = bl_cast(bl_div(train, (double)f->n_samples), BL_F32);
}

/* --- the limit of high dimension -------------------------------------------------------------- */

#define HIGH_DIM_DYNAMICS_MP_DENSITY(IN, OPT, OUT)                                                 \
    IN(lam, "f32[K]", "", "where to evaluate")                                                     \
    OPT(alpha, BL_REQUIRED, "(0,inf)", "samples per input")                                        \
    OUT(density, "f32[K]", "of eigenvalues, 0 at the edges and outside")                           \
    OUT(mass0, "f32[]", "share of eigenvalues that are 0")                                         \
    OUT(edges, "f32[2]", "(sqrt(alpha) -+ 1)^2")

BL_HOST(high_dim_dynamics_mp_density, HIGH_DIM_DYNAMICS_MP_DENSITY,
        "the distribution of eigenvalues: Marchenko and Pastur 1967")
{
    double root = sqrt(f->alpha), low = (root - 1) * (root - 1), high = (root + 1) * (root + 1);
    int64_t count = bl_array_count(&f->lam);
    for (int64_t i = 0; i < count; i++) {
        double l = bl_array_get(&f->lam, i);
        bool inside = l > low && l < high && l > 0;
        bl_array_set(&f->density, i, inside ? sqrt((high - l) * (l - low)) / (2 * M_PI * l) : 0);
    }
    bl_array_set(&f->mass0, 0, fmax(0, 1 - f->alpha));
    bl_array_set(&f->edges, 0, low);
    bl_array_set(&f->edges, 1, high);
    return BL_OK;
}

#define HIGH_DIM_DYNAMICS_MP_CURVE(IN, OPT, OUT)                                                   \
    IN(t, "f32[T]", "grad, >= 0", "times")                                                         \
    OPT(alpha, BL_REQUIRED, "(0,inf)", "samples per input")                                        \
    OPT(quad, 256, ">= 8", "nodes of the quadrature")                                              \
    STUDENT(OPT)                                                                                   \
    DESCENT(OPT)                                                                                   \
    OUT(eg, "f32[T]", "expected error on new noisy samples")                                       \
    OUT(et, "f32[T]", "expected error on the training samples")

/* Nodes theta_k = k pi / (quad+1), lambda_k = 1 + alpha + 2 sqrt(alpha) cos theta_k and weights
 * 2 alpha sin^2 theta_k / ((quad+1) lambda_k), [1,quad]: they add up to min(1, alpha). */
BL_CONTRACT(high_dim_dynamics_mp_curve, HIGH_DIM_DYNAMICS_MP_CURVE,
            "learning curves in the limit of high dimension")
{
    bl_tensor variance[] = {bl_square(bl_to_f64(f->sigma_w)), bl_square(bl_to_f64(f->sigma_w0)),
                            bl_square(bl_to_f64(f->sigma_e))};
    bl_tensor alpha = bl_to_f64(f->alpha), gamma = bl_to_f64(f->gamma);
    double step = 1.0 / (double)(f->quad + 1);
    bl_tensor k = bl_iota(graph, BL_F64, BL_SHAPE(1, f->quad), 1);
    bl_tensor theta = bl_mul(bl_add(k, 1), M_PI * step);
    bl_tensor lambda = bl_add(bl_add(1, alpha), bl_mul(bl_mul(2, bl_sqrt(alpha)), bl_cos(theta)));
    bl_tensor weight = bl_mul(bl_mul(2 * step, alpha), bl_div(bl_square(bl_sin(theta)), lambda));
    bl_tensor time = bl_expand(bl_div(bl_to_f64(f->t), bl_to_f64(f->tau)), 1);
    modes m = modes_at(lambda, time, gamma, variance);
    bl_tensor seen = bl_add(bl_mul(lambda, m.error), m.unseen);

    bl_tensor kept = bl_exp(bl_mul(bl_mul(-2, gamma), bl_squeeze(time, 1)));
    bl_tensor frozen =
        bl_mul(bl_max(bl_sub(1, alpha), 0), bl_add(variance[0], bl_mul(variance[1], kept)));
    bl_tensor new_error = bl_sum(bl_mul(weight, bl_add(m.error, m.noise)), 1);
    f->eg = bl_cast(bl_add(bl_add(new_error, frozen), variance[2]), BL_F32);
    bl_tensor surplus = bl_sub(1, bl_div(bl_min(alpha, 1), alpha));
    bl_tensor train = bl_div(bl_sum(bl_mul(weight, seen), 1), alpha);
    f->et = bl_cast(bl_add(train, bl_mul(surplus, variance[2])), BL_F32);
}

#define HIGH_DIM_DYNAMICS_FINAL(IN, OPT, OUT)                                                      \
    IN(alpha, "f32[K]", "> 0", "samples per input")                                                \
    OPT(sigma_w, 1.0, "(0,inf)", "deviation of the teacher's weights")                             \
    OPT(sigma_w0, 0.0, "[0,inf)", "deviation of the student's first weights")                      \
    OPT(sigma_e, 1.0, "[0,inf)", "deviation of the noise on targets")                              \
    OUT(eg_inf, "f32[K]", "error after training for ever; infinite at alpha = 1 with noise")       \
    OUT(eg_ridge, "f32[K]", "error with the best weight decay, from weights 0")                    \
    OUT(gamma_opt, "f32[]", "that decay, sigma_e^2 / sigma_w^2")

static double error_for_ever(double alpha, double weights, double noise)
{
    if (alpha > 1)
        return noise * alpha / (alpha - 1);
    if (alpha < 1)
        return (1 - alpha) * weights + noise / (1 - alpha);
    return noise > 0 ? INFINITY : 0;
}

/* noise (1 + m), m = (-b + sqrt(b^2 + 4g)) / (2g), b = g + alpha - 1, without cancellation; noise m
 * goes to (1 - alpha) signal where there is no noise. */
static double error_with_decay(double alpha, double signal, double noise)
{
    double g = noise / signal, b = g + alpha - 1, root = sqrt(b * b + 4 * g);
    if (b > 0)
        return noise + noise * 2 / (b + root);
    return noise + signal * (root - b) / 2;
}

BL_HOST(high_dim_dynamics_final, HIGH_DIM_DYNAMICS_FINAL, "what training for ever leads to")
{
    double signal = f->sigma_w * f->sigma_w, noise = f->sigma_e * f->sigma_e;
    double weights = signal + f->sigma_w0 * f->sigma_w0;
    int64_t count = bl_array_count(&f->alpha);
    for (int64_t i = 0; i < count; i++) {
        double alpha = bl_array_get(&f->alpha, i);
        bl_array_set(&f->eg_inf, i, error_for_ever(alpha, weights, noise));
        bl_array_set(&f->eg_ridge, i, error_with_decay(alpha, signal, noise));
    }
    bl_array_set(&f->gamma_opt, 0, noise / signal);
    return BL_OK;
}

/* --- early stopping --------------------------------------------------------------------------- */

#define HIGH_DIM_DYNAMICS_STOP_TIME(IN, OPT, OUT)                                                  \
    IN(lam, "f32[N]", "rows > 0, finite, >= 0", "all eigenvalues of X^T X, zeros included")        \
    STUDENT(OPT)                                                                                   \
    OPT(tau, 1.0, "(0,inf)", "time constant")                                                      \
    OUT(t_opt, "f32[]", "when the error on new samples is lowest")                                 \
    OUT(eg_opt, "f32[]", "that error")                                                             \
    OUT(interior, "u8[]", "0 where the lowest is at an end of the times tried")

enum { TIMES = 2001 };

static bl_curve error_at;

/* The largest eigenvalue and the smallest positive one. */
static bl_status eigenvalue_range(const bl_array *lam, double *smallest, double *largest)
{
    int64_t count = bl_array_count(lam);
    *smallest = INFINITY;
    *largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double l = bl_array_get(lam, i);
        *largest = fmax(*largest, l);
        *smallest = l > 0 ? fmin(*smallest, l) : *smallest;
    }
    return *largest > 0 ? BL_OK : bl_fail(BL_INVALID, "lam is all 0, expected a value > 0");
}

BL_HOST(high_dim_dynamics_stop_time, HIGH_DIM_DYNAMICS_STOP_TIME, "the best time to stop")
{
    double smallest, largest;
    BL_TRY(eigenvalue_range(&f->lam, &smallest, &largest));
    double first = log(1e-3 * f->tau / largest), last = log(1e3 * f->tau / smallest);
    bl_minimum best = bl_grid_minimum(error_at, f, first, last, TIMES);
    bl_array_set(&f->t_opt, 0, exp(best.x));
    bl_array_set(&f->eg_opt, 0, best.value);
    bl_array_set(&f->interior, 0, best.point > 0 && best.point < TIMES - 1);
    return BL_OK;
}

/* high_dim_dynamics_modes without decay, at one time. */
static double error_at(double log_t, void *context)
{
    const struct high_dim_dynamics_stop_time *f = context;
    double sum = 0, time = exp(log_t) / f->tau, noise = f->sigma_e * f->sigma_e;
    double weights = f->sigma_w * f->sigma_w + f->sigma_w0 * f->sigma_w0;
    int64_t count = bl_array_count(&f->lam);
    for (int64_t i = 0; i < count; i++) {
        double l = bl_array_get(&f->lam, i), learnt_share = -expm1(-l * time);
        double missing = exp(-2 * l * time);
        sum += weights * missing + (l > 0 ? noise * learnt_share * learnt_share / l : 0);
    }
    return sum / (double)count + noise;
}

/* --- given data ------------------------------------------------------------------------------- */

#define HIGH_DIM_DYNAMICS_LINEAR_FLOW(IN, OPT, OUT)                                                \
    IN(X, "f32[P,N]", "rows > 0, finite", "inputs")                                                \
    IN(y, "f32[P]", "grad", "targets")                                                             \
    IN(w0, "f32[N]", "grad", "first weights")                                                      \
    IN(t, "f32[T]", ">= 0", "times")                                                               \
    DESCENT(OPT)                                                                                   \
    OUT(w, "f32[T,N]", "weights at each time")                                                     \
    OUT(train_mse, "f32[T]", "mean squared error on the samples")

/* Eigenvalues of x^T x, ascending, with vectors; those up to `tolerance` times the largest are 0.
 */
static bl_tensor spectrum(bl_tensor x, bl_tensor tolerance, bl_tensor *vectors)
{
    bl_tensor values;
    bl_eigh(bl_dot(x, x, true, false), &values, vectors);
    bl_tensor least = bl_max(bl_mul(tolerance, bl_reduce_max(values)), 0);
    return bl_select(bl_gt(values, least), values, 0);
}

/* w0 + V (a V^T (X^T (y - X w0) - gamma w0)); data have no part in directions of eigenvalue 0. */
BL_CONTRACT(high_dim_dynamics_linear_flow, HIGH_DIM_DYNAMICS_LINEAR_FLOW,
            "gradient flow of linear regression, exactly")
{
    bl_tensor x = bl_stop_gradient(bl_to_f64(f->X)), gamma = bl_to_f64(f->gamma), v;
    bl_tensor y = bl_expand(bl_to_f64(f->y), 0), w0 = bl_expand(bl_to_f64(f->w0), 0);
    bl_tensor lambda = bl_expand(spectrum(x, bl_number(1e-12), &v), 0);
    bl_tensor time = bl_expand(bl_div(bl_to_f64(bl_stop_gradient(f->t)), bl_to_f64(f->tau)), 1);
    bl_tensor left = bl_sub(y, bl_dot(w0, x, false, true));
    bl_tensor pull = bl_dot(bl_dot(left, x, false, false), v, false, false);
    bl_tensor decay = bl_mul(gamma, bl_dot(w0, v, false, false));
    bl_tensor force = bl_sub(bl_select(bl_gt(lambda, 0), pull, 0), decay);
    bl_tensor path = bl_mul(learnt(bl_add(lambda, gamma), time), force);
    bl_tensor w = bl_add(w0, bl_dot(path, v, false, true));
    bl_tensor residual = bl_sub(bl_dot(w, x, false, true), y);
    f->w = bl_cast(w, BL_F32);
    f->train_mse = bl_cast(bl_mean(bl_square(residual), 1), BL_F32);
}

#define HIGH_DIM_DYNAMICS_FROZEN(IN, OPT, OUT)                                                     \
    IN(Hf, "f32[P,Nh]", "rows > 0, finite", "hidden activations on the training samples")          \
    IN(w0, "f32[Nh]", "", "weights of the readout")                                                \
    OPT(tol, 1e-6, "[0,1)", "eigenvalues up to tol times the largest count as 0")                  \
    OUT(rank, "i32[]", "directions that can learn")                                                \
    OUT(frozen_frac, "f32[]", "share of directions that cannot")                                   \
    OUT(lam_min, "f32[]", "smallest eigenvalue kept; 0 if there is none")                          \
    OUT(lam_max, "f32[]", "largest eigenvalue")                                                    \
    OUT(frozen_norm2, "f32[]", "squared length of w0's part that never changes")

BL_CONTRACT(high_dim_dynamics_frozen, HIGH_DIM_DYNAMICS_FROZEN,
            "which directions of the weights can learn")
{
    bl_tensor x = bl_to_f64(f->Hf), v, values = spectrum(x, bl_to_f64(f->tol), &v);
    bl_tensor largest = bl_reduce_max(values), kept = bl_gt(values, 0);
    bl_tensor rank = bl_sum(bl_to_f64(kept));
    bl_tensor part = bl_squeeze(bl_dot(bl_expand(bl_to_f64(f->w0), 0), v, false, false), 0);
    bl_tensor smallest = bl_reduce_min(bl_select(kept, values, largest));

    f->rank = bl_cast(rank, BL_I32);
    f->frozen_frac = bl_cast(bl_sub(1, bl_div(rank, (double)bl_dim(x, 1))), BL_F32);
    f->lam_min = bl_cast(smallest, BL_F32);
    f->lam_max = bl_cast(largest, BL_F32);
    f->frozen_norm2 = bl_cast(bl_sum(bl_select(kept, 0, bl_square(part))), BL_F32);
}

const bl_method bl_high_dim_dynamics = {
    .slug = "high_dim_dynamics",
    .family = "theory",
    .paper = "Advani, Saxe 2017, arXiv 1710.03667",
    .summary = "(no arm) learning curves and best stopping times in closed form",
    .when = "To know what early stopping, weight decay and the number of samples do in regression, "
            "or which directions of a layer can learn at all.",
    .functions = {&high_dim_dynamics_modes_contract, &high_dim_dynamics_mp_curve_contract,
                  &high_dim_dynamics_mp_density_contract, &high_dim_dynamics_final_contract,
                  &high_dim_dynamics_stop_time_contract, &high_dim_dynamics_linear_flow_contract,
                  &high_dim_dynamics_frozen_contract},
    .example = "ballast show high_dim_dynamics_modes",
};
