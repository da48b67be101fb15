/* Elementwise primitives of one operand: what type they give, and their derivatives.
 *
 * Each rule names the mathematics. Where a derivative can blow up (sqrt at 0, exp at overflow) the
 * operand is made safe with a select on both sides, so that the rule gives 0 there and can itself
 * be differentiated; the cotangent g is never tested. */
#define BL_KEEP_PLACE
#include <math.h>

#include "graph/build.h"

static bl_type of_float(bl_graph *graph, bl_type x)
{
    REQUIRE(bl_dtype_is_float(x.dtype), "operand must be f32 or f64, not %s", bl_show(x));
    return x;
}

static bl_type of_number(bl_graph *graph, bl_type x)
{
    REQUIRE(x.dtype != BL_BOOL, "operand must be a number, not %s; cast it", bl_show(x));
    return x;
}

/* t where it is finite, else 0, and then also with derivative 0. */
static bl_tensor finite_or_zero(bl_tensor t)
{
    return bl_select(bl_isfinite(t), t, 0);
}

/* g / x where x > 0, else 0. */
static bl_tensor over_positive(bl_tensor g, bl_tensor x)
{
    bl_tensor positive = bl_gt(x, 0);
    return bl_select(positive, bl_div(g, bl_select(positive, x, 1)), 0);
}

TYPE(neg)
{
    REQUIRE(x[0].dtype != BL_BOOL && x[0].dtype != BL_U8 && x[0].dtype != BL_U32,
            "operand must have a sign, not %s; cast it", bl_show(x[0]));
    return x[0];
}
VJP(neg)
{
    dx[0] = bl_neg(g);
}

TYPE(abs)
{
    return of_number(graph, x[0]);
}
VJP(abs)
{
    dx[0] = bl_mul(g, bl_sign(x[0]));
}

TYPE(sign)
{
    return of_number(graph, x[0]);
}
ZERO_GRADIENT(sign)

/* exp: dz = z dx; 0 where z overflows. */
TYPE(exp)
{
    return of_float(graph, x[0]);
}
VJP(exp)
{
    dx[0] = bl_mul(g, finite_or_zero(z));
}

/* expm1: dz = exp(x) dx. Not z + 1, which loses digits where z is near -1. */
TYPE(expm1)
{
    return of_float(graph, x[0]);
}
VJP(expm1)
{
    dx[0] = bl_mul(g, finite_or_zero(bl_exp(x[0])));
}

/* log: dz = dx / x; 0 at 0. */
TYPE(log)
{
    return of_float(graph, x[0]);
}
VJP(log)
{
    dx[0] = over_positive(g, x[0]);
}

/* log1p: dz = dx / (1 + x); 0 at -1. */
TYPE(log1p)
{
    return of_float(graph, x[0]);
}
VJP(log1p)
{
    dx[0] = over_positive(g, bl_add(1, x[0]));
}

/* sqrt: dz = dx / 2z; 0 at 0. */
TYPE(sqrt)
{
    return of_float(graph, x[0]);
}
VJP(sqrt)
{
    dx[0] = over_positive(bl_mul(0.5, g), z);
}

/* rsqrt: dz = -z dx / 2x; 0 at 0. */
TYPE(rsqrt)
{
    return of_float(graph, x[0]);
}
VJP(rsqrt)
{
    bl_tensor half = bl_mul(-0.5, bl_mul(g, bl_select(bl_gt(x[0], 0), z, 0)));
    dx[0] = over_positive(half, x[0]);
}

TYPE(sin)
{
    return of_float(graph, x[0]);
}
VJP(sin)
{
    dx[0] = bl_mul(g, bl_cos(x[0]));
}

TYPE(cos)
{
    return of_float(graph, x[0]);
}
VJP(cos)
{
    dx[0] = bl_neg(bl_mul(g, bl_sin(x[0])));
}

/* tanh: dz = (1 - z^2) dx. */
TYPE(tanh)
{
    return of_float(graph, x[0]);
}
VJP(tanh)
{
    dx[0] = bl_mul(g, bl_sub(1, bl_mul(z, z)));
}

/* atan: dz = dx / (1 + x^2). */
TYPE(atan)
{
    return of_float(graph, x[0]);
}
VJP(atan)
{
    dx[0] = bl_div(g, bl_add(1, bl_mul(x[0], x[0])));
}

/* sigmoid: dz = z (1 - z) dx. */
TYPE(sigmoid)
{
    return of_float(graph, x[0]);
}
VJP(sigmoid)
{
    dx[0] = bl_mul(g, bl_mul(z, bl_sub(1, z)));
}

/* erf: dz = 2 / sqrt(pi) exp(-x^2) dx. */
TYPE(erf)
{
    return of_float(graph, x[0]);
}
VJP(erf)
{
    bl_tensor bell = bl_exp(bl_neg(bl_mul(x[0], x[0])));
    dx[0] = bl_mul(g, bl_mul(1.1283791670955126, bell));
}

TYPE(floor)
{
    return of_float(graph, x[0]);
}
ZERO_GRADIENT(floor)

TYPE(round)
{
    return of_float(graph, x[0]);
}
ZERO_GRADIENT(round)

TYPE(isfinite)
{
    bl_type z = of_float(graph, x[0]);
    z.dtype = BL_BOOL;
    return z;
}
ZERO_GRADIENT(isfinite)

TYPE(not)
{
    REQUIRE(x[0].dtype == BL_BOOL, "operand must be bool, not %s", bl_show(x[0]));
    return x[0];
}
ZERO_GRADIENT(not)

/* lgamma: dz = digamma(x) dx; 0 at the poles. */
TYPE(lgamma)
{
    return of_float(graph, x[0]);
}
VJP(lgamma)
{
    dx[0] = bl_mul(g, finite_or_zero(bl_digamma(x[0])));
}

TYPE(digamma)
{
    return of_float(graph, x[0]);
}
VJP(digamma)
{
    dx[0] = bl_mul(g, finite_or_zero(bl_trigamma(x[0])));
}

TYPE(trigamma)
{
    return of_float(graph, x[0]);
}
NO_GRADIENT(trigamma)

TYPE(stop_gradient)
{
    return x[0];
}
ZERO_GRADIENT(stop_gradient)

TYPE(cast)
{
    return (bl_type){wanted.dtype, x[0].shape};
}
VJP(cast)
{
    dx[0] = bl_cast(g, bl_type_of(x[0]).dtype);
}

bl_tensor(bl_cast)(bl_tensor x, bl_dtype dtype)
{
    if (bl_is_number(x))
        return bl_number(dtype == BL_BOOL           ? (double)(x.number != 0)
                         : bl_dtype_is_float(dtype) ? x.number
                                                    : trunc(x.number));
    if (bl_is_poison(x))
        return bl_spoil(x.graph, "cast");
    bl_type type = bl_type_of(x);
    if (type.dtype == dtype)
        return x;
    type.dtype = dtype;
    return bl_node_new_typed(x.graph, BL_OP_cast, &x, 1, (bl_attr){0}, type);
}

static bl_tensor unary(bl_op op, bl_tensor x)
{
    if (bl_is_number(x))
        return bl_number(bl_op_scalar(op, x.number, 0, 0));
    return bl_node_new(x.graph, op, &x, 1, (bl_attr){0});
}

#define X(name)                                                                                    \
    bl_tensor(bl_##name)(bl_tensor x)                                                              \
    {                                                                                              \
        return unary(BL_OP_##name, x);                                                             \
    }
BL_UNARY_BUILDERS(X)
#undef X
