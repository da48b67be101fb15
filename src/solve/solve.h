/* Solvers for host functions, in double: what fits, searches and iterates outside of graphs.
 *
 * A routine works on plain row-major arrays of double, checks nothing that its caller has checked,
 * and returns a status where it allocates. To add one: a declaration here that says the problem,
 * the shapes, how ties and corners are decided, and who described the algorithm; a file of its own.
 */
#ifndef BL_SOLVE_SOLVE_H
#define BL_SOLVE_SOLVE_H

#include "base/base.h"

/* The k rows of rows[count,size] nearest to each of query[queries,size] in squared Euclidean
 * distance, nearest first, ties to the lower row: index and distance are [queries,k], either may be
 * NULL. 1 <= k <= count. Distances are sums of squared differences, so that d(a,b) = d(b,a) exactly
 * and d(a,a) = 0; a NaN is further than anything. */
bl_status bl_nearest_rows(const double *query, int64_t queries, const double *rows, int64_t count,
                          int64_t size, int64_t k, int32_t *index, double *distance);

/* Writes residual[m] at x[n], and its derivatives jacobian[m,n] where that is not NULL. */
typedef void bl_residuals(const double *x, double *residual, double *jacobian, void *context);

enum { BL_LEAST_SQUARES_MAX = 8 }; /* unknowns */

/* A local minimum of sum residual^2 within low <= x <= high, from x on, which is within: Levenberg
 * (1944) and Marquardt (1963), with unknowns held at a bound as long as the sum would fall beyond
 * it. *objective is the sum at x. */
bl_status bl_least_squares(bl_residuals *residuals, void *context, int64_t m, int n,
                           const double *low, const double *high, double *x, double *objective);

/* A function of one variable. */
typedef double bl_curve(double x, void *context);

typedef struct bl_minimum {
    double x, value;
    int64_t point; /* the lowest of the grid, before it was refined */
} bl_minimum;

/* The lowest value within low <= x <= high: the lowest of `points` >= 2 equally spaced ones, ends
 * included, the first of equals; then, between its neighbours, golden section (Kiefer 1953). NaN
 * is higher than anything; where all values are, so is the minimum's, and x is low. */
bl_minimum bl_grid_minimum(bl_curve *curve, void *context, double low, double high, int64_t points);

/* a[n,n] x = b[n,columns] by elimination with partial pivoting: b becomes x, a is used up. Error: a
 * is singular, which is said of the column where it shows. */
bl_status bl_solve_linear(double *a, double *b, int64_t n, int64_t columns);

/* order[n] lists the indices of key[n] by ascending key, equal keys lower index first, NaN last. */
bl_status bl_ascending_order(const double *key, int64_t n, int64_t *order);

#endif
