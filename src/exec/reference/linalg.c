/* Linear algebra in double, by the simplest stable methods: column-wise Cholesky, substitution,
 * Jacobi's rotations for eigenvalues and, one-sided, for singular values (Golub and Van Loan,
 * Matrix Computations, chapter 8). */
#include "exec/reference/reference.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Rows and columns of the last two axes, and how many such matrices there are. */
typedef struct sizes {
    int64_t count, rows, columns;
} sizes;

static sizes sizes_of(bl_shape shape)
{
    sizes s = {1, shape.dim[shape.rank - 2], shape.dim[shape.rank - 1]};
    for (int i = 0; i < shape.rank - 2; i++)
        s.count *= shape.dim[i];
    return s;
}

static double *load(const bl_call *call, int i, uint64_t *to)
{
    load_doubles(operand_type(call, i).dtype, operand(call, i), 0,
                 bl_type_count(operand_type(call, i)), (double *)to);
    return (double *)to;
}

static bl_status store(const bl_call *call, const double *from)
{
    store_doubles(call->node->type.dtype, from, 0, bl_type_count(call->node->type), call->result);
    return BL_OK;
}

/* --- cholesky ----------------------------------------------------------------------------------
 */

static bl_status not_definite(const bl_call *call, int64_t matrix, int64_t pivot, double value)
{
    const bl_node *node = call->node;
    return bl_fail(BL_INVALID,
                   "cholesky: matrix %lld is not positive definite: pivot %lld is %g, at %s:%d%s%s",
                   (long long)matrix, (long long)pivot, value, node->file ? node->file : "?",
                   node->line, *node->scope ? " in " : "", node->scope);
}

/* In place, zeros above the diagonal. The index of a pivot that is not positive, or -1. */
static int64_t factorize(double *a, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = j; i < n; i++) {
            double sum = a[i * n + j];
            for (int64_t k = 0; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            if (i > j) {
                a[i * n + j] = sum / a[j * n + j];
            } else {
                a[j * n + j] = sum > 0 ? sqrt(sum) : sum;
                if (!(sum > 0))
                    return j;
            }
        }
        for (int64_t i = 0; i < j; i++)
            a[i * n + j] = 0;
    }
    return -1;
}

bl_status reference_cholesky(const bl_call *call)
{
    sizes s = sizes_of(call->node->type.shape);
    double *a = load(call, 0, call->scratch);
    for (int64_t b = 0; b < s.count; b++) {
        double *matrix = a + b * s.rows * s.rows;
        int64_t pivot = factorize(matrix, s.rows);
        if (pivot >= 0)
            return not_definite(call, b, pivot, matrix[pivot * s.rows + pivot]);
    }
    return store(call, a);
}

/* --- triangular systems ------------------------------------------------------------------------
 */

/* T x = b in place for T = L or L^T, `step` apart. */
static void substitute(const double *l, int64_t n, bool transpose, double *x, int64_t step)
{
    for (int64_t k = 0; k < n; k++) {
        int64_t i = transpose ? n - 1 - k : k;
        double sum = x[i * step];
        for (int64_t j = 0; j < i && !transpose; j++)
            sum -= l[i * n + j] * x[j * step];
        for (int64_t j = i + 1; j < n && transpose; j++)
            sum -= l[j * n + i] * x[j * step];
        x[i * step] = sum / l[i * n + i];
    }
}

/* The rows x of X solve T^T x = b where X T = b. */
bl_status reference_triangular_solve(const bl_call *call)
{
    bool right = call->node->attr->flag, transpose = call->node->attr->flag2;
    sizes b = sizes_of(call->node->type.shape);
    int64_t n = right ? b.columns : b.rows, systems = right ? b.rows : b.columns;
    double *l = load(call, 0, call->scratch);
    double *x = load(call, 1, call->scratch + bl_type_count(operand_type(call, 0)));
    for (int64_t i = 0; i < b.count; i++)
        for (int64_t k = 0; k < systems; k++)
            substitute(l + i * n * n, n, transpose != right,
                       x + i * n * systems + (right ? k * n : k), right ? 1 : systems);
    return store(call, x);
}

/* --- rotations ---------------------------------------------------------------------------------
 */

enum { MOST_SWEEPS = 60 };

