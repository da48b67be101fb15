/* Cross Initialization. Pang et al., CVPR 2024, arXiv 2312.15905. A new word is learned as the
 * input embedding with which a frozen text-to-image model draws one face. What is learned looks
 * like an output of the text encoder, far from any word's embedding: so the search starts at the
 * encoder's output for an average name, and a small penalty keeps it near. */
#include "methods/method.h"

/* --- the text encoder: a transformer in which a token sees itself and those before -------------
 */

/* The weights of NL layers, stacked; linear maps are x W^T + b. */
#define ENCODER(IN, GRAD)                                                                          \
    IN(pos, "f32[P,D]", GRAD, "added to the tokens; P is the longest sequence")                    \
    IN(ln1_g, "f32[NL,D]", GRAD, "scale of the norm before attention")                             \
    IN(ln1_b, "f32[NL,D]", GRAD, "shift")                                                          \
    IN(wq, "f32[NL,D,D]", GRAD, "queries")                                                         \
    IN(wk, "f32[NL,D,D]", GRAD, "keys")                                                            \
    IN(wv, "f32[NL,D,D]", GRAD, "values")                                                          \
    IN(wo, "f32[NL,D,D]", GRAD, "after the heads")                                                 \
    IN(bq, "f32[NL,D]", GRAD, "")                                                                  \
    IN(bk, "f32[NL,D]", GRAD, "")                                                                  \
    IN(bv, "f32[NL,D]", GRAD, "")                                                                  \
    IN(bo, "f32[NL,D]", GRAD, "")                                                                  \
    IN(ln2_g, "f32[NL,D]", GRAD, "scale of the norm before the two linear maps")                   \
    IN(ln2_b, "f32[NL,D]", GRAD, "shift")                                                          \
    IN(w1, "f32[NL,F,D]", GRAD, "from D to F")                                                     \
    IN(b1, "f32[NL,F]", GRAD, "")                                                                  \
    IN(w2, "f32[NL,D,F]", GRAD, "and back")                                                        \
    IN(b2, "f32[NL,D]", GRAD, "")                                                                  \
    IN(lnf_g, "f32[D]", GRAD, "scale of the last norm")                                            \
    IN(lnf_b, "f32[D]", GRAD, "shift")

#define ENCODER_OPTIONS(OPT)                                                                       \
    OPT(heads, BL_REQUIRED_INTEGER, ">= 1", "divides D")                                           \
    OPT(activation, "gelu", "gelu|quick_gelu", "exact (SD 2), or x sigmoid(1.702 x) (SD 1)")       \
    OPT(ln_eps, 1e-5, "(0,inf)", "of the norms; not scheduled")

#define CROSS_INIT_ENCODE(IN, OPT, OUT)                                                            \
    IN(emb, "f32[B,L,D]", "grad", "embeddings of the tokens")                                      \
    ENCODER(IN, "grad")                                                                            \
    ENCODER_OPTIONS(OPT)                                                                           \
    OUT(hidden, "f32[B,L,D]", "what the last norm gives")

struct cross_init_encode;
static bool encoder_fits(bl_graph *graph, const struct cross_init_encode *f);
static bl_tensor encoder_layer(const struct cross_init_encode *f, bl_tensor x, int64_t layer);

BL_CONTRACT(cross_init_encode, CROSS_INIT_ENCODE, "a causal text encoder, as CLIP's")
{
    if (!encoder_fits(graph, f))
        return;
    bl_tensor x = bl_add(f->emb, bl_slice_axis(f->pos, 0, 0, bl_dim(f->emb, 1)));
    for (int64_t layer = 0; layer < bl_dim(f->wq, 0); layer++)
        x = encoder_layer(f, x, layer);
    f->hidden = bl_layer_normalize(x, f->lnf_g, f->lnf_b, f->ln_eps.number);
}

