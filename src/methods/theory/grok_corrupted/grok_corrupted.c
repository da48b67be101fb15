/* To grok or not to grok. Doshi et al., ICLR 2024, arXiv 2310.13061. A two-layer network with a
 * quadratic activation learns addition modulo p while a share of the labels is random. What
 * generalises is periodic, so a neuron's Fourier spectrum tells whether it generalises or
 * memorises. Here are the corrupted table, the network, the spectra's concentration, pruning by it,
 * and the solution in closed form.
 *
 * As in the authors' code dropout acts before the square, batch normalisation after it, and the
 * loss is a mean over classes too. U and V are [N,p], W is [p,N]; there are no biases. */
#include "methods/method.h"

#define GROK_CORRUPTED_DATASET(IN, OPT, OUT)                                                       \
    IN(perm, "i32[Q]", "permutation", "order of the pairs; q stands for (q div p, q mod p)")       \
    IN(random_labels, "i32[Q]", "0 <= . < p",                                                      \
       "uniform draws, of which the first n_noise are used")                                       \
    OPT(p, 97, ">= 2", "modulus")                                                                  \
    OPT(op, "add", "add|mul", "what is learnt, modulo p")                                          \
    OPT(train_frac, 0.5, "(0,1)", "share of the pairs to train on")                                \
    OPT(noise, 0.0, "[0,1]", "share of those whose label is random")                               \
    OUT(pairs, "i32[Q,2]", "operands, the training pairs first")                                   \
    OUT(label, "i32[Q]", "given class")                                                            \
    OUT(clean, "i32[Q]", "true class")                                                             \
    OUT(corrupted, "u8[Q]", "1 where the label is random, even if it is true")                     \
    OUT(n_train, "i32[]", "floor(train_frac p^2)")                                                 \
    OUT(n_noise, "i32[]", "floor(noise n_train)")

BL_HOST(grok_corrupted_dataset, GROK_CORRUPTED_DATASET, "a table of sums, partly wrong")
{
    int64_t p = f->p, count = f->perm.type.shape.dim[0];
    if (p > 30000 || count != p * p)
        return bl_fail(BL_INVALID, "perm has %lld entries, expected p^2 (p is %lld)",
                       (long long)count, (long long)p);
    double train = floor(f->train_frac * (double)count), noise = floor(f->noise * train);
    if (train < 1 || train >= (double)count)
        return bl_fail(BL_INVALID,
                       "option train_frac is %g, expected at least one of %lld pairs on each side",
                       f->train_frac, (long long)count);
    bool adds = bl_is(f->op, "add");
    for (int64_t i = 0; i < count; i++) {
        int64_t a = bl_i32(&f->perm)[i] / p, b = bl_i32(&f->perm)[i] % p;
        bool random = (double)i < noise;
        bl_i32(&f->pairs)[2 * i] = (int32_t)a;
        bl_i32(&f->pairs)[2 * i + 1] = (int32_t)b;
        bl_i32(&f->clean)[i] = (int32_t)((adds ? a + b : a * b) % p);
        bl_i32(&f->label)[i] = random ? bl_i32(&f->random_labels)[i] : bl_i32(&f->clean)[i];
        bl_u8(&f->corrupted)[i] = random;
    }
    bl_array_set(&f->n_train, 0, train);
    bl_array_set(&f->n_noise, 0, noise);
    return BL_OK;
}

/* --- the network ------------------------------------------------------------------------------ */

/* U[k,m_b] + V[k,n_b], [B,N]. */
static bl_tensor before_square(bl_tensor pairs, bl_tensor u, bl_tensor v)
{
    bl_tensor m = bl_pick(pairs, 1, 0);
    bl_tensor n = bl_pick(pairs, 1, 1);
    return bl_add(bl_take(bl_transpose(u), m), bl_take(bl_transpose(v), n));
}

/* mean over examples and classes of (z - onehot(y))^2 */
static bl_tensor square_loss(bl_tensor z, bl_tensor y)
{
    return bl_mean(bl_square(bl_sub(z, bl_onehot(y, bl_dim(z, 1), BL_F32))));
}

