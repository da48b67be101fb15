/* Random Teachers are Good Teachers. Sarnthein et al., ICML 2023, arXiv 2302.12091. A student
 * learns to match the outputs of an untrained, frozen network of its own architecture, without
 * labels; its features become better than the teacher's. Here are the loss, the projection head,
 * the student's start beside the teacher, and what features and connectivity are judged by.
 *
 * The head normalises the rows of its last weights as the method's description and the authors'
 * stand-alone script do; weight_norm = false is what their released trainer computes. */
#include "methods/method.h"
#include "ballast/solve.h"

#define RANDOM_TEACHER_LOSS(IN, OPT, OUT)                                                          \
    IN(student, "f32[B,D]", "grad, rows > 0", "student outputs")                                   \
    IN(teacher, "f32[B,D]", "", "teacher outputs")                                                 \
    IN(center, "f32[D]", "", "subtracted from the teacher's outputs")                              \
    OPT(kind, "ce", "ce|kl|mse", "mse uses neither temperature nor center")                        \
    OPT(student_temp, 1.0, "(0,inf)", "temperature of the student")                                \
    OPT(teacher_temp, 1.0, "(0,inf)", "temperature of the teacher")                                \
    OUT(loss, "f32[]", "mean over examples")

BL_CONTRACT(random_teacher_loss, RANDOM_TEACHER_LOSS, "distance of a student from its teacher")
{
    bl_tensor teacher = bl_stop_gradient(f->teacher);
    if (bl_is(f->kind, "mse")) {
        f->loss = bl_mean(bl_square(bl_sub(f->student, teacher)));
        return;
    }
    bl_tensor centred = bl_sub(teacher, bl_stop_gradient(f->center));
    bl_tensor log_t = bl_log_softmax(bl_div(centred, f->teacher_temp), -1);
    bl_tensor log_p = bl_log_softmax(bl_div(f->student, f->student_temp), -1);

    f->loss = bl_is(f->kind, "kl") ? bl_mean(bl_kl_divergence(log_t, log_p, -1))
                                   : bl_neg(bl_mean(bl_sum(bl_mul(bl_exp(log_t), log_p), -1)));
}

#define RANDOM_TEACHER_HEAD(IN, OPT, OUT)                                                          \
    IN(x, "f32[B,E]", "grad", "embeddings")                                                        \
    IN(w1, "f32[H,E]", "grad", "first layer")                                                      \
    IN(b1, "f32[H]", "grad", "")                                                                   \
    IN(w2, "f32[H,H]", "grad", "second layer")                                                     \
    IN(b2, "f32[H]", "grad", "")                                                                   \
    IN(wb, "f32[Z,H]", "grad", "bottleneck")                                                       \
    IN(bb, "f32[Z]", "grad", "")                                                                   \
    IN(v, "f32[D,Z]", "grad", "directions that the outputs are compared with")                     \
    OPT(weight_norm, 1, "flag", "directions of unit length: logits are cosines")                   \
    OPT(eps, 1e-12, "(0,inf)", "smallest length that is divided by")                               \
    OUT(logits, "f32[B,D]", "z v^T")

BL_CONTRACT(random_teacher_head, RANDOM_TEACHER_HEAD, "projection head on unit bottleneck vectors")
{
    bl_tensor h = bl_gelu_exact(bl_linear(f->x, f->w1, f->b1));
    h = bl_gelu_exact(bl_linear(h, f->w2, f->b2));
    bl_tensor z = bl_unit_rows(bl_linear(h, f->wb, f->bb), f->eps);
    bl_tensor v = f->weight_norm ? bl_unit_rows(f->v, f->eps) : f->v;
    f->logits = bl_dot(z, v, false, true);
}

#define RANDOM_TEACHER_INIT(IN, OPT, OUT)                                                          \
    IN(teacher, "f32[P]", "", "parameters of the teacher")                                         \
    IN(noise, "f32[P]", "", "an independent draw of the same initialisation")                      \
    OPT(alpha, 1.0, "[0,1]", "0: a copy of the teacher, 1: independent of it")                     \
    OPT(keep_variance, 1, "flag", "divide by sqrt(alpha^2 + (1-alpha)^2)")                         \
    OUT(student, "f32[P]", "parameters to start from")

BL_CONTRACT(random_teacher_init, RANDOM_TEACHER_INIT, "a student's start between teacher and noise")
{
    bl_tensor rest = bl_sub(1, f->alpha);
    f->student = bl_add(bl_mul(rest, f->teacher), bl_mul(f->alpha, f->noise));
    if (f->keep_variance)
        f->student = bl_div(f->student, bl_sqrt(bl_add(bl_square(f->alpha), bl_square(rest))));
}

#define RANDOM_TEACHER_STANDARDIZE(IN, OPT, OUT)                                                   \
    IN(train, "f32[n,E]", "rows > 0", "features of the training set")                              \
    IN(test, "f32[m,E]", "", "features of the test set")                                           \
    OUT(train_std, "f32[n,E]", "minus the train mean, by the unbiased train deviation")            \
    OUT(test_std, "f32[m,E]", "the same with the train statistics")

/* In double: the mean of a constant feature is then exact enough for its deviation to count as 0.
 */
