/* T-JEPA. Thimonier, Costa, Popineau, Rimmel, Doan, arXiv 2410.05016. Learning from tables without
 * labels and without augmentation: an encoder sees a few features of a row, and a predictor gives
 * for others what a slowly moving copy of the encoder, which sees the whole row, makes of them. A
 * token without a feature, [REG], is put before the features against collapse.
 *
 * A row of a table is R + D tokens of width d: [REG], numeric features, categorical ones. Weights
 * are [out,in]: y = x W^T + b. */
#include "methods/method.h"
#include "methods/representation/t_jepa/collapse.h"

/* x[B,T,d] at index[..,B,n], which are places on the axis T -> [..,B,n,d] */
static bl_tensor tokens_at(bl_tensor x, bl_tensor index)
{
    int64_t b = bl_dim(x, 0), t = bl_dim(x, 1), d = bl_dim(x, 2);
    bl_shape shape = bl_type_of(index).shape;
    bl_tensor row = bl_iota(x.graph, BL_I32, shape, shape.rank - 2);
    bl_tensor place = bl_add(index, bl_mul(row, (double)t));
    bl_tensor flat = bl_reshape(place, BL_SHAPE(bl_type_count(bl_type_of(place))));
    shape.dim[shape.rank++] = d;
    return bl_reshape(bl_take(bl_reshape(x, BL_SHAPE(b * t, d)), flat), shape);
}

/* --- the table as tokens ---------------------------------------------------------------------- */

#define T_JEPA_TOKENIZE(IN, OPT, OUT)                                                              \
    IN (x_num,   "f32[B,n]", "",      "numeric features, scaled to [0,1]")                         \
    IN (x_cat,   "i32[B,c]", ">= 0",  "codes of categorical features")                             \
    IN (w,       "f32[W,d]", "grad",  "[REG] tokens, then a vector for each numeric feature")      \
    IN (emb,     "f32[S,d]", "grad",  "a vector for each value, the features' tables stacked")     \
    IN (bias,    "f32[D,d]", "grad",  "of each feature, numeric ones first")                       \
    IN (cards,   "i32[c]",   ">= 1",  "how many values each categorical feature has")              \
    OPT(n_reg,   1,          ">= 0",    "[REG] tokens")                                            \
    OPT(pe_base, 100.0,      "(0,inf)", "of the position code")                                    \
    OUT(tokens,  "f32[B,?,d]",          "n_reg + D of them, with position code")

static bl_contract_check tokenize_check;

/* sin and cos by turns: column 2p is sin(t base^(-2p/d)), column 2p+1 the cos. */
static bl_tensor interleaved_positions(bl_graph *graph, int64_t count, int64_t d, bl_tensor base)
{
    bl_tensor t = bl_iota(graph, BL_F64, BL_SHAPE(count, d), 0);
    bl_tensor column = bl_iota(graph, BL_F64, BL_SHAPE(count, d), 1);
    bl_tensor odd = bl_rem(column, 2), rate = bl_div(bl_log(bl_cast(base, BL_F64)), (double)d);
    bl_tensor angle = bl_mul(t, bl_exp(bl_neg(bl_mul(bl_sub(column, odd), rate))));
    return bl_to_f32(bl_select(bl_eq(odd, 0), bl_sin(angle), bl_cos(angle)));
}

struct t_jepa_tokenize;
static bl_tensor categorical_tokens(const struct t_jepa_tokenize *f, bl_tensor bias);

static bool tables_fit(bl_graph *graph, int64_t d, int64_t w, int64_t expected_w, int64_t bias,
                       int64_t features)
{
    if (d % 2)
        bl_poison(graph, "the width d is %lld, expected an even number", (long long)d);
    else if (w != expected_w)
        bl_poison(graph, "w has %lld rows, expected %lld: n_reg and one for each numeric feature",
                  (long long)w, (long long)expected_w);
    else if (bias != features)
        bl_poison(graph, "bias has %lld rows, expected %lld: one for each feature",
                  (long long)bias, (long long)features);
    return d % 2 == 0 && w == expected_w && bias == features;
}