#define GROK_CORRUPTED_MLP(IN, OPT, OUT)                                                           \
    IN(pairs, "i32[B,2]", "rows > 0, 0 <= . < p", "operands")                                      \
    IN(y, "i32[B]", "0 <= . < p", "class of each pair")                                            \
    IN(U, "f32[N,p]", "grad", "first layer, left operand")                                         \
    IN(V, "f32[N,p]", "grad", "first layer, right operand")                                        \
    IN(W, "f32[p,N]", "grad", "second layer")                                                      \
    IN(drop, "f32[B,N]", "optional, in {0,1}", "1 where a neuron is kept")                         \
    OPT(rate, 0.0, "[0,1)", "share dropped; without drop it is not used")                          \
    OUT(loss, "f32[]", "mean over examples and classes of (z - onehot)^2")                         \
    OUT(z, "f32[B,p]", "W pre^2")

BL_CONTRACT(grok_corrupted_mlp, GROK_CORRUPTED_MLP, "the network with a quadratic activation")
{
    bl_tensor pre = before_square(f->pairs, f->U, f->V);
    if (!bl_is_number(f->drop))
        pre = bl_mul(pre, bl_div(f->drop, bl_sub(1, f->rate)));
    f->z = bl_dot(bl_square(pre), f->W, false, true);
    f->loss = square_loss(f->z, f->y);
}

#define GROK_CORRUPTED_BN_MLP(IN, OPT, OUT)                                                        \
    IN(pairs, "i32[B,2]", "rows > 0, 0 <= . < p", "operands")                                      \
    IN(y, "i32[B]", "0 <= . < p", "class of each pair")                                            \
    IN(U, "f32[N,p]", "grad", "first layer, left operand")                                         \
    IN(V, "f32[N,p]", "grad", "first layer, right operand")                                        \
    IN(W, "f32[p,N]", "grad", "second layer")                                                      \
    IN(gamma, "f32[N]", "grad", "scale")                                                           \
    IN(beta, "f32[N]", "grad", "shift")                                                            \
    IN(run_mean, "f32[N]", "", "running mean")                                                     \
    IN(run_var, "f32[N]", ">= 0", "running variance")                                              \
    OPT(train, 1, "flag", "normalise with the batch; false: with the running statistics")          \
    OPT(momentum, 0.1, "[0,1]", "share of the batch in the running statistics")                    \
    OPT(eps, 1e-5, "(0,inf)", "added to the variance")                                             \
    OUT(loss, "f32[]", "mean over examples and classes of (z - onehot)^2")                         \
    OUT(z, "f32[B,p]", "W batchnorm(pre^2)")                                                       \
    OUT(run_mean_out, "f32[N]", "running mean after the batch")                                    \
    OUT(run_var_out, "f32[N]", "running variance after the batch, from the unbiased one")

static bl_tensor moved(bl_tensor from, bl_tensor to, bl_tensor share)
{
    return bl_add(bl_mul(bl_sub(1, share), from), bl_mul(share, bl_stop_gradient(to)));
}

BL_CONTRACT(grok_corrupted_bn_mlp, GROK_CORRUPTED_BN_MLP,
            "the network with batch normalisation after the square")
{
    bl_tensor a = bl_square(before_square(f->pairs, f->U, f->V));
    bl_tensor mean = bl_stop_gradient(f->run_mean), variance = bl_stop_gradient(f->run_var);
    double rows = (double)bl_dim(a, 0);
    if (f->train && rows < 2) {
        f->z = bl_poison(graph, "pairs has 1 row, expected at least 2 to normalise with a batch");
        return;
    }
    f->run_mean_out = mean;
    f->run_var_out = variance;
    if (f->train) {
        mean = bl_mean(a, 0);
        variance = bl_variance(a, 0);
        f->run_mean_out = moved(f->run_mean_out, mean, f->momentum);
        f->run_var_out = moved(f->run_var_out, bl_mul(variance, rows / (rows - 1)), f->momentum);
    }
    bl_tensor unit = bl_mul(bl_sub(a, mean), bl_rsqrt(bl_add(variance, f->eps)));
    bl_tensor h = bl_add(bl_mul(unit, f->gamma), f->beta);
    f->z = bl_dot(h, f->W, false, true);
    f->loss = square_loss(f->z, f->y);
}

/* --- spectra ---------------------------------------------------------------------------------- */

