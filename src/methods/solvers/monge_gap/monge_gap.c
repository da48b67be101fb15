/* The Monge gap. Uscidda and Cuturi, ICML 2023, arXiv 2302.04953. A map T moves points x_i to
 * y_i = T(x_i); its mean cost minus the cost of the best transport between the points and their
 * images is at least 0, and 0 exactly where T is optimal. As a penalty it makes any network an
 * optimal map, for any cost; the Sinkhorn divergence makes the images look like the target.
 *
 * Transport is entropic, by ballast/solve.h, in double: the gap is a small difference. */
#include "methods/method.h"

#include "ballast/solve.h"

#define COSTS "sqeuclidean|half_sqeuclidean|euclidean|lp_power|cosine|geodesic"
#define GROUND_COST(OPT)                                                                           \
    OPT(cost, "sqeuclidean", COSTS, "ground cost c(x,y)")                                          \
    OPT(p, 2.0, "[1,inf)", "exponent of lp_power")
#define SINKHORN(OPT)                                                                              \
    OPT(eps, BL_REQUIRED, "(0,inf)", "weight of the entropy; a constant to the gradient")          \
    OPT(tol, 1e-6, "[0,inf)", "largest sum of errors of the plan's row sums")                      \
    OPT(max_iter, 20000, ">= 1", "most iterations")

/* --- the ground cost -------------------------------------------------------------------------- */

static bl_tensor arc_cosine(bl_tensor x)
{
    bl_tensor inside = bl_clamp(x, -1 + 1e-7, 1 - 1e-7);
    return bl_atan2(bl_sqrt(bl_mul(bl_sub(1, inside), bl_add(1, inside))), inside);
}

static bl_tensor squares_of(bl_tensor rows)
{
    return bl_sum(bl_square(rows), -1);
}

/* x [n,d], y [m,d] in double: all costs [n,m]. */
static bl_tensor pairwise_cost(bl_tensor x, bl_tensor y, const char *cost, bl_tensor p)
{
    if (bl_is(cost, "cosine") || bl_is(cost, "geodesic")) {
        bl_tensor inner = bl_dot(x, y, false, true);
        if (bl_is(cost, "geodesic"))
            return arc_cosine(inner);
        bl_tensor norms = bl_mul(bl_norm_keep(x, -1), bl_expand(bl_norm(y, -1), 0));
        return bl_sub(1, bl_div(inner, bl_add(norms, 1e-8)));
    }
    bl_tensor difference = bl_sub(bl_expand(x, 1), bl_expand(y, 0));
    if (bl_is(cost, "euclidean"))
        return bl_norm(difference, -1);
    if (bl_is(cost, "lp_power"))
        return bl_div(bl_sum(bl_pow(bl_abs(difference), p), -1), p);
    /* In double nothing of single coordinates is lost by the product. */
    bl_tensor norms = bl_add(bl_expand(squares_of(x), 1), bl_expand(squares_of(y), 0));
    bl_tensor squares = bl_sub(norms, bl_mul(2, bl_dot(x, y, false, true)));
    return bl_is(cost, "half_sqeuclidean") ? bl_mul(0.5, squares) : squares;
}

#define MONGE_GAP_COST(IN, OPT, OUT)                                                               \
    IN(x, "f32[N,D]", "grad, rows > 0, finite", "points")                                          \
    IN(y, "f32[M,D]", "grad, rows > 0, finite", "other points")                                    \
    GROUND_COST(OPT)                                                                               \
    OUT(c, "f32[N,M]", "cost of every pair")

BL_CONTRACT(monge_gap_cost, MONGE_GAP_COST, "pairwise ground cost")
{
    f->c = bl_to_f32(pairwise_cost(bl_to_f64(f->x), bl_to_f64(f->y), f->cost, bl_to_f64(f->p)));
}

#define MONGE_GAP_EPSILON(IN, OPT, OUT)                                                            \
    IN(x, "f32[N,D]", "rows > 0, finite", "points")                                                \
    IN(y, "f32[M,D]", "rows > 0, finite", "other points")                                          \
    GROUND_COST(OPT)                                                                               \
    OPT(relative, 0.05, "(0,inf)", "share of the statistic")                                       \
    OPT(stat, "mean", "mean|std", "of all costs")                                                  \
    OUT(eps, "f32[]", "a weight of the entropy that suits the data")

