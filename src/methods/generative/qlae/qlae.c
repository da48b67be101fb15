/* Disentanglement via latent quantization (QLAE). Hsu, Dorrell, Whittington, Wu and Finn, NeurIPS
 * 2023, arXiv 2305.18378. Each number of a code has its own short list of values and is snapped to
 * the nearest, so that the encoder must build codes by combination; strong decoupled weight decay
 * keeps the use of each value the same everywhere. Either alone does little.
 *
 * InfoMEC scores any code against known sources: modularity, explicitness and compactness, from
 * mutual information. Scores are on the host, in double. */
#include "methods/method.h"
#include "ballast/solve.h"

/* --- the quantizer and its loss --------------------------------------------------------------- */

typedef struct quantized {
    bl_tensor index, value;             /* [B,L] */
    bl_tensor quantization, commitment; /* [B] */
} quantized;

/* z[B,L] against codebook[L,V]. */
static quantized quantize(bl_graph *graph, bl_tensor z, bl_tensor codebook)
{
    int64_t B = bl_dim(z, 0), L = bl_dim(z, 1), V = bl_dim(codebook, 1);
    quantized q;
    if (V < 1 || L < 1) {
        bl_tensor poison = bl_poison(graph,
                                     "codebook is f32[%lld,%lld], expected at least one latent "
                                     "and one value",
                                     (long long)L, (long long)V);
        return (quantized){poison, poison, poison, poison};
    }
    bl_tensor distance = bl_abs(bl_sub(bl_expand(z, 2), codebook));
    q.index = bl_argmin(bl_stop_gradient(distance), 2);
    bl_tensor place = bl_add(q.index, bl_mul(bl_iota(graph, BL_I32, BL_SHAPE(L), 0), (double)V));
    bl_tensor all = bl_reshape(codebook, BL_SHAPE(L * V));
    q.value = bl_reshape(bl_take(all, bl_reshape(place, BL_SHAPE(B * L))), BL_SHAPE(B, L));

    q.quantization = bl_mean(bl_square(bl_sub(bl_stop_gradient(z), q.value)), 1);
    q.commitment = bl_mean(bl_square(bl_sub(z, bl_stop_gradient(q.value))), 1);
    return q;
}

#define QLAE_QUANTIZE(IN, OPT, OUT)                                                                \
    IN(z, "f32[B,L]", "grad, no NaN", "codes")                                                     \
    IN(codebook, "f32[L,V]", "grad",                                                               \
       "values of each latent; at first -0.5 .. 0.5, equally spaced")                              \
    OUT(z_hat, "f32[B,L]", "z_quantized, with gradient to z: for the decoder")                     \
    OUT(z_quantized, "f32[B,L]", "nearest values, with gradient to the codebook")                  \
    OUT(index, "i32[B,L]", "which they are, ties to the lowest")                                   \
    OUT(quantization, "f32[B]", "mean square of z - z_quantized, which moves the codebook")        \
    OUT(commitment, "f32[B]", "the same, which moves z")

BL_CONTRACT(qlae_quantize, QLAE_QUANTIZE, "snaps each number of a code to its own list of values")
{
    quantized q = quantize(graph, f->z, f->codebook);
    f->z_hat = bl_straight_through(q.value, f->z);
    f->z_quantized = q.value;
    f->index = q.index;
    f->quantization = q.quantization;
    f->commitment = q.commitment;
}

#define QLAE_LOSS(IN, OPT, OUT)                                                                    \
    IN(logits, "f32[B,S...]", "grad, rows > 0", "decoded from z_hat")                              \
    IN(x, "f32[B,S...]", "[0,1]", "inputs")                                                        \
    IN(z, "f32[B,L]", "grad, no NaN", "their codes")                                               \
    IN(codebook, "f32[L,V]", "grad", "values of each latent")                                      \
    OPT(bce_weight, 1.0, "[0,inf)", "of the reconstruction")                                       \
    OPT(quantization_weight, 0.01, "[0,inf)", "of what moves the codebook")                        \
    OPT(commitment_weight, 0.01, "[0,inf)", "of what moves the codes")                             \
    OUT(loss, "f32[]", "the weighted sum")                                                         \
    OUT(bce, "f32[]", "binary cross-entropy, mean over all")                                       \
    OUT(quantization, "f32[]", "mean over examples")                                               \
    OUT(commitment, "f32[]", "mean over examples")

