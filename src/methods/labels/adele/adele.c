/* ADELE, adaptive early-learning correction. Liu et al., CVPR 2022, arXiv 2110.03740. Segmentation
 * from masks that are wrong in the same way again and again: a network learns what is right about a
 * class first and its errors later, each class at its own time. The overlap of predictions with the
 * given masks is followed over the epochs; when its curve has flattened, confident pixels of that
 * class take the network's own prediction. A consistency term over scaled copies of the image makes
 * those predictions worth taking.
 *
 * We follow the official code (its medical part; options give the other's rules). */
#include "methods/method.h"
#include "ballast/solve.h"

/* Every label names a class or is to be ignored. */
static bl_status check_labels(const bl_array *labels, int64_t classes, int64_t ignore)
{
    int64_t count = bl_array_count(labels);
    for (int64_t i = 0; i < count; i++) {
        double label = bl_array_get(labels, i);
        if (label != (double)ignore && !(label >= 0 && label < (double)classes))
            return bl_fail(BL_INVALID,
                           "labels: pixel %lld is %.0f, expected 0 <= . < C (C is %lld), or "
                           "ignore_index (%lld)",
                           (long long)i, label, (long long)classes, (long long)ignore);
    }
    return BL_OK;
}

/* --- the loss --------------------------------------------------------------------------------- */

#define ADELE_LOSS(IN, OPT, OUT)                                                                   \
    IN(logits, "f32[S,B,H,W,C]", "grad, rows > 0", "outputs at each scale, resized")               \
    IN(scale_weights, "f32[S]", "grad", "softmax inside; ones if not learned")                     \
    IN(labels, "i32[B,H,W]", "", "0..C-1, or ignore_index")                                        \
    OPT(lambda, 1.0, "[0,inf)", "weight of the consistency")                                       \
    OPT(rho, 0.8, "[0,1]", "confidence that opens the gate")                                       \
    OPT(ignore_index, 255, "", "label of pixels to leave out")                                     \
    OPT(mixture_eps, 1e-3, "(0,0.5)", "keeps the mixture in [eps, 1-eps]")                         \
    OPT(mask_mode, "image", "image|pixel", "what the gate looks at")                               \
    OPT(scale_ce_logits, 1, "flag", "multiply logits by scale weights")                            \
    OPT(skip_ignored, 0, "flag", "no consistency on ignored pixels")                               \
    OPT(divide_by, 1.0, "(0,inf)", "of the loss; the medical code has 3")                          \
    OUT(loss, "f32[]", "(ce + lambda consistency) / divide_by")                                    \
    OUT(ce, "f32[]", "summed over scales; ignored pixels count as 0")                              \
    OUT(consistency, "f32[]", "mean over pixels of sum_k KL(p_k || mixture)")                      \
    OUT(mixture, "f32[B,H,W,C]", "clamped weighted mean of the predictions")

/* [S] -> [S,1,1,1,1] */
static bl_tensor over_scales(bl_tensor w)
{
    return bl_reshape(w, BL_SHAPE(-1, 1, 1, 1, 1));
}

/* Sum over scales of the mean over all pixels; those not valid count as 0. */
static bl_tensor sum_of_entropies(bl_tensor logits, bl_tensor labels, bl_tensor valid)
{
    bl_shape rows = bl_type_of(logits).shape;
    rows.rank = 4;
    bl_tensor label = bl_broadcast(bl_select(valid, labels, 0), rows);
    bl_tensor losses = bl_select(valid, bl_cross_entropy_rows(logits, label), 0);
    return bl_mul((double)bl_dim(logits, 0), bl_mean(losses));
}

/* Where the consistency counts: [B,1,1], images that have a confident valid pixel, or [B,H,W]. */
static bl_tensor confident(bl_tensor mixture, bl_tensor valid, bl_tensor rho, const char *mode)
{
    bl_tensor best = bl_reduce_max(bl_stop_gradient(mixture), -1);
    best = bl_select(valid, best, -INFINITY);
    return bl_ge(bl_is(mode, "image") ? bl_reduce_max_keep(best, 1, 2) : best, rho);
}

