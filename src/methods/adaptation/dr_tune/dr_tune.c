/* DR-Tune. Zhou, Chen and Huang, ICCV 2023, arXiv 2308.12058. Fine-tuning a pre-trained encoder on
 * little data overfits, and tying its weights or features hinders learning. DR-Tune ties the head
 * only: it must also classify features that the frozen pre-trained encoder gave for training
 * images, kept in a bank. As the encoder drifts, the bank is moved onto the current features first,
 * by a rotation of all and a shift of each class.
 *
 * Gradients flow in drt_loss alone; the rest is computed without. */
#include "methods/method.h"

/* --- the bank --------------------------------------------------------------------------------- */

#define DRT_BANK_PUSH(IN, OPT, OUT)                                                                \
    IN(pre_bank, "f32[K,D]", "rows > 0", "features of the frozen encoder")                         \
    IN(down_bank, "f32[K,D]", "", "features of the trained one for the same images, when stored")  \
    IN(bank_labels, "i32[K]", "", "their classes")                                                 \
    IN(ptr, "i32[]", "0 <= . < K", "slot to fill next")                                            \
    IN(pre, "f32[B,D]", "", "features of the batch, not normalised")                               \
    IN(down, "f32[B,D]", "", "")                                                                   \
    IN(labels, "i32[B]", ">= 0", "classes of the batch")                                           \
    OUT(pre_bank, "f32[K,D]", "with rows (ptr + i) mod K replaced")                                \
    OUT(down_bank, "f32[K,D]", "")                                                                 \
    OUT(bank_labels, "i32[K]", "")                                                                 \
    OUT(ptr, "i32[]", "(ptr + B) mod K")

BL_CONTRACT_APART(drt_bank_push, DRT_BANK_PUSH, "puts a batch into the ring of features")
{
    int64_t K = bl_dim(f->pre_bank, 0), B = bl_dim(f->pre, 0);
    if (B > K) {
        bl_poison(graph, "pre has %lld rows, expected at most the bank's K = %lld", (long long)B,
                  (long long)K);
        return;
    }
    bl_tensor i = bl_iota(graph, BL_I32, BL_SHAPE(B), 0);
    bl_tensor slot = bl_rem(bl_add(f->ptr, i), (double)K);
    f->out_pre_bank = bl_put(f->pre_bank, slot, bl_stop_gradient(f->pre));
    f->out_down_bank = bl_put(f->down_bank, slot, bl_stop_gradient(f->down));
    f->out_bank_labels = bl_put(f->bank_labels, slot, f->labels);
    f->out_ptr = bl_rem(bl_add(f->ptr, (double)B), (double)K);
}

/* --- the rotation ----------------------------------------------------------------------------- */

/* Step k of elimination with row exchanges on carry[0] [D,D]; carry[1] is the sign so far. */
static void eliminate(bl_graph *g, const bl_tensor *carry, const bl_tensor *x, bl_tensor *next,
                      BL_UNUSED_ bl_tensor *y, BL_UNUSED_ void *context)
{
    bl_tensor matrix = carry[0], k = x[0];
    int64_t D = bl_dim(matrix, 0);
    bl_tensor row = bl_iota(g, BL_I32, BL_SHAPE(D), 0);
    bl_tensor column = bl_squeeze(bl_take(bl_transpose(matrix), bl_expand(k, 0)), 0);
    bl_tensor best = bl_argmax(bl_select(bl_ge(row, k), bl_abs(column), -1), 0);
    bl_tensor order = bl_select(bl_eq(row, k), best, bl_select(bl_eq(row, best), k, row));

    matrix = bl_take(matrix, order);
    column = bl_take(column, order);
    bl_tensor at = bl_expand(k, 0), pivot = bl_squeeze(bl_take(column, at), 0);
    bl_tensor good = bl_ne(pivot, 0);
    bl_tensor factor = bl_select(bl_gt(row, k), bl_div(column, bl_select(good, pivot, 1)), 0);
    next[0] = bl_sub(matrix, bl_mul(bl_expand(factor, 1), bl_take(matrix, at)));
    bl_tensor exchanged = bl_select(bl_eq(best, k), bl_sign(pivot), bl_neg(bl_sign(pivot)));
    next[1] = bl_mul(carry[1], exchanged);
}

/* The sign of the determinant of a [D,D]. */
static bl_tensor determinant_sign(bl_graph *g, bl_tensor a)
{
    int64_t D = bl_dim(a, 0);
    bl_tensor step = bl_iota(g, BL_I32, BL_SHAPE(D), 0), last[2];
    bl_tensor carry[2] = {a, bl_full(g, bl_type_of(a).dtype, BL_SCALAR, 1)};
    bl_scan(g, D, eliminate, NULL, carry, 2, &step, 1, last, NULL, 0);
    return last[1];
}

