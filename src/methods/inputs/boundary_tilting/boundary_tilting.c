/* Boundary tilting. Tanay and Griffin 2016, arXiv 1608.07690. A linear classifier may be tilted
 * along directions in which the data hardly vary: its errors stay, its distance to the data
 * shrinks, and small perturbations flip it. The tilt is the angle to the nearest-centroid
 * classifier, and weight decay controls it.
 *
 * Class I has label 0 and decision values x.w + b < 0, class J label 1 and > 0. These functions
 * measure, and are computed in double: w may be of any length, and angles near 0 and pi lose half
 * of their digits otherwise. */
#include "methods/method.h"

/* x [B,D]: the decision values [B]. */
static bl_tensor decision(bl_tensor x, bl_tensor w, bl_tensor b)
{
    return bl_add(bl_matmul(x, w), b);
}

/* --- what the conditions cannot say ----------------------------------------------------------- */

static bl_status means_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *i = bl_dictionary_find(in, "mean_i"), *j = bl_dictionary_find(in, "mean_j");
    int64_t size = bl_array_count(i);
    for (int64_t k = 0; k < size; k++)
        if (bl_array_get(i, k) != bl_array_get(j, k))
            return BL_OK;
    return bl_fail(BL_INVALID, "mean_i and mean_j are equal: the class means coincide");
}

/* Column k's mean. */
static double column_mean(const bl_array *x, int64_t k)
{
    int64_t rows = x->type.shape.dim[0], columns = x->type.shape.dim[1];
    double sum = 0;
    for (int64_t r = 0; r < rows; r++)
        sum += bl_array_get(x, r * columns + k);
    return sum / (double)rows;
}

static bl_status classes_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *i = bl_dictionary_find(in, "x_i"), *j = bl_dictionary_find(in, "x_j");
    int64_t columns = i->type.shape.dim[1];
    for (int64_t k = 0; k < columns; k++)
        if (column_mean(i, k) != column_mean(j, k))
            return BL_OK;
    return bl_fail(BL_INVALID, "x_i and x_j have equal means: the class means coincide");
}

/* |direction - (direction.c) c| > 1e-6 |direction|, c = w/|w|. */
static bl_status tilt_check(const bl_dictionary *in, const void *options)
{
    (void)options;
    const bl_array *w = bl_dictionary_find(in, "w"), *d = bl_dictionary_find(in, "direction");
    int64_t size = bl_array_count(w);
    double ww = 0, dw = 0, dd = 0, ss = 0;
    for (int64_t k = 0; k < size; k++) {
        double wk = bl_array_get(w, k), dk = bl_array_get(d, k);
        ww += wk * wk, dw += dk * wk, dd += dk * dk;
    }
    for (int64_t k = 0; k < size; k++) {
        double rest = bl_array_get(d, k) - dw / ww * bl_array_get(w, k);
        ss += rest * rest;
    }
    if (sqrt(ss) <= 1e-6 * sqrt(dd))
        return bl_fail(BL_INVALID, "direction is parallel to w: there is nothing to tilt towards");
    return BL_OK;
}

/* --- the angle -------------------------------------------------------------------------------- */

#define BOUNDARY_TILTING_ANGLE(IN, OPT, OUT)                                                       \
    IN(w, "f32[D]", "grad, not all 0", "normal of the classifier, of any length, to class J")      \
    IN(mean_i, "f32[D]", "grad", "mean of class I on the training data")                           \
    IN(mean_j, "f32[D]", "grad", "mean of class J")                                                \
    OUT(cos, "f32[]", "w.u / (|w| |u|), u = mean_j - mean_i")                                      \
    OUT(angle, "f32[]", "its arc cosine: the tilt in radians, 0 to pi")                            \
    OUT(strength, "f32[]", "1 / |cos|, of adversarial examples; inf at a right angle")             \
    OUT(half_gap, "f32[]", "|u| / 2: the largest mean distance that a boundary can have")

BL_CONTRACT_CHECKED(boundary_tilting_angle, BOUNDARY_TILTING_ANGLE,
                    "how far a linear classifier is tilted", means_check)
{
    bl_tensor w = bl_cast(f->w, BL_F64),
              u = bl_sub(bl_cast(f->mean_j, BL_F64), bl_cast(f->mean_i, BL_F64));
    bl_tensor gap = bl_length(u), to_w = bl_div(w, bl_length(w)), to_u = bl_div(u, gap);
    bl_tensor cosine = bl_clamp(bl_inner(to_w, to_u), -1, 1);
    bl_tensor half = bl_atan2(bl_length(bl_sub(to_w, to_u)), bl_length(bl_add(to_w, to_u)));

    f->cos = bl_to_f32(cosine);
    f->angle = bl_to_f32(bl_mul(2, half));
    f->strength = bl_to_f32(bl_div(1, bl_abs(cosine)));
    f->half_gap = bl_to_f32(bl_mul(0.5, gap));
}

/* --- adversarial points ----------------------------------------------------------------------- */

