/* Contractions: matrix products, convolutions and windows. All are linear in each operand, and
 * each one's gradients are others of them, so they can be differentiated to any order. */
#define BL_KEEP_PLACE
#include "graph/build.h"

/* --- dot ---------------------------------------------------------------------------------------
 */

/* a and b are the last two axes of the operands, as multiplied. */
static bool same_batch(bl_shape a, bl_shape b)
{
    for (int i = 0; i < a.rank - 2; i++)
        if (a.dim[i] != b.dim[i])
            return false;
    return a.rank == b.rank;
}

TYPE(dot)
{
    bl_shape a = x[0].shape, b = x[1].shape;
    REQUIRE(x[0].dtype == x[1].dtype && (bl_dtype_is_float(x[0].dtype) || x[0].dtype == BL_I8),
            "operands must both be f32, both f64 or both i8, not %s and %s", bl_show(x[0]),
            bl_show(x[1]));
    REQUIRE(a.rank >= 2 && same_batch(a, b), "batch axes differ: %s x %s", bl_show_shape(a),
            bl_show_shape(b));
    int last = a.rank - 1;
    int64_t rows = a.dim[attr->flag ? last : last - 1], inner = a.dim[attr->flag ? last - 1 : last];
    int64_t columns = b.dim[attr->flag2 ? last - 1 : last];
    REQUIRE(inner == b.dim[attr->flag2 ? last : last - 1], "inner sizes differ: %s%s x %s%s",
            bl_show_shape(a), attr->flag ? "^T" : "", bl_show_shape(b), attr->flag2 ? "^T" : "");
    bl_type z = {x[0].dtype == BL_I8 ? BL_I32 : x[0].dtype, a};
    z.shape.dim[last - 1] = rows;
    z.shape.dim[last] = columns;
    return z;
}
/* bl_dot; the outer product of vectors, as the gradient of a matrix times a vector is, elementwise:
 * so it fuses with what is done to it. */
static bl_tensor dot_or_outer(bl_tensor a, bl_tensor b, bool transpose_a, bool transpose_b)
{
    bl_shape column = bl_type_of(a).shape, row = bl_type_of(b).shape;
    int last = column.rank - 1;
    if (last < 1 || row.rank <= last || column.dim[transpose_a ? last - 1 : last] != 1)
        return bl_dot(a, b, transpose_a, transpose_b);
    column.dim[last - 1] = column.dim[transpose_a ? last : last - 1];
    row.dim[last] = row.dim[transpose_b ? last - 1 : last];
    column.dim[last] = row.dim[last - 1] = 1;
    return bl_mul(bl_reshape(a, column), bl_reshape(b, row));
}
VJP(dot)
{
    bool ta = attr->flag, tb = attr->flag2;
    if (WANT(0))
        dx[0] = ta ? dot_or_outer(x[1], g, tb, true) : dot_or_outer(g, x[1], false, !tb);
    if (WANT(1))
        dx[1] = tb ? dot_or_outer(g, x[0], true, ta) : dot_or_outer(x[0], g, !ta, false);
}

bl_tensor(bl_dot)(bl_tensor a, bl_tensor b, bool transpose_a, bool transpose_b)
{
    if (!bl_need_tensor("dot", a) || !bl_need_tensor("dot", b))
        return bl_poisoned(bl_graph_of((bl_tensor[]){a, b}, 2));
    return bl_node_new(a.graph, BL_OP_dot, (bl_tensor[]){a, b}, 2,
                       (bl_attr){.flag = transpose_a, .flag2 = transpose_b});
}

/* Broadcasts the batch axes of both to one shape. */
static bool share_batch(bl_tensor *a, bl_tensor *b)
{
    bl_shape sa = bl_type_of(*a).shape, sb = bl_type_of(*b).shape;
    int rank = sa.rank > sb.rank ? sa.rank : sb.rank;
    bl_shape to_a = {.rank = rank}, to_b = {.rank = rank};
    for (int i = 1; i <= rank; i++) { /* i counts from the last axis */
        int64_t p = i <= sa.rank ? sa.dim[sa.rank - i] : 1;
        int64_t q = i <= sb.rank ? sb.dim[sb.rank - i] : 1;
        if (i > 2 && p != q && p != 1 && q != 1)
            return false;
        to_a.dim[rank - i] = i > 2 && p == 1 ? q : p;
        to_b.dim[rank - i] = i > 2 && q == 1 ? p : q;
    }
    *a = bl_broadcast(*a, to_a);
    *b = bl_broadcast(*b, to_b);
    return true;
}

/* a[..,m,k] b[k,n]: the leading axes of a are rows of one large product. */
static bl_tensor rows_times_matrix(bl_tensor a, bl_tensor b)
{
    bl_shape shape = bl_type_of(a).shape;
    int64_t inner = shape.dim[shape.rank - 1];
    int64_t rows = bl_shape_count(bl_shape_drop(shape, 1u << (shape.rank - 1)));
    bl_tensor z = bl_dot(bl_reshape(a, BL_SHAPE(rows, inner)), b, false, false);
    shape.dim[shape.rank - 1] = bl_dim(b, 1);
    return bl_reshape(z, shape);
}

