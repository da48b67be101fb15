/* Attention: a weighted mean of the rows of v, by how well the rows of k fit the rows of q. */
#define BL_KEEP_PLACE
#include <math.h>

#include "graph/build.h"

/* As softmax over the last axis, of the entries where mask is true; rows without any are 0. The
 * largest entry is a constant for the gradient, which does not depend on it. */
static bl_tensor masked_softmax(bl_tensor scores, bl_tensor mask)
{
    bl_tensor seen = bl_select(mask, scores, -INFINITY);
    bl_tensor largest = bl_stop_gradient(bl_reduce_max_keep(seen, -1));
    bl_tensor any = bl_gt(largest, -INFINITY);
    bl_tensor shift = bl_select(any, largest, 0);
    bl_tensor e = bl_select(mask, bl_exp(bl_select(mask, bl_sub(scores, shift), 0)), 0);
    return bl_div(e, bl_select(any, bl_sum_keep(e, -1), 1));
}

static bool attention_fits(bl_type q, bl_type k, bl_type v)
{
    int rank = q.shape.rank;
    if (rank < 2 || k.shape.rank != rank || v.shape.rank != rank || !bl_dtype_is_float(q.dtype) ||
        k.dtype != q.dtype || v.dtype != q.dtype)
        return false;
    for (int i = 0; i < rank - 2; i++)
        if (k.shape.dim[i] != q.shape.dim[i] || v.shape.dim[i] != q.shape.dim[i])
            return false;
    return k.shape.dim[rank - 1] == q.shape.dim[rank - 1] && q.shape.dim[rank - 1] > 0 &&
           v.shape.dim[rank - 2] == k.shape.dim[rank - 2] && k.shape.dim[rank - 2] > 0;
}

bl_tensor(bl_attention)(bl_tensor q, bl_tensor k, bl_tensor v, bl_tensor mask)
{
    bl_graph *g = bl_graph_of((bl_tensor[]){q, k, v}, 3);
    if (!bl_need_tensor("attention", q) || !bl_need_tensor("attention", k) ||
        !bl_need_tensor("attention", v))
        return bl_poisoned(g);
    if (!attention_fits(bl_type_of(q), bl_type_of(k), bl_type_of(v)))
        return bl_poison(g, "attention: needs q[..,T,d] k[..,S,d] v[..,S,e], not %s, %s and %s",
                         bl_show(bl_type_of(q)), bl_show(bl_type_of(k)), bl_show(bl_type_of(v)));
    if (!bl_is_number(mask) &&
        (!bl_need_tensor("attention", mask) || bl_type_of(mask).dtype != BL_BOOL))
        return bl_poison(g, "attention: mask must be bool, not %s", bl_show(bl_type_of(mask)));
    bl_tensor scaled = bl_mul(q, 1 / sqrt((double)bl_dim(q, -1)));
    bl_tensor scores = bl_dot(scaled, k, false, true);
    if (bl_is_number(mask))
        return bl_dot(bl_softmax(scores, -1), v, false, false);
    bl_tensor seen = bl_broadcast(mask, bl_type_of(scores).shape);
    return bl_dot(masked_softmax(scores, seen), v, false, false);
}

/* [B,T,D] -> [B,heads,T,D/heads] */
static bl_tensor split_heads(bl_tensor x, int64_t heads)
{
    const int64_t *d = bl_type_of(x).shape.dim;
    return bl_transpose(bl_reshape(x, BL_SHAPE(d[0], d[1], heads, d[2] / heads)), 0, 2, 1, 3);
}

static bool heads_divide(const char *name, bl_tensor x, int64_t heads)
{
    if (!bl_need_tensor(name, x))
        return false;
    if (bl_rank(x) == 3 && heads >= 1 && bl_dim(x, 2) % heads == 0)
        return true;
    bl_poison(x.graph, "%s: %lld heads cannot share %s, expected [B,T,D] with D a multiple", name,
              (long long)heads, bl_show(bl_type_of(x)));
    return false;
}

bl_tensor(bl_multi_head_attention)(bl_tensor q, bl_tensor k, bl_tensor v, bl_tensor mask,
                                   int64_t heads)
{
    const char *name = "multi_head_attention";
    if (!heads_divide(name, q, heads) || !heads_divide(name, k, heads) ||
        !heads_divide(name, v, heads))
        return bl_poisoned(bl_graph_of((bl_tensor[]){q, k, v}, 3));
    bl_tensor apart =
        bl_attention(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), mask);
    if (bl_is_poison(apart))
        return apart;
    return bl_reshape(bl_transpose(apart, 0, 2, 1, 3),
                      BL_SHAPE(bl_dim(q, 0), bl_dim(q, 1), bl_dim(v, 2)));
}
