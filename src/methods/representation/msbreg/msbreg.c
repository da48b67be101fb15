/* MSBReg. Moon, Buracas, Park, Kim, Canny, WACV 2023, arXiv 2207.03552. Embeddings of unlabelled
 * images as particles on a sphere, under three forces: views of an image are pulled to their
 * centroid in a slowly moving copy of the network; the singular values of the batch are made equal,
 * so that the cloud fills all directions; and each image gets a random push, the same for all of
 * its views, by which images drift apart.
 *
 * unit(v) = v / max(|v|, 1e-12) along the last axis. */
#include "methods/method.h"

static bl_tensor unit(bl_tensor x)
{
    return bl_unit_rows(x, 1e-12);
}

static bl_tensor inner(bl_tensor a, bl_tensor b)
{
    return bl_sum(bl_mul(a, b), -1);
}

static bool has_elements(bl_graph *graph, const char *name, bl_tensor x)
{
    char text[BL_TYPE_TEXT];
    if (bl_type_count(bl_type_of(x)) > 0)
        return true;
    bl_poison(graph, "%s is %s, expected every size to be at least 1", name,
              bl_type_text(bl_type_of(x), text));
    return false;
}

#define MSBREG_CENTROID_LOSS(IN, OPT, OUT)                                                         \
    IN (z,    "f32[V,B,D]", "grad",          "online embeddings: V views of B images")             \
    IN (zt,   "f32[U,B,D]", "",              "the target network's, of U views")                   \
    OPT(form, "centroid",   "centroid|view", "what is pulled: the online centroid, or each view")  \
    OUT(loss, "f32[]",      "mean of 2 - 2 cos to the target centroid, in [0,4]")

BL_CONTRACT(msbreg_centroid_loss, MSBREG_CENTROID_LOSS, "pulls views of an image together")
{
    if (!has_elements(graph, "z", f->z) || !has_elements(graph, "zt", f->zt))
        return;
    bl_tensor target = unit(bl_mean(unit(bl_stop_gradient(f->zt)), 0));
    bl_tensor u      = unit(f->z);
    bl_tensor pulled = bl_is(f->form, "centroid") ? unit(bl_mean(u, 0)) : u;
    f->loss = bl_sub(2, bl_mul(2, bl_mean(inner(pulled, target))));
}

#define MSBREG_BROWNIAN_LOSS(IN, OPT, OUT)                                                         \
    IN (z,     "f32[V,B,D]",              "grad", "online embeddings")                             \
    IN (noise, "f32[1,B,D] | f32[V,B,D]", "",     "standard normal: a direction for each image, "  \
                                                  "or for each view")                              \
    OUT(loss,  "f32[]",                           "mean cosine of embeddings and noise")

BL_CONTRACT(msbreg_brownian_loss, MSBREG_BROWNIAN_LOSS, "pushes each image somewhere")
{
    if (has_elements(graph, "z", f->z))
        f->loss = bl_mean(inner(unit(f->z), unit(bl_stop_gradient(f->noise))));
}

#define MSBREG_SINGULAR_VALUE_LOSS(IN, OPT, OUT)                                                   \
    IN (z,               "f32[N,D]", "grad", "embeddings")                                         \
    OPT(form,            "variance", "variance|target|log|whiten", "distance from equal values")   \
    OPT(normalize,       1,          "flag",                       "make rows unit first")         \
    OPT(eps,             1e-4,       "(0,inf)",                    "inside log")                   \
    OUT(loss,            "f32[]",    "")                                                           \
    OUT(singular_values, "f32[?]",   "min(N,D) of them, descending")

/* |(D/N) Z^T Z - I|^2 / D */
static bl_tensor whiten(bl_graph *graph, bl_tensor z)
{
    int64_t n = bl_dim(z, 0), d = bl_dim(z, 1);
    bl_tensor identity = bl_identity(graph, BL_F32, d);
    bl_tensor gram = bl_mul((double)d / (double)n, bl_dot(z, z, true, false));
    bl_tensor off = bl_sub(gram, identity);
    return bl_div(bl_sum(bl_square(off)), (double)d);
}

