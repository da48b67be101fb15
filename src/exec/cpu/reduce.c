/* Reductions that do not fuse: over axes in the middle or over rows too long for the cache, argmax,
 * argmin and running sums.
 *
 * The axes, joined where they are one in memory, are walked in order of the operand, a stretch of
 * the innermost at a time. Sums of f32 are added up in double. */
#include <math.h>
#include <string.h>

#include "exec/cpu/cpu.h"

typedef struct reduction {
    int kind; /* BL_SUM, .. */
    int rank;
    int64_t dim[BL_MAX_RANK], to[BL_MAX_RANK]; /* to: strides in the result, 0 on reduced axes */
    int64_t count;                             /* of the result */
} reduction;

/* Joins neighbours that are both reduced or both kept. */
static void join_axes(bl_shape x, uint32_t axes, reduction *r)
{
    bool before = false;
    for (int i = 0; i < x.rank; i++) {
        bool reduced = axes >> i & 1;
        if (x.dim[i] == 1)
            continue;
        if (r->rank > 0 && reduced == before) {
            r->dim[r->rank - 1] *= x.dim[i];
        } else {
            r->to[r->rank] = !reduced;
            r->dim[r->rank++] = x.dim[i];
        }
        before = reduced;
    }
    int64_t stride = 1;
    for (int i = r->rank - 1; i >= 0; i--)
        if (r->to[i]) {
            r->to[i] = stride;
            stride *= r->dim[i];
        }
    r->count = stride;
}

/* How much further in the result the next stretch goes; it takes the last `taken` axes. */
static int64_t next_stretch(const reduction *r, int taken, int64_t *index)
{
    int64_t step = 0;
    for (int i = r->rank - 1 - taken; i >= 0; i--) {
        step += r->to[i];
        if (++index[i] < r->dim[i])
            break;
        step -= r->to[i] * r->dim[i];
        index[i] = 0;
    }
    return step;
}

enum { LANES = 64 };

/* z[c] += x[r,c] for short rows: as many together as there are lanes. */
static void add_short_rows(double *z, const float *x, int64_t rows, int64_t n)
{
    double lane[LANES] = {0};
    int64_t width = LANES / n * n, all = rows * n, i = 0;
    for (; i + width <= all; i += width)
        for (int64_t l = 0; l < width; l++)
            lane[l] += (double)x[i + l];
    for (int64_t l = 0; i + l < all; l++)
        lane[l] += (double)x[i + l];
    for (int64_t l = 0; l < width; l++)
        z[l % n] += lane[l];
}

/* Joins a stretch into its place: `total` holds doubles for sums of reals, else elements. Of a kept
 * axis the stretch is `rows` rows, which come to the same place. */
static void join_stretch(const cpu_plan *plan, const reduction *r, bl_dtype dtype, const char *x,
                         char *total, bool kept, int64_t rows)
{
    int64_t n = r->dim[r->rank - 1];
    const bl_loops *loops = plan->loops;
    if (!kept) {
        uint64_t cell;
        loops->reduce_rows[r->kind][dtype](&cell, x, 1, n);
        if (r->kind == BL_SUM && dtype == BL_F32) {
            float sum;
            memcpy(&sum, &cell, sizeof sum);
            *(double *)(void *)total += (double)sum;
        } else {
            loops->reduce_columns[r->kind][dtype](total, &cell, 1, 1);
        }
    } else if (r->kind == BL_SUM && dtype == BL_F32) {
        double *z = (double *)(void *)total;
        const float *from = (const float *)(const void *)x;
        if (n <= LANES / 2) {
            add_short_rows(z, from, rows, n);
            return;
        }
        for (int64_t row = 0; row < rows; row++, from += n)
            for (int64_t i = 0; i < n; i++)
                z[i] += (double)from[i];
    } else {
        loops->reduce_columns[r->kind][dtype](total, x, rows, n);
    }
}

void cpu_fill_worst(bl_dtype dtype, int kind, void *z, int64_t n)
{
    bool largest = kind == BL_MAX;
    for (int64_t i = 0; i < n; i++)
        switch (dtype) {
        case BL_F32:
            ((float *)z)[i] = largest ? -INFINITY : INFINITY;
            break;
        case BL_F64:
            ((double *)z)[i] = largest ? -(double)INFINITY : (double)INFINITY;
            break;
        case BL_I32:
            ((int32_t *)z)[i] = largest ? INT32_MIN : INT32_MAX;
            break;
        default:
            ((uint32_t *)z)[i] = largest ? 0 : UINT32_MAX;
        }
}

