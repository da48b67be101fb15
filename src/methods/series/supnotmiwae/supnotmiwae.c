/* SupNotMIWAE with ObsDropout. Kim, Kim, Yun, Lee, Lee, Lee, ICML 2023, arXiv 2308.06738. To
 * classify series with missing values, a latent-variable generator draws completions, a classifier
 * sees each, and importance weights average what it says; a model of the mask makes up for values
 * that are not missing at random. Trained together the classifier would ignore the completions:
 * hiding a share of the observed values from it makes it use them.
 *
 * Axes: S samples per latent, K latents, B series, T steps, D variables, Z of the latent, and
 * J = S K. */
#include "methods/method.h"

#define LOG_2PI 1.8378770664093454836

/* --- what the classifier sees ---------------------------------------------------------------- */

#define SUPNOTMIWAE_OBS_DROPOUT(IN, OPT, OUT)                                                      \
    IN (mask,     "u8[B,T,D]",   "in {0,1}", "1: observed; padding is not")                        \
    IN (u,        "f32[J,B,T,D]", "",        "uniform draws")                                      \
    IN (beta,     "f32[D]",      "[0,1)",    "share hidden of each variable's observed values")    \
    OUT(mask_out, "u8[J,B,T,D]", "what is left; all of it where every beta is 0")                  \
    OUT(log_m,    "f32[J,B]",    "log probability of what was kept and hidden")

BL_CONTRACT(supnotmiwae_obs_dropout, SUPNOTMIWAE_OBS_DROPOUT, "hides observed values at random")
{
    bl_tensor observed = bl_eq(f->mask, 1), hides = bl_gt(bl_sum(f->beta), 0);
    bl_tensor keep     = bl_or(bl_lt(f->u, bl_sub(1, f->beta)), bl_not(hides));
    bl_tensor log_keep = bl_log1p(bl_neg(f->beta)), log_hide = bl_log(f->beta);
    bl_tensor each     = bl_select(keep, log_keep, log_hide);
    f->mask_out = bl_cast(bl_and(keep, observed), BL_U8);
    f->log_m    = bl_stop_gradient(bl_sum(bl_select(observed, each, 0), 2, 3));
}

#define SUPNOTMIWAE_FDECAY_IMPUTE(IN, OPT, OUT)                                                    \
    IN (x_obs,     "f32[B,T,D]",   "",         "data; anything where it is missing")               \
    IN (x_tilde,   "f32[J,B,T,D]", "grad",     "generated values")                                 \
    IN (mask,      "u8[J,B,T,D]",  "in {0,1}", "1: observed and not hidden")                       \
    IN (times,     "f32[B,T]",     "",         "non-decreasing")                                   \
    IN (w,         "f32[D]",       "grad",     "decay per time; 0 at first")                       \
    IN (bias,      "f32[D]",       "grad",     "decay at once; 0.05 at first, kept >= 0")          \
    OUT(x_imputed, "f32[J,B,T,D]", "data, else between the last observed and the generated value")

/* The last observed value and its time, the present step included; 0 and 0 before the first. */
static void keep_last(BL_UNUSED_ bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                      bl_tensor *carry_next, bl_tensor *y, BL_UNUSED_ void *context)
{
    bl_tensor observed = x[0], value = x[1], time = bl_expand(x[2], -1); /* [J,B,D], [B,D], [B,1] */
    y[0] = carry_next[0] = bl_select(observed, value, carry[0]);
    y[1] = carry_next[1] = bl_select(observed, time, carry[1]);
}

/* value and time, each [J,B,T,D], from observed (bool), x_obs and times. */
static void last_observed(bl_graph *graph, bl_tensor observed, bl_tensor x_obs, bl_tensor times,
                          bl_tensor *value, bl_tensor *time)
{
    int64_t J = bl_dim(observed, 0), B = bl_dim(observed, 1);
    int64_t steps = bl_dim(observed, 2), D = bl_dim(observed, 3);
    const bl_tensor in[3] = {bl_transpose(observed, 2, 0, 1, 3), bl_transpose(x_obs, 1, 0, 2),
                             bl_transpose(times, 1, 0)};
    bl_tensor start = bl_full(graph, BL_F32, BL_SHAPE(J, B, D), 0);
    bl_tensor end[2], y[2];
    bl_scan(graph, steps, keep_last, NULL, (const bl_tensor[]){start, start}, 2, in, 3, end, y, 2);
    *value = bl_transpose(y[0], 1, 2, 0, 3);
    *time = bl_transpose(y[1], 1, 2, 0, 3);
}

