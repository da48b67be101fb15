/* Wide and deep networks. Radhakrishnan, Belkin, Uhler, arXiv 2204.14126. An infinitely wide
 * network is kernel regression; as depth grows too it becomes a nearest neighbour, a majority vote,
 * or a smoother with weights distance^-alpha. Which one the activation decides, through its dual
 * map phi. All in double: what is iterated falls below what single precision holds. */
#include "methods/method.h"
#include "ballast/solve.h"
#include "base/wide.h"
#include "solve/parts.h"

#define ACTIVATION(OPT)                                                                            \
    OPT(act, BL_REQUIRED_WORD, "relu|erf|sinh|hermite|optimal", "activation")                      \
    OPT(par, 0.0, "finite", "a of sinh, k of hermite, data dimension of optimal")

static bl_status check_parameter(const char *act, double par)
{
    if (bl_is(act, "sinh") && !(par > 0))
        return bl_fail(BL_INVALID, "option par is %g, expected > 0 for sinh", par);
    if (bl_is(act, "hermite") && !(par >= 1 && par <= 9 && par <= floor(par)))
        return bl_fail(BL_INVALID, "option par is %g, expected one of 1..9 for hermite", par);
    if (bl_is(act, "optimal") && !(par >= 1 && par <= floor(par)))
        return bl_fail(BL_INVALID, "option par is %g, expected a whole number >= 1 for optimal",
                       par);
    return BL_OK;
}

/* c[k], the share of the k-th Hermite polynomial: phi(t) = sum c[k] t^k. */
static void shares(const char *act, double par, double c[10])
{
    memset(c, 0, 10 * sizeof *c);
    if (bl_is(act, "hermite")) {
        c[(int)par] = 1;
    } else if (par < 2) {
        c[1] = c[7] = 0.5;
    } else {
        c[1] = c[3] = exp2(-par / 2);
        c[2] = 1 - 2 * c[1];
    }
}

/* An activation's dual map phi. */
typedef struct dual_map {
    enum { RELU, ERF, SINH, SERIES } kind;
    double par, c[10]; /* of a series: its shares */
} dual_map;

static dual_map dual_of(const char *act, double par)
{
    dual_map phi = {SERIES, par, {0}};
    if (bl_is(act, "relu") || bl_is(act, "erf") || bl_is(act, "sinh"))
        phi.kind = bl_is(act, "relu") ? RELU : bl_is(act, "erf") ? ERF : SINH;
    else
        shares(act, par, phi.c);
    return phi;
}

/* phi(t), and its slope. */
static double dual(const dual_map *phi, double t, double *slope)
{
    double par = phi->par, value = 0, angle, scale;
    switch (phi->kind) {
    case RELU:
        angle = M_PI - acos(t);
        *slope = angle / M_PI;
        return (t * angle + sqrt(1 - t * t)) / M_PI;
    case ERF:
        scale = asin(2.0 / 3);
        *slope = 2.0 / 3 / (sqrt(1 - 4 * t * t / 9) * scale);
        return asin(2 * t / 3) / scale;
    case SINH:
        *slope = par * cosh(par * t) / sinh(par);
        return sinh(par * t) / sinh(par);
    case SERIES:
        break;
    }
    *slope = 0;
    for (int k = 9; k >= 0; k--) {
        *slope = *slope * t + value;
        value = value * t + phi->c[k];
    }
    return value;
}

static double clamped(double t)
{
    return fmin(fmax(t, -1), 1);
}

#define WIDE_DEEP_NTK_DUAL(IN, OPT, OUT)                                                           \
    IN(t, "f32[n]", "no NaN", "correlations, in [-1,1]")                                           \
    ACTIVATION(OPT)                                                                                \
    OUT(value, "f32[n]", "phi(t)")                                                                 \
    OUT(slope, "f32[n]", "phi'(t)")

BL_HOST(wide_deep_ntk_dual, WIDE_DEEP_NTK_DUAL, "the dual map of an activation")
{
    BL_TRY(check_parameter(f->act, f->par));
    const dual_map phi = dual_of(f->act, f->par);
    int64_t count = bl_array_count(&f->t);
    for (int64_t i = 0; i < count; i++) {
        double slope, t = bl_array_get(&f->t, i);
        if (fabs(t) > 1 + 1e-6)
            return bl_fail(BL_INVALID, "t[%lld] is %g, expected [-1,1]", (long long)i, t);
        bl_array_set(&f->value, i, dual(&phi, clamped(t), &slope));
        bl_array_set(&f->slope, i, slope);
    }
    return BL_OK;
}

#define WIDE_DEEP_NTK_ACTIVATION(IN, OPT, OUT)                                                     \
    IN(x, "f32[S...]", "grad", "")                                                                 \
    ACTIVATION(OPT)                                                                                \
    OUT(value, "f32[S...]", "sigma(x), of mean square 1 for normal x")

