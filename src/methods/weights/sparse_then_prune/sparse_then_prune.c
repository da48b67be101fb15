/* Sparse then prune. Prasetyo, Yudistira, Widodo, 2023, arXiv 2307.11988. A vision transformer is
 * fine-tuned with a small penalty on its attention maps, then the smallest weights of the whole
 * network are masked, without training again.
 *
 * In spite of the name the penalty does not make attention sparse: a row of softmax sums to 1 and
 * log(1 + p^2) is convex there, so that the uniform row has the smallest penalty. */
#include "methods/method.h"
#include "ballast/solve.h"

/* mean log(1 + a^2) */
static bl_tensor mean_log(bl_tensor a)
{
    return bl_mean(bl_log1p(bl_square(a)));
}

/* Poisons the graph where x has no elements. */
static bool filled(bl_graph *graph, const char *name, bl_tensor x)
{
    char text[BL_TYPE_TEXT];
    bool fine = bl_type_count(bl_type_of(x)) > 0;
    if (!fine)
        bl_poison(graph, "%s is %s, expected at least one element", name,
                  bl_type_text(bl_type_of(x), text));
    return fine;
}

#define STP_PENALTY(IN, OPT, OUT)                                                                  \
    IN(a, "f32[...]", "grad", "attention maps, or anything else")                                  \
    OUT(penalty, "f32[]", "mean log(1 + a^2)")

BL_CONTRACT(stp_penalty, STP_PENALTY, "the mean of log(1 + a^2)")
{
    if (filled(graph, "a", f->a))
        f->penalty = mean_log(f->a);
}

#define STP_ATTENTION(IN, OPT, OUT)                                                                \
    IN(q, "f32[B,H,N,D]", "grad", "queries of each head")                                          \
    IN(k, "f32[B,H,N,D]", "grad", "keys")                                                          \
    IN(v, "f32[B,H,N,D]", "grad", "values")                                                        \
    OUT(out, "f32[B,H,N,D]", "p v, with p = softmax(q k^T / sqrt(D))")                             \
    OUT(penalty, "f32[]", "mean log(1 + p^2)")

BL_CONTRACT(stp_attention, STP_ATTENTION, "attention that also returns its penalty")
{
    if (!filled(graph, "q", f->q))
        return;
    bl_tensor scores = bl_dot(f->q, f->k, false, true);
    bl_tensor p = bl_softmax(bl_div(scores, sqrt((double)bl_dim(f->q, -1))), -1);
    f->out = bl_dot(p, f->v, false, false);
    f->penalty = mean_log(p);
}

#define STP_LOSS(IN, OPT, OUT)                                                                     \
    IN(logits, "f32[B,C]", "grad, rows > 0", "raw model outputs")                                  \
    IN(labels, "i32[B]", "0 <= . < C", "class of each example")                                    \
    IN(penalties, "f32[L]", "grad, rows > 0", "of each encoder layer, first to last")              \
    OPT(lam, 0.01, "[0,inf)", "weight of the penalty")                                             \
    OPT(reduce_layers, "last", "last|sum|mean", "the official code uses the last layer's")         \
    OUT(loss, "f32[]", "ce + lam penalty")                                                         \
    OUT(ce, "f32[]", "mean cross-entropy")                                                         \
    OUT(penalty, "f32[]", "the last, the sum or the mean")

BL_CONTRACT(stp_loss, STP_LOSS, "cross-entropy plus the penalty of attention")
{
    int64_t layers = bl_dim(f->penalties, 0);
    if (bl_is(f->reduce_layers, "last"))
        f->penalty = bl_pick(f->penalties, 0, layers - 1);
    else if (bl_is(f->reduce_layers, "sum"))
        f->penalty = bl_sum(f->penalties);
    else
        f->penalty = bl_mean(f->penalties);
    f->ce = bl_cross_entropy(f->logits, f->labels);
    f->loss = bl_add(f->ce, bl_mul(f->lam, f->penalty));
}

#define STP_PRUNE_MASK(IN, OPT, OUT)                                                               \
    IN(w, "f32[...]", "", "all prunable weights, one after the other")                             \
    OPT(amount, BL_REQUIRED, "[0,1]", "share of them to prune")                                    \
    OUT(keep, "u8[?]", "1: the weight stays")                                                      \
    OUT(n_pruned, "i32[]", "amount times their number, halves to even")

BL_HOST(stp_prune_mask, STP_PRUNE_MASK, "marks the smallest weights, ties lower index first")
{
    int64_t count = bl_array_count(&f->w);
    if (count == 0)
        return bl_fail(BL_INVALID, "w is empty, expected at least one weight");
    int64_t pruned = (int64_t)rint(f->amount * (double)count);
    size_t bytes = (size_t)count * (sizeof(double) + sizeof(int64_t));
    double *size = bl_alloc(bytes);
    if (!size)
        return bl_no_memory(bytes);
    int64_t *order = (int64_t *)(size + count);
    for (int64_t i = 0; i < count; i++)
        size[i] = fabs((double)bl_f32(&f->w)[i]);
    bl_status status = bl_ascending_order(size, count, order);
    if (status == BL_OK)
        status = bl_array_new(BL_U8, BL_SHAPE(count), &f->keep);
    for (int64_t i = 0; i < count && status == BL_OK; i++)
        bl_u8(&f->keep)[order[i]] = i >= pruned;
    bl_release(size);
    bl_array_set(&f->n_pruned, 0, (double)pruned);
    return status;
}

const bl_method bl_sparse_then_prune = {
    .slug = "sparse_then_prune",
    .family = "weights",
    .paper = "Prasetyo et al. 2023, arXiv 2307.11988",
    .summary = "(no arm) penalises attention maps, then masks the smallest weights",
    .when = "Fine-tuning of a vision transformer that will be pruned by magnitude. The penalty is "
            "nearly free and, at the published weight, nearly without effect.",
    .functions = {&stp_penalty_contract, &stp_attention_contract, &stp_loss_contract,
                  &stp_prune_mask_contract},
    .example = "ballast show stp_loss",
};
