/* Indexing, joining and padding: copies of rows. An index out of range is an error that says
 * which. */
#include <string.h>

#include "exec/cpu/cpu.h"

static bl_status check_index(const bl_node *node, const int32_t *index, int64_t count, int64_t rows)
{
    uint32_t worst = 0; /* a negative index is a large unsigned one */
    for (int64_t i = 0; i < count; i++)
        worst = (uint32_t)index[i] > worst ? (uint32_t)index[i] : worst;
    if (worst < (uint64_t)rows)
        return BL_OK;
    for (int64_t i = 0; i < count; i++)
        if (index[i] < 0 || index[i] >= rows)
            return bl_index_error(node, i, index[i], rows);
    return BL_OK;
}

static bl_type operand_type(const cpu_plan *plan, const bl_node *node, int i)
{
    return cpu_node(plan, node->operand[i])->type;
}

static int64_t product(bl_shape shape, int first, int end)
{
    int64_t count = 1;
    for (int i = first; i < end; i++)
        count *= shape.dim[i];
    return count;
}

static size_t row_bytes(bl_type type)
{
    return (size_t)product(type.shape, 1, type.shape.rank) * bl_dtype_size(type.dtype);
}

bool cpu_is_fill(const cpu_view *view)
{
    for (int i = 0; i < view->rank; i++)
        if (view->stride[i] != 0 && view->dim[i] != 1)
            return false;
    return true;
}

/* The result starts as operand 0: where it is already, one value repeated, or a copy. */
static void start_as_operand(const cpu_plan *plan, const bl_node *node, void *z)
{
    cpu_view view = cpu_operand_view(plan, node, 0);
    const void *x = cpu_operand(plan, node, 0);
    if (x == z)
        return;
    if (cpu_is_fill(&view))
        plan->loops->spread[bl_dtype_size(node->type.dtype)](z, x, 1, bl_type_count(node->type));
    else
        memcpy(z, x, bl_type_bytes(node->type));
}

/* --- rows ------------------------------------------------------------------------------------- */

static bl_status run_take(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_type x = operand_type(plan, node, 0);
    const char *from = cpu_operand(plan, node, 0);
    const int32_t *index = cpu_operand(plan, node, 1);
    char *z = plan->address[kernel->node];
    int64_t count = bl_type_count(operand_type(plan, node, 1));
    size_t bytes = row_bytes(x);
    BL_TRY(check_index(node, index, count, x.shape.dim[0]));
    for (int64_t i = 0; i < count && bytes > 0; i++)
        memcpy(z + (size_t)i * bytes, from + (size_t)index[i] * bytes, bytes);
    return BL_OK;
}

static bl_status run_put(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const int32_t *index = cpu_operand(plan, node, 1);
    const char *rows = cpu_operand(plan, node, 2);
    char *z = plan->address[kernel->node];
    int64_t count = bl_type_count(operand_type(plan, node, 1));
    size_t bytes = row_bytes(node->type);
    BL_TRY(check_index(node, index, count, node->type.shape.dim[0]));
    start_as_operand(plan, node, z);
    for (int64_t i = 0; i < count && bytes > 0; i++)
        memcpy(z + (size_t)index[i] * bytes, rows + (size_t)i * bytes, bytes);
    return BL_OK;
}

static bl_status run_add_at(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const int32_t *index = cpu_operand(plan, node, 1);
    const char *rows = cpu_operand(plan, node, 2);
    char *z = plan->address[kernel->node];
    int64_t count = bl_type_count(operand_type(plan, node, 1));
    int64_t row = product(node->type.shape, 1, node->type.shape.rank);
    size_t bytes = row_bytes(node->type);
    bl_loop *add = plan->loops->binary[BL_OP_add][node->type.dtype][BL_VV];
    BL_TRY(check_index(node, index, count, node->type.shape.dim[0]));
    start_as_operand(plan, node, z);
    for (int64_t i = 0; i < count; i++) {
        char *to = z + (size_t)index[i] * bytes;
        add(to, to, rows + (size_t)i * bytes, to, row);
    }
    return BL_OK;
}

/* --- along an axis ---------------------------------------------------------------------------- */

typedef struct lanes {
    int64_t outer, length, inner, from; /* length: of the index; from: of x */
} lanes;

static lanes lanes_of(const cpu_plan *plan, const bl_node *node)
{
    bl_shape x = operand_type(plan, node, 0).shape, index = operand_type(plan, node, 1).shape;
    int axis = node->attr->axis;
    return (lanes){product(x, 0, axis), index.dim[axis], product(x, axis + 1, x.rank), x.dim[axis]};
}

#define TAKE_ALONG(T)                                                                              \
    for (int64_t o = 0; o < s.outer; o++)                                                          \
        for (int64_t l = 0; l < s.length; l++)                                                     \
            for (int64_t i = 0; i < s.inner; i++, at++)                                            \
    ((T *)z)[at] = ((const T *)x)[(o * s.from + index[at]) * s.inner + i]

static bl_status run_take_along(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const void *x = cpu_operand(plan, node, 0);
    const int32_t *index = cpu_operand(plan, node, 1);
    void *z = plan->address[kernel->node];
    lanes s = lanes_of(plan, node);
    int64_t at = 0;
    BL_TRY(check_index(node, index, bl_type_count(operand_type(plan, node, 1)), s.from));
    switch (bl_dtype_size(node->type.dtype)) {
    case 1:
        TAKE_ALONG(uint8_t);
        break;
    case 4:
        TAKE_ALONG(uint32_t);
        break;
    default:
        TAKE_ALONG(uint64_t);
    }
    return BL_OK;
}

