/* Learned proximal networks. Fang, Buchanan and Sulam, ICLR 2024, arXiv 2310.14344. The gradient of
 * an input-convex network psi is the proximal operator of some function, which is learned from
 * clean examples alone: a regulariser for inverse problems. The proximal matching loss makes it
 * that of -log p, the MAP denoiser, where squares would give the posterior mean.
 *
 * Training needs the gradient of a loss of a gradient: the engine's, of bl_grad's. */
#include "methods/method.h"

#include "ballast/solve.h"

/* --- the potential ---------------------------------------------------------------------------- */

/* Weights that must not be negative are checked where the function is called, not in training,
 * where the step after which they are clamped comes later. */
#define PARAMETERS(IN)                                                                             \
    IN(l0, "f32[H,D]", "grad", "first weights")                                                    \
    IN(w, "f32[K,H,H]", "grad, rows > 0", "weights between layers, not negative")                  \
    IN(r, "f32[K,H,D]", "grad", "weights from the input")                                          \
    IN(b, "f32[K,H]", "grad", "biases")                                                            \
    IN(wo, "f32[H]", "grad", "last weights, not negative")                                         \
    IN(ro, "f32[D]", "grad", "last weights from the input")                                        \
    IN(bo, "f32[]", "grad", "last bias")
#define POTENTIAL(OPT)                                                                             \
    OPT(beta, 10.0, "(0,inf)", "sharpness of the softplus")                                        \
    OPT(alpha, 0.0, "[0,inf)", "coefficient of |x|^2 / 2")

/* softplus(beta v) / beta */
static bl_tensor activation(bl_tensor v, bl_tensor beta)
{
    return bl_div(bl_softplus(bl_mul(beta, v)), beta);
}

typedef struct network {
    bl_tensor l0, w, r, b, wo, ro, bo, beta, alpha;
} network;

#define NETWORK(f)                                                                                 \
    ((network){(f)->l0, (f)->w, (f)->r, (f)->b, (f)->wo, (f)->ro, (f)->bo, (f)->beta, (f)->alpha})

static bl_tensor squares(bl_tensor rows)
{
    bl_tensor flat = bl_reshape(rows, BL_SHAPE(bl_dim(rows, 0), -1));
    return bl_sum(bl_square(flat), -1);
}

/* psi [B] of the rows x [B,D]. */
static bl_tensor potential(const network *n, bl_tensor x)
{
    bl_tensor z = activation(bl_dot(x, n->l0, false, true), n->beta);
    for (int64_t k = 0; k < bl_dim(n->w, 0); k++) {
        bl_tensor from_z = bl_dot(z, bl_pick(n->w, 0, k), false, true);
        bl_tensor from_x = bl_dot(x, bl_pick(n->r, 0, k), false, true);
        z = activation(bl_add(bl_add(from_z, from_x), bl_pick(n->b, 0, k)), n->beta);
    }
    bl_tensor linear = bl_add(bl_add(bl_matmul(z, n->wo), bl_matmul(x, n->ro)), n->bo);
    return bl_add(linear, bl_mul(bl_mul(0.5, n->alpha), squares(x)));
}

static bl_tensor prox(const network *n, bl_tensor x)
{
    bl_tensor slope;
    bl_grad(bl_sum(potential(n, x)), &x, 1, &slope);
    return slope;
}

/* --- weights that keep psi convex ------------------------------------------------------------- */

static bl_status not_negative(const bl_dictionary *in, const char *const *name)
{
    for (; *name; name++) {
        const bl_array *weights = bl_dictionary_find(in, *name);
        int64_t count = bl_array_count(weights);
        for (int64_t i = 0; i < count; i++)
            if (!(bl_array_get(weights, i) >= 0))
                return bl_fail(BL_INVALID,
                               "%s[%lld] is %g, expected >= 0, or the potential is not convex",
                               *name, (long long)i, bl_array_get(weights, i));
    }
    return BL_OK;
}

static const char *const convex_weights[] = {"w", "wo", NULL};

static bl_status convex_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    return not_negative(in, convex_weights);
}