static bool encoder_fits(bl_graph *graph, const struct cross_init_encode *f)
{
    int64_t length = bl_dim(f->emb, 1), longest = bl_dim(f->pos, 0), width = bl_dim(f->emb, 2);
    if (length > longest)
        bl_poison(graph, "emb has %lld tokens, expected at most the %lld rows of pos",
                  (long long)length, (long long)longest);
    else if (width % f->heads != 0)
        bl_poison(graph, "option heads is %lld, expected a divisor of D (%lld)",
                  (long long)f->heads, (long long)width);
    else if (!bl_is_number(f->ln_eps))
        bl_poison(graph, "option ln_eps is scheduled, expected a number");
    else
        return true;
    return false;
}

static bl_tensor causal(bl_graph *graph, int64_t length)
{
    bl_shape square = BL_SHAPE(length, length);
    return bl_le(bl_iota(graph, BL_I32, square, 1), bl_iota(graph, BL_I32, square, 0));
}

static bl_tensor activated(bl_tensor x, const char *activation)
{
    return bl_is(activation, "gelu") ? bl_gelu_exact(x) : bl_mul(x, bl_sigmoid(bl_mul(1.702, x)));
}

static bl_tensor encoder_layer(const struct cross_init_encode *f, bl_tensor x, int64_t layer)
{
#define AT(weight) bl_pick(f->weight, 0, layer)
    bl_tensor h = bl_layer_normalize(x, AT(ln1_g), AT(ln1_b), f->ln_eps.number);
    bl_tensor q = bl_linear(h, AT(wq), AT(bq)), k = bl_linear(h, AT(wk), AT(bk));
    bl_tensor v = bl_linear(h, AT(wv), AT(bv)), seen = causal(x.graph, bl_dim(x, 1));
    bl_tensor heads = bl_multi_head_attention(q, k, v, seen, f->heads);
    x = bl_add(x, bl_linear(heads, AT(wo), AT(bo)));

    h = bl_layer_normalize(x, AT(ln2_g), AT(ln2_b), f->ln_eps.number);
    h = activated(bl_linear(h, AT(w1), AT(b1)), f->activation);
    return bl_add(x, bl_linear(h, AT(w2), AT(b2)));
#undef AT
}

/* --- where to start --------------------------------------------------------------------------- */

#define CROSS_INIT_MEAN_NAME(IN, OPT, OUT)                                                         \
    IN(name_emb, "f32[N,L,D]", "", "embeddings of names: begin, tokens, end, anything")            \
    IN(length, "i32[N]", "2 <= . <= L", "tokens of each, begin and end included")                  \
    OPT(columns, 2, ">= 1", "tokens of the new word; a name's further tokens are left out")        \
    OUT(mean, "f32[columns,D]", "mean token of each column, over the names that have it")          \
    OUT(count, "i32[columns]", "how many have it")

static bl_contract_check cross_init_mean_name_check;

/* Token 1 + c of a name belongs to column c, if the end token lies behind. */
BL_CONTRACT_CHECKED(cross_init_mean_name, CROSS_INIT_MEAN_NAME, "the average name",
                    cross_init_mean_name_check)
{
    int64_t N = bl_dim(f->name_emb, 0), L = bl_dim(f->name_emb, 1), C = f->columns;
    if (C > L - 2) {
        bl_poison(graph, "option columns is %lld, expected at most L - 2 (%lld)", (long long)C,
                  (long long)(L - 2));
        return;
    }
    bl_tensor token = bl_add(bl_iota(graph, BL_I32, BL_SHAPE(N, C), 1), 1);
    bl_tensor is_name = bl_lt(token, bl_sub(bl_expand(f->length, 1), 1));
    bl_tensor tokens = bl_slice_axis(f->name_emb, 1, 1, 1 + C);
    bl_tensor sum = bl_sum(bl_select(bl_expand(is_name, 2), tokens, 0), 0);
    f->count = bl_sum(bl_cast(is_name, BL_I32), 0);
    f->mean = bl_div(sum, bl_expand(bl_cast(bl_max(f->count, 1), BL_F32), 1));
}

