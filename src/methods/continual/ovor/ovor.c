/* OVOR: one prompt and virtual outliers. Huang, Chen, Hsu, ICLR 2024, arXiv 2402.04129. Classes
 * come in tasks and no data are stored. The heads of different tasks are never trained against each
 * other, so their logits overlap; after each task its head is tuned on the task's features and on
 * virtual outliers around them, so that energy is low on the former and high on the latter. One
 * prompt, shared by all tasks, adapts a frozen transformer.
 *
 * The official generator forgets to add the points that it draws around: center = origin with
 * normalize_query = false is what it computes, the default is what is meant. */
#include "methods/method.h"
#include "ballast/solve.h"

/* --- outliers --------------------------------------------------------------------------------- */

/* a as doubles; rows of unit length if asked for (|row| < 1e-12 counts as that). NULL if memory is
 * short. */
static double *rows_of(const bl_array *a, bool unit)
{
    int64_t rows = a->type.shape.dim[0], size = a->type.shape.dim[1];
    double *out = bl_alloc((size_t)(rows * size + 1) * sizeof *out);
    for (int64_t i = 0; out && i < rows; i++) {
        double *row = out + i * size, square = 0;
        for (int64_t d = 0; d < size; d++) {
            row[d] = bl_array_get(a, i * size + d);
            square += row[d] * row[d];
        }
        for (int64_t d = 0; d < size && unit; d++)
            row[d] /= fmax(sqrt(square), 1e-12);
    }
    return out;
}

/* distance[i] = squared distance of query i to its k-th nearest of rows. */
static bl_status knn_distances(const double *query, int64_t queries, const double *rows,
                               int64_t count, int64_t size, int64_t k, double *distance)
{
    double *all = bl_alloc((size_t)(queries * k + 1) * sizeof *all);
    if (!all)
        return bl_no_memory((size_t)(queries * k + 1) * sizeof *all);
    bl_status status = bl_nearest_rows(query, queries, rows, count, size, k, NULL, all);
    for (int64_t i = 0; i < queries && status == BL_OK; i++)
        distance[i] = all[i * k + k - 1];
    bl_release(all);
    return status;
}

static bl_status check_k(int64_t k, int64_t rows, const char *name)
{
    if (k <= rows)
        return BL_OK;
    return bl_fail(BL_INVALID, "option k is %lld, expected at most the rows of %s (%lld)",
                   (long long)k, name, (long long)rows);
}

#define OVOR_KNN_DISTANCE(IN, OPT, OUT)                                                            \
    IN(query, "f32[Q,D]", "", "points")                                                            \
    IN(ref, "f32[N,D]", "", "points that distances are measured to; a query may be one")           \
    OPT(k, 50, ">= 1", "which neighbour")                                                          \
    OUT(dist, "f32[Q]", "squared distance to the k-th nearest")

BL_HOST(ovor_knn_distance, OVOR_KNN_DISTANCE, "squared distance to the k-th nearest neighbour")
{
    int64_t Q = f->query.type.shape.dim[0], N = f->ref.type.shape.dim[0];
    BL_TRY(check_k(f->k, N, "ref"));
    double *query = rows_of(&f->query, false), *ref = rows_of(&f->ref, false);
    double *distance = bl_alloc((size_t)(Q + 1) * sizeof *distance);
    bl_status status =
        query && ref && distance
            ? knn_distances(query, Q, ref, N, f->ref.type.shape.dim[1], f->k, distance)
            : bl_no_memory((size_t)(Q + N) * sizeof *distance);
    for (int64_t i = 0; i < Q && status == BL_OK; i++)
        bl_array_set(&f->dist, i, distance[i]);
    bl_release(query);
    bl_release(ref);
    bl_release(distance);
    return status;
}

/* index[count] of the largest scores[n], largest first, ties to the lower index. Negates scores. */
static bl_status largest(double *scores, int64_t n, int64_t count, int32_t *index)
{
    int64_t *order = bl_alloc((size_t)(n + 1) * sizeof *order);
    if (!order)
        return bl_no_memory((size_t)(n + 1) * sizeof *order);
    for (int64_t i = 0; i < n; i++)
        scores[i] = -scores[i];
    bl_status status = bl_ascending_order(scores, n, order);
    for (int64_t i = 0; i < count && status == BL_OK; i++)
        index[i] = (int32_t)order[i];
    bl_release(order);
    return status;
}