BL_CONTRACT(monge_gap_epsilon, MONGE_GAP_EPSILON, "the scale of entropy, without gradient")
{
    bl_tensor c = pairwise_cost(bl_to_f64(f->x), bl_to_f64(f->y), f->cost, bl_to_f64(f->p));
    bl_tensor scale = bl_is(f->stat, "mean") ? bl_mean(c) : bl_sqrt(bl_variance(c));
    f->eps = bl_to_f32(bl_stop_gradient(bl_mul(bl_to_f64(f->relative), scale)));
}

/* --- entropic transport ----------------------------------------------------------------------- */

static bl_tensor entropy(bl_tensor a)
{
    return bl_neg(bl_sum(bl_mul(a, bl_log(a))));
}

#define MONGE_GAP_SINKHORN(IN, OPT, OUT)                                                           \
    IN(c, "f32[N,M]", "grad, rows > 0, finite", "cost of every pair")                              \
    IN(a, "f32[N]", "> 0, sums to 1 within 1e-4", "masses of the rows")                            \
    IN(b, "f32[M]", "rows > 0, > 0, sums to 1 within 1e-4", "masses of the columns")               \
    SINKHORN(OPT)                                                                                  \
    OUT(ent_cost, "f32[]", "<P,c> - eps H(P)")                                                     \
    OUT(kl_cost, "f32[]", "<P,c> + eps KL(P | a b^T)")                                             \
    OUT(plan, "f32[N,M]", "P; without gradient, as the potentials")                                \
    OUT(f, "f32[N]", "potential of the rows, of mean 0")                                           \
    OUT(g, "f32[M]", "potential of the columns")                                                   \
    OUT(violation, "f32[]", "sum of the errors of the row sums: converged if below tol")           \
    OUT(n_iter, "i32[]", "iterations")

BL_CONTRACT(monge_gap_sinkhorn, MONGE_GAP_SINKHORN, "entropic optimal transport")
{
    bl_tensor a = bl_to_f64(f->a), b = bl_to_f64(f->b), eps = bl_to_f64(f->eps);
    bl_transport t;
    a = bl_div(a, bl_sum(a));
    b = bl_div(b, bl_sum(b));
    bl_sinkhorn(bl_to_f64(f->c), a, b, eps, bl_to_f64(f->tol), f->max_iter, &t);
    f->ent_cost = bl_to_f32(t.value);
    f->kl_cost =
        bl_to_f32(bl_add(t.value, bl_mul(bl_stop_gradient(eps), bl_add(entropy(a), entropy(b)))));
    f->plan = bl_to_f32(t.plan);
    f->f = bl_to_f32(t.f);
    f->g = bl_to_f32(t.g);
    f->violation = bl_to_f32(t.violation);
    f->n_iter = t.steps;
}

/* Transport at cost c [n,m] between equal masses; returns log n + log m, the sum of the entropies
 * of the masses. */
static double uniform_transport(bl_graph *graph, bl_tensor c, bl_tensor eps, bl_tensor tol,
                                int64_t max_iter, bl_transport *t)
{
    double n = (double)bl_dim(c, 0), m = (double)bl_dim(c, 1);
    bl_tensor a = bl_full(graph, BL_F64, BL_SHAPE(bl_dim(c, 0)), 1 / n);
    bl_tensor b = bl_full(graph, BL_F64, BL_SHAPE(bl_dim(c, 1)), 1 / m);
    bl_sinkhorn(c, a, b, bl_to_f64(eps), bl_to_f64(tol), max_iter, t);
    return log(n) + log(m);
}

