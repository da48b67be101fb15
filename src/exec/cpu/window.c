/* Windows of images, without arithmetic: patches takes them apart, row by row of a window, and fold
 * adds them up again, row by row of the image. A part of the work is a row of results, so threads
 * change nothing in the order of a sum.
 *
 * To add a primitive over windows: describe it as what one row of its result takes, and share the
 * rows out as here. */
#include <string.h>

#include "exec/cpu/cpu.h"

enum { LEAST_SHARED = 1 << 16 }; /* elements below which waking a thread costs more than it does */

typedef struct windows {
    const bl_conv_options *options;
    int64_t image[2], channels; /* image: rows, columns */
    int64_t place[2], size[2];  /* rows and columns of windows, and of a window */
    bl_dtype dtype;
    size_t element, sums; /* bytes: of an element, of a thread's sums */
    const char *from;
    char *to, *scratch;
} windows;

static windows windows_of(const cpu_plan *plan, const cpu_kernel *kernel, bl_shape image,
                          bl_shape taken)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    return (windows){.options = &node->attr->conv,
                     .image = {image.dim[1], image.dim[2]},
                     .channels = image.dim[3],
                     .place = {taken.dim[1], taken.dim[2]},
                     .size = {taken.dim[3], taken.dim[4]},
                     .dtype = node->type.dtype,
                     .element = bl_dtype_size(node->type.dtype),
                     .from = cpu_operand(plan, node, 0),
                     .to = plan->address[kernel->node],
                     .scratch = plan->scratch};
}

/* The first and the end of the places k of a line of `count`, `step` apart from `first` on, that
 * lie in [0, length). */
static void inside(int64_t first, int64_t step, int64_t count, int64_t length, int64_t *begin,
                   int64_t *end)
{
    *begin = first < 0 ? (-first + step - 1) / step : 0;
    *end = first < length ? (length - first + step - 1) / step : 0;
    *begin = *begin < count ? *begin : count;
    *end = *end < count ? *end : count;
    *end = *end > *begin ? *end : *begin;
}

/* --- patches ---------------------------------------------------------------------------------- */

/* One row of one window. */
static void copy_line(const windows *w, const char *row, int64_t first, char *to)
{
    int64_t step = w->options->dilation[1], begin, end;
    size_t pixel = (size_t)w->channels * w->element;
    inside(first, step, w->size[1], w->image[1], &begin, &end);
    if (begin == end) {
        memset(to, 0, (size_t)w->size[1] * pixel);
        return;
    }
    memset(to, 0, (size_t)begin * pixel);
    const char *from = row + (first + begin * step) * (int64_t)pixel;
    char *at = to + (size_t)begin * pixel;
    if (step == 1)
        memcpy(at, from, (size_t)(end - begin) * pixel);
    else
        for (int64_t i = begin; i < end; i++, at += pixel, from += (size_t)step * pixel)
            memcpy(at, from, pixel);
    memset(to + (size_t)end * pixel, 0, (size_t)(w->size[1] - end) * pixel);
}

/* All windows whose first pixels are in one row of one example. */
static void copy_windows(void *context, int64_t part, int thread)
{
    const windows *w = context;
    const bl_conv_options *o = w->options;
    int64_t example = part / w->place[0], top = part % w->place[0] * o->stride[0] - o->low[0];
    int64_t row_bytes = w->image[1] * w->channels * (int64_t)w->element;
    size_t line = (size_t)(w->size[1] * w->channels) * w->element;
    char *to = w->to + (size_t)(part * w->place[1] * w->size[0]) * line;
    (void)thread;
    for (int64_t j = 0; j < w->place[1]; j++)
        for (int64_t r = 0; r < w->size[0]; r++, to += line) {
            int64_t row = top + r * o->dilation[0];
            if (row < 0 || row >= w->image[0])
                memset(to, 0, line);
            else
                copy_line(w, w->from + (example * w->image[0] + row) * row_bytes,
                          j * o->stride[1] - o->low[1], to);
        }
}

static bl_status run_patches(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_shape image = cpu_node(plan, node->operand[0])->type.shape, z = node->type.shape;
    windows w = windows_of(plan, kernel, image, z);
    bool shared = bl_shape_count(z) >= LEAST_SHARED;
    cpu_pool_run(shared ? plan->pool : NULL, copy_windows, &w, z.dim[0] * z.dim[1]);
    return BL_OK;
}

bl_status cpu_prepare_patches(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    if (bl_type_count(node->type) == 0 ||
        bl_type_count(cpu_node(plan, node->operand[0])->type) == 0)
        return BL_UNSUPPORTED;
    kernel->run = run_patches;
    kernel->how = "copy";
    return BL_OK;
}

/* --- fold ------------------------------------------------------------------------------------- */

