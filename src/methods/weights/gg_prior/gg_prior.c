/* Generalized Gaussian priors. Wu et al. 2025, arXiv 2506.00486, with BackSlash, arXiv 2504.16968.
 * Weights of trained networks are distributed like exp(-(|w|/scale)^shape), shape mostly below 2.
 * The prior gives an initialisation, a penalty that stands for coded size, a remapping after
 * training and an 8-bit format made for such weights.
 *
 * What acts in a step (estimate, penalty, BackSlash, RF8) is a graph function; statistics of codes
 * and the remapping by rank are on the host. w is the vector of all weights of the model. */
#include "ballast/program.h"
#include "methods/method.h"
#include "ballast/solve.h"

/* --- the distribution ------------------------------------------------------------------------- */

typedef struct fit { /* in double */
    bl_tensor shape, scale, std, rho;
} fit;

/* E w^2 / (E |w|)^2 at this shape: Gamma(1/nu) Gamma(3/nu) / Gamma(2/nu)^2. */
static bl_tensor moment_ratio(bl_tensor shape)
{
    bl_tensor inverse = bl_div(1, shape);
    bl_tensor second = bl_add(bl_lgamma(inverse), bl_lgamma(bl_mul(3, inverse)));
    return bl_exp(bl_sub(second, bl_mul(2, bl_lgamma(bl_mul(2, inverse)))));
}

/* scale / standard deviation: sqrt(Gamma(1/nu) / Gamma(3/nu)). */
static bl_tensor relative_scale(bl_tensor shape)
{
    bl_tensor inverse = bl_div(1, shape);
    return bl_exp(bl_mul(0.5, bl_sub(bl_lgamma(inverse), bl_lgamma(bl_mul(3, inverse)))));
}

/* Shape 0.10, 0.11, .., 3.00 from the ratio of moments, then the scale from the deviation. */
static fit fit_moments(bl_graph *graph, bl_tensor w)
{
    enum { SHAPES = 291 };
    bl_tensor x = bl_cast(w, BL_F64);
    double count = (double)bl_dim(w, 0);
    bl_tensor squares = bl_sum(bl_square(x));
    bl_tensor table = bl_div(bl_add(bl_iota(graph, BL_F64, BL_SHAPE(SHAPES), 0), 10), 100);
    fit f;
    f.rho = bl_div(bl_mul(count, squares), bl_square(bl_sum(bl_abs(x))));
    bl_tensor nearest = bl_argmin(bl_abs(bl_sub(f.rho, moment_ratio(table))), 0);
    f.shape = bl_div(bl_add(bl_cast(nearest, BL_F64), 10), 100);
    f.std = bl_sqrt(bl_div(squares, count));
    f.scale = bl_mul(f.std, relative_scale(f.shape));
    return f;
}

#define GG_ESTIMATE(IN, OPT, OUT)                                                                  \
    IN(w, "f32[P]", "rows > 0, finite, not all 0", "all weights")                                  \
    OUT(shape, "f32[]", "of 0.10, 0.11, .., 3.00 the one that fits rho best")                      \
    OUT(scale, "f32[]", "std sqrt(Gamma(1/shape) / Gamma(3/shape))")                               \
    OUT(std, "f32[]", "root mean square")                                                          \
    OUT(rho, "f32[]", "mean of w^2 / (mean of |w|)^2")

BL_CONTRACT(gg_estimate, GG_ESTIMATE, "shape and scale of weights, by their moments")
{
    fit e = fit_moments(graph, f->w);
    f->shape = bl_cast(e.shape, BL_F32);
    f->scale = bl_cast(e.scale, BL_F32);
    f->std = bl_cast(e.std, BL_F32);
    f->rho = bl_cast(e.rho, BL_F32);
}

#define GG_NLL(IN, OPT, OUT)                                                                       \
    IN(w, "f32[P]", "grad, rows > 0", "weights")                                                   \
    IN(shape, "f32[]", "grad, > 0", "2: normal, 1: Laplace")                                       \
    IN(scale, "f32[]", "grad, > 0", "width")                                                       \
    IN(mean, "f32[]", "grad", "centre")                                                            \
    OUT(loss, "f32[]", "mean of -log density")