/* The rotation (c, s) that makes the off-diagonal of [a b; b d] zero. */
static void jacobi_rotation(double a, double b, double d, double *c, double *s)
{
    double half = (d - a) / (2 * b);
    double t = copysign(1, half) / (fabs(half) + hypot(1, half));
    *c = 1 / hypot(1, t);
    *s = t * *c;
}

/* Of two rows of `count` elements. */
static void rotate(double *x, double *y, int64_t count, int64_t step, double c, double s)
{
    for (int64_t i = 0; i < count; i++) {
        double p = x[i * step], q = y[i * step];
        x[i * step] = c * p - s * q;
        y[i * step] = s * p + c * q;
    }
}

/* The positive largest component fixes the sign; true if the vector must be turned. */
static bool points_back(const double *v, int64_t n)
{
    int64_t largest = 0;
    for (int64_t i = 1; i < n; i++)
        if (fabs(v[i]) > fabs(v[largest]))
            largest = i;
    return n > 0 && v[largest] < 0;
}

static void negate(double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = -v[i];
}

static void exchange(double *x, double *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double kept = x[i];
        x[i] = y[i];
        y[i] = kept;
    }
}

/* Rows of `width` elements in the order of their first one. */
static void sort_rows(double *rows, int64_t count, int64_t width, bool descending)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t best = i;
        for (int64_t j = i + 1; j < count; j++)
            if (descending ? rows[j * width] > rows[best * width]
                           : rows[j * width] < rows[best * width])
                best = j;
        if (best != i)
            exchange(rows + i * width, rows + best * width, width);
    }
}

/* --- eigh --------------------------------------------------------------------------------------
 */

/* One sweep over all pairs; false if every off-diagonal is already nothing beside the diagonal. */
static bool sweep_symmetric(double *a, int64_t n, double *rows)
{
    bool moved = false;
    for (int64_t p = 0; p < n; p++)
        for (int64_t q = p + 1; q < n; q++) {
            double off = a[p * n + q], app = a[p * n + p], aqq = a[q * n + q], c, s;
            if (fabs(off) <= DBL_EPSILON * sqrt(fabs(app) * fabs(aqq)) * 0.25 ||
                fabs(off) < DBL_MIN)
                continue;
            jacobi_rotation(app, off, aqq, &c, &s);
            rotate(a + p, a + q, n, n, c, s);
            rotate(a + p * n, a + q * n, n, 1, c, s);
            a[p * n + q] = a[q * n + p] = 0; /* and not what rounding leaves */
            rotate(rows + p * (n + 1) + 1, rows + q * (n + 1) + 1, n, 1, c, s);
            moved = true;
        }
    return moved;
}

/* Rows: eigenvalue, eigenvector. Overwrites a, of which the lower triangle counts. */
static void eigenvectors(double *a, int64_t n, double *rows)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            a[i * n + j] = a[i > j ? i * n + j : j * n + i];
            rows[i * (n + 1) + 1 + j] = i == j;
        }
    for (int i = 0; i < MOST_SWEEPS && sweep_symmetric(a, n, rows);)
        i++;
    for (int64_t i = 0; i < n; i++) {
        double *row = rows + i * (n + 1);
        row[0] = a[i * n + i];
        if (points_back(row + 1, n))
            negate(row + 1, n);
    }
    sort_rows(rows, n, n + 1, false);
}

bl_status reference_eigh(const bl_call *call)
{
    sizes s = sizes_of(operand_type(call, 0).shape);
    double *a = load(call, 0, call->scratch), *rows = a + s.count * s.rows * s.rows;
    for (int64_t i = 0; i < s.count; i++)
        eigenvectors(a + i * s.rows * s.rows, s.rows, rows + i * s.rows * (s.rows + 1));
    return store(call, rows);
}

/* --- svd ---------------------------------------------------------------------------------------
 */

