/* Linear algebra: decompositions and triangular systems of the last two axes.
 *
 * eigh and svd have several results, which lie side by side in one: row i is a value and its
 * vectors. Their builders cut it up and their rules put it together again. Gradients are the
 * textbook ones (Giles 2008; Townsend 2016), written with transposed products, so they may be
 * differentiated again. */
#define BL_KEEP_PLACE
#include <float.h>
#include <math.h>

#include "graph/build.h"

static bl_type matrices(bl_graph *graph, bl_type x, bool square)
{
    int rank = x.shape.rank;
    REQUIRE(bl_dtype_is_float(x.dtype) && rank >= 2, "operand must be float [..,%s], not %s",
            square ? "n,n" : "m,n", bl_show(x));
    REQUIRE(!square || x.shape.dim[rank - 2] == x.shape.dim[rank - 1],
            "the last two axes of %s differ", bl_show(x));
    return x;
}

/* --- small parts of the rules ------------------------------------------------------------------
 */

static bl_tensor flipped(bl_tensor x) /* the last two axes exchanged */
{
    int axes[BL_MAX_RANK + 1], rank = bl_rank(x);
    for (int i = 0; i < rank; i++)
        axes[i] = i;
    axes[rank] = BL_END;
    axes[rank - 2] = rank - 1;
    axes[rank - 1] = rank - 2;
    return bl_transpose_to(x, axes);
}

static bl_tensor product(bl_tensor a, bl_tensor b)
{
    return bl_dot(a, b, false, false);
}

/* x where its row is above, on or below its column, else 0: compares (row, column). */
static bl_tensor where(bl_tensor x, bl_op comparison)
{
    bl_shape shape = bl_type_of(x).shape;
    bl_tensor place[] = {bl_iota(x.graph, BL_I32, shape, -2), bl_iota(x.graph, BL_I32, shape, -1)};
    return bl_select(bl_node_new(x.graph, comparison, place, 2, (bl_attr){0}), x, 0);
}

/* v[..,n] on the diagonal of [..,n,n]. */
static bl_tensor diagonal(bl_tensor v)
{
    bl_shape shape = bl_type_of(v).shape;
    shape.dim[shape.rank] = shape.dim[shape.rank - 1];
    shape.rank++;
    return where(bl_broadcast(bl_expand(v, -1), shape), BL_OP_eq);
}

/* 1 / x where |x| > least, else 0; the operand is made safe, not the result. */
static bl_tensor safe_inverse(bl_tensor x, bl_tensor least)
{
    bl_tensor good = bl_gt(bl_abs(x), least);
    return bl_select(good, bl_div(1, bl_select(good, x, 1)), 0);
}

/* What rounding leaves of a difference of eigenvalues (or singular values) w[..,n] that are equal.
 */
static bl_tensor rounding_of(bl_tensor w)
{
    double unit = bl_type_of(w).dtype == BL_F32 ? FLT_EPSILON : DBL_EPSILON;
    bl_tensor largest = bl_reduce_max_keep(bl_abs(bl_stop_gradient(w)), -1);
    return bl_mul(largest, 8 * unit * (double)bl_dim(w, -1));
}

/* d[..,i,j] = w[j] - w[i]. */
static bl_tensor differences(bl_tensor w)
{
    return bl_sub(bl_expand(w, -2), bl_expand(w, -1));
}

/* Columns from..to of the rows of a decomposition, as a matrix with these as columns. */
static bl_tensor vectors(bl_tensor rows, int64_t from, int64_t to)
{
    return flipped(bl_slice_axis(rows, -1, from, to));
}

static bl_tensor values(bl_tensor rows)
{
    return bl_pick(rows, -1, 0);
}

/* Whether a decomposition's cotangent g is of its values alone, as where a loss is a function of
 * eigenvalues or singular values: then it is the padded cotangent of what values() sliced out, and
 * most of the rule is products with 0. */
static bool is_of_values(bl_tensor g)
{
    const bl_node *node = bl_node_at(g.graph, g.id);
    int last = bl_rank(g) - 1;
    return node->op == BL_OP_pad && node->attr->value == 0 && node->attr->a[last] == 0 &&
           node->attr->c[last] == 0 && node->attr->b[last] == bl_dim(g, -1) - 1;
}

