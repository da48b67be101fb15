/* Adapt then unlearn. Tiwary, Guha, Panda and Prathosh, TMLR 2025, arXiv 2309.14054. A trained GAN
 * makes something that is not wanted, and its training data are gone. First, copies of it are
 * adapted to samples that have the feature, held near the original by elastic weight consolidation;
 * then the original is trained on samples without it, while its weights are driven away from those
 * of the copies.
 *
 * The official code's distance is kept beside the sum of squares: it averages within each parameter
 * tensor and grows with the number of copies. */
#include "methods/method.h"

/* --- the distance to the adapted models, and what is made of it ------------------------------- */

#define REPULSION_OPTIONS(OPT)                                                                     \
    OPT(form, "exponential", "inverse|negative|exponential", "1/d, -d or exp(-alpha d)")           \
    OPT(alpha, 1.0, "(0,inf)", "how fast exp(-alpha d) falls")                                     \
    OPT(distance_kind, "sum_sq", "sum_sq|tensor_mean|official",                                    \
        "mean over models of the sum of squared differences, or of the mean over tensors of "      \
        "each one's mean; official: that times M^2/2")                                             \
    OPT(tensor_sizes, BL_NO_INTEGERS, ">= 1", "of the tensors that theta joins; [P] if not given")

/* What a squared difference in a tensor of n of T counts in the distance to M models. */
static double share_in_distance(const char *kind, int64_t M, int64_t T, int64_t n)
{
    double in_mean = 1 / ((double)T * (double)n);
    return bl_is(kind, "sum_sq")        ? 1 / (double)M
           : bl_is(kind, "tensor_mean") ? in_mean / (double)M
                                        : in_mean * (double)M / 2;
}

static bl_status tensor_sizes_of(const bl_integers *given, int64_t P, bl_integers *sizes)
{
    int64_t sum = 0;
    *sizes = given->rows ? *given : (bl_integers){1, 1, {P}};
    for (int t = 0; t < sizes->rows * sizes->columns; t++)
        sum += sizes->at[t];
    if (sizes->columns != 1 || sum != P)
        return bl_fail(BL_INVALID,
                       "option tensor_sizes sums to %lld, expected a list that sums to %lld, the "
                       "size of theta",
                       (long long)sum, (long long)P);
    return BL_OK;
}

typedef struct repulsion {
    bl_tensor theta, theta_neg; /* [P], [M,P] */
    const char *form, *distance_kind;
    bl_tensor alpha;
    const bl_integers *tensor_sizes;
} repulsion;

#define REPULSION_OF(f)                                                                            \
    ((repulsion){(f)->theta, (f)->theta_neg, (f)->form, (f)->distance_kind, (f)->alpha,            \
                 &(f)->tensor_sizes})

static bl_tensor distance_to_models(bl_graph *graph, const repulsion *r)
{
    bl_integers sizes;
    bl_tensor share[BL_INTEGERS_MAX];
    int64_t M = bl_dim(r->theta_neg, 0);
    if (tensor_sizes_of(r->tensor_sizes, bl_dim(r->theta, 0), &sizes) != BL_OK)
        return bl_poison(graph, "%s", bl_error());
    for (int t = 0; t < sizes.rows; t++)
        share[t] = bl_full(graph, BL_F32, BL_SHAPE(sizes.at[t]),
                           share_in_distance(r->distance_kind, M, sizes.rows, sizes.at[t]));
    bl_tensor square = bl_square(bl_sub(r->theta, bl_stop_gradient(r->theta_neg)));
    return bl_sum(bl_mul(square, bl_concat(share, sizes.rows, 0)));
}

static bl_tensor penalty_of(const repulsion *r, bl_tensor distance)
{
    return bl_is(r->form, "inverse")    ? bl_div(1, distance)
           : bl_is(r->form, "negative") ? bl_neg(distance)
                                        : bl_exp(bl_neg(bl_mul(r->alpha, distance)));
}

static double square_distance(const bl_array *theta, const bl_array *theta_neg, int64_t i)
{
    double sum = 0;
    int64_t P = bl_array_count(theta), M = theta_neg->type.shape.dim[0];
    for (int64_t m = 0; m < M; m++)
        sum += pow(bl_array_get(theta, i) - bl_array_get(theta_neg, m * P + i), 2);
    return sum;
}