BL_CONTRACT_CHECKED(t_jepa_tokenize, T_JEPA_TOKENIZE, "rows of a table as tokens", tokenize_check)
{
    int64_t rows = bl_dim(f->x_num, 0), n = bl_dim(f->x_num, 1), c = bl_dim(f->x_cat, 1);
    int64_t d = bl_dim(f->w, 1), R = f->n_reg;
    if (!tables_fit(graph, d, bl_dim(f->w, 0), R + n, bl_dim(f->bias, 0), n + c))
        return;
    bl_tensor regular = bl_broadcast(bl_slice_axis(f->w, 0, 0, R), BL_SHAPE(rows, R, d));
    bl_tensor numeric = bl_mul(bl_expand(f->x_num, 2), bl_slice_axis(f->w, 0, R, R + n));
    numeric = bl_add(numeric, bl_slice_axis(f->bias, 0, 0, n));
    bl_tensor categorical = categorical_tokens(f, bl_slice_axis(f->bias, 0, n, n + c));
    bl_tensor tokens = bl_concat((bl_tensor[]){regular, numeric, categorical}, 3, 1);
    f->tokens = bl_add(tokens, interleaved_positions(graph, R + n + c, d, f->pe_base));
}

/* table row + bias, [B,c,d] */
static bl_tensor categorical_tokens(const struct t_jepa_tokenize *f, bl_tensor bias)
{
    int64_t rows = bl_dim(f->x_cat, 0), c = bl_dim(f->x_cat, 1);
    bl_tensor start = bl_sub(bl_cumsum(f->cards, 0), f->cards);
    bl_tensor place = bl_reshape(bl_add(f->x_cat, start), BL_SHAPE(rows * c));
    bl_tensor vectors = bl_reshape(bl_take(f->emb, place), BL_SHAPE(rows, c, bl_dim(f->emb, 1)));
    return bl_add(vectors, bias);
}

static bl_status tokenize_check(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    const bl_array *cards = bl_dictionary_find(in, "cards");
    int64_t values = 0, rows = bl_dictionary_find(in, "emb")->type.shape.dim[0];
    for (int64_t j = 0; j < cards->type.shape.dim[0]; j++)
        values += bl_i32(cards)[j];
    if (values != rows)
        return bl_fail(BL_INVALID, "emb has %lld rows, expected %lld, the sum of cards",
                       (long long)rows, (long long)values);
    return bl_codes_check(bl_dictionary_find(in, "x_cat"), "x_cat", cards);
}

/* --- masks ------------------------------------------------------------------------------------ */

#define T_JEPA_MASK_SIZES(IN, OPT, OUT)                                                            \
    IN (u,          "f32[?]", "rows > 0, [0,1]", "uniform draws, two for each attempt")            \
    OPT(n_features, BL_REQUIRED_INTEGER, ">= 1", "D")                                              \
    OPT(min_ctx,    0.136, "[0,1]", "smallest share of features that the encoder sees")            \
    OPT(max_ctx,    0.368, "[0,1]", "largest")                                                     \
    OPT(min_tgt,    0.156, "[0,1]", "smallest share of features that are predicted")               \
    OPT(max_tgt,    0.622, "[0,1]", "largest")                                                     \
    OUT(n_ctx,      "i32[]", "features that the encoder sees, for the whole batch")                \
    OUT(n_tgt,      "i32[]", "features to predict")                                                \
    OUT(pairs_used, "i32[]", "attempts until both fit into D")

/* The range of a number of features; halves are rounded to even. */
static bl_status feature_range(const char *what, double features, double least, double most,
                               double range[2])
{
    range[0] = rint(features * least);
    range[1] = rint(features * most);
    if (range[0] >= 1 && range[1] > range[0])
        return BL_OK;
    return bl_fail(BL_INVALID,
                   "min_%s and max_%s give %g to %g of %g features, expected a range from 1 up",
                   what, what, range[0], range[1], features);
}