/* What ovor_outliers works on; sizes as in its table. */
typedef struct outliers {
    int64_t N, M, D, k, select, n_out;
    bool around_boundary, normalize;
    double sigma;
    const float *feats, *noise;
    double *unit;  /* [N,D] the features, of unit length */
    double *score; /* [max(N, select M)]; negative once sorted */
    double *query; /* [M,D] the candidates of one boundary point */
    int32_t *boundary, *kept;
} outliers;

static double candidate(const outliers *o, int64_t s, int64_t m, int64_t d)
{
    double at = o->around_boundary ? (double)o->feats[o->boundary[s] * o->D + d] : 0;
    return at + o->sigma * (double)o->noise[m * o->D + d];
}

/* The candidates around boundary point s, normalised if asked for. */
static void fill_queries(outliers *o, int64_t s)
{
    for (int64_t m = 0; m < o->M; m++) {
        double *row = o->query + m * o->D, square = 0;
        for (int64_t d = 0; d < o->D; d++) {
            row[d] = candidate(o, s, m, d);
            square += row[d] * row[d];
        }
        for (int64_t d = 0; d < o->D && o->normalize; d++)
            row[d] /= fmax(sqrt(square), 1e-12);
    }
}

static bl_status find_outliers(outliers *o)
{
    BL_TRY(knn_distances(o->unit, o->N, o->unit, o->N, o->D, o->k, o->score));
    BL_TRY(largest(o->score, o->N, o->select, o->boundary));
    for (int64_t s = 0; s < o->select; s++) {
        fill_queries(o, s);
        BL_TRY(knn_distances(o->query, o->M, o->unit, o->N, o->D, o->k, o->score + s * o->M));
    }
    return largest(o->score, o->select * o->M, o->n_out, o->kept);
}

#define OVOR_OUTLIERS(IN, OPT, OUT)                                                                \
    IN(feats, "f32[N,D]", "rows > 0", "features of the current task")                              \
    IN(noise, "f32[M,D]", "", "standard normal draws")                                             \
    OPT(k, 50, ">= 1", "which neighbour measures")                                                 \
    OPT(select, 50, ">= 1", "boundary points; at most N")                                          \
    OPT(n_out, BL_REQUIRED_INTEGER, ">= 1", "40 for each class is usual")                          \
    OPT(sigma, 0.1, "(0,inf)", "standard deviation of the noise")                                  \
    OPT(center, "boundary", "boundary|origin", "origin: the official code")                        \
    OPT(normalize_query, 1, "flag", "false: the official code")                                    \
    OUT(outliers, "f32[?,D]", "the candidates furthest from the features")                         \
    OUT(index, "i32[?]", "s M + m: noise m at boundary point s")                                   \
    OUT(boundary, "i32[?]", "features furthest from the others, furthest first")                   \
    OUT(dist, "f32[?]", "squared k-th distance of each, largest first")

struct ovor_outliers;
static bl_status write_outliers(struct ovor_outliers *f, const outliers *o);