static bl_status cross_init_mean_name_check(const bl_dictionary *in, const void *options)
{
    const bl_array *length = bl_dictionary_find(in, "length");
    int64_t columns = ((const struct cross_init_mean_name *)options)->columns, longest = 0;
    for (int64_t i = 0; i < bl_array_count(length); i++)
        longest = bl_i32(length)[i] > longest ? bl_i32(length)[i] : longest;
    if (longest - 2 >= columns)
        return BL_OK;
    return bl_fail(BL_INVALID,
                   "length: the longest name has %lld tokens between begin and end, expected at "
                   "least one for each column (%lld)",
                   (long long)(longest > 2 ? longest - 2 : 0), (long long)columns);
}

#define CROSS_INIT_EMBEDDING(IN, OPT, OUT)                                                         \
    IN(columns, "f32[C,D]", "", "the average name")                                                \
    IN(bos, "f32[D]", "", "embedding of the begin token")                                          \
    IN(eos, "f32[D]", "", "of the end token")                                                      \
    IN(pad, "f32[D]", "", "of the padding")                                                        \
    ENCODER(IN, "")                                                                                \
    OPT(length, BL_REQUIRED_INTEGER, ">= 1", "tokens of a padded text; 77 in Stable Diffusion")    \
    ENCODER_OPTIONS(OPT)                                                                           \
    OUT(init, "f32[C,D]", "the encoder's output where the name stands")

/* [begin, name, end, padding ..]. No token sees those behind it: the text ends with the name, and
 * the end token and the padding are not computed. */
BL_CONTRACT(cross_init_embedding, CROSS_INIT_EMBEDDING, "the embedding to start from")
{
    int64_t C = bl_dim(f->columns, 0);
    if (C + 2 > f->length || f->length > bl_dim(f->pos, 0)) {
        bl_poison(graph, "option length is %lld, expected C + 2 (%lld) to the rows of pos (%lld)",
                  (long long)f->length, (long long)(C + 2), (long long)bl_dim(f->pos, 0));
        return;
    }
    struct cross_init_encode text = BL_DEFAULTS(cross_init_encode);
#define GIVE(name, type, conditions, description) text.name = f->name;
    ENCODER(GIVE, "")
#undef GIVE
    text.heads = f->heads, text.activation = f->activation, text.ln_eps = f->ln_eps;
    text.emb = bl_expand(bl_concat((bl_tensor[]){bl_expand(f->bos, 0), f->columns}, 2, 0), 0);
    bl_call(cross_init_encode, &text);
    f->init = bl_slice_axis(bl_squeeze(text.hidden, 0), 0, 1, 1 + C);
}

/* --- the penalty, the objective --------------------------------------------------------------- */

#define PENALTY_OPTIONS(OPT)                                                                       \
    OPT(weight, 1e-5, "[0,inf)", "of the penalty")                                                 \
    OPT(power, 1, "in {1,2}", "1: distance, as in the code; 2: squared distance")                  \
    OPT(eps, 1e-6, "[0,inf)", "added to every component of the difference, with power 1")

#define CROSS_INIT_REG(IN, OPT, OUT)                                                               \
    IN(v, "f32[C,D]", "grad, rows > 0", "the embedding")                                           \
    IN(v0, "f32[C,D]", "grad", "where it started: a constant")                                     \
    PENALTY_OPTIONS(OPT)                                                                           \
    OUT(loss, "f32[]", "weight mean |v - v0 + eps|, or weight mean |v - v0|^2")

BL_CONTRACT(cross_init_reg, CROSS_INIT_REG, "keeps the embedding near its start")
{
    bl_tensor away = bl_sub(f->v, bl_stop_gradient(f->v0));
    bl_tensor distance =
        f->power == 1 ? bl_norm(bl_add(away, f->eps), 1) : bl_sum(bl_square(away), 1);
    f->loss = bl_mul(f->weight, bl_mean(distance));
}

#define CROSS_INIT_LOSS(IN, OPT, OUT)                                                              \
    IN(eps_pred, "f32[B,S...]", "grad, rows > 0", "the noise as the model predicts it")            \
    IN(eps_true, "f32[B,S...]", "", "the noise")                                                   \
    IN(v, "f32[C,D]", "grad, rows > 0", "the embedding")                                           \
    IN(v0, "f32[C,D]", "grad", "where it started: a constant")                                     \
    PENALTY_OPTIONS(OPT)                                                                           \
    OUT(loss, "f32[]", "diffusion + reg")                                                          \
    OUT(diffusion, "f32[]", "mean (eps_pred - eps_true)^2")                                        \
    OUT(reg, "f32[]", "cross_init_reg, weight included")