BL_HOST(t_jepa_mask_sizes, T_JEPA_MASK_SIZES, "how many features are seen and predicted")
{
    double D = (double)f->n_features, ctx[2], tgt[2];
    int64_t draws = f->u.type.shape.dim[0];
    BL_TRY(feature_range("ctx", D, f->min_ctx, f->max_ctx, ctx));
    BL_TRY(feature_range("tgt", D, f->min_tgt, f->max_tgt, tgt));
    if (draws % 2)
        return bl_fail(BL_INVALID, "u has %lld draws, expected two for each attempt",
                       (long long)draws);
    for (int64_t i = 0; i < draws; i += 2) {
        double n_ctx = ctx[0] + rint((ctx[1] - ctx[0]) * (double)bl_f32(&f->u)[i]);
        double n_tgt = tgt[0] + rint((tgt[1] - tgt[0]) * (double)bl_f32(&f->u)[i + 1]);
        if (n_ctx + n_tgt > D)
            continue;
        bl_array_set(&f->n_ctx, 0, n_ctx);
        bl_array_set(&f->n_tgt, 0, n_tgt);
        bl_array_set(&f->pairs_used, 0, (double)(i / 2 + 1));
        return BL_OK;
    }
    return bl_fail(BL_INVALID, "u has no pair with n_ctx + n_tgt <= %g, expected one among %lld", D,
                   (long long)(draws / 2));
}

#define T_JEPA_MASKS(IN, OPT, OUT)                                                                 \
    IN (perm_ctx, "i32[B,D]",   "rows > 0", "a permutation of the features in each row")           \
    IN (perm_tgt, "i32[P,B,K]", "rows > 0", "permutations of the D - n_ctx features left, for "    \
                                            "each of P sets")                                      \
    OPT(n_ctx,    BL_REQUIRED_INTEGER, ">= 1", "features that the encoder sees")                   \
    OPT(n_tgt,    BL_REQUIRED_INTEGER, ">= 1", "features to predict, in each set")                 \
    OPT(n_reg,    1,                   ">= 0", "[REG] tokens")                                     \
    OPT(reg_mode, "context", "context|maskable", "[REG] is always seen; or drawn like a feature, " \
                                                 "as in the code, and the last feature never is")  \
    OUT(idx_ctx,  "i32[B,?]",       "tokens seen")                                                 \
    OUT(idx_tgt,  "i32[P,B,n_tgt]", "tokens to predict")

static bl_contract_check masks_check;

static bool sizes_fit(bl_graph *graph, int64_t D, int64_t n_ctx, int64_t n_tgt, int64_t left)
{
    if (n_ctx + n_tgt > D)
        bl_poison(graph, "n_ctx + n_tgt is %lld, expected at most the features (%lld)",
                  (long long)(n_ctx + n_tgt), (long long)D);
    else if (left != D - n_ctx)
        bl_poison(graph, "perm_tgt permutes %lld features, expected the %lld that are left",
                  (long long)left, (long long)(D - n_ctx));
    return n_ctx + n_tgt <= D && left == D - n_ctx;
}

