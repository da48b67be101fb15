/* DictAS. Qu et al., ICCV 2025, arXiv 2508.13560. Finds the defects of a thing of a class that
 * training never saw, given a few good pictures of it: each patch of the picture is rebuilt as a
 * sparse mixture of the good patches, and what cannot be rebuilt is anomalous. Two penalties in
 * training keep defects from being rebuilt as well. */
#include "methods/method.h"

/* --- the lookup ------------------------------------------------------------------------------- */

#define DICTAS_SPARSEMAX(IN, OPT, OUT)                                                             \
    IN(z, "f32[S...,M]", "grad", "scores")                                                         \
    OUT(p, "f32[S...,M]", "the point of the simplex nearest to each row")                          \
    OUT(support, "i32[S...]", "how many of a row are above 0")

BL_CONTRACT(dictas_sparsemax, DICTAS_SPARSEMAX, "projection of rows onto the simplex")
{
    char text[BL_TYPE_TEXT];
    if (bl_dim(f->z, -1) == 0) {
        bl_poison(graph, "z is %s, expected at least one score a row",
                  bl_type_text(bl_type_of(f->z), text));
        return;
    }
    f->p = bl_sparsemax(f->z);
    f->support = bl_sum(bl_cast(bl_gt(f->p, 0), BL_I32), -1);
}

#define DICTAS_LOOKUP(IN, OPT, OUT)                                                                \
    IN(f_q, "f32[B,N,C]", "grad", "queries: patches of the picture")                               \
    IN(f_k, "f32[B,M,C]", "grad", "keys: patches of good pictures")                                \
    IN(f_v, "f32[B,M,C]", "grad", "values of the same patches")                                    \
    OPT(sparse, 1, "flag", "sparsemax; else softmax")                                              \
    OUT(retrieved, "f32[B,N,C]", "attn f_v")                                                       \
    OUT(attn, "f32[B,N,M]", "sparsemax of f_q f_k^T / sqrt(C)")

BL_CONTRACT(dictas_lookup, DICTAS_LOOKUP, "rebuilds patches from a dictionary")
{
    if (bl_dim(f->f_k, 1) == 0 || bl_dim(f->f_k, 2) == 0) {
        char text[BL_TYPE_TEXT];
        bl_poison(graph, "f_k is %s, expected at least one patch with a feature",
                  bl_type_text(bl_type_of(f->f_k), text));
        return;
    }
    bl_tensor query = bl_div(f->f_q, sqrt((double)bl_dim(f->f_q, 2)));
    bl_tensor scores = bl_dot(query, f->f_k, false, true);
    f->attn = f->sparse ? bl_sparsemax(scores) : bl_softmax(scores, -1);
    f->retrieved = bl_dot(f->attn, f->f_v, false, false);
}

/* --- the generators of queries, keys and values ------------------------------------------------
 */

#define DICTAS_ATTN_BLOCK(IN, OPT, OUT)                                                            \
    IN(x, "f32[B,N,C]", "grad", "features of patches")                                             \
    IN(ln1_g, "f32[C]", "grad", "scale of the first norm")                                         \
    IN(ln1_b, "f32[C]", "grad", "shift")                                                           \
    IN(wq, "f32[C,C]", "grad", "queries")                                                          \
    IN(wk, "f32[C,C]", "grad", "keys")                                                             \
    IN(wv, "f32[C,C]", "grad", "values")                                                           \
    IN(w1, "f32[C,C]", "grad", "after the heads")                                                  \
    IN(b1, "f32[C]", "grad", "")                                                                   \
    IN(w2, "f32[C,C]", "grad", "before the second norm")                                           \
    IN(b2, "f32[C]", "grad", "")                                                                   \
    IN(ln2_g, "f32[C]", "grad", "scale of the second norm")                                        \
    IN(ln2_b, "f32[C]", "grad", "shift")                                                           \
    IN(w3, "f32[C,C]", "grad", "after it")                                                         \
    OPT(heads, 4, ">= 1", "divides C")                                                             \
    OPT(residual, 0, "flag", "add x: for values, not for queries and keys")                        \
    OUT(y, "f32[B,N,C]", "queries, keys or values")

/* Without a dropout of 0.1 before "+ h", which training has. Nothing between the linear maps bends.
 */
