/* Pre-training under infinite compute. Kim, Kotha, Liang, Hashimoto, ICLR 2026, arXiv 2509.14786.
 * With a fixed amount of text, strong weight decay makes the loss fall with the model's size along
 * A / N^alpha + E, and the mean of the logits of several runs has a lower asymptote E again. Here
 * are the recipe's update and schedule, the ensemble, and the fits that compare recipes by E. */
#include "methods/method.h"
#include "ballast/solve.h"

/* --- the ensemble ----------------------------------------------------------------------------- */

#define INFINITE_COMPUTE_ENSEMBLE_NLL(IN, OPT, OUT)                                                \
    IN(logits, "f32[K,B,V]", "grad, rows > 0", "a row for each member and position")               \
    IN(labels, "i32[B]", "rows > 0, 0 <= . < V", "next token")                                     \
    IN(weights, "f32[B]", "grad, >= 0, sum > 0", "of the positions: 0 for padding")                \
    OPT(method, "mean", "mean|max|min", "how the members' logits are combined")                    \
    OPT(temperature, 1.0, "(0,inf)", "divides each member's logits first")                         \
    OUT(avg_logits, "f32[B,V]", "combined")                                                        \
    OUT(loss, "f32[]", "weighted mean of the cross-entropy of avg_logits")

static bl_tensor combined(bl_tensor z, const char *method)
{
    return bl_is(method, "mean")  ? bl_mean(z, 0)
           : bl_is(method, "max") ? bl_reduce_max(z, 0)
                                  : bl_reduce_min(z, 0);
}

BL_CONTRACT(infinite_compute_ensemble_nll, INFINITE_COMPUTE_ENSEMBLE_NLL,
            "loss of an ensemble that combines logits")
{
    f->avg_logits = combined(bl_div(f->logits, f->temperature), f->method);
    bl_tensor nll = bl_cross_entropy_rows(f->avg_logits, f->labels);
    f->loss = bl_div(bl_sum(bl_mul(f->weights, nll)), bl_sum(f->weights));
}

#define INFINITE_COMPUTE_SAMPLE(IN, OPT, OUT)                                                      \
    IN(logits, "f32[B,V]", "", "of the teacher")                                                   \
    IN(u, "f32[B]", "0 <= . < 1", "uniform draws")                                                 \
    OPT(temperature, 1.0, "(0,inf)", "divides the logits")                                         \
    OUT(token, "i32[B]", "how many cumulative probabilities are <= u, at most V - 1")

BL_CONTRACT(infinite_compute_sample, INFINITE_COMPUTE_SAMPLE, "draws tokens for distillation")
{
    int64_t V = bl_dim(f->logits, 1);
    if (V < 1) {
        bl_poison(graph, "logits have no classes, expected V >= 1");
        return;
    }
    bl_tensor z = bl_div(bl_cast(f->logits, BL_F64), bl_cast(f->temperature, BL_F64));
    bl_tensor below = bl_cumsum(bl_softmax(z, 1), 1);
    bl_tensor passed = bl_le(below, bl_expand(bl_cast(f->u, BL_F64), 1));
    f->token = bl_min(bl_sum(bl_cast(passed, BL_I32), 1), (double)(V - 1));
}

/* --- the recipe ------------------------------------------------------------------------------- */

#define INFINITE_COMPUTE_LR(IN, OPT, OUT)                                                          \
    IN(step, "i32[S]", ">= 0", "steps done")                                                       \
    OPT(total, BL_REQUIRED_INTEGER, ">= 1", "steps of the run")                                    \
    OPT(peak, 3e-3, "[0,inf)", "highest rate")                                                     \
    OPT(warmup_frac, 0.01, "[0,1)", "share of the run in which it rises")                          \
    OPT(min_ratio, 0.0, "[0,1]", "last rate, as a share of the peak")                              \
    OUT(lr, "f32[S]", "learning rate")