BL_CONTRACT_CHECKED(t_jepa_masks, T_JEPA_MASKS, "which tokens are seen and predicted", masks_check)
{
    int64_t rows = bl_dim(f->perm_ctx, 0), D = bl_dim(f->perm_ctx, 1), left = D - f->n_ctx;
    if (!sizes_fit(graph, D, f->n_ctx, f->n_tgt, bl_dim(f->perm_tgt, 2)))
        return;
    bl_tensor seen = bl_slice_axis(f->perm_ctx, 1, 0, f->n_ctx);
    bl_tensor rest = bl_sort(bl_slice_axis(f->perm_ctx, 1, f->n_ctx, D), 1, false);
    bl_tensor drawn = bl_slice_axis(f->perm_tgt, 2, 0, f->n_tgt);
    rest = bl_broadcast(rest, BL_SHAPE(bl_dim(f->perm_tgt, 0), rows, left));
    bl_tensor target = bl_take_along(rest, drawn, 2);
    if (bl_is(f->reg_mode, "context")) {
        bl_tensor regular = bl_iota(graph, BL_I32, BL_SHAPE(rows, f->n_reg), 1);
        seen   = bl_concat((bl_tensor[]){regular, bl_add(seen, (double)f->n_reg)}, 2, 1);
        target = bl_add(target, (double)f->n_reg);
    }
    f->idx_ctx = seen;
    f->idx_tgt = target;
}

static bl_status check_row_permutations(const bl_dictionary *in, const char *name)
{
    const bl_array *array = bl_dictionary_find(in, name);
    bl_shape shape = array->type.shape;
    int64_t size = shape.dim[shape.rank - 1], count = bl_array_count(array);
    int64_t *last = bl_alloc((size_t)(size + 1) * sizeof *last), i = 0; /* row it was in, from 1 */
    if (!last)
        return bl_no_memory((size_t)(size + 1) * sizeof *last);
    for (; i < count; i++) {
        int32_t x = bl_i32(array)[i];
        if (x < 0 || x >= size || last[x] == i / size + 1)
            break;
        last[x] = i / size + 1;
    }
    bl_release(last);
    if (i < count)
        return bl_fail(BL_INVALID,
                       "%s has the row %lld, where [%lld] is %d, expected a permutation of 0..%lld",
                       name, (long long)(i / size), (long long)(i % size),
                       bl_i32(array)[i], (long long)size - 1);
    return BL_OK;
}

static bl_status masks_check(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    BL_TRY(check_row_permutations(in, "perm_ctx"));
    return check_row_permutations(in, "perm_tgt");
}

/* --- the networks ----------------------------------------------------------------------------- */

/* The parameters of L layers of width d, and of what ends them. */
#define T_JEPA_STACK(IN, d)                                                                        \
    IN (in_w,  "f32[L,Q," d "]",   "grad", "queries, keys, values: 3 d rows a layer")              \
    IN (in_b,  "f32[L,Q]",         "grad", "")                                                     \
    IN (out_w, "f32[L," d "," d "]", "grad", "after attention")                                    \
    IN (out_b, "f32[L," d "]",     "grad", "")                                                     \
    IN (ln_g,  "f32[L,2," d "]",   "grad", "scales after attention, after the two layers")         \
    IN (ln_b,  "f32[L,2," d "]",   "grad", "shifts")                                               \
    IN (ff1_w, "f32[L,f," d "]",   "grad", "the two layers")                                       \
    IN (ff1_b, "f32[L,f]",         "grad", "")                                                     \
    IN (ff2_w, "f32[L," d ",f]",   "grad", "")                                                     \
    IN (ff2_b, "f32[L," d "]",     "grad", "")                                                     \
    IN (end_g, "f32[2," d "]",     "grad", "scales before and after the last layer")               \
    IN (end_b, "f32[2," d "]",     "grad", "shifts")                                               \
    IN (fc_w,  "f32[" d "," d "]", "grad", "the last layer")                                       \
    IN (fc_b,  "f32[" d "]",       "grad", "")

typedef struct stack {
    bl_tensor in_w, in_b, out_w, out_b, ln_g, ln_b, ff1_w, ff1_b, ff2_w, ff2_b;
    bl_tensor end_g, end_b, fc_w, fc_b;
    int64_t heads;
    double eps;
} stack;
#define STACK_OF(f)                                                                                \
    {(f)->in_w,  (f)->in_b,  (f)->out_w, (f)->out_b, (f)->ln_g, (f)->ln_b, (f)->ff1_w, (f)->ff1_b, \
     (f)->ff2_w, (f)->ff2_b, (f)->end_g, (f)->end_b, (f)->fc_w, (f)->fc_b, (f)->heads,             \
     (f)->eps.number}

