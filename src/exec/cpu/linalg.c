/* Linear algebra by LAPACK and BLAS (OpenBLAS, its build without threads), in double like the
 * reference executor.
 *
 * The reference loop stays the definition and runs the whole node where LAPACK's answer could
 * differ in more than rounding: on NaN and infinity, which LAPACK must not see at all, on pivots
 * whose sign is a matter of rounding, on results that overflow, and where LAPACK gives up. Small
 * matrices are its too: calling a library costs more than solving them.
 *
 * To add a decomposition, write its solver of one matrix and a prepare that says how much scratch
 * memory the solver takes; run_batch does the rest. */
#include <cblas.h>
#include <float.h>
#include <lapack.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "exec/cpu/cpu.h"
#include "exec/dense.h"
#include "exec/reference/reference.h"

typedef struct problem problem;

/* Decomposes matrix `index`; false if the reference loop must decide. */
typedef bool solver(const cpu_plan *plan, const problem *p, int64_t index);

struct problem {
    solver *solve;
    const bl_node *node;
    int64_t count;         /* matrices */
    int rows, columns;     /* of operand 0 */
    int b_rows, b_columns; /* of operand 1 */
    int work_size, integers;
    const double *a;
    double *matrix, *result, *work; /* in scratch memory */
    int *integer;
    void *z;
};

/* OpenBLAS hands out its packing buffers without a lock in the build that has no threads of its
 * own, so programs that run on several threads take turns. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void begin(void)
{
    pthread_mutex_lock(&one_at_a_time);
}

static void end(void)
{
    pthread_mutex_unlock(&one_at_a_time);
}

/* --- elements --------------------------------------------------------------------------------- */

static void read_matrix(const cpu_plan *plan, const problem *p, int operand, int64_t index,
                        int64_t count, double *to)
{
    bl_dtype dtype = p->node->type.dtype;
    load_doubles(dtype, cpu_operand(plan, p->node, operand), index * count, count, to);
}

static void write_matrix(const problem *p, int64_t index, int64_t count, const double *from)
{
    bl_dtype dtype = p->node->type.dtype;
    if (dtype == BL_F64)
        memcpy((double *)p->z + index * count, from, (size_t)count * sizeof *from);
    else
        for (int64_t i = 0; i < count; i++)
            ((float *)p->z)[index * count + i] = (float)from[i];
}

static bool are_finite(const double *x, int64_t count)
{
    double sum = 0; /* of differences that are 0 where x is finite, else NaN */
    for (int64_t i = 0; i < count; i++)
        sum += x[i] - x[i];
    return sum == 0;
}

static bool is_lower_finite(const double *x, int64_t n)
{
    bool finite = true;
    for (int64_t i = 0; i < n && finite; i++)
        finite = are_finite(x + i * n, i + 1);
    return finite;
}

/* The largest component, the first of equals, is made positive. */
static bool points_back(const double *v, int64_t n)
{
    int64_t largest = 0;
    for (int64_t i = 1; i < n; i++)
        if (fabs(v[i]) > fabs(v[largest]))
            largest = i;
    return v[largest] < 0;
}

/* --- solvers: LAPACK's matrices are ours transposed ------------------------------------------- */

static bool solve_cholesky(const cpu_plan *plan, const problem *p, int64_t index)
{
    int n = p->rows, info;
    double *l = p->matrix, *diagonal = p->work;
    read_matrix(plan, p, 0, index, (int64_t)n * n, l);
    if (!is_lower_finite(l, n))
        return false;
    for (int64_t i = 0; i < n; i++)
        diagonal[i] = l[i * n + i];
    begin();
    LAPACK_dpotrf("U", &n, l, &n, &info);
    end();
    if (info)
        return false;
    for (int64_t i = 0; i < n; i++) {
        double pivot = l[i * n + i] * l[i * n + i];
        if (!(pivot > 4 * n * DBL_EPSILON * diagonal[i]))
            return false;
        memset(l + i * n + i + 1, 0, (size_t)(n - 1 - i) * sizeof *l);
    }
    write_matrix(p, index, (int64_t)n * n, l);
    return true;
}