BL_CONTRACT(infinite_compute_lr, INFINITE_COMPUTE_LR, "cosine with warm-up")
{
    bl_tensor step = bl_cast(f->step, BL_F64), peak = bl_cast(f->peak, BL_F64);
    bl_tensor least = bl_cast(f->min_ratio, BL_F64);
    bl_tensor w = bl_floor(bl_mul(bl_cast(f->warmup_frac, BL_F64), (double)f->total));
    bl_tensor p = bl_div(bl_sub(step, w), bl_max(bl_sub((double)f->total, w), 1));
    bl_tensor cosine = bl_cos(bl_mul(M_PI, bl_clamp(p, 0, 1)));
    bl_tensor share = bl_add(least, bl_mul(bl_sub(1, least), bl_div(bl_add(1, cosine), 2)));
    bl_tensor rising = bl_div(step, bl_max(w, 1));
    f->lr = bl_cast(bl_mul(peak, bl_select(bl_lt(step, w), rising, share)), BL_F32);
}

#define INFINITE_COMPUTE_ADAMW_STEP(IN, OPT, OUT)                                                  \
    IN(param, "f32[P]", "", "parameters")                                                          \
    IN(grad, "f32[P]", "", "gradient of the loss")                                                 \
    IN(m, "f32[P]", "", "mean of gradients, zero at first")                                        \
    IN(v, "f32[P]", "", "mean of squares, zero at first")                                          \
    IN(decay_mask, "f32[P]", "", "1 where decayed: not for gains and biases")                      \
    OPT(step, BL_REQUIRED, ">= 1, integer", "1 for the first step; may be a tensor")               \
    OPT(lr, BL_REQUIRED, "[0,inf)", "learning rate of this step")                                  \
    OPT(weight_decay, 1.6, "[0,inf)", "decay, which the learning rate multiplies")                 \
    OPT(beta1, 0.9, "[0,1)", "share of m kept")                                                    \
    OPT(beta2, 0.95, "[0,1)", "share of v kept")                                                   \
    OPT(eps, 1e-8, "[0,inf)", "added to the root")                                                 \
    OPT(clip, 1.0, "[0,inf)", "longest gradient; 0 leaves it alone")                               \
    OUT(param_out, "f32[P]", "param - lr (Adam's direction + weight_decay decay_mask param)")      \
    OUT(m_out, "f32[P]", "beta1 m + (1 - beta1) g, g the clipped gradient")                        \
    OUT(v_out, "f32[P]", "beta2 v + (1 - beta2) g^2")                                              \
    OUT(grad_norm, "f32[]", "before clipping")

BL_CONTRACT(infinite_compute_adamw_step, INFINITE_COMPUTE_ADAMW_STEP,
            "one step of AdamW with clipping and strong decay")
{
    f->grad_norm = bl_norm(f->grad, 0);
    bl_tensor shorter = bl_min(1, bl_div(f->clip, f->grad_norm));
    bl_tensor g = bl_mul(f->grad, bl_select(bl_gt(f->clip, 0), shorter, 1));
    f->m_out = f->m, f->v_out = f->v;
    bl_tensor direction = bl_adam(g, f->step, f->beta1, f->beta2, f->eps, &f->m_out, &f->v_out);
    bl_tensor decay = bl_mul(f->weight_decay, bl_mul(f->decay_mask, f->param));
    f->param_out = bl_sub(f->param, bl_mul(f->lr, bl_add(direction, decay)));
}

/* --- fits: y = A / x^alpha + E ---------------------------------------------------------------- */

#define FIT(OPT)                                                                                   \
    OPT(alpha_min, 1e-3, "(0,inf)", "least exponent")                                              \
    OPT(alpha_max, 10.0, "[alpha_min,inf)", "largest exponent")                                    \
    OPT(grid, 400, ">= 2", "exponents tried before refining")

typedef struct power_law {
    double A, alpha, E;
    double sse; /* sum of squared errors */
} power_law;

