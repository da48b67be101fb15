/* SORSA. Cao, arXiv 2409.00055 (2024). The leading singular part of a weight is trained as three
 * tensors, the vectors a and b and the values s, while the rest is frozen; a penalty keeps the
 * vectors orthonormal, so that scale lives in s alone.
 *
 * Conventions of the code: y = x W^T and W^T = U S V^T, a = U_r^T, s = S_r, b = V_r, and the
 * adapter is (b * s) a, where b * s scales the columns of b. */
#include "methods/method.h"

/* (b * s) a [O,I]. */
static bl_tensor adapter(bl_tensor a, bl_tensor s, bl_tensor b)
{
    return bl_matmul(bl_mul(b, bl_expand(s, 0)), a);
}

/* --- the start -------------------------------------------------------------------------------- */

#define SORSA_INIT(IN, OPT, OUT)                                                                   \
    IN(w, "f32[O,I]", "finite", "weight of a dense layer, y = x w^T")                              \
    OPT(rank, 4, ">= 1", "of the adapter, at most min(O,I)")                                       \
    OPT(scale, 1.0, "finite", "of the adapter, not 0; alpha / rank, and 1 where alpha is not set") \
    OUT(a, "f32[rank,I]", "leading singular vectors")                                              \
    OUT(s, "f32[rank]", "singular values, largest first")                                          \
    OUT(b, "f32[O,rank]", "leading singular vectors of the other side")                            \
    OUT(w_res, "f32[O,I]", "w - scale (b * s) a, to be frozen")

/* In double: vectors of close singular values are sensitive, and it is done once. */
BL_CONTRACT(sorsa_init, SORSA_INIT, "splits a weight into adapter and residual")
{
    if (bl_is_number(f->scale) && f->scale.number == 0) {
        bl_poison(graph, "option scale is 0, expected another number");
        return;
    }
    bl_tensor w = bl_cast(bl_stop_gradient(f->w), BL_F64), u, s, v;
    bl_truncated_svd(bl_transpose(w), f->rank, &u, &s, &v);
    bl_tensor a = bl_transpose(u), scale = bl_cast(f->scale, BL_F64);
    f->a = bl_cast(a, BL_F32);
    f->s = bl_cast(s, BL_F32);
    f->b = bl_cast(v, BL_F32);
    f->w_res = bl_cast(bl_sub(w, bl_mul(scale, adapter(a, s, v))), BL_F32);
}

/* --- use -------------------------------------------------------------------------------------- */

#define SORSA_LINEAR(IN, OPT, OUT)                                                                 \
    IN(x, "f32[N,I]", "grad", "inputs of the layer")                                               \
    IN(w_res, "f32[O,I]", "", "frozen residual")                                                   \
    IN(a, "f32[r,I]", "grad", "the adapter")                                                       \
    IN(s, "f32[r]", "grad", "")                                                                    \
    IN(b, "f32[O,r]", "grad", "")                                                                  \
    IN(bias, "f32[O]", "grad", "")                                                                 \
    OPT(scale, 1.0, "finite", "of the adapter")                                                    \
    OUT(y, "f32[N,O]", "x (w_res + scale (b * s) a)^T + bias")

/* ((x a^T) * s) b^T: two thin products instead of the dense (b * s) a. */
BL_CONTRACT(sorsa_linear, SORSA_LINEAR, "a dense layer with its adapter")
{
    bl_tensor inner = bl_mul(bl_dot(f->x, f->a, false, true), bl_mul(f->scale, f->s));
    bl_tensor frozen = bl_dot(f->x, bl_stop_gradient(f->w_res), false, true);
    f->y = bl_add(bl_add(frozen, bl_dot(inner, f->b, false, true)), f->bias);
}

#define SORSA_MERGE(IN, OPT, OUT)                                                                  \
    IN(w_res, "f32[O,I]", "", "frozen residual")                                                   \
    IN(a, "f32[r,I]", "grad", "the adapter")                                                       \
    IN(s, "f32[r]", "grad", "")                                                                    \
    IN(b, "f32[O,r]", "grad", "")                                                                  \
    OPT(scale, 1.0, "finite", "of the adapter")                                                    \
    OUT(w, "f32[O,I]", "w_res + scale (b * s) a")

BL_CONTRACT(sorsa_merge, SORSA_MERGE, "the weight for inference")
{
    f->w = bl_add(bl_stop_gradient(f->w_res), bl_mul(f->scale, adapter(f->a, f->s, f->b)));
}