/* --- functions -------------------------------------------------------------------------------- */

#define LPN_PROX(IN, OPT, OUT)                                                                     \
    IN(x, "f32[B,D]", "grad, rows > 0", "points")                                                  \
    PARAMETERS(IN)                                                                                 \
    POTENTIAL(OPT)                                                                                 \
    OPT(check_convex, 1, "flag", "refuse negative w or wo")                                        \
    OUT(psi, "f32[B]", "the potential")                                                            \
    OUT(prox, "f32[B,D]", "its gradient: the denoised points")

static bl_contract_check prox_check;
BL_CONTRACT_CHECKED(lpn_prox, LPN_PROX, "an input-convex potential and its gradient", prox_check)
{
    network n = NETWORK(f);
    f->psi = potential(&n, f->x);
    f->prox = prox(&n, f->x);
}

static bl_status prox_check(const bl_dictionary *in, const void *options)
{
    const struct lpn_prox *f = options;
    return f->check_convex ? not_negative(in, convex_weights) : BL_OK;
}

/* mean of 1 - exp(-|out - target|^2 / gamma^2), squares over all of an example. */
static bl_tensor proximal_matching(bl_tensor out, bl_tensor target, bl_tensor gamma)
{
    bl_tensor distance = squares(bl_sub(out, target));
    return bl_mean(bl_neg(bl_expm1(bl_neg(bl_div(distance, bl_square(gamma))))));
}

static bl_tensor denoising_loss(const char *loss, bl_tensor out, bl_tensor clean, bl_tensor gamma)
{
    if (bl_is(loss, "l1"))
        return bl_mean(bl_abs(bl_sub(out, clean)));
    if (bl_is(loss, "l2"))
        return bl_mean(bl_square(bl_sub(out, clean)));
    return proximal_matching(out, clean, gamma);
}

#define LPN_PM_LOSS(IN, OPT, OUT)                                                                  \
    IN(out, "f32[B,S...]", "grad, rows > 0", "denoised examples")                                  \
    IN(target, "f32[B,S...]", "grad", "clean ones")                                                \
    OPT(gamma, BL_REQUIRED, "(0,inf)", "width: about the error that still counts")                 \
    OUT(loss, "f32[]", "mean of 1 - exp(-|out - target|^2 / gamma^2)")

BL_CONTRACT(lpn_pm_loss, LPN_PM_LOSS, "proximal matching")
{
    f->loss = proximal_matching(f->out, f->target, f->gamma);
}

#define LOSS(OPT)                                                                                  \
    OPT(loss, "pm", "pm|l1|l2", "proximal matching, or a norm to start with")                      \
    OPT(gamma, 1.0, "(0,inf)", "width of pm")

#define LPN_TRAIN_LOSS(IN, OPT, OUT)                                                               \
    IN(noisy, "f32[B,D]", "grad, rows > 0", "examples with noise")                                 \
    IN(clean, "f32[B,D]", "grad", "the same without")                                              \
    PARAMETERS(IN)                                                                                 \
    LOSS(OPT)                                                                                      \
    POTENTIAL(OPT)                                                                                 \
    OUT(loss, "f32[]", "of the denoised examples")

BL_CONTRACT_APART_CHECKED(lpn_train_loss, LPN_TRAIN_LOSS, "denoising through the gradient map",
                          convex_check)
{
    network n = NETWORK(f);
    f->out_loss = denoising_loss(f->loss, prox(&n, f->noisy), f->clean, f->gamma);
}

/* --- the convolutional potential -------------------------------------------------------------- */

