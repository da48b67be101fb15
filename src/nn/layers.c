/* Layers: each asks for its parameters under its path and returns a tensor. A new layer needs no
 * registration: write the function, give its parameters a role and a start, and document the shapes
 * in nn.h. */
#define BL_KEEP_PLACE
#include "nn/nn.h"

bl_tensor bl_flatten(bl_tensor x)
{
    if (bl_is_poison(x) || bl_rank(x) == 2)
        return x;
    return bl_reshape(x, BL_SHAPE(bl_dim(x, 0), -1));
}

static bl_tensor affine(bl_model *m, const char *path, bl_tensor x, int64_t outputs,
                        bl_initializer start)
{
    bl_tensor weight =
        bl_param(m, BL_PATH("%s/weight", path), BL_SHAPE(bl_dim(x, -1), outputs), BL_WEIGHT, start);
    bl_tensor bias =
        bl_param(m, BL_PATH("%s/bias", path), BL_SHAPE(outputs), BL_BIAS, BL_INIT_ZERO);
    return bl_add(bl_matmul(x, weight), bias);
}

bl_tensor bl_dense(bl_model *m, const char *path, bl_tensor x, int64_t outputs)
{
    return affine(m, path, x, outputs, BL_INIT_HE);
}

bl_tensor bl_classifier(bl_model *m, bl_tensor x)
{
    m->features = bl_site(m, "features", BL_SITE_FEATURES, 0, x);
    return affine(m, "classifier", m->features, m->architecture.outputs, BL_INIT_LECUN);
}

/* Padding so that the output has ceil(size / stride) rows; the odd row goes after. */
static void pad_same(int64_t input, int64_t filter, int64_t stride, int64_t *low, int64_t *high)
{
    int64_t outputs = (input + stride - 1) / stride;
    int64_t needed = (outputs - 1) * stride + filter - input;
    needed = needed > 0 ? needed : 0;
    *low = needed / 2;
    *high = needed - *low;
}

bl_tensor bl_convolution(bl_model *m, const char *path, bl_tensor x, int64_t size, int64_t channels,
                         int64_t stride, bool bias)
{
    bl_tensor filter =
        bl_param(m, BL_PATH("%s/weight", path), BL_SHAPE(size, size, bl_dim(x, 3), channels),
                 BL_WEIGHT, BL_INIT_HE);
    bl_conv_options options = {.stride = {stride, stride}};
    for (int i = 0; i < 2; i++)
        pad_same(bl_dim(x, 1 + i), size, stride, &options.low[i], &options.high[i]);
    bl_tensor z = bl_conv(x, filter, options);
    if (!bias)
        return z;
    return bl_add(z,
                  bl_param(m, BL_PATH("%s/bias", path), BL_SHAPE(channels), BL_BIAS, BL_INIT_ZERO));
}

static bl_tensor moved_average(bl_model *m, bl_tensor old, bl_tensor now)
{
    return bl_add(old, bl_mul(m->rate, bl_sub(now, old)));
}

bl_tensor bl_batch_norm(bl_model *m, const char *path, bl_tensor x)
{
    if (bl_is_poison(x))
        return x;
    int64_t channels = bl_dim(x, -1);
    bl_type type = {BL_F32, BL_SHAPE(channels)};
    const char *mean_path = BL_PATH("%s/mean", path), *variance_path = BL_PATH("%s/variance", path);
    bl_tensor mean = m->statistic(m->context, mean_path, type, 0);
    bl_tensor variance = m->statistic(m->context, variance_path, type, 1);
    if (m->training) {
        int64_t count = bl_type_count(bl_type_of(x)) / channels;
        double unbiased = count > 1 ? (double)count / (double)(count - 1) : 1;
        bl_tensor rows = bl_reshape(x, BL_SHAPE(-1, channels));
        bl_tensor batch_mean = bl_mean(rows, 0), batch_variance = bl_variance(rows, 0);
        m->set_statistic(m->context, mean_path, moved_average(m, mean, batch_mean));
        m->set_statistic(m->context, variance_path,
                         moved_average(m, variance, bl_mul(batch_variance, unbiased)));
        mean = batch_mean;
        variance = batch_variance;
    }
    bl_tensor gain = bl_param(m, BL_PATH("%s/gain", path), type.shape, BL_GAIN, BL_INIT_ONE);
    bl_tensor shift = bl_param(m, BL_PATH("%s/shift", path), type.shape, BL_GAIN, BL_INIT_ZERO);
    bl_tensor scale = bl_mul(gain, bl_rsqrt(bl_add(variance, 1e-5)));
    return bl_add(bl_mul(bl_sub(x, mean), scale), shift);
}

bl_tensor bl_layer_norm(bl_model *m, const char *path, bl_tensor x)
{
    bl_shape shape = BL_SHAPE(bl_dim(x, -1));
    bl_tensor gain = bl_param(m, BL_PATH("%s/gain", path), shape, BL_GAIN, BL_INIT_ONE);
    bl_tensor shift = bl_param(m, BL_PATH("%s/shift", path), shape, BL_GAIN, BL_INIT_ZERO);
    bl_tensor centred = bl_sub(x, bl_mean_keep(x, -1));
    bl_tensor scale = bl_rsqrt(bl_add(bl_mean_keep(bl_square(centred), -1), 1e-5));
    return bl_add(bl_mul(bl_mul(centred, scale), gain), shift);
}