/* -log p(w) = (|w - mean| / scale)^shape + log(2 scale) + lgamma(1/shape) - log(shape). At the
 * centre the power is left out, and with it a slope that is infinite for shapes below 1. */
BL_CONTRACT(gg_nll, GG_NLL, "negative log-likelihood of weights under a generalized Gaussian")
{
    bl_tensor distance = bl_abs(bl_sub(f->w, f->mean));
    bl_tensor centred = bl_eq(distance, 0);
    bl_tensor z = bl_div(bl_select(centred, 1, distance), f->scale);
    bl_tensor power = bl_select(centred, 0, bl_pow(z, f->shape));
    bl_tensor normaliser = bl_add(bl_log(bl_mul(2, f->scale)),
                                  bl_sub(bl_lgamma(bl_div(1, f->shape)), bl_log(f->shape)));
    f->loss = bl_add(bl_mean(power), normaliser);
}

/* --- initialisation --------------------------------------------------------------------------- */

#define GG_INIT(IN, OPT, OUT)                                                                      \
    IN(gamma_draw, "f32[O,I]", ">= 0", "draws of a gamma distribution of shape 1/shape")           \
    IN(sign, "f32[O,I]", "in {-1,1}", "random signs")                                              \
    OPT(shape, 1.0, "(0,inf)", "2: normal, that is He's with xi 2")                                \
    OPT(xi, 2.0, "[0,inf)", "variance times n: 1, or 2 before a relu")                             \
    OPT(fan, "rows", "rows|columns", "n: O as the code has it, or I as usual")                     \
    OUT(w, "f32[O,I]", "weights of variance xi / n")

BL_CONTRACT(gg_init, GG_INIT, "generalized Gaussian weights of a given variance")
{
    double n = (double)bl_dim(f->sign, bl_is(f->fan, "rows") ? 0 : 1);
    bl_tensor deviation = bl_sqrt(bl_div(f->xi, n));
    bl_tensor size = bl_pow(f->gamma_draw, bl_div(1, f->shape));
    f->w = bl_mul(bl_mul(deviation, relative_scale(f->shape)), bl_mul(f->sign, size));
}

/* --- rate-constrained training ---------------------------------------------------------------- */

#define GG_RATE(IN, OPT, OUT)                                                                      \
    IN(w, "f32[P]", "grad, rows > 0", "all weights")                                               \
    OPT(shape, BL_REQUIRED, "(0,inf)", "of their distribution")                                    \
    OPT(coefficient, 2e3, "[0,inf)", "lambda, for the whole model")                                \
    OPT(clip, 1.0, "[0,inf)", "added to |w|; large: almost the L1 norm")                           \
    OUT(rate, "f32[]", "lambda / P sum (|w| + clip)^shape")

BL_CONTRACT(gg_rate, GG_RATE, "the prior as a penalty, a stand-in for coded size")
{
    bl_tensor zero = bl_eq(f->w, 0); /* the slope there is 0, not 0 times an infinite one */
    bl_tensor size = bl_add(bl_select(zero, 1, bl_abs(f->w)), f->clip);
    bl_tensor power = bl_select(zero, bl_pow(f->clip, f->shape), bl_pow(size, f->shape));
    f->rate = bl_mul(f->coefficient, bl_mean(power));
}

#define GG_BACKSLASH(IN, OPT, OUT)                                                                 \
    IN(w, "f32[P]", "rows > 0", "all weights, after the optimiser's step")                         \
    OPT(shape, 0.0, "[0,inf)", "of their distribution; 0: estimated from w")                       \
    OPT(coefficient, 2e3, "[0,inf)", "lambda, for the whole model")                                \
    OPT(clip, 1.0, "[0,inf)", "added to |w|")                                                      \
    OPT(stop_at_zero, 0, "flag", "no step beyond 0")                                               \
    OUT(w, "f32[P]", "w - lambda shape / P sign(w) (|w| + clip)^(shape - 1)")                      \
    OUT(shape, "f32[]", "the shape that was used")

struct gg_backslash;
static bl_status check_backslash(const bl_dictionary *in, const void *options);
static bool estimates(const bl_tensor *shape);

