/* Conjugate gradients in a graph, and the gradient of their solution. With x = A^-1 b and the
 * cotangent g of x, let A l = g: then b has the cotangent l, and what A is made of has that of
 * -<l, A x> at constant l and x. */
#define BL_KEEP_PLACE
#include "ballast/solve.h"
#include "solve/implicit.h"

typedef struct linear_system {
    bl_map *map;
    void *context;
    int parameters;
    const bl_tensor *parameter;
    bl_tensor tolerance;
    int64_t limit;
} linear_system;

enum { X, RESIDUAL, DIRECTION, SQUARES, GOOD, CARRIES };

/* Bytes of b and the parameters. */
static size_t room(const linear_system *s)
{
    return (size_t)(1 + s->parameters) * sizeof(bl_tensor);
}

static bl_tensor goes_on(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g;
    const linear_system *s = context;
    return bl_and(carry[GOOD], bl_gt(bl_sqrt(carry[SQUARES]), s->tolerance));
}

static void take_step(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    const linear_system *s = context;
    bl_tensor p = carry[DIRECTION], ap = s->map(g, p, s->parameter, s->context);
    bl_tensor curvature = bl_inner(p, ap), good = bl_gt(curvature, 0);
    bl_tensor divisor = bl_select(good, curvature, bl_ones_like(curvature));
    bl_tensor length = bl_select(good, bl_div(carry[SQUARES], divisor), 0);
    next[X] = bl_add(carry[X], bl_mul(length, p));
    next[RESIDUAL] = bl_sub(carry[RESIDUAL], bl_mul(length, ap));
    next[SQUARES] = bl_inner(next[RESIDUAL], next[RESIDUAL]);
    next[DIRECTION] = bl_add(next[RESIDUAL], bl_mul(bl_div(next[SQUARES], carry[SQUARES]), p));
    next[GOOD] = good;
}

static bl_tensor iterate(bl_graph *g, linear_system *s, bl_tensor b, bl_solution *report)
{
    bl_tensor carry[CARRIES] = {bl_zeros_like(b), b, b, bl_inner(b, b),
                                bl_full(g, BL_BOOL, BL_SCALAR, 1)};
    bl_tensor last[CARRIES], steps;
    for (int i = 0; i < CARRIES; i++)
        carry[i] = bl_stop_gradient(carry[i]);
    steps = bl_while(g, s->limit, goes_on, take_step, s, carry, CARRIES, last);
    if (report)
        *report = (bl_solution){steps, bl_sqrt(last[SQUARES]), last[GOOD]};
    return last[X];
}

/* input: b, then the parameters. */
static void gradient_of_solution(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                                 const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    linear_system *s = context;
    bl_tensor x, *parameter = bl_arena_alloc(bl_graph_arena(g), room(s));
    if (!parameter) {
        bl_out_of_memory(g);
        return;
    }
    /* The solution again, with this same rule, so that the gradient may be differentiated. */
    bl_override_gradient(output, 1, input, 1 + s->parameters, gradient_of_solution, s, &x);
    gradient[0] = (bl_conjugate_gradients)(s->map, s->context, input + 1, s->parameters,
                                           cotangent[0], s->tolerance, s->limit, NULL);
    for (int i = 0; i < s->parameters; i++)
        parameter[i] = bl_apart(g, input[1 + i]);
    bl_tensor y = s->map(g, x, parameter, s->context), minus = bl_neg(gradient[0]);
    bl_vjp(&y, &minus, 1, parameter, s->parameters, gradient + 1);
}

bl_tensor(bl_conjugate_gradients)(bl_map *map, void *context, const bl_tensor *parameter,
                                  int parameters, bl_tensor b, bl_tensor tolerance, int64_t limit,
                                  bl_solution *report)
{
    if (!bl_need_tensor("conjugate_gradients", b))
        return bl_spoil(b.graph, "conjugate_gradients");
    bl_graph *g = bl_innermost(bl_innermost(b.graph, parameter, parameters), &tolerance, 1);
    linear_system *s = bl_arena_alloc(bl_graph_arena(g), sizeof *s);
    bl_tensor x, *input = bl_arena_alloc(bl_graph_arena(g), (size_t)(1 + parameters) * sizeof x);
    if (!s || !input)
        return bl_out_of_memory(g);
    input[0] = b;
    for (int i = 0; i < parameters; i++)
        input[1 + i] = parameter[i];
    *s = (linear_system){map, context, parameters, input + 1, tolerance, limit};
    bl_tensor last = iterate(g, s, b, report);
    bl_override_gradient(&last, 1, input, 1 + parameters, gradient_of_solution, s, &x);
    return x;
}
