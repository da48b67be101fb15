/* Composites: activations and the family of softmax.
 *
 * A composite is a plain function over the builders and has no gradient rule: it is written so that
 * the rules of what it uses give an exact one. To add one, declare it in graph.h with its shapes
 * and where it is stable, and write it here or in the file of its kind. */
#define BL_KEEP_PLACE
#include <math.h>

#include "graph/build.h"

bl_tensor(bl_relu)(bl_tensor x)
{
    return bl_select(bl_gt(x, 0), x,
                     0); /* as max with ties to the first its slope at 0 would be 1 */
}

/* Hendrycks and Gimpel 2016, arXiv 1606.08415. */
bl_tensor(bl_gelu)(bl_tensor x)
{
    bl_tensor cube = bl_mul(x, bl_mul(x, x));
    bl_tensor inner = bl_mul(0.7978845608028654, bl_add(x, bl_mul(0.044715, cube)));
    return bl_mul(bl_mul(0.5, x), bl_add(1, bl_tanh(inner)));
}

bl_tensor(bl_gelu_exact)(bl_tensor x)
{
    bl_tensor normal =
        bl_add(1, bl_erf(bl_mul(x, 0.7071067811865476))); /* twice the share below x */
    return bl_mul(bl_mul(0.5, x), normal);
}

/* log(1 + e^x) = max(x, 0) + log(1 + e^-|x|). Both parts choose the same side at 0, so that the
 * slope there is 1/2. */
bl_tensor(bl_softplus)(bl_tensor x)
{
    bl_tensor positive = bl_gt(x, 0);
    bl_tensor below = bl_select(positive, bl_neg(x), x);
    return bl_add(bl_select(positive, x, 0), bl_log1p(bl_exp(below)));
}

bl_tensor(bl_leaky_relu)(bl_tensor x, bl_tensor slope)
{
    return bl_select(bl_ge(x, 0), x, bl_mul(slope, x));
}

/* Elfwing et al. 2018, arXiv 1702.03118. */
bl_tensor(bl_silu)(bl_tensor x)
{
    return bl_mul(x, bl_sigmoid(x));
}

/* 1 / (1 + |x|)^2, which the rule of a quotient would lose to rounding where |x| is large. */
static void slope_of_softsign(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                              const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    (void)g, (void)output, (void)context;
    gradient[0] = bl_div(cotangent[0], bl_square(bl_add(1, bl_abs(input[0]))));
}

/* As sign(x) / (1 + 1/|x|), which is 1 at infinity. */
bl_tensor(bl_softsign)(bl_tensor x)
{
    if (!bl_need_tensor("softsign", x))
        return bl_poisoned(x.graph);
    bl_tensor value = bl_div(bl_sign(x), bl_add(1, bl_div(1, bl_abs(x)))), result;
    bl_override_gradient(&value, 1, &x, 1, slope_of_softsign, NULL, &result);
    return result;
}

bl_tensor(bl_square)(bl_tensor x)
{
    return bl_mul(x, x);
}

bl_tensor(bl_linear)(bl_tensor x, bl_tensor w, bl_tensor bias)
{
    if (!bl_need_tensor("linear", x) || !bl_need_tensor("linear", w))
        return bl_poisoned(bl_graph_of((bl_tensor[]){x, w}, 2));
    bl_shape shape = bl_type_of(x).shape;
    if (shape.rank < 1 || bl_rank(w) != 2 || bl_dim(w, 1) != bl_dim(x, -1))
        return bl_poison(x.graph, "linear: needs x[..,I] and w[O,I], not %s and %s",
                         bl_show(bl_type_of(x)), bl_show(bl_type_of(w)));
    int64_t *last = &shape.dim[shape.rank - 1], width = *last;
    int64_t rows = 1;
    for (int i = 0; i < shape.rank - 1; i++)
        rows *= shape.dim[i];
    bl_tensor z = bl_dot(bl_reshape(x, BL_SHAPE(rows, width)), w, false, true);
    *last = bl_dim(w, 0);
    bool none = bl_is_number(bias) && bias.number == 0;
    return bl_reshape(none ? z : bl_add(z, bias), shape);
}