#define MONGE_GAP(IN, OPT, OUT)                                                                    \
    IN(x, "f32[N,D]", "grad, rows > 0, finite", "reference points, usually the source batch")      \
    IN(y, "f32[N,D]", "grad, finite", "T(x), in the same order")                                   \
    GROUND_COST(OPT)                                                                               \
    SINKHORN(OPT)                                                                                  \
    OPT(entropy, "shannon", "shannon|kl", "which entropy the transport cost has")                  \
    OUT(gap, "f32[]", "displacement minus the cost of transport")                                  \
    OUT(displacement, "f32[]", "mean c(x_i, y_i)")                                                 \
    OUT(ent_cost, "f32[]", "cost of transport with Shannon's entropy, under either choice")        \
    OUT(plan, "f32[N,N]", "of the best transport; without gradient")                               \
    OUT(violation, "f32[]", "sum of the errors of its row sums: converged if below tol")           \
    OUT(n_iter, "i32[]", "iterations")

BL_CONTRACT(monge_gap, MONGE_GAP, "how far a map is from the cheapest one")
{
    int64_t n = bl_dim(f->x, 0);
    bl_tensor c = pairwise_cost(bl_to_f64(f->x), bl_to_f64(f->y), f->cost, bl_to_f64(f->p));
    bl_tensor row = bl_iota(graph, BL_I32, BL_SHAPE(n, n), 0);
    bl_tensor own = bl_eq(row, bl_iota(graph, BL_I32, BL_SHAPE(n, n), 1));
    bl_tensor displacement = bl_div(bl_sum(bl_select(own, c, 0)), (double)n);
    bl_transport t;
    double entropies = uniform_transport(graph, c, f->eps, f->tol, f->max_iter, &t);

    bl_tensor best = t.value;
    if (bl_is(f->entropy, "kl"))
        best = bl_add(best, bl_mul(bl_stop_gradient(bl_to_f64(f->eps)), entropies));
    f->gap = bl_to_f32(bl_sub(displacement, best));
    f->displacement = bl_to_f32(displacement);
    f->ent_cost = bl_to_f32(t.value);
    f->plan = bl_to_f32(t.plan);
    f->violation = bl_to_f32(t.violation);
    f->n_iter = t.steps;
}

/* --- the fitting loss ------------------------------------------------------------------------- */

#define MONGE_GAP_DIVERGENCE(IN, OPT, OUT)                                                         \
    IN(x, "f32[N,D]", "grad, rows > 0, finite", "points")                                          \
    IN(y, "f32[M,D]", "grad, rows > 0, finite", "other points")                                    \
    GROUND_COST(OPT)                                                                               \
    SINKHORN(OPT)                                                                                  \
    OUT(divergence, "f32[]", "kl(x,y) - kl(x,x)/2 - kl(y,y)/2")

BL_CONTRACT(monge_gap_divergence, MONGE_GAP_DIVERGENCE, "the Sinkhorn divergence of two samples")
{
    bl_tensor x[] = {bl_to_f64(f->x), bl_to_f64(f->y)}, value[3];
    static const int pair[3][2] = {{0, 1}, {0, 0}, {1, 1}};
    for (int k = 0; k < 3; k++) {
        bl_transport t;
        bl_tensor c = pairwise_cost(x[pair[k][0]], x[pair[k][1]], f->cost, bl_to_f64(f->p));
        double entropies = uniform_transport(graph, c, f->eps, f->tol, f->max_iter, &t);
        value[k] = bl_add(t.value, bl_mul(bl_stop_gradient(bl_to_f64(f->eps)), entropies));
    }
    f->divergence = bl_to_f32(bl_sub(value[0], bl_mul(0.5, bl_add(value[1], value[2]))));
}

const bl_method bl_monge_gap = {
    .slug = "monge_gap",
    .family = "solvers",
    .paper = "Uscidda and Cuturi 2023, arXiv 2302.04953",
    .summary = "learns maps between two samples that move mass as cheaply as possible",
    .when = "For pairing two unpaired samples by a network, at any cost of moving, or to keep a "
            "generator from shuffling points. A step costs a few transport problems of its batch.",
    .example = "ballast show monge_gap_sinkhorn",
    .functions = {&monge_gap_contract, &monge_gap_cost_contract, &monge_gap_epsilon_contract,
                  &monge_gap_sinkhorn_contract, &monge_gap_divergence_contract},
};
