/* Sparsity-constrained transport. Liu, Puigcerver and Blondel, ICLR 2023, arXiv 2209.15466. Each
 * column of the plan T [m,n] takes from at most k rows, by construction; a quadratic term gamma/2
 * |T|^2 makes the dual smooth enough for L-BFGS. With k = 1 .. m it goes from one source a target
 * to quadratically regularised transport.
 *
 * Both forms are to be maximised: the dual in alpha [m] and beta [n], the semi-dual in alpha alone,
 * where each column meets its mass b_j by a projection. Inside all is double and transposed, a
 * target a row. */
#include "methods/method.h"

#include "ballast/solve.h"

/* --- rows with at most k entries -------------------------------------------------------------- */

static int64_t at_most(int64_t k, bl_tensor rows)
{
    int64_t n = bl_dim(rows, -1);
    return k < n ? k : n;
}

/* Rows that are zero but for `value` at `index`, [R,k]. */
static bl_tensor scatter(bl_tensor like, bl_tensor index, bl_tensor value)
{
    return bl_add_along(bl_zeros_like(like), index, value, -1);
}

/* The projection of the rows of v [R,n] on those with t >= 0, sum z [R,1] and at most k entries:
 * t = max(v - tau, 0) on the k largest. The multiplier tau is [R,1]; where z is 0 it is the largest
 * entry, and t is 0. */
static bl_tensor project(bl_tensor v, int64_t k, bl_tensor z, bl_tensor *tau)
{
    bl_tensor u, index;
    k = at_most(k, v);
    bl_top_k(v, k, &u, &index);
    /* From the largest on, so that a small z is not lost beside it. */
    bl_tensor top = bl_stop_gradient(bl_slice_axis(u, -1, 0, 1)), below = bl_sub(u, top);
    bl_tensor i = bl_add(bl_iota(v.graph, BL_F64, BL_SHAPE(1, k), 1), 1);
    bl_tensor css = bl_sub(bl_cumsum(below, -1), z), share = bl_div(css, i);
    bl_tensor rho = bl_reduce_max_keep(bl_select(bl_gt(below, share), i, 0), -1);
    bl_tensor threshold = bl_sum_keep(bl_select(bl_eq(i, rho), share, 0), -1);
    bl_tensor kept = bl_and(bl_le(i, rho), bl_gt(below, threshold));
    *tau = bl_add(top, threshold);
    return scatter(v, index, bl_select(kept, bl_sub(below, threshold), 0));
}

#define SPARSE_OT_PROJECT(IN, OPT, OUT)                                                            \
    IN(v, "f32[R,N]", "grad", "any rows")                                                          \
    OPT(k, BL_REQUIRED_INTEGER, ">= 1", "most entries of a row that are not 0")                    \
    OPT(z, 1.0, "[0,inf)", "what a row adds up to")                                                \
    OUT(t, "f32[R,N]", "the nearest such rows that are not negative")

BL_CONTRACT(sparse_ot_project, SPARSE_OT_PROJECT, "projection on sparse scaled simplices")
{
    bl_tensor v = bl_to_f64(f->v), tau;
    f->t = f->v;
    if (bl_dim(v, 1) > 0)
        f->t = bl_to_f32(project(v, f->k, bl_to_f64(f->z), &tau));
}

/* --- the objectives --------------------------------------------------------------------------- */

/* A problem in double: masses a [m], b [n], and the cost transposed, [n,m]. */
typedef struct transport {
    bl_tensor a, b, cost;
} transport;

typedef struct shape_of_plan {
    int64_t k;
    bl_tensor gamma;
} shape_of_plan;

/* <alpha,a> + <beta,b> - sum gamma/2 |plan|^2, for plan = max(s, 0)/gamma on the k largest of a row
 * of s = alpha + beta - cost. */
static bl_tensor dual(const transport *t, shape_of_plan shape, bl_tensor alpha, bl_tensor beta,
                      bl_tensor *plan)
{
    bl_tensor s = bl_sub(bl_add(bl_expand(alpha, 0), bl_expand(beta, 1)), t->cost), value, index;
    bl_top_k(s, at_most(shape.k, s), &value, &index);
    *plan = scatter(s, index, bl_div(bl_relu(value), shape.gamma));
    bl_tensor penalty = bl_mul(bl_mul(0.5, shape.gamma), bl_inner(*plan, *plan));
    return bl_sub(bl_add(bl_inner(alpha, t->a), bl_inner(beta, t->b)), penalty);
}