/* sum sqrt(c_k) h_k(x), with sqrt(k+1) h_k+1 = x h_k - sqrt(k) h_k-1, by its powers of x. */
static bl_tensor polynomial(bl_tensor x, const double c[10])
{
    double before[10] = {0}, h[10] = {1}, power[10] = {0};
    int degree = 0;
    for (int k = 0; k < 10; k++) {
        double next[10];
        for (int i = 0; i < 10; i++) {
            power[i] += sqrt(c[k]) * h[i];
            next[i] = ((i > 0 ? h[i - 1] : 0) - sqrt(k) * before[i]) / sqrt(k + 1.0);
        }
        degree = c[k] > 0 ? k : degree;
        memcpy(before, h, sizeof h);
        memcpy(h, next, sizeof h);
    }
    bl_tensor sum = bl_full_like(x, power[degree]);
    for (int i = degree - 1; i >= 0; i--)
        sum = bl_add(bl_mul(sum, x), power[i]);
    return sum;
}

static bl_tensor activation(bl_tensor x, const char *act, double par)
{
    double c[10];
    if (bl_is(act, "relu"))
        return bl_mul(sqrt(2), bl_select(bl_gt(x, 0), x, 0));
    if (bl_is(act, "erf"))
        return bl_div(bl_erf(x), sqrt(2 / M_PI * asin(2.0 / 3)));
    if (bl_is(act, "sinh"))
        return bl_div(bl_sin(bl_mul(sqrt(par), x)), sqrt(-expm1(-2 * par) / 2));
    shares(act, par, c);
    return polynomial(x, c);
}

BL_CONTRACT(wide_deep_ntk_activation, WIDE_DEEP_NTK_ACTIVATION, "the finite network's activation")
{
    if (!bl_is_number(f->par) || check_parameter(f->act, f->par.number) != BL_OK)
        f->value = bl_poison(graph, "%s", bl_is_number(f->par) ? bl_error() : "par is scheduled");
    else
        f->value = bl_cast(activation(bl_cast(f->x, BL_F64), f->act, f->par.number), BL_F32);
}

/* --- kernels ---------------------------------------------------------------------------------- */

#define WIDE_DEEP_NTK_KERNEL(IN, OPT, OUT)                                                         \
    IN(x1, "f32[a,d]", "rows > 0", "rows of unit length")                                          \
    IN(x2, "f32[b,d]", "rows > 0", "rows of unit length")                                          \
    ACTIVATION(OPT)                                                                                \
    OPT(depth, BL_REQUIRED_INTEGER, ">= 0", "layers")                                              \
    OPT(kind, "nngp", "nngp|ntk", "of the network at its start, or in training")                   \
    OPT(scale, "none", "none|limit", "limit: by phi'(0)^depth, and by depth + 1 for ntk")          \
    OUT(k, "f32[a,b]", "")

/* product[count] of x[size] and each row, in double. */
BL_WIDE(row_products,
        (const float *x, const float *rows, int64_t count, int64_t size, double *product),
        (x, rows, count, size, product))
{
    for (int64_t i = 0; i < count; i++) {
        double part[8] = {0}, sum = 0;
        const float *row = rows + i * size;
        int64_t k = 0;
        for (; k + 8 <= size; k += 8)
            for (int j = 0; j < 8; j++)
                part[j] += (double)x[k + j] * (double)row[k + j];
        for (; k < size; k++)
            sum += (double)x[k] * (double)row[k];
        for (int j = 0; j < 8; j++)
            sum += part[j];
        product[i] = sum;
    }
}

static bl_status check_unit_rows(const bl_array *x, const char *name)
{
    int64_t size = x->type.shape.dim[1];
    for (int64_t i = 0; i < x->type.shape.dim[0]; i++) {
        double length;
        row_products(bl_f32(x) + i * size, bl_f32(x) + i * size, 1, size, &length);
        length = sqrt(length);
        if (!(fabs(length - 1) <= 1e-3))
            return bl_fail(BL_INVALID, "%s has row %lld of length %g, expected 1", name,
                           (long long)i, length);
    }
    return BL_OK;
}

struct wide_deep_ntk_kernel;
static bl_status fill_kernel(struct wide_deep_ntk_kernel *f, const dual_map *phi, double divisor);

