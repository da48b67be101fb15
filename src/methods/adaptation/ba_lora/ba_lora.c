/* BA-LoRA. Chang et al., arXiv 2408.04556 (2024; ICLR 2026). Low-rank adapters inherit the defects
 * of noisy or imbalanced pre-training. The adapters start as the leading singular directions of
 * each weight (PiSSA), and three penalties act on the logits of a batch, a row an example or a
 * counted token: stay consistent with the pre-trained model, stay diverse, and concentrate the
 * batch on few singular directions.
 *
 * The formulas of 2024 (mse_norm, entropy) and of the final paper are options; their weights differ
 * by orders of magnitude. */
#include "methods/method.h"

static bl_tensor counted_rows(bl_tensor mask)
{
    return bl_sum(bl_cast(bl_ne(mask, 0), BL_F32));
}

/* z [N,D] with rows of zeros where masked, whatever stands there. */
static bl_tensor masked_rows(bl_tensor z, bl_tensor mask)
{
    return bl_select(bl_expand(bl_ne(mask, 0), 1), z, 0);
}

/* Sum over the rows that count of rows[n], divided by max(their number, 1). */
static bl_tensor mean_of_rows(bl_tensor rows, bl_tensor mask)
{
    bl_tensor sum = bl_sum(bl_select(bl_ne(mask, 0), rows, 0));
    return bl_div(sum, bl_max(counted_rows(mask), 1));
}

static bool has_classes(bl_tensor z)
{
    if (bl_dim(z, 1) >= 1)
        return true;
    bl_poison(z.graph, "z_ft is [%lld,0], expected at least one class", (long long)bl_dim(z, 0));
    return false;
}

/* --- consistency ------------------------------------------------------------------------------ */

#define BALORA_CONSISTENCY(IN, OPT, OUT)                                                           \
    IN(z_pre, "f32[N,D]", "rows > 0", "logits of the frozen pre-trained model")                    \
    IN(z_ft, "f32[N,D]", "grad", "logits of the tuned one")                                        \
    IN(mask, "i32[N]", "in {0,1}", "1 where the row counts")                                       \
    OPT(kind, "kl", "kl|mse_norm", "divergence, or distance of the unit rows (2024)")              \
    OPT(temperature, 1.0, "(0,inf)", "of both distributions")                                      \
    OUT(loss, "f32[]", "mean over the rows that count; 0 if none")

/* sum over d of p (log p - log q), p = softmax(teacher), q = softmax(student). */
static bl_tensor divergence_of_rows(bl_tensor teacher, bl_tensor student)
{
    bl_tensor log_p = bl_log_softmax(teacher, -1), log_q = bl_log_softmax(student, -1);
    return bl_sum(bl_mul(bl_exp(log_p), bl_sub(log_p, log_q)), -1);
}

BL_CONTRACT(balora_consistency, BALORA_CONSISTENCY, "distance to the pre-trained model's outputs")
{
    if (!has_classes(f->z_ft))
        return;
    bl_tensor pre = masked_rows(bl_stop_gradient(f->z_pre), f->mask);
    bl_tensor ft = masked_rows(f->z_ft, f->mask), T = f->temperature;
    if (bl_is(f->kind, "kl")) {
        bl_tensor kl = divergence_of_rows(bl_div(pre, T), bl_div(ft, T));
        f->loss = bl_mul(bl_square(T), mean_of_rows(kl, f->mask));
    } else {
        bl_tensor gap = bl_sub(bl_unit_rows(ft, 1e-12), bl_unit_rows(pre, 1e-12));
        f->loss = mean_of_rows(bl_mean(bl_square(gap), -1), f->mask);
    }
}

/* --- diversity -------------------------------------------------------------------------------- */

#define BALORA_DIVERSITY(IN, OPT, OUT)                                                             \
    IN(z_ft, "f32[N,D]", "grad, rows > 0", "logits")                                               \
    IN(mask, "i32[N]", "in {0,1}", "1 where the row counts")                                       \
    OPT(kind, "cov", "cov|entropy|topk_entropy",                                                   \
        "correlation of the classes, or minus the entropy of all or of the likeliest ones")        \
    OPT(top_k, 20, ">= 1", "classes of topk_entropy; more than there are: all")                    \
    OUT(loss, "f32[]", "0 if too few rows count")

