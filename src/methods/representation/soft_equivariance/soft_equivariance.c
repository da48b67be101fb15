/* Projection-based equivariance regularizer. Kim, Lee, Yang, Lee, ICML 2023, arXiv 2306.00356. Data
 * may obey a symmetry only nearly. The layers of an ordinary network carry representations of
 * candidate groups, and for each group the squared distance of the weights from the equivariant
 * subspace is penalised; strengths are then set by how far the weights stayed away, so that groups
 * which the data obey are enforced and the others let go.
 *
 * Types: 0 is a scalar, 1 a vector (3 numbers), 2 a matrix (9, row by row). Weights w[out,in] are
 * flattened row by row. */
#include "methods/method.h"

static bl_tensor squares(bl_tensor x)
{
    return bl_sum(bl_square(x));
}

/* [1,n,n] */
static bl_tensor identity(bl_tensor like, int64_t n)
{
    return bl_expand(bl_identity(like.graph, bl_type_of(like).dtype, n), 0);
}

/* a (x) b of [M,n,n] and [M,m,m], or [1,n,n] of one of them: entry (i m + k, j m + l) is
 * a[i,j] b[k,l]. */
static bl_tensor kronecker(bl_tensor a, bl_tensor b)
{
    int64_t n = bl_dim(a, 1), m = bl_dim(b, 1);
    int64_t count = bl_dim(a, 0) == 1 ? bl_dim(b, 0) : bl_dim(a, 0);
    bl_tensor left  = bl_reshape(a, BL_SHAPE(bl_dim(a, 0), n, 1, n, 1));
    bl_tensor right = bl_reshape(b, BL_SHAPE(bl_dim(b, 0), 1, m, 1, m));
    return bl_reshape(bl_mul(left, right), BL_SHAPE(count, n * m, n * m));
}

/* --- groups and their projectors, once before training ---------------------------------------- */

#define SOFT_EQUIVARIANCE_REP(IN, OPT, OUT)                                                        \
    IN (g,    "f32[M,d,d]", "",              "elements of a group, or of its Lie algebra")         \
    OPT(n0,   0,            ">= 0",          "scalars")                                            \
    OPT(n1,   0,            ">= 0",          "vectors")                                            \
    OPT(n2,   0,            ">= 0",          "matrices")                                           \
    OPT(kind, "group",      "group|algebra", "what g is")                                          \
    OUT(rho,  "f32[M,?,?]",                  "what they do to n0 scalars, n1 vectors, n2 matrices")

/* Zeros to the left and right of block[M,n,n] in a row of `width` columns. */
static bl_tensor in_row(bl_tensor block, int64_t before, int64_t width)
{
    int64_t after = width - before - bl_dim(block, 2);
    return bl_pad(block, BL_SHAPE(0, 0, before), BL_SHAPE(0, 0, after), 0);
}

BL_CONTRACT(soft_equivariance_rep, SOFT_EQUIVARIANCE_REP, "a group acting on a layer")
{
    int64_t count = bl_dim(f->g, 0), d = bl_dim(f->g, 1);
    int64_t n0 = f->n0, n1 = f->n1 * d, n2 = f->n2 * d * d, n = n0 + n1 + n2;
    bl_tensor I = identity(f->g, d), on_scalar, on_matrix;
    if (bl_is(f->kind, "group")) { /* 1, g, g (x) g */
        on_scalar = identity(f->g, n0);
        on_matrix = kronecker(f->g, f->g);
    } else { /* 0, A, A (x) I + I (x) A */
        on_scalar = bl_full(graph, BL_F32, BL_SHAPE(1, n0, n0), 0);
        on_matrix = bl_add(kronecker(f->g, I), kronecker(I, f->g));
    }
    bl_tensor scalars  = bl_broadcast(on_scalar, BL_SHAPE(count, n0, n0));
    bl_tensor vectors  = kronecker(identity(f->g, f->n1), f->g);
    bl_tensor matrices = kronecker(identity(f->g, f->n2), on_matrix);
    f->rho = bl_concat((bl_tensor[]){in_row(scalars, 0, n), in_row(vectors, n0, n),
                                     in_row(matrices, n0 + n1, n)}, 3, 1);
}