static bl_status run_reduce(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_type type = cpu_node(plan, node->operand[0])->type;
    reduction r = {.kind = cpu_reduction_index(node->op)};
    join_axes(type.shape, node->attr->axes, &r);
    bool wide = r.kind == BL_SUM && type.dtype == BL_F32;
    int64_t size = (int64_t)bl_dtype_size(type.dtype), wide_size = wide ? 8 : size;
    char *z = plan->address[kernel->node], *total = wide ? plan->scratch : z;
    const char *x = cpu_operand(plan, node, 0);
    int last = r.rank - 1;
    if (r.kind == BL_SUM)
        memset(total, 0, (size_t)(r.count * wide_size));
    else
        cpu_fill_worst(type.dtype, r.kind, total, r.count);
    bool kept = r.to[last] != 0;
    int64_t rows = kept && last > 0 ? r.dim[last - 1] : 1, stretch = rows * r.dim[last];
    int64_t index[BL_MAX_RANK] = {0}, at = 0, stretches = bl_type_count(type) / stretch;
    for (; stretches > 0; stretches--, x += stretch * size) {
        join_stretch(plan, &r, type.dtype, x, total + at * wide_size, kept, rows);
        at += next_stretch(&r, kept && last > 0 ? 2 : 1, index);
    }
    for (int64_t i = 0; wide && i < r.count; i++)
        ((float *)(void *)z)[i] = (float)((const double *)(void *)total)[i];
    return BL_OK;
}

bl_status cpu_prepare_reduce(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_type x = cpu_node(plan, node->operand[0])->type;
    if (bl_type_count(x) == 0 || !plan->loops->reduce_rows[cpu_reduction_index(node->op)][x.dtype])
        return BL_UNSUPPORTED;
    size_t scratch = (size_t)bl_type_count(node->type) * sizeof(double);
    if (scratch > plan->scratch_bytes)
        plan->scratch_bytes = scratch;
    kernel->run = run_reduce;
    kernel->how = "reduce";
    return BL_OK;
}

/* --- products --------------------------------------------------------------------------------- */

/* In the reference executor's order, so that a product leaves the range where its does: reals in
 * double, integers modulo 2^32. */
#define MULTIPLY(T, W)                                                                             \
    {                                                                                              \
        const T *from = (const T *)x;                                                              \
        W *total = (W *)scratch + at;                                                              \
        if (kept) {                                                                                \
            for (int64_t i = 0; i < n; i++) {                                                      \
                W factor = (W)from[i];                                                             \
                total[i] *= factor;                                                                \
            }                                                                                      \
            break;                                                                                 \
        }                                                                                          \
        W product = *total;                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                          \
            W factor = (W)from[i];                                                                 \
            product *= factor;                                                                     \
        }                                                                                          \
        *total = product;                                                                          \
        break;                                                                                     \
    }

static void multiply_stretch(bl_dtype dtype, const void *x, int64_t n, bool kept, void *scratch,
                             int64_t at)
{
    switch (dtype) {
    case BL_F32:
        MULTIPLY(float, double)
    case BL_F64:
        MULTIPLY(double, double)
    case BL_I8:
        MULTIPLY(int8_t, uint32_t)
    case BL_U8:
        MULTIPLY(uint8_t, uint32_t)
    default:
        MULTIPLY(uint32_t, uint32_t)
    }
}

static void store_products(bl_dtype dtype, const void *scratch, int64_t n, void *z)
{
    for (int64_t i = 0; i < n; i++)
        switch (dtype) {
        case BL_F32:
            ((float *)z)[i] = (float)((const double *)scratch)[i];
            break;
        case BL_F64:
            ((double *)z)[i] = ((const double *)scratch)[i];
            break;
        case BL_I8:
        case BL_U8:
            ((uint8_t *)z)[i] = (uint8_t)((const uint32_t *)scratch)[i];
            break;
        default:
            ((uint32_t *)z)[i] = ((const uint32_t *)scratch)[i];
        }
}