BL_HOST(wide_deep_ntk_kernel, WIDE_DEEP_NTK_KERNEL, "the kernel of an infinitely wide network")
{
    BL_TRY(check_parameter(f->act, f->par));
    BL_TRY(check_unit_rows(&f->x1, "x1"));
    BL_TRY(check_unit_rows(&f->x2, "x2"));
    bool tangent = bl_is(f->kind, "ntk"), limit = bl_is(f->scale, "limit");
    double slope, depth = (double)f->depth;
    const dual_map phi = dual_of(f->act, f->par);
    dual(&phi, 0, &slope);
    if (limit && !(fabs(slope) > 0))
        return bl_fail(BL_INVALID, "scale is limit, but phi'(0) is 0 for %s", f->act);
    return fill_kernel(f, &phi, limit ? pow(slope, depth) * (tangent ? depth + 1 : 1) : 1);
}

typedef struct kernel {
    struct wide_deep_ntk_kernel *f;
    const dual_map *phi;
    bool tangent;
    double divisor;
} kernel;

/* The correlation s of two rows after all layers, or the tangent kernel of that. */
static double deepened(const kernel *c, double s)
{
    double k = s, slope;
    for (int64_t layer = 0; layer < c->f->depth; layer++) {
        double next = clamped(dual(c->phi, s, &slope));
        k = next + k * slope;
        s = next;
    }
    return c->tangent ? k : s;
}

/* Row i; scratch is [b]. */
static void fill_kernel_row(void *context, int64_t i, void *scratch)
{
    const kernel *c = context;
    int64_t columns = c->f->x2.type.shape.dim[0], size = c->f->x2.type.shape.dim[1];
    double *product = scratch;
    row_products(bl_f32(&c->f->x1) + i * size, bl_f32(&c->f->x2), columns, size, product);
    for (int64_t j = 0; j < columns; j++)
        bl_f32(&c->f->k)[i * columns + j] = (float)(deepened(c, clamped(product[j])) / c->divisor);
}

static bl_status fill_kernel(struct wide_deep_ntk_kernel *f, const dual_map *phi, double divisor)
{
    kernel c = {f, phi, bl_is(f->kind, "ntk"), divisor};
    int64_t rows = f->x1.type.shape.dim[0], columns = f->x2.type.shape.dim[0];
    double operations = (double)(rows * columns) * (double)(f->x1.type.shape.dim[1] + 1);
    return bl_in_parts(fill_kernel_row, &c, rows, (size_t)columns * sizeof(double), operations);
}

#define WIDE_DEEP_NTK_EXPONENT(IN, OPT, OUT)                                                       \
    ACTIVATION(OPT)                                                                                \
    OUT(regime, "i32[]", "0: singular kernel, 1: nearest neighbour, 2: majority vote")             \
    OUT(alpha, "f32[]", "exponent of the singular kernel, else 0")

BL_HOST(wide_deep_ntk_exponent, WIDE_DEEP_NTK_EXPONENT, "which classifier depth leads to")
{
    BL_TRY(check_parameter(f->act, f->par));
    const dual_map phi = dual_of(f->act, f->par);
    double at_zero, at_one, zero = dual(&phi, 0, &at_zero);
    dual(&phi, 1, &at_one);
    int regime = fabs(zero) > 1e-12 ? 2 : fabs(at_zero) <= 1e-12 ? 1 : 0;
    if (regime == 0 && !(at_one > 1))
        return bl_fail(BL_INVALID,
                       "option par is %g: the activation is linear, and depth changes "
                       "nothing",
                       f->par);
    bl_array_set(&f->regime, 0, regime);
    bl_array_set(&f->alpha, 0, regime ? 0 : -2 * log(at_zero) / log(at_one));
    return BL_OK;
}

/* --- predictors ------------------------------------------------------------------------------- */

#define WIDE_DEEP_NTK_SINGULAR(IN, OPT, OUT)                                                       \
    IN(x, "f32[n,d]", "rows > 0", "training rows of unit length")                                  \
    IN(y, "f32[n,C]", "", "+-1, or one-hot")                                                       \
    IN(q, "f32[m,d]", "", "queries of unit length")                                                \
    OPT(alpha, BL_REQUIRED, "(0,inf)", "the dimension of the data, for consistency")               \
    OUT(score, "f32[m,C]", "means of y with weights distance^-alpha; exact hits alone count")

struct wide_deep_ntk_singular;

/* weight[n]: 1 or 0 where rows are hit exactly, else (distance / nearest)^-alpha, for query j. */
static void singular_weights(const struct wide_deep_ntk_singular *f, int64_t j, double *weight);

/* Query j; scratch is [n + C]. */
static void score_query(void *context, int64_t j, void *scratch);

BL_HOST(wide_deep_ntk_singular, WIDE_DEEP_NTK_SINGULAR, "the classifier of infinite depth")
{
    BL_TRY(check_unit_rows(&f->x, "x"));
    BL_TRY(check_unit_rows(&f->q, "q"));
    int64_t rows = f->x.type.shape.dim[0], queries = f->q.type.shape.dim[0];
    double operations = (double)(rows * queries) * (double)(f->x.type.shape.dim[1] + 1);
    size_t scratch = (size_t)(rows + f->y.type.shape.dim[1]) * sizeof(double);
    return bl_in_parts(score_query, f, queries, scratch, operations);
}