static bool solve_triangular(const cpu_plan *plan, const problem *p, int64_t index)
{
    int n = p->rows;
    int64_t count = (int64_t)p->b_rows * p->b_columns;
    double *l = p->matrix, *x = p->result;
    read_matrix(plan, p, 0, index, (int64_t)n * n, l);
    read_matrix(plan, p, 1, index, count, x);
    if (!is_lower_finite(l, n) || !are_finite(x, count))
        return false;
    begin();
    cblas_dtrsm(CblasRowMajor, p->node->attr->flag ? CblasRight : CblasLeft, CblasLower,
                p->node->attr->flag2 ? CblasTrans : CblasNoTrans, CblasNonUnit, p->b_rows,
                p->b_columns, 1, l, n, x, p->b_columns);
    end();
    if (!are_finite(x, count))
        return false;
    write_matrix(p, index, count, x);
    return true;
}

static bool solve_eigh(const cpu_plan *plan, const problem *p, int64_t index)
{
    int n = p->rows, info;
    double *v = p->matrix, *values = p->work, *rows = p->result;
    read_matrix(plan, p, 0, index, (int64_t)n * n, v);
    if (!is_lower_finite(v, n))
        return false;
    int work = p->work_size - n;
    begin();
    LAPACK_dsyevd("V", "U", &n, v, &n, values, p->work + n, &work, p->integer, &p->integers, &info);
    end();
    if (info)
        return false;
    for (int64_t i = 0; i < n; i++) {
        double *row = rows + i * (n + 1), sign = points_back(v + i * n, n) ? -1 : 1;
        row[0] = values[i];
        for (int64_t j = 0; j < n; j++)
            row[1 + j] = sign * v[i * n + j];
    }
    write_matrix(p, index, (int64_t)n * (n + 1), rows);
    return true;
}

/* Values below the rounding of the decomposition are 0. */
static double rounding_of(double largest, const problem *p)
{
    return largest * DBL_EPSILON * fmax(p->rows, p->columns);
}

/* Row i of the result: singular value, u, v; u's component j is at u[j * u_step]. */
static void write_svd_row(const problem *p, int64_t i, double value, const double *u,
                          int64_t u_step, const double *v)
{
    int64_t m = p->rows, n = p->columns, width = 1 + m + n;
    double *row = p->result + i * width;
    row[0] = value;
    for (int64_t j = 0; j < m; j++)
        row[1 + j] = u[j * u_step];
    memcpy(row + 1 + m, v, (size_t)n * sizeof *v);
    if (points_back(row + 1, m))
        for (int64_t j = 1; j < width; j++)
            row[j] = -row[j];
}

/* LAPACK's left vectors are our right ones. */
static bool svd_of_any(const problem *p)
{
    int m = p->rows, n = p->columns, rank = m < n ? m : n, info;
    double *values = p->work, *v = values + rank, *u = v + (int64_t)n * rank;
    double *workspace = u + (int64_t)m * rank;
    int work = p->work_size - (int)(workspace - p->work);
    begin();
    LAPACK_dgesdd("S", &n, &m, p->matrix, &n, values, v, &n, u, &rank, workspace, &work, p->integer,
                  &info);
    end();
    for (int64_t i = 0; i < rank && !info; i++) {
        double value = values[i] > rounding_of(values[0], p) ? values[i] : 0;
        write_svd_row(p, i, value, u + i, rank, v + i * n);
    }
    return !info;
}

/* The eigenvectors of the smaller of x^T x and x x^T are the short side's, x times them over the
 * singular values the long side's: a fifth of the time. In double this is as good as single
 * precision can tell as long as no singular value is below 1e-4 of the largest: they are off by
 * 1e-16 1e4^2 / 2 of themselves, and so much are the long vectors from a right angle. Else false.
 */