/* The gradient is U diag(f'(sigma)) V^T: no vector of the decomposition is differentiated, so equal
 * singular values, which are the aim, do no harm. */
BL_CONTRACT(msbreg_singular_value_loss, MSBREG_SINGULAR_VALUE_LOSS,
            "makes singular values of the embeddings equal")
{
    if (!has_elements(graph, "z", f->z))
        return;
    bl_tensor z = f->normalize ? unit(f->z) : f->z, u, sigma, v;
    bl_svd(z, &u, &sigma, &v);
    double even = sqrt((double)bl_dim(z, 0) / (double)bl_dim(sigma, 0)); /* all of them, if equal */
    bl_tensor relative = bl_div(sigma, even);
    if (bl_is(f->form, "variance"))
        f->loss = bl_variance(sigma);
    else if (bl_is(f->form, "target"))
        f->loss = bl_mean(bl_square(bl_sub(relative, 1)));
    else if (bl_is(f->form, "log"))
        f->loss = bl_neg(bl_mean(bl_log(bl_add(relative, f->eps))));
    else
        f->loss = whiten(graph, z);
    f->singular_values = sigma;
}

#define MSBREG_TOTAL(IN, OPT, OUT)                                                                 \
    IN (z,        "f32[V,B,D]",              "grad", "online embeddings: V views of B images")     \
    IN (zt,       "f32[U,B,D]",              "",     "the target network's, of U views")           \
    IN (noise,    "f32[1,B,D] | f32[V,B,D]", "",     "standard normal")                            \
    OPT(lam_s,    1.0,        "[0,inf)",                    "weight of singular")                  \
    OPT(lam_b,    0.1,        "[0,inf)",                    "weight of brownian")                  \
    OPT(form,     "centroid", "centroid|view",              "of the centroid loss")                \
    OPT(s_form,   "variance", "variance|target|log|whiten", "of the singular value loss")          \
    OUT(loss,     "f32[]",                                  "centroid + lam_s singular + lam_b "   \
                                                            "brownian")                            \
    OUT(centroid, "f32[]", "")                                                                     \
    OUT(singular, "f32[]", "of all views of the batch together")                                   \
    OUT(brownian, "f32[]", "")

BL_CONTRACT(msbreg_total, MSBREG_TOTAL, "the three forces together")
{
    if (!has_elements(graph, "z", f->z) || !has_elements(graph, "zt", f->zt))
        return;
    struct msbreg_centroid_loss m = BL_DEFAULTS(msbreg_centroid_loss);
    struct msbreg_singular_value_loss s = BL_DEFAULTS(msbreg_singular_value_loss);
    struct msbreg_brownian_loss b = BL_DEFAULTS(msbreg_brownian_loss);
    m.z = b.z = f->z, m.zt = f->zt, m.form = f->form, b.noise = f->noise;
    s.z    = bl_reshape(f->z, BL_SHAPE(bl_dim(f->z, 0) * bl_dim(f->z, 1), bl_dim(f->z, 2)));
    s.form = f->s_form;
    bl_call(msbreg_centroid_loss, &m);
    bl_call(msbreg_singular_value_loss, &s);
    bl_call(msbreg_brownian_loss, &b);

    f->centroid = m.loss, f->singular = s.loss, f->brownian = b.loss;
    f->loss = bl_add(m.loss, bl_add(bl_mul(f->lam_s, s.loss), bl_mul(f->lam_b, b.loss)));
}

#define MSBREG_EMA(IN, OPT, OUT)                                                                   \
    IN (online,     "f32[P]", "",      "parameters of the trained network")                        \
    IN (target,     "f32[P]", "",      "of its slow copy")                                         \
    OPT(m,          0.99,     "[0,1]", "share of the copy that stays")                             \
    OUT(target_out, "f32[P]",          "m target + (1 - m) online")

BL_CONTRACT(msbreg_ema, MSBREG_EMA, "moves the slow copy")
{
    f->target_out = bl_add(bl_mul(f->m, f->target), bl_mul(bl_sub(1, f->m), f->online));
}

