/* Leaves and movement. Every movement is a copy from one strided view to another. */
#include "exec/reference/reference.h"

#include <string.h>

/* The executor puts inputs and constants in place itself. */
bl_status reference_input(BL_UNUSED const bl_call *call)
{
    return BL_OK;
}
bl_status reference_constant(BL_UNUSED const bl_call *call)
{
    return BL_OK;
}

bl_status reference_iota(const bl_call *call)
{
    bl_lanes lanes = lanes_of(call->node->type.shape, call->node->attr->axis);
    int64_t at = 0;
    for (int64_t o = 0; o < lanes.outer; o++)
        for (int64_t l = 0; l < lanes.length; l++)
            for (int64_t i = 0; i < lanes.inner; i++) {
                double value = (double)l;
                store_doubles(call->node->type.dtype, &value, at++, 1, call->result);
            }
    return BL_OK;
}

bl_status reference_random_bits(const bl_call *call)
{
    int64_t count = bl_type_count(call->node->type);
    const int64_t *stream = call->node->attr->a;
    uint32_t *result = call->result, word[4];
    for (int64_t i = 0; i < count; i++) {
        uint64_t block = (uint64_t)stream[2] + (uint64_t)i / 4;
        uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream[0],
                               (uint32_t)stream[1]};
        if (i % 4 == 0)
            bl_philox(counter, operand(call, 0), word);
        result[i] = word[i % 4];
    }
    return BL_OK;
}

/* Copies the elements of `shape` from view `from` of x to view `to` of the result. */
static void copy(const bl_call *call, bl_shape shape, const void *x, bl_view from, bl_view to)
{
    size_t size = bl_dtype_size(call->node->type.dtype);
    int64_t index[BL_MAX_RANK] = {0};
    if (bl_shape_count(shape) == 0)
        return;
    do
        memcpy((char *)call->result + (size_t)at_index(&to, shape, index) * size,
               (const char *)x + (size_t)at_index(&from, shape, index) * size, size);
    while (next_index(shape, index));
}

/* The whole result from view `from` of the operand. */
static bl_status gather(const bl_call *call, bl_view from)
{
    bl_shape shape = call->node->type.shape;
    copy(call, shape, operand(call, 0), from, row_major(shape));
    return BL_OK;
}

bl_status reference_reshape(const bl_call *call)
{
    if (bl_type_bytes(call->node->type) > 0)
        memcpy(call->result, operand(call, 0), bl_type_bytes(call->node->type));
    return BL_OK;
}

bl_status reference_broadcast(const bl_call *call)
{
    bl_shape shape = operand_type(call, 0).shape;
    bl_view from = row_major(shape);
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] == 1)
            from.stride[i] = 0;
    return gather(call, from);
}

bl_status reference_transpose(const bl_call *call)
{
    bl_view x = row_major(operand_type(call, 0).shape), from = {0};
    for (int i = 0; i < call->node->type.shape.rank; i++)
        from.stride[i] = x.stride[call->node->attr->a[i]];
    return gather(call, from);
}

bl_status reference_slice(const bl_call *call)
{
    const bl_attr *attr = call->node->attr;
    bl_shape shape = operand_type(call, 0).shape;
    bl_view from = row_major(shape);
    for (int i = 0; i < shape.rank; i++) {
        from.offset += attr->a[i] * from.stride[i];
        from.stride[i] *= attr->c[i];
    }
    return gather(call, from);
}

bl_status reference_reverse(const bl_call *call)
{
    int axis = call->node->attr->axis;
    bl_shape shape = operand_type(call, 0).shape;
    bl_view from = row_major(shape);
    from.offset = (shape.dim[axis] - 1) * from.stride[axis];
    from.stride[axis] = -from.stride[axis];
    return gather(call, from);
}

/* The value everywhere, then the operand over it, at every (interior + 1)-th place. */
bl_status reference_pad(const bl_call *call)
{
    const bl_attr *attr = call->node->attr;
    bl_shape shape = operand_type(call, 0).shape;
    bl_view to = row_major(call->node->type.shape);
    int64_t count = bl_type_count(call->node->type);
    for (int64_t i = 0; i < count; i++)
        store_doubles(call->node->type.dtype, &attr->value, i, 1, call->result);
    for (int i = 0; i < shape.rank; i++) {
        to.offset += attr->a[i] * to.stride[i];
        to.stride[i] *= attr->c[i] + 1;
    }
    copy(call, shape, operand(call, 0), row_major(shape), to);
    return BL_OK;
}

bl_status reference_concat(const bl_call *call)
{
    int axis = call->node->attr->axis;
    bl_view to = row_major(call->node->type.shape);
    for (int i = 0; i < call->node->operands; i++) {
        bl_shape shape = operand_type(call, i).shape;
        copy(call, shape, operand(call, i), row_major(shape), to);
        to.offset += shape.dim[axis] * to.stride[axis];
    }
    return BL_OK;
}