#define ADD_ALONG(T)                                                                               \
    for (int64_t o = 0; o < s.outer; o++)                                                          \
        for (int64_t l = 0; l < s.length; l++)                                                     \
            for (int64_t i = 0; i < s.inner; i++, at++)                                            \
    ((T *)z)[(o * s.from + index[at]) * s.inner + i] += ((const T *)updates)[at]

static bl_status run_add_along(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const int32_t *index = cpu_operand(plan, node, 1);
    const void *updates = cpu_operand(plan, node, 2);
    void *z = plan->address[kernel->node];
    lanes s = lanes_of(plan, node);
    int64_t at = 0;
    BL_TRY(check_index(node, index, bl_type_count(operand_type(plan, node, 1)), s.from));
    start_as_operand(plan, node, z);
    switch (node->type.dtype) {
    case BL_F32:
        ADD_ALONG(float);
        break;
    case BL_F64:
        ADD_ALONG(double);
        break;
    default:
        ADD_ALONG(uint32_t);
    }
    return BL_OK;
}

/* --- joining and padding ---------------------------------------------------------------------- */

static bl_status run_concat(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    int axis = node->attr->axis;
    size_t size = bl_dtype_size(node->type.dtype);
    int64_t outer = product(node->type.shape, 0, axis);
    size_t row = (size_t)product(node->type.shape, axis, node->type.shape.rank) * size;
    char *z = plan->address[kernel->node];
    for (int i = 0; i < node->operands; i++) {
        bl_shape shape = operand_type(plan, node, i).shape;
        size_t bytes = (size_t)product(shape, axis, shape.rank) * size;
        const char *x = cpu_operand(plan, node, i);
        for (int64_t o = 0; o < outer && bytes > 0; o++)
            memcpy(z + (size_t)o * row, x + (size_t)o * bytes, bytes);
        z += bytes;
    }
    return BL_OK;
}

/* The last axis is copied in one piece where nothing goes between its elements. */
static void copy_lane(const bl_node *node, const char *x, char *z, int64_t count, size_t size)
{
    int last = node->type.shape.rank - 1;
    int64_t step = node->attr->c[last] + 1;
    z += node->attr->a[last] * (int64_t)size;
    if (step == 1) {
        memcpy(z, x, (size_t)count * size);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        memcpy(z + i * step * (int64_t)size, x + i * (int64_t)size, size);
}

static void fill(const cpu_plan *plan, const bl_node *node, void *z)
{
    uint64_t cell = 0;
    bl_array one = {{node->type.dtype, BL_SCALAR}, &cell};
    bl_array_set(&one, 0, node->attr->value);
    plan->loops->spread[bl_dtype_size(node->type.dtype)](z, &cell, 1, bl_type_count(node->type));
}

static bl_status run_pad(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_shape x = operand_type(plan, node, 0).shape, to = node->type.shape;
    const char *from = cpu_operand(plan, node, 0);
    char *z = plan->address[kernel->node];
    size_t size = bl_dtype_size(node->type.dtype);
    int last = x.rank - 1;
    fill(plan, node, z);
    int64_t index[BL_MAX_RANK] = {0}, lanes_left = product(x, 0, last);
    for (; lanes_left > 0 && x.dim[last] > 0; lanes_left--) {
        int64_t at = 0;
        for (int i = 0; i < last; i++)
            at = at * to.dim[i] + node->attr->a[i] + index[i] * (node->attr->c[i] + 1);
        copy_lane(node, from, z + at * to.dim[last] * (int64_t)size, x.dim[last], size);
        from += x.dim[last] * (int64_t)size;
        for (int i = last - 1; i >= 0 && ++index[i] == x.dim[i]; i--)
            index[i] = 0;
    }
    return BL_OK;
}

/* --- random bits ------------------------------------------------------------------------------ */

static bl_status run_random_bits(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const int64_t *a = node->attr->a;
    int64_t count = bl_type_count(node->type);
    const uint32_t *key = cpu_operand(plan, node, 0);
    uint32_t *z = plan->address[kernel->node], last[4];
    plan->loops->philox(key, (uint32_t)a[0], (uint32_t)a[1], (uint64_t)a[2], count / 4, z);
    if (count % 4) {
        plan->loops->philox(key, (uint32_t)a[0], (uint32_t)a[1],
                            (uint64_t)a[2] + (uint64_t)(count / 4), 1, last);
        memcpy(z + count / 4 * 4, last, (size_t)(count % 4) * sizeof *last);
    }
    return BL_OK;
}

/* --- the list --------------------------------------------------------------------------------- */

#define PREPARE(name, runs, place)                                                                 \
    bl_status cpu_prepare_##name(BL_UNUSED cpu_plan *plan, cpu_kernel *kernel,                     \
                                 BL_UNUSED const bl_node *node)                                    \
    {                                                                                              \
        if (!(runs))                                                                               \
            return BL_UNSUPPORTED;                                                                 \
        kernel->run = run_##name;                                                                  \
        kernel->how = #name;                                                                       \
        kernel->in_place = place;                                                                  \
        return BL_OK;                                                                              \
    }
PREPARE(take, true, false)
PREPARE(put, true, true)
PREPARE(add_at, bl_type_count(node->type) > 0, true)
PREPARE(take_along, true, false)
/* i8, u8 and bool are left to the reference loops. */
PREPARE(add_along, bl_type_count(node->type) > 0 && bl_dtype_size(node->type.dtype) >= 4, true)
PREPARE(concat, true, false)
PREPARE(pad, node->type.shape.rank > 0, false)
PREPARE(random_bits, true, false)
