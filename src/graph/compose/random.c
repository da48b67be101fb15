/* Composites: random numbers from keys. The same key gives the same numbers everywhere; derive a
 * new key for each use with bl_key_fold. */
#define BL_KEEP_PLACE
#include "graph/build.h"

/* The upper 24 bits as a multiple of 2^-24 in [0,1): exact in f32. */
static bl_tensor unit_interval(bl_tensor bits)
{
    return bl_mul(bl_cast(bl_div(bits, 256), BL_F32), 0x1p-24);
}

bl_tensor(bl_uniform)(bl_tensor key, bl_shape shape)
{
    return unit_interval(bl_random_bits(key, 0, 0, shape));
}

/* Box and Muller 1958: two uniforms give two normals. 1 - u is never 0, so none is infinite. */
bl_tensor(bl_normal)(bl_tensor key, bl_shape shape)
{
    int64_t count = bl_shape_count(shape), half = (count + 1) / 2;
    bl_tensor u = unit_interval(bl_random_bits(key, 0, 0, BL_SHAPE(2, half)));
    bl_tensor first = bl_sub(1, bl_slice_axis(u, 0, 0, 1));
    bl_tensor angle = bl_mul(6.283185307179586, bl_slice_axis(u, 0, 1, 2));
    bl_tensor radius = bl_sqrt(bl_mul(-2, bl_log(first)));
    bl_tensor pair[2] = {bl_mul(radius, bl_cos(angle)), bl_mul(radius, bl_sin(angle))};
    bl_tensor both = bl_reshape(bl_concat(pair, 2, 0), BL_SHAPE(2 * half));
    return bl_reshape(bl_slice_axis(both, 0, 0, count), shape);
}

/* Bailey 1994, Devroye 1996: Student's t with 2 alpha degrees of freedom is
 * sqrt(2 alpha (U^(-1/alpha) - 1)) cos(2 pi V), and 1/2 + t / (2 sqrt(2 alpha + t^2)) is
 * Beta(alpha, alpha). Exact for every alpha, from two uniforms, without rejection. U is in (0,1];
 * at the ends the quotient below is 0 or infinite and the result 1/2 or one of 0 and 1. */
bl_tensor(bl_beta_symmetric)(bl_tensor key, bl_tensor alpha, bl_shape shape)
{
    int64_t count = bl_shape_count(shape);
    bl_tensor u = unit_interval(bl_random_bits(key, 0, 0, BL_SHAPE(2, count)));
    bl_tensor first = bl_sub(1, bl_slice_axis(u, 0, 0, 1));
    bl_tensor side = bl_cos(bl_mul(6.283185307179586, bl_slice_axis(u, 0, 1, 2)));
    bl_tensor odds = bl_mul(bl_expm1(bl_neg(bl_div(bl_log(first), alpha))), bl_square(side));
    bl_tensor far = bl_rsqrt(bl_add(1, bl_div(1, odds)));
    return bl_reshape(bl_mul(0.5, bl_add(1, bl_mul(bl_sign(side), far))), shape);
}

/* Words 0 and 1 of philox(counter {n, 0, 1, 0}): no stream of numbers uses word 2 = 1. */
bl_tensor(bl_key_fold)(bl_tensor key, uint32_t n)
{
    return bl_random_bits_from(key, 1, 0, n, BL_SHAPE(2));
}

bl_tensor(bl_permutation)(bl_tensor key, int64_t n)
{
    return bl_argsort(bl_random_bits(key, 0, 0, BL_SHAPE(n)), 0, false);
}

bl_tensor(bl_inverse_permutation)(bl_tensor index)
{
    if (!bl_need_tensor("inverse_permutation", index))
        return bl_poisoned(index.graph);
    bl_type type = bl_type_of(index);
    if (type.dtype != BL_I32 || type.shape.rank != 1)
        return bl_poison(index.graph, "inverse_permutation: index must be i32[N], not %s",
                         bl_show(type));
    return bl_put(bl_zeros_like(index), index, bl_iota(index.graph, BL_I32, type.shape, 0));
}

bl_tensor(bl_drop)(bl_tensor x, bl_tensor u, bl_tensor rate)
{
    return bl_select(bl_ge(u, rate), bl_div(x, bl_sub(1, rate)), 0);
}

bl_tensor(bl_drop_rows)(bl_tensor x, bl_tensor u, bl_tensor rate)
{
    if (!bl_need_tensor("drop_rows", x) || !bl_need_tensor("drop_rows", u))
        return bl_poisoned(bl_graph_of((bl_tensor[]){x, u}, 2));
    bl_shape rows = {.rank = bl_rank(x), .dim = {bl_dim(u, 0), 1, 1, 1, 1, 1, 1, 1}};
    if (bl_rank(u) != 1 || rows.rank < 1)
        return bl_poison(x.graph, "drop_rows: needs x[B,..] and u[B], not %s and %s",
                         bl_show(bl_type_of(x)), bl_show(bl_type_of(u)));
    return bl_drop(x, bl_reshape(u, rows), rate);
}