static bool stack_fits(bl_graph *graph, const stack *s, bl_tensor eps)
{
    int64_t d = bl_dim(s->fc_w, 0), packed = bl_dim(s->in_w, 1);
    if (packed != 3 * d)
        bl_poison(graph, "in_w has %lld rows a layer, expected %lld: queries, keys, values",
                  (long long)packed, (long long)(3 * d));
    else if (d % s->heads || d % 2)
        bl_poison(graph, "the width is %lld, expected an even multiple of the %lld heads",
                  (long long)d, (long long)s->heads);
    else if (!bl_is_number(eps))
        bl_poison(graph, "eps is a tensor, expected a number");
    return packed == 3 * d && d % s->heads == 0 && d % 2 == 0 && bl_is_number(eps);
}

static bl_tensor normalized(bl_tensor x, bl_tensor scale, bl_tensor shift, int64_t i, double eps)
{
    return bl_layer_normalize(x, bl_pick(scale, 0, i), bl_pick(shift, 0, i), eps);
}

/* part 0, 1, 2 of qkv[B,n,3d]: queries, keys, values -> [B,heads,n,d/heads] */
static bl_tensor per_head(bl_tensor qkv, int64_t part, int64_t heads)
{
    int64_t b = bl_dim(qkv, 0), n = bl_dim(qkv, 1), d = bl_dim(qkv, 2) / 3;
    bl_tensor x = bl_slice_axis(qkv, 2, part * d, (part + 1) * d);
    return bl_transpose(bl_reshape(x, BL_SHAPE(b, n, heads, d / heads)), 0, 2, 1, 3);
}

static bl_tensor self_attention(bl_tensor x, const stack *s, int64_t layer)
{
    bl_tensor qkv = bl_linear(x, bl_pick(s->in_w, 0, layer), bl_pick(s->in_b, 0, layer));
    bl_tensor q = per_head(qkv, 0, s->heads), k = per_head(qkv, 1, s->heads);
    bl_tensor heads = bl_attention(q, k, per_head(qkv, 2, s->heads), 1);
    bl_tensor joined = bl_reshape(bl_transpose(heads, 0, 2, 1, 3), bl_type_of(x).shape);
    return bl_linear(joined, bl_pick(s->out_w, 0, layer), bl_pick(s->out_b, 0, layer));
}

/* Layers that normalise after each sum, then LN, linear, LN: x[B,n,d] -> [B,n,d]. */
static bl_tensor through(const stack *s, bl_tensor x)
{
    int64_t layers = bl_dim(s->in_w, 0);
    for (int64_t l = 0; l < layers; l++) {
        bl_tensor scale = bl_pick(s->ln_g, 0, l), shift = bl_pick(s->ln_b, 0, l);
        x = normalized(bl_add(x, self_attention(x, s, l)), scale, shift, 0, s->eps);
        bl_tensor hidden = bl_relu(bl_linear(x, bl_pick(s->ff1_w, 0, l), bl_pick(s->ff1_b, 0, l)));
        bl_tensor change = bl_linear(hidden, bl_pick(s->ff2_w, 0, l), bl_pick(s->ff2_b, 0, l));
        x = normalized(bl_add(x, change), scale, shift, 1, s->eps);
    }
    x = normalized(x, s->end_g, s->end_b, 0, s->eps);
    return normalized(bl_linear(x, s->fc_w, s->fc_b), s->end_g, s->end_b, 1, s->eps);
}