static bool svd_by_eigenvectors(const problem *p)
{
    int m = p->rows, n = p->columns, rank = m < n ? m : n, longer = m < n ? n : m, info;
    double *values = p->work, *near = values + rank, *far = near + (int64_t)rank * rank;
    double *workspace = far + (int64_t)rank * longer;
    int work = p->work_size - (int)(workspace - p->work), integers = p->integers;
    begin();
    cblas_dsyrk(CblasRowMajor, CblasLower, m < n ? CblasNoTrans : CblasTrans, rank, longer, 1,
                p->matrix, n, 0, near, rank);
    LAPACK_dsyevd("V", "U", &rank, near, &rank, values, workspace, &work, p->integer, &integers,
                  &info);
    bool good = !info && values[0] > 1e-8 * values[rank - 1];
    if (good)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, m < n ? CblasNoTrans : CblasTrans, rank, longer,
                    rank, 1, near, rank, p->matrix, n, 0, far, longer);
    end();
    for (int64_t i = 0; i < rank && good; i++) {
        int64_t k = rank - 1 - i; /* values ascend */
        double value = sqrt(values[k]), *short_one = near + k * rank, *long_one = far + k * longer;
        for (int64_t j = 0; j < longer; j++)
            long_one[j] /= value;
        if (m < n)
            write_svd_row(p, i, value, short_one, 1, long_one);
        else
            write_svd_row(p, i, value, long_one, 1, short_one);
    }
    return good;
}

static bool solve_svd(const cpu_plan *plan, const problem *p, int64_t index)
{
    int64_t count = (int64_t)p->rows * p->columns;
    read_matrix(plan, p, 0, index, count, p->matrix);
    if (!are_finite(p->matrix, count))
        return false;
    bool single = p->node->type.dtype == BL_F32;
    if (!(single && svd_by_eigenvectors(p)) && !svd_of_any(p))
        return false;
    bl_shape z = p->node->type.shape;
    write_matrix(p, index, z.dim[z.rank - 2] * z.dim[z.rank - 1], p->result);
    return true;
}

/* --- plans ------------------------------------------------------------------------------------ */

static bl_status run_batch(cpu_plan *plan, cpu_kernel *kernel)
{
    problem p = *(const problem *)kernel->data;
    bl_shape z = p.node->type.shape;
    p.z = plan->address[kernel->node];
    p.matrix = (double *)(void *)plan->scratch;
    p.result = p.matrix + (int64_t)p.rows * p.columns;
    p.work = p.result + z.dim[z.rank - 2] * z.dim[z.rank - 1];
    p.integer = (int *)(void *)(p.work + p.work_size);
    bool solved = true;
    for (int64_t i = 0; i < p.count && solved; i++)
        solved = p.solve(plan, &p, i);
    return solved ? BL_OK : cpu_run_reference(plan, kernel);
}

/* A problem whose solver takes work_size doubles and `integers` integers beside the matrix and its
 * result. The reference loop's scratch memory is the plan's too. */
static bl_status prepare_batch(cpu_plan *plan, cpu_kernel *kernel, problem p)
{
    bl_shape z = p.node->type.shape;
    BL_TRY(cpu_prepare_reference(plan, kernel, p.node));
    problem *kept = bl_alloc(sizeof *kept);
    if (!kept)
        return bl_no_memory(sizeof *kept);
    *kept = p;
    int64_t doubles = (int64_t)p.rows * p.columns + z.dim[z.rank - 2] * z.dim[z.rank - 1];
    size_t scratch =
        (size_t)(doubles + p.work_size) * sizeof(double) + (size_t)p.integers * sizeof(int);
    cpu_reserve_scratch(plan, scratch);
    kernel->data = kept;
    kernel->free = bl_release;
    kernel->run = run_batch;
    kernel->how = "lapack";
    return BL_OK;
}

/* Sizes of the operands; false if LAPACK is not for them: so small that the reference loop is as
 * fast, or more than its integers count. */
