/* Self-tuning networks. MacKay, Vicol, Lorraine, Duvenaud, Grosse, ICLR 2019, arXiv 1903.03088.
 * One training run tunes its own regularisation. Every layer has a second set of weights whose
 * output is scaled, unit by unit, by a linear function of the hyper-parameters; training under
 * perturbed hyper-parameters teaches the layer its best response to them, and the validation loss
 * then has a gradient in the hyper-parameters through that response alone.
 *
 * lambda (`lam`) is unconstrained; `value` is what it stands for: a rate, a strength, a count. */
#include "methods/method.h"

/* --- gated layers ---------------------------------------------------------------------------- */

#define STN_HYPER_LINEAR(IN, OPT, OUT)                                                             \
    IN (x,   "f32[B,I]", "grad",           "inputs")                                               \
    IN (h,   "f32[B,H]", "grad, optional", "unconstrained hyper-parameters of each example; not "  \
                                           "given: a plain layer")                                 \
    IN (we,  "f32[O,I]", "grad",           "elementary weights")                                   \
    IN (wh,  "f32[O,I]", "grad, optional", "response weights; with h, as bh and v")                \
    IN (be,  "f32[O]",   "grad",           "elementary biases")                                    \
    IN (bh,  "f32[O]",   "grad, optional", "response biases")                                      \
    IN (v,   "f32[P,H]", "grad, optional", "P = 2 O: scales of weights, then of biases, per unit") \
    IN (s,   "f32[]",    "grad",           "scale of the elementary part; 1 freezes it")           \
    OUT(out, "f32[B,O]", "s (x we^T + be) + e_w (x wh^T) + e_b bh, e = h v^T")

/* The response to h [B,H]: e_w and e_b [B,O], the halves of h v^T. */
typedef struct response {
    bl_tensor weight, bias;
} response;

static response response_to(bl_tensor h, bl_tensor v, int64_t units)
{
    if (bl_is_number(h) || bl_is_number(v))
        return (response){h, h};
    if (bl_dim(v, 0) != 2 * units) {
        bl_tensor wrong =
            bl_poison(v.graph, "v has %lld rows, expected %lld: two for each of %lld units",
                      (long long)bl_dim(v, 0), (long long)(2 * units), (long long)units);
        return (response){wrong, wrong};
    }
    bl_tensor e = bl_dot(h, v, false, true);
    return (response){bl_slice_axis(e, 1, 0, units), bl_slice_axis(e, 1, units, 2 * units)};
}

/* Whether a layer responds at all; poison among its parts says what is missing. */
static bool responds(bl_graph *graph, bl_tensor h, bl_tensor wh, bl_tensor bh, bl_tensor v)
{
    if (bl_is_number(h))
        return false;
    const char *missing = bl_is_number(wh)   ? "wh"
                          : bl_is_number(bh) ? "bh"
                          : bl_is_number(v)  ? "v"
                                             : NULL;
    if (missing)
        (void)bl_poison(graph, "%s is not given, but h is: a layer that responds has wh, bh and v",
                        missing);
    return true;
}

BL_CONTRACT(stn_hyper_linear, STN_HYPER_LINEAR, "a dense layer that responds to hyper-parameters")
{
    bl_tensor plain = bl_mul(f->s, bl_linear(f->x, f->we, f->be));
    f->out = plain;
    if (responds(graph, f->h, f->wh, f->bh, f->v)) {
        response e = response_to(f->h, f->v, bl_dim(f->we, 0));
        bl_tensor weights = bl_mul(e.weight, bl_dot(f->x, f->wh, false, true));
        f->out = bl_add(plain, bl_add(weights, bl_mul(e.bias, f->bh)));
    }
}