static bl_contract_check adele_loss_check;

BL_CONTRACT_CHECKED(adele_loss, ADELE_LOSS, "cross-entropy at several scales that must agree",
                    adele_loss_check)
{
    if (bl_type_count(bl_type_of(f->logits)) == 0) {
        bl_poison(graph, "logits have no pixels or no classes, expected f32[S,B,H,W,C] with at "
                         "least one of each");
        return;
    }
    bl_tensor valid = bl_ne(f->labels, (double)f->ignore_index);
    bl_tensor w = over_scales(bl_softmax(f->scale_weights, 0));
    bl_tensor log_p = bl_log_softmax(f->logits, -1);
    bl_tensor mean = bl_sum(bl_mul(w, bl_exp(log_p)), 0);

    f->mixture = bl_clamp(mean, f->mixture_eps, bl_sub(1, f->mixture_eps));
    bl_tensor kl = bl_sum(bl_kl_divergence(log_p, bl_log(f->mixture), -1), 0);
    bl_tensor gate = confident(f->mixture, valid, f->rho, f->mask_mode);
    if (f->skip_ignored)
        gate = bl_and(gate, valid);

    f->consistency = bl_mean(bl_select(gate, kl, 0));
    f->ce =
        sum_of_entropies(f->scale_ce_logits ? bl_mul(w, f->logits) : f->logits, f->labels, valid);
    f->loss = bl_div(bl_add(f->ce, bl_mul(f->lambda, f->consistency)), f->divide_by);
}

static bl_status adele_loss_check(const bl_dictionary *in, const void *options)
{
    const bl_array *logits = bl_dictionary_find(in, "logits");
    return check_labels(bl_dictionary_find(in, "labels"), logits->type.shape.dim[4],
                        ((const struct adele_loss *)options)->ignore_index);
}

/* --- overlap ---------------------------------------------------------------------------------- */

#define ADELE_CLASS_IOU(IN, OPT, OUT)                                                              \
    IN(pred, "i32[P]", "0 <= . < classes", "predicted class of each pixel")                        \
    IN(labels, "i32[P]", "", "given class, or ignore_index")                                       \
    OPT(classes, BL_REQUIRED_INTEGER, ">= 1", "number of classes")                                 \
    OPT(ignore_index, 255, "", "label of pixels to leave out")                                     \
    OUT(iou, "f32[classes]", "tp / (truth + predicted - tp + 1e-10)")                              \
    OUT(tp, "i32[classes]", "pixels whose prediction and label are the class")                     \
    OUT(predicted, "i32[classes]", "pixels predicted as the class")                                \
    OUT(truth, "i32[classes]", "pixels labelled as the class")

/* How many pixels each class has in class i32[P], where `counted`. */
static bl_tensor class_counts(bl_tensor class, bl_tensor counted, int64_t classes)
{
    return bl_sum(bl_onehot(bl_select(counted, class, -1), classes, BL_I32), 0);
}

static bl_contract_check adele_class_iou_check;

BL_CONTRACT_CHECKED(adele_class_iou, ADELE_CLASS_IOU, "overlap of predictions with masks, by class",
                    adele_class_iou_check)
{
    bl_tensor valid = bl_ne(f->labels, (double)f->ignore_index);
    f->tp = class_counts(f->labels, bl_and(valid, bl_eq(f->pred, f->labels)), f->classes);
    f->predicted = class_counts(f->pred, valid, f->classes);
    f->truth = class_counts(f->labels, valid, f->classes);

    bl_tensor both = bl_cast(f->tp, BL_F32);
    bl_tensor any = bl_cast(bl_sub(bl_add(f->truth, f->predicted), f->tp), BL_F32);
    f->iou = bl_div(both, bl_add(any, 1e-10));
}

