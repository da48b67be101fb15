/* The largest singular value of a linear map that is given by a callback; the adjoint is the map's
 * own gradient. */
#define BL_KEEP_PLACE
#include "ballast/solve.h"
#include "solve/implicit.h"

typedef struct linear_map {
    bl_map *map;
    void *context;
    const bl_tensor *parameter;
} linear_map;

/* x / |x|, or 0. */
static bl_tensor unit(bl_tensor x)
{
    bl_tensor norm = bl_length(x), positive = bl_gt(norm, 0);
    return bl_select(positive, bl_div(x, bl_select(positive, norm, bl_ones_like(norm))), 0);
}

static void pass(bl_graph *g, const bl_tensor *carry, const bl_tensor *x, bl_tensor *next,
                 bl_tensor *y, void *context)
{
    (void)x;
    const linear_map *m = context;
    bl_tensor v = bl_apart(g, carry[0]), back;
    bl_tensor u = m->map(g, v, m->parameter, m->context), direction = unit(u);
    bl_vjp(&u, &direction, 1, &v, 1, &back);
    next[0] = unit(back);
    y[0] = carry[0];
}

bl_tensor(bl_power_iteration)(bl_map *map, void *context, const bl_tensor *parameter,
                              int parameters, bl_tensor start, int64_t steps)
{
    if (!bl_need_tensor("power_iteration", start))
        return bl_spoil(start.graph, "power_iteration");
    bl_graph *g = bl_innermost(start.graph, parameter, parameters);
    if (steps < 1)
        return bl_poison(g, "power_iteration: %lld steps, expected at least 1", (long long)steps);
    linear_map m = {map, context, parameter};
    bl_tensor first = bl_stop_gradient(unit(start)), next, all;
    bl_scan(g, steps, pass, &m, &first, 1, NULL, 0, &next, &all, 1);
    /* The last v that was multiplied; where A^T u was 0, so is the value. */
    bl_tensor v = bl_stop_gradient(bl_pick(all, 0, steps - 1));
    bl_tensor product = map(g, v, parameter, context);
    bl_tensor u = bl_stop_gradient(unit(product)), value = bl_inner(u, product);
    bl_tensor alive = bl_gt(bl_length(bl_stop_gradient(next)), 0);
    return bl_select(alive, value, bl_zeros_like(value));
}
