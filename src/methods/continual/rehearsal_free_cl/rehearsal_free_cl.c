/* A closer look at rehearsal-free continual learning. Smith et al., CVPR workshops 2023, arXiv
 * 2203.17269. Classes come in tasks, no old data are stored, only the previous model is kept. The
 * classic constraints, each on its own: distil predictions, distil features, anchor parameters with
 * Fisher weights or uniformly; on a head of one sigmoid for each class or a softmax.
 *
 * The paper's own code is not public; sums, means and factors follow the authors' earlier code. */
#include "methods/method.h"

/* The first n_old of at most C columns; least is 0 or 1. */
static bool old_columns_fit(bl_tensor logits, int64_t n_old, int64_t least)
{
    int64_t C = bl_dim(logits, 1);
    if (n_old >= least && n_old <= C)
        return true;
    bl_poison(logits.graph, "option n_old is %lld, expected %lld <= . <= C (C is %lld)",
              (long long)n_old, (long long)least, (long long)C);
    return false;
}

/* --- classification --------------------------------------------------------------------------- */

/* New columns only, if old ones are to be ignored; else all. */
static bl_tensor class_term(bl_tensor logits, bl_tensor y, int64_t n_old, const char *kind,
                            const char *old_columns)
{
    int64_t C = bl_dim(logits, 1), first = bl_is(old_columns, "ignore") ? n_old : 0;
    bl_tensor own = bl_slice_axis(logits, 1, first, C), label = bl_sub(y, (double)first);
    if (bl_is(kind, "softmax"))
        return bl_cross_entropy(own, label);
    bl_tensor target = bl_onehot(label, C - first, BL_F32);
    return bl_mean(bl_sum(bl_binary_cross_entropy(own, target), 1));
}

/* Labels of old classes have no column where old columns are ignored. */
static bl_status check_new_labels(const bl_dictionary *in, int64_t n_old, const char *old_columns)
{
    const bl_array *y = bl_dictionary_find(in, "y");
    int64_t count = bl_array_count(y);
    for (int64_t i = 0; i < count && bl_is(old_columns, "ignore"); i++)
        if (bl_array_get(y, i) < (double)n_old)
            return bl_fail(BL_INVALID,
                           "y[%lld] is %.0f, expected n_old <= . (n_old is %lld): old_columns are "
                           "ignored",
                           (long long)i, bl_array_get(y, i), (long long)n_old);
    return BL_OK;
}

#define REHEARSAL_FREE_CL_CLASS_LOSS(IN, OPT, OUT)                                                 \
    IN(logits, "f32[B,C]", "grad, rows > 0", "columns of all classes seen so far, by task")        \
    IN(y, "i32[B]", "0 <= . < C", "class, counted over all tasks")                                 \
    OPT(n_old, 0, ">= 0", "columns of earlier tasks")                                              \
    OPT(kind, "bce", "bce|softmax", "the head")                                                    \
    OPT(old_columns, "zero", "zero|ignore", "ignore where predictions are distilled")              \
    OUT(loss, "f32[]", "bce: summed over classes, mean over examples")

static bl_contract_check rehearsal_free_cl_class_loss_check;

BL_CONTRACT_CHECKED(rehearsal_free_cl_class_loss, REHEARSAL_FREE_CL_CLASS_LOSS,
                    "classification of the current task", rehearsal_free_cl_class_loss_check)
{
    if (old_columns_fit(f->logits, f->n_old, 0))
        f->loss = class_term(f->logits, f->y, f->n_old, f->kind, f->old_columns);
}

static bl_status rehearsal_free_cl_class_loss_check(const bl_dictionary *in, const void *options)
{
    const struct rehearsal_free_cl_class_loss *o = options;
    return check_new_labels(in, o->n_old, o->old_columns);
}

/* --- distillation ----------------------------------------------------------------------------- */

/* Of the old columns alone; the temperature is for the softmax, without a factor T^2. */
static bl_tensor prediction_term(bl_tensor logits, bl_tensor teacher, int64_t n_old, bool softmax,
                                 bl_tensor temperature)
{
    bl_tensor o = bl_slice_axis(logits, 1, 0, n_old);
    bl_tensor t = bl_stop_gradient(bl_slice_axis(teacher, 1, 0, n_old));
    if (softmax)
        return bl_soft_cross_entropy(bl_div(o, temperature),
                                     bl_softmax(bl_div(t, temperature), -1));
    return bl_mean(bl_sum(bl_binary_cross_entropy(o, bl_sigmoid(t)), 1));
}

