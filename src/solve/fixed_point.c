/* Fixed points x = F(x) in a graph. The gradient is that of the point, not of the steps to it: with
 * the cotangent g of x and J = dF/dx, l = g + J^T l is a fixed point as well, and what F depends on
 * has the cotangent l dF. */
#define BL_KEEP_PLACE
#include <math.h>

#include "ballast/solve.h"
#include "solve/implicit.h"

typedef struct equation {
    bl_map *map;
    void *context;
    int parameters;
    const bl_tensor *parameter;
    bl_tensor tolerance;
    int64_t limit;
} equation;

enum { X, DISTANCE, CARRIES };

static bl_tensor still_moves(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g;
    const equation *e = context;
    return bl_gt(carry[DISTANCE], e->tolerance);
}

static void apply(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    const equation *e = context;
    next[X] = e->map(g, carry[X], e->parameter, e->context);
    next[DISTANCE] = bl_sqrt(bl_sum(bl_square(bl_sub(next[X], carry[X]))));
}

static bl_tensor iterate(bl_graph *g, equation *e, bl_tensor start, bl_solution *report)
{
    bl_tensor infinite = bl_full(g, bl_type_of(start).dtype, BL_SCALAR, INFINITY);
    bl_tensor carry[CARRIES] = {bl_stop_gradient(start), infinite}, last[CARRIES];
    bl_tensor steps = bl_while(g, e->limit, still_moves, apply, e, carry, CARRIES, last);
    bl_tensor distance = bl_stop_gradient(last[DISTANCE]);
    if (report)
        *report = (bl_solution){steps, distance, bl_isfinite(distance)};
    return bl_stop_gradient(last[X]);
}

/* parameter: the cotangent, the point, and then those of the map. */
static bl_tensor adjoint_map(bl_graph *g, bl_tensor l, const bl_tensor *parameter, void *context)
{
    const equation *e = context;
    bl_tensor x = bl_apart(g, parameter[1]), back;
    bl_tensor y = e->map(g, x, parameter + 2, e->context);
    bl_vjp(&y, &l, 1, &x, 1, &back);
    return bl_add(parameter[0], back);
}

static void gradient_of_point(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                              const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    equation *e = context;
    size_t bytes = (size_t)(e->parameters + 2) * sizeof(bl_tensor);
    bl_tensor *all = bl_arena_alloc(bl_graph_arena(g), bytes), x;
    bl_tensor *own = bl_arena_alloc(bl_graph_arena(g), bytes);
    if (!all || !own) {
        bl_out_of_memory(g);
        return;
    }
    /* The point again, with this same rule, so that the gradient may be differentiated. */
    bl_override_gradient(output, 1, input, e->parameters, gradient_of_point, e, &x);
    all[0] = cotangent[0];
    all[1] = x;
    for (int i = 0; i < e->parameters; i++) {
        all[2 + i] = input[i];
        own[i] = bl_apart(g, input[i]);
    }
    bl_tensor l = (bl_fixed_point)(adjoint_map, e, all, 2 + e->parameters, cotangent[0],
                                   e->tolerance, e->limit, NULL);
    bl_tensor y = e->map(g, x, own, e->context);
    bl_vjp(&y, &l, 1, own, e->parameters, gradient);
}

bl_tensor(bl_fixed_point)(bl_map *map, void *context, const bl_tensor *parameter, int parameters,
                          bl_tensor start, bl_tensor tolerance, int64_t limit, bl_solution *report)
{
    if (!bl_need_tensor("fixed_point", start))
        return bl_spoil(start.graph, "fixed_point");
    bl_graph *g = bl_innermost(bl_innermost(start.graph, parameter, parameters), &tolerance, 1);
    equation *e = bl_arena_alloc(bl_graph_arena(g), sizeof *e);
    bl_tensor *kept = bl_arena_alloc(bl_graph_arena(g), (size_t)(parameters + 1) * sizeof *kept);
    if (!e || !kept)
        return bl_out_of_memory(g);
    for (int i = 0; i < parameters; i++)
        kept[i] = parameter[i];
    *e = (equation){map, context, parameters, kept, tolerance, limit};
    bl_tensor x = iterate(g, e, start, report);
    if (parameters)
        bl_override_gradient(&x, 1, kept, parameters, gradient_of_point, e, &x);
    return x;
}
