/* From generalization to scaling. Xiao, arXiv 2409.15156. Rules made for small data seen many times
 * need not hold for large data seen once, and the curves of loss against compute of two recipes may
 * cross: the better one at small scale loses at large scale. Here are the fit of such a curve, the
 * crossing of two, and an Adam step that keeps apart what is often called weight decay. */
#include "methods/method.h"

/* --- curves ----------------------------------------------------------------------------------- */

#define SCALING_CROSSOVER_FIT(IN, OPT, OUT)                                                        \
    IN(c, "f32[M]", "> 0, finite", "compute, or size")                                             \
    IN(loss, "f32[M]", "> 0, finite", "loss of each run")                                          \
    OUT(coef, "f32[2]", "a, alpha of loss = a / c^alpha")                                          \
    OUT(rms, "f32[]", "root mean square of what is left of log loss")

BL_HOST(scaling_crossover_fit, SCALING_CROSSOVER_FIT, "a power law, by regression of logarithms")
{
    int64_t M = bl_array_count(&f->c);
    double x = 0, y = 0, spread = 0, together = 0, left = 0; /* x and y: means of logarithms */
    if (M < 2)
        return bl_fail(BL_INVALID, "c has %lld values, expected at least 2", (long long)M);
    for (int64_t i = 0; i < M; i++) {
        x += log(bl_array_get(&f->c, i)) / (double)M;
        y += log(bl_array_get(&f->loss, i)) / (double)M;
    }
    for (int64_t i = 0; i < M; i++) {
        double dx = log(bl_array_get(&f->c, i)) - x;
        spread += dx * dx;
        together += dx * (log(bl_array_get(&f->loss, i)) - y);
    }
    if (!(spread > 0))
        return bl_fail(BL_INVALID, "c has one value only, expected different ones");
    double slope = together / spread;
    for (int64_t i = 0; i < M; i++) {
        double dx = log(bl_array_get(&f->c, i)) - x;
        double error = log(bl_array_get(&f->loss, i)) - y - slope * dx;
        left += error * error;
    }
    bl_array_set(&f->coef, 0, exp(y - slope * x));
    bl_array_set(&f->coef, 1, -slope);
    bl_array_set(&f->rms, 0, sqrt(left / (double)M));
    return BL_OK;
}

#define SCALING_CROSSOVER_POINT(IN, OPT, OUT)                                                      \
    IN(coef_a, "f32[3]", "finite", "a, alpha, floor of recipe A: loss = a / c^alpha + floor")      \
    IN(coef_b, "f32[3]", "finite", "of recipe B")                                                  \
    OPT(c_min, BL_REQUIRED, "(0,inf)", "where to look from")                                       \
    OPT(c_max, BL_REQUIRED, "(c_min,inf)", "and up to")                                            \
    OPT(grid, 2001, ">= 2", "points, equally spaced in log c")                                     \
    OUT(n_cross, "i32[]", "changes of sign between neighbouring points")                           \
    OUT(c_first, "f32[]", "the first crossing, 0 if there is none")                                \
    OUT(better_small, "i32[]", "-1: A is lower at c_min, 1: B is")                                 \
    OUT(better_large, "i32[]", "likewise at c_max")

static double loss_at(const bl_array *coef, double z)
{
    return bl_array_get(coef, 0) * exp(-bl_array_get(coef, 1) * z) + bl_array_get(coef, 2);
}

static int sign_of(double x)
{
    return (x > 0) - (x < 0);
}

struct scaling_crossover_point;
static double difference(const struct scaling_crossover_point *f, double z);

/* Where the difference changes its sign between z and `high`: halved until no number is between. */
static double bisect(const struct scaling_crossover_point *f, double z, double high)
{
    int sign = sign_of(difference(f, z));
    for (double middle = (z + high) / 2; middle > z && middle < high; middle = (z + high) / 2) {
        if (sign_of(difference(f, middle)) == sign)
            z = middle;
        else
            high = middle;
    }
    return (z + high) / 2;
}

/* Nothing negative, and a loss > 0 at log c = z. */
static bl_status check_law(const bl_array *coef, const char *name)
{
    for (int i = 0; i < 3; i += 2)
        if (!(bl_array_get(coef, i) >= 0))
            return bl_fail(BL_INVALID, "%s[%d] is %g, expected >= 0", name, i,
                           bl_array_get(coef, i));
    return BL_OK;
}

