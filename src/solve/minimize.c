/* Minima in a graph, by L-BFGS and by Newton's method, with one line search and one gradient.
 *
 * Of L-BFGS the last pairs of a step s and the change y of the gradient are rows of two matrices,
 * newest first; a pair that does not exist yet, or along which the gradient did not grow, has
 * 1 / <s,y> = 0 and does nothing. */
#define BL_KEEP_PLACE
#include <math.h>

#include "ballast/solve.h"
#include "solve/implicit.h"

enum { MEMORY = 10, TRIALS = 60 };
static const double SUFFICIENT = 1e-4, CURVATURE = 0.9; /* of Wolfe's conditions */

typedef struct problem {
    bl_objective *objective;
    void *context;
    int parameters;
    const bl_tensor *parameter;
    bl_tensor tolerance;
    bl_shape shape; /* of the point, which is a vector inside */
    int64_t limit;
} problem;

/* The objective at x, a vector of g, and its gradient there. */
static bl_tensor value_at(bl_graph *g, const problem *p, bl_tensor x, bl_tensor *slope)
{
    bl_tensor own = bl_apart(g, x);
    bl_tensor value = p->objective(g, bl_reshape(own, p->shape), p->parameter, p->context);
    bl_grad(value, &own, 1, slope);
    return value;
}

/* --- the direction of L-BFGS ------------------------------------------------------------------ */

/* x: the rows s, y and 1 / <s,y> of a pair. */
static void newest_to_oldest(bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                             bl_tensor *next, bl_tensor *share, void *context)
{
    (void)g, (void)context;
    *share = bl_mul(x[2], bl_inner(x[0], carry[0]));
    next[0] = bl_sub(carry[0], bl_mul(*share, x[1]));
}

static void oldest_to_newest(bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                             bl_tensor *next, bl_tensor *y, void *context)
{
    (void)g, (void)y, (void)context;
    bl_tensor share = bl_mul(x[2], bl_inner(x[1], carry[0]));
    next[0] = bl_add(carry[0], bl_mul(bl_sub(x[3], share), x[0]));
}

/* The two loops: H slope, for H that starts from `scale` times the identity. pairs: S [k,n], Y
 * [k,n], 1 / <s,y> [k]. */
static bl_tensor times_inverse(bl_graph *g, bl_tensor slope, const bl_tensor *pairs,
                               bl_tensor scale)
{
    int64_t k = bl_dim(pairs[0], 0);
    bl_tensor q, share, reversed[4];
    bl_scan(g, k, newest_to_oldest, NULL, &slope, 1, pairs, 3, &q, &share, 1);
    for (int i = 0; i < 3; i++)
        reversed[i] = bl_reverse(pairs[i], 0);
    reversed[3] = bl_reverse(share, 0);
    q = bl_mul(scale, q);
    bl_scan(g, k, oldest_to_newest, NULL, &q, 1, reversed, 4, &q, NULL, 0);
    return q;
}

/* --- the step --------------------------------------------------------------------------------- */

/* One line search: the interval [low, high] holds a step that does, high may be infinite. */
typedef struct line {
    const problem *problem;
    bl_tensor from, direction, value, slope; /* slope: of the value along the direction, < 0 */
} line;

enum { LOW, HIGH, LENGTH, AT, GRADIENT, VALUE, FOUND, LINE_CARRIES };

static bl_tensor not_found(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g, (void)context;
    return bl_not(carry[FOUND]);
}

static void try_length(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    const line *l = context;
    bl_tensor length = carry[LENGTH];
    next[AT] = bl_add(l->from, bl_mul(length, l->direction));
    next[VALUE] = value_at(g, l->problem, next[AT], &next[GRADIENT]);
    bl_tensor bound = bl_add(l->value, bl_mul(bl_mul(SUFFICIENT, length), l->slope));
    bl_tensor falls = bl_le(next[VALUE], bound);
    bl_tensor turns = bl_ge(bl_inner(next[GRADIENT], l->direction), bl_mul(CURVATURE, l->slope));
    next[FOUND] = bl_and(falls, turns);
    next[LOW] = bl_select(falls, length, carry[LOW]);
    next[HIGH] = bl_select(falls, carry[HIGH], length);
    bl_tensor open = bl_not(bl_isfinite(next[HIGH]));
    bl_tensor end = bl_select(open, length, next[HIGH]);
    next[LENGTH] = bl_select(open, bl_mul(2, length), bl_mul(0.5, bl_add(next[LOW], end)));
}

/* The first trial's length: as far as its change is about 1 where there is no pair yet. */
static void search(bl_graph *g, line *l, bl_tensor first, bl_tensor slope, bl_tensor *last)
{
    bl_dtype dtype = bl_type_of(l->from).dtype;
    bl_tensor carry[LINE_CARRIES] = {[LOW] = bl_full(g, dtype, BL_SCALAR, 0),
                                     [HIGH] = bl_full(g, dtype, BL_SCALAR, INFINITY),
                                     [LENGTH] = first,
                                     [AT] = l->from,
                                     [GRADIENT] = slope,
                                     [VALUE] = l->value,
                                     [FOUND] = bl_full(g, BL_BOOL, BL_SCALAR, 0)};
    bl_while(g, TRIALS, not_found, try_length, l, carry, LINE_CARRIES, last);
}