/* <alpha,a> - sum_j [<alpha - cost_j, plan_j> - gamma/2 |plan_j|^2], for the plan whose rows are
 * the projections of (alpha - cost_j)/gamma; beta is what the dual would have. */
static bl_tensor semidual(const transport *t, shape_of_plan shape, bl_tensor alpha, bl_tensor *plan,
                          bl_tensor *beta)
{
    bl_tensor s = bl_sub(bl_expand(alpha, 0), t->cost), tau;
    *plan = project(bl_div(s, shape.gamma), shape.k, bl_expand(t->b, 1), &tau);
    *beta = bl_neg(bl_squeeze(bl_mul(shape.gamma, tau), 1));
    bl_tensor gain =
        bl_sub(bl_inner(s, *plan), bl_mul(bl_mul(0.5, shape.gamma), bl_inner(*plan, *plan)));
    return bl_sub(bl_inner(alpha, t->a), gain);
}

/* Masses that add up to 1 but for rounding, which the gradient does not see. */
static bl_tensor mass(bl_tensor a)
{
    a = bl_to_f64(a);
    return bl_straight_through(bl_div(a, bl_sum(a)), a);
}

static transport problem_of(bl_tensor a, bl_tensor b, bl_tensor cost)
{
    return (transport){mass(a), mass(b), bl_transpose(bl_to_f64(cost))};
}

#define MASSES_AND_COST(IN)                                                                        \
    IN(a, "f32[M]", "grad, >= 0, sums to 1 within 1e-4", "masses of the sources")                  \
    IN(b, "f32[N]", "grad, >= 0, sums to 1 within 1e-4", "masses of the targets")                  \
    IN(cost, "f32[M,N]", "grad, finite", "cost of every pair")
#define PLAN(OPT)                                                                                  \
    OPT(k, BL_REQUIRED_INTEGER, ">= 1", "most sources of a target")                                \
    OPT(gamma, BL_REQUIRED, "(0,inf)", "weight of the quadratic term")
#define VALUE_AND_PLAN(OUT)                                                                        \
    OUT(value, "f32[]", "of the objective, to be maximised")                                       \
    OUT(plan, "f32[M,N]", "a column is a target")

#define SPARSE_OT_DUAL(IN, OPT, OUT)                                                               \
    IN(alpha, "f32[M]", "grad, finite", "potentials of the sources")                               \
    IN(beta, "f32[N]", "grad, finite", "potentials of the targets")                                \
    MASSES_AND_COST(IN)                                                                            \
    PLAN(OPT)                                                                                      \
    VALUE_AND_PLAN(OUT)

BL_CONTRACT(sparse_ot_dual, SPARSE_OT_DUAL, "the dual objective and its plan")
{
    transport t = problem_of(f->a, f->b, f->cost);
    shape_of_plan shape = {f->k, bl_to_f64(f->gamma)};
    bl_tensor plan;
    f->value = bl_to_f32(dual(&t, shape, bl_to_f64(f->alpha), bl_to_f64(f->beta), &plan));
    f->plan = bl_to_f32(bl_transpose(plan));
}

#define SPARSE_OT_SEMIDUAL(IN, OPT, OUT)                                                           \
    IN(alpha, "f32[M]", "grad, finite", "potentials of the sources")                               \
    MASSES_AND_COST(IN)                                                                            \
    PLAN(OPT)                                                                                      \
    VALUE_AND_PLAN(OUT)

BL_CONTRACT(sparse_ot_semidual, SPARSE_OT_SEMIDUAL, "the semi-dual objective and its plan")
{
    transport t = problem_of(f->a, f->b, f->cost);
    shape_of_plan shape = {f->k, bl_to_f64(f->gamma)};
    bl_tensor plan, beta;
    f->value = bl_to_f32(semidual(&t, shape, bl_to_f64(f->alpha), &plan, &beta));
    f->plan = bl_to_f32(bl_transpose(plan));
}

/* --- the solver ------------------------------------------------------------------------------- */

/* parameter: a, b, cost, gamma. */
static bl_tensor negative_semidual(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g;
    transport t = {p[0], p[1], p[2]};
    bl_tensor plan, beta;
    return bl_neg(semidual(&t, (shape_of_plan){*(const int64_t *)context, p[3]}, x, &plan, &beta));
}

