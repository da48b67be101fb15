/* Manifold entropy. Liu et al., AAAI 2023, arXiv 2208.12055. A discriminator that gives an
 * embedding instead of a score: neighbouring inputs get equal embeddings (DLLE), interpolated
 * inputs get interpolated ones (DIsoMap), and both networks enlarge the distance of each embedding
 * to its nearest neighbour among recent ones, an estimate of entropy, so that samples spread over
 * the data.
 *
 * The official buffer shrinks to one row, see README.md: layout per_slot with drop = B is that
 * code, the default is the pool that the paper's text describes. */
#include "methods/method.h"

static const double pi = 3.14159265358979323846, euler = 0.5772156649015329;

/* --- the embedding ---------------------------------------------------------------------------- */

#define MANIFOLD_ENTROPY_REPARAM(IN, OPT, OUT)                                                     \
    IN(mu, "f32[B,K]", "grad", "the first K outputs of the discriminator")                         \
    IN(logvar, "f32[B,K]", "grad", "the others: logarithm of the variance")                        \
    IN(noise, "f32[B,K]", "", "standard normal, drawn anew; zeros in evaluation")                  \
    OUT(code, "f32[B,K]", "mu + exp(logvar / 2) noise")

BL_CONTRACT(manifold_entropy_reparam, MANIFOLD_ENTROPY_REPARAM, "the noisy embedding")
{
    bl_tensor deviation = bl_exp(bl_mul(0.5, f->logvar));
    f->code = bl_add(f->mu, bl_mul(deviation, f->noise));
}

#define MANIFOLD_ENTROPY_CRITIC(IN, OPT, OUT)                                                      \
    IN(z_real, "f32[B,K]", "grad, rows > 0", "embeddings of real inputs")                          \
    IN(z_fake, "f32[C,K]", "grad, rows > 0", "of generated ones")                                  \
    OUT(loss_d, "f32[]", "mean z_fake - mean z_real, for the discriminator")                       \
    OUT(loss_g, "f32[]", "-mean z_fake, for the generator")

BL_CONTRACT(manifold_entropy_critic, MANIFOLD_ENTROPY_CRITIC, "the critic on mean embeddings")
{
    bl_tensor fake = bl_mean(f->z_fake);
    f->loss_d = bl_sub(fake, bl_mean(f->z_real));
    f->loss_g = bl_neg(fake);
}

/* --- what shapes it --------------------------------------------------------------------------- */

static bl_tensor mean_square_to(bl_tensor z, bl_tensor target)
{
    return bl_mean(bl_square(bl_sub(z, bl_stop_gradient(target))));
}

#define MANIFOLD_ENTROPY_DLLE(IN, OPT, OUT)                                                        \
    IN(z_real, "f32[B,K]", "grad, rows > 0", "embeddings of real inputs")                          \
    IN(z_real_aug, "f32[B,K]", "grad", "of the same, flipped and slightly noisy: a constant")      \
    IN(z_fake, "f32[B,K]", "grad", "embeddings of generated inputs")                               \
    IN(z_fake_aug, "f32[B,K]", "grad", "of the same, flipped and slightly noisy: a constant")      \
    OUT(loss, "f32[]", "mean (z_real - z_real_aug)^2 + mean (z_fake - z_fake_aug)^2")

BL_CONTRACT(manifold_entropy_dlle, MANIFOLD_ENTROPY_DLLE, "neighbours get equal embeddings")
{
    f->loss =
        bl_add(mean_square_to(f->z_real, f->z_real_aug), mean_square_to(f->z_fake, f->z_fake_aug));
}

/* alpha_b a_b + (1 - alpha_b) b_b, for alpha[B] and a, b[B,...]. */
static bl_tensor interpolated(bl_tensor alpha, bl_tensor a, bl_tensor b)
{
    bl_shape shape = {.rank = bl_rank(a), .dim = {bl_dim(a, 0)}};
    for (int i = 1; i < shape.rank; i++)
        shape.dim[i] = 1;
    bl_tensor share = bl_reshape(alpha, shape);
    return bl_add(bl_mul(share, a), bl_mul(bl_sub(1, share), b));
}

#define MANIFOLD_ENTROPY_MIX(IN, OPT, OUT)                                                         \
    IN(x_real, "f32[B,S...]", "grad", "real inputs")                                               \
    IN(x_fake, "f32[B,S...]", "grad", "generated ones")                                            \
    IN(alpha, "f32[B]", "", "share of the real input; standard normal in training")                \
    OUT(x_mix, "f32[B,S...]", "alpha x_real + (1 - alpha) x_fake")