#define BOUNDARY_TILTING_MIRROR(IN, OPT, OUT)                                                      \
    IN(x, "f32[B,D]", "grad, rows > 0", "points")                                                  \
    IN(w, "f32[D]", "grad, not all 0", "classifier x.w + b")                                       \
    IN(b, "f32[]", "grad", "")                                                                     \
    OPT(strength, 1.0, "finite", "0 stops at the boundary, 1 is the mirror image, -1 stays")       \
    OUT(distance, "f32[B]", "(x.w + b) / |w|, signed")                                             \
    OUT(projection, "f32[B,D]", "the nearest point of the boundary")                               \
    OUT(mirror, "f32[B,D]", "as far on the other side")                                            \
    OUT(adversarial, "f32[B,D]", "x + (1 + strength) (projection - x)")

BL_CONTRACT(boundary_tilting_mirror, BOUNDARY_TILTING_MIRROR,
            "points, their distances and images across the boundary")
{
    bl_tensor w = bl_cast(f->w, BL_F64);
    bl_tensor product = bl_sum(bl_mul(bl_cast(f->x, BL_F64), w), 1);
    bl_tensor value = bl_add(product, bl_cast(f->b, BL_F64));
    /* What is long is the distance; the points are as exact as they are given. */
    bl_tensor step = bl_mul(bl_expand(bl_to_f32(bl_div(value, bl_inner(w, w))), 1), f->w);

    f->distance = bl_to_f32(bl_div(value, bl_length(w)));
    f->projection = bl_sub(f->x, step);
    f->mirror = bl_sub(f->x, bl_mul(2, step));
    f->adversarial = bl_sub(f->x, bl_mul(bl_add(1, f->strength), step));
}

#define BOUNDARY_TILTING_ADVERSARIAL_DISTANCE(IN, OPT, OUT)                                        \
    IN(x_i, "f32[Bi,D]", "grad, rows > 0", "points of class I")                                    \
    IN(x_j, "f32[Bj,D]", "grad, rows > 0", "points of class J")                                    \
    IN(w, "f32[D]", "grad, not all 0", "classifier x.w + b")                                       \
    IN(b, "f32[]", "grad", "")                                                                     \
    OUT(d_adv, "f32[]", "mean of both classes' mean signed distances")                             \
    OUT(cos, "f32[]", "d_adv / half_gap: the cosine of the tilt, whatever b is")                   \
    OUT(half_gap, "f32[]", "half the distance between the means")

BL_CONTRACT_CHECKED(boundary_tilting_adversarial_distance, BOUNDARY_TILTING_ADVERSARIAL_DISTANCE,
                    "how far both classes are from the boundary", classes_check)
{
    bl_tensor i = bl_mean(bl_cast(f->x_i, BL_F64), 0), j = bl_mean(bl_cast(f->x_j, BL_F64), 0);
    bl_tensor w = bl_cast(f->w, BL_F64), b = bl_cast(f->b, BL_F64);
    /* The mean decision is that of the mean. */
    bl_tensor d_i = bl_neg(bl_add(bl_inner(i, w), b)), d_j = bl_add(bl_inner(j, w), b);
    bl_tensor d_adv = bl_div(bl_mul(0.5, bl_add(d_i, d_j)), bl_length(w));
    bl_tensor half_gap = bl_mul(0.5, bl_length(bl_sub(j, i)));

    f->d_adv = bl_to_f32(d_adv);
    f->half_gap = bl_to_f32(half_gap);
    f->cos = bl_to_f32(bl_div(d_adv, half_gap));
}

/* --- tilting ---------------------------------------------------------------------------------- */

#define BOUNDARY_TILTING_TILT(IN, OPT, OUT)                                                        \
    IN(w, "f32[D]", "grad, not all 0", "classifier x.w + b")                                       \
    IN(b, "f32[]", "grad", "")                                                                     \
    IN(direction, "f32[D]", "grad, not all 0", "towards which the normal is tilted")               \
    IN(pivot, "f32[D]", "grad", "the boundaries meet at its projection")                           \
    OPT(theta, 0.5, "(-1.5707963267948966,1.5707963267948966)", "tilt in radians")                 \
    OUT(w, "f32[D]", "cos(theta) w/|w| + sin(theta) s, s the unit part of direction across w")     \
    OUT(b, "f32[]", "so that the projected pivot stays on the boundary")

BL_CONTRACT_APART_CHECKED(boundary_tilting_tilt, BOUNDARY_TILTING_TILT, "tilts a boundary",
                          tilt_check)
{
    bl_tensor w = bl_cast(f->w, BL_F64), pivot = bl_cast(f->pivot, BL_F64),
              theta = bl_cast(f->theta, BL_F64);
    bl_tensor d = bl_cast(f->direction, BL_F64), c = bl_div(w, bl_length(w));
    bl_tensor across = bl_sub(d, bl_mul(bl_inner(d, c), c));
    bl_tensor s = bl_div(across, bl_length(across));
    bl_tensor tilted = bl_add(bl_mul(bl_cos(theta), c), bl_mul(bl_sin(theta), s));
    bl_tensor value = bl_add(bl_inner(pivot, w), bl_cast(f->b, BL_F64));
    bl_tensor on = bl_sub(pivot, bl_mul(bl_div(value, bl_inner(w, w)), w));

    f->out_w = bl_to_f32(tilted);
    f->out_b = bl_to_f32(bl_neg(bl_inner(tilted, on)));
}

