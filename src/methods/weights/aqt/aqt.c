/* AQT: accurate quantised training. Abdolrashidi et al., CVPR 2021 workshops, arXiv 2105.03536.
 * Weights and activations are rounded to a few bits in every forward pass, and gradients go through
 * the rounding as if it were not there, so that the trained network can be served with products of
 * integers. Scales of weights follow the weights; ranges of activations are collected first and
 * then fixed. The noise of rounding regularises, too.
 *
 * The bound of an activation is an input: -1 while ranges are collected, a number later, in one and
 * the same program. */
#include "methods/method.h"

/* An option is called signed, which no member of a struct can be. */
#define signed is_signed

static const double tiny = 0x1p-23; /* eps: added to every bound */
static const double margin = 0x1p-7;

/* --- codes ------------------------------------------------------------------------------------ */

/* B: the largest code of a signed number. */
static double largest_code(int64_t bits, bool half_shift)
{
    if (half_shift)
        return ldexp(1, (int)bits - 1);
    return bits == 1 ? 0.25 : ldexp(1, (int)bits - 1) - 1;
}

/* floor(clip(s, -B, B) + 1/2), ties upwards; with half_shift codes lie between the integers. */
static bl_tensor signed_code(bl_tensor s, int64_t bits, bool half_shift)
{
    double B = largest_code(bits, half_shift);
    if (half_shift)
        return bl_add(bl_floor(bl_clamp(s, -(B - margin), B - margin)), 0.5);
    return bl_floor(bl_add(bl_clamp(s, -B, B), 0.5));
}

static bl_tensor unsigned_code(bl_tensor s, int64_t bits)
{
    return bl_clamp(bl_floor(s), 0, ldexp(1, (int)bits) - 1);
}

static bl_tensor activation_scale(bl_tensor bound, int64_t bits, bool is_signed, bool half_shift)
{
    double levels = is_signed ? largest_code(bits, half_shift) : ldexp(1, (int)bits);
    return bl_div(levels, bl_add(bound, tiny));
}

static bl_tensor activation_code(bl_tensor s, int64_t bits, bool is_signed, bool half_shift)
{
    return is_signed ? signed_code(s, bits, half_shift) : unsigned_code(s, bits);
}

/* --- weights ---------------------------------------------------------------------------------- */

#define AQT_WEIGHT_FAKE_QUANT(IN, OPT, OUT)                                                        \
    IN(w, "f32[S...,O]", "grad, finite", "weights, output channel last")                           \
    OPT(prec, 4, "[1,24]", "bits")                                                                 \
    OPT(half_shift, 0, "flag", "codes between integers: none is 0")                                \
    OPT(per_channel, 1, "flag", "a scale for each output channel, or one")                         \
    OUT(wq, "f32[S...,O]", "rounded weights")                                                      \
    OUT(q, "f32[S...,O]", "their codes")                                                           \
    OUT(scale, "f32[O] | f32[]", "codes in a unit")

/* The largest of x along all axes but the last, or along all. */
static bl_tensor largest(bl_tensor x, bool per_channel)
{
    int axes[BL_MAX_RANK + 1], rank = bl_rank(x);
    if (!per_channel)
        return bl_reduce_max(x);
    if (rank <= 1)
        return x;
    for (int i = 0; i < rank - 1; i++)
        axes[i] = i;
    axes[rank - 1] = BL_END;
    return bl_reduce_max_over(x, axes);
}

BL_CONTRACT(aqt_weight_fake_quant, AQT_WEIGHT_FAKE_QUANT, "weights as their codes stand for them")
{
    double B = largest_code(f->prec, f->half_shift);
    bl_tensor bound = bl_stop_gradient(largest(bl_abs(f->w), f->per_channel));
    f->scale = bl_div(B, bl_add(bound, tiny));
    bl_tensor s = bl_mul(f->w, f->scale), code = signed_code(s, f->prec, f->half_shift);
    bl_tensor rounded =
        bl_select(bl_gt(bl_broadcast(bound, bl_type_of(s).shape), 0), bl_div(code, f->scale), 0);

    /* Without half_shift eps keeps the largest weight within B, and no gradient is lost. */
    bl_tensor passed = f->w;
    if (f->half_shift)
        passed = bl_select(bl_le(bl_abs(s), B - margin), f->w, 0);
    f->wq = bl_straight_through(rounded, passed);
    f->q = bl_straight_through(code, bl_mul(passed, f->scale));
}