static bl_status adele_class_iou_check(const bl_dictionary *in, const void *options)
{
    const struct adele_class_iou *o = options;
    return check_labels(bl_dictionary_find(in, "labels"), o->classes, o->ignore_index);
}

/* --- the curve of a class's overlap: f(x) = a (1 - exp(-x^b / c)) ------------------------------
 */

typedef struct curve {
    double a, b, c, objective;
} curve;

typedef struct points {
    const float *iou;
    int64_t count;
    double span;
} points;

/* Residuals (f(x_i) - iou_i) / s_i, at x_i even from 0 to span; s_i falls geometrically from 1 to
 * 0.1, so that late epochs weigh most. */
static void curve_residuals(const double *abc, double *residual, double *jacobian, void *context)
{
    const points *p = context;
    for (int64_t i = 0; i < p->count; i++) {
        double part = (double)i / (double)(p->count - 1), x = part * p->span, s = pow(0.1, part);
        double u = pow(x, abc[1]) / abc[2], left = exp(-u);
        residual[i] = (abc[0] * (1 - left) - (double)p->iou[i]) / s;
        if (!jacobian)
            continue;
        double slope = isfinite(u) ? abc[0] * left * u / s : 0; /* in log u */
        jacobian[3 * i] = (1 - left) / s;
        jacobian[3 * i + 1] = x > 0 ? slope * log(x) : 0;
        jacobian[3 * i + 2] = -slope / abc[2];
    }
}

static bl_status fit_curve(const float *iou, int64_t count, double span, curve *out)
{
    const double low[] = {0, 0, 1e-12}, high[] = {1, 1, INFINITY};
    points p = {iou, count, span};
    double abc[] = {1, 1, 1};
    BL_TRY(bl_least_squares(curve_residuals, &p, count, 3, low, high, abc, &out->objective));
    out->a = abc[0];
    out->b = abc[1];
    out->c = abc[2];
    return BL_OK;
}

#define ADELE_FIT_CURVE(IN, OPT, OUT)                                                              \
    IN(iou, "f32[T]", "finite", "overlap of one class, a value for each epoch; T >= 3")            \
    OPT(span, 0.0, "[0,inf)", "x of the last value; 0: T")                                         \
    OUT(a, "f32[]", "height, in [0,1]")                                                            \
    OUT(b, "f32[]", "power, in [0,1]")                                                             \
    OUT(c, "f32[]", "time scale, positive")                                                        \
    OUT(objective, "f32[]", "sum of squared weighted residuals")

BL_HOST(adele_fit_curve, ADELE_FIT_CURVE, "a (1 - exp(-x^b / c)) through the overlaps of a class")
{
    int64_t count = bl_array_count(&f->iou);
    if (count < 3)
        return bl_fail(BL_INVALID, "iou has %lld values, expected at least 3", (long long)count);
    curve fit;
    BL_TRY(fit_curve(bl_f32(&f->iou), count, f->span > 0 ? f->span : (double)count, &fit));
    bl_array_set(&f->a, 0, fit.a);
    bl_array_set(&f->b, 0, fit.b);
    bl_array_set(&f->c, 0, fit.c);
    bl_array_set(&f->objective, 0, fit.objective);
    return BL_OK;
}

/* f'(y) at y = epoch + 1e-6, as the code has it. */
static double curve_slope(const curve *k, int64_t epoch)
{
    double y = (double)epoch + 1e-6;
    return k->a * k->b / k->c * exp(-pow(y, k->b) / k->c) * pow(y, k->b - 1);
}

/* |f'(e) - f'(1)| / f'(1). A slope that has more than doubled counts as unchanged, and so does
 * every one where the first is 0 (the code divides by 0 there and corrects at once). */
static double relative_change(const curve *k, int64_t epoch)
{
    double first = curve_slope(k, 1);
    double change = first != 0 ? fabs(curve_slope(k, epoch) - first) / first : 0;
    return change > 1 ? 0 : change;
}