/* (1/D) sum of C[i,j]^2 over i != j, C the covariance of the rows that count; 0 for fewer than 2.
 */
static bl_tensor correlation(bl_tensor z, bl_tensor mask)
{
    int64_t D = bl_dim(z, 1);
    bl_tensor n = counted_rows(mask), rows = masked_rows(z, mask);
    bl_tensor mean = bl_div(bl_sum_keep(rows, 0), bl_max(n, 1));
    bl_tensor centred = masked_rows(bl_sub(rows, mean), mask);
    bl_tensor C = bl_div(bl_dot(centred, centred, true, false), bl_max(bl_sub(n, 1), 1));
    bl_tensor apart = bl_ne(bl_iota(z.graph, BL_I32, BL_SHAPE(D, D), 0),
                            bl_iota(z.graph, BL_I32, BL_SHAPE(D, D), 1));
    bl_tensor loss = bl_div(bl_sum(bl_square(bl_select(apart, C, 0))), (double)D);
    return bl_select(bl_ge(n, 2), loss, 0);
}

BL_CONTRACT(balora_diversity, BALORA_DIVERSITY, "keeps the outputs of a batch diverse")
{
    if (!has_classes(f->z_ft))
        return;
    if (bl_is(f->kind, "cov")) {
        f->loss = correlation(f->z_ft, f->mask);
        return;
    }
    bl_tensor z = masked_rows(f->z_ft, f->mask);
    int64_t D = bl_dim(z, 1);
    if (bl_is(f->kind, "topk_entropy"))
        bl_top_k(z, f->top_k < D ? f->top_k : D, &z, NULL);
    bl_tensor log_q = bl_log_softmax(z, -1);
    f->loss = mean_of_rows(bl_sum(bl_mul(bl_exp(log_q), log_q), -1), f->mask);
}

/* --- singular values -------------------------------------------------------------------------- */

#define BALORA_SVD(IN, OPT, OUT)                                                                   \
    IN(z_ft, "f32[N,D]", "grad, rows > 0", "logits")                                               \
    IN(mask, "i32[N]", "in {0,1}", "1 where the row counts")                                       \
    OPT(k, 5, ">= 1", "leading singular values")                                                   \
    OPT(norm, "nuclear", "nuclear|frobenius", "what they are a share of")                          \
    OUT(loss, "f32[]", "minus that share; 0 where it has no meaning")

/* Rows that do not count are zeros: they add only singular values of 0. In double, so that those
 * and the ones of dependent rows are told from small ones; they have no direction, so no gradient.
 */
BL_CONTRACT(balora_svd, BALORA_SVD, "concentrates the batch's logits on few singular directions")
{
    int64_t N = bl_dim(f->z_ft, 0), D = bl_dim(f->z_ft, 1), least = N < D ? N : D;
    if (!has_classes(f->z_ft))
        return;
    bl_tensor u, s, v;
    bl_svd(bl_cast(masked_rows(f->z_ft, f->mask), BL_F64), &u, &s, &v);
    bl_tensor fixed = bl_stop_gradient(s), largest = bl_slice_axis(fixed, 0, 0, 1);
    bl_tensor sigma = bl_select(bl_gt(s, bl_mul(1e-7, largest)), s, fixed);
    bl_tensor leading = bl_sum(bl_slice_axis(sigma, 0, 0, f->k < least ? f->k : least));
    bl_tensor all = bl_is(f->norm, "nuclear") ? bl_sum(sigma) : bl_norm(sigma, 0);

    bl_tensor enough = bl_ge(counted_rows(f->mask), D < 2 ? INFINITY : 2.0);
    bl_tensor defined = bl_and(enough, bl_gt(all, 1e-8));
    bl_tensor share = bl_div(leading, bl_select(defined, all, 1));
    f->loss = bl_cast(bl_select(defined, bl_neg(share), 0), BL_F32);
}