#define T_JEPA_ENCODER(IN, OPT, OUT)                                                               \
    IN (tokens, "f32[B,T,d]", "grad",                  "with their position code")                 \
    IN (idx,    "i32[B,n]",   "optional, 0 <= . < T",  "which are seen; not looked at without "    \
                                                       "gather")                                   \
    T_JEPA_STACK(IN, "d")                                                                          \
    OPT(heads,  2,            ">= 1",    "of attention")                                           \
    OPT(eps,    1e-5,         "(0,inf)", "added to variances")                                     \
    OPT(gather, 1,            "flag",    "see the tokens at idx; else all, as the target encoder") \
    OUT(out,    "f32[B,?,d]",            "what it makes of each")

BL_CONTRACT(t_jepa_encoder, T_JEPA_ENCODER, "the encoder, of a few features or of the whole row")
{
    stack s = STACK_OF(f);
    if (!stack_fits(graph, &s, f->eps))
        return;
    if (f->gather && bl_is_number(f->idx)) {
        bl_poison(graph, "input idx is missing, expected with gather");
        return;
    }
    f->out = through(&s, f->gather ? tokens_at(f->tokens, f->idx) : f->tokens);
}

#define T_JEPA_PREDICTOR(IN, OPT, OUT)                                                             \
    IN (z,          "f32[B,m,d]",   "grad",                  "the encoder's output")               \
    IN (idx_ctx,    "i32[B,m]",     "0 <= . < n_positions",  "the tokens it is of")                \
    IN (idx_tgt,    "i32[P,B,n]",   "0 <= . < n_positions",  "those to predict")                   \
    IN (emb_w,      "f32[e,d]",     "grad", "to the predictor's width")                            \
    IN (emb_b,      "f32[e]",       "grad", "")                                                    \
    IN (mask_token, "f32[e]",       "grad", "in place of what is to be predicted")                 \
    IN (norm_g,     "f32[e]",       "grad", "scale at the end")                                    \
    IN (norm_b,     "f32[e]",       "grad", "shift")                                               \
    IN (proj_w,     "f32[d,e]",     "grad", "back to the encoder's width")                         \
    IN (proj_b,     "f32[d]",       "grad", "")                                                    \
    T_JEPA_STACK(IN, "e")                                                                          \
    OPT(n_positions, BL_REQUIRED_INTEGER, ">= 1", "tokens, or features where [REG] is maskable")   \
    OPT(heads,      2,              ">= 1",    "of attention")                                     \
    OPT(eps,        1e-5,           "(0,inf)", "added to variances")                               \
    OUT(pred,       "f32[P,B,n,d]",            "predictions, for each set of targets")

/* [sin(t w), cos(t w)] with w_i = 10000^(-i / (e/2)): [count,e] */
static bl_tensor halved_positions(bl_graph *graph, int64_t count, int64_t e)
{
    bl_tensor t = bl_iota(graph, BL_F64, BL_SHAPE(count, e / 2), 0);
    bl_tensor i = bl_iota(graph, BL_F64, BL_SHAPE(count, e / 2), 1);
    bl_tensor angle = bl_mul(t, bl_exp(bl_mul(i, -log(10000) / (double)(e / 2))));
    return bl_to_f32(bl_concat((bl_tensor[]){bl_sin(angle), bl_cos(angle)}, 2, 1));
}

/* table[..,e] at index[..] -> [..,e] */
static bl_tensor rows_at(bl_tensor table, bl_tensor index)
{
    bl_shape shape = bl_type_of(index).shape;
    bl_tensor rows = bl_take(table, bl_reshape(index, BL_SHAPE(bl_shape_count(shape))));
    shape.dim[shape.rank++] = bl_dim(table, 1);
    return bl_reshape(rows, shape);
}