typedef struct points {
    double *log_x; /* above the least, so that no power overflows */
    double *power; /* x^-alpha of the exponent that is tried */
    const double *y;
    int64_t count;
} points;

/* Of a law with that exponent. */
static double sum_of_squares(const points *p, power_law law)
{
    double sum = 0;
    for (int64_t i = 0; i < p->count; i++) {
        double error = p->y[i] - law.A * p->power[i] - law.E;
        sum += error * error;
    }
    return sum;
}

/* The best A and E of an exponent: the regression of y on f = x^-alpha where it gives no negative
 * one, else the better of E = 0 and A = 0. */
static power_law with_exponent(const points *p, double alpha)
{
    double mean_f = 0, mean_y = 0, ff = 0, fy = 0, spread = 0, together = 0;
    for (int64_t i = 0; i < p->count; i++) {
        double f = p->power[i] = exp(-alpha * p->log_x[i]);
        mean_f += f;
        mean_y += p->y[i];
        ff += f * f;
        fy += f * p->y[i];
    }
    mean_f /= (double)p->count;
    mean_y /= (double)p->count;
    for (int64_t i = 0; i < p->count; i++) {
        double f = p->power[i] - mean_f;
        spread += f * f;
        together += f * (p->y[i] - mean_y);
    }
    double slope = together / spread;
    power_law best = {slope, alpha, mean_y - slope * mean_f, 0};
    best.sse = sum_of_squares(p, best);
    if (best.A >= 0 && best.E >= 0)
        return best;
    power_law power = {fmax(0, fy / ff), alpha, 0, 0}, constant = {0, alpha, fmax(0, mean_y), 0};
    power.sse = sum_of_squares(p, power);
    constant.sse = sum_of_squares(p, constant);
    return constant.sse < power.sse ? constant : power;
}

static double error_of_exponent(double log_alpha, void *context)
{
    return with_exponent(context, exp(log_alpha)).sse;
}

/* Copies log x - its least; says which. */
static bl_status logarithms(const bl_array *x, const char *name, double *log_x, double *least)
{
    int64_t count = bl_array_count(x);
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        log_x[i] = log(bl_array_get(x, i));
        low = fmin(low, log_x[i]);
        high = fmax(high, log_x[i]);
    }
    if (!(high > low))
        return bl_fail(BL_INVALID, "%s has one value only, expected different ones", name);
    for (int64_t i = 0; i < count; i++)
        log_x[i] -= low;
    *least = low;
    return BL_OK;
}

/* Fits y[count] over x. The lowest sum of squares is found over log alpha. */
static bl_status fit(const bl_array *x, const char *name, const double *y, double alpha_min,
                     double alpha_max, int64_t grid, power_law *out)
{
    points p = {.y = y, .count = bl_array_count(x)};
    if (p.count < 3)
        return bl_fail(BL_INVALID, "%s has %lld values, expected at least 3", name,
                       (long long)p.count);
    p.log_x = bl_alloc((size_t)p.count * 2 * sizeof *p.log_x);
    if (!p.log_x)
        return bl_no_memory((size_t)p.count * 2 * sizeof *p.log_x);
    p.power = p.log_x + p.count;
    double least = 0;
    bl_status status = logarithms(x, name, p.log_x, &least);
    if (status == BL_OK) {
        bl_minimum m = bl_grid_minimum(error_of_exponent, &p, log(alpha_min), log(alpha_max), grid);
        *out = with_exponent(&p, exp(m.x));
        out->A *= exp(out->alpha * least);
        if (out->A == 0) /* then no exponent is better than another */
            out->alpha = 0;
        if (isnan(m.value)) /* y is not finite */
            *out = (power_law){m.value, m.value, m.value, m.value};
    }
    bl_release(p.log_x);
    return status;
}

static void write_law(bl_array *coef, int64_t row, power_law law)
{
    bl_array_set(coef, 3 * row, law.A);
    bl_array_set(coef, 3 * row + 1, law.alpha);
    bl_array_set(coef, 3 * row + 2, law.E);
}