/* --- activations ------------------------------------------------------------------------------ */

#define AQT_ACT_FAKE_QUANT(IN, OPT, OUT)                                                           \
    IN(x, "f32[S...,C]", "grad", "activations, channel last")                                      \
    IN(bound, "f32[C] | f32[]", "", "largest value; -1: not quantised")                            \
    OPT(prec, 4, "[1,24]", "bits")                                                                 \
    OPT(signed, 0, "flag", "values of both signs; not after a relu")                               \
    OPT(half_shift, 0, "flag", "of signed ones: codes between integers")                           \
    OPT(edge_grad, 1.0, "[0,1]",                                                                   \
        "gradient in the lowest and highest bucket of unsigned ones; the official code's is 0.5")  \
    OUT(xq, "f32[S...,C]", "rounded activations")                                                  \
    OUT(q, "f32[S...,C]", "their codes")

/* Positive, or -1 everywhere. */
static bl_status check_bound(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    const bl_array *bound = bl_dictionary_find(in, "bound");
    int64_t count = bl_array_count(bound), off = 0;
    for (int64_t i = 0; i < count; i++)
        off += bl_array_get(bound, i) == -1;
    for (int64_t i = 0; i < count && off < count; i++)
        if (!(bl_array_get(bound, i) > 0))
            return bl_fail(BL_INVALID, "bound[%lld] is %g, expected > 0, or -1 everywhere",
                           (long long)i, bl_array_get(bound, i));
    return BL_OK;
}

struct aqt_act_fake_quant;
static bl_tensor passed(const struct aqt_act_fake_quant *f, bl_tensor s, bl_tensor off);

BL_CONTRACT_CHECKED(aqt_act_fake_quant, AQT_ACT_FAKE_QUANT,
                    "activations as their codes stand for them", check_bound)
{
    bl_tensor bound = bl_stop_gradient(f->bound), is_off = bl_eq(bound, -1);
    bl_tensor scale = activation_scale(bound, f->prec, f->is_signed, f->half_shift);
    bl_tensor used = bl_select(is_off, 1, scale), unit = bl_div(1, used); /* one a channel */
    bl_tensor off = bl_broadcast(is_off, bl_type_of(f->x).shape), s = bl_mul(f->x, scale);
    bl_tensor code = activation_code(s, f->prec, f->is_signed, f->half_shift);
    bl_tensor through = passed(f, s, off);
    code = bl_select(off, f->x, code);
    f->xq = bl_straight_through(bl_mul(code, unit), through);
    f->q = bl_straight_through(code, bl_mul(through, used));
}

/* x where its gradient is 1, edge_grad x where it is that, 0 elsewhere. Ranges are compared in x:
 * in f32 eps is lost beside a bound of 2 or more, and bound * scale may exceed B. */
static bl_tensor passed(const struct aqt_act_fake_quant *f, bl_tensor s, bl_tensor off)
{
    bl_tensor bound = bl_add(bl_stop_gradient(f->bound), tiny);
    if (f->is_signed) {
        bl_tensor within = f->half_shift
                               ? bl_le(bl_abs(s), largest_code(f->prec, true) - margin)
                               : bl_le(bl_abs(f->x), bound);
        return bl_select(bl_or(off, within), f->x, 0);
    }
    bl_tensor bucket = bl_floor(s), within = bl_and(bl_ge(bucket, 0), bl_le(f->x, bound));
    bl_tensor slope = f->edge_grad, all = bl_or(off, within);
    if (bl_is_number(slope) && slope.number == 1)
        return bl_select(all, f->x, 0);
    double top = ldexp(1, (int)f->prec) - 1;
    bl_tensor inner = bl_or(off, bl_and(bl_gt(bucket, 0), bl_lt(bucket, top)));
    return bl_select(all, bl_select(inner, f->x, bl_mul(slope, f->x)), 0);
}

/* --- a dense layer ---------------------------------------------------------------------------- */

