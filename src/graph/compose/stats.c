/* Composites: means, variances, norms, pooling. */
#define BL_KEEP_PLACE
#include "graph/build.h"

/* The number of elements that a reduction over `axes` joins, or -1 after an error. */
static int64_t joined(const char *name, bl_tensor x, const int *axes)
{
    uint32_t set;
    if (!bl_need_tensor(name, x) || !bl_axis_set(name, x, axes, &set))
        return -1;
    if (bl_dtype_is_float(bl_type_of(x).dtype))
        return bl_shape_over(bl_type_of(x).shape, set);
    bl_poison(x.graph, "%s: operand must be f32 or f64, not %s; cast it", name,
              bl_show(bl_type_of(x)));
    return -1;
}

bl_tensor(bl_mean_over)(bl_tensor x, const int *axes)
{
    if (bl_is_number(x) && axes[0] == BL_END)
        return x;
    int64_t count = joined("mean", x, axes);
    return count < 0 ? bl_poisoned(x.graph) : bl_div(bl_sum_over(x, axes), (double)count);
}

bl_tensor(bl_mean_over_keep)(bl_tensor x, const int *axes)
{
    if (bl_is_number(x) && axes[0] == BL_END)
        return x;
    int64_t count = joined("mean", x, axes);
    return count < 0 ? bl_poisoned(x.graph) : bl_div(bl_sum_over_keep(x, axes), (double)count);
}

/* The mean first, then the squares about it: no cancellation. */
bl_tensor(bl_variance_over)(bl_tensor x, const int *axes)
{
    return bl_mean_over(bl_square(bl_sub(x, bl_mean_over_keep(x, axes))), axes);
}

bl_tensor(bl_variance_over_keep)(bl_tensor x, const int *axes)
{
    return bl_mean_over_keep(bl_square(bl_sub(x, bl_mean_over_keep(x, axes))), axes);
}

/* --- norms: sqrt has derivative 0 at 0, and so have they ---------------------------------------
 */

bl_tensor(bl_norm)(bl_tensor x, int axis)
{
    return bl_sqrt(bl_sum(bl_square(x), axis));
}

bl_tensor(bl_norm_keep)(bl_tensor x, int axis)
{
    return bl_sqrt(bl_sum_keep(bl_square(x), axis));
}

bl_tensor(bl_unit_rows)(bl_tensor x, double floor)
{
    return bl_div(x, bl_max(bl_norm_keep(x, -1), floor));
}

bl_tensor(bl_global_norm)(const bl_tensor *x, int count)
{
    bl_tensor total = bl_number(0);
    for (int i = 0; i < count; i++)
        total = i ? bl_add(total, bl_sum(bl_square(x[i]))) : bl_sum(bl_square(x[i]));
    return bl_sqrt(total);
}

/* --- pooling -----------------------------------------------------------------------------------
 */

bl_tensor(bl_max_pool2)(bl_tensor x)
{
    if (!bl_need_tensor("max_pool2", x))
        return bl_poisoned(x.graph);
    bl_type type = bl_type_of(x);
    const int64_t *d = type.shape.dim;
    if (type.shape.rank != 4 || d[1] % 2 || d[2] % 2)
        return bl_poison(x.graph, "max_pool2: needs [B,H,W,C] with H and W even, not %s",
                         bl_show(type));
    bl_shape windows = BL_SHAPE(d[0], d[1] / 2, 2, d[2] / 2, 2, d[3]);
    return bl_reduce_max(bl_reshape(x, windows), 2, 4);
}
