/* RPO, Regularized Preference Optimization. Liu et al., NeurIPS 2024, arXiv 2405.16436. A policy
 * tuned on pairs (chosen, rejected) by DPO learns differences of log-probabilities only, and drifts
 * to answers that no pair covers. A little of the supervised loss on the chosen answers prevents
 * it; it is what remains of an adversary who picks the worst reward that explains the pairs
 * (rpo_maximin shows the two forms side by side).
 *
 * In the main code the term's weight is eta beta and log-probabilities are summed over tokens; the
 * variant of its appendix and other trainers average and leave beta out: values of eta for one are
 * meaningless for the other. */
#include "methods/method.h"

/* --- log-probabilities of sequences ----------------------------------------------------------- */

enum { NOT_COUNTED = -100 };

#define RPO_SEQUENCE_LOGP(IN, OPT, OUT)                                                            \
    IN(logits, "f32[B,T,V]", "grad, rows > 0", "next-token logits")                                \
    IN(labels, "i32[B,T]", "", "tokens; -100: not counted")                                        \
    OPT(shift, 1, "flag",                                                                          \
        "logits at t predict labels at t+1: a causal "                                             \
        "model; else labels at t")                                                                 \
    OUT(logp, "f32[B]", "sum of log softmax(logits)[label] over what counts")                      \
    OUT(n_tokens, "i32[B]", "how many count")

static bl_status labels_check(const bl_dictionary *in, const char *labels, const char *logits)
{
    const bl_array *token = bl_dictionary_find(in, labels);
    int64_t classes = bl_dictionary_find(in, logits)->type.shape.dim[2];
    int64_t count = bl_array_count(token), length = token->type.shape.dim[1];
    for (int64_t i = 0; i < count; i++) {
        int32_t t = bl_i32(token)[i];
        if (t != NOT_COUNTED && (t < 0 || t >= classes))
            return bl_fail(BL_INVALID,
                           "%s[%lld,%lld] is %d, expected -100 or 0 <= . < V (V is %lld)", labels,
                           (long long)(i / length), (long long)(i % length), t, (long long)classes);
    }
    return BL_OK;
}

static bl_status rpo_sequence_logp_check(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    return labels_check(in, "labels", "logits");
}

BL_CONTRACT_CHECKED(rpo_sequence_logp, RPO_SEQUENCE_LOGP,
                    "log-probability of the counted tokens of each sequence",
                    rpo_sequence_logp_check)
{
    int64_t T = bl_dim(f->logits, 1), least = f->shift ? 2 : 1;
    if (T < least || bl_dim(f->logits, 2) < 1) {
        bl_poison(graph, "logits are %lld tokens of %lld classes, expected T >= %lld and V >= 1",
                  (long long)T, (long long)bl_dim(f->logits, 2), (long long)least);
        return;
    }
    bl_tensor logits = f->shift ? bl_slice_axis(f->logits, 1, 0, T - 1) : f->logits;
    bl_tensor labels = f->shift ? bl_slice_axis(f->labels, 1, 1, T) : f->labels;
    bl_tensor counted = bl_ge(labels, 0);
    bl_tensor nll = bl_cross_entropy_rows(logits, bl_select(counted, labels, 0));
    f->logp = bl_neg(bl_sum(bl_select(counted, nll, 0), 1));
    f->n_tokens = bl_sum(bl_cast(counted, BL_I32), 1);
}

/* --- the loss --------------------------------------------------------------------------------- */

#define RPO_OPTIONS(OPT)                                                                           \
    OPT(beta, 0.1, "(0,inf)", "weight of a log-ratio as a reward")                                 \
    OPT(eta, 0.005, "[0,inf)", "weight of the supervised term")                                    \
    OPT(sft_reduction, "sum", "sum|mean_per_sequence|mean_per_batch",                              \
        "log-probabilities per sequence, averaged over its "                                       \
        "tokens, or all tokens of the batch pooled")                                               \
    OPT(scale_by_beta, 1, "flag", "the term's weight is eta beta, not eta")                        \
    OPT(label_smoothing, 0.0, "[0,0.5)", "share of pairs taken for exchanged")

#define RPO_LOSS(IN, OPT, OUT)                                                                     \
    IN(policy_chosen, "f32[B]", "grad, rows > 0", "log-probability of each chosen answer")         \
    IN(policy_rejected, "f32[B]", "grad", "of each rejected one")                                  \
    IN(ref_chosen, "f32[B]", "", "the same under the frozen reference")                            \
    IN(ref_rejected, "f32[B]", "", "likewise")                                                     \
    IN(chosen_len, "i32[B]", ">= 1", "counted tokens of each chosen answer")                       \
    RPO_OPTIONS(OPT)                                                                               \
    OUT(loss, "f32[]", "dpo + c sft; c is eta beta, or eta")                                       \
    OUT(dpo, "f32[]", "mean of -log sigmoid(margin), smoothed")                                    \
    OUT(sft, "f32[]", "negative log-likelihood of the chosen answers")                             \
    OUT(chosen_reward, "f32[B]", "beta (policy - reference); no gradient")                         \
    OUT(rejected_reward, "f32[B]", "likewise")                                                     \
    OUT(accuracy, "f32[]", "share of chosen_reward > rejected_reward, strictly")