BL_CONTRACT(dictas_attn_block, DICTAS_ATTN_BLOCK,
            "a block of attention that makes queries of patches")
{
    const double epsilon = 1e-5;
    if (bl_dim(f->x, 2) % f->heads != 0) {
        bl_poison(graph, "option heads is %lld, expected a divisor of C (%lld)",
                  (long long)f->heads, (long long)bl_dim(f->x, 2));
        return;
    }
    bl_tensor h = bl_layer_normalize(f->x, f->ln1_g, f->ln1_b, epsilon);
    bl_tensor q = bl_linear(h, f->wq, bl_number(0)), k = bl_linear(h, f->wk, bl_number(0));
    bl_tensor v = bl_linear(h, f->wv, bl_number(0));
    bl_tensor o = bl_multi_head_attention(q, k, v, bl_number(1), f->heads);
    o = bl_add(bl_linear(o, f->w1, f->b1), h);
    o = bl_layer_normalize(bl_linear(o, f->w2, f->b2), f->ln2_g, f->ln2_b, epsilon);
    f->y = bl_linear(o, f->w3, bl_number(0));
    if (f->residual)
        f->y = bl_add(f->y, f->x);
}

#define DICTAS_AGGREGATE(IN, OPT, OUT)                                                             \
    IN(x, "f32[B,H,W,C]", "grad", "features on the grid of patches")                               \
    OPT(size, 3, ">= 1", "side of the neighbourhood")                                              \
    OUT(y, "f32[B,H,W,C]", "its mean; beyond the border are zeros, which count")

/* A convolution of every channel with one over the number of places. */
BL_CONTRACT(dictas_aggregate, DICTAS_AGGREGATE, "the mean over a patch's neighbourhood")
{
    int64_t before = (f->size - 1) / 2, after = f->size / 2, channels = bl_dim(f->x, 3);
    bl_conv_options each = {
        .low = {before, before}, .high = {after, after}, .groups = channels};
    bl_shape shape = BL_SHAPE(f->size, f->size, 1, channels);
    bl_tensor share = bl_full(graph, BL_F32, shape, 1 / ((double)f->size * (double)f->size));
    f->y = f->size == 1 ? f->x : bl_conv(f->x, share, each);
}

/* --- penalties -------------------------------------------------------------------------------- */

#define DICTAS_QUERY_LOSS(IN, OPT, OUT)                                                            \
    IN(f_q, "f32[B,N,C]", "grad, rows > 0", "features of patches")                                 \
    IN(retrieved, "f32[B,N,C]", "grad", "what the lookup makes of them")                           \
    IN(abnormal, "u8[B,N]", "in {0,1}", "1: the patch has a defect")                               \
    OUT(loss_query, "f32[]", "mean over images of the mean distance of normal patches")            \
    OUT(loss_cqc, "f32[]", "by how much they exceed the abnormal ones, mean over such images")     \
    OUT(dis, "f32[B,N]", "1 - cosine of f_q and retrieved")

/* Sum of dis over the patches with weight 1, divided by their number. */
static bl_tensor mean_of(bl_tensor dis, bl_tensor weight)
{
    bl_tensor sum = bl_sum(bl_mul(dis, weight), 1);
    return bl_div(sum, bl_add(bl_sum(weight, 1), 1e-6));
}

BL_CONTRACT(dictas_query_loss, DICTAS_QUERY_LOSS,
            "normal patches are rebuilt well, and better than abnormal ones")
{
    bl_tensor cosine = bl_mul(bl_unit_rows(f->f_q, 1e-8), bl_unit_rows(f->retrieved, 1e-8));
    bl_tensor abnormal = bl_cast(f->abnormal, BL_F32);
    f->dis = bl_sub(1, bl_sum(cosine, -1));

    bl_tensor n = mean_of(f->dis, bl_sub(1, abnormal)), a = mean_of(f->dis, abnormal);
    bl_tensor active = bl_and(bl_ne(a, 0), bl_gt(n, a));
    bl_tensor excess = bl_select(active, bl_sub(n, a), 0);
    f->loss_query = bl_mean(n);
    f->loss_cqc = bl_div(bl_sum(excess), bl_add(bl_sum(bl_cast(active, BL_F32)), 1e-6));
}

#define DICTAS_FUSE(IN, OPT, OUT)                                                                  \
    IN(f, "f32[L,B,N,C]", "grad", "features of L layers, each divided by its length")              \
    IN(wf, "f32[H,?]", "grad", "[H,L*C]: joins the layers")                                        \
    IN(bf, "f32[H]", "grad", "")                                                                   \
    IN(wc, "f32[1,H]", "grad", "score of a patch")                                                 \
    IN(bc, "f32[1]", "grad", "")                                                                   \
    IN(wp, "f32[E,H]", "grad", "to the width of the text")                                         \
    IN(bp, "f32[E]", "grad", "")                                                                   \
    OUT(g, "f32[B,E]", "one vector an image")

