/* Composites over images [B,H,W,C]: pooling, transposed convolution, resizing,
 * filtering. */
#define BL_KEEP_PLACE
#include <math.h>

#include "base/base.h"
#include "graph/build.h"

static bool is_image(const char *name, bl_tensor x)
{
    if (!bl_need_tensor(name, x))
        return false;
    bl_type type = bl_type_of(x);
    if (bl_dtype_is_float(type.dtype) && type.shape.rank == 4)
        return true;
    bl_poison(x.graph, "%s: needs a float image [B,H,W,C], not %s", name, bl_show(type));
    return false;
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

/* The padding is made here, of what no maximum chooses. */
bl_tensor(bl_max_pool)(bl_tensor x, int64_t rows, int64_t columns, bl_conv_options options)
{
    if (!is_image("max_pool", x))
        return bl_poisoned(x.graph);
    bl_shape low = BL_SHAPE(0, options.low[0], options.low[1], 0);
    bl_shape high = BL_SHAPE(0, options.high[0], options.high[1], 0);
    bl_tensor padded = bl_pad(x, low, high, -INFINITY);
    for (int i = 0; i < 2; i++)
        options.low[i] = options.high[i] = 0;
    return bl_reduce_max(bl_patches(padded, rows, columns, options), 3, 4);
}

bl_tensor(bl_mean_pool)(bl_tensor x, int64_t rows, int64_t columns, bl_conv_options options)
{
    if (!is_image("mean_pool", x))
        return bl_poisoned(x.graph);
    return bl_mean(bl_patches(x, rows, columns, options), 3, 4);
}

/* --- transposed convolution --------------------------------------------------------------------
 */

/* The size of an image whose conv has `windows` places along one axis. */
static int64_t image_size(int64_t windows, int64_t window, const bl_conv_options *o, int axis)
{
    int64_t stride = o->stride[axis] ? o->stride[axis] : 1;
    int64_t dilation = o->dilation[axis] ? o->dilation[axis] : 1;
    return (windows - 1) * stride + (window - 1) * dilation + 1 - o->low[axis] - o->high[axis];
}

bl_tensor(bl_conv_transpose)(bl_tensor x, bl_tensor w, bl_conv_options options)
{
    if (!is_image("conv_transpose", x) || !bl_need_tensor("conv_transpose", w))
        return bl_poisoned(bl_graph_of((bl_tensor[]){x, w}, 2));
    bl_shape image = bl_type_of(x).shape, filter = bl_type_of(w).shape;
    if (filter.rank != 4)
        return bl_poison(x.graph, "conv_transpose: filter must be [h,w,O/groups,I], not %s",
                         bl_show(bl_type_of(w)));
    for (int i = 0; i < 2; i++)
        image.dim[1 + i] = image_size(image.dim[1 + i], filter.dim[i], &options, i);
    image.dim[3] = filter.dim[2] * (options.groups ? options.groups : 1);
    return bl_conv_dx(x, w, image, options);
}

/* --- interpolation: a product with a matrix of two weights a row along each axis ---------------
 */

/* Pixels are areas, whose borders coincide, or points, the first and last of which do. */
typedef enum pixel_kind { AREAS, POINTS } pixel_kind;

/* Where pixel i of new_size lies among those of old_size. */
static double place(int64_t i, int64_t new_size, int64_t old_size, pixel_kind kind)
{
    if (kind == AREAS)
        return ((double)i + 0.5) * (double)old_size / (double)new_size - 0.5;
    return new_size > 1 ? (double)(i * (old_size - 1)) / (double)(new_size - 1) : 0;
}

/* Each new pixel lies between two old ones; beyond the ends is the end. */
static void fill_weights(bl_array *weights, int64_t new_size, int64_t old_size, pixel_kind kind)
{
    for (int64_t i = 0; i < new_size; i++) {
        double at = place(i, new_size, old_size, kind);
        at = fmin(fmax(at, 0), (double)(old_size - 1));
        int64_t left = (int64_t)at, right = left + 1 < old_size ? left + 1 : left;
        double share = at - (double)left;
        bl_array_set(weights, i * old_size + left, 1 - share);
        if (right > left)
            bl_array_set(weights, i * old_size + right, share);
    }
}

/* weights[new,old], of f64, times axis 1 or 2 of an image; frees the weights. */
static bl_tensor weigh_axis(bl_tensor x, int axis, bl_array *weights)
{
    int64_t new_size = weights->type.shape.dim[0], old_size = weights->type.shape.dim[1];
    bl_tensor matrix = bl_cast(bl_constant(x.graph, weights), bl_type_of(x).dtype);
    bl_array_free(weights);
    int order[] = {axis, axis == 1 ? 0 : 1, axis == 1 ? 2 : 0, 3, BL_END};
    int back[] = {axis == 1 ? 1 : 2, axis == 1 ? 0 : 1, axis == 1 ? 2 : 0, 3, BL_END};
    bl_tensor first = bl_transpose_to(x, order);
    bl_shape shape = bl_type_of(first).shape;
    int64_t rest = bl_shape_count(bl_shape_drop(shape, 1));
    bl_tensor z = bl_dot(matrix, bl_reshape(first, BL_SHAPE(old_size, rest)), false, false);
    shape.dim[0] = new_size;
    return bl_transpose_to(bl_reshape(z, shape), back);
}

/* --- large images: the matrix is a band, of which blocks of rows are multiplied ----------------
 */

/* Rows first .. stop - 1 of weights[..,columns], and the columns low .. high - 1 outside of which
 * they are 0. */
typedef struct block {
    int64_t first, stop, low, high;
} block;

static block block_of(const bl_array *weights, int64_t first, int64_t rows)
{
    int64_t all = weights->type.shape.dim[0], columns = weights->type.shape.dim[1];
    block b = {first, first + rows < all ? first + rows : all, columns, 0};
    for (int64_t i = b.first; i < b.stop; i++)
        for (int64_t j = 0; j < columns; j++)
            if (bl_f64(weights)[i * columns + j] != 0) {
                b.low = j < b.low ? j : b.low;
                b.high = j + 1 > b.high ? j + 1 : b.high;
            }
    return b.low < b.high ? b : (block){b.first, b.stop, 0, 1};
}

/* The block, of `dtype`, transposed and with every weight as a multiple of the identity of `inner`:
 * [inner columns, inner rows]. */
static bl_tensor matrix_of(bl_graph *g, bl_dtype dtype, const bl_array *weights, block b,
                           int64_t inner)
{
    int64_t rows = b.stop - b.first, columns = b.high - b.low, all = weights->type.shape.dim[1];
    bl_array matrix;
    if (bl_array_new(dtype, BL_SHAPE(columns * inner, rows * inner), &matrix) != BL_OK)
        return bl_out_of_memory(g);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            for (int64_t k = 0; k < inner; k++)
                bl_array_set(&matrix, ((j * inner + k) * rows + i) * inner + k,
                             bl_f64(weights)[(b.first + i) * all + b.low + j]);
    bl_tensor constant = bl_constant(g, &matrix);
    bl_array_free(&matrix);
    return constant;
}

enum { BAND_WIDTH = 64, BAND_ROWS = 32, BAND_BLOCKS = 512 };

/* weights[new,old], of f64, times axis 1 or 2 of an image, by blocks of rows. With few channels the
 * second axis is multiplied from the right, every weight being as many: no transposed copies. */
static bl_tensor multiply_band(bl_tensor x, int axis, const bl_array *weights)
{
    bl_shape shape = bl_type_of(x).shape;
    int64_t outer = shape.dim[0] * (axis == 2 ? shape.dim[1] : 1), old_size = shape.dim[axis];
    int64_t inner = shape.dim[3] * (axis == 1 ? shape.dim[2] : 1), count = 0;
    bool right = inner > 0 && inner < BAND_ROWS;
    int64_t new_size = shape.dim[axis] = weights->type.shape.dim[0];
    int64_t rows = right ? BAND_WIDTH / inner : BAND_ROWS;
    rows = new_size / rows < BAND_BLOCKS ? rows : new_size / (BAND_BLOCKS - 1) + 1;
    bl_tensor part[BAND_BLOCKS];
    x = right ? bl_reshape(x, BL_SHAPE(outer, old_size * inner))
              : bl_reshape(x, BL_SHAPE(outer, old_size, inner));
    for (int64_t first = 0; first < new_size; first += rows) {
        block b = block_of(weights, first, rows);
        bl_tensor m = matrix_of(x.graph, bl_type_of(x).dtype, weights, b, right ? inner : 1);
        int64_t width = right ? inner : 1;
        bl_tensor from = bl_slice_axis(x, 1, b.low * width, b.high * width);
        bl_shape each = BL_SHAPE(outer, b.high - b.low, b.stop - b.first);
        part[count++] = right ? bl_dot(from, m, false, false)
                              : bl_dot(bl_broadcast(m, each), from, true, false);
    }
    return bl_reshape(count == 1 ? part[0] : bl_concat(part, (int)count, 1), shape);
}

/* What an interpolation is, in a pointer: sizes are those of its operands. */
enum { KIND = 1, SECOND_AXIS = 2, ADJOINT = 4 };

static bl_tensor interpolate(bl_tensor x, int64_t size, intptr_t what);

static void slope_of_interpolation(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                                   const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    (void)g, (void)output;
    intptr_t what = (intptr_t)context;
    gradient[0] =
        interpolate(cotangent[0], bl_dim(input[0], what & SECOND_AXIS ? 2 : 1), what ^ ADJOINT);
}

/* One axis of an image at `size`; the adjoint spreads the pixels of an image made so over `size`
 * ones. Each is the gradient of the other. */
static bl_tensor interpolate(bl_tensor x, int64_t size, intptr_t what)
{
    int axis = what & SECOND_AXIS ? 2 : 1;
    int64_t here = bl_dim(x, axis), old_size = what & ADJOINT ? size : here;
    int64_t new_size = what & ADJOINT ? here : size;
    bl_array weights, transposed = {0};
    if (bl_array_new(BL_F64, BL_SHAPE(new_size, old_size), &weights) != BL_OK)
        return bl_out_of_memory(x.graph);
    fill_weights(&weights, new_size, old_size, what & KIND ? POINTS : AREAS);
    if (what & ADJOINT) {
        if (bl_array_new(BL_F64, BL_SHAPE(old_size, new_size), &transposed) != BL_OK) {
            bl_array_free(&weights);
            return bl_out_of_memory(x.graph);
        }
        for (int64_t i = 0; i < new_size; i++)
            for (int64_t j = 0; j < old_size; j++)
                bl_f64(&transposed)[j * new_size + i] = bl_f64(&weights)[i * old_size + j];
    }
    bl_tensor value = multiply_band(x, axis, what & ADJOINT ? &transposed : &weights), result;
    bl_array_free(&weights);
    bl_array_free(&transposed);
    bl_override_gradient(&value, 1, &x, 1, slope_of_interpolation, (void *)what, &result);
    return result;
}

/* Axis 1 or 2 of an image at `new_size`. */
static bl_tensor resize_axis(const char *name, bl_tensor x, int axis, int64_t new_size,
                             pixel_kind kind)
{
    enum { LARGE = 96 };
    int64_t old_size = bl_dim(x, axis);
    if (new_size == old_size)
        return x;
    if (old_size >= LARGE && new_size >= LARGE)
        return interpolate(x, new_size,
                           (kind == POINTS ? KIND : 0) | (axis == 2 ? SECOND_AXIS : 0));
    bl_array weights;
    if (bl_array_new(BL_F64, BL_SHAPE(new_size, old_size), &weights) != BL_OK)
        return bl_poison(x.graph, "%s: %s", name, bl_error());
    fill_weights(&weights, new_size, old_size, kind);
    return weigh_axis(x, axis, &weights);
}

/* --- resizing --------------------------------------------------------------------------------- */

static bool resizable(const char *name, bl_tensor x, int64_t rows, int64_t columns)
{
    if (!is_image(name, x))
        return false;
    if (rows >= 1 && columns >= 1 && bl_dim(x, 1) >= 1 && bl_dim(x, 2) >= 1)
        return true;
    bl_poison(x.graph, "%s: cannot resize %s to %lld x %lld", name, bl_show(bl_type_of(x)),
              (long long)rows, (long long)columns);
    return false;
}

static bl_tensor resize(const char *name, bl_tensor x, int64_t rows, int64_t columns,
                        pixel_kind kind)
{
    if (!resizable(name, x, rows, columns))
        return bl_poisoned(x.graph);
    bl_tensor tall = resize_axis(name, x, 1, rows, kind);
    return bl_is_poison(tall) ? tall : resize_axis(name, tall, 2, columns, kind);
}

bl_tensor(bl_resize_bilinear)(bl_tensor x, int64_t rows, int64_t columns)
{
    return resize("resize_bilinear", x, rows, columns, AREAS);
}

bl_tensor(bl_resize_aligned)(bl_tensor x, int64_t rows, int64_t columns)
{
    return resize("resize_aligned", x, rows, columns, POINTS);
}

/* i32[size]: floor(i old_size / size). */
static bl_tensor nearest_places(bl_graph *g, int64_t size, int64_t old_size)
{
    bl_tensor i = bl_iota(g, BL_I32, BL_SHAPE(size), 0);
    return bl_div(bl_mul(i, (double)old_size), (double)size);
}

bl_tensor(bl_resize_nearest)(bl_tensor x, int64_t rows, int64_t columns)
{
    if (!resizable("resize_nearest", x, rows, columns))
        return bl_poisoned(x.graph);
    bl_tensor wide =
        bl_take(bl_transpose(x, 2, 1, 0, 3), nearest_places(x.graph, columns, bl_dim(x, 2)));
    bl_tensor tall =
        bl_take(bl_transpose(wide, 1, 0, 2, 3), nearest_places(x.graph, rows, bl_dim(x, 1)));
    return bl_transpose(tall, 2, 0, 1, 3);
}

/* --- filters along both axes: a product with a banded matrix, whose ends fold the border in ------
 */

/* Where a place beyond the ends of 0..size-1 is found, the line being mirrored without end. */
static int64_t mirrored(int64_t place, int64_t size, bool skip_edge)
{
    if (size == 1)
        return 0;
    int64_t period = skip_edge ? 2 * size - 2 : 2 * size;
    place %= period;
    place = place < 0 ? place + period : place;
    return place < size ? place : period - place - (skip_edge ? 0 : 1);
}

static bl_tensor filter_axis(bl_tensor x, int axis, const double *kernel, int64_t radius,
                             bool skip_edge)
{
    int64_t size = bl_dim(x, axis);
    bl_array weights;
    if (bl_array_new(BL_F64, BL_SHAPE(size, size), &weights) != BL_OK)
        return bl_poison(x.graph, "filter_axes: %s", bl_error());
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = -radius; j <= radius; j++) {
            int64_t at = i * size + mirrored(i + j, size, skip_edge);
            bl_array_set(&weights, at, bl_array_get(&weights, at) + kernel[radius + j]);
        }
    return weigh_axis(x, axis, &weights);
}