BL_CONTRACT_APART_CHECKED(gg_backslash, GG_BACKSLASH, "a step down the slope of the rate, rate 1",
                          check_backslash)
{
    bl_tensor shape = f->shape;
    if (estimates(&f->shape))
        shape = bl_cast(fit_moments(graph, f->w).shape, BL_F32);
    double count = (double)bl_dim(f->w, 0);
    bl_tensor factor = bl_div(bl_mul(f->coefficient, shape), count);
    bl_tensor size = bl_abs(f->w), moves = bl_gt(size, 0);
    bl_tensor base = bl_add(bl_select(moves, size, 1), f->clip);
    bl_tensor step = bl_mul(factor, bl_pow(base, bl_sub(shape, 1)));
    if (f->stop_at_zero)
        step = bl_min(step, size);
    f->out_w = bl_select(moves, bl_sub(f->w, bl_mul(bl_sign(f->w), step)), f->w);
    f->out_shape = bl_is_number(shape) ? bl_full(graph, BL_F32, BL_SCALAR, shape.number) : shape;
}

static bool estimates(const bl_tensor *shape)
{
    return bl_is_number(*shape) && shape->number == 0;
}

static bl_status check_backslash(const bl_dictionary *in, const void *options)
{
    const struct gg_backslash *f = options;
    return estimates(&f->shape) ? bl_input_check(in, "w", "not all 0") : BL_OK;
}

/* --- the 8-bit format ------------------------------------------------------------------------- */

#define GG_RF8(IN, OPT, OUT)                                                                       \
    IN(w, "f32[P]", "", "weights")                                                                 \
    OPT(reach, 4, ">= 0", "how many binary places below the first power a second may lie")         \
    OUT(w, "f32[P]", "one or two signed powers of two")

/* The exponent of the nearest power of two, on the logarithmic scale; -inf at 0. In double, because
 * the switch at 2^(k + 1/2) lies between two f32 neighbours. */
static bl_tensor exponent(bl_tensor x)
{
    return bl_round(bl_div(bl_log(bl_abs(x)), M_LN2));
}

static bl_tensor power_of_two(bl_tensor x)
{
    return bl_mul(bl_sign(x), bl_pow(2, exponent(x)));
}

BL_CONTRACT_APART(gg_rf8, GG_RF8, "weights rounded to the 8-bit residual float")
{
    bl_tensor w = bl_cast(f->w, BL_F64);
    bl_tensor first = power_of_two(w), rest = bl_sub(w, first);
    bl_tensor near = bl_le(bl_sub(exponent(w), exponent(rest)), (double)f->reach);
    bl_tensor second = bl_select(bl_and(bl_ne(rest, 0), near), power_of_two(rest), 0);
    f->out_w = bl_cast(bl_add(first, second), BL_F32);
}

/* --- size of a code --------------------------------------------------------------------------- */

/* q[count] = round(w / step), half to even; *most is the largest |q|. */
static bl_status quantise(const bl_array *w, double step, double limit, double *q, double *most)
{
    int64_t count = bl_array_count(w);
    *most = 0;
    for (int64_t i = 0; i < count; i++) {
        q[i] = rint((double)bl_f32(w)[i] / step);
        *most = fmax(*most, fabs(q[i]));
    }
    if (*most > limit)
        return bl_fail(BL_INVALID,
                       "w reaches %g steps of %g, expected at most %g: take a larger step", *most,
                       step, limit);
    return BL_OK;
}

#define GG_CODE_BITS(IN, OPT, OUT)                                                                 \
    IN(w, "f32[P]", "rows > 0, finite", "weights")                                                 \
    OPT(step, 1.0 / 8192, "(0,inf)", "of the quantiser")                                           \
    OPT(k, 0, "[0,15]", "order of the exponential Golomb code")                                    \
    OUT(exp_golomb, "f32[]", "mean bits of that code")                                             \
    OUT(entropy, "f32[]", "bits by the frequencies of levels")                                     \
    OUT(fixed, "f32[]", "bits of a code of fixed length")                                          \
    OUT(zeros, "f32[]", "share of weights that become 0")

/* 2 floor(log2(floor(u / 2^k) + 1)) + 1 + k, with u = 0, 1, 2, 3, .. for q = 0, 1, -1, 2, .. */
static double golomb_bits(double q, int64_t k)
{
    int64_t u = q > 0 ? 2 * (int64_t)q - 1 : -2 * (int64_t)q, digits = 0;
    for (int64_t v = (u >> k) + 1; v > 1; v >>= 1)
        digits++;
    return (double)(2 * digits + 1 + k);
}

