/* MaskSparsity. Jiang et al., Machine Intelligence Research 2023, arXiv 2201.06776. A network with
 * batch normalisation is made smaller by cutting channels with a small scale gamma. Which channels
 * will go is decided first; only their gammas are then pushed to zero, so that the channels which
 * stay train freely; then they are cut out, and the smaller network is fine-tuned.
 *
 * The penalty and its gradient are graph functions, for every step; masks, cutting and counting
 * happen between phases and are on the host. */
#include "methods/method.h"
#include "ballast/solve.h"

/* --- pushing the condemned gammas to zero ----------------------------------------------------- */

#define MS_PENALTY(IN, OPT, OUT)                                                                   \
    IN(gamma, "f32[S...]", "grad", "batch-norm scales")                                            \
    IN(pruned, "u8[S...]", "in {0,1}", "1: the channel will be cut")                               \
    OPT(s, 5e-4, "[0,inf)", "strength; the term is a sum over channels, no mean")                  \
    OPT(kind, "l1", "l1|l2", "sum of |gamma|, or of gamma^2 / 2")                                  \
    OUT(penalty, "f32[]", "s sum over pruned of |gamma|, or of gamma^2 / 2")

BL_CONTRACT(ms_penalty, MS_PENALTY, "what the gammas of the channels to be cut weigh")
{
    bl_tensor size = bl_is(f->kind, "l1") ? bl_abs(f->gamma) : bl_mul(0.5, bl_square(f->gamma));
    f->penalty = bl_mul(f->s, bl_sum(bl_select(bl_ne(f->pruned, 0), size, 0)));
}

#define MS_GRAD(IN, OPT, OUT)                                                                      \
    IN(gamma, "f32[C]", "", "batch-norm scales")                                                   \
    IN(grad, "f32[C]", "", "their gradient")                                                       \
    IN(pruned, "u8[C]", "in {0,1}", "1: the channel will be cut")                                  \
    OPT(s, 5e-4, "[0,inf)", "strength")                                                            \
    OPT(method, "l1", "l1|l2|smooth_l1", "smooth_l1 is linear where |gamma| < lr s")               \
    OPT(lr, 0.1, "(0,inf)", "the learning rate now; for smooth_l1")                                \
    OUT(grad_out, "f32[C]", "the gradient with the push added")

BL_CONTRACT(ms_grad, MS_GRAD, "the penalty as an edit of the gradient, before the optimiser")
{
    bl_tensor linear = bl_mul(f->s, f->gamma), push = bl_mul(f->s, bl_sign(f->gamma));
    if (bl_is(f->method, "l2"))
        push = linear;
    if (bl_is(f->method, "smooth_l1"))
        push = bl_select(bl_lt(bl_abs(f->gamma), bl_mul(f->lr, f->s)), linear, push);
    f->grad_out = bl_add(f->grad, bl_select(bl_ne(f->pruned, 0), push, 0));
}

/* --- which channels stay ---------------------------------------------------------------------- */

#define MS_CHANNEL_MASK(IN, OPT, OUT)                                                              \
    IN(gamma, "f32[C]", "rows > 0", "batch-norm scales of a layer")                                \
    OPT(method, "threshold", "threshold|energy|ratio", "how the threshold is found")               \
    OPT(value, (double)INFINITY, "",                                                               \
        "the threshold, or the share of energy or channels cut; inf: 0.01, 1e-4 or 0.5")           \
    OPT(min_channels, 1, ">= 0", "at least so many stay")                                          \
    OUT(keep, "u8[C]", "1: the channel stays, its |gamma| is above the threshold")                 \
    OUT(threshold, "f32[]", "the threshold")                                                       \
    OUT(n_keep, "i32[]", "channels that stay")

/* Half-way between the two sizes where the smallest gammas, in ascending order, reach the share
 * `value` of the sum of squares; 1, the whole layer, where all are tiny. */
