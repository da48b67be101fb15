/* Systems of linear equations with a dense matrix: Gaussian elimination with partial pivoting, by
 * LAPACK where there are many. The loops here take what is not finite, and the small systems. */
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"
#include "exec/dense.h"

static int64_t largest_in_column(const double *a, int64_t n, int64_t k)
{
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; i++)
        if (fabs(a[i * n + k]) > fabs(a[pivot * n + k]))
            pivot = i;
    return pivot;
}

static void exchange_rows(double *x, int64_t width, int64_t i, int64_t j)
{
    for (int64_t c = 0; c < width && i != j; c++) {
        double kept = x[i * width + c];
        x[i * width + c] = x[j * width + c];
        x[j * width + c] = kept;
    }
}

/* row i of x minus `factor` times row k, from column `first` on */
static void subtract_row(double *x, int64_t width, int64_t first, int64_t i, int64_t k,
                         double factor)
{
    for (int64_t c = first; c < width; c++)
        x[i * width + c] -= factor * x[k * width + c];
}

static bl_status singular_in(int64_t column)
{
    return bl_fail(BL_INVALID, "singular in column %lld, expected independent columns",
                   (long long)column);
}

static bool are_finite(const double *x, int64_t count)
{
    double sum = 0; /* of differences that are 0 where x is finite, else NaN */
    for (int64_t i = 0; i < count; i++)
        sum += x[i] - x[i];
    return sum == 0;
}

static bl_status eliminate(double *a, double *b, int64_t n, int64_t columns)
{
    for (int64_t k = 0; k < n; k++) {
        int64_t pivot = largest_in_column(a, n, k);
        if (!(fabs(a[pivot * n + k]) > 0))
            return singular_in(k);
        exchange_rows(a, n, k, pivot);
        exchange_rows(b, columns, k, pivot);
        for (int64_t i = k + 1; i < n; i++) {
            double factor = a[i * n + k] / a[k * n + k];
            subtract_row(a, n, k, i, k, factor);
            subtract_row(b, columns, 0, i, k, factor);
        }
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        for (int64_t j = i + 1; j < n; j++)
            subtract_row(b, columns, 0, i, j, a[i * n + j]);
        for (int64_t c = 0; c < columns; c++)
            b[i * columns + c] /= a[i * n + i];
    }
    return BL_OK;
}

bl_status bl_solve_linear(double *a, double *b, int64_t n, int64_t columns)
{
    enum { MANY = 64 };
    int64_t column;
    if (n < MANY || !are_finite(a, n * n) || !are_finite(b, n * columns))
        return eliminate(a, b, n, columns);
    BL_TRY(bl_dense_solve(a, b, n, columns, &column));
    return column < 0 ? BL_OK : singular_in(column);
}