BL_CONTRACT(manifold_entropy_mix, MANIFOLD_ENTROPY_MIX, "inputs between and beyond two others")
{
    f->x_mix = interpolated(f->alpha, f->x_real, f->x_fake);
}

#define MANIFOLD_ENTROPY_DISOMAP(IN, OPT, OUT)                                                     \
    IN(z_mix, "f32[B,K]", "grad, rows > 0", "embeddings of manifold_entropy_mix")                  \
    IN(z_real, "f32[B,K]", "grad", "of the real inputs: a constant")                               \
    IN(z_fake, "f32[B,K]", "grad", "of the generated inputs: a constant")                          \
    IN(alpha, "f32[B]", "", "share of the real input")                                             \
    IN(noise, "f32[B,K]", "", "standard normal")                                                   \
    OPT(noise_std, 0.05, "[0,inf)", "deviation of the noise on the target")                        \
    OUT(loss, "f32[]", "mean (z_mix - alpha z_real - (1 - alpha) z_fake - noise_std noise)^2")

BL_CONTRACT(manifold_entropy_disomap, MANIFOLD_ENTROPY_DISOMAP,
            "interpolated inputs get interpolated embeddings")
{
    bl_tensor between = interpolated(f->alpha, f->z_real, f->z_fake);
    f->loss = mean_square_to(f->z_mix, bl_add(between, bl_mul(f->noise_std, f->noise)));
}

/* --- entropy from nearest neighbours ---------------------------------------------------------- */

/* -weight log(mean nn), or -weight mean log nn. */
static bl_tensor entropy_term(bl_tensor nn, const char *reduction, bl_tensor weight)
{
    bool outside = bl_is(reduction, "log_mean");
    bl_tensor mean = outside ? bl_log(bl_mean(nn)) : bl_mean(bl_log(nn));
    return bl_neg(bl_mul(weight, mean));
}

/* What orders the rows of b by their distance from a row of a: |b|^2/2 - <a,b>, about the mean of b,
 * so that rows which are far from 0 and near each other are told apart. */
static bl_tensor remoteness(bl_tensor a, bl_tensor b)
{
    bl_tensor mean = bl_mean_keep(b, 0);
    a = bl_sub(a, mean), b = bl_sub(b, mean);
    return bl_sub(bl_mul(0.5, bl_sum(bl_square(b), 1)), bl_dot(a, b, false, true));
}

/* The row of the buffer nearest to each code: of all rows, or of those in the same place of their
 * batch. Only that row is used further, so that the gradient costs no more than B rows. */
static bl_tensor nearest_row(bl_tensor code, bl_tensor buffer, bl_tensor *index)
{
    int64_t B = bl_dim(code, 0), K = bl_dim(code, 1);
    code = bl_stop_gradient(code);
    if (bl_rank(buffer) == 2) {
        *index = bl_argmin(remoteness(code, buffer), 1);
        return bl_take(buffer, *index);
    }
    *index = bl_argmin(bl_sum(bl_square(bl_sub(code, buffer)), 2), 0);
    bl_tensor place = bl_broadcast(bl_reshape(*index, BL_SHAPE(1, B, 1)), BL_SHAPE(1, B, K));
    return bl_squeeze(bl_take_along(buffer, place, 0), 0);
}

/* The buffer without its oldest rows, and the new ones behind. */
static bl_tensor buffer_after(bl_tensor buffer, bl_tensor code, int64_t drop)
{
    int64_t held = bl_dim(buffer, 0);
    bl_tensor rows = bl_stop_gradient(bl_rank(buffer) == 2 ? code : bl_expand(code, 0));
    if (drop >= held)
        return rows;
    bl_tensor kept = bl_slice_axis(buffer, 0, drop, held);
    return bl_concat((bl_tensor[]){kept, rows}, 2, 0);
}

static bool fits_layout(bl_type buffer, const char *layout)
{
    return buffer.shape.rank == (bl_is(layout, "shared") ? 2 : 3);
}

static bool equal_rows(const bl_array *a, int64_t i, const bl_array *b, int64_t j)
{
    int64_t size = a->type.shape.dim[1];
    for (int64_t k = 0; k < size; k++)
        if (bl_f32(a)[i * size + k] != bl_f32(b)[j * size + k])
            return false;
    return true;
}