/* --- the penalty ------------------------------------------------------------------------------ */

#define SORSA_ORTHONORMALITY(IN, OPT, OUT)                                                         \
    IN(a, "f32[L,r,I]", "grad, rows > 0", "of L adapters of equal shape")                          \
    IN(b, "f32[L,O,r]", "grad", "")                                                                \
    OPT(reduction, "mean", "mean|sum", "over the 2 L matrices")                                    \
    OPT(tiny, 1e-6, "[0,inf)", "a gap this small has no gradient: it is rounding")                 \
    OUT(loss, "f32[]", "|a a^T - 1| and |b^T b - 1|, Frobenius, not squared")

/* [L]: |gram - 1| of gram [L,r,r]; a constant where at most `tiny`. */
static bl_tensor gap(bl_tensor gram, bl_tensor tiny)
{
    bl_shape shape = bl_type_of(gram).shape;
    bl_tensor same =
        bl_eq(bl_iota(gram.graph, BL_I32, shape, -2), bl_iota(gram.graph, BL_I32, shape, -1));
    bl_tensor square = bl_square(bl_sub(gram, bl_cast(same, BL_F32)));
    bl_tensor distance = bl_sqrt(bl_sum(square, -1, -2));
    return bl_select(bl_gt(distance, tiny), distance, bl_stop_gradient(distance));
}

BL_CONTRACT(sorsa_orthonormality, SORSA_ORTHONORMALITY, "how far the vectors are from orthonormal")
{
    int64_t r = bl_dim(f->a, 1), I = bl_dim(f->a, 2), O = bl_dim(f->b, 1);
    if (r > I || r > O) {
        bl_poison(graph,
                  "rank r is %lld, expected at most %lld: so many vectors cannot be "
                  "orthonormal",
                  (long long)r, (long long)(I < O ? I : O));
        return;
    }
    bl_tensor of_a = gap(bl_dot(f->a, f->a, false, true), f->tiny);
    bl_tensor of_b = gap(bl_dot(f->b, f->b, true, false), f->tiny);
    bl_tensor both = bl_add(of_a, of_b);
    f->loss = bl_is(f->reduction, "sum") ? bl_sum(both) : bl_mul(0.5, bl_mean(both));
}

/* --- analysis --------------------------------------------------------------------------------- */

#define SORSA_DRIFT(IN, OPT, OUT)                                                                  \
    IN(w0, "f32[O,I]", "finite", "weight before")                                                  \
    IN(wt, "f32[O,I]", "finite", "after")                                                          \
    OUT(delta_sigma, "f32[]", "mean change of the singular values")                                \
    OUT(delta_d, "f32[]", "0: no singular vector turned; ill-conditioned where values are close")

/* Sum over the columns of |<p_i, q_i>|. */
static bl_tensor alignment(bl_tensor p, bl_tensor q)
{
    return bl_sum(bl_abs(bl_sum(bl_mul(p, q), 0)));
}

BL_CONTRACT(sorsa_drift, SORSA_DRIFT, "how far tuning moved a weight's singular structure")
{
    bl_tensor u0, s0, v0, ut, st, vt;
    bl_svd(bl_transpose(bl_cast(bl_stop_gradient(f->w0), BL_F64)), &u0, &s0, &v0);
    bl_svd(bl_transpose(bl_cast(bl_stop_gradient(f->wt), BL_F64)), &ut, &st, &vt);
    bl_tensor aligned = bl_add(alignment(ut, u0), alignment(vt, v0));
    bl_tensor turned = bl_sub(1, bl_div(aligned, 2 * (double)bl_dim(s0, 0)));
    f->delta_sigma = bl_cast(bl_mean(bl_abs(bl_sub(st, s0))), BL_F32);
    f->delta_d = bl_cast(turned, BL_F32);
}

const bl_method bl_sorsa = {
    .slug = "sorsa",
    .family = "adaptation",
    .paper = "Cao 2024, arXiv 2409.00055",
    .summary = "(no arm) trains a weight's leading singular vectors and values, kept orthonormal",
    .when =
        "Fine-tuning few parameters of a trained network, and low-rank adapters learn too slowly. "
        "Costs a singular value decomposition of each weight at the start.",
    .functions = {&sorsa_orthonormality_contract, &sorsa_init_contract, &sorsa_linear_contract,
                  &sorsa_merge_contract, &sorsa_drift_contract},
    .example = "ballast check tests/cases/45-sorsa/sorsa_linear-1.safetensors",
};