#define STN_HYPER_CONV2D(IN, OPT, OUT)                                                             \
    IN (x,      "f32[B,Y,X,C]", "grad",           "images")                                        \
    IN (h,      "f32[B,H]",     "grad, optional", "unconstrained hyper-parameters of each example")\
    IN (we,     "f32[k,k,C,O]", "grad",           "elementary filters")                            \
    IN (wh,     "f32[k,k,C,O]", "grad, optional", "response filters")                              \
    IN (be,     "f32[O]",       "grad",           "elementary biases")                             \
    IN (bh,     "f32[O]",       "grad, optional", "response biases")                               \
    IN (v,      "f32[P,H]",     "grad, optional", "P = 2 O, as in stn_hyper_linear")               \
    IN (s,      "f32[]",        "grad",           "scale of the elementary part")                  \
    OPT(stride, 1,              ">= 1",           "")                                              \
    OPT(pad,    0,              ">= 0",           "zeros around the image")                        \
    OUT(out,    "f32[B,?,?,O]", "s (conv(x,we) + be) + e_w conv(x,wh) + e_b bh")

/* [B,O] over the pixels of [B,Y,X,O]. */
static bl_tensor over_pixels(bl_tensor e)
{
    return bl_expand(bl_expand(e, 1), 1);
}

BL_CONTRACT(stn_hyper_conv2d, STN_HYPER_CONV2D, "a convolution that responds to hyper-parameters")
{
    bl_conv_options options = {.stride = {f->stride, f->stride},
                               .low    = {f->pad, f->pad},
                               .high   = {f->pad, f->pad}};
    bl_tensor plain = bl_mul(f->s, bl_add(bl_conv(f->x, f->we, options), f->be));
    f->out = plain;
    if (responds(graph, f->h, f->wh, f->bh, f->v)) {
        response e = response_to(f->h, f->v, bl_dim(f->we, 3));
        bl_tensor weights = bl_mul(over_pixels(e.weight), bl_conv(f->x, f->wh, options));
        f->out = bl_add(plain, bl_add(weights, over_pixels(bl_mul(e.bias, f->bh))));
    }
}

#define STN_WEIGHT_SQNORM(IN, OPT, OUT)                                                            \
    IN (h,     "f32[B,H]", "grad", "unconstrained hyper-parameters of each example")               \
    IN (we,    "f32[O,I]", "grad", "elementary weights")                                           \
    IN (wh,    "f32[O,I]", "grad", "response weights")                                             \
    IN (v,     "f32[P,H]", "grad", "P = 2 O, as in stn_hyper_linear")                              \
    IN (s,     "f32[]",    "grad", "scale of the elementary part")                                 \
    OUT(norm2, "f32[B]",   "|s we + diag(e_w) wh|^2: of the weights that each example sees")

/* s^2 |we|^2 + 2 s sum_o e_o <we_o, wh_o> + sum_o e_o^2 |wh_o|^2 */
BL_CONTRACT(stn_weight_sqnorm, STN_WEIGHT_SQNORM, "squared norm of the effective weights")
{
    bl_tensor e      = response_to(f->h, f->v, bl_dim(f->we, 0)).weight;
    bl_tensor inner  = bl_sum(bl_mul(f->we, f->wh), 1), square = bl_sum(bl_square(f->wh), 1);
    bl_tensor linear = bl_mul(bl_mul(2, f->s), bl_mul(e, inner));
    bl_tensor plain  = bl_mul(bl_square(f->s), bl_sum(bl_square(f->we)));
    f->norm2 = bl_add(plain, bl_sum(bl_add(linear, bl_mul(bl_square(e), square)), 1));
}

/* --- hyper-parameters ------------------------------------------------------------------------ */

#define STN_PERTURB(IN, OPT, OUT)                                                                  \
    IN (lam,      "f32[H]",   "grad",           "unconstrained hyper-parameters")                  \
    IN (scale,    "f32[H]",   "grad",           "softplus(scale) is their standard deviation")     \
    IN (noise,    "f32[B,H]", "rows > 0",       "standard normal draws")                           \
    IN (lo,       "f32[H]",   "no NaN",         "lower bounds, -inf for none")                     \
    IN (hi,       "f32[H]",   "no NaN",         "upper bounds, inf for none")                      \
    IN (discrete, "i32[H]",   "in {0,1}",       "1: a whole number")                               \
    IN (shared,   "i32[H]",   "in {0,1}",       "1: the same for the whole batch")                 \
    OUT(u,        "f32[B,H]", "lam + softplus(scale) noise: what layers see")                      \
    OUT(value,    "f32[B,H]", "u between its bounds: what the hyper-parameter is")