#define DRT_ROTATE(IN, OPT, OUT)                                                                   \
    IN(x, "f32[K,D]", "rows > 0", "a cloud of points")                                             \
    IN(y, "f32[K,D]", "", "where each of them should go")                                          \
    OPT(restore_mean, 0, "flag", "add the mean of y; else the result is centred at 0")             \
    OUT(x_rot, "f32[K,D]", "(x - mean) rot^T")                                                     \
    OUT(rot, "f32[D,D]", "the proper rotation that brings x closest to y, both centred")

/* S = xc^T yc = U diag(s) V^T gives rot = V U^T; where that is a reflection, the direction of the
 * smallest singular value is turned round. In double: it depends on sums of singular values. */
BL_CONTRACT(drt_rotate, DRT_ROTATE, "rotates one cloud of features towards another")
{
    int64_t D = bl_dim(f->x, 1);
    bl_tensor x = bl_cast(bl_stop_gradient(f->x), BL_F64), u, s, v;
    bl_tensor y = bl_cast(bl_stop_gradient(f->y), BL_F64), mean = bl_mean_keep(y, 0);
    bl_tensor xc = bl_sub(x, bl_mean_keep(x, 0)), yc = bl_sub(y, mean);
    bl_svd(bl_dot(xc, yc, true, false), &u, &s, &v);
    bl_tensor sign = determinant_sign(graph, bl_dot(v, u, false, true));
    bl_tensor last = bl_eq(bl_iota(graph, BL_I32, BL_SHAPE(D), 0), (double)(D - 1));
    bl_tensor proper = bl_mul(v, bl_expand(bl_select(last, sign, 1), 0));
    bl_tensor rot = bl_dot(proper, u, false, true), x_rot = bl_dot(xc, rot, false, true);
    f->rot = bl_cast(rot, BL_F32);
    f->x_rot = bl_cast(f->restore_mean ? bl_add(x_rot, mean) : x_rot, BL_F32);
}

/* --- the shift of each class ------------------------------------------------------------------ */

#define DRT_CLASS_TRANSLATE(IN, OPT, OUT)                                                          \
    IN(pre, "f32[K,D]", "rows > 0", "pre-trained features, rotated")                               \
    IN(down, "f32[K,D]", "", "features of the trained encoder, unit rows")                         \
    IN(labels, "i32[K]", "0 <= . < C", "their classes")                                            \
    IN(head_w, "f32[C,D]", "", "weights of the head")                                              \
    OUT(pre_shifted, "f32[K,D]", "pre + m_down - m_pre of each row's class")

/* [C,D]: for each class the sum of its rows. */
static bl_tensor class_sums(bl_tensor rows, bl_tensor labels, int64_t classes)
{
    bl_tensor none = bl_full(rows.graph, BL_F32, BL_SHAPE(classes, bl_dim(rows, 1)), 0);
    return bl_add_at(none, labels, rows);
}

/* omega: softmax over the members of each class of their cosine with its weights; [K,1]. */
static bl_tensor closeness(bl_tensor down, bl_tensor labels, bl_tensor head)
{
    int64_t K = bl_dim(down, 0), C = bl_dim(head, 0);
    bl_tensor unit = bl_take(bl_unit_rows(head, 1e-12), labels);
    bl_tensor a = bl_sum(bl_mul(down, unit), -1);
    bl_tensor member = bl_eq(bl_iota(down.graph, BL_I32, BL_SHAPE(C, K), 0), labels);
    bl_tensor all = bl_masked_logsumexp(bl_broadcast(a, BL_SHAPE(C, K)), member, 1);
    return bl_expand(bl_exp(bl_sub(a, bl_take(all, labels))), 1);
}

BL_CONTRACT(drt_class_translate, DRT_CLASS_TRANSLATE, "shifts each class of the bank")
{
    bl_tensor pre = bl_stop_gradient(f->pre), down = bl_stop_gradient(f->down);
    int64_t C = bl_dim(f->head_w, 0);
    bl_tensor omega = closeness(down, f->labels, bl_stop_gradient(f->head_w));
    bl_tensor m_down = class_sums(bl_mul(omega, down), f->labels, C);
    bl_tensor members = class_sums(bl_ones_like(omega), f->labels, C);
    bl_tensor m_pre = bl_div(class_sums(pre, f->labels, C), bl_max(members, 1));
    f->pre_shifted = bl_add(pre, bl_take(bl_sub(m_down, m_pre), f->labels));
}