BL_CONTRACT(supnotmiwae_fdecay_impute, SUPNOTMIWAE_FDECAY_IMPUTE, "completes series by decay")
{
    bl_tensor observed = bl_eq(f->mask, 1);
    bl_tensor x = bl_stop_gradient(f->x_obs), t = bl_stop_gradient(f->times), last, since;
    last_observed(graph, observed, x, t, &last, &since);
    bl_tensor age   = bl_sub(bl_expand(t, -1), since);
    bl_tensor gamma = bl_exp(bl_neg(bl_relu(bl_add(bl_mul(age, f->w), f->bias))));
    bl_tensor blend = bl_add(bl_mul(gamma, last), bl_mul(bl_sub(1, gamma), f->x_tilde));
    f->x_imputed = bl_select(observed, x, blend);
}

#define SUPNOTMIWAE_TIME_ENCODING(IN, OPT, OUT)                                                    \
    IN (times,    "f32[B,T]",     "",        "")                                                   \
    OPT(dim,      BL_REQUIRED_INTEGER, ">= 2", "entries of the encoding")                          \
    OPT(max_time, 100.0,          "(0,inf)", "longest wave, in radians of time")                   \
    OUT(encoding, "f32[B,T,dim]", "sin a, cos a, sin a, ..; a_i = t / max_time^(i / (dim - 1))")

/* Angles in double: in float32 a large one is off by more than its sine may be. */
BL_CONTRACT(supnotmiwae_time_encoding, SUPNOTMIWAE_TIME_ENCODING, "times as sines and cosines")
{
    bl_tensor i     = bl_iota(graph, BL_F64, BL_SHAPE(f->dim), 0);
    bl_tensor share = bl_div(i, (double)f->dim - 1);
    bl_tensor wave  = bl_exp(bl_mul(share, bl_log(bl_cast(f->max_time, BL_F64))));
    bl_tensor angle = bl_div(bl_expand(bl_cast(f->times, BL_F64), -1), wave);
    bl_tensor even  = bl_eq(bl_rem(i, 2), 0);
    f->encoding = bl_cast(bl_select(even, bl_sin(angle), bl_cos(angle)), BL_F32);
}

/* --- terms of the bound ---------------------------------------------------------------------- */

/* log N(x; mu, sigma) elementwise. */
static bl_tensor log_normal(bl_tensor x, bl_tensor mu, bl_tensor sigma)
{
    bl_tensor r = bl_div(bl_sub(x, mu), sigma);
    return bl_sub(bl_mul(-0.5, bl_square(r)), bl_add(bl_log(sigma), 0.5 * LOG_2PI));
}

#define SUPNOTMIWAE_GAUSS_LOGPROB(IN, OPT, OUT)                                                    \
    IN (x,      "f32[B,T,D]",   "",          "data; anything where it is missing")                 \
    IN (mu,     "f32[K,B,T,D]", "grad",      "generator's means")                                  \
    IN (sigma,  "f32[K,B,T,D]", "grad, > 0", "and standard deviations")                            \
    IN (mask,   "u8[B,T,D]",    "in {0,1}",  "1: observed; the mask before dropout")               \
    OUT(log_px, "f32[K,B]",     "sum over observed entries of log N(x; mu, sigma)")

BL_CONTRACT(supnotmiwae_gauss_logprob, SUPNOTMIWAE_GAUSS_LOGPROB, "likelihood of what was observed")
{
    bl_tensor observed = bl_eq(f->mask, 1);
    bl_tensor x        = bl_stop_gradient(bl_select(observed, f->x, 0));
    bl_tensor each     = log_normal(x, f->mu, f->sigma);
    f->log_px = bl_sum(bl_select(observed, each, 0), 2, 3);
}

#define SUPNOTMIWAE_LATENT_TERMS(IN, OPT, OUT)                                                     \
    IN (z,            "f32[K,B,T,Z]", "grad",       "drawn latent paths")                          \
    IN (q_mu,         "f32[B,T,Z]",   "grad",       "posterior means")                             \
    IN (q_sigma,      "f32[B,T,Z]",   "grad, > 0",  "and standard deviations")                     \
    IN (pad,          "u8[B,T]",      "in {0,1}",   "1: a real step")                              \
    OPT(prior,        "gp",           "normal|gp",  "independent steps, or a Gaussian process")    \
    OPT(kernel,       "cauchy",       "cauchy|rbf", "of the process")                              \
    OPT(length_scale, 7.0,            "(0,inf)",    "of the kernel, in steps")                     \
    OPT(sigma,        1.005,          "(0,inf)",    "variance, of the cauchy kernel")              \
    OPT(jitter,       0.001,          "(0,inf)",    "added to the variance")                       \
    OUT(log_pz,       "f32[K,B]",     "gp: all steps, padded ones too; normal: real steps")        \
    OUT(log_qz,       "f32[K,B]",     "real steps")

