/* Movement: the same elements elsewhere. Every rule is linear, so its gradient is its adjoint. A
 * builder that would move nothing returns its operand. */
#define BL_KEEP_PLACE
#include "graph/build.h"

/* --- reshape -----------------------------------------------------------------------------------
 */

TYPE(reshape)
{
    REQUIRE(bl_shape_count(x[0].shape) == bl_shape_count(wanted.shape),
            "%s has %lld elements, %s has %lld", bl_show_shape(x[0].shape),
            (long long)bl_shape_count(x[0].shape), bl_show_shape(wanted.shape),
            (long long)bl_shape_count(wanted.shape));
    return (bl_type){x[0].dtype, wanted.shape};
}
VJP(reshape)
{
    dx[0] = bl_reshape(g, bl_type_of(x[0]).shape);
}

/* Replaces a size of -1 by what the other sizes leave; false if there is no one answer. */
static bool complete_shape(bl_tensor x, bl_shape *shape)
{
    int open = -1;
    int64_t rest = 1, count = bl_type_count(bl_type_of(x));
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] == -1 && open < 0)
            open = i;
        else if (shape->dim[i] < 0 || __builtin_mul_overflow(rest, shape->dim[i], &rest))
            return false;
    }
    if (open < 0)
        return true;
    if (rest == 0 || count % rest != 0)
        return false;
    shape->dim[open] = count / rest;
    return true;
}

bl_tensor(bl_reshape)(bl_tensor x, bl_shape shape)
{
    if (!bl_need_tensor("reshape", x))
        return bl_poisoned(x.graph);
    bl_type type = bl_type_of(x);
    if (shape.rank < 0 || shape.rank > BL_MAX_RANK)
        return bl_poison(x.graph, "reshape: a shape has at most %d axes, not %d", BL_MAX_RANK,
                         shape.rank);
    if (!complete_shape(x, &shape))
        return bl_poison(x.graph, "reshape: %s cannot become %s", bl_show(type),
                         bl_show_shape(shape));
    if (bl_shape_equal(type.shape, shape))
        return x;
    type.shape = shape;
    return bl_node_new_typed(x.graph, BL_OP_reshape, &x, 1, (bl_attr){0}, type);
}

bl_tensor(bl_expand)(bl_tensor x, int axis)
{
    int index;
    if (!bl_need_tensor("expand", x) ||
        !bl_axis_index("expand", x.graph, bl_rank(x) + 1, axis, &index))
        return bl_poisoned(x.graph);
    bl_shape shape = bl_type_of(x).shape;
    if (shape.rank == BL_MAX_RANK)
        return bl_poison(x.graph, "expand: %s has %d axes already", bl_show(bl_type_of(x)),
                         BL_MAX_RANK);
    for (int i = shape.rank++; i > index; i--)
        shape.dim[i] = shape.dim[i - 1];
    shape.dim[index] = 1;
    return bl_reshape(x, shape);
}

bl_tensor(bl_squeeze)(bl_tensor x, int axis)
{
    int index;
    if (!bl_need_tensor("squeeze", x) ||
        !bl_axis_index("squeeze", x.graph, bl_rank(x), axis, &index))
        return bl_poisoned(x.graph);
    bl_shape shape = bl_type_of(x).shape;
    if (shape.dim[index] != 1)
        return bl_poison(x.graph, "squeeze: axis %d of %s is not of size 1", axis,
                         bl_show(bl_type_of(x)));
    return bl_reshape(x, bl_shape_drop(shape, 1u << index));
}

/* --- broadcast ---------------------------------------------------------------------------------
 */

static bool stretches(bl_shape from, bl_shape to)
{
    if (from.rank != to.rank)
        return false;
    for (int i = 0; i < from.rank; i++)
        if (from.dim[i] != to.dim[i] && from.dim[i] != 1)
            return false;
    return true;
}