#define INFINITE_COMPUTE_POWER_FIT(IN, OPT, OUT)                                                   \
    IN(x, "f32[M]", "> 0, finite", "members, parameters or data")                                  \
    IN(y, "f32[M]", "", "losses")                                                                  \
    FIT(OPT)                                                                                       \
    OUT(coef, "f32[3]", "A, alpha, E; alpha is 0 where A is")                                      \
    OUT(sse, "f32[]", "sum of squared errors")

BL_HOST(infinite_compute_power_fit, INFINITE_COMPUTE_POWER_FIT,
        "least squares of A / x^alpha + E, the best with A, E >= 0")
{
    double *y = bl_array_doubles(&f->y);
    power_law law = {0};
    bl_status status = y ? fit(&f->x, "x", y, f->alpha_min, f->alpha_max, f->grid, &law)
                         : bl_no_memory(sizeof *y);
    bl_release(y);
    write_law(&f->coef, 0, law);
    bl_array_set(&f->sse, 0, law.sse);
    return status;
}

#define INFINITE_COMPUTE_TIERED(IN, OPT, OUT)                                                      \
    IN(loss, "f32[Nn,Kk]", "", "of ensembles of k models of size n")                               \
    IN(n, "f32[Nn]", "> 0, finite", "sizes, in billions of parameters in the paper")               \
    IN(k, "f32[Kk]", "> 0, finite", "members")                                                     \
    FIT(OPT)                                                                                       \
    OUT(k_coef, "f32[Nn,3]", "A, alpha, E over k for each size")                                   \
    OUT(n_coef, "f32[3]", "A, alpha, E over n of those E")                                         \
    OUT(asymptote, "f32[]", "the E of that")

struct infinite_compute_tiered;
static bl_status fit_rows(struct infinite_compute_tiered *f, const double *loss, double *asymptote);

BL_HOST(infinite_compute_tiered, INFINITE_COMPUTE_TIERED, "K to infinity, then N to infinity")
{
    double *loss = bl_array_doubles(&f->loss), *asymptote = bl_array_doubles(&f->n);
    power_law law = {0};
    bl_status status = loss && asymptote ? BL_OK : bl_no_memory(sizeof *loss);
    if (status == BL_OK)
        status = fit_rows(f, loss, asymptote);
    if (status == BL_OK)
        status = fit(&f->n, "n", asymptote, f->alpha_min, f->alpha_max, f->grid, &law);
    write_law(&f->n_coef, 0, law);
    bl_array_set(&f->asymptote, 0, law.E);
    bl_release(loss);
    bl_release(asymptote);
    return status;
}

/* Fits each row of loss over k into k_coef, and keeps the asymptotes. */
static bl_status fit_rows(struct infinite_compute_tiered *f, const double *loss, double *asymptote)
{
    int64_t rows = bl_array_count(&f->n), columns = bl_array_count(&f->k);
    for (int64_t i = 0; i < rows; i++) {
        power_law law;
        BL_TRY(fit(&f->k, "k", loss + i * columns, f->alpha_min, f->alpha_max, f->grid, &law));
        write_law(&f->k_coef, i, law);
        asymptote[i] = law.E;
    }
    return BL_OK;
}

#define INFINITE_COMPUTE_DATA_EQUIV(IN, OPT, OUT)                                                  \
    IN(loss, "f32[R]", "> E", "losses of a recipe")                                                \
    IN(base_loss, "f32[R]", "> E", "losses of the baseline")                                       \
    OPT(A, BL_REQUIRED, "(0,inf)", "of the baseline's loss A / data^alpha + E")                    \
    OPT(alpha, BL_REQUIRED, "(0,inf)", "its exponent")                                             \
    OPT(E, BL_REQUIRED, "finite", "its asymptote")                                                 \
    OUT(data, "f32[R]", "with which the baseline would reach loss")                                \
    OUT(ratio, "f32[R]", "to the data for base_loss")

