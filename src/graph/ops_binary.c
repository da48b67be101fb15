/* Elementwise primitives of two and three operands, which the builders have broadcast to one type.
 * How the rules keep a gradient from being NaN is told in ops_unary.c; a product starts with g, so
 * that a zero g stays zero where two finite factors would overflow. */
#define BL_KEEP_PLACE
#include <math.h>

#include "graph/build.h"

static bl_type of_pair(bl_graph *graph, const bl_type *x)
{
    REQUIRE(bl_type_equal(x[0], x[1]), "types differ: %s and %s", bl_show(x[0]), bl_show(x[1]));
    return x[0];
}

static bl_type of_numbers(bl_graph *graph, const bl_type *x)
{
    REQUIRE(x[0].dtype != BL_BOOL, "operands must be numbers, not %s; cast them", bl_show(x[0]));
    return of_pair(graph, x);
}

static bl_type of_floats(bl_graph *graph, const bl_type *x)
{
    REQUIRE(bl_dtype_is_float(x[0].dtype), "operands must be f32 or f64, not %s", bl_show(x[0]));
    return of_pair(graph, x);
}

static bl_type of_bools(bl_graph *graph, const bl_type *x)
{
    REQUIRE(x[0].dtype == BL_BOOL, "operands must be bool, not %s", bl_show(x[0]));
    return of_pair(graph, x);
}

static bl_type to_bool(bl_type type)
{
    type.dtype = BL_BOOL;
    return type;
}

TYPE(add)
{
    return of_pair(graph, x);
}
VJP(add)
{
    dx[0] = dx[1] = g;
}

TYPE(sub)
{
    return of_numbers(graph, x);
}
VJP(sub)
{
    dx[0] = g;
    if (WANT(1))
        dx[1] = bl_neg(g);
}

TYPE(mul)
{
    return of_numbers(graph, x);
}
VJP(mul)
{
    if (WANT(0))
        dx[0] = bl_mul(g, x[1]);
    if (WANT(1))
        dx[1] = bl_mul(g, x[0]);
}

/* div: dz = dx / y - z dy / y; 0 where y is 0, and in y where z overflows. */
TYPE(div)
{
    return of_numbers(graph, x);
}
VJP(div)
{
    bl_tensor defined = bl_ne(x[1], 0);
    bl_tensor share = bl_select(defined, bl_div(g, bl_select(defined, x[1], 1)), 0);
    dx[0] = share;
    if (WANT(1))
        dx[1] = bl_neg(bl_mul(share, bl_select(bl_isfinite(z), z, 0)));
}

/* pow: dz = y x^(y-1) dx + z log(x) dy; 0 where x^(y-1) is infinite, and in y where x <= 0. */
TYPE(pow)
{
    return of_floats(graph, x);
}
VJP(pow)
{
    if (WANT(0)) {
        bl_tensor lower = bl_pow(x[0], bl_sub(x[1], 1));
        dx[0] = bl_mul(bl_mul(g, x[1]), bl_select(bl_isfinite(lower), lower, 0));
    }
    if (WANT(1)) {
        bl_tensor positive = bl_and(bl_gt(x[0], 0), bl_isfinite(z));
        bl_tensor logarithm = bl_log(bl_select(positive, x[0], 1));
        dx[1] = bl_mul(bl_mul(g, bl_select(positive, z, 0)), logarithm);
    }
}

/* atan2(x, y), the angle of (y, x): dz = (y dx - x dy) / (x^2 + y^2); 0 at the origin. */
TYPE(atan2)
{
    return of_floats(graph, x);
}
VJP(atan2)
{
    bl_tensor square = bl_add(bl_mul(x[0], x[0]), bl_mul(x[1], x[1]));
    bl_tensor defined = bl_gt(square, 0);
    bl_tensor share = bl_select(defined, bl_div(g, bl_select(defined, square, 1)), 0);
    if (WANT(0))
        dx[0] = bl_mul(share, x[1]);
    if (WANT(1))
        dx[1] = bl_neg(bl_mul(share, x[0]));
}

TYPE(max)
{
    return of_numbers(graph, x);
}
VJP(max)
{
    bl_tensor first = bl_ge(x[0], x[1]);
    dx[0] = bl_select(first, g, 0);
    if (WANT(1))
        dx[1] = bl_select(first, 0, g);
}

TYPE(min)
{
    return of_numbers(graph, x);
}
VJP(min)
{
    bl_tensor first = bl_le(x[0], x[1]);
    dx[0] = bl_select(first, g, 0);
    if (WANT(1))
        dx[1] = bl_select(first, 0, g);
}

