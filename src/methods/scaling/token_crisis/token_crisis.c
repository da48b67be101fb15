/* To repeat or not to repeat. Xue, Fu, Zhou, Zheng, You, NeurIPS 2023, arXiv 2305.13230. Training
 * that repeats a small corpus for many epochs ends worse than it once was. Of the usual
 * regularizers dropout helps, it may start late, and its rate can be chosen on a cheap sparse model
 * with as many parameters. The objective is T5's: spans of text are hidden and asked for. */
#include "methods/method.h"

/* --- what is dropped -------------------------------------------------------------------------- */

#define TOKEN_CRISIS_DROPOUT(IN, OPT, OUT)                                                         \
    IN(x, "f32[S...]", "grad", "activations")                                                      \
    IN(u, "f32[...]", "0 <= . < 1", "uniform draws; an axis of size 1 shares them")                \
    OPT(rate, 0.1, "[0,1)", "share dropped; may be a tensor")                                      \
    OUT(y, "f32[S...]", "x [u >= rate] / (1 - rate)")

/* What multiplies where u is drawn: 1 / (1 - rate), or 0. */
static bl_tensor kept(bl_tensor u, bl_tensor rate)
{
    return bl_select(bl_ge(u, rate), bl_div(1, bl_sub(1, rate)), 0);
}

BL_CONTRACT(token_crisis_dropout, TOKEN_CRISIS_DROPOUT, "drops activations by given draws")
{
    f->y = bl_mul(f->x, kept(bl_broadcast(f->u, bl_type_of(f->x).shape), f->rate));
}

#define TOKEN_CRISIS_DROPPATH(IN, OPT, OUT)                                                        \
    IN(x, "f32[B,S...]", "grad", "the shortcut")                                                   \
    IN(h, "f32[B,S...]", "grad", "the residual branch")                                            \
    IN(u, "f32[B]", "0 <= . < 1", "uniform draws, one each example")                               \
    OPT(rate, 0.1, "[0,1)", "share of branches dropped; may be a tensor")                          \
    OUT(y, "f32[B,S...]", "x + h [u >= rate] / (1 - rate)")

BL_CONTRACT(token_crisis_droppath, TOKEN_CRISIS_DROPPATH, "drops residual branches by given draws")
{
    bl_shape rows = {.rank = bl_rank(f->h), .dim = {bl_dim(f->u, 0), 1, 1, 1, 1, 1, 1, 1}};
    f->y = bl_add(f->x, bl_mul(f->h, bl_reshape(kept(f->u, f->rate), rows)));
}

#define TOKEN_CRISIS_DROPSTAGE(IN, OPT, OUT)                                                       \
    IN(step, "i32[S]", "", "steps done")                                                           \
    OPT(start, 0, ">= 0", "first step with dropout")                                               \
    OPT(rate, 0.1, "[0,1)", "from there on")                                                       \
    OUT(rate, "f32[S]", "rate from start on, 0 before")

BL_CONTRACT_APART(token_crisis_dropstage, TOKEN_CRISIS_DROPSTAGE, "dropout that begins late")
{
    f->out_rate = bl_select(bl_ge(bl_cast(f->step, BL_F64), (double)f->start), f->rate, 0);
}

/* --- the loss --------------------------------------------------------------------------------- */

#define TOKEN_CRISIS_XENT(IN, OPT, OUT)                                                            \
    IN(logits, "f32[S...,V]", "grad", "of the tokens")                                             \
    IN(targets, "i32[S...]", "0 <= . < V", "next tokens")                                          \
    IN(weights, "f32[S...]", "sum > 0", "0 for padding")                                           \
    OPT(smoothing, 0.0, "[0,1)", "share of the target spread over the other classes")              \
    OPT(z_loss, 0.0, "[0,inf)", "weight of the square of log sum exp")                             \
    OUT(loss, "f32[]", "weighted mean of per_token")                                               \
    OUT(acc, "f32[]", "weighted share of tokens whose largest logit is the target's")              \
    OUT(per_token, "f32[S...]", "cross-entropy above its least value, plus z_loss Z^2")

/* -sum q log p + sum q log q for q of 1 - s on the target and s / (V - 1) on each other class. */
static bl_tensor smoothed(bl_tensor logits, bl_tensor target_nll, bl_tensor s)
{
    double others = (double)bl_dim(logits, -1) - 1;
    bl_tensor all_nll = bl_neg(bl_sum(bl_log_softmax(logits, -1), -1));
    bl_tensor other_nll = bl_div(bl_sub(all_nll, target_nll), others);
    bl_tensor kept = bl_sub(1, s);
    bl_tensor spread = bl_mul(s, bl_log(bl_div(bl_max(s, 1e-30), others))); /* 0 log 0 is 0 */
    bl_tensor least = bl_add(bl_mul(kept, bl_log(kept)), spread);
    return bl_add(bl_add(bl_mul(kept, target_nll), bl_mul(s, other_nll)), least);
}