BL_CONTRACT(t_jepa_predictor, T_JEPA_PREDICTOR, "predicts the target encoder's output")
{
    stack s = STACK_OF(f);
    if (!stack_fits(graph, &s, f->eps))
        return;
    int64_t P = bl_dim(f->idx_tgt, 0), rows = bl_dim(f->z, 0), m = bl_dim(f->z, 1);
    int64_t n = bl_dim(f->idx_tgt, 2), e = bl_dim(f->emb_w, 0);
    bl_tensor place = halved_positions(graph, f->n_positions, e);
    bl_tensor seen = bl_add(bl_linear(f->z, f->emb_w, f->emb_b), rows_at(place, f->idx_ctx));
    bl_tensor asked = bl_add(f->mask_token, rows_at(place, f->idx_tgt));
    seen = bl_broadcast(seen, BL_SHAPE(P, rows, m, e));
    bl_tensor sequence = bl_concat((bl_tensor[]){seen, asked}, 2, 2);
    bl_tensor x = through(&s, bl_reshape(sequence, BL_SHAPE(P * rows, m + n, e)));
    x = bl_layer_normalize(bl_slice_axis(x, 1, m, m + n), f->norm_g, f->norm_b, s.eps);
    x = bl_linear(x, f->proj_w, f->proj_b);
    f->pred = bl_reshape(x, BL_SHAPE(P, rows, n, bl_dim(f->z, 2)));
}

/* --- training --------------------------------------------------------------------------------- */

#define T_JEPA_LOSS(IN, OPT, OUT)                                                                  \
    IN (pred,    "f32[P,B,n,d]", "grad, rows > 0", "predictions")                                  \
    IN (h,       "f32[B,T,d]",   "",               "the target encoder's output, whole rows")      \
    IN (idx_tgt, "i32[P,B,n]",   "0 <= . < T",     "the tokens predicted")                         \
    OUT(loss,    "f32[]",                          "mean squared error over all numbers")

BL_CONTRACT(t_jepa_loss, T_JEPA_LOSS, "how wrong predictions are")
{
    bl_tensor target = bl_stop_gradient(tokens_at(f->h, f->idx_tgt));
    f->loss = bl_mean(bl_square(bl_sub(f->pred, target)));
}

#define T_JEPA_EMA(IN, OPT, OUT)                                                                   \
    IN (online,     "f32[P]", "",      "parameters of the encoder")                                \
    IN (target,     "f32[P]", "",      "of the target encoder")                                    \
    OPT(m,          0.996,    "(0,1]", "share of the target that stays")                           \
    OUT(target_out, "f32[P]",          "m target + (1 - m) online")

BL_CONTRACT(t_jepa_ema, T_JEPA_EMA, "moves the target encoder")
{
    f->target_out = bl_add(bl_mul(f->m, f->target), bl_mul(bl_sub(1, f->m), f->online));
}

#define T_JEPA_SCHEDULES(IN, OPT, OUT)                                                             \
    IN (step,      "i32[n]",            "0 <= . <= total", "")                                     \
    OPT(warmup,    BL_REQUIRED_INTEGER, "[0,total]", "steps until lr_ref is reached")              \
    OPT(total,     BL_REQUIRED_INTEGER, ">= 1",      "steps")                                      \
    OPT(lr_start,  0.0,                 "[0,inf)",   "learning rate at step 0")                    \
    OPT(lr_ref,    BL_REQUIRED,         "[0,inf)",   "after warmup")                               \
    OPT(lr_final,  0.0,                 "[0,inf)",   "at the end")                                 \
    OPT(wd_ref,    0.0,                 "[0,inf)",   "weight decay at step 0")                     \
    OPT(wd_final,  0.0,                 "[0,inf)",   "at the end")                                 \
    OPT(ema_start, 0.996,               "[0,1]",     "m at step 0")                                \
    OPT(ema_end,   1.0,                 "[0,1]",     "at the end")                                 \
    OUT(lr,        "f32[n]", "linear, then half a cosine")                                         \
    OUT(wd,        "f32[n]", "half a cosine")                                                      \
    OUT(m,         "f32[n]", "linear")

/* From first at share 0 to last at share 1. */
static bl_tensor line(bl_tensor first, bl_tensor last, bl_tensor share)
{
    first = bl_cast(first, BL_F64);
    return bl_add(first, bl_mul(bl_sub(bl_cast(last, BL_F64), first), share));
}