BL_HOST(ovor_outliers, OVOR_OUTLIERS, "virtual outliers around the features of a task")
{
    outliers o = {.N = f->feats.type.shape.dim[0],
                  .M = f->noise.type.shape.dim[0],
                  .D = f->feats.type.shape.dim[1],
                  .k = f->k,
                  .sigma = f->sigma,
                  .around_boundary = bl_is(f->center, "boundary"),
                  .normalize = f->normalize_query != 0,
                  .feats = bl_f32(&f->feats),
                  .noise = bl_f32(&f->noise)};
    o.select = f->select < o.N ? f->select : o.N;
    o.n_out = f->n_out < o.select * o.M ? f->n_out : o.select * o.M;
    BL_TRY(check_k(f->k, o.N, "feats"));
    int64_t scores = o.N > o.select * o.M ? o.N : o.select * o.M;
    o.unit = rows_of(&f->feats, true);
    o.score = bl_alloc((size_t)scores * sizeof *o.score);
    o.query = bl_alloc((size_t)(o.M * o.D + 1) * sizeof *o.query);
    o.boundary = bl_alloc((size_t)o.select * sizeof *o.boundary);
    o.kept = bl_alloc((size_t)(o.n_out + 1) * sizeof *o.kept);
    bool room = o.unit && o.score && o.query && o.boundary && o.kept;
    bl_status status = room ? find_outliers(&o) : bl_no_memory((size_t)scores * sizeof *o.score);
    if (status == BL_OK)
        status = write_outliers(f, &o);
    bl_release(o.unit);
    bl_release(o.score);
    bl_release(o.query);
    bl_release(o.boundary);
    bl_release(o.kept);
    return status;
}

static bl_status write_outliers(struct ovor_outliers *f, const outliers *o)
{
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(o->n_out, o->D), &f->outliers));
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(o->n_out), &f->index));
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(o->select), &f->boundary));
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(o->n_out), &f->dist));
    for (int64_t s = 0; s < o->select; s++)
        bl_i32(&f->boundary)[s] = o->boundary[s];
    for (int64_t i = 0; i < o->n_out; i++) {
        int64_t c = o->kept[i];
        bl_i32(&f->index)[i] = o->kept[i];
        bl_array_set(&f->dist, i, -o->score[c]);
        for (int64_t d = 0; d < o->D; d++)
            bl_array_set(&f->outliers, i * o->D + d, candidate(o, c / o->M, c % o->M, d));
    }
    return BL_OK;
}

/* --- losses ----------------------------------------------------------------------------------- */

#define OVOR_LOSS(IN, OPT, OUT)                                                                    \
    IN(id_logits, "f32[B,K]", "grad, rows > 0", "of features; the current task's columns only")    \
    IN(ood_logits, "f32[M,K]", "grad, rows > 0", "of outliers; likewise")                          \
    OPT(lmda, 0.1, "[0,inf)", "weight of the term")                                                \
    OPT(thres_id, -15.0, "", "features' energy should be below")                                   \
    OPT(thres_ood, -3.0, "", "outliers' energy should be above")                                   \
    OPT(penalty, "huber", "huber|square", "of what is on the wrong side")                          \
    OUT(loss, "f32[]", "lmda (mean rho of features + mean rho of outliers)")                       \
    OUT(id_score, "f32[]", "mean energy of features")                                              \
    OUT(ood_score, "f32[]", "mean energy of outliers")

/* Mean penalty of the positive part of excess[B]: x^2 / 2 below 1, x - 1/2 from there on; or x^2.
 */
static bl_tensor mean_penalty(bl_tensor excess, const char *penalty)
{
    bl_tensor x = bl_relu(excess), square = bl_square(x);
    if (bl_is(penalty, "square"))
        return bl_mean(square);
    return bl_mean(bl_select(bl_lt(x, 1), bl_mul(0.5, square), bl_sub(x, 0.5)));
}

BL_CONTRACT(ovor_loss, OVOR_LOSS, "low energy on features, high energy on outliers")
{
    if (bl_dim(f->id_logits, 1) == 0) {
        bl_poison(graph, "id_logits have no columns, expected f32[B,K] with K >= 1");
        return;
    }
    bl_tensor id = bl_neg(bl_logsumexp(f->id_logits, -1));
    bl_tensor ood = bl_neg(bl_logsumexp(f->ood_logits, -1));

    f->loss = bl_mul(f->lmda, bl_add(mean_penalty(bl_sub(id, f->thres_id), f->penalty),
                                     mean_penalty(bl_sub(f->thres_ood, ood), f->penalty)));
    f->id_score = bl_mean(id);
    f->ood_score = bl_mean(ood);
}