/* --- together --------------------------------------------------------------------------------- */

#define BALORA_LOSS(IN, OPT, OUT)                                                                  \
    IN(task_loss, "f32[]", "grad", "loss of the task")                                             \
    IN(z_pre, "f32[N,D]", "rows > 0", "logits of the frozen pre-trained model")                    \
    IN(z_ft, "f32[N,D]", "grad", "logits of the tuned one")                                        \
    IN(mask, "i32[N]", "in {0,1}", "1 where the row counts")                                       \
    IN(weights, "f32[3]", ">= 0", "of the three terms, see balora_weights")                        \
    OPT(consistency, "kl", "kl|mse_norm", "as balora_consistency")                                 \
    OPT(temperature, 1.0, "(0,inf)", "likewise")                                                   \
    OPT(diversity, "cov", "cov|entropy|topk_entropy", "as balora_diversity")                       \
    OPT(top_k, 20, ">= 1", "likewise")                                                             \
    OPT(svd_k, 5, ">= 1", "as balora_svd")                                                         \
    OPT(svd_norm, "nuclear", "nuclear|frobenius", "likewise")                                      \
    OUT(loss, "f32[]", "task_loss + w1 consistency + w2 diversity + w3 svd")                       \
    OUT(consistency, "f32[]", "the terms, unweighted")                                             \
    OUT(diversity, "f32[]", "")                                                                    \
    OUT(svd, "f32[]", "")

BL_CONTRACT_APART(balora_loss, BALORA_LOSS, "a task's loss with the three penalties")
{
    struct balora_consistency c = {.z_pre = f->z_pre,
                                   .z_ft = f->z_ft,
                                   .mask = f->mask,
                                   .kind = f->consistency,
                                   .temperature = f->temperature};
    struct balora_diversity d = {
        .z_ft = f->z_ft, .mask = f->mask, .kind = f->diversity, .top_k = f->top_k};
    struct balora_svd s = {.z_ft = f->z_ft, .mask = f->mask, .k = f->svd_k, .norm = f->svd_norm};
    bl_call(balora_consistency, &c);
    bl_call(balora_diversity, &d);
    bl_call(balora_svd, &s);

    bl_tensor term[] = {c.loss, d.loss, s.loss}, loss = f->task_loss;
    for (int i = 0; i < 3; i++) {
        bl_tensor weight = bl_pick(f->weights, 0, i);
        loss = bl_add(loss, bl_mul(bl_stop_gradient(weight), term[i]));
    }
    f->out_loss = loss;
    f->out_consistency = c.loss, f->out_diversity = d.loss, f->out_svd = s.loss;
}

/* --- the schedules ---------------------------------------------------------------------------- */

#define BALORA_WEIGHTS(IN, OPT, OUT)                                                               \
    IN(step, "i32[]", "", "steps done")                                                            \
    OPT(lambda1, 0.025, "[0,inf)", "weight of consistency")                                        \
    OPT(lambda2, 0.005, "[0,inf)", "of diversity")                                                 \
    OPT(lambda3, 0.005, "[0,inf)", "of the singular values")                                       \
    OPT(total_steps, BL_REQUIRED_INTEGER, ">= 1", "steps of the run")                              \
    OPT(consistency_schedule, "cosine", "cosine|constant", "cosine: down to a tenth of lambda1")   \
    OPT(focus_schedule, "two_phase", "none|two_phase|linear_warmup|quadratic_warmup",              \
        "how lambda2 and lambda3 set in")                                                          \
    OPT(warmup_ratio, 0.2, "[0,inf)", "share of the run before, or until, they act fully")         \
    OPT(ramp_ratio, 0.05, "[0,inf)", "share in which they set in, of two_phase")                   \
    OUT(weights, "f32[3]", "the three weights at this step")

