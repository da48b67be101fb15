/* GigaTok. Xiong, Liew, Huang, Feng and Liu 2025, arXiv 2504.08736. An image tokenizer (encoder,
 * vector quantizer, decoder) that grows reconstructs better, but its tokens become harder to
 * predict. Tying a feature of the decoder to those of a frozen vision encoder keeps them
 * predictable; an entropy term keeps a large codebook in use.
 *
 * The formulas are those of the official code. */
#include "methods/method.h"

/* --- the semantic term ------------------------------------------------------------------------ */

#define GIGATOK_SEMANTIC_LOSS(IN, OPT, OUT)                                                        \
    IN(h, "f32[B,N,F]", "grad, rows > 0", "the decoder's feature, projected")                      \
    IN(f, "f32[B,N,F]", "", "the teacher's, on the same grid")                                     \
    OPT(eps, 1e-12, "(0,inf)", "least norm that a row is divided by")                              \
    OPT(weight, 0.5, "finite", "of the term in weighted")                                          \
    OUT(loss, "f32[]", "-mean cosine, in [-1,1]")                                                  \
    OUT(weighted, "f32[]", "weight loss")                                                          \
    OUT(cosine, "f32[B,N]", "between the two features at each place")

BL_CONTRACT(gigatok_semantic_loss, GIGATOK_SEMANTIC_LOSS,
            "ties a decoder's feature to a frozen teacher's")
{
    if (bl_dim(f->h, 1) < 1 || bl_dim(f->h, 2) < 1) {
        bl_poison(graph, "h has %lld places of %lld features, expected at least one of each",
                  (long long)bl_dim(f->h, 1), (long long)bl_dim(f->h, 2));
        return;
    }
    bl_tensor teacher = bl_unit_rows(bl_stop_gradient(f->f), f->eps);
    f->cosine = bl_sum(bl_mul(bl_unit_rows(f->h, f->eps), teacher), -1);
    f->loss = bl_neg(bl_mean(f->cosine));
    f->weighted = bl_mul(f->weight, f->loss);
}

#define GIGATOK_PROJECTOR(IN, OPT, OUT)                                                            \
    IN(h, "f32[B,N,W]", "grad", "the decoder's feature")                                           \
    IN(w1, "f32[H,W]", "grad", "first layer, x w^T + b; officially H is 4 W")                      \
    IN(b1, "f32[H]", "grad", "")                                                                   \
    IN(w2, "f32[H,H]", "grad", "second layer")                                                     \
    IN(b2, "f32[H]", "grad", "")                                                                   \
    IN(w3, "f32[F,H]", "grad", "third layer")                                                      \
    IN(b3, "f32[F]", "grad", "")                                                                   \
    OUT(out, "f32[B,N,F]", "linear, SiLU, linear, SiLU, linear")

BL_CONTRACT(gigatok_projector, GIGATOK_PROJECTOR,
            "maps a decoder's feature to the teacher's size, in training only")
{
    int64_t B = bl_dim(f->h, 0), N = bl_dim(f->h, 1);
    bl_tensor x = bl_reshape(f->h, BL_SHAPE(B * N, bl_dim(f->h, 2)));
    x = bl_silu(bl_linear(x, f->w1, f->b1));
    x = bl_silu(bl_linear(x, f->w2, f->b2));
    f->out = bl_reshape(bl_linear(x, f->w3, f->b3), BL_SHAPE(B, N, bl_dim(f->w3, 0)));
}

/* --- the entropy term ------------------------------------------------------------------------- */

#define GIGATOK_ENTROPY_LOSS(IN, OPT, OUT)                                                         \
    IN(affinity, "f32[M,K]", "grad, rows > 0", "of each vector to each code; larger is closer")    \
    OPT(temperature, 0.01, "(0,inf)", "affinities are divided by it")                              \
    OPT(eps, 1e-5, "[0,inf)", "added to the mean probability inside of its logarithm")             \
    OUT(loss, "f32[]", "sample_entropy - average_entropy")                                         \
    OUT(sample_entropy, "f32[]", "mean entropy of a vector's code: low where choices are clear")   \
    OUT(average_entropy, "f32[]", "entropy of the mean probability: high where all are in use")

