/* Latent quantization defense. Kyatham, Mishra, Yadav, Mishra and Prathosh 2019, arXiv 1903.09940.
 * A filter before a classifier: encode the image, keep one bit of each number of the code, decode.
 * A nearly flat encoder moves the code little when an image is attacked, and quantisation throws
 * small moves away; neither sees the classifier or an attack in training.
 *
 * The paper's formulas are those of its authors' code. Two things that a reader would not expect:
 * the bit says whether |z| < q, not which sign z has; and the penalty is on the gradient of the sum
 * of the code. */
#include "methods/method.h"

#define LATENT_QUANTIZATION_DEFENSE_QUANTIZE(IN, OPT, OUT)                                         \
    IN(mu, "f32[B,K]", "grad", "mean of the code")                                                 \
    IN(logvar, "f32[B,K]", "grad", "logarithm of its variance")                                    \
    IN(noise, "f32[B,K]", "grad", "standard normal; 0 for a deterministic filter")                 \
    OPT(thresh, 0.1, "(0,inf)", "q: half the width of the band of +1")                             \
    OPT(slope, 500.0, "(0,inf)", "of the soft bit")                                                \
    OUT(z, "f32[B,K]", "mu + q/2 exp(logvar/2) noise")                                             \
    OUT(z_soft, "f32[B,K]", "s / (1 + |s|), s = slope (q^2 - z^2)")                                \
    OUT(z_hard, "f32[B,K]", "sign(q^2 - z^2), no gradient")

BL_CONTRACT(latent_quantization_defense_quantize, LATENT_QUANTIZATION_DEFENSE_QUANTIZE,
            "draws a code and quantises it to a bit per number, softly and hard")
{
    bl_tensor q = f->thresh;
    bl_tensor deviation = bl_mul(bl_mul(0.5, q), bl_exp(bl_mul(0.5, f->logvar)));
    f->z = bl_add(f->mu, bl_mul(deviation, f->noise));
    bl_tensor d = bl_mul(bl_sub(q, f->z), bl_add(q, f->z)); /* q^2 - z^2, exact in sign */
    f->z_soft = bl_softsign(bl_mul(f->slope, d));
    f->z_hard = bl_stop_gradient(bl_sign(d));
}

/* KL(N(mu, e^logvar) || N(0,1)), the mean over examples and numbers of the code. */
static bl_tensor divergence_from_prior(bl_tensor mu, bl_tensor logvar)
{
    bl_tensor variance_part = bl_sub(bl_expm1(logvar), logvar);
    return bl_mul(0.5, bl_mean(bl_add(bl_square(mu), variance_part)));
}

#define LATENT_QUANTIZATION_DEFENSE_KL(IN, OPT, OUT)                                               \
    IN(mu, "f32[B,K]", "grad, rows > 0", "mean of the code")                                       \
    IN(logvar, "f32[B,K]", "grad", "logarithm of its variance")                                    \
    OUT(kl, "f32[]", "-1/2 mean over all of 1 + logvar - mu^2 - exp(logvar)")

BL_CONTRACT(latent_quantization_defense_kl, LATENT_QUANTIZATION_DEFENSE_KL,
            "how far codes are from the standard normal")
{
    f->kl = divergence_from_prior(f->mu, f->logvar);
}

/* The mean over examples of (target - norm)^2. */
static bl_tensor distance_from_target(bl_tensor norm, bl_tensor target)
{
    return bl_mean(bl_square(bl_sub(target, norm)));
}

#define LATENT_QUANTIZATION_DEFENSE_ENCODER_PENALTY(IN, OPT, OUT)                                  \
    IN(x, "f32[B,D]", "grad, rows > 0", "inputs")                                                  \
    IN(w1, "f32[D,H]", "grad", "encoder act(x w1 + b1) w2 + b2")                                   \
    IN(b1, "f32[H]", "grad", "")                                                                   \
    IN(w2, "f32[H,K]", "grad", "")                                                                 \
    IN(b2, "f32[K]", "grad", "")                                                                   \
    OPT(target, 0.1, "[0,inf)", "norm that the gradient is drawn to, from both sides")             \
    OPT(act, "leaky_relu", "leaky_relu|tanh", "of slope 0.2 below 0, or tanh")                     \
    OUT(penalty, "f32[]", "mean of (target - norm)^2")                                             \
    OUT(norm, "f32[B]", "|d sum_k mu_k / d x| of each example")

BL_CONTRACT(latent_quantization_defense_encoder_penalty,
            LATENT_QUANTIZATION_DEFENSE_ENCODER_PENALTY, "keeps an encoder nearly flat")
{
    bl_tensor a = bl_add(bl_dot(f->x, f->w1, false, false), f->b1);
    bl_tensor hidden = bl_is(f->act, "tanh") ? bl_tanh(a) : bl_leaky_relu(a, 0.2);
    bl_tensor mu = bl_add(bl_dot(hidden, f->w2, false, false), f->b2), dx;
    bl_grad(bl_sum(mu), &f->x, 1, &dx);
    f->norm = bl_norm(dx, 1); /* gradient 0 where it is 0 */
    f->penalty = distance_from_target(f->norm, f->target);
}