static double energy_threshold(const double *g, const int64_t *order, int64_t channels,
                               double value)
{
    const double tiny = 1e-18;
    if (g[order[channels - 1]] < 1e-3)
        return 1;
    double total = 0, sum = 0;
    for (int64_t i = 0; i < channels; i++)
        total += pow(fmax(g[order[i]], tiny), 2);
    int64_t i = 0;
    for (; i < channels - 1; i++) {
        sum += pow(fmax(g[order[i]], tiny), 2);
        if (sum / total > value)
            break;
    }
    return i == 0 ? 0 : (fmax(g[order[i - 1]], tiny) + fmax(g[order[i]], tiny)) / 2;
}

static double ratio_threshold(const double *g, const int64_t *order, int64_t channels, double value)
{
    int64_t cut = (int64_t)floor(value * (double)channels);
    return cut == 0 ? -1 : g[order[cut - 1]];
}

/* Where too few pass, the `least` largest, ties to the lower channel. */
static void keep_largest(const double *g, int64_t channels, int64_t least, uint8_t *keep)
{
    memset(keep, 0, (size_t)channels);
    for (int64_t n = 0; n < least; n++) {
        int64_t best = -1;
        for (int64_t c = 0; c < channels; c++)
            if (!keep[c] && (best < 0 || g[c] > g[best]))
                best = c;
        keep[best] = 1;
    }
}

struct ms_channel_mask;
static bl_status channel_mask(struct ms_channel_mask *f, double value, double *g, int64_t *order);

BL_HOST(ms_channel_mask, MS_CHANNEL_MASK, "the channels of a layer that stay")
{
    double value = f->value;
    if (isinf(value) && value > 0)
        value = bl_is(f->method, "threshold") ? 0.01 : bl_is(f->method, "energy") ? 1e-4 : 0.5;
    if (bl_is(f->method, "ratio") && !(value >= 0 && value <= 1))
        return bl_fail(BL_INVALID, "option value is %g, expected [0,1] for ratio", value);
    int64_t channels = f->gamma.type.shape.dim[0];
    if (f->min_channels > channels)
        return bl_fail(BL_INVALID,
                       "option min_channels is %lld, expected at most %lld, the channels",
                       (long long)f->min_channels, (long long)channels);
    size_t bytes = (size_t)channels * (sizeof(double) + sizeof(int64_t));
    double *g = bl_alloc(bytes);
    if (!g)
        return bl_no_memory(bytes);
    bl_status status = channel_mask(f, value, g, (int64_t *)(g + channels));
    bl_release(g);
    return status;
}

static bl_status channel_mask(struct ms_channel_mask *f, double value, double *g, int64_t *order)
{
    int64_t channels = f->gamma.type.shape.dim[0], count = 0;
    for (int64_t c = 0; c < channels; c++)
        g[c] = fabs((double)bl_f32(&f->gamma)[c]);
    BL_TRY(bl_ascending_order(g, channels, order));
    double threshold = value;
    if (bl_is(f->method, "energy"))
        threshold = energy_threshold(g, order, channels, value);
    if (bl_is(f->method, "ratio"))
        threshold = ratio_threshold(g, order, channels, value);
    uint8_t *keep = bl_u8(&f->keep);
    for (int64_t c = 0; c < channels; c++)
        count += keep[c] = g[c] > threshold;
    if (count < f->min_channels) {
        keep_largest(g, channels, f->min_channels, keep);
        count = f->min_channels;
    }
    bl_array_set(&f->threshold, 0, threshold);
    bl_array_set(&f->n_keep, 0, (double)count);
    return BL_OK;
}

#define MS_GROUP_MASK(IN, OPT, OUT)                                                                \
    IN(keep, "u8[G,C]", "in {0,1}, rows > 0", "masks of layers that are added up")                 \
    OUT(keep_shared, "u8[C]", "one mask for all of them")                                          \
    OUT(votes_needed, "i32[]", "layers that must want a channel cut")

struct ms_group_mask;
static int64_t votes(const struct ms_group_mask *f, int64_t channel);

/* Channels that all layers condemn go first, then those of fewer, until as many are cut as the most
 * careful layer wanted. */
