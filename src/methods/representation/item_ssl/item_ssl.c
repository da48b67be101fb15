/* Self-supervised item recommendation. Yao, Yi, Cheng, Yu, Chen, Menon, Hong, Chi, Tjoa, Kang,
 * Ettinger, CIKM 2021, arXiv 2007.12865. Most items of a catalogue have almost no feedback. Their
 * features alone give a second task: hide some of an item's features in one view and the others in
 * another, and let the two encodings find each other in the batch. Features that tell each other
 * are hidden together (correlated feature masking), or the task would be solved by a near copy. */
#include "methods/method.h"
#include "ballast/solve.h"

#define ITEM_SSL_MUTUAL_INFORMATION(IN, OPT, OUT)                                                  \
    IN (codes, "i32[M,k]", "rows > 0, >= 0", "categorical features of the items")                  \
    IN (cards, "i32[k]",   ">= 1",           "how many values each feature has")                   \
    OUT(mi,    "f32[k,k]",                   "in nats; entropies on the diagonal")

struct item_ssl_mutual_information;
static bl_status fill_information(struct item_ssl_mutual_information *f, const int32_t *feature);

BL_HOST(item_ssl_mutual_information, ITEM_SSL_MUTUAL_INFORMATION, "which features tell each other")
{
    int64_t m = f->codes.type.shape.dim[0], k = f->codes.type.shape.dim[1];
    BL_TRY(bl_codes_check(&f->codes, "codes", &f->cards));
    size_t bytes = (size_t)(m * k + 1) * sizeof(int32_t);
    int32_t *feature = bl_alloc(bytes); /* [k,m] */
    if (!feature)
        return bl_no_memory(bytes);
    for (int64_t i = 0; i < m * k; i++)
        feature[i % k * m + i / k] = bl_i32(&f->codes)[i];
    bl_status status = fill_information(f, feature);
    bl_release(feature);
    return status;
}

/* I(i;i) is the entropy of i. */
static bl_status fill_information(struct item_ssl_mutual_information *f, const int32_t *feature)
{
    int64_t m = f->codes.type.shape.dim[0], k = f->codes.type.shape.dim[1];
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) {
            double mi;
            BL_TRY(bl_mutual_information(feature + i * m, feature + j * m, m, &mi));
            bl_array_set(&f->mi, i * k + j, fmax(mi, 0));
            bl_array_set(&f->mi, j * k + i, fmax(mi, 0));
        }
    return BL_OK;
}

#define ITEM_SSL_CFM_MASK(IN, OPT, OUT)                                                            \
    IN (mi,     "f32[k,k]", "rows > 0, finite", "mutual information of the features")              \
    IN (seed,   "i32[]",    "0 <= . < k",       "a feature, drawn for the batch")                  \
    OPT(n,      -1,         ">= -1",            "how many others are hidden with it; -1: half of " \
                                                "all")                                             \
    OUT(mask_h, "u8[k]",                        "1: hidden in the first view")                     \
    OUT(mask_g, "u8[k]",                        "hidden in the second: the others")

BL_CONTRACT(item_ssl_cfm_mask, ITEM_SSL_CFM_MASK, "hides a feature and those that tell it")
{
    int64_t k = bl_dim(f->mi, 0), n = f->n < 0 ? k / 2 : f->n;
    if (n > k - 1) {
        bl_poison(graph, "option n is %lld, expected at most %lld, the other features",
                  (long long)n, (long long)k - 1);
        return;
    }
    bl_tensor row = bl_squeeze(bl_take(f->mi, bl_reshape(f->seed, BL_SHAPE(1))), 0);
    bl_tensor is_seed = bl_eq(bl_iota(graph, BL_I32, BL_SHAPE(k), 0), f->seed);
    bl_tensor order = bl_argsort(bl_select(is_seed, INFINITY, row), 0, true); /* the seed first */
    bl_tensor hidden = bl_le(bl_inverse_permutation(order), (double)n);
    f->mask_h = bl_cast(hidden, BL_U8);
    f->mask_g = bl_cast(bl_not(hidden), BL_U8);
}

#define ITEM_SSL_RFM_MASK(IN, OPT, OUT)                                                            \
    IN (perm,   "i32[k]", "permutation", "of the features, drawn for the batch")                   \
    OUT(mask_h, "u8[k]",                 "1 on the first half of perm: hidden in the first view")  \
    OUT(mask_g, "u8[k]",                 "hidden in the second: the others")

