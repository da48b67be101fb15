/* Dense networks on flattened inputs: linear, and the multilayer perceptron. */
#define BL_KEEP_PLACE
#include "nn/nn.h"

enum { WIDEST = 65536, DEEPEST = 64 };

bl_tensor bl_linear_model(bl_model *m, bl_tensor x)
{
    return bl_classifier(m, bl_flatten(x));
}

/* The last hidden layer is the classifier's input, which the classifier offers as a site. */
bl_tensor bl_mlp_model(bl_model *m, bl_tensor x)
{
    int64_t depth = m->architecture.depth, width = m->architecture.width;
    if (depth < 1 || depth > DEEPEST || width < 1 || width > WIDEST)
        return bl_poison(m->graph,
                         "mlp needs width from 1 to %d and depth from 1 to %d, not %lld "
                         "and %lld",
                         WIDEST, DEEPEST, (long long)width, (long long)depth);
    x = bl_flatten(x);
    for (int i = 1; i <= depth; i++) {
        x = bl_relu(bl_dense(m, BL_PATH("dense%d", i), x, width));
        if (i < depth)
            x = bl_site(m, BL_PATH("dense%d/out", i), BL_SITE_HIDDEN, 0, x);
    }
    return bl_classifier(m, x);
}