/* A line of windows' pixels is added to a row of the image: f32 in double, integers modulo 2^32. */
#define ADD_LINE(T, W)                                                                             \
    {                                                                                              \
        W *sum = total;                                                                            \
        const T *x = (const T *)from;                                                              \
        for (int64_t i = 0; i < count; i++) {                                                      \
            W pixel = (W)x[i];                                                                     \
            sum[i] += pixel;                                                                       \
        }                                                                                          \
        break;                                                                                     \
    }

static void add_pixels(bl_dtype dtype, const void *from, int64_t count, void *total)
{
    switch (dtype) {
    case BL_F32:
        ADD_LINE(float, double)
    case BL_F64:
        ADD_LINE(double, double)
    case BL_I8:
        ADD_LINE(int8_t, uint32_t)
    case BL_U8:
        ADD_LINE(uint8_t, uint32_t)
    default:
        ADD_LINE(uint32_t, uint32_t)
    }
}

#define STORE_LINE(T, W)                                                                           \
    {                                                                                              \
        const W *sum = total;                                                                      \
        for (int64_t i = 0; i < count; i++)                                                        \
            ((T *)to)[i] = (T)sum[i];                                                              \
        break;                                                                                     \
    }

static void store_pixels(bl_dtype dtype, const void *total, int64_t count, void *to)
{
    switch (dtype) {
    case BL_F32:
        STORE_LINE(float, double)
    case BL_F64:
        STORE_LINE(double, double)
    case BL_I8:
    case BL_U8:
        STORE_LINE(uint8_t, uint32_t)
    default:
        STORE_LINE(uint32_t, uint32_t)
    }
}

static size_t wide_size(bl_dtype dtype)
{
    return bl_dtype_is_float(dtype) ? sizeof(double) : sizeof(uint32_t);
}

/* Of the sums of a row, which every thread has; whole lines of the cache. */
static size_t row_of_sums(bl_shape image, bl_dtype dtype)
{
    return ((size_t)(image.dim[2] * image.dim[3]) * wide_size(dtype) + 63) & ~(size_t)63;
}

/* Row r of all windows of one row of windows, to the row of the image that it was taken from. */
static void add_row(const windows *w, const char *from, char *total)
{
    const bl_conv_options *o = w->options;
    int64_t line = w->size[1] * w->channels * (int64_t)w->element;
    int64_t wide = w->channels * (int64_t)wide_size(w->dtype), begin, end;
    for (int64_t j = 0; j < w->place[1]; j++, from += line * w->size[0]) {
        int64_t first = j * o->stride[1] - o->low[1], step = o->dilation[1];
        inside(first, step, w->size[1], w->image[1], &begin, &end);
        if (begin == end)
            continue;
        const char *x = from + begin * w->channels * (int64_t)w->element;
        if (step == 1)
            add_pixels(w->dtype, x, (end - begin) * w->channels, total + (first + begin) * wide);
        else
            for (int64_t k = begin; k < end; k++, x += w->channels * (int64_t)w->element)
                add_pixels(w->dtype, x, w->channels, total + (first + k * step) * wide);
    }
}

/* A row of the image: what rows of windows cover it, in ascending order. */
static void fold_row(void *context, int64_t part, int thread)
{
    const windows *w = context;
    const bl_conv_options *o = w->options;
    int64_t example = part / w->image[0], row = part % w->image[0];
    int64_t count = w->image[1] * w->channels;
    int64_t line = w->size[1] * w->channels * (int64_t)w->element;
    char *total = w->scratch + (size_t)thread * w->sums;
    memset(total, 0, (size_t)count * wide_size(w->dtype));
    for (int64_t i = 0; i < w->place[0]; i++) {
        int64_t below = row + o->low[0] - i * o->stride[0], r = below / o->dilation[0];
        if (below >= 0 && below % o->dilation[0] == 0 && r < w->size[0])
            add_row(w,
                    w->from + ((example * w->place[0] + i) * w->place[1] * w->size[0] + r) * line,
                    total);
    }
    store_pixels(w->dtype, total, count, w->to + (size_t)(part * count) * w->element);
}

static bl_status run_fold(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_shape taken = cpu_node(plan, node->operand[0])->type.shape, z = node->type.shape;
    windows w = windows_of(plan, kernel, z, taken);
    w.sums = row_of_sums(z, node->type.dtype);
    bool shared = bl_shape_count(taken) >= LEAST_SHARED;
    cpu_pool_run(shared ? plan->pool : NULL, fold_row, &w, z.dim[0] * z.dim[1]);
    return BL_OK;
}

bl_status cpu_prepare_fold(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    if (bl_type_count(node->type) == 0 ||
        bl_type_count(cpu_node(plan, node->operand[0])->type) == 0)
        return BL_UNSUPPORTED;
    size_t scratch = row_of_sums(node->type.shape, node->type.dtype) * (size_t)plan->threads;
    if (scratch > plan->scratch_bytes)
        plan->scratch_bytes = scratch;
    kernel->run = run_fold;
    kernel->how = "fold";
    return BL_OK;
}