#define REHEARSAL_FREE_CL_PREDKD(IN, OPT, OUT)                                                     \
    IN(logits, "f32[B,C]", "grad, rows > 0", "of the current model")                               \
    IN(teacher, "f32[B,?]", "", "of the previous one; C or more")                                  \
    OPT(n_old, BL_REQUIRED_INTEGER, ">= 1", "columns of earlier tasks")                            \
    OPT(kind, "sigmoid", "sigmoid|softmax", "as the head")                                         \
    OPT(temperature, 2.0, "(0,inf)", "of the softmax; sigmoids have none")                         \
    OUT(loss, "f32[]", "mean over examples")

BL_CONTRACT(rehearsal_free_cl_predkd, REHEARSAL_FREE_CL_PREDKD,
            "distance of predictions for old classes from the previous model's")
{
    if (bl_dim(f->teacher, 1) < bl_dim(f->logits, 1)) {
        bl_poison(graph, "teacher has %lld columns, expected at least those of logits (%lld)",
                  (long long)bl_dim(f->teacher, 1), (long long)bl_dim(f->logits, 1));
        return;
    }
    if (old_columns_fit(f->logits, f->n_old, 1))
        f->loss = prediction_term(f->logits, f->teacher, f->n_old, bl_is(f->kind, "softmax"),
                                  f->temperature);
}

/* Squared distance of features[B,..]: summed for each example, or the mean over all elements. */
static bl_tensor feature_term(bl_tensor feat, bl_tensor teacher, const char *reduction)
{
    bl_tensor square = bl_square(bl_sub(feat, bl_stop_gradient(teacher)));
    if (bl_is(reduction, "mean"))
        return bl_mean(square);
    return bl_div(bl_sum(square), (double)bl_dim(feat, 0));
}

#define REHEARSAL_FREE_CL_FEATKD(IN, OPT, OUT)                                                     \
    IN(feat, "f32[B,S...]", "grad, rows > 0", "of the current model, usually penultimate")         \
    IN(teacher, "f32[B,S...]", "", "of the previous one")                                          \
    OPT(reduction, "sum_mean", "sum_mean|mean", "over an example's elements, or all")              \
    OUT(loss, "f32[]", "mean over examples of |feat - teacher|^2")

BL_CONTRACT(rehearsal_free_cl_featkd, REHEARSAL_FREE_CL_FEATKD,
            "distance of features from the previous model's")
{
    f->loss = feature_term(f->feat, f->teacher, f->reduction);
}

/* --- anchors ---------------------------------------------------------------------------------- */

/* No factor 1/2. */
static bl_tensor anchor_term(bl_tensor theta, bl_tensor anchor, bl_tensor fisher, const char *kind)
{
    bl_tensor square = bl_square(bl_sub(theta, bl_stop_gradient(anchor)));
    return bl_sum(bl_is(kind, "ewc") ? bl_mul(bl_stop_gradient(fisher), square) : square);
}

#define REHEARSAL_FREE_CL_PARAM_REG(IN, OPT, OUT)                                                  \
    IN(theta, "f32[P]", "grad", "parameters; the head apart, whose new rows have no anchor")       \
    IN(anchor, "f32[P]", "", "those of the previous model")                                        \
    IN(fisher, "f32[P]", ">= 0", "their importance")                                               \
    OPT(kind, "l2", "l2|ewc", "all alike, or by importance")                                       \
    OUT(loss, "f32[]", "sum (theta - anchor)^2, times fisher for ewc")

BL_CONTRACT(rehearsal_free_cl_param_reg, REHEARSAL_FREE_CL_PARAM_REG,
            "distance of parameters from the previous model's")
{
    f->loss = anchor_term(f->theta, f->anchor, f->fisher, f->kind);
}

#define REHEARSAL_FREE_CL_FISHER_UPDATE(IN, OPT, OUT)                                              \
    IN(grads, "f32[M,P]", "rows > 0", "a gradient for each example, or batch")                     \
    IN(weight, "f32[M]", ">= 0", "of each; the batch size")                                        \
    IN(fisher, "f32[P]", ">= 0", "importance so far")                                              \
    OPT(mode, "per_example", "per_example|batch", "divide by sum weight, or by M")                 \
    OPT(accumulate, "sum", "replace|sum|ema", "over tasks")                                        \
    OPT(decay, 0.9, "[0,1]", "share of the old one kept by ema")                                   \
    OUT(fisher_out, "f32[P]", "with sum_m w_m g_m^2 / (sum w or M)")