bl_tensor(bl_matmul)(bl_tensor a, bl_tensor b)
{
    bl_graph *g = bl_graph_of((bl_tensor[]){a, b}, 2);
    if (!bl_need_tensor("matmul", a) || !bl_need_tensor("matmul", b))
        return bl_poisoned(g);
    bl_shape sa = bl_type_of(a).shape, sb = bl_type_of(b).shape;
    if (sa.rank == 0 || sb.rank == 0)
        return bl_poison(g, "matmul: an operand is a scalar: %s x %s", bl_show_shape(sa),
                         bl_show_shape(sb));
    if (sa.dim[sa.rank - 1] != sb.dim[sb.rank > 1 ? sb.rank - 2 : 0])
        return bl_poison(g, "matmul: inner sizes differ: %s x %s", bl_show_shape(sa),
                         bl_show_shape(sb));
    bl_tensor row = sa.rank == 1 ? bl_expand(a, 0) : a;
    bl_tensor column = sb.rank == 1 ? bl_expand(b, 1) : b;
    bl_tensor z;
    if (bl_rank(row) > 2 && bl_rank(column) == 2) {
        z = rows_times_matrix(row, column);
    } else {
        if (!share_batch(&row, &column))
            return bl_poison(g, "matmul: batch axes do not broadcast: %s x %s", bl_show_shape(sa),
                             bl_show_shape(sb));
        z = bl_dot(row, column, false, false);
    }
    if (bl_is_poison(z))
        return z;
    if (sa.rank == 1)
        z = bl_squeeze(z, -2);
    return sb.rank == 1 ? bl_squeeze(z, -1) : z;
}

/* --- convolution -------------------------------------------------------------------------------
 */

/* The number of windows along one axis; negative where the window does not fit. */
static int64_t windows(int64_t size, int64_t window, int64_t pad, int64_t stride, int64_t dilation)
{
    int64_t room = size + pad - ((window - 1) * dilation + 1);
    return room < 0 ? -1 : room / stride + 1;
}

static bool small(int64_t value, int64_t least)
{
    return value >= least && value <= INT32_MAX;
}

/* The image's type with rows and columns of windows instead of pixels. */
static bl_type slid(bl_graph *graph, bl_type x, const int64_t *window, const bl_conv_options *o)
{
    bl_type z = x;
    for (int i = 0; i < 2; i++) {
        REQUIRE(small(o->stride[i], 1) && small(o->dilation[i], 1) && small(o->low[i], 0) &&
                    small(o->high[i], 0) && small(window[i], 1),
                "strides, dilations and windows are at least 1, padding at least 0");
        z.shape.dim[1 + i] = windows(x.shape.dim[1 + i], window[i], o->low[i] + o->high[i],
                                     o->stride[i], o->dilation[i]);
        REQUIRE(z.shape.dim[1 + i] >= 0,
                "a window of %lld x %lld is larger than the padded image %s", (long long)window[0],
                (long long)window[1], bl_show(x));
    }
    return z;
}

/* The result's type of conv of x and w: what all three rules are checked against. */
static bl_type conv_result(bl_graph *graph, bl_type x, bl_type w, const bl_conv_options *o)
{
    REQUIRE(bl_dtype_is_float(x.dtype) && x.dtype == w.dtype,
            "image and filter must both be f32 or both f64, not %s and %s", bl_show(x), bl_show(w));
    REQUIRE(x.shape.rank == 4 && w.shape.rank == 4,
            "image must be [B,H,W,I] and filter [h,w,I/groups,O], not %s and %s", bl_show(x),
            bl_show(w));
    const int64_t *filter = w.shape.dim;
    REQUIRE(small(o->groups, 1) && x.shape.dim[3] == filter[2] * o->groups &&
                filter[3] % o->groups == 0,
            "channels do not match: %s with %s in %lld groups", bl_show(x), bl_show(w),
            (long long)o->groups);
    bl_type z = slid(graph, x, filter, o);
    if (z.shape.rank >= 0)
        z.shape.dim[3] = filter[3];
    return z;
}

TYPE(conv)
{
    return conv_result(graph, x[0], x[1], &attr->conv);
}
VJP(conv)
{
    if (WANT(0))
        dx[0] = bl_conv_dx(g, x[1], bl_type_of(x[0]).shape, attr->conv);
    if (WANT(1))
        dx[1] = bl_conv_dw(x[0], g, bl_type_of(x[1]).shape, attr->conv);
}

TYPE(conv_dx)
{
    bl_type image = {x[0].dtype, wanted.shape};
    bl_type result = conv_result(graph, image, x[1], &attr->conv);
    if (result.shape.rank < 0)
        return result;
    REQUIRE(bl_type_equal(result, x[0]), "the cotangent must be %s, not %s", bl_show(result),
            bl_show(x[0]));
    return image;
}
VJP(conv_dx)
{
    if (WANT(0))
        dx[0] = bl_conv(g, x[1], attr->conv);
    if (WANT(1))
        dx[1] = bl_conv_dw(g, x[0], bl_type_of(x[1]).shape, attr->conv);
}