static bl_status ordered(int64_t i, double low, double high)
{
    if (!(low < high))
        return bl_fail(BL_INVALID, "lo[%lld] is %g and hi[%lld] is %g, expected lo < hi",
                       (long long)i, low, (long long)i, high);
    return BL_OK;
}

/* Where lo and hi are given. */
static bl_status bounds_check(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    const bl_array *lo = bl_dictionary_find(in, "lo"), *hi = bl_dictionary_find(in, "hi");
    int64_t count = lo && hi ? bl_array_count(lo) : 0;
    for (int64_t i = 0; i < count; i++)
        BL_TRY(ordered(i, bl_array_get(lo, i), bl_array_get(hi, i)));
    return BL_OK;
}

/* Rows lam + softplus(scale) noise. */
static bl_tensor perturbed(bl_tensor lam, bl_tensor scale, bl_tensor noise)
{
    return bl_add(lam, bl_mul(bl_softplus(scale), noise));
}

/* (-inf,inf): u; (lo,inf): lo + softplus(u); (-inf,hi): hi - softplus(u); else between by a
 * sigmoid. Infinite bounds are replaced where they are not chosen, so that no gradient is infinity
 * times 0. */
static bl_tensor constrained(bl_tensor u, bl_tensor lo, bl_tensor hi)
{
    bl_tensor below = bl_isfinite(lo), above = bl_isfinite(hi);
    bl_tensor low   = bl_select(below, lo, 0), high = bl_select(above, hi, 0);
    bl_tensor both  = bl_add(low, bl_mul(bl_sub(high, low), bl_sigmoid(u)));
    bl_tensor from_below = bl_add(low, bl_softplus(u)), from_above = bl_sub(high, bl_softplus(u));
    return bl_select(below, bl_select(above, both, from_below), bl_select(above, from_above, u));
}

BL_CONTRACT_CHECKED(stn_perturb, STN_PERTURB,
                    "hyper-parameters around lam, and what they stand for", bounds_check)
{
    bl_tensor u = perturbed(f->lam, f->scale, f->noise);
    bl_tensor first = bl_slice_axis(u, 0, 0, 1);
    f->u = bl_select(bl_eq(f->shared, 1), first, u);
    bl_tensor value = constrained(f->u, f->lo, f->hi);
    bl_tensor whole = bl_stop_gradient(bl_floor(value));
    f->value = bl_select(bl_eq(f->discrete, 1), whole, value);
}

#define STN_UNCONSTRAIN(IN, OPT, OUT)                                                              \
    IN (value, "f32[H]", "",       "hyper-parameters, strictly between their bounds")              \
    IN (lo,    "f32[H]", "no NaN", "lower bounds, -inf for none")                                  \
    IN (hi,    "f32[H]", "no NaN", "upper bounds, inf for none")                                   \
    OUT(lam,   "f32[H]", "the lambda that stands for value")

/* The y with softplus(y) = x, log(e^x - 1), for x > 0 of any size. */
static double inverse_softplus(double x)
{
    return x + log(-expm1(-x));
}

BL_HOST(stn_unconstrain, STN_UNCONSTRAIN, "initial lambda of given hyper-parameters")
{
    int64_t count = bl_array_count(&f->value);
    for (int64_t i = 0; i < count; i++) {
        double x = bl_array_get(&f->value, i);
        double low = bl_array_get(&f->lo, i), high = bl_array_get(&f->hi, i);
        BL_TRY(ordered(i, low, high));
        if (!(low < x && x < high))
            return bl_fail(BL_INVALID,
                           "value[%lld] is %g, expected strictly between lo %g and hi %g",
                           (long long)i, x, low, high);
        bl_array_set(&f->lam, i,
                     isfinite(low) && isfinite(high) ? log((x - low) / (high - x))
                     : isfinite(low)                 ? inverse_softplus(x - low)
                     : isfinite(high)                ? inverse_softplus(high - x)
                                                     : x);
    }
    return BL_OK;
}