/* The mean distance is 0, and has no logarithm, where every code is also in the buffer. */
static bl_status refuse_copies(const bl_dictionary *in, const char *code_name)
{
    const bl_array *code = bl_dictionary_find(in, code_name);
    const bl_array *buffer = bl_dictionary_find(in, "buffer");
    int64_t B = code->type.shape.dim[0], S = buffer->type.shape.dim[0];
    bool slots = buffer->type.shape.rank == 3, found = true;
    for (int64_t b = 0; b < B && found; b++) {
        found = false;
        for (int64_t s = 0; s < S && !found; s++)
            found = equal_rows(code, b, buffer, slots ? s * B + b : s);
    }
    if (!found)
        return BL_OK;
    return bl_fail(BL_INVALID, "%s: the mean distance of its rows to the buffer is 0, expected > 0",
                   code_name);
}

#define REPLAY_OPTIONS(OPT)                                                                        \
    OPT(layout, "shared", "shared|per_slot",                                                       \
        "one pool [S,K] for all, or rows [S,B,K] that meet the code in the same place")            \
    OPT(reduction, "log_mean", "log_mean|mean_log", "logarithm of the mean, or mean of them")      \
    OPT(weight, 1.0, "[0,inf)", "of the entropy")                                                  \
    OPT(drop, BL_UNSET_INTEGER, ">= 0",                                                            \
        "oldest rows that leave the buffer; unset: B if shared, 1 per_slot")

#define MANIFOLD_ENTROPY_RB(IN, OPT, OUT)                                                          \
    IN(code, "f32[B,K]", "grad, rows > 0", "embeddings of this batch")                             \
    IN(buffer, "f32[S,K] | f32[S,B,K]", "rows > 0", "recent embeddings, oldest first")             \
    REPLAY_OPTIONS(OPT)                                                                            \
    OUT(loss, "f32[]", "minus the weighted entropy term")                                          \
    OUT(nn_dist, "f32[B]", "mean over K of the squared distance to the nearest row")               \
    OUT(nn_index, "i32[B]", "that row, the lowest of equals")                                      \
    OUT(buffer_out, "f32[...]", "the buffer without its oldest rows and with the new ones")

static bl_status manifold_entropy_rb_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    return refuse_copies(in, "code");
}

BL_CONTRACT_CHECKED(manifold_entropy_rb, MANIFOLD_ENTROPY_RB,
                    "entropy of codes against a replay buffer", manifold_entropy_rb_check)
{
    char text[BL_TYPE_TEXT];
    bool shared = bl_is(f->layout, "shared");
    if (!fits_layout(bl_type_of(f->buffer), f->layout)) {
        bl_poison(graph, "buffer is %s, expected %s with layout %s",
                  bl_type_text(bl_type_of(f->buffer), text), shared ? "[S,K]" : "[S,B,K]",
                  f->layout);
        return;
    }
    int64_t drop = f->drop == BL_UNSET_INTEGER ? (shared ? bl_dim(f->code, 0) : 1) : f->drop;
    bl_tensor nearest = nearest_row(f->code, bl_stop_gradient(f->buffer), &f->nn_index);
    f->nn_dist = bl_mean(bl_square(bl_sub(f->code, nearest)), 1);
    f->loss = entropy_term(f->nn_dist, f->reduction, f->weight);
    f->buffer_out = buffer_after(f->buffer, f->code, drop);
}

/* The nearest other row of each; gradients flow to both of a pair. */
static bl_tensor nearest_other(bl_tensor code)
{
    bl_tensor fixed = bl_stop_gradient(code), all = remoteness(fixed, fixed);
    bl_shape square = bl_type_of(all).shape;
    bl_tensor row = bl_iota(code.graph, BL_I32, square, 0);
    bl_tensor itself = bl_eq(row, bl_iota(code.graph, BL_I32, square, 1));
    return bl_take(code, bl_argmin(bl_select(itself, INFINITY, all), 1));
}

static bool has_two_rows(bl_graph *graph, bl_tensor code)
{
    char text[BL_TYPE_TEXT];
    if (bl_dim(code, 0) >= 2)
        return true;
    bl_poison(graph, "code is %s, expected at least 2 rows", bl_type_text(bl_type_of(code), text));
    return false;
}

/* Row i's first equal among the other rows, or -1. */
static int64_t copy_of(const bl_array *code, int64_t i)
{
    for (int64_t j = 0; j < code->type.shape.dim[0]; j++)
        if (j != i && equal_rows(code, i, code, j))
            return j;
    return -1;
}

#define MANIFOLD_ENTROPY_BATCH(IN, OPT, OUT)                                                       \
    IN(code, "f32[B,K]", "grad", "embeddings of at least two inputs")                              \
    OPT(reduction, "mean_log", "log_mean|mean_log", "logarithm of the mean, or mean of them")      \
    OPT(weight, 1.0, "[0,inf)", "of the entropy")                                                  \
    OUT(loss, "f32[]", "minus the weighted entropy term")                                          \
    OUT(nn_dist, "f32[B]", "mean over K of the squared distance to the nearest other row")