/* Of sorted levels. */
static double entropy_of(const double *q, const int64_t *order, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && q[order[next]] <= q[order[i]];)
            next++;
        double share = (double)(next - i) / (double)count;
        sum -= share * log2(share);
    }
    return sum;
}

struct gg_code_bits;
static bl_status code_bits(struct gg_code_bits *f, double *q, int64_t *order);

BL_HOST(gg_code_bits, GG_CODE_BITS, "how well quantised weights compress")
{
    int64_t count = bl_array_count(&f->w);
    size_t bytes = (size_t)count * (sizeof(double) + sizeof(int64_t));
    double *q = bl_alloc(bytes);
    if (!q)
        return bl_no_memory(bytes);
    bl_status status = code_bits(f, q, (int64_t *)(q + count));
    bl_release(q);
    return status;
}

static bl_status code_bits(struct gg_code_bits *f, double *q, int64_t *order)
{
    int64_t count = bl_array_count(&f->w), zeros = 0;
    double most, bits = 0, fixed = 0;
    BL_TRY(quantise(&f->w, f->step, 0x1p50, q, &most));
    BL_TRY(bl_ascending_order(q, count, order));
    for (int64_t i = 0; i < count; i++) {
        bits += golomb_bits(q[i], f->k);
        zeros += fabs(q[i]) < 1;
    }
    double levels = q[order[count - 1]] - q[order[0]] + 1;
    while (ldexp(1, (int)fixed) < levels)
        fixed++;
    bl_array_set(&f->exp_golomb, 0, bits / (double)count);
    bl_array_set(&f->entropy, 0, entropy_of(q, order, count));
    bl_array_set(&f->fixed, 0, fixed);
    bl_array_set(&f->zeros, 0, (double)zeros / (double)count);
    return BL_OK;
}

/* --- remapping -------------------------------------------------------------------------------- */

#define GG_DEEPSHAPE(IN, OPT, OUT)                                                                 \
    IN(w, "f32[P]", "rows > 0, finite", "trained weights")                                         \
    OPT(step, 1.0 / 8192, "(0,inf)", "of the levels")                                              \
    OPT(shape_scale, 0.8, "(0,inf)", "shape wanted, as a share of the present one")                \
    OPT(std_scale, 0.6, "(0,inf)", "scale wanted, likewise")                                       \
    OPT(rare, 0, ">= 0",                                                                           \
        "levels from the first positive one that so few weights have stay; 0: all are remapped")   \
    OUT(w, "f32[P]", "remapped weights, in whole steps")                                           \
    OUT(shape, "f32[]", "shape wanted")                                                            \
    OUT(scale, "f32[]", "scale wanted")                                                            \
    OUT(assigned, "i32[]", "weights that were remapped")

typedef struct remap {
    const float *w;
    int64_t count;
    double step, top; /* levels beyond top stay */
    double *q;        /* levels, and in the end the new ones */
    int64_t *order;
    float *inside; /* room for weights within top */
    double shape, scale, centre;
} remap;

/* The smallest positive level that at most `rare` weights have; the largest size if there is none.
 */
static double first_rare_level(const remap *r, double most, int64_t rare)
{
    int64_t i = 0;
    while (i < r->count && r->q[r->order[i]] < 1)
        i++;
    for (double level = 1; rare > 0 && level <= most; level++) {
        int64_t entries = 0;
        for (; i < r->count && r->q[r->order[i]] <= level; i++)
            entries++;
        if (entries <= rare)
            return level;
    }
    return most;
}

/* fit_moments on an array, in double. */
static bl_status fit_array(float *w, int64_t count, double *shape, double *scale)
{
    bl_graph *graph = bl_graph_new();
    if (!graph)
        return bl_no_memory(0);
    bl_tensor x = bl_input(graph, "w", BL_F32, BL_SHAPE(count));
    fit e = fit_moments(graph, x);
    bl_array in = {.type = {BL_F32, BL_SHAPE(count)}, .data = w}, out[2] = {0};
    bl_status status = bl_graph_status(graph);
    if (status == BL_OK)
        status =
            bl_evaluate(bl_device_reference(), &x, &in, 1, (bl_tensor[]){e.shape, e.scale}, out, 2);
    if (status == BL_OK) {
        *shape = bl_f64(&out[0])[0];
        *scale = bl_f64(&out[1])[0];
    }
    bl_array_free(&out[0]);
    bl_array_free(&out[1]);
    bl_graph_free(graph);
    return status;
}