BL_HOST(ms_group_mask, MS_GROUP_MASK, "one mask for layers that add into the same tensor")
{
    int64_t layers = f->keep.type.shape.dim[0], channels = f->keep.type.shape.dim[1];
    const uint8_t *keep = bl_u8(&f->keep);
    int64_t least = channels;
    for (int64_t g = 0; g < layers; g++) {
        int64_t cut = 0;
        for (int64_t c = 0; c < channels; c++)
            cut += !keep[g * channels + c];
        least = cut < least ? cut : least;
    }
    int64_t need = layers;
    for (; need > 1; need--) {
        int64_t cut = 0;
        for (int64_t c = 0; c < channels; c++)
            cut += votes(f, c) >= need;
        if (cut >= least)
            break;
    }
    for (int64_t c = 0; c < channels; c++)
        bl_u8(&f->keep_shared)[c] = votes(f, c) < need;
    bl_array_set(&f->votes_needed, 0, (double)need);
    return BL_OK;
}

static int64_t votes(const struct ms_group_mask *f, int64_t channel)
{
    int64_t layers = f->keep.type.shape.dim[0], channels = f->keep.type.shape.dim[1], sum = 0;
    for (int64_t g = 0; g < layers; g++)
        sum += !bl_u8(&f->keep)[g * channels + channel];
    return sum;
}

/* --- cutting ---------------------------------------------------------------------------------- */

#define MS_PRUNE_PAIR(IN, OPT, OUT)                                                                \
    IN(w1, "f32[O,S...]", "", "filters into the channels, output channel first")                   \
    IN(gamma, "f32[O]", "", "batch norm between the two: scale")                                   \
    IN(beta, "f32[O]", "", "shift")                                                                \
    IN(mean, "f32[O]", "", "running mean")                                                         \
    IN(var, "f32[O]", "", "running variance")                                                      \
    IN(w2, "f32[P,O,K...]", "", "filters out of the channels")                                     \
    IN(b2, "f32[P]", "", "their biases")                                                           \
    IN(keep, "u8[O]", "in {0,1}", "1: the channel stays")                                          \
    OPT(absorb, 0, "flag", "what a cut channel gives at gamma 0, relu(beta), goes into b2")        \
    OUT(w1, "f32[?,S...]", "rows of kept channels")                                                \
    OUT(gamma, "f32[?]", "kept entries")                                                           \
    OUT(beta, "f32[?]", "kept entries")                                                            \
    OUT(mean, "f32[?]", "kept entries")                                                            \
    OUT(var, "f32[?]", "kept entries")                                                             \
    OUT(w2, "f32[P,?,K...]", "columns of kept channels")                                           \
    OUT(b2, "f32[P]", "biases")

/* x without the entries of `axis`, 0 or 1, that are not kept. */
static bl_status cut(const bl_array *x, int axis, const bl_array *keep, bl_array *out)
{
    bl_type type = x->type;
    int64_t channels = type.shape.dim[axis], kept = 0;
    for (int64_t c = 0; c < channels; c++)
        kept += bl_u8(keep)[c];
    int64_t outer = axis ? type.shape.dim[0] : 1, inner = 1;
    for (int i = axis + 1; i < type.shape.rank; i++)
        inner *= type.shape.dim[i];
    type.shape.dim[axis] = kept;
    BL_TRY(bl_array_new(type.dtype, type.shape, out));
    float *to = bl_f32(out);
    for (int64_t i = 0; i < outer * channels; i++)
        if (bl_u8(keep)[i % channels])
            for (int64_t j = 0; j < inner; j++)
                *to++ = bl_f32(x)[i * inner + j];
    return BL_OK;
}

struct ms_prune_pair;
static void absorb_constants(struct ms_prune_pair *f);

BL_HOST_APART(ms_prune_pair, MS_PRUNE_PAIR, "cuts channels out of [w1, batch norm, relu, w2]")
{
    int64_t channels = f->keep.type.shape.dim[0], kept = 0;
    for (int64_t c = 0; c < channels; c++)
        kept += bl_u8(&f->keep)[c];
    if (kept == 0)
        return bl_fail(BL_INVALID, "keep has no 1, expected at least one channel that stays");
    memcpy(f->out_b2.data, f->b2.data, bl_type_bytes(f->b2.type));
    if (f->absorb)
        absorb_constants(f);
    BL_TRY(cut(&f->w1, 0, &f->keep, &f->out_w1));
    BL_TRY(cut(&f->gamma, 0, &f->keep, &f->out_gamma));
    BL_TRY(cut(&f->beta, 0, &f->keep, &f->out_beta));
    BL_TRY(cut(&f->mean, 0, &f->keep, &f->out_mean));
    BL_TRY(cut(&f->var, 0, &f->keep, &f->out_var));
    return cut(&f->w2, 1, &f->keep, &f->out_w2);
}