static bl_status check_loss(const bl_array *coef, const char *name, double z)
{
    double loss = loss_at(coef, z);
    if (loss > 0 && isfinite(loss))
        return BL_OK;
    return bl_fail(BL_INVALID, "%s gives a loss of %g at c = %g, expected a finite one > 0", name,
                   loss, exp(z));
}

BL_HOST(scaling_crossover_point, SCALING_CROSSOVER_POINT, "where two fitted laws cross")
{
    BL_TRY(check_law(&f->coef_a, "coef_a"));
    BL_TRY(check_law(&f->coef_b, "coef_b"));
    double low = log(f->c_min), step = (log(f->c_max) - low) / (double)(f->grid - 1);
    int64_t crossings = 0, last = f->grid - 1;
    double first = 0;
    for (int64_t i = 0; i <= last; i++) { /* losses are monotonic, but a check of all is cheap */
        BL_TRY(check_loss(&f->coef_a, "coef_a", low + step * (double)i));
        BL_TRY(check_loss(&f->coef_b, "coef_b", low + step * (double)i));
    }
    for (int64_t i = 0; i < last; i++) {
        double z = low + step * (double)i, next = low + step * (double)(i + 1);
        if (sign_of(difference(f, z)) * sign_of(difference(f, next)) >= 0)
            continue;
        if (crossings++ == 0)
            first = exp(bisect(f, z, next));
    }
    bl_array_set(&f->n_cross, 0, (double)crossings);
    bl_array_set(&f->c_first, 0, first);
    bl_array_set(&f->better_small, 0, sign_of(difference(f, low)));
    bl_array_set(&f->better_large, 0, sign_of(difference(f, low + step * (double)last)));
    return BL_OK;
}

/* log of A's loss over B's, at log c = z */
static double difference(const struct scaling_crossover_point *f, double z)
{
    return log(loss_at(&f->coef_a, z)) - log(loss_at(&f->coef_b, z));
}

#define SCALING_CROSSOVER_EMPIRICAL(IN, OPT, OUT)                                                  \
    IN(c, "f32[M]", "> 0, finite", "compute, or size, increasing")                                 \
    IN(loss_a, "f32[M]", "> 0, finite", "losses of recipe A")                                      \
    IN(loss_b, "f32[M]", "> 0, finite", "losses of recipe B")                                      \
    OUT(sign, "i32[M]", "-1 where A is lower, 1 where B is, 0 where equal")                        \
    OUT(n_cross, "i32[]", "changes of sign, equal points left out")                                \
    OUT(c_first, "f32[]", "the first crossing, interpolated; 0 if there is none")

BL_HOST(scaling_crossover_empirical, SCALING_CROSSOVER_EMPIRICAL, "crossings of measured curves")
{
    int64_t M = bl_array_count(&f->c), crossings = 0;
    double before = 0, d_before = 0, first = 0; /* log c and d of the last point that is no tie */
    for (int64_t i = 0; i < M; i++) {
        if (i && !(bl_array_get(&f->c, i) > bl_array_get(&f->c, i - 1)))
            return bl_fail(BL_INVALID, "c[%lld] is %g, expected more than c[%lld]", (long long)i,
                           bl_array_get(&f->c, i), (long long)i - 1);
        double z = log(bl_array_get(&f->c, i));
        double d = log(bl_array_get(&f->loss_a, i)) - log(bl_array_get(&f->loss_b, i));
        bl_array_set(&f->sign, i, sign_of(d));
        if (sign_of(d) * sign_of(d_before) < 0 && crossings++ == 0)
            first = exp(before + (z - before) * d_before / (d_before - d));
        if (d != 0)
            before = z, d_before = d;
    }
    bl_array_set(&f->n_cross, 0, (double)crossings);
    bl_array_set(&f->c_first, 0, first);
    return BL_OK;
}

/* --- recipes ---------------------------------------------------------------------------------- */

#define SCALING_CROSSOVER_LR(IN, OPT, OUT)                                                         \
    IN(width, "i32[S]", ">= 1", "of the model")                                                    \
    OPT(rule, BL_REQUIRED_WORD, "const|inverse|sqrt", "c/ref, c/width, c/sqrt(width ref)")         \
    OPT(c, 2.0, "[0,inf)", "the rate times the reference width")                                   \
    OPT(ref, 1024.0, "(0,inf)", "width at which the rules agree")                                  \
    OUT(lr, "f32[S]", "learning rate")

