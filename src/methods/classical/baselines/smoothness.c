/* Penalties on the network's derivative in its input: the Jacobian of the logits and the gradient
 * of the loss. Their own gradient is a second derivative, which the engine builds like any other.
 *
 * A function of a network is written on (inputs, outputs) tensors, so that it works for any graph;
 * the contract functions fix the two-layer network of the reference cases. */
#include "methods/classical/baselines/weights.h"

/* f(x) = tanh(x w1^T + b1) w2^T + b2 */
static bl_tensor two_layers(bl_tensor x, bl_tensor w1, bl_tensor b1, bl_tensor w2, bl_tensor b2)
{
    bl_tensor hidden = bl_tanh(bl_linear(x, w1, b1));
    return bl_linear(hidden, w2, b2);
}

/* The derivative of sum(y) in x as rows [B, all else]: row b is that of example b. */
static bl_tensor slope_rows(bl_tensor y, bl_tensor x)
{
    bl_tensor dx;
    bl_grad(bl_sum(y), &x, 1, &dx);
    return bl_reshape(dx, BL_SHAPE(bl_dim(x, 0), -1));
}

/* --- Jacobian of the logits ------------------------------------------------------------------- */

/* proj [P,B,C]: unit vectors. */
static bl_tensor jacobian_norm(bl_tensor x, bl_tensor logits, bl_tensor proj)
{
    int64_t projections = bl_dim(proj, 0), batch = bl_dim(proj, 1), classes = bl_dim(proj, 2);
    double scale = (double)classes / (double)(projections * batch);
    bl_tensor total = bl_number(0);
    for (int64_t p = 0; p < projections; p++) {
        bl_tensor v = bl_pick(proj, 0, p);
        total = bl_add(total, bl_sum(bl_square(slope_rows(bl_mul(v, logits), x))));
    }
    return bl_mul(0.5 * scale, total);
}

#define BASE_JACOBIAN_PENALTY(IN, OPT, OUT)                                                        \
    IN(x, "f32[B,D]", "grad, rows > 0", "inputs")                                                  \
    IN(w1, "f32[H,D]", "grad", "network tanh(x w1^T + b1) w2^T + b2")                              \
    IN(b1, "f32[H]", "grad", "")                                                                   \
    IN(w2, "f32[C,H]", "grad", "")                                                                 \
    IN(b2, "f32[C]", "grad", "")                                                                   \
    IN(proj, "f32[P,B,C]", "rows > 0", "unit vectors, drawn at random or (P = C) the basis")       \
    OUT(penalty, "f32[]", "1/2 sum_p C/(P B) sum_b |d <proj_pb, f(x_b)> / dx_b|^2")

BL_CONTRACT(base_jacobian_penalty, BASE_JACOBIAN_PENALTY,
            "squared norm of the input-output Jacobian by random projections (Hoffman et al. 2019)")
{
    bl_tensor logits = two_layers(f->x, f->w1, f->b1, f->w2, f->b2);
    f->penalty = jacobian_norm(f->x, logits, f->proj);
}

#define JACOBIAN(OPT)                                                                              \
    OPT(lam, 0.01, "[0,inf), tune [1e-3,0.3] log", "weight of the term")                           \
    OPT(projections, 1, ">= 1", "random projections a step")

BL_ARM_OPTIONS(jacobian, JACOBIAN)

static void jacobian_loss(bl_step *s, const void *options)
{
    const struct jacobian *o = options;
    bl_shape shape = BL_SHAPE(o->projections, s->batch, s->classes);
    bl_tensor proj = bl_unit_rows(bl_normal(bl_step_key(s, "projection"), shape), 1e-12);
    bl_tensor penalty = jacobian_norm(s->inputs, s->logits, proj);
    bl_measure(s, "jacobian", penalty);
    s->loss = bl_add(s->loss, bl_mul(o->lam, penalty));
}