BL_CONTRACT(qlae_loss, QLAE_LOSS, "what encoder, codebook and decoder minimise")
{
    quantized q = quantize(graph, f->z, f->codebook);
    f->bce = bl_mean(bl_binary_cross_entropy(f->logits, bl_stop_gradient(f->x)));
    f->quantization = bl_mean(q.quantization);
    f->commitment = bl_mean(q.commitment);
    f->loss = bl_add(bl_mul(f->bce_weight, f->bce),
                     bl_add(bl_mul(f->quantization_weight, f->quantization),
                            bl_mul(f->commitment_weight, f->commitment)));
}

/* --- the regularizer -------------------------------------------------------------------------- */

#define QLAE_ADAMW_STEP(IN, OPT, OUT)                                                              \
    IN(w, "f32[P]", "", "weights")                                                                 \
    IN(g, "f32[P]", "", "their gradient")                                                          \
    IN(m, "f32[P]", "", "mean of gradients, zero at first")                                        \
    IN(v, "f32[P]", "", "mean of squares, zero at first")                                          \
    IN(step, "f32[]", ">= 1", "1 for the first step")                                              \
    OPT(lr, 1e-3, "[0,inf)", "learning rate")                                                      \
    OPT(beta1, 0.9, "[0,1)", "share of m kept")                                                    \
    OPT(beta2, 0.999, "[0,1)", "share of v kept")                                                  \
    OPT(eps, 1e-8, "[0,inf)", "added to the root")                                                 \
    OPT(weight_decay, 0.1, "[0,inf)", "strong: the weights shrink by lr weight_decay a step")      \
    OPT(clip, 1.0, "[0,inf)", "largest size of an entry of g; 0: not clipped")                     \
    OUT(w_out, "f32[P]", "w - lr (Adam's direction + weight_decay w)")                             \
    OUT(m_out, "f32[P]", "updated m")                                                              \
    OUT(v_out, "f32[P]", "updated v")

BL_CONTRACT(qlae_adamw_step, QLAE_ADAMW_STEP,
            "a step of AdamW with entries of the gradient clipped")
{
    bl_tensor limit = bl_select(bl_gt(f->clip, 0), f->clip, (double)INFINITY);
    bl_tensor g = bl_clamp(f->g, bl_neg(limit), limit);
    f->m_out = f->m, f->v_out = f->v;
    bl_tensor way = bl_adam(g, f->step, f->beta1, f->beta2, f->eps, &f->m_out, &f->v_out);
    way = bl_add(way, bl_mul(f->weight_decay, f->w));
    f->w_out = bl_sub(f->w, bl_mul(f->lr, way));
}

/* --- mutual information ----------------------------------------------------------------------- */

#define QLAE_MI_DISCRETE(IN, OPT, OUT)                                                             \
    IN(a, "i32[N]", "rows > 0", "a discrete variable")                                             \
    IN(b, "i32[N]", "", "another")                                                                 \
    OUT(mi, "f32[]", "of their joint frequencies, in nats")

BL_HOST(qlae_mi_discrete, QLAE_MI_DISCRETE, "mutual information of two discrete variables")
{
    double mi;
    BL_TRY(bl_mutual_information(bl_i32(&f->a), bl_i32(&f->b), bl_array_count(&f->a), &mi));
    bl_array_set(&f->mi, 0, mi);
    return BL_OK;
}

#define QLAE_NMI(IN, OPT, OUT)                                                                     \
    IN(sources, "i32[N,S]", "rows > 0", "known factors")                                           \
    IN(latents, "i32[N,L]", "", "quantised codes, as indices")                                     \
    OUT(nmi, "f32[S,L]", "mutual information of source and latent, by the source's entropy")

/* Columns one after another: [columns,N]. */
static bl_status columns_of(const bl_array *x, int32_t **out)
{
    int64_t rows = x->type.shape.dim[0], columns = x->type.shape.dim[1];
    size_t bytes = (size_t)(rows * columns + 1) * sizeof(int32_t);
    *out = bl_alloc(bytes);
    if (!*out)
        return bl_no_memory(bytes);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            (*out)[j * rows + i] = bl_i32(x)[i * columns + j];
    return BL_OK;
}

/* nmi[S,L] of sources[S,N] and latents[L,N]. */
static bl_status fill_nmi(bl_array *nmi, const int32_t *sources, const int32_t *latents, int64_t N)
{
    int64_t S = nmi->type.shape.dim[0], L = nmi->type.shape.dim[1];
    for (int64_t s = 0; s < S; s++) {
        const int32_t *source = sources + s * N;
        double entropy, mi;
        BL_TRY(bl_mutual_information(source, source, N, &entropy));
        if (!(entropy > 0))
            return bl_fail(BL_INVALID, "source %lld is constant, expected at least two values",
                           (long long)s);
        for (int64_t l = 0; l < L; l++) {
            BL_TRY(bl_mutual_information(source, latents + l * N, N, &mi));
            bl_array_set(nmi, s * L + l, mi / entropy);
        }
    }
    return BL_OK;
}