#define LPN_CONV_TRAIN_LOSS(IN, OPT, OUT)                                                          \
    IN(noisy, "f32[B,S,S,C]", "grad, rows > 0", "images with noise, S divisible by 4")             \
    IN(clean, "f32[B,S,S,C]", "grad", "the same without")                                          \
    IN(c0, "f32[3,3,C,H]", "grad", "first filters")                                                \
    IN(c1, "f32[3,3,H,H]", "grad", "filters between layers, not negative")                         \
    IN(r1, "f32[3,3,C,H]", "grad", "filters from the image")                                       \
    IN(b1, "f32[H]", "grad", "biases")                                                             \
    IN(c2, "f32[3,3,H,H]", "grad", "not negative")                                                 \
    IN(r2, "f32[3,3,C,H]", "grad", "from the image at half the size")                              \
    IN(b2, "f32[H]", "grad", "biases")                                                             \
    IN(c3, "f32[3,3,H,H]", "grad", "not negative")                                                 \
    IN(r3, "f32[3,3,C,H]", "grad", "from the image at half the size")                              \
    IN(b3, "f32[H]", "grad", "biases")                                                             \
    IN(w4, "f32[M,P]", "grad", "dense weights, not negative: P = H (S/4)^2")                       \
    IN(r4, "f32[M,Q]", "grad", "from the image at a quarter of the size: Q = C (S/4)^2")           \
    IN(b4, "f32[M]", "grad", "biases")                                                             \
    IN(w5, "f32[M]", "grad", "last weights, not negative")                                         \
    LOSS(OPT)                                                                                      \
    POTENTIAL(OPT)                                                                                 \
    OUT(loss, "f32[]", "of the denoised images")                                                   \
    OUT(psi, "f32[B]", "the potential of the noisy images")                                        \
    OUT(prox, "f32[B,S,S,C]", "the denoised images")

static bool has_columns(bl_graph *graph, const char *name, bl_tensor weights, int64_t columns)
{
    if (bl_dim(weights, 1) == columns)
        return true;
    bl_poison(graph, "%s has %lld columns, expected channels times (S/4)^2, %lld", name,
              (long long)bl_dim(weights, 1), (long long)columns);
    return false;
}

static bl_contract_check conv_check;
struct lpn_conv_train_loss;
static bl_tensor conv_potential(const struct lpn_conv_train_loss *f, bl_tensor x);

BL_CONTRACT_APART_CHECKED(lpn_conv_train_loss, LPN_CONV_TRAIN_LOSS,
                          "denoising of small images by the gradient of a convolutional potential",
                          conv_check)
{
    int64_t size = bl_dim(f->noisy, 1);
    if (size % 4) {
        bl_poison(graph, "noisy has images of %lld pixels a side, expected a multiple of 4",
                  (long long)size);
        return;
    }
    int64_t places = size / 4 * (size / 4);
    if (!has_columns(graph, "w4", f->w4, bl_dim(f->b1, 0) * places) ||
        !has_columns(graph, "r4", f->r4, bl_dim(f->noisy, 3) * places))
        return;
    f->out_psi = conv_potential(f, f->noisy);
    bl_grad(bl_sum(f->out_psi), &f->noisy, 1, &f->out_prox);
    f->out_loss = denoising_loss(f->loss, f->out_prox, f->clean, f->gamma);
}

static bl_status conv_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    static const char *const weights[] = {"c1", "c2", "c3", "w4", "w5", NULL};
    return not_negative(in, weights);
}

static bl_tensor conv3(bl_tensor x, bl_tensor filters, int64_t stride)
{
    bl_conv_options options = {.stride = {stride, stride}, .low = {1, 1}, .high = {1, 1}};
    return bl_conv(x, filters, options);
}

static bl_tensor flat(bl_tensor x)
{
    return bl_reshape(x, BL_SHAPE(bl_dim(x, 0), -1));
}

