/* Composites: the directions in which optimisers step, from a gradient and what they remember. The
 * optimisers of training have their own code in src/train, which counts steps for itself; these
 * are for methods whose papers bring a step along. */
#define BL_KEEP_PLACE
#include "graph/build.h"

/* share before + (1 - share) now */
static bl_tensor average(bl_tensor share, bl_tensor before, bl_tensor now)
{
    return bl_add(bl_mul(share, before), bl_mul(bl_sub(1, share), now));
}

/* An average that began at 0, divided by the sum of its weights, 1 - share^step: in double, as
 * share is close to 1. */
static bl_tensor unbiased(bl_tensor average, bl_tensor share, bl_tensor step)
{
    bl_tensor power = bl_pow(bl_cast(share, BL_F64), bl_cast(step, BL_F64));
    return bl_div(average, bl_cast(bl_sub(1, power), bl_type_of(average).dtype));
}

bl_tensor(bl_adam)(bl_tensor gradient, bl_tensor step, bl_tensor beta1, bl_tensor beta2,
                   bl_tensor epsilon, bl_tensor *first, bl_tensor *second)
{
    *first = average(beta1, *first, gradient);
    *second = average(beta2, *second, bl_square(gradient));
    bl_tensor mean = unbiased(*first, beta1, step);
    bl_tensor scale = bl_add(bl_sqrt(unbiased(*second, beta2, step)), epsilon);
    bl_tensor moves = bl_gt(scale, 0);
    return bl_select(moves, bl_div(mean, bl_select(moves, scale, 1)), 0);
}