/* b2_p += sum over cut c and places of w2[p,c,..] relu(beta_c) */
static void absorb_constants(struct ms_prune_pair *f)
{
    int64_t filters = f->w2.type.shape.dim[0], channels = f->w2.type.shape.dim[1], places = 1;
    for (int i = 2; i < f->w2.type.shape.rank; i++)
        places *= f->w2.type.shape.dim[i];
    for (int64_t p = 0; p < filters; p++) {
        double sum = (double)bl_f32(&f->b2)[p];
        for (int64_t c = 0; c < channels; c++) {
            double constant = (double)bl_f32(&f->beta)[c];
            if (bl_u8(&f->keep)[c] || constant <= 0)
                continue;
            for (int64_t i = 0; i < places; i++)
                sum += constant * (double)bl_f32(&f->w2)[(p * channels + c) * places + i];
        }
        bl_f32(&f->out_b2)[p] = (float)sum;
    }
}

/* --- what was saved --------------------------------------------------------------------------- */

#define MS_FLOPS(IN, OPT, OUT)                                                                     \
    IN(c_in, "i32[L]", ">= 0", "input channels of each layer")                                     \
    IN(c_out, "i32[L]", ">= 0", "output channels")                                                 \
    IN(kh, "i32[L]", ">= 0", "filter rows")                                                        \
    IN(kw, "i32[L]", ">= 0", "filter columns")                                                     \
    IN(oh, "i32[L]", ">= 0", "output rows")                                                        \
    IN(ow, "i32[L]", ">= 0", "output columns")                                                     \
    IN(keep_in, "i32[L]", ">= 0", "input channels that stay")                                      \
    IN(keep_out, "i32[L]", ">= 0", "output channels that stay")                                    \
    OUT(flops_reduction, "f32[]", "share of multiplications saved")                                \
    OUT(params_reduction, "f32[]", "share of weights saved")

struct ms_flops;
static double layer_weights(const struct ms_flops *f, int64_t layer, bool after);

BL_HOST(ms_flops, MS_FLOPS, "shares of multiplications and weights that cutting saved")
{
    int64_t layers = f->c_in.type.shape.dim[0];
    double weights[2] = {0}, products[2] = {0};
    for (int64_t l = 0; l < layers; l++)
        for (int after = 0; after < 2; after++) {
            double n = layer_weights(f, l, after);
            weights[after] += n;
            products[after] += n * (double)bl_i32(&f->oh)[l] * (double)bl_i32(&f->ow)[l];
        }
    if (products[0] <= 0)
        return bl_fail(BL_INVALID, "the layers have no multiplications, expected some");
    bl_array_set(&f->flops_reduction, 0, 1 - products[1] / products[0]);
    bl_array_set(&f->params_reduction, 0, 1 - weights[1] / weights[0]);
    return BL_OK;
}

static double layer_weights(const struct ms_flops *f, int64_t layer, bool after)
{
    const bl_array *in = after ? &f->keep_in : &f->c_in, *out = after ? &f->keep_out : &f->c_out;
    return (double)bl_i32(in)[layer] * (double)bl_i32(out)[layer] * (double)bl_i32(&f->kh)[layer] *
           (double)bl_i32(&f->kw)[layer];
}

const bl_method bl_mask_sparsity = {
    .slug = "mask_sparsity",
    .family = "weights",
    .paper = "Jiang et al. 2023, arXiv 2201.06776",
    .summary = "(no arm) cuts channels whose scales alone were pushed to zero",
    .when = "A network with batch normalisation must become smaller, not merely sparse.",
    .functions = {&ms_penalty_contract, &ms_grad_contract, &ms_channel_mask_contract,
                  &ms_group_mask_contract, &ms_prune_pair_contract, &ms_flops_contract},
    .example = "ballast show ms_penalty",
};