#define AQT_QUANTIZED_DENSE(IN, OPT, OUT)                                                          \
    IN(x, "f32[N,K]", "grad", "inputs")                                                            \
    IN(w, "f32[K,O]", "grad, finite", "weights")                                                   \
    IN(bound, "f32[]", "", "largest input; -1: inputs are not quantised")                          \
    OPT(prec_x, 4, "[1,24]", "bits of inputs")                                                     \
    OPT(prec_w, 4, "[1,24]", "bits of weights")                                                    \
    OPT(signed, 0, "flag", "inputs of both signs")                                                 \
    OUT(y, "f32[N,O]", "xq wq")

BL_CONTRACT_CHECKED(aqt_quantized_dense, AQT_QUANTIZED_DENSE, "a dense layer as it is trained",
                    check_bound)
{
    struct aqt_act_fake_quant x = BL_DEFAULTS(aqt_act_fake_quant);
    x.x = f->x, x.bound = f->bound, x.prec = f->prec_x, x.is_signed = f->is_signed;
    bl_call(aqt_act_fake_quant, &x);
    struct aqt_weight_fake_quant w = BL_DEFAULTS(aqt_weight_fake_quant);
    w.w = f->w, w.prec = f->prec_w;
    bl_call(aqt_weight_fake_quant, &w);
    f->y = bl_dot(x.xq, w.wq, false, false);
}

#define AQT_INT_DENSE(IN, OPT, OUT)                                                                \
    IN(x, "f32[N,K]", "finite", "inputs")                                                          \
    IN(w, "f32[K,O]", "finite, rows > 0", "weights")                                               \
    IN(bound, "f32[] | f32[K]", "> 0, finite", "largest input, of all or each column")             \
    OPT(prec_x, 4, "[1,24]", "bits of inputs")                                                     \
    OPT(prec_w, 4, "[1,24]", "bits of weights")                                                    \
    OPT(signed, 0, "flag", "inputs of both signs")                                                 \
    OUT(y, "f32[N,O]", "acc / t")                                                                  \
    OUT(acc, "i32[N,O]", "q_x q_w")                                                                \
    OUT(q_x, "i32[N,K]", "codes of inputs")                                                        \
    OUT(q_w, "i32[K,O]", "codes of weights, which contain the scales of inputs")

struct aqt_int_dense;
static double largest_input_code(const struct aqt_int_dense *f);
static bl_tensor integer_product(bl_tensor q_x, bl_tensor q_w, bool in_bytes);

BL_CONTRACT(aqt_int_dense, AQT_INT_DENSE, "a dense layer as it is served: a product of integers")
{
    double most_x = largest_input_code(f), most_w = ceil(largest_code(f->prec_w, false));
    if ((double)bl_dim(f->x, 1) * most_x * most_w > INT_MAX) {
        bl_poison(graph, "sums of %lld products of codes of %lld and %lld bits exceed 32 bits",
                  (long long)bl_dim(f->x, 1), (long long)f->prec_x, (long long)f->prec_w);
        return;
    }
    bl_tensor s_x = activation_scale(f->bound, f->prec_x, f->is_signed, false);
    f->q_x = bl_cast(activation_code(bl_mul(f->x, s_x), f->prec_x, f->is_signed, false), BL_I32);

    bl_tensor w = bl_div(f->w, bl_rank(s_x) == 1 ? bl_expand(s_x, 1) : s_x);
    bl_tensor t = bl_div(largest_code(f->prec_w, false), bl_add(largest(bl_abs(w), true), tiny));
    f->q_w = bl_cast(signed_code(bl_mul(w, t), f->prec_w, false), BL_I32);

    f->acc = integer_product(f->q_x, f->q_w, most_x <= 127 && most_w <= 127);
    f->y = bl_div(bl_cast(f->acc, BL_F32), t);
}

static double largest_input_code(const struct aqt_int_dense *f)
{
    return f->is_signed ? ceil(largest_code(f->prec_x, false)) : ldexp(1, (int)f->prec_x) - 1;
}

/* Of bytes where codes fit; else in double, where sums below 2^53 are exact. */
static bl_tensor integer_product(bl_tensor q_x, bl_tensor q_w, bool in_bytes)
{
    bl_dtype dtype = in_bytes ? BL_I8 : BL_F64;
    bl_tensor product = bl_dot(bl_cast(q_x, dtype), bl_cast(q_w, dtype), false, false);
    return in_bytes ? product : bl_cast(product, BL_I32);
}