/* --- the classifier --------------------------------------------------------------------------- */

#define BOUNDARY_TILTING_OBJECTIVE(IN, OPT, OUT)                                                   \
    IN(x, "f32[B,D]", "grad, rows > 0", "points")                                                  \
    IN(y, "i32[B]", "in {0,1}", "0: class I, 1: class J")                                          \
    IN(w, "f32[D]", "grad", "classifier x.w + b")                                                  \
    IN(b, "f32[]", "grad", "not regularised")                                                      \
    OPT(lam, 0.01, "[0,inf)", "weight decay: the larger, the smaller the tilt")                    \
    OPT(loss, "hinge", "hinge|logistic", "support vectors, or logistic regression")                \
    OUT(loss, "f32[]", "data + lam/2 w.w")                                                         \
    OUT(data, "f32[]", "mean of max(0, 1-m) or log(1 + e^-m), m = (2y-1)(x.w + b)")

BL_CONTRACT_APART(boundary_tilting_objective, BOUNDARY_TILTING_OBJECTIVE,
                  "a linear classifier with weight decay")
{
    bl_tensor sign = bl_sub(bl_mul(2, bl_cast(f->y, BL_F32)), 1);
    bl_tensor margin = bl_mul(sign, decision(f->x, f->w, f->b));
    bl_tensor row = bl_is(f->loss, "hinge") ? bl_relu(bl_sub(1, margin)) /* slope 0 at m = 1 */
                                            : bl_softplus(bl_neg(margin));
    f->out_data = bl_mean(row);
    f->out_loss = bl_add(f->out_data, bl_mul(bl_mul(0.5, f->lam), bl_inner(f->w, f->w)));
}

/* --- where in the spectrum the normal lies ---------------------------------------------------- */

#define BOUNDARY_TILTING_PROFILE(IN, OPT, OUT)                                                     \
    IN(x, "f32[N,D]", "", "training data, N >= 2")                                                 \
    IN(w, "f32[D]", "not all 0", "normal of the classifier")                                       \
    IN(mean_i, "f32[D]", "", "mean of class I")                                                    \
    IN(mean_j, "f32[D]", "", "mean of class J")                                                    \
    OUT(variance, "f32[D]", "of the data along their principal axes, ascending; divides by N")     \
    OUT(normal_energy, "f32[D]", "(v_k.w/|w|)^2 on each axis v_k; their sum is 1")                 \
    OUT(centroid_energy, "f32[D]", "(v_k.u/|u|)^2, u = mean_j - mean_i")

/* The share of v's square that lies on each column of `axes`. */
static bl_tensor energy(bl_tensor v, bl_tensor axes)
{
    return bl_square(bl_matmul(bl_div(v, bl_length(v)), axes));
}

BL_CONTRACT_CHECKED(boundary_tilting_profile, BOUNDARY_TILTING_PROFILE,
                    "how much of the normal lies in directions of low variance", means_check)
{
    int64_t rows = bl_dim(f->x, 0);
    if (rows < 2) {
        bl_poison(graph, "x has %lld rows, expected at least 2", (long long)rows);
        return;
    }
    bl_tensor x = bl_stop_gradient(bl_cast(f->x, BL_F64)), variance, axes;
    bl_tensor centred = bl_sub(x, bl_mean_keep(x, 0));
    bl_eigh(bl_div(bl_dot(centred, centred, true, false), (double)rows), &variance, &axes);
    bl_tensor w = bl_cast(f->w, BL_F64),
              u = bl_sub(bl_cast(f->mean_j, BL_F64), bl_cast(f->mean_i, BL_F64));

    f->variance = bl_to_f32(variance);
    f->normal_energy = bl_stop_gradient(bl_to_f32(energy(w, axes)));
    f->centroid_energy = bl_stop_gradient(bl_to_f32(energy(u, axes)));
}

const bl_method bl_boundary_tilting = {
    .slug = "boundary_tilting",
    .family = "inputs",
    .paper = "Tanay and Griffin 2016, arXiv 1608.07690",
    .summary = "(no arm) measures how far a linear classifier is tilted, and so how easily fooled",
    .when = "To diagnose a linear classifier or a network's last layer, and to choose weight decay "
            "with robustness in view. The measures cost nothing beside training.",
    .functions = {&boundary_tilting_angle_contract, &boundary_tilting_adversarial_distance_contract,
                  &boundary_tilting_mirror_contract, &boundary_tilting_tilt_contract,
                  &boundary_tilting_objective_contract, &boundary_tilting_profile_contract},
    .example = "ballast show boundary_tilting_angle",
};