static bl_contract_check rehearsal_free_cl_fisher_update_check;

BL_CONTRACT_CHECKED(rehearsal_free_cl_fisher_update, REHEARSAL_FREE_CL_FISHER_UPDATE,
                    "importance of parameters from gradients",
                    rehearsal_free_cl_fisher_update_check)
{
    bl_tensor sum = bl_sum(bl_mul(bl_expand(f->weight, 1), bl_square(f->grads)), 0);
    bl_tensor by =
        bl_is(f->mode, "batch") ? bl_number((double)bl_dim(f->grads, 0)) : bl_sum(f->weight);
    bl_tensor now = bl_div(sum, by);
    f->fisher_out = bl_is(f->accumulate, "replace") ? now
                    : bl_is(f->accumulate, "sum")   ? bl_add(f->fisher, now)
                                                    : bl_add(bl_mul(f->decay, f->fisher), now);
}

static bl_status rehearsal_free_cl_fisher_update_check(const bl_dictionary *in, const void *options)
{
    const struct rehearsal_free_cl_fisher_update *o = options;
    return bl_is(o->mode, "batch") ? BL_OK : bl_input_check(in, "weight", "sum > 0");
}

/* --- all in one ------------------------------------------------------------------------------- */

#define REHEARSAL_FREE_CL_STEP_LOSS(IN, OPT, OUT)                                                  \
    IN(logits, "f32[B,C]", "grad, rows > 0", "of the current model")                               \
    IN(teacher_logits, "f32[B,C]", "", "of the previous one")                                      \
    IN(y, "i32[B]", "0 <= . < C", "class, counted over all tasks")                                 \
    IN(feat, "f32[B,F]", "grad", "of the current model")                                           \
    IN(teacher_feat, "f32[B,F]", "", "of the previous one")                                        \
    IN(theta, "f32[P]", "grad", "parameters, the head apart")                                      \
    IN(anchor, "f32[P]", "", "those of the previous model")                                        \
    IN(fisher, "f32[P]", ">= 0", "their importance")                                               \
    OPT(n_old, 0, ">= 0", "columns of earlier tasks")                                              \
    OPT(kind, "bce", "bce|softmax", "the head, of the distillation as well")                       \
    OPT(old_columns, "ignore", "zero|ignore", "ignore where predictions are distilled")            \
    OPT(lam_kd, 1.0, "[0,inf)", "weight of kd")                                                    \
    OPT(lam_feat, 0.0, "[0,inf)", "weight of feat")                                                \
    OPT(lam_reg, 0.0, "[0,inf)", "weight of reg")                                                  \
    OPT(reg, "l2", "l2|ewc", "which anchor")                                                       \
    OPT(temperature, 2.0, "(0,inf)", "of softmax distillation")                                    \
    OUT(loss, "f32[]", "class + lam_kd kd + lam_feat feat + lam_reg reg")                          \
    OUT(class, "f32[]", "see rehearsal_free_cl_class_loss")                                        \
    OUT(kd, "f32[]", "see rehearsal_free_cl_predkd; 0 without old columns")                        \
    OUT(feat, "f32[]", "see rehearsal_free_cl_featkd")                                             \
    OUT(reg, "f32[]", "see rehearsal_free_cl_param_reg")

static bl_contract_check rehearsal_free_cl_step_loss_check;

BL_CONTRACT_APART_CHECKED(rehearsal_free_cl_step_loss, REHEARSAL_FREE_CL_STEP_LOSS,
                          "classification, distillation and anchor together",
                          rehearsal_free_cl_step_loss_check)
{
    if (!old_columns_fit(f->logits, f->n_old, 0))
        return;
    bool softmax = bl_is(f->kind, "softmax");
    f->out_class = class_term(f->logits, f->y, f->n_old, f->kind, f->old_columns);
    f->out_kd = f->n_old == 0 ? bl_number(0)
                              : prediction_term(f->logits, f->teacher_logits, f->n_old, softmax,
                                                f->temperature);
    f->out_feat = feature_term(f->feat, f->teacher_feat, "sum_mean");
    f->out_reg = anchor_term(f->theta, f->anchor, f->fisher, f->reg);
    bl_tensor loss = bl_add(f->out_class, bl_mul(f->lam_kd, f->out_kd));
    loss = bl_add(loss, bl_mul(f->lam_feat, f->out_feat));
    f->out_loss = bl_add(loss, bl_mul(f->lam_reg, f->out_reg));
}