#define SOFT_EQUIVARIANCE_PROJECTOR(IN, OPT, OUT)                                                  \
    IN (rho_in,    "f32[M,i,i]", "finite",  "discrete generators, on the layer's input")           \
    IN (rho_out,   "f32[M,o,o]", "finite",  "on its output")                                       \
    IN (drho_in,   "f32[L,i,i]", "finite",  "Lie algebra generators, on the input")                \
    IN (drho_out,  "f32[L,o,o]", "finite",  "on the output")                                       \
    OPT(tol,       1e-5,         "(0,inf)", "singular values up to it count as 0")                 \
    OUT(projector, "f32[?,?]",              "of flattened weights onto the equivariant ones")      \
    OUT(rank,      "i32[]",                 "dimensions of those")

/* B^-T = (B B^T)^-1 B */
static bl_tensor inverse_transposed(bl_tensor b)
{
    bl_tensor l = bl_cholesky(bl_dot(b, b, false, true));
    return bl_triangular_solve(l, bl_triangular_solve(l, b, false, false), false, true);
}

/* Equivariant W are those with rho_out W rho_in^-1 = W and drho_out W = W drho_in: the rows of C in
 * C vec(W) = 0. The thin decomposition of C has all right vectors, for C is never wide. */
BL_CONTRACT(soft_equivariance_projector, SOFT_EQUIVARIANCE_PROJECTOR,
            "the projector onto equivariant weights")
{
    int64_t i = bl_dim(f->rho_in, 1), o = bl_dim(f->rho_out, 1), n = i * o;
    int64_t M = bl_dim(f->rho_in, 0), L = bl_dim(f->drho_in, 0);
    if (M + L == 0 || n == 0) { /* anything is equivariant */
        f->projector = bl_identity(graph, BL_F32, n);
        f->rank = bl_cast(bl_full(graph, BL_F32, BL_SCALAR, (double)n), BL_I32);
        return;
    }
    bl_tensor part[2], u, s, v;
    int parts = 0;
    if (M > 0) {
        bl_tensor moved =
            kronecker(bl_to_f64(f->rho_out), inverse_transposed(bl_to_f64(f->rho_in)));
        part[parts++]   = bl_sub(moved, identity(moved, n));
    }
    if (L > 0) {
        bl_tensor in = bl_transpose(bl_to_f64(f->drho_in), 0, 2, 1), out = bl_to_f64(f->drho_out);
        part[parts++] = bl_sub(kronecker(out, identity(out, i)), kronecker(identity(in, o), in));
    }
    bl_svd(bl_reshape(bl_concat(part, parts, 0), BL_SHAPE((M + L) * n, n)), &u, &s, &v);
    bl_tensor kept = bl_le(s, bl_to_f64(f->tol));
    f->projector = bl_to_f32(bl_dot(bl_mul(v, bl_to_f64(kept)), v, false, true));
    f->rank = bl_sum(bl_cast(kept, BL_I32));
}

/* --- the penalty ------------------------------------------------------------------------------ */

#define SOFT_EQUIVARIANCE_PENALTY(IN, OPT, OUT)                                                    \
    IN (w,            "f32[o,i]",   "grad",    "weights")                                          \
    IN (b,            "f32[o]",     "grad",    "bias")                                             \
    IN (pw,           "f32[G,n,n]", "",        "projectors of weights, n = o i, by group")         \
    IN (pb,           "f32[G,o,o]", "",        "of biases")                                        \
    IN (lam,          "f32[G]",     ">= 0",    "strength of each group")                           \
    OPT(weight_decay, 0.0,          "[0,inf)", "of weights and bias")                              \
    OPT(bias,         1,            "flag",    "is the bias penalised as well?")                   \
    OUT(loss,         "f32[]",      "sum of lam reg + weight_decay (|w|^2 + |b|^2) / 2")           \
    OUT(reg,          "f32[G]",     "half the squared distance from each group's subspace")