/* --- the iteration ---------------------------------------------------------------------------- */

enum { X, SLOPE, HEIGHT, PROGRESS, NEWTON_CARRIES };
enum { STEPS_S = NEWTON_CARRIES, STEPS_Y, INVERSE, SCALE, CARRIES };

static bl_tensor steepness(bl_tensor slope)
{
    return bl_reduce_max(bl_abs(slope));
}

static bl_tensor goes_on(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g;
    const problem *p = context;
    return bl_and(carry[PROGRESS], bl_gt(steepness(carry[SLOPE]), p->tolerance));
}

/* rows with `row` before them and without the last. */
static bl_tensor push(bl_tensor rows, bl_tensor row)
{
    bl_tensor parts[] = {bl_expand(row, 0), bl_slice_axis(rows, 0, 0, bl_dim(rows, 0) - 1)};
    return bl_concat(parts, 2, 0);
}

/* To where a search ended. Where no length was found, the lowest that was tried may still be an
 * improvement. */
static void move(const bl_tensor *carry, const bl_tensor *last, bl_tensor *next)
{
    bl_tensor lower = bl_lt(last[VALUE], carry[HEIGHT]);
    next[X] = bl_select(lower, last[AT], carry[X]);
    next[SLOPE] = bl_select(lower, last[GRADIENT], carry[SLOPE]);
    next[HEIGHT] = bl_select(lower, last[VALUE], carry[HEIGHT]);
    next[PROGRESS] = lower;
}

static void lbfgs_step(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    const problem *p = context;
    bl_tensor slope = carry[SLOPE], none = bl_eq(carry[SCALE], 0);
    bl_tensor scale = bl_select(none, bl_ones_like(carry[SCALE]), carry[SCALE]);
    bl_tensor direction = bl_neg(times_inverse(g, slope, &carry[STEPS_S], scale));
    line l = {p, carry[X], direction, carry[HEIGHT], bl_inner(slope, direction)};
    bl_tensor size = bl_max(1, bl_sqrt(bl_inner(slope, slope))), last[LINE_CARRIES];
    search(g, &l, bl_select(none, bl_div(1, size), bl_ones_like(size)), slope, last);

    move(carry, last, next);
    bl_tensor s = bl_sub(next[X], carry[X]), y = bl_sub(next[SLOPE], slope), sy = bl_inner(s, y);
    bl_tensor grew = bl_gt(sy, 0), divisor = bl_select(grew, sy, bl_ones_like(sy));
    bl_tensor yy = bl_inner(y, y);
    next[STEPS_S] = push(carry[STEPS_S], s);
    next[STEPS_Y] = push(carry[STEPS_Y], y);
    next[INVERSE] = push(carry[INVERSE], bl_select(grew, bl_div(1, divisor), 0));
    next[SCALE] = bl_select(grew, bl_div(sy, bl_select(grew, yy, bl_ones_like(yy))), carry[SCALE]);
}

static bl_tensor iterate(bl_graph *g, problem *p, bl_tensor start, bl_while_body *step,
                         bl_tensor *carry, int carries, bl_solution *report)
{
    bl_tensor last[CARRIES];
    carry[X] = bl_reshape(bl_stop_gradient(start), BL_SHAPE(-1));
    carry[HEIGHT] = value_at(g, p, carry[X], &carry[SLOPE]);
    carry[PROGRESS] = bl_full(g, BL_BOOL, BL_SCALAR, 1);
    bl_tensor steps = bl_while(g, p->limit, goes_on, step, p, carry, carries, last);
    bl_tensor residual = bl_stop_gradient(steepness(last[SLOPE]));
    if (report)
        *report = (bl_solution){steps, residual, last[PROGRESS]};
    return bl_stop_gradient(bl_reshape(last[X], p->shape));
}

/* --- the gradient -----------------------------------------------------------------------------
 *
 * The slope is zero at the minimum x whatever the parameters are: with the Hessian H and H l = g,
 * the parameters have the cotangent -d<slope, l> at constant x and l. */

/* parameter: the point, and then the parameters of the objective. */
static bl_tensor hessian_product(bl_graph *g, bl_tensor v, const bl_tensor *parameter,
                                 void *context)
{
    const problem *p = context;
    bl_tensor x = bl_apart(g, parameter[0]), slope, product;
    bl_tensor value = p->objective(g, x, parameter + 1, p->context);
    bl_grad(value, &x, 1, &slope);
    bl_grad(bl_inner(slope, v), &x, 1, &product);
    return product;
}

/* The point, and then these parameters. */
static bl_tensor *with_point(bl_graph *g, const problem *p, bl_tensor x, const bl_tensor *parameter)
{
    size_t bytes = (size_t)(p->parameters + 1) * sizeof(bl_tensor);
    bl_tensor *all = bl_arena_alloc(bl_graph_arena(g), bytes);
    if (!all) {
        bl_out_of_memory(g);
        return NULL;
    }
    all[0] = x;
    for (int i = 0; i < p->parameters; i++)
        all[1 + i] = parameter[i];
    return all;
}