BL_HOST(qlae_nmi, QLAE_NMI, "how much of each source each latent tells")
{
    int32_t *sources, *latents;
    BL_TRY(columns_of(&f->sources, &sources));
    bl_status status = columns_of(&f->latents, &latents);
    if (status == BL_OK)
        status = fill_nmi(&f->nmi, sources, latents, f->sources.type.shape.dim[0]);
    bl_release(sources);
    bl_release(latents);
    return status;
}

#define QLAE_MI_KNN(IN, OPT, OUT)                                                                  \
    IN(x, "f32[N]", "rows > 0", "a latent")                                                        \
    IN(y, "i32[N]", "", "a source")                                                                \
    OPT(k, 10, ">= 1", "neighbours within the class")                                              \
    OUT(mi, "f32[]", "in nats, at least 0")

BL_HOST(qlae_mi_knn, QLAE_MI_KNN, "mutual information of a number and a class (Ross 2014)")
{
    int64_t N = bl_array_count(&f->x);
    double mi = 0, *x = bl_alloc((size_t)N * sizeof *x);
    if (!x)
        return bl_no_memory((size_t)N * sizeof *x);
    bool finite = true;
    for (int64_t i = 0; i < N; i++) {
        x[i] = (double)bl_f32(&f->x)[i];
        finite = finite && isfinite(x[i]);
    }
    bl_status status = bl_mutual_information_nearest(x, bl_i32(&f->y), N, f->k, &mi);
    bl_release(x);
    if (status == BL_OK && isnan(mi))
        return bl_fail(BL_INVALID,
                       "y has no value twice, expected a class of at least two samples");
    bl_array_set(&f->mi, 0, finite ? mi : (double)NAN);
    return status;
}

/* --- InfoMEC ---------------------------------------------------------------------------------- */

#define QLAE_ACTIVE(IN, OPT, OUT)                                                                  \
    IN(latents, "f32[N,L]", "rows > 0", "codes")                                                   \
    OPT(discrete, 0, "flag", "codes are quantised: any that varies is active")                     \
    OPT(divisor, 20.0, "(0,inf)", "else: those that vary by more than the widest range over it")   \
    OUT(active, "i32[L]", "1 where the latent is in use")

BL_HOST(qlae_active, QLAE_ACTIVE, "which latents are in use")
{
    int64_t N = f->latents.type.shape.dim[0], L = f->latents.type.shape.dim[1];
    double widest = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t l = 0; l < L; l++) {
            double low = INFINITY, high = -INFINITY;
            for (int64_t i = 0; i < N; i++) {
                low = fmin(low, (double)bl_f32(&f->latents)[i * L + l]);
                high = fmax(high, (double)bl_f32(&f->latents)[i * L + l]);
            }
            if (pass == 0)
                widest = fmax(widest, high - low);
            else
                bl_i32(&f->active)[l] = high - low > (f->discrete ? 0 : widest / f->divisor);
        }
    }
    return BL_OK;
}

#define QLAE_INFOMEC(IN, OPT, OUT)                                                                 \
    IN(nmi, "f32[S,L]", "", "of qlae_nmi")                                                         \
    IN(active, "i32[L]", "in {0,1}", "of qlae_active")                                             \
    OUT(infom, "f32[]", "modularity: a latent tells of one source only; 1 is best")                \
    OUT(infoc, "f32[]", "compactness: a source is told by one latent only; 1 is best")

/* Adds up what share of its sum the largest entry has, over active columns or over rows; only
 * active columns count. */
static bl_status sum_of_shares(const bl_array *nmi, const int32_t *active, bool of_columns,
                               double *shares)
{
    int64_t S = nmi->type.shape.dim[0], L = nmi->type.shape.dim[1];
    *shares = 0;
    for (int64_t line = 0; line < (of_columns ? L : S); line++) {
        double most = -INFINITY, sum = 0;
        if (of_columns && !active[line])
            continue;
        for (int64_t i = 0; i < (of_columns ? S : L); i++) {
            int64_t s = of_columns ? i : line, l = of_columns ? line : i;
            if (!active[l])
                continue;
            most = fmax(most, (double)bl_f32(nmi)[s * L + l]);
            sum += (double)bl_f32(nmi)[s * L + l];
        }
        if (sum == 0)
            return bl_fail(BL_INVALID, "%s %lld of nmi sums to 0, expected information",
                           of_columns ? "active column" : "row", (long long)line);
        *shares += most / sum;
    }
    return BL_OK;
}

