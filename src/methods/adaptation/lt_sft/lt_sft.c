/* LT-SFT, composable sparse fine-tuning. Ansell et al., ACL 2022, arXiv 2110.07560. A trial
 * fine-tuning shows which parameters move most; everything is rewound, and only those are tuned.
 * The sparse differences learned for a task and for a language (or any other domain) are added to
 * the pre-trained parameters, and so combine without training on both together.
 *
 * All functions see one flat vector of P parameters, the maskable tensors one after the other. */
#include "methods/method.h"

/* --- selection -------------------------------------------------------------------------------- */

#define LTSFT_SELECT(IN, OPT, OUT)                                                                 \
    IN(theta0, "f32[P]", "finite", "parameters before the trial")                                  \
    IN(theta1, "f32[P]", "finite", "and after")                                                    \
    IN(chosen, "i32[P]", "in {0,1}", "selected in earlier rounds; zeros in the first")             \
    OPT(k, BL_REQUIRED_INTEGER, ">= 1", "how many to select, at most those not yet chosen")        \
    OPT(ties, "lowest_index", "lowest_index|include",                                              \
        "exactly k, or all that moved as far as the k-th (the official code)")                     \
    OUT(mask, "i32[P]", "1 where chosen or selected")                                              \
    OUT(threshold, "f32[]", "how far the k-th moved")                                              \
    OUT(count, "i32[]", "ones in mask")

/* |theta1 - theta0| as the bits of a double, which order as the non-negative numbers do. */
static uint64_t movement(const float *theta0, const float *theta1, int64_t i)
{
    double moved = fabs((double)theta1[i] - (double)theta0[i]);
    uint64_t bits;
    memcpy(&bits, &moved, sizeof bits);
    return bits;
}

enum { DIGITS = 1 << 16 };

/* The k-th largest movement of the candidates, found digit by digit from the top: four passes over
 * the parameters and no copy of them, for there may be hundreds of millions. *equal: how many of
 * those that moved exactly as far belong to the k. */
static uint64_t kth_movement(const float *theta0, const float *theta1, const int32_t *chosen,
                             int64_t P, int64_t k, int64_t *count, int64_t *equal)
{
    uint64_t found = 0, known = 0; /* `known` covers the digits found so far */
    for (int shift = 48; shift >= 0; shift -= 16) {
        memset(count, 0, DIGITS * sizeof *count);
        for (int64_t i = 0; i < P; i++) {
            uint64_t bits = movement(theta0, theta1, i);
            if (!chosen[i] && (bits & known) == found)
                count[(bits >> shift) & (DIGITS - 1)]++;
        }
        uint64_t digit = DIGITS - 1;
        while (digit > 0 && k > count[digit])
            k -= count[digit--];
        found |= digit << shift;
        known |= (uint64_t)(DIGITS - 1) << shift;
    }
    *equal = k;
    return found;
}

BL_HOST(ltsft_select, LTSFT_SELECT, "the parameters that moved most")
{
    int64_t P = f->theta0.type.shape.dim[0], free_ones = 0, equal;
    const float *theta0 = bl_f32(&f->theta0), *theta1 = bl_f32(&f->theta1);
    const int32_t *chosen = bl_i32(&f->chosen);
    for (int64_t i = 0; i < P; i++)
        free_ones += !chosen[i];
    if (f->k > free_ones)
        return bl_fail(BL_INVALID, "option k is %lld, expected at most the %lld not yet chosen",
                       (long long)f->k, (long long)free_ones);
    int64_t *count = bl_alloc(DIGITS * sizeof *count);
    if (!count)
        return bl_no_memory(DIGITS * sizeof *count);
    uint64_t least = kth_movement(theta0, theta1, chosen, P, f->k, count, &equal);
    bl_release(count);
    bool include = bl_is(f->ties, "include");
    int32_t *mask = bl_i32(&f->mask), ones = 0;
    for (int64_t i = 0; i < P; i++) {
        uint64_t bits = movement(theta0, theta1, i);
        bool tie = !chosen[i] && bits == least && (include || equal-- > 0);
        mask[i] = chosen[i] || bits > least || tie;
        ones += mask[i];
    }
    double threshold;
    memcpy(&threshold, &least, sizeof threshold);
    bl_array_set(&f->threshold, 0, threshold);
    bl_i32(&f->count)[0] = ones;
    return BL_OK;
}

/* --- the two phases --------------------------------------------------------------------------- */

#define LTSFT_L1(IN, OPT, OUT)                                                                     \
    IN(theta, "f32[P]", "grad, finite", "parameters")                                              \
    IN(theta0, "f32[P]", "finite", "pre-trained values")                                           \
    IN(trainable, "i32[P]", "in {0,1}", "1 where trained")                                         \
    OPT(coefficient, 0.1, "[0,inf)", "weight; 0 for tasks")                                        \
    OPT(total, 0, ">= 0", "all parameters of the model, frozen ones too; 0: P")                    \
    OUT(penalty, "f32[]", "coefficient sum |theta - theta0| / total over what is trained")