BL_CONTRACT(item_ssl_rfm_mask, ITEM_SSL_RFM_MASK, "hides a random half of the features")
{
    bl_tensor place = bl_inverse_permutation(f->perm);
    bl_tensor hidden = bl_lt(place, (double)(bl_dim(f->perm, 0) / 2));
    f->mask_h = bl_cast(hidden, BL_U8);
    f->mask_g = bl_cast(bl_not(hidden), BL_U8);
}

#define ITEM_SSL_AUGMENT(IN, OPT, OUT, IN_AS)                                                      \
    IN   (emb,                 "f32[N,k,L,D]", "grad",     "embeddings of a feature's values")     \
    IN   (valid,               "u8[N,k,L]",    "in {0,1}", "1: there is a value")                  \
    IN   (keep,                "u8[N,k,L]",    "in {0,1}", "0: dropped in this view")              \
    IN   (mask,                "u8[k]",        "in {0,1}", "1: the feature is hidden in this view")\
    IN_AS(fallback, "default", "f32[k,D]",     "grad",     "in place of a hidden feature")         \
    OUT  (features,            "f32[N,?]",                 "k D numbers, feature by feature")

BL_CONTRACT_NAMED(item_ssl_augment, ITEM_SSL_AUGMENT, "the features of one view")
{
    bl_tensor weight = bl_cast(bl_mul(bl_cast(f->valid, BL_I32), bl_cast(f->keep, BL_I32)), BL_F32);
    bl_tensor count = bl_max(bl_sum_keep(weight, -1), 1);
    bl_tensor pooled = bl_div(bl_sum(bl_mul(bl_expand(weight, -1), f->emb), 2), count);
    bl_tensor hidden = bl_expand(bl_ne(bl_cast(f->mask, BL_I32), 0), -1);
    bl_tensor feature = bl_select(hidden, f->fallback, pooled);
    bl_shape rows = BL_SHAPE(bl_dim(f->emb, 0), bl_dim(f->emb, 1) * bl_dim(f->emb, 3));
    f->features = bl_reshape(feature, rows);
}

/* --- losses ----------------------------------------------------------------------------------- */

/* s_ij = sim(z_i, zp_j) / tau */
static bl_tensor similarities(bl_tensor z, bl_tensor zp, const char *similarity, bl_tensor tau)
{
    bool cosine = bl_is(similarity, "cosine");
    bl_tensor a = cosine ? bl_unit_rows(z, 1e-12) : z, b = cosine ? bl_unit_rows(zp, 1e-12) : zp;
    return bl_div(bl_dot(a, b, false, true), tau);
}

/* -(1/N) sum over i of log softmax_j(s_ij) at j = i */
static bl_tensor find_own(bl_graph *graph, bl_tensor s)
{
    return bl_cross_entropy(s, bl_iota(graph, BL_I32, BL_SHAPE(bl_dim(s, 0)), 0));
}

#define ITEM_SSL_CONTRASTIVE(IN, OPT, OUT)                                                         \
    IN (z,          "f32[N,D]", "grad, rows > 0", "encodings of the items in the first view")      \
    IN (zp,         "f32[N,D]", "grad",           "in the second")                                 \
    OPT(tau,        0.07,       "(0,inf)",        "temperature")                                   \
    OPT(similarity, "cosine",   "cosine|dot",     "")                                              \
    OUT(loss,       "f32[]",                      "cross-entropy of finding one's own second view")

BL_CONTRACT(item_ssl_contrastive, ITEM_SSL_CONTRASTIVE, "views of an item find each other")
{
    f->loss = find_own(graph, similarities(f->z, f->zp, f->similarity, f->tau));
}

#define ITEM_SSL_BATCH_SOFTMAX(IN, OPT, OUT)                                                       \
    IN (q,               "f32[N,D]", "grad, rows > 0", "encoded queries")                          \
    IN (x,               "f32[N,D]", "grad",           "encoded items, the right one of each")     \
    IN (log_p,           "f32[N]",   "",               "log of how often the item is drawn")       \
    IN (item,            "i32[N]",   "",               "which item it is")                         \
    OPT(tau,             0.07,       "(0,inf)",        "temperature")                              \
    OPT(similarity,      "cosine",   "cosine|dot",     "")                                         \
    OPT(logq,            0,          "flag",           "subtract log_p: popular items are drawn "  \
                                                       "more often")                               \
    OPT(mask_duplicates, 0,          "flag",           "the same item in other rows is not wrong") \
    OUT(loss,            "f32[]",                      "cross-entropy of finding the right item")