#define OVOR_MASKED_CE(IN, OPT, OUT)                                                               \
    IN(logits, "f32[B,C]", "grad, rows > 0", "over all classes")                                   \
    IN(y, "i32[B]", "lo <= . < hi", "class, counted over all tasks")                               \
    OPT(lo, BL_REQUIRED_INTEGER, ">= 0", "first class of the current task")                        \
    OPT(hi, BL_REQUIRED_INTEGER, "> lo", "one more than its last; at most C")                      \
    OUT(loss, "f32[]", "mean cross-entropy over columns lo .. hi-1")

BL_CONTRACT(ovor_masked_ce, OVOR_MASKED_CE, "cross-entropy among the classes of one task")
{
    int64_t classes = bl_dim(f->logits, 1);
    if (f->hi > classes) {
        bl_poison(graph, "option hi is %lld, expected at most the columns of logits (%lld)",
                  (long long)f->hi, (long long)classes);
        return;
    }
    bl_tensor own = bl_slice_axis(f->logits, 1, f->lo, f->hi);
    f->loss = bl_cross_entropy(own, bl_sub(f->y, (double)f->lo));
}

/* --- attention with a prompt ------------------------------------------------------------------ */

#define OVOR_PREFIX_ATTENTION(IN, OPT, OUT)                                                        \
    IN(x, "f32[N,T,D]", "grad", "tokens")                                                          \
    IN(wqkv, "f32[?,D]", "grad", "[3D,D]: queries, keys and values")                               \
    IN(bqkv, "f32[?]", "grad", "[3D]")                                                             \
    IN(wproj, "f32[D,D]", "grad", "after the heads are joined")                                    \
    IN(bproj, "f32[D]", "grad", "")                                                                \
    IN(prompt, "f32[P,D]", "grad", "P/2 keys, then P/2 values, used as they are")                  \
    OPT(heads, BL_REQUIRED_INTEGER, ">= 1", "divides D")                                           \
    OUT(out, "f32[N,T,D]", "attention over prompt and tokens, projected")

static bool prefix_fits(bl_tensor x, bl_tensor wqkv, bl_tensor bqkv, bl_tensor prompt,
                        int64_t heads)
{
    int64_t T = bl_dim(x, 1), D = bl_dim(x, 2), P = bl_dim(prompt, 0);
    if (T == 0 || D == 0 || D % heads != 0)
        bl_poison(x.graph,
                  "x has %lld tokens of size %lld, expected at least one, of a size that "
                  "%lld heads divide",
                  (long long)T, (long long)D, (long long)heads);
    else if (P % 2 != 0)
        bl_poison(x.graph, "prompt has %lld rows, expected an even number: keys, then values",
                  (long long)P);
    else if (bl_dim(wqkv, 0) != 3 * D || bl_dim(bqkv, 0) != 3 * D)
        bl_poison(x.graph, "wqkv and bqkv have %lld and %lld rows, expected 3 D (%lld)",
                  (long long)bl_dim(wqkv, 0), (long long)bl_dim(bqkv, 0), (long long)(3 * D));
    else
        return true;
    return false;
}

/* [N,T,D] -> [N,heads,T,D/heads] */
static bl_tensor split_heads(bl_tensor x, int64_t heads)
{
    bl_tensor apart =
        bl_reshape(x, BL_SHAPE(bl_dim(x, 0), bl_dim(x, 1), heads, bl_dim(x, 2) / heads));
    return bl_transpose(apart, 0, 2, 1, 3);
}

/* Part 0, 1 or 2 (queries, keys, values) of qkv[N,T,3D]. */
static bl_tensor third(bl_tensor qkv, int part)
{
    int64_t D = bl_dim(qkv, 2) / 3;
    return bl_slice_axis(qkv, 2, part * D, (part + 1) * D);
}

/* The same prompt rows before the tokens of every sample. */
static bl_tensor with_prefix(bl_tensor prompt, int64_t first, int64_t stop, bl_tensor tokens)
{
    if (first == stop)
        return tokens;
    bl_tensor rows = bl_expand(bl_slice_axis(prompt, 0, first, stop), 0);
    rows = bl_broadcast(rows, BL_SHAPE(bl_dim(tokens, 0), stop - first, bl_dim(tokens, 2)));
    return bl_concat((bl_tensor[]){rows, tokens}, 2, 1);
}

