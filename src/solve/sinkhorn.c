/* Entropic optimal transport in a graph: Sinkhorn's iterations on u = f/epsilon and v = g/epsilon,
 *
 *     u_i = log a_i - logsumexp_j(v_j - cost_ij/epsilon),   v_j = log b_j - logsumexp_i(u_i - ..).
 *
 * The rows of both -cost/epsilon and its transpose are contiguous, so that the two halves of a step
 * are alike. Ten steps are one scan; a loop around it looks whether they were enough. */
#define BL_KEEP_PLACE
#include <math.h>

#include "ballast/solve.h"
#include "solve/implicit.h"

enum { BETWEEN_LOOKS = 10 };

typedef struct problem {
    bl_tensor log_a, log_b, a;
    bl_tensor rows, columns; /* -cost/epsilon [n,m], and its transpose */
    bl_tensor tolerance;
    int64_t steps;
} problem;

enum { U, V, VIOLATION, CARRIES };

/* logsumexp_j(v_j + rows_ij) */
static bl_tensor soft_maximum(bl_tensor rows, bl_tensor v)
{
    return bl_logsumexp(bl_add(rows, bl_expand(v, 0)), -1);
}

static void sinkhorn_step(bl_graph *g, const bl_tensor *carry, const bl_tensor *x, bl_tensor *next,
                          bl_tensor *y, void *context)
{
    (void)g, (void)x, (void)y;
    const problem *p = context;
    next[U] = bl_sub(p->log_a, soft_maximum(p->rows, carry[V]));
    next[V] = bl_sub(p->log_b, soft_maximum(p->columns, next[U]));
}

static void several_steps(bl_graph *g, problem *p, int64_t steps, const bl_tensor *uv,
                          bl_tensor *last)
{
    bl_scan(g, steps, sinkhorn_step, p, uv, 2, NULL, 0, last, NULL, 0);
}

/* sum_i |sum_j P_ij - a_i| */
static bl_tensor violation(const problem *p, const bl_tensor *uv)
{
    bl_tensor row = bl_exp(bl_add(uv[U], soft_maximum(p->rows, uv[V])));
    return bl_sum(bl_abs(bl_sub(row, p->a)));
}

static bl_tensor not_yet(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g;
    const problem *p = context;
    return bl_ge(carry[VIOLATION], p->tolerance);
}

static void steps_and_look(bl_graph *g, const bl_tensor *carry, bl_tensor *next, void *context)
{
    problem *p = context;
    several_steps(g, p, BETWEEN_LOOKS, carry, next);
    next[VIOLATION] = violation(p, next);
}

/* Rounds of ten steps until they are enough, then what is left of the limit; returns the steps. */
static bl_tensor until_met(bl_graph *g, problem *p, int64_t limit, bl_tensor *uv)
{
    bl_tensor carry[CARRIES] = {uv[U], uv[V]}, last[CARRIES], more[2];
    carry[VIOLATION] = bl_full(g, bl_type_of(uv[U]).dtype, BL_SCALAR, INFINITY);
    bl_tensor rounds =
        bl_while(g, limit / BETWEEN_LOOKS, not_yet, steps_and_look, p, carry, CARRIES, last);
    bl_tensor steps = bl_mul(rounds, BETWEEN_LOOKS), go = not_yet(g, last, p);
    if (limit % BETWEEN_LOOKS) {
        several_steps(g, p, limit % BETWEEN_LOOKS, last, more);
        for (int i = 0; i < 2; i++)
            last[i] = bl_select(go, more[i], last[i]);
        steps = bl_add(steps, bl_select(go, bl_full_like(steps, (double)(limit % BETWEEN_LOOKS)),
                                        bl_zeros_like(steps)));
    }
    uv[U] = last[U], uv[V] = last[V];
    return steps;
}

