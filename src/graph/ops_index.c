/* Indexing: rows and elements chosen by an i32 tensor. Linear in what is moved, so each gradient is
 * an adjoint; an index has none. That an index is in range is checked when the program runs. */
#define BL_KEEP_PLACE
#include "graph/build.h"

/* The operands' graph, or NULL after an error. */
static bl_graph *graph_of_tensors(const char *builder, const bl_tensor *x, int count)
{
    for (int i = 0; i < count; i++)
        if (!bl_need_tensor(builder, x[i]))
            return NULL;
    return x[0].graph;
}

static bl_tensor index_node(bl_op op, const bl_tensor *x, int count, bl_attr attr)
{
    bl_graph *g = graph_of_tensors(bl_op_name(op), x, count);
    if (!g)
        return bl_poisoned(bl_graph_of(x, count));
    return bl_node_new(g, op, x, count, attr);
}

/* --- rows --------------------------------------------------------------------------------------
 */

TYPE(take)
{
    REQUIRE(x[0].shape.rank >= 1, "x needs rows, but is a scalar");
    REQUIRE(x[1].dtype == BL_I32 && x[1].shape.rank == 1, "index must be i32[B], not %s",
            bl_show(x[1]));
    bl_type z = x[0];
    z.shape.dim[0] = x[1].shape.dim[0];
    return z;
}
VJP(take)
{
    dx[0] = bl_add_at(bl_zeros_like(x[0]), x[1], g);
}

bl_tensor(bl_take)(bl_tensor x, bl_tensor index)
{
    return index_node(BL_OP_take, (bl_tensor[]){x, index}, 2, (bl_attr){0});
}

/* The rule of add_at and put: rows are what take(x, index) would give. */
static bl_type with_rows(bl_graph *graph, const bl_type *x)
{
    bl_type rows = take_type(graph, x, 2, NULL, bl_no_type);
    if (rows.shape.rank < 0)
        return rows;
    REQUIRE(bl_type_equal(rows, x[2]), "rows must be %s, not %s", bl_show(rows), bl_show(x[2]));
    return x[0];
}

TYPE(add_at)
{
    REQUIRE(x[0].dtype != BL_BOOL, "x must be of numbers, not %s", bl_show(x[0]));
    return with_rows(graph, x);
}
VJP(add_at)
{
    dx[0] = g;
    if (WANT(2))
        dx[2] = bl_take(g, x[1]);
}

bl_tensor(bl_add_at)(bl_tensor x, bl_tensor index, bl_tensor rows)
{
    return index_node(BL_OP_add_at, (bl_tensor[]){x, index, rows}, 3, (bl_attr){0});
}

TYPE(put)
{
    return with_rows(graph, x);
}
VJP(put)
{
    if (WANT(0))
        dx[0] = bl_put(g, x[1], bl_zeros_like(x[2]));
    if (WANT(2))
        dx[2] = bl_take(g, x[1]);
}

bl_tensor(bl_put)(bl_tensor x, bl_tensor index, bl_tensor rows)
{
    return index_node(BL_OP_put, (bl_tensor[]){x, index, rows}, 3, (bl_attr){0});
}

/* --- elements along an axis --------------------------------------------------------------------
 */

TYPE(take_along)
{
    int axis = attr->axis;
    REQUIRE(axis >= 0 && axis < x[0].shape.rank, "there is no axis %d of %d axes", axis,
            x[0].shape.rank);
    bl_type like = x[0];
    like.dtype = BL_I32;
    if (x[1].shape.rank == like.shape.rank)
        like.shape.dim[axis] = x[1].shape.dim[axis];
    REQUIRE(bl_type_equal(like, x[1]),
            "index must be i32 with the sizes of %s beside axis %d, not %s", bl_show(x[0]), axis,
            bl_show(x[1]));
    like.dtype = x[0].dtype;
    return like;
}
VJP(take_along)
{
    /* One element a line is a choice, which the executors fuse; several may collide. */
    if (bl_dim(x[1], attr->axis) == 1 && bl_dim(x[0], attr->axis) > 0) {
        bl_shape shape = bl_type_of(x[0]).shape;
        bl_tensor place = bl_iota(graph, BL_I32, shape, attr->axis);
        dx[0] = bl_select(bl_eq(place, x[1]), g, 0);
        return;
    }
    dx[0] = bl_add_along(bl_zeros_like(x[0]), x[1], g, attr->axis);
}

static bl_tensor along_node(bl_op op, const bl_tensor *x, int count, int axis)
{
    int index;
    bl_graph *g = graph_of_tensors(bl_op_name(op), x, count);
    if (!g || !bl_axis_index(bl_op_name(op), g, bl_rank(x[0]), axis, &index))
        return bl_poisoned(bl_graph_of(x, count));
    return bl_node_new(g, op, x, count, (bl_attr){.axis = index});
}

bl_tensor(bl_take_along)(bl_tensor x, bl_tensor index, int axis)
{
    return along_node(BL_OP_take_along, (bl_tensor[]){x, index}, 2, axis);
}

TYPE(add_along)
{
    REQUIRE(x[0].dtype != BL_BOOL, "x must be of numbers, not %s", bl_show(x[0]));
    bl_type updates = take_along_type(graph, x, 2, attr, bl_no_type);
    if (updates.shape.rank < 0)
        return updates;
    REQUIRE(bl_type_equal(updates, x[2]), "updates must be %s, not %s", bl_show(updates),
            bl_show(x[2]));
    return x[0];
}
VJP(add_along)
{
    dx[0] = g;
    if (WANT(2))
        dx[2] = bl_take_along(g, x[1], attr->axis);
}

bl_tensor(bl_add_along)(bl_tensor x, bl_tensor index, bl_tensor updates, int axis)
{
    return along_node(BL_OP_add_along, (bl_tensor[]){x, index, updates}, 3, axis);
}

TYPE(argsort)
{
    REQUIRE(attr->axis >= 0 && attr->axis < x[0].shape.rank, "there is no axis %d of %d axes",
            attr->axis, x[0].shape.rank);
    REQUIRE(x[0].dtype != BL_BOOL, "operand must be of numbers, not %s", bl_show(x[0]));
    REQUIRE(x[0].shape.dim[attr->axis] <= INT32_MAX, "axis %d of %s is too long", attr->axis,
            bl_show(x[0]));
    return (bl_type){BL_I32, x[0].shape};
}
ZERO_GRADIENT(argsort)

bl_tensor(bl_argsort)(bl_tensor x, int axis, bool descending)
{
    int index;
    if (!bl_need_tensor("argsort", x) ||
        !bl_axis_index("argsort", x.graph, bl_rank(x), axis, &index))
        return bl_poisoned(x.graph);
    return bl_node_new(x.graph, BL_OP_argsort, &x, 1, (bl_attr){.axis = index, .flag = descending});
}