static bl_tensor half_cosine(bl_tensor first, bl_tensor last, bl_tensor share)
{
    bl_tensor wave = bl_cos(bl_mul(acos(-1), share));
    return line(first, last, bl_div(bl_sub(1, wave), 2));
}

BL_CONTRACT(t_jepa_schedules, T_JEPA_SCHEDULES, "learning rate, decay and m by step")
{
    double warmup = (double)f->warmup, total = (double)f->total;
    bl_tensor step = bl_cast(f->step, BL_F64), done = bl_div(step, total);
    bl_tensor rising = line(f->lr_start, f->lr_ref, bl_div(step, fmax(warmup, 1)));
    bl_tensor after = bl_div(bl_sub(step, warmup), fmax(total - warmup, 1));
    bl_tensor falling = half_cosine(f->lr_ref, f->lr_final, after);
    f->lr = bl_to_f32(bl_select(bl_lt(step, warmup), rising, falling));
    f->wd = bl_to_f32(half_cosine(f->wd_ref, f->wd_final, done));
    f->m  = bl_to_f32(line(f->ema_start, f->ema_end, done));
}

/* --- has it collapsed? ------------------------------------------------------------------------ */

#define T_JEPA_COLLAPSE(IN, OPT, OUT)                                                              \
    IN (h,         "f32[N,T,d]", "rows > 0",   "the target encoder's output")                      \
    IN (pairs,     "i32[M,2]",   "0 <= . < N", "rows to compare")                                  \
    OUT(intra_var, "f32[]", "variance over rows, mean over tokens and numbers")                    \
    OUT(inter_var, "f32[]", "variance of all numbers of the mean token of each row")               \
    OUT(kl,        "f32[]", "mean over pairs: divergence of the distributions of their numbers")   \
    OUT(euclidean, "f32[]", "mean distance over pairs; 0 without any, as kl")                      \
    OUT(n,         "i32[]", "N")

BL_HOST(t_jepa_collapse, T_JEPA_COLLAPSE, "whether rows are still told apart")
{
    const int64_t *dim = f->h.type.shape.dim, pairs = f->pairs.type.shape.dim[0];
    tj_tokens t = {bl_f32(&f->h), dim[0], dim[1], dim[2]};
    int64_t size = t.T * t.d;
    double kl = 0, euclidean = 0;
    for (int64_t i = 0; i < pairs; i++) {
        const float *a = t.h + bl_i32(&f->pairs)[2 * i] * size;
        const float *b = t.h + bl_i32(&f->pairs)[2 * i + 1] * size;
        kl += tj_divergence(a, b, size) / (double)pairs;
        euclidean += tj_distance(a, b, size) / (double)pairs;
    }
    bl_array_set(&f->intra_var, 0, tj_variance_over_rows(&t));
    bl_array_set(&f->inter_var, 0, tj_variance_of_mean_tokens(&t));
    bl_array_set(&f->kl, 0, kl);
    bl_array_set(&f->euclidean, 0, euclidean);
    bl_array_set(&f->n, 0, (double)t.N);
    return BL_OK;
}

const bl_method bl_t_jepa = {
    .slug = "t_jepa",
    .family = "representation",
    .paper = "Thimonier et al. 2024, arXiv 2410.05016",
    .summary = "(no arm) learns features of tables without labels",
    .when = "Tables with few labels and features that depend on each other. Costs a passage of "
            "whole rows through the target encoder and of partial ones through encoder and "
            "predictor.",
    .functions = {&t_jepa_tokenize_contract, &t_jepa_mask_sizes_contract, &t_jepa_masks_contract,
                  &t_jepa_encoder_contract, &t_jepa_predictor_contract, &t_jepa_loss_contract,
                  &t_jepa_ema_contract, &t_jepa_schedules_contract, &t_jepa_collapse_contract},
    .example = "ballast show t_jepa_encoder",
};