static double inner_product(const double *x, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Where the two vectors lie in a row of the result: `long_` has the more components. */
typedef struct layout {
    int64_t rank, width, long_at, long_size, short_at, short_size;
} layout;

/* Turns pairs of long vectors until all are orthogonal, and the short ones alike. */
static bool sweep_one_sided(double *rows, const layout *l, double tiny)
{
    bool moved = false;
    for (int64_t p = 0; p < l->rank; p++)
        for (int64_t q = p + 1; q < l->rank; q++) {
            double *x = rows + p * l->width, *y = rows + q * l->width, c, s;
            double *lx = x + l->long_at, *ly = y + l->long_at;
            double xx = inner_product(lx, lx, l->long_size);
            double yy = inner_product(ly, ly, l->long_size);
            double xy = inner_product(lx, ly, l->long_size);
            if (fabs(xy) <= DBL_EPSILON * sqrt(xx) * sqrt(yy) || sqrt(xx) <= tiny ||
                sqrt(yy) <= tiny)
                continue;
            jacobi_rotation(xx, xy, yy, &c, &s);
            rotate(lx, ly, l->long_size, 1, c, s);
            rotate(x + l->short_at, y + l->short_at, l->short_size, 1, c, s);
            moved = true;
        }
    return moved;
}

/* A unit vector at right angles to the long vectors of the rows before `row`: of all coordinate
 * axes the one that has most left, twice made orthogonal. */
static void complete(double *rows, const layout *l, int64_t row)
{
    double *v = rows + row * l->width + l->long_at, best = -1;
    int64_t axis = 0;
    for (int64_t i = 0; i < l->long_size; i++) {
        double left = 1;
        for (int64_t k = 0; k < row; k++)
            left -= rows[k * l->width + l->long_at + i] * rows[k * l->width + l->long_at + i];
        axis = left > best ? i : axis;
        best = fmax(left, best);
    }
    for (int64_t i = 0; i < l->long_size; i++)
        v[i] = i == axis;
    for (int64_t k = 0; k < 2 * row; k++) {
        const double *other = rows + k % row * l->width + l->long_at;
        double along = inner_product(v, other, l->long_size);
        for (int64_t i = 0; i < l->long_size; i++)
            v[i] -= along * other[i];
    }
    double length = sqrt(inner_product(v, v, l->long_size));
    for (int64_t i = 0; i < l->long_size; i++)
        v[i] /= length;
}

/* The long vectors' lengths are the singular values; those of nothing are completed to a basis. */
static void finish_rows(double *rows, const layout *l, int64_t left_size, double tiny)
{
    for (int64_t i = 0; i < l->rank; i++) {
        double *row = rows + i * l->width, *v = row + l->long_at;
        row[0] = sqrt(inner_product(v, v, l->long_size));
        for (int64_t j = 0; j < l->long_size && row[0] > tiny; j++)
            v[j] /= row[0];
    }
    sort_rows(rows, l->rank, l->width, true);
    for (int64_t i = 0; i < l->rank; i++) {
        double *row = rows + i * l->width;
        if (row[0] <= tiny) {
            row[0] = 0;
            complete(rows, l, i);
        }
        if (points_back(row + 1, left_size))
            negate(row + 1, l->width - 1);
    }
}

static void singular_vectors(const double *a, int64_t m, int64_t n, double *rows)
{
    bool tall = m >= n;
    layout l = {.rank = tall ? n : m,
                .width = 1 + m + n,
                .long_at = tall ? 1 : 1 + m,
                .long_size = tall ? m : n,
                .short_at = tall ? 1 + m : 1,
                .short_size = tall ? n : m};
    double largest = 0;
    memset(rows, 0, (size_t)(l.rank * l.width) * sizeof *rows);
    for (int64_t i = 0; i < m * n; i++)
        largest = fmax(largest, fabs(a[i]));
    for (int64_t i = 0; i < l.rank; i++) {
        for (int64_t j = 0; j < l.long_size; j++)
            rows[i * l.width + l.long_at + j] = tall ? a[j * n + i] : a[i * n + j];
        rows[i * l.width + l.short_at + i] = 1;
    }
    double tiny = largest * DBL_EPSILON * (double)l.long_size;
    for (int i = 0; i < MOST_SWEEPS && sweep_one_sided(rows, &l, tiny);)
        i++;
    finish_rows(rows, &l, m, tiny);
}

bl_status reference_svd(const bl_call *call)
{
    sizes s = sizes_of(operand_type(call, 0).shape), z = sizes_of(call->node->type.shape);
    double *a = load(call, 0, call->scratch), *rows = a + s.count * s.rows * s.columns;
    for (int64_t i = 0; i < s.count && z.rows > 0; i++)
        singular_vectors(a + i * s.rows * s.columns, s.rows, s.columns,
                         rows + i * z.rows * z.columns);
    return store(call, rows);
}