static bl_tensor supervised(bl_tensor logp, bl_tensor length, const char *reduction)
{
    bl_tensor tokens = bl_cast(length, BL_F32);
    if (bl_is(reduction, "mean_per_batch"))
        return bl_neg(bl_div(bl_sum(logp), bl_sum(tokens)));
    return bl_neg(bl_mean(bl_is(reduction, "sum") ? logp : bl_div(logp, tokens)));
}

BL_CONTRACT(rpo_loss, RPO_LOSS, "DPO plus the supervised loss on the chosen answers")
{
    bl_tensor chosen = bl_sub(f->policy_chosen, bl_stop_gradient(f->ref_chosen));
    bl_tensor rejected = bl_sub(f->policy_rejected, bl_stop_gradient(f->ref_rejected));
    bl_tensor z = bl_mul(f->beta, bl_sub(chosen, rejected)), s = f->label_smoothing;
    bl_tensor c = f->scale_by_beta ? bl_mul(f->eta, f->beta) : f->eta;

    f->dpo =
        bl_mean(bl_add(bl_mul(bl_sub(1, s), bl_softplus(bl_neg(z))), bl_mul(s, bl_softplus(z))));
    f->sft = supervised(f->policy_chosen, f->chosen_len, f->sft_reduction);
    f->loss = bl_add(f->dpo, bl_mul(c, f->sft));

    f->chosen_reward = bl_stop_gradient(bl_mul(f->beta, chosen));
    f->rejected_reward = bl_stop_gradient(bl_mul(f->beta, rejected));
    f->accuracy = bl_mean(bl_cast(bl_gt(f->chosen_reward, f->rejected_reward), BL_F32));
}

/* --- from logits ------------------------------------------------------------------------------ */

#define RPO_LOSS_LOGITS(IN, OPT, OUT)                                                              \
    IN(chosen_logits, "f32[B,T1,V]", "grad, rows > 0", "of a causal model")                        \
    IN(chosen_labels, "i32[B,T1]", "", "tokens; -100: not counted")                                \
    IN(rejected_logits, "f32[B,T2,V]", "grad", "likewise")                                         \
    IN(rejected_labels, "i32[B,T2]", "", "")                                                       \
    IN(ref_chosen, "f32[B]", "", "log-probability under the reference")                            \
    IN(ref_rejected, "f32[B]", "", "likewise")                                                     \
    RPO_OPTIONS(OPT)                                                                               \
    OUT(loss, "f32[]", "as rpo_loss")                                                              \
    OUT(dpo, "f32[]", "")                                                                          \
    OUT(sft, "f32[]", "")

/* Labels, and a chosen token in every row: the first position predicts nothing and is not counted.
 */
static bl_status rpo_loss_logits_check(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    BL_TRY(labels_check(in, "chosen_labels", "chosen_logits"));
    BL_TRY(labels_check(in, "rejected_labels", "rejected_logits"));
    const bl_array *token = bl_dictionary_find(in, "chosen_labels");
    int64_t rows = token->type.shape.dim[0], length = token->type.shape.dim[1];
    for (int64_t b = 0; b < rows; b++) {
        int64_t counted = 0;
        for (int64_t t = 1; t < length; t++)
            counted += bl_i32(token)[b * length + t] != NOT_COUNTED;
        if (counted == 0 && length > 1)
            return bl_fail(BL_INVALID,
                           "chosen_labels count no token in row %lld, expected chosen_len >= 1",
                           (long long)b);
    }
    return BL_OK;
}

static struct rpo_sequence_logp sequence_logp(bl_tensor logits, bl_tensor labels)
{
    struct rpo_sequence_logp sequence = BL_DEFAULTS(rpo_sequence_logp);
    sequence.logits = logits;
    sequence.labels = labels;
    bl_call(rpo_sequence_logp, &sequence);
    return sequence;
}