#define MSBREG_MOMENTUM(IN, OPT, OUT)                                                              \
    IN (step,        "f32[n]",            "",      "")                                             \
    OPT(base,        0.99,                "[0,1]", "m at step 0")                                  \
    OPT(total_steps, BL_REQUIRED_INTEGER, ">= 1",  "m is 1 there")                                 \
    OUT(m,           "f32[n]",                     "1 - (1 - base) (cos(pi step / total) + 1) / 2")

BL_CONTRACT(msbreg_momentum, MSBREG_MOMENTUM, "the schedule of the slow copy's share")
{
    double half_turn = acos(-1), total = (double)f->total_steps;
    bl_tensor wave = bl_cos(bl_mul(half_turn / total, bl_cast(f->step, BL_F64)));
    bl_tensor left = bl_mul(bl_sub(1, bl_cast(f->base, BL_F64)), bl_div(bl_add(wave, 1), 2));
    f->m = bl_cast(bl_sub(1, left), BL_F32);
}

#define MSBREG_SPREAD(IN, OPT, OUT)                                                                \
    IN (z,              "f32[N,D]", "grad", "embeddings, made unit first")                         \
    OUT(effective_rank, "f32[]", "exp of the entropy of singular values: how many directions")     \
    OUT(centroid_norm2, "f32[]", "squared norm of the mean: 1 where all are equal")                \
    OUT(uniformity,     "f32[]", "log mean exp(-2 squared distance) over pairs; 0 for one row")

/* log mean over i != j of exp(-2 |u_i - u_j|^2) */
static bl_tensor uniformity(bl_graph *graph, bl_tensor u)
{
    int64_t n = bl_dim(u, 0);
    if (n == 1)
        return bl_full(graph, BL_F32, BL_SCALAR, 0);
    bl_tensor square = bl_sum(bl_square(u), -1);
    bl_tensor sums = bl_add(bl_expand(square, 1), bl_expand(square, 0));
    bl_tensor distance = bl_sub(sums, bl_mul(2, bl_dot(u, u, false, true)));
    bl_tensor row = bl_iota(graph, BL_I32, BL_SHAPE(n, n), 0);
    bl_tensor other = bl_ne(row, bl_iota(graph, BL_I32, BL_SHAPE(n, n), 1));
    bl_tensor pairs = bl_reshape(bl_mul(-2, distance), BL_SHAPE(n * n));
    bl_tensor total = bl_masked_logsumexp(pairs, bl_reshape(other, BL_SHAPE(n * n)), 0);
    return bl_sub(total, log((double)n * (double)(n - 1)));
}

BL_CONTRACT(msbreg_spread, MSBREG_SPREAD, "whether embeddings have collapsed")
{
    if (!has_elements(graph, "z", f->z))
        return;
    bl_tensor z = unit(f->z), u, sigma, v;
    bl_svd(z, &u, &sigma, &v);
    bl_tensor total = bl_sum(sigma), present = bl_gt(total, 0);
    bl_tensor p = bl_div(sigma, bl_select(present, total, bl_ones_like(total)));
    f->effective_rank = bl_exp(bl_neg(bl_sum(bl_mul(p, bl_log(bl_add(p, 1e-7))))));
    f->centroid_norm2 = bl_sum(bl_square(bl_mean(z, 0)));
    f->uniformity = uniformity(graph, z);
}

const bl_method bl_msbreg = {
    .slug = "msbreg",
    .family = "representation",
    .paper = "Moon et al. 2023, arXiv 2207.03552",
    .summary = "(no arm) keeps embeddings of unlabelled images from collapsing",
    .when = "Self-supervised training with a delayed target network, above all without batch "
            "normalisation. The singular value term costs a decomposition of the batch of "
            "embeddings.",
    .functions = {&msbreg_total_contract, &msbreg_centroid_loss_contract,
                  &msbreg_singular_value_loss_contract, &msbreg_brownian_loss_contract,
                  &msbreg_ema_contract, &msbreg_momentum_contract, &msbreg_spread_contract},
    .example = "ballast show msbreg_total",
};