/* --- together --------------------------------------------------------------------------------- */

#define DRT_CALIBRATE(IN, OPT, OUT)                                                                \
    IN(pre_bank, "f32[K,D]", "rows > 0", "as drt_bank_push keeps it")                              \
    IN(down_bank, "f32[K,D]", "", "")                                                              \
    IN(labels, "i32[K]", "0 <= . < C", "classes of the bank")                                      \
    IN(head_w, "f32[C,D]", "", "current weights of the head")                                      \
    IN(z_down, "f32[B,D]", "rows > 0",                                                             \
       "current features of the batch: their mean norm is the "                                    \
       "result's")                                                                                 \
    OPT(rotate, 1, "flag", "rotate first; the official code does every tenth step")                \
    OPT(restore_mean, 0, "flag", "as drt_rotate; makes no difference after the shift")             \
    OUT(z_cal, "f32[K,D]", "the bank as the head will see it")

BL_CONTRACT(drt_calibrate, DRT_CALIBRATE, "moves the bank onto the current features")
{
    bl_tensor p = bl_unit_rows(bl_stop_gradient(f->pre_bank), 1e-12);
    bl_tensor d = bl_unit_rows(bl_stop_gradient(f->down_bank), 1e-12);
    if (f->rotate) {
        struct drt_rotate r = {.x = p, .y = d, .restore_mean = f->restore_mean};
        bl_call(drt_rotate, &r);
        p = r.x_rot;
    }
    struct drt_class_translate t = {.pre = p, .down = d, .labels = f->labels, .head_w = f->head_w};
    bl_call(drt_class_translate, &t);
    bl_tensor length = bl_mean(bl_norm(bl_stop_gradient(f->z_down), -1));
    f->z_cal = bl_mul(bl_unit_rows(t.pre_shifted, 1e-12), length);
}

/* --- the loss --------------------------------------------------------------------------------- */

#define DRT_LOSS(IN, OPT, OUT)                                                                     \
    IN(z_down, "f32[B,D]", "grad, rows > 0", "features of the trained encoder")                    \
    IN(labels, "i32[B]", "0 <= . < C", "classes")                                                  \
    IN(z_cal, "f32[K,D]", "rows > 0", "the calibrated bank")                                       \
    IN(bank_labels, "i32[K]", "0 <= . < C", "its classes")                                         \
    IN(head_w, "f32[C,D]", "grad", "the linear head")                                              \
    IN(head_b, "f32[C]", "grad", "")                                                               \
    OPT(reduction, "concat", "concat|sum_means",                                                   \
        "one mean over B + K rows (official), or a mean each")                                     \
    OPT(lam, 1.0, "[0,inf)", "weight of the bank")                                                 \
    OUT(loss, "f32[]", "concat: (B task + lam K dr) / (B + K); sum_means: task + lam dr")          \
    OUT(task, "f32[]", "mean cross-entropy of the batch")                                          \
    OUT(dr, "f32[]", "and of the bank")

static bl_tensor head_loss(bl_tensor z, bl_tensor labels, bl_tensor w, bl_tensor b)
{
    return bl_cross_entropy(bl_linear(z, w, b), labels);
}

BL_CONTRACT(drt_loss, DRT_LOSS, "the head must classify current and pre-trained features")
{
    double B = (double)bl_dim(f->z_down, 0), K = (double)bl_dim(f->z_cal, 0);
    f->task = head_loss(f->z_down, f->labels, f->head_w, f->head_b);
    f->dr = head_loss(bl_stop_gradient(f->z_cal), f->bank_labels, f->head_w, f->head_b);
    bl_tensor weighted = bl_mul(f->lam, f->dr);
    f->loss = bl_is(f->reduction, "sum_means")
                  ? bl_add(f->task, weighted)
                  : bl_add(bl_mul(f->task, B / (B + K)), bl_mul(weighted, K / (B + K)));
}

const bl_method bl_dr_tune = {
    .slug = "dr_tune",
    .family = "adaptation",
    .paper = "Zhou, Chen and Huang 2023, arXiv 2308.12058",
    .summary = "(no arm) fine-tunes an encoder whose head must also know pre-trained features",
    .when =
        "A good pre-trained encoder of the same architecture, and tens to a few thousand images a "
        "class. Costs a forward pass of the frozen encoder, and a rotation every tenth step.",
    .functions = {&drt_loss_contract, &drt_calibrate_contract, &drt_rotate_contract,
                  &drt_class_translate_contract, &drt_bank_push_contract},
    .example = "ballast check tests/cases/22-dr-tune/drt_calibrate-1.safetensors",
};