static void singular_weights(const struct wide_deep_ntk_singular *f, int64_t j, double *weight)
{
    int64_t rows = f->x.type.shape.dim[0], size = f->x.type.shape.dim[1];
    double nearest = INFINITY;
    row_products(bl_f32(&f->q) + j * size, bl_f32(&f->x), rows, size, weight);
    for (int64_t i = 0; i < rows; i++) {
        double squared = 2 - 2 * weight[i];
        weight[i] = squared < 0 ? 0 : squared;
        nearest = weight[i] < nearest ? weight[i] : nearest;
    }
    for (int64_t i = 0; i < rows; i++)
        weight[i] = nearest > 1e-12     ? pow(weight[i] / nearest, -f->alpha / 2)
                    : weight[i] > 1e-12 ? 0
                                        : 1;
}

static void score_query(void *context, int64_t j, void *scratch)
{
    const struct wide_deep_ntk_singular *f = context;
    int64_t rows = f->x.type.shape.dim[0], classes = f->y.type.shape.dim[1];
    double *weight = scratch, *sum = weight + rows, total = 0;
    singular_weights(f, j, weight);
    memset(sum, 0, (size_t)classes * sizeof *sum);
    for (int64_t i = 0; i < rows; i++) {
        total += weight[i];
        for (int64_t c = 0; c < classes; c++)
            sum[c] += weight[i] * (double)bl_f32(&f->y)[i * classes + c];
    }
    for (int64_t c = 0; c < classes; c++)
        bl_f32(&f->score)[j * classes + c] = (float)(sum[c] / total);
}

#define WIDE_DEEP_NTK_KRR(IN, OPT, OUT)                                                            \
    IN(k_train, "f32[n,n]", "rows > 0, finite", "kernel of the training rows")                     \
    IN(y, "f32[n,C]", "", "targets")                                                               \
    IN(k_test, "f32[n,m]", "", "kernel of training rows and queries")                              \
    OPT(unit_diagonal, 1, "flag", "set the diagonal to 1: true for nngp, false for ntk")           \
    OPT(ridge, 0.0, "[0,inf)", "added to the diagonal")                                            \
    OUT(score, "f32[m,C]", "k_test^T A^-1 y")

BL_HOST(wide_deep_ntk_krr, WIDE_DEEP_NTK_KRR, "kernel regression")
{
    int64_t n = f->y.type.shape.dim[0], columns = f->y.type.shape.dim[1];
    int64_t queries = f->k_test.type.shape.dim[1];
    size_t bytes = (size_t)(n * (n + columns) + queries * columns) * sizeof(double);
    double *a = bl_alloc(bytes);
    if (!a)
        return bl_no_memory(bytes);
    double *s = a + n * n, *score = s + n * columns;
    for (int64_t i = 0; i < n * n; i++) {
        bool diagonal = i / n == i % n;
        double k = diagonal && f->unit_diagonal ? 1 : (double)bl_f32(&f->k_train)[i];
        a[i] = k + (diagonal ? f->ridge : 0);
    }
    for (int64_t i = 0; i < n * columns; i++)
        s[i] = (double)bl_f32(&f->y)[i];
    bl_status status = bl_solve_linear(a, s, n, columns);
    if (status != BL_OK)
        status = bl_fail_in(status, "k_train");
    for (int64_t i = 0; i < n && status == BL_OK; i++)
        for (int64_t j = 0; j < queries; j++)
            for (int64_t c = 0; c < columns; c++)
                score[j * columns + c] +=
                    (double)bl_f32(&f->k_test)[i * queries + j] * s[i * columns + c];
    for (int64_t j = 0; j < queries * columns && status == BL_OK; j++)
        bl_f32(&f->score)[j] = (float)score[j];
    bl_release(a);
    return status;
}

const bl_method bl_wide_deep_ntk = {
    .slug = "wide_deep_ntk",
    .family = "theory",
    .paper = "Radhakrishnan, Belkin, Uhler 2022, arXiv 2204.14126",
    .summary = "(no arm) kernels of wide networks, and the classifier that depth leads to",
    .when = "Small data on a sphere, or to see what depth makes of an activation. The kernel costs "
            "depth maps for each pair.",
    .functions = {&wide_deep_ntk_kernel_contract, &wide_deep_ntk_krr_contract,
                  &wide_deep_ntk_singular_contract, &wide_deep_ntk_exponent_contract,
                  &wide_deep_ntk_dual_contract, &wide_deep_ntk_activation_contract},
    .example = "ballast show wide_deep_ntk_kernel",
};