BL_CONTRACT(ltsft_l1, LTSFT_L1, "pulls towards the pre-trained values")
{
    int64_t total = f->total ? f->total : bl_dim(f->theta, 0);
    bl_tensor moved = bl_abs(bl_sub(f->theta, bl_stop_gradient(f->theta0)));
    bl_tensor sum = bl_sum(bl_mul(bl_cast(f->trainable, BL_F32), moved));
    f->penalty = bl_mul(f->coefficient, bl_div(sum, (double)(total ? total : 1)));
}

#define LTSFT_MASKED_ADAMW(IN, OPT, OUT)                                                           \
    IN(theta, "f32[P]", "finite", "parameters")                                                    \
    IN(grad, "f32[P]", "finite", "gradient of the loss")                                           \
    IN(m, "f32[P]", "finite", "mean of gradients, zero at first")                                  \
    IN(v, "f32[P]", "finite", "mean of squares, zero at first")                                    \
    IN(mask, "i32[P]", "in {0,1}", "1 where trained")                                              \
    IN(step, "i32[]", ">= 0", "steps done")                                                        \
    OPT(lr, 5e-5, "(0,inf)", "learning rate")                                                      \
    OPT(beta1, 0.9, "[0,1)", "share of m kept")                                                    \
    OPT(beta2, 0.999, "[0,1)", "share of v kept")                                                  \
    OPT(eps, 1e-8, "[0,inf)", "added to the root")                                                 \
    OPT(weight_decay, 0.0, "[0,inf)", "of all parameters, masked or not")                          \
    OUT(theta, "f32[P]", "theta (1 - lr weight_decay) - lr m^ / (sqrt(v^) + eps)")                 \
    OUT(m, "f32[P]", "b1 m + (1-b1) grad mask")                                                    \
    OUT(v, "f32[P]", "b2 v + (1-b2) (grad mask)^2")

BL_CONTRACT_APART(ltsft_masked_adamw, LTSFT_MASKED_ADAMW, "one step of the sparse phase")
{
    bl_tensor g = bl_mul(f->grad, bl_cast(f->mask, BL_F32));
    bl_tensor t = bl_add(f->step, 1);
    bl_tensor kept = bl_mul(f->theta, bl_sub(1, bl_mul(f->lr, f->weight_decay)));
    f->out_m = f->m, f->out_v = f->v;
    bl_tensor direction = bl_adam(g, t, f->beta1, f->beta2, f->eps, &f->out_m, &f->out_v);
    f->out_theta = bl_sub(kept, bl_mul(f->lr, direction));
}

/* --- differences ------------------------------------------------------------------------------ */

#define LTSFT_EXTRACT(IN, OPT, OUT)                                                                \
    IN(theta, "f32[P]", "finite", "tuned parameters")                                              \
    IN(theta0, "f32[P]", "finite", "pre-trained values")                                           \
    IN(maskable, "i32[P]", "in {0,1}", "1 where a difference may be kept")                         \
    OPT(eps, 1e-7, "[0,inf)", "differences up to this are dropped")                                \
    OUT(diff, "f32[P]", "theta - theta0 where kept, else 0")                                       \
    OUT(nonzero, "i32[P]", "1 where kept")                                                         \
    OUT(count, "i32[]", "how many are kept")

BL_CONTRACT(ltsft_extract, LTSFT_EXTRACT, "the sparse difference that was learned")
{
    bl_tensor moved = bl_sub(f->theta, f->theta0);
    bl_tensor kept = bl_and(bl_gt(bl_abs(moved), f->eps), bl_ne(f->maskable, 0));
    f->diff = bl_select(kept, moved, 0);
    f->nonzero = bl_cast(kept, BL_I32);
    f->count = bl_sum(f->nonzero);
}

#define LTSFT_COMPOSE(IN, OPT, OUT)                                                                \
    IN(theta0, "f32[P]", "finite", "pre-trained values")                                           \
    IN(diffs, "f32[S,P]", "finite", "sparse differences")                                          \
    IN(weights, "f32[S]", "finite", "1 adds a difference, -1 takes it away")                       \
    OUT(theta, "f32[P]", "theta0 + sum of weights[s] diffs[s]")                                    \
    OUT(overlap, "i32[]", "parameters that more than one difference touches")

BL_CONTRACT(ltsft_compose, LTSFT_COMPOSE, "adds fine-tunings to the pre-trained parameters")
{
    bl_tensor weighted = bl_mul(bl_expand(f->weights, 1), f->diffs);
    f->theta = bl_add(f->theta0, bl_sum(weighted, 0));
    bl_tensor touched = bl_sum(bl_cast(bl_ne(f->diffs, 0), BL_I32), 0);
    f->overlap = bl_sum(bl_cast(bl_gt(touched, 1), BL_I32));
}

const bl_method bl_lt_sft = {
    .slug = "lt_sft",
    .family = "adaptation",
    .paper = "Ansell et al. 2022, arXiv 2110.07560",
    .summary = "(no arm) sparse fine-tunings that can be added to each other",
    .when =
        "A task has labels in one domain and is wanted in another, or fine-tunings must be small "
        "to store. Costs a trial fine-tuning, and memory for a second copy of the parameters.",
    .functions = {&ltsft_l1_contract, &ltsft_select_contract, &ltsft_masked_adamw_contract,
                  &ltsft_extract_contract, &ltsft_compose_contract},
    .example = "ballast check tests/cases/41-lt-sft/ltsft_select-1.safetensors",
};