/* x: alpha, then beta. */
static bl_tensor negative_dual(bl_graph *g, bl_tensor x, const bl_tensor *p, void *context)
{
    (void)g;
    transport t = {p[0], p[1], p[2]};
    int64_t m = bl_dim(p[0], 0), all = bl_dim(x, 0);
    bl_tensor plan, alpha = bl_slice_axis(x, 0, 0, m), beta = bl_slice_axis(x, 0, m, all);
    return bl_neg(dual(&t, (shape_of_plan){*(const int64_t *)context, p[3]}, alpha, beta, &plan));
}

static bl_tensor largest(bl_tensor x)
{
    return bl_reduce_max(bl_abs(x));
}

#define SPARSE_OT_SOLVE(IN, OPT, OUT)                                                              \
    MASSES_AND_COST(IN)                                                                            \
    PLAN(OPT)                                                                                      \
    OPT(form, "semidual", "semidual|dual", "which objective is maximised")                         \
    OPT(tol, 1e-6, "[0,inf)", "largest error of a mass")                                           \
    OPT(max_iter, 500, ">= 1", "most iterations")                                                  \
    VALUE_AND_PLAN(OUT)                                                                            \
    OUT(violation, "f32[]", "largest error of a mass")                                             \
    OUT(feasible, "bool[]", "whether that is at most 10 tol; false is \"not feasible\"")           \
    OUT(n_iter, "i32[]", "iterations")                                                             \
    OUT(alpha, "f32[M]", "potentials of the sources")                                              \
    OUT(beta, "f32[N]", "potentials of the targets")

/* The value has the gradient of the optimum (envelope): the plan in cost, the potentials in the
 * masses. All else is constant. */
BL_CONTRACT(sparse_ot_solve, SPARSE_OT_SOLVE, "the plan, by L-BFGS")
{
    transport t = problem_of(f->a, f->b, f->cost);
    shape_of_plan shape = {
        f->k, bl_stop_gradient(bl_add(bl_full(graph, BL_F64, BL_SCALAR, 0), bl_to_f64(f->gamma)))};
    bl_tensor p[] = {t.a, t.b, t.cost, shape.gamma}, plan, value;
    int64_t m = bl_dim(t.a, 0), n = bl_dim(t.b, 0);
    bool whole = bl_is(f->form, "dual");
    bl_tensor start = bl_full(graph, BL_F64, BL_SHAPE(whole ? m + n : m), 0);
    bl_solution solution;
    bl_tensor x =
        bl_stop_gradient(bl_minimize(whole ? negative_dual : negative_semidual, &f->k, p, 4, start,
                                     0, bl_to_f64(f->tol), f->max_iter, &solution));
    bl_tensor alpha = bl_slice_axis(x, 0, 0, m), beta = alpha;
    if (whole) {
        beta = bl_slice_axis(x, 0, m, m + n);
        value = dual(&t, shape, alpha, beta, &plan);
    } else {
        value = semidual(&t, shape, alpha, &plan, &beta);
    }
    bl_tensor rows = largest(bl_sub(bl_sum(plan, 0), t.a));
    bl_tensor violation = bl_stop_gradient(bl_max(rows, largest(bl_sub(bl_sum(plan, 1), t.b))));
    f->value = bl_to_f32(value);
    f->plan = bl_to_f32(bl_stop_gradient(bl_transpose(plan)));
    f->violation = bl_to_f32(violation);
    f->feasible = bl_le(violation, bl_mul(10, bl_to_f64(f->tol)));
    f->n_iter = solution.steps;
    f->alpha = bl_to_f32(alpha);
    f->beta = bl_to_f32(bl_stop_gradient(beta));
}

const bl_method bl_sparse_ot = {
    .slug = "sparse_ot",
    .family = "solvers",
    .paper = "Liu, Puigcerver and Blondel 2023, arXiv 2209.15466",
    .summary = "matches sources to targets, each target with at most k sources",
    .when = "For routing with a capacity, for matchings that can be read, or for transporting "
            "colours. A solve takes some hundred evaluations of all pairs, more for small k.",
    .example = "ballast show sparse_ot_solve",
    .functions = {&sparse_ot_solve_contract, &sparse_ot_project_contract, &sparse_ot_dual_contract,
                  &sparse_ot_semidual_contract},
};
