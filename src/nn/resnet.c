/* ResNet-20 for small images (He et al. 2016, section 4.2): three stages of three residual blocks
 * with 16, 32 and 64 channels; shortcuts without parameters (option A: every second pixel, new
 * channels zero). */
#define BL_KEEP_PLACE
#include "nn/nn.h"

enum { STAGES = 3, BLOCKS = 3 };

static bl_tensor shortcut(bl_tensor x, int64_t channels, int64_t stride)
{
    if (stride > 1)
        x = bl_slice(x, BL_SHAPE(0, 0, 0, 0),
                     BL_SHAPE(bl_dim(x, 0), bl_dim(x, 1), bl_dim(x, 2), bl_dim(x, 3)),
                     BL_SHAPE(1, stride, stride, 1));
    int64_t more = channels - bl_dim(x, 3);
    if (more > 0)
        x = bl_pad(x, BL_SHAPE(0, 0, 0, more / 2), BL_SHAPE(0, 0, 0, more - more / 2), 0);
    return x;
}

static bl_tensor block(bl_model *m, int number, bl_tensor x, int64_t channels, int64_t stride)
{
    const char *path = BL_PATH("block%d", number);
    bl_tensor h = bl_convolution(m, BL_PATH("%s/conv1", path), x, 3, channels, stride, false);
    h = bl_relu(bl_batch_norm(m, BL_PATH("%s/norm1", path), h));
    h = bl_site(m, BL_PATH("%s/conv1/out", path), BL_SITE_IMAGE, 0, h);
    h = bl_convolution(m, BL_PATH("%s/conv2", path), h, 3, channels, 1, false);
    h = bl_batch_norm(m, BL_PATH("%s/norm2", path), h);
    double depth = (double)number / (STAGES * BLOCKS);
    h = bl_site(m, BL_PATH("%s/branch", path), BL_SITE_BRANCH, depth, h);
    h = bl_relu(bl_add(shortcut(x, channels, stride), h));
    return bl_site(m, BL_PATH("%s/out", path), BL_SITE_IMAGE, 0, h);
}

bl_tensor bl_resnet20_model(bl_model *m, bl_tensor x)
{
    x = bl_convolution(m, "conv1", x, 3, 16, 1, false);
    x = bl_relu(bl_batch_norm(m, "norm1", x));
    x = bl_site(m, "conv1/out", BL_SITE_IMAGE, 0, x);
    int64_t channels = 16;
    for (int stage = 0; stage < STAGES; stage++, channels *= 2)
        for (int i = 0; i < BLOCKS; i++)
            x = block(m, stage * BLOCKS + i + 1, x, channels, stage > 0 && i == 0 ? 2 : 1);
    return bl_classifier(m, bl_mean(x, 1, 2));
}
