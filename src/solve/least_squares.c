/* Bounded least squares with few unknowns: Levenberg and Marquardt's damped Gauss-Newton steps,
 * shortened before the bounds. The damping grows until a step lowers the sum and shrinks after one
 * that does; it is relative to the diagonal of J^T J, so that the units of the unknowns do not
 * matter. */
#include <float.h>
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"

enum { N = BL_LEAST_SQUARES_MAX, MOST_STEPS = 2000 };

typedef struct problem {
    bl_residuals *residuals;
    void *context;
    int64_t m;
    int n;
    const double *low, *high;
    double *residual, *jacobian;
    double normal[N][N], slope[N]; /* J^T J and J^T r */
    bool held[N];                  /* at a bound beyond which the sum would fall */
} problem;

static double sum_at(const problem *p, const double *x, double *jacobian)
{
    double sum = 0;
    p->residuals(x, p->residual, jacobian, p->context);
    for (int64_t i = 0; i < p->m; i++)
        sum += p->residual[i] * p->residual[i];
    return sum;
}

/* The normal equations at x, and which unknowns are held; whether any is free to move. */
static bool linearise(problem *p, const double *x)
{
    bool any = false;
    sum_at(p, x, p->jacobian);
    for (int i = 0; i < p->n; i++) {
        p->slope[i] = 0;
        for (int64_t r = 0; r < p->m; r++)
            p->slope[i] += p->jacobian[r * p->n + i] * p->residual[r];
        p->held[i] =
            (x[i] <= p->low[i] && p->slope[i] >= 0) || (x[i] >= p->high[i] && p->slope[i] <= 0);
        any = any || (!p->held[i] && p->slope[i] != 0);
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t r = 0; r < p->m; r++)
                sum += p->jacobian[r * p->n + i] * p->jacobian[r * p->n + j];
            p->normal[i][j] = p->normal[j][i] = sum;
        }
    }
    return any;
}

/* Solves a x = b for a symmetric positive definite a, by L L^T in place; false if a is not. */
static bool solve_positive(double a[N][N], double b[N], int n)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = a[i][j];
            for (int k = 0; k < j; k++)
                sum -= a[i][k] * a[j][k];
            if (i == j && !(sum > 0))
                return false;
            a[i][j] = i == j ? sqrt(sum) : sum / a[j][j];
        }
    }
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++)
            b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
    return true;
}

/* The damped step of the free unknowns; held ones do not move. */
static bool damped_step(const problem *p, double damping, double step[N])
{
    double a[N][N];
    for (int i = 0; i < p->n; i++) {
        for (int j = 0; j < p->n; j++)
            a[i][j] = p->held[i] || p->held[j] ? 0 : p->normal[i][j];
        a[i][i] = p->held[i] ? 1 : a[i][i] * (1 + damping) + DBL_MIN;
        step[i] = p->held[i] ? 0 : -p->slope[i];
    }
    return solve_positive(a, step, p->n);
}

/* One unknown's next value: at most nine tenths of the way to a bound, and the bound itself once it
 * is near. A first step that is far too long would otherwise land where the model is flat. */
static double towards(double from, double step, double low, double high)
{
    double bound = step < 0 ? low : high, way = bound - from, near = 1e-12 * (1 + fabs(bound));
    if (isinf(bound) || fabs(step) <= 0.9 * fabs(way))
        return from + step;
    return fabs(way) <= near ? bound : from + 0.9 * way;
}

/* Where the step leads, and whether that is another place, but for rounding. */
static bool move(const problem *p, const double *x, const double *step, double *next)
{
    bool moved = false;
    for (int i = 0; i < p->n; i++) {
        next[i] = towards(x[i], step[i], p->low[i], p->high[i]);
        moved = moved || fabs(next[i] - x[i]) > 1e-13 * (fabs(x[i]) + 1e-13);
    }
    return moved;
}

static void descend(problem *p, double *x, double *objective)
{
    double damping = 1e-3;
    for (int steps = 0; steps < MOST_STEPS && linearise(p, x); steps++) {
        bool lower = false;
        while (!lower && damping < 1e30) {
            double step[N] = {0}, next[N];
            if (damped_step(p, damping, step)) {
                if (!move(p, x, step, next))
                    return;
                double sum = sum_at(p, next, NULL);
                lower = sum < *objective;
                if (lower) {
                    *objective = sum;
                    for (int i = 0; i < p->n; i++)
                        x[i] = next[i];
                }
            }
            damping = lower ? fmax(damping / 5, 1e-15) : damping * 3;
        }
        if (!lower)
            return;
    }
}

bl_status bl_least_squares(bl_residuals *residuals, void *context, int64_t m, int n,
                           const double *low, const double *high, double *x, double *objective)
{
    if (n < 1 || n > N)
        return bl_fail(BL_INVALID, "least squares of %d unknowns, expected 1 to %d", n, N);
    size_t bytes = (size_t)(m * (n + 1) + 1) * sizeof(double);
    double *memory = bl_alloc(bytes);
    if (!memory)
        return bl_no_memory(bytes);
    problem p = {residuals, context, m, n, low, high, memory, memory + m, {{0}}, {0}, {0}};
    *objective = sum_at(&p, x, NULL);
    descend(&p, x, objective);
    bl_release(memory);
    return BL_OK;
}