static bl_status rehearsal_free_cl_step_loss_check(const bl_dictionary *in, const void *options)
{
    const struct rehearsal_free_cl_step_loss *o = options;
    return check_new_labels(in, o->n_old, o->old_columns);
}

/* --- metrics ---------------------------------------------------------------------------------- */

#define REHEARSAL_FREE_CL_METRICS(IN, OPT, OUT)                                                    \
    IN(r, "f32[N,N]", "rows > 0", "[i,n <= i]: accuracy on task n after task i")                   \
    IN(a, "f32[N,N]", "", "the same, among task n's classes alone")                                \
    IN(sizes, "i32[N]", "> 0", "classes of each task")                                             \
    OUT(global_forgetting, "f32[]", "positive: accuracy was lost")                                 \
    OUT(local_forgetting, "f32[]", "negative: accuracy was lost (sic)")                            \
    OUT(final_accuracy, "f32[]", "of the last row of r, by size")

BL_HOST(rehearsal_free_cl_metrics, REHEARSAL_FREE_CL_METRICS, "forgetting over a sequence of tasks")
{
    int64_t N = f->r.type.shape.dim[0];
    const float *r = bl_f32(&f->r), *a = bl_f32(&f->a);
    const int32_t *size = bl_i32(&f->sizes);
    double lost = 0, gained = 0, final = 0, seen = 0; /* seen: |T_1:i| */
    for (int64_t i = 0; i < N; i++) {
        double fall = 0;
        seen += size[i];
        for (int64_t n = 0; n < i; n++)
            fall += size[n] * ((double)r[n * N + n] - (double)r[i * N + n]);
        lost += fall / seen;
        final += size[i] * (double)r[(N - 1) * N + i];
        gained += (double)a[(N - 1) * N + i] - (double)a[i * N + i]; /* 0 for the last task */
    }
    double pairs = N > 1 ? (double)(N - 1) : 1;
    bl_array_set(&f->global_forgetting, 0, lost / pairs);
    bl_array_set(&f->local_forgetting, 0, N > 1 ? gained / pairs : 0);
    bl_array_set(&f->final_accuracy, 0, final / seen);
    return BL_OK;
}

#define REHEARSAL_FREE_CL_CKA(IN, OPT, OUT)                                                        \
    IN(x, "f32[n,p]", "grad, rows > 0", "features of n examples")                                  \
    IN(y, "f32[n,q]", "grad", "others of the same examples")                                       \
    OPT(eps, 1e-12, "[0,inf)", "added to the denominator")                                         \
    OUT(cka, "f32[]", "|y^T x|^2 / (|x^T x| |y^T y| + eps), columns centred, Frobenius norms")

static bl_tensor inner_square(bl_tensor x, bl_tensor y)
{
    return bl_sum(bl_square(bl_dot(x, y, true, false)));
}

/* Centred in double, so that constant features are zero then; the products are of single ones. */
static bl_tensor centred(bl_tensor x)
{
    x = bl_to_f64(x);
    return bl_to_f32(bl_sub(x, bl_mean_keep(x, 0)));
}

BL_CONTRACT(rehearsal_free_cl_cka, REHEARSAL_FREE_CL_CKA,
            "linear similarity of two sets of features")
{
    bl_tensor x = centred(f->x), y = centred(f->y);
    bl_tensor sizes = bl_mul(bl_sqrt(inner_square(x, x)), bl_sqrt(inner_square(y, y)));
    f->cka = bl_div(inner_square(y, x), bl_add(sizes, f->eps));
}

const bl_method bl_rehearsal_free_cl = {
    .slug = "rehearsal_free_cl",
    .family = "continual",
    .paper = "Smith et al. 2023, arXiv 2203.17269",
    .summary = "learns class after class without stored data: distillation and anchors",
    .when = "Class-incremental learning where old data may not be kept; the baselines to beat. "
            "Costs a forward pass of the previous model and, for EWC, gradients by example.",
    .example = "ballast show rehearsal_free_cl_step_loss",
    .functions = {&rehearsal_free_cl_step_loss_contract, &rehearsal_free_cl_class_loss_contract,
                  &rehearsal_free_cl_predkd_contract, &rehearsal_free_cl_featkd_contract,
                  &rehearsal_free_cl_param_reg_contract, &rehearsal_free_cl_fisher_update_contract,
                  &rehearsal_free_cl_metrics_contract, &rehearsal_free_cl_cka_contract},
};