BL_CONTRACT(token_crisis_xent, TOKEN_CRISIS_XENT,
            "token cross-entropy with label smoothing and a bound on the logits' level")
{
    if (bl_dim(f->logits, -1) < 2) {
        bl_poison(graph, "logits have %lld classes, expected V >= 2",
                  (long long)bl_dim(f->logits, -1));
        return;
    }
    f->per_token = bl_cross_entropy_rows(f->logits, f->targets);
    if (!bl_is_number(f->smoothing) || f->smoothing.number > 0)
        f->per_token = smoothed(f->logits, f->per_token, f->smoothing);
    bl_tensor level = bl_square(bl_logsumexp(f->logits, -1));
    f->per_token = bl_add(f->per_token, bl_mul(f->z_loss, level));

    bl_tensor total = bl_sum(f->weights);
    bl_tensor right = bl_cast(bl_eq(bl_argmax(f->logits, -1), f->targets), BL_F32);
    f->loss = bl_div(bl_sum(bl_mul(f->weights, f->per_token)), total);
    f->acc = bl_div(bl_sum(bl_mul(f->weights, right)), total);
}

/* --- hidden spans ----------------------------------------------------------------------------- */

#define TOKEN_CRISIS_SPAN_MASK(IN, OPT, OUT)                                                       \
    IN(order_noise, "i32[?]", "permutation", "of n_noise - 1: where hidden tokens are cut")        \
    IN(order_keep, "i32[?]", "permutation", "of length - n_noise - 1: where kept ones are")        \
    OPT(length, BL_REQUIRED_INTEGER, ">= 2", "tokens of the text")                                 \
    OPT(density, 0.15, "[0,1]", "share that is hidden")                                            \
    OPT(mean_span, 3.0, "(0,inf)", "tokens in a row that are hidden, on average")                  \
    OUT(mask, "u8[length]", "1 where hidden")                                                      \
    OUT(n_noise, "i32[]", "tokens hidden")                                                         \
    OUT(n_spans, "i32[]", "spans that they form")

static double between(double x, double low, double high)
{
    return fmin(fmax(x, low), high);
}

static bl_status check_order(const bl_array *order, const char *name, int64_t items)
{
    if (bl_array_count(order) == items - 1)
        return BL_OK;
    return bl_fail(BL_INVALID, "%s has %lld entries, expected %lld, one less than its tokens", name,
                   (long long)bl_array_count(order), (long long)items - 1);
}

/* The end of the segment of items that starts at `start`: item j + 1 begins another where order[j]
 * is among the first spans - 1. */
static int64_t segment_end(const bl_array *order, int64_t start, int64_t items, int64_t spans)
{
    int64_t end = start + 1;
    while (end < items && bl_i32(order)[end - 1] >= spans - 1)
        end++;
    return end;
}

BL_HOST(token_crisis_span_mask, TOKEN_CRISIS_SPAN_MASK, "T5's noise mask from given permutations")
{
    double length = (double)f->length;
    double noise = between(floor(length * f->density + 0.5), 1, length - 1);
    double most = fmin(noise, length - noise);
    double spans = between(floor(noise / f->mean_span + 0.5), 1, most);
    int64_t hidden = (int64_t)noise, kept = f->length - hidden;
    BL_TRY(check_order(&f->order_noise, "order_noise", hidden));
    BL_TRY(check_order(&f->order_keep, "order_keep", kept));
    bl_array_set(&f->n_noise, 0, noise);
    bl_array_set(&f->n_spans, 0, spans);
    int64_t at = 0, keep = 0, hide = 0;
    for (int64_t s = 0; s < (int64_t)spans; s++) { /* kept tokens, then hidden ones */
        int64_t keep_end = segment_end(&f->order_keep, keep, kept, (int64_t)spans);
        int64_t hide_end = segment_end(&f->order_noise, hide, hidden, (int64_t)spans);
        at += keep_end - keep;
        for (; hide < hide_end; hide++)
            bl_u8(&f->mask)[at++] = 1;
        keep = keep_end;
    }
    return BL_OK;
}

#define TOKEN_CRISIS_SPAN_CORRUPT(IN, OPT, OUT)                                                    \
    IN(tokens, "i32[L]", "", "the text")                                                           \
    IN(mask, "u8[L]", "in {0,1}", "1 where hidden")                                                \
    OPT(sentinel0, BL_REQUIRED_INTEGER, ">= 0", "id of the first sentinel; the next is 1 lower")   \
    OPT(eos, BL_REQUIRED_INTEGER, "", "id that ends both")                                         \
    OUT(inputs, "i32[?]", "[2L+2]: the text with a sentinel for each span, eos, then 0")           \
    OUT(targets, "i32[?]", "[2L+2]: each sentinel and its span, eos, then 0")                      \
    OUT(n_inputs, "i32[]", "without padding, with eos")                                            \
    OUT(n_targets, "i32[]", "likewise")                                                            \
    OUT(n_spans, "i32[]", "sentinels")

static bool starts_span(const bl_array *mask, int64_t i)
{
    return bl_u8(mask)[i] && (i == 0 || !bl_u8(mask)[i - 1]);
}