/* f in [0,1] at step t of `total`, both in double: floor(0.29 * 100) is 28. */
static bl_tensor focus(const char *schedule, bl_tensor t, bl_tensor total, bl_tensor warmup_ratio,
                       bl_tensor ramp_ratio)
{
    bl_tensor warm = bl_floor(bl_mul(bl_cast(warmup_ratio, BL_F64), total));
    bl_tensor ramp = bl_max(bl_floor(bl_mul(bl_cast(ramp_ratio, BL_F64), total)), 1);
    if (bl_is(schedule, "none"))
        return bl_ones_like(t);
    if (bl_is(schedule, "two_phase"))
        return bl_clamp(bl_div(bl_sub(t, warm), ramp), 0, 1);
    bl_tensor linear = bl_select(bl_gt(warm, 0), bl_min(bl_div(t, bl_max(warm, 1)), 1), 1);
    return bl_is(schedule, "linear_warmup") ? linear : bl_square(linear);
}

BL_CONTRACT(balora_weights, BALORA_WEIGHTS, "the penalties' weights during a run")
{
    bl_tensor t = bl_cast(f->step, BL_F64), total = bl_number((double)f->total_steps);
    bl_tensor first = bl_ones_like(t);
    if (bl_is(f->consistency_schedule, "cosine")) {
        bl_tensor wave = bl_cos(bl_div(bl_mul(3.14159265358979323846, t), total));
        first = bl_add(0.1, bl_mul(0.45, bl_add(1, wave)));
    }
    bl_tensor later = focus(f->focus_schedule, t, total, f->warmup_ratio, f->ramp_ratio);
    bl_tensor weight[] = {bl_mul(bl_cast(f->lambda1, BL_F64), first),
                          bl_mul(bl_cast(f->lambda2, BL_F64), later),
                          bl_mul(bl_cast(f->lambda3, BL_F64), later)};
    for (int i = 0; i < 3; i++)
        weight[i] = bl_cast(bl_expand(weight[i], 0), BL_F32);
    f->weights = bl_concat(weight, 3, 0);
}

/* --- the start -------------------------------------------------------------------------------- */

#define BALORA_PISSA_INIT(IN, OPT, OUT)                                                            \
    IN(w, "f32[O,I]", "finite", "weight of a dense layer, y = x w^T")                              \
    OPT(rank, BL_REQUIRED_INTEGER, ">= 1", "of the adapter, at most min(O,I)")                     \
    OPT(scale, 1.0, "finite", "of the adapter, alpha / rank")                                      \
    OUT(a, "f32[rank,I]", "(U sqrt(S))^T of the leading part of w^T = U S V^T")                    \
    OUT(b, "f32[O,rank]", "V sqrt(S)")                                                             \
    OUT(w_res, "f32[O,I]", "w - scale b a, to be frozen")

BL_CONTRACT(balora_pissa_init, BALORA_PISSA_INIT, "adapters from the leading singular directions")
{
    bl_tensor w = bl_cast(bl_stop_gradient(f->w), BL_F64), u, s, v;
    bl_truncated_svd(bl_transpose(w), f->rank, &u, &s, &v);
    bl_tensor root = bl_expand(bl_sqrt(s), 0);
    bl_tensor a = bl_transpose(bl_mul(u, root)), b = bl_mul(v, root);
    f->a = bl_cast(a, BL_F32);
    f->b = bl_cast(b, BL_F32);
    f->w_res = bl_cast(bl_sub(w, bl_mul(bl_cast(f->scale, BL_F64), bl_matmul(b, a))), BL_F32);
}

const bl_method bl_ba_lora = {
    .slug = "ba_lora",
    .family = "adaptation",
    .paper = "Chang et al. 2024, arXiv 2408.04556",
    .summary = "(no arm) low-rank adapters that do not inherit the defects of pre-training",
    .when =
        "Fine-tuning with adapters on few or noisy data. Costs a forward pass of the frozen model "
        "and a singular value decomposition of the batch's logits.",
    .functions = {&balora_loss_contract, &balora_consistency_contract, &balora_diversity_contract,
                  &balora_svd_contract, &balora_weights_contract, &balora_pissa_init_contract},
    .example = "ballast check tests/cases/09-ba-lora/balora_loss-1.safetensors",
};
