/* Solvers: problems given by functions, solved on the host or inside of graphs.
 *
 * On the host (fits, searches, orders: what takes no tensor) a problem is a callback on plain
 * row-major arrays of double; nothing is checked that only the caller can know, and what allocates
 * or can fail returns a status.
 *
 * In a graph a problem is a callback that builds: it gets the point and the tensors that the
 * problem depends on, its `parameter`s, and returns a tensor. The whole solve is one node of the
 * graph (a loop), runs inside of compiled programs, in the dtype of what it is given, and has a
 * gradient by a rule of its own, as often as it is asked for: not that of the steps that were
 * taken, but that of the solution (implicit function theorem) or of the optimal value (envelope
 * theorem). So the parameters must be passed as such: a tensor that the callback finds elsewhere,
 * by its context, is a constant to the gradient. `context` must live until the last
 * differentiation.
 *
 *     static bl_tensor ridge(bl_graph *g, bl_tensor w, const bl_tensor *p, void *context)
 *     {
 *         return bl_add(bl_matmul(bl_transpose(p[0]), bl_matmul(p[0], w)), bl_mul(p[1], w));
 *     }
 *     bl_tensor p[] = {x, lambda};
 *     bl_tensor w = bl_conjugate_gradients(ridge, NULL, p, 2, b, 1e-9, 500, NULL);
 *     bl_grad(loss_of(w), &lambda, 1, &slope);
 *
 * Not to converge is not an error: the last iterate is returned, and the report says how far it
 * came. To add a solver: a declaration here that says the problem, shapes, ties and corners, and
 * who described the algorithm; a file in src/solve of its own; tests in tests/test_solvers.c on a
 * problem with a known answer, and of its gradient against differentiation of the steps. */
#ifndef BALLAST_SOLVE_H
#define BALLAST_SOLVE_H

#include "ballast/program.h"

/* --- in graphs ------------------------------------------------------------------------------ */

/* y = A x, or any other map of x, with its parameters. */
typedef bl_tensor bl_map(bl_graph *g, bl_tensor x, const bl_tensor *parameter, void *context);

/* How a solve in a graph ended. Constants to the gradient. */
typedef struct bl_solution {
    bl_tensor steps;    /* i32[], taken */
    bl_tensor residual; /* scalar: what the tolerance was compared with, at the last iterate */
    bl_tensor good;     /* bool[]: the problem had the property that the solver needs throughout */
} bl_solution;

/* x with A x = b, for a linear map A that is symmetric and positive definite: conjugate gradients
 * (Hestenes and Stiefel 1952) from 0 until |b - A x| <= tolerance (a number or a scalar tensor), at
 * most `limit` steps. b is of any shape, and lengths are Euclidean over all of it. Where a
 * direction p has <p, A p> <= 0, A was not positive definite: the solve stops, and report->good is
 * false. report may be NULL. Gradient in b and in the parameters, by another solve. */
BL_API bl_tensor bl_conjugate_gradients(bl_map *map, void *context, const bl_tensor *parameter,
                                        int parameters, bl_tensor b, bl_tensor tolerance,
                                        int64_t limit, bl_solution *report);
#define bl_conjugate_gradients(map, context, parameter, parameters, b, tolerance, limit, report)   \
    BL_AT(bl_conjugate_gradients(map, context, parameter, parameters, b, BL_T(tolerance), limit,   \
                                 report))

/* A function to be minimised: a scalar of x. */
typedef bl_map bl_objective;

/* A point x where the objective's gradient is zero, reached from `start` by falling values: L-BFGS
 * (Nocedal 1980) with `memory` pairs (10 if 0) and steps that satisfy Wolfe's weak conditions,
 * found by bisection (Lewis and Overton 2013), which also does where gradients jump. It ends where
 * no entry of the gradient is above `tolerance` (a number or a scalar tensor), after `limit` steps,
 * or where no step lowers the value; report->good is false then. start is of any shape. Convex
 * objectives, those with a Hessian that is positive definite there, have a gradient in the
 * parameters, by conjugate gradients on its products; the start has none. */
BL_API bl_tensor bl_minimize(bl_objective *objective, void *context, const bl_tensor *parameter,
                             int parameters, bl_tensor start, int memory, bl_tensor tolerance,
                             int64_t limit, bl_solution *report);
#define bl_minimize(objective, context, parameter, parameters, start, memory, tolerance, limit,    \
                    report)                                                                        \
    BL_AT(bl_minimize(objective, context, parameter, parameters, BL_T(start), memory,              \
                      BL_T(tolerance), limit, report))