TYPE(broadcast)
{
    REQUIRE(stretches(x[0].shape, wanted.shape), "%s does not broadcast to %s", bl_show(x[0]),
            bl_show_shape(wanted.shape));
    return (bl_type){x[0].dtype, wanted.shape};
}
VJP(broadcast)
{
    bl_shape from = bl_type_of(x[0]).shape, to = bl_type_of(z).shape;
    int axes[BL_MAX_RANK + 1], count = 0;
    for (int i = 0; i < from.rank; i++)
        if (from.dim[i] != to.dim[i])
            axes[count++] = i;
    axes[count] = BL_END;
    dx[0] = count ? bl_sum_over_keep(g, axes) : g; /* no axes would mean all of them */
}

bl_tensor(bl_broadcast)(bl_tensor x, bl_shape shape)
{
    if (!bl_need_tensor("broadcast", x))
        return bl_poisoned(x.graph);
    bl_type type = bl_type_of(x);
    if (bl_shape_equal(type.shape, shape))
        return x;
    if (shape.rank < type.shape.rank || shape.rank > BL_MAX_RANK)
        return bl_poison(x.graph, "broadcast: %s does not broadcast to %d axes", bl_show(type),
                         shape.rank);
    bl_shape aligned = {.rank = shape.rank};
    for (int i = 0, lead = shape.rank - type.shape.rank; i < shape.rank; i++)
        aligned.dim[i] = i < lead ? 1 : type.shape.dim[i - lead];
    if (!stretches(aligned, shape))
        return bl_poison(x.graph, "broadcast: %s does not broadcast to %s", bl_show(type),
                         bl_show_shape(shape));
    x = bl_reshape(x, aligned);
    if (bl_shape_equal(aligned, shape))
        return x;
    return bl_node_new_typed(x.graph, BL_OP_broadcast, &x, 1, (bl_attr){0},
                             (bl_type){type.dtype, shape});
}

/* --- transpose ---------------------------------------------------------------------------------
 */

TYPE(transpose)
{
    bl_type z = x[0];
    uint32_t seen = 0;
    for (int i = 0; i < z.shape.rank; i++) {
        int64_t from = attr->a[i];
        REQUIRE(from >= 0 && from < z.shape.rank && !(seen & 1u << from),
                "the axes of %s are not each named once", bl_show(x[0]));
        seen |= 1u << from;
        z.shape.dim[i] = x[0].shape.dim[from];
    }
    return z;
}
VJP(transpose)
{
    int back[BL_MAX_RANK + 1], rank = bl_rank(z);
    for (int i = 0; i < rank; i++)
        back[attr->a[i]] = i;
    back[rank] = BL_END;
    dx[0] = bl_transpose_to(g, back);
}

bl_tensor(bl_transpose_to)(bl_tensor x, const int *axes)
{
    if (!bl_need_tensor("transpose", x))
        return bl_poisoned(x.graph);
    int rank = bl_rank(x), count = 0, index;
    bl_attr attr = {0};
    bool all = axes[0] == BL_END, same = true;
    for (; !all && axes[count] != BL_END; count++) {
        if (count == rank)
            return bl_poison(x.graph, "transpose: more axes are named than %s has",
                             bl_show(bl_type_of(x)));
        if (!bl_axis_index("transpose", x.graph, rank, axes[count], &index))
            return bl_poisoned(x.graph);
        attr.a[count] = index;
    }
    if (!all && count != rank)
        return bl_poison(x.graph, "transpose: %d axes are named, %s has %d", count,
                         bl_show(bl_type_of(x)), rank);
    for (int i = 0; i < rank; i++) {
        attr.a[i] = all ? rank - 1 - i : attr.a[i];
        same = same && attr.a[i] == i;
    }
    return same ? x : bl_node_new(x.graph, BL_OP_transpose, &x, 1, attr);
}

/* --- slice and pad: each the adjoint of the other ----------------------------------------------
 */