#define LATENT_QUANTIZATION_DEFENSE_LOSSES(IN, OPT, OUT)                                           \
    IN(mu, "f32[B,K]", "grad, rows > 0", "mean of the code")                                       \
    IN(logvar, "f32[B,K]", "grad", "logarithm of its variance")                                    \
    IN(x_true, "f32[B,S...]", "", "images, in [-1,1]")                                             \
    IN(x_cont, "f32[B,S...]", "grad", "decoded from soft bits")                                    \
    IN(x_disc, "f32[B,S...]", "grad", "decoded, by the other decoder, from hard bits")             \
    IN(grad_norm, "f32[B]", "grad", "norm of the encoder's gradient")                              \
    OPT(w_rec, 10.0, "[0,inf)", "weight of the reconstruction errors")                             \
    OPT(w_gp, 10.0, "[0,inf)", "weight of the encoder's penalty")                                  \
    OPT(target, 0.1, "[0,inf)", "norm that the gradient is drawn to")                              \
    OUT(enc_loss, "f32[]", "kl + w_rec mse_cont + w_gp penalty: for the encoder")                  \
    OUT(cont_loss, "f32[]", "w_rec mse_cont: for the continuous decoder")                          \
    OUT(disc_loss, "f32[]", "w_rec mse_disc: for the discrete decoder")                            \
    OUT(kl, "f32[]", "divergence from the prior")                                                  \
    OUT(mse_cont, "f32[]", "mean square of x_cont - x_true")                                       \
    OUT(mse_disc, "f32[]", "mean square of x_disc - x_true")                                       \
    OUT(penalty, "f32[]", "mean of (target - grad_norm)^2")

BL_CONTRACT(latent_quantization_defense_losses, LATENT_QUANTIZATION_DEFENSE_LOSSES,
            "what encoder and decoders minimise, each its own")
{
    bl_tensor truth = bl_stop_gradient(f->x_true);
    f->kl = divergence_from_prior(f->mu, f->logvar);
    f->mse_cont = bl_mean(bl_square(bl_sub(f->x_cont, truth)));
    f->mse_disc = bl_mean(bl_square(bl_sub(f->x_disc, truth)));
    f->penalty = distance_from_target(f->grad_norm, f->target);
    f->cont_loss = bl_mul(f->w_rec, f->mse_cont);
    f->disc_loss = bl_mul(f->w_rec, f->mse_disc);
    f->enc_loss = bl_add(bl_add(f->kl, f->cont_loss), bl_mul(f->w_gp, f->penalty));
}

#define LATENT_QUANTIZATION_DEFENSE_BIT_FLIPS(IN, OPT, OUT)                                        \
    IN(code_a, "f32[B,K]", "rows > 0", "quantised codes, -1, 0 or 1")                              \
    IN(code_b, "f32[B,K]", "", "of the same images, attacked")                                     \
    OUT(rate, "f32[]", "share of the entries that differ")

BL_CONTRACT(latent_quantization_defense_bit_flips, LATENT_QUANTIZATION_DEFENSE_BIT_FLIPS,
            "how many bits an attack flips")
{
    f->rate = bl_mean(bl_cast(bl_ne(f->code_a, f->code_b), BL_F32));
}

#define LATENT_QUANTIZATION_DEFENSE_FGSM(IN, OPT, OUT)                                             \
    IN(x, "f32[B,S...]", "", "images")                                                             \
    IN(grad, "f32[B,S...]", "", "gradient of the attacked loss in x")                              \
    OPT(eps, 0.3, "[0,inf)", "size of the step, on the scale lo..hi")                              \
    OPT(lo, -1.0, "finite", "lowest value of a pixel")                                             \
    OPT(hi, 1.0, "finite, > lo", "highest")                                                        \
    OPT(renorm, "clip", "clip|minmax|none",                                                        \
        "back to lo..hi: cut, stretched (as in the code), not")                                    \
    OUT(x_adv, "f32[B,S...]", "x + eps sign(grad), brought back")

/* Each image stretched to lo..hi; a constant one becomes lo. */
static bl_tensor stretched(bl_tensor v, bl_tensor lo, bl_tensor hi)
{
    bl_shape shape = bl_type_of(v).shape;
    int64_t rows = shape.dim[0], count = bl_shape_count(shape);
    bl_tensor flat = bl_reshape(v, BL_SHAPE(rows, rows ? count / rows : 1));
    bl_tensor least = bl_reduce_min_keep(flat, 1);
    bl_tensor range = bl_sub(bl_reduce_max_keep(flat, 1), least);
    bl_tensor share = bl_div(bl_sub(flat, least), bl_select(bl_eq(range, 0), 1, range));
    return bl_reshape(bl_add(bl_mul(share, bl_sub(hi, lo)), lo), shape);
}

BL_CONTRACT(latent_quantization_defense_fgsm, LATENT_QUANTIZATION_DEFENSE_FGSM,
            "one step against the classifier (Goodfellow et al. 2015)")
{
    bl_tensor v = bl_stop_gradient(bl_add(f->x, bl_mul(f->eps, bl_sign(f->grad))));
    f->x_adv = bl_is(f->renorm, "clip")     ? bl_clamp(v, f->lo, f->hi)
               : bl_is(f->renorm, "minmax") ? stretched(v, f->lo, f->hi)
                                            : v;
}

const bl_method bl_latent_quantization_defense = {
    .slug = "latent_quantization_defense",
    .family = "inputs",
    .paper = "Kyatham et al. 2019, arXiv 1903.09940",
    .summary = "(no arm) filters images through a code of bits before they are classified",
    .when = "To shield a classifier that cannot be trained again from attacks it has not seen. "
            "Clean accuracy falls; the filter is one pass of an encoder and a decoder.",
    .functions = {&latent_quantization_defense_quantize_contract,
                  &latent_quantization_defense_losses_contract,
                  &latent_quantization_defense_encoder_penalty_contract,
                  &latent_quantization_defense_kl_contract,
                  &latent_quantization_defense_bit_flips_contract,
                  &latent_quantization_defense_fgsm_contract},
    .example = "ballast show latent_quantization_defense_quantize",
};