BL_CONTRACT(gigatok_entropy_loss, GIGATOK_ENTROPY_LOSS, "keeps a codebook in use")
{
    bl_tensor log_p = bl_log_softmax(bl_div(f->affinity, f->temperature), -1), p = bl_exp(log_p);
    bl_tensor mean = bl_mean(p, 0);
    f->sample_entropy = bl_neg(bl_mean(bl_sum(bl_mul(p, log_p), -1)));
    f->average_entropy = bl_neg(bl_sum(bl_mul(mean, bl_log(bl_add(mean, f->eps)))));
    f->loss = bl_sub(f->sample_entropy, f->average_entropy);
}

/* --- the quantizer ---------------------------------------------------------------------------- */

#define GIGATOK_VQ(IN, OPT, OUT)                                                                   \
    IN(z, "f32[B,N,C]", "grad, rows > 0", "vectors to quantize")                                   \
    IN(codebook, "f32[K,C]", "grad, rows > 0", "codes")                                            \
    OPT(l2_norm, 1, "flag", "vectors and codes are divided by their norms first")                  \
    OPT(beta, 0.25, "[0,inf)", "weight of the commitment")                                         \
    OPT(estimator, "rotation", "rotation|ste", "what gradient passes: rotated, or as it is")       \
    OPT(entropy_weight, 0.0, "[0,inf)", "of the entropy term")                                     \
    OPT(temperature, 0.01, "(0,inf)", "of the entropy term")                                       \
    OUT(z_q, "f32[B,N,C]", "the nearest codes; gradient to z only")                                \
    OUT(index, "i32[B,N]", "their rows, ties to the lowest")                                       \
    OUT(vq_loss, "f32[]", "mean square of code - vector, which moves the codes")                   \
    OUT(commit_loss, "f32[]", "beta times the same, which moves the vectors")                      \
    OUT(entropy_loss, "f32[]", "entropy_weight gigatok_entropy_loss of -squared distances")        \
    OUT(usage, "f32[]", "share of the codes in use")

/* What is nearest to x[rows,C]. Between rows of norm 1 the product orders as the distance does and
 * is fast; other distances are sums of squared differences, which no large norm drowns. */
typedef struct codes {
    bl_tensor row; /* [K,C] */
    bool unit;
} codes;

static bl_tensor nearest_code(const codes *c, bl_tensor x)
{
    if (!c->unit)
        return bl_argmin(bl_square_distances(x, c->row), 1);
    bl_tensor half_square = bl_mul(0.5, bl_sum(bl_square(c->row), -1)); /* 0 of a zero row */
    return bl_argmin(bl_sub(half_square, bl_dot(x, c->row, false, true)), 1);
}

static void nearest_in_block(bl_graph *graph, const bl_tensor *carry, const bl_tensor *x,
                             bl_tensor *next, bl_tensor *y, void *context)
{
    (void)graph, (void)carry, (void)next;
    *y = nearest_code(context, *x);
}

/* x[M,C]: i32[M], in blocks, so that no more than BLOCK x K distances are in memory. */
static bl_tensor nearest_codes(bl_graph *graph, codes c, bl_tensor x)
{
    enum { BLOCK = 256 };
    int64_t M = bl_dim(x, 0), C = bl_dim(x, 1), blocks = (M + BLOCK - 1) / BLOCK;
    if (M <= BLOCK)
        return nearest_code(&c, x);
    bl_tensor full = bl_pad(x, BL_SHAPE(0, 0), BL_SHAPE(blocks * BLOCK - M, 0), 0), index;
    full = bl_reshape(full, BL_SHAPE(blocks, BLOCK, C));
    bl_scan(graph, blocks, nearest_in_block, &c, NULL, 0, &full, 1, NULL, &index, 1);
    return bl_slice_axis(bl_reshape(index, BL_SHAPE(blocks * BLOCK)), 0, 0, M);
}