TYPE(slice)
{
    bl_type z = x[0];
    for (int i = 0; i < z.shape.rank; i++) {
        int64_t start = attr->a[i], stop = attr->b[i], step = attr->c[i];
        REQUIRE(0 <= start && start <= stop && stop <= x[0].shape.dim[i],
                "axis %d: %lld to %lld is outside %s", i, (long long)start, (long long)stop,
                bl_show(x[0]));
        REQUIRE(step >= 1, "axis %d: a step is at least 1, not %lld", i, (long long)step);
        z.shape.dim[i] = stop > start ? (stop - start - 1) / step + 1 : 0;
    }
    return z;
}
VJP(slice)
{
    bl_shape from = bl_type_of(x[0]).shape, to = bl_type_of(z).shape;
    bl_shape low = {.rank = from.rank}, high = low, between = low;
    for (int i = 0; i < from.rank; i++) {
        int64_t used = to.dim[i] ? (to.dim[i] - 1) * attr->c[i] + 1 : 0;
        low.dim[i] = attr->a[i];
        high.dim[i] = from.dim[i] - attr->a[i] - used;
        between.dim[i] = attr->c[i] - 1;
    }
    dx[0] = bl_pad_between(g, low, high, between, 0);
}

bl_tensor(bl_slice)(bl_tensor x, bl_shape start, bl_shape stop, bl_shape step)
{
    if (!bl_need_tensor("slice", x))
        return bl_poisoned(x.graph);
    bl_type type = bl_type_of(x);
    int rank = type.shape.rank;
    if (start.rank != rank || stop.rank != rank || (step.rank != rank && step.rank != 0))
        return bl_poison(x.graph, "slice: %s needs a start, stop and step an axis", bl_show(type));
    bl_attr attr = {0};
    bool whole = true;
    for (int i = 0; i < rank; i++) {
        attr.a[i] = start.dim[i];
        attr.b[i] = stop.dim[i];
        attr.c[i] = step.rank ? step.dim[i] : 1;
        whole = whole && start.dim[i] == 0 && stop.dim[i] == type.shape.dim[i] && attr.c[i] == 1;
    }
    return whole ? x : bl_node_new(x.graph, BL_OP_slice, &x, 1, attr);
}

bl_tensor(bl_slice_axis)(bl_tensor x, int axis, int64_t start, int64_t stop)
{
    int index;
    if (!bl_need_tensor("slice", x) || !bl_axis_index("slice", x.graph, bl_rank(x), axis, &index))
        return bl_poisoned(x.graph);
    bl_shape from = {.rank = bl_rank(x)}, to = bl_type_of(x).shape;
    from.dim[index] = start;
    to.dim[index] = stop;
    return bl_slice(x, from, to, BL_SCALAR);
}

TYPE(pad)
{
    bl_type z = x[0];
    REQUIRE(bl_dtype_holds(z.dtype, attr->value), "%g is not a value of %s", attr->value,
            bl_dtype_name(z.dtype));
    for (int i = 0; i < z.shape.rank; i++) {
        int64_t low = attr->a[i], high = attr->b[i], between = attr->c[i], size = z.shape.dim[i];
        REQUIRE(low >= 0 && high >= 0 && between >= 0,
                "axis %d: %lld, %lld: padding is not negative; slice instead", i, (long long)low,
                (long long)high);
        int64_t inner = 0;
        REQUIRE(!__builtin_mul_overflow(size ? size - 1 : 0, between, &inner) &&
                    !__builtin_add_overflow(inner, size, &inner) &&
                    !__builtin_add_overflow(inner, low, &inner) &&
                    !__builtin_add_overflow(inner, high, &inner),
                "axis %d: the padding is too large", i);
        z.shape.dim[i] = inner;
    }
    return z;
}
VJP(pad)
{
    bl_shape from = bl_type_of(x[0]).shape;
    bl_shape start = {.rank = from.rank}, stop = start, step = start;
    for (int i = 0; i < from.rank; i++) {
        step.dim[i] = attr->c[i] + 1;
        start.dim[i] = attr->a[i];
        stop.dim[i] = attr->a[i] + (from.dim[i] ? (from.dim[i] - 1) * step.dim[i] + 1 : 0);
    }
    dx[0] = bl_slice(g, start, stop, step);
}