/* One more than the number of epochs 1 .. n-1 whose slope has fallen by r at most. */
static int64_t epoch_of_update(const curve *k, int64_t epochs, double r)
{
    int64_t count = 1;
    for (int64_t e = 1; e < epochs; e++)
        count += relative_change(k, e) <= r;
    return count;
}

#define ADELE_UPDATE_EPOCH(IN, OPT, OUT)                                                           \
    IN(a, "f32[]", "finite", "of the fitted curve")                                                \
    IN(b, "f32[]", "finite", "")                                                                   \
    IN(c, "f32[]", "finite, > 0", "")                                                              \
    OPT(n_epoch, BL_REQUIRED_INTEGER, ">= 1", "epochs of the whole run")                           \
    OPT(r, 0.9, "(0,1]", "how far the slope must have fallen")                                     \
    OUT(update_epoch, "i32[]", "when to begin with corrections")                                   \
    OUT(relative_change, "f32[?]", "fall of the slope at epochs 1 .. n_epoch-1")

BL_HOST(adele_update_epoch, ADELE_UPDATE_EPOCH, "the epoch at which a class stops to learn")
{
    const curve k = {bl_array_get(&f->a, 0), bl_array_get(&f->b, 0), bl_array_get(&f->c, 0), 0};
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(f->n_epoch - 1), &f->relative_change));
    for (int64_t e = 1; e < f->n_epoch; e++)
        bl_array_set(&f->relative_change, e - 1, relative_change(&k, e));
    bl_array_set(&f->update_epoch, 0, (double)epoch_of_update(&k, f->n_epoch, f->r));
    return BL_OK;
}

#define ADELE_SHOULD_CORRECT(IN, OPT, OUT)                                                         \
    IN(iou, "f32[T]", "finite, rows > 0", "overlap of one class so far")                           \
    OPT(current_epoch, BL_REQUIRED_INTEGER, "", "last finished epoch, from 0")                     \
    OPT(n_epoch, BL_REQUIRED_INTEGER, ">= 1", "epochs of the whole run")                           \
    OPT(r, 0.9, "(0,1]", "how far the slope must fall")                                            \
    OPT(min_jump, 0.1, "", "a rise that ends the slow start")                                      \
    OUT(correct, "i32[]", "1 from update_epoch on")                                                \
    OUT(update_epoch, "i32[]", "start + that of the fitted curve")                                 \
    OUT(start, "i32[]", "epochs before the first jump")

BL_HOST(adele_should_correct, ADELE_SHOULD_CORRECT, "is it time to correct a class's labels?")
{
    const float *iou = bl_f32(&f->iou);
    int64_t count = bl_array_count(&f->iou), start = 0;
    while (start + 1 < count && (double)iou[start + 1] - (double)iou[start] < f->min_jump)
        start++;
    curve fit = {1, 1, 1, 0};
    if (count - start >= 3)
        BL_TRY(fit_curve(iou + start, count - start, (double)(count - start), &fit));
    int64_t when = start + epoch_of_update(&fit, f->n_epoch, f->r);
    bl_array_set(&f->start, 0, (double)start);
    bl_array_set(&f->update_epoch, 0, (double)when);
    bl_array_set(&f->correct, 0, f->current_epoch >= when);
    return BL_OK;
}

/* --- correction ------------------------------------------------------------------------------- */

#define ADELE_CORRECT_LABELS(IN, OPT, OUT)                                                         \
    IN(labels, "i32[H,W]", "", "mask of one image, with ignore_index")                             \
    IN(probs, "f32[H,W,C]", "", "predictions; class 0 is the background")                          \
    IN(ready, "i32[C]", "in {0,1}", "classes to correct; 0 always is")                             \
    OPT(tau_fg, 0.7, "", "confidence of the best foreground class")                                \
    OPT(tau_bg, 0.7, "", "confidence of the background")                                           \
    OPT(class_constraint, 1, "flag", "only classes that the mask has already")                     \
    OPT(mode, "both", "both|target", "which classes must be ready: old and new")                   \
    OPT(ignore_index, 255, "", "label of pixels to leave out")                                     \
    OUT(labels_new, "i32[H,W]", "the prediction where a pixel flips")