/* |x - P_g x|^2 / 2 for x[n] and P[G,n,n] */
static bl_tensor half_distances(bl_tensor x, bl_tensor P)
{
    int64_t groups = bl_dim(P, 0), n = bl_dim(P, 1);
    bl_tensor on = bl_dot(bl_reshape(P, BL_SHAPE(groups * n, n)), bl_expand(x, 1), false, false);
    return bl_div(bl_sum(bl_square(bl_sub(x, bl_reshape(on, BL_SHAPE(groups, n)))), 1), 2);
}

BL_CONTRACT(soft_equivariance_penalty, SOFT_EQUIVARIANCE_PENALTY,
            "the distance of a layer from each symmetry")
{
    int64_t n = bl_dim(f->w, 0) * bl_dim(f->w, 1);
    if (bl_dim(f->pw, 1) != n) {
        bl_poison(graph, "pw projects %lld numbers, expected %lld, the size of w",
                  (long long)bl_dim(f->pw, 1), (long long)n);
        return;
    }
    f->reg = half_distances(bl_reshape(f->w, BL_SHAPE(n)), f->pw);
    if (f->bias)
        f->reg = bl_add(f->reg, half_distances(f->b, f->pb));
    bl_tensor size = bl_div(bl_add(squares(f->w), squares(f->b)), 2);
    f->loss = bl_add(bl_sum(bl_mul(f->lam, f->reg)), bl_mul(f->weight_decay, size));
}

#define SOFT_EQUIVARIANCE_TYPED_PROJECT(IN, OPT, OUT)                                              \
    IN (w,          "f32[o,i]",       "grad",     "weights")                                       \
    IN (p00,        "f32[1,1]",       "optional", "projector of maps from scalars to scalars")     \
    IN (p01,        "f32[3,3]",       "optional", "from vectors to scalars; and so on, as needed") \
    IN (p02,        "f32[9,9]",       "optional", "")                                              \
    IN (p10,        "f32[3,3]",       "optional", "")                                              \
    IN (p11,        "f32[9,9]",       "optional", "")                                              \
    IN (p12,        "f32[27,27]",     "optional", "")                                              \
    IN (p20,        "f32[9,9]",       "optional", "")                                              \
    IN (p21,        "f32[27,27]",     "optional", "")                                              \
    IN (p22,        "f32[81,81]",     "optional", "")                                              \
    OPT(layout_out, BL_NO_INTEGERS,   ">= 0", "[type, count], .. of the outputs, in order")        \
    OPT(layout_in,  BL_NO_INTEGERS,   ">= 0", "of the inputs")                                     \
    OUT(w_out,      "f32[o,i]",               "the equivariant part of w")                         \
    OUT(reg,        "f32[]",                  "|w - w_out|^2 / 2")

static const int64_t type_size[] = {1, 3, 9};

/* Whether the segments are [type, count] and add up to `size`. */
static bool layout_fits(bl_graph *graph, const char *name, const bl_integers *layout, int64_t size)
{
    int64_t total = 0;
    if (layout->rows > 0 && layout->columns != 2) {
        bl_poison(graph, "option %s has rows of %d numbers, expected [type, count]", name,
                  layout->columns);
        return false;
    }
    for (int i = 0; i < layout->rows; i++) {
        int64_t type = layout->at[2 * i], count = layout->at[2 * i + 1];
        if (type > 2 || count > size) {
            bl_poison(graph, "option %s[%d] is [%lld,%lld], expected a type 0, 1 or 2 and a count "
                      "that fits into %lld", name, i, (long long)type, (long long)count,
                      (long long)size);
            return false;
        }
        total += count * type_size[type];
    }
    if (total != size)
        bl_poison(graph, "option %s adds up to %lld, expected %lld as in w", name,
                  (long long)total, (long long)size);
    return total == size;
}

/* A block of count_out x count_in maps of `rows` x `columns` numbers, each flattened and
 * projected. */