/* The rotation and scaling that take x to q, applied to x as constants (Fifty et al. 2025,
 * arXiv 2410.06424). Where there is none - x or q is 0, or they are opposite - straight through. */
static bl_tensor rotated(bl_tensor x, bl_tensor q)
{
    bl_tensor straight = bl_straight_through(q, x);
    bl_tensor length = bl_norm_keep(x, -1), zero = bl_eq(length, 0);
    bl_tensor e = bl_div(x, bl_select(zero, 1, length)), fixed = bl_stop_gradient(e);
    bl_tensor size_e = bl_norm_keep(fixed, -1), size_q = bl_norm_keep(q, -1);

    bl_tensor u = bl_div(fixed, bl_add(size_e, 1e-6)), v = bl_div(q, bl_add(size_q, 1e-6));
    bl_tensor between = bl_add(u, v), size = bl_norm_keep(between, -1);
    bl_tensor none = bl_or(bl_or(zero, bl_eq(size_q, 0)), bl_le(size, 1e-6));
    bl_tensor w = bl_div(between, bl_select(none, 1, size));

    bl_tensor along_w = bl_sum_keep(bl_mul(e, w), -1), along_u = bl_sum_keep(bl_mul(e, u), -1);
    bl_tensor turned =
        bl_add(bl_sub(e, bl_mul(bl_mul(2, along_w), w)), bl_mul(bl_mul(2, along_u), v));
    bl_tensor scale = bl_div(size_q, bl_add(size_e, 1e-6));
    return bl_select(none, straight, bl_mul(scale, turned));
}

static bl_tensor share_in_use(bl_graph *graph, bl_tensor index, int64_t K)
{
    bl_tensor none = bl_full(graph, BL_F32, BL_SHAPE(K), 0);
    bl_tensor times = bl_add_at(none, index, bl_full(graph, BL_F32, BL_SHAPE(bl_dim(index, 0)), 1));
    return bl_mean(bl_cast(bl_gt(times, 0), BL_F32));
}

BL_CONTRACT(gigatok_vq, GIGATOK_VQ, "replaces vectors by the nearest codes of a codebook")
{
    bl_shape shape = bl_type_of(f->z).shape;
    int64_t K = bl_dim(f->codebook, 0), C = shape.dim[2], M = shape.dim[0] * shape.dim[1];
    bl_tensor x = bl_reshape(f->l2_norm ? bl_unit_rows(f->z, 1e-12) : f->z, BL_SHAPE(M, C));
    bl_tensor code = f->l2_norm ? bl_unit_rows(f->codebook, 1e-12) : f->codebook;

    codes fixed = {bl_stop_gradient(code), f->l2_norm};
    bl_tensor index = nearest_codes(graph, fixed, bl_stop_gradient(x)), q = bl_take(code, index);
    f->vq_loss = bl_mean(bl_square(bl_sub(q, bl_stop_gradient(x))));
    f->commit_loss = bl_mul(f->beta, bl_mean(bl_square(bl_sub(bl_stop_gradient(q), x))));
    f->entropy_loss = bl_number(0);
    if (!bl_is_number(f->entropy_weight) || f->entropy_weight.number != 0) {
        struct gigatok_entropy_loss e = BL_DEFAULTS(gigatok_entropy_loss);
        e.affinity = bl_neg(bl_square_distances(x, code));
        e.temperature = f->temperature;
        bl_call(gigatok_entropy_loss, &e);
        f->entropy_loss = bl_mul(f->entropy_weight, e.loss);
    }
    q = bl_stop_gradient(q);
    bl_tensor z_q = bl_is(f->estimator, "ste") ? bl_straight_through(q, x) : rotated(x, q);
    f->z_q = bl_reshape(z_q, shape);
    f->index = bl_reshape(index, BL_SHAPE(shape.dim[0], shape.dim[1]));
    f->usage = share_in_use(graph, index, K);
}