static bl_status manifold_entropy_batch_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *code = bl_dictionary_find(in, "code");
    int64_t B = code->type.shape.dim[0], i = 0;
    while (i < B && copy_of(code, i) >= 0)
        i++;
    if (i < B || B < 2)
        return BL_OK;
    return bl_fail(BL_INVALID,
                   "code: the mean distance to the nearest other row is 0, expected > 0");
}

BL_CONTRACT_CHECKED(manifold_entropy_batch, MANIFOLD_ENTROPY_BATCH,
                    "entropy of codes within their batch", manifold_entropy_batch_check)
{
    if (!has_two_rows(graph, f->code))
        return;
    f->nn_dist = bl_mean(bl_square(bl_sub(f->code, nearest_other(f->code))), 1);
    f->loss = entropy_term(f->nn_dist, f->reduction, f->weight);
}

#define MANIFOLD_ENTROPY_KL_ESTIMATE(IN, OPT, OUT)                                                 \
    IN(code, "f32[N,K]", "grad", "at least two rows, all distinct")                                \
    OUT(entropy, "f32[]", "in nats")

static bl_status manifold_entropy_kl_estimate_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *code = bl_dictionary_find(in, "code");
    for (int64_t i = 0; i < code->type.shape.dim[0]; i++) {
        int64_t j = copy_of(code, i);
        if (j >= 0)
            return bl_fail(BL_INVALID, "code: rows %lld and %lld are equal, expected distinct rows",
                           (long long)i, (long long)j);
    }
    return BL_OK;
}

/* K mean log rho + log(N - 1) + log of the volume of the unit ball + Euler's constant, rho being
 * the distance to the nearest other row; in double, since neighbours may be close. */
BL_CONTRACT_CHECKED(manifold_entropy_kl_estimate, MANIFOLD_ENTROPY_KL_ESTIMATE,
                    "entropy as Kozachenko and Leonenko estimate it",
                    manifold_entropy_kl_estimate_check)
{
    if (!has_two_rows(graph, f->code))
        return;
    double N = (double)bl_dim(f->code, 0), K = (double)bl_dim(f->code, 1);
    double constant = log(N - 1) + K / 2 * log(pi) - lgamma(K / 2 + 1) + euler;
    bl_tensor away = bl_sub(bl_cast(f->code, BL_F64), bl_cast(nearest_other(f->code), BL_F64));
    bl_tensor log_rho = bl_mul(0.5, bl_log(bl_sum(bl_square(away), 1)));
    f->entropy = bl_cast(bl_add(bl_mul(K, bl_mean(log_rho)), constant), BL_F32);
}

#define MANIFOLD_ENTROPY_RAMP(IN, OPT, OUT)                                                        \
    IN(epoch, "f32[]", "", "epochs done")                                                          \
    OPT(weight, 1.0, "[0,inf)", "at the end")                                                      \
    OPT(ramp_epochs, 100.0, ">= 1", "epochs until then")                                           \
    OUT(weight_out, "f32[]", "weight min(epoch / ramp_epochs, 1)")

BL_CONTRACT(manifold_entropy_ramp, MANIFOLD_ENTROPY_RAMP, "the entropy's weight grows linearly")
{
    f->weight_out = bl_mul(f->weight, bl_min(bl_div(f->epoch, f->ramp_epochs), 1));
}

/* --- the sums that are minimised -------------------------------------------------------------- */

#define MANIFOLD_ENTROPY_D_LOSS(IN, OPT, OUT)                                                      \
    IN(z_real, "f32[B,K]", "grad, rows > 0", "embeddings of real inputs")                          \
    IN(z_real_aug, "f32[B,K]", "grad", "of the same, flipped and slightly noisy: a constant")      \
    IN(z_fake, "f32[B,K]", "grad", "embeddings of generated inputs")                               \
    IN(z_fake_aug, "f32[B,K]", "grad", "of the same, flipped and slightly noisy: a constant")      \
    IN(z_mix, "f32[B,K]", "grad", "embeddings of manifold_entropy_mix")                            \
    IN(alpha, "f32[B]", "", "share of the real input in the mix")                                  \
    IN(noise, "f32[B,K]", "", "standard normal")                                                   \
    IN(buffer, "f32[S,K] | f32[S,B,K]", "rows > 0", "recent real embeddings, oldest first")        \
    OPT(noise_std, 0.05, "[0,inf)", "deviation of the noise on the target of disomap")             \
    REPLAY_OPTIONS(OPT)                                                                            \
    OUT(loss, "f32[]", "dlle + disomap + entropy + critic")                                        \
    OUT(dlle, "f32[]", "manifold_entropy_dlle")                                                    \
    OUT(disomap, "f32[]", "manifold_entropy_disomap")                                              \
    OUT(entropy, "f32[]", "manifold_entropy_rb of z_real, weight included")                        \
    OUT(critic, "f32[]", "loss_d of manifold_entropy_critic")                                      \
    OUT(buffer_out, "f32[...]", "the buffer for the next step")

