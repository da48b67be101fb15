/* Composites: what a tensor becomes when it is stored in few bits, differentiable. */
#define BL_KEEP_PLACE
#include "graph/build.h"

bl_tensor(bl_fake_quantize)(bl_tensor x, bl_tensor scale, bl_tensor zero, double low, double high,
                            bl_tensor *code)
{
    bl_tensor steps = bl_div(x, scale);
    bl_tensor whole = bl_straight_through(bl_round(steps), steps);
    bl_tensor c = bl_clamp(bl_add(whole, zero), low, high);
    if (code)
        *code = c;
    return bl_mul(bl_sub(c, zero), scale);
}
