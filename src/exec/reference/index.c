/* Indexing. An index out of range is an error that says which, and in which node. */
#include "exec/reference/reference.h"

#include <math.h>
#include <string.h>

static bl_status check_index(const bl_call *call, int64_t rows)
{
    const int32_t *index = operand(call, 1);
    int64_t count = bl_type_count(operand_type(call, 1));
    for (int64_t i = 0; i < count; i++)
        if (index[i] < 0 || index[i] >= rows)
            return bl_index_error(call->node, i, index[i], rows);
    return BL_OK;
}

/* Elements of a row x[i,..]. */
static int64_t row_elements(bl_shape shape)
{
    int64_t count = 1;
    for (int i = 1; i < shape.rank; i++)
        count *= shape.dim[i];
    return count;
}

static void copy_row(void *to, int64_t to_row, const void *from, int64_t from_row, size_t bytes)
{
    if (bytes > 0)
        memcpy((char *)to + (size_t)to_row * bytes, (const char *)from + (size_t)from_row * bytes,
               bytes);
}

bl_status reference_take(const bl_call *call)
{
    bl_type x = operand_type(call, 0);
    const int32_t *index = operand(call, 1);
    size_t bytes = (size_t)row_elements(x.shape) * bl_dtype_size(x.dtype);
    BL_TRY(check_index(call, x.shape.dim[0]));
    int64_t count = bl_type_count(operand_type(call, 1));
    for (int64_t i = 0; i < count; i++)
        copy_row(call->result, i, operand(call, 0), index[i], bytes);
    return BL_OK;
}

bl_status reference_put(const bl_call *call)
{
    bl_type x = operand_type(call, 0);
    const int32_t *index = operand(call, 1);
    size_t bytes = (size_t)row_elements(x.shape) * bl_dtype_size(x.dtype);
    BL_TRY(check_index(call, x.shape.dim[0]));
    copy_row(call->result, 0, operand(call, 0), 0, bl_type_bytes(x));
    int64_t count = bl_type_count(operand_type(call, 1));
    for (int64_t i = 0; i < count; i++)
        copy_row(call->result, index[i], operand(call, 2), i, bytes);
    return BL_OK;
}

bl_status reference_add_at(const bl_call *call)
{
    bl_type x = operand_type(call, 0), rows = operand_type(call, 2);
    BL_TRY(check_index(call, x.shape.dim[0]));
    uint64_t *wide = call->scratch, *wide_rows = wide + bl_type_count(x);
    widen(x.dtype, operand(call, 0), bl_type_count(x), wide);
    widen(x.dtype, operand(call, 2), bl_type_count(rows), wide_rows);
    ring_of(x.dtype)->add_rows(wide, operand(call, 1), wide_rows,
                               bl_type_count(operand_type(call, 1)), row_elements(x.shape));
    narrow(x.dtype, wide, bl_type_count(x), call->result);
    return BL_OK;
}

bl_status reference_take_along(const bl_call *call)
{
    bl_type x = operand_type(call, 0);
    int axis = call->node->attr->axis;
    const int32_t *index = operand(call, 1);
    size_t size = bl_dtype_size(x.dtype);
    bl_lanes lanes = lanes_of(call->node->type.shape, axis);
    BL_TRY(check_index(call, x.shape.dim[axis]));
    int64_t at = 0;
    for (int64_t o = 0; o < lanes.outer; o++)
        for (int64_t l = 0; l < lanes.length; l++)
            for (int64_t i = 0; i < lanes.inner; i++, at++)
                copy_row(call->result, at, operand(call, 0),
                         (o * x.shape.dim[axis] + index[at]) * lanes.inner + i, size);
    return BL_OK;
}

bl_status reference_add_along(const bl_call *call)
{
    bl_type x = operand_type(call, 0), updates = operand_type(call, 2);
    int axis = call->node->attr->axis;
    BL_TRY(check_index(call, x.shape.dim[axis]));
    uint64_t *wide = call->scratch, *wide_updates = wide + bl_type_count(x);
    widen(x.dtype, operand(call, 0), bl_type_count(x), wide);
    widen(x.dtype, operand(call, 2), bl_type_count(updates), wide_updates);
    ring_of(x.dtype)->add_along(wide, operand(call, 1), wide_updates, lanes_of(updates.shape, axis),
                                x.shape.dim[axis]);
    narrow(x.dtype, wide, bl_type_count(x), call->result);
    return BL_OK;
}

/* Strictly before in ascending order, NaN last; descending is the same with a and b exchanged. */
static bool before(double a, double b)
{
    return a < b || (isnan(b) && !isnan(a));
}

/* Merges two sorted runs of element numbers; at a tie the left run comes first: stable. */
static void merge(const double *x, bool descending, const int32_t *left, int64_t lefts,
                  const int32_t *right, int64_t rights, int32_t *out)
{
    while (lefts > 0 || rights > 0) {
        bool take_right = lefts == 0;
        if (lefts > 0 && rights > 0)
            take_right = descending ? before(x[*left], x[*right]) : before(x[*right], x[*left]);
        if (take_right)
            *out++ = *right++, rights--;
        else
            *out++ = *left++, lefts--;
    }
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Bottom-up merge sort; returns whichever of the two buffers holds the order. */
static const int32_t *sort(const double *x, int64_t count, bool descending, int32_t *order,
                           int32_t *other)
{
    for (int64_t i = 0; i < count; i++)
        order[i] = (int32_t)i;
    for (int64_t run = 1; run < count; run *= 2) {
        for (int64_t start = 0; start < count; start += 2 * run) {
            int64_t lefts = smaller(run, count - start),
                    rights = smaller(run, count - start - lefts);
            merge(x, descending, order + start, lefts, order + start + lefts, rights,
                  other + start);
        }
        int32_t *sorted = other;
        other = order;
        order = sorted;
    }
    return order;
}

bl_status reference_argsort(const bl_call *call)
{
    bl_lanes lanes = lanes_of(call->node->type.shape, call->node->attr->axis);
    double *lane = (double *)call->scratch;
    int32_t *order = (int32_t *)(lane + lanes.length), *result = call->result;
    for (int64_t o = 0; o < lanes.outer; o++)
        for (int64_t i = 0; i < lanes.inner; i++) {
            int64_t first = o * lanes.length * lanes.inner + i;
            for (int64_t l = 0; l < lanes.length; l++)
                load_doubles(operand_type(call, 0).dtype, operand(call, 0), first + l * lanes.inner,
                             1, lane + l);
            const int32_t *sorted =
                sort(lane, lanes.length, call->node->attr->flag, order, order + lanes.length);
            for (int64_t l = 0; l < lanes.length; l++)
                result[first + l * lanes.inner] = sorted[l];
        }
    return BL_OK;
}