/* u diag(d) v^T */
static bl_tensor sandwich(bl_tensor u, bl_tensor d, bl_tensor v)
{
    return bl_dot(bl_mul(u, bl_expand(d, -2)), v, false, true);
}

static bl_tensor symmetric_part(bl_tensor x)
{
    return bl_mul(0.5, bl_add(x, flipped(x)));
}

/* --- cholesky ----------------------------------------------------------------------------------
 */

TYPE(cholesky)
{
    return matrices(graph, x[0], true);
}
/* dx = L^-T phi(L^T g) L^-1, made symmetric; phi keeps the lower triangle and half the diagonal. */
VJP(cholesky)
{
    bl_tensor inner = bl_dot(z, where(g, BL_OP_ge), true, false);
    bl_tensor phi = bl_sub(where(inner, BL_OP_ge), bl_mul(0.5, where(inner, BL_OP_eq)));
    bl_tensor half = bl_triangular_solve(z, phi, false, true);
    dx[0] = symmetric_part(bl_triangular_solve(z, half, true, false));
}

bl_tensor(bl_cholesky)(bl_tensor x)
{
    if (!bl_need_tensor("cholesky", x))
        return bl_poisoned(x.graph);
    bool square =
        bl_rank(x) >= 2 && bl_dim(x, -1) == bl_dim(x, -2) && bl_dtype_is_float(bl_type_of(x).dtype);
    bl_tensor operand = square ? symmetric_part(x) : x;
    return bl_node_new(x.graph, BL_OP_cholesky, &operand, 1, (bl_attr){0});
}

/* --- triangular systems ------------------------------------------------------------------------
 */

TYPE(triangular_solve)
{
    bl_type l = matrices(graph, x[0], true);
    if (l.shape.rank < 0)
        return l;
    int rank = l.shape.rank;
    int64_t size = l.shape.dim[rank - 1];
    bl_type like = x[1];
    REQUIRE(like.dtype == l.dtype && like.shape.rank == rank, "L and b do not fit: %s and %s",
            bl_show(x[0]), bl_show(x[1]));
    like.shape.dim[rank - 2] = like.shape.dim[rank - 1] = size;
    REQUIRE(bl_type_equal(like, l) && x[1].shape.dim[attr->flag ? rank - 1 : rank - 2] == size,
            "L and b do not fit: %s and %s", bl_show(x[0]), bl_show(x[1]));
    return x[1];
}
/* With T for L or L^T: T X = b gives db = T^-T g, dT = -db X^T; X T = b gives db = g T^-T,
 * dT = -X^T db. */
VJP(triangular_solve)
{
    bool right = attr->flag, transpose = attr->flag2;
    bl_tensor db = bl_triangular_solve(x[0], g, right, !transpose);
    dx[1] = db;
    if (!WANT(0))
        return;
    bl_tensor first = right ? z : db, second = right ? db : z;
    bl_tensor dt = bl_dot(transpose ? second : first, transpose ? first : second, right, !right);
    dx[0] = bl_neg(where(dt, BL_OP_ge));
}

bl_tensor(bl_triangular_solve)(bl_tensor l, bl_tensor b, bool right, bool transpose)
{
    if (!bl_need_tensor("triangular_solve", l) || !bl_need_tensor("triangular_solve", b))
        return bl_poisoned(bl_graph_of((bl_tensor[]){l, b}, 2));
    return bl_node_new(l.graph, BL_OP_triangular_solve, (bl_tensor[]){l, b}, 2,
                       (bl_attr){.flag = right, .flag2 = transpose});
}

/* --- eigh --------------------------------------------------------------------------------------
 */

TYPE(eigh)
{
    bl_type z = matrices(graph, x[0], true);
    if (z.shape.rank >= 0)
        z.shape.dim[z.shape.rank - 1]++;
    return z;
}
/* dx = V (diag(gw) + F o (V^T gV)) V^T with F[i,j] = 1 / (w[j] - w[i]), made symmetric. */
VJP(eigh)
{
    int64_t size = bl_dim(x[0], -1);
    if (size == 0)
        return;
    bl_tensor w = values(z), v = vectors(z, 1, 1 + size), gv = vectors(g, 1, 1 + size);
    if (is_of_values(g)) {
        dx[0] = symmetric_part(sandwich(v, values(g), v));
        return;
    }
    bl_tensor inverse = safe_inverse(differences(w), bl_expand(rounding_of(w), -1));
    bl_tensor inner = bl_add(diagonal(values(g)), bl_mul(inverse, bl_dot(v, gv, true, false)));
    dx[0] = symmetric_part(bl_dot(product(v, inner), v, false, true));
}