BL_HOST(infinite_compute_data_equiv, INFINITE_COMPUTE_DATA_EQUIV,
        "how much data the baseline would need")
{
    int64_t count = bl_array_count(&f->loss);
    for (int64_t i = 0; i < count; i++) {
        double above = bl_array_get(&f->loss, i) - f->E;
        double base_above = bl_array_get(&f->base_loss, i) - f->E;
        bl_array_set(&f->data, i, pow(f->A / above, 1 / f->alpha));
        bl_array_set(&f->ratio, i, pow(base_above / above, 1 / f->alpha));
    }
    return BL_OK;
}

/* --- the search ------------------------------------------------------------------------------- */

#define INFINITE_COMPUTE_CERTIFICATE(IN, OPT, OUT)                                                 \
    IN(loss, "f32[Ne,Nl,Nw]", "", "over epochs, learning rates, decays; NaN where not run")        \
    OUT(index, "i32[3]", "of the lowest loss, the first of equals")                                \
    OUT(best, "f32[]", "that loss")                                                                \
    OUT(measured, "i32[]", "how many of its 6 neighbours were run")                                \
    OUT(certified, "u8[]", "1 where all were, and none is lower")

static int64_t lowest(const bl_array *loss)
{
    int64_t count = bl_array_count(loss), best = -1;
    for (int64_t i = 0; i < count; i++) {
        double value = bl_array_get(loss, i);
        if (!isnan(value) && (best < 0 || value < bl_array_get(loss, best)))
            best = i;
    }
    return best;
}

/* The loss one step along an axis; beyond the border there is the point itself. */
static double neighbour(const bl_array *loss, const int64_t at[3], int axis, int step)
{
    const int64_t *size = loss->type.shape.dim;
    int64_t near[3] = {at[0], at[1], at[2]}, moved = at[axis] + step;
    if (moved >= 0 && moved < size[axis])
        near[axis] = moved;
    return bl_array_get(loss, (near[0] * size[1] + near[1]) * size[2] + near[2]);
}

BL_HOST(infinite_compute_certificate, INFINITE_COMPUTE_CERTIFICATE,
        "is the tuned point locally optimal?")
{
    const int64_t *size = f->loss.type.shape.dim;
    int64_t lowest_at = lowest(&f->loss);
    if (lowest_at < 0)
        return bl_fail(BL_INVALID, "loss is NaN everywhere, expected at least one run");
    int64_t at[3] = {lowest_at / size[2] / size[1], lowest_at / size[2] % size[1],
                     lowest_at % size[2]};
    int measured = 0;
    for (int i = 0; i < 6; i++)
        measured += !isnan(neighbour(&f->loss, at, i / 2, i % 2 ? 1 : -1));
    for (int axis = 0; axis < 3; axis++)
        bl_array_set(&f->index, axis, (double)at[axis]);
    bl_array_set(&f->best, 0, bl_array_get(&f->loss, lowest_at));
    bl_array_set(&f->measured, 0, measured);
    bl_array_set(&f->certified, 0, measured == 6); /* nothing measured is lower than the lowest */
    return BL_OK;
}

const bl_method bl_infinite_compute = {
    .slug = "infinite_compute",
    .family = "scaling",
    .paper = "Kim, Kotha, Liang, Hashimoto 2026, arXiv 2509.14786",
    .summary = "(no arm) ensembles, strong decay and asymptotes, for data that are scarce",
    .when = "When training repeats a small set many times: tune the decay with the number of "
            "epochs, average the logits of several runs, compare recipes by their asymptote.",
    .functions = {&infinite_compute_ensemble_nll_contract, &infinite_compute_sample_contract,
                  &infinite_compute_lr_contract, &infinite_compute_adamw_step_contract,
                  &infinite_compute_power_fit_contract, &infinite_compute_tiered_contract,
                  &infinite_compute_data_equiv_contract, &infinite_compute_certificate_contract},
    .example = "ballast show infinite_compute_power_fit",
};