static void slope_of_straight_through(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                                      const bl_tensor *cotangent, bl_tensor *gradient,
                                      void *context)
{
    (void)g, (void)input, (void)output, (void)context;
    gradient[0] = cotangent[0];
}

/* Where one is broadcast to the other, by a difference that is 0. */
bl_tensor(bl_straight_through)(bl_tensor value, bl_tensor x)
{
    bl_tensor result;
    if (bl_is_number(value) || bl_is_number(x) || bl_is_poison(value) || bl_is_poison(x) ||
        !bl_type_equal(bl_type_of(value), bl_type_of(x)))
        return bl_add(bl_stop_gradient(value), bl_sub(x, bl_stop_gradient(x)));
    bl_override_gradient(&value, 1, &x, 1, slope_of_straight_through, NULL, &result);
    return result;
}

/* --- softmax -----------------------------------------------------------------------------------
 */

/* The largest of each line, as a constant for the gradient: what is built from x - shift does not
 * depend on it. 0 where the line has no finite largest. */
static bl_tensor shift_of(bl_tensor x, int axis)
{
    bl_tensor largest = bl_stop_gradient(bl_reduce_max_keep(x, axis));
    return bl_select(bl_isfinite(largest), largest, 0);
}

static bool usable(const char *name, bl_tensor x, int axis)
{
    int index;
    if (!bl_need_tensor(name, x) || !bl_axis_index(name, x.graph, bl_rank(x), axis, &index))
        return false;
    if (bl_dtype_is_float(bl_type_of(x).dtype))
        return true;
    bl_poison(x.graph, "%s: operand must be f32 or f64, not %s", name, bl_show(bl_type_of(x)));
    return false;
}

/* The three that follow have gradients of their own, with p the softmax and c the cotangent: those of
 * their parts would need guards against what cannot happen to the whole. A rule builds the function
 * again, so that it can be differentiated any number of times; what is built twice is computed once.
 */
static bl_tensor with_slope(bl_tensor value, bl_tensor x, int axis, bl_gradient_rule *rule)
{
    bl_tensor result;
    bl_override_gradient(&value, 1, &x, 1, rule, (void *)(intptr_t)axis, &result);
    return result;
}

static bl_tensor finite_or_zero(bl_tensor x)
{
    return bl_select(bl_isfinite(x), x, 0);
}

#define SLOPE_RULE(name)                                                                           \
    static void name(bl_graph *g, const bl_tensor *input, const bl_tensor *output,                 \
                     const bl_tensor *cotangent, bl_tensor *gradient, void *context)

/* p (c - sum p c) */
SLOPE_RULE(slope_of_softmax)
{
    (void)g, (void)output;
    int axis = (int)(intptr_t)context;
    bl_tensor p = finite_or_zero(bl_softmax(input[0], axis)), c = cotangent[0];
    gradient[0] = bl_mul(bl_sub(c, bl_sum_keep(bl_mul(c, p), axis)), p);
}

bl_tensor(bl_softmax)(bl_tensor x, int axis)
{
    if (!usable("softmax", x, axis))
        return bl_poisoned(x.graph);
    bl_tensor e = bl_exp(bl_sub(x, shift_of(x, axis)));
    return with_slope(bl_mul(e, bl_div(1, bl_sum_keep(e, axis))), x, axis, slope_of_softmax);
}

/* c - p sum c */
SLOPE_RULE(slope_of_log_softmax)
{
    (void)g, (void)output;
    int axis = (int)(intptr_t)context;
    bl_tensor p = finite_or_zero(bl_softmax(input[0], axis)), c = cotangent[0];
    gradient[0] = bl_sub(c, bl_mul(bl_sum_keep(c, axis), p));
}