#define STN_ENTROPY(IN, OPT, OUT)                                                                  \
    IN (scale,   "f32[H]", "grad", "softplus(scale) is the standard deviation")                    \
    OUT(entropy, "f32[]",  "sum of log softplus(scale) + log(2 pi e) / 2")

/* log softplus(x); far below 0, where softplus(x) = e^x (1 - e^x / 2 + ..), it is x - e^x / 2. */
static bl_tensor log_softplus(bl_tensor x)
{
    bl_tensor far = bl_lt(x, -15), low = bl_select(far, x, -15);
    return bl_select(far, bl_sub(low, bl_mul(0.5, bl_exp(low))),
                     bl_log(bl_softplus(bl_select(far, 0, x))));
}

BL_CONTRACT(stn_entropy, STN_ENTROPY, "entropy of the perturbation")
{
    double one = 0.5 * log(2 * acos(-1) * exp(1));
    f->entropy = bl_sum(bl_add(log_softplus(f->scale), one));
}

#define STN_ROW_DROPOUT(IN, OPT, OUT)                                                              \
    IN (x,    "f32[B,S...]", "grad",             "activations")                                    \
    IN (rate, "f32[B]",      "[0,1)",            "share dropped of each example")                  \
    IN (u,    "f32[B,S...] | f32[B,C]", "",      "uniform draws: for each entry, or each channel " \
                                                 "(the last axis)")                                \
    OUT(out,  "f32[B,S...]", "x [u < 1 - rate] / (1 - rate)")

/* A vector over examples, or [B,C] over examples and channels, with axes of size 1 between. */
static bl_tensor over_entries(bl_tensor v, int rank)
{
    for (int axis = 1; bl_rank(v) < rank; )
        v = bl_expand(v, axis);
    return v;
}

static bl_tensor row_dropout(bl_tensor x, bl_tensor rate, bl_tensor u)
{
    bl_tensor keep = over_entries(bl_sub(1, bl_stop_gradient(rate)), bl_rank(x));
    bl_tensor draws = over_entries(u, bl_rank(x)), scale = bl_div(1, keep); /* one a row */
    return bl_select(bl_lt(draws, keep), bl_mul(x, scale), 0);
}

BL_CONTRACT(stn_row_dropout, STN_ROW_DROPOUT, "dropout with a rate for each example")
{
    bl_shape x = bl_type_of(f->x).shape, u = bl_type_of(f->u).shape;
    bool by_channel = x.rank > u.rank && x.dim[x.rank - 1] == u.dim[u.rank - 1];
    if (!by_channel && !bl_shape_equal(x, u)) {
        char got[BL_TYPE_TEXT], want[BL_TYPE_TEXT];
        f->out = bl_poison(graph, "u is %s, expected %s, or a draw for each example and channel",
                           bl_type_text(bl_type_of(f->u), got),
                           bl_type_text(bl_type_of(f->x), want));
        return;
    }
    f->out = row_dropout(f->x, f->rate, f->u);
}

/* --- the two objectives of a network of two layers ------------------------------------------- */

/* The layers' parameters: suffix 1, inputs to hidden; suffix 2, hidden to logits. */
#define STN_LAYERS(IN, conditions)                                                                 \
    IN (we1, "f32[M,I]", conditions, "elementary weights, inputs to hidden")                       \
    IN (wh1, "f32[M,I]", conditions, "response weights")                                           \
    IN (be1, "f32[M]",   conditions, "elementary biases")                                          \
    IN (bh1, "f32[M]",   conditions, "response biases")                                            \
    IN (v1,  "f32[P,H]", conditions, "P = 2 M")                                                    \
    IN (s1,  "f32[]",    conditions, "scale of the elementary part")                               \
    IN (we2, "f32[C,M]", conditions, "the same, hidden to logits")                                 \
    IN (wh2, "f32[C,M]", conditions, "")                                                           \
    IN (be2, "f32[C]",   conditions, "")                                                           \
    IN (bh2, "f32[C]",   conditions, "")                                                           \
    IN (v2,  "f32[Q,H]", conditions, "Q = 2 C")                                                    \
    IN (s2,  "f32[]",    conditions, "")