void(bl_eigh)(bl_tensor x, bl_tensor *w, bl_tensor *v)
{
    bl_tensor z = bl_poisoned(x.graph);
    if (bl_need_tensor("eigh", x)) {
        bool square = bl_rank(x) >= 2 && bl_dim(x, -1) == bl_dim(x, -2) &&
                      bl_dtype_is_float(bl_type_of(x).dtype);
        bl_tensor operand = square ? symmetric_part(x) : x;
        z = bl_node_new(x.graph, BL_OP_eigh, &operand, 1, (bl_attr){0});
    }
    *w = *v = z;
    if (bl_is_poison(z))
        return;
    *w = values(z);
    *v = vectors(z, 1, bl_dim(z, -1));
}

/* --- svd ---------------------------------------------------------------------------------------
 */

TYPE(svd)
{
    bl_type z = matrices(graph, x[0], false);
    if (z.shape.rank < 0)
        return z;
    int64_t *d = z.shape.dim + z.shape.rank - 2, rows = d[0], columns = d[1];
    d[0] = rows < columns ? rows : columns;
    d[1] = 1 + rows + columns;
    return z;
}

/* F o (a - a^T), F[i,j] = 1 / (s[j]^2 - s[i]^2), for a = U^T gU or V^T gV. */
static bl_tensor rotation(bl_tensor u, bl_tensor gu, bl_tensor inverse)
{
    bl_tensor inner = bl_dot(u, gu, true, false);
    return bl_mul(inverse, bl_sub(inner, flipped(inner)));
}

/* (I - U U^T) gU diag(1 / s): how U leaves the space it spans. */
static bl_tensor escape(bl_tensor u, bl_tensor gu, bl_tensor inverse)
{
    bl_tensor outside = bl_sub(gu, product(u, bl_dot(u, gu, true, false)));
    return bl_mul(outside, bl_expand(inverse, -2));
}

/* dx = U (J S + S K + diag(gs)) V^T + escape(U) V^T + U escape(V)^T, J and K the rotations of U
 * and V. s[j]^2 - s[i]^2 is (s[j] - s[i]) (s[j] + s[i]), each made safe. */
VJP(svd)
{
    int64_t rows = bl_dim(x[0], -2), columns = bl_dim(x[0], -1), end = 1 + rows + columns;
    if (rows == 0 || columns == 0)
        return;
    bl_tensor s = values(z), u = vectors(z, 1, 1 + rows), v = vectors(z, 1 + rows, end);
    bl_tensor gu = vectors(g, 1, 1 + rows), gv = vectors(g, 1 + rows, end);
    if (is_of_values(g)) {
        dx[0] = sandwich(u, values(g), v);
        return;
    }
    bl_tensor least = rounding_of(s), row = bl_expand(s, -2), column = bl_expand(s, -1);
    bl_tensor apart = safe_inverse(differences(s), bl_expand(least, -1));
    bl_tensor together = safe_inverse(bl_add(row, column), bl_expand(least, -1));
    bl_tensor inverse = bl_mul(apart, together), alone = safe_inverse(s, least);
    bl_tensor inner =
        bl_add(bl_mul(rotation(u, gu, inverse), row), bl_mul(column, rotation(v, gv, inverse)));
    bl_tensor left = bl_add(product(u, bl_add(inner, diagonal(values(g)))), escape(u, gu, alone));
    dx[0] = bl_add(bl_dot(left, v, false, true), bl_dot(u, escape(v, gv, alone), false, true));
}

void(bl_svd)(bl_tensor x, bl_tensor *u, bl_tensor *s, bl_tensor *v)
{
    bl_tensor z = bl_poisoned(x.graph);
    if (bl_need_tensor("svd", x))
        z = bl_node_new(x.graph, BL_OP_svd, &x, 1, (bl_attr){0});
    *u = *s = *v = z;
    if (bl_is_poison(z))
        return;
    int64_t m = bl_dim(x, -2);
    *s = values(z);
    *u = vectors(z, 1, 1 + m);
    *v = vectors(z, 1 + m, bl_dim(z, -1));
}