/* --- ranges of activations -------------------------------------------------------------------- */

#define AQT_STATS_UPDATE(IN, OPT, OUT)                                                             \
    IN(x, "f32[S...,C]", "", "activations, channel last")                                          \
    IN(n, "i32[]", ">= 0", "updates so far; all starts at 0")                                      \
    IN(mean, "f32[K]", "", "running mean of a channel")                                            \
    IN(mean_abs, "f32[K]", "", "of |x|")                                                           \
    IN(mean_sq, "f32[K]", "", "of x^2")                                                            \
    IN(mn, "f32[K]", "", "of the smallest")                                                        \
    IN(mx, "f32[K]", "", "of the largest")                                                         \
    OPT(ema, 0.1, "[0,1]", "share of the new batch; 0: 1 / n")                                     \
    OPT(exclude_zeros, 1, "flag", "zeros do not count: after a relu they say little")              \
    OPT(per_channel, 1, "flag", "K is C; or one statistic, K is 1")                                \
    OUT(n, "i32[]", "n + 1")                                                                       \
    OUT(mean, "f32[K]", "running mean")                                                            \
    OUT(mean_abs, "f32[K]", "of |x|")                                                              \
    OUT(mean_sq, "f32[K]", "of x^2")                                                               \
    OUT(mn, "f32[K]", "of the smallest")                                                           \
    OUT(mx, "f32[K]", "of the largest")

/* stat + alpha (batch - stat), or stat where the batch has nothing that counts. */
static bl_tensor moved(bl_tensor stat, bl_tensor batch, bl_tensor alpha, bl_tensor any)
{
    return bl_select(any, bl_add(stat, bl_mul(alpha, bl_sub(batch, stat))), stat);
}

BL_CONTRACT_APART(aqt_stats_update, AQT_STATS_UPDATE, "running statistics of an activation")
{
    int64_t channels = bl_dim(f->x, -1), expected = f->per_channel ? channels : 1;
    if (bl_dim(f->mean, 0) != expected) {
        bl_poison(graph, "mean is f32[%lld], expected f32[%lld]", (long long)bl_dim(f->mean, 0),
                  (long long)expected);
        return;
    }
    bl_tensor x = bl_reshape(
        f->x,
        f->per_channel
            ? BL_SHAPE(bl_shape_count(bl_type_of(f->x).shape) / (channels ? channels : 1), channels)
            : BL_SHAPE(-1, 1));
    bl_tensor counts = f->exclude_zeros ? bl_ne(x, 0) : bl_eq(bl_zeros_like(x), 0);
    bl_tensor number = bl_sum(bl_cast(counts, BL_F32), 0), any = bl_gt(number, 0);
    bl_tensor divisor = bl_max(number, 1);
    bl_tensor counted = bl_select(counts, x, 0);

    f->out_n = bl_add(f->n, 1);
    bl_tensor alpha = f->ema;
    if (bl_is_number(alpha) && alpha.number == 0)
        alpha = bl_div(1, bl_cast(f->out_n, BL_F32));
    f->out_mean = moved(f->mean, bl_div(bl_sum(counted, 0), divisor), alpha, any);
    f->out_mean_abs = moved(f->mean_abs, bl_div(bl_sum(bl_abs(counted), 0), divisor), alpha, any);
    f->out_mean_sq = moved(f->mean_sq, bl_div(bl_sum(bl_square(counted), 0), divisor), alpha, any);
    f->out_mn = f->mn;
    f->out_mx = f->mx;
    if (bl_dim(x, 0) > 0) { /* nothing has no extremes */
        f->out_mn = moved(f->mn, bl_reduce_min(bl_select(counts, x, INFINITY), 0), alpha, any);
        f->out_mx = moved(f->mx, bl_reduce_max(bl_select(counts, x, -INFINITY), 0), alpha, any);
    }
}