/* The same by Newton's method: directions from conjugate gradients on products with the Hessian,
 * solved the more exactly the smaller the gradient is (Dembo and Steihaug 1983), and the same
 * search along them. Fewer and more expensive steps: for high accuracy. Where the Hessian is not
 * positive definite a direction goes as far as conjugate gradients came. */
BL_API bl_tensor bl_newton(bl_objective *objective, void *context, const bl_tensor *parameter,
                           int parameters, bl_tensor start, bl_tensor tolerance, int64_t limit,
                           bl_solution *report);
#define bl_newton(objective, context, parameter, parameters, start, tolerance, limit, report)      \
    BL_AT(bl_newton(objective, context, parameter, parameters, BL_T(start), BL_T(tolerance),       \
                    limit, report))

/* x = F(x), by x <- F(x) from `start` until |F(x) - x| <= tolerance (a number or a scalar tensor)
 * or `limit` steps: F is a contraction. Gradient in the parameters, by such iterations on the
 * adjoint; the start has none. report->good is false where x left what is finite. */
BL_API bl_tensor bl_fixed_point(bl_map *map, void *context, const bl_tensor *parameter,
                                int parameters, bl_tensor start, bl_tensor tolerance, int64_t limit,
                                bl_solution *report);
#define bl_fixed_point(map, context, parameter, parameters, start, tolerance, limit, report)       \
    BL_AT(bl_fixed_point(map, context, parameter, parameters, BL_T(start), BL_T(tolerance), limit, \
                         report))

/* The largest singular value of a linear map A, by `steps` >= 1 of u = A v, v = A^T u / |A^T u|,
 * from v = start / |start|: |u| of the last step; 0 where a u or A^T u is 0. Gradient in the
 * parameters: that of <u, A v> / |u| at constant u and v, which is exact at convergence. */
BL_API bl_tensor bl_power_iteration(bl_map *map, void *context, const bl_tensor *parameter,
                                    int parameters, bl_tensor start, int64_t steps);
#define bl_power_iteration(map, context, parameter, parameters, start, steps)                      \
    BL_AT(bl_power_iteration(map, context, parameter, parameters, BL_T(start), steps))

/* Entropic optimal transport between masses a[n] and b[m], all positive with equal sums, at
 * cost[n,m]: the plan P that minimises <P,cost> - epsilon H(P), H(P) = -sum P log P, among those
 * with P 1 = a and P^T 1 = b. */
typedef struct bl_transport {
    bl_tensor value;     /* the minimum; its gradient is P in cost, f in a, g in b */
    bl_tensor plan;      /* P[n,m] = exp((f_i + g_j - cost_ij) / epsilon); this and what follows */
    bl_tensor f, g;      /* is constant to the gradient. Potentials [n], [m], f of mean 0 */
    bl_tensor violation; /* scalar: sum_i |sum_j P_ij - a_i|; columns are met exactly */
    bl_tensor steps;     /* i32[], of both potentials */
} bl_transport;

/* Sinkhorn's iterations (Sinkhorn and Knopp 1967, Cuturi 2013) for the logarithms, from f = g = 0,
 * at most `limit`, until violation < tolerance, looked at every ten steps. Where tolerance is the
 * number 0 there are exactly `limit` steps. epsilon > 0 and tolerance are numbers or scalars. The
 * gradient of the value is that of the optimum (Danskin), whatever the steps were: exact at
 * convergence. It may be differentiated once. */
BL_API void bl_sinkhorn(bl_tensor cost, bl_tensor a, bl_tensor b, bl_tensor epsilon,
                        bl_tensor tolerance, int64_t limit, bl_transport *out);
#define bl_sinkhorn(cost, a, b, epsilon, tolerance, limit, out)                                    \
    BL_AT(bl_sinkhorn(BL_T(cost), BL_T(a), BL_T(b), BL_T(epsilon), BL_T(tolerance), limit, out))

