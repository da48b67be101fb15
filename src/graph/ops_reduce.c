/* Reductions. A primitive drops its axes; the _keep builders reshape them back to size 1. */
#define BL_KEEP_PLACE
#include "graph/build.h"

static bl_type reduced(bl_graph *graph, bl_type x, uint32_t set)
{
    REQUIRE(x.dtype != BL_BOOL, "operand must be of numbers, not %s; cast it", bl_show(x));
    REQUIRE(set >> x.shape.rank == 0, "the axes are not all axes of %s", bl_show(x));
    return (bl_type){x.dtype, bl_shape_drop(x.shape, set)};
}

static bl_type selected(bl_graph *graph, bl_type x, uint32_t set)
{
    bl_type z = reduced(graph, x, set);
    if (z.shape.rank < 0)
        return z;
    REQUIRE(bl_shape_over(x.shape, set) > 0 || bl_type_count(z) == 0,
            "the reduced axes of %s are empty, and nothing has no extreme", bl_show(x));
    return z;
}

/* Undoes the dropping of axes: every element goes back to all that were reduced to it. */
static bl_tensor spread(bl_tensor reduced_value, bl_tensor x, uint32_t set)
{
    bl_shape shape = bl_type_of(x).shape;
    return bl_broadcast(bl_reshape(reduced_value, bl_shape_keep(shape, set)), shape);
}

static bl_tensor reduce(bl_op op, bl_tensor x, const int *axes, bool keep)
{
    uint32_t set;
    if (bl_is_number(x) && axes[0] == BL_END)
        return x;
    if (!bl_need_tensor(bl_op_name(op), x) || !bl_axis_set(bl_op_name(op), x, axes, &set))
        return bl_poisoned(x.graph);
    bl_shape kept = bl_shape_keep(bl_type_of(x).shape, set);
    bl_tensor z = set ? bl_node_new(x.graph, op, &x, 1, (bl_attr){.axes = set}) : x;
    return keep && !bl_is_poison(z) ? bl_reshape(z, kept) : z;
}

TYPE(sum)
{
    return reduced(graph, x[0], attr->axes);
}
VJP(sum)
{
    dx[0] = spread(g, x[0], attr->axes);
}

bl_tensor(bl_sum_over)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_sum, x, axes, false);
}
bl_tensor(bl_sum_over_keep)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_sum, x, axes, true);
}

/* --- extremes ----------------------------------------------------------------------------------
 */

/* g at the first element, in row-major order of the reduced axes, that equals the extreme z. */
static bl_tensor to_the_first(bl_graph *graph, bl_tensor z, bl_tensor x, bl_tensor g, uint32_t set)
{
    bl_shape shape = bl_type_of(x).shape;
    int64_t count = bl_shape_over(shape, set), stride = count;
    if (bl_type_count(bl_type_of(x)) == 0)
        return bl_zeros_like(x);
    if (count > INT32_MAX)
        return bl_poison(graph, "the gradient of an extreme of %lld elements is too large",
                         (long long)count);
    bl_tensor order = bl_number(0);
    for (int i = 0; i < shape.rank; i++) {
        if (!(set & 1u << i) || shape.dim[i] == 1)
            continue;
        stride /= shape.dim[i];
        bl_tensor place = bl_iota(graph, BL_I32, shape, i);
        order = bl_add(order, stride == 1 ? place : bl_mul(place, (double)stride));
    }
    if (bl_is_number(order)) /* each reduced axis has one element */
        return spread(g, x, set);
    bl_tensor candidates = bl_select(bl_eq(x, spread(z, x, set)), order, (double)count);
    bl_tensor first = bl_node_new(graph, BL_OP_reduce_min, &candidates, 1, (bl_attr){.axes = set});
    return bl_select(bl_eq(order, spread(first, x, set)), spread(g, x, set), 0);
}

TYPE(reduce_max)
{
    return selected(graph, x[0], attr->axes);
}
VJP(reduce_max)
{
    dx[0] = to_the_first(graph, z, x[0], g, attr->axes);
}

TYPE(reduce_min)
{
    return selected(graph, x[0], attr->axes);
}
VJP(reduce_min)
{
    dx[0] = to_the_first(graph, z, x[0], g, attr->axes);
}

bl_tensor(bl_reduce_max_over)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_reduce_max, x, axes, false);
}
bl_tensor(bl_reduce_max_over_keep)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_reduce_max, x, axes, true);
}
bl_tensor(bl_reduce_min_over)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_reduce_min, x, axes, false);
}
bl_tensor(bl_reduce_min_over_keep)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_reduce_min, x, axes, true);
}