static bool describe(const cpu_plan *plan, const bl_node *node, problem *p)
{
    enum { LEAST = 8, MOST = 16000 }; /* 2 n^2 + 6 n + 1, the most workspace, is an int */
    bl_shape a = cpu_node(plan, node->operand[0])->type.shape, z = node->type.shape;
    int64_t rows = a.dim[a.rank - 2], columns = a.dim[a.rank - 1];
    int64_t z_rows = z.dim[z.rank - 2], z_columns = z.dim[z.rank - 1];
    if (rows < LEAST || columns < LEAST || bl_type_count(node->type) == 0)
        return false;
    if (rows > MOST || columns > MOST || z_rows > 2 * MOST + 1 || z_columns > 2 * MOST + 1)
        return false;
    *p = (problem){.node = node, .count = 1, .rows = (int)rows, .columns = (int)columns};
    for (int i = 0; i < z.rank - 2; i++)
        p->count *= z.dim[i];
    return true;
}

bl_status cpu_prepare_cholesky(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    problem p;
    if (!describe(plan, node, &p))
        return BL_UNSUPPORTED;
    p.solve = solve_cholesky;
    p.work_size = p.rows;
    return prepare_batch(plan, kernel, p);
}

bl_status cpu_prepare_triangular_solve(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    problem p;
    if (!describe(plan, node, &p))
        return BL_UNSUPPORTED;
    bl_shape z = node->type.shape;
    p.b_rows = (int)z.dim[z.rank - 2];
    p.b_columns = (int)z.dim[z.rank - 1];
    p.solve = solve_triangular;
    return prepare_batch(plan, kernel, p);
}

bl_status cpu_prepare_eigh(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    problem p;
    int query = -1, info;
    double size = 0;
    if (!describe(plan, node, &p))
        return BL_UNSUPPORTED;
    LAPACK_dsyevd("V", "U", &p.rows, NULL, &p.rows, NULL, &size, &query, &p.integers, &query,
                  &info);
    p.solve = solve_eigh;
    p.work_size = p.rows + (int)size;
    return prepare_batch(plan, kernel, p);
}

/* Of either way, whichever needs more. */
bl_status cpu_prepare_svd(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    problem p;
    int query = -1, integer = 0, info;
    double size = 0, eigenvectors = 0;
    if (!describe(plan, node, &p))
        return BL_UNSUPPORTED;
    int rank = p.rows < p.columns ? p.rows : p.columns;
    LAPACK_dgesdd("S", &p.columns, &p.rows, NULL, &p.columns, NULL, NULL, &p.columns, NULL, &rank,
                  &size, &query, &integer, &info);
    LAPACK_dsyevd("V", "U", &rank, NULL, &rank, NULL, &eigenvectors, &query, &p.integers, &query,
                  &info);
    double work = (double)rank * (1 + p.rows + p.columns) + fmax(size, eigenvectors);
    if (work > INT32_MAX)
        return BL_UNSUPPORTED;
    p.solve = solve_svd;
    p.work_size = (int)work;
    p.integers = p.integers > 8 * rank ? p.integers : 8 * rank;
    return prepare_batch(plan, kernel, p);
}

/* --- on plain arrays -------------------------------------------------------------------------- */

static void transpose(const double *from, int64_t rows, int64_t columns, double *to)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
}

bl_status bl_dense_solve(double *a, double *b, int64_t n, int64_t columns, int64_t *singular)
{
    size_t bytes = (size_t)(n * columns) * sizeof(double) + (size_t)n * sizeof(int) + 1;
    int size = (int)n, count = (int)columns, info;
    if (n > INT_MAX || columns > INT_MAX)
        return bl_fail(BL_UNSUPPORTED, "%lld equations are more than LAPACK counts", (long long)n);
    double *x = bl_alloc_unset(bytes);
    if (!x)
        return bl_no_memory(bytes);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++) {
            double kept = a[i * n + j];
            a[i * n + j] = a[j * n + i];
            a[j * n + i] = kept;
        }
    transpose(b, n, columns, x);
    begin();
    LAPACK_dgesv(&size, &count, a, &size, (int *)(x + n * columns), x, &size, &info);
    end();
    *singular = info > 0 ? info - 1 : -1;
    transpose(x, columns, n, b);
    bl_release(x);
    return BL_OK;
}