/* --- differential equations -------------------------------------------------------------------
 *
 * A field is a function that builds graph nodes: dz/dt = f(z, t), with parameters. One step of a
 * solver is nodes as well, so it may stand in any graph and be differentiated there; a whole
 * adaptive solve, whose number of steps depends on values, is a loop on the host over one compiled
 * step, and has its gradient by going back over the steps it took:
 *
 *     static bl_tensor decay(bl_tensor z, bl_tensor t, const bl_tensor *parameter, void *context)
 *     {
 *         return bl_neg(bl_mul(parameter[0], z));
 *     }
 *     bl_type rate = {BL_F64, BL_SCALAR};
 *     bl_ode *ode = NULL;
 *     BL_TRY(bl_ode_new(bl_device_cpu(), decay, NULL, (bl_type){BL_F64, BL_SHAPE(8, 3)}, &rate, 1,
 *                       (bl_ode_options){.relative = 1e-6, .absolute = 1e-6}, &ode));
 *     BL_TRY(bl_ode_solve(ode, &z0, &k, 0, 1, &z1, NULL));
 *     BL_TRY(bl_ode_gradient(ode, &k, &dz1, NULL, NULL, &dz0, &dk));     of <dz1, z1>
 *     bl_ode_free(ode);
 */

/* --- ordinary differential equations ------------------------------------------------------- */

/* Builds f(z, t), of z's type, for z of any shape in f32 or f64, and t, a scalar of that dtype. A
 * batch is one equation with many unknowns: its rows share their steps. */
typedef bl_tensor bl_ode_field(bl_tensor z, bl_tensor t, const bl_tensor *parameter, void *context);

/* What a step gives. Norms are rms(v) = sqrt(mean of v^2), over all entries. */
typedef struct bl_ode_step {
    bl_tensor z;         /* at t + dt */
    bl_tensor slope;     /* f there: the next step's first stage */
    bl_tensor error;     /* of the local error e: rms(e / (absolute + relative max(|z|, |z0|))) */
    bl_tensor error_rms; /* rms(e) */
    bl_tensor stiffness; /* |df| / |dz| of the last two stages; 0 where dz is 0 */
} bl_ode_step;

/* One step of Tsitouras' method of order 5 with an error estimate of order 4 (2011), from z at t,
 * where slope is f(z, t), to t + dt. Tolerances are positive numbers or scalars. The stiffness is
 * an estimate of the largest eigenvalue of f's derivative; times dt it may be about 3.5. */
BL_API bl_ode_step bl_tsit5_step(bl_ode_field *field, void *context, const bl_tensor *parameter,
                                 bl_tensor z, bl_tensor slope, bl_tensor t, bl_tensor dt,
                                 bl_tensor relative, bl_tensor absolute);
#define bl_tsit5_step(field, context, parameter, z, slope, t, dt, relative, absolute)              \
    BL_AT(bl_tsit5_step(field, context, parameter, BL_T(z), BL_T(slope), BL_T(t), BL_T(dt),        \
                        BL_T(relative), BL_T(absolute)))

typedef struct bl_ode_options {
    double relative, absolute; /* tolerances, > 0; near 1e-6 the state should be f64 */
    double first_step;         /* 0: chosen from the field (Hairer, Norsett and Wanner, II.4) */
    int64_t most_steps;        /* accepted and rejected ones; 0: 10000 */
} bl_ode_options;

/* A step that was taken: from t to t + dt. */
typedef struct bl_ode_accepted {
    double t, dt, error, stiffness;
} bl_ode_accepted;

typedef struct bl_ode_report {
    const bl_ode_accepted *step; /* [accepted], until the next solve or bl_ode_free */
    int64_t accepted, rejected;
    int64_t evaluations; /* of the field: 1, 1 more to choose a first step, 6 a step */
} bl_ode_report;

/* An equation compiled for a device, a type of state (f32 or f64) and of its parameters, and the
 * steps of its last solve. `context` must live as long. One bl_ode is not used by two threads at
 * once. */
typedef struct bl_ode bl_ode;
BL_API bl_status bl_ode_new(const bl_device *device, bl_ode_field *field, void *context,
                            bl_type state, const bl_type *parameter, int parameters,
                            bl_ode_options options, bl_ode **out);
BL_API void bl_ode_free(bl_ode *ode);

/* z1, the caller's array of the state's type, becomes the solution at t1 > t0 that is z0 at t0, by
 * Tsitouras' method with steps that a proportional-integral controller chooses so that each error
 * is at most 1. `report` may be NULL. Errors: a state or slope that is not finite, more than
 * most_steps, a step that no longer moves t. */
BL_API bl_status bl_ode_solve(bl_ode *ode, const bl_array *z0, const bl_array *parameter, double t0,
                              double t1, bl_array *z1, bl_ode_report *report);