static bl_tensor solve(bl_graph *g, problem *p, int64_t limit, bl_tensor *uv)
{
    uv[U] = bl_zeros_like(p->log_a), uv[V] = bl_zeros_like(p->log_b);
    if (!bl_is_number(p->tolerance) || p->tolerance.number > 0)
        return until_met(g, p, limit, uv);
    bl_tensor last[2];
    several_steps(g, p, limit, uv, last);
    uv[U] = last[U], uv[V] = last[V];
    return bl_full(g, BL_I32, BL_SCALAR, (double)limit);
}

/* The envelope theorem: at the optimum only the explicit cost and masses count. */
enum { VALUE, PLAN, F, G, OUTPUTS };
static void gradient_of_value(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                              const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    (void)g, (void)input, (void)context;
    gradient[0] = bl_mul(cotangent[VALUE], output[PLAN]);
    gradient[1] = bl_mul(cotangent[VALUE], output[F]);
    gradient[2] = bl_mul(cotangent[VALUE], output[G]);
}

static bool shapes_fit(bl_graph *graph, bl_tensor cost, bl_tensor a, bl_tensor b)
{
    if (bl_is_poison(cost) || bl_is_poison(a) || bl_is_poison(b))
        return bl_spoil(graph, "sinkhorn"), false;
    bool good = bl_rank(cost) == 2 && bl_rank(a) == 1 && bl_rank(b) == 1;
    if (good && bl_dim(a, 0) == bl_dim(cost, 0) && bl_dim(b, 0) == bl_dim(cost, 1))
        return true;
    bl_poison(graph, "sinkhorn: cost [n,m] with masses a[n] and b[m] expected, not %s, %s, %s",
              bl_show(bl_type_of(cost)), bl_show(bl_type_of(a)), bl_show(bl_type_of(b)));
    return false;
}

static void describe(const problem *p, const bl_tensor *input, bl_tensor epsilon,
                     const bl_tensor *uv, bl_transport *out)
{
    bl_tensor log_plan = bl_add(bl_add(bl_expand(uv[U], 1), bl_expand(uv[V], 0)), p->rows);
    bl_tensor f = bl_mul(epsilon, uv[U]), middle = bl_mean(f), output[OUTPUTS], result[OUTPUTS];
    output[PLAN] = bl_exp(log_plan);
    output[F] = bl_sub(f, middle);
    output[G] = bl_add(bl_mul(epsilon, uv[V]), middle);
    /* <P,cost> - epsilon H(P), as log P is (f + g - cost) / epsilon. */
    output[VALUE] =
        bl_sum(bl_mul(output[PLAN], bl_add(bl_expand(output[F], 1), bl_expand(output[G], 0))));
    for (int i = 0; i < OUTPUTS; i++)
        output[i] = bl_stop_gradient(output[i]);
    bl_override_gradient(output, OUTPUTS, input, 3, gradient_of_value, NULL, result);
    out->value = result[VALUE], out->plan = output[PLAN], out->f = output[F], out->g = output[G];
    out->violation = bl_stop_gradient(violation(p, uv));
}

void(bl_sinkhorn)(bl_tensor cost, bl_tensor a, bl_tensor b, bl_tensor epsilon, bl_tensor tolerance,
                  int64_t limit, bl_transport *out)
{
    bl_tensor input[] = {cost, a, b, epsilon, tolerance}, uv[2];
    bl_graph *g = bl_graph_of(input, 5);
    *out = (bl_transport){bl_poisoned(g), bl_poisoned(g), bl_poisoned(g),
                          bl_poisoned(g), bl_poisoned(g), bl_poisoned(g)};
    if (!shapes_fit(g, cost, a, b))
        return;
    epsilon = bl_stop_gradient(epsilon);
    bl_tensor rows = bl_neg(bl_div(bl_stop_gradient(cost), epsilon));
    problem p = {.a = bl_stop_gradient(a), .rows = rows, .columns = bl_transpose(rows)};
    p.log_a = bl_log(p.a), p.log_b = bl_log(bl_stop_gradient(b));
    p.tolerance = bl_stop_gradient(tolerance);
    out->steps = solve(g, &p, limit, uv);
    describe(&p, input, epsilon, uv, out);
}