/* --- the adversarial game --------------------------------------------------------------------- */

#define GIGATOK_HINGE_D(IN, OPT, OUT)                                                              \
    IN(logits_real, "f32[B,S...]", "grad, rows > 0", "of images")                                  \
    IN(logits_fake, "f32[D,T...]", "grad, rows > 0", "of reconstructions")                         \
    OPT(disc_weight, 0.5, "[0,inf)", "weight; 0 before the discriminator starts")                  \
    OUT(loss, "f32[]", "disc_weight/2 (mean relu(1 - real) + mean relu(1 + fake))")

BL_CONTRACT(gigatok_hinge_d, GIGATOK_HINGE_D, "what the discriminator minimises")
{
    bl_tensor real = bl_mean(bl_relu(bl_sub(1, f->logits_real)));
    bl_tensor fake = bl_mean(bl_relu(bl_add(1, f->logits_fake)));
    f->loss = bl_mul(bl_mul(0.5, f->disc_weight), bl_add(real, fake));
}

#define GIGATOK_GENERATOR_LOSS(IN, OPT, OUT)                                                       \
    IN(x, "f32[B,S...]", "rows > 0", "images")                                                     \
    IN(x_rec, "f32[B,S...]", "grad", "their reconstructions")                                      \
    IN(logits_fake, "f32[D,T...]", "grad, rows > 0", "the discriminator's, of these")              \
    IN(perceptual, "f32[]", "grad", "perceptual distance; 0 without a network for it")             \
    IN(vq_loss, "f32[]", "grad", "of gigatok_vq")                                                  \
    IN(commit_loss, "f32[]", "grad", "of gigatok_vq")                                              \
    IN(entropy_loss, "f32[]", "grad", "of gigatok_vq")                                             \
    IN(semantic, "f32[]", "grad", "loss of gigatok_semantic_loss, not weighted")                   \
    OPT(rec_weight, 1.0, "[0,inf)", "of the reconstruction")                                       \
    OPT(perceptual_weight, 1.0, "[0,inf)", "of perceptual")                                        \
    OPT(disc_weight, 0.5, "[0,inf)", "of the discriminator; 0 before it starts")                   \
    OPT(semantic_weight, 0.5, "[0,inf)", "of semantic")                                            \
    OUT(loss, "f32[]", "the weighted sum, less disc_weight mean logits_fake")                      \
    OUT(reconstruction, "f32[]", "mean square of x - x_rec")

BL_CONTRACT(gigatok_generator_loss, GIGATOK_GENERATOR_LOSS, "what the tokenizer minimises")
{
    f->reconstruction = bl_mean(bl_square(bl_sub(bl_stop_gradient(f->x), f->x_rec)));
    bl_tensor image = bl_add(bl_mul(f->rec_weight, f->reconstruction),
                             bl_mul(f->perceptual_weight, f->perceptual));
    bl_tensor game = bl_mul(f->disc_weight, bl_mean(f->logits_fake));
    bl_tensor quantizer = bl_add(bl_add(f->vq_loss, f->commit_loss), f->entropy_loss);
    f->loss =
        bl_add(bl_add(bl_sub(image, game), quantizer), bl_mul(f->semantic_weight, f->semantic));
}

const bl_method bl_gigatok = {
    .slug = "gigatok",
    .family = "generative",
    .paper = "Xiong et al. 2025, arXiv 2504.08736",
    .summary = "(no arm) image tokens that stay predictable while the tokenizer grows",
    .when =
        "A quantizing autoencoder is trained for a generator of its tokens, and a frozen vision "
        "encoder is at hand. Costs the encoder's forward pass and a small projector.",
    .functions = {&gigatok_vq_contract, &gigatok_semantic_loss_contract,
                  &gigatok_projector_contract, &gigatok_entropy_loss_contract,
                  &gigatok_generator_loss_contract, &gigatok_hinge_d_contract},
    .example = "ballast show gigatok_vq",
};