typedef struct gated {
    bl_tensor we, wh, be, bh, v, s;
} gated;

static bl_tensor gated_output(gated l, bl_tensor x, bl_tensor u)
{
    struct stn_hyper_linear f = {.x = x, .h = u, .we = l.we, .wh = l.wh, .be = l.be, .bh = l.bh,
                                 .v = l.v, .s = l.s};
    bl_call(stn_hyper_linear, &f);
    return f.out;
}

static bl_tensor gated_norm2(gated l, bl_tensor u)
{
    struct stn_weight_sqnorm f = {.h = u, .we = l.we, .wh = l.wh, .v = l.v, .s = l.s};
    bl_call(stn_weight_sqnorm, &f);
    return f.norm2;
}

static gated frozen(gated l)
{
    return (gated){bl_stop_gradient(l.we), bl_stop_gradient(l.wh), bl_stop_gradient(l.be),
                   bl_stop_gradient(l.bh), bl_stop_gradient(l.v),  bl_stop_gradient(l.s)};
}

#define STN_TRAIN_LOSS(IN, OPT, OUT)                                                               \
    IN (x,             "f32[B,I]", "rows > 0",   "training inputs")                                \
    IN (y,             "i32[B]",   "0 <= . < C", "their classes")                                  \
    IN (lam,           "f32[H]",   "",           "unconstrained hyper-parameters; constant here")  \
    IN (scale,         "f32[H]",   "",           "softplus(scale) is their standard deviation")    \
    IN (noise,         "f32[B,H]", "",           "standard normal draws")                          \
    IN (lo,            "f32[H]",   "no NaN",     "lower bounds, -inf for none")                    \
    IN (hi,            "f32[H]",   "no NaN",     "upper bounds, inf for none")                     \
    IN (u_drop,        "f32[B,M]", "",           "uniform draws of the hidden layer's dropout")    \
    STN_LAYERS(IN, "grad")                                                                         \
    OPT(layers,        2,          "[2,2]",      "of the network")                                 \
    OPT(dropout_index, 0,          ">= 0",       "which hyper-parameter is the dropout rate")      \
    OPT(l2_index,      1,          ">= 0",       "which is the weight of squared weights")         \
    OUT(loss,          "f32[]",    "cross-entropy + mean of value[l2] (norm2_1 + norm2_2)")

static bl_status train_check(const bl_dictionary *in, const void *options);

BL_CONTRACT_CHECKED(stn_train_loss, STN_TRAIN_LOSS,
                    "training loss under perturbed hyper-parameters; moves the layers only",
                    train_check)
{
    gated one = {f->we1, f->wh1, f->be1, f->bh1, f->v1, f->s1};
    gated two = {f->we2, f->wh2, f->be2, f->bh2, f->v2, f->s2};
    int64_t count = bl_dim(f->lam, 0);
    if (f->dropout_index >= count || f->l2_index >= count) {
        f->loss = bl_poison(graph, "options dropout_index and l2_index are %lld and %lld, expected "
                                   "[0,%lld): places in lam", (long long)f->dropout_index,
                            (long long)f->l2_index, (long long)count);
        return;
    }
    bl_tensor u      = bl_stop_gradient(perturbed(f->lam, f->scale, f->noise));
    bl_tensor value  = constrained(u, f->lo, f->hi);
    bl_tensor rate   = bl_pick(value, 1, f->dropout_index);
    bl_tensor decay  = bl_pick(value, 1, f->l2_index);
    bl_tensor z      = row_dropout(bl_relu(gated_output(one, f->x, u)), rate, f->u_drop);
    bl_tensor logits = gated_output(two, z, u);
    bl_tensor norm2  = bl_add(gated_norm2(one, u), gated_norm2(two, u));
    f->loss = bl_add(bl_cross_entropy(logits, f->y), bl_mean(bl_mul(decay, norm2)));
}