/* Entries of table[C] (bool) at class i32[H,W]; false where `named` is. */
static bl_tensor look_up(bl_tensor table, bl_tensor class, bl_tensor named)
{
    bl_shape shape = bl_type_of(class).shape;
    bl_tensor index = bl_reshape(bl_select(named, class, 0), BL_SHAPE(-1));
    return bl_and(named, bl_reshape(bl_take(table, index), shape));
}

/* Whether the best foreground class, or the background, is above its threshold. */
static bl_tensor above(bl_tensor probs, bl_tensor tau_fg, bl_tensor tau_bg)
{
    bl_tensor fg = bl_reduce_max(bl_slice_axis(probs, 2, 1, bl_dim(probs, 2)), -1);
    bl_tensor bg = bl_pick(probs, 2, 0);
    return bl_or(bl_gt(fg, tau_fg), bl_gt(bg, tau_bg));
}

static bl_contract_check adele_correct_labels_check;

BL_CONTRACT_CHECKED(adele_correct_labels, ADELE_CORRECT_LABELS,
                    "confident pixels of ready classes take the prediction",
                    adele_correct_labels_check)
{
    int64_t classes = bl_dim(f->probs, 2);
    if (classes < 2 || bl_type_count(bl_type_of(f->labels)) == 0) {
        f->labels_new = f->labels; /* there is no foreground to correct */
        return;
    }
    bl_tensor background = bl_eq(bl_iota(graph, BL_I32, BL_SHAPE(classes), 0), 0);
    bl_tensor ready = bl_or(background, bl_ne(f->ready, 0));
    bl_tensor named = bl_ne(f->labels, (double)f->ignore_index);
    bl_tensor occurs = bl_gt(bl_reduce_max(bl_onehot(f->labels, classes, BL_I32), 0, 1), 0);
    bl_tensor concerned = bl_and(bl_and(occurs, ready), bl_not(background));
    bl_tensor any = bl_gt(bl_reduce_max(bl_cast(concerned, BL_I32)), 0);

    bl_tensor pred = bl_argmax(f->probs, -1), always = bl_ge(pred, 0);
    bl_tensor flip = bl_and(any, above(f->probs, f->tau_fg, f->tau_bg));
    flip = bl_and(flip, look_up(ready, pred, always));
    if (bl_is(f->mode, "both"))
        flip = bl_and(flip, look_up(ready, f->labels, named));
    if (f->class_constraint)
        flip = bl_and(flip, look_up(bl_or(background, occurs), pred, always));
    f->labels_new = bl_select(flip, pred, f->labels);
}

static bl_status adele_correct_labels_check(const bl_dictionary *in, const void *options)
{
    const bl_array *probs = bl_dictionary_find(in, "probs");
    return check_labels(bl_dictionary_find(in, "labels"), probs->type.shape.dim[2],
                        ((const struct adele_correct_labels *)options)->ignore_index);
}

const bl_method bl_adele = {
    .slug = "adele",
    .family = "labels",
    .paper = "Liu et al. 2022, arXiv 2110.03740",
    .summary = "corrects wrong segmentation masks, class by class, before they are memorised",
    .when = "Masks are cheap and wrong in a systematic way, and no clean ones exist. Costs two "
            "more forward passes a step and the predictions of an epoch.",
    .example = "ballast show adele_loss",
    .functions = {&adele_loss_contract, &adele_class_iou_contract, &adele_fit_curve_contract,
                  &adele_update_epoch_contract, &adele_should_correct_contract,
                  &adele_correct_labels_contract},
};