bl_tensor bl_pad_between(bl_tensor x, bl_shape low, bl_shape high, bl_shape between, double value)
{
    if (!bl_need_tensor("pad", x))
        return bl_poisoned(x.graph);
    bl_type type = bl_type_of(x);
    int rank = type.shape.rank;
    if (low.rank != rank || high.rank != rank)
        return bl_poison(x.graph, "pad: %s needs a low and a high padding an axis", bl_show(type));
    bl_attr attr = {.value = type.dtype == BL_F32 ? (double)(float)value : value};
    bool none = true;
    for (int i = 0; i < rank; i++) {
        attr.a[i] = low.dim[i];
        attr.b[i] = high.dim[i];
        attr.c[i] = between.rank ? between.dim[i] : 0;
        none = none && !attr.a[i] && !attr.b[i] && (!attr.c[i] || type.shape.dim[i] <= 1);
    }
    return none ? x : bl_node_new(x.graph, BL_OP_pad, &x, 1, attr);
}

bl_tensor(bl_pad)(bl_tensor x, bl_shape low, bl_shape high, double value)
{
    return bl_pad_between(x, low, high, BL_SCALAR, value);
}

/* --- concat ------------------------------------------------------------------------------------
 */

TYPE(concat)
{
    REQUIRE(n >= 1, "needs at least one operand");
    bl_type z = x[0];
    int axis = attr->axis;
    REQUIRE(axis >= 0 && axis < z.shape.rank, "there is no axis %d of %d axes", axis, z.shape.rank);
    for (int i = 1; i < n; i++) {
        bl_type like = x[i];
        REQUIRE(like.shape.rank == z.shape.rank, "operand %d: ranks differ: %s and %s", i,
                bl_show(x[0]), bl_show(x[i]));
        like.shape.dim[axis] = x[0].shape.dim[axis];
        REQUIRE(bl_type_equal(like, x[0]), "operand %d: %s and %s differ beside axis %d", i,
                bl_show(x[0]), bl_show(x[i]), axis);
        z.shape.dim[axis] += x[i].shape.dim[axis];
    }
    return z;
}
VJP(concat)
{
    int64_t start = 0;
    for (int i = 0; i < n; i++) {
        int64_t stop = start + bl_dim(x[i], attr->axis);
        if (WANT(i))
            dx[i] = bl_slice_axis(g, attr->axis, start, stop);
        start = stop;
    }
}

bl_tensor(bl_concat)(const bl_tensor *x, int count, int axis)
{
    int index;
    if (count < 1)
        return bl_poison(NULL, "concat: needs at least one operand");
    if (!bl_need_tensor("concat", x[0]) ||
        !bl_axis_index("concat", x[0].graph, bl_rank(x[0]), axis, &index))
        return bl_poisoned(x[0].graph);
    if (count == 1)
        return x[0];
    return bl_node_new(x[0].graph, BL_OP_concat, x, count, (bl_attr){.axis = index});
}

/* --- reverse -----------------------------------------------------------------------------------
 */

TYPE(reverse)
{
    REQUIRE(attr->axis >= 0 && attr->axis < x[0].shape.rank, "there is no axis %d of %d axes",
            attr->axis, x[0].shape.rank);
    return x[0];
}
VJP(reverse)
{
    dx[0] = bl_reverse(g, attr->axis);
}

bl_tensor(bl_reverse)(bl_tensor x, int axis)
{
    int index;
    if (!bl_need_tensor("reverse", x) ||
        !bl_axis_index("reverse", x.graph, bl_rank(x), axis, &index))
        return bl_poisoned(x.graph);
    return bl_node_new(x.graph, BL_OP_reverse, &x, 1, (bl_attr){.axis = index});
}