#define GROK_CORRUPTED_IPR(IN, OPT, OUT)                                                           \
    IN(U, "f32[N,p]", "grad", "first layer, left operand")                                         \
    IN(V, "f32[N,p]", "grad", "first layer, right operand")                                        \
    IN(W, "f32[p,N]", "grad", "second layer")                                                      \
    OPT(r, 2, ">= 1", "power")                                                                     \
    OUT(ipr_u, "f32[N]", "of the rows of U")                                                       \
    OUT(ipr_v, "f32[N]", "of the rows of V")                                                       \
    OUT(ipr_w, "f32[N]", "of the columns of W")                                                    \
    OUT(ipr, "f32[N]", "their mean")

/* 2 pi (i j mod p) / p for i < p and frequencies j <= p/2, [p,p/2+1]. */
static bl_tensor angles(bl_graph *graph, int64_t p)
{
    bl_shape shape = BL_SHAPE(p, p / 2 + 1);
    bl_tensor i = bl_iota(graph, BL_F64, shape, 0), j = bl_iota(graph, BL_F64, shape, 1);
    return bl_mul(bl_rem(bl_mul(i, j), (double)p), 2 * M_PI / (double)p);
}

/* sum_j (|f_j| / |f|)^(2r) with f the half spectrum of each row. Powers of |f_j|^2 alone: what is
 * exactly 0 has gradient 0. */
static bl_tensor concentration(bl_graph *graph, bl_tensor rows, int64_t r)
{
    bl_tensor x = bl_cast(rows, BL_F64), angle = angles(graph, bl_dim(rows, 1));
    bl_tensor real = bl_dot(x, bl_cos(angle), false, false);
    bl_tensor imaginary = bl_dot(x, bl_sin(angle), false, false);
    bl_tensor power = bl_add(bl_square(real), bl_square(imaginary));
    bl_tensor total = bl_sum_keep(power, -1), some = bl_gt(total, 0);
    bl_tensor share = bl_select(some, bl_div(power, bl_select(some, total, 1)), 0);
    return bl_cast(bl_sum(bl_pow(share, (double)r), -1), BL_F32);
}

BL_CONTRACT(grok_corrupted_ipr, GROK_CORRUPTED_IPR,
            "how few frequencies a neuron has: inverse participation ratio")
{
    f->ipr_u = concentration(graph, f->U, f->r);
    f->ipr_v = concentration(graph, f->V, f->r);
    f->ipr_w = concentration(graph, bl_transpose(f->W), f->r);
    f->ipr = bl_div(bl_add(bl_add(f->ipr_u, f->ipr_v), f->ipr_w), 3);
}

#define GROK_CORRUPTED_PRUNE(IN, OPT, OUT)                                                         \
    IN(U, "f32[N,p]", "", "first layer, left operand")                                             \
    IN(V, "f32[N,p]", "", "first layer, right operand")                                            \
    IN(W, "f32[p,N]", "", "second layer")                                                          \
    IN(ipr, "f32[N]", "", "what neurons are chosen by")                                            \
    OPT(n_prune, BL_REQUIRED_INTEGER, ">= 0", "neurons to remove, up to all N")                    \
    OPT(order, "low", "low|high", "which go first; of equals the lower index")                     \
    OUT(U_out, "f32[N,p]", "rows zero where pruned")                                               \
    OUT(V_out, "f32[N,p]", "rows zero where pruned")                                               \
    OUT(W_out, "f32[p,N]", "columns zero where pruned")                                            \
    OUT(keep, "u8[N]", "0 where pruned")

BL_CONTRACT(grok_corrupted_prune, GROK_CORRUPTED_PRUNE, "removes neurons by their spectra")
{
    if (f->n_prune > bl_dim(f->ipr, 0)) {
        f->keep = bl_poison(graph, "option n_prune is %lld, expected at most the neurons (%lld)",
                            (long long)f->n_prune, (long long)bl_dim(f->ipr, 0));
        return;
    }
    bl_tensor order = bl_argsort(f->ipr, 0, bl_is(f->order, "high"));
    bl_tensor keep = bl_ge(bl_inverse_permutation(order), (double)f->n_prune);
    bl_tensor rows = bl_expand(keep, 1);
    f->U_out = bl_select(rows, f->U, 0);
    f->V_out = bl_select(rows, f->V, 0);
    f->W_out = bl_select(bl_expand(keep, 0), f->W, 0);
    f->keep = bl_cast(keep, BL_U8);
}