/* The target: narrower than what the weights within top have now, around their mean. */
static bl_status choose_target(remap *r, double shape_scale, double std_scale)
{
    int64_t inside = 0;
    double sum = 0, sizes = 0;
    for (int64_t i = 0; i < r->count; i++) {
        double w = (double)r->w[i];
        if (fabs(w) > r->top * r->step)
            continue;
        r->inside[inside++] = r->w[i];
        sum += w;
        sizes += fabs(w);
    }
    if (!(sizes > 0))
        return bl_fail(BL_INVALID, "w has nothing but 0 within %g steps of %g", r->top, r->step);
    BL_TRY(fit_array(r->inside, inside, &r->shape, &r->scale));
    r->centre = trunc(sum / (double)inside / r->step);
    r->shape *= shape_scale;
    r->scale *= std_scale / r->step;
    return BL_OK;
}

static double target_weight(const remap *r, double level)
{
    return exp(-pow(fabs(level - r->centre) / r->scale, r->shape));
}

/* Gives levels from the lowest on to weights in ascending order, as many as each has room for. */
static int64_t assign_levels(remap *r)
{
    double low = r->centre - r->top, high = r->centre + r->top, total = 0;
    int64_t first = 0, end;
    while (first < r->count && r->q[r->order[first]] < low)
        first++;
    for (end = first; end < r->count && r->q[r->order[end]] <= high;)
        end++;
    for (double level = low; level <= high; level++)
        total += target_weight(r, level);
    int64_t next = first;
    for (double level = low; level <= high; level++) {
        double room = floor((double)(end - first) * (target_weight(r, level) / total));
        for (; room > 0 && next < end; room--)
            r->q[r->order[next++]] = level;
    }
    return next - first;
}

struct gg_deepshape;
static bl_status deepshape(remap *r, const struct gg_deepshape *f);

BL_HOST_APART(gg_deepshape, GG_DEEPSHAPE, "remaps weights, in order, to a narrower distribution")
{
    int64_t count = bl_array_count(&f->w);
    size_t bytes = (size_t)count * (sizeof(double) + sizeof(int64_t) + sizeof(float));
    double *room = bl_alloc(bytes);
    if (!room)
        return bl_no_memory(bytes);
    remap r = {.w = bl_f32(&f->w), .count = count, .step = f->step, .q = room};
    r.order = (int64_t *)(room + count);
    r.inside = (float *)(r.order + count);
    bl_status status = deepshape(&r, f);
    bl_release(room);
    return status;
}

static bl_status deepshape(remap *r, const struct gg_deepshape *f)
{
    double most;
    BL_TRY(quantise(&f->w, r->step, 0x1p24, r->q, &most));
    BL_TRY(bl_ascending_order(r->q, r->count, r->order));
    r->top = first_rare_level(r, most, f->rare);
    BL_TRY(choose_target(r, f->shape_scale, f->std_scale));
    int64_t assigned = assign_levels(r);
    for (int64_t i = 0; i < r->count; i++)
        bl_f32(&f->out_w)[i] = (float)(r->q[i] * r->step);
    bl_array shape = f->out_shape, scale = f->out_scale, number = f->out_assigned;
    bl_array_set(&shape, 0, r->shape);
    bl_array_set(&scale, 0, r->scale * r->step);
    bl_array_set(&number, 0, (double)assigned);
    return BL_OK;
}

const bl_method bl_gg_prior = {
    .slug = "gg_prior",
    .family = "weights",
    .paper = "Wu et al. 2025, arXiv 2506.00486",
    .summary =
        "(no arm) weights of a generalized Gaussian: start, penalty, remapping, 8-bit format",
    .when =
        "A trained network must be stored in few bits. The BackSlash step costs a pass over the "
        "weights.",
    .functions = {&gg_estimate_contract, &gg_nll_contract, &gg_init_contract, &gg_rate_contract,
                  &gg_backslash_contract, &gg_code_bits_contract, &gg_deepshape_contract,
                  &gg_rf8_contract},
    .example = "ballast show gg_backslash",
};