/* The mean of shares, from where all of `parts` entries are equal, 0, to where one is all, 1. */
static double above_even(double shares, int64_t lines, int64_t parts)
{
    double even = 1 / (double)parts;
    return (shares / (double)lines - even) / (1 - even);
}

BL_HOST(qlae_infomec, QLAE_INFOMEC, "modularity and compactness of a code")
{
    int64_t S = f->nmi.type.shape.dim[0], A = 0;
    double columns, rows;
    for (int64_t l = 0; l < bl_array_count(&f->active); l++)
        A += bl_i32(&f->active)[l];
    if (S < 2 || A < 2)
        return bl_fail(BL_INVALID,
                       "nmi has %lld sources and %lld active latents, expected at least 2 of each",
                       (long long)S, (long long)A);
    BL_TRY(sum_of_shares(&f->nmi, bl_i32(&f->active), true, &columns));
    BL_TRY(sum_of_shares(&f->nmi, bl_i32(&f->active), false, &rows));
    bl_array_set(&f->infom, 0, above_even(columns, A, S));
    bl_array_set(&f->infoc, 0, above_even(rows, S, A));
    return BL_OK;
}

#define QLAE_PREDICTIVE_ENTROPY(IN, OPT, OUT)                                                      \
    IN(features, "f32[N,F]", "rows > 0", "codes: one-hot indices, or standardised numbers")        \
    IN(labels, "i32[N]", "0 <= . < classes", "a source")                                           \
    OPT(classes, BL_REQUIRED_INTEGER, ">= 1", "values that the source has")                        \
    OUT(log_loss, "f32[]", "mean of -log p(label)")

/* N / (classes n_class) for each sample. */
static void balance(const int32_t *label, int64_t N, int64_t classes, int64_t *count,
                    double *weight)
{
    for (int64_t i = 0; i < N; i++)
        count[label[i]]++;
    for (int64_t i = 0; i < N; i++)
        weight[i] = (double)N / ((double)classes * (double)count[label[i]]);
}

BL_HOST(qlae_predictive_entropy, QLAE_PREDICTIVE_ENTROPY,
        "what a balanced logistic regression leaves unknown of a source, in nats")
{
    int64_t N = f->features.type.shape.dim[0], F = f->features.type.shape.dim[1], C = f->classes;
    size_t coefficients = (size_t)(F + 1) * (size_t)C;
    size_t bytes =
        ((size_t)(N * F + N) + coefficients) * sizeof(double) + (size_t)C * sizeof(int64_t);
    double *feature = bl_alloc(bytes), log_loss = 0;
    if (!feature)
        return bl_no_memory(bytes);
    double *weight = feature + N * F, *coefficient = weight + N;
    const int32_t *label = bl_i32(&f->labels);
    for (int64_t i = 0; i < N * F; i++)
        feature[i] = (double)bl_f32(&f->features)[i];
    balance(label, N, C, (int64_t *)(coefficient + coefficients), weight);
    bl_status status =
        bl_logistic_regression(feature, label, weight, N, F, C, coefficient, &log_loss);
    bl_array_set(&f->log_loss, 0, log_loss);
    bl_release(feature);
    return status;
}

#define QLAE_INFOE(IN, OPT, OUT)                                                                   \
    IN(h_conditional, "f32[S]", "rows > 0", "qlae_predictive_entropy of each source")              \
    IN(h_null, "f32[S]", "> 0", "without features: log of the number of classes")                  \
    OUT(infoe, "f32[]", "mean of (h_null - h_conditional) / h_null")

BL_CONTRACT(qlae_infoe, QLAE_INFOE, "explicitness: how simply sources are read from a code")
{
    f->infoe = bl_mean(bl_div(bl_sub(f->h_null, f->h_conditional), f->h_null));
}

const bl_method bl_qlae = {
    .slug = "qlae",
    .family = "generative",
    .paper = "Hsu et al. 2023, arXiv 2305.18378",
    .summary = "(no arm) codes whose numbers each stand for one factor, and scores of such codes",
    .when = "An autoencoder shall separate the factors that made its data, without labels; or any "
            "code is to be scored against labelled factors. Quantizing is nearly free.",
    .functions = {&qlae_quantize_contract, &qlae_loss_contract, &qlae_adamw_step_contract,
                  &qlae_infomec_contract, &qlae_nmi_contract, &qlae_mi_discrete_contract,
                  &qlae_mi_knn_contract, &qlae_active_contract, &qlae_predictive_entropy_contract,
                  &qlae_infoe_contract},
    .example = "ballast show qlae_quantize",
};