/* 1/d needs a distance. */
static bl_status refuse_coincidence(const bl_dictionary *in, const repulsion *r)
{
    const bl_array *theta = bl_dictionary_find(in, "theta");
    const bl_array *theta_neg = bl_dictionary_find(in, "theta_neg");
    bl_integers sizes;
    double distance = 0;
    if (!bl_is(r->form, "inverse"))
        return BL_OK;
    BL_TRY(tensor_sizes_of(r->tensor_sizes, bl_array_count(theta), &sizes));
    for (int64_t t = 0, i = 0; t < sizes.rows; t++) {
        double share = share_in_distance(r->distance_kind, theta_neg->type.shape.dim[0], sizes.rows,
                                         sizes.at[t]);
        for (int64_t end = i + sizes.at[t]; i < end; i++)
            distance += share * square_distance(theta, theta_neg, i);
    }
    if (distance < 1e-12)
        return bl_fail(BL_INVALID,
                       "theta's weights coincide with the adapted model: their distance is %.3g, "
                       "expected at least 1e-12 with form inverse",
                       distance);
    return BL_OK;
}

#define ADAPT_UNLEARN_REPULSION(IN, OPT, OUT)                                                      \
    IN(theta, "f32[P]", "grad, finite, rows > 0", "the generator's weights")                       \
    IN(theta_neg, "f32[M,P]", "finite, rows > 0", "those of the adapted generators")               \
    REPULSION_OPTIONS(OPT)                                                                         \
    OUT(loss, "f32[]", "1/d, -d or exp(-alpha d)")                                                 \
    OUT(distance, "f32[]", "d, no root taken")

static bl_contract_check adapt_unlearn_repulsion_check;

BL_CONTRACT_CHECKED(adapt_unlearn_repulsion, ADAPT_UNLEARN_REPULSION,
                    "drives weights away from those of adapted models",
                    adapt_unlearn_repulsion_check)
{
    f->distance = distance_to_models(graph, &REPULSION_OF(f));
    f->loss = penalty_of(&REPULSION_OF(f), f->distance);
}

static bl_status adapt_unlearn_repulsion_check(const bl_dictionary *in, const void *options)
{
    const struct adapt_unlearn_repulsion *f = options;
    return refuse_coincidence(in, &REPULSION_OF(f));
}

/* --- the two losses of unlearning ------------------------------------------------------------- */

#define ADAPT_UNLEARN_GENERATOR_LOSS(IN, OPT, OUT)                                                 \
    IN(fake_logits, "f32[B]", "grad, rows > 0", "of the discriminator, for generated samples")     \
    IN(theta, "f32[P]", "grad, finite, rows > 0", "the generator's weights")                       \
    IN(theta_neg, "f32[M,P]", "finite, rows > 0", "those of the adapted generators")               \
    REPULSION_OPTIONS(OPT)                                                                         \
    OPT(gamma, 1.0, "[0,inf)", "weight of the repulsion")                                          \
    OUT(loss, "f32[]", "adversarial + gamma repulsion")                                            \
    OUT(adversarial, "f32[]", "mean softplus(-fake_logits)")                                       \
    OUT(repulsion, "f32[]", "loss of adapt_unlearn_repulsion")

static bl_contract_check adapt_unlearn_generator_loss_check;

BL_CONTRACT_CHECKED(adapt_unlearn_generator_loss, ADAPT_UNLEARN_GENERATOR_LOSS,
                    "what the generator minimises while it unlearns",
                    adapt_unlearn_generator_loss_check)
{
    f->adversarial = bl_mean(bl_softplus(bl_neg(f->fake_logits)));
    f->repulsion = penalty_of(&REPULSION_OF(f), distance_to_models(graph, &REPULSION_OF(f)));
    f->loss = bl_add(f->adversarial, bl_mul(f->gamma, f->repulsion));
}

static bl_status adapt_unlearn_generator_loss_check(const bl_dictionary *in, const void *options)
{
    const struct adapt_unlearn_generator_loss *f = options;
    return refuse_coincidence(in, &REPULSION_OF(f));
}

#define ADAPT_UNLEARN_DISCRIMINATOR_LOSS(IN, OPT, OUT)                                             \
    IN(real_logits, "f32[B]", "grad, rows > 0", "of samples without the feature")                  \
    IN(fake_logits, "f32[C]", "grad, rows > 0", "of generated samples")                            \
    OUT(loss, "f32[]", "mean softplus(-real_logits) + mean softplus(fake_logits)")

BL_CONTRACT(adapt_unlearn_discriminator_loss, ADAPT_UNLEARN_DISCRIMINATOR_LOSS,
            "what the discriminator minimises")
{
    f->loss =
        bl_add(bl_mean(bl_softplus(bl_neg(f->real_logits))), bl_mean(bl_softplus(f->fake_logits)));
}

