/* Loading, storing and walking arrays, for the reference kernels. */
#include "exec/reference/reference.h"

#include <string.h>

#include "graph/meaning.h"

#define LOAD(type)                                                                                 \
    for (int64_t i = 0; i < count; i++)                                                            \
    to[i] = (double)((const type *)from)[start + i]

void load_doubles(bl_dtype dtype, const void *from, int64_t start, int64_t count, double *to)
{
    switch (dtype) {
    case BL_F32:
        LOAD(float);
        break;
    case BL_F64:
        LOAD(double);
        break;
    case BL_I32:
        LOAD(int32_t);
        break;
    case BL_U32:
        LOAD(uint32_t);
        break;
    case BL_I8:
        LOAD(int8_t);
        break;
    default:
        LOAD(uint8_t);
    }
}

#define STORE(type)                                                                                \
    for (int64_t i = 0; i < count; i++)                                                            \
    ((type *)to)[start + i] = (type)bl_round_to(dtype, from[i])

void store_doubles(bl_dtype dtype, const double *from, int64_t start, int64_t count, void *to)
{
    switch (dtype) {
    case BL_F32:
        for (int64_t i = 0; i < count; i++)
            ((float *)to)[start + i] = (float)from[i];
        break;
    case BL_F64:
        if (count > 0)
            memcpy((double *)to + start, from, (size_t)count * sizeof(double));
        break;
    case BL_I32:
        STORE(int32_t);
        break;
    case BL_U32:
        STORE(uint32_t);
        break;
    case BL_I8:
        STORE(int8_t);
        break;
    default:
        STORE(uint8_t);
    }
}

bool is_wide_integer(bl_dtype dtype)
{
    return bl_dtype_is_integer(dtype);
}

#define WIDEN(type)                                                                                \
    for (int64_t i = 0; i < count; i++)                                                            \
    to[i] = (uint64_t)((const type *)from)[i]

void widen(bl_dtype dtype, const void *from, int64_t count, uint64_t *to)
{
    switch (dtype) {
    case BL_I32:
        WIDEN(int32_t);
        break;
    case BL_U32:
        WIDEN(uint32_t);
        break;
    case BL_I8:
        WIDEN(int8_t);
        break;
    case BL_U8:
        WIDEN(uint8_t);
        break;
    default:
        load_doubles(dtype, from, 0, count, (double *)to);
    }
}

#define NARROW(type)                                                                               \
    for (int64_t i = 0; i < count; i++)                                                            \
    ((type *)to)[i] = (type)from[i]

void narrow(bl_dtype dtype, const uint64_t *from, int64_t count, void *to)
{
    switch (dtype) {
    case BL_I32:
    case BL_U32:
        NARROW(uint32_t);
        break;
    case BL_I8:
    case BL_U8:
        NARROW(uint8_t);
        break;
    default:
        store_doubles(dtype, (const double *)from, 0, count, to);
    }
}

bl_view row_major(bl_shape shape)
{
    bl_view view = {0};
    int64_t stride = 1;
    for (int i = shape.rank - 1; i >= 0; i--) {
        view.stride[i] = stride;
        stride *= shape.dim[i];
    }
    return view;
}

bool next_index(bl_shape shape, int64_t *index)
{
    for (int i = shape.rank - 1; i >= 0; i--) {
        if (++index[i] < shape.dim[i])
            return true;
        index[i] = 0;
    }
    return false;
}

int64_t at_index(const bl_view *view, bl_shape shape, const int64_t *index)
{
    int64_t at = view->offset;
    for (int i = 0; i < shape.rank; i++)
        at += index[i] * view->stride[i];
    return at;
}

bl_lanes lanes_of(bl_shape shape, int axis)
{
    bl_lanes lanes = {1, shape.dim[axis], 1};
    for (int i = 0; i < axis; i++)
        lanes.outer *= shape.dim[i];
    for (int i = axis + 1; i < shape.rank; i++)
        lanes.inner *= shape.dim[i];
    return lanes;
}