static bl_tensor conv_potential(const struct lpn_conv_train_loss *f, bl_tensor x)
{
    int64_t size = bl_dim(x, 1);
    bl_tensor half = bl_resize_bilinear(x, size / 2, size / 2);    /* means of 2 x 2 blocks */
    bl_tensor quarter = bl_resize_bilinear(x, size / 4, size / 4); /* of the middle of 4 x 4 */
    bl_tensor z = activation(conv3(x, f->c0, 1), f->beta);
    z = bl_add(bl_add(conv3(z, f->c1, 2), conv3(x, f->r1, 2)), f->b1);
    z = activation(z, f->beta);
    z = bl_add(bl_add(conv3(z, f->c2, 1), conv3(half, f->r2, 1)), f->b2);
    z = activation(z, f->beta);
    z = bl_add(bl_add(conv3(z, f->c3, 2), conv3(half, f->r3, 2)), f->b3);
    z = activation(z, f->beta);
    bl_tensor dense = bl_dot(flat(z), f->w4, false, true);
    dense = bl_add(bl_add(dense, bl_dot(flat(quarter), f->r4, false, true)), f->b4);
    z = activation(dense, f->beta);
    return bl_add(bl_matmul(z, f->w5), bl_mul(bl_mul(0.5, f->alpha), squares(x)));
}

/* --- the learned regulariser ------------------------------------------------------------------ */

#define LPN_PRIOR(IN, OPT, OUT)                                                                    \
    IN(x, "f32[B,D]", "rows > 0, finite", "where to evaluate")                                     \
    PARAMETERS(IN)                                                                                 \
    POTENTIAL(OPT)                                                                                 \
    OPT(tol, 1e-6, "[0,inf)", "largest |prox(y) - x|")                                             \
    OPT(max_iter, 1000, ">= 0", "most iterations")                                                 \
    OUT(prior, "f32[B]", "the regulariser up to a constant: <x,y> - |x|^2/2 - psi(y)")             \
    OUT(y, "f32[B,D]", "the point with prox(y) = x")                                               \
    OUT(residual, "f32[B]", "|prox(y) - x|: above tol, x is no value of prox, or not yet found")

enum { ROW = 9, INVERSION }; /* the network, x */

static network network_of(const bl_tensor *p)
{
    return (network){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]};
}

/* psi(y) - <x,y> for one row, [1,D]: convex in y. */
static bl_tensor inversion(bl_graph *g, bl_tensor y, const bl_tensor *p, void *context)
{
    (void)g, (void)context;
    network n = network_of(p);
    return bl_sub(bl_sum(potential(&n, y)), bl_inner(p[ROW], y));
}

typedef struct inverse {
    bl_tensor p[INVERSION], entry; /* largest entry of the gradient */
    int64_t most;
} inverse;

/* Rows one by one: one that has no y moves away for ever, and must not take others along. */
static void invert_row(bl_graph *g, const bl_tensor *carry, const bl_tensor *x, bl_tensor *next,
                       bl_tensor *y, void *context)
{
    (void)g, (void)carry, (void)next;
    inverse *v = context;
    v->p[ROW] = bl_expand(x[0], 0);
    bl_tensor found =
        bl_minimize(inversion, NULL, v->p, INVERSION, v->p[ROW], 0, v->entry, v->most, NULL);
    y[0] = bl_squeeze(bl_stop_gradient(found), 0);
}

static bl_tensor as_double(bl_graph *graph, bl_tensor x)
{
    return bl_stop_gradient(bl_add(bl_full(graph, BL_F64, BL_SCALAR, 0), bl_cast(x, BL_F64)));
}

BL_CONTRACT_CHECKED(lpn_prior, LPN_PRIOR, "the value of the learned regulariser, by inversion",
                    convex_check)
{
    bl_tensor p[] = {f->l0, f->w, f->r, f->b, f->wo, f->ro, f->bo, f->beta, f->alpha}, y;
    bl_tensor x = as_double(graph, f->x);
    inverse v = {.most = f->max_iter};
    for (int i = 0; i < ROW; i++)
        v.p[i] = as_double(graph, p[i]);
    /* Entries of at most tol / sqrt(D) are a length of at most tol. */
    v.entry = bl_div(as_double(graph, f->tol), sqrt((double)bl_dim(x, 1)));
    bl_scan(graph, bl_dim(x, 0), invert_row, &v, NULL, 0, &x, 1, NULL, &y, 1);

    network n = network_of(v.p);
    bl_tensor conjugate = bl_sub(bl_sum(bl_mul(x, y), -1), potential(&n, y));
    f->prior = bl_cast(bl_sub(conjugate, bl_mul(0.5, squares(x))), BL_F32);
    f->residual = bl_cast(bl_norm(bl_sub(prox(&n, y), x), -1), BL_F32);
    f->y = bl_cast(y, BL_F32);
}