static bl_tensor project_block(bl_tensor block, bl_tensor P, int64_t rows, int64_t columns)
{
    int64_t m = bl_dim(block, 0) / rows, n = bl_dim(block, 1) / columns;
    bl_tensor maps = bl_transpose(bl_reshape(block, BL_SHAPE(m, rows, n, columns)), 0, 2, 1, 3);
    bl_tensor flat = bl_reshape(maps, BL_SHAPE(m * n, rows * columns));
    bl_tensor on   = bl_reshape(bl_dot(flat, P, false, true), BL_SHAPE(m, n, rows, columns));
    return bl_reshape(bl_transpose(on, 0, 2, 1, 3), BL_SHAPE(m * rows, n * columns));
}

struct soft_equivariance_typed_project;
static bl_tensor project_rows(const struct soft_equivariance_typed_project *f, bl_tensor rows,
                              int64_t type);

BL_CONTRACT(soft_equivariance_typed_project, SOFT_EQUIVARIANCE_TYPED_PROJECT,
            "the equivariant part of a layer, type by type")
{
    if (!layout_fits(graph, "layout_out", &f->layout_out, bl_dim(f->w, 0)) ||
        !layout_fits(graph, "layout_in", &f->layout_in, bl_dim(f->w, 1)))
        return;
    bl_tensor segment[BL_INTEGERS_MAX];
    int count = f->layout_out.rows;
    int64_t at = 0;
    for (int i = 0; i < count; i++) {
        int64_t type = f->layout_out.at[2 * i];
        int64_t rows = f->layout_out.at[2 * i + 1] * type_size[type];
        segment[i] = project_rows(f, bl_slice_axis(f->w, 0, at, at + rows), type);
        at += rows;
    }
    f->w_out = count > 0 ? bl_concat(segment, count, 0) : f->w;
    f->reg   = bl_div(squares(bl_sub(f->w, f->w_out)), 2);
}

/* The rows of w that belong to outputs of one type. */
static bl_tensor project_rows(const struct soft_equivariance_typed_project *f, bl_tensor rows,
                              int64_t type)
{
    const bl_tensor projector[] = {f->p00, f->p01, f->p02, f->p10, f->p11,
                                   f->p12, f->p20, f->p21, f->p22};
    bl_tensor segment[BL_INTEGERS_MAX];
    int count = f->layout_in.rows;
    int64_t at = 0;
    for (int i = 0; i < count; i++) {
        int64_t from = f->layout_in.at[2 * i];
        int64_t columns = f->layout_in.at[2 * i + 1] * type_size[from];
        bl_tensor P = projector[3 * type + from];
        if (bl_is_number(P))
            return bl_poison(rows.graph, "input p%lld%lld is missing, expected where the layouts "
                             "map type %lld to type %lld", (long long)type, (long long)from,
                             (long long)from, (long long)type);
        bl_tensor block = bl_slice_axis(rows, 1, at, at + columns);
        segment[i] = project_block(block, P, type_size[type], type_size[from]);
        at += columns;
    }
    return count > 0 ? bl_concat(segment, count, 1) : rows;
}

#define SOFT_EQUIVARIANCE_TUNE(IN, OPT, OUT)                                                       \
    IN (lam,      "f32[G]",   ">= 0",             "strengths; 0 leaves a group out")               \
    IN (reg,      "f32[T,G]", "rows > 0, no NaN", "the network's distances after T epochs")        \
    OPT(power,    2.0,        "[0,inf)",          "how strongly strengths follow distances")       \
    OUT(lam_out,  "f32[G]",                       "lam / (best / smallest of best)^power")         \
    OUT(reg_used, "f32[G]",                       "best: the last row with any entry below best")

/* The smallest of best over groups that take part; where none does, the largest. */
static double smallest_active(const float *best, const float *lam, int64_t groups)
{
    double low = INFINITY, high = -INFINITY;
    for (int64_t g = 0; g < groups; g++)
        high = fmax(high, (double)best[g]);
    for (int64_t g = 0; g < groups; g++)
        low = fmin(low, lam[g] > 0 ? (double)best[g] : high);
    return low;
}

