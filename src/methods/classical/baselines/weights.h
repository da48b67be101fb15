/* What the classical arms share: which parameters are weights, and their view as rows. */
#ifndef BL_METHODS_CLASSICAL_WEIGHTS_H
#define BL_METHODS_CLASSICAL_WEIGHTS_H

#include "methods/method.h"

/* Matrices and kernels; not biases, not the gains of normalisation layers. */
static inline bool is_weight(const bl_step *s, int i)
{
    return s->parameter[i].role == BL_WEIGHT;
}

/* Weights of the layers before the classifier, whose rows may vanish or turn freely. */
static inline bool is_hidden_weight(const bl_step *s, int i)
{
    return is_weight(s, i) && !s->parameter[i].classifier;
}

/* Layers keep the output channel last; the penalties are written with a row [O,I] for each. */
static inline bl_tensor as_rows(bl_tensor w)
{
    return bl_transpose(bl_reshape(w, BL_SHAPE(-1, bl_dim(w, -1))));
}

static inline bl_tensor from_rows(bl_tensor rows, bl_tensor like)
{
    return bl_reshape(bl_transpose(rows), bl_type_of(like).shape);
}

#endif