BL_CONTRACT(dictas_fuse, DICTAS_FUSE, "one vector an image, from the patches of all layers")
{
    bl_shape s = bl_type_of(f->f).shape;
    int64_t L = s.dim[0], B = s.dim[1], N = s.dim[2], C = s.dim[3];
    if (N == 0 || bl_dim(f->wf, 1) != L * C) {
        bl_poison(graph,
                  "wf has %lld columns and f %lld patches, expected L C (%lld) and at least 1",
                  (long long)bl_dim(f->wf, 1), (long long)N, (long long)(L * C));
        return;
    }
    bl_tensor joined = bl_reshape(bl_transpose(f->f, 1, 2, 0, 3), BL_SHAPE(B, N, L * C));
    bl_tensor x = bl_linear(joined, f->wf, f->bf);
    bl_tensor share = bl_softmax(bl_linear(x, f->wc, f->bc), 1);
    f->g = bl_linear(bl_sum(bl_mul(share, x), 1), f->wp, f->bp);
}

#define DICTAS_TEXT_LOSS(IN, OPT, OUT)                                                             \
    IN(g_q, "f32[B,E]", "grad, rows > 0", "fused features of the picture")                         \
    IN(g_r, "f32[B,E]", "grad", "fused retrieved features")                                        \
    IN(text, "f32[B,E,2]", "", "unit columns: of \"normal\" and of \"abnormal\"")                  \
    IN(anomalous, "i32[B]", "in {0,1}", "1: the picture has a defect")                             \
    OPT(temperature, 0.01, "(0,inf)", "divides the cosines")                                       \
    OUT(loss, "f32[]", "loss_q + loss_r")                                                          \
    OUT(loss_q, "f32[]", "the picture is told by the text")                                        \
    OUT(loss_r, "f32[]", "what is retrieved is normal")

BL_CONTRACT(dictas_text_loss, DICTAS_TEXT_LOSS, "aligns pictures with texts")
{
    bl_tensor both = bl_concat((bl_tensor[]){bl_expand(f->g_q, 1), bl_expand(f->g_r, 1)}, 2, 1);
    bl_tensor text = bl_stop_gradient(f->text), unit = bl_unit_rows(both, 1e-12);
    bl_tensor logits = bl_div(bl_dot(unit, text, false, false), f->temperature);
    f->loss_q = bl_cross_entropy(bl_pick(logits, 1, 0), f->anomalous);
    f->loss_r = bl_cross_entropy(bl_pick(logits, 1, 1), bl_zeros_like(f->anomalous));
    f->loss = bl_add(f->loss_q, f->loss_r);
}

/* --- the map of anomalies --------------------------------------------------------------------- */

#define DICTAS_ANOMALY_MAP(IN, OPT, OUT)                                                           \
    IN(sims, "f32[S,B,h,w]", "rows > 0", "cosines of patches and retrieved, layer by scale")       \
    OPT(size, BL_REQUIRED_INTEGER, ">= 1", "side of the picture")                                  \
    OPT(sigma, 6.0, "[0,inf)", "of the blur, in pixels; 0: none; not scheduled")                   \
    OUT(map, "f32[B,size,size]", "0: as in the good pictures, 1: opposite")

/* Resizing is linear, so that the mean over S may come first. */
BL_CONTRACT(dictas_anomaly_map, DICTAS_ANOMALY_MAP, "cosines of patches as a map of pixels")
{
    if (!bl_is_number(f->sigma)) {
        bl_poison(graph, "option sigma is scheduled, expected a number");
        return;
    }
    bl_tensor a = bl_sub(1, bl_div(bl_add(f->sims, 1), 2));
    bl_tensor map = bl_resize_aligned(bl_expand(bl_mean(a, 0), 3), f->size, f->size);
    double sigma = f->sigma.number, radius = floor(4 * sigma + 0.5);
    if (radius > 0)
        map = bl_gaussian_blur(map, sigma, (int64_t)fmin(radius, 1e9), false);
    f->map = bl_squeeze(map, 3);
}

/* --- defects that are pasted in training -------------------------------------------------------
 */

#define DICTAS_PERLIN(IN, OPT, OUT)                                                                \
    IN(angles, "f32[P,Q]", "", "of the slopes at the corners of P-1 x Q-1 cells")                  \
    OPT(size, BL_REQUIRED_INTEGER, ">= 1", "side of the picture")                                  \
    OPT(threshold, 0.5, "finite", "the mask is where the noise is above")                          \
    OUT(noise, "f32[size,size]", "smooth, 0 at corners")                                           \
    OUT(mask, "u8[size,size]", "shape of a defect")

/* A line of pixels crossing `cells` cells: in which each lies, and where in it. */
typedef struct crossing {
    bl_tensor cell, within;
} crossing;