static bl_status manifold_entropy_d_loss_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    return refuse_copies(in, "z_real");
}

BL_CONTRACT_CHECKED(manifold_entropy_d_loss, MANIFOLD_ENTROPY_D_LOSS,
                    "what the discriminator minimises", manifold_entropy_d_loss_check)
{
    struct manifold_entropy_dlle dlle = {.z_real = f->z_real,
                                         .z_real_aug = f->z_real_aug,
                                         .z_fake = f->z_fake,
                                         .z_fake_aug = f->z_fake_aug};
    struct manifold_entropy_disomap disomap = {.z_mix = f->z_mix,
                                               .z_real = f->z_real,
                                               .z_fake = f->z_fake,
                                               .alpha = f->alpha,
                                               .noise = f->noise,
                                               .noise_std = f->noise_std};
    struct manifold_entropy_rb rb = {.code = f->z_real,
                                     .buffer = f->buffer,
                                     .layout = f->layout,
                                     .reduction = f->reduction,
                                     .weight = f->weight,
                                     .drop = f->drop};
    struct manifold_entropy_critic critic = {.z_real = f->z_real, .z_fake = f->z_fake};
    bl_call(manifold_entropy_dlle, &dlle);
    bl_call(manifold_entropy_disomap, &disomap);
    bl_call(manifold_entropy_rb, &rb);
    bl_call(manifold_entropy_critic, &critic);

    f->dlle = dlle.loss, f->disomap = disomap.loss, f->entropy = rb.loss;
    f->critic = critic.loss_d, f->buffer_out = rb.buffer_out;
    f->loss = bl_add(bl_add(f->dlle, f->disomap), bl_add(f->entropy, f->critic));
}

#define MANIFOLD_ENTROPY_G_LOSS(IN, OPT, OUT)                                                      \
    IN(z_fake, "f32[B,K]", "grad, rows > 0", "embeddings of generated inputs")                     \
    IN(buffer, "f32[S,K] | f32[S,B,K]", "rows > 0", "recent generated embeddings, oldest first")   \
    REPLAY_OPTIONS(OPT)                                                                            \
    OUT(loss, "f32[]", "entropy - mean z_fake")                                                    \
    OUT(entropy, "f32[]", "manifold_entropy_rb of z_fake, weight included")                        \
    OUT(buffer_out, "f32[...]", "the buffer for the next step")

static bl_status manifold_entropy_g_loss_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    return refuse_copies(in, "z_fake");
}

BL_CONTRACT_CHECKED(manifold_entropy_g_loss, MANIFOLD_ENTROPY_G_LOSS,
                    "what the generator minimises", manifold_entropy_g_loss_check)
{
    struct manifold_entropy_rb rb = {.code = f->z_fake,
                                     .buffer = f->buffer,
                                     .layout = f->layout,
                                     .reduction = f->reduction,
                                     .weight = f->weight,
                                     .drop = f->drop};
    bl_call(manifold_entropy_rb, &rb);
    f->entropy = rb.loss, f->buffer_out = rb.buffer_out;
    f->loss = bl_sub(f->entropy, bl_mean(f->z_fake));
}

const bl_method bl_manifold_entropy = {
    .slug = "manifold_entropy",
    .family = "generative",
    .paper = "Liu et al. 2023, arXiv 2208.12055",
    .summary = "(no arm) spreads a GAN's samples by the entropy of the discriminator's embeddings",
    .when = "The samples of a GAN are good but few of a kind. Three passes more through the "
            "discriminator, and distances of each embedding to a buffer.",
    .functions = {&manifold_entropy_d_loss_contract, &manifold_entropy_g_loss_contract,
                  &manifold_entropy_rb_contract, &manifold_entropy_batch_contract,
                  &manifold_entropy_kl_estimate_contract, &manifold_entropy_dlle_contract,
                  &manifold_entropy_disomap_contract, &manifold_entropy_mix_contract,
                  &manifold_entropy_critic_contract, &manifold_entropy_reparam_contract,
                  &manifold_entropy_ramp_contract},
    .example = "ballast show manifold_entropy_d_loss",
};