/* --- inverse problems: plug and play ---------------------------------------------------------- */

/* The measurements meas = a x of x [1,D]. */
static bl_tensor residual_of(bl_tensor x, bl_tensor a, bl_tensor meas)
{
    return bl_sub(bl_dot(x, a, false, true), bl_expand(meas, 0));
}

#define LPN_PGD_STEP(IN, OPT, OUT)                                                                 \
    IN(x, "f32[1,D]", "grad", "iterate")                                                           \
    IN(a, "f32[M,D]", "grad", "the linear operator that was measured through")                     \
    IN(meas, "f32[M]", "grad", "measurements")                                                     \
    PARAMETERS(IN)                                                                                 \
    OPT(eta, BL_REQUIRED, "(0,inf)", "step size, below 1/|a|^2 for a guarantee")                   \
    POTENTIAL(OPT)                                                                                 \
    OUT(x_next, "f32[1,D]", "prox(x - eta a^T (a x - meas))")

BL_CONTRACT_CHECKED(lpn_pgd_step, LPN_PGD_STEP, "a step of proximal gradient descent", convex_check)
{
    network n = NETWORK(f);
    bl_tensor slope = bl_matmul(residual_of(f->x, f->a, f->meas), f->a);
    f->x_next = prox(&n, bl_sub(f->x, bl_mul(f->eta, slope)));
}

#define LPN_ADMM_STEP(IN, OPT, OUT)                                                                \
    IN(z, "f32[1,D]", "grad", "denoised iterate")                                                  \
    IN(u, "f32[1,D]", "grad", "scaled multiplier")                                                 \
    IN(a, "f32[M,D]", "grad", "the linear operator that was measured through")                     \
    IN(meas, "f32[M]", "grad", "measurements")                                                     \
    PARAMETERS(IN)                                                                                 \
    OPT(rho, BL_REQUIRED, "(0,inf)", "weight of the coupling")                                     \
    POTENTIAL(OPT)                                                                                 \
    OUT(x_next, "f32[1,D]", "argmin |a x - meas|^2 / 2 + rho |z - u - x|^2 / 2")                   \
    OUT(z_next, "f32[1,D]", "prox(x_next + u)")                                                    \
    OUT(u_next, "f32[1,D]", "u + x_next - z_next")

BL_CONTRACT_CHECKED(lpn_admm_step, LPN_ADMM_STEP,
                    "a step of the alternating direction method of multipliers", convex_check)
{
    network n = NETWORK(f);
    bl_tensor a = bl_cast(f->a, BL_F64), rho = bl_cast(f->rho, BL_F64);
    bl_tensor back = bl_matmul(bl_expand(bl_cast(f->meas, BL_F64), 0), a);
    bl_tensor right = bl_add(back, bl_mul(rho, bl_cast(bl_sub(f->z, f->u), BL_F64)));
    f->x_next = bl_cast(bl_ridge_solve(right, a, rho), BL_F32);
    f->z_next = prox(&n, bl_add(f->x_next, f->u));
    f->u_next = bl_sub(bl_add(f->u, f->x_next), f->z_next);
}

const bl_method bl_lpn = {
    .slug = "lpn",
    .family = "solvers",
    .paper = "Fang, Buchanan and Sulam 2024, arXiv 2310.14344",
    .summary = "learns a regulariser for inverse problems whose denoiser is exactly proximal",
    .when =
        "For denoising, deblurring, tomography, from clean examples only, where iterations must "
        "converge or the regulariser itself is wanted. A step is a second-order gradient.",
    .example = "ballast show lpn_train_loss",
    .functions = {&lpn_train_loss_contract, &lpn_prox_contract, &lpn_pm_loss_contract,
                  &lpn_conv_train_loss_contract, &lpn_prior_contract, &lpn_pgd_step_contract,
                  &lpn_admm_step_contract},
};
