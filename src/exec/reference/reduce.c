/* Reductions: sums and products in double, or modulo 2^64 for integers; extremes in double. */
#include "exec/reference/reference.h"

#include <math.h>

/* Where each element of the operand goes in the result. */
static bl_view reduced_view(bl_shape shape, uint32_t axes)
{
    bl_view view = {0};
    int64_t stride = 1;
    for (int i = shape.rank - 1; i >= 0; i--)
        if (!(axes >> i & 1)) {
            view.stride[i] = stride;
            stride *= shape.dim[i];
        }
    return view;
}

static bl_status add_or_multiply(const bl_call *call, bool product)
{
    bl_type x = operand_type(call, 0), z = call->node->type;
    const bl_ring *ring = ring_of(x.dtype);
    uint64_t *wide = call->scratch, *result = wide + bl_type_count(x);
    widen(x.dtype, operand(call, 0), bl_type_count(x), wide);
    ring->fill(result, bl_type_count(z), product);
    ring->reduce(wide, x.shape, reduced_view(x.shape, call->node->attr->axes), product, result);
    narrow(z.dtype, result, bl_type_count(z), call->result);
    return BL_OK;
}

bl_status reference_sum(const bl_call *call)
{
    return add_or_multiply(call, false);
}
bl_status reference_prod(const bl_call *call)
{
    return add_or_multiply(call, true);
}

bl_status reference_cumsum(const bl_call *call)
{
    bl_type x = operand_type(call, 0);
    widen(x.dtype, operand(call, 0), bl_type_count(x), call->scratch);
    ring_of(x.dtype)->running_sum(call->scratch, lanes_of(x.shape, call->node->attr->axis));
    narrow(x.dtype, call->scratch, bl_type_count(x), call->result);
    return BL_OK;
}

/* The value that every other beats, for axes of size 0. */
static double worst(bl_dtype dtype, bool largest)
{
    switch (dtype) {
    case BL_F32:
    case BL_F64:
        return largest ? -INFINITY : INFINITY;
    case BL_I32:
        return largest ? INT32_MIN : INT32_MAX;
    case BL_U32:
        return largest ? 0 : UINT32_MAX;
    case BL_I8:
        return largest ? INT8_MIN : INT8_MAX;
    case BL_U8:
        return largest ? 0 : UINT8_MAX;
    default:
        return largest ? 0 : 1;
    }
}

/* Whether x replaces the best so far: the first of equals stays, and NaN beats all. */
static bool beats(double x, double best, bool largest)
{
    return !isnan(best) && (isnan(x) || (largest ? x > best : x < best));
}

static bl_status extreme(const bl_call *call, bool largest)
{
    bl_type x = operand_type(call, 0), z = call->node->type;
    double *wide = (double *)call->scratch, *result = wide + bl_type_count(x);
    bl_view view = reduced_view(x.shape, call->node->attr->axes);
    int64_t index[BL_MAX_RANK] = {0}, count = bl_type_count(x);
    load_doubles(x.dtype, operand(call, 0), 0, count, wide);
    for (int64_t i = 0; i < bl_type_count(z); i++)
        result[i] = worst(x.dtype, largest);
    for (int64_t i = 0; i < count; i++, next_index(x.shape, index)) {
        double *best = result + at_index(&view, x.shape, index);
        if (beats(wide[i], *best, largest))
            *best = wide[i];
    }
    store_doubles(z.dtype, result, 0, bl_type_count(z), call->result);
    return BL_OK;
}

bl_status reference_reduce_max(const bl_call *call)
{
    return extreme(call, true);
}
bl_status reference_reduce_min(const bl_call *call)
{
    return extreme(call, false);
}

static bl_status extreme_index(const bl_call *call, bool largest)
{
    bl_type x = operand_type(call, 0);
    bl_lanes lanes = lanes_of(x.shape, call->node->attr->axis);
    double *wide = (double *)call->scratch;
    int32_t *result = call->result;
    load_doubles(x.dtype, operand(call, 0), 0, bl_type_count(x), wide);
    for (int64_t o = 0; o < lanes.outer; o++)
        for (int64_t i = 0; i < lanes.inner; i++) {
            const double *lane = wide + o * lanes.length * lanes.inner + i;
            int64_t best = 0;
            for (int64_t l = 1; l < lanes.length; l++)
                if (beats(lane[l * lanes.inner], lane[best * lanes.inner], largest))
                    best = l;
            result[o * lanes.inner + i] = (int32_t)best;
        }
    return BL_OK;
}

bl_status reference_argmax(const bl_call *call)
{
    return extreme_index(call, true);
}
bl_status reference_argmin(const bl_call *call)
{
    return extreme_index(call, false);
}