#define AQT_BOUNDS(IN, OPT, OUT)                                                                   \
    IN(mean, "f32[C]", "", "statistics of aqt_stats_update")                                       \
    IN(mean_abs, "f32[C]", "", "of |x|")                                                           \
    IN(mean_sq, "f32[C]", "", "of x^2")                                                            \
    IN(mn, "f32[C]", "", "smallest")                                                               \
    IN(mx, "f32[C]", "", "largest")                                                                \
    OPT(method, "mean_of_max", "mean_of_max|cams|mix",                                             \
        "largest size; mean and deviations; or a mixture of deviations")                           \
    OPT(stddev_coeff, 3.0, "[0,inf)", "standard deviations")                                       \
    OPT(absdev_coeff, 3.0, "[0,inf)", "mean sizes")                                                \
    OPT(mix_coeff, 0.0, "[0,1]", "share of the standard deviation")                                \
    OUT(bound, "f32[C]", "where activations are clipped")

BL_CONTRACT(aqt_bounds, AQT_BOUNDS, "where to clip activations, from their statistics")
{
    if (bl_is(f->method, "mean_of_max")) {
        f->bound = bl_max(bl_abs(f->mx), bl_abs(f->mn));
    } else if (bl_is(f->method, "cams")) { /* the difference of squares in double: it cancels */
        bl_tensor square = bl_square(bl_cast(f->mean, BL_F64));
        bl_tensor variance = bl_max(bl_sub(bl_cast(f->mean_sq, BL_F64), square), 0);
        bl_tensor deviation = bl_cast(bl_sqrt(variance), BL_F32);
        f->bound = bl_add(bl_abs(f->mean), bl_mul(f->stddev_coeff, deviation));
    } else {
        bl_tensor deviation = bl_mul(f->stddev_coeff, bl_sqrt(f->mean_sq));
        bl_tensor size = bl_mul(f->absdev_coeff, f->mean_abs);
        f->bound = bl_add(bl_mul(f->mix_coeff, deviation), bl_mul(bl_sub(1, f->mix_coeff), size));
    }
}

/* --- cost ------------------------------------------------------------------------------------- */

#define AQT_COMPUTE_COST(IN, OPT, OUT)                                                             \
    IN(mults, "i32[L]", ">= 0, sum > 0", "multiplications of each layer")                          \
    IN(w_bits, "i32[L]", "[1,16]", "bits of weights")                                              \
    IN(a_bits, "i32[L]", "[1,16]", "bits of activations")                                          \
    OUT(quadratic, "f32[]", "sum mults w a")                                                       \
    OUT(quadratic_ratio, "f32[]", "as a share of 16 bits everywhere")                              \
    OUT(linear, "f32[]", "sum mults max(w, a), rounded up to 4, 8 or 16")                          \
    OUT(linear_ratio, "f32[]", "as a share of 16 bits everywhere")

static double hardware_bits(double bits)
{
    return bits <= 4 ? 4 : bits <= 8 ? 8 : 16;
}

BL_HOST(aqt_compute_cost, AQT_COMPUTE_COST, "what multiplications of few bits cost")
{
    double quadratic = 0, linear = 0, all = 0;
    for (int64_t l = 0; l < f->mults.type.shape.dim[0]; l++) {
        double n = (double)bl_i32(&f->mults)[l];
        double w = (double)bl_i32(&f->w_bits)[l], a = (double)bl_i32(&f->a_bits)[l];
        all += n;
        quadratic += n * w * a;
        linear += n * hardware_bits(fmax(w, a));
    }
    bl_array_set(&f->quadratic, 0, quadratic);
    bl_array_set(&f->quadratic_ratio, 0, quadratic / (256 * all));
    bl_array_set(&f->linear, 0, linear);
    bl_array_set(&f->linear_ratio, 0, linear / (16 * all));
    return BL_OK;
}

const bl_method bl_aqt = {
    .slug = "aqt",
    .family = "weights",
    .paper = "Abdolrashidi et al. 2021, arXiv 2105.03536",
    .summary = "(no arm) trains with weights and activations of a few bits",
    .when = "A network will be served with products of integers, or overfits. Rounding costs a few "
            "elementwise passes for each layer.",
    .functions = {&aqt_weight_fake_quant_contract, &aqt_act_fake_quant_contract,
                  &aqt_quantized_dense_contract, &aqt_int_dense_contract,
                  &aqt_stats_update_contract, &aqt_bounds_contract, &aqt_compute_cost_contract},
    .example = "ballast show aqt_weight_fake_quant",
};
