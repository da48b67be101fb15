/* Linear least squares of any rank: a Q R decomposition with column pivoting shows the rank, and a
 * second one, of what R has left transposed, finds the shortest of the minimisers (Golub and Van
 * Loan, 5.5). Matrices are kept by columns here, so that every inner loop runs along one. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ballast/solve.h"

#include "base/base.h"
#include "base/wide.h"

/* Eight sums side by side, which the compiler computes at once. */
BL_WIDE(add_products, (const double *x, const double *y, int64_t n, double *result),
        (x, y, n, result))
{
    double part[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            part[j] += x[i + j] * y[i + j];
    for (; i < n; i++)
        sum += x[i] * y[i];
    for (int j = 0; j < 8; j++)
        sum += part[j];
    *result = sum;
}

static double inner_product(const double *x, const double *y, int64_t n)
{
    double sum;
    add_products(x, y, n, &sum);
    return sum;
}

BL_WIDE(subtract_multiple, (double factor, const double *x, double *y, int64_t n),
        (factor, x, y, n))
{
    for (int64_t i = 0; i < n; i++)
        y[i] -= factor * x[i];
}

/* A reflection I - factor v v^T. */
typedef struct reflection {
    double factor, result; /* what it makes of x: (result, 0, ..) */
} reflection;

/* The reflection that clears x[n] but for its first entry; x becomes v. */
static reflection clear(double *x, int64_t n)
{
    double length = sqrt(inner_product(x, x, n));
    if (length <= 0)
        return (reflection){0};
    double result = x[0] > 0 ? -length : length, factor = 1 / (length * (length + fabs(x[0])));
    x[0] -= result;
    return (reflection){factor, result};
}

static void reflect(double factor, const double *v, double *y, int64_t n)
{
    subtract_multiple(factor * inner_product(v, y, n), v, y, n);
}

typedef struct problem {
    int64_t m, n, columns, rank;
    double *a;      /* [n][m]: A's columns; above the diagonal R, whose diagonal is apart */
    double *b;      /* [columns][m]: becomes Q^T b */
    double *t;      /* [rank][n]: R's rows, then the reflections that clear them */
    double *factor; /* [n] of t's reflections */
    double *first;  /* [n]: R's diagonal, then that of its transpose's decomposition */
    int64_t *order; /* [n]: which unknown column k belongs to */
} problem;

static void exchange_columns(problem *p, int64_t i, int64_t j)
{
    int64_t unknown = p->order[i];
    p->order[i] = p->order[j];
    p->order[j] = unknown;
    for (int64_t r = 0; r < p->m && i != j; r++) {
        double kept = p->a[i * p->m + r];
        p->a[i * p->m + r] = p->a[j * p->m + r];
        p->a[j * p->m + r] = kept;
    }
}

/* Puts the longest of the columns from k on, below row k, at place k. */
static void choose_column(problem *p, int64_t k)
{
    int64_t longest = k;
    double most = -1;
    for (int64_t j = k; j < p->n; j++) {
        const double *x = p->a + j * p->m + k;
        double square = inner_product(x, x, p->m - k);
        if (square > most || isnan(square))
            most = square, longest = j;
    }
    exchange_columns(p, k, longest);
}

/* A P = Q R, up to the rank: where what is left is rounding. */
static void decompose(problem *p)
{
    int64_t most = p->m < p->n ? p->m : p->n;
    double tiny = (double)(p->m > p->n ? p->m : p->n) * DBL_EPSILON;
    for (int64_t k = 0; k < most; k++) {
        choose_column(p, k);
        double *v = p->a + k * p->m + k;
        reflection r = clear(v, p->m - k);
        if (fabs(r.result) <= tiny * fabs(k ? p->first[0] : 0))
            return;
        for (int64_t j = k + 1; j < p->n; j++)
            reflect(r.factor, v, p->a + j * p->m + k, p->m - k);
        for (int64_t j = 0; j < p->columns; j++)
            reflect(r.factor, v, p->b + j * p->m + k, p->m - k);
        p->first[k] = r.result;
        p->rank++;
    }
}

/* R^T = Z L^T, so that R = L Z^T with L lower: reflections in t, L's diagonal in first. */
static void decompose_rows(problem *p)
{
    for (int64_t k = 0; k < p->rank; k++) {
        double *row = p->t + k * p->n;
        row[k] = p->first[k];
        for (int64_t j = k + 1; j < p->n; j++)
            row[j] = p->a[j * p->m + k];
    }
    for (int64_t k = 0; k < p->rank; k++) {
        double *v = p->t + k * p->n + k;
        reflection r = clear(v, p->n - k);
        p->factor[k] = r.factor;
        p->first[k] = r.result;
        for (int64_t j = k + 1; j < p->rank; j++)
            reflect(r.factor, v, p->t + j * p->n + k, p->n - k);
    }
}

/* y[n] = Z (L^-1 c): what R y = c has as its shortest solution. */
static void shortest(const problem *p, const double *c, double *y)
{
    memset(y, 0, (size_t)p->n * sizeof *y);
    for (int64_t k = 0; k < p->rank; k++)
        y[k] = (c[k] - inner_product(p->t + k * p->n, y, k)) / p->first[k];
    for (int64_t k = p->rank - 1; k >= 0; k--)
        reflect(p->factor[k], p->t + k * p->n + k, y + k, p->n - k);
}

static void solve(problem *p, double *x, double *y)
{
    for (int64_t k = 0; k < p->n; k++)
        p->order[k] = k;
    decompose(p);
    decompose_rows(p);
    for (int64_t c = 0; c < p->columns; c++) {
        shortest(p, p->b + c * p->m, y);
        for (int64_t k = 0; k < p->n; k++)
            x[p->order[k] * p->columns + c] = y[k];
    }
}

static void transpose(const double *from, int64_t rows, int64_t columns, double *to)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
}

bl_status bl_minimum_norm(const double *a, const double *b, int64_t m, int64_t n, int64_t columns,
                          double *x)
{
    size_t numbers = (size_t)(m * (n + columns) + n * n + 3 * n);
    size_t bytes = numbers * sizeof(double) + (size_t)(n + 1) * sizeof(int64_t);
    double *memory = bl_alloc(bytes);
    if (!memory)
        return bl_no_memory(bytes);
    problem p = {.m = m, .n = n, .columns = columns, .a = memory};
    p.b = p.a + m * n;
    p.t = p.b + m * columns;
    p.factor = p.t + n * n;
    p.first = p.factor + n;
    double *y = p.first + n;
    p.order = (int64_t *)(y + n);
    transpose(a, m, n, p.a);
    transpose(b, m, columns, p.b);
    solve(&p, x, y);
    bl_release(memory);
    return BL_OK;
}