BL_CONTRACT(item_ssl_batch_softmax, ITEM_SSL_BATCH_SOFTMAX, "queries find their items")
{
    int64_t n = bl_dim(f->q, 0);
    bl_tensor s = similarities(f->q, f->x, f->similarity, f->tau);
    if (f->logq)
        s = bl_sub(s, bl_expand(bl_stop_gradient(f->log_p), 0));
    if (f->mask_duplicates) {
        bl_tensor other = bl_ne(bl_iota(graph, BL_I32, BL_SHAPE(n, n), 0),
                                bl_iota(graph, BL_I32, BL_SHAPE(n, n), 1));
        bl_tensor same = bl_eq(bl_expand(f->item, 1), bl_expand(f->item, 0));
        s = bl_select(bl_and(other, same), -INFINITY, s);
    }
    f->loss = find_own(graph, s);
}

#define ITEM_SSL_SPREADOUT(IN, OPT, OUT)                                                           \
    IN (x,    "f32[N,D]", "grad, rows > 0", "encoded items")                                       \
    OPT(tau,  1.0,        "(0,inf)",        "temperature")                                         \
    OUT(loss, "f32[]",                      "contrastive loss of x with itself")

BL_CONTRACT(item_ssl_spreadout, ITEM_SSL_SPREADOUT, "the baseline: items away from each other")
{
    f->loss = find_own(graph, similarities(f->x, f->x, "cosine", f->tau));
}

#define ITEM_SSL_TOTAL(IN, OPT, OUT)                                                               \
    IN (q,     "f32[N,D]", "grad, rows > 0", "encoded queries")                                    \
    IN (x,     "f32[N,D]", "grad",           "encoded items, the right one of each")               \
    IN (z,     "f32[M,C]", "grad, rows > 0", "items drawn uniformly, in the first view")           \
    IN (zp,    "f32[M,C]", "grad",           "in the second")                                      \
    OPT(tau,   0.07,       "(0,inf)",        "temperature of both")                                \
    OPT(alpha, 0.1,        "[0,inf)",        "weight of ssl")                                      \
    OUT(loss,  "f32[]",                      "main + alpha ssl")                                   \
    OUT(main,  "f32[]",                      "queries find their items")                           \
    OUT(ssl,   "f32[]",                      "views find each other")

BL_CONTRACT(item_ssl_total, ITEM_SSL_TOTAL, "supervised and self-supervised loss")
{
    f->main = find_own(graph, similarities(f->q, f->x, "cosine", f->tau));
    f->ssl  = find_own(graph, similarities(f->z, f->zp, "cosine", f->tau));
    f->loss = bl_add(f->main, bl_mul(f->alpha, f->ssl));
}

#define ITEM_SSL_RANKING(IN, OPT, OUT)                                                             \
    IN (scores, "f32[Q,I]",          "rows > 0, no NaN", "of every item for every query")          \
    IN (target, "i32[Q]",            "0 <= . < I",       "the right item")                         \
    OPT(k,      BL_REQUIRED_INTEGER, ">= 1",             "how many are shown")                     \
    OUT(recall, "f32[]", "share of queries with the right item among them")                        \
    OUT(map,    "f32[]", "mean of 1 / rank, 0 where it is not among them")

/* rank = 1 + items that score more + earlier items that score the same */
BL_CONTRACT(item_ssl_ranking, ITEM_SSL_RANKING, "how high the right items are ranked")
{
    bl_tensor target = bl_expand(f->target, 1);
    bl_tensor own = bl_take_along(f->scores, target, 1);
    bl_tensor item = bl_iota(graph, BL_I32, bl_type_of(f->scores).shape, 1);
    bl_tensor tied = bl_and(bl_eq(f->scores, own), bl_lt(item, target));
    bl_tensor before = bl_or(bl_gt(f->scores, own), tied);
    bl_tensor rank = bl_add(1, bl_sum(bl_cast(before, BL_F32), 1));
    bl_tensor shown = bl_le(rank, (double)f->k);
    f->recall = bl_mean(bl_cast(shown, BL_F32));
    f->map = bl_mean(bl_select(shown, bl_div(1, rank), 0));
}

const bl_method bl_item_ssl = {
    .slug = "item_ssl",
    .family = "representation",
    .paper = "Yao et al. 2021, arXiv 2007.12865",
    .summary = "(no arm) learns items that have little feedback from their features alone",
    .when = "Retrieval from a large catalogue, two towers, most items seen rarely. Costs two more "
            "encodings of a batch of items and a table of their similarities.",
    .functions = {&item_ssl_total_contract, &item_ssl_contrastive_contract,
                  &item_ssl_batch_softmax_contract, &item_ssl_spreadout_contract,
                  &item_ssl_augment_contract, &item_ssl_cfm_mask_contract,
                  &item_ssl_rfm_mask_contract, &item_ssl_mutual_information_contract,
                  &item_ssl_ranking_contract},
    .example = "ballast show item_ssl_total",
};