static bl_status train_check(const bl_dictionary *in, const void *options)
{
    const struct stn_train_loss *f = options;
    const bl_array *lo = bl_dictionary_find(in, "lo"), *hi = bl_dictionary_find(in, "hi");
    BL_TRY(bounds_check(in, options));
    if (f->dropout_index >= bl_array_count(lo))
        return BL_OK; /* the function itself refuses it */
    double low = bl_array_get(lo, f->dropout_index), high = bl_array_get(hi, f->dropout_index);
    if (!(low >= 0 && high <= 1))
        return bl_fail(BL_INVALID,
                       "the dropout rate lies between lo[%lld] = %g and hi[%lld] = %g, expected "
                       "within [0,1)",
                       (long long)f->dropout_index, low, (long long)f->dropout_index, high);
    return BL_OK;
}

#define STN_VALID_LOSS(IN, OPT, OUT)                                                               \
    IN (x,              "f32[B,I]", "rows > 0",         "validation inputs")                       \
    IN (y,              "i32[B]",   "0 <= . < C",       "their classes")                           \
    IN (lam,            "f32[H]",   "grad",             "unconstrained hyper-parameters")          \
    IN (scale,          "f32[H]",   "grad",             "softplus(scale) is their deviation")      \
    IN (noise,          "f32[B,H]", "optional",         "standard normal draws; for perturb")      \
    IN (lo,             "f32[H]",   "no NaN, optional", "bounds, which only training needs")       \
    IN (hi,             "f32[H]",   "no NaN, optional", "")                                        \
    STN_LAYERS(IN, "")                                                                             \
    OPT(layers,         2,          "[2,2]",            "of the network")                          \
    OPT(perturb,        1,          "flag",             "perturb lam, and so tune scale, too")     \
    OPT(entropy_weight, 1e-3,       "[0,inf)",          "reward for the perturbation's entropy")   \
    OUT(loss,           "f32[]",    "cross-entropy - entropy_weight entropy(scale)")

BL_CONTRACT_CHECKED(stn_valid_loss, STN_VALID_LOSS,
                    "validation loss through the layers' response; moves lam and scale only",
                    bounds_check)
{
    gated one = frozen((gated){f->we1, f->wh1, f->be1, f->bh1, f->v1, f->s1});
    gated two = frozen((gated){f->we2, f->wh2, f->be2, f->bh2, f->v2, f->s2});
    if (f->perturb && bl_is_number(f->noise)) {
        f->loss = bl_poison(graph, "noise is not given, expected f32[B,H] where perturb is true");
        return;
    }
    bl_tensor u = f->perturb ? perturbed(f->lam, f->scale, f->noise)
                             : bl_broadcast(f->lam, BL_SHAPE(bl_dim(f->x, 0), bl_dim(f->lam, 0)));
    bl_tensor logits = gated_output(two, bl_relu(gated_output(one, f->x, u)), u);

    struct stn_entropy of_scale = {.scale = f->scale};
    bl_call(stn_entropy, &of_scale);
    f->loss = bl_sub(bl_cross_entropy(logits, f->y), bl_mul(f->entropy_weight, of_scale.entropy));
}

const bl_method bl_stn = {
    .slug = "stn",
    .family = "solvers",
    .paper = "MacKay, Vicol, Lorraine, Duvenaud, Grosse 2019, arXiv 1903.03088",
    .summary = "(no arm) tunes regularisation within one training run",
    .when = "Several regularisation strengths that interact, and no budget for a search. About "
            "twice the memory; start from weak regularisation and bound it.",
    .functions = {&stn_hyper_linear_contract, &stn_hyper_conv2d_contract,
                  &stn_weight_sqnorm_contract, &stn_perturb_contract, &stn_unconstrain_contract,
                  &stn_entropy_contract, &stn_row_dropout_contract, &stn_train_loss_contract,
                  &stn_valid_loss_contract},
    .example = "ballast show stn_hyper_linear",
};
