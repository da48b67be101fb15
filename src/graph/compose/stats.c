/* Composites: means, variances, norms, normalisation. */
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

bl_tensor(bl_inner)(bl_tensor a, bl_tensor b)
{
    return bl_sum(bl_mul(a, b));
}

bl_tensor(bl_length)(bl_tensor x)
{
    return bl_sqrt(bl_sum(bl_square(x)));
}

bl_tensor(bl_unit_rows)(bl_tensor x, bl_tensor floor)
{
    return bl_div(x, bl_max(bl_norm_keep(x, -1), floor));
}

bl_tensor(bl_square_distances)(bl_tensor a, bl_tensor b)
{
    if (!bl_need_tensor("square_distances", a) || !bl_need_tensor("square_distances", b))
        return bl_poisoned(a.graph ? a.graph : b.graph);
    if (bl_rank(a) < 2 || bl_rank(b) < 2 || bl_dim(a, -1) != bl_dim(b, -1))
        return bl_poison(a.graph, "square_distances: %s and %s, expected rows of equal length",
                         bl_show(bl_type_of(a)), bl_show(bl_type_of(b)));
    return bl_sum(bl_square(bl_sub(bl_expand(a, -2), bl_expand(b, -3))), -1);
}

bl_tensor(bl_global_norm)(const bl_tensor *x, int count)
{
    bl_tensor total = bl_number(0);
    for (int i = 0; i < count; i++)
        total = i ? bl_add(total, bl_sum(bl_square(x[i]))) : bl_sum(bl_square(x[i]));
    return bl_sqrt(total);
}

/* --- normalisation: the mean first, then the squares about it ----------------------------------
 */

/* scale and shift are numbers, or one value a channel. */
static bool channels_fit(const char *name, bl_tensor x, bl_tensor parameter)
{
    if (bl_is_number(parameter))
        return true;
    if (!bl_need_tensor(name, parameter))
        return false;
    bl_shape shape = bl_type_of(parameter).shape;
    if (shape.rank == 1 && shape.dim[0] == bl_dim(x, -1))
        return true;
    bl_poison(x.graph, "%s: scale and shift must be [%lld] or numbers, not %s", name,
              (long long)bl_dim(x, -1), bl_show(bl_type_of(parameter)));
    return false;
}

static bool normalizable(const char *name, bl_tensor x, int least_rank, bl_tensor scale,
                         bl_tensor shift)
{
    if (!bl_need_tensor(name, x))
        return false;
    bl_type type = bl_type_of(x);
    if (bl_dtype_is_float(type.dtype) && type.shape.rank >= least_rank)
        return channels_fit(name, x, scale) && channels_fit(name, x, shift);
    bl_poison(x.graph, "%s: operand must be f32 or f64 of at least %d axes, not %s", name,
              least_rank, bl_show(type));
    return false;
}

static bl_tensor standardized(bl_tensor x, const int *axes, double epsilon)
{
    bl_tensor centred = bl_sub(x, bl_mean_over_keep(x, axes));
    bl_tensor variance = bl_mean_over_keep(bl_square(centred), axes);
    return bl_mul(centred, bl_rsqrt(bl_add(variance, epsilon)));
}

/* x scale + shift, leaving out what a number makes empty. */
static bl_tensor scaled(bl_tensor x, bl_tensor scale, bl_tensor shift)
{
    if (!bl_is_number(scale) || scale.number != 1)
        x = bl_mul(x, scale);
    return bl_is_number(shift) && shift.number == 0 ? x : bl_add(x, shift);
}

/* Ba, Kiros and Hinton 2016, arXiv 1607.06450. */
bl_tensor(bl_layer_normalize)(bl_tensor x, bl_tensor scale, bl_tensor shift, double epsilon)
{
    if (!normalizable("layer_normalize", x, 1, scale, shift))
        return bl_poisoned(bl_graph_of((bl_tensor[]){x, scale, shift}, 3));
    return scaled(standardized(x, (const int[]){-1, BL_END}, epsilon), scale, shift);
}

/* Wu and He 2018, arXiv 1803.08494. */
bl_tensor(bl_group_normalize)(bl_tensor x, int64_t groups, bl_tensor scale, bl_tensor shift,
                              double epsilon)
{
    if (!normalizable("group_normalize", x, 2, scale, shift))
        return bl_poisoned(bl_graph_of((bl_tensor[]){x, scale, shift}, 3));
    bl_shape shape = bl_type_of(x).shape;
    int64_t channels = shape.dim[shape.rank - 1], between = 1;
    if (groups < 1 || channels % groups)
        return bl_poison(x.graph, "group_normalize: %lld channels are not %lld equal groups",
                         (long long)channels, (long long)groups);
    for (int i = 1; i < shape.rank - 1; i++)
        between *= shape.dim[i];
    bl_tensor grouped = bl_reshape(x, BL_SHAPE(shape.dim[0], between, groups, channels / groups));
    bl_tensor z = standardized(grouped, (const int[]){1, 3, BL_END}, epsilon);
    return scaled(bl_reshape(z, shape), scale, shift);
}

/* Ulyanov, Vedaldi and Lempitsky 2016, arXiv 1607.08022. */
bl_tensor(bl_instance_normalize)(bl_tensor x, bl_tensor scale, bl_tensor shift, double epsilon)
{
    if (!bl_need_tensor("instance_normalize", x) || bl_rank(x) < 1)
        return bl_group_normalize(x, 1, scale, shift, epsilon);
    int64_t channels = bl_dim(x, -1);
    return bl_group_normalize(x, channels > 0 ? channels : 1, scale, shift, epsilon);
}