bl_tensor(bl_log_softmax)(bl_tensor x, int axis)
{
    if (!usable("log_softmax", x, axis))
        return bl_poisoned(x.graph);
    bl_tensor shifted = bl_sub(x, shift_of(x, axis));
    bl_tensor value = bl_sub(shifted, bl_log(bl_sum_keep(bl_exp(shifted), axis)));
    return with_slope(value, x, axis, slope_of_log_softmax);
}

/* c p */
SLOPE_RULE(slope_of_logsumexp)
{
    (void)g, (void)output;
    int axis = (int)(intptr_t)context;
    bl_tensor p = finite_or_zero(bl_softmax(input[0], axis));
    gradient[0] = bl_mul(bl_expand(cotangent[0], axis), p);
}

bl_tensor(bl_logsumexp)(bl_tensor x, int axis)
{
    if (!usable("logsumexp", x, axis))
        return bl_poisoned(x.graph);
    bl_tensor shift = shift_of(x, axis);
    bl_tensor sum = bl_sum_keep(bl_exp(bl_sub(x, shift)), axis);
    return with_slope(bl_squeeze(bl_add(bl_log(sum), shift), axis), x, axis, slope_of_logsumexp);
}

bl_tensor(bl_masked_logsumexp)(bl_tensor x, bl_tensor mask, int axis)
{
    if (!usable("masked_logsumexp", x, axis))
        return bl_poisoned(x.graph);
    bl_tensor shift = shift_of(bl_select(mask, x, -INFINITY), axis);
    bl_tensor shifted = bl_sub(bl_select(mask, x, shift), shift);
    bl_tensor sum = bl_sum_keep(bl_select(mask, bl_exp(shifted), 0), axis);
    return bl_squeeze(bl_add(bl_log(sum), shift), axis);
}

/* tau = (c_k - 1) / k, c_k being the sum of the k largest of s and k the most for which
 * 1 + k s_k > c_k. With the largest moved to 0, tau lies in [-1, 0): what is lower than -1 takes no
 * part, and is raised so that sums of many stay exact. */
static bl_tensor sparsemax_threshold(bl_tensor shifted)
{
    int64_t count = bl_dim(shifted, -1);
    bl_dtype dtype = bl_type_of(shifted).dtype;
    bl_tensor s = bl_sort(bl_max(shifted, -1), -1, true), sums = bl_cumsum(s, -1);
    bl_tensor rank = bl_add(bl_iota(shifted.graph, dtype, BL_SHAPE(count), 0), 1);
    bl_tensor enters = bl_gt(bl_add(1, bl_mul(rank, s)), sums);
    bl_tensor k = bl_sum_keep(bl_cast(enters, dtype), -1);
    bl_tensor at = bl_cast(bl_max(bl_sub(k, 1), 0), BL_I32);
    return bl_div(bl_sub(bl_take_along(sums, at, -1), 1), k);
}

/* The threshold only decides which entries are in the support; from there on tau is their mean, so
 * that no gradient passes through a sort. What is not a number is in the support of its row. */
bl_tensor(bl_sparsemax)(bl_tensor x)
{
    if (!usable("sparsemax", x, -1))
        return bl_poisoned(x.graph);
    if (bl_dim(x, -1) == 0)
        return x;
    bl_tensor shifted = bl_sub(x, shift_of(x, -1));
    bl_tensor outside = bl_le(shifted, bl_stop_gradient(sparsemax_threshold(shifted)));
    bl_tensor size = bl_sum_keep(bl_select(outside, bl_zeros_like(x), 1), -1);
    bl_tensor sum = bl_sum_keep(bl_select(outside, 0, shifted), -1);
    bl_tensor p = bl_sub(shifted, bl_div(bl_sub(sum, 1), bl_max(size, 1)));
    return bl_select(bl_or(outside, bl_lt(p, 0)), 0, p);
}