const bl_method bl_jacobian = {
    .slug = "jacobian",
    .family = "classical",
    .paper = "Hoffman et al. 2019, arXiv 1908.02729",
    .summary = "keeps outputs from reacting to small changes of inputs",
    .when = "When inputs are noisy or may be attacked. Differentiates through a gradient: two to "
            "three times the cost of a plain step.",
    .functions = {&base_jacobian_penalty_contract},
    .options = &jacobian_contract,
    .example = "--arm \"jacobian(lam=0.03)\"",
    .hooks = &(const bl_hooks){.loss = jacobian_loss},
};

/* --- gradient of the loss --------------------------------------------------------------------- */

/* rows [B,D]: the derivative of each example's loss in its input. */
static bl_tensor gradient_size(bl_tensor rows, const char *kind)
{
    if (bl_is(kind, "wgan"))
        return bl_mean(bl_square(bl_sub(bl_norm(rows, 1), 1)));
    return bl_mul(0.5, bl_mean(bl_sum(bl_square(rows), 1)));
}

#define BASE_GRADIENT_PENALTY(IN, OPT, OUT)                                                        \
    IN(x, "f32[B,D]", "grad, rows > 0", "inputs")                                                  \
    IN(w1, "f32[H,D]", "grad", "network tanh(x w1^T + b1) w2^T + b2")                              \
    IN(b1, "f32[H]", "grad", "")                                                                   \
    IN(w2, "f32[C,H]", "grad", "")                                                                 \
    IN(b2, "f32[C]", "grad", "")                                                                   \
    IN(labels, "i32[B]", "0 <= . < C", "class of each example")                                    \
    OPT(kind, "squared", "squared|wgan", "squared: towards 0; wgan: towards length 1")             \
    OUT(penalty, "f32[]", "1/2 mean |g_b|^2, or mean (|g_b| - 1)^2; g_b = d CE_b / dx_b")          \
    OUT(ce, "f32[]", "mean cross-entropy")

BL_CONTRACT(
    base_gradient_penalty, BASE_GRADIENT_PENALTY,
    "size of the loss gradient in the input (Drucker and LeCun 1992; Gulrajani et al. 2017)")
{
    bl_tensor logits = two_layers(f->x, f->w1, f->b1, f->w2, f->b2);
    bl_tensor losses = bl_cross_entropy_rows(logits, f->labels);
    f->ce = bl_mean(losses);
    f->penalty = gradient_size(slope_rows(losses, f->x), f->kind);
}

#define GRADIENT_PENALTY(OPT)                                                                      \
    OPT(lam, 0.01, "[0,inf), tune [1e-3,0.3] log", "weight of the term")                           \
    OPT(kind, "squared", "squared|wgan", "squared: towards 0; wgan: towards length 1")

BL_ARM_OPTIONS(gradient_penalty, GRADIENT_PENALTY)

/* The task's loss is a mean: times B it is the sum whose derivative has a row for each example. */
static void gradient_penalty_loss(bl_step *s, const void *options)
{
    const struct gradient_penalty *o = options;
    bl_tensor mean = bl_task_loss(s, s->logits, s->targets, s->target_form);
    bl_tensor rows = slope_rows(bl_mul((double)s->batch, mean), s->inputs);
    bl_tensor penalty = gradient_size(rows, o->kind);
    bl_measure(s, "gradient", penalty);
    s->loss = bl_add(s->loss, bl_mul(o->lam, penalty));
}

const bl_method bl_gradient_penalty = {
    .slug = "gradient_penalty",
    .family = "classical",
    .paper = "Drucker and LeCun 1992; Gulrajani et al. 2017, arXiv 1704.00028",
    .summary = "keeps the loss from reacting to small changes of inputs",
    .when =
        "As jacobian, but only along the direction that raises the loss. Two to three times the "
        "cost of a plain step.",
    .functions = {&base_gradient_penalty_contract},
    .options = &gradient_penalty_contract,
    .example = "--arm \"gradient_penalty(lam=0.1)\"",
    .hooks = &(const bl_hooks){.loss = gradient_penalty_loss},
};