BL_CONTRACT_CHECKED(rpo_loss_logits, RPO_LOSS_LOGITS, "rpo_loss of the logits of both answers",
                    rpo_loss_logits_check)
{
    struct rpo_sequence_logp chosen = sequence_logp(f->chosen_logits, f->chosen_labels);
    struct rpo_sequence_logp rejected = sequence_logp(f->rejected_logits, f->rejected_labels);
    struct rpo_loss pair = {.policy_chosen = chosen.logp,
                            .policy_rejected = rejected.logp,
                            .ref_chosen = f->ref_chosen,
                            .ref_rejected = f->ref_rejected,
                            .chosen_len = chosen.n_tokens,
                            .beta = f->beta,
                            .eta = f->eta,
                            .sft_reduction = f->sft_reduction,
                            .scale_by_beta = f->scale_by_beta,
                            .label_smoothing = f->label_smoothing};
    bl_call(rpo_loss, &pair);
    f->loss = pair.loss, f->dpo = pair.dpo, f->sft = pair.sft;
}

/* --- the adversary ---------------------------------------------------------------------------- */

#define RPO_MAXIMIN(IN, OPT, OUT)                                                                  \
    IN(reward, "f32[X,A]", "grad, rows > 0", "a candidate reward r(x,a)")                          \
    IN(ref_logits, "f32[X,A]", "", "logits of the reference policy")                               \
    IN(baseline, "f32[X,A]", ">= 0, rows sum to 1 within 1e-3", "baseline policy")                 \
    IN(prompt, "f32[X]", ">= 0, sums to 1 within 1e-3", "distribution of prompts")                 \
    IN(pair_prompt, "i32[N]", "0 <= . < X, rows > 0", "prompt of each preference pair")            \
    IN(pair_chosen, "i32[N]", "0 <= . < A", "preferred answer")                                    \
    IN(pair_rejected, "i32[N]", "0 <= . < A", "the other one")                                     \
    OPT(eta, 0.05, "[0,inf)", "weight of the adversary's game")                                    \
    OPT(beta, 0.1, "(0,inf)",                                                                      \
        "price of divergence from the "                                                            \
        "reference")                                                                               \
    OUT(objective, "f32[]", "what the adversary minimises over rewards")                           \
    OUT(rpo_form, "f32[]", "the RPO loss of the best policy for this reward: the same")            \
    OUT(log_policy, "f32[X,A]", "that policy")

/* Bradley-Terry: mean of softplus of minus (table[prompt,chosen] - table[prompt,rejected]). */
static bl_tensor preference_loss(bl_tensor table, bl_tensor prompt, bl_tensor chosen,
                                 bl_tensor rejected)
{
    bl_tensor flat = bl_reshape(table, BL_SHAPE(bl_dim(table, 0) * bl_dim(table, 1)));
    bl_tensor row = bl_mul(prompt, (double)bl_dim(table, 1));
    return bl_mean(bl_softplus(
        bl_sub(bl_take(flat, bl_add(row, rejected)), bl_take(flat, bl_add(row, chosen)))));
}

BL_CONTRACT(rpo_maximin, RPO_MAXIMIN,
            "the game that RPO solves, for finitely many prompts and answers")
{
    bl_tensor log_ref = bl_log_softmax(bl_stop_gradient(f->ref_logits), -1);
    bl_tensor tilted = bl_add(log_ref, bl_div(f->reward, f->beta));
    bl_tensor log_z = bl_logsumexp(tilted, -1);
    f->log_policy = bl_sub(tilted, bl_expand(log_z, -1));

    bl_tensor expected = bl_sum(bl_mul(f->baseline, f->reward), -1);
    bl_tensor value = bl_sum(bl_mul(f->prompt, bl_sub(bl_mul(f->beta, log_z), expected)));
    bl_tensor fit = preference_loss(f->reward, f->pair_prompt, f->pair_chosen, f->pair_rejected);
    f->objective = bl_add(bl_mul(f->eta, value), fit);

    bl_tensor ratio = bl_sub(f->log_policy, log_ref);
    bl_tensor cross = bl_neg(bl_sum(bl_mul(f->baseline, ratio), -1));
    bl_tensor weight = bl_mul(f->eta, f->beta);
    bl_tensor dpo =
        preference_loss(bl_mul(f->beta, ratio), f->pair_prompt, f->pair_chosen, f->pair_rejected);
    f->rpo_form = bl_add(bl_mul(weight, bl_sum(bl_mul(f->prompt, cross))), dpo);
}

const bl_method bl_rpo = {
    .slug = "rpo",
    .family = "adaptation",
    .paper = "Liu et al. 2024, arXiv 2405.16436",
    .summary = "(no arm) tunes a policy on preference pairs without losing the chosen answers",
    .when =
        "Fine-tuning on pairs (chosen, rejected) that cover few of the possible answers, or when "
        "the chosen answers' probability falls under DPO. Costs nothing over DPO.",
    .functions = {&rpo_loss_contract, &rpo_sequence_logp_contract, &rpo_loss_logits_contract,
                  &rpo_maximin_contract},
    .example = "ballast check tests/cases/04-rpo/rpo_loss-1.safetensors",
};