BL_CONTRACT(scaling_crossover_lr, SCALING_CROSSOVER_LR, "learning rate as a function of width")
{
    bl_tensor width = bl_cast(f->width, BL_F64), c = bl_cast(f->c, BL_F64);
    bl_tensor ref = bl_cast(f->ref, BL_F64);
    bl_tensor divisor = bl_is(f->rule, "const")     ? bl_add(bl_zeros_like(width), ref)
                        : bl_is(f->rule, "inverse") ? width
                                                    : bl_sqrt(bl_mul(width, ref));
    f->lr = bl_cast(bl_div(c, divisor), BL_F32);
}

#define SCALING_CROSSOVER_STEP(IN, OPT, OUT)                                                       \
    IN(param, "f32[P]", "", "all parameters in a row: the norm is that of all")                    \
    IN(grad, "f32[P]", "", "gradient of the loss without decay")                                   \
    IN(m, "f32[P]", "", "mean of gradients, zero at first")                                        \
    IN(v, "f32[P]", "", "mean of squares, zero at first")                                          \
    OPT(step, BL_REQUIRED, ">= 1, integer", "1 for the first step; may be a tensor")               \
    OPT(lr, 2e-3, "[0,inf)", "highest learning rate")                                              \
    OPT(lr_scale, 1.0, "[0,inf)", "the schedule's share of it")                                    \
    OPT(decay, "independent", "none|l2|decoupled|independent", "what lam means")                   \
    OPT(lam, 1e-4, "[0,inf)", "strength of the decay")                                             \
    OPT(grad_mode, "clip", "none|clip|normalize", "what is done about the gradient's length")      \
    OPT(threshold, 1.0, "(0,inf)", "longest, or only, length")                                     \
    OPT(beta1, 0.9, "[0,1)", "share of m kept")                                                    \
    OPT(beta2, 0.98, "[0,1)", "share of v kept")                                                   \
    OPT(eps, 1e-8, "[0,inf)", "added to the root")                                                 \
    OUT(param_out, "f32[P]", "after the step")                                                     \
    OUT(m_out, "f32[P]", "beta1 m + (1 - beta1) g")                                                \
    OUT(v_out, "f32[P]", "beta2 v + (1 - beta2) g^2")                                              \
    OUT(grad_norm, "f32[]", "with l2 decay, before clipping")

/* The gradient at length `threshold` where it is longer than `least`. */
static bl_tensor shortened(bl_tensor g, bl_tensor norm, bl_tensor threshold, bl_tensor least)
{
    bl_tensor changes = bl_gt(norm, least);
    return bl_mul(g, bl_select(changes, bl_div(threshold, bl_select(changes, norm, 1)), 1));
}

BL_CONTRACT(scaling_crossover_step, SCALING_CROSSOVER_STEP,
            "Adam with the ways of regularizing kept apart")
{
    bl_tensor g = f->grad, rate = bl_mul(f->lr, f->lr_scale);
    if (bl_is(f->decay, "l2")) /* of lam/2 |param|^2, which is part of the loss */
        g = bl_add(g, bl_mul(f->lam, f->param));
    f->grad_norm = bl_norm(g, 0);
    if (!bl_is(f->grad_mode, "none"))
        g = shortened(g, f->grad_norm, f->threshold,
                      bl_is(f->grad_mode, "clip") ? f->threshold : bl_number(0));

    f->m_out = f->m, f->v_out = f->v;
    bl_tensor direction = bl_adam(g, f->step, f->beta1, f->beta2, f->eps, &f->m_out, &f->v_out);
    f->param_out = bl_sub(f->param, bl_mul(rate, direction));
    bl_tensor pull = bl_mul(bl_is(f->decay, "decoupled") ? rate : f->lr_scale, f->lam);
    if (bl_is(f->decay, "decoupled") || bl_is(f->decay, "independent"))
        f->param_out = bl_sub(f->param_out, bl_mul(pull, f->param));
}

const bl_method bl_scaling_crossover = {
    .slug = "scaling_crossover",
    .family = "scaling",
    .paper = "Xiao 2024, arXiv 2409.15156",
    .summary = "(no arm) power laws of loss, where two recipes cross, three kinds of weight decay",
    .when = "To decide between two recipes before the large run: fit both, look where they cross. "
            "Fits are free; the step costs what Adam does.",
    .functions = {&scaling_crossover_fit_contract, &scaling_crossover_point_contract,
                  &scaling_crossover_empirical_contract, &scaling_crossover_lr_contract,
                  &scaling_crossover_step_contract},
    .example = "ballast show scaling_crossover_point",
};