BL_HOST(soft_equivariance_tune, SOFT_EQUIVARIANCE_TUNE, "strengths by how far weights stayed away")
{
    int64_t epochs = f->reg.type.shape.dim[0], groups = f->reg.type.shape.dim[1];
    const float *best = bl_f32(&f->reg), *lam = bl_f32(&f->lam);
    for (int64_t t = 1; t < epochs; t++) {
        const float *row = bl_f32(&f->reg) + t * groups;
        for (int64_t g = 0; g < groups; g++)
            if (row[g] < best[g]) {
                best = row;
                break;
            }
    }
    double low = smallest_active(best, lam, groups);
    for (int64_t g = 0; g < groups; g++) {
        double ratio = (double)best[g] == low ? 1 : (double)best[g] / low; /* also 0 / 0 */
        double strength = lam[g] > 0 ? (double)lam[g] / pow(ratio, f->power) : 0;
        bl_array_set(&f->lam_out, g, strength);
        bl_array_set(&f->reg_used, g, (double)best[g]);
    }
    return BL_OK;
}

#define SOFT_EQUIVARIANCE_EQUIVARIANCE_ERROR(IN, OPT, OUT)                                         \
    IN (y_gx,    "f32[S,N,m]", "grad, rows > 0", "outputs for inputs moved by S group elements")   \
    IN (y_x,     "f32[N,m]",   "grad, rows > 0", "outputs for the inputs themselves")              \
    IN (rho_out, "f32[S,m,m]", "",               "the elements on the output")                     \
    OUT(error,   "f32[]", "mean of |y_gx - rho y| / (|y_gx| + |rho y|), in [0,1]")

BL_CONTRACT(soft_equivariance_equivariance_error, SOFT_EQUIVARIANCE_EQUIVARIANCE_ERROR,
            "how far outputs are from moving with inputs")
{
    bl_tensor y     = bl_broadcast(f->y_x, bl_type_of(f->y_gx).shape);
    bl_tensor moved = bl_dot(y, f->rho_out, false, true);
    bl_tensor size  = bl_add(bl_norm(f->y_gx, -1), bl_norm(moved, -1)), some = bl_gt(size, 0);
    bl_tensor share = bl_div(bl_norm(bl_sub(f->y_gx, moved), -1),
                             bl_select(some, size, bl_ones_like(size)));
    f->error = bl_mean(share); /* 0 where both outputs are 0 */
}

/* --- data with mixed symmetries --------------------------------------------------------------- */

#define SOFT_EQUIVARIANCE_INERTIA(IN, OPT, OUT)                                                    \
    IN (x,     "f32[N,?]",  "",                  "k masses, then k points of 3 numbers")           \
    OPT(k,     5,           ">= 1",              "bodies")                                         \
    OPT(noise, BL_REQUIRED, "finite",            "how much of the symmetry is broken")             \
    OPT(axis,  BL_REQUIRED_INTEGER, "[-1,2]",    "which keeps its rotations; -1: more along y, "   \
                                                 "less along x")                                   \
    OUT(y,     "f32[N,9]",                       "the tensor of inertia, row by row")

static bool has_columns(bl_graph *graph, bl_tensor x, int64_t expected)
{
    if (bl_dim(x, 1) == expected)
        return true;
    bl_poison(graph, "x has %lld columns, expected %lld", (long long)bl_dim(x, 1),
              (long long)expected);
    return false;
}

/* I = sum of m (|r|^2 - r r^T). The noise, (I e_a) e_a^T, scales the columns of I. */
BL_CONTRACT(soft_equivariance_inertia, SOFT_EQUIVARIANCE_INERTIA,
            "moments of inertia, nearly equivariant to rotations")
{
    int64_t rows = bl_dim(f->x, 0), k = f->k;
    if (!has_columns(graph, f->x, 4 * k))
        return;
    bl_tensor x = bl_to_f64(f->x), m = bl_reshape(bl_slice_axis(x, 1, 0, k), BL_SHAPE(rows, k, 1));
    bl_tensor r = bl_reshape(bl_slice_axis(x, 1, k, 4 * k), BL_SHAPE(rows, k, 3));
    bl_tensor weighted = bl_mul(m, r);
    bl_tensor trace    = bl_reshape(bl_sum(bl_mul(weighted, r), 1, 2), BL_SHAPE(rows, 1, 1));
    bl_tensor inertia  = bl_sub(bl_mul(trace, identity(x, 3)), bl_dot(weighted, r, true, false));

    bl_tensor column = bl_iota(graph, BL_I32, BL_SHAPE(3), 0);
    bl_tensor more = bl_to_f64(bl_eq(column, f->axis < 0 ? 1.0 : (double)f->axis));
    if (f->axis < 0)
        more = bl_sub(more, bl_to_f64(bl_eq(column, 0)));
    bl_tensor scale = bl_add(1, bl_mul(bl_to_f64(f->noise), more));
    f->y = bl_to_f32(bl_reshape(bl_mul(inertia, scale), BL_SHAPE(rows, 9)));
}