BL_CONTRACT(ovor_prefix_attention, OVOR_PREFIX_ATTENTION, "multi-head attention with one prompt")
{
    int64_t N = bl_dim(f->x, 0), T = bl_dim(f->x, 1), D = bl_dim(f->x, 2), P = bl_dim(f->prompt, 0);
    if (!prefix_fits(f->x, f->wqkv, f->bqkv, f->prompt, f->heads))
        return;
    bl_tensor tokens = bl_reshape(f->x, BL_SHAPE(N * T, D));
    bl_tensor qkv = bl_linear(tokens, f->wqkv, f->bqkv);
    qkv = bl_reshape(qkv, BL_SHAPE(N, T, 3 * D));
    bl_tensor q = split_heads(third(qkv, 0), f->heads);
    bl_tensor k = split_heads(with_prefix(f->prompt, 0, P / 2, third(qkv, 1)), f->heads);
    bl_tensor v = split_heads(with_prefix(f->prompt, P / 2, P, third(qkv, 2)), f->heads);

    bl_tensor joined = bl_transpose(bl_attention(q, k, v, bl_number(1)), 0, 2, 1, 3);
    joined = bl_dot(bl_reshape(joined, BL_SHAPE(N * T, D)), f->wproj, false, true);
    f->out = bl_reshape(bl_add(joined, f->bproj), BL_SHAPE(N, T, D));
}

/* --- schedule and metrics --------------------------------------------------------------------- */

#define OVOR_SCHEDULE(IN, OPT, OUT)                                                                \
    IN(epoch, "f32[n]", "", "epochs done")                                                         \
    OPT(base_lr, 1e-3, "[0,inf)", "at the first epoch")                                            \
    OPT(total, 50, ">= 2", "epochs of the task")                                                   \
    OUT(lr, "f32[n]", "base cos(99 pi epoch / (200 (total - 1))): ends at 1.6 %")

BL_CONTRACT(ovor_schedule, OVOR_SCHEDULE, "learning rate over the epochs of a task")
{
    double pi = 3.14159265358979323846;
    double speed = 99 * pi / (200 * (double)(f->total - 1));
    f->lr = bl_mul(f->base_lr, bl_cos(bl_mul(speed, f->epoch)));
}

#define OVOR_METRICS(IN, OPT, OUT)                                                                 \
    IN(acc, "f32[N,N]", "rows > 0", "[i,k]: accuracy on task k after task i")                      \
    OUT(average_accuracy, "f32[]", "mean over tasks after the last")                               \
    OUT(forgetting, "f32[]", "mean fall from the best earlier accuracy; 0 for one task")

BL_HOST(ovor_metrics, OVOR_METRICS, "accuracy and forgetting over a sequence of tasks")
{
    int64_t N = f->acc.type.shape.dim[0];
    const float *acc = bl_f32(&f->acc), *last = acc + (N - 1) * N;
    double average = 0, fall = 0;
    for (int64_t k = 0; k < N; k++) {
        average += (double)last[k] / (double)N;
        double best = -INFINITY;
        for (int64_t i = k; i < N - 1; i++)
            best = fmax(best, (double)acc[i * N + k]);
        if (k < N - 1)
            fall += (best - (double)last[k]) / (double)(N - 1);
    }
    bl_array_set(&f->average_accuracy, 0, average);
    bl_array_set(&f->forgetting, 0, fall);
    return BL_OK;
}

const bl_method bl_ovor = {
    .slug = "ovor",
    .family = "continual",
    .paper = "Huang et al. 2024, arXiv 2402.04129",
    .summary = "keeps the classes of later tasks apart from earlier ones without stored data",
    .when = "Class-incremental learning on a frozen feature extractor where no data may be kept. "
            "Costs a nearest-neighbour search and a few epochs of the head after each task.",
    .example = "ballast show ovor_loss",
    .functions = {&ovor_loss_contract, &ovor_outliers_contract, &ovor_knn_distance_contract,
                  &ovor_masked_ce_contract, &ovor_prefix_attention_contract,
                  &ovor_schedule_contract, &ovor_metrics_contract},
};