bl_tensor(bl_filter_axes)(bl_tensor x, const double *kernel, int64_t radius, bool skip_edge)
{
    if (!is_image("filter_axes", x))
        return bl_poisoned(x.graph);
    bl_tensor rows = filter_axis(x, 1, kernel, radius, skip_edge);
    return bl_is_poison(rows) ? rows : filter_axis(rows, 2, kernel, radius, skip_edge);
}

enum { WIDEST_BLUR = 1 << 16 }; /* a radius far beyond any image, and still quick to build */

bl_tensor(bl_gaussian_blur)(bl_tensor x, double sigma, int64_t radius, bool skip_edge)
{
    if (!is_image("gaussian_blur", x))
        return bl_poisoned(x.graph);
    if (!(sigma > 0) || radius < 0 || radius > WIDEST_BLUR)
        return bl_poison(x.graph,
                         "gaussian_blur: sigma is %g and the radius %lld, expected a sigma > 0 and "
                         "a radius of 0 to %d",
                         sigma, (long long)radius, WIDEST_BLUR);
    size_t bytes = (size_t)(2 * radius + 1) * sizeof(double);
    double *kernel = bl_alloc(bytes), sum = 0;
    if (!kernel)
        return bl_out_of_memory(x.graph);
    for (int64_t j = -radius; j <= radius; j++) {
        double distance = (double)j / sigma;
        sum += kernel[radius + j] = exp(-distance * distance / 2);
    }
    for (int64_t j = 0; j <= 2 * radius; j++)
        kernel[j] /= sum;
    bl_tensor blurred = bl_filter_axes(x, kernel, radius, skip_edge);
    bl_release(kernel);
    return blurred;
}
