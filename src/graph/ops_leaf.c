/* Leaves: where values enter a graph. (The builder of input is in graph.c, beside its name.)
 *
 * To add a primitive: a row in ops.def, then in the file of its class its TYPE rule, its VJP rule
 * and its builder, next to each other; a reference loop and a lowering in the executors; a line in
 * tests/test_gradient.c. */
#define BL_KEEP_PLACE
#include <string.h>

#include "base/base.h"
#include "graph/build.h"

TYPE(input)
{
    return wanted;
}
ZERO_GRADIENT(input)

/* constant: an array, or one value for every element. */
TYPE(constant)
{
    REQUIRE(attr->data || bl_dtype_holds(wanted.dtype, attr->value), "%g is not a value of %s",
            attr->value, bl_dtype_name(wanted.dtype));
    return wanted;
}
ZERO_GRADIENT(constant)

bl_tensor(bl_full)(bl_graph *g, bl_dtype dtype, bl_shape shape, double value)
{
    bl_attr attr = {.value = dtype == BL_F32 ? (double)(float)value : value};
    return bl_node_new_typed(g, BL_OP_constant, NULL, 0, attr, (bl_type){dtype, shape});
}

bl_tensor(bl_full_like)(bl_tensor x, double value)
{
    if (bl_is_number(x))
        return bl_number(value);
    if (bl_is_poison(x))
        return bl_spoil(x.graph, "full_like");
    bl_type type = bl_type_of(x);
    return bl_full(x.graph, type.dtype, type.shape, value);
}

bl_tensor(bl_constant)(bl_graph *g, const bl_array *value)
{
    if (!g)
        return bl_poisoned(NULL);
    int64_t count = bl_array_count(value);
    if (count <= 1)
        return bl_full(g, value->type.dtype, value->type.shape, count ? bl_array_get(value, 0) : 0);
    size_t bytes = bl_type_bytes(value->type);
    void *data = bl_arena_alloc(bl_graph_arena(g), bytes);
    if (!data)
        return bl_out_of_memory(g);
    memcpy(data, value->data, bytes);
    return bl_node_new_typed(g, BL_OP_constant, NULL, 0, (bl_attr){.data = data}, value->type);
}

TYPE(iota)
{
    REQUIRE(attr->axis >= 0 && attr->axis < wanted.shape.rank, "there is no axis %d of %d axes",
            attr->axis, wanted.shape.rank);
    int64_t size = wanted.shape.dim[attr->axis];
    REQUIRE(wanted.dtype != BL_BOOL && bl_dtype_holds(wanted.dtype, (double)(size ? size - 1 : 0)),
            "%lld is too many for %s", (long long)size, bl_dtype_name(wanted.dtype));
    return wanted;
}
ZERO_GRADIENT(iota)

bl_tensor(bl_iota)(bl_graph *g, bl_dtype dtype, bl_shape shape, int axis)
{
    int index;
    if (!bl_axis_index("iota", g, shape.rank, axis, &index))
        return bl_poisoned(g);
    return bl_node_new_typed(g, BL_OP_iota, NULL, 0, (bl_attr){.axis = index},
                             (bl_type){dtype, shape});
}

TYPE(random_bits)
{
    REQUIRE(bl_type_equal(x[0], (bl_type){BL_U32, BL_SHAPE(2)}), "key must be u32[2], not %s",
            bl_show(x[0]));
    REQUIRE(wanted.dtype == BL_U32, "the result is u32, not %s", bl_dtype_name(wanted.dtype));
    return wanted;
}
ZERO_GRADIENT(random_bits)

bl_tensor bl_random_bits_from(bl_tensor key, uint32_t stream0, uint32_t stream1, uint32_t first,
                              bl_shape shape)
{
    if (!bl_need_tensor("random_bits", key))
        return bl_poisoned(key.graph);
    bl_attr attr = {.a = {stream0, stream1, first}};
    return bl_node_new_typed(key.graph, BL_OP_random_bits, &key, 1, attr, (bl_type){BL_U32, shape});
}

bl_tensor(bl_random_bits)(bl_tensor key, uint32_t stream0, uint32_t stream1, bl_shape shape)
{
    return bl_random_bits_from(key, stream0, stream1, 0, shape);
}