BL_CONTRACT(random_teacher_standardize, RANDOM_TEACHER_STANDARDIZE, "features on one scale")
{
    bl_tensor train = bl_cast(f->train, BL_F64), test = bl_cast(f->test, BL_F64);
    double n = (double)bl_dim(train, 0);
    bl_tensor mean = bl_mean_keep(train, 0);
    bl_tensor sum = bl_sum_keep(bl_square(bl_sub(train, mean)), 0);
    bl_tensor sd = bl_sqrt(bl_div(sum, fmax(n - 1, 1))); /* one row has deviation 0 */
    sd = bl_select(bl_lt(sd, 1.1920929e-6), 1, sd);
    f->train_std = bl_cast(bl_div(bl_sub(train, mean), sd), BL_F32);
    f->test_std = bl_cast(bl_div(bl_sub(test, mean), sd), BL_F32);
}

#define RANDOM_TEACHER_KNN(IN, OPT, OUT)                                                           \
    IN(train, "f32[n,E]", "", "features")                                                          \
    IN(labels, "i32[n]", "0 <= . < classes", "class of each training row")                         \
    IN(test, "f32[m,E]", "", "features to classify")                                               \
    OPT(k, 20, ">= 1", "neighbours that vote")                                                     \
    OPT(classes, BL_REQUIRED_INTEGER, ">= 1", "number of classes")                                 \
    OUT(votes, "i32[m,classes]", "of the k nearest; ties to the lower training row")               \
    OUT(pred, "i32[m]", "first class with most votes")

/* The class with most votes, the first of equals. */
static int32_t winner(const int32_t *votes, int64_t classes)
{
    int32_t best = 0;
    for (int32_t c = 1; c < classes; c++)
        best = votes[c] > votes[best] ? c : best;
    return best;
}

BL_HOST(random_teacher_knn, RANDOM_TEACHER_KNN, "votes of the nearest training examples")
{
    int64_t n = f->train.type.shape.dim[0], m = f->test.type.shape.dim[0];
    if (f->k > n)
        return bl_fail(BL_INVALID, "option k is %lld, expected at most the rows of train (%lld)",
                       (long long)f->k, (long long)n);
    double *train = bl_array_doubles(&f->train), *test = bl_array_doubles(&f->test);
    size_t bytes = (size_t)(m * f->k + 1) * sizeof(int32_t);
    int32_t *nearest = bl_alloc(bytes);
    int64_t features = f->train.type.shape.dim[1];
    bl_status status = train && test && nearest
                           ? bl_nearest_rows(test, m, train, n, features, f->k, nearest, NULL)
                           : bl_no_memory(bytes);
    for (int64_t i = 0; i < m && status == BL_OK; i++) {
        int32_t *votes = bl_i32(&f->votes) + i * f->classes;
        for (int64_t j = i * f->k; j < (i + 1) * f->k; j++)
            votes[bl_i32(&f->labels)[nearest[j]]]++;
        bl_i32(&f->pred)[i] = winner(votes, f->classes);
    }
    bl_release(train);
    bl_release(test);
    bl_release(nearest);
    return status;
}

#define RANDOM_TEACHER_BARRIER(IN, OPT, OUT)                                                       \
    IN(losses, "f32[n]", "rows > 0", "loss along the line between two networks")                   \
    IN(alphas, "f32[n]", "0 <= . <= 1", "where on the line, rising from 0 to 1")                   \
    OUT(barrier, "f32[]", "largest excess over the straight line between the ends")

static bl_contract_check random_teacher_barrier_check;

BL_CONTRACT_CHECKED(random_teacher_barrier, RANDOM_TEACHER_BARRIER,
                    "loss barrier between two networks", random_teacher_barrier_check)
{
    int64_t n = bl_dim(f->losses, 0);
    bl_tensor first = bl_slice_axis(f->losses, 0, 0, 1),
              last = bl_slice_axis(f->losses, 0, n - 1, n);
    bl_tensor line = bl_add(bl_mul(bl_sub(1, f->alphas), first), bl_mul(f->alphas, last));
    f->barrier = bl_reduce_max(bl_sub(f->losses, line));
}

static bl_status random_teacher_barrier_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *alphas = bl_dictionary_find(in, "alphas");
    int64_t n = bl_array_count(alphas);
    for (int64_t i = 0; i < n; i++) {
        double here = bl_array_get(alphas, i), before = i ? bl_array_get(alphas, i - 1) : -1;
        bool is_end = (i == 0 && here != 0) || (i == n - 1 && here != 1);
        if (is_end || !(here > before))
            return bl_fail(BL_INVALID, "alphas[%lld] is %g, expected values rising from 0 to 1",
                           (long long)i, here);
    }
    return BL_OK;
}

const bl_method bl_random_teacher = {
    .slug = "random_teacher",
    .family = "labels",
    .paper = "Sarnthein et al. 2023, arXiv 2302.12091",
    .summary = "learns features without labels by imitating an untrained network",
    .when = "As a warm start where labels are scarce, or to study what imitation alone does. "
            "Costs a second forward pass and long training.",
    .example = "ballast show random_teacher_loss",
    .functions = {&random_teacher_loss_contract, &random_teacher_head_contract,
                  &random_teacher_init_contract, &random_teacher_standardize_contract,
                  &random_teacher_knn_contract, &random_teacher_barrier_contract},
};