static bl_status run_product(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_type type = cpu_node(plan, node->operand[0])->type;
    reduction r = {0};
    join_axes(type.shape, node->attr->axes, &r);
    const char *x = cpu_operand(plan, node, 0);
    int64_t n = r.rank ? r.dim[r.rank - 1] : 1, index[BL_MAX_RANK] = {0}, at = 0;
    bool kept = r.rank && r.to[r.rank - 1];
    for (int64_t i = 0; i < r.count; i++)
        if (bl_dtype_is_float(type.dtype))
            ((double *)(void *)plan->scratch)[i] = 1;
        else
            ((uint32_t *)(void *)plan->scratch)[i] = 1;
    for (int64_t left = bl_type_count(type) / n; left > 0; left--) {
        multiply_stretch(type.dtype, x, n, kept, plan->scratch, at);
        x += n * (int64_t)bl_dtype_size(type.dtype);
        at += next_stretch(&r, 1, index);
    }
    store_products(type.dtype, plan->scratch, r.count, plan->address[kernel->node]);
    return BL_OK;
}

bl_status cpu_prepare_product(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    if (bl_type_count(cpu_node(plan, node->operand[0])->type) == 0)
        return BL_UNSUPPORTED;
    size_t scratch = (size_t)bl_type_count(node->type) * sizeof(double);
    if (scratch > plan->scratch_bytes)
        plan->scratch_bytes = scratch;
    kernel->run = run_product;
    kernel->how = "product";
    return BL_OK;
}

/* --- along one axis --------------------------------------------------------------------------- */

/* The first of the largest (or smallest); NaN beats all. */
#define FIRST_BEST(T)                                                                              \
    {                                                                                              \
        const T *from = (const T *)x + first;                                                      \
        T best = from[0];                                                                          \
        for (int64_t l = 1; l < length; l++) {                                                     \
            T y = from[l * inner];                                                                 \
            if (best == best && (y != y || (largest ? y > best : y < best)))                       \
                best = y, at = l;                                                                  \
        }                                                                                          \
    }

static bl_status run_arg(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_type type = cpu_node(plan, node->operand[0])->type;
    const void *x = cpu_operand(plan, node, 0);
    int32_t *z = plan->address[kernel->node];
    bool largest = node->op == BL_OP_argmax;
    int64_t length = type.shape.dim[node->attr->axis], inner = 1;
    for (int i = node->attr->axis + 1; i < type.shape.rank; i++)
        inner *= type.shape.dim[i];
    for (int64_t lane = 0; lane < bl_type_count(node->type); lane++) {
        int64_t first = lane / inner * length * inner + lane % inner, at = 0;
        switch (type.dtype) {
        case BL_F32:
            FIRST_BEST(float)
            break;
        case BL_F64:
            FIRST_BEST(double)
            break;
        case BL_I32:
            FIRST_BEST(int32_t)
            break;
        default:
            FIRST_BEST(uint32_t)
        }
        z[lane] = (int32_t)at;
    }
    return BL_OK;
}

bl_status cpu_prepare_arg(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_type x = cpu_node(plan, node->operand[0])->type;
    if (bl_type_count(x) == 0 || bl_dtype_size(x.dtype) < 4)
        return BL_UNSUPPORTED;
    kernel->run = run_arg;
    kernel->how = bl_op_name(node->op);
    return BL_OK;
}

#define RUNNING_SUM(T, W)                                                                          \
    {                                                                                              \
        W sum = 0;                                                                                 \
        for (int64_t l = 0; l < length; l++) {                                                     \
            sum += (W)((const T *)x)[first + l * inner];                                           \
            ((T *)z)[first + l * inner] = (T)sum;                                                  \
        }                                                                                          \
    }

static bl_status run_cumsum(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const void *x = cpu_operand(plan, node, 0);
    void *z = plan->address[kernel->node];
    int64_t length = node->type.shape.dim[node->attr->axis], inner = 1;
    for (int i = node->attr->axis + 1; i < node->type.shape.rank; i++)
        inner *= node->type.shape.dim[i];
    int64_t lanes = bl_type_count(node->type) / length;
    for (int64_t lane = 0; lane < lanes; lane++) {
        int64_t first = lane / inner * length * inner + lane % inner;
        if (node->type.dtype == BL_F32)
            RUNNING_SUM(float, double)
        else if (node->type.dtype == BL_F64)
            RUNNING_SUM(double, double)
        else
            RUNNING_SUM(uint32_t, uint32_t)
    }
    return BL_OK;
}

bl_status cpu_prepare_cumsum(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    (void)plan;
    if (bl_type_count(node->type) == 0 || bl_dtype_size(node->type.dtype) < 4)
        return BL_UNSUPPORTED;
    kernel->run = run_cumsum;
    kernel->how = "cumsum";
    return BL_OK;
}