#define SOFT_EQUIVARIANCE_COSSIM(IN, OPT, OUT)                                                     \
    IN (x,     "f32[N,?]",  "",       "k points of 3 numbers")                                     \
    OPT(k,     3,           ">= 1",   "points")                                                    \
    OPT(noise, BL_REQUIRED, "finite", "how much of the symmetry is broken")                        \
    OPT(sym,   BL_REQUIRED_WORD, "so3-scale|so3|scale|none", "what is kept")                       \
    OUT(y,     "f32[N,1]",            "mean cosine of each point and the next, and what breaks it")

BL_CONTRACT(soft_equivariance_cossim, SOFT_EQUIVARIANCE_COSSIM,
            "cosines of points, nearly invariant to rotation and scale")
{
    int64_t rows = bl_dim(f->x, 0), k = f->k, half = k / 2;
    if (!has_columns(graph, f->x, 3 * k))
        return;
    bl_tensor r = bl_reshape(bl_to_f64(f->x), BL_SHAPE(rows, k, 3)), unit = bl_unit_rows(r, 1e-12);
    bl_tensor next = bl_concat((bl_tensor[]){bl_slice_axis(unit, 1, 1, k),
                                             bl_slice_axis(unit, 1, 0, 1)}, 2, 1);
    bl_tensor y     = bl_mean(bl_sum(bl_mul(unit, next), 2), 1);
    bl_tensor first = bl_sum(bl_abs(bl_slice_axis(r, 1, 0, half)), 1, 2);
    bl_tensor rest  = bl_sum(bl_abs(bl_slice_axis(r, 1, half, k)), 1, 2);
    bool rotates = strncmp(f->sym, "so3", 3) == 0, scales = strstr(f->sym, "scale") != NULL;
    if (!scales) /* the mean norm knows the scale */
        y = bl_sub(y, bl_mul(bl_to_f64(f->noise), bl_mean(bl_norm(r, -1), 1)));
    if (!rotates) { /* a ratio of sums of coordinates knows the direction */
        bl_tensor ratio = bl_mul(bl_to_f64(f->noise), bl_div(first, rest));
        y = scales ? bl_sub(y, ratio) : bl_add(y, ratio);
    }
    f->y = bl_to_f32(bl_expand(y, 1));
}

/* --- a layer ---------------------------------------------------------------------------------- */

#define SOFT_EQUIVARIANCE_BLOCK(IN, OPT, OUT)                                                      \
    IN (x,   "f32[N,i]", "grad", "inputs")                                                         \
    IN (w,   "f32[R,i]", "grad", "15 c rows: c scalars, vectors, matrices, gates of both")         \
    IN (b,   "f32[R]",   "grad", "")                                                               \
    IN (a,   "f32[6,c]", "grad", "weights of the products")                                        \
    OPT(c,   BL_REQUIRED_INTEGER, ">= 1", "scalars, vectors and matrices")                         \
    OUT(out, "f32[N,?]",         "13 c: scalars, vectors, matrices, gated")

/* The channel after each, along axis 1; the last is followed by the first. */
static bl_tensor next_channel(bl_tensor x)
{
    int64_t c = bl_dim(x, 1);
    return bl_concat((bl_tensor[]){bl_slice_axis(x, 1, 1, c), bl_slice_axis(x, 1, 0, 1)}, 2, 1);
}