/* --- gradients of a discriminator ------------------------------------------------------------- */

/* 0.2 is the slope at 0, too, so bl_leaky_relu, whose slope is 1 there, will not do. */
static bl_tensor leaky(bl_tensor x)
{
    return bl_select(bl_gt(x, 0), x, bl_mul(0.2, x));
}

/* leaky(x v1 + c1) . v2 + c2 for x[B,D]: [B]. */
static bl_tensor scores(bl_tensor x, bl_tensor v1, bl_tensor c1, bl_tensor v2, bl_tensor c2)
{
    bl_tensor hidden = leaky(bl_add(bl_dot(x, v1, false, false), c1));
    return bl_add(bl_sum(bl_mul(hidden, v2), -1), c2);
}

#define ADAPT_UNLEARN_R1_MLP(IN, OPT, OUT)                                                         \
    IN(x, "f32[B,D]", "rows > 0", "real samples")                                                  \
    IN(v1, "f32[D,H]", "grad", "discriminator leaky(x v1 + c1) . v2 + c2, slope 0.2")              \
    IN(c1, "f32[H]", "grad", "")                                                                   \
    IN(v2, "f32[H]", "grad", "")                                                                   \
    IN(c2, "f32[]", "grad", "")                                                                    \
    OUT(penalty, "f32[]", "mean over examples of |input_grad|^2")                                  \
    OUT(input_grad, "f32[B,D]", "of the sum of the scores in x")

BL_CONTRACT(adapt_unlearn_r1_mlp, ADAPT_UNLEARN_R1_MLP,
            "gradient penalty on real samples (Mescheder et al. 2018) for two layers")
{
    bl_grad(bl_sum(scores(f->x, f->v1, f->c1, f->v2, f->c2)), &f->x, 1, &f->input_grad);
    f->penalty = bl_mean(bl_sum(bl_square(f->input_grad), -1));
}

/* --- which weights matter: elastic weight consolidation (Kirkpatrick et al. 2017) --------------
 */

#define ADAPT_UNLEARN_FISHER(IN, OPT, OUT)                                                         \
    IN(score_grads, "f32[B,P]", "rows > 0", "gradient of each generated sample's score in theta")  \
    OUT(fisher, "f32[P]", "mean over samples of the squares")

BL_CONTRACT(adapt_unlearn_fisher, ADAPT_UNLEARN_FISHER, "how much each weight matters to the score")
{
    f->fisher = bl_mean(bl_square(f->score_grads), 0);
}

#define ADAPT_UNLEARN_FISHER_MLP(IN, OPT, OUT)                                                     \
    IN(z, "f32[B,Z]", "rows > 0", "latent codes")                                                  \
    IN(w1, "f32[Z,H]", "", "generator x = tanh(z w1 + b1) w2 + b2")                                \
    IN(b1, "f32[H]", "", "")                                                                       \
    IN(w2, "f32[H,D]", "", "")                                                                     \
    IN(b2, "f32[D]", "", "")                                                                       \
    IN(v1, "f32[D,K]", "", "discriminator leaky(x v1 + c1) . v2 + c2, slope 0.2")                  \
    IN(c1, "f32[K]", "", "")                                                                       \
    IN(v2, "f32[K]", "", "")                                                                       \
    IN(c2, "f32[]", "", "")                                                                        \
    OUT(fisher_w1, "f32[Z,H]", "mean over samples of the squared gradient of the score in w1")     \
    OUT(fisher_b1, "f32[H]", "in b1")                                                              \
    OUT(fisher_w2, "f32[H,D]", "in w2")                                                            \
    OUT(fisher_b2, "f32[D]", "in b2")

/* A sample's gradient in a weight matrix is the outer product of the layer's input and the gradient
 * in its output, so that the mean of its squares is a product of squares. */
static bl_tensor mean_square_of_products(bl_tensor input, bl_tensor slope)
{
    bl_tensor sum = bl_dot(bl_square(input), bl_square(slope), true, false);
    return bl_div(sum, (double)bl_dim(input, 0));
}

BL_CONTRACT(adapt_unlearn_fisher_mlp, ADAPT_UNLEARN_FISHER_MLP,
            "the same for all weights of a two-layer generator")
{
    bl_tensor before = bl_add(bl_dot(f->z, f->w1, false, false), f->b1), hidden = bl_tanh(before);
    bl_tensor x = bl_add(bl_dot(hidden, f->w2, false, false), f->b2), slope[2];
    bl_tensor score = bl_sum(scores(x, f->v1, f->c1, f->v2, f->c2));
    bl_grad(score, (bl_tensor[]){before, x}, 2, slope); /* row b is of sample b's score alone */

    f->fisher_w1 = mean_square_of_products(f->z, slope[0]);
    f->fisher_b1 = bl_mean(bl_square(slope[0]), 0);
    f->fisher_w2 = mean_square_of_products(hidden, slope[1]);
    f->fisher_b2 = bl_mean(bl_square(slope[1]), 0);
}