struct supnotmiwae_latent_terms;
static bl_tensor process_factor(bl_graph *graph, const struct supnotmiwae_latent_terms *f);
static bl_tensor log_process(bl_tensor z, bl_tensor factor);

BL_CONTRACT(supnotmiwae_latent_terms, SUPNOTMIWAE_LATENT_TERMS,
            "log densities of latent paths under prior and posterior")
{
    bl_tensor real = bl_expand(bl_eq(f->pad, 1), -1);
    bl_tensor q    = log_normal(f->z, f->q_mu, f->q_sigma);
    f->log_qz = bl_sum(bl_select(real, q, 0), 2, 3);
    if (bl_is(f->prior, "normal")) {
        bl_tensor p = bl_sub(bl_mul(-0.5, bl_square(f->z)), 0.5 * LOG_2PI);
        f->log_pz = bl_sum(bl_select(real, p, 0), 2, 3);
    } else {
        f->log_pz = bl_cast(log_process(bl_cast(f->z, BL_F64), process_factor(graph, f)), BL_F32);
    }
}

/* The Cholesky factor [T,T] of the process' covariance, in double: float32 loses its small
 * eigenvalues, which are near `jitter`. */
static bl_tensor process_factor(bl_graph *graph, const struct supnotmiwae_latent_terms *f)
{
    int64_t   T     = bl_dim(f->z, 2);
    bl_shape  shape = BL_SHAPE(T, T);
    bl_tensor i     = bl_iota(graph, BL_F64, shape, 0), j = bl_iota(graph, BL_F64, shape, 1);
    bl_tensor far   = bl_square(bl_div(bl_sub(i, j), bl_cast(f->length_scale, BL_F64)));
    bl_tensor C     = bl_is(f->kernel, "cauchy") ? bl_div(bl_cast(f->sigma, BL_F64), bl_add(1, far))
                                                 : bl_exp(bl_neg(far));
    bl_tensor noise = bl_select(bl_eq(i, j), bl_cast(f->jitter, BL_F64), bl_zeros_like(i));
    return bl_cholesky(bl_stop_gradient(bl_add(C, noise)));
}

/* sum over coordinates c of log N(z[k,b,:,c]; 0, L L^T), [K,B]. */
static bl_tensor log_process(bl_tensor z, bl_tensor factor)
{
    int64_t   K = bl_dim(z, 0), B = bl_dim(z, 1), T = bl_dim(z, 2), Z = bl_dim(z, 3);
    bl_tensor paths    = bl_reshape(bl_transpose(z, 2, 0, 1, 3), BL_SHAPE(T, K * B * Z));
    bl_tensor white    = bl_triangular_solve(factor, paths, false, false);
    bl_tensor quadratic = bl_sum(bl_reshape(bl_sum(bl_square(white), 0), BL_SHAPE(K, B, Z)), 2);
    bl_tensor i        = bl_iota(z.graph, BL_I32, BL_SHAPE(T, T), 0);
    bl_tensor j        = bl_iota(z.graph, BL_I32, BL_SHAPE(T, T), 1);
    bl_tensor half_log = bl_sum(bl_log(bl_select(bl_eq(i, j), factor, 1))); /* log det / 2 */
    bl_tensor constant = bl_mul((double)Z, bl_add(half_log, 0.5 * LOG_2PI * (double)T));
    return bl_sub(bl_mul(-0.5, quadratic), constant);
}

#define SUPNOTMIWAE_MISSING_LOGPROB(IN, OPT, OUT)                                                  \
    IN (logits, "f32[J,B,T,D]", "grad",     "of being observed")                                   \
    IN (mask,   "u8[J,B,T,D]",  "in {0,1}", "the mask after dropout")                              \
    IN (pad,    "u8[B,T]",      "in {0,1}", "1: a real step")                                      \
    OUT(log_ps, "f32[J,B]",     "Bernoulli log-likelihood of the mask over real steps")

BL_CONTRACT(supnotmiwae_missing_logprob, SUPNOTMIWAE_MISSING_LOGPROB, "likelihood of the mask")
{
    bl_tensor each = bl_binary_cross_entropy(f->logits, bl_cast(f->mask, BL_F32));
    bl_tensor real = bl_expand(bl_eq(f->pad, 1), -1);
    f->log_ps = bl_neg(bl_sum(bl_select(real, each, 0), 2, 3));
}

/* --- the bound and predictions --------------------------------------------------------------- */