BL_CONTRACT(cross_init_loss, CROSS_INIT_LOSS, "noise prediction plus the penalty")
{
    struct cross_init_reg near = {
        .v = f->v, .v0 = f->v0, .weight = f->weight, .power = f->power, .eps = f->eps};
    bl_call(cross_init_reg, &near);
    f->reg = near.loss;
    f->diffusion = bl_mean(bl_square(bl_sub(f->eps_pred, f->eps_true)));
    f->loss = bl_add(f->diffusion, f->reg);
}

/* --- how far it went, and after each step ----------------------------------------------------- */

#define CROSS_INIT_GAP(IN, OPT, OUT)                                                               \
    IN(v_init, "f32[C,D]", "no zero row", "where it started")                                      \
    IN(v_learned, "f32[C,D]", "no zero row", "where it ended")                                     \
    OUT(norm_init, "f32[C]", "|v_init|")                                                           \
    OUT(norm_learned, "f32[C]", "|v_learned|")                                                     \
    OUT(ratio, "f32[C]", "norm_learned / norm_init")                                               \
    OUT(cosine, "f32[C]", "of the angle between them")                                             \
    OUT(distance, "f32[C]", "|v_learned - v_init|")

/* In double, so that no square of a small component is lost. */
BL_CONTRACT(cross_init_gap, CROSS_INIT_GAP, "scale and direction between start and end")
{
    bl_tensor start = bl_cast(f->v_init, BL_F64), end = bl_cast(f->v_learned, BL_F64);
    bl_tensor from = bl_norm(start, 1), to = bl_norm(end, 1);
    bl_tensor along = bl_sum(bl_mul(start, end), 1);
    f->norm_init = bl_cast(from, BL_F32);
    f->norm_learned = bl_cast(to, BL_F32);
    f->ratio = bl_cast(bl_div(to, from), BL_F32);
    f->cosine = bl_cast(bl_div(along, bl_mul(from, to)), BL_F32);
    f->distance = bl_cast(bl_norm(bl_sub(end, start), 1), BL_F32);
}

#define CROSS_INIT_RESTORE_ROWS(IN, OPT, OUT)                                                      \
    IN(table_new, "f32[V,D]", "", "all embeddings after a step")                                   \
    IN(table_old, "f32[V,D]", "", "and as they were")                                              \
    IN(ids, "i32[C]", "0 <= . < V", "rows of the new tokens")                                      \
    OUT(table_out, "f32[V,D]", "table_old, with rows ids of table_new")

BL_CONTRACT(cross_init_restore_rows, CROSS_INIT_RESTORE_ROWS,
            "undoes a step but for the new tokens")
{
    bl_tensor V = bl_full(graph, BL_I32, BL_SHAPE(bl_dim(f->table_old, 0)), 0);
    bl_tensor times = bl_add_at(V, f->ids, bl_ones_like(f->ids)); /* an id may come twice */
    f->table_out = bl_select(bl_expand(bl_gt(times, 0), 1), f->table_new, f->table_old);
}

const bl_method bl_cross_init = {
    .slug = "cross_init",
    .family = "generative",
    .paper = "Pang et al. 2024, arXiv 2312.15905",
    .summary = "(no arm) starts the search for a new word at the text encoder's own output",
    .when = "An input embedding of a frozen encoder is learned from few examples (textual "
            "inversion). One pass through the encoder, and a penalty on one or two vectors.",
    .functions = {&cross_init_loss_contract, &cross_init_reg_contract,
                  &cross_init_embedding_contract, &cross_init_encode_contract,
                  &cross_init_mean_name_contract, &cross_init_gap_contract,
                  &cross_init_restore_rows_contract},
    .example = "ballast show cross_init_loss",
};
