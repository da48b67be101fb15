/* The steps of SGD and Adam as functions: what a training step does, on arrays. The trainer's own
 * optimisers are held to them. */
#include "methods/classical/baselines/weights.h"

#define BASE_SGD_STEP(IN, OPT, OUT)                                                                \
    IN(w, "f32[S...]", "", "weights")                                                              \
    IN(grad, "f32[S...]", "", "gradient of the loss")                                              \
    IN(buf, "f32[S...]", "", "momentum buffer, zero at first")                                     \
    OPT(lr, BL_REQUIRED, "[0,inf)", "learning rate")                                               \
    OPT(momentum, 0.9, "[0,1)", "share of the buffer kept")                                        \
    OPT(nesterov, 0, "flag", "look ahead along the buffer")                                        \
    OPT(weight_decay, 5e-4, "[0,inf)", "decay")                                                    \
    OPT(decoupled, 0, "flag", "decay the weights, not the gradient")                               \
    OUT(w_new, "f32[S...]", "w - lr step; step = buf_new, or g + momentum buf_new (nesterov)")     \
    OUT(buf_new, "f32[S...]", "momentum buf + g; g = grad + weight_decay w unless decoupled")

BL_CONTRACT(base_sgd_step, BASE_SGD_STEP, "one step of SGD with momentum")
{
    bl_tensor w = f->w, g = f->grad;
    if (f->decoupled)
        w = bl_mul(w, bl_sub(1, bl_mul(f->lr, f->weight_decay)));
    else
        g = bl_add(g, bl_mul(f->weight_decay, w));
    f->buf_new = bl_add(bl_mul(f->momentum, f->buf), g);
    bl_tensor step = f->nesterov ? bl_add(g, bl_mul(f->momentum, f->buf_new)) : f->buf_new;
    f->w_new = bl_sub(w, bl_mul(f->lr, step));
}

#define BASE_ADAM_STEP(IN, OPT, OUT)                                                               \
    IN(w, "f32[S...]", "", "weights")                                                              \
    IN(grad, "f32[S...]", "", "gradient of the loss")                                              \
    IN(m, "f32[S...]", "", "mean of gradients, zero at first")                                     \
    IN(v, "f32[S...]", "", "mean of squares, zero at first")                                       \
    IN(step, "i32[]", ">= 1", "1 for the first step")                                              \
    OPT(lr, 1e-3, "[0,inf)", "learning rate")                                                      \
    OPT(beta1, 0.9, "[0,1)", "share of m kept")                                                    \
    OPT(beta2, 0.999, "[0,1)", "share of v kept")                                                  \
    OPT(eps, 1e-8, "[0,inf)", "added to the root")                                                 \
    OPT(weight_decay, 0.0, "[0,inf)", "decay")                                                     \
    OPT(decoupled, 1, "flag", "decay the weights, not the gradient: AdamW")                        \
    OUT(w_new, "f32[S...]", "w - lr (m_new/(1-b1^t)) / (sqrt(v_new)/sqrt(1-b2^t) + eps)")          \
    OUT(m_new, "f32[S...]", "b1 m + (1-b1) g; g = grad + weight_decay w unless decoupled")         \
    OUT(v_new, "f32[S...]", "b2 v + (1-b2) g^2")

BL_CONTRACT(base_adam_step, BASE_ADAM_STEP, "one step of Adam or AdamW")
{
    bl_tensor w = f->w, g = f->grad;
    if (f->decoupled)
        w = bl_mul(w, bl_sub(1, bl_mul(f->lr, f->weight_decay)));
    else
        g = bl_add(g, bl_mul(f->weight_decay, w));
    f->m_new = f->m, f->v_new = f->v;
    bl_tensor direction = bl_adam(g, f->step, f->beta1, f->beta2, f->eps, &f->m_new, &f->v_new);
    f->w_new = bl_sub(w, bl_mul(f->lr, direction));
}

const bl_method bl_optimizers = {
    .slug = "optimizers",
    .family = "classical",
    .paper = "Sutskever et al. 2013; Kingma and Ba 2015; Loshchilov and Hutter 2019",
    .summary = "(no arm) the steps of SGD, Adam and AdamW as functions",
    .when = "Not an arm: choose the optimiser of a run by the recipe.",
    .functions = {&base_sgd_step_contract, &base_adam_step_contract},
    .example = "ballast train digits --optimizer adamw",
};