/* The part of z[N,15 c] at *at, as [N,c,rows,columns]; *at moves behind it. */
static bl_tensor part_of(bl_tensor z, int64_t c, int64_t rows, int64_t columns, int64_t *at)
{
    int64_t size = c * rows * columns, start = *at;
    *at += size;
    bl_tensor part = bl_slice_axis(z, 1, start, start + size);
    return bl_reshape(part, BL_SHAPE(bl_dim(z, 0), c, rows, columns));
}

/* a[i] as [c,1,1] */
static bl_tensor weight_of(bl_tensor a, int64_t i)
{
    return bl_reshape(bl_slice_axis(a, 0, i, i + 1), BL_SHAPE(bl_dim(a, 1), 1, 1));
}

/* gate(g) x, flattened */
static bl_tensor gated(bl_tensor g, bl_tensor x)
{
    bl_tensor y = bl_mul(bl_sigmoid(g), x);
    return bl_reshape(y, BL_SHAPE(bl_dim(y, 0), bl_dim(y, 1) * bl_dim(y, 2) * bl_dim(y, 3)));
}

static bl_tensor times(bl_tensor a, int64_t i, bl_tensor x)
{
    return bl_mul(weight_of(a, i), x);
}

/* s' = s + a0 <v,v+> + a1 tr M;  v' = v + a2 s+ v + a3 M v;  M' = M + a4 v v+^T + a5 s M+, where +
 * is the next channel: every term moves with O(3), whatever a is. */
BL_CONTRACT(soft_equivariance_block, SOFT_EQUIVARIANCE_BLOCK, "a layer that may be equivariant")
{
    int64_t c = f->c, at = 0;
    if (bl_dim(f->w, 0) != 15 * c) {
        bl_poison(graph, "w has %lld rows, expected 15 c = %lld", (long long)bl_dim(f->w, 0),
                  (long long)(15 * c));
        return;
    }
    bl_tensor z = bl_linear(f->x, f->w, f->b);
    bl_tensor s = part_of(z, c, 1, 1, &at), v = part_of(z, c, 3, 1, &at);
    bl_tensor M = part_of(z, c, 3, 3, &at);
    bl_tensor gate_v = part_of(z, c, 1, 1, &at), gate_M = part_of(z, c, 1, 1, &at);
    bl_tensor v_next = next_channel(v);
    bl_tensor inner = bl_sum_keep(bl_mul(v, v_next), 2);
    bl_tensor trace = bl_sum_keep(bl_mul(M, bl_identity(graph, BL_F32, 3)), 2, 3);

    bl_tensor s_new = bl_add(s, bl_add(times(f->a, 0, inner), times(f->a, 1, trace)));
    bl_tensor v_new = bl_add(v, bl_add(times(f->a, 2, bl_mul(next_channel(s), v)),
                                       times(f->a, 3, bl_dot(M, v, false, false))));
    bl_tensor M_new = bl_add(M, bl_add(times(f->a, 4, bl_dot(v, v_next, false, true)),
                                       times(f->a, 5, bl_mul(s, next_channel(M)))));
    f->out = bl_concat(
        (bl_tensor[]){gated(s_new, s_new), gated(gate_v, v_new), gated(gate_M, M_new)}, 3, 1);
}

const bl_method bl_soft_equivariance = {
    .slug = "soft_equivariance",
    .family = "representation",
    .paper = "Kim et al. 2023, arXiv 2306.00356",
    .summary = "(no arm) pulls weights towards the symmetries that the data have",
    .when = "Vectors and matrices as inputs or outputs, and symmetries that are suspected but may "
            "hold only nearly. Costs a small projection of the weights for each group.",
    .functions = {&soft_equivariance_penalty_contract, &soft_equivariance_typed_project_contract,
                  &soft_equivariance_projector_contract, &soft_equivariance_rep_contract,
                  &soft_equivariance_tune_contract,
                  &soft_equivariance_equivariance_error_contract, &soft_equivariance_block_contract,
                  &soft_equivariance_inertia_contract, &soft_equivariance_cossim_contract},
    .example = "ballast show soft_equivariance_penalty",
};