static crossing crossing_of(bl_graph *graph, int64_t size, int64_t cells)
{
    bl_tensor i = bl_iota(graph, BL_F64, BL_SHAPE(size), 0);
    bl_tensor at = bl_div(bl_mul(i, (double)cells), (double)size), whole = bl_floor(at);
    return (crossing){bl_cast(whole, BL_I32), bl_sub(at, whole)};
}

/* table[row[i], column[j]] */
static bl_tensor taken(bl_tensor table, bl_tensor row, bl_tensor column)
{
    bl_tensor rows = bl_transpose(bl_take(table, row), 1, 0);
    return bl_transpose(bl_take(rows, column), 1, 0);
}

/* What the slope at corner (dy,dx) of its cell says of each pixel. */
static bl_tensor slope_of_corner(bl_tensor angles, const crossing *y, const crossing *x, int dy,
                                 int dx)
{
    bl_tensor angle = taken(angles, bl_add(y->cell, dy), bl_add(x->cell, dx));
    bl_tensor down = bl_expand(bl_sub(y->within, dy), 1), right = bl_sub(x->within, dx);
    return bl_add(bl_mul(bl_cos(angle), down), bl_mul(bl_sin(angle), right));
}

/* 6 t^5 - 15 t^4 + 10 t^3, from 0 to 1 with no slope or curvature at the ends */
static bl_tensor fade(bl_tensor t)
{
    bl_tensor cube = bl_mul(t, bl_square(t));
    return bl_mul(cube, bl_add(bl_mul(t, bl_sub(bl_mul(6, t), 15)), 10));
}

/* (1 - share) a + share b */
static bl_tensor between(bl_tensor a, bl_tensor b, bl_tensor share)
{
    return bl_add(bl_mul(bl_sub(1, share), a), bl_mul(share, b));
}

BL_CONTRACT(dictas_perlin, DICTAS_PERLIN, "Perlin noise, and where it is high")
{
    int64_t P = bl_dim(f->angles, 0), Q = bl_dim(f->angles, 1);
    char text[BL_TYPE_TEXT];
    if (P < 2 || Q < 2) {
        bl_poison(graph, "angles is %s, expected at least two corners a side",
                  bl_type_text(bl_type_of(f->angles), text));
        return;
    }
    bl_tensor angles = bl_cast(f->angles, BL_F64), n[2][2];
    crossing y = crossing_of(graph, f->size, P - 1), x = crossing_of(graph, f->size, Q - 1);
    for (int dy = 0; dy < 2; dy++)
        for (int dx = 0; dx < 2; dx++)
            n[dy][dx] = slope_of_corner(angles, &y, &x, dy, dx);
    bl_tensor down = bl_expand(fade(y.within), 1);
    bl_tensor left = between(n[0][0], n[1][0], down), right = between(n[0][1], n[1][1], down);
    bl_tensor noise = bl_mul(sqrt(2), between(left, right, fade(x.within)));
    f->noise = bl_cast(noise, BL_F32);
    f->mask = bl_cast(bl_gt(noise, bl_cast(f->threshold, BL_F64)), BL_U8);
}

#define DICTAS_SYNTHESIZE(IN, OPT, OUT)                                                            \
    IN(image, "f32[B,H,W,Ch]", "", "pictures")                                                     \
    IN(source, "f32[B,H,W,Ch]", "", "what the defects are made of")                                \
    IN(mask, "u8[B,H,W]", "", "where they are: not 0")                                             \
    IN(beta, "f32[B]", "0 <= . <= 0.8", "share of the picture that shows through")                 \
    OUT(augmented, "f32[B,H,W,Ch]", "image, (1 - beta) source + beta image within the mask")

BL_CONTRACT(dictas_synthesize, DICTAS_SYNTHESIZE, "pastes defects into pictures")
{
    bl_tensor beta = bl_reshape(f->beta, BL_SHAPE(bl_dim(f->beta, 0), 1, 1, 1));
    bl_tensor inside = bl_expand(bl_ne(f->mask, 0), 3);
    f->augmented = bl_select(inside, between(f->source, f->image, beta), f->image);
}

const bl_method bl_dictas = {
    .slug = "dictas",
    .family = "generative",
    .paper = "Qu et al. 2025, arXiv 2508.13560",
    .summary = "(no arm) finds defects by rebuilding patches from those of a few good pictures",
    .when =
        "Many kinds of products are inspected and there are a few good pictures of each, but no "
        "time to train for each. A lookup costs a score for each pair of patches.",
    .functions = {&dictas_query_loss_contract, &dictas_text_loss_contract, &dictas_lookup_contract,
                  &dictas_sparsemax_contract, &dictas_attn_block_contract,
                  &dictas_aggregate_contract, &dictas_fuse_contract, &dictas_anomaly_map_contract,
                  &dictas_perlin_contract, &dictas_synthesize_contract},
    .example = "ballast show dictas_query_loss",
};