#define GROK_CORRUPTED_ANALYTIC(IN, OPT, OUT)                                                      \
    IN(sigma, "i32[N]", "rows > 0, 1 <= . <= p", "frequency of each neuron, at most (p-1)/2")      \
    IN(phi_u, "f32[N]", "", "phase of the left operand")                                           \
    IN(phi_v, "f32[N]", "", "phase of the right operand")                                          \
    OPT(p, 97, ">= 3", "modulus")                                                                  \
    OUT(U, "f32[N,p]", "A cos(2 pi sigma i/p + phi_u), A = (2/N)^(1/3)")                           \
    OUT(V, "f32[N,p]", "A cos(2 pi sigma j/p + phi_v)")                                            \
    OUT(W, "f32[p,N]", "A cos(2 pi sigma q/p + phi_u + phi_v)")

BL_HOST(grok_corrupted_analytic, GROK_CORRUPTED_ANALYTIC, "a network that adds, in closed form")
{
    int64_t count = f->sigma.type.shape.dim[0], p = f->p;
    double a = cbrt(2 / (double)count);
    for (int64_t k = 0; k < count; k++) {
        int64_t sigma = bl_i32(&f->sigma)[k];
        if (sigma > (p - 1) / 2)
            return bl_fail(BL_INVALID,
                           "sigma[%lld] is %lld, expected 1 <= . <= (p-1)/2 (p is %lld)",
                           (long long)k, (long long)sigma, (long long)p);
        double u = (double)bl_f32(&f->phi_u)[k], v = (double)bl_f32(&f->phi_v)[k];
        for (int64_t i = 0; i < p; i++) {
            double angle = 2 * M_PI * (double)(sigma * i % p) / (double)p;
            bl_f32(&f->U)[k * p + i] = (float)(a * cos(angle + u));
            bl_f32(&f->V)[k * p + i] = (float)(a * cos(angle + v));
            bl_f32(&f->W)[i * count + k] = (float)(a * cos(angle + u + v));
        }
    }
    return BL_OK;
}

/* --- accuracies ------------------------------------------------------------------------------- */

#define GROK_CORRUPTED_ACCURACY(IN, OPT, OUT)                                                      \
    IN(z, "f32[B,p]", "", "outputs")                                                               \
    IN(label, "i32[B]", "0 <= . < p", "given class")                                               \
    IN(clean, "i32[B]", "0 <= . < p", "true class")                                                \
    IN(corrupted, "u8[B]", "in {0,1}", "1 where the label is random")                              \
    OUT(acc, "f32[]", "share of all that follow the label")                                        \
    OUT(acc_uncorrupted, "f32[]", "the same of those with a true label")                           \
    OUT(acc_corrupted, "f32[]", "the same of those with a random label: memorised")                \
    OUT(acc_corrected, "f32[]", "share of those that follow the truth: not misled")

/* The share of `subset` that is right; 0 if it is empty. */
static bl_tensor share_right(bl_tensor right, bl_tensor subset)
{
    bl_tensor hits = bl_sum(bl_cast(bl_and(right, subset), BL_F32));
    return bl_div(hits, bl_max(bl_sum(bl_cast(subset, BL_F32)), 1));
}

BL_CONTRACT(grok_corrupted_accuracy, GROK_CORRUPTED_ACCURACY, "what is memorised, what is learnt")
{
    bl_tensor guess = bl_argmax(f->z, -1), corrupted = bl_ne(f->corrupted, 0);
    bl_tensor given = bl_eq(guess, f->label), true_class = bl_eq(guess, f->clean);
    f->acc = share_right(given, bl_or(corrupted, bl_not(corrupted)));
    f->acc_uncorrupted = share_right(given, bl_not(corrupted));
    f->acc_corrupted = share_right(given, corrupted);
    f->acc_corrected = share_right(true_class, corrupted);
}

const bl_method bl_grok_corrupted = {
    .slug = "grok_corrupted",
    .family = "theory",
    .paper = "Doshi et al. 2024, arXiv 2310.13061",
    .summary = "(no arm) tells neurons that generalise from neurons that memorise",
    .when = "To see what a regulariser does to memorised labels, on arithmetic modulo p, where the "
            "solution is known.",
    .functions = {&grok_corrupted_ipr_contract, &grok_corrupted_prune_contract,
                  &grok_corrupted_dataset_contract, &grok_corrupted_mlp_contract,
                  &grok_corrupted_bn_mlp_contract, &grok_corrupted_analytic_contract,
                  &grok_corrupted_accuracy_contract},
    .example = "ballast show grok_corrupted_ipr",
};