static bl_type place_type(bl_graph *graph, bl_type x, int axis)
{
    REQUIRE(axis >= 0 && axis < x.shape.rank, "there is no axis %d of %d axes", axis, x.shape.rank);
    REQUIRE(x.shape.dim[axis] <= INT32_MAX, "axis %d of %s is too long", axis, bl_show(x));
    bl_type z = selected(graph, x, 1u << axis);
    z.dtype = BL_I32;
    return z;
}

TYPE(argmax)
{
    return place_type(graph, x[0], attr->axis);
}
ZERO_GRADIENT(argmax)

TYPE(argmin)
{
    return place_type(graph, x[0], attr->axis);
}
ZERO_GRADIENT(argmin)

static bl_tensor axis_node(bl_op op, bl_tensor x, int axis)
{
    int index;
    if (!bl_need_tensor(bl_op_name(op), x) ||
        !bl_axis_index(bl_op_name(op), x.graph, bl_rank(x), axis, &index))
        return bl_poisoned(x.graph);
    return bl_node_new(x.graph, op, &x, 1, (bl_attr){.axis = index});
}

bl_tensor(bl_argmax)(bl_tensor x, int axis)
{
    return axis_node(BL_OP_argmax, x, axis);
}
bl_tensor(bl_argmin)(bl_tensor x, int axis)
{
    return axis_node(BL_OP_argmin, x, axis);
}

/* --- running sums ------------------------------------------------------------------------------
 */

TYPE(cumsum)
{
    REQUIRE(attr->axis >= 0 && attr->axis < x[0].shape.rank, "there is no axis %d of %d axes",
            attr->axis, x[0].shape.rank);
    return reduced(graph, x[0], 0);
}
VJP(cumsum)
{
    dx[0] = bl_reverse(bl_cumsum(bl_reverse(g, attr->axis), attr->axis), attr->axis);
}

bl_tensor(bl_cumsum)(bl_tensor x, int axis)
{
    return axis_node(BL_OP_cumsum, x, axis);
}

/* --- products ----------------------------------------------------------------------------------
 */

/* x as a matrix whose rows are the reduced axes, and back. */
static bl_tensor to_rows(bl_tensor x, uint32_t set)
{
    bl_shape shape = bl_type_of(x).shape;
    int order[BL_MAX_RANK + 1], count = 0;
    for (int reduced_axes = 0; reduced_axes < 2; reduced_axes++)
        for (int i = 0; i < shape.rank; i++)
            if ((int)(set >> i & 1u) == reduced_axes)
                order[count++] = i;
    order[count] = BL_END;
    int64_t columns = bl_shape_over(shape, set);
    return bl_reshape(bl_transpose_to(x, order),
                      BL_SHAPE(bl_shape_count(bl_shape_drop(shape, set)), columns));
}

static bl_tensor from_rows(bl_tensor rows, bl_shape shape, uint32_t set)
{
    bl_shape moved = {.rank = shape.rank};
    int back[BL_MAX_RANK + 1], count = 0;
    for (int reduced_axes = 0; reduced_axes < 2; reduced_axes++)
        for (int i = 0; i < shape.rank; i++)
            if ((int)(set >> i & 1u) == reduced_axes) {
                moved.dim[count] = shape.dim[i];
                back[i] = count++;
            }
    back[count] = BL_END;
    return bl_transpose_to(bl_reshape(rows, moved), back);
}

/* Every row moved `by` columns to the right, with ones coming in. */
static bl_tensor shifted(bl_tensor rows, int64_t by)
{
    int64_t columns = bl_dim(rows, 1);
    return bl_pad(bl_slice_axis(rows, 1, 0, columns - by), BL_SHAPE(0, by), BL_SHAPE(0, 0), 1);
}

/* z[r,i] is the product of x[r,j] over j < i, by doubling: no division, so zeros do no harm. */
static bl_tensor product_before(bl_tensor rows)
{
    bl_tensor product = shifted(rows, 1);
    for (int64_t step = 1; step < bl_dim(rows, 1); step *= 2)
        product = bl_mul(product, shifted(product, step));
    return product;
}

TYPE(prod)
{
    return reduced(graph, x[0], attr->axes);
}
/* prod: dz = sum over i of (product of the others) dx_i. */
VJP(prod)
{
    if (bl_type_count(bl_type_of(x[0])) == 0)
        return;
    bl_tensor rows = to_rows(x[0], attr->axes);
    bl_tensor after = bl_reverse(product_before(bl_reverse(rows, 1)), 1);
    bl_tensor others = bl_mul(product_before(rows), after);
    dx[0] =
        bl_mul(spread(g, x[0], attr->axes), from_rows(others, bl_type_of(x[0]).shape, attr->axes));
}

bl_tensor(bl_prod_over)(bl_tensor x, const int *axes)
{
    return reduce(BL_OP_prod, x, axes, false);
}