TYPE(conv_dw)
{
    bl_type filter = {x[0].dtype, wanted.shape};
    bl_type result = conv_result(graph, x[0], filter, &attr->conv);
    if (result.shape.rank < 0)
        return result;
    REQUIRE(bl_type_equal(result, x[1]), "the cotangent must be %s, not %s", bl_show(result),
            bl_show(x[1]));
    return filter;
}
VJP(conv_dw)
{
    if (WANT(0))
        dx[0] = bl_conv_dx(x[1], g, bl_type_of(x[0]).shape, attr->conv);
    if (WANT(1))
        dx[1] = bl_conv(x[0], g, attr->conv);
}

/* Zeros in strides, dilations and groups mean 1. */
static bl_conv_options normalised(bl_conv_options o)
{
    for (int i = 0; i < 2; i++) {
        o.stride[i] = o.stride[i] ? o.stride[i] : 1;
        o.dilation[i] = o.dilation[i] ? o.dilation[i] : 1;
    }
    o.groups = o.groups ? o.groups : 1;
    return o;
}

static bl_tensor conv_node(bl_op op, bl_tensor a, bl_tensor b, bl_shape wanted, bl_conv_options o)
{
    if (!bl_need_tensor(bl_op_name(op), a) || !bl_need_tensor(bl_op_name(op), b))
        return bl_poisoned(bl_graph_of((bl_tensor[]){a, b}, 2));
    return bl_node_new_typed(a.graph, op, (bl_tensor[]){a, b}, 2, (bl_attr){.conv = normalised(o)},
                             (bl_type){bl_type_of(a).dtype, wanted});
}

bl_tensor(bl_conv)(bl_tensor x, bl_tensor w, bl_conv_options options)
{
    return conv_node(BL_OP_conv, x, w, BL_SCALAR, options);
}

bl_tensor(bl_conv_dx)(bl_tensor g, bl_tensor w, bl_shape x_shape, bl_conv_options options)
{
    return conv_node(BL_OP_conv_dx, g, w, x_shape, options);
}

bl_tensor(bl_conv_dw)(bl_tensor x, bl_tensor g, bl_shape w_shape, bl_conv_options options)
{
    return conv_node(BL_OP_conv_dw, x, g, w_shape, options);
}

/* --- windows: each the adjoint of the other ----------------------------------------------------
 */

static bl_type windows_of(bl_graph *graph, bl_type x, const bl_attr *attr)
{
    REQUIRE(x.shape.rank == 4, "image must be [B,H,W,C], not %s", bl_show(x));
    REQUIRE(attr->conv.groups == 1, "windows have no groups, not %lld",
            (long long)attr->conv.groups);
    bl_type z = slid(graph, x, attr->a, &attr->conv);
    if (z.shape.rank < 0)
        return z;
    z.shape = BL_SHAPE(z.shape.dim[0], z.shape.dim[1], z.shape.dim[2], attr->a[0], attr->a[1],
                       z.shape.dim[3]);
    return z;
}

TYPE(patches)
{
    return windows_of(graph, x[0], attr);
}
VJP(patches)
{
    dx[0] = bl_fold(g, bl_type_of(x[0]).shape, attr->conv);
}

TYPE(fold)
{
    bl_type image = {x[0].dtype, wanted.shape};
    REQUIRE(x[0].dtype != BL_BOOL, "operand must be of numbers, not %s", bl_show(x[0]));
    bl_type expected = windows_of(graph, image, attr);
    if (expected.shape.rank < 0)
        return expected;
    REQUIRE(bl_type_equal(expected, x[0]), "the windows of %s are %s, not %s", bl_show(image),
            bl_show(expected), bl_show(x[0]));
    return image;
}
VJP(fold)
{
    dx[0] = bl_patches(g, attr->a[0], attr->a[1], attr->conv);
}

bl_tensor(bl_patches)(bl_tensor x, int64_t rows, int64_t columns, bl_conv_options options)
{
    if (!bl_need_tensor("patches", x))
        return bl_poisoned(x.graph);
    return bl_node_new(x.graph, BL_OP_patches, &x, 1,
                       (bl_attr){.a = {rows, columns}, .conv = normalised(options)});
}

bl_tensor(bl_fold)(bl_tensor patches, bl_shape x_shape, bl_conv_options options)
{
    if (!bl_need_tensor("fold", patches))
        return bl_poisoned(patches.graph);
    bl_type type = bl_type_of(patches);
    if (type.shape.rank != 6)
        return bl_poison(patches.graph, "fold: needs windows [B,H',W',h,w,C], not %s",
                         bl_show(type));
    bl_attr attr = {.a = {type.shape.dim[3], type.shape.dim[4]}, .conv = normalised(options)};
    return bl_node_new_typed(patches.graph, BL_OP_fold, &patches, 1, attr,
                             (bl_type){type.dtype, x_shape});
}
