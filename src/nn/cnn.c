/* A small convolutional network for small images: twice convolution, batch normalisation, relu and
 * 2x2 maximum pooling, then a dense layer of 64 units. */
#define BL_KEEP_PLACE
#include "nn/nn.h"

/* An odd size gets a last row or column of zeros, which never wins over what relu gives. */
static bl_tensor pool(bl_tensor x)
{
    int64_t rows = bl_dim(x, 1) % 2, columns = bl_dim(x, 2) % 2;
    if (rows || columns)
        x = bl_pad(x, BL_SHAPE(0, 0, 0, 0), BL_SHAPE(0, rows, columns, 0), 0);
    return bl_max_pool2(x);
}

bl_tensor bl_cnn_model(bl_model *m, bl_tensor x)
{
    int64_t channels = m->architecture.width > 0 ? m->architecture.width : 16;
    for (int i = 1; i <= 2; i++, channels *= 2) {
        x = bl_convolution(m, BL_PATH("conv%d", i), x, 3, channels, 1, false);
        x = bl_relu(bl_batch_norm(m, BL_PATH("norm%d", i), x));
        x = bl_site(m, BL_PATH("conv%d/out", i), BL_SITE_IMAGE, 0, x);
        x = pool(x);
    }
    return bl_classifier(m, bl_relu(bl_dense(m, "dense1", bl_flatten(x), 64)));
}
