/* Composites of the decompositions: parts of them, and systems solved by them, that several methods
 * start from. */
#define BL_KEEP_PLACE
#include "graph/build.h"

bl_tensor(bl_identity)(bl_graph *g, bl_dtype dtype, int64_t n)
{
    bl_shape square = BL_SHAPE(n, n);
    return bl_cast(bl_eq(bl_iota(g, BL_I32, square, 0), bl_iota(g, BL_I32, square, 1)), dtype);
}

/* b A^-1 with A = x^T x + ridge I */
static bl_tensor solve_ridge(bl_tensor b, bl_tensor x, bl_tensor ridge)
{
    bl_tensor identity = bl_identity(x.graph, bl_type_of(x).dtype, bl_dim(x, 1));
    bl_tensor l = bl_cholesky(bl_add(bl_dot(x, x, true, false), bl_mul(ridge, identity)));
    return bl_triangular_solve(l, bl_triangular_solve(l, b, true, true), true, false);
}

/* With z = b A^-1 and c = g A^-1, by the factor that is there already: db = c, dA = -z^T c, from
 * which dx = -(x c^T) z - (x z^T) c and dridge = -<z,c>. */
static void slope_of_ridge_solve(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                                 const bl_tensor *cotangent, bl_tensor *gradient, void *context)
{
    (void)g, (void)output, (void)context;
    bl_tensor x = input[1], ridge = input[2], z = bl_ridge_solve(input[0], x, ridge);
    bl_tensor c = bl_ridge_solve(cotangent[0], x, ridge);
    bl_tensor left = bl_dot(bl_dot(x, c, false, true), z, false, false);
    bl_tensor right = bl_dot(bl_dot(x, z, false, true), c, false, false);
    gradient[0] = c;
    gradient[1] = bl_neg(bl_add(left, right));
    gradient[2] = bl_neg(bl_sum(bl_mul(z, c)));
}

bl_tensor(bl_ridge_solve)(bl_tensor b, bl_tensor x, bl_tensor ridge)
{
    if (!bl_need_tensor("ridge_solve", b) || !bl_need_tensor("ridge_solve", x))
        return bl_poisoned(bl_graph_of((bl_tensor[]){b, x}, 2));
    if (bl_rank(b) != 2 || bl_rank(x) != 2 || bl_dim(b, 1) != bl_dim(x, 1))
        return bl_poison(x.graph, "ridge_solve: needs b[k,n] and x[m,n], not %s and %s",
                         bl_show(bl_type_of(b)), bl_show(bl_type_of(x)));
    bl_dtype dtype = bl_type_of(x).dtype;
    bl_tensor scalar = bl_is_number(ridge) ? bl_full(x.graph, dtype, BL_SCALAR, ridge.number) : ridge;
    bl_tensor input[] = {b, x, scalar}, z = solve_ridge(b, x, scalar), result;
    bl_override_gradient(&z, 1, input, 3, slope_of_ridge_solve, NULL, &result);
    return result;
}

void(bl_truncated_svd)(bl_tensor x, int64_t rank, bl_tensor *u, bl_tensor *s, bl_tensor *v)
{
    bl_svd(x, u, s, v);
    if (bl_is_poison(*s))
        return;
    if (rank < 0 || rank > bl_dim(*s, -1)) {
        *u = *s = *v =
            bl_poison(x.graph,
                      "truncated_svd: rank is %lld, expected at most %lld, the "
                      "smaller side of %s",
                      (long long)rank, (long long)bl_dim(*s, -1), bl_show(bl_type_of(x)));
        return;
    }
    *u = bl_slice_axis(*u, -1, 0, rank);
    *s = bl_slice_axis(*s, -1, 0, rank);
    *v = bl_slice_axis(*v, -1, 0, rank);
}