#define SUPNOTMIWAE_BOUND(IN, OPT, OUT)                                                            \
    IN (log_py, "f32[S,K,B]", "grad, rows > 0", "classifier: log p(y | x')")                       \
    IN (log_px, "f32[K,B]",   "grad",           "supnotmiwae_gauss_logprob")                       \
    IN (log_pz, "f32[K,B]",   "grad",           "supnotmiwae_latent_terms")                        \
    IN (log_qz, "f32[K,B]",   "grad",           "likewise")                                        \
    IN (log_ps, "f32[S,K,B]", "grad",           "supnotmiwae_missing_logprob")                     \
    IN (log_m,  "f32[S,K,B]", "grad",           "supnotmiwae_obs_dropout")                         \
    OPT(weights_include_ps, 1, "flag",          "as in the paper; the official code: false")       \
    OUT(loss,   "f32[]",      "-mean of logsumexp_k (log_py + r + log_ps) - log K")                \
    OUT(log_w,  "f32[S,K,B]", "importance weights, normalised over k")                             \
    OUT(ess,    "f32[]",      "mean of how many samples they are worth, 1 to K")

/* r = log_px + log_pz - log_qz + log_m. Sums over steps and variables are large and their
 * differences count, so they are added in double. */
BL_CONTRACT(supnotmiwae_bound, SUPNOTMIWAE_BOUND, "training loss, and importance weights")
{
    bl_tensor p      = bl_add(bl_cast(f->log_px, BL_F64), bl_cast(f->log_pz, BL_F64));
    bl_tensor r      = bl_add(bl_sub(p, bl_cast(f->log_qz, BL_F64)), bl_cast(f->log_m, BL_F64));
    bl_tensor with_s = bl_add(r, bl_cast(f->log_ps, BL_F64));
    bl_tensor joint  = bl_logsumexp(bl_add(bl_cast(f->log_py, BL_F64), with_s), 1);
    bl_tensor log_w  = bl_log_softmax(f->weights_include_ps ? with_s : r, 1);
    bl_tensor worth  = bl_exp(bl_neg(bl_logsumexp(bl_mul(2, log_w), 1)));

    f->loss  = bl_cast(bl_sub(log((double)bl_dim(r, 1)), bl_mean(joint)), BL_F32);
    f->log_w = bl_cast(log_w, BL_F32);
    f->ess   = bl_cast(bl_mean(worth), BL_F32);
}

#define SUPNOTMIWAE_PREDICT(IN, OPT, OUT)                                                          \
    IN (log_p,   "f32[S,K,N] | f32[S,K,B,C]", "rows > 0", "log probabilities; N = B, or B C with " \
                                                          "an example's classes side by side")     \
    IN (log_w,   "f32[S,K,B]",         "",                "weights of supnotmiwae_bound")          \
    OPT(average, "arithmetic", "arithmetic|geometric",    "over s; geometric is not normalised")   \
    OUT(prob,    "f32[N] | f32[B,C]",  "mean over s of sum_k w p, or exp(mean over s of log sum_k)")

BL_CONTRACT(supnotmiwae_predict, SUPNOTMIWAE_PREDICT, "importance-weighted predictions")
{
    bl_shape  shape = bl_type_of(f->log_p).shape;
    int64_t   S = shape.dim[0], K = shape.dim[1], B = bl_dim(f->log_w, 2);
    int64_t   N = bl_shape_count(shape);
    int64_t   entries = S * K * B, classes = entries ? N / entries : 1;
    if (classes < 1 || classes * entries != N) {
        f->prob = bl_poison(graph, "log_p has %lld columns, expected %lld of log_w times a number "
                                   "of classes", (long long)shape.dim[2], (long long)B);
        return;
    }
    bl_tensor log_p = bl_reshape(f->log_p, BL_SHAPE(S, K, B, classes));
    bl_tensor term  = bl_add(log_p, bl_expand(f->log_w, -1));
    bl_tensor prob  = bl_is(f->average, "arithmetic") ? bl_mean(bl_sum(bl_exp(term), 1), 0)
                                                      : bl_exp(bl_mean(bl_logsumexp(term, 1), 0));
    f->prob = shape.rank == 4 ? prob : bl_reshape(prob, BL_SHAPE(B * classes));
}

const bl_method bl_supnotmiwae = {
    .slug = "supnotmiwae",
    .family = "series",
    .paper = "Kim, Kim, Yun, Lee, Lee, Lee 2023, arXiv 2308.06738",
    .summary = "(no arm) classifies series with missing values by drawing what is missing",
    .when = "Series of which much is missing, not at random, where the uncertainty has to be "
            "right. A generator, a classifier and a model of the mask are trained together; the "
            "classifier sees every one of S times K completions.",
    .functions = {&supnotmiwae_bound_contract, &supnotmiwae_obs_dropout_contract,
                  &supnotmiwae_fdecay_impute_contract, &supnotmiwae_gauss_logprob_contract,
                  &supnotmiwae_latent_terms_contract, &supnotmiwae_missing_logprob_contract,
                  &supnotmiwae_predict_contract, &supnotmiwae_time_encoding_contract},
    .example = "ballast show supnotmiwae_bound",
};