/* rem: z = x - y trunc(x / y), and trunc is flat. The count of y is found from x - z, which is a
 * multiple of y, so that rounding cannot move it by one. */
TYPE(rem)
{
    return of_numbers(graph, x);
}
VJP(rem)
{
    dx[0] = g;
    if (WANT(1)) {
        bl_tensor defined = bl_ne(x[1], 0);
        bl_tensor whole = bl_select(defined, bl_sub(x[0], z), 0);
        bl_tensor times = bl_round(bl_div(whole, bl_select(defined, x[1], 1)));
        dx[1] = bl_neg(bl_mul(g, bl_select(bl_isfinite(times), times, 0)));
    }
}

TYPE(eq)
{
    return to_bool(of_pair(graph, x));
}
ZERO_GRADIENT(eq)
TYPE(ne)
{
    return to_bool(of_pair(graph, x));
}
ZERO_GRADIENT(ne)
TYPE(lt)
{
    return to_bool(of_numbers(graph, x));
}
ZERO_GRADIENT(lt)
TYPE(le)
{
    return to_bool(of_numbers(graph, x));
}
ZERO_GRADIENT(le)
TYPE(gt)
{
    return to_bool(of_numbers(graph, x));
}
ZERO_GRADIENT(gt)
TYPE(ge)
{
    return to_bool(of_numbers(graph, x));
}
ZERO_GRADIENT(ge)
TYPE(and)
{
    return of_bools(graph, x);
}
ZERO_GRADIENT(and)
TYPE(or)
{
    return of_bools(graph, x);
}
ZERO_GRADIENT(or)

static bl_tensor binary(bl_op op, bl_tensor a, bl_tensor b)
{
    if (bl_is_number(a) && bl_is_number(b))
        return bl_number(bl_op_scalar(op, a.number, b.number, 0));
    bl_tensor x[2] = {a, b};
    bl_graph *g = bl_graph_of(x, 2);
    if (!bl_match(bl_op_name(op), x, 2, 0))
        return bl_poisoned(g);
    return bl_node_new(g, op, x, 2, (bl_attr){0});
}

#define X(name)                                                                                    \
    bl_tensor(bl_##name)(bl_tensor a, bl_tensor b)                                                 \
    {                                                                                              \
        return binary(BL_OP_##name, a, b);                                                         \
    }
BL_BINARY_BUILDERS(X)
#undef X

/* --- three operands ----------------------------------------------------------------------------
 */

TYPE(select)
{
    REQUIRE(x[0].dtype == BL_BOOL, "condition must be bool, not %s", bl_show(x[0]));
    REQUIRE(bl_type_equal(x[1], x[2]) && bl_shape_equal(x[0].shape, x[1].shape),
            "types differ: %s ? %s : %s", bl_show(x[0]), bl_show(x[1]), bl_show(x[2]));
    return x[1];
}
VJP(select)
{
    if (WANT(1))
        dx[1] = bl_select(x[0], g, 0);
    if (WANT(2))
        dx[2] = bl_select(x[0], 0, g);
}

TYPE(clamp)
{
    REQUIRE(x[0].dtype != BL_BOOL, "operands must be numbers, not %s", bl_show(x[0]));
    REQUIRE(bl_type_equal(x[0], x[1]) && bl_type_equal(x[0], x[2]),
            "types differ: %s between %s and %s", bl_show(x[0]), bl_show(x[1]), bl_show(x[2]));
    return x[0];
}
VJP(clamp)
{
    bl_tensor inside = bl_and(bl_ge(x[0], x[1]), bl_le(x[0], x[2]));
    dx[0] = bl_select(inside, g, 0);
}

static bl_tensor ternary(bl_op op, bl_tensor a, bl_tensor b, bl_tensor c, int first)
{
    if (bl_is_number(a) && bl_is_number(b) && bl_is_number(c))
        return bl_number(bl_op_scalar(op, a.number, b.number, c.number));
    bl_tensor x[3] = {a, b, c};
    bl_graph *g = bl_graph_of(x, 3);
    if (!bl_match(bl_op_name(op), x, 3, first))
        return bl_poisoned(g);
    return bl_node_new(g, op, x, 3, (bl_attr){0});
}

bl_tensor(bl_select)(bl_tensor condition, bl_tensor yes, bl_tensor no)
{
    return ternary(BL_OP_select, condition, yes, no, 1);
}

bl_tensor(bl_clamp)(bl_tensor x, bl_tensor low, bl_tensor high)
{
    return ternary(BL_OP_clamp, x, low, high, 0);
}