/* The gradient of <dz1, z1> + sum over steps of (derror error + dstiffness stiffness) in z0 and the
 * parameters, of the last solve, back over its accepted steps, whose sizes are constants. derror
 * and dstiffness are [accepted], or NULL for zeros. dz0 and dparameter[..] are the caller's arrays,
 * which are overwritten. The parameters are those of the solve. */
BL_API bl_status bl_ode_gradient(bl_ode *ode, const bl_array *parameter, const bl_array *dz1,
                                 const double *derror, const double *dstiffness, bl_array *dz0,
                                 bl_array *dparameter);

/* --- stochastic differential equations ------------------------------------------------------ */

/* dz = drift dt + diffusion dW in Ito's sense, with noise of its own for each entry. */
typedef struct bl_sde {
    bl_ode_field *drift, *diffusion;
    void *context;
    const bl_tensor *parameter; /* both get the same */
} bl_sde;

typedef enum bl_sri_tableau {
    BL_SOSRI, /* for tolerances that are not strict */
    BL_SOSRI2 /* stable for larger steps: its stiffness times dt may be about 10.6 */
} bl_sri_tableau;

typedef struct bl_sde_step {
    bl_tensor z, error, stiffness;
} bl_sde_step;

/* One step of a stochastic Runge-Kutta method of strong order 1.5 (Rackauckas and Nie 2017, 2020)
 * from z at t to t + dt. dw and dv, of z's type, are two independent draws of variance dt for each
 * entry: dw is how far the Brownian motion goes, dt (dw + dv / sqrt 3) / 2 its integral from where
 * it was. `delta` weighs the drift's part of the error. */
BL_API bl_sde_step bl_sri_step(bl_sri_tableau tableau, bl_sde sde, bl_tensor z, bl_tensor t,
                               bl_tensor dt, bl_tensor dw, bl_tensor dv, bl_tensor relative,
                               bl_tensor absolute, bl_tensor delta);
#define bl_sri_step(tableau, sde, z, t, dt, dw, dv, relative, absolute, delta)                     \
    BL_AT(bl_sri_step(tableau, sde, BL_T(z), BL_T(t), BL_T(dt), BL_T(dw), BL_T(dv),                \
                      BL_T(relative), BL_T(absolute), BL_T(delta)))

/* --- on the host: fits, searches, orders ----------------------------------------------------- */

/* The k rows of rows[count,size] nearest to each of query[queries,size] in squared Euclidean
 * distance, nearest first, ties to the lower row: index and distance are [queries,k], either may be
 * NULL. 1 <= k <= count. Distances are sums of squared differences, so that d(a,b) = d(b,a) exactly
 * and d(a,a) = 0; a NaN is further than anything. */
BL_API bl_status bl_nearest_rows(const double *query, int64_t queries, const double *rows,
                                 int64_t count, int64_t size, int64_t k, int32_t *index,
                                 double *distance);

/* Lloyd's k-means (1982) of rows[count,size] from centroid[clusters,size] on, clusters >= 1: at
 * most `iterations` turns in which every row is assigned to the nearest centroid, ties to the
 * lower, and every centroid that has rows becomes their mean, added in order; then rows are
 * assigned once more. centroid is replaced; assignment is [count]. */
BL_API bl_status bl_kmeans(const double *rows, int64_t count, int64_t size, int64_t clusters,
                           int64_t iterations, double *centroid, int32_t *assignment);

/* p[n,n] for the points x[n,size], symmetric and of sum 1: how likely j is chosen as i's neighbour,
 * or i as j's, if each point chooses by a normal distribution around it, so wide that the choice
 * has the entropy log(perplexity), 1 < perplexity < n - 1 (van der Maaten and Hinton 2008). */
BL_API bl_status bl_tsne_affinities(const double *x, int64_t n, int64_t size, double perplexity,
                                    double *p);

/* Moves y[n,2] by momentum descent on the divergence of the map's affinities from p: the first 250
 * iterations with p times 12 and momentum 0.5, the others with momentum 0.8, at the rate
 * max(n / 48, 50) (Belkina et al. 2019) times a gain of each coordinate (Jacobs 1988). Start from
 * small values, as 1e-4 times the first two principal components, each divided by its deviation;
 * with fewer than a few hundred points the rate is so high that only many iterations settle. n^2
 * operations an iteration. */
BL_API bl_status bl_tsne_map(const double *p, int64_t n, int64_t iterations, double *y);

