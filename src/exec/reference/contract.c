/* Contractions, on wide copies of the operands, and windows. */
#include "exec/reference/reference.h"

#include <string.h>

bl_shape window_places(const bl_conv_sizes *s)
{
    return BL_SHAPE(s->batch, s->result[0], s->result[1], s->window[0], s->window[1]);
}

int64_t pixel_under(const bl_conv_sizes *s, const int64_t *place)
{
    int64_t row = place[1] * s->stride[0] + place[3] * s->dilation[0] - s->low[0];
    int64_t column = place[2] * s->stride[1] + place[4] * s->dilation[1] - s->low[1];
    if (row < 0 || row >= s->image[0] || column < 0 || column >= s->image[1])
        return -1;
    return (place[0] * s->image[0] + row) * s->image[1] + column;
}

bl_status reference_dot(const bl_call *call)
{
    bl_type a = operand_type(call, 0), b = operand_type(call, 1), z = call->node->type;
    const bl_attr *attr = call->node->attr;
    const bl_ring *ring = ring_of(a.dtype);
    int rank = z.shape.rank;
    bl_dot_sizes sizes = {.batch = 1,
                          .m = z.shape.dim[rank - 2],
                          .k = a.shape.dim[rank - (attr->flag ? 2 : 1)],
                          .n = z.shape.dim[rank - 1],
                          .transpose_a = attr->flag,
                          .transpose_b = attr->flag2};
    for (int i = 0; i < rank - 2; i++)
        sizes.batch *= z.shape.dim[i];
    uint64_t *wide_a = call->scratch, *wide_b = wide_a + bl_type_count(a);
    uint64_t *result = wide_b + bl_type_count(b);
    widen(a.dtype, operand(call, 0), bl_type_count(a), wide_a);
    widen(b.dtype, operand(call, 1), bl_type_count(b), wide_b);
    ring->fill(result, bl_type_count(z), 0);
    ring->dot(wide_a, wide_b, &sizes, result);
    narrow(z.dtype, result, bl_type_count(z), call->result);
    return BL_OK;
}

static bl_conv_sizes conv_sizes(bl_shape x, bl_shape w, bl_shape z, const bl_conv_options *options)
{
    return (bl_conv_sizes){
        .batch = x.dim[0],
        .image = {x.dim[1], x.dim[2]},
        .inputs = x.dim[3],
        .window = {w.dim[0], w.dim[1]},
        .outputs = w.dim[3],
        .result = {z.dim[1], z.dim[2]},
        .stride = {options->stride[0], options->stride[1]},
        .dilation = {options->dilation[0], options->dilation[1]},
        .low = {options->low[0], options->low[1]},
        .groups = options->groups,
    };
}

/* The arrays of a convolution, and which operand each is; -1 is the result. */
enum { IMAGE, FILTER, OUTPUT };
typedef int bl_roles[3];

static bl_status convolve(const bl_call *call, const bl_roles role)
{
    bl_dtype dtype = call->node->type.dtype;
    const bl_ring *ring = ring_of(dtype);
    bl_type type[3];
    uint64_t *wide[3], *free_space = call->scratch, *result = NULL;
    for (int i = 0; i < 3; i++) {
        type[i] = role[i] < 0 ? call->node->type : operand_type(call, role[i]);
        wide[i] = free_space;
        free_space += bl_type_count(type[i]);
        if (role[i] >= 0)
            widen(dtype, operand(call, role[i]), bl_type_count(type[i]), wide[i]);
        else
            ring->fill(result = wide[i], bl_type_count(type[i]), 0);
    }
    bl_conv_sizes sizes = conv_sizes(type[IMAGE].shape, type[FILTER].shape, type[OUTPUT].shape,
                                     &call->node->attr->conv);
    ring->conv(call->node->op, &sizes, wide[IMAGE], wide[FILTER], wide[OUTPUT]);
    narrow(dtype, result, bl_type_count(call->node->type), call->result);
    return BL_OK;
}

bl_status reference_conv(const bl_call *call)
{
    return convolve(call, (const bl_roles){[IMAGE] = 0, [FILTER] = 1, [OUTPUT] = -1});
}

bl_status reference_conv_dw(const bl_call *call)
{
    return convolve(call, (const bl_roles){[IMAGE] = 0, [FILTER] = -1, [OUTPUT] = 1});
}

bl_status reference_conv_dx(const bl_call *call)
{
    return convolve(call, (const bl_roles){[IMAGE] = -1, [FILTER] = 1, [OUTPUT] = 0});
}

/* --- windows -----------------------------------------------------------------------------------
 */

static bl_conv_sizes window_sizes(bl_shape image, bl_shape windows, const bl_conv_options *options)
{
    bl_shape filter = BL_SHAPE(windows.dim[3], windows.dim[4], image.dim[3], 0);
    return conv_sizes(image, filter, windows, options);
}

bl_status reference_patches(const bl_call *call)
{
    bl_conv_sizes sizes =
        window_sizes(operand_type(call, 0).shape, call->node->type.shape, &call->node->attr->conv);
    bl_shape places = window_places(&sizes);
    size_t bytes = (size_t)sizes.inputs * bl_dtype_size(call->node->type.dtype);
    int64_t place[BL_MAX_RANK] = {0}, count = bl_shape_count(places);
    const char *image = operand(call, 0);
    char *to = call->result;
    for (int64_t n = 0; n < count && bytes > 0; n++, to += bytes, next_index(places, place)) {
        int64_t pixel = pixel_under(&sizes, place);
        if (pixel < 0)
            memset(to, 0, bytes);
        else
            memcpy(to, image + (size_t)pixel * bytes, bytes);
    }
    return BL_OK;
}

bl_status reference_fold(const bl_call *call)
{
    bl_type windows = operand_type(call, 0), image = call->node->type;
    const bl_ring *ring = ring_of(image.dtype);
    bl_conv_sizes sizes = window_sizes(image.shape, windows.shape, &call->node->attr->conv);
    uint64_t *wide = call->scratch, *result = wide + bl_type_count(windows);
    widen(windows.dtype, operand(call, 0), bl_type_count(windows), wide);
    ring->fill(result, bl_type_count(image), 0);
    ring->fold(&sizes, wide, result);
    narrow(image.dtype, result, bl_type_count(image), call->result);
    return BL_OK;
}