#define ADAPT_UNLEARN_EWC(IN, OPT, OUT)                                                            \
    IN(theta, "f32[P]", "grad", "the weights that are adapted")                                    \
    IN(theta_ref, "f32[P]", "", "the original ones")                                               \
    IN(fisher, "f32[P]", ">= 0", "how much each matters")                                          \
    OPT(lam, 5e8, "[0,inf)", "weight; the default suits the tiny values of StyleGAN2")             \
    OUT(loss, "f32[]", "lam/2 sum of fisher (theta - theta_ref)^2")

BL_CONTRACT(adapt_unlearn_ewc, ADAPT_UNLEARN_EWC, "holds adapted weights near the original ones")
{
    bl_tensor moved = bl_square(bl_sub(f->theta, bl_stop_gradient(f->theta_ref)));
    bl_tensor sum = bl_sum(bl_mul(bl_stop_gradient(f->fisher), moved));
    f->loss = bl_mul(bl_mul(0.5, f->lam), sum);
}

/* --- comparison and measure ------------------------------------------------------------------- */

#define ADAPT_UNLEARN_EXTRAPOLATE(IN, OPT, OUT)                                                    \
    IN(theta, "f32[P]", "", "the original weights")                                                \
    IN(theta_neg, "f32[M,P]", "rows > 0", "those of the adapted generators")                       \
    OPT(gamma, -0.5, "finite", "how far to go; negative: away from the adapted ones")              \
    OUT(theta_out, "f32[P]", "theta + gamma (mean of theta_neg - theta)")

BL_CONTRACT(adapt_unlearn_extrapolate, ADAPT_UNLEARN_EXTRAPOLATE,
            "the baseline: a step along the line to the adapted models")
{
    bl_tensor way = bl_sub(bl_mean(f->theta_neg, 0), f->theta);
    f->theta_out = bl_add(f->theta, bl_mul(f->gamma, way));
}

#define ADAPT_UNLEARN_PUL(IN, OPT, OUT)                                                            \
    IN(pred_before, "i32[N]", "", "a classifier's labels of generated samples")                    \
    IN(pred_after, "i32[N]", "", "of the same latent codes after unlearning")                      \
    OPT(target, BL_REQUIRED_INTEGER, "", "the label to be unlearned")                              \
    OPT(scope, "all", "all|previously_negative", "count after in all, or where before had target") \
    OUT(pul, "f32[]", "100 (before - after) / before; can be negative with all")

BL_HOST(adapt_unlearn_pul, ADAPT_UNLEARN_PUL, "percentage of unlearning")
{
    int64_t before = 0, after = 0;
    bool all = bl_is(f->scope, "all");
    for (int64_t i = 0; i < bl_array_count(&f->pred_before); i++) {
        bool had_target = bl_i32(&f->pred_before)[i] == f->target;
        before += had_target;
        after += bl_i32(&f->pred_after)[i] == f->target && (all || had_target);
    }
    if (before == 0)
        return bl_fail(BL_INVALID, "pred_before never is %lld, expected the target at least once",
                       (long long)f->target);
    bl_array_set(&f->pul, 0, 100 * (double)(before - after) / (double)before);
    return BL_OK;
}

const bl_method bl_adapt_unlearn = {
    .slug = "adapt_unlearn",
    .family = "generative",
    .paper = "Tiwary et al. 2025, arXiv 2309.14054",
    .summary = "(no arm) makes a trained GAN forget what it should not generate",
    .when = "A generator makes something unwanted, its training data are gone, and its samples can "
            "be labelled. Costs a few adapted copies of it.",
    .functions = {&adapt_unlearn_repulsion_contract, &adapt_unlearn_generator_loss_contract,
                  &adapt_unlearn_discriminator_loss_contract, &adapt_unlearn_r1_mlp_contract,
                  &adapt_unlearn_fisher_contract, &adapt_unlearn_fisher_mlp_contract,
                  &adapt_unlearn_ewc_contract, &adapt_unlearn_extrapolate_contract,
                  &adapt_unlearn_pul_contract},
    .example = "ballast show adapt_unlearn_repulsion",
};