/* The sentinels of all spans are ids, and no token has one of them. */
static bl_status check_sentinels(const bl_array *tokens, int64_t sentinel0, int64_t spans)
{
    int64_t count = bl_array_count(tokens);
    if (sentinel0 > INT32_MAX || spans > sentinel0 + 1)
        return bl_fail(BL_INVALID,
                       "option sentinel0 is %lld, expected %lld <= . <= %d for %lld "
                       "spans",
                       (long long)sentinel0, (long long)spans - 1, INT32_MAX, (long long)spans);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = bl_i32(tokens)[i];
        if (token <= sentinel0 && token > sentinel0 - spans)
            return bl_fail(BL_INVALID,
                           "tokens[%lld] is %lld, which is a sentinel: they are %lld "
                           "to %lld",
                           (long long)i, (long long)token, (long long)(sentinel0 - spans + 1),
                           (long long)sentinel0);
    }
    return BL_OK;
}

/* A row of tokens that grows. */
typedef struct row {
    int32_t *token;
    int64_t count;
} row;

static void append(row *r, int64_t token)
{
    r->token[r->count++] = (int32_t)token;
}

BL_HOST(token_crisis_span_corrupt, TOKEN_CRISIS_SPAN_CORRUPT,
        "inputs and targets of the masked objective")
{
    int64_t length = bl_array_count(&f->tokens), spans = 0;
    for (int64_t i = 0; i < length; i++)
        spans += starts_span(&f->mask, i);
    BL_TRY(check_sentinels(&f->tokens, f->sentinel0, spans));
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(2 * length + 2), &f->inputs));
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(2 * length + 2), &f->targets));
    row inputs = {bl_i32(&f->inputs), 0}, targets = {bl_i32(&f->targets), 0};
    int64_t sentinel = f->sentinel0 + 1;
    for (int64_t i = 0; i < length; i++) {
        if (starts_span(&f->mask, i)) {
            sentinel--;
            append(&inputs, sentinel);
            append(&targets, sentinel);
        }
        append(bl_u8(&f->mask)[i] ? &targets : &inputs, bl_i32(&f->tokens)[i]);
    }
    append(&inputs, f->eos);
    append(&targets, f->eos);
    bl_array_set(&f->n_inputs, 0, (double)inputs.count);
    bl_array_set(&f->n_targets, 0, (double)targets.count);
    bl_array_set(&f->n_spans, 0, (double)spans);
    return BL_OK;
}

/* --- what is measured ------------------------------------------------------------------------- */

#define TOKEN_CRISIS_DEGRADATION(IN, OPT, OUT)                                                     \
    IN(val, "f32[R]", "rows > 0", "validation accuracy, an entry each evaluation")                 \
    OUT(best, "f32[]", "the highest")                                                              \
    OUT(best_at, "i32[]", "when, the first of equals")                                             \
    OUT(final, "f32[]", "the last")                                                                \
    OUT(drop, "f32[]", "best - final")

BL_CONTRACT(token_crisis_degradation, TOKEN_CRISIS_DEGRADATION,
            "how far a run has fallen from its best")
{
    f->best = bl_reduce_max(f->val, 0);
    f->best_at = bl_argmax(f->val, 0);
    f->final = bl_pick(f->val, 0, bl_dim(f->val, 0) - 1);
    f->drop = bl_sub(f->best, f->final);
}

#define TOKEN_CRISIS_PROXY_SELECT(IN, OPT, OUT)                                                    \
    IN(val, "f32[R,T]", "rows > 0", "validation accuracy of the proxy, a row each rate")           \
    IN(rates, "f32[R]", "", "dropout rates")                                                       \
    OUT(index, "i32[]", "row with the highest last value, the first of equals")                    \
    OUT(rate, "f32[]", "its rate")

BL_CONTRACT(token_crisis_proxy_select, TOKEN_CRISIS_PROXY_SELECT,
            "the dropout rate that suits a sparse model of the same size")
{
    int64_t T = bl_dim(f->val, 1);
    if (T < 1) {
        bl_poison(graph, "val has no columns, expected at least one evaluation");
        return;
    }
    f->index = bl_argmax(bl_pick(f->val, 1, T - 1), 0);
    f->rate = bl_squeeze(bl_take(f->rates, bl_expand(f->index, 0)), 0);
}

const bl_method bl_token_crisis = {
    .slug = "token_crisis",
    .family = "scaling",
    .paper = "Xue et al. 2023, arXiv 2305.13230",
    .summary =
        "(no arm) dropout that begins late, span corruption, and how far repetition degrades",
    .when =
        "When training repeats a small corpus: use dropout, start it when validation turns, and "
        "choose its rate on a cheap sparse model. As an arm use dropout.",
    .functions = {&token_crisis_dropout_contract, &token_crisis_droppath_contract,
                  &token_crisis_dropstage_contract, &token_crisis_xent_contract,
                  &token_crisis_span_mask_contract, &token_crisis_span_corrupt_contract,
                  &token_crisis_degradation_contract, &token_crisis_proxy_select_contract},
    .example = "ballast show token_crisis_xent",
};