static void gradient_of_minimum(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                                const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    problem *p = context;
    bl_tensor x, slope;
    bl_override_gradient(output, 1, input, p->parameters, gradient_of_minimum, p, &x);
    bl_tensor *all = with_point(g, p, x, input), *own = with_point(g, p, bl_apart(g, x), input);
    if (!all || !own)
        return;
    for (int i = 0; i < p->parameters; i++)
        own[1 + i] = bl_apart(g, input[i]);
    bl_tensor l = (bl_conjugate_gradients)(hessian_product, p, all, 1 + p->parameters, cotangent[0],
                                           p->tolerance, p->limit, NULL);
    bl_tensor value = p->objective(g, own[0], own + 1, p->context);
    bl_grad(value, own, 1, &slope);
    l = bl_neg(l);
    bl_vjp(&slope, &l, 1, own + 1, p->parameters, gradient);
}

/* --- Newton's method -------------------------------------------------------------------------- */

static void newton_step(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    problem *p = context;
    bl_tensor *all = with_point(g, p, bl_reshape(carry[X], p->shape), p->parameter);
    if (!all)
        return;
    bl_tensor slope = carry[SLOPE], size = bl_sqrt(bl_inner(slope, slope)), last[LINE_CARRIES];
    bl_tensor exact = bl_mul(size, bl_min(0.5, bl_sqrt(size)));
    bl_tensor found = (bl_conjugate_gradients)(hessian_product, p, all, 1 + p->parameters,
                                               bl_reshape(slope, p->shape), exact,
                                               bl_type_count(bl_type_of(slope)), NULL);
    found = bl_reshape(found, BL_SHAPE(-1));
    bl_tensor descends = bl_gt(bl_inner(found, slope), 0);
    bl_tensor direction = bl_neg(bl_select(descends, found, slope));
    line l = {p, carry[X], direction, carry[HEIGHT], bl_inner(slope, direction)};
    search(g, &l, bl_ones_like(size), slope, last);
    move(carry, last, next);
}

/* The problem, which is kept by the graph; NULL if memory is short. */
static problem *keep(bl_graph *g, const problem *given)
{
    problem *p = bl_arena_alloc(bl_graph_arena(g), sizeof *p);
    bl_tensor *kept =
        bl_arena_alloc(bl_graph_arena(g), (size_t)(given->parameters + 1) * sizeof *kept);
    if (!p || !kept) {
        bl_out_of_memory(g);
        return NULL;
    }
    for (int i = 0; i < given->parameters; i++)
        kept[i] = given->parameter[i];
    *p = *given;
    p->parameter = kept;
    return p;
}

static bl_graph *graph_of(const problem *p, bl_tensor start)
{
    bl_graph *g = bl_innermost(start.graph, p->parameter, p->parameters);
    return bl_innermost(g, &p->tolerance, 1);
}

static bl_tensor with_gradient(problem *p, bl_tensor x)
{
    if (p->parameters)
        bl_override_gradient(&x, 1, p->parameter, p->parameters, gradient_of_minimum, p, &x);
    return x;
}

bl_tensor(bl_minimize)(bl_objective *objective, void *context, const bl_tensor *parameter,
                       int parameters, bl_tensor start, int memory, bl_tensor tolerance,
                       int64_t limit, bl_solution *report)
{
    if (!bl_need_tensor("minimize", start))
        return bl_spoil(start.graph, "minimize");
    bl_type type = bl_type_of(start);
    problem given = {objective, context, parameters, parameter, tolerance, type.shape, limit};
    bl_graph *g = graph_of(&given, start);
    problem *p = keep(g, &given);
    if (!p)
        return bl_poisoned(g);
    int64_t n = bl_type_count(type), k = memory > 0 ? memory : MEMORY;
    bl_tensor carry[CARRIES];
    carry[STEPS_S] = carry[STEPS_Y] = bl_full(g, type.dtype, BL_SHAPE(k, n), 0);
    carry[INVERSE] = bl_full(g, type.dtype, BL_SHAPE(k), 0);
    carry[SCALE] = bl_full(g, type.dtype, BL_SCALAR, 0);
    return with_gradient(p, iterate(g, p, start, lbfgs_step, carry, CARRIES, report));
}

bl_tensor(bl_newton)(bl_objective *objective, void *context, const bl_tensor *parameter,
                     int parameters, bl_tensor start, bl_tensor tolerance, int64_t limit,
                     bl_solution *report)
{
    if (!bl_need_tensor("newton", start))
        return bl_spoil(start.graph, "newton");
    problem given = {objective, context, parameters, parameter, tolerance, bl_type_of(start).shape,
                     limit};
    bl_graph *g = graph_of(&given, start);
    problem *p = keep(g, &given);
    bl_tensor carry[NEWTON_CARRIES];
    if (!p)
        return bl_poisoned(g);
    return with_gradient(p, iterate(g, p, start, newton_step, carry, NEWTON_CARRIES, report));
}