/* Both for many points x[n,size], n >= 2, 1 <= perplexity <= n - 1: the affinities of the
 * 3 perplexity nearest neighbours of each, the others' taken as 0, and groups of points that are far
 * from one, in a square less wide than half its distance, push as if they were in one place (van der
 * Maaten 2014). n log n operations an iteration. */
BL_API bl_status bl_tsne(const double *x, int64_t n, int64_t size, double perplexity,
                         int64_t iterations, double *y);

/* Writes residual[m] at x[n], and its derivatives jacobian[m,n] where that is not NULL. */
typedef void bl_residuals(const double *x, double *residual, double *jacobian, void *context);

enum { BL_LEAST_SQUARES_MAX = 8 }; /* unknowns */

/* A local minimum of sum residual^2 within low <= x <= high, from x on, which is within: Levenberg
 * (1944) and Marquardt (1963), with unknowns held at a bound as long as the sum would fall beyond
 * it. *objective is the sum at x. */
BL_API bl_status bl_least_squares(bl_residuals *residuals, void *context, int64_t m, int n,
                                  const double *low, const double *high, double *x,
                                  double *objective);

/* A function of one variable. */
typedef double bl_curve(double x, void *context);

typedef struct bl_minimum {
    double x, value;
    int64_t point; /* the lowest of the grid, before it was refined */
} bl_minimum;

/* The lowest value within low <= x <= high: the lowest of `points` >= 2 equally spaced ones, ends
 * included, the first of equals; then, between its neighbours, golden section (Kiefer 1953). NaN
 * is higher than anything; where all values are, so is the minimum's, and x is low. */
BL_API bl_minimum bl_grid_minimum(bl_curve *curve, void *context, double low, double high,
                                  int64_t points);

/* a[n,n] x = b[n,columns] by elimination with partial pivoting: b becomes x, a is used up. Error: a
 * is singular, which is said of the column where it shows. */
BL_API bl_status bl_solve_linear(double *a, double *b, int64_t n, int64_t columns);

/* x[n,columns] with the least sum of squares of a[m,n] x - b[m,columns], and of such x the
 * shortest: where columns of a depend on others, up to rounding, or m < n, there are many. NaN
 * propagates. */
BL_API bl_status bl_minimum_norm(const double *a, const double *b, int64_t m, int64_t n,
                                 int64_t columns, double *x);

/* The value of a function at x[n]; writes its gradient[n]. */
typedef double bl_smooth(const double *x, double *gradient, void *context);

/* A local minimum of a smooth function, from x on (in a graph: bl_minimize): limited-memory BFGS (Nocedal 1980), at most
 * `most` steps, until no derivative exceeds the tolerance or no step lowers the value. *value is
 * that at x. */
BL_API bl_status bl_smooth_minimum(bl_smooth *function, void *context, int64_t n, double tolerance,
                          int64_t most, double *x, double *value);

/* The most likely coefficient[size + 1,classes], the last row the intercepts, of
 * p(class) = softmax(feature . coefficient) for feature[n,size] and label[n], 0 <= . < classes,
 * where sample i counts weight[i] times; *log_loss is the mean of -log p(label), unweighted. No
 * penalty. Where the classes can be separated the likeliest coefficients are infinite: 100 steps of
 * L-BFGS. */
BL_API bl_status bl_logistic_regression(const double *feature, const int32_t *label,
                                        const double *weight, int64_t n, int64_t size,
                                        int64_t classes, double *coefficient, double *log_loss);

/* Mutual information of the joint frequencies of a[n] and b[n], n >= 1, in nats; that of a variable
 * with itself is its entropy. */
BL_API bl_status bl_mutual_information(const int32_t *a, const int32_t *b, int64_t n, double *nats);
/* Between a number and a class, from k nearest neighbours within the class (Ross 2014), k >= 1, in
 * nats, at least 0. Samples alone in their class are left out; NaN if none is left. Where k others
 * do not exist, all are taken; neighbours are those nearer than the k-th, and equal ones. x is
 * finite. */
BL_API bl_status bl_mutual_information_nearest(const double *x, const int32_t *y, int64_t n,
                                               int64_t k, double *nats);

/* number[n] is the rank of each value among the distinct ones, from 0; *values is how many there
 * are. */
BL_API bl_status bl_number_values(const int32_t *value, int64_t n, int32_t *number,
                                  int32_t *values);

/* order[n] lists the indices of key[n] by ascending key, equal keys lower index first, NaN last. */
BL_API bl_status bl_ascending_order(const double *key, int64_t n, int64_t *order);

#endif
